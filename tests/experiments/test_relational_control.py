"""Relational neural control: what is chosen, what is tested, and what is said when there is less than asked for."""

import warnings

import numpy as np
import pytest
import xarray as xr

from berg import experiments
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, StoreMismatchError
from berg.experiments.control_multivariate import difference_test, overlap
from berg.experiments.control_subjects import ControlWarning
from berg.experiments.control_univariate import CONDITIONS, controlling, nearest_to_mean
from berg.experiments.result import open_result, parameters_of, save

NAMES = [f"picture-{number}.png" for number in range(300)]
QUICK = {"n_baseline": 500, "n_permutations": 999, "n_bootstraps": 200, "names": ("V1", "V4")}
QUICK_SETS = {"n_null": 400, "n_bootstraps": 200, "n_pictures": 12, "n_restarts": 3, "names": ("V1", "V4")}


def labelled(values, subject=1, names=NAMES):
    attributes = {"model_id": "fmri-a-b", "subject": subject}
    return xr.Dataset(
        {"responses": (("stimulus", "voxel"), values, {"units": "z"})}, {"stimulus": names[: len(values)]}, attributes
    )


def univariate_subjects(n=3, own=0.2, seed=0, n_pictures=300):
    """Regions whose mean responses are the same in all subjects, but for noise of each subject."""
    rng = np.random.default_rng(seed)
    true = rng.standard_normal((2, n_pictures))
    return [
        [labelled(one[:, None] + own * rng.standard_normal((n_pictures, 1)) + rng.standard_normal((1, 4)), number)
         for number in range(1, n + 1)]
        for one in true
    ]  # fmt: skip


