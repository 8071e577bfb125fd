"""Read a pickle into inert records: nothing that it names is imported, called or changed.

A pickle is a program for a small stack machine, and most of its power is in four opcodes that
import, call and change objects. This machine has none of it. A global becomes a ``Name`` if it is
in the table of the caller, and ends the reading if it is not; a call becomes a ``Call`` that keeps
its arguments; dicts stay lists of pairs, so that nothing is hashed. ``pickle.Unpickler`` with a
``find_class`` of our own is not enough: it allocates what a length declares, grows its memo to an
index of the file's choice, copies every array and hashes tuples of any depth (which ends the
process).

The opcodes are those that Python 3 writes in protocols 2 to 5 (CPython ``Lib/pickletools.py``).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from berg.core.exceptions import CorruptedFileError
from berg.weights.mapped_file import corrupted, shown, unsafe

Allowed = Mapping[tuple[str, str], str]

MAX_OPCODES = 4_000_000
MAX_RECORDS = 1_000_000
MAX_DEPTH = 64
# Counted with every repetition: a list that holds one list ten times, ten times over, is larger
# than its file.
MAX_EXPANDED = 10_000_000
MAX_GLOBAL_LENGTH = 256
# Bytes below this are copied: a view of them would take more than they do.
SHORT_BYTES = 4096
# Longer texts can only be the bytes of an array, spelt as Latin-1 in UTF-8 by protocol 2. Their
# largest lead byte is 0xC3, and Python keeps them at one byte a character.
SHORT_TEXT = 65536
LAST_LATIN1_BYTE = 0xC3


@dataclass(frozen=True, slots=True)
class Name:
    """A global that the pickle names; `role` is what the caller's table says about it."""

    role: str
    spelt: str


@dataclass(slots=True, eq=False, repr=False)
class Pairs:
    """The keys and values of a dict, in the order of the file."""

    pairs: list[tuple[object, object]] = field(default_factory=list)


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """What would have been called, with what, and what would have been set on the result."""

    name: Name
    arguments: tuple[object, ...]
    pairs: list[tuple[object, object]] = field(default_factory=list)
    state: object = None


@dataclass(slots=True, eq=False, repr=False)
class PersistentId:
    """What would have been handed to the loader of persistent ids."""

    value: object


def read_records(data: memoryview, path: Path, allowed: Allowed, *, persistent_ids: bool = False) -> object:
    """Return what a pickle holds as inert records.

    Parameters
    ----------
    data
        The bytes of the pickle and no others.
    path
        The file they are from, for the errors.
    allowed
        Role of each global that may be named, by (module, name).
    persistent_ids
        Whether persistent ids are recorded or refused.

    Returns
    -------
    record
        None, a truth value, a number, a text, bytes (a memoryview of `data` where they are
        long), or a tuple, list, Pairs, Call, Name or PersistentId of those. It has no cycles, is
        at most 64 deep and at most 10 million values large.

    Raises
    ------
    UnsafeFileError
        When it names another global, or has an opcode that makes objects in another way.
    CorruptedFileError
        When it is no pickle, not whole, or larger than weights can be.
    """
    machine = _Machine(data, path, allowed, persistent_ids)
    record = machine.run()
    if machine.position != len(data):
        raise corrupted(path, f"{len(data) - machine.position} bytes follow the end of its pickle")
    _check_extent(record, path, 0, {})
    return record


