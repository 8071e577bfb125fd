"""The command ``berg``. Each verb is a file of its own, imported only when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import berg
from berg.core.exceptions import BERGError

app = App(
    name="berg",
    help="BERG, the Brain Encoding Response Generator: predicted brain responses to your stimuli.",
    help_format="plaintext",
    version=lambda: berg.__version__,
    help_epilogue="Start with:  berg demo",
)
for verb, function, summary in (
    ("demo", "demo:demo", "Encode real photographs with the built-in model of human V1; draw the responses."),
    ("list", "list:list_models", "List the models."),
    ("find", "find:find", "Find models by region, species, subject and accuracy."),
    ("describe", "describe:describe", "Print the card of a model."),
    ("nodes", "nodes:nodes", "Print the layers of a network, with their shapes: what a card can name."),
    ("encode", "encode:encode", "Encode pictures or sounds with a model and save the responses."),
    ("plot", "plot:plot", "Draw responses: on the cortex, on the head, in the visual field, in time, by region."),
    ("estimate", "estimate:estimate", "Measure what encoding would take: time, disk, memory."),
    ("convert", "convert:convert", "Write published weights once more, in a form that loads faster."),
    ("new", "new:new", "Write the files of a new model."),
    ("dataset", "dataset:dataset", "Look at recordings before a model is fitted to them, or bring them into shape."),
    ("fit", "fit:fit", "Fit a model to recordings as its card says; evaluate and check it."),
    ("evaluate", "evaluate:evaluate", "Compare a model with recordings; write the accuracy of each unit."),
    ("report", "report:report", "Write a page on how well a model does."),
    ("check", "check:check", "Check that a model keeps what every model promises."),
    ("pack", "pack:pack", "Write all files of a model into one zip file, for others to unpack."),
    ("unpack", "unpack:unpack", "Put the models of a zip file into the BERG directory."),
    ("download", "download:download", "Fetch the files that a model needs, verified."),
    ("verify", "verify:verify", "Hash the files of the models, or read a .zarr store, and compare."),
    ("status", "status:status", "Print which models have files here, and whether they are whole."),
    ("where", "where:where", "Print where files lie and where they come from."),
    (
        "inspect",
        "inspect:inspect",
        "Print what files hold by their headers alone, to look at or to paste into an issue.",
    ),
    ("remove", "remove:remove", "Delete files of a model."),
    ("card-schema", "card_schema:card_schema", "Print the JSON schema of a model card, for editors."),
):
    app.command(f"berg.cli.{function}", name=verb, help=summary)


def main(tokens: Sequence[str] | None = None) -> None:
    """Run the command: exit code 1 for our errors, 2 for wrong usage; anything else is a traceback."""
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
    except KeyboardInterrupt:
        print("berg: interrupted", file=sys.stderr)
        sys.exit(130)
