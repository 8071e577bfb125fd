"""The header of a .wav file, and whether the file is as long as it says."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from berg.core.exceptions import StimulusError

_BYTE_ORDERS = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">"}
_IN_DS64 = 0xFFFFFFFF  # a size of more than 4 GiB stands in the chunk ds64
_FORMAT_BYTES = 16


def check_whole(path: Path | str) -> None:
    """Raise StimulusError for a .wav file whose sound is shorter than its header says, or is described impossibly.

    Readers take what is there: a copy that was cut would be a shorter sound.
    """
    with open(path, "rb") as file:
        sampling_rate, frame_bytes, n_bytes, n_there = _described(path, file)
    if not sampling_rate or not frame_bytes:
        raise StimulusError(
            f"{path} has a damaged header: {sampling_rate} samples per second of {frame_bytes} bytes each."
        )
    if not n_bytes and n_there:
        raise StimulusError(
            f"{path} is unfinished: its header says 0 bytes of sound, {n_there:,} follow. Repair it:  ffmpeg -i "
            f"{Path(path).name} whole.wav"
        )
    if n_bytes > n_there:
        raise StimulusError(
            f"{path} is cut: {_seconds(n_there, frame_bytes, sampling_rate)} of the "
            f"{_seconds(n_bytes, frame_bytes, sampling_rate)} that its header says are there. Copy it again (or, if "
            f"that is all of it, write its header anew:  ffmpeg -i {Path(path).name} whole.wav)."
        )
    if n_bytes % frame_bytes:
        raise StimulusError(f"{path} is cut: its {n_bytes:,} bytes of sound are no whole number of {frame_bytes}.")


def wav_facts(path: Path | str) -> tuple[int, int]:
    """How many samples a .wav file holds of each channel, and its sampling rate.

    Only its head is read; raises as `check_whole`.
    """
    check_whole(path)
    with open(path, "rb") as file:
        sampling_rate, frame_bytes, n_bytes, _ = _described(path, file)
    return n_bytes // frame_bytes, sampling_rate


def sound_alone(path: Path | str) -> BytesIO:
    """The chunks of a whole .wav file that hold the sound and describe it, as a file.

    scipy warns of other chunks, such as those of field recorders, and of what follows the last one. To silence it for
    each file would make Python forget which warnings it has shown.
    """
    with open(path, "rb") as file:
        kind, form = struct.unpack("4s4x4s", file.read(12))
        kept, in_ds64 = [form], 0
        for name, n_bytes, _ in _chunks(file, _BYTE_ORDERS[kind]):
            head = name + struct.pack(_BYTE_ORDERS[kind] + "L", n_bytes)
            if name == b"ds64":
                kept.append(head + file.read(n_bytes))
                in_ds64 = struct.unpack("<8xQ", kept[-1][8:24])[0]
            elif name == b"fmt ":
                kept.append(head + file.read(n_bytes))
            elif name == b"data":
                kept.append(head + file.read(in_ds64 if in_ds64 and n_bytes == _IN_DS64 else n_bytes))
                break
    return BytesIO(_riff(kind, b"".join(part + b"\0" * (len(part) % 2) for part in kept)))


def _riff(kind: bytes, content: bytes) -> bytes:
    """A file with its size in the header; an RF64 says it in the chunk ds64, which is the first."""
    if kind != b"RF64":
        return kind + struct.pack(_BYTE_ORDERS[kind] + "L", len(content)) + content
    return kind + struct.pack("<L", _IN_DS64) + content[:12] + struct.pack("<Q", len(content)) + content[20:]


def _seconds(n_bytes: int, frame_bytes: int, sampling_rate: int) -> str:
    return f"{n_bytes / frame_bytes / sampling_rate:.4g} s"


def _described(path: Path | str, file: BinaryIO) -> tuple[int, int, int, int]:
    """Sampling rate, bytes of a sample of all channels, bytes of sound as the header says, bytes that are there."""
    byte_order = _BYTE_ORDERS.get(file.read(12)[:4])
    if byte_order is None:
        raise StimulusError(f"{path} is not a .wav file: it does not begin with RIFF.")
    sampling_rate = frame_bytes = None
    in_ds64 = 0
    for name, n_bytes, n_there in _chunks(file, byte_order):
        size = min(n_bytes, n_there)
        if name == b"ds64" and size >= 16:
            in_ds64 = struct.unpack(byte_order + "8xQ", file.read(16))[0]
        elif name == b"fmt " and size >= _FORMAT_BYTES:
            sampling_rate, frame_bytes = struct.unpack(byte_order + "4xL4xH2x", file.read(_FORMAT_BYTES))
        elif name == b"data" and sampling_rate is not None and frame_bytes is not None:
            return sampling_rate, frame_bytes, in_ds64 if in_ds64 and n_bytes == _IN_DS64 else n_bytes, n_there
    missing = "its header ends early" if sampling_rate is None else "it has no chunk of sound"
    raise StimulusError(f"{path} is not a .wav file that can be read: {missing}.")


def _chunks(file: BinaryIO, byte_order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name and size of each chunk, and how many bytes the file has from there; the file stands at its content."""
    end = os.fstat(file.fileno()).st_size
    start = file.tell()
    while len(head := file.read(8)) == 8:
        name, n_bytes = struct.unpack(byte_order + "4sL", head)
        yield name, n_bytes, end - start - 8
        start += 8 + n_bytes + n_bytes % 2  # chunks begin at even bytes
        file.seek(start)
