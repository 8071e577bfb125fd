"""``berg find``"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from berg.cli.json_output import Json, print_json
from berg.core.exceptions import ModelNotFoundError, listing
from berg.facade import BERG

if TYPE_CHECKING:
    from berg.evaluation.find_models import FoundModel


def find(
    *,
    species: str | None = None,
    modality: str | None = None,
    dataset: str | None = None,
    stimuli: str | None = None,
    roi: str | None = None,
    subject: str | None = None,
    min_r: float | None = None,
    json: Json = False,
    berg_dir: Path | None = None,
) -> None:
    """Find models by region, species, subject and accuracy, the most accurate first.

    Parameters
    ----------
    species
        Part of the card's word, such as human.
    modality
        Such as fmri.
    dataset
        The training dataset, such as nsd.
    stimuli
        Such as images.
    roi
        A region that the model has; figures are then of its units.
    subject
        Only this one.
    min_r
        Only models of which a unit has a correlation of at least so much.
    json
        Print the table as JSON.
    berg_dir
        The BERG directory. See:  berg where
    """
    asked = {"species": species, "modality": modality, "dataset": dataset, "stimuli": stimuli}
    toolkit = BERG(berg_dir)
    rows = toolkit.find_models(**asked, roi=roi, subject=subject, min_r=min_r)
    if not rows:
        given = {**asked, "roi": roi, "subject": subject, "min-r": min_r}
        words = ", ".join(f"{key} {value}" for key, value in given.items() if value is not None)
        raise ModelNotFoundError(f"No model has {words}. All models:  berg list")
    if json:
        print_json(list(rows))
        return
    known = [row for row in rows if not row.unknown]
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if known:
        console.print(_table(known, min_r))
    _print_unknown([row for row in rows if row.unknown], console, toolkit.berg_dir)


def _table(rows: list[FoundModel], min_r: float | None) -> Table:
    table = Table("model", "subject", box=None)
    for heading in ("units", "median r", *([f"units with r >= {min_r:g}"] if min_r is not None else [])):
        table.add_column(heading, justify="right")
    table.add_column("measure")
    for row in rows:
        over = [] if row.n_over is None else [f"{row.n_over:,}"]
        subject = "" if row.subject is None else str(row.subject)
        table.add_row(row.model_id, subject, f"{row.n_units:,}", f"{row.median_r:.3f}", *over, row.measure)
    return table


def _print_unknown(rows: list[FoundModel], console: Console, berg_dir: str | Path) -> None:
    """One line for all subjects of a model, with the reason of the first; one for all if there is no directory."""
    if rows and not Path(berg_dir).is_dir():
        models = listing(dict.fromkeys(row.model_id for row in rows))
        console.print(f"accuracy not known: {models}", soft_wrap=True, markup=False)
        console.print(f"  There is no BERG directory {berg_dir}. See:  berg where", soft_wrap=True, markup=False)
        return
    for model_id, group in groupby(rows, key=lambda row: row.model_id):
        found = list(group)
        subjects = ", ".join(str(row.subject) for row in found if row.subject is not None)
        console.print(f"accuracy not known: {model_id}{f', subject {subjects}' if subjects else ''}", soft_wrap=True)
        console.print(f"  {found[0].unknown}", soft_wrap=True, markup=False)
