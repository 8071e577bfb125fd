"""Encoding by the workers of a cluster beside `encode_to_store` in one process: overhead per task, two workers on one.

    python benchmarks/cluster.py                                      # the built-in model
    python benchmarks/cluster.py --files FOLDER --case fwrf-V1        # a folder that benchmarks/encode.py filled

All sides compute with the same number of threads each and take turns; the best of the repeats counts. Each encodes a
small and a large number of pictures: what grows with the number is the rate, what does not is what a run costs once
(loading the model in each worker, checking, the labels of the store).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

Side = tuple[Callable[[Path], None], Any]  # what encodes a file, and the client of the workers that do it, if any
BUILT_IN = "fmri-szinte2024-prf_css"


def recipe(arguments: argparse.Namespace) -> Any:
    """The model of the case, not loaded yet."""
    from berg.encoding.cluster import ModelRecipe

    if arguments.case is None:
        return ModelRecipe(BUILT_IN, arguments.device)
    from benchmarks.encode import CASES

    os.environ["TORCH_HOME"] = str(arguments.files / "torch")
    model_id, roi = CASES[arguments.case]
    berg_dir = (arguments.files / "berg").absolute()
    return ModelRecipe(model_id, arguments.device, {"roi": roi} if roi else None, {"subject": 1}, berg_dir)


def pictures(folder: Path, count: int, size: int) -> Path:
    """A .npy file of random pictures."""
    path = folder / f"{count}.npy"
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 3, size, size))
    for start in range(0, count, 256):
        array[start : start + 256] = np.random.default_rng(start).integers(0, 256, array[start : start + 256].shape)
    return path


def in_one_process(model: Any, store: Path, threads: int, path: Path) -> None:
    """`encode_to_store`, and the loading of the model, which the workers do too."""
    import torch

    from berg.encoding.stream import encode_to_store

    torch.set_num_threads(threads)
    encode_to_store(model(), np.load(path, mmap_mode="r"), store, overwrite=True, show_progress=False)


def on_cluster(client: Any, model: Any, store: Path, threads: int, path: Path) -> None:
    from berg.encoding.cluster import encode_on_cluster

    encode_on_cluster(model, path, store, client, overwrite=True, threads=threads, show_progress=False)


@dataclass(frozen=True)
class Seconds:
    """On the clock, and of the processor: in this process, and in the workers."""

    clock: float
    here: float
    workers: float


def seconds(side: Side, path: Path) -> Seconds:
    """How long it takes to encode a file."""
    call, client = side

    def workers() -> float:
        return sum(client.run(time.process_time).values()) if client else 0.0

    began, here, there = time.perf_counter(), time.process_time(), workers()
    call(path)
    return Seconds(time.perf_counter() - began, time.process_time() - here, workers() - there)


def measure(sides: dict[str, Side], files: list[Path], repeats: int) -> dict[str, list[Seconds]]:
    """For each side and file, the repeat that was the shortest on the clock."""
    for side in sides.values():
        seconds(side, files[0])
    rounds = [{name: [seconds(side, file) for file in files] for name, side in sides.items()} for _ in range(repeats)]
    return {
        name: [
            min((each[name][place] for each in rounds), key=lambda found: found.clock) for place in range(len(files))
        ]
        for name in sides
    }


def report(found: dict[str, list[Seconds]], counts: list[int], tasks: list[int]) -> None:
    """Print the rates, the ratios and the overheads."""
    n_pictures, n_blocks = counts[1] - counts[0], tasks[1] - tasks[0]
    print(f"{counts[0]} and {counts[1]} pictures, {tasks[0]} and {tasks[1]} blocks; per block, in ms:")
    print(f"{'':24} {'pictures/s':>11} {'clock':>9} {'processor':>10} {'of it in the driver':>20} {'once, s':>9}")
    clock, processor = [], []
    for name, (small, large) in found.items():
        clock.append((large.clock - small.clock) / n_blocks)
        here = (large.here - small.here) / n_blocks
        processor.append(here + (large.workers - small.workers) / n_blocks)
        once, rate = small.clock - clock[-1] * tasks[0], n_pictures / (large.clock - small.clock)
        ms = f"{1000 * clock[-1]:9.1f} {1000 * processor[-1]:10.1f} {1000 * here:20.1f}"
        print(f"{name:24} {rate:11.1f} {ms} {once:9.2f}")
    print(f"speed of one worker beside one process: {clock[0] / clock[1]:.3f}")
    print(f"speed of two workers beside one worker: {clock[1] / clock[2]:.2f}")
    print(f"overhead per block on the clock: {1000 * (clock[1] - clock[0]):.1f} ms")
    print(f"overhead per block of the processor: {1000 * (processor[1] - processor[0]):.1f} ms")


def driver_alone(client: Any, n_tasks: int = 500) -> None:
    """Print what the driver takes for nothing: for each task, and while it waits."""
    from distributed import as_completed

    began, computed = time.perf_counter(), time.process_time()
    done = as_completed([client.submit(int, n, pure=False) for n in range(2)], loop=client.loop)
    for number, _ in enumerate(done):
        if number < n_tasks - 2:
            done.add(client.submit(int, number, pure=False))
    clock, here = ((time.perf_counter() - began) / n_tasks, (time.process_time() - computed) / n_tasks)
    print(f"a task that does nothing, two at a time: {1000 * clock:.1f} ms, {1000 * here:.1f} ms of the driver")
    computed = time.process_time()
    time.sleep(5)
    print(f"the driver while it waits: {(time.process_time() - computed) / 5:.1%} of a core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path)
    parser.add_argument("--case")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--counts", type=int, nargs=2, default=[1024, 5120], help="numbers of pictures")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    from berg.encoding.dask_scheduler import connected
    from berg.responses.store import read_identity

    model = recipe(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [pictures(folder, count, arguments.size) for count in arguments.counts]
        began = time.perf_counter()
        with connected("local:1") as one, connected("local:2") as two:
            print(f"{model.model_id}, pictures of {arguments.size} pixels, {arguments.threads} thread(s) each")
            print(f"three workers started in {time.perf_counter() - began:.1f} s")
            driver_alone(one)
            rest = (model, folder / "r.zarr", arguments.threads)
            sides: dict[str, Side] = {
                "one process": (partial(in_one_process, *rest), None),
                "cluster of one worker": (partial(on_cluster, one, *rest), one),
                "cluster of two workers": (partial(on_cluster, two, *rest), two),
            }
            found = measure(sides, files, arguments.repeats)
        block = read_identity(folder / "r.zarr")["block_size"]
        report(found, arguments.counts, [-(-count // block) for count in arguments.counts])


if __name__ == "__main__":
    main()
