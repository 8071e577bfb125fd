"""Read a zip file of models from anywhere: what it holds is known to be harmless before a byte of it is written."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from berg.core.exceptions import CorruptedFileError, MissingFileError
from berg.core.layout import PUBLISHED_NAME, split_model_path
from berg.core.regular_file import check_regular_file
from berg.system.memory import size_words
from berg.system.portable_names import name_fault, names_clash

# About 100,000 members; zipfile reads the whole directory at once.
MAX_DIRECTORY_BYTES = 2**24
CHUNK = 2**20
LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_TOP = f"{PUBLISHED_NAME}/"
_NOT_OF_A_MODEL = ("berg_tutorials/", "__MACOSX/")
_JUNK = (".DS_Store", "Thumbs.db", "desktop.ini")
# A damaged file makes zipfile raise any of these.
_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
    OverflowError,
    OSError,
)


@dataclass(frozen=True)
class Member:
    """A file of a model in an archive.

    Parameters
    ----------
    path
        In a BERG directory.
    inside
        In the model's folder.
    """

    model_id: str
    path: str
    inside: str
    info: zipfile.ZipInfo

    @property
    def size(self) -> int:
        """Bytes, as the archive says."""
        return self.info.file_size


class ModelArchive:
    """A zip file with the layout of the guide, with or without its top folder, with one model or several.

    Attributes
    ----------
    members
        The files of models.
    left_out
        The names of files that belong to no model: tutorial images, and what operating systems add.

    Raises
    ------
    MissingFileError
        When there is no such file.
    CorruptedFileError
        When it is not whole, or a name in it is not one that BERG would write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file, self._zip = self._open()
        try:
            self.members, self.left_out = self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()

    def chunks(self, member: Member) -> Iterator[bytes]:
        """The bytes of a member, never more than its size; the checksum is compared at the end."""
        left = member.size
        try:
            with self._zip.open(member.info) as file:
                while chunk := file.read(min(CHUNK, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        raise zipfile.BadZipFile(f"it has over {member.size} bytes")
                    yield chunk
        except _ERRORS as error:
            raise self._refused(f"'{member.path}' in it is damaged: {error}") from error
        if left:
            raise self._refused(f"'{member.path}' in it breaks off")

    def _open(self) -> tuple[_BoundedFile, zipfile.ZipFile]:
        check_regular_file(self.path)
        if not self.path.is_file():
            raise MissingFileError(f"There is no file {self.path}.")
        try:
            file = _BoundedFile(self.path)
        except OSError as error:
            raise MissingFileError(f"{self.path} cannot be opened: {error.strerror}.") from error
        try:
            if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
                raise zipfile.BadZipFile("it is no zip file")
            return file, zipfile.ZipFile(file)
        except _ERRORS as error:
            file.close()
            raise self._refused(f"{error}. Is it whole? Get it again") from error

    def _read(self) -> tuple[list[Member], list[str]]:
        infos = self._zip.infolist()
        for info in infos:
            self._check(info)
        self._check_no_overlap(infos)
        names = [info.filename.removeprefix(_TOP).rstrip("/") for info in infos]
        if clash := names_clash([name for name, info in zip(names, infos, strict=True) if not info.is_dir()]):
            raise self._refused(clash[1])
        files = [(name, info) for name, info in zip(names, infos, strict=True) if not info.is_dir()]
        left_out = [info.filename for name, info in files if _is_left_out(name)]
        members = [self._member(name, info) for name, info in files if not _is_left_out(name)]
        if not members:
            raise self._refused("it holds no model (encoding_models/modality-.../train_dataset-.../model-.../...)")
        return members, left_out

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = info.orig_filename  # zipfile cuts the other one at a NUL
        if fault := name_fault(name.removesuffix("/")):
            raise self._refused(f"the name {name!r:.200} in it is refused: {fault}")
        if info.flag_bits & _ENCRYPTED:
            raise self._refused(f"'{name}' in it is encrypted. Pack it without a password")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._refused(f"'{name}' is compressed by method {info.compress_type}; take store or deflate")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG) or (info.is_dir() and info.file_size):
            raise self._refused(f"'{name}' in it is neither a file nor a folder (a link or a device)")

    def _check_no_overlap(self, infos: list[zipfile.ZipInfo]) -> None:
        """Members that share their bytes make a small file unpack into a huge one."""
        free_from = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < free_from:
                raise self._refused(f"'{info.filename}' overlaps another file in it")
            free_from = info.header_offset + LOCAL_HEADER_BYTES + len(info.filename) + info.compress_size

    def _member(self, name: str, info: zipfile.ZipInfo) -> Member:
        if not (found := split_model_path(name)):
            raise self._refused(
                f"'{info.filename}' is not where the files of a model lie: {_TOP}encoding_models/modality-.../"
                "train_dataset-.../model-.../, in encoding_models_weights, encoding_models_accuracy or metadata"
            )
        return Member(found[0], name, found[1], info)

    def _refused(self, reason: str) -> CorruptedFileError:
        return CorruptedFileError(f"{self.path} is refused, and nothing of it was unpacked: {reason}.")


def _is_left_out(name: str) -> bool:
    return name.startswith(_NOT_OF_A_MODEL) or name.rpartition("/")[2] in _JUNK


class _BoundedFile(io.FileIO):
    """A file for zipfile, which otherwise reads a directory of any size at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory is over {size_words(MAX_DIRECTORY_BYTES)}")
        return super().read(size) or b""
