"""Noise ceilings: beside scipy's analysis of variance, closed forms, and simulations with known variances."""

import numpy as np
import pytest
from scipy import stats

from berg.core.exceptions import InvalidParameterError
from berg.evaluation import (
    across_subjects,
    ceiling_from_ncsnr,
    chance_ceiling,
    leave_one_repeat_out,
    ncsnr,
    ncsnr_ceiling,
    noise_normalised,
    over_repeats,
    pearson_r,
    r2_score,
    split_half_ceiling,
    variance_components,
)
from berg.statistics import noise_ceilings as module
from berg.statistics import unit_blocks

SIGNAL, NOISE = 1.5, 2.0  # standard deviations


def simulate(n_repeats, n_stimuli, n_units, signal=SIGNAL, noise=NOISE, seed=0):
    rng = np.random.default_rng(seed)
    expected = signal * rng.standard_normal((n_stimuli, n_units))
    return expected + noise * rng.standard_normal((n_repeats, n_stimuli, n_units)), expected


def with_gaps(repeats):
    """Of every four stimuli, one each has all repeats, one less, two less, a single one."""
    holed = repeats.copy()
    for missing in range(1, 4):
        holed[[-1, 0, 1][:missing] if missing < 3 else slice(1, None), missing::4] = np.nan
    return holed


def true_ceiling(n_repeats):
    return np.sqrt(SIGNAL**2 / (SIGNAL**2 + NOISE**2 * np.mean(1 / np.asarray(n_repeats))))


ESTIMATORS = {
    "ncsnr": ncsnr_ceiling,
    "split-half": lambda repeats: split_half_ceiling(repeats, 20),
    "leave one out": lambda repeats: leave_one_repeat_out(repeats).lower,
    "across subjects": lambda repeats: across_subjects(repeats).lower[0],
}


def test_variances_are_those_of_scipys_analysis_of_variance():
    repeats, _ = simulate(4, 30, 5)
    parts = variance_components(repeats)
    f = stats.f_oneway(*repeats.swapaxes(0, 1)).statistic  # groups are the stimuli
    np.testing.assert_allclose(1 + 4 * parts.signal / parts.noise, f, rtol=1e-10)
    np.testing.assert_allclose(parts.noise, repeats.var(axis=0, ddof=1).mean(0), rtol=1e-10)
    np.testing.assert_array_equal(parts.inverse_repeats, 0.25)


def test_variances_are_unbiased_with_unequal_repeats():
    parts = variance_components(with_gaps(simulate(4, 40, 4000)[0]))
    assert parts.inverse_repeats[0] == pytest.approx(np.mean([1 / 4, 1 / 3, 1 / 2, 1]))
    for found, true in ((parts.signal, SIGNAL**2), (parts.noise, NOISE**2)):
        assert abs(found.mean() - true) < 4 * found.std() / np.sqrt(4000)


def test_ncsnr_is_the_one_of_allen_et_al_where_their_total_variance_is_one():
    repeats, _ = simulate(3, 10_000, 3)
    scored = (repeats - repeats.mean((0, 1))) / repeats.std((0, 1))
    noise = np.sqrt(scored.var(axis=0, ddof=1).mean(0))
    np.testing.assert_allclose(ncsnr(repeats), np.sqrt(1 - noise**2) / noise, rtol=1e-4)


def test_the_published_ceiling_in_per_cent_is_the_square():
    ratio, counts = np.array([0.2, 0.5, 1.0]), np.array([1, 1, 2, 3, 3, 3])
    mixed = (2 / 1 + 1 / 2 + 3 / 3) / 6  # (A/1 + B/2 + C/3) / (A + B + C)
    np.testing.assert_allclose(ceiling_from_ncsnr(ratio, counts) ** 2, ratio**2 / (ratio**2 + mixed), rtol=1e-12)
    np.testing.assert_allclose(ceiling_from_ncsnr(ratio, 3) ** 2, ratio**2 / (ratio**2 + 1 / 3), rtol=1e-12)


