"""torchvision's networks as they are read: with the published names, formats and options of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from berg.core.exceptions import CorruptedFileError, InvalidParameterError
from berg.features.pretrained_network import NetworkFeatures
from berg.features.torchvision_network import network_file, read_network


@pytest.fixture
def own_torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path


def save(network: nn.Module, name: str, zipped: bool, rename: tuple[str, str] | None = None) -> None:
    state = network.state_dict()
    if rename:
        state = {re.sub(*rename, key): value for key, value in state.items()}
    torch.save(state, network_file(name, "IMAGENET1K_V1")[1], _use_new_zipfile_serialization=zipped)


@pytest.mark.usefixtures("own_torch_home")
@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch_are_read(zipped: bool) -> None:
    theirs = torchvision.models.squeezenet1_1().eval()
    save(theirs, "squeezenet1_1", zipped)
    ours, _ = read_network("squeezenet1_1", "IMAGENET1K_V1")
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours.eval()(pictures), theirs(pictures))


@pytest.mark.usefixtures("own_torch_home")
def test_densenet_is_read_under_the_names_of_its_published_file() -> None:
    theirs = torchvision.models.densenet121().eval()
    save(theirs, "densenet121", False, (r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2."))
    ours, _ = read_network("densenet121", "IMAGENET1K_V1")
    pictures = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours.eval()(pictures), theirs(pictures))


@pytest.mark.usefixtures("own_torch_home")
def test_googlenet_changes_its_input_as_torchvision_has_it_do() -> None:
    """With these weights torchvision sets transform_input, which brings pictures to another mean and deviation."""
    theirs = torchvision.models.googlenet(init_weights=False, transform_input=True).eval()
    save(theirs, "googlenet", True)
    ours, _ = read_network("googlenet", "IMAGENET1K_V1")
    pictures = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours.eval()(pictures), theirs(pictures))


@pytest.mark.usefixtures("own_torch_home")
def test_weights_of_another_network_are_refused() -> None:
    save(torchvision.models.squeezenet1_0(), "squeezenet1_1", True)
    with pytest.raises(CorruptedFileError, match=r"does not hold the weights of squeezenet1_1.*Delete it"):
        read_network("squeezenet1_1", "IMAGENET1K_V1")


def test_a_node_that_puts_out_several_tensors_is_refused() -> None:
    network = NetworkFeatures(nn.Sequential(nn.LSTM(3, 2)), ["0"], lambda pictures: pictures, torch.float32)
    with pytest.raises(InvalidParameterError, match=r"'0' puts out tuple, not one tensor"):
        network(torch.zeros(1, 4, 3))
