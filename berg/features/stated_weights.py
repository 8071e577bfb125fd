"""The weights of a network as a card states them: where they are, and their sha256.

::

    weights: hub sha256:7c0d...             # the publisher's hub, its cache on this machine
    weights: hub@REVISION sha256:7c0d...    # a branch, tag or commit of the hub
    weights: /data/nets/mine.safetensors sha256:7c0d...   # a file, or a folder

A readout belongs to the weights that it was fitted on. With others it computes numbers that look like responses, so
the hash stands in the card, which travels with the readout, and is compared before the network is used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError
from berg.features.checkpoints import checkpoints_folder
from berg.system.file_hash import hash_file

HUB = "hub"
_HASH = re.compile(r"(?P<place>.*?)(?:\s+sha256:(?P<sha256>[0-9a-f]{8,64}))?")
_hashes: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class StatedWeights:
    """Where weights are, and the first digits of their sha256; no digits if it is not stated."""

    place: str
    sha256: str = ""

    @property
    def revision(self) -> str | None:
        """The revision of a hub that is asked for; None if they do not come from one."""
        place, _, revision = self.place.partition("@")
        return (revision or "main") if place == HUB else None


def parse_weights(weights: str) -> StatedWeights:
    """Split a card's ``features.weights``.

    Raises
    ------
    InvalidParameterError
        If there is no place, or something else than 8 to 64 hexadecimal digits behind ``sha256:``.

    Examples
    --------
    >>> parse_weights("hub@v2 sha256:0123abcd")
    StatedWeights(place='hub@v2', sha256='0123abcd')
    """
    found = _HASH.fullmatch(weights.strip())
    if found is None or not found["place"] or "sha256:" in found["place"]:
        raise InvalidParameterError(
            f"features.weights is '{weights}'; write where they are and their hash, such as "
            "hub sha256:0123abcd  or  /data/nets/mine.safetensors sha256:0123abcd  (8 to 64 hexadecimal digits)."
        )
    return StatedWeights(found["place"], found["sha256"] or "")


def check_hash(stated: StatedWeights, files: Sequence[Path], network: str) -> None:
    """Raise unless the card names these files by their hash.

    Raises
    ------
    InvalidParameterError
        If the card states no hash; the message has the one to write.
    CorruptedFileError
        If it states another.
    """
    found = hash_of(files)
    if not stated.sha256:
        raise InvalidParameterError(
            f"features.weights of {network} is '{stated.place}', without a hash; a readout belongs to the weights that "
            f"it was fitted on. Write  weights: {stated.place} sha256:{found}"
        )
    if not found.startswith(stated.sha256):
        named = ", ".join(str(file) for file in files)
        raise CorruptedFileError(
            f"The weights of {network} are not those of the card: {named} has sha256 {found[:16]}..., the card states "
            f"{stated.sha256[:16]}. Responses would be wrong. Get the weights that the card names."
        )


def hash_of(files: Sequence[Path]) -> str:
    """The sha256 of a file; of several, that of their list as ``sha256sum`` prints it, sorted by name."""
    if len(files) == 1:
        return _hash_of_file(files[0])
    lines = [f"{_hash_of_file(file)}  {file.name}\n" for file in sorted(files, key=lambda file: file.name)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _hash_of_file(path: Path) -> str:
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = hash_file(path)
    return _hashes[key]


def hub_file(repository: str, names: Sequence[str], revision: str) -> Path | None:
    """The first of these files of a hub's repository that is on this machine; nothing is downloaded.

    Looked for in the cache of huggingface_hub, and where ``berg download`` puts them.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        cached = try_to_load_from_cache(repository, name, revision=revision)
        own = downloaded_file(repository, name, revision)
        if isinstance(cached, str):
            return Path(cached)
        if own.is_file():
            return own
    return None


def downloaded_file(repository: str, name: str, revision: str) -> Path:
    """Where ``berg download`` puts a file of a hub."""
    return checkpoints_folder() / repository.replace("/", "--") / revision / name


def hub_url(repository: str, name: str, revision: str) -> str:
    """Where a hub has a file."""
    return f"https://huggingface.co/{repository}/resolve/{revision}/{name}"


def local_file(place: str, names: Sequence[str], network: str) -> Path:
    """The file that a card names, or the first of these names in the folder that it names.

    Raises
    ------
    MissingFileError
        If there is none.
    """
    path = Path(place).expanduser()
    found = [path] if path.is_file() else [path / name for name in names if (path / name).is_file()]
    if not found:
        raise MissingFileError(
            f"The weights of {network} are not there: {path} is neither a file nor a folder with "
            f"{' or '.join(names)}. Write  hub  for those of its publisher, or the path of yours."
        )
    return found[0]
