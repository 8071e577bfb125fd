"""Activity of neurons over time, by a recurrent network that sees a film frame by frame.

The network has a part that all scans share (the core) and one of each scan: how the animal saw the monitor, what its
behaviour did, and where and how each neuron reads the core. The maths is in `features` and `readout` beside this file;
here the files are read.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from berg.core.card_schema import CardPart
from berg.core.exceptions import CorruptedFileError
from berg.core.layout import WEIGHTS
from berg.families.recurrent_3dcnn.features import FilmFeatures
from berg.families.recurrent_3dcnn.readout import NeuronReadout
from berg.families.recurrent_3dcnn.state_dict import N_STREAMS, Tensors, as_arrays, read_tensors
from berg.models.encoding_model import EncodingModel
from berg.stimuli.readers import Stimuli
from berg.weights import model_files

UNITS, SCANS = "units.csv", "scans.csv"
OF_SCAN = ("session", "scan_idx")  # columns of both


class Features(CardPart):
    """What the card says under ``features``."""

    extractor: Literal["recurrent_3dcnn"]
    settling_frames: int = Field(ge=0, description="at the beginning of a film, while the network finds its state")


class Readout(CardPart):
    """What the card says under ``readout``."""

    steps: list[Literal["bilinear_place", "linear", "mean_over_streams", "exponential"]]


class Recurrent3DCNN(EncodingModel):
    """A recurrent network of films, and neurons that read it at one place each."""

    batch_size = 8
    section: ClassVar[str] = "calcium_2p"  # of the metadata
    n_frames: int | None = None  # of the film or films that were encoded last
    one_film = False

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The network, and the selected neurons."""
        self.card.part("features", Features)
        self.card.part("readout", Readout)
        paths = self.paths_read(self.berg_dir, self.file_values)
        tensors = Tensors(read_tensors(paths), paths)
        features = FilmFeatures(tensors)
        return features, self._readout(tensors, features, paths)

    def _readout(self, tensors: Tensors, features: FilmFeatures, paths: Sequence[Path]) -> NeuronReadout:
        """The weights of the four streams side by side, and the mean over the streams in them."""
        output = self.card.outputs[0].name
        n_units, n_channels = len(self.metadata[self.section]["unit_id"]), features.recurrent.n_outputs
        places = tensors.get("readout.position.mu", (None, 2))
        if len(places) != n_units:
            raise CorruptedFileError(
                f"{paths[0]} has {len(places):,} neurons, and the metadata have {n_units:,}. They are not of one scan "
                "or publication; get both again."
            )
        self._check_units(n_units)
        rows = torch.from_numpy(self.indices_of(output, "unit"))
        weights = [
            tensors.get(f"readout.feature.weights.{stream}", (n_units, 1, n_channels))[rows, 0]
            for stream in range(N_STREAMS)
        ]
        name = "readout.feature.biases" if tensors.has("readout.feature.biases.0") else "readout.biases"
        biases = [tensors.get(f"{name}.{stream}", (n_units, 1))[rows, 0] for stream in range(N_STREAMS)]
        return NeuronReadout(
            torch.tanh(places[rows]),
            torch.cat(weights, 1) / N_STREAMS,
            torch.stack(biases).mean(0),
            features.size,
        )

    def _check_units(self, n_units: int) -> None:
        """Raise CorruptedFileError if the list of units beside the weights names others than the metadata do."""
        path = model_files.model_folder(self.card, self.berg_dir) / WEIGHTS / UNITS
        if not path.is_file():
            return
        own = [row for row in read_table(path, (*OF_SCAN, "readout_id", "unit_id")) if self._is_of_scan(row)]
        known = dict(zip((row["readout_id"] for row in own), (row["unit_id"] for row in own), strict=True))
        expected = np.asarray(self.metadata[self.section]["unit_id"]).tolist()
        if own and (len(known) != len(own) or [known.get(number) for number in range(n_units)] != expected):
            raise CorruptedFileError(
                f"{path} names other units of {self.parameters['train_session']} than the metadata, or in another "
                "order (readout_id 0, 1, 2, ...). They are not of one publication; get both again."
            )

    def _is_of_scan(self, row: Mapping[str, int]) -> bool:
        return f"session-{row['session']}_scan-{row['scan_idx']}" == str(self.parameters["train_session"])

    @classmethod
    def read_metadata(cls, berg_dir: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata of the scan."""
        path = model_files.metadata_path(cls.card, berg_dir, values)
        metadata = model_files.read_metadata(path)
        section: Any = metadata.get(cls.section)
        units: Any = section.get("unit_id") if isinstance(section, Mapping) else None
        if np.ndim(units) != 1:
            raise CorruptedFileError(f"{path} has no list '{cls.section}.unit_id'. Get it again.")
        session, scan = section.get("session"), section.get("scan")
        expected = values.get("train_session")
        if None not in (session, scan) and expected not in (None, f"session-{session}_scan-{scan}"):
            raise CorruptedFileError(
                f"{path} is of session {session!r:.20}, scan {scan!r:.20}, not of {expected}. Get it again."
            )
        return metadata

    @classmethod
    def file_names(cls, values: Mapping[str, Any]) -> list[str]:
        """The files of a scan, with the lists of all scans and units."""
        return [*super().file_names(values), f"{WEIGHTS}/{SCANS}", f"{WEIGHTS}/{UNITS}"]

    @classmethod
    def converted_tensors(cls, path: Path, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The tensors of a scan as they are."""
        return as_arrays(path)

    def set_stimuli(self, stimuli: Stimuli) -> None:
        """One film has its frames as rows; several have an axis of time."""
        self.one_film = bool(getattr(stimuli, "is_one_film", False))
        self.n_frames = len(stimuli) if self.one_film else stimuli.shape[0]
        whole = type(self).card
        output = whole.outputs[0]
        if self.one_film:
            output = output.model_copy(update={"axes": [axis for axis in output.axes if axis != "time"]})
            self.indices.pop((output.name, "time"), None)
        else:
            self.indices[output.name, "time"] = np.arange(self.n_frames)
        self.card = whole.model_copy(update={"outputs": [output]})  # type: ignore[misc]  # of this instance alone

    @property
    def is_in_sequence(self) -> bool:
        """Whether one film was given, whose frames are computed in order."""
        return self.one_film

    def in_window(self, responses: Sequence[torch.Tensor], n_samples: int) -> Sequence[torch.Tensor]:
        """All times: there is no selection of them."""
        return responses

    def labels(self) -> dict[str, Any]:
        """As of every model, with the time of each frame, and whether the network still settles."""
        found = super().labels()
        if self.n_frames is None:
            return found
        settling = self.card.part("features", Features).settling_frames
        axis, frames = "stimulus" if self.one_film else "time", np.arange(self.n_frames)
        for label in found.values():
            label["coordinates"]["time"] = (axis, frames / self._frame_rate)
            label["coordinates"]["is_settling"] = (axis, frames < settling)
        return found

    @property
    def _frame_rate(self) -> int:
        return self.expected_input.frame_rate or 1


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, int]]:
    """Whole numbers of some columns of a table, a map for each row.

    Raises
    ------
    CorruptedFileError
        If a column is missing, or has anything else in it.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return [{name: int(float(row[name])) for name in columns} for row in rows]
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise CorruptedFileError(
            f"{path} is not a table of whole numbers with the columns {', '.join(columns)}: {error!r:.80}. Get it "
            "again."
        ) from error
