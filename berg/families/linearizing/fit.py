"""Fit linear readouts on the layers of a pretrained network.

    pictures -> network -> layers -> standardize -> PCA -> regression of the responses

The steps are those of the card, ``readout.steps``; see `regression_steps` beside this file. Scaler and components
become the model's ``matrix``, regressions its ``coefficient``. If there are fewer units than components, the
product of the two becomes the matrix, which is smaller.

An interrupted fit goes on: features in the cache, sums of products, components, and units block by block in ``work``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.card_schema import REPETITION, OutputArray
from berg.core.exceptions import DatasetError, InvalidParameterError, ModelCardError, listing
from berg.core.file_names import expand
from berg.core.model_card import ModelCard
from berg.families.linearizing.model import Features
from berg.families.linearizing.regression_files import RegressionFiles
from berg.families.linearizing.regression_steps import BandedStep, RegressionSteps, RidgeStep, card_error, read_steps
from berg.features.pretrained_network import NetworkFeatures, network_features
from berg.fitting import feature_cache
from berg.fitting import principal_components as components
from berg.fitting.banded_ridge import banded_ridge_cv_solver, check_himalaya
from berg.fitting.card_agreement import check_agreement
from berg.fitting.feature_cache import (
    CachedFeatures,
    FeatureKey,
    cached_features,
    fingerprint_of_code,
    fingerprint_of_network,
)
from berg.fitting.fit_job import FitJob, Fitted
from berg.fitting.folds import split_folds
from berg.fitting.linear_solvers import N_TARGETS_BATCH, least_squares_solver, ridge_cv_solver
from berg.fitting.penalties import RELATIVE_ALPHAS, checked_alphas, default_alphas, warn_of_edges
from berg.fitting.principal_components import BLOCK, Components, principal_components
from berg.fitting.regression import Solver
from berg.system.durable_file import replacing
from berg.system.memory import release_pages
from berg.system.progress import progress_bar

Floats = NDArray[np.floating[Any]]

UNITS = 8192
"""Units that are read and solved together, where memory allows."""
_LIBRARIES = 200_000_000  # bytes that the kernels of the libraries take for themselves


def check(job: FitJob) -> None:
    """Raise if the card cannot be fitted, or the card and the data do not belong together."""
    steps = read_steps(job.card)
    check_agreement(job.card, job.dataset)
    _check_transform(job)
    n_train = len(job.dataset.splits["train"])
    if steps.n_components is not None and steps.n_components >= n_train:
        raise InvalidParameterError(
            f"The card asks for {steps.n_components:,} components, of {n_train:,} training stimuli. Write  "
            f"pca: {n_train - 1}  or less, or give more stimuli."
        )
    _check_groups(job, steps)
    _check_regression(job, steps, n_train)
    _bands(job.card, steps, {node: slice(0, 0) for node in _nodes(job.card)})
    for output in job.card.outputs:
        if REPETITION in output.axes and (found := _n_repeats(job)) != (stated := job.card.axes[REPETITION].length):
            raise DatasetError(
                f"Training stimuli were shown up to {found} times; the card has {stated} repetitions, each with a "
                f"regression of its own. Write  length: {found}  under its axis '{REPETITION}', or take that axis out "
                "to fit the mean."
            )
    _check_n_features(job)


def _check_groups(job: FitJob, steps: RegressionSteps) -> None:
    """Raise if there are fewer groups of training stimuli than folds, before anything is computed."""
    groups, step = _train_groups(job), steps.regression
    if groups is None or step is None or (n_groups := len(np.unique(groups))) >= step.folds:
        return
    advice = f"Write  folds: {n_groups}" if n_groups > 1 else "Give stimuli of more groups, or regress with  linear"
    raise InvalidParameterError(
        f"The card asks for {step.folds} folds; the {len(groups):,} training stimuli are in {n_groups} groups, which "
        f"are left out whole. {advice}."
    )


def _check_regression(job: FitJob, steps: RegressionSteps, n_train: int) -> None:
    """Raise if the penalties, the folds or the bands of the card cannot be."""
    step = steps.regression
    if step is None:
        return
    if n_train < 2 * step.folds:
        raise InvalidParameterError(
            f"The card asks for {step.folds} folds, of {n_train:,} training stimuli; a fold needs two. Write  "
            f"folds: {max(2, n_train // 2)}  or less, or give more stimuli."
        )
    if step.alphas is not None:
        checked_alphas(step.alphas)
    if steps.is_banded:
        check_himalaya()


def _check_transform(job: FitJob) -> None:
    """Raise if the model would encode with another transform than it is fitted with."""
    stated = job.card.parameters.get("transform")
    default = stated.default if stated is not None and stated.default is not None else _transform(job)
    if _transform(job) != default:
        raise InvalidParameterError(
            f"transform is '{_transform(job)}', and {job.card.model_id} encodes with '{default}' unless told. A "
            f"model must encode with what it was fitted with: write  default: {_transform(job)}  in the card, under "
            "parameters.transform, and the same under features."
        )


def _check_n_features(job: FitJob) -> None:
    stated = job.card.part("features", Features).n_features
    with torch.no_grad():
        layers = _network(job)(torch.from_numpy(_stimuli(job, np.arange(1))).to(job.device))
    if (found := sum(layer.shape[1] for layer in layers)) != stated:
        raise ModelCardError(
            f"{job.card.path}: features.n_features is {stated:,}; the nodes have {found:,} together. Write  "
            f"n_features: {found}"
        )


def fit(job: FitJob) -> Fitted:
    """The scaler, the components and the regressions of one subject's model.

    Raises
    ------
    ModelCardError, InvalidParameterError, DatasetError
        If the card cannot be fitted, or does not go with the data.
    StorageError
        If there is no room for the features in the cache.
    """
    steps, plan = read_steps(job.card), _kept_plan(job)
    features = _features(job)
    identity = f"{features.digest} {steps} {plan}"
    if (groups := _train_groups(job)) is not None:  # which make the folds
        identity += f" groups {hashlib.sha256(groups.astype(np.int64).tobytes()).hexdigest()}"
    bands = _bands(job.card, steps, features.columns)
    decomposed = [_decomposed(job, plan, steps, features, columns, identity) for columns in bands.values()]
    basis = _Basis(decomposed, list(bands.values()))
    solve, solved = _solver(job, steps, basis), {}
    for output in job.card.outputs:
        solved[output.name] = files = _files(job, basis, output)
        read = _mean if REPETITION not in output.axes else _repeats
        files.fill(partial(read, job, output.name), solve, plan.units, identity, job.show_progress)
    tensors = _tensors(job, plan, features, basis, solved)
    return Fitted(tensors, facts=_facts(steps, list(bands), basis, solved))


def peak_bytes(job: FitJob) -> int:
    """Bytes that `fit` needs at its peak, beyond what the process holds before, in blocks as large as memory allows."""
    return _peak_bytes(job, _plan(job))


def disk_bytes(job: FitJob) -> int:
    """Bytes that `fit` writes into ``work``, and those of the weights."""
    steps, n_features = read_steps(job.card), job.card.part("features", Features).n_features
    n_stimuli = len(job.dataset.splits["train"])
    n_components = _n_components(job, steps, n_stimuli, n_features)
    decomposed = 16 * n_components * n_stimuli + 8 * min(n_stimuli, n_features) ** 2
    return decomposed + 4 * _n_rows(job) * n_components + 2 * _model_bytes(job, n_components, n_features)


# Features


def _network(job: FitJob) -> NetworkFeatures:
    """The network as the model will have it."""
    stated = job.card.part("features", Features)
    return network_features(
        stated.extractor,
        stated.weights,
        stated.nodes,
        _transform(job),
        _precision(job),
        job.device,
    )


def _transform(job: FitJob) -> str:
    return str(job.parameters.get("transform", job.card.part("features", Features).transform))


def _precision(job: FitJob) -> str:
    return str(job.parameters.get("precision", "float32"))


def _nodes(card: ModelCard) -> list[str]:
    nodes = card.part("features", Features).nodes
    return [node for item in ([nodes] if isinstance(nodes, str) else nodes) for node in expand(item)]


def _stimuli(job: FitJob, indices: NDArray[np.intp]) -> NDArray[Any]:
    """Some of the training stimuli, as the network takes them."""
    return job.read_stimuli(job.dataset.splits["train"][indices])


def _features(job: FitJob) -> CachedFeatures:
    network, train = _network(job), job.dataset.splits["train"]
    key = FeatureKey(
        stimuli=job.dataset.fingerprint_of_stimuli(train),
        extractor=job.card.part("features", Features).extractor,
        network=fingerprint_of_network(network),
        transform=_transform(job),
        nodes=tuple(network.nodes),
        precision=_precision(job),
        code=fingerprint_of_code(network),
    )
    read, show = partial(_stimuli, job), job.show_progress
    return cached_features(network, key, read, len(train), job.cache, device=job.device, show_progress=show)


def _bands(card: ModelCard, steps: RegressionSteps, columns: Mapping[str, slice]) -> dict[str, slice]:
    """The columns of each feature space; of one, where all have the same penalty."""
    nodes = list(columns)
    if not steps.is_banded:
        return {"all": slice(0, columns[nodes[-1]].stop)}
    stated = steps.regression.bands or {node: [node] for node in nodes}  # type: ignore[union-attr]
    members = {name: [node for item in items for node in expand(item)] for name, items in stated.items()}
    if [node for own in members.values() for node in own] != nodes:
        raise card_error(
            card,
            f"have bands of the nodes {listing(node for own in members.values() for node in own)}; every node of "
            f"features.nodes must be in one band, in their order: {listing(nodes)}",
        )
    return {name: slice(columns[own[0]].start, columns[own[-1]].stop) for name, own in members.items()}


# Components


@dataclass(frozen=True)
class _Basis:
    """The components of each feature space, one space after another."""

    parts: list[Components]
    columns: list[slice]

    @cached_property
    def scores(self) -> Floats:
        """Shape (n_stimuli, n_components of all)."""
        return np.hstack([part.scores for part in self.parts])

    @property
    def rows(self) -> list[slice]:
        """The components of each space among all."""
        ends = list(accumulate(part.scores.shape[1] for part in self.parts))
        return [slice(end - part.scores.shape[1], end) for end, part in zip(ends, self.parts, strict=True)]

    @property
    def n_components(self) -> int:
        """Of all spaces."""
        return sum(part.scores.shape[1] for part in self.parts)


def _decomposed(
    job: FitJob, plan: _Plan, steps: RegressionSteps, features: CachedFeatures, columns: slice, identity: str
) -> Components:
    path = job.work / f"components_{columns.start}.safetensors"
    if path.is_file() and Components.identity_of(path) == identity:
        return Components.read(path)
    n_features = columns.stop - columns.start
    with progress_bar("components", n_features, "features", job.show_progress) as advance:
        found = principal_components(
            features.array,
            steps.n_components,
            columns=columns,
            block=plan.columns,
            device=job.device,
            checkpoint=job.work / f"sums_{columns.start}.npz",
            identity=identity,
            advance=advance,
        )
    found.write(path, identity)
    return found


# Regressions


def _solver(job: FitJob, steps: RegressionSteps, basis: _Basis) -> Solver:
    step = steps.regression
    if step is None:
        return least_squares_solver(basis.scores)
    seed, alphas = None if job.dataset.is_sequence else 0, _alphas(step, basis)
    groups = _train_groups(job)
    folds = split_folds(len(basis.scores), step.folds, seed, groups)
    if isinstance(step, BandedStep):
        search: dict[str, Any] = {
            "n_iterations": step.iterations,
            "seed": step.seed,
            "device": job.device,
            "groups": groups,
        }
        return banded_ridge_cv_solver(basis.scores, basis.rows, alphas, folds, **search)
    return ridge_cv_solver(basis.scores, alphas, folds, groups=groups, device=job.device)


def _alphas(step: RidgeStep, basis: _Basis) -> Sequence[float]:
    """The penalties that are chosen from."""
    return step.alphas or default_alphas(basis.scores).tolist()


def _train_groups(job: FitJob) -> NDArray[np.intp] | None:
    """The group of each training stimulus; None if each stands alone."""
    return job.dataset.groups_of(job.dataset.splits["train"])


def _files(job: FitJob, basis: _Basis, output: OutputArray) -> RegressionFiles:
    n_repeats = _n_repeats(job) if REPETITION in output.axes else 1
    n_units = job.dataset.outputs[output.name].n_units
    return RegressionFiles(job.work, output.name, n_repeats, n_units, basis.n_components, len(basis.parts))


def _mean(job: FitJob, output: str, units: slice) -> NDArray[np.float32]:
    return job.dataset.outputs[output].mean(job.dataset.splits["train"], units)[None]


def _repeats(job: FitJob, output: str, units: slice) -> NDArray[np.float32]:
    return job.dataset.outputs[output].repeats(job.dataset.splits["train"], units)


def _n_repeats(job: FitJob) -> int:
    counts = np.bincount(job.dataset.presentations, minlength=len(job.dataset.stimulus_names))
    return int(counts[job.dataset.splits["train"]].max())


# The model


def _tensors(
    job: FitJob, plan: _Plan, features: CachedFeatures, basis: _Basis, solved: Mapping[str, RegressionFiles]
) -> dict[str, NDArray[Any]]:
    """The model's tensors; the large ones are memory maps."""
    coefficients: dict[str, Any] = {name: files.read().coefficients for name, files in solved.items()}
    merged = None
    if (n_rows := sum(map(len, coefficients.values()))) < basis.n_components:
        merged = np.concatenate(list(coefficients.values()))
        ends = list(accumulate(map(len, coefficients.values())))
        unit = np.eye(n_rows, dtype=np.float32)
        coefficients = {
            name: unit[end - len(own) : end] for (name, own), end in zip(coefficients.items(), ends, strict=True)
        }
    mean = np.concatenate([part.mean for part in basis.parts])
    matrix, offset = _matrix(job, plan, features, basis, merged)
    tensors: dict[str, NDArray[Any]] = {"centre": mean.astype(np.float32), "matrix": matrix, "offset": offset}
    tensors["n_pcas"] = np.array([1])
    if merged is None and len(basis.parts) == 1:  # components of several bands go together
        tensors["variance"] = basis.scores.var(0, ddof=1).astype(np.float32)
    for name, files in solved.items():
        tensors[f"{name}.coefficient"] = coefficients[name]
        tensors[f"{name}.intercept"] = np.array(files.read().intercepts)
    return tensors


