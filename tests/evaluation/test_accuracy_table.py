"""Tables of accuracies: built, written, read, summed up, and put into a card."""

import numpy as np
import pytest
import xarray as xr

from berg.core.exceptions import (
    CorruptedFileError,
    InvalidParameterError,
    MissingFileError,
    ModelCardError,
    StorageError,
)
from berg.core.model_card import ModelCard
from berg.core.unit_labels import region_labels
from berg.evaluation.accuracy_summary import fill_performance, metrics_of, regions, summary
from berg.evaluation.accuracy_table import (
    VARIABLES,
    accuracy_table,
    accuracy_values,
    join_outputs,
    outputs_of,
    read_accuracy,
    region_names,
    to_dataframe,
    write_accuracy,
)

ATTRIBUTES = {"model_id": "fmri-a-b", "subject": 1, "split": "test", "n_stimuli": 20}


def hemisphere(seed=0, n=6):
    rng = np.random.default_rng(seed)
    labels = region_labels({"V1": [0, 1, 2], "early": [2, 3], "PPA": []}, n)
    return accuracy_table(
        {name: rng.random(n) for name in VARIABLES}, {"vertex": n}, {"roi": ("vertex", labels)}, ATTRIBUTES
    )


def channels():
    r = [[0.1, 0.5, 0.2], [0.0, np.nan, 0.3]]
    names = {"channel": ("channel", np.array(["Oz", "Fp1"])), "time": ("time", np.array([0.0, 0.1, 0.2]))}
    return accuracy_table({"r": r}, {"channel": 2, "time": 3}, names, {**ATTRIBUTES, "subject": 2})


@pytest.mark.parametrize(
    "accuracy",
    [
        join_outputs({"lh": hemisphere(0), "rh": hemisphere(1, 9)}),
        join_outputs({"responses": hemisphere()}),
        join_outputs({"eeg": channels()}),
    ],
    ids=["two hemispheres", "one output", "channel x time"],
)
def test_a_table_is_read_as_it_was_written(tmp_path, accuracy):
    path = tmp_path / "encoding_models_accuracy" / "accuracy_subject-01.nc"
    write_accuracy(path, accuracy)
    found = read_accuracy(path)
    assert found.identical(accuracy)
    assert type(found) is type(accuracy)
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # nothing is left over


@pytest.mark.slow
def test_a_table_of_the_whole_cortex_keeps_every_vertex(tmp_path):
    n = 163_842
    r = np.linspace(-1, 1, n, dtype=np.float32)
    labels = region_labels({"V1": np.arange(5000), "early": np.arange(4000, 9000)}, n)
    table = accuracy_table({"r": r}, {"vertex": n}, {"roi": ("vertex", labels)}, ATTRIBUTES)
    write_accuracy(tmp_path / "a.nc", join_outputs({"lh": table, "rh": table}))
    found = outputs_of(read_accuracy(tmp_path / "a.nc"))
    np.testing.assert_array_equal(found["rh"]["r"], r)
    assert found["lh"]["roi"].values[[0, 4500, 8000, 9000]].tolist() == ["V1", "V1;early", "early", ""]


def test_a_file_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match="berg evaluate MODEL_ID --data FOLDER"):
        read_accuracy(tmp_path / "a.nc")
    (tmp_path / "a.nc").write_bytes(b"nothing of the kind")
    with pytest.raises(CorruptedFileError, match=r"a\.nc is no table of accuracies .* Delete it"):
        read_accuracy(tmp_path / "a.nc")
    xr.Dataset(attrs={"a": 1}).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(CorruptedFileError, match=r"b\.nc holds no accuracy"):
        read_accuracy(tmp_path / "b.nc")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_accuracy(tmp_path / "file" / "a.nc", hemisphere())


def test_a_number_is_needed_for_each_unit():
    with pytest.raises(InvalidParameterError, match=r"r has 3 values, for 2 x 2 units \(channel, time\)"):
        accuracy_table({"r": np.zeros(3)}, {"channel": 2, "time": 2}, {}, {})


def test_a_coordinate_named_like_a_variable_gives_way():
    table = accuracy_table({"r": [0.5]}, {"voxel": 1}, {"r": ("voxel", np.array([np.nan]))}, {})
    assert table["r"].values.tolist() == [0.5]
    assert list(table.coords) == ["voxel"]


def test_values_are_found_under_both_of_their_names():
    accuracy = join_outputs({"lh": hemisphere(0), "rh": hemisphere(1)})
    np.testing.assert_array_equal(accuracy_values(accuracy, "rh", "held_out_r"), hemisphere(1)["r"])
    assert accuracy_values(accuracy, "rh", "ncsnr") is None
    assert accuracy_values(accuracy, "nobody", "r") is None


def test_a_table_becomes_a_row_per_unit():
    frame = to_dataframe(join_outputs({"lh": hemisphere(0), "rh": hemisphere(1, 9)}))
    assert len(frame) == 15
    assert frame.groupby("output")["r"].count().to_dict() == {"lh": 6, "rh": 9}
    assert frame.loc[2, "roi"] == "V1;early"
    eeg = to_dataframe(join_outputs({"eeg": channels()}))
    assert eeg.set_index(["channel", "time"])["r"].loc["Oz", 0.1] == np.float32(0.5)


