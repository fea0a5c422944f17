"""A private Ray on this machine, one for each test module that asks for it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def ray_cluster(s3_endpoint: str) -> Iterator[Any]:
    """Two CPUs; its workers know the S3 server and the helpers beside the tests."""
    import ray

    changes = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        ),
        "CUDA_VISIBLE_DEVICES": "",  # two workers on a machine with one GPU, too
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    # Not tmp_path: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100_000_000,
            _temp_dir=folder,
        )
        try:
            yield ray
        finally:
            ray.shutdown()
            for name, value in before.items():
                os.environ.pop(name)
                os.environ.update({} if value is None else {name: value})
