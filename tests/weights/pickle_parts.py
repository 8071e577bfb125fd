"""Pickles, put together opcode by opcode: no writer would write what the hostile files hold."""

from __future__ import annotations

import pickle
import struct


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def raw(value: bytes) -> bytes:
    return pickle.BINBYTES + struct.pack("<I", len(value)) + value


def whole(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data


def group(*values: bytes) -> bytes:
    return pickle.MARK + b"".join(values) + pickle.TUPLE


def shape(*lengths: int) -> bytes:
    return group(*(whole(length) for length in lengths))


def listed(*values: bytes) -> bytes:
    return pickle.EMPTY_LIST + pickle.MARK + b"".join(values) + pickle.APPENDS


def mapped(*values: bytes) -> bytes:
    return pickle.EMPTY_DICT + pickle.MARK + b"".join(values) + pickle.SETITEMS


def named(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def called(function: bytes, *arguments: bytes) -> bytes:
    return function + group(*arguments) + pickle.REDUCE


NONE, TRUE, FALSE = pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE
NDARRAY = named("numpy", "ndarray")
RECONSTRUCTED = called(named("numpy.core.multiarray", "_reconstruct"), NDARRAY, shape(0), raw(b"b"))
FROMBUFFER = named("numpy.core.numeric", "_frombuffer")
SCALAR = named("numpy._core.multiarray", "scalar")
PCA = named("sklearn.decomposition._pca", "PCA")
ORDERED_DICT = called(named("collections", "OrderedDict"))


def dtype(name: str, order: str = "<", size: int = -1, alignment: int = -1, flags: int | None = None) -> bytes:
    made = called(named("numpy", "dtype"), text(name), FALSE, TRUE)
    if flags is None:
        flags = 63 if name.startswith("O") else 0
    state = (whole(3), text(order), NONE, NONE, NONE, whole(size), whole(alignment), whole(flags))
    return made + group(*state) + pickle.BUILD


def array(kind: bytes, lengths: bytes, data: bytes, fortran: bytes = FALSE) -> bytes:
    return RECONSTRUCTED + group(whole(1), lengths, kind, fortran, data) + pickle.BUILD


def in_object_array(payload: bytes) -> bytes:
    return array(dtype("O8", "|"), pickle.EMPTY_TUPLE, listed(payload))


def npy(payload: bytes, header: str = "{'descr': '|O', 'fortran_order': False, 'shape': (), }") -> bytes:
    padded = header.encode("latin-1")
    padded += b" " * (-(len(padded) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + payload


def weights(payload: bytes, protocol: bytes = b"\4") -> bytes:
    """A dict under the key "w", as np.save writes it."""
    pickled = in_object_array(mapped(text("w"), payload))
    return npy(pickle.PROTO + protocol + pickled + pickle.STOP)


def plain_npy(descr: str, lengths: str, data: bytes) -> bytes:
    return npy(data, f"{{'descr': {descr}, 'fortran_order': False, 'shape': {lengths}, }}")
