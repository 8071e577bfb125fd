from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch

from berg import BERG
from berg.core.exceptions import InvalidParameterError, StimulusError, StimulusWarning

MODEL = "fmri-szinte2024-prf_css"
WITHIN = {"reliable": True, "x_deg": [-4, 4], "y_deg": [-4, 4]}  # voxels that look at the picture


def textured(n_pixels: int = 200) -> np.ndarray:
    """One picture of noise, shape (1, 3, n_pixels, n_pixels)."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 1, n_pixels, n_pixels), dtype=np.uint8)
    return noise.repeat(3, axis=1)


def encode(picture: np.ndarray, **selection: object) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    responses, metadata = BERG().encode(MODEL, picture, return_metadata=True, device="cpu", selection=selection)
    labels = metadata["responses"]["responses"]["coordinates"]
    return responses[0], {name: values for name, (_, values) in labels.items()}


def test_a_left_half_picture_drives_voxels_of_the_left_visual_field_more() -> None:
    picture = textured()
    picture[..., 100:] = 128
    responses, voxel = encode(picture, **WITHIN)
    whole, _ = encode(textured(), **WITHIN)
    share = responses / whole
    clearly_left = voxel["x_deg"] < -2 * voxel["size_deg"]
    clearly_right = voxel["x_deg"] > 2 * voxel["size_deg"]
    assert clearly_left.sum() > 50
    assert clearly_right.sum() > 50
    assert np.median(share[clearly_left]) > 0.95
    assert np.median(share[clearly_right]) < 0.1


def test_an_upper_half_picture_drives_voxels_of_the_upper_visual_field_more() -> None:
    picture = textured()
    picture[..., 100:, :] = 128
    responses, voxel = encode(picture, **WITHIN)
    whole, _ = encode(textured(), **WITHIN)
    share = responses / whole
    assert np.median(share[voxel["y_deg"] > 2 * voxel["size_deg"]]) > 0.95
    assert np.median(share[voxel["y_deg"] < -2 * voxel["size_deg"]]) < 0.1


def test_a_uniform_picture_gives_no_response() -> None:
    responses, _ = encode(np.full((1, 3, 40, 50), 90, np.uint8))
    np.testing.assert_allclose(responses, 0, atol=1e-6)


def test_the_selected_voxels_satisfy_every_key_and_keep_their_responses() -> None:
    everything, voxel = encode(textured())
    selected, chosen = encode(textured(), min_held_out_r2=0.3, eccentricity_deg=[1, 4], x_deg=[0, None])
    kept = (voxel["held_out_r2"] >= 0.3) & (voxel["eccentricity_deg"] >= 1) & (voxel["eccentricity_deg"] <= 4)
    kept &= voxel["x_deg"] >= 0
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(chosen["voxel"], voxel["voxel"][kept])
    np.testing.assert_allclose(selected, everything[kept], rtol=1e-5, atol=1e-6)


def test_a_picture_seen_smaller_drives_voxels_far_from_fixation_less() -> None:
    far = {"eccentricity_deg": [4, 5], "reliable": True}
    wide = BERG().encode(MODEL, textured(), device="cpu", selection=far, stimulus_width_deg=12.0)
    narrow = BERG().encode(MODEL, textured(), device="cpu", selection=far, stimulus_width_deg=4.0)
    assert np.median(narrow) < 0.5 * np.median(wide)


def test_the_gradient_agrees_with_finite_differences_in_float64() -> None:
    model = BERG().get_encoding_model(MODEL, device="cpu", selection={"min_held_out_r2": 0.8}, stimulus_width_deg=2.0)
    picture = torch.rand(1, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 200 + 20
    assert torch.autograd.gradcheck(model.predict, picture.requires_grad_(), eps=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [0.1, 100.0, float("nan"), "10", True])
def test_a_width_that_cannot_be_is_refused(width: object) -> None:
    with pytest.raises(InvalidParameterError, match="stimulus_width_deg"):
        BERG().get_encoding_model(MODEL, device="cpu", stimulus_width_deg=width)


def test_a_picture_higher_than_the_visual_field_is_refused() -> None:
    with pytest.raises(StimulusError, match=re.escape("Give a smaller stimulus_width_deg")):
        BERG().encode(MODEL, np.zeros((1, 3, 2000, 10), np.uint8), device="cpu")


def test_a_mask_is_checked_for_its_length() -> None:
    with pytest.raises(InvalidParameterError, match="length 2,308"):
        BERG().get_encoding_model(MODEL, device="cpu", selection={"voxels": [0, 1, 1]})


def test_metadata_state_how_well_every_voxel_is_predicted() -> None:
    found = BERG().get_model_metadata(MODEL)["encoding_models"]
    assert len(found["held_out_r2"]) == len(found["in_sample_r2"]) == 2308
    assert (found["held_out_r2"][found["reliable"].astype(bool)] > 0.1).all()


@pytest.mark.parametrize(("n_pixels", "width_deg"), [(319, 10.0), (100, 3.2)])
def test_fewer_than_32_pixels_per_degree_are_warned_of(n_pixels: int, width_deg: float) -> None:
    density = n_pixels / width_deg
    with pytest.warns(StimulusWarning, match=rf"{density:.3g} pixels per degree.*From 32 on.*pixels wide"):
        BERG().encode(MODEL, textured(n_pixels), device="cpu", stimulus_width_deg=width_deg)


def test_enough_pixels_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BERG().encode(MODEL, textured(320), device="cpu")
