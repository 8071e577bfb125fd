"""Responses in every format, with each value at its place."""

import gzip
import zipfile

import h5py
import mne
import nibabel
import numpy as np
import pytest
import zarr
from nibabel import freesurfer, gifti

from berg.core.exceptions import CorruptedFileError, DatasetError, MissingExtraError, MissingFileError
from berg.datasets.label_files import per_unit, read_labels
from berg.datasets.response_arrays import SpooledRows
from berg.datasets.response_files import open_responses

N_ROWS, SHAPE = 12, (2, 3, 4)
VALUES = np.random.default_rng(0).normal(size=(N_ROWS, *SHAPE)).astype(np.float32)
AFFINE = np.diag([2.0, 2, 2, 1])
ROWS, UNITS = np.array([0, 3, 4, 11]), np.array([7, 1, 23])


def save_npy(path):
    np.save(path, VALUES.reshape(N_ROWS, -1))


def save_npz(path):
    np.savez(path, other=np.zeros(3), betas=VALUES.reshape(N_ROWS, -1))


def save_small_npz(path):
    np.savez_compressed(path, betas=np.asfortranarray(VALUES.reshape(N_ROWS, -1)))


def save_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("session1/betas", data=VALUES.reshape(N_ROWS, -1), chunks=(5, 5), compression="gzip")
        file["names"] = [b"a"]


def save_zarr(path):
    zarr.open_group(path, mode="w").create_array("betas", data=VALUES.reshape(N_ROWS, -1), chunks=(5, 5))


def save_volumes(path):
    nibabel.Nifti1Image(np.moveaxis(VALUES, 0, -1), AFFINE).to_filename(path)


def save_mgh(path):
    surface = np.moveaxis(VALUES.reshape(N_ROWS, -1, 1, 1), 0, -1)
    nibabel.MGHImage(surface, np.eye(4)).to_filename(path)


def save_gifti(path):
    rows = [gifti.GiftiDataArray(row, "NIFTI_INTENT_NONE", "NIFTI_TYPE_FLOAT32") for row in VALUES.reshape(N_ROWS, -1)]
    gifti.GiftiImage(darrays=rows).to_filename(path)


def save_gifti_series(path):
    series = gifti.GiftiDataArray(VALUES.reshape(N_ROWS, -1).T.copy(), "NIFTI_INTENT_TIME_SERIES", "NIFTI_TYPE_FLOAT32")
    gifti.GiftiImage(darrays=[series]).to_filename(path)


FORMATS = {
    ".npy": (save_npy, None),
    ".npz": (save_npz, "betas"),
    "-small.npz": (save_small_npz, None),
    ".h5": (save_h5, "session1/betas"),
    ".zarr": (save_zarr, None),
    ".nii": (save_volumes, None),
    ".nii.gz": (save_volumes, None),
    ".mgh": (save_mgh, None),
    ".mgz": (save_mgh, None),
    ".func.gii": (save_gifti, None),
    "-series.func.gii": (save_gifti_series, None),
}


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("masked", [False, True])
def test_every_format_has_each_value_at_its_place(ending, masked, tmp_path):
    save, key = FORMATS[ending]
    path = tmp_path / f"betas{ending}"
    save(path)
    table = VALUES.reshape(N_ROWS, -1)
    mask = np.arange(24) % 3 != 1
    shaped = mask.reshape(SHAPE) if ".nii" in ending else mask
    found = open_responses(path, key, mask=shaped if masked else None)
    if masked:
        table = table[:, mask]
    assert (found.rows.n_rows, found.rows.shape, len(found.axes)) == (N_ROWS, table.shape[1:], 1)
    units = UNITS % table.shape[1]
    np.testing.assert_allclose(found.rows.read(ROWS, units), table[ROWS][:, units], rtol=1e-6)
    np.testing.assert_allclose(found.rows.read(np.arange(N_ROWS), slice(None)), table, rtol=1e-6)


def test_volumes_say_where_each_voxel_is(tmp_path):
    save_volumes(tmp_path / "b.nii.gz")
    mask = np.zeros(SHAPE)
    mask[1, 2, 3] = mask[0, 1, 2] = 1
    found = open_responses(tmp_path / "b.nii.gz", mask=mask)
    assert found.axes == ("voxel",)
    assert [found.coordinates[axis][1].tolist() for axis in "ijk"] == [[0, 1], [1, 2], [2, 3]]
    np.testing.assert_array_equal(found.attributes["fmri_affine"], AFFINE)
    np.testing.assert_array_equal(found.rows.read(ROWS, slice(None)), VALUES[ROWS][:, [0, 1], [1, 2], [2, 3]])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_integers_with_a_scale_are_scaled(ending, tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 2, 2), AFFINE)
    image.header.set_slope_inter(0.5, 10)
    image.to_filename(tmp_path / f"a{ending}")
    found = open_responses(tmp_path / f"a{ending}").rows.read(np.array([1]), slice(None))
    np.testing.assert_allclose(found[0], nibabel.load(tmp_path / f"a{ending}").get_fdata()[..., 1].ravel(), rtol=1e-6)


