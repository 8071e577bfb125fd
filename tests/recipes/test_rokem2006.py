"""The dataset of the recipe, the parameters that were fitted to it, and their figures."""

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
from berg.core import model_registry
from berg.datasets.dataset import EncodingDataset
from berg.families.ln_renewal.features import hann_window, sound_level_above_floor
from berg.families.ln_renewal.fit import FitSettings, smooth
from berg.families.ln_renewal.neurons import Blocks
from berg.fitting.fit import fit_model

MODEL_ID = "ephys-rokem2006-ln_renewal"
RECIPE = Path(__file__).parents[2] / "recipes" / MODEL_ID / "make_dataset.py"
MODEL = (
    Path(berg.__file__).parent
    / "models/built_in/encoding_models/modality-ephys/train_dataset-rokem2006/model-ln_renewal"
)


@pytest.fixture(scope="module")
def recipe():
    specification = importlib.util.spec_from_file_location("rokem2006_dataset", RECIPE)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules[specification.name]


@pytest.fixture(scope="module")
def dataset(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rokem2006")
    recipe.write_dataset(folder, recipe.data_folder())
    return EncodingDataset.open(folder, 1)


@pytest.fixture(scope="module")
def metadata():
    return json.loads((MODEL / "metadata" / "metadata_subject-01.json").read_text("utf-8"))["encoding_models"]


@pytest.fixture(scope="module")
def settings():
    return model_registry.get_card(MODEL_ID).part("fit", FitSettings)


def test_the_dataset_has_the_spikes_and_the_levels_of_the_files(recipe, dataset):
    rates = dataset.outputs["rate"].mean([0, 1]).reshape(2, -1)
    assert rates.shape == (2, 20_000)
    assert (rates.sum(1) / recipe.BINS_PER_S).tolist() == [929, 868]
    assert set(np.unique(rates)) == {0, recipe.BINS_PER_S}
    assert dataset.sampling_rate == recipe.SAMPLING_RATE
    sounds = torch.from_numpy(dataset.read_stimuli([0, 1]))
    levels = 35 + sound_level_above_floor(sounds, hann_window(20), 10, 35.0)
    for level, peak in zip(levels, recipe.PEAK_DB_SPL.values(), strict=True):
        assert level.max().item() == pytest.approx(peak, abs=0.5)


def test_all_of_it_is_fitted_and_blocks_are_held_out_in_turn(dataset):
    assert {name: len(places) for name, places in dataset.splits.items()} == {"train": 2, "validation": 0, "test": 0}


def test_the_shipped_model_follows_the_recordings_as_the_metadata_say(recipe, dataset, metadata):
    """In sample, through `encode`: no worse than held out, and no better than a true model could be."""
    model = BERG().get_encoding_model(MODEL_ID, device="cpu")
    rates = BERG().encode(model, dataset.read_stimuli([0, 1]), sampling_rate=recipe.SAMPLING_RATE)
    measured = dataset.outputs["rate"].mean([0, 1]).reshape(2, -1).astype(float)
    for spikes, rate, facts in zip(measured, rates, metadata["stimuli"], strict=True):
        own = [(smooth(spikes[place], 2.0, recipe.BINS_PER_S), smooth(rate[0, place].astype(float), 2.0,
               recipe.BINS_PER_S)) for place in Blocks(len(spikes), 5, 80)]  # fmt: skip
        r = np.mean([np.corrcoef(*pair)[0, 1] for pair in own])
        assert facts["held_out_r_2_ms"] < r < facts["r_if_model_were_true_2_ms"] + 0.05
        assert rate.mean() == pytest.approx(spikes.mean(), rel=0.05)


def test_the_shipped_metadata_beat_the_plain_model_in_every_figure(metadata, settings):
    for facts in metadata["stimuli"]:
        for smoothing in ("2_ms", "5_ms"):
            blocks, plain = (facts[f"held_out_r_{kind}of_blocks_{smoothing}"] for kind in ("", "plain_"))
            assert len(blocks) == len(plain) == settings.n_blocks
            assert np.mean(blocks) == pytest.approx(facts[f"held_out_r_{smoothing}"], abs=1e-4)
            assert np.mean(plain) == pytest.approx(facts[f"held_out_r_plain_{smoothing}"], abs=1e-4)
            assert facts[f"held_out_r_{smoothing}"] > facts[f"held_out_r_plain_{smoothing}"] + 0.05


@pytest.mark.slow
def test_berg_fit_writes_what_is_shipped(dataset, metadata, tmp_path):
    report = fit_model(MODEL_ID, dataset, tmp_path, subject=1, show_progress=False)
    written = json.loads((report.folder / "metadata" / "metadata_subject-01.json").read_text("utf-8"))
    found = written["encoding_models"]
    assert written["ephys"] == {"unit": ["receptor-01"], "n_spikes": [929, 868]}
    for name in ("settings", "settings_of_folds", "n_blocks", "gap_s", "bins_per_s", "floor_db"):
        assert found[name] == metadata[name]
    assert found["held_out_r"] == pytest.approx(metadata["held_out_r"], abs=0.005)
    for ours, theirs in zip(found["stimuli"], metadata["stimuli"], strict=True):
        assert set(ours) == set(theirs)
        for name in theirs.keys() - {"stimulus"}:
            assert ours[name] == pytest.approx(theirs[name], abs=0.005)
    weights = [
        load_file(folder / "encoding_models_weights" / "weights_subject-01.safetensors")
        for folder in (report.folder, MODEL)
    ]
    for name, values in weights[1].items():  # the same bits where it was fitted; other processors round otherwise
        np.testing.assert_allclose(weights[0][name], values, rtol=0.01, atol=0.005)
