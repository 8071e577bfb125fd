"""Pickles that try to run code, to end the process, or to take its time and memory.

`WITH_CODE` asks for code, `HIDDEN` and `TRUNCATED` are not what they claim to be, and `BOMBS` are
larger or deeper than their file.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .pickle_parts import (
    FALSE,
    FROMBUFFER,
    NDARRAY,
    NONE,
    ORDERED_DICT,
    PCA,
    RECONSTRUCTED,
    SCALAR,
    TRUE,
    array,
    called,
    dtype,
    group,
    in_object_array,
    listed,
    mapped,
    named,
    npy,
    plain_npy,
    raw,
    shape,
    text,
    weights,
    whole,
)

CANARY = "canary"
TERABYTE = struct.pack("<Q", 2**40)


class _Reduced:
    """Something whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def pickled_call(function: Any, *arguments: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(_Reduced(function, *arguments), dtype=object), allow_pickle=True)
    return buffer.getvalue()


def chain(*names: tuple[str, str]) -> bytes:
    """What gadgets do: the result of one call is the function of the next."""
    payload = called(named(*names[0]), text("os"))
    for name in names[1:]:
        payload = called(named(*name), payload, text("system"))
    return payload + group(text(f"touch {CANARY}")) + pickle.REDUCE


def instance(module: str, name: str) -> bytes:
    return pickle.MARK + text("x") + pickle.INST + f"{module}\n{name}\n".encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + pickle.STACK_GLOBAL


