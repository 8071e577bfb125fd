"""Subjects of several data sets: how the card, the weights, the metadata and the published package spell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Subject:
    """One subject of one data set.

    Attributes
    ----------
    value
        As a user gives it: ``NSD-01``, or the number where there is one data set.
    short
        The data set as files spell it, such as ``NSD``.
    number
        From 1.
    dataset
        The data set as the published package spells it, such as ``NaturalScenesDataset``.
    """

    value: str | int
    short: str
    number: int
    dataset: str

    @property
    def name(self) -> str:
        """As the published package spells it.

        >>> Subject("NSD-01", "NSD", 1, "NaturalScenesDataset").name
        'sub-01'
        """
        return f"sub-{self.number:02d}"

    @property
    def head(self) -> str:
        """What the weights call the readout."""
        return f"subject_readouts.{self.name}_{self.short}"


def subjects_of(given: Any, datasets: Mapping[str, str]) -> list[Subject]:
    """The subjects that a user asks for, one or several, in their order.

    Parameters
    ----------
    given
        A value of the parameter ``subject``, or a list of them, checked.
    datasets
        Short name -> name of each data set; with one data set, subjects are numbers.

    Examples
    --------
    >>> [one.head for one in subjects_of(["NOD-02", "NSD-08"], {"NSD": "NaturalScenesDataset", "NOD": "..."})]
    ['subject_readouts.sub-02_NOD', 'subject_readouts.sub-08_NSD']
    """
    values = given if isinstance(given, (list, tuple)) else [given]
    return [_subject(value, datasets) for value in values]


def _subject(value: str | int, datasets: Mapping[str, str]) -> Subject:
    if isinstance(value, int):
        (short,) = datasets
        return Subject(value, short, value, datasets[short])
    short, _, number = value.rpartition("-")
    return Subject(value, short, int(number), datasets[short])
