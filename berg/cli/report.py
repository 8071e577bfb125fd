"""``berg report``"""

from __future__ import annotations

from pathlib import Path

from berg.cli.encode_options import Pair, pairs, value
from berg.core import model_registry
from berg.core.exceptions import InvalidParameterError
from berg.facade import BERG


def report(
    model_id: str,
    *,
    subject: str | None = None,
    out: Path | None = None,
    selection: Pair = None,
    parameter: Pair = None,
    berg_dir: Path | None = None,
) -> None:
    """Write a page on how well a model does: one HTML file with figures, to look at in a browser.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows.
    subject
        The subject, if the model has several.
    out
        The page; by default MODEL_ID.html, in the current folder.
    selection
        Only these units, as key=value: --selection roi=V1.
    parameter
        Any other parameter of the model, as key=value.
    berg_dir
        The BERG directory. See:  berg where
    """
    from berg.evaluation.report import write_report

    page = out or Path(f"{model_id}{'' if subject is None else f'_subject-{subject}'}.html")
    if page.suffix != ".html" or not page.absolute().parent.is_dir():
        raise InvalidParameterError(f"{page}: give --out a file that ends in .html, in a folder that is there.")
    given = pairs(parameter, "--parameter") | ({} if subject is None else {"subject": value(subject)})
    chosen = pairs(selection, "--selection") or None
    berg = BERG(berg_dir)
    accuracy = berg.accuracy(model_id, chosen, **given)
    metadata = berg.get_model_metadata(model_id, **given, **({"selection": chosen} if chosen else {}))
    facts = metadata.get("encoding_models", {}).get("fit", {})
    write_report(page, model_registry.get_card(model_id), accuracy, facts=facts)
    print(f"Report: {page}")
