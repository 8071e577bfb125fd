"""An axis that is as long as the stimulus: in cards, in selections, in labels."""

import numpy as np
import pytest

from berg.core.exceptions import InvalidParameterError, ModelCardError
from berg.core.model_card import ModelCard
from berg.core.selection import resolve_selection, resolve_times
from berg.core.unit_labels import axis_attributes, axis_length, coordinates

CARD = """\
model_id: meg-made_up-sound
modality: meg
training_dataset: made_up
species: Human
stimuli: Sounds
model_architecture: linear
creator: someone
description: A model of sounds.
family: made_up
input: {shape: [batch_size, n_samples], sampling_rate: 1000}
output: {description: Responses.}
outputs: [{name: meg, axes: [stimulus, sensor, time], unit: fT}]
axes:
  sensor: {length: 3}
  time: {length: from_stimulus, sampling_rate: 100}
parameters:
  selection:
    type: dict
    description: What to return.
    properties:
      window: {type: list, description: "[first, last] second."}
select:
  window: {kind: range, axis: time}
files: {weights: weights, metadata: metadata}
licence: MIT
citation: none
references: [none]
"""


def test_the_axis_has_as_many_places_as_the_stimulus_lasts():
    card = ModelCard.parse(CARD)
    assert set(resolve_selection(card, {}, {})) == {("meg", "sensor")}
    assert resolve_times(card, {}, n_samples=259) == {("meg", "time"): pytest.approx(np.arange(25))}
    with pytest.raises(InvalidParameterError, match="as long as the stimulus"):
        axis_length(card, "meg", "time", {})


@pytest.mark.parametrize(
    ("window", "places"),
    [([0.1, 0.2], range(10, 21)), ([None, 0.03], range(4)), ([0.2, None], range(20, 25)), ([0.05, 0.05], [5])],
)
def test_a_window_in_seconds_includes_both_ends(window, places):
    card = ModelCard.parse(CARD)
    indices = resolve_times(card, {"window": window}, n_samples=250)
    assert indices["meg", "time"].tolist() == list(places)
    name, seconds = coordinates(card, card.outputs[0], indices | resolve_selection(card, {}, {}), {})["time"]
    assert name == "time"
    np.testing.assert_allclose(seconds, np.array(places) / 100)
    assert axis_attributes(card, card.outputs[0], {}) == {"sensor_total": 3, "time_step": 0.01}


def test_a_window_that_is_none_is_refused_without_a_stimulus():
    with pytest.raises(InvalidParameterError, match=r"window.*is not a range"):
        resolve_selection(ModelCard.parse(CARD), {"window": [2, 1]}, {})


@pytest.mark.parametrize(
    ("written", "instead", "words"),
    [
        ("length: from_stimulus, sampling_rate: 100", "length: from_stimulus", "needs a sampling_rate"),
        ("sampling_rate: 100}", "sampling_rate: 100, coordinates: {time: meg.times}}", "no coordinates"),
        ("length: from_stimulus, sampling_rate: 100", "length: 5, sampling_rate: 100", "its length is 'from_stimulus'"),
        ("length: from_stimulus", "length: from_stimuli", "from_stimulus"),
        (", sampling_rate: 1000}", "}", "'input' needs a sampling_rate"),
        ("kind: range, axis: time", "kind: mask, axis: time", "must be range"),
        ("kind: range, axis: time", "kind: range, axis: time, metadata: meg.times", "without metadata"),
        ("kind: range, axis: time", "kind: range, axis: sensor", "needs 'metadata'"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(written, instead, words):
    assert CARD.count(written) == 1
    with pytest.raises(ModelCardError, match=words):
        ModelCard.parse(CARD.replace(written, instead))
