"""Cleaning of runs, against nilearn's functions and plain least squares."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from berg.core.exceptions import DatasetError
from berg.datasets.cleaning import Cleaning, cleaned, n_trimmed, read_confounds, residuals

RNG = np.random.default_rng(0)
N = 60


def steps(*stated):
    return TypeAdapter(Cleaning).validate_python(list(stated))


def bold(n_units=4):
    drift = np.linspace(-3, 5, N)[:, None] ** 2
    return (RNG.normal(size=(N, n_units)) + drift + 100).astype(np.float32)


def without(Y, X):
    """Residuals by the normal equations."""
    X = np.hstack([np.ones((len(X), 1)), X])
    return Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]


def test_polynomials_and_confounds_are_regressed_out_at_once():
    Y, confounds = bold(), RNG.normal(size=(N, 3))
    time = np.arange(N)[:, None]
    expected = without(Y.astype(float), np.hstack([time, time**2, confounds]))
    found = cleaned(Y, steps({"regress": {"polynomials": 2}}), [confounds])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_numbers_are_those_of_nilearn():
    signal = pytest.importorskip("nilearn.signal")
    Y, confounds = bold(), RNG.normal(size=(N, 3))
    expected = signal.clean(
        Y, detrend=False, standardize=None, confounds=confounds, standardize_confounds=True, filter=False
    )
    found = cleaned(Y, steps({"regress": {}}), [confounds])
    np.testing.assert_allclose(found, expected - expected.mean(0), atol=1e-4)


def test_steps_are_done_in_the_order_in_which_they_are_listed():
    Y = bold()
    scaled = cleaned(Y, steps({"trim": {"start": 5, "end": 3}}, "zscore"), [None, None])
    kept = Y[5:-3].astype(float)
    np.testing.assert_allclose(scaled, (kept - kept.mean(0)) / kept.std(0), atol=1e-5)
    before = cleaned(Y, steps("zscore", {"trim": {"start": 5, "end": 3}}), [None, None])
    np.testing.assert_allclose(before, ((Y - Y.mean(0, float)) / Y.std(0, dtype=float))[5:-3], atol=1e-5)
    assert np.abs(before - scaled).max() > 0.1


def test_one_regression_takes_out_what_two_bring_in_again():
    Y, time = bold(), np.linspace(-1, 1, N)[:, None]
    confound = time + 0.3 * RNG.normal(size=(N, 1))
    together = cleaned(Y, steps({"regress": {"polynomials": 1}}), [confound])
    after = cleaned(Y, steps({"regress": {"polynomials": 1}}, {"regress": {}}), [None, confound])
    assert np.abs(together.T @ time).max() < 1e-3
    assert np.abs(after.T @ time).max() > 1


def test_a_unit_that_misses_a_volume_misses_the_run():
    Y = bold()
    Y[7, 1] = np.nan
    found = cleaned(Y, steps({"regress": {"polynomials": 1}}), [None])
    assert np.isnan(found).all(0).tolist() == [False, True, False, False]


def test_regressors_that_depend_on_each_other_count_once():
    X = RNG.normal(size=(20, 2))
    twice = np.hstack([X, X @ [[1.0], [2.0]], np.zeros((20, 1))])
    Y = RNG.normal(size=(20, 3))
    np.testing.assert_allclose(residuals(Y, twice), residuals(Y, X), atol=1e-10)


def test_a_unit_that_does_not_vary_is_zero_and_not_divided():
    assert (cleaned(np.full((9, 2), 5, np.float32), steps("zscore"), [None]) == 0).all()


def test_missing_confounds_count_as_the_mean(tmp_path):
    path = tmp_path / "confounds.tsv"
    path.write_text("trans_x\tfd\tword\n1\tn/a\ta\n2\t4\tb\n3\t8\tc\n")
    assert read_confounds(path, ["fd", "trans_x"], 3).tolist() == [[6, 1], [4, 2], [8, 3]]
    np.save(tmp_path / "confounds.npy", np.arange(6.0).reshape(3, 2))
    assert read_confounds(tmp_path / "confounds.npy", None, 3).tolist() == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(DatasetError, match=r"'fd' of .* shape \(3,\); 4 numbers are right"):
        read_confounds(path, ["fd"], 4)
    with pytest.raises(DatasetError, match=r"'word' of .* 3 numbers are right"):
        read_confounds(path, ["word"], 3)


def test_more_regressors_than_volumes_and_too_much_trimming_are_refused():
    with pytest.raises(DatasetError, match="60 regressors leave nothing of 60 volumes"):
        cleaned(bold(), steps({"regress": {}}), [RNG.normal(size=(N, 59))])
    with pytest.raises(DatasetError, match="A run of 60 volumes has none left"):
        cleaned(bold(), steps({"trim": {"start": 40, "end": 30}}), [None])


def test_trims_add_up_and_a_step_is_one_thing():
    assert n_trimmed(steps({"trim": {"start": 2}}, "zscore", {"trim": {"start": 3, "end": 1}})) == (5, 1)
    with pytest.raises(ValidationError, match="one of regress, trim and zscore"):
        steps({"trim": {"start": 1}, "zscore": True})
