import copy
import shutil

import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms import InterpolationMode

from berg.features.fused_layers import FusedLinear, PatchEmbedding, SelfAttention, with_channels_last, with_fused_layers
from berg.features.pretrained_network import NetworkFeatures, PresetTransform


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 16, 2, 2, 24, 48, num_classes=5).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def outputs(network, nodes, x):
    found = {}
    modules = dict(network.named_modules())
    for node in nodes:
        modules[node].register_forward_hook(lambda module, inputs, output, node=node: found.update({node: output}))
    with torch.no_grad():
        return network(x), found


NODES = [
    [],
    ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"],
    ["encoder.layers.encoder_layer_0.mlp.0"],
    ["encoder.layers.encoder_layer_0.mlp.1", "encoder.layers.encoder_layer_1.mlp"],
    ["heads.head"],
    ["conv_proj"],
]


@pytest.mark.parametrize("nodes", NODES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_node_puts_out_what_it_did(transformer, nodes, dtype):
    x = torch.randn(3, 3, 32, 32, dtype=dtype)
    expected, expected_nodes = outputs(copy.deepcopy(transformer).to(dtype), nodes, x)
    fused = with_fused_layers(copy.deepcopy(transformer).to(dtype), nodes)
    found, found_nodes = outputs(fused, nodes, x)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert list(found_nodes) == list(expected_nodes)
    for node, output in expected_nodes.items():
        torch.testing.assert_close(found_nodes[node], output, atol=2e-5, rtol=1e-4)
    assert any(isinstance(module, SelfAttention) for module in fused.modules())
    assert not any(type(module) is nn.Linear for module in fused.modules())


@pytest.mark.parametrize("size", [(32, 48), (40, 50)], ids=["whole patches", "a rest at two sides"])
def test_patches_are_embedded_as_by_the_convolution(size):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 20, (8, 16), stride=(8, 16)).eval()
    network = with_fused_layers(nn.Sequential(convolution))
    pictures = torch.randn(2, 3, *size)
    assert isinstance(network[0], PatchEmbedding)
    torch.testing.assert_close(network(pictures), convolution(pictures), atol=1e-5, rtol=1e-4)
    assert network[0].weight.data_ptr() == convolution.weight.data_ptr()


@pytest.mark.parametrize(
    "other",
    [
        {"stride": 7},
        {"stride": 8, "padding": 1},
        {"stride": 8, "dilation": 2},
        {"stride": 8, "groups": 3},
    ],
    ids=str,
)
def test_other_convolutions_stay(other):
    assert type(with_fused_layers(nn.Sequential(nn.Conv2d(3, 6, 8, **other)))[0]) is nn.Conv2d


def test_a_node_inside_the_attention_keeps_the_attention(transformer):
    inside = "encoder.layers.encoder_layer_0.self_attention.out_proj"
    fused = with_fused_layers(copy.deepcopy(transformer), [inside])
    assert inside in dict(fused.named_modules())


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny", "resnet18", "efficientnet_b0", "alexnet"])
def test_other_networks_give_what_they_gave(name):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(x)
        found = with_fused_layers(copy.deepcopy(network))(x)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_weights_are_shared_and_not_copied(transformer):
    network = copy.deepcopy(transformer)
    before = {parameter.data_ptr() for parameter in network.parameters()}
    fused = with_fused_layers(network)
    assert {parameter.data_ptr() for parameter in fused.parameters()} == before
    assert any(isinstance(module, FusedLinear) and module.gelu for module in fused.modules())


def test_attention_between_different_tensors_is_refused():
    attention = SelfAttention(nn.MultiheadAttention(8, 2, batch_first=True))
    x = torch.zeros(1, 2, 8)
    with pytest.raises(NotImplementedError, match="only self-attention"):
        attention(x, x.clone(), x)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("n_pictures", [4, 3])
def test_a_compiled_network_gives_the_same_layers(transformer, n_pictures):
    nodes = ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"]
    pictures = torch.randint(0, 256, (n_pictures, 3, 40, 48), dtype=torch.uint8)
    plain, compiled = (
        NetworkFeatures(copy.deepcopy(transformer), nodes, PresetTransform(Small), torch.float32, compiled)
        for compiled in (False, True)
    )
    with torch.no_grad():
        for one, other in zip(compiled(pictures), plain(pictures), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


class Small:
    """What pictures are brought to."""

    resize_size, crop_size = [36], [32]
    interpolation, antialias = InterpolationMode.BILINEAR, True
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.2, 0.3]


@pytest.mark.parametrize(("name", "nodes"), [("alexnet", ["features.2", "features.7"]), ("resnet18", ["layer1"])])
def test_the_order_in_memory_changes_neither_axes_nor_values(name, nodes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, pictures = torchvision.models.get_model(name).eval(), torch.randn(2, 3, 64, 96)
    found = []
    for own in (copy.deepcopy(network), with_channels_last(copy.deepcopy(network))):
        layers = NetworkFeatures(own, nodes, nn.Identity(), torch.float32)
        with torch.no_grad():
            found.append(layers(pictures))
    assert next(own.parameters()).is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_networks_that_are_not_known_keep_their_order():
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert with_channels_last(network)[0].weight.is_contiguous()
