"""``berg list``"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from berg.core import model_registry
from berg.core.exceptions import BERGError, ModelNotFoundError
from berg.core.model_card import ModelCard


def list_models(*, modality: str | None = None, species: str | None = None, stimuli: str | None = None) -> None:
    """List the models.

    Parameters
    ----------
    modality
        Only those of this modality, such as fmri.
    species
        Only those of this species, such as human.
    stimuli
        Only those that take these stimuli, such as images.
    """
    wanted = {"modality": modality, "species": species, "stimuli": stimuli}
    cards = list(_cards())
    chosen = [card for card in cards if _fits(card, wanted)]
    if cards and not chosen:
        asked = ", ".join(f"{key} {value}" for key, value in wanted.items() if value)
        raise ModelNotFoundError(f"No model has {asked}. All models:  berg list")
    Console(width=None if sys.stdout.isatty() else 160).print(_table(chosen))
    for name, problem in model_registry.PROBLEMS.items():
        print(f"left out: {problem if name in problem else f'{name}: {problem}'}", file=sys.stderr)


def _cards() -> Iterator[ModelCard]:
    for model_id in model_registry.get_available_models():
        try:
            yield model_registry.get_card(model_id)
        except BERGError as error:  # of a class written by hand; the others are still listed
            model_registry.PROBLEMS.setdefault(model_id, str(error))


def _fits(card: ModelCard, wanted: dict[str, str | None]) -> bool:
    return all(value is None or value.casefold() in getattr(card, key).casefold() for key, value in wanted.items())


def _table(cards: list[ModelCard]) -> Table:
    table = Table("model", "modality", "species", "stimuli", "kind", "architecture", box=None)
    for card in cards:
        kind = card.input.kind if card.input else ""
        table.add_row(card.model_id, card.modality, card.species, card.stimuli, kind, card.architecture)
    return table
