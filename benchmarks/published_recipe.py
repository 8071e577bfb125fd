"""The published recipe, as plain as a user of the published package has it.

The other side of every benchmark: the whole weights file is unpickled, all images are prepared
before the first batch, batches of 100 go through torchvision's feature extractor, the layers are
laid side by side as 460,800 numbers per image, scikit-learn does the rest, and responses grow by
``np.append``. Nothing is slower than it needs to be within that recipe: the readout is cut to the
selected vertices or channels before it is used, and gradients are off.

Example
-------
>>> import numpy as np
>>> images = np.random.default_rng(0).integers(0, 256, (200, 3, 400, 400), dtype=np.uint8)
>>> model = load("fmri-nsd_fsaverage-vit_b_32", berg_dir, 1, roi="V1v")  # doctest: +SKIP
>>> lh, rh = encode(model, images)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

FSAVERAGE = "fmri-nsd_fsaverage-vit_b_32"
EEG = "eeg-things_eeg_2-vit_b_32"
FWRF_ID = "fmri-nsd-fwrf"

BATCH_SIZE = 100
NODES = [f"encoder.layers.encoder_layer_{layer}.add_1" for layer in range(12)]
ALEXNET_NODES = [
    *("features.2", "features.5", "features.7", "features.9", "features.12"),
    *("classifier.2", "classifier.5", "classifier.6"),
]
REPEATS = ("rep-1", "rep-2", "rep-3", "rep-4")

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Responses = Floats | tuple[Floats, ...]


def load(
    model_id: str,
    berg_dir: Path,
    subject: int,
    *,
    roi: str | None = None,
    channels: Sequence[str] | None = None,
    device: str = "cpu",
) -> LinearizingModel | FWRFModel:
    """Load one subject of a published model on NSD or THINGS EEG2.

    Parameters
    ----------
    roi
        Of the fMRI models; needed for ``fmri-nsd-fwrf``, all vertices without it otherwise.
    channels
        Of the EEG model; all 63 without it.
    """
    if model_id == FWRF_ID:
        return _load_fwrf(berg_dir, subject, str(roi), device)
    folder = _model_folder(berg_dir, model_id)
    weights = _unpickle(folder / f"encoding_models_weights/weights_subject-{subject:02d}.npy")
    metadata = _unpickle(folder / f"metadata/metadata_subject-{subject:02d}.npy")
    network = model_id.split("-")[2]
    if model_id.startswith("fmri-nsd_fsaverage"):
        return _load_fsaverage(weights, metadata, roi, device, network)
    return _load_eeg(weights, metadata, channels, device, network)


def encode(model: LinearizingModel | FWRFModel, images: Images) -> Responses:
    """Return the responses to images of shape (n_images, 3, height, width).

    Returns
    -------
    responses
        fsaverage: two arrays of shape (n_images, n_vertices); EEG: (n_images, 4, n_channels, 140);
        fwRF: (n_images, n_voxels).
    """
    if isinstance(model, FWRFModel):
        return encode_fwrf(model, images)
    return encode_linearizing(model, images)


def _model_folder(berg_dir: Path, model_id: str) -> Path:
    modality, dataset, model = model_id.split("-")
    parts = (f"modality-{modality}", f"train_dataset-{dataset}", f"model-{model}")
    return Path(berg_dir, "encoding_models", *parts)


def _unpickle(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = np.load(path, allow_pickle=True).item()
    return content


# Linear readouts on network features


@dataclass
class LinearizingModel:
    """A feature extractor, and scikit-learn estimators filled from the weights.

    Each readout has a PCA (by index) and a regression; `shape` is that of a stimulus's responses
    in one readout.
    """

    extractor: nn.Module
    transform: Callable[[Tensor], Tensor]
    nodes: list[str]
    scaler: StandardScaler
    pcas: list[PCA]
    readouts: list[tuple[int, LinearRegression]]
    shape: tuple[int, ...]
    stacked: bool
    device: str


def _load_fsaverage(
    weights: dict[str, Any], metadata: dict[str, Any], roi: str | None, device: str, network: str
) -> LinearizingModel:
    readouts = []
    for hemisphere in ("lh", "rh"):
        selected: Any = slice(None)
        if roi is not None:
            selected = metadata["fmri"][f"{hemisphere}_fsaverage_rois"][roi]
        readouts.append((0, _regression(weights[f"{hemisphere}_reg_param"], selected)))
    pcas = [_filled(PCA(), weights["pca_param"])]
    return _linearizing(weights, pcas, readouts, (-1,), False, device, network)


def _load_eeg(
    weights: dict[str, Any],
    metadata: dict[str, Any],
    channels: Sequence[str] | None,
    device: str,
    network: str,
) -> LinearizingModel:
    names = list(metadata["eeg"]["ch_names"])
    n_times = len(metadata["eeg"]["times"])
    rows = [names.index(channel) for channel in channels or names]
    selected = np.arange(len(names) * n_times).reshape(len(names), n_times)[rows].ravel()
    pcas = _eeg_pcas(weights["pca_param"])
    readouts = [
        (i % len(pcas), _regression(weights["reg_param"][repeat], selected)) for i, repeat in enumerate(REPEATS)
    ]
    return _linearizing(weights, pcas, readouts, (len(rows), n_times), True, device, network)


def _eeg_pcas(param: dict[str, Any]) -> list[PCA]:
    """Return the one PCA of all repeats, or one for each."""
    if "components_" in param:
        return [_filled(PCA(), param)]
    per_repeat = [param[repeat] for repeat in REPEATS]
    return [_filled(PCA(), pca) if isinstance(pca, dict) else pca for pca in per_repeat]


def _linearizing(
    weights: dict[str, Any],
    pcas: list[PCA],
    readouts: list[tuple[int, LinearRegression]],
    shape: tuple[int, ...],
    stacked: bool,
    device: str,
    network: str,
) -> LinearizingModel:
    backbone = torchvision.models.get_model_weights(network)["IMAGENET1K_V1"]
    nodes = NODES if network == "vit_b_32" else ALEXNET_NODES
    loaded = torchvision.models.get_model(network, weights=backbone).eval()
    extractor = create_feature_extractor(loaded, return_nodes=nodes).to(device)
    scaler = _filled(StandardScaler(), weights["scaler_param"])
    transform = backbone.transforms()
    return LinearizingModel(extractor, transform, nodes, scaler, pcas, readouts, shape, stacked, device)


def _regression(param: dict[str, Any], selected: Any) -> LinearRegression:
    cut = {key: param[key][selected] for key in ("coef_", "intercept_")}
    return _filled(LinearRegression(), cut | {"n_features_in_": param["n_features_in_"]})


def _filled(estimator: Any, attributes: dict[str, Any]) -> Any:
    for name, value in attributes.items():
        setattr(estimator, name, value)
    return estimator


@torch.no_grad()
def encode_linearizing(model: LinearizingModel, images: Images) -> Responses:
    """Return responses of a linear readout on network features; see `encode`."""
    prepared = model.transform(torch.from_numpy(images))  # all of them: 602 kB an image
    grown: list[Floats] = []
    for start in range(0, len(prepared), BATCH_SIZE):
        features = _features(model, prepared[start : start + BATCH_SIZE])
        responses = _respond(model, features)
        grown = [np.append(old, new, 0) for old, new in zip(grown, responses, strict=True)] if grown else responses
    return np.stack(grown, axis=1) if model.stacked else tuple(grown)


def _features(model: LinearizingModel, batch: Tensor) -> Floats:
    outputs = model.extractor(batch.to(model.device))
    flat = [torch.flatten(outputs[node], start_dim=1).cpu().numpy() for node in model.nodes]
    return np.concatenate(flat, axis=1)  # (n_images, 460800) of ViT-B/32


def _respond(model: LinearizingModel, features: Floats) -> list[Floats]:
    standardized = model.scaler.transform(features)
    components = [pca.transform(standardized) for pca in model.pcas]
    responses = []
    for pca, regression in model.readouts:
        response = regression.predict(components[pca]).astype(np.float32)
        responses.append(response.reshape(len(features), *model.shape))
    return responses


# Feature-weighted receptive fields


class TrunkBlock(nn.Module):
    """ReLU(convolution(dropout(batch norm(x))))."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, kernel_size=3, padding=1)
        self.drop1 = nn.Dropout2d()
        self.bn1 = nn.BatchNorm2d(n_in)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv1(self.drop1(self.bn1(x))))


