"""Getting the files of a model: which, how large, from where; then fetched, verified and recorded.

What was recorded in the model's manifest, or is pinned beside its card in the package, is what must come.
The public bucket has no hashes: there, the first download records them, and every later one is held to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path, PurePosixPath

from berg.core import settings
from berg.core.commands import how_to_forget
from berg.core.exceptions import CorruptedFileError, DownloadError, InvalidParameterError, listing
from berg.core.layout import METADATA, ModelId
from berg.core.model_card import ModelCard
from berg.system.interruption import told_if_interrupted
from berg.system.locks import directory_lock
from berg.transfer.fetch import Fetched, WantedFile, ended_together, fetch, is_other, results
from berg.transfer.file_heads import HEAD_BYTES, file_fault
from berg.transfer.partial_file import aside_name
from berg.transfer.remote import Remote, TryAgain
from berg.transfer.retries import Patience
from berg.transfer.source import Source, parse_source
from berg.weights import manifest, model_files
from berg.weights.manifest import DATE_FORMAT, Entry

_WHAT_IS_KEPT = "What has come is kept; give the same command again to go on"


def plan(
    card: ModelCard,
    names: Iterable[str],
    networks: Iterable[WantedFile],
    berg_dir: Path,
    source: str | Source,
    network_source: str | Source | None = None,
) -> list[WantedFile]:
    """The files of a model, with what is known of each; asks nobody.

    Of a model whose weights a Python package brings, only its network is downloaded.

    Parameters
    ----------
    names
        Paths in the model's folder.
    """
    if card.files is None or card.files.store != "berg_dir":
        raise InvalidParameterError(f"{card.model_id} brings its files along; there is nothing to download.")
    if card.files.from_package is not None:
        return [_from_mirror(network, network_source) for network in networks]
    known = known_files(card, berg_dir)
    inside = ModelId.parse(card.model_id).folder("").as_posix()
    where = parse_source(source) if isinstance(source, str) else source
    keys = _metadata_keys(card)
    items = [
        _wanted(f"{inside}/{name}", where, berg_dir, known.get(name), card.model_id, keys)
        for name in dict.fromkeys(names)
    ]
    return items + [_from_mirror(network, network_source) for network in networks]


def _from_mirror(network: WantedFile, mirror: str | Source | None) -> WantedFile:
    if mirror is None:
        return network
    return replace(network, source=parse_source(mirror) if isinstance(mirror, str) else mirror)


def known_files(card: ModelCard, berg_dir: Path) -> dict[str, Entry]:
    """What is pinned in the package beside the card, and what is recorded in the BERG directory, by path.

    A record of a file that is no such file, as its first bytes tell, is worth nothing and left out.
    """
    folder, pinned = ModelId.parse(card.model_id).folder(berg_dir), card.path.with_suffix(".tsv")
    recorded = manifest.recorded_files(folder)
    known = {path: entry for path, entry in recorded.items() if not _is_other(folder / path)}
    return {**known, **(manifest.read_manifest(pinned) if pinned.is_file() else {})}


def _is_other(target: Path) -> bool:
    """Whether something else lies there than the name says."""
    return target.is_file() and file_fault(target) is not None


def _wanted(
    path: str, source: Source, folder: Path, known: Entry | None, model: str, keys: frozenset[str]
) -> WantedFile:
    size, sha256 = (known.size, known.sha256) if known else (None, None)
    is_metadata = path.endswith(".json") and PurePosixPath(path).parent.name == METADATA
    return WantedFile(path, size, sha256, source, folder, model, keys if is_metadata else frozenset())


def network_weights(url: str, path: str | Path, sha256: str) -> WantedFile:
    """The weights of a pretrained network that models share.

    Parameters
    ----------
    url
        Where its publisher has it.
    path
        Where it lies on this machine, or will.
    sha256
        The first digits of its hash, as published.
    """
    base, _, name = url.rpartition("/")
    return WantedFile(name, None, sha256, parse_source(base), Path(path).parent)


def _metadata_keys(card: ModelCard) -> frozenset[str]:
    """What the card looks up in the metadata of a model, as far as the first dot."""
    coordinates = (place for axis in card.axes.values() for place in axis.coordinates.values())
    selected = (selector.metadata for selector in card.select.values() if selector.metadata)
    places = (place for several in (*coordinates, *selected) for place in several.rstrip("?").split("|"))
    firsts = (place.partition(".")[0] for place in places)
    return frozenset(first for first in firsts if "{" not in first)


def with_sizes(items: Sequence[WantedFile], parallel: int = 8) -> list[WantedFile]:
    """The same files, their sizes asked for if they are not known.

    Raises
    ------
    DownloadError
    """
    unknown = [item for item in items if item.size is None]
    sizes = {item.target: item.target.stat().st_size for item in unknown if item.is_here}
    for source, asked in groupby((item for item in unknown if not item.is_here), key=_source_of):
        paths = list(asked)
        if source.is_local or not settings.offline().value:
            found = _sizes(source, [item.path for item in paths], parallel)
            sizes |= {item.target: size for item, size in zip(paths, found, strict=True) if size is not None}
    return [replace(item, size=sizes.get(item.target, item.size)) for item in items]


def _source_of(wanted: WantedFile) -> Source:
    assert wanted.source is not None  # `plan` says it of each
    return wanted.source


def _sizes(source: Source, paths: list[str], parallel: int) -> list[int | None]:
    threads = ThreadPoolExecutor(parallel)
    told, connections = told_if_interrupted(lambda: _WHAT_IS_KEPT), closing(Remote(source, Patience(), parallel))
    with told, connections as remote, threads, ended_together(remote, threads):
        return results([threads.submit(_size, remote, path) for path in paths])


def _size(remote: Remote, path: str) -> int | None:
    for attempt in range(1, remote.patience.attempts + 1):
        try:
            with remote.open(path, 0, HEAD_BYTES, None) as answer:
                return answer.total
        except TryAgain as error:
            reason = error
            remote.wait(remote.patience.pause(attempt, error.seconds))
    raise DownloadError(f"{remote.source.url(path)} cannot be had now: {reason}. Is this machine online?") from reason


def receive(
    items: Sequence[WantedFile], *, parallel: int = 4, progress: bool | None = None, patience: Patience | None = None
) -> list[Fetched]:
    """Fetch the files that are not here, verify all of them, and record those of models in their manifests.

    Returns
    -------
    fetched
        In the order of `items`; files that were here before are among them, hashed.

    Raises
    ------
    DownloadError, CorruptedFileError, StorageError
    """
    fetched: dict[Path, Fetched] = {}
    for (_, folder, model_id), group in groupby(items, key=lambda item: (item.source, item.folder, item.model)):
        wanted = list(group)
        with _told_how_to_forget(wanted), told_if_interrupted(lambda: _WHAT_IS_KEPT):
            source = _source_of(wanted[0])
            found = fetch(source, wanted, folder, parallel=parallel, progress=progress, patience=patience)
        fetched |= {item.target: each for item, each in zip(wanted, found, strict=True)}
        if model_id:
            _check_metadata(wanted)
            _record(model_id, folder, found)
    return [fetched[item.target] for item in items]


@contextmanager
def _told_how_to_forget(items: Sequence[WantedFile]) -> Iterator[None]:
    """Add to the error of a wrong hash or size how to forget it, since it may be the record that is wrong."""
    try:
        yield
    except (CorruptedFileError, DownloadError) as error:
        others = [item for item in items if item.model and is_other(error, item.path)]
        if not others or not (command := how_to_forget(others[0].target)):
            raise
        raise type(error)(
            f"{error} If it is the record of it here that is wrong, because something else came the first time, forget "
            f"it and download again:  {command}"
        ) from error


def _check_metadata(items: Sequence[WantedFile]) -> None:
    """Raise DownloadError if what came as metadata is JSON, but nothing that the card knows; it is set aside."""
    for item in items:
        if item.metadata_keys and not item.metadata_keys & _keys_in(item.target):
            aside = aside_name(item.target)
            item.target.replace(aside)
            raise DownloadError(
                f"{_source_of(item).url(item.path)} is answered by JSON without {listing(sorted(item.metadata_keys))}, "
                f"which the card of {item.model} looks for; it is kept as {aside.name}. Is this a network with a login "
                "page? Open any page in a browser, log in, and try again."
            )


def _keys_in(path: Path) -> set[str]:
    try:
        return set(model_files.read_metadata(path))
    except CorruptedFileError:
        return set()


def _record(model_id: str, berg_dir: Path, fetched: Sequence[Fetched]) -> None:
    inside = ModelId.parse(model_id).folder("").as_posix()
    now = datetime.now(UTC).strftime(DATE_FORMAT)
    entries = [
        Entry(
            PurePosixPath(each.path).relative_to(inside).as_posix(),
            each.size,
            each.sha256,
            "" if each.was_here else each.source,
            now,
        )
        for each in fetched
    ]
    update_manifest(berg_dir, model_id, entries)


def update_manifest(berg_dir: Path, model_id: str, entries: Iterable[Entry], removed: Iterable[str] = ()) -> None:
    """Add entries to the manifest of a model, and take out others; one process at a time.

    An entry of the same size and hash as before keeps its source. A manifest without entries is deleted.
    """
    folder = ModelId.parse(model_id).folder(berg_dir)
    path = folder / manifest.NAME
    with directory_lock(berg_dir):
        held = manifest.recorded_files(folder)
        for entry in entries:
            before = held.get(entry.path)
            same = before is not None and (before.size, before.sha256) == (entry.size, entry.sha256)
            held[entry.path] = replace(entry, source=entry.source or before.source) if before and same else entry
        for name in removed:
            held.pop(name, None)
        if held:
            manifest.write_manifest(path, held.values())
        else:
            path.unlink(missing_ok=True)
