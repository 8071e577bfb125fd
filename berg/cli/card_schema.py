"""``berg card-schema``"""

from __future__ import annotations

import json

from berg.core.model_card import ModelCard


def card_schema() -> None:
    """Print the JSON schema of a model card.

    Editors that know YAML complete and check a card with it: save it beside the card and begin the card
    with the line ``# yaml-language-server: $schema=card.schema.json``.
    """
    print(json.dumps(ModelCard.model_json_schema(), indent=2))
