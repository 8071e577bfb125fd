"""Representational similarity beside rsatoolbox, variance partitioning beside himalaya, and tests in simulation.

python benchmarks/similarity.py --speed              # both sides in one run, in turns
python benchmarks/similarity.py --false-positives    # of every test, in simulations

Speed is in seconds of the processor, the fastest of the repeats: 92 stimuli, 20 subjects and 5 models that are fixed,
with the noise ceiling in each resample, as rsatoolbox computes it. Before it is timed, each comparison is held to the
other side: the largest difference of any similarity or bound is printed.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

N_STIMULI, N_UNITS, N_SUBJECTS, N_MODELS = 92, 300, 20, 5
NAMES = {
    "pearson": "corr",
    "cosine": "cosine",
    "whitened cosine": "cosine_cov",
    "spearman": "spearman",
    "rho-a": "rho-a",
    "kendall-tau-a": "tau-a",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--false-positives", action="store_true")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--runs", type=int, default=400, help="simulations of each test")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.speed:
        speed(arguments.repeats)
    if arguments.false_positives:
        false_positives(arguments.runs)


def seconds(call: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Of the processor, the fastest, and what the last call returned."""
    best, found = np.inf, None
    for _ in range(repeats):
        start = time.process_time()
        found = call()
        best = min(best, time.process_time() - start)
    return best, found


# Speed


