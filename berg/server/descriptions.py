"""What the server says of its models, from their cards and from what is here of their files."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from berg.core.card_schema import Parameter
from berg.core.json_values import plain
from berg.core.model_card import ModelCard
from berg.plotting.region_means import ACCURACIES, membership
from berg.responses.regions import ROI
from berg.server.contract import (
    Figure,
    Input,
    KnownAccuracy,
    ModelDescription,
    ModelList,
    ModelSummary,
    OutputFacts,
    RegionAccuracy,
    Setting,
)
from berg.server.contract import Limits as StatedLimits
from berg.server.drawings import drawings_of_card
from berg.server.limits import Limits
from berg.stimuli.readers import READERS, Reader
from berg.weights.availability import availability

SERVERS_OWN = ("device", "compile")
"""Parameters that the server decides."""


def listed(cards: Iterable[ModelCard], berg_dir: Path, loaded: Collection[str], limits: Limits) -> ModelList:
    """Models to choose from, of which some are loaded, and what a request may hold."""
    return ModelList(
        models=[summary(card, berg_dir, card.model_id in loaded) for card in cards],
        limits=StatedLimits(**{name: getattr(limits, name) for name in StatedLimits.model_fields}),
        berg_version=version("berg"),
    )


def summary(card: ModelCard, berg_dir: Path, is_loaded: bool) -> ModelSummary:
    """What a person needs to choose a model."""
    return ModelSummary(**_summary(card, berg_dir, is_loaded))


def description(card: ModelCard, berg_dir: Path, is_loaded: bool) -> ModelDescription:
    """What a model takes and returns, and its card."""
    own = {name: part for name, part in card.own_parameters.items() if name not in SERVERS_OWN}
    return ModelDescription(
        **_summary(card, berg_dir, is_loaded),
        description=card.description.strip(),
        citation=(card.citation or "").strip(),
        references=plain(card.references),
        creator=card.creator,
        input=_input(card),
        outputs=[OutputFacts(name=output.name, axes=output.axes, unit=output.unit) for output in card.outputs],
        parameters={name: _setting(part) for name, part in own.items()},
        selection={name: _setting(part) for name, part in card.selection_parameters.items()},
        card=plain(card.raw),
    )


def accuracy(table: xr.Dataset | xr.DataTree) -> KnownAccuracy:
    """How well a model does, over all units and for each region."""
    tables = [table] if isinstance(table, xr.Dataset) else [node.to_dataset() for node in table.leaves]
    name = next((known for known in ACCURACIES if all(known in own for own in tables)), None)
    if name is None:
        return KnownAccuracy(quantity=None, median=None, n_units=0, regions=[], attributes=plain(tables[0].attrs))
    values = np.concatenate([_per_unit(own[name]) for own in tables])
    return KnownAccuracy(
        quantity=name,
        median=_median(values),
        n_units=len(values),
        regions=_by_region(tables, name),
        attributes=plain(dict(tables[0].attrs)),
    )


def _summary(card: ModelCard, berg_dir: Path, is_loaded: bool) -> dict[str, Any]:
    state = availability(card, berg_dir)
    subject, roi = card.parameters.get("subject"), card.selection_parameters.get(ROI)
    metrics = card.performance.metrics if card.performance is not None else []
    return {
        "id": card.model_id,
        "modality": card.modality,
        "species": card.species,
        "stimuli": card.stimuli,
        "kind": None if card.input is None else card.input.kind,
        "architecture": card.architecture,
        "training_dataset": card.training_dataset,
        "is_usable": state.is_usable and card.family is not None,
        "state": str(state),
        "is_loaded": is_loaded,
        "subjects": plain(subject.allowed or []) if subject is not None else [],
        "regions": [str(name) for name in (roi.allowed or [])] if roi is not None else [],
        "drawings": drawings_of_card(card),
        "accuracy": [
            Figure(name=own.name, value=plain(own.value), description=own.description.strip()) for own in metrics
        ],
        "limitations": (card.limitations or "").strip(),
        "licence": card.licence or "",
    }


def _input(card: ModelCard) -> Input | None:
    taken = card.input
    if taken is None:
        return None
    reader = READERS[taken.kind]
    endings = sorted(reader.endings) if isinstance(reader, Reader) else []
    names = ("kind", "shape", "dtype", "range", "unit", "sampling_rate", "n_frames", "description", "constraints")
    return Input(endings=endings, **{name: getattr(taken, name) for name in names})


def _setting(part: Parameter) -> Setting:
    return Setting(
        type=part.type,
        required=bool(part.required),
        default=plain(part.default),
        allowed=plain(part.allowed),
        minimum=part.minimum,
        maximum=part.maximum,
        unit=part.unit,
        example=plain(part.example),
        description=part.description.strip(),
    )


def _per_unit(values: xr.DataArray) -> Any:
    return np.ravel(values.values).astype(np.float64)


def _by_region(tables: list[xr.Dataset], name: str) -> list[RegionAccuracy]:
    found: dict[str, list[Any]] = {}
    for table in tables:
        if ROI in table.coords and table[ROI].dims == table[name].dims:
            for region, is_in in membership(table[ROI].values).items():
                found.setdefault(region, []).append(_per_unit(table[name])[is_in])
    return [_region(region, np.concatenate(parts)) for region, parts in found.items()]


def _region(name: str, values: Any) -> RegionAccuracy:
    return RegionAccuracy(name=name, n_units=len(values), median=_median(values))


def _median(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    median = float(np.median(known)) if len(known) else math.nan
    return median if math.isfinite(median) else None


def card_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Texts of an address as the values that a card means: whole numbers as numbers, all else as they are.

    >>> card_values({"subject": "1", "roi": "V1"})
    {'subject': 1, 'roi': 'V1'}
    """
    return {name: int(text) if text.isdecimal() else text for name, text in settings.items()}
