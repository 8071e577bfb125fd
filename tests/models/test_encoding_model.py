from __future__ import annotations

import subprocess
import sys

import pytest

from berg.core.exceptions import DeviceError
from berg.models.device import resolve_device

PEAK_MEMORY = """
import resource, sys
import numpy as np
from berg import BERG

n_stimuli = int(sys.argv[1])
model = BERG().get_encoding_model("fmri-szinte2024-prf_css", device="cpu", selection={"min_held_out_r2": 0.8})
stimuli = np.broadcast_to(np.uint8(7), (n_stimuli, 3, 64, 64))  # no memory of its own
BERG().encode(model, stimuli)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_the_number_of_stimuli() -> None:
    few, many = (
        float(subprocess.run([sys.executable, "-c", PEAK_MEMORY, n], check=True, capture_output=True, text=True).stdout)
        for n in ("64", "800")
    )
    # All 800 as float32 would be 39 MB, their luminance at the working resolution 82 MB.
    assert many - few < 20


@pytest.mark.parametrize(("name", "kind"), [("cpu", "cpu"), ("auto", None)])
def test_a_device_that_is_there_is_found(name: str, kind: str | None) -> None:
    device = resolve_device(name)
    assert kind is None or device.type == kind


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpu", "'gpu' is not a device. Use 'auto', 'cpu'"),
        ("cuda:", "is not a device"),
        ("cuda:one", "is not a device"),
        ("cuda:²", "is not a device"),
        ("cpu:1", "is not a device"),
        ("cuda:999", r"PyTorch sees \d+ CUDA device\(s\) here. Use device='auto'"),
    ],
)
def test_a_device_that_is_not_there_is_named(name: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        resolve_device(name)
