"""Which stimuli a model is fitted to, stopped by, and tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, did_you_mean, listing
from berg.evaluation.groups import Groups, group_numbers

SPLITS = ("train", "validation", "test")
Indices = NDArray[np.intp]


def stimulus_indices(values: Any, names: Sequence[str], first: int = 0, of: str = "stimuli") -> Indices:
    """Stimuli that are named, numbered or marked, as indices.

    Parameters
    ----------
    values
        Names (of files: also without their ending), numbers, or one true or false per stimulus.
    names
        Of all stimuli.
    first
        The number of the first stimulus.
    of
        What is read, for messages.

    Raises
    ------
    DatasetError
        With those that are not there.
    """
    given = np.asarray(values)
    if not given.size:
        return np.empty(0, np.intp)
    if given.ndim != 1:
        raise DatasetError(f"{of} has shape {given.shape}; it must be one list of stimuli.")
    if given.dtype.kind == "b":
        if len(given) != len(names):
            raise DatasetError(f"{of} has {len(given):,} marks (true or false) for {len(names):,} stimuli.")
        return np.flatnonzero(given)
    if given.dtype.kind == "f" and (given == np.round(given)).all():
        given = given.astype(np.int64)
    return _numbered(given, names, first, of) if given.dtype.kind in "iu" else _named(given.tolist(), names, of)


def _numbered(given: NDArray[Any], names: Sequence[str], first: int, of: str) -> Indices:
    found = given.astype(np.intp) - first
    wrong = np.unique(given[(found < 0) | (found >= len(names))])
    if len(wrong):
        hint = " Do they count from 1? Then write first: 1." if not first and wrong.tolist() == [len(names)] else ""
        raise DatasetError(
            f"{of} holds {len(wrong):,} numbers of no stimulus ({listing(wrong, 5)}); there are {len(names):,}, "
            f"numbered {first:,} to {len(names) - 1 + first:,}.{hint}"
        )
    return found


def _named(given: list[Any], names: Sequence[str], of: str) -> Indices:
    places = {name: index for index, name in enumerate(names)}
    stems: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        stems.setdefault(name.rpartition(".")[0] or name, []).append(index)
    for stem, own in stems.items():
        if len(own) == 1:
            places.setdefault(stem, own[0])
    missing = list(dict.fromkeys(str(name) for name in given if str(name) not in places))
    if missing:
        raise DatasetError(
            f"{of} names {len(missing):,} stimuli that are not there ({listing(missing, 5)})."
            f"{did_you_mean(missing[0], list(names)[:10_000])} There are {len(names):,}: {listing(names, 5)}."
        )
    return np.array([places[str(name)] for name in given], np.intp)


def checked_splits(splits: Mapping[str, Any], names: Sequence[str], first: int = 0) -> dict[str, Indices]:
    """Splits that were given, as ascending indices; those that were not are empty.

    Raises
    ------
    DatasetError
        For a split of another name, for one stimulus in two of them, and for none to fit to.
    """
    for name in splits:
        if name not in SPLITS:
            raise DatasetError(f"There is no split '{name}'.{did_you_mean(name, SPLITS)} Splits: {listing(SPLITS)}.")
    found = {
        name: np.unique(stimulus_indices(splits.get(name, ()), names, first, f"split '{name}'")) for name in SPLITS
    }
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = np.intersect1d(found[one], found[other])
        if len(both):
            shown = listing((names[index] for index in both), 5)
            raise DatasetError(
                f"{len(both):,} stimuli are in '{one}' and in '{other}' ({shown}): what is fitted to cannot be tested "
                "on. Take them out of one."
            )
    if not len(found["train"]):
        raise DatasetError("The split 'train' has no stimuli, and there is nothing to fit to.")
    return found


def check_groups_apart(splits: Mapping[str, Indices], groups: Indices, names: Sequence[str]) -> None:
    """Raise DatasetError if stimuli of one group are in two splits."""
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = np.intersect1d(groups[splits[one]], groups[splits[other]])
        if len(both):
            examples = [next(names[i] for i in splits[name] if groups[i] == both[0]) for name in (one, other)]
            raise DatasetError(
                f"{len(both):,} groups have stimuli in '{one}' and in '{other}' ({examples[0]} and {examples[1]}, for "
                "one): what is fitted to cannot be tested on. Move them to one side, give the groups without the "
                "splits, or leave out the groups if their stimuli are independent."
            )


def make_splits(
    stimuli: Indices,
    *,
    test_fraction: float = 0.1,
    validation_fraction: float = 0.0,
    seed: int = 0,
    groups: Groups | None = None,
    in_sequence: bool = False,
) -> dict[str, Indices]:
    """Splits drawn by a seed; the stimuli of a group stay together, and those of a sequence in one piece.

    Parameters
    ----------
    stimuli
        Indices of those that were presented, shape (n_stimuli,).
    test_fraction, validation_fraction
        Of the stimuli; groups are taken whole while they fit, and at least one, but never the largest.
    groups
        One label per stimulus, such as the film that a frame is of; None: each is alone.
    in_sequence
        The stimuli are frames of one sequence: the test split is its end, the validation split comes before it,
        as responses to neighbouring frames overlap.

    Raises
    ------
    DatasetError
        For fractions that leave nothing to fit to, and for too few groups.

    Examples
    --------
    >>> splits = make_splits(np.arange(6), test_fraction=0.3, groups=["a", "a", "b", "b", "c", "c"])
    >>> {name: indices.tolist() for name, indices in splits.items()}
    {'train': [0, 1, 2, 3], 'validation': [], 'test': [4, 5]}
    """
    if not 0 <= test_fraction < 1 or not 0 <= validation_fraction < 1 or test_fraction + validation_fraction >= 1:
        raise DatasetError(
            f"test_fraction {test_fraction} and validation_fraction {validation_fraction} must be at least 0 and "
            "together less than 1."
        )
    labels = np.arange(len(stimuli)) if groups is None else group_numbers(groups, len(stimuli), DatasetError)
    sizes = np.bincount(labels)
    order = np.arange(len(sizes))[::-1] if in_sequence else np.random.default_rng(seed).permutation(len(sizes))
    test, left = _taken(order, sizes, round(test_fraction * len(stimuli)), in_sequence)
    validation, left = _taken(left, sizes, round(validation_fraction * len(stimuli)), in_sequence)
    chosen = {"train": left, "validation": validation, "test": test}
    return {name: np.sort(stimuli[np.isin(labels, own)]) for name, own in chosen.items()}


def _taken(order: Indices, sizes: Indices, wanted: int, in_sequence: bool) -> tuple[Indices, Indices]:
    """Groups with so many stimuli together, and the others: the first that fit, of a sequence the first.

    The largest group stays, so that there is something to fit to.
    """
    if not wanted:
        return np.empty(0, np.intp), order
    largest = len(order) - 1 - int(np.argmax(sizes[order[::-1]])) if len(order) else 0
    rest = np.delete(order, largest) if len(order) else order
    if not len(rest):
        raise DatasetError(
            f"The {sizes.sum():,} stimuli are in {len(sizes):,} groups (identical stimuli are in one), which are too "
            "few for these splits, or too large. Give the splits themselves."
        )
    taken: list[int] = []
    n_taken = 0
    for group in rest:
        if n_taken + sizes[group] <= wanted:
            taken.append(int(group))
            n_taken += sizes[group]
        elif in_sequence:
            break
    taken = taken or [int(rest[0] if in_sequence else rest[np.argmin(sizes[rest])])]
    return np.array(taken, np.intp), order[~np.isin(order, taken)]
