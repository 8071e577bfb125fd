"""Receptive-field mapping in silico on the built-in model of V1, whose receptive fields are known.

    python benchmarks/receptive_fields.py           # every 12th voxel by gradient, every 6th by bars and checks
    python benchmarks/receptive_fields.py --method bars --every 1   # all of them

Voxels are the reliable ones whose centres lie inside the picture. Printed: correlation of the centres and sizes that
were found with those of the model, the median error of the centres in degrees, and processor time of one thread.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
from typing import Any

import numpy as np

import berg
from berg.experiments import map_receptive_fields

V1, HALF_WIDTH = "fmri-szinte2024-prf_css", 4.5  # degrees; pictures are 10 degrees wide
EVERY = {"bars": 6, "checks": 6, "gradient": 12}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=EVERY, action="append")
    parser.add_argument("--every", type=int, help="take every so many voxels")
    parser.add_argument("--pixels", type=int, default=320)
    arguments = parser.parse_args()
    print(f"{'method':9} {'voxels':>6} {'r of x':>8} {'r of y':>8} {'error':>7} {'r size':>7} {'pictures':>8} {'s':>6}")
    for method in arguments.method or EVERY:
        report(method, arguments.every or EVERY[method], arguments.pixels)


def report(method: Any, every: int, pixels: int) -> None:
    model = some_voxels(every)
    began = time.process_time()
    found = map_receptive_fields(model, method, pixels=pixels, show_progress=False)
    seconds = time.process_time() - began
    r = [np.corrcoef(found[one], found[other])[0, 1] for one, other in (("x", "x_deg"), ("y", "y_deg"))]
    r_size = np.corrcoef(found["size"], found["size_deg"])[0, 1]
    error = float(np.median(np.hypot(found.x - found.x_deg, found.y - found.y_deg)))
    n_pictures = berg.experiments.result.parameters_of(found)["n_stimuli"] if method != "gradient" else 0
    print(f"{method:9} {found.sizes['unit']:6} {r[0]:8.5f} {r[1]:8.5f} {error:7.3f} {r_size:7.4f} {n_pictures:8} "
          f"{seconds:6.1f}", flush=True)  # fmt: skip


def some_voxels(every: int) -> Any:
    inside = {"x_deg": [-HALF_WIDTH, HALF_WIDTH], "y_deg": [-HALF_WIDTH, HALF_WIDTH]}
    model = berg.load(V1, selection={"reliable": True, **inside})
    mask = np.zeros(2308, int)
    mask[model.indices_of("responses", "voxel")[::every]] = 1
    return berg.load(V1, selection={"voxels": mask})


if __name__ == "__main__":
    main()
