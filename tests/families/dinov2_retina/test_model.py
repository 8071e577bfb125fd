"""The DINOv2 retina in its published layouts, at reduced size, against a reference in float64 on timm's DINOv2."""

from __future__ import annotations

import gc
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import layouts, retina
from published.compare import assert_near, unit_correlations
from published.retina import SMALLEST, Sizes

import berg
from berg import BERG
from berg.core import model_registry
from berg.core.exceptions import CorruptedFileError, MissingFileError, UnsafeFileError
from berg.core.selection import EmptySelectionWarning
from berg.families.dinov2_retina import published_part, readout
from berg.families.dinov2_retina.features import DirectConvolution
from berg.weights.inspection import inspect_folder
from berg.weights.model_files import StaleConversionWarning

SMALL = "fmri-nsd_fsaverage-huze_small"
CARD = Path(berg.__file__).parent / "models" / "model_cards" / f"{retina.HUZE}.yaml"
N_HEMISPHERE = 35
FIRST = np.array([40, 3, 69, *range(5, 32)])  # 30 of 70, in no order
TRUTH: dict[str, tuple[Any, Any]] = {}


@pytest.fixture(scope="module")
def pictures() -> Any:
    return layouts.random_images(np.random.default_rng(3), 2, 120, 180)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Subject 1 with part 2 for the other vertices, subject 2 with part 2 for all, subject 3 with heads of its own."""
    berg_dir = tmp_path_factory.mktemp("retina")
    write(berg_dir, 1)
    write(berg_dir, 2, joining="all", as_tensor=False, seeds=((1, 2, 7), (1, 2, 8)))
    write(berg_dir, 3, seeds=((1, 9, 3), (1, 2, 9)))
    return berg_dir


def write(berg_dir: Path, subject: int, **options: Any) -> Path:
    given = {"first": FIRST, "n_hemisphere": N_HEMISPHERE, "model_id": SMALL, "empty_rois": ("mTL-bodies", "V3d")}
    folder = retina.write_retina(berg_dir, subject, **{**given, **options})
    text = CARD.read_text("utf-8").replace(retina.HUZE, SMALL)
    for large, few in ("length: 163842", f"length: {N_HEMISPHERE}"), ("163,842", str(N_HEMISPHERE)):
        assert large in text
        text = text.replace(large, few)
    (folder.parent / f"{SMALL}.yaml").write_text(text)
    return folder


@pytest.fixture
def shown(written: Path, own_registry: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three subjects, known to the registry; not to be written to."""
    monkeypatch.setattr(model_registry, "_stores", {})
    return written


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Subject 1 with the smallest network."""
    berg_dir = tmp_path_factory.mktemp("tiny")
    write(berg_dir, 1, sizes=SMALLEST, seeds=((21, 22, 23), (24, 25, 26)))
    return berg_dir


@pytest.fixture
def tiny_dir(tiny_files: Path, tmp_path: Path, own_registry: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to change."""
    monkeypatch.setattr(model_registry, "_stores", {})
    return Path(shutil.copytree(tiny_files, tmp_path / "berg"))


def truth_of(berg_dir: Path, subject: int, pictures: Any) -> tuple[Any, Any]:
    key = f"{berg_dir} {subject} {pictures.shape}"
    if key not in TRUTH:
        TRUTH[key] = retina.responses(berg_dir, subject, pictures, SMALL)
    return TRUTH[key]


def load(berg_dir: Path, subject: int = 1, selection: Any = None, **options: Any) -> Any:
    return BERG(berg_dir).get_encoding_model(SMALL, device="cpu", subject=subject, selection=selection, **options)


def weights_of(berg_dir: Path) -> Path:
    return layouts.model_folder(berg_dir, SMALL) / "encoding_models_weights"


def assert_all_near(responses: Any, truth: Any) -> None:
    assert len(responses) == len(truth) == 2
    for ours, theirs in zip(responses, truth, strict=True):
        assert_near(ours, theirs)


# The same numbers


@pytest.mark.parametrize("subject", [1, 2, 3], ids=["others", "all", "other heads"])
def test_both_ways_of_joining_give_the_truth(subject: int, shown: Path, pictures: Any) -> None:
    truth = truth_of(shown, subject, pictures)
    assert_all_near(BERG().encode(load(shown, subject), pictures), truth)


