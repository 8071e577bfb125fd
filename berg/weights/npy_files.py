"""Read the published ``.npy`` files, which are pickles, without any way to run code.

``inert_pickle`` turns the pickle into inert records; here arrays, numbers, dicts and lists are
made of the records, by us. Nothing of numpy's own pickle support is called: a dtype of 361 bytes
whose fields do not fit its size ends the process in ``numpy.dtype.__setstate__``, also under an
allow-list. ``numpy.load(allow_pickle=True)`` and ``pickle.load`` are never used.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from berg.weights.inert_pickle import Call, Name, Pairs, PersistentId, read_records
from berg.weights.mapped_file import (
    Buffer,
    array_from_bytes,
    check_shape,
    corrupted,
    map_file,
    shown,
)

Maker = Callable[["Builder", Call], object]

MAX_HEADER_LENGTH = 10_000
# Smaller arrays are copied, so that metadata do not keep their file mapped.
MAPPED_FROM_BYTES = 2**20
MAX_DICT_INTEGER = 2**60
NIFTI_HEADERS = (348, 540)  # bytes, of NIfTI-1 and NIfTI-2

_NUMPY_FUNCTIONS = {
    (f"numpy.{core}.{module}", name): role
    for core in ("core", "_core")
    for module, name, role in (
        ("multiarray", "_reconstruct", "array"),
        ("multiarray", "scalar", "scalar"),
        ("numeric", "_frombuffer", "array of buffer"),
    )
}
ALLOWED: dict[tuple[str, str], str] = {
    **_NUMPY_FUNCTIONS,
    ("numpy", "ndarray"): "array class",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "bytes of text",
    ("__builtin__", "bytes"): "no bytes",
    ("builtins", "bytes"): "no bytes",
    ("collections", "OrderedDict"): "ordered dict",
    ("sklearn.decomposition._pca", "PCA"): "attributes",
    ("sklearn.decomposition.pca", "PCA"): "attributes",
    ("sklearn.linear_model._ridge", "Ridge"): "attributes",
    ("sklearn.linear_model._ridge", "RidgeCV"): "estimator",
    ("sklearn.linear_model.ridge", "RidgeCV"): "estimator",
    ("sklearn.preprocessing._data", "StandardScaler"): "estimator",
    ("sklearn.preprocessing.data", "StandardScaler"): "estimator",
    ("sklearn.model_selection._split", "KFold"): "estimator",
    ("nibabel.nifti1", "Nifti1Header"): "nifti header",
    ("nibabel.nifti1", "Nifti1PairHeader"): "nifti header",
    ("nibabel.nifti1", "Nifti1Extensions"): "nifti extensions",
    ("nibabel.nifti2", "Nifti2Header"): "nifti header",
    ("nibabel.nifti2", "Nifti2PairHeader"): "nifti header",
}

_DTYPE = re.compile(r"f[248]|[iu][1248]|b1|O8?|[US][1-9]\d{0,4}")
# What numpy writes (numpy.lib.format): a dict of three plain values. numpy's own reader evaluates
# it as an expression, whose depth is bounded by the C stack only.
_HEADER = re.compile(
    r"\{'descr': '(?P<byteorder>[<>|])(?P<dtype>[a-zA-Z]\d*)', "
    r"'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>|\d{1,18},|\d{1,18}(?:, \d{1,18})+),?\),? *\}[ \n]*"
)
_PLAIN = (type(None), bool, int, float, str)
_KEYS = (type(None), str, bytes, int, float, np.generic)


def read_npy(path: str | os.PathLike[str]) -> object:
    """Return what ``numpy.save`` put into a file.

    Reads arrays, and the pickled dicts of the published weights and metadata: pickle protocols 2
    to 5, as written under numpy 1 and 2.

    Returns
    -------
    value
        The array; of a pickled 0-d object array, the object in it. A scikit-learn PCA becomes the
        dict of its attributes, a header of nibabel an array of its bytes (``nibabel.Nifti1Header(found.tobytes())``
        makes one of them). Arrays under 1 MiB are their own; larger ones are read-only views
        of the file, from which only the rows that are taken are read. They may lie at odd
        addresses: give torch a copy (``np.array(coef[rows])``), and index rather than ``take``.

    Raises
    ------
    MissingFileError
        When there is no such file.
    UnsafeFileError
        When the pickle names a function or class that is not among those of ``ALLOWED``.
    CorruptedFileError
        When the file is not whole, or holds anything else.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/metadata.npy", {"times": [0.0, 0.005]}, allow_pickle=True)
    ...     read_npy(f"{folder}/metadata.npy")
    {'times': [0.0, 0.005]}
    """
    path = Path(path)
    data = map_file(path)
    header, start = _read_header(path, data)
    dtype = _dtype(path, header["dtype"], header["byteorder"])
    shape = tuple(int(length) for length in header["shape"].split(",") if length)
    if dtype.hasobject:
        return _read_pickled(path, data[start:], shape)
    order: Literal["C", "F"] = "F" if header["fortran"] == "True" else "C"
    array = array_from_bytes(path, data[start:], dtype, shape, order)
    return array if array.nbytes >= MAPPED_FROM_BYTES else array.copy(order)


def read_inert_pickle(path: str | os.PathLike[str]) -> object:
    """Return what a plain pickle holds, as ``joblib.dump`` of small objects and ``pickle.dump`` write it.

    Returns
    -------
    value
        As of `read_npy`; of a scikit-learn PCA or Ridge the dict of its attributes.

    Raises
    ------
    MissingFileError, UnsafeFileError, CorruptedFileError
        As of `read_npy`.
    """
    path = Path(path)
    data = map_file(path)
    return Builder(path, len(data), MAKERS).build(read_records(data, path, ALLOWED))


def npy_header(path: Path, data: memoryview) -> tuple[str, tuple[int, ...], int]:
    """Return the dtype (O for a pickle), the shape, and where the data of a .npy file begin.

    Parameters
    ----------
    data
        The file, or its beginning with the whole header.
    """
    header, start = _read_header(path, data)
    shape = tuple(int(length) for length in header["shape"].split(",") if length)
    if header["dtype"].startswith("O"):
        return "O", shape, start
    return header["byteorder"].strip("|") + header["dtype"], shape, start


def _read_header(path: Path, data: memoryview) -> tuple[re.Match[str], int]:
    """Return the matched header of a .npy file, and where its data begin."""
    if bytes(data[:6]) != b"\x93NUMPY":
        raise corrupted(path, "it does not begin like a .npy file")
    width = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}.get(bytes(data[6:8]))
    if width is None:
        raise corrupted(path, f"its .npy version is {list(data[6:8])}, not 1, 2 or 3")
    start = 8 + width
    length = int.from_bytes(data[8:start], "little")
    if length > min(MAX_HEADER_LENGTH, max(len(data) - start, 0)):
        raise corrupted(path, f"its header declares {length} bytes")
    text = str(data[start : start + length], "latin-1")
    header = _HEADER.fullmatch(text)
    if header is None:
        raise corrupted(path, f"its header is not one that numpy.save writes: {shown(text)}")
    return header, start + length


def _read_pickled(path: Path, data: memoryview, shape: tuple[int, ...]) -> object:
    """Return the object array in a pickle, or the object in it if it has no axes."""
    record = read_records(data, path, ALLOWED)
    array = Builder(path, len(data), MAKERS).build(record)
    if not isinstance(array, np.ndarray) or array.dtype != object or array.shape != shape:
        raise corrupted(path, f"its pickle is not the object array {shape} of its header")
    return array if shape else array.item()


class Builder:
    """Make values of inert records.

    Parameters
    ----------
    path
        The file, for the errors.
    n_bytes
        The size of the pickle.
    makers
        How the calls of each role are answered.
    """

    def __init__(self, path: Path, n_bytes: int, makers: Mapping[str, Maker]) -> None:
        self.path = path
        # Every writer stores the bytes of an array once. Protocol 2 has them read twice: the text
        # that spells them, and they.
        self.unread = 2 * n_bytes
        self.makers = makers
        # By identity: what the pickle shares is shared.
        self.made: dict[int, object] = {}

    def build(self, record: object) -> object:
        """Return the value of a record.

        Raises
        ------
        CorruptedFileError
            When it stands for nothing that weights or metadata hold.
        """
        if type(record) in _PLAIN:
            return record
        if id(record) not in self.made:
            self.made[id(record)] = self._make(record)
        return self.made[id(record)]

    def _make(self, record: object) -> object:
        match record:
            case list():
                return [self.build(child) for child in record]
            case tuple():
                return tuple(self.build(child) for child in record)
            case bytes() | memoryview():
                return bytes(record)
            case Pairs():
                return self.mapping(record.pairs)
            case Call() if record.name.role in self.makers:
                return self.makers[record.name.role](self, record)
            case Call(name=name) | (Name() as name):
                raise corrupted(self.path, f"{name.spelt} stands where a value should be")
            case PersistentId():
                raise corrupted(self.path, "a storage stands where a value should be")
        raise TypeError(f"inert_pickle made a {type(record).__name__}, which it does not declare")

    def mapping(self, pairs: list[tuple[object, object]]) -> dict[Any, object]:
        """Return the dict of these pairs."""
        return {self._key(key): self.build(value) for key, value in pairs}

    def _key(self, record: object) -> object:
        key = self.build(record)
        # Hashes of larger integers, and of tuples, can be made to collide.
        if not isinstance(key, _KEYS) or (isinstance(key, int | np.integer) and abs(int(key)) >= MAX_DICT_INTEGER):
            raise corrupted(self.path, f"a key of a dict is of type {type(key).__name__}")
        return key

    def array(
        self, data: Buffer, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"]
    ) -> NDArray[Any]:
        """Return an array over these bytes, or a copy of its own if it is small."""
        self.spend(len(data))
        array = array_from_bytes(self.path, data, dtype, shape, order)
        return array if array.nbytes >= MAPPED_FROM_BYTES else array.copy(order)

    def spend(self, n_bytes: int) -> None:
        """Raise CorruptedFileError when the same bytes are made into arrays over and over."""
        self.unread -= n_bytes
        if self.unread < 0:
            raise corrupted(self.path, "it repeats its bytes in many arrays")

    def check_call(self, call: Call, *, has_state: bool = False, has_pairs: bool = False) -> None:
        """Raise CorruptedFileError when more is set on the result of a call than it can take."""
        if (call.state is not None and not has_state) or (call.pairs and not has_pairs):
            raise self.odd(call)

    def odd(self, call: Call) -> Exception:
        """Return the error for a call that no writer of weights makes."""
        return corrupted(self.path, f"{call.name.spelt} is called as no writer of weights calls it")


def _make_array(builder: Builder, call: Call) -> NDArray[Any]:
    """Answer ``_reconstruct(ndarray, (0,), b"b")`` and the state that is set on it."""
    builder.check_call(call, has_state=True)
    match call.arguments, call.state:
        case (Name(role="array class"), _, _), (1, tuple(shape), Call() as kind, fortran, data):
            dtype = builder.build(kind)
        case _:
            raise builder.odd(call)
    if not isinstance(dtype, np.dtype) or type(fortran) not in (bool, int):
        raise builder.odd(call)
    if dtype.hasobject:
        return _object_array(builder, data, shape)
    return builder.array(_bytes(builder, call, data), dtype, shape, "F" if fortran else "C")


def _make_array_of_buffer(builder: Builder, call: Call) -> NDArray[Any]:
    """Answer ``_frombuffer(data, dtype, shape, order, axis_order)``."""
    builder.check_call(call)
    match call.arguments:
        case data, Call() as kind, tuple(shape), ("C" | "F") as order:
            axes = None
        case data, Call() as kind, tuple(shape), ("C" | "F" | "K") as order, axes:
            order = "C" if order == "K" else order
        case _:
            raise builder.odd(call)
    dtype = builder.build(kind)
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise builder.odd(call)
    array = builder.array(_bytes(builder, call, data), dtype, shape, order)
    if axes is None:
        return array
    return array.transpose(_axis_order(builder, call, axes, array.ndim))


def _axis_order(builder: Builder, call: Call, axes: object, n_axes: int) -> list[int]:
    """Return `axes` if it is a permutation of the axes."""
    order = [axis for axis in axes if type(axis) is int] if isinstance(axes, tuple | list) else []
    if sorted(order) != list(range(n_axes)):
        raise builder.odd(call)
    return order


def _object_array(builder: Builder, items: object, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an object array of a list of values, which are in C order."""
    if type(items) is not list:
        raise corrupted(builder.path, "an object array has no list of objects")
    check_shape(builder.path, shape, len(items), 1)
    array = np.empty(len(items), dtype=object)
    # One by one: an assignment of the whole list would look into lists and arrays.
    for index, item in enumerate(items):
        array[index] = builder.build(item)
    return array.reshape(shape)


