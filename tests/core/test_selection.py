import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berg.core.exceptions import BERGError, CorruptedFileError, InvalidParameterError
from berg.core.model_card import ModelCard
from berg.core.selection import EmptySelectionWarning, IgnoredSelectionWarning, check_selection, resolve_selection
from berg.core.unit_labels import coordinates, look_up

CARD = """\
model_id: eeg-made_up-linear
modality: eeg
training_dataset: made_up
species: Human
stimuli: Images
model_architecture: linear
creator: Nobody
description: A card for tests.
input: {shape: [batch_size, 3, height, width], dtype: uint8, range: [0, 255]}
output: {shape: [batch_size, n_channels, n_times]}
family: linearizing
outputs:
  - {name: eeg, axes: [stimulus, channel, time], unit: microvolt}
  - {name: source, axes: [stimulus, vertex], unit: nAm}
axes:
  channel: {coordinates: {channel: eeg.ch_names, lobe: eeg.lobe}}
  time: {length: 5, coordinates: {time_s: eeg.times}}
  vertex: {coordinates: {vertex: "{output}.vertex"}}
parameters:
  subject: {type: int, required: true, valid_values: 1-10, example: 1}
  selection:
    type: dict
    required: true
    properties:
      channels: {type: str or list, description: By name.}
      timepoints: {type: numpy.ndarray}
      lobe: {type: str or list, valid_values: [occipital, parietal, frontal]}
      roi: {type: str or list}
      label: {type: str or list, valid_values: [V1, V2, FFA-1], example: V1}
      min_r: {type: float, maximum: 1.0}
      after: {type: list}
      hemisphere: {type: str, valid_values: [lh, rh]}
select:
  channels: {kind: name, axis: channel, metadata: eeg.ch_names}
  timepoints: {kind: mask, axis: time, overrides: [after]}
  lobe: {kind: roi, axis: channel, metadata: eeg.lobe}
  roi: {kind: roi, axis: vertex, output: source, metadata: "{output}.rois"}
  label: {kind: roi, axis: vertex, metadata: source.label, aliases: {FFA: FFA-1, V5: MT}}
  min_r: {kind: minimum, axis: vertex, metadata: source.r}
  after: {kind: range, axis: time, metadata: eeg.times}
  hemisphere: {kind: file}
files: {weights: "weights_{subject:02d}_{hemisphere}", metadata: "metadata_{subject:02d}"}
licence: BSD-3-Clause
citation: None.
references: [None]
"""
METADATA = {
    "eeg": {
        "ch_names": ["Oz", "O1", "O2", "Pz"],
        "lobe": np.array(["occipital", "occipital", "occipital", "parietal"]),
        "times": np.array([-0.1, 0.0, 0.1, 0.2, np.nan]),
    },
    "source": {
        "vertex": np.arange(6) * 10,
        "rois": {"V1": np.array([4, 1]), "V2": [1, 2], "mask": np.array([0, 0, 0, 1, 0, 1], bool), "none": []},
        "label": ["V1", "V2", "V1", "FFA-1", None, "MT"],
        "r": [0.1, 0.5, np.nan, -0.2, 0.5, 0.9],
    },
}
CHANNEL, TIME, VERTEX = ("eeg", "channel"), ("eeg", "time"), ("source", "vertex")


@pytest.fixture(scope="module")
def card():
    return ModelCard.parse(CARD, "eeg-made_up-linear.yaml")


def resolved(card, metadata=METADATA, **selection):
    indices = resolve_selection(card, check_selection(card, selection), metadata)
    return {key: value.tolist() for key, value in indices.items()}


def test_without_a_selection_every_axis_is_whole(card):
    indices = resolve_selection(card, {}, METADATA)
    assert {key: value.tolist() for key, value in indices.items()} == {
        CHANNEL: [0, 1, 2, 3],
        TIME: [0, 1, 2, 3, 4],
        VERTEX: [0, 1, 2, 3, 4, 5],
    }


