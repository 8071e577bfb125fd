import logging

import mpmath
import numpy as np
import pytest
from himalaya.backend import get_backend
from himalaya.kernel_ridge import MultipleKernelRidgeCV
from himalaya.ridge import RidgeCV
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import KFold, PredefinedSplit, cross_val_score

from berg.core.exceptions import InvalidParameterError
from berg.fitting.banded_ridge import banded_ridge_cv, banded_ridge_cv_solver
from berg.fitting.folds import split_folds
from berg.fitting.graded_svd import GradedQR
from berg.fitting.linear_solvers import least_squares, least_squares_solver, ridge_cv, ridge_cv_solver
from berg.fitting.penalties import PenaltyGridWarning, default_alphas, warn_of_edges

pytestmark = pytest.mark.filterwarnings("ignore::berg.fitting.penalties.PenaltyGridWarning")

ALPHAS = [0.1, 1, 10, 100, 1000]
SHAPES = {"more samples than features": (120, 20), "more features than samples": (60, 100)}


def simulated(n_samples, n_features, n_targets=15, noise=1.0, seed=0):
    """Targets with the features' offsets, and noise of different strength."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_samples, n_features)) * rng.uniform(0.1, 3, n_features) + rng.uniform(-5, 5, n_features)
    weights = rng.standard_normal((n_features, n_targets)) / np.sqrt(n_features)
    strength = noise * np.geomspace(0.1, 30, n_targets)
    Y = X @ weights + strength * rng.standard_normal((n_samples, n_targets)) + 100 * rng.standard_normal(n_targets)
    return X, Y.astype(np.float32)


def with_missing(Y, seed=1):
    """Three patterns: nothing missing, the first samples, and some here and there."""
    Y = Y.copy()
    Y[:7, 1::3] = np.nan
    Y[np.random.default_rng(seed).permutation(len(Y))[:11], 2::3] = np.nan
    return Y


# Least squares


@pytest.mark.parametrize("shape", SHAPES)
def test_least_squares_is_that_of_scikit_learn(shape):
    X, Y = simulated(*SHAPES[shape])
    found, expected = least_squares(X, Y), LinearRegression().fit(X, Y.astype(np.float64))
    np.testing.assert_allclose(found.coefficients, expected.coef_, rtol=1e-5, atol=1e-5 * np.abs(expected.coef_).max())
    np.testing.assert_allclose(found.intercepts, expected.intercept_, rtol=1e-5)


def test_features_that_repeat_others_share_their_weight_as_in_scikit_learn():
    X, Y = simulated(120, 20)
    X = np.hstack([X, X[:, :5], np.ones((120, 1))])
    found, expected = least_squares(X, Y), LinearRegression().fit(X, Y.astype(np.float64))
    np.testing.assert_allclose(found.coefficients, expected.coef_, rtol=1e-5, atol=1e-6)


def test_missing_samples_of_a_target_are_left_out_of_least_squares():
    X, Y = simulated(120, 20)
    Y = with_missing(Y)
    found = least_squares(X, Y)
    for target in range(Y.shape[1]):
        is_there = ~np.isnan(Y[:, target])
        expected = LinearRegression().fit(X[is_there], Y[is_there, target].astype(np.float64))
        np.testing.assert_allclose(found.coefficients[target], expected.coef_, rtol=1e-5, atol=1e-5)
        assert found.intercepts[target] == pytest.approx(expected.intercept_, rel=1e-5)


def test_targets_may_come_in_blocks():
    X, Y = simulated(120, 20)
    Y = with_missing(Y)
    solve, whole = least_squares_solver(X), least_squares(X, Y)
    parts = np.concatenate([solve(Y[:, start : start + 4]).coefficients for start in range(0, Y.shape[1], 4)])
    np.testing.assert_allclose(parts, whole.coefficients, rtol=1e-6)


@pytest.mark.parametrize("solver", [least_squares, ridge_cv])
def test_a_target_that_is_missing_everywhere_is_named_and_stays_zero(solver, caplog):
    X, Y = simulated(120, 20)
    Y[:, 4] = np.nan
    with caplog.at_level(logging.WARNING):
        found = solver(X, Y)
    assert "1 targets have fewer than" in caplog.text
    assert not found.coefficients[4].any()
    assert found.intercepts[4] == 0
    assert np.isnan(found.alphas[4]).all()
    others = np.delete(np.arange(Y.shape[1]), 4)
    np.testing.assert_array_equal(found.coefficients[others], solver(X, Y[:, others]).coefficients)


def test_a_prediction_is_the_affine_map():
    X, Y = simulated(30, 3, noise=0)
    np.testing.assert_allclose(least_squares(X, Y).predict(X), Y, rtol=1e-5, atol=1e-4)


# Ridge


def chosen_by_scikit_learn(X, Y, folds, **options):
    """Per target: the penalty with the smallest mean squared error over left-out samples."""
    number = np.empty(len(X), int)
    for index, fold in enumerate(folds):
        number[fold] = index
    splitter = PredefinedSplit(number)
    errors = [
        [
            cross_val_score(Ridge(alpha, **options), X, y, cv=splitter, scoring="neg_mean_squared_error").mean()
            for alpha in ALPHAS
        ]
        for y in Y.T
    ]
    return np.array(ALPHAS)[np.argmax(errors, axis=1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_penalties_and_weights_are_those_that_scikit_learn_finds_target_by_target(shape):
    X, Y = simulated(*SHAPES[shape])
    folds = split_folds(len(X), 5, seed=3)
    found = ridge_cv(X, Y, ALPHAS, folds)
    expected = chosen_by_scikit_learn(X, Y, folds)
    assert len(set(expected)) > 2
    np.testing.assert_allclose(found.alphas[:, 0], expected, rtol=1e-6)
    fitted = [Ridge(alpha).fit(X, y) for alpha, y in zip(expected, Y.T.astype(np.float64), strict=True)]
    coefficients = np.array([each.coef_ for each in fitted])
    np.testing.assert_allclose(found.coefficients, coefficients, atol=1e-5 * np.abs(coefficients).max())
    np.testing.assert_allclose(found.intercepts, [each.intercept_ for each in fitted], rtol=1e-4, atol=1e-4)


def test_penalties_are_those_of_himalaya():
    X, Y = simulated(120, 20)
    centred, targets = (X - X.mean(0)).astype(np.float32), Y - Y.mean(0)
    theirs = RidgeCV(alphas=ALPHAS, cv=KFold(5), fit_intercept=True).fit(centred, targets)
    found = ridge_cv(centred, targets, ALPHAS, split_folds(120, 5, seed=None))
    np.testing.assert_allclose(found.alphas[:, 0], theirs.best_alphas_, rtol=1e-6)
    np.testing.assert_allclose(found.coefficients, theirs.coef_.T, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_single_tiny_penalty_approaches_least_squares(shape):
    X, Y = simulated(*SHAPES[shape], noise=0)
    found = ridge_cv(X, Y, [1e-6], 5)
    np.testing.assert_allclose(found.coefficients, least_squares(X, Y).coefficients, atol=1e-4)


def test_missing_samples_of_a_target_are_left_out_of_ridge():
    X, Y = simulated(120, 20)
    Y, folds = with_missing(Y), split_folds(120, 5, seed=3)
    found = ridge_cv(X, Y, ALPHAS, folds)
    for target in range(Y.shape[1]):
        samples = np.flatnonzero(~np.isnan(Y[:, target]))
        own_folds = [np.flatnonzero(np.isin(samples, fold)) for fold in folds]
        alone = ridge_cv(X[samples], Y[samples, target : target + 1], ALPHAS, own_folds)
        np.testing.assert_allclose(found.alphas[target], alone.alphas[0])
        np.testing.assert_allclose(found.coefficients[target], alone.coefficients[0], atol=1e-6)
        assert found.scores[target] == pytest.approx(alone.scores[0], abs=1e-5)


def test_a_target_that_is_there_in_one_fold_alone_gets_folds_of_its_own():
    X, Y = simulated(120, 20)
    folds = split_folds(120, 5, seed=None)
    Y[24:] = np.nan
    found = ridge_cv(X, Y, ALPHAS, folds)
    alone = ridge_cv(X[:24], Y[:24], ALPHAS, split_folds(24, 5, seed=None))
    np.testing.assert_allclose(found.coefficients, alone.coefficients, atol=1e-6)


def test_neither_blocks_nor_batches_of_targets_change_a_penalty():
    X, Y = simulated(120, 20, n_targets=30)
    whole = ridge_cv(X, Y, ALPHAS)
    solve = ridge_cv_solver(X, ALPHAS, n_targets_batch=4)
    parts = [solve(Y[:, start : start + 7]) for start in range(0, 30, 7)]
    np.testing.assert_array_equal(np.concatenate([part.alphas for part in parts]), whole.alphas)
    np.testing.assert_allclose(np.concatenate([part.coefficients for part in parts]), whole.coefficients, atol=1e-5)


def test_the_score_is_r2_over_left_out_samples():
    X, Y = simulated(120, 20)
    folds = split_folds(120, 5, seed=3)
    found = ridge_cv(X, Y, [10.0], folds)
    predicted = np.empty_like(Y)
    for fold in folds:
        kept = np.setdiff1d(np.arange(120), fold)
        predicted[fold] = Ridge(10.0).fit(X[kept], Y[kept]).predict(X[fold])
    expected = 1 - np.square(Y - predicted).sum(0) / np.square(Y - Y.mean(0)).sum(0)
    np.testing.assert_allclose(found.scores, expected, atol=1e-4)


def test_default_penalties_go_with_the_scale_of_the_features():
    X, Y = simulated(120, 20)
    scaled = 1000 * X
    np.testing.assert_allclose(default_alphas(scaled), 1e6 * default_alphas(X), rtol=1e-9)
    np.testing.assert_allclose(
        ridge_cv(scaled, Y).coefficients, ridge_cv(X, Y).coefficients / 1000, rtol=1e-3, atol=1e-7
    )


def test_folds_hold_every_sample_once():
    for seed in (None, 0):
        folds = split_folds(23, 5, seed)
        np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(23))
        assert {len(fold) for fold in folds} == {4, 5}
    assert not np.array_equal(split_folds(23, 5, 0)[0], split_folds(23, 5, None)[0])


@pytest.mark.parametrize(("options", "words"), [
    ({"alphas": []}, r"numbers above zero, got \[\].*write  linear  instead"),
    ({"alphas": [1, 0]}, r"numbers above zero, got \[1, 0\]"),
    ({"alphas": [1, np.nan]}, "numbers above zero"),
    ({"folds": 1}, "1 folds of 40 samples.*Choose 2 to 20"),
    ({"folds": 21}, "21 folds of 40 samples.*Choose 2 to 20"),
])  # fmt: skip
def test_penalties_and_folds_that_cannot_be_are_refused(options, words):
    with pytest.raises(InvalidParameterError, match=words):
        ridge_cv(*simulated(40, 5), **options)


# Features and targets of any size


SIZES = {
    "one in larger units": [1e6, *[1.0] * 9],
    "all in different units": np.logspace(-8, 8, 10),
    "tiny": [1e-10] * 10,
    "huge": [1e12] * 10,
}


def solved_exactly(X, y, alpha, digits=80):
    """Ridge predictions by the normal equations, in so many digits."""
    with mpmath.workdps(digits):
        centred = mpmath.matrix((X - X.mean(0)).tolist())
        products = centred.T * centred + float(alpha) * mpmath.eye(X.shape[1])
        weights = mpmath.lu_solve(products, centred.T * mpmath.matrix((y - y.mean()).tolist()))
        return np.array([float(value) for value in centred * weights]) + y.mean()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("relative", [1e-20, 1e-8, 1e-2])
def test_features_in_very_different_units_are_fitted_as_with_eighty_digits(sizes, relative):
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((40, 10))
    X = plain * SIZES[sizes]
    y = plain @ rng.standard_normal(10) + 0.1 * rng.standard_normal(40)
    alpha = relative * np.square(X - X.mean(0)).sum()
    found = ridge_cv(X, y[:, None], [alpha])
    np.testing.assert_allclose(found.predict(X)[:, 0], solved_exactly(X, y, alpha), atol=1e-5)
    assert found.alphas[0, 0] == pytest.approx(alpha)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [1e7])
def test_penalties_found_with_one_large_feature_are_those_of_scikit_learn(shape, factor):
    X, Y = simulated(*SHAPES[shape])
    X[:, 0] *= factor
    Y = (Y - Y.mean(0))[:, ::4]
    folds = split_folds(len(X), 5, seed=3)
    found = ridge_cv(X, Y, ALPHAS, folds)
    expected = chosen_by_scikit_learn(X, Y, folds, solver="svd")
    np.testing.assert_allclose(found.alphas[:, 0], expected, rtol=1e-6)
    fitted = [Ridge(a, solver="svd").fit(X, y).predict(X) for a, y in zip(expected, Y.T.astype(float), strict=True)]
    np.testing.assert_allclose(found.predict(X), np.transpose(fitted), atol=1e-4 * np.abs(fitted).max())


@pytest.mark.parametrize("shape", [(40, 10), (40, 60)])
def test_least_squares_does_not_depend_on_the_units_of_the_features(shape):
    rng = np.random.default_rng(0)
    plain = rng.standard_normal(shape)
    plain[:, 3] = plain[:, 7]
    Y = rng.standard_normal((len(plain), 3))
    expected = LinearRegression().fit(plain, Y).predict(plain)
    scaled = plain * np.where(np.arange(shape[1]) % 2, 1e8, 1e-8)
    np.testing.assert_allclose(least_squares(scaled, Y).predict(scaled), expected, atol=1e-5)


def test_a_decomposition_is_right_to_the_rounding_of_each_column():
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((30, 12))
    plain[:, 5] = plain[:, 6] - plain[:, 7]
    sizes = 10.0 ** rng.permutation(np.linspace(-8, 8, 12))
    sizes[[5, 6, 7]] = 1e8, 1e8, 1e8
    found = GradedQR.of(plain * sizes)
    assert found.rank == np.linalg.matrix_rank(plain) == 11
    left, singular, right = found.svd()
    np.testing.assert_allclose((left * singular) @ right.T / sizes, plain, atol=1e-10)
    assert GradedQR.of(np.zeros((4, 3))).inverse().tolist() == np.zeros((3, 4)).tolist()


@pytest.mark.parametrize("size", [1e-30, 1e-13, 1e13, 1e25])
@pytest.mark.parametrize("banded", [False, True])
def test_targets_in_any_unit_get_the_same_penalties(size, banded):
    X, Y = simulated(60, 12, n_targets=6)
    Y -= Y.mean(0)
    solve = banded_ridge_cv_solver(X, [slice(0, 6), slice(6, 12)], ALPHAS, n_iterations=3) if banded else None
    solve = solve or ridge_cv_solver(X, ALPHAS)
    plain, found = solve(Y), solve((Y.astype(np.float64) * size).astype(np.float32))
    assert len(set(plain.alphas[:, 0])) > 1
    np.testing.assert_allclose(found.alphas, plain.alphas, rtol=1e-6)
    np.testing.assert_allclose(found.scores, plain.scores, atol=1e-4)
    np.testing.assert_allclose(
        found.coefficients / np.float64(size), plain.coefficients, atol=1e-4 * np.abs(plain.coefficients).max()
    )


@pytest.mark.parametrize("factor", [1e4, 1e7])
@pytest.mark.parametrize("n_features", [20, 90])
def test_a_large_feature_does_not_spoil_the_other_bands(n_features, factor):
    X, Y, bands = two_bands(80, n_features)
    X[:, 0] *= factor
    Y -= Y.mean(0)
    X -= X.mean(0)
    found = banded_ridge_cv(X, Y, bands, [1.0, 10.0], n_iterations=4)
    assert (found.scores[: Y.shape[1] // 2] < 1).all()
    for target in range(Y.shape[1]):
        root = np.sqrt(np.repeat(found.alphas[target].astype(float), n_features))
        weights = Ridge(1.0, fit_intercept=False, solver="svd").fit(X / root, Y[:, target].astype(float)).coef_ / root
        np.testing.assert_allclose(X @ found.coefficients[target], X @ weights, atol=1e-4 * np.abs(Y).max())


def test_bands_that_double_precision_cannot_hold_together_are_refused():
    X, Y, bands = two_bands(60, 10)
    X[:, 0] *= 1e15
    with pytest.raises(InvalidParameterError, match=r"penalty \(1\) is lost in the rounding.*[Ss]tandardize"):
        banded_ridge_cv(X, Y, bands, [1.0, 10.0], n_iterations=2)


@pytest.mark.parametrize("X", [np.ones((60, 4)), np.full((60, 4), 0.1), np.zeros((60, 80), np.float16)])
def test_features_that_do_not_vary_give_the_mean(X):
    Y = np.random.default_rng(0).standard_normal((60, 2))
    for found in (ridge_cv(X, Y), ridge_cv(X, Y, [1.0, 10.0]), least_squares(X, Y)):
        assert not found.coefficients.any()
        np.testing.assert_allclose(found.intercepts, Y.mean(0), atol=1e-6)


def test_a_band_that_does_not_vary_has_no_weight():
    for n_features in (10, 90):
        X, Y, bands = two_bands(80, n_features)
        X[:, bands[1]] = 0.1
        found = banded_ridge_cv(X, Y, bands, ALPHAS, n_iterations=3)
        assert np.isfinite(found.coefficients).all()
        assert not found.coefficients[:, bands[1]].any()


def test_targets_that_do_not_vary_take_the_largest_penalty_and_their_mean():
    X, Y = simulated(60, 5, n_targets=3)
    Y[:, 1] = 0.1
    found = ridge_cv(X, Y.astype(np.float64), ALPHAS)
    assert not found.coefficients[1].any()
    assert found.intercepts[1] == np.float32(0.1)
    assert found.alphas[1, 0] == ALPHAS[-1]
    assert np.isnan(found.scores[1])


def test_features_of_half_precision_have_the_default_penalties_of_their_values():
    X, Y = simulated(60, 5)
    X = (100 * X).astype(np.float16)
    np.testing.assert_allclose(default_alphas(X), default_alphas(X.astype(np.float64)))
    np.testing.assert_array_equal(ridge_cv(X, Y).alphas, ridge_cv(X.astype(np.float64), Y).alphas)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("solve", [ridge_cv, least_squares, lambda X, Y: banded_ridge_cv(X, Y, [slice(0, 5)])])
def test_features_that_are_no_numbers_are_refused(solve, value):
    X, Y = simulated(40, 5)
    X[3, 1] = value
    with pytest.raises(InvalidParameterError, match=r"1 of 5 features are NaN or infinite.*features 1; samples 3\)"):
        solve(X, Y)


@pytest.mark.parametrize("solve", [ridge_cv, least_squares, lambda X, Y: banded_ridge_cv(X, Y, [slice(0, 5)])])
def test_infinite_targets_are_refused(solve):
    X, Y = simulated(40, 5)
    Y[5, 2] = np.inf
    with pytest.raises(
        InvalidParameterError,
        match=r"1 values of the targets are infinite \(targets 2\).*Write NaN for what is missing",
    ):
        solve(X, Y)


@pytest.mark.parametrize(("X", "Y", "words"), [
    (np.ones(4), np.ones((4, 1)), r"shape \(4,\).*must be a plain array"),
    (np.ones((4, 0)), np.ones((4, 1)), "at least one of each"),
    (np.ma.masked_less(np.ones((4, 2)), 0), np.ones((4, 1)), "MaskedArray"),
    (np.ones((4, 2), complex), np.ones((4, 1)), "complex128"),
    (np.ones((4, 2)), np.ones(4), r"shape \(4,\).*Y\[:, None\]"),
    (np.ones((4, 2)), np.ones((5, 1)), r"shape \(5, 1\).*shape \(4, n_targets\)"),
])  # fmt: skip
def test_arrays_that_do_not_belong_together_are_refused(X, Y, words):
    with pytest.raises(InvalidParameterError, match=words):
        least_squares(X, Y)


def test_masked_targets_are_missing():
    X, Y = simulated(60, 5, n_targets=4)
    mask = np.random.default_rng(0).random(Y.shape) < 0.1
    found = least_squares(X, np.ma.array(Y, mask=mask))
    np.testing.assert_allclose(found.coefficients, least_squares(X, np.where(mask, np.nan, Y)).coefficients, rtol=1e-5)


def test_penalties_at_the_edge_of_the_grid_are_told_with_the_share_of_targets():
    X, Y = simulated(120, 20, n_targets=8, noise=0)
    noise = np.random.default_rng(0).standard_normal((120, 24)).astype(np.float32)
    with pytest.warns(PenaltyGridWarning, match=r"25\.0% at the smallest \(0\.001\), 75\.0% at the largest \(1e\+07;"):
        ridge_cv(X, np.hstack([Y, noise]), [1e-3, 1e7])
    with pytest.warns(PenaltyGridWarning, match=r"9\d\.\d% at the largest \(0\.01;.*logspace\(-6, 1, 20\)"):
        ridge_cv(X, noise, [0.001, 0.01])
    chosen = np.array([[20.0, 20.0], [np.nan, np.nan], [100 / 3, 50.0]])  # 10 and 20, divided by their shares
    with pytest.warns(PenaltyGridWarning, match="50.0% at the smallest"):
        assert warn_of_edges(chosen, [10, 20, 30]) == (0.5, 0)


@pytest.mark.filterwarnings("error")
def test_one_penalty_alone_has_no_edge():
    X, Y = simulated(60, 5)
    ridge_cv(X, Y, [1.0])


def test_penalties_that_float32_cannot_hold_are_refused():
    X, Y = simulated(40, 5)
    with pytest.raises(InvalidParameterError, match="beyond what float32 holds"):
        ridge_cv(1e25 * X, Y)


# Banded ridge


def two_bands(n_samples, n_features, seed=0):
    """Targets of the first band alone, then of the second alone."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_samples, 2 * n_features))
    weights = rng.standard_normal((n_features, 8)) / np.sqrt(n_features)
    Y = np.hstack([X[:, :n_features] @ weights, X[:, n_features:] @ weights])
    noise = 0.5 * rng.standard_normal(Y.shape)
    return X, (Y + noise).astype(np.float32), [slice(0, n_features), slice(n_features, 2 * n_features)]


