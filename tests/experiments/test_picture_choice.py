import numpy as np
import pytest
import xarray as xr

from berg import experiments
from berg.core.exceptions import InvalidParameterError
from berg.experiments.picture_choice import exchanged, ranked

RNG = np.random.default_rng(0)
RESPONSES, OTHERS = RNG.standard_normal((200, 6)), 3 * RNG.standard_normal((200, 4))


def test_the_most_and_least_driving_pictures_are_those_of_a_sort():
    result = experiments.driving_pictures(RESPONSES, which="both", n_pictures=7)
    order = np.argsort(RESPONSES.mean(axis=1))
    assert result["picture"].sel(condition="highest").values.tolist() == order[::-1][:7].tolist()
    assert result["picture"].sel(condition="lowest").values.tolist() == order[:7].tolist()
    np.testing.assert_allclose(result["score"].sel(condition="lowest"), RESPONSES.mean(axis=1)[order[:7]])
    assert int(result["count"].sum()) == 200
    assert result["picture_name"].values[0, 0] == str(order[-1])


@pytest.mark.parametrize("standardise", [False, True])
def test_a_contrast_is_the_difference_of_means(standardise):
    result = experiments.driving_pictures(RESPONSES, minus=OTHERS, n_pictures=5, standardise=standardise)
    sides = [responses.mean(axis=1) for responses in (RESPONSES, OTHERS)]
    if standardise:
        sides = [(side - side.mean()) / side.std() for side in sides]
    assert result["picture"].values[0].tolist() == np.argsort(sides[1] - sides[0])[:5].tolist()


@pytest.mark.parametrize("measure", ["correlation", "cosine", "euclidean"])
def test_more_like_this_is_the_nearest_pattern_and_not_the_picture_itself(measure):
    result = experiments.similar_pictures(RESPONSES, like=3, measure=measure, n_pictures=4)
    target = RESPONSES[3]
    wanted = {
        "correlation": [np.corrcoef(row, target)[0, 1] for row in RESPONSES],
        "cosine": RESPONSES @ target / np.linalg.norm(RESPONSES, axis=1) / np.linalg.norm(target),
        "euclidean": -np.linalg.norm(RESPONSES - target, axis=1) / np.sqrt(6),
    }[measure]
    assert result["picture"].values[0].tolist() == np.argsort(wanted)[::-1][1:5].tolist()
    nearest = np.sort(wanted)[::-1][1:5]
    np.testing.assert_allclose(result["score"].values[0], -nearest if measure == "euclidean" else nearest)


def test_more_like_several_pictures_or_a_pattern():
    several = experiments.similar_pictures(RESPONSES, like=[3, 5], n_pictures=4)
    pattern = experiments.similar_pictures(RESPONSES, like=RESPONSES[[3, 5]].mean(axis=0), exclude=[3, 5], n_pictures=4)
    np.testing.assert_array_equal(several["picture"], pattern["picture"])
    assert not {3, 5} & set(several["picture"].values.ravel())


def test_sets_reach_the_mean_and_the_spread_and_share_no_picture():
    targets = {"low": (-0.3, 0.05), "high": (0.3, 0.05), "wide": (0.0, 0.6)}
    result = experiments.matched_sets(RESPONSES, targets, n_pictures=10, seed=1)
    means = RESPONSES.mean(axis=1)
    for name, (mean, sd) in targets.items():
        own = means[result["picture"].sel(condition=name).values]
        assert (own.mean(), own.std(ddof=1)) == (pytest.approx(mean, abs=0.01), pytest.approx(sd, abs=0.01))
        np.testing.assert_allclose(result["reached"].sel(condition=name), [own.mean(), own.std(ddof=1)])
    assert len(np.unique(result["picture"])) == 30


def test_each_exchange_is_the_best_of_all():
    values = np.random.default_rng(1).standard_normal(15)
    start, (mean, sd) = np.array([1, 4, 12]), (0.4, 0.2)

    def distance(members):
        return (values[members].mean() - mean) ** 2 + (values[members].std(ddof=1) - sd) ** 2

    every = [np.where(start == old, new, start) for old in start for new in set(range(15)) - set(start)]
    assert sorted(exchanged(values, start, mean, sd, 1)) == sorted(min(every, key=distance))


