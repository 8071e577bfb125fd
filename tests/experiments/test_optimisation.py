import numpy as np
import pytest
import torch
import xarray as xr
from model_of_pixels import pixel_model

import berg
from berg.core.exceptions import InvalidParameterError, StoreMismatchError
from berg.experiments import draw, finished_parts, optimise
from berg.experiments.generators import Fourier, Pixels
from berg.experiments.objectives import Goal
from berg.experiments.optimisation import SynthesisWarning

PIXELS = 16
RNG = np.random.default_rng(0)
COMMON = RNG.normal(size=(1, 3, PIXELS, PIXELS)) / 10
WEIGHTS = np.concatenate([COMMON, RNG.normal(size=(2, 3, PIXELS, PIXELS)) / 10])
FEW = {"steps": 60, "n_pictures": 2, "learning_rate": 0.2}
pytestmark = pytest.mark.filterwarnings("ignore::berg.experiments.optimisation.SynthesisWarning")


@pytest.fixture(scope="module")
def model():
    return pixel_model(COMMON)


@pytest.fixture(scope="module")
def second_subject():
    return pixel_model(COMMON + 0.05 * np.random.default_rng(3).normal(size=COMMON.shape), subject=2)


@pytest.fixture(scope="module")
def reference():
    coarse = np.random.default_rng(4).integers(0, 256, (40, 3, 4, 4), np.uint8)
    return coarse.repeat(4, 2).repeat(4, 3)


def test_the_best_picture_of_a_linear_unit_is_white_where_its_weights_are_positive(model, second_subject, reference):
    found = optimise(model, parametrisation="pixel", reference=reference, verify=[second_subject], steps=150,
                     learning_rate=0.3, n_pictures=2)  # fmt: skip
    best = np.where(COMMON[0] > 0, 255, 0)
    assert np.mean(np.abs(found.picture.values - best) < 30) > 0.8
    assert found.picture.dtype == np.uint8
    responses = model(found.picture.values)[:, 0]
    np.testing.assert_allclose(found.response[:, 0], responses, rtol=1e-6)
    means = model(reference)[:, 0].astype(np.float64)
    np.testing.assert_allclose(found.score, (responses - means.mean()) / means.std(), rtol=1e-5)
    assert found.share.values.tolist() == [1, 1]
    assert found.is_believed.all()
    assert "drop" in found.attrs["summary"]
    assert draw(found).axes


@pytest.mark.parametrize("parametrisation", ["fourier", "pixel", "blurred"])
@pytest.mark.parametrize("objective", ["maximise", "minimise"])
def test_every_parametrisation_drives_more_than_any_reference_picture(model, reference, parametrisation, objective):
    found = optimise(model, objective, parametrisation=parametrisation, reference=reference, verify=(), **FEW)
    assert (found.share == 1).all()
    assert found.curve[:, -1].mean() > found.curve[:, 0].mean()
    if parametrisation == "blurred":
        np.testing.assert_allclose(found.rms_contrast, 0.2, atol=0.03)


def test_a_pattern_is_matched_also_that_of_a_picture(reference):
    model, other = pixel_model(WEIGHTS), pixel_model(WEIGHTS, subject=2)
    target = model(reference)[7]
    for given in (target, reference[7]):
        found = optimise(model, "match", target=given, reference=reference, verify=[other], **FEW | {"steps": 200})
        assert (found.score > -0.05).all()
        np.testing.assert_allclose(found.response[0], target, atol=0.3 * model(reference).std(0).max())
        assert found.is_believed.all()


def test_one_is_driven_and_the_other_is_not(reference):
    a, b = pixel_model(WEIGHTS[1:2]), pixel_model(WEIGHTS[2:3], subject=2)
    z = {}
    for objective in ("contrast", "controversial"):
        found = optimise(a, objective, against=b, reference=reference, verify=(), **FEW)
        z[objective] = [
            ((own(found.picture.values) - own(reference).mean()) / own(reference).std()).mean() for own in (a, b)
        ]
        assert z[objective][0] > 2 > -2 > z[objective][1]
        assert (found.share == 1).all()
    assert np.isclose(found.score.mean(), min(z["controversial"][0], -z["controversial"][1]), atol=0.5)


