"""Files of the published models, with random numbers, written once for all tests that need them.

Such tests get the mark ``xdist_group("published")``: with ``--dist loadgroup`` one worker runs them all, so that the
backbone lies once on disk and once in memory. The tests of any other file are a group too: what they share is made
once.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from published import language, layouts, mosaic, mouse_scans, reference, retina, text2fmri
from torchvision.models import vision_transformer

from berg.core import model_registry
from berg.families.linearizing import shared_projection
from berg.weights.package_files import write_package_files

AlexNetFeatures = Callable[[bool], tuple[reference.Images, reference.Floats]]
FeaturesOf = Callable[[tuple[int, int], str], tuple[reference.Images, reference.Floats]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--published-size", action="store_true", help="ViT-B/32 with all its weights (make test-slow)")


def pytest_itemcollected(item: pytest.Function) -> None:
    """One worker runs a file, and one all tests that need the backbone, unless they say otherwise."""
    needs_backbone = "torch_home" in getattr(item, "fixturenames", ())
    if needs_backbone:
        item.add_marker(pytest.mark.published)
    if item.get_closest_marker("xdist_group") is None:
        item.add_marker(pytest.mark.xdist_group("published" if needs_backbone else item.nodeid.partition("::")[0]))


def pytest_collection_finish() -> None:
    """What is in memory before the first test stays there, so that nobody looks through it for what can go."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_this_user() -> Iterator[None]:
    """Nothing that lies on this computer, or is set on it, changes a test."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERG_DIR", f"{folder}/no-berg-dir")
        patch.setenv("XDG_CONFIG_HOME", folder)
        for name in ("BERG_SOURCE", "BERG_NETWORK_SOURCE", "BERG_OFFLINE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def narrow_vit(pytestconfig: pytest.Config) -> Iterator[None]:
    """ViT-B/32 with 64 units inside its MLPs, not 3,072: all its features, in a third of the time.

    ``make test-slow`` runs the same tests with the published size.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not pytestconfig.getoption("published_size"):
            published = vision_transformer._vision_transformer
            patch.setattr(
                vision_transformer, "_vision_transformer", lambda **given: published(**given | {"mlp_dim": 64})
            )
        yield


@cache
def discover_models() -> None:
    """Once for all tests: it looks into every installed package for models."""
    model_registry.discover()


@contextmanager
def registry_kept() -> Iterator[None]:
    """What is made known to the registry inside is forgotten afterwards."""
    discover_models()
    names = ("MODEL_REGISTRY", "PROBLEMS", "_cards_read", "_opened", "_hand_written_cards", "_stores")
    before = {name: getattr(model_registry, name).copy() for name in names}
    yield
    for name, content in before.items():
        held = getattr(model_registry, name)
        held.clear()
        held.update(content)


@pytest.fixture(scope="module", autouse=True)
def registry_of_this_file() -> Iterator[None]:
    """The models that the tests of a file make known are known to no other file."""
    with registry_kept():
        yield


@pytest.fixture
def own_registry() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    with registry_kept():
        yield


@pytest.fixture(scope="session")
def torch_home() -> Iterator[Path]:
    """Where torchvision finds a random ViT-B/32."""
    # Not tmp_path: pytest keeps that of the last three runs, 353 MB each.
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        layouts.write_backbone(Path(folder), np.random.default_rng(0))
        patch.setenv("TORCH_HOME", folder)
        yield Path(folder)


@pytest.fixture(scope="session")
def statistics(torch_home: Path) -> layouts.FeatureStatistics:
    """A scaler and eight principal components, fitted to features of the backbone."""
    images = layouts.random_images(np.random.default_rng(1), 16, 96, 128)
    return layouts.fitted_statistics(reference.network_features(images, torch_home, dtype=np.float32), 8)


