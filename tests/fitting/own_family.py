"""A family of somebody's own: least squares on eight by eight pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from berg.fitting.fit_job import FitJob, Fitted
from berg.models.encoding_model import EncodingModel
from berg.weights import model_files
from berg.weights.safetensors_files import read_safetensors

SIDE = 8
FITS: list[int] = []


class Pixels(torch.nn.Module):
    def forward(self, pictures: Tensor) -> Tensor:
        grey = pictures.float().mean(dim=1, keepdim=True) / 255
        return torch.nn.functional.adaptive_avg_pool2d(grey, SIDE).flatten(1)


class Linear(torch.nn.Module):
    def __init__(self, coefficients: Tensor, intercepts: Tensor) -> None:
        super().__init__()
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("intercepts", intercepts)

    def forward(self, features: Tensor) -> tuple[Tensor]:
        return (features.to(self.coefficients) @ self.coefficients.T + self.intercepts,)


class PixelModel(EncodingModel):
    """Voxels that sum pixels."""

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        weights = read_safetensors(model_files.weights_path(self.card, self.berg_dir, self.file_values))
        voxels = self.indices_of("responses", self.card.outputs[0].axes[1])
        return Pixels(), Linear(*(torch.from_numpy(weights[name][voxels]) for name in ("coefficients", "intercepts")))


def peak_bytes(job: FitJob) -> int:
    return 10_000_000


def fit(job: FitJob) -> Fitted:
    FITS.append(len(job.dataset.splits["train"]))
    train = job.dataset.splits["train"]
    features = Pixels()(torch.from_numpy(job.dataset.read_stimuli(train))).numpy().astype(np.float64)
    responses = job.dataset.outputs["responses"].mean(train).astype(np.float64)
    design = np.column_stack([features, np.ones(len(features))])
    found = np.linalg.lstsq(design, responses, rcond=None)[0].astype(np.float32)
    tensors = {"coefficients": np.ascontiguousarray(found[:-1].T), "intercepts": found[-1]}
    return Fitted(tensors, facts={"n_features": SIDE**2})
