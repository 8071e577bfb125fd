"""How far responses are from the truth, in units of how much the truth varies."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

MOST = 1e-4  # of the standard deviation of the responses


def assert_near(responses: Any, truth: Any) -> None:
    """Fail where a float32 response is further than `MOST` from the truth in float64."""
    assert responses.dtype == np.float32
    assert truth.dtype == np.float64
    assert responses.shape == truth.shape
    assert truth.std() > 0
    largest = np.abs(responses - truth).max() / truth.std()
    logging.getLogger(__name__).info("largest difference %.1e", largest)
    assert largest < MOST


def unit_correlations(responses: Any, others: Any) -> Any:
    """Pearson's r over stimuli, shape (n_units,)."""
    x, y = (array.reshape(len(array), -1).astype(float) for array in (responses, others))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