def test_one_may_ask_for_other_numbers_of_repeats_than_measured():
    repeats, _ = simulate(4, 50, 6)
    np.testing.assert_allclose(ncsnr_ceiling(repeats, 4), ncsnr_ceiling(repeats), rtol=1e-12)
    np.testing.assert_allclose(ncsnr_ceiling(repeats, 1), ceiling_from_ncsnr(ncsnr(repeats)), rtol=1e-12)


def test_two_halves_of_two_repeats_are_spearman_and_browns_formula():
    repeats, _ = simulate(2, 200, 8)
    r = stats.pearsonr(repeats[0], repeats[1], axis=0).statistic
    assert (r > 0).all()
    # Random splits swap the two repeats of some stimuli; here the first stays the first.
    same_side = np.where(np.arange(2)[:, None], np.ones(200), np.zeros(200))
    found = module._split_half(repeats, same_side[None], 1e-15)
    np.testing.assert_allclose(found, np.sqrt(2 * r / (1 + r)), rtol=1e-10)


def test_a_split_is_what_a_loop_over_stimuli_makes_of_it():
    repeats = with_gaps(simulate(4, 40, 3)[0])
    keys = np.random.default_rng(5).random((7, 4, 40))
    halves = np.full((7, 2, 40, 3), np.nan)
    for split, stimulus in np.ndindex(7, 40):
        order = [k for k in np.argsort(keys[split, :, stimulus]) if not np.isnan(repeats[k, stimulus, 0])]
        half = len(order) // 2
        if half:
            halves[split, 0, stimulus] = repeats[order[:half], stimulus].mean(0)
            halves[split, 1, stimulus] = repeats[order[half : 2 * half], stimulus].mean(0)
    kept = ~np.isnan(halves[0, 0, :, 0])
    r = np.mean([stats.pearsonr(*half[:, kept], axis=0).statistic for half in halves], axis=0)
    k = np.mean([1 / 2, 1, 1]) / np.mean([1 / 4, 1 / 3, 1 / 2, 1])
    expected = np.sqrt(np.maximum(k * r / (1 + (k - 1) * r), 0))
    np.testing.assert_allclose(module._split_half(repeats, keys, 1e-15), expected, rtol=1e-10)


def test_bounds_are_what_a_loop_with_scipy_says():
    repeats, _ = simulate(4, 20, 3)
    lower, upper = np.empty((2, 4, 3))
    for i in range(4):
        lower[i] = stats.pearsonr(repeats[i], np.delete(repeats, i, 0).mean(0), axis=0).statistic
        upper[i] = stats.pearsonr(repeats[i], repeats.mean(0), axis=0).statistic
    subjects, averaged = across_subjects(repeats), leave_one_repeat_out(repeats)
    np.testing.assert_allclose(subjects.lower, lower, atol=1e-12)
    np.testing.assert_allclose(subjects.upper, upper, atol=1e-12)
    np.testing.assert_allclose(averaged.lower, lower.mean(0), atol=1e-12)
    np.testing.assert_allclose(averaged.upper, upper.mean(0), atol=1e-12)


