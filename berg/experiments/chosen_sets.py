"""The sets of pictures of a result, as an experiment in vivo shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.experiments.control_subjects import NONE
from berg.experiments.result import EXPERIMENT, parameters_of

Indices = NDArray[np.int64]
BASELINE = "baseline"
WITH_SETS = ("univariate_control", "multivariate_control", "selection")


def sets_of(result: xr.Dataset) -> dict[str, Indices]:
    """The pictures of each condition and of the baselines, chosen by all subjects.

    Raises
    ------
    InvalidParameterError
        For a result without sets of pictures, and one of which no picture was found.
    """
    kind = result.attrs.get(EXPERIMENT)
    if kind not in WITH_SETS:
        raise InvalidParameterError(
            f"A result of '{kind}' has no sets of pictures. Give one of univariate_control, multivariate_control, "
            "driving_pictures, similar_pictures or matched_sets."
        )
    whole = result.sel(left_out=NONE) if "left_out" in result.dims else result
    found = {str(name): whole["picture"].sel(condition=name).values for name in whole["condition"].values}
    if kind == "univariate_control":
        baselines = whole["baseline_picture"]
        found |= {baseline_of(name): baselines.sel(region=name).values for name in map(str, whole["region"].values)}
    elif kind == "multivariate_control":
        found[BASELINE] = whole["baseline_picture"].values
    kept = {name: own[own >= 0] for name, own in found.items()}
    if empty := [name for name, own in kept.items() if not len(own)]:
        raise InvalidParameterError(f"No picture was found for {listing(empty)}. Search among more pictures.")
    return kept


def baseline_of(region: str) -> str:
    """The name of the baseline set of a region.

    >>> baseline_of("V1")
    'baseline_V1'
    """
    return f"{BASELINE}_{region}"


def picture_names(result: xr.Dataset) -> dict[int, str]:
    """The name of each picture that a result has chosen, by its index."""
    both = [("picture", "picture_name"), ("baseline_picture", "baseline_name")]
    return {
        int(index): str(name)
        for indices, names in both
        if indices in result
        for index, name in zip(result[indices].values.ravel(), result[names].values.ravel(), strict=True)
        if index >= 0
    }


def n_to_choose_from(result: xr.Dataset) -> int:
    """How many pictures there were."""
    return int(parameters_of(result)["n_to_choose_from"])


def sets_of_pictures(sets: Mapping[str, Any]) -> dict[int, str]:
    """The names of the sets that each picture is in, joined by +, in the order of the sets."""
    found: dict[int, list[str]] = {}
    for name, own in sets.items():
        for index in own:
            found.setdefault(int(index), []).append(name)
    return {index: "+".join(names) for index, names in found.items()}
