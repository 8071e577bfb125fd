r"""Fit ephys-rokem2006-ln_renewal to two recordings of a locust auditory receptor.

    python recipes/ephys-rokem2006-ln_renewal/fit.py --out DIR [--picture FILE]

In bin t, the a-th after the last spike, the receptor fires with the log odds

.. math::
    u_t + r_a, \qquad u_t = x_t \cdot w_0 + b_0 + \sum_k g_k \, \mathrm{softplus}(x_t \cdot w_k + b_k)

where x are recent and distant averages of the level of the sound. Fitted by maximum likelihood on the spike
times; predicted from sound alone, as the mean over all spike trains (`berg.readouts.renewal`). README.md
beside this file says what was decided, and why.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional

from berg.features.sound_level import REFERENCE_PA, hann_window, sound_level_above_floor
from berg.readouts.renewal import exponential_traces, renewal_rate, softplus_drive, weighted_past

Floats = NDArray[np.float64]

SAMPLING_RATE = 20_000  # of the stimulus files, hertz
BINS_PER_S = 2_000
CARRIER_HZ = 2_500  # the stimulus files hold the amplitude of this tone; header of the spike files
PEAK_DB_SPL = {1: 76.4286, 2: 71.2}  # "intensity (dB)" in the same headers, taken for the peak as nitime does

FLOOR_DB = 35.0  # the quietest moments of the recordings
TYPICAL_DB, SPREAD_DB = 20.0, 6.0  # mean above the floor and standard deviation: units of the penalty
N_LAGS, N_LAG_FUNCTIONS = 40, 14  # 20 ms
TRACES_S = (0.05, 0.5, 3.0)
N_AGES, N_AGE_FUNCTIONS = 120, 8  # 60 ms

N_BLOCKS = 5
GAP_BINS = 80  # 40 ms on either side of a held-out block: longer than filter and window together
SMOOTHING_MS = (2.0, 5.0)  # standard deviations of the Gaussian that spike trains are compared under

WINDOWS_MS = (2.0, 3.0, 4.0, 5.0)
N_HIDDEN = (0, 2)
PENALTIES = (0.3, 3.0)
PLAIN_PENALTIES = (1e3, 1e4, 1e5)
N_PLAIN_LAGS = 60  # 30 ms
MAX_STEPS = 80

SUBJECT = "subject-01"


@dataclass(frozen=True)
class Recording:
    """One stimulus and the response to it.

    Parameters
    ----------
    pressure
        Shape (n_samples,), pascals.
    spikes
        Shape (n_bins,), 1 where the receptor fired, else 0.
    """

    pressure: Tensor
    spikes: Tensor


@dataclass(frozen=True)
class Settings:
    """What is chosen inside the training blocks."""

    window_ms: float
    n_hidden: int
    penalty: float


@dataclass(frozen=True)
class Weights:
    """The parameters as they are shipped, for one unit; see `berg/models/families/ln_renewal.py`."""

    filters: Tensor  # (1, 1 + n_hidden, n_lags), per decibel above the floor
    traces: Tensor  # (1, 1 + n_hidden, n_traces)
    offsets: Tensor  # (1, 1 + n_hidden)
    gains: Tensor  # (1, n_hidden)
    recovery: Tensor  # (1, n_ages)


# Reading --------------------------------------------------------------------------------------


def data_folder() -> Path:
    """The folder of nitime's data; nitime itself is not imported."""
    found = importlib.util.find_spec("nitime")
    if found is None or not found.submodule_search_locations:
        raise SystemExit('The recordings come with nitime. Get it with:  pip install "berg[fit]"')
    return Path(found.submodule_search_locations[0]) / "data"


