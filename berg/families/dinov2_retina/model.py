"""Vertices that look at places of a picture, through the layers of a DINOv2.

    picture -> DINOv2 -> maps and vectors of four blocks -> each vertex reads one place -> responses

The weights of a subject are two parts, each with a network of its own and some of the vertices; what is not selected is
neither read nor computed. `features` has the networks, `readout` how vertices look, `joining` which part has which.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.card_schema import CardPart
from berg.core.exceptions import CorruptedFileError
from berg.core.unit_labels import axis_length
from berg.families.dinov2_retina.converted_part import ConvertedPart, converted_arrays, read_converted
from berg.families.dinov2_retina.features import retina_features
from berg.families.dinov2_retina.joining import Joined, join_parts, read_first_vertices
from berg.families.dinov2_retina.published_part import PublishedPart, read_part
from berg.families.dinov2_retina.readout import JoinedReadout, RetinaReadout
from berg.features.precision import dtype_of
from berg.models.encoding_model import EncodingModel
from berg.weights import model_files

PARTS = ("_part1", "_part2")
Part = PublishedPart | ConvertedPart


class Readout(CardPart):
    """What the card says under ``readout``."""

    steps: list[str]
    subject: str  # how the tensors of a subject are called, such as "subj{subject:02d}"


class DINOv2RetinaModel(EncodingModel):
    """The vertices of both hemispheres, each of which looks at one place of the picture."""

    batch_size = 16

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The networks of the parts that have selected vertices, shared with other models, and their readouts."""
        parts = self._read_parts()
        joined = self._joined(parts)
        selected = [self._vertices(output.name) for output in self.card.outputs]
        vertices = np.concatenate(selected)
        used = sorted(set(joined.part[vertices].tolist())) or [0]
        checked = {number: parts[number].checked() for number in used}
        features = retina_features(
            [part.trunk() for part in checked.values()], self.parameters["precision"], self.device
        )
        rows = {number: joined.row[vertices[joined.part[vertices] == number]] for number in used}
        readouts = [self._readout(checked[number], rows[number]) for number in used]
        order = np.argsort(np.argsort(joined.part[vertices], kind="stable"), kind="stable")  # parts lie side by side
        columns = np.split(order, np.cumsum([len(own) for own in selected])[:-1])
        return features, JoinedReadout(readouts, [torch.from_numpy(own) for own in columns])

    @classmethod
    def weights_paths(cls, berg_dir: str | None, values: Mapping[str, Any], published: bool = False) -> list[Path]:
        """The two parts of a subject."""
        return [model_files.weights_path(cls.card, berg_dir, values, part, published) for part in PARTS]

    @classmethod
    def file_names(cls, values: Mapping[str, Any]) -> list[str]:
        """The two parts, the metadata, and the vertices of part 1 of all subjects."""
        return model_files.file_names(cls.card, values, PARTS)

    @classmethod
    def converted_tensors(cls, path: Path, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The networks with all updates in their matrices, and what each vertex looks at."""
        return converted_arrays(read_part(path, cls._subject(values)).checked())

    @classmethod
    def _subject(cls, values: Mapping[str, Any]) -> str:
        return cls.card.part("readout", Readout).subject.format(**values)

    def _read_parts(self) -> list[Part]:
        paths = self.weights_paths(self.berg_dir, self.file_values)
        return [
            read_converted(path)
            if path.suffix == model_files.CONVERTED
            else read_part(path, self._subject(self.parameters))
            for path in paths
        ]

    def _joined(self, parts: list[Part]) -> Joined:
        n_all = sum(self._lengths().values())
        path = model_files.shared_path(self.card, self.berg_dir, self.file_values)
        if path is None:
            raise CorruptedFileError(f"The card of {self.card.model_id} names no file with the vertices of part 1.")
        first, second = parts
        vertices = read_first_vertices(path, self._subject(self.parameters), n_all, first.n_vertices)
        return join_parts(n_all, vertices, second.n_vertices, second.path)

    def _lengths(self) -> dict[str, int]:
        """How many vertices each hemisphere has; they are counted through, in the order of the outputs."""
        names = [output.name for output in self.card.outputs]
        return {name: axis_length(self.card, name, "vertex", self.metadata) for name in names}

    def _vertices(self, output: str) -> NDArray[np.intp]:
        """The selected vertices of a hemisphere, counted through both."""
        lengths = self._lengths()
        names = list(lengths)
        return self.indices_of(output, "vertex") + sum(lengths[name] for name in names[: names.index(output)])

    def _readout(self, part: Part, rows: NDArray[np.intp]) -> RetinaReadout:
        chosen = torch.from_numpy(rows)
        weight, bias = part.readout(chosen)
        return RetinaReadout(part.looks(chosen), weight.to(dtype_of(self.parameters["precision"])), bias)
