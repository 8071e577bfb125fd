"""What lies in a BERG directory, by headers alone: files, layouts, what is missing and what nobody knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from berg.core import model_registry
from berg.core.exceptions import BERGError
from berg.core.layout import METADATA, WEIGHTS, split_model_path
from berg.core.model_card import ModelCard
from berg.weights.file_headers import FileHeader, read_header

_LAYOUTS: tuple[tuple[str, str], ...] = (  # of paths in a model's folder
    (rf"{WEIGHTS}/weights_subject-\d\d\.(npy|safetensors)", "linear, a file per subject"),
    (rf"{WEIGHTS}/weights_sub-\d\d_roi-[^_]+(_split-[12])?\.(pt|safetensors)", "fwrf, a file per region"),
    (rf"{WEIGHTS}/weights_sub-\d\d?\.(npy|pt|safetensors)", "a file per subject"),
    (rf"{WEIGHTS}/weights_(P\d|monkey[NF])_all_training_splits\.\w+", "linear, all splits (newest)"),
    (rf"{WEIGHTS}/weights_(P\d|monkey[NF])_single_training_split_[1-4]\.\w+", "linear, one split (newest)"),
    (rf"{WEIGHTS}/weights_(P\d|monkey[NF])(_full)?\.\w+", "linear, all splits (older)"),
    (rf"{WEIGHTS}/weights_P\d_split[1-4]\.\w+", "linear, one split (older)"),
    (rf"{WEIGHTS}/pca_weights\.npy", "video, shared reduction"),
    (rf"{WEIGHTS}/subj\d\d_part[12]\.(pth|safetensors)|{WEIGHTS}/part1_voxel_indices\.pt", "retina, parts"),
    (rf"{WEIGHTS}/model-CNN8_framework-multihead_[\w-]+\.(pth|safetensors)", "factorised, a readout per subject"),
    (rf"{METADATA}/[A-Za-z0-9]+/sub-\d\d\.npy", "metadata, a file per subject of a data set"),
    (rf"{WEIGHTS}/.+_regression\.pkl", "gateway, pickled regression (never run)"),
    (rf"{METADATA}/metadata(_[\w-]+)*\.(npy|json)", "metadata"),
    (r"manifest\.tsv|[^/]+\.yaml|(README|LICEN[CS]E|CITATION).*", "card, manifest or document"),
)
_PART = "(_split-[12]|_part[12])"
"""Of the weights of one subject that lie in several files."""
_KEYS: tuple[tuple[str, str], ...] = (  # of what a file holds
    (r"pca_param\.components_", "one PCA"),
    (r"pca_param\.rep-\d\.components_", "a PCA per repeat"),
    (r"encoding_models(\.|$)", "key encoding_models"),
    (r"encoding_model\.(all|single)_training", "key encoding_model, per split"),
    (r"encoding_model\.correlation_results", "key encoding_model, flat"),
    (r"utah-array(\.|$)", "key utah-array"),
    (r"utah_array(\.|$)", "key utah_array"),
)


@dataclass(frozen=True)
class Inspected:
    """A file of a BERG directory.

    Attributes
    ----------
    model_id
        Of the model that it belongs to; empty if to none.
    layout
        Which of the known layouts it has, and of which generation; ``unknown`` if none.
    """

    header: FileHeader
    model_id: str
    layout: str


@dataclass(frozen=True)
class Inspection:
    """All files of a BERG directory, and what is missing or unknown."""

    files: list[Inspected]
    notes: list[str]


def inspect_folder(folder: Path) -> Inspection:
    """The files below a folder by their headers; no array is read, and nothing of a pickle is run."""
    model_registry.add_store(folder)  # its own cards
    files = [_inspected(read_header(path, path.relative_to(folder).as_posix())) for path in _paths(folder)]
    return Inspection(files, list(_notes(files)))


def _paths(folder: Path) -> Iterator[Path]:
    """Files, and folders that are stores, sorted; what begins with a dot is not of BERG."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file() or path.suffix == ".zarr":
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _paths(path)


def _inspected(header: FileHeader) -> Inspected:
    named = split_model_path(header.path)
    if named is None:
        return Inspected(header, "", "of no model")
    model_id, inside = named
    layouts = [label for pattern, label in _LAYOUTS if re.fullmatch(pattern, inside)][:1] or ["unknown"]
    keys = {label: None for pattern, label in _KEYS if any(re.match(pattern, held.key) for held in header.held)}
    if any(held.kind.startswith("object sklearn.decomposition") for held in header.held):
        keys["pickled scikit-learn objects"] = None
    if len(header.held) == 1 and header.held[0].kind.startswith("object"):
        keys["a pickled object"] = None
    return Inspected(_without_folder(header, inside), model_id, "; ".join([*layouts, *keys]))


def _without_folder(header: FileHeader, inside: str) -> FileHeader:
    return replace(header, path=inside)


def _notes(files: list[Inspected]) -> Iterator[str]:
    """Sentences on what is missing, unknown or damaged."""
    if not files:
        yield "No files here. Is this the BERG directory?  berg where"
    for file in files:
        place = f"{file.model_id} {file.header.path}".strip()
        if file.header.problem or "missing" in file.header.kind:
            yield f"{place}: {file.header.problem or file.header.kind}"
        if file.layout.startswith("unknown"):
            yield f"{place}: a file of no layout that is known"
    for model_id in dict.fromkeys(file.model_id for file in files if file.model_id):
        yield from _notes_of_model(model_id, {file.header.path for file in files if file.model_id == model_id})


def _notes_of_model(model_id: str, paths: set[str]) -> Iterator[str]:
    try:
        card = model_registry.get_card(model_id)
    except BERGError:
        yield f"{model_id}: a model without a card"
        return
    if card.files is None:
        return
    pairs = ((WEIGHTS, METADATA), (METADATA, WEIGHTS))
    for one, other in pairs:
        for path in sorted(paths):
            if (partner := _partner(card, path, one, other)) and not any(re.fullmatch(partner, each) for each in paths):
                yield f"{model_id}: {path} has no {other} beside it"


def _partner(card: ModelCard, path: str, one: str, other: str) -> str | None:
    """A pattern of the file that goes with this one, if it is of one of the two kinds and named as the card says."""
    templates = {WEIGHTS: card.files.weights, METADATA: card.files.metadata}  # type: ignore[union-attr]
    if any("!s}" in template for template in templates.values()):  # the two spell a value differently
        return None
    found = re.fullmatch(f"{one}/{_pattern(templates[one], {})}{_PART}?\\.\\w+", path)
    if found is None:
        return None
    return f"{other}/{_pattern(templates[other], found.groupdict())}{_PART}?\\.\\w+"


def _pattern(template: str, values: dict[str, str]) -> str:
    """A pattern of a file name of a card: its fields are what they are in `values`, else named groups."""
    parts = re.split(r"\{(\w+)[^}]*\}", template)
    texts, fields = parts[::2], parts[1::2]
    pieces = [re.escape(texts[0])]
    seen = set(values)
    for name, text in zip(fields, texts[1:], strict=True):
        pieces.append(
            re.escape(values[name]) if name in values else f"(?P={name})" if name in seen else rf"(?P<{name}>[\w/-]+?)"
        )
        seen.add(name)
        pieces.append(re.escape(text))
    return "".join(pieces)
