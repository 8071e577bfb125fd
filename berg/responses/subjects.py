"""Responses of several subjects in one array, with an axis of subjects: one by one, or as rows of a file."""

from __future__ import annotations

import numpy as np
import xarray as xr

from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.responses.labelled import Labelled, outputs_of
from berg.responses.regions import index_regions

SUBJECT = "subject"
"""The axis of models that have several subjects at once, and the label that says which."""


def has_subjects(labelled: Labelled) -> bool:
    """Whether the responses have an axis of subjects."""
    return isinstance(labelled, xr.Dataset) and SUBJECT in labelled.dims


def each_subject(labelled: Labelled) -> list[Labelled]:
    """The responses of each subject, without an axis of subjects; of responses that have none, themselves."""
    if not isinstance(labelled, xr.Dataset) or not has_subjects(labelled):
        return [labelled]
    return [labelled.isel({SUBJECT: index}) for index in range(labelled.sizes[SUBJECT])]


def of_subject(labelled: Labelled, subject: str) -> Labelled:
    """The responses of one subject, by its label as text.

    Raises
    ------
    InvalidParameterError
        If there is no such subject.
    """
    names = subject_names(labelled) if has_subjects(labelled) else []
    if subject not in names:
        raise InvalidParameterError(
            f"These responses have no subject '{subject}'.{did_you_mean(subject, names)} Their subjects: "
            f"{listing(names, most=12) or 'not labelled'}."
        )
    return each_subject(labelled)[names.index(subject)]


def subject_names(labelled: Labelled) -> list[str]:
    """The subjects that the labels of units name, in their order; none if they name none."""
    first = next(iter(outputs_of(labelled).values()))
    return [str(name) for name in np.atleast_1d(first[SUBJECT].values)] if SUBJECT in first.coords else []


def subjects_as_rows(labelled: Labelled) -> Labelled:
    """One row for each stimulus and subject, for files that have no axis of subjects.

    Rows are called after the stimulus, of several subjects ``face.png, NSD-01``.
    """
    if not isinstance(labelled, xr.Dataset) or not has_subjects(labelled):
        return labelled
    name, array = next(iter(labelled.data_vars.items()))
    subjects, stimuli = subject_names(labelled), [str(own) for own in labelled["stimulus"].values]
    rest = [axis for axis in array.dims if axis not in ("stimulus", SUBJECT)]
    values = array.transpose("stimulus", SUBJECT, *rest).values
    rows = [f"{stimulus}, {subject}" if len(subjects) > 1 else stimulus for stimulus in stimuli for subject in subjects]
    labels = {
        key: (own.dims, own.values) for key, own in array.coords.items() if own.dims and set(own.dims) <= set(rest)
    }
    flat = xr.DataArray(
        values.reshape(-1, *values.shape[2:]),
        dims=["stimulus", *rest],
        coords={"stimulus": np.array(rows, object), **labels},
        attrs=array.attrs,
    )
    return index_regions(xr.Dataset({name: flat}, attrs=labelled.attrs))
