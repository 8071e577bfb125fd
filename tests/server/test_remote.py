"""`berg.remote` against `berg.BERG` on the same machine: the same numbers, labels and errors."""

import warnings

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from server_of_tests import PRF, SPIKES

import berg
from berg import BERG
from berg.core.exceptions import InvalidParameterError, ModelNotFoundError, ServerError, StimulusWarning

PICTURES = np.random.default_rng(0).integers(0, 256, (5, 3, 40, 40), dtype=np.uint8)
SOUND = 0.2 * np.sin(np.arange(4000) / 3)[None]


@pytest.fixture(scope="module")
def here():
    return BERG()


@pytest.mark.parametrize("selection", [None, {"reliable": True}, {"x_deg": [0, None]}, {"voxels": np.arange(5, 50, 3)}])
def test_responses_are_those_of_this_machine(lab, here, selection):
    there = lab.encode(PRF, PICTURES, selection=selection, subject=1)
    np.testing.assert_array_equal(there, here.encode(PRF, PICTURES, selection=selection, subject=1))


def test_a_sound_and_a_window_of_time(lab, here):
    options = {"sampling_rate": 16_000, "selection": {"times": [0.05, 0.1]}, "pascals_per_unit": 1.0}
    there, own = (one.encode(SPIKES, SOUND, labelled=True, **options) for one in (lab, here))
    xr.testing.assert_identical(there, own)
    assert there["rate"].sizes["time"] == 101


def test_labelled_responses_are_identical(lab, here, tmp_path):
    for index, picture in enumerate(PICTURES):
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / f"{index}.png")
    there, own = (one.encode(PRF, tmp_path, labelled=True, size=32, fit="pad") for one in (lab, here))
    xr.testing.assert_identical(there, own)
    assert there.stimulus.values.tolist() == [f"{index}.png" for index in range(5)]


def test_metadata_accuracy_and_lists_are_the_same(lab, here):
    model = lab.get_encoding_model(PRF, subject=1)
    np.testing.assert_equal(model.get_metadata(), here.get_encoding_model(PRF, subject=1).get_metadata())
    np.testing.assert_equal(lab.get_model_metadata(PRF, subject=1), here.get_model_metadata(PRF, subject=1))
    xr.testing.assert_identical(lab.accuracy(PRF, {"reliable": True}), here.accuracy(PRF, {"reliable": True}))
    assert lab.list_models("*prf*") == here.list_models("*prf*") == [PRF]
    assert lab.list_models(modality="EEG") == here.list_models(modality="EEG") != []
    assert lab.list_models(here=True) == here.list_models(here=True)
    assert lab.get_model_catalog() == here.get_model_catalog()
    assert lab.describe(PRF) == here.describe(PRF)
    np.testing.assert_equal(lab.find_models(stimuli="sounds"), here.find_models(stimuli="sounds"))
    assert repr(lab.find_models(roi="V1")) == repr(here.find_models(roi="V1"))


def test_a_store_and_a_file_are_written_here(lab, here, tmp_path):
    with lab.get_encoding_model(PRF) as model:
        stored = lab.encode(model, PICTURES, out=tmp_path / "there.zarr")
    own = here.encode(here.get_encoding_model(PRF), PICTURES, out=tmp_path / "own.zarr")
    xr.testing.assert_equal(stored.load(), own.load())
    assert stored.attrs["weights_sha256"] == own.attrs["weights_sha256"]
    lab.encode(PRF, PICTURES, out=tmp_path / "there.nc")
    with xr.open_dataset(tmp_path / "there.nc") as written:
        np.testing.assert_array_equal(written["responses"], here.encode(PRF, PICTURES))


def told(berg_or_lab, call):
    try:
        call(berg_or_lab)
    except berg.core.exceptions.BERGError as error:
        return type(error), str(error)
    raise AssertionError("nothing was raised")


