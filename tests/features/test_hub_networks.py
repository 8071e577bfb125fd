"""Networks of timm, transformers and OpenCLIP: their own features and pictures, nothing run, nothing downloaded."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from late import Late
from PIL import Image
from torch import Tensor, nn

from berg.cli.app import main
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, UnsafeFileError
from berg.features.network_nodes import network_nodes
from berg.features.pretrained_network import network_features, network_file, read_pretrained
from berg.features.stated_weights import downloaded_file, hash_of, hub_url

timm, transformers, open_clip = Late("timm"), Late("transformers"), Late("open_clip")
CPU = torch.device("cpu")
TINY = "berg-test-tiny"  # a configuration of OpenCLIP made here
# Away from 0 and 255: where a bicubic resize overshoots them, PIL cuts off between its two passes, and we behind them.
PICTURES = np.random.default_rng(0).integers(80, 176, (2, 3, 40, 56), np.uint8)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("socket.socket.connect", lambda *given: pytest.fail("nothing may be fetched"))


def with_random_weights(network: nn.Module) -> nn.Module:
    """Random where networks begin with zeros or ones, such as norms and class tokens."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data = parameter.data + 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def stated(place: object, *files: Path) -> str:
    return f"{place} sha256:{hash_of(files)}"


def read(extractor: str, weights: str, *nodes: str) -> list[Tensor]:
    features = network_features(extractor, weights, list(nodes), "preset", "float32", CPU)
    with torch.no_grad():
        return features(torch.from_numpy(PICTURES))


def transformed(extractor: str, weights: str) -> Tensor:
    return network_features(extractor, weights, [], "preset", "float32", CPU).transform(torch.from_numpy(PICTURES))


def pil_pictures() -> list[Image.Image]:
    return [Image.fromarray(picture.transpose(1, 2, 0)) for picture in PICTURES]


def outputs_of(network: nn.Module, node: str, pictures: Tensor) -> Tensor:
    kept = []
    network.get_submodule(node).register_forward_hook(lambda module, given, output: kept.append(output))
    with torch.no_grad():
        network(pictures)
    return kept[0]


# timm


@pytest.fixture
def timm_weights(tmp_path: Path) -> tuple[nn.Module, Path]:
    network = with_random_weights(timm.create_model("test_vit.r160_in1k"))
    torch.save(network.state_dict(), tmp_path / "net.pth")
    return network, tmp_path / "net.pth"


def test_timm_gives_the_tokens_of_timm(timm_weights: tuple[nn.Module, Path]) -> None:
    theirs, path = timm_weights
    weights = stated(path, path)
    every, cls, mean = read("timm/test_vit.r160_in1k", weights, "blocks.1", "blocks.1:cls", "blocks.1:mean")
    tokens = outputs_of(theirs, "blocks.1", transformed("timm/test_vit.r160_in1k", weights))
    assert tokens.shape[1] == theirs.num_prefix_tokens + (160 // 16) ** 2
    torch.testing.assert_close(every, tokens.flatten(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(cls, tokens[:, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mean, tokens[:, 1:].mean(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_convnext.r160_in1k", "test_efficientnet.r160_in1k"])
def test_timm_gives_the_maps_of_timm(name: str, tmp_path: Path) -> None:
    theirs = with_random_weights(timm.create_model(name))
    torch.save(theirs.state_dict(), path := tmp_path / "net.pth")
    weights = stated(path, path)
    node = next(each.name for each in reversed(network_nodes(f"timm/{name}")) if len(each.shape) == 3)
    every, mean = read(f"timm/{name}", weights, node, f"{node}:mean")
    maps = outputs_of(theirs, node, transformed(f"timm/{name}", weights))
    scale = maps.abs().max()
    torch.testing.assert_close(every / scale, maps.flatten(1) / scale, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mean / scale, maps.mean((2, 3)) / scale, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["test_vit.r160_in1k", "vit_tiny_patch16_224"])
def test_pictures_are_made_as_timm_makes_them(name: str, tmp_path: Path) -> None:
    theirs = timm.create_model(name)
    torch.save(theirs.state_dict(), path := tmp_path / "net.pth")
    own = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
    expected = torch.stack([own(picture) for picture in pil_pictures()])
    found = transformed(f"timm/{name}", stated(path, path))
    assert found.shape == expected.shape
    levels = 255 * 0.2  # deviations are 0.2 and more; PIL rounds between its two passes
    assert (found - expected).abs().max() < 2.5 / levels


def test_a_folder_of_timm_brings_its_own_transform(timm_weights: tuple[nn.Module, Path], tmp_path: Path) -> None:
    theirs, _ = timm_weights
    folder = tmp_path / "mine"
    folder.mkdir()
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "crop_pct": 1.0}}))
    files = (folder / "config.json", folder / "pytorch_model.bin")
    _, preset = read_pretrained("timm/test_vit.r160_in1k", stated(folder, *files))
    assert tuple(preset.mean) == (0.1, 0.2, 0.3)
    assert tuple(preset.resize_size) == (160,)
    weights = stated(folder, *files)
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.5, 0.2, 0.3], "crop_pct": 1.0}}))
    with pytest.raises(CorruptedFileError, match="Responses would be wrong"):
        read_pretrained("timm/test_vit.r160_in1k", weights)


