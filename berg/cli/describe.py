"""``berg describe``"""

from __future__ import annotations

from pathlib import Path

from berg.cli.json_output import Json, print_json
from berg.core import model_registry, settings
from berg.core.card_text import to_markdown, to_text
from berg.core.commands import download_command
from berg.weights.availability import availability


def describe(model_id: str, *, markdown: bool = False, json: Json = False, berg_dir: Path | None = None) -> None:
    """Print the card of a model: what it takes, what it returns, how well it does, and whether it is here.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows.
    markdown
        Print Markdown instead of text.
    json
        Print the card's own keys as JSON.
    berg_dir
        The BERG directory, in which the model's files, and perhaps its card, lie. See:  berg where
    """
    folder = settings.berg_dir(berg_dir).value
    model_registry.add_store(folder)
    card = model_registry.get_card(model_id)
    state = availability(card, folder)
    if json:
        print_json({**card.raw, "availability": state})
    elif markdown:
        print(to_markdown(card))
    else:
        get = f"\nGet some with:  {download_command(card, folder, {})}" if state.state == "to download" else ""
        print(f"{to_text(card)}\n\nHere?\n-----\n{state}\n({folder}){get}")
