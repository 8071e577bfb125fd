"""Responses of any size, encoded straight to disk, and gone on with after any interruption.

    stimuli -> read ahead by threads -> network, batch by batch -> block -> written by a thread

Nothing but the names of the stimuli is kept for all of them. What is on disk is described in
`berg.responses.store`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, StimulusError, StorageError, listing
from berg.core.selection import resolve_times
from berg.encoding.encoded_stimuli import check_stimuli, file_states, fingerprints, readable_now
from berg.encoding.space import N_BLOCKS_HELD, check_fits
from berg.encoding.store_identity import (
    labelling_metadata,
    model_identity,
    stimuli_identity,
    stimulus_files,
    stimulus_labels,
)
from berg.models.batches import batch_slices, common_input, encode_batch
from berg.models.encoding_model import EncodingModel
from berg.responses.blocks import CHECKSUMS, DAMAGED, ENCODED, damaged_labels
from berg.responses.labelled import Labelled, label_responses
from berg.responses.store import (
    Compression,
    ResponseStore,
    check_same,
    open_responses,
    read_identity,
    remove_store,
    restore_labels,
)
from berg.stimuli.open import open_stimuli
from berg.stimuli.readers import Stimuli
from berg.stimuli.stimulus_files import check_links
from berg.system.locks import store_lock
from berg.system.progress import Advance, progress_bar

Models = EncodingModel | Sequence[EncodingModel] | Mapping[str, EncodingModel]
OnDamaged = Literal["raise", "skip"]
T = TypeVar("T")
R = TypeVar("R")

_SKIPPING = ' Or give on_damaged="skip" (--on-damaged skip), which leaves rows of NaN.'
MAX_BLOCK_BYTES = 2**23  # of all arrays together
MAX_BLOCK_STIMULI = 256  # so many are lost at most, and one more block that waits to be written


class DamagedStimulusWarning(UserWarning):
    """Stimuli that could not be read were left out."""


class DamagedStoreWarning(UserWarning):
    """Some of a store was not as it was written, and is computed again."""


@dataclass(frozen=True)
class Task:
    """What is to be encoded, before anything is on disk.

    Attributes
    ----------
    models
        By the name of their group in the store; a single one by "", the root.
    names
        One per stimulus.
    read_as
        What is done to the files, where anything is.
    open_one
        Opens one stimulus alone, by its place; None where they are no files or pictures, but one array.
    """

    models: dict[str, EncodingModel]
    stimuli: Stimuli
    open_one: Callable[[int], Stimuli] | None
    files: list[Path] | None
    names: list[Any]
    batch_size: int
    block_size: int
    on_damaged: OnDamaged
    read_as: str | None = None

    @property
    def in_order(self) -> list[EncodingModel]:
        """The models, in the order of the store."""
        return list(self.models.values())

    @property
    def row_bytes(self) -> int:
        """The responses of all models to one stimulus."""
        return 4 * sum(int(np.prod(shape)) for model in self.in_order for shape in shapes(model))

    @property
    def n_arrays(self) -> int:
        """Outputs of all models."""
        return sum(len(shapes(model)) for model in self.in_order)

    def n_readers(self, workers: int | None) -> int:
        """How many threads read ahead."""
        return workers or (min(4, os.cpu_count() or 1) if len(self.files or ()) > 1 else 1)

    def identity(self, compression: Compression, begun: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All that must be the same when the store is gone on with.

        Parameters
        ----------
        begun
            The identity of the store, if there is one; in one without checksums it says more of the stimuli.
        """
        with_content = begun is not None and CHECKSUMS not in begun
        stimuli = (self.stimuli, self.files, self.names, self.read_as)
        return {
            "models": {name or "model": model_identity(model) for name, model in self.models.items()},
            "stimuli": stimuli_identity(*stimuli, with_content=with_content),
            "batch_size": self.batch_size,
            "dtype": "float32",
            "compression": compression,
        }