def test_the_hub_of_timm_is_read_from_its_cache_and_fetched_by_download(
    timm_weights: tuple[nn.Module, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, path = timm_weights
    name = "test_vit.r160_in1k"
    with pytest.raises(MissingFileError, match=r"hf download timm/test_vit.r160_in1k model.safetensors"):
        read_pretrained(f"timm/{name}", "hub sha256:0123abcd")
    url, place, digits = network_file(f"timm/{name}", "hub sha256:0123abcd") or ("", "", "")
    assert url == hub_url(f"timm/{name}", "model.safetensors", "main")
    assert (Path(place), digits) == (downloaded_file(f"timm/{name}", "model.safetensors", "main"), "0123abcd")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *given, **more: str(path))
    network, _ = read_pretrained(f"timm/{name}", stated("hub@main", path))
    assert torch.equal(network.get_parameter("norm.weight"), theirs.get_parameter("norm.weight"))


def test_random_numbers_of_the_user_stay_as_they_are(timm_weights: tuple[nn.Module, Path]) -> None:
    path = timm_weights[1]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    read("timm/test_vit.r160_in1k", stated(path, path), "blocks.0")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


# What a card may state


def test_weights_without_a_hash_are_refused_with_the_hash_to_write(timm_weights: tuple[nn.Module, Path]) -> None:
    path = timm_weights[1]
    with pytest.raises(InvalidParameterError, match=f"weights: {path} sha256:{hash_of([path])}"):
        read_pretrained("timm/test_vit", str(path))


def test_other_weights_than_the_card_states_are_refused(timm_weights: tuple[nn.Module, Path]) -> None:
    path = timm_weights[1]
    with pytest.raises(CorruptedFileError, match=r"not those of the card.*Responses would be wrong"):
        read_pretrained("timm/test_vit", f"{path} sha256:0123abcd")


def test_weights_of_another_network_are_refused(timm_weights: tuple[nn.Module, Path]) -> None:
    path = timm_weights[1]
    with pytest.raises(CorruptedFileError, match="does not hold the weights of timm/test_vit2"):
        read_pretrained("timm/test_vit2", stated(path, path))


@pytest.mark.parametrize(
    ("extractor", "weights", "words"),
    [
        ("timm/test_vot", "hub", r"no network 'test_vot'. Did you mean 'test_vit'"),
        ("timm/test_vit.r160_in2k", "hub", r"no weights 'test_vit.r160_in2k'. Did you mean 'test_vit.r160_in1k'"),
        ("timm/test_vit", "hub sha256:xyz", "8 to 64 hexadecimal digits"),
        ("timm/test_vit", "/not/there.pth", "neither a file nor a folder"),
        ("open_clip/ViT-B-23", "openai", r"no network 'ViT-B-23'. Did you mean 'ViT-B-32'"),
        ("open_clip/ViT-B-32", "openay", r"no weights 'openay'.* Did you mean 'openai'"),
        ("open_clip/ViT-B-32", "laion2b_s34b_b79k", "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("open_clip/ViT-B-32-quickgelu", "/not/there", "neither a file nor a folder"),
        ("transformers/a/b", "hub", r"not in the cache of the hub. Get it with:  hf download a/b"),
        ("transformers/a/b", "/not/there", "no folder of a model"),
    ],
)
def test_a_wrong_name_is_answered(extractor: str, weights: str, words: str) -> None:
    with pytest.raises((InvalidParameterError, MissingFileError), match=words):
        read_pretrained(extractor, weights)


def test_a_wrong_node_or_part_is_answered_with_the_nearest(timm_weights: tuple[nn.Module, Path]) -> None:
    path = timm_weights[1]
    with pytest.raises(InvalidParameterError, match=r"no module 'blocks.l'. Did you mean 'blocks"):
        read("timm/test_vit", stated(path, path), "blocks.l:cls")
    with pytest.raises(InvalidParameterError, match=r"tokens 'clz'. Did you mean 'cls'"):
        read("timm/test_vit", stated(path, path), "blocks.1:clz")
    with pytest.raises(InvalidParameterError, match=r"'head:cls' cannot be read: 'head' puts out \(1000,\)"):
        read("timm/test_vit", stated(path, path), "head:cls")


# transformers

PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.3, 0.4, 0.5],
}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}


