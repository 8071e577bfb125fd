"""What a pRF model is fitted to: the maps of contrast, the BOLD responses, and which volumes predict which."""

from __future__ import annotations

from collections.abc import Sequence
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
from berg.families.prf.features import contrast_grid, contrast_map
from berg.families.prf.receptive_fields import (
    BLOCK,
    Apertures,
    HaemodynamicResponse,
    ReceptiveFields,
    Search,
    candidate_fields,
    convolution_matrix,
    haemodynamic_response,
)
from berg.fitting.fit_job import FitJob
from berg.fitting.folds import split_folds

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


@dataclass(frozen=True)
class Recording:
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
        n_fits = len({key_of(fitted) for fitted, _ in self.pairs} | {key_of(self.volumes)})
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


def read_recording(job: FitJob) -> Recording:
    settings, dataset = settings_of(job), job.dataset
    n_volumes, output = len(dataset.stimulus_names), job.output
    device = torch.device("cpu") if job.device.type == "mps" else job.device  # mps has no float64
    bold = torch.from_numpy(output.mean(np.arange(n_volumes))).double().to(device)
    volumes, test = fitted_volumes(job), dataset.splits["test"]
    parts = parts_of(job, settings, volumes)
    if len(test):
        pairs, split = [(volumes, test)], "test"
    else:
        pairs, split = pairs_of(parts), f"cross-validation over {len(parts)} parts of the recording"
    interval = float(dataset.sampling_interval_s or 0)
    return Recording(settings, _apertures(job, device), bold, interval, volumes, parts, pairs, split, job)


def settings_of(job: FitJob) -> FitSettings:
    return job.card.part("fit", FitSettings)


def fitted_volumes(job: FitJob) -> Volumes:
    splits = job.dataset.splits
    return np.sort(np.concatenate([splits["train"], splits["validation"]]))


def parts_of(job: FitJob, settings: FitSettings, volumes: Volumes) -> list[Volumes]:
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


def pairs_of(parts: Sequence[Volumes]) -> list[tuple[Volumes, Volumes]]:
    """What is fitted, and what is predicted from it."""
    others = [np.concatenate([*parts[:place], *parts[place + 1 :]]) for place in range(len(parts))]
    return list(zip(others, parts, strict=True))[::-1]


def _apertures(job: FitJob, device: torch.device) -> Apertures:
    volumes = np.arange(len(job.dataset.stimulus_names))
    blocks = np.array_split(volumes, -(-len(volumes) // FRAMES_AT_ONCE))
    maps = torch.cat([_contrast(job, job.dataset.read_stimuli(block)) for block in blocks])
    return Apertures.of(*(each.to(device) for each in (maps, *centres(job))))


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


def centres(job: FitJob) -> tuple[Tensor, Tensor]:
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
    if (aperture := settings_of(job).aperture) is not None:
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


def sample_of(job: FitJob, apertures: Apertures, n: int = 4) -> NDArray[np.uint8] | None:
    """Pictures of a checkerboard under a few of the maps of contrast, where these are not pictures themselves."""
    if not _has_maps(job):
        return None
    rows, columns = apertures.maps.shape[1:]
    seen = apertures.maps[apertures.maps.amax((1, 2)).argsort(descending=True, stable=True)[:n]].cpu().numpy()
    checks = 1 - 2 * (np.add.outer(np.arange(rows), np.arange(columns)) % 2)
    grey = np.round(127.5 + 127.5 * seen * checks).astype(np.uint8)
    return np.repeat(grey.repeat(4, 1).repeat(4, 2)[:, None], 3, axis=1)


def key_of(volumes: Volumes) -> str:
    return "-".join(f"{first}_{stop}" for first, stop in list_of_runs(volumes))


def words_of(volumes: Volumes) -> str:
    return " and ".join(f"{first} to {stop - 1}" for first, stop in list_of_runs(volumes))


def runs_of(volumes: Volumes) -> list[Any]:
    """[first, stop] of volumes in a row, or a list of such."""
    runs = list_of_runs(volumes)
    return runs[0] if len(runs) == 1 else runs


def list_of_runs(volumes: Volumes) -> list[list[int]]:
    runs = np.split(volumes, np.flatnonzero(np.diff(volumes) > 1) + 1)
    return [[int(run[0]), int(run[-1]) + 1] for run in runs]


def as_numpy(values: Tensor) -> Floats:
    return values.detach().cpu().numpy()
