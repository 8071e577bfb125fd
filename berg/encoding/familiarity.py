"""Whether pictures are such as a model knows: distances of their features from those of other pictures.

Two sources say what is usual. Pictures that are given as a reference: the features of the model's network, the mean and
the standard deviation of each channel over the picture. Or the model's own file, where it keeps the variance of the
principal components over its training pictures: the distance is then that of the components that its readout uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2
from torch import Tensor

from berg.core.exceptions import InvalidParameterError
from berg.features.precision import arithmetic
from berg.models.batches import as_tensor
from berg.models.encoding_model import EncodingModel
from berg.statistics.familiarity import Familiar
from berg.stimuli.open import open_stimuli

Floats = NDArray[np.float64]
SHARE = 0.05


@dataclass(frozen=True)
class Judged:
    """Of each picture, shape (n_pictures,).

    Attributes
    ----------
    distance, neighbour
        See `berg.statistics.familiarity`; neighbours are NaN where no pictures are known.
    is_flagged
        Whether one of them lies beyond its limits.
    limits
        Lower and upper limit of the distance, upper limit of the distance to neighbours.
    """

    distance: Floats
    neighbour: Floats
    is_flagged: NDArray[np.bool_]
    limits: tuple[float, float, float]


class Familiarity(Protocol):
    """What is usual for a model."""

    def judge(self, model: EncodingModel, pictures: Any, share: float = SHARE) -> Judged:
        """Measure pictures; the limits let pass all but `share` of what is usual."""


@dataclass(frozen=True)
class ByReference:
    """Judges by pictures that were given."""

    familiar: Familiar

    def judge(self, model: EncodingModel, pictures: Any, share: float = SHARE) -> Judged:
        """By the features of the network."""
        low, high, farthest = self.familiar.limits(share)
        distance, neighbour = self.familiar.measure(pooled_features(model, pictures))
        is_flagged = (distance < low) | (distance > high) | (neighbour > farthest)
        return Judged(distance, neighbour, is_flagged, (low, high, farthest))


@dataclass(frozen=True)
class ByFile:
    """Judges by the variance of the components in the model's file.

    The limit is that of normal components: scores of photographs have longer tails, so that more of them are flagged
    than is said.
    """

    variance: Tensor  # (n_components,)

    def judge(self, model: EncodingModel, pictures: Any, share: float = SHARE) -> Judged:
        """By the components that the readout uses."""
        _, readout = model.loaded_modules()
        projection: Any = readout.projection
        scores = np.concatenate(
            [projection(layers)[:, 0].double().cpu().numpy() for layers in _features(model, pictures)]
        )
        variance = self.variance.double().numpy()
        distance = np.sqrt((scores**2 / variance).mean(1))
        limit = float(np.sqrt(chi2.ppf(1 - share, len(variance)) / len(variance)))
        return Judged(distance, np.full(len(scores), np.nan), distance > limit, (0.0, limit, float("nan")))


def familiarity(model: EncodingModel, reference: Any = None) -> Familiarity:
    """What is usual for a model: by reference pictures, or by what its file keeps.

    Raises
    ------
    InvalidParameterError
        If no pictures are given and the file keeps nothing.
    """
    if reference is not None:
        return ByReference(Familiar.of(pooled_features(model, reference)))
    _, readout = model.loaded_modules()
    variance = getattr(readout, "variance", None)
    if variance is None:
        raise InvalidParameterError(
            f"The files of {model.get_model_id()} do not keep what its training pictures were like. Give at least 50 "
            "pictures that are usual for it:  flag=berg.encoding.familiarity.familiarity(model, pictures)"
        )
    return ByFile(variance)


def pooled_features(model: EncodingModel, pictures: Any) -> Floats:
    """Mean and standard deviation of each channel over the picture; other features as they are.

    Returns
    -------
    features
        Shape (n_pictures, n_features).
    """
    parts = [
        torch.cat(list(_pooled(layers, model)), dim=1).double().cpu().numpy() for layers in _features(model, pictures)
    ]
    return np.concatenate(parts)


def _features(model: EncodingModel, pictures: Any) -> Iterator[Any]:
    features, _ = model.loaded_modules()
    opened = open_stimuli(pictures, model.expected_input)
    for start in range(0, len(opened), model.batch_size):
        batch = opened.read(slice(start, min(start + model.batch_size, len(opened))))
        with torch.no_grad(), arithmetic(model.precision, model.device):
            yield features(as_tensor(batch).to(model.device))


def _pooled(layers: Any, model: EncodingModel) -> Iterator[Tensor]:
    known: Any = model.features
    is_flat = hasattr(known, "shapes")  # layers of a network that come flat, and say what they were
    for number, layer in enumerate(_tensors(layers)):
        shape = known.shapes[known.nodes[number]] if is_flat else layer.shape[1:]
        maps = layer.reshape(len(layer), *shape).float()
        if maps.ndim == 4:  # channels first
            yield maps.mean((2, 3))
            yield maps.std((2, 3))
        elif is_flat and maps.ndim == 3:  # tokens first
            yield maps.mean(1)
            yield maps.std(1)
        else:
            yield maps.flatten(1)


def _tensors(layers: Any) -> Iterator[Tensor]:
    if isinstance(layers, Tensor):
        if layers.ndim > 1:
            yield layers
    elif isinstance(layers, (list, tuple)):
        for layer in layers:
            yield from _tensors(layer)
