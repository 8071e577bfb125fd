"""BERG.accuracy and BERG.find_models: what is known of models that are here, and of those that are not."""

import numpy as np
import pytest
from published import layouts

from berg import BERG
from berg.core.exceptions import InvalidParameterError, MissingFileError
from berg.evaluation.accuracy_table import accuracy_table, join_outputs, outputs_of, write_accuracy
from berg.weights.npy_files import read_npy

V1 = "fmri-szinte2024-prf_css"


def metadata_of(berg_dir, model_id, name):
    return read_npy(layouts.model_folder(berg_dir, model_id) / "metadata" / f"metadata_{name}.npy")


def test_a_built_in_model_tells_its_held_out_accuracy():
    table = BERG().accuracy(V1, subject=1)
    metadata = BERG().get_model_metadata(V1, subject=1)["encoding_models"]
    for name in ("held_out_r", "held_out_r2", "in_sample_r2"):
        np.testing.assert_allclose(table[name], metadata[name], rtol=1e-6)
    assert "reliable" not in table.data_vars
    assert {"x_deg", "roi"} <= set(table.coords)
    frame = table.to_dataframe()
    assert len(frame) == 2308
    sound = BERG().accuracy("ephys-rokem2006-ln_renewal")
    assert sound["held_out_r"].dims == ("unit",)


def test_a_selection_has_the_units_that_the_model_would_return():
    selection = {"reliable": True, "eccentricity_deg": [0, 2]}
    table = BERG().accuracy(V1, selection)
    with BERG().get_encoding_model(V1, "cpu", selection) as model:
        np.testing.assert_array_equal(table["voxel"], model.labels()["responses"]["coordinates"]["voxel"][1])
    assert float(table["held_out_r2"].min()) > 0.1
    with pytest.raises(InvalidParameterError, match="'rio' is not a selection key"):
        BERG().accuracy(V1, {"rio": "V1"})


def test_two_hemispheres_keep_their_published_names(berg_dir):
    accuracy = BERG(berg_dir).accuracy("fmri-nsd_fsaverage-vit_b_32", subject=1)
    given = metadata_of(berg_dir, "fmri-nsd_fsaverage-vit_b_32", "subject-01")
    assert set(accuracy.children) == {"lh", "rh"}
    for side, table in outputs_of(accuracy).items():
        assert set(table.data_vars) == {"correlation", "r2", "noise_ceiling", "explained_variance"}
        np.testing.assert_array_equal(table["correlation"], given["encoding_models"][f"{side}_correlation"])
        places = given["fmri"][f"{side}_fsaverage_rois"]["FFA-1"]
        assert all("FFA-1" in label.split(";") for label in table["roi"].values[places])
    some = BERG(berg_dir).accuracy("fmri-nsd_fsaverage-vit_b_32", {"roi": "FFA-1"}, subject=1)
    np.testing.assert_array_equal(outputs_of(some)["rh"]["vertex"], places)


@pytest.mark.parametrize("suffix", ["_nsdcore", "_nsdsynthetic"])
def test_names_say_which_part_of_the_data_was_held_out(tmp_path, suffix):
    metadata = layouts.fsaverage_metadata(np.random.default_rng(0), accuracy_suffix=suffix)
    folder = layouts.model_folder(tmp_path, "fmri-nsd_fsaverage-vit_b_32") / "metadata"
    layouts.write_pickled_npy(folder / "metadata_subject-01.npy", metadata)
    accuracy = BERG(tmp_path).accuracy("fmri-nsd_fsaverage-vit_b_32", subject=1)
    assert f"correlation{suffix}" in outputs_of(accuracy)["lh"]
    (row,) = (row for row in BERG(tmp_path).find_models(dataset="nsd_fsaverage", subject=1) if row.measure)
    assert row.measure == f"correlation{suffix}"


def test_channels_and_times_stay_two_axes(berg_dir):
    table = BERG(berg_dir).accuracy("eeg-things_eeg_2-vit_b_32", {"channels": ["Oz", "Fp1"]}, subject=1)
    given = metadata_of(berg_dir, "eeg-things_eeg_2-vit_b_32", "subject-01")
    place = given["eeg"]["ch_names"].index("Fp1")
    assert dict(table.sizes) == {"channel": 2, "time": 140}
    np.testing.assert_allclose(
        table["correlation"].sel(channel="Fp1"), given["encoding_models"]["correlation"][place], rtol=1e-6
    )
    np.testing.assert_allclose(table["noise_ceiling"][1], given["eeg"]["noise_ceiling"][place], rtol=1e-6)