def saved(model: nn.Module, folder: Path, preprocessor: object = PREPROCESSOR) -> str:
    with_random_weights(model).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return weights_of(folder)


def weights_of(folder: Path) -> str:
    names = ("config.json", "preprocessor_config.json", "model.safetensors")
    return stated(folder, *(folder / name for name in names))


VISION_MODELS = {
    "vit": (lambda: transformers.ViTModel(transformers.ViTConfig(**VISION)), 1),
    "dinov2": (lambda: transformers.Dinov2Model(transformers.Dinov2Config(**VISION)), 1),
    "dinov2_with_registers": (
        lambda: transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**VISION, num_register_tokens=3)
        ),
        4,
    ),
    "siglip": (lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)), 0),
}


@pytest.mark.parametrize("name", VISION_MODELS)
def test_transformers_gives_the_tokens_of_transformers(name: str, tmp_path: Path) -> None:
    make, n_in_front = VISION_MODELS[name]
    theirs = make()
    weights, extractor = saved(theirs, tmp_path), f"transformers/{name}"
    listed = [node for node in network_nodes(extractor, str(tmp_path)) if node.shape == (n_in_front + 16, 16)]
    assert listed
    node = listed[-1].name
    assert listed[-1].poolings == (("cls", "mean") if n_in_front else ("mean",))
    every, mean = read(extractor, weights, node, f"{node}:mean")
    tokens = outputs_of(theirs, node, transformed(extractor, weights))
    torch.testing.assert_close(every, tokens.flatten(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mean, tokens[:, n_in_front:].mean(1), atol=1e-5, rtol=1e-4)
    if n_in_front:
        (cls,) = read(extractor, weights, f"{node}:cls")
        torch.testing.assert_close(cls, tokens[:, 0], atol=1e-5, rtol=1e-4)
    else:
        with pytest.raises(InvalidParameterError, match="no class token"):
            read(extractor, weights, f"{node}:cls")


def test_of_pictures_and_texts_the_image_tower_is_read(tmp_path: Path) -> None:
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 1, "bos_token_id": 0}
    whole = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8))
    weights = saved(whole, tmp_path)
    node = next(n.name for n in reversed(network_nodes("transformers/clip", str(tmp_path))) if n.shape == (17, 16))
    (found,) = read("transformers/clip", weights, node)
    with torch.no_grad():
        every = whole.vision_model(transformed("transformers/clip", weights), output_hidden_states=True).hidden_states
    assert min(float((found - layer.flatten(1)).abs().max()) for layer in every) < 1e-4


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
        {"resample": 2, "image_mean": [0.0] * 3},
    ],
    ids=["squash", "crop", "bilinear"],
)
def test_pictures_are_made_as_transformers_makes_them(change: dict[str, object], tmp_path: Path) -> None:
    content = {**PREPROCESSOR, **change}
    if "crop_size" in change:
        content["image_processor_type"] = "BitImageProcessor"
    weights = saved(VISION_MODELS["vit"][0](), tmp_path, content)
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=True)
    expected = theirs(images=list(torch.from_numpy(PICTURES)), return_tensors="pt")["pixel_values"]
    found = transformed("transformers/vit", weights)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1.5 / 255 / 0.3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"do_pad": True}, "pads"),
        ({"rescale_factor": 1 / 127.5}, "not by 1/255"),
        ({"size": {"longest_edge": 32}}, "which is not computed"),
        ({"size": {"shortest_edge": 32}}, "any proportions"),
        ({"resample": 0}, "'nearest'"),
        ({"image_mean": [0.5]}, "1 channels"),
    ],
)
def test_another_transform_is_refused_not_replaced(change: dict[str, object], words: str, tmp_path: Path) -> None:
    weights = saved(VISION_MODELS["vit"][0](), tmp_path, {**PREPROCESSOR, **change})
    with pytest.raises(InvalidParameterError, match=words):
        read_pretrained("transformers/vit", weights)


