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

from collections.abc import Collection
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from berg.core.exceptions import DatasetError
from berg.evaluation import r2_score
from berg.families.prf.evidence import FoundFields
from berg.families.prf.receptive_fields import (
    BLOCK,
    Apertures,
    Candidates,
    ReceptiveFields,
    amplitude_and_baseline,
    candidate_fields,
    predict_time_courses,
    refine,
)
from berg.families.prf.recording import (
    Floats,
    Recording,
    Volumes,
    as_numpy,
    centres,
    fitted_volumes,
    key_of,
    pairs_of,
    parts_of,
    read_recording,
    sample_of,
    settings_of,
    words_of,
)
from berg.fitting.card_agreement import check_agreement
from berg.fitting.fit_job import FitJob, Fitted, HeldOut
from berg.fitting.kept import Tensors, kept
from berg.system.progress import AdvanceAndTell, progress_bar

HOLDS_OUT = True
"""The fit returns what it held out: it is not evaluated on the split ``test``."""
METADATA = (
    "x_deg", "y_deg", "size_deg", "exponent", "amplitude", "baseline", "eccentricity_deg", "polar_angle_deg",
    "effective_size_deg", "held_out_r", "held_out_r2", "in_sample_r2", "reliable",
)  # fmt: skip
"""Coordinates that the fit finds: the accuracies and ``reliable`` at ``encoding_models``, all others at ``fmri``."""


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
    centres(job)
    parts_of(job, settings_of(job), fitted_volumes(job))
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
    recording = read_recording(job)
    total = recording.n_steps
    with progress_bar("receptive fields", total, "steps", job.show_progress) as advance:
        return _fitted(job, recording, advance)


def peak_bytes(job: FitJob) -> int:
    """Bytes that `fit` needs at its peak, beyond what the process holds before."""
    settings, output, (x, y) = settings_of(job), job.output, centres(job)
    n_volumes, n_voxels, n_cells = len(job.dataset.stimulus_names), output.n_units, len(x) * len(y)
    n_candidates = len(candidate_fields(Apertures(torch.empty(0), x, y, None).field, settings.search))
    block = min(BLOCK, n_voxels)
    whole = 8 * n_volumes * (8 * n_voxels + n_cells)
    candidates = 8 * 4 * n_volumes * n_candidates
    search = 8 * n_candidates * (3 * block + 8)
    refinement = 8 * block * (40 * n_volumes + 8 * n_cells)
    delays = 8 * n_voxels * (len(settings.haemodynamic_response.delays_s) + 6 * n_volumes)
    return 150_000_000 + whole + candidates + max(search, refinement) + delays


def _fitted(job: FitJob, recording: Recording, advance: AdvanceAndTell) -> Fitted:
    bold = recording.bold
    delay_s = _choose_delay(recording, advance)
    hrf = recording.hrf(delay_s)
    held_out = torch.full_like(bold, torch.nan)
    for fitted, predicted in recording.pairs:
        held_out[predicted] = _predict(recording, hrf, fitted, advance)[predicted]
    fields = _fit_fields(recording, hrf, recording.volumes, advance)
    time_courses = predict_time_courses(recording.apertures, fields, hrf)
    amplitude, baseline = amplitude_and_baseline(time_courses[recording.volumes], bold[recording.volumes])
    courses = time_courses * amplitude + baseline
    found = FoundFields(recording, delay_s, fields, amplitude, baseline, as_numpy(held_out), as_numpy(courses))
    tensors = {name: values.astype(np.float32) for name, values in found.parameters.items()}
    (name,) = job.dataset.outputs
    measured = HeldOut(found.measured, found.predicted, recording.split, in_time=True)
    return Fitted(tensors, found.metadata(), found.facts(), {name: measured}, sample_of(job, recording.apertures))


def _choose_delay(recording: Recording, advance: AdvanceAndTell) -> float:
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


def _kept_r2(recording: Recording, delay_s: float, advance: AdvanceAndTell) -> Floats:
    path = recording.job.work / f"delay_{delay_s:g}.safetensors"
    r2 = kept(path, lambda: {"r2": _coarse_r2(recording, delay_s)})["r2"]
    advance(1, f"haemodynamic delay {delay_s:g} s")
    return r2


def _coarse_r2(recording: Recording, delay_s: float) -> Floats:
    """Held-out r2 of the best candidates, shape (n_voxels,)."""
    apertures, bold, hrf = recording.apertures, recording.bold, recording.hrf(delay_s)
    candidates = Candidates.at(apertures, recording.candidates, hrf)
    predicted = torch.full_like(bold, torch.nan)
    for fitted, held_out in pairs_of(recording.parts):
        best = candidates.best(torch.from_numpy(fitted), bold[fitted], recording.settings.search)
        courses = predict_time_courses(apertures, best, hrf)
        amplitude, baseline = amplitude_and_baseline(courses[fitted], bold[fitted])
        predicted[held_out] = courses[held_out] * amplitude + baseline
    volumes = np.sort(np.concatenate(recording.parts))
    return r2_score(as_numpy(bold[volumes]), as_numpy(predicted[volumes]))


def _predict(recording: Recording, hrf: Tensor, fitted: Volumes, advance: AdvanceAndTell) -> Tensor:
    """All volumes, with receptive field, amplitude and baseline of some; shape (n_volumes, n_voxels)."""
    fields = _fit_fields(recording, hrf, fitted, advance)
    time_courses = predict_time_courses(recording.apertures, fields, hrf)
    amplitude, baseline = amplitude_and_baseline(time_courses[fitted], recording.bold[fitted])
    return time_courses * amplitude + baseline


def _fit_fields(recording: Recording, hrf: Tensor, fitted: Volumes, advance: AdvanceAndTell) -> ReceptiveFields:
    """Receptive fields of all voxels from some volumes: search, then refine; each block is kept."""
    search, volumes = recording.settings.search, torch.from_numpy(fitted)
    candidates = cache(lambda: Candidates.at(recording.apertures, recording.candidates, hrf))

    def block(start: int) -> Tensors:
        bold = recording.bold[fitted, start : start + BLOCK]
        begin = candidates().best(volumes, bold, search)
        fields = refine(recording.apertures, hrf, volumes, bold, begin, search, advance)
        return {name: as_numpy(getattr(fields, name)) for name in _FIELDS}

    parts = []
    for start in range(0, recording.bold.shape[1], BLOCK):
        advance(0, f"volumes {words_of(fitted)}, voxels from {start:,}")
        path = recording.job.work / f"fields_{key_of(fitted)}_{start}.safetensors"
        if path.is_file():
            advance(search.steps)
        tensors = kept(path, partial(block, start))
        parts.append(ReceptiveFields(*(torch.from_numpy(tensors[name]).to(hrf) for name in _FIELDS)))
    return ReceptiveFields.joined(parts)


_FIELDS = ("x", "y", "size", "exponent")