def test_pictures_of_the_size_of_the_network_are_not_resized(shown: Path) -> None:
    pictures = layouts.random_images(np.random.default_rng(5), 2, 224, 224)
    assert_all_near(BERG().encode(load(shown), pictures), truth_of(shown, 1, pictures))


@pytest.mark.parametrize("convolution", ["direct", "winograd"])
def test_channels_may_be_reduced_before_the_convolutions(
    convolution: str, tmp_path: Path, own_registry: None, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if convolution == "direct":
        monkeypatch.setattr("berg.families.dinov2_retina.features.WinogradConvolution", DirectConvolution)
    sizes = Sizes(64, 3, (0, 2), 4, 8, channels=24)
    write(tmp_path, 1, sizes=sizes, seeds=((11, 12, 13), (14, 15, 16)))
    truth = retina.responses(tmp_path, 1, pictures, SMALL)
    assert_all_near(BERG().encode(load(tmp_path), pictures), truth)


def test_the_codes_of_the_places_are_those_of_a_scale_factor_and_not_of_a_size() -> None:
    grid = torch.randn(1, 37, 37, 4, generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.ones(1, 1, 4), grid.flatten(1, 2)], dim=1)
    codes = published_part.token_codes(positions, torch.full((1, 1, 4), 2.0))
    assert codes.shape == (257, 4)
    torch.testing.assert_close(codes[0], torch.full((4,), 3.0))
    step = 37 / 16.1
    place = (5 + 0.5) * step - 0.5  # of the sixth of 16 along the grid
    weights = torch.tensor([cubic(place - other) for other in range(37)])
    expected = torch.einsum("i,j,ijc->c", weights, weights, grid[0])
    torch.testing.assert_close(codes[1 + 5 * 16 + 5], expected, atol=1e-4, rtol=1e-4)


def cubic(x: float) -> float:
    """Keys's kernel with a = -0.75, PyTorch's."""
    x = abs(x)
    if x < 1:
        return 1.25 * x**3 - 2.25 * x**2 + 1
    return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3 if x < 2 else 0.0


@pytest.mark.filterwarnings("ignore::berg.core.exceptions.SlowPrecisionWarning")
def test_half_precision_is_near(tiny_dir: Path) -> None:
    many = layouts.random_images(np.random.default_rng(6), 4, 224, 224)
    exact, rounded = (BERG().encode(load(tiny_dir, precision=name), many) for name in ("float32", "bfloat16"))
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == np.float32
        assert np.median(unit_correlations(one, other)) > 0.99
        assert np.abs(one - other).max() > 0


def test_predict_agrees_and_is_differentiable(shown: Path, pictures: Any) -> None:
    model = load(shown, selection={"lh_vertices": [4, 3], "rh_vertices": [6]})
    stimulus = torch.from_numpy(pictures).float().requires_grad_()
    predicted = model.predict(stimulus)
    for ours, theirs in zip(predicted, BERG().encode(model, pictures), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-4, atol=1e-5)
    predicted[0].sum().backward()
    assert float(stimulus.grad.abs().max()) > 0


# Selection


@pytest.mark.parametrize(
    "selection",
    [
        {"roi": "V1v"},
        {"roi": ["nsdgeneral", "OVWFA"]},
        {"lh_vertices": [7, 3, 34, 0], "rh_vertices": np.arange(N_HEMISPHERE) % 3 == 1},
        {"lh_vertices": [3]},
        {"lh_vertices": [], "rh_vertices": [5]},
    ],
    ids=["roi", "rois", "vertices", "one hemisphere", "one vertex"],
)
@pytest.mark.parametrize("subject", [1, 2])
@pytest.mark.filterwarnings("ignore::berg.core.selection.EmptySelectionWarning")
def test_selected_vertices_are_columns_of_the_truth(selection: Any, subject: int, shown: Path, pictures: Any) -> None:
    truth = truth_of(shown, subject, pictures)
    model = load(shown, subject, selection)
    for name, ours, all_of_it in zip(("lh", "rh"), BERG().encode(model, pictures), truth, strict=True):
        expected = all_of_it[:, model.indices_of(name, "vertex")]
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, atol=1e-4 * all_of_it.std(), rtol=0)


def test_a_region_without_vertices_gives_arrays_without_columns(shown: Path, pictures: Any) -> None:
    with pytest.warns(EmptySelectionWarning):
        model = load(shown, selection={"roi": "mTL-bodies"})
    assert [array.shape for array in BERG().encode(model, pictures)] == [(2, 0), (2, 0)]


