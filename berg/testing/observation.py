"""What a model does beside computing: what it prints, writes, fetches, and changes for the whole process."""

from __future__ import annotations

import io
import logging
import os
import random
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from berg.core.exceptions import StimulusWarning


@dataclass
class Observation:
    """What was seen."""

    printed: str = ""
    warned: list[str] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)  # names of `SETTINGS`


@contextmanager
def observing(folder: Path | None) -> Iterator[Observation]:
    """Watch what happens inside the block, and put every setting back afterwards.

    Parameters
    ----------
    folder
        The folder in which nothing should be written.
    """
    seen, files, output = Observation(), _files(folder), io.StringIO()
    with (
        kept_settings() as seen.changed,
        redirect_stdout(output),
        redirect_stderr(output),
        _no_network(seen),
        _recorded_warnings(seen),
    ):
        try:
            yield seen
        finally:
            seen.printed = output.getvalue()
            seen.written = sorted({path for path, _ in files.items() ^ _files(folder).items()})


@contextmanager
def kept_settings() -> Iterator[list[str]]:
    """Put every setting back that changes inside the block; yields a list that then has their names."""
    before = {name: read() for name, (read, _) in SETTINGS.items()}
    changed: list[str] = []
    try:
        yield changed
    finally:
        for name, (read, write) in SETTINGS.items():
            if not _same(before[name], read()):
                changed.append(name)
                write(before[name])


_QUIET = (
    DeprecationWarning,  # Python's default hides this and the next three
    PendingDeprecationWarning,
    ImportWarning,
    ResourceWarning,
    StimulusWarning,  # the made-up stimuli are small and loud, which a model may say
)


@contextmanager
def _recorded_warnings(seen: Observation) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        try:
            yield
        finally:
            seen.warned = [f"{item.category.__name__}: {item.message}" for item in record if _is_seen(item.category)]
            if filters != list(warnings.filters):
                seen.changed.append("warnings.filters")


def _is_seen(category: type[Warning]) -> bool:
    return not issubclass(category, _QUIET)


@contextmanager
def _no_network(seen: Observation) -> Iterator[None]:
    connect = socket.socket.connect

    def refuse(host: object, *args: Any, **kwargs: Any) -> Any:
        seen.connections.append(str(host))
        raise OSError(f"no network while a model is checked: {host}")

    def connect_locally(self: socket.socket, address: Any) -> Any:
        is_local = self.family not in (socket.AF_INET, socket.AF_INET6)
        return connect(self, address) if is_local else refuse(address)

    with (
        mock.patch.object(socket.socket, "connect", connect_locally),
        mock.patch.object(socket.socket, "connect_ex", connect_locally),
        mock.patch.object(socket, "getaddrinfo", refuse),
    ):
        yield


def _files(folder: Path | None) -> dict[str, tuple[int, int]]:
    """Size and time of each file below a folder."""
    if folder is None:
        return {}
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path)] = (status.st_size if path.is_file() else 0, status.st_mtime_ns if path.is_file() else 0)
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, tuple) and any(isinstance(part, (tuple, np.ndarray, torch.Tensor)) for part in one):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)  # the 625 numbers of the random state of Python among them, at once


def _write_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _write_logging(state: tuple[int, list[logging.Handler]]) -> None:
    logging.root.setLevel(state[0])
    logging.root.handlers[:] = state[1]


def _write_cudnn(state: tuple[bool, bool]) -> None:
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = state


Setting = tuple[Callable[[], Any], Callable[[Any], Any]]

RANDOM: dict[str, Setting] = {
    "the random state of numpy": (np.random.get_state, np.random.set_state),
    "the random state of torch": (torch.get_rng_state, torch.set_rng_state),
    "the random state of Python": (random.getstate, random.setstate),
}
TORCH: dict[str, Setting] = {
    "torch.get_default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.get_default_device": (torch.get_default_device, torch.set_default_device),
    "torch.get_num_threads": (torch.get_num_threads, torch.set_num_threads),
    "torch.is_grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.use_deterministic_algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch.get_float32_matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "torch.backends.cudnn": (
        lambda: (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        _write_cudnn,
    ),
}
PROCESS: dict[str, Setting] = {
    "the environment variables": (lambda: dict(os.environ), _write_environment),
    "the current directory": (os.getcwd, os.chdir),
    "sys.path": (lambda: list(sys.path), lambda paths: sys.path.__setitem__(slice(None), paths)),
    "numpy.seterr": (np.geterr, lambda kinds: np.seterr(**kinds)),
    "the handlers of the root logger": (lambda: (logging.root.level, list(logging.root.handlers)), _write_logging),
}
SETTINGS: dict[str, Setting] = {**RANDOM, **TORCH, **PROCESS}
