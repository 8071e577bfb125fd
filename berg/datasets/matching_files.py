"""Whether files of recordings that are used together are of the same space, channels and times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, InvalidParameterError, listing
from berg.datasets.grayordinates import BrainModels, header_of, is_cifti, places_in
from berg.datasets.response_arrays import ReorderedRows, ResponseArray, StackedRows
from berg.datasets.response_files import ResponseFile
from berg.datasets.splits import Indices
from berg.datasets.surface_files import open_surface, structure_of
from berg.datasets.volume_files import VOLUMES, open_volumes
from berg.responses.signal_units import scale_between
from berg.system.file_errors import reading

_VOXELS_APART = 0.05  # by which places of one voxel may differ: what rounding does to affines is far below
_OF_A_SAMPLE = 0.01  # by which times may differ
_HEMISPHERES = {"lh": "Left", "left": "Left", "rh": "Right", "right": "Right"}


@dataclass(frozen=True)
class Space:
    """Where the values of a file lie.

    Attributes
    ----------
    name
        Of the file, for errors.
    shape, affine
        Of a volume; None of a surface.
    structure
        The part of the brain that vertices are of; None if the file does not say.
    brain
        Which grayordinate each value is of, in the order of a CIFTI file; None of another.
    """

    name: str
    shape: tuple[int, ...] | None = None
    affine: NDArray[Any] | None = None
    structure: str | None = None
    brain: BrainModels | None = None


def space_of(path: Path) -> Space | None:
    """The space of a file of volumes or surfaces, none of whose values are read; None of another file.

    Raises
    ------
    CorruptedFileError, MissingExtraError
    """
    lower = path.name.lower()
    with reading(path):
        if lower.endswith(".gii"):
            return Space(path.name, structure=structure_of(open_surface(path)))
        if not lower.endswith(VOLUMES):
            return None
        with open_volumes(path) as image:
            if is_cifti(path):
                return Space(path.name, brain=header_of(path, image).brain)
            shape = tuple(int(length) for length in image.shape[:3])
            affine = getattr(image, "affine", None)
            is_volume = affine is not None and len(shape) == 3 and shape[1:] != (1, 1)
            return Space(path.name, shape, affine) if is_volume else None


def space_of_responses(name: str, found: ResponseFile) -> Space:
    """The space of responses, as far as their file says."""
    if found.brain is not None:
        return Space(name, brain=found.brain)
    facts = found.attributes
    return Space(name, facts.get("volume_shape"), facts.get("fmri_affine"), found.structure)


def check_same_space(one: Space, other: Space) -> None:
    """Raise if two files are of different spaces; what one of them does not say is not compared.

    Of grayordinates, `other` may have more than `one`, and they may stand in another order; see `places_in`.

    Raises
    ------
    DatasetError
        With both values.
    """
    if one.brain is not None or other.brain is not None:
        return _check_grayordinates(one, other)
    if one.structure and other.structure and one.structure != other.structure:
        raise DatasetError(f"{other.name} is of {other.structure}, {one.name} of {one.structure}.")
    if one.shape is None or other.shape is None:
        return
    if one.shape != other.shape:
        raise DatasetError(
            f"{other.name} is a volume of {other.shape} voxels, {one.name} of {one.shape}. Resample one to the other."
        )
    if one.affine is not None and other.affine is not None and _apart(one, other) > _VOXELS_APART:
        raise DatasetError(
            f"{other.name} and {one.name} have other affines: {_rows(other.affine)} and {_rows(one.affine)}. Their "
            "voxels lie at different places. Resample one to the other."
        )


def _check_grayordinates(one: Space, other: Space) -> None:
    if one.brain is None or other.brain is None:
        return _check_not_mixed(one, other)
    for structure, n_vertices in one.brain.n_vertices.items():
        if (n_others := other.brain.n_vertices.get(structure, n_vertices)) != n_vertices:
            raise DatasetError(
                f"{other.name} has surfaces of {n_others:,} vertices ({structure}), {one.name} of {n_vertices:,}. "
                "Resample one to the other."
            )
    volumes = [Space(own.name, own.brain.volume_shape, own.brain.affine) for own in (one, other) if own.brain]
    check_same_space(*volumes)
    missing = np.flatnonzero(places_in(one.brain, other.brain) < 0)
    if len(missing):
        raise DatasetError(
            f"{other.name} has {other.brain}, {one.name} {one.brain}: {one.brain.named(int(missing[0]))} is in the "
            "latter alone. Give files of the same brain models."
        )


def _check_not_mixed(one: Space, other: Space) -> None:
    """Raise if one file is of grayordinates, and the other says that it is of something else."""
    of_brain, elsewhere = (one, other) if one.brain is not None else (other, one)
    if elsewhere.shape is None and elsewhere.structure is None:
        return
    what = f"a volume of {elsewhere.shape} voxels" if elsewhere.shape else f"vertices of {elsewhere.structure}"
    raise DatasetError(
        f"{elsewhere.name} is {what}, {of_brain.name} of {of_brain.brain}. Write both as CIFTI (.dscalar.nii, "
        ".dlabel.nii), or both not."
    )


def _apart(one: Space, other: Space) -> float:
    """How far the corners of two volumes are from each other, in voxels."""
    assert one.shape is not None
    corners = np.stack(np.meshgrid(*((0, length - 1) for length in one.shape), (1,), indexing="ij")).reshape(4, -1)
    affine = np.asarray(one.affine, float)
    apart = np.linalg.norm((np.asarray(other.affine, float) - affine)[:3] @ corners, axis=0).max()
    smallest = np.linalg.norm(affine[:3, :3], axis=0).min()
    return float(apart / smallest) if np.isfinite(apart) and smallest > 0 else np.inf


def _rows(affine: NDArray[Any]) -> str:
    return str(np.round(np.asarray(affine, float)[:3], 4).tolist())


def check_hemisphere(output: str, space: Space) -> None:
    """Raise DatasetError if responses called ``lh`` are of the right side, or the other way round."""
    side = _HEMISPHERES.get(output.lower())
    if side and space.brain is not None:
        return _check_structures(output, side, space)
    if side and space.structure and space.structure.endswith(("Left", "Right")) and not space.structure.endswith(side):
        raise DatasetError(f"'{output}' has the responses of {space.structure} ({space.name}).")


def _check_structures(output: str, side: str, space: Space) -> None:
    """Raise DatasetError if some grayordinates are not of this side."""
    assert space.brain is not None
    names = dict.fromkeys(space.brain.structures.tolist())
    others = [name.removeprefix("CIFTI_STRUCTURE_") for name in names if not name.endswith(side.upper())]
    if others:
        raise DatasetError(
            f"'{output}' has the responses of {listing(others, 3)} too. Pick one structure:  "
            f"FILE::CORTEX_{side.upper()}"
        )


def check_labels_shape(name: str, labels: Any, space: Space) -> None:
    """Raise DatasetError if labels are a volume of another shape than the responses."""
    shape = np.shape(labels)
    if space.shape is None or len(shape) < 3 or shape == space.shape or _no_ones(shape) == _no_ones(space.shape):
        return
    raise DatasetError(f"{name} has the shape {shape}, the volumes of the responses {space.shape}. Both must agree.")


def _no_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(length for length in shape if length > 1)


def joined(files: Sequence[Path], parts: Sequence[ResponseFile]) -> ResponseFile:
    """The rows of several files, one file after another.

    Channels that stand in another order than in the first file are put in its order.

    Raises
    ------
    DatasetError
        If they differ in anything else, with both values.
    """
    first = parts[0]
    alike = [first, *(_as_in(files[0], first, file, part) for file, part in zip(files[1:], parts[1:], strict=True))]
    if len(parts) == 1:
        return first
    attributes = {**first.attributes, "files": [file.name for file in files]}
    return replace(first, rows=StackedRows(tuple(part.rows for part in alike)), attributes=attributes)


def _as_in(name: Path, first: ResponseFile, file: Path, part: ResponseFile) -> ResponseFile:
    """A file's responses with their channels or grayordinates in the order of the first file."""
    part = _grayordinates_as_in(name, first, file, part)
    _check_alike(name, first, file, part)
    check_same_space(space_of_responses(name.name, first), space_of_responses(file.name, part))
    interval = first.attributes.get("sampling_interval_s", 1.0)
    for label, (axis, values) in first.coordinates.items():
        own = part.coordinates.get(label, (axis, np.array([])))[1]
        if values.dtype.kind in "iuf":
            _check_times(label, values, own, interval, (name.name, file.name))
        elif not np.array_equal(values, own):
            order = _order(values, own, label, (name.name, file.name))
            part = replace(part, rows=_reordered(part, axis, order))
    return part


