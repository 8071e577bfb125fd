"""What parts of a card say of themselves."""

import numpy as np
import pytest

from berg.core.card_check import contradictions
from berg.core.card_schema import OutputArray
from berg.core.model_card import ModelCard
from berg.core.model_registry import get_available_models, get_card


def test_the_axes_of_units_are_neither_stimuli_nor_repetitions():
    output = OutputArray(name="responses", axes=["stimulus", "repetition", "channel", "time"], unit="µV")
    assert output.unit_axes == ("channel", "time")


@pytest.mark.parametrize("model_id", get_available_models())
def test_own_parameters_and_those_of_the_selection_are_all_there_is(model_id):
    card = get_card(model_id)
    raw = card.raw["parameters"]
    assert list(card.own_parameters) == [name for name in raw if name not in ("device", "selection")]
    assert list(card.selection_parameters) == list(raw.get("selection", {}).get("properties", {}))


def test_a_card_without_selection_has_no_parameters_of_it():
    card = ModelCard(model_id="a-b-c", modality="a", training_dataset="b")
    assert card.selection_parameters == card.own_parameters == {}


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"])
@pytest.mark.parametrize(("below", "above"), [(0, 0), (1, 0), (0, 1)])
def test_a_range_fits_into_an_integer_dtype_as_numpy_says(dtype, below, above):
    held = np.iinfo(dtype)
    step = 2.0**11 if held.bits == 64 else 1.0  # the next float
    limits = [float(held.min) - below * step, float(held.max) - (held.bits == 64) * step + above * 2 * step]
    card = get_card("fmri-szinte2024-prf_css")
    changed = card.model_copy(update={"input": card.input.model_copy(update={"dtype": dtype, "range": tuple(limits)})})
    fits = held.min <= limits[0] and limits[1] <= held.max
    assert bool([fault for _, fault in contradictions(changed) if "does not fit" in fault]) is not fits
