"""HDF5 that reaches outside its file, says too much, or was written by MATLAB."""

import os

import h5py
import numpy as np
import pytest

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingExtraError, UnsafeFileError
from berg.datasets.label_files import read_labels
from berg.datasets.response_files import open_responses
from berg.evaluation.accuracy_table import read_accuracy
from berg.stimuli.arrays import open_array
from berg.system.hdf5_files import array_names, check_all_inside, hdf5_array, hdf5_values

VALUES = np.arange(24, dtype=np.uint8).reshape(4, 6)


def external_link(file, folder):
    file["x"] = h5py.ExternalLink("secret.h5", "/kept")


def soft_link_through_an_external_one(file, folder):
    file["way"] = h5py.ExternalLink("secret.h5", "/")
    file["x"] = h5py.SoftLink("/way/kept")


def external_storage(file, folder):
    file.create_dataset("x", (4, 6), np.uint8, external=[(str(folder / "secret.bin"), 0, 24)])


def virtual(file, folder):
    layout = h5py.VirtualLayout((4, 6), np.uint8)
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "kept", (4, 6))
    file.create_virtual_dataset("x", layout)


OUTSIDE = {
    external_link: "'x' is an external link to secret.h5",
    soft_link_through_an_external_one: "'x' is an external link to secret.h5",
    external_storage: r"'x' is kept in external storage \(.*secret.bin\)",
    virtual: "'x' is a virtual data set",
}


@pytest.mark.parametrize("write", OUTSIDE)
@pytest.mark.parametrize("read", [read_labels, open_responses, open_array])
def test_a_file_that_reads_another_is_refused_by_the_name_of_the_feature(write, read, tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["kept"] = VALUES
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file, tmp_path)
    with pytest.raises(UnsafeFileError, match=rf"a\.h5: {OUTSIDE[write]}.*Files that read other files are refused"):
        read(tmp_path / "a.h5", "x")


@pytest.mark.parametrize("write", OUTSIDE)
def test_a_table_of_accuracies_reads_no_other_file(write, tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        write(file, tmp_path)
    with pytest.raises(UnsafeFileError, match="Files that read other files are refused"):
        read_accuracy(tmp_path / "a.nc")


def test_an_external_link_to_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("pipe.h5", "/kept")
    with pytest.raises(UnsafeFileError, match=r"external link to pipe\.h5"):
        read_labels(tmp_path / "a.h5")
    for read in (read_labels, open_responses, open_array):
        with pytest.raises(InvalidParameterError, match="is a named pipe; what is read must be a file or a folder"):
            read(tmp_path / "pipe.h5")


def test_links_within_a_file_are_followed_also_in_circles(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/kept"] = VALUES
        file["group/again"] = file["/"]
        file["soft"] = h5py.SoftLink("group/again/group/kept")
        file["turn"] = h5py.SoftLink("/turn")
        file["broken"] = h5py.SoftLink("/nowhere")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.h5", "soft"), VALUES)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.h5", "group/again/soft"), VALUES)
    np.testing.assert_array_equal(open_array(tmp_path / "a.h5", "group/kept")[:], VALUES)
    for name in ("turn", "broken"):
        with pytest.raises(CorruptedFileError, match=name):
            read_labels(tmp_path / "a.h5", name)
    check_all_inside(tmp_path / "a.h5")


def test_a_tree_of_links_with_very_many_ways_through_it_is_listed_at_once(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        below = file.create_group("g0")
        below["x"] = VALUES
        for depth in range(1, 40):
            group = file.create_group(f"g{depth}")
            group["one"] = group["two"] = below
            below = group
        assert array_names(file) == ["g0/x"]


@pytest.mark.parametrize("options", [{}, {"chunks": (2**20,)}])
def test_a_small_file_does_not_cost_much_memory(options, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (2**31,), np.uint8, **options)
    assert (tmp_path / "a.h5").stat().st_size < 10_000
    for read in (read_labels, open_responses, open_array):
        with pytest.raises(CorruptedFileError, match=r"a\.h5 cannot be read: 'x' should hold 2\.1 GB, and 0 bytes"):
            read(tmp_path / "a.h5")


def test_a_filter_that_is_not_there_is_named_with_what_to_type(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((4, 6))
        properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)  # blosc
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((4, 6)), properties)
    for read in (read_labels, open_responses, open_array):
        with pytest.raises(MissingExtraError, match=r"a\.h5: 'x' is .*filter 32001.*pip install hdf5plugin"):
            read(tmp_path / "a.h5")


# MATLAB -v7.3: what save writes is HDF5 with the axes in reverse and the attribute MATLAB_class.


