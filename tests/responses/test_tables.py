import numpy as np
import pandas as pd
import pytest
from published import layouts
from scipy.io import loadmat

from berg.core.exceptions import InvalidParameterError
from berg.responses import tables
from berg.responses.labelled import label_responses
from berg.responses.save import save_responses
from berg.responses.tables import to_arrays, to_dataframe, to_matlab

EEG, FSAVERAGE, FWRF = layouts.EEG, layouts.FSAVERAGE, layouts.FWRF
NAMES = ["a.png", "b.png"]


def test_a_long_table_has_a_row_for_every_stimulus_and_voxel(encoded):
    responses, metadata = encoded(FWRF, selection={"roi": ["V2", "V1"]})
    table = to_dataframe(responses, metadata, NAMES)
    assert list(table) == [
        *("stimulus", "voxel", "ncsnr", "r2", "noise_ceiling", "explained_variance", "roi", "i", "j", "k", "response")
    ]
    assert table["response"].tolist() == responses.ravel().tolist()
    assert table["stimulus"].tolist() == ["a.png"] * 26 + ["b.png"] * 26
    assert table["roi"].tolist() == (["V2"] * 5 + ["V1"] * 21) * 2
    np.testing.assert_array_equal(table["ncsnr"][:26], metadata["fmri"]["ncsnr"])


def test_a_long_table_of_eeg_names_channel_and_time(encoded):
    selection = {"channels": ["Pz", "Oz"], "timepoints": np.arange(140) == 45}
    responses, metadata = encoded(EEG, selection=selection)
    table = to_dataframe(responses, metadata, NAMES)
    row = table.query("stimulus == 'b.png' and repetition == 2 and channel == 'Oz'")
    assert row["response"].item() == responses[1, 2, 1, 0]
    assert row["time"].item() == pytest.approx(0.125)
    assert len(table) == 2 * 4 * 2


def test_a_table_of_two_hemispheres_says_which(encoded):
    (lh, rh), metadata = encoded(FSAVERAGE, selection={"roi": "V1v"})
    table = to_dataframe((lh, rh), metadata, NAMES)
    assert list(table)[:3] == ["output", "stimulus", "vertex"]
    for name, responses in (("lh", lh), ("rh", rh)):
        part = table[table["output"] == name]
        assert part["response"].tolist() == responses.ravel().tolist()
        expected = np.tile(metadata["fmri"][f"{name}_fsaverage_rois"]["V1v"], 2)
        assert part["vertex"].tolist() == expected.tolist()


def test_a_wide_table_has_a_row_for_every_unit_and_a_column_for_every_stimulus(encoded):
    responses, metadata = encoded(EEG, selection={"channels": ["Pz", "Oz"]})
    table = to_dataframe(responses, metadata, NAMES, layout="wide")
    known = ["ncsnr", "noise_ceiling", "correlation"]
    assert list(table) == ["repetition", "channel", "time", *known, "a.png", "b.png"]
    assert len(table) == 4 * 2 * 140
    row = table[(table["repetition"] == 3) & (table["channel"] == "Oz")].iloc[139]
    assert row["time"] == pytest.approx(0.595)
    assert row["b.png"] == responses[1, 3, 1, 139]


def test_a_wide_table_of_two_hemispheres(encoded):
    (lh, rh), metadata = encoded(FSAVERAGE, selection={"roi": "V1v"})
    table = to_dataframe((lh, rh), metadata, NAMES, layout="wide")
    assert table["b.png"].tolist() == [*lh[1], *rh[1]]
    assert table["output"].tolist() == ["lh"] * lh.shape[1] + ["rh"] * rh.shape[1]


def test_another_layout_is_refused(encoded):
    with pytest.raises(InvalidParameterError, match=r"layout is 'tall'\. Allowed: long, wide"):
        to_dataframe(*encoded(FWRF, selection={"roi": "V1"}), layout="tall")


def test_csv_gives_back_the_long_table(encoded, tmp_path):
    responses, metadata = encoded(FWRF, selection={"roi": ["V2", "V1"]})
    responses = (responses / 7).astype("float32")
    save_responses(label_responses(responses, metadata, ["ä, b.png", 'c "d".png']), tmp_path / "x.csv")
    read = pd.read_csv(tmp_path / "x.csv")
    assert read["response"].astype("float32").tolist() == responses.ravel().tolist()
    assert read["stimulus"].unique().tolist() == ["ä, b.png", 'c "d".png']
    assert read["roi"].tolist() == (["V2"] * 5 + ["V1"] * 21) * 2