def _make_scalar(builder: Builder, call: Call) -> object:
    """Answer ``scalar(dtype, data)``."""
    builder.check_call(call)
    match call.arguments:
        case (Call() as kind, data):
            dtype = builder.build(kind)
        case _:
            raise builder.odd(call)
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise builder.odd(call)
    return builder.array(_bytes(builder, call, data), dtype, (), "C")[()]


def _make_dtype(builder: Builder, call: Call) -> np.dtype[Any]:
    """Answer ``dtype("f4", False, True)`` and the state that is set on it."""
    builder.check_call(call, has_state=True)
    match call.arguments, call.state:
        case (str(name), _, _), (3, ("<" | ">" | "|") as byteorder, None, None, None, *sizes):
            dtype = _dtype(builder.path, name, byteorder)
        case _:
            raise builder.odd(call)
    # Only texts state their size and alignment; the last of the three are flags.
    expected = {"U": [dtype.itemsize, 4], "S": [dtype.itemsize, 1]}.get(dtype.kind, [-1, -1])
    if sizes[:-1] != expected:
        raise corrupted(builder.path, f"a dtype {shown(name)} does not have the size of its name")
    return dtype


def _dtype(path: Path, name: str, byteorder: str) -> np.dtype[Any]:
    """Return the dtype of a name such as f4; of the object dtype only the name is used."""
    if not _DTYPE.fullmatch(name):
        raise corrupted(path, f"it has an array of dtype {shown(name)}; read are f2 to f8, integers, b1, U, S")
    return np.dtype(object) if name[0] == "O" else np.dtype(byteorder + name)


