"""From recordings to a packaged model, as its card says.

card + dataset -> family fits -> weights, metadata -> loaded as a user would -> evaluated on what the
fit has not seen -> accuracy table, sample, manifest, card, report
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
import xarray as xr

from berg.core import model_registry, settings
from berg.core.exceptions import (
    DatasetError,
    DeviceMemoryError,
    InvalidParameterError,
    ModelCardError,
)
from berg.core.model_card import ModelCard
from berg.core.parameter_validator import validate_parameters
from berg.core.selection import check_selection
from berg.core.stacklevel import users_stacklevel
from berg.datasets.assembly import DatasetWarning
from berg.datasets.check import check_dataset
from berg.datasets.dataset import EncodingDataset
from berg.datasets.splits import SPLITS
from berg.evaluation.accuracy_table import read_accuracy
from berg.evaluation.evaluate import evaluate_model, evaluate_responses
from berg.features.precision import arithmetic, precision_of, with_precision
from berg.fitting import fitted_files
from berg.fitting.family import fitting_family
from berg.fitting.fit_checks import check_card, check_resampling, check_responses_vary, check_room, check_test_split
from berg.fitting.fit_job import FitJob, Fitted, FittingFamily
from berg.fitting.model_paths import paths_of
from berg.models.device import resolve_device
from berg.models.encoding_model import EncodingModel
from berg.system.memory import free_memory, peak_memory, size_words

_MEMORY_SHARE = 0.8  # of what is free: the rest is for the operating system's own cache


@dataclass(frozen=True)
class FitReport:
    """A model that was fitted, written and evaluated.

    Attributes
    ----------
    model_id, subject
        What was fitted, for whom.
    folder
        The model's folder in the BERG directory.
    weights
        The weights file.
    accuracy
        Per unit, on what the fit has not seen; see `berg.evaluation.accuracy_table`.
    facts
        What was chosen and reached on the way.
    seconds
        How long it took, evaluation included.
    announced_bytes, peak_bytes
        Memory beyond what the process held before: as announced, and as measured.
    """

    model_id: str
    subject: Any
    folder: Path
    weights: Path
    accuracy: xr.Dataset | xr.DataTree
    facts: Mapping[str, Any]
    seconds: float
    announced_bytes: int
    peak_bytes: int


def fit_model(
    card: ModelCard | Path | str,
    data: EncodingDataset | Path | str,
    berg_dir: Path | str | None = None,
    *,
    device: str = "auto",
    memory: int | None = None,
    cache: Path | str | None = None,
    permutations: int = 0,
    bootstrap: int = 1000,
    overwrite: bool = False,
    show_progress: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
    **parameters: Any,
) -> FitReport:
    """Fit one subject's model as its card says, and write all that belongs to it into a BERG directory.

    Interrupted and called again with the same arguments, it goes on where it was and gives the same model.

    Parameters
    ----------
    card
        A card, its file, or the id of a model.
    data
        The recordings, or their folder (see `EncodingDataset.open`).
    berg_dir
        Where the model goes; None: the user's.
    device
        auto, cpu, cuda, cuda:N or mps.
    memory
        Bytes that the fit may use; None: 80 % of what is free.
    cache
        Where features are kept for other subjects and later fits; None: the user's cache folder.
    permutations, bootstrap
        How many resamples for p values and for intervals; 0 for none.
    overwrite
        Whether to replace weights that are there.
    show_progress
        None: a bar if standard error is a terminal.
    say
        Called with a line of text before and after each long part.
    **parameters
        The model's own, such as ``subject=1``; ``selection`` where file names depend on it.

    Raises
    ------
    ModelCardError, InvalidParameterError
        If the card cannot be fitted, or the data do not fit the card.
    DatasetError
        If the data are damaged.
    DeviceMemoryError
        If the fit cannot be done in so much memory; before anything is computed.
    """
    check_resampling(permutations, bootstrap)
    stored = _stored(read_card(card))
    family = fitting_family(stored)
    job = _job(stored, data, device, memory, cache, show_progress, parameters, berg_dir)
    _check(family, job)
    return _fit_all(family, [job], _Options(overwrite, permutations, bootstrap, say))[0]


def fit_subjects(
    card: ModelCard | Path | str,
    data: Mapping[Any, EncodingDataset | Path | str],
    berg_dir: Path | str | None = None,
    *,
    device: str = "auto",
    memory: int | None = None,
    cache: Path | str | None = None,
    permutations: int = 0,
    bootstrap: int = 1000,
    overwrite: bool = False,
    show_progress: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
    **parameters: Any,
) -> list[FitReport]:
    """As `fit_model`, for several subjects: features once, and one network where the family shares it.

    Parameters
    ----------
    data
        By subject.
    """
    check_resampling(permutations, bootstrap)
    stored = _stored(read_card(card))
    family = fitting_family(stored)
    jobs = []
    for subject, own in data.items():
        values = {**parameters, "subject": subject}
        jobs.append(_job(stored, own, device, memory, cache, show_progress, values, berg_dir))
        _check(family, jobs[-1])
    return _fit_all(family, jobs, _Options(overwrite, permutations, bootstrap, say))


@dataclass(frozen=True)
class _Options:
    overwrite: bool
    permutations: int
    bootstrap: int
    say: Callable[[str], None]


def read_card(card: ModelCard | Path | str) -> ModelCard:
    """A card, from its file or by the id of its model."""
    if isinstance(card, ModelCard):
        return card
    is_file = Path(card).suffix in (".yaml", ".yml")
    return ModelCard.read(card) if is_file else model_registry.get_card(str(card))


def default_cache() -> Path:
    """Where features are kept, unless said otherwise."""
    from platformdirs import user_cache_path

    return user_cache_path("berg", appauthor=False) / "features"


def _stored(card: ModelCard) -> ModelCard:
    """The card with its files in the BERG directory, whatever package it comes from."""
    if card.files is None:
        raise ModelCardError(f"{card.path}: a card that is fitted needs 'files' (weights and metadata).")
    return card.model_copy(update={"files": card.files.model_copy(update={"store": "berg_dir"})})


def _job(
    card: ModelCard,
    data: EncodingDataset | Path | str,
    device: str,
    memory: int | None,
    cache: Path | str | None,
    show_progress: bool | None,
    parameters: Mapping[str, Any],
    berg_dir: Path | str | None,
) -> FitJob:
    given = dict(parameters)
    selection = check_selection(card, given.pop("selection", None))
    values = validate_parameters(card, given)
    subject = values.get("subject")
    dataset = data if isinstance(data, EncodingDataset) else EncodingDataset.open(Path(data), subject)
    root = settings.berg_dir(berg_dir).value
    files = paths_of(card, root, {**values, **selection})
    torch_device = resolve_device(device)
    return FitJob(
        card=card,
        dataset=dataset,
        parameters={**with_precision(values, torch_device), **({"selection": selection} if selection else {})},
        device=torch_device,
        cache=Path(cache) if cache is not None else default_cache(),
        work=files.work,
        berg_dir=root,
        memory=memory if memory is not None else int(_MEMORY_SHARE * free_memory()),
        show_progress=show_progress,
    )


def _check(family: FittingFamily, job: FitJob) -> None:
    """Raise if card and data do not belong together, or the data are damaged; warn of what is odd in them.

    A family may look at card and data in its own way; it returns the places (``splits``, an output) where it finds
    nothing odd in what others would be warned of.
    """
    check_card(job.card)
    usual = family.check(job)
    if not family.HOLDS_OUT:
        check_test_split(job.card, job.dataset)
    for split in SPLITS:
        check_responses_vary(job.dataset, split)
    faults = check_dataset(job.dataset, job.show_progress).faults
    errors = [f"{fault.place}: {fault.text}" for fault in faults if fault.severity == "error"]
    if errors:
        raise DatasetError("\n".join([*errors, "See all with:  berg dataset check"]))
    for fault in faults:
        if fault.place not in usual:
            warnings.warn(f"{fault.place}: {fault.text}", DatasetWarning, stacklevel=users_stacklevel())


def _fit_all(family: FittingFamily, jobs: Sequence[FitJob], options: _Options) -> list[FitReport]:
    """Fit what is not done, and keep a trace of what is until all is."""
    together = family.fit_together is not None and len(jobs) > 1
    done = fitted_files.are_done(jobs)
    left = [job for job, is_done in zip(jobs, done, strict=True) if not is_done]
    for job in left:
        _refuse_what_is_there(job, options.overwrite)
    if together and left:
        done, left = [False] * len(jobs), list(jobs)
    fitted = iter(_fit_each(family, left, options, together))
    reports = [
        _report_of(job, options.say) if is_done else next(fitted) for job, is_done in zip(jobs, done, strict=True)
    ]
    fitted_files.forget(jobs)
    return reports


def _fit_each(family: FittingFamily, jobs: Sequence[FitJob], options: _Options, together: bool) -> list[FitReport]:
    if not jobs:
        return []
    announced = [_announce(family, job, options.say) for job in jobs]
    start, before = time.perf_counter(), _resident()
    if together:
        announced = [sum(announced)] * len(jobs)
        options.say(f"All {len(jobs)} subjects together: {size_words(announced[0])}")
    for job in jobs:
        fitted_files.begin(job)
    shared = None
    if together and family.fit_together is not None:
        with _arithmetic(jobs[0]):
            shared = family.fit_together(jobs)
    reports = []
    for index, job in enumerate(jobs):
        if shared is not None:
            fitted = shared[index]
        else:
            with _arithmetic(job):
                fitted = family.fit(job)
        report = _finish(job, fitted, options)
        if not together:
            fitted_files.finish([job])
        seconds, start = time.perf_counter() - start, time.perf_counter()
        peak = max(0, peak_resident() - before)
        reports.append(replace(report, seconds=seconds, announced_bytes=announced[index], peak_bytes=peak))
    if together:
        fitted_files.finish(jobs)
    return reports


def _arithmetic(job: FitJob) -> AbstractContextManager[None]:
    """Fit with the float32 products that the model will encode with."""
    return arithmetic(precision_of(job.parameters), job.device)


def _report_of(job: FitJob, say: Callable[[str], None]) -> FitReport:
    """The report of a model that an interrupted call has written; what is left of that call is removed."""
    say(f"{job.card.model_id}{_subject_words(job)} is fitted and written already")
    fitted_files.finish_again(job)
    files, subject = job.files, job.parameters.get("subject")
    facts = json.loads(files.metadata.read_text("utf-8"))["encoding_models"]["fit"]
    facts = {name: value for name, value in facts.items() if name not in ("berg_version", fitted_files.FINGERPRINT)}
    return FitReport(
        job.card.model_id, subject, files.folder, files.weights, read_accuracy(files.accuracy), facts, 0.0, 0, 0
    )


def _refuse_what_is_there(job: FitJob, overwrite: bool) -> None:
    files = job.files
    if files.weights.exists() and not overwrite and not files.ledger.exists():
        raise InvalidParameterError(
            f"{files.weights} is there already. Fit it anew with overwrite=True (--overwrite), or give another "
            "BERG directory."
        )


def _announce(family: FittingFamily, job: FitJob, say: Callable[[str], None]) -> int:
    """State the size of the work and the memory that it takes; refuse what cannot be done in it, or on the disk."""
    needed = int(family.peak_bytes(job))
    units = ", ".join(f"{output.n_units:,} ({name})" for name, output in job.dataset.outputs.items())
    n_train = len(job.dataset.splits["train"])
    say(
        f"{job.card.model_id}{_subject_words(job)}: {n_train:,} training stimuli, units: {units}; memory at the peak "
        f"{size_words(needed)} of {size_words(job.memory)}, on {job.device}"
    )
    if needed > job.memory:
        raise DeviceMemoryError(
            f"This fit needs {size_words(needed)} of memory, and may use {size_words(job.memory)}. Allow more "
            "(memory=..., --memory), fit fewer units, or use a larger machine."
        )
    if n_bytes := family.disk_bytes(job):
        held = sum(path.stat().st_size for path in job.work.glob("*"))
        check_room(job.work, n_bytes, held)
    return needed


def _finish(job: FitJob, fitted: Fitted, options: _Options) -> FitReport:
    """Write the model, load it as a user would, evaluate it, and write what was found beside it."""
    options.say(f"evaluating {job.card.model_id}{_subject_words(job)}")
    files = fitted_files.write_weights(job, fitted)
    model = _load(job)
    resampling: dict[str, Any] = {"permutations": options.permutations, "bootstrap": options.bootstrap}
    if fitted.held_out is not None:
        pairs = {name: (held.measured, held.predicted) for name, held in fitted.held_out.items()}
        first = next(iter(fitted.held_out.values()))
        resampling |= {"split": first.split, "in_time": first.in_time, "groups": first.groups}
        accuracy = evaluate_responses(model, pairs, show_progress=job.show_progress, **resampling)
    else:
        accuracy = evaluate_model(model, job.dataset, show_progress=job.show_progress, **resampling)
    fitted_files.write_evidence(job, fitted, model, accuracy)
    model.cleanup()
    subject = job.parameters.get("subject")
    return FitReport(job.card.model_id, subject, files.folder, files.weights, accuracy, dict(fitted.facts), 0.0, 0, 0)


def _load(job: FitJob) -> EncodingModel:
    given = dict(job.parameters)
    selection = given.pop("selection", None)
    berg_dir = str(job.berg_dir)
    model_class: Any = model_registry.bind_card(job.card)
    model: EncodingModel = model_class(str(job.device), selection, berg_dir, **given)
    model.load_model()
    return model


def _subject_words(job: FitJob) -> str:
    subject = job.parameters.get("subject")
    return "" if subject is None else f", subject {subject}"


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def peak_resident() -> int:
    """The most memory that this process has held so far, in bytes; on a GPU that of the GPU counts too."""
    return peak_memory() + (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)