def test_one_volume_is_one_row(tmp_path):
    nibabel.Nifti1Image(VALUES[0], AFFINE).to_filename(tmp_path / "a.nii")
    found = open_responses(tmp_path / "a.nii").rows
    np.testing.assert_array_equal(found.read(np.array([0]), slice(None)), VALUES[:1].reshape(1, -1))


def epochs(n=70, types=("eeg", "eeg", "eog", "eeg"), **options):
    rng = np.random.default_rng(0)
    info = mne.create_info([f"c{place}" for place in range(len(types))], 100.0, list(types))
    events = np.column_stack([np.arange(n) * 100, np.zeros(n, int), rng.integers(1, 4, n)])
    names = {"cat.png": 1, "dog.png": 2, "cup.png": 3}
    values = rng.normal(scale=1e-6, size=(n, len(types), 6))
    return mne.EpochsArray(values, info, events, -0.02, names, baseline=None, verbose="error", **options)


def test_epochs_are_read_with_channels_times_and_events(tmp_path):
    written = epochs()
    written.save(tmp_path / "a-epo.fif", fmt="double", verbose="error")
    found = open_responses(tmp_path / "a-epo.fif")
    assert (found.axes, found.rows.shape, found.unit) == (("channel", "time"), (3, 6), "V")
    assert found.coordinates["channel"][1].tolist() == ["c0", "c1", "c3"]
    np.testing.assert_allclose(found.coordinates["time"][1], np.arange(-2, 4) / 100, atol=1e-12)
    assert found.attributes["sampling_interval_s"] == pytest.approx(0.01)
    values = written.get_data(copy=False)[:, [0, 1, 3]].reshape(70, 18)
    np.testing.assert_allclose(
        found.rows.read(np.array([2, 69]), UNITS % 18), values[[2, 69]][:, UNITS % 18], rtol=1e-6
    )
    names = {code: name for name, code in written.event_id.items()}
    assert read_labels(tmp_path / "a-epo.fif").tolist() == [names[code] for code in written.events[:, 2]]


def test_epochs_of_one_type_are_chosen_by_the_key(tmp_path):
    epochs(types=("mag", "grad", "mag")).save(tmp_path / "a-epo.fif", verbose="error")
    assert open_responses(tmp_path / "a-epo.fif", "mag").unit == "T"
    assert open_responses(tmp_path / "a-epo.fif").unit is None
    with pytest.raises(DatasetError, match="no channels of type eeg; it has"):
        open_responses(tmp_path / "a-epo.fif", "eeg")


def test_a_column_of_the_metadata_of_epochs_is_read(tmp_path):
    import pandas as pd

    pictures = [f"p{place % 5}.jpg" for place in range(70)]
    epochs(metadata=pd.DataFrame({"picture": pictures})).save(tmp_path / "a-epo.fif", verbose="error")
    assert read_labels(tmp_path / "a-epo.fif", "picture").tolist() == pictures
    with pytest.raises(DatasetError, match=r"has no 'pictur'\. Did you mean 'picture'"):
        read_labels(tmp_path / "a-epo.fif", "pictur")


def test_what_cannot_be_read_in_parts_is_read_once_and_when_it_is_needed():
    looks = []

    def blocks():
        looks.append(1)
        yield np.ones((2, 3))
        yield np.full((1, 3), 5)

    rows = SpooledRows(3, (3,), blocks)
    assert not looks
    for _ in range(3):
        assert rows.read(np.array([1, 2]), slice(0, 1)).tolist() == [[1], [5]]
    assert len(looks) == 1


DAMAGED = {
    ".npy": b"\x93NUMPY\x01\x00garbage",
    ".npz": b"PK nothing",
    ".h5": b"\x89HDF nothing",
    ".nii": b"x" * 400,
    ".nii.gz": gzip.compress(b"x" * 400),
    ".mgh": b"x" * 400,
    ".func.gii": b"<GIFTI>",
    "-epo.fif": b"x" * 100,
}


@pytest.mark.parametrize("ending", DAMAGED)
def test_a_damaged_file_is_named(ending, tmp_path):
    (tmp_path / f"a{ending}").write_bytes(DAMAGED[ending])
    for read in (open_responses, read_labels):
        with pytest.raises(CorruptedFileError, match=f"a{ending} cannot be read"):
            read(tmp_path / f"a{ending}")


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([{}], object))
    for name in ("a.npy", "a.npz"):
        for read in (open_responses, read_labels):
            with pytest.raises((CorruptedFileError, DatasetError)):
                read(tmp_path / name)


def test_what_is_missing_or_unknown_is_said(tmp_path):
    (tmp_path / "a.doc").write_text("")
    for read in (open_responses, read_labels):
        with pytest.raises(MissingFileError, match="There is no file"):
            read(tmp_path / "b.npy")
        with pytest.raises(DatasetError, match=r"a\.doc cannot be read as .* Known are \.npy, \.npz, "):
            read(tmp_path / "a.doc")


