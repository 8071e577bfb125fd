"""Population receptive fields, against scipy's integrals and closed forms."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import dblquad

from berg.families.prf.readout import (
    DRIVE_EPSILON,
    css_response,
    effective_size,
    gaussian_cell_weights,
    gaussian_interval_weights,
    predict_responses,
)


def _tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def _grid(half_width, cell_size):
    n_on_each_side = round(half_width / cell_size)
    centres = (torch.arange(-n_on_each_side, n_on_each_side, dtype=torch.float64) + 0.5) * cell_size
    return centres, centres.flip(0)


def test_interval_weights_are_differences_of_the_normal_distribution():
    centres, mean, sd = _tensor(-3, -1, 1, 3), _tensor(0.3, -5.0), _tensor(0.2, 4.0)
    normal = stats.norm(mean.numpy(), sd.numpy())
    expected = normal.cdf(centres[:, None] + 1) - normal.cdf(centres[:, None] - 1)
    measured = gaussian_interval_weights(centres, 2.0, mean, sd)
    np.testing.assert_allclose(measured, expected, atol=1e-12)


def test_a_cell_weight_is_the_integral_of_the_gaussian_over_the_cell():
    x, y, size = 0.4, -0.3, 0.5
    weights = gaussian_cell_weights(
        _tensor(-1, 0, 1), _tensor(0.8, 0), (1.0, 0.8), _tensor(x), _tensor(y), _tensor(size)
    )

    def density(v, u):
        return stats.norm.pdf(u, x, size) * stats.norm.pdf(v, y, size)

    expected, _ = dblquad(density, 0.5, 1.5, 0.4, 1.2)  # column 2, row 0
    assert weights[2].item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("size", [0.01, 0.1, 1.0, 3.0])
def test_weights_add_up_to_1_however_small_the_receptive_field(size):
    x_centres, y_centres = _grid(20, 0.5)
    weights = gaussian_cell_weights(
        x_centres, y_centres, 0.5, _tensor(0.1, 2.0), _tensor(-1.3, 0.0), _tensor(size, size)
    )
    np.testing.assert_allclose(weights.sum(0), [1, 1], rtol=1e-8)


def test_half_of_a_receptive_field_beyond_the_border_is_lost():
    x_centres, y_centres = _grid(10, 0.25)
    weights = gaussian_cell_weights(x_centres, y_centres, 0.25, _tensor(10.0), _tensor(0.0), _tensor(0.5))
    assert weights.sum().item() == pytest.approx(0.5)


def test_cells_are_ordered_row_by_row():
    weights = gaussian_cell_weights(
        _tensor(-1, 0, 1), _tensor(0.5, -0.5), 1.0, _tensor(1.0), _tensor(-0.5), _tensor(0.1)
    )
    assert weights.argmax().item() == 5  # last column of the second row


def test_float32_weights_are_never_negative_and_close_to_float64():
    x_centres, y_centres = _grid(10, 0.25)
    generator = torch.Generator().manual_seed(0)
    x, y = 20 * torch.rand(2, 500, generator=generator) - 10
    size = 0.1 + 5 * torch.rand(500, generator=generator)
    arguments = (x_centres, y_centres, 0.25, x, y, size)
    single = gaussian_cell_weights(*(a.float() if torch.is_tensor(a) else a for a in arguments))
    double = gaussian_cell_weights(*(a.double() if torch.is_tensor(a) else a for a in arguments))
    assert single.min() >= 0
    torch.testing.assert_close(single.double(), double, atol=2e-7, rtol=0)


def test_a_blank_screen_evokes_exactly_nothing():
    response = css_response(torch.zeros(1, 2), torch.tensor([0.1, 0.9]), torch.tensor([5.0, 2.0]))
    assert response.tolist() == [[0.0, 0.0]]


def test_response_is_amplitude_times_drive_to_the_exponent():
    drive = np.array([[0.01, 0.2, 1.0]])
    expected = 3.0 * ((drive + DRIVE_EPSILON) ** 0.5 - DRIVE_EPSILON**0.5)
    measured = css_response(torch.from_numpy(drive), _tensor(0.5), _tensor(3.0))
    np.testing.assert_allclose(measured, expected)
    np.testing.assert_allclose(measured, 3.0 * drive**0.5, atol=3.1 * DRIVE_EPSILON**0.5)


def test_an_exponent_of_1_is_linear():
    drive = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    torch.testing.assert_close(css_response(drive, _tensor(1.0), 2.0), 2 * drive)


def test_half_the_field_evokes_more_than_half_the_response_when_compressive():
    response = css_response(_tensor(0.5, 1.0)[:, None], _tensor(0.3))
    assert response[0] > 0.75 * response[1]


def test_prediction_is_the_sum_over_cells_then_the_compression():
    contrast = torch.from_numpy(np.random.default_rng(0).uniform(size=(2, 2, 3)))
    weights = torch.from_numpy(np.random.default_rng(1).uniform(size=(6, 4)))
    exponent, amplitude = _tensor(1.0), _tensor(2.0)
    expected = np.zeros((2, 4))
    for stimulus in range(2):
        for voxel in range(4):
            cells = contrast[stimulus].numpy().ravel()
            expected[stimulus, voxel] = 2 * sum(cells * weights[:, voxel].numpy())
    np.testing.assert_allclose(predict_responses(contrast, weights, exponent, amplitude), expected)


def test_effective_size_is_the_size_of_the_gaussian_to_the_power():
    u = np.linspace(-10, 10, 20001)
    powered = stats.norm.pdf(u, 0, 0.8) ** 0.4
    spread = np.sqrt((u**2 * powered).sum() / powered.sum())
    assert effective_size(_tensor(0.8), _tensor(0.4)).item() == pytest.approx(spread, rel=1e-6)


def test_gradients_reach_contrast_and_every_parameter():
    x_centres, y_centres = _grid(1, 0.5)
    contrast = torch.from_numpy(np.random.default_rng(0).uniform(size=(2, 4, 4)))

    def predict(contrast, x, y, size, exponent, amplitude):
        weights = gaussian_cell_weights(x_centres, y_centres, 0.5, x, y, size)
        return predict_responses(contrast, weights, exponent, amplitude)

    parameters = [_tensor(0.1, -0.4), _tensor(0.2, 0.3), _tensor(0.3, 0.8), _tensor(0.5, 0.9)]
    inputs = [contrast, *parameters, _tensor(1.0, 3.0)]
    assert torch.autograd.gradcheck(predict, [given.requires_grad_() for given in inputs])


def test_the_slope_at_a_blank_screen_is_finite():
    drive = torch.zeros(1, 1, requires_grad=True)
    css_response(drive, torch.tensor([0.1])).sum().backward()
    assert torch.isfinite(drive.grad).all()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_a_picture_has_the_same_bits_whatever_else_is_in_the_batch(n):
    rng = np.random.default_rng(4)
    contrast = torch.from_numpy(rng.random((16, 40, 40), dtype=np.float32))
    weights = torch.from_numpy(rng.random((1600, 700), dtype=np.float32))
    exponent = torch.from_numpy(rng.uniform(0.3, 1, 700).astype(np.float32))
    together = predict_responses(contrast, weights, exponent)
    parts = [predict_responses(part, weights, exponent) for part in torch.split(contrast, n)]
    assert torch.equal(torch.cat(parts), together)
