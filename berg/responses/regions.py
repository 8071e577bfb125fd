"""Selecting units by region, ``labelled.sel(roi="V1v")``; a unit can be in several regions or in none."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core.indexing import IndexSelResult  # public only there

from berg.core.exceptions import InvalidParameterError, did_you_mean, listing

BETWEEN = ";"  # the regions of one unit: "V1v;early"
ROI = "roi"


class RegionIndex(xr.Index):
    """An index over the names of regions.

    Selecting a name gives every unit of that region, in the order of the axis; selecting a list, the units of any of
    them. With ``labelled.where`` or a comparison the coordinate is the text that it is, ``V1v;early``.
    """

    def __init__(self, name: Hashable, axis: Hashable, labels: NDArray[Any]) -> None:
        self.name, self.axis, self.labels = name, axis, labels

    @classmethod
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> Self:
        """The index of the coordinate; xarray calls it."""
        ((name, variable),) = variables.items()
        (axis,) = variable.dims
        return cls(name, axis, np.asarray(variable.values))

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> dict[Hashable, xr.Variable]:
        """The coordinate that this is an index of; xarray calls it."""
        old = (variables or {}).get(self.name)
        attributes, encoding = (None, None) if old is None else (old.attrs, old.encoding)
        return {self.name: xr.Variable((self.axis,), self.labels, attributes, encoding)}

    @property
    def regions(self) -> set[str]:
        """The regions that have a unit."""
        return {name for text in set(self.labels.tolist()) for name in text.split(BETWEEN) if name}

    def sel(self, labels: dict[Any, Any]) -> IndexSelResult:
        """The indices of the units of a region, or of a list of regions; xarray calls it."""
        given = _names(labels[self.name])
        _check_known(given, self.regions)
        texts, which = np.unique(np.array(self.labels.tolist(), str), return_inverse=True)
        chosen = [index for index, text in enumerate(texts.tolist()) if given.intersection(text.split(BETWEEN))]
        return IndexSelResult({self.axis: np.flatnonzero(np.isin(which, chosen))})

    def isel(self, indexers: Mapping[Any, Any]) -> Self | None:
        """The index of some of the units; None for a single unit, which has no axis."""
        chosen = self.labels[indexers[self.axis]] if self.axis in indexers else self.labels
        return type(self)(self.name, self.axis, chosen) if np.ndim(chosen) == 1 else None

    def equals(self, other: xr.Index, **_: Any) -> bool:
        """Whether another index is of the same units."""
        return isinstance(other, RegionIndex) and self.labels.tolist() == other.labels.tolist()


def index_regions(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset, whose coordinate ``roi``, if it has one along an axis, selects by region.

    A file does not keep an index, so what `xarray.open_dataset` opened selects by region after this. What takes no
    second index along an axis (`xarray.Dataset.stack`), or leaves it out (``to_dataframe``), wants
    ``dataset.drop_indexes("roi")``.
    """
    if ROI not in dataset.coords or ROI in dataset.xindexes or dataset[ROI].ndim != 1:
        return dataset
    return dataset.set_xindex(ROI, RegionIndex)


def select(labelled: xr.Dataset | xr.DataTree, **labels: Any) -> xr.Dataset | xr.DataTree:
    """Part of labelled responses, by their labels, of all outputs at once.

    What ``labelled.sel(...)`` does for a Dataset, also for a DataTree: there, xarray itself takes no ``roi``.

    Parameters
    ----------
    labelled
        Of several outputs, such as both hemispheres, each gives what it has.
    **labels
        As in `xarray.Dataset.sel`: ``roi="V1v"``, ``roi=["V1v", "V1d"]``, ``time=slice(0.1, 0.2)``,
        ``channel=["Oz"]``.

    Raises
    ------
    InvalidParameterError
        For a region that no output has a unit of, and a coordinate that no output has.

    Examples
    --------
    >>> from berg import BERG
    >>> model = BERG().get_encoding_model("fmri-szinte2024-prf_css")
    >>> labelled = BERG().encode(model, np.zeros((2, 3, 32, 32), "uint8"), labelled=True)
    >>> dict(select(labelled, roi="V1", stimulus=[1]).sizes)
    {'stimulus': 1, 'voxel': 2308}
    """
    if isinstance(labelled, xr.Dataset):
        return index_regions(labelled).sel(labels)
    outputs = {node.path: index_regions(node.to_dataset()) for node in labelled.leaves}
    known = set().union(*(dataset.xindexes for dataset in outputs.values()))
    if missing := [name for name in labels if name not in known]:
        raise InvalidParameterError(
            f"These responses cannot be selected by '{missing[0]}'. Their labels: {listing(sorted(map(str, known)))}."
        )
    if ROI in labels:
        _check_known(_names(labels[ROI]), set().union(*map(_regions_of, outputs.values())))
    return xr.DataTree.from_dict({path: _select_known(dataset, labels) for path, dataset in outputs.items()})


def _select_known(dataset: xr.Dataset, labels: Mapping[str, Any]) -> xr.Dataset:
    """By those labels, and those regions, that a dataset has."""
    own = {name: value for name, value in labels.items() if name in dataset.xindexes}
    if ROI in own:
        own[ROI] = sorted(_names(own[ROI]) & _regions_of(dataset))
    return dataset.sel(own)


def _regions_of(dataset: xr.Dataset) -> set[str]:
    index = dataset.xindexes.get(ROI)
    return index.regions if isinstance(index, RegionIndex) else set()


def _names(given: Any) -> set[str]:
    return set(np.atleast_1d(np.asarray(given, dtype=str)).tolist())


def _check_known(given: Iterable[str], known: Iterable[str]) -> None:
    for name in sorted(set(given).difference(known)):
        raise InvalidParameterError(
            f"None of these units is in '{name}'.{did_you_mean(name, known)} Their regions: "
            f"{listing(sorted(known), most=40)}."
        )