WRONG = {
    "a model": lambda one: one.encode("fmri-szinte2024-prf", PICTURES),
    "a region": lambda one: one.encode(PRF, PICTURES, selection={"roi": "V5"}),
    "a key": lambda one: one.encode(PRF, PICTURES, selection={"rois": "V1"}),
    "a parameter": lambda one: one.encode(PRF, PICTURES, subjet=1),
    "a value": lambda one: one.get_encoding_model(PRF, stimulus_width_deg=100.0),
    "a subject": lambda one: one.get_encoding_model(PRF, subject=9),
    "a mask": lambda one: one.encode(PRF, PICTURES, selection={"voxels": [0, 1, 0]}),
    "floats": lambda one: one.encode(PRF, PICTURES / 255),
    "channels": lambda one: one.encode(PRF, PICTURES[:, :1]),
    "an empty array": lambda one: one.encode(PRF, PICTURES[:0]),
    "a folder": lambda one: one.encode(PRF, "no-such-folder"),
    "a high picture": lambda one: one.encode(PRF, np.zeros((1, 3, 400, 40), np.uint8)),
    "no rate": lambda one: one.encode(SPIKES, SOUND),
    "a loud sound": lambda one: one.encode(SPIKES, np.full((1, 100), np.nan), sampling_rate=20_000),
    "a size": lambda one: one.encode(PRF, PICTURES, size=20),
    "metadata of nothing": lambda one: one.get_model_metadata("a-b-c"),
    "accuracy": lambda one: one.accuracy(PRF, subject=7),
    "files that are not here": lambda one: one.get_encoding_model("fmri-nsd-fwrf", subject=1, selection={"roi": "V1"}),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_is_of_the_same_type_with_the_same_sentence(case, lab, here):
    assert told(lab, WRONG[case]) == told(here, WRONG[case])


def test_a_warning_about_the_stimuli_comes_along(lab):
    with pytest.warns(StimulusWarning, match="4 pixels per degree"):
        lab.encode(PRF, PICTURES)


def test_a_warning_about_what_is_in_a_sound_comes_along(lab):
    quiet = np.zeros((1, 4000))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        lab.encode(SPIKES, quiet, sampling_rate=20_000)
    assert any("stays below 35 dB" in str(one.message) for one in heard)


REFUSED = {
    "gradients": (lambda lab, model: model.predict(None), "what is differentiated must be here"),
    "a device": (lambda lab, model: lab.get_encoding_model(PRF, device="cuda"), "the server has chosen its own"),
    "familiarity": (lambda lab, model: lab.encode(model, PICTURES, flag=True), "flag= looks into the model"),
    "a cluster": (
        lambda lab, model: lab.encode(PRF, PICTURES, out="x.zarr", scheduler="local:2"),
        "models are on a server",
    ),
    "files": (lambda lab, model: lab.download(PRF), "download is about files on a machine"),
    "other weights": (
        lambda lab, model: __import__("copy").deepcopy(model.loaded_modules()[0]),
        "cannot be copied or changed",
    ),
    "features": (lambda lab, model: model.readout(np.zeros(3)), "features cannot be given to it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_the_weights_here_is_refused(case, lab):
    call, words = REFUSED[case]
    with lab.get_encoding_model(PRF) as model, pytest.raises(InvalidParameterError, match=words):
        call(lab, model)


def test_nobody_at_the_address(client):
    with pytest.raises(ServerError, match="cannot be reached"):
        berg.remote("http://127.0.0.1:9").list_models()
    with pytest.raises(InvalidParameterError, match="is no address of a server"):
        berg.remote("lab:8000")


def test_many_pictures_are_sent_in_parts(lab, here):
    with lab.get_encoding_model(PRF) as model:
        model.part_bytes = PICTURES[0].nbytes
        np.testing.assert_array_equal(model(PICTURES), here.encode(PRF, PICTURES))


def test_a_model_that_is_not_there_is_named(lab):
    with pytest.raises(ModelNotFoundError, match="There is no model 'nothing'"):
        lab.describe("nothing")
