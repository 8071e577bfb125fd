r"""Features of a network, standardized and projected by a matrix on the disk that all subjects share.

With the scaler's mean :math:`\mu` and scale :math:`\sigma`, and the components C of a truncated singular value
decomposition, which does not centre:

.. math::
    z = C \, \frac{f - \mu}{\sigma}

C has 1.6 GB for the 4,084,096 features of S3D. On a CPU it stays in its file, mapped into memory, and is read block by
block of columns for each batch; models of all subjects have one such module, so that it is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from berg.core.exceptions import CorruptedFileError
from berg.features.linear import linear
from berg.features.pretrained_network import NetworkFeatures, network_features
from berg.stimuli.video_stimuli import frame_indices
from berg.weights.npy_files import read_npy
from berg.weights.published_content import Floats, PublishedContent

BLOCK = 2**16
"""Columns that are multiplied at once: 26 MB of a hundred components."""


@dataclass(frozen=True)
class SharedProjection:
    """Scaler and components of all subjects, as they lie in the file."""

    path: Path
    mean: Floats  # (n_features,)
    scale: Floats
    components: Floats  # (n_components, n_features)

    @property
    def n_features(self) -> int:
        """How many features the network had."""
        return len(self.mean)


def read_projection(path: Path) -> SharedProjection:
    """The scaler and the components in a published file, mapped; what they hold is checked by `projected_features`.

    Raises
    ------
    CorruptedFileError
        It names the key that is missing, or whose array has a wrong shape.
    """
    content = PublishedContent(path, read_npy(path))
    mean, scale = (content.array(f"scaler_param.{key}", ("F",)) for key in ("mean_", "scale_"))
    components = content.array("pca_param.components_", ("K", "F"))
    if content.has("pca_param.mean_"):
        raise CorruptedFileError(
            f"{path} has a mean of its components (pca_param.mean_), which a truncated SVD has not; it is not the file "
            "of this model. Get it again."
        )
    for key in ("scaler_param.n_features_in_", "pca_param.n_features_in_"):
        if content.has(key) and content.value(key) != len(mean):
            raise CorruptedFileError(
                f"{path} says {content.value(key)} features at '{key}' and has {len(mean):,}. Get it again."
            )
    return SharedProjection(path, mean, scale, components)


class ProjectedFeatures(nn.Module):
    """Videos -> principal components, shape (batch, n_components), float32.

    Parameters
    ----------
    projection
        Its components are moved to a GPU, and stay where they are for a CPU.
    n_frames
        Frames that are taken of each video; see `berg.stimuli.video_stimuli.frame_indices`.
    transform
        That of the network, for labels.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        network: NetworkFeatures,
        projection: SharedProjection,
        n_frames: int,
        transform: str,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.network, self.n_frames = network, n_frames
        self.n_components, self.n_features = projection.components.shape
        self.register_buffer("mean", torch.from_numpy(projection.mean.astype(np.float32)))
        self.register_buffer("scale", torch.from_numpy(projection.scale.astype(np.float32)))
        self.transform = transform
        self.mapped = projection.components
        self.on_device: Tensor | None = None if device.type == "cpu" else _moved(projection.components, device)

    def forward(self, videos: Tensor) -> Tensor:
        frames = frame_indices(videos.shape[1], self.n_frames)
        taken = videos if len(frames) == videos.shape[1] else videos[:, torch.from_numpy(frames).to(videos.device)]
        components, start = torch.zeros((), device=self.mean.device), 0
        for layer in self.network(taken):
            for columns in _blocks(layer.shape[1]):
                components = components + self._project(layer[:, columns].float(), start + columns.start)
            start += layer.shape[1]
        return components

    def _project(self, features: Tensor, start: int) -> Tensor:
        """What some neighbouring features add to the components."""
        columns = slice(start, start + features.shape[1])
        standardized = (features - self.mean[columns]) / self.scale[columns]
        if self.on_device is not None:
            return linear(standardized, self.on_device[:, columns])
        product: Tensor = _MappedProduct.apply(standardized, self.mapped[:, columns])  # type: ignore[no-untyped-call]
        return product


class _MappedProduct(torch.autograd.Function):
    """x @ matrix.T, of a matrix in a file: it is read again for the gradient, so that nothing of it stays in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Floats) -> Tensor:
        ctx.matrix = matrix
        return linear(x, _as_tensor(matrix))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] @ _as_tensor(ctx.matrix), None


def _as_tensor(block: Floats) -> Tensor:
    """A block of columns, copied: in the file it may lie at an odd address, which PyTorch cannot compute with."""
    return torch.from_numpy(np.array(block, np.float32, order="C"))


def _moved(components: Floats, device: torch.device) -> Tensor:
    """All components on a device."""
    moved = torch.empty(components.shape, device=device)
    for columns in _blocks(components.shape[1]):
        moved[:, columns] = _as_tensor(components[:, columns]).to(device)
    return moved


def _blocks(n_columns: int) -> Iterator[slice]:
    for start in range(0, n_columns, BLOCK):
        yield slice(start, min(start + BLOCK, n_columns))


_in_memory: WeakValueDictionary[tuple[object, ...], ProjectedFeatures] = WeakValueDictionary()


def projected_features(
    projection: SharedProjection,
    transforms: Mapping[int, str],
    n_frames: int,
    network: tuple[str, str, str | list[str], str],
    device: torch.device,
) -> ProjectedFeatures:
    """The projected features of a network, shared between the models of all subjects.

    Parameters
    ----------
    transforms
        The transform before which the components were fitted, by their number of features.
    network
        Extractor, weights, nodes and precision; see `berg.features.pretrained_network.network_features`.

    Raises
    ------
    CorruptedFileError
        For another number of features, and for values that no scaler and no decomposition has.
    """
    if projection.n_features not in transforms:
        counts = " or ".join(f"{n:,} (transform {name})" for n, name in transforms.items())
        raise CorruptedFileError(
            f"{projection.path} is for {projection.n_features:,} features; this model's network has {counts}. It is "
            "the file of another model, or damaged; get it again."
        )
    extractor, weights, nodes, precision = network
    transform, state = transforms[projection.n_features], projection.path.stat()
    file = (str(projection.path.resolve()), state.st_size, state.st_mtime_ns)
    key = (extractor, weights, str(nodes), precision, transform, n_frames, str(device), file)
    features = _in_memory.get(key)
    if features is None:
        _check_values(projection)
        read = network_features(extractor, weights, nodes, transform, precision, device)
        features = (
            ProjectedFeatures(read, projection, n_frames, transform, device).to(device).eval().requires_grad_(False)
        )
        _in_memory[key] = features
    return features


def _check_values(projection: SharedProjection) -> None:
    with np.errstate(over="ignore"):  # of numbers that float32 does not hold
        scale = projection.scale.astype(np.float32)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise CorruptedFileError(
            f"{projection.path} has zero, negative, NaN or infinite values as scales of its scaler. Get it again."
        )
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy lets go of the lock
        sums = list(pool.map(_sum, (projection.mean, *projection.components)))
    if not np.isfinite(sums).all():
        raise CorruptedFileError(f"{projection.path} has NaN or infinite values. Get the file again.")


def _sum(row: Floats) -> float:
    """Not finite if a value is not; copied in blocks, because numpy is slow with numbers at odd addresses."""
    with np.errstate(over="ignore", invalid="ignore"):
        return sum(float(row[columns].astype(np.float32).sum()) for columns in _blocks(len(row)))
