import numpy as np
import pytest
from himalaya.kernel_ridge import MultipleKernelRidgeCV
from himalaya.ridge import RidgeCV
from himalaya.scoring import r2_score, r2_score_split
from simulated import labelled
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold

from berg import experiments
from berg.core.exceptions import InvalidParameterError
from berg.experiments.result import parameters_of
from berg.fitting.penalties import PenaltyGridWarning

pytestmark = pytest.mark.filterwarnings("ignore::berg.fitting.penalties.PenaltyGridWarning")

RNG = np.random.default_rng(0)
N, ALPHAS = 100, [0.1, 1.0, 10.0, 100.0, 1000.0]
SHARED = RNG.normal(size=(N, 5))
A, B, C = (np.hstack([RNG.normal(size=(N, 6)), SHARED]) for _ in range(3))
Y = A @ RNG.normal(size=(11, 8)) + B[:, :6] @ RNG.normal(size=(6, 8)) + 2 * RNG.normal(size=(N, 8)) + 3
OUTER = [np.arange(start, start + 25) for start in range(0, N, 25)]


def z_scored(X, kept):
    return ((X - X[kept].mean(0)) / X[kept].std(0)).astype(np.float32)


def splits():
    """Outer folds as (kept, left out), and the inner folds that `partition` makes of the kept."""
    for fold in OUTER:
        yield np.setdiff1d(np.arange(N), fold), fold


@pytest.fixture
def inner(monkeypatch):
    """Inner folds as scikit-learn's KFold has them, without shuffling, for both sides."""

    def folds(kept, n_folds, numbers):
        return [left_out for _, left_out in KFold(n_folds).split(kept)]

    monkeypatch.setattr("berg.experiments.partitioning._inner_folds", folds)
    return 5


def test_r2_of_all_subsets_is_that_of_himalaya_with_the_same_folds_and_penalties(inner):
    found = experiments.partition(Y, {"a": A, "b": B, "c": C}, alphas=ALPHAS, folds=OUTER, n_resamples=10)
    spaces = {"a": [A], "b": [B], "c": [C], "a + b": [A, B], "a + c": [A, C], "b + c": [B, C], "a + b + c": [A, B, C]}
    for name, own in spaces.items():
        X, predicted = np.hstack(own), np.empty_like(Y)
        for kept, fold in splits():
            theirs = RidgeCV(alphas=ALPHAS, cv=KFold(inner), fit_intercept=True)
            scaled, mean = z_scored(X, kept), Y[kept].mean(0)
            predicted[fold] = theirs.fit(scaled[kept], (Y[kept] - mean).astype(np.float32)).predict(scaled[fold]) + mean
        np.testing.assert_allclose(found["r2"].sel(subset=name), r2_score(Y, predicted), atol=1e-5)


def test_the_product_measure_is_that_of_himalaya_with_the_same_draws(inner):
    found = experiments.partition(
        Y, {"a": A, "b": B}, penalties="each", alphas=ALPHAS, folds=OUTER, n_iterations=8, n_resamples=10, seed=3
    )
    terms = np.empty((3, *Y.shape))
    options = {"n_iter": 8, "alphas": np.array(ALPHAS), "progress_bar": False}
    for kept, fold in splits():
        scaled, mean = [z_scored(X, kept) for X in (A, B)], Y[kept].mean(0)
        kernels = np.stack([X[kept] @ X[kept].T for X in scaled])
        theirs = MultipleKernelRidgeCV(
            kernels="precomputed", solver="random_search", solver_params=options, cv=KFold(inner), random_state=3
        ).fit(kernels, (Y[kept] - mean).astype(np.float32))
        terms[:2, fold] = theirs.predict(np.stack([X[fold] @ X[kept].T for X in scaled]), split=True)
        terms[2, fold] = mean - Y.mean(0)
    np.testing.assert_allclose(found["product"], r2_score_split(Y - Y.mean(0), terms), atol=2e-3)
    np.testing.assert_allclose(found["product"].sum("term"), found["r2"].sel(subset="a + b"), atol=1e-10)


def test_parts_are_where_the_truth_has_them():
    found = experiments.partition(labelled(Y), {"a": labelled(A), "b": labelled(B), "c": labelled(C)}, n_resamples=200)
    part = found["part_mean"]
    assert part.sel(subset="a") > 0.1
    assert part.sel(subset="b") > 0.1
    assert part.sel(subset="a + b + c") > 0.1
    assert all(abs(part.sel(subset=own)) < 0.05 for own in ("c", "a + c", "b + c"))
    np.testing.assert_allclose(found["part"].sum("subset"), found["r2"].sel(subset="a + b + c"), atol=1e-12)
    inside = (found["r2_low"] < found["r2_mean"]) & (found["r2_mean"] < found["r2_high"])
    assert inside.all()
    assert found["r2_high"].sel(subset="c") < found["r2_low"].sel(subset="a")


