"""Draw the level of both sounds, and measured and held-out predicted rates, for README.md.

    python recipes/ephys-rokem2006-ln_renewal/draw_picture.py --data dataset --out FILE.png

The card's recipe is fitted without the block that is drawn, and its settings are chosen without it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch

from berg.core import model_registry
from berg.core.parameter_validator import validate_parameters
from berg.datasets.dataset import EncodingDataset
from berg.families.ln_renewal.fit import choose, fit_units, one_thread, read_recordings, smooth
from berg.fitting.fit_job import FitJob

MODEL_ID = "ephys-rokem2006-ln_renewal"
BLOCK, SECONDS = 2, 0.6


def main() -> None:
    """Fit without one block, draw the beginning of it."""
    parser = argparse.ArgumentParser(description="Draw held-out rates of the rokem2006 recordings.")
    parser.add_argument("--data", type=Path, required=True, help="folder that make_dataset.py made")
    parser.add_argument("--out", type=Path, required=True, help="PNG")
    arguments = parser.parse_args()
    card, nowhere = model_registry.get_card(MODEL_ID), Path(tempfile.gettempdir())
    given, data = validate_parameters(card, {"subject": 1}), EncodingDataset.open(arguments.data, 1)
    job = FitJob(card, data, given, torch.device("cpu"), nowhere, nowhere, 10**9)
    with one_thread():
        draw(job, arguments.out)


def draw(job: FitJob, path: Path) -> None:
    """One pair of axes per recording."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    recordings = read_recordings(job, ("train",))
    ms, bins_per_s = recordings.settings.smoothing_ms[0], recordings.bins_per_s
    chosen = choose(recordings, [BLOCK], recordings.blocks.inner_folds(BLOCK))
    (neuron,) = fit_units(recordings, chosen, [BLOCK])
    start = recordings.blocks[BLOCK].start + recordings.blocks.gap
    place = slice(start, start + int(SECONDS * bins_per_s))
    seconds = np.arange(place.start, place.stop) / bins_per_s
    figure, axes = plt.subplots(
        4, 1, figsize=(9, 6.6), layout="constrained", height_ratios=[1, 2.4, 1, 2.4], sharex=True
    )
    for number, recording in enumerate(recordings.all):
        level, rates = axes[2 * number : 2 * number + 2]
        heard = recordings.level(recording, chosen.window_ms)[0, place] + recordings.floor_db
        level.plot(seconds, heard, color="0.3", lw=0.8)
        level.set_ylabel("dB SPL")
        level.set_title(f"Stimulus {number + 1}", loc="left", fontsize="medium")
        measured = smooth(recordings.measured(recording, 0), ms, bins_per_s)[place]
        predicted = smooth(neuron.rate(recordings.inputs[chosen.window_ms][number]), ms, bins_per_s)[place]
        rates.fill_between(seconds, measured, color="0.8", lw=0, label="measured")
        rates.plot(seconds, predicted, color="#c0392b", lw=1.3, label="predicted")
        rates.set_ylabel("spikes/s")
        rates.set_ylim(0, 260)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False, loc="upper right", ncols=2)
    axes[-1].set_xlabel("time (s)")
    axes[-1].set_xlim(seconds[0], seconds[-1])
    figure.align_ylabels()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
