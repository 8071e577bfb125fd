"""Many stimuli, encoded to a store on this machine while the server answers others; cancelled, resumed, fetched.

A job is a folder: what was asked for, the stimuli (until the job is done), the store, and how far it is. With a folder
of the user's (``berg serve --jobs FOLDER``) jobs outlive the server, and go on where they were.
"""

from __future__ import annotations

import copy
import json
import logging
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import torch

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import BERGError, InvalidParameterError, ModelNotFoundError, ServerBusyError, ServerError
from berg.encoding.stream import encode_to_store
from berg.models.encoding_model import EncodingModel
from berg.responses.store import count_missing
from berg.server import contract
from berg.server.contract import EncodeRequest
from berg.server.error_answers import error_body
from berg.server.heard_warnings import hear
from berg.server.service import Service
from berg.server.turns import Turns
from berg.server.uploads import (
    ARRAY,
    Upload,
    check_files,
    check_options,
    ending_of,
    named_by_client,
    write_upload,
)
from berg.stimuli.arrays import open_array
from berg.stimuli.images import ResizedPictures
from berg.system.durable_file import replacing

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "cancelled", "interrupted"]
FINAL: tuple[State, ...] = ("done", "failed", "cancelled", "interrupted")
KEPT_SECONDS = 24 * 3600.0  # of a job that is done, in a server that is full
_REQUEST, _STATE, _STIMULI = "request.json", "state.json", "stimuli"
_STORE, _RESULT = "responses.zarr", "responses.zarr.zip"


class _CancelledError(BERGError):
    """A job was told to end."""


@dataclass(eq=False)
class JobRecord:
    """A job, in its folder."""

    folder: Path
    asked: EncodeRequest
    names: list[Any]
    n_stimuli: int
    state: State = "waiting"
    n_done: int = 0
    error: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    changed: float = field(default_factory=time.time)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def id(self) -> str:
        """Its name, which only those know who made it."""
        return self.folder.name

    def set_state(self, state: State, error: BERGError | None = None) -> None:
        """Change it, and keep it in the folder."""
        self.state, self.error, self.changed = state, None if error is None else error_body(error)["error"], time.time()
        kept = {name: getattr(self, name) for name in ("state", "n_done", "error", "warnings", "changed")}
        _write(self.folder / _STATE, json.dumps({**kept, "names": self.names, "n_stimuli": self.n_stimuli}))

    def told(self) -> contract.Job:
        """What is said of it."""
        return contract.Job(
            id=self.id,
            state=self.state,
            model=self.asked.model,
            n_stimuli=self.n_stimuli,
            n_done=self.n_stimuli if self.state == "done" else min(self.n_done, self.n_stimuli),
            error=None if self.error is None else contract.ErrorFacts(**self.error),
            warnings=self.warnings,
            result=f"/api/jobs/{self.id}/result" if self.state == "done" else None,
        )


