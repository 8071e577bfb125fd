"""The files of a fitted model: begun, continued, and written."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.card_schema import REPETITION
from berg.core.card_yaml import parse_card_yaml
from berg.core.layout import ACCURACY, METADATA, WEIGHTS
from berg.core.model_card import ModelCard
from berg.core.unit_labels import SPACE
from berg.evaluation.accuracy_summary import fill_performance
from berg.evaluation.accuracy_table import accuracy_values, write_accuracy
from berg.evaluation.report import write_report
from berg.fitting.card_agreement import Place, places
from berg.fitting.fit_job import FitJob, Fitted
from berg.fitting.model_paths import ModelPaths
from berg.models.encoding_model import EncodingModel
from berg.statistics.groups import group_numbers
from berg.system.durable_file import replacing
from berg.system.locks import directory_lock
from berg.weights import manifest
from berg.weights.download import update_manifest
from berg.weights.safetensors_files import write_safetensors
from berg.weights.sample import Sample, write_sample

N_SAMPLE = 4
FINGERPRINT = "fingerprint"
"""In the metadata, under ``encoding_models.fit``: of the card, the parameters, the stimuli and the responses."""
_VOLUME = ("volume_shape", "fmri_affine")
_STORE = re.compile(r"(?m)^(\s+store:\s*)(built_in|package)\b")


def begin(job: FitJob) -> None:
    """Make the folders; what an earlier fit of another card or other data left to go on with is deleted."""
    files = job.files
    for folder in (files.folder / WEIGHTS, files.folder / METADATA, files.folder / ACCURACY, job.cache):
        folder.mkdir(parents=True, exist_ok=True)
    given = identity_of(job)
    if files.work.exists() and not (files.ledger.is_file() and files.ledger.read_text("utf-8") == given):
        _remove_work(files)
    files.work.mkdir(exist_ok=True)
    with replacing(files.ledger) as file:
        file.write(given.encode())
    files.done.unlink(missing_ok=True)


def _remove_work(files: ModelPaths) -> None:
    """The ledger goes first: what is left when this is interrupted is no fit to go on with."""
    files.ledger.unlink(missing_ok=True)
    shutil.rmtree(files.work, ignore_errors=True)


def finish(jobs: Sequence[FitJob]) -> None:
    """Say that the models of these jobs are written whole, and remove what let their fits go on.

    The first job goes last: what the jobs share lies in its work folder.
    """
    for job in reversed(jobs):
        files = job.files
        files.ledger.replace(files.done)
    for job in jobs:
        finish_again(job)


def finish_again(job: FitJob) -> None:
    """Remove what a finished fit left."""
    _remove_work(job.files)
    _remove_torn(job.files)


def forget(jobs: Sequence[FitJob]) -> None:
    """Remove the last traces of fits that are done; until the last of them goes, `are_done` tells."""
    for job in jobs:
        job.files.done.unlink(missing_ok=True)


def are_done(jobs: Sequence[FitJob]) -> list[bool]:
    """Whether each model was written whole by an earlier call for the same jobs, which was interrupted later on.

    A fit under way has a ledger, and until the call is over there is at least one that says `done`.
    """
    found = [job.files for job in jobs]
    if not any(files.done.is_file() for files in found):
        return [False] * len(jobs)
    return [
        _is_written(files) and _fingerprint(files) == _hash(identity_of(job))
        for files, job in zip(found, jobs, strict=True)
    ]


def _is_written(files: ModelPaths) -> bool:
    return not files.ledger.is_file() and all(path.is_file() for path in files.written)


def _fingerprint(files: ModelPaths) -> str:
    """Of what a written model was fitted to."""
    found = json.loads(files.metadata.read_text("utf-8")).get("encoding_models", {}).get("fit", {})
    return str(found.get(FINGERPRINT, ""))


def _hash(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()


def _remove_torn(files: ModelPaths) -> None:
    """Remove what a killed fit was writing, under the names that files have until they are whole."""
    shared = (files.card, files.folder / manifest.NAME)
    with directory_lock(files.berg_dir):  # what others write of these, they write under it
        for path in {*files.written, *shared}:
            for torn in path.parent.glob(f".{path.name}.*.tmp"):
                torn.unlink(missing_ok=True)


def identity_of(job: FitJob) -> str:
    """What must be the same for an interrupted fit to go on.

    Stimuli count by their content; responses by those to 64 stimuli, evenly spread; groups by who is in one with whom.
    """
    splits = job.dataset.splits
    used = np.sort(np.concatenate(list(splits.values())))
    groups = job.dataset.groups_of(used)
    some = used[np.unique(np.linspace(0, len(used) - 1, 64).astype(int))]
    responses = {
        name: [*output.axes, *output.shape, hashlib.sha256(output.mean(some).tobytes()).hexdigest()]
        for name, output in job.dataset.outputs.items()
    }
    identity = {
        "card": job.card.raw,
        "parameters": job.parameters,
        "stimuli": job.dataset.fingerprint_of_stimuli(used),
        "splits": {name: indices.tolist() for name, indices in splits.items()},
        "groups": None if groups is None else group_numbers(groups, len(used)).tolist(),
        "responses": responses,
        "berg": version("berg"),
    }
    return json.dumps(identity, default=str, sort_keys=True)


def write_weights(job: FitJob, fitted: Fitted) -> ModelPaths:
    """Weights and metadata, so that the model can be loaded; its accuracy is not known yet."""
    files = job.files
    _forget(files, files.weights, files.metadata)
    write_safetensors(files.weights, fitted.tensors, {"berg_version": version("berg")})
    _write_metadata(files.metadata, metadata_of(job, fitted, None))
    return files


def write_evidence(job: FitJob, fitted: Fitted, model: EncodingModel, accuracy: xr.Dataset | xr.DataTree) -> None:
    """Accuracy, metadata with it, sample, card with its performance filled in, report, manifest."""
    files = job.files
    write_accuracy(files.accuracy, accuracy)
    _write_metadata(files.metadata, metadata_of(job, fitted, accuracy))
    _write_sample(files.sample, job, fitted, model)
    with directory_lock(files.berg_dir):  # fits of other subjects write the same card
        _write_card(files.card, job.card)
        fill_performance(files.card, accuracy)
    write_report(files.report, ModelCard.read(files.card), accuracy, facts=fitted.facts)
    entries = [manifest.entry_of(path, files.folder) for path in files.written]
    update_manifest(files.berg_dir, job.card.model_id, entries)


def _forget(files: ModelPaths, *paths: Path) -> None:
    """Take files out of the manifest before they are written anew: what is recorded must not change."""
    if (files.folder / manifest.NAME).is_file():
        model_id = files.card.stem
        update_manifest(files.berg_dir, model_id, [], [path.relative_to(files.folder).as_posix() for path in paths])


def metadata_of(job: FitJob, fitted: Fitted, accuracy: xr.Dataset | xr.DataTree | None) -> dict[str, Any]:
    """What the card says that the metadata hold: from the family's fit, the data, and the evaluation."""
    found = copy.deepcopy(dict(fitted.metadata))
    names = np.asarray(job.dataset.stimulus_names)
    models = found.setdefault("encoding_models", {})
    for split, indices in job.dataset.splits.items():
        models.setdefault(f"{split}_stimuli", names[indices].tolist())
    ledger = job.files.ledger
    of = {FINGERPRINT: _hash(ledger.read_text("utf-8"))} if ledger.is_file() else {}
    models.setdefault("fit", {"berg_version": version("berg"), **of, **fitted.facts})
    if space := _space(job):
        found.setdefault(SPACE, space)
    for place in places(job.card):
        if place.axis == REPETITION or _has(found, place.path):
            continue
        if (values := _values(job, place, accuracy)) is not None:
            _put(found, place.path, values)
    return found


