import numpy as np
import pytest
from model_of_pixels import pixel_model

import berg
from berg.core.exceptions import InvalidParameterError
from berg.experiments import attribute, draw
from berg.experiments.attribution import METHODS, AttributionWarning
from berg.experiments.random_weights import with_random_weights

PIXELS = 24
GRID = np.linspace(-1, 1, PIXELS)
SPOT = np.exp(-((GRID[None] - 0.4) ** 2 + (GRID[:, None] + 0.3) ** 2) / (2 * 0.2**2))
WEIGHTS = (SPOT * np.array([1.0, -0.5, 0.25])[:, None, None])[None]
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 3, PIXELS, PIXELS), np.uint8)
SMALL = {"batch_size": 64, "n_masks": 4000, "patch_pixels": 4}


@pytest.fixture(scope="module")
def model():
    return pixel_model(WEIGHTS)


def test_maps_of_a_linear_unit_are_its_weights(model):
    for method in ("gradient", "smoothgrad"):
        found = attribute(model, PICTURES, method, **SMALL)
        expected = np.broadcast_to(np.abs(WEIGHTS[0]).max(0) / 255, (2, PIXELS, PIXELS))
        np.testing.assert_allclose(found.attribution, expected, rtol=1e-4, atol=1e-8)
        assert found.is_changed.all()
    parts = (WEIGHTS[0] * (PICTURES - 127.5) / 255).sum(1)
    integrated = attribute(model, PICTURES, "integrated", **SMALL)
    np.testing.assert_allclose(integrated.attribution, parts, atol=1e-6)
    total = integrated.attribution.sum(("row", "column"))
    np.testing.assert_allclose(total, integrated.response - integrated.baseline_response, rtol=1e-4)
    assert (integrated.incompleteness < 1e-4).all()
    assert integrated.is_changed.all()
    assert draw(integrated).axes


def test_occlusion_is_what_a_patch_adds_and_rise_finds_the_place(model):
    parts = (WEIGHTS[0] * (PICTURES - 127.5) / 255).sum(1)
    found = attribute(model, PICTURES[:1], "occlusion", check=False, **SMALL)
    top, left = 8, 16
    starts = range(0, PIXELS - 3, 2)
    covering = [(y, x) for y in starts for x in starts if y <= top < y + 4 and x <= left < x + 4]
    expected = np.mean([parts[0, y : y + 4, x : x + 4].sum() for y, x in covering])
    np.testing.assert_allclose(found.attribution[0, top, left], expected, rtol=1e-4)
    bright = np.where(WEIGHTS[0] > 0, 255, 0).astype(np.uint8)[None]
    rise = attribute(model, bright, "rise", mask_cells=6, **SMALL)
    assert np.corrcoef(rise.attribution.values.ravel(), SPOT.ravel())[0, 1] > 0.8
    assert draw(rise).axes


@pytest.mark.parametrize("power", [0.3, 2.5])
def test_integrals_of_steep_responses_add_up(power):
    positive = pixel_model(np.abs(WEIGHTS), power=power)
    black = np.zeros((3, PIXELS, PIXELS), np.uint8)
    found = attribute(positive, PICTURES, "integrated", baseline=black, check=False)
    assert (found.incompleteness <= 0.01).all()
    total = found.attribution.sum(("row", "column"))
    np.testing.assert_allclose(total, found.response - found.baseline_response, rtol=0.011)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_that_does_not_depend_on_the_weights_is_marked(method):
    same_everywhere = pixel_model(np.ones((1, 3, PIXELS, PIXELS)))  # shuffled, it is the same model
    with pytest.warns(AttributionWarning, match="2 of 2 maps hardly change"):
        found = attribute(same_everywhere, PICTURES, method, **SMALL | {"n_masks": 50})
    np.testing.assert_allclose(found.similarity, 1)
    assert not found.is_changed.any()


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_the_built_in_model_depend_on_its_receptive_fields(method):
    selection = {"reliable": True, "x_deg": [-4, -1], "y_deg": [0, 3], "amplitude": [0, None]}
    v1 = berg.load("fmri-szinte2024-prf_css", selection=selection)
    picture = np.random.default_rng(1).integers(0, 256, (1, 3, 80, 80), np.uint8)
    before = v1(picture)
    found = attribute(v1, picture, method, n_samples=4, n_masks=200, patch_pixels=16)
    assert found.is_changed.all()
    strength = np.abs(found.attribution[0].values)
    rows, columns = (strength.sum(axis) @ np.arange(80) / strength.sum() for axis in (1, 0))
    assert rows < 40
    assert columns < 40
    np.testing.assert_array_equal(v1(picture), before)


def test_random_weights_are_those_of_the_model_in_another_order_and_the_model_stays(model):
    before = model.readout.weights.clone()
    other = with_random_weights(model, seed=1)
    assert (model.readout.weights == before).all()
    assert not (other.readout.weights == before).all()
    np.testing.assert_array_equal(np.sort(other.readout.weights.ravel()), np.sort(before.ravel()))
    assert (with_random_weights(model, seed=1).readout.weights == other.readout.weights).all()


def test_large_weights_are_shuffled_along_their_axes(model, monkeypatch):
    monkeypatch.setattr("berg.experiments.random_weights._WHOLE", 10)
    other = with_random_weights(model, seed=1)
    np.testing.assert_array_equal(np.sort(other.readout.weights.ravel()), np.sort(model.readout.weights.ravel()))
    assert not (other.readout.weights == model.readout.weights).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "grad"}, "Did you mean 'gradient'"),
        ({"unit": 1}, "no unit 1; the model has 1"),
        ({"baseline": np.zeros((3, 8, 8))}, "baseline has shape"),
        ({"method": "occlusion", "patch_pixels": 99}, "a patch fits into the picture"),
    ],
)
def test_what_cannot_be_mapped_is_refused(model, options, words):
    with pytest.raises(InvalidParameterError, match=words):
        attribute(model, PICTURES, **options)
