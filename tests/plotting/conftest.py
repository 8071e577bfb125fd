"""Smooth made-up responses with the labels of every kind of model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from published.layouts import EEG_CHANNELS

from berg.plotting.meshes import divide, fsaverage5
from berg.responses.labelled import Labelled, label_responses

NAMES = ["beach.jpg", "face-1.jpg", "face-2.jpg"]
TIMES = np.round(np.arange(-0.1, 0.5, 0.01), 6)


def labelled(outputs: dict[str, tuple[Any, dict[str, Any]]], model_id: str, **model: Any) -> Labelled:
    """Name -> (responses, what the metadata say of them)."""
    labels = {name: label for name, (_, label) in outputs.items()}
    metadata = {"responses": labels, "model": {"model_id": model_id, "subject": 1, **model}}
    arrays = tuple(array.astype(np.float32) for array, _ in outputs.values())
    return label_responses(arrays[0] if len(arrays) == 1 else arrays, metadata, NAMES)


@pytest.fixture(scope="session")
def vertices() -> Callable[..., Labelled]:
    """Waves along the head, on fsaverage5 or finer; `chosen` takes some of the vertices."""

    def vertices(n_vertices: int = 10_242, chosen: Callable[[Any], Any] | None = None) -> Labelled:
        outputs = {}
        for name, mesh in fsaverage5().items():
            points, faces = mesh.inflated.astype(float), mesh.faces
            while len(points) < n_vertices:
                parents, faces = divide(faces, len(points))
                points = np.concatenate([points, points[parents].mean(axis=1)])
            numbers = np.arange(n_vertices) if chosen is None else np.flatnonzero(chosen(points))
            waves = [np.sin(points[numbers] @ wave) for wave in (np.eye(3) / 80 + 0.003)]
            label = {"axes": ("stimulus", "vertex"), "unit": "z-scored beta"}
            label["attributes"] = {"vertex_total": n_vertices}
            regions = np.where(points[numbers, 1] < -50, "early", "late")
            label["coordinates"] = {"vertex": ("vertex", numbers), "roi": ("vertex", regions)}
            outputs[name] = (np.stack(waves), label)
        return labelled(outputs, "fmri-made_up-surface")

    return vertices


@pytest.fixture(scope="session")
def sensors() -> Callable[..., Labelled]:
    """Three waves after the stimulus, each with a smooth pattern over channels."""

    def sensors(unit: str = "µV", names: Any = EEG_CHANNELS, model_id: str = "eeg-made_up-waves") -> Labelled:
        place = np.linspace(0, np.pi, len(names))
        bumps = [np.exp(-((TIMES - peak) ** 2) / 2e-3) for peak in (0.1, 0.2, 0.35)]
        patterns = [np.cos(place * (number + 1)) for number in range(3)]
        wave = sum(pattern[:, None] * bump for pattern, bump in zip(patterns, bumps, strict=True))
        responses = np.stack([(number + 1) * wave for number in range(3)])
        ceiling = np.full((len(names), len(TIMES)), 0.5)
        label = {"axes": ("stimulus", "channel", "time"), "unit": unit}
        label["coordinates"] = {
            "channel": ("channel", np.array(names)),
            "time": ("time", TIMES),
            "noise_ceiling": (("channel", "time"), ceiling),
        }
        return labelled({"eeg": (responses, label)}, model_id)

    return sensors


@pytest.fixture(scope="session")
def voxels() -> Labelled:
    """Two balls in a volume, of which one is V1."""
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(24), np.arange(16), indexing="ij"), -1).reshape(-1, 3)
    left, right = (np.linalg.norm(grid - centre, axis=1) < 5 for centre in ((5, 12, 8), (14, 12, 8)))
    places = np.concatenate([grid[left], grid[right]])
    regions = np.repeat(["V1", "V2"], [left.sum(), right.sum()])
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-20, -24, -16)
    responses = np.stack([np.cos(places @ (0.1 * np.ones(3)) + number) for number in range(3)])
    label = {"axes": ("stimulus", "voxel"), "unit": "z-scored beta"}
    label["coordinates"] = {axis: ("voxel", places[:, number]) for number, axis in enumerate("ijk")}
    label["coordinates"] |= {"roi": ("voxel", regions), "correlation": ("voxel", np.linspace(0.2, 0.6, len(places)))}
    label["coordinates"] |= {"noise_ceiling": ("voxel", np.full(len(places), 64.0))}
    volume = {"volume_shape": [20, 24, 16], "fmri_affine": affine.ravel().tolist()}
    return labelled({"responses": (responses, label)}, "fmri-made_up-volume", **volume)


@pytest.fixture(scope="session")
def fields() -> Labelled:
    """Voxels with receptive fields on a spiral."""
    angles = np.linspace(0, 20, 120)
    x, y = angles / 4 * np.cos(angles), angles / 4 * np.sin(angles)
    responses = np.stack([np.abs(x), np.abs(y), np.abs(x - y)])
    label = {"axes": ("stimulus", "voxel"), "unit": "BOLD amplitude"}
    label["coordinates"] = {"x_deg": ("voxel", x), "y_deg": ("voxel", y), "roi": ("voxel", np.repeat("V1", 120))}
    return labelled({"responses": (responses, label)}, "fmri-made_up-fields", stimulus_width_deg=8.0)


@pytest.fixture(scope="session")
def cells() -> Labelled:
    """Rates of forty cells in two areas."""
    times = np.round(np.arange(0, 0.4, 0.01), 6)
    rates = np.abs(np.sin(np.arange(40)[:, None] + 20 * times)) * 30
    label = {"axes": ("stimulus", "unit", "time"), "unit": "spikes/s"}
    label["coordinates"] = {
        "unit": ("unit", np.array([f"cell-{number}" for number in range(40)])),
        "roi": ("unit", np.repeat(["V1", "LM"], 20)),
        "time": ("time", times),
    }
    return labelled({"rate": (np.stack([rates, rates / 2, rates / 3]), label)}, "ephys-made_up-cells")
