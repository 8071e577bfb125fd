"""The mean luminance in each cell of a grid over the picture, and a weight per cell."""

import torch
from torch import nn

from berg.core.card_schema import CardPart
from berg.models.encoding_model import EncodingModel
from berg.weights import model_files
from berg.weights.safetensors_files import read_safetensors


class Features(CardPart):
    """What a card of this family says under ``features``."""

    cells: int  # along each side of the picture


class GridModel(EncodingModel):
    """EEG channels that are linear in the luminance of the cells."""

    def build(self):
        cells = self.card.part("features", Features).cells
        weights = read_safetensors(model_files.weights_path(self.card, self.berg_dir, self.file_values))["weights"]
        selected = weights[self.indices_of("eeg", "channel")]  # (n_selected, cells * cells)
        return Luminance(cells), Readout(torch.from_numpy(selected))


class Luminance(nn.Module):
    """Pictures, shape (batch, 3, height, width) -> mean luminance, shape (batch, cells * cells)."""

    def __init__(self, cells):
        super().__init__()
        self.cells = nn.AdaptiveAvgPool2d(cells)

    def forward(self, pictures):
        return self.cells(pictures.float().mean(dim=1, keepdim=True)).flatten(1)


class Readout(nn.Module):
    """Luminance -> a tuple with one array per output, here shape (batch, n_selected)."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, luminance):
        return (luminance @ self.weights.T.to(luminance),)
