"""fmri-nsd_fsaverage-huze at full size beside the bare DINOv2 ViT-L/14, random weights: processor time of one thread.

    python benchmarks/retina.py                     # rates, loading, memory; writes 5 GB, and 5 GB converted
    python benchmarks/retina.py --readout           # three orders of the readout of a whole cortex

All sides are in one process and take turns, batch by batch; of each the turn that took the least counts, so the
figures hold on a machine that others use too. The last column is the rate over that of timm's network, which computes
nothing but its blocks. Loading and peak memory are each of a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

MODEL = "fmri-nsd_fsaverage-huze"
N_HEMISPHERE, N_FIRST = 163_842, 20_000  # vertices of part 1 in each hemisphere
REGION = {"lh_vertices": list(range(3000, 4000)), "rh_vertices": list(range(3000, 4000))}
ACROSS = {"lh_vertices": list(range(19500, 20500)), "rh_vertices": list(range(19500, 20500))}
CASES = {"one region": REGION, "a region across the parts": ACROSS, "whole cortex": None}


def write_files(berg_dir: Path) -> None:
    """One subject at full size."""
    from published import retina

    first = np.concatenate([np.arange(N_FIRST), N_HEMISPHERE + np.arange(N_FIRST)])
    retina.write_retina(berg_dir, 1, first=first, sizes=retina.FULL)


def load(berg_dir: Path, case: str) -> Any:
    """The model with the selection of a case."""
    from berg import BERG

    return BERG(berg_dir).get_encoding_model(MODEL, device="cpu", subject=1, selection=CASES[case])


def bare() -> Callable[[Any], Any]:
    """timm's network with random weights."""
    import timm
    import torch

    network = timm.create_model("vit_large_patch14_dinov2", pretrained=False, img_size=224, num_classes=0).eval()

    def encode(pictures: Any) -> Any:
        with torch.no_grad():
            return network.forward_features(torch.from_numpy(pictures).float() / 255)

    return encode


def rates(berg_dir: Path, n_pictures: int, n_turns: int, cases: list[str]) -> None:
    """Processor time per picture of each side, in turns."""
    pictures = np.random.default_rng(0).integers(0, 256, (n_pictures, 3, 224, 224), dtype=np.uint8)
    sides: dict[str, Callable[[Any], Any]] = {"bare DINOv2": bare()}
    for case in cases:
        model = load(berg_dir, case)
        sides[case] = lambda given, model=model: model(given, batch_size=n_pictures, show_progress=False)
    least = dict.fromkeys(sides, np.inf)
    for _ in range(n_turns):
        for name, encode in sides.items():
            began = time.process_time()
            encode(pictures)
            least[name] = min(least[name], (time.process_time() - began) / n_pictures)
    for name, seconds in least.items():
        print(f"{name:28}{1000 * seconds:9.0f} ms{least['bare DINOv2'] / seconds:8.2f}", flush=True)


def in_a_process(berg_dir: Path, case: str) -> None:
    """Load the model, encode two pictures, and print how long loading took and the peak of the memory (Linux)."""
    import timm  # noqa: F401  # what is imported is not loading

    from berg.families.dinov2_retina import model as family  # noqa: F401

    began, wall = time.process_time(), time.perf_counter()
    model = load(berg_dir, case)
    loaded, waited = time.process_time() - began, time.perf_counter() - wall
    began = time.process_time()
    model(np.zeros((2, 3, 224, 224), np.uint8), show_progress=False)
    encoded = (time.process_time() - began) / 2
    peak, own = (memory(key) for key in ("VmHWM", "RssAnon"))
    print(
        f"{case:28}loaded in {loaded:5.1f} s of processor time, {waited:5.1f} s; {encoded:4.1f} s a picture; memory at "
        f"most {peak:5.1f} GB, mapped files included; then {own:5.1f} GB without",
        flush=True,
    )


