"""Checks of the responses: their form, and what they may depend on."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import MissingFileError
from berg.testing.check import Faults, check
from berg.testing.closeness import disagreements
from berg.testing.model_under_test import ModelUnderTest, Responses, takes
from berg.testing.outcome import NotApplicable
from berg.testing.selections import Selections, takes_lists
from berg.testing.stimuli import dtype_of, is_in_context

SAME = 1e-6  # of the largest response
ALIKE = 1e-5  # if another batch is computed, whose sums are added in another order


@check("Fix what the reason names; missing files are fetched by  berg download.")
def model_runs(model: ModelUnderTest) -> Faults:
    """The model can be made, loaded, and asked for responses and metadata."""
    if (error := model.first_run.error) is not None:
        yield f"{type(error).__name__}: {error}"


@check("Return one array for each entry of the card's 'outputs': an array for one, a tuple for several.")
def number_of_arrays_is_as_the_card_says(model: ModelUnderTest) -> Faults:
    """As many arrays are returned as the card has outputs."""
    n_outputs = len(model.card.outputs) or (1 if getattr(model.card.output, "type", "") == "numpy.ndarray" else 0)
    if not n_outputs:
        raise NotApplicable("the card has no 'outputs'")
    found = len(model.returned) if isinstance(model.returned, tuple) else 1
    if found != n_outputs or isinstance(model.returned, list):
        yield f"{found} array(s) in a {type(model.returned).__name__}; the card has {n_outputs} output(s)"


@check('Return NumPy arrays of float32: responses.cpu().numpy().astype("float32", copy=False).')
def responses_are_float32(model: ModelUnderTest) -> Faults:
    """The responses are NumPy arrays of float32."""
    returned = model.returned if isinstance(model.returned, (tuple, list)) else (model.returned,)
    for array in returned:
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            yield f"a {type(array).__name__} of {getattr(array, 'dtype', 'no dtype')}"


@check("Return the axes in the order of the card, each with its length; or correct the card.")
def axes_are_as_the_card_says(model: ModelUnderTest) -> Faults:
    """The arrays have the axes of the card, and those with a length have that length."""
    for index, (array, axes) in enumerate(zip(model.responses, _axes(model), strict=False)):
        if array.ndim != len(axes):
            yield f"array {index} has shape {array.shape}, the card the axes {axes}"
            continue
        for found, size in zip(array.shape, axes, strict=True):
            if isinstance(size, int) and found != size:
                yield f"array {index} has shape {array.shape}, the card the axes {axes}"


@check("Let the first axis be the stimuli.")
def first_axis_is_the_stimuli(model: ModelUnderTest) -> Faults:
    """The first axis of the responses is as long as there are stimuli."""
    _unless_volumes(model)
    for array in model.responses:
        if not array.ndim or len(array) != len(model.stimulus):
            yield f"shape {array.shape} for {len(model.stimulus)} stimuli"


@check("Look for a division by zero or an overflow; refuse weights that are not finite when they are loaded.")
def responses_are_finite(model: ModelUnderTest) -> Faults:
    """The responses have neither NaN nor infinite values."""
    for index, array in enumerate(model.responses):
        if not np.isfinite(array.astype(float)).all():
            yield f"array {index} has {int((~np.isfinite(array.astype(float))).sum())} of {array.size}"


@check("See whether the stimulus reaches the readout.")
def responses_depend_on_the_stimulus(model: ModelUnderTest) -> Faults:
    """Different stimuli give different responses."""
    for index, array in enumerate(model.responses):
        if array.size and np.ptp(array.astype(float), axis=0).max() == 0:
            yield f"array {index} is the same for all {len(model.stimulus)} stimuli"


@check("Do not squeeze: one stimulus is an array whose first axis has length 1.")
def one_stimulus_keeps_its_axis(model: ModelUnderTest) -> Faults:
    """One stimulus gives an array whose first axis has length 1, with the values that it has in a batch."""
    _unless_volumes(model)
    alone = model.encode(stimulus=model.stimulus[:1].copy())
    yield from disagreements("one stimulus", alone, _rows(model.responses, slice(0, 1)), ALIKE)


@check("Do not squeeze: one unit is an axis of length 1.")
def one_unit_keeps_its_axis(model: ModelUnderTest) -> Faults:
    """One selected unit keeps its axis, with length 1."""
    selections = Selections(model)
    keys = selections.keys("name", "mask")
    if not keys:
        raise NotApplicable("the card has no selection key for single units (kind name or mask)")
    for key in keys:
        value = selections.one_unit(key)
        yield from disagreements(f"one unit by {key}", *_selected(model, selections, key, value), SAME)


@check("Select the same units of weights and output, in the order that the card and the metadata give.")
def selected_responses_are_a_slice_of_all(model: ModelUnderTest) -> Faults:
    """A selection gives the columns that the card and the metadata say, of the responses without it."""
    selections = Selections(model)
    keys = selections.keys("name", "mask", "roi", "minimum", "range")
    if not keys:
        raise NotApplicable("the card has no selection key that picks units")
    for key in keys:
        value = selections.value(key)
        yield from disagreements(f"selection {key}", *_selected(model, selections, key, value), SAME)


@check("Return the units of the first region, then those of the second that are not in the first, and so on.")
def regions_are_united_in_order(model: ModelUnderTest) -> Faults:
    """A list of regions gives their union, region by region, in the order given."""
    selections = Selections(model)
    key = next((key for key in ("roi", *selections.card.select) if key in selections.keys("roi", "file")), "")
    if not key or not takes_lists(model.card, key):
        raise NotApplicable("the card has no selection key for lists of regions")
    if selections.card.select[key].kind == "file":
        yield from _united_files(model, key)
    elif len(names := selections.rois(key)[::-1]) == 2:
        yield from disagreements(f"{key}={names}", *_selected(model, selections, key, names), SAME)
    else:
        raise NotApplicable(f"the metadata have no two regions within {model.selection or 'all units'}")


@check("Switch off dropout and anything else that draws numbers (module.eval()), or take a seed.")
def same_stimuli_give_the_same_again(model: ModelUnderTest) -> Faults:
    """The same stimuli give the same responses again."""
    yield from disagreements("a second call", model.encode(), model.responses, SAME)


@check("Return new arrays from each call.")
def responses_are_new_arrays(model: ModelUnderTest) -> Faults:
    """Two calls return arrays of their own, so that the second does not overwrite the first."""
    for one, other in zip(model.encode(), model.responses, strict=True):
        if np.shares_memory(one, other):
            yield "the second call returned the memory of the first"


@check("Compute each stimulus by itself: batch statistics in a network are switched off by module.eval().")
def batch_size_does_not_matter(model: ModelUnderTest) -> Faults:
    """Any batch size gives the same responses."""
    if not takes(model.loaded.generate_response, "batch_size"):
        raise NotApplicable("generate_response takes no batch_size")
    for size in (1, 3, 100):
        yield from disagreements(f"batch_size={size}", model.encode(batch_size=size), model.responses, ALIKE)


@check("Compute each stimulus by itself, and write it to its own row.")
def order_of_stimuli_does_not_matter(model: ModelUnderTest) -> Faults:
    """Stimuli in another order give the same responses in that order."""
    if is_in_context(model.input):
        raise NotApplicable("a word belongs to those before it")
    order = np.roll(np.arange(len(model.stimulus)), 1)
    yield from disagreements(
        "another order", model.encode(stimulus=model.stimulus[order]), _rows(model.responses, order), ALIKE
    )


@check("Work on a copy: stimulus = stimulus.astype(...), not stimulus /= 255.")
def stimulus_is_left_as_it_was(model: ModelUnderTest) -> Faults:
    """The array of stimuli is not changed."""
    given = model.stimulus.copy()
    model.encode(stimulus=given)
    if given.dtype != model.stimulus.dtype or not np.array_equal(given, model.stimulus):
        yield "the stimuli were changed"


@check("Do not write into the stimulus; give torch.from_numpy a copy.")
def read_only_stimuli_are_taken(model: ModelUnderTest) -> Faults:
    """Stimuli that cannot be written to give the same responses."""
    given = model.stimulus.copy()
    given.flags.writeable = False
    yield from disagreements("read-only stimuli", model.encode(stimulus=given), model.responses, ALIKE)


@check("Begin with np.ascontiguousarray(stimulus).")
def stimuli_in_any_memory_order_are_taken(model: ModelUnderTest) -> Faults:
    """Stimuli in Fortran order, with gaps, or with negative strides give the same responses."""
    layouts = {
        "Fortran order": np.asfortranarray(model.stimulus),
        "every second stimulus": np.repeat(model.stimulus, 2, axis=0)[::2],
        "negative strides": model.stimulus[..., ::-1].copy()[..., ::-1],
    }
    for name, given in layouts.items():
        yield from disagreements(name, model.encode(stimulus=given), model.responses, ALIKE)


@check("Convert the stimuli to the dtype of the card when they are in its range.")
def integer_dtypes_are_alike(model: ModelUnderTest) -> Faults:
    """The same integers in another integer dtype give the same responses."""
    if dtype_of(model.input).kind not in "iu":
        raise NotApplicable("the model takes no integers")
    for dtype in ("int64", "int32", ">i4", "uint16"):
        given = model.stimulus.astype(dtype)
        if np.array_equal(given, model.stimulus):
            yield from disagreements(f"stimuli of {dtype}", model.encode(stimulus=given), model.responses, ALIKE)


def _unless_volumes(model: ModelUnderTest) -> None:
    if model.input.text in ("timed_words", "tr_texts"):
        raise NotApplicable("the responses are of all words together, at times of their own")


def _axes(model: ModelUnderTest) -> list[list[int | str]]:
    """The axes of each array: a number if the card gives a length and nothing is selected along it, or the name."""
    if model.card.outputs:
        selected = {model.card.select[key].axis for key in model.selection if key in model.card.select}
        lengths = {axis: part.length or axis for axis, part in model.card.axes.items() if axis not in selected}
        return [[lengths.get(axis, axis) for axis in output.axes] for output in model.card.outputs]
    shape = getattr(model.card.output, "shape", None)
    if not shape:
        raise NotApplicable("the card has neither 'outputs' nor 'output.shape'")
    sizes = re.findall(r"\w+", shape) if isinstance(shape, str) else shape
    return [[int(size) if str(size).isdecimal() else str(size) for size in sizes]]


def _rows(responses: Responses, rows: Any) -> Responses:
    return tuple(array[rows] for array in responses)


def _selected(
    model: ModelUnderTest, selections: Selections, key: str, value: Any
) -> tuple[Responses, list[NDArray[Any]]]:
    """What the model returns for a selection, and what it must return."""
    expected = list(selections.slice_of(model.responses, key, value))
    return model.encode_with({**model.selection, key: value}), expected


def _united_files(model: ModelUnderTest, key: str) -> Faults:
    """The same for regions that have a file each, with the first two whose files are there."""
    single: dict[str, Responses] = {}
    aliases = model.card.select[key].aliases
    for name in model.card.selection_parameters[key].allowed or ():
        try:
            if len(single) < 2 and name not in aliases:
                single[name] = model.encode_with({**model.selection, key: name})
        except MissingFileError:
            continue
    if len(single) < 2:
        raise NotApplicable("the files of fewer than two regions are there")
    names = list(single)[::-1]
    expected = [np.concatenate(arrays, axis=1) for arrays in zip(*(single[name] for name in names), strict=True)]
    yield from disagreements(f"{key}={names}", model.encode_with({**model.selection, key: names}), expected, SAME)
