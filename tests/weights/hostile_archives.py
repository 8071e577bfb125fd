"""Archives of torch.save and safetensors files that are not what they claim to be."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable

import numpy as np

from .hostile_pickles import WITH_CODE, forged_dtype
from .pickle_parts import (
    FALSE,
    NDARRAY,
    NONE,
    ORDERED_DICT,
    TRUE,
    array,
    called,
    group,
    listed,
    mapped,
    named,
    raw,
    shape,
    text,
    whole,
)

STORAGE = bytes(np.arange(6, dtype="<f4"))


def storage_id(key: str = "0", n_values: int = 6, kind: str = "FloatStorage") -> bytes:
    parts = (text("storage"), named("torch", kind), text(key), text("cpu"), whole(n_values))
    return group(*parts) + pickle.BINPERSID


def tensor(
    size: bytes, stride: bytes, *, offset: bytes = whole(0), storage: bytes = b"", hooks: bytes = ORDERED_DICT
) -> bytes:
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    return called(rebuild, storage or storage_id(), offset, size, stride, FALSE, hooks)


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def pt(payload: bytes, *more: tuple[str, bytes], storage: bytes = STORAGE, root: str = "w") -> bytes:
    pickled = pickle.PROTO + b"\2" + mapped(text("w"), payload) + pickle.STOP
    return archive((f"{root}/data.pkl", pickled), (f"{root}/data/0", storage), *more)


HONEST_TENSOR = tensor(shape(2, 3), shape(3, 1))


def compressed_bomb() -> bytes:
    pickled = pickle.PROTO + b"\2" + NONE + pickle.STOP
    return archive(("w/data.pkl", pickled), ("w/data/0", bytes(50_000_000)), compression=zipfile.ZIP_DEFLATED)


def doubled_member() -> bytes:
    """Two members of one name; zipfile warns of it and must not be heard to."""
    data = pt(HONEST_TENSOR, ("w/data/1", bytes(24)))
    return data.replace(b"w/data/1", b"w/data/0")


def overlapping_members() -> bytes:
    """The directory sends data/1 to the bytes of data/0."""
    data = bytearray(pt(HONEST_TENSOR, ("w/data/1", STORAGE)))
    first, second = (data.rfind(name) - 46 for name in (b"w/data/0", b"w/data/1"))
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return bytes(data)


def huge_directory() -> bytes:
    """A directory of 5 MB behind an honest end record."""
    entry = pt(HONEST_TENSOR)
    start = entry.rfind(b"PK\x01\x02")
    one = entry[start : entry.rfind(b"PK\x05\x06")]
    many = one * (5_000_000 // len(one) + 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 9, 9, len(many), start, 0)
    return entry[:start] + many + end


def encrypted_member() -> bytes:
    data = bytearray(pt(HONEST_TENSOR))
    start = data.rfind(b"PK\x01\x02")
    data[start + 8] |= 1
    return bytes(data)


def flipped_storage() -> bytes:
    data = pt(HONEST_TENSOR)
    return data.replace(STORAGE, STORAGE[::-1])


def in_pt(name: str) -> Callable[[], bytes]:
    """The pickle of a .npy file in an archive."""

    def build() -> bytes:
        data = WITH_CODE[name]()
        return archive(("w/data.pkl", data[data.index(b"\n\x80") + 1 :]))

    return build


PT: dict[str, tuple[Callable[[], bytes], bool]] = {
    "pt_os_system": (in_pt("os_system"), True),
    "pt_numpy_load": (in_pt("numpy_load"), True),
    "pt_inst": (in_pt("inst"), True),
    "pt_rebuild_tensor_v3": (lambda: pt(called(named("torch._utils", "_rebuild_tensor_v3"))), True),
    "pt_python_storage": (lambda: pt(named("torch", "UntypedStorage")), True),
    "pt_hub_load": (lambda: pt(called(named("torch.hub", "load"), text("a/b"), text("c"))), True),
    "pt_forged_dtype": (lambda: pt(array(forged_dtype(), shape(1), raw(b"\0"))), False),
    "pt_zip_slip": (lambda: pt(HONEST_TENSOR, ("../../evil.py", b"x")), False),
    "pt_absolute": (lambda: pt(HONEST_TENSOR, ("/etc/evil", b"x")), False),
    "pt_backslash": (lambda: pt(HONEST_TENSOR, ("w\\data\\1", b"x")), False),
    "pt_two_roots": (lambda: pt(HONEST_TENSOR, ("v/data/1", b"x")), False),
    "pt_code_member": (lambda: pt(HONEST_TENSOR, ("w/code/__torch__.py", b"x")), False),
    "pt_no_pickle": (lambda: archive(("w/data/0", STORAGE)), False),
    "pt_doubled_member": (doubled_member, False),
    "pt_overlapping_members": (overlapping_members, False),
    "pt_compressed_bomb": (compressed_bomb, False),
    "pt_encrypted_member": (encrypted_member, False),
    "pt_huge_directory": (huge_directory, False),
    "pt_huge_note": (lambda: pt(HONEST_TENSOR, ("w/version", bytes(10_000))), False),
    "pt_big_endian": (lambda: pt(HONEST_TENSOR, ("w/byteorder", b"big")), False),
    "pt_wrong_checksum": (flipped_storage, False),
    "pt_storage_short": (lambda: pt(HONEST_TENSOR, storage=STORAGE[:-1]), False),
    "pt_storage_long": (lambda: pt(HONEST_TENSOR, storage=STORAGE + b"\0"), False),
    "pt_storage_missing": (lambda: pt(tensor(shape(1), shape(1), storage=storage_id("7"))), False),
    "pt_storage_elsewhere": (lambda: pt(tensor(shape(1), shape(1), storage=storage_id("../0"))), False),
    "pt_storage_negative": (lambda: pt(tensor(shape(1), shape(1), storage=storage_id("0", -6))), False),
    "pt_storage_of_2_to_60": (lambda: pt(tensor(shape(1), shape(1), storage=storage_id("0", 2**60))), False),
    "pt_storage_as_a_value": (lambda: pt(storage_id()), False),
    "pt_storage_of_a_class": (
        lambda: pt(tensor(shape(1), shape(1), storage=group(text("storage"), NDARRAY) + pickle.BINPERSID)),
        False,
    ),
    "pt_module_id": (lambda: pt(group(text("module"), NONE, text("x"), text("y")) + pickle.BINPERSID), False),
    "pt_two_dtypes": (
        lambda: pt(listed(HONEST_TENSOR, tensor(shape(6), shape(1), storage=storage_id("0", 6, "IntStorage")))),
        False,
    ),
    "pt_truth_value_of_two": (
        lambda: pt(tensor(shape(24), shape(1), storage=storage_id("0", 24, "BoolStorage"))),
        False,
    ),
    "pt_strides_outside": (lambda: pt(tensor(shape(2, 3), shape(4, 1))), False),
    "pt_stride_huge": (lambda: pt(tensor(shape(2), shape(2**62))), False),
    "pt_stride_negative": (lambda: pt(tensor(shape(2, 3), shape(3, -1))), False),
    "pt_stride_0": (lambda: pt(tensor(shape(2**30), shape(0))), False),
    "pt_strides_too_few": (lambda: pt(tensor(shape(2, 3), shape(3))), False),
    "pt_size_negative": (lambda: pt(tensor(shape(-2, -3), shape(3, 1))), False),
    "pt_size_huge": (lambda: pt(tensor(shape(2**40, 2**40), shape(3, 1))), False),
    "pt_size_of_texts": (lambda: pt(tensor(group(text("2")), shape(1))), False),
    "pt_size_empty_and_huge": (lambda: pt(tensor(shape(0, 2**40, 2**40), shape(1, 1, 1))), False),
    "pt_offset_outside": (lambda: pt(tensor(shape(2, 3), shape(3, 1), offset=whole(1))), False),
    "pt_offset_negative": (lambda: pt(tensor(shape(2), shape(1), offset=whole(-4))), False),
    "pt_offset_huge": (lambda: pt(tensor(shape(1), shape(1), offset=whole(2**63))), False),
    "pt_hooks": (lambda: pt(tensor(shape(1), shape(1), hooks=listed(NDARRAY))), False),
    "pt_tensor_with_state": (lambda: pt(HONEST_TENSOR + mapped(text("x"), NONE) + pickle.BUILD), False),
    "pt_parameter_of_a_text": (
        lambda: pt(called(named("torch._utils", "_rebuild_parameter"), text("x"), TRUE, ORDERED_DICT)), False,
    ),
    "pt_legacy": (lambda: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(100), False),
    "pt_tar": (lambda: b"storages" + bytes(1000), False),
    "pt_empty": (lambda: b"", False),
    "pt_no_directory": (lambda: pt(HONEST_TENSOR)[:-30], False),
    "pt_prefixed": (lambda: b"MZ" + pt(HONEST_TENSOR), False),
}  # fmt: skip


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def st(header: object, data: bytes = bytes(8), length: int | None = None) -> bytes:
    coded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(coded) if length is None else length) + coded + data


def st_entry(**changes: object) -> Callable[[], bytes]:
    return lambda: st({"w": {**F32, **changes}})


SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "st_empty": lambda: b"",
    "st_seven_bytes": lambda: bytes(7),
    "st_header_of_2_gb": lambda: st({"w": F32}, length=2**31),
    "st_header_of_64_bit": lambda: st({"w": F32}, length=2**64 - 1),
    "st_header_too_long": lambda: st(b" " * 5_000_000),
    "st_header_no_json": lambda: st(b"__import__('os')"),
    "st_header_no_utf8": lambda: st(b"\xff\xfe"),
    "st_header_a_list": lambda: st([]),
    "st_header_deep": lambda: st(b"[" * 100_000),
    "st_header_long_number": lambda: st(b'{"w": ' + b"9" * 10_000 + b"}"),
    "st_name_twice": lambda: st(b'{"w": %s, "w": %s}' % ((json.dumps(F32).encode(),) * 2)),
    "st_metadata_of_numbers": lambda: st({"__metadata__": {"a": 1}, "w": F32}),
    "st_metadata_a_list": lambda: st({"__metadata__": [], "w": F32}),
    "st_entry_a_number": lambda: st({"w": 1}),
    "st_entry_empty": lambda: st({"w": {}}),
    "st_dtype_unknown": st_entry(dtype="object"),
    "st_dtype_of_torch": st_entry(dtype="BF16", shape=[4]),
    "st_dtype_a_list": st_entry(dtype=["F32"]),
    "st_shape_too_large": st_entry(shape=[3]),
    "st_shape_huge": st_entry(shape=[2**40, 2**40]),
    "st_shape_negative": st_entry(shape=[-2]),
    "st_shape_of_fractions": st_entry(shape=[2.0]),
    "st_shape_of_truth_values": st_entry(shape=[True, 2]),
    "st_offsets_outside": st_entry(data_offsets=[8, 16]),
    "st_offsets_backwards": st_entry(data_offsets=[8, 0]),
    "st_offsets_negative": st_entry(data_offsets=[-8, 0]),
    "st_offsets_of_texts": st_entry(data_offsets=["0", "8"]),
    "st_offsets_of_three": st_entry(data_offsets=[0, 8, 8]),
    "st_overlap": lambda: st({"v": F32, "w": F32}),
    "st_partial_overlap": lambda: st({"v": F32, "w": {**F32, "data_offsets": [4, 12]}}, bytes(12)),
    "st_gap": lambda: st({"v": F32, "w": {**F32, "data_offsets": [12, 20]}}, bytes(20)),
    "st_bytes_after_the_end": lambda: st({"w": F32}, bytes(9)),
    "st_too_short": lambda: st({"w": F32}, bytes(7)),
    "st_truth_value_of_two": lambda: st({"w": {**F32, "dtype": "BOOL", "shape": [8]}}, b"\2" * 8),
}
