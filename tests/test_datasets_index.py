"""Gathered rows against numpy, and damage against silence."""

import gc

import numpy as np
import pyarrow.parquet as pq
import pytest

from cineray.core.errors import CinerayError, DataError, IntegrityError
from cineray.datasets.cache import ObjectBytes
from cineray.datasets.index import LOOP_BYTES, ColumnReader, PageIndex
from cineray.datasets.schema import TensorSpec, stimulus_schema
from cineray.datasets.shards import ShardWriter

NUM_ROWS = (300, 5, 256)
"""Rows of three objects: more than a row group, few, exactly one."""


def write(path, num_rows, spec, seed):
    values = np.random.default_rng(seed).integers(0, 256, (num_rows, spec.num_bytes), np.uint8)
    writer = ShardWriter(path, stimulus_schema({"x": spec}))
    writer.write_columns(
        {
            "stimulus_id": [f"{seed}-{i}" for i in range(num_rows)],
            "film": ["film"] * num_rows,
            "onset_s": np.arange(num_rows) * 1.0 + seed,
            "length_s": np.ones(num_rows),
            "group": ["g"] * num_rows,
            "caption": [""] * num_rows,
            "x": values,
        }
    )
    return writer.close("stimuli/x", kind="stimuli"), values


@pytest.fixture(scope="module", params=[1, 3, 400, LOOP_BYTES - 1, LOOP_BYTES])
def column(request, tmp_path_factory):
    """Page indexes of three objects, the number of each one's first row, and all bytes in row order."""
    folder = tmp_path_factory.mktemp("objects")
    spec = TensorSpec("uint8", (request.param,), "bytes", "")
    indexes, values = [], []
    for number, num_rows in enumerate(NUM_ROWS):
        path = folder / f"{number}.parquet"
        info, rows = write(path, num_rows, spec, number)
        indexes.append(PageIndex(ObjectBytes(info, path, None)))
        values.append(rows)
    return indexes, [0, 300, 305], np.concatenate(values)


@pytest.mark.parametrize("access", ["mmap", "pread"])
def test_gather_equals_numpy(column, access):
    indexes, first_rows, values = column
    reader = ColumnReader(indexes, first_rows, "x", access)
    rng = np.random.default_rng(0)
    for rows in (rng.permutation(561), rng.integers(0, 561, 64), np.arange(561), np.array([560]), np.array([], int)):
        assert np.array_equal(reader.gather(rows), values[rows])
        out = np.full((len(rows), values.shape[1]), 7, np.uint8)
        assert reader.gather(rows, out) is out
        assert np.array_equal(out, values[rows])


def test_numbers_are_gathered_too(column):
    indexes, first_rows, _ = column
    rows = np.random.default_rng(0).permutation(561)
    expected = np.concatenate([np.arange(n) + seed for seed, n in enumerate(NUM_ROWS)])
    assert np.array_equal(ColumnReader(indexes, first_rows, "onset_s").gather(rows).view("<f8")[:, 0], expected[rows])


def test_objects_that_are_not_neighbours(column):
    indexes, _, values = column
    reader = ColumnReader([indexes[0], indexes[2]], [1000, 5000], "x")
    assert np.array_equal(reader.gather(np.array([5000, 1299])), values[[305, 299]])
    for row in (-1, 999, 1300, 4999, 5256):
        with pytest.raises(DataError, match=f"row {row} does not belong"):
            reader.gather(np.array([row]))


def test_wrong_buffers_and_columns_are_refused(column):
    indexes, first_rows, values = column
    reader, width = ColumnReader(indexes, first_rows, "x"), values.shape[1]
    strided = np.empty((2, width + 1), np.uint8)[:, 1:]
    for out in (
        np.empty((3, width), np.uint8),
        np.empty((2, width), np.int8),
        np.empty((2, width + 1), np.uint8),
        strided,
    ):
        with pytest.raises(DataError, match="buffer"):
            reader.gather(np.array([0, 1]), out)
    with pytest.raises(DataError, match="no column 'y'"):
        ColumnReader(indexes, first_rows, "y")
    with pytest.raises(DataError, match="read it by pyarrow"):
        ColumnReader(indexes, first_rows, "film")


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "x.parquet"
    info, values = write(path, 300, TensorSpec("uint8", (40,), "bytes", ""), 0)
    return path, info, values


