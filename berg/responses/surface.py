"""Responses of vertices of fsaverage as GIFTI and CIFTI-2, and of grayordinates as CIFTI-2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.responses.formats import check_fits, export_extra, is_grayordinates, stimulus_names, surface_sizes
from berg.responses.labelled import Labelled, Responses, as_labelled, attributes_of, outputs_of
from berg.responses.subjects import subjects_as_rows

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
        float32, shape (n_stimuli, n_vertices), in the unit of the model; of several subjects a row for each stimulus
        and subject, called ``face.png, NSD-01``. The columns are the selected vertices of
        the left and then of the right hemisphere, in ascending order (CIFTI's own), as the brain model axis says.
        Files of this kind end in ``.dscalar.nii``.

    Raises
    ------
    InvalidParameterError
        If the responses are neither vertices of fsaverage nor grayordinates, or there are none; it says which formats
        fit.
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
    labelled = subjects_as_rows(labelled)
    arrays = {name: array for name, array in outputs_of(labelled).items() if array.size}
    if not arrays:
        raise InvalidParameterError("No vertex is selected, and a CIFTI file needs one. Select more, or use .func.gii.")
    if is_grayordinates(labelled):
        return _cifti(labelled, *_grayordinates(arrays, attributes_of(labelled)))
    sorted_arrays = {name: array.sortby("vertex") for name, array in arrays.items()}
    parts = [
        cifti2.BrainModelAxis.from_surface(array["vertex"].values, array.attrs["vertex_total"], CORTEX[name])
        for name, array in sorted_arrays.items()
    ]
    brain = sum(parts[1:], start=parts[0])
    return _cifti(labelled, brain, np.concatenate([array.values for array in sorted_arrays.values()], axis=1))


def _cifti(labelled: Labelled, brain: Any, values: NDArray[np.float32]) -> nib.Cifti2Image:
    """An image of these values, with a map of its own for each stimulus."""
    from nibabel import cifti2

    names, model = stimulus_names(labelled), str(attributes_of(labelled).get("model_id", ""))
    unit = str(next(iter(outputs_of(labelled).values())).attrs["units"])
    maps = cifti2.ScalarAxis(names, [{"Unit": unit, "Model": model}] * len(names))
    image = cifti2.Cifti2Image(values, (maps, brain))
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS")
    return image


def _grayordinates(outputs: Mapping[str, xr.DataArray], facts: Mapping[str, Any]) -> tuple[Any, NDArray[np.float32]]:
    """nibabel's axis of the units of all outputs, and their responses in its order.

    The units of a structure stand together, its vertices in ascending order, as CIFTI has them.
    """
    from nibabel import cifti2

    arrays = list(outputs.values())
    structures = np.concatenate([array["structure"].values.astype(str) for array in arrays])
    vertices = np.concatenate([_label(array, "vertex") for array in arrays])
    voxels = np.column_stack([np.concatenate([_label(array, axis) for array in arrays]) for axis in "ijk"])
    _, first, number = np.unique(structures, return_index=True, return_inverse=True)
    order = np.lexsort((vertices, first[number]))
    brain = cifti2.BrainModelAxis(
        structures[order],
        voxels[order],
        vertices[order],
        np.reshape(facts["fmri_affine"], (4, 4)) if "fmri_affine" in facts else None,
        tuple(int(length) for length in facts["volume_shape"]) if "volume_shape" in facts else None,
        surface_sizes(facts),
    )
    return brain, np.concatenate([array.values for array in arrays], axis=1)[:, order]


def _label(array: xr.DataArray, name: str) -> NDArray[np.intp]:
    """A label of the units, -1 if they have no such label."""
    return array[name].values.astype(np.intp) if name in array.coords else np.full(array.shape[1], -1)
