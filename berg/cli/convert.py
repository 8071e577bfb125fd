"""``berg convert``"""

from __future__ import annotations

from pathlib import Path

from berg.cli.encode_options import Pair, pairs, value
from berg.facade import BERG
from berg.system.memory import size_words


def convert(
    model_id: str,
    *,
    subject: str | None = None,
    selection: Pair = None,
    parameter: Pair = None,
    berg_dir: Path | None = None,
) -> None:
    """Write the weights of a published model once more, in a form that loads faster and cannot run code.

    The new .safetensors files lie beside the published ones, which stay; loading prefers them.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows.
    subject
        The subject.
    selection
        As key=value, for models with several files per subject: --selection roi=V1. All, if not given.
    parameter
        Any other parameter that the files differ by, as key=value: --parameter train_session=8-5.
    berg_dir
        The BERG directory.
    """
    parameters = pairs(parameter, "--parameter") | ({} if subject is None else {"subject": value(subject)})
    for path in BERG(berg_dir).convert(model_id, pairs(selection, "--selection") or None, **parameters):
        print(f"{path} ({size_words(path.stat().st_size)})")
