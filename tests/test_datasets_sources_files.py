"""Arrays of every kind of file, written by other libraries, and files that must be refused."""

import zipfile

import h5py
import numpy as np
import pytest
import scipy.io

from cineray.core.errors import DataError
from cineray.datasets.sources import files
from cineray.datasets.sources.files import headers, read_array

X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


def npy(folder, x):
    np.save(folder / "x.npy", x)
    return folder / "x.npy", ""


def npz(folder, x):
    np.savez_compressed(folder / "x.npz", bold=x, other=np.arange(3))
    return folder / "x.npz", "bold"


def mat(folder, x):
    scipy.io.savemat(folder / "x.mat", {"bold": x, "other": np.arange(3), "meta": {"note": 1}})
    return folder / "x.mat", "bold"


def mat73(folder, x):
    """As MATLAB's ``save -v7.3`` lays it out: 512 bytes of header, HDF5, axes reversed."""
    with h5py.File(folder / "x.mat", "w", userblock_size=512) as file:
        file["bold"] = x.T
        file["bold"].attrs["MATLAB_class"] = np.bytes_("single")
        file["#refs#/a"] = np.arange(3)
    return folder / "x.mat", "bold"


def hdf5(folder, x):
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("runs/bold", data=x, compression="gzip")
        file["other"] = np.arange(3)
    return folder / "x.h5", "runs/bold"


WRITERS = [npy, npz, mat, mat73, hdf5]


@pytest.mark.parametrize("write", WRITERS, ids=lambda w: w.__name__)
def test_values_and_header(write, tmp_path):
    path, key = write(tmp_path, X)
    np.testing.assert_array_equal(read_array(path, key), X)
    assert headers(path)[key].shape == X.shape
    assert headers(path)[key].num_gb == X.nbytes / 1e9


@pytest.mark.parametrize("write", WRITERS, ids=lambda w: w.__name__)
def test_complex_and_oversized_are_refused(write, tmp_path, monkeypatch):
    path, key = write(tmp_path, X.astype(complex))
    with pytest.raises(DataError, match="expected real numbers"):
        read_array(path, key)
    path.unlink()
    path, key = write(tmp_path, X)
    monkeypatch.setattr(files, "MAX_GB", 1e-9)
    with pytest.raises(DataError, match=r"\(7, 4\) is .* GB, expected at most"):
        read_array(path, key)


@pytest.mark.parametrize("write", WRITERS, ids=lambda w: w.__name__)
def test_a_file_cut_off_is_refused(write, tmp_path):
    path, key = write(tmp_path, np.arange(20000.0).reshape(100, 200))
    for share in (0.6, 0.01, 0):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        with pytest.raises(DataError, match=f"{path.name} cannot be read"):
            read_array(path, key)


@pytest.mark.parametrize("write", [npz, mat, hdf5, mat73], ids=lambda w: w.__name__)
def test_key_must_be_right(write, tmp_path):
    path, _ = write(tmp_path, X)
    with pytest.raises(DataError, match=r"no array 'bald'; it holds .*bold"):
        read_array(path, "bald")
    if write is not mat73:  # the only file with a single array
        with pytest.raises(DataError, match="name the one to read"):
            read_array(path)


def test_objects_never_load(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    bomb = np.array([Bomb()], dtype=object)
    np.save(tmp_path / "x.npy", bomb, allow_pickle=True)
    np.savez(tmp_path / "y.npz", bold=bomb)
    scipy.io.savemat(tmp_path / "z.mat", {"bold": np.array(["a", 1], dtype=object)})
    for path, key in ((tmp_path / "x.npy", ""), (tmp_path / "y.npz", "bold"), (tmp_path / "z.mat", "bold")):
        for text in (False, True):
            with pytest.raises(DataError, match=r"expected (real numbers|words)"):
                read_array(path, key, text=text)


def test_words(tmp_path):
    np.savez(tmp_path / "x.npz", subjects=np.array(["a", "bb"]))
    assert read_array(tmp_path / "x.npz", "subjects", text=True).tolist() == ["a", "bb"]
    with pytest.raises(DataError, match="expected real numbers"):
        read_array(tmp_path / "x.npz", "subjects")


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", (8,), "f8", external=[(str(tmp_path / "secret"), 0, 64)])
        file["b"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
    with pytest.raises(DataError, match="link to another file"):
        read_array(tmp_path / "x.h5", "a")
    assert "b" not in headers(tmp_path / "x.h5")


def test_missing_unknown_and_bit_flipped(tmp_path):
    with pytest.raises(DataError, match="no file"):
        read_array(tmp_path / "x.npy")
    (tmp_path / "x.pkl").write_bytes(b"x")
    with pytest.raises(DataError, match="no known kind"):
        read_array(tmp_path / "x.pkl")
    np.savez(tmp_path / "x.npz", bold=np.zeros(1000))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[4000] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        read_array(tmp_path / "x.npz", "bold")
    assert zipfile.is_zipfile(tmp_path / "x.npz")
