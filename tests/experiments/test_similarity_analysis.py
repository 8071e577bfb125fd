import numpy as np
import pytest
import rsatoolbox.data
import xarray as xr
from rsatoolbox.inference import eval_fixed
from rsatoolbox.model import ModelFixed
from rsatoolbox.rdm import calc_rdm
from scipy.spatial.distance import pdist, squareform
from simulated import labelled, mixed

from berg import experiments
from berg.core.exceptions import InvalidParameterError
from berg.experiments.result import open_result, parameters_of, sources_of
from berg.statistics.kernel_alignment import linear_cka

RNG = np.random.default_rng(0)
LOW, HIGH = RNG.normal(size=(2, 24, 15))
PEOPLE = [labelled(mixed(HIGH, 60, RNG) + 0.5 * RNG.normal(size=(24, 60)), subject=s) for s in (1, 2, 5)]


@pytest.fixture(scope="module")
def result():
    return experiments.rsa(PEOPLE, {"low": labelled(LOW), "high": labelled(HIGH)}, n_resamples=200)


def test_the_right_model_is_found_and_reaches_the_ceiling(result):
    assert result["p_above_zero_fdr"].sel(model="high") < 0.01
    assert result["p_above_zero_fdr"].sel(model="low") > 0.05
    assert result["p_difference"].sel(model="high", other_model="low") < 0.05
    assert result["ceiling"].sel(bound="lower") - 0.1 < result["mean"].sel(model="high")
    assert (result["low"] < result["mean"]).all()
    assert result["subject"].values.tolist() == ["subject 1", "subject 2", "subject 5"]


def test_similarities_are_those_of_rsatoolbox(result):
    data = [calc_rdm(rsatoolbox.data.Dataset(own["responses"].values), method="correlation") for own in PEOPLE]
    rdms = data[0]
    for own in data[1:]:
        rdms.append(own)
    models = [ModelFixed(name, pdist(own, "correlation")) for name, own in (("low", LOW), ("high", HIGH))]
    theirs = eval_fixed(models, rdms, method="corr")
    np.testing.assert_allclose(result["similarity"], theirs.evaluations[0], atol=1e-6)
    np.testing.assert_allclose(result["ceiling"], theirs.noise_ceiling, atol=1e-6)


def test_the_result_says_what_made_it_and_is_kept(result, tmp_path):
    assert parameters_of(result)["generalise"] == "both"
    assert [source.get("subject") for source in sources_of(result)] == [1, 2, 5, 1, 1]
    assert result.attrs["seed"] == 0
    xr.testing.assert_identical(open_result(experiments.save(result, tmp_path / "a.nc")), result)


def test_one_subject_generalises_to_stimuli_and_has_no_ceiling():
    found = experiments.rsa(PEOPLE[0], {"high": labelled(HIGH), "low": labelled(LOW)}, n_resamples=100)
    assert parameters_of(found)["generalise"] == "stimuli"
    assert np.isnan(found["ceiling"]).all()
    assert found["p_above_zero"].sel(model="high") < 0.01


def test_cosines_are_above_zero_for_anything_and_are_not_tested_against_it():
    found = experiments.rsa(PEOPLE, {"a": LOW, "b": HIGH}, comparison="cosine", n_resamples=100)
    assert (found["mean"] > 0.5).all()
    assert np.isnan(found["p_above_zero_fdr"]).all()
    assert np.isfinite(found["p_difference"]).all()


def test_dissimilarities_take_the_place_of_responses(result):
    matrices = experiments.rdms({"low": labelled(LOW), "high": labelled(HIGH)})
    models = {name: matrices["dissimilarity"].sel(rdm=name) for name in ("low", "high")}
    found = experiments.rsa(PEOPLE, models, n_resamples=200)
    np.testing.assert_allclose(found["similarity"], result["similarity"], atol=1e-12)
    given = experiments.as_rdm(pdist(HIGH, "correlation"), [f"picture {k}" for k in range(24)])
    np.testing.assert_allclose(given, models["high"], atol=1e-12)


