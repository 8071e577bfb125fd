"""What is said of fitted receptive fields: held-out accuracy, which are reliable, and what chance would give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from berg.evaluation import pearson_r, r2_score
from berg.families.prf.readout import effective_size
from berg.families.prf.receptive_fields import ReceptiveFields
from berg.families.prf.recording import Floats, Recording, Volumes, as_numpy, runs_of


@dataclass(frozen=True)
class FoundFields:
    """A fit, and what follows from it."""

    recording: Recording
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
        return {name: as_numpy(each) for name, each in zip(names, values, strict=True)}

    @cached_property
    def _volumes(self) -> Volumes:
        return np.sort(np.concatenate([predicted for _, predicted in self.recording.pairs]))

    @property
    def measured(self) -> Floats:
        """Of the held-out volumes."""
        return as_numpy(self.recording.bold)[self._volumes]

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
            "in_sample_r2": r2_score(as_numpy(self.recording.bold)[own], self.courses[own]),
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
            "eccentricity_deg": as_numpy(torch.hypot(own.x, own.y)),
            "polar_angle_deg": as_numpy(torch.rad2deg(torch.atan2(own.y, own.x))),
            "effective_size_deg": as_numpy(effective_size(own.size, own.exponent)),
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
            "folds": [{"fitted": runs_of(one), "held_out": runs_of(other)} for one, other in recording.pairs],
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


def null_r2(bold: Tensor, held_out: Floats, recording: Recording) -> Floats:
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
        r2_score(as_numpy(torch.cat([bold[part].roll(shift, 0) for part in parts])), held_out[volumes])
        for shift in shifts
    ]
    return np.stack(found) if found else np.empty((0, bold.shape[1]))


def _rounded(values: Floats) -> list[float]:
    """Six significant digits: more than the fit knows, and a third of the file's size."""
    return [float(f"{value:.6g}") for value in values.tolist()]
