"""Whether a model can be used here: its files, the packages that it needs. Read without NumPy, and without the network.

``berg list``, ``berg describe`` and `berg.list_models` say it of each model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, Literal

from berg.core.commands import how_to_get, listed_values
from berg.core.exceptions import CorruptedFileError, listing
from berg.core.file_names import generations, name_fields
from berg.core.layout import METADATA, WEIGHTS, ModelId
from berg.core.model_card import ModelCard
from berg.system.byte_words import size_words
from berg.weights import manifest

State = Literal["built in", "here", "to download", "not here", "own class", "cannot run"]
USABLE: tuple[State, ...] = ("built in", "here", "own class")
HUB_FOLDER = "models--"  # how the folder of a repository begins, in the form of a hub's cache
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Availability:
    """Whether a model can be used, and which part of it.

    Parameters
    ----------
    state
        ``own class``: written by hand, it finds its files by itself. ``not here``: a fitted or unpacked model without
        its files, which no source has.
    values
        What its file names are filled with, such as ``{"subject": [1, 2]}``; of those that are here.
    of
        How many files there are of each, such as ``{"subject": 8}``.
    size
        Bytes of all its files, if they are known.
    reason
        Why it cannot run, or not all of it.
    """

    state: State
    values: Mapping[str, list[Any]]
    of: Mapping[str, int]
    size: int | None = None
    reason: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether something of it can be loaded now."""
        return self.state in USABLE

    def __str__(self) -> str:
        if self.state == "cannot run":
            return f"cannot run: {self.reason}"
        if self.state == "to download":
            return "to download" if self.size is None else f"to download ({size_words(self.size)})"
        parts = [_part(field, self.values[field], self.of[field]) for field in self.values]
        text = "; ".join([part for part in parts if part] + [self.reason] * bool(self.reason))
        return f"{self.state}: {text}" if text else self.state


def _part(field: str, values: list[Any], n_all: int) -> str:
    if len(values) == n_all:
        return f"all {n_all} {field}s" if n_all > 1 else ""
    return f"{field} {listing(values, most=6)} of {n_all}"


def availability(card: ModelCard, berg_dir: Path) -> Availability:
    """Whether the model of a card can be used with a BERG directory."""
    if reason := _why_not(card):
        return Availability("cannot run", {}, {}, reason=reason)
    if card.files is None:
        return Availability("own class", {}, {})
    if card.files.store != "berg_dir":
        return Availability("built in", {}, {})
    try:
        return _of_files(card, ModelId.parse(card.model_id).folder(berg_dir))
    except CorruptedFileError as error:
        return Availability("cannot run", {}, {}, reason=str(error))


def _why_not(card: ModelCard) -> str:
    missing = [package for package in _packages(card) if not _is_installed(package)]
    return f"the package {missing[0]} is not installed" if missing else ""


def _packages(card: ModelCard) -> Iterator[str]:
    """The packages that the card names: that of the family, and the provider of its network."""
    if card.family is not None and "." in card.family:
        yield card.family.partition(".")[0]
    extractor = (card.features or {}).get("extractor")
    if isinstance(extractor, str) and "/" in extractor:
        yield extractor.partition("/")[0]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module without a specification, made while a program runs
        return True


def _of_files(card: ModelCard, folder: Path) -> Availability:
    recorded = manifest.recorded_files(folder)
    wrong = {folder / path for path, entry in recorded.items() if _size_of(folder / path) != entry.size}
    reason = f"{len(wrong)} of its files are damaged or gone, see:  berg verify {card.model_id}" if wrong else ""
    fields = name_fields(card)
    choices = {field: listed_values(card, field) for field in fields}
    of = {field: len(values) for field, values in choices.items()}
    combinations = [dict(zip(fields, each, strict=True)) for each in product(*choices.values())]
    found = _complete(card, folder, wrong, combinations)
    if found or (not all(choices.values()) and any({*(folder / WEIGHTS).glob("*")} - wrong)):
        here = {field: [value for value in choices[field] if value in {own[field] for own in found}] for field in of}
        return Availability("here", here, of, reason=reason)
    if wrong:
        return Availability("cannot run", {}, of, reason=reason)
    if card.files is not None and card.files.from_package is not None:
        return Availability("cannot run", {}, of, reason=f"its weights are not here. {how_to_get(card, None, {})}")
    if not _is_published(card):
        return Availability("not here", {}, of)
    return Availability("to download", {}, of, published_size(card))


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _complete(
    card: ModelCard, folder: Path, wrong: set[Path], combinations: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The values of which both weights and metadata are here."""
    assert card.files is not None
    if (shared := card.files.shared) and not {*(folder / WEIGHTS).glob(f"{shared}.*")} - wrong:
        return []
    spelt = [{kind: _spelt(card, name, values) for kind, name in _names(card).items()} for values in combinations]
    here = {
        kind: _stems(folder / kind, wrong, [name for each in spelt for name in each[kind]]) for kind in _names(card)
    }
    return [
        values
        for values, names in zip(combinations, spelt, strict=True)
        if all(here[kind].intersection(names[kind]) for kind in names)
    ]


def _names(card: ModelCard) -> dict[str, str]:
    assert card.files is not None
    return {WEIGHTS: card.files.weights, METADATA: card.files.metadata}


def _spelt(card: ModelCard, name: str, values: dict[str, Any]) -> list[str]:
    """A file name filled with values: as they are, and as publications spell them."""
    published = [names[0] for names in generations(card, name, values) if len(names) == 1]
    return list(dict.fromkeys([name.format(**values), *published]))


def _stems(folder: Path, wrong: set[Path], names: Iterable[str]) -> set[str]:
    """Those names with which a file of a folder begins; of several, the longest."""
    longest_first = sorted(names, key=len, reverse=True)
    found = (path for path in folder.rglob("*") if path.is_file() or path.name.startswith(HUB_FOLDER))
    files = [path.relative_to(folder).as_posix() for path in found if path not in wrong]
    return {next((name for name in longest_first if file.startswith(name)), "") for file in files} - {""}


def _is_published(card: ModelCard) -> bool:
    """Whether the source has its files: the card came with this package, or hashes of its files lie beside it."""
    return _PACKAGE in card.path.parents or card.path.with_suffix(".tsv").is_file()


def published_size(card: ModelCard) -> int | None:
    """Bytes of all files of a model, if hashes and sizes of its published files lie beside its card."""
    pinned = card.path.with_suffix(".tsv")
    return sum(entry.size for entry in manifest.read_manifest(pinned).values()) if pinned.is_file() else None
