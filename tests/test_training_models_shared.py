"""The shared decoder that reads scan by scan, against the same sums written out."""

import numpy as np
import torch

from cineray.training.models.base import Sizes, parameter_table
from cineray.training.models.shared import SharedConfig

SIZES = Sizes(voxels={"sub-a": 9, "sub.b": 5}, scans=3, targets={"features": (4,), "tokens": (2, 3)})
SCAN = SharedConfig(read_in="scan", dim=8, depth=0, embedding_dim=0)


def brain(rows=(3, 2)):
    generator = torch.Generator().manual_seed(0)
    return {s: torch.randn(n, 3, v, generator=generator) for (s, v), n in zip(SIZES.voxels.items(), rows, strict=True)}


def test_every_scan_goes_through_the_same_map_and_the_scans_are_joined():
    model = SCAN.build(SIZES).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    p = {name: x.detach().numpy() for name, x in model.named_parameters()}
    expected = []
    for subject, rows in brain().items():
        key = "read_in." + subject.replace(".", "·")
        read = np.einsum("rsv,dv->rsd", rows.double().numpy(), p[f"{key}.weight"]) + p[f"{key}.bias"]
        join = p["join.weight"].reshape(8, 3, 8)
        joined = np.einsum("rsd,osd->ro", read, join) + p["join.bias"]
        expected.append(joined @ p["heads.features.weight"].T + p["heads.features.bias"])
    found = model({s: x.double() for s, x in brain().items()})["features"].detach().numpy()
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-10)


def test_a_subject_has_one_weight_per_voxel_and_dimension_whatever_the_window():
    for scans in (1, 3, 7):
        sizes = Sizes(SIZES.voxels, scans, SIZES.targets)
        table = parameter_table(SCAN.build(sizes))
        assert (table["sub-a"], table["sub.b"]) == (9 * 8 + 8, 5 * 8 + 8)


def test_gradient_reaches_every_parameter_that_reads_scan_by_scan():
    model = SCAN.override({"depth": 1, "embedding_dim": 4}).build(SIZES).eval()
    sum(x.square().mean() for x in model(brain()).values()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_rows_that_taught_nothing_add_nothing():
    """A new layer's answer hardly depends on the brain."""
    model = SCAN.build(SIZES)
    quiet, loud = (model({s: x * k for s, x in brain().items()})["features"] for k in (0.0, 1.0))
    assert (quiet - loud).abs().max() < 0.05
