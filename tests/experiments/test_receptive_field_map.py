import numpy as np
import pytest
from marks import slow
from model_of_pixels import pixel_model

import berg
from berg.core.exceptions import InvalidParameterError
from berg.experiments import draw, map_receptive_fields

V1 = "fmri-szinte2024-prf_css"
METHODS = [slow("bars"), slow("checks"), "gradient"]


@pytest.fixture(scope="module")
def some_voxels():
    """Reliable ones whose centres lie in the picture, both excited and suppressed."""
    selection = {"reliable": True, "x_deg": [-4.5, 4.5], "y_deg": [-4.5, 4.5]}
    chosen = berg.load(V1, selection=selection).indices_of("responses", "voxel")[::60]
    mask = np.zeros(2308, int)
    mask[chosen] = 1
    return berg.load(V1, selection={"voxels": mask})


def truth_of(model, name):
    return model.labels()["responses"]["coordinates"][name][1]


@pytest.mark.parametrize("method", METHODS)
def test_centres_of_the_built_in_model_are_found(some_voxels, method):
    found = map_receptive_fields(some_voxels, method, step_deg=1, n_carriers=1, pixels=160)
    assert found.sizes["unit"] > 12
    assert (truth_of(some_voxels, "amplitude") < 0).any()
    for own, truth in ((found.x, found.x_deg), (found.y, found.y_deg)):
        assert np.corrcoef(own, truth)[0, 1] > 0.99
    assert np.corrcoef(found["size"], found.size_deg)[0, 1] > 0.95
    assert (np.sign(found.amplitude.values) == np.sign(truth_of(some_voxels, "amplitude"))).all()


def test_a_unit_that_nothing_drives_has_no_receptive_field_and_one_that_sees_all_is_no_gaussian():
    rng = np.random.default_rng(0)
    pixels = 40
    grid = np.linspace(-2, 2, pixels)
    spot = np.exp(-((grid[None] - 1) ** 2 + (grid[:, None] - 0.5) ** 2) / (2 * 0.4**2))
    weights = np.stack([np.zeros((pixels, pixels)), spot, rng.normal(size=(pixels, pixels))])[:, None].repeat(3, 1)
    model = pixel_model(weights)
    carrier = np.full((1, 3, pixels, pixels), 255, np.uint8)  # a linear unit sees no contrast: brightness
    found = map_receptive_fields(
        model, "checks", width_deg=4, carrier=carrier, check_deg=0.4, step_deg=0.2, exponent=False
    )
    assert np.isnan(found.r2[0])
    np.testing.assert_allclose([found.x[1], found.y[1]], [1, -0.5], atol=0.03)
    assert found.r2[1] > 0.98 > 0.5 > found.r2[2]
    assert found.field_map.dims == ("unit", "y_cell", "x_cell")
    y, x = np.unravel_index(found.field_map[1].values.argmax(), found.field_map.shape[1:])
    assert abs(found.x_cell[x] - 1) < 0.3
    assert abs(found.y_cell[y] + 0.5) < 0.3
    assert draw(found).axes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "bar"}, "there are bars, checks, gradient"),
        ({"width_deg": None}, "Give width_deg"),
        ({"pixels": 32}, "takes 40"),
        ({"bar_deg": 9}, "must lie between a pixel"),
        ({"carrier": np.zeros((1, 3, 8, 8), np.uint8)}, "must be uint8 of shape"),
        ({"carrier": "stripes"}, "no 2 carriers 'stripes'"),
    ],
)
def test_what_cannot_be_mapped_is_refused(options, words):
    model = pixel_model(np.ones((1, 3, 40, 40)))
    with pytest.raises(InvalidParameterError, match=words):
        map_receptive_fields(model, **{"width_deg": 4, **options})


def test_the_width_of_the_model_counts(some_voxels):
    with pytest.raises(InvalidParameterError, match="stimulus_width_deg=10"):
        map_receptive_fields(some_voxels, width_deg=8)
    with pytest.raises(InvalidParameterError, match="must be a loaded model, got str"):
        map_receptive_fields(V1)
    with pytest.raises(InvalidParameterError, match="makes colour pictures"):
        map_receptive_fields(berg.load("ephys-rokem2006-ln_renewal"), width_deg=8)
