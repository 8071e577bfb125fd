"""The store of a task: opened or created, its labels, and whether it may be continued."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from berg.core.exceptions import InvalidParameterError, StorageError, listing
from berg.core.stacklevel import users_stacklevel
from berg.encoding.encoded_stimuli import check_stimuli, readable_now
from berg.encoding.space import check_fits
from berg.encoding.store_identity import labelling_metadata
from berg.encoding.task import Task
from berg.models.encoding_model import EncodingModel
from berg.responses.blocks import damaged_labels
from berg.responses.labelled import Labelled, label_responses
from berg.responses.store import Compression, ResponseStore, check_same, read_identity, restore_labels


class DamagedStoreWarning(UserWarning):
    """Some of a store was not as it was written, and is computed again."""


def open_or_create(
    path: Path, task: Task, compression: Compression, verify_stimuli: bool = False, held: bool = True
) -> ResponseStore:
    """Open the store of a task, or create it.

    What is damaged in a store is made missing, so that it is encoded again; labels are written again.

    Parameters
    ----------
    verify_stimuli
        As in `berg.encoding.stream.encode_to_store`.
    held
        Whether the store may be written to; if not, it must be complete and undamaged.

    Raises
    ------
    StoreMismatchError
        If the store belongs to another task.
    StorageError, DeviceMemoryError
        If it does not fit on the disk or into memory, or must be written to and cannot be.
    CorruptedFileError
        If it is too damaged to be continued.
    """
    if not path.exists():
        check_fits(task, path, compression, -(-len(task.names) // task.block_size))
        return create(path, task, task.identity(compression), compression)
    begun = read_identity(path)
    identity = task.identity(compression, begun)
    check_same(path, begun, identity)
    _restore_damaged_labels(path, task, begun, identity, compression, held)
    store = ResponseStore(path)
    _forget_damaged_blocks(store, held)
    check_stimuli(store, task, verify_stimuli)
    if held:
        store.forget(readable_now(store, task))
    if missing := store.missing_blocks():
        _check_may_write(path, held, f"lacks {len(missing):,} of {len(store.blocks):,} blocks")
        check_fits(task, path, compression, len(missing))
    return store


def _restore_damaged_labels(
    path: Path,
    task: Task,
    begun: Mapping[str, Any],
    identity: Mapping[str, Any],
    compression: Compression,
    held: bool,
) -> None:
    if damaged := damaged_labels(path, begun):
        _check_may_write(path, held, f"has {len(damaged)} damaged files with labels")
        _warn_of_damage(path, f"{len(damaged)} files with labels ({listing(damaged, most=3)})")
        restore_labels(path, _labelled(task, identity), identity, begun["block_size"], compression)


def _forget_damaged_blocks(store: ResponseStore, held: bool) -> None:
    if damaged := store.damaged_blocks():
        _check_may_write(store.path, held, f"has {len(damaged):,} damaged blocks")
        _warn_of_damage(store.path, f"{len(damaged):,} of {len(store.blocks):,} blocks")
        store.forget(damaged)


def check_folder(path: Path) -> None:
    """Raise InvalidParameterError if there is no folder for a store, or StorageError if it may not be read."""
    try:
        is_there = path.parent.is_dir()
        path.exists()
    except OSError as error:  # a folder that may not be looked into
        raise StorageError(
            f"{path} cannot be read: {error.strerror}. Look at its owner and rights with:  ls -ld {path.parent}"
        ) from error
    if not is_there:
        raise InvalidParameterError(f"The folder {path.parent} does not exist. Make it first.")


def _check_may_write(path: Path, held: bool, what: str) -> None:
    """Raise StorageError if a store that has to be written to cannot be."""
    if not (held and os.access(path, os.W_OK)):
        raise StorageError(
            f"{path} {what}, and cannot be written to. Copy it to a folder of yours and give that path; its owner and "
            f"rights:  ls -ld {path}"
        )


def _warn_of_damage(path: Path, what: str) -> None:
    warnings.warn(
        f"{path}: {what} are not as they were written, and are made again. All else is kept. If it happens again, look "
        "at the disk.",
        DamagedStoreWarning,
        stacklevel=users_stacklevel(),
    )


def create(path: Path, task: Task, identity: Mapping[str, Any], compression: Compression) -> ResponseStore:
    """A new store for a task, empty."""
    return ResponseStore.create(path, _labelled(task, identity), identity, task.block_size, compression)


def _labelled(task: Task, identity: Mapping[str, Any]) -> dict[str, Labelled]:
    """The labels of each model, as a store has them."""
    labelled = {}
    for name, model in task.models.items():
        own = identity["models"][name or "model"]
        known = {"weights_fingerprint": own["weights"], "device": own["device"], "torch_version": torch.__version__}
        labelled[name] = label_nothing(model, task, known)
    return labelled


def label_nothing(model: EncodingModel, task: Task, known: Mapping[str, Any] | None = None) -> Labelled:
    """The labels that the responses of a model will have, around NaN that takes no memory.

    Parameters
    ----------
    known
        What else is known of the model, as further attributes.
    """
    shapes = [(len(task.names), *shape) for shape in model.response_shapes()]
    frames = tuple(np.broadcast_to(np.float32(np.nan), shape) for shape in shapes)
    metadata = labelling_metadata(model)
    names = None if task.names == list(range(len(task.names))) else task.names
    return label_responses(frames, {**metadata, "model": {**metadata["model"], **(known or {})}}, names)
