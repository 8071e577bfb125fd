"""Responses as answers: JSON with labels and drawings, or files (npz, NetCDF)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr

from berg.plotting.region_means import ACCURACIES, CEILING
from berg.plotting.shown import is_signed, quantity_of, shown_unit
from berg.responses.labelled import Labelled, attributes_of, label_responses, outputs_of
from berg.responses.save import save_responses
from berg.server.batching import Computed
from berg.server.contract import Answer, Coordinate, EncodeRequest, Format, Output
from berg.server.drawings import drawings_of
from berg.server.numbers_as_json import as_base64, finite, labels_as_json
from berg.server.python_lines import python_lines

MEDIA_TYPES: Mapping[Format, str] = {
    "json": "application/json",
    "npz": "application/x-npz",
    "nc": "application/x-netcdf",
    "arrays": "application/x-npz",
}
_UNITS = {"_deg": "deg", "time": "s"}
_DRAWN = ("stimulus", "time", "channel", "x_deg", "y_deg", "size_deg")
"""Coordinates that drawings need; those of a whole cortex would be forty megabytes of JSON."""


@dataclass(frozen=True)
class Answered:
    """Responses as one asked for them.

    Attributes
    ----------
    ending
        Of a file; empty if it is none.
    """

    content: bytes
    media_type: str
    warnings: list[str]
    ending: str = ""


def answer(computed: Computed, names: Sequence[Any], asked: EncodeRequest) -> Answered:
    """Responses in the format that was asked for."""
    media_type = MEDIA_TYPES[asked.format]
    if asked.format == "arrays":
        return Answered(arrays_file(computed), media_type, computed.warnings)
    responses = computed.outputs[0] if len(computed.outputs) == 1 else tuple(computed.outputs)
    labelled = label_responses(responses, computed.metadata, names)
    if asked.format == "json":
        content = json_answer(labelled, asked, computed.warnings).model_dump_json().encode()
        return Answered(content, media_type, computed.warnings)
    return Answered(_file(labelled, f".{asked.format}"), media_type, computed.warnings, f".{asked.format}")


def arrays_file(computed: Computed) -> bytes:
    """The bare arrays in an .npz file, by their number."""
    buffer = io.BytesIO()
    arrays = {f"output_{index}": output for index, output in enumerate(computed.outputs)}
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def json_answer(labelled: Labelled, asked: EncodeRequest, warnings: Sequence[str]) -> Answer:
    """Labelled responses as JSON, with what is drawn."""
    arrays = outputs_of(labelled)
    stimuli = labels_as_json(next(iter(arrays.values()))["stimulus"].values)
    return Answer(
        model={name: _plain(value) for name, value in attributes_of(labelled).items()},
        stimuli=stimuli,
        outputs=[_output(name, array, asked) for name, array in arrays.items()],
        drawings=drawings_of(labelled, asked.numbers) if asked.drawings else [],
        warnings=list(warnings),
        python=python_lines(asked, stimuli),
    )


def _output(name: str, array: xr.DataArray, asked: EncodeRequest) -> Output:
    unit = str(array.attrs.get("units", ""))
    shown, factor = shown_unit(unit)
    kept = [key for key in array.coords if asked.coordinates == "all" or key in _DRAWN]
    coordinates = {str(key): _coordinate(str(key), array[key]) for key in kept}
    accuracy = next((known for known in ACCURACIES if known in coordinates), None)
    values = array.values
    return Output(
        name=name,
        quantity=quantity_of({name: array}, False),
        unit=unit,
        shown_unit=shown,
        shown_factor=factor,
        is_signed=is_signed({name: array}, shown),
        axes=[str(axis) for axis in array.dims],
        shape=list(array.shape),
        values=finite(values) if asked.numbers == "list" else None,
        values_base64=None if asked.numbers == "list" else as_base64(values),
        coordinates=coordinates,
        noise_ceiling=coordinates.get(CEILING),
        accuracy=None if accuracy is None else coordinates[accuracy],
        accuracy_quantity=accuracy,
        attributes={str(key): _plain(value) for key, value in array.attrs.items() if key != "units"},
    )


def _coordinate(name: str, array: xr.DataArray) -> Coordinate:
    known = array.attrs.get("units") or next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)
    return Coordinate(axes=[str(axis) for axis in array.dims], values=labels_as_json(array.values), unit=known)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value if value is None or isinstance(value, (bool, int, float, str, list)) else str(value)


def _file(labelled: Labelled, ending: str) -> bytes:
    with TemporaryDirectory(prefix="berg-answer-") as folder:
        (path,) = save_responses(labelled, Path(folder) / f"responses{ending}")
        return path.read_bytes()
