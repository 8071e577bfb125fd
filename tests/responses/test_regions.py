import numpy as np
import pytest
import xarray as xr
from published import layouts

from berg.core.exceptions import InvalidParameterError
from berg.responses.labelled import label_responses
from berg.responses.regions import index_regions, select
from berg.responses.save import save_responses
from berg.responses.tables import to_dataframe

LABELS = {
    "axes": ["stimulus", "vertex"],
    "unit": "a",
    "coordinates": {
        "vertex": ("vertex", np.arange(6) * 10),
        "roi": ("vertex", np.array(["V1;early", "V1", "", "V2;early", "V3", "V2"])),
    },
}
VALUES = np.arange(12, dtype="float32").reshape(2, 6)


@pytest.fixture
def labelled():
    return label_responses(VALUES, {"responses": {"responses": LABELS}}, ["a", "b"])


@pytest.mark.parametrize(
    ("region", "places"),
    [("V1", [0, 1]), ("early", [0, 3]), (["V3", "V1"], [0, 1, 4]), ("V2", [3, 5])],
)
def test_a_region_has_its_units_in_the_order_of_the_axis(region, places, labelled):
    np.testing.assert_array_equal(labelled.sel(roi=region)["responses"], VALUES[:, places])
    np.testing.assert_array_equal(labelled["responses"].sel(roi=region, stimulus="b"), VALUES[1, places])
    assert labelled.sel(roi=region).vertex.values.tolist() == [10 * place for place in places]


def test_a_part_can_be_selected_from_again(labelled):
    part = labelled.isel(vertex=slice(1, 5)).sortby("vertex", ascending=False)
    assert part.sel(roi=["V1", "V3"]).vertex.values.tolist() == [40, 10]
    assert part.isel(vertex=0).roi.item() == "V3"
    doubled = xr.concat([part, part], "stimulus") + part.isel(stimulus=0)
    assert dict(doubled.sel(roi="V2").sizes) == {"stimulus": 4, "vertex": 1}


def test_a_region_without_a_unit_is_named(labelled):
    with pytest.raises(
        InvalidParameterError, match=r"is in 'V11'\. Did you mean 'V1'\? Their regions: V1, V2, V3, ear"
    ):
        labelled.sel(roi="V11")
    with pytest.raises(InvalidParameterError, match="is in 'V4'"):
        select(xr.DataTree.from_dict({"lh": labelled}), roi=["V1", "V4"])


def test_the_label_stays_a_column_of_tables_and_survives_files(labelled, tmp_path):
    assert to_dataframe(labelled)["roi"].tolist() == LABELS["coordinates"]["roi"][1].tolist() * 2
    save_responses(labelled, tmp_path / "r.nc")
    labelled.to_zarr(tmp_path / "r.zarr", zarr_format=3, consolidated=False)
    with (
        xr.open_dataset(tmp_path / "r.nc") as netcdf,
        xr.open_zarr(tmp_path / "r.zarr", consolidated=False) as plain_zarr,
    ):
        for opened in (netcdf.load(), plain_zarr.load()):
            xr.testing.assert_equal(opened, labelled)
            assert opened.attrs == labelled.attrs
            xr.testing.assert_equal(index_regions(opened).sel(roi="V1"), labelled.sel(roi="V1"))


def test_both_hemispheres_are_selected_from_at_once(encoded):
    (lh, rh), metadata = encoded(layouts.FSAVERAGE, selection={"roi": ["V1v", "early", "PPA"]})
    tree = label_responses((lh, rh), metadata, ["a.png", "b.png"])
    part = select(tree, roi="V1v", stimulus=["b.png"])
    for name, whole in (("lh", lh), ("rh", rh)):
        expected = metadata["fmri"][f"{name}_fsaverage_rois"]["V1v"]
        assert sorted(part[name].vertex.values.tolist()) == sorted(expected.tolist())
        columns = np.isin(tree[name].vertex.values, expected)
        np.testing.assert_array_equal(part[f"{name}/{name}"], whole[1:, columns])
        np.testing.assert_array_equal(tree[f"{name}/{name}"].sel(roi="V1v"), whole[:, columns])


def test_a_region_in_one_hemisphere_leaves_the_other_empty():
    right = {**LABELS, "coordinates": {"roi": ("vertex", np.array(["V1"] * 6))}}
    tree = label_responses((VALUES, VALUES), {"responses": {"lh": LABELS, "rh": right}})
    part = select(tree, roi="V3")
    assert (part["lh"].sizes["vertex"], part["rh"].sizes["vertex"]) == (1, 0)
    with pytest.raises(
        InvalidParameterError, match=r"cannot be selected by 'time'\. Their labels: roi, stimulus, vertex"
    ):
        select(tree, time=slice(0, 1))