def memory(key: str) -> float:
    """GB of this process, of its status in /proc: that of resource.getrusage is also of what started the process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1e6


def readout_orders(n_pictures: int) -> None:
    """The readout of a whole cortex: as it is, by a sparse matrix, and by grid_sample in blocks of vertices."""
    import torch
    from torch.nn import functional

    from berg.families.dinov2_retina.features import Glance
    from berg.families.dinov2_retina.readout import Looks, RetinaReadout, _cells, _shares

    n, width = 2 * N_HEMISPHERE, 256
    generator = torch.Generator().manual_seed(0)
    looks = Looks(
        torch.randn(n, 4, generator=generator).softmax(1), 0.99 * torch.randn(n, 2, generator=generator).tanh()
    )
    weight, bias = torch.randn(n, width, generator=generator), torch.zeros(n)
    glance = Glance(
        torch.randn(n_pictures, 4, 16, 16, width, generator=generator),
        torch.randn(n_pictures, 4, width, generator=generator),
    )
    readout = RetinaReadout(looks, weight, bias)
    cells, within = _cells(looks.places)
    corners = torch.tensor([0, 1, 18, 19])
    columns = cells[:, None, None] + corners + 324 * torch.arange(4)[:, None]
    shares = _shares(looks.layers, within).reshape(n, 4, 5)
    places = torch.stack([torch.arange(n).repeat_interleave(16), columns.flatten()])
    warnings.filterwarnings("ignore", message="Sparse")
    sparse = torch.sparse_coo_tensor(places, shares[..., :4].flatten(), (n, 4 * 324)).to_sparse_csr()

    def by_sparse() -> Any:
        maps = functional.pad(glance.maps, (0, 0, 1, 1, 1, 1)).reshape(n_pictures, 4 * 324, width)
        read = [
            ((sparse @ one + looks.layers @ vector) * weight).mean(1)
            for one, vector in zip(maps, glance.vectors, strict=True)
        ]
        return torch.stack(read)

    def by_grid_sample() -> Any:
        found = []
        for start in range(0, n, 8192):
            rows = slice(start, start + 8192)
            at = looks.places[None, rows, None].expand(n_pictures, -1, 1, 2)
            total = torch.zeros(n_pictures, at.shape[1], width)
            for layer in range(4):
                maps = glance.maps[:, layer].permute(0, 3, 1, 2)
                sampled = functional.grid_sample(maps, at, align_corners=False)[..., 0].transpose(1, 2)
                total += looks.layers[rows, layer, None] * (sampled + glance.vectors[:, layer, None])
            found.append((total * weight[rows]).mean(-1))
        return torch.cat(found, dim=1)

    orders = {
        "cells, one product each": lambda: readout(glance)[:, readout.places],
        "sparse matrix": by_sparse,
        "grid_sample in blocks": by_grid_sample,
    }
    expected = readout(glance)[:, readout.places]
    for name, order in orders.items():
        assert torch.allclose(order(), expected, atol=1e-4), name
        began = time.process_time()
        order()
        print(f"{name:28}{1000 * (time.process_time() - began) / n_pictures:9.1f} ms a picture", flush=True)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8, help="in a batch")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--cases", nargs="+", default=["one region"], choices=[*CASES])
    parser.add_argument("--folder", type=Path, help="where files are kept for the next time")
    parser.add_argument("--readout", action="store_true", help="only the orders of the readout")
    parser.add_argument("--process", metavar="CASE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    if given.readout:
        readout_orders(given.pictures)
    elif given.process:
        in_a_process(given.folder, given.process)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            measure(given.folder or Path(temporary), given)


def measure(berg_dir: Path, given: argparse.Namespace) -> None:
    """Loading before and after `berg convert`, then the rates."""
    from berg import BERG

    if not any(berg_dir.glob("encoding_models/*")):
        write_files(berg_dir)
        _loading(berg_dir, "published")
        began = time.process_time()
        BERG(berg_dir).convert(MODEL, subject=1)
        print(f"converted in {time.process_time() - began:.1f} s of processor time", flush=True)
    _loading(berg_dir, "converted")
    rates(berg_dir, given.pictures, given.turns, given.cases)


def _loading(berg_dir: Path, files: str) -> None:
    print(f"{files} files", flush=True)
    for case in ("one region", "whole cortex"):
        command = [sys.executable, __file__, "--folder", str(berg_dir), "--process", case]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
