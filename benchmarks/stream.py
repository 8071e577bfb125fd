"""Encoding to a store beside encoding into memory, in one process; and peak memory at two numbers of pictures.

    python benchmarks/stream.py                                      # the built-in model
    python benchmarks/stream.py --files FOLDER --case fwrf-V1        # a folder that benchmarks/encode.py filled

The two sides take turns, and the best of the repeats counts. `pictures` reads the pictures from .jpg files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

BUILT_IN = "fmri-szinte2024-prf_css"

PEAK = """
import sys
import numpy as np
from berg import BERG
from berg.encoding.stream import encode_to_store

model = BERG().get_encoding_model("fmri-szinte2024-prf_css", "cpu")
encode_to_store(model, np.load(sys.argv[1], mmap_mode="r")[: int(sys.argv[3])], sys.argv[2], show_progress=False)
print(next(line.split()[1] for line in open("/proc/self/status").read().splitlines() if line.startswith("VmHWM")))
"""


def load(arguments: argparse.Namespace) -> Any:
    """The model of the case."""
    from berg import BERG

    if arguments.case is None:
        return BERG().get_encoding_model(BUILT_IN, arguments.device)
    from benchmarks.encode import CASES

    os.environ["TORCH_HOME"] = str(arguments.files / "torch")
    model_id, roi = CASES[arguments.case]
    selection = {"roi": roi} if roi else None
    return BERG(arguments.files / "berg").get_encoding_model(model_id, arguments.device, selection, subject=1)


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Print the rate of both sides."""
    from berg.encoding.stream import encode_to_store

    model = load(arguments)
    shape = (arguments.pictures, 3, arguments.size, arguments.size)
    stimuli: Any = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if arguments.jpg:
        stimuli = write_files(folder / "pictures", stimuli)
    model.generate_response(stimuli[:32])
    bare, stored = [], []
    for _ in range(arguments.repeats):
        stored.append(seconds(lambda: encode_to_store(model, stimuli, folder / "r.zarr", overwrite=True)))
        bare.append(seconds(lambda: model.generate_response(stimuli)))
    print(f"{model.get_model_id()}, {arguments.pictures} pictures of {arguments.size} pixels")
    rates = arguments.pictures / min(bare), arguments.pictures / min(stored)
    print(f"into memory {rates[0]:.1f}/s, to the store {rates[1]:.1f}/s, ratio {rates[1] / rates[0]:.3f}")


def seconds(call: Any) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def write_files(folder: Path, images: np.ndarray) -> list[Path]:
    """The pictures as .jpg files."""
    folder.mkdir()
    files = [folder / f"{number}.jpg" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(file)
    return files


def peaks(counts: list[int], folder: Path) -> None:
    """Print the peak memory of the built-in model at each number of pictures, in a process of its own."""
    pictures = np.lib.format.open_memmap(folder / "p.npy", "w+", np.uint8, (max(counts), 3, 64, 64))
    for start in range(0, len(pictures), 1000):
        pictures[start : start + 1000] = np.random.default_rng(start).integers(0, 256, pictures[:1000].shape)
    for count in counts:
        command = [sys.executable, "-c", PEAK, str(folder / "p.npy"), str(folder / f"{count}.zarr"), str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"{count} pictures: peak {int(done.stdout) / 1024:.1f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path)
    parser.add_argument("--case")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jpg", action="store_true", help="read the pictures from files")
    parser.add_argument("--counts", type=int, nargs="*", default=[1000, 20000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))
        if arguments.counts:
            peaks(arguments.counts, Path(folder))


if __name__ == "__main__":
    main()
