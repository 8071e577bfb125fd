"""A card alone puts a model on a network of timm; fitted, it is what scikit-learn makes of timm's own tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families.linearizing.test_fit import N_TRAIN, N, card, fit, job, responses
from late import Late
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

from berg.core.exceptions import CorruptedFileError
from berg.families.linearizing.model import read_converted
from berg.features.pretrained_network import network_features
from berg.features.stated_weights import hash_of
from berg.weights.safetensors_files import write_safetensors

timm = Late("timm")

NODES = "blocks.{0..5}:cls"  # of the six blocks of timm's test network, 64 wide


@pytest.mark.slow
def test_a_card_alone_fits_class_tokens_of_timm(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(80, 176, (N, 3, 40, 40), np.uint8)
    theirs = timm.create_model("test_vit.r160_in1k").eval()
    torch.save(theirs.state_dict(), path := tmp_path / "net.pth")
    stated = {
        "extractor": "timm/test_vit.r160_in1k",
        "weights": f"{path} sha256:{hash_of([path])}",
        "nodes": NODES,
        "n_features": 6 * 64,
        "transform": "preset",
    }
    network = network_features(
        *[stated[key] for key in ("extractor", "weights", "nodes", "transform")], "float32", torch.device("cpu")
    )
    tokens: list[torch.Tensor] = []
    for block in theirs.blocks:
        block.register_forward_hook(lambda module, given, output: tokens.append(output[:, 0]))
    with torch.no_grad():
        theirs(network.transform(torch.from_numpy(pictures)))
    features = torch.cat(tokens, 1).double().numpy()
    measured = {"lh": responses(features, 12)}
    steps = ["standardize", {"pca": 10}, "linear"]
    own_card = card(tmp_path, steps, ["lh"], features=stated)
    fitted = fit(job(tmp_path, pictures, measured, tmp_path / "cache", steps, card=own_card))

    write_safetensors(tmp_path / "weights.safetensors", fitted.tensors)
    weights = read_converted(tmp_path / "weights.safetensors", ["lh"])
    scores = (features - weights.centre) @ weights.matrix.T.astype(np.float64) + weights.offset
    found = scores @ weights.coefficients["lh"](np.arange(12)).T + weights.intercepts["lh"]
    scaled = StandardScaler().fit(features[:N_TRAIN]).transform(features)
    expected_scores = PCA(10, svd_solver="full").fit(scaled[:N_TRAIN]).transform(scaled)
    expected = LinearRegression().fit(expected_scores[:N_TRAIN], measured["lh"][:N_TRAIN]).predict(expected_scores)
    np.testing.assert_allclose(found, expected, atol=2e-3 * expected.std())


def test_a_fit_on_other_weights_than_the_card_states_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), path := tmp_path / "net.pth")
    stated = {
        "extractor": "timm/test_vit",
        "weights": f"{path} sha256:{'0' * 64}",
        "nodes": NODES,
        "n_features": 6 * 64,
        "transform": "preset",
    }
    steps = ["standardize", {"pca": 2}, "linear"]
    own_card = card(tmp_path, steps, ["lh"], features=stated)
    pictures = np.zeros((N, 3, 40, 40), np.uint8)
    given = job(tmp_path, pictures, {"lh": np.zeros((N, 2), np.float32)}, tmp_path / "cache", steps, card=own_card)
    with pytest.raises(CorruptedFileError, match="not those of the card"):
        fit(given)