def encode_to_store(
    models: Models,
    stimulus: Any,
    path: str | Path,
    *,
    sampling_rate: int | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    on_damaged: OnDamaged = "raise",
    show_progress: bool | None = None,
    workers: int | None = None,
    compression: Compression | None = None,
    stimulus_names: Sequence[str] | None = None,
    verify_stimuli: bool = False,
) -> Labelled:
    """The in silico responses to the stimuli, written to a zarr store while they are computed.

    Memory stays the same at any number of stimuli. After an interruption of any kind the same call goes on
    where it was, and ends with the same bits as without one (on the same machine, with the same number of
    threads). How many stimuli are computed together can change the last bits, so the store keeps that number;
    only where the device has too little memory for so many are there fewer, with a SmallerBatchWarning.

    What is in the store already is read and compared with its checksums; what is damaged is computed again, and nothing
    else. A complete store can be in a place that cannot be written to.

    Parameters
    ----------
    models
        A loaded model; or several, as a list or by names, which get a group each. Features that they share are
        computed once.
    stimulus
        As in `EncodingModel.generate_response`.
    path
        The store, a folder such as ``responses.zarr``.
    sampling_rate
        Of sounds in arrays, hertz.
    batch_size
        How many stimuli are computed together. None: that of the store, or of the models.
    overwrite
        Begin anew where a store is there already; everything but a store of responses is refused.
    on_damaged
        What happens at a stimulus that cannot be read: ``raise``, or ``skip``, which leaves a row of NaN whose
        ``status`` is 2, and warns at the end.
    show_progress
        None: a bar where standard error is a terminal.
    workers
        Threads that read stimuli ahead. None: four for files, one for everything else.
    compression
        ``none``; ``zstd`` or ``lz4``, which save about a tenth and are read more slowly. None: that of the
        store, or ``none``.
    stimulus_names
        One per stimulus. None: the names of the files, or numbers.
    verify_stimuli
        Compare all stimuli that are encoded already with what was encoded, not only some of them (those whose files
        have another size or time, and others chosen by chance: as many as hold 64 MB, at least 64).

    Returns
    -------
    labelled
        The responses, read from the store when they are looked at; see `open_responses`.

    Raises
    ------
    StoreMismatchError
        Where the store is of something else; it names each difference.
    CorruptedFileError
        Where the store is too damaged to be gone on with.
    StoreBusyError
        Where another process writes to the store.
    StorageError, DeviceMemoryError
        Before the start, where the disk or the memory is too small; a disk that fills up later, too.
    StimulusError, InvalidParameterError, ModelNotLoadedError

    Warns
    -----
    DamagedStimulusWarning
        With the names of the stimuli that were left out.
    DamagedStoreWarning
        With what is computed again.
    """
    check_options(on_damaged, workers, compression)
    store_path = Path(path).expanduser()
    check_folder(store_path)
    with store_lock(store_path) as held:
        is_there = store_path.exists()
        begun = read_identity(store_path) if is_there and not overwrite else {}
        task = prepare(
            models,
            stimulus,
            sampling_rate=sampling_rate,
            batch_size=begun.get("batch_size") if batch_size is None else batch_size,
            on_damaged=on_damaged,
            stimulus_names=stimulus_names,
        )
        if overwrite and is_there:
            remove_store(store_path)
        codec = compression or begun.get("compression") or "none"
        store = open_or_create(store_path, task, codec, verify_stimuli, held)
        fill(store, task, show_progress, workers)
    warn_of_damaged(store, task.names)
    return open_responses(store_path)


def prepare(
    models: Models,
    stimulus: Any,
    *,
    sampling_rate: int | None = None,
    batch_size: int | None = None,
    on_damaged: OnDamaged = "raise",
    stimulus_names: Sequence[str] | None = None,
) -> Task:
    """Check models and stimuli, and settle the sizes of batches and blocks; see `encode_to_store`."""
    named = name_models(models)
    expected = common_input(list(named.values()))
    files = stimulus_files(stimulus, expected)
    read_as = getattr(stimulus, "read_as", None)
    given = stimulus if read_as is not None else files or stimulus

    if files is not None and on_damaged == "raise":
        check_links(files, _SKIPPING)

    def open_one(place: int) -> Stimuli:
        return open_stimuli([given[place]], expected, sampling_rate, check_files=False)

    stimuli = _open(given, on_damaged, lambda items: open_stimuli(items, expected, sampling_rate, check_files=False))
    is_list = isinstance(given, (list, tuple)) and len(given) == len(stimuli)
    for model in named.values():
        model.indices.update(resolve_times(model.card, model.selection, stimuli.shape[-1]))
    size = min(model._checked_batch_size(batch_size) for model in named.values())
    names = stimulus_labels(stimulus_names, files, len(stimuli), stimulus)
    task = Task(named, stimuli, open_one if is_list else None, files, names, size, size, on_damaged, read_as)
    return replace(task, block_size=block_size(len(stimuli), size, task.row_bytes))


