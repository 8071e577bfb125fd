"""Which stimuli a model is fitted to, stopped by, and tested on."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, did_you_mean, listing
from berg.core.stacklevel import users_stacklevel
from berg.statistics.groups import Groups
from berg.statistics.groups import group_numbers as numbers_of_labels

SPLITS = ("train", "validation", "test")
Indices = NDArray[np.intp]
MARKS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
By = Literal["name", "number"]


class LabelWarning(UserWarning):
    """Labels that differ, and look as if they should not."""


def stimulus_indices(
    values: Any, names: Sequence[str], first: int = 0, of: str = "stimuli", *, by: By | None = None
) -> Indices:
    """Stimuli that are named, numbered or marked, as indices.

    A text that is the name of a stimulus is that stimulus, also if it could be a number. Only if none of the texts is
    a name are they numbers.

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
    by
        ``name`` or ``number``, if it is known what is meant.

    Raises
    ------
    DatasetError
        With those that are not there; and for texts that are names and numbers of different stimuli, if `first` says
        that they are numbers.
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
    if given.dtype.kind == "f" and (np.abs(given) < 2**53).all() and (given == np.round(given)).all():
        given = given.astype(np.int64)
    if given.dtype.kind in "iu" and by != "name":
        return _numbered(given, names, first, of)
    texts = [str(item) for item in given.tolist()]
    return _numbered(_as_numbers(texts, of), names, first, of) if by == "number" else _told(texts, names, first, of, by)


def _told(texts: list[str], names: Sequence[str], first: int, of: str, by: By | None) -> Indices:
    """Texts as indices: by their names if any of them is one, else by their numbers."""
    places = {} if _are_numbers_from_0(names) and by is None else name_places(names)
    found = [places.get(text, places.get(text.strip())) for text in texts]
    are_numbers = all(map(_is_number, texts))
    if by is None and not any(place is not None for place in found) and set(texts) <= set(MARKS):
        return stimulus_indices([MARKS[text] for text in texts], names, first, of)
    if by is None and are_numbers and not any(place is not None for place in found):
        return _numbered(_as_numbers(texts, of), names, first, of)
    missing = list(dict.fromkeys(text for text, place in zip(texts, found, strict=True) if place is None))
    if missing:
        raise DatasetError(_not_there(missing, texts, names, of, are_numbers))
    indices = np.array(found, np.intp)
    if by is None and first and are_numbers:
        check_one_reading(_as_numbers(texts, of), names, first, of)
    return indices


def name_places(names: Sequence[str]) -> dict[str, int]:
    """The index of each stimulus by its name, and by the name of its file without the ending, if that is one alone."""
    stems: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if ending := _ENDING.search(name):
            stems.setdefault(name[: ending.start()], []).append(index)
    alone = {stem: indices[0] for stem, indices in stems.items() if len(indices) == 1}
    return alone | {name: index for index, name in enumerate(names)}


def check_one_reading(numbers: NDArray[Any], names: Sequence[str], first: int, of: str) -> None:
    """Raise DatasetError if numbers are also the names of files, and not of those that they count."""
    if _are_numbers_from_0(names):
        return
    places = name_places(names)
    for number in np.unique(numbers).tolist():
        place = places.get(str(number), number - first)
        if place != number - first:
            is_there = 0 <= number - first < len(names)
            counted = f", and counted from {first} it is {names[number - first]}" if is_there else ""
            raise DatasetError(
                f"{of} holds {number}: that is the name of {names[place]}{counted}. Say which is meant, with "
                " by: name  or  by: number"
            )


def _are_numbers_from_0(names: Sequence[str]) -> bool:
    """Whether these are the names of stimuli that have none."""
    return all(name == str(index) for index, name in enumerate(names))


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None


def _as_numbers(texts: list[str], of: str) -> NDArray[np.int64]:
    for text in texts:
        if not _is_number(text):
            raise DatasetError(
                f"{of} holds '{text}', which is no number of a stimulus. Write it in digits, such as 12."
            )
    return np.array([int(text.partition(".")[0]) for text in texts], np.int64)


# As a number of a stimulus is written. int() takes 1_0 and digits of other scripts for numbers, too.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.0+)?")
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}$")  # of a file; 1.5 is a name without one


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


def _not_there(missing: list[str], texts: list[str], names: Sequence[str], of: str, are_numbers: bool) -> str:
    n_all = len(set(texts))
    if are_numbers and len(missing) < n_all:
        hint = f" {n_all - len(missing):,} others are names. If all are numbers, write  by: number"
    else:
        alike = [name for name in names if _form(name) == _form(missing[0])]
        hint = f" Its letters are encoded in another way in {alike[0]!a}." if alike else ""
        hint = hint or did_you_mean(missing[0], list(names)[:10_000])
    return (
        f"{of} names {len(missing):,} stimuli that are not there ({listing(missing, 5)}).{hint} There are "
        f"{len(names):,}: {listing(names, 5)}."
    )


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


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
    found = {name: split_indices(splits.get(name, ()), names, first, f"split '{name}'") for name in SPLITS}
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


def presentation_indices(
    values: Any, names: Sequence[str], first: int = 0, of: str = "presentations", *, by: By | None = None
) -> Indices:
    """The stimulus of each presentation, as indices.

    Raises
    ------
    DatasetError
        As `stimulus_indices`, and for a list that is empty or of true and false.
    """
    given = np.asarray(values)
    if not given.size or given.dtype.kind == "b":
        kind = "is empty" if not given.size else "holds nothing but true and false"
        raise DatasetError(f"{of} {kind}. It must name the stimulus of each row of the responses, or be left out.")
    return stimulus_indices(given, names, first, of, by=by)


def split_indices(
    values: Any, names: Sequence[str], first: int = 0, of: str = "split", *, by: By | None = None
) -> Indices:
    """The stimuli of a split, as ascending indices.

    Raises
    ------
    DatasetError
        As `stimulus_indices`, and for a 0 or 1 per stimulus, which would be the numbers of two stimuli.
    """
    given = np.asarray(values)
    if by is None and given.size > 2 and set(given.ravel().tolist()) <= {0, 1, "0", "1"} and given.dtype.kind != "b":
        raise DatasetError(
            f"{of} holds nothing but 0 and 1, {given.size:,} times. Are they marks? Then write true or false "
            "for each stimulus; else give the number of each stimulus once."
        )
    return np.unique(stimulus_indices(given, names, first, of, by=by))


def group_numbers(groups: Groups, n_stimuli: int) -> Indices:
    """A number per stimulus, from 0: the same for the same label. Labels that differ in anything stay two.

    Raises
    ------
    DatasetError
        If there are not as many labels as stimuli, or one is missing (None, NaN).

    Warns
    -----
    LabelWarning
        If labels differ in spaces, capitals or the encoding of their letters alone.
    """
    numbers = numbers_of_labels(groups, n_stimuli, DatasetError)
    _warn_of_likeness(sorted({label for label in groups if isinstance(label, str)}))
    return numbers


def _warn_of_likeness(labels: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for label in labels:
        other = first.setdefault(unicodedata.normalize("NFKC", label).casefold().strip(), label)
        if other != label:
            warnings.warn(
                f"The groups {other!r} and {label!r} look alike and are two groups. Write them alike if they are one.",
                LabelWarning,
                stacklevel=users_stacklevel(),
            )
            return


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
    labels = np.arange(len(stimuli)) if groups is None else group_numbers(groups, len(stimuli))
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
