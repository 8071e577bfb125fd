"""Searches that are finished, kept in a file, so that an experiment that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from berg.core.exceptions import CorruptedFileError, StoreMismatchError
from berg.experiments.exchange_search import FoundSets
from berg.experiments.pattern_similarity import PatternSimilarity
from berg.system.durable_file import replacing


class FinishedSearches:
    """The searches of one task, by name; without a path they are not kept.

    Parameters
    ----------
    path
        A .json file; it is written anew after each search.
    task
        What the searches depend on.

    Raises
    ------
    StoreMismatchError
        If the file is of another task.
    CorruptedFileError
        If it is no such file.
    """

    def __init__(self, path: Path | str | None, task: str) -> None:
        self.path, self.task = None if path is None else Path(path), task
        self.searches: dict[str, Any] = {}
        if self.path is not None and self.path.exists():
            self.searches = _read(self.path, task)

    def get(self, name: str) -> FoundSets | None:
        """A search that is finished, or None."""
        own = self.searches.get(name)
        if own is None:
            return None
        sets, n_steps = np.array(own["sets"], np.intp), np.array(own["n_steps"], np.intp)
        return FoundSets(sets, np.array(own["scores"], np.float64), n_steps, np.array(own["is_optimum"], bool))

    def put(self, name: str, found: FoundSets) -> None:
        """Keep a search."""
        self.searches[name] = {key: value.tolist() for key, value in vars(found).items()}
        if self.path is not None:
            with replacing(self.path) as file:
                file.write(json.dumps({"task": self.task, "searches": self.searches}).encode())


def _read(path: Path, task: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        own_task, searches = content["task"], dict(content["searches"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptedFileError(
            f"{path} holds no searches that were kept: {error}. Give another file name as resume, or remove this file."
        ) from error
    if own_task != task:
        raise StoreMismatchError(
            f"{path} holds searches with other responses or parameters. Give resume another name, or remove the file."
        )
    return searches


def task_of(similarities: Mapping[str, PatternSimilarity], **parameters: Any) -> str:
    """A hash of responses and parameters."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for name, similarity in similarities.items():
        for rows in similarity.subjects:
            digest.update(f"{name} {rows.shape} {google_crc32c.value(rows.reshape(-1).view(np.uint8))}".encode())
    return digest.hexdigest()
