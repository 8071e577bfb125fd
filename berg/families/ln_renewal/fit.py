"""Fit neurons that follow the level of a sound, to the spikes that sounds caused.

    sound -> level in bins -> filters -> linear drive + softplus units -> renewal process -> spikes per second

Responses are firing rates in the bins of the card's axis of time: spikes per bin times bins per second, one spike per
bin at most, NaN where nothing was recorded. Repeated sounds are spike trains of their own.

Window, number of softplus units and penalty are chosen by the likelihood of blocks of the recordings that are left out
in turn. The held-out rates come from blocks that neither the fit nor that choice has seen; where the data have a split
``test``, they are those of its sounds. Measured and predicted rates are smoothed before they are compared, as one spike
train says little about half a millisecond. The maths is in `berg.families.ln_renewal.neurons`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from berg.core.card_schema import CardPart
from berg.core.exceptions import DatasetError, InvalidParameterError
from berg.families.ln_renewal.features import hann_window, sound_level_above_floor
from berg.families.ln_renewal.model import Features
from berg.families.ln_renewal.neurons import (
    Basis,
    Blocks,
    Floats,
    Neuron,
    Shape,
    Trains,
    fit_neuron,
    log_likelihood,
    ridge,
)
from berg.families.ln_renewal.readout import weighted_past
from berg.fitting.card_agreement import check_agreement
from berg.fitting.fit_job import FitJob, Fitted, HeldOut
from berg.fitting.kept import Tensors, kept
from berg.stimuli.sounds import as_floats, check_sampling_rate, resample
from berg.system.progress import Advance, progress_bar

HOLDS_OUT = True
"""The fit returns what it held out: it is not evaluated on the split ``test``."""
METADATA = ("held_out_r",)
"""Coordinates that the fit finds, at ``encoding_models``."""

_SAMPLE_S = 0.5
_N_RESAMPLES = 1000  # for intervals, each with a weight per sample


class PlainModel(CardPart):
    """What the model is compared with: ridge regression of the smoothed rate on the lagged level."""

    lags_s: float = Field(default=0.03, gt=0)
    penalties: list[float] = Field(default=[1e3, 1e4, 1e5], min_length=1)


class FitSettings(CardPart):
    """What the card says under ``fit``."""

    windows_ms: list[float] | None = Field(None, description="to choose from; without them the card's window_ms")
    n_hidden: list[int] = Field(default=[0, 2], min_length=1, description="numbers of softplus units to choose from")
    penalties: list[float] = Field(default=[0.3, 3.0], min_length=1)
    n_blocks: int = Field(default=5, ge=4, description="of each recording, held out in turn")
    gap_s: float = Field(default=0.04, ge=0, description="on either side of a held-out block: nothing is fitted to it")
    smoothing_ms: list[float] = Field(
        default=[2.0, 5.0], min_length=1, description="rates are compared under; the accuracy table has the first"
    )
    shape: Shape = Shape()
    plain: PlainModel = PlainModel()


@dataclass(frozen=True)
class Recording:
    """One sound and the responses to it.

    Attributes
    ----------
    pressure
        Shape (n_samples,), pascals, at the model's sampling rate.
    spikes
        Shape (n_repeats, n_units, n_bins), 1 where a neuron fired, else 0; NaN where nothing was recorded.
    """

    name: str
    pressure: Tensor
    spikes: Tensor


@dataclass(frozen=True)
class Settings:
    """What is chosen inside the training blocks."""

    window_ms: float
    n_hidden: int
    penalty: float


@dataclass(frozen=True)
class Recordings:
    """What is fitted, and how; windows are prepared when they are needed first."""

    all: list[Recording]
    sampling_rate: int
    floor_db: float
    basis: Basis
    settings: FitSettings
    window_ms: float  # that of the card

    @property
    def bins_per_s(self) -> float:
        """Of the responses."""
        return self.basis.bins_per_s

    @property
    def n_units(self) -> int:
        """Neurons."""
        return int(self.all[0].spikes.shape[1])

    @property
    def windows_ms(self) -> list[float]:
        """To choose from."""
        return self.settings.windows_ms or [self.window_ms]

    @property
    def candidates(self) -> list[Settings]:
        """All that can be chosen."""
        own = self.settings
        return [Settings(*values) for values in itertools.product(self.windows_ms, own.n_hidden, own.penalties)]

    @property
    def blocks(self) -> Blocks:
        """Of each recording."""
        n_bins = self.all[0].spikes.shape[-1]
        return Blocks(n_bins, self.settings.n_blocks, round(self.settings.gap_s * self.bins_per_s))

    def level(self, recording: Recording, window_ms: float) -> Tensor:
        """Decibels above the floor, shape (1, n_bins)."""
        window = hann_window(round(window_ms / 1000 * self.sampling_rate))
        samples_per_bin = round(self.sampling_rate / self.bins_per_s)
        return sound_level_above_floor(recording.pressure[None], window, samples_per_bin, self.floor_db)

    @cached_property
    def inputs(self) -> dict[float, list[Tensor]]:
        """By window: what drives the neurons, one entry per recording."""
        return {ms: [self.basis.inputs(self.level(each, ms)) for each in self.all] for ms in self.windows_ms}

    @cached_property
    def trains(self) -> dict[float, list[Trains]]:
        """By window: the spike trains of each unit."""
        return {ms: [self._of_unit(unit, ms) for unit in range(self.n_units)] for ms in self.windows_ms}

    def _of_unit(self, unit: int, window_ms: float) -> Trains:
        pairs = [
            (inputs, train)
            for recording, inputs in zip(self.all, self.inputs[window_ms], strict=True)
            for train in recording.spikes[:, unit]
            if not train.isnan().all()
        ]
        if not pairs:
            raise DatasetError(f"Unit {unit} has no responses at all to the sounds that are fitted. Take it out.")
        return Trains.of(self.basis, [inputs for inputs, _ in pairs], [train for _, train in pairs])

    def measured(self, recording: Recording, unit: int) -> Floats:
        """Mean rate over repeats, spikes per second, shape (n_bins,); NaN where nothing was recorded."""
        rate: Floats = recording.spikes[:, unit].nanmean(0).numpy() * self.bins_per_s
        return rate


def check(job: FitJob) -> Collection[str]:
    """Raise if the card and the data do not belong together.

    Returns
    -------
    usual
        ``splits``: without a test split there is cross-validation; and the output: few bins have a spike.
    """
    check_agreement(job.card, job.dataset, METADATA)
    settings, features = _settings(job), job.card.part("features", Features)
    longest = max(settings.windows_ms or [features.window_ms]) / 1000
    heard = longest + max(settings.shape.lags_s, settings.plain.lags_s)
    if settings.gap_s < heard - 1e-9:
        raise InvalidParameterError(
            f"fit.gap_s is {settings.gap_s:g} s, and bins next to a held-out block hear {heard:g} s of it through "
            f"window and lags. Make it {heard:g} or more."
        )
    if settings.windows_ms and features.window_ms not in settings.windows_ms:
        raise InvalidParameterError(
            f"features.window_ms is {features.window_ms:g}, and fit.windows_ms {settings.windows_ms} does not hold it."
        )
    return ("splits", *job.dataset.outputs)


def fit(job: FitJob) -> Fitted:
    """Filters, softplus units and recovery of every neuron, with held-out accuracy.

    An interrupted fit goes on after the last block that was held out.

    Raises
    ------
    DatasetError
        If responses are no spikes in bins, or not as long as the sounds.
    InvalidParameterError
        If the card and the data do not belong together, or the cross-validation chooses another window than that
        of the card.
    """
    with one_thread():
        recordings = read_recordings(job, ("train", "validation"))
        with progress_bar("neurons", _n_fits(recordings, job), "fits", job.show_progress) as advance:
            return _fitted(job, recordings, advance)


def peak_bytes(job: FitJob) -> int:
    """Bytes that `fit` needs at its peak, beyond what the process holds before."""
    settings, output = _settings(job), job.output
    basis, n_units = Basis(settings.shape, _bins_per_s(job)), output.shape[0]
    n_trains = len(job.dataset.presentations)
    n_bins, n_windows = n_trains * output.shape[1], len(settings.windows_ms or [0])
    n_samples = len(job.dataset.stimulus_names) * output.shape[1] * round(_model_rate(job) / basis.bins_per_s)
    inputs = 8 * n_bins * n_windows * (basis.n_inputs + n_units * 4)
    optimiser = 8 * n_bins * (3 * basis.n_inputs + 30)
    lagged = 8 * output.shape[1] * n_windows * round(settings.plain.lags_s * basis.bins_per_s) * 2
    own = 60_000_000 + inputs + optimiser + lagged + 8 * 6 * n_samples + 8 * 6 * n_bins * n_units
    compared = n_bins // _step(settings.smoothing_ms[0], basis.bins_per_s)
    return 230_000_000 + max(own, 3 * 8 * _N_RESAMPLES * compared)


def _fitted(job: FitJob, recordings: Recordings, advance: Advance) -> Fitted:
    test = read_recordings(job, ("test",)) if len(job.dataset.splits["test"]) else None
    folds = [] if test else [_fold(job, recordings, [outer], advance) for outer in range(recordings.blocks.n_blocks)]
    chosen, neurons = _fold(job, recordings, [], advance)
    if chosen.window_ms != recordings.window_ms:
        raise InvalidParameterError(
            f"Cross-validation chooses a window of {chosen.window_ms:g} ms, and features.window_ms of "
            f"{job.card.model_id} is {recordings.window_ms:g}. Write  window_ms: {chosen.window_ms:g}  there, or leave "
            "the others out of fit.windows_ms."
        )
    if test:
        held_out = Evidence(test, [[neuron.rate(each) for each in test.inputs[chosen.window_ms]] for neuron in neurons])
    else:
        held_out = Evidence(recordings, _held_out_rates(recordings, folds))
    (name,) = job.dataset.outputs
    metadata = _metadata(recordings, chosen, neurons, folds, held_out)
    facts = {**asdict(chosen), "held_out_r": metadata["encoding_models"]["held_out_r"], **held_out.headline()}
    measured = {
        name: held_out.as_held_out(
            "test" if test else f"cross-validation over {recordings.blocks.n_blocks} blocks of each sound"
        )
    }
    return Fitted(_tensors(recordings, neurons), metadata, facts, measured, _sample(job))


def _fold(
    job: FitJob, recordings: Recordings, held_out: Sequence[int], advance: Advance
) -> tuple[Settings, list[Neuron]]:
    """Settings and neurons from all blocks but the held-out ones; kept for a call that goes on here."""
    path = job.work / f"neurons_without_{'_'.join(map(str, held_out)) or 'nothing'}.safetensors"
    return _neurons_of(kept(path, lambda: _tensors_without(recordings, held_out, advance)), recordings)


def _tensors_without(recordings: Recordings, held_out: Sequence[int], advance: Advance) -> Tensors:
    """Settings and neurons that are chosen and fitted without some blocks."""
    blocks = recordings.blocks
    inner = blocks.inner_folds(held_out[0]) if held_out else [[block] for block in range(blocks.n_blocks)]
    chosen = choose(recordings, held_out, inner, advance)
    tensors = {
        f"{unit}.{name}": value.detach().numpy()
        for unit, neuron in enumerate(fit_units(recordings, chosen, held_out, advance))
        for name, value in neuron.named_parameters()
    }
    return {"chosen": np.array(list(asdict(chosen).values()), np.float64), **tensors}


def _neurons_of(tensors: Tensors, recordings: Recordings) -> tuple[Settings, list[Neuron]]:
    window_ms, n_hidden, penalty = tensors["chosen"].tolist()
    chosen = Settings(window_ms, int(n_hidden), penalty)
    neurons = []
    for unit in range(recordings.n_units):
        neuron = Neuron(recordings.basis, chosen.n_hidden)
        own = {name: torch.from_numpy(tensors[f"{unit}.{name}"]) for name, _ in neuron.named_parameters()}
        neuron.load_state_dict(own)
        neurons.append(neuron)
    return chosen, neurons


def choose(
    recordings: Recordings, outer: Sequence[int], inner: Sequence[Sequence[int]], advance: Advance = lambda n: None
) -> Settings:
    """The settings that predict the inner folds best, all neurons together; the outer blocks are not looked at."""
    blocks, candidates = recordings.blocks, recordings.candidates

    def score(settings: Settings) -> float:
        total = 0.0
        for fold in inner:
            neurons = fit_units(recordings, settings, [*outer, *fold], advance)
            places = [blocks[block] for block in fold]
            own = recordings.trains[settings.window_ms]
            total += sum(log_likelihood(*pair, places) for pair in zip(neurons, own, strict=True))
        return total

    return max(candidates, key=score) if len(candidates) > 1 else candidates[0]


def fit_units(
    recordings: Recordings, settings: Settings, held_out: Sequence[int] = (), advance: Advance = lambda n: None
) -> list[Neuron]:
    """Each neuron by itself, without some blocks."""
    neurons = []
    for trains in recordings.trains[settings.window_ms]:
        own = fit_neuron(recordings.basis, trains, settings.n_hidden, settings.penalty, recordings.blocks, held_out)
        neurons.append(own)
        advance(1)
    return neurons


def _held_out_rates(recordings: Recordings, folds: Sequence[tuple[Settings, list[Neuron]]]) -> list[list[Floats]]:
    """Each block from the neurons fitted without it; by unit and recording, shape (n_bins,)."""
    found = [[np.empty(each.spikes.shape[-1]) for each in recordings.all] for _ in range(recordings.n_units)]
    for place, (chosen, neurons) in zip(recordings.blocks, folds, strict=True):
        for neuron, own in zip(neurons, found, strict=True):
            for inputs, rate in zip(recordings.inputs[chosen.window_ms], own, strict=True):
                rate[place] = neuron.rate(inputs[: place.stop])[place]
    return found


@dataclass(frozen=True)
class Evidence:
    """Held-out rates, by unit and recording, and how well they agree with what was measured."""

    recordings: Recordings
    rates: list[list[Floats]]

    @cached_property
    def of_blocks(self) -> dict[tuple[int, float], list[Floats]]:
        """r in each block, by recording and smoothing: one array of shape (n_blocks,) per unit."""
        recordings = self.recordings
        return {
            (number, ms): [
                block_r(recordings, recordings.measured(recording, unit), own[number], ms)
                for unit, own in enumerate(self.rates)
            ]
            for number, recording in enumerate(recordings.all)
            for ms in recordings.settings.smoothing_ms
        }

    @cached_property
    def of_units(self) -> Floats:
        """Mean r over recordings and blocks at the first smoothing, shape (n_units,)."""
        first = self.recordings.settings.smoothing_ms[0]
        values = [self.of_blocks[number, first] for number in range(len(self.recordings.all))]
        of_units: Floats = np.nanmean(np.array(values), axis=(0, 2))
        return of_units

    def headline(self) -> dict[str, float]:
        """Mean over units, by sound and smoothing."""
        return {
            f"held_out_r_{self.recordings.all[number].name}_{ms:g}_ms": round(float(np.nanmean(values)), 4)
            for (number, ms), values in self.of_blocks.items()
        }

    def as_held_out(self, of: str) -> HeldOut:
        """Smoothed rates of all recordings one after another, one sample per standard deviation of the smoothing.

        Closer ones say nothing new.
        """
        recordings, ms = self.recordings, self.recordings.settings.smoothing_ms[0]
        step = _step(ms, recordings.bins_per_s)
        measured, predicted = [], []
        for unit, own in enumerate(self.rates):
            pairs = [(recordings.measured(each, unit), rate) for each, rate in zip(recordings.all, own, strict=True)]
            measured.append(np.concatenate([_smooth_blocks(recordings, one, ms) for one, _ in pairs]))
            predicted.append(np.concatenate([_smooth_blocks(recordings, other, ms) for _, other in pairs]))
        return HeldOut(
            np.stack(measured, 1)[::step],
            np.stack(predicted, 1)[::step],
            f"{of}, smoothed with {ms:g} ms",
            in_time=True,
        )


def _step(smoothing_ms: float, bins_per_s: float) -> int:
    """Bins from one sample to the next."""
    return max(1, round(smoothing_ms / 1000 * bins_per_s))


def smooth(rate: Floats, smoothing_ms: float, bins_per_s: float) -> Floats:
    """A rate under a Gaussian of this standard deviation; NaN where it hears a missing bin."""
    smoothed: Floats = gaussian_filter1d(rate, smoothing_ms / 1000 * bins_per_s)
    return smoothed


def _smooth_blocks(recordings: Recordings, rate: Floats, smoothing_ms: float) -> Floats:
    """Each block by itself, so that none hears the next."""
    return np.concatenate([smooth(rate[place], smoothing_ms, recordings.bins_per_s) for place in recordings.blocks])


def block_r(
    recordings: Recordings, measured: Floats, predicted: Floats, smoothing_ms: float, smooth_predicted: bool = True
) -> Floats:
    """Correlation of measured and predicted rate in each block, each block smoothed by itself; shape (n_blocks,)."""
    found = []
    for place in recordings.blocks:
        one = smooth(measured[place], smoothing_ms, recordings.bins_per_s)
        other = predicted[place]
        other = smooth(other, smoothing_ms, recordings.bins_per_s) if smooth_predicted else other
        known = np.isfinite(one)
        varies = known.any() and np.ptp(one[known]) > 0 and np.ptp(other[known]) > 0
        found.append(float(np.corrcoef(one[known], other[known])[0, 1]) if varies else np.nan)
    return np.array(found)


# The plain model


def predict_plain(recordings: Recordings, recording: Recording, unit: int, smoothing_ms: float) -> Floats:
    """Held-out prediction of the smoothed spike train by a linear model of the lagged level, shape (n_bins,)."""
    target = smooth(recordings.measured(recording, unit), smoothing_ms, recordings.bins_per_s)
    n_lags = round(recordings.settings.plain.lags_s * recordings.bins_per_s)
    lagged = {
        window_ms: weighted_past(recordings.level(recording, window_ms), torch.eye(n_lags).double())[0].T.numpy()
        for window_ms in recordings.windows_ms
    }
    predicted = np.empty_like(target)
    for outer, place in enumerate(recordings.blocks):
        window_ms, penalty = _plain_choice(recordings, lagged, target, outer)
        weights, offset = _plain_fit(recordings, lagged[window_ms], target, penalty, [outer])
        predicted[place] = lagged[window_ms][place] @ weights + offset
    return predicted


def _plain_fit(
    recordings: Recordings, lagged: Floats, target: Floats, penalty: float, held_out: Sequence[int]
) -> tuple[Floats, float]:
    kept = recordings.blocks.away_from(held_out) & np.isfinite(target)
    return ridge(lagged[kept], target[kept], penalty)


def _plain_choice(
    recordings: Recordings, lagged: Mapping[float, Floats], target: Floats, outer: int
) -> tuple[float, float]:
    """Window and penalty with the smallest squared error in the inner folds."""

    def error(candidate: tuple[float, float]) -> float:
        window_ms, penalty = candidate
        total = 0.0
        for fold in recordings.blocks.inner_folds(outer):
            weights, offset = _plain_fit(recordings, lagged[window_ms], target, penalty, [outer, *fold])
            for place in (recordings.blocks[block] for block in fold):
                total += float(np.nansum((lagged[window_ms][place] @ weights + offset - target[place]) ** 2))
        return total

    return min(itertools.product(recordings.windows_ms, recordings.settings.plain.penalties), key=error)


def r_if_true(recordings: Recordings, neuron: Neuron, unit: int, window_ms: float) -> dict[tuple[int, float], float]:
    """The r that a neuron would reach on as many spike trains of its own, by recording and smoothing.

    It is the most that noise lets it reach.
    """
    found = {}
    for number, inputs in enumerate(recordings.inputs[window_ms]):
        n_repeats = int((~recordings.all[number].spikes[:, unit].isnan().all(1)).sum())
        trains = neuron.drawn_spikes(inputs, 20 * max(1, n_repeats)).reshape(20, max(1, n_repeats), -1)
        rate, measured = neuron.rate(inputs), trains.mean(1) * recordings.bins_per_s
        for ms in recordings.settings.smoothing_ms:
            found[number, ms] = float(np.mean([block_r(recordings, train, rate, ms) for train in measured]))
    return found


# What is written


def _tensors(recordings: Recordings, neurons: Sequence[Neuron]) -> dict[str, np.ndarray]:
    shipped = [vars(neuron.shipped()) for neuron in neurons]
    tensors = {name: torch.cat([each[name] for each in shipped]).numpy().astype(np.float32) for name in shipped[0]}
    return {**tensors, "trace_s": np.array(recordings.basis.shape.traces_s, np.float32)}


def _metadata(
    recordings: Recordings,
    chosen: Settings,
    neurons: Sequence[Neuron],
    folds: Sequence[tuple[Settings, list[Neuron]]],
    held_out: Evidence,
) -> dict[str, Any]:
    return {
        "ephys": {"n_spikes": [int(each.spikes.nansum()) for each in recordings.all]},
        "encoding_models": {
            "held_out_r": np.round(held_out.of_units, 4).tolist(),
            "stimuli": _described(recordings, chosen, neurons, held_out),
            "n_blocks": recordings.settings.n_blocks,
            "gap_s": recordings.settings.gap_s,
            "bins_per_s": recordings.bins_per_s,
            "floor_db": recordings.floor_db,
            "settings": asdict(chosen),
            "settings_of_folds": [asdict(settings) for settings, _ in folds],
        },
    }


def _described(
    recordings: Recordings, chosen: Settings, neurons: Sequence[Neuron], held_out: Evidence
) -> list[dict[str, Any]]:
    """Held-out r of each sound, that of the plain model and that of a true one; means over the neurons."""
    own, units = held_out.recordings, range(recordings.n_units)
    true = [r_if_true(own, neuron, unit, chosen.window_ms) for unit, neuron in enumerate(neurons)]
    described = []
    for number, recording in enumerate(own.all):
        facts: dict[str, Any] = {"stimulus": recording.name}
        for ms in own.settings.smoothing_ms:
            plain = [
                block_r(own, own.measured(recording, unit), predict_plain(own, recording, unit, ms), ms, False)
                for unit in units
            ]
            for kind, values in (("", held_out.of_blocks[number, ms]), ("plain_", plain)):
                of_blocks = np.nanmean(np.array(values), axis=0)
                facts[f"held_out_r_{kind}{ms:g}_ms"] = round(float(np.nanmean(of_blocks)), 4)
                facts[f"held_out_r_{kind}of_blocks_{ms:g}_ms"] = np.round(of_blocks, 4).tolist()
            facts[f"r_if_model_were_true_{ms:g}_ms"] = round(float(np.mean([each[number, ms] for each in true])), 4)
        described.append(facts)
    return described


def _sample(job: FitJob) -> np.ndarray:
    """The beginnings of a few sounds, at the model's sampling rate."""
    n = min(4, len(job.dataset.stimulus_names))
    return _sounds(job, np.arange(n))[:, : round(_SAMPLE_S * _model_rate(job))].astype(np.float32)