def test_what_another_model_does_not_believe_is_marked(model, reference):
    contrary = pixel_model(-COMMON, subject=2)
    with pytest.warns(SynthesisWarning, match="DOES NOT BELIEVE 2 of 2"):
        found = optimise(model, reference=reference, verify=[contrary], **FEW)
    assert not found.is_believed.any()
    with pytest.warns(SynthesisWarning, match="NOT VERIFIED"):
        optimise(model, reference=reference, **FEW | {"steps": 2})
    with pytest.raises(InvalidParameterError, match="cannot verify them"):
        optimise(model, reference=reference, verify=[model], **FEW | {"steps": 2})


class Decoder:
    """A small generator: eight codes, each a picture that is added."""

    code_size = 8

    def __init__(self, differentiable=True):
        self.pictures = torch.from_numpy(np.random.default_rng(5).normal(size=(8, 3 * PIXELS**2))).float()
        self.differentiable = differentiable

    def __call__(self, codes):
        made = (codes @ self.pictures).sigmoid().reshape(-1, 3, PIXELS, PIXELS)
        return made if self.differentiable else made.detach()


@pytest.mark.parametrize("search", ["gradient", "evolution"])
def test_a_generator_is_followed_by_gradient_and_by_evolution(model, reference, search):
    found = optimise(model, generator=Decoder(search == "gradient"), search=search, reference=reference, verify=(),
                     steps=40, n_pictures=2, population=24, learning_rate=0.1)  # fmt: skip
    assert found.curve[:, -1].mean() > found.curve[:, 0].mean() + 0.5
    # the picture that each of many random codes makes is worse than what was found
    random = Decoder()(torch.from_numpy(np.random.default_rng(6).normal(size=(200, 8))).float())
    assert found.response.mean() > model((255 * random).round().byte().numpy()).max()


def test_a_model_of_a_class_of_its_own_evolves(reference):
    class Brightness:
        def generate_response(self, stimulus):
            return np.asarray(stimulus, np.float32).mean((1, 2, 3))[:, None]

        def get_model_id(self):
            return "own"

    options = {"reference": reference, "pixels": PIXELS, "verify": (), "steps": 30, "n_pictures": 1}
    found = optimise(Brightness(), search="evolution", **options)
    assert float(found.share[0]) == 1
    with pytest.raises(InvalidParameterError, match="must be a loaded model, got Brightness"):
        optimise(Brightness(), **options)
    with pytest.raises(InvalidParameterError, match="cannot be differentiated"):
        optimise(pixel_model(COMMON), generator=Decoder(False), reference=reference, **FEW)


def test_batches_and_numbers_of_pictures_do_not_change_a_picture(model, reference):
    options = {"reference": reference, "verify": (), "steps": 8, "parametrisation": "pixel"}
    four = optimise(model, n_pictures=4, batch_size=4, **options)
    np.testing.assert_array_equal(optimise(model, n_pictures=4, batch_size=3, **options).picture, four.picture)
    np.testing.assert_array_equal(optimise(model, n_pictures=2, **options).picture, four.picture[:2])
    assert len(np.unique(four.score)) == 4
    assert not np.array_equal(optimise(model, n_pictures=2, seed=1, **options).picture, four.picture[:2])


def test_the_search_stops_when_nothing_gets_better(reference):
    constant = pixel_model(np.zeros((1, 3, PIXELS, PIXELS)))
    found = optimise(constant, reference=reference, verify=(), steps=500, patience=5, n_pictures=2)
    assert found.n_steps.values.tolist() == [6, 6]
    evolved = optimise(
        constant, reference=reference, verify=(), steps=500, patience=5, n_pictures=1, search="evolution"
    )
    assert evolved.n_steps.values.tolist() == [6]


