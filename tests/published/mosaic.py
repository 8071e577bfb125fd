"""Files of MOSAIC's networks in the published layout with random numbers, and what they predict, written a second time.

Channels are fewer than published, 16 instead of 384; vertices are as many, because the atlas gives them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

VISUAL = "fmri-mosaic-CNN8_multihead_subAll_verticesVisual"
WHOLE = "fmri-mosaic-CNN8_multihead_subNSD_verticesAll"
FILES = {
    VISUAL: "model-CNN8_framework-multihead_subjects-all_vertices-visual",
    WHOLE: "model-CNN8_framework-multihead_subjects-NSD_vertices-all",
}
N_VERTICES = {VISUAL: 7831, WHOLE: 57051}
N_GRAYORDINATES = 91282
N_CHANNELS = 16
CEILINGS = [f"{split}_{kind}_noiseceiling" for split in ("test", "train", "artificial") for kind in ("n-avg", "n-1")]

State = dict[str, torch.Tensor]


def folder(berg_dir: Path, model_id: str) -> Path:
    return berg_dir / "encoding_models/modality-fmri/train_dataset-mosaic" / f"model-{model_id.split('-', 2)[2]}"


def weights_file(berg_dir: Path, model_id: str) -> Path:
    return folder(berg_dir, model_id) / "encoding_models_weights" / f"{FILES[model_id]}.pth"


def metadata_file(berg_dir: Path, model_id: str, subject: str) -> Path:
    """Of a subject such as NSD-01."""
    short, _, number = subject.rpartition("-")
    return folder(berg_dir, model_id) / "metadata" / short / f"sub-{number}.npy"


def core_state(rng: np.random.Generator, n_channels: int = N_CHANNELS) -> State:
    """Convolutions that keep the size of what they are given, and a normalisation that is none."""
    state, n_in = {}, 3
    for block, size in enumerate((5, 5, 3, 3, 3, 3, 3, 3), start=1):
        own = {
            "0.weight": rng.normal(0, np.sqrt(2 / (n_in * size**2)), (n_channels, n_in, size, size)),
            "1.weight": rng.uniform(0.5, 2, n_channels),
            "1.bias": rng.normal(0, 0.3, n_channels),
            "1.running_mean": rng.normal(0, 0.3, n_channels),
            "1.running_var": rng.uniform(0.5, 2, n_channels),
        }
        state |= {
            f"core.block{block}.{name}": torch.tensor(values, dtype=torch.float32) for name, values in own.items()
        }
        state[f"core.block{block}.1.num_batches_tracked"] = torch.tensor(100 + block)
        n_in = n_channels
    return state


def head_state(rng: np.random.Generator, subject: str, n_vertices: int, n_channels: int = N_CHANNELS) -> State:
    """The readout of a subject such as NSD-01; spatial weights of very different sizes."""
    short, _, number = subject.rpartition("-")
    head = f"subject_readouts.sub-{number}_{short}"
    size = rng.uniform(1e-6, 1e-2, (n_vertices, 1, 1)).astype(np.float32)
    return {
        f"{head}.spatial": torch.from_numpy(rng.standard_normal((n_vertices, 26, 26), dtype=np.float32) * size),
        f"{head}._features": torch.from_numpy(rng.standard_normal((n_vertices, n_channels), dtype=np.float32)),
        f"{head}.bias": torch.from_numpy(rng.standard_normal(n_vertices, dtype=np.float32)),
    }


def write(
    berg_dir: Path,
    model_id: str,
    subjects: Iterable[str],
    rng: np.random.Generator,
    *,
    regions: dict[str, NDArray[Any]] | None = None,
    prefix: str = "module.",
) -> State:
    """Weights and metadata of subjects such as NSD-01; gives the state that was written."""
    state = core_state(rng)
    for subject in subjects:
        state |= head_state(rng, subject, N_VERTICES[model_id])
        write_metadata(berg_dir, model_id, subject, rng, regions=regions)
    write_state(berg_dir, model_id, {f"{prefix}{name}": value for name, value in state.items()})
    return state


def write_state(berg_dir: Path, model_id: str, state: State) -> Path:
    path = weights_file(berg_dir, model_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


def write_metadata(
    berg_dir: Path,
    model_id: str,
    subject: str,
    rng: np.random.Generator,
    *,
    regions: dict[str, NDArray[Any]] | None = None,
    **changed: Any,
) -> dict[str, Any]:
    """Keys, shapes and types as published; gives the content."""
    content: dict[str, Any] = {
        "fmri": {
            "participant_id": subject,
            "age": 25,
            "sex": "F",
            "filenames": ["a.jpg", "b.jpg", "c.jpg"],
            "alias": ["a", "b", "c"],
            "source": ["imagenet", "coco", "coco"],
            "train_idx": [0, 1],
            "test_idx": [2],
            "train_filenames": ["a.jpg", "b.jpg"],
            "test_filenames": ["c.jpg"],
            "reps": [1, 1, 3],
            "roi": {} if regions is None else regions,
        },
        "encoding_models": {name: rng.uniform(0, 100, N_GRAYORDINATES).astype(np.float32) for name in CEILINGS},
        **changed,
    }
    path = metadata_file(berg_dir, model_id, subject)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, content, allow_pickle=True)  # type: ignore[arg-type]
    return content


# A second writing of the equations, in float64, of torch's own layers


def reference(state: State, images: NDArray[np.uint8], subjects: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Responses of subjects such as NSD-01, shape (n_stimuli, n_vertices)."""
    maps = core(state)(torch.stack([picture(image) for image in images])).detach().numpy()
    return {subject: head(state, maps, subject) for subject in subjects}


def picture(image: NDArray[np.uint8]) -> torch.Tensor:
    """The centre square by PIL, 224 x 224, normalised."""
    whole = Image.fromarray(image.transpose(1, 2, 0))
    side = min(whole.size)
    left, top = round((whole.width - side) / 2), round((whole.height - side) / 2)
    square = whole.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BILINEAR)
    values = torch.tensor(np.asarray(square), dtype=torch.float64).permute(2, 0, 1) / 255
    mean, std = (
        torch.tensor(own, dtype=torch.float64)[:, None, None] for own in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return (values - mean) / std


def core(state: State) -> nn.Sequential:
    layers: list[nn.Module] = []
    for block in range(1, 9):
        weight = state[f"core.block{block}.0.weight"]
        padding = 1 if block == 1 else weight.shape[2] // 2
        convolution = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=padding, bias=False)
        normalisation = nn.BatchNorm2d(weight.shape[0])
        convolution.load_state_dict({"weight": weight})
        start = f"core.block{block}.1."
        normalisation.load_state_dict(
            {name.removeprefix(start): own for name, own in state.items() if name.startswith(start)}
        )
        layers += [convolution, normalisation, nn.ReLU()]
        layers += [nn.AvgPool2d(2, stride=1 if block == 8 else 2)] if block % 2 == 0 else []
    return nn.Sequential(*layers).double().eval()


def head(state: State, maps: NDArray[np.float64], subject: str) -> NDArray[np.float64]:
    short, _, number = subject.rpartition("-")
    spatial, features, bias = (
        state[f"subject_readouts.sub-{number}_{short}.{name}"].double().numpy()
        for name in ("spatial", "_features", "bias")
    )
    normalised = spatial / (np.sqrt((spatial**2).sum((1, 2), keepdims=True)) + 1e-6)
    pooled = np.einsum("vij,bcij->bvc", normalised, maps, optimize=True)
    found: NDArray[np.float64] = np.einsum("vc,bvc->bv", features, pooled) + bias
    return found
