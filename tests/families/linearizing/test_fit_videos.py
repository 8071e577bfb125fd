"""Linear readouts fitted to videos: frames, features in the cache, and regressions as scikit-learn has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from stimuli.test_videos import FFV1, write_video
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.transforms import functional

from berg import BERG
from berg.cli.app import main
from berg.core.exceptions import StimulusError
from berg.core.model_card import ModelCard
from berg.datasets.dataset import EncodingDataset
from berg.features import pretrained_network
from berg.features.video_transforms import UncroppedVideoTransform, VideoPreset, VideoPresetTransform
from berg.fitting import feature_cache
from berg.fitting.fit import fit_model
from berg.stimuli.video_stimuli import SIZE_CHANNEL, Clips, padded

pytestmark = [
    pytest.mark.filterwarnings("ignore::berg.fitting.penalties.PenaltyGridWarning"),
    pytest.mark.filterwarnings("ignore::berg.datasets.assembly.DatasetWarning"),
]
N, N_TRAIN, N_TAKEN = 34, 26, 3
MODEL = "fmri-simulated-clips"
PRESET = VideoPreset((20, 24), (16, 16), functional.InterpolationMode.BILINEAR, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
RNG = np.random.default_rng(0)


class Small(nn.Module):
    """A network of two layers: (batch, 3, frames, height, width) -> features."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv3d(3, 2, 3, stride=(1, 4, 4))
            self.last = nn.AdaptiveAvgPool3d((1, 2, 2))

    def forward(self, videos: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(videos)))


N_FEATURES = 2 * 1 * 4 * 4 + 2 * 4


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained_network, "read_pretrained", lambda *_: (Small(), PRESET))
    pretrained_network._in_memory.clear()


