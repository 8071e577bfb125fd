import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from marks import slow
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torchvision.models import get_model, get_model_weights

from berg.core.exceptions import DatasetError, InvalidParameterError, ModelCardError
from berg.core.model_card import ModelCard
from berg.datasets.dataset import EncodingDataset
from berg.families.linearizing import fit as linearizing
from berg.families.linearizing import regression_files
from berg.families.linearizing.fit import peak_bytes
from berg.families.linearizing.model import read_converted
from berg.families.linearizing.readout import LinearReadout, Projection
from berg.families.linearizing.regression_steps import read_steps
from berg.features.pretrained_network import network_features
from berg.fitting import principal_components as components
from berg.fitting.fit import fit_model
from berg.fitting.fit_job import FitJob
from berg.fitting.penalties import PenaltyGridWarning
from berg.weights.safetensors_files import write_safetensors

pytestmark = pytest.mark.filterwarnings("ignore::berg.fitting.penalties.PenaltyGridWarning")
CPU = torch.device("cpu")
NETWORK, WEIGHTS = "shufflenet_v2_x0_5", "IMAGENET1K_V1"
NODES = ["stage3", "stage4"]
N_FEATURES = 96 * 14 * 14 + 192 * 7 * 7
N, N_TRAIN = 70, 60
AXES = {"vertex": {"coordinates": {"vertex": "fmri.{output}_vertices"}}}
SPLITS = {"train": np.arange(N_TRAIN), "test": np.arange(N_TRAIN, N)}


@pytest.fixture(scope="module")
def torch_folder(tmp_path_factory):
    """Where torchvision finds a small network with random weights."""
    folder = tmp_path_factory.mktemp("torch")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = get_model(NETWORK)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        network.train()(torch.randn(8, 3, 64, 64))  # so that pictures differ in all layers
    url = get_model_weights(NETWORK)[WEIGHTS].url
    torch.save(network.state_dict(), folder / "hub" / "checkpoints" / url.rpartition("/")[2])
    return folder


