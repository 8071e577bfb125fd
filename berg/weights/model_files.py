"""Is the file of a model there, and where."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from berg.core.commands import download_command, how_to_get
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, listing
from berg.core.file_names import expand, fields_of, file_name, generations, name_fields
from berg.core.layout import METADATA, PUBLISHED_NAME, WEIGHTS, ModelId
from berg.core.model_card import ModelCard
from berg.core.stacklevel import users_stacklevel
from berg.system.file_hash import hash_file
from berg.weights import manifest
from berg.weights.mapped_file import map_file
from berg.weights.npy_files import read_npy
from berg.weights.safetensors_files import read_metadata as safetensors_metadata

CONVERTED = ".safetensors"
SOURCE = "source_fingerprint"  # in the metadata of a converted file: of what it was made
_N_PIECES = 64
_PIECE_BYTES = 4096
_PUBLISHED_ENDINGS = (".npy", ".pt", ".pth", ".pkl")
_METADATA_ENDINGS = (".json", ".npy")


class StaleConversionWarning(UserWarning):
    """A converted weights file does not belong to the published one beside it."""


class EarlierWeightsWarning(UserWarning):
    """Weights of an earlier publication lie beside those that are read."""


def weights_path(
    card: ModelCard, berg_dir: str | None, values: Mapping[str, Any], part: str = "", published: bool = False
) -> Path:
    """The weights file for these parameter values; the converted one if it was made of the published one.

    Parameters
    ----------
    values
        What the file name of the card is filled with: parameters and selection.
    part
        Added to the name, for weights that lie in several files.
    published
        Only the published file, not the converted one.

    Raises
    ------
    MissingFileError
        It names the file that is missing.
    """
    stem = file_name(card, _files(card).weights + part, values)
    return _weights_path(card, berg_dir, values, stem, published)


def weights_paths(
    card: ModelCard, berg_dir: str | None, values: Mapping[str, Any], published: bool = False
) -> list[Path]:
    """The weights files for these parameter values, one or several that belong together.

    Publications have spelt their names differently; the newest that is here is read, with an EarlierWeightsWarning
    if others lie beside it. Parameters and errors as of `weights_path`.
    """
    publications = generations(card, _files(card).weights, values)
    folder = model_folder(card, berg_dir, values) / WEIGHTS
    here = [names for names in publications if all(_is_there(folder, name, published) for name in names)]
    paths = [_weights_path(card, berg_dir, values, name, published) for name in (here or publications)[0]]
    if len(here) > 1:
        earlier = listing(name for names in here[1:] for name in names)
        warnings.warn(
            f"{listing(path.name for path in paths)} is read, the newest publication in {folder}; {earlier} beside it "
            "is not. Take the others away, or keep them in another BERG directory.",
            EarlierWeightsWarning,
            stacklevel=users_stacklevel(),
        )
    return paths


def shared_path(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any]) -> Path | None:
    """The weights file of all subjects; None if the card names none.

    Parameters
    ----------
    values
        For the advice of the error.

    Raises
    ------
    MissingFileError
        If it is not there.
    """
    files = _files(card)
    if files.shared is None:
        return None
    path: Path = model_folder(card, berg_dir, values) / WEIGHTS / (files.shared + files.ending_of_shared)
    if not path.is_file():
        raise MissingFileError(
            f"The weights that all subjects of {card.model_id} share are not there: {path}."
            f"{_how_to_get(card, berg_dir, values)}"
        )
    _check_recorded(path, path.parents[1], _how_to_get(card, berg_dir, values))
    return path


def shared_names(card: ModelCard) -> list[str]:
    """The weights file of all subjects as a path in the model's folder, if there is one."""
    files = _files(card)
    return [] if files.shared is None else [f"{WEIGHTS}/{files.shared}{files.ending_of_shared}"]


def common_names(card: ModelCard) -> list[str]:
    """Weights files that belong to all subjects and selections, as paths in the model's folder."""
    files = _files(card)
    is_of_all = bool(fields_of(files.metadata)) and not fields_of(files.weights)
    own = [f"{WEIGHTS}/{name}{files.weights_ending}" for name in expand(files.weights)] if is_of_all else []
    return [*own, *shared_names(card)]


def _is_there(folder: Path, stem: str, published: bool) -> bool:
    return any((folder / (stem + ending)).is_file() for ending in _weights_endings(published))


def _weights_endings(published: bool) -> tuple[str, ...]:
    return _PUBLISHED_ENDINGS if published else (CONVERTED, *_PUBLISHED_ENDINGS)


def _weights_path(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any], stem: str, published: bool) -> Path:
    path = _find(card, berg_dir, WEIGHTS, stem, _weights_endings(published), values)
    if path.suffix != CONVERTED or (published_path := _newer_source(path)) is None:
        return path
    subject = f" --subject {values['subject']}" if "subject" in values else ""
    warnings.warn(
        f"{path} was made of another {published_path.name} than the one beside it, and is not used. "
        f"Make it anew with:  berg convert {card.model_id}{subject}",
        StaleConversionWarning,
        stacklevel=users_stacklevel(),
    )
    return published_path


def _newer_source(converted: Path) -> Path | None:
    """The published file beside a converted one, if it is no longer the one that it was made of."""
    expected = safetensors_metadata(converted).get(SOURCE)
    for published in (converted.with_suffix(ending) for ending in _PUBLISHED_ENDINGS):
        if expected is not None and published.is_file() and fingerprint(published) != expected:
            return published
    return None


