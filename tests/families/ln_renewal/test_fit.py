"""Neurons from the spikes of simulated ones, whose parameters are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from berg.core import model_registry
from berg.core.exceptions import DatasetError, InvalidParameterError
from berg.core.parameter_validator import validate_parameters
from berg.datasets.dataset import EncodingDataset
from berg.families.ln_renewal import fit as ln_renewal
from berg.families.ln_renewal.features import hann_window, sound_level_above_floor
from berg.families.ln_renewal.fit import FitSettings, read_recordings
from berg.families.ln_renewal.neurons import Basis, Blocks, Neuron, Shape, Trains, fit_neuron, ridge
from berg.families.ln_renewal.readout import exponential_traces, softplus_drive, weighted_past
from berg.fitting.fit import fit_model
from berg.fitting.fit_job import FitJob, Fitted

RATE, BINS_PER_S, FLOOR_DB, WINDOW_MS = 20_000, 2_000, 35.0, 4.0
SECONDS = 4
BASIS = Basis(Shape(), BINS_PER_S)
SETTINGS: dict[str, Any] = {"n_hidden": [0], "penalties": [0.3]}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small arrays: threads that wait for each other cost more than they do."""
    with ln_renewal.one_thread():
        yield


@pytest.fixture(scope="module")
def sounds() -> np.ndarray:
    """Tones of 2.5 kHz whose level, Gaussian in decibels, follows noise up to 200 Hz; pascals, shape (2, n_samples)."""
    draw, n_samples = np.random.default_rng(0), SECONDS * RATE
    decibels = [np.interp(np.arange(n_samples), np.arange(0, n_samples, 50), draw.normal(0, 6, n_samples // 50))
                for _ in range(2)]  # fmt: skip
    tone = np.sin(2 * np.pi * 2500 * np.arange(n_samples) / RATE)
    return 0.01 * 10 ** (np.array(decibels) / 20) * tone


def neuron(gain: float, latency: int, dead_bins: int) -> Neuron:
    """Fires with the level `latency` bins ago, is deaf to the distant past, and silent after a spike."""
    own = Neuron(BASIS, 0)
    target = gain * np.exp(-0.5 * ((np.arange(BASIS.n_lags) - latency) / 2) ** 2)
    refractory = -6 * np.exp(-np.arange(BASIS.n_ages) / dead_bins)
    with torch.no_grad():
        of_lags, of_ages = (torch.linalg.pinv(each.T) for each in (BASIS.of_lags, BASIS.of_ages))
        own.weights[0, : len(BASIS.of_lags)] = of_lags @ torch.from_numpy(target)
        own.weights[0, len(BASIS.of_lags) :] = 0
        own.recovery[:] = of_ages @ torch.from_numpy(refractory)
        own.offsets[0] = -1.5
    return own


@pytest.fixture(scope="module")
def truth() -> list[Neuron]:
    return [neuron(0.5, 8, 4), neuron(0.9, 14, 8)]


def level(sound: np.ndarray) -> torch.Tensor:
    window = hann_window(round(WINDOW_MS / 1000 * RATE))
    return sound_level_above_floor(torch.from_numpy(sound)[None], window, RATE // BINS_PER_S, FLOOR_DB)


@pytest.fixture(scope="module")
def spikes(sounds, truth) -> np.ndarray:
    """Shape (2 repeats, 2 sounds, 2 units, n_bins)."""
    trains = [
        [own.drawn_spikes(BASIS.inputs(level(sound)), 2, seed=2 * place + unit) for unit, own in enumerate(truth)]
        for place, sound in enumerate(sounds)
    ]  # (sounds, units, repeats, bins)
    return np.array(trains).transpose(2, 0, 1, 3)


def dataset(sounds: np.ndarray, spikes: np.ndarray, **changes: Any) -> EncodingDataset:
    given: dict[str, Any] = {
        "axes": ("unit", "time"),
        "unit": "spikes/s",
        "coordinates": {"unit": np.array([f"unit-{unit}" for unit in range(spikes.shape[-2])])},
        "presentations": np.tile(np.arange(len(sounds)), len(spikes)),
        "test_fraction": 0.0,
        "sampling_interval_s": 1 / BINS_PER_S,
        "sampling_rate": RATE,
        "names": [f"sound-{number}" for number in range(len(sounds))],
    } | changes
    rates = (BINS_PER_S * spikes).reshape(-1, *spikes.shape[2:]).astype(np.float32)
    return EncodingDataset.from_arrays(sounds, {"rate": rates}, **given)


def job(data: EncodingDataset, folder: Path, **changes: Any) -> FitJob:
    card = model_registry.get_card("ephys-rokem2006-ln_renewal").model_copy(update={"fit": SETTINGS | changes})
    given = validate_parameters(card, {"subject": 1})
    return FitJob(card, data, given, torch.device("cpu"), folder / "cache", folder / "work", 10**10, False, folder)


def checked_fit(given: FitJob) -> Fitted:
    """As berg.fitting.fit does."""
    ln_renewal.check(given)
    return ln_renewal.fit(given)


@pytest.fixture(scope="module")
def fitted(sounds, spikes, tmp_path_factory) -> Fitted:
    return ln_renewal.fit(job(dataset(sounds, spikes), tmp_path_factory.mktemp("neurons")))


@pytest.fixture(scope="module")
def fitted_to_half(sounds, spikes, tmp_path_factory) -> Fitted:
    """To the first two seconds of each sound, which show what is not measured against the true parameters."""
    half = dataset(sounds[:, : sounds.shape[1] // 2], spikes[..., : spikes.shape[-1] // 2])
    return ln_renewal.fit(job(half, tmp_path_factory.mktemp("half"), n_blocks=4))


@pytest.mark.slow
def test_simulated_neurons_are_recovered(fitted, truth):
    """From 16 s of each: when they listen, how strongly, and how long they are silent after a spike."""
    for unit, own in enumerate(truth):
        expected = own.shipped()
        found = fitted.tensors["filters"][unit, 0]
        assert np.corrcoef(found, expected.filters[0, 0])[0, 1] > 0.95
        assert found.sum() == pytest.approx(expected.filters.sum().item(), rel=0.1)
        early = slice(0, 20)  # 10 ms after a spike
        recovery, true = fitted.tensors["recovery"][unit], expected.recovery[0].numpy()
        gap = (recovery[early] - recovery[60:].mean()) - (true[early] - true[60:].mean())
        assert np.abs(gap[2:]).mean() < 0.5


def test_held_out_rates_are_nearly_as_good_as_the_truth(fitted_to_half):
    for facts in fitted_to_half.metadata["encoding_models"]["stimuli"]:
        assert facts["held_out_r_2_ms"] > 0.9 * facts["r_if_model_were_true_2_ms"]
        assert facts["held_out_r_2_ms"] > facts["held_out_r_plain_2_ms"]
    held_out = fitted_to_half.held_out["rate"]
    assert held_out.measured.shape == held_out.predicted.shape == (SECONDS * 500, 2)  # one per 2 ms
    assert held_out.measured.mean() == pytest.approx(held_out.predicted.mean(), rel=0.1)
    assert held_out.in_time
    assert fitted_to_half.metadata["encoding_models"]["held_out_r"] == pytest.approx(
        [np.corrcoef(held_out.measured[:, unit], held_out.predicted[:, unit])[0, 1] for unit in range(2)], abs=0.03
    )


def test_spikes_are_counted(fitted_to_half, spikes):
    assert fitted_to_half.metadata["ephys"]["n_spikes"] == spikes[..., : spikes.shape[-1] // 2].sum((0, 2, 3)).tolist()


@pytest.mark.slow
def test_what_is_held_out_does_not_change_the_fit(sounds, spikes, tmp_path):
    recordings = read_recordings(job(dataset(sounds, spikes), tmp_path / "one"), ("train",))
    place = recordings.blocks[2]
    trains = recordings.trains[WINDOW_MS][0]
    disturbed = [each.clone() for each in trains.spikes]
    for each in disturbed:
        each[place] = 1
    one, other = (
        fit_neuron(BASIS, each, 0, 1.0, recordings.blocks, [2]).shipped()
        for each in (trains, replace(trains, spikes=disturbed))
    )
    for name, values in vars(one).items():
        assert torch.equal(values, getattr(other, name))


@pytest.mark.slow
def test_missing_bins_are_left_out(sounds, spikes, truth, tmp_path):
    cut = spikes.copy()
    cut[0, 0, :, 1000:3000] = np.nan  # of one repeat
    cut[1, 1] = np.nan  # a repeat that was never played
    found = ln_renewal.fit(job(dataset(sounds, cut), tmp_path))
    assert np.isfinite(found.tensors["filters"]).all()
    assert np.corrcoef(found.tensors["filters"][0, 0], truth[0].shipped().filters[0, 0])[0, 1] > 0.9
    assert found.metadata["ephys"]["n_spikes"] == np.nansum(cut, (0, 2, 3)).tolist()


@pytest.mark.slow
def test_a_sound_of_the_test_split_is_never_fitted(sounds, spikes, tmp_path):
    splits = {"train": [0], "test": [1]}
    disturbed = spikes.copy()
    disturbed[:, 1] = np.roll(disturbed[:, 1], 500, axis=-1)
    one, other = (
        ln_renewal.fit(job(dataset(sounds, each, splits=splits), tmp_path / str(number)))
        for number, each in enumerate((spikes, disturbed))
    )
    for name, values in one.tensors.items():
        np.testing.assert_array_equal(values, other.tensors[name])
    assert one.held_out["rate"].split.startswith("test")
    assert one.held_out["rate"].measured.shape == (SECONDS * 500, 2)
    assert np.min(one.metadata["encoding_models"]["held_out_r"]) > 0.5
    assert np.max(other.metadata["encoding_models"]["held_out_r"]) < 0.3


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_to_the_same_bits(sounds, spikes, fitted, tmp_path, monkeypatch):
    whole, calls = fit_neuron, []

    def interrupted(*arguments: Any) -> Neuron:
        calls.append(arguments)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(ln_renewal, "fit_neuron", interrupted)
    given = job(dataset(sounds, spikes), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        ln_renewal.fit(given)
    again = ln_renewal.fit(given)
    assert len(calls) == 6 + 8  # two folds of two neurons are there; three and the whole are left
    for name, values in fitted.tensors.items():
        np.testing.assert_array_equal(values, again.tensors[name])


@pytest.mark.slow
def test_the_model_that_is_written_encodes_what_was_fitted(sounds, spikes, fitted, tmp_path):
    given = job(dataset(sounds, spikes), tmp_path)
    report = fit_model(given.card, given.dataset, tmp_path / "berg", subject=1, show_progress=False, bootstrap=50)
    stored = given.card.model_copy(update={"files": given.card.files.model_copy(update={"store": "berg_dir"})})
    model = model_registry.bind_card(stored)("cpu", None, str(tmp_path / "berg"), subject=1)
    model.load_model()
    rates = model.generate_response(sounds, sampling_rate=RATE, show_progress=False)
    assert rates.shape == (2, 2, SECONDS * BINS_PER_S)
    measured = spikes.mean((0, 3)) * BINS_PER_S
    np.testing.assert_allclose(rates.mean(-1), measured, rtol=0.05)
    assert float(report.accuracy["r"].min()) > 0.4
    assert fitted.facts["window_ms"] == WINDOW_MS


@pytest.mark.slow
def test_the_window_of_the_card_must_be_the_one_that_is_chosen(sounds, spikes, tmp_path):
    """A longer window blurs the level that the neurons were made with; the card of another would be wrong."""
    given = job(dataset(sounds, spikes), tmp_path, windows_ms=[WINDOW_MS, 10.0], n_blocks=4)
    features = given.card.features | {"window_ms": 10.0}
    other = FitJob(**{**vars(given), "card": given.card.model_copy(update={"features": features})})
    with pytest.raises(InvalidParameterError, match=r"chooses a window of 4 ms, and features\.window_ms .* is 10"):
        ln_renewal.fit(other)


def test_what_cannot_be_fitted_is_named(sounds, spikes, tmp_path):
    def said(error: type[Exception], words: str, own: np.ndarray = spikes, settings: Any = None, **changes: Any):
        with pytest.raises(error, match=words):
            checked_fit(job(dataset(sounds, own, **changes), tmp_path, **(settings or {})))

    said(DatasetError, r"scale: 2000", spikes / BINS_PER_S)
    said(DatasetError, r"where a bin holds several spikes", 2 * spikes)
    said(DatasetError, r"have 7,999 bins; sounds of this length have 8,000", spikes[..., 1:])
    said(DatasetError, r"sampling_interval_s of the data is 0\.001", sampling_interval_s=0.001)
    said(InvalidParameterError, r"sampling_rate=44100", sampling_rate=None)
    said(InvalidParameterError, r"gap_s is 0\.01 s.* Make it 0\.034 or more", settings={"gap_s": 0.01})
    said(InvalidParameterError, r"windows_ms \[2\.0\] does not hold it", settings={"windows_ms": [2.0]})
    silent = spikes.copy()
    silent[:, :, 1] = np.nan
    said(DatasetError, r"Unit 1 has no responses at all", silent)


def test_ages_count_the_bins_since_the_last_spike():
    train = torch.tensor([0.0, 1, 0, 0, 1, 1, 0])
    oldest = BASIS.n_ages - 1
    assert BASIS.ages(train).tolist() == [oldest, oldest, 0, 1, 2, 0, 0]


def test_held_out_blocks_and_their_gaps_are_never_fitted():
    blocks = Blocks(20_000, 5, 80)
    kept = blocks.away_from([1, 4])
    assert not kept[4000 - 80 : 8000 + 80].any()
    assert not kept[16_000 - 80 :].any()
    assert kept.sum() == 20_000 - (4000 + 160) - (4000 + 80)
    assert blocks.inner_folds(2) == [[0, 1], [3, 4]]
    assert [place.start for place in blocks] == [0, 4000, 8000, 12_000, 16_000]


def test_the_shipped_form_is_the_fitted_neuron(sounds):
    torch.manual_seed(0)
    own = Neuron(BASIS, 2)
    heard = level(sounds[0])[:, :2000]
    shipped = own.shipped()
    past = weighted_past(heard, shipped.filters[0])
    traces = exponential_traces(heard, torch.tensor(BASIS.shape.traces_s) * BINS_PER_S)
    sums = past + torch.einsum("nti,kt->nki", traces, shipped.traces[0]) + shipped.offsets[0][:, None]
    drive = softplus_drive(sums[:, None], shipped.gains)[0, 0]
    torch.testing.assert_close(drive, own.drive(BASIS.inputs(heard)), atol=1e-6, rtol=1e-6)


def test_a_fit_without_penalty_is_logistic_regression(sounds, spikes):
    """The linear neuron, its recovery included, is a generalised linear model: scikit-learn's solution."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    basis = Basis(Shape(n_lag_functions=4, n_age_functions=3, traces_s=[0.05], max_steps=400), BINS_PER_S)
    inputs, train = basis.inputs(level(sounds[0])), torch.from_numpy(spikes[0, 0, 0])
    own = fit_neuron(basis, Trains.of(basis, [inputs], [train]), 0, 0.0, Blocks(len(train), 5, 80))
    recovery = basis.of_ages.T[basis.ages(train)]
    both = torch.cat([inputs, recovery], dim=1).numpy()
    other = linear_model.LogisticRegression(C=np.inf, max_iter=2000, tol=1e-10).fit(both, train.numpy())
    ours = own.log_odds(inputs, basis.ages(train)).detach().numpy()
    theirs = both @ other.coef_[0] + other.intercept_[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-ours)), 1 / (1 + np.exp(-theirs)), atol=2e-3)


def test_the_plain_model_is_ridge_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    draw = np.random.default_rng(0)
    inputs, target = draw.normal(2, 1, (200, 5)), draw.normal(size=200)
    weights, offset = ridge(inputs, target, 10.0)
    other = linear_model.Ridge(alpha=10.0).fit(inputs, target)
    np.testing.assert_allclose(weights, other.coef_)
    assert offset == pytest.approx(other.intercept_)


def test_the_settings_of_the_card_are_those_of_the_recipe():
    card = model_registry.get_card("ephys-rokem2006-ln_renewal")
    assert card.part("fit", FitSettings).windows_ms == [2.0, 3.0, 4.0, 5.0]
