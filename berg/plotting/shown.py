"""What a figure is of: one stimulus, the mean of several, or a contrast, with the words that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.responses.formats import stimulus_names
from berg.responses.labelled import Labelled, attributes_of, outputs_of
from berg.responses.signal_units import signal_unit
from berg.responses.subjects import SUBJECT, subject_names

Stimuli = str | int | float | Sequence[str | int | float] | None
MINUS = "−"  # not a hyphen
_SHOWN_UNITS = {"V": ("µV", 1e6), "T": ("fT", 1e15), "T/m": ("fT/cm", 1e13)}
_SIGNED_WORDS = ("z-scor", "zscor", "z scor", "beta", "normalised", "normalized")
AVERAGED = ("repetition", SUBJECT)
"""Axes of which the mean is drawn."""
_AT_ONCE = 64  # stimuli in memory at once: a store can be larger than the memory
_LONGEST = 60  # letters of a name in a title


@dataclass(frozen=True)
class Shown:
    """Responses without the axis of stimuli, and what to write beside them.

    Attributes
    ----------
    outputs
        Name -> responses, in `unit`.
    title
        The stimulus, or which stimuli.
    quantity, unit
        What the numbers are, such as "response" and "µV".
    is_signed
        Whether below 0 is as meaningful as above.
    facts
        Model, subject, n: for the line below the figure.
    """

    outputs: dict[str, xr.DataArray]
    title: str
    quantity: str
    unit: str
    is_signed: bool
    facts: tuple[str, ...]

    @property
    def label(self) -> str:
        """Quantity and unit."""
        return f"{self.quantity} ({self.unit})"


def show(labelled: Labelled, stimulus: Stimuli = None, minus: Stimuli = None) -> Shown:
    """Responses to a stimulus, to several (their mean), or the difference of both.

    Parameters
    ----------
    labelled
        As `berg.responses.labelled.label_responses` makes them, or as they come from a file.
    stimulus
        A name, a pattern such as ``"face*"``, or several of them; the mean over all stimuli if not given. A
        number that is no name counts from 0.
    minus
        Likewise: the mean response to these is subtracted.

    Raises
    ------
    InvalidParameterError
        For a stimulus that is not there, and a contrast of one side alone.
    """
    if minus is not None and stimulus is None:
        raise InvalidParameterError("A contrast has two sides. Give the stimuli to subtract from too: stimulus=...")
    names = stimulus_names(labelled)
    chosen, other = find_stimuli(names, stimulus), find_stimuli(names, minus) if minus is not None else None
    arrays = outputs_of(labelled)
    units = {str(array.attrs.get("units", "")) or "unit not given" for array in arrays.values()}
    if len(units) > 1:
        raise InvalidParameterError(f"The outputs have several units ({listing(sorted(units))}). Draw one of them.")
    unit, factor = shown_unit(units.pop())
    means = {name: factor * _contrast(array, chosen, other) for name, array in arrays.items()}
    return Shown(
        means,
        shown_title(names, stimulus, minus),
        quantity_of(arrays, other is not None),
        unit,
        is_signed(means, unit, other is not None),
        facts(labelled, chosen, other),
    )


def find_stimuli(names: Sequence[str], wanted: Stimuli) -> NDArray[np.intp]:
    """The indices of stimuli by name, by pattern, by name without its ending, or by number.

    >>> find_stimuli(["face-1.png", "face-2.png", "house.png"], "face*")
    array([0, 1])
    >>> find_stimuli(["face-1.png", "house.png"], "house")
    array([1])
    """
    if wanted is None:
        return np.arange(len(names))
    asked = [wanted] if isinstance(wanted, (str, int, float, np.generic)) else list(wanted)
    found = [index for one in asked for index in _indices(names, one)]
    if not found:
        raise InvalidParameterError("No stimulus was asked for. Leave stimulus out for the mean over all.")
    return np.array(list(dict.fromkeys(found)))


def _indices(names: Sequence[str], wanted: Any) -> list[int]:
    text = str(wanted)
    for same in (
        lambda name: name == text,
        lambda name: fnmatchcase(name, text),
        lambda name: PurePath(name).stem == text,
    ):
        if found := [index for index, name in enumerate(names) if same(name)]:
            return found
    if isinstance(wanted, (int, np.integer)) and 0 <= wanted < len(names):
        return [int(wanted)]
    raise InvalidParameterError(
        f"There is no stimulus '{text}'.{did_you_mean(text, names)} Their names: {listing(names)}. "
        "Patterns stand for several: 'face*'."
    )


def without_repetitions(array: xr.DataArray) -> xr.DataArray:
    """The mean over repetitions and subjects, if there are any."""
    axes = [axis for axis in array.dims if axis in AVERAGED]
    return array.mean(axes, keep_attrs=True) if axes else array


def shown_unit(unit: str) -> tuple[str, float]:
    """The unit to draw in, and the factor to it: µV, fT and fT/cm for any volts and teslas.

    >>> shown_unit("V"), shown_unit("z-scored beta")
    (('µV', 1000000.0), ('z-scored beta', 1.0))
    """
    try:
        found = signal_unit(unit)
    except InvalidParameterError:  # words that nobody knows are drawn as they are, and nothing is scaled
        found = None
    if found is None:
        return unit, 1.0
    name, factor = _SHOWN_UNITS[found.quantity]
    return name, float(f"{found.factor * factor:.12g}")


def is_signed(outputs: dict[str, xr.DataArray], unit: str, is_contrast: bool = False) -> bool:
    """Whether a scale is symmetric about 0: by the unit, or because there are responses below 0."""
    if is_contrast or unit in ("µV", "fT", "fT/cm") or any(word in unit.casefold() for word in _SIGNED_WORDS):
        return True
    return any(bool((array.values < 0).any()) for array in outputs.values())


def facts(labelled: Labelled, chosen: NDArray[np.intp], other: NDArray[np.intp] | None = None) -> tuple[str, ...]:
    """Model, subject and n, for the line below a figure."""
    attributes, arrays = attributes_of(labelled), outputs_of(labelled)
    subjects = subject_names(labelled)
    subject = listing(subjects, most=4) if subjects else attributes.get("subject")
    stimuli = f"{len(chosen):,}" if other is None else f"{len(chosen):,} against {len(other):,}"
    plural = "stimulus" if other is None and len(chosen) == 1 else "stimuli"
    found = [str(attributes.get("model_id", "model not named"))]
    whose = f"mean of {len(subjects)} subjects:" if len(subjects) > 1 else "subject"
    found += [] if subject is None else [f"{whose} {subject}"]
    found.append(f"n = {stimuli} {plural}, {_units(arrays)}")
    repetitions = max(array.sizes.get("repetition", 1) for array in arrays.values())
    return (*found, *([f"mean of {repetitions} repetitions"] if repetitions > 1 else []))


def _units(arrays: dict[str, xr.DataArray]) -> str:
    """How many units there are, in words: 1,105 voxels."""
    counts: dict[str, int] = {}
    for array in arrays.values():
        axis = next((str(axis) for axis in array.dims if axis not in ("stimulus", *AVERAGED, "time")), "unit")
        counts[axis] = counts.get(axis, 0) + array.sizes.get(axis, 1)
    plural = {"vertex": "vertices"}
    return ", ".join(f"{n:,} {axis if n == 1 else plural.get(axis, axis + 's')}" for axis, n in counts.items())


def _contrast(array: xr.DataArray, chosen: NDArray[np.intp], other: NDArray[np.intp] | None) -> xr.DataArray:
    mean = mean_over_stimuli(array, chosen)
    return without_repetitions(mean if other is None else mean - mean_over_stimuli(array, other))


def mean_over_stimuli(array: xr.DataArray, chosen: NDArray[np.intp]) -> xr.DataArray:
    """The mean over some stimuli, a block of them in memory at a time; NaN if one of them is.

    Of one stimulus, its responses as they are.
    """
    if len(chosen) == 1:
        return array.isel(stimulus=int(chosen[0])).astype(np.float64)
    total = np.zeros([size for axis, size in array.sizes.items() if axis != "stimulus"])
    ordered = np.sort(chosen)
    for start in range(0, len(ordered), _AT_ONCE):
        rows = array.isel(stimulus=ordered[start : start + _AT_ONCE]).transpose("stimulus", ...)
        total += rows.values.sum(axis=0, dtype=np.float64)
    return array.isel(stimulus=int(ordered[0]), drop=True).copy(data=total / len(ordered))


def quantity_of(arrays: dict[str, xr.DataArray], is_contrast: bool) -> str:
    """What the numbers are: the attribute ``long_name``, else the firing rate, else the response."""
    names = {str(array.attrs["long_name"]) for array in arrays.values() if array.attrs.get("long_name")}
    name = names.pop() if len(names) == 1 else "firing rate" if "rate" in arrays else "response"
    return f"difference in {name}" if is_contrast else name


def shown_title(names: Sequence[str], stimulus: Stimuli, minus: Stimuli) -> str:
    """Which stimuli, for the title of a figure."""
    title = _title(names, find_stimuli(names, stimulus), stimulus)
    if minus is None:
        return title
    return f"{title}  {MINUS}  {_title(names, find_stimuli(names, minus), minus)}"


def _title(names: Sequence[str], chosen: NDArray[np.intp], wanted: Stimuli) -> str:
    if len(chosen) == 1:
        name = names[int(chosen[0])]
        return f"stimulus {name}" if name.replace(".", "", 1).isdigit() else shortened(name)
    if wanted is None:
        return f"mean of all {len(names):,} stimuli"
    asked = [wanted] if isinstance(wanted, (str, int, float)) else list(wanted)
    return f"mean of {len(chosen):,} stimuli ({shortened(', '.join(map(str, asked)))})"


def shortened(name: str) -> str:
    """A long name without its middle."""
    half = _LONGEST // 2 - 1
    return name if len(name) <= _LONGEST else f"{name[:half]} … {name[-half:]}"
