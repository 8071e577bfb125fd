"""The transformer over time, against x-transformers, whose weights the published models are."""

import warnings
from pathlib import Path

import pytest
import torch

from berg.core.exceptions import CorruptedFileError
from berg.features.temporal_encoder import read_encoder, rotated, scale_norm

WIDTH, N_HEADS, N_LAYERS = 160, 4, 2  # x-transformers rotates at least 32 dimensions of a head


def published_encoder(scaled=False, n_rotated=None):
    """An encoder of x-transformers with random weights, set as the three published models set theirs."""
    x_transformers = pytest.importorskip("x_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        options = {"dim": WIDTH, "depth": N_LAYERS, "heads": N_HEADS, "attn_dim_head": WIDTH // N_HEADS}
        encoder = x_transformers.Encoder(
            **options,
            use_scalenorm=True,
            rotary_pos_emb=True,
            rotary_emb_dim=n_rotated or WIDTH // N_HEADS,
            scale_residual=scaled,
        )
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.2)
    return encoder.eval()


def tensors_of(encoder):
    return {f"encoder.{name}": tensor.clone() for name, tensor in encoder.state_dict().items()}


@pytest.mark.parametrize(("scaled", "n_rotated"), [(False, None), (True, 32), (True, None)])
def test_the_numbers_are_those_of_x_transformers(scaled, n_rotated):
    theirs = published_encoder(scaled, n_rotated)
    ours = read_encoder(tensors_of(theirs), "encoder.", N_HEADS, Path("model.pt"))
    x = torch.randn(2, 37, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(x)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=2e-5 * expected.std().item())


def test_frequencies_that_a_file_lacks_are_those_of_the_equation():
    tensors = tensors_of(published_encoder(n_rotated=32))
    x = torch.randn(1, 9, WIDTH, generator=torch.Generator().manual_seed(1))
    expected = read_encoder(tensors, "encoder.", N_HEADS, Path("model.pt"))(x)
    del tensors["encoder.rotary_pos_emb.inv_freq"]
    found = read_encoder(tensors, "encoder.", N_HEADS, Path("model.pt"), n_rotated=32)(x)
    torch.testing.assert_close(found, expected)


def test_a_rotation_keeps_what_depends_on_distance_alone():
    angles = torch.arange(8.0)[:, None] * torch.tensor([1.0, 0.3])
    rotation = (angles.cos().repeat(1, 2), angles.sin().repeat(1, 2))
    query, key = torch.randn(2, 6, generator=torch.Generator().manual_seed(0)).unsqueeze(1).expand(2, 8, 6)
    products = rotated(query, rotation) @ rotated(key, rotation).T
    for offset in range(-3, 4):
        diagonal = products.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rotated(query, rotation)[:, 4:], query[:, 4:])


def test_scale_norm_gives_all_vectors_one_length_and_leaves_zeros():
    found = scale_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([2.0]))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0, 0]]) * 2 * 2**0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("encoder.layers.1.1.ff.2.bias"), "no 'encoder.layers.1.1.ff.2.bias'"),
        (lambda w: w.pop("encoder.layers.0.1.to_q.weight"), "no matrix 'encoder.layers.0.1.to_q.weight'"),
        (lambda w: w.update({"encoder.layers.0.1.to_k.weight": torch.ones(2, 2)}), r"to_k.weight' in .* \(2, 2\)"),
        (lambda w: w["encoder.final_norm.g"].fill_(float("nan")), "final_norm.g' .* not finite"),
        (lambda w: w.update({"encoder.layers.0.1.to_out.bias": torch.ones(2)}), "does not have: .*to_out.bias"),
        (lambda w: w.update({"encoder.layers.7.0.0.g": torch.ones(1)}), "blocks 0, 1, 2, 3, 7"),
        (lambda w: w.update({"encoder.rotary_pos_emb.inv_freq": torch.ones(99)}), "99 frequencies"),
    ],
)
def test_weights_of_another_encoder_are_refused_by_name(change, words):
    tensors = tensors_of(published_encoder())
    change(tensors)
    with pytest.raises(CorruptedFileError, match=words):
        read_encoder(tensors, "encoder.", N_HEADS, Path("model.pt"))


def test_heads_must_divide_the_width():
    with pytest.raises(CorruptedFileError, match="width 160, which 7 heads"):
        read_encoder(tensors_of(published_encoder()), "encoder.", 7, Path("model.pt"))