def multivariate_subjects(n=3, seed=0, n_pictures=120, shared=1.0):
    """Regions that share latent variables in all subjects, beside those of their own."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n_pictures, 5))
    return [
        [labelled(shared * common @ rng.standard_normal((5, 30)) + own @ rng.standard_normal((5, 30)), number)
         for number in range(1, n + 1)]
        for own in rng.standard_normal((2, n_pictures, 5))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def univariate():
    return experiments.univariate_control(*univariate_subjects(), n_pictures=8, **QUICK)


@pytest.fixture(scope="module")
def multivariate():
    other = multivariate_subjects(2, seed=0)
    return experiments.multivariate_control(*multivariate_subjects(), under={"other": other}, **QUICK_SETS)


def test_conditions_are_those_of_the_published_script():
    responses = np.array([[3.0, 2.0, -1.0, -2.0, 1.0, 0.03], [1.0, 2.5, -1.0, 1.0, -1.0, 5.0]])
    chosen = {name: controlling(responses, np.zeros(2), name, 2, 0.04).tolist() for name in CONDITIONS}
    assert chosen == {"high_high": [1, 0], "low_low": [2], "high_low": [4], "low_high": [3]}  # 5: within the margin


def test_pictures_are_the_best_that_pass_the_margin_and_have_their_names(univariate):
    means = univariate["mean_response"].values.T
    base = univariate["baseline_score"].sel(left_out="none").values
    passes = (means[0] > base[0] + 0.04) & (means[1] < base[1] - 0.04)
    wanted = sorted(np.flatnonzero(passes), key=lambda at: means[1, at] - means[0, at])[:8]
    chosen = univariate["picture"].sel(left_out="none", condition="high_low")
    assert chosen.values.tolist() == wanted
    assert chosen.dtype == np.int64
    assert univariate["picture_name"].sel(left_out="none", condition="high_low").values.tolist() == [
        NAMES[at] for at in wanted
    ]


def test_the_subject_left_out_has_no_say_in_the_choice_and_is_what_is_tested():
    first, second = univariate_subjects()
    result = experiments.univariate_control(first, second, n_pictures=8, **QUICK)
    first[1], second[1] = (labelled(-one[1]["responses"].values, 2) for one in (first, second))
    turned = experiments.univariate_control(first, second, n_pictures=8, **QUICK)
    for name in ("picture", "baseline_picture"):
        xr.testing.assert_equal(result[name].sel(left_out="2"), turned[name].sel(left_out="2"))
    np.testing.assert_allclose(result["effect"].sel(subject="2"), -turned["effect"].sel(subject="2"))
    assert (turned["p"].sel(subject="2") > 0.9).all()


def test_effect_is_the_mean_over_controlling_minus_that_over_baseline_pictures(univariate):
    first, _ = univariate_subjects()
    chosen, base = (univariate[name].sel(left_out="3") for name in ("picture", "baseline_picture"))
    own = first[2]["responses"].mean("voxel").values
    wanted = own[chosen.sel(condition="low_low")].mean() - own[base.sel(region="V1")].mean()
    found = univariate["effect"].sel(subject="3", condition="low_low", region="V1")
    assert float(found) == pytest.approx(wanted)
    assert univariate["effect"].attrs["units"] == "z"


def test_a_control_that_is_there_is_found_in_all_conditions(univariate):
    assert (univariate["p_between"] < 0.001).all()
    signs = xr.DataArray(list(CONDITIONS.values()), dims=("condition", "region"))
    assert (univariate["effect_low"] * signs > 0).sum() + (univariate["effect_high"] * signs > 0).sum() == 16


def test_the_baseline_is_the_random_set_nearest_to_the_mean():
    values = np.random.default_rng(0).standard_normal((2, 50))
    sets = nearest_to_mean(values, 10, 2000, seed=0)
    assert np.abs(values[0, sets[0]].mean() - values[0].mean()) < 0.001
    assert np.abs(values[1, sets[1]].mean() - values[1].mean()) < 0.001
    assert len(set(sets[0])) == 10


def test_fewer_pictures_than_asked_for_are_said():
    with pytest.warns(ControlWarning, match=r"Fewer than 100 pictures pass the margin .*none/high_high: \d\d"):
        result = experiments.univariate_control(*univariate_subjects(), n_pictures=100, **QUICK)
    n = int(result["n_found"].sel(left_out="none", condition="high_high"))
    chosen = result["picture"].sel(left_out="none", condition="high_high").values
    assert (chosen >= 0).sum() == n < 100
    assert (chosen[n:] == -1).all()
    assert np.isfinite(result["effect"]).all()


def test_a_condition_without_pictures_has_no_test():
    first, second = ([labelled(np.repeat(np.arange(40.0)[:, None], 2, 1), n)] for n in (1, 1))
    first, second = first * 2, second * 2
    with pytest.warns(ControlWarning, match="none/high_low: 0"):
        result = experiments.univariate_control(first, second, n_pictures=5, **QUICK)
    assert result["effect"].sel(condition="high_low").isnull().all()
    assert result["p_between"].sel(condition="high_low").isnull().all()
    assert (result["p_between"].sel(condition="high_high") < 0.01).all()


def test_one_subject_is_not_tested_and_that_is_said():
    first, second = (region[0] for region in univariate_subjects())
    with pytest.warns(ControlWarning, match="nothing is tested"):
        result = experiments.univariate_control(first, second, n_pictures=8, **QUICK)
    assert "effect" not in result
    assert result["left_out"].values.tolist() == ["none"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        experiments.univariate_control(first, second, n_pictures=8, leave_one_out=False, **QUICK)


def test_excluded_pictures_are_never_chosen():
    names = NAMES[:200]
    result = experiments.univariate_control(*univariate_subjects(), n_pictures=8, exclude=names, **QUICK)
    assert result["picture"].min() >= 200
    assert result["baseline_picture"].min() >= 200
    one = experiments.univariate_control(*univariate_subjects(), n_pictures=8, exclude=NAMES[7], **QUICK)
    assert parameters_of(one)["exclude"] == ["picture-7.png"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"second": []}, "second is empty"),
        ({"second": univariate_subjects()[1][:2]}, "first has responses of 3 subjects and second of 2"),
        ({"second": univariate_subjects()[1][::-1]}, r"first\[0\] is of subject 1 and second\[0\] of subject 3"),
        ({"n_pictures": 301}, "There are 300 pictures to choose from, and a set has 301"),
        ({"n_pictures": 0}, "n_pictures is 0"),
        ({"exclude": ["picture-1"]}, "There is no picture 'picture-1'. Did you mean"),
        ({"margin": -1}, "margin is -1"),
        ({"names": ("V1", "V1")}, "give two that differ"),
        ({"alpha": 2}, "must lie between 0 and 1"),
    ],
)
def test_what_does_not_go_together_is_refused(change, words):
    first, second = univariate_subjects()
    with pytest.raises(InvalidParameterError, match=words):
        experiments.univariate_control(**{"first": first, "second": second, **QUICK, **change})


def test_units_that_are_nan_for_some_pictures_are_refused_and_those_that_are_for_all_are_left_out():
    first, second = univariate_subjects()
    values = first[0]["responses"].values
    clean = experiments.univariate_control(first, second, n_pictures=8, **QUICK)
    first[0] = labelled(np.insert(values, 1, np.nan, axis=1), 1)
    xr.testing.assert_equal(experiments.univariate_control(first, second, n_pictures=8, **QUICK), clean)
    first[0]["responses"].values[:5, 1] = 0
    with pytest.raises(InvalidParameterError, match=r"1 of 5 units of first\[0\] are NaN"):
        experiments.univariate_control(first, second, n_pictures=8, **QUICK)


@pytest.mark.slow
def test_univariate_control_of_nothing_is_rarely_significant():
    """Subjects who share no responses: each uncorrected p is uniform, and over subjects the test holds its level."""
    p, between = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        first, second = ([rng.standard_normal((200, 1)) for _ in range(4)] for _ in range(2))
        result = experiments.univariate_control(first, second, n_pictures=10, margin=0.0, **QUICK)
        p.append(result["p"].values.ravel())
        between.append(result["p_between"].values.ravel())
    assert 0.03 < np.mean(np.concatenate(p) < 0.05) < 0.07
    assert np.mean(np.concatenate(between) < 0.05) < 0.05


def test_sets_align_and_disentangle_also_where_they_were_not_searched(multivariate):
    best = multivariate.sel(left_out="none")
    assert float(best["score"].sel(condition="align")) > float(best["null_mean"]) + 3 * float(best["null_sd"])
    assert abs(float(best["score"].sel(condition="disentangle"))) < 1e-3
    held_out = multivariate["held_out_score"].mean(("subject", "restart"))
    assert float(held_out.sel(condition="align")) > float(multivariate["held_out_baseline"].mean()) + 0.2
    assert (multivariate["p_between"] < 0.01).all()
    assert multivariate["is_optimum"].all()


def test_what_is_said_of_the_sets_follows_from_their_pictures(multivariate):
    first, second = multivariate_subjects()
    members = multivariate["picture"].sel(left_out="2", condition="align").values
    below = np.tril_indices(12, -1)

    def pairs(subjects):
        return [
            np.mean([np.corrcoef(one["responses"].values[members]) for one in own], axis=0)[below] for own in subjects
        ]

    others = [[one for one in region if one.attrs["subject"] != 2] for region in (first, second)]
    np.testing.assert_allclose(
        multivariate["pair_similarity"].sel(left_out="2", condition="align"), pairs(others), atol=1e-6
    )
    assert float(multivariate["score"].sel(left_out="2", condition="align")) == pytest.approx(
        np.corrcoef(pairs(others))[0, 1], abs=1e-6
    )
    own = np.corrcoef(pairs([[first[1]], [second[1]]]))[0, 1]
    best = int(multivariate["best_restart"].sel(left_out="2", condition="align"))
    assert float(multivariate["held_out_score"].sel(subject="2", condition="align", restart=best)) == pytest.approx(
        own, abs=1e-6
    )
    sets = multivariate["restart_picture"].sel(left_out="none", condition="disentangle").values
    shared = [len(set(a) & set(b)) / 12 for at, a in enumerate(sets) for b in sets[at + 1 :]]
    assert float(multivariate["overlap"].sel(left_out="none", condition="disentangle")) == pytest.approx(
        np.mean(shared)
    )
    assert float(multivariate["chance_overlap"]) == pytest.approx(12 / 120)
    assert np.isnan(overlap(sets[:1]))


def test_scores_under_another_model_are_of_the_same_sets(multivariate):
    other = multivariate_subjects(2, seed=0)
    members = multivariate["restart_picture"].sel(left_out="none", condition="align")[1].values
    below = np.tril_indices(12, -1)
    x, y = (np.mean([np.corrcoef(one["responses"].values[members]) for one in own], axis=0)[below] for own in other)
    found = multivariate["score_under"].sel(model="other", condition="align")[1]
    assert float(found) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)


def test_the_null_has_the_scores_of_random_sets_and_the_baseline_is_nearest_to_their_mean(multivariate):
    distance = np.abs(multivariate["baseline_score"] - multivariate["null_mean"])
    assert (distance < 0.05 * multivariate["null_sd"]).all()
    rng = np.random.default_rng(0)
    difference, p = difference_test(0.3, 0.1, rng.normal(0.1, 0.1, 20_000), "align")
    assert difference == pytest.approx(0.2)
    assert p == pytest.approx(0.0786, abs=0.01)  # P(N(0, 2 * 0.1**2) > 0.2)
    assert difference_test(-0.3, 0.1, np.zeros(9), "disentangle") == (pytest.approx(0.2), 1.0)


def test_a_search_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    from berg.experiments import control_multivariate

    subjects, file = multivariate_subjects(2), tmp_path / "parts.npz"
    options = {**QUICK_SETS, "n_null": 50}
    whole = experiments.multivariate_control(*subjects, **options)
    search, calls = control_multivariate.exchange_search, []

    def interrupted(*given, **options):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        return search(*given, **options)

    monkeypatch.setattr(control_multivariate, "exchange_search", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiments.multivariate_control(*subjects, resume=file, **options)
    assert {name.partition("/")[0] for name in np.load(file).files} == {"task", "0 align", "0 disentangle", "1 align"}
    calls.clear()
    monkeypatch.setattr(control_multivariate, "exchange_search", lambda *g, **k: calls.append(1) or search(*g, **k))
    resumed = experiments.multivariate_control(*subjects, resume=file, **options)
    assert len(calls) == 3  # of six
    xr.testing.assert_equal(resumed, whole)
    subjects[0][0]["responses"].values[0, 0] += 1
    with pytest.raises(StoreMismatchError, match="other responses or parameters"):
        experiments.multivariate_control(*subjects, resume=file, **options)
    file.write_text("{")
    with pytest.raises(CorruptedFileError, match="no parts that were kept"):
        experiments.multivariate_control(*subjects, resume=file, **options)


def test_random_sets_go_on_where_they_were_interrupted(tmp_path, monkeypatch):
    from berg.experiments import finished_parts, null_sets

    monkeypatch.setattr(finished_parts, "SECONDS", 0.0)
    subjects, options = multivariate_subjects(2), {**QUICK_SETS, "resume": tmp_path / "parts.npz"}
    whole = experiments.multivariate_control(*subjects, **QUICK_SETS)
    score, scored = null_sets.scores_of_folds, []

    def interrupted(regions, sets, is_tested):
        if len(scored) == 4:
            raise KeyboardInterrupt
        scored.append(len(sets))
        return score(regions, sets, is_tested)

    monkeypatch.setattr(null_sets, "scores_of_folds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiments.multivariate_control(*subjects, **options)
    n_kept = np.load(options["resume"])["random sets/scores"].shape[1]
    assert n_kept >= 64
    scored.clear()
    monkeypatch.setattr(null_sets, "scores_of_folds", lambda *given: scored.append(len(given[1])) or score(*given))
    xr.testing.assert_equal(experiments.multivariate_control(*subjects, **options), whole)
    assert sum(scored) == QUICK_SETS["n_null"] - n_kept
    scored.clear()
    experiments.multivariate_control(*subjects, **options)
    assert not scored
    with pytest.raises(StoreMismatchError, match="other responses or parameters"):
        experiments.multivariate_control(*subjects, **{**options, "n_null": 401})


def test_random_sets_score_as_correlations_of_their_pairs_in_every_fold():
    from berg.experiments.null_sets import scores_of_folds
    from berg.experiments.pattern_similarity import pattern_similarity
    from berg.experiments.patterns import patterns

    regions = tuple(
        pattern_similarity([patterns(own, name) for own in subjects], name)
        for name, subjects in zip("xy", multivariate_subjects(3), strict=True)
    )
    sets = np.stack([np.random.default_rng(number).permutation(120)[:9] for number in range(5)])
    found = scores_of_folds(regions, sets, True)
    below = np.tril_indices(9, -1)
    for number, members in enumerate(sets):
        # (region, subject, pair)
        each = np.array(
            [[np.corrcoef(rows[members].astype(float))[below] for rows in region.subjects] for region in regions]
        )
        wanted = [each.mean(1), *(np.delete(each, left_out, 1).mean(1) for left_out in range(3)), *each.swapaxes(0, 1)]
        np.testing.assert_allclose(found[:, number], [np.corrcoef(x, y)[0, 1] for x, y in wanted], atol=1e-6)
    np.testing.assert_allclose(scores_of_folds(regions, sets, False), found[:1], atol=1e-12)


def test_the_published_search_is_there_too():
    result = experiments.multivariate_control(
        *multivariate_subjects(2), search="genetic", generations=3, **{**QUICK_SETS, "n_restarts": 1, "n_null": 50}
    )
    assert result["n_steps"].values.tolist() == [[[3], [3]]] * 3
    assert result["overlap"].isnull().all()  # there is one start
    assert not result["is_optimum"].any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"search": "annealing"}, "search='annealing' is not known"),
        ({"n_pictures": 2}, "sets of at least 3"),
        ({"n_pictures": 120}, "a set has 121"),
        ({"under": {"other": [np.ones((120, 3))]}}, r"under\['other'\] must be two"),
        ({"under": {"other": multivariate_subjects(1, n_pictures=50)}}, "120 stimuli and .* 50"),
    ],
)
def test_what_no_set_can_be_of_is_refused(change, words):
    with pytest.raises(InvalidParameterError, match=words):
        experiments.multivariate_control(*multivariate_subjects(2), **{**QUICK_SETS, **change})


@pytest.mark.slow
def test_multivariate_control_of_nothing_is_rarely_significant():
    """Subjects whose patterns have nothing in common: sets that align in others do so by chance in the one left out."""
    p = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        first, second = ([rng.standard_normal((60, 12)) for _ in range(2)] for _ in range(2))
        result = experiments.multivariate_control(
            first, second, **{**QUICK_SETS, "n_null": 200, "n_restarts": 1, "n_pictures": 8}
        )
        p.append(result["p"].values.ravel())
    assert 0.01 < np.mean(np.concatenate(p) < 0.05) < 0.1  # 240 tests


@pytest.mark.parametrize("kind", ["univariate", "multivariate"])
def test_results_keep_everything_in_their_files_and_have_a_figure(kind, request, tmp_path):
    result = request.getfixturevalue(kind)
    back = open_result(save(result, tmp_path / "a.nc"))
    xr.testing.assert_identical(back, result)
    assert parameters_of(back)["n_pictures"] in (8, 12)
    pictures = np.zeros((parameters_of(back)["n_to_choose_from"], 3, 4, 4), "uint8")
    sheet = experiments.draw(back, pictures=pictures)
    labels = [axes.get_xlabel() for axes in sheet.axes]
    assert any("V1" in label for label in labels)
    assert sum(len(axes.images) for axes in sheet.axes) >= 2 * 8
    with pytest.raises(InvalidParameterError, match="Give all pictures"):
        experiments.draw(back, pictures=pictures[1:])


def test_no_public_function_has_the_name_of_a_file():
    """The file, once imported, would stand where the function is looked for."""
    assert [name for name, file in experiments._WHERE.items() if name == file] == []
