"""Fits of the family delayed_linear: known delays come back, and the numbers are himalaya's."""

import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from berg import BERG
from berg.core import model_registry
from berg.core.exceptions import DatasetError, InvalidParameterError, ModelCardError
from berg.core.model_card import ModelCard
from berg.datasets.dataset import EncodingDataset
from berg.families.delayed_linear import fit as family
from berg.fitting import fit as fitting
from berg.fitting.fit import fit_model
from berg.fitting.folds import split_folds
from berg.weights.safetensors_files import read_safetensors

from .simulation import KERNEL, TR, card, delayed, simulated, volumes_of

pytestmark = pytest.mark.filterwarnings("ignore::berg.fitting.penalties.PenaltyGridWarning")  # of so little noise
REGIONS = ["rate", "rate", "length", "length"]


@pytest.fixture(scope="module")
def world():
    return simulated()


def dataset(world, test=("story5",), tr=TR):
    return EncodingDataset.from_runs(
        world["words"], world["bold"], sampling_interval_s=tr, test=test, unit="z-scored BOLD",
        coordinates={"roi": ("voxel", REGIONS)},
    )  # fmt: skip


def fitted(path, world, berg_dir, **options):
    report = fit_model(path, dataset(world), berg_dir, bootstrap=0, show_progress=False, device="cpu", **options)
    return report, read_safetensors(report.weights)


def tensors_of(path, world, folder):
    """The weights of a fit, without files and evaluation."""
    job = fitting._job(fitting.read_card(path), dataset(world), "cpu", None, folder, False, {}, folder)
    job.work.mkdir(parents=True, exist_ok=True)
    family.check(job)
    return family.fit(job).tensors


@pytest.fixture(scope="module")
def banded(world, tmp_path_factory):
    """A banded fit over spaces and delays."""
    folder = tmp_path_factory.mktemp("banded")
    path = card(folder, readout="[banded_ridge: {folds: 5, iterations: 10, bands: spaces_and_delays}]")
    return (*fitted(path, world, folder / "berg"), folder / "berg")


def training(world):
    """Standardised, delayed features and responses of the first five stories, by loops."""
    names = [f"story{number}" for number in range(5)]
    every = np.vstack([world["features"][name] for name in names])
    X = np.vstack([delayed((world["features"][name] - every.mean(0)) / every.std(0)) for name in names])
    Y = np.vstack([world["bold"][name] for name in names])
    return X, Y, np.repeat(np.arange(5), [len(world["bold"][name]) for name in names])


def test_known_delays_come_back(banded):
    report, weights, _ = banded
    found = weights["responses.coefficient"]
    expected = np.zeros((4, 8))
    expected[:2, :4], expected[2:, 4:] = KERNEL, KERNEL
    assert np.abs(found - expected).max() < 0.12
    assert report.accuracy.r.values.min() > 0.9


def test_the_numbers_of_ridge_are_those_of_scikit_learn_with_whole_runs_left_out(world, tmp_path):
    alphas = [0.1, 10.0, 1000.0]
    weights = tensors_of(card(tmp_path, readout=f"[ridge: {{folds: 5, alphas: {alphas}}}]"), world, tmp_path)
    X, Y, runs = training(world)
    folds = split_folds(len(X), 5, groups=runs)
    assert {len(np.unique(runs[fold])) for fold in folds} == {1}
    scores = np.array([[left_out_r2(X, Y, fold, alpha) for fold in folds] for alpha in alphas]).mean(1)
    for unit, best in enumerate(scores.argmax(0)):
        expected = Ridge(alphas[best]).fit(X, Y[:, unit])
        np.testing.assert_allclose(weights["responses.coefficient"][unit], expected.coef_, atol=2e-5)
        np.testing.assert_allclose(weights["responses.intercept"][unit], expected.intercept_, atol=2e-5)


def left_out_r2(X, Y, fold, alpha):
    kept = np.setdiff1d(np.arange(len(X)), fold)
    predicted = Ridge(alpha).fit(X[kept], Y[kept]).predict(X[fold])
    return 1 - ((Y[fold] - predicted) ** 2).sum(0) / ((Y[fold] - Y[fold].mean(0)) ** 2).sum(0)


def test_the_numbers_of_banded_ridge_are_those_of_himalaya(world, tmp_path):
    himalaya = pytest.importorskip("himalaya.ridge")
    alphas = [0.1, 10.0, 1000.0]
    readout = f"[banded_ridge: {{folds: 5, iterations: 20, seed: 3, alphas: {alphas}}}]"
    weights = tensors_of(card(tmp_path, readout=readout), world, tmp_path)
    X, Y, runs = training(world)
    folds = split_folds(len(X), 5, groups=runs)
    pairs = [(np.setdiff1d(np.arange(len(X)), fold), fold) for fold in folds]
    centred, shifted = (X - X.mean(0)).astype(np.float32), (Y - Y.mean(0)).astype(np.float32)
    _, coefficients, _ = himalaya.solve_group_ridge_random_search(
        [centred[:, :4], centred[:, 4:]], shifted, n_iter=20, alphas=np.array(alphas), cv=_Pairs(pairs), random_state=3,
        return_weights=True, progress_bar=False, warn=False,
    )  # fmt: skip
    found = weights["responses.coefficient"]
    np.testing.assert_allclose(found, np.asarray(coefficients).T, atol=1e-4 * np.abs(found).max())


