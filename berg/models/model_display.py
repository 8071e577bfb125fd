"""What a model shows of itself: the facts of its repr, and the table of its units.

Models are those of `berg.models.encoding_model`, which imports this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from berg.core.exceptions import listing

if TYPE_CHECKING:
    import pandas as pd

MOST_REGIONS = 8
_R_ENDINGS = ("held_out_r", "correlation")


def facts(model: Any) -> dict[str, str]:
    """What there is to say of a model, in words."""
    parameters = {name: value for name, value in model.parameters.items() if value is not None}
    found = {
        "parameters": ", ".join(f"{name}={value!r}" for name, value in parameters.items()),
        "selection": ", ".join(f"{key}={value!r:.60}" for key, value in model.selection.items()) or "all units",
        **{output: text for output, text in _outputs(model).items()},
        "device": f"{model.device}, {model.precision}",
        "weights": "loaded" if model.features is not None else "not loaded",
        "licence": model.card.licence or "none given",
    }
    return {name: text for name, text in found.items() if text}


def _outputs(model: Any) -> dict[str, str]:
    texts = {}
    for name, label in model.labels().items():
        lengths = [_length(model, name, axis) for axis in label["axes"][1:]]
        axes = ", ".join(f"{axis} {length}" for axis, length in zip(label["axes"][1:], lengths, strict=True))
        parts = [f"(stimulus, {axes})", label["unit"], _regions(label["coordinates"]), _accuracy(label["coordinates"])]
        texts[name] = "; ".join(part for part in parts if part)
    return texts


def _length(model: Any, output: str, axis: str) -> str:
    chosen = model.indices.get((output, axis))
    return "as the stimulus" if chosen is None else f"{len(chosen):,}"


def _regions(coordinates: Mapping[str, Any]) -> str:
    if "roi" not in coordinates:
        return ""
    labels = np.asarray(coordinates["roi"][1]).astype(str).ravel().tolist()
    counts = Counter(name for label in labels for name in label.split(";") if name)
    return listing((f"{name} {n:,}" for name, n in counts.most_common()), most=MOST_REGIONS)


def _accuracy(coordinates: Mapping[str, Any]) -> str:
    """The median correlation on data that the fit has not seen, if the metadata have it."""
    name = next((name for name in _R_ENDINGS if name in coordinates), None)
    values = np.asarray([] if name is None else coordinates[name][1], float)
    known = values[np.isfinite(values)]
    return f"median {name} {np.median(known):.2f}" if known.size else ""


def units_table(model: Any) -> pd.DataFrame:
    """One row per unit, in the order of the returned columns: its output, its index along each axis, its labels.

    Axes that are as long as the stimulus are left out.
    """
    from berg.responses.tables import to_dataframe

    labels = {name: _without_open_axes(model, name, label) for name, label in model.labels().items()}
    arrays = tuple(np.zeros([1, *_lengths(model, name, label["axes"])], np.float32) for name, label in labels.items())
    metadata = {"responses": labels, "model": {}}
    table = to_dataframe(arrays if len(arrays) > 1 else arrays[0], metadata, layout="wide")
    return table.iloc[:, :-1]  # without the responses


def _without_open_axes(model: Any, output: str, label: Mapping[str, Any]) -> dict[str, Any]:
    axes = [axis for axis in label["axes"] if axis == label["axes"][0] or (output, axis) in model.indices]
    kept = {
        name: (along, values)
        for name, (along, values) in label["coordinates"].items()
        if {along} <= {*axes} or (not isinstance(along, str) and {*along} <= {*axes})
    }
    return {**label, "axes": axes, "coordinates": kept}


def _lengths(model: Any, output: str, axes: list[str]) -> list[int]:
    return [len(model.indices[output, axis]) for axis in axes[1:]]