def speed(repeats: int) -> None:
    """A table: what, ours, theirs in milliseconds, ratio, largest difference."""
    print(f"{'':44s} {'ours ms':>9s} {'theirs ms':>10s} {'ratio':>7s}  largest difference")
    matrices(repeats)
    rng = np.random.default_rng(0)
    models = rng.random((N_MODELS, N_STIMULI * (N_STIMULI - 1) // 2))
    subjects = models[0] + rng.random((N_SUBJECTS, models.shape[1]))
    for ours, theirs in NAMES.items():
        pattern_bootstrap(models, subjects, ours, theirs, repeats)
    for ours in ("pearson", "whitened cosine", "rho-a"):
        dual_bootstrap(models, subjects, ours, NAMES[ours])
    partitioning(repeats)


def row(name: str, ours: float, theirs: float, difference: float) -> None:
    """One line of the table, from seconds."""
    print(f"{name:44s} {1e3 * ours:9.3f} {1e3 * theirs:10.2f} {theirs / ours:7.1f}  {difference:.1e}", flush=True)


def matrices(repeats: int) -> None:
    """Dissimilarities of 92 patterns of 300 units."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    from berg.statistics.dissimilarity import crossnobis, dissimilarities

    rng = np.random.default_rng(0)
    patterns, repeated = rng.normal(size=(N_STIMULI, N_UNITS)), rng.normal(size=(4, N_STIMULI, N_UNITS))
    for measure in ("correlation", "euclidean"):
        data = Dataset(patterns)
        ours, found = seconds(lambda m=measure: dissimilarities(patterns, m), 10 * repeats)
        theirs, other = seconds(lambda m=measure, d=data: calc_rdm(d, method=m).get_vectors()[0], 10 * repeats)
        row(f"dissimilarities, {measure}", ours, theirs, np.abs(found - other).max())
    labels = {"stimulus": np.tile(np.arange(N_STIMULI), 4), "repeat": np.repeat(np.arange(4), N_STIMULI)}
    data = Dataset(repeated.reshape(-1, N_UNITS), obs_descriptors=labels)
    options = {"method": "crossnobis", "descriptor": "stimulus", "cv_descriptor": "repeat"}
    ours, found = seconds(lambda: crossnobis(repeated), repeats)
    theirs, other = seconds(lambda: calc_rdm(data, **options).get_vectors()[0], repeats)
    row("dissimilarities, crossnobis, 4 repeats", ours, theirs, np.abs(found - other).max())


def pattern_bootstrap(models: np.ndarray, subjects: np.ndarray, ours: str, theirs: str, repeats: int) -> None:
    """A resample of stimuli; both sides have the same draws."""
    import rsatoolbox.inference.evaluate as other
    from rsatoolbox.model import ModelFixed
    from rsatoolbox.rdm import RDMs

    from berg.statistics.rdm_similarity import resampled

    few, many = (
        (2, 20) if ours == "kendall-tau-a" else (10, 1000) if ours in NAMES.keys() - {"rho-a", "spearman"} else (4, 100)
    )
    drawn = np.random.default_rng(1).integers(0, N_STIMULI, (many, N_STIMULI))
    counts = np.array([np.bincount(each, minlength=N_STIMULI) for each in drawn], float)
    left = iter(drawn)

    def draw(rdms: Any, *_: Any) -> Any:
        stimuli = next(left)
        return rdms.subsample_pattern("index", stimuli), stimuli

    other.bootstrap_sample_pattern, other.tqdm.trange = draw, range
    fixed = [ModelFixed(str(number), model) for number, model in enumerate(models)]
    slow, result = seconds(lambda: other.eval_bootstrap_pattern(fixed, RDMs(subjects), method=theirs, N=few))
    fast, found = seconds(lambda: resampled(models, subjects, counts, None, ours), repeats)
    difference = max(
        np.abs(found.similarity[:few] - result.evaluations).max(),
        np.abs(np.stack([found.lower, found.upper])[:, :few] - result.noise_ceiling).max(),
    )
    row(f"bootstrap over stimuli, {ours}, a resample", fast / many, slow / few, difference)


def dual_bootstrap(models: np.ndarray, subjects: np.ndarray, ours: str, theirs: str) -> None:
    """A resample of both factors, which is three; both sides have the same draws."""
    import rsatoolbox.inference.evaluate as other
    from rsatoolbox.model import ModelFixed
    from rsatoolbox.rdm import RDMs

    from berg.statistics.rdm_inference import bootstraps, corrected_variances

    few, many = 4, 20 if ours == "rho-a" else 1000
    rng = np.random.default_rng(2)
    stimuli, people = rng.integers(0, N_STIMULI, (many, N_STIMULI)), rng.integers(0, N_SUBJECTS, (many, N_SUBJECTS))
    counts = [
        np.array([np.bincount(each, minlength=n) for each in drawn], float)
        for drawn, n in ((stimuli, N_STIMULI), (people, N_SUBJECTS))
    ]
    left = iter(zip(stimuli, people, strict=True))

    def draw(rdms: Any, **_: Any) -> Any:
        own, who = next(left)
        return rdms.subsample("index", who).subsample_pattern("index", own), who, own

    other.bootstrap_sample, other.tqdm.trange = draw, range
    fixed = [ModelFixed(str(number), model) for number, model in enumerate(models)]
    slow, result = seconds(lambda: other.eval_dual_bootstrap(fixed, RDMs(subjects), method=theirs, N=few))
    fast, _ = seconds(lambda: bootstraps(models, subjects, *counts, ours, "both"))
    same = bootstraps(models, subjects, *(own[:few] for own in counts), ours, "both")
    variances = corrected_variances(same, N_SUBJECTS, N_STIMULI)[0]
    row(f"both factors, {ours}, a resample", fast / many, slow / few, np.abs(variances - result.model_var).max())


def partitioning(repeats: int) -> None:
    """All seven subsets of three spaces, 300 stimuli of which 150 more are left out, and the r2 of both sides."""
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import r2_score
    from sklearn.model_selection import KFold

    from berg import experiments
    from berg.experiments import partitioning as module
    from berg.statistics.partition import subsets

    rng = np.random.default_rng(0)
    spaces = [rng.normal(size=(450, 60)) for _ in range(3)]
    responses = sum(own @ rng.normal(size=(60, 150)) for own in spaces) / 8 + rng.normal(size=(450, 150))
    alphas, test, kept = np.geomspace(0.1, 1e5, 13), np.arange(300, 450), np.arange(300)
    module._inner_folds = lambda kept, n, numbers: [left for _, left in KFold(n).split(kept)]

    def theirs() -> np.ndarray:
        scores = []
        for subset in subsets(3):
            X = np.hstack([spaces[index] for index in subset])
            scaled = ((X - X[kept].mean(0)) / X[kept].std(0)).astype(np.float32)
            mean = responses[kept].mean(0)
            fitted = RidgeCV(alphas=alphas, cv=KFold(5), fit_intercept=True)
            fitted.fit(scaled[kept], (responses[kept] - mean).astype(np.float32))
            scores.append(r2_score(responses[test], fitted.predict(scaled[test]) + mean))
        return np.array(scores)

    named = dict(zip("abc", spaces, strict=True))
    fast, found = seconds(
        lambda: experiments.partition(responses, named, alphas=alphas, folds=[test], n_resamples=1), repeats
    )
    slow, other = seconds(theirs, repeats)
    row("partitioning, 3 spaces, r2 of 7 subsets", fast, slow, np.abs(found["r2"].values - other).max())


# False positives


def false_positives(n_runs: int) -> None:
    """How often each test finds, at 5 %, what is not there."""
    from berg.statistics.rdm_inference import infer

    print(f"{'test':60s} false positives at 5 %, {n_runs} simulations")
    for generalise in ("both", "stimuli", "subjects"):
        rng = np.random.default_rng(0)
        tests = [infer(*unrelated(rng), "pearson", generalise, n_resamples=200, seed=k) for k in range(n_runs)]
        above, differ = (np.mean([each < 0.05 for each in own]) for own in (
            [test.p_above_zero for test in tests], [test.p_difference[0, 1] for test in tests]
        ))  # fmt: skip
        print(f"{'above zero, generalise to ' + generalise:60s} {above:.3f}")
        print(f"{'two models differ, generalise to ' + generalise:60s} {differ:.3f}", flush=True)
    rng = np.random.default_rng(1)
    own = [infer(*each_their_own(rng), "pearson", "subjects") for _ in range(n_runs)]
    print(
        f"{'above zero, subjects who have nothing in common':60s} {np.mean([t.p_above_zero < 0.05 for t in own]):.3f}"
    )
    for over, n_subjects in (("stimuli", 1), ("stimuli", 4), ("subjects", 10)):
        name = f"fusion, any cluster, over {over}, {n_subjects} in time"
        print(f"{name:60s} {np.mean([fused(seed, over, n_subjects) for seed in range(n_runs)]):.3f}", flush=True)
    print(f"{'clusters of effects of 12 subjects that are noise':60s} {np.mean([noise(s) for s in range(n_runs)]):.3f}")


def unrelated(rng: np.random.Generator, n: int = 24, n_subjects: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Two models and subjects around one truth, all of random patterns."""
    from berg.statistics.dissimilarity import dissimilarities

    truth = rng.normal(size=(n, 20))
    subjects = [dissimilarities(truth + rng.normal(size=truth.shape), "euclidean") for _ in range(n_subjects)]
    models = [dissimilarities(rng.normal(size=(n, 20)), "euclidean") for _ in range(2)]
    return np.stack(models), np.stack(subjects)


def each_their_own(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two models and subjects of random patterns, each of a truth of its own."""
    subjects = [unrelated(rng, n_subjects=1)[1][0] for _ in range(8)]
    return unrelated(rng, n_subjects=1)[0], np.stack(subjects)


def fused(seed: int, over: str, n_subjects: int) -> bool:
    """Whether a cluster is found between responses in time of one geometry and two regions of others."""
    from berg import experiments

    rng = np.random.default_rng(seed)
    truth, shape = rng.normal(size=(20, 8)), np.exp(-(((np.arange(25) - 10) / 4) ** 2))
    eeg = [
        (truth @ rng.normal(size=(8, 12)))[..., None] * shape + rng.normal(size=(20, 12, 25)) for _ in range(n_subjects)
    ]
    regions = {name: rng.normal(size=(20, 15)) for name in "ab"}
    found = experiments.fusion(eeg, regions, over=over, n_permutations=200, n_sets=0, seed=seed, show_progress=False)
    return bool((found["p"] < 0.05).any())


def noise(seed: int) -> bool:
    """Whether a cluster is found in smooth noise of 12 subjects."""
    from berg.statistics.clusters import cluster_test_over_subjects

    values = np.random.default_rng(seed).standard_normal((12, 34))
    smooth = sum(values[:, k : k + 30] for k in range(5))
    return bool((cluster_test_over_subjects(smooth, 200, seed=seed).p < 0.05).any())


if __name__ == "__main__":
    main()
