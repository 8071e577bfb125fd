"""Vision models of transformers, from the cache of the hub or a local folder, with the transform beside them.

Wolf et al. (2020), Transformers. ``transformers/facebook/dinov2-base``; of models of pictures and texts, such as CLIP,
the image tower. Code comes from the installed package alone: a model that brings its own is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from berg.core.exceptions import (
    CorruptedFileError,
    InvalidParameterError,
    MissingFileError,
    UnsafeFileError,
)
from berg.features import transformers_files
from berg.features.picture_preset import PicturePreset, interpolation_mode, three
from berg.features.stated_weights import check_hash, parse_weights
from berg.features.transformers_files import CONFIG, WHOLE

_PREPROCESSOR = "preprocessor_config.json"


def read_network(name: str, weights: str) -> tuple[nn.Module, PicturePreset]:
    """A vision model with its weights, and how pictures are brought to its input.

    Raises
    ------
    InvalidParameterError
        If it is no vision model, its transform is another than we compute, or the card states no hash.
    MissingFileError
        If its files are not on this machine; nothing is downloaded here.
    UnsafeFileError
        If it brings code of its own.
    CorruptedFileError
        If the files are others than the card states, or incomplete.
    MissingExtraError
        If transformers is not installed.
    """
    transformers_files.library()
    stated = parse_weights(weights)
    folder = _folder(name, weights)
    files = [folder / CONFIG, folder / _PREPROCESSOR, *transformers_files.weights_files(folder, name)]
    for file in files:
        if not file.is_file():
            raise MissingFileError(f"transformers/{name} has no {file.name} in {folder}. {_how_to_get(name)}")
    check_hash(stated, files, f"transformers/{name}")
    return _loaded(folder, name), _preset(folder, name)


def make_network(name: str, weights: str = "") -> tuple[nn.Module, PicturePreset]:
    """The model with random weights, to look at its layers; needs its two configurations alone."""
    folder = _folder(name, weights or "hub")
    return _without_weights(_configuration(folder, name)), _preset(folder, name)


def network_file(name: str, weights: str) -> None:
    """None: a model has several files, which its own tool gets; `read_network` says how."""


def _how_to_get(name: str) -> str:
    return f"Get it with:  hf download {name} {CONFIG} {_PREPROCESSOR} {WHOLE}"


def _folder(name: str, weights: str) -> Path:
    """The folder with the files of a model."""
    transformers_files.library()
    return transformers_files.model_folder([name], parse_weights(weights), _how_to_get(name))


def _configuration(folder: Path, name: str) -> Any:
    """The configuration of the vision model, or of the image tower."""
    transformers = transformers_files.library()
    stated = transformers_files.read_json(folder / CONFIG)
    known = stated.get("model_type") in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    if "auto_map" in stated and not known:
        raise UnsafeFileError(f"transformers/{name} brings code of its own, which is never run. Take another network.")
    try:
        whole = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise CorruptedFileError(f"{folder / CONFIG} is not understood by transformers: {error}") from error
    configuration = getattr(whole, "vision_config", whole)
    try:
        network = _without_weights(configuration)
    except ValueError:
        network = None
    if getattr(network, "main_input_name", "") != "pixel_values":
        raise InvalidParameterError(f"transformers/{name} is no model of pictures ({whole.model_type}).")
    return configuration


def _without_weights(configuration: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network: nn.Module = transformers_files.library().AutoModel.from_config(configuration)
    return network


def _loaded(folder: Path, name: str) -> nn.Module:
    transformers = transformers_files.library()
    configuration = _configuration(folder, name)
    options: dict[str, Any] = {
        "config": configuration,
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "dtype": torch.float32,
        "output_loading_info": True,
    }
    try:
        with transformers_files.quiet(transformers), torch.random.fork_rng(devices=[]):
            network, report = transformers.AutoModel.from_pretrained(folder, **options)
    except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptedFileError(f"{folder} does not hold transformers/{name}: {error} Get it again.") from error
    transformers_files.check_complete(network, report, folder)
    whole: nn.Module = network
    return whole


def _preset(folder: Path, name: str) -> PicturePreset:
    """The transform that the file beside the weights states."""
    stated = transformers_files.read_json(folder / _PREPROCESSOR)
    network = f"transformers/{name}"
    if stated.get("do_pad") or not stated.get("do_resize", True) or stated.get("rescale_offset"):
        raise InvalidParameterError(f"{network} pads, does not resize or shifts its pictures, which is not computed.")
    if abs(float(stated.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-6 or not stated.get("do_rescale", True):
        raise InvalidParameterError(f"{network} scales its pictures by {stated.get('rescale_factor')}, not by 1/255.")
    resize, crop = _sizes(stated, network)
    normalised = stated.get("do_normalize", True)
    return PicturePreset(
        resize,
        crop,
        interpolation_mode(Image.Resampling(stated.get("resample", 2)).name.lower(), network),
        three(stated["image_mean"], network) if normalised else (0.0,) * 3,
        three(stated["image_std"], network) if normalised else (1.0,) * 3,
    )


def _sizes(stated: Mapping[str, Any], network: str) -> tuple[tuple[int, ...], tuple[int, int]]:
    """To what pictures are resized, and what of them is kept."""
    size = stated.get("size")
    if isinstance(size, int):  # of old files; with a crop it is the shorter side
        size = {"shortest_edge": size} if stated.get("do_center_crop") else {"height": size, "width": size}
    match size:
        case {"shortest_edge": int(side)} if "crop_pct" in stated and "crop_size" not in stated:  # ConvNeXT
            if side >= 384:
                return (side, side), (side, side)
            return (int(side / float(stated["crop_pct"])),), (side, side)
        case {"shortest_edge": int(side)}:
            resize: tuple[int, ...] = (side,)
        case {"height": int(height), "width": int(width)}:
            resize = (height, width)
        case _:
            raise InvalidParameterError(f"{network} states the size of its pictures as {size}, which is not computed.")
    if not stated.get("do_center_crop"):
        if len(resize) == 1:
            raise InvalidParameterError(f"{network} takes pictures of any proportions, which is not computed.")
        return resize, (resize[0], resize[1])
    crop = stated.get("crop_size", size)
    both = (crop, crop) if isinstance(crop, int) else (crop.get("height"), crop.get("width"))
    if not all(isinstance(length, int) for length in both):
        raise InvalidParameterError(f"{network} crops its pictures to {crop}, which is not computed.")
    return resize, (int(both[0]), int(both[1]))
