"""``berg inspect``"""

from __future__ import annotations

import sys
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

import berg
from berg.core import settings
from berg.core.exceptions import MissingFileError
from berg.system.memory import size_words
from berg.weights.inspection import Inspected, Inspection, inspect_folder

_MOST_ROWS = 60


def inspect(
    folder: Path | None = None,
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
    all_keys: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Print what the files of a BERG directory hold: keys, shapes, dtypes, sizes, layouts, and what is missing.

    Only headers are read, of files of any size, and nothing of a pickle is run.

    Parameters
    ----------
    folder
        A BERG directory, or a folder in one; the one of the settings, if not given.
    json
        Print JSON, to paste into an issue. It has no values of arrays, no texts and no folders of yours.
    all_keys
        Print every key of a file, not the first 60.
    """
    place = (folder or settings.berg_dir(None).value).expanduser()
    if not place.is_dir():
        raise MissingFileError(f"{place} is no folder. Give a BERG directory; yours:  berg where")
    found = inspect_folder(place)
    if json:
        print(dumps(_plain(found), indent=1))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    for file in found.files:
        console.print(_table(file, None if all_keys else _MOST_ROWS))
    for note in found.notes:
        console.print(Text(f"! {note}"))
    console.print(f"{len(found.files)} files, {size_words(sum(file.header.size for file in found.files))}")


def _plain(found: Inspection) -> dict[str, Any]:
    return {"berg": berg.__version__, "files": [_plain_file(file) for file in found.files], "notes": found.notes}


def _plain_file(file: Inspected) -> dict[str, Any]:
    held = [[entry.key, entry.kind, entry.shape] for entry in file.header.held]
    return {"model": file.model_id, "layout": file.layout, **asdict(file.header), "held": held}


def _table(file: Inspected, most: int | None) -> Table:
    header = file.header
    title = Text(f"{file.model_id} {header.path}  {size_words(header.size)}  {header.kind}  [{file.layout}]".strip())
    table = Table("key", "kind", "shape", box=None, title=title, title_justify="left", show_header=bool(header.held))
    for held in header.held[:most]:
        shape = "" if held.shape is None else str(held.shape)
        table.add_row(Text(held.key), Text(held.kind), shape)
    if most is not None and len(header.held) > most:
        table.add_row(f"... {len(header.held) - most:,} more (--all-keys)", "", "")
    return table
