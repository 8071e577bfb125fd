"""The two searches for sets of pictures, and what they score sets by."""

import numpy as np
import pytest

from berg.core.exceptions import InvalidParameterError
from berg.experiments.exchange_search import best_swap, exchange_search
from berg.experiments.genetic_search import genetic_search, mutated
from berg.experiments.pattern_similarity import pattern_similarity
from berg.experiments.patterns import patterns
from berg.experiments.set_score import GOALS, exact_score, merit, scores
from berg.statistics.random_sets import random_sets


def regions(n_pictures, n_units, n_subjects=1, seed=0):
    """Two regions that share a part of what they represent."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n_pictures, 6))
    return [
        [
            shared @ rng.standard_normal((6, n_units)) + own @ rng.standard_normal((6, n_units))
            for _ in range(n_subjects)
        ]
        for own in rng.standard_normal((2, n_pictures, 6))
    ]


def similarities(given):
    return [
        pattern_similarity([patterns(one) for one in region], name) for region, name in zip(given, "xy", strict=True)
    ]


def score_by_numpy(given, members):
    """From the definition: the mean over subjects of correlation matrices, correlated below the diagonal."""
    below = np.tril_indices(len(members), -1)
    return np.corrcoef([np.mean([np.corrcoef(one[members]) for one in region], axis=0)[below] for region in given])[
        0, 1
    ]


def test_the_score_is_the_correlation_of_mean_correlation_matrices():
    given = regions(30, 8, n_subjects=3)
    x, y = similarities(given)
    sets = random_sets(30, 7, 5, seed=1)
    wanted = [score_by_numpy(given, members) for members in sets]
    np.testing.assert_allclose(scores(x, y, sets), wanted, atol=2e-6)
    np.testing.assert_allclose(scores(x.dense(), y.dense(), sets), wanted, atol=2e-6)
    np.testing.assert_allclose([exact_score(x, y, members) for members in sets], wanted, atol=1e-7)
    np.testing.assert_allclose(
        x.without(1).columns(sets[0]), similarities([given[0][::2], given[1]])[0].columns(sets[0])
    )


@pytest.mark.parametrize("goal", GOALS)
def test_a_step_is_the_best_of_all_swaps(goal):
    given = regions(25, 9, n_subjects=2, seed=3)
    x, y = similarities(given)
    members, allowed = np.arange(4, 10), np.ones(25, bool)
    allowed[20:] = False
    found = best_swap(x.columns(members), y.columns(members), members, allowed, goal)
    every = {
        (new, place): merit(score_by_numpy(given, np.where(np.arange(6) == place, new, members)), goal)
        for new in range(20)
        if new not in members
        for place in range(6)
    }
    assert found == max(every, key=every.get)
    assert every[found] > merit(score_by_numpy(given, members), goal)


@pytest.mark.parametrize("goal", GOALS)
def test_the_search_ends_where_no_swap_is_better(goal):
    given = regions(40, 10, seed=4)
    x, y = similarities(given)
    starts = random_sets(40, 6, 3, seed=5)
    found = exchange_search(x, y, starts, goal)
    assert found.is_optimum.all()
    assert found.sets.shape == (3, 6)
    for members, score, start in zip(found.sets, found.scores, starts, strict=True):
        assert len(set(members)) == 6
        assert score == pytest.approx(score_by_numpy(given, members), abs=1e-6)
        assert merit(score, goal) > merit(score_by_numpy(given, start), goal)
        assert best_swap(x.columns(members), y.columns(members), members, np.ones(40, bool), goal) is None
    stopped = exchange_search(x, y, starts, goal, max_steps=1)
    assert (stopped.n_steps.tolist(), stopped.is_optimum.any()) == ([1, 1, 1], False)


def test_pictures_that_are_excluded_come_into_no_set():
    x, y = similarities(regions(40, 10, seed=6))
    allowed = np.arange(40) < 20
    starts = random_sets(20, 5, 2, seed=0)
    for search in (exchange_search, lambda *a, **k: genetic_search(*a, generations=5, n_sets=10, **k)):
        assert search(x, y, starts, "align", allowed=allowed).sets.max() < 20


def test_the_genetic_search_gets_better_and_the_exchange_search_is_not_worse():
    x, y = similarities(regions(150, 20, seed=7))
    start, history = random_sets(150, 10, 1, seed=0), []
    found = genetic_search(x, y, start, "align", generations=30, n_sets=20, history=history)
    assert len(set(found.sets[0])) == 10
    assert np.all(np.diff(history) >= 0)
    assert history[-1] == pytest.approx(found.scores[0], abs=1e-5)
    assert history[-1] > history[0] + 0.05
    assert exchange_search(x, y, random_sets(150, 10, 5, seed=1), "align").scores.max() >= found.scores[0]


@pytest.mark.parametrize("n_pictures", [12, 500])
@pytest.mark.parametrize("n_replaced", [0, 1, 8])
def test_mutants_replace_as_many_pictures_as_asked_and_have_none_twice(n_pictures, n_replaced):
    rng = np.random.default_rng(0)
    parents = random_sets(n_pictures, 10, 50, rng)
    children = mutated(parents, n_replaced, np.arange(n_pictures), rng)
    n_new = [len(set(child) - set(parent)) for child, parent in zip(children, parents, strict=True)]
    assert set(n_new) == {min(n_replaced, n_pictures - 10)}
    assert all(len(set(child)) == 10 for child in children)


def test_units_without_responses_are_left_out_and_half_measured_ones_refused():
    given = np.random.default_rng(0).standard_normal((6, 5))
    with_nan = np.insert(given, 2, np.nan, axis=1)
    sets = np.arange(6)[None]
    wanted = pattern_similarity([patterns(given)], "x").pairs(sets)
    np.testing.assert_array_equal(pattern_similarity([patterns(with_nan)], "x").pairs(sets), wanted)
    with_nan[0, 2] = 1.0
    with pytest.raises(InvalidParameterError, match="1 units of x are NaN or infinite for some pictures"):
        pattern_similarity([patterns(with_nan)], "x")
    flat = given.copy()
    flat[3] = 7.0
    with pytest.raises(InvalidParameterError, match=r"does not vary over its 5 units for 3, and"):
        pattern_similarity([patterns(flat)], "x")
    with pytest.raises(InvalidParameterError, match="Select a larger region"):
        pattern_similarity([patterns(given[:, :1])], "x")
