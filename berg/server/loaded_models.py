"""Models in memory: loaded when they are first asked for; those that nobody has asked for the longest go."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from berg.core.exceptions import BERGError, DeviceMemoryError
from berg.models.encoding_model import EncodingModel
from berg.server.tagged_json import write_tagged
from berg.system.byte_words import size_words

Load = Callable[[str, Mapping[str, Any], Mapping[str, Any] | None], EncodingModel]


@dataclass(eq=False)
class _Entry:
    """A model, loaded or on its way, and how many use it now."""

    loaded: Future[EncodingModel] = field(default_factory=Future)
    n_users: int = 0
    n_bytes: int = 0


class LoadedModels:
    """Models by id, parameters and selection.

    Parameters
    ----------
    load
        Makes and loads one.
    memory
        Bytes of weights, networks and metadata that are kept; models that are in use are never let go.
    """

    def __init__(self, load: Load, memory: int) -> None:
        self.load, self.memory = load, memory
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one at a time: two would not fit where one does
        self._entries: dict[str, _Entry] = {}  # the one that was asked for last is last

    @contextmanager
    def using(
        self, model_id: str, parameters: Mapping[str, Any], selection: Mapping[str, Any] | None
    ) -> Iterator[EncodingModel]:
        """A model, which stays in memory until the end of the block.

        Raises
        ------
        DeviceMemoryError
            If it takes more than the memory of this server.
        BERGError
            What loading it raises; the next one who asks tries again.
        """
        key = _key(model_id, parameters, selection)
        entry, is_mine = self._enter(key)
        try:
            if is_mine:
                self._fill(key, entry, lambda: self.load(model_id, parameters, selection))
            yield entry.loaded.result()
        finally:
            self._leave(entry)

    def has(self, model_id: str, parameters: Mapping[str, Any], selection: Mapping[str, Any] | None) -> bool:
        """Whether a model is in memory, so that `using` it takes no time."""
        with self._lock:
            entry = self._entries.get(_key(model_id, parameters, selection))
            return entry is not None and entry.n_bytes > 0

    def ids(self) -> set[str]:
        """The models that are in memory."""
        with self._lock:
            entries = [entry for entry in self._entries.values() if entry.n_bytes]
        return {entry.loaded.result().get_model_id() for entry in entries}

    def n_bytes(self) -> int:
        """What the models in memory take."""
        with self._lock:
            return sum(entry.n_bytes for entry in self._entries.values())

    def close(self) -> None:
        """Let go of all models."""
        with self._lock:
            entries, self._entries = list(self._entries.values()), {}
        for entry in entries:
            if entry.n_bytes:
                entry.loaded.result().cleanup()

    def _enter(self, key: str) -> tuple[_Entry, bool]:
        with self._lock:
            is_new = key not in self._entries
            entry = self._entries.pop(key, None) or _Entry()
            self._entries[key] = entry
            entry.n_users += 1
            return entry, is_new

    def _leave(self, entry: _Entry) -> None:
        with self._lock:
            entry.n_users -= 1
        self._make_room(0)

    def _fill(self, key: str, entry: _Entry, load: Callable[[], EncodingModel]) -> None:
        try:
            with self._loading:
                model = load()
                n_bytes = model_bytes(model)
                self._check_fits(model, n_bytes)
                self._make_room(n_bytes)
        except BaseException as error:
            with self._lock:
                self._entries.pop(key, None)
            entry.loaded.set_exception(error)
            if not isinstance(error, BERGError):
                raise
        else:
            with self._lock:
                entry.n_bytes = n_bytes
            entry.loaded.set_result(model)

    def _check_fits(self, model: EncodingModel, n_bytes: int) -> None:
        if n_bytes > self.memory:
            model.cleanup()
            raise DeviceMemoryError(
                f"{model.get_model_id()} with this selection takes {size_words(n_bytes)} of memory; this server keeps "
                f"{size_words(self.memory)} of models (berg serve --memory). Select fewer units."
            )

    def _make_room(self, n_bytes: int) -> None:
        """Let go of models that nobody uses, the longest unused first, until so many bytes more fit."""
        gone = []
        with self._lock:
            total = n_bytes + sum(entry.n_bytes for entry in self._entries.values())
            for key, entry in list(self._entries.items()):
                if total <= self.memory:
                    break
                if entry.n_bytes and not entry.n_users:
                    total -= entry.n_bytes
                    gone.append(self._entries.pop(key))
        for entry in gone:
            entry.loaded.result().cleanup()
        if gone:
            gc.collect()


def _key(model_id: str, parameters: Mapping[str, Any], selection: Mapping[str, Any] | None) -> str:
    return write_tagged([model_id, dict(sorted(parameters.items())), selection or None])


def model_bytes(model: EncodingModel) -> int:
    """Bytes of the weights and the metadata of a model, each tensor once."""
    tensors: dict[int, int] = {}
    for half in model.loaded_modules():
        for module in half.modules():
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False), *_kept(vars(module))):
                tensors[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
    return max(1, sum(tensors.values()) + _array_bytes(model.metadata))


def _kept(value: Any) -> Iterator[torch.Tensor]:
    """Tensors that a module keeps without registering them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _kept(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in ("_parameters", "_buffers", "_modules"):
                yield from _kept(item)


def _array_bytes(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_array_bytes, value.values()))
    return sum(map(_array_bytes, value)) if isinstance(value, (tuple, list)) else 0
