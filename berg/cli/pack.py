"""``berg pack``"""

from __future__ import annotations

import sys
from pathlib import Path

from berg.cli.encode_options import Pair, pairs, value
from berg.facade import BERG
from berg.system.memory import size_words


def pack(
    model_id: str,
    *,
    out: Path | None = None,
    force: bool = False,
    subject: str | None = None,
    selection: Pair = None,
    berg_dir: Path | None = None,
) -> None:
    """Check a model, and write all its files, its card and their hashes into one zip file.

    The zip file has the layout of the guide: upload it and put its link into your pull request. Who gets it
    types berg unpack.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows.
    out
        The zip file, by default MODEL_ID.zip here; replaced if it is there.
    force
        Pack a model that fails its checks, or files that differ from their manifest.
    subject
        The subject that the model is checked with; the zip file holds all of them.
    selection
        What the model is checked with, as key=value: --selection roi=V1.
    berg_dir
        The BERG directory.
    """
    parameters = {} if subject is None else {"subject": value(subject)}
    if chosen := pairs(selection, "--selection"):
        parameters["selection"] = chosen
    packed = BERG(berg_dir).pack(model_id, out, force=force, **parameters)
    for name in packed.left_out:
        print(f"left out: {name}", file=sys.stderr)
    print(f"{packed.path} ({size_words(packed.path.stat().st_size)}, {len(packed.entries)} files)")