def _bytes(builder: Builder, call: Call, record: object) -> Buffer:
    """Return bytes as they lie in the file, or made of Latin-1 text (protocol 2)."""
    if isinstance(record, bytes | memoryview):
        return record
    data = builder.build(record) if isinstance(record, Call) else None
    if not isinstance(data, bytes):
        raise builder.odd(call)
    return data


def _make_bytes_of_text(builder: Builder, call: Call) -> bytes:
    """Answer ``_codecs.encode(text, "latin1")``, which is how protocol 2 spells bytes."""
    builder.check_call(call)
    match call.arguments:
        case (str(text), "latin1"):
            pass
        case _:
            raise builder.odd(call)
    builder.spend(len(text))
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise corrupted(builder.path, "its bytes are spelt with more than 256 letters") from error


def _make_no_bytes(builder: Builder, call: Call) -> bytes:
    """Answer ``bytes()``."""
    builder.check_call(call)
    if call.arguments:
        raise builder.odd(call)
    return b""


def _make_ordered_dict(builder: Builder, call: Call) -> OrderedDict[Any, object]:
    """Answer ``OrderedDict()`` and its items; torch sets `_metadata` on it, which is left out."""
    builder.check_call(call, has_state=True, has_pairs=True)
    match call.state:
        case None | Pairs(pairs=[("_metadata", _)]):
            pass
        case _:
            raise builder.odd(call)
    if call.arguments:
        raise builder.odd(call)
    return OrderedDict(builder.mapping(call.pairs))