def test_regions_with_a_file_each_come_one_after_another(berg_dir):
    table = BERG(berg_dir).accuracy("fmri-nsd-fwrf", {"roi": ["V2", "V1"]}, subject=1)
    assert table["roi"].values.tolist() == ["V2"] * 5 + ["V1"] * 21
    assert table["voxel"].values.tolist() == list(range(26))
    given = metadata_of(berg_dir, "fmri-nsd-fwrf", "sub-01_roi-V1")["encoding_models"]["r2"]
    np.testing.assert_allclose(table["r2"][5:], given, rtol=1e-6)
    whole = BERG(berg_dir).accuracy("fmri-nsd-fwrf", subject=1)
    assert set(whole["roi"].values) == {"V1", "V2", "OWFA", "lateral"}  # those that are here


def test_a_table_goes_before_the_metadata(own_berg_dir):
    folder = layouts.model_folder(own_berg_dir, "fmri-nsd-fwrf") / "encoding_models_accuracy"
    table = accuracy_table(
        {"r": np.full(21, 0.25)}, {"voxel": 21}, {"roi": ("voxel", np.full(21, "V1"))}, {"subject": 1}
    )
    write_accuracy(folder / "accuracy_sub-01_roi-V1.nc", join_outputs({"responses": table}))
    found = BERG(own_berg_dir).accuracy("fmri-nsd-fwrf", {"roi": "V1"}, subject=1)
    assert set(found.data_vars) == {"r"}
    both = BERG(own_berg_dir).accuracy("fmri-nsd-fwrf", {"roi": ["V1", "V2"]}, subject=1)
    assert both["r"].notnull().sum() == 21
    assert both["r2"].notnull().sum() == 5
    (row,) = BERG(own_berg_dir).find_models(dataset="nsd", roi="v1", subject=1, modality="fmri", min_r=0.2)
    assert (row.model_id, row.n_units, row.measure, row.median_r, row.n_over) == ("fmri-nsd-fwrf", 21, "r", 0.25, 21)


def test_files_that_are_not_here_are_named_with_the_command(tmp_path):
    with pytest.raises(MissingFileError, match="berg download fmri-nsd_fsaverage-vit_b_32 --subject 2"):
        BERG(tmp_path).accuracy("fmri-nsd_fsaverage-vit_b_32", subject=2)
    with pytest.raises(MissingFileError, match="berg download fmri-nsd-fwrf --subject 1 --selection roi=V1"):
        BERG(tmp_path).accuracy("fmri-nsd-fwrf", subject=1)


def test_metadata_without_accuracy_say_how_to_get_it(tmp_path):
    folder = layouts.model_folder(tmp_path, "eeg-things_eeg_2-vit_b_32") / "metadata"
    metadata = layouts.eeg_metadata(np.random.default_rng(0))
    layouts.write_pickled_npy(folder / "metadata_subject-01.npy", {"eeg": metadata["eeg"], "encoding_models": {}})
    with pytest.raises(MissingFileError, match="berg evaluate eeg-things_eeg_2-vit_b_32 --data FOLDER"):
        BERG(tmp_path).accuracy("eeg-things_eeg_2-vit_b_32", subject=1)


def test_models_whose_accuracy_is_not_known_are_listed_last_with_the_reason(tmp_path):
    rows = BERG(tmp_path).find_models(species="human")
    known = [row for row in rows if not row.unknown]
    assert [row.model_id for row in rows[: len(known)]] == [row.model_id for row in known]
    assert V1 in {row.model_id for row in known}
    absent = [row for row in rows if row.model_id == "eeg-things_eeg_2-vit_b_32"]
    assert [row.subject for row in absent] == list(range(1, 11))
    assert all("berg download" in row.unknown for row in absent)
    assert all(row.n_units is None and np.isnan(row.median_r) for row in absent)