def _grayordinates_as_in(name: Path, first: ResponseFile, file: Path, part: ResponseFile) -> ResponseFile:
    """A file's responses with their grayordinates in the order of the first file, which must have the same."""
    if first.brain is None or part.brain is None:
        return part
    spaces = [space_of_responses(own.name, found) for own, found in ((name, first), (file, part))]
    check_same_space(*spaces)
    check_same_space(*spaces[::-1])
    order = places_in(first.brain, part.brain)
    if np.array_equal(order, np.arange(len(order))):
        return part
    coordinates = {label: (axis, values[order]) for label, (axis, values) in part.coordinates.items()}
    return replace(part, rows=ReorderedRows(part.rows, order), coordinates=coordinates, brain=part.brain.take(order))


def _check_alike(name: Path, first: ResponseFile, file: Path, part: ResponseFile) -> None:
    lengths = {axis: length for axis, length in zip(first.axes, first.rows.shape, strict=False)}
    if part.rows.shape != first.rows.shape:
        raise DatasetError(
            f"{file} has units of shape {part.rows.shape}; {name} {first.rows.shape} ({listing(lengths)})."
        )
    facts = (
        ("rows", part.row_axis, first.row_axis),
        ("repetitions", part.n_repetitions, first.n_repetitions),
        ("the unit", part.unit, first.unit),
        (
            "a sampling interval of",
            part.attributes.get("sampling_interval_s"),
            first.attributes.get("sampling_interval_s"),
        ),
        ("a step between rows of", _step(part), _step(first)),
    )
    for what, own, others in facts:
        same = own == others or (isinstance(own, float) and isinstance(others, float) and np.isclose(own, others))
        if not same:
            raise DatasetError(f"{file} has {what} {own}; {name} {others}. Files that are joined must agree.")