@pytest.fixture(autouse=True)
def torch_home_of_these_tests(torch_folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(torch_folder))


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (N, 3, 4, 4)).repeat(8, axis=2).repeat(8, axis=3)
    return (0.7 * coarse + 0.3 * rng.integers(0, 256, (N, 3, 32, 32))).astype(np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One for all tests: features are computed once."""
    return tmp_path_factory.mktemp("cache")


def network():
    return network_features(f"torchvision/{NETWORK}", WEIGHTS, NODES, "preset", "float32", CPU)


@pytest.fixture(scope="module")
def features(torch_folder, pictures):
    """Of all pictures, in float64."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setenv("TORCH_HOME", str(torch_folder))
        return torch.cat(network()(torch.from_numpy(pictures)), dim=1).double().numpy()


def responses(features, n_units, noise=0.5, seed=0):
    """Units that follow the components of the features, with noise and means of their own."""
    rng = np.random.default_rng(seed)
    scores = PCA(10, svd_solver="full").fit_transform(StandardScaler().fit_transform(features))
    signal = scores / scores.std(0) @ rng.standard_normal((10, n_units)) / np.sqrt(10)
    return (signal + noise * rng.standard_normal(signal.shape) + rng.uniform(-3, 3, n_units)).astype(np.float32)


def card(folder, steps, outputs=("lh", "rh"), output_axes=("stimulus", "vertex"), **more):
    """A card with the units of these outputs."""
    content = {
        "model_id": "fmri-simulated-layers",
        "modality": "fmri",
        "training_dataset": "simulated",
        "species": "none",
        "stimuli": "Images",
        "model_architecture": "Linear readout",
        "creator": "a test",
        "description": "Simulated units.",
        "family": "linearizing",
        "features": {
            "extractor": f"torchvision/{NETWORK}", "weights": WEIGHTS, "nodes": NODES, "n_features": N_FEATURES,
            "transform": "preset",
        },
        "readout": {"steps": steps, "regression": "{output}_reg_param"},
        "input": {"shape": ["batch_size", 3, "height", "width"], "dtype": "uint8", "range": [0, 255]},
        "output": {"type": "tuple of numpy.ndarray", "shape": ["batch_size", "n_units"]},
        "outputs": [{"name": name, "axes": list(output_axes), "unit": "z-scored beta"} for name in outputs],
        "axes": AXES,
        "licence": "CC0",
        "citation": "a test",
        "references": ["a test"],
        "parameters": {"subject": {"type": "int", "required": True, "valid_values": [1], "example": 1}},
        "files": {"weights": "weights_subject-{subject:02d}", "metadata": "metadata_subject-{subject:02d}"},
    }  # fmt: skip
    path = folder / "fmri-simulated-layers.yaml"
    path.write_text(yaml.safe_dump(content | more, sort_keys=False))
    return ModelCard.read(path)


def job(folder, pictures, measured, cache, steps, **options):
    """A job with the responses {output: (n_stimuli, n_units)}."""
    axes = options.pop("axes", ("stimulus", "vertex"))
    more = {key: options.pop(key) for key in ("presentations", "sampling_interval_s", "groups") if key in options}
    own_card = options.pop("card", None) or card(folder, steps, list(measured), axes)
    dataset = EncodingDataset.from_arrays(
        pictures, measured, axes=tuple(a for a in axes[1:] if a != "repetition"), unit="z", splits=SPLITS, **more
    )
    work = folder / "work"
    work.mkdir(exist_ok=True)
    given = {"parameters": {"subject": 1}, "device": CPU, "cache": cache, "work": work, "memory": 10**10}
    return FitJob(card=own_card, dataset=dataset, show_progress=False, **(given | options))


def fit(given):
    """As berg.fitting.fit does."""
    linearizing.check(given)
    return linearizing.fit(given)


def predictions(fitted, features, outputs, folder):
    """What the model that reads these tensors predicts, shape (n_stimuli, n_repeats, n_units) each."""
    path = folder / "weights.safetensors"
    write_safetensors(path, fitted.tensors)
    weights = read_converted(path, outputs)
    projection = Projection(*map(torch.from_numpy, (weights.centre, weights.matrix, weights.offset)), weights.n_pcas)
    intercepts = [torch.from_numpy(weights.intercepts[name])[None] for name in outputs]
    rows = [weights.coefficients[name](np.arange(own.shape[1])) for name, own in zip(outputs, intercepts, strict=True)]
    readout = LinearReadout(projection, [torch.from_numpy(each)[None] for each in rows], intercepts)
    layers = torch.from_numpy(features).float().split([96 * 14 * 14, 192 * 7 * 7], dim=1)
    return [each[:, 0].numpy() for each in readout(layers)]


def standardized(features):
    scaler = StandardScaler().fit(features[:N_TRAIN])
    return scaler.transform(features)


def test_the_published_recipe_is_that_of_scikit_learn(pictures, features, cache, tmp_path):
    measured = {"lh": responses(features, 30), "rh": responses(features, 25, seed=1)}
    fitted = fit(job(tmp_path, pictures, measured, cache, ["standardize", {"pca": 20}, "linear"]))
    scores = PCA(20, svd_solver="full").fit(standardized(features)[:N_TRAIN]).transform(standardized(features))
    for own, found in zip(measured.values(), predictions(fitted, features, list(measured), tmp_path), strict=True):
        expected = LinearRegression().fit(scores[:N_TRAIN], own[:N_TRAIN]).predict(scores)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert fitted.tensors["matrix"].shape == (20, N_FEATURES)
    assert fitted.facts["n_components"] == 20
    variances = PCA(20, svd_solver="full").fit(standardized(features)[:N_TRAIN]).explained_variance_ratio_
    assert fitted.facts["explained_variance"] == [pytest.approx(variances.sum(), abs=1e-4)]
    np.testing.assert_allclose(fitted.tensors["variance"], scores[:N_TRAIN].var(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("n_units", [7, 80])  # fewer and more than components: the tensors are others
def test_ridge_without_pca_is_ridge_on_all_features(n_units, pictures, features, cache, tmp_path):
    measured = {"lh": responses(features, n_units)}
    steps = ["standardize", {"ridge": {"alphas": [30000.0, 1.0e6], "folds": 4}}]
    fitted = fit(job(tmp_path, pictures, measured, cache, steps))
    (found,) = predictions(fitted, features, ["lh"], tmp_path)
    Z = standardized(features)
    each = [Ridge(alpha).fit(Z[:N_TRAIN], measured["lh"][:N_TRAIN]).predict(Z) for alpha in (30000, 1e6)]
    chosen = np.load(tmp_path / "work" / "lh.alphas.npy")[:, 0]
    assert set(chosen) <= {30000, 1e6}
    np.testing.assert_allclose(found, np.where(chosen == 30000, *each), atol=1e-4)
    assert fitted.tensors["matrix"].shape == (min(n_units, N_TRAIN - 1), N_FEATURES)
    assert ("variance" in fitted.tensors) == (n_units > N_TRAIN)


def test_ridge_on_components_is_that_of_scikit_learn_at_the_penalties_that_were_chosen(
    pictures, features, cache, tmp_path
):
    measured = {"lh": responses(features, 40, noise=3.0)}
    fitted = fit(job(tmp_path, pictures, measured, cache, ["standardize", {"pca": 20}, "ridge"]))
    (found,) = predictions(fitted, features, ["lh"], tmp_path)
    scores = PCA(20, svd_solver="full").fit(standardized(features)[:N_TRAIN]).transform(standardized(features))
    alphas = np.load(tmp_path / "work" / "lh.alphas.npy")[:, 0]
    assert len(np.unique(alphas)) > 2
    expected = Ridge(alphas).fit(scores[:N_TRAIN], measured["lh"][:N_TRAIN]).predict(scores)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert fitted.facts["lh_median_penalty"] == [pytest.approx(np.median(alphas))]


def test_bands_have_penalties_of_their_own(pictures, features, cache, tmp_path):
    late = StandardScaler().fit_transform(features[:, 96 * 14 * 14 :])
    scores = PCA(5, svd_solver="full").fit_transform(late)
    weights = np.random.default_rng(0).standard_normal((5, 40))
    measured = {"lh": (scores / scores.std(0) @ weights).astype(np.float32)}
    steps = ["standardize", {"pca": 10}, {"banded": {"iterations": 20, "folds": 4}}]
    fitted = fit(job(tmp_path, pictures, measured, cache, steps))
    assert fitted.facts["bands"] == NODES
    early_penalty, late_penalty = fitted.facts["lh_median_penalty"]
    assert late_penalty < early_penalty
    matrix = fitted.tensors["matrix"]
    assert matrix.shape == (20, N_FEATURES)
    assert not matrix[:10, 96 * 14 * 14 :].any()
    assert not matrix[10:, : 96 * 14 * 14].any()
    (found,) = predictions(fitted, features, ["lh"], tmp_path)
    assert np.corrcoef(found[N_TRAIN:].ravel(), measured["lh"][N_TRAIN:].ravel())[0, 1] > 0.3


def test_feature_spaces_may_hold_several_nodes(tmp_path):
    steps = ["standardize", {"banded": {"bands": {"both": ["stage{3..4}"]}, "seed": 3}}]
    found = read_steps(card(tmp_path, steps))
    columns = {"stage3": slice(0, 5), "stage4": slice(5, 9)}
    assert linearizing._bands(card(tmp_path, steps), found, columns) == {"both": slice(0, 9)}


def test_every_repetition_has_a_regression_of_its_own(pictures, features, cache, tmp_path):
    repeats = np.stack([responses(features, 12, seed=seed) for seed in range(3)], axis=1)  # (N, 3, 12)
    order = np.random.default_rng(0).permutation(3 * N)
    shuffled = repeats.reshape(3 * N, 12)[order]
    rank = np.empty(3 * N, int)  # the first presentation of a stimulus is its first repeat
    seen = dict.fromkeys(range(N), 0)
    for row, stimulus in enumerate(order // 3):
        rank[row] = seen[stimulus]
        seen[stimulus] += 1
    axes = ("stimulus", "repetition", "vertex")
    own = card(
        tmp_path, ["standardize", {"pca": 15}, "linear"], ["lh"], axes, axes={"repetition": {"length": 3}, **AXES}
    )
    fitted = fit(job(tmp_path, pictures, {"lh": shuffled}, cache, None, axes=axes, card=own, presentations=order // 3))
    assert fitted.tensors["lh.coefficient"].shape == (36, 15)
    (found,) = predictions(fitted, features, ["lh"], tmp_path)
    scores = PCA(15, svd_solver="full").fit(standardized(features)[:N_TRAIN]).transform(standardized(features))
    for repeat in range(3):
        own_repeat = np.empty((N, 12), np.float32)
        rows = rank == repeat
        own_repeat[order[rows] // 3] = shuffled[rows]
        expected = LinearRegression().fit(scores[:N_TRAIN], own_repeat[:N_TRAIN]).predict(scores)
        np.testing.assert_allclose(found[:, 12 * repeat : 12 * (repeat + 1)], expected, atol=5e-5)


@pytest.mark.slow
def test_missing_responses_are_left_out_and_units_without_any_are_counted(pictures, features, cache, tmp_path):
    measured = responses(features, 30)
    measured[:20, 3] = np.nan
    measured[:, 5] = np.nan
    fitted = fit(job(tmp_path, pictures, {"lh": measured}, cache, ["standardize", {"pca": 10}, "linear"]))
    assert fitted.facts["lh_units_not_fitted"] == 1
    scores = PCA(10, svd_solver="full").fit(standardized(features)[:N_TRAIN]).transform(standardized(features))
    (found,) = predictions(fitted, features, ["lh"], tmp_path)
    expected = LinearRegression().fit(scores[20:N_TRAIN], measured[20:N_TRAIN, 3]).predict(scores)
    np.testing.assert_allclose(found[:, 3], expected, atol=5e-5)
    assert all(np.isfinite(tensor).all() for tensor in fitted.tensors.values())


@pytest.mark.slow
def test_samples_in_time_are_left_out_as_neighbours(pictures, features, cache, tmp_path, monkeypatch):
    given = []
    real = linearizing.ridge_cv_solver

    def spy(X, alphas, folds, **options):
        given.append(folds)
        return real(X, alphas, folds, **options)

    monkeypatch.setattr(linearizing, "ridge_cv_solver", spy)
    measured, steps = {"lh": responses(features, 12)}, ["standardize", {"pca": 10}, "ridge"]
    fit(job(tmp_path, pictures, measured, cache, steps, sampling_interval_s=1.0))
    fit(job(tmp_path, pictures, measured, cache, steps))
    np.testing.assert_array_equal(given[0][0], np.arange(12))
    assert (np.diff(given[1][0]) > 1).any()


def test_groups_are_left_out_as_a_whole(pictures, features, cache, tmp_path, monkeypatch):
    given = []
    real = linearizing.ridge_cv_solver
    monkeypatch.setattr(
        linearizing, "ridge_cv_solver", lambda *args, **options: given.append(args) or real(*args, **options)
    )
    measured, steps = {"lh": responses(features, 12)}, ["standardize", {"pca": 10}, "ridge"]
    groups = np.arange(N) % 20 + 20 * (np.arange(N) >= N_TRAIN)
    fit(job(tmp_path, pictures, measured, cache, steps, groups=groups))
    (_, _, folds) = given[0]
    assert np.sort(np.concatenate(folds)).tolist() == list(range(N_TRAIN))
    assert sum(len(set(groups[fold])) for fold in folds) == 20
    with pytest.raises(InvalidParameterError, match=r"5 folds; the 60 training stimuli are in 3 groups.*folds: 3"):
        fit(job(tmp_path, pictures, measured, cache, steps, groups=groups % 20 % 3 + 20 * (np.arange(N) >= N_TRAIN)))


# Interruptions


class Broken(Exception):
    pass


def breaking(function, n_good):
    """The function, which breaks after so many good calls."""
    calls = []

    def broken(*given, **more):
        calls.append(1)
        if len(calls) > n_good:
            raise Broken
        return function(*given, **more)

    return broken


STAGES = {
    "features": (linearizing, "_stimuli", 2),
    "sums of products": (components, "_add_products", 5),
    "components are written": (linearizing, "_solver", 0),
    "regressions": (regression_files.RegressionFiles, "_solve", 1),
    "the second output": (regression_files.RegressionFiles, "_solve", 5),
    "matrix": (linearizing, "_matrix", 0),
}


def same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.dtype == found[name].dtype
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(tensor), err_msg=name)


def interruptible(folder, pictures, features):
    measured = {"lh": responses(features, 44), "rh": responses(features, 25, seed=1)}
    return job(folder, pictures, measured, folder / "cache", ["standardize", {"pca": 20}, "ridge"])


@pytest.fixture(scope="module")
def whole(torch_folder, pictures, features, tmp_path_factory):
    """What a fit that nobody interrupts gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(torch_folder))
        patch.setattr(linearizing, "UNITS", 10)
        return fit(interruptible(tmp_path_factory.mktemp("whole"), pictures, features))


@pytest.mark.parametrize("stage", [next(iter(STAGES)), *map(slow, list(STAGES)[1:])])
def test_an_interrupted_fit_goes_on_to_the_same_model(stage, whole, pictures, features, tmp_path, monkeypatch):
    monkeypatch.setattr(components, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(linearizing, "UNITS", 10)
    given = interruptible(tmp_path, pictures, features)
    owner, name, n_good = STAGES[stage]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, breaking(getattr(owner, name), n_good))
        with pytest.raises(Broken):
            fit(given)
    found = fit(given)
    same_tensors(found.tensors, whole.tensors)
    assert found.facts == whole.facts


CHILD = """
import os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
import numpy as np
from families.linearizing import test_fit as tests
from berg.families.linearizing import fit as linearizing
from berg.families.linearizing import regression_files

linearizing.UNITS = 10
folder, saved = Path(sys.argv[1]), np.load(sys.argv[3])
real, calls = regression_files.RegressionFiles._solve, []

def killed(*given):
    calls.append(1)
    if len(calls) == 3:
        os._exit(9)
    real(*given)

regression_files.RegressionFiles._solve = killed
linearizing.fit(tests.job(folder, saved["pictures"], {"lh": saved["lh"]}, folder / "cache", tests.STEPS))
"""
STEPS = ["standardize", {"pca": 20}, "linear"]


@pytest.mark.slow
def test_a_killed_fit_goes_on_to_the_same_model(pictures, features, cache, tmp_path, monkeypatch):
    measured = {"lh": responses(features, 44)}
    np.savez(tmp_path / "data.npz", pictures=pictures, lh=measured["lh"])
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(Path(__file__).parents[2]), str(tmp_path / "data.npz")]
    assert subprocess.run(command, check=False, env=os.environ).returncode == 9
    ledger = json.loads((tmp_path / "work" / "lh.ledger.json").read_text())
    assert list(ledger) == ["0", "10"]
    monkeypatch.setattr(linearizing, "UNITS", 10)
    found = fit(job(tmp_path, pictures, measured, tmp_path / "cache", STEPS))
    (tmp_path / "whole").mkdir()
    whole = fit(job(tmp_path / "whole", pictures, measured, tmp_path / "cache", STEPS))
    same_tensors(found.tensors, whole.tensors)


@pytest.mark.slow
def test_other_responses_are_solved_anew(pictures, features, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(linearizing, "UNITS", 10)
    measured = responses(features, 44)
    fit(job(tmp_path, pictures, {"lh": measured}, cache, STEPS))
    solved = []
    real = regression_files.RegressionFiles._solve

    def spy(self, arrays, values, solve, units):
        solved.append(units.start)
        real(self, arrays, values, solve, units)

    monkeypatch.setattr(regression_files.RegressionFiles, "_solve", spy)
    changed = measured.copy()
    changed[4, 33] += 1
    fit(job(tmp_path, pictures, {"lh": changed}, cache, STEPS))
    assert solved == [30]


def test_blocks_stay_as_they_were_when_there_is_less_memory_the_second_time(pictures, features, cache, tmp_path):
    given = job(tmp_path, pictures, {"lh": responses(features, 12)}, cache, STEPS)
    first = fit(given)
    plan = (tmp_path / "work" / "plan.json").read_text()
    again = fit(replace(given, memory=1))
    assert (tmp_path / "work" / "plan.json").read_text() == plan
    same_tensors(again.tensors, first.tensors)


@pytest.mark.slow
def test_features_are_shared_by_subjects_and_not_by_other_pictures(pictures, features, tmp_path, monkeypatch):
    read = []
    real = linearizing._stimuli
    monkeypatch.setattr(linearizing, "_stimuli", lambda own, places: (read.extend(places), real(own, places))[1])
    measured = {"lh": responses(features, 12)}
    counts = []
    for index, own in enumerate((pictures, pictures, 255 - pictures)):
        folder = tmp_path / str(index)
        folder.mkdir()
        read.clear()
        fit(job(folder, own, measured, tmp_path / "cache", STEPS))
        counts.append(len(set(read)))
    assert counts == [N_TRAIN, 1, N_TRAIN]


# Memory


def test_less_memory_makes_smaller_blocks_until_it_fits(pictures, features, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(linearizing, "_network_bytes", lambda job, n_features: 0)
    given = job(tmp_path, pictures, {"lh": np.zeros((N, 9000), np.float32)}, cache, STEPS)
    plenty = peak_bytes(given)
    assert linearizing._plan(given) == linearizing._Plan(2048, 8192)
    tight = replace(given, memory=plenty - 1)
    assert linearizing._plan(tight) == linearizing._Plan(1024, 4096)
    assert peak_bytes(tight) <= tight.memory
    assert peak_bytes(replace(given, memory=1)) > 1  # the caller refuses it


@pytest.mark.parametrize("regression", ["linear", "ridge", "banded"])
def test_the_announcement_grows_with_everything_that_is_held(regression, pictures, features, cache, tmp_path):
    steps = ["standardize", {"pca": 20}, regression]
    small = job(tmp_path, pictures, {"lh": np.zeros((N, 2000), np.float32)}, cache, steps)
    announced = linearizing._peak_bytes(small, linearizing._Plan(64, 256))
    assert announced > linearizing._network_bytes(small, N_FEATURES)
    bare = linearizing._units_bytes(small, linearizing._Plan(64, 256), read_steps(small.card), N_TRAIN, 20, 2)
    more = linearizing._units_bytes(small, linearizing._Plan(64, 512), read_steps(small.card), N_TRAIN, 20, 2)
    assert more - bare >= 4 * 256 * (2 * N_TRAIN + 2 * 20)  # responses as read and as solved, solutions


# What is refused


@pytest.mark.parametrize(("steps", "words"), [
    ([{"pca": 5}, "linear"], r"steps are \['pca', 'linear'\]; they can be  \[standardize, pca: 250, linear\]"),
    (["standardize"], "with ridge or banded in the place of linear"),
    (["standardize", {"pca": "many"}, "linear"], "pca: many; it takes the number"),
    (["standardize", {"pca": 0}, "linear"], "pca: 0; it takes the number"),
    (["standardize", {"ridge": {"alpha": 3}}], r"ridge with alpha: Extra inputs.*it may have alphas, folds"),
    (["standardize", {"ridge": {"folds": 1}}], "folds: Input should be greater than or equal to 2"),
    (["standardize", {"ridge": {"alphas": []}}], "alphas: List should have at least 1 item"),
    (["standardize", {"pca": 3, "ridge": None}], "a step is a name, or one name with its settings"),
    ([], r"steps are \[\]"),
])  # fmt: skip
def test_steps_that_cannot_be_fitted_are_refused(steps, words, tmp_path):
    with pytest.raises(ModelCardError, match=words):
        read_steps(card(tmp_path, steps))


def test_a_penalty_of_zero_is_refused(pictures, features, cache, tmp_path):
    steps = ["standardize", {"ridge": {"alphas": [0.0, 1.0]}}]
    with pytest.raises(InvalidParameterError, match="above zero"):
        fit(job(tmp_path, pictures, {"lh": responses(features, 12)}, cache, steps))


@pytest.mark.parametrize("steps", [
    ["standardize", {"ridge": {"folds": 31}}],
    ["standardize", {"banded": {"folds": 31}}],
])  # fmt: skip
def test_more_folds_than_pairs_of_training_stimuli_are_refused_before_the_fit(
    steps, pictures, features, cache, tmp_path
):
    with pytest.raises(InvalidParameterError, match=r"31 folds, of 60 training stimuli.*folds: 30  or less"):
        linearizing.check(job(tmp_path, pictures, {"lh": responses(features, 4)}, cache, steps))


def test_penalties_at_the_edge_are_warned_of_and_among_the_facts(pictures, features, cache, tmp_path):
    steps = ["standardize", {"pca": 10}, {"ridge": {"alphas": [1e-3, 1e15], "folds": 4}}]
    noise = np.random.default_rng(0).standard_normal((N, 6)).astype(np.float32)
    measured = np.hstack([responses(features, 2, noise=0), noise])
    with pytest.warns(PenaltyGridWarning, match=r"100\.0% of the 8 units of 'lh': 25\.0% at the smallest"):
        fitted = fit(job(tmp_path, pictures, {"lh": measured}, cache, steps))
    assert fitted.facts["lh_share_at_smallest_and_largest_penalty"] == [0.25, 0.75]


@pytest.mark.slow
def test_the_announced_disk_holds_what_is_written(pictures, features, cache, tmp_path):
    for steps in (["standardize", "ridge"], ["standardize", {"pca": 10}, "linear"]):
        folder = tmp_path / str(len(steps))
        folder.mkdir()
        own = job(folder, pictures, {"lh": responses(features, 30)}, cache, steps)
        fitted = fit(own)
        written = sum(path.stat().st_size for path in own.work.iterdir())
        written += sum(np.asarray(tensor).nbytes for tensor in fitted.tensors.values())
        assert written <= linearizing.disk_bytes(own) + 1_000_000
        assert linearizing.disk_bytes(own) < 2 * written + 1_000_000


def test_more_components_than_training_stimuli_are_refused(pictures, features, cache, tmp_path):
    steps = ["standardize", {"pca": 60}, "linear"]
    with pytest.raises(InvalidParameterError, match=r"60 components, of 60 training stimuli. Write  pca: 59"):
        fit(job(tmp_path, pictures, {"lh": responses(features, 12)}, cache, steps))


def test_another_number_of_repeats_than_the_card_says_is_refused(pictures, features, cache, tmp_path):
    axes = ("stimulus", "repetition", "vertex")
    own = card(tmp_path, STEPS, ["lh"], axes, axes={"repetition": {"length": 4}, **AXES})
    given = job(tmp_path, pictures, {"lh": responses(features, 12)}, cache, None, axes=axes, card=own)
    with pytest.raises(DatasetError, match=r"up to 1 times; the card has 4 repetitions.*length: 1"):
        fit(given)


def test_bands_that_leave_a_node_out_are_refused(pictures, features, cache, tmp_path):
    steps = ["standardize", {"banded": {"bands": {"early": ["stage3"]}}}]
    with pytest.raises(ModelCardError, match=r"bands of the nodes stage3; every node.*in their order: stage3, stage4"):
        fit(job(tmp_path, pictures, {"lh": responses(features, 12)}, cache, steps))


def test_another_number_of_features_than_the_card_says_is_refused(pictures, features, cache, tmp_path):
    own = card(tmp_path, STEPS, ["lh"])
    stated = own.model_copy(update={"features": {**own.features, "n_features": 7}})
    with pytest.raises(ModelCardError, match=r"n_features is 7; .* have 28,224 together. Write  n_features: 28224"):
        fit(job(tmp_path, pictures, {"lh": responses(features, 12)}, cache, None, card=stated))


def test_a_transform_that_the_model_would_not_encode_with_is_refused(pictures, features, cache, tmp_path):
    stated = {"type": "str", "valid_values": ["preset", "as_trained"], "default": "preset", "example": "preset"}
    subject = {"type": "int", "required": True, "valid_values": [1], "example": 1}
    own = card(tmp_path, STEPS, ["lh"], parameters={"subject": subject, "transform": stated})
    measured = {"lh": responses(features, 12)}
    given = job(
        tmp_path, pictures, measured, cache, None, card=own, parameters={"subject": 1, "transform": "as_trained"}
    )
    with pytest.raises(
        InvalidParameterError, match=r"transform is 'as_trained', .* encodes with 'preset'.*default: as_"
    ):
        fit(given)


# From end to end


@pytest.mark.filterwarnings("ignore:.*noise ceiling:berg.datasets.assembly.DatasetWarning")
def test_the_fitted_model_predicts_what_it_has_not_seen(pictures, features, cache, tmp_path):
    measured = responses(features, 12, noise=0.1)
    dataset = EncodingDataset.from_arrays(pictures, {"lh": measured}, axes=("vertex",), unit="z", splits=SPLITS)
    report = fit_model(
        card(tmp_path, ["standardize", {"pca": 20}, "ridge"], ["lh"]).path,
        dataset,
        tmp_path / "berg",
        device="cpu",
        cache=cache,
        subject=1,
        bootstrap=0,
    )
    assert report.weights.is_file()
    assert float(report.accuracy["r"].median()) > 0.5
