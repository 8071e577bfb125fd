import numpy as np
import pytest
import xarray as xr

from berg.core.exceptions import InvalidParameterError
from berg.responses.labelled import label_responses

EEG = np.arange(24, dtype="float32").reshape(2, 3, 4)
SOURCE = np.arange(10, dtype="float32").reshape(2, 5)
LABELS = {
    "eeg": {
        "axes": ["stimulus", "channel", "time"],
        "unit": "microvolt",
        "coordinates": {
            "channel": ("channel", np.array(["Oz", "O1", "Pz"])),
            "lobe": ("channel", np.array(["occipital", "occipital", "parietal"])),
            "time_s": ("time", np.array([-0.1, 0.0, 0.1, 0.2])),
        },
    },
    "source": {"axes": ["stimulus", "vertex"], "unit": "nAm", "coordinates": {"vertex": ("vertex", np.arange(5) * 10)}},
}
MODEL = {"model_id": "eeg-made_up-linear", "subject": 2, "licence": "CC0"}


def one_output():
    return {"model": MODEL, "responses": {"eeg": LABELS["eeg"]}}


def test_one_output_is_a_dataset_with_its_values_names_and_unit():
    labelled = label_responses(EEG, one_output(), ["a.png", "b.png"])
    assert isinstance(labelled, xr.Dataset)
    assert list(labelled.data_vars) == ["eeg"]
    array = labelled["eeg"]
    assert array.dims == ("stimulus", "channel", "time")
    assert array.dtype == np.float32
    assert array.attrs == {"units": "microvolt"}
    assert labelled.attrs == MODEL
    assert float(array.sel(stimulus="b.png", channel="Pz")[3]) == EEG[1, 2, 3]
    np.testing.assert_array_equal(array.values, EEG)


def test_further_coordinates_lie_along_their_axis():
    array = label_responses(EEG, one_output())["eeg"]
    assert array.lobe.dims == ("channel",)
    occipital = array[:, (array.lobe == "occipital").values]
    np.testing.assert_array_equal(occipital, EEG[:, :2])
    assert array.time_s.values.tolist() == [-0.1, 0.0, 0.1, 0.2]


def test_stimuli_without_names_are_numbered():
    assert label_responses(EEG, one_output())["eeg"].stimulus.values.tolist() == [0, 1]


def test_one_stimulus_and_one_unit_keep_their_axes():
    labels = {"axes": ["stimulus", "vertex"], "unit": "nAm", "coordinates": {"vertex": ("vertex", [10])}}
    labelled = label_responses(np.ones((1, 1), "float32"), {"responses": {"source": labels}})
    assert dict(labelled.sizes) == {"stimulus": 1, "vertex": 1}


def test_no_unit_at_all_leaves_an_empty_axis():
    labels = {"axes": ["stimulus", "vertex"], "unit": "nAm", "coordinates": {"vertex": ("vertex", np.zeros(0, int))}}
    labelled = label_responses(np.ones((2, 0), "float32"), {"responses": {"source": labels}})
    assert dict(labelled.sizes) == {"stimulus": 2, "vertex": 0}


def test_several_outputs_are_a_tree_in_the_order_of_the_card():
    labelled = label_responses((EEG, SOURCE), {"model": MODEL, "responses": LABELS}, ["a", "b"])
    assert isinstance(labelled, xr.DataTree)
    assert list(labelled.children) == ["eeg", "source"]
    np.testing.assert_array_equal(labelled["eeg/eeg"].values, EEG)
    np.testing.assert_array_equal(labelled["source/source"].sel(vertex=20).values, SOURCE[:, 2])
    assert labelled["source/source"].attrs["units"] == "nAm"
    assert labelled["source"].attrs == MODEL


@pytest.mark.parametrize(
    ("responses", "metadata"),
    [
        (EEG, {}),
        (EEG, {"responses": {}}),
        (EEG, {"model": MODEL, "responses": LABELS}),
        ((EEG, SOURCE), {"responses": {"eeg": LABELS["eeg"]}}),
    ],
)
def test_metadata_of_something_else_are_refused(responses, metadata):
    with pytest.raises(
        InvalidParameterError, match=r"do not label these responses; .*encode\(..., return_metadata=True"
    ):
        label_responses(responses, metadata)


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], []])
def test_a_wrong_number_of_names_is_refused(names):
    with pytest.raises(InvalidParameterError, match=rf"{len(names)} names .*2 stimuli"):
        label_responses(EEG, one_output(), names)


def test_responses_of_other_units_are_refused():
    with pytest.raises(InvalidParameterError, match="do not label these responses"):
        label_responses(EEG[:, :2], one_output())
