"""What files of a name begin with, so that a login page or an error message is never taken for weights.

A server, or a network with a login page, may answer any question with status 200 and a text of its own. Until
somebody has published the hash of a file, its first bytes are all that tells.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

HEAD_BYTES = 1024
_SHOWN = 40
_PAGES = (".html", ".htm", ".xhtml")
_MARKUP = re.compile(rb"\s*<[!?/a-zA-Z]")
_POINTERS = re.compile(rb"version https://git-lfs|(\.\./)*\.git/annex/objects/|/annex/objects/")
_TAR = slice(257, 262)


def _begins(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(starts)


def _is_torch(head: bytes) -> bool:
    """A zip as torch writes it today, its older row of pickles, or the tar file before that."""
    return head.startswith((b"PK\x03\x04", b"\x80\x02\x8a\x0a")) or head[_TAR] == b"ustar"


def _is_safetensors(head: bytes) -> bool:
    """The length of a JSON object (little-endian, below 100 MB), and its beginning."""
    return int.from_bytes(head[:8], "little") <= 100_000_000 and head[8:9] == b"{"


def _is_hdf5(head: bytes) -> bool:
    return any(head[start : start + 8] == b"\x89HDF\r\n\x1a\n" for start in (0, 512))


def _is_netcdf(head: bytes) -> bool:
    return head.startswith((b"CDF\x01", b"CDF\x02", b"CDF\x05")) or _is_hdf5(head)


def _is_matlab(head: bytes) -> bool:
    return head.startswith(b"MATLAB ") or _is_hdf5(head) or (head[:2] == b"\0\0" and any(head))


def _is_nifti(head: bytes) -> bool:
    return any(int.from_bytes(head[:4], order) in (348, 540) for order in ("little", "big"))


def _is_json(head: bytes) -> bool:
    return _is_text(head) and _without_mark(head).lstrip()[:1] in (b"{", b"[")


def _is_text(head: bytes) -> bool:
    """Text without markup: a table, a card, a list of names."""
    return b"\0" not in head and not _is_markup(head)


def _is_markup(head: bytes) -> bool:
    return _MARKUP.match(_without_mark(head)) is not None


def _is_markup_text(head: bytes) -> bool:
    """XML of any kind, but no web page."""
    start = _without_mark(head).lstrip()[:20].lower()
    return _is_markup(head) and not start.startswith((b"<!doctype html", b"<html"))


def _without_mark(head: bytes) -> bytes:
    return head.removeprefix(codecs.BOM_UTF8)


_KINDS: dict[str, Callable[[bytes], bool]] = {
    ".npy": _begins(b"\x93NUMPY"),
    ".npz": _begins(b"PK\x03\x04", b"PK\x05\x06"),
    ".zip": _begins(b"PK\x03\x04", b"PK\x05\x06"),
    ".pt": _is_torch,
    ".pth": _is_torch,
    ".safetensors": _is_safetensors,
    ".json": _is_json,
    ".nc": _is_netcdf,
    ".h5": _is_hdf5,
    ".hdf5": _is_hdf5,
    ".hdf": _is_hdf5,
    ".mat": _is_matlab,
    ".gz": _begins(b"\x1f\x8b"),
    ".tgz": _begins(b"\x1f\x8b"),
    ".mgz": _begins(b"\x1f\x8b"),
    ".bz2": _begins(b"BZh"),
    ".xz": _begins(b"\xfd7zXZ\0"),
    ".zst": _begins(b"\x28\xb5\x2f\xfd"),
    ".nii": _is_nifti,
    ".png": _begins(b"\x89PNG\r\n\x1a\n"),
    ".jpg": _begins(b"\xff\xd8\xff"),
    ".jpeg": _begins(b"\xff\xd8\xff"),
    ".tif": _begins(b"II", b"MM"),
    ".tiff": _begins(b"II", b"MM"),
    ".wav": _begins(b"RIFF", b"RIFX", b"RF64"),
    ".parquet": _begins(b"PAR1"),
    ".pdf": _begins(b"%PDF"),
    ".pkl": _begins(b"\x80"),
    ".pickle": _begins(b"\x80"),
    ".gii": _is_markup_text,
    ".xml": _is_markup_text,
    ".svg": _is_markup_text,
    ".tsv": _is_text,
    ".csv": _is_text,
    ".yaml": _is_text,
    ".yml": _is_text,
}


def head_fault(name: str, head: bytes) -> str | None:
    r"""What a file begins with when it is not what its name says; None if nothing is wrong, as far as one can tell.

    Parameters
    ----------
    name
        Of the file; its ending says what it should be.
    head
        Its first `HEAD_BYTES` bytes, or all of it if it is shorter.

    >>> head_fault("weights.npy", b"\x93NUMPY\x01\x00")
    >>> head_fault("weights.npy", b'{"error": "log in"}')
    'something else than a .npy file (it begins with \'{"error": "log in"}\')'
    """
    ending = PurePosixPath(name).suffix.lower()
    if is_page(name):
        return None
    if _POINTERS.match(head):
        return f"a pointer of git-lfs or git-annex to the file ({_shown(head)})"
    if ending in _KINDS:
        return None if _KINDS[ending](head) else f"something else than a {ending} file ({_shown(head)})"
    return f"a web page or XML ({_shown(head)})" if _is_markup(head) and ending != ".md" else None


def file_fault(path: Path) -> str | None:
    """As `head_fault`, of a file on disk."""
    with path.open("rb") as file:
        return head_fault(path.name, file.read(HEAD_BYTES))


def is_page(name: str) -> bool:
    """Whether a file of this name is a web page itself."""
    return name.lower().endswith(_PAGES)


def _shown(head: bytes) -> str:
    """The first characters, quoted so that they can do nothing to a terminal."""
    if not head:
        return "it is empty"
    return f"it begins with {head[:_SHOWN].decode('latin-1')!a}"
