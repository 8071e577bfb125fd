"""What a model keeps in memory, and whether it lets go of it."""

from __future__ import annotations

import gc
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

_SMALL_BYTES = 1024
_NO_CONTENT = (types.ModuleType, types.FunctionType, type, str, bytes)


def held_by(value: Any, path: str = "model") -> Iterator[tuple[str, Any]]:
    """Networks, tensors and arrays that can be reached from an object, each with the attributes that lead there."""
    seen: set[int] = set()
    waiting = [(path, value)]
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen or isinstance(value, _NO_CONTENT):
            continue
        seen.add(id(value))
        if isinstance(value, (torch.nn.Module, torch.Tensor, np.ndarray)):
            yield path, value
        waiting += [(f"{path}.{name}", part) for name, part in _parts(value)]


def _parts(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(enumerate(value))
    return list(getattr(value, "__dict__", {}).items())


def _networks() -> list[Any]:
    """All networks and tensors in memory; there are few types and many objects, so each type is looked at once."""
    objects = gc.get_objects()
    kinds = {kind for kind in set(map(type, objects)) if issubclass(kind, (torch.nn.Module, torch.Tensor))}
    return [item for item in objects if type(item) in kinds]


class Memory:
    """What loading brought into memory, watched by weak references, which do not keep it there.

    Parameters
    ----------
    model
        Not loaded yet. What is in memory already, such as a network that another model uses, is not watched.
    """

    def __init__(self, model: Any) -> None:
        self._known = {id(item) for item in _networks()} | {id(item) for _, item in held_by(model)}
        self._watched: list[tuple[str, weakref.ref[Any]]] = []

    def watch(self, model: Any) -> None:
        """Begin to watch what the loaded model holds."""
        self._watched = [
            (path, weakref.ref(item))
            for path, item in held_by(model)
            if id(item) not in self._known and getattr(item, "nbytes", _SMALL_BYTES) >= _SMALL_BYTES
        ]

    def alive(self) -> list[str]:
        """What is still in memory, as the attributes that led there."""
        gc.collect()
        return [path for path, item in self._watched if item() is not None]

    def __len__(self) -> int:
        return len(self._watched)
