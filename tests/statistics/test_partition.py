import numpy as np
import pytest
from himalaya.scoring import r2_score_split
from sklearn.linear_model import LinearRegression

from berg.core.exceptions import InvalidParameterError
from berg.statistics.partition import names_of_subsets, product_measure, r2_of_subsets, shared_parts, subsets

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n_sets", [2, 3, 4])
def test_parts_add_up_to_r2_of_every_subset(n_sets):
    chosen = subsets(n_sets)
    truth = RNG.random((len(chosen), 5))
    r2 = np.array([sum(truth[k] for k, part in enumerate(chosen) if {*part} & {*subset}) for subset in chosen])
    np.testing.assert_allclose(shared_parts(r2), truth, atol=1e-12)


def test_parts_of_two_sets_are_the_differences_that_define_them():
    a, b, both = 0.3, 0.4, 0.45
    np.testing.assert_allclose(shared_parts([a, b, both]), [both - b, both - a, a + b - both])


@pytest.mark.parametrize("n_sets", [2, 3, 4])
def test_r2_from_correlations_is_that_of_least_squares(n_sets):
    X = RNG.normal(size=(50, n_sets)) @ RNG.normal(size=(n_sets, n_sets))
    y = X.sum(1) + RNG.normal(size=50)
    expected = [LinearRegression().fit(X[:, own], y).score(X[:, own], y) for own in map(list, subsets(n_sets))]
    found = r2_of_subsets(np.corrcoef(np.column_stack([y, X]).T))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_same_predictor_twice_is_all_shared():
    y, x = RNG.normal(size=(2, 30))
    found = shared_parts(r2_of_subsets(np.corrcoef([y, x, x])))
    np.testing.assert_allclose(found, [0, 0, np.corrcoef(y, x)[0, 1] ** 2], atol=1e-12)


def test_the_product_measure_is_that_of_himalaya_and_adds_up():
    measured, predicted = RNG.normal(size=(40, 6)), RNG.normal(size=(3, 40, 6))
    measured -= measured.mean(0)
    found = product_measure(measured, predicted)
    np.testing.assert_allclose(found, r2_score_split(measured, predicted), atol=1e-12)
    np.testing.assert_allclose(found.sum(0), 1 - ((measured - predicted.sum(0)) ** 2).sum(0) / (measured**2).sum(0))


def test_a_unit_that_does_not_vary_has_no_r2():
    assert np.isnan(product_measure(np.zeros((4, 1)), np.ones((2, 4, 1)))).all()


def test_subsets_are_named():
    assert names_of_subsets(["a", "b", "c"])[3:] == ["a + b", "a + c", "b + c", "a + b + c"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: subsets(5), "among 2 to 4"),
        (lambda: subsets(1), "1 sets of predictors"),
        (lambda: shared_parts([0.1, 0.2, 0.3, 0.4]), "3, 7 or 15"),
        (lambda: shared_parts([0.1]), "1 sets of predictors"),
    ],
)
def test_other_numbers_of_sets_are_refused(call, words):
    with pytest.raises(InvalidParameterError, match=words):
        call()
