"""What a file holds, by its headers alone: keys, shapes and dtypes. No array is read, nothing of a pickle is run."""

from __future__ import annotations

import gzip
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berg.core.exceptions import BERGError
from berg.transfer.file_heads import file_fault
from berg.weights.inert_pickle import Call, Name, Pairs, PersistentId, read_records
from berg.weights.mapped_file import map_file, shown
from berg.weights.npy_files import ALLOWED, npy_header
from berg.weights.pt_files import TORCH_ALLOWED

MAX_TEXT_BYTES = 2**24
MAX_ENTRIES = 2_000
_MAX_PICKLE_BYTES = 2**26  # of a file of torch: its arrays lie beside the pickle
_NIFTI_BYTES = 352
_UNREADABLE = (
    *(BERGError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
"""What readers raise for files that are not what they claim to be."""


@dataclass(frozen=True)
class Held:
    """Something in a file: an array, a number, a list, an object.

    Attributes
    ----------
    key
        Its place, steps between dots.
    kind
        A dtype, or what else it is: ``list of 4 text``, ``object sklearn.decomposition._pca.PCA``.
    shape
        Of an array; None of anything else.
    """

    key: str
    kind: str
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class FileHeader:
    """A file by its header.

    Attributes
    ----------
    kind
        Such as ``npy``, ``npy, pickled dict``, ``zarr 3``.
    problem
        Why nothing, or not all, is said of it; empty if it is whole as far as headers tell.
    """

    path: str
    size: int
    kind: str
    held: tuple[Held, ...] = field(default=())
    problem: str = ""


class _AnyName(dict[tuple[str, str], str]):
    """Names that are known, and all others with a role of no consequence: they are told, never looked up."""

    def get(self, key: tuple[str, str], default: object = None) -> Any:
        return super().get(key, "other")


def read_header(path: Path, name: str = "") -> FileHeader:
    """What a file holds, or the folder of a zarr store.

    Parameters
    ----------
    name
        What to call it.
    """
    name = name or path.name
    if path.is_dir():
        return _zarr(path, name)
    size = path.stat().st_size
    reader = _READERS.get(path.suffix.lower())
    try:
        if fault := file_fault(path):
            return FileHeader(name, size, path.suffix[1:] or "file", (), fault)
        if reader is None:
            return FileHeader(name, size, path.suffix[1:] or "file")
        kind, held = reader(path)
        entries = tuple(_first(held))
    except _UNREADABLE as error:
        return FileHeader(name, size, path.suffix[1:], (), shown(str(error).replace(str(path), path.name), 300)[1:-1])
    problem = f"more than {MAX_ENTRIES:,} entries, the others left out" if len(entries) > MAX_ENTRIES else ""
    return FileHeader(name, size, kind, entries[:MAX_ENTRIES], problem)


def _first(held: Iterator[Held]) -> Iterator[Held]:
    for number, entry in enumerate(held):
        if number > MAX_ENTRIES:
            return
        yield entry


Content = tuple[str, Iterator[Held]]


def _npy(path: Path) -> Content:
    data = map_file(path)
    kind, shape, start = npy_header(path, data)
    if kind != "O":
        itemsize = int("".join(filter(str.isdigit, kind)) or 1) * (4 if "U" in kind else 1)
        missing = _product(shape) * itemsize - (len(data) - start)
        return "npy" if not missing else f"npy, {missing:,} bytes missing", iter([Held("", kind, shape)])
    record = read_records(data[start:], path, _AnyName(ALLOWED))
    match record:
        case Call(name=Name(role="array"), state=(_, (), _, _, [inner])):
            return "npy, pickled", _of_record("", inner)
    return "npy, pickled array", _of_record("", record)


def _pickle(path: Path) -> Content:
    return "pickle", _of_record("", read_records(map_file(path), path, _AnyName(ALLOWED)))


def _torch(path: Path) -> Content:
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise ValueError("in the format of torch before 1.6, whose header is not apart from its tensors")
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(infos) != 1 or infos[0].compress_type != zipfile.ZIP_STORED or infos[0].file_size > _MAX_PICKLE_BYTES:
            raise ValueError("no file of torch.save: it has no single data.pkl, stored as it is")
        data = memoryview(archive.read(infos[0]))
        scripted = any("/code/" in info.filename for info in archive.infolist())
    if scripted:
        raise ValueError("a TorchScript program")
    return "torch", _of_record("", read_records(data, path, _AnyName(TORCH_ALLOWED), persistent_ids=True))


def _npz(path: Path) -> Content:
    with zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist()[: MAX_ENTRIES + 1]]
        return "npz", iter([_npz_member(archive, name, path) for name in names])


def _npz_member(archive: zipfile.ZipFile, name: str, path: Path) -> Held:
    with archive.open(name) as member:
        head = member.read(12_000)
    kind, shape, _ = npy_header(path, memoryview(head))
    return Held(name.removesuffix(".npy"), kind, shape)


def _safetensors(path: Path) -> Content:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MAX_TEXT_BYTES, path.stat().st_size):
            raise ValueError(f"its header declares {length:,} bytes")
        header = json.loads(file.read(length))
    texts = header.pop("__metadata__", {})
    stop = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    missing = stop + 8 + length - path.stat().st_size
    held = [Held(name, entry["dtype"], tuple(map(int, entry["shape"]))) for name, entry in header.items()]
    held += [Held(f"__metadata__.{name}", "text") for name in texts]
    return "safetensors" if not missing else f"safetensors, {missing:,} bytes missing", iter(held)


