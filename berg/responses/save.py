"""Responses into a file."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from berg.core.exceptions import InvalidParameterError
from berg.responses.formats import FORMATS, check_fits, export_extra
from berg.responses.labelled import Labelled, outputs_of
from berg.responses.mne_objects import check_epochs_file, check_evoked_file, to_mne_epochs, to_mne_evoked
from berg.responses.nifti import check_number_of_volumes, to_nifti
from berg.responses.surface import to_cifti, to_gifti
from berg.responses.tables import check_size, save_csv, save_matlab, to_arrays

ENDINGS = tuple(FORMATS)
BIDS_HEMISPHERES = {"lh": "L", "rh": "R"}


def check_ending(path: Path) -> None:
    """Raise InvalidParameterError or MissingExtraError if `save_responses` could not write such a file."""
    package = FORMATS[_ending(path)].package
    with export_extra():
        import_module(package or "berg")
    if not path.parent.is_dir():
        raise InvalidParameterError(f"The folder {path.parent} does not exist. Make it first.")


def check_not_there(path: Path, overwrite: bool) -> None:
    """Raise InvalidParameterError if a file that `save_responses` would write is there, unless it may be replaced."""
    start = path.name.removesuffix(".func.gii")
    hemispheres = [path.with_name(f"{start}_hemi-{letter}.func.gii") for letter in BIDS_HEMISPHERES.values()]
    there = [each for each in (hemispheres if start != path.name else [path]) if each.exists()]
    if there and not overwrite:
        raise InvalidParameterError(
            f"{there[0]} is there already. Give another name, or have it replaced: --overwrite (in Python "
            "overwrite=True)."
        )


def save_responses(labelled: Labelled, path: Path) -> list[Path]:
    """Write responses in the format that the ending of the file names.

    ===================  ==================================================================================
    ending               what is in it
    ===================  ==================================================================================
    ``.nc``              everything with all labels (NetCDF), opened by xarray
    ``.npz``             everything, labels as further arrays; see `berg.responses.tables.to_arrays`
    ``.npy``             the bare array of a model with one output
    ``.csv``             a long table; see `berg.responses.tables.save_csv`
    ``.mat``             structs for MATLAB; see `berg.responses.tables.to_matlab`
    ``.nii .nii.gz``     voxels in their volume; see `berg.responses.nifti.to_nifti`
    ``.func.gii``        vertices of fsaverage, one file per hemisphere: ``x.func.gii`` stands for
                         ``x_hemi-L.func.gii`` and ``x_hemi-R.func.gii``; see `berg.responses.surface.to_gifti`
    ``.dscalar.nii``     vertices of both hemispheres; see `berg.responses.surface.to_cifti`
    ``-epo.fif``         epochs of MNE; see `berg.responses.mne_objects.to_mne_epochs`
    ``-ave.fif``         evoked responses of MNE; see `berg.responses.mne_objects.to_mne_evoked`
    ===================  ==================================================================================

    Parameters
    ----------
    labelled
        The responses with their labels.
    path
        A file that is already there is replaced.

    Returns
    -------
    paths
        The files written.

    Raises
    ------
    InvalidParameterError
        If the format cannot hold these responses; it says which can.
    MissingExtraError
        If the package that writes the format is not installed.
    """
    check_ending(path)
    check_fits_file(labelled, path)
    return _WRITERS[_ending(path)](labelled, path) or [path]


def check_fits_file(labelled: Labelled, path: Path) -> None:
    """Raise InvalidParameterError if such a file cannot hold these responses; it says which formats can.

    The values of the responses are not used.
    """
    ending = _ending(path)
    check_fits(labelled, ending)
    if check := _CHECKS.get(ending):
        check(labelled)


def _ending(path: Path) -> str:
    found = [ending for ending in ENDINGS if path.name.endswith(ending) and path.name != ending]
    if not found:
        raise InvalidParameterError(f"'{path.name}' must end in one of {', '.join(ENDINGS)}.")
    return max(found, key=len)  # .dscalar.nii also ends in .nii


def _write_hemispheres(labelled: Labelled, path: Path) -> list[Path]:
    paths = []
    for name, image in to_gifti(labelled).items():
        start = path.name.removesuffix(".func.gii")
        paths.append(path.with_name(f"{start}_hemi-{BIDS_HEMISPHERES[name]}.func.gii"))
        image.to_filename(paths[-1])
    return paths


def _write_evoked(labelled: Labelled, path: Path) -> None:
    from mne import write_evokeds

    write_evokeds(path, to_mne_evoked(labelled), overwrite=True, verbose="warning")


_CHECKS: dict[str, Callable[[Labelled], None]] = {
    ".mat": check_size,
    ".nii": check_number_of_volumes,
    ".nii.gz": check_number_of_volumes,
    "-epo.fif": check_epochs_file,
    "-ave.fif": check_evoked_file,
}
_WRITERS: dict[str, Callable[[Labelled, Path], list[Path] | None]] = {
    ".nc": lambda labelled, path: labelled.to_netcdf(path, engine="h5netcdf"),
    ".npz": lambda labelled, path: np.savez(path, **to_arrays(labelled)),  # type: ignore[arg-type, func-returns-value]
    ".npy": lambda labelled, path: np.save(path, next(iter(outputs_of(labelled).values())).values),
    ".csv": save_csv,
    ".mat": save_matlab,
    ".nii": lambda labelled, path: to_nifti(labelled).to_filename(path),
    ".nii.gz": lambda labelled, path: to_nifti(labelled).to_filename(path),
    ".func.gii": _write_hemispheres,
    ".dscalar.nii": lambda labelled, path: to_cifti(labelled).to_filename(path),
    "-epo.fif": lambda labelled, path: to_mne_epochs(labelled).save(path, overwrite=True, verbose="warning"),
    "-ave.fif": _write_evoked,
}
