"""The steps from events to delayed rows of volumes that a card names, which a fit and its model share.

::

    steps: [lanczos, standardize, {delays: [1, 2, 3, 4]}]
    steps: [{lanczos: {lobes: 3, normalised: true}}, {trim: {start: 10, end: 5}}, zscore, {delays: [1, 2, 3, 4]}]

============= =====================================================================================
lanczos       from events to volumes; ``normalised``: their mean instead of their sum
trim          drop volumes at both ends, here and in the responses
zscore        each feature over the volumes of its own stimulus
standardize   each feature by mean and standard deviation over all volumes that were trained on
delays        the features of earlier volumes beside each other
============= =====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from berg.core.card_schema import CardPart
from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.features.in_time import delayed, lanczos, trimmed, zscored

NAMES = ("lanczos", "trim", "zscore", "standardize", "delays")


class Lanczos(CardPart):
    """Settings of ``lanczos``."""

    lobes: int = Field(3, ge=1)
    normalised: bool = False


class Trim(CardPart):
    """Settings of ``trim``, in volumes."""

    start: int = Field(0, ge=0)
    end: int = Field(0, ge=0)


class Delays(CardPart):
    """Settings of ``delays``, in volumes."""

    delays: list[int] = Field(min_length=1)


@dataclass(frozen=True)
class TimeSteps:
    """The steps of a card, in their one order: resample, trim, scale, delay.

    Attributes
    ----------
    scaling
        ``zscore``, ``standardize``, or None.
    """

    filter: Lanczos
    trim: Trim
    scaling: Literal["zscore", "standardize"] | None
    delays: tuple[int, ...]

    @property
    def n_trimmed(self) -> int:
        """How many volumes are dropped."""
        return self.trim.start + self.trim.end

    def resampled(self, values: Tensor, event_times: Tensor, volumes: Tensor, tr: float) -> Tensor:
        """Values of events at volumes, trimmed and, by ``zscore``, scaled; shape (n_kept, n_features).

        Parameters
        ----------
        values, event_times
            Shapes (n_events, n_features), (n_events,).
        volumes
            The times of all volumes, shape (n_volumes,).
        """
        options: dict[str, Any] = {"lobes": self.filter.lobes, "normalised": self.filter.normalised}
        found = trimmed(lanczos(values, event_times, volumes, 1 / tr, **options), self.trim.start, self.trim.end)
        return zscored(found) if self.scaling == "zscore" else found

    def delayed_rows(self, values: Tensor, rows: Tensor) -> Tensor:
        """Some rows of `berg.features.in_time.delayed`, shape (n_rows, n_delays * n_features)."""
        if len(rows) == len(values):
            return delayed(values, self.delays)[rows]
        blocks = []
        for delay in self.delays:
            earlier = rows - delay
            blocks.append(torch.where((earlier >= 0)[:, None], values[earlier.clamp(min=0)], 0.0))
        return torch.cat(blocks, 1)


def read_time_steps(stated: Sequence[Any]) -> TimeSteps:
    """The steps that a card lists.

    Raises
    ------
    InvalidParameterError
        For a step that is not known, stands twice, or out of order.

    Examples
    --------
    >>> read_time_steps(["lanczos", "zscore", {"delays": [1, 2]}]).delays
    (1, 2)
    """
    given = dict(_step(each) for each in stated)
    order = [NAMES.index(name) for name in given]
    both = {"zscore", "standardize"} <= set(given)
    if len(given) < len(stated) or order != sorted(order) or both or not {"lanczos", "delays"} <= set(given):
        raise InvalidParameterError(
            f"The steps in time are {listing(given)}. They are, in this order and each once: lanczos, trim (if at "
            "all), zscore or standardize (if at all), delays."
        )
    try:
        return TimeSteps(
            Lanczos.model_validate(given["lanczos"] or {}),
            Trim.model_validate(given.get("trim") or {}),
            next((name for name in ("zscore", "standardize") if name in given), None),  # type: ignore[arg-type]
            _delays(given["delays"]),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidParameterError(
            f"The steps in time have '{'.'.join(map(str, first['loc']))}': {first['msg']}, got {first['input']!r}."
        ) from error


def _step(stated: Any) -> tuple[str, Any]:
    """Name and settings of a step."""
    if isinstance(stated, Mapping) and len(stated) == 1:
        ((name, settings),) = stated.items()
    else:
        name, settings = stated, None
    if name not in NAMES:
        raise InvalidParameterError(
            f"There is no step in time {name!r}.{did_you_mean(str(name), NAMES)} Steps: {listing(NAMES)}."
        )
    return str(name), settings


def _delays(stated: Any) -> tuple[int, ...]:
    found = Delays.model_validate({"delays": stated}).delays
    if min(found) < 0 or len(set(found)) < len(found):
        raise InvalidParameterError(f"delays are different whole volumes from 0, got {found}. Such as [1, 2, 3, 4].")
    return tuple(found)
