"""The recipe on simulated bars, the parameters it wrote, and (where it is) the recording."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.stats import gamma

import berg
from berg.readouts.prf import css_response, gaussian_cell_weights

RECIPE = Path(__file__).parents[2] / "recipes" / "fmri-szinte2024-prf_css" / "fit.py"
MODEL = (
    Path(berg.__file__).parent / "models/built_in/encoding_models/modality-fmri/train_dataset-szinte2024/model-prf_css"
)
DATA = os.environ.get("BERG_SZINTE2024")
N_VOXELS = 2308


@pytest.fixture(scope="module")
def recipe():
    specification = importlib.util.spec_from_file_location("szinte2024_fit", RECIPE)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    module.REFINEMENT_STEPS = 150  # enough for five voxels
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small arrays: threads that wait for each other cost more than they do
    yield module
    torch.set_num_threads(n_threads)
    del sys.modules[specification.name]


@pytest.fixture(scope="module")
def bars(recipe):
    """Four sweeps at the volumes of the recording, on a coarser grid of 40 by 24 cells."""
    x_profile, y_profile = np.zeros((150, 40)), np.zeros((150, 24))
    for profile, other, sweeps in (
        (x_profile, y_profile, recipe.X_SWEEPS),
        (y_profile, x_profile, recipe.Y_SWEEPS),
    ):
        for sweep, direction in zip(sweeps, (1, -1), strict=True):
            n_volumes, n_cells = sweep.stop - sweep.start, profile.shape[1]
            middles = np.linspace(0, n_cells - 1, n_volumes)[::direction]
            inside = np.abs(np.arange(n_cells) - middles[:, None]) <= 1.5
            profile[sweep], other[sweep] = inside, 1
    x_centres, y_centres = 0.45 * (np.arange(40) - 19.5), -0.45 * (np.arange(24) - 11.5)
    return recipe.Bars(*(torch.from_numpy(array) for array in (x_profile, y_profile, x_centres, y_centres)))


@pytest.fixture(scope="module")
def fields(recipe):
    parameters = [
        (-6.1, 2.2, 1.1, 0.5),
        (0.4, -0.7, 0.5, 0.6),
        (3.3, 3.1, 0.9, 0.4),
        (7.2, -2.8, 1.6, 0.5),
        (-1.5, -4.2, 0.7, 0.7),
    ]
    return recipe.ReceptiveFields(*torch.tensor(parameters, dtype=torch.float64).T)


@pytest.fixture(scope="module")
def weights():
    return load_file(MODEL / "encoding_models_weights" / "weights_subject-01.safetensors")


@pytest.fixture(scope="module")
def metadata():
    return json.loads((MODEL / "metadata" / "metadata_subject-01.json").read_text("utf-8"))


def _bold(recipe, bars, fields, noise, seed=0):
    """Predict through the two-dimensional weights and numpy's convolution, and add noise."""
    cells = gaussian_cell_weights(bars.x_centres, bars.y_centres, bars.cell_size, fields.x, fields.y, fields.size)
    steady = css_response(bars.contrast().flatten(1) @ cells, fields.exponent, 3.0).numpy()
    response = recipe.haemodynamic_response(5.0)
    bold = np.stack([np.convolve(course, response)[: len(course)] for course in steady.T], axis=1)
    bold = bold + noise * np.random.default_rng(seed).standard_normal(bold.shape)
    return torch.from_numpy(bold - bold.mean(0))


def test_haemodynamic_response_is_the_double_gamma_and_adds_up_to_1(recipe):
    response = recipe.haemodynamic_response(6.0)
    assert response.sum() == pytest.approx(1)
    middles = (np.arange(len(response)) + 0.5) * recipe.TR_S
    double_gamma = gamma.pdf(middles, 6) - gamma.pdf(middles, 16) / 6
    np.testing.assert_allclose(response, double_gamma / double_gamma.sum(), atol=5e-3)


