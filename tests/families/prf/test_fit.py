"""Receptive fields from simulated voxels whose fields are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import gamma

from berg.core.exceptions import DatasetError, InvalidParameterError, ModelCardError
from berg.evaluation import pearson_r, r2_score
from berg.families.prf import fit as prf
from berg.families.prf import receptive_fields, recording
from berg.families.prf.readout import css_response, gaussian_cell_weights
from berg.families.prf.receptive_fields import (
    Apertures,
    HaemodynamicResponse,
    ReceptiveFields,
    amplitude_and_baseline,
    haemodynamic_response,
    predict_time_courses,
)
from berg.fitting.fit import fit_model
from berg.fitting.fit_job import Fitted
from families.prf.simulation import (
    CUT,
    FIELDS,
    N_VOLUMES,
    TR_S,
    X_CENTRES,
    Y_CENTRES,
    bars,
    dataset,
    job,
    responses,
    wedges,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small arrays: threads that wait for each other cost more than they do."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def bold() -> np.ndarray:
    return responses(bars(), FIELDS, noise=0.1)


@pytest.fixture(scope="module")
def fitted(bold: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return prf.fit(job(dataset(bars(), bold), tmp_path_factory.mktemp("bars")))


def fit(stimuli: Any, bold: np.ndarray, folder: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Fitted:
    given = job(dataset(stimuli, bold, **changes), folder, **(settings or {}))
    prf.check(given)
    return prf.fit(given)


def extent(found: Any) -> np.ndarray:
    """What a small stimulus would measure as the size; the exponent and the size of the Gaussian trade off."""
    return found["size_deg"] / np.sqrt(found["exponent"])


def check_recovered(found: Any, atol: float = 0.15, rtol: float = 0.15) -> None:
    np.testing.assert_allclose(found["x_deg"], FIELDS["x_deg"], atol=atol)
    np.testing.assert_allclose(found["y_deg"], FIELDS["y_deg"], atol=atol)
    np.testing.assert_allclose(extent(found), extent(FIELDS), rtol=rtol)


def test_known_receptive_fields_are_recovered_from_noisy_bars(fitted):
    check_recovered(fitted.tensors)
    np.testing.assert_allclose(fitted.tensors["amplitude"], 3.0, rtol=0.3)
    assert fitted.facts["haemodynamic_delay_s"] == 5.0
    assert all(values.dtype == np.float32 for values in fitted.tensors.values())


@pytest.mark.slow
def test_known_receptive_fields_are_recovered_from_a_wedge_and_a_ring(tmp_path):
    maps = wedges()
    found = fit(maps, responses(maps, FIELDS, noise=0.05), tmp_path, {"haemodynamic_response": {"delays_s": [5.0]}})
    check_recovered(found.tensors, atol=0.25, rtol=0.25)


@pytest.mark.slow
def test_a_voxel_that_bars_suppress_is_found_where_it_looks(bold, tmp_path):
    found = fit(bars(), -bold, tmp_path, {"haemodynamic_response": {"delays_s": [5.0]}})
    check_recovered(found.tensors)
    assert (found.tensors["amplitude"] < -2).all()


@pytest.mark.slow
def test_many_receptive_fields_are_recovered_as_well_as_noise_allows(tmp_path):
    """Voxels all over the field, half of the variance noise: what the documentation says of the recovery."""
    draw = np.random.default_rng(1)
    fields = {
        "x_deg": draw.uniform(-8, 8, 200),
        "y_deg": draw.uniform(-4.5, 4.5, 200),
        "size_deg": draw.uniform(0.4, 2, 200),
        "exponent": np.exp(draw.normal(np.log(0.5), 0.3, 200)),
    }
    clean = responses(bars(), fields, noise=0.0)
    noisy = clean + clean.std(0) * draw.standard_normal(clean.shape)
    found = fit(bars(), noisy, tmp_path, {"search": {}, "haemodynamic_response": {"delays_s": [5.0]}}).tensors
    off = np.hypot(found["x_deg"] - fields["x_deg"], found["y_deg"] - fields["y_deg"])
    assert np.median(off) < 0.4
    assert np.median(np.abs(np.log(extent(found) / extent(fields)))) < 0.2
    assert np.corrcoef(np.log(extent(found)), np.log(extent(fields)))[0, 1] > 0.8


def test_the_other_part_is_predicted_from_one_part(fitted, bold):
    (held_out,) = fitted.held_out.values()
    np.testing.assert_array_equal(held_out.measured, bold.astype(np.float32))
    assert r2_score(held_out.measured, held_out.predicted).min() > 0.8
    facts = fitted.metadata["encoding_models"]
    np.testing.assert_allclose(facts["held_out_r"], pearson_r(held_out.measured, held_out.predicted), rtol=1e-5)
    np.testing.assert_allclose(facts["held_out_r2"], r2_score(held_out.measured, held_out.predicted), rtol=1e-5)
    assert facts["null_held_out_r2_percentile_99"] < 0.5
    assert facts["folds"][0] == {"fitted": [0, CUT], "held_out": [CUT, N_VOLUMES]}
    assert held_out.in_time


@pytest.mark.slow
def test_held_out_predictions_do_not_look_at_the_held_out_part(fitted, bold, tmp_path):
    disturbed = bold.copy()
    disturbed[CUT:] = disturbed[CUT:][::-1] + 5
    other = fit(bars(), disturbed, tmp_path, {"haemodynamic_response": {"delays_s": [5.0]}})
    before, after = fitted.held_out["responses"].predicted, other.held_out["responses"].predicted
    np.testing.assert_array_equal(before[CUT:], after[CUT:])
    assert np.abs(before[:CUT] - after[:CUT]).max() > 0.1


def test_a_test_split_is_never_fitted(bold, tmp_path):
    splits = {"train": range(CUT), "test": range(CUT, N_VOLUMES)}
    disturbed = bold.copy()
    disturbed[CUT:] = 7.0
    settings = {"cuts": None}
    one, other = (
        fit(bars(), each, tmp_path / str(number), settings, splits=splits)
        for number, each in enumerate((bold, disturbed))
    )
    for name, values in one.tensors.items():
        np.testing.assert_array_equal(values, other.tensors[name])
    held_out = one.held_out["responses"]
    assert held_out.split == "test"
    assert held_out.measured.shape == (N_VOLUMES - CUT, 5)
    assert r2_score(held_out.measured, held_out.predicted).min() > 0.8


def test_missing_volumes_are_left_out_and_are_not_zero(bold, tmp_path):
    gone = np.random.default_rng(0).random(bold.shape) < 0.2
    settings = {"haemodynamic_response": {"delays_s": [5.0]}}
    shifted = bold + 10  # zero is then far from every response
    missing = fit(bars(), np.where(gone, np.nan, shifted), tmp_path, settings)
    check_recovered(missing.tensors)
    assert np.isnan(missing.held_out["responses"].measured).sum() == gone.sum()
    assert np.min(missing.metadata["encoding_models"]["held_out_r2"]) > 0.7


@pytest.mark.slow
def test_runs_of_the_same_sequence_are_averaged(bold, tmp_path):
    settings = {"haemodynamic_response": {"delays_s": [5.0]}}
    noise = 0.5 * np.random.default_rng(0).standard_normal(bold.shape).astype(np.float32)
    twice = np.concatenate([bold.astype(np.float32) + noise, bold.astype(np.float32) - noise])
    runs = fit(bars(), twice, tmp_path, settings, presentations=[*range(N_VOLUMES)] * 2)
    check_recovered(runs.tensors)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*effective samples in time:berg.evaluation.SamplesWarning")
def test_pictures_are_fitted_as_they_are_encoded(tmp_path):
    """Bars of a checkerboard: the model that is written, and the haemodynamic response, give what was fitted."""
    maps = bars()
    checks = 1 - 2 * (np.add.outer(np.arange(24), np.arange(40)) % 2)
    grey = (128 + 127 * maps * checks).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    pictures = np.repeat(grey[:, None], 3, axis=1)
    settings = {"haemodynamic_response": {"delays_s": [5.0]}, "aperture": None}
    given = job(dataset(pictures, responses(maps, FIELDS, noise=0.05)), tmp_path, **settings)
    given.parameters["stimulus_width_deg"] = 18.0
    report = fit_model(
        given.card, given.dataset, tmp_path / "berg", subject=1, stimulus_width_deg=18.0, show_progress=False
    )
    weights = prf.fit(given)
    np.testing.assert_allclose(weights.tensors["x_deg"], FIELDS["x_deg"], atol=0.4)
    np.testing.assert_allclose(weights.tensors["y_deg"], FIELDS["y_deg"], atol=0.4)
    steady = encoded(report, pictures)
    response = haemodynamic_response(5.0, TR_S, HaemodynamicResponse())
    courses = np.stack([np.convolve(each, response)[:N_VOLUMES] for each in steady.T], axis=1)
    measured = given.dataset.outputs["responses"].mean(np.arange(N_VOLUMES))
    r2 = r2_score(measured, courses + weights.tensors["baseline"])
    np.testing.assert_allclose(r2, weights.metadata["encoding_models"]["in_sample_r2"], atol=1e-4)


def encoded(report: Any, pictures: np.ndarray) -> np.ndarray:
    from berg.core import model_registry

    card = job(dataset(bars(), np.zeros((N_VOLUMES, 1))), report.folder).card
    stored = card.model_copy(update={"files": card.files.model_copy(update={"store": "berg_dir"})})
    model = model_registry.bind_card(stored)("cpu", None, str(report.folder.parents[3]), subject=1,
                                             stimulus_width_deg=18.0)  # fmt: skip
    model.load_model()
    return model.generate_response(pictures, show_progress=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*effective samples in time:berg.evaluation.SamplesWarning")
def test_maps_of_contrast_become_a_model_that_takes_pictures(bold, tmp_path):
    given = job(dataset(bars(), bold), tmp_path)
    report = fit_model(given.card, given.dataset, tmp_path / "berg", subject=1, show_progress=False, bootstrap=50)
    assert float(report.accuracy["r"].min()) > 0.9
    assert sorted(path.name for path in report.folder.rglob("*subject-01*")) == [
        "accuracy_subject-01.nc",
        "metadata_subject-01.json",
        "report_subject-01.html",
        "sample_subject-01.safetensors",
        "weights_subject-01.safetensors",
    ]
    shown = encoded(report, np.zeros((1, 3, 90, 160), np.uint8))
    np.testing.assert_allclose(shown, 0, atol=1e-6)


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_to_the_same_bits(bold, tmp_path, monkeypatch):
    whole, count = receptive_fields.refine, [0]
    monkeypatch.setattr(prf, "BLOCK", 2)
    few = {"search": {"steps": 30, "spacing_deg": 2.0}, "haemodynamic_response": {"delays_s": [4.5, 5.0]}}
    reference = fit(bars(), bold, tmp_path / "whole", few)

    def interrupted(*arguments: Any) -> ReceptiveFields:
        count[0] += 1
        if count[0] == 5:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(prf, "refine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(bars(), bold, tmp_path / "cut", few)
    again = fit(bars(), bold, tmp_path / "cut", few)
    assert count[0] == 10  # three blocks, three fits: nine, of which one was begun twice
    for name, values in reference.tensors.items():
        np.testing.assert_array_equal(values, again.tensors[name])


@pytest.mark.slow
def test_the_size_of_the_blocks_hardly_matters(fitted, bold, tmp_path, monkeypatch):
    monkeypatch.setattr(prf, "BLOCK", 2)
    in_blocks = fit(bars(), bold, tmp_path, {"haemodynamic_response": {"delays_s": [5.0]}})
    for name, values in in_blocks.tensors.items():
        np.testing.assert_allclose(values, fitted.tensors[name], atol=1e-4)


def test_the_haemodynamic_response_is_the_double_gamma_and_adds_up_to_1():
    response = haemodynamic_response(6.0, TR_S, HaemodynamicResponse())
    assert response.sum() == pytest.approx(1)
    middles = (np.arange(len(response)) + 0.5) * TR_S
    double_gamma = gamma.pdf(middles, 6) - gamma.pdf(middles, 16) / 6
    np.testing.assert_allclose(response, double_gamma / double_gamma.sum(), atol=5e-3)


def test_the_product_of_profiles_is_the_drive_of_the_two_dimensional_grid():
    apertures = Apertures.of(*(torch.from_numpy(each) for each in (bars(), X_CENTRES, Y_CENTRES)))
    assert apertures.profiles is not None
    fields = ReceptiveFields(*(torch.from_numpy(values) for values in FIELDS.values()))
    place = (fields.x, fields.y, fields.size)
    cells = gaussian_cell_weights(apertures.x_centres, apertures.y_centres, apertures.cell_size, *place)
    steady = css_response(apertures.maps.flatten(1) @ cells, fields.exponent)
    no_delay = torch.eye(N_VOLUMES, dtype=torch.float64)
    torch.testing.assert_close(predict_time_courses(apertures, fields, no_delay), steady)


def test_maps_that_are_no_products_have_no_profiles():
    assert Apertures.of(*(torch.from_numpy(each) for each in (wedges(), X_CENTRES, Y_CENTRES))).profiles is None


@pytest.mark.parametrize("missing", [0, 7])
def test_amplitude_and_baseline_are_those_of_least_squares(missing):
    generator = np.random.default_rng(0)
    course = generator.uniform(size=(30, 1))
    bold = 2.0 * course - 0.7 + 0.1 * generator.standard_normal((30, 1))
    slope, intercept = np.polyfit(course[missing:, 0], bold[missing:, 0], 1)
    bold[:missing] = np.nan
    amplitude, baseline = amplitude_and_baseline(*map(torch.from_numpy, (course, bold)))
    assert (amplitude.item(), baseline.item()) == pytest.approx((slope, intercept))


def test_what_cannot_be_fitted_is_named(bold, tmp_path):
    def said(error: type[Exception], words: str, stimuli: Any = None, settings: Any = None, **changes: Any) -> None:
        with pytest.raises(error, match=words):
            fit(bars() if stimuli is None else stimuli, bold, tmp_path, settings, **changes)

    said(DatasetError, r"sampling_interval_s: 1\.5", sampling_interval_s=None)
    said(DatasetError, r"must lie in \[0, 1\]\. Divide", 9 * bars())
    said(DatasetError, r"aperture: \{x_deg: \[-9, 9\]", settings={"aperture": None})
    said(DatasetError, r"have shape \(150, 960\)\. Give maps", bars().reshape(N_VOLUMES, -1))
    said(InvalidParameterError, r"parts of \[1, 149\]", settings={"cuts": [1]})
    said(ModelCardError, r"'stepps'. Did you mean 'steps'", settings={"search": {"stepps": 3}})


def test_the_memory_that_is_stated_grows_with_voxels_and_volumes(bold, tmp_path):
    few = prf.peak_bytes(job(dataset(bars(), bold), tmp_path))
    many = prf.peak_bytes(job(dataset(bars(), np.tile(bold, 2000)), tmp_path))
    assert few < 10**9
    assert many - few > 8 * 10_000 * N_VOLUMES


def test_parts_of_a_recording_do_not_divide_groups(bold: np.ndarray, tmp_path: Path) -> None:
    volumes, groups = np.arange(N_VOLUMES), np.arange(N_VOLUMES) // 40
    own = job(dataset(bars(), bold, groups=groups, splits={"train": volumes}), tmp_path)
    settings = recording.settings_of(own)
    parts = recording.parts_of(own, settings.model_copy(update={"cuts": None, "folds": 2}), volumes)
    assert [set(groups[part]) & set(groups[parts[1 - place]]) for place, part in enumerate(parts)] == [set(), set()]
    assert np.concatenate(parts).tolist() == volumes.tolist()
    with pytest.raises(InvalidParameterError, match=r"fit.cuts divides groups of volumes.*Cut where one group ends"):
        recording.parts_of(own, settings.model_copy(update={"cuts": [41]}), volumes)