class _Machine:
    def __init__(self, data: memoryview, path: Path, allowed: Allowed, persistent_ids: bool) -> None:
        self.data = data
        self.path = path
        self.allowed = allowed
        self.persistent_ids = persistent_ids
        self.position = 0
        self.n_records = 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: list[object] = []

    def run(self) -> object:
        if bytes(self.data[:2]) not in (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5"):
            raise self.corrupted("its pickle does not begin with a protocol from 2 to 5")
        self.position = 2
        for _ in range(MAX_OPCODES):
            opcode = self.byte()
            if opcode == _STOP:
                return self.result()
            step = _STEPS.get(opcode)
            if step is None:
                raise self.no_such_step(opcode)
            step(self)
        raise self.corrupted(f"its pickle has more than {MAX_OPCODES} opcodes")

    def result(self) -> object:
        record = self.pop()
        if self.stack or self.marks:
            raise self.corrupted("its pickle ends with values left over")
        return record

    def corrupted(self, reason: str) -> CorruptedFileError:
        return corrupted(self.path, f"{reason} (byte {self.position} of the pickle)")

    def no_such_step(self, opcode: int) -> CorruptedFileError:
        wish = _UNSAFE_OPCODES.get(opcode)
        if wish is not None:
            return unsafe(self.path, wish)
        return self.corrupted(f"opcode {opcode:#04x} is none that weights are written with")

    def take(self, length: int) -> memoryview:
        start = self.position
        if length > len(self.data) - start:
            raise self.corrupted(f"it ends where {length} more bytes are declared")
        self.position = start + length
        return self.data[start : self.position]

    def byte(self) -> int:
        if self.position == len(self.data):
            raise self.corrupted("it ends where an opcode is due")
        self.position += 1
        return self.data[self.position - 1]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        start = self.position
        head = bytes(self.data[start : start + MAX_GLOBAL_LENGTH])
        length = head.find(b"\n")
        if length < 0:
            raise self.corrupted("the name of a global does not end")
        self.position = start + length + 1
        return self.decoded(head[:length])

    def text(self, length: int) -> str:
        data = self.take(length)
        if length > SHORT_TEXT and np.frombuffer(data, np.uint8).max() > LAST_LATIN1_BYTE:
            raise self.corrupted(f"it has a text of {length} bytes")
        return self.decoded(data)

    def decoded(self, data: bytes | memoryview) -> str:
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise self.corrupted("a text is not UTF-8") from error

    def bytes_or_view(self, length: int) -> bytes | memoryview:
        data = self.take(length)
        return bytes(data) if length < SHORT_BYTES else data

    def push_new(self, record: object) -> None:
        self.n_records += 1
        if self.n_records > MAX_RECORDS:
            raise self.corrupted(f"its pickle holds more than {MAX_RECORDS} objects")
        self.stack.append(record)

    def pop(self) -> object:
        self.top()
        return self.stack.pop()

    def top(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.corrupted("its pickle takes a value that was not given")
        return self.stack[-1]

    def pop_to_mark(self) -> list[object]:
        if not self.marks:
            raise self.corrupted("its pickle ends a group that was not begun")
        start = self.marks.pop()
        records = self.stack[start:]
        del self.stack[start:]
        return records

    def remember(self, index: int) -> None:
        # Every writer counts up from 0: any other index would grow the memo or change the past.
        if index != len(self.memo):
            raise self.corrupted(f"value {len(self.memo)} of its memo is numbered {index}")
        self.memo.append(self.top())

    def recall(self, index: int) -> None:
        if index >= len(self.memo):
            raise self.corrupted(f"value {index} of its memo was not given")
        self.stack.append(self.memo[index])

    def push_name(self, module: object, name: object) -> None:
        if type(module) is not str or type(name) is not str:
            raise self.corrupted("the name of a global is not a text")
        role = self.allowed.get((module, name))
        if role is None:
            raise unsafe(self.path, shown(f"{module}.{name}"))
        self.push_new(Name(role, f"{module}.{name}"))

    def push_call(self) -> None:
        arguments, name = self.pop(), self.pop()
        if type(name) is not Name:
            raise unsafe(self.path, f"a call of {type(name).__name__}, which is no function")
        if type(arguments) is not tuple:
            raise self.corrupted(f"the arguments of {name.spelt} are no tuple")
        self.push_new(Call(name, arguments))

    def set_state(self) -> None:
        state, call = self.pop(), self.top()
        if type(call) is not Call:
            raise unsafe(self.path, f"a change of {type(call).__name__}, which has no state")
        if call.state is not None or state is None:
            raise self.corrupted(f"the state of {call.name.spelt} is set twice or to nothing")
        call.state = state

    def extend_list(self, records: Iterable[object]) -> None:
        target = self.top()
        if type(target) is not list:
            raise unsafe(self.path, f"an addition to {type(target).__name__}, which is no list")
        target.extend(records)

    def extend_dict(self, records: list[object]) -> None:
        target = self.top()
        if type(target) is not Pairs and type(target) is not Call:
            raise unsafe(self.path, f"an item in {type(target).__name__}, which is no dict")
        if len(records) % 2:
            raise self.corrupted("a key of a dict has no value")
        target.pairs.extend(zip(records[::2], records[1::2], strict=True))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.extend_dict([key, value])

    def push_tuple(self, length: int) -> None:
        records = [self.pop() for _ in range(length)]
        self.push_new(tuple(reversed(records)))

    def push_global_of_lines(self) -> None:
        module = self.line()
        self.push_name(module, self.line())

    def push_global_of_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.push_name(module, name)

    def push_persistent_id(self) -> None:
        if not self.persistent_ids:
            raise unsafe(self.path, "an object outside the file (persistent id)")
        self.push_new(PersistentId(self.pop()))

    def skip_frame(self) -> None:
        length = self.number(8)
        if length > len(self.data) - self.position:
            raise self.corrupted(f"it ends where a frame of {length} bytes is declared")

    def begin_group(self) -> None:
        self.marks.append(len(self.stack))


def _check_extent(record: object, path: Path, depth: int, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return the number of values below a record and its height.

    Parameters
    ----------
    known
        What was returned for other records, by identity; None while one is being measured.

    Raises
    ------
    CorruptedFileError
        For cycles, and for what is too deep or, unrolled, too large.
    """
    if depth > MAX_DEPTH:
        raise corrupted(path, f"its pickle is nested more than {MAX_DEPTH} deep")
    known[id(record)] = None
    size, height = 1, 0
    for child in _CHILDREN[type(record)](record) if type(record) in _CHILDREN else ():
        size += 1
        if type(child) in _CHILDREN:
            if id(child) not in known:
                _check_extent(child, path, depth + 1, known)
            below = known[id(child)]
            if below is None:
                raise corrupted(path, "an object of its pickle holds itself")
            size, height = size + below[0], max(height, below[1] + 1)
    if size > MAX_EXPANDED or depth + height > MAX_DEPTH:
        raise corrupted(path, f"its pickle unrolls to over {MAX_EXPANDED} values or is over {MAX_DEPTH} deep")
    known[id(record)] = extent = (size, height)
    return extent


_CHILDREN: dict[type, Callable[..., Iterable[object]]] = {
    tuple: iter,
    list: iter,
    Pairs: lambda record: (child for pair in record.pairs for child in pair),
    Call: lambda record: (
        *record.arguments,
        record.state,
        *(child for pair in record.pairs for child in pair),
    ),
    PersistentId: lambda record: (record.value,),
}

_STOP = pickle.STOP[0]

_UNSAFE_OPCODES = {
    pickle.INST[0]: "an instance of a class (opcode INST)",
    pickle.OBJ[0]: "an instance of a class (opcode OBJ)",
    pickle.NEWOBJ_EX[0]: "an instance of a class (opcode NEWOBJ_EX)",
    pickle.EXT1[0]: "a registered extension (opcode EXT1)",
    pickle.EXT2[0]: "a registered extension (opcode EXT2)",
    pickle.EXT4[0]: "a registered extension (opcode EXT4)",
    pickle.PERSID[0]: "an object outside the file (opcode PERSID)",
    pickle.NEXT_BUFFER[0]: "bytes outside the file (opcode NEXT_BUFFER)",
}

_STEPS: dict[int, Callable[[_Machine], None]] = {
    opcode[0]: step
    for opcode, step in {
        pickle.FRAME: _Machine.skip_frame,
        pickle.MARK: _Machine.begin_group,
        pickle.NONE: lambda m: m.stack.append(None),
        pickle.NEWTRUE: lambda m: m.stack.append(True),
        pickle.NEWFALSE: lambda m: m.stack.append(False),
        pickle.BININT1: lambda m: m.stack.append(m.byte()),
        pickle.BININT2: lambda m: m.stack.append(m.number(2)),
        pickle.BININT: lambda m: m.stack.extend(struct.unpack("<i", m.take(4))),
        pickle.BINFLOAT: lambda m: m.stack.extend(struct.unpack(">d", m.take(8))),
        pickle.LONG1: lambda m: m.stack.append(int.from_bytes(m.take(m.byte()), "little", signed=True)),
        pickle.SHORT_BINUNICODE: lambda m: m.stack.append(m.text(m.byte())),
        pickle.BINUNICODE: lambda m: m.stack.append(m.text(m.number(4))),
        pickle.BINUNICODE8: lambda m: m.stack.append(m.text(m.number(8))),
        pickle.SHORT_BINBYTES: lambda m: m.stack.append(m.bytes_or_view(m.byte())),
        pickle.BINBYTES: lambda m: m.stack.append(m.bytes_or_view(m.number(4))),
        pickle.BINBYTES8: lambda m: m.stack.append(m.bytes_or_view(m.number(8))),
        pickle.BYTEARRAY8: lambda m: m.stack.append(m.bytes_or_view(m.number(8))),
        pickle.EMPTY_TUPLE: lambda m: m.stack.append(()),
        pickle.TUPLE1: lambda m: m.push_tuple(1),
        pickle.TUPLE2: lambda m: m.push_tuple(2),
        pickle.TUPLE3: lambda m: m.push_tuple(3),
        pickle.TUPLE: lambda m: m.push_new(tuple(m.pop_to_mark())),
        pickle.EMPTY_LIST: lambda m: m.push_new([]),
        pickle.APPEND: lambda m: m.extend_list([m.pop()]),
        pickle.APPENDS: lambda m: m.extend_list(m.pop_to_mark()),
        pickle.EMPTY_DICT: lambda m: m.push_new(Pairs()),
        pickle.SETITEM: _Machine.set_item,
        pickle.SETITEMS: lambda m: m.extend_dict(m.pop_to_mark()),
        pickle.MEMOIZE: lambda m: m.remember(len(m.memo)),
        pickle.BINPUT: lambda m: m.remember(m.byte()),
        pickle.LONG_BINPUT: lambda m: m.remember(m.number(4)),
        pickle.BINGET: lambda m: m.recall(m.byte()),
        pickle.LONG_BINGET: lambda m: m.recall(m.number(4)),
        pickle.GLOBAL: _Machine.push_global_of_lines,
        pickle.STACK_GLOBAL: _Machine.push_global_of_stack,
        pickle.REDUCE: _Machine.push_call,
        pickle.NEWOBJ: _Machine.push_call,
        pickle.BUILD: _Machine.set_state,
        pickle.BINPERSID: _Machine.push_persistent_id,
    }.items()
}
