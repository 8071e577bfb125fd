"""Write all files of a model into one zip file, with the layout of the guide, for others to unpack.

The same files give the same bytes: names are sorted, times and rights are fixed. (Another version of zlib
may compress differently; weights are stored as they are.)
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, listing
from berg.core.layout import ACCURACY, METADATA, PUBLISHED_NAME, WEIGHTS, ModelId, split_model_path
from berg.core.model_card import ModelCard
from berg.system.durable_file import replacing
from berg.system.file_hash import CHUNK
from berg.system.portable_names import name_fault, names_clash
from berg.system.progress import Advance, progress_bar
from berg.weights import manifest, model_files
from berg.weights.manifest import Entry

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can name
_N_SAMPLES, _SAMPLE_BYTES = 16, 2**16
_WORTH_COMPRESSING = 0.8
_TEMPORARY = re.compile(r"\..*|.*~|#.*#|.*\.(tmp|temp|part|partial|swp|bak|lock)|__pycache__|Thumbs\.db|desktop\.ini")
_OUTSIDE_STORE = re.compile(r"(?m)^(\s+store:\s*)(built_in|package)\b")


@dataclass(frozen=True)
class Packed:
    """A zip file of a model.

    Attributes
    ----------
    path
        The zip file.
    entries
        The files in it, as its manifest lists them.
    left_out
        Paths in the model's folder that were not packed: hidden and temporary files, and what lies elsewhere
        than the guide says.
    """

    path: Path
    entries: list[Entry]
    left_out: list[str]


def pack(
    card: ModelCard,
    berg_dir: Path | None = None,
    out: Path | None = None,
    *,
    force: bool = False,
    show_progress: bool | None = None,
) -> Packed:
    """Write a zip file with the weights, accuracy, metadata, card and manifest of a model.

    Parameters
    ----------
    card
        Of the model. In the zip file it says that the files lie in a BERG directory.
    berg_dir
        Where the model's files lie; built-in models do not need it.
    out
        The zip file, which is replaced if it is there; by default the model id, in the current folder.
    force
        Pack files that differ from the manifest in the model's folder.
    show_progress
        None: a bar if standard error is a terminal.

    Raises
    ------
    MissingFileError
        When the model has no weights there.
    InvalidParameterError
        When a file has a name that could not be unpacked everywhere, or is a link that leads elsewhere.
    CorruptedFileError
        When a file is not what the manifest in the model's folder says, or changes meanwhile.
    StorageError
        When the zip file cannot be written.
    """
    out = Path(f"{card.model_id}.zip") if out is None else out
    check_out(out)
    folder = model_files.model_folder(card, None if berg_dir is None else str(berg_dir))
    files, left_out = _files_of(folder, card.model_id)
    held = manifest.recorded_files(folder)
    total = sum(path.stat().st_size for path in files.values())
    with progress_bar(f"pack {card.model_id}", total, "bytes", show_progress) as advance, replacing(out) as file:
        with zipfile.ZipFile(file, "w") as archive:
            entries = _write_all(archive, card, files, held, advance)
        if not force:
            _check_held(held, entries, folder / manifest.NAME)
    return Packed(out, entries, left_out)


def check_out(out: Path) -> None:
    """Raise a typed error if no zip file can be written there."""
    if out.suffix != ".zip" or out.is_dir():
        raise InvalidParameterError(f"'{out}' is no name for a zip file. Try --out {out.stem}.zip")
    if not out.parent.is_dir():
        raise MissingFileError(f"There is no folder {out.parent}. Type:  mkdir -p {out.parent}")


def _files_of(folder: Path, model_id: str) -> tuple[dict[str, Path], list[str]]:
    """The files of a model by their path in its folder, sorted, and what is left out."""
    files, left_out = {}, []
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if name in (manifest.NAME, f"{model_id}.yaml"):
            continue  # they are written anew
        if path.is_dir() or _TEMPORARY.fullmatch(path.name) or not _belongs(name, model_id):
            left_out.append(name)
        else:
            files[name] = path
    _check_files(folder, files)
    return dict(sorted(files.items())), sorted(left_out)


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, and those of its folders that are not entered: temporary ones, and links."""
    for place, folders, names in os.walk(folder):
        entered = [name for name in folders if not _TEMPORARY.fullmatch(name) and not Path(place, name).is_symlink()]
        yield from (Path(place, name) for name in (*names, *folders) if name not in entered)
        folders[:] = entered


def _belongs(name: str, model_id: str) -> bool:
    return split_model_path((ModelId.parse(model_id).folder("") / name).as_posix()) is not None


