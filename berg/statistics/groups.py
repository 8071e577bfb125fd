"""Groups of stimuli that are no independent samples: near-copies, frames of a film, pictures of one object."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.core.stacklevel import users_stacklevel

Indices = NDArray[np.intp]
Seed = int | np.random.Generator
Floats = NDArray[np.float64]
Groups = Sequence[Hashable] | NDArray[Any]

FEW = 20
"""Below so many independent samples, whatever rests on large numbers is a guess."""


class SamplesWarning(UserWarning):
    """There are fewer independent samples than a test or an interval takes for granted."""


def group_numbers(groups: Groups, n_stimuli: int, error: type[ValueError] = InvalidParameterError) -> Indices:
    """A number from 0 for each label, in the order in which labels first stand; shape (n_stimuli,).

    Labels that differ never become one: 1 and "1" are two groups.

    Raises
    ------
    InvalidParameterError, or the given error
        If there are not as many labels as stimuli, or one is missing.

    Examples
    --------
    >>> group_numbers(["b", "a", "b"], 3)
    array([0, 1, 0])
    """
    labels = [_plain_label(label) for label in np.asarray(groups).tolist()] if isinstance(groups, np.ndarray) else None
    labels = [_plain_label(label) for label in groups] if labels is None else labels
    if len(labels) != n_stimuli:
        raise error(f"There are {len(labels):,} labels of groups for {n_stimuli:,} stimuli. Give one per stimulus.")
    if any(label is None or label != label for label in labels) or np.ma.is_masked(groups):
        missing = sum(label is None or label != label for label in labels)
        raise error(
            f"{max(missing, 1):,} labels of groups are missing (None, NaN or masked). Give every stimulus one; a "
            "stimulus that stands alone has a label of its own."
        )
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.intp)


def independent_groups(groups: Groups | None, n_stimuli: int, block_length: int) -> Indices | None:
    """The number of each stimulus's group; None if each stands alone. Raise if there is one group alone."""
    if groups is None:
        return None
    if block_length != 1:
        raise InvalidParameterError(f"Both groups and block_length={block_length} were given; take one of them.")
    numbers = group_numbers(groups, n_stimuli)
    n_groups = int(numbers.max()) + 1
    if n_groups < 2:
        raise InvalidParameterError(
            f"All {n_stimuli:,} stimuli are in one group: there is one independent sample, which no test and no "
            "interval can be had from. Measure stimuli of other groups too."
        )
    if n_groups < FEW:
        warnings.warn(
            f"{n_stimuli:,} stimuli are in {n_groups} groups, fewer than {FEW}: tests and intervals rest on as few "
            "independent samples.",
            SamplesWarning,
            stacklevel=users_stacklevel(),
        )
    return None if n_groups == n_stimuli else numbers


def _plain_label(label: Any) -> Any:
    """As a key: numpy's texts and numbers are those of Python; a list (a row of labels) is a tuple."""
    plain = label.item() if hasattr(label, "item") else label  # of numpy, xarray, PyTorch
    return tuple(plain) if isinstance(plain, list) else plain


def members(numbers: Indices) -> list[Indices]:
    """The stimuli of each group."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.cumsum(np.bincount(numbers))[:-1])


def group_folds(numbers: Indices, n_folds: int, seed: int | None = 0) -> list[Indices]:
    """The left-out stimuli of each fold, groups whole and folds of nearly the same size.

    Parameters
    ----------
    seed
        Groups are shuffled, and each goes, the largest first, into the fold that is smallest so far. None: neighbours
        stay together, as groups in time must.

    Raises
    ------
    InvalidParameterError
        If there are fewer groups than folds.
    """
    own = members(numbers)
    if not 2 <= n_folds <= len(own):
        raise InvalidParameterError(
            f"{n_folds} folds of {len(own):,} groups of stimuli: each fold needs one, and there must be two folds. "
            + (f"Choose 2 to {len(own):,} folds." if len(own) > 1 else "Fit to stimuli of several groups.")
        )
    sizes = np.array([len(group) for group in own])
    fold_of = _cut(sizes, n_folds) if seed is None else _balanced(sizes, n_folds, seed)
    return [np.flatnonzero(fold_of[numbers] == fold) for fold in range(n_folds)]


def _cut(sizes: Indices, n_folds: int) -> Indices:
    """Groups in their order, in pieces whose borders lie nearest to even ones; each has a group."""
    ends = np.cumsum(sizes)
    wanted = ends[-1] * np.arange(1, n_folds) / n_folds
    borders = 1 + np.abs(ends[:, None] - wanted).argmin(axis=0)
    for fold in range(n_folds - 1):
        least = 1 if fold == 0 else borders[fold - 1] + 1
        borders[fold] = np.clip(borders[fold], least, len(sizes) - (n_folds - 1 - fold))
    return np.searchsorted(borders, np.arange(len(sizes)), side="right")


def _balanced(sizes: Indices, n_folds: int, seed: int) -> Indices:
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, filled = np.empty(len(sizes), np.intp), np.zeros(n_folds)
    for group in order:
        fold_of[group] = np.argmin(filled)
        filled[fold_of[group]] += sizes[group]
    return fold_of


def orders_of_groups(numbers: Indices, orders: Indices) -> Indices:
    """Orders of groups of one size as orders of stimuli, each group as a whole; shape (n_orders, n_stimuli)."""
    own = np.array(members(numbers))  # (n_groups, size)
    found = np.empty((len(orders), len(numbers)), np.intp)
    found[:, own.ravel()] = own[orders].reshape(len(orders), -1)
    return found


def signs(n_groups: int, n_draws: int, seed: Seed) -> Floats:
    """Signs of groups other than all plus: all there are, or that many random ones; shape (n_draws, n_groups)."""
    if 2**n_groups - 1 <= n_draws:
        return np.array(list(itertools.product((1.0, -1.0), repeat=n_groups))[1:])
    return np.random.default_rng(seed).choice((-1.0, 1.0), (n_draws, n_groups))


def sums_over_groups(terms: Iterable[Floats], numbers: Indices) -> list[Floats]:
    """Terms of shape (n_units, n_stimuli) added up over each group: (n_units, n_groups)."""
    order = np.argsort(numbers, kind="stable")
    starts = np.cumsum([0, *np.bincount(numbers)[:-1]])
    return [np.ascontiguousarray(np.add.reduceat(term[:, order], starts, axis=1)) for term in terms]
