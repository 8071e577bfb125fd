import numpy as np
import pytest
from mne.stats import permutation_cluster_1samp_test
from scipy.stats import t as student

from berg.core.exceptions import InvalidParameterError
from berg.statistics.clusters import cluster_test, cluster_test_over_subjects


def effects(n_subjects=9, n_times=30, size=0.0, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n_subjects, n_times + 4))
    smooth = sum(noise[:, k : k + n_times] for k in range(5)) / np.sqrt(5)
    smooth[:, 10:18] += size
    return smooth


def test_clusters_and_p_values_of_all_signs_are_those_of_mne():
    values = effects(size=0.6)
    threshold = float(student.ppf(0.95, 8))
    t, clusters, p, _ = permutation_cluster_1samp_test(
        values, threshold, n_permutations="all", tail=1, out_type="indices", verbose=False
    )
    found = cluster_test_over_subjects(values, 2**9)
    np.testing.assert_allclose(found.statistic[0], t)
    assert [(b, e) for b, e in zip(found.begin, found.end, strict=True)] == [
        (own.min(), own.max() + 1) for (own,) in clusters
    ]
    np.testing.assert_allclose(found.mass, [t[own].sum() for own in clusters])
    np.testing.assert_allclose(found.p, p, atol=2 / 2**9)
    assert len(found.p) > 1


def test_courses_are_corrected_together():
    strong, weak = effects(size=2.0), effects(seed=1)
    alone = cluster_test_over_subjects(strong, 400)
    both = cluster_test_over_subjects(np.stack([weak, strong], axis=1), 400)
    np.testing.assert_array_equal(both.mass[both.course == 1], alone.mass)
    assert (both.p[both.course == 1] >= alone.p).all()
    assert (both.null_maximum >= alone.null_maximum).all()


def test_a_time_has_the_p_of_its_cluster():
    statistic = np.array([0, 3, 3, 0, 5, 0.0])
    found = cluster_test(statistic, np.array([[0, 4, 0, 0, 0, 0], [0, 0, 0, 0, 9, 9.0]]), 2)
    assert (found.begin.tolist(), found.end.tolist(), found.mass.tolist()) == ([1, 4], [3, 5], [6, 5])
    assert found.p_of_times[0].tolist() == [1, 2 / 3, 2 / 3, 1, 2 / 3, 1]


def test_nothing_above_the_threshold_is_no_cluster():
    found = cluster_test(np.zeros(5), np.ones((3, 5)), 2)
    assert (len(found.p), found.p_of_times.tolist()) == (0, [[1.0] * 5])


@pytest.mark.slow
def test_noise_is_seldom_a_cluster():
    wrong = [
        bool((cluster_test_over_subjects(effects(12, seed=seed), 200, seed=seed).p < 0.05).any()) for seed in range(600)
    ]
    assert 0.02 < np.mean(wrong) < 0.075  # two and a half standard errors are 0.022


BAD = {
    "one subject": (lambda: cluster_test_over_subjects(np.ones((1, 5))), "two subjects or more"),
    "no permutation": (lambda: cluster_test_over_subjects(np.ones((3, 5)), 0), "at least one permutation"),
    "NaN": (lambda: cluster_test([1.0, np.nan], np.ones((3, 2)), 1), "at times number 1"),
    "other times": (lambda: cluster_test(np.ones(3), np.ones((3, 2)), 1), r"\(permutations, courses, times\)"),
    "a level that is none": (lambda: cluster_test_over_subjects(np.ones((3, 5)), level=5), "between 0 and 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_tested_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InvalidParameterError, match=words):
        call()