class _Pairs:
    def __init__(self, pairs):
        self.pairs = pairs

    def split(self, *_):
        return iter(self.pairs)

    def get_n_splits(self, *_):
        return len(self.pairs)


STEPS = [
    "[lanczos, standardize, {delays: [1, 2, 3, 4]}]",
    "[lanczos: {lobes: 2, normalised: true}, trim: {start: 4, end: 2}, zscore, delays: [2, 0]]",
]


@pytest.mark.slow
@pytest.mark.parametrize("steps", STEPS)
def test_the_model_encodes_the_test_run_as_the_fit_predicted_it(world, tmp_path, steps, monkeypatch):
    """No skew: what is evaluated is what users get."""
    held = []
    original = family.HeldOut
    monkeypatch.setattr(family, "HeldOut", lambda *args, **options: held.append(original(*args, **options)) or held[-1])
    fitted(card(tmp_path, steps=steps), world, tmp_path / "berg")
    (own,) = held
    model = load(tmp_path / "berg", tmp_path)
    words = world["words"]["story5"]
    found = model({"words": list(words.words), "word_onsets": words.onsets})
    n_volumes, n_encoded = len(world["bold"]["story5"]), int(np.ceil((words.onsets[-1] + 8) / TR))
    assert abs(n_volumes - n_encoded) <= 1
    shared = min(len(found), len(own.predicted))
    atol = 1e-5 if "standardize" in steps else 0.05  # z-scores over a volume more or less
    np.testing.assert_allclose(found[:shared], own.predicted[:shared], atol=atol)
    start = 4 if "trim" in steps else 0
    np.testing.assert_array_equal(own.measured, world["bold"]["story5"][start : n_volumes - (2 if start else 0)])


def load(berg_dir, folder, **options):
    model = model_registry.bind_card(ModelCard.read(folder / "fmri-tiny-words.yaml"))(
        "cpu", berg_dir=berg_dir, **options
    )
    model.load_model()
    return model


def test_the_model_selects_labels_and_names_the_times(banded, world):
    _, weights, berg_dir = banded
    model = load(berg_dir, berg_dir.parent, selection={"roi": "length"})
    words = world["words"]["story0"]
    labelled = BERG(berg_dir).encode(model, {"words": words.words, "word_onsets": words.onsets}, labelled=True)
    found = labelled["responses"]
    assert found["roi"].values.tolist() == ["length", "length"]
    assert found["stimulus"].values[:3].tolist() == [0.0, 2.0, 4.0]
    whole = load(berg_dir, berg_dir.parent)({"words": words.words, "word_onsets": words.onsets})
    np.testing.assert_allclose(found.values, whole[:, 2:], atol=1e-6)
    assert weights["responses.coefficient"].shape == (4, 8)


