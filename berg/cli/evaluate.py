"""``berg evaluate``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from berg.cli.encode_options import Pair, pairs, value
from berg.cli.json_output import Json, print_json
from berg.core.exceptions import InvalidParameterError
from berg.facade import BERG

if TYPE_CHECKING:
    from berg.evaluation.accuracy_summary import Region
    from berg.evaluation.accuracy_table import Accuracy

MOST_ROWS = 40


def evaluate(
    model_id: str,
    *,
    data: Path,
    subject: str | None = None,
    split: str = "test",
    permutations: int = 1000,
    bootstrap: int = 1000,
    block_length: int | None = None,
    seed: int = 0,
    selection: Pair = None,
    parameter: Pair = None,
    out: Path | None = None,
    berg_dir: Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    json: Json = False,
) -> None:
    """Compare a model with recordings; write the accuracy of each unit.

    The table goes beside the weights, where berg.accuracy(MODEL_ID) finds it and berg pack takes it along.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows.
    data
        The folder of the recordings, with its dataset.yaml.
    subject
        The subject, if the model has several.
    split
        Which stimuli; the fit must not have seen them.
    permutations
        For p values; 0 for none.
    bootstrap
        For intervals; 0 for none.
    block_length
        Samples in a row that are resampled together; 1 for separate stimuli. Without it, what the data allow: their
        groups; else each stimulus, with all its moments; of fewer than 20 stimuli with moments in time, the moments
        (p by circular shifts, intervals of r by the effective number of samples).
    seed
        Of the resamples.
    selection
        Which units, as key=value: --selection roi=V1.
    parameter
        Any other parameter of the model, as key=value: --parameter transform=as_trained.
    out
        Write the table there (.nc) and not beside the weights.
    berg_dir
        The BERG directory. See:  berg where
    device
        auto, cpu, cuda, cuda:1 or mps.
    batch_size
        How many stimuli are computed together.
    json
        Print the figures of the regions or channels as JSON.
    """
    from berg.datasets.dataset import EncodingDataset
    from berg.evaluation.evaluate import check_belongs_beside_weights, evaluate_model, write_evaluation

    if out is not None and (out.suffix != ".nc" or not out.absolute().parent.is_dir()):
        raise InvalidParameterError(f"{out}: give --out a file that ends in .nc, in a folder that is there.")
    given = pairs(parameter, "--parameter") | ({} if subject is None else {"subject": value(subject)})
    chosen = pairs(selection, "--selection") or None
    with BERG(berg_dir).get_encoding_model(model_id, device, chosen, **given) as found:
        model: Any = found
        if not hasattr(model, "card"):
            raise InvalidParameterError(f"{model_id} is a class of its own, whose card says nothing of its units.")
        if out is None:
            check_belongs_beside_weights(model, split)
        dataset = EncodingDataset.open(data, given.get("subject"))
        resampling: dict[str, Any] = {"permutations": permutations, "bootstrap": bootstrap, "seed": seed}
        accuracy = evaluate_model(model, dataset, split, block_length=block_length, batch_size=batch_size, **resampling)
        path = write_evaluation(model, accuracy, split, out)
    if json:
        from berg.evaluation.accuracy_summary import regions

        print_json({"table": path, "regions": regions(accuracy)})
        return
    print_accuracy(accuracy)
    print(f"Accuracy of each unit: {path}")


def print_accuracy(accuracy: Accuracy) -> None:
    """A line per output, and a table of its regions or channels, the most accurate first."""
    from berg.evaluation.accuracy_summary import regions, summary

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    for line in summary(accuracy):
        console.print(line, soft_wrap=True, markup=False)
    named = sorted((each for each in regions(accuracy) if each.name), key=lambda each: -np.nan_to_num(each.median_r))
    if named:
        console.print(_table(named[:MOST_ROWS]))
    if len(named) > MOST_ROWS:
        console.print(f"... and {len(named) - MOST_ROWS} more", markup=False)


def _table(rows: list[Region]) -> Table:
    in_time = any(row.peak_time is not None for row in rows)
    table = Table("", "output", box=None)
    for heading in ("units", "median r", "ceiling", "normalised", "above chance", *(["best r", "at (s)"] * in_time)):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        figures = (row.median_r, row.median_ceiling, row.median_normalised)
        significant = "" if row.n_significant is None else f"{row.n_significant:,}"
        peak = [_number(row.peak_r), f"{row.peak_time:.3f}"] if row.peak_time is not None else []
        table.add_row(row.name, row.output, f"{row.n_units:,}", *map(_number, figures), significant, *peak)
    return table


def _number(figure: float) -> str:
    return "" if np.isnan(figure) else f"{figure:.3f}"
