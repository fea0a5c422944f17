"""Pieces of a BIDS-like folder, written with nibabel."""

import nibabel as nib
import numpy as np

from cineray.datasets.sources.derivatives import DerivativesConfig

__all__ = ["AFFINE", "SCANS", "SHAPE", "TR_S", "save_nifti", "source", "write_events"]

SHAPE, SCANS, TR_S = (4, 3, 5), 20, 2.0
AFFINE = np.diag([3.0, 3, 3, 1])


def write_events(path, rows, columns="onset\tduration\ttrial_type\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(columns + "".join(f"{onset}\t{length}\t{name}\n" for onset, length, name in rows))


def save_nifti(path, x, tr_s=TR_S, units="sec", affine=AFFINE):
    image = nib.Nifti1Image(x.astype(np.float32), affine)
    image.header.set_xyzt_units("mm", units)
    image.header["pixdim"][4] = tr_s
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def source(place, **settings):
    values = {"folder": str(place / "bids"), "atlas": [str(place / "atlas.nii.gz")]} | settings
    return DerivativesConfig.parse(values)
