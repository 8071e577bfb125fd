"""What the workers of the cluster's tests load and read: small blocks, a gate, and deadly pictures."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distributed import get_worker
from numpy.typing import NDArray

from berg.encoding import task
from berg.encoding.cluster import ModelRecipe

BLOCK = 8  # stimuli, so that there are many blocks
GATE = 3 * BLOCK  # from this picture on, none is read while there is a file `gate` beside them
DEADLY = 255  # a picture of nothing but this value ends the process that reads it in a batch


def few(least: float = 0.7) -> Any:
    """The built-in model, for a few voxels."""
    task.MAX_BLOCK_STIMULI = BLOCK  # in the worker's process, where this is called
    return ModelRecipe("fmri-szinte2024-prf_css", device="cpu", selection={"min_held_out_r2": least})()


def another_in_each_worker() -> Any:
    return few(0.7 if get_worker().name == 0 else 0.6)


def other_in_each_worker(path: Path) -> Pictures:
    pictures = Pictures(path)
    pictures.array = pictures.array[:: 1 if get_worker().name == 0 else -1]
    return pictures


def few_with_three_threads() -> Any:
    assert torch.get_num_threads() == 3
    return few()


class Pictures:
    """Those in a .npy file."""

    def __init__(self, path: Path) -> None:
        self.array, self.gate = np.load(path, mmap_mode="r"), path.with_name("gate")
        self.shape, self.dtype = self.array.shape, self.array.dtype

    def __getitem__(self, places: slice) -> NDArray[Any]:
        found = np.asarray(self.array[places])
        if len(found) > 1:  # not for the fingerprint of the stimuli, which reads them one by one
            while places.stop > GATE and self.gate.exists():
                time.sleep(0.02)
            if (found == DEADLY).all(axis=(1, 2, 3)).any():
                os._exit(1)
        return found
