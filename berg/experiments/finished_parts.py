"""Parts of an experiment that are finished, kept in a file, so that one that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError, StoreMismatchError
from berg.system.durable_file import replacing

Part = dict[str, NDArray[Any]]
_TASK = "task"
SECONDS = 30.0
"""Between two writes of a part that is not finished."""


class FinishedParts:
    """The parts of one task, by name: arrays; without a path they are not kept.

    Parameters
    ----------
    path
        A .npz file; it is written anew when a part is put into it.
    task
        What the parts depend on.

    Raises
    ------
    StoreMismatchError
        If the file is of another task.
    CorruptedFileError
        If it is no such file.
    """

    def __init__(self, path: Path | str | None, task: str) -> None:
        self.path, self.task = None if path is None else Path(path), task
        self.parts: dict[str, Part] = {}
        self.written = monotonic()
        if self.path is not None and self.path.exists():
            self.parts = _read(self.path, task)

    def get(self, name: str) -> Part | None:
        """A part as it was last put, or None."""
        return self.parts.get(name)

    def put(self, name: str, part: Mapping[str, Any]) -> None:
        """Keep a part, in place of what is kept under its name."""
        self.parts[name] = {key: np.asarray(value) for key, value in part.items()}
        if self.path is not None:
            with replacing(self.path) as file:
                arrays = {f"{name}/{key}": value for name, own in self.parts.items() for key, value in own.items()}
                np.savez(file, allow_pickle=False, **{_TASK: np.array(self.task), **arrays})
        self.written = monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to put a part that is not finished."""
        return self.path is not None and monotonic() - self.written >= SECONDS


def _read(path: Path, task: str) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    try:
        with np.load(path, allow_pickle=False) as content:
            own_task = str(content[_TASK])
            for place in content.files:
                name, _, key = place.rpartition("/")
                if name:
                    parts.setdefault(name, {})[key] = content[place]
    except (ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptedFileError(
            f"{path} holds no parts that were kept: {error}. Give another file name as resume, or remove this file."
        ) from error
    if own_task != task:
        raise StoreMismatchError(
            f"{path} is of an experiment with other responses or parameters. Give resume another name, or remove the "
            "file."
        )
    return parts


def task_of(arrays: Mapping[str, NDArray[Any]], **parameters: Any) -> str:
    """A hash of arrays and parameters."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        digest.update(f"{name} {array.dtype} {array.shape} {google_crc32c.value(flat)}".encode())
    return digest.hexdigest()