class Jobs:
    """The jobs of a server, one of which is computed at a time, in turns with the requests of others."""

    def __init__(self, service: Service, folder: Path | None = None) -> None:
        self.service, self.turns = service, service.turns
        self._is_temporary = folder is None
        self.folder = Path(mkdtemp(prefix="berg-jobs-")) if folder is None else folder
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread = ThreadPoolExecutor(1, "berg-job")
        self._jobs = {job.id: job for job in map(_read_job, sorted(self.folder.glob(f"*/{_REQUEST}"))) if job}

    def close(self) -> None:
        """Stop what runs, so that it can go on later; forget everything if no folder was given."""
        for job in self._jobs.values():
            job.stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)
        for job in self._jobs.values():
            if job.state not in FINAL:
                job.set_state("interrupted")
        if self._is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, asked: EncodeRequest, uploads: Sequence[Upload], expected: StimulusInput) -> JobRecord:
        """A new job, which waits for its turn.

        Raises
        ------
        ServerBusyError
            If the server keeps as many as it may.
        TooLargeError, StimulusError, InvalidParameterError, CorruptedFileError
            For stimuli that cannot be read by their heads.
        """
        self.check_room()
        folder = self.folder / secrets.token_urlsafe(12)
        try:
            (folder / _STIMULI).mkdir(mode=0o700, parents=True)
            job = self._stored(folder, asked, uploads, expected)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._jobs[job.id] = job
        self._thread.submit(self._run, job)
        return job

    def check_room(self) -> None:
        """Raise ServerBusyError if there is no room for one more; old jobs that are done make room."""
        most = self.service.limits.jobs
        old = [job for job in self._jobs.values() if job.state == "done" and time.time() - job.changed > KEPT_SECONDS]
        for job in old if len(self._jobs) >= most else ():
            self.remove(job.id)
        if len(self._jobs) >= most:
            raise ServerBusyError(f"This server keeps {most} jobs, and has them. Delete one that is done, or wait.")

    def find(self, job_id: str) -> JobRecord:
        """A job by its id.

        Raises
        ------
        ModelNotFoundError
            If there is none.
        """
        if job_id not in self._jobs:
            raise ModelNotFoundError("There is no such job; it may have been deleted, or the server started anew.")
        return self._jobs[job_id]

    def cancel(self, job_id: str) -> JobRecord:
        """Tell a job to end after its batch; what it has is kept."""
        job = self.find(job_id)
        job.stop.set()
        if job.state == "waiting":
            job.set_state("cancelled")
        return job

    def resume(self, job_id: str) -> JobRecord:
        """Go on with a job that was cancelled, interrupted, or has failed."""
        job = self.find(job_id)
        if job.state not in FINAL:
            raise InvalidParameterError(f"The job is {job.state}; it goes on by itself.")
        if job.state != "done":
            job.stop = threading.Event()
            job.set_state("waiting")
            self._thread.submit(self._run, job)
        return job

    def remove(self, job_id: str) -> None:
        """Forget a job, its stimuli and its responses."""
        job = self.find(job_id)
        job.stop.set()
        del self._jobs[job_id]
        if job.state in FINAL or job.state == "waiting":
            shutil.rmtree(job.folder, ignore_errors=True)

    def result(self, job_id: str) -> Path:
        """The store of a job as a zip file.

        Raises
        ------
        InvalidParameterError
            If it is not done.
        """
        job = self.find(job_id)
        if job.state != "done":
            raise InvalidParameterError(
                f"The job is {job.state}, not done: {job.n_done:,} of {job.n_stimuli:,} stimuli."
            )
        return job.folder / _RESULT

    def _stored(
        self, folder: Path, asked: EncodeRequest, uploads: Sequence[Upload], expected: StimulusInput
    ) -> JobRecord:
        endings = [ending_of(upload, expected) for upload in uploads]
        files = [folder / _STIMULI / f"{index:06d}{ending}" for index, ending in enumerate(endings)]
        for upload, file in zip(uploads, files, strict=True):
            write_upload(upload, file)
        with named_by_client(folder / _STIMULI, dict(zip(files, (upload.name for upload in uploads), strict=True))):
            n_stimuli = check_files(files, expected, self.service.limits, asked.size, asked.fit, asked.sampling_rate)
        is_array = any(file.suffix == ARRAY for file in files)
        own: list[Any] = list(range(n_stimuli)) if is_array else [upload.name for upload in uploads]
        names: list[Any] = list(asked.names) if asked.names is not None else own
        if len(names) != n_stimuli:
            raise InvalidParameterError(f"{len(names):,} names were given for {n_stimuli:,} stimuli.")
        job = JobRecord(folder, asked, names, n_stimuli)
        _write(folder / _REQUEST, asked.model_dump_json())
        job.set_state("waiting")
        return job

    def _run(self, job: JobRecord) -> None:
        if job.state != "waiting" or job.stop.is_set():
            return
        job.set_state("running")
        try:
            with hear() as job.warnings:
                self._encode(job)
            _zip_store(job.folder / _STORE, job.folder / _RESULT)
            shutil.rmtree(job.folder / _STIMULI, ignore_errors=True)
            shutil.rmtree(job.folder / _STORE, ignore_errors=True)
            job.set_state("done")
        except _CancelledError:
            job.set_state("cancelled")
        except BERGError as error:
            job.set_state("failed", error)
        except Exception as error:  # told to whoever asked; the next job is not to suffer
            logger.exception("A job failed")
            job.set_state("failed", ServerError(f"The server failed at this job ({type(error).__name__})."))
        finally:
            if job.id not in self._jobs:
                shutil.rmtree(job.folder, ignore_errors=True)

    def _encode(self, job: JobRecord) -> None:
        store = job.folder / _STORE
        files = sorted((job.folder / _STIMULI).iterdir())
        with self.service.using(job.asked) as model, _named(job, files):
            job.n_done = job.n_stimuli - count_missing(store) if store.exists() else 0
            encode_to_store(
                in_turns(model, job, self.turns),
                _stimuli(files, model.expected_input, job.asked),
                store,
                sampling_rate=_rate(files, job.asked, model.expected_input),
                show_progress=False,
                stimulus_names=job.names,
            )