def test_known_receptive_fields_are_recovered_from_noisy_bars(recipe, bars, fields):
    bold = _bold(recipe, bars, fields, noise=0.1)
    fitted = recipe.fit_fields(bars, bold, delay_s=5.0)
    np.testing.assert_allclose(fitted.x, fields.x, atol=0.15)
    np.testing.assert_allclose(fitted.y, fields.y, atol=0.15)
    effective = recipe.effective_size(fields.size, fields.exponent)
    recovered = recipe.effective_size(fitted.size, fitted.exponent)
    np.testing.assert_allclose(recovered, effective, rtol=0.15)
    hrf = recipe.convolution_matrix(5.0, len(bold))
    courses = recipe.predict_time_courses(bars, fitted, hrf)
    amplitude, _ = recipe.amplitude_and_baseline(courses, bold)
    np.testing.assert_allclose(amplitude, 3.0, rtol=0.3)


def test_the_other_half_is_predicted_from_one_half(recipe, bars, fields):
    bold = _bold(recipe, bars, fields, noise=0.1)
    halves = (slice(0, recipe.SPLIT_VOLUME), slice(recipe.SPLIT_VOLUME, None))
    of_halves = [recipe.fit_fields(bars, bold, 5.0, half) for half in halves]
    predicted = recipe.predict_held_out(bars, bold, 5.0, of_halves)
    assert recipe.r2_score(bold, predicted).min() > 0.8
    assert np.percentile(recipe.null_r2(bold, predicted), 95) < 0.3


def test_held_out_predictions_do_not_look_at_the_held_out_half(recipe, bars, fields):
    bold = _bold(recipe, bars, fields, noise=0.1)
    disturbed = bold.clone()
    disturbed[recipe.SPLIT_VOLUME :] += 5
    before = recipe.predict_held_out(bars, bold, 5.0, (fields, fields))
    after = recipe.predict_held_out(bars, disturbed, 5.0, (fields, fields))
    torch.testing.assert_close(before[recipe.SPLIT_VOLUME :], after[recipe.SPLIT_VOLUME :], atol=0, rtol=0)


def test_the_product_of_profiles_is_the_drive_of_the_two_dimensional_grid(recipe, bars, fields):
    cells = gaussian_cell_weights(bars.x_centres, bars.y_centres, bars.cell_size, fields.x, fields.y, fields.size)
    steady = css_response(bars.contrast().flatten(1) @ cells, fields.exponent)
    no_delay = torch.eye(len(steady), dtype=torch.float64)
    torch.testing.assert_close(recipe.predict_time_courses(bars, fields, no_delay), steady)


def test_amplitude_and_baseline_are_those_of_least_squares(recipe):
    generator = np.random.default_rng(0)
    course = generator.uniform(size=(30, 1))
    bold = 2.0 * course - 0.7 + 0.1 * generator.standard_normal((30, 1))
    slope, intercept = np.polyfit(course[:, 0], bold[:, 0], 1)
    amplitude, baseline = recipe.amplitude_and_baseline(*map(torch.from_numpy, (course, bold)))
    assert (amplitude.item(), baseline.item()) == pytest.approx((slope, intercept))


def test_a_voxel_that_bars_suppress_is_found_where_it_looks(recipe, bars, fields):
    fitted = recipe.fit_fields(bars, -_bold(recipe, bars, fields, noise=0.1), delay_s=5.0)
    np.testing.assert_allclose(fitted.x, fields.x, atol=0.15)
    np.testing.assert_allclose(fitted.y, fields.y, atol=0.15)


def test_shipped_weights_are_float32_with_one_value_per_voxel(weights):
    assert set(weights) == {"x_deg", "y_deg", "size_deg", "exponent", "amplitude", "baseline"}
    for values in weights.values():
        assert values.dtype == np.float32
        assert values.shape == (N_VOXELS,)
        assert np.isfinite(values).all()


def test_shipped_weights_stay_inside_the_bounds_of_the_recipe(recipe, weights, metadata):
    field, margin = metadata["encoding_models"]["mapped_field_deg"], recipe.CENTRE_MARGIN_DEG
    assert weights["x_deg"].min() >= field["left"] - margin
    assert weights["x_deg"].max() <= field["right"] + margin
    assert weights["y_deg"].min() >= field["bottom"] - margin
    assert weights["y_deg"].max() <= field["top"] + margin
    for name, (lower, upper) in (
        ("size_deg", recipe.SIZE_BOUNDS_DEG),
        ("exponent", recipe.EXPONENT_BOUNDS),
        ("amplitude", (-30, 30)),  # ten times a usual one; the penalty keeps it there
    ):
        assert lower - 1e-6 <= weights[name].min()
        assert weights[name].max() <= upper + 1e-6


