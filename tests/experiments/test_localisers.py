import numpy as np
import pytest
import xarray as xr
from scipy import stats

from berg.core.exceptions import InvalidParameterError, MissingFileError
from berg.experiments import draw, localise
from berg.statistics.contrasts import Moments, welch

LABELS = ["face"] * 12 + ["house"] * 9 + ["tool"] * 8
NAMES = [f"set/{label}/{number}.png" for number, label in enumerate(LABELS)]


def made(n_units=40, effect=2.0, seed=0, roi=None):
    values = np.random.default_rng(seed).normal(size=(len(LABELS), n_units))
    values[:12, :10] += effect
    coords = {"stimulus": NAMES} | ({} if roi is None else {"roi": ("voxel", np.array(roi, object))})
    return xr.Dataset({"responses": (("stimulus", "voxel"), values)}, coords)


def test_t_and_p_are_those_of_scipy_and_do_not_depend_on_blocks(monkeypatch):
    responses = made()
    whole = localise(responses, "folders", "face")
    values = responses["responses"].values
    expected = stats.ttest_ind(values[:12], values[12:], equal_var=False)
    np.testing.assert_allclose(whole.t, expected.statistic, rtol=1e-12)
    np.testing.assert_allclose(whole.p, expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(whole.q, stats.false_discovery_control(expected.pvalue), rtol=1e-9)
    spread = np.sqrt((values[:12].var(0, ddof=1) + values[12:].var(0, ddof=1)) / 2)
    np.testing.assert_allclose(whole.d_prime, (values[:12].mean(0) - values[12:].mean(0)) / spread, rtol=1e-12)
    monkeypatch.setattr("berg.experiments.patterns._BLOCK_BYTES", 8 * 40 * 3)
    xr.testing.assert_allclose(localise(responses, "folders", "face"), whole, rtol=1e-10)


def test_sums_of_blocks_keep_what_large_means_would_lose():
    values = 1e6 + np.random.default_rng(1).normal(size=(50, 3))
    parts = [Moments.of(values[start : start + 7]) for start in range(0, 50, 7)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    np.testing.assert_allclose(total.variance, values.var(0, ddof=1), rtol=1e-8)
    assert np.isnan(welch(Moments.of(np.ones((4, 1))), Moments.of(np.ones((4, 1)))).t).all()


def test_selected_units_are_measured_in_other_pictures_than_those_that_selected_them():
    """Units of noise alone: where they were selected they would be selective, elsewhere they are not."""
    biased, held_out = [], []
    for seed in range(20):
        result = localise(made(600, effect=0, seed=seed), "folders", "face", t_threshold=2, seed=seed)
        chosen = result.is_selected.values
        biased.append(float(result.d_prime.values[chosen].mean()))
        held_out.append(float(result.selected_d_prime[0]))
    assert np.mean(biased) > 0.8
    assert abs(np.mean(held_out)) < 3 * np.std(held_out) / np.sqrt(20) + 0.05


def test_false_positives_are_as_many_as_said():
    result = localise(made(4000, effect=0), "folders", "face")
    assert 0.04 < float((result.p < 0.05).mean()) < 0.06
    assert int((result.q < 0.05).sum()) <= 4


def test_regions_hold_their_own_units_also_those_in_two():
    result = localise(made(roi=["FFA;lateral"] * 10 + ["V1"] * 29 + [""]), "folders", "face")
    assert list(result.region.values) == ["FFA", "lateral", "V1"]
    assert list(result.n_units.values) == [10, 10, 29]
    assert float(result.selected_d_prime.sel(region="FFA")) > 2
    assert abs(float(result.selected_mean.sel(region="FFA", category="house"))) < 1
    assert "voxel" not in result.dims
    assert draw(result).axes


def test_labels_of_a_table_a_list_and_a_mapping_are_the_same(tmp_path):
    responses = made()
    table = tmp_path / "labels.tsv"
    table.write_text("stimulus\tcategory\n" + "\n".join(f"{n}\t{c}" for n, c in zip(NAMES, LABELS, strict=True)))
    expected = localise(responses, "folders", "face", ["house"])
    for labels in (table, LABELS, dict(zip(NAMES, LABELS, strict=True))):
        xr.testing.assert_equal(localise(responses, labels, "face", ["house"]), expected)
    assert expected.n_stimuli.values.tolist() == [12, 9]


@pytest.mark.parametrize(
    ("labels", "category", "against", "words"),
    [
        ("folders", "fase", None, "no stimulus is of the category 'fase'. Did you mean 'face'"),
        ("folders", "face", "house", "must be a list"),
        ("folders", "face", ["face"], "must be compared with other"),
        (LABELS[:-1], "face", None, "28 categories for 29 stimuli"),
        ({"other": "face"}, "face", None, "names none of the stimuli"),
        (["face"] * 2 + LABELS[12:] + ["house"] * 10, "face", None, "'face' has 2 stimuli"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, category, against, words):
    with pytest.raises(InvalidParameterError, match=f"(?i){words}"):
        localise(made(), labels, category, against)


def test_units_that_are_not_finite_and_missing_tables_are_named(tmp_path):
    responses = made()
    responses["responses"][3, 5] = np.nan
    with pytest.raises(InvalidParameterError, match="1 of 40 units have responses that are NaN"):
        localise(responses, "folders", "face")
    with pytest.raises(MissingFileError, match="no table"):
        localise(made(), tmp_path / "none.csv", "face")
    with pytest.raises(InvalidParameterError, match="has no folder in it"):
        localise(made().assign_coords(stimulus=LABELS), "folders", "face")
