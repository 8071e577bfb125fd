"""The subjects of a control experiment: pairs of responses of two regions, and what is tested over subjects."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, did_you_mean
from berg.experiments.patterns import Patterns, Responses, patterns, same_stimuli
from berg.statistics.over_subjects import interval_over_subjects, prevalence_p
from berg.statistics.p_values import benjamini_hochberg

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Subjects = Responses | Sequence[Responses]
NONE = "none"
"""The name of the search that leaves no subject out."""


class ControlWarning(UserWarning):
    """A control experiment gives less than was asked for: fewer pictures, or no test."""


def pairs_of_regions(
    first: Subjects, second: Subjects, what: tuple[str, str] = ("first", "second")
) -> tuple[list[Patterns], list[Patterns]]:
    """Responses of two regions, one of each per subject, all to the same pictures.

    Raises
    ------
    InvalidParameterError
        If there are not as many of one as of the other, pictures differ, or a pair is of two subjects of one model.
    """
    pairs = [_patterns(given, name) for given, name in zip((first, second), what, strict=True)]
    if len(pairs[0]) != len(pairs[1]):
        raise InvalidParameterError(
            f"{what[0]} has responses of {len(pairs[0])} subjects and {what[1]} of {len(pairs[1])}. Give lists of the "
            "same subjects in the same order."
        )
    everything = [*pairs[0], *pairs[1]]
    same_stimuli(everything, [f"{name}[{number}]" for name in what for number in range(len(pairs[0]))])
    for number, (one, other) in enumerate(zip(*pairs, strict=True)):
        a, b = one.source, other.source
        if a.get("model_id") == b.get("model_id") and a.get("subject") != b.get("subject"):
            raise InvalidParameterError(
                f"{what[0]}[{number}] is of subject {a.get('subject')} and {what[1]}[{number}] of subject "
                f"{b.get('subject')}. Put both lists into the same order of subjects."
            )
    return pairs[0], pairs[1]


def _patterns(given: Subjects, what: str) -> list[Patterns]:
    own: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    if not own:
        raise InvalidParameterError(f"{what} is empty. Give responses, or a list with those of each subject.")
    return [patterns(one, f"{what}[{number}]") for number, one in enumerate(own)]


def subject_names(subjects: Sequence[Patterns]) -> list[str]:
    """What the responses call their subject; numbers from 1 if they do not, or one stands twice."""
    names = [str(own.attributes.get("subject", "")) for own in subjects]
    usable = all(names) and len(set(names)) == len(names) and NONE not in names
    return names if usable else [str(number) for number in range(1, len(names) + 1)]


def listed(pictures: str | int | Collection[str | int]) -> list[str | int]:
    """One picture, or several, as a list.

    >>> listed("cat.png")
    ['cat.png']
    """
    return [pictures] if isinstance(pictures, (str, int)) else list(pictures)


def allowed_pictures(stimuli: Sequence[str], exclude: str | int | Collection[str | int], least: int) -> Indices:
    """The indices of the pictures that may be chosen.

    Raises
    ------
    InvalidParameterError
        For a picture that is not there, and if fewer than `least` are left.
    """
    is_allowed = np.ones(len(stimuli), bool)
    for picture in listed(exclude):
        is_allowed[picture_index(stimuli, picture)] = False
    if is_allowed.sum() < least:
        raise InvalidParameterError(
            f"There are {is_allowed.sum():,} pictures to choose from, and a set has {least}. Give more pictures, or "
            f"smaller sets:  n_pictures={max(int(is_allowed.sum()) // 2, 1)}"
        )
    return np.flatnonzero(is_allowed)


def picture_index(stimuli: Sequence[str], picture: Any) -> int:
    """The index of a picture, given by its name or by its number from 0.

    Raises
    ------
    InvalidParameterError
        If there is no such picture, or several have the name.
    """
    if isinstance(picture, (int, np.integer)) and not isinstance(picture, bool) and 0 <= picture < len(stimuli):
        return int(picture)
    found = [number for number, name in enumerate(stimuli) if name == picture]
    if len(found) != 1:
        how = "There is no picture" if not found else f"{len(found)} pictures are called"
        near = did_you_mean(picture, stimuli) if len(stimuli) <= 20_000 else ""
        raise InvalidParameterError(
            f"{how} {picture!r}.{near} Give its name, or its number from 0 to {len(stimuli) - 1:,}."
        )
    return found[0]


def check_counts(**counts: int) -> None:
    """Raise InvalidParameterError for a number that is no whole number of at least 1."""
    for name, number in counts.items():
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
            raise InvalidParameterError(f"{name} is {number!r}; give a whole number of at least 1.")


def tests_over_subjects(
    effect: Floats, p: Floats, dims: Sequence[str], alpha: float, n_bootstraps: int, seed: int
) -> Mapping[str, Any]:
    """The published statistics: corrected p values of each subject, how many are significant, the mean effect.

    False discoveries are held to `alpha` over all tests of a subject. `p_between` is the probability of at least so
    many significant subjects by chance.

    Parameters
    ----------
    effect, p
        Shape (n_subjects, ...tests).
    dims
        Names of the axes of the tests.
    """
    p_fdr = np.stack([benjamini_hochberg(own) for own in p])
    is_significant = np.where(np.isnan(p_fdr), False, p_fdr < alpha)
    n_tested, n_significant = np.isfinite(p).sum(axis=0), is_significant.sum(axis=0)
    interval = interval_over_subjects(effect, n_bootstraps, seed=seed)
    each, tests = ("subject", *dims), tuple(dims)
    return {
        "effect": (each, effect),
        "p": (each, p),
        "p_fdr": (each, p_fdr),
        "n_significant": (tests, n_significant),
        "p_between": (tests, prevalence_p(n_significant, n_tested, alpha)),
        "effect_mean": (tests, interval.estimate),
        "effect_low": (tests, interval.low),
        "effect_high": (tests, interval.high),
    }


def names_of_pictures(pictures: xr.DataArray, stimuli: Sequence[str]) -> xr.DataArray:
    """The names of pictures given by index; of -1, no picture, the empty text."""
    names = np.array([*stimuli, ""], object)
    return pictures.copy(data=names[pictures.values]).astype(object)
