"""Processor time of the further published models beside a sister on the same network, and of AlexNet beside the
published recipe.

    python benchmarks/sisters.py                              # all pairs, batches of 32 pictures
    python benchmarks/sisters.py --pair recipe-fsaverage --pictures 100 --threads 2

Files are written in the published layouts at full size, with random numbers. Both sides of a pair are loaded into one
process and take turns, batch by batch; of processor time and of elapsed time the turn counts that took the least. So
the figures of one thread hold on a machine that others use too; on several threads only the elapsed time tells what a
user waits, as threads that wait for each other use the processor too. `ratio` is the rate of the first side over that
of the second.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

NSD, EEG = "fmri-nsd_fsaverage-vit_b_32", "eeg-things_eeg_2-vit_b_32"
MEG, THINGS, TVSD = "meg-things_meg_1-vit_b_32", "fmri-things_fmri_1-vit_b_32", "utah_array-tvsd-vit_b_32"
NSD_ALEXNET, EEG_ALEXNET = "fmri-nsd_fsaverage-alexnet", "eeg-things_eeg_2-alexnet"
RECIPE = "published recipe"
PAIRS = {
    "meg": (MEG, EEG),
    "things": (THINGS, NSD),
    "tvsd": (TVSD, NSD),
    "alexnet-eeg": (EEG_ALEXNET, f"{EEG_ALEXNET}_untrained"),
    "alexnet-fsaverage": (NSD_ALEXNET, f"{NSD_ALEXNET}_untrained"),
    "recipe-eeg": (EEG_ALEXNET, RECIPE),
    "recipe-fsaverage": (NSD_ALEXNET, RECIPE),
}
Encode = Callable[[Any], Any]


def write_files(folder: Path, model_ids: set[str]) -> None:
    """These models at their published size."""
    from tests.published import layouts

    rng, berg_dir = np.random.default_rng(0), folder / "berg"
    of_vit = {NSD, EEG, MEG, THINGS, TVSD} & model_ids
    of_alexnet = model_ids - of_vit - {RECIPE}
    if of_vit:
        layouts.write_backbone(folder / "torch", rng)
        write_on_vit(berg_dir, of_vit, rng)
    if of_alexnet:
        layouts.write_alexnet(folder / "torch", rng)
        drawn = layouts.random_statistics(rng, n_components=250, n_features=205_672)
        for model_id in of_alexnet:
            write = layouts.write_eeg if model_id.startswith("eeg") else layouts.write_fsaverage
            write(berg_dir, 1, rng, statistics=drawn, n_components=250, model_id=model_id)


def write_on_vit(berg_dir: Path, model_ids: set[str], rng: np.random.Generator) -> None:
    """The models on ViT-B/32, with one scaler and one PCA."""
    from tests.published import layouts

    drawn = layouts.random_statistics(rng, n_components=250)
    if NSD in model_ids:
        layouts.write_fsaverage(berg_dir, 1, rng, statistics=drawn, n_components=250)
    if EEG in model_ids:
        layouts.write_eeg(berg_dir, 1, rng, statistics=drawn, n_components=250)
    sizes = {  # the 76,151 places of MEG are 16 x 4,760 here, as the layouts have 16 sensors
        MEG: ("metadata_P1", "weights_P1_all_training_splits", 76_160, layouts.meg_metadata(rng, 1, 4760)),
        THINGS: ("metadata_sub-01", "weights_sub-01", 211_339, things_metadata(rng)),
        TVSD: (
            "metadata_monkeyN", "weights_monkeyN_all_training_splits", 307_200,
            layouts.tvsd_metadata(rng, "N", 1024, 300, "utah_array", True),
        ),
    }  # fmt: skip
    for model_id in model_ids & set(sizes):
        metadata, weights, n_targets, content = sizes[model_id]
        folder = layouts.model_folder(berg_dir, model_id)
        layouts.write_pickled_npy(folder / "metadata" / f"{metadata}.npy", content)
        linear = layouts.linear_weights(rng, drawn, n_targets)
        layouts.write_pickled_npy(folder / "encoding_models_weights" / f"{weights}.npy", linear)


def things_metadata(rng: np.random.Generator) -> dict[str, Any]:
    """Of 211,339 voxels, of whose metadata only the number and the places matter here."""
    n_voxels = 211_339
    return {
        "fmri": {"voxel_coords": np.zeros((n_voxels, 3), int), "n_voxels": n_voxels, "subject_id": "sub-01"},
        "encoding_model": {"correlation_results": rng.uniform(-0.1, 0.9, n_voxels)},
        "prf": {},
        "roi": {},
    }


def load(folder: Path, model_id: str, beside: str) -> Encode:
    """A function from pictures to responses."""
    if model_id == RECIPE:
        from benchmarks import published_recipe

        recipe = published_recipe.load(beside, folder / "berg", 1)
        return lambda pictures: published_recipe.encode(recipe, pictures)
    from berg import BERG

    berg = BERG(folder / "berg")
    model = berg.get_encoding_model(model_id, device="cpu", subject="N" if model_id == TVSD else 1)
    return lambda pictures: berg.encode(model, pictures, show_progress=False)


def measure(sides: list[Encode], pictures: Any, turns: int) -> np.ndarray:
    """Milliseconds of processor time and of elapsed time per picture, of each side: the least of its turns."""
    found = np.empty((turns + 1, len(sides), 2))
    for turn in range(turns + 1):
        for number, encode in enumerate(sides):
            processor, clock = time.process_time(), time.perf_counter()
            encode(pictures)
            found[turn, number] = time.process_time() - processor, time.perf_counter() - clock
    least: np.ndarray = 1000 * found[1:].min(0) / len(pictures)  # the first turn is not counted
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=PAIRS, action="append")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--files", type=Path, help="folder with the files of an earlier run")
    arguments = parser.parse_args()
    pairs = {name: PAIRS[name] for name in arguments.pair or PAIRS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.files or Path(temporary)
        os.environ["TORCH_HOME"] = str(folder / "torch")
        if not (folder / "berg").exists():
            write_files(folder, {model_id for pair in pairs.values() for model_id in pair})
        import torch

        torch.set_num_threads(arguments.threads)
        pictures = np.random.default_rng(1).integers(0, 256, (arguments.pictures, 3, 224, 224), dtype=np.uint8)
        print(f"{'ms per picture, threads: ' + str(arguments.threads):34} {'':34} {'processor':>21} {'elapsed':>21}")
        print(f"{'':34} {'beside':34} {'':7} {'':6} {'ratio':>6} {'':7} {'':6} {'ratio':>6}")
        for one, other in pairs.values():
            times = measure([load(folder, one, other), load(folder, other, one)], pictures, arguments.turns)
            columns = [f"{own:7.1f} {others:6.1f} {others / own:6.2f}" for own, others in times.T]
            print(f"{one:34} {other:34} {columns[0]} {columns[1]}", flush=True)


if __name__ == "__main__":
    main()
