"""One GPU: ours at its default settings beside the published recipe and the bare network, in one run.

    python benchmarks/gpu.py                          # all rows, 4,096 pictures, at most five minutes
    python benchmarks/gpu.py --row "fsaverage V1v" --pictures 1024
    python benchmarks/gpu.py --device cpu --pictures 64 --row "fwRF V1"   # a trial of the script without a GPU

Files in the published layouts at full size hold random numbers. Pictures of 224 x 224 lie in host memory, and
responses come into host memory. Nothing is set but the precision. The first call of each side (libraries choose
kernels, the batch size is found, code is compiled) is timed by itself, as `first`; the rate is the better of two
further calls.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.encode import EEG, FSAVERAGE, FWRF, write_files

BUILT_IN = "fmri-szinte2024-prf_css"
PUBLISHED_SHARE = 8  # the published recipe encodes one picture in eight
Encode = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    model_id: str
    roi: str | None
    options: dict[str, Any] = field(default_factory=dict)
    bare: str | None = "float16"  # precision of the bare network beside it
    published: bool = True


ROWS = {
    "fsaverage V1v, float16": Row(FSAVERAGE, "V1v", {"precision": "float16"}),
    "EEG, float16": Row(EEG, None, {"precision": "float16"}),
    "whole cortex, float16": Row(FSAVERAGE, None, {"precision": "float16"}),
    "fsaverage V1v, tf32": Row(FSAVERAGE, "V1v", {"precision": "tf32"}, "tf32", published=False),
    "fsaverage V1v, float32": Row(FSAVERAGE, "V1v", {"precision": "float32"}, "float32", published=False),
    "fwRF V1, float16": Row(FWRF, "V1", {"precision": "float16"}, None),
    "fwRF V1, float16, compiled": Row(FWRF, "V1", {"precision": "float16", "compile": True}, None, published=False),
    "fwRF lateral, float16": Row(FWRF, "lateral", {"precision": "float16"}, None),
    "fwRF lateral, float16, compiled": Row(
        FWRF, "lateral", {"precision": "float16", "compile": True}, None, published=False
    ),
    "built-in V1": Row(BUILT_IN, None, {}, None, published=False),
}


def ours(folder: Path, row: Row, device: str) -> Encode:
    """Our side."""
    from berg import BERG

    berg = BERG(folder / "berg")
    selection = {"roi": row.roi} if row.roi else None
    subject = {} if row.model_id == BUILT_IN else {"subject": 1}
    model = berg.get_encoding_model(row.model_id, device=device, selection=selection, **subject, **row.options)
    return lambda pictures: berg.encode(model, pictures)


def published(folder: Path, row: Row, device: str) -> Encode:
    """The published recipe, written anew."""
    from benchmarks import published_recipe

    model = published_recipe.load(row.model_id, folder / "berg", 1, roi=row.roi, device=device)
    return lambda pictures: published_recipe.encode(model, pictures)


def bare(precision: str, device: str) -> Callable[[int], float]:
    """Pictures per second of ViT-B/32 alone at a batch size, on pictures that lie on the device, ready for it."""
    import torch

    from berg.features.precision import arithmetic, dtype_of
    from berg.features.torchvision_network import read_network

    network = read_network("vit_b_32", "IMAGENET1K_V1")[0].to(device, dtype_of(precision)).eval()

    def rate(size: int) -> float:
        pictures = torch.rand(size, 3, 224, 224, device=device, dtype=dtype_of(precision))
        n_times = max(2, 2048 // size) if device != "cpu" else 1
        with torch.inference_mode(), arithmetic(precision, torch.device(device)):
            network(pictures)
            wait(device)
            began = time.perf_counter()
            for _ in range(n_times):
                network(pictures)
            wait(device)
        return n_times * size / (time.perf_counter() - began)

    return rate


def wait(device: str) -> None:
    """Until the GPU has done all that it was given."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def measure(encode: Encode, pictures: np.ndarray, device: str) -> tuple[float, float]:
    """Seconds of the first call, and pictures per second of the better of two further ones."""
    seconds = []
    for _ in range(3):
        wait(device)
        began = time.perf_counter()
        encode(pictures)
        wait(device)
        seconds.append(time.perf_counter() - began)
    return seconds[0], len(pictures) / min(seconds[1:])


def free() -> None:
    """Give back what the last side held."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", help="a row, or how its name begins")
    parser.add_argument("--pictures", type=int, default=4096)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--files", type=Path, help="folder with the files of an earlier run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        table(arguments, arguments.files or Path(temporary))


def table(arguments: argparse.Namespace, folder: Path) -> None:
    """Print the rows, each when it is measured."""
    import os

    import torch

    os.environ["TORCH_HOME"] = str(folder / "torch")
    if not (folder / "berg").exists():
        write_files(folder)
    name = torch.cuda.get_device_name() if arguments.device != "cpu" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}, {arguments.pictures:,} pictures a row; pictures/s")
    print(f"{'':34} {'first s':>8} {'ours':>9} {'published':>10} {'ratio':>7} {'bare':>9} {'share':>6}")
    pictures = np.random.default_rng(1).integers(0, 256, (arguments.pictures, 3, 224, 224), dtype=np.uint8)
    for title, row in ROWS.items():
        if not arguments.row or any(title.startswith(start) for start in arguments.row):
            print(line(title, row, folder, pictures, arguments.device), flush=True)


def line(title: str, row: Row, folder: Path, pictures: np.ndarray, device: str) -> str:
    """One row of the table."""
    first, rate = measure(ours(folder, row, device), pictures, device)
    free()
    text = f"{title:34} {first:8.2f} {rate:9.0f}"
    theirs = None
    if row.published:
        some = pictures[: max(1, len(pictures) // PUBLISHED_SHARE)]
        _, theirs = measure(published(folder, row, device), some, device)
        free()
    text += f" {theirs:10.0f} {rate / theirs:7.1f}" if theirs else f" {'':10} {'':7}"
    if row.bare is None:
        return text
    at_size = bare(row.bare, device)
    best = max(at_size(size) for size in (256, 512, 1024) if size <= len(pictures) or size == 256)
    free()
    return f"{text} {best:9.0f} {rate / best:6.2f}"


if __name__ == "__main__":
    main()
