"""The file formats, and the responses that each of them can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from berg.core.exceptions import InvalidParameterError, MissingExtraError
from berg.responses.labelled import Labelled, attributes_of, outputs_of

FSAVERAGE = (10_242, 40_962, 163_842)  # vertices per hemisphere of fsaverage5, fsaverage6, fsaverage
CHANNEL_TYPES = {"eeg": "eeg", "meg": "mag", "ecog": "ecog"}  # modality -> type of its channels in MNE


@dataclass(frozen=True)
class Format:
    """A file format: what it is called, what it needs, the package that writes it."""

    name: str
    needs: str
    fits: Callable[[Labelled], bool]
    package: str | None = None


def _is_volume(labelled: Labelled) -> bool:
    arrays, volume = list(outputs_of(labelled).values()), attributes_of(labelled)
    if len(arrays) != 1 or arrays[0].dims != ("stimulus", "voxel") or "volume_shape" not in volume:
        return False
    return all(axis in arrays[0].coords and bool((arrays[0][axis] >= 0).all()) for axis in "ijk")


def _is_surface(labelled: Labelled) -> bool:
    return all(
        name in ("lh", "rh")
        and array.dims == ("stimulus", "vertex")
        and "vertex" in array.coords
        and array.attrs.get("vertex_total") in FSAVERAGE
        for name, array in outputs_of(labelled).items()
    )


def surface_sizes(attributes: Mapping[str, Any]) -> dict[str, int]:
    """How many vertices each structure has in all, as a model fitted to CIFTI says.

    >>> surface_sizes({"surface_vertices": "CIFTI_STRUCTURE_CORTEX_LEFT 32492"})
    {'CIFTI_STRUCTURE_CORTEX_LEFT': 32492}
    """
    each = (text.rpartition(" ") for text in str(attributes.get("surface_vertices", "")).split("; "))
    return {name: int(count) for name, _, count in each if name and count.isdecimal()}


def is_grayordinates(labelled: Labelled) -> bool:
    """Whether the units say of which structure they are, and which vertex or voxel of it."""
    attributes = attributes_of(labelled)
    surfaces = set(surface_sizes(attributes))
    has_volume = {"volume_shape", "fmri_affine"} <= set(attributes)
    return all(
        len(set(array.dims) - {"subject"}) == 2
        and "structure" in array.coords
        and _has_places(array, surfaces, has_volume)
        for array in outputs_of(labelled).values()
    )


def _has_places(array: xr.DataArray, surfaces: set[str], has_volume: bool) -> bool:
    """Whether each unit is a vertex of a surface whose size is known, or a voxel of a volume that is known."""
    is_vertex = np.isin(array["structure"].values.astype(str), list(surfaces))
    vertices = "vertex" in array.coords and bool((array["vertex"].values[is_vertex] >= 0).all())
    voxels = has_volume and all(axis in array.coords and (array[axis].values[~is_vertex] >= 0).all() for axis in "ijk")
    return (vertices or not is_vertex.any()) and (voxels or bool(is_vertex.all()))


def _is_cifti(labelled: Labelled) -> bool:
    return is_grayordinates(labelled) or _is_surface(labelled)


def _is_sensors(labelled: Labelled) -> bool:
    modality = str(attributes_of(labelled).get("model_id")).split("-")[0]
    arrays = list(outputs_of(labelled).values())
    if modality not in CHANNEL_TYPES or len(arrays) != 1 or not {"channel", "time"} <= set(arrays[0].coords):
        return False
    return [axis for axis in arrays[0].dims if axis != "repetition"] == ["stimulus", "channel", "time"]


def _is_anything(labelled: Labelled) -> bool:
    return True


_NOTHING = "needs nothing"
_VOLUME = (
    "needs the axes (stimulus, voxel), and the indices i, j, k of all voxels in one volume",
    _is_volume,
    "nibabel",
)
_SURFACE = ("needs outputs lh and rh with the axes (stimulus, vertex) on fsaverage", _is_surface, "nibabel")
_SENSORS = ("needs EEG, MEG or ECoG with the axes (stimulus, [repetition], channel, time)", _is_sensors, "mne")
FORMATS = {
    ".nc": Format("NetCDF", _NOTHING, _is_anything),
    ".npz": Format("NumPy", _NOTHING, _is_anything),
    ".npy": Format("NumPy", "needs one array", lambda labelled: len(outputs_of(labelled)) == 1),
    ".csv": Format("CSV", _NOTHING, _is_anything, "pandas"),
    ".mat": Format("MATLAB", _NOTHING, _is_anything),
    ".nii": Format("NIfTI", *_VOLUME),
    ".nii.gz": Format("NIfTI", *_VOLUME),
    ".func.gii": Format("GIFTI", *_SURFACE),
    ".dscalar.nii": Format("CIFTI", f"{_SURFACE[0]}, or grayordinates fitted to CIFTI", _is_cifti, "nibabel"),
    "-epo.fif": Format("MNE", *_SENSORS),
    "-ave.fif": Format("MNE", *_SENSORS),
}


def formats_of(labelled: Labelled) -> list[str]:
    """The endings of the files that can hold these responses."""
    return [ending for ending, form in FORMATS.items() if form.fits(labelled)]


def check_fits(labelled: Labelled, ending: str) -> None:
    """Raise InvalidParameterError if a file with this ending cannot hold these responses.

    It says what the format needs, and which formats fit.
    """
    form = FORMATS[ending]
    if not form.fits(labelled):
        held = "; ".join(f"{name} {tuple(array.dims)}" for name, array in outputs_of(labelled).items())
        raise InvalidParameterError(
            f"The responses of {attributes_of(labelled).get('model_id', 'this model')} ({held}) do not fit into "
            f"{form.name} ({ending}): it {form.needs}. Use one of {', '.join(formats_of(labelled))}."
        )


@contextmanager
def export_extra() -> Iterator[None]:
    """Import packages of the extra ``export``. Raise MissingExtraError, which says what to type, if one is missing."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f'This format needs {error.name or error}, which is not installed. Type:  pip install "berg[export]"'
        ) from error


def stimulus_names(labelled: Labelled) -> list[str]:
    """The names of the stimuli, as text."""
    return [str(name) for name in np.asarray(next(iter(outputs_of(labelled).values()))["stimulus"])]
