"""Linear readouts on features of words in time, with delays.

    words with onsets -> feature spaces -> volumes -> scaled -> delayed -> linear regression -> responses

What the card says under ``features`` is used to fit and to encode: `features` beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from berg.core.card_schema import CardPart
from berg.core.exceptions import CorruptedFileError
from berg.core.model_card import ModelCard
from berg.core.unit_labels import axis_length
from berg.families.delayed_linear.features import Space, WordSpaces, WordVolumes
from berg.families.delayed_linear.readout import LinearUnits
from berg.features.time_steps import TimeSteps, read_time_steps
from berg.models.text_model import TextModel
from berg.weights import model_files
from berg.weights.safetensors_files import read_safetensors

CENTRE, SCALE = "centre", "scale"


class Features(CardPart):
    """What the card says under ``features``."""

    spaces: dict[str, Space] = Field(min_length=1, description="feature spaces by name")
    steps: list[Any] = Field(description="in time; see berg.features.time_steps")
    tr_s: float = Field(gt=0, description="seconds between volumes")
    after_s: float = Field(8.0, ge=0, description="seconds behind the last onset that there are volumes for")


class Readout(CardPart):
    """What the card says under ``readout``."""

    steps: list[Any]


class DelayedLinearModel(TextModel):
    """A linear readout on features of words in time, with delays."""

    batch_size = 1024

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The features of words, and the regressions of the selected units."""
        path = model_files.weights_path(self.card, self.berg_dir, self.file_values)
        weights = read_safetensors(path)
        features = word_volumes(self.card, self.device, weights.get(CENTRE), weights.get(SCALE))
        n_columns = max(columns.stop for columns in features.columns.values())
        coefficients, intercepts = [], []
        for output in self.card.outputs:
            axis = output.axes[-1]
            n_units = axis_length(self.card, output.name, axis, self.metadata)
            units = self.indices_of(output.name, axis)
            coefficients.append(_rows(weights, path, f"{output.name}.coefficient", (n_units, n_columns), units))
            intercepts.append(_rows(weights, path, f"{output.name}.intercept", (n_units,), units))
        return features, LinearUnits(coefficients, intercepts)


def word_volumes(
    card: ModelCard,
    device: torch.device,
    centre: NDArray[Any] | None = None,
    scale: NDArray[Any] | None = None,
) -> WordVolumes:
    """The features that a card names."""
    stated = card.part("features", Features)
    scaling = [None if values is None else torch.from_numpy(np.array(values, np.float32)) for values in (centre, scale)]
    return WordVolumes(WordSpaces(stated.spaces, device), time_steps(card), stated.tr_s, stated.after_s, *scaling)


def time_steps(card: ModelCard) -> TimeSteps:
    """The steps in time that a card names."""
    return read_time_steps(card.part("features", Features).steps)


def _rows(
    weights: Mapping[str, NDArray[Any]], path: Path, name: str, shape: tuple[int, ...], units: NDArray[np.intp]
) -> torch.Tensor:
    """The weights of the selected units, checked; of mapped weights, no others are read."""
    found = weights.get(name)
    if found is None or found.shape != shape:
        held = "nothing" if found is None else f"values of shape {found.shape}"
        raise CorruptedFileError(
            f"{path} holds {held} as '{name}'; shape {shape} is right. Fit the model anew, or get the file again."
        )
    rows = np.array(found[units], np.float32)
    if not np.isfinite(rows).all():
        raise CorruptedFileError(f"'{name}' in {path} has NaN or infinite values. Fit the model anew, or get it again.")
    return torch.from_numpy(rows)
