"""The command ``berg``. Each verb is a file of its own, imported only when it is used."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

from cyclopts import App, CycloptsError, Group

import berg
from berg.core.exceptions import BERGError
from berg.system import progress

app = App(
    name="berg",
    help="BERG, the Brain Encoding Response Generator: predicted brain responses to your stimuli.",
    help_format="plaintext",
    version=lambda: berg.__version__,
    suppress_keyboard_interrupt=False,  # it ends with our own line, below
    help_epilogue="Start with:  berg demo\nEvery verb takes -q (no warnings, no bars) and -v (tell what is done).",
)
app.register_install_completion_command(help="Let the shell complete verbs and options, and exit.")
VERBS = {
    "Models: see and find": (
        ("demo", "demo:demo", "Encode real photographs with the built-in model of human V1; draw the responses."),
        ("list", "list:list_models", "List the models, and whether they are here."),
        ("find", "find:find", "Find models by region, species, subject and accuracy."),
        ("describe", "describe:describe", "Print the card of a model."),
        ("report", "report:report", "Write a page on how well a model does."),
    ),
    "Responses": (
        ("encode", "encode:encode", "Encode pictures or sounds with a model and save the responses."),
        ("plot", "plot:plot", "Draw responses: on the cortex, on the head, in the visual field, in time, by region."),
        ("estimate", "estimate:estimate", "Measure what encoding would take: time, disk, memory."),
    ),
    "Models for others, and without programming": (
        ("serve", "serve:serve", "Answer requests over HTTP, with a page for a browser."),
        ("explorer", "explorer:explorer", "Write that page with responses computed now, for any web host."),
    ),
    "In silico experiments": (
        ("experiment", "experiment:experiment", "Run an experiment on responses or models; write result and figure."),
    ),
    "Files and this installation": (
        ("download", "download:download", "Fetch the files that a model needs, verified."),
        ("status", "status:status", "Print which models have files here, and whether they are whole."),
        ("verify", "verify:verify", "Hash the files of the models, or read a .zarr store, and compare."),
        ("remove", "remove:remove", "Delete files of a model."),
        ("convert", "convert:convert", "Write published weights once more, in a form that loads faster."),
        ("where", "where:where", "Print where files lie and where they come from."),
        ("inspect", "inspect:inspect", "Print what files hold by their headers alone, to look at or for an issue."),
        ("doctor", "doctor:doctor", "Look at this installation: versions, devices, what is missing, a short test."),
    ),
    "Models of your own": (
        ("new", "new:new", "Write the files of a new model."),
        ("nodes", "nodes:nodes", "Print the layers of a network, with their shapes: what a card can name."),
        ("dataset", "dataset:dataset", "Look at recordings before a fit, or bring them into shape."),
        ("fit", "fit:fit", "Fit a model to recordings as its card says; evaluate and check it."),
        ("evaluate", "evaluate:evaluate", "Compare a model with recordings; write the accuracy of each unit."),
        ("check", "check:check", "Check that a model keeps what every model promises."),
        ("pack", "pack:pack", "Write all files of a model into one zip file, for others to unpack."),
        ("unpack", "unpack:unpack", "Put the models of a zip file into the BERG directory."),
        ("card-schema", "card_schema:card_schema", "Print the JSON schema of a model card, for editors."),
    ),
}
for number, (title, verbs) in enumerate(VERBS.items()):
    group = Group(title, sort_key=number)
    for verb, function, summary in verbs:
        app.command(f"berg.cli.{function}", name=verb, help=summary, group=group)


def main(tokens: Sequence[str] | None = None) -> None:
    """Run the command: exit code 1 for our errors, 2 for wrong usage; anything else is a traceback."""
    given, verbosity = _without_verbosity(sys.argv[1:] if tokens is None else tokens)
    with warnings.catch_warnings(), _Told(verbosity):
        _run(given)


def _run(tokens: Sequence[str]) -> None:
    try:
        app(tokens, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except BERGError as error:
        print(f"berg: {error}", file=sys.stderr)
        sys.exit(1)
    except CycloptsError:  # already printed
        sys.exit(2)
    except KeyboardInterrupt as interruption:
        notes = getattr(interruption, "__notes__", [])
        print(". ".join(["berg: interrupted", *notes]), file=sys.stderr)
        sys.exit(130)


def _without_verbosity(tokens: Sequence[str]) -> tuple[list[str], int]:
    """The words without -q and -v, and how much is told: -1, 0 or 1. What follows ``--`` is left as it is."""
    words = list(tokens)
    end = words.index("--") if "--" in words else len(words)
    quiet, verbose = ({"-q", "--quiet"} & {*words[:end]}, {"-v", "--verbose"} & {*words[:end]})
    kept = [word for word in words[:end] if word not in {*quiet, *verbose}]
    return kept + words[end:], -1 if quiet else 1 if verbose else 0


class _Told:
    """Warnings as one line on standard error, and the log of ``berg``; none of them with -q."""

    def __init__(self, verbosity: int) -> None:
        self.verbosity = verbosity
        self.handler = logging.StreamHandler(sys.stderr)
        self.handler.setFormatter(logging.Formatter("berg: %(message)s"))
        self.logger = logging.getLogger("berg")

    def __enter__(self) -> None:
        self.before = self.logger.level, progress.shown_by_default
        warnings.showwarning = _show_warning  # put back by `warnings.catch_warnings`
        if self.verbosity < 0:
            warnings.simplefilter("ignore")
            progress.shown_by_default = False
        self.logger.setLevel({-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}[self.verbosity])
        if self.verbosity:
            self.logger.addHandler(self.handler)

    def __exit__(self, *_: Any) -> None:
        level, progress.shown_by_default = self.before
        self.logger.setLevel(level)
        self.logger.removeHandler(self.handler)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=file or sys.stderr)
