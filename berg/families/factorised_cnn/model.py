"""One convolutional network for many subjects of many data sets, with a factorised readout for each.

    picture -> core, shared by all subjects -> place of a vertex in the picture -> weight per channel -> response

The core is in `features`, the readout in `readout`, the vertices in `vertices` beside this file. All subjects lie in
one file, of which those readouts are read that are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.card_schema import CardPart
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, did_you_mean, listing
from berg.families.factorised_cnn.features import KERNELS, MAP_SIZE, Core, Folded, fold
from berg.families.factorised_cnn.readout import FactorisedReadout, Readouts
from berg.families.factorised_cnn.subjects import Subject, subjects_of
from berg.families.factorised_cnn.vertices import N_GRAYORDINATES, Vertices, surface_facts, vertices_of
from berg.features.precision import dtype_of
from berg.models.batches import as_tensor
from berg.models.encoding_model import EncodingModel
from berg.weights import model_files
from berg.weights.pt_files import map_pt
from berg.weights.safetensors_files import read_safetensors

Tensors = Mapping[str, NDArray[Any]]

PARALLEL = "module."  # before each name in files of a model that was trained on several GPUs
CEILINGS = tuple(
    f"{split}_{kind}_noiseceiling" for split in ("test", "train", "artificial") for kind in ("n-avg", "n-1")
)
_NORMALISATION = ("weight", "bias", "running_mean", "running_var")


class Features(CardPart):
    """What the card says under ``features``."""

    extractor: Literal["cnn8"]


class Readout(CardPart):
    """What the card says under ``readout``."""

    steps: list[str]
    datasets: dict[str, str]  # as files spell them -> as the published package does
    areas: list[str] | None = None  # of the cortex; all of it if not given


class FactorisedCNNModel(EncodingModel):
    """Vertices of one or several subjects, who see the pictures at once."""

    batch_size = 4

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The core, shared with other models of the file, and the readouts of the subjects."""
        self.card.part("features", Features)
        (path,) = self.weights_paths(self.berg_dir, self.file_values)
        tensors, dtype = open_tensors(path), dtype_of(self.precision)
        core = _core(path, tensors, dtype, self.device)
        rows = self.indices_of(self.card.outputs[0].name, "grayordinate")
        n_vertices, n_channels = len(self.vertices()), core.n_channels
        heads = [read_head(path, tensors, subject, n_vertices, n_channels, rows) for subject in self.subjects]
        return core, Readouts([FactorisedReadout(*head, dtype) for head in heads])

    @property
    def subjects(self) -> list[Subject]:
        """The subjects asked for, in the order given."""
        return self.subjects_in(self.parameters)

    def as_returned(self, responses: Any) -> Any:
        """Responses as the published package returns them: ``{data set: {"sub-01": (n_stimuli, n_vertices)}}``."""
        nested: dict[str, dict[str, Any]] = {}
        for index, subject in enumerate(self.subjects):
            nested.setdefault(subject.dataset, {})[subject.name] = responses[:, index]
        return nested

    def attributes(self) -> dict[str, Any]:
        """What the responses are of; the subjects as one text."""
        return {**super().attributes(), "subject": ", ".join(str(subject.value) for subject in self.subjects)}

    @classmethod
    def subjects_in(cls, values: Mapping[str, Any]) -> list[Subject]:
        """The subjects that parameters name."""
        return subjects_of(values["subject"], cls.card.part("readout", Readout).datasets)

    @classmethod
    def vertices(cls) -> Vertices:
        """All vertices of the model, in its order."""
        areas = cls.card.part("readout", Readout).areas
        return vertices_of(None if areas is None else tuple(areas))

    @classmethod
    def file_names(cls, values: Mapping[str, Any]) -> list[str]:
        """The weights of all subjects, and the metadata of each that is asked for."""
        each = [model_files.file_names(cls.card, {**values, "subject": own.value}) for own in cls.subjects_in(values)]
        return list(dict.fromkeys(name for names in each for name in names))

    @classmethod
    def read_metadata(cls, berg_dir: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the files of the subjects hold, as ``{data set: {"sub-01": ...}}``; of one subject, at the top too.

        Beside them: ``units``, labels of subjects and vertices; ``encoding_model``, the noise ceilings of all subjects
        at the vertices of the model; ``space``, of which surface these are.
        """
        subjects, vertices = cls.subjects_in(values), cls.vertices()
        paths = [model_files.metadata_path(cls.card, berg_dir, {**values, "subject": own.value}) for own in subjects]
        contents = {path: model_files.read_metadata(path) for path in paths}
        nested: dict[str, Any] = {}
        for subject, content in zip(subjects, contents.values(), strict=True):
            nested.setdefault(subject.dataset, {})[subject.name] = content
        asked = np.atleast_1d(values.get("roi") or []).tolist()
        return {
            **(contents[paths[0]] if len(subjects) == 1 else {}),
            **nested,
            "units": {
                "subject": np.array([subject.value for subject in subjects]),
                "dataset": np.array([subject.dataset for subject in subjects]),
                **vertices.labels(),
                "regions": {
                    **vertices.regions(),
                    **_stated(asked, contents, vertices),
                },
            },
            "encoding_model": _ceilings(contents, vertices),
            "space": surface_facts(),
        }

    @classmethod
    def converted_tensors(cls, path: Path, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The core, batch normalisation folded in, and the readouts of all subjects as they are in the file."""
        tensors = open_tensors(path)
        found: dict[str, NDArray[Any]] = {}
        for index, (weight, bias) in enumerate(read_core(path, tensors), start=1):
            found |= {f"core.block{index}.weight": weight, f"core.block{index}.bias": bias}
        return found | {name: tensors[name] for name in tensors if not name.startswith("core.")}

    @classmethod
    def convert(
        cls, berg_dir: str | None = None, selection: Mapping[str, Any] | None = None, **parameters: Any
    ) -> list[Path]:
        """Write one file for all subjects; whichever is named."""
        first = (cls.card.parameters["subject"].allowed or [1])[0]
        return super().convert(berg_dir, selection, **{"subject": first, **parameters})


class _Renamed(Mapping[str, NDArray[Any]]):
    """Tensors without what stands before all their names."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.names = {name.removeprefix(PARALLEL): name for name in tensors}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.tensors[self.names[name]]

    def __iter__(self) -> Any:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def open_tensors(path: Path) -> Tensors:
    """The tensors of a weights file, published or converted, each read when it is used."""
    return _Renamed(read_safetensors(path, mapped=True) if path.suffix == ".safetensors" else map_pt(path))


# The core


_in_memory: WeakValueDictionary[tuple[object, ...], Core] = WeakValueDictionary()


def _core(path: Path, tensors: Tensors, dtype: torch.dtype, device: torch.device) -> Core:
    """The core of a file, the same for all models that are loaded from it."""
    state = path.stat()
    key = (str(path.resolve()), state.st_size, state.st_mtime_ns, dtype, str(device))
    core = _in_memory.get(key)
    if core is None:
        core = Core(read_core(path, tensors), dtype).to(device).eval().requires_grad_(False)
        _in_memory[key] = core
    return core


def read_core(path: Path, tensors: Tensors) -> list[Folded]:
    """The eight convolutions, batch normalisation folded in.

    Raises
    ------
    CorruptedFileError
        If a tensor is missing, has a wrong shape or values that it cannot have, or is not known.
    """
    blocks, n_in, known = [], 3, set()
    for number, kernel in enumerate(KERNELS, start=1):
        block = f"core.block{number}"
        published = f"{block}.weight" not in tensors
        name = f"{block}.0.weight" if published else f"{block}.weight"
        weight = _tensor(path, tensors, name, (None, n_in, kernel, kernel))
        n_in = len(weight)
        if published:
            normalisation = [_tensor(path, tensors, f"{block}.1.{own}", (n_in,)) for own in _NORMALISATION]
            if (normalisation[-1] < 0).any():
                raise CorruptedFileError(f"{path}: '{block}.1.running_var' is negative. Get the file again.")
            blocks.append(fold(weight, *normalisation))
            known |= {name, *(f"{block}.1.{own}" for own in (*_NORMALISATION, "num_batches_tracked"))}
        else:
            blocks.append((np.array(weight), np.array(_tensor(path, tensors, f"{block}.bias", (n_in,)))))
            known |= {name, f"{block}.bias"}
    if unknown := sorted(name for name in tensors if name.startswith("core.") and name not in known):
        raise CorruptedFileError(f"{path} has weights of the core that this model does not know: {listing(unknown)}.")
    return blocks


# The readouts


def read_head(
    path: Path, tensors: Tensors, subject: Subject, n_vertices: int, n_channels: int, rows: NDArray[np.intp]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Spatial weights, weights of the channels and offsets of some vertices of a subject.

    Of all vertices, they are read from the file when they are used, if they are float32 there.

    Raises
    ------
    CorruptedFileError
        If the file has no such subject, or other vertices or channels than the model.
    """
    if f"{subject.head}.spatial" not in tensors:
        heads = sorted(
            {name.split(".")[1] for name in tensors if name.startswith("subject_readouts.") and "." in name[17:]}
        )
        own = subject.head.split(".")[1]
        raise CorruptedFileError(
            f"{path} has no readout '{own}' of subject {subject.value}.{did_you_mean(own, heads)} It has "
            f"{listing(heads, most=10) or 'none'}. It is the file of another model, or damaged; get it again."
        )
    shapes = {"spatial": (n_vertices, MAP_SIZE, MAP_SIZE), "_features": (n_vertices, n_channels), "bias": (n_vertices,)}
    whole = np.array_equal(rows, np.arange(n_vertices))
    spatial, features, bias = (
        _rows(
            path, f"{subject.head}.{name}", _tensor(path, tensors, f"{subject.head}.{name}", shape, False), rows, whole
        )
        for name, shape in shapes.items()
    )
    return spatial.flatten(1), features, bias


def _rows(path: Path, name: str, values: NDArray[Any], rows: NDArray[np.intp], whole: bool) -> torch.Tensor:
    own = values if whole else values[rows]
    if not np.isfinite(own.sum(dtype=np.float64)):
        raise CorruptedFileError(f"{path}: '{name}' has NaN or infinite values. Get the file again.")
    is_as_stored = own.dtype == np.float32 and own.flags.c_contiguous
    return as_tensor(own if is_as_stored else np.array(own, np.float32, order="C"))


def _tensor(
    path: Path, tensors: Tensors, name: str, shape: tuple[int | None, ...], is_checked: bool = True
) -> NDArray[Any]:
    """A tensor of floating-point numbers with this shape; None is any length."""
    if name not in tensors:
        raise CorruptedFileError(f"{path}: '{name}' is not there. It is the file of another model, or damaged.")
    found = tensors[name]
    fits = found.ndim == len(shape) and all(n in (None, own) for n, own in zip(shape, found.shape, strict=True))
    if not fits or found.dtype.kind != "f" or not found.size:
        expected = " x ".join("any" if n is None else str(n) for n in shape)
        raise CorruptedFileError(
            f"{path}: '{name}' has shape {found.shape} and dtype {found.dtype}, expected {expected} numbers in "
            "floating point. Get the file again."
        )
    if is_checked and not np.isfinite(found).all():
        raise CorruptedFileError(f"{path}: '{name}' has NaN or infinite values. Get the file again.")
    return found


# The metadata


def _ceilings(contents: Mapping[Path, dict[str, Any]], vertices: Vertices) -> dict[str, NDArray[np.float32]]:
    """The noise ceilings that any subject has, shape (n_subjects, n_vertices); NaN of the others."""
    found = {}
    for name in CEILINGS:
        each = [_ceiling(path, content, name, vertices) for path, content in contents.items()]
        if any(own is not None for own in each):
            missing = np.full(len(vertices), np.nan, np.float32)
            found[name] = np.stack([missing if own is None else own for own in each])
    return found


def _ceiling(path: Path, content: Mapping[str, Any], name: str, vertices: Vertices) -> NDArray[np.float32] | None:
    section = _section(path, content, "encoding_models")
    if section.get(name) is None:
        return None
    values = np.asarray(section[name])
    if values.shape != (N_GRAYORDINATES,) or values.dtype.kind not in "fiu":
        raise CorruptedFileError(
            f"{path}: 'encoding_models.{name}' has shape {values.shape}, expected one number for each of the "
            f"{N_GRAYORDINATES:,} grayordinates. Get the file again."
        )
    return values[vertices.grayordinate].astype(np.float32)


def _stated(
    names: list[str], contents: Mapping[Path, dict[str, Any]], vertices: Vertices
) -> dict[str, NDArray[np.intp]]:
    """The vertices of regions as the metadata state them; of those that they do not have, nothing.

    Grayordinates of a region that the model does not predict are left out.

    Raises
    ------
    InvalidParameterError
        If the subjects differ in a region: no axis of vertices could hold it.
    """
    found = {}
    for name in names:
        each = {path: _region(path, content, name, vertices) for path, content in contents.items()}
        first = next(iter(each.values()))
        if any(not np.array_equal(own, first) for own in each.values()):
            other = next(path for path, own in each.items() if not np.array_equal(own, first))
            raise InvalidParameterError(
                f"'{name}' is not of the same vertices for all these subjects: {next(iter(each))} and {other} differ. "
                "Encode one subject at a time."
            )
        found[name] = first
    return found


def _region(path: Path, content: Mapping[str, Any], name: str, vertices: Vertices) -> NDArray[np.intp]:
    """A region as the metadata state it, or as the atlas has it."""
    table = _section(path, _section(path, content, "fmri"), "roi")
    sides = [name] if name[:2] in ("L_", "R_") else [f"L_{name}", f"R_{name}"]
    whole = vertices.regions()
    empty = np.empty(0, np.intp)
    parts = [_places(path, side, table[side], vertices) if side in table else whole.get(side, empty) for side in sides]
    return np.unique(np.concatenate(parts))


def _places(path: Path, name: str, given: Any, vertices: Vertices) -> NDArray[np.intp]:
    indices = np.asarray(given).ravel()
    if indices.size and (indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= N_GRAYORDINATES):
        raise CorruptedFileError(
            f"{path}: 'fmri.roi.{name}' are not numbers of grayordinates, 0 to {N_GRAYORDINATES - 1:,}. Get the file "
            "again."
        )
    return vertices.places_of(indices.astype(np.intp))


def _section(path: Path, content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name, {})
    if not isinstance(found, Mapping):
        raise CorruptedFileError(f"{path}: '{name}' is a {type(found).__name__}, not a map. Get the file again.")
    return found