def clips(n_frames: int = 7, height: int = 18, width: int = 22) -> Any:
    coarse = RNG.integers(0, 256, (N, n_frames, 3, height // 2, width // 2))
    return coarse.repeat(2, 3).repeat(2, 4).astype(np.uint8)


def features_of(videos: Any) -> Any:
    """By hand: frames, resize, crop, normalise, layers side by side, in float64."""
    rows = []
    for video in videos:
        frames = torch.from_numpy(video[[0, (len(video) - 1) // 2, len(video) - 1]])
        resized = functional.resize(frames.float(), [20, 24], antialias=False)
        whole = functional.center_crop(resized, [16, 16]).round() / 255
        given = ((whole - 0.4) / 0.2).transpose(0, 1)[None].double()
        network = Small().double()
        first = network.first(given)
        rows.append(np.concatenate([first.detach().flatten(), network.last(torch.tanh(first)).detach().flatten()]))
    return np.array(rows)


def card(folder: Path, **more: Any) -> Path:
    content = {
        "model_id": MODEL, "modality": "fmri", "training_dataset": "simulated", "species": "none", "stimuli": "Videos",
        "model_architecture": "Linear readout", "creator": "a test", "description": "Simulated voxels.",
        "family": "linearizing",
        "features": {"extractor": "torchvision/s3d", "weights": "KINETICS400_V1", "nodes": ["first", "last"],
                     "n_features": N_FEATURES, "transform": "preset"},
        "readout": {"steps": ["standardize", {"ridge": {"alphas": [100.0], "folds": 3}}], "regression": ""},
        "input": {"kind": "video", "shape": ["batch_size", "n_frames", 3, "height", "width"], "dtype": "uint8",
                  "range": [0, 255], "n_frames": N_TAKEN},
        "output": {"shape": ["batch_size", "n_voxels"]},
        "outputs": [{"name": "fmri", "axes": ["stimulus", "voxel"], "unit": "z"}],
        "axes": {"voxel": {"coordinates": {"voxel": "fmri.voxel"}}},
        "parameters": {"subject": {"type": "int", "required": True, "valid_values": [1], "example": 1}},
        "files": {"weights": "weights_{subject}", "metadata": "metadata_{subject}"},
        "licence": "CC0", "citation": "a test", "references": ["a test"], **more,
    }  # fmt: skip
    path = folder / f"{MODEL}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def measured(features: Any) -> Any:
    weights = RNG.normal(size=(features.shape[1], 4))
    return StandardScaler().fit_transform(features) @ weights + RNG.normal(size=(len(features), 4))


def predicted(features: Any, responses: Any) -> Any:
    """scikit-learn, fitted to the training videos."""
    scaler = StandardScaler().fit(features[:N_TRAIN])
    ridge = Ridge(100.0).fit(scaler.transform(features[:N_TRAIN]), responses[:N_TRAIN])
    return ridge.predict(scaler.transform(features))


SPLITS = {"train": np.arange(N_TRAIN), "test": np.arange(N_TRAIN, N)}


def fitted(tmp_path: Path, data: Any) -> BERG:
    """Fit, and return where the model is."""
    options: dict[str, Any] = {"device": "cpu", "bootstrap": 0, "cache": tmp_path / "cache", "show_progress": False}
    fit_model(card(tmp_path), data, tmp_path / "berg", subject=1, **options)
    return BERG(tmp_path / "berg")


def of_arrays(stimuli: Any, responses: Any) -> EncodingDataset:
    return EncodingDataset.from_arrays(
        stimuli, {"fmri": responses}, axes=("voxel",), unit="z", splits=SPLITS, subject=1
    )


def folder_of(tmp_path: Path, videos: list[Any], responses: Any) -> Path:
    """A dataset's folder with videos in files."""
    (tmp_path / "data" / "clips").mkdir(parents=True)
    for number, video in enumerate(videos):
        path = tmp_path / "data" / "clips" / f"{number:03d}.mkv"
        write_video(path, pictures=np.ascontiguousarray(video.transpose(0, 2, 3, 1)), n_frames=len(video), **FFV1)
    np.save(tmp_path / "data" / "responses.npy", responses.astype(np.float32))
    said = {
        "stimuli": "clips", "subjects": [1], "splits": {"train": list(range(N_TRAIN)), "test": list(range(N_TRAIN, N))},
        "responses": {"fmri": {"path": "responses.npy", "axes": ["stimulus", "voxel"], "unit": "z"}},
    }  # fmt: skip
    (tmp_path / "data" / "dataset.yaml").write_text(yaml.safe_dump(said))
    return tmp_path / "data"


def test_an_array_of_videos_is_fitted_as_scikit_learn_does(tmp_path):
    videos = clips()
    features = features_of(videos)
    responses = measured(features)
    berg = fitted(tmp_path, of_arrays(videos, responses))
    model = berg.get_encoding_model(MODEL, subject=1, device="cpu")
    expected = predicted(features, responses)
    np.testing.assert_allclose(model(videos), expected, atol=2e-4 * expected.std())
    table = berg.accuracy(MODEL, subject=1)
    r = [np.corrcoef(expected[N_TRAIN:, unit], responses[N_TRAIN:, unit])[0, 1] for unit in range(4)]
    np.testing.assert_allclose(table.r, r, atol=1e-4)


@pytest.mark.slow
def test_videos_in_files_of_several_lengths_and_sizes_are_fitted(tmp_path, monkeypatch):
    shapes = [(7, 18, 22), (9, 18, 22), (5, 26, 20)]
    each = [clips(*shape) for shape in shapes]
    videos = [each[number % 3][number] for number in range(N)]
    features = features_of(videos)
    responses = measured(features)
    folder = folder_of(tmp_path, videos, responses)
    berg = fitted(tmp_path, folder)
    model = berg.get_encoding_model(MODEL, subject=1, device="cpu")
    expected = predicted(features, responses)
    files = sorted((folder / "clips").iterdir())
    np.testing.assert_allclose(model(files), expected, atol=2e-4 * expected.std())
    alone = np.concatenate([model([file]) for file in files])
    np.testing.assert_allclose(alone, expected, atol=2e-4 * expected.std())
    stored = berg.encode(model, files, out=tmp_path / "a.zarr")
    np.testing.assert_allclose(stored.fmri, model(files), rtol=1e-5, atol=1e-5)

    def not_again(*_: Any) -> None:
        raise AssertionError("the features were computed again")

    monkeypatch.setattr(feature_cache, "_compute", not_again)
    fit_model(
        card(tmp_path), folder, tmp_path / "other", subject=1, device="cpu", bootstrap=0, cache=tmp_path / "cache",
        show_progress=False,
    )  # fmt: skip


def test_too_short_a_video_is_named(tmp_path):
    videos = [clip for clip in clips()]
    videos[4] = videos[4][:2]
    folder = folder_of(tmp_path, videos, RNG.normal(size=(N, 4)))
    with pytest.raises(StimulusError, match=r"004\.mkv: A video of 2 frames is too short: this model takes 3"):
        fitted(tmp_path, folder)


def test_recordings_with_videos_are_checked_and_a_card_is_written_for_them(tmp_path, capsys):
    folder = folder_of(tmp_path, list(clips()), RNG.normal(size=(N, 4)))
    assert not main(["dataset", "check", str(folder)])
    assert "videos, from 000.mkv to 033.mkv" in " ".join(capsys.readouterr().out.split())
    main(["new", "fmri-mine-clips", "--family", "linearizing", "--data", str(folder), "--out", str(tmp_path)])
    written = yaml.safe_load((tmp_path / "fmri-mine-clips.yaml").read_text())
    assert written["input"]["kind"] == "video"
    assert written["input"]["n_frames"] == 14
    with pytest.raises(SystemExit):
        main(["new", "fmri-mine-prf", "--family", "prf", "--data", str(folder), "--out", str(tmp_path)])
    assert "no model of the family 'prf' takes them" in capsys.readouterr().err
    (folder / "clips" / "003.mkv").write_bytes(b"nothing")
    with pytest.raises(SystemExit):
        main(["dataset", "check", str(folder)])
    assert "003.mkv cannot be opened" in " ".join(capsys.readouterr().out.split())


# Sizes


def clip_files(folder: Path, sizes: list[tuple[int, int]]) -> list[Path]:
    files = []
    for number, (height, width) in enumerate(sizes):
        pictures = RNG.integers(0, 256, (N_TAKEN, height, width, 3), dtype=np.uint8)
        files.append(write_video(folder / f"{number}.mkv", pictures=pictures, n_frames=N_TAKEN, **FFV1))
    return files


@pytest.mark.parametrize("transform", [VideoPresetTransform, UncroppedVideoTransform])
def test_videos_of_several_sizes_are_transformed_each_by_itself(tmp_path, transform):
    expected = ModelCard.read(card(tmp_path)).input
    files = clip_files(tmp_path, [(18, 22), (300, 12), (12, 280), (18, 22)])
    together = Clips(files, expected)
    assert together.shape == (N_TAKEN, SIZE_CHANNEL + 1, 300, 280)
    made = transform(PRESET)
    whole = made(torch.from_numpy(together.read(slice(0, 4))))
    for number, file in enumerate(files):
        alone = Clips([file], expected)
        assert alone.shape[1] == 3
        np.testing.assert_array_equal(whole[number], made(torch.from_numpy(alone.read(slice(0, 1))))[0])
    floats = torch.from_numpy(together.read(slice(0, 4))).float()
    assert made(floats).shape == whole.shape


def test_padded_videos_say_how_large_they_are():
    array = padded([np.full((2, 3, 5, 258), 7, np.uint8)], 300, 400)
    assert array.shape == (1, 2, 4, 300, 400)
    assert array[0, 0, 3, 0, :4].tolist() == [5, 0, 2, 1]
    assert array[0, :, :3].sum() == 7 * 2 * 3 * 5 * 258


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "swin3d_t", "mvit_v1_b", "mvit_v2_s"])
def test_the_transform_of_every_network_of_torchvision_is_its_own(name, monkeypatch):
    from berg.features.torchvision_network import make_network

    network, preset = make_network(name, "KINETICS400_V1")
    assert isinstance(preset, VideoPreset)
    videos = torch.from_numpy(RNG.integers(0, 256, (2, 4, 3, 130, 190), dtype=np.uint8))
    theirs = get_model_weights(name)["KINETICS400_V1"].transforms()
    np.testing.assert_allclose(VideoPresetTransform(preset)(videos), theirs(videos), atol=1e-5)
    assert get_model(name, weights=None) is not None
    del network