@pytest.mark.parametrize(
    ("selection", "axis", "expected"),
    [
        ({"channels": "O2"}, CHANNEL, [2]),
        ({"channels": ["Pz", "Oz"]}, CHANNEL, [3, 0]),
        ({"channels": ("Pz", "Oz")}, CHANNEL, [3, 0]),
        ({"channels": np.array(["Pz", "Oz"])}, CHANNEL, [3, 0]),
        ({"timepoints": [0, 1, 0, 0, 1]}, TIME, [1, 4]),
        ({"timepoints": np.array([True, False, False, False, False])}, TIME, [0]),
        ({"timepoints": np.array([0.0, 1.0, 1.0, 0.0, 0.0])}, TIME, [1, 2]),
        ({"timepoints": [4, 1]}, TIME, [4, 1]),
        ({"timepoints": np.array([1, 4], np.uint8)}, TIME, [1, 4]),
        ({"timepoints": [4, 3, 2, 1, 0]}, TIME, [4, 3, 2, 1, 0]),
        ({"after": [np.float32(0.1), 0.2]}, TIME, [2, 3]),
        ({"lobe": "parietal"}, CHANNEL, [3]),
        ({"lobe": ["parietal", "occipital"]}, CHANNEL, [3, 0, 1, 2]),
        ({"roi": "V1"}, VERTEX, [4, 1]),
        ({"roi": ["V1", "V2"]}, VERTEX, [4, 1, 2]),
        ({"roi": ["V2", "V1"]}, VERTEX, [1, 2, 4]),
        ({"roi": ["V1", "V1"]}, VERTEX, [4, 1]),
        ({"roi": "mask"}, VERTEX, [3, 5]),
        ({"label": "V1"}, VERTEX, [0, 2]),
        ({"label": ["V2", "V1"]}, VERTEX, [1, 0, 2]),
        ({"label": np.array(["V2", "V1"])}, VERTEX, [1, 0, 2]),
        ({"label": "FFA-1"}, VERTEX, [3]),
        ({"label": "FFA"}, VERTEX, [3]),
        ({"label": ["V5", "FFA"]}, VERTEX, [5, 3]),
        ({"label": np.array(["V5", "FFA"])}, VERTEX, [5, 3]),
        ({"min_r": 0.5}, VERTEX, [1, 4, 5]),
        ({"min_r": -1}, VERTEX, [0, 1, 3, 4, 5]),
        ({"min_r": np.float32(0.5)}, VERTEX, [1, 4, 5]),
        ({"after": [0, 0.1]}, TIME, [1, 2]),
        ({"after": [0.05, None]}, TIME, [2, 3]),
        ({"after": (None, None)}, TIME, [0, 1, 2, 3]),
        ({"after": np.array([0.1, 0.1])}, TIME, [2]),
        ({"hemisphere": "lh"}, VERTEX, [0, 1, 2, 3, 4, 5]),
        ({"channels": ["O1", "Pz"], "lobe": "occipital"}, CHANNEL, [1]),
        ({"roi": ["V1", "V2"], "min_r": 0.5}, VERTEX, [4, 1]),
        ({"min_r": 0.5, "roi": ["V1", "V2"]}, VERTEX, [4, 1]),
        ({"channels": "O2", "timepoints": [1, 0, 0, 0, 0]}, CHANNEL, [2]),
    ],
)  # fmt: skip
def test_a_selection_picks_these_units_and_leaves_the_other_axes_whole(card, selection, axis, expected):
    found = resolved(card, **selection)
    assert found[axis] == expected
    whole = {CHANNEL: 4, TIME: 5, VERTEX: 6}
    touched = {axis, *([TIME] if "timepoints" in selection else [])}
    assert {key: len(places) for key, places in found.items() if key not in touched} == {
        key: length for key, length in whole.items() if key not in touched
    }


def test_labels_of_the_selected_units_come_in_the_order_of_the_columns(card):
    indices = resolve_selection(card, {"channels": ["Pz", "Oz"]}, METADATA)
    found = coordinates(card, card.outputs[0], indices, METADATA)
    assert {name: (axis, values.tolist()) for name, (axis, values) in found.items() if name != "time_s"} == {
        "channel": ("channel", ["Pz", "Oz"]),
        "lobe": ("channel", ["parietal", "occipital"]),
    }


