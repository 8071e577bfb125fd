"""``berg verify``"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from berg.cli.json_output import Json, print_json
from berg.core import settings
from berg.core.commands import given_berg_dir, how_to_get_again
from berg.core.exceptions import CorruptedFileError
from berg.core.layout import ModelId
from berg.weights.inventory import DAMAGED, Held, record_files, verify_files


def verify(
    model_id: str | None = None, *, record: bool = False, json: Json = False, berg_dir: Path | None = None
) -> None:
    """Hash the files of the models again, and compare them with what was recorded when they came.

    Parameters
    ----------
    model_id
        One model; all, if not given. Or a store of responses, NAME.zarr, which is read and compared with its checksums.
    record
        Record the files that no manifest names, as they are now: files that came here by other ways.
    json
        Print each file with its state as JSON.
    berg_dir
        The BERG directory.
    """
    if model_id is not None and _is_store(model_id):
        _verify_store(Path(model_id).expanduser())
        return
    place = settings.berg_dir(berg_dir).value
    files = verify_files(place, model_id)
    if record:
        record_files(place, files)
    if json:
        print_json(files)
    else:
        _print(files, place, record)
    damaged = [file for file in files if file.state in DAMAGED]
    if damaged:
        raise CorruptedFileError(
            f"{len(damaged)} files are damaged or missing, the first: {damaged[0].path} of {damaged[0].model_id}. "
            f"{how_to_get_again(ModelId.parse(damaged[0].model_id).folder(place) / damaged[0].path)}"
        )


def _print(files: list[Held], place: Path, record: bool) -> None:
    for file in files:
        if file.state != "whole":
            print(f"{file.state}: {file.model_id} {file.path}")
    states = [file.state for file in files]
    print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or f"No files in {place}.")
    if unrecorded := states.count("not recorded"):
        print(
            f"{unrecorded} recorded."
            if record
            else f"Nobody has recorded {unrecorded} of them; do so with:  "
            + shlex.join(["berg", "verify", "--record", *given_berg_dir(place)])
        )


def _is_store(given: str) -> bool:
    return given.rstrip("/").endswith(".zarr") or os.sep in given


def _verify_store(path: Path) -> None:
    from berg.responses.store import verify_store  # which imports xarray and zarr

    report = verify_store(path)
    for file in report.damaged_labels:
        print(f"damaged: {file}")
    for first, last in report.damaged:
        print(f"damaged: stimuli {first:,} to {last:,}")
    if not report.has_checksums:
        print(f"{path} was written before there were checksums: only the lengths of its files can be compared.")
    n_damaged = sum(last + 1 - first for first, last in report.damaged)
    counts = {"whole": report.n_stimuli - report.n_missing - n_damaged, "damaged": n_damaged}
    told = [f"{count:,} {state}" for state, count in {**counts, "not encoded yet": report.n_missing}.items() if count]
    print(f"{report.n_stimuli:,} stimuli: {', '.join(told)}")
    if report.damaged or report.damaged_labels:
        raise CorruptedFileError(
            f"{path} is not as it was written. Give the command that began it once more: it makes again what is "
            "damaged, and nothing else."
        )
