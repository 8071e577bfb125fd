"""Read the published ``.pt`` files without any way to run code.

``torch.save`` writes an uncompressed zip archive: a pickle, and one member with the bytes of each
storage. The pickle goes through ``inert_pickle``; tensors are made here, of the bytes of the
members, after their sizes and strides were checked. ``torch.load`` is never used: its
``weights_only=True`` with numpy's functions allowed is ended by a forged dtype.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from berg.weights.inert_pickle import Call, Name, PersistentId, read_records
from berg.weights.mapped_file import array_from_bytes, check_shape, corrupted, map_file, shown
from berg.weights.npy_files import ALLOWED, MAKERS, Builder

# About 50,000 members; zipfile keeps half a kilobyte for each before we can look at it.
MAX_DIRECTORY_BYTES = 2**22
MAX_NOTE_BYTES = 1024
LOCAL_HEADER_BYTES = 30

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
TORCH_ALLOWED: dict[tuple[str, str], str] = {
    **ALLOWED,
    **{("torch", name): name for name in _STORAGES},
    ("torch._utils", "_rebuild_tensor_v2"): "tensor",
    ("torch._utils", "_rebuild_parameter"): "parameter",
}

_NOTES = r"version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id"
_MEMBER = re.compile(rf"(?P<root>[^/\\:]+)/(?P<name>data\.pkl|{_NOTES}|data/\d{{1,9}})")
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# A damaged directory makes zipfile raise any of these.
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError)


def read_pt(path: str | os.PathLike[str], mapped: bool = False) -> object:
    """Return what ``torch.save`` put into a file, on the CPU.

    Reads dicts, lists and plain values with tensors and numpy arrays in them. Tensors that shared
    their storage share it again. Parameters come as tensors, and no tensor asks for a gradient.
    The checksum of every member is compared, which costs one reading of the file (1 GB/s); `map_pt` does
    without.

    Parameters
    ----------
    mapped
        Tensors as parts of the file that are read from disk when they are used, not of their own; writing to them
        changes no file. Checksums of tensors are not compared: see `check_tensors`.

    Raises
    ------
    MissingFileError
        When there is no such file.
    UnsafeFileError
        When the pickle names a function or class that is not among those of ``TORCH_ALLOWED``.
    CorruptedFileError
        When the file is not whole, was not written by torch 1.6 or later, or holds anything else.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"w": torch.eye(2)}, f"{folder}/weights.pt")
    ...     read_pt(f"{folder}/weights.pt")
    {'w': tensor([[1., 0.],
            [0., 1.]])}
    """
    path = Path(path)
    members = {
        name: member.data if mapped and member.is_tensor else member.checked(path)
        for name, member in _read_members(path, map_file(path, private=mapped)).items()
    }
    record = read_records(members["data.pkl"], path, TORCH_ALLOWED, persistent_ids=True)
    storages = _Storages(path, members, mapped)
    makers = {**MAKERS, "tensor": storages.make_tensor, "parameter": _make_parameter}
    return Builder(path, len(members["data.pkl"]), makers).build(record)


def map_pt(path: str | os.PathLike[str]) -> StoredTensors:
    """Return the tensors of a dict that ``torch.save`` wrote, each read from the file when it is used.

    For files with the weights of many subjects, of which one is wanted: the checksum of a member is compared when a
    tensor in it is asked for, and what is not asked for is not read.

    Raises
    ------
    MissingFileError, UnsafeFileError, CorruptedFileError
        As in `read_pt`; also if the file holds anything else than a dict of tensors by name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"w": torch.eye(2), "b": torch.ones(2)}, f"{folder}/weights.pt")
    ...     tensors = map_pt(f"{folder}/weights.pt")
    ...     list(tensors), tensors["b"].tolist()
    (['w', 'b'], [1.0, 1.0])
    """
    path = Path(path)
    members = _read_members(path, map_file(path))
    pickled = members["data.pkl"].checked(path)
    record = read_records(pickled, path, TORCH_ALLOWED, persistent_ids=True)
    makers = {**MAKERS, "tensor": _make_stored_tensor, "parameter": _make_parameter}
    content = Builder(path, len(pickled), makers).build(record)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, StoredTensor) for name, value in content.items()
    ):
        raise corrupted(path, "it is not a dict of tensors by name")
    return StoredTensors(path, members, content)


@dataclass(frozen=True)
class StoredTensor:
    """Which part of a storage a tensor is."""

    storage: PersistentId
    offset: int
    size: tuple[object, ...]
    stride: tuple[object, ...]


class StoredTensors(Mapping[str, NDArray[Any]]):
    """The tensors of a file as read-only arrays over its bytes, by name, in the order of the file."""

    def __init__(self, path: Path, members: Mapping[str, _Member], tensors: Mapping[str, StoredTensor]) -> None:
        self.path = path
        self.members = members
        self.tensors = tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, name: str) -> NDArray[Any]:
        stored = self.tensors[name]
        key, dtype, n_values = _storage(self.path, stored.storage)
        if dtype is torch.bfloat16:
            raise corrupted(self.path, f"{shown(name)} holds bfloat16 numbers, which NumPy does not have")
        if f"data/{key}" not in self.members:
            raise corrupted(self.path, f"it has no member {shown('data/' + key)}")
        member = self.members[f"data/{key}"].checked(self.path)
        own = np.dtype(str(dtype).removeprefix("torch.")).newbyteorder("<")
        values = array_from_bytes(self.path, member, own, [n_values], "C")
        lengths, steps = _check_window(self.path, stored.offset, stored.size, stored.stride, n_values)
        if not math.prod(lengths):
            return np.empty(lengths, own)
        step_bytes = [step * own.itemsize for step in steps]
        return np.lib.stride_tricks.as_strided(values[stored.offset :], lengths, step_bytes, writeable=False)


@dataclass
class _Member:
    """The bytes of a member of an archive, and its checksum; which is compared once, when they are first used."""

    name: str
    data: memoryview
    crc: int
    is_checked: bool = False

    @property
    def is_tensor(self) -> bool:
        """Whether it holds numbers, rather than what says which."""
        return "/data/" in self.name

    def checked(self, path: Path) -> memoryview:
        """Return the bytes; raise CorruptedFileError if their checksum is another."""
        if not self.is_checked and zlib.crc32(self.data) != self.crc:
            raise corrupted(path, f"the checksum of member {self.name} is wrong")
        self.is_checked = True
        return self.data


def check_tensors(path: str | os.PathLike[str]) -> None:
    """Raise CorruptedFileError unless the bytes of all tensors have their checksums.

    For files that were read with ``mapped``; the members are divided between the cores.
    """
    path = Path(path)
    data = map_file(path)
    tensors = [member for member in _slices(path, data, _read_directory(path, data)) if member.is_tensor]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # zlib lets go of the lock
        list(pool.map(lambda member: member.checked(path), tensors))


def _read_members(path: Path, data: memoryview) -> dict[str, _Member]:
    """Return each member by its name below the root folder of the archive."""
    infos = _read_directory(path, data)
    names = [_MEMBER.fullmatch(info.filename) for info in infos]
    for info, name in zip(infos, names, strict=True):
        if name is None:
            raise corrupted(path, f"torch.save writes no member {shown(info.filename)}")
    found = [name for name in names if name is not None]
    if len({name["root"] for name in found}) != 1:
        raise corrupted(path, "its members are not in one folder")
    slices = _slices(path, data, infos)
    members = dict(zip([name["name"] for name in found], slices, strict=True))
    if len(members) != len(infos):
        raise corrupted(path, "two of its members have the same name")
    if "data.pkl" not in members:
        raise corrupted(path, "it has no member data.pkl")
    if "byteorder" in members and bytes(members["byteorder"].checked(path)) != b"little":
        raise corrupted(path, "its tensors are not little-endian")
    return members


def _read_directory(path: Path, data: memoryview) -> list[zipfile.ZipInfo]:
    """Return the directory of the archive, in the order of its members in the file."""
    if bytes(data[: len(_LEGACY_START)]) == _LEGACY_START:
        raise corrupted(path, "it is in the format of torch before 1.6, which is not read")
    if bytes(data[:4]) != b"PK\x03\x04":
        raise corrupted(path, "it does not begin like a file of torch.save")
    try:
        with zipfile.ZipFile(_BoundedFile(data)) as archive:
            return sorted(archive.infolist(), key=lambda info: info.header_offset)
    except _ZIP_ERRORS as error:
        raise corrupted(path, f"its zip directory is damaged: {shown(str(error))}") from error


class _BoundedFile(io.RawIOBase):
    """A file for zipfile, which otherwise reads a directory of any size at once."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: len(self.data)}[whence]
        if start + offset < 0:
            raise OSError("a negative position")
        self.position = start + offset
        return self.position

    def read(self, size: int = -1) -> bytes:
        stop = len(self.data) if size < 0 else min(self.position + size, len(self.data))
        if stop - self.position > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"over {MAX_DIRECTORY_BYTES} bytes")
        piece = bytes(self.data[self.position : stop])
        self.position += len(piece)
        return piece