@pytest.mark.parametrize(("n_samples", "n_features"), [(120, 20), (60, 80)])
def test_one_band_is_ridge(n_samples, n_features):
    X, Y = simulated(n_samples, n_features)
    X -= X.mean(0)
    Y -= Y.mean(0)
    folds = split_folds(n_samples, 5)
    found = banded_ridge_cv(X, Y, [slice(0, n_features)], [10.0], folds=folds, n_iterations=1)
    expected = Ridge(10.0, fit_intercept=False).fit(X, Y.astype(np.float64))
    np.testing.assert_allclose(found.coefficients, expected.coef_, atol=1e-4)
    np.testing.assert_allclose(found.alphas, 10.0, rtol=1e-5)


@pytest.mark.parametrize(("n_samples", "n_features"), [(150, 40), (100, 80)])
def test_the_band_that_a_target_does_not_come_from_is_penalised_more(n_samples, n_features):
    X, Y, bands = two_bands(n_samples, n_features)
    kept, new = slice(0, n_samples - 30), slice(n_samples - 30, None)
    found = banded_ridge_cv(X[kept], Y[kept], bands, ALPHAS, n_iterations=30)
    assert (found.alphas[:8, 0] < found.alphas[:8, 1]).all()
    assert (found.alphas[8:, 0] > found.alphas[8:, 1]).all()
    with_bands, without = (
        np.square(each.predict(X[new]) - Y[new]).mean() for each in (found, ridge_cv(X[kept], Y[kept], ALPHAS))
    )
    assert with_bands < without