TOUCH = f"open({CANARY!r}, 'w')"
WITH_CODE: dict[str, Callable[[], bytes]] = {
    "os_system": lambda: pickled_call(os.system, f"touch {CANARY}"),
    "eval": lambda: pickled_call(eval, TOUCH),
    "exec": lambda: pickled_call(exec, TOUCH),
    "getattr": lambda: pickled_call(getattr, "os", "__class__"),
    "posix_system_inside_the_dict": lambda: weights(called(named("posix", "system"), text(f"touch {CANARY}"))),
    "open_for_writing": lambda: weights(called(named("io", "open"), text(CANARY), text("w"))),
    "subprocess": lambda: weights(called(named("subprocess", "Popen"), listed(text("touch"), text(CANARY)))),
    "import_module": lambda: weights(called(named("importlib", "import_module"), text("antigravity"))),
    "numpy_load_library": lambda: pickled_call(np.ctypeslib.load_library, "libc.so.6", "/usr/lib"),
    "numpy_load": lambda: pickled_call(np.load, "other.npy", None, True),
    "numpy_fromfile": lambda: pickled_call(np.fromfile, "/etc/hostname"),
    "numpy_memmap": lambda: weights(called(named("numpy", "memmap"), text(CANARY), text("u1"), text("w+"))),
    "numpy_f2py": lambda: weights(called(named("numpy.f2py", "compile"), text("end"))),
    "numpy_savetxt": lambda: pickled_call(np.savetxt, CANARY, [1.0]),
    "numpy_runstring": lambda: weights(
        called(named("numpy.testing._private.utils", "runstring"), text(TOUCH), mapped())
    ),
    "numpy_random_state": lambda: pickled_call(np.random.RandomState, 0),
    "joblib_wrapper": lambda: weights(called(named("joblib.numpy_pickle", "NumpyArrayWrapper"))),
    "pickle_in_pickle": lambda: weights(called(named("_pickle", "loads"), raw(b"cos\nsystem\n."))),
    "torch_load_from_bytes": lambda: weights(called(named("torch.storage", "_load_from_bytes"), raw(b"x"))),
    "chain_of_getattr": lambda: weights(chain(("builtins", "__import__"), ("builtins", "getattr"))),
    "copyreg_reconstructor": lambda: weights(called(named("copyreg", "_reconstructor"), PCA, NDARRAY, NONE)),
    "stack_global_of_code": lambda: weights(called(stack_global("os", "system"), text(f"touch {CANARY}"))),
    "dotted_name": lambda: weights(stack_global("numpy", "ndarray.tofile")),
    "dotted_module": lambda: weights(stack_global("numpy.core.multiarray._reconstruct", "__globals__")),
    "dotted_name_of_allowed": lambda: weights(stack_global("_codecs", "encode.__self__")),
    "name_with_terminal_escape": lambda: weights(stack_global("os\x1b[2J", "system")),
    "module_ends_in_space": lambda: weights(stack_global("numpy ", "ndarray")),
    "name_in_other_letters": lambda: weights(stack_global("numpy", "\uff4edarray")),
    "callable_in_object_array": lambda: npy(
        pickle.PROTO + b"\4" + in_object_array(array(dtype("O8", "|"), shape(1), listed(named("os", "system")))) + b"."
    ),
    "forbidden_class_in_pca": lambda: weights(
        PCA + pickle.EMPTY_TUPLE + pickle.NEWOBJ + mapped(text("mean_"), named("sklearn.svm", "SVC")) + pickle.BUILD
    ),
    "other_estimator": lambda: weights(
        named("sklearn.pipeline", "Pipeline") + pickle.EMPTY_TUPLE + pickle.NEWOBJ + mapped() + pickle.BUILD
    ),
    "inst": lambda: weights(instance("os", "system")),
    "inst_of_allowed": lambda: weights(instance("numpy", "ndarray")),
    "obj": lambda: weights(pickle.MARK + NDARRAY + text("x") + pickle.OBJ),
    "newobj_ex": lambda: weights(PCA + pickle.EMPTY_TUPLE + mapped() + pickle.NEWOBJ_EX),
    "ext1": lambda: weights(pickle.EXT1 + b"\1"),
    "ext2": lambda: weights(pickle.EXT2 + b"\1\0"),
    "ext4": lambda: weights(pickle.EXT4 + b"\1\0\0\0"),
    "persistent_id": lambda: weights(text("storage") + pickle.BINPERSID),
    "persistent_id_in_text": lambda: weights(pickle.PERSID + b"1\n"),
    "buffer_outside": lambda: weights(pickle.NEXT_BUFFER),
    "build_on_a_class": lambda: weights(NDARRAY + mapped(text("__reduce__"), text("x")) + pickle.BUILD),
    "build_on_a_list": lambda: weights(listed() + mapped(text("append"), NONE) + pickle.BUILD),
    "call_of_a_text": lambda: weights(text("os.system") + group() + pickle.REDUCE),
    "append_to_a_call": lambda: weights(ORDERED_DICT + whole(1) + pickle.APPEND),
    "item_in_a_class": lambda: weights(NDARRAY + text("a") + NONE + pickle.SETITEM),
}  # fmt: skip


HONEST_ARRAY = array(dtype("f8"), shape(2), raw(bytes(16)))


def forged_dtype() -> bytes:
    """A record dtype of one byte with an object far outside: numpy follows the pointer."""
    made = called(named("numpy", "dtype"), text("V8"), FALSE, TRUE)
    fields = mapped(text("a"), group(dtype("O8", "|"), whole(2**30)))
    state = (whole(3), text("|"), NONE, group(text("a")), fields, whole(1), whole(1), whole(16))
    return made + group(*state) + pickle.BUILD


def forged_fields_on_f8() -> bytes:
    made = called(named("numpy", "dtype"), text("f8"), FALSE, TRUE)
    fields = mapped(text("a"), group(dtype("f8"), whole(-8)))
    state = (whole(3), text("<"), NONE, group(text("a")), fields, whole(8), whole(1), whole(27))
    return made + group(*state) + pickle.BUILD


def forged_subarray() -> bytes:
    made = called(named("numpy", "dtype"), text("f8"), FALSE, TRUE)
    state = (whole(3), text("<"), group(dtype("f8"), shape(-1)), NONE, NONE, whole(-1), whole(-1), whole(0))
    return made + group(*state) + pickle.BUILD


