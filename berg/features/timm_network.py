"""Networks of timm, with its published weights or a file of yours, and the transform that timm states for them.

Wightman (2019), PyTorch image models. The network is one of ``timm.list_models()``, with or without the tag of its
weights: ``timm/vit_small_patch14_dinov2.lvd142m``. Code comes from the installed package alone.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from berg.core.exceptions import (
    CorruptedFileError,
    InvalidParameterError,
    MissingExtraError,
    MissingFileError,
    did_you_mean,
)
from berg.features.picture_preset import PicturePreset, interpolation_mode, three
from berg.features.stated_weights import (
    StatedWeights,
    check_hash,
    downloaded_file,
    hub_file,
    hub_url,
    local_file,
    parse_weights,
)
from berg.features.torchvision_network import NoFirstWeights

_FILES = ("model.safetensors", "pytorch_model.bin")
_CONFIG = "config.json"
_PREPROCESSING = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "num_classes")


def read_network(name: str, weights: str) -> tuple[nn.Module, PicturePreset]:
    """A network of timm with its weights, and how pictures are brought to its input.

    Raises
    ------
    InvalidParameterError
        If timm has no such network, or the card states no hash of its weights.
    MissingFileError
        If the weights are not on this machine; nothing is downloaded here.
    CorruptedFileError
        If they are others than the card states, or of another network.
    MissingExtraError
        If timm is not installed.
    """
    _check_name(name)
    stated = parse_weights(weights)
    path = _weights_file(name, stated)
    configuration = path.parent / _CONFIG
    own = configuration if stated.revision is None and configuration.is_file() else None
    check_hash(stated, [path, own] if own else [path], f"timm/{name}")
    network = _loaded(name, path, _own_preprocessing(own) if own else {})
    return network, _preset(name, network)


def make_network(name: str, weights: str = "") -> tuple[nn.Module, PicturePreset]:
    """The network with random weights, to look at its layers."""
    _check_name(name)
    with torch.random.fork_rng(devices=[]), NoFirstWeights():
        network = _timm().create_model(name, pretrained=False)
    return network, _preset(name, network)


def network_file(name: str, weights: str) -> tuple[str, str, str] | None:
    """Url, path on this machine and first digits of the sha256 of weights on a hub; None for a file of yours."""
    _check_name(name)
    stated = parse_weights(weights)
    if stated.revision is None:
        return None
    repository, names = _repository(name)
    path = hub_file(repository, names, stated.revision) or downloaded_file(repository, names[0], stated.revision)
    return hub_url(repository, path.name, stated.revision), str(path), stated.sha256


def _timm() -> Any:
    try:
        import timm
    except ImportError as missing:
        raise MissingExtraError('Networks of timm need it installed:  pip install "berg[timm]"') from missing
    return timm


def _check_name(name: str) -> None:
    timm = _timm()
    names = timm.list_models()
    if name.partition(".")[0] not in names:
        raise InvalidParameterError(f"timm has no network '{name}'.{did_you_mean(name, names)}")
    tags = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
    if "." in name and name not in tags:
        raise InvalidParameterError(
            f"timm has no weights '{name}'.{did_you_mean(name, tags)} Weights: {', '.join(tags) or 'none'}"
        )


def _weights_file(name: str, stated: StatedWeights) -> Path:
    if stated.revision is None:
        return local_file(stated.place, _FILES, f"timm/{name}")
    repository, names = _repository(name)
    found = hub_file(repository, names, stated.revision)
    if found is None:
        raise MissingFileError(
            f"The weights of timm/{name} are not on this machine: neither the cache of huggingface_hub nor "
            f"{downloaded_file(repository, names[0], stated.revision)} has them. Get them with  berg download MODEL  "
            f"or  hf download {repository} {names[0]}"
        )
    return found


def _repository(name: str) -> tuple[str, tuple[str, ...]]:
    """The hub's repository of a network's weights, and the files that they may be in."""
    configuration = _timm().get_pretrained_cfg(name)
    repository = (configuration and configuration.hf_hub_id) or ""
    if not repository:
        raise InvalidParameterError(
            f"timm has no weights of '{name}' on a hub. Write the path of a file:  weights: /data/nets/{name}.pth"
        )
    return repository.rstrip("/"), (configuration.hf_hub_filename,) if configuration.hf_hub_filename else _FILES


def _own_preprocessing(path: Path) -> dict[str, Any]:
    """What the configuration beside the weights says of their pictures, and of their number of classes."""
    try:
        content = json.loads(path.read_text("utf-8"))
        stated = {**content, **content.get("pretrained_cfg", {})}
    except (ValueError, AttributeError, TypeError) as error:
        raise CorruptedFileError(f"{path} is not a configuration of timm: {error}. Get it again.") from error
    return {key: stated[key] for key in _PREPROCESSING if stated.get(key) is not None}


def _loaded(name: str, path: Path, own: Mapping[str, Any]) -> nn.Module:
    options = {"num_classes": own["num_classes"]} if "num_classes" in own else {}
    overlay = {**own, "file": str(path)}
    try:
        with torch.random.fork_rng(devices=[]), NoFirstWeights():
            network: nn.Module = _timm().create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CorruptedFileError(
            f"{path} does not hold the weights of timm/{name}: {reason} Get it again, or name another file."
        ) from error
    return network


def _preset(name: str, network: nn.Module) -> PicturePreset:
    """The transform that timm evaluates with."""
    stated = _timm().data.resolve_model_data_config(network)
    channels, height, width = stated["input_size"]
    if channels != 3 or height != width or stated["crop_mode"] not in ("center", "squash"):
        raise InvalidParameterError(
            f"timm/{name} takes {channels} x {height} x {width}, cropped by '{stated['crop_mode']}'; computed are "
            "square pictures of 3 channels, cropped by center or squash. Take another network."
        )
    side = math.floor(height / stated["crop_pct"])
    return PicturePreset(
        (side, side) if stated["crop_mode"] == "squash" else (side,),
        (height, width),
        interpolation_mode(stated["interpolation"], f"timm/{name}"),
        three(stated["mean"], f"timm/{name}"),
        three(stated["std"], f"timm/{name}"),
    )
