"""Masked arrays, xarray, pandas, PyTorch and others in every public function: honoured or refused."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy import stats

from berg.core.exceptions import InvalidParameterError
from berg.evaluation import (
    across_subjects,
    benjamini_hochberg,
    bootstrap_interval,
    ceiling_from_ncsnr,
    chance_ceiling,
    effective_samples,
    interval_in_time,
    leave_one_repeat_out,
    max_statistic_p,
    mean_over_repeats,
    ncsnr,
    ncsnr_ceiling,
    noise_effective_samples,
    noise_normalised,
    over_repeats,
    pearson_r,
    permutation_test,
    r2_score,
    shift_test,
    split_half_ceiling,
    variance_components,
)

RNG = np.random.default_rng(0)
PREDICTED = RNG.standard_normal((12, 3))
MEASURED = PREDICTED + RNG.standard_normal((12, 3))
REPEATS = PREDICTED + RNG.standard_normal((4, 12, 3))
HIDDEN = RNG.random((4, 12, 3)) < 0.1

PAIRED = {
    "pearson_r": pearson_r,
    "r2_score": r2_score,
    "permutation_test": lambda m, p: permutation_test(m, p, 50).p,
    "bootstrap_interval": lambda m, p: bootstrap_interval(m, p, n_resamples=50).low,
    "effective_samples": effective_samples,
}
QUIETLY = pytest.mark.filterwarnings("ignore:.*effective samples in time:berg.evaluation.SamplesWarning")
IN_TIME = {
    "shift_test": lambda m, p: shift_test(m, p).p,
    "interval_in_time": lambda m, p: interval_in_time(m, p).low,
}
OF_REPEATS = {
    "mean_over_repeats": mean_over_repeats,
    "variance_components": lambda x: variance_components(x).signal,
    "ncsnr": ncsnr,
    "ncsnr_ceiling": ncsnr_ceiling,
    "split_half_ceiling": lambda x: split_half_ceiling(x, 5),
    "leave_one_repeat_out": lambda x: leave_one_repeat_out(x).lower,
    "across_subjects": lambda x: across_subjects(x).upper,
    "noise_effective_samples": noise_effective_samples,
}
KINDS = {
    "torch": lambda x: torch.tensor(x, requires_grad=True),
    "pandas": pd.DataFrame,
    "pandas nullable": lambda x: pd.DataFrame(x).astype("Float64"),
    "xarray": lambda x: xr.DataArray(x, dims=("stimulus", "voxel")),
    "xarray reversed": lambda x: xr.DataArray(x, dims=("stimulus", "voxel")).transpose("voxel", "stimulus"),
    "masked": np.ma.masked_invalid,
}


@QUIETLY
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PAIRED | IN_TIME)
def test_every_kind_gives_the_numbers_of_a_plain_array(name, kind):
    function, gap = (PAIRED | IN_TIME)[name], MEASURED.copy()
    gap[3, 1] = np.nan
    expected = function(gap, PREDICTED)
    np.testing.assert_allclose(function(KINDS[kind](gap), KINDS[kind](PREDICTED)), expected, rtol=1e-9)
    np.testing.assert_allclose(function(KINDS[kind](gap), PREDICTED), expected, rtol=1e-9)


@pytest.mark.parametrize("name", OF_REPEATS)
def test_masked_repeats_are_missing_ones(name):
    function, hidden = OF_REPEATS[name], np.where(HIDDEN, 1e20, REPEATS)
    missing = function(np.where(HIDDEN, np.nan, REPEATS))
    np.testing.assert_array_equal(function(np.ma.masked_array(hidden, HIDDEN)), missing)
    np.testing.assert_array_equal(
        function([np.ma.masked_array(x, own) for x, own in zip(hidden, HIDDEN, strict=True)]), missing
    )
    named = xr.DataArray(np.where(HIDDEN, np.nan, REPEATS), dims=("repetition", "stimulus", "voxel"))
    np.testing.assert_array_equal(function(named.transpose("stimulus", "voxel", "repetition")), missing)
    np.testing.assert_array_equal(function(torch.tensor(named.values)), missing)


def test_a_mask_leaves_out_what_scipy_leaves_out():
    masked = np.ma.masked_greater(MEASURED, 1.0)
    expected = [stats.pearsonr(*(x[~masked.mask[:, k], k] for x in (MEASURED, PREDICTED)))[0] for k in range(3)]
    np.testing.assert_allclose(pearson_r(masked, PREDICTED), expected)
    np.testing.assert_allclose(pearson_r(MEASURED, np.ma.masked_array(PREDICTED, masked.mask)), expected)
    whole = np.ma.masked_array((100 * MEASURED).astype(int), masked.mask)
    np.testing.assert_allclose(pearson_r(whole, PREDICTED), expected, atol=0.02)


class Netcdf:
    """As a variable of netCDF4: slices of it are masked arrays."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __getitem__(self, key):
        return self.values[key]


def test_slices_of_a_file_may_be_masked():
    masked = np.ma.masked_greater(MEASURED, 1.0)
    np.testing.assert_array_equal(pearson_r(Netcdf(masked), PREDICTED), pearson_r(masked, PREDICTED))
    cube = np.ma.masked_array(REPEATS, HIDDEN).reshape(4, 12, 3, 1)
    np.testing.assert_array_equal(mean_over_repeats(Netcdf(cube))[..., 0], mean_over_repeats(cube)[..., 0])