def nested(opening: bytes, closing: bytes, depth: int = 100_000) -> bytes:
    return weights(opening * depth + NONE + closing * depth)


def laughs(depth: int = 40) -> bytes:
    """Lists of ten times the list before: 10**40 values in 1 kB."""
    payload = pickle.EMPTY_LIST + pickle.MEMOIZE
    for index in range(depth):
        repeated = pickle.BINGET + bytes([index])
        payload += pickle.EMPTY_LIST + pickle.MEMOIZE + pickle.MARK + repeated * 10 + pickle.APPENDS
    return weights(group(payload))


def colliding_keys(n_keys: int = 100_000) -> bytes:
    step = sys.hash_info.modulus
    return weights(mapped(*(whole(index * step) + NONE for index in range(1, n_keys))))


HIDDEN: dict[str, Callable[[], bytes]] = {
    "forged_dtype": lambda: weights(array(forged_dtype(), shape(1), raw(b"\0"))),
    "forged_dtype_of_buffer": lambda: weights(called(FROMBUFFER, raw(bytes(8)), forged_dtype(), shape(1), text("C"))),
    "forged_dtype_alone": lambda: weights(forged_dtype()),
    "forged_fields": lambda: weights(array(forged_fields_on_f8(), shape(1), raw(bytes(8)))),
    "forged_subarray": lambda: weights(array(forged_subarray(), shape(1), raw(bytes(8)))),
    "forged_itemsize": lambda: weights(array(dtype("U2", size=2**30, alignment=4), shape(1), raw(bytes(8)))),
    "itemsize_on_a_number": lambda: weights(array(dtype("f8", size=1, alignment=1), shape(8), raw(bytes(8)))),
    "dtype_without_state": lambda: weights(called(named("numpy", "dtype"), text("f8"), FALSE, TRUE)),
    "dtype_in_words": lambda: weights(array(dtype("f8,O"), shape(1), raw(bytes(16)))),
    "dtype_of_records": lambda: weights(array(dtype("V16"), shape(1), raw(bytes(16)))),
    "dtype_of_dates": lambda: weights(array(dtype("M8"), shape(1), raw(bytes(8)))),
    "text_of_no_length": lambda: weights(array(dtype("U0", size=0, alignment=4), shape(2**40), raw(b""))),
    "pointers_from_bytes": lambda: weights(array(dtype("O8", "|"), shape(2), raw(bytes(16)))),
    "pointers_from_a_buffer": lambda: weights(
        called(FROMBUFFER, raw(b"A" * 16), dtype("O8", "|"), shape(2), text("C"))
    ),
    # 361 bytes; under numpy.load a segmentation fault.
    "forged_flags": lambda: weights(called(SCALAR, dtype("O8", "|", flags=0), raw(b"A" * 8))),
    "forged_flags_of_array": lambda: weights(array(dtype("O8", "|", flags=0), shape(1), raw(b"A" * 8))),
    "forged_flags_of_buffer": lambda: weights(
        called(FROMBUFFER, raw(b"A" * 8), dtype("O8", "|", flags=0), shape(1), text("C"))
    ),
    "pointer_as_a_scalar": lambda: weights(called(SCALAR, dtype("O8", "|"), raw(b"A" * 8))),
    "scalar_too_long": lambda: weights(called(SCALAR, dtype("f8"), raw(bytes(9)))),
    "scalar_of_numbers": lambda: weights(called(SCALAR, dtype("f8"), whole(8))),
    "shape_larger_than_bytes": lambda: weights(array(dtype("f8"), shape(2**40, 2**20), raw(bytes(16)))),
    "shape_smaller_than_bytes": lambda: weights(array(dtype("f8"), shape(1), raw(bytes(16)))),
    "shape_that_overflows": lambda: weights(array(dtype("f8"), shape(2**40, 2**40), raw(b""))),
    "empty_shape_that_overflows": lambda: weights(array(dtype("f8"), shape(0, 2**40, 2**40), raw(b""))),
    "negative_shape": lambda: weights(array(dtype("f8"), shape(-1, -2), raw(bytes(16)))),
    "shape_of_texts": lambda: weights(array(dtype("f8"), group(text("2")), raw(bytes(16)))),
    "shape_of_truth_values": lambda: weights(array(dtype("f8"), group(TRUE, whole(2)), raw(bytes(16)))),
    "shape_of_a_list": lambda: weights(array(dtype("f8"), listed(whole(2)), raw(bytes(16)))),
    "shape_of_many_axes": lambda: weights(array(dtype("f8"), shape(*[1] * 100), raw(bytes(8)))),
    "object_shape_too_large": lambda: weights(array(dtype("O8", "|"), shape(2**40), listed(NONE))),
    "axes_no_permutation": lambda: weights(
        called(FROMBUFFER, raw(bytes(16)), dtype("f8"), shape(2, 1), text("K"), group(whole(0), whole(0)))
    ),
    "order_unknown": lambda: weights(called(FROMBUFFER, raw(bytes(16)), dtype("f8"), shape(2), text("A"))),
    "truth_value_of_two": lambda: weights(array(dtype("b1", "|"), shape(2), raw(b"\2\xff"))),
    "text_beyond_unicode": lambda: weights(array(dtype("U1", size=4, alignment=4), shape(1), raw(b"\xff" * 4))),
    "array_set_twice": lambda: weights(HONEST_ARRAY + group(whole(1)) + pickle.BUILD),
    "array_never_set": lambda: weights(RECONSTRUCTED),
    "array_with_items": lambda: weights(HONEST_ARRAY + text("a") + NONE + pickle.SETITEM),
    "array_of_a_class": lambda: weights(NDARRAY),
    "array_made_by_dtype": lambda: weights(called(NDARRAY, shape(2**40))),
    "ordered_dict_with_slots": lambda: weights(ORDERED_DICT + group(NONE, mapped(text("x"), NONE)) + pickle.BUILD),
    "ordered_dict_of_a_list": lambda: weights(called(named("collections", "OrderedDict"), listed())),
    "pca_with_slots": lambda: weights(
        PCA + pickle.EMPTY_TUPLE + pickle.NEWOBJ + group(NONE, mapped(text("__class__"), NDARRAY)) + pickle.BUILD
    ),
    "pca_holding_a_class": lambda: weights(
        PCA + pickle.EMPTY_TUPLE + pickle.NEWOBJ + mapped(text("mean_"), NDARRAY) + pickle.BUILD
    ),
    "pca_holding_a_dict": lambda: weights(
        PCA + pickle.EMPTY_TUPLE + pickle.NEWOBJ + mapped(text("mean_"), mapped()) + pickle.BUILD
    ),
    "encode_other_codec": lambda: weights(called(named("_codecs", "encode"), text("x"), text("zlib_codec"))),
    "encode_other_letters": lambda: weights(called(named("_codecs", "encode"), text("\u4e2d"), text("latin1"))),
    "bytes_of_a_number": lambda: weights(called(named("builtins", "bytes"), whole(2**40))),
    "list_as_key": lambda: weights(mapped(listed(), NONE)),
    "dict_as_key": lambda: weights(mapped(mapped(), NONE)),
    "array_as_key": lambda: weights(mapped(HONEST_ARRAY, NONE)),
    "tuple_as_key": lambda: weights(mapped(shape(1, 2), NONE)),
    "key_without_value": lambda: weights(mapped(text("a"))),
    "list_in_itself": lambda: weights(
        pickle.EMPTY_LIST + pickle.MEMOIZE + pickle.BINGET + b"\0" + pickle.APPEND
    ),
    "dict_in_itself": lambda: weights(
        pickle.EMPTY_DICT + pickle.MEMOIZE + text("a") + pickle.BINGET + b"\0" + pickle.SETITEM
    ),
    "call_in_its_state": lambda: weights(
        RECONSTRUCTED + pickle.MEMOIZE + group(whole(1), shape(1), dtype("O8", "|"), FALSE,
                                               listed(pickle.BINGET + b"\0")) + pickle.BUILD
    ),
    "memo_overwritten": lambda: weights(
        NDARRAY + pickle.BINPUT + b"\0" + text("x") + pickle.BINPUT + b"\0" + pickle.TUPLE2
    ),
    "memo_far_away": lambda: weights(NONE + pickle.LONG_BINPUT + struct.pack("<I", 2**32 - 1)),
    "memo_of_nothing": lambda: weights(pickle.BINGET + b"\7"),
    "stack_underflow": lambda: npy(pickle.PROTO + b"\4" + pickle.TUPLE3 + pickle.STOP),
    "mark_underflow": lambda: npy(pickle.PROTO + b"\4" + pickle.APPENDS + pickle.STOP),
    "pop_through_mark": lambda: weights(listed() + pickle.MARK + pickle.APPEND),
    "values_left_over": lambda: npy(pickle.PROTO + b"\4" + NONE + NONE + pickle.STOP),
    "global_of_numbers": lambda: weights(whole(1) + whole(2) + pickle.STACK_GLOBAL),
    "global_without_end": lambda: weights(pickle.GLOBAL + b"n" * 10_000),
    "protocol_0": lambda: npy(b"cos\nsystem\n."),
    "protocol_9": lambda: npy(pickle.PROTO + b"\x09" + NONE + pickle.STOP),
    "protocol_inside": lambda: weights(pickle.PROTO + b"\4" + NONE),
    "text_not_utf8": lambda: weights(pickle.SHORT_BINUNICODE + b"\2\xff\xfe"),
    "old_text_opcode": lambda: weights(pickle.STRING + b"'a'\n"),
    "number_as_a_line": lambda: weights(pickle.INT + b"9" * 100_000 + b"\n"),
    "long_number": lambda: weights(pickle.LONG4 + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000),
    "sets": lambda: weights(pickle.EMPTY_SET),
    "root_is_no_array": lambda: npy(pickle.dumps({"a": 1}, protocol=4)),
    "root_of_another_shape": lambda: npy(
        pickle.PROTO + b"\4" + array(dtype("O8", "|"), shape(1), listed(NONE)) + pickle.STOP
    ),
    "bytes_after_the_end": lambda: weights(NONE) + b"cos\nsystem\n.",
    "empty_file": lambda: b"",
    "no_header": lambda: b"\x93NUMPY\x01\x00",
    "zip_instead": lambda: b"PK\x03\x04" + bytes(100),
    "version_of_tomorrow": lambda: b"\x93NUMPY\x07\x00" + bytes(100),
    "header_of_4_gb": lambda: b"\x93NUMPY\x02\x00" + b"\xff" * 4 + bytes(100),
    "header_of_code": lambda: npy(b"", f"__import__('os').system('touch {CANARY}')"),
    "header_with_code_as_shape": lambda: plain_npy("'<f8'", f"({TOUCH},)", b""),
    "header_of_parentheses": lambda: npy(b"", "(" * 9_000),
    "header_of_minuses": lambda: plain_npy("'<f8'", f"({'-' * 9_000}1,)", b""),
    "header_of_records": lambda: plain_npy("[('a', '|O')]", "(1,)", bytes(8)),
    "header_of_words": lambda: plain_npy("'f8, O'", "(1,)", bytes(16)),
    "plain_shape_too_large": lambda: plain_npy("'<f8'", "(1099511627776, 1048576)", bytes(16)),
    "plain_shape_negative": lambda: plain_npy("'<f8'", "(-1,)", bytes(16)),
    "plain_too_short": lambda: plain_npy("'<f8'", "(3,)", bytes(16)),
    "plain_too_long": lambda: plain_npy("'<f8'", "(1,)", bytes(16)),
    "plain_truth_values": lambda: plain_npy("'|b1'", "(1,)", b"\7"),
}  # fmt: skip


