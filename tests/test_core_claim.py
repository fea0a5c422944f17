"""Two commands on one folder: the second is told, and a killed one keeps nobody out."""

import errno
import fcntl
import subprocess
import sys

import pytest

from cineray.cluster import cli
from cineray.core.claim import claimed
from cineray.core.errors import ConflictError
from cineray.core.storage import Store

HOLD = """
import sys, time
from cineray.core.claim import claimed
from cineray.core.storage import Store
with claimed(Store.at(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has claimed the folder ``run``."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"in\n"
        yield process
        process.kill()


def test_another_process_is_kept_out_until_the_first_is_killed(tmp_path, holder):
    store = Store.at(tmp_path / "run")
    with pytest.raises(ConflictError, match=r"another command is writing to .*run; wait for it"), claimed(store):
        pass
    holder.kill()
    holder.wait()
    for _ in range(2):  # and a block that ended keeps nobody out either
        with claimed(store):
            assert store.list() == [], "the lock's file is no content"


@pytest.mark.parametrize("verb", [cli.train, cli.tune])
def test_commands_that_train_are_told_before_they_begin(tmp_path, holder, monkeypatch, verb):
    monkeypatch.setattr("cineray.cluster.connect.connected", lambda **how: pytest.fail("Ray was started"))
    monkeypatch.setattr("cineray.training.feed.open_schedule", lambda run: type("", (), {"num_steps": 1}))
    words = ["search.optim.lr=0.1,0.2"] if verb is cli.tune else []
    with pytest.raises(ConflictError, match="another command"):
        verb(["synthetic:tiny", f"out={tmp_path / 'run'}", *words])


def test_where_nothing_can_be_held_nobody_is_kept_out(tmp_path, monkeypatch, s3_url):
    with claimed(Store.at(s3_url)), claimed(Store.at(s3_url)):
        pass

    def refuse(*of):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claimed(Store.at(tmp_path)):
        pass
