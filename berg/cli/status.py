"""``berg status``"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from berg.cli.json_output import Json, print_json
from berg.core import settings
from berg.core.commands import download_command
from berg.core.model_registry import get_card
from berg.system.memory import size_words
from berg.weights.inventory import Held, held_files


def status(model_id: str | None = None, *, json: Json = False, berg_dir: Path | None = None) -> None:
    """Print which models have files here, how large they are, and whether they are whole by their size.

    Parameters
    ----------
    model_id
        One model, with each of its files; all models, if not given.
    json
        Print each file as JSON.
    berg_dir
        The BERG directory.
    """
    place = settings.berg_dir(berg_dir).value
    files = held_files(place, model_id)
    if json:
        print_json(files)
        return
    if not files:
        command = download_command(get_card(model_id), place, {}) if model_id else "berg download MODEL_ID"
        print(f"No files of {model_id or 'any model'} are in {place}. Get some with:  {command}")
        return
    for size, name, state in _by_file(files) if model_id else _by_model(files):
        print(f"{size:>9}  {name}  {state}")
    print(f"{place}: {size_words(sum(file.size for file in files if file.state != 'missing'))}")


def _by_file(files: list[Held]) -> list[tuple[str, str, str]]:
    return [(size_words(file.size), file.path, file.state) for file in files]


def _by_model(files: list[Held]) -> list[tuple[str, str, str]]:
    rows = []
    for model_id, group in groupby(files, key=lambda file: file.model_id):
        of_model = list(group)
        states = [file.state for file in of_model]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        size = sum(file.size for file in of_model if file.state != "missing")
        rows.append((size_words(size), model_id, counts))
    return rows
