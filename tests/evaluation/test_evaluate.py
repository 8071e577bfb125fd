"""Models compared with recordings of which the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from own_prf import MODEL, pictures, write_own_prf
from scipy.signal import lfilter
from scipy.stats import pearsonr

from berg import BERG
from berg.core import model_registry
from berg.core.exceptions import DatasetError, InvalidParameterError
from berg.core.model_card import ModelCard
from berg.datasets.dataset import EncodingDataset
from berg.evaluation import SamplesWarning, chance_ceiling, independence
from berg.evaluation.accuracy_table import outputs_of, read_accuracy
from berg.evaluation.evaluate import evaluate_model, evaluate_responses, write_evaluation
from berg.weights import manifest

SOUND = "ephys-rokem2006-ln_renewal"
WITHIN = {"reliable": True, "amplitude": [0, None], "x_deg": [-4, 4], "y_deg": [-4, 4]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    berg_dir = tmp_path_factory.mktemp("berg")
    write_own_prf(berg_dir)
    yield berg_dir
    model_registry.MODEL_REGISTRY.pop(MODEL, None)


@pytest.fixture(scope="module")
def model(place):
    with BERG(place).get_encoding_model(MODEL, "cpu", subject=1) as model:
        yield model


def recordings(model, n_repeats=3, n_stimuli=24, noise=1.0, seed=0):
    """What the model says, with as much noise as it has variance, times `noise`; and the responses themselves."""
    rng = np.random.default_rng(seed)
    stimuli = pictures(n_stimuli)
    true = model.generate_response(stimuli, show_progress=False)
    shape = (n_repeats, *true.shape)
    repeats = true + noise * true.std(0) * rng.standard_normal(shape, dtype=np.float32)
    presentations = np.tile(np.arange(n_stimuli), n_repeats)
    splits = {"train": np.arange(4), "validation": np.arange(0), "test": np.arange(4, n_stimuli)}
    responses = {"responses": repeats.reshape(-1, true.shape[1])}
    dataset = EncodingDataset.from_arrays(
        stimuli, responses, presentations=presentations, splits=splits, axes={"responses": ("voxel",)}
    )
    return dataset, true[4:], repeats[:, 4:]


def test_r_and_r2_are_those_of_the_mean_over_repeats(model):
    dataset, true, repeats = recordings(model)
    table = evaluate_model(model, dataset, bootstrap=0)
    mean = repeats.mean(0)
    for voxel in (0, 700, 2307):
        assert float(table["r"][voxel]) == pytest.approx(pearsonr(mean[:, voxel], true[:, voxel])[0], abs=1e-5)
        residual = ((mean[:, voxel] - true[:, voxel]) ** 2).sum()
        total = ((mean[:, voxel] - mean[:, voxel].mean()) ** 2).sum()
        assert float(table["r2"][voxel]) == pytest.approx(1 - residual / total, abs=1e-4)
    assert table.sizes == {"voxel": 2308}
    assert set(table["roi"].values) == {"V1"}
    assert (table.attrs["split"], table.attrs["n_stimuli"], table.attrs["n_repeats"]) == ("test", 20, 3)
    assert (table.attrs["model_id"], table.attrs["subject"]) == (MODEL, 1)


def test_a_perfect_model_reaches_the_ceiling_that_its_noise_leaves(model):
    dataset, _, _ = recordings(model, n_stimuli=104, noise=1.0)
    table = evaluate_model(model, dataset, bootstrap=0)
    expected = np.sqrt(1 / (1 + 1 / 3))  # signal and noise have the same variance, three repeats
    assert float(table["r"].median()) == pytest.approx(expected, abs=0.02)
    assert float(table["noise_ceiling"].median()) == pytest.approx(expected, abs=0.02)
    assert float(table["noise_ceiling_split_half"].median()) == pytest.approx(expected, abs=0.02)
    assert float(table["noise_normalised"].median()) == pytest.approx(1, abs=0.03)
    single = np.sqrt(1 / 2)
    assert table["repeat_ceiling_low"].median() < single < table["repeat_ceiling_high"].median()


def test_without_repeats_there_is_no_ceiling(model):
    dataset, _, _ = recordings(model, n_repeats=1)
    table = evaluate_model(model, dataset, permutations=19, bootstrap=20)
    assert set(table.data_vars) == {"r", "r2", "r_low", "r_high", "p", "p_false_discovery", "p_family"}
    assert "n_repeats" not in table.attrs


def test_intervals_hold_the_estimate_and_p_values_are_small_where_there_is_signal(model):
    dataset, _, _ = recordings(model, noise=0.2)
    table = evaluate_model(model, dataset, permutations=99, bootstrap=200)
    inside = (table["r_low"] <= table["r"]) & (table["r"] <= table["r_high"])
    assert bool((inside == table["r"].notnull()).all())
    assert int(inside.sum()) > 2000  # the others look elsewhere, and their prediction does not vary
    assert float(table["p"].median()) == pytest.approx(0.01)
    assert not bool((table["p"] > table["p_false_discovery"]).any())
    assert not bool((table["p"] > table["p_family"]).any())


@pytest.mark.slow
def test_selected_voxels_have_the_numbers_that_they_have_in_all(place, model):
    dataset, _, _ = recordings(model)
    whole = evaluate_model(model, dataset, bootstrap=0)
    with BERG(place).get_encoding_model(MODEL, "cpu", WITHIN) as some:
        table = evaluate_model(some, dataset, bootstrap=0)
    assert 50 < table.sizes["voxel"] < 1500
    same = whole.sel(voxel=table["voxel"])
    np.testing.assert_allclose(table["r"], same["r"], atol=1e-6)
    np.testing.assert_allclose(table["noise_ceiling"], same["noise_ceiling"], atol=1e-6)
    assert bool((table["x_deg"] == same["x_deg"]).all())


def test_data_of_another_kind_are_refused_with_what_differs(model):
    dataset, _, _ = recordings(model)
    with pytest.raises(InvalidParameterError, match=r"no stimuli in a split 'tset'\. Did you mean 'test'"):
        evaluate_model(model, dataset, "tset")
    with pytest.raises(InvalidParameterError, match=r"no stimuli in a split 'validation'\..*Splits: train, test"):
        evaluate_model(model, dataset, "validation")

    def made(responses, axes):
        return EncodingDataset.from_arrays(pictures(24), responses, axes=axes, test_fraction=0.5)

    values = np.random.default_rng(0).normal(size=(24, 2308)).astype(np.float32)
    with pytest.raises(InvalidParameterError, match="has an output 'responses'; the data have lh"):
        evaluate_model(model, made({"lh": values}, {"lh": ("voxel",)}))
    with pytest.raises(InvalidParameterError, match=r"has the axes \('voxel',\); the data have \('vertex',\)"):
        evaluate_model(model, made({"responses": values}, {"responses": ("vertex",)}))
    with pytest.raises(InvalidParameterError, match="2,308 positions along 'voxel' of 'responses', the data 100"):
        evaluate_model(model, made({"responses": values[:, :100]}, {"responses": ("voxel",)}))


def test_frames_of_a_sequence_are_not_compared_one_by_one(model):
    dataset = EncodingDataset.from_arrays(
        pictures(24),
        {"responses": np.random.default_rng(0).normal(size=(24, 2308)).astype(np.float32)},
        axes={"responses": ("voxel",)},
        sampling_interval_s=1.3,
    )
    with pytest.raises(InvalidParameterError, match="frames of a sequence"):
        evaluate_model(model, dataset)


def test_every_moment_of_a_sound_is_a_sample():
    sounds = np.random.default_rng(0).normal(0, 0.2, (6, 2400)).astype(np.float32)
    with BERG().get_encoding_model(SOUND, "cpu") as model:
        rate = model.generate_response(sounds, sampling_rate=20000, show_progress=False)  # (6, 1, 240)
        noisy = rate + np.random.default_rng(1).normal(0, rate.std(), (2, *rate.shape)).astype(np.float32)
        dataset = EncodingDataset.from_arrays(
            sounds,
            {"rate": noisy.reshape(12, 1, 240)},
            presentations=np.tile(np.arange(6), 2),
            splits={"train": np.arange(1), "validation": np.arange(0), "test": np.arange(1, 6)},
            axes={"rate": ("unit", "time")},
            sampling_interval_s=1 / 2000,
            sampling_rate=20000,
        )
        table = evaluate_model(model, dataset, permutations=19, bootstrap=50)
    expected = pearsonr(noisy.mean(0)[1:].ravel(), rate[1:].ravel())[0]
    assert table.sizes == {"unit": 1}
    assert float(table["r"][0]) == pytest.approx(expected, abs=1e-5)
    assert float(table["noise_ceiling"][0]) == pytest.approx(np.sqrt(2 / 3), abs=0.05)
    assert table.attrs["resampled"].startswith("moments in time")
    assert 20 < float(table["n_effective"][0]) < 5 * 240
    assert table.attrs["n_stimuli"] == 5


def test_predicted_repetitions_are_averaged_and_so_are_measured_ones(berg_dir, torch_home):
    stimuli = np.random.default_rng(0).integers(0, 256, (8, 3, 64, 64), dtype=np.uint8)
    selection = {"channels": ["Oz", "Fp1"], "timepoints": np.arange(140) < 3}
    with BERG(berg_dir).get_encoding_model("eeg-things_eeg_2-vit_b_32", "cpu", selection, subject=1) as model:
        predicted = model.generate_response(stimuli, show_progress=False)
        measured = np.random.default_rng(1).normal(size=(4, 8, 63, 140)).astype(np.float32)
        dataset = EncodingDataset.from_arrays(
            stimuli,
            {"eeg": measured.reshape(32, 63, 140)},
            presentations=np.tile(np.arange(8), 4),
            splits={"train": np.arange(1), "validation": np.arange(0), "test": np.arange(1, 8)},
            axes={"eeg": ("channel", "time")},
            sampling_interval_s=1 / 200,
        )
        table = evaluate_model(model, dataset, bootstrap=0)
        names = list(model.metadata["eeg"]["ch_names"])
        turned = replace(dataset.outputs["eeg"], coordinates={"channel": ("channel", np.array(names[::-1]))})
        with pytest.raises(
            DatasetError, match=f"channel 1 of 63 is {names[-1]} as given, and {names[0]} in eeg-things"
        ):
            evaluate_model(model, replace(dataset, outputs={"eeg": turned}), bootstrap=0)
    assert dict(table.sizes) == {"channel": 2, "time": 3}
    assert table["channel"].values.tolist() == ["Oz", "Fp1"]
    place = list(model.metadata["eeg"]["ch_names"]).index("Oz")
    expected = pearsonr(predicted.mean(1)[1:, 0, 2], measured.mean(0)[1:, place, 2])[0]
    assert float(table["r"].sel(channel="Oz")[2]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_two_hemispheres_are_one_family_of_tests(berg_dir, torch_home):
    stimuli = np.random.default_rng(0).integers(0, 256, (12, 3, 64, 64), dtype=np.uint8)
    with BERG(berg_dir).get_encoding_model("fmri-nsd_fsaverage-vit_b_32", "cpu", {"roi": "V1v"}, subject=1) as model:
        lh, rh = model.generate_response(stimuli, show_progress=False)
        measured = {side: np.zeros((12, 163_842), np.float32) for side in ("lh", "rh")}
        measured["lh"][:, model.indices_of("lh", "vertex")] = lh  # perfect; the right one is noise
        noise = np.random.default_rng(1).normal(size=rh.shape)
        measured["rh"][:, model.indices_of("rh", "vertex")] = noise
        splits = {"train": np.arange(1), "validation": np.arange(0), "test": np.arange(1, 12)}
        axes = {"lh": ("vertex",), "rh": ("vertex",)}
        dataset = EncodingDataset.from_arrays(stimuli, measured, splits=splits, axes=axes)
        tables = outputs_of(evaluate_model(model, dataset, permutations=99, bootstrap=0))
    np.testing.assert_allclose(tables["lh"]["r"], 1, atol=1e-4)
    np.testing.assert_allclose(tables["lh"]["p_family"], 0.01)
    assert float(tables["rh"]["p_family"].min()) > 0.3
    assert float(tables["rh"]["p_false_discovery"].min()) >= float(tables["rh"]["p"].min())
    assert all("V1v" in label for label in tables["rh"]["roi"].values)


def test_responses_that_are_there_already_are_compared_as_well(model):
    _, true, repeats = recordings(model)
    table = evaluate_responses(model, {"responses": (repeats[0], true)}, split="two-fold", permutations=9, bootstrap=9)
    assert float(table["r"][5]) == pytest.approx(pearsonr(repeats[0][:, 5], true[:, 5])[0], abs=1e-5)
    assert table.attrs["split"] == "two-fold"
    with pytest.raises(InvalidParameterError, match="Responses of responses are missing; given: rate"):
        evaluate_responses(model, {"rate": (true, true)}, split="test")


def test_groups_of_the_dataset_are_resampled_and_the_table_says_so(model):
    """Noise that near-copies share: the test set has 7 independent stimuli, and 20 pictures."""
    groups = np.r_[[0, 0, 0, 0], np.arange(20) // 3 + 1]
    shared = np.random.default_rng(5).standard_normal((3, 8, 2308))[:, groups]
    own = {"groups": groups, "presentations": np.tile(np.arange(24), 3), "axes": ("voxel",)}
    splits = {"train": np.arange(4), "test": np.arange(4, 24)}
    dataset = EncodingDataset.from_arrays(pictures(24), shared.reshape(-1, 2308), splits=splits, **own)
    with pytest.warns(SamplesWarning, match="20 stimuli are in 7 groups"):
        table = evaluate_model(model, dataset, permutations=200, bootstrap=100)
    assert (table.attrs["resampled"], table.attrs["n_groups"]) == ("groups of stimuli", 7)
    assert np.mean(table["p"] <= 0.05) <= 0.07
    passed = ((table["noise_ceiling"] > chance_ceiling(7, 3)) & table["r"].notnull()).values
    np.testing.assert_array_equal(table["noise_normalised"].notnull(), passed)
    assert np.mean(table["noise_ceiling"] > chance_ceiling(20, 3)) > 2 * np.mean(passed)
    with pytest.raises(InvalidParameterError, match="block_length=4 was given, and the data have groups"):
        evaluate_model(model, dataset, block_length=4)


def test_one_group_has_no_interval(model):
    dataset = EncodingDataset.from_arrays(
        pictures(24), np.random.default_rng(0).standard_normal((24, 2308)), axes=("voxel",),
        splits={"train": np.arange(4), "test": np.arange(4, 24)}, groups=np.repeat([0, 1], [4, 20]),
    )  # fmt: skip
    with pytest.warns(SamplesWarning, match="of one group: there is one independent sample"):
        table = evaluate_model(model, dataset, permutations=9, bootstrap=9)
    assert not {"p", "r_low"} & set(table)
    assert table["r"].notnull().any()


def series(n_samples, n_units, seed):
    steps = np.random.default_rng(seed).standard_normal((n_samples + 200, n_units))
    return lfilter([1.0], [1.0, -0.9], steps, axis=0)[200:]


@pytest.mark.slow
def test_responses_in_time_are_tested_by_the_effective_number(model):
    pair = {"responses": (series(400, 2308, 0), series(400, 2308, 1))}
    table = evaluate_responses(model, pair, split="two-fold", in_time=True, permutations=1, bootstrap=1)
    assert np.mean(table["p"] <= 0.05) <= 0.07
    assert np.mean((table["r_low"] <= 0) & (table["r_high"] >= 0)) >= 0.92
    assert float(table["n_effective"].median()) == pytest.approx(400 * 0.19 / 1.81, rel=0.15)
    assert table.attrs["resampled"].startswith("moments in time")


def test_twenty_stimuli_with_moments_are_moved_whole():
    how = independence.Resampling(9, 9, 0, False)
    found = independence.independent(how, None, 20, {"rate": 60}, None)
    assert found.what == "stimuli, each with all its moments"
    assert found.groups["rate"].tolist() == np.repeat(np.arange(20), 3).tolist()
    assert independence.independent(how, None, 19, {"rate": 57}, None).in_time
    grouped = independence.independent(how, np.array([0, 0, 1]), 3, {"rate": 6}, None)
    assert grouped.groups["rate"].tolist() == [0, 0, 0, 0, 1, 1]


def test_the_table_beside_the_weights_is_what_accuracy_returns(tmp_path, model):
    folder = write_own_prf(tmp_path)
    try:
        berg = BERG(tmp_path)
        before = berg.accuracy(MODEL)
        with berg.get_encoding_model(MODEL, "cpu") as own:
            dataset, _, _ = recordings(model)
            accuracy = evaluate_model(own, dataset, bootstrap=0)
            path = write_evaluation(own, accuracy, "test")
        assert path == folder / "encoding_models_accuracy" / "accuracy_subject-01.nc"
        assert "held_out_r" in before
        assert berg.accuracy(MODEL).identical(accuracy)
        some = berg.accuracy(MODEL, selection=WITHIN)
        np.testing.assert_array_equal(some["r"], accuracy["r"].sel(voxel=some["voxel"]))
        metrics = ModelCard.read(folder / f"{MODEL}.yaml").performance.metrics
        assert [metric.value for metric in metrics if metric.name == "median r, subject 1"] == [
            round(float(accuracy["r"].median()), 3)
        ]
        assert (folder / f"{MODEL}.yaml").read_text().startswith("# made for a test\n")
        assert set(manifest.read_manifest(folder / manifest.NAME)) == {
            "encoding_models_accuracy/accuracy_subject-01.nc"
        }
    finally:
        model_registry.MODEL_REGISTRY.pop(MODEL, None)


@pytest.mark.slow
def test_a_table_of_some_units_or_of_another_split_goes_elsewhere(place, model, tmp_path):
    dataset, _, _ = recordings(model)
    accuracy = evaluate_model(model, dataset, "train", bootstrap=0)
    with pytest.raises(InvalidParameterError, match=r"of the split 'test', not of train\. Say where .* --out"):
        write_evaluation(model, accuracy, "train")
    with (
        BERG(place).get_encoding_model(MODEL, "cpu", WITHIN) as some,
        pytest.raises(InvalidParameterError, match="is of all units"),
    ):
        write_evaluation(some, accuracy, "test")
    with (
        BERG().get_encoding_model("fmri-szinte2024-prf_css", "cpu") as built_in,
        pytest.raises(InvalidParameterError, match="lies in an installed package"),
    ):
        write_evaluation(built_in, accuracy, "test")
    out = write_evaluation(model, accuracy, "train", tmp_path / "own.nc")
    assert outputs_of(read_accuracy(out))["responses"].identical(accuracy)
