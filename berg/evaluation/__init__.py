"""How well a model predicts: accuracy per unit, noise ceilings, intervals and tests."""

from berg.statistics.autocorrelation import effective_samples, noise_effective_samples
from berg.statistics.bootstrap import Interval, bootstrap_interval
from berg.statistics.groups import SamplesWarning
from berg.statistics.in_time import interval_in_time, shift_test
from berg.statistics.metrics import mean_over_repeats, noise_normalised, over_repeats, pearson_r, r2_score
from berg.statistics.noise_ceilings import (
    CeilingBounds,
    VarianceComponents,
    across_subjects,
    ceiling_from_ncsnr,
    chance_ceiling,
    leave_one_repeat_out,
    ncsnr,
    ncsnr_ceiling,
    split_half_ceiling,
    variance_components,
)
from berg.statistics.p_values import PermutationTest, benjamini_hochberg, max_statistic_p
from berg.statistics.permutation import permutation_test

__all__ = [
    "CeilingBounds",
    "Interval",
    "PermutationTest",
    "SamplesWarning",
    "VarianceComponents",
    "across_subjects",
    "benjamini_hochberg",
    "bootstrap_interval",
    "ceiling_from_ncsnr",
    "chance_ceiling",
    "effective_samples",
    "interval_in_time",
    "leave_one_repeat_out",
    "max_statistic_p",
    "mean_over_repeats",
    "ncsnr",
    "ncsnr_ceiling",
    "noise_effective_samples",
    "noise_normalised",
    "over_repeats",
    "pearson_r",
    "permutation_test",
    "r2_score",
    "shift_test",
    "split_half_ceiling",
    "variance_components",
]