def test_primal_and_kernel_form_agree_with_himalayas_own_estimator():
    X, Y, bands = two_bands(100, 40)
    X, Y = (X - X.mean(0)).astype(np.float32), Y - Y.mean(0)
    kernels = np.stack([X[:, band] @ X[:, band].T for band in bands])
    options = {"n_iter": 10, "alphas": np.array(ALPHAS), "progress_bar": False, "n_targets_batch": None}
    theirs = MultipleKernelRidgeCV(
        kernels="precomputed", solver="random_search", solver_params=options, cv=KFold(5), random_state=0
    ).fit(kernels, Y)
    found = banded_ridge_cv(X, Y, bands, ALPHAS, folds=split_folds(100, 5, seed=None), n_iterations=10, seed=0)
    np.testing.assert_allclose(found.predict(X), theirs.predict(kernels), atol=2e-3)
    np.testing.assert_allclose(np.log(found.alphas.T), -theirs.deltas_, atol=1e-4)


def test_himalayas_backend_is_as_it_was():
    X, Y, bands = two_bands(60, 10)
    before = get_backend().name
    banded_ridge_cv(X, Y, bands, ALPHAS, n_iterations=2)
    assert get_backend().name == before == "numpy"


def test_banded_ridge_is_the_same_whenever_it_is_called_and_another_with_another_seed():
    X, Y, bands = two_bands(60, 10)
    first, again, other = (banded_ridge_cv(X, Y, bands, ALPHAS, n_iterations=5, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.coefficients, again.coefficients)
    assert (first.alphas != other.alphas).any()


def test_missing_samples_are_left_out_of_banded_ridge():
    X, Y, bands = two_bands(100, 10)
    Y[:20, 3] = np.nan
    folds = split_folds(100, 4, seed=None)
    found = banded_ridge_cv(X, Y, bands, ALPHAS, folds=folds, n_iterations=5)
    own = [fold[fold >= 20] - 20 for fold in folds]
    alone = banded_ridge_cv(X[20:], Y[20:, 3:4], bands, ALPHAS, folds=own, n_iterations=5)
    np.testing.assert_allclose(found.coefficients[3], alone.coefficients[0], atol=1e-5)


# Groups


def near_copies(seed, n_columns, n_groups=30, size=4):
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((n_groups, n_columns)).repeat(size, axis=0)
    return own + 0.1 * rng.standard_normal(own.shape)


def test_near_copies_are_in_one_fold_and_nothing_is_found_where_nothing_is():
    X, Y, groups = near_copies(0, 20), near_copies(1, 40), np.arange(30).repeat(4)
    by_group, by_sample = ridge_cv(X, Y, groups=groups), ridge_cv(X, Y)
    assert np.median(by_sample.scores) > 0.3
    assert np.median(by_group.scores) < 0
    assert np.median(by_group.alphas) > 100 * np.median(by_sample.alphas)
    banded = {"bands": [slice(0, 10), slice(10, 20)], "n_iterations": 5}
    assert np.median(banded_ridge_cv(X, Y, **banded).scores) > 0.2
    assert np.median(banded_ridge_cv(X, Y, **banded, groups=groups).scores) < 0.05


def test_scores_over_groups_are_those_of_scikit_learn():
    X, Y, groups = near_copies(0, 20), near_copies(1, 3) + near_copies(0, 3), np.arange(30).repeat(4)
    found = ridge_cv(X, Y, alphas=[10.0], groups=groups)
    errors = np.zeros(3)
    for fold in split_folds(120, 5, groups=groups):
        kept = np.setdiff1d(np.arange(120), fold)
        assert not set(groups[kept]) & set(groups[fold])
        errors += ((Ridge(10.0).fit(X[kept], Y[kept]).predict(X[fold]) - Y[fold]) ** 2).sum(0)
    np.testing.assert_allclose(found.scores, 1 - errors / ((Y - Y.mean(0)) ** 2).sum(0), rtol=1e-4)


def test_targets_that_were_measured_in_one_fold_are_divided_by_groups_too(caplog):
    X, Y, groups = near_copies(0, 5), near_copies(1, 3), np.arange(30).repeat(4)
    fold = split_folds(120, 2, groups=groups)[0]
    Y[np.setdiff1d(np.arange(120), fold), 1] = np.nan
    Y[groups != groups[0], 2] = np.nan
    found = ridge_cv(X, Y, folds=2, groups=groups)
    assert np.isfinite(found.scores[:2]).all()
    assert np.isnan(found.scores[2])
    assert "one group of stimuli" in caplog.text


def test_more_folds_than_groups_are_refused():
    with pytest.raises(InvalidParameterError, match=r"5 folds of 3 groups of stimuli.*Choose 2 to 3 folds"):
        ridge_cv(np.ones((30, 2)), np.ones((30, 1)), groups=np.arange(3).repeat(10))
