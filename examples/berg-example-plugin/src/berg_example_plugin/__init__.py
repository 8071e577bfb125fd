"""A family (`grid`), a card of it (``model_cards``) and its weights (``model_cards/encoding_models``)."""
