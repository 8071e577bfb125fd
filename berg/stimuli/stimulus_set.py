"""The stimuli of a dataset: how many, what they are called, any of them, and a hash of what they are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from berg.core.card_schema import StimulusInput, StimulusKind
from berg.core.exceptions import DatasetError, InvalidParameterError, StimulusError, listing
from berg.core.regular_file import check_regular_file
from berg.stimuli.arrays import open_array
from berg.stimuli.checks import as_expected, check_stimulus
from berg.stimuli.readers import READERS, kind_of_file, reader_of
from berg.stimuli.sounds import read_sound
from berg.stimuli.stimulus_files import check_links, file_names, stimuli_in
from berg.system.memory import release_pages

_BLOCK = 64  # stimuli read at once to be hashed


def is_files(stimuli: Any) -> bool:
    """Whether stimuli are a list of files or of PIL images, rather than one array."""
    return isinstance(stimuli, Sequence) and all(isinstance(item, (str, Path, Image.Image)) for item in stimuli)


def n_stimuli(stimuli: Any) -> int:
    """How many there are."""
    return len(stimuli) if is_files(stimuli) else int(np.shape(stimuli)[0] if stimuli_shape(stimuli) else 0)


def stimuli_shape(stimuli: Any) -> tuple[int, ...]:
    """The shape of an array of stimuli, () if it has none."""
    return tuple(getattr(stimuli, "shape", np.shape(stimuli) if isinstance(stimuli, Sequence) else ()))


def kind_of(stimuli: Any) -> StimulusKind:
    """What they are: by the ending of the first file, or the axes of an array (two: sounds, five: videos)."""
    if is_files(stimuli):
        return kind_of_file(stimuli[0]) if len(stimuli) else "image"
    by_axes: dict[int, StimulusKind] = {2: "sound", 5: "video"}
    return by_axes.get(len(stimuli_shape(stimuli)), "image")


def check_stimuli(stimuli: Any) -> Any:
    """Stimuli as a list of files, a list of PIL images, or something with a shape.

    Raises
    ------
    DatasetError
        For anything else.
    MissingFileError
        For a file or folder that is not there.
    """
    if isinstance(stimuli, (str, Path)):
        return files_of(Path(stimuli))
    if is_files(stimuli):
        return list(stimuli)
    array = stimuli if hasattr(stimuli, "shape") and hasattr(stimuli, "__getitem__") else np.asarray(stimuli)
    if not len(array.shape) or np.dtype(array.dtype).kind not in "biuf":
        raise DatasetError(
            f"Stimuli are {type(stimuli).__name__} of shape {tuple(array.shape)}; give an array with one stimulus per "
            "place of its first axis, a folder, or a list of files."
        )
    return array


def files_of(place: Path) -> list[Path]:
    """The pictures of a folder, or its sounds, sorted by name; see `berg.stimuli.stimulus_files.stimulus_files`.

    Raises
    ------
    MissingFileError
        If it has neither, and for links to files that are not there.
    DatasetError
        If it has both.
    """
    held = [(reader, stimuli_in(place, reader.endings) if place.is_dir() else []) for reader in READERS.values()]
    there = [(reader, files) for reader, files in held if files]
    if len(there) > 1:
        shown = " and ".join(f"{len(files):,} {reader.name} (such as {files[0].name})" for reader, files in there)
        raise DatasetError(
            f"{place} holds {shown}. Put one kind into a folder of its own, or list the stimuli with  files: LIST.txt"
        )
    found = (there[0][0] if there else reader_of("image")).list_files([place])
    check_links(found)
    return found


def open_stimulus_array(path: Path, key: str | None, places: str | None) -> Any:
    """Stimuli in a .npy, HDF5 or zarr array, none of them read."""
    try:
        return open_array(path, key, places)
    except InvalidParameterError as error:
        raise DatasetError(f"stimuli of the dataset: {str(error).replace('dataset=', 'key: ')}") from error


def names_of(stimuli: Any, names: Iterable[Any] | None = None) -> list[str]:
    """One name per stimulus: those given, those of the files, or numbers from 0.

    Raises
    ------
    DatasetError
        If there are too many or too few, or one stands twice.
    """
    n_all = n_stimuli(stimuli)
    if names is None and n_all and is_files(stimuli) and not any(isinstance(item, Image.Image) for item in stimuli):
        found = file_names([Path(file) for file in stimuli])
    else:
        found = [str(name) for name in (range(n_all) if names is None else names)]
    if len(found) != n_all:
        raise DatasetError(f"There are {len(found):,} names for {n_all:,} stimuli. Give one for each, or none.")
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        raise DatasetError(
            f"{len(twice):,} stimuli are listed more than once ({listing(twice, 5)}). List each stimulus once, and "
            "say with 'presentations' when it was shown."
        )
    return found


def read_stimuli(stimuli: Any, indices: NDArray[np.intp]) -> NDArray[Any]:
    """Some of the stimuli, in this order: (n_stimuli, 3, height, width) of pictures, (n_stimuli, n_samples) of sounds.

    Raises
    ------
    StimulusError
        For a damaged file, and for files of different sizes.
    """
    if not is_files(stimuli):
        return _read_array(stimuli, indices)
    chosen = [stimuli[index] for index in indices]
    return reader_of(kind_of_file(chosen[0])).read_files(chosen) if chosen else np.empty((0, 3, 0, 0), np.uint8)


def read_taken(stimuli: Any, indices: NDArray[np.intp], expected: StimulusInput) -> NDArray[Any]:
    """Some of the stimuli as a model takes them: checked, in its dtype, and of videos the frames that it takes.

    Raises
    ------
    StimulusError
        As `read_stimuli`, and for stimuli that the model does not take.
    """
    if expected.kind != "video":
        return as_expected(check_stimulus(read_stimuli(stimuli, indices), expected), expected)
    chosen = [stimuli[index] for index in indices] if is_files(stimuli) else _read_array(stimuli, indices)
    return reader_of("video").open(chosen, expected, None, False).read(slice(0, len(indices)))


def _read_array(array: Any, indices: NDArray[np.intp]) -> NDArray[Any]:
    if type(array) is np.ndarray:
        return array[indices]
    found = np.empty((len(indices), *array.shape[1:]), array.dtype)
    order = np.argsort(indices, kind="stable")
    ascending = indices[order]
    for run in np.split(np.arange(len(order)), np.flatnonzero(np.diff(ascending) > 1) + 1):
        if len(run):
            first = ascending[run[0]]
            read = np.asarray(array[int(first) : int(ascending[run[-1]]) + 1])
            found[order[run]] = read[ascending[run] - first]
    release_pages(getattr(array, "array", array))
    return found


def sampling_rate_of(stimuli: Any) -> int | None:
    """That of sound files, hertz; None if the first stimulus is no sound file."""
    if not is_files(stimuli) or not len(stimuli) or kind_of_file(stimuli[0]) != "sound":
        return None
    return read_sound(stimuli[0])[1]


def content_hashes(stimuli: Any, indices: NDArray[np.intp]) -> Iterator[bytes]:
    """One hash per stimulus, of the bytes of its file or of its values."""
    for start in range(0, len(indices), _BLOCK):
        block = indices[start : start + _BLOCK]
        if is_files(stimuli):
            yield from (_hash_of(stimuli[index]) for index in block)
        else:
            yield from (hashlib.sha256(np.ascontiguousarray(one).data).digest() for one in _read_array(stimuli, block))


def _hash_of(item: Any) -> bytes:
    if isinstance(item, Image.Image):
        return hashlib.sha256(f"{item.mode} {item.size}".encode() + item.tobytes()).digest()
    check_regular_file(item)
    try:
        with open(item, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise StimulusError(f"{item} cannot be read: {error.strerror}.") from error


def fingerprint(stimuli: Any, indices: NDArray[np.intp]) -> str:
    """A key of what these stimuli are, in this order; that of an array does not depend on the kind of its file."""
    digest = hashlib.sha256(b"files" if is_files(stimuli) else _kind_of(stimuli))
    for content in content_hashes(stimuli, indices):
        digest.update(content)
    return digest.hexdigest()


def _kind_of(array: Any) -> bytes:
    return f"{np.dtype(array.dtype).newbyteorder('=')} {tuple(array.shape[1:])}".encode()


def identical(
    stimuli: Any, indices: NDArray[np.intp], advance: Callable[[int], None] = lambda n: None
) -> NDArray[np.intp]:
    """A label per stimulus: the index, into `indices`, of the first that is the same.

    Of files, only those of one size are read.
    """
    sizes = [_size_of(stimuli[index]) for index in indices] if is_files(stimuli) else [0] * len(indices)
    _, of_size, n_each = np.unique(sizes, return_inverse=True, return_counts=True)
    labels = np.arange(len(indices))
    alike = np.flatnonzero(n_each[of_size] > 1)
    advance(len(indices) - len(alike))
    first: dict[bytes, int] = {}
    for index, content in zip(alike, content_hashes(stimuli, indices[alike]), strict=True):
        labels[index] = first.setdefault(content, int(index))
        advance(1)
    return labels


def _size_of(item: Any) -> int:
    return 0 if isinstance(item, Image.Image) else Path(item).stat().st_size
