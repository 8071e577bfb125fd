"""Local contrast of pictures, against closed forms and scipy."""

import numpy as np
import pytest
import skimage.data
import torch
from marks import slow
from PIL import Image
from scipy.ndimage import gaussian_filter

from berg.families.prf.features import (
    CELL_SIZE_DEG,
    DARK_LUMINANCE,
    contrast_grid,
    contrast_map,
    luminance,
    rms_contrast,
)


def _noise(n_stimuli=1, height=60, width=80, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return 255 * torch.rand(n_stimuli, 3, height, width, generator=generator, dtype=dtype)


@pytest.mark.parametrize("value", [0.0, 1.0, 128.0, 255.0])
def test_an_even_picture_has_exactly_no_contrast(value):
    assert contrast_map(torch.full((2, 3, 37, 53), value), 7.3).abs().max() == 0


@pytest.mark.parametrize("value", [0.0, 128.0, 255.0])
def test_an_even_picture_has_a_finite_gradient(value):
    picture = torch.full((1, 3, 30, 40), value, requires_grad=True)
    contrast_map(picture, 5.0).sum().backward()
    assert torch.isfinite(picture.grad).all()


def test_contrast_lies_between_0_and_1():
    pictures = _noise(4)
    pictures[1] = torch.where(pictures[1] > 250, 255.0, 0.0)  # bright dots in the dark
    contrast = contrast_map(pictures, 5.0)
    assert contrast.min() >= 0
    assert contrast.max() == 1


def test_sparse_noise_in_the_dark_has_little_contrast():
    picture = torch.where(_noise() > 127, 1.0, 0.0)  # luminance of 0.0003 at most
    assert contrast_map(picture, 5.0).max() < 0.05


def test_luminance_of_grey_is_the_srgb_transfer():
    grey = torch.tensor([0.0, 10.0, 128.0, 255.0], dtype=torch.float64)
    measured = luminance(grey.expand(1, 3, 1, 4))[0, 0]
    # 128 / 255 is 0.21586 in the tables of the standard; 10 / 255 / 12.92 is on the linear part.
    np.testing.assert_allclose(measured, [0, 10 / 255 / 12.92, 0.2158605, 1], atol=1e-6)


def test_green_is_brighter_than_red_and_red_than_blue():
    primaries = 255 * torch.eye(3, dtype=torch.float64)[:, :, None, None]
    np.testing.assert_allclose(luminance(primaries).flatten(), [0.2126, 0.7152, 0.0722])


def test_rms_contrast_is_standard_deviation_over_mean_under_a_gaussian():
    picture = np.random.default_rng(0).uniform(0.2, 0.8, (50, 70))
    mean = gaussian_filter(picture, 4.0, mode="mirror", truncate=4)
    variance = gaussian_filter(picture**2, 4.0, mode="mirror", truncate=4) - mean**2
    expected = np.sqrt(variance) / (mean + DARK_LUMINANCE)
    measured = rms_contrast(torch.from_numpy(picture)[None], 4.0)[0]
    np.testing.assert_allclose(measured, expected, atol=1.1e-3)  # sqrt of CONTRAST_EPSILON


def test_a_fine_checkerboard_has_its_closed_form_contrast():
    board = (np.indices((64, 64)).sum(0) % 2) * 0.5 + 0.25
    middle = rms_contrast(torch.from_numpy(board)[None], 4.0)[0, 32, 32]
    assert middle == pytest.approx(0.25 / (0.5 + DARK_LUMINANCE), abs=2e-3)


def test_a_window_wider_than_the_picture_still_measures():
    assert torch.isfinite(contrast_map(_noise(1, 3, 40), 4.0)).all()


def test_the_map_has_one_value_per_cell_of_the_grid():
    for shape, width in [((60, 80), 10.0), ((80, 60), 3.3), ((7, 200), 20.0)]:
        grid = contrast_grid(shape, width)
        contrast = contrast_map(_noise(2, *shape), width)
        assert contrast.shape == (2, len(grid.y_centres), len(grid.x_centres))


def test_the_grid_has_right_and_up_positive_and_covers_the_picture():
    grid = contrast_grid((300, 400), 10.0)
    assert grid.x_centres[0] < 0 < grid.x_centres[-1]
    assert grid.y_centres[0] > 0 > grid.y_centres[-1]
    assert len(grid.x_centres) * CELL_SIZE_DEG == 10.0
    assert grid.y_centres[0] + CELL_SIZE_DEG / 2 == 3.75


def test_contrast_appears_where_the_texture_is():
    picture = torch.full((1, 3, 200, 200), 128.0)
    picture[..., :50, 150:] = _noise(1, 50, 50)[0]  # top right quarter of a 10 degree picture
    grid = contrast_grid((200, 200), 10.0)
    contrast = contrast_map(picture, 10.0)[0]
    x = (contrast * grid.x_centres).sum() / contrast.sum()
    y = (contrast * grid.y_centres[:, None]).sum() / contrast.sum()
    # The window reaches half a degree inwards from the texture; the border stops it outwards.
    assert x.item() == pytest.approx(3.75, abs=0.25)
    assert y.item() == pytest.approx(3.75, abs=0.25)


def test_a_picture_of_twice_the_pixels_has_the_same_contrast():
    smooth = torch.nn.functional.interpolate(_noise(1, 12, 16), size=(240, 320), mode="bicubic")
    smooth = smooth.clamp(0, 255)
    large = torch.nn.functional.interpolate(smooth, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(contrast_map(smooth, 10.0), contrast_map(large, 10.0), atol=0.01, rtol=0)


def checks(n_pixels, size_deg=0.25):
    """A checkerboard over 10 degrees, its checks so large whatever the number of pixels."""
    check = (np.arange(n_pixels) + 0.5) / n_pixels * 10 // size_deg
    return torch.from_numpy((check[:, None] + check) % 2 * 255).expand(1, 3, -1, -1)


@pytest.mark.parametrize("size_deg", [0.25, 0.5])
def test_the_same_checks_have_the_same_contrast_whatever_the_number_of_pixels(size_deg):
    expected = contrast_map(checks(640, size_deg).float(), 10.0)
    for n_pixels in (40, 80, 160, 320, 480):
        found = contrast_map(checks(n_pixels, size_deg).float(), 10.0)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_contrast_of_fine_checks_is_that_of_the_blurred_checks_in_closed_form():
    # Of the series of a square wave, 4 / (pi k) at the odd multiples k of 2 cycles per degree, the blur leaves half
    # at 8 cycles per degree, and so 0.5 ** ((f / 8) ** 2); both axes have the same, of luminance 0 or 1.
    amplitudes = [4 / (np.pi * k) * 0.5 ** ((2 * k / 8) ** 2) for k in range(1, 20, 2)]
    deviation = 0.5 * sum(amplitude**2 / 2 for amplitude in amplitudes)  # one axis squared, twice the other's half
    middle = contrast_map(checks(320).double(), 10.0)[0, 16:24, 16:24]
    np.testing.assert_allclose(middle, deviation / (0.5 + DARK_LUMINANCE), rtol=0.02)


def grating(n_pixels, cycles_per_degree, dtype=torch.float64):
    degrees = (torch.arange(n_pixels, dtype=dtype) + 0.5) / n_pixels * 10
    luminance_ = 0.5 + 0.3 * torch.sin(2 * torch.pi * cycles_per_degree * degrees + 0.7)
    encoded = 1.055 * luminance_ ** (1 / 2.4) - 0.055  # sRGB, IEC 61966-2-1
    return 255 * encoded.expand(1, 3, n_pixels, n_pixels)


@pytest.mark.parametrize(("cycles_per_degree", "passes"), [(2, 0.5 ** (1 / 16)), (4, 0.5 ** (1 / 4)), (8, 0.5)])
def test_gratings_lose_what_the_blur_takes(cycles_per_degree, passes):
    middle = contrast_map(grating(960, cycles_per_degree), 10.0)[0, 16:24, 16:24].mean().item()
    assert middle == pytest.approx(0.3 / np.sqrt(2) / (0.5 + DARK_LUMINANCE) * passes, rel=0.02)


@pytest.mark.parametrize(("cycles_per_degree", "within"), [slow(1, 0.005), slow(2, 0.01), (4, 0.03)])
def test_above_32_pixels_per_degree_gratings_do_not_depend_on_the_number_of_pixels(cycles_per_degree, within):
    many = contrast_map(grating(1280, cycles_per_degree), 10.0).mean().item()
    for n_pixels in (320, 400, 500, 640):
        assert contrast_map(grating(n_pixels, cycles_per_degree), 10.0).mean().item() == pytest.approx(many, rel=within)


@pytest.mark.parametrize("name", ["astronaut", "stereo_motorcycle"])
def test_above_32_pixels_per_degree_photographs_do_not_depend_on_the_number_of_pixels(name):
    photograph = getattr(skimage.data, name)()
    photograph = photograph[0] if isinstance(photograph, tuple) else photograph
    square = Image.fromarray(photograph[:500, :500])
    measured = {}
    for n_pixels in (160, 320, 500):
        resized = np.asarray(square.resize((n_pixels, n_pixels), Image.Resampling.BICUBIC))
        measured[n_pixels] = contrast_map(torch.from_numpy(resized.transpose(2, 0, 1).copy())[None], 10.0).mean().item()
    assert measured[320] == pytest.approx(measured[500], rel=0.01)
    assert measured[160] == pytest.approx(measured[500], rel=0.04)


@pytest.mark.parametrize("height", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_pictures_of_few_pixels_do_not_depend_on_their_batch(height, width):
    pictures = torch.randint(0, 256, (16, 3, height, width), generator=torch.Generator().manual_seed(1))
    together = contrast_map(pictures.to(torch.uint8), 10.0)
    alone = torch.cat([contrast_map(picture[None].to(torch.uint8), 10.0) for picture in pictures])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_an_even_black_area_beside_a_white_one_has_no_contrast():
    picture = torch.zeros(1, 3, 320, 320)
    picture[..., 160:] = 255
    assert contrast_map(picture, 10.0)[..., :12].max() < 1e-5


def test_cells_that_the_picture_covers_in_part_are_scaled_by_the_part():
    # 0.6 degrees: the outer cells reach from 0.25 to 0.5 and hold 0.05 degrees of picture each.
    contrast = contrast_map(_noise(1, 60, 60), 0.6)[0]
    assert contrast.shape == (4, 4)
    assert contrast[0, 1] < 0.3 * contrast[1, 1]


def test_pictures_are_measured_independently():
    pictures = _noise(3)
    together = contrast_map(pictures, 5.0)
    alone = torch.cat([contrast_map(picture[None], 5.0) for picture in pictures])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_gradients_from_map_to_picture_are_right():
    picture = 50 + _noise(1, 5, 6, torch.float64) / 2
    assert torch.autograd.gradcheck(lambda p: contrast_map(p, 0.6), picture.requires_grad_())


def test_uint8_pictures_have_the_luminance_of_the_same_values_in_floating_point():
    picture = torch.arange(256, dtype=torch.uint8).repeat(3, 1).reshape(1, 3, 16, 16)
    torch.testing.assert_close(luminance(picture), luminance(picture.float()), atol=1e-6, rtol=1e-5)
