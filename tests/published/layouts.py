"""Files in the published layouts, filled with random numbers.

Each ``write_`` function puts the weights and the metadata of one subject where a user of the
published package has them, and returns the path of the weights. The keys, shapes and dtypes are
the published ones; vertices, voxels and PCA components can be fewer, so that tests stay small. The
number of features cannot: it is given by the network.

Example
-------
>>> import tempfile
>>> from pathlib import Path
>>> import numpy as np
>>> with tempfile.TemporaryDirectory() as berg_dir:
...     path = write_fwrf(Path(berg_dir), 1, "V1", np.random.default_rng(0), n_voxels=3)
...     path.relative_to(berg_dir).as_posix().removeprefix("encoding_models/")
'modality-fmri/train_dataset-nsd/model-fwrf/encoding_models_weights/weights_sub-01_roi-V1.pt'
"""

from __future__ import annotations

import pickle
from collections.abc import Collection
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

FSAVERAGE = "fmri-nsd_fsaverage-vit_b_32"
EEG = "eeg-things_eeg_2-vit_b_32"
FWRF = "fmri-nsd-fwrf"
MEG = "meg-things_meg_1-vit_b_32"
THINGS_FMRI = "fmri-things_fmri_1-vit_b_32"
TVSD = "utah_array-tvsd-vit_b_32"
BOLD5000 = "fmri-bold5000-resnet18"
ALEXNET = {
    f"{data}-{network}"
    for data in ("fmri-nsd_fsaverage", "eeg-things_eeg_2")
    for network in ("alexnet", "alexnet_untrained")
}
ZOO = {*ALEXNET, MEG, THINGS_FMRI, TVSD, BOLD5000}
BMD = "fmri-bmd-s3d"
HUZE = "fmri-nsd_fsaverage-huze"

N_FEATURES = 12 * 50 * 768  # blocks x tokens x width of ViT-B/32
N_VERTICES = 163842
BACKBONE_FILE = "hub/checkpoints/vit_b_32-d86f8d99.pth"
ALEXNET_FILE = "hub/checkpoints/alexnet-owt-7be5be79.pth"
S3D_FILE = "hub/checkpoints/s3d-d76dad2f.pth"
RESNET_FILE = "hub/checkpoints/resnet18-f37072fd.pth"
BOLD5000_REGIONS = ("EarlyVis", "OPA", "LOC", "RSC", "PPA")
BOLD5000_AFFINE = np.array([[2.0, 0, 0, -67], [0, 2, 0, -106], [0, 0, 2, -49], [0, 0, 0, 1]])

