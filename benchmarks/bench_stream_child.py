"""Peers that want an environment of their own: MosaicML Streaming and WebDataset, driven line by line over a pipe.

Runs in `.venvs/peers` (made by `bench_stream_peers`), imports nothing of cineray:
    python bench_stream_child.py KIND ROWS_FOLDER OUT_FOLDER
"""

import glob
import hashlib
import json
import os
import resource
import sys
import time
import zlib

import numpy as np

BATCH = 32
NUM_STAGING = 3
NAMES = ("fmri", "clip", "frames")


def write(kind: str, rows_folder: str, out: str) -> None:
    """The rows in the peer's own format."""
    rows = {name: np.load(f"{rows_folder}/{name}.npy", mmap_mode="r") for name in NAMES}
    num = len(rows["fmri"])
    if kind == "mds":
        from streaming import MDSWriter

        with MDSWriter(out=out, columns=dict.fromkeys(NAMES, "bytes"), size_limit=1 << 27) as writer:
            for i in range(num):
                writer.write({name: rows[name][i].tobytes() for name in NAMES})
    else:
        from webdataset import TarWriter

        os.makedirs(out)
        for number, part in enumerate(np.array_split(np.arange(num), 4)):
            with TarWriter(f"{out}/part-{number}.tar") as writer:
                for i in part:
                    writer.write({"__key__": f"{i:08d}", **{name: rows[name][i].tobytes() for name in NAMES}})


def samples(kind: str, out: str):
    """A function from epoch to an iterator of samples (column -> bytes)."""
    if kind == "mds":
        from streaming import StreamingDataset

        data = StreamingDataset(local=out, shuffle=True, shuffle_seed=0, batch_size=BATCH, num_canonical_nodes=1)
        return lambda epoch: iter(data)
    import random

    from webdataset import WebDataset

    urls = sorted(glob.glob(f"{out}/*.tar"))
    # The shuffle buffer of 512 is WebDataset's usual one; shards are shuffled whole.
    return lambda epoch: iter(WebDataset(urls, shardshuffle=4).shuffle(512, rng=random.Random(epoch)))


def batches(epoch_samples, buffers, epoch):
    """Samples copied into rotating staging memory, as every reader's."""
    filled, number = 0, 0
    for sample in epoch_samples(epoch):
        for name in NAMES:
            buffers[number][name][filled] = np.frombuffer(sample[name], np.uint8)
        filled += 1
        if filled == BATCH:
            yield buffers[number]
            filled, number = 0, (number + 1) % NUM_STAGING
    if filled:
        yield {name: array[:filled] for name, array in buffers[number].items()}


def cpu() -> float:
    """CPU seconds of this process and its finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    import torch

    torch.set_num_threads(1)
    kind, rows_folder, out = sys.argv[1:]
    write(kind, rows_folder, out)
    widths = {name: np.load(f"{rows_folder}/{name}.npy", mmap_mode="r").shape[1] for name in NAMES}
    buffers = [{n: torch.zeros(BATCH, w, dtype=torch.uint8).numpy() for n, w in widths.items()} for _ in range(3)]
    epoch_samples, epoch = samples(kind, out), 0
    answer = sys.stdout
    print(json.dumps({"ready": True}), file=answer, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        sums, rows, cpu_s, wall_s = [], 0, cpu(), time.perf_counter()
        for _ in range(order["epochs"]):
            for batch in batches(epoch_samples, buffers, epoch):
                rows += len(batch["fmri"])
                if order["check"]:
                    columns = zip(*(batch[name] for name in NAMES), strict=True)
                    sums += ["-".join(f"{zlib.crc32(cell):08x}" for cell in row) for row in columns]
            epoch += 1
        found = {"rows": rows, "wall_s": time.perf_counter() - wall_s, "cpu_s": cpu() - cpu_s}
        found["digest"] = hashlib.sha256("\n".join(sorted(sums)).encode()).hexdigest()
        print(json.dumps(found), file=answer, flush=True)


if __name__ == "__main__":
    main()
