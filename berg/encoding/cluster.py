"""Responses of any size, encoded by many processes on many machines into one store, with dask.

    driver: holds the store, hands out blocks -> workers: read, encode, write whole chunks, then the ledger

Each worker gets whole blocks of the store, so that no two workers write to one chunk. What is done is recorded in the
ledger on the disk (`berg.responses.store`) and nowhere else: driver, workers and scheduler may die at any time.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, cast

import torch

from berg.core.exceptions import BERGError, InvalidParameterError, StimulusError, WorkerLostError, listing
from berg.encoding.dask_scheduler import connected, slurm_described
from berg.encoding.estimate import Estimate, estimate
from berg.encoding.slurm_jobs import with_estimate
from berg.encoding.store_identity import sampled_content
from berg.encoding.stream import fill, warn_of_damaged
from berg.encoding.task import OnDamaged, Task, check_options, prepare
from berg.encoding.task_store import check_folder, open_or_create
from berg.models.loading import load_model, open_berg_dir
from berg.responses.labelled import Labelled
from berg.responses.store import (
    Compression,
    ResponseStore,
    check_same,
    open_responses,
    read_identity,
    read_names,
    remove_store,
)
from berg.stimuli.arrays import HDF5, open_array
from berg.system.locks import store_lock
from berg.system.progress import Advance, progress_bar

# After `berg.encoding.dask_scheduler`, which says what to install if these are missing.
from distributed import Client, Future, KilledWorker, WorkerPlugin, as_completed, get_worker  # isort: skip
from distributed.client import FutureCancelledError  # isort: skip
from distributed.comm import CommClosedError  # isort: skip

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_MOST_BLOCKS = 8  # of a job for a worker, which reads, computes and writes at the same time; lost if the worker dies
_JOBS_PER_WORKER = 4  # at least, if there are enough blocks, so that all workers end at about the same time
_AT_ONCE = 2  # jobs for each worker: one is computed, one waits


@dataclass(frozen=True)
class ModelRecipe:
    """A model that is not loaded yet, to be sent to the processes that load it by calling it.

    Attributes
    ----------
    model_id, device, selection
        As in `BERG.get_encoding_model`.
    parameters
        The model's own, such as ``{"subject": 1}``.
    berg_dir
        The BERG directory. None: the one that is set where the model is loaded.
    """

    model_id: str
    device: str = "auto"
    selection: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    berg_dir: str | Path | None = None

    def __call__(self) -> Any:
        """The model, loaded."""
        return load_model(self.model_id, open_berg_dir(self.berg_dir), self.device, self.selection, self.parameters)


Recipe = str | Callable[[], Any]
Recipes = Recipe | Sequence[Recipe] | Mapping[str, Recipe]


@dataclass(frozen=True)
class _Job:
    """What every worker gets once."""

    recipes: Recipes
    stimulus: Any
    path: Path
    options: Mapping[str, Any]  # of `prepare`
    threads: int | None

    def prepare(self, batch_size: int | None) -> Task:
        """Load the models and open the stimuli."""
        return prepare(_load(self.recipes), _opened(self.stimulus), batch_size=batch_size, **self.options)


@dataclass(frozen=True)
class _Begun:
    """A store that exists and has its labels."""

    identity: dict[str, Any]
    n_stimuli: int
    missing: list[int]
    content: str  # a hash of some stimuli, which must be the same for each worker

    def size_of(self, block: int) -> int:
        """Stimuli in a block."""
        size: int = self.identity["block_size"]
        return min(size, self.n_stimuli - size * block)


class _Encoder(WorkerPlugin):  # type: ignore[misc]
    """Models and stimuli in a worker: loaded when it encodes first, released when the job ends."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.name = f"berg {job.path}"  # the next job on this store replaces one whose driver died

    def setup(self, worker: Any) -> None:
        self.task: Task | None = None
        self.alone = Lock()  # a worker with several threads is still one model on one device
        self.threads = self.job.threads or worker.state.nthreads
        _keep_memory()

    def teardown(self, worker: Any) -> None:
        self.task = None

    def begin(
        self, batch_size: int | None, compression: Compression | None, overwrite: bool, verify_stimuli: bool, held: bool
    ) -> _Begun:
        """Make the store, or find what an earlier run has left to do."""
        path = self.job.path
        is_there = path.exists()
        begun = read_identity(path) if is_there and not overwrite else {}
        with self.alone, _computing_with(self.threads):
            self.task = self.job.prepare(batch_size or begun.get("batch_size"))
            _check_can_be_shared_out(self.task)
            if overwrite and is_there:
                remove_store(path)
            codec = compression or begun.get("compression") or "none"
            store = open_or_create(path, self.task, codec, verify_stimuli, held)
            missing = store.missing_blocks()
            content = sampled_content(self.task.stimuli) if missing else ""
        return _Begun(store.identity, store.n_stimuli, missing, content)

    def encode(self, identity: dict[str, Any], content: str, blocks: list[int]) -> dict[int, StimulusError]:
        """Encode and write blocks. Returns the errors of blocks with stimuli that cannot be read."""
        with self.alone, _computing_with(self.threads):
            task = self.task = self.task or self._same_task(identity, content)
            store = ResponseStore(self.job.path, alone=False)
            # A worker that outlives its driver could write to a store that was replaced meanwhile.
            check_same(self.job.path, store.identity, identity)
            return _fill(store, task, blocks)

    def _same_task(self, identity: dict[str, Any], content: str) -> Task:
        """Raise StoreMismatchError if this node has another device, other weights or other stimuli of the same name."""
        task = self.job.prepare(identity["batch_size"])
        check_same(self.job.path, identity, task.identity(identity["compression"], identity))
        what = "stimuli on the node that began"
        check_same(self.job.path, {what: content}, {what: sampled_content(task.stimuli)})
        return task


