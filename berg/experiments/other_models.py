"""Models that a result was not made with, which it is verified on: other subjects, other networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from berg.core import model_registry
from berg.core.exceptions import InvalidParameterError, MissingFileError
from berg.models.encoding_model import EncodingModel
from berg.models.loading import load_model

MOST_SUBJECTS, MOST_NETWORKS = 2, 1
_RANDOM = "untrained"


def other_models(model: EncodingModel) -> list[EncodingModel]:
    """Models of the same units as far as they can be had here: two other subjects, and another network.

    The same selection is asked for; what has no files here, or other units, is left out.
    """
    if model.get_model_id() not in model_registry.get_available_models():
        return []
    subjects = _loaded(_of_other_subjects(model), MOST_SUBJECTS, model)
    return subjects + _loaded(_on_other_networks(model), MOST_NETWORKS, model)


def _of_other_subjects(model: EncodingModel) -> Iterator[tuple[str, dict[str, Any]]]:
    stated = model.card.parameters.get("subject")
    for subject in (stated.allowed if stated else None) or []:
        if subject != model.parameters.get("subject"):
            yield model.get_model_id(), {**model.parameters, "subject": subject}


def _on_other_networks(model: EncodingModel) -> Iterator[tuple[str, dict[str, Any]]]:
    subject = {name: value for name, value in model.parameters.items() if name == "subject"}
    for card in model_registry.readable_cards():
        same = (card.modality, card.training_dataset) == (model.card.modality, model.card.training_dataset)
        if same and card.model_id != model.get_model_id() and _RANDOM not in card.model_id:
            yield card.model_id, subject


def _loaded(wanted: Iterator[tuple[str, dict[str, Any]]], most: int, model: EncodingModel) -> list[EncodingModel]:
    found: list[EncodingModel] = []
    for model_id, parameters in wanted:
        if len(found) == most:
            break
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            other = load_model(model_id, model.berg_dir or "", str(model.device), model.selection or None, given)
        except (
            MissingFileError,
            InvalidParameterError,
        ):  # no files here, or a selection that it does not have: it verifies nothing
            continue
        if isinstance(other, EncodingModel):
            found.append(other)
    return found
