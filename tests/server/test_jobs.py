"""Jobs: many stimuli to a store, cancelled, resumed, fetched, forgotten."""

import io
import json
import time
import zipfile

import numpy as np
import pytest
import xarray as xr
from server_of_tests import PRF, error, served
from test_http import npy, pixels, png

from berg import BERG
from berg.responses.store import open_responses
from berg.server.limits import Limits
from berg.server.run import Address
from berg.server.service import Settings

PICTURES = np.random.default_rng(3).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)


def state(client, job):
    return json.loads(client.get(f"/api/jobs/{job['id']}").data)


def ended(client, job, seconds=30):
    until = time.monotonic() + seconds
    while (now := state(client, job))["state"] in ("waiting", "running"):
        assert time.monotonic() < until
        time.sleep(0.02)
    return now


def created(client, files, **request):
    answer = client.encode(files, path="/api/jobs", **request)
    assert answer.status == 201, answer.data
    return json.loads(answer.data)


def fetched(client, job, folder):
    answer = client.get(f"/api/jobs/{job['id']}/result")
    assert answer.status == 200
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        archive.extractall(folder / "responses.zarr")
    return open_responses(folder / "responses.zarr")


def test_a_job_gives_the_store_that_python_writes(client, tmp_path):
    files = [(f"{index}.png", png(seed=index)) for index in range(5)]
    job = ended(client, created(client, files, model=PRF, selection={"reliable": True}, size=32))
    assert (job["state"], job["n_done"], job["error"]) == ("done", 5, None)
    assert any("pixels per degree" in text for text in job["warnings"])
    for name, content in files:
        (tmp_path / name).write_bytes(content)
    names = [tmp_path / name for name, _ in files]
    own = BERG().encode(
        BERG().get_encoding_model(PRF, selection={"reliable": True}), names, size=32, out=tmp_path / "own.zarr"
    )
    xr.testing.assert_identical(fetched(client, job, tmp_path).load(), own.load())


def test_a_finished_job_keeps_no_stimulus_and_can_be_forgotten(client):
    job = ended(client, created(client, [("a.npy", npy(PICTURES))], model=PRF))
    (folder,) = [path for path in jobs_folder(client).iterdir() if path.name == job["id"]]
    kept = {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}
    assert kept == {"request.json", "responses.zarr.zip", "state.json"}
    assert client.request("DELETE", f"/api/jobs/{job['id']}").status == 204
    assert not folder.exists()
    assert error(client.get(f"/api/jobs/{job['id']}"))[1].startswith("There is no such job")


def jobs_folder(client):
    return client.jobs.folder


def test_a_job_is_cancelled_and_goes_on(client, tmp_path):
    client.jobs.turns.__enter__()  # nobody computes
    try:
        job = created(client, [("a.npy", npy(PICTURES))], model=PRF)
        early = client.get(f"/api/jobs/{job['id']}/result")
        assert error(early)[1].startswith("The job is ")
        assert json.loads(client.request("POST", f"/api/jobs/{job['id']}/cancel").data)["state"] in (
            "running",
            "cancelled",
        )
    finally:
        client.jobs.turns.__exit__()
    assert ended(client, job)["state"] == "cancelled"
    assert client.request("POST", f"/api/jobs/{job['id']}/resume").status == 200
    assert ended(client, job)["state"] == "done"
    np.testing.assert_array_equal(fetched(client, job, tmp_path)["responses"], BERG().encode(PRF, PICTURES))


def test_jobs_outlive_the_server_in_a_folder_of_ones_own(tmp_path):
    address = Address(port=0, jobs_folder=tmp_path / "jobs")
    with served(address=address) as first:
        first.jobs.turns.__enter__()
        job = created(first, [("a.npy", npy(PICTURES))], model=PRF)
        first.jobs.find(job["id"]).stop.set()
        first.jobs.turns.__exit__()
    with served(address=address) as second:
        assert state(second, job)["state"] in ("cancelled", "interrupted")
        second.request("POST", f"/api/jobs/{job['id']}/resume")
        assert ended(second, job)["state"] == "done"
        np.testing.assert_array_equal(fetched(second, job, tmp_path)["responses"], BERG().encode(PRF, PICTURES))


def test_a_damaged_stimulus_fails_the_job_under_its_own_name(client):
    broken = png(64)[:3000]
    job = ended(client, created(client, [("good.png", png(64)), ("my broken.png", broken)], model=PRF))
    assert job["state"] == "failed"
    assert job["error"]["type"] == "StimulusError"
    assert "my broken.png is not a picture that can be read" in job["error"]["message"]


REFUSED = {
    "no picture": ([("a.png", b"no picture")], "a.png is not a picture"),
    "nothing": ([], "No stimuli were given"),
    "a script": ([("a.sh", b"ls")], "is no file that this model takes"),
    "an array of texts": ([("a.npy", npy(np.array(["a"])))], "stimuli are real numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_job_leaves_nothing_behind(case, client):
    files, words = REFUSED[case]
    before = set(jobs_folder(client).iterdir())
    answer = client.encode(files, path="/api/jobs", model=PRF)
    assert answer.status == 422
    assert words in error(answer)[1]
    assert set(jobs_folder(client).iterdir()) == before


def test_only_so_many_jobs_are_kept():
    with served(Settings(limits=Limits(jobs=1))) as client:
        ended(client, created(client, [("a.npy", npy(PICTURES))], model=PRF))
        answer = client.encode([("a.npy", npy(PICTURES))], path="/api/jobs", model=PRF)
        assert answer.status == 503
        assert "keeps 1 jobs, and has them" in error(answer)[1]


def test_requests_are_answered_while_a_job_runs(client):
    job = created(client, [("a.npy", npy(np.repeat(PICTURES, 20, axis=0)))], model=PRF)
    answer = client.encode([("a.png", png())], model=PRF)
    was = state(client, job)["state"]
    client.request("POST", f"/api/jobs/{job['id']}/cancel")
    np.testing.assert_array_equal(
        np.float32(json.loads(answer.data)["outputs"][0]["values"])[None], BERG().encode(PRF, pixels(png()))
    )
    assert was in ("waiting", "running")
    ended(client, job)
