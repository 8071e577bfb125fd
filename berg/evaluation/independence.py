"""What is taken as independent when an accuracy is tested, and what is resampled how often."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.core.stacklevel import users_stacklevel
from berg.statistics.groups import FEW, SamplesWarning

IN_TIME = "moments in time: p by circular shifts, intervals by the effective number of samples"


@dataclass(frozen=True)
class Resampling:
    """What is resampled how often.

    Attributes
    ----------
    groups
        Shape (n_samples of an output,) by output: what is moved and drawn as a whole; None if each stands alone.
    in_time
        Samples follow each other in time, in stimuli too few to be drawn.
    has_moments
        Samples are moments of stimuli, so that noise too may be correlated from one to the next.
    what
        In words.
    """

    permutations: int
    bootstrap: int
    seed: int
    show_progress: bool | None
    block_length: int = 1
    groups: Mapping[str, NDArray[np.intp]] | None = None
    in_time: bool = False
    has_moments: bool = False
    what: str = "stimuli"

    @property
    def n_groups(self) -> int | None:
        """How many; None if there are none."""
        return None if self.groups is None else len(np.unique(next(iter(self.groups.values()))))

    @property
    def options(self) -> dict[str, Any]:
        return {"seed": self.seed, "show_progress": self.show_progress}

    def units_of(self, output: str) -> dict[str, Any]:
        """What permutation_test and bootstrap_interval must know of this output."""
        return {"block_length": self.block_length} if self.groups is None else {"groups": self.groups[output]}


def independent(
    how: Resampling,
    groups: NDArray[np.intp] | None,
    n_stimuli: int,
    lengths: Mapping[str, int],
    block_length: int | None,
) -> Resampling:
    """With what is independent: stretches that were asked for, groups, stimuli, or moments in time."""
    has_moments = how.has_moments or min(lengths.values()) > n_stimuli
    if block_length is not None:
        if groups is not None and block_length > 1:
            raise InvalidParameterError(
                f"block_length={block_length} was given, and the data have groups, which are resampled as a whole. "
                "Leave block_length out."
            )
        if groups is None:
            what = "stimuli" if block_length == 1 else f"stretches of {block_length} samples"
            return replace(how, block_length=block_length, has_moments=has_moments, what=what)
    own = groups
    if own is None and has_moments and n_stimuli >= FEW:
        own = np.arange(n_stimuli)
    if own is None:
        return replace(how, in_time=has_moments, has_moments=has_moments, what=IN_TIME if has_moments else "stimuli")
    repeated = {name: np.repeat(own, length // n_stimuli) for name, length in lengths.items()}
    what = "stimuli, each with all its moments" if groups is None else "groups of stimuli"
    how = replace(how, groups=repeated, has_moments=has_moments, what=what)
    return _without_resamples(how) if how.n_groups == 1 else how


def _without_resamples(how: Resampling) -> Resampling:
    if how.permutations or how.bootstrap:
        warnings.warn(
            "All stimuli that are compared are of one group: there is one independent sample, and there will be no p "
            "values and no intervals. Put several groups into the split.",
            SamplesWarning,
            stacklevel=users_stacklevel(),
        )
    return replace(how, permutations=0, bootstrap=0)
