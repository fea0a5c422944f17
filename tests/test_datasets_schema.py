"""The columns of samples and stimuli: required, of fixed length, and they say what they hold."""

import numpy as np
import pyarrow as pa
import pytest

from cineray.core.errors import DataError
from cineray.datasets.schema import TensorSpec, sample_schema, stimulus_schema, tensor_specs


def test_tensor_columns_are_required_and_describe_themselves():
    spec = TensorSpec("float32", (3, 4), "frames dim", "z-score")
    schema = stimulus_schema({"features": spec})
    field = schema.field("features")
    assert (field.type, field.nullable) == (pa.binary(48), False)
    assert tensor_specs(schema) == {"features": spec}
    assert tensor_specs(sample_schema(7))["fmri"].num_bytes == 7 * np.dtype("float16").itemsize


def test_axes_must_name_every_axis():
    with pytest.raises(DataError, match="axes"):
        TensorSpec("float32", (3, 4), "dim", "z-score")


def test_description_survives_a_parquet_file(tmp_path):
    import pyarrow.parquet as pq

    schema = sample_schema(5)
    pq.write_table(schema.empty_table(), tmp_path / "x.parquet")
    assert tensor_specs(pq.read_schema(tmp_path / "x.parquet")) == tensor_specs(schema)
