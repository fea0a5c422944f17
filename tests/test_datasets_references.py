"""Ray Data carries the references: in order, whole, to every worker, and where no CPU is left for it."""

import itertools
import json
import tempfile
from contextlib import closing

import numpy as np
import pytest

from cineray.core.errors import IntegrityError
from cineray.datasets.order import Schedule

pytestmark = pytest.mark.cluster

SCHEDULE = Schedule(seed=3, num_examples=1003, batch_size=32)


@pytest.fixture(scope="module")
def cluster():
    import ray

    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100_000_000,
            _temp_dir=folder,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
        ray.shutdown()


def expected(epoch, first_step, num_epochs, schedule=SCHEDULE):
    for e in range(epoch, num_epochs):
        yield from schedule.references(e, first_step if e == epoch else 0)


def equal(found, wanted):
    return all(np.array_equal(a, b) for a, b in itertools.zip_longest(found, wanted, fillvalue=()))


@pytest.mark.parametrize("first", [(0, 0), (1, 17), (1, 31), (2, 32)])
def test_the_stream_is_the_order_exactly_once_from_any_step(cluster, first, monkeypatch):
    from cineray.datasets import references

    monkeypatch.setattr(references, "CHUNK_EXAMPLES", 300)  # several blocks an epoch, which do not end with it
    shard = references.references_dataset(SCHEDULE, *first, num_epochs=3).iterator()
    with closing(references.RayReferences(shard, SCHEDULE)) as stream:
        found = [list(stream(epoch, first[1] if epoch == first[0] else 0)) for epoch in range(first[0], 3)]
    assert equal(itertools.chain(*found), expected(*first, 3))
    for epoch in found[1:]:
        assert sorted(np.concatenate(epoch)) == list(range(1003))


def test_a_step_out_of_turn_is_an_error(cluster):
    from cineray.datasets.references import RayReferences, references_dataset

    def stream(*first):
        return RayReferences(references_dataset(SCHEDULE, *first, num_epochs=2).iterator(), SCHEDULE)

    with closing(stream(0, 5)) as late, pytest.raises(IntegrityError, match="step 5 of epoch 0, expected step 4"):
        next(late(0, 4))
    with closing(stream(1, 0)) as late, pytest.raises(IntegrityError, match="step 0 of epoch 1, expected step 0"):
        next(late(0, 0))
    with closing(stream(1, 30)) as ended:
        assert len(list(ended(1, 30))) == 2
        with pytest.raises(IntegrityError, match="step None"):
            next(ended(2, 0))


def test_every_train_worker_sees_the_whole_stream_with_all_cpus_taken(cluster, tmp_path):
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from cineray.datasets.references import RayReferences, data_config, references_dataset

    def loop():
        import ray.train

        rank = ray.train.get_context().get_world_rank()
        stream = RayReferences(ray.train.get_dataset_shard("references"), SCHEDULE)
        seen = [reference.tolist() for epoch in (0, 1) for reference in stream(epoch, 20 if epoch == 0 else 0)]
        (tmp_path / f"{rank}.json").write_text(json.dumps(seen))  # only rank 0's return value would arrive

    TorchTrainer(
        loop,
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="references", storage_path=str(tmp_path / "runs")),
        datasets={"references": lambda: references_dataset(SCHEDULE, 0, 20, num_epochs=2)},
        dataset_config=data_config(),
    ).fit()
    wanted = [reference.tolist() for reference in expected(0, 20, 2)]
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == wanted