def test_a_key_that_overrides_another_warns_and_wins(card):
    with pytest.warns(IgnoredSelectionWarning, match="'timepoints' is selected, so 'after' has no effect. Give one"):
        checked = check_selection(card, {"after": [0, 1], "timepoints": [1, 0, 0, 0, 0]})
    assert list(checked) == ["timepoints"]


def test_of_two_keys_that_override_each_other_the_first_wins():
    both = CARD.replace("{kind: range,", "{kind: range, overrides: [timepoints],")
    card = ModelCard.parse(both, "eeg-made_up-linear.yaml")
    with pytest.warns(IgnoredSelectionWarning, match="'after' is selected, so 'timepoints' has no effect"):
        checked = check_selection(card, {"after": [0, 1], "timepoints": [1, 0, 0, 0, 0]})
    assert list(checked) == ["after"]


def test_the_selection_of_the_user_is_not_changed(card):
    given_by_user = {"after": [0, 1], "timepoints": [1, 0, 0, 0, 0]}
    with pytest.warns(IgnoredSelectionWarning):
        check_selection(card, given_by_user)
    assert list(given_by_user) == ["after", "timepoints"]


@pytest.mark.parametrize(
    "selection",
    [
        {"timepoints": [0, 0, 0, 0, 0]},
        {"timepoints": []},
        {"after": [5, 6]},
        {"roi": "none"},
        {"min_r": 0.95},
        {"channels": "Pz", "lobe": "occipital"},
    ],
)
def test_a_selection_of_nothing_warns_and_gives_no_column(card, selection):
    with pytest.warns(
        EmptySelectionWarning, match=r"The selection .* holds no \w+ in output '\w+' of eeg-made_up-linear"
    ):
        found = resolved(card, **selection)
    assert sorted(map(len, found.values()))[0] == 0


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"channel": "Oz"}, "'channel' is not a selection key. Did you mean 'channels'? Keys: channels, timepoints"),
        ({1: "Oz"}, "'1' is not a selection key"),
        (["Oz"], r"The selection must be a dict such as \{'channels': ...\}, got list"),
        ([], "The selection must be a dict"),
        ("V1", "The selection must be a dict .* got str"),
        (None, "eeg-made_up-linear needs a selection. Its keys: channels, timepoints, lobe"),
        ({}, "eeg-made_up-linear needs a selection. Its keys: channels"),
        ({"channels": "Cz"}, r"There is no channel 'Cz'. Did you mean '.z'\? channels: Oz, O1, O2, Pz"),
        ({"channels": ["Oz", "Oz"]}, "selection 'channels' names something twice: Oz, Oz"),
        ({"channels": []}, r"Give the channel as a name or a list of names, got \[\]"),
        ({"channels": np.array(3)}, "Give the channel as a name or a list of names, got 3"),
        ({"channels": 3}, "selection 'channels' must be str or list, got int 3"),
        ({"channels": [3]}, "There is no channel 3"),
        ({"channels": {"Oz"}}, "selection 'channels' must be str or list, got set"),
        ({"lobe": "ocipital"}, "selection 'lobe' is 'ocipital'. Did you mean 'occipital'? Allowed: occipital"),
        ({"lobe": ["frontal"]}, "There is no ROI 'frontal'. .*ROIs: occipital, parietal"),
        ({"roi": "V3"}, r"There is no ROI 'V3'. Did you mean 'V[12]'\? ROIs: V1, V2, mask, none"),
        ({"roi": [["V1"]]}, r"There is no ROI .'V1'."),
        ({"label": "V4"}, r"selection 'label' is 'V4'. Did you mean 'V.'\? Allowed: V1, V2, FFA-1, FFA, V5"),
        ({"label": ["V1", "V4"]}, "selection 'label' is 'V4'"),
        ({"label": np.array(["V1", "V4"])}, "selection 'label' is 'V4'"),
        ({"timepoints": [0, 5]}, "'timepoints' names 5; its places are the whole numbers from 0 to 4. Or give a 0/1"),
        ({"timepoints": [-1, 0]}, "'timepoints' names -1; its places are"),
        ({"timepoints": [0, 1, 1]}, r"'timepoints' must be a 0/1 vector of length 5, got shape \(3,\)\.$"),
        ({"timepoints": [1, 0]}, r"of length 5, got shape \(2,\). If the numbers 1, 0 are meant: timepoints = np"),
        ({"timepoints": (0,)}, r"shape \(1,\). If the numbers 0 are meant: timepoints = np.isin\(np.arange\(5\), "),
        ({"timepoints": np.ones(6, np.uint8)}, r"'timepoints' must be a 0/1 vector of length 5, got shape \(6,\)\.$"),
        ({"timepoints": [0] * 4}, r"'timepoints' must be a 0/1 vector of length 5, got shape \(4,\)\.$"),
        ({"timepoints": [0, 1, 2, 0, 0]}, "'timepoints' has 5 whole numbers, some of them twice"),
        ({"timepoints": [True, False]}, r"'timepoints' must be a 0/1 vector of length 5, got shape \(2,\)"),
        ({"timepoints": [1.0]}, r"'timepoints' must be a 0/1 vector of length 5, got shape \(1,\)"),
        ({"timepoints": [0, 0.5, 1, 0, 0]}, "'timepoints' must hold only 0 and 1"),
        ({"timepoints": [[0, 1], [1]]}, "'timepoints' must be a 0/1 vector, and its rows differ in length"),
        ({"timepoints": 3}, "selection 'timepoints' must be numpy.ndarray, got int 3"),
        ({"min_r": "0.5"}, "selection 'min_r' must be float, got str '0.5'"),
        ({"min_r": 1.5}, r"selection 'min_r' is 1.5; it must lie in \[None, 1.0\]"),
        ({"min_r": np.nan}, "selection 'min_r' is nan; it must lie in"),
        ({"min_r": True}, "selection 'min_r' must be float, got bool True"),
        ({"min_r": -(10**400)}, "selection 'min_r' takes numbers"),
        ({"after": [1]}, r"selection 'after' takes \[smallest, largest\], got \[1\]"),
        ({"after": np.array(3)}, r"selection 'after' takes \[smallest, largest\], got array\(3\)"),
        ({"after": "01"}, "selection 'after' must be list, got str"),
        ({"after": [2, 1]}, "selection 'after': 2.0 to 1.0 is not a range"),
        ({"after": [np.nan, 1]}, "selection 'after': nan to 1.0 is not a range"),
        ({"after": ["a", 1]}, r"selection 'after' takes numbers, got \['a', 1\]"),
        ({"after": [[0], [1]]}, "selection 'after' takes numbers"),
        ({"after": [0, 10**400]}, "selection 'after' takes numbers"),
        ({"hemisphere": ["lh", "rh"]}, "selection 'hemisphere' must be str, got list"),
        ({"hemisphere": "lf"}, r"selection 'hemisphere' is 'lf'. Did you mean 'lh'\? Allowed: lh, rh"),
    ],
)  # fmt: skip
def test_a_wrong_selection_is_refused_with_words(card, selection, words):
    with pytest.raises(InvalidParameterError, match=words.replace("'? ", r"'\? ")):
        resolve_selection(card, check_selection(card, selection), METADATA)


