"""Checks of a model's files."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from berg.core.layout import WEIGHTS
from berg.testing.check import Faults, check
from berg.testing.closeness import disagreements, in_sd
from berg.testing.model_under_test import ModelUnderTest
from berg.testing.outcome import NotApplicable
from berg.weights import manifest, model_files
from berg.weights.sample import Sample, read_samples

PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".bin")
SAMPLE_SD = 1e-4


@check("Put the weights into encoding_models_weights and the metadata into metadata, named as 'files' says.")
def files_are_named_as_the_card_says(model: ModelUnderTest) -> Faults:
    """The weights have the folder and the name that the card's 'files' says."""
    if model.made and model.card.files is None:
        raise NotApplicable("the card names no 'files'")
    yield from (f"{path} is not there" for path in _weights_files(model) if not path.is_file())


@check("Remove the file, or correct its name.", fault="warning")
def no_other_files_lie_among_the_weights(model: ModelUnderTest) -> Faults:
    """Every file among the weights has a name that 'files' of the card allows."""
    if model.made and model.card.files is None:
        raise NotApplicable("the card names no 'files'")
    pattern = _pattern(str(model.card.files and model.card.files.weights))
    others = {*_names_told(model)}
    for path in sorted((model.folder / WEIGHTS).iterdir()):
        if not path.name.startswith(".") and not pattern.fullmatch(path.stem) and path.stem not in others:
            yield f"{path.name} is not one of this model's weights"


def _names_told(model: ModelUnderTest) -> Iterator[str]:
    """The names, without their endings, that the class of the model gives, such as of a file of all subjects."""
    if hasattr(model.model_class, "file_names") and model.card.files is not None:
        yield from (PurePosixPath(name).stem for name in model.model_class.file_names(model.file_values))


@check("Write the weights as safetensors:  berg convert, or write_safetensors.", fault="warning")
def weights_are_not_pickled(model: ModelUnderTest) -> Faults:
    """The weights are in a format that cannot run code when it is read."""
    found = _weights_files(model)
    if not found:
        raise NotApplicable("no weights files were found")
    yield from (f"{path.name} is pickled" for path in found if _is_pickled(path))


@check("Write manifest.tsv with the sha256 of each file (berg.weights.manifest);  berg pack  does so.", fault="warning")
def files_have_a_manifest(model: ModelUnderTest) -> Faults:
    """The model's folder has a manifest with the hash of each file."""
    if model.card.files is not None and model.card.files.store != "berg_dir":
        raise NotApplicable("the files are installed with a package, which has hashes of its own")
    if model.made and not (model.folder / manifest.NAME).is_file():
        yield f"there is no {manifest.NAME} in {model.folder}"


@check("Find out who changed the files; get them again, or write the manifest anew.")
def files_are_those_of_the_manifest(model: ModelUnderTest) -> Faults:
    """Each file of the manifest is there, with the size and the hash that the manifest gives."""
    if not (model.folder / manifest.NAME).is_file():  # a model whose files were changed need not run
        raise NotApplicable("the model has no manifest")
    entries = manifest.read_manifest(model.folder / manifest.NAME)
    yield from (f"{found.path}: {found.kind}" for found in manifest.verify(model.folder, entries.values()))


@check("Find out what changed: the weights, the transform, a library; or write the sample anew (write_sample).")
def sample_is_reproduced(model: ModelUnderTest) -> Faults:
    """The stimuli of the sample beside the weights give the responses of the sample."""
    samples = [sample for sample in read_samples(model.loaded and model.folder) if _is_of(sample, model)]
    if not samples:
        raise NotApplicable("there is no sample of these parameters (metadata/sample_*.safetensors)")
    for sample in samples[:3]:
        given = {"device": model.parameters["device"], **sample.parameters}
        with model.load(model.make(given, sample.selection)) as loaded:
            found = model.encode(loaded, sample.stimulus)
        yield from disagreements(sample.path.name, found, sample.responses, SAMPLE_SD, in_sd)


def _weights_files(model: ModelUnderTest) -> list[Path]:
    """The files from which the weights of this model are read."""
    berg_dir, card = model.made and model.berg_dir, model.card
    if hasattr(model.model_class, "weights_paths"):
        return list(model.model_class.weights_paths(berg_dir, model.file_values))
    if card.files is not None:
        return [model_files.weights_path(card, berg_dir, model.file_values)]
    folder = model.folder / WEIGHTS
    return sorted(path for path in folder.glob("*") if path.is_file())


def _is_pickled(path: Path) -> bool:
    if path.suffix != ".npy":
        return path.suffix in PICKLED
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an array of objects
        return True
    return False


def _pattern(name: str) -> re.Pattern[str]:
    """A pattern of file names: anything for each ``{...}``, and perhaps the number of a part at the end."""
    parts = (re.escape(text) + (".*" if field else "") for text, field, _, _ in string.Formatter().parse(name))
    return re.compile("".join(parts) + r"(_split-\d+)?")


def _is_of(sample: Sample, model: ModelUnderTest) -> bool:
    """Whether a sample is of the parameters that the model is checked with."""
    given = model.parameters
    return all(given.get(name, value) == value for name, value in sample.parameters.items())
