import numpy as np
import pytest
import rsatoolbox.inference.evaluate as theirs
from marks import slow
from rsatoolbox.inference import boot_noise_ceiling, eval_bootstrap_pattern, eval_dual_bootstrap, eval_fixed
from rsatoolbox.model import ModelFixed
from rsatoolbox.rdm import RDMs, compare
from scipy.stats import kendalltau, rankdata, ttest_1samp, ttest_rel

from berg.core.exceptions import InvalidParameterError
from berg.statistics.rdm_inference import bootstraps, corrected_variances, infer
from berg.statistics.rdm_similarity import (
    COMPARISONS,
    _ranks,
    noise_ceiling,
    resampled,
    resampled_correlations,
    similarity,
)

pytestmark = pytest.mark.filterwarnings("ignore:Noise ceiling for tau")

NAMES = {
    "pearson": "corr",
    "spearman": "spearman",
    "rho-a": "rho-a",
    "kendall-tau-a": "tau-a",
    "cosine": "cosine",
    "whitened cosine": "cosine_cov",
    "whitened pearson": "corr_cov",
}
N, N_SUBJECTS, N_RESAMPLES = 12, 4, 6


def simulated(n=N, n_subjects=N_SUBJECTS, seed=0):
    """A model with ties, one that is right and one that is not, and subjects."""
    rng = np.random.default_rng(seed)
    models = rng.random((3, n * (n - 1) // 2))
    models[0] = models[0] > 0.5
    return models, rng.random((n_subjects, models.shape[1])) + models[1]


MODELS, SUBJECTS = simulated()


@pytest.fixture
def draws(monkeypatch):
    """The same draws for both sides; returns how often each stimulus and each subject was drawn."""
    rng = np.random.default_rng(1)
    drawn = [(rng.integers(0, N_SUBJECTS, N_SUBJECTS), rng.integers(0, N, N)) for _ in range(N_RESAMPLES)]
    left = iter(drawn)

    def both(rdms, **_):
        subjects, stimuli = next(left)
        return rdms.subsample("index", subjects).subsample_pattern("index", stimuli), subjects, stimuli

    def alone(rdms, *_):
        _, stimuli = next(left)
        return rdms.subsample_pattern("index", stimuli), stimuli

    monkeypatch.setattr(theirs, "bootstrap_sample", both)
    monkeypatch.setattr(theirs, "bootstrap_sample_pattern", alone)
    monkeypatch.setattr(theirs.tqdm, "trange", range)
    counts = [
        np.array([np.bincount(each[k], minlength=n) for each in drawn], float) for k, n in ((1, N), (0, N_SUBJECTS))
    ]
    return counts


def fixed(models=MODELS):
    return [ModelFixed(str(number), model) for number, model in enumerate(models)]


def test_every_comparison_is_compared():
    assert set(NAMES) == set(COMPARISONS)


@pytest.mark.parametrize("comparison", NAMES)
def test_similarity_and_ceiling_are_those_of_rsatoolbox(comparison):
    found = similarity(MODELS, SUBJECTS, comparison)
    np.testing.assert_allclose(found, compare(RDMs(MODELS), RDMs(SUBJECTS), NAMES[comparison]), atol=1e-12)
    ceiling = boot_noise_ceiling(RDMs(SUBJECTS), NAMES[comparison])
    np.testing.assert_allclose(noise_ceiling(SUBJECTS, comparison), ceiling, atol=1e-12)


@pytest.mark.parametrize(
    "comparison", [slow(name) if name in ("spearman", "kendall-tau-a", "whitened pearson") else name for name in NAMES]
)
def test_both_factors_bootstrapped_together_are_those_of_rsatoolbox(comparison, draws):
    result = eval_dual_bootstrap(fixed(), RDMs(SUBJECTS), method=NAMES[comparison], N=N_RESAMPLES)
    found = bootstraps(MODELS, SUBJECTS, *draws, comparison, "both")
    for number, boot in enumerate(found):
        np.testing.assert_allclose(boot.similarity, result.evaluations[:, :, 0, 0, number], atol=1e-12)
        ceiling = np.stack([boot.lower, boot.upper])
        np.testing.assert_allclose(ceiling, result.noise_ceiling[:, :, 0, number], atol=1e-12)
    models, differences, ceiling = corrected_variances(found, N_SUBJECTS, N)
    np.testing.assert_allclose(models, result.model_var, atol=1e-12)
    np.testing.assert_allclose(differences[np.triu_indices(3, 1)], result.diff_var, atol=1e-12)
    np.testing.assert_allclose(ceiling, result.noise_ceil_var[:, 0], atol=1e-12)


@pytest.mark.parametrize("comparison", ["pearson", "rho-a", "whitened cosine"])
def test_the_bootstrap_over_stimuli_is_that_of_rsatoolbox(comparison, draws):
    result = eval_bootstrap_pattern(fixed(), RDMs(SUBJECTS), method=NAMES[comparison], N=N_RESAMPLES)
    found = bootstraps(MODELS, SUBJECTS, *draws, comparison, "stimuli")
    np.testing.assert_allclose(found[0].similarity, result.evaluations, atol=1e-12)
    models, differences, ceiling = corrected_variances(found, N_SUBJECTS, N)
    np.testing.assert_allclose(models, result.model_var, atol=1e-12)
    np.testing.assert_allclose(differences[np.triu_indices(3, 1)], result.diff_var, atol=1e-12)
    np.testing.assert_allclose(ceiling, result.noise_ceil_var[:, 0], atol=1e-12)


def test_other_subjects_are_a_t_test_over_subjects():
    found, each = infer(MODELS, SUBJECTS, "cosine", "subjects"), similarity(MODELS, SUBJECTS, "cosine")
    np.testing.assert_allclose(found.p_above_zero, ttest_1samp(each, 0, axis=1, alternative="greater").pvalue)
    np.testing.assert_allclose(found.p_difference[0, 1], ttest_rel(each[0], each[1]).pvalue)
    result = eval_fixed(fixed(), RDMs(SUBJECTS), method="cosine")
    np.testing.assert_allclose(found.p_difference, result.test_pairwise(), atol=1e-12)
    np.testing.assert_allclose(found.p_above_zero, result.test_zero(), atol=1e-12)
    np.testing.assert_allclose(found.p_ceiling, result.test_noise(), atol=1e-12)
    np.testing.assert_allclose(found.error, result.get_sem())
    np.testing.assert_allclose(found.interval(), result.get_ci(0.95))


@pytest.mark.parametrize("comparison", ["pearson", "whitened pearson", "spearman"])
def test_results_do_not_depend_on_blocks(comparison, monkeypatch):
    counts = np.random.default_rng(2).multinomial(N, np.full(N, 1 / N), 7).astype(float)
    whole = resampled(MODELS, SUBJECTS, counts, None, comparison)
    monkeypatch.setattr("berg.statistics.rdm_similarity._BLOCK", 250)
    in_blocks = resampled(MODELS, SUBJECTS, counts, None, comparison)
    np.testing.assert_allclose(in_blocks.columns, whole.columns, atol=1e-13)


@pytest.mark.parametrize("largest", [40, 2**40])
def test_ranks_of_few_and_of_large_numbers_are_those_of_the_drawn_values(largest):
    rng = np.random.default_rng(6)
    rows, times = rng.integers(0, largest, (3, 50)).astype(float), rng.integers(1, 4, 50)
    expected = [rankdata(np.repeat(row, times)) for row in rows]
    found = _ranks(rows, times.astype(float)) / 2
    np.testing.assert_array_equal([np.repeat(row, times) for row in found], expected)


def test_a_stimulus_drawn_for_more_than_half_of_all_has_the_limit():
    counts = np.array([[4, 1, 1, 0, 0, 0.0]])  # 1 + 6 / 2 - 4 = 0
    models, subjects = simulated(6, 2)
    kept = [0, 0, 0, 0, 1, 2]
    names = RDMs(np.concatenate([models, subjects])).subsample_pattern("index", kept)
    found = resampled(models, subjects, counts, None, "whitened cosine").similarity[0]
    expected = compare(RDMs(names.dissimilarities[:3]), RDMs(names.dissimilarities[3:]), "cosine_cov").mean(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_resample_of_two_stimuli_is_left_out():
    counts = np.array([[6, 6] + 10 * [0], [1] * 12], float)
    assert np.isnan(resampled(MODELS, SUBJECTS, counts).columns).all(1).tolist() == [True, False]


def test_kendalls_tau_a_of_ties_counts_all_pairs():
    np.testing.assert_allclose(similarity([0.0, 0, 1], [1.0, 2, 3], "kendall-tau-a"), 2 / 3)
    without = np.random.default_rng(3).permutation(np.arange(15.0))
    expected = kendalltau(without, np.arange(15)).statistic
    np.testing.assert_allclose(similarity(without, np.arange(15.0), "kendall-tau-a"), expected)


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_dissimilarities_that_are_all_the_same_are_similar_to_none(comparison):
    found = similarity(np.zeros(6), np.arange(6.0), comparison)
    assert found[0, 0] == 0


def test_the_seed_makes_the_bootstrap():
    one, same, other = (infer(MODELS, SUBJECTS, n_resamples=100, seed=seed).error for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()


def test_one_subject_has_no_ceiling_and_generalises_to_stimuli():
    found = infer(MODELS, SUBJECTS[:1], generalise="stimuli", n_resamples=100)
    assert np.isnan([found.lower, found.upper, *found.p_ceiling]).all()
    assert np.isfinite(found.p_above_zero).all()
    assert found.degrees_of_freedom == N - 1


def unrelated(rng, n_subjects, n=24):
    """Dissimilarities of random patterns, those of subjects around one truth."""
    i, j = np.triu_indices(n, 1)
    distances = lambda x: ((x[i] - x[j]) ** 2).mean(1)  # noqa: E731
    truth = rng.normal(size=(n, 20))
    subjects = np.stack([distances(truth + rng.normal(size=truth.shape)) for _ in range(n_subjects)])
    return np.stack([distances(rng.normal(size=(n, 20))) for _ in range(2)]), subjects


@pytest.mark.slow
@pytest.mark.parametrize("generalise", ["both", "stimuli"])
def test_unrelated_models_are_seldom_found_and_seldom_differ(generalise):
    rng = np.random.default_rng(0)
    tests = [infer(*unrelated(rng, 8), "pearson", generalise, n_resamples=200, seed=k) for k in range(300)]
    above = np.mean([test.p_above_zero < 0.05 for test in tests])
    differ = np.mean([test.p_difference[0, 1] < 0.05 for test in tests])
    assert above < 0.07  # found: 0.013 and 0.02
    assert differ < 0.08


@pytest.mark.parametrize("of_ranks", [False, True])
def test_correlations_in_resamples_are_those_of_drawn_matrices(of_ranks):
    joint = np.concatenate([MODELS, SUBJECTS])
    stimuli = np.random.default_rng(5).integers(0, N, (3, N))
    counts = np.array([np.bincount(each, minlength=N) for each in stimuli], float)
    found = resampled_correlations(joint, counts, of_ranks)
    for each, own in zip(stimuli, found, strict=True):
        drawn = RDMs(joint).subsample_pattern("index", each)
        np.testing.assert_allclose(own, compare(drawn, drawn, "spearman" if of_ranks else "corr"), atol=1e-12)


BAD = {
    "other stimuli": (lambda: similarity(np.ones(3), np.ones(6)), "3 pairs, the second 6"),
    "no number of stimuli": (lambda: similarity(np.ones(4), np.ones(4)), "4 dissimilarities are not all pairs"),
    "NaN": (lambda: similarity([1, np.nan, 2], np.ones(3)), "first: dissimilarities number 0 are NaN"),
    "another comparison": (lambda: similarity(np.ones(3), np.ones(3), "corr"), "Allowed: 'pearson'"),
    "a ceiling of one": (lambda: noise_ceiling(SUBJECTS[0]), "two subjects or more"),
    "others from one subject": (lambda: infer(MODELS, SUBJECTS[0], generalise="both"), "generalise='stimuli'"),
    "few resamples": (lambda: infer(MODELS, SUBJECTS, n_resamples=10), "at least 100"),
    "few stimuli": (lambda: infer(np.ones(3), np.ones((2, 3))), "3 stimuli are too few"),
    "models of other stimuli": (lambda: infer(np.ones(10), SUBJECTS), "Both need the same stimuli"),
    "another generalisation": (lambda: infer(MODELS, SUBJECTS, generalise="all"), "'stimuli', 'subjects', 'both'"),
    "cubes": (lambda: similarity(np.ones((2, 2, 3)), np.ones(3)), r"must be \(rdms, pairs\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_compared_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InvalidParameterError, match=words):
        call()
