"""Which models there are for a question, and how well each does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from berg.core import model_registry
from berg.core.exceptions import BERGError, InvalidParameterError
from berg.core.model_card import ModelCard
from berg.core.selection import EmptySelectionWarning
from berg.core.tables import html_table, text_table
from berg.evaluation.accuracy_summary import median
from berg.evaluation.accuracy_table import outputs_of, r_name
from berg.evaluation.known_accuracy import known_accuracy

if TYPE_CHECKING:
    import pandas as pd

Filters = Mapping[str, str | None]


@dataclass(frozen=True)
class FoundModel:
    """A model of one subject, and how well it does.

    Attributes
    ----------
    model_id, subject
        The subject is None if the model has no such parameter.
    n_units
        Units of all outputs, in the region that was asked for; None if nothing is known.
    measure
        The variable of the accuracy table that is a Pearson correlation.
    median_r
        Of these units.
    n_over
        How many of them have at least `min_r`.
    unknown
        Why nothing is known; empty where something is.
    """

    model_id: str
    subject: Any
    n_units: int | None = None
    measure: str = ""
    median_r: float = float("nan")
    n_over: int | None = None
    unknown: str = ""


class FoundModels(list[FoundModel]):
    """Found models, the most accurate first: a list that shows itself as a table."""

    def __repr__(self) -> str:
        return text_table(_HEADINGS, map(_cells, self)) if self else "no models"

    def _repr_html_(self) -> str:
        return html_table(_HEADINGS, map(_cells, self), f"{len(self)} rows")

    def to_dataframe(self) -> pd.DataFrame:
        """A pandas table, a row per model and subject; needs pandas."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self], columns=[field.name for field in fields(FoundModel)])


_HEADINGS = ("model", "subject", "units", "median r", "measure", "not known because")


def _cells(row: FoundModel) -> tuple[str, ...]:
    subject = "" if row.subject is None else str(row.subject)
    units = "" if row.n_units is None else f"{row.n_units:,}"
    median_r = "" if np.isnan(row.median_r) else f"{row.median_r:.3f}"
    return row.model_id, subject, units, median_r, row.measure, row.unknown


def find_models(
    berg_dir: str | None, filters: Filters, roi: str | None, subject: Any, min_r: float | None
) -> FoundModels:
    """Models and subjects by what their cards and accuracies say; see `berg.BERG.find_models`."""
    if roi is not None and not isinstance(roi, str):
        raise InvalidParameterError(f"roi is {roi!r}; it must be the name of a region, such as roi='V1'.")
    cards = [card for card in model_registry.readable_cards() if card.has_words(filters)]
    found = [row for card in cards for row in _rows(card, berg_dir, roi, subject, min_r)]
    known = [row for row in found if not row.unknown]
    unknown = [row for row in found if row.unknown]
    return FoundModels(sorted(known, key=lambda row: -np.nan_to_num(row.median_r, nan=-2.0)) + unknown)


def _rows(
    card: ModelCard, berg_dir: str | None, roi: str | None, subject: Any, min_r: float | None
) -> Iterator[FoundModel]:
    if roi is not None and not _may_have(card, roi):
        return
    for own in _subjects(card, subject):
        try:
            row = _row(card, berg_dir, roi, own, min_r)
        except BERGError as error:
            row = FoundModel(card.model_id, own, unknown=str(error))
        if row is not None:
            yield row


def _subjects(card: ModelCard, subject: Any) -> list[Any]:
    """Those of the model that are asked for; [None] of a model without subjects."""
    parameter = card.parameters.get("subject")
    if parameter is None:
        return [None] if subject is None else []
    allowed = parameter.allowed or [value for value in (parameter.example,) if value is not None]
    return [each for each in allowed if subject is None or str(each) == str(subject)]


def _may_have(card: ModelCard, roi: str) -> bool:
    """Whether the card lists a region, or does not say which there are."""
    described = card.selection_parameters.get("roi")
    if described is None or "roi" not in card.select:
        return False
    names = [*(described.allowed or [roi]), *card.select["roi"].aliases]
    return roi.casefold() in [str(name).casefold() for name in names]


def _row(
    card: ModelCard, berg_dir: str | None, roi: str | None, subject: Any, min_r: float | None
) -> FoundModel | None:
    own = {} if subject is None else {"subject": subject}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptySelectionWarning)  # such a subject is left out below
        accuracy = known_accuracy(card.model_id, berg_dir, _selection(card, roi), own)
    values = [table[name].values.ravel() for table in outputs_of(accuracy).values() if (name := r_name(table))]
    if not values:
        names = sorted({str(name) for table in outputs_of(accuracy).values() for name in table.data_vars})
        return FoundModel(card.model_id, subject, unknown=f"It has no correlation, only {', '.join(names)}.")
    r = np.concatenate(values)
    n_over = None if min_r is None else int((r >= min_r).sum())
    if n_over == 0 or not r.size:
        return None
    measure = next(name for table in outputs_of(accuracy).values() if (name := r_name(table)))
    return FoundModel(card.model_id, subject, r.size, measure, median(r), n_over)


def _selection(card: ModelCard, roi: str | None) -> dict[str, Any] | None:
    """The region, spelled as the card spells it."""
    if roi is None:
        return None
    described = card.selection_parameters["roi"]
    names = [*(described.allowed or [roi]), *card.select["roi"].aliases]
    return {"roi": next(str(name) for name in names if str(name).casefold() == roi.casefold())}