def test_arrays_are_taken_to_be_in_the_order_of_what_has_names(result):
    given = {"low": LOW, "high": experiments.as_rdm(pdist(HIGH, "correlation"))}
    found = experiments.rsa(PEOPLE, given, n_resamples=200)
    np.testing.assert_allclose(found["similarity"], result["similarity"], atol=1e-12)


def test_matrices_are_those_of_scipy_and_crossnobis_takes_repetitions():
    found = experiments.rdms([labelled(LOW, subject=1), labelled(HIGH, subject=2)], measure="cosine")
    np.testing.assert_allclose(found["dissimilarity"][1], squareform(pdist(HIGH, "cosine")), atol=1e-12)
    assert found["rdm"].values.tolist() == ["subject 1", "subject 2"]
    repeats = HIGH + RNG.normal(size=(4, 24, 15))
    dims = ("repetition", "stimulus", "voxel")
    array = xr.DataArray(repeats, {"stimulus": [str(k) for k in range(24)]}, dims)
    for noise in ("independent", "estimated"):
        one = experiments.rdms(array.transpose("stimulus", "voxel", "repetition"), measure="crossnobis", noise=noise)
        other = experiments.rdms({"responses": repeats}, measure="crossnobis", noise=noise)
        np.testing.assert_allclose(one["dissimilarity"], other["dissimilarity"], atol=1e-12)
    brain = experiments.rsa(array, {"high": HIGH}, measure="crossnobis", n_resamples=100)
    assert brain["mean"][0] > 0.5


def test_alignment_is_that_of_every_pair():
    given = {"low": labelled(LOW), "high": labelled(HIGH), "person": PEOPLE[0]}
    found = experiments.cka(given)["cka"]
    arrays = [own["responses"].values for own in given.values()]
    np.testing.assert_allclose(found, [[linear_cka(one, other) for other in arrays] for one in arrays], atol=1e-12)


BAD = {
    "other stimuli": (
        lambda: experiments.rsa(PEOPLE, {"high": labelled(HIGH).assign_coords(stimulus=np.arange(24))}),
        "Stimulus 0 is 'picture 0' in subjects and '0' in models",
    ),
    "another order": (
        lambda: experiments.cka(
            {"a": labelled(LOW), "array": LOW, "b": labelled(HIGH)[{"stimulus": np.arange(24)[::-1]}]}
        ),
        "'picture 0' in responses 'a' and 'picture 23' in responses 'b'",
    ),
    "too few": (
        lambda: experiments.rsa(PEOPLE, {"high": labelled(HIGH[:5])}),
        "subjects has 24 stimuli and models has 5",
    ),
    "no model": (lambda: experiments.rsa(PEOPLE, {}), "No models were given"),
    "no repetitions": (lambda: experiments.rdms(PEOPLE[0], measure="crossnobis"), "In silico responses have none"),
    "another measure": (lambda: experiments.rdms(LOW, measure="manhattan"), "'crossnobis'"),
    "similarities": (lambda: experiments.as_rdm(np.ones((3, 3))), "1 - similarities"),
    "no square": (lambda: experiments.as_rdm(np.ones((3, 4))), r"finite numbers \(stimuli, stimuli\)"),
    "no number of pairs": (lambda: experiments.as_rdm(np.ones(4)), "4 dissimilarities are not all pairs"),
    "other names": (lambda: experiments.as_rdm(np.zeros((3, 3)), ["a"]), "1 names were given for 3"),
    "one subject of many": (lambda: experiments.rsa(LOW, {"a": LOW}, generalise="both"), "generalise='stimuli'"),
    "a level that is none": (lambda: experiments.rsa(LOW, {"a": LOW}, level=95), "between 0 and 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_compared_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InvalidParameterError, match=words):
        call()
