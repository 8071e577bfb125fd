"""Firing rates of neurons that follow the level of a sound and recover from each of their spikes.

    sound pressure -> level in decibels, in bins -> filters over the recent and the distant past
                   -> linear drive + softplus units -> renewal process -> spikes per second

The arithmetic is in `features` and `readout` beside this file; here the weights are read.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from berg.core.card_schema import CardPart
from berg.core.exceptions import CorruptedFileError, StimulusError, StimulusWarning
from berg.core.stacklevel import users_stacklevel
from berg.families.ln_renewal.features import hann_window, sound_level_above_floor
from berg.families.ln_renewal.readout import exponential_traces, renewal_rate, softplus_drive, weighted_past
from berg.models.encoding_model import EncodingModel
from berg.weights import model_files
from berg.weights.safetensors_files import read_safetensors

WEIGHTS = {  # axes by a letter each: (u)nits, (i)nputs of the drive, (h)idden units, (l)ags, (t)races, (a)ges
    "filters": "uil",
    "traces": "uit",
    "offsets": "ui",
    "gains": "uh",
    "recovery": "ua",
    "trace_s": "t",
}


class Features(CardPart):
    """What the card says under ``features``."""

    extractor: Literal["sound_level"]
    window_ms: float = Field(gt=0, description="length of the Hann window that the level is measured in")
    floor_db: float = Field(description="level below which sounds are not told apart, dB SPL")
    loudest_db: float | None = Field(
        None, description="loudest moment of the sounds that were fitted, dB SPL; louder ones are warned of"
    )


class Readout(CardPart):
    """What the card says under ``readout``."""

    steps: list[Literal["temporal_filters", "softplus_units", "renewal_process"]]


class LNRenewalModel(EncodingModel):
    """Neurons driven by sound level through a linear-nonlinear stage and a renewal process."""

    batch_size = 16

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The level of the sounds, and the selected neurons."""
        described = self.card.part("features", Features)
        self.card.part("readout", Readout)
        output = self.card.outputs[0]
        rate, bins_per_s = self.expected_input.sampling_rate or 1, self.card.axes[output.axes[-1]].sampling_rate or 1
        path = str(model_files.weights_path(self.card, self.berg_dir, self.file_values))
        units = self.indices_of(output.name, "unit")
        weights = _selected(
            read_safetensors(model_files.weights_path(self.card, self.berg_dir, self.file_values)), units, path
        )
        window = hann_window(round(described.window_ms / 1000 * rate))
        n_lags = weights["filters"].shape[-1]
        level = SoundLevel(
            window,
            round(rate / bins_per_s),
            n_lags,
            described.floor_db,
            float(self.parameters["pascals_per_unit"]),
            described.loudest_db,
        )
        return level, RenewalNeurons(weights, bins_per_s)


class SoundLevel(torch.nn.Module):
    """Sounds -> decibels above the floor in bins, shape (n_stimuli, n_bins)."""

    window: Tensor

    def __init__(
        self,
        window: Tensor,
        samples_per_bin: int,
        n_lags: int,
        floor_db: float,
        pascals_per_unit: float,
        loudest_db: float | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("window", window)
        self.samples_per_bin, self.floor_db = samples_per_bin, floor_db
        self.shortest = len(window) + n_lags * samples_per_bin
        self.pascals_per_unit, self.loudest_db = pascals_per_unit, loudest_db

    def forward(self, sounds: Tensor) -> Tensor:
        if sounds.shape[-1] < self.shortest:
            raise StimulusError(
                f"The sounds have {sounds.shape[-1]} samples at the model's rate; its filter needs {self.shortest}. "
                "Give longer sounds, or add silence at their end (np.pad)."
            )
        pressure = sounds * self.pascals_per_unit
        level = sound_level_above_floor(pressure, self.window, self.samples_per_bin, self.floor_db)
        self._warn_of_levels(level.detach())
        return level

    def _warn_of_levels(self, level: Tensor) -> None:
        """Warn of sounds that are louder than what was fitted at some time, or quieter at all times."""
        if self.loudest_db is None:
            return
        peaks = level.amax(-1).double()
        peaks_db = self.floor_db + 10 * torch.log10((10 ** (peaks / 10) - 1).clamp(min=1e-9))
        fitted = f"the model was fitted from {self.floor_db:g} to {self.loudest_db:g} dB SPL"
        hint = "Does pascals_per_unit say which sound pressure a value of 1 stands for?"
        if (loudest := peaks_db.max().item()) > self.loudest_db:
            _warn(f"A sound reaches {loudest:.0f} dB SPL; {fitted}, and its rates are extrapolated above. {hint}")
        if peaks_db.min().item() < self.floor_db:
            _warn(f"A sound stays below {self.floor_db:g} dB SPL; {fitted}, and takes it for silence. {hint}")


class RenewalNeurons(torch.nn.Module):
    """Levels -> firing rates in spikes per second, shape (n_stimuli, n_units, n_bins)."""

    filters: Tensor
    traces: Tensor
    offsets: Tensor
    gains: Tensor
    recovery: Tensor
    trace_s: Tensor

    def __init__(self, weights: dict[str, NDArray[np.float32]], bins_per_s: float) -> None:
        super().__init__()
        self.bins_per_s = bins_per_s
        for name in WEIGHTS:
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(weights[name])))

    def forward(self, level: Tensor) -> tuple[Tensor]:
        filters, traces = self.filters.to(level), self.traces.to(level)
        recent = weighted_past(level, filters.flatten(0, 1)).reshape(len(level), *filters.shape[:2], -1)
        distant = torch.einsum("ntb,uit->nuib", exponential_traces(level, self.trace_s * self.bins_per_s), traces)
        drive = softplus_drive(recent + distant + self.offsets.to(level)[..., None], self.gains)
        return (renewal_rate(drive, self.recovery) * self.bins_per_s,)


def _warn(words: str) -> None:
    warnings.warn(words, StimulusWarning, stacklevel=users_stacklevel())


def _selected(
    weights: dict[str, NDArray[np.float32]], units: NDArray[np.intp], path: str
) -> dict[str, NDArray[np.float32]]:
    """The weights of the selected units, checked: an axis has one length wherever it stands."""
    sizes: dict[str, int] = {}
    for name, axes in WEIGHTS.items():
        values = weights.get(name)
        if values is None or values.ndim != len(axes) or not np.isfinite(values).all():
            raise CorruptedFileError(f"{path} has no finite '{name}' with {len(axes)} axes; it is damaged.")
        if any(sizes.setdefault(axis, size) != size for axis, size in zip(axes, values.shape, strict=True)):
            raise CorruptedFileError(f"{path}: '{name}' has shape {values.shape}, which does not fit the others.")
    if sizes["i"] != sizes["h"] + 1:
        raise CorruptedFileError(f"{path} has {sizes['i']} inputs for {sizes['h']} softplus units; one more is right.")
    return {name: values[units] if WEIGHTS[name][0] == "u" else values for name, values in weights.items()}