# Reading


def read_recordings(job: FitJob, splits: Sequence[str]) -> Recordings:
    """Sounds and spikes of some splits."""
    settings, features = _settings(job), job.card.part("features", Features)
    places = np.sort(np.concatenate([job.dataset.splits[split] for split in splits]))
    output = job.output
    bins_per_s, rate = _bins_per_s(job), _model_rate(job)
    repeats = output.repeats(places).reshape(-1, len(places), *output.shape)
    spikes = torch.from_numpy(repeats.astype(np.float64)) / bins_per_s
    pressure = torch.from_numpy(_sounds(job, places) * float(job.parameters["pascals_per_unit"]))
    _check_spikes(job, spikes, pressure.shape[1] * bins_per_s // rate)
    names = [job.dataset.stimulus_names[place] for place in places]
    found = [Recording(name, pressure[place], spikes[:, place]) for place, name in enumerate(names)]
    basis = Basis(settings.shape, bins_per_s)
    return Recordings(found, rate, features.floor_db, basis, settings, features.window_ms)


def _sounds(job: FitJob, places: np.ndarray) -> np.ndarray:
    """At the model's sampling rate, in the unit of the data, shape (n_sounds, n_samples)."""
    rate = _model_rate(job)
    sounds = as_floats(job.dataset.read_stimuli(places))
    resampled: np.ndarray = resample(sounds, check_sampling_rate(job.dataset.sampling_rate, rate), rate)
    return resampled.astype(np.float64)


def _check_spikes(job: FitJob, spikes: Tensor, n_bins: float) -> None:
    bins_per_s, known = _bins_per_s(job), spikes[~spikes.isnan()]
    if spikes.shape[-1] != n_bins:
        raise DatasetError(
            f"The responses have {spikes.shape[-1]:,} bins; sounds of this length have {int(n_bins):,} at "
            f"{bins_per_s:g} bins per second (axes.time.sampling_rate of the card)."
        )
    interval = job.dataset.sampling_interval_s
    if interval is not None and not np.isclose(interval * bins_per_s, 1):
        raise DatasetError(
            f"sampling_interval_s of the data is {interval:g}; the card has {bins_per_s:g} bins per second, which is "
            f"{1 / bins_per_s:g} s."
        )
    if not ((known - known.round()).abs() < 1e-4).all() or known.min() < 0 or known.max() > 1:
        raise DatasetError(
            f"The responses lie in [{known.min() * bins_per_s:g}, {known.max() * bins_per_s:g}]. They must be firing "
            f"rates of single spikes: {bins_per_s:g} in the bin of a spike, 0 elsewhere. Of spikes per bin, write  "
            f"scale: {bins_per_s:g}  into dataset.yaml; where a bin holds several spikes, make the bins shorter."
        )


def _settings(job: FitJob) -> FitSettings:
    return job.card.part("fit", FitSettings)


def _model_rate(job: FitJob) -> int:
    return int((job.card.input and job.card.input.sampling_rate) or 1)


def _bins_per_s(job: FitJob) -> float:
    return float(job.card.axes[job.card.outputs[0].axes[-1]].sampling_rate or 1)


def _n_fits(recordings: Recordings, job: FitJob) -> int:
    """Steps of the progress bar."""
    n_blocks, n_candidates = recordings.blocks.n_blocks, len(recordings.candidates)
    tried = n_candidates if n_candidates > 1 else 0
    nested = 0 if len(job.dataset.splits["test"]) else n_blocks * (2 * tried + 1)
    return recordings.n_units * (nested + n_blocks * tried + 1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Small arrays: threads that wait for each other cost more than they do."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