def fill(
    store: ResponseStore,
    task: Task,
    show_progress: bool | None = None,
    workers: int | None = None,
    blocks: list[int] | None = None,
) -> None:
    """Encode and write the blocks of a store that are missing, or those that are given."""
    missing = store.missing_blocks() if blocks is None else blocks
    n_missing = sum(places.stop - places.start for places in map(store.block, missing))
    words = listing(sorted({model.get_model_id() for model in task.in_order}), most=2)
    n_stimuli = store.n_stimuli
    with (
        progress_bar(words, n_stimuli, "stimuli", show_progress, done=n_stimuli - n_missing) as advance,
        _Pool(task.n_readers(workers)) as readers,
        _Pool(1) as writer,
    ):
        _encode_blocks(store, task, missing, advance, readers, writer)


def _encode_blocks(
    store: ResponseStore, task: Task, missing: list[int], advance: Advance, readers: _Pool, writer: _Pool
) -> None:
    batches = [places for block in missing for places in _batches_of(store.block(block), task.batch_size)]
    read = readers.map_ahead(lambda places: _read(task, places), batches)
    writes: deque[Future[None]] = deque()
    # Used over and over: giving memory back and asking for it again costs more than writing does.
    buffers = [[_empty(model, store.block_size) for model in task.in_order] for _ in range(N_BLOCKS_HELD)]
    at_once = task.batch_size
    for number, block in enumerate(missing):
        if len(writes) == N_BLOCKS_HELD - 1:
            writes.popleft().result()
        places = store.block(block)
        n_stimuli = places.stop - places.start
        arrays = [[array[:n_stimuli] for array in own] for own in buffers[number % N_BLOCKS_HELD]]
        status = np.full(n_stimuli, ENCODED, np.uint8)
        encoded_from = np.zeros((n_stimuli, 2), np.uint64)
        for batch in _batches_of(slice(0, n_stimuli), task.batch_size):
            values, damaged, encoded_from[batch] = next(read)
            at_once = encode_batch(task.in_order, torch.from_numpy(values), batch, arrays, at_once)
            _mark(arrays, status, [batch.start + place for place in damaged])
            advance(len(values))
        responses = [array for own in arrays for array in own]
        writes.append(writer.submit(store.write, block, responses, status, encoded_from))
    for write in writes:
        write.result()


def _mark(arrays: list[list[NDArray[np.float32]]], status: NDArray[np.uint8], damaged: list[int]) -> None:
    status[damaged] = DAMAGED
    for own in arrays:
        for array in own:
            array[damaged] = np.nan


def _read(task: Task, places: slice) -> tuple[NDArray[Any], list[int], NDArray[np.uint64]]:
    """A batch; the places in it that could not be read, which hold zeros; and the fingerprints of `ResponseStore`."""
    states = file_states(task.files, places, len(task.names))  # before: a file that changes meanwhile is looked at
    values, damaged = _read_values(task, places)
    hashes = fingerprints(values)
    hashes[damaged] = 0
    return values, damaged, np.stack([hashes, states], axis=1)


def _read_values(task: Task, places: slice) -> tuple[NDArray[Any], list[int]]:
    try:
        return task.stimuli.read(places), []
    except StimulusError:
        rows = [_read_one(task, place) for place in range(places.start, places.stop)]
    damaged = [place for place, row in enumerate(rows) if row is None]
    readable = [row for row in rows if row is not None]
    dtype = readable[0].dtype if readable else np.dtype(task.in_order[0].expected_input.dtype or "float32")
    values = np.zeros((len(rows), *task.stimuli.shape), dtype)
    values[[place for place, row in enumerate(rows) if row is not None]] = readable or 0
    return values, damaged


def _read_one(task: Task, place: int) -> NDArray[Any] | None:
    """One stimulus, or None where it is to be skipped; one of another size is no damage, but a mistake."""
    try:
        row: NDArray[Any] = task.stimuli.read(slice(place, place + 1))[0]
        return row
    except StimulusError as error:
        is_damaged = not _can_be_opened(task, place)
        if is_damaged and task.on_damaged == "skip":
            return None
        hint = ' Fix it, or give on_damaged="skip" (--on-damaged skip) to leave it out.' if is_damaged else ""
        raise StimulusError(
            f"Stimulus '{task.names[place]}' (number {place:,} of {len(task.names):,}, from 0): {error}{hint} "
            "What is encoded already is kept."
        ) from error


def _can_be_opened(task: Task, place: int) -> bool:
    try:
        return task.open_one is not None and len(task.open_one(place)) == 1
    except StimulusError:
        return False


