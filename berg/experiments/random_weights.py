"""The same model with random weights: what a map of the real one must differ from."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from berg.models.encoding_model import EncodingModel

_WHOLE = 10_000_000  # values; larger tensors are shuffled axis by axis, which needs no index of each value


def with_random_weights(model: EncodingModel, seed: int) -> EncodingModel:
    """A copy whose weights are shuffled within each tensor of network and readout; the model itself stays as it is.

    A module with a method ``draw_anew(rng)`` says itself what random weights are: of a readout with places in the
    visual field, other places.
    """
    rng = np.random.default_rng(seed)
    copied = copy.copy(model)
    features, readout = model.loaded_modules()
    copied.features, copied.readout = (_shuffled(copy.deepcopy(half), rng) for half in (features, readout))
    return copied


def _shuffled(module: torch.nn.Module, rng: np.random.Generator) -> torch.nn.Module:
    own: Any = getattr(module, "draw_anew", None)
    with torch.no_grad():
        if own is not None:
            own(rng)
            return module
        for child in module.children():
            _shuffled(child, rng)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point() and tensor.numel() > 1:
                tensor.copy_(_mixed(tensor, rng))
    return module


def _mixed(tensor: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    if tensor.numel() <= _WHOLE:
        order = torch.from_numpy(rng.permutation(tensor.numel())).to(tensor.device)
        return tensor.reshape(-1)[order].reshape(tensor.shape)
    mixed = tensor
    for axis, length in enumerate(tensor.shape):
        mixed = mixed.index_select(axis, torch.from_numpy(rng.permutation(length)).to(tensor.device))
    return mixed
