"""A sample: a few stimuli and the responses to them, beside the weights.

Every later load can be checked against it (``berg check``). It lies in the model's folder as
``metadata/sample_*.safetensors``, one file per subject or region, such as ``sample_subject-01.safetensors``:
the tensors ``stimulus`` and ``responses.0``, ``responses.1``, ... (in the order of the card's outputs), and as
its one text, ``made_with``, the parameters and the selection in JSON. Stimuli that are texts lie as JSON in the bytes
of ``stimulus_text``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError, InvalidParameterError
from berg.core.layout import METADATA
from berg.weights.safetensors_files import read_metadata, read_safetensors, write_safetensors

_MADE_WITH = "made_with"
_TEXT = "stimulus_text"


@dataclass(frozen=True)
class Sample:
    """Stimuli and the responses to them.

    Attributes
    ----------
    stimulus
        As the card's input says, first axis: the stimuli; of texts a list of str, or the map of words and onsets.
    responses
        One array per output, first axis: the stimuli.
    parameters, selection
        What the model was made with.
    """

    path: Path
    stimulus: Any
    responses: Sequence[NDArray[Any]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)


def write_sample(sample: Sample) -> None:
    """Write a sample to its path.

    Raises
    ------
    InvalidParameterError
        If a parameter or the selection is nothing that JSON holds.
    """
    tensors = {f"responses.{index}": array for index, array in enumerate(sample.responses)}
    given = {"parameters": dict(sample.parameters), "selection": dict(sample.selection)}
    try:
        made_with = json.dumps(given, default=_plain)
    except TypeError as error:
        raise InvalidParameterError(f"A sample cannot hold these parameters: {error}.") from error
    write_safetensors(sample.path, {**_as_tensor(sample.stimulus), **tensors}, {_MADE_WITH: made_with})


def _as_tensor(stimulus: Any) -> dict[str, NDArray[Any]]:
    if isinstance(stimulus, np.ndarray):
        return {"stimulus": stimulus}
    return {_TEXT: np.frombuffer(json.dumps(stimulus, default=_plain).encode(), np.uint8)}


def read_samples(folder: Path) -> list[Sample]:
    """The samples in a model's folder, sorted by name.

    Raises
    ------
    CorruptedFileError
        If a file is no sample.
    """
    return [_read_sample(path) for path in sorted((folder / METADATA).glob("sample_*.safetensors"))]


def _read_sample(path: Path) -> Sample:
    tensors = read_safetensors(path)
    try:
        stimulus = json.loads(tensors.pop(_TEXT).tobytes()) if _TEXT in tensors else tensors.pop("stimulus")
        responses = [tensors[f"responses.{index}"] for index in range(len(tensors))]
        made_with = json.loads(read_metadata(path)[_MADE_WITH])
        return Sample(path, stimulus, responses, dict(made_with["parameters"]), dict(made_with["selection"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptedFileError(f"{path} is no sample: {error}. Write it anew with write_sample.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{value!r:.60} is a {type(value).__name__}")
