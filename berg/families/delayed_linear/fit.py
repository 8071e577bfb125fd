"""Fit linear readouts on delayed features of words: ridge, or ridge with a penalty for each feature space.

    runs of words -> volumes of all training runs -> scaled, delayed -> regression of each unit

Penalties are chosen with runs left out whole (`berg.fitting.folds`). The runs of the split ``test`` are predicted by
the same functions that the model encodes with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from berg.core.card_schema import CardPart
from berg.core.exceptions import DatasetError, InvalidParameterError, ModelCardError, listing
from berg.datasets.event_runs import Run, RunVolumes
from berg.families.delayed_linear.features import WordVolumes, standardised_by
from berg.families.delayed_linear.model import CENTRE, SCALE, Features, Readout, time_steps, word_volumes
from berg.features.in_time import Moments
from berg.fitting.banded_ridge import banded_ridge_cv_solver, check_himalaya
from berg.fitting.card_agreement import check_agreement
from berg.fitting.fit_job import FitJob, Fitted, HeldOut
from berg.fitting.folds import split_folds
from berg.fitting.kept import kept
from berg.fitting.linear_solvers import ridge_cv_solver
from berg.fitting.penalties import checked_alphas, default_alphas, warn_of_edges
from berg.fitting.regression import Regression, Solver

Floats = NDArray[np.floating[Any]]
HOLDS_OUT = True
UNITS = 4096
"""Units that are solved together."""
_N_WORDS = 20  # of the sample
_LIBRARIES = 300_000_000  # bytes that the libraries and a small language model take


class RidgeStep(CardPart):
    """What stands under ``ridge``."""

    alphas: list[float] | None = Field(None, min_length=1, description="penalties to choose from")
    folds: int = Field(5, ge=2, description="of whole runs")


class BandedStep(RidgeStep):
    """What stands under ``banded_ridge``."""

    bands: str = Field("spaces", pattern="^(spaces|spaces_and_delays)$", description="what has a penalty of its own")
    iterations: int = Field(100, ge=1, description="how many relations of the bands are tried")
    seed: int = Field(0, ge=0)


def check(job: FitJob) -> tuple[str, ...]:
    """Raise if card and data do not belong together; the test runs need not be repeated."""
    volumes, stated = job.dataset.stimuli, job.card.part("features", Features)
    if not isinstance(volumes, RunVolumes):
        raise DatasetError(
            f"{job.card.model_id} is fitted to words in time. Name the runs of the recording in dataset.yaml (runs, "
            "stimuli.words), or make the dataset with EncodingDataset.from_runs."
        )
    check_agreement(job.card, job.dataset)
    interval = float(job.dataset.sampling_interval_s or 0)
    if not np.isclose(interval, stated.tr_s, rtol=1e-6):
        raise InvalidParameterError(
            f"The card says features.tr_s {stated.tr_s:g}, the data have a volume every {interval:g} s. Write  tr_s: "
            f"{interval:g}"
        )
    if not len(job.dataset.splits["test"]):
        raise DatasetError("No run is in the split 'test'. Write  splits: {test: [RUN]}  into dataset.yaml.")
    _check_volumes(job, volumes)
    _check_folds(job)
    return ("splits", "stimuli")


def _check_volumes(job: FitJob, volumes: RunVolumes) -> None:
    n_trimmed = time_steps(job.card).n_trimmed
    short = [run.name for run in volumes.runs if run.n_volumes <= n_trimmed]
    if short:
        raise DatasetError(f"The runs {listing(short)} have no volume left behind the step 'trim' of the card.")


def _check_folds(job: FitJob) -> None:
    step, n_runs = _step(job), len(np.unique(_training_runs(job)))
    if n_runs < step.folds:
        raise InvalidParameterError(
            f"The card asks for {step.folds} folds of whole runs; {n_runs} runs are trained on. Write  folds: "
            f"{max(2, n_runs)}  or give more runs (two at least)."
        )
    if step.alphas is not None:
        checked_alphas(step.alphas)
    if isinstance(step, BandedStep):
        check_himalaya()


def _step(job: FitJob) -> RidgeStep:
    """The one step of the readout."""
    steps = job.card.part("readout", Readout).steps
    step = steps[0] if len(steps) == 1 else None
    name, settings = next(iter(step.items())) if isinstance(step, Mapping) and len(step) == 1 else (step, None)
    kinds: dict[Any, type[RidgeStep]] = {"ridge": RidgeStep, "banded_ridge": BandedStep}
    try:
        return kinds[name].model_validate(settings or {})
    except (KeyError, TypeError) as error:
        raise ModelCardError(
            f"{job.card.path}: readout.steps is {steps}; it is one of  [ridge]  and  [banded_ridge]  with settings "
            "such as  [banded_ridge: {folds: 5}]"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelCardError(
            f"{job.card.path}: readout.steps, {name}.{'.'.join(map(str, first['loc']))} is {first['input']!r}: "
            f"{first['msg']}"
        ) from error


def peak_bytes(job: FitJob) -> int:
    """Bytes that `fit` needs at its peak, beyond what the process holds before."""
    n_rows, n_columns = len(job.dataset.splits["train"]), _n_columns(job)
    n_units = max(output.n_units for output in job.dataset.outputs.values())
    n_folds = _step(job).folds
    prepared: int = 8 * (n_folds + 2) * n_columns * (n_rows + min(n_rows, n_columns))
    blocks = 4 * min(UNITS, n_units) * (6 * n_rows + 6 * n_columns)
    return int(_LIBRARIES + prepared + blocks + 8 * n_units * n_columns)


def _n_columns(job: FitJob) -> int:
    features = word_volumes(job.card, job.device)
    return max(int(columns.stop) for columns in features.columns.values())


def fit(job: FitJob) -> Fitted:
    """The scaler and the regressions of one subject's model, and its predictions of the test runs.

    Raises
    ------
    ModelCardError, InvalidParameterError, DatasetError
        If the card cannot be fitted, or does not go with the data.
    """
    features = word_volumes(job.card, job.device)
    runs = _volumes(job, features)
    scaling = _scaling(job, features, runs)
    features = word_volumes(job.card, job.device, scaling.get(CENTRE), scaling.get(SCALE))
    train, test = (_rows(job, features, runs, split) for split in ("train", "test"))
    bands = _bands(job, features)
    step = _step(job)
    alphas = np.asarray(step.alphas or default_alphas(train.X))
    solve = _solver(job, step, train, list(bands.values()), alphas)
    tensors: dict[str, NDArray[Any]] = dict(scaling)
    facts: dict[str, Any] = {"n_training_volumes": len(train.X), "n_columns": train.X.shape[1], "bands": list(bands)}
    held_out = {}
    for name, output in job.dataset.outputs.items():
        found = _solved(job, name, train, solve)
        tensors |= {f"{name}.coefficient": found.coefficients, f"{name}.intercept": found.intercepts}
        facts |= _facts(name, found, alphas)
        groups = test.runs if len(np.unique(test.runs)) > 1 else None  # of one run, volumes are samples in time
        held_out[name] = HeldOut(
            output.mean(test.volumes), found.predict(test.X), split="test", in_time=True, groups=groups
        )
    return Fitted(tensors, facts=facts, held_out=held_out, sample_stimuli=_sample(job, test.runs[0]))


def _sample(job: FitJob, run: int) -> dict[str, Any]:
    """The first words of a run, as a user gives them, until nothing is trimmed of them."""
    words, stated = _run_volumes(job).runs[run].words, job.card.part("features", Features)
    assert words.onsets is not None
    needed = stated.tr_s * (time_steps(job.card).n_trimmed + 1)
    n_words = max(_N_WORDS, int(np.searchsorted(words.onsets, needed)) + 1)
    return {"words": list(words.words[:n_words]), "word_onsets": words.onsets[:n_words].tolist()}


@dataclass(frozen=True)
class _Rows:
    """Volumes of a split: their delayed features, their places in the dataset, and their runs."""

    X: NDArray[np.float32]
    volumes: NDArray[np.intp]
    runs: NDArray[np.intp]


def _run_volumes(job: FitJob) -> RunVolumes:
    volumes = job.dataset.stimuli
    assert isinstance(volumes, RunVolumes)  # as `check` has seen
    return volumes


def _training_runs(job: FitJob) -> NDArray[np.intp]:
    """The run of each training volume."""
    return _run_volumes(job).run_of[job.dataset.splits["train"]]


def _volumes(job: FitJob, features: WordVolumes) -> list[torch.Tensor]:
    """The features of the volumes of each run, before they are standardised and delayed; kept for a later call."""
    code = f"{job.card.part('features', Features)!r}"
    found = []
    for run in _run_volumes(job).runs:
        path = job.work / f"volumes_{_key(code, run)}.safetensors"
        compute = partial(lambda one: {"values": features.resampled(one.words, one.n_volumes).numpy()}, run)
        found.append(torch.from_numpy(np.array(kept(path, compute)["values"])))
    return found


def _key(code: str, run: Run) -> str:
    digest = hashlib.sha256(f"{code} {run.n_volumes} {run.words.words}".encode())
    assert run.words.onsets is not None
    digest.update(run.words.onsets.tobytes())
    return digest.hexdigest()[:16]


def _scaling(job: FitJob, features: WordVolumes, runs: list[torch.Tensor]) -> dict[str, NDArray[np.float32]]:
    """Mean and standard deviation over the training volumes, if the card says so."""
    if features.steps.scaling != "standardize":
        return {}
    moments = Moments(runs[0].shape[1])
    for number in np.unique(_training_runs(job)):
        moments.add(runs[number])
    centre, scale = standardised_by(moments)
    return {CENTRE: centre.numpy(), SCALE: scale.numpy()}


def _rows(job: FitJob, features: WordVolumes, runs: list[torch.Tensor], split: str) -> _Rows:
    """The volumes of a split that neither the card nor the data leave out."""
    volumes, chosen = _run_volumes(job), job.dataset.splits[split]
    run_of, place = volumes.run_of[chosen], volumes.rows[chosen, 0] - features.steps.trim.start
    lengths = np.array([len(run) for run in runs])[run_of]
    is_kept = (place >= 0) & (place < lengths)
    chosen, run_of, place = chosen[is_kept], run_of[is_kept], place[is_kept]
    parts = [
        features.delayed_rows(features.scaled(runs[number]), torch.from_numpy(place[run_of == number]))
        for number in np.unique(run_of)
    ]
    return _Rows(torch.cat(parts).numpy(), chosen, run_of)


def _bands(job: FitJob, features: WordVolumes) -> dict[str, slice]:
    """The columns that share a penalty."""
    columns, step = features.columns, _step(job)
    if not isinstance(step, BandedStep):
        return {"all": slice(0, max(own.stop for own in columns.values()))}
    if step.bands == "spaces_and_delays":
        return {f"{name}, delay {delay}": own for (name, delay), own in columns.items()}
    delays = features.steps.delays
    return {
        name: slice(columns[name, delays[0]].start, columns[name, delays[-1]].stop) for name in features.spaces.spaces
    }


def _solver(job: FitJob, step: RidgeStep, train: _Rows, bands: list[slice], alphas: Floats) -> Solver:
    folds = split_folds(len(train.X), step.folds, groups=train.runs)
    if isinstance(step, BandedStep):
        search: dict[str, Any] = {"n_iterations": step.iterations, "seed": step.seed, "device": job.device}
        return banded_ridge_cv_solver(train.X, bands, alphas, folds, groups=train.runs, **search)
    return ridge_cv_solver(train.X, alphas, folds, groups=train.runs, device=job.device)


def _solved(job: FitJob, name: str, train: _Rows, solve: Solver) -> Regression:
    """The regressions of an output, block by block; blocks that an interrupted call has solved are read."""
    output, parts = job.dataset.outputs[name], []
    for start in range(0, output.n_units, UNITS):
        units = slice(start, min(start + UNITS, output.n_units))

        def compute(units: slice = units) -> dict[str, NDArray[Any]]:
            return vars(solve(output.mean(train.volumes, units)))

        parts.append(kept(job.work / f"{name}_{start}.safetensors", compute))
    return Regression(**{key: np.concatenate([part[key] for part in parts]) for key in vars(Regression.empty(1, 1))})


def _facts(name: str, found: Regression, alphas: Floats) -> dict[str, Any]:
    edges = warn_of_edges(found.alphas, alphas, of=f"units of '{name}'")
    return {
        f"{name}_units_not_fitted": int((~found.coefficients.any(axis=1)).sum()),
        f"{name}_median_penalty": np.nanmedian(found.alphas, axis=0).tolist(),
        f"{name}_median_r2_over_folds": float(np.nanmedian(found.scores)),
        f"{name}_share_at_smallest_and_largest_penalty": [round(share, 4) for share in edges],
    }
