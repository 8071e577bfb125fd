"""What the published models compute, written slowly and plainly.

The steps are those of the published files, in their order and with their tools: torchvision's own
transform and feature extractor, scikit-learn's own scaler, PCA and regression, and for the
feature-weighted receptive fields (fwRF) one line of torch per line of the description. In float64
the result is the truth that any implementation should meet; in float32 it is what users had.

The published files leave two things open, settled here:

- ``as_trained`` crops the centre square and resizes it to 224 "with PIL". The crop is
  torchvision's (an odd remainder is rounded half to even), the filter is PIL's own default for
  ``Image.resize``, bicubic. ``resample`` chooses another.
- The uint8 resize of fwRF is that of ``torchvision.transforms.functional``: interpolated in
  float32, then rounded half to even.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchvision.transforms.functional as transforms
from numpy.typing import DTypeLike, NDArray
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import Conv2d, LayerNorm, Linear, MultiheadAttention
from torch.nn import functional as F
from torchvision.models import ViT_B_32_Weights, alexnet, vit_b_32
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.video import S3D_Weights, s3d

from .layouts import (
    ALEXNET_FILE,
    BACKBONE_FILE,
    BMD,
    EEG,
    FSAVERAGE,
    FWRF,
    FWRF_SPLIT_ROIS,
    REPEATS,
    S3D_FILE,
    model_folder,
)

Images = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Transform = Literal["preset", "as_trained"]

# The sum that leaves each block: the second of its two residual additions.
NODES = [f"encoder.layers.encoder_layer_{layer}.add_1" for layer in range(12)]
ALEXNET_NODES = [
    *("features.2", "features.5", "features.7", "features.9", "features.12"),
    *("classifier.2", "classifier.5", "classifier.6"),
]
S3D_NODES = [
    *("features.2", "features.5.cat", "features.7", "features.9.cat", "features.11.cat", "features.13", "avgpool"),
]
IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


# Images -> network input


def preset_transform(image: Images) -> Tensor:
    """Transform one image as the published package does: torchvision's preset.

    Parameters
    ----------
    image
        Shape (3, height, width).

    Returns
    -------
    input
        Shape (3, 224, 224), float32.
    """
    prepared: Tensor = ViT_B_32_Weights.IMAGENET1K_V1.transforms()(torch.from_numpy(image))
    return prepared


def as_trained_transform(
    image: Images,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Tensor:
    """Transform one image as the published training scripts did: centre square, PIL to 224.

    Parameters and returns as in `preset_transform`.
    """
    picture = Image.fromarray(image.transpose(1, 2, 0))
    square = transforms.center_crop(picture, min(picture.size))
    resized = np.array(square.resize((224, 224), resample))
    scaled = torch.from_numpy(resized).permute(2, 0, 1).to(torch.float32) / 255
    prepared: Tensor = transforms.normalize(scaled, IMAGENET_MEAN, IMAGENET_STD)
    return prepared


TRANSFORMS = {"preset": preset_transform, "as_trained": as_trained_transform}


# Network input -> features


@lru_cache(maxsize=1)
def read_backbone(torch_home: Path) -> torch.nn.Module:
    """Read ViT-B/32 from where torchvision keeps it, and cut it into its 12 block outputs.

    It computes in the dtype of what it is given, and lies in memory as float32. Kept for the next call: tracing takes
    seconds, and the traced network refers to itself, so that every forgotten one would stay until Python collects its
    garbage.
    """
    with torch.device("meta"):  # no time spent on first weights, no global random number drawn
        network = vit_b_32()
    state = torch.load(Path(torch_home, BACKBONE_FILE), weights_only=True, mmap=True)
    network.load_state_dict(state, assign=True)
    extractor: torch.nn.Module = create_feature_extractor(network.eval(), return_nodes=NODES)
    for layer in extractor.modules():
        if isinstance(layer, (Conv2d, LayerNorm, Linear, MultiheadAttention)):
            kept: list[Tensor] = []
            layer.register_forward_pre_hook(partial(_to_dtype_of_input, kept))
            layer.register_forward_hook(partial(_back_to_float32, kept))
    return extractor


def _to_dtype_of_input(kept: list[Tensor], layer: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
    for weights in layer.parameters():
        kept.append(weights.data)
        weights.data = weights.data.to(given[0].dtype)


def _back_to_float32(kept: list[Tensor], layer: torch.nn.Module, *_: Any) -> None:
    for weights in layer.parameters():
        weights.data = kept.pop(0)


def network_features(
    images: Images,
    torch_home: Path,
    *,
    transform: Transform = "preset",
    dtype: DTypeLike = np.float64,
    batch_size: int = 16,
) -> Floats:
    """Run the network over images, and lay all its layers side by side.

    Parameters
    ----------
    images
        Shape (n_images, 3, height, width).

    Returns
    -------
    features
        Shape (n_images, 460800): per image the layers in order, in a layer the tokens in order,
        in a token its 768 values.
    """
    extractor = read_backbone(torch_home)
    prepared = [TRANSFORMS[transform](image) for image in images]
    rows = [
        _flat_layers(extractor, torch.stack(batch).to(_torch_dtype(dtype))) for batch in _batches(prepared, batch_size)
    ]
    return np.concatenate(rows)


def _flat_layers(extractor: torch.nn.Module, batch: Tensor, nodes: list[str] = NODES) -> Floats:
    with torch.no_grad():
        outputs = extractor(batch)
    return np.concatenate([outputs[node].flatten(start_dim=1).numpy() for node in nodes], axis=1)


def alexnet_features(
    images: Images, torch_home: Path | None, *, dtype: DTypeLike = np.float64, seed: int = 20200220
) -> Floats:
    """Run AlexNet over images, and lay eight of its layers side by side.

    Parameters
    ----------
    images
        Shape (n_images, 3, height, width).
    torch_home
        Where its weights are; None for the untrained network, which is drawn from the seed as the published package
        does, and the random state put back.

    Returns
    -------
    features
        Shape (n_images, 205672).
    """
    if torch_home is None:
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        network = alexnet(weights=None)
        torch.set_rng_state(state)
    else:
        network = alexnet(weights=None)
        network.load_state_dict(torch.load(Path(torch_home, ALEXNET_FILE), weights_only=True))
    extractor = create_feature_extractor(network.eval(), return_nodes=ALEXNET_NODES).to(_torch_dtype(dtype))
    prepared = torch.stack([preset_transform(image) for image in images]).to(_torch_dtype(dtype))
    return _flat_layers(extractor, prepared, ALEXNET_NODES)


def s3d_features(clips: Images, torch_home: Path, *, cropped: bool = True, dtype: DTypeLike = np.float64) -> Floats:
    """Run S3D over 14 frames of videos, and lay seven of its layers side by side.

    Parameters
    ----------
    clips
        Shape (n_clips, n_frames, 3, height, width).
    cropped
        torchvision's preset; else scaled, normalised and resized to 256 x 256.

    Returns
    -------
    features
        Shape (n_clips, 4084096), or (n_clips, 5337088).
    """
    network = s3d()
    network.load_state_dict(torch.load(Path(torch_home, S3D_FILE), weights_only=True))
    extractor = create_feature_extractor(network.eval(), return_nodes=S3D_NODES).to(_torch_dtype(dtype))
    rows = []
    for clip in clips:
        frames = torch.from_numpy(clip[np.linspace(0, len(clip) - 1, 14, dtype=int)])
        if cropped:
            prepared = S3D_Weights.KINETICS400_V1.transforms()(frames)
        else:
            mean, std = [0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]
            normalised = transforms.normalize(frames.float() / 255, mean, std)
            prepared = transforms.resize(normalised, [256, 256], antialias=True).transpose(0, 1)
        rows.append(_flat_layers(extractor, prepared[None].to(_torch_dtype(dtype)), S3D_NODES))
    return np.concatenate(rows)


def bmd_responses(berg_dir: Path, subject: int, features: Floats, model_id: str = BMD) -> Floats:
    """Return the responses of all voxels: standardized, projected without centring, regressed.

    Parameters
    ----------
    features
        Shape (n_clips, n_features), float64.
    """
    folder = model_folder(berg_dir, model_id) / "encoding_models_weights"
    shared = np.load(folder / "pca_weights.npy", allow_pickle=True).item()
    weights = np.load(folder / f"weights_sub-{subject:02d}.npy", allow_pickle=True).item()
    standardized = (features - shared["scaler_param"]["mean_"]) / shared["scaler_param"]["scale_"]
    components = standardized @ shared["pca_param"]["components_"].astype(np.float64).T
    responses: Floats = components @ weights["coef_"].astype(np.float64).T + weights["intercept_"]
    return responses


def _batches(items: list[Tensor], size: int) -> Iterator[list[Tensor]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


# Features -> responses, by scikit-learn


def fsaverage_reference(
    berg_dir: Path,
    subject: int,
    images: Images,
    torch_home: Path,
    *,
    transform: Transform = "preset",
    dtype: DTypeLike = np.float64,
) -> tuple[Floats, Floats]:
    """Return the responses of all vertices to images.

    Parameters
    ----------
    images
        Shape (n_images, 3, height, width).
    dtype
        ``np.float64`` for the truth, ``np.float32`` for what the published package gives.

    Returns
    -------
    lh, rh
        Shape (n_images, n_vertices).
    """
    features = network_features(images, torch_home, transform=transform, dtype=dtype)
    return fsaverage_responses(read_weights(berg_dir, FSAVERAGE, subject), features)


def eeg_reference(
    berg_dir: Path,
    subject: int,
    images: Images,
    torch_home: Path,
    *,
    transform: Transform = "preset",
    dtype: DTypeLike = np.float64,
) -> Floats:
    """Return the responses of all channels to images, parameters as in `fsaverage_reference`.

    Returns
    -------
    responses
        Shape (n_images, 4, 63, 140): repeats, channels, times.
    """
    features = network_features(images, torch_home, transform=transform, dtype=dtype)
    return eeg_responses(read_weights(berg_dir, EEG, subject), features)


def read_weights(berg_dir: Path, model_id: str, subject: int) -> dict[str, Any]:
    """Unpickle the weights of one subject, whole."""
    folder = model_folder(berg_dir, model_id) / "encoding_models_weights"
    path = folder / f"weights_subject-{subject:02d}.npy"
    weights: dict[str, Any] = np.load(path, allow_pickle=True).item()
    return weights


def fsaverage_responses(weights: dict[str, Any], features: Floats) -> tuple[Floats, Floats]:
    """Return the responses of both hemispheres, in the dtype of the features."""
    components = _components(weights["scaler_param"], weights["pca_param"], features)
    lh = _predict(weights["lh_reg_param"], components)
    rh = _predict(weights["rh_reg_param"], components)
    return lh, rh


def eeg_responses(weights: dict[str, Any], features: Floats) -> Floats:
    """Return the responses of the four repeats, in the dtype of the features."""
    repeats = []
    for repeat in REPEATS:
        pca = weights["pca_param"].get(repeat, weights["pca_param"])
        components = _components(weights["scaler_param"], pca, features)
        responses = _predict(weights["reg_param"][repeat], components)
        repeats.append(responses.reshape(len(features), 63, 140))
    return np.stack(repeats, axis=1)


def one_readout(path: Path, features: Floats) -> Floats:
    """Return the responses of a file with one scaler, PCA and regression, shape (n_images, n_targets)."""
    weights = np.load(path, allow_pickle=True).item()
    return _predict(weights["reg_param"], _components(weights["scaler_param"], weights["pca_param"], features))


def _components(scaler: dict[str, Any], pca: dict[str, Any] | PCA, features: Floats) -> Floats:
    """Return the principal components of the standardized features."""
    attributes = pca if isinstance(pca, dict) else vars(pca)
    standardized = _filled(StandardScaler(), scaler, features.dtype).transform(features)
    components: Floats = _filled(PCA(), attributes, features.dtype).transform(standardized)
    return components.astype(features.dtype, copy=False)


def _predict(regression: dict[str, Any], components: Floats) -> Floats:
    estimator = _filled(LinearRegression(), regression, components.dtype)
    responses: Floats = estimator.predict(components)
    return responses.astype(components.dtype, copy=False)


def _filled(estimator: Any, attributes: dict[str, Any], dtype: DTypeLike) -> Any:
    """Set the attributes of an estimator, arrays in their own precision or `dtype` if finer.

    Left in float32, the product of the mean and the components of a PCA would be float32 too,
    and the truth in float64 be off in its eighth digit.
    """
    for name, value in attributes.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            value = value.astype(np.promote_types(value.dtype, dtype), copy=False)
        setattr(estimator, name, value)
    return estimator


# Feature-weighted receptive fields


def fwrf_reference(
    berg_dir: Path,
    subject: int,
    roi: str,
    images: Images,
    *,
    dtype: DTypeLike = np.float64,
) -> Floats:
    """Return the responses of the voxels of one ROI to images.

    Parameters
    ----------
    images
        Shape (n_images, 3, height, width).

    Returns
    -------
    responses
        Shape (n_images, n_voxels); for ``lateral`` and ``ventral`` the voxels of the first file,
        then those of the second.
    """
    name = f"weights_sub-{subject:02d}_roi-{roi}"
    suffixes = ["_split-1", "_split-2"] if roi in FWRF_SPLIT_ROIS else [""]
    folder = model_folder(berg_dir, FWRF) / "encoding_models_weights"
    paths = [folder / f"{name}{suffix}.pt" for suffix in suffixes]
    parts = [_fwrf_file_responses(path, subject, images, dtype) for path in paths]
    return np.concatenate(parts, axis=1)


def _fwrf_file_responses(path: Path, subject: int, images: Images, dtype: DTypeLike) -> Floats:
    best_params = torch.load(path, weights_only=False)["best_params"]
    encoder = _cast(best_params["enc"], dtype)
    readout = _cast(best_params["fwrfs"][subject], dtype)
    responses = []
    for image in images:
        maps = gnet_maps(encoder, fwrf_input(image, encoder["mu"]))
        responses.append(fwrf_readout(readout, [feature_map[0] for feature_map in maps]))
    return torch.stack(responses).numpy()


def _cast(state: dict[str, Tensor], dtype: DTypeLike) -> dict[str, Tensor]:
    return {name: tensor.to(_torch_dtype(dtype)) for name, tensor in state.items()}


def fwrf_input(image: Images, mu: Tensor) -> Tensor:
    """Return one image of shape (3, height, width) as the network takes it: (1, 3, 227, 227)."""
    resized: Tensor = transforms.resize(torch.from_numpy(image), [227, 227], antialias=True)
    return resized[None].to(mu.dtype) / 255 - mu


def gnet_maps(enc: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Return the three feature maps of the GNet encoder.

    Parameters
    ----------
    enc
        The state dict of the encoder.
    x
        Shape (n_images, 3, 227, 227).

    Returns
    -------
    maps
        Shapes (n_images, 256, 27, 27), (n_images, 256, 25, 25), (n_images, 256, 13, 13).
    """
    conv1 = F.conv2d(x, enc["pre.conv1.0.weight"], enc["pre.conv1.0.bias"], stride=4, padding=2)
    c1 = F.max_pool2d(F.relu(conv1), kernel_size=3, stride=2)
    y = F.relu(F.conv2d(c1, enc["pre.conv2.0.weight"], enc["pre.conv2.0.bias"], padding=2))
    c3 = _normalised_conv(enc, "enc.bn1", "enc.conv3", y, padding=0)
    c4a = _trunk_block(enc, "conv4a", c3)
    c4b = _trunk_block(enc, "conv4b", c4a)
    pooled = F.max_pool2d(c4b, kernel_size=3, stride=2, padding=1)
    c5a = _trunk_block(enc, "conv5a", pooled)
    c5b = _trunk_block(enc, "conv5b", c5a)
    c6a = _trunk_block(enc, "conv6a", c5b)
    c6b = _trunk_block(enc, "conv6b", c6a)
    return [
        torch.cat([c1, y], dim=1),
        torch.cat([c3, c4a[:, :64], c4b[:, :64]], dim=1),
        torch.cat([c5a[:, :64], c5b[:, :64], c6a[:, :64], c6b], dim=1),
    ]


