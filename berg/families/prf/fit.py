"""Fit population receptive fields with compressive spatial summation to BOLD responses to a sequence of frames.

    frames -> contrast on a grid of the visual field -> Gaussian -> exponent -> haemodynamic response -> BOLD

Frames are maps of contrast in [0, 1] (moving bars, rings and wedges, any aperture), of shape (n_volumes, n_rows,
n_columns); or pictures, whose contrast is then measured as the model itself does. There is one frame per volume, and
``sampling_interval_s`` is the repetition time. Runs of the same sequence are presentations, and are averaged.

If the data have a split ``test``, it is predicted from the fit to the other volumes. Otherwise the recording is cut
into parts (``fit.cuts``, or ``fit.folds`` parts of equal length); each is predicted from the fit to the others, and the
model that is written is fitted to all volumes. The delay of the haemodynamic response is chosen by such
cross-validation, within the volumes that are fitted. The maths is in `berg.families.prf.receptive_fields`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from berg.core.card_schema import CardPart
from berg.core.exceptions import DatasetError, InvalidParameterError
from berg.evaluation import pearson_r, r2_score
from berg.families.prf.features import contrast_grid, contrast_map
from berg.families.prf.readout import effective_size
from berg.families.prf.receptive_fields import (
    BLOCK,
    Apertures,
    Candidates,
    HaemodynamicResponse,
    ReceptiveFields,
    Search,
    amplitude_and_baseline,
    candidate_fields,
    convolution_matrix,
    haemodynamic_response,
    predict_time_courses,
    refine,
)
from berg.fitting.card_agreement import check_agreement
from berg.fitting.fit_job import FitJob, Fitted, HeldOut
from berg.fitting.folds import split_folds
from berg.fitting.kept import kept
from berg.system.progress import AdvanceAndTell, progress_bar
from berg.weights.safetensors_files import read_safetensors, write_safetensors

HOLDS_OUT = True
"""The fit returns what it held out: it is not evaluated on the split ``test``."""
METADATA = (
    "x_deg", "y_deg", "size_deg", "exponent", "amplitude", "baseline", "eccentricity_deg", "polar_angle_deg",
    "effective_size_deg", "held_out_r", "held_out_r2", "in_sample_r2", "reliable",
)  # fmt: skip
"""Coordinates that the fit finds: the accuracies and ``reliable`` at ``encoding_models``, all others at ``fmri``."""

FRAMES_AT_ONCE = 16
Volumes = NDArray[np.intp]
Floats = NDArray[np.float64]


class ApertureGrid(CardPart):
    """Where the maps of contrast lie in the visual field, if the stimulus file has no such attributes."""

    x_deg: tuple[float, float] = Field(description="middles of the first and last column, right positive")
    y_deg: tuple[float, float] = Field(description="middles of the first and last row, up positive")


class Reliable(CardPart):
    """Of which voxels the receptive field can be believed."""

    held_out_r2: float = Field(default=0.1, description="at least")
    effective_size_deg: float = Field(
        default=5.0, gt=0, description="at most; the centre must also lie in the mapped field"
    )


class FitSettings(CardPart):
    """What the card says under ``fit``."""

    aperture: ApertureGrid | None = None
    cuts: list[int] | None = Field(None, description="volumes at which the recording is cut into parts")
    folds: int = Field(2, ge=2, description="how many parts of equal length, without cuts")
    haemodynamic_response: HaemodynamicResponse = HaemodynamicResponse()
    search: Search = Search()
    reliable: Reliable = Reliable()
    least_shift: int = Field(10, ge=1, description="volumes; rotations of the recording that chance is judged by")


def check(job: FitJob) -> Collection[str]:
    """Raise if the card and the data do not belong together, or the stimuli are no sequence.

    Returns
    -------
    usual
        ``splits``: without a test split there is cross-validation.
    """
    check_agreement(job.card, job.dataset, METADATA)
    if not job.dataset.is_sequence:
        raise DatasetError(
            "The family prf is fitted to frames of one sequence and the volumes recorded during it. Write the "
            "repetition time into dataset.yaml:  sampling_interval_s: 1.5"
        )
    shape = tuple(getattr(job.dataset.stimuli, "shape", (0, 3, 0, 0)))
    if not (len(shape) == 3 or (len(shape) == 4 and shape[1] == 3)):
        raise DatasetError(
            f"The stimuli have shape {shape}. Give maps of contrast, (n_volumes, n_rows, n_columns), or pictures, "
            "(n_volumes, 3, height, width)."
        )
    _centres(job)
    _parts(job, _settings(job), _fitted_volumes(job))
    return ("splits",)


def fit(job: FitJob) -> Fitted:
    """Receptive field, exponent, amplitude and baseline of every voxel, with held-out accuracy.

    An interrupted fit goes on: what is done is kept, block of voxels by block of voxels.

    Raises
    ------
    DatasetError
        If the stimuli are no sequence, or no maps of contrast or pictures.
    InvalidParameterError
        If the card and the data do not belong together.
    """
    recording = _read(job)
    total = recording.n_steps
    with progress_bar("receptive fields", total, "steps", job.show_progress) as advance:
        return _fitted(job, recording, advance)


def peak_bytes(job: FitJob) -> int:
    """Bytes that `fit` needs at its peak, beyond what the process holds before."""
    settings, output, (x, y) = _settings(job), job.output, _centres(job)
    n_volumes, n_voxels, n_cells = len(job.dataset.stimulus_names), output.n_units, len(x) * len(y)
    n_candidates = len(candidate_fields(Apertures(torch.empty(0), x, y, None).field, settings.search))
    block = min(BLOCK, n_voxels)
    whole = 8 * n_volumes * (8 * n_voxels + n_cells)
    candidates = 8 * 4 * n_volumes * n_candidates
    search = 8 * n_candidates * (3 * block + 8)
    refinement = 8 * block * (40 * n_volumes + 8 * n_cells)
    delays = 8 * n_voxels * (len(settings.haemodynamic_response.delays_s) + 6 * n_volumes)
    return 150_000_000 + whole + candidates + max(search, refinement) + delays


@dataclass(frozen=True)
class _Recording:
    """What is fitted: stimulus, responses, and which volumes predict which.

    `pairs` are the volumes that are fitted and those that they predict, for the held-out accuracy; `parts` those among
    which the delay is chosen.
    """

    settings: FitSettings
    apertures: Apertures
    bold: Tensor  # (n_volumes, n_voxels)
    interval_s: float
    volumes: Volumes  # that the model is fitted to
    parts: list[Volumes]
    pairs: list[tuple[Volumes, Volumes]]
    split: str
    job: FitJob

    @property
    def n_steps(self) -> int:
        """Steps of the progress bar: one per candidate search and per step of a refinement."""
        n_blocks = -(-self.bold.shape[1] // BLOCK)
        n_fits = len({_key(fitted) for fitted, _ in self.pairs} | {_key(self.volumes)})
        n_delays = len(self.settings.haemodynamic_response.delays_s)
        return n_delays * (n_delays > 1) + n_fits * n_blocks * self.settings.search.steps

    def hrf(self, delay_s: float) -> Tensor:
        """The matrix from steady state to BOLD."""
        response = haemodynamic_response(delay_s, self.interval_s, self.settings.haemodynamic_response)
        return convolution_matrix(response, len(self.bold)).to(self.bold.device)

    @cached_property
    def candidates(self) -> ReceptiveFields:
        """Receptive fields to begin with."""
        found = candidate_fields(self.apertures.field, self.settings.search)
        return ReceptiveFields(*(values.to(self.bold.device) for values in vars(found).values()))


def _fitted(job: FitJob, recording: _Recording, advance: AdvanceAndTell) -> Fitted:
    bold = recording.bold
    delay_s = _choose_delay(recording, advance)
    hrf = recording.hrf(delay_s)
    held_out = torch.full_like(bold, torch.nan)
    for fitted, predicted in recording.pairs:
        held_out[predicted] = _predict(recording, hrf, delay_s, fitted, advance)[predicted]
    fields = _fit_fields(recording, hrf, delay_s, recording.volumes, advance)
    time_courses = predict_time_courses(recording.apertures, fields, hrf)
    amplitude, baseline = amplitude_and_baseline(time_courses[recording.volumes], bold[recording.volumes])
    courses = time_courses * amplitude + baseline
    found = _Found(recording, delay_s, fields, amplitude, baseline, _numpy(held_out), _numpy(courses))
    tensors = {name: values.astype(np.float32) for name, values in found.parameters.items()}
    (name,) = job.dataset.outputs
    measured = HeldOut(found.measured, found.predicted, recording.split, in_time=True)
    return Fitted(tensors, found.metadata(), found.facts(), {name: measured}, _sample(job, recording.apertures))


def _choose_delay(recording: _Recording, advance: AdvanceAndTell) -> float:
    """The haemodynamic delay with the best mean held-out r2.

    In a part of a recording, with one sweep of a bar in each direction, a late response and a displaced receptive
    field look alike; only the other parts tell them apart. The coarse search is enough for that. The mean is over the
    voxels that are predicted at any of the delays.
    """
    delays = recording.settings.haemodynamic_response.delays_s
    if len(delays) == 1:
        return delays[0]
    by_delay = np.stack([_kept_r2(recording, delay_s, advance) for delay_s in delays])  # (n_delays, n_voxels)
    by_delay = np.nan_to_num(by_delay, nan=-np.inf)
    responsive = by_delay.max(0) > recording.settings.reliable.held_out_r2
    if not responsive.any():
        responsive |= np.isfinite(by_delay).all(0)
    return delays[int(by_delay[:, responsive].mean(1).argmax())]


def _kept_r2(recording: _Recording, delay_s: float, advance: AdvanceAndTell) -> Floats:
    path = recording.job.work / f"delay_{delay_s:g}.safetensors"
    r2 = kept(path, lambda: {"r2": _coarse_r2(recording, delay_s)})["r2"]
    advance(1, f"haemodynamic delay {delay_s:g} s")
    return r2


def _coarse_r2(recording: _Recording, delay_s: float) -> Floats:
    """Held-out r2 of the best candidates, shape (n_voxels,)."""
    apertures, bold, hrf = recording.apertures, recording.bold, recording.hrf(delay_s)
    candidates = Candidates.at(apertures, recording.candidates, hrf)
    predicted = torch.full_like(bold, torch.nan)
    for fitted, held_out in _pairs(recording.parts):
        best = candidates.best(torch.from_numpy(fitted), bold[fitted], recording.settings.search)
        courses = predict_time_courses(apertures, best, hrf)
        amplitude, baseline = amplitude_and_baseline(courses[fitted], bold[fitted])
        predicted[held_out] = courses[held_out] * amplitude + baseline
    volumes = np.sort(np.concatenate(recording.parts))
    return r2_score(_numpy(bold[volumes]), _numpy(predicted[volumes]))


def _predict(recording: _Recording, hrf: Tensor, delay_s: float, fitted: Volumes, advance: AdvanceAndTell) -> Tensor:
    """All volumes, with receptive field, amplitude and baseline of some; shape (n_volumes, n_voxels)."""
    fields = _fit_fields(recording, hrf, delay_s, fitted, advance)
    time_courses = predict_time_courses(recording.apertures, fields, hrf)
    amplitude, baseline = amplitude_and_baseline(time_courses[fitted], recording.bold[fitted])
    return time_courses * amplitude + baseline


def _fit_fields(
    recording: _Recording, hrf: Tensor, delay_s: float, fitted: Volumes, advance: AdvanceAndTell
) -> ReceptiveFields:
    """Receptive fields of all voxels from some volumes: search, then refine; each block is kept."""
    search, steps = recording.settings.search, recording.settings.search.steps
    candidates: Candidates | None = None
    parts = []
    for start in range(0, recording.bold.shape[1], BLOCK):
        advance(0, f"volumes {_words(fitted)}, voxels from {start:,}")
        path = recording.job.work / f"fields_{_key(fitted)}_{start}.safetensors"
        if path.is_file():
            parts.append(ReceptiveFields(*(_tensor(read_safetensors(path)[name], hrf) for name in _FIELDS)))
            advance(steps)
            continue
        candidates = candidates or Candidates.at(recording.apertures, recording.candidates, hrf)
        volumes, bold = torch.from_numpy(fitted), recording.bold[fitted, start : start + BLOCK]
        begin = candidates.best(volumes, bold, search)
        parts.append(refine(recording.apertures, hrf, volumes, bold, begin, search, advance))
        write_safetensors(path, {name: _numpy(getattr(parts[-1], name)) for name in _FIELDS})
    return ReceptiveFields.joined(parts)


_FIELDS = ("x", "y", "size", "exponent")


@dataclass(frozen=True)
class _Found:
    """A fit, and what follows from it."""

    recording: _Recording
    delay_s: float
    fields: ReceptiveFields
    amplitude: Tensor
    baseline: Tensor
    held_out: Floats  # (n_volumes, n_voxels), NaN where nothing was held out
    courses: Floats

    @property
    def parameters(self) -> dict[str, Floats]:
        """The weights."""
        own = self.fields
        values = (own.x, own.y, own.size, own.exponent, self.amplitude, self.baseline)
        names = ("x_deg", "y_deg", "size_deg", "exponent", "amplitude", "baseline")
        return {name: _numpy(each) for name, each in zip(names, values, strict=True)}

    @cached_property
    def _volumes(self) -> Volumes:
        return np.sort(np.concatenate([predicted for _, predicted in self.recording.pairs]))

    @property
    def measured(self) -> Floats:
        """Of the held-out volumes."""
        return _numpy(self.recording.bold)[self._volumes]

    @property
    def predicted(self) -> Floats:
        """Of the held-out volumes."""
        return self.held_out[self._volumes]

    @cached_property
    def accuracy(self) -> dict[str, Floats]:
        """By name, each of shape (n_voxels,)."""
        own = self.recording.volumes
        return {
            "held_out_r": np.nan_to_num(pearson_r(self.measured, self.predicted)),
            "held_out_r2": r2_score(self.measured, self.predicted),
            "in_sample_r2": r2_score(_numpy(self.recording.bold)[own], self.courses[own]),
        }

    @cached_property
    def reliable(self) -> NDArray[np.bool_]:
        """Of which voxels the receptive field can be believed."""
        left, right, bottom, top = self.recording.apertures.field
        own, rule = self.fields, self.recording.settings.reliable
        inside = (left < own.x) & (own.x < right) & (bottom < own.y) & (own.y < top)
        small = effective_size(own.size, own.exponent) < rule.effective_size_deg
        predicted = self.accuracy["held_out_r2"] > rule.held_out_r2
        return np.asarray(predicted & (inside & small).cpu().numpy())

    def metadata(self) -> dict[str, Any]:
        """What is known of every voxel, and of the fit."""
        own = self.fields
        described = {
            **self.parameters,
            "eccentricity_deg": _numpy(torch.hypot(own.x, own.y)),
            "polar_angle_deg": _numpy(torch.rad2deg(torch.atan2(own.y, own.x))),
            "effective_size_deg": _numpy(effective_size(own.size, own.exponent)),
        }
        accuracy = {name: _rounded(values) for name, values in self.accuracy.items()}
        return {
            "fmri": {name: _rounded(values) for name, values in described.items()},
            "encoding_models": {**accuracy, "reliable": self.reliable.tolist(), **self._description()},
        }

    def _description(self) -> dict[str, Any]:
        recording, settings = self.recording, self.recording.settings
        shape, search, rule = settings.haemodynamic_response, settings.search, settings.reliable
        left, right, bottom, top = (round(edge, 6) for edge in recording.apertures.field)
        return {
            "n_volumes": len(recording.bold),
            "tr_s": recording.interval_s,
            "folds": [{"fitted": _runs(one), "held_out": _runs(other)} for one, other in recording.pairs],
            "held_out": "Predictions of all folds joined, then compared with the volumes that they are of.",
            "hrf": {
                "shape": "double gamma (SPM), integrated over each volume, sum 1",
                "delay_s": self.delay_s,
                "undershoot_delay_s": self.delay_s + shape.undershoot_lag_s,
                "undershoot_ratio": round(shape.undershoot_ratio, 6),
            },
            "reliable_criterion": (
                f"held_out_r2 > {rule.held_out_r2:g}, centre inside the mapped field, "
                f"size_deg / sqrt(exponent) < {rule.effective_size_deg:g} degrees"
            ),
            "null_held_out_r2_percentile_99": self._null_percentile(),
            "mapped_field_deg": {"left": left, "right": right, "bottom": bottom, "top": top},
            "polar_angle_convention": "0 right, 90 up, -90 down, +-180 left",
            "penalty": {
                "weight": search.penalty,
                "typical_exponent": search.typical_exponent,
                "weakest_modulation": search.weakest_modulation,
            },
        }

    def _null_percentile(self) -> float | None:
        r2 = null_r2(self.recording.bold, self.held_out, self.recording)
        known = r2[np.isfinite(r2)]
        return round(float(np.percentile(known, 99)), 4) if known.size else None

    def facts(self) -> dict[str, Any]:
        """For the report."""
        chosen, accuracy = self.reliable, self.accuracy
        facts: dict[str, Any] = {
            "haemodynamic_delay_s": self.delay_s,
            "n_voxels": len(chosen),
            "n_reliable": int(chosen.sum()),
        }
        for name, values in accuracy.items():
            for words, own in (("", values), ("_reliable", values[chosen])):
                known = own[np.isfinite(own)]
                facts[f"median_{name}{words}"] = round(float(np.median(known)), 4) if known.size else None
        return facts


def null_r2(bold: Tensor, held_out: Floats, recording: _Recording) -> Floats:
    """r2 of the held-out predictions against recordings that are rotated in time.

    Each part is rotated within itself, which keeps its spectrum and its size but not its timing. Receptive fields of
    other places and wide responses still agree somewhat with a rotated recording, so the distribution errs on the high
    side.

    Returns
    -------
    r2
        Shape (n_shifts, n_voxels); shifts shorter than the response itself are left out, in both directions.
    """
    parts = [predicted for _, predicted in recording.pairs]
    least = recording.settings.least_shift
    shifts = range(least, min(map(len, parts)) - least)
    volumes = np.concatenate(parts)
    found = [
        r2_score(_numpy(torch.cat([bold[part].roll(shift, 0) for part in parts])), held_out[volumes])
        for shift in shifts
    ]
    return np.stack(found) if found else np.empty((0, bold.shape[1]))


def _read(job: FitJob) -> _Recording:
    settings, dataset = _settings(job), job.dataset
    n_volumes, output = len(dataset.stimulus_names), job.output
    device = torch.device("cpu") if job.device.type == "mps" else job.device  # mps has no float64
    bold = torch.from_numpy(output.mean(np.arange(n_volumes))).double().to(device)
    volumes, test = _fitted_volumes(job), dataset.splits["test"]
    parts = _parts(job, settings, volumes)
    if len(test):
        pairs, split = [(volumes, test)], "test"
    else:
        pairs, split = _pairs(parts), f"cross-validation over {len(parts)} parts of the recording"
    interval = float(dataset.sampling_interval_s or 0)
    return _Recording(settings, _apertures(job, device), bold, interval, volumes, parts, pairs, split, job)


def _settings(job: FitJob) -> FitSettings:
    return job.card.part("fit", FitSettings)


def _fitted_volumes(job: FitJob) -> Volumes:
    splits = job.dataset.splits
    return np.sort(np.concatenate([splits["train"], splits["validation"]]))


def _parts(job: FitJob, settings: FitSettings, volumes: Volumes) -> list[Volumes]:
    """The volumes that are fitted, in parts; the first is the one that is predicted last."""
    groups = job.dataset.groups_of(volumes)
    if settings.cuts is None and groups is not None:
        parts = [volumes[part] for part in split_folds(len(volumes), settings.folds, None, groups)]
    elif settings.cuts is None:
        parts = np.array_split(volumes, settings.folds)
    else:
        parts = np.split(volumes, np.searchsorted(volumes, settings.cuts))
    if len(parts) < 2 or min(map(len, parts)) < 2:
        raise InvalidParameterError(
            f"fit.cuts {settings.cuts} and fit.folds {settings.folds} make parts of {list(map(len, parts))} volumes "
            f"out of {len(volumes)}; there must be two or more, of two volumes or more."
        )
    _check_groups_whole(job, parts)
    return list(parts)


def _check_groups_whole(job: FitJob, parts: Sequence[Volumes]) -> None:
    """Raise if the volumes of one group are in two parts, of which one is predicted from the other."""
    groups = job.dataset.groups
    own = [] if groups is None else [set(groups[part].tolist()) for part in parts]
    if sum(map(len, own)) > len(set().union(*own)):
        raise InvalidParameterError(
            "fit.cuts divides groups of volumes, which must stay together. Cut where one group ends and the next "
            "begins, or leave out the cuts."
        )


def _pairs(parts: Sequence[Volumes]) -> list[tuple[Volumes, Volumes]]:
    """What is fitted, and what is predicted from it."""
    others = [np.concatenate([*parts[:place], *parts[place + 1 :]]) for place in range(len(parts))]
    return list(zip(others, parts, strict=True))[::-1]


def _apertures(job: FitJob, device: torch.device) -> Apertures:
    volumes = np.arange(len(job.dataset.stimulus_names))
    blocks = np.array_split(volumes, -(-len(volumes) // FRAMES_AT_ONCE))
    maps = torch.cat([_contrast(job, job.dataset.read_stimuli(block)) for block in blocks])
    return Apertures.of(*(each.to(device) for each in (maps, *_centres(job))))


def _contrast(job: FitJob, frames: NDArray[Any]) -> Tensor:
    """Maps of contrast, shape (n_frames, n_rows, n_columns)."""
    if frames.ndim != 3:
        return contrast_map(torch.from_numpy(frames), float(job.parameters["stimulus_width_deg"])).double()
    if not (np.isfinite(frames).all() and frames.min() >= 0 and frames.max() <= 1):
        raise DatasetError(
            f"The maps of contrast lie in [{frames.min():g}, {frames.max():g}]; they must lie in [0, 1]. Divide them "
            "by the value of full contrast."
        )
    return torch.from_numpy(frames.astype(np.float64))


def _has_maps(job: FitJob) -> bool:
    """Whether the stimuli are maps of contrast, and not pictures."""
    return len(getattr(job.dataset.stimuli, "shape", ())) == 3


def _centres(job: FitJob) -> tuple[Tensor, Tensor]:
    """Middles of the columns and rows of the maps of contrast, degrees."""
    if not _has_maps(job):
        width = float(job.parameters["stimulus_width_deg"])
        grid = contrast_grid(job.dataset.read_stimuli([0]).shape, width, dtype=torch.float64)
        return grid.x_centres, grid.y_centres
    _, n_rows, n_columns = job.dataset.stimuli.shape
    return _middles(job, "x_deg", n_columns), _middles(job, "y_deg", n_rows)


def _middles(job: FitJob, name: Literal["x_deg", "y_deg"], n_cells: int) -> Tensor:
    """What the card says, or an attribute of the stimulus file."""
    attributes = getattr(getattr(job.dataset.stimuli, "array", None), "attrs", {})
    if (aperture := _settings(job).aperture) is not None:
        first, last = aperture.x_deg if name == "x_deg" else aperture.y_deg
        return torch.from_numpy(np.linspace(first, last, n_cells))
    if name not in attributes:
        raise DatasetError(
            "The stimuli are maps of contrast, and nothing says where in the visual field they lie. Write the middles "
            "of the first and last column and row, in degrees, into the card:  fit: {aperture: {x_deg: [-9, 9], "
            "y_deg: [5, -5]}}"
        )
    values = np.array(attributes[name], np.float64)
    if values.shape != (n_cells,):
        raise DatasetError(f"Attribute {name} of the stimuli has shape {values.shape}; the maps have {n_cells} cells.")
    return torch.from_numpy(values)


def _sample(job: FitJob, apertures: Apertures, n: int = 4) -> NDArray[np.uint8] | None:
    """Pictures of a checkerboard under a few of the maps of contrast, where these are not pictures themselves."""
    if not _has_maps(job):
        return None
    rows, columns = apertures.maps.shape[1:]
    seen = apertures.maps[apertures.maps.amax((1, 2)).argsort(descending=True, stable=True)[:n]].cpu().numpy()
    checks = 1 - 2 * (np.add.outer(np.arange(rows), np.arange(columns)) % 2)
    grey = np.round(127.5 + 127.5 * seen * checks).astype(np.uint8)
    return np.repeat(grey.repeat(4, 1).repeat(4, 2)[:, None], 3, axis=1)


def _key(volumes: Volumes) -> str:
    return "-".join(f"{first}_{stop}" for first, stop in _list_of_runs(volumes))


def _words(volumes: Volumes) -> str:
    return " and ".join(f"{first} to {stop - 1}" for first, stop in _list_of_runs(volumes))


def _runs(volumes: Volumes) -> list[Any]:
    """[first, stop] of volumes in a row, or a list of such."""
    runs = _list_of_runs(volumes)
    return runs[0] if len(runs) == 1 else runs


def _list_of_runs(volumes: Volumes) -> list[list[int]]:
    runs = np.split(volumes, np.flatnonzero(np.diff(volumes) > 1) + 1)
    return [[int(run[0]), int(run[-1]) + 1] for run in runs]


def _tensor(values: Floats, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like)


def _numpy(values: Tensor) -> Floats:
    return values.detach().cpu().numpy()


def _rounded(values: Floats) -> list[float]:
    """Six significant digits: more than the fit knows, and a third of the file's size."""
    return [float(f"{value:.6g}") for value in values.tolist()]
