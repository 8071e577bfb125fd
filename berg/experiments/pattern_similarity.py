r"""How similar the response patterns to pictures are, without a matrix of all pairs of pictures.

With rows :math:`z_i` that have mean 0 and length 1 over units, Pearson's r between the patterns of two pictures is
:math:`z_i \cdot z_j`, and the mean over subjects a mean of such products. What is held is one matrix of pictures by
units per subject.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.experiments.patterns import Patterns

Floats32 = NDArray[np.float32]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
_BLOCK_BYTES = 2**26


class Similarity(Protocol):
    """What sets of pictures are scored by."""

    @property
    def n_pictures(self) -> int:
        """How many pictures there are."""
        ...

    def pairs(self, sets: Indices) -> Floats32:
        """Similarities of all pairs in each set: shape (n_sets, size * (size - 1) / 2)."""
        ...


@dataclass(frozen=True)
class PatternSimilarity:
    """Pearson's r between patterns, averaged over subjects.

    Attributes
    ----------
    subjects
        Per subject shape (n_pictures, n_units), rows of mean 0 and length 1.
    """

    subjects: tuple[Floats32, ...]

    @property
    def n_pictures(self) -> int:
        """How many pictures there are."""
        return len(self.subjects[0])

    def columns(self, pictures: Indices) -> Floats32:
        """The similarity of every picture with each of some: shape (n_pictures, n_chosen)."""
        total = np.zeros((self.n_pictures, len(pictures)), np.float32)
        for rows in self.subjects:
            total += rows @ rows[pictures].T
        return total / np.float32(len(self.subjects))

    def pairs(self, sets: Indices) -> Floats32:
        """Similarities of all pairs in each set: shape (n_sets, size * (size - 1) / 2)."""
        below = np.tril_indices(sets.shape[1], -1)
        found = np.empty((len(sets), len(below[0])), np.float32)
        for part in self._parts(sets):
            total = sum(_products(rows[sets[part]]) for rows in self.subjects)
            found[part] = total[:, *below] / np.float32(len(self.subjects))  # type: ignore[index]
        return found

    def exact_pairs(self, pictures: Indices) -> Floats:
        """Those of one set, summed in float64: shape (size * (size - 1) / 2,)."""
        total = sum(_products(rows[pictures].astype(np.float64)) for rows in self.subjects)
        own: Floats = total[np.tril_indices(len(pictures), -1)] / len(self.subjects)  # type: ignore[index]
        return own

    def without(self, subject: int) -> PatternSimilarity:
        """That of the other subjects; no array is copied."""
        return PatternSimilarity(self.subjects[:subject] + self.subjects[subject + 1 :])

    def dense(self) -> DenseSimilarity:
        """All pairs as one matrix: n_pictures squared times 4 bytes."""
        return DenseSimilarity(self.columns(np.arange(self.n_pictures)))

    def _parts(self, sets: Indices) -> Iterator[slice]:
        n_units = max(rows.shape[1] for rows in self.subjects)
        step = max(1, _BLOCK_BYTES // (4 * sets.shape[1] * max(n_units, sets.shape[1])))
        return (slice(start, start + step) for start in range(0, len(sets), step))


@dataclass(frozen=True)
class DenseSimilarity:
    """The matrix of all pairs of pictures, in which sets are looked up."""

    matrix: Floats32

    @property
    def n_pictures(self) -> int:
        """How many pictures there are."""
        return len(self.matrix)

    def pairs(self, sets: Indices) -> Floats32:
        """Similarities of all pairs in each set: shape (n_sets, size * (size - 1) / 2)."""
        row, column = np.tril_indices(sets.shape[1], -1)
        found: Floats32 = self.matrix.reshape(-1).take(sets[:, row] * len(self.matrix) + sets[:, column])
        return found


def _products(rows: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.matmul(rows, np.swapaxes(rows, -1, -2)))


def pattern_similarity(subjects: Sequence[Patterns], what: str) -> PatternSimilarity:
    """Read the responses of some subjects, block by block, as rows of mean 0 and length 1.

    Units without a response to any picture (NaN) are left out.

    Raises
    ------
    InvalidParameterError
        If a unit has responses to some pictures only, or a pattern does not vary over units.
    """
    named = [(responses, _named(what, number, len(subjects))) for number, responses in enumerate(subjects)]
    return PatternSimilarity(tuple(_rows(responses, name) for responses, name in named))


def _named(what: str, number: int, n: int) -> str:
    return what if n == 1 else f"{what}[{number}]"


def _rows(responses: Patterns, what: str) -> Floats32:
    units = measured_units(responses, what)
    if units.sum() < 2:
        raise InvalidParameterError(
            f"{what} has {units.sum()} unit with responses, and the correlation of patterns needs two or more. "
            "Select a larger region."
        )
    found = np.empty((len(responses.stimuli), int(units.sum())), np.float32)
    for rows, block in responses.blocks():
        own = block if units.all() else block[:, units]
        size = np.abs(own).max(axis=1)
        own = own - own.mean(axis=1, keepdims=True)
        length = np.sqrt(np.einsum("su,su->s", own, own))
        if flat := [responses.stimuli[rows.start + at] for at in np.flatnonzero(length <= 1e-7 * size)]:
            raise InvalidParameterError(
                f"The pattern of {what} does not vary over its {own.shape[1]} units for {listing(flat, 5)}, and has no "
                "correlation with others. Leave these pictures out with .drop_sel(stimulus=[...])."
            )
        found[rows] = own / length[:, None]
    return found


def measured_units(responses: Patterns, what: str) -> NDArray[np.bool_]:
    """The units with responses to all pictures; the others must have none at all.

    Raises
    ------
    InvalidParameterError
        If a unit has responses to some pictures only, or no unit has any.
    """
    n_finite = np.zeros(responses.n_units, np.intp)
    for _, block in responses.blocks():
        n_finite += np.isfinite(block).sum(axis=0)
    some = (n_finite > 0) & (n_finite < len(responses.stimuli))
    if some.any():
        raise InvalidParameterError(
            f"{some.sum():,} units of {what} are NaN or infinite for some pictures and not for others (unit "
            f"{int(np.flatnonzero(some)[0])} for {len(responses.stimuli) - int(n_finite[some][0]):,} of "
            f"{len(responses.stimuli):,}): means over units would be of different units. Leave out those units, or "
            "finish the store."
        )
    if not n_finite.any():
        raise InvalidParameterError(f"All responses of {what} are NaN. Select other units.")
    return np.asarray(n_finite > 0)
