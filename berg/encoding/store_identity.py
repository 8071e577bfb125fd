"""Fingerprints of models and stimuli, so that a store is never continued with different ones."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, StimulusError
from berg.models.encoding_model import EncodingModel
from berg.stimuli.readers import Stimuli, reader_of
from berg.stimuli.stimulus_files import file_names
from berg.system.file_hash import hash_file
from berg.weights import manifest, model_files

_N_PIECES = 64
_N_VALUES = 1024


def model_identity(model: EncodingModel) -> dict[str, Any]:
    """Model id, parameters, selection, weights and device, as texts."""
    return {
        "model": model.get_model_id(),
        "parameters": {name: str(value) for name, value in model.parameters.items() if value is not None},
        "selection": f"{model.selection!r:.60} ({_digest(_as_json(model.selection))})",
        "units": _units(model),
        "weights": weights_fingerprint(model),
        "device": model.device.type,
    }


def weights_fingerprint(model: EncodingModel) -> str:
    """Hash the weights files, and values evenly spread over the tensors in memory, also those of the network."""
    digest = hashlib.sha256((model.weights_told or "").encode())
    for path in () if model.weights_told is not None else model.paths_read(model.berg_dir, model.file_values):
        digest.update(model_files.fingerprint(path).encode())
    for half in model.loaded_modules():
        for name, tensor in half.state_dict().items():
            flat = tensor.reshape(-1)
            values = flat[:: max(1, len(flat) // _N_VALUES)].cpu().to(torch.float64).numpy()
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + values.tobytes())
    return digest.hexdigest()


def labelling_metadata(model: EncodingModel) -> dict[str, Any]:
    """The metadata of a model with the sha256 of its weights files, for labels."""
    metadata = model.get_metadata()
    return {**metadata, "model": {**metadata["model"], "weights_sha256": weights_sha256(model)}}


def weights_sha256(model: EncodingModel) -> str:
    """The sha256 and the name of each weights file, a line each, as the tool ``sha256sum`` writes and checks them.

    From the manifest of the model; a file that is not in it is read, once per process.
    """
    if model.weights_told is not None:
        return model.weights_told
    return "\n".join(f"{_sha256(path)}  {path.name}" for path in model.paths_read(model.berg_dir, model.file_values))


def _sha256(path: Path) -> str:
    folder = path.parent.parent
    entry = manifest.recorded_files(folder).get(path.relative_to(folder).as_posix())
    state = path.stat()
    return entry.sha256 if entry is not None else _hashed(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _hashed(path: Path, size: int, changed: int) -> str:
    return hash_file(path)


def stimuli_identity(
    stimuli: Stimuli,
    files: Sequence[Path] | None,
    names: Sequence[Any],
    read_as: str | None = None,
    *,
    with_content: bool = False,
) -> dict[str, Any]:
    """Number, shape and names of the stimuli.

    Parameters
    ----------
    read_as
        What is done to the files when they are read, if anything.
    with_content
        As in stores without checksums: files by size and time of change, everything else by 64 stimuli evenly spread
        over it, so that a change between them is not noticed. Other stores keep a fingerprint of each stimulus.
    """
    content = {"content": sampled_content(stimuli) if files is None else _file_states(files)} if with_content else {}
    return {
        **({} if read_as is None else {"read_as": read_as}),
        "number": len(stimuli),
        "shape": str(tuple(stimuli.shape)),
        "names": _digest("\n".join(map(str, names)).encode()),
        **content,
    }


def stimulus_files(stimulus: Any, expected: StimulusInput) -> list[Path] | None:
    """The files that a stimulus stands for; None unless it is a folder, a file, a list of files, or made of files."""
    if hasattr(stimulus, "files") and hasattr(stimulus, "read_as"):  # pictures of one size, frames of a video
        return list(stimulus.files)
    paths = [stimulus] if isinstance(stimulus, (str, Path)) else stimulus
    if expected.kind == "text" and not _is_one_file(paths):
        return None  # a list of texts, or none at all
    if not isinstance(paths, Sequence) or not len(paths) or not all(isinstance(path, (str, Path)) for path in paths):
        return None
    return reader_of(expected.kind).list_files(paths)


def _is_one_file(paths: Any) -> bool:
    """Whether it is the file of a text; a list of one sentence is not."""
    one = paths[0] if isinstance(paths, list) and len(paths) == 1 else None
    return isinstance(one, (str, Path)) and "\n" not in str(one) and Path(one).is_file()


def stimulus_labels(
    given: Sequence[str] | None, files: Sequence[Path] | None, n_stimuli: int, stimulus: Any = None
) -> list[Any]:
    """One name per stimulus: those given, those that it has itself, those of the files, or numbers."""
    is_one_video = hasattr(stimulus, "read_as") and len(stimulus) != n_stimuli  # its own names are those of its frames
    own = getattr(stimulus, "names", None) if hasattr(stimulus, "read_as") and not is_one_video else None
    names = next((list(known) for known in (given, own) if known is not None), None)
    if names is None:
        are_stimuli = files is not None and (len(files) > 1 or n_stimuli == 1)  # not the frames of one film
        names = file_names(files) if files and are_stimuli else list(range(n_stimuli))
    if len(names) != n_stimuli:
        raise InvalidParameterError(f"stimulus_names has {len(names):,} names for {n_stimuli:,} stimuli.")
    return names


def _units(model: EncodingModel) -> str:
    return _digest(b"".join(indices.tobytes() for _, indices in sorted(model.indices.items())))


def sampled_content(stimuli: Stimuli) -> str:
    """Hash 64 stimuli evenly spread over all."""
    digest = hashlib.sha256()
    for index in np.unique(np.linspace(0, len(stimuli) - 1, _N_PIECES).astype(int)).tolist():
        try:
            values = stimuli.read(slice(index, index + 1))
            digest.update(str(values.dtype).encode() + values.tobytes())
        except StimulusError as error:  # damaged; whether that is fatal is decided when it is encoded
            digest.update(str(error).encode())
    return digest.hexdigest()[:16]


def _file_states(files: Sequence[Path]) -> str:
    states = [os.stat(file, follow_symlinks=file.exists()) for file in files]  # of a link to nothing, the link itself
    return _digest("\n".join(f"{state.st_size} {state.st_mtime_ns}" for state in states).encode())


def _as_json(selection: Mapping[str, Any]) -> bytes:
    def plain(value: Any) -> Any:
        return np.asarray(value).tolist()

    return json.dumps(dict(selection), sort_keys=True, default=plain).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
