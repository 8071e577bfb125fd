"""The references and the layouts they read, checked against closed forms and each other."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.models import ViT_B_32_Weights, vit_b_32

from . import layouts, reference

pytestmark = pytest.mark.xdist_group("published")

RECIPE = Path(__file__).parents[2] / "benchmarks" / "published_recipe.py"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture(scope="module")
def images() -> reference.Images:
    return layouts.random_images(np.random.default_rng(1), 12, 96, 128)


@pytest.fixture(scope="module")
def features(images: reference.Images, torch_home: Path) -> reference.Floats:
    return reference.network_features(images, torch_home, dtype=np.float32)


@pytest.fixture(scope="module")
def statistics(features: Any) -> layouts.FeatureStatistics:
    return layouts.fitted_statistics(features, n_components=4)


@pytest.fixture(scope="module")
def recipe() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("published_recipe", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


# Transforms


def manual_preset(image: reference.Images) -> torch.Tensor:
    height, width = image.shape[1:]
    scale = 256 / min(height, width)
    size = (int(height * scale), int(width * scale))
    pixels = torch.from_numpy(image)[None].to(torch.float32)
    resized = F.interpolate(pixels, size, mode="bilinear", antialias=True).round()[0]
    top, left = (round((length - 224) / 2) for length in size)
    crop = resized[:, top : top + 224, left : left + 224] / 255
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return (crop - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@pytest.mark.parametrize("shape", [(224, 224), (227, 227), (300, 400), (401, 300), (64, 64)])
def test_preset_is_resize_crop_and_normalise(
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    image = layouts.random_images(rng, 1, *shape)[0]
    prepared = reference.preset_transform(image)
    assert prepared.shape == (3, 224, 224)
    torch.testing.assert_close(prepared, manual_preset(image))


@pytest.mark.parametrize(("shape", "side"), [((227, 300), 227), ((64, 64), 64), ((401, 300), 300)])
def test_as_trained_resizes_the_centre_square(shape: tuple[int, int], side: int, rng: np.random.Generator) -> None:
    image = layouts.random_images(rng, 1, *shape)[0]
    top, left = (round((length - side) / 2) for length in shape)
    square = Image.fromarray(image[:, top : top + side, left : left + side].transpose(1, 2, 0))
    resized = np.array(square.resize((224, 224)), dtype=np.float64).transpose(2, 0, 1) / 255
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (resized - mean[:, None, None]) / std[:, None, None]
    prepared = reference.as_trained_transform(image).numpy()
    np.testing.assert_allclose(prepared, expected, atol=1e-6)


def test_the_transforms_agree_in_the_centre_only_roughly(rng: np.random.Generator) -> None:
    image = layouts.random_images(rng, 1, 300, 400)[0]
    preset, as_trained = reference.preset_transform(image), reference.as_trained_transform(image)
    assert preset.shape == as_trained.shape
    assert (preset - as_trained).abs().mean() > 0.1


# Network


def test_torchvision_loads_the_backbone_without_a_download(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    network = vit_b_32(weights=ViT_B_32_Weights.IMAGENET1K_V1)
    state = torch.load(torch_home / layouts.BACKBONE_FILE, weights_only=True)
    mlp = "encoder.layers.encoder_layer_11.mlp"
    loaded = network.state_dict()[f"{mlp}.3.bias"]
    torch.testing.assert_close(loaded, state[f"{mlp}.linear_2.bias"])


def test_features_are_the_residual_stream_after_each_block(
    images: reference.Images, features: reference.Floats, torch_home: Path
) -> None:
    network: Any = reference.read_backbone(torch_home).to(torch.float32)
    tokens = torch.from_numpy(features).reshape(-1, 12, 50, 768)
    for layer in (1, 11):
        block = network.encoder.layers.get_submodule(f"encoder_layer_{layer}")
        with torch.no_grad():
            expected = manual_block(block, tokens[:3, layer - 1])
        torch.testing.assert_close(tokens[:3, layer], expected, atol=1e-4, rtol=1e-4)


def manual_block(block: Any, x: torch.Tensor) -> torch.Tensor:
    normalised = block.ln_1(x)
    x = x + block.self_attention(normalised, normalised, normalised, need_weights=False)[0]
    after: torch.Tensor = x + block.mlp(block.ln_2(x))
    return after


def test_features_differ_between_images_and_layers(features: reference.Floats) -> None:
    assert features.shape == (12, layouts.N_FEATURES)
    assert np.isfinite(features).all()
    assert features.std(axis=0).min() > 1e-2
    layers = features.reshape(12, 12, -1)
    distances = np.abs(np.diff(layers, axis=1)).mean(axis=(0, 2))
    assert (distances > 0.1).all()


# Linear readouts


def test_fsaverage_responses_are_the_folded_equation(
    tmp_path: Path,
    features: reference.Floats,
    statistics: layouts.FeatureStatistics,
    rng: np.random.Generator,
) -> None:
    layouts.write_fsaverage(tmp_path, 1, rng, statistics=statistics, n_vertices=50)
    weights = reference.read_weights(tmp_path, layouts.FSAVERAGE, 1)
    truth = reference.fsaverage_responses(weights, features.astype(np.float64))
    scaler, pca = statistics.scaler, statistics.pca
    z = ((features - scaler["mean_"]) / scaler["scale_"] - pca["mean_"]) @ pca["components_"].T
    for hemisphere, responses in zip(("lh", "rh"), truth, strict=True):
        param = weights[f"{hemisphere}_reg_param"]
        expected = z @ param["coef_"].T + param["intercept_"]
        np.testing.assert_allclose(responses, expected, atol=1e-11)
        assert 0.1 < responses.std() < 10


def test_single_precision_meets_the_truth(
    tmp_path: Path,
    features: reference.Floats,
    statistics: layouts.FeatureStatistics,
    rng: np.random.Generator,
) -> None:
    layouts.write_fsaverage(tmp_path, 1, rng, statistics=statistics, n_vertices=50)
    weights = reference.read_weights(tmp_path, layouts.FSAVERAGE, 1)
    single = reference.fsaverage_responses(weights, features)
    double = reference.fsaverage_responses(weights, features.astype(np.float64))
    assert single[0].dtype == np.float32
    np.testing.assert_allclose(single, double, atol=1e-4)


def test_fsaverage_reference_runs_from_image_to_all_vertices(
    tmp_path: Path, torch_home: Path, images: reference.Images, rng: np.random.Generator
) -> None:
    layouts.write_fsaverage(tmp_path, 8, rng, n_components=2, n_vertices=30)
    respond = partial(reference.fsaverage_reference, tmp_path, 8, images[:1], torch_home)
    preset, trained = respond(), respond(transform="as_trained")
    assert [responses.shape for responses in preset] == [(1, 30), (1, 30)]
    assert preset[0].dtype == np.float64
    assert not np.allclose(preset[0], trained[0])


def test_the_three_pca_layouts_say_the_same(
    tmp_path: Path, features: reference.Floats, statistics: layouts.FeatureStatistics
) -> None:
    responses = []
    for layout in ("single", "per_repeat", "sklearn"):
        layouts.write_eeg(
            tmp_path,
            3,
            np.random.default_rng(3),
            statistics=statistics,
            pca_layout=layout,
            shared_pca=True,
        )
        weights = reference.read_weights(tmp_path, layouts.EEG, 3)
        responses.append(reference.eeg_responses(weights, features[:2]))
    assert responses[0].shape == (2, 4, 63, 140)
    np.testing.assert_array_equal(responses[0], responses[1])
    np.testing.assert_array_equal(responses[0], responses[2])


def test_each_repeat_has_its_own_pca_and_channels_come_before_times(
    tmp_path: Path,
    features: reference.Floats,
    statistics: layouts.FeatureStatistics,
    rng: np.random.Generator,
) -> None:
    layouts.write_eeg(tmp_path, 3, rng, statistics=statistics, pca_layout="per_repeat")
    weights = reference.read_weights(tmp_path, layouts.EEG, 3)
    responses = reference.eeg_responses(weights, features[:1].astype(np.float64))
    scaler, pca = weights["scaler_param"], weights["pca_param"]["rep-4"]
    standardized = (features[0] - scaler["mean_"]) / scaler["scale_"]
    z = pca["components_"] @ (standardized - pca["mean_"])
    param, row = weights["reg_param"]["rep-4"], 5 * 140 + 7
    expected = param["coef_"][row] @ z + param["intercept_"][row]
    np.testing.assert_allclose(responses[0, 3, 5, 7], expected)
    assert not np.allclose(pca["components_"], weights["pca_param"]["rep-1"]["components_"])


def test_numpy_1_pickles_hold_the_same_in_other_words(
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    content = {"a": rng.standard_normal((2, 3)), "b": np.int64(4), "c": {"d": [1, "e"]}}
    layouts.write_pickled_npy(tmp_path / "old.npy", content, numpy_1=True)
    assert b"numpy.core.multiarray" in (tmp_path / "old.npy").read_bytes()
    read = np.load(tmp_path / "old.npy", allow_pickle=True).item()
    np.testing.assert_array_equal(read["a"], content["a"])
    assert (read["b"], read["c"]) == (4, {"d": [1, "e"]})


# Feature-weighted receptive fields


def test_constant_maps_give_the_closed_form_whatever_the_receptive_field(
    rng: np.random.Generator,
) -> None:
    values = rng.standard_normal(768)
    readout = {name: x.double() for name, x in layouts.fwrf_state(rng, 5).items()}
    maps = [
        torch.from_numpy(values[256 * k : 256 * (k + 1)])[:, None, None].expand(256, size, size)
        for k, size in enumerate((27, 25, 13))
    ]
    responses = reference.fwrf_readout(readout, maps)
    phi = np.log1p(np.abs(values)) * np.tanh(values)
    twice = np.log1p(np.abs(phi)) * np.tanh(phi)
    expected = readout["w"].numpy() @ twice + readout["b"].numpy()
    np.testing.assert_allclose(responses.numpy(), expected)


def test_a_sharp_receptive_field_reads_one_pixel(rng: np.random.Generator) -> None:
    readout = {name: x.double() for name, x in layouts.fwrf_state(rng, 1).items()}
    maps = [torch.from_numpy(rng.standard_normal((256, size, size))) for size in (27, 25, 13)]
    for k, (row, column) in enumerate([(3, 20), (24, 0), (6, 7)]):
        readout[f"rf{k}"][0, row, column] = 1000
    pixels = torch.cat([maps[0][:, 3, 20], maps[1][:, 24, 0], maps[2][:, 6, 7]])
    expected = readout["w"] @ reference.compress(reference.compress(pixels)) + readout["b"]
    torch.testing.assert_close(reference.fwrf_readout(readout, maps), expected)


def test_split_rois_are_joined_in_order(tmp_path: Path, rng: np.random.Generator) -> None:
    images = layouts.random_images(rng, 2, 64, 100)
    path = layouts.write_fwrf(tmp_path, 1, "lateral", rng, n_voxels=8)
    responses = reference.fwrf_reference(tmp_path, 1, "lateral", images)
    assert responses.shape == (2, 8)
    assert responses.dtype == np.float64
    assert 0.1 < responses.std() < 10
    path.rename(path.with_name(path.name.replace("lateral_split-1", "V1")))
    first = reference.fwrf_reference(tmp_path, 1, "V1", images)
    np.testing.assert_array_equal(responses[:, :5], first)


def test_maps_have_the_published_shapes(rng: np.random.Generator) -> None:
    encoder = layouts.gnet_state(rng)
    image = layouts.random_images(rng, 1, 300, 400)[0]
    maps = reference.gnet_maps(encoder, reference.fwrf_input(image, encoder["mu"]))
    assert [m.shape for m in maps] == [(1, 256, 27, 27), (1, 256, 25, 25), (1, 256, 13, 13)]
    assert all(m.std() > 0.1 and m.min() == 0 for m in maps)


# The published recipe, which the benchmarks time


def test_the_recipe_encodes_fwrf_as_the_reference_does(
    tmp_path: Path,
    rng: np.random.Generator,
    recipe: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = layouts.random_images(rng, 3, 80, 64)
    layouts.write_fwrf(tmp_path, 2, "ventral", rng, n_voxels=9)
    model = recipe.load(layouts.FWRF, tmp_path, 2, roi="ventral")
    expected = reference.fwrf_reference(tmp_path, 2, "ventral", images)
    monkeypatch.setattr(recipe, "BATCH_SIZE", 2)
    np.testing.assert_allclose(recipe.encode(model, images), expected, atol=1e-4)


def write_one(model_id: str, berg_dir: Path, statistics: layouts.FeatureStatistics) -> None:
    rng = np.random.default_rng(5)
    if model_id == layouts.FSAVERAGE:
        layouts.write_fsaverage(berg_dir, 2, rng, statistics=statistics, n_vertices=300)
    else:
        layouts.write_eeg(berg_dir, 2, rng, statistics=statistics, pca_layout="sklearn")


@pytest.mark.parametrize(
    ("model_id", "respond"),
    [
        (layouts.FSAVERAGE, reference.fsaverage_responses),
        (layouts.EEG, reference.eeg_responses),
    ],
)
def test_the_recipe_encodes_linear_readouts_as_the_reference_does(
    model_id: str,
    respond: Callable[..., Any],
    tmp_path: Path,
    torch_home: Path,
    images: reference.Images,
    features: reference.Floats,
    statistics: layouts.FeatureStatistics,
    recipe: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    write_one(model_id, tmp_path, statistics)
    model = recipe.load(model_id, tmp_path, 2)
    monkeypatch.setattr(recipe, "BATCH_SIZE", 2)
    expected = respond(reference.read_weights(tmp_path, model_id, 2), features[:3])
    np.testing.assert_allclose(recipe.encode(model, images[:3]), expected, atol=1e-4)
