import h5py
import numpy as np
import pytest
import zarr

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError
from berg.stimuli.arrays import ArrayPart, open_array

LAST = np.arange(5 * 6 * 7 * 3, dtype=np.uint8).reshape(5, 6, 7, 3)
FIRST = LAST.transpose(0, 3, 1, 2)


def written(folder, kind, array):
    path = folder / f"brick.{kind}"
    if kind == "npy":
        np.save(path, array)
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            file["imgBrick"] = array
    else:
        zarr.save_array(path, array)
    return path


@pytest.mark.parametrize("kind", ["npy", "hdf5", "zarr"])
@pytest.mark.parametrize("array", [LAST, FIRST], ids=["colour last", "colour first"])
def test_any_slice_is_the_same_of_every_kind(tmp_path, kind, array):
    part = open_array(written(tmp_path, kind, array), places="1:4")
    assert part.shape == (3, 3, 6, 7)
    assert part.dtype == np.uint8
    assert len(part) == 3
    np.testing.assert_array_equal(part[0:3], FIRST[1:4])
    np.testing.assert_array_equal(part[1:2], FIRST[2:3])
    np.testing.assert_array_equal(part[2:9], FIRST[3:4])
    assert part[3:9].shape == (0, 3, 6, 7)


def test_pictures_three_pixels_wide_are_not_turned():
    assert ArrayPart(np.zeros((2, 3, 5, 3), np.uint8)).shape == (2, 3, 5, 3)


def test_the_name_of_a_dataset_is_needed_where_there_are_several(tmp_path):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"], file["b"] = LAST, LAST[:2]
    assert len(open_array(tmp_path / "two.h5", "b")) == 2
    for name in (None, "c"):
        with pytest.raises(InvalidParameterError, match=r"two\.h5 holds a, b; say which with dataset='NAME'"):
            open_array(tmp_path / "two.h5", name)


@pytest.mark.parametrize("places", ["1", "a:b", "-1:2", "3:3", "0:6", "5:"])
def test_a_range_that_is_none_is_refused(tmp_path, places):
    path = written(tmp_path, "npy", LAST)
    with pytest.raises(InvalidParameterError, match=r"range"):
        open_array(path, places=places)


def test_files_that_are_no_arrays_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.npy does not exist"):
        open_array(tmp_path / "none.npy")
    for name in ("bad.npy", "bad.h5"):
        (tmp_path / name).write_bytes(b"not an array")
        with pytest.raises(CorruptedFileError, match=rf"{name} cannot be opened as an array"):
            open_array(tmp_path / name)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InvalidParameterError, match=r"x\.txt is no \.npy, HDF5"):
        open_array(tmp_path / "x.txt")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(CorruptedFileError, match=r"objects\.npy cannot be opened"):
        open_array(tmp_path / "objects.npy")