def _slices(path: Path, data: memoryview, infos: list[zipfile.ZipInfo]) -> list[_Member]:
    """Return the members, which are stored as they are and do not overlap."""
    slices = []
    free_from = 0
    for info in infos:
        start = _data_start(path, data, info)
        if info.header_offset < free_from or start + info.file_size > len(data):
            raise corrupted(path, f"member {info.filename} overlaps another or the end of the file")
        free_from = start + info.file_size
        slices.append(_Member(info.filename, data[start:free_from], info.CRC))
    return slices


def _data_start(path: Path, data: memoryview, info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin, behind a header of its own."""
    name_start = info.header_offset + LOCAL_HEADER_BYTES
    header = bytes(data[info.header_offset : name_start])
    if len(header) < LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
        raise corrupted(path, f"member {info.filename} has no header")
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise corrupted(path, f"member {info.filename} is compressed or encrypted")
    if info.compress_size != info.file_size:
        raise corrupted(path, f"member {info.filename} states two sizes")
    is_note = not info.filename.endswith(".pkl") and "/data/" not in info.filename
    if is_note and info.file_size > MAX_NOTE_BYTES:
        raise corrupted(path, f"member {info.filename} is over {MAX_NOTE_BYTES} bytes")
    # Padding in the header of the member puts its bytes at a multiple of 64.
    name_length, padding = struct.unpack("<HH", header[26:])
    if bytes(data[name_start : name_start + name_length]) != info.orig_filename.encode():
        raise corrupted(path, f"member {info.filename} has another name in its header")
    return name_start + int(name_length) + int(padding)


class _Storages:
    """The storages of one archive; each is copied once, when its first tensor is made, or stays in the file."""

    def __init__(self, path: Path, members: Mapping[str, memoryview], mapped: bool = False) -> None:
        self.path = path
        self.members = members
        self.mapped = mapped
        self.copied: dict[str, torch.Tensor] = {}

    def make_tensor(self, builder: Builder, call: Call) -> torch.Tensor:
        """Answer ``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)``."""
        stored = _make_stored_tensor(builder, call)
        values = self.storage(stored.storage)
        lengths, steps = _check_window(self.path, stored.offset, stored.size, stored.stride, len(values))
        if not math.prod(lengths):
            return torch.empty(lengths, dtype=values.dtype)
        return values.as_strided(lengths, steps, stored.offset)

    def storage(self, record: PersistentId) -> torch.Tensor:
        """Return all values of a storage, shape (n_values,)."""
        key, dtype, n_values = _storage(self.path, record)
        member = self.members.get(f"data/{key}")
        if member is None:
            raise corrupted(self.path, f"it has no member {shown('data/' + key)}")
        check_shape(self.path, [n_values], len(member), dtype.itemsize)
        if key not in self.copied:
            self.copied[key] = self.copy(member, dtype)
        if self.copied[key].dtype != dtype:
            raise corrupted(self.path, f"member data/{key} is said to be of two dtypes")
        return self.copied[key]

    def copy(self, member: memoryview, dtype: torch.dtype) -> torch.Tensor:
        """Return the values in these bytes; torch would write to memory that is read only.

        Those of a mapped file may be written to; odd addresses, which torch cannot compute with, are left all the same.
        """
        if self.mapped and len(member) and dtype is not torch.bool:
            in_file = np.frombuffer(member, np.uint8)
            if in_file.ctypes.data % dtype.itemsize == 0:
                return torch.from_numpy(in_file).view(dtype)
        values = torch.empty(len(member), dtype=torch.uint8)
        values.numpy()[:] = np.frombuffer(member, np.uint8)
        if dtype is torch.bool and len(values) and int(values.max()) > 1:
            raise corrupted(self.path, "a tensor of truth values holds neither 0 nor 1")
        return values.view(dtype)


def _make_stored_tensor(builder: Builder, call: Call) -> StoredTensor:
    """Answer ``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)``; no storage is read."""
    builder.check_call(call)
    match call.arguments:
        case (PersistentId() as record, int(offset), tuple(size), tuple(stride), bool(), hooks):
            _check_no_hooks(builder, hooks)
        case _:
            raise builder.odd(call)
    return StoredTensor(record, offset, size, stride)


def _storage(path: Path, record: PersistentId) -> tuple[str, torch.dtype, int]:
    """Return the name of a storage, the dtype of its values, and how many it has."""
    match record.value:
        case ("storage", Name(role=role), str(key), str(), int(n_values)) if role in _STORAGES:
            return key, _STORAGES[role], n_values
    raise corrupted(path, "a persistent id is not the one of a storage")


def _check_window(
    path: Path, offset: int, size: tuple[object, ...], stride: tuple[object, ...], n_values: int
) -> tuple[list[int], list[int]]:
    """Return size and stride if all elements lie in the storage, and are no more than it has.

    Raises
    ------
    CorruptedFileError
        When they are not, or are no whole numbers from 0.
    """
    lengths = [length for length in size if type(length) is int and length >= 0]
    steps = [step for step in stride if type(step) is int and step >= 0]
    if [len(size), len(stride)] != [len(lengths), len(lengths)] or len(steps) != len(lengths):
        raise corrupted(path, "the size or stride of a tensor is not of whole numbers")
    n_elements = math.prod(lengths)
    check_shape(path, lengths, n_elements, 1)
    reach = sum((length - 1) * step for length, step in zip(lengths, steps, strict=True))
    last = offset + reach if n_elements else 0
    if offset < 0 or n_elements > n_values or last >= max(n_values, 1):
        raise corrupted(
            path,
            f"a tensor of size {size}, stride {stride} and offset {offset} does not lie in its "
            f"storage of {n_values} values",
        )
    return lengths, steps


def _make_parameter(builder: Builder, call: Call) -> torch.Tensor | StoredTensor:
    """Answer ``_rebuild_parameter(tensor, requires_grad, hooks)`` with the tensor."""
    builder.check_call(call)
    match call.arguments:
        case (Call() as record, bool(), hooks):
            _check_no_hooks(builder, hooks)
            tensor = builder.build(record)
        case _:
            raise builder.odd(call)
    if not isinstance(tensor, (torch.Tensor, StoredTensor)):
        raise builder.odd(call)
    return tensor


def _check_no_hooks(builder: Builder, hooks: object) -> None:
    """Raise CorruptedFileError unless the hooks are an empty OrderedDict."""
    if not isinstance(hooks, Call) or builder.build(hooks) != {}:
        raise corrupted(builder.path, "a tensor has hooks, which are functions")
