"""Zip files that berg unpack must refuse, and the words that it says."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable

from berg.weights.manifest import HEADER

TOP = "brain-encoding-response-generator/"
MODEL = f"{TOP}encoding_models/modality-fmri/train_dataset-lab/model-net/"
WEIGHTS = "encoding_models_weights/weights_subject-01.npy"
METADATA = "metadata/metadata_subject-01.npy"
DATA = bytes(range(256)) * 40
FILES = {WEIGHTS: DATA, METADATA: b"metadata"}

Member = tuple[str | zipfile.ZipInfo, bytes]


def zipped(*members: Member, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            info.compress_type = compression
            archive.writestr(info, data)
    return buffer.getvalue()


def listed(files: dict[str, bytes], **changes: str) -> bytes:
    """A manifest of files; `changes` replaces lines by the name of the file's folder."""
    lines = [f"{name}\t{len(data)}\t{hashlib.sha256(data).hexdigest()}\t\t" for name, data in sorted(files.items())]
    lines = [next((text for key, text in changes.items() if line.startswith(key)), line) for line in lines]
    return "".join(f"{line}\n" for line in (HEADER, *lines)).encode()


def model(
    *more: Member, files: dict[str, bytes] = FILES, manifest: bytes | None = None, prefix: str = MODEL, **options: int
) -> bytes:
    """An honest zip file without a manifest, or with this one, and more members."""
    members: list[Member] = [(prefix + name, data) for name, data in files.items()]
    if manifest is not None:
        members.append((f"{prefix}manifest.tsv", manifest))
    return zipped(*members, *more, **options)


def honest(files: dict[str, bytes] = FILES, prefix: str = MODEL) -> bytes:
    return model(files=files, manifest=listed(files), prefix=prefix)


def special(name: str, kind: int, data: bytes = b"/etc/passwd") -> Member:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info, data


def renamed(old: str, new: str) -> bytes:
    """Names of equal length that zipfile would not write."""
    assert len(old) == len(new)
    return model((old, b"evil")).replace(old.encode(), new.encode())


def with_directory(data: bytes, name: str, offset: int, value: bytes, local: int | None = None) -> bytes:
    """The same with a field of a member changed in the directory, and in its own header where `local` is given."""
    changed = bytearray(data)
    entry = data.rfind(name.encode()) - 46
    changed[entry + offset : entry + offset + len(value)] = value
    if local is not None:
        header = data.find(name.encode()) - 30
        changed[header + local : header + local + len(value)] = value
    return bytes(changed)


def deflated_bomb() -> bytes:
    """Ten thousand zeros that are said to be ten bytes, in the headers and in the manifest."""
    files = {WEIGHTS: bytes(10_000)}
    said = {WEIGHTS: bytes(10)}
    data = model(files=files, manifest=listed(said), compression=zipfile.ZIP_DEFLATED)
    return with_directory(data, MODEL + WEIGHTS, 24, struct.pack("<L", 10), 22)


def checksum_kept() -> bytes:
    """Another content, with a checksum that fits, behind the manifest's back."""
    other = {**FILES, WEIGHTS: DATA[::-1]}
    return model(files=other, manifest=listed(FILES))


def flipped() -> bytes:
    return model().replace(DATA, DATA[::-1])


def overlapping() -> bytes:
    data = model((MODEL + "metadata/b.npy", DATA))
    first = data.rfind((MODEL + WEIGHTS).encode()) - 46
    return with_directory(data, MODEL + "metadata/b.npy", 42, data[first + 42 : first + 46])


def huge_directory() -> bytes:
    data = model()
    start, end = data.find(b"PK\x01\x02"), data.rfind(b"PK\x05\x06")
    many = data[start:end] * (20_000_000 // (end - start) + 1)
    return data[:start] + many + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 9, 9, len(many), start, 0)


def terabytes() -> bytes:
    """A member of 4 TB, by a zip64 field in the directory."""
    name = MODEL + "metadata/big.npy"
    info = zipfile.ZipInfo(name)
    info.extra = struct.pack("<HHQ", 1, 8, 2**42)
    return with_directory(model((info, b"")), name, 24, b"\xff" * 4)