def fingerprint(path: Path) -> str:
    """A hash of a file's size and of 64 pieces of it, evenly spread.

    The size alone says nothing: the weights of one model, trained anew, are as large. The whole of a file
    of 2 GB would take longer to read than the model takes to load.
    """
    data = map_file(path)
    digest = hashlib.sha256(str(len(data)).encode())
    for piece in range(_N_PIECES):
        start = piece * max(0, len(data) - _PIECE_BYTES) // (_N_PIECES - 1)
        digest.update(data[start : start + _PIECE_BYTES])
    return digest.hexdigest()


def metadata_path(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any]) -> Path:
    """The metadata file for these parameter values; see `weights_path`."""
    stem = file_name(card, _files(card).metadata, values)
    return _find(card, berg_dir, METADATA, stem, _METADATA_ENDINGS, values)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata in a file; lists of numbers as arrays."""
    content = read_npy(path) if path.suffix == ".npy" else _read_json(path)
    if not isinstance(content, dict):
        raise CorruptedFileError(f"{path} holds a {type(content).__name__}, not a map.")
    return content


def _read_json(path: Path) -> Any:
    try:
        return _with_arrays(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise CorruptedFileError(f"{path} is not valid JSON: {error}.") from error


def _files(card: ModelCard) -> Any:
    if card.files is None:
        raise InvalidParameterError(f"The card of {card.model_id} names no 'files'.")
    return card.files


def _find(
    card: ModelCard,
    berg_dir: str | None,
    folder: str,
    stem: str,
    endings: tuple[str, ...],
    values: Mapping[str, Any],
) -> Path:
    base = model_folder(card, berg_dir, values) / folder
    for ending in endings:
        if (path := base / (stem + ending)).is_file():
            _check_recorded(path, base.parent, _how_to_get(card, berg_dir, values))
            return path
    pattern = _files(card).weights if folder == WEIGHTS else _files(card).metadata
    raise MissingFileError(
        f"{folder} of {card.model_id} for {_words(pattern, values)} are not there: {base / stem} "
        f"({', '.join(endings[:-1])} or {endings[-1]}). Is '{_root(card, berg_dir, values)}' the BERG directory?"
        f"{_how_to_get(card, berg_dir, values)}"
    )


def _check_recorded(path: Path, folder: Path, how_to_get: str) -> None:
    """Raise CorruptedFileError if a file is not the one that the manifest of its model names.

    The size is compared always; the hash only of a file that was written after it was recorded.
    """
    name = path.relative_to(folder).as_posix()
    entry = manifest.recorded_files(folder).get(name)
    if entry is None:
        return
    status = path.stat()
    if status.st_size == entry.size and (not _is_later(status.st_mtime, entry.date) or hash_file(path) == entry.sha256):
        return
    raise CorruptedFileError(
        f"{path} is not the file that came here: it has {status.st_size:,} bytes, recorded are {entry.size:,} with "
        f"sha256 {entry.sha256[:12]}....{how_to_get or ' Install the package that it came with anew.'}"
    )


def _is_later(seconds: float, date: str) -> bool:
    """Whether a time is after that of a record, which has whole seconds; if it has none, nobody can tell."""
    return not date or seconds > datetime.strptime(date, manifest.DATE_FORMAT).replace(tzinfo=UTC).timestamp() + 1


def _how_to_get(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any]) -> str:
    """The command that fetches the files of a model; nothing for files that a package brings along."""
    if _files(card).store != "berg_dir":
        return ""
    return f" {how_to_get(card, berg_dir, values)}"


def file_names(card: ModelCard, values: Mapping[str, Any], parts: Sequence[str] = ("",)) -> list[str]:
    """The files for these parameter values, as last published: paths in the model's folder, with slashes.

    Parameters
    ----------
    parts
        Added to the name of the weights, for weights that lie in several files.
    """
    files = _files(card)
    stems = [name for part in parts for name in generations(card, files.weights + part, values)[0]]
    weights = [f"{WEIGHTS}/{stem}{files.weights_ending}" for stem in stems]
    metadata = f"{METADATA}/{file_name(card, files.metadata, values)}{files.metadata_ending}"
    return [*weights, metadata, *shared_names(card)]


def file_fields(card: ModelCard) -> list[str]:
    """What the file names of a model are filled with, such as subject and roi."""
    _files(card)
    return name_fields(card)


def model_folder(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any] | None = None) -> Path:
    """The folder of a model's files, wherever its card says that they lie; the values are for the error's advice."""
    return ModelId.parse(card.model_id).folder(_root(card, berg_dir, values or {}))


def _root(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any]) -> Path:
    if card.files is not None and (place := card.files.store) != "berg_dir":
        return card.path.parent if place == "package" else card.path.parent.parent / "built_in"
    if berg_dir is None:
        raise InvalidParameterError(
            f"The files of {card.model_id} lie in a BERG directory. Say where it is: "
            f'BERG(berg_dir=".../{PUBLISHED_NAME}").'
        )
    if not Path(berg_dir).is_dir():
        raise MissingFileError(
            f"The BERG directory {berg_dir} does not exist. Name another (berg_dir, BERG_DIR), or fill it with:  "
            f"{download_command(card, berg_dir, values)}"
        )
    return Path(berg_dir)


def _words(name: str, values: Mapping[str, Any]) -> str:
    return ", ".join(f"{field} {values[field]}" for field in fields_of(name))


def _with_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_arrays(child) for key, child in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value):
        return np.array(value)
    return value
