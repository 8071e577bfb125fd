"""Networks of torchvision, with the weights that it publishes."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, did_you_mean
from berg.features.checkpoints import checkpoints_folder
from berg.features.drawn_network import drawn_network, seed_of
from berg.features.video_transforms import VideoPreset

_OPTIONS: dict[str, dict[str, Any]] = {  # what torchvision sets itself when it makes them with these weights
    "googlenet": {"transform_input": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")  # norm.1 is called norm1 in today's DenseNet


def read_network(name: str, weights: str) -> tuple[nn.Module, Any]:
    """A torchvision network with its pretrained weights, and the preset transform of those weights.

    The weights ``seed-NUMBER`` are drawn (`berg.features.drawn_network`); their transform is that of the first
    weights that torchvision published for the network.
    """
    if (seed := seed_of(weights)) is not None:
        return drawn_network(name, seed), _preset(name, _weights_entry(name, _first_weights(name)))
    entry = _weights_entry(name, weights)
    path = weights_file(entry.url)
    if not path.is_file():
        raise MissingFileError(
            f"The {_trained_on(weights)} weights of {name} ({weights}) are not on this machine: torchvision looks for "
            f"{path}. "
            f"Get them from {entry.url} and put them there, or set TORCH_HOME to the folder with them."
        )
    with torch.device("meta"), NoFirstWeights():
        network = torchvision.models.get_model(name, **_OPTIONS.get(name, {}))
    return with_weights(network, path, f"the weights of {name}", "Delete it and get it again."), _preset(name, entry)


def make_network(name: str, weights: str = "") -> tuple[nn.Module, Any]:
    """The network without weights, to look at its layers, and the preset transform of its weights."""
    drawn = seed_of(weights) is not None
    entry = _weights_entry(name, _first_weights(name) if drawn or not weights else weights)
    with torch.device("meta"), NoFirstWeights():
        network = torchvision.models.get_model(name, **_OPTIONS.get(name, {}))
    return network, _preset(name, entry)


def with_weights(network: nn.Module, path: Path, content: str, fix: str) -> nn.Module:
    """A network without weights, given those of a file; mapped into memory if the format allows it.

    Raises
    ------
    CorruptedFileError
        If the file does not hold `content`; it says how to fix it.
    """
    try:
        mapped = zipfile.is_zipfile(path)  # torch's older format cannot be mapped
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        network.load_state_dict({_OLD_NAME.sub(r"\1\2.", key): state[key] for key in state}, assign=True)
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CorruptedFileError(f"{path} does not hold {content}: {reason} {fix}") from error
    return network


class NoFirstWeights(TorchFunctionMode):
    """Make networks without drawing the random weights that are replaced at once."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def weights_file(url: str) -> Path:
    """The file in which torchvision keeps what it fetched from a url."""
    return checkpoints_folder() / url.rsplit("/", 1)[-1]


def network_file(name: str, weights: str) -> tuple[str, str, str] | None:
    """Url, path on this machine and first digits of the sha256 of a network's weights; None if they are drawn."""
    if seed_of(weights) is not None:
        return None
    url = _weights_entry(name, weights).url
    return url, str(weights_file(url)), published_hash(url)


def published_hash(url: str) -> str:
    """The first digits of the sha256 of a file, which torchvision writes into its name.

    >>> published_hash("https://download.pytorch.org/models/vit_b_32-d86f8d99.pth")
    'd86f8d99'
    """
    return url.rpartition("-")[2].partition(".")[0]


def _trained_on(weights: str) -> str:
    return "Kinetics" if weights.startswith("KINETICS") else "ImageNet"


def _of_videos() -> list[str]:
    """The networks that classify videos."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models.video)
    return names


def _preset(name: str, entry: Any) -> Any:
    """How pictures, or videos, are brought to the input of a network with these weights."""
    stated = entry.transforms()
    if name not in _of_videos():
        return stated
    return VideoPreset(stated.resize_size, stated.crop_size, stated.interpolation, stated.mean, stated.std)


def _first_weights(name: str) -> str:
    _check_name(name)
    return str(next(iter(torchvision.models.get_model_weights(name).__members__)))


def _check_name(name: str) -> None:
    names = [*torchvision.models.list_models(module=torchvision.models), *_of_videos()]  # those that classify
    if name not in names:
        raise InvalidParameterError(f"torchvision has no network '{name}'.{did_you_mean(name, names)}")


def _weights_entry(name: str, weights: str) -> Any:
    _check_name(name)
    entries = torchvision.models.get_model_weights(name)
    if weights not in entries.__members__:
        allowed = ", ".join(entries.__members__)
        raise InvalidParameterError(f"{name} has no weights '{weights}'. Weights: {allowed}")
    return entries[weights]