def test_bounds_are_those_of_rsatoolbox():
    """Where its RDMs are our repeats; it takes the mean of RDMs that are z-scored over their entries."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((28, 1))
    repeats = stats.zscore(signal + rng.standard_normal((4, 28, 1)), axis=1)
    bounds = leave_one_repeat_out(repeats)
    # rsatoolbox 0.3.2: boot_noise_ceiling(RDMs(repeats[..., 0]), method="corr", rdm_descriptor="index")
    assert bounds.lower == pytest.approx(0.5775076908384708, abs=1e-12)
    assert bounds.upper == pytest.approx(0.7723408640071077, abs=1e-12)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("name", ["ncsnr", "split-half"])
def test_the_ceiling_is_what_the_true_model_reaches(name, gaps):
    repeats, expected = simulate(4, 4000, 20)
    repeats = with_gaps(repeats) if gaps else repeats
    true = true_ceiling([1, 2, 3, 4] if gaps else 4)
    ceiling = ESTIMATORS[name](repeats)
    assert ceiling.mean() == pytest.approx(true, abs=0.005)
    assert np.abs(ceiling - true).max() < 0.03
    assert over_repeats(repeats, expected).mean() == pytest.approx(true, abs=0.005)
    assert over_repeats(repeats, expected, r2_score).mean() == pytest.approx(true**2, abs=0.01)
    assert noise_normalised(over_repeats(repeats, expected), ceiling).mean() == pytest.approx(1, abs=0.01)


def test_single_repeats_of_the_true_model_lie_between_the_bounds():
    repeats, expected = simulate(4, 4000, 20)
    bounds = leave_one_repeat_out(repeats)
    total, signal, noise = SIGNAL**2 + NOISE**2, SIGNAL**2, NOISE**2
    assert bounds.lower.mean() == pytest.approx(signal / np.sqrt(total * (signal + noise / 3)), abs=0.005)
    assert bounds.upper.mean() == pytest.approx(np.sqrt((signal + noise / 4) / total), abs=0.005)
    each = over_repeats(repeats, expected, against="each")
    assert each.mean() == pytest.approx(SIGNAL / np.sqrt(total), abs=0.005)
    assert ((bounds.lower < each) & (each < bounds.upper)).all()


def test_what_is_peculiar_to_a_subject_lowers_the_ceiling_across_subjects():
    rng = np.random.default_rng(0)
    shared, own = rng.standard_normal((1, 4000, 10)), rng.standard_normal((6, 4000, 10))
    bounds = across_subjects(shared + own)
    assert bounds.lower.shape == bounds.upper.shape == (6, 10)
    assert bounds.lower.mean() == pytest.approx(1 / np.sqrt(2 * (1 + 1 / 5)), abs=0.01)
    assert bounds.upper.mean() == pytest.approx(np.sqrt((1 + 1 / 6) / 2), abs=0.01)


def test_noise_alone_exceeds_the_chance_ceiling_as_often_as_said():
    repeats, _ = simulate(3, 50, 20_000, signal=0)
    for level in (0.05, 0.2):
        assert np.mean(ncsnr_ceiling(repeats) > chance_ceiling(50, 3, level)) == pytest.approx(level, abs=0.01)
    assert np.mean(split_half_ceiling(repeats[..., :4000]) > chance_ceiling(50, 3)) == pytest.approx(0.05, abs=0.02)


def test_a_unit_without_signal_is_never_fully_explained():
    repeats, _ = simulate(3, 200, 5000, signal=0)
    predicted = np.random.default_rng(9).standard_normal((200, 5000))
    ceiling, accuracy = ncsnr_ceiling(repeats), pearson_r(repeats.mean(0), predicted)
    naive = accuracy[ceiling > 0] / ceiling[ceiling > 0]
    assert naive.max() > 1  # what this guards against
    honest = noise_normalised(accuracy, ceiling, chance_ceiling(200, 3))
    assert np.mean(np.isfinite(honest)) < 0.06
    assert np.nanmax(honest) < 0.6


@pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS)
class TestEveryEstimator:
    def test_a_unit_that_does_not_vary_has_none(self, estimate):
        repeats, _ = simulate(4, 20, 6)
        repeats[..., 1], repeats[..., 2], repeats[..., 3] = 0.1, 0.0, np.nan
        assert np.flatnonzero(np.isnan(estimate(repeats))).tolist() == [1, 2, 3]

    def test_a_unit_without_noise_has_one(self, estimate):
        repeats = np.broadcast_to(np.arange(20.0)[:, None], (4, 20, 1))
        assert estimate(repeats) == pytest.approx(1)

    def test_a_missing_stimulus_is_left_out(self, estimate):
        repeats, _ = simulate(2, 20, 3)
        holed = repeats.copy()
        holed[:, 15:] = np.nan
        if estimate is not ESTIMATORS["split-half"]:  # which draws other splits for fewer stimuli
            np.testing.assert_allclose(estimate(holed), estimate(repeats[:, :15]), atol=1e-12)
        assert np.isfinite(estimate(holed)).all()

    def test_units_may_miss_different_repeats(self, estimate):
        repeats, _ = simulate(4, 60, 5)
        repeats[3, :20, 0] = repeats[2, 10:30, 1] = np.nan
        together = estimate(repeats)
        alone = [estimate(repeats[..., [unit]])[0] for unit in range(5)]
        np.testing.assert_allclose(together, alone, atol=1e-12)

    def test_axes_of_units_come_back_and_blocks_do_not_matter(self, estimate, monkeypatch):
        repeats, _ = simulate(4, 20, 60)
        whole = estimate(repeats)
        monkeypatch.setattr(module, "CACHE_BYTES", 1)
        monkeypatch.setattr(unit_blocks, "BLOCK_BYTES", 1)
        np.testing.assert_allclose(estimate(repeats.reshape(4, 20, 12, 5)), whole.reshape(12, 5), atol=1e-14)

    def test_an_infinite_value_makes_no_number(self, estimate):
        repeats, _ = simulate(4, 20, 3)
        repeats[0, 5, 1] = np.inf
        assert np.flatnonzero(np.isnan(estimate(repeats))).tolist() == [1]

    @pytest.mark.parametrize("shape", [(1, 20, 3), (4, 1, 3), (4,)])
    def test_too_few_repeats_or_stimuli_are_refused(self, estimate, shape):
        with pytest.raises(InvalidParameterError, match=r"was given; this takes \((repeats|subjects), stimuli, units"):
            estimate(np.zeros(shape))


def test_single_repeats_alone_say_nothing():
    repeats, _ = simulate(2, 20, 3)
    repeats[1] = np.nan
    assert np.isnan(ncsnr_ceiling(repeats)).all()
    assert np.isnan(split_half_ceiling(repeats, 3)).all()
    assert np.isnan(leave_one_repeat_out(repeats).lower).all()


def test_splits_come_from_the_seed():
    repeats, _ = simulate(4, 20, 3)
    np.testing.assert_array_equal(split_half_ceiling(repeats, 3, seed=1), split_half_ceiling(repeats, 3, seed=1))
    assert not np.array_equal(split_half_ceiling(repeats, 3, seed=1), split_half_ceiling(repeats, 3, seed=2))


def test_what_cannot_be_is_refused():
    with pytest.raises(InvalidParameterError, match=r"n_splits is 0; at least one"):
        split_half_ceiling(np.zeros((2, 3, 1)), 0)
    with pytest.raises(InvalidParameterError, match=r"a least number of 0.0. Leave out stimuli"):
        ceiling_from_ncsnr([1.0], [3, 0])
    with pytest.raises(InvalidParameterError, match=r"a least ratio of -1.0"):
        ceiling_from_ncsnr([-1.0])
    with pytest.raises(InvalidParameterError, match=r"515 stimuli, 1 repeats.*more than 1 repeat"):
        chance_ceiling(515, 1)


@pytest.mark.parametrize(
    ("true", "n_stimuli", "too_low"), [(0.8, 200, 0.0), (0.6, 500, 0.0), (0.45, 4000, 0.0), (0.45, 100, 0.05)]
)
def test_the_ceiling_is_met_at_the_reliabilities_that_the_docs_say(true, n_stimuli, too_low):
    noise = np.sqrt(2 * (1 - true**2)) / true  # beside a signal of 1, before two repeats are averaged
    repeats, _ = simulate(2, n_stimuli, 300_000 // n_stimuli, signal=1.0, noise=noise, seed=1)
    assert ncsnr_ceiling(repeats).mean() == pytest.approx(true - too_low, abs=0.01 if too_low else 0.005)