def _make_attributes(builder: Builder, call: Call) -> dict[Any, object]:
    """Return the attributes of a scikit-learn object that are arrays, numbers and texts."""
    builder.check_call(call, has_state=True)
    if call.arguments or not isinstance(call.state, Pairs):
        raise builder.odd(call)
    attributes = builder.mapping(call.state.pairs)
    for name, value in attributes.items():
        of_objects = isinstance(value, np.ndarray) and value.dtype.hasobject
        if not isinstance(name, str) or of_objects or not isinstance(value, _ATTRIBUTES):
            raise corrupted(
                builder.path,
                f"attribute {shown(str(name))} of a {call.name.spelt} is a {type(value).__name__}",
            )
    return attributes


def _make_estimator(builder: Builder, call: Call) -> dict[Any, object]:
    """Return the attributes of a scikit-learn object, also lists of settings; what they hold is inert all the same."""
    builder.check_call(call, has_state=True)
    if call.arguments or not isinstance(call.state, Pairs):
        raise builder.odd(call)
    return builder.mapping(call.state.pairs)


def _make_nifti_header(builder: Builder, call: Call) -> NDArray[np.uint8]:
    """Return the bytes of a NIfTI header, 348 or 540; what follows in the pickle (extensions) is left out."""
    builder.check_call(call, has_state=True)
    pairs = call.state.pairs if isinstance(call.state, Pairs) else []
    found = [value for key, value in pairs if key == "_structarr"]
    match call.arguments, found:
        case (), [Call(state=(1, (), Call(), _, data)) as fields]:
            pass
        case (), [Call(arguments=(data, Call(), (), *_)) as fields]:  # protocol 5
            pass
        case _:
            raise builder.odd(call)
    header = np.frombuffer(_bytes(builder, fields, data), np.uint8).copy()
    if len(header) not in NIFTI_HEADERS:
        raise corrupted(builder.path, f"a header of NIfTI has {len(header)} bytes instead of 348 or 540")
    builder.spend(len(header))
    return header


_ATTRIBUTES = (*_PLAIN, np.generic, np.ndarray)

MAKERS: dict[str, Maker] = {
    "array": _make_array,
    "array of buffer": _make_array_of_buffer,
    "scalar": _make_scalar,
    "dtype": _make_dtype,
    "bytes of text": _make_bytes_of_text,
    "no bytes": _make_no_bytes,
    "ordered dict": _make_ordered_dict,
    "attributes": _make_attributes,
    "estimator": _make_estimator,
    "nifti header": _make_nifti_header,
}