def test_shipped_metadata_describes_the_shipped_weights(weights, metadata):
    described = metadata["fmri"]
    for name, values in weights.items():
        np.testing.assert_allclose(described[name], values, rtol=1e-5)
    x, y = np.array(described["x_deg"]), np.array(described["y_deg"])
    np.testing.assert_allclose(described["eccentricity_deg"], np.hypot(x, y), rtol=1e-4)
    np.testing.assert_allclose(described["polar_angle_deg"], np.degrees(np.arctan2(y, x)), atol=1e-3)


def test_shipped_metadata_names_each_source_voxel_once(metadata):
    source_voxel = metadata["fmri"]["source_voxel"]
    assert len(source_voxel) == N_VOXELS
    assert source_voxel == sorted(set(source_voxel))
    assert source_voxel[-1] < 2365
    assert metadata["fmri"]["roi"] == ["V1"] * N_VOXELS


def test_shipped_reliability_follows_from_its_criterion(recipe, metadata):
    facts, described = metadata["encoding_models"], metadata["fmri"]
    assert facts["reliable_criterion"] == recipe.RELIABLE_CRITERION
    x, y = np.array(described["x_deg"]), np.array(described["y_deg"])
    field = facts["mapped_field_deg"]
    inside = (field["left"] < x) & (x < field["right"]) & (field["bottom"] < y) & (y < field["top"])
    extent = np.array(described["size_deg"]) / np.sqrt(described["exponent"])
    expected = (np.array(facts["held_out_r2"]) > 0.1) & inside & (extent < 5)
    assert np.array_equal(facts["reliable"], expected)
    assert 1000 < expected.sum() < 1200


def test_shipped_accuracy_is_that_of_another_half_not_of_the_fit(metadata):
    facts = metadata["encoding_models"]
    reliable = np.array(facts["reliable"])
    held_out, in_sample = np.array(facts["held_out_r2"]), np.array(facts["in_sample_r2"])
    assert (held_out <= 1).all()
    assert (np.abs(facts["held_out_r"]) <= 1).all()
    assert np.median(held_out[reliable]) < np.median(in_sample[reliable])
    assert facts["null_held_out_r2_percentile_99"] < 0.1  # below the criterion


@pytest.mark.skipif(not DATA, reason="BERG_SZINTE2024 does not name the folder of the recording")
class TestRecording:
    def test_bars_are_the_design_matrix_away_from_fixation(self, recipe):
        design = np.load(Path(DATA) / "dm_gazecenter.npz")["arr_0"] / 9
        bars = recipe.read_bars(Path(DATA))
        difference = np.abs(bars.contrast().numpy() - design.transpose(0, 2, 1))
        # Up to 0.3 are single points on the jagged edge of a bar.
        row, column = np.nonzero(difference.max(0) > 0.3)
        assert np.abs(bars.x_centres.numpy()[column]).max() < 0.7
        assert np.abs(bars.y_centres.numpy()[row]).max() < 0.7

    def test_shipped_parameters_reach_the_shipped_accuracy(self, recipe, weights, metadata):
        bars, (bold, source_voxel) = recipe.read_bars(Path(DATA)), recipe.read_bold(Path(DATA))
        assert source_voxel.tolist() == metadata["fmri"]["source_voxel"]
        double = {name: torch.from_numpy(values).double() for name, values in weights.items()}
        fields = recipe.ReceptiveFields(double["x_deg"], double["y_deg"], double["size_deg"], double["exponent"])
        hrf = recipe.convolution_matrix(metadata["encoding_models"]["hrf"]["delay_s"], len(bold))
        courses = recipe.predict_time_courses(bars, fields, hrf)
        r2 = recipe.r2_score(bold, courses * double["amplitude"] + double["baseline"])
        np.testing.assert_allclose(r2, metadata["encoding_models"]["in_sample_r2"], atol=1e-4)
