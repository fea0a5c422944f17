"""Processes of their own for the benchmark of features.

python -m benchmarks.bench_features_child memory FOLDER N          a job on a private Ray with N actors: RssAnon of
                                                                   driver and actor before it and at its peak, in bytes
python -m benchmarks.bench_features_child watched FOLDER LOG S N   a job on a private Ray with N actors, to be killed
"""

import sys
from functools import partial

import torch
from benchmarks import bench_features_memory
from benchmarks.bench_features_data import WatchedConfig

from cineray.cluster.connect import connected
from cineray.datasets.extraction import extract


def memory(folder: str, num_actors: str) -> None:
    """Pool every clip, looked at from outside."""
    torch.set_num_threads(1)
    with connected(num_cpus=int(num_actors)):
        bench_features_memory.job(folder, int(num_actors))


def watched(folder: str, log: str, seconds: str, num_actors: str) -> None:
    """The watched encoder on Ray."""
    with connected(num_cpus=int(num_actors)):
        from cineray.datasets.features import on_ray

        encoder = WatchedConfig(log=log, seconds=float(seconds))
        extract(folder, encoder, workers=partial(on_ray, num_actors=int(num_actors)))


if __name__ == "__main__":
    {"memory": memory, "watched": watched}[sys.argv[1]](*sys.argv[2:])