def test_a_part_without_selected_vertices_is_not_read(tiny_dir: Path, pictures: Any) -> None:
    truth = retina.responses(tiny_dir, 1, pictures, SMALL)
    change(tiny_dir, 2, lambda state: state["model.backbone.vision_model.cls_token"].fill_(np.nan))
    model = load(tiny_dir, selection={"lh_vertices": [5, 3], "rh_vertices": [5, 34]})  # 40 and 69 of both hemispheres
    assert len(model.features.trunks) == 1
    for ours, expected in zip(BERG().encode(model, pictures), (truth[0][:, [5, 3]], truth[1][:, [5, 34]]), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4 * truth[0].std(), rtol=0)
    with pytest.raises(CorruptedFileError, match=r"part2\.pth: 'backbone.vision_model.cls_token' has NaN"):
        load(tiny_dir, selection={"lh_vertices": [4]})


def test_only_rows_of_selected_vertices_are_kept(shown: Path) -> None:
    model = load(shown, selection={"lh_vertices": [5, 3, 1], "rh_vertices": [2]})
    kept = [tuple(tensor.shape) for part in model.readout.parts for name, tensor in part.named_buffers() if "w" in name]
    assert kept == [(2, 8), (2, 8)]


def test_vertices_are_computed_in_blocks(shown: Path, pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "BLOCK", 3)
    model = load(shown)
    assert all(vertices.stop - vertices.start <= 3 for part in model.readout.parts for _, vertices in part.blocks)
    assert_all_near(BERG().encode(model, pictures), truth_of(shown, 1, pictures))


# Sharing


def test_networks_with_the_same_tensors_lie_in_memory_once(shown: Path, pictures: Any) -> None:
    models = {subject: load(shown, subject) for subject in (1, 2, 3)}
    first, second = models[1].features.trunks
    assert first.backbone is not second.backbone
    assert models[2].features.trunks[0] is models[2].features.trunks[1] is first  # heads and all
    assert models[3].features.trunks[0] is not first
    assert models[3].features.trunks[0].backbone is models[3].features.trunks[1].backbone is first.backbone
    calls: list[int] = []
    first.backbone.register_forward_hook(lambda *_: calls.append(1))
    responses = BERG().encode([models[2], load(shown, 2)], pictures)
    assert len(calls) == 1
    for each in responses:
        assert_all_near(each, truth_of(shown, 2, pictures))
    del models, first, second
    gc.collect()


# berg convert


@pytest.mark.parametrize("joining", ["complement", "all"])
def test_converted_parts_give_the_same(joining: Any, tiny_dir: Path, pictures: Any) -> None:
    if joining == "all":
        write(tiny_dir, 1, sizes=SMALLEST, joining=joining)
    before = BERG().encode(load(tiny_dir), pictures)
    paths = BERG(tiny_dir).convert(SMALL, subject=1)
    assert [path.name for path in paths] == ["subj01_part1.safetensors", "subj01_part2.safetensors"]
    for path in weights_of(tiny_dir).glob("*.pth"):
        path.unlink()
    for selection in (None, {"lh_vertices": [3, 5], "rh_vertices": [2]}):
        model = load(tiny_dir, 1, selection)
        for name, ours, expected in zip(("lh", "rh"), BERG().encode(model, pictures), before, strict=True):
            np.testing.assert_allclose(ours, expected[:, model.indices_of(name, "vertex")], rtol=1e-6, atol=1e-6)


def test_converted_and_published_networks_are_known_to_be_the_same(tiny_dir: Path) -> None:
    published = load(tiny_dir)
    BERG(tiny_dir).convert(SMALL, subject=1)
    assert load(tiny_dir).features is published.features


def test_a_converted_part_of_another_file_is_not_used(tiny_dir: Path) -> None:
    BERG(tiny_dir).convert(SMALL, subject=1)
    change(tiny_dir, 1, lambda state: state["model.backbone.vision_model.cls_token"].add_(1))
    with pytest.warns(StaleConversionWarning, match=r"berg convert fmri-nsd_fsaverage-huze_small --subject 1"):
        load(tiny_dir)


# Other forms