def read_recording(number: int, folder: Path) -> Recording:
    """Read a recording, its stimulus as the sound that was played.

    The file holds the amplitude of a tone of 2.5 kHz; its largest value, 1, is the level in the header of the
    spike file. The phase of the tone is not known and does not matter to the level.
    """
    amplitude = np.loadtxt(folder / f"grasshopper_stimulus{number}.txt")[:, 1]
    peak_pa = np.sqrt(2) * REFERENCE_PA * 10 ** (PEAK_DB_SPL[number] / 20)
    tone = np.sin(2 * np.pi * CARRIER_HZ * np.arange(len(amplitude)) / SAMPLING_RATE)
    spike_us = np.loadtxt(folder / f"grasshopper_spike_times{number}.txt")
    n_bins = len(amplitude) * BINS_PER_S // SAMPLING_RATE
    spikes, _ = np.histogram(spike_us * 1e-6, np.arange(n_bins + 1) / BINS_PER_S)
    return Recording(torch.from_numpy(peak_pa * amplitude * tone), torch.from_numpy(spikes.astype(np.float64)))


# Model ----------------------------------------------------------------------------------------


def raised_cosines(n_bins: int, n_functions: int, stretch: float) -> Tensor:
    """Bumps that get wider with time, from the first bin to 80% of the last.

    Parameters
    ----------
    stretch
        Bins after which widths begin to grow.

    Returns
    -------
    basis
        Shape (n_functions, n_bins), in [0, 1].
    """
    place = np.log(np.arange(n_bins) + 0.5 + stretch)
    centres = np.linspace(place[0], np.log(n_bins * 0.8), n_functions)
    distance = (place - centres[:, None]) / (centres[1] - centres[0])
    return torch.from_numpy(np.where(np.abs(distance) < 2, (1 + np.cos(np.pi * distance / 2)) / 2, 0))


LAG_FUNCTIONS = raised_cosines(N_LAGS, N_LAG_FUNCTIONS, stretch=4.0)
AGE_FUNCTIONS = raised_cosines(N_AGES, N_AGE_FUNCTIONS, stretch=1.0)


