"""Which files a folder of stimuli stands for, in which order, and what they are called."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from berg.core.exceptions import MissingFileError, StimulusError, listing
from berg.core.regular_file import check_regular_file
from berg.core.stacklevel import users_stacklevel

_DIGITS = re.compile("([0-9]+)")


class StimulusOrderWarning(UserWarning):
    """Files are taken in the order of their names as text, and their numbers would put them in another."""


def stimulus_files(
    places: Iterable[Path | str], endings: Collection[str], kind: str, recursive: bool = False
) -> list[Path]:
    """The files of one kind among files and folders; a folder stands for those in it, sorted by name.

    Names are compared as text, character by character: ``img10.png`` comes before ``img2.png``. Files that begin
    with a dot, such as the ``._a.png`` that macOS leaves beside ``a.png``, and files with other endings are no
    stimuli. A link to a file that is not there is one, which cannot be read; see `check_links`.

    Parameters
    ----------
    endings
        Of the files of a folder, in lower case.
    kind
        What one is called in messages: ``picture``, ``sound``.
    recursive
        Take the files in the folders of a folder too, after its own, folder by folder in the order of their names.
        Links to folders, and folders that begin with a dot, are left out.

    Raises
    ------
    MissingFileError
        For a path that is not there, and for a folder without such a file.

    Warns
    -----
    StimulusOrderWarning
        If the numbers in the names of a folder would put them in another order.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            files += _in_folder(place, endings, kind, recursive)
        elif place.is_file() or place.is_symlink():
            files.append(place)
        else:
            check_regular_file(place)
            raise MissingFileError(f"There is no file or folder {place}.")
    return files


def stimuli_in(folder: Path, endings: Collection[str]) -> list[Path]:
    """The stimuli in a folder, sorted by name; links to files that are not there among them."""
    try:
        found = sorted(file for file in folder.iterdir() if file.suffix.lower() in endings)
        return [file for file in found if not file.name.startswith(".") and (file.is_file() or _leads_nowhere(file))]
    except OSError as error:
        raise MissingFileError(f"The folder {folder} cannot be read: {error.strerror}.") from error


def _in_folder(folder: Path, endings: Collection[str], kind: str, recursive: bool) -> list[Path]:
    folders = _with_folders_in(folder) if recursive else [folder]
    found = {each: stimuli_in(each, endings) for each in folders}
    if not any(found.values()):
        raise MissingFileError(f"{folder} holds no {kind} ({', '.join(sorted(endings))}).{_deeper(folder, endings)}")
    for each, own in found.items():
        warn_of_order(own, f"The {kind}s in {each}")
    return [file for own in found.values() for file in own]


def _with_folders_in(folder: Path) -> list[Path]:
    """The folder, then those in it with theirs, in the order of their names."""
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError as error:
        raise MissingFileError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    visible = [path for path in inside if not path.name.startswith(".")]
    return [folder, *(deeper for path in visible for deeper in _with_folders_in(path))]


def _deeper(folder: Path, endings: Collection[str]) -> str:
    """What to type if the stimuli are in folders of the folder; those directly in it are looked at."""
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    holds = [path.name for path in sorted(inside) if stimuli_in(path, endings)]
    if not holds:
        return ""
    return (
        f" Its folders do ({listing(holds, 3)}); take all of them with --recursive (in Python "
        "berg.load_images(FOLDER, recursive=True)), or give their names."
    )


def warn_of_order(files: Sequence[Path], what: str) -> None:
    """Warn if the numbers in the names of sorted files would put them in another order.

    Parameters
    ----------
    what
        The files, for the message: ``The pictures in photos``.
    """
    names = [file.name for file in files]
    by_number = sorted(names, key=natural_key)
    if names == by_number:
        return
    first = next(index for index, (one, other) in enumerate(zip(names, by_number, strict=True)) if one != other)
    warnings.warn(
        f"{what} are taken in the order of their names as text: {names[first]} is number {first:,} (from 0), where "
        f"{by_number[first]} would be by its number. First {names[0]}, last {names[-1]}. If rows of responses are in "
        "the order of the numbers, list the files in that order, or write the numbers with leading zeros.",
        StimulusOrderWarning,
        stacklevel=users_stacklevel(),
    )


def natural_key(name: str) -> list[tuple[int, str]]:
    """A key that sorts names by the numbers in them.

    >>> sorted(["img10.png", "img2.png"], key=natural_key)
    ['img2.png', 'img10.png']
    """
    parts = [part.lstrip("0") if index % 2 else part for index, part in enumerate(_DIGITS.split(name))]
    return [(len(part) if index % 2 else 0, part) for index, part in enumerate(parts)]  # a longer number is larger


def _leads_nowhere(file: Path) -> bool:
    return file.is_symlink() and not file.exists()


def check_links(files: Iterable[Path | str], skipping: str = "") -> None:
    """Raise MissingFileError if some of the files are links to files that are not there.

    Parameters
    ----------
    skipping
        How to go on without them, a sentence for the message.
    """
    known = list(files)
    missing = [file for file in map(Path, known) if _leads_nowhere(file)]
    if missing:
        raise MissingFileError(
            f"{len(missing):,} of {len(known):,} stimuli are links to files that are not there: {listing(missing, 5)}. "
            f"Fetch them (git annex get, datalad get), or take the links away.{skipping}"
        )


def file_names(files: Sequence[Path]) -> list[str]:
    """One name per file: that of the file, or its path in their common folder if two files have one name.

    >>> file_names([Path("x/a.png"), Path("x/b.png")]), file_names([Path("x/1/a.png"), Path("x/2/a.png")])
    (['a.png', 'b.png'], ['1/a.png', '2/a.png'])

    Raises
    ------
    StimulusError
        For a name that is no text in the encoding of this machine.
    """
    names = [file.name for file in files]
    if len(set(names)) < len(set(files)):
        whole = [Path(os.path.abspath(file)) for file in files]
        common = os.path.commonpath([file.parent for file in whole])
        names = [file.relative_to(common).as_posix() for file in whole]
    for name in names:
        if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise StimulusError(
                f"The name of the file {os.fsencode(name)!r} is not UTF-8, and cannot label a response. Rename it."
            )
    return names
