import numpy as np
import pytest
import xarray as xr

from berg.core.exceptions import InvalidParameterError
from berg.responses.labelled import label_responses
from berg.responses.save import check_ending, save_responses

VALUES = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
VALUES[0, 0] = np.nan
OTHER = np.random.default_rng(1).normal(size=(2, 4)).astype("float32")
MODEL = {
    "model_id": "fmri-made_up-prf",
    "subject": 1,
    "stimulus_width_deg": 10.0,
    "flip": True,
    "layers": ["conv1", "conv2"],
    "selection": "{'roi': 'V1'}",
    "licence": "",
    "citation": "Ångström & Ünal (2020), 'µV'",
}
LABELS = {
    "responses": {
        "axes": ["stimulus", "voxel"],
        "unit": "BOLD amplitude",
        "coordinates": {
            "voxel": ("voxel", np.array([7, 8, 100_000_000_000])),
            "roi": ("voxel", np.array(["V1", "V2", "hV4 é"])),
            "x_deg": ("voxel", np.array([0.1, np.nan, -3.0])),
            "reliable": ("voxel", np.array([True, False, True])),
        },
    },
    "second": {"axes": ["stimulus", "unit"], "unit": "spikes/s", "coordinates": {"unit": ("unit", np.arange(4))}},
}


def one_output():
    names = ["ö.png", "a rather long name of a picture.png"]
    return label_responses(VALUES, {"model": MODEL, "responses": {"responses": LABELS["responses"]}}, names)


def two_outputs():
    return label_responses((VALUES, OTHER), {"model": MODEL, "responses": LABELS}, ["a", "b"])


def test_netcdf_gives_back_what_was_saved(tmp_path):
    saved = one_output()
    save_responses(saved, tmp_path / "responses.nc")
    with xr.open_dataset(tmp_path / "responses.nc", engine="h5netcdf") as read:
        read.load()
    np.testing.assert_array_equal(read["responses"].values, VALUES)
    assert read["responses"].dtype == np.float32
    assert read["responses"].attrs["units"] == "BOLD amplitude"
    assert read.stimulus.values.tolist() == ["ö.png", "a rather long name of a picture.png"]
    for name, (axis, values) in LABELS["responses"]["coordinates"].items():
        assert read[name].dims == (axis,)
        assert read[name].dtype.kind in (values.dtype.kind, "O", "T")
        np.testing.assert_array_equal(read[name].values, values)
    assert read.attrs["citation"] == MODEL["citation"]
    assert read.attrs["stimulus_width_deg"] == 10.0
    assert bool(read.attrs["flip"]) is True
    assert list(read.attrs["layers"]) == ["conv1", "conv2"]
    xr.testing.assert_equal(read, saved)


def test_netcdf_of_several_outputs_gives_back_the_tree(tmp_path):
    save_responses(two_outputs(), tmp_path / "responses.nc")
    with xr.open_datatree(tmp_path / "responses.nc", engine="h5netcdf") as read:
        np.testing.assert_array_equal(read["responses/responses"].values, VALUES)
        np.testing.assert_array_equal(read["second/second"].values, OTHER)
        assert read["second/second"].attrs["units"] == "spikes/s"


def test_npz_holds_each_output_by_its_name(tmp_path):
    save_responses(two_outputs(), tmp_path / "responses.npz")
    with np.load(tmp_path / "responses.npz") as read:
        assert {"responses", "second"} == {name for name in read if "." not in name}
        np.testing.assert_array_equal(read["responses"], VALUES)
        np.testing.assert_array_equal(read["second"], OTHER)


def test_npy_holds_the_one_output(tmp_path):
    save_responses(one_output(), tmp_path / "responses.npy")
    read = np.load(tmp_path / "responses.npy")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, VALUES)


def test_two_outputs_do_not_fit_into_one_npy(tmp_path):
    with pytest.raises(
        InvalidParameterError, match=r"do not fit into NumPy \(\.npy\): it needs one array.* Use one of \.nc, \.npz, "
    ):
        save_responses(two_outputs(), tmp_path / "responses.npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".nc", ".npz", ".npy"])
def test_an_older_file_is_replaced(ending, tmp_path):
    path = tmp_path / f"responses{ending}"
    path.write_bytes(b"old" * 10_000)
    save_responses(one_output(), path)
    save_responses(one_output(), path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert b"oldold" not in path.read_bytes()


def test_no_unit_at_all_can_be_saved(tmp_path):
    labels = {"axes": ["stimulus", "voxel"], "unit": "a", "coordinates": {"voxel": ("voxel", np.zeros(0, int))}}
    empty = label_responses(np.zeros((2, 0), "float32"), {"responses": {"r": labels}})
    save_responses(empty, tmp_path / "responses.nc")
    with xr.open_dataset(tmp_path / "responses.nc", engine="h5netcdf") as read:
        assert read["r"].shape == (2, 0)


@pytest.mark.parametrize("name", ["responses.txt", "responses", "responses.nc.gz", ".nc"])
def test_another_ending_is_refused(name, tmp_path):
    with pytest.raises(InvalidParameterError, match=f"'{name}' must end in one of .nc, .npz, .npy"):
        check_ending(tmp_path / name)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidParameterError, match=r"The folder .*gone does not exist. Make it first"):
        check_ending(tmp_path / "gone" / "responses.nc")


@pytest.mark.parametrize("name", ["responses.nc", "deeper.npz"])
def test_what_can_be_written_passes(name, tmp_path):
    check_ending(tmp_path / name)