def test_a_fit_that_was_interrupted_gives_the_same_model(world, tmp_path, monkeypatch):
    path = card(tmp_path)
    expected = tensors_of(path, world, tmp_path / "whole")
    original, calls = family.kept, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(family, "kept", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tensors_of(path, world, tmp_path / "again")
    monkeypatch.setattr(family, "kept", original)
    found = tensors_of(path, world, tmp_path / "again")
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.slow
def test_a_folder_with_cleaning_gives_what_arrays_give(world, tmp_path):
    """Files of runs, drifts regressed out in the order of dataset.yaml."""
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(5)
    cleaned = {}
    for name, bold in world["bold"].items():
        words = world["words"][name]
        rows = [f"{onset + 10:.6f}\t0.2\t{word}" for word, onset in zip(words.words, words.onsets, strict=True)]
        (data / f"{name}_words.tsv").write_text("\n".join(["onset\tduration\tword", *rows]))
        time, confound = np.linspace(-1, 1, len(bold))[:, None], rng.normal(size=(len(bold), 1))
        np.save(data / f"{name}_bold.npy", bold + 50 + 9 * time + 4 * confound)
        (data / f"{name}_confounds.tsv").write_text("motion\n" + "\n".join(map(str, confound[:, 0])))
        X = np.hstack([np.ones_like(time), time, confound])
        cleaned[name] = bold + 50 + 9 * time + 4 * confound
        cleaned[name] = (cleaned[name] - X @ np.linalg.lstsq(X, cleaned[name], rcond=None)[0]).astype(np.float32)
    (data / "dataset.yaml").write_text(
        f"""\
name: stories
subjects: [1, 2]
runs: [{", ".join(world["bold"])}]
sampling_interval_s: 2.0
stimuli: {{words: "{{run}}_words.tsv", first_volume_s: 10}}
responses:
  responses:
    path: "{{run}}_bold.npy"
    axes: [volume, voxel]
    unit: z-scored BOLD
    coordinates: {{roi: [rate, rate, length, length]}}
    cleaning:
      - regress: {{polynomials: 1, confounds: "{{run}}_confounds.tsv", columns: [motion]}}
      - trim: {{start: 6, end: 3}}
splits: {{test: [story5]}}
"""
    )
    opened = EncodingDataset.open(data, subject=1)
    assert opened.stimulus_names[:2] == ["story0 0", "story0 1"]
    assert opened.splits["test"].tolist() == list(range(len(opened.stimuli) - 175 + 6, len(opened.stimuli) - 3))
    kept = opened.splits["train"][:140]
    np.testing.assert_allclose(opened.outputs["responses"].mean(kept)[:100], cleaned["story0"][6:106], atol=1e-4)
    assert len(np.unique(opened.groups)) == 6
    path = card(tmp_path, readout="[ridge: {folds: 5}]")
    report = fit_model(path, data, tmp_path / "berg", subject=1, bootstrap=0, show_progress=False, device="cpu")
    metadata = json.loads((report.folder / "metadata" / "metadata_subject-01.json").read_text())
    assert metadata["encoding_models"]["test_stimuli"][0] == "story5 6"
    assert report.accuracy.r.values.min() > 0.85


def refused(path, data, tmp_path, error, words):
    with pytest.raises(error, match=words):
        fit_model(path, data, tmp_path / "berg", bootstrap=0, show_progress=False, device="cpu")
    assert not list((tmp_path / "berg").rglob("*.safetensors"))


def test_what_does_not_go_together_is_refused_before_anything_is_computed(world, tmp_path):
    path = card(tmp_path)
    refused(path, dataset(world, tr=1.5), tmp_path, InvalidParameterError, r"tr_s 2, .* every 1.5 s. Write  tr_s: 1.5")
    refused(path, dataset(world, test=()), tmp_path, DatasetError, "No run is in the split 'test'")
    few = dataset(world, test=[f"story{number}" for number in range(2, 6)])
    refused(path, few, tmp_path, InvalidParameterError, "5 folds of whole runs; 2 runs are trained on. Write  folds: 2")
    pictures = EncodingDataset.from_arrays(
        np.zeros((9, 3, 4, 4), np.uint8), np.random.default_rng(0).normal(size=(9, 4)), axes=("voxel",), unit="b",
        coordinates={"roi": ("voxel", REGIONS)}, names=list("abcdefghi"), splits={"train": range(6), "test": [7, 8]},
    )  # fmt: skip
    refused(path, pictures, tmp_path, DatasetError, "is fitted to words in time. Name the runs")


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("[lanczos]", "steps in time are lanczos. They are, in this order"),
        ("[zscore, lanczos, {delays: [1]}]", "in this order and each once"),
        ("[lanczos, zscore, standardize, {delays: [1]}]", "zscore or standardize"),
        ("[lanczos, {delays: [1, 1]}]", r"different whole volumes from 0, got \[1, 1\]"),
        ("[lancos, {delays: [1]}]", "no step in time 'lancos'. Did you mean 'lanczos'"),
        ("[lanczos: {lobs: 3}, delays: [1]]", "'lobs'"),
    ],
)
def test_steps_in_time_that_are_none_are_refused(world, tmp_path, steps, words):
    refused(card(tmp_path, steps=steps), dataset(world), tmp_path, InvalidParameterError, words)


@pytest.mark.parametrize(
    "readout", ["[ridge, linear]", "[lasso]", "[banded_ridge: {bands: words}]", "[]", "[ridge: {fold: 5}]"]
)
def test_readouts_that_are_none_are_refused(world, tmp_path, readout):
    refused(card(tmp_path, readout=readout), dataset(world), tmp_path, ModelCardError, "readout.steps")


def test_volumes_are_those_of_a_loop(world):
    import torch

    from berg.families.delayed_linear.features import Space, WordSpaces, WordVolumes
    from berg.features.time_steps import read_time_steps

    spaces = WordSpaces(
        {"rate": Space(extractor="word_rate"), "length": Space(extractor="word_length")}, torch.device("cpu")
    )
    module = WordVolumes(spaces, read_time_steps(["lanczos", {"delays": [1, 2]}]), TR)
    words = world["words"]["story1"]
    np.testing.assert_allclose(module.resampled(words, 155), volumes_of(words, 155), atol=2e-5)