def test_a_key_that_the_card_requires_is_asked_for():
    card = ModelCard.parse(
        CARD.replace("hemisphere: {type: str,", "hemisphere: {type: str, required: true,"), "eeg-made_up-linear.yaml"
    )
    with pytest.raises(InvalidParameterError, match=r"needs a selection. Its missing keys: hemisphere"):
        check_selection(card, {"channels": "Oz"})
    assert check_selection(card, {"hemisphere": "lh"}) == {"hemisphere": "lh"}


def test_a_model_that_needs_no_selection_takes_none():
    card = ModelCard.parse(CARD.replace("type: dict\n    required: true", "type: dict"), "eeg-made_up-linear.yaml")
    assert check_selection(card, None) == check_selection(card, {}) == {}


def with_metadata(place, value):
    room, name = place.split(".")
    return {**METADATA, room: {**METADATA[room], name: value}}


@pytest.mark.parametrize(
    ("place", "value", "selection", "words"),
    [
        ("source.rois", {"V1": [6]}, {"roi": "V1"}, "The metadata place ROI V1 outside the 6 units"),
        ("source.rois", {"V1": [-1]}, {"roi": "V1"}, "outside the 6 units"),
        ("source.rois", {"V1": [0, 1, 1, 0]}, {"roi": "V1"}, "mask of ROI V1 in the metadata has 4 values for 6 units"),
        ("source.rois", {"V1": np.ones(5, bool)}, {"roi": "V1"}, "has 5 values for 6 units"),
        ("source.r", [0.1, 0.2], {"min_r": 0}, r"metadata at 'source.r' have shape \(2,\), for 6 units"),
        ("source.r", ["x"] * 6, {"min_r": 0}, "metadata at 'source.r' are not one value per unit: could not convert"),
        ("source.r", [[1], [1, 2]], {"min_r": 0}, "metadata at 'source.r' are not one value per unit"),
        ("source.label", ["V1"], {"label": "V1"}, r"metadata at 'source.label' have shape \(1,\), for 6 units"),
        ("eeg.times", np.zeros((5, 2)), {"after": [0, 1]}, r"shape \(5, 2\), for 5 units"),
        ("source.vertex", None, {"min_r": 0}, "metadata at '{output}.vertex' are not one value per unit: None"),
    ],
)
def test_metadata_that_do_not_fit_the_card_are_called_corrupted(card, place, value, selection, words):
    with pytest.raises(CorruptedFileError, match=words):
        resolved(card, with_metadata(place, value), **selection)


