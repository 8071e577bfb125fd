import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from simulated import labelled, mixed
from sklearn.linear_model import LinearRegression

from berg import experiments
from berg.core.exceptions import InvalidParameterError

TIMES = np.round(np.arange(-0.1, 0.4, 0.02), 3)
EARLY, LATE = 0.1, 0.24


def in_time(features, n_channels, rng, noise, subject=1):
    """Channels that follow the first features around 100 ms, and the second around 240 ms."""
    shapes = [np.exp(-(((TIMES - peak) / 0.04) ** 2)) for peak in (EARLY, LATE)]
    parts = [mixed(own, n_channels, rng)[..., None] * shape for own, shape in zip(features, shapes, strict=True)]
    values = sum(parts) + noise * rng.normal(size=(len(features[0]), n_channels, len(TIMES)))
    return labelled(values, "eeg-a-b", subject, TIMES)


@pytest.fixture(scope="module")
def simulated():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 40, 15))
    eeg = [in_time(features, 20, rng, 0.5, subject) for subject in (1, 2)]
    regions = {
        "V1": labelled(mixed(features[0], 40, rng)),
        "IT": [labelled(mixed(features[1], 40, rng), subject=s) for s in (1, 2)],
    }
    return eeg, regions | {"other": labelled(rng.normal(size=(40, 30)))}, features


@pytest.fixture(scope="module")
def result(simulated):
    eeg, regions, features = simulated
    return experiments.fusion(
        eeg, regions, models={"late": labelled(features[1])}, n_permutations=200, n_sets=20, set_size=20
    )


def test_each_region_is_found_when_its_geometry_is_there(result):
    np.testing.assert_allclose(result["peak"].sel(region=["V1", "IT"]), [EARLY, LATE], atol=0.021)
    inside = (result["peak_low"] <= result["peak"]) & (result["peak"] <= result["peak_high"])
    assert inside.sel(region=["V1", "IT"]).all()
    assert result["peak_high"].sel(region="V1") < result["peak_low"].sel(region="IT")
    p = result["p"]
    assert (p.sel(region="V1").sel(time=EARLY, method="nearest")) < 0.05
    assert (p.sel(region="IT").sel(time=LATE, method="nearest")) < 0.05
    assert (p.sel(time=slice(None, 0)) > 0.05).all()
    assert (p.sel(region="other") > 0.05).all()


def test_a_similarity_is_spearmans_of_scipy(result, simulated):
    eeg, regions, _ = simulated
    region = np.mean([pdist(own["responses"].values, "correlation") for own in regions["IT"]], axis=0)
    moment = pdist(eeg[1]["responses"].sel(time=LATE).values, "correlation")
    found = result["similarity"].sel(subject="subject 2", region="IT", time=LATE)
    assert found.item() == pytest.approx(spearmanr(region, moment).statistic, abs=1e-12)
    np.testing.assert_allclose(result["mean"], result["similarity"].mean("subject"))


def test_a_model_has_in_common_with_a_region_what_least_squares_says(simulated):
    eeg, regions, features = simulated
    found = experiments.fusion(
        eeg[0], {"IT": regions["IT"][0]}, models={"late": labelled(features[1])}, comparison="pearson",
        n_permutations=1, n_sets=0,
    )  # fmt: skip
    moment = pdist(eeg[0]["responses"].sel(time=LATE).values, "correlation")
    X = np.column_stack([pdist(own, "correlation") for own in (regions["IT"][0]["responses"].values, features[1])])
    alone = [LinearRegression().fit(own, moment).score(own, moment) for own in (X[:, :1], X[:, 1:], X)]
    shared = alone[0] + alone[1] - alone[2]
    assert found["commonality"].sel(model="late", region="IT", time=LATE).item() == pytest.approx(shared, abs=1e-10)


def test_the_spread_of_sets_is_that_of_courses_on_fewer_pictures(result, simulated):
    eeg, regions, _ = simulated
    assert ((result["set_low"] < result["mean"]) & (result["mean"] < result["set_high"])).mean() > 0.9
    larger = experiments.fusion(eeg, regions, n_permutations=1, n_sets=20, set_size=35)
    narrower = (larger["set_high"] - larger["set_low"]) < (result["set_high"] - result["set_low"])
    assert narrower.mean() > 0.95
    assert "set_low" not in experiments.fusion(eeg, regions, n_permutations=1, n_sets=0)


def test_blocks_of_times_and_sensors_change_nothing(result, simulated, monkeypatch):
    eeg, regions, _ = simulated
    monkeypatch.setattr("berg.experiments.fusion_in_time._BLOCK", 780 * 4)
    monkeypatch.setattr("berg.statistics.dissimilarity._BLOCK", 1600 * 3)
    found = experiments.fusion(eeg, regions, n_permutations=200, n_sets=0)
    np.testing.assert_allclose(found["similarity"], result["similarity"], atol=1e-12)
    np.testing.assert_allclose(found["p"], result["p"])


