"""perf.D1-D9, D12, D16 and M1-M3: cineray's data plane beside its peers, in one run on one machine.

    make bench-stream        or        python -m benchmarks.bench_stream [--rows 1024] [--out docs/results/streaming.md]

Every reader delivers the same rows, fully shuffled where it can, into preallocated staging tensors; its bytes are
checked first. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import torch
from benchmarks import bench_stream_data as data
from benchmarks import bench_stream_memory as memory
from benchmarks import bench_stream_ray as on_ray
from benchmarks import bench_stream_readers as readers
from benchmarks.bench_stream_measure import BATCH, PAIRS, ROW_BYTES, Ratio, Reader, alternate
from benchmarks.bench_stream_peers import AbsentError, Child
from benchmarks.bench_stream_report import Line, write_report
from benchmarks.goals import figures

from cineray.datasets.dataset import Dataset

D16_STIMULI = 256
D16_REPEATS = 3
M1_FACTOR = 8
SETTLE_S = 1.0
"""Before each measurement beside Ray Data: nobody pays for putting the other's execution away."""
REFERENCE_EPOCHS = 4000
"""Epochs of the reference stream of D5: more than its samples can use up."""


class Bench:
    """One run: the folder, the rows, what every reader must deliver, and the lines found so far."""

    def __init__(self, folder: Path, num_rows: int) -> None:
        self.folder, self.num_rows = folder, num_rows
        self.rows = data.make_rows(folder, num_rows)
        self.dataset = data.write_ours(folder / "ours", folder, num_rows)
        self.one_table = data.write_one_table(folder / "one", self.rows)
        self.ours = readers.ours(self.dataset)
        self.truth = readers.memmap(self.rows).digest()
        self.lines: list[Line] = []
        self.verify(self.ours)

    def verify(self, reader: Reader | Child) -> None:
        """Every row once, every byte right; also warms the reader up."""
        if (found := reader.digest()) != self.truth:
            raise AssertionError(f"{reader.name} delivered other rows than were written ({found[:12]})")

    def ratio(self, key: str, what: str, theirs: Reader | Child, ours: Reader | None = None) -> Ratio:
        """One side-by-side ratio, checked before it is measured."""
        ours = ours or self.ours
        self.verify(theirs)
        found = alternate(ours, theirs)
        self.add(Line.of_ratio(key, what, found))
        return found

    def add(self, line: Line) -> None:
        """Keep and print a line."""
        self.lines.append(line)
        print(line.text(), flush=True)

    def absent(self, key: str, what: str, reason: str) -> None:
        """A peer that cannot run here is listed, never estimated."""
        self.add(Line(key, what, None, note=f"absent: {reason}"))


def in_process(bench: Bench) -> None:
    """D1, D2, D3, D6, D9: peers that run in this process."""
    folder = bench.folder
    fastest = min((readers.memmap(bench.rows), readers.memmap_rows(bench.rows)), key=_cpu_of_an_epoch)
    bench.ratio("perf.D1/warm", f"{fastest.name} gather", fastest)
    first = readers.ours_first_touch(folder / "ours")
    bench.verify(first)
    bench.ratio("perf.D1/first_touch", "both opened anew each epoch", readers.memmap_first_touch(folder), first)
    bench.ratio("perf.D2", "pyarrow ParquetFile, our layout", readers.pyarrow_file("pyarrow", bench.one_table))
    data.write_lists(folder / "lists.parquet", bench.rows)
    lists = readers.pyarrow_file("pyarrow lists", [str(folder / "lists.parquet")])
    bench.ratio("perf.D3", "pyarrow default list<f16>", lists)
    for key, gathered in (("perf.D6/collated", False), ("perf.D6/gathered", True)):
        loaders = [readers.dataloader(folder, num_workers, gathered=gathered) for num_workers in (0, 1, 2)]
        best = min(loaders, key=_cpu_of_an_epoch)
        how = "its collation replaced by array[numbers]" if gathered else "rows collated"
        bench.ratio(key, f"{best.name} (best of 0, 1, 2), {how}", best)
    data.write_hf(folder / "hf", bench.rows)
    bench.ratio("perf.D9", "Hugging Face datasets, shuffled", readers.hugging_face(folder / "hf"))


def _cpu_of_an_epoch(reader: Reader) -> float:
    reader.cost(1)
    return reader.cost(1).cpu_us


def in_children(bench: Bench) -> None:
    """D7 and D8: peers with an environment of their own."""
    peers = {
        "perf.D7": ("mds", "MosaicML Streaming, MDS, shuffle"),
        "perf.D8": ("webdataset", "WebDataset, shuffle 512"),
    }
    for key, (kind, what) in peers.items():
        try:
            with closing(Child(what, kind, bench.folder, bench.folder / kind)) as child:
                bench.ratio(key, what, child)
        except AbsentError as error:
            bench.absent(key, what, str(error))