def test_voxels_are_selected_by_region_and_eeg_by_time_in_seconds(encoded):
    responses, metadata = encoded(layouts.FWRF, selection={"roi": ["V2", "V1"]})
    labelled = label_responses(responses, metadata)
    np.testing.assert_array_equal(labelled.sel(roi="V1")["responses"], responses[:, 5:])
    responses, metadata = encoded(layouts.EEG)
    part = label_responses(responses, metadata).sel(channel="Oz", time=slice(0.1, 0.2))
    assert part.time.values.tolist() == pytest.approx(np.arange(0.1, 0.2001, 0.005).tolist())
    np.testing.assert_array_equal(part["eeg"], responses[:, :, 15, 40:61])


@pytest.mark.parametrize("model_id", [layouts.FSAVERAGE, layouts.EEG, layouts.FWRF])
def test_the_accuracy_of_published_models_labels_their_units(model_id, encoded):
    selection = {layouts.FSAVERAGE: {"lh_vertices": [7, 3], "rh_vertices": [160000]}, layouts.FWRF: {"roi": "V1"}}
    given = selection.get(model_id, {"channels": ["Pz", "Oz"], "time": [0.1, 0.2]})
    responses, metadata = encoded(model_id, selection=given)
    labelled = label_responses(responses, metadata)
    known = metadata["encoding_models"]
    if model_id == layouts.FSAVERAGE:
        assert responses[0].shape == (2, 2)
        for name in ("correlation", "noise_ceiling", "explained_variance"):
            assert labelled["lh"][name].values.tolist() == known[f"lh_{name}"][[7, 3]].tolist()
            assert labelled["rh"][name].values.tolist() == known[f"rh_{name}"][[160000]].tolist()
        assert labelled["lh"]["ncsnr"].values.tolist() == metadata["fmri"]["lh_ncsnr"][[7, 3]].tolist()
        assert not [name for name in labelled["lh"].coords if "nsd" in name]  # these have another test set's name
    elif model_id == layouts.FWRF:
        for name in ("r2", "noise_ceiling", "explained_variance"):
            assert labelled[name].values.tolist() == known[name].tolist()
    else:
        assert labelled["noise_ceiling"].dims == labelled["correlation"].dims == ("channel", "time")
        expected = metadata["eeg"]["noise_ceiling"][[11, 15]][:, 40:61]
        np.testing.assert_array_equal(labelled["noise_ceiling"], expected)
        np.testing.assert_array_equal(labelled["correlation"], known["correlation"][[11, 15]][:, 40:61])


def test_a_file_that_says_nothing_of_accuracy_has_no_such_label(metadata_dir, tmp_path, encoded):
    rng = np.random.default_rng(0)
    eeg = layouts.eeg_metadata(rng, newer=False)
    del eeg["encoding_models"]["correlation"]
    fsaverage = layouts.fsaverage_metadata(rng, accuracy_suffix="_nsdcore")
    for model_id, content in ((layouts.EEG, eeg), (layouts.FSAVERAGE, fsaverage)):
        path = layouts.model_folder(tmp_path, model_id) / "metadata" / "metadata_subject-01.npy"
        layouts.write_pickled_npy(path, content)
    responses, metadata = encoded(layouts.EEG, berg_dir=tmp_path)
    assert set(label_responses(responses, metadata).coords) == {"stimulus", "repetition", "channel", "time"}
    responses, metadata = encoded(layouts.FSAVERAGE, berg_dir=tmp_path, selection={"roi": "V1v"})
    coords = set(label_responses(responses, metadata)["lh"].coords)
    assert {"correlation_nsdcore", "noise_ceiling_nsdcore"} <= coords
    assert "correlation" not in coords


def test_without_its_index_the_label_is_a_column_and_survives_stack_and_groupby(labelled):
    plain = labelled.drop_indexes("roi")
    texts = LABELS["coordinates"]["roi"][1].tolist()
    table = plain.to_dataframe().reset_index().sort_values(["stimulus", "vertex"])
    assert table["roi"].tolist() == texts * 2
    stacked = plain.stack(both=("stimulus", "vertex"))
    assert stacked.roi.values.tolist() == texts * 2
    for one in (labelled, plain):
        means = one["responses"].groupby("roi").mean()
        np.testing.assert_allclose(means.sel(roi="V2;early", stimulus="b"), VALUES[1, 3])
