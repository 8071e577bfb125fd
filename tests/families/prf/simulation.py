"""A simulated visual field: bars that move across it, and voxels that look at known places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from berg.core import model_registry
from berg.core.parameter_validator import validate_parameters
from berg.datasets.dataset import EncodingDataset
from berg.families.prf.readout import css_response, gaussian_cell_weights
from berg.families.prf.receptive_fields import HaemodynamicResponse, haemodynamic_response
from berg.fitting.fit_job import FitJob

TR_S = 1.317025
N_VOLUMES, CUT = 150, 80
X_DEG, Y_DEG = (-8.775, 8.775), (5.175, -5.175)  # middles of the first and last of 40 columns and 24 rows
X_CENTRES, Y_CENTRES = np.linspace(*X_DEG, 40), np.linspace(*Y_DEG, 24)
SETTINGS: dict[str, Any] = {
    "aperture": {"x_deg": X_DEG, "y_deg": Y_DEG},
    "cuts": [CUT],
    "haemodynamic_response": {"delays_s": [4.5, 5.0, 5.5]},
    "search": {"steps": 150, "spacing_deg": 1.0},
}
FIELDS = {
    "x_deg": np.array([-6.1, 0.4, 3.3, 7.2, -1.5]),
    "y_deg": np.array([2.2, -0.7, 3.1, -2.8, -4.2]),
    "size_deg": np.array([1.1, 0.5, 0.9, 1.6, 0.7]),
    "exponent": np.array([0.5, 0.6, 0.4, 0.5, 0.7]),
}


def bars() -> np.ndarray:
    """Maps of contrast of two sweeps in each direction with blank screens between, shape (150, 24, 40)."""
    maps = np.zeros((N_VOLUMES, 24, 40))
    sweeps = {10: (32, 1, 2), 80: (32, -1, 2), 52: (18, 1, 1), 122: (18, -1, 1)}  # length, direction, axis
    for start, (length, direction, axis) in sweeps.items():
        n_cells = maps.shape[axis]
        middles = np.linspace(0, n_cells - 1, length)[::direction]
        inside = np.abs(np.arange(n_cells) - middles[:, None]) <= 1.5
        maps[start : start + length] = inside[:, None, :] if axis == 2 else inside[:, :, None]
    return maps


def wedges() -> np.ndarray:
    """Maps of contrast of a wedge that turns both ways and a ring that grows and shrinks: no products."""
    maps = np.zeros((N_VOLUMES, 24, 40))
    x, y = np.meshgrid(X_CENTRES, Y_CENTRES)
    angle, distance = np.angle(x + 1j * y), np.hypot(x, y)
    for step in range(30):
        turned = np.angle(np.exp(1j * (angle - 2 * np.pi * step / 30)))
        ring = np.abs(distance - 9 * step / 29) < 0.8
        maps[5 + step] = maps[110 - step] = np.abs(turned) < 0.4
        maps[40 + step] = maps[145 - step] = ring
    return maps


def responses(maps: np.ndarray, fields: dict[str, np.ndarray], noise: float, delay_s: float = 5.0) -> np.ndarray:
    """BOLD at amplitude 3 by two-dimensional weights and numpy's convolution, with noise; (n_volumes, n_voxels)."""
    grid, own = (torch.from_numpy(each) for each in (X_CENTRES, Y_CENTRES)), fields
    place = (torch.from_numpy(own[name]) for name in ("x_deg", "y_deg", "size_deg"))
    cells = gaussian_cell_weights(*grid, 0.45, *place)
    steady = css_response(torch.from_numpy(maps).flatten(1) @ cells, torch.from_numpy(own["exponent"]), 3.0).numpy()
    response = haemodynamic_response(delay_s, TR_S, HaemodynamicResponse())
    bold = np.stack([np.convolve(course, response)[: len(course)] for course in steady.T], axis=1)
    noisy: np.ndarray = bold + noise * np.random.default_rng(0).standard_normal(bold.shape)
    return noisy - noisy.mean(0)


def dataset(stimuli: Any, bold: np.ndarray, **changes: Any) -> EncodingDataset:
    n_voxels = bold.shape[1]
    given: dict[str, Any] = {
        "axes": ("voxel",),
        "unit": "BOLD amplitude",
        "coordinates": {
            "source_voxel": ("voxel", np.arange(n_voxels)),
            "roi": ("voxel", np.array(["V1"] * n_voxels)),
        },
        "test_fraction": 0.0,
        "sampling_interval_s": TR_S,
    } | changes
    return EncodingDataset.from_arrays(stimuli, bold.astype(np.float32), **given)


def job(data: EncodingDataset, folder: Path, **changes: Any) -> FitJob:
    """A job with the card of the built-in model and settings for few voxels."""
    card = model_registry.get_card("fmri-szinte2024-prf_css").model_copy(update={"fit": SETTINGS | changes})
    given = validate_parameters(card, {"subject": 1})
    return FitJob(card, data, given, torch.device("cpu"), folder / "cache", folder / "work", 10**10, False, folder)