def test_units_of_several_regions_are_in_each_of_them():
    found = {name: np.flatnonzero(own).tolist() for name, own in region_names(hemisphere()).items()}
    assert found == {"V1": [0, 1, 2], "early": [2, 3]}
    assert region_labels({"mask": np.array([True, False])}, 2).tolist() == ["mask", ""]


def test_figures_of_regions_are_those_of_their_units():
    table = accuracy_table(
        {
            "r": [0.1, 0.2, 0.6, 0.4],
            "noise_ceiling": [0.5, 0.5, 0.7, np.nan],
            "noise_normalised": [np.nan, 0.4, 0.9, np.nan],
            "p_false_discovery": [0.2, 0.04, 0.01, 0.05],
        },
        {"voxel": 4},
        {"roi": ("voxel", np.array(["V1", "V1", "V1;early", "early"]))},
        ATTRIBUTES,
    )
    whole, v1, early = regions(join_outputs({"responses": table}))
    assert (whole.name, v1.name, early.name) == ("", "V1", "early")
    assert (v1.n_units, v1.n_significant, early.n_significant) == (3, 2, 1)
    assert v1.median_r == pytest.approx(0.2)
    assert early.median_ceiling == pytest.approx(0.7)
    assert whole.median_normalised == pytest.approx(0.65)
    assert summary(join_outputs({"responses": table})) == [
        "responses: 4 units, median r 0.300, noise ceiling 0.500, noise-normalised 0.650, "
        "2 above chance (false discoveries below 5%)"
    ]


def test_channels_have_their_best_time():
    whole, oz, fp1 = regions(join_outputs({"eeg": channels()}))
    assert (whole.peak_r, whole.peak_time) == pytest.approx((0.5, 0.1))
    assert (oz.name, oz.peak_time) == ("Oz", 0.1)
    assert (fp1.name, fp1.peak_time, fp1.n_significant) == ("Fp1", 0.2, None)
    assert "best 0.500 at 0.1 s" in summary(join_outputs({"eeg": channels()}))[0]


def test_a_table_without_a_single_number_has_no_figures():
    empty = join_outputs({"responses": accuracy_table({"r": [np.nan]}, {"voxel": 1}, {}, ATTRIBUTES)})
    assert metrics_of(empty) == []
    assert np.isnan(regions(empty)[0].median_r)


def test_published_ceilings_are_not_taken_for_correlations():
    published = accuracy_table(
        {"correlation": [0.5], "noise_ceiling": [45.0]}, {"voxel": 1}, {}, {}, {"noise_ceiling": "%"}
    )
    (region,) = regions(published)
    assert (region.r_name, region.median_r) == ("correlation", 0.5)
    assert np.isnan(region.median_ceiling)


# The card's performance block

HEAD = """# my model
model_id: fmri-a-b   # its id
modality: fmri
training_dataset: a
description: |
  performance: is no key here
"""
TAIL = """
# how to cite
citation: Me
references: [one, "two"]
"""
BY_HAND = "{name: mine, value: 0.5, description: by hand}"
BLOCKS = {
    "none": "",
    "block": f"performance:\n  metrics:\n    - {BY_HAND}\n  # a remark\n",
    "flow": f"performance: {{metrics: [{BY_HAND}]}}  # a remark\n",
    "empty": "performance:\n",
}


def accuracy_of(subject, r):
    return join_outputs({"responses": accuracy_table({"r": [r]}, {"voxel": 1}, {}, {**ATTRIBUTES, "subject": subject})})


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("tail", [TAIL, ""])
def test_a_card_is_filled_and_keeps_all_else(tmp_path, block, tail, newline):
    path = tmp_path / "fmri-a-b.yaml"
    path.write_bytes((HEAD + BLOCKS[block] + tail).replace("\n", newline).encode())
    fill_performance(path, accuracy_of(1, 0.25))
    text = path.read_bytes().decode()
    assert text.startswith(HEAD.replace("\n", newline))
    assert tail.replace("\n", newline) in text
    assert ("\r\n" in text) == (newline == "\r\n")
    (metric,) = ModelCard.read(path).performance.metrics
    assert (metric.name, metric.value) == ("median r, subject 1", 0.25)
    assert "split test, 20 stimuli" in metric.description


def test_figures_of_other_subjects_stay_and_those_of_this_one_are_replaced(tmp_path):
    path = tmp_path / "fmri-a-b.yaml"
    path.write_text(HEAD + BLOCKS["block"] + TAIL)
    for subject, r in ((1, 0.25), (2, 0.5), (1, 0.75)):
        fill_performance(path, accuracy_of(subject, r))
    found = {metric.name: metric.value for metric in ModelCard.read(path).performance.metrics}
    assert found == {"median r, subject 1": 0.75, "median r, subject 2": 0.5}
    assert path.read_text().count("performance:") == 2  # the other is in the description


def test_figures_written_by_hand_are_kept_where_wanted(tmp_path):
    path = tmp_path / "fmri-a-b.yaml"
    path.write_text(HEAD + BLOCKS["flow"])
    fill_performance(path, accuracy_of(1, 0.25), keep=True)
    assert [metric.name for metric in ModelCard.read(path).performance.metrics] == ["mine", "median r, subject 1"]


def test_a_card_that_is_none_is_left_as_it_was(tmp_path):
    path = tmp_path / "card.yaml"
    path.write_text("model_id: [")
    with pytest.raises(ModelCardError, match="not valid YAML"):
        fill_performance(path, accuracy_of(1, 0.25))
    assert path.read_text() == "model_id: ["