@pytest.fixture(scope="session")
def berg_dir(statistics: layouts.FeatureStatistics) -> Iterator[Path]:
    """Subject 1 on fsaverage, subjects 1 to 3 of EEG with a PCA layout each, some ROIs of fwRF."""
    rng = np.random.default_rng(2)
    with tempfile.TemporaryDirectory() as folder:
        berg_dir = Path(folder)
        layouts.write_fsaverage(berg_dir, 1, rng, statistics=statistics)
        layouts.write_eeg(berg_dir, 1, rng, statistics=statistics, pca_layout="single")
        layouts.write_eeg(berg_dir, 2, rng, statistics=statistics, pca_layout="per_repeat")
        layouts.write_eeg(berg_dir, 3, rng, statistics=statistics, pca_layout="sklearn")
        for roi, n_voxels in (("V1", 21), ("V2", 5), ("OWFA", 3), ("lateral", 8)):
            layouts.write_fwrf(berg_dir, 1, roi, rng, n_voxels=n_voxels)
        yield berg_dir


@pytest.fixture(scope="session")
def alexnet_features(torch_home: Path) -> AlexNetFeatures:
    """Three images, and their features by a random AlexNet or by the untrained one; each computed once."""
    layouts.write_alexnet(torch_home, np.random.default_rng(3))

    @cache
    def alexnet_features(untrained: bool) -> tuple[reference.Images, reference.Floats]:
        images = layouts.random_images(np.random.default_rng(11), 3, 100, 140)
        return images, reference.alexnet_features(images, None if untrained else torch_home)

    return alexnet_features


@pytest.fixture(scope="session")
def zoo_dir(
    statistics: layouts.FeatureStatistics, alexnet_features: AlexNetFeatures, torch_home: Path
) -> Iterator[Path]:
    """The models on AlexNet (EEG with a PCA layout each), MEG, THINGS fMRI, TVSD and BOLD5000."""
    rng = np.random.default_rng(4)
    with tempfile.TemporaryDirectory() as folder:
        berg_dir = Path(folder)
        for untrained, suffix in ((False, ""), (True, "_untrained")):
            own = layouts.alexnet_statistics(rng, alexnet_features(untrained)[1])
            layouts.write_fsaverage(berg_dir, 1, rng, statistics=own, model_id=f"fmri-nsd_fsaverage-alexnet{suffix}")
            layouts.write_eeg(
                berg_dir, 1, rng, statistics=own, model_id=f"eeg-things_eeg_2-alexnet{suffix}",
                pca_layout="sklearn" if untrained else "single",
            )  # fmt: skip
        splits = [f"single_training_split_{split}" for split in (1, 2, 3, 4)]
        layouts.write_meg(berg_dir, 1, rng, statistics, names=["all_training_splits", *splits])
        layouts.write_things_fmri(berg_dir, 1, rng, statistics)
        layouts.write_tvsd(berg_dir, "N", rng, statistics, names=["all_training_splits", *splits])
        write_bold5000(berg_dir, torch_home, rng)
        yield berg_dir


def write_bold5000(berg_dir: Path, torch_home: Path, rng: np.random.Generator) -> None:
    """A random ResNet-18, and the first subject of BOLD5000 as it is converted from the package."""
    layouts.write_resnet18(torch_home, rng)
    card = model_registry.get_card(layouts.BOLD5000)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(layouts.write_img2fmri(Path(folder), rng).parent))
        write_package_files(card, str(berg_dir), {"subject": "CSI1"})


@pytest.fixture(scope="session")
def bmd_files() -> Iterator[Path]:
    """Subject 1 of BOLD Moments; a scaler and components for all features of S3D."""
    rng = np.random.default_rng(5)
    with tempfile.TemporaryDirectory() as folder:
        mean, scale = rng.uniform(0.3, 0.6, layouts.N_S3D), rng.uniform(0.1, 0.5, layouts.N_S3D)
        layouts.write_bmd_projection(Path(folder), rng, mean, scale)
        layouts.write_bmd(Path(folder), 1, rng)
        yield Path(folder)