def _check_files(folder: Path, files: dict[str, Path]) -> None:
    if not any(name.startswith(f"{WEIGHTS}/") for name in files):
        raise MissingFileError(f"There are no weights to pack in {folder / WEIGHTS}. Is that the BERG directory?")
    home = folder.resolve()
    for name, path in files.items():
        if fault := name_fault(name):
            raise InvalidParameterError(f"{path} could not be unpacked everywhere: {fault}. Give it another name.")
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(home):
            raise InvalidParameterError(
                f"{path} is a link that leads out of the model's folder, to {target}. Put the file itself in its "
                f"place:  cp --remove-destination {target} {path}"
            )
        if not path.is_file():
            raise InvalidParameterError(f"{path} is no file but a broken link, device, pipe or socket. Remove it.")
    if clash := names_clash(files):
        raise InvalidParameterError(f"The files of {folder} could not be unpacked everywhere: {clash[1]}.")


def _write_all(
    archive: zipfile.ZipFile, card: ModelCard, files: dict[str, Path], held: dict[str, Entry], advance: Advance
) -> list[Entry]:
    top = ModelId.parse(card.model_id).folder(PUBLISHED_NAME).as_posix()
    for part in (ACCURACY, WEIGHTS, METADATA):  # the guide wants all three, though one may be empty
        archive.writestr(_described(f"{top}/{part}/"), b"")
    entries = [_write_file(archive, f"{top}/{name}", name, path, advance) for name, path in files.items()]
    name, text = f"{card.model_id}.yaml", _card_for_a_directory(card)
    archive.writestr(_described(f"{top}/{name}", len(text), zipfile.ZIP_DEFLATED), text)
    entries.append(Entry(name, len(text), hashlib.sha256(text).hexdigest()))
    entries = [_with_source(entry, held.get(entry.path)) for entry in entries]
    listed = manifest.format_manifest(entries)
    archive.writestr(_described(f"{top}/{manifest.NAME}", len(listed), zipfile.ZIP_DEFLATED), listed)
    return entries


def _write_file(archive: zipfile.ZipFile, member: str, name: str, path: Path, advance: Advance) -> Entry:
    size, digest, written = path.stat().st_size, hashlib.sha256(), 0
    with archive.open(_described(member, size, _compression(path, size)), "w") as target:
        for chunk in _chunks(path):
            digest.update(chunk)
            target.write(chunk)
            written += len(chunk)
            advance(len(chunk))
    if written != size:
        raise CorruptedFileError(f"{path} changed while it was packed. Try again when nothing writes to it.")
    return Entry(name, size, digest.hexdigest())


def _chunks(path: Path) -> Iterator[bytes]:
    with _opened(path) as file:
        while chunk := file.read(CHUNK):
            yield chunk


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}.") from error


def _compression(path: Path, size: int) -> int:
    """Deflate if samples of the file say that it pays; weights hardly get smaller."""
    samples = []
    with _opened(path) as file:
        for index in range(_N_SAMPLES):
            file.seek(index * max(0, size - _SAMPLE_BYTES) // (_N_SAMPLES - 1))
            samples.append(file.read(_SAMPLE_BYTES))
    sample = b"".join(dict.fromkeys(samples))
    pays = len(zlib.compress(sample, 1)) < _WORTH_COMPRESSING * len(sample)
    return zipfile.ZIP_DEFLATED if pays else zipfile.ZIP_STORED


def _described(name: str, size: int = 0, compression: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    """The same for every writer and day; from the size, zipfile sees whether it needs zip64."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3
    kind = stat.S_IFDIR | 0o755 if name.endswith("/") else stat.S_IFREG | 0o644
    info.external_attr = kind << 16
    info.compress_type, info.file_size = compression, size
    return info


def _card_for_a_directory(card: ModelCard) -> bytes:
    """The card as it stands, but that its files lie in a BERG directory, which is where they will be unpacked."""
    text = card.path.read_text(encoding="utf-8")
    if card.files is None or card.files.store == "berg_dir":
        return text.encode()
    changed = _OUTSIDE_STORE.sub(r"\1berg_dir", text)
    files = ModelCard.parse(changed, str(card.path)).files
    if files is None or files.store != "berg_dir":
        raise InvalidParameterError(f"{card.path}: write files.store on a line of its own, so that it can be packed.")
    return changed.encode()


def _with_source(entry: Entry, held: Entry | None) -> Entry:
    """Where a file came from is known as long as it is the same file."""
    return held if held is not None and held.sha256 == entry.sha256 else entry


def _check_held(held: dict[str, Entry], entries: list[Entry], path: Path) -> None:
    """A file that was damaged on disk would else be packed with a hash that calls it whole."""
    changed = [e.path for e in entries if e.path in held and held[e.path].sha256 != e.sha256 and "/" in e.path]
    if changed:
        raise CorruptedFileError(
            f"These files are not what {path} says: {listing(changed, 4)}. If you changed them, delete that manifest "
            "or pack with --force (in Python force=True); else get them again."
        )