def encode_on_cluster(
    models: Recipes,
    stimulus: Any,
    path: str | Path,
    scheduler: Client | str,
    *,
    sampling_rate: int | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    on_damaged: OnDamaged = "raise",
    show_progress: bool | None = None,
    compression: Compression | None = None,
    stimulus_names: Sequence[str] | None = None,
    verify_stimuli: bool = False,
    threads: int | None = None,
    slurm: Mapping[str, str] | None = None,
) -> Labelled:
    """The in silico responses to the stimuli, computed by the workers of a cluster and written to one zarr store.

    The store is that of `encode_to_store`, with the same bits if device and number of threads are the same, and either
    continues what the other has begun. A worker that dies costs the few blocks that it was computing. A block that
    kills every worker is tried alone at the end, and is named when all others are done.

    Parameters
    ----------
    models
        Model ids, or recipes: a `ModelRecipe`, or another function without arguments that dask can send and
        that gives a loaded model. One, a list, or by the names of their groups.
    stimulus
        Files that every worker finds under the same path: a .npy or HDF5 file or zarr array; a folder, or a list
        of files (pictures, sounds). Or a function without arguments that opens them, such as
        ``partial(open_array, "nsd.h5", "imgBrick")``.
    path
        The store, in a folder that every worker and this process see.
    scheduler
        ``local:2``, ``slurm:8``, ``tcp://10.0.0.1:8786`` or a `distributed.Client`; see `connected`.
    sampling_rate, batch_size, overwrite, on_damaged, show_progress, compression, stimulus_names, verify_stimuli
        As in `encode_to_store`.
    threads
        Of each worker, for computing. None: those that dask gave it (of local workers, its share of the cores).
    slurm
        What each job of ``slurm:8`` asks for, such as ``{"memory": "8GB", "walltime": "1:00:00"}``; see
        `berg.encoding.slurm_jobs.job_options`. Memory and wall time that neither this nor dask's configuration says
        are measured on this machine first.

    Returns
    -------
    labelled
        The responses, read from the store when they are used; see `open_responses`.

    Raises
    ------
    WorkerLostError
        If stimuli killed their worker, also when they were alone; with their names, when all others are done.
        Also if the scheduler is gone.
    StimulusError
        If stimuli cannot be read; with their names, when all others are done.
    StoreMismatchError, StoreBusyError, StorageError, DeviceMemoryError, InvalidParameterError
        As in `encode_to_store`; a worker with another device, other weights or other stimuli is a mismatch.

    Warns
    -----
    DamagedStimulusWarning
        With the names of the stimuli that were left out.
    """
    check_options(on_damaged, None, compression)
    if threads is not None and threads < 1:
        raise InvalidParameterError(f"threads must be a whole number from 1, got {threads!r}.")
    store_path = Path(path).expanduser().absolute()
    check_folder(store_path)
    how = {"sampling_rate": sampling_rate, "on_damaged": on_damaged, "stimulus_names": stimulus_names}
    job = _Job(models, _absolute(stimulus), store_path, how, threads)
    with store_lock(store_path) as held:
        with (
            connected(scheduler, _jobs(job, scheduler, slurm, batch_size)) as client,
            _registered(client, job) as encoder,
        ):
            begun = _begin(client, encoder, batch_size, compression, overwrite, verify_stimuli, held)
            lost, unreadable = _encode_missing(client, encoder, begun, show_progress)
        store = ResponseStore(store_path)
    if lost or unreadable:
        raise _failure(store, lost, unreadable)
    warn_of_damaged(store, read_names(store_path))
    return open_responses(store_path)