def without_prefix(state: Any) -> Any:
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "form",
    [
        without_prefix,
        lambda state: {name: tensor.double() for name, tensor in state.items()},
        lambda state: {name: torch.nn.Parameter(tensor) for name, tensor in state.items()},
        lambda state: {**state, "model.layer_selector.subj07.mlp.1.weight": torch.zeros(2)},
    ],
    ids=["without prefix", "float64", "parameters", "other subjects"],
)
def test_other_forms_of_the_dict_give_the_same(form: Callable[[Any], Any], tiny_dir: Path, pictures: Any) -> None:
    before = BERG().encode(load(tiny_dir), pictures)
    change(tiny_dir, 1, form)
    for ours, expected in zip(BERG().encode(load(tiny_dir), pictures), before, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


# Hostile files


def change(berg_dir: Path, part: int, to: Callable[[Any], Any]) -> None:
    """Change the dict of a part of subject 1, in place or by what is returned."""
    path = weights_of(berg_dir) / f"subj01_part{part}.pth"
    state = torch.load(path, weights_only=True)
    changed = to(state)
    torch.save(changed if isinstance(changed, (dict, list)) else state, path)


def without(name: str) -> Callable[[Any], Any]:
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def put(name: str, tensor: Any) -> Callable[[Any], Any]:
    return lambda state: {**state, name: tensor}


V, M = "model.backbone.vision_model.", "model.conv_blocks.blocks_dict."


@pytest.mark.parametrize(
    ("to", "words"),
    [
        (without("coord_dict.subj01"), "'coord_dict.subj01' is not there, expected (30, 3)"),
        (without(f"{V}norm.weight"), "'backbone.vision_model.norm.weight' is not there"),
        (without(f"{V}cls_token"), "no tensor of 3 axes at 'backbone.vision_model.cls_token'"),
        (without(f"{V}blocks.1.block.attn.qkv.fc_lora.up.weight"), "'backbone.vision_model.blocks.1.block.attn.qkv."),
        (put(f"{V}cls_token", torch.zeros(1, 1, 120)), "tokens of 120 numbers"),
        (put(f"{V}pos_embed", torch.zeros(1, 1369, 64)), "positions of 1369 tokens; expected are a multiple of 64"),
        (put(f"{V}ls1", torch.zeros(3)), "no use for: backbone.vision_model.ls1"),
        (put(f"{V}blocks.0.adaLN.adaLN_modulation.0.bias", torch.zeros(384)), "no use for: backbone.vision_model."),
        (put(f"{M}1.block.1.0.weight", torch.zeros(64, 64, 3, 3)), "(64, 64, 3, 3), expected (64, 64, 5, 5)"),
        (put(f"{M}1.blocks.0.dwconv.weight", torch.zeros(3)), "ConvNeXt blocks ('conv_blocks.blocks_dict.1.blocks.0"),
        (lambda state: {k: v for k, v in state.items() if f"{M}1." not in k}, "2 blocks, and heads of 0 (from 0)"),
        (put("model.cls_blocks.mlp_dict.1.fc1.weight", torch.zeros(128, 128)), "(128, 128), expected (64, 64)"),
        (put("coord_dict.subj01", torch.zeros(30, 3)), "all vertices of 'coord_dict.subj01' lie at one place"),
        (put("coord_dict.subj01", torch.full((30, 3), torch.nan)), "'coord_dict.subj01' has NaN or infinite values"),
        (put(f"{V}patch_embed.proj.bias", torch.full((64,), torch.inf)), "has NaN or infinite values"),
        (put(f"{V}patch_embed.proj.bias", torch.zeros(64, dtype=torch.int64)), "holds torch.int64 numbers"),
        (put(f"{V}patch_embed.proj.bias", "text"), "'backbone.vision_model.patch_embed.proj.bias' is of shape ()"),
        (lambda state: list(state.values()), "holds no dict of tensors by name"),
        (lambda state: {k.replace("subj01", "subj02"): v for k, v in state.items()}, "it is not a part of subj01"),
    ],
)  # fmt: skip
def test_what_is_no_part_is_refused_by_name(to: Callable[[Any], Any], words: str, tiny_dir: Path) -> None:
    change(tiny_dir, 1, to)
    with pytest.raises(CorruptedFileError, match=re.escape(words)) as refused:
        load(tiny_dir)
    assert "subj01_part1.pth" in str(refused.value)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"subj02": torch.zeros(0)}, "has no vertices of subj01; it has subj02"),
        ({"subj01": torch.from_numpy(FIRST).float()}, "'subj01' is no list of whole numbers"),
        ({"subj01": np.repeat(FIRST[:15], 2)}, "'subj01' is no list of whole numbers, each once"),
        ({"subj01": FIRST[:29]}, "names 29 vertices for 30 of part 1"),
        ({"subj01": np.array([*FIRST[:29], 70])}, "some outside the 70 of the surface"),
        ({"subj01": np.array([*FIRST[:29], -1])}, "some outside the 70 of the surface"),
        ([1, 2], "has no vertices of subj01; it has list"),
    ],
)
def test_vertices_of_part_1_that_are_none_are_refused(held: Any, words: str, tiny_dir: Path) -> None:
    torch.save(held, weights_of(tiny_dir) / "part1_voxel_indices.pt")
    with pytest.raises(CorruptedFileError, match=words):
        load(tiny_dir)


