"""Options of BERG.encode: sizes, files, and names that nothing takes."""

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from berg import BERG, load, load_images
from berg.core.exceptions import InvalidParameterError
from berg.responses.formats import FORMATS

V1 = "fmri-szinte2024-prf_css"
BLACK = np.zeros((2, 3, 320, 320), np.uint8)


@pytest.fixture(scope="module")
def model():
    return load(V1, selection={"min_held_out_r2": 0.7}, device="cpu")


@pytest.fixture
def files(tmp_path):
    draw = np.random.default_rng(0)
    for name, shape in (("a.png", (400, 330, 3)), ("b.png", (320, 500, 3))):
        Image.fromarray(draw.integers(0, 256, shape).astype("uint8")).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("fit", ["center_crop", "squash", "pad", None])
def test_pictures_are_brought_to_a_size_as_load_images_does(fit, files, model):
    how = {} if fit is None else {"fit": fit}
    expected = model(load_images(files, 320, **how))
    np.testing.assert_allclose(BERG().encode(model, files, size=320, **how), expected, rtol=1e-6)
    opened = [Image.open(files / name) for name in ("a.png", "b.png")]
    np.testing.assert_allclose(BERG().encode(model, opened, size=320, **how), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("stimulus", "options", "words"),
    [
        (BLACK, {"size": 64}, "size=64 is for pictures in files and for PIL images, got ndarray"),
        (BLACK, {"fit": "pad"}, "fit='pad' is how pictures are brought to a size; give that too"),
    ],
)
def test_a_size_that_cannot_be_had_is_refused(stimulus, options, words, model):
    with pytest.raises(InvalidParameterError, match=words):
        BERG().encode(model, stimulus, **options)


@pytest.mark.parametrize(
    ("wrong", "meant"), [("labeled", "labelled"), ("batchsize", "batch_size"), ("progress", "show_progress")]
)
@pytest.mark.parametrize("by", ["id", "model", "several", "store"])
def test_an_unknown_option_is_told_the_nearest(wrong, meant, by, model, tmp_path):
    which = {"id": V1, "several": [model, model]}.get(by, model)
    more = {"out": tmp_path / "r.zarr"} if by == "store" else {}
    with pytest.raises(InvalidParameterError, match=f"no option '{wrong}'. Did you mean '{meant}'"):
        BERG().encode(which, BLACK, **{wrong: 1}, **more)
    assert not [*tmp_path.iterdir()]


def test_a_parameter_of_the_model_is_an_option_of_its_id():
    with pytest.raises(InvalidParameterError, match="Did you mean 'stimulus_width_deg'"):
        BERG().encode(V1, BLACK, stimulus_width=8)


FITS = [".nc", ".npz", ".npy", ".csv", ".mat"]


@pytest.mark.parametrize("ending", FITS)
def test_responses_are_written_to_a_file_and_returned(ending, model, tmp_path):
    out = tmp_path / f"r{ending}"
    labelled = BERG().encode(model, BLACK, out=out)
    assert out.stat().st_size > 0
    np.testing.assert_array_equal(labelled["responses"], model(BLACK))
    if ending == ".nc":
        with xr.open_dataset(out, engine="h5netcdf") as read:
            np.testing.assert_array_equal(read["responses"], labelled["responses"])


@pytest.mark.parametrize("ending", [ending for ending in FORMATS if ending not in FITS])
def test_an_ending_that_does_not_fit_is_refused_and_nothing_is_written(ending, model, tmp_path):
    with pytest.raises(InvalidParameterError, match=f"do not fit into .*{ending}"):
        BERG().encode(model, BLACK, out=tmp_path / f"r{ending}")
    assert not [*tmp_path.iterdir()]


def test_a_file_that_is_there_is_replaced_only_if_asked(model, tmp_path):
    out = tmp_path / "r.npy"
    out.write_bytes(b"mine")
    with pytest.raises(InvalidParameterError, match=r"is there already.*overwrite=True"):
        BERG().encode(model, BLACK, out=out)
    assert out.read_bytes() == b"mine"
    BERG().encode(model, BLACK, out=out, overwrite=True)
    np.testing.assert_array_equal(np.load(out), model(BLACK))


def test_a_file_holds_one_model(model, tmp_path):
    with pytest.raises(InvalidParameterError, match=r"can hold one model\. Give out='NAME\.zarr'"):
        BERG().encode([model, model], BLACK, out=tmp_path / "r.nc")
