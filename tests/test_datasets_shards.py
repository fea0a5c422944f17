"""The files are ordinary Parquet, and their pages are raw memory."""

import hashlib
import zlib

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cineray.core.errors import DataError, IntegrityError
from cineray.datasets.page import read_page_header
from cineray.datasets.schema import TensorSpec, stimulus_schema
from cineray.datasets.shards import ROW_GROUP_ROWS, ShardWriter

SPECS = {
    "features": TensorSpec("float32", (5,), "dim", "z-score"),
    "frames": TensorSpec("uint8", (2, 3, 3), "frames height width", "grey"),
}
NUM_ROWS = 2 * ROW_GROUP_ROWS + 7


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    return {
        "stimulus_id": [f"clip-{i}" for i in range(NUM_ROWS)],
        "film": ["film"] * NUM_ROWS,
        "onset_s": np.arange(NUM_ROWS) / 3,
        "length_s": np.full(NUM_ROWS, 1 / 3),
        "group": [f"scene {i // 9}" for i in range(NUM_ROWS)],
        "caption": ["a cat, é" if i % 2 else "" for i in range(NUM_ROWS)],
        "features": rng.standard_normal((NUM_ROWS, 5)).astype(np.float32),
        "frames": rng.integers(0, 256, (NUM_ROWS, 2, 3, 3), np.uint8),
    }


@pytest.fixture(scope="module")
def shard(values, tmp_path_factory):
    path = tmp_path_factory.mktemp("shard") / "x.parquet"
    writer = ShardWriter(path, stimulus_schema(SPECS))
    for i in range(NUM_ROWS):
        writer.write({name: column[i] for name, column in values.items()})
    return path, writer.close("stimuli/x", kind="stimuli")


def test_description_of_the_object_is_true(shard):
    path, info = shard
    data = path.read_bytes()
    assert (info.num_rows, info.num_bytes) == (NUM_ROWS, len(data))
    assert info.sha256 == hashlib.sha256(data).hexdigest()
    assert info.key == f"stimuli/x-{info.sha256[:16]}.parquet"
    assert info.footer_sha256 == hashlib.sha256(data[-info.footer_bytes :]).hexdigest()
    assert int.from_bytes(data[-8:-4], "little") + 8 == info.footer_bytes


def test_every_page_is_raw_memory_behind_a_header(shard, values):
    path, info = shard
    data, meta = path.read_bytes(), pq.read_metadata(path)
    for number, name in enumerate(meta.schema.names):
        for group in range(meta.num_row_groups):
            chunk = meta.row_group(group).column(number)
            page = data[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size]
            header = read_page_header(page)
            payload = page[header.header_bytes :]
            assert (header.payload_bytes, header.num_values) == (len(payload), chunk.num_values)
            assert header.crc32 == zlib.crc32(payload) == info.crc32(name, group)
            if name in SPECS or name.endswith("_s"):
                rows = slice(group * ROW_GROUP_ROWS, (group + 1) * ROW_GROUP_ROWS)
                assert payload == np.ascontiguousarray(values[name][rows]).tobytes()


def _pyarrow(path, name):
    return pq.read_table(path, page_checksum_verification=True)[name].to_pylist()


def _pandas(path, name):
    return pd.read_parquet(path)[name].tolist()


def _duckdb(path, name):
    return [row[0] for row in duckdb.sql(f"select \"{name}\" from read_parquet('{path}')").fetchall()]


@pytest.mark.parametrize("read", [_pyarrow, _pandas, _duckdb])
def test_other_readers_open_the_file_as_it_is(shard, values, read):
    path, _ = shard
    for name in values:
        expected = [row.tobytes() for row in values[name]] if name in SPECS else list(values[name])
        assert read(path, name) == expected


def test_rows_and_columns_write_the_same_bytes(shard, values, tmp_path):
    writer = ShardWriter(tmp_path / "y.parquet", stimulus_schema(SPECS))
    writer.write_columns(values)
    assert writer.close("stimuli/x", kind="stimuli") == shard[1]


def test_another_layout_is_refused(tmp_path):
    table = pa.table({"x": pa.array([b"abc"] * 50, pa.binary(3))})
    for number, options in enumerate(
        [{"use_dictionary": True}, {"compression": "snappy", "use_dictionary": False}, {"write_page_checksum": False}]
    ):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table, path, **({"compression": "none", "write_page_checksum": True} | options))
        chunk = pq.read_metadata(path).row_group(0).column(0)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        with pytest.raises(IntegrityError, match="expected"):
            read_page_header(path.read_bytes()[start:])


@pytest.mark.parametrize("length", range(0, 40, 3))
def test_a_cut_header_is_refused(shard, length):
    path, _ = shard
    chunk = pq.read_metadata(path).row_group(0).column(6)
    data = path.read_bytes()[chunk.data_page_offset :]
    whole = read_page_header(data).header_bytes
    if length < whole:
        with pytest.raises(IntegrityError):
            read_page_header(data[:length])


def test_random_bytes_are_never_more_than_an_integrity_error():
    rng = np.random.default_rng(1)
    for _ in range(2000):
        try:
            read_page_header(rng.bytes(60))
        except IntegrityError:
            continue


def test_a_row_of_the_wrong_size_is_refused(values, tmp_path):
    writer = ShardWriter(tmp_path / "y.parquet", stimulus_schema(SPECS))
    bad = {name: column[:1] for name, column in values.items()} | {"features": np.zeros((1, 4), np.float32)}
    with pytest.raises(DataError, match="rows of 16 bytes, expected 20"):
        writer.write_columns(bad)
    writer.abandon()
