"""``berg check``"""

from __future__ import annotations

import json as json_text
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from berg.cli.encode_options import Pair, pairs, value
from berg.core import model_registry
from berg.core.exceptions import BERGError
from berg.core.model_card import ModelCard
from berg.testing import CheckResult, check_model
from berg.testing.outcome import SEE_MODEL_RUNS, Outcome

STYLES: dict[Outcome, str] = {"passed": "green", "failed": "bold red", "warning": "yellow", "skipped": "dim"}


def check(
    model: str,
    *,
    berg_dir: Path | None = None,
    subject: str | None = None,
    selection: Pair = None,
    parameter: Pair = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Check that a model keeps what every model promises; exit code 1 if it does not.

    The card, what the model takes and refuses, its responses, metadata, manners and files are looked at,
    with a few small random stimuli.

    Parameters
    ----------
    model
        One of those that ``berg list`` shows, or the file of a card.
    berg_dir
        The BERG directory, for models whose files lie there.
    subject
        The subject; the example in the card, if not given.
    selection
        Which units to check with, as key=value; may be given several times: --selection roi=V1.
    parameter
        Any other parameter of the model, as key=value: --parameter device=cuda.
    json
        Print the results as JSON.
    """
    given: dict[str, Any] = pairs(parameter, "--parameter")
    if subject is not None:
        given["subject"] = value(subject)
    if selected := pairs(selection, "--selection"):
        given["selection"] = selected
    start = perf_counter()
    results = check_model(model, berg_dir, **given)
    if json:
        print(json_text.dumps(_as_json(model, _kind_of(model), given, results), indent=2, default=str))
    else:
        _print(model, _kind_of(model), results, perf_counter() - start)
    if any(result.outcome == "failed" for result in results):
        sys.exit(1)


def _kind_of(model: str) -> str | None:
    """The kind of stimulus that the model takes, as its card says; None if no card says it."""
    try:
        path = Path(model)
        card = ModelCard.read(path) if path.suffix in (".yaml", ".yml") else model_registry.get_card(model)
    except BERGError:  # the checks say what is wrong with it
        return None
    return card.input.kind if card.input else None


def _as_json(model: str, kind: str | None, given: dict[str, Any], results: Sequence[CheckResult]) -> dict[str, Any]:
    counts = Counter(result.outcome for result in results)
    return {
        "model": model,
        "kind": kind,
        "parameters": given,
        "summary": {outcome: counts[outcome] for outcome in STYLES},
        "results": [asdict(result) for result in results],
    }


def _print(model: str, kind: str | None, results: Sequence[CheckResult], seconds: float) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=False)
    shown = [result for result in results if result.reason != SEE_MODEL_RUNS]
    for group, members in groupby(shown, key=lambda result: result.group):
        console.print(Text(f"\n{group}", style="bold"))
        console.print(_table(list(members)))
    counts = Counter(result.outcome for result in results)
    words = [Text(f"{counts[outcome]} {outcome}", style=STYLES[outcome]) for outcome in STYLES if counts[outcome]]
    if len(shown) < len(results):
        console.print(f"\n{len(results) - len(shown)} more checks need a model that runs (see model_runs).")
    takes = f" (stimuli: {kind})" if kind else ""
    console.print(Text(f"\n{model}{takes}: ").append(Text(", ").join(words)).append(f" in {seconds:.1f} s"))


def _table(results: Sequence[CheckResult]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for result in results:
        description = Text(result.description)
        if result.reason:
            description.append(f"\n{result.reason}", style=STYLES[result.outcome])
        if result.fix:
            description.append(f"\nFix: {result.fix}")
        if result.outcome in ("failed", "warning"):
            description.append(f" ({result.name})", style="dim")
        table.add_row(Text(result.outcome, style=STYLES[result.outcome]), description)
    return table
