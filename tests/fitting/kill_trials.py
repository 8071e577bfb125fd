"""Fits that are killed at each of their file operations, and called again.

``python kill_trials.py FOLDER FAMILY [FROM_THE_END]`` prints one line of JSON. Every trial is a process of its own,
forked from one that has imported everything; it ends, as by SIGKILL, when it is about to open a file for writing, or
to make, rename or remove one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

KILLED = 137
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


class Counter:
    """Counts the file operations below a folder; ends the process at one of them."""

    def __init__(self, folder: Path, kill_at: int = 0) -> None:
        self.folder, self.kill_at, self.n = str(folder), kill_at, 0
        sys.addaudithook(self)

    def __call__(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            is_counted = isinstance(given[2], int) and given[2] & _WRITES and self.is_below(given[0])
        else:
            is_in_open_folder = isinstance(given[-1], int) and given[-1] > 2  # as shutil.rmtree gives it
            is_counted = event in _CHANGES and (self.is_below(given[0]) or is_in_open_folder)
        if is_counted:
            self.n += 1
            if self.n == self.kill_at:
                os._exit(KILLED)

    def is_below(self, path: Any) -> bool:
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self.folder)


def in_a_process(work: Callable[[], int]) -> tuple[int, str]:
    """The exit status of a forked process, and what it gave back: a number, or a traceback."""
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(write, str(work()).encode())
            os._exit(0)
        except BaseException:
            os.write(write, traceback.format_exc()[-3000:].encode())
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def contents(folder: Path) -> dict[str, str]:
    """Hashes of the model's files that are the same after each fit, and the names of all."""
    found = {str(path.relative_to(folder)): "" for path in folder.rglob("*") if path.is_file()}
    for name in found:
        if name.endswith((".safetensors", ".json")):
            found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return found


def trials(fit: Callable[[Path], Any], folder: Path, from_the_end: int | None) -> dict[str, Any]:
    """Kill and call again at each operation, or at the last ones."""

    def counted(where: Path, kill_at: int) -> int:
        counter = Counter(where, kill_at)
        fit(where)
        return counter.n

    reference = folder / "reference"
    status, said = in_a_process(lambda: counted(reference, 0))
    if status:
        raise RuntimeError(said)
    n, failures = int(said), []
    for kill_at in range(1 if from_the_end is None else max(1, n - from_the_end + 1), n + 1):
        where = folder / f"killed_at_{kill_at}"
        first, _ = in_a_process(lambda where=where, kill_at=kill_at: counted(where, kill_at))
        again, said = in_a_process(lambda where=where: counted(where, 0))
        if first != KILLED or again:
            failures.append([kill_at, first, again, said])
        elif (own := contents(where / "berg")) != (expected := contents(reference / "berg")):
            failures.append([kill_at, sorted(set(own.items()) ^ set(expected.items()))])
        shutil.rmtree(where)
    return {"n_operations": n, "failures": failures}


# What is fitted


def pixels(folder: Path, subjects: list[int]) -> Callable[[Path], Any]:
    """Least squares on pixels, of one subject or of several in a row."""
    from test_fit import CARD

    from berg.datasets.dataset import EncodingDataset
    from berg.fitting.fit import fit_model, fit_subjects

    path = folder / "fmri-pixels-ols.yaml"
    path.write_text(yaml.safe_dump(CARD, sort_keys=False))
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (100, 3, 8, 8), np.uint8)
    coordinates = {name: ("voxel", ["V1"] * 6) for name in ("roi", "rois")}
    data = EncodingDataset.from_arrays(
        pictures, rng.normal(size=(100, 6)), axes=("voxel",), unit="z", coordinates=coordinates
    )

    def fit(where: Path) -> Any:
        given: dict[str, Any] = {"bootstrap": 0, "cache": where / "cache", "device": "cpu", "show_progress": False}
        if len(subjects) == 1:
            return fit_model(path, data, where / "berg", subject=subjects[0], **given)
        return fit_subjects(path, dict.fromkeys(subjects, data), where / "berg", **given)

    return fit


def linearizing(folder: Path) -> Callable[[Path], Any]:
    """Ridge on the layers of a network with random weights."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from families.linearizing.test_fit import NETWORK, SPLITS, WEIGHTS, N, card
    from torchvision.models import get_model, get_model_weights

    from berg.datasets.dataset import EncodingDataset
    from berg.fitting.fit import fit_model

    torch.set_num_threads(1)
    checkpoints = folder / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(
        get_model(NETWORK).state_dict(), checkpoints / get_model_weights(NETWORK)[WEIGHTS].url.rpartition("/")[2]
    )
    os.environ["TORCH_HOME"] = str(folder / "torch")
    rng = np.random.default_rng(0)
    own_card = card(folder, ["standardize", {"pca": 8}, {"ridge": {"alphas": [1e3, 1e4, 1e5], "folds": 3}}], ["lh"])
    data = EncodingDataset.from_arrays(
        rng.integers(0, 256, (N, 3, 32, 32), np.uint8),
        {"lh": rng.normal(size=(N, 30)).astype(np.float32)},
        axes=("vertex",),
        unit="z",
        splits=SPLITS,
        coordinates={"lh": {"lh_vertices": ("vertex", np.arange(30)), "vertex": ("vertex", np.arange(30))}},
    )

    def fit(where: Path) -> Any:
        given: dict[str, Any] = {"bootstrap": 0, "cache": where / "cache", "device": "cpu", "show_progress": False}
        return fit_model(own_card, data, where / "berg", subject=1, **given)

    return fit


def main(folder: Path, family: str, from_the_end: int | None = None) -> None:
    warnings.simplefilter("ignore")
    made = {
        "pixels": lambda: pixels(folder, [1]),
        "two subjects": lambda: pixels(folder, [1, 2]),
        "linearizing": lambda: linearizing(folder),
    }
    print(json.dumps(trials(made[family](), folder, from_the_end)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
