"""Features of a set of stimuli, computed once and kept on disk for other subjects and later fits.

A file is found by a hash of everything that the features depend on (`FeatureKey`); change any of it, and they are
computed anew. It is one array of shape (n_stimuli, n_features), nodes side by side, in float32: what networks compute
in, and what holds bfloat16 and float16 exactly; half of the bytes would cost half of the digits.

    FOLDER/<hash>/features.npy    mapped, never in memory whole
    FOLDER/<hash>/features.json   what it is of, in words, how many features each node has, and a checksum per batch

While it is being written it is called ``features.part``, with a ledger of the stimuli that are on the disk. An
interrupted call goes on there, in the same batches, to the same bits. Two processes that want the same features take
turns: the second finds them.

Whoever opens it reads it once from end to end and compares it with the checksums (crc32c, of each batch). What is
damaged, incomplete, of something else, or has no checksums, is computed anew. A folder that can only be read will do
for features that are whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import google_crc32c
import numpy as np
import PIL
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, StorageError
from berg.fitting.principal_components import slices
from berg.system.durable_file import replacing, storage_errors
from berg.system.locks import wait_for_lock
from berg.system.memory import release_pages, size_words
from berg.system.progress import Advance, progress_bar

BATCH = 32
"""Stimuli that are computed together; fixed, because it may change the last bits."""
VIDEOS = 4
"""Videos that are computed together, of a batch."""
_ALWAYS = (
    *("berg.stimuli.checks", "berg.stimuli.images", "berg.stimuli.image_stimuli", "berg.features.linear"),
    *("berg.stimuli.videos", "berg.stimuli.video_stimuli"),
)
_SECONDS_BETWEEN_RECORDS = 10.0  # waiting for the disk costs; so much is computed again at most
# What a file raises that is not what it was, as text, as JSON or as an array; RecursionError is a RuntimeError.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, SyntaxError)
_N_BATCHES_HELD = 3  # one is read or computed, one waits, one is written


class LayerFeatures(Protocol):
    """A network as `berg.features.pretrained_network.NetworkFeatures` is one."""

    network: nn.Module
    nodes: list[str]
    transform: nn.Module

    def __call__(self, stimuli: Tensor) -> list[Tensor]: ...


Read = Callable[[NDArray[np.intp]], NDArray[Any]]
"""Places of stimuli -> the stimuli, as the network takes them."""


@dataclass(frozen=True)
class FeatureKey:
    """Everything that features depend on.

    Attributes
    ----------
    stimuli
        Fingerprint of what they are, and of their order.
    extractor, network
        What the network is called, and the fingerprint of its weights; see `fingerprint_of_network`.
    transform, nodes, precision
        As the card says.
    code
        Fingerprint of the code between stimuli and features; see `fingerprint_of_code`.
    """

    stimuli: str
    extractor: str
    network: str
    transform: str
    nodes: tuple[str, ...]
    precision: str
    code: str

    @property
    def digest(self) -> str:
        """The name of the folder."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class CachedFeatures:
    """Features on disk.

    Attributes
    ----------
    array
        Shape (n_stimuli, n_features), float32; a memory map.
    columns
        Those of each node.
    digest
        The name of what they are of.
    """

    array: NDArray[np.float32]
    columns: dict[str, slice]
    digest: str