def test_signs_of_subjects_find_it_too():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(2, 30, 10))
    eeg = [in_time(features, 20, rng, 1.5, subject) for subject in range(8)]
    found = experiments.fusion(eeg, {"V1": labelled(features[0])}, over="subjects", n_permutations=200, n_sets=0)
    assert found["p"].sel(region="V1").sel(time=EARLY, method="nearest") < 0.05
    assert found["cluster_region"].values.tolist()[0] == "V1"


def test_a_result_without_clusters_is_kept_and_drawn(tmp_path):
    found = experiments.fusion(EEG, REGION, n_permutations=9, n_sets=0, level=1e-9)
    assert found.sizes["cluster"] == 0
    back = experiments.open_result(experiments.save(found, tmp_path / "a.nc"))
    xr.testing.assert_equal(back.drop_vars("cluster_region"), found.drop_vars("cluster_region"))
    assert experiments.draw(back)._repr_png_()


def test_arrays_have_numbers_of_samples_for_times():
    rng = np.random.default_rng(2)
    found = experiments.fusion(rng.normal(size=(10, 4, 6)), {"a": rng.normal(size=(10, 5))}, n_permutations=9, n_sets=5)
    assert found["time"].values.tolist() == [0, 1, 2, 3, 4, 5]


def false_positives(n_runs, over, n_subjects, n_permutations=100):
    wrong = []
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(2, 20, 8))
        eeg = [in_time(features, 12, rng, 0.3, subject) for subject in range(n_subjects)]
        regions = {name: labelled(rng.normal(size=(20, 15))) for name in "ab"}
        found = experiments.fusion(eeg, regions, over=over, n_permutations=n_permutations, n_sets=0, seed=seed)
        wrong.append(bool((found["p"] < 0.05).any()))
    return float(np.mean(wrong))


@pytest.mark.slow
@pytest.mark.parametrize("n_subjects", [1, 3])
def test_unrelated_regions_are_seldom_found(n_subjects):
    assert 0.01 < false_positives(300, "stimuli", n_subjects) < 0.085


EEG = np.random.default_rng(3).normal(size=(10, 4, 6))
REGION = {"a": np.random.default_rng(4).normal(size=(10, 5))}
NAMED = {"a": labelled(REGION["a"])}
BAD = {
    "no time": (lambda: experiments.fusion(labelled(EEG[..., 0]), REGION), r"it must be \(stimuli, channels, times\)"),
    "an axis that is not time": (
        lambda: experiments.fusion(labelled(EEG).rename(time="bin"), REGION), "no axis 'time'",
    ),
    "other times": (
        lambda: experiments.fusion([labelled(EEG, times=TIMES[:6]), labelled(EEG, times=TIMES[1:7])], NAMED),
        "Select the same ones",
    ),
    "other pictures": (lambda: experiments.fusion(EEG, {"a": REGION["a"][:9]}), "10 stimuli and regions 'a' has 9"),
    "few pictures": (lambda: experiments.fusion(EEG[:5], {"a": REGION["a"][:5]}), "fusion needs 8"),
    "no names": (lambda: experiments.fusion(EEG, REGION["a"]), "with their names"),
    "no region": (lambda: experiments.fusion(EEG, {}), "with their names"),
    "sets of all": (lambda: experiments.fusion(EEG, REGION, set_size=10), "fewer than there are"),
    "sets of three": (lambda: experiments.fusion(EEG, REGION, set_size=3), "at least 4 pictures"),
    "one subject of many": (lambda: experiments.fusion(EEG, REGION, over="subjects"), "over='stimuli'"),
    "no permutation": (lambda: experiments.fusion(EEG, REGION, n_permutations=0), "better 1000"),
    "a comparison": (lambda: experiments.fusion(EEG, REGION, comparison="cosine"), "'spearman', 'pearson'"),
    "NaN": (lambda: experiments.fusion(EEG * np.nan, REGION), "NaN or infinite"),
    "a flat pattern": (lambda: experiments.fusion(np.ones((10, 4, 6)), REGION), "at time number 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_fused_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InvalidParameterError, match=words):
        call()


def test_two_outputs_are_no_course():
    tree = xr.DataTree.from_dict({name: labelled(EEG).rename(responses=name) for name in ("lh", "rh")})
    with pytest.raises(InvalidParameterError, match=r"must be \(stimuli, channels, times\)"):
        experiments.fusion(tree, REGION)