def test_a_part_2_of_another_number_of_vertices_is_refused(tiny_dir: Path) -> None:
    retina.write_part(weights_of(tiny_dir) / "subj01_part2.pth", "subj01", 41, SMALLEST, (1, 2, 3))
    words = r"part2\.pth has 41 vertices beside 30 of part 1; expected are all 70, or the 40 that part 1 has not"
    with pytest.raises(CorruptedFileError, match=words):
        load(tiny_dir)


def test_damaged_hostile_and_missing_files_are_refused(tiny_dir: Path, tmp_path: Path) -> None:
    path = weights_of(tiny_dir) / "subj01_part2.pth"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptedFileError, match="subj01_part2"):
        load(tiny_dir)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptedFileError, match="checksum"):
        load(tiny_dir)
    torch.save({"x": shutil.rmtree}, path)
    with pytest.raises(UnsafeFileError, match="nothing of it was run"):
        load(tiny_dir)
    path.unlink()
    with pytest.raises(
        MissingFileError, match=r"subj01_part2.*berg download fmri-nsd_fsaverage-huze_small --subject 1"
    ):
        load(tiny_dir)
    (weights_of(tiny_dir) / "part1_voxel_indices.pt").unlink()
    path.write_bytes(whole)
    with pytest.raises(MissingFileError, match="part1_voxel_indices"):
        load(tiny_dir)


def test_a_damaged_converted_part_is_refused(tiny_dir: Path) -> None:
    from berg.weights.safetensors_files import read_safetensors, write_safetensors

    path = BERG(tiny_dir).convert(SMALL, subject=1)[0]
    arrays = read_safetensors(path)
    for name in weights_of(tiny_dir).glob("*.pth"):
        name.unlink()
    write_safetensors(path, {**arrays, "readout.bias": np.full(30, np.nan, np.float32)})
    with pytest.raises(CorruptedFileError, match=r"'readout\.bias' has NaN"):
        load(tiny_dir)
    write_safetensors(path, {name: array for name, array in arrays.items() if name != "look.places"})
    with pytest.raises(CorruptedFileError, match=r"missing: look\.places"):
        load(tiny_dir)


# All ways of a stimulus, and what is said of the model


def test_stores_labels_and_files_are_those_of_the_surface(shown: Path, pictures: Any, tmp_path: Path) -> None:
    truth = truth_of(shown, 1, pictures)
    model = load(shown, selection={"roi": ["V1v", "V2v"]})
    labelled = BERG().encode(model, pictures, labelled=True)
    stored = BERG().encode(model, pictures, out=tmp_path / "r.zarr")
    for name, all_of_it in zip(("lh", "rh"), truth, strict=True):
        array = labelled[f"{name}/{name}"]
        chosen = model.indices_of(name, "vertex")
        assert array.attrs["units"] == "z-scored beta"
        assert array.vertex.values.tolist() == chosen.tolist()
        assert {"ncsnr", "roi", "correlation"} <= set(array.coords)
        np.testing.assert_allclose(array.values, all_of_it[:, chosen], atol=1e-4 * all_of_it.std(), rtol=0)
        np.testing.assert_array_equal(stored[f"{name}/{name}"].values, array.values)


def test_files_are_listed_inspected_and_known_to_belong_together(tiny_dir: Path) -> None:
    BERG(tiny_dir).convert(SMALL, subject=1)
    files = BERG(tiny_dir).files_of(SMALL, subject=1)
    assert files == [
        "encoding_models_weights/subj01_part1.pth",
        "encoding_models_weights/subj01_part2.pth",
        "metadata/metadata_subject-01.npy",
        "encoding_models_weights/part1_voxel_indices.pt",
    ]
    found = inspect_folder(tiny_dir)
    assert {file.layout for file in found.files if "weights" in file.header.path} == {"retina, parts"}
    assert found.notes == []
