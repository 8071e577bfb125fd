"""Networks whose weights are in no file: drawn from a seed, as an untrained control of a trained one.

A seed gives the same weights only as long as PyTorch draws and torchvision initialises as before, so what was drawn
is compared with a fingerprint: the first four numbers and the sum of two of its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
import torchvision
from torch import nn

from berg.core.exceptions import InvalidParameterError, ModelLoadError, listing

Fingerprint = tuple[tuple[float, float, float, float], float]

FINGERPRINTS: dict[tuple[str, int], dict[str, Fingerprint]] = {
    # the backbone of the published alexnet_untrained models, by PyTorch 2.14 and torchvision 0.29 on the CPU
    ("alexnet", 20200220): {
        "features.0.weight": ((0.01688758, 0.03049288, -0.01651424, -0.02520441), 4.2392646),
        "classifier.6.weight": ((-0.01007465, -0.00143904, 0.01148330, -0.00678069), -16.3366336),
    }
}
"""Tensor -> its first four numbers, and its sum in float64; by network and seed."""

_SEED = re.compile(r"seed-(\d{1,18})")
_NUMBER_TOLERANCE, _SUM_TOLERANCE = 2e-8, 1e-6  # the fingerprints are rounded to 8 and 7 digits after the point


def seed_of(weights: str) -> int | None:
    """The seed in the name of weights that are drawn.

    >>> seed_of("seed-20200220"), seed_of("IMAGENET1K_V1")
    (20200220, None)
    """
    found = _SEED.fullmatch(weights)
    return int(found[1]) if found else None


def drawn_network(name: str, seed: int) -> nn.Module:
    """A torchvision network with the weights that a seed gives; the user's own random state stays as it is.

    Raises
    ------
    InvalidParameterError
        If no fingerprint of this network and seed is known.
    ModelLoadError
        If the PyTorch that is installed draws other weights.
    """
    if (name, seed) not in FINGERPRINTS:
        known = listing(f"{each} seed-{number}" for each, number in FINGERPRINTS)
        raise InvalidParameterError(
            f"There is no fingerprint of {name} drawn from seed {seed}, so nobody could tell whether the same weights "
            f"were drawn. Known: {known}. Save the weights in a file, and name that in the card."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the user's GPUs too
        with torch.device("cpu"):
            network: nn.Module = torchvision.models.get_model(name, weights=None)
    check_fingerprint(network, FINGERPRINTS[name, seed], f"{name} drawn from seed {seed}")
    return network


def check_fingerprint(network: nn.Module, expected: Mapping[str, Fingerprint], what: str) -> None:
    """Raise ModelLoadError if the weights are not those of the fingerprint."""
    state = network.state_dict()
    for key, (first, total) in expected.items():
        values = state[key].double().flatten().numpy()
        if np.allclose(values[:4], first, 0, _NUMBER_TOLERANCE) and abs(values.sum() - total) < _SUM_TOLERANCE:
            continue
        raise ModelLoadError(
            f"{what} has other weights with PyTorch {torch.__version__} and torchvision {torchvision.__version__} than "
            f"those that the model was fitted on: {key} begins with {values[0]:.8f}, not {first[0]:.8f}, and sums to "
            f"{values.sum():.7f}, not {total:.7f}. Its responses would be wrong. Install the versions that drew them:  "
            'pip install "torch==2.14.*" "torchvision==0.29.*"'
        )
