import numpy as np
import pytest
from model_of_pixels import pixel_model

import berg
from berg.core.exceptions import InvalidParameterError
from berg.experiments import draw, tuning
from berg.stimuli.drawn import GREY_LUMINANCE, Screen, coarse

SCREEN = Screen(4, 64)


def gabors(orientations, frequency=2.0):
    """Linear units with a phase each, rectified by the model: they prefer known gratings."""
    window = np.exp(-(SCREEN.centres[None] ** 2 + SCREEN.centres[:, None] ** 2) / (2 * 0.5**2))
    fields = np.stack([SCREEN.grating(angle, frequency) * window for angle in orientations])
    fields -= fields.mean((1, 2), keepdims=True)
    return fields[:, None].repeat(3, 1) / 3


@pytest.fixture(scope="module")
def simple_cells():
    return pixel_model(gabors([0.0, 30.0, 90.0, 135.0]), power=2.0)


def test_orientation_and_spatial_frequency_of_gabors_are_found(simple_cells):
    over_angle = tuning(simple_cells, "orientation", width_deg=4)
    apart = (over_angle.preferred.values - [0, 30, 90, 135] + 90) % 180 - 90
    np.testing.assert_allclose(apart, 0, atol=1)
    assert (over_angle.selectivity > 0.5).all()
    assert over_angle.response.values.argmax(0).tolist() == [0, 2, 6, 9]
    over_frequency = tuning(
        simple_cells, "spatial_frequency", [0.5, 1, 2, 4], width_deg=4, orientations_deg=[0, 30, 90, 135]
    )
    assert over_frequency.preferred.values.tolist() == [2, 2, 2, 2]
    assert draw(over_angle).axes
    assert draw(over_frequency).axes


def test_size_contrast_and_position_of_a_known_unit():
    middle, far = SCREEN.disc(1, -1, 0.4), SCREEN.disc(0, 0, 2) - SCREEN.disc(0, 0, 1)
    model = pixel_model(np.stack([middle, 0 * middle])[:, None].repeat(3, 1) ** 2)
    place = tuning(
        model, "position", np.linspace(-2, 2, 9), width_deg=4, diameter_deg=0.8, cycles_per_deg=1, n_phases=1
    )
    assert (float(place.preferred_x[0]), float(place.preferred_y[0])) == (1, -1)
    assert np.isnan(place.preferred_x[1])
    assert (place.response.dims, place.sizes["y_shown"]) == (("y_shown", "x_shown", "unit"), 9)
    assert draw(place).axes
    ring = pixel_model((SCREEN.disc(0, 0, 1) - far)[None, None].repeat(3, 1) * SCREEN.grating(90, 2), power=1.0)
    size = tuning(ring, "size", [0.5, 1, 2, 3, 4], width_deg=4, n_phases=1, orientations_deg=[90])
    assert float(size.preferred[0]) == 2
    assert float(size.suppression[0]) > 0.9
    contrast = tuning(
        ring, "contrast", [0, 0.25, 0.5, 0.75, 1], width_deg=4, diameter_deg=2, n_phases=1, orientations_deg=[90]
    )
    assert 0.3 < float(contrast.half_contrast[0]) < 0.6
    assert draw(contrast).axes


def test_the_built_in_model_has_no_orientation_and_says_so():
    model = berg.load("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.82})
    found = tuning(model, "orientation", [0, 45, 90, 135], n_phases=1)
    assert np.isnan(found.preferred).all()
    assert (found.x_deg.dims, found.blank.values.tolist()) == (("unit",), [0.0] * found.sizes["unit"])
    assert draw(found).axes


def test_a_vertical_grating_varies_from_left_to_right_and_upper_places_come_first():
    vertical = SCREEN.grating(90, 1)
    assert np.ptp(vertical, axis=0).max() < 1e-12 < 1 < np.ptp(vertical, axis=1).min()
    diagonal = SCREEN.grating(45, 1)  # stripes from lower left to upper right
    assert np.ptp(np.diag(np.fliplr(diagonal))) < 1e-9 < 1 < np.ptp(np.diag(diagonal))
    rows, columns = np.nonzero(SCREEN.disc(1, 1, 0.3))
    assert SCREEN.centres[columns].min() > 0 > SCREEN.centres[rows].max()
    assert np.nonzero(SCREEN.bar(0, 1, 0.2))[0].max() < 32 < np.nonzero(SCREEN.bar(90, 1, 0.2))[1].min()
    assert np.isclose(SCREEN.bar(90, 0.3, 0.5)[0].sum() / SCREEN.pixels_per_deg, 0.5)
    assert np.isclose(SCREEN.square(0.3, -0.2, 0.5).sum() / SCREEN.pixels_per_deg**2, 0.25)


def test_contrast_is_that_of_luminance():
    picture = SCREEN.picture(SCREEN.checks(0.5), contrast=0.5)[0] / 255
    luminance = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    low, high = luminance.min(), luminance.max()
    assert np.isclose((high - low) / (high + low), 0.5, atol=0.01)
    assert np.isclose(luminance.mean(), GREY_LUMINANCE, atol=0.002)
    np.testing.assert_allclose(coarse(np.arange(6.0).reshape(1, 6).repeat(6, 0), 4)[0], [1 / 3, 5 / 3, 10 / 3, 14 / 3])


@pytest.mark.parametrize(
    ("over", "options", "words"),
    [
        ("colour", {}, "measured over orientation"),
        ("orientation", {"values": [10]}, "at least two different numbers"),
        ("spatial_frequency", {"values": [1, 20]}, "up to 8"),
        ("contrast", {"values": [0, 2]}, "must lie between 0 and 1"),
        ("size", {"values": [0, 2]}, "from 0.0625 on"),
        ("size", {"n_phases": 0}, "at least one phase"),
    ],
)
def test_curves_that_cannot_be_are_refused(simple_cells, over, options, words):
    with pytest.raises(InvalidParameterError, match=words):
        tuning(simple_cells, over, width_deg=4, **options)