def _named(job: JobRecord, files: Sequence[Path]) -> Any:
    """Errors name the files as the client does."""
    return named_by_client(job.folder / _STIMULI, dict(zip(files, map(str, job.names), strict=False)))


def in_turns(model: EncodingModel, job: JobRecord, turns: Turns) -> EncodingModel:
    """The model with halves that wait for their turn, count, and end when the job is told to."""
    copied = copy.copy(model)
    features, readout = model.loaded_modules()
    copied.features = _InTurn(features, turns, job)
    copied.readout = _InTurn(readout, turns, job, counts=True)
    return copied


class _InTurn(torch.nn.Module):
    """A half of a model that computes when it is its turn."""

    def __init__(self, half: torch.nn.Module, turns: Turns, job: JobRecord, counts: bool = False) -> None:
        super().__init__()
        self._half = (half,)  # in a tuple: its weights are not moved or counted twice
        self._turns, self._job, self._counts = turns, job, counts

    def forward(self, given: Any) -> Any:
        if self._job.stop.is_set():
            raise _CancelledError("The job was told to end.")
        with self._turns:
            result = self._half[0](given)
        if self._counts:
            self._job.n_done += len(result[0])
        return result

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """That of the half, so that a store is of the same model wherever it is computed."""
        return self._half[0].state_dict(*arguments, **options)


def _stimuli(files: Sequence[Path], expected: StimulusInput, asked: EncodeRequest) -> Any:
    if any(file.suffix == ARRAY for file in files):
        return open_array(files[0])
    if asked.size is not None:
        check_options(expected, asked.size, asked.fit)
        return ResizedPictures(list(files), asked.size, asked.fit or "center_crop")
    return list(files)


def _rate(files: Sequence[Path], asked: EncodeRequest, expected: StimulusInput) -> int | None:
    return asked.sampling_rate if expected.kind == "sound" else None


def _zip_store(store: Path, target: Path) -> None:
    """All files of a store in a zip file without compression, as zarr's ZipStore reads it."""
    partial = target.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(store.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(store))
    partial.replace(target)


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def _read_job(request: Path) -> JobRecord | None:
    """A job of an earlier run; None if its folder is damaged."""
    with suppress(ValueError, OSError, KeyError, TypeError):
        asked = EncodeRequest.model_validate_json(request.read_text("utf-8"))
        kept = json.loads((request.parent / _STATE).read_text("utf-8"))
        job = JobRecord(request.parent, asked, **kept)
        if job.state not in FINAL:
            job.set_state("interrupted")
        return job
    logger.warning("The job in %s cannot be read, and is left out", request.parent)
    return None
