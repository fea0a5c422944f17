"""Processes of their own for the benchmark of features.

python -m benchmarks.bench_features_child memory FOLDER            RssAnon before a job and the largest in it, in bytes
python -m benchmarks.bench_features_child watched FOLDER LOG S N   a job on a private Ray with N actors, to be killed
"""

import sys
import threading
from functools import partial
from pathlib import Path

import torch
from benchmarks.bench_features_data import WatchedConfig

from cineray.cluster.connect import connected
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.extraction import extract

SAMPLE_S = 0.002


def rss_anon() -> int:
    """Anonymous memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon; this measurement needs Linux")


def memory(folder: str) -> None:
    """Pool every clip in this process, looked at every few milliseconds."""
    torch.set_num_threads(1)
    before, stop = rss_anon(), threading.Event()
    peak = [before]

    def watch() -> None:
        while not stop.wait(SAMPLE_S):
            peak[0] = max(peak[0], rss_anon())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        extract(folder, PoolConfig())
    finally:
        stop.set()
        thread.join()
    print(before, peak[0])


def watched(folder: str, log: str, seconds: str, num_actors: str) -> None:
    """The watched encoder on Ray."""
    with connected(num_cpus=int(num_actors)):
        from cineray.datasets.features import on_ray

        encoder = WatchedConfig(log=log, seconds=float(seconds))
        extract(folder, encoder, workers=partial(on_ray, num_actors=int(num_actors)))


if __name__ == "__main__":
    {"memory": memory, "watched": watched}[sys.argv[1]](*sys.argv[2:])
