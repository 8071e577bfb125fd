"""``berg explorer``"""

from __future__ import annotations

from pathlib import Path

from berg.cli.encode_options import Pair, pairs, value
from berg.cli.serve import needing_server
from berg.facade import BERG


def explorer(
    out: Path,
    *model_ids: str,
    stimuli: list[Path],
    subject: str | None = None,
    selection: Pair = None,
    parameter: Pair = None,
    device: str = "auto",
    berg_dir: Path | None = None,
) -> None:
    """Write the page of ``berg serve`` with responses that are computed now: a folder for any web host.

    Parameters
    ----------
    out
        The folder; it must not be there yet, or be empty. Try it with:  python -m http.server -d FOLDER
    model_ids
        The models.
    stimuli
        Files and folders of pictures, sounds, videos: each model is given those that it takes.
    subject
        The subject, of models that have several.
    selection
        Only these units, as key=value: --selection roi=V1. Given to the models that have such a selection.
    parameter
        Any other parameter, as key=value.
    device
        auto, cpu, cuda, cuda:1 or mps.
    berg_dir
        The BERG directory. See:  berg where
    """
    with needing_server():
        from berg.server.explorer import write_explorer
    given = pairs(parameter, "--parameter") | ({} if subject is None else {"subject": value(subject)})
    chosen = pairs(selection, "--selection")
    write_explorer(BERG(berg_dir), out, model_ids, stimuli, parameters=given, selection=chosen, device=device)
    print(f"Explorer: {out}. Look at it:  python -m http.server -d {out}")
