"""What every test may use: the data folder, one thread, and no telemetry."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside the tests

from fixtures_ray import ray_cluster
from fixtures_s3 import fault_proxy, s3_endpoint, s3_url

__all__ = ["fault_proxy", "ray_cluster", "s3_endpoint", "s3_url"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

REPOSITORY = Path(__file__).parent.parent
DATA = Path(os.environ.get("CINERAY_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data_folder():
    """Folder of real data by name; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        if not (DATA / name).is_dir():
            pytest.skip(f"real data folder '{name}' is not at CINERAY_DATA ({DATA})")
        return DATA / name

    return find


@pytest.fixture(autouse=True)
def one_thread():
    """Torch on one thread, so that timings and sums do not depend on the machine."""
    import torch

    torch.set_num_threads(1)