def test_of_equal_scores_the_first_pictures_are_taken():
    assert ranked(np.array([1.0, 2, 2, 2, 0]), np.arange(5), 2, lowest=False).tolist() == [1, 2]
    assert ranked(np.array([1.0, 2, 2, 2, 0]), np.array([0, 3, 4]), 2, lowest=True).tolist() == [4, 0]


class OnDisk:
    """Responses that count how many rows are asked for at once."""

    def __init__(self, values):
        self.values, self.shape, self.most = values, values.shape, 0

    def __getitem__(self, rows):
        found = self.values[rows]
        self.most = max(self.most, len(found))
        return found


def test_responses_are_read_in_blocks(monkeypatch):
    from berg.experiments import picture_choice
    from berg.experiments.patterns import Patterns

    monkeypatch.setattr("berg.experiments.patterns._BLOCK_BYTES", 8 * 6 * 16)
    stored = OnDisk(RESPONSES)
    names = tuple(map(str, range(200)))
    monkeypatch.setattr(picture_choice, "patterns", lambda given, what: Patterns((given,), names, {}))
    for result, whole in (
        (
            experiments.driving_pictures(stored, n_pictures=5),
            experiments.driving_pictures(OnDisk(RESPONSES), n_pictures=5),
        ),
        (
            experiments.similar_pictures(stored, "3", n_pictures=5),
            experiments.similar_pictures(stored, 3, n_pictures=5),
        ),
    ):
        xr.testing.assert_identical(result["picture"], whole["picture"])
    assert stored.most == 16


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: experiments.driving_pictures(RESPONSES, which="most"), "which='most' is not known"),
        (lambda: experiments.driving_pictures(RESPONSES, n_pictures=201), "200 pictures to choose from"),
        (
            lambda: experiments.driving_pictures(RESPONSES, minus=OTHERS[:5]),
            "responses has 200 stimuli and minus has 5",
        ),
        (
            lambda: experiments.driving_pictures(RESPONSES, minus=np.ones((200, 2)), standardise=True),
            "the same for all pictures",
        ),
        (lambda: experiments.similar_pictures(RESPONSES, "cat"), "There is no picture 'cat'"),
        (lambda: experiments.similar_pictures(RESPONSES, 200), "number from 0 to 199"),
        (lambda: experiments.similar_pictures(RESPONSES, []), "like is empty"),
        (lambda: experiments.similar_pictures(RESPONSES, np.ones(5)), r"like has shape \(5,\)"),
        (lambda: experiments.similar_pictures(RESPONSES, np.ones(6)), "the same in all units"),
        (lambda: experiments.similar_pictures(np.vstack([RESPONSES, [np.nan] * 6]), 0), "Responses to '200' are NaN"),
        (lambda: experiments.matched_sets(RESPONSES, {}), "targets is empty"),
        (lambda: experiments.matched_sets(RESPONSES, {"a": (0, -1)}), "give mean and SD"),
        (lambda: experiments.matched_sets(RESPONSES, {"a": (9, 1)}), "lies outside the responses"),
        (lambda: experiments.matched_sets(RESPONSES, {"a": (0, 1), "b": (0, 1)}, n_pictures=101), "a set has 202"),
    ],
)
def test_what_cannot_be_chosen_is_refused(call, words):
    with pytest.raises(InvalidParameterError, match=words):
        call()


def test_the_figure_shows_the_scores_of_all_and_the_pictures_chosen():
    result = experiments.driving_pictures(RESPONSES, which="both", n_pictures=6)
    sheet = experiments.draw(result, pictures=np.zeros((200, 3, 4, 4), "uint8"))
    assert sheet.axes[0].get_xlabel() == "Mean response"
    assert [len(axes.images) for axes in sheet.axes] == [0, 12]