def test_only_left_out_stimuli_count_and_groups_stay_together():
    found = experiments.partition(Y, {"a": A, "b": B}, folds=[np.arange(20)], n_resamples=10)
    assert parameters_of(found)["n_stimuli"] == 20
    twice = np.repeat(np.arange(N // 2), 2)
    copies = [own[::2].repeat(2, axis=0) for own in (Y, A, RNG.normal(size=(N, 300)))]
    grouped = experiments.partition(copies[0], {"a": copies[1], "noise": copies[2]}, groups=twice, n_resamples=10)
    apart = experiments.partition(copies[0], {"a": copies[1], "noise": copies[2]}, n_resamples=10)
    assert apart["r2_mean"].sel(subset="noise") > 0.3  # copies on both sides
    assert grouped["r2_mean"].sel(subset="noise") < 0.05


@pytest.mark.filterwarnings("default::berg.fitting.penalties.PenaltyGridWarning")
def test_penalties_at_the_edge_of_what_was_given_are_told():
    with pytest.warns(PenaltyGridWarning, match="for 100.0% of the 8 units"):
        experiments.partition(Y, {"a": A, "b": B}, alphas=[1e6, 1e7], folds=2, n_resamples=2)


def test_a_unit_that_does_not_vary_has_no_r2():
    flat = np.column_stack([Y[:, :2], np.ones(N)])
    found = experiments.partition(flat, {"a": A, "b": B}, n_resamples=20)
    assert np.isnan(found["r2"]).any("subset").values.tolist() == [False, False, True]
    assert np.isfinite(found["r2_mean"]).all()


def test_commonality_is_that_of_least_squares_on_dissimilarities():
    rdms = experiments.rdms({"y": Y, "a": A, "b": B})["dissimilarity"].values
    y, a, b = (rdm[np.triu_indices(N, 1)] for rdm in rdms)
    found = experiments.commonality(Y, {"a": A, "b": B}, comparison="pearson", n_resamples=30)
    expected = [LinearRegression().fit(X, y).score(X, y) for X in (a[:, None], b[:, None], np.column_stack([a, b]))]
    np.testing.assert_allclose(found["r2"].isel(subject=0), expected, atol=1e-10)
    assert (found["r2_low"] <= found["r2_high"]).all()
    ranked = experiments.commonality([Y, A], {"a": A, "b": B}, n_resamples=10)
    assert ranked["r2"].sel(subject="2", subset="a").item() == pytest.approx(1)


def test_an_interval_of_few_stimuli_is_wider():
    few, many = (
        experiments.commonality(Y[:n], {"a": A[:n], "b": B[:n]}, comparison="pearson", n_resamples=100)
        for n in (15, 100)
    )
    assert ((few["r2_high"] - few["r2_low"]) > (many["r2_high"] - many["r2_low"])).all()


BAD = {
    "one space": (lambda: experiments.partition(Y, {"a": A}), "among 2 to 4"),
    "five spaces": (lambda: experiments.partition(Y, dict.fromkeys("abcde", A)), "among 2 to 4"),
    "no names": (lambda: experiments.partition(Y, [A, B]), "with their names"),
    "other stimuli": (lambda: experiments.partition(Y, {"a": A, "b": B[:50]}), "100 stimuli and space 'b' has 50"),
    "a fold twice": (lambda: experiments.partition(Y, {"a": A, "b": B}, folds=[[1, 2], [2, 3]]), "one fold at most"),
    "a stimulus that is none": (lambda: experiments.partition(Y, {"a": A, "b": B}, folds=[[1, 200]]), "from 0 to 99"),
    "NaN": (lambda: experiments.partition(Y * np.nan, {"a": A, "b": B}), "NaN or infinite"),
    "penalties": (lambda: experiments.partition(Y, {"a": A, "b": B}, penalties="two"), "'one', 'each'"),
    "a comparison": (
        lambda: experiments.commonality(Y, {"a": A, "b": B}, comparison="cosine"),
        "'spearman', 'pearson'",
    ),
    "one predictor": (lambda: experiments.commonality(Y, {"a": A}), "among 2 to 4"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_parted_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InvalidParameterError, match=words):
        call()
