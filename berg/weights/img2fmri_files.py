"""The readouts of img2fmri on BOLD5000, in its package as it is installed.

Nothing of the package is imported or run: its folder is looked up, its pickles are read as inert records, and its masks
as volumes. For each subject and region the package has ridge regressions of 512 features, and a mask for each
hemisphere. The rows of a region are the voxels of its left mask and then of its right one, each in C order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError, MissingFileError
from berg.system.file_errors import reading
from berg.weights.npy_files import read_inert_pickle

REGIONS = ("EarlyVis", "OPA", "LOC", "RSC", "PPA")
N_FEATURES = 512
_HEMISPHERES = {"LH": "left", "RH": "right"}
_SUBJECTS = {"CSI1": 1, "CSI2": 2, "CSI3": 3}


def read(folder: Path, values: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The tensors and the metadata of one subject's model.

    Parameters
    ----------
    folder
        Of the installed package.
    values
        ``{"subject": "CSI1"}``.

    Returns
    -------
    tensors
        As `berg convert` writes them for a linear readout. There is no scaler and no PCA: the matrix is the identity.
    metadata
        Indices i, j, k and hemisphere of each unit, units of each region, shape and affine of the volume.

    Raises
    ------
    MissingFileError, CorruptedFileError, UnsafeFileError, MissingExtraError
    """
    subject = str(values["subject"])
    coefficients, intercepts, voxels, hemispheres = [], [], [], []
    space: dict[str, Any] = {}
    for region in REGIONS:
        coefficient, intercept = _regression(folder / "models" / f"subj{_SUBJECTS[subject]}_{region}_model.pkl")
        masks = {side: _mask(folder, subject, f"{side}{region}") for side in _HEMISPHERES}
        for side, (mask, affine) in masks.items():
            own = {"volume_shape": list(mask.shape), "fmri_affine": affine.tolist()}
            if own != (space := space or own):
                raise CorruptedFileError(f"The masks of {subject} in {folder} are of several spaces. Install it anew.")
            voxels.append(np.argwhere(mask))
            hemispheres += [_HEMISPHERES[side]] * int(mask.sum())
        if (n_voxels := sum(int(mask.sum()) for mask, _ in masks.values())) != len(coefficient):
            raise CorruptedFileError(
                f"{folder} has regressions of {len(coefficient):,} voxels for {region} of {subject}, and masks of "
                f"{n_voxels:,}. Install the package anew."
            )
        coefficients.append(coefficient)
        intercepts.append(intercept)
    tensors = _folded(np.concatenate(coefficients), np.concatenate(intercepts))
    return tensors, _metadata(np.concatenate(voxels), hemispheres, [len(own) for own in coefficients], space)


def _regression(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coefficients (n_voxels, 512) and intercepts (n_voxels,) of a pickled Ridge."""
    held = read_inert_pickle(path)
    coefficient, intercept = (held.get(name) if isinstance(held, dict) else None for name in ("coef_", "intercept_"))
    fits = (
        isinstance(coefficient, np.ndarray)
        and isinstance(intercept, np.ndarray)
        and coefficient.dtype.kind == intercept.dtype.kind == "f"
        and coefficient.shape == (len(np.atleast_1d(intercept)), N_FEATURES)
        and bool(np.isfinite(coefficient).all() and np.isfinite(intercept).all())
    )
    if not fits:
        raise CorruptedFileError(f"{path} holds no ridge regressions of {N_FEATURES} features. Install img2fmri anew.")
    return np.array(coefficient, np.float32), np.array(intercept, np.float32)


def _mask(folder: Path, subject: str, name: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Where a region's voxels of one hemisphere are, and the affine; masks that were resampled count above 0."""
    path = folder / "derivatives" / "bool_masks" / f"derivatives_spm_sub-{subject}_sub-{subject}_mask-{name}.nii.gz"
    if not path.is_file():
        raise MissingFileError(f"There is no {path}. Install img2fmri anew.")
    with reading(path):
        import nibabel

        image = nibabel.load(path)
        mask, affine = np.asarray(image.dataobj) > 0, np.asarray(image.affine, np.float64)
    if mask.ndim != 3:
        raise CorruptedFileError(f"{path} has the shape {mask.shape}; a mask has three axes. Install img2fmri anew.")
    return mask, affine


def _folded(coefficients: NDArray[np.float32], intercepts: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    return {
        "centre": np.zeros(N_FEATURES, np.float32),
        "matrix": np.eye(N_FEATURES, dtype=np.float32),
        "offset": np.zeros(N_FEATURES, np.float32),
        "n_pcas": np.array([1]),
        "fmri.coefficient": coefficients,
        "fmri.intercept": intercepts,
    }


def _metadata(
    voxels: NDArray[np.intp], hemispheres: list[str], lengths: list[int], space: dict[str, Any]
) -> dict[str, Any]:
    ends = np.cumsum([0, *lengths]).tolist()
    units = {region: list(range(*ends[place : place + 2])) for place, region in enumerate(REGIONS)}
    places = {axis: voxels[:, place].tolist() for place, axis in enumerate("ijk")}
    return {"fmri": {**places, "hemisphere": hemispheres}, "roi": units, "space": space}