def test_a_region_may_be_a_mask_of_0_and_1(card):
    indices = resolved(card, with_metadata("source.rois", {"V1": [0, 1, 0, 0, 1, 0]}), roi="V1")
    assert [1, 4] in indices.values()


def test_a_coordinate_of_another_length_is_called_corrupted(card):
    metadata = with_metadata("eeg.lobe", np.array(["occipital"]))
    indices = resolve_selection(card, {}, metadata)
    with pytest.raises(CorruptedFileError, match=r"metadata at 'eeg.lobe' have 1 values for 4 units"):
        coordinates(card, card.outputs[0], indices, metadata)


def test_times_in_float32_reach_to_the_bounds(card):
    metadata = with_metadata("eeg.times", np.array([-0.1, 0, 0.1, 0.2, 0.3], np.float32))
    assert float(metadata["eeg"]["times"][3]) > 0.2
    assert resolved(card, metadata, after=[-0.1, 0.2])[TIME] == [0, 1, 2, 3]


def more_coordinates(**places):
    """The card with further coordinates of the vertices, and of channels and times."""
    vertex = ", ".join(f'{name}: "{place}"' for name, place in places.items())
    text = CARD.replace(
        'coordinates: {vertex: "{output}.vertex"}', f'coordinates: {{vertex: "{{output}}.vertex", {vertex}}}'
    )
    text = text.replace("unit: microvolt}", 'unit: microvolt, coordinates: {snr: "eeg.snr?"}}')
    return ModelCard.parse(text, "eeg-made_up-linear.yaml")


def test_what_need_not_be_in_the_metadata_is_a_coordinate_only_where_it_is():
    card = more_coordinates(r="source.r?", missing="source.nothing.at_all?", short="eeg.lobe?")
    indices = resolve_selection(card, {}, METADATA)
    found = coordinates(card, card.outputs[1], indices, METADATA)
    assert sorted(found) == ["r", "vertex"]
    np.testing.assert_array_equal(found["r"][1], METADATA["source"]["r"])
    with pytest.raises(CorruptedFileError, match=r"have no 'source.nothing' \(missing: 'nothing'\)"):
        coordinates(more_coordinates(missing="source.nothing"), card.outputs[1], indices, METADATA)


def test_regions_label_each_unit_with_all_that_it_is_in():
    card = more_coordinates(roi="{output}.rois?")
    indices = resolve_selection(card, {"roi": ["V1", "V2"]}, METADATA)
    axis, labels = coordinates(card, card.outputs[1], indices, METADATA)["roi"]
    assert (axis, labels.tolist()) == ("vertex", ["V1", "V1;V2", "V2"])  # vertices 4, 1 and 2


@pytest.mark.parametrize("rois", [{"V1": [9]}, {"V1": [0.5]}, {"V1": "all"}, [1, 2]])
def test_regions_that_are_none_make_no_label(rois):
    metadata = with_metadata("source.rois", rois)
    optional, needed = more_coordinates(roi="{output}.rois?"), more_coordinates(roi="{output}.rois")
    indices = resolve_selection(optional, {}, metadata)
    assert "roi" not in coordinates(optional, optional.outputs[1], indices, metadata)
    with pytest.raises(CorruptedFileError):
        coordinates(needed, needed.outputs[1], indices, metadata)


