"""Eight NSD subjects on one network: one pass with all of them beside eight passes, in one run.

    python benchmarks/shared.py --files FOLDER            # a folder that benchmarks/encode.py filled
    python benchmarks/shared.py --files FOLDER --store    # the same into zarr stores: one beside eight

The files of subject 1 stand in for those of the other subjects: speed does not depend on the numbers in them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "fmri-nsd_fsaverage-vit_b_32"
SUBJECTS = range(1, 9)


def eight_subjects(files: Path, folder: Path) -> Path:
    """A BERG directory in which all subjects have the files of the first."""
    model = Path("encoding_models", "modality-fmri", "train_dataset-nsd_fsaverage", "model-vit_b_32")
    for path in (files / model).rglob("*_subject-01.*"):
        target = folder / model / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        for subject in SUBJECTS:
            (target / path.name.replace("-01", f"-{subject:02d}")).symlink_to(path.resolve())
    return folder


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """How long a call takes, and what it returns."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def in_memory(berg: Any, models: Sequence[Any], pictures: np.ndarray) -> tuple[float, float]:
    """Eight passes, and one; the responses are the same."""
    alone, each = seconds(lambda: [berg.encode(model, pictures) for model in models])
    together, at_once = seconds(lambda: berg.encode(list(models), pictures))
    for one, other in zip(each, at_once, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    return alone, together


def to_stores(models: Sequence[Any], pictures: np.ndarray, folder: Path) -> tuple[float, float]:
    """Eight passes into eight stores, and one into one; the responses are the same."""
    from berg.encoding.stream import encode_to_store

    named = {f"subject-{subject}": model for subject, model in zip(SUBJECTS, models, strict=True)}
    alone, each = seconds(
        lambda: [encode_to_store(model, pictures, folder / f"{name}.zarr") for name, model in named.items()]
    )
    together, at_once = seconds(lambda: encode_to_store(named, pictures, folder / "all.zarr"))
    for name, one in zip(named, each, strict=True):
        np.testing.assert_array_equal(one["lh"]["lh"].values, at_once[name]["lh"]["lh"].values)
    shutil.rmtree(folder)
    return alone, together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--roi", default="V1v")
    parser.add_argument("--store", action="store_true", help="into zarr stores")
    arguments = parser.parse_args()
    os.environ["TORCH_HOME"] = str(arguments.files / "torch")
    from berg import BERG

    pictures = np.random.default_rng(0).integers(0, 256, (arguments.pictures, 3, 224, 224), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        berg = BERG(eight_subjects(arguments.files / "berg", Path(folder)))
        options = {"selection": {"roi": arguments.roi}, "precision": arguments.precision}
        models = [berg.get_encoding_model(MODEL, "cpu", subject=subject, **options) for subject in SUBJECTS]
        berg.encode(models, pictures[:32])
        turns = []
        for repeat in range(arguments.repeats):
            stores = Path(folder, f"stores-{repeat}")
            if arguments.store:
                stores.mkdir()
            turns.append(to_stores(models, pictures, stores) if arguments.store else in_memory(berg, models, pictures))
    alone, together = (min(times) for times in zip(*turns, strict=True))
    print(f"{len(models)} subjects, {arguments.pictures} pictures, {arguments.precision}, {arguments.roi}")
    print(f"one after another {alone:.1f} s, in one pass {together:.1f} s, ratio {alone / together:.2f}")


if __name__ == "__main__":
    main()
