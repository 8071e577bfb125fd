"""``berg describe``"""

from __future__ import annotations

from berg.core import model_registry
from berg.core.card_text import to_markdown, to_text


def describe(model_id: str, *, markdown: bool = False) -> None:
    """Print the card of a model: what it takes, what it returns, how well it does.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows.
    markdown
        Print Markdown instead of text.
    """
    card = model_registry.get_card(model_id)
    print(to_markdown(card) if markdown else to_text(card))
