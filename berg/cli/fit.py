"""``berg fit``"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from berg.cli.encode_options import Pair, pairs, subjects

if TYPE_CHECKING:
    from berg.fitting.fit import FitReport


def fit(
    card: str,
    *,
    data: Path,
    subject: str | None = None,
    selection: Pair = None,
    parameter: Pair = None,
    berg_dir: Path | None = None,
    device: str = "auto",
    memory: float | None = None,
    cache: Path | None = None,
    permutations: int = 0,
    bootstrap: int = 1000,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    check: bool = True,
) -> None:
    """Fit a model to recordings as its card says; write, evaluate and check it.

    Features are computed once for all subjects and kept. Interrupted, the same command goes on where it was.

    Parameters
    ----------
    card
        The card's file, or the id of a model.
    data
        The folder of the recordings. Look at it with:  berg dataset
    subject
        The subject; also several of them: 1,3 or 1-8.
    selection
        What file names depend on, as key=value: --selection roi=V1.
    parameter
        Any other parameter of the model, as key=value: --parameter transform=as_trained.
    berg_dir
        Where the model goes. See:  berg where
    device
        auto, cpu, cuda, cuda:1 or mps.
    memory
        What the fit may use, in gigabytes; 80 % of what is free, if not given.
    cache
        Where features are kept.
    permutations
        For p values of each unit's correlation.
    bootstrap
        For intervals of each unit's correlation.
    overwrite
        Replace a model that is there.
    check
        Run the checks of berg check at the end.
    """
    from berg.fitting.fit import fit_model, fit_subjects

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    values = pairs(parameter, "--parameter")
    if selected := pairs(selection, "--selection"):
        values["selection"] = selected
    options: dict[str, Any] = {
        "device": device,
        "memory": None if memory is None else int(memory * 1e9),
        "cache": cache,
        "permutations": permutations,
        "bootstrap": bootstrap,
        "overwrite": overwrite,
        "say": console.print,
        **values,
    }
    given = subjects(subject)
    if len(given) > 1:
        reports = fit_subjects(card, {each: data for each in given}, berg_dir, **options)
    else:
        reports = [fit_model(card, data, berg_dir, **options, **({"subject": given[0]} if given else {}))]
    out = Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=True)
    for report in reports:
        _print(report, out)
    if check and not _passes(reports, values, out):
        sys.exit(1)


def _print(report: FitReport, console: Console) -> None:
    from berg.evaluation.accuracy_summary import summary
    from berg.system.memory import size_words

    subject = "" if report.subject is None else f", subject {report.subject}"
    console.print(f"[bold]{report.model_id}[/bold]{subject}: {report.weights}")
    for line in summary(report.accuracy):
        console.print(f"  {line}")
    console.print(
        f"  fitted and evaluated in {report.seconds:.0f} s; memory at the peak {size_words(report.peak_bytes)}, "
        f"announced {size_words(report.announced_bytes)}"
    )


def _passes(reports: Sequence[FitReport], parameters: dict[str, Any], console: Console) -> bool:
    """Whether the checks pass, as ``berg check`` runs them."""
    from berg.core import model_registry
    from berg.facade import BERG
    from berg.testing import check_model

    passes = True
    for report in reports:
        BERG(report.folder.parents[3])  # its cards are known from here on
        used = model_registry.get_card(report.model_id)
        if used.files is not None and used.files.store != "berg_dir":
            console.print(
                f"{report.model_id} is built in, and BERG goes on loading that. To use what was fitted, fit a copy of "
                "the card with another model_id."
            )
            return True
        given = {**parameters, **({} if report.subject is None else {"subject": report.subject})}
        results = check_model(report.model_id, report.folder.parents[3], **given)
        counts = Counter(result.outcome for result in results)
        words = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
        console.print(f"berg check {report.model_id}: {words}")
        for failed in (result for result in results if result.outcome == "failed"):
            console.print(f"  failed: {failed.description}\n    {failed.reason}\n    Fix: {failed.fix}")
            passes = False
    if passes:
        console.print(f"Ready:  berg pack {reports[0].model_id}")
    return passes
