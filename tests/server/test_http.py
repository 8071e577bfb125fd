"""What the server answers over HTTP, by a client that knows nothing of BERG."""

import base64
import io
import json

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from server_of_tests import PRF, SPIKES, error

from berg import BERG
from berg.core.model_registry import get_available_models
from berg.server import contract


def png(side=48, seed=0):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file))).transpose(2, 0, 1)[None]


def test_every_model_is_described_as_the_contract_says(client):
    found = contract.ModelList.model_validate_json(client.get("/api/models").data)
    assert [own.id for own in found.models] == sorted(get_available_models())
    for own in found.models:
        described = contract.ModelDescription.model_validate_json(client.get(f"/api/models/{own.id}").data)
        assert described.outputs
        assert described.limitations
        assert described.drawings


DRAWINGS = {
    PRF: "visual_field",
    SPIKES: "rate",
    "fmri-nsd_fsaverage-vit_b_32": "cortex",
    "eeg-things_eeg_2-vit_b_32": "scalp",
    "meg-things_meg_1-vit_b_32": "scalp",
}


def test_what_can_be_drawn_is_said_beforehand(client):
    models = json.loads(client.get("/api/models").data)["models"]
    found = {own["id"]: own["drawings"][0] for own in models}
    assert {model_id: found[model_id] for model_id in DRAWINGS} == DRAWINGS


def test_a_picture_has_the_responses_of_python_and_their_places(client):
    answer = client.encode([("face.png", png())], model=PRF, selection={"reliable": True})
    found = contract.Answer.model_validate_json(answer.data)
    expected = BERG().encode(PRF, pixels(png()), selection={"reliable": True}, labelled=True)
    (output,) = found.outputs
    np.testing.assert_array_equal(np.float32(output.values).reshape(output.shape), expected["responses"])
    for name in ("x_deg", "y_deg", "size_deg", "roi", "held_out_r"):
        assert output.coordinates[name].values == expected[name].values.tolist()
    assert output.coordinates["x_deg"].unit == "deg"
    assert output.unit == "BOLD amplitude"
    assert output.accuracy == output.coordinates["held_out_r"]
    assert found.stimuli == output.coordinates["stimulus"].values == ["face.png"]
    assert [drawing.kind for drawing in found.drawings] == ["visual_field", "bars"]
    assert found.drawings[0].width_deg == 10.0
    assert found.drawings[1].regions[0].mean == [pytest.approx(expected["responses"].mean().item(), rel=1e-5)]
    assert any("pixels per degree" in text for text in found.warnings)


def test_the_python_of_an_answer_gives_its_responses(client, tmp_path, monkeypatch):
    (tmp_path / "é a'b.png").write_bytes(png())
    answer = client.encode([("é a'b.png", png())], model=PRF, parameters={"stimulus_width_deg": 8.0}, size=32)
    found = json.loads(answer.data)
    monkeypatch.chdir(tmp_path)
    known = {}
    exec(found["python"], known)
    np.testing.assert_array_equal(np.ravel(known["responses"]["responses"]), np.float32(found["outputs"][0]["values"]))


@pytest.mark.parametrize("numbers", ["list", "base64"])
def test_numbers_as_lists_and_as_bytes(client, numbers):
    output = json.loads(client.encode([("a.png", png())], model=PRF, numbers=numbers).data)["outputs"][0]
    found = output["values"] if numbers == "list" else np.frombuffer(base64.b64decode(output["values_base64"]), "<f4")
    np.testing.assert_array_equal(np.float32(found)[None], BERG().encode(PRF, pixels(png())))


def test_a_netcdf_file(client, tmp_path):
    answer = client.encode([("a.png", png()), ("b.png", png(seed=1))], model=PRF, format="nc")
    (tmp_path / "responses.nc").write_bytes(answer.data)
    with xr.open_dataset(tmp_path / "responses.nc") as found:
        expected = BERG().encode(PRF, np.concatenate([pixels(png()), pixels(png(seed=1))]), labelled=True)
        np.testing.assert_array_equal(found["responses"], expected["responses"])
        assert found.stimulus.values.tolist() == ["a.png", "b.png"]
    assert answer.headers["content-type"] == "application/x-netcdf"
    assert "pixels per degree" in json.loads(answer.headers["berg-warnings"])[0]


def test_an_archive_of_arrays(client):
    answer = client.encode([("a.png", png())], model=PRF, format="npz")
    with np.load(io.BytesIO(answer.data)) as found:
        np.testing.assert_array_equal(found["responses"], BERG().encode(PRF, pixels(png())))
        assert found["responses.x_deg"].shape == (2308,)


