"""Is the file of a model there, and where."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError
from berg.core.layout import METADATA, PUBLISHED_NAME, WEIGHTS, ModelId
from berg.core.model_card import ModelCard
from berg.weights.pickled import read_npy

_WEIGHT_ENDINGS = (".safetensors", ".npy", ".pt")
_METADATA_ENDINGS = (".json", ".npy")


def weights_path(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any], part: str = "") -> Path:
    """The weights file for these parameter values; the converted one where it was made of the published one.

    Parameters
    ----------
    values
        What the file name of the card is filled with: parameters and selection.
    part
        Added to the name, for weights that lie in several files.

    Raises
    ------
    MissingFileError
        It names the file that is missing.
    """
    return _find(card, berg_dir, WEIGHTS, _files(card).weights + part, _WEIGHT_ENDINGS, values)


def metadata_path(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any]) -> Path:
    """The metadata file for these parameter values; see `weights_path`."""
    return _find(card, berg_dir, METADATA, _files(card).metadata, _METADATA_ENDINGS, values)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata in a file; lists of numbers as arrays."""
    content = read_npy(path) if path.suffix == ".npy" else _read_json(path)
    if not isinstance(content, dict):
        raise CorruptedFileError(f"{path} holds a {type(content).__name__}, not a map.")
    return content


def _read_json(path: Path) -> Any:
    try:
        return _with_arrays(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise CorruptedFileError(f"{path} is not valid JSON: {error}.") from error


def _files(card: ModelCard) -> Any:
    if card.files is None:
        raise InvalidParameterError(f"The card of {card.model_id} names no 'files'.")
    return card.files


def _find(
    card: ModelCard,
    berg_dir: str | None,
    folder: str,
    name: str,
    endings: tuple[str, ...],
    values: Mapping[str, Any],
) -> Path:
    base = ModelId.parse(card.model_id).folder(_root(card, berg_dir)) / folder
    stem = _file_name(card, name, values)
    for ending in endings:
        if (path := base / (stem + ending)).is_file():
            return path
    raise MissingFileError(
        f"{folder} of {card.model_id} for {_words(values)} are not there: {base / stem}"
        f" ({' or '.join(endings)}). Is '{_root(card, berg_dir)}' the BERG directory?"
    )


def _file_name(card: ModelCard, name: str, values: Mapping[str, Any]) -> str:
    try:
        return name.format(**values)
    except (KeyError, TypeError, ValueError) as error:
        needed = [field for _, field, _, _ in string.Formatter().parse(name) if field]
        missing = [field for field in needed if values.get(field) is None] or needed
        raise InvalidParameterError(
            f"{card.model_id} has a file for each {' and '.join(needed)}; say which {' and '.join(missing)}."
        ) from error


def _root(card: ModelCard, berg_dir: str | None) -> Path:
    if _files(card).store == "built_in":
        return card.path.parent.parent / "built_in"
    if berg_dir is None:
        raise InvalidParameterError(
            f"The files of {card.model_id} lie in a BERG directory. Say where it is: "
            f'BERG(berg_dir=".../{PUBLISHED_NAME}").'
        )
    if not Path(berg_dir).is_dir():
        raise MissingFileError(f"The BERG directory {berg_dir} does not exist.")
    return Path(berg_dir)


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _with_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_arrays(child) for key, child in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value):
        return np.array(value)
    return value