def test_a_model_that_brings_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('run')")
    configuration = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.A", "AutoModel": "mine.B"}}
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UnsafeFileError, match="brings code of its own"):
        read_pretrained("transformers/mine", weights_of(tmp_path))


def test_missing_weights_are_not_replaced_by_random_ones(tmp_path: Path) -> None:
    saved(VISION_MODELS["vit"][0](), tmp_path)
    configuration = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**configuration, "num_hidden_layers": 3}))
    with pytest.raises(CorruptedFileError, match=r"lacks \d+ weights"):
        read_pretrained("transformers/vit", weights_of(tmp_path))


def test_a_classifier_is_read_without_the_pooler_that_it_lacks(tmp_path: Path) -> None:
    weights = saved(transformers.ViTForImageClassification(transformers.ViTConfig(**VISION)), tmp_path)
    network, _ = read_pretrained("transformers/vit", weights)
    assert not [name for name, _ in network.named_parameters() if "pooler" in name]
    with pytest.raises(InvalidParameterError, match="no module 'pooler"):
        read("transformers/vit", weights, "pooler.dense")


def test_a_model_of_texts_is_refused(tmp_path: Path) -> None:
    weights = saved(transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=20)), tmp_path)
    with pytest.raises(InvalidParameterError, match="no model of pictures"):
        read_pretrained("transformers/bert", weights)


# OpenCLIP


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    content = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / f"{TINY}.json").write_text(json.dumps(content))
    open_clip.add_model_config(tmp_path)
    yield tmp_path
    from open_clip import factory

    factory._MODEL_CONFIGS.pop(TINY)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_open_clip_gives_the_tokens_and_pictures_of_open_clip(tiny: Path, ending: str) -> None:
    theirs, _, own = open_clip.create_model_and_transforms(TINY)
    with_random_weights(theirs)
    path = tiny / f"net{ending}"
    if ending == ".safetensors":
        from safetensors.torch import save_file

        save_file(theirs.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in theirs.state_dict().items()}}, path)
    weights, node = stated(path, path), "transformer.resblocks.1"
    every, cls = read(f"open_clip/{TINY}", weights, node, f"{node}:cls")
    pictures = transformed(f"open_clip/{TINY}", weights)
    tokens = outputs_of(theirs.visual, node, pictures)
    torch.testing.assert_close(every, tokens.flatten(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(cls, tokens[:, 0], atol=1e-5, rtol=1e-4)
    expected = torch.stack([own(picture) for picture in pil_pictures()])
    assert (pictures - expected).abs().max() < 2.5 / 255 / 0.26


def test_weights_trained_with_another_activation_are_computed_with_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = open_clip.create_model(TINY, force_quick_gelu=True)
    torch.save(with_random_weights(theirs).state_dict(), path := tiny / "net.bin")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *given, **more: str(path))
    monkeypatch.setattr("open_clip.list_pretrained_tags_by_model", lambda name: ["quick"])
    listed = {"hf_hub": "a/b/", "quick_gelu": True, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda name, tag: listed)
    weights, node = stated("quick", path), "transformer.resblocks.1"
    (found,) = read(f"open_clip/{TINY}", weights, node)
    tokens = outputs_of(theirs.visual, node, transformed(f"open_clip/{TINY}", weights))
    torch.testing.assert_close(found, tokens.flatten(1), atol=1e-5, rtol=1e-4)


# berg nodes


def test_nodes_are_printed_without_weights(capsys: pytest.CaptureFixture[str]) -> None:
    main(["nodes", "timm/test_vit", "--contains", "blocks.1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.split()[0] == "blocks.1"] == [
        ["blocks.1", "Block", "101", "x", "64", "6,464", ":cls", ":mean"]
    ]
    with pytest.raises(InvalidParameterError, match="Did you mean"):
        network_nodes("timm/test_vot")


@pytest.mark.parametrize("extractor", ["torchvision/alexnet", "efficientnet_lite_pytorch/efficientnet-lite0"])
def test_nodes_of_the_other_providers_have_the_sizes_of_their_outputs(extractor: str) -> None:
    found = {node.name: node.n_features for node in network_nodes(extractor)}
    expected = {"features.2": 46656, "classifier.5": 4096} if "alexnet" in extractor else {"_blocks.0": 16 * 112 * 112}
    assert expected.items() <= found.items()