def read_all(path, info, access="mmap"):
    index = PageIndex(ObjectBytes(info, path, None))
    rows = ColumnReader([index], [0], "x", access).gather(np.arange(300))
    return rows, index.table(["stimulus_id", "onset_s"])


def test_no_flipped_bit_is_silent(small):
    """500 single-bit flips anywhere in the file: found, or outside everything that was read."""
    path, info, values = small
    data, rng = path.read_bytes(), np.random.default_rng(0)
    _, table = read_all(path, info)
    found = []
    for position in rng.integers(0, len(data), 500):
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            rows, read = read_all(path, info)
        except IntegrityError as error:
            found.append(str(error))
        else:
            assert np.array_equal(rows, values)
            assert read.equals(table)
    assert len(found) > 300
    assert all(info.key in sentence for sentence in found)


def test_damage_is_named_before_any_row_leaves(small):
    path, info, values = small
    chunk = pq.read_metadata(path).row_group(1).column(6)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1
    path.write_bytes(data)
    reader = ColumnReader([PageIndex(ObjectBytes(info, path, None))], [0], "x")
    assert np.array_equal(reader.gather(np.arange(256)), values[:256])
    out = np.zeros((2, 40), np.uint8)
    for _ in range(2):
        with pytest.raises(IntegrityError, match=rf"column 'x', row group 1 of {info.key}: .*CRC-32"):
            reader.gather(np.array([0, 256]), out)
    assert not out.any()


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[: len(d) // 2], lambda d: b"", lambda d: d + b"x"])
def test_truncation(small, damage):
    path, info, _ = small
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityError, match=rf"bytes, the manifest says {info.num_bytes}"):
        read_all(path, info)


def test_a_sibling_of_equal_size_is_not_taken_for_it(small, tmp_path):
    _, info, _ = small
    swapped = 0
    for seed in range(1, 9):  # the length of a CRC in a page header varies with its value
        path = tmp_path / f"other{seed}.parquet"
        other, _ = write(path, 300, TensorSpec("uint8", (40,), "bytes", ""), seed)
        swapped += other.num_bytes == info.num_bytes
        with pytest.raises(
            IntegrityError, match="the manifest says" if other.num_bytes != info.num_bytes else info.key
        ):
            read_all(path, info)
    assert swapped


def test_files_of_other_writers_with_the_right_names_are_refused(small, tmp_path):
    """Whatever the footer says, a page that is not plain or is not one per row group is not read."""
    path, info, _ = small
    table = pq.read_table(path)
    pq.write_table(table, tmp_path / "y.parquet", compression="snappy")
    with pytest.raises(CinerayError):
        read_all(tmp_path / "y.parquet", info)


def test_index_memory_is_per_row_group(tmp_path):
    import tracemalloc

    spec, sizes = TensorSpec("uint8", (8,), "bytes", ""), []
    for number, num_rows in enumerate((256, 256 * 40)):
        path = tmp_path / f"{number}.parquet"
        info, _ = write(path, num_rows, spec, 0)
        tracemalloc.start()
        reader = ColumnReader([PageIndex(ObjectBytes(info, path, None))], [0], "x")
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(reader.gather(np.arange(num_rows))) == num_rows
    assert sizes[1] - sizes[0] < 40 * 1024


def test_no_parsed_footer_stays_in_memory(small):
    """Pyarrow's form of it takes a kilobyte a page, and its schema keeps it until the garbage collector comes by."""
    path, info, _ = small
    gc.collect()
    gc.disable()
    try:
        index = PageIndex(ObjectBytes(info, path, None))
        index.table(["film"])
        assert index.width("x") == 40
        assert not [thing for thing in gc.get_objects() if type(thing) is pq.FileMetaData]
    finally:
        gc.enable()
