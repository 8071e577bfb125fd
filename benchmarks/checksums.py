"""What checksums cost: rates with and without them, in turns, in one run.

    python benchmarks/checksums.py                  # in the folder for temporary files
    python benchmarks/checksums.py --folder /data   # on another disk
    python benchmarks/checksums.py --clock cpu      # seconds of the processor, on a machine that others use

Reading is from the memory of the system, where it is fastest and a checksum costs most. `before` is a store without
checksums, read by xarray as BERG read it before there were any.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

BUILT_IN = "fmri-szinte2024-prf_css"
BLOCK = 256


@contextmanager
def no_checksums() -> Iterator[None]:
    """Write stores as they were before there were checksums."""
    from berg.responses import store

    changed = {
        "CHECKSUMS": "none",
        "create_ledger": lambda *_: None,
        "_checked": lambda *codecs: codecs or None,
    }
    no_hash = mock.patch("berg.encoding.reading.fingerprints", lambda values: np.zeros(len(values), np.uint64))
    with mock.patch.multiple(store, **changed), no_hash:
        yield


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = time.perf_counter


def best(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The shortest time of each call; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = clock()
            call()
            times[name].append(clock() - began)
    return {name: min(taken) for name, taken in times.items()}


def told(what: str, amount: float, unit: str, times: dict[str, float]) -> None:
    """Print rates, and each over the first."""
    first = next(iter(times.values()))
    rates = ", ".join(f"{name} {amount / taken:,.2f} ({first / taken:.2f})" for name, taken in times.items())
    print(f"{what}, {unit}: {rates}", flush=True)


def reading(folder: Path, n_units: int, repeats: int, compression: Any) -> None:
    """All of a store, and one block after the other."""
    import xarray as xr

    from berg.responses.store import open_responses

    n_stimuli = BLOCK * max(4, min(64, 2**27 // (BLOCK * 4 * n_units)))
    with no_checksums():
        write(folder / "old.zarr", n_stimuli, n_units, compression)
    write(folder / "new.zarr", n_stimuli, n_units, compression)
    n_bytes = 4e-9 * n_stimuli * n_units
    ways = {
        "before": lambda: xr.open_zarr(folder / "old.zarr", chunks=None),
        "open_responses": lambda: open_responses(folder / "new.zarr"),
        "xarray alone": lambda: xr.open_zarr(folder / "new.zarr", chunks=None),
    }
    opened = {name: way()["responses"] for name, way in ways.items()}

    def whole(name: str) -> Any:
        return np.asarray(opened[name][:])  # a part of all, which xarray does not keep

    def blocks(name: str) -> None:
        for start in range(0, n_stimuli, BLOCK):
            np.asarray(opened[name][start : start + BLOCK])

    what = f"{n_units} units, {compression}"
    told(f"read whole, {what}", n_bytes, "GB/s", best({name: lambda n=name: whole(n) for name in ways}, repeats))
    told(f"read by blocks, {what}", n_bytes, "GB/s", best({name: lambda n=name: blocks(n) for name in ways}, repeats))
    told(f"open, {what}", 1, "per s", best(dict(list(ways.items())[:2]), repeats))


def write(path: Path, n_stimuli: int, n_units: int, compression: Any) -> None:
    """A store of noise."""
    from berg.responses.labelled import label_responses
    from berg.responses.store import ResponseStore

    labels = {"axes": ["stimulus", "voxel"], "unit": "a", "coordinates": {"voxel": ("voxel", np.arange(n_units))}}
    frame = np.broadcast_to(np.float32(np.nan), (n_stimuli, n_units))
    shutil.rmtree(path, ignore_errors=True)
    store = ResponseStore.create(
        path, {"": label_responses(frame, {"responses": {"responses": labels}})}, {"of": "noise"}, BLOCK, compression
    )
    values = np.random.default_rng(0).normal(size=(BLOCK, n_units)).astype("float32")
    for index in range(n_stimuli // BLOCK):
        store.write(index, [values], np.ones(BLOCK, np.uint8), np.ones((BLOCK, 2), np.uint64))


def writing(folder: Path, n_units: int, repeats: int) -> None:
    """Blocks to the disk, which is waited for."""
    n_stimuli = BLOCK * 16

    def without() -> None:
        with no_checksums():
            write(folder / "w.zarr", n_stimuli, n_units, "none")

    calls = {"without": without, "with": lambda: write(folder / "w.zarr", n_stimuli, n_units, "none")}
    told(f"write, {n_units} units", 16, "blocks/s", best(calls, repeats))


def encoding(folder: Path, repeats: int, n_pictures: int) -> None:
    """The built-in model, which is the fastest, so that what is added counts most."""
    from berg import BERG
    from berg.encoding.stream import encode_to_store

    model = BERG().get_encoding_model(BUILT_IN, "cpu")
    pictures = np.random.default_rng(0).integers(0, 256, (n_pictures, 3, 224, 224), dtype=np.uint8)

    def encode() -> None:
        encode_to_store(model, pictures, folder / "e.zarr", overwrite=True, show_progress=False)

    def without() -> None:
        shutil.rmtree(folder / "e.zarr", ignore_errors=True)
        with no_checksums():
            encode()

    model.generate_response(pictures[:32])
    told(f"encode, {BUILT_IN}", n_pictures, "pictures/s", best({"without": without, "with": encode}, repeats))
    again = best({"again": lambda: encode_to_store(model, pictures, folder / "e.zarr", show_progress=False)}, repeats)
    told("look at a complete store and some of its stimuli", n_pictures, "pictures/s", again)


def features(folder: Path, repeats: int, n_stimuli: int, n_features: int) -> None:
    """The file of the feature cache: written, and opened."""
    import torch

    from berg.fitting import feature_cache

    values = torch.from_numpy(np.random.default_rng(0).normal(size=(32, n_features)).astype("float32"))
    key = feature_cache.FeatureKey("s", "e", "n", "t", ("a",), "p", "c")

    class Given(torch.nn.Module):
        def forward(self, stimuli: torch.Tensor) -> list[torch.Tensor]:
            return [values[: len(stimuli)]]

    def compute() -> Any:
        read = lambda places: np.zeros((len(places), 1), np.uint8)  # noqa: E731
        return feature_cache.cached_features(
            Given(), key, read, n_stimuli, folder / "features", device=torch.device("cpu"), show_progress=False
        )

    def anew() -> None:
        shutil.rmtree(folder / "features", ignore_errors=True)
        compute()

    def without() -> None:
        nothing = SimpleNamespace(value=lambda *_: 0, extend=lambda *_: 0)
        with mock.patch.object(feature_cache, "google_crc32c", nothing):
            anew()

    n_bytes = 4e-9 * n_stimuli * n_features
    told("features written and opened", n_bytes, "GB/s", best({"without": without, "with": anew}, repeats))
    told("features opened, all compared", n_bytes, "GB/s", best({"with": compute}, repeats))


def hashing(repeats: int) -> None:
    """Fingerprints of stimuli."""
    from berg.encoding.encoded_stimuli import fingerprints

    pictures = np.random.default_rng(0).integers(0, 256, (64, 3, 224, 224), dtype=np.uint8)
    told("fingerprints of stimuli", len(pictures), "pictures/s", best({"": lambda: fingerprints(pictures)}, repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--units", type=int, nargs="*", default=[100, 2308, 8192])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--features", type=int, default=20_000)
    arguments = parser.parse_args()
    global clock
    clock = CLOCKS[arguments.clock]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for n_units in arguments.units:
            reading(folder, n_units, arguments.repeats, "none")
            writing(folder, n_units, min(3, arguments.repeats))
        for compression in ("zstd", "lz4"):
            reading(folder, arguments.units[-1], arguments.repeats, compression)
        hashing(arguments.repeats)
        features(folder, min(3, arguments.repeats), 4096, arguments.features)
        encoding(folder, min(3, arguments.repeats), arguments.pictures)


if __name__ == "__main__":
    main()
