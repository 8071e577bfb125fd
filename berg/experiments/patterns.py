"""Responses as a matrix: a row per stimulus, a column per unit, with the names of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.responses.formats import stimulus_names
from berg.responses.labelled import attributes_of, outputs_of
from berg.responses.subjects import subject_names

Responses = xr.Dataset | xr.DataTree | xr.DataArray | NDArray[Any]
STIMULUS = "stimulus"
_BLOCK_BYTES = 64_000_000


@dataclass(frozen=True)
class Patterns:
    """Responses of one subject, read in blocks of stimuli: they may be larger than the memory.

    Attributes
    ----------
    outputs
        Arrays whose first axis is the stimulus; of two hemispheres, one each.
    stimuli
        The name of each stimulus.
    attributes
        Of the model that gave them; empty if nothing is known.
    """

    outputs: tuple[Any, ...]
    stimuli: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def n_units(self) -> int:
        """Columns: units, times moments where responses have a time axis."""
        return sum(int(np.prod(output.shape[1:])) for output in self.outputs)

    @property
    def source(self) -> dict[str, Any]:
        """What a result says of these responses."""
        known = ("model_id", "subject", "selection", "berg_version", "weights_sha256")
        return {name: self.attributes[name] for name in known if name in self.attributes} | {"n_units": self.n_units}

    def blocks(self, dtype: Any = np.float64) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Stimuli and their rows, block by block."""
        step = max(1, _BLOCK_BYTES // max(8 * self.n_units, 1))
        for start in range(0, len(self.stimuli), step):
            rows = slice(start, min(start + step, len(self.stimuli)))
            yield rows, self.rows(rows, dtype)

    def rows(self, rows: slice | NDArray[np.intp], dtype: Any = np.float64) -> NDArray[Any]:
        """Some stimuli: an array (stimuli, units)."""
        parts = [np.asarray(output[rows], dtype).reshape(-1, int(np.prod(output.shape[1:]))) for output in self.outputs]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def matrix(self, dtype: Any = np.float64) -> NDArray[Any]:
        """All of it: an array (stimuli, units)."""
        return self.rows(slice(None), dtype)


def patterns(responses: Responses, what: str = "responses") -> Patterns:
    """Labelled responses, or an array (stimuli, units), as `Patterns`.

    Repetitions are averaged. Values that are not finite are left as they are.

    Parameters
    ----------
    responses
        Of one subject, from `berg.encode(..., labelled=True)`, `open_responses`, or an array.
    what
        The name of the argument, for errors.

    Raises
    ------
    InvalidParameterError
        If there is no axis ``stimulus`` in front, or no unit, or there are several subjects.
    """
    if isinstance(responses, xr.DataArray):
        responses = responses.to_dataset(name=responses.name or "responses")
    if not isinstance(responses, (xr.Dataset, xr.DataTree)):
        array = np.asarray(responses)
        if array.ndim < 2 or array.dtype.kind not in "fiu":
            raise InvalidParameterError(
                f"{what} must be labelled responses (berg.encode(..., labelled=True)) or an array (stimuli, units) of "
                f"numbers; got {array.dtype} of shape {array.shape}."
            )
        return _checked(Patterns((array,), tuple(map(str, range(len(array)))), {}), what)
    subjects, attributes = subject_names(responses), attributes_of(responses)
    if len(subjects) > 1:
        raise InvalidParameterError(
            f"{what} are of {len(subjects)} subjects ({listing(subjects, most=4)}), whose units are not one pattern. "
            f"Give one of them:  {what}.sel(subject={subjects[0]!r})"
        )
    arrays = [_averaged(array, what) for array in outputs_of(responses).values()]
    names = tuple(map(str, stimulus_names(responses)))
    own = {"subject": subjects[0]} if subjects else {}
    return _checked(Patterns(tuple(arrays), names, {**attributes, **own}), what)


def same_stimuli(given: Sequence[Patterns], what: Sequence[str]) -> tuple[str, ...]:
    """The names of the stimuli, which must be the same everywhere and in the same order.

    Raises
    ------
    InvalidParameterError
        If they are not; it says where they differ first, and how to put them in order.
    """
    first = given[0].stimuli
    for other, name in zip(given[1:], what[1:], strict=True):
        if len(other.stimuli) != len(first):
            raise InvalidParameterError(
                f"{what[0]} has {len(first):,} stimuli and {name} has {len(other.stimuli):,}. An experiment compares "
                "responses to the same stimuli in the same order: select them with .sel(stimulus=[...])."
            )
        if differ := [number for number, (a, b) in enumerate(zip(first, other.stimuli, strict=True)) if a != b]:
            at = differ[0]
            raise InvalidParameterError(
                f"Stimulus {at} is '{first[at]}' in {what[0]} and '{other.stimuli[at]}' in {name}"
                f"{f', and {len(differ) - 1:,} more differ' if len(differ) > 1 else ''}. "
                "Put one in the order of the other with .sel(stimulus=other.stimulus)."
            )
    return first


def _averaged(array: xr.DataArray, what: str) -> xr.DataArray:
    if STIMULUS not in array.dims:
        raise InvalidParameterError(
            f"{what} has no axis '{STIMULUS}'; its axes are {listing(map(str, array.dims))}. "
            "Encode with labels:  berg.encode(model, stimuli, labelled=True)"
        )
    if "repetition" in array.dims:
        array = array.mean("repetition", keep_attrs=True)
    return array.transpose(STIMULUS, ...)


def _checked(made: Patterns, what: str) -> Patterns:
    if not made.stimuli or not made.n_units:
        raise InvalidParameterError(
            f"{what} has {len(made.stimuli)} stimuli and {made.n_units} units; at least one of each is needed."
        )
    return made