def fingerprint_of_network(network: nn.Module) -> str:
    """A hash of a network's weights: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint_of_code(features: LayerFeatures) -> str:
    """A hash of the source of every module that a network is made of, and of the versions of what these call."""
    named = {type(features).__module__, features.transform.__module__, *_ALWAYS}
    named |= {type(module).__module__ for module in features.network.modules()}
    digest = hashlib.sha256(
        f"{torch.__version__} {torchvision.__version__} {PIL.__version__} {np.__version__}".encode()
    )
    for name in sorted(name for name in named if not name.startswith("torch.")):
        file = getattr(sys.modules.get(name), "__file__", None)
        digest.update(name.encode() + (Path(file).read_bytes() if file else b""))
    return digest.hexdigest()


def cached_features(
    features: LayerFeatures,
    key: FeatureKey,
    read: Read,
    n_stimuli: int,
    folder: Path,
    *,
    device: torch.device,
    show_progress: bool | None = None,
) -> CachedFeatures:
    """The features of some stimuli, from the folder where they are there, and into it where not.

    Parameters
    ----------
    read
        Gives stimuli by their places from 0 to n_stimuli - 1.
    folder
        Of all features; safe to delete.

    Raises
    ------
    StorageError
        If the disk is too small or refuses it; what was computed is kept.
    InvalidParameterError
        If the network gives numbers that are not finite.
    """
    own = folder / key.digest
    found = _read(own, key, n_stimuli)  # without the lock: it may be in a place that cannot be written to
    if found is not None:
        return found
    with storage_errors(own):
        own.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(folder / f"{key.digest}.lock"):
        found = _read(own, key, n_stimuli)
        if found is None:
            _compute(features, key, read, n_stimuli, own, device, show_progress)
            found = _read(own, key, n_stimuli)
    if found is None:
        raise CorruptedFileError(
            f"{own} is not what was written to it just now. Look at that disk, or keep the features elsewhere "
            "(cache=..., --cache)."
        )
    return found


def peak_bytes(features: nn.Module, stimulus: NDArray[Any], n_features: int, device: torch.device) -> int:
    """Bytes that `cached_features` needs at its peak, on the CPU or on the device, by a run on one stimulus.

    Parameters
    ----------
    stimulus
        Shape (1, ...).
    """
    largest = 0

    def look(module: nn.Module, given: Any, put_out: Any) -> None:
        nonlocal largest
        tensors = [each for each in (*given, put_out) if isinstance(each, Tensor)]
        largest = max(largest, sum(each.numel() * each.element_size() for each in tensors))

    handles = [module.register_forward_hook(look) for module in features.modules() if not list(module.children())]
    try:
        with torch.no_grad():
            features(torch.from_numpy(stimulus).to(device))
    finally:
        for handle in handles:
            handle.remove()
    weights = sum(value.numel() * value.element_size() for value in features.state_dict().values())
    per_stimulus = 4 * n_features * _N_BATCHES_HELD + 6 * stimulus.nbytes
    return int(weights + BATCH * per_stimulus + 3 * largest * _at_once(stimulus))


def _at_once(stimuli: NDArray[Any]) -> int:
    """How many stimuli are computed together: fewer videos than pictures; fixed, as `BATCH`."""
    return VIDEOS if stimuli.ndim == 5 else BATCH


def _read(own: Path, key: FeatureKey, n_stimuli: int) -> CachedFeatures | None:
    """What is in a folder; None if it is not there, not whole, or of something else."""
    try:
        said = json.loads((own / "features.json").read_text("utf-8"))
        array: NDArray[np.float32] = np.load(own / "features.npy", mmap_mode="r", allow_pickle=False)
        if any(said[name] != value for name, value in json.loads(json.dumps(asdict(key))).items()):
            return None
        ends = list(accumulate(said["sizes"]))
        columns = [slice(end - size, end) for end, size in zip(ends, said["sizes"], strict=True)]
        named = dict(zip(said["nodes"], columns, strict=True))
        fits = array.shape == (n_stimuli, ends[-1]) and array.dtype == np.float32 and array.flags.c_contiguous
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{own} cannot be read: {error.strerror or error}. Look at its owner and rights with:  ls -ld {own}"
        ) from error
    except _UNREADABLE:
        return None
    if not fits or not _is_whole(array, said.get("checksums")):
        return None
    return CachedFeatures(array, named, own.name)


def _is_whole(array: NDArray[np.float32], checksums: Any) -> bool:
    """Whether each batch has the checksum that it had when it was written."""
    batches = list(slices(len(array), BATCH))
    if not isinstance(checksums, list) or len(checksums) != len(batches):
        return False
    for places, expected in zip(batches, checksums, strict=True):
        if google_crc32c.value(np.ascontiguousarray(array[places]).view(np.uint8).reshape(-1)) != expected:
            return False
        release_pages(array)
    return True


def _compute(
    features: LayerFeatures,
    key: FeatureKey,
    read: Read,
    n_stimuli: int,
    own: Path,
    device: torch.device,
    show_progress: bool | None,
) -> None:
    part = own / "features.part"
    with storage_errors(part, kept="What was computed is kept."), _Growing.open(part, n_stimuli) as growing:
        done = growing.n_done
        with progress_bar(f"features of {key.extractor}", n_stimuli, "stimuli", show_progress, done) as advance:
            _fill(growing, features, read, device, advance)
    with replacing(own / "features.json") as described:
        said = {**asdict(key), "sizes": growing.sizes, "checksums": growing.checksums}
        described.write(json.dumps(said, indent=1).encode())
    part.replace(own / "features.npy")
    growing.ledger.unlink()


def _fill(growing: _Growing, features: LayerFeatures, read: Read, device: torch.device, advance: Advance) -> None:
    """Compute what is missing; the next batch is read, and the last one written, meanwhile."""
    batches = [np.arange(places.start, places.stop) for places in slices(growing.n_stimuli, BATCH)]
    missing = batches[-(-growing.n_done // BATCH) :]
    with ThreadPoolExecutor(2) as pool:
        upcoming = [pool.submit(read, places) for places in missing[:1]]
        written: Future[None] | None = None
        for index, places in enumerate(missing):
            stimuli = upcoming.pop().result()
            upcoming = [pool.submit(read, following) for following in missing[index + 1 : index + 2]]
            layers = _layers(features, stimuli, device, places)
            if written is not None:
                written.result()
            written = pool.submit(growing.append, layers)
            advance(len(places))
        if written is not None:
            written.result()


@torch.no_grad()
def _layers(features: LayerFeatures, stimuli: Any, device: torch.device, places: NDArray[np.intp]) -> list[Tensor]:
    parts = torch.from_numpy(stimuli).split(_at_once(stimuli))  # type: ignore[no-untyped-call]
    computed = [[layer.float().cpu() for layer in features(part.to(device))] for part in parts]
    layers = computed[0] if len(computed) == 1 else [torch.cat(each) for each in zip(*computed, strict=True)]
    if not all(bool(torch.isfinite(layer.sum())) for layer in layers):  # a hundredth of the time of looking at each
        raise InvalidParameterError(
            f"The network gives values that are not finite for the training stimuli {places[0]} to {places[-1]}. Try "
            "precision: float32 in the card, and look at these stimuli."
        )
    return layers


@dataclass
class _Growing:
    """The file while it is being written, and how much of it is on the disk."""

    file: BinaryIO
    ledger: Path
    n_stimuli: int
    n_done: int
    sizes: list[int]
    first_byte: int
    checksums: list[int]
    recorded_at: float = -math.inf

    @classmethod
    @contextmanager
    def open(cls, path: Path, n_stimuli: int) -> Iterator[_Growing]:
        """From where the ledger says that an interrupted call came to, if all before is what was written."""
        ledger = path.with_name("ledger.json")
        said = _read_ledger(ledger, path, n_stimuli)
        with path.open("r+b" if said else "wb") as file:
            growing = cls(
                file, ledger, n_stimuli, **(said or {"n_done": 0, "sizes": [], "first_byte": 0, "checksums": []})
            )
            file.seek(growing.first_byte + growing.n_done * 4 * sum(growing.sizes))
            file.truncate()
            try:
                yield growing
            finally:
                growing.record()

    def append(self, layers: list[Tensor]) -> None:
        """Write a batch; every few seconds the ledger says how much is on the disk."""
        if not self.sizes:
            self._begin([layer.shape[1] for layer in layers])
        value = 0
        for rows in zip(*(np.ascontiguousarray(layer.numpy()) for layer in layers), strict=True):
            for row in rows:  # laid side by side in the file, not in memory first
                self.file.write(row.data)
                value = google_crc32c.extend(value, row.view(np.uint8))
        self.checksums.append(value)
        self.n_done += len(layers[0])
        if time.monotonic() - self.recorded_at > _SECONDS_BETWEEN_RECORDS:
            self.record()

    def record(self) -> None:
        """Put what was written on the disk, and its length into the ledger."""
        if not self.sizes:
            return
        self.file.flush()
        os.fsync(self.file.fileno())
        self.recorded_at = time.monotonic()
        with replacing(self.ledger) as file:
            names = ("n_done", "sizes", "first_byte", "checksums")
            file.write(json.dumps({name: getattr(self, name) for name in names}).encode())

    def _begin(self, sizes: list[int]) -> None:
        shape = (self.n_stimuli, sum(sizes))
        needed, free = 4 * shape[0] * shape[1], shutil.disk_usage(self.ledger.parent).free
        if needed > free:
            raise StorageError(
                f"The features of {self.n_stimuli:,} stimuli need {size_words(needed)} on disk, and "
                f"{self.ledger.parent.parent} has {size_words(free)} free. Make room, or keep them elsewhere "
                "(cache=..., --cache)."
            )
        self.file.write(_header(shape))
        self.sizes, self.first_byte = sizes, self.file.tell()


def _read_ledger(ledger: Path, part: Path, n_stimuli: int) -> dict[str, Any] | None:
    """How far an interrupted call came; None if nothing is known of it, or what is there is not what was written."""
    try:
        said = json.loads(ledger.read_text("utf-8"))
        n_done, sizes, first_byte, checksums = (said[name] for name in ("n_done", "sizes", "first_byte", "checksums"))
        row_bytes = 4 * sum(sizes)
        batches = list(slices(n_done, BATCH))
        is_end_of_batch = 0 < n_done <= n_stimuli and (n_done == n_stimuli or n_done % BATCH == 0)
        if not is_end_of_batch or len(said) != 4 or len(batches) != len(checksums):
            return None
        with part.open("rb") as file:
            header = file.read(first_byte)
            whole = header == _header((n_stimuli, sum(sizes))) and all(
                google_crc32c.value(file.read((places.stop - places.start) * row_bytes)) == expected
                for places, expected in zip(batches, checksums, strict=True)
            )
    except (FileNotFoundError, *_UNREADABLE):
        return None
    return said if whole else None


def _header(shape: tuple[int, int]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()