@pytest.mark.parametrize("search", ["gradient", "evolution"])
def test_a_search_goes_on_where_it_was_interrupted(model, reference, search, tmp_path, monkeypatch):
    monkeypatch.setattr(finished_parts, "SECONDS", 0.0)
    options = {"reference": reference, "verify": (), "steps": 12, "n_pictures": 3, "batch_size": 2, "search": search,
               "population": 8, "resume": tmp_path / "search.npz"}  # fmt: skip
    if search == "gradient":
        options |= {"jitter": 2}
    whole = optimise(model, **options | {"resume": None})
    method = "of_pictures" if search == "gradient" else "of_integers"
    score, calls = getattr(Goal, method), []

    def interrupted(goal, pictures):
        calls.append(1)
        if len(calls) == 17:  # in the second batch or evolution
            raise KeyboardInterrupt
        return score(goal, pictures)

    monkeypatch.setattr(Goal, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimise(model, **options)
    resumed = optimise(model, **options)
    assert len(calls) == 17 + (8 if search == "gradient" else 8 + 12 + 1)
    for name in ("picture", "score", "curve", "n_steps"):
        xr.testing.assert_identical(resumed[name], whole[name])
    calls.clear()
    xr.testing.assert_identical(optimise(model, **options).picture, whole.picture)
    assert len(calls) == (0 if search == "gradient" else 1)  # the scores of the integers
    other = pixel_model(-COMMON, subject=2)
    for changed in ({"seed": 1}, {"steps": 13}, {"parametrisation": "pixel"}, {"reference": reference[::-1][:20]}):
        with pytest.raises(StoreMismatchError, match="other responses or parameters"):
            optimise(model, **options | changed)
    with pytest.raises(StoreMismatchError, match="other responses or parameters"):
        optimise(other, **options)


def test_outside_of_the_aperture_is_grey(model, reference):
    found = optimise(model, reference=reference, verify=(), width_deg=4, aperture_deg=(1, 1, 0.6), **FEW)
    picture = found.picture[0].values
    inside = np.zeros((PIXELS, PIXELS), bool)
    inside[1:7, 9:15] = True  # above and to the right of fixation
    assert np.ptp(picture[:, ~inside], axis=None) <= 1
    assert np.ptp(picture[:, inside]) > 50
    with pytest.raises(InvalidParameterError, match="lies outside the picture"):
        optimise(model, width_deg=4, aperture_deg=(9, 9, 1), reference=reference)


def test_pictures_move_no_more_than_a_part_of_the_receptive_field(model, reference):
    v1 = berg.load("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.82})
    smallest = float(v1.labels()["responses"]["coordinates"]["size_deg"][1].min())
    found = optimise(v1, steps=2, n_pictures=1, pixels=64, verify=())
    assert f'"jitter": {int(smallest / 4 * 6.4)}' in found.attrs["parameters"]
    with pytest.raises(InvalidParameterError, match="may be at most"):
        optimise(v1, jitter=6, pixels=64)
    known = {"receptive_field_deg": 1.0, "width_deg": 4, "reference": reference, "verify": ()}
    assert '"jitter": 1' in optimise(model, **known, **FEW).attrs["parameters"]
    assert '"jitter": 0' in optimise(model, reference=reference, verify=(), **FEW).attrs["parameters"]
    assert (optimise(model, jitter=3, reference=reference, verify=(), **FEW).share == 1).all()


def test_normal_codes_make_pictures_whose_values_spread_and_fall_as_one_over_f():
    pictures = Fourier((64, 64))(
        torch.randn(8, Fourier((64, 64)).code_size, generator=torch.Generator().manual_seed(0))
    )
    assert pictures.shape == (8, 3, 64, 64)
    assert 0.08 < float(pictures.std()) < 0.3
    power = (np.abs(np.fft.rfft2(pictures.logit().mean(1).numpy())) ** 2).mean(0)
    slope = np.polyfit(np.log(np.arange(2, 30)), np.log(power[0, 2:30]), 1)[0]
    assert -2.5 < slope < -1.5
    few = Fourier((64, 64), most_cycles=4)
    smooth = np.abs(np.fft.rfft2(few(torch.randn(1, few.code_size)).logit()[0, 0].numpy()))
    assert smooth[10, 10] < 1e-3 < smooth[2, 2]
    assert Pixels((2, 3)).code_size == 18


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "maximize"}, "Did you mean 'maximise'"),
        ({"objective": "contrast"}, "needs a second model"),
        ({"objective": "match"}, "needs target="),
        ({"target": np.ones(1)}, "takes no target"),
        ({"parametrisation": "furier"}, "Did you mean 'fourier'"),
        ({"search": "random"}, "there are gradient and evolution"),
        ({"steps": 0}, "all are positive"),
        ({"pixels": 20}, "takes 16 x 16"),
        ({"rms_contrast": 0.9}, "between 0 and 0.5"),
        ({"generator": len}, "must be a function from codes"),
        ({"reference": np.zeros((2, 3, 16, 16), np.uint8)}, "at least 10 pictures"),
        ({"verify": "all"}, "list of loaded models"),
        ({"search": "evolution", "jitter": 1}, "does not move pictures"),
    ],
)
def test_what_cannot_be_made_is_refused(model, reference, options, words):
    with pytest.raises(InvalidParameterError, match=words):
        optimise(model, **{"reference": reference, "n_pictures": 1, "steps": 2, **options})