@pytest.fixture(scope="session")
def huze_dir() -> Iterator[Path]:
    """Subject 1 of the DINOv2 retina at the published number of vertices, with the smallest network, converted."""
    with tempfile.TemporaryDirectory() as folder:
        first = np.random.default_rng(6).permutation(2 * layouts.N_VERTICES)[:3000]
        retina.write_retina(Path(folder), 1, first=first, sizes=retina.SMALLEST)
        model_registry.get_model_class(layouts.HUZE).convert(folder, subject=1)
        yield Path(folder)


@pytest.fixture(scope="session")
def language_dir(torch_home: Path) -> Iterator[Path]:
    """The models of language, a subject each; their networks, tiny, where downloads of a hub lie."""
    rng = np.random.default_rng(6)
    for name, kind in (("openai-community--gpt2-xl", "gpt2"), ("facebook--opt-1.3b", "opt")):
        language.write_language_model(torch_home / "hub" / "checkpoints" / name / "main", kind)
    with tempfile.TemporaryDirectory() as folder:
        language.write_tuckute(Path(folder), rng)
        language.write_lebel(Path(folder), "UTS01", rng)
        language.write_zada(Path(folder), "01", rng, n_electrodes=5)
        text2fmri.write_text2fmri(Path(folder), rng)
        yield Path(folder)


class FeaturesLikeS3D(torch.nn.Module):
    """In the place of S3D, which takes seconds for a video: as many features, made of the mean of each frame."""

    def forward(self, videos: torch.Tensor) -> list[torch.Tensor]:
        means = videos.flatten(3).float().mean(3).flatten(1) / 255  # (batch, frames * channels)
        n_times = -(-layouts.N_S3D // means.shape[1])
        return [means.repeat(1, n_times)[:, : layouts.N_S3D]]


@pytest.fixture(scope="session")
def mosaic_dir() -> Iterator[Path]:
    """Three subjects of two data sets of MOSAIC, visual cortex; 16 channels."""
    with tempfile.TemporaryDirectory() as folder:
        mosaic.write(Path(folder), mosaic.VISUAL, ["NSD-01", "NSD-02", "NOD-30"], np.random.default_rng(6))
        yield Path(folder)


@pytest.fixture(scope="session")
def mosaic_whole_dir() -> Iterator[Path]:
    """A subject of MOSAIC, the whole cortex."""
    with tempfile.TemporaryDirectory() as folder:
        mosaic.write(Path(folder), mosaic.WHOLE, ["NSD-01"], np.random.default_rng(7))
        yield Path(folder)


@pytest.fixture
def bmd_dir(bmd_files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model of BOLD Moments, on a network that takes no time."""
    monkeypatch.setattr(shared_projection, "network_features", lambda *_: FeaturesLikeS3D())
    return bmd_files


@pytest.fixture(scope="session")
def mouse_dir() -> Iterator[Path]:
    """One scan of the mouse, at reduced size."""
    with tempfile.TemporaryDirectory() as folder:
        mouse_scans.write_scan(Path(folder), 8, 5, 60)
        yield Path(folder)


@pytest.fixture
def own_berg_dir(berg_dir: Path) -> Iterator[Path]:
    """The same files for a test that adds some or replaces some; links, which cost nothing."""
    with linked(berg_dir) as folder:
        yield folder


@pytest.fixture
def own_zoo_dir(zoo_dir: Path) -> Iterator[Path]:
    """As `own_berg_dir`, of the further models."""
    with linked(zoo_dir) as folder:
        yield folder


@contextmanager
def linked(berg_dir: Path) -> Iterator[Path]:
    """A folder with links to the files of another."""
    with tempfile.TemporaryDirectory() as folder:
        for path in berg_dir.rglob("*.*"):
            link = Path(folder, path.relative_to(berg_dir))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        yield Path(folder)


@pytest.fixture(scope="session")
def features_of(torch_home: Path) -> FeaturesOf:
    """Three images of a size, and their features after a transform in float64; each computed once."""

    @cache
    def features_of(size: tuple[int, int], transform: str) -> tuple[reference.Images, reference.Floats]:
        images = layouts.random_images(np.random.default_rng(size), 3, *size)
        return images, reference.network_features(images, torch_home, transform=transform)

    return features_of