def _step(found: ResponseFile) -> str:
    """From one row of a series to the next, as text; of maps there is none."""
    step = found.attributes.get("series_step")
    return "no time" if step is None else f"{step[0]:.6g} {step[1].lower()}"


def _check_times(label: str, values: Any, own: Any, interval: float, names: tuple[str, str]) -> None:
    if np.shape(values) != np.shape(own) or not np.allclose(values, own, rtol=0, atol=_OF_A_SAMPLE * interval):
        raise DatasetError(
            f"{names[1]} has the {label} {_span(own)}; {names[0]} {_span(values)}. Files that are joined must agree."
        )


def _span(values: Any) -> str:
    found = np.ravel(values)
    return f"{found[0]:g} to {found[-1]:g} ({len(found):,})" if len(found) else "of no place"


def _order(values: NDArray[Any], own: NDArray[Any], label: str, names: tuple[str, str]) -> Indices:
    """Where in a file the labels of the first one are."""
    place = {name: index for index, name in enumerate(own.tolist())}
    missing = [name for name in values.tolist() if name not in place]
    if missing or len(place) != len(values):
        raise DatasetError(
            f"{names[1]} has the {label}s {listing(own)}; {names[0]} {listing(values)}. Files that are joined must "
            "have the same."
        )
    return np.array([place[name] for name in values.tolist()])


def _reordered(part: ResponseFile, axis: str, order: Indices) -> ResponseArray:
    shape = part.rows.shape
    units = np.arange(int(np.prod(shape))).reshape(shape)
    return ReorderedRows(part.rows, np.take(units, order, part.axes.index(axis)).ravel())


def check_labels_agree(label: str, given: Any, known: Any, where: str = "the file") -> None:
    """Raise if labels along an axis contradict those that are known of it.

    Names that are all others, as after renaming, are taken; a name that stands at another place is not, and neither
    are other numbers.

    Parameters
    ----------
    given, known
        Shape (n,) each.
    where
        The known ones are from.

    Raises
    ------
    DatasetError
        With both values.
    """
    one, other = np.ravel(given), np.ravel(known)
    if len(one) != len(other):
        return  # other checks tell
    if one.dtype.kind in "iuf" and other.dtype.kind in "iuf":
        step = np.median(np.abs(np.diff(other))) if len(other) > 1 else 0.0
        differ = ~np.isclose(one, other, rtol=1e-6, atol=_OF_A_SAMPLE * float(step))
    else:
        names, others = one.astype(str), other.astype(str)
        differ = (names != others) & (np.isin(names, others) | np.isin(others, names))
    if differ.any():
        at = int(np.flatnonzero(differ)[0])
        raise DatasetError(
            f"{label} {at + 1} of {len(one)} is {one[at]} as given, and {other[at]} in {where}. Leave '{label}' out, "
            "or give what is there, in its order."
        )


def checked_unit(given: str | None, scale: float, stored: str | None) -> str:
    """The unit of responses, once they are scaled.

    Parameters
    ----------
    given
        The unit that the data set names.
    scale
        By which the values of the file are multiplied.
    stored
        The unit of the values in the file, where its format fixes it.

    Raises
    ------
    DatasetError
        If it cannot be the unit of values of the file times the scale.
    """
    if stored is None:
        return given or ""
    if given is None:
        if scale != 1:
            raise DatasetError(f"The file is in {stored}, and scale is {scale:g}: write the unit that this makes.")
        return stored
    try:
        factor = scale_between(stored, given)
    except InvalidParameterError as error:
        raise DatasetError(f"unit is {given}, and the file is in {stored}: {error}") from error
    if factor is not None and not np.isclose(scale, factor, rtol=1e-6):
        raise DatasetError(
            f"unit is {given}, and the file is in {stored}. Write  scale: {_short(factor)}  or  unit: {stored}"
        )
    return given


def _short(factor: float) -> str:
    """A number as one writes it.

    >>> _short(1e6), _short(1e-15), _short(1000.0)
    ('1e6', '1e-15', '1000')
    """
    return re.sub(r"e([+-]?)0*", lambda found: f"e{found[1].strip('+')}", f"{factor:g}")


def checked_interval(given: float | None, known: Sequence[float]) -> float | None:
    """The sampling interval in seconds: the one given, or that of the files.

    Raises
    ------
    DatasetError
        If they differ.
    """
    intervals = [*known, *([given] if given is not None else [])]
    if intervals and not np.allclose(intervals, intervals[0], rtol=1e-3):
        raise DatasetError(
            f"sampling_interval_s is {listing(f'{interval:g}' for interval in intervals)} s in one data set. Leave it "
            "out if the files say it themselves."
        )
    return given if given is not None else next(iter(known), None)