class _Pool:
    """Threads that finish what they have begun, also after an error."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self.pool = ThreadPoolExecutor(n_threads)

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True)

    def submit(self, function: Callable[..., R], *arguments: Any) -> Future[R]:
        """The task, begun when a thread is free."""
        return self.pool.submit(function, *arguments)

    def map_ahead(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        """The results in order, begun one more than there are threads ahead of who takes them."""
        begun: deque[Future[R]] = deque()
        for task in tasks:
            begun.append(self.submit(function, task))
            if len(begun) > self.n_threads + 1:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


class _AfterReadable:
    """Stimuli whose first ones cannot be read: a readable one was put before them, which is left out again."""

    def __init__(self, stimuli: Stimuli) -> None:
        self.stimuli, self.shape = stimuli, stimuli.shape

    def __len__(self) -> int:
        return len(self.stimuli) - 1

    def read(self, places: slice) -> NDArray[Any]:
        return self.stimuli.read(slice(places.start + 1, places.stop + 1))


def _open(stimulus: Any, on_damaged: OnDamaged, opened: Callable[[Any], Stimuli]) -> Stimuli:
    """The stimuli, whose first tells the shape of all; where it is damaged, the next that is not."""
    try:
        return opened(stimulus)
    except StimulusError:
        if on_damaged == "raise" or not isinstance(stimulus, Sequence):
            raise
        for item in stimulus[1:]:
            try:
                opened([item])
            except StimulusError:
                continue
            return _AfterReadable(opened([item, *stimulus]))
        raise


def open_or_create(
    path: Path, task: Task, compression: Compression, verify_stimuli: bool = False, held: bool = True
) -> ResponseStore:
    """Open the store of a task, or create it. Raise if it belongs to another task or does not fit on the disk.

    What is damaged in a store is made missing, or written anew where it is labels.

    Parameters
    ----------
    verify_stimuli
        See `encode_to_store`.
    held
        Whether the store may be written to; if not, it must be complete and whole.
    """
    if not path.exists():
        check_fits(task, path, compression, -(-len(task.names) // task.block_size))
        return create(path, task, task.identity(compression), compression)
    found = read_identity(path)
    identity = task.identity(compression, found)
    check_same(path, found, identity)
    if labels := damaged_labels(path, found):
        check_may_write(path, held, f"has {len(labels)} damaged files with labels")
        _warn_of_damage(path, f"{len(labels)} files with labels ({listing(labels, most=3)})")
        restore_labels(path, _labelled(task, identity), identity, found["block_size"], compression)
    store = ResponseStore(path)
    if damaged := store.damaged_blocks():
        check_may_write(path, held, f"has {len(damaged):,} damaged blocks")
        _warn_of_damage(path, f"{len(damaged):,} of {len(store.blocks):,} blocks")
        store.forget(damaged)
    check_stimuli(store, task, verify_stimuli)
    if held:
        store.forget(readable_now(store, task))
    if missing := store.missing_blocks():
        check_may_write(path, held, f"lacks {len(missing):,} of {len(store.blocks):,} blocks")
        check_fits(task, path, compression, len(missing))
    return store


def check_folder(path: Path) -> None:
    """Raise InvalidParameterError if there is no folder for a store, or StorageError if nobody may look into it."""
    try:
        is_there = path.parent.is_dir()
        path.exists()
    except OSError as error:  # a folder that may not be looked into
        raise StorageError(
            f"{path} cannot be read: {error.strerror}. Look at its owner and rights with:  ls -ld {path.parent}"
        ) from error
    if not is_there:
        raise InvalidParameterError(f"The folder {path.parent} does not exist. Make it first.")


def check_may_write(path: Path, held: bool, what: str) -> None:
    """Raise StorageError if a store that is not complete and whole is in a place that cannot be written to."""
    if not (held and os.access(path, os.W_OK)):
        raise StorageError(
            f"{path} {what}, and cannot be written to. Copy it to a folder of yours and give that path; its owner and "
            f"rights:  ls -ld {path}"
        )


def _warn_of_damage(path: Path, what: str) -> None:
    warnings.warn(
        f"{path}: {what} are not as they were written, and are made again. All else is kept. If it happens again, look "
        "at the disk.",
        DamagedStoreWarning,
        stacklevel=4,
    )


def create(path: Path, task: Task, identity: Mapping[str, Any], compression: Compression) -> ResponseStore:
    """A new store for a task, empty."""
    return ResponseStore.create(path, _labelled(task, identity), identity, task.block_size, compression)


def _labelled(task: Task, identity: Mapping[str, Any]) -> dict[str, Labelled]:
    """The labels of each model, as a store has them."""
    labelled = {}
    for name, model in task.models.items():
        own = identity["models"][name or "model"]
        told = {"weights_fingerprint": own["weights"], "device": own["device"], "torch_version": torch.__version__}
        labelled[name] = label_nothing(model, task, told)
    return labelled


def label_nothing(model: EncodingModel, task: Task, told: Mapping[str, Any] | None = None) -> Labelled:
    """The labels that the responses of a model will have, around NaN that takes no memory.

    Parameters
    ----------
    told
        What else is known of the model.
    """
    frames = tuple(np.broadcast_to(np.float32(np.nan), (len(task.names), *shape)) for shape in shapes(model))
    metadata = labelling_metadata(model)
    numbered = None if task.names == list(range(len(task.names))) else task.names
    return label_responses(frames, {**metadata, "model": {**metadata["model"], **(told or {})}}, numbered)


def name_models(models: Models) -> dict[str, EncodingModel]:
    """The models by the names of their groups; made of what tells them apart, where none are given."""
    if isinstance(models, Mapping):
        named = {str(name): model for name, model in models.items()}
        if bad := [name for name in named if not re.fullmatch(r"[\w][\w.\- ]*", name)]:
            raise InvalidParameterError(f"Names of models are words; '{bad[0]}' is not. For example 'subject-1'.")
        return _checked(named)
    several = list(models) if isinstance(models, Sequence) else [models]
    if len(several) == 1:
        return _checked({"": several[0]})
    _checked(dict(zip(map(str, range(len(several))), several, strict=True)))
    said = [{"": model.get_model_id(), **model.parameters, **model.selection} for model in several]
    telling = [
        key for key in dict.fromkeys(key for one in said for key in one) if len({str(o.get(key)) for o in said}) > 1
    ]
    names = ["_".join(_word(key, one[key]) for key in telling if one.get(key) is not None) for one in said]
    if len(set(names)) < len(names) or not all(names):
        names = [f"model-{number}" for number in range(1, len(several) + 1)]
    return dict(zip(names, several, strict=True))


def _word(key: str, value: Any) -> str:
    text = re.sub(r"[^\w.\-]+", "-", str(value)).strip("-")[:60]
    return f"{key}-{text}" if key else text


def _checked(named: dict[str, EncodingModel]) -> dict[str, EncodingModel]:
    for model in named.values():
        if not isinstance(model, EncodingModel):
            raise InvalidParameterError(
                f"A store takes models with a card that labels their responses, not {type(model).__name__}. "
                "Encode in pieces with berg.encode, or give the card 'family' and 'outputs'."
            )
    return named


def shapes(model: EncodingModel) -> list[tuple[int, ...]]:
    """The shape of the response to one stimulus, for each output."""
    return [model._shape_of(output) for output in model.card.outputs]


def _empty(model: EncodingModel, n_stimuli: int) -> list[NDArray[np.float32]]:
    return [np.empty((n_stimuli, *shape), np.float32) for shape in shapes(model)]


def block_size(n_stimuli: int, batch_size: int, row_bytes: int) -> int:
    """Stimuli per block: whole batches, and blocks that fill their last one as well as can be."""
    most = min(MAX_BLOCK_STIMULI, MAX_BLOCK_BYTES // max(1, row_bytes))
    n_batches = -(-n_stimuli // batch_size)
    n_blocks = -(-n_batches // max(1, most // batch_size))
    return -(-n_batches // n_blocks) * batch_size


def _batches_of(places: slice, size: int) -> Iterator[slice]:
    for batch in batch_slices(places.stop - places.start, size):
        yield slice(places.start + batch.start, places.start + batch.stop)


def check_options(on_damaged: str, workers: int | None, compression: str | None) -> None:
    """Raise InvalidParameterError for options that are none."""
    if compression not in (None, *get_args(Compression)):
        raise InvalidParameterError(f"compression is '{compression}'. Allowed: {', '.join(get_args(Compression))}.")
    if on_damaged not in get_args(OnDamaged):
        raise InvalidParameterError(f"on_damaged is '{on_damaged}'. Allowed: {', '.join(get_args(OnDamaged))}.")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise InvalidParameterError(f"workers must be a whole number from 1, got {workers!r}.")


def warn_of_damaged(store: ResponseStore, names: list[Any]) -> None:
    """Warn of the stimuli that were left out, by name."""
    damaged = [names[place] for place in np.flatnonzero(store.status() == DAMAGED)]
    if damaged:
        warnings.warn(
            f"{len(damaged):,} of {len(names):,} stimuli could not be read; their rows are NaN and their status is "
            f"{DAMAGED}: {listing(damaged)}.",
            DamagedStimulusWarning,
            stacklevel=3,
        )
