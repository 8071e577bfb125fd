"""dataset.yaml: what lies where in a dataset's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, StrictInt

from berg.core.card_schema import CardPart, Texts
from berg.core.card_yaml import Lines, parse_card_yaml, read_card_text
from berg.core.exceptions import DatasetError, ModelCardError
from berg.core.model_card import validated
from berg.datasets.cleaning import Cleaning
from berg.datasets.response_arrays import SAMPLE_AXES
from berg.datasets.yaml_words import check_words

NAME = "dataset.yaml"


def _in_file(value: Any) -> Any:
    """``file::key`` as a map, and a list as the values themselves."""
    if isinstance(value, str):
        path, _, key = value.partition("::")
        return {"path": path, "key": key or None}
    return {"values": value} if isinstance(value, list) else value


def _paths_in_file(value: Any) -> Any:
    return _in_file(value) if isinstance(value, str) else value


class Values(CardPart):
    """A list of numbers or names: in place, or in a file."""

    path: str | None = Field(None, description=".npy, .npz, HDF5, zarr, .tsv, .csv, .json, .txt, -epo.fif, ...")
    key: str | None = Field(None, description="its array, column or key; FILE::KEY for short")
    values: list[Any] | dict[str, list[StrictInt]] | None = Field(
        None, description="the list itself, in place of a file"
    )
    first: int = Field(0, description="the number of the first stimulus or unit, if they are numbered")
    by: Literal["name", "number"] | None = Field(
        None, description="what stimuli are told by, if numbers are also the names of files"
    )


class Coordinate(Values):
    """What the positions along an axis are called."""

    axis: str | None = Field(None, description="where it is not the axis of the same name, or the only one")


InFile = Annotated[Values, BeforeValidator(_in_file)]
CoordinateInFile = Annotated[Coordinate, BeforeValidator(_in_file)]


class StimuliCard(CardPart):
    """Where the stimuli are."""

    path: str | None = Field(None, description="a folder of pictures or sounds, or a .npy, HDF5 or zarr array")
    key: str | None = Field(None, description="the array in an HDF5 file or zarr group; FILE::KEY for short")
    places: str | None = Field(None, description="some of an array: START:STOP")
    files: InFile | None = Field(None, description="names of files, in `path` if it is given; in this order")
    names: InFile | None = Field(None, description="one per stimulus; else those of the files, or numbers from 0")
    sampling_rate: int | None = Field(None, ge=1, description="hertz; of an array of sounds")
    words: str | None = Field(
        None, description="a file of words with onsets for each run (.TextGrid, .tsv, .csv, .json); {run} is its name"
    )
    first_volume_s: float = Field(0.0, description="when the first volume was taken, by the clock of the words")


def _has_rows(axes: list[str] | None) -> list[str] | None:
    if axes is not None and len(set(axes)) < len(axes):
        raise ValueError("an axis stands twice")
    if axes is not None and {"stimulus", "presentation"} <= set(axes):
        raise ValueError(f"the rows are 'stimulus' or 'presentation', not both (also known: {SAMPLE_AXES[2]})")
    return axes


def _each_once(subjects: list[int | str]) -> list[int | str]:
    if len(set(map(str, subjects))) < len(subjects):
        raise ValueError("a subject stands twice")
    return subjects


class ResponsesCard(CardPart):
    """Where the responses of an output are, and what they are."""

    path: Texts = Field(description="one file, or several (a list, or with *) one after another")
    key: str | None = Field(None, description="the array in an .npz or HDF5 file or zarr group; FILE::KEY for short")
    mask: InFile | None = Field(None, description="which voxels or vertices; 1 for those that are units")
    axes: Annotated[list[str] | None, AfterValidator(_has_rows)] = Field(
        None, description="of the array, in its order; one is stimulus or presentation"
    )
    unit: str | None = Field(None, description="of the values, once they are scaled")
    scale: float = Field(1.0, description="the values are multiplied by it, such as 1e6 for volts to microvolts")
    coordinates: dict[str, CoordinateInFile] = Field(default_factory=dict)
    cleaning: Cleaning = Field(
        default_factory=list, description="of each run, in this order: regress (polynomials, confounds), trim, zscore"
    )


class SplitsCard(CardPart):
    """Which stimuli are fitted to, stopped by and tested on: listed, or drawn by a seed."""

    train: InFile | None = None
    validation: InFile | None = None
    test: InFile | None = None
    column: InFile | None = Field(None, description="train, validation or test for each stimulus, in place of lists")
    test_fraction: float = Field(0.1, ge=0, lt=1)
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    seed: int = Field(0, ge=0)
    groups: InFile | None = Field(None, description="a label per stimulus; those of one label stay together")


class DatasetCard(CardPart):
    """A dataset: stimuli, responses, and how they belong together."""

    name: str = ""
    description: str = ""
    licence: str | None = None
    citation: str | None = None
    subjects: Annotated[list[int | str], AfterValidator(_each_once)] = Field(
        default_factory=list, description="{subject} in paths and keys stands for one"
    )
    runs: InFile | None = Field(
        None, description="names of the runs of a recording in time, such as stories; {run} in paths stands for one"
    )
    stimuli: Annotated[StimuliCard, BeforeValidator(_paths_in_file)]
    presentations: InFile | None = Field(
        None, description="the stimulus of each row of the responses: its name or number; else one row per stimulus"
    )
    responses: dict[str, Annotated[ResponsesCard, BeforeValidator(_paths_in_file)]] = Field(
        min_length=1, description="by the names of the card's outputs"
    )
    splits: SplitsCard = Field(default_factory=lambda: SplitsCard.model_validate({}))
    sampling_interval_s: float | None = Field(
        None, gt=0, description="of an axis time; without one, of stimuli that are frames of one sequence"
    )

    _path: Path = PrivateAttr(default=Path())
    _lines: Lines = PrivateAttr(default_factory=dict)

    @classmethod
    def read(cls, path: Path | str) -> DatasetCard:
        """The card in a YAML file.

        Raises
        ------
        DatasetError
            With file, line, key, what is allowed and the nearest allowed name.
        MissingFileError
            If the file cannot be opened.
        """
        try:
            return cls._from_text(read_card_text(Path(path)), Path(path))
        except ModelCardError as error:
            raise DatasetError(str(error)) from error

    @classmethod
    def parse(cls, text: str, source: str = NAME) -> DatasetCard:
        """As `read`, from the text itself."""
        try:
            return cls._from_text(text, Path(source))
        except ModelCardError as error:
            raise DatasetError(str(error)) from error

    @classmethod
    def _from_text(cls, text: str, path: Path) -> DatasetCard:
        raw, lines = parse_card_yaml(text, str(path))
        check_words(text, lines, str(path))
        card = validated(cls, raw, (), lines, str(path))
        card._path, card._lines = path, lines
        return card

    @property
    def path(self) -> Path:
        """The file that it was read from."""
        return self._path

    def place(self, *keys: str) -> str:
        """File and line of a key, for messages."""
        ends = (keys[:end] for end in range(len(keys), -1, -1))
        line = next(self._lines[end] for end in ends if end in self._lines)
        return f"{self._path}, line {line}"
