"""Feature-weighted receptive fields on GNet, a convolutional network trained for the brain.

    picture -> GNet -> three groups of feature maps -> receptive field per voxel and group
            -> weight per channel -> responses

The network is in `features`, the readout in `readout` beside this file. If the card has a file per region of
interest (a selection key ``roi`` of kind ``file``), the voxels of a large one are split over several, each with its
own network; otherwise a subject has one file, and what is selected are voxels of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from berg.core.card_schema import CardPart
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, listing
from berg.core.model_card import ModelCard
from berg.core.unit_labels import axis_length, look_up
from berg.families.fwrf.features import MAP_SIZES, WIDTH, GNet, n_channels
from berg.families.fwrf.readout import FeatureWeightedReceptiveField
from berg.features.compiling import check_compiler
from berg.features.precision import dtype_of
from berg.models.encoding_model import EncodingModel
from berg.weights import model_files
from berg.weights.pt_files import read_pt
from berg.weights.safetensors_files import read_safetensors

RECEPTIVE_FIELDS = ("rf0", "rf1", "rf2")


class Features(CardPart):
    """What the card says under ``features``."""

    extractor: Literal["gnet"]


class Readout(CardPart):
    """What the card says under ``readout``."""

    steps: list[str]
    splits: dict[str, int] = {}  # region -> how many files its voxels are split over


class FWRFModel(EncodingModel):
    """Voxels of one or several regions of interest, in the order of the regions given."""

    batch_size = 16

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The networks of all files, and the readout of each."""
        self.card.part("features", Features)
        if self.parameters["compile"]:
            check_compiler()
        dtype = dtype_of(self.parameters["precision"])
        parts = [self._part(path, dtype) for path in self.weights_paths(self.berg_dir, self.file_values)]
        n_voxels = sum(readout.n_voxels for _, readout in parts)
        expected = len(self.indices_of(self.card.outputs[0].name, "voxel"))
        if n_voxels != expected:
            raise CorruptedFileError(
                f"The weights of {self.card.model_id} for {self.file_values} have {n_voxels} voxels, its metadata "
                f"{expected}. Get both again."
            )
        return (
            Networks([network for network, _ in parts], dtype),
            Readouts([readout for _, readout in parts]),
        )

    @classmethod
    def weights_paths(cls, berg_dir: str | None, values: Mapping[str, Any], published: bool = False) -> list[Path]:
        """The files of the selected regions; without a selection, of all regions that are there."""
        if not has_file_per_region(cls.card):
            return super().weights_paths(berg_dir, values, published)
        if "roi" in values:
            return [path for each in values_per_roi(values) for path in cls._split_paths(berg_dir, each, published)]
        aliases = cls.card.select["roi"].aliases
        found, missing = [], None
        for roi in cls.card.selection_parameters["roi"].allowed or []:
            try:
                found += cls._split_paths(berg_dir, {**values, "roi": aliases.get(roi, roi)}, published)
            except MissingFileError as error:
                missing = error
        if missing is not None and not found:
            raise missing
        return list(dict.fromkeys(found))

    @classmethod
    def _split_paths(cls, berg_dir: str | None, values: Mapping[str, Any], published: bool) -> list[Path]:
        parts = cls._split_parts(values)
        return [model_files.weights_path(cls.card, berg_dir, values, part, published) for part in parts]

    @classmethod
    def file_names(cls, values: Mapping[str, Any]) -> list[str]:
        """The files of each region, some of which are split."""
        if not has_file_per_region(cls.card):
            return super().file_names(values)
        return [
            name
            for each in values_per_roi(values)
            for name in model_files.file_names(cls.card, each, cls._split_parts(each))
        ]

    @classmethod
    def _split_parts(cls, values: Mapping[str, Any]) -> list[str]:
        n_files = cls.card.part("readout", Readout).splits.get(values["roi"], 1)
        return [f"_split-{number}" for number in range(1, n_files + 1)] if n_files > 1 else [""]

    @classmethod
    def converted_tensors(cls, path: Path, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The states of the network and of the readout, under ``enc/`` and ``fwrf/``."""
        network, readout = read_weights(path, values["subject"])
        named = {f"enc/{name}": value for name, value in network.items()}
        named |= {f"fwrf/{name}": readout[name] for name in (*RECEPTIVE_FIELDS, "w", "b")}
        return {name: value.numpy() for name, value in named.items()}

    def _part(self, path: Path, dtype: torch.dtype) -> tuple[GNet, FeatureWeightedReceptiveField]:
        network_state, readout_state = read_weights(path, self.parameters.get("subject"))
        network = network_of(path, network_state)
        if not has_file_per_region(self.card):
            readout_state = self._selected(path, readout_state)
        fields = [readout_state[name] for name in RECEPTIVE_FIELDS]
        return network, FeatureWeightedReceptiveField(
            fields, readout_state["w"], readout_state["b"], dtype, self.parameters["compile"]
        )

    def _selected(self, path: Path, readout: dict[str, Tensor]) -> dict[str, Tensor]:
        """The rows of the selected voxels."""
        output = self.card.outputs[0].name
        n_expected, n_voxels = axis_length(self.card, output, "voxel", self.metadata), len(readout["b"])
        if n_voxels != n_expected:
            raise CorruptedFileError(f"{path} has {n_voxels} voxels, its metadata {n_expected}. Get both again.")
        rows = torch.from_numpy(self.indices_of(output, "voxel"))
        return {name: value[rows] for name, value in readout.items()}

    @classmethod
    def read_metadata(cls, berg_dir: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata of the region; of several, values per voxel side by side, the others as {region: value}."""
        if not has_file_per_region(cls.card):
            return super().read_metadata(berg_dir, values)
        each = {
            roi_values.get("roi", ""): model_files.read_metadata(
                model_files.metadata_path(cls.card, berg_dir, roi_values)
            )
            for roi_values in values_per_roi(values)
        }
        return with_roi_labels(each)

    def attributes(self) -> dict[str, Any]:
        """What the responses are of, and the volume that their i, j, k count in."""
        return {**super().attributes(), **_volume(self.metadata.get("fmri", {}))}


def has_file_per_region(card: ModelCard) -> bool:
    """Whether the file names of a card are made of the region of interest."""
    return "roi" in card.select and card.select["roi"].kind == "file"


def values_per_roi(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the file names of each selected region are made of."""
    roi = values.get("roi")
    if roi is None:
        return [dict(values)]
    rois = [roi] if isinstance(roi, str) else list(roi)
    if not rois or len(set(rois)) < len(rois):
        reason = "no ROI" if not rois else "an ROI twice (OVWFA and OWFA are the same)"
        raise InvalidParameterError(f"selection 'roi' names {reason}: {rois}. Try {{'roi': ['V1', 'V2']}}.")
    return [{**values, "roi": name} for name in rois]


def with_roi_labels(each: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """One metadata dict for the voxels of several regions, with the region of every voxel under ``fmri.roi``."""
    n_voxels = {roi: _count_voxels(roi, metadata) for roi, metadata in each.items()}
    if len(each) == 1:
        merged = dict(next(iter(each.values())))
    else:
        sections = next(iter(each.values()))
        merged = {key: _joined({roi: part.get(key, {}) for roi, part in each.items()}, n_voxels) for key in sections}
    labels = [roi for roi, count in n_voxels.items() for _ in range(count)]
    places = np.concatenate([_places(part["fmri"].get("roi_mask_volume"), n_voxels[roi]) for roi, part in each.items()])
    merged["fmri"] = {**merged["fmri"], "roi": np.array(labels, dtype="U"), **dict(zip("ijk", places.T, strict=True))}
    return merged


def _places(mask: Any, n_voxels: int) -> NDArray[np.intp]:
    """i, j, k of each voxel, shape (n_voxels, 3), in the order of ``volume[mask]``; -1 where the mask does not tell."""
    places = np.argwhere(mask) if isinstance(mask, np.ndarray) and mask.ndim == 3 else np.empty((0, 3), np.intp)
    return places if len(places) == n_voxels else np.full((n_voxels, 3), -1, np.intp)


def _volume(fmri: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of the volume and the affine from i, j, k to millimetres (16 numbers, row by row).

    Nothing where the regions differ in them.
    """
    found = (fmri.get(key) for key in ("roi_mask_volume", "fmri_affine"))
    masks, affines = ([*part.values()] if isinstance(part, Mapping) else [part] for part in found)
    shapes = {np.asarray(mask).shape for mask in masks}
    affine = np.asarray(affines[0])
    if (
        len(shapes) > 1
        or affine.shape != (4, 4)
        or not all(np.array_equal(np.asarray(other), affine) for other in affines)
    ):
        return {}
    return {"volume_shape": list(shapes.pop()), "fmri_affine": affine.astype(float).ravel().tolist()}


def _count_voxels(roi: str, metadata: Mapping[str, Any]) -> int:
    ceilings = look_up(metadata, "fmri.ncsnr")
    if not isinstance(ceilings, np.ndarray) or ceilings.ndim != 1:
        raise CorruptedFileError(
            f"The metadata of {roi} have no 'fmri.ncsnr' with one value per voxel. Get them again."
        )
    return len(ceilings)


def _joined(parts: Mapping[str, Mapping[str, Any]], n_voxels: Mapping[str, int]) -> dict[str, Any]:
    """Values per voxel one region after another; everything else as {region: value}."""
    joined: dict[str, Any] = {}
    for key in next(iter(parts.values())):
        values = {roi: part.get(key) for roi, part in parts.items()}
        per_voxel = all(
            isinstance(value, np.ndarray) and value.shape == (n_voxels[roi],) for roi, value in values.items()
        )
        joined[key] = np.concatenate(list(values.values())) if per_voxel else values
    return joined


class Networks(torch.nn.Module):
    """Pictures with values in [0, 255] -> the feature maps of each network."""

    def __init__(self, networks: list[GNet], dtype: torch.dtype) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleList(
            network.to(dtype).to(memory_format=torch.channels_last) for network in networks
        )

    def forward(self, pictures: Tensor) -> list[tuple[Tensor, ...]]:
        return [network(pictures) for network in self.networks]


class Readouts(torch.nn.Module):
    """The feature maps of each network -> the responses of all voxels, side by side."""

    def __init__(self, readouts: list[FeatureWeightedReceptiveField]) -> None:
        super().__init__()
        self.readouts = torch.nn.ModuleList(readouts)

    def forward(self, maps: list[tuple[Tensor, ...]]) -> tuple[Tensor]:
        responses = [readout(part) for readout, part in zip(self.readouts, maps, strict=True)]
        return (torch.cat(responses, dim=1),)


def network_of(path: Path, state: Mapping[str, Tensor]) -> GNet:
    """The network with the parameters of a file; it is as wide as they are.

    Raises
    ------
    CorruptedFileError
        If a parameter is missing, has a wrong shape, or is not finite.
    """
    with torch.device("meta"):  # no time for random first weights
        network = GNet(_width(state))
    _check_names_and_shapes(path, network.state_dict(), state)
    network.load_state_dict(state, assign=True)
    return network


def _width(network: Mapping[str, Any]) -> int:
    first = network.get("pre.conv1.0.bias")
    return len(first) if isinstance(first, Tensor) and first.ndim == 1 and len(first) else WIDTH


def read_network(path: Path) -> GNet:
    """The network in a weights file, whoever's voxels are with it.

    Raises
    ------
    CorruptedFileError
        As `read_weights`.
    """
    is_converted = path.suffix == ".safetensors"
    return network_of(path, _read_halves(path, None)[0] if is_converted else dict(_best_params(path)["enc"]))


def read_weights(path: Path, subject: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of the network and of the readout in one file, published or converted.

    Raises
    ------
    CorruptedFileError
        If a part is missing or has a wrong shape.
    """
    network, readout = _read_halves(path, subject)
    _check_readout(path, readout, 3 * n_channels(_width(network)))
    return network, readout


def _read_halves(path: Path, subject: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    if path.suffix != ".safetensors":
        return _published(path, subject)
    tensors = {name: torch.from_numpy(array) for name, array in read_safetensors(path).items()}
    network = {name.removeprefix("enc/"): value for name, value in tensors.items() if name.startswith("enc/")}
    readout = {name.removeprefix("fwrf/"): value for name, value in tensors.items() if name.startswith("fwrf/")}
    return network, readout


def _published(path: Path, subject: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    best = _best_params(path)
    if subject not in best["fwrfs"]:
        held = ", ".join(map(str, best["fwrfs"]))
        raise CorruptedFileError(f"{path} has no weights of subject {subject}; it has subject {held}.")
    return dict(best["enc"]), dict(best["fwrfs"][subject])


def _best_params(path: Path) -> dict[str, Any]:
    content = read_pt(path)
    best = content.get("best_params") if isinstance(content, dict) else None
    if not isinstance(best, dict) or not isinstance(best.get("enc"), dict) or not isinstance(best.get("fwrfs"), dict):
        raise CorruptedFileError(
            f"{path} has no best_params with 'enc' and 'fwrfs'; it is not a weights file of this model."
        )
    return best


def _check_readout(path: Path, readout: dict[str, Tensor], n_weights: int) -> None:
    bias = readout.get("b")
    n_voxels = len(bias) if isinstance(bias, Tensor) and bias.ndim == 1 else 0
    shapes = {"b": (), "w": (n_weights,), **{f"rf{group}": (size, size) for group, size in enumerate(MAP_SIZES)}}
    expected = {name: torch.empty((n_voxels, *shape), device="meta") for name, shape in shapes.items()}
    _check_names_and_shapes(path, expected, readout)


def _check_names_and_shapes(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Any]) -> None:
    """Each tensor is there with its shape, of numbers of its kind, all finite; and there is no other."""
    for name, tensor in expected.items():
        value = found.get(name)
        if not isinstance(value, Tensor) or value.shape != tensor.shape:
            shape = "not there" if value is None else f"of shape {tuple(getattr(value, 'shape', ()))}"
            raise CorruptedFileError(
                f"{path}: '{name}' is {shape}, expected {tuple(tensor.shape)}. Get the file again."
            )
        if value.is_floating_point() != tensor.is_floating_point():
            raise CorruptedFileError(f"{path}: '{name}' holds {value.dtype} numbers. Get the file again.")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CorruptedFileError(f"{path}: '{name}' has NaN or infinite values. Get the file again.")
    if unknown := sorted(map(str, set(found) - set(expected))):
        raise CorruptedFileError(f"{path} has weights that this model does not know: {listing(unknown)}.")
