"""Linear readouts on videos: a small network in the place of S3D, the layouts of BOLD Moments, truth in float64."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from marks import slow
from published import layouts, reference
from published.compare import assert_near
from stimuli.test_videos import FFV1, write_video

import berg
from berg import BERG
from berg.cli.app import main
from berg.core import model_registry
from berg.core.exceptions import (
    BERGError,
    CorruptedFileError,
    InvalidParameterError,
    MissingFileError,
    StimulusError,
)
from berg.core.selection import IgnoredSelectionWarning
from berg.families.linearizing import shared_projection
from berg.features.video_transforms import are_padded, unpadded
from berg.responses.nifti import to_nifti
from berg.weights.inspection import inspect_folder

SMALL = "fmri-bmd-s3d_small"
N_FEATURES, N_UNCROPPED = 14 * 3 + 3 * 5, 90
CARD = Path(berg.__file__).parent / "models" / "model_cards" / f"{layouts.BMD}.yaml"


class SmallNetwork(torch.nn.Module):
    """Mean of each frame and channel, and the largest of five rows over all frames."""

    calls = 0

    def __init__(self, n_more: int = 0) -> None:
        super().__init__()
        self.n_more = n_more

    def forward(self, videos: torch.Tensor) -> list[torch.Tensor]:
        if are_padded(videos):
            each = [self(video) for video in unpadded(videos)]
            return [torch.cat(layers) for layers in zip(*each, strict=True)]
        SmallNetwork.calls += 1
        scaled = videos / 255
        rows = scaled[..., :5, :].amax((1, 4))  # (batch, 3, 5)
        return [scaled.mean((3, 4)).flatten(1), torch.cat([rows.flatten(1), rows.new_ones(len(rows), self.n_more)], 1)]


def features_of(clips: Any) -> Any:
    """What the small network makes of 14 frames, in float64."""
    frames = np.array([int(place * (clips.shape[1] - 1) / 13) for place in range(14)])
    scaled = clips[:, frames] / 255
    return np.concatenate(
        [scaled.mean((3, 4)).reshape(len(clips), -1), scaled[..., :5, :].max((1, 4)).reshape(len(clips), -1)], axis=1
    )


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The transforms of the networks that were asked for; blocks are small, so that there are several."""
    asked: list[str] = []

    def small(extractor: str, weights: str, nodes: Any, transform: str, *_: Any) -> SmallNetwork:
        asked.append(transform)
        return SmallNetwork(0 if transform == "preset" else N_UNCROPPED - N_FEATURES)

    monkeypatch.setattr(shared_projection, "network_features", small)
    monkeypatch.setattr(shared_projection, "BLOCK", 16)
    SmallNetwork.calls = 0
    return asked


