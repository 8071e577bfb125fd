import numpy as np
import pytest
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm
from scipy.spatial.distance import pdist
from sklearn.covariance import ledoit_wolf

from berg.core.exceptions import InvalidParameterError
from berg.statistics.dissimilarity import (
    crossnobis,
    dissimilarities,
    dissimilarities_in_time,
    dissimilarities_of_blocks,
    noise_precision,
)

RNG = np.random.default_rng(0)
PATTERNS = RNG.normal(size=(12, 40)) + 5


@pytest.mark.parametrize("measure", ["correlation", "cosine", "euclidean"])
def test_dissimilarities_are_those_of_scipy(measure):
    theirs = pdist(PATTERNS, "sqeuclidean") / 40 if measure == "euclidean" else pdist(PATTERNS, measure)
    np.testing.assert_allclose(dissimilarities(PATTERNS, measure), theirs, atol=1e-12)
    if measure != "cosine":
        np.testing.assert_allclose(
            dissimilarities(PATTERNS, measure),
            calc_rdm(Dataset(PATTERNS), method=measure).get_vectors()[0],
            atol=1e-12,
        )


@pytest.mark.parametrize("measure", ["correlation", "cosine", "euclidean"])
def test_patterns_read_in_blocks_give_the_same(measure):
    def blocks():
        return ((slice(start, min(start + 5, 12)), PATTERNS[start : start + 5]) for start in range(0, 12, 5))

    found = dissimilarities_of_blocks(blocks, 12, 40, measure)
    np.testing.assert_allclose(found, dissimilarities(PATTERNS, measure), atol=1e-14)


def test_each_moment_has_dissimilarities_of_its_own():
    in_time = RNG.normal(size=(6, 8, 3))
    found = dissimilarities_in_time(in_time)
    np.testing.assert_allclose(found[1], pdist(in_time[..., 1], "correlation"), atol=1e-12)
    assert found.shape == (3, 15)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")  # in rsatoolbox
@pytest.mark.parametrize("with_precision", [False, True])
def test_crossnobis_is_that_of_rsatoolbox(with_precision):
    repeats = RNG.normal(size=(3, 7, 10)) + RNG.normal(size=(7, 10))
    precision = np.linalg.inv(np.cov(RNG.normal(size=(10, 50)))) if with_precision else None
    rows = Dataset(
        repeats.reshape(-1, 10),
        obs_descriptors={"stimulus": np.tile(np.arange(7), 3), "repeat": np.repeat(np.arange(3), 7)},
    )
    theirs = calc_rdm(rows, method="crossnobis", descriptor="stimulus", cv_descriptor="repeat", noise=precision)
    np.testing.assert_allclose(crossnobis(repeats, precision), theirs.get_vectors()[0], atol=1e-12)


def test_crossnobis_of_noise_is_zero_on_average_and_of_patterns_their_distance():
    noise = np.random.default_rng(1).normal(size=(8, 40, 60))
    truth = np.random.default_rng(2).normal(size=(40, 60))
    assert abs(crossnobis(noise).mean()) < 0.03
    assert abs((crossnobis(noise + truth) - pdist(truth, "sqeuclidean") / 60).mean()) < 0.04
    assert (pdist((noise + truth).mean(0), "sqeuclidean") / 60).mean() > (pdist(truth, "sqeuclidean") / 60).mean() + 0.2


def test_the_covariance_of_noise_is_shrunk_as_scikit_learn_does():
    repeats = RNG.normal(size=(2, 20, 15)) @ RNG.normal(size=(15, 15)) + RNG.normal(size=(20, 15))
    noise = (repeats - repeats.mean(0)).reshape(-1, 15)
    theirs, _ = ledoit_wolf(noise, assume_centered=True)
    np.testing.assert_allclose(np.linalg.inv(noise_precision(repeats)), theirs * 2, rtol=1e-8)


BAD = {
    "a stimulus without variation": (lambda: dissimilarities([[1, 1, 1], [1, 2, 3]]), "stimulus 0 is the same"),
    "a pattern of zeros": (lambda: dissimilarities([[0, 0], [1, 2]], "cosine"), "stimulus 0 is zero"),
    "one stimulus": (lambda: dissimilarities([[1, 2]]), "1 stimuli and 2 units"),
    "one unit": (lambda: dissimilarities([[1], [2]]), "at least 2 stimuli and 2 units"),
    "NaN": (lambda: dissimilarities([[1, np.nan], [1, 2]]), r"numbers 0\) are NaN or infinite at 1 units \(numbers 1"),
    "another measure": (lambda: dissimilarities(PATTERNS, "pearson"), "'correlation', 'cosine', 'euclidean'"),
    "no matrix": (lambda: dissimilarities([1, 2, 3]), r"must be \(stimuli, units\)"),
    "one repeat": (lambda: crossnobis(np.ones((1, 3, 4))), "at least two of the first two"),
    "a precision of another shape": (lambda: crossnobis(np.ones((2, 3, 4)), np.eye(3)), r"of shape \(4, 4\)"),
    "no noise": (lambda: noise_precision(np.ones((2, 3, 4))), "All repeats are the same"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_has_no_dissimilarities_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InvalidParameterError, match=words):
        call()