def test_a_coordinate_of_two_axes_is_cut_out_along_both():
    card, snr = more_coordinates(r="source.r?"), np.arange(20.0).reshape(4, 5)
    metadata = with_metadata("eeg.snr", snr)
    indices = resolve_selection(card, {"channels": ["Pz", "Oz"], "timepoints": [4, 1]}, metadata)
    axes, values = coordinates(card, card.outputs[0], indices, metadata)["snr"]
    assert axes == ("channel", "time")
    np.testing.assert_array_equal(values, [[19, 16], [4, 1]])
    time_first = with_metadata("eeg.snr", snr.T)
    np.testing.assert_array_equal(coordinates(card, card.outputs[0], indices, time_first)["snr"][1], values)
    of_others = with_metadata("eeg.snr", snr.reshape(2, 10))
    assert "snr" not in coordinates(card, card.outputs[0], indices, of_others)
    assert "snr" not in coordinates(card, card.outputs[0], indices, METADATA)


def test_a_place_that_the_metadata_do_not_have_is_named():
    with pytest.raises(CorruptedFileError, match=r"The metadata have no 'fmri.lh_ncsnr' \(missing: 'lh_ncsnr'\)"):
        look_up({"fmri": {"rh_ncsnr": 1}}, "fmri.{output}_ncsnr", "lh")
    with pytest.raises(CorruptedFileError, match=r"missing: 'x'"):
        look_up({"fmri": {"rh_ncsnr": 1}}, "fmri.rh_ncsnr.x")


NAMES = METADATA["eeg"]["ch_names"]
ROIS = {
    name: np.flatnonzero(v).tolist() if name == "mask" else list(v) for name, v in METADATA["source"]["rois"].items()
}
SELECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "channels": st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
        "lobe": st.lists(st.sampled_from(["occipital", "parietal"]), min_size=1),
        "timepoints": st.lists(st.integers(0, 1), min_size=5, max_size=5),
        "roi": st.lists(st.sampled_from(sorted(ROIS)), min_size=1),
        "min_r": st.sampled_from([-1, 0, 0.1, 0.5, 0.9, 1]),
    },
)


@settings(max_examples=80, deadline=None)
@given(SELECTIONS.filter(bool))
def test_any_selection_is_the_intersection_of_the_sets_that_its_keys_name(selection):
    card = ModelCard.parse(CARD, "eeg-made_up-linear.yaml")
    lobes = METADATA["eeg"]["lobe"].tolist()
    expected = {
        CHANNEL: {i for i in range(4) if NAMES[i] in selection.get("channels", NAMES)}
        & {i for i in range(4) if lobes[i] in selection.get("lobe", lobes)},
        TIME: {i for i, keep in enumerate(selection.get("timepoints", [1] * 5)) if keep},
        VERTEX: {i for name in selection["roi"] for i in ROIS[name]} if "roi" in selection else set(range(6)),
    }
    if "min_r" in selection:
        expected[VERTEX] &= {i for i, r in enumerate(METADATA["source"]["r"]) if r >= selection["min_r"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptySelectionWarning)
        found = resolved(card, **selection)
    assert {key: set(places) for key, places in found.items()} == expected
    assert all(len(set(places)) == len(places) for places in found.values())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["Oz", "V1", "lh"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    | st.lists(inner, max_size=3).map(lambda items: np.fromiter(items, object)),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(["channels", "timepoints", "lobe", "roi", "label", "min_r", "after", "hemisphere", "x"])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_any_selection_is_indices_or_our_error(selection):
    card = ModelCard.parse(CARD, "eeg-made_up-linear.yaml")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", EmptySelectionWarning)
        warnings.simplefilter("ignore", IgnoredSelectionWarning)
        try:
            found = resolved(card, **selection)
        except BERGError as error:
            print(error)  # which needs no more than a sentence
            return
    assert set(found) == {CHANNEL, TIME, VERTEX}