def _jobs(
    job: _Job, scheduler: Client | str, given: Mapping[str, str] | None, batch_size: int | None
) -> Mapping[str, str] | None:
    """What each job of SLURM asks for; what is not said comes from an estimate on this machine."""
    kind, _, number = str(scheduler).partition(":")
    if kind != "slurm" or not number.isdecimal() or int(number) < 1:
        return given

    def measure() -> Estimate:
        rate = job.options["sampling_rate"]
        models, stimuli = _load(job.recipes), _opened(job.stimulus)
        return estimate(models, stimuli, job.path, batch_size=batch_size, sampling_rate=rate)

    return with_estimate(given or {}, slurm_described(), int(number), measure)


@contextmanager
def _registered(client: Client, job: _Job) -> Iterator[str]:
    """Make the job known to every worker, also to one that comes later; yields its name."""
    encoder = _Encoder(job)
    client.register_plugin(encoder)
    try:
        yield encoder.name
    except (FutureCancelledError, CommClosedError) as error:
        raise WorkerLostError(
            f"The scheduler is gone ({error}). What is encoded is kept; make the same call again, and it resumes."
        ) from error
    finally:
        with suppress(OSError):  # the scheduler is gone
            client.unregister_worker_plugin(encoder.name)


def _check_can_be_shared_out(task: Task) -> None:
    if task.is_in_sequence:
        raise InvalidParameterError(
            f"One film of {len(task.names):,} frames cannot be shared out among workers: each frame needs all those "
            "before it. Give several films of one length, as a list of files or an array (n_films, n_frames, height, "
            "width), or encode the film without a scheduler."
        )


def _begin(client: Client, encoder: str, *how: Any) -> _Begun:
    try:
        begun = client.submit(_call, encoder, "begin", *how, pure=False).result()
    except KilledWorker as error:
        raise WorkerLostError(
            f"Loading the models and opening the stimuli killed each worker that tried ({error}). Give the workers "
            "more memory, or read their logs."
        ) from error
    if isinstance(begun, BERGError):
        raise begun
    return cast("_Begun", begun)


def _encode_missing(
    client: Client, encoder: str, begun: _Begun, show_progress: bool | None
) -> tuple[list[int], dict[int, StimulusError]]:
    """Encode what is missing. Returns the blocks that kill their workers, and errors of those that cannot be read."""
    lost: list[int] = []
    unreadable: dict[int, StimulusError] = {}

    def encode(runs: Iterable[list[int]], advance: Advance) -> None:
        for blocks, outcome in _outcomes(client, encoder, begun, runs):
            if isinstance(outcome, KilledWorker):
                lost.extend(blocks)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                unreadable.update(outcome)
                advance(sum(begun.size_of(block) for block in blocks if block not in outcome))

    n_done = begun.n_stimuli - sum(map(begun.size_of, begun.missing))
    with progress_bar("encoding", begun.n_stimuli, "stimuli", show_progress, done=n_done) as advance:
        encode(_runs(begun.missing, len(client.nthreads())), advance)
        # dask blames all that a worker had to do when it died. Alone, only the guilty block fails again.
        suspects = sorted(lost)
        lost.clear()
        for block in suspects:
            encode([[block]], advance)
    return lost, unreadable