def test_a_key_is_needed_where_there_are_several(tmp_path):
    save_npz(tmp_path / "a.npz")
    save_h5(tmp_path / "a.h5")
    with pytest.raises(DatasetError, match=r"holds other, betas; say which with  a\.npz::KEY"):
        open_responses(tmp_path / "a.npz")
    with pytest.raises(DatasetError, match=r"has no 'beta'\. Did you mean 'betas'\? It holds other, betas"):
        open_responses(tmp_path / "a.npz", "beta")
    with pytest.raises(DatasetError, match=r"holds names, session1/betas; say which with  a\.h5::KEY"):
        open_responses(tmp_path / "a.h5")


def test_a_mask_must_fit(tmp_path):
    save_volumes(tmp_path / "a.nii")
    with pytest.raises(DatasetError, match=r"units of shape \(2, 3, 4\); the mask has \(4, 3, 2\)"):
        open_responses(tmp_path / "a.nii", mask=np.ones((4, 3, 2)))
    with pytest.raises(DatasetError, match="0 everywhere"):
        open_responses(tmp_path / "a.nii", mask=np.zeros(SHAPE))


@pytest.mark.parametrize(("module", "name"), [("nibabel", "a.nii"), ("nibabel", "a.func.gii"), ("mne", "a-epo.fif")])
def test_a_package_that_is_missing_is_named_with_what_to_type(module, name, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    for read in (open_responses, read_labels):
        with pytest.raises(MissingExtraError, match=rf'needs {module}.*pip install "berg\[export\]"'):
            read(tmp_path / name)


def test_an_array_in_an_npz_is_mapped_in_its_place(tmp_path):
    save_npz(tmp_path / "a.npz")
    array = open_responses(tmp_path / "a.npz", "betas").rows.array
    assert isinstance(array, np.memmap)
    assert str(array.filename).endswith("a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", allowZip64=True) as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array(member, VALUES, version=(2, 0))
    assert np.array_equal(open_responses(tmp_path / "b.npz", axes=["presentation", *"ijk"]).rows.array, VALUES)


def test_lists_are_read_from_every_format(tmp_path):
    names = ["b.png", "a.png", "007"]
    np.save(tmp_path / "a.npy", names)
    np.savez(tmp_path / "a.npz", x=names)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = names
    (tmp_path / "a.txt").write_text("b.png\na.png\n\n007\n")
    (tmp_path / "a.json").write_text('{"x": {"y": ["b.png", "a.png", "007"]}}')
    (tmp_path / "a.tsv").write_text("x\tother\nb.png\t1\na.png\t2\n007\t3\n")
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("x,other\nb.png,1\na.png,2\n007,3\n")
    keys = {"a.json": "x.y", "a.npy": None, "a.txt": None}
    for path in sorted(tmp_path.iterdir()):
        assert read_labels(path, keys.get(path.name, "x")).tolist() == names, path
    assert read_labels(tmp_path / "a.tsv", "other").tolist() == [1, 2, 3]


def test_a_table_says_what_is_wrong_with_it(tmp_path):
    (tmp_path / "a.tsv").write_text("x\ty\n1\t2\n3\n")
    with pytest.raises(DatasetError, match=r"a\.tsv, line 3: 1 values for 2 columns"):
        read_labels(tmp_path / "a.tsv", "x")
    with pytest.raises(DatasetError, match=r"holds x, y; say which with  a\.tsv::KEY"):
        read_labels(tmp_path / "a.tsv")
    (tmp_path / "b.csv").write_text("")
    with pytest.raises(DatasetError, match="empty"):
        read_labels(tmp_path / "b.csv")


def test_labels_of_surfaces_are_read_as_names(tmp_path):
    labels, colours = np.array([0, 1, -1, 1]), np.array([[1, 2, 3, 0, 0], [4, 5, 6, 0, 0]])
    freesurfer.write_annot(tmp_path / "a.annot", labels, colours, ["V1", "V2"], fill_ctab=True)
    assert read_labels(tmp_path / "a.annot").tolist() == ["V1", "V2", "", "V2"]
    table = gifti.GiftiLabelTable()
    for key, name in ((0, ""), (3, "V1")):
        label = gifti.GiftiLabel(key)
        label.label = name
        table.labels.append(label)
    array = gifti.GiftiDataArray(np.array([3, 0, 3], np.int32), "NIFTI_INTENT_LABEL", "NIFTI_TYPE_INT32")
    gifti.GiftiImage(labeltable=table, darrays=[array]).to_filename(tmp_path / "a.label.gii")
    assert read_labels(tmp_path / "a.label.gii").tolist() == ["V1", "", "V1"]


def test_regions_become_one_label_per_unit():
    assert per_unit({"V1": [1, 2], "early": [2], "empty": []}, 4).tolist() == ["", "V1", "V1;early", ""]
    assert per_unit({"V1": [1]}, 2, first=1).tolist() == ["V1", ""]
    with pytest.raises(DatasetError, match="Region 'V1' names unit 4; there are 4 units"):
        per_unit({"V1": [4]}, 4)
