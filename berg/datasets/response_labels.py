"""What responses in memory say of themselves: masked values, named axes, labels of rows and units, the unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, InvalidParameterError, listing
from berg.datasets.response_arrays import SAMPLE_AXES
from berg.datasets.splits import Indices, stimulus_indices
from berg.statistics.array_kinds import Labelled, labelled

_ROWS = ("stimulus", "presentation")


def opened(array: Any, axes: Sequence[str] | None) -> Labelled:
    """An array of any package, its axes in the order that was given where they have names of their own.

    Raises
    ------
    DatasetError
        If it holds no real numbers, or its axes have other names than those given.
    """
    try:
        found = labelled(array)
    except InvalidParameterError as error:
        raise DatasetError(f"responses: {error}") from error
    if found.dims is None:
        return found
    if axes is None:
        if not set(found.dims) & set(_ROWS):
            raise DatasetError(
                f"The responses are an array of xarray with the axes {listing(found.dims)}; one must be 'stimulus' or "
                "'presentation'. Rename it:  array.rename({'old': 'stimulus'})"
            )
        return found
    rows = [dim for dim in found.dims if dim in SAMPLE_AXES and dim not in axes]
    if {*rows, *axes} != set(found.dims):
        raise DatasetError(
            f"The responses are an array of xarray with the axes {listing(found.dims)}; given were the axes "
            f"{listing(axes)}. Leave those out, or rename:  array.rename({{'old': 'new'}})"
        )
    wanted = [*rows, *axes]
    return found.ordered([found.dims.index(dim) for dim in wanted])


def order_of_rows(
    given: Labelled, axes: Sequence[str], names: Sequence[str], presentations: Indices | None
) -> Indices | None:
    """Which stimulus each row is the response to, by the labels of the rows; None if they do not say.

    Raises
    ------
    DatasetError
        If labels are names of no stimulus, or of others than the presentations say.
    """
    place = next((place for place, axis in enumerate(axes) if axis in _ROWS), None)
    labels = given.labels[place] if given.labels and place is not None else None
    if labels is None or place is None or _is_numbering(labels):
        return None
    if presentations is not None and not set(map(str, labels)) <= set(names) and axes[place] == "presentation":
        return None  # numbers of trials, or times
    found = stimulus_indices(labels.to_numpy(), names, of="the labels of the rows of the responses")
    if presentations is not None and len(presentations) == len(found) and not np.array_equal(presentations, found):
        raise DatasetError(
            f"The rows of the responses are labelled {listing(labels, 3)}; by 'presentations' they are of "
            f"{listing((names[index] for index in presentations), 3)}. Give only one of them."
        )
    return found


def coordinates_of(given: Labelled, axes: Sequence[str]) -> dict[str, tuple[str, NDArray[Any]]]:
    """Labels along the axes of the units."""
    own = {
        axes[place]: (axes[place], labels.to_numpy())
        for place, labels in enumerate(given.labels)
        if labels is not None and axes[place] not in SAMPLE_AXES and not _is_numbering(labels) and labels.nlevels == 1
    }
    others = {
        name: (axes[place], labels)
        for name, (place, labels) in (given.coordinates or {}).items()
        if axes[place] not in SAMPLE_AXES
    }
    return {**others, **own}


def _is_numbering(labels: Any) -> bool:
    return type(labels).__name__ == "RangeIndex" and labels.start == 0 and labels.step == 1