def _space(job: FitJob) -> dict[str, Any]:
    """Where the units lie, as far as the files of all outputs say the same."""
    facts = [output.attributes for output in job.dataset.outputs.values()]
    surfaces: dict[str, int] = {}
    for own in facts:
        surfaces |= own.get("surface_vertices", {})
    found: dict[str, Any] = {"surface_vertices": surfaces} if surfaces else {}
    volumes = [[np.asarray(own[name]) for name in _VOLUME] for own in facts if set(_VOLUME) <= set(own)]
    if len({tuple(part.tobytes() for part in volume) for volume in volumes}) == 1:
        found |= dict(zip(_VOLUME, volumes[0], strict=True))
    return found


def _values(job: FitJob, place: Place, accuracy: xr.Dataset | xr.DataTree | None) -> Any:
    """What belongs there; None for what may be missing, and is not known."""
    output = job.dataset.outputs[place.output]
    length = output.shape[output.axes.index(place.axis)]
    for name in (place.name, place.path.rpartition(".")[2]):
        if name in output.coordinates:
            values = np.asarray(output.coordinates[name][1])
            return regions(values) if place.is_roi else values
        if accuracy is not None and (found := accuracy_values(accuracy, place.output, name)) is not None:
            return found
    if place.name == place.axis:
        return np.arange(length)
    return None if place.is_optional else np.full(length, np.nan)


def regions(labels: NDArray[Any]) -> dict[str, NDArray[np.intp]]:
    """The units of each region; a unit in several has their names with semicolons between.

    >>> regions(np.array(["V1", "V1;early", ""]))
    {'V1': array([0, 1]), 'early': array([1])}
    """
    members = [[part.strip() for part in str(label).split(";") if part.strip()] for label in labels]
    names = dict.fromkeys(name for own in members for name in own)
    return {name: np.flatnonzero([name in own for own in members]) for name in names}


def _has(tree: Mapping[str, Any], path: str) -> bool:
    value: Any = tree
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return False
        value = value[step]
    return True


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *steps, last = path.split(".")
    for step in steps:
        tree = tree.setdefault(step, {})
    tree[last] = value


def _write_metadata(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(content, default=_plain).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return str(value)


def _write_sample(path: Path, job: FitJob, fitted: Fitted, model: EncodingModel) -> None:
    stimuli = _sample_stimuli(job) if fitted.sample_stimuli is None else fitted.sample_stimuli
    rate = model.expected_input.sampling_rate
    responses = model.generate_response(stimuli, show_progress=False, sampling_rate=rate)
    parameters = {name: value for name, value in job.parameters.items() if name != "selection"}
    arrays = responses if isinstance(responses, tuple) else (responses,)
    write_sample(Sample(path, stimuli, arrays, parameters, job.parameters.get("selection", {})))


def _sample_stimuli(job: FitJob) -> NDArray[Any]:
    places = job.dataset.splits["test"][:N_SAMPLE]
    if not len(places):
        places = np.arange(min(N_SAMPLE, len(job.dataset.stimulus_names)))
    if job.card.input is None or job.card.input.kind != "video":
        return job.dataset.read_stimuli(places)
    videos = job.read_stimuli(places)  # the frames that the model takes
    return videos if videos.shape[2] == 3 else job.read_stimuli(places[:1])  # of several sizes


def _write_card(path: Path, card: ModelCard) -> None:
    """The card beside the weights, saying that they lie in the BERG directory."""
    if path.is_file() and path.resolve() == card.path.resolve():
        return
    text = _STORE.sub(r"\1berg_dir", card.path.read_text(encoding="utf-8"))
    parse_card_yaml(text, str(path))
    with replacing(path) as file:
        file.write(text.encode())