def labelled(values, order=slice(None), **coordinates):
    coordinates = {"stimulus": [f"s{i}" for i in range(12)], "voxel": [7, 8, 9]} | coordinates
    return xr.DataArray(values, coordinates, ("stimulus", "voxel"))[order]


def test_labels_of_xarray_and_pandas_put_both_in_one_order():
    order, expected = RNG.permutation(12), pearson_r(MEASURED, PREDICTED)
    shuffled = labelled(PREDICTED)[order, ::-1]
    np.testing.assert_allclose(pearson_r(labelled(MEASURED), shuffled), expected)
    np.testing.assert_allclose(pearson_r(labelled(MEASURED).to_pandas(), shuffled.to_pandas()), expected)
    np.testing.assert_allclose(pearson_r(labelled(MEASURED).to_pandas(), shuffled), expected)
    repeats = xr.concat([labelled(each) for each in REPEATS], "repetition")
    np.testing.assert_allclose(over_repeats(repeats, shuffled), over_repeats(REPEATS, PREDICTED))
    both = xr.concat([shuffled, shuffled], "repetition").transpose("voxel", "stimulus", "repetition")
    np.testing.assert_allclose(over_repeats(repeats, both), over_repeats(REPEATS, PREDICTED))


def test_square_arrays_are_told_by_their_names():
    m, p = (labelled(x, slice(3)) for x in (MEASURED, PREDICTED))
    np.testing.assert_allclose(pearson_r(m, p.T), pearson_r(MEASURED[:3], PREDICTED[:3]))
    np.testing.assert_allclose(pearson_r(m.T, p), pearson_r(MEASURED[:3], PREDICTED[:3]))


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (labelled(PREDICTED, stimulus=[f"t{i}" for i in range(12)]), "Labels along 'stimulus' differ.*s0.*t0"),
        (labelled(PREDICTED, voxel=[1, 2, 3]), "Labels along 'voxel' differ.*7, 8, 9.*1, 2, 3"),
        (labelled(PREDICTED).rename(voxel="vertex"), "axes stimulus, voxel, predicted ones stimulus, vertex"),
        (labelled(PREDICTED, roi=("voxel", ["V1", "V2", "V1"])), "'roi' along 'voxel' differs.*V1, V1, V2"),
        (labelled(PREDICTED).assign_attrs(_FillValue=-999), "_FillValue=-999.*decode_cf"),
        (labelled(PREDICTED).to_dataset(name="beta"), "whole xarray.Dataset was given; give one variable: beta"),
        (labelled(PREDICTED).to_pandas().set_axis(list("abcdefghijkl")), "Labels .* differ"),
        (pd.DataFrame({"a": ["x"] * 12}), "pandas.*Responses must be real numbers"),
        (PREDICTED + 1j, "complex128.*Responses must be real numbers"),
        (np.full((12, 3), "1.0"), "Responses must be real numbers"),
        ([[1.0, 2.0], [1.0]], "Responses must be real numbers"),
        (np.array([[None] * 3] * 12), "Responses must be real numbers"),
        (torch.ones(12, 3).to_sparse(), "sparse_coo.*Responses must be real numbers"),
    ],
)
def test_what_contradicts_is_refused(other, match):
    measured = labelled(MEASURED, roi=("voxel", ["V1", "V1", "V2"]))
    with pytest.raises(InvalidParameterError, match=match):
        pearson_r(measured, other)


def test_units_must_agree_where_they_count():
    microvolts, volts = (labelled(x).assign_attrs(units=of) for x, of in ((MEASURED, "uV"), (PREDICTED, "V")))
    np.testing.assert_allclose(pearson_r(microvolts, volts), pearson_r(MEASURED, PREDICTED))
    with pytest.raises(InvalidParameterError, match="are in 'uV', predicted ones in 'V'"):
        r2_score(microvolts, volts)


def test_figures_of_units_may_be_labelled_and_masked():
    voxels = {"dims": ("voxel",), "coords": {"voxel": [7, 8, 9]}}
    r, ceiling = xr.DataArray([0.2, 0.3, 0.4], **voxels), xr.DataArray([0.8, 0.6, 0.5], **voxels)
    np.testing.assert_allclose(noise_normalised(r, ceiling[::-1]), [0.25, 0.5, 0.8])
    np.testing.assert_array_equal(noise_normalised(np.ma.masked_less(r.values, 0.3), ceiling), [np.nan, 0.5, 0.8])
    p = np.ma.masked_array([0.01, 1e20, 0.04], [False, True, False])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, np.nan, 0.04])
    np.testing.assert_allclose(benjamini_hochberg(pd.Series([0.01, 0.04])), [0.02, 0.04])
    np.testing.assert_allclose(max_statistic_p(torch.tensor([0.5, 2.0]), np.arange(3.0)), [0.75, 0.5])
    np.testing.assert_allclose(ceiling_from_ncsnr(torch.tensor([1.0]), pd.Series([1, 1])), [0.5**0.5])
    np.testing.assert_allclose(chance_ceiling(xr.DataArray([50.0, np.nan]), 3), [chance_ceiling(50, 3), np.nan])
