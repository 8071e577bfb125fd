import numpy as np
import pytest
import xarray as xr

from berg.core.exceptions import InvalidParameterError
from berg.experiments.patterns import patterns, same_stimuli


def labelled(values, names, **attributes):
    dims = ("stimulus", "voxel", "time")[: values.ndim]
    return xr.Dataset({"responses": (dims, values)}, {"stimulus": list(names)}, attributes)


def test_two_hemispheres_and_times_are_columns_of_one_matrix():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(3, 2)), rng.normal(size=(3, 4))
    tree = xr.DataTree.from_dict(
        {"lh": labelled(left, "abc").rename(responses="lh"), "rh": labelled(right, "abc").rename(responses="rh")}
    )
    made = patterns(tree)
    assert (made.stimuli, made.n_units) == (("a", "b", "c"), 6)
    np.testing.assert_array_equal(made.matrix(), np.hstack([left, right]))
    in_time = rng.normal(size=(3, 2, 5))
    np.testing.assert_array_equal(patterns(labelled(in_time, "abc")).matrix(), in_time.reshape(3, 10))


def test_blocks_are_the_rows_in_their_order(monkeypatch):
    monkeypatch.setattr("berg.experiments.patterns._BLOCK_BYTES", 8 * 4 * 3)
    values = np.random.default_rng(1).normal(size=(8, 4))
    found = list(patterns(values).blocks())
    assert [rows.stop - rows.start for rows, _ in found] == [3, 3, 2]
    np.testing.assert_array_equal(np.concatenate([block for _, block in found]), values)


def test_repetitions_are_averaged_and_the_axis_of_stimuli_comes_first():
    values = np.random.default_rng(2).normal(size=(4, 5, 3))
    array = xr.DataArray(values, dims=("channel", "stimulus", "repetition"), coords={"stimulus": list("vwxyz")})
    np.testing.assert_allclose(patterns(array).matrix(), values.mean(2).T)


def test_the_source_says_model_subject_and_selection():
    made = patterns(labelled(np.ones((2, 3)), "ab", model_id="fmri-a-b", subject=1, selection="{'roi': 'V1'}"))
    assert made.source == {"model_id": "fmri-a-b", "subject": 1, "selection": "{'roi': 'V1'}", "n_units": 3}


@pytest.mark.parametrize("given", [np.ones(3), [["a", "b"]], xr.DataArray(np.ones((2, 2)), dims=("voxel", "time"))])
def test_what_has_no_stimuli_is_refused(given):
    with pytest.raises(InvalidParameterError, match=r"one of them (must be|has no axis)"):
        patterns(given, "one of them")


def test_an_empty_selection_is_refused():
    with pytest.raises(InvalidParameterError, match="2 stimuli and 0 units"):
        patterns(np.ones((2, 0)))


def test_other_stimuli_or_another_order_are_named():
    a, b = (patterns(labelled(np.ones((3, 1)), names)) for names in ("abc", "acb"))
    assert same_stimuli([a, a], ["one", "two"]) == ("a", "b", "c")
    with pytest.raises(InvalidParameterError, match="Stimulus 1 is 'b' in one and 'c' in two, and 1 more differ"):
        same_stimuli([a, b], ["one", "two"])
    with pytest.raises(InvalidParameterError, match="one has 3 stimuli and two has 2"):
        same_stimuli([a, patterns(labelled(np.ones((2, 1)), "ab"))], ["one", "two"])


def test_several_subjects_are_not_one_pattern() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    axes = {"stimulus": ["a", "b"], "subject": ["NSD-01", "NSD-02", "NOD-30"]}
    several = xr.Dataset({"fmri": (("stimulus", "subject", "vertex"), values)}, axes, {"subject": "all three"})
    with pytest.raises(InvalidParameterError, match=r"of 3 subjects .*responses\.sel\(subject='NSD-01'\)"):
        patterns(several)
    one = patterns(several.sel(subject="NOD-30"))
    np.testing.assert_array_equal(one.matrix(), values[:, 2])
    assert one.source["subject"] == "NOD-30"