def honest_npy() -> bytes:
    buffer = io.BytesIO()
    value = {"coef_": np.eye(3, dtype=np.float32), "names": ["a", "b"], "n": np.float64(1)}
    np.save(buffer, np.array(value, dtype=object), allow_pickle=True)
    return buffer.getvalue()


TRUNCATED: dict[str, Callable[[], bytes]] = {
    f"truncated_to_{percent}_percent": lambda percent=percent: honest_npy()[: len(honest_npy()) * percent // 100]  # type: ignore[misc]
    for percent in range(2, 100, 7)
}


def repeated_bytes(use: bytes, n_bytes: int = 1_000_000) -> bytes:
    """The same megabyte made into arrays 10,000 times."""
    once = raw(bytes(n_bytes)) + pickle.BINPUT + b"\0"
    return weights(group(once, *[use] * 10_000))


RECALLED = pickle.BINGET + b"\0"


def repeated_text() -> bytes:
    once = text("a" * 1_000_000) + pickle.BINPUT + b"\0"
    use = called(named("_codecs", "encode"), RECALLED, text("latin1"))
    return weights(group(once, *[use] * 10_000))


BOMBS: dict[str, Callable[[], bytes]] = {
    "deep_tuples": lambda: nested(b"", pickle.TUPLE1),
    "deep_lists": lambda: nested(pickle.EMPTY_LIST, pickle.APPEND),
    "deep_dicts": lambda: nested(pickle.EMPTY_DICT + NONE, pickle.SETITEM),
    "deep_marks": lambda: nested(pickle.MARK, pickle.TUPLE),
    "deep_calls": lambda: nested(NDARRAY, pickle.TUPLE1 + pickle.REDUCE),
    "deep_states": lambda: nested(ORDERED_DICT, pickle.BUILD),
    "deep_tuple_as_key": lambda: weights(mapped(NONE + pickle.TUPLE1 * 100_000, NONE)),
    "billion_laughs": laughs,
    "repeated_arrays": lambda: repeated_bytes(array(dtype("f8"), shape(125_000), RECALLED)),
    "repeated_truth_values": lambda: repeated_bytes(array(dtype("b1", "|"), shape(1_000_000), RECALLED)),
    "repeated_scalars": lambda: repeated_bytes(called(SCALAR, dtype("S50000", "|", 50_000, 1), RECALLED), 50_000),
    "repeated_text": repeated_text,
    "colliding_integers": colliding_keys,
    "frame_of_a_terabyte": lambda: weights(pickle.FRAME + TERABYTE + NONE),
    "bytes_of_a_terabyte": lambda: weights(pickle.BINBYTES8 + TERABYTE + b"x"),
    "bytes_beyond_64_bit": lambda: weights(pickle.BINBYTES8 + b"\xff" * 8 + b"x"),
    "bytearray_of_a_terabyte": lambda: weights(pickle.BYTEARRAY8 + TERABYTE + b"x"),
    "text_of_a_terabyte": lambda: weights(pickle.BINUNICODE8 + TERABYTE + b"x"),
    "bytes_of_4_gb": lambda: weights(pickle.BINBYTES + b"\xff" * 4 + b"x"),
    "text_of_wide_letters": lambda: weights(text("a" * 10_000_000 + "\U0001f9e0")),
    "many_marks": lambda: weights(pickle.MARK * 5_000_000),
    "many_lists": lambda: weights(pickle.EMPTY_LIST * 5_000_000),
    "many_dicts": lambda: weights(pickle.EMPTY_DICT * 5_000_000),
    "many_numbers": lambda: weights((pickle.BINFLOAT + bytes(8)) * 5_000_000),
    "many_globals": lambda: weights(named("numpy", "dtype") * 2_000_000),
    "many_memos": lambda: weights((pickle.SHORT_BINBYTES + b"\1x" + pickle.MEMOIZE) * 3_000_000),
}
