"""Checks that stimuli which a model cannot take are refused, with an error that says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from berg.core.exceptions import InvalidParameterError
from berg.testing.check import Faults, check
from berg.testing.model_under_test import ModelUnderTest, takes
from berg.testing.outcome import NotApplicable
from berg.testing.refusal import not_refused, refusal
from berg.testing.stimuli import dtype_of, sizes_of

CALL = "Check the stimulus first:  berg.stimuli.checks.check_stimulus(stimulus, card.input), or raise StimulusError."


@check(CALL)
def wrong_numbers_of_axes_are_refused(model: ModelUnderTest) -> Faults:
    """A stimulus without its first axis, or with one more, is refused; a single vector or film may be taken."""
    if model.stimulus.ndim > 2 and not model.input.frame_rate:
        yield from _unless_refused(model, "one stimulus without its first axis", model.stimulus[0])
    yield from _unless_refused(model, "stimuli with one more axis", model.stimulus[None])


@check(CALL)
def wrong_sizes_are_refused(model: ModelUnderTest) -> Faults:
    """A stimulus that is one too long along an axis of fixed size, such as the channels, is refused."""
    fixed = [axis for axis, size in enumerate(sizes_of(model.input)) if isinstance(size, int) and axis]
    if not fixed:
        raise NotApplicable("no axis of the stimuli has a fixed size")
    for axis in fixed:
        given = np.concatenate([model.stimulus, np.take(model.stimulus, [0], axis)], axis)
        yield from _unless_refused(model, f"stimuli of shape {given.shape}", given)


@check(CALL)
def fractions_are_refused_where_integers_are_due(model: ModelUnderTest) -> Faults:
    """A model of pictures with integers refuses pictures with values from 0 to 1."""
    if _dtype(model).kind not in "iu":
        raise NotApplicable("the model takes floating-point numbers")
    low, high = model.input.range or (0, 255)
    given = (model.stimulus - low) / (high - low)
    yield from _unless_refused(model, "a stimulus with values from 0 to 1", given)
    yield from _unless_refused(model, "a float32 stimulus with values from 0 to 1", given.astype("float32"))


@check(CALL)
def values_out_of_range_are_refused(model: ModelUnderTest) -> Faults:
    """A value below or above the range of the card is refused."""
    if model.input.range is None:
        raise NotApplicable("the card gives no 'input.range'")
    dtype = "int64" if _dtype(model).kind in "iu" else "float64"
    for value in (model.input.range[0] - 1, model.input.range[1] + 1):
        yield from _unless_refused(model, f"a value of {value:g}", _with_last(model, value, dtype))


@check(CALL)
def nan_is_refused(model: ModelUnderTest) -> Faults:
    """A stimulus with NaN is refused."""
    _unless_text(model)
    yield from _unless_refused(model, "NaN", _with_last(model, np.nan, "float32"))


@check(CALL)
def infinite_values_are_refused(model: ModelUnderTest) -> Faults:
    """A stimulus with an infinite value is refused."""
    _unless_text(model)
    yield from _unless_refused(model, "an infinite value", _with_last(model, np.inf, "float32"))


@check(CALL)
def empty_stimuli_are_refused(model: ModelUnderTest) -> Faults:
    """No stimulus at all is refused."""
    yield from _unless_refused(model, f"an array of shape {model.stimulus[:0].shape}", model.stimulus[:0])


@check(CALL)
def texts_are_refused(model: ModelUnderTest) -> Faults:
    """A text in place of stimuli is refused."""
    yield from _unless_refused(model, "a text", "no such stimulus")


@check(CALL)
def objects_are_refused(model: ModelUnderTest) -> Faults:
    """Arrays of objects, and what is not an array, are refused."""
    if model.input.kind != "text":  # of which an array of objects may be one
        yield from _unless_refused(model, "an array of objects", model.stimulus.astype(object))
    yield from _unless_refused(model, "a dict", {"stimulus": model.stimulus})


@check("Raise InvalidParameterError if batch_size is not a whole number from 1.")
def impossible_batch_sizes_are_refused(model: ModelUnderTest) -> Faults:
    """A batch size that is zero, negative or a text is refused with InvalidParameterError."""
    if not takes(model.loaded.generate_response, "batch_size"):
        raise NotApplicable("generate_response takes no batch_size")
    for size in (0, -1, "8"):
        found = refusal(model.encode, batch_size=size)
        if (fault := not_refused(f"batch_size={size!r}", found, InvalidParameterError)) is not None:
            yield fault


def _unless_text(model: ModelUnderTest) -> None:
    if model.input.kind == "text":
        raise NotApplicable("a text holds no numbers")


def _unless_refused(model: ModelUnderTest, what: str, stimulus: Any) -> Iterator[str]:
    loaded = model.loaded
    if (fault := not_refused(what, refusal(model.encode, loaded, stimulus))) is not None:
        yield fault


def _dtype(model: ModelUnderTest) -> np.dtype[Any]:
    if model.input.dtype is None:
        raise NotApplicable("the card gives no 'input.dtype'")
    return dtype_of(model.input)


def _with_last(model: ModelUnderTest, value: float, dtype: str) -> Any:
    """The stimuli with the last value replaced, which a look at the first stimulus would not notice."""
    given = model.stimulus.astype(dtype)
    given.flat[-1] = value
    return given
