"""``berg dataset``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from berg.cli.encode_options import subjects
from berg.cli.json_output import Json, print_json

if TYPE_CHECKING:
    from berg.datasets.check import DatasetSummary, OutputSummary

dataset = App(
    name="dataset",
    help="Look at recordings before a model is fitted to them, or bring them into shape.",
    help_format="plaintext",
    version_flags=[],
)
STYLES = {"error": "bold red", "warning": "yellow"}


@dataset.command
def check(folder: Path, *, subject: str | None = None, json: Json = False) -> None:
    """Print what is in a dataset, and what is wrong with it; exit code 1 if a model should not be fitted to it.

    All responses are read, and all stimuli.

    Parameters
    ----------
    folder
        That of dataset.yaml.
    subject
        The subject; also several: 1,3 or 1-8. All of them, if not given.
    json
        Print the findings as JSON.
    """
    from berg.datasets.card import NAME, DatasetCard
    from berg.datasets.check import check_dataset
    from berg.datasets.dataset import EncodingDataset

    path = folder / NAME
    known = DatasetCard.read(path).subjects if path.is_file() else []
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    each_subject = subjects(subject) or known or [None]
    summaries = (check_dataset(EncodingDataset.open(folder, each)) for each in each_subject)
    severities = set()
    found = []
    for summary in summaries:
        severities |= {fault.severity for fault in summary.faults}
        if json:
            found.append(_as_json(summary))
        else:
            _print(summary, console)
    if json:
        print_json(found)
    if "error" in severities:
        sys.exit(1)


def _as_json(summary: DatasetSummary) -> dict[str, Any]:
    data = summary.dataset
    outputs = {
        name: {"axes": data.outputs[name].axes, "shape": data.outputs[name].shape, "unit": data.outputs[name].unit}
        for name in summary.outputs
    }
    counts = {"n_stimuli": len(data.stimulus_names), "n_presentations": len(data.presentations)}
    splits = {name: len(indices) for name, indices in data.splits.items()}
    known = {"dataset": data.name, "subject": data.subject, **counts, "splits": splits, "outputs": outputs}
    return {**known, "faults": list(summary.faults)}


def _print(summary: DatasetSummary, console: Console) -> None:
    data = summary.dataset
    console.print(Text(data.name + ("" if data.subject is None else f", subject {data.subject}"), style="bold"))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in _facts(summary):
        facts.add_row(name, Text(text))
    console.print(facts)
    console.print(_outputs(summary))
    for fault in summary.faults:
        console.print(Text(f"{fault.severity}: ", STYLES[fault.severity]).append(f"{fault.place}: {fault.text}", ""))
    if not summary.faults:
        console.print(Text("Nothing is wrong.", style="green"))
    console.print()


def _facts(summary: DatasetSummary) -> list[tuple[str, str]]:
    data, counts = summary.dataset, summary.n_presentations
    shown = counts[counts > 0]
    often = f"{shown.min()}" if shown.min() == shown.max() else f"{shown.min()} to {shown.max()}"
    facts = [
        ("stimuli", f"{len(data.stimulus_names):,}; {_kind(data)}"),
        ("presentations", f"{len(data.presentations):,}, {often} of each stimulus that was shown ({len(shown):,})"),
        ("splits", ", ".join(f"{name} {len(indices):,}" for name, indices in data.splits.items())),
    ]
    for name, output in data.outputs.items():
        if files := output.attributes.get("files"):
            facts.append((name, f"{len(files):,} files in this order, from {files[0]} to {files[-1]}"))
    if data.sampling_interval_s is not None:
        what = "frames of one sequence" if data.is_sequence else "samples of a response"
        facts.append(("sampling", f"{data.sampling_interval_s:g} s between {what}"))
    return facts


def _kind(data: Any) -> str:
    from berg.datasets.event_runs import RunVolumes

    if isinstance(data.stimuli, RunVolumes):
        n_words = sum(len(run.words) for run in data.stimuli.runs)
        return f"volumes of {len(data.stimuli.runs):,} runs with {n_words:,} words"
    shape = getattr(data.stimuli, "shape", None)
    if shape is not None:
        return f"each {data.stimuli.dtype} of shape {tuple(shape[1:])}"
    from berg.stimuli.stimulus_set import kind_of

    name = "videos" if kind_of(data.stimuli) == "video" else "files"
    return f"{name}, from {data.stimulus_names[0]} to {data.stimulus_names[-1]}"


def _outputs(summary: DatasetSummary) -> Table:
    table = Table("output", "units", "unit", "missing", "constant", "range", "labels", box=None, padding=(0, 2, 0, 0))
    for name, output in summary.outputs.items():
        data = summary.dataset.outputs[name]
        axes = " x ".join(f"{length:,} {axis}" for axis, length in zip(data.axes, data.shape, strict=True))
        missing = output.n_missing / max(1, output.n_rows * data.n_units)
        labels = ", ".join(data.coordinates)
        constant = f"{output.constant.sum():,}"
        table.add_row(name, axes, data.unit or "?", f"{missing:.1%}", constant, _range(output), labels or "none")
    return table


def _range(output: OutputSummary) -> str:
    measured = ~output.absent
    if not measured.any():
        return "none"
    return f"{output.smallest[measured].min():.4g} to {output.largest[measured].max():.4g}"


@dataset.command(name="from-published")
def from_published(
    folder: Path,
    *,
    stimuli: str,
    metadata: str,
    responses: Annotated[list[str], Parameter(negative="")],
    subject: str,
    order: str,
    unit: str = "z-scored beta",
    axes: str | None = None,
    first: int = 0,
) -> None:
    """Write the dataset.yaml of recordings that a published model was fitted to; the recordings stay where they are.

    Splits and labels come from the model's metadata, read without running code.

    Parameters
    ----------
    folder
        Where dataset.yaml goes, and the lists it needs.
    stimuli
        The array of all pictures, such as nsd_stimuli.hdf5::imgBrick.
    metadata
        Of the model, such as metadata_subject-{subject:02d}.npy.
    responses
        OUTPUT=FILE::KEY, such as lh=betas_subject-{subject:02d}.h5::lh; once for each output.
    subject
        Subjects: 1,3 or 1-8.
    order
        Of the rows of the responses. splits: those of the training, validation and test pictures, as the metadata
        list them. ascending: by the number of the picture. FILE: a list of the pictures' numbers, one per row.
    unit
        Of the responses.
    axes
        Of the responses: stimulus,vertex or presentation,channel,time. Without it, rows and units.
    first
        The number of the first picture of the array.
    """
    from berg.datasets.published_datasets import write_published_dataset

    path = write_published_dataset(
        folder, stimuli=stimuli, metadata=metadata, responses=dict(_pair(text) for text in responses),
        subjects=subjects(subject), order=order, unit=unit, axes=axes.split(",") if axes else None, first=first,
    )  # fmt: skip
    print(f"{path}\nLook at it with:  berg dataset check {folder}")


def _pair(text: str) -> tuple[str, str]:
    from berg.core.exceptions import InvalidParameterError

    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise InvalidParameterError(f"--responses takes OUTPUT=FILE::KEY, such as lh=betas.h5::lh; got '{text}'.")
    return name, path
