"""Encoding speed: ours beside the published recipe, on the same files and pictures, in one run.

    python benchmarks/encode.py                     # all cases, 200 pictures
    python benchmarks/encode.py --case fwrf-V1 --pictures 200 --repeats 2

Files are written in the published layouts at full size, with random numbers. Every measurement is a process
of its own, so that its peak memory is its own; the two sides take turns, and the best of the repeats counts.
Each process encodes one batch before the clock starts. `bare` is the network alone, in the same precision.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

FSAVERAGE, EEG, FWRF = "fmri-nsd_fsaverage-vit_b_32", "eeg-things_eeg_2-vit_b_32", "fmri-nsd-fwrf"
ALEXNET = "eeg-things_eeg_2-alexnet"
CASES: dict[str, tuple[str, str | None]] = {
    "eeg": (EEG, None),
    "fsaverage-V1v": (FSAVERAGE, "V1v"),
    "fsaverage-whole": (FSAVERAGE, None),
    "alexnet-eeg": (ALEXNET, None),
    "fwrf-V1": (FWRF, "V1"),
    "fwrf-lateral": (FWRF, "lateral"),
}
OURS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
}
COMPILED = {f"{name} compiled": {**options, "compile": True} for name, options in OURS.items()}


def write_files(folder: Path, model_ids: set[str]) -> None:
    """These models at their published size; all of them take 4 GB."""
    from tests.published import layouts

    rng = np.random.default_rng(0)
    if model_ids & {FSAVERAGE, EEG}:
        layouts.write_backbone(folder / "torch", rng)
        statistics = layouts.random_statistics(rng, n_components=250)
        layouts.write_fsaverage(folder / "berg", 1, rng, statistics=statistics, n_components=250)
        layouts.write_eeg(folder / "berg", 1, rng, statistics=statistics, n_components=250)
    if ALEXNET in model_ids:
        layouts.write_alexnet(folder / "torch", rng)
        own = layouts.random_statistics(rng, n_components=250, n_features=205_672)
        layouts.write_eeg(folder / "berg", 1, rng, statistics=own, n_components=250, model_id=ALEXNET)
    if FWRF in model_ids:
        layouts.write_fwrf(folder / "berg", 1, "V1", rng, n_voxels=1350)
        layouts.write_fwrf(folder / "berg", 1, "lateral", rng, n_voxels=7799)


def measure(folder: Path, case: str, side: str, n_pictures: int, device: str) -> dict[str, float]:
    """Load and encode once; runs in a process of its own."""
    model_id, roi = CASES[case]
    pictures = np.random.default_rng(1).integers(0, 256, (n_pictures, 3, 224, 224), dtype=np.uint8)
    prepare(side)
    start = time.perf_counter()
    encode = load(folder, model_id, roi, side, device)
    loaded = time.perf_counter()
    peak_loaded = peak_gigabytes()
    encode(pictures[:32])
    began = time.perf_counter()
    encode(pictures)
    ended = time.perf_counter()
    return {
        "load": loaded - start,
        "rate": n_pictures / (ended - began),
        "peak": peak_gigabytes(),
        "loaded": peak_loaded,
    }


def peak_gigabytes() -> float:
    """The largest resident memory of this process so far (not that of the process that started it)."""
    status = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    return int(kilobytes) / 2**20


def prepare(side: str) -> None:
    """Import what the side needs, before the clock starts."""
    if side == "published":
        import benchmarks.published_recipe  # noqa: F401
    else:
        import berg.families.fwrf.model
        import berg.families.linearizing.model  # noqa: F401


def load(folder: Path, model_id: str, roi: str | None, side: str, device: str) -> Any:
    """A function from pictures to responses."""
    if side == "published":
        from benchmarks import published_recipe

        model = published_recipe.load(model_id, folder / "berg", 1, roi=roi, device=device)
        return lambda pictures: published_recipe.encode(model, pictures)
    if side.startswith("bare"):
        return bare_network(side.removeprefix("bare "), device)
    from berg import BERG

    berg = BERG(folder / "berg")
    options = {**OURS, **COMPILED}[side]
    selection = {"roi": roi} if roi else None
    loaded = berg.get_encoding_model(model_id, device=device, selection=selection, subject=1, **options)
    return lambda pictures: berg.encode(loaded, pictures)


def bare_network(precision: str, device: str) -> Any:
    """ViT-B/32 alone, on pictures that are ready for it."""
    import torch

    from berg.features.torchvision_network import read_network

    dtype = getattr(torch, precision)
    network = read_network("vit_b_32", "IMAGENET1K_V1")[0].to(device, dtype).eval()

    def forward(pictures: np.ndarray) -> None:
        with torch.inference_mode():
            for start in range(0, len(pictures), 32):
                batch = torch.from_numpy(pictures[start : start + 32]).to(device)
                network(batch.to(dtype) / 255)
            if device != "cpu":
                torch.cuda.synchronize()

    return forward


def run(folder: Path, case: str, side: str, arguments: argparse.Namespace) -> dict[str, float]:
    """One measurement, in a process of its own."""
    command = [
        sys.executable, __file__, "--measure", case, side, "--files", str(folder),
        "--pictures", str(arguments.pictures), "--device", arguments.device,
    ]  # fmt: skip
    environment = {**os.environ, "TORCH_HOME": str(folder / "torch")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def compare(folder: Path, case: str, arguments: argparse.Namespace) -> None:
    """Print one case: both sides, and their ratio."""
    bare = [f"bare {name}" for name in OURS]
    others = {FWRF: [*COMPILED], ALEXNET: []}.get(CASES[case][0], bare)
    sides = ["published", *OURS, *others]
    sides = [side for side in sides if arguments.sides is None or side in arguments.sides]
    found: dict[str, dict[str, float]] = {}
    for _ in range(arguments.repeats):
        for side in sides:
            found[side] = best(found.get(side), run(folder, case, side, arguments))
    published = found.get("published")
    print(f"\n{case}, {arguments.pictures} pictures, {arguments.device}")
    print(f"{'':20} {'images/s':>9} {'ratio':>7} {'load s':>8} {'ratio':>7} {'GB then':>8} {'peak GB':>8}")
    for side, values in found.items():
        ratios = (values["rate"] / published["rate"], published["load"] / values["load"]) if published else (0, 0)
        print(
            f"{side:20} {values['rate']:9.1f} {ratios[0]:7.2f} {values['load']:8.2f} {ratios[1]:7.1f} "
            f"{values['loaded']:8.2f} {values['peak']:8.2f}",
            flush=True,
        )


def best(one: dict[str, float] | None, other: dict[str, float]) -> dict[str, float]:
    """The better of two measurements, figure by figure."""
    if one is None:
        return other
    better = {"load": min, "rate": max, "peak": max, "loaded": max}
    return {name: choose(one[name], other[name]) for name, choose in better.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--sides", nargs="*")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--files", type=Path, help="folder with the files of an earlier run")
    parser.add_argument("--convert", action="store_true", help="load converted weights (berg convert)")
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.files, *arguments.measure, arguments.pictures, arguments.device)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.files or Path(temporary)
        if not (folder / "berg").exists():
            write_files(folder, {CASES[case][0] for case in arguments.case or CASES})
        if arguments.convert:
            convert(folder, arguments.case or list(CASES))
        for case in arguments.case or CASES:
            compare(folder, case, arguments)


def convert(folder: Path, cases: list[str]) -> None:
    """Make the converted files, as users do once."""
    from berg import BERG

    berg = BERG(folder / "berg")
    for model_id, roi in (CASES[case] for case in cases):
        selection = {"roi": roi} if model_id == FWRF else None
        berg.convert(model_id, subject=1, selection=selection)


if __name__ == "__main__":
    main()
