"""Responses of vertices of fsaverage as GIFTI and CIFTI-2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from berg.core.exceptions import InvalidParameterError
from berg.responses.formats import check_fits, export_extra, stimulus_names
from berg.responses.labelled import Labelled, Responses, as_labelled, attributes_of, outputs_of

if TYPE_CHECKING:
    import nibabel as nib

CORTEX = {"lh": "CortexLeft", "rh": "CortexRight"}


def to_gifti(
    responses: Responses | Labelled, metadata: Mapping[str, Any] | None = None, stimuli: Sequence[str] | None = None
) -> dict[str, nib.GiftiImage]:
    """Responses of vertices as one GIFTI image per hemisphere, with a value for every vertex of fsaverage.

    Parameters
    ----------
    responses, metadata
        What ``berg.encode(..., return_metadata=True)`` returned, or labelled responses alone.
    stimuli
        One name per stimulus; the arrays of the image are called so.

    Returns
    -------
    images
        Under ``lh`` and ``rh``: one float32 array per stimulus, shape (163842,), in the unit of the model; NaN at
        vertices that were not selected. Files of this kind end in ``.func.gii``.

    Raises
    ------
    InvalidParameterError
        If the responses are not vertices of fsaverage; it says which formats fit.
    MissingExtraError
        Without nibabel.

    Examples
    --------
    >>> from berg import BERG
    >>> berg = BERG("/data/brain-encoding-response-generator")
    >>> model = berg.get_encoding_model("fmri-nsd_fsaverage-vit_b_32", subject=1)  # doctest: +SKIP
    >>> images = to_gifti(*berg.encode(model, "pictures", return_metadata=True))  # doctest: +SKIP
    >>> images["lh"].to_filename("responses_hemi-L.func.gii")  # doctest: +SKIP
    """
    with export_extra():
        import nibabel  # noqa: F401
    labelled = as_labelled(responses, metadata, stimuli)
    check_fits(labelled, ".func.gii")
    names, model = stimulus_names(labelled), str(attributes_of(labelled).get("model_id", ""))
    return {name: _gifti(name, array, names, model) for name, array in outputs_of(labelled).items()}


def _gifti(hemisphere: str, array: xr.DataArray, names: list[str], model: str) -> nib.GiftiImage:
    from nibabel import gifti

    whole = np.full((len(array), array.attrs["vertex_total"]), np.nan, np.float32)
    whole[:, array["vertex"].values] = array.values
    labels = {"AnatomicalStructurePrimary": CORTEX[hemisphere], "Unit": str(array.attrs["units"]), "Model": model}
    image = gifti.GiftiImage(meta=gifti.GiftiMetaData(labels))
    for name, values in zip(names, whole, strict=True):
        meta = gifti.GiftiMetaData(Name=name)
        image.add_gifti_data_array(gifti.GiftiDataArray(values, "NIFTI_INTENT_NONE", "NIFTI_TYPE_FLOAT32", meta=meta))
    return image


def to_cifti(
    responses: Responses | Labelled, metadata: Mapping[str, Any] | None = None, stimuli: Sequence[str] | None = None
) -> nib.Cifti2Image:
    """Responses of vertices as one CIFTI-2 image (dense scalars) of both hemispheres.

    Parameters
    ----------
    responses, metadata
        What ``berg.encode(..., return_metadata=True)`` returned, or labelled responses alone.
    stimuli
        One name per stimulus; the maps of the image are called so.

    Returns
    -------
    image
        float32, shape (n_stimuli, n_vertices), in the unit of the model. The columns are the selected vertices of
        the left and then of the right hemisphere, in ascending order (CIFTI's own), as the brain model axis says.
        Files of this kind end in ``.dscalar.nii``.

    Raises
    ------
    InvalidParameterError
        If the responses are not vertices of fsaverage, or there are none; it says which formats fit.
    MissingExtraError
        Without nibabel.

    Examples
    --------
    >>> from berg import BERG
    >>> berg = BERG("/data/brain-encoding-response-generator")
    >>> model = berg.get_encoding_model("fmri-nsd_fsaverage-vit_b_32", subject=1)  # doctest: +SKIP
    >>> image = to_cifti(*berg.encode(model, "pictures", return_metadata=True))  # doctest: +SKIP
    >>> image.to_filename("responses.dscalar.nii")  # doctest: +SKIP
    """
    with export_extra():
        from nibabel import cifti2
    labelled = as_labelled(responses, metadata, stimuli)
    check_fits(labelled, ".dscalar.nii")
    sorted_arrays = {name: array.sortby("vertex") for name, array in outputs_of(labelled).items() if array.size}
    if not sorted_arrays:
        raise InvalidParameterError("No vertex is selected, and a CIFTI file needs one. Select more, or use .func.gii.")
    parts = [
        cifti2.BrainModelAxis.from_surface(array["vertex"].values, array.attrs["vertex_total"], CORTEX[name])
        for name, array in sorted_arrays.items()
    ]
    brain = sum(parts[1:], start=parts[0])
    unit, model = str(next(iter(sorted_arrays.values())).units), str(attributes_of(labelled).get("model_id", ""))
    meta = [{"Unit": unit, "Model": model}] * len(stimulus_names(labelled))
    maps = cifti2.ScalarAxis(stimulus_names(labelled), meta)
    values = np.concatenate([array.values for array in sorted_arrays.values()], axis=1)
    image = cifti2.Cifti2Image(values, (maps, brain))
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS")
    return image
