"""The image towers of OpenCLIP, with the weights that it lists or a file of yours.

Ilharco et al. (2021), OpenCLIP. The network is one of ``open_clip.list_models()``: ``open_clip/ViT-B-32``. Its weights
are named by their tag, ``laion2b_s34b_b79k``, with ``@REVISION`` if wanted; or by a file or folder. Nodes are those of
the image tower: ``transformer.resblocks.11``. Code comes from the installed package alone.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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

_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TOWER = "visual."


def read_network(name: str, weights: str) -> tuple[nn.Module, PicturePreset]:
    """The image tower with its weights, and how pictures are brought to its input.

    Raises
    ------
    InvalidParameterError
        If OpenCLIP has no such network or weights, or the card states no hash of them.
    MissingFileError
        If the weights are not on this machine; nothing is downloaded here.
    CorruptedFileError
        If they are others than the card states, or of another network.
    MissingExtraError
        If OpenCLIP is not installed.
    """
    stated, configuration = _stated(name, weights)
    path = _weights_file(name, stated, configuration)
    check_hash(stated, [path], f"open_clip/{name}")
    tower = _tower(name, configuration)
    _load(tower, path, name)
    return tower, _preset(name, tower, configuration)


def make_network(name: str, weights: str = "") -> tuple[nn.Module, PicturePreset]:
    """The image tower with random weights, to look at its layers."""
    _check_name(name)
    configuration = _stated(name, weights)[1] if weights else {}
    tower = _tower(name, configuration)
    return tower, _preset(name, tower, configuration)


def network_file(name: str, weights: str) -> tuple[str, str, str] | None:
    """Url, path on this machine and first digits of the sha256 of weights on a hub; None for a file of yours."""
    stated, configuration = _stated(name, weights)
    if not configuration:
        return None
    repository, names, revision = _repository(name, stated, configuration)
    path = hub_file(repository, names, revision) or downloaded_file(repository, names[0], revision)
    return hub_url(repository, path.name, revision), str(path), stated.sha256


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as missing:
        raise MissingExtraError('Networks of OpenCLIP need it installed:  pip install "berg[open_clip]"') from missing
    return open_clip


def _check_name(name: str) -> None:
    names = _open_clip().list_models()
    if name not in names:
        raise InvalidParameterError(f"open_clip has no network '{name}'.{did_you_mean(name, names)}")


def _stated(name: str, weights: str) -> tuple[StatedWeights, Mapping[str, Any]]:
    """Where the weights are, and what OpenCLIP says of them if it lists them."""
    _check_name(name)
    stated = parse_weights(weights)
    tags = _open_clip().list_pretrained_tags_by_model(name)
    tag = stated.place.partition("@")[0]
    if tag in tags:
        return stated, _open_clip().get_pretrained_cfg(name, tag)
    if "/" in tag or Path(tag).expanduser().exists():
        return stated, {}
    raise InvalidParameterError(
        f"open_clip/{name} has no weights '{tag}', and there is no such file.{did_you_mean(tag, tags)} "
        f"Weights: {', '.join(tags) or 'none'}; or the path of a file."
    )


def _repository(name: str, stated: StatedWeights, listed: Mapping[str, Any]) -> tuple[str, tuple[str, ...], str]:
    """Repository, files and revision on the hub."""
    repository, _, file = str(listed.get("hf_hub", "")).rpartition("/")
    if not repository:
        raise InvalidParameterError(
            f"open_clip/{name} has its weights '{stated.place}' on no hub. Get {listed.get('url')} and write the path "
            "of the file."
        )
    return repository, (file,) if file else _FILES, stated.place.partition("@")[2] or "main"


def _weights_file(name: str, stated: StatedWeights, listed: Mapping[str, Any]) -> Path:
    if not listed:
        return local_file(stated.place, _FILES, f"open_clip/{name}")
    repository, names, revision = _repository(name, stated, listed)
    found = hub_file(repository, names, revision)
    if found is None:
        raise MissingFileError(
            f"The weights {stated.place} of open_clip/{name} are not on this machine: neither the cache of "
            f"huggingface_hub nor {downloaded_file(repository, names[0], revision)} has them. Get them with  "
            f"berg download MODEL  or  hf download {repository} {names[0]}"
        )
    return found


def _tower(name: str, listed: Mapping[str, Any]) -> nn.Module:
    """The image tower; with the activation that its weights were trained with."""
    quick, theirs = bool(listed.get("quick_gelu")), bool(_open_clip().get_model_config(name).get("quick_gelu"))
    if listed and theirs and not quick:
        raise InvalidParameterError(
            f"open_clip/{name} computes with QuickGELU, and these weights were trained without. Write  "
            f"open_clip/{name.replace('-quickgelu', '')}"
        )
    with _quiet_root(), torch.random.fork_rng(devices=[]), NoFirstWeights():
        model = _open_clip().create_model(name, pretrained=None, force_quick_gelu=quick, pretrained_hf=False)
    tower: nn.Module = model.visual
    return tower


@contextmanager
def _quiet_root() -> Iterator[None]:
    """Without OpenCLIP's warning of random weights, which it gives to the root of logging and would set up with it."""
    root, level, silent = logging.getLogger(), logging.root.manager.disable, logging.NullHandler()
    root.addHandler(silent)
    logging.disable(max(level, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(level)
        root.removeHandler(silent)


def _load(tower: nn.Module, path: Path, name: str) -> None:
    """Give the tower its weights: all of them, and nothing that is not its own."""
    try:
        state = _state(path)
        tower.load_state_dict({key.removeprefix(_TOWER): state[key] for key in state if key.startswith(_TOWER)})
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CorruptedFileError(
            f"{path} does not hold the image tower of open_clip/{name}: {reason} Get it again, or name another file."
        ) from error


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        loaded: dict[str, Tensor] = load_file(path)
        return loaded
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("state_dict", content)
    return {key.removeprefix("module."): value for key, value in state.items()}


def _preset(name: str, tower: nn.Module, listed: Mapping[str, Any]) -> PicturePreset:
    """The transform that OpenCLIP evaluates with."""
    from open_clip.transform import PreprocessCfg

    named = {key: listed[key] for key in ("mean", "std", "interpolation", "resize_mode") if listed.get(key)}
    stated = PreprocessCfg(**named)
    size: Any = tower.image_size
    height, width = size if isinstance(size, tuple | list) else (size, size)
    if stated.resize_mode not in ("shortest", "squash") or height != width:
        raise InvalidParameterError(
            f"open_clip/{name} takes {height} x {width}, resized by '{stated.resize_mode}'; computed are square "
            "pictures, resized by shortest or squash. Take another network."
        )
    return PicturePreset(
        (height, width) if stated.resize_mode == "squash" else (height,),
        (height, width),
        interpolation_mode(stated.interpolation, f"open_clip/{name}"),
        three(stated.mean, f"open_clip/{name}"),
        three(stated.std, f"open_clip/{name}"),
    )