def test_a_sound_has_its_rate_in_time(client, tmp_path):
    from scipy.io import wavfile

    sound = (3000 * np.sin(np.arange(4000) / 3)).astype("int16")
    wavfile.write(tmp_path / "tone.wav", 20_000, sound)
    answer = client.encode([("tone.wav", (tmp_path / "tone.wav").read_bytes())], model=SPIKES)
    found = contract.Answer.model_validate_json(answer.data)
    expected = BERG().encode(SPIKES, [tmp_path / "tone.wav"], labelled=True)
    assert found.outputs[0].axes == ["stimulus", "unit", "time"]
    assert found.outputs[0].unit == "spikes/s"
    np.testing.assert_array_equal(np.float32(found.outputs[0].values), np.ravel(expected["rate"]))
    np.testing.assert_array_equal(found.outputs[0].coordinates["time"].values, expected["time"])
    assert [drawing.kind for drawing in found.drawings] == ["rate"]


def test_a_picture_without_a_name_is_known_by_its_type(client):
    answer = client.encode([("blob", png(), "image/png")], model=PRF)
    assert json.loads(answer.data)["stimuli"] == ["blob"]


def test_the_accuracy_of_regions(client):
    found = json.loads(client.get(f"/api/models/{PRF}/accuracy?subject=1").data)
    expected = BERG().accuracy(PRF, subject=1)["held_out_r"]
    assert found["median"] == pytest.approx(float(expected.median()))
    assert found["regions"] == [{"name": "V1", "n_units": 2308, "median": found["median"]}]
    assert error(client.get(f"/api/models/{PRF}/accuracy?subject=9"))[0] == "InvalidParameterError"


def test_the_mesh_of_the_cortex(client):
    found = contract.Meshes.model_validate_json(client.get("/api/meshes/fsaverage5").data)
    left = found.hemispheres["lh"]
    faces = np.frombuffer(base64.b64decode(left.faces_base64), "<i4").reshape(-1, 3)
    assert left.n_vertices == 10_242 == faces.max() + 1
    assert len(faces) == left.n_faces == 2 * 10_242 - 4  # of a sphere (Euler)


WRONG = {
    "no model": ({}, 422, "InvalidParameterError", "The request's model is wrong: Field required"),
    "an unknown model": ({"model": "fmri-szinte"}, 404, "ModelNotFoundError", "There is no model 'fmri-szinte'"),
    "a key": ({"model": PRF, "selektion": {}}, 422, "InvalidParameterError", "Did you mean 'selection'"),
    "a region": ({"model": PRF, "selection": {"roi": "V5"}}, 422, "InvalidParameterError", "Did you mean 'V1'"),
    "a device": (
        {"model": PRF, "parameters": {"device": "cuda"}},
        422,
        "InvalidParameterError",
        "chosen by the server",
    ),
    "a fit": ({"model": PRF, "fit": "pad"}, 422, "InvalidParameterError", "give that too: size=224"),
    "no such size": ({"model": PRF, "size": 0}, 422, "InvalidParameterError", "a number of pixels from 1"),
    "names": ({"model": PRF, "names": ["a", "b"]}, 422, "InvalidParameterError", "2 names were given for 1 stimuli"),
    "sounds, not pictures": ({"model": SPIKES}, 422, "StimulusError", "a.png is no file that this model takes"),
    "not here": (
        {"model": "eeg-things_eeg_2-vit_b_32", "parameters": {"subject": 1}},
        409,
        "MissingFileError",
        "berg download eeg-things_eeg_2-vit_b_32 --subject 1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_told_what_is_wrong(client, case):
    request, status, kind, words = WRONG[case]
    answer = client.encode([("a.png", png())], **request)
    assert answer.status == status
    assert error(answer)[0] == kind
    assert words in error(answer)[1]
    contract.ErrorAnswer.model_validate_json(answer.data)


def test_a_form_that_is_none(client):
    for options in (
        {"fields": {"q": "1"}},
        {"body": b"{}"},
        {"fields": {"request": "{"}},
        {"fields": {"request": "[]"}},
    ):
        answer = client.request("POST", "/api/encode", **options)
        assert (answer.status, error(answer)[0]) == (422, "InvalidParameterError")
    assert error(client.get("/api/nothing"))[1].startswith("There is nothing at /api/nothing")
    assert error(client.get("/nothing"))[1].startswith("There is nothing at /nothing")


def test_the_schema_names_nothing_outside(client):
    schema = client.get("/api/openapi.json").data.decode()
    assert "http://" not in schema
    assert "https://" not in schema
    assert set(json.loads(schema)["paths"]) >= {"/api/models", "/api/encode", "/api/jobs"}
    assert client.get("/docs").status == client.get("/redoc").status == 404


def test_arrays_of_python_are_stimuli_too(client):
    answer = client.encode([("a.npy", npy(pixels(png())))], model=PRF)
    np.testing.assert_array_equal(
        np.float32(json.loads(answer.data)["outputs"][0]["values"])[None], BERG().encode(PRF, pixels(png()))
    )
