"""Two worker processes of dask on this machine; those of a SLURM are in test_slurm.py."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from PIL import Image

from berg.core.exceptions import (
    InvalidParameterError,
    StimulusError,
    StoreBusyError,
    StoreMismatchError,
    WorkerLostError,
)
from berg.encoding import task
from berg.encoding.cluster import ModelRecipe, encode_on_cluster
from berg.encoding.dask_scheduler import connected, visible_gpus
from berg.encoding.stream import DamagedStimulusWarning, encode_to_store
from berg.responses.store import IncompleteStoreWarning, ResponseStore, open_responses, read_identity
from berg.stimuli.arrays import open_array
from berg.system.locks import store_lock

from . import watched

pytestmark = pytest.mark.xdist_group("cluster")
V1 = "fmri-szinte2024-prf_css"
TESTS = str(Path(__file__).parents[1])

DRIVER = """
import sys
from functools import partial
from pathlib import Path
from encoding import watched
from berg.encoding.cluster import encode_on_cluster

stimuli = partial(watched.Pictures, Path(sys.argv[1]))
encode_on_cluster(watched.few, stimuli, sys.argv[2], sys.argv[3], batch_size=4, threads=1)
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two processes, which find `watched`."""
    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
    ):
        patch.setenv("PYTHONPATH", TESTS)
        with connected("local:2") as client:
            yield client


def pictures_in(folder: Path, n: int, deadly: slice | None = None, gate: bool = False) -> Path:
    images = np.random.default_rng(0).integers(0, 255, (n, 3, 32, 32), dtype=np.uint8)
    if deadly is not None:
        images[deadly] = watched.DEADLY
    np.save(folder / "pictures.npy", images)
    if gate:
        (folder / "gate").touch()
    return folder / "pictures.npy"


def encode(pictures: Path, store: Path, scheduler: Any, model: Any = watched.few, **options: Any) -> Any:
    how = {"batch_size": 4, "threads": 1, **options}
    return encode_on_cluster(model, partial(watched.Pictures, pictures), store, scheduler, **how)


def content(folder: Path) -> dict[str, bytes]:
    """All files of a store, by name."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def on_one_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], dict[str, bytes]]:
    """The files that `encode_to_store` writes, with one thread."""

    def encode(pictures: Path, store: Path) -> dict[str, bytes]:
        monkeypatch.setattr(task, "MAX_BLOCK_STIMULI", watched.BLOCK)
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        encode_to_store(watched.few(), np.load(pictures, mmap_mode="r"), store, batch_size=4)
        torch.set_num_threads(before)
        return content(store)

    return encode


def n_blocks_done(store: Path) -> int:
    return len(list(store.glob("status/c/*")))


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("not within two minutes")