@pytest.fixture
def small_dir(tmp_path: Path, own_registry: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two subjects of a model whose network has fewer features, in the published layout."""
    monkeypatch.setattr(model_registry, "_stores", {})
    return write_small(tmp_path / "berg")


def write_small(berg_dir: Path, n_features: int = N_FEATURES, subjects: tuple[int, ...] = (1, 2)) -> Path:
    rng = np.random.default_rng(n_features)
    mean, scale = rng.uniform(0.3, 0.6, n_features), rng.uniform(0.05, 0.3, n_features)
    layouts.write_bmd_projection(berg_dir, rng, mean, scale, 6, SMALL)
    for subject in subjects:
        layouts.write_bmd(berg_dir, subject, rng, n_components=6, model_id=SMALL)
    text = CARD.read_text("utf-8").replace(layouts.BMD, SMALL)
    for large, few in (("4084096", N_FEATURES), ("5337088", N_UNCROPPED)):
        assert large in text
        text = text.replace(large, str(few))
    (layouts.model_folder(berg_dir, SMALL) / f"{SMALL}.yaml").write_text(text.replace("model-s3d", "model-s3d_small"))
    return berg_dir


def load(berg_dir: Path, selection: Any = None, subject: int = 1) -> Any:
    return BERG(berg_dir).get_encoding_model(SMALL, device="cpu", subject=subject, selection=selection)


def metadata_of(berg_dir: Path) -> Any:
    path = layouts.model_folder(berg_dir, SMALL) / "metadata" / "metadata_sub-01.npy"
    return np.load(path, allow_pickle=True).item()


def projection_path(berg_dir: Path) -> Path:
    return layouts.model_folder(berg_dir, SMALL) / "encoding_models_weights" / "pca_weights.npy"


def rewrite(berg_dir: Path, change: Any) -> None:
    """Change what the file of all subjects holds."""
    content = np.load(projection_path(berg_dir), allow_pickle=True).item()
    change(content)
    layouts.write_pickled_npy(projection_path(berg_dir), content)


@pytest.fixture(scope="module")
def clips() -> Any:
    return layouts.random_clips(np.random.default_rng(3), 3, 31, 24, 32)


def write_clip(path: Path, clip: Any) -> Path:
    return write_video(path, pictures=np.ascontiguousarray(clip.transpose(0, 2, 3, 1)), **FFV1)


# Stimuli


def test_arrays_and_memory_maps_of_videos_give_the_truth(small_dir: Path, clips: Any, tmp_path: Path) -> None:
    truth = reference.bmd_responses(small_dir, 1, features_of(clips), SMALL)
    model = load(small_dir)
    np.save(tmp_path / "clips.npy", clips)
    mapped = np.load(tmp_path / "clips.npy", mmap_mode="r")
    for stimulus in (clips, mapped, clips.astype(np.int64), list(clips), torch.from_numpy(clips)):
        assert_near(BERG().encode(model, stimulus), truth)
    for size in (1, 2):
        assert_near(BERG().encode(model, mapped, batch_size=size), truth)
    assert_near(BERG().encode(model, clips[:1]), truth[:1])


@pytest.mark.slow
def test_files_and_folders_of_videos_give_the_truth_whatever_their_lengths(
    small_dir: Path, clips: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "notes.txt").write_text("no video")
    shown = {"a.mkv": clips[0], "b.avi": clips[1][:14], "c.mkv": clips[2][:20]}
    files = [write_clip(folder / name, clip) for name, clip in shown.items()]
    each = [reference.bmd_responses(small_dir, 1, features_of(clip[None]), SMALL) for clip in shown.values()]
    model = load(small_dir)
    for stimulus in (folder, str(folder), files):
        labelled = BERG().encode(model, stimulus, labelled=True)
        assert_near(labelled["fmri"].values, np.concatenate(each))
        assert labelled.stimulus.values.tolist() == list(shown)
    assert_near(BERG().encode(model, str(files[1])), each[1])
    assert_near(BERG().encode(model, [berg.load_video(files[0]), files[2]]), np.concatenate([each[0], each[2]]))


def test_part_of_a_film_is_one_stimulus_with_the_name_of_its_file(small_dir: Path, clips: Any, tmp_path: Path) -> None:
    film = write_clip(tmp_path / "film.mkv", np.concatenate([clips[0], clips[1]]))
    truth = reference.bmd_responses(small_dir, 1, features_of(np.concatenate([clips[0], clips[1]])[None, 20:50]), SMALL)
    scene = berg.load_video(film, places=slice(20, 50))
    labelled = BERG().encode(load(small_dir), scene, labelled=True)
    assert_near(labelled["fmri"].values, truth)
    assert labelled.stimulus.values.tolist() == ["film.mkv"]
    assert labelled.attrs["transform"] == "preset"
    stored = BERG().encode(load(small_dir), scene, out=tmp_path / "scene.zarr")
    np.testing.assert_array_equal(stored["fmri"].values, labelled["fmri"].values)


def test_folders_of_videos_go_into_stores(small_dir: Path, clips: Any, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, clip in zip(("a.mkv", "b.mkv"), clips, strict=False):
        write_clip(folder / name, clip)
    given = ["--berg-dir", str(small_dir), "--subject", "2", "--device", "cpu"]
    assert main(["encode", SMALL, "--videos", str(folder), *given, "--out", str(tmp_path / "r.zarr")]) in (0, None)
    assert "to 2 videos" in capsys.readouterr().out
    stored = berg.responses.store.open_responses(tmp_path / "r.zarr")
    assert_near(stored["fmri"].values, reference.bmd_responses(small_dir, 2, features_of(clips[:2]), SMALL))
    with pytest.raises(SystemExit):
        main(["encode", SMALL, "--images", str(folder), *given, "--out", str(tmp_path / "no.zarr")])
    assert "takes videos, which are not given with --images; try --video or --videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda clips: clips[:, :13],
            r"A video of 13 frames is too short: .* takes 14 .* repeat their last frame: .*1,",
        ),
        (
            lambda clips: clips[0],
            r"has shape \(31, 3, 24, 32\); .*For one stimulus add .*: stimulus\[None\]",
        ),
        (lambda clips: clips.transpose(0, 1, 3, 4, 2), r"channels come last; try stimulus.transpose\(0, 1, 4, 2, 3\)"),
        (lambda clips: clips / 255, r"float64 in \[0, 1\]; .*Try \(255 \* stimulus\)"),
        (lambda clips: clips[:0], "The stimulus is empty"),
        (lambda clips: ["nowhere.mp4"], "There is no file or folder nowhere.mp4"),
        (lambda clips: clips.astype(np.int16) - 1, r"values in \[-1, \d+\]"),
    ],
    ids=["short", "one", "colour last", "fractions", "empty", "missing", "negative"],
)
def test_stimuli_that_are_no_videos_are_refused(change: Any, words: str, small_dir: Path, clips: Any) -> None:
    with pytest.raises((StimulusError, MissingFileError), match=words):
        BERG().encode(load(small_dir), change(clips))


def test_files_that_are_too_short_are_named_and_those_of_another_size_are_taken(
    small_dir: Path, clips: Any, tmp_path: Path
) -> None:
    first, short = write_clip(tmp_path / "a.mkv", clips[0]), write_clip(tmp_path / "s.mkv", clips[0][:9])
    other = write_clip(tmp_path / "b.mkv", clips[1][..., :16])
    with pytest.raises(StimulusError, match=r"s\.mkv: A video of 9 frames is too short"):
        BERG().encode(load(small_dir), [first, short])
    model = load(small_dir)
    together = BERG().encode(model, [first, other, first], batch_size=2)
    alone = np.concatenate([BERG().encode(model, [file]) for file in (first, other, first)])
    assert_near(together, alone.astype(np.float64))


# The file of all subjects


def test_subjects_share_the_projection_and_are_encoded_in_one_pass(small_dir: Path, clips: Any) -> None:
    models = [load(small_dir, subject=subject) for subject in (1, 2)]
    assert models[0].features is models[1].features
    responses = BERG().encode(models, clips)
    assert SmallNetwork.calls == 1
    for subject, own in enumerate(responses, start=1):
        assert_near(own, reference.bmd_responses(small_dir, subject, features_of(clips), SMALL))


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f4"])
def test_components_of_other_kinds_give_the_same(dtype: str, small_dir: Path, clips: Any) -> None:
    def change(content: Any) -> None:
        content["pca_param"]["components_"] = np.asfortranarray(content["pca_param"]["components_"].astype(dtype))

    rewrite(small_dir, change)
    truth = reference.bmd_responses(small_dir, 1, features_of(clips), SMALL)
    assert_near(BERG().encode(load(small_dir), clips), truth)


def test_components_stay_in_their_file(small_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berg.weights.npy_files.MAPPED_FROM_BYTES", 1)
    features = load(small_dir).features
    assert not features.mapped.flags.owndata
    assert not features.mapped.flags.writeable
    assert all(tensor.ndim == 1 for tensor in features.buffers())


def test_a_copy_on_a_device_gives_the_same(small_dir: Path, clips: Any) -> None:
    features, given = load(small_dir).features, torch.from_numpy(clips)
    mapped = features(given)
    features.on_device = shared_projection._moved(features.mapped, torch.device("cpu"))
    features.mapped = None
    torch.testing.assert_close(features(given), mapped)


def test_the_number_of_features_tells_the_transform(tmp_path: Path, own_registry: None, asked: list[str]) -> None:
    berg_dir = write_small(tmp_path / "berg", N_UNCROPPED)
    model = load(berg_dir)
    assert asked == ["uncropped"]
    assert model.attributes()["transform"] == "uncropped"
    write_small(berg_dir, 91)
    words = r"is for 91 features; this model's network has 57 \(transform preset\) or 90 \(transform uncropped\)"
    with pytest.raises(CorruptedFileError, match=words):
        load(berg_dir)


def spoil(place: str, value: Any) -> Any:
    section, key = place.split(".")

    def change(content: Any) -> None:
        if isinstance(value, float):
            content[section][key].flat[3] = value
        else:
            content[section][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (spoil("scaler_param.scale_", 0.0), "zero, negative, NaN or infinite values as scales"),
        (spoil("scaler_param.mean_", np.nan), "NaN or infinite values"),
        (spoil("pca_param.components_", np.inf), "NaN or infinite values"),
        (spoil("pca_param.mean_", np.zeros(3)), "has a mean of its components .* which a truncated SVD has not"),
        (spoil("pca_param.n_features_in_", 12), "says 12 features at 'pca_param.n_features_in_' and has 57"),
        (spoil("pca_param.components_", np.ones((2, 57), np.float32)), "on 6 components, .* has 2"),
        (spoil("pca_param.components_", np.ones(57, np.float32)), "no array of 2 axes at 'pca_param.components_'"),
    ],
)
def test_a_damaged_projection_is_refused(change: Any, words: str, small_dir: Path) -> None:
    rewrite(small_dir, change)
    with pytest.raises(CorruptedFileError, match=words):
        load(small_dir)


def test_the_gradient_passes_through_the_file(small_dir: Path, clips: Any) -> None:
    model, rng = load(small_dir), np.random.default_rng(0)
    given = torch.tensor(clips[:1, :17], dtype=torch.float32, requires_grad=True)
    model.predict(given).sum().backward()
    assert given.grad is not None
    step = rng.uniform(-1, 1, given.shape)
    step[:, :, :, :5] = 0  # the largest of a row may change
    clip = given.detach().numpy().astype(float)
    before, after = (
        reference.bmd_responses(small_dir, 1, features_of(clip + way * step), SMALL).sum() for way in (-1, 1)
    )
    np.testing.assert_allclose((given.grad.numpy() * step).sum(), (after - before) / 2, rtol=1e-3)


# Regions, places, files


def test_regions_come_in_the_order_given_each_voxel_once(small_dir: Path, clips: Any) -> None:
    truth = reference.bmd_responses(small_dir, 1, features_of(clips), SMALL)
    rois = {name: places[0] for name, places in metadata_of(small_dir)["fmri"]["rois"].items()}
    assert len(rois) == 47
    rows = list(dict.fromkeys([*rois["rIPS1-2-3"], *rois["BMDgeneral"], *rois["lV1v"]]))
    model = load(small_dir, {"roi": ["rIPS1-2-3", "BMDgeneral", "lV1v"]})
    assert_near(BERG().encode(model, clips), truth[:, rows])
    assert_near(BERG().encode(load(small_dir, {"roi": "rFFA"}), clips), truth[:, rois["rFFA"]])
    assert_near(BERG().encode(load(small_dir, {"voxels": [7, 2]}), clips), truth[:, [7, 2]])
    with pytest.warns(IgnoredSelectionWarning, match="'roi' is selected, so 'voxels' has no effect"):
        model = load(small_dir, {"roi": "lLOC", "voxels": [7, 2]})
    assert_near(BERG().encode(model, clips), truth[:, rois["lLOC"]])
    with pytest.raises(InvalidParameterError, match=r"V1v.*Did you mean"):
        load(small_dir, {"roi": "V1v"})


def test_a_region_of_three_lists_of_indices_is_refused(small_dir: Path) -> None:
    content = metadata_of(small_dir)
    content["fmri"]["rois"]["lV1v"] = np.where(content["fmri"]["sub_mask"])
    path = layouts.model_folder(small_dir, SMALL) / "metadata" / "metadata_sub-01.npy"
    layouts.write_pickled_npy(path, content)
    with pytest.raises(CorruptedFileError, match="lV1v of the metadata is 3 lists of indices, not one list of units"):
        load(small_dir, {"roi": "lV1v"})


def test_voxels_lie_where_the_mask_is_true(small_dir: Path, clips: Any) -> None:
    mask = metadata_of(small_dir)["fmri"]["sub_mask"]
    model = load(small_dir, {"voxels": [80, 5, 44]})
    responses, metadata = BERG().encode(model, clips, return_metadata=True)
    image = to_nifti(responses, metadata)
    assert image.shape == (*mask.shape, 3)
    np.testing.assert_array_equal(image.affine, layouts.BMD_AFFINE)
    inside = np.asarray(image.dataobj)[mask]  # (n_voxels, n_stimuli)
    np.testing.assert_array_equal(inside[[80, 5, 44]].T, responses)
    assert np.isnan(np.delete(inside, [80, 5, 44], axis=0)).all()
    places = metadata["responses"]["fmri"]["coordinates"]
    np.testing.assert_array_equal(places["correlation"][1], metadata["encoding_models"]["correlation"][[80, 5, 44]])
    assert len(metadata["fmri"]["sub_mask_header"]) == 348


def test_a_mask_of_another_number_of_voxels_gives_no_places(small_dir: Path) -> None:
    content = metadata_of(small_dir)
    content["fmri"]["sub_mask"][:] = True
    path = layouts.model_folder(small_dir, SMALL) / "metadata" / "metadata_sub-01.npy"
    layouts.write_pickled_npy(path, content)
    assert not {"i", "j", "k"} & set(load(small_dir).labels()["fmri"]["coordinates"])


def test_accuracy_is_that_of_the_metadata(small_dir: Path) -> None:
    table = BERG(small_dir).accuracy(SMALL, subject=1, selection={"roi": "rFFA"})
    held, rows = metadata_of(small_dir)["encoding_models"], metadata_of(small_dir)["fmri"]["rois"]["rFFA"][0]
    for name in ("correlation", "r2", "explained_variance"):
        np.testing.assert_allclose(table[name].values, held[name][rows])


def test_the_files_of_a_subject_name_the_shared_one_and_the_network(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    names = BERG(tmp_path).files_of(layouts.BMD, subject=[1, 10])
    folder = "encoding_models_weights"
    assert set(names) == {
        f"{folder}/weights_sub-01.npy", f"{folder}/weights_sub-10.npy", f"{folder}/pca_weights.npy",
        "metadata/metadata_sub-01.npy", "metadata/metadata_sub-10.npy",
    }  # fmt: skip
    planned = BERG(tmp_path).plan_download(layouts.BMD, subject=1, ask=False)
    (network,) = [item for item in planned if "s3d-d76dad2f.pth" in str(item)]
    assert "d76dad2f" in str(network)


def test_a_missing_shared_file_is_named_and_the_model_is_not_here_without_it(small_dir: Path) -> None:
    table = inspect_folder(small_dir)
    assert not table.notes
    projection_path(small_dir).unlink()
    with pytest.raises(MissingFileError, match=r"that all subjects of fmri-bmd-s3d_small share .*pca_weights\.npy"):
        load(small_dir)


def test_removing_a_subject_keeps_what_the_others_need(small_dir: Path, capsys: Any) -> None:
    assert main(["remove", SMALL, "--subject", "1", "--yes", "--berg-dir", str(small_dir)]) in (0, None)
    assert projection_path(small_dir).is_file()
    assert not projection_path(small_dir).with_name("weights_sub-01.npy").exists()
    load(small_dir, subject=2)


def test_converted_regressions_give_the_same(small_dir: Path, clips: Any) -> None:
    before = BERG().encode(load(small_dir), clips)
    (written,) = BERG(small_dir).convert(SMALL, subject=1)
    assert written.name == "weights_sub-01.safetensors"
    written.with_suffix(".npy").unlink()
    np.testing.assert_array_equal(BERG().encode(load(small_dir), clips), before)


# A corpus of damaged files


def files_of_subject(berg_dir: Path) -> dict[str, Path]:
    folder = layouts.model_folder(berg_dir, SMALL)
    return {
        "projection": folder / "encoding_models_weights" / "pca_weights.npy",
        "regressions": folder / "encoding_models_weights" / "weights_sub-01.npy",
        "metadata": folder / "metadata" / "metadata_sub-01.npy",
    }


REPLACED: dict[str, Any] = {
    "nothing": lambda value: None,
    "text": lambda value: "text",
    "number": lambda value: 3,
    "empty list": lambda value: [],
    "empty map": lambda value: {},
    "tuple of two": lambda value: (value, value),
    "another axis": lambda value: np.asarray(value)[None],
    "one less": lambda value: np.asarray(value)[:-1] if np.ndim(value) else 7,
    "complex": lambda value: np.asarray(value).astype(complex) if np.asarray(value).dtype.kind in "fiub" else b"",
    "texts": lambda value: np.full(np.shape(value), "x"),
    "not a number": lambda value: np.full(np.shape(value), np.nan, np.float32),
    "all of a kind": lambda value: np.zeros(np.shape(value), np.int64),
}
NEEDED = {  # without which no right number comes out
    "projection": ["scaler_param.scale_", "scaler_param.mean_", "pca_param.components_"],
    "regressions": ["coef_", "intercept_"],
    "metadata": [],
}


def places_of(content: Any, above: str = "") -> list[str]:
    found = []
    for key, value in content.items():
        found += [f"{above}{key}", *(places_of(value, f"{above}{key}.") if isinstance(value, dict) else [])]
    return found


def changed_at(content: Any, place: str, change: Any) -> None:
    *above, last = place.split(".")
    for key in above:
        content = content[key]
    if change is None:
        del content[last]
    else:
        content[last] = change(content[last])


def outcome(berg_dir: Path, clips: Any) -> Any:
    """Responses with labels, or the error that a user reads; anything else is a failure."""
    try:
        with load(berg_dir, {"roi": ["rFFA", "lV1v"]}) as model:
            return BERG().encode(model, clips[:1], labelled=True).fmri.values
    except BERGError as error:
        return error


@pytest.mark.parametrize("which", ["regressions", slow("metadata"), slow("projection")])
@pytest.mark.filterwarnings("ignore::berg.core.selection.EmptySelectionWarning")
def test_every_key_damaged_in_every_way_is_refused_by_name_or_does_not_matter(
    which: str, small_dir: Path, clips: Any
) -> None:
    path, good = files_of_subject(small_dir)[which], outcome(small_dir, clips)
    content = np.load(path, allow_pickle=True).item()
    n_refused = 0
    places = [place for place in places_of(content) if not place.startswith(("fmri.rois.", "fmri.group"))]
    for place in [*places, *(["fmri.rois.rFFA"] if which == "metadata" else [])]:
        for name, change in {"missing": None, **REPLACED}.items():
            damaged = deepcopy(content)
            changed_at(damaged, place, change)
            layouts.write_pickled_npy(path, damaged)
            found = outcome(small_dir, clips)
            if isinstance(found, BERGError):
                n_refused += 1
                named = (place.rpartition(".")[2], path.name, "_sub-01.npy", "ROI")
                assert any(word in str(found) for word in named), (place, name, found)
            else:
                assert place not in NEEDED[which], (place, name)
                if which != "metadata" or "rois" not in place:
                    assert_near(found, good.astype(np.float64))
    layouts.write_pickled_npy(path, content)
    assert n_refused > max(3, 10 * len(NEEDED[which]))


@pytest.mark.parametrize("which", ["regressions", slow("metadata"), slow("projection")])
def test_bytes_that_were_cut_or_changed_end_in_an_error_with_a_name(which: str, small_dir: Path, clips: Any) -> None:
    path, rng = files_of_subject(small_dir)[which], np.random.default_rng(0)
    good = path.read_bytes()
    n_refused = 0
    for trial in range(60):
        damaged = bytearray(good)
        if trial < 20:
            damaged = damaged[: rng.integers(0, len(good))]
        else:
            for place in rng.integers(0, min(len(good), 3000 if trial < 40 else len(good)), 4):
                damaged[place] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        found = outcome(small_dir, clips)
        n_refused += isinstance(found, BERGError)
        assert isinstance(found, (BERGError, np.ndarray))
    path.write_bytes(good)
    assert n_refused >= 20
