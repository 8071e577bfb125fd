"""Eight models on one network: one call of `encode` with all of them beside eight calls, in one run.

python benchmarks/shared.py --files FOLDER      # a folder that benchmarks/encode.py filled
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

ROIS = ("V1d", "V1v", "V2d", "V2v", "V3d", "V3v", "hV4", "EBA")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    os.environ["TORCH_HOME"] = str(arguments.files / "torch")
    from berg import BERG

    berg = BERG(arguments.files / "berg")
    models = [
        berg.get_encoding_model(
            "fmri-nsd_fsaverage-vit_b_32", "cpu", {"roi": roi}, subject=1, precision=arguments.precision
        )
        for roi in ROIS
    ]
    pictures = np.random.default_rng(0).integers(0, 256, (arguments.pictures, 3, 224, 224), dtype=np.uint8)
    berg.encode(models, pictures[:32])
    alone, together = [], []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        each = [berg.encode(model, pictures) for model in models]
        alone.append(time.perf_counter() - start)
        start = time.perf_counter()
        at_once = berg.encode(models, pictures)
        together.append(time.perf_counter() - start)
    for one, other in zip(each, at_once, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    print(f"{len(models)} models, {arguments.pictures} pictures, {arguments.precision}")
    print(
        f"one after another {min(alone):.1f} s, together {min(together):.1f} s, ratio {min(alone) / min(together):.2f}"
    )


if __name__ == "__main__":
    main()