def wait_at_gate(store: Path) -> None:
    """Until all blocks before the gate are done."""
    wait_for(lambda: n_blocks_done(store) == watched.GATE // watched.BLOCK)


@contextmanager
def at_the_gate(store: Path, do: Callable[[], Any]) -> Iterator[None]:
    """Do something when all blocks before the gate are done, and open it."""
    errors: list[BaseException] = []

    def breaking_in() -> None:
        try:
            wait_at_gate(store)
            do()
        except BaseException as error:
            errors.append(error)
        store.with_name("gate").unlink()

    thread = threading.Thread(target=breaking_in)
    thread.start()
    yield
    thread.join()
    assert errors == []


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that finds `watched`; it ends with the test."""
    environment = {**os.environ, "PYTHONPATH": TESTS}
    with subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def kill_one(client: Client) -> None:
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)


def test_two_workers_write_the_bytes_of_one_process(client: Any, on_one_machine: Any, tmp_path: Path) -> None:
    pictures = pictures_in(tmp_path, 53)
    labelled = encode(pictures, tmp_path / "cluster.zarr", client)
    assert content(tmp_path / "cluster.zarr") == on_one_machine(pictures, tmp_path / "one.zarr")
    assert labelled.sizes["stimulus"] == 53
    assert n_blocks_done(tmp_path / "cluster.zarr") == 7


@pytest.mark.slow
def test_a_killed_worker_changes_no_byte(client: Any, on_one_machine: Any, tmp_path: Path) -> None:
    pictures, store = pictures_in(tmp_path, 80, gate=True), tmp_path / "cluster.zarr"
    workers = set(client.scheduler_info()["workers"])
    with at_the_gate(store, lambda: kill_one(client)):
        encode(pictures, store, client)
    assert set(client.scheduler_info()["workers"]) != workers  # one is another now
    assert content(store) == on_one_machine(pictures, tmp_path / "one.zarr")


@pytest.mark.slow
def test_a_block_that_kills_its_workers_fails_alone_and_by_name(client: Any, tmp_path: Path) -> None:
    pictures, store = pictures_in(tmp_path, 128, deadly=slice(20, 22)), tmp_path / "cluster.zarr"
    names = [f"picture {number}" for number in range(128)]
    with pytest.raises(WorkerLostError, match=r"died.*: 16 to 23 \('picture 16' to 'picture 23'\)\. All others") as e:
        encode(pictures, store, client, stimulus_names=names)
    assert str(e.value).count("' to '") == 1
    with pytest.warns(IncompleteStoreWarning, match="lacks 8 of 128"):
        status = open_responses(store, incomplete="warn")["status"].values
    assert list(np.flatnonzero(status == 0)) == list(range(16, 24))


@pytest.mark.slow
def test_a_model_that_kills_its_workers_is_said_to_do_so(client: Any, tmp_path: Path) -> None:
    with pytest.raises(WorkerLostError, match=r"Loading the models.*killed each worker.*more memory"):
        encode(pictures_in(tmp_path, 8), tmp_path / "r.zarr", client, model=partial(os._exit, 1))
    assert not (tmp_path / "r.zarr").exists()


@pytest.mark.slow
def test_a_killed_driver_is_gone_on_with(client: Any, on_one_machine: Any, tmp_path: Path) -> None:
    pictures, store = pictures_in(tmp_path, 96, gate=True), tmp_path / "cluster.zarr"
    command = ["-c", DRIVER, str(pictures), str(store), client.scheduler.address]
    with started(command) as driver:
        wait_at_gate(store)
        driver.kill()
    times = {file: file.stat().st_mtime_ns for file in store.glob("status/c/*")}
    (tmp_path / "gate").unlink()
    encode(pictures, store, client)
    assert all(file.stat().st_mtime_ns == before for file, before in times.items())  # not encoded once more
    assert content(store) == on_one_machine(pictures, tmp_path / "one.zarr")


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_in_a_sentence(on_one_machine: Any, tmp_path: Path) -> None:
    pictures, store = pictures_in(tmp_path, 80, gate=True), tmp_path / "cluster.zarr"
    address_file = tmp_path / "scheduler.json"
    options = ["--scheduler-file", str(address_file), "--no-dashboard"]
    with (
        started(["-m", "distributed.cli.dask_scheduler", *options, "--port", "0"]) as scheduler,
        started(["-m", "distributed.cli.dask_worker", *options, "--nthreads", "1"]),
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
    ):
        wait_for(address_file.exists)
        with (
            Client(scheduler_file=str(address_file)) as client,
            at_the_gate(store, scheduler.kill),
            pytest.raises(WorkerLostError, match=r"(?s)The scheduler is gone.*make the same call again"),
        ):
            encode(pictures, store, client)


@pytest.mark.slow
def test_one_machine_and_a_cluster_go_on_with_each_other(client: Any, on_one_machine: Any, tmp_path: Path) -> None:
    pictures, store = pictures_in(tmp_path, 40), tmp_path / "cluster.zarr"
    whole = on_one_machine(pictures, store)
    (store / "status/c/2").unlink()  # the ledger says that block 2 is missing
    encode(pictures, store, client, batch_size=None)
    assert content(store) == whole


@pytest.mark.slow
def test_damaged_chunks_and_labels_are_made_again_by_the_workers(
    client: Any, on_one_machine: Any, tmp_path: Path
) -> None:
    pictures, store = pictures_in(tmp_path, 40), tmp_path / "cluster.zarr"
    whole = on_one_machine(pictures, store)
    chunk = store / "responses/c/3/0"
    chunk.write_bytes(bytes(chunk.stat().st_size))
    (store / "zarr.json").write_text("{")
    encode(pictures, store, client, batch_size=None)
    assert content(store) == whole


@pytest.mark.slow
def test_other_stimuli_under_the_same_name_are_refused(client: Any, tmp_path: Path) -> None:
    pictures, store = pictures_in(tmp_path, 24), tmp_path / "r.zarr"
    encode(pictures, store, client)
    np.save(pictures, np.load(pictures)[::-1])
    with pytest.raises(StoreMismatchError, match="24 of the 24 stimuli that were compared"):
        encode(pictures, store, client)


@pytest.mark.slow
def test_a_worker_that_sees_other_stimuli_is_refused(client: Any, tmp_path: Path) -> None:
    pictures = pictures_in(tmp_path, 80)
    with pytest.raises(StoreMismatchError, match="stimuli on the node that began: "):
        encode_on_cluster(
            watched.few, partial(watched.other_in_each_worker, pictures), tmp_path / "r.zarr", client, batch_size=4
        )


@pytest.mark.slow
def test_stimuli_that_cannot_be_read_are_named_when_all_others_are_done(client: Any, tmp_path: Path) -> None:
    folder, store = tmp_path / "pictures", tmp_path / "r.zarr"
    folder.mkdir()
    for number in range(72):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"{number:02d}.png")
    for name in ("09.png", "50.png"):
        (folder / name).write_bytes(b"no picture")
    with pytest.raises(StimulusError, match=r"(?s)Stimulus '09.png' \(number 9 of 72.*Stimulus '50.png'"):
        encode_on_cluster(watched.few, folder, store, client, batch_size=4)
    assert n_blocks_done(store) == 7
    with pytest.warns(DamagedStimulusWarning, match=r"2 of 72.*09\.png.*50\.png"):
        encode_on_cluster(watched.few, folder, store, client, on_damaged="skip")


@pytest.mark.slow
def test_several_models_and_a_function_that_opens_the_stimuli(client: Any, tmp_path: Path) -> None:
    pictures = pictures_in(tmp_path, 12)
    few = ModelRecipe(V1, device="cpu", selection={"min_held_out_r2": 0.7})
    opened = partial(open_array, pictures, places="2:6")
    labelled = encode_on_cluster({"few": few, "all": V1}, opened, tmp_path / "two.zarr", client)
    assert list(labelled.children) == ["few", "all"]
    expected = few().generate_response(np.load(pictures)[2:6])
    np.testing.assert_allclose(labelled["few"]["responses"].values, expected, rtol=1e-5)


@pytest.mark.slow
def test_another_model_does_not_go_on_with_a_store(client: Any, tmp_path: Path) -> None:
    pictures, store = pictures_in(tmp_path, 8), tmp_path / "r.zarr"
    encode(pictures, store, client)
    with pytest.raises(StoreMismatchError, match="selection"):
        encode(pictures, store, client, model=V1)
    assert encode_on_cluster(V1, pictures, store, client, overwrite=True).sizes["stimulus"] == 8


@pytest.mark.slow
def test_a_worker_with_another_model_is_refused(client: Any, tmp_path: Path) -> None:
    pictures = pictures_in(tmp_path, 80)
    with pytest.raises(StoreMismatchError, match="selection"):
        encode(pictures, tmp_path / "r.zarr", client, model=watched.another_in_each_worker)


@pytest.mark.slow
def test_a_worker_that_was_left_behind_writes_into_no_other_store(on_one_machine: Any, tmp_path: Path) -> None:
    pictures, store = pictures_in(tmp_path, 16), tmp_path / "r.zarr"
    on_one_machine(pictures, store)
    left_behind = ResponseStore(store, alone=False)
    identity = read_identity(store)
    encode_to_store(watched.few(), np.load(pictures), store, batch_size=2, overwrite=True)
    before = content(store)
    with pytest.raises(StoreMismatchError, match="batch_size: 2 there, 4 here"):
        left_behind.write(0, [np.zeros((8, left_behind._arrays[0].responses.shape[1]), "f4")], np.ones(8, np.uint8))
    assert content(store) == before
    assert identity != read_identity(store)


def test_a_store_that_is_written_is_refused(client: Any, tmp_path: Path) -> None:
    pictures = pictures_in(tmp_path, 8)
    with store_lock(tmp_path / "r.zarr"), pytest.raises(StoreBusyError, match="being written"):
        encode(pictures, tmp_path / "r.zarr", client)


@pytest.mark.slow
def test_each_worker_has_one_gpu_also_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    with connected("local:3") as client:

        def seen() -> list[str]:
            return sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values())

        assert seen() == ["GPU-a", "GPU-a", "GPU-b"]
        client.restart()
        assert seen() == ["GPU-a", "GPU-a", "GPU-b"]


@pytest.mark.parametrize(("given", "gpus"), [("0,3", ["0", "3"]), ("GPU-a", ["GPU-a"]), ("", []), ("-1", [])])
def test_gpus_are_those_that_may_be_seen(given: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == gpus


def test_gpus_are_counted_where_nothing_hides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ["0", "1"]


@pytest.mark.slow
def test_local_alone_is_a_worker_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with connected("local") as client:
        assert sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == ["4", "7"]


def test_local_alone_wants_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InvalidParameterError, match=r"no GPU.*local:2"), connected("local"):
        pass


@pytest.mark.slow
def test_a_worker_computes_with_the_threads_that_dask_gave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", TESTS)
    pictures = pictures_in(tmp_path, 8)
    with LocalCluster(n_workers=1, threads_per_worker=3, dashboard_address=":0") as cluster, Client(cluster) as client:
        encode(pictures, tmp_path / "r.zarr", client, model=watched.few_with_three_threads, threads=None)
        with pytest.raises(AssertionError):
            encode(pictures, tmp_path / "s.zarr", client, model=watched.few_with_three_threads, threads=2)


def page_faults() -> int:
    """Of making and dropping an array of 8 MB (2,048 pages) fifty times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones(2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="dask changes how memory is kept on Linux alone")
def test_workers_keep_memory_between_batches(client: Any, tmp_path: Path) -> None:
    encode(pictures_in(tmp_path, 8), tmp_path / "r.zarr", client)
    assert max(client.run(page_faults).values()) < 5 * 2048


@pytest.mark.parametrize("scheduler", ["local:0", "local:", "slurm", "pbs:2", "somewhere"])
def test_no_scheduler_is_told_with_what_there_is(scheduler: str) -> None:
    with pytest.raises(InvalidParameterError, match=r"is no scheduler.*local:N and slurm:N"), connected(scheduler):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "http://a"])
def test_an_address_without_a_scheduler_is_told(address: str) -> None:
    words = f"No scheduler answers at {address}.*dask scheduler"
    no_waiting = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with no_waiting, pytest.raises(InvalidParameterError, match=words), connected(address):
        pass


def test_arrays_in_memory_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match=r"got ndarray.*numpy\.save"):
        encode_on_cluster(V1, np.zeros((2, 3, 8, 8), np.uint8), tmp_path / "r.zarr", "local:1")


def test_no_threads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="threads must be a whole number from 1, got 0"):
        encode_on_cluster(V1, "pictures.npy", tmp_path / "r.zarr", "local:1", threads=0)
