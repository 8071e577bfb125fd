"""``berg list``"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from berg.cli.json_output import Json, print_json
from berg.core import model_registry, settings
from berg.core.exceptions import ModelNotFoundError
from berg.core.model_card import ModelCard
from berg.core.tables import text_table
from berg.weights.availability import Availability, availability


def list_models(
    *,
    modality: str | None = None,
    species: str | None = None,
    stimuli: str | None = None,
    here: Annotated[bool, Parameter(negative="")] = False,
    sizes: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    berg_dir: Path | None = None,
) -> None:
    """List the models, and whether their files are here.

    Parameters
    ----------
    modality
        Only those of this modality, such as fmri.
    species
        Only those of this species, such as human.
    stimuli
        Only those that take these stimuli, such as images.
    here
        Only those that can be used now: built in, or with files in the BERG directory.
    sizes
        Ask the source how large the files of the others are.
    json
        Print the table as JSON.
    berg_dir
        The BERG directory, whose models are listed too. See:  berg where
    """
    folder = settings.berg_dir(berg_dir).value
    model_registry.add_store(folder)
    wanted = {"modality": modality, "species": species, "stimuli": stimuli}
    cards = model_registry.readable_cards()
    found = [(card, availability(card, folder)) for card in cards if card.has_words(wanted)]
    chosen = [(card, state) for card, state in found if state.is_usable or not here]
    if cards and not chosen:
        asked = ", ".join([f"{key} {value}" for key, value in wanted.items() if value] + ["its files here"] * here)
        raise ModelNotFoundError(f"No model has {asked}. All models:  berg list")
    if sizes:
        chosen = [(card, _with_size(card, state, folder)) for card, state in chosen]
    if json:
        print_json([_as_json(card, state) for card, state in chosen])
    else:
        _print_table(chosen)
    for name, problem in model_registry.PROBLEMS.items():
        print(f"left out: {problem if name in problem else f'{name}: {problem}'}", file=sys.stderr)


def _with_size(card: ModelCard, state: Availability, berg_dir: Path) -> Availability:
    """The same, with the size of the files that can be downloaded, as the source tells it."""
    if state.state != "to download":
        return state
    from berg.facade import BERG

    found = [item.size for item in BERG(berg_dir).plan_download(card.model_id, everything=True)]
    return replace(state, size=None if None in found else sum(size or 0 for size in found))


def _as_json(card: ModelCard, state: Availability) -> dict[str, Any]:
    kind = card.input.kind if card.input else None
    words = {key: getattr(card, key) for key in ("model_id", "modality", "training_dataset", "species", "stimuli")}
    more = {"kind": kind, "architecture": card.architecture, "licence": card.licence, "card": card.path}
    return {**words, **more, "availability": state}


def _print_table(found: list[tuple[ModelCard, Availability]]) -> None:
    """Fitted to a terminal; else a line for each model, whole, for programs that read it."""
    headings = ("model", "here?", "species", "stimuli", "architecture")
    rows = [(card.model_id, str(state), card.species, card.stimuli, card.architecture) for card, state in found]
    if not sys.stdout.isatty():
        print(text_table(headings, rows))
        return
    from rich.console import Console  # 50 ms with the table
    from rich.table import Table

    table = Table(*headings, box=None)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)