FSAVERAGE_ROIS = (
    *("V1d", "V1v", "V2d", "V2v", "V3d", "V3v", "hV4"),
    *("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    *("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    *("OPA", "PPA", "RSC", "EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    *("early", "midventral", "midlateral", "midparietal", "parietal", "lateral", "ventral"),
)
FWRF_ROIS = (
    *("V1", "V2", "V3", "hV4", "EBA", "FBA-2", "OFA", "FFA-1", "FFA-2", "PPA", "RSC", "OPA"),
    *("OWFA", "VWFA-1", "VWFA-2", "mfs-words"),
    *("early", "midventral", "midlateral", "midparietal", "parietal", "lateral", "ventral"),
)
FWRF_SPLIT_ROIS = ("lateral", "ventral")
_CHANNEL_NAMES = """
    Fp1 F3 F7 FT9 FC5 FC1 C3 T7 TP9 CP5 CP1 Pz P3 P7 O1 Oz O2 P4 P8 TP10 CP6 CP2 Cz C4 T8 FT10
    FC6 FC2 F4 F8 Fp2 AF7 AF3 AFz F1 F5 FT7 FC3 FCz C1 C5 TP7 CP3 P1 P5 PO7 PO3 POz PO4 PO8 P6 P2
    CPz CP4 TP8 C6 C2 FC4 FT8 F6 F2 AF4 AF8
"""
EEG_CHANNELS = tuple(_CHANNEL_NAMES.split())
N_TIMES = 140
REPEATS = ("rep-1", "rep-2", "rep-3", "rep-4")

PCALayout = Literal["single", "per_repeat", "sklearn"]
Order = Literal["C", "F"]


def model_folder(berg_dir: Path, model_id: str) -> Path:
    """Return the folder of a model, which is its id in other words."""
    modality, dataset, model = model_id.split("-")
    parts = (f"modality-{modality}", f"train_dataset-{dataset}", f"model-{model}")
    return Path(berg_dir, "encoding_models", *parts)


def random_images(rng: np.random.Generator, n_images: int, height: int = 224, width: int = 224) -> NDArray[np.uint8]:
    """Draw images with coarse patches, fine noise and a contrast of their own.

    White noise alone would give nearly the same features for every image.

    Returns
    -------
    images
        Shape (n_images, 3, height, width).
    """
    images = np.empty((n_images, 3, height, width), dtype=np.uint8)
    rows, columns = np.arange(height) * 7 // height, np.arange(width) * 7 // width
    for image in images:
        coarse = rng.uniform(-1, 1, (3, 7, 7))[:, rows][..., columns]
        fine = rng.standard_normal((3, height, width))
        image[:] = (128 + rng.uniform(20, 120) * coarse + 15 * fine).clip(0, 255)
    return images


def write_pickled_npy(path: Path, content: dict[str, Any], numpy_1: bool = False) -> None:
    """Save a dict as `np.save` does: a pickled array of no dimensions.

    With `numpy_1`, in the words of numpy 1.x, which most published files were written with:
    pickle protocol 3, and the module ``numpy.core`` where numpy 2 says ``numpy._core``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not numpy_1:
        np.save(path, np.array(content, dtype=object), allow_pickle=True)
        return
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    pickled = pickle.dumps(np.array(content, dtype=object), protocol=3)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(pickled.replace(b"cnumpy._core.", b"cnumpy.core."))


# The backbone


def write_backbone(
    torch_home: Path,
    rng: np.random.Generator,
    published_names: bool = True,
) -> Path:
    """Write random weights of ViT-B/32 where torchvision looks for IMAGENET1K_V1.

    torchvision checks the hash of what it downloads, not of what is there already. With
    `published_names` the two linear layers of each MLP have the names of the published file
    (``linear_1``, ``linear_2``), which torchvision renames when it loads them.

    Returns
    -------
    path
        ``torch_home/hub/checkpoints/vit_b_32-d86f8d99.pth``, 353 MB.
    """
    path = Path(torch_home, BACKBONE_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: _vit_tensor(rng, name, shape) for name, shape in _vit_shapes().items()}
    torch.save({_mlp_name(name) if published_names else name: x for name, x in state.items()}, path)
    return path


def _vit_shapes() -> dict[str, tuple[int, ...]]:
    from torchvision.models import vit_b_32

    with torch.device("meta"):
        return {name: tuple(x.shape) for name, x in vit_b_32().state_dict().items()}


def _vit_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Draw one weight, such that each block adds about as much as it is given in variance / 5."""
    x = rng.standard_normal(shape, dtype=np.float32)
    if "ln" in name and name.endswith("weight"):
        return torch.from_numpy(1 + np.float32(0.1) * x)
    if len(shape) == 1:
        return torch.from_numpy(np.float32(0.1) * x)
    if name in ("class_token", "encoder.pos_embedding"):
        return torch.from_numpy(np.float32(0.3) * x)
    fan_in = np.prod(shape[1:])
    return torch.from_numpy(x / np.sqrt(fan_in, dtype=np.float32))


def _mlp_name(name: str) -> str:
    return name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.")


# Linear readouts on network features


@dataclass(frozen=True)
class FeatureStatistics:
    """What the published files keep of the features: `scaler_param` and `pca_param`."""

    scaler: dict[str, Any]
    pca: dict[str, Any]


def fitted_statistics(features: NDArray[np.float32], n_components: int = 8) -> FeatureStatistics:
    """Fit scikit-learn's own scaler and PCA to features.

    The PCA sees the last three quarters of the images only: its mean would be zero otherwise, and
    nobody would notice when it is forgotten.

    Parameters
    ----------
    features
        Shape (n_images, n_features); three quarters of the images outnumber the components.
    n_components
        How many principal components to keep; 250 in the published files.
    """
    scaler = _fitted_scaler(features)
    pca = PCA(n_components, svd_solver="full")
    pca.fit(scaler.transform(features[len(features) // 4 :]))
    return FeatureStatistics(_attributes(scaler, SCALER_KEYS), _attributes(pca, PCA_KEYS))


def random_statistics(
    rng: np.random.Generator,
    n_components: int = 250,
    features: NDArray[np.float32] | None = None,
    n_features: int = N_FEATURES,
) -> FeatureStatistics:
    """Draw nearly orthonormal components, for more components than there are images.

    Parameters
    ----------
    features
        Shape (n_images, n_features); the scaler and the variances are theirs. Without them the
        scaler is drawn too, and serves layouts only: no real feature is like it.
    """
    scaler = _random_scaler(rng, n_features) if features is None else _fitted_scaler(features)
    width = n_features if features is None else features.shape[1]
    components = rng.standard_normal((n_components, width), dtype=np.float32)
    components /= np.linalg.norm(components, axis=1, keepdims=True)
    variance = np.ones(n_components)
    if features is not None:
        variance = (scaler.transform(features) @ components.T).var(axis=0, dtype=np.float64)
    mean = np.float32(0.1) * rng.standard_normal(width, dtype=np.float32)
    pca = _pca_param(components, variance, mean, n_samples=73000)
    return FeatureStatistics(_attributes(scaler, SCALER_KEYS), pca)


SCALER_KEYS = ("scale_", "mean_", "var_", "n_features_in_", "n_samples_seen_")
PCA_KEYS = (
    *("components_", "mean_", "explained_variance_", "explained_variance_ratio_"),
    *("singular_values_", "n_components_", "n_samples_", "noise_variance_", "n_features_in_"),
)


def _attributes(estimator: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: getattr(estimator, key) for key in keys}


def _fitted_scaler(features: NDArray[np.float32]) -> StandardScaler:
    scaler = StandardScaler().fit(features)
    # Older scikit-learn kept a numpy integer, and so do the published files.
    scaler.n_samples_seen_ = np.int64(scaler.n_samples_seen_)
    return scaler


def _random_scaler(rng: np.random.Generator, n_features: int) -> StandardScaler:
    scaler = StandardScaler()
    scaler.mean_ = rng.standard_normal(n_features)
    scaler.var_ = rng.uniform(0.5, 2, n_features)
    scaler.scale_ = np.sqrt(scaler.var_)
    scaler.n_features_in_ = n_features
    scaler.n_samples_seen_ = np.int64(73000)
    return scaler


def _pca_param(
    components: NDArray[np.float32],
    variance: NDArray[np.float64],
    mean: NDArray[np.float32],
    n_samples: int,
) -> dict[str, Any]:
    n_components, n_features = components.shape
    return {
        "components_": components,
        "mean_": mean,
        "explained_variance_": variance.astype(np.float32),
        "explained_variance_ratio_": (variance / n_features).astype(np.float32),
        "singular_values_": np.sqrt(variance * (n_samples - 1)).astype(np.float32),
        "n_components_": n_components,
        "n_samples_": n_samples,
        "noise_variance_": np.float32(0.5),
        "n_features_in_": n_features,
    }


def _rotated(pca: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return another PCA of the same space: its components mixed by a random rotation."""
    n_components = len(pca["components_"])
    rotation = np.linalg.qr(rng.standard_normal((n_components, n_components)))[0]
    components = rotation.astype(np.float32) @ pca["components_"]
    variance = rotation**2 @ pca["explained_variance_"].astype(np.float64)
    return pca | _pca_param(components, variance, pca["mean_"], pca["n_samples_"])


def _as_sklearn(pca: dict[str, Any]) -> PCA:
    estimator = PCA(n_components=pca["n_components_"])
    for key, value in pca.items():
        setattr(estimator, key, value)
    estimator._fit_svd_solver = "randomized"  # fit() leaves this one too, and it is pickled
    return estimator


def _ordered(pca: dict[str, Any], order: Order) -> dict[str, Any]:
    return pca | {"components_": np.asarray(pca["components_"], order=order)}


def _regression(
    rng: np.random.Generator,
    n_targets: int,
    pca: dict[str, Any],
    dtype: DTypeLike,
    order: Order,
) -> dict[str, Any]:
    """Draw a regression from principal components to responses of variance about 1."""
    n_components = len(pca["components_"])
    coef = rng.standard_normal((n_targets, n_components), dtype=np.float32)
    coef /= np.sqrt(n_components * pca["explained_variance_"]).astype(np.float32)
    return {
        "coef_": np.asarray(coef, dtype=dtype, order=order),
        "intercept_": (0.1 * rng.standard_normal(n_targets)).astype(dtype),
        "n_features_in_": n_components,
    }


def write_fsaverage(
    berg_dir: Path,
    subject: int,
    rng: np.random.Generator,
    *,
    statistics: FeatureStatistics | None = None,
    n_components: int = 8,
    n_vertices: int = N_VERTICES,
    regression_dtype: DTypeLike = np.float32,
    order: Order = "C",
    empty_rois: Collection[str] = ("mTL-bodies",),
    accuracy_suffix: str = "",
    numpy_1: bool = False,
    model_id: str = FSAVERAGE,
) -> Path:
    """Write weights and metadata of one subject of ``fmri-nsd_fsaverage-vit_b_32``.

    Parameters
    ----------
    statistics
        Of the features that the model will meet; see `fitted_statistics`. Drawn without features
        if not given, with `n_components` (which `statistics` settles otherwise).
    n_vertices
        Per hemisphere; the published files have 163,842.
    regression_dtype, order
        Of `coef_` and `intercept_`; `order` is the memory order of `coef_` and `components_`.
    empty_rois
        ROIs without a vertex, in both hemispheres.
    accuracy_suffix
        ``""``, ``"_nsdcore"`` or ``"_nsdsynthetic"``.
    numpy_1
        Write the pickle as numpy 1.x did; see `write_pickled_npy`.

    Returns
    -------
    path
        Of the weights: 3.2 MB per component and 14 MB beside, at the published sizes.
    """
    statistics = statistics or random_statistics(rng, n_components)
    folder = model_folder(berg_dir, model_id)
    weights: dict[str, Any] = {"scaler_param": statistics.scaler}
    weights["pca_param"] = _ordered(statistics.pca, order)
    for hemisphere in ("lh", "rh"):
        regression = _regression(rng, n_vertices, statistics.pca, regression_dtype, order)
        weights[f"{hemisphere}_reg_param"] = regression
    metadata = fsaverage_metadata(rng, n_vertices, empty_rois, accuracy_suffix)
    if model_id in ALEXNET:
        for hemisphere in ("lh", "rh"):
            metadata["fmri"][f"{hemisphere}_fsaverage_rois"]["nsdgeneral"] = np.arange(7, n_vertices, 9)
    return _write_subject(folder, subject, weights, metadata, numpy_1)


def write_eeg(
    berg_dir: Path,
    subject: int,
    rng: np.random.Generator,
    *,
    pca_layout: PCALayout = "single",
    shared_pca: bool = False,
    statistics: FeatureStatistics | None = None,
    n_components: int = 8,
    regression_dtype: DTypeLike = np.float32,
    order: Order = "C",
    newer_metadata: bool = True,
    numpy_1: bool = False,
    model_id: str = EEG,
) -> Path:
    """Write weights and metadata of one subject of ``eeg-things_eeg_2-vit_b_32``.

    Parameters
    ----------
    pca_layout
        ``single``: one dict; ``per_repeat``: a dict for each of the four repeats; ``sklearn``: a
        pickled scikit-learn PCA for each.
    shared_pca
        Write the same PCA for every repeat, so that the three layouts, drawn with the same seed,
        say the same. By default every repeat has components of its own.
    newer_metadata
        With `ncsnr` and `noise_ceiling`, which older files lack.
    statistics, n_components, regression_dtype, order, numpy_1
        As in `write_fsaverage`.

    Returns
    -------
    path
        Of the weights: 2 MB per component (four times that unless `single`) and 13 MB beside.
    """
    statistics = statistics or random_statistics(rng, n_components)
    regressions = {}
    n_targets = len(EEG_CHANNELS) * N_TIMES
    for repeat in REPEATS:
        regressions[repeat] = _regression(rng, n_targets, statistics.pca, regression_dtype, order)
    weights = {
        "scaler_param": statistics.scaler,
        "pca_param": _eeg_pca(rng, _ordered(statistics.pca, order), pca_layout, shared_pca),
        "reg_param": regressions,
    }
    metadata = eeg_metadata(rng, newer_metadata)
    return _write_subject(model_folder(berg_dir, model_id), subject, weights, metadata, numpy_1)


def _eeg_pca(rng: np.random.Generator, pca: dict[str, Any], layout: PCALayout, shared: bool) -> dict[str, Any]:
    if layout == "single":
        return pca
    per_repeat = {repeat: pca if shared else _rotated(pca, rng) for repeat in REPEATS}
    if layout == "per_repeat":
        return per_repeat
    return {repeat: _as_sklearn(param) for repeat, param in per_repeat.items()}


def _write_subject(
    folder: Path, subject: int, weights: dict[str, Any], metadata: dict[str, Any], numpy_1: bool
) -> Path:
    path = folder / "encoding_models_weights" / f"weights_subject-{subject:02d}.npy"
    write_pickled_npy(path, weights, numpy_1)
    metadata_path = folder / "metadata" / f"metadata_subject-{subject:02d}.npy"
    write_pickled_npy(metadata_path, metadata, numpy_1)
    return path


def fsaverage_metadata(
    rng: np.random.Generator,
    n_vertices: int = N_VERTICES,
    empty_rois: Collection[str] = ("mTL-bodies",),
    accuracy_suffix: str = "",
) -> dict[str, Any]:
    """Draw the metadata of one subject on fsaverage: ROIs, noise, accuracy."""
    fmri: dict[str, Any] = {}
    accuracy: dict[str, Any] = _image_lists(rng)
    for hemisphere in ("lh", "rh"):
        rois = _random_rois(rng, n_vertices, empty_rois)
        fmri[f"{hemisphere}_fsaverage_rois"] = rois
        fmri[f"{hemisphere}_ncsnr"] = rng.uniform(0, 1, n_vertices).astype(np.float32)
        for score in ("correlation", "r2", "noise_ceiling", "explained_variance"):
            key = f"{hemisphere}_{score}{accuracy_suffix}"
            accuracy[key] = rng.uniform(0, 1, n_vertices).astype(np.float32)
    return {"fmri": fmri, "encoding_models": accuracy}


def _random_rois(rng: np.random.Generator, n_vertices: int, empty: Collection[str]) -> dict[str, NDArray[np.int64]]:
    """Draw an ascending list of vertices for every ROI, no two of one size."""
    sizes = {roi: 0 if roi in empty else 2 + i for i, roi in enumerate(FSAVERAGE_ROIS)}
    scale = max(1, n_vertices // 5000)
    return {
        roi: np.sort(rng.choice(n_vertices, min(size * scale, n_vertices), replace=False))
        for roi, size in sizes.items()
    }


def eeg_metadata(rng: np.random.Generator, newer: bool = True) -> dict[str, Any]:
    """Draw the metadata of one subject of THINGS EEG2; the newer files hold the noise too."""
    shape = (len(EEG_CHANNELS), N_TIMES)
    eeg: dict[str, Any] = {
        "ch_names": list(EEG_CHANNELS),
        "times": np.linspace(-0.1, 0.595, N_TIMES),
    }
    if newer:
        eeg["ncsnr"] = rng.uniform(0, 1, shape)
        eeg["noise_ceiling"] = rng.uniform(0, 1, shape)
    accuracy = _image_lists(rng) | {"correlation": rng.uniform(-0.1, 0.9, shape)}
    return {"eeg": eeg, "encoding_models": accuracy}


def _image_lists(rng: np.random.Generator) -> dict[str, Any]:
    images = rng.permutation(73000)
    return {
        "train_img_num": np.sort(images[:60]),
        "val_img_num": np.sort(images[60:70]),
        "test_img_num": np.sort(images[70:80]),
    }


# Feature-weighted receptive fields


def write_fwrf(berg_dir: Path, subject: int, roi: str, rng: np.random.Generator, *, n_voxels: int = 20) -> Path:
    """Write weights and metadata of one ROI of one subject of ``fmri-nsd-fwrf``.

    `stim_mean` and the `mu` that the network subtracts are drawn apart, so that whoever takes one
    for the other is found out.

    Parameters
    ----------
    n_voxels
        Of the whole ROI; ``lateral`` and ``ventral`` share them over two files, unequally.

    Returns
    -------
    path
        Of the (first) weights: 8 MB for the network and 8 kB per voxel.
    """
    folder = model_folder(berg_dir, FWRF)
    name = f"sub-{subject:02d}_roi-{roi}"
    metadata = fwrf_metadata(rng, n_voxels)
    write_pickled_npy(folder / "metadata" / f"metadata_{name}.npy", metadata)
    paths = []
    for suffix, n_split in _splits(roi, n_voxels):
        path = folder / "encoding_models_weights" / f"weights_{name}{suffix}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(fwrf_weights(rng, subject, n_split), path)
        paths.append(path)
    return paths[0]


def _splits(roi: str, n_voxels: int) -> list[tuple[str, int]]:
    if roi not in FWRF_SPLIT_ROIS:
        return [("", n_voxels)]
    n_first = n_voxels // 2 + 1
    return [("_split-1", n_first), ("_split-2", n_voxels - n_first)]


def fwrf_weights(rng: np.random.Generator, subject: int, n_voxels: int) -> dict[str, Any]:
    """Draw what one ``.pt`` file holds: a mean stimulus, an encoder, a readout."""
    best_params = {"enc": gnet_state(rng), "fwrfs": {subject: fwrf_state(rng, n_voxels)}}
    return {"stim_mean": _random_mean(rng), "best_params": best_params}


def _random_mean(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.uniform(0.35, 0.55, (1, 3, 227, 227)).astype(np.float32)


def gnet_state(rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Draw the state dict of the GNet encoder, with activations near 1 in every layer."""
    state = {"mu": torch.from_numpy(_random_mean(rng))}
    state |= _conv(rng, "pre.conv1.0", (64, 3, 11, 11), gain=4)
    state |= _conv(rng, "pre.conv2.0", (192, 64, 5, 5))
    state |= _batch_norm(rng, "enc.bn1", 192) | _conv(rng, "enc.conv3", (128, 192, 3, 3))
    for block in ("conv4a", "conv4b", "conv5a", "conv5b", "conv6a"):
        state |= _trunk_block(rng, f"enc.{block}", 128)
    return state | _trunk_block(rng, "enc.conv6b", 64)


def _trunk_block(rng: np.random.Generator, name: str, n_out: int) -> dict[str, torch.Tensor]:
    convolution = _conv(rng, f"{name}.conv1", (n_out, 128, 3, 3))
    return convolution | _batch_norm(rng, f"{name}.bn1", 128)


def _conv(
    rng: np.random.Generator, name: str, shape: tuple[int, int, int, int], gain: float = 1
) -> dict[str, torch.Tensor]:
    scale = np.float32(gain * np.sqrt(2 / np.prod(shape[1:])))
    weight = scale * rng.standard_normal(shape, dtype=np.float32)
    bias = np.float32(0.1) * rng.standard_normal(shape[0], dtype=np.float32)
    return {f"{name}.weight": torch.from_numpy(weight), f"{name}.bias": torch.from_numpy(bias)}


def _batch_norm(rng: np.random.Generator, name: str, n_channels: int) -> dict[str, torch.Tensor]:
    ranges = {"weight": (0.7, 1.3), "bias": (-0.2, 0.2)}
    ranges |= {"running_mean": (0.2, 0.8), "running_var": (0.5, 1.5)}
    state = {}
    for key, (low, high) in ranges.items():
        values = rng.uniform(low, high, n_channels).astype(np.float32)
        state[f"{name}.{key}"] = torch.from_numpy(values)
    return state | {f"{name}.num_batches_tracked": torch.tensor(12345)}


def fwrf_state(rng: np.random.Generator, n_voxels: int) -> dict[str, torch.Tensor]:
    """Draw the readout of some voxels: a bump in each of three maps, and channel weights."""
    state = {f"rf{k}": _bumps(rng, n_voxels, size) for k, size in enumerate((27, 25, 13))}
    weights = 0.3 * rng.standard_normal((n_voxels, 768), dtype=np.float32)
    state["w"] = torch.from_numpy(weights.astype(np.float32))
    state["b"] = torch.from_numpy(0.1 * rng.standard_normal(n_voxels, dtype=np.float32))
    return state


def _bumps(rng: np.random.Generator, n_voxels: int, size: int) -> torch.Tensor:
    """Draw the logarithm of noisy Gaussian receptive fields, not normalised."""
    grid = np.linspace(-1, 1, size)
    x, y = rng.uniform(-0.8, 0.8, (2, n_voxels, 1, 1))
    width = rng.uniform(0.15, 0.6, (n_voxels, 1, 1))
    distance = (grid[None, None, :] - x) ** 2 + (grid[None, :, None] - y) ** 2
    noise = 0.2 * rng.standard_normal((n_voxels, size, size))
    return torch.from_numpy((-distance / (2 * width**2) + noise).astype(np.float32))


def fwrf_metadata(rng: np.random.Generator, n_voxels: int) -> dict[str, Any]:
    """Draw the metadata of one ROI: where its voxels are, their noise, their accuracy."""
    volume = np.zeros((81, 104, 83), dtype=bool)
    volume.flat[rng.choice(volume.size, n_voxels, replace=False)] = True
    affine = np.diag([1.8, 1.8, 1.8, 1.0])
    affine[:3, 3] = (-72.9, -93.6, -74.7)
    fmri = {"ncsnr": rng.uniform(0, 1, n_voxels).astype(np.float32)}
    fmri |= {"roi_mask_volume": volume, "fmri_affine": affine}
    accuracy = _image_lists(rng)
    for score in ("r2", "noise_ceiling", "explained_variance"):
        accuracy[score] = rng.uniform(0, 1, n_voxels).astype(np.float32)
    return {"fmri": fmri, "encoding_models": accuracy}


# Further models on AlexNet and ViT-B/32


def write_alexnet(torch_home: Path, rng: np.random.Generator) -> Path:
    """Write random weights of AlexNet where torchvision looks for IMAGENET1K_V1.

    Returns
    -------
    path
        ``torch_home/hub/checkpoints/alexnet-owt-7be5be79.pth``, 244 MB.
    """
    from torchvision.models import alexnet

    with torch.device("meta"):
        shapes = {name: tuple(x.shape) for name, x in alexnet().state_dict().items()}
    path = Path(torch_home, ALEXNET_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: _alexnet_tensor(rng, shape) for name, shape in shapes.items()}, path)
    return path


def _alexnet_tensor(rng: np.random.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    x = rng.standard_normal(shape, dtype=np.float32)
    scale = 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.float32(scale) * x)


def alexnet_statistics(
    rng: np.random.Generator, features: NDArray[np.floating[Any]], n_components: int = 2
) -> FeatureStatistics:
    """Draw components for features of AlexNet, with scales as thousands of pictures would give.

    Behind a ReLU some features differ by 1e-6 between three pictures; divided by so little, the rounding of float32
    would be all that is left of them. Noise keeps every scale well above it.
    """
    noise = 0.1 * rng.standard_normal(features.shape, dtype=np.float32)
    return random_statistics(rng, n_components, features.astype(np.float32) + noise)


def of_another_split(rng: np.random.Generator, statistics: FeatureStatistics) -> FeatureStatistics:
    """Return a scaler and a PCA of two components as other pictures would give: other means, scales, components."""
    scaler = dict(statistics.scaler)
    scaler["mean_"] = scaler["mean_"] + 0.2 * scaler["scale_"] * rng.standard_normal(len(scaler["mean_"]))
    scaler["scale_"] = scaler["scale_"] * rng.uniform(0.8, 1.2, len(scaler["scale_"]))
    scaler["var_"] = scaler["scale_"] ** 2
    whole = statistics.pca
    pca = _pca_param(whole["components_"][:2], whole["explained_variance_"][:2], whole["mean_"], whole["n_samples_"])
    return FeatureStatistics(scaler, _rotated(pca, rng))


def linear_weights(rng: np.random.Generator, statistics: FeatureStatistics, n_targets: int) -> dict[str, Any]:
    """Draw what a file of one regression holds."""
    regression = _regression(rng, n_targets, statistics.pca, np.float32, "C")
    return {"scaler_param": statistics.scaler, "pca_param": statistics.pca, "reg_param": regression}


def write_splits(
    folder: Path, names: Collection[str], rng: np.random.Generator, statistics: FeatureStatistics, n_targets: int
) -> list[Path]:
    """Write weights files, each with a scaler, a PCA and a regression of its own."""
    paths = [folder / "encoding_models_weights" / f"{name}.npy" for name in names]
    for path in paths:
        write_pickled_npy(path, linear_weights(rng, of_another_split(rng, statistics), n_targets))
    return paths


MEG_SENSORS = (
    *("MLC11-1609", "MLC12-1609", "MLF11-1609", "MLO11-1609", "MLO12-1609", "MLP11-1609", "MLT11-1609"),
    *("MRC11-1609", "MRF11-1609", "MRO11-1609", "MRP11-1609", "MRT11-1609"),
    *("MZC01-1609", "MZF01-1609", "MZO01-1609", "MZP01-1609"),
)
_HEMISPHERES = {"L": "Left", "R": "Right", "Z": "Midline"}
_REGIONS = {"C": "Central", "F": "Frontal", "O": "Occipital", "P": "Parietal", "T": "Temporal"}


def write_meg(
    berg_dir: Path,
    subject: int,
    rng: np.random.Generator,
    statistics: FeatureStatistics,
    *,
    names: Collection[str] = ("all_training_splits",),
    n_times: int = 61,
    older_metadata: bool = False,
) -> list[Path]:
    """Write weights and metadata of ``meg-things_meg_1-vit_b_32``, 16 of the 271 sensors.

    Parameters
    ----------
    names
        Of the weights files, after ``weights_P{subject}_``; empty for ``weights_P{subject}``.
    older_metadata
        Correlations directly under ``encoding_model``.
    """
    folder = model_folder(berg_dir, MEG)
    metadata = meg_metadata(rng, subject, n_times, older_metadata)
    write_pickled_npy(folder / "metadata" / f"metadata_P{subject}.npy", metadata)
    stems = [f"weights_P{subject}_{name}".removesuffix("_") for name in names]
    return write_splits(folder, stems, rng, statistics, len(MEG_SENSORS) * n_times)


def meg_metadata(rng: np.random.Generator, subject: int, n_times: int, older: bool = False) -> dict[str, Any]:
    """Draw the metadata of one participant; the noise has time first, the correlations have it last."""
    shape = (len(MEG_SENSORS), n_times)
    sensors = {
        "sensor_names": np.array(MEG_SENSORS),
        "sensor_prefixes": np.array([name[:3] for name in MEG_SENSORS]),
        "sensor_hemispheres": np.array([_HEMISPHERES[name[1]] for name in MEG_SENSORS]),
        "sensor_regions": np.array([_REGIONS[name[2]] for name in MEG_SENSORS]),
        "n_sensors": len(MEG_SENSORS),
    }
    noise = {key: rng.uniform(0, 1, shape[::-1]) for key in ("ncsnr", "noise_ceiling")}
    accuracy = _accuracy_of_splits(rng, shape) if not older else {"correlation_results": rng.uniform(-0.1, 0.9, shape)}
    times = np.round(-0.1 + 0.005 * np.arange(n_times), 6)
    return {
        "meg": {"times": times, "subject_id": f"P{subject}"},
        "sensors": sensors,
        "encoding_model": {**accuracy, **noise, "test_img_ids": np.arange(24)},
    }


def _accuracy_of_splits(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    names = [
        "all_training_splits",
        *(f"single_training_split_{split}" for split in (1, 2, 3)),
        "single_training split_4",
    ]
    return {
        name: {
            "train_img_ids": np.arange(20),
            "correlation_results": rng.uniform(-0.1, 0.9, shape),
            "percent_noise_ceiling": rng.uniform(0, 100, shape),
        }
        for name in names
    }


THINGS_ROIS = (
    *("V1", "V2", "V3", "hV4", "VO1", "VO2", "LO1_prf", "LO2_prf", "TO1", "TO2", "V3b", "V3a", "lFFA", "rFFA", "lOFA"),
    *("rOFA", "lEBA", "rEBA", "lPPA", "rPPA", "lRSC", "rRSC", "lTOS", "rTOS", "lLOC", "rLOC", "IT", "lSTS", "rSTS"),
)


def write_things_fmri(
    berg_dir: Path, subject: int, rng: np.random.Generator, statistics: FeatureStatistics, *, n_voxels: int = 120
) -> Path:
    """Write weights and metadata of ``fmri-things_fmri_1-vit_b_32``, 120 of the 211,339 voxels."""
    folder = model_folder(berg_dir, THINGS_FMRI)
    metadata = things_fmri_metadata(rng, subject, n_voxels)
    write_pickled_npy(folder / "metadata" / f"metadata_sub-0{subject}.npy", metadata)
    (path,) = write_splits(folder, [f"weights_sub-0{subject}"], rng, statistics, n_voxels)
    return path


def things_fmri_metadata(rng: np.random.Generator, subject: int, n_voxels: int) -> dict[str, Any]:
    """Draw the metadata of one participant: places in the volume, regions, receptive fields, accuracy."""
    shape = (11, 13, 7)
    places = np.stack(np.unravel_index(np.sort(rng.choice(np.prod(shape), n_voxels, replace=False)), shape), axis=1)
    accuracy = ("noise_ceiling_singletrial", "noise_ceiling_testset", "splithalf_corrected", "splithalf_uncorrected")
    sizes = {roi: index % 9 for index, roi in enumerate(THINGS_ROIS, start=3)}
    return {
        "fmri": {"voxel_coords": places, "n_voxels": n_voxels, "subject_id": f"sub-0{subject}"},
        "encoding_model": {
            "train_stimuli": np.array(["aardvark_01b.jpg", "abacus_01b.jpg"]),
            **{key: rng.uniform(0, 100, n_voxels) for key in accuracy},
            "correlation_results": rng.uniform(-0.1, 0.9, n_voxels),
        },
        "prf": {
            f"prf_{key}": rng.uniform(0, 10, n_voxels) for key in ("eccentricity", "polarangle", "rsquared", "size")
        },
        "roi": {roi: np.sort(rng.choice(n_voxels, size, replace=False)) for roi, size in sizes.items()},
    }


def write_tvsd(
    berg_dir: Path,
    monkey: str,
    rng: np.random.Generator,
    statistics: FeatureStatistics,
    *,
    names: Collection[str] = ("all_training_splits",),
    n_electrodes: int = 40,
    n_times: int = 11,
    section: str = "utah_array",
    in_milliseconds: bool = True,
) -> list[Path]:
    """Write weights and metadata of ``utah_array-tvsd-vit_b_32``, 40 of the 1,024 electrodes.

    Parameters
    ----------
    names
        As in `write_meg`, after ``weights_monkey{monkey}_``.
    section
        ``utah_array``, or ``utah-array`` as one card spells it.
    """
    folder = model_folder(berg_dir, TVSD)
    metadata = tvsd_metadata(rng, monkey, n_electrodes, n_times, section, in_milliseconds)
    write_pickled_npy(folder / "metadata" / f"metadata_monkey{monkey}.npy", metadata)
    stems = [f"weights_monkey{monkey}_{name}".removesuffix("_") for name in names]
    return write_splits(folder, stems, rng, statistics, n_electrodes * n_times)


def tvsd_metadata(
    rng: np.random.Generator, monkey: str, n_electrodes: int, n_times: int, section: str, in_milliseconds: bool
) -> dict[str, Any]:
    """Draw the metadata of one monkey; some electrodes are in no area."""
    shape = (n_electrodes, n_times)
    times = -100 + np.arange(n_times)
    return {
        section: {
            "times": times if in_milliseconds else times / 1000,
            "electrode_order": rng.permutation(n_electrodes),
            "monkey_id": monkey,
            "n_electrodes": n_electrodes,
        },
        "roi": {"roi_assignments": rng.integers(-1, 3, n_electrodes), "roi_labels": ["V1", "V4", "IT"]},
        "encoding_model": {
            **_accuracy_of_splits(rng, shape),
            "SNR": rng.uniform(0, 5, (4, n_electrodes)),
            "SNR_max": rng.uniform(0, 5, n_electrodes),
            "ncsnr": rng.uniform(0, 1, shape),
            "noise_ceiling": rng.uniform(0, 1, shape),
        },
    }


# BOLD5000 on ResNet-18, in the layout of the package img2fmri


def write_resnet18(torch_home: Path, rng: np.random.Generator) -> Path:
    """Write random weights of ResNet-18 where torchvision looks for IMAGENET1K_V1.

    Returns
    -------
    path
        ``torch_home/hub/checkpoints/resnet18-f37072fd.pth``, 47 MB.
    """
    from torchvision.models import resnet18

    with torch.device("meta"):
        shapes = {name: tuple(x.shape) for name, x in resnet18().state_dict().items()}
    state = {
        name: torch.ones(shape)
        if name.endswith("running_var")
        else torch.zeros(shape, dtype=torch.int64 if name.endswith("tracked") else torch.float32)
        if not shape or name.endswith("running_mean")
        else _alexnet_tensor(rng, shape) + (len(shape) == 1 and name.endswith("weight"))
        for name, shape in shapes.items()
    }
    path = Path(torch_home, RESNET_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


def write_img2fmri(folder: Path, rng: np.random.Generator, subjects: Collection[int] = (1,)) -> Path:
    """Write a package with a few voxels per region: scikit-learn's Ridge in pickles, masks of both hemispheres.

    Some masks were resampled and have fractions, as the published ones; two regions have a voxel in common.

    Returns
    -------
    folder
        Of the package, in `folder`. To import it is an error.
    """
    import nibabel
    from sklearn.linear_model import Ridge

    package = folder / "img2fmri"
    for inside in ("models", "derivatives/bool_masks"):
        (package / inside).mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package was imported')\n")
    for subject, (number, region) in product(subjects, enumerate(BOLD5000_REGIONS)):
        n_voxels = 0
        for side, first in (("LH", 0), ("RH", 4)):
            mask = np.zeros((8, 7, 6))
            mask[first : first + 3, number : number + 2, 2 + subject - 1] = rng.choice([0.125, 1], (3, 2))
            n_voxels += int((mask > 0).sum())
            name = f"derivatives_spm_sub-CSI{subject}_sub-CSI{subject}_mask-{side}{region}.nii.gz"
            nibabel.Nifti1Image(mask, BOLD5000_AFFINE).to_filename(package / "derivatives" / "bool_masks" / name)
        ridge = Ridge(alpha=10.0).fit(
            rng.standard_normal((20, 512), np.float32), rng.standard_normal((20, n_voxels), np.float32)
        )
        (package / "models" / f"subj{subject}_{region}_model.pkl").write_bytes(pickle.dumps(ridge, protocol=4))
    return package


# BOLD Moments on S3D


def write_s3d(torch_home: Path, rng: np.random.Generator) -> Path:
    """Write random weights of S3D where torchvision looks for KINETICS400_V1.

    Returns
    -------
    path
        ``torch_home/hub/checkpoints/s3d-d76dad2f.pth``, 33 MB.
    """
    from torchvision.models.video import s3d

    with torch.device("meta"):
        shapes = {name: tuple(x.shape) for name, x in s3d().state_dict().items()}
    path = Path(torch_home, S3D_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: _s3d_tensor(rng, name, shape) for name, shape in shapes.items()}, path)
    return path


def _s3d_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    x = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    if len(shape) > 1:
        return x * np.sqrt(2 / np.prod(shape[1:]), dtype=np.float32)
    about = 1.0 if name.endswith(("running_var", "1.weight")) else 0.0
    return about + 0.1 * x


BMD_ROIS = (
    *(
        f"{hemisphere}{area}"
        for hemisphere in "lr"
        for area in (
            *("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "V3ab", "hV4", "FFA", "OFA", "EBA", "LOC", "PPA", "RSC", "STS"),
            *("TOS", "MT", "7AL", "IPS0", "IPS1-2-3", "PFt", "BA2", "PFop"),
        )
    ),
    "BMDgeneral",
)
N_S3D = 4_084_096  # features
BMD_AFFINE = np.array([[-2.5, 0, 0, 76], [0, 2.5, 0, -112], [0, 0, 2.5, -76], [0, 0, 0, 1]])


def random_clips(rng: np.random.Generator, n_clips: int, n_frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Draw videos, shape (n_clips, n_frames, 3, height, width)."""
    return random_images(rng, n_clips * n_frames, height, width).reshape(n_clips, n_frames, 3, height, width)


def write_bmd_projection(
    berg_dir: Path, rng: np.random.Generator, mean: Any, scale: Any, n_components: int = 2, model_id: str = BMD
) -> Path:
    """Write the scaler and the truncated SVD that all subjects of ``fmri-bmd-s3d`` share.

    Parameters
    ----------
    mean, scale
        Of the features, shape (n_features,).
    """
    n_features = len(mean)
    components = rng.standard_normal((n_components, n_features), dtype=np.float32)
    components /= np.linalg.norm(components, axis=1, keepdims=True)
    scaler = {"scale_": scale, "mean_": mean, "var_": scale**2, "n_features_in_": n_features}
    svd: dict[str, Any] = {"components_": components, "n_features_in_": n_features}
    for key in ("explained_variance_", "explained_variance_ratio_", "singular_values_"):
        svd[key] = rng.uniform(0.1, 1, n_components).astype(np.float32)
    path = model_folder(berg_dir, model_id) / "encoding_models_weights" / "pca_weights.npy"
    write_pickled_npy(path, {"scaler_param": {**scaler, "n_samples_seen_": np.int64(1000)}, "pca_param": svd})
    return path


def write_bmd(
    berg_dir: Path,
    subject: int,
    rng: np.random.Generator,
    *,
    n_components: int = 2,
    n_voxels: int = 90,
    model_id: str = BMD,
) -> Path:
    """Write weights and metadata of one subject of ``fmri-bmd-s3d``, 90 of about 108,000 voxels.

    Regions are as ``numpy.where`` returns them, and the headers of the masks are objects of nibabel.
    """
    coef = rng.standard_normal((n_voxels, n_components), dtype=np.float32)
    intercept = 0.1 * rng.standard_normal(n_voxels, dtype=np.float32)
    path = model_folder(berg_dir, model_id) / "encoding_models_weights" / f"weights_sub-{subject:02d}.npy"
    write_pickled_npy(path, {"coef_": coef, "intercept_": intercept, "n_features_in_": n_components})
    metadata = bmd_metadata(rng, n_voxels)
    write_pickled_npy(model_folder(berg_dir, model_id) / "metadata" / f"metadata_sub-{subject:02d}.npy", metadata)
    return path


def bmd_metadata(rng: np.random.Generator, n_voxels: int) -> dict[str, Any]:
    """Draw the metadata of one participant."""
    import nibabel

    masks: dict[str, Any] = {}
    for name in ("group_mask", "sub_mask"):
        mask = np.zeros((6, 7, 5), bool)
        mask.flat[rng.choice(mask.size, n_voxels, replace=False)] = True
        masks[name] = mask
        masks[f"{name}_header"] = nibabel.Nifti1Image(mask.astype(np.uint8), BMD_AFFINE).header
        masks[f"{name}_affine"] = BMD_AFFINE
    rois = {
        name: np.where(np.isin(np.arange(n_voxels), rng.choice(n_voxels, 3 + index % 5, replace=False)))
        for index, name in enumerate(BMD_ROIS)
    }
    accuracy = ("correlation", "r2", "explained_variance", *(f"noiseceiling_task_{name}" for name in BMD_CEILINGS))
    return {
        "fmri": {**masks, "rois": rois},
        "encoding_models": {name: rng.uniform(0, 1, n_voxels).astype(np.float32) for name in accuracy},
    }


BMD_CEILINGS = ("train_n_1", "train_n_3", "test_n_1", "test_n_10")