def level_of(recording: Recording, window_ms: float) -> Tensor:
    """The level in decibels above the floor, shape (1, n_bins)."""
    window = hann_window(round(window_ms / 1000 * SAMPLING_RATE))
    return sound_level_above_floor(recording.pressure[None], window, SAMPLING_RATE // BINS_PER_S, FLOOR_DB)


def inputs_of(level: Tensor) -> Tensor:
    """Recent and distant averages of the level, standardised; shape (n_bins, n_lag_functions + n_traces)."""
    sums = torch.cat(
        [
            weighted_past(level, LAG_FUNCTIONS) - TYPICAL_DB * LAG_FUNCTIONS.sum(1)[:, None],
            exponential_traces(level, torch.tensor(TRACES_S) * BINS_PER_S) - TYPICAL_DB,
        ],
        dim=1,
    )
    return sums[0].T / SPREAD_DB


def ages_of(spikes: Tensor) -> Tensor:
    """Bins since the one after the last spike, at most n_ages - 1; shape (n_bins,)."""
    bins = torch.arange(len(spikes))
    last = torch.where(spikes > 0, bins, -N_AGES).cummax(0).values
    return (bins - functional.pad(last[:-1], (1, 0), value=-N_AGES) - 1).clamp(max=N_AGES - 1)


class Neuron(torch.nn.Module):
    """The parameters as they are fitted: on standardised inputs, and on smooth functions of lag and age."""

    def __init__(self, n_inputs: int, n_hidden: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        start = torch.randn(1 + n_hidden, n_inputs, generator=draw, dtype=torch.float64) / n_inputs**0.5
        start[0] = 0
        offset = torch.zeros(1 + n_hidden, dtype=torch.float64)
        offset[0] = -3  # log odds of firing in a bin, about
        self.weights = torch.nn.Parameter(start)
        self.offsets = torch.nn.Parameter(offset)
        self.gains = torch.nn.Parameter(torch.full((n_hidden,), 0.1, dtype=torch.float64))
        self.recovery = torch.nn.Parameter(torch.zeros(N_AGE_FUNCTIONS, dtype=torch.float64))

    def drive(self, inputs: Tensor) -> Tensor:
        """Log odds of firing long after a spike, shape (n_bins,)."""
        sums = (inputs @ self.weights.T + self.offsets).T
        return softplus_drive(sums[None, None], self.gains[None])[0, 0]

    def log_odds(self, inputs: Tensor, ages: Tensor) -> Tensor:
        """Log odds of firing where the last spike is known, shape (n_bins,)."""
        return self.drive(inputs) + (self.recovery @ AGE_FUNCTIONS)[ages]

    def penalty(self) -> Tensor:
        """Sum of squares of all but the offsets."""
        return sum((part**2).sum() for part in (self.weights, self.gains, self.recovery))  # type: ignore[return-value]

    def shipped(self) -> Weights:
        """The same neuron, with weights per lag and per decibel above the floor."""
        per_db = self.weights.detach() / SPREAD_DB
        of_lags, of_traces = per_db[:, :N_LAG_FUNCTIONS], per_db[:, N_LAG_FUNCTIONS:]
        total = of_lags @ LAG_FUNCTIONS.sum(1) + of_traces.sum(1)
        parts = (
            of_lags @ LAG_FUNCTIONS,
            of_traces,
            self.offsets.detach() - TYPICAL_DB * total,
            self.gains.detach(),
            self.recovery.detach() @ AGE_FUNCTIONS,
        )
        return Weights(*(part[None] for part in parts))


@torch.no_grad()
def predicted_rate(neuron: Neuron, inputs: Tensor) -> Floats:
    """Spikes per second from sound alone, shape (n_bins,)."""
    recovery = neuron.recovery @ AGE_FUNCTIONS
    rate: Floats = renewal_rate(neuron.drive(inputs)[None], recovery[None])[0].numpy() * BINS_PER_S
    return rate


# Fitting --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """The recordings as they are fitted, one entry per recording."""

    inputs: list[Tensor]
    ages: list[Tensor]
    spikes: list[Tensor]


def prepare(recordings: Sequence[Recording], window_ms: float) -> Prepared:
    """Inputs and ages of all bins."""
    inputs = [inputs_of(level_of(recording, window_ms)) for recording in recordings]
    spikes = [recording.spikes for recording in recordings]
    return Prepared(inputs, [ages_of(each) for each in spikes], spikes)


def blocks_of(n_bins: int) -> list[slice]:
    """Contiguous blocks of equal length."""
    edges = [n_bins * block // N_BLOCKS for block in range(N_BLOCKS + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def away_from(n_bins: int, held_out: Sequence[int]) -> NDArray[np.bool_]:
    """The bins outside the held-out blocks and the gaps around them."""
    kept = np.ones(n_bins, bool)
    for block in held_out:
        place = blocks_of(n_bins)[block]
        kept[max(0, place.start - GAP_BINS) : place.stop + GAP_BINS] = False
    return kept


def fit(prepared: Prepared, settings: Settings, held_out: Sequence[int] = ()) -> Neuron:
    """The neuron of largest penalised likelihood on all recordings, without some of their blocks."""
    kept = [torch.from_numpy(away_from(len(each), held_out)) for each in prepared.spikes]
    inputs, ages, spikes = (
        torch.cat([each[own] for each, own in zip(part, kept, strict=True)])
        for part in (prepared.inputs, prepared.ages, prepared.spikes)
    )
    neuron = Neuron(inputs.shape[1], settings.n_hidden)
    optimiser = torch.optim.LBFGS(
        neuron.parameters(), max_iter=MAX_STEPS, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        missed = functional.binary_cross_entropy_with_logits(neuron.log_odds(inputs, ages), spikes, reduction="sum")
        total = missed + settings.penalty * neuron.penalty()
        total.backward()
        return total

    optimiser.step(loss)  # type: ignore[arg-type]
    return neuron


@torch.no_grad()
def log_likelihood(neuron: Neuron, prepared: Prepared, blocks: Sequence[int]) -> float:
    """Of the spikes in some blocks, given those before; nats."""
    total = 0.0
    for inputs, ages, spikes in zip(prepared.inputs, prepared.ages, prepared.spikes, strict=True):
        log_odds = neuron.log_odds(inputs, ages)
        for place in (blocks_of(len(spikes))[block] for block in blocks):
            total -= functional.binary_cross_entropy_with_logits(log_odds[place], spikes[place], reduction="sum").item()
    return total


def choose(prepared: dict[float, Prepared], outer: Sequence[int], inner: Sequence[Sequence[int]]) -> Settings:
    """The settings that predict the inner folds best; the outer blocks are not looked at."""
    candidates = [Settings(*values) for values in itertools.product(WINDOWS_MS, N_HIDDEN, PENALTIES)]

    def score(settings: Settings) -> float:
        own = prepared[settings.window_ms]
        return sum(log_likelihood(fit(own, settings, [*outer, *fold]), own, fold) for fold in inner)

    return max(candidates, key=score)


def inner_folds(outer: int) -> list[list[int]]:
    """The other blocks, two by two."""
    others = [block for block in range(N_BLOCKS) if block != outer]
    return [others[:2], others[2:]]


# The plain model --------------------------------------------------------------------------------


def ridge(inputs: Floats, target: Floats, penalty: float) -> tuple[Floats, float]:
    """Weights and offset of a penalised linear regression of `target` on `inputs`."""
    mean, offset = inputs.mean(0), float(target.mean())
    centred = inputs - mean
    weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(len(mean)), centred.T @ (target - offset))
    return weights, offset - float(mean @ weights)


def predict_plain(recording: Recording, smoothing_ms: float) -> Floats:
    """Held-out prediction of the smoothed spike train by a linear model of the lagged level, shape (n_bins,)."""
    target = smooth(recording.spikes.numpy() * BINS_PER_S, smoothing_ms)
    lagged = {}
    for window_ms in WINDOWS_MS:
        lagged[window_ms] = weighted_past(level_of(recording, window_ms), torch.eye(N_PLAIN_LAGS).double())[0].T.numpy()
    predicted = np.empty_like(target)
    for outer, place in enumerate(blocks_of(len(target))):
        window_ms, penalty = _plain_choice(lagged, target, outer)
        weights, offset = _plain_fit(lagged[window_ms], target, penalty, [outer])
        predicted[place] = lagged[window_ms][place] @ weights + offset
    return predicted


def _plain_fit(lagged: Floats, target: Floats, penalty: float, held_out: Sequence[int]) -> tuple[Floats, float]:
    kept = away_from(len(target), held_out)
    return ridge(lagged[kept], target[kept], penalty)


def _plain_choice(lagged: dict[float, Floats], target: Floats, outer: int) -> tuple[float, float]:
    """Window and penalty with the smallest squared error in the inner folds."""

    def error(candidate: tuple[float, float]) -> float:
        window_ms, penalty = candidate
        total = 0.0
        for fold in inner_folds(outer):
            weights, offset = _plain_fit(lagged[window_ms], target, penalty, [outer, *fold])
            for place in (blocks_of(len(target))[block] for block in fold):
                total += float(((lagged[window_ms][place] @ weights + offset - target[place]) ** 2).sum())
        return total

    return min(itertools.product(WINDOWS_MS, PLAIN_PENALTIES), key=error)


# Accuracy ---------------------------------------------------------------------------------------


def smooth(rate: Floats, smoothing_ms: float) -> Floats:
    """A rate under a Gaussian of this standard deviation."""
    smoothed: Floats = gaussian_filter1d(rate, smoothing_ms / 1000 * BINS_PER_S)
    return smoothed


def block_r(spikes: Tensor, predicted: Floats, smoothing_ms: float, smooth_predicted: bool) -> list[float]:
    """Correlation of measured and predicted rate in each block, each block smoothed by itself."""
    found = []
    for place in blocks_of(len(predicted)):
        measured = smooth(spikes[place].numpy() * BINS_PER_S, smoothing_ms)
        other = smooth(predicted[place], smoothing_ms) if smooth_predicted else predicted[place]
        found.append(float(np.corrcoef(measured, other)[0, 1]))
    return found


@dataclass(frozen=True)
class Accuracy:
    """Held-out correlations: one entry per recording and smoothing, each a list over blocks."""

    model: list[dict[float, list[float]]]
    plain: list[dict[float, list[float]]]
    if_true: list[dict[float, float]]  # of spike trains drawn from the fitted model itself
    chosen: list[Settings]
    held_out: list[Floats]  # predicted rates


def measure(recordings: Sequence[Recording], prepared: dict[float, Prepared]) -> Accuracy:
    """Predict each block from the fit to the others, for this model and the plain one."""
    held_out = [np.empty(len(recording.spikes)) for recording in recordings]
    chosen = []
    for outer in track(range(N_BLOCKS), "Held-out blocks"):
        settings = choose(prepared, [outer], inner_folds(outer))
        own = prepared[settings.window_ms]
        neuron = fit(own, settings, [outer])
        chosen.append(settings)
        for predicted, inputs in zip(held_out, own.inputs, strict=True):
            place = blocks_of(len(predicted))[outer]
            predicted[place] = predicted_rate(neuron, inputs[: place.stop])[place]
    pairs = list(zip(recordings, held_out, strict=True))
    return Accuracy(
        model=[{ms: block_r(one.spikes, rate, ms, True) for ms in SMOOTHING_MS} for one, rate in pairs],
        plain=[
            {ms: block_r(one.spikes, predict_plain(one, ms), ms, False) for ms in SMOOTHING_MS} for one in recordings
        ],
        if_true=[],
        chosen=chosen,
        held_out=held_out,
    )


@torch.no_grad()
def drawn_spikes(neuron: Neuron, inputs: Tensor, n_trains: int = 20) -> Floats:
    """Spike trains that the neuron could have fired, shape (n_trains, n_bins)."""
    draw = np.random.default_rng(0)
    drive = neuron.drive(inputs).numpy()
    recovery = (neuron.recovery @ AGE_FUNCTIONS).numpy()
    age, trains = np.full(n_trains, N_AGES - 1), np.zeros((n_trains, len(drive)))
    for place, log_odds in enumerate(drive):
        fired = draw.random(n_trains) < 1 / (1 + np.exp(-log_odds - recovery[age]))
        trains[:, place] = fired
        age = np.where(fired, 0, np.minimum(age + 1, N_AGES - 1))
    return trains


def r_if_true(neuron: Neuron, prepared: Prepared) -> list[dict[float, float]]:
    """The r that a neuron would reach on spike trains of its own: the most that noise lets it reach."""
    found = []
    for inputs in prepared.inputs:
        rate, trains = predicted_rate(neuron, inputs), torch.from_numpy(drawn_spikes(neuron, inputs))
        found.append({ms: float(np.mean([block_r(train, rate, ms, True) for train in trains])) for ms in SMOOTHING_MS})
    return found


# Writing ----------------------------------------------------------------------------------------


def write_weights(weights: Weights, folder: Path) -> None:
    """Write the parameters as float32 safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(values.numpy().astype(np.float32)) for name, values in vars(weights).items()}
    arrays["trace_s"] = np.array(TRACES_S, np.float32)
    save_file(arrays, folder / f"weights_{SUBJECT}.safetensors")


def write_metadata(accuracy: Accuracy, settings: Settings, recordings: Sequence[Recording], folder: Path) -> None:
    """Write what is known of the receptor and of the fit, as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    headline = np.mean([blocks for of in accuracy.model for blocks in of[SMOOTHING_MS[0]]])
    metadata = {
        "ephys": {"unit": ["receptor-01"], "n_spikes": [int(one.spikes.sum()) for one in recordings]},
        "encoding_models": {
            "held_out_r": [round(float(headline), 4)],
            "stimuli": [_facts(accuracy, number) for number in range(len(recordings))],
            "n_blocks": N_BLOCKS,
            "gap_s": GAP_BINS / BINS_PER_S,
            "bins_per_s": BINS_PER_S,
            "floor_db": FLOOR_DB,
            "settings": asdict(settings),
            "settings_of_folds": [asdict(each) for each in accuracy.chosen],
        },
    }
    text = json.dumps(metadata, allow_nan=False, indent=1)
    (folder / f"metadata_{SUBJECT}.json").write_text(text + "\n", encoding="utf-8")


def _facts(accuracy: Accuracy, number: int) -> dict[str, object]:
    facts: dict[str, object] = {"stimulus": f"grasshopper_stimulus{number + 1}.txt"}
    for ms in SMOOTHING_MS:
        name = f"{ms:g}_ms"
        facts[f"held_out_r_{name}"] = round(float(np.mean(accuracy.model[number][ms])), 4)
        facts[f"held_out_r_of_blocks_{name}"] = [round(r, 4) for r in accuracy.model[number][ms]]
        facts[f"held_out_r_plain_{name}"] = round(float(np.mean(accuracy.plain[number][ms])), 4)
        facts[f"held_out_r_plain_of_blocks_{name}"] = [round(r, 4) for r in accuracy.plain[number][ms]]
        facts[f"r_if_model_were_true_{name}"] = round(accuracy.if_true[number][ms], 4)
    return facts


def draw_picture(
    recordings: Sequence[Recording], accuracy: Accuracy, settings: Settings, path: Path, block: int = 2
) -> None:
    """Draw the level, and the measured and predicted rate, in 0.6 s of a held-out block of each recording."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        4, 1, figsize=(9, 6.6), layout="constrained", height_ratios=[1, 2.4, 1, 2.4], sharex=True
    )
    for number, (recording, predicted) in enumerate(zip(recordings, accuracy.held_out, strict=True)):
        start = blocks_of(len(predicted))[block].start + GAP_BINS
        place = slice(start, start + int(0.6 * BINS_PER_S))
        seconds = np.arange(place.start, place.stop) / BINS_PER_S
        level, rates = axes[2 * number : 2 * number + 2]
        level.plot(seconds, level_of(recording, settings.window_ms)[0, place] + FLOOR_DB, color="0.3", lw=0.8)
        level.set_ylabel("dB SPL")
        level.set_title(f"Stimulus {number + 1}", loc="left", fontsize="medium")
        measured = smooth(recording.spikes.numpy() * BINS_PER_S, SMOOTHING_MS[0])[place]
        rates.fill_between(seconds, measured, color="0.8", lw=0, label="measured")
        rates.plot(seconds, smooth(predicted, SMOOTHING_MS[0])[place], color="#c0392b", lw=1.3, label="predicted")
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


def show(accuracy: Accuracy, settings: Settings, seconds: float, console: Console) -> None:
    """Print held-out figures of both models from the same folds."""
    table = Table("stimulus", "smoothing", "plain linear", "this model", "if it were true", title="Held-out r")
    for number, (model, plain, bound) in enumerate(zip(accuracy.model, accuracy.plain, accuracy.if_true, strict=True)):
        for ms in SMOOTHING_MS:
            figures = (np.mean(plain[ms]), np.mean(model[ms]), bound[ms])
            table.add_row(str(number + 1), f"{ms:g} ms", *(f"{figure:.3f}" for figure in figures))
    console.print(table)
    console.print(f"Chosen in the folds: {[tuple(vars(each).values()) for each in accuracy.chosen]}")
    console.print(f"Chosen on all blocks: {settings}. {seconds:.0f} s.")


def main() -> None:
    """Measure, fit all blocks, write weights and metadata, print the figures."""
    parser = argparse.ArgumentParser(description="Fit ephys-rokem2006-ln_renewal.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model, model-ln_renewal")
    parser.add_argument("--picture", type=Path, help="PNG of measured and predicted rates")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small arrays: threads that wait for each other cost more than they do
    started = time.perf_counter()
    recordings = [read_recording(number, data_folder()) for number in (1, 2)]
    prepared = {window_ms: prepare(recordings, window_ms) for window_ms in WINDOWS_MS}
    accuracy = measure(recordings, prepared)
    settings = choose(prepared, [], [[block] for block in range(N_BLOCKS)])
    neuron = fit(prepared[settings.window_ms], settings)
    accuracy.if_true.extend(r_if_true(neuron, prepared[settings.window_ms]))
    write_weights(neuron.shipped(), arguments.out / "encoding_models_weights")
    write_metadata(accuracy, settings, recordings, arguments.out / "metadata")
    if arguments.picture:
        draw_picture(recordings, accuracy, settings, arguments.picture)
    show(accuracy, settings, time.perf_counter() - started, Console())


if __name__ == "__main__":
    main()