def with_ray(bench: Bench) -> None:
    """D4, D5, D12 and M3, on one local cluster."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as scratch, on_ray.cluster(Path(scratch)):
        _controlled(bench)
        _first_batch(bench)
        _byte_pump(bench)
        peak = on_ray.peak_object_store_bytes(bench.dataset, 20)
        # Two staged batches are in flight in the worker; the store would hold them if rows went through it.
        share = peak / (BATCH * ROW_BYTES * 2)
        note = f"{peak:,} bytes in the store at most"
        bench.add(Line("perf.M3", "object store peak / (batch x 2)", share, note=note))


def _controlled(bench: Bench) -> None:
    with closing(on_ray.Controlled(bench.dataset, REFERENCE_EPOCHS)) as controlled:
        through = controlled.reader()
        bench.verify(through)
        direct = readers.ours(bench.dataset)
        bench.ratio("perf.D5", "ours direct (ours through Ray Data / it)", direct, through)


def _first_batch(bench: Bench) -> None:
    def pairs(ours: Callable[[], float]) -> tuple[float, float]:
        found = []
        for _ in range(PAIRS):
            time.sleep(SETTLE_S)
            mine = _warm(ours)
            time.sleep(SETTLE_S)
            found.append((mine, _warm(lambda: on_ray.first_batch_theirs(bench.one_table))))
        return statistics.median(a / b for a, b in found), statistics.median(a for a, _ in found)

    how = "cluster and workers warm; wall time, both sides"
    warm, warm_s = pairs(lambda: on_ray.first_batch_ours(bench.dataset))
    note = f"ours {warm_s:.3f} s; data set open, {how}"
    bench.add(Line("perf.D12/open", "time to first batch / Ray Data read_parquet", warm, note=note))
    anew, anew_s = pairs(lambda: on_ray.first_batch_ours(Dataset.open(bench.folder / "ours")))
    note = f"ours {anew_s:.3f} s; data set opened anew: the CRC of every page is checked first; {how}"
    bench.add(Line("perf.D12/first_touch", "the same, opened anew", anew, note=note))


def _warm(measure: Callable[[], float]) -> float:
    """The second of two in a row. Ray may end workers that were idle for a second; where it did, the first one is the
    start of a process, which is 10 to 50 times our first batch."""
    measure()
    return measure()


def _byte_pump(bench: Bench) -> None:
    bench.verify(on_ray.read_parquet(bench.one_table))
    files, steady, whole = on_ray.more_files(bench.one_table), Ratio(), Ratio()
    peers = (
        (steady, lambda: on_ray.steady_cost(files, bench.num_rows)),
        (whole, lambda: on_ray.read_parquet(bench.one_table).cost(1)),
    )
    for _ in range(PAIRS):
        time.sleep(SETTLE_S)
        ours = bench.ours.cost(8)
        for ratio, theirs in peers:
            time.sleep(SETTLE_S)
            ratio.ours.append(ours)
            ratio.theirs.append(theirs())
            ratio.loads.append(os.getloadavg()[0])
    bench.add(Line.of_ratio("perf.D4/steady", "Ray Data iter_torch_batches, steady state", steady))
    bench.add(Line.of_ratio("perf.D4/whole_epoch", "the same, one epoch with its start", whole))


def sizes(bench: Bench) -> None:
    """D16, M1, M2."""
    repeated = data.write_ours(bench.folder / "repeated", bench.folder, D16_STIMULI, D16_REPEATS)
    stored = sum(info.num_bytes for info in repeated.manifest.objects)
    whole = sum(os.path.getsize(path) for path in bench.one_table)
    flat = whole / bench.num_rows * D16_STIMULI * D16_REPEATS
    note = f"{D16_STIMULI} stimuli shown {D16_REPEATS} times; one table of all rows in the same layout"
    bench.add(Line("perf.D16", "store bytes / denormalised bytes", stored / flat, note=note))

    data.write_ours(bench.folder / "eighth", bench.folder, bench.num_rows // M1_FACTOR)
    small, large = (memory.loader_bytes(bench.folder / name) for name in ("eighth", "ours"))
    note = (
        f"RssAnon {small / 1e6:.1f} to {large / 1e6:.1f} MB for {bench.num_rows // M1_FACTOR} to {bench.num_rows} rows"
    )
    bench.add(Line("perf.M1", "growth of the loader, N to 8N rows (MB)", (large - small) / 1e6, note=note))
    slope, found = memory.bytes_a_row(bench.folder / "narrow")
    note = ", ".join(f"{size:,} rows {num / 1e6:.1f} MB" for size, num in zip(memory.SIZES, found, strict=True))
    bench.add(Line("perf.M2", "slope of RssAnon (bytes a row)", slope, note=note))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=Path("docs/results/streaming.md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-stream-") as folder:
        bench = Bench(Path(folder), arguments.rows)
        in_process(bench)
        in_children(bench)
        sizes(bench)
        with_ray(bench)
    seconds = time.perf_counter() - started
    write_report(arguments.out, bench.lines, arguments.rows, seconds)
    found = [(line.key, line.rounded) for line in bench.lines]
    print(json.dumps(figures([*found, ("other/seconds", round(seconds, 1))])), flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
