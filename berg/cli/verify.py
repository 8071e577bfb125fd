"""``berg verify``"""

from __future__ import annotations

import shlex
from pathlib import Path

from berg.core import settings
from berg.core.exceptions import CorruptedFileError
from berg.core.layout import ModelId
from berg.weights.commands import given_berg_dir, how_to_get_again
from berg.weights.inventory import DAMAGED, record_files, verify_files


def verify(model_id: str | None = None, *, record: bool = False, berg_dir: Path | None = None) -> None:
    """Hash the files of the models again, and compare them with what was recorded when they came.

    Parameters
    ----------
    model_id
        One model; all, where not given.
    record
        Record the files that no manifest names, as they are now: files that came here by other ways.
    berg_dir
        The BERG directory.
    """
    place = settings.berg_dir(berg_dir).value
    files = verify_files(place, model_id)
    for file in files:
        if file.state != "whole":
            print(f"{file.state}: {file.model_id} {file.path}")
    if record:
        record_files(place, files)
    states = [file.state for file in files]
    print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or f"No files in {place}.")
    if unrecorded := states.count("not recorded"):
        print(
            f"{unrecorded} recorded."
            if record
            else f"Nobody has recorded {unrecorded} of them; do so with:  "
            + shlex.join(["berg", "verify", "--record", *given_berg_dir(place)])
        )
    damaged = [file for file in files if file.state in DAMAGED]
    if damaged:
        raise CorruptedFileError(
            f"{len(damaged)} files are damaged or missing, the first: {damaged[0].path} of {damaged[0].model_id}. "
            f"{how_to_get_again(ModelId.parse(damaged[0].model_id).folder(place) / damaged[0].path)}"
        )
