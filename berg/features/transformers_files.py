"""Folders of transformers' models, in the cache of the hub or anywhere: which files they have, what is read of them.

Code comes from the installed package alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from berg.core.exceptions import CorruptedFileError, MissingExtraError, MissingFileError, UnsafeFileError
from berg.features.stated_weights import StatedWeights, hub_file

CONFIG = "config.json"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_MAY_BE_MISSING = "pooler"
"""Computed behind all layers; classifiers are published without, and it is then left out."""


def library(extra: str = "transformers") -> Any:
    try:
        import transformers
    except ImportError as missing:
        raise MissingExtraError(f'These networks need transformers:  pip install "berg[{extra}]"') from missing
    return transformers


def model_folder(names: Sequence[str], stated: StatedWeights, how_to_get: str) -> Path:
    """The folder with the files of a model.

    Parameters
    ----------
    names
        What the hub has called it, newest first.
    stated
        Where the weights are: a hub with its revision, or a folder.
    how_to_get
        A sentence for the error.

    Raises
    ------
    MissingFileError
        If it is not on this machine; nothing is downloaded.
    """
    if stated.revision is None:
        folder = Path(stated.place).expanduser()
        if not (folder / CONFIG).is_file():
            raise MissingFileError(f"{folder} is no folder of a model: it has no {CONFIG}. Write the path of one.")
        return folder
    for name in names:
        if (found := hub_file(name, [CONFIG], stated.revision)) is not None:
            return found.parent
    raise MissingFileError(f"transformers/{names[0]} is not in the cache of the hub. {how_to_get}")


def weights_files(folder: Path, name: str) -> list[Path]:
    """One file, or an index and its parts."""
    index = folder / INDEX
    if (folder / WHOLE).is_file() or not index.is_file():
        return [folder / WHOLE]
    try:
        parts = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorruptedFileError(f"{index} is no list of the parts of transformers/{name}. Get it again.") from error
    if any(not isinstance(part, str) or Path(part).name != part for part in parts):
        raise UnsafeFileError(f"{index} names files outside its folder. Do not use it.")
    return [index, *(folder / part for part in parts)]


def check_complete(network: nn.Module, report: Mapping[str, Any], folder: Path) -> None:
    """Raise if weights are missing, which transformers fills with random numbers; leave out a pooler without."""
    missing = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    owners = {key.rpartition(f"{_MAY_BE_MISSING}.")[0] for key in missing if f".{_MAY_BE_MISSING}." in f".{key}"}
    others = sorted(key for key in missing if f".{_MAY_BE_MISSING}." not in f".{key}")
    if others:
        raise CorruptedFileError(
            f"{folder} lacks {len(others)} weights, the first: {others[0]}. They are of another model, or incomplete; "
            "get them again."
        )
    for owner in owners:
        setattr(network.get_submodule(owner.rstrip(".")), _MAY_BE_MISSING, None)


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without transformers' bars and reports, whose setting is that of the process; given back afterwards."""
    logging = transformers.utils.logging
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"There is no {path}; it says how the network is built, or its pictures are made.")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptedFileError(f"{path} is not valid JSON: {error}. Get it again.") from error
    if not isinstance(content, dict):
        raise CorruptedFileError(f"{path} holds no JSON object. Get it again.")
    return content
