from itertools import permutations

import numpy as np
import pytest

from berg.core.exceptions import InvalidParameterError
from berg.statistics.kernel_alignment import linear_cka

RNG = np.random.default_rng(0)


def by_definition(one, other):
    """The unbiased criterion as a mean over all ordered fours of stimuli (Song et al. 2012, theorem 3)."""
    K, L = one @ one.T, other @ other.T
    terms = [K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]) for i, j, q, r in permutations(range(len(K)), 4)]
    return np.mean(terms)


def test_cka_is_that_of_its_definition():
    one, other = RNG.normal(size=(7, 3)), RNG.normal(size=(7, 5))
    other[:, :3] += one
    expected = by_definition(one, other) / np.sqrt(by_definition(one, one) * by_definition(other, other))
    assert linear_cka(one, other) == pytest.approx(expected, abs=1e-12)


def test_turns_shifts_and_scales_change_nothing_and_linear_maps_do():
    patterns = RNG.normal(size=(30, 20))
    turn, _ = np.linalg.qr(RNG.normal(size=(20, 20)))
    assert linear_cka(patterns, -3 * patterns @ turn + 100) == pytest.approx(1, abs=1e-10)
    assert linear_cka(patterns, patterns * np.geomspace(1, 100, 20)) < 0.9


def test_many_units_that_have_nothing_in_common_are_not_alike():
    draws = [linear_cka(RNG.normal(size=(50, 10_000)), RNG.normal(size=(50, 10_000))) for _ in range(10)]
    assert abs(np.mean(draws)) < 0.15  # the biased one gives 0.995


def test_what_has_no_structure_has_no_cka():
    patterns = RNG.normal(size=(6, 3))
    assert np.isnan(linear_cka(np.ones((6, 3)), patterns))


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (np.ones((3, 2)), np.ones((3, 2)), "at least 4"),
        (np.ones((5, 2)), np.ones((6, 2)), "of 5 and 6 stimuli"),
        (np.ones(5), np.ones((5, 2)), r"must be \(stimuli, units\)"),
        (np.full((5, 2), np.nan), np.ones((5, 2)), "NaN or infinite"),
    ],
)
def test_what_cannot_be_compared_is_refused(one, other, words):
    with pytest.raises(InvalidParameterError, match=words):
        linear_cka(one, other)