class Pre(nn.Module):
    """The first two convolutions, of which both outputs are feature maps."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2)
        self.conv1 = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2))
        self.conv2 = nn.Sequential(nn.Conv2d(64, 192, kernel_size=5, padding=2), nn.ReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c1 = self.conv1(x)
        return c1, self.conv2(c1)


class Trunk(nn.Module):
    """The third convolution and the six trunk blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(192)
        self.drop1 = nn.Dropout2d()
        self.conv3 = nn.Conv2d(192, 128, kernel_size=3)
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.conv4a = TrunkBlock(128, 128)
        self.conv4b = TrunkBlock(128, 128)
        self.conv5a = TrunkBlock(128, 128)
        self.conv5b = TrunkBlock(128, 128)
        self.conv6a = TrunkBlock(128, 128)
        self.conv6b = TrunkBlock(128, 64)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        c3 = torch.relu(self.conv3(self.drop1(self.bn1(y))))
        c4a = self.conv4a(c3)
        c4b = self.conv4b(c4a)
        c5a = self.conv5a(self.pool1(c4b))
        c5b = self.conv5b(c5a)
        c6a = self.conv6a(c5b)
        second = torch.cat([c3, c4a[:, :64], c4b[:, :64]], dim=1)
        third = torch.cat([c5a[:, :64], c5b[:, :64], c6a[:, :64], self.conv6b(c6a)], dim=1)
        return second, third


