"""Population receptive fields on the local contrast of a picture.

    picture -> luminance -> local contrast, on a grid in degrees of visual angle
            -> sum within a Gaussian receptive field -> compressive exponent -> amplitude

The arithmetic is in `berg.families.prf.features` and `berg.families.prf.readout`; here the weights are read.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from berg.core.card_schema import CardPart
from berg.core.exceptions import CorruptedFileError, StimulusError
from berg.families.prf.features import contrast_grid, contrast_map
from berg.families.prf.readout import gaussian_cell_weights, predict_responses
from berg.models.encoding_model import EncodingModel
from berg.weights import model_files
from berg.weights.safetensors_files import read_safetensors

PARAMETERS = ("x_deg", "y_deg", "size_deg", "exponent", "amplitude")
MAX_HEIGHT_DEG = 90.0
CPU_PICTURES = 4  # at once; with 32 a processor takes three times as long, most of it to get fresh memory


class Features(CardPart):
    """What the card says under ``features``."""

    extractor: Literal["contrast_energy"]


class Readout(CardPart):
    """What the card says under ``readout``."""

    steps: list[Literal["gaussian_prf", "compressive_exponent", "amplitude"]]


class PRFModel(EncodingModel):
    """Voxels with a population receptive field and compressive spatial summation (Kay et al. 2013)."""

    batch_size = 16

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """Local contrast, and the receptive fields of the selected voxels."""
        self.card.part("features", Features)
        self.card.part("readout", Readout)
        path = model_files.weights_path(self.card, self.berg_dir, self.file_values)
        weights = read_safetensors(path)
        voxels = self.indices_of(self.card.outputs[0].name, "voxel")
        n_voxels = len(self.metadata["fmri"]["x_deg"])
        selected = {name: _checked(weights.get(name), name, n_voxels, str(path))[voxels] for name in PARAMETERS}
        width = float(self.parameters["stimulus_width_deg"])
        return Contrast(width), PopulationReceptiveFields(selected, width)


class Contrast(torch.nn.Module):
    """Pictures with values in [0, 255] -> maps of local contrast, and the shape of the pictures."""

    def __init__(self, stimulus_width_deg: float) -> None:
        super().__init__()
        self.stimulus_width_deg = stimulus_width_deg

    def forward(self, pictures: Tensor) -> tuple[Tensor, tuple[int, int]]:
        height, width = pictures.shape[-2:]
        height_deg = self.stimulus_width_deg * height / width
        if height_deg > MAX_HEIGHT_DEG:
            raise StimulusError(
                f"A picture of {height} x {width} pixels that is {self.stimulus_width_deg:g} degrees wide would be "
                f"{height_deg:.0f} degrees high; {MAX_HEIGHT_DEG:g} is the most. Give a smaller stimulus_width_deg."
            )
        at_once = CPU_PICTURES if pictures.device.type == "cpu" else len(pictures)
        maps = [contrast_map(part, self.stimulus_width_deg) for part in torch.split(pictures, at_once)]
        return torch.cat(maps), (height, width)


class PopulationReceptiveFields(torch.nn.Module):
    """Maps of local contrast -> steady-state responses."""

    x_deg: Tensor
    y_deg: Tensor
    size_deg: Tensor
    exponent: Tensor
    amplitude: Tensor

    def __init__(self, voxels: dict[str, NDArray[np.float32]], stimulus_width_deg: float) -> None:
        super().__init__()
        self.stimulus_width_deg = stimulus_width_deg
        for name, values in voxels.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)))
        self._weights: tuple[object, Tensor] | None = None

    def forward(self, features: tuple[Tensor, tuple[int, int]]) -> tuple[Tensor]:
        contrast, picture_shape = features
        weights = self._cell_weights(picture_shape, contrast)
        return (predict_responses(contrast, weights, self.exponent.to(weights), self.amplitude.to(weights)),)

    def draw_anew(self, rng: np.random.Generator) -> None:
        """Give each voxel a place in a square picture by chance, and the size of another: what fits no brain."""
        half = self.stimulus_width_deg / 2
        for values in (self.x_deg, self.y_deg):
            values.copy_(torch.from_numpy(rng.uniform(-half, half, values.shape)))
        for values in (self.size_deg, self.exponent, self.amplitude):
            values.copy_(values[torch.from_numpy(rng.permutation(len(values)))])
        self._weights = None

    def _cell_weights(self, picture_shape: tuple[int, int], like: Tensor) -> Tensor:
        """Each voxel's weight on each cell; kept until a picture of another shape comes."""
        key = (picture_shape, like.dtype, like.device)
        if self._weights is None or self._weights[0] != key:
            grid = contrast_grid(picture_shape, self.stimulus_width_deg, dtype=like.dtype, device=like.device)
            place = (self.x_deg.to(like), self.y_deg.to(like), self.size_deg.to(like))
            weights = gaussian_cell_weights(grid.x_centres, grid.y_centres, grid.cell_size, *place)
            self._weights = (key, weights)
        return self._weights[1]


def _checked(values: NDArray[np.float32] | None, name: str, n_voxels: int, path: str) -> NDArray[np.float32]:
    if values is None or values.shape != (n_voxels,) or not np.isfinite(values).all():
        raise CorruptedFileError(f"{path} has no finite '{name}' of shape ({n_voxels},), which its metadata promise.")
    return values