def _runs(blocks: list[int], n_workers: int) -> Iterator[list[int]]:
    """The blocks in runs of neighbours, each for one worker."""
    length = min(_MOST_BLOCKS, -(-len(blocks) // (_JOBS_PER_WORKER * max(1, n_workers))))
    return (blocks[start : start + length] for start in range(0, len(blocks), max(1, length)))


def _outcomes(
    client: Client, encoder: str, begun: _Begun, runs: Iterable[list[int]]
) -> Iterator[tuple[list[int], Any]]:
    """Each run of blocks with what `_Encoder.encode` returned or raised, as they are done.

    The workers have only a few runs at a time, so that a worker that dies takes few with it.
    """
    left, running, done = iter(runs), dict[Future, list[int]](), as_completed(loop=client.loop)
    submit = partial(client.submit, _call, encoder, "encode", begun.identity, begun.content, pure=False)

    def hand_out() -> None:
        room = _AT_ONCE * max(1, len(client.nthreads())) - len(running)
        new = {submit(blocks): blocks for blocks in islice(left, max(0, room))}
        running.update(new)
        done.update(new)

    try:
        hand_out()
        for future in done:
            yield running.pop(future), future.exception() or future.result()
            hand_out()
    finally:
        client.cancel(list(running))


def _call(encoder: str, method: str, *arguments: Any) -> Any:
    """Call a method of the encoder, in a worker. Returns our own errors: dask would log those that are raised, too."""
    try:
        return getattr(get_worker().plugins[encoder], method)(*arguments)
    except BERGError as error:
        return error


def _fill(store: ResponseStore, task: Task, blocks: list[int]) -> dict[int, StimulusError]:
    try:
        fill(store, task, show_progress=False, blocks=blocks)
    except StimulusError as error:
        if len(blocks) == 1:
            return {blocks[0]: error}
        return {failed: e for block in blocks for failed, e in _fill(store, task, [block]).items()}
    return {}


def _failure(store: ResponseStore, lost: list[int], unreadable: Mapping[int, StimulusError]) -> Exception:
    messages = [str(error) for _, error in sorted(unreadable.items())]
    if not lost:
        return StimulusError("\n".join(messages))
    names = read_names(store.path)
    ranges = [
        f"{stimuli.start:,} to {stimuli.stop - 1:,} ('{names[stimuli.start]}' to '{names[stimuli.stop - 1]}')"
        for stimuli in map(store.block, lost)
    ]
    killed = (
        f"Each worker that encoded these stimuli died, also when it did nothing else: {listing(ranges)}. All others "
        "are kept. Read the log of the workers (too little memory? a file that crashes its reader?), then make the "
        "same call again: it encodes those that are left."
    )
    return WorkerLostError("\n".join([killed, *messages]))


def _load(recipes: Recipes) -> Any:
    if isinstance(recipes, Mapping):
        return {name: _load(recipe) for name, recipe in recipes.items()}
    if isinstance(recipes, str):
        return ModelRecipe(recipes)()
    return recipes() if callable(recipes) else [_load(recipe) for recipe in recipes]


def _absolute(stimulus: Any) -> Any:
    """Absolute paths, for workers that were started in another folder."""
    if isinstance(stimulus, (str, Path)):
        return Path(os.path.abspath(Path(stimulus).expanduser()))
    if callable(stimulus):
        return stimulus
    if isinstance(stimulus, Sequence) and all(isinstance(item, (str, Path)) for item in stimulus):
        return [_absolute(item) for item in stimulus]
    raise InvalidParameterError(
        f"A cluster takes stimuli as files that every worker can open, got {type(stimulus).__name__}. Save them with "
        'numpy.save("stimuli.npy", stimuli) in a folder that all workers see, and give that path.'
    )


def _opened(stimulus: Any) -> Any:
    if callable(stimulus):
        return stimulus()
    is_zarr = isinstance(stimulus, Path) and any((stimulus / name).exists() for name in ("zarr.json", ".zarray"))
    if isinstance(stimulus, Path) and (is_zarr or stimulus.suffix in (".npy", *HDF5)):
        return open_array(stimulus)
    return stimulus


def _keep_memory() -> None:
    """Keep the memory of one batch for the next, as a process does by default.

    dask sets ``MALLOC_TRIM_THRESHOLD_`` for its workers, with which glibc asks the system for each large array again:
    the built-in model then takes 6.2 seconds of the processor instead of 1.7.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library, which has no mallopt
            set_option = ctypes.CDLL(None).mallopt
            set_option(_M_MMAP_THRESHOLD, 2**25)  # the values that glibc moves both to by itself, unless one is set
            set_option(_M_TRIM_THRESHOLD, 2**26)


@contextmanager
def _computing_with(threads: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