class GNet(nn.Module):
    """The encoder: images to three feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(1, 3, 227, 227), requires_grad=False)
        self.pre = Pre()
        self.enc = Trunk()

    def forward(self, x: Tensor) -> list[Tensor]:
        c1, y = self.pre(x - self.mu)
        return [torch.cat([c1, y], dim=1), *self.enc(y)]


class FWRF(nn.Module):
    """The readout of one ROI: feature maps to responses of voxels."""

    def __init__(self, n_voxels: int) -> None:
        super().__init__()
        self.rf0 = nn.Parameter(torch.zeros(n_voxels, 27, 27))
        self.rf1 = nn.Parameter(torch.zeros(n_voxels, 25, 25))
        self.rf2 = nn.Parameter(torch.zeros(n_voxels, 13, 13))
        self.w = nn.Parameter(torch.zeros(n_voxels, 768))
        self.b = nn.Parameter(torch.zeros(n_voxels))

    def forward(self, maps: list[Tensor]) -> Tensor:
        phi = []
        for rf, feature_map in zip((self.rf0, self.rf1, self.rf2), maps, strict=True):
            g = torch.softmax(torch.flatten(rf, start_dim=1), dim=1)
            f = torch.flatten(_compress(feature_map), start_dim=2)
            phi.append(torch.tensordot(g, f, dims=[[1], [2]]))  # (n_voxels, n_images, n_channels)
        compressed = _compress(torch.cat(phi, dim=2))
        return torch.bmm(compressed, self.w.unsqueeze(2)).squeeze(2).T + self.b


def _compress(x: Tensor) -> Tensor:
    return torch.log(1 + torch.abs(x)) * torch.tanh(x)


@dataclass
class FWRFModel:
    """A network and a readout per weights file: two for ``lateral`` and ``ventral``."""

    parts: list[tuple[GNet, FWRF]]
    device: str


def _load_fwrf(berg_dir: Path, subject: int, roi: str, device: str) -> FWRFModel:
    folder = _model_folder(berg_dir, FWRF_ID) / "encoding_models_weights"
    suffixes = ("_split-1", "_split-2") if roi in ("lateral", "ventral") else ("",)
    parts = []
    for suffix in suffixes:
        path = folder / f"weights_sub-{subject:02d}_roi-{roi}{suffix}.pt"
        best_params = torch.load(path, map_location=device, weights_only=False)["best_params"]
        parts.append(_fwrf_part(best_params, subject, device))
    return FWRFModel(parts, device)


def _fwrf_part(best_params: dict[str, Any], subject: int, device: str) -> tuple[GNet, FWRF]:
    encoder, state = GNet(), best_params["fwrfs"][subject]
    encoder.load_state_dict(best_params["enc"])
    readout = FWRF(len(state["b"]))
    readout.load_state_dict(state)
    return encoder.eval().to(device), readout.eval().to(device)


@torch.no_grad()
def encode_fwrf(model: FWRFModel, images: Images) -> Floats:
    """Return responses of feature-weighted receptive fields; see `encode`."""
    resize = torchvision.transforms.functional.resize
    resized: Tensor = resize(torch.from_numpy(images), [227, 227], antialias=True)
    prepared = resized.to(torch.float32) / 255  # all of them: 618 kB an image
    return np.concatenate([_encode_part(*part, prepared, model.device) for part in model.parts], 1)


def _encode_part(encoder: GNet, readout: FWRF, prepared: Tensor, device: str) -> Floats:
    grown: Floats | None = None
    for start in range(0, len(prepared), BATCH_SIZE):
        batch = prepared[start : start + BATCH_SIZE].to(device)
        responses = readout(encoder(batch)).cpu().numpy()
        grown = responses if grown is None else np.append(grown, responses, 0)
    assert grown is not None, "no image"
    return grown
