"""The recipe on a simulated receptor, the parameters it wrote, and its figures."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import berg
from berg import BERG

MODEL_ID = "ephys-rokem2006-ln_renewal"
RECIPE = Path(__file__).parents[2] / "recipes" / MODEL_ID / "fit.py"
MODEL = (
    Path(berg.__file__).parent
    / "models/built_in/encoding_models/modality-ephys/train_dataset-rokem2006/model-ln_renewal"
)


@pytest.fixture(scope="module")
def recipe():
    specification = importlib.util.spec_from_file_location("rokem2006_fit", RECIPE)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(n_threads)
    del sys.modules[specification.name]


@pytest.fixture(scope="module")
def recordings(recipe):
    return [recipe.read_recording(number, recipe.data_folder()) for number in (1, 2)]


@pytest.fixture(scope="module")
def metadata():
    return json.loads((MODEL / "metadata" / "metadata_subject-01.json").read_text("utf-8"))["encoding_models"]


def test_the_recordings_have_the_spikes_and_the_levels_of_their_files(recipe, recordings):
    assert [int(recording.spikes.sum()) for recording in recordings] == [929, 868]
    for number, recording in enumerate(recordings, start=1):
        assert len(recording.spikes) == 20_000
        assert float(recording.spikes.max()) == 1
        peak = recipe.level_of(recording, window_ms=1.0).max().item() + recipe.FLOOR_DB
        assert peak == pytest.approx(recipe.PEAK_DB_SPL[number], abs=0.5)


def test_ages_count_the_bins_since_the_last_spike(recipe):
    spikes = torch.tensor([0.0, 1, 0, 0, 1, 1, 0])
    oldest = recipe.N_AGES - 1
    assert recipe.ages_of(spikes).tolist() == [oldest, oldest, 0, 1, 2, 0, 0]


def test_held_out_blocks_and_their_gaps_are_never_fitted(recipe):
    filter_and_window = recipe.N_LAGS + max(recipe.WINDOWS_MS) / 1000 * recipe.BINS_PER_S
    assert filter_and_window <= recipe.GAP_BINS
    assert recipe.N_PLAIN_LAGS + max(recipe.WINDOWS_MS) / 1000 * recipe.BINS_PER_S <= recipe.GAP_BINS
    kept = recipe.away_from(20_000, [1, 4])
    assert not kept[4000 - 80 : 8000 + 80].any()
    assert not kept[16_000 - 80 :].any()
    assert kept.sum() == 20_000 - (4000 + 160) - (4000 + 80)


def test_what_is_held_out_does_not_change_the_fit(recipe, recordings):
    settings = recipe.Settings(window_ms=4.0, n_hidden=0, penalty=1.0)
    prepared = recipe.prepare(recordings[:1], 4.0)
    disturbed = recipe.Prepared(prepared.inputs, prepared.ages, [prepared.spikes[0].clone()])
    disturbed.spikes[0][8000:12_000] = 1
    one, other = (recipe.fit(each, settings, [2]).shipped() for each in (prepared, disturbed))
    for name, values in vars(one).items():
        assert torch.equal(values, getattr(other, name))


def test_a_simulated_receptor_is_recovered(recipe, recordings):
    prepared = recipe.prepare(recordings, 4.0)
    settings = recipe.Settings(window_ms=4.0, n_hidden=0, penalty=0.3)
    truth = recipe.fit(prepared, settings)
    trains = [torch.from_numpy(recipe.drawn_spikes(truth, inputs, 1)[0]) for inputs in prepared.inputs]
    simulated = recipe.Prepared(prepared.inputs, [recipe.ages_of(train) for train in trains], trains)
    fitted = recipe.fit(simulated, settings)
    for inputs, train in zip(prepared.inputs, trains, strict=True):
        expected, found = (recipe.predicted_rate(neuron, inputs) for neuron in (truth, fitted))
        assert expected.mean() * 10 == pytest.approx(float(train.sum()), rel=0.1)
        assert np.corrcoef(expected, found)[0, 1] > 0.93


def test_the_shipped_form_is_the_fitted_neuron(recipe, recordings):
    torch.manual_seed(0)
    neuron = recipe.Neuron(recipe.N_LAG_FUNCTIONS + len(recipe.TRACES_S), 2)
    level = recipe.level_of(recordings[0], 4.0)[:, :2000]
    shipped = neuron.shipped()
    past = recipe.weighted_past(level, shipped.filters[0])
    traces = recipe.exponential_traces(level, torch.tensor(recipe.TRACES_S) * recipe.BINS_PER_S)
    sums = past + torch.einsum("nti,kt->nki", traces, shipped.traces[0]) + shipped.offsets[0][:, None]
    drive = recipe.softplus_drive(sums[:, None], shipped.gains)[0, 0]
    torch.testing.assert_close(drive, neuron.drive(recipe.inputs_of(level)), atol=1e-6, rtol=1e-6)


def test_the_plain_model_is_ridge_regression(recipe):
    linear_model = pytest.importorskip("sklearn.linear_model")
    draw = np.random.default_rng(0)
    inputs, target = draw.normal(2, 1, (200, 5)), draw.normal(size=200)
    weights, offset = recipe.ridge(inputs, target, 10.0)
    other = linear_model.Ridge(alpha=10.0).fit(inputs, target)
    np.testing.assert_allclose(weights, other.coef_)
    assert offset == pytest.approx(other.intercept_)


def test_the_shipped_model_follows_the_recordings_as_the_metadata_say(recipe, recordings, metadata):
    """In sample, through `encode`: no worse than held out, and no better than a true model could be."""
    model = BERG().get_encoding_model(MODEL_ID, device="cpu")
    sounds = np.stack([recording.pressure.numpy() for recording in recordings])
    rates = BERG().encode(model, sounds, sampling_rate=recipe.SAMPLING_RATE)
    for recording, rate, facts in zip(recordings, rates, metadata["stimuli"], strict=True):
        r = np.mean(recipe.block_r(recording.spikes, rate[0].astype(float), 2.0, True))
        assert facts["held_out_r_2_ms"] < r < facts["r_if_model_were_true_2_ms"] + 0.05
        assert rate.mean() == pytest.approx(float(recording.spikes.sum()) / 10, rel=0.05)


def test_the_shipped_metadata_beat_the_plain_model_in_every_figure(recipe, metadata):
    for facts in metadata["stimuli"]:
        for smoothing in ("2_ms", "5_ms"):
            blocks, plain = (facts[f"held_out_r_{kind}of_blocks_{smoothing}"] for kind in ("", "plain_"))
            assert len(blocks) == len(plain) == recipe.N_BLOCKS
            assert np.mean(blocks) == pytest.approx(facts[f"held_out_r_{smoothing}"], abs=1e-4)
            assert np.mean(plain) == pytest.approx(facts[f"held_out_r_plain_{smoothing}"], abs=1e-4)
            assert facts[f"held_out_r_{smoothing}"] > facts[f"held_out_r_plain_{smoothing}"] + 0.05


@pytest.mark.slow
def test_the_recipe_writes_what_is_shipped(recipe, metadata, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fit.py", "--out", str(tmp_path)])
    recipe.main()
    written = json.loads((tmp_path / "metadata" / "metadata_subject-01.json").read_text("utf-8"))["encoding_models"]
    assert written["settings"] == metadata["settings"]
    assert written["settings_of_folds"] == metadata["settings_of_folds"]
    for ours, theirs in zip(written["stimuli"], metadata["stimuli"], strict=True):
        for smoothing in ("2_ms", "5_ms"):
            for kind in ("", "plain_"):
                name = f"held_out_r_{kind}{smoothing}"
                assert ours[name] == pytest.approx(theirs[name], abs=0.005)
    weights = [
        load_file(folder / "encoding_models_weights" / "weights_subject-01.safetensors") for folder in (tmp_path, MODEL)
    ]
    for name in weights[0]:
        np.testing.assert_allclose(weights[0][name], weights[1][name], rtol=0.05, atol=0.02)