def matlab(path, **arrays):
    with h5py.File(path, "w", userblock_size=512) as file:
        letters = file.create_group("#refs#")
        for name, value in arrays.items():
            if isinstance(value, list):
                file[name] = np.array([[_letters(letters, text).ref] for text in value], h5py.ref_dtype)
                kind = "cell"
            elif isinstance(value, str):
                file[name], kind = np.array([[ord(letter)] for letter in value], np.uint16), "char"
            else:
                file[name], kind = np.ascontiguousarray(value.T), {"f8": "double", "u1": "uint8"}[value.dtype.str[1:]]
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
    return path


def _letters(group, text):
    own = group.create_dataset(f"t{len(group)}", data=np.array([[ord(letter)] for letter in text], np.uint16))
    own.attrs["MATLAB_class"] = np.bytes_("char")
    return own


def test_arrays_of_matlab_have_the_axes_that_matlab_shows(tmp_path):
    array = np.random.default_rng(0).normal(size=(5, 3, 7))  # size(betas) is [5 3 7]
    path = matlab(tmp_path / "a.mat", betas=array)
    found = open_responses(path, axes=["presentation", "channel", "time"]).rows
    assert (found.n_rows, found.shape) == (5, (3, 7))
    rows, units = np.array([0, 3]), np.array([20, 1, 8])
    np.testing.assert_allclose(found.read(rows, units), array.reshape(5, 21)[np.ix_(rows, units)], rtol=1e-6)
    last = open_responses(path, axes=["channel", "time", "presentation"]).rows
    np.testing.assert_allclose(last.read(np.arange(7), slice(None)), array.reshape(15, 7).T, rtol=1e-6)
    np.testing.assert_array_equal(read_labels(path, "betas"), array)
    with h5py.File(path) as file:
        view = hdf5_array(file, "betas")
        for places in (2, slice(1, 4), (slice(None), 1), (..., slice(2, 5)), (0, ..., 3), [0, 2]):
            np.testing.assert_array_equal(view[places], array[places])


def test_pictures_of_matlab_are_upright(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 3, 4), np.uint8)  # height, width, colour, n
    found = open_array(matlab(tmp_path / "a.mat", p=pictures))
    assert found.shape == (4, 3, 6, 8)
    np.testing.assert_array_equal(found[1:3], pictures.transpose(3, 2, 0, 1)[1:3])


def test_names_and_vectors_of_matlab_are_lists(tmp_path):
    path = matlab(tmp_path / "a.mat", names=["a.png", "猫.png", "b.png"], row=np.array([[1.0, 2, 5]]), word="V1")
    assert read_labels(path, "names").tolist() == ["a.png", "猫.png", "b.png"]
    assert read_labels(path, "row").tolist() == [1, 2, 5]
    assert read_labels(path, "word").tolist() == ["V1"]


def test_an_array_that_h5py_wrote_keeps_its_axes_also_in_a_mat_file(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["x"] = VALUES
    np.testing.assert_array_equal(open_responses(tmp_path / "a.mat").rows.read(np.arange(4), slice(None)), VALUES)


def test_what_only_matlab_can_read_is_refused_with_what_to_type(tmp_path):
    path = matlab(tmp_path / "a.mat", text=np.zeros((1, 6)), nothing=np.zeros((2, 1)))
    with h5py.File(path, "r+") as file:
        file["text"].attrs["MATLAB_class"] = np.bytes_("string")
        file["nothing"].attrs["MATLAB_empty"] = np.uint8(1)
        sparse = file.create_group("weights")
        sparse.attrs["MATLAB_sparse"] = np.uint64(4)
        sparse["data"] = np.zeros(3)
    for name, words in {"text": r"cellstr\(text\)", "nothing": "empty", "weights": r"full\(weights\)"}.items():
        for read in (read_labels, open_responses):
            with pytest.raises(CorruptedFileError, match=words):
                read(path, name)
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(CorruptedFileError, match=r"Save it with -v7\.3"):
        open_responses(tmp_path / "old.mat")


def test_a_cell_may_not_lie_outside_either(tmp_path):
    path = matlab(tmp_path / "a.mat", names=["ab"])
    with h5py.File(path, "r+") as file:
        out = file.create_dataset("#refs#/out", (2,), np.uint16, external=[("/etc/passwd", 0, 4)])
        out.attrs["MATLAB_class"] = np.bytes_("char")
        file["names"][0, 0] = out.ref
    with pytest.raises(UnsafeFileError, match=r"external storage \(/etc/passwd\)"):
        read_labels(path, "names")
    with h5py.File(path) as file, pytest.raises(UnsafeFileError):
        hdf5_values(file, "#refs#/out")


def test_numbers_are_asked_for_as_stimuli(tmp_path):
    np.save(tmp_path / "a.npy", np.array(["x"]))
    with pytest.raises(InvalidParameterError, match="stimuli are real numbers"):
        open_array(tmp_path / "a.npy")
