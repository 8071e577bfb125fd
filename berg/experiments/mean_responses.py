"""The mean response over units to each picture, and its unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.experiments.patterns import Patterns

Floats = NDArray[np.float64]


def mean_over_units(responses: Patterns, what: str) -> Floats:
    """The mean response to each picture, shape (n_pictures,); units that are NaN for all pictures are left out.

    Raises
    ------
    InvalidParameterError
        If a unit is NaN for some pictures only: their means would be over different units.
    """
    found, n_finite = np.empty(len(responses.stimuli)), np.zeros(responses.n_units, np.intp)
    for rows, block in responses.blocks():
        is_there = np.isfinite(block)
        n_finite += is_there.sum(axis=0)
        with np.errstate(invalid="ignore"):
            found[rows] = np.where(is_there, block, 0).sum(axis=1) / is_there.sum(axis=1)
    some = (n_finite > 0) & (n_finite < len(found))
    if some.any() or not n_finite.any():
        raise InvalidParameterError(
            f"{some.sum():,} of {len(some):,} units of {what} are NaN or infinite for some pictures and not for "
            "others, and the others have no responses: means would be over different units. Leave those units out, or "
            "finish the store."
            if some.any()
            else f"All responses of {what} are NaN. Select other units."
        )
    return found


def unit_of(responses: Patterns) -> str:
    """The unit that the responses name, or nothing."""
    return str(getattr(responses.outputs[0], "attrs", {}).get("units", ""))


def with_unit(quantity: str, unit: str) -> str:
    """A label of an axis.

    >>> with_unit("Mean response", "z"), with_unit("Mean response", "")
    ('Mean response (z)', 'Mean response')
    """
    return f"{quantity} ({unit})" if unit else quantity
