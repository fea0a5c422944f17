"""The data contract, written once, with units and a version.

A row of *samples* is one scan (TR) of a run or one beta of a trial, of one subject. A row of *stimuli* is one stretch
of film (or one picture) with the targets that hang on it; *features* are targets computed from it later. Tensors are
required fixed-length binary columns, so that a Parquet page is raw memory (see `cineray.datasets.index`).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from cineray.core.errors import DataError

__all__ = ["SCHEMA_VERSION", "TensorSpec", "feature_schema", "sample_schema", "stimulus_schema", "tensor_specs"]

SCHEMA_VERSION = "1"

BRAIN = "fmri"
"""Name of the voxel column of the sample table."""


@dataclass(frozen=True)
class TensorSpec:
    """What the bytes of a tensor column mean."""

    dtype: str
    shape: tuple[int, ...]
    axes: str
    """Axis names, one word an axis, e.g. ``"frames height width channels"``."""
    unit: str

    def __post_init__(self) -> None:
        if len(self.axes.split()) != len(self.shape):
            raise DataError(f"axes '{self.axes}' do not name the {len(self.shape)} axes of shape {self.shape}")

    @property
    def num_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def field(self, name: str) -> pa.Field:
        """The Arrow column: required, of fixed length, described in its metadata."""
        text = {key: json.dumps(value) for key, value in asdict(self).items()}
        return pa.field(name, pa.binary(self.num_bytes), nullable=False, metadata=text)

    @classmethod
    def of(cls, field: pa.Field) -> "TensorSpec":
        """Read back what `field` wrote."""
        text = {key.decode(): value for key, value in field.metadata.items()}
        dtype, shape, axes, unit = (json.loads(text[name]) for name in ("dtype", "shape", "axes", "unit"))
        return cls(dtype, tuple(shape), axes, unit)


def sample_schema(num_voxels: int, dtype: str = "float16") -> pa.Schema:
    """Columns of one subject's samples.

    ``stimulus_row`` is the row of the stimulus table shown at ``onset_s`` (-1 at rest): the same fact as
    ``stimulus_id`` but in a form that can be gathered without decoding.
    """
    return pa.schema(
        [
            pa.field("subject", pa.string(), nullable=False),
            pa.field("run", pa.string(), nullable=False),
            pa.field("repeat", pa.int32(), nullable=False),
            pa.field("scan", pa.int32(), nullable=False),
            pa.field("onset_s", pa.float64(), nullable=False),
            pa.field("stimulus_id", pa.string(), nullable=True),
            pa.field("offset_s", pa.float64(), nullable=True),
            pa.field("stimulus_row", pa.int64(), nullable=False),
            TensorSpec(dtype, (num_voxels,), "voxels", "z-score").field(BRAIN),
        ],
        metadata={"cineray.schema": SCHEMA_VERSION, "cineray.table": "samples"},
    )


def stimulus_schema(targets: Mapping[str, TensorSpec]) -> pa.Schema:
    """Columns of the stimuli, and one column for each target.

    ``onset_s`` and ``length_s`` place the stimulus inside its ``film``; ``group`` names what must never be split
    (a scene, a category, all repeats of one picture).
    """
    return pa.schema(
        [
            pa.field("stimulus_id", pa.string(), nullable=False),
            pa.field("film", pa.string(), nullable=False),
            pa.field("onset_s", pa.float64(), nullable=False),
            pa.field("length_s", pa.float64(), nullable=False),
            pa.field("group", pa.string(), nullable=False),
            pa.field("caption", pa.string(), nullable=False),
            *[spec.field(name) for name, spec in targets.items()],
        ],
        metadata={"cineray.schema": SCHEMA_VERSION, "cineray.table": "stimuli"},
    )


def feature_schema(target: str, spec: TensorSpec) -> pa.Schema:
    """Columns of one computed target: its rows are those of the stimulus table, in that order."""
    return pa.schema(
        [pa.field("stimulus_id", pa.string(), nullable=False), spec.field(target)],
        metadata={"cineray.schema": SCHEMA_VERSION, "cineray.table": "features"},
    )


def tensor_specs(schema: pa.Schema) -> dict[str, TensorSpec]:
    """The tensor columns of a schema."""
    return {f.name: TensorSpec.of(f) for f in schema if pa.types.is_fixed_size_binary(f.type)}
