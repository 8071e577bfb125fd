"""Models whose responses to a picture are known: sums of pixels with given weights, of any number of subjects."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from berg.core.model_card import ModelCard
from berg.models.encoding_model import EncodingModel


class Flat(torch.nn.Module):
    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.float().flatten(1) / 255


class Sums(torch.nn.Module):
    """Sums of pixels, and a power of them."""

    def __init__(self, weights: Tensor, power: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weights", weights.float())
        self.power = power

    def forward(self, features: Tensor) -> tuple[Tensor]:
        sums = features @ self.weights.T
        return (sums if self.power == 1 else sums.clamp(min=0) ** self.power,)


def card_of(n_units: int, pixels: int) -> ModelCard:
    return ModelCard.parse(
        f"""
model_id: fmri-made-pixels
modality: fmri
training_dataset: made
species: none
stimuli: Images
model_architecture: Sums of pixels
creator: a test
description: Sums of pixels.
family: pixels
files: {{store: built_in, weights: "weights_subject-{{{{subject}}}}", metadata: "metadata_subject-{{{{subject}}}}"}}
licence: CC0
citation: a test
references: [a test]
input: {{shape: [batch_size, 3, {pixels}, {pixels}], dtype: uint8, range: [0, 255]}}
output: {{type: numpy.ndarray, shape: [batch_size, n_units]}}
outputs:
  - {{name: responses, axes: [stimulus, voxel], unit: made units}}
axes:
  voxel: {{length: {n_units}}}
parameters:
  subject: {{type: int, required: false, default: 1, valid_values: [1, 2, 3], example: 1}}
"""
    )


def made_model(
    features: torch.nn.Module, readout: torch.nn.Module, n_units: int, pixels: int, subject: int = 1
) -> EncodingModel:
    """A loaded model of these two halves."""

    class Made(EncodingModel):
        card = card_of(n_units, pixels)

        @classmethod
        def read_metadata(cls, berg_dir: Any, values: Any) -> dict[str, Any]:
            return {}

        @classmethod
        def weights_paths(cls, berg_dir: Any, values: Any, published: bool = False) -> list[Any]:
            return []

        def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
            return features, readout

    model = Made(device="cpu", subject=subject)
    model.load_model()
    return model


def pixel_model(weights: np.ndarray, power: float = 1.0, subject: int = 1) -> EncodingModel:
    """A loaded model with weights of shape (n_units, 3, pixels, pixels)."""
    n_units, _, pixels, _ = weights.shape
    readout = Sums(torch.from_numpy(weights.copy()).flatten(1), power)
    return made_model(Flat(), readout, n_units, pixels, subject)