def test_npz_has_the_labels_inside_and_no_pickles(encoded, tmp_path):
    (lh, rh), metadata = encoded(FSAVERAGE, selection={"roi": "V1v"})
    save_responses(label_responses((lh, rh), metadata, NAMES), tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as read:
        np.testing.assert_array_equal(read["rh"], rh)
        assert read["rh.axes"].tolist() == ["stimulus", "vertex"]
        assert read["rh.units"] == "z-scored beta"
        assert read["rh.stimulus"].tolist() == NAMES
        np.testing.assert_array_equal(read["rh.vertex"], metadata["fmri"]["rh_fsaverage_rois"]["V1v"])
        assert read["rh.vertex_total"] == layouts.N_VERTICES
        assert read["model.model_id"] == FSAVERAGE
        assert read["model.subject"] == 1


def test_labels_read_from_netcdf_are_texts_too(encoded, tmp_path):
    import xarray as xr

    save_responses(label_responses(*encoded(FWRF, selection={"roi": "V1"}), NAMES), tmp_path / "x.nc")
    with xr.open_dataset(tmp_path / "x.nc", engine="h5netcdf") as read:
        arrays = to_arrays(read)
    assert arrays["responses.roi"].dtype.kind == "U"
    assert {array.dtype.kind for array in arrays.values()} <= set("Uif")


def test_matlab_has_structs_with_cells_of_names(encoded, tmp_path):
    responses, metadata = encoded(EEG, selection={"channels": ["Pz", "Oz"]})
    save_responses(label_responses(responses, metadata, NAMES), tmp_path / "x.mat")
    read = loadmat(tmp_path / "x.mat", simplify_cells=True)
    eeg = read["eeg"]
    assert eeg["values"].dtype == np.float32
    np.testing.assert_array_equal(eeg["values"], responses)
    assert eeg["axes"].tolist() == ["stimulus", "repetition", "channel", "time"]
    assert eeg["channel"].tolist() == ["Pz", "Oz"]
    assert eeg["stimulus"].tolist() == NAMES
    np.testing.assert_array_equal(eeg["time"], metadata["responses"]["eeg"]["coordinates"]["time"][1])
    assert eeg["units"] == "normalised EEG amplitude"
    assert read["model"]["model_id"] == EEG
    assert read["model"]["subject"] == 1


def test_matlab_lists_are_columns_and_cells(encoded, tmp_path):
    save_responses(label_responses(*encoded(FWRF, 1, selection={"roi": "V1"}), ["a"]), tmp_path / "x.mat")
    struct = loadmat(tmp_path / "x.mat")["responses"][0, 0]
    assert struct["values"].shape == (1, 21)
    assert struct["ncsnr"].shape == (21, 1)
    assert struct["roi"].dtype == object
    assert struct["roi"].shape == (21, 1)
    assert struct["stimulus"][0, 0].item() == "a"


def test_names_that_matlab_does_not_take_are_changed(encoded):
    responses, metadata = encoded(FWRF, 1, selection={"roi": "V1"})
    label = metadata["responses"].pop("responses")
    label["coordinates"]["2nd.größe"] = label["coordinates"]["ncsnr"]
    metadata["responses"]["_V1"] = label
    structs = to_matlab(responses, metadata)
    assert list(structs) == ["x_V1", "model"]
    assert "x2nd_gr__e" in structs["x_V1"]


def test_what_is_too_large_for_matlab_is_refused_with_another_format(encoded, monkeypatch, tmp_path):
    from scipy.io.matlab import MatWriteError

    def refuse(path, *args, **options):
        path.write_bytes(b"half")
        raise MatWriteError("Matrix too large to save with Matlab 5 format")

    monkeypatch.setattr("scipy.io.savemat", refuse)
    with pytest.raises(
        InvalidParameterError, match=r"too large for a .mat file .*Use .nc, which MATLAB reads with ncread"
    ):
        tables.save_matlab(label_responses(*encoded(FWRF, selection={"roi": "V1"})), tmp_path / "x.mat")
    assert list(tmp_path.iterdir()) == []
