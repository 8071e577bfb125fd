"""From a result to an experiment in vivo: pictures as files, and when each is shown, as BIDS has it."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

import berg
from berg.core.exceptions import InvalidParameterError
from berg.experiments.chosen_sets import n_to_choose_from, picture_names, sets_of, sets_of_pictures
from berg.experiments.control_subjects import check_counts
from berg.experiments.result import described, save, sources_of
from berg.statistics.options import check_choice
from berg.stimuli.stimulus_set import check_stimuli, is_files, n_stimuli, names_of, read_stimuli
from berg.system.durable_file import replacing, storage_errors

Indices = NDArray[np.intp]
EXPERIMENT = "in_vivo_design"
BLANK = "blank"
COLUMNS = {
    "onset": "Time from the start of the run, s.",
    "duration": "How long the picture is shown, s.",
    "trial_type": "The sets that the picture is in, joined by +; blank: no picture is shown.",
    "stim_file": "The picture, in the folder stimuli.",
    "picture": "Its number, from 0, among the pictures that were chosen from.",
    "repeat": "How often the picture was shown before, in all runs.",
}


def in_vivo_design(
    result: xr.Dataset,
    pictures: Any,
    folder: Path | str,
    *,
    task: str = "control",
    datatype: Literal["func", "eeg", "meg", "ieeg"] = "func",
    n_subjects: int = 1,
    n_repeats: int = 4,
    n_runs: int = 4,
    shown_s: float = 2.0,
    gap_s: float = 2.0,
    lead_s: float = 8.0,
    tail_s: float = 12.0,
    blank_share: float = 0.1,
    seed: int = 0,
) -> xr.Dataset:
    """Write the pictures of a result, and a table of events for each subject and run, into a new folder.

    Each repeat shows all pictures once, in an order of its own, so that repeats are spread over the runs; no picture
    comes twice in a row. Blank trials lie between pictures. Each subject has another order.

    Parameters
    ----------
    result
        Of `univariate_control`, `multivariate_control`, `driving_pictures`, `similar_pictures` or `matched_sets`. The
        sets are those of all subjects, with their baselines.
    pictures
        All pictures that were chosen from, in their order: a folder, a list of files, or an array of integers from 0 to
        255, shape (n_pictures, 3, height, width).
    folder
        Made here: ``stimuli/``, ``sub-01/func/sub-01_task-control_run-01_events.tsv`` and on,
        ``task-control_events.json``, ``dataset_description.json``, ``participants.tsv`` and the result itself,
        ``result.nc``.
    shown_s, gap_s, lead_s, tail_s
        Seconds of a picture, between pictures, before the first and after the last of a run.
    blank_share
        Blank trials, as a part of all trials.

    Returns
    -------
    design
        ``onset``, ``duration``, ``run``, ``picture`` (-1: blank), ``repeat`` and ``trial_type`` (subject, trial).

    Raises
    ------
    InvalidParameterError
        If the folder is there and not empty, pictures are not those of the result, or there are more runs than trials.
    """
    check_counts(n_subjects=n_subjects, n_repeats=n_repeats, n_runs=n_runs)
    check_choice("datatype", datatype, ("func", "eeg", "meg", "ieeg"))
    _check_times(shown_s=shown_s, gap_s=gap_s, lead_s=lead_s, tail_s=tail_s)
    if not re.fullmatch("[A-Za-z0-9]+", task) or not 0 <= blank_share < 0.9:
        raise InvalidParameterError(
            f"task='{task}' must have letters and digits alone, as BIDS wants it, and blank_share={blank_share} must "
            "be at least 0 and below 0.9."
        )
    types = sets_of_pictures(sets_of(result))
    given, target = checked_pictures(result, pictures), Path(folder)
    _check_folder(target)
    shown = np.array(sorted(types))
    if n_runs > len(shown) * n_repeats:
        raise InvalidParameterError(f"n_runs is {n_runs}, and there are {len(shown) * n_repeats} trials. Make fewer.")
    trials = [
        _trials(shown, n_repeats, n_runs, blank_share, np.random.default_rng([seed, subject]))
        for subject in range(n_subjects)
    ]
    design = _design(trials, types, shown_s, gap_s, lead_s)
    design = described(
        design, EXPERIMENT, sources_of(result), seed, of=result.attrs["experiment"], task=task, datatype=datatype,
        n_subjects=n_subjects, n_repeats=n_repeats, n_runs=n_runs, shown_s=shown_s, gap_s=gap_s, lead_s=lead_s,
        tail_s=tail_s, blank_share=blank_share, n_pictures=len(shown),
    )  # fmt: skip
    files = file_names_of(result, shown)
    with storage_errors(target), tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as made:
        whole = Path(made) / "whole"  # the folder has its name when all of it is written
        _write_pictures(given, files, whole / "stimuli")
        _write_tables(design, files, whole, task, datatype, tail_s)
        save(result, whole / "result.nc")
        whole.replace(target)
    return design


def checked_pictures(result: xr.Dataset, pictures: Any) -> Any:
    """The pictures, which must be as many as there were, with the names of the chosen ones if they are files.

    Raises
    ------
    InvalidParameterError
        If they are not those of the result.
    """
    given = check_stimuli(pictures)
    if n_stimuli(given) != n_to_choose_from(result):
        raise InvalidParameterError(
            f"There are {n_stimuli(given):,} pictures, and the result is of {n_to_choose_from(result):,}. Give all "
            "that were chosen from, in their order."
        )
    if is_files(given) and not isinstance(given[0], Image.Image):
        names = names_of(given)
        for index, known in picture_names(result).items():
            if known != str(index) and known not in (names[index], Path(names[index]).stem):
                raise InvalidParameterError(
                    f"Picture {index:,} is the file '{names[index]}', and was '{known}' in the result. Give the files "
                    "in the order of the responses."
                )
    elif not isinstance(given, list) and np.dtype(given.dtype).kind not in "iu":
        raise InvalidParameterError(
            f"Pictures are {given.dtype}; files are written of integers from 0 to 255. Try "
            '(255 * pictures).round().astype("uint8").'
        )
    return given


def file_names_of(result: xr.Dataset, chosen: Indices) -> dict[int, str]:
    """The name of the file of each picture: its number, and its name in letters that every system takes."""
    names = picture_names(result)
    return {int(index): f"{index:06d}{_plain(names[int(index)], int(index))}.png" for index in chosen}


def _plain(name: str, index: int) -> str:
    own = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")
    return "" if own in ("", str(index)) else f"_{own}"


def _check_times(**times: float) -> None:
    for name, value in times.items():
        if not np.isfinite(value) or value < 0 or (name == "shown_s" and value == 0):
            raise InvalidParameterError(f"{name} is {value}; give seconds, not below 0.")


def _check_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidParameterError(f"{folder} is there and not empty. Give the name of a new folder.")


def _trials(
    shown: Indices, n_repeats: int, n_runs: int, blank_share: float, rng: np.random.Generator
) -> list[tuple[Indices, Indices]]:
    """Of each run, the pictures in their order (-1: blank) and the number of the repeat."""
    order = _order(shown, n_repeats, rng)
    repeat = np.repeat(np.arange(n_repeats), len(shown))
    return [
        _with_blanks(own, number, blank_share, rng)
        for own, number in zip(np.array_split(order, n_runs), np.array_split(repeat, n_runs), strict=True)
    ]


def _order(shown: Indices, n_repeats: int, rng: np.random.Generator) -> Indices:
    """All pictures, in another order for each repeat; none comes twice in a row."""
    orders = [rng.permutation(shown) for _ in range(n_repeats)]
    for one, other in pairwise(orders):
        if len(shown) > 1 and one[-1] == other[0]:
            place = rng.integers(1, len(shown))
            other[0], other[place] = other[place], other[0]
    return np.concatenate(orders)


def _with_blanks(pictures: Indices, repeat: Indices, share: float, rng: np.random.Generator) -> tuple[Indices, Indices]:
    n_blank = min(round(share / (1 - share) * len(pictures)), len(pictures) - 1)
    if n_blank < 1:
        return pictures, repeat
    places = np.sort(rng.choice(np.arange(1, len(pictures)), n_blank, replace=False))
    return np.insert(pictures, places, -1), np.insert(repeat, places, -1)


def _design(
    trials: list[list[tuple[Indices, Indices]]], types: Mapping[int, str], shown_s: float, gap_s: float, lead_s: float
) -> xr.Dataset:
    pictures = np.array([np.concatenate([own for own, _ in runs]) for runs in trials], np.int64)
    repeat = np.array([np.concatenate([own for _, own in runs]) for runs in trials], np.int64)
    lengths = [[len(own) for own, _ in runs] for runs in trials]
    within = np.array([np.concatenate([np.arange(n) for n in own]) for own in lengths])
    words = [[types.get(int(picture), BLANK) for picture in own] for own in pictures]
    each = ("subject", "trial")
    return xr.Dataset(
        {
            "onset": (each, lead_s + within * (shown_s + gap_s), {"units": "s"}),
            "duration": (each, np.full(pictures.shape, shown_s), {"units": "s"}),
            "run": (each, np.array([np.repeat(np.arange(1, len(own) + 1), own) for own in lengths])),
            "picture": (each, pictures),
            "repeat": (each, repeat),
            "trial_type": (each, np.array(words, object)),
        },
        {"subject": [f"{number:02d}" for number in range(1, len(trials) + 1)]},
    )


def _write_pictures(given: Any, files: Mapping[int, str], folder: Path) -> None:
    folder.mkdir(parents=True)
    for index, name in files.items():
        picture = np.moveaxis(read_stimuli(given, np.array([index]))[0], 0, -1)
        if picture.min() < 0 or picture.max() > 255:
            raise InvalidParameterError(
                f"Picture {index} has values from {picture.min()} to {picture.max()}; files hold 0 to 255."
            )
        pixels = picture.astype(np.uint8)
        image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        with replacing(folder / name) as file:
            image.save(file, format="PNG")


def _write_tables(
    design: xr.Dataset, files: Mapping[int, str], folder: Path, task: str, datatype: str, tail_s: float
) -> None:
    for subject in design["subject"].values:
        own = design.sel(subject=subject)
        place = folder / f"sub-{subject}" / datatype
        place.mkdir(parents=True)
        for run in np.unique(own["run"].values):
            part = own.isel(trial=own["run"].values == run)
            name = f"sub-{subject}_task-{task}_run-{run:02d}_events.tsv"
            _write(place / name, "\n".join(["\t".join(COLUMNS), *_lines(part, files)]))
    events: dict[str, Any] = {name: {"Description": text} for name, text in COLUMNS.items()}
    events["StimulusPresentation"] = _presentation(design, tail_s)
    _write(folder / f"task-{task}_events.json", json.dumps(events, indent=2))
    people = ["participant_id", *(f"sub-{subject}" for subject in design["subject"].values)]
    _write(folder / "participants.tsv", "\n".join(people))
    about = {"Name": f"BERG: {task}", "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    _write(folder / "dataset_description.json", json.dumps(about, indent=2))


def _presentation(design: xr.Dataset, tail_s: float) -> dict[str, Any]:
    last = (design["onset"] + design["duration"]).max()
    return {"SoftwareName": f"BERG {berg.__version__}", "SecondsOfARun": float(last) + tail_s}


def _lines(part: xr.Dataset, files: Mapping[int, str]) -> list[str]:
    lines = []
    for number in range(part.sizes["trial"]):
        one = part.isel(trial=number)
        picture, repeat = int(one["picture"]), int(one["repeat"])
        file, index, shown = (files[picture], picture, repeat) if picture >= 0 else ("n/a", "n/a", "n/a")
        cells = (
            f"{float(one['onset']):.10g}",
            f"{float(one['duration']):.10g}",
            one["trial_type"].item(),
            file,
            index,
            shown,
        )
        lines.append("\t".join(map(str, cells)))
    return lines


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(f"{text}\n".encode())
