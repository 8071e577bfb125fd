"""From a result to an experiment in vivo, and back."""

import csv
import json
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from berg import experiments
from berg.core.exceptions import InvalidParameterError
from berg.experiments.result import open_result
from berg.experiments.vivo_power import adjusted
from berg.statistics.p_values import benjamini_hochberg

N = 120
NAMES = [f"photo {number}.jpg" for number in range(N)]
QUICK = {"n_bootstraps": 100, "names": ("V1", "V4")}


def labelled(values, names=NAMES, **attributes):
    return xr.DataArray(values, dims=("stimulus", "voxel"), coords={"stimulus": names}, name="r", attrs=attributes)


def subjects(n=3, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.standard_normal((2, N, 1))
    return [[labelled(one + noise * rng.standard_normal((N, 5)), units="z") for _ in range(n)] for one in true]


def pattern_subjects(n=3, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((N, 5))
    return [
        [labelled(common @ rng.standard_normal((5, 30)) + own @ rng.standard_normal((5, 30))) for _ in range(n)]
        for own in rng.standard_normal((2, N, 5))
    ]


@pytest.fixture(scope="module")
def univariate():
    return experiments.univariate_control(*subjects(), n_pictures=10, n_baseline=500, n_permutations=99, **QUICK)


@pytest.fixture(scope="module")
def multivariate():
    return experiments.multivariate_control(*pattern_subjects(), n_pictures=12, n_restarts=2, n_null=200, **QUICK)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (N, 3, 6, 8), dtype="uint8")


@pytest.fixture(scope="module")
def kit(univariate, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit") / "experiment"
    design = experiments.in_vivo_design(univariate, pictures, folder, n_subjects=2, n_repeats=3, n_runs=2, seed=1)
    return folder, design


def events(folder, subject="01"):
    runs = []
    for path in sorted((folder / f"sub-{subject}" / "func").glob("*_events.tsv")):
        with path.open(newline="") as file:
            runs.append(list(csv.DictReader(file, delimiter="\t")))
    return runs


def test_every_picture_is_shown_as_often_as_asked_and_never_twice_in_a_row(kit, univariate):
    folder, _ = kit
    runs = events(folder)
    assert len(runs) == 2
    shown = [row["stim_file"] for run in runs for row in run if row["trial_type"] != "blank"]
    sets = {int(index) for index in np.unique(univariate["picture"].sel(left_out="none"))} | {
        int(index) for index in np.unique(univariate["baseline_picture"].sel(left_out="none"))
    }
    assert sorted({int(name[:6]) for name in shown}) == sorted(sets)
    assert {shown.count(name) for name in shown} == {3}
    assert all(one != other for one, other in pairwise(shown))
    assert sum(row["trial_type"] == "blank" for run in runs for row in run) == pytest.approx(len(shown) / 9, abs=1)
    assert runs[0][0]["trial_type"] != "blank" != runs[0][-1]["trial_type"]
    assert [row["onset"] for row in runs[1][:3]] == ["8", "12", "16"]
    assert shown != [row["stim_file"] for run in events(folder, "02") for row in run if row["trial_type"] != "blank"]


def test_the_type_of_a_trial_names_the_sets_of_its_picture(kit, univariate):
    folder, _ = kit
    whole = univariate.sel(left_out="none")
    for row in (row for run in events(folder) for row in run if row["trial_type"] != "blank"):
        own = int(row["picture"])
        named = {str(name) for name in whole["condition"].values if own in whole["picture"].sel(condition=name)}
        named |= {f"baseline_{name}" for name in ("V1", "V4") if own in whole["baseline_picture"].sel(region=name)}
        assert set(row["trial_type"].split("+")) == named


def test_the_files_are_the_pictures_and_the_folder_says_what_it_is(kit, pictures, univariate):
    folder, _ = kit
    files = sorted((folder / "stimuli").glob("*.png"))
    for file in files:
        index = int(file.name[:6])
        assert file.name == f"{index:06d}_photo-{index}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.moveaxis(pictures[index], 0, -1))
    columns = json.loads((folder / "task-control_events.json").read_text())
    assert set(events(folder)[0][0]) <= set(columns)
    assert json.loads((folder / "dataset_description.json").read_text())["BIDSVersion"]
    assert (folder / "participants.tsv").read_text().split() == ["participant_id", "sub-01", "sub-02"]
    xr.testing.assert_identical(open_result(folder / "result.nc"), univariate)


def test_sets_of_other_results_can_be_shown_too(pictures, multivariate, tmp_path):
    chosen = experiments.driving_pictures(subjects()[0][0], which="both", n_pictures=4)
    for number, (result, types) in enumerate(
        ((multivariate, {"align", "disentangle", "baseline"}), (chosen, {"highest", "lowest"}))
    ):
        design = experiments.in_vivo_design(result, pictures, tmp_path / str(number), datatype="eeg", blank_share=0)
        assert {part for word in design["trial_type"].values.ravel() for part in word.split("+")} == types
    assert list((tmp_path / "0" / "sub-01" / "eeg").iterdir())


def test_files_in_another_order_than_the_responses_are_refused(univariate, pictures, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, picture in zip(NAMES, pictures, strict=True):
        Image.fromarray(np.moveaxis(picture, 0, -1)).save(folder / name)
    files = [folder / name for name in NAMES]
    experiments.in_vivo_design(univariate, files, tmp_path / "right")
    with pytest.raises(InvalidParameterError, match="in the order of the responses"):
        experiments.in_vivo_design(univariate, files[::-1], tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pictures": np.zeros((5, 3, 4, 4), "uint8")}, "There are 5 pictures, and the result is of 120"),
        ({"pictures": np.zeros((N, 3, 4, 4))}, "Pictures are float64"),
        ({"pictures": np.full((N, 3, 4, 4), 300)}, "files hold 0 to 255"),
        ({"task": "my task"}, "letters and digits alone"),
        ({"n_runs": 10_000}, "n_runs is 10000"),
        ({"shown_s": 0}, "shown_s is 0"),
        ({"datatype": "pet"}, "datatype='pet' is not known"),
        ({"folder": "."}, "is there and not empty"),
        ({"result": xr.Dataset(attrs={"experiment": "similarity"})}, "'similarity' has no sets of pictures"),
    ],
)
def test_what_cannot_be_shown_is_refused(change, words, univariate, pictures, tmp_path):
    given = {"result": univariate, "pictures": pictures, "folder": tmp_path / "new", **change}
    with pytest.raises(InvalidParameterError, match=words):
        experiments.in_vivo_design(**given)
    assert not (tmp_path / "new").exists()


def recorded(univariate, noise, n=4, seed=0, null=False):
    """Subjects who see the pictures of the result, under the names of their files, in an order of their own."""
    rng = np.random.default_rng(seed)
    whole = univariate.sel(left_out="none")
    shown = np.unique(np.concatenate([whole["picture"].values.ravel(), whole["baseline_picture"].values.ravel()]))
    shown = rng.permutation(shown)
    names = [f"stimuli/{index:06d}_photo-{index}.png" for index in shown]
    means = 0 * univariate["mean_response"].values if null else univariate["mean_response"].values
    return [
        [
            labelled(means[shown, region][:, None] + noise * rng.standard_normal((len(shown), 3)), names)
            for _ in range(n)
        ]
        for region in (0, 1)
    ]


def test_what_the_models_said_is_found_in_recordings_and_the_effects_are_theirs(univariate):
    compared = experiments.compare(univariate, recorded(univariate, 1e-6), n_permutations=999, n_bootstraps=100)
    for subject in range(4):
        np.testing.assert_allclose(compared["effect"][subject], compared["predicted_effect"], atol=1e-5)
    assert (compared["p_between"] < 1e-4).all()
    np.testing.assert_allclose(compared["picture_r"], 1)
    assert experiments.draw(compared).axes[0].get_ylabel().startswith("Recorded response")


def test_recordings_of_no_effect_are_rarely_significant(univariate):
    p = []
    for seed in range(10):
        recordings = recorded(univariate, 1.0, 6, seed, null=True)
        compared = experiments.compare(univariate, recordings, n_permutations=199, n_bootstraps=2)
        p.append(compared["p"].values.ravel())
    assert 0.02 < np.mean(np.concatenate(p) < 0.05) < 0.08  # of 480


def test_sets_are_compared_by_their_scores(multivariate):
    recordings = pattern_subjects(2)
    compared = experiments.compare(multivariate, recordings, n_permutations=499, n_bootstraps=100)
    members = multivariate["picture"].sel(left_out="none", condition="align").values
    base = multivariate["baseline_picture"].sel(left_out="none").values
    below = np.tril_indices(12, -1)

    def score(members):
        return np.corrcoef([np.corrcoef(region[1].values[members])[below] for region in recordings])[0, 1]

    found = compared["effect"].sel(subject="2", condition="align")
    assert float(found) == pytest.approx(score(members) - score(base), abs=1e-5)
    assert (compared["p"].sel(condition="align") < 0.05).all()
    assert experiments.draw(compared).axes[0].get_ylabel() == "Score of a set (r)"


def test_recordings_without_the_pictures_or_without_names_are_refused(univariate):
    first, second = recorded(univariate, 1.0, 1)
    short = [[region[0][1:]] for region in (first, second)]
    with pytest.raises(InvalidParameterError, match=r"1 of .* pictures of the result were not recorded: photo"):
        experiments.compare(univariate, short)
    for given in (first[0].values, first[0].drop_vars("stimulus")):
        with pytest.raises(InvalidParameterError, match=r"recordings\[0\]\[0\] has no names of stimuli"):
            experiments.compare(univariate, (given, given))
    twice = [[xr.concat([region[0], region[0][:1]], "stimulus")] for region in (first, second)]
    with pytest.raises(InvalidParameterError, match=r"1 of .* are there more than once"):
        experiments.compare(univariate, twice)
    with pytest.raises(InvalidParameterError, match="recordings must be two"):
        experiments.compare(univariate, first)


def test_numbers_are_not_taken_for_names():
    """Rows 0 to 119 of a recording, and pictures 0 to 119 that were chosen from, have nothing to do with each other."""
    first, second = ([own.values for own in region] for region in subjects())
    result = experiments.univariate_control(first, second, n_pictures=5, n_baseline=50, n_permutations=9, **QUICK)
    numbered = [[labelled(own, list(range(N))) for own in region] for region in (first, second)]
    with pytest.raises(InvalidParameterError, match="if these are no mere numbers, or of the files"):
        experiments.compare(result, numbered)
    files = [f"{number:06d}.png" for number in range(N)]
    named = [[labelled(own, files) for own in region] for region in (first, second)]
    assert experiments.compare(result, named, n_permutations=99, n_bootstraps=9).sizes["subject"] == 3


def test_power_grows_with_repeats_and_agreement_and_is_chance_without(univariate):
    options = {"n_experiments": 100, "n_permutations": 199, "n_subjects": [6], "n_repeats": [1, 8]}
    good = experiments.in_vivo_power(univariate, 0.6, agreement=0.6, **options)["power"].mean(("condition", "region"))
    assert float(good.sel(n_repeats=8)[0]) > float(good.sel(n_repeats=1)[0]) + 0.1
    perfect = experiments.in_vivo_power(univariate, 0.9, agreement=1.0, **options)["power"]
    assert (perfect > 0.95).all()
    none = experiments.in_vivo_power(univariate, 0.9, agreement=0.0, **options)["power"]
    assert float(none.mean()) < 0.03


def test_the_noise_of_the_simulation_is_that_of_the_ceiling(univariate):
    """A perfect model's correlation with the mean over repeats is the ceiling that was given."""
    from berg.experiments.vivo_power import _World

    ceiling, n_averaged = 0.7, 3
    ratio = ceiling / np.sqrt(n_averaged * (1 - ceiling**2))
    rng = np.random.default_rng(0)
    signal = rng.standard_normal(200_000)
    measured = signal + rng.standard_normal(200_000) / (ratio * np.sqrt(n_averaged))
    assert np.corrcoef(signal, measured)[0, 1] == pytest.approx(ceiling, abs=0.005)
    world = _World(univariate, np.ones(2), np.full(2, ratio), 9, 0)
    assert world.signal_to_noise.tolist() == [ratio, ratio]


def test_many_families_are_corrected_as_each_by_itself():
    p = np.random.default_rng(0).random((5, 3, 8)) ** 2
    wanted = [[benjamini_hochberg(own) for own in row] for row in p]
    np.testing.assert_allclose(adjusted(p), wanted)


@pytest.mark.parametrize(("ceiling", "agreement", "words"), [(1.0, 0.5, "between 0 and 1"), (0.5, 2, "agreement is 2")])
def test_numbers_that_are_no_correlations_are_refused(univariate, multivariate, ceiling, agreement, words):
    with pytest.raises(InvalidParameterError, match=words):
        experiments.in_vivo_power(univariate, ceiling, agreement=agreement)
    with pytest.raises(InvalidParameterError, match="Give one of univariate_control"):
        experiments.in_vivo_power(multivariate, 0.5)


def test_design_and_power_have_figures(kit, univariate):
    assert experiments.draw(kit[1]).axes[0].get_xlabel() == "Time in the run (s)"
    power = experiments.in_vivo_power(univariate, 0.6, n_experiments=5, n_permutations=19)
    assert len(experiments.draw(power).axes) == 8
