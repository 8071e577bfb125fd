"""P values of many tests: beside scipy, and how many are false in simulations with known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from berg.core.exceptions import InvalidParameterError
from berg.evaluation import (
    benjamini_hochberg,
)


class TestBenjaminiHochberg:
    @given(arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)))
    def test_it_is_that_of_scipy(self, p):
        np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), rtol=1e-10)

    def test_nan_is_no_test_and_axes_come_back(self):
        p = np.array([[0.01, np.nan, 0.2], [0.02, 0.5, np.nan]])
        expected = p.copy()
        expected[~np.isnan(p)] = stats.false_discovery_control(p[~np.isnan(p)])
        np.testing.assert_allclose(benjamini_hochberg(p), expected, rtol=1e-12)
        assert np.isnan(benjamini_hochberg([np.nan])).all()

    def test_false_discoveries_are_as_few_as_said(self):
        rng = np.random.default_rng(14)
        p = rng.random((2000, 100))
        p[:, :30] = stats.norm.sf(rng.standard_normal((2000, 30)) + 3)
        found = np.array([benjamini_hochberg(family) <= 0.1 for family in p])
        false = found[:, 30:].sum(1) / np.maximum(found.sum(1), 1)
        assert false.mean() == pytest.approx(0.1 * 0.7, abs=0.01)  # q times the part without signal
        assert found[:, :30].mean() > 0.7

    def test_what_is_no_probability_is_refused(self):
        with pytest.raises(InvalidParameterError, match=r"between -0\.1 and 0\.5; they must be probabilities"):
            benjamini_hochberg([0.5, -0.1])