def damaged_deflate() -> bytes:
    data = model(compression=zipfile.ZIP_DEFLATED)
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = stream.compress(DATA) + stream.flush()
    assert packed in data
    return data.replace(packed, b"\xff" * len(packed))


def in_metadata(name: str) -> Callable[[], bytes]:
    return lambda: model((f"{MODEL}metadata/{name}", b"x"))


def at(name: str) -> Callable[[], bytes]:
    return lambda: model((name, b"evil"))


def with_manifest(manifest: bytes) -> Callable[[], bytes]:
    return lambda: model(manifest=manifest)


_HASH = "0" * 64

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "parent": (at("../evil.py"), "leads out of its folder"),
    "parent_inside": (at(f"{MODEL}metadata/../../../../../../evil.py"), "leads out of its folder"),
    "absolute": (at("/tmp/berg_evil.py"), "it is absolute"),
    "drive": (at("C:/evil.py"), "character ':'"),
    "drive_relative": (at(f"{MODEL}metadata/C:evil.py"), "character ':'"),
    "stream": (in_metadata("a.npy:evil"), "character ':'"),
    "share": (at("//server/share/evil"), "it is absolute"),
    "backslash": (lambda: renamed("xx_xx_evil", "..\\..\\evil"), r"character '\\\\'"),
    "nul": (lambda: renamed(f"{MODEL}metadata/a0evil", f"{MODEL}metadata/a\0evil"), "character '.x00'"),
    "newline": (in_metadata("a\nb"), "character '.n'"),
    "right_to_left": (in_metadata("a\u202eypn.npy"), "character"),
    "empty_part": (in_metadata("a//b"), "a part of it is empty"),
    "dot_part": (in_metadata("./b"), "a part of it is empty"),
    "trailing_dot": (in_metadata("a.npy."), "ends with a dot"),
    "trailing_space": (in_metadata("a.npy "), "ends with a space"),
    "device_name": (in_metadata("aux.npy"), "Windows knows 'aux.npy' as a device"),
    "long_part": (in_metadata("a" * 300), "longer than 200 bytes"),
    "long_name": (in_metadata("/".join(["a" * 100] * 20)), "longer than 1000 bytes"),
    "symlink": (lambda: model(special(f"{MODEL}metadata/l.npy", stat.S_IFLNK)), "neither a file nor a folder"),
    "symlink_as_folder": (
        lambda: model(special(f"{MODEL}metadata/l", stat.S_IFLNK), (f"{MODEL}metadata/l/x", b"")), "neither a file",
    ),
    "folder_is_a_symlink": (lambda: model(special(f"{MODEL}metadata/l/", stat.S_IFLNK, b"")), "neither a file"),
    "device": (lambda: model(special(f"{MODEL}metadata/d", stat.S_IFCHR)), "neither a file nor a folder"),
    "pipe": (lambda: model(special(f"{MODEL}metadata/p", stat.S_IFIFO)), "neither a file nor a folder"),
    "folder_with_content": (
        lambda: model(special(f"{MODEL}metadata/p/", stat.S_IFDIR, b"x")), "neither a file nor a folder",
    ),
    "encrypted": (lambda: with_directory(model(), MODEL + METADATA, 8, b"\x01"), "encrypted"),
    "twice": (
        lambda: renamed(f"{MODEL}{METADATA[:-1]}Q", f"{MODEL}{METADATA}"), "stands twice",
    ),
    "twice_without_top": (at(f"{MODEL}{METADATA}".removeprefix(TOP)), "stands twice"),
    "case": (in_metadata("Metadata_subject-01.npy"), "differ in case alone"),
    "case_of_a_folder": (at(f"{MODEL.replace('net', 'NET')}{METADATA}"), "differ in case alone"),
    "composed_letter": (
        lambda: model((f"{MODEL}metadata/\u00fc", b""), (f"{MODEL}metadata/u\u0308", b"")), "differ in case alone",
    ),
    "file_and_folder": (in_metadata("metadata_subject-01.npy/evil"), "is a file and a folder"),
    "folder_and_file": (
        lambda: model((f"{MODEL}metadata/a/b", b""), (f"{MODEL}metadata/a", b"")), "is a file and a folder",
    ),
    "outside_the_layout": (at(f"{TOP}setup.py"), "is not where the files of a model lie"),
    "another_top": (lambda: model(prefix=f"lab/{MODEL}"), "is not where the files of a model lie"),
    "beside_the_folders": (at(f"{MODEL}evil.py"), "is not where the files of a model lie"),
    "another_card": (at(f"{MODEL}eeg-a-b.yaml"), "is not where the files of a model lie"),
    "hidden": (in_metadata(".netrc"), "is not where the files of a model lie"),
    "no_model_id": (at(f"{TOP}encoding_models/modality-a-b/train_dataset-c/model-d/{METADATA}"), "is not where"),
    "no_model": (lambda: zipped((f"{TOP}berg_tutorials/tutorial_images/a.jpg", b"x")), "holds no model"),
    "empty_archive": (lambda: zipped(), "holds no model"),
    "empty_file": (lambda: b"", "no zip file"),
    "no_zip": (lambda: b"\x93NUMPY" + bytes(1000), "no zip file"),
    "prefixed": (lambda: b"MZ" + model(), "no zip file"),
    "truncated": (lambda: honest()[:-30], "Is it whole"),
    "truncated_half": (lambda: honest()[: len(DATA) // 2], "Is it whole"),
    "middle_missing": (lambda: (data := model())[:200] + data[3000:], "refused"),
    "flipped_bytes": (flipped, "damaged: Bad CRC-32"),
    "another_content": (checksum_kept, "has the sha256"),
    "damaged_deflate": (damaged_deflate, "is damaged"),
    "bomb": (deflated_bomb, "damaged: Bad CRC-32|damaged: it has over"),
    "overlap": (overlapping, "overlaps another"),
    "terabytes": (terabytes, "TB are needed"),
    "directory_of_20_mb": (huge_directory, "its directory is over"),
    "offset_outside": (lambda: with_directory(model(), MODEL + METADATA, 42, b"\xf0" * 4), "damaged|refused"),
    "other_name_inside": (
        lambda: model().replace(WEIGHTS.encode(), WEIGHTS.upper().encode(), 1), "damaged: File name in dir",
    ),
    "bzip2": (lambda: model(compression=zipfile.ZIP_BZIP2), "compressed by method 12"),
    "method_99": (lambda: with_directory(model(), MODEL + METADATA, 10, b"\x63\0", 8), "compressed by method 99"),
    "manifest_other_size": (with_manifest(listed(FILES, metadata=f"{METADATA}\t9\t{_HASH}\t\t")), "but 9 bytes in"),
    "manifest_other_hash": (with_manifest(listed(FILES, metadata=f"{METADATA}\t8\t{_HASH}\t\t")), "has the sha256"),
    "manifest_too_long": (with_manifest(listed({**FILES, "metadata/x": b""})), "no place in it, but 0 bytes"),
    "manifest_too_short": (with_manifest(listed({WEIGHTS: DATA})), "8 bytes in it, but no place in its"),
    "manifest_leads_out": (with_manifest(listed({**FILES, "../x": b""})), "line 2: the path '../x' is refused"),
    "manifest_empty": (with_manifest(b""), "line 1: expected the header"),
    "manifest_broken_off": (with_manifest(listed(FILES)[:-1]), "line 3: it breaks off"),
    "manifest_no_text": (with_manifest(listed(FILES) + b"\xff\n"), "line 4: it is not text in UTF-8"),
    "manifest_huge": (
        lambda: model(manifest=bytes(2**24 + 1), compression=zipfile.ZIP_DEFLATED), "is over 16.8 MB",
    ),
}  # fmt: skip
