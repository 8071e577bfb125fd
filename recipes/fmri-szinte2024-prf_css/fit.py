r"""Fit the population receptive fields of fmri-szinte2024-prf_css to moving bars.

    python recipes/fmri-szinte2024-prf_css/fit.py --data DIR --out DIR

For voxel v and volume t, with the bar's contrast :math:`c_t` on a grid of the visual field,

.. math::
    y_{tv} = b_v + \sum_k h_k \, a_v \left[(c_{t-k} \cdot w_v + \epsilon)^{n_v} - \epsilon^{n_v}
             \right] + \mathrm{noise}

where w is a Gaussian (centre, size) and h a haemodynamic response that adds up to 1, so that the
amplitude a is the response to contrast that stays on. README.md beside this file says what was
decided, and why.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.numpy import save_file
from scipy.stats import gamma
from torch import Tensor

from berg.readouts.prf import css_response, effective_size, gaussian_interval_weights

TR_S = 1.317025
FULL_CONTRAST_CODE = 9  # the design matrix counts 9 for a grid point wholly inside the bar
X_SWEEPS = (slice(10, 42), slice(80, 112))  # volumes in which a vertical bar moves along x
Y_SWEEPS = (slice(52, 70), slice(122, 140))  # volumes in which a horizontal bar moves along y
SPLIT_VOLUME = 80  # the end of a blank period: one x and one y sweep on either side

# SPM's canonical response has 6 s; the shape stays, the delay is chosen for the whole subject.
RESPONSE_DELAYS_S = (3.5, 3.75, 4.0, 4.25, 4.5, 4.75, 5.0, 5.25, 5.5, 5.75, 6.0)
UNDERSHOOT_LAG_S = 10.0
UNDERSHOOT_RATIO = 1 / 6
RESPONSE_LENGTH_S = 32.0

CENTRE_MARGIN_DEG = 3.0  # how far beyond the mapped field a centre may lie
SIZE_BOUNDS_DEG = (0.2, 10.0)  # the bar moves 0.58 degrees a volume: smaller ones look alike
EXPONENT_BOUNDS = (0.1, 1.5)
TYPICAL_EXPONENT = 0.5
WEAKEST_MODULATION = 0.05  # sd over time at amplitude 1; below it the bars hardly reach the voxel
PENALTY = 0.03  # fraction of variance per squared log ratio, for both of the above

REFINEMENT_STEPS = 400
LEARNING_RATE = 0.03

RELIABLE_HELD_OUT_R2 = 0.1
RELIABLE_SIZE_DEG = 5.0
RELIABLE_CRITERION = "held_out_r2 > 0.1, centre inside the mapped field, size_deg / sqrt(exponent) < 5 degrees"

SUBJECT = "subject-01"


@dataclass(frozen=True)
class Bars:
    """Bars as wide or as high as the screen: contrast is a profile over x times one over y.

    Parameters
    ----------
    x_profile
        Shape (n_volumes, n_columns), in [0, 1].
    y_profile
        Shape (n_volumes, n_rows), in [0, 1].
    x_centres
        Shape (n_columns,), degrees, right positive.
    y_centres
        Shape (n_rows,), degrees, up positive, from top to bottom.
    """

    x_profile: Tensor
    y_profile: Tensor
    x_centres: Tensor
    y_centres: Tensor

    @property
    def cell_size(self) -> tuple[float, float]:
        """Width and height of a cell, degrees."""
        spacing = [(c[-1] - c[0]).abs().item() / (len(c) - 1) for c in (self.x_centres, self.y_centres)]
        return spacing[0], spacing[1]

    @property
    def field(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the mapped field, degrees."""
        width, height = self.cell_size
        left, right = self.x_centres.min().item(), self.x_centres.max().item()
        bottom, top = self.y_centres.min().item(), self.y_centres.max().item()
        return left - width / 2, right + width / 2, bottom - height / 2, top + height / 2

    def contrast(self) -> Tensor:
        """Return the maps themselves, shape (n_volumes, n_rows, n_columns)."""
        return self.y_profile[:, :, None] * self.x_profile[:, None, :]


