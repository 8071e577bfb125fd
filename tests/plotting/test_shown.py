"""Which stimuli are drawn, in which unit, and what is written beside them."""

import numpy as np
import pytest
import xarray as xr

from berg.core.exceptions import InvalidParameterError
from berg.plotting.colours import scale_of, wrapped
from berg.plotting.shown import find_stimuli, mean_over_stimuli, show


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (None, [0, 1, 2]),
        ("beach.jpg", [0]),
        ("beach", [0]),
        ("face*", [1, 2]),
        (["face-2", "beach*"], [2, 0]),
        (1, [1]),
    ],
)
def test_stimuli_are_found_by_name_pattern_and_number(wanted, indices):
    assert find_stimuli(["beach.jpg", "face-1.jpg", "face-2.jpg"], wanted).tolist() == indices


def test_a_name_with_brackets_is_a_name_before_it_is_a_pattern():
    assert find_stimuli(["a[1].png", "a1.png"], "a[1].png").tolist() == [0]
    assert find_stimuli(["1", "0"], 1).tolist() == [0]  # a name that is a number, before a number


def test_an_unknown_stimulus_is_refused_with_the_nearest():
    with pytest.raises(InvalidParameterError, match=r"no stimulus 'beech'. Did you mean 'beach.jpg'\?"):
        find_stimuli(["beach.jpg", "face-1.jpg"], "beech")
    with pytest.raises(InvalidParameterError, match="No stimulus was asked for"):
        find_stimuli(["beach.jpg"], [])


def test_a_contrast_is_the_difference_of_means(fields):
    shown = show(fields, "face*", "beach")
    values = fields["responses"].values.astype(float)
    np.testing.assert_allclose(shown.outputs["responses"], values[1:].mean(axis=0) - values[0], rtol=1e-12)
    assert shown.label == "difference in response (BOLD amplitude)"
    assert shown.is_signed
    with pytest.raises(InvalidParameterError, match=r"A contrast has two sides.*stimulus="):
        show(fields, minus="beach")


def test_means_over_many_stimuli_are_those_of_numpy():
    values = np.random.default_rng(0).standard_normal((200, 3, 2)).astype(np.float32)
    array = xr.DataArray(values, dims=("stimulus", "voxel", "time"))
    chosen = np.array([5, 180, 3, *range(50, 150)])
    mean = mean_over_stimuli(array.transpose("voxel", "stimulus", "time"), chosen)
    np.testing.assert_allclose(mean, values[chosen].astype(float).mean(axis=0), rtol=1e-12, atol=1e-12)


def test_a_mean_with_nan_is_nan():
    array = xr.DataArray(np.array([[1.0, np.nan], [3.0, 4.0]]), dims=("stimulus", "voxel"))
    assert mean_over_stimuli(array, np.array([0, 1])).values.tolist()[0] == 2
    assert np.isnan(mean_over_stimuli(array, np.array([0, 1])).values[1])


def test_repetitions_are_averaged_and_told(sensors):
    four = sensors().expand_dims(repetition=4, axis=1).copy(deep=True)
    four["eeg"] = four["eeg"] + xr.DataArray(np.arange(4.0), dims="repetition")
    shown = show(four, "beach")
    plain = show(sensors(), "beach").outputs["eeg"].values
    np.testing.assert_allclose(shown.outputs["eeg"].transpose("channel", "time").values, plain + 1.5, atol=1e-5)
    assert "mean of 4 repetitions" in shown.facts


def test_what_is_signed_is_symmetric_and_the_rest_begins_at_0(fields, voxels):
    assert not show(fields).is_signed
    assert show(voxels).is_signed  # z-scores, whatever their values
    values = np.linspace(-1, 3, 401)
    signed, unsigned = scale_of([values], "a (b)", True), scale_of([np.abs(values)], "a (b)", False)
    high = np.quantile(np.abs(values), 0.99)
    assert (signed.low, signed.high, signed.colours, signed.extend) == (-high, high, "RdBu_r", "max")
    assert (unsigned.low, unsigned.colours, unsigned.extend) == (0, "magma", "max")


def test_limits_can_be_given_and_must_be_two():
    assert scale_of([np.array([-5.0, 5.0])], "a (b)", True, (-1, 2)).extend == "both"
    with pytest.raises(InvalidParameterError, match="the smaller one first"):
        scale_of([np.ones(2)], "a (b)", True, (1, 1))
    with pytest.raises(InvalidParameterError, match="all responses are NaN"):
        scale_of([np.full(3, np.nan)], "a (b)", True)


def test_responses_of_zero_have_a_scale_all_the_same():
    scale = scale_of([np.zeros(5)], "a (b)", True)
    assert (scale.low, scale.high, scale.extend) == (-1, 1, "neither")


def test_nan_has_the_colour_of_the_background():
    colours = scale_of([np.arange(3.0)], "a (b)", False).rgba(np.array([0.0, np.nan]))
    assert colours[1].tolist() == pytest.approx([0.82, 0.82, 0.82, 1])


def test_long_labels_break_before_the_unit():
    assert wrapped("response (normalised EEG amplitude)", 2) == "response\n(normalised EEG amplitude)"
    assert wrapped("response (µV)", 1) == "response (µV)"