def _trunk_block(enc: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return _normalised_conv(enc, f"enc.{name}.bn1", f"enc.{name}.conv1", x, padding=1)


def _normalised_conv(
    enc: dict[str, Tensor],
    norm: str,
    conv: str,
    x: Tensor,
    padding: int,
) -> Tensor:
    """Return ReLU(conv(batch norm(x))); the dropout between the two is off when encoding."""
    mean, variance = enc[f"{norm}.running_mean"], enc[f"{norm}.running_var"]
    scale, shift = enc[f"{norm}.weight"], enc[f"{norm}.bias"]
    x = F.batch_norm(x, mean, variance, scale, shift, training=False, eps=1e-5)
    return F.relu(F.conv2d(x, enc[f"{conv}.weight"], enc[f"{conv}.bias"], padding=padding))


def fwrf_readout(readout: dict[str, Tensor], maps: list[Tensor]) -> Tensor:
    """Return the responses of voxels to one image, from its feature maps.

    With s(x) = log(1 + |x|) tanh(x) and g_k = softmax(rf_k) over all pixels,
    phi_k = sum over pixels of g_k s(map_k), and response = sum over channels of w s(phi) + b
    (St-Yves & Naselaris 2018).

    Parameters
    ----------
    readout
        The state dict of a readout: ``rf0``, ``rf1``, ``rf2``, ``w``, ``b``.
    maps
        Three, each of shape (n_channels, height, width), 768 channels together.

    Returns
    -------
    responses
        Shape (n_voxels,).
    """
    phi = []
    for k, feature_map in enumerate(maps):
        g = torch.softmax(readout[f"rf{k}"].flatten(start_dim=1), dim=1)  # (n_voxels, n_pixels)
        phi.append(g @ compress(feature_map).flatten(start_dim=1).T)  # (n_voxels, n_channels)
    return (readout["w"] * compress(torch.cat(phi, dim=1))).sum(dim=1) + readout["b"]


def compress(x: Tensor) -> Tensor:
    """Return s(x) = log(1 + |x|) tanh(x)."""
    return torch.log(1 + torch.abs(x)) * torch.tanh(x)


def _torch_dtype(dtype: DTypeLike) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
