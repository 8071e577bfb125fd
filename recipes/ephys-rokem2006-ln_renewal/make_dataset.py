"""Make a dataset of the recordings that nitime ships, for `berg fit`.

    python recipes/ephys-rokem2006-ln_renewal/make_dataset.py --out dataset

README.md beside this file says what was found in the files, and what was decided.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np

from berg.families.ln_renewal.features import REFERENCE_PA

SAMPLING_RATE = 20_000  # of the stimulus files, hertz
BINS_PER_S = 2_000
CARRIER_HZ = 2_500  # the stimulus files hold the amplitude of this tone; header of the spike files
PEAK_DB_SPL = {1: 76.4286, 2: 71.2}  # "intensity (dB)" in the same headers, taken for the peak as nitime does

DATASET = f"""\
name: rokem2006
description: An auditory receptor of one locust, and two sounds of 10 s.
licence: BSD-3-Clause (nitime)
citation: >-
  Rokem A, Watzl S, Gollisch T, Stemmler M, Herz AVM, Samengo I (2006), J Neurophysiol 95:2541-2552; CRCNS ia-1.
subjects: [1]
stimuli:
  path: sounds.npy
  sampling_rate: {SAMPLING_RATE}
  names: [grasshopper_stimulus1.txt, grasshopper_stimulus2.txt]
responses:
  rate:
    path: spikes.npy
    axes: [stimulus, unit, time]
    unit: spikes/s
    scale: {BINS_PER_S}
    coordinates:
      unit: [receptor-01]
splits: {{test_fraction: 0}}  # blocks of both recordings are held out in turn, as the card says
sampling_interval_s: {1 / BINS_PER_S}
"""


def data_folder() -> Path:
    """The folder of nitime's data; nitime itself is not imported."""
    found = importlib.util.find_spec("nitime")
    if found is None or not found.submodule_search_locations:
        raise SystemExit('The recordings come with nitime. Get it with:  pip install "berg[fit]"')
    return Path(found.submodule_search_locations[0]) / "data"


def read_recording(number: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a recording, its stimulus as the sound that was played.

    The file holds the amplitude of a tone of 2.5 kHz; its largest value, 1, is the level in the header of the
    spike file. The phase of the tone is not known and does not matter to the level.

    Returns
    -------
    pressure
        Shape (n_samples,), pascals.
    spikes
        Shape (n_bins,), how many in each half millisecond.
    """
    amplitude = np.loadtxt(folder / f"grasshopper_stimulus{number}.txt")[:, 1]
    peak_pa = np.sqrt(2) * REFERENCE_PA * 10 ** (PEAK_DB_SPL[number] / 20)
    tone = np.sin(2 * np.pi * CARRIER_HZ * np.arange(len(amplitude)) / SAMPLING_RATE)
    spike_us = np.loadtxt(folder / f"grasshopper_spike_times{number}.txt")
    n_bins = len(amplitude) * BINS_PER_S // SAMPLING_RATE
    spikes, _ = np.histogram(spike_us * 1e-6, np.arange(n_bins + 1) / BINS_PER_S)
    return peak_pa * amplitude * tone, spikes


def write_dataset(out: Path, folder: Path) -> None:
    """Write ``dataset.yaml`` and what it names."""
    out.mkdir(parents=True, exist_ok=True)
    sounds, spikes = zip(*(read_recording(number, folder) for number in PEAK_DB_SPL), strict=True)
    np.save(out / "sounds.npy", np.stack(sounds))
    np.save(out / "spikes.npy", np.stack(spikes)[:, None].astype(np.float32))  # (2 sounds, 1 unit, n_bins)
    (out / "dataset.yaml").write_text(DATASET, encoding="utf-8")


def main() -> None:
    """Read nitime's files, write the dataset."""
    parser = argparse.ArgumentParser(description="Make a dataset of the rokem2006 recordings.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the dataset, to be made")
    write_dataset(parser.parse_args().out, data_folder())


if __name__ == "__main__":
    main()
