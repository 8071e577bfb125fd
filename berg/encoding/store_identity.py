"""What a store of responses is of: enough to refuse to go on with it when anything has changed."""

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
    """A hash of the weights files, and of values evenly spread over what was made of them, the network's too."""
    digest = hashlib.sha256()
    for path in model.weights_paths(model.berg_dir, model.file_values):
        digest.update(model_files.fingerprint(path).encode())
    for half in model.loaded_modules():
        for name, tensor in half.state_dict().items():
            flat = tensor.reshape(-1)
            values = flat[:: max(1, len(flat) // _N_VALUES)].cpu().to(torch.float64).numpy()
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + values.tobytes())
    return digest.hexdigest()


def labelling_metadata(model: EncodingModel) -> dict[str, Any]:
    """The metadata of a model, for labels that tell all: with the sha256 of its weights files."""
    metadata = model.get_metadata()
    return {**metadata, "model": {**metadata["model"], "weights_sha256": weights_sha256(model)}}


def weights_sha256(model: EncodingModel) -> str:
    """The sha256 of each weights file and its name, a line each, as the tool ``sha256sum`` writes and checks them.

    From the manifest of the model; where that does not have a file, the file is read, once per process.
    """
    return "\n".join(f"{_sha256(path)}  {path.name}" for path in model.weights_paths(model.berg_dir, model.file_values))


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
    """Number, shape and names.

    Parameters
    ----------
    read_as
        What is done to the files, where anything is.
    with_content
        As stores without checksums have it: files by size and time of change, everything else by 64 stimuli evenly
        spread over it, a change between which is not noticed. Others keep a fingerprint of each stimulus.
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
    """The files that a stimulus stands for, or None where it is no folder, file, list of files, or array of them."""
    if hasattr(stimulus, "files") and hasattr(stimulus, "read_as"):  # pictures of one size, frames of a video
        return list(stimulus.files)
    places = [stimulus] if isinstance(stimulus, (str, Path)) else stimulus
    if not isinstance(places, Sequence) or not len(places) or not all(isinstance(p, (str, Path)) for p in places):
        return None
    return reader_of(expected.kind).list_files(places)


def stimulus_labels(
    given: Sequence[str] | None, files: Sequence[Path] | None, n_stimuli: int, stimulus: Any = None
) -> list[Any]:
    """One name per stimulus: those given, those that it has itself, those of the files, or numbers."""
    own = getattr(stimulus, "names", None) if hasattr(stimulus, "read_as") else None
    names = next((list(found) for found in (given, own) if found is not None), None)
    if names is None:
        names = file_names(files) if files else list(range(n_stimuli))
    if len(names) != n_stimuli:
        raise InvalidParameterError(f"stimulus_names has {len(names):,} names for {n_stimuli:,} stimuli.")
    return names


def _units(model: EncodingModel) -> str:
    return _digest(b"".join(indices.tobytes() for _, indices in sorted(model.indices.items())))


def sampled_content(stimuli: Stimuli) -> str:
    """A hash of 64 stimuli evenly spread over all."""
    digest = hashlib.sha256()
    for place in np.unique(np.linspace(0, len(stimuli) - 1, _N_PIECES).astype(int)):
        try:
            values = stimuli.read(slice(int(place), int(place) + 1))
            digest.update(str(values.dtype).encode() + values.tobytes())
        except StimulusError as error:  # damaged; whether that is fatal is settled when it is encoded
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