def _hdf5(path: Path) -> Content:
    with path.open("rb") as file:
        if file.read(3) == b"CDF":
            raise ValueError("in the format of netCDF 3, whose variables are not listed")
    import h5py

    held: list[Held] = []

    def keep(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            held.append(Held(name.replace("/", "."), str(item.dtype), tuple(item.shape or ())))
        return True if len(held) > MAX_ENTRIES else None

    with h5py.File(path, "r") as content:
        content.visititems(keep)  # follows no link to another file
    return "hdf5", iter(held)


def _json(path: Path) -> Content:
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"{size:,} bytes of JSON, which has no header; read are at most {MAX_TEXT_BYTES:,}")
    return "json", _of_json("", json.loads(path.read_text("utf-8")), 0)


def _table(path: Path) -> Content:
    with path.open("rb") as file:
        line = file.readline(MAX_TEXT_BYTES // 256).decode("utf-8", "replace").rstrip("\r\n")
    columns = line.split("\t" if path.suffix.lower() == ".tsv" else ",")
    return "table", iter([Held(column.strip('" '), "column") for column in columns])


def _nifti(path: Path) -> Content:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        head = file.read(_NIFTI_BYTES)
    if path.suffix == ".gz" and not path.name.endswith(".nii.gz"):
        return "gzip", iter(())
    order = "<" if head[:4] == struct.pack("<i", 348) else ">"
    if head[:4] != struct.pack(f"{order}i", 348):
        raise ValueError("no NIfTI-1 header")
    n_axes, *lengths = struct.unpack(f"{order}8h", head[40:56])
    (code,) = struct.unpack(f"{order}h", head[70:72])
    return "nifti", iter([Held("", f"datatype {code}", tuple(lengths[: max(0, min(n_axes, 7))]))])


def _zarr(path: Path, name: str) -> FileHeader:
    """The arrays of a store, by the JSON files of its groups; chunks are counted, not opened."""
    held: list[Held] = []
    size, version, problem = 0, "", ""
    for folder, _, files in os.walk(path):
        size += sum((Path(folder) / file).lstat().st_size for file in files)
        found = [file for file in ("zarr.json", ".zarray") if file in files]
        if not found:
            continue
        try:
            content = json.loads((Path(folder) / found[0]).read_text("utf-8"))
            version = str(content["zarr_format"])
            if "shape" in content:
                key = Path(folder).relative_to(path).as_posix().replace("/", ".")
                kind = str(content.get("data_type", content.get("dtype", "?")))
                held.append(Held(key, kind, tuple(map(int, content["shape"]))))
        except _UNREADABLE as error:
            problem = f"{Path(folder).relative_to(path) / found[0]}: {error}"
    kind = f"zarr {version}".strip()
    return FileHeader(name, size, kind, tuple(held[:MAX_ENTRIES]), problem or ("" if version else "no zarr metadata"))


def _of_record(key: str, record: object) -> Iterator[Held]:
    """What a record of an inert pickle stands for, without making it."""
    match record:
        case Pairs(pairs=pairs):
            yield from _of_pairs(key, pairs)
        case Call(name=Name(role="array"), state=(_, tuple(shape), kind, _, data)):
            yield Held(key, _dtype(kind), _lengths(shape)) if not isinstance(data, list) else _objects(key, shape, data)
        case Call(name=Name(role="array of buffer"), arguments=(_, kind, tuple(shape), *_)):
            yield Held(key, _dtype(kind), _lengths(shape))
        case Call(name=Name(role="scalar"), arguments=(kind, *_)):
            yield Held(key, _dtype(kind), ())
        case Call(name=Name(role="tensor"), arguments=(PersistentId(value=(_, Name(role=role), *_)), _, size, *_)):
            yield Held(key, role.removesuffix("Storage").lower(), _lengths(size))
        case Call(name=Name(role="parameter"), arguments=(tensor, *_)):
            yield from _of_record(key, tensor)
        case Call(name=Name(role="ordered dict"), pairs=pairs):
            yield from _of_pairs(key, pairs)
        case Call(name=name, state=state):
            yield Held(key, f"object {shown(name.spelt)[1:-1]}")
            if isinstance(state, Pairs):
                yield from _of_pairs(key, state.pairs)
        case _:
            yield Held(key, _plain(record))


def _of_pairs(key: str, pairs: list[tuple[object, object]]) -> Iterator[Held]:
    if not pairs:
        yield Held(key, "empty dict")
    for name, value in pairs:
        step = shown(str(name))[1:-1] if isinstance(name, str | int | float | bytes) else type(name).__name__
        yield from _of_record(f"{key}.{step}" if key else step, value)


def _objects(key: str, shape: tuple[object, ...], items: list[object]) -> Held:
    return Held(key, f"objects, {_plain(items)}", _lengths(shape))


def _of_json(key: str, value: object, depth: int) -> Iterator[Held]:
    if isinstance(value, dict) and depth < 4:
        for name, child in value.items():
            step = shown(name)[1:-1]
            yield from _of_json(f"{key}.{step}" if key else step, child, depth + 1)
    else:
        yield Held(key, _plain(value))


def _plain(value: object) -> str:
    """A word for a value; numbers are told, texts are not: they may be names of people or folders."""
    match value:
        case None | bool() | int() | float():
            return shown(str(value))[1:-1]
        case str() | bytes() | memoryview():
            return f"{'text' if isinstance(value, str) else 'bytes'} of {len(value):,}"
        case list() | tuple():
            kinds = sorted({_word(item) for item in value[:1000]})
            return f"{type(value).__name__} of {len(value):,}{' ' + ' and '.join(kinds) if kinds else ''}"
        case dict():
            return f"dict of {len(value):,}"
    return _word(value)


def _word(value: object) -> str:
    words = {"Pairs": "dict", "dict": "dict", "str": "text", "Call": "object", "NoneType": "None", "Name": "name"}
    if isinstance(value, Call) and value.name.role in ("array", "array of buffer", "tensor", "scalar"):
        return value.name.role.partition(" ")[0]
    return words.get(type(value).__name__, type(value).__name__)


def _dtype(record: object) -> str:
    match record:
        case Call(arguments=(str(letters), *_), state=(_, str(order), *_)):
            return f"{order if order in '<>' else ''}{shown(letters)[1:-1]}"
        case Call(arguments=(str(letters), *_)):
            return shown(letters)[1:-1]
    return "?"


def _lengths(shape: object) -> tuple[int, ...]:
    return tuple(length for length in shape if type(length) is int) if isinstance(shape, tuple) else ()


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


_READERS: Mapping[str, Callable[[Path], Content]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _torch,
    ".pth": _torch,
    ".ckpt": _torch,
    ".bin": _torch,
    ".safetensors": _safetensors,
    ".pkl": _pickle,
    ".pickle": _pickle,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".nc": _hdf5,
    ".json": _json,
    ".csv": _table,
    ".tsv": _table,
    ".nii": _nifti,
    ".gz": _nifti,
}