@dataclass(frozen=True)
class ReceptiveFields:
    """Shape of the receptive fields; each array has shape (n_voxels,).

    Parameters
    ----------
    x, y, size
        Centre and standard deviation of the Gaussian, degrees.
    exponent
        Of the compression.
    """

    x: Tensor
    y: Tensor
    size: Tensor
    exponent: Tensor

    def __getitem__(self, index: Tensor) -> ReceptiveFields:
        return ReceptiveFields(self.x[index], self.y[index], self.size[index], self.exponent[index])


# Reading --------------------------------------------------------------------------------------


def read_bars(data: Path) -> Bars:
    """Read the bars from the design matrix, without the fixation mark.

    The design matrix also holds the fixation mark, 8 grid points in the blank periods and up to 12
    during sweeps. A bar spans the screen, so the median along it is the bar without the mark.

    Parameters
    ----------
    data
        Folder with ``dm_gazecenter.npz`` and ``grid_coordinates.tsv``.

    Returns
    -------
    bars
        150 volumes on 80 columns and 45 rows.
    """
    # (n_volumes, n_columns, n_rows)
    design = np.load(data / "dm_gazecenter.npz")["arr_0"].astype(np.float64) / FULL_CONTRAST_CODE
    n_volumes, n_columns, n_rows = design.shape
    points = pd.read_csv(data / "grid_coordinates.tsv", sep="\t").to_numpy(np.float64)
    points = points.reshape(n_columns, n_rows, 2)
    x_profile, y_profile = np.zeros((n_volumes, n_columns)), np.zeros((n_volumes, n_rows))
    for sweep in X_SWEEPS:
        x_profile[sweep], y_profile[sweep] = np.median(design[sweep], axis=2), 1
    for sweep in Y_SWEEPS:
        x_profile[sweep], y_profile[sweep] = 1, np.median(design[sweep], axis=1)
    arrays = (x_profile, y_profile, points[:, 0, 0], points[0, :, 1])
    return Bars(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


def read_bold(data: Path) -> tuple[Tensor, np.ndarray]:
    """Read the recording of the voxels that vary.

    Parameters
    ----------
    data
        Folder with ``mask-v1_bold.tsv.gz``.

    Returns
    -------
    bold
        Shape (n_volumes, n_voxels), unit as published, mean 0 per voxel.
    source_voxel
        Shape (n_voxels,), column of the voxel in the published file.
    """
    table = pd.read_csv(data / "mask-v1_bold.tsv.gz", sep="\t", index_col="time")
    bold = table.to_numpy(np.float64)
    varies = bold.std(axis=0) > 0
    return torch.from_numpy(bold[:, varies]), table.columns.to_numpy().astype(int)[varies]


# Model ----------------------------------------------------------------------------------------


def haemodynamic_response(delay_s: float) -> np.ndarray:
    """Return a double-gamma response sampled by volume, adding up to 1.

    SPM's canonical form (Friston et al. 1998, NeuroImage 7:30; Glover 1999, NeuroImage 9:416):
    a gamma density of mean `delay_s` less a sixth of one of mean `delay_s` + 10 s, dispersion 1 s.
    Each sample is the exact integral over one repetition time.

    Parameters
    ----------
    delay_s
        Delay of the response, seconds; SPM's default is 6.

    Returns
    -------
    response
        Shape (n_lags,), from lag 0.
    """
    edges = np.arange(0, RESPONSE_LENGTH_S + TR_S, TR_S)
    rise = gamma.cdf(edges, delay_s)
    undershoot = gamma.cdf(edges, delay_s + UNDERSHOOT_LAG_S)
    response = np.diff(rise - UNDERSHOOT_RATIO * undershoot)
    return response / response.sum()


def convolution_matrix(delay_s: float, n_volumes: int) -> Tensor:
    """Return the matrix that turns a steady-state response into BOLD.

    Parameters
    ----------
    delay_s
        Delay of the haemodynamic response, seconds.
    n_volumes
        Length of the recording.

    Returns
    -------
    matrix
        Shape (n_volumes, n_volumes), lower triangular.
    """
    matrix = np.zeros((n_volumes, n_volumes))
    for lag, weight in enumerate(haemodynamic_response(delay_s)[:n_volumes]):
        matrix += weight * np.eye(n_volumes, k=-lag)
    return torch.from_numpy(matrix)


def predict_time_courses(bars: Bars, fields: ReceptiveFields, hrf: Tensor) -> Tensor:
    """Predict BOLD at amplitude 1 and baseline 0.

    The drive of a bar is a product over x and y because both the bar and the Gaussian are; it is
    the same number as ``contrast.flatten(1) @ gaussian_cell_weights(...)``.

    Parameters
    ----------
    bars
        The stimulus, n_volumes long.
    fields
        Receptive fields of n_voxels.
    hrf
        Shape (n_volumes, n_volumes), from `convolution_matrix`.

    Returns
    -------
    time_courses
        Shape (n_volumes, n_voxels).
    """
    width, height = bars.cell_size
    over_x = gaussian_interval_weights(bars.x_centres, width, fields.x, fields.size)
    over_y = gaussian_interval_weights(bars.y_centres, height, fields.y, fields.size)
    drive = (bars.x_profile @ over_x) * (bars.y_profile @ over_y)
    return hrf @ css_response(drive, fields.exponent)


def amplitude_and_baseline(time_courses: Tensor, bold: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least-squares amplitude, below 0 where bars suppress, and the baseline of every voxel.

    Parameters
    ----------
    time_courses
        Shape (n_volumes, n_voxels), at amplitude 1.
    bold
        Shape (n_volumes, n_voxels), the unit of the recording.

    Returns
    -------
    amplitude, baseline
        Shape (n_voxels,), the unit of the recording.
    """
    centred = time_courses - time_courses.mean(0)
    covariance = (centred * (bold - bold.mean(0))).sum(0)
    amplitude = covariance / (centred**2).sum(0).clamp(min=1e-12)
    return amplitude, bold.mean(0) - amplitude * time_courses.mean(0)


# Fitting --------------------------------------------------------------------------------------


def candidate_fields(field: tuple[float, float, float, float]) -> ReceptiveFields:
    """Return receptive fields every half degree, of nine sizes and three exponents.

    Parameters
    ----------
    field
        Left, right, bottom and top of the mapped field, degrees.

    Returns
    -------
    fields
        About 35000 candidates.
    """
    left, right, bottom, top = field
    margin = CENTRE_MARGIN_DEG - 1
    axes = (
        torch.arange(left - margin, right + margin, 0.5, dtype=torch.float64),
        torch.arange(bottom - margin, top + margin, 0.5, dtype=torch.float64),
        torch.tensor([0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5], dtype=torch.float64),
        torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64),
    )
    return ReceptiveFields(*(axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")))


def penalty(exponent: Tensor, time_courses: Tensor) -> Tensor:
    r"""Return the price of parameters that the bars cannot determine.

    .. math:: 0.03 \left[ (\ln n / 0.5)^2 + \min(0, \ln s / 0.05)^2 \right]

    with s the standard deviation of the predicted time course at amplitude 1. Without the second
    term a voxel that the bars do not drive ends far outside the mapped field with an amplitude of
    any size, which a picture that does reach it would bring out.

    Parameters
    ----------
    exponent
        Shape (n_fields,).
    time_courses
        Shape (n_volumes, n_fields), at amplitude 1.

    Returns
    -------
    penalty
        Shape (n_fields,), as a fraction of the variance of the recording.
    """
    unusual = (exponent / TYPICAL_EXPONENT).log()
    modulation = time_courses.std(0, correction=0).clamp(min=1e-9)
    weak = (modulation / WEAKEST_MODULATION).log().clamp(max=0)
    return PENALTY * (unusual**2 + weak**2)


def search_candidates(time_courses: Tensor, candidates: ReceptiveFields, bold: Tensor) -> ReceptiveFields:
    """Return the best candidate of every voxel.

    Parameters
    ----------
    time_courses
        Shape (n_volumes, n_candidates), what the candidates predict.
    candidates
        Their receptive fields.
    bold
        Shape (n_volumes, n_voxels).

    Returns
    -------
    fields
        Of n_voxels.
    """
    r = _standardised(bold).T @ _standardised(time_courses)  # (n_voxels, n_candidates)
    loss = 1 - r**2 + penalty(candidates.exponent, time_courses)
    return candidates[loss.argmin(1)]


def refine(
    bars: Bars,
    hrf: Tensor,
    volumes: slice,
    bold: Tensor,
    start: ReceptiveFields,
    description: str | None = None,
) -> ReceptiveFields:
    """Improve all receptive fields together by gradient descent, inside their bounds.

    The loss of a voxel is the fraction of variance that is left by the best amplitude and
    baseline, plus `penalty`. What is returned is never worse than `start`.

    Parameters
    ----------
    bars
        The stimulus of the whole recording.
    hrf
        Shape (n_volumes, n_volumes), from `convolution_matrix`.
    volumes
        The volumes that are fitted.
    bold
        Shape (n_volumes_fitted, n_voxels).
    start
        Receptive fields of n_voxels.
    description
        Shown with a progress bar; none without it.

    Returns
    -------
    fields
        Of n_voxels.
    """
    target = _standardised(bold)
    parameters = _to_unbounded(start, bars.field).requires_grad_()
    best, best_loss = parameters.detach().clone(), torch.full_like(start.x, math.inf)
    optimiser = torch.optim.Adam([parameters], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, REFINEMENT_STEPS, eta_min=LEARNING_RATE / 50)
    steps = range(REFINEMENT_STEPS)
    for _ in track(steps, description or "", disable=description is None):
        optimiser.zero_grad()
        fields = _to_bounded(parameters, bars.field)
        time_courses = predict_time_courses(bars, fields, hrf)[volumes]
        r = (_standardised(time_courses) * target).sum(0)
        loss = 1 - r**2 + penalty(fields.exponent, time_courses)
        improved = loss.detach() < best_loss
        best = torch.where(improved, parameters.detach(), best)
        best_loss = torch.where(improved, loss.detach(), best_loss)
        loss.sum().backward()
        optimiser.step()
        schedule.step()
    return _to_bounded(best, bars.field)


def fit_fields(
    bars: Bars,
    bold: Tensor,
    delay_s: float,
    volumes: slice = slice(None),
    description: str | None = None,
) -> ReceptiveFields:
    """Fit receptive fields to some volumes: search, then refine.

    Parameters
    ----------
    bars
        The stimulus, n_volumes long.
    bold
        Shape (n_volumes, n_voxels); only `volumes` are looked at.
    delay_s
        Delay of the haemodynamic response, seconds.
    volumes
        The volumes to fit.
    description
        Shown with a progress bar; none without it.

    Returns
    -------
    fields
        Of n_voxels.
    """
    hrf = convolution_matrix(delay_s, len(bold))
    candidates = candidate_fields(bars.field)
    time_courses = predict_time_courses(bars, candidates, hrf)[volumes]
    start = search_candidates(time_courses, candidates, bold[volumes])
    return refine(bars, hrf, volumes, bold[volumes], start, description)


def choose_delay(bars: Bars, bold: Tensor) -> float:
    """Return the haemodynamic delay with the best mean held-out r2.

    A half of the recording holds one sweep in each direction, in which a late response and a
    displaced receptive field look alike; only the other half tells them apart. The coarse search
    is enough for that. The mean is over the voxels that are predicted at any of the delays.

    Parameters
    ----------
    bars
        The stimulus, n_volumes long.
    bold
        Shape (n_volumes, n_voxels).

    Returns
    -------
    delay_s
        One of `RESPONSE_DELAYS_S`.
    """
    candidates = candidate_fields(bars.field)
    held_out_r2 = []
    for delay_s in track(RESPONSE_DELAYS_S, "Delay of the haemodynamic response"):
        hrf = convolution_matrix(delay_s, len(bold))
        time_courses = predict_time_courses(bars, candidates, hrf)
        fields = [search_candidates(time_courses[v], candidates, bold[v]) for v in _halves(bold)]
        predicted = predict_held_out(bars, bold, delay_s, fields)
        held_out_r2.append(r2_score(bold, predicted))
    by_delay = torch.stack(held_out_r2)  # (n_delays, n_voxels)
    responsive = by_delay.amax(0) > RELIABLE_HELD_OUT_R2
    return RESPONSE_DELAYS_S[int(by_delay[:, responsive].mean(1).argmax())]


def predict_held_out(bars: Bars, bold: Tensor, delay_s: float, fields: Sequence[ReceptiveFields]) -> Tensor:
    """Predict each half with amplitude, baseline and receptive fields of the other.

    Parameters
    ----------
    bars
        The stimulus, n_volumes long.
    bold
        Shape (n_volumes, n_voxels).
    delay_s
        Delay of the haemodynamic response, seconds.
    fields
        Fitted to the first half and to the second.

    Returns
    -------
    predicted
        Shape (n_volumes, n_voxels), every volume predicted without having been fitted.
    """
    hrf = convolution_matrix(delay_s, len(bold))
    first, second = _halves(bold)
    predicted = torch.empty_like(bold)
    for fitted, held_out, of_half in zip((first, second), (second, first), fields, strict=True):
        time_courses = predict_time_courses(bars, of_half, hrf)
        amplitude, baseline = amplitude_and_baseline(time_courses[fitted], bold[fitted])
        predicted[held_out] = time_courses[held_out] * amplitude + baseline
    return predicted


# Accuracy -------------------------------------------------------------------------------------


def r2_score(bold: Tensor, predicted: Tensor) -> Tensor:
    r"""Return the coefficient of determination of every voxel.

    .. math:: R^2 = 1 - \sum_t (y_t - \hat y_t)^2 / \sum_t (y_t - \bar y)^2

    Parameters
    ----------
    bold, predicted
        Shape (n_volumes, n_voxels), the unit of the recording.

    Returns
    -------
    r2
        Shape (n_voxels,), at most 1; negative where the mean predicts better.
    """
    return 1 - ((bold - predicted) ** 2).sum(0) / ((bold - bold.mean(0)) ** 2).sum(0)


def pearson_r(bold: Tensor, predicted: Tensor) -> Tensor:
    """Return the correlation of every voxel, shape (n_voxels,); 0 where a prediction is constant."""
    return (_standardised(bold) * _standardised(predicted)).sum(0)


def null_r2(bold: Tensor, predicted: Tensor, least_shift: int = 10) -> np.ndarray:
    """Return r2 of the held-out predictions against recordings that are rotated in time.

    Each half is rotated within itself, which keeps its spectrum and its size but not its timing.
    Receptive fields of other places and wide responses still agree somewhat with a rotated
    recording, so the distribution errs on the high side.

    Parameters
    ----------
    bold, predicted
        Shape (n_volumes, n_voxels).
    least_shift
        Volumes; shifts shorter than the response itself are left out, in both directions.

    Returns
    -------
    r2
        Shape (n_shifts, n_voxels).
    """
    first, second = _halves(bold)
    shifts = range(least_shift, min(len(bold[first]), len(bold[second])) - least_shift)
    rotated = (torch.cat([bold[first].roll(shift, 0), bold[second].roll(shift, 0)]) for shift in shifts)
    return torch.stack([r2_score(recording, predicted) for recording in rotated]).numpy()


def is_reliable(fields: ReceptiveFields, held_out_r2: Tensor, bars: Bars) -> Tensor:
    """Say of which voxels the receptive field can be believed (`RELIABLE_CRITERION`).

    Parameters
    ----------
    fields
        Of n_voxels.
    held_out_r2
        Shape (n_voxels,).
    bars
        The stimulus, for the extent of the mapped field.

    Returns
    -------
    reliable
        Shape (n_voxels,), bool.
    """
    left, right, bottom, top = bars.field
    inside = (left < fields.x) & (fields.x < right) & (bottom < fields.y) & (fields.y < top)
    small = effective_size(fields.size, fields.exponent) < RELIABLE_SIZE_DEG
    return (held_out_r2 > RELIABLE_HELD_OUT_R2) & inside & small


# Writing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Everything that is written; arrays have shape (n_voxels,)."""

    fields: ReceptiveFields
    amplitude: Tensor
    baseline: Tensor
    held_out_r: Tensor
    held_out_r2: Tensor
    in_sample_r2: Tensor
    reliable: Tensor
    delay_s: float
    null: np.ndarray
    seconds: float


def fit_recording(bars: Bars, bold: Tensor) -> Fit:
    """Choose the delay, measure held-out accuracy, and fit all volumes.

    Parameters
    ----------
    bars
        The stimulus, n_volumes long.
    bold
        Shape (n_volumes, n_voxels).

    Returns
    -------
    fit
        Of n_voxels.
    """
    started = time.perf_counter()
    delay_s = choose_delay(bars, bold)
    names = ("First half of the recording", "Second half of the recording")
    of_halves = [fit_fields(bars, bold, delay_s, half, name) for half, name in zip(_halves(bold), names, strict=True)]
    held_out = predict_held_out(bars, bold, delay_s, of_halves)
    fields = fit_fields(bars, bold, delay_s, description="All volumes")
    time_courses = predict_time_courses(bars, fields, convolution_matrix(delay_s, len(bold)))
    amplitude, baseline = amplitude_and_baseline(time_courses, bold)
    held_out_r2 = r2_score(bold, held_out)
    return Fit(
        fields=fields,
        amplitude=amplitude,
        baseline=baseline,
        held_out_r=pearson_r(bold, held_out),
        held_out_r2=held_out_r2,
        in_sample_r2=r2_score(bold, time_courses * amplitude + baseline),
        reliable=is_reliable(fields, held_out_r2, bars),
        delay_s=delay_s,
        null=null_r2(bold, held_out),
        seconds=time.perf_counter() - started,
    )


def write_weights(fit: Fit, folder: Path) -> None:
    """Write the parameters, float32 of shape (n_voxels,) each, as safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: np.ascontiguousarray(values.numpy().astype(np.float32)) for name, values in _parameters(fit).items()
    }
    save_file(weights, folder / f"weights_{SUBJECT}.safetensors")


def write_metadata(fit: Fit, bars: Bars, source_voxel: np.ndarray, folder: Path) -> None:
    """Write what is known of every voxel, and of the fit, as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {
        "fmri": {
            "source_voxel": source_voxel.tolist(),
            "roi": ["V1"] * len(source_voxel),
            **{name: _rounded(values) for name, values in _voxel_facts(fit).items()},
        },
        "encoding_models": {
            "held_out_r": _rounded(fit.held_out_r),
            "held_out_r2": _rounded(fit.held_out_r2),
            "in_sample_r2": _rounded(fit.in_sample_r2),
            "reliable": fit.reliable.tolist(),
            **_fit_facts(fit, bars),
        },
    }
    text = json.dumps(metadata, allow_nan=False, separators=(",", ":"))
    (folder / f"metadata_{SUBJECT}.json").write_text(text + "\n", encoding="utf-8")


def _parameters(fit: Fit) -> dict[str, Tensor]:
    return {
        "x_deg": fit.fields.x,
        "y_deg": fit.fields.y,
        "size_deg": fit.fields.size,
        "exponent": fit.fields.exponent,
        "amplitude": fit.amplitude,
        "baseline": fit.baseline,
    }


def _voxel_facts(fit: Fit) -> dict[str, Tensor]:
    x, y = fit.fields.x, fit.fields.y
    return {
        **_parameters(fit),
        "eccentricity_deg": torch.hypot(x, y),
        "polar_angle_deg": torch.rad2deg(torch.atan2(y, x)),
        "effective_size_deg": effective_size(fit.fields.size, fit.fields.exponent),
    }


def _fit_facts(fit: Fit, bars: Bars) -> dict[str, object]:
    n_volumes = len(bars.x_profile)
    left, right, bottom, top = (round(edge, 6) for edge in bars.field)
    return {
        "n_volumes": n_volumes,
        "tr_s": TR_S,
        "folds": [
            {"fitted": [0, SPLIT_VOLUME], "held_out": [SPLIT_VOLUME, n_volumes]},
            {"fitted": [SPLIT_VOLUME, n_volumes], "held_out": [0, SPLIT_VOLUME]},
        ],
        "held_out": "Predictions of both folds joined, then compared with all volumes.",
        "hrf": {
            "shape": "double gamma (SPM), integrated over each volume, sum 1",
            "delay_s": fit.delay_s,
            "undershoot_delay_s": fit.delay_s + UNDERSHOOT_LAG_S,
            "undershoot_ratio": round(UNDERSHOOT_RATIO, 6),
        },
        "reliable_criterion": RELIABLE_CRITERION,
        "null_held_out_r2_percentile_99": round(float(np.percentile(fit.null, 99)), 4),
        "mapped_field_deg": {"left": left, "right": right, "bottom": bottom, "top": top},
        "polar_angle_convention": "0 right, 90 up, -90 down, +-180 left",
        "penalty": {
            "weight": PENALTY,
            "typical_exponent": TYPICAL_EXPONENT,
            "weakest_modulation": WEAKEST_MODULATION,
        },
    }


def _rounded(values: Tensor) -> list[float]:
    """Six significant digits: more than the fit knows, and a third of the file's size."""
    return [float(f"{value:.6g}") for value in values.tolist()]


# Small pieces of the fit ------------------------------------------------------------------------


def _halves(bold: Tensor) -> tuple[slice, slice]:
    return slice(0, SPLIT_VOLUME), slice(SPLIT_VOLUME, len(bold))


def _standardised(time_courses: Tensor) -> Tensor:
    """Remove the mean and divide by the norm; constant columns become 0."""
    centred = time_courses - time_courses.mean(0)
    return centred / centred.norm(dim=0).clamp(min=1e-9)


def _bounds(field: tuple[float, float, float, float]) -> Tensor:
    """Return lower and upper bounds of x, y, log size, exponent; shape (2, 4, 1)."""
    left, right, bottom, top = field
    smallest, largest = (math.log(size) for size in SIZE_BOUNDS_DEG)
    lower = [left - CENTRE_MARGIN_DEG, bottom - CENTRE_MARGIN_DEG, smallest, EXPONENT_BOUNDS[0]]
    upper = [right + CENTRE_MARGIN_DEG, top + CENTRE_MARGIN_DEG, largest, EXPONENT_BOUNDS[1]]
    return torch.tensor([lower, upper], dtype=torch.float64)[:, :, None]


def _to_unbounded(fields: ReceptiveFields, field: tuple[float, float, float, float]) -> Tensor:
    """Return parameters without bounds, shape (4, n_voxels)."""
    lower, upper = _bounds(field)
    values = torch.stack([fields.x, fields.y, fields.size.log(), fields.exponent])
    # A tenth of a percent inside, where the slope of the logistic is not yet lost.
    return ((values - lower) / (upper - lower)).logit(eps=1e-3)


def _to_bounded(parameters: Tensor, field: tuple[float, float, float, float]) -> ReceptiveFields:
    lower, upper = _bounds(field)
    x, y, log_size, exponent = lower + (upper - lower) * parameters.sigmoid()
    return ReceptiveFields(x, y, log_size.exp(), exponent)


# Report -----------------------------------------------------------------------------------------


def compare_with_reference(fit: Fit, source_voxel: np.ndarray, data: Path) -> dict[str, float]:
    """Compare with the Gaussian fit that was published beside the recording.

    Parameters
    ----------
    fit
        Of n_voxels.
    source_voxel
        Shape (n_voxels,).
    data
        Folder with ``gauss_parameters.tsv``.

    Returns
    -------
    figures
        Over the voxels whose published r2 is above .5.
    """
    reference = pd.read_csv(data / "gauss_parameters.tsv", sep="\t", index_col="source")
    reference = reference.loc[source_voxel]
    chosen = (reference["r2"] > 0.5).to_numpy()
    reference = reference[chosen]
    return {
        "voxels": int(chosen.sum()),
        "corr(x)": float(np.corrcoef(fit.fields.x.numpy()[chosen], reference["x"])[0, 1]),
        "corr(y)": float(np.corrcoef(fit.fields.y.numpy()[chosen], reference["y"])[0, 1]),
        "median in-sample r2": float(np.median(fit.in_sample_r2.numpy()[chosen])),
        "median published r2": float(reference["r2"].median()),
        "median held-out r2": float(np.median(fit.held_out_r2.numpy()[chosen])),
        "median held-out r": float(np.median(fit.held_out_r.numpy()[chosen])),
    }


def summarise(fit: Fit) -> dict[str, float]:
    """Return the figures of the fit over all voxels and over the reliable ones."""
    reliable = fit.reliable
    null = {f"null r2, percentile {p}": float(np.percentile(fit.null, p)) for p in (50, 95, 99, 99.9)}
    return {
        "voxels": len(reliable),
        "reliable": int(reliable.sum()),
        "median held-out r, all": fit.held_out_r.median().item(),
        "median held-out r, reliable": fit.held_out_r[reliable].median().item(),
        "median held-out r2, all": fit.held_out_r2.median().item(),
        "median held-out r2, reliable": fit.held_out_r2[reliable].median().item(),
        "median in-sample r2, all": fit.in_sample_r2.median().item(),
        "median in-sample r2, reliable": fit.in_sample_r2[reliable].median().item(),
        "share of null r2 above the criterion": float((fit.null > RELIABLE_HELD_OUT_R2).mean()),
        **null,
        "haemodynamic delay, s": fit.delay_s,
        "fit time, s": fit.seconds,
    }


def show(figures: dict[str, float], title: str, console: Console) -> None:
    """Print figures as a table."""
    table = Table("", "", title=title, show_header=False)
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)


def main() -> None:
    """Fit, write weights and metadata, print the figures."""
    parser = argparse.ArgumentParser(description="Fit fmri-szinte2024-prf_css.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the recording")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model, model-prf_css")
    arguments = parser.parse_args()
    bars = read_bars(arguments.data)
    bold, source_voxel = read_bold(arguments.data)
    fit = fit_recording(bars, bold)
    write_weights(fit, arguments.out / "encoding_models_weights")
    write_metadata(fit, bars, source_voxel, arguments.out / "metadata")
    console = Console()
    show(summarise(fit), "All voxels", console)
    show(compare_with_reference(fit, source_voxel, arguments.data), "Voxels with published r2 > .5", console)


if __name__ == "__main__":
    main()