def _matrix(
    job: FitJob, plan: _Plan, features: CachedFeatures, basis: _Basis, merged: Floats | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Components over scales, multiplied by coefficients where given, and what the rounding of the mean shifts."""
    n_rows, n_features = basis.n_components if merged is None else len(merged), basis.columns[-1].stop
    matrix = np.lib.format.open_memmap(job.work / "matrix.npy", "w+", np.float32, (n_rows, n_features))
    offset = np.zeros(n_rows)
    with progress_bar("matrix", n_features, "features", job.show_progress) as advance:
        for part, rows, columns in zip(basis.parts, basis.rows, basis.columns, strict=True):
            written = slice(0, n_rows) if merged is not None else rows
            rounding = part.mean.astype(np.float32) - part.mean
            blocks = part.blocks(features.array, columns.start, block=plan.columns, device=job.device)
            for block, values in blocks:
                folded = (values if merged is None else merged[:, rows] @ values) / part.scale[block]
                offset[written] += folded @ rounding[block]
                matrix[written, columns.start + block.start : columns.start + block.stop] = folded
                release_pages(matrix)
                advance(block.stop - block.start)
    return matrix, offset.astype(np.float32)


def _facts(
    steps: RegressionSteps, bands: Sequence[str], basis: _Basis, solved: Mapping[str, RegressionFiles]
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "n_training_stimuli": len(basis.scores),
        "n_features": basis.columns[-1].stop,
        "n_components": basis.n_components,
        "explained_variance": [round(part.explained, 4) for part in basis.parts],
    }
    if steps.is_banded:
        facts["bands"] = list(bands)
    for name, files in solved.items():
        found = files.read()
        facts[f"{name}_units_not_fitted"] = int((~found.coefficients.any(axis=1)).sum())
        if steps.regression is not None:
            facts[f"{name}_median_penalty"] = np.nanmedian(found.alphas, axis=0).tolist()
            facts[f"{name}_median_r2_over_folds"] = float(np.nanmedian(found.scores))
            edges = warn_of_edges(found.alphas, _alphas(steps.regression, basis), of=f"units of '{name}'")
            facts[f"{name}_share_at_smallest_and_largest_penalty"] = [round(share, 4) for share in edges]
    return facts


# Memory


@dataclass(frozen=True)
class _Plan:
    """Columns and units that are in memory at a time. Kept in the work folder: another plan changes the last bits."""

    columns: int
    units: int


def _kept_plan(job: FitJob) -> _Plan:
    plan = _plan(job)
    with replacing(job.work / "plan.json") as file:
        file.write(json.dumps(asdict(plan)).encode())
    return plan


def _plan(job: FitJob) -> _Plan:
    """That of the interrupted fit; else the largest that fits into memory, or the smallest."""
    kept = job.work / "plan.json"
    if kept.is_file():
        return _Plan(**json.loads(kept.read_text("utf-8")))
    halves = [2**power for power in range(6)]
    plans = [_Plan(BLOCK // half, UNITS // half) for half in halves]
    return next((plan for plan in plans if _peak_bytes(job, plan) <= job.memory), plans[-1])


def _peak_bytes(job: FitJob, plan: _Plan) -> int:
    steps, stated = read_steps(job.card), job.card.part("features", Features)
    n_stimuli, n_features = len(job.dataset.splits["train"]), stated.n_features
    n_bands = len(_bands(job.card, steps, {node: slice(0, 0) for node in _nodes(job.card)}))
    n_components = _n_components(job, steps, n_stimuli, n_features)
    n_each = n_components // n_bands
    held = 8 * n_bands * (2 * n_each * n_stimuli + 2 * n_features)  # of all bands: scores and basis, mean and scale
    of_components = components.peak_bytes(n_stimuli, n_features, steps.n_components, plan.columns)
    of_matrix = 4 * n_components * (n_stimuli + 4 * plan.columns) + 24 * n_stimuli * plan.columns
    of_units = 8 * n_components * n_stimuli + _units_bytes(job, plan, steps, n_stimuli, n_components, n_bands)
    return _LIBRARIES + max(
        _network_bytes(job, n_features),
        held + max(of_components, of_units, of_matrix),
        3 * _model_bytes(job, n_components, n_features),  # mapped, as bytes to be written, and read again
    )


def _n_components(job: FitJob, steps: RegressionSteps, n_stimuli: int, n_features: int) -> int:
    """The most that there can be, of all bands."""
    n_bands = len(_bands(job.card, steps, {node: slice(0, 0) for node in _nodes(job.card)}))
    return n_bands * min(n_stimuli - 1, n_features, steps.n_components or n_stimuli)


def _units_bytes(
    job: FitJob, plan: _Plan, steps: RegressionSteps, n_stimuli: int, n_components: int, n_bands: int
) -> int:
    """A block of responses, as read and as solved, and what the solver prepares."""
    n_repeats = max([_n_repeats(job) if REPETITION in output.axes else 1 for output in job.card.outputs])
    batch = min(plan.units, N_TARGETS_BATCH)
    responses = 4 * n_stimuli * (plan.units * (2 + n_repeats) + 4 * batch)
    solutions = 4 * n_components * (2 * plan.units + 5 * batch)
    if steps.regression is None:
        return responses + solutions + 8 * 4 * n_components * n_stimuli
    n_folds = steps.regression.folds
    prepared = 4 * (n_folds + 1) * n_components * (n_stimuli + 2 * min(n_components, n_stimuli))
    working = 8 * 4 * n_components * n_stimuli
    if isinstance(steps.regression, BandedStep):
        n_alphas = len(steps.regression.alphas or RELATIVE_ALPHAS)
        working += 8 * n_alphas * (n_stimuli * (n_stimuli // n_folds + batch))
        working += 4 * steps.regression.iterations * plan.units
        if n_components > n_stimuli:  # a kernel per band, and himalaya's copies
            working += 24 * n_bands * n_stimuli**2
    return responses + solutions + prepared + working


def _model_bytes(job: FitJob, n_components: int, n_features: int) -> int:
    n_kept = min(n_components, _n_rows(job))
    return 4 * n_kept * (n_features + _n_rows(job))


def _n_rows(job: FitJob) -> int:
    """How many regressions there are."""
    return sum(
        job.dataset.outputs[output.name].n_units * (_n_repeats(job) if REPETITION in output.axes else 1)
        for output in job.card.outputs
    )


def _network_bytes(job: FitJob, n_features: int) -> int:
    network = _network(job)
    return feature_cache.peak_bytes(network, _stimuli(job, np.arange(1)), n_features, job.device)
