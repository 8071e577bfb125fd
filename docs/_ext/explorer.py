"""The explorer of the built-in models beside the pages: `berg.server.explorer`, with stimuli that are always there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from scipy.io import wavfile

MODELS = ["fmri-szinte2024-prf_css", "ephys-rokem2006-ln_renewal"]
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
PIXELS, RATE = 400, 20_000


def setup(app: Any) -> dict[str, bool]:
    """Write it when the pages are there."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(app: Any, exception: Exception | None) -> None:
    """Write the explorer into the folder of the site."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir) / "explorer"
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        write_stimuli(Path(folder))
        # In a process of its own: what makes the pages changes how types are read.
        command = [sys.executable, "-m", "berg", "-q", "explorer", str(out), *MODELS, "--stimuli", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write_stimuli(folder: Path) -> None:
    """Photographs, and tones whose loudness goes up and down at several rates."""
    from berg.stimuli.photographs import photograph

    for name in PHOTOGRAPHS:
        ImageOps.fit(Image.fromarray(photograph(name)), (PIXELS, PIXELS)).save(folder / f"{name}.png")
    seconds = np.arange(RATE) / RATE
    for rate in (4, 10, 25):
        wave = 0.05 * np.sin(2 * np.pi * 2_500 * seconds) * np.sin(np.pi * rate * seconds) ** 2
        wavfile.write(folder / f"beats-{rate:02d}-hz.wav", RATE, np.int16(32_767 * wave))