def test_a_model_without_a_correlation_says_what_it_has_instead(berg_dir):
    rows = BERG(berg_dir).find_models(dataset="nsd", roi="OWFA", modality="fmri", subject=1, min_r=0.1)
    (row,) = (row for row in rows if row.model_id == "fmri-nsd-fwrf")
    assert "no correlation, only explained_variance, noise_ceiling, r2" in row.unknown


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"stimuli": "sounds"}, {"ephys-rokem2006-ln_renewal"}),
        ({"species": "HUMAN", "dataset": "szinte"}, {V1}),
        ({"modality": "meg", "species": "mouse"}, set()),
        ({"dataset": "szinte", "roi": "V1"}, {V1}),
        ({"dataset": "szinte", "roi": "hV4"}, set()),
        ({"dataset": "szinte", "subject": 2}, set()),
        ({"dataset": "szinte", "min_r": 0.95}, set()),
    ],
)
def test_filters(wanted, found):
    assert {row.model_id for row in BERG().find_models(**wanted)} == found


def test_units_over_a_threshold_are_counted():
    (row,) = BERG().find_models(dataset="szinte", min_r=0.5)
    r = BERG().accuracy(V1)["held_out_r"].values
    assert row.n_over == (r >= 0.5).sum()
    assert row.median_r == pytest.approx(float(np.median(r)))
    assert row.n_units == 2308


def test_accuracies_of_training_splits_are_those_of_the_readouts_that_are_asked_for(tmp_path):
    metadata = layouts.meg_metadata(np.random.default_rng(0), 1, 9)
    path = layouts.model_folder(tmp_path, layouts.MEG) / "metadata" / "metadata_P1.npy"
    layouts.write_pickled_npy(path, metadata)
    held, berg = metadata["encoding_model"], BERG(tmp_path)
    whole = berg.accuracy(layouts.MEG, subject=1)
    assert whole["correlation"].dims == ("channel", "time")
    np.testing.assert_allclose(whole["correlation"], held["all_training_splits"]["correlation_results"], rtol=1e-6)
    np.testing.assert_allclose(whole["noise_ceiling"], held["noise_ceiling"].T, rtol=1e-6)  # time first in the file
    assert whole["region"].values[0] == "Central"
    third = berg.accuracy(layouts.MEG, {"region": "Occipital"}, subject=1, train_splits="split3")
    rows = np.flatnonzero(metadata["sensors"]["sensor_regions"] == "Occipital")
    np.testing.assert_allclose(
        third["correlation"], held["single_training_split_3"]["correlation_results"][rows], rtol=1e-6
    )
    each = berg.accuracy(layouts.MEG, subject=1, train_splits="single")
    assert "correlation" not in each
    for split, key in (("3", "single_training_split_3"), ("4", "single_training split_4")):
        found = each[f"correlation_single_training_split_{split}"]
        np.testing.assert_allclose(found, held[key]["correlation_results"], rtol=1e-6)


def test_accuracies_of_things_fmri_and_tvsd_come_with_their_labels(tmp_path):
    rng = np.random.default_rng(1)
    voxels = layouts.things_fmri_metadata(rng, 1, 120)
    electrodes = layouts.tvsd_metadata(rng, "N", 40, 11, "utah_array", in_milliseconds=True)
    for model_id, name, metadata in ((layouts.THINGS_FMRI, "sub-01", voxels), (layouts.TVSD, "monkeyN", electrodes)):
        path = layouts.model_folder(tmp_path, model_id) / "metadata" / f"metadata_{name}.npy"
        layouts.write_pickled_npy(path, metadata)
    table = BERG(tmp_path).accuracy(layouts.THINGS_FMRI, subject=1)
    for name in ("noise_ceiling_singletrial", "splithalf_corrected", "splithalf_uncorrected"):
        np.testing.assert_allclose(table[name], voxels["encoding_model"][name], rtol=1e-6)
    np.testing.assert_allclose(table["correlation"], voxels["encoding_model"]["correlation_results"], rtol=1e-6)
    np.testing.assert_allclose(table["prf_eccentricity"], voxels["prf"]["prf_eccentricity"])
    (row,) = (row for row in BERG(tmp_path).find_models(dataset="things_fmri_1", roi="V1") if row.measure)
    assert row.n_units == len(voxels["roi"]["V1"])
    table = BERG(tmp_path).accuracy(layouts.TVSD, {"roi": "IT"}, subject="N")
    assert set(table["roi"].values) == {"IT"}
    rows = electrodes["roi"]["roi_assignments"] == 2
    expected = electrodes["encoding_model"]["all_training_splits"]["correlation_results"][rows]
    np.testing.assert_allclose(table["correlation"], expected, rtol=1e-6)
