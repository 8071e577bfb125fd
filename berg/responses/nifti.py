"""Responses of voxels as a NIfTI image, in the volume of the subject."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.core.stacklevel import users_stacklevel
from berg.responses.formats import check_fits, export_extra, stimulus_names
from berg.responses.labelled import Labelled, Responses, as_labelled, attributes_of, outputs_of

if TYPE_CHECKING:
    import nibabel as nib

Reference = str | Path | Any  # a file, or an image of nibabel
MAX_VOLUMES = 32_767  # an axis of NIfTI-1 is counted in 16 bits


class UnknownPositionWarning(UserWarning):
    """The model says in which voxels its responses lie, but not where these are in the head."""


class OverlappingVoxelsWarning(UserWarning):
    """Two columns lie in one voxel, because two regions share it; the volume has the first."""


def to_nifti(
    responses: Responses | Labelled,
    metadata: Mapping[str, Any] | None = None,
    stimuli: Sequence[str] | None = None,
    *,
    outside: float = np.nan,
    reference: Reference | None = None,
) -> nib.Nifti1Image:
    """Responses of voxels as a 4-D image, one volume per stimulus.

    Column v of the responses lies at (i[v], j[v], k[v]), the coordinates of the voxels. Those of the published
    models are the voxels at which the region's ``roi_mask_volume`` is true, k counting fastest, then j, then i: the
    order of NumPy's ``volume[roi_mask_volume]``. If regions overlap, the volume has the response of the region given
    first, with an OverlappingVoxelsWarning.

    Parameters
    ----------
    responses, metadata
        What ``berg.encode(..., return_metadata=True)`` returned, or labelled responses alone
        (`berg.responses.labelled.label_responses`); of these also a part, such as
        ``labelled.isel(voxel=labelled["responses"].roi == "V1")``.
    stimuli
        One name per stimulus.
    outside
        The value of voxels without a response. NaN by default, because 0 is a response; some programs (AFNI)
        want 0.
    reference
        An image of the subject in the same space (a file, or an image of nibabel), such as the brain mask of the
        dataset: its shape and its affine are taken. For models whose metadata have no affine (THINGS fMRI); without
        one, the image has the smallest shape that holds all voxels, says that its position is unknown (codes 0 of
        qform and sform), and there is an UnknownPositionWarning.

    Returns
    -------
    image
        float32, shape ``(*volume_shape, n_stimuli)``, in the unit of the model; the affine is that of the subject's
        functional volume, in millimetres. A comment in its header (JSON) has the unit, the model and the stimuli.
        A volume of 81 x 104 x 83 voxels takes 2.8 MB of memory.

    Raises
    ------
    InvalidParameterError
        If the responses are not voxels with indices in a volume (it says which formats fit), or not in that of the
        reference.
    MissingExtraError
        Without nibabel.

    Examples
    --------
    >>> from berg import BERG
    >>> berg = BERG("/data/brain-encoding-response-generator")
    >>> model = berg.get_encoding_model("fmri-nsd-fwrf", subject=1, selection={"roi": ["V1", "V2"]})  # doctest: +SKIP
    >>> to_nifti(*berg.encode(model, "pictures", return_metadata=True)).to_filename("v1_v2.nii.gz")  # doctest: +SKIP
    """
    with export_extra():
        import nibabel as nib
    labelled = as_labelled(responses, metadata, stimuli)
    check_fits(labelled, ".nii")
    (array,) = outputs_of(labelled).values()
    check_number_of_volumes(labelled)
    attributes = attributes_of(labelled)
    shape, affine = _space(attributes, reference)
    volume = _volume(array, shape, outside)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    described = {"unit": array.units, "model": attributes, "stimuli": stimulus_names(labelled)}
    comment = json.dumps(described, default=lambda value: value.tolist()).encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", comment))
    return image


def _space(attributes: Mapping[str, Any], reference: Reference | None) -> tuple[tuple[int, ...], Any]:
    """The shape of the volume, and its affine or None."""
    shape = tuple(int(length) for length in attributes["volume_shape"])
    known = np.reshape(attributes["fmri_affine"], (4, 4)) if "fmri_affine" in attributes else None
    if reference is None:
        if known is None:
            warnings.warn(
                f"The metadata of {attributes.get('model_id')} say in which voxels the responses lie, but not where "
                "these are: the image has no affine. Give an image of the same space:  "
                "to_nifti(..., reference='brainmask.nii.gz')",
                UnknownPositionWarning,
                stacklevel=users_stacklevel(),
            )
        return shape, known
    return _space_of(reference, shape, known)


def _space_of(reference: Reference, shape: tuple[int, ...], known: Any) -> tuple[tuple[int, ...], Any]:
    """The shape and affine of a reference, which must hold the voxels."""
    import nibabel as nib

    image = nib.load(reference) if isinstance(reference, (str, Path)) else reference
    found = tuple(int(length) for length in image.shape[:3])
    if len(found) < 3 or any(length < least for length, least in zip(found, shape, strict=True)):
        raise InvalidParameterError(
            f"The reference has the shape {found}; the voxels need at least {shape}. Give an image of this subject, in "
            "the space of the model."
        )
    if known is not None and (found != shape or not np.allclose(known, image.affine, atol=1e-3)):
        raise InvalidParameterError(
            f"The reference has another shape or affine than the model's own volume {shape}. Leave reference out."
        )
    return found, image.affine


def check_number_of_volumes(labelled: Labelled) -> None:
    """Raise InvalidParameterError if one image cannot hold so many stimuli."""
    n_stimuli = len(stimulus_names(labelled))
    if n_stimuli > MAX_VOLUMES:
        raise InvalidParameterError(
            f"A NIfTI image holds {MAX_VOLUMES:,} volumes, these are {n_stimuli:,} stimuli. Write them in parts."
        )


def _volume(array: xr.DataArray, shape: tuple[int, ...], outside: float) -> NDArray[np.float32]:
    voxel_of_column = np.ravel_multi_index([array[axis].values for axis in "ijk"], shape)
    voxels, columns = np.unique(voxel_of_column, return_index=True)  # the first column of a voxel that has two
    if (n_lost := len(voxel_of_column) - len(voxels)) > 0:
        warnings.warn(
            f"{n_lost} of {len(voxel_of_column)} columns lie in a voxel that a region given before has "
            "too; the volume has the response of the first region. Write overlapping regions into files of their own.",
            OverlappingVoxelsWarning,
            stacklevel=users_stacklevel(),
        )
    volume = np.full((len(array), np.prod(shape)), outside, np.float32)
    volume[:, voxels] = array.values[:, columns]
    return np.moveaxis(volume.reshape(-1, *shape), 0, -1)
