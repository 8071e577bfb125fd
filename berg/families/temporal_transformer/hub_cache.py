"""Files of a hub in the form of its cache: ``models--OWNER--NAME/snapshots/REVISION/FILE``.

The published package keeps its own files and those of the language model so, inside ``encoding_models_weights``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from berg.core.exceptions import InvalidParameterError, MissingFileError, listing
from berg.features.stated_weights import hub_file

_PREFIX = "models--"


@dataclass(frozen=True)
class Snapshot:
    """One revision of a repository on this machine."""

    folder: Path

    @property
    def revision(self) -> str:
        """The commit, as the hub names it."""
        return self.folder.name


def repository_folder(repository: str) -> str:
    """What the folder of a repository is called in a cache.

    >>> repository_folder("Qwen/Qwen2.5-0.5B")
    'models--Qwen--Qwen2.5-0.5B'
    """
    return _PREFIX + repository.replace("/", "--")


def repositories(cache: Path, owner: str = "") -> list[str]:
    """The repositories in a cache, of one owner or of all.

    The names are the hub's as far as they can be told: an owner has no ``--`` in its name.
    """
    prefix = _PREFIX + (f"{owner}--" if owner else "")
    found = sorted(path.name for path in cache.glob(f"{prefix}*") if path.is_dir())
    return [name.removeprefix(_PREFIX).replace("--", "/", 1) for name in found]


def find_snapshot(repository: str, cache: Path, needed: str) -> Snapshot:
    """The revision of a repository in a folder's cache; else that in the cache of the user, or where downloads go.

    Parameters
    ----------
    repository
        ``OWNER/NAME``.
    cache
        The folder that holds ``models--OWNER--NAME``.
    needed
        A file that it must have.

    Raises
    ------
    MissingFileError
        If it is nowhere.
    InvalidParameterError
        If several revisions lie in the folder and none is the main one.
    """
    own = cache / repository_folder(repository)
    if (main := own / "refs" / "main").is_file():
        folder = own / "snapshots" / main.read_text(encoding="utf-8").strip()
        if (folder / needed).is_file():
            return Snapshot(folder)
    found = sorted(path.parent for path in own.glob(f"snapshots/*/{needed}"))
    if len(found) > 1:
        raise InvalidParameterError(
            f"{own} holds {len(found)} revisions ({listing((path.name for path in found), 5)}), and {main} says of "
            "none that it is the one to use. Keep one of the folders in snapshots."
        )
    if found:
        return Snapshot(found[0])
    if (cached := hub_file(repository, [needed], "main")) is not None:
        return Snapshot(cached.parent)
    raise MissingFileError(
        f"{repository} is neither in {own} nor in the cache of the hub on this machine. Get it with:  hf download "
        f"{repository} --cache-dir {cache}"
    )
