"""The model card: what a model is, takes, returns, was trained on, how well it does, its licence."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from berg.core.card_check import Fault, contradictions
from berg.core.card_yaml import Lines, parse_card_yaml, read_card_yaml
from berg.core.exceptions import ModelCardError, did_you_mean

PartT = TypeVar("PartT", bound="CardPart")


class UnknownCardKeyWarning(UserWarning):
    """A card of a hand-written class has a key that this version does not know; it is ignored."""


class CardPart(BaseModel):
    """A map inside a card; keys that it does not name are refused. Families derive their own from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


def _joined(value: Any) -> Any:
    names = value if isinstance(value, list) else []
    return ", ".join(names) if names and all(isinstance(name, str) for name in names) else value


Texts = Annotated[list[str], BeforeValidator(_as_list)]

FROM_STIMULUS = "from_stimulus"
"""The length of an axis that is as long as the stimulus."""

MAX_RANGE = 100_000
_RANGE = re.compile(r"\s*([0-9]+)\s*(?:-|\.\.)\s*([0-9]+)\s*")


def _short_range(value: Any) -> Any:
    if isinstance(value, str) and (ends := _RANGE.fullmatch(value)):
        first, last = int(ends[1]), int(ends[2])
        if not first <= last < first + MAX_RANGE:
            raise ValueError(f"a range goes up and has at most {MAX_RANGE:,} values; else give minimum and maximum")
    return value


class Parameter(CardPart):
    """One parameter of a model, or one key of its selection."""

    type: str = Field("any", description="int, float, str, bool, list, dict, numpy.ndarray, any; 'a or b'")
    required: bool = False
    valid_values: Annotated[list[Any] | str | None, AfterValidator(_short_range)] = Field(
        None, description="a list, or a range such as '1-8'"
    )
    minimum: float | None = None
    maximum: float | None = None
    default: Any = None
    unit: str | None = None
    example: Any = None
    description: str = ""
    function: Texts = Field(default_factory=list, description="which function takes it")
    properties: dict[str, Parameter] | None = Field(None, description="the keys of a selection")

    @property
    def allowed(self) -> list[Any] | None:
        """The values that may be given, or None where the card does not list them."""
        if not isinstance(self.valid_values, str):
            return self.valid_values
        if ends := _RANGE.fullmatch(self.valid_values):
            return list(range(int(ends[1]), int(ends[2]) + 1))
        names = [name.strip() for name in self.valid_values.split(",")]
        return names if len(names) > 1 else None


class StimulusInput(CardPart):
    """What the model takes."""

    type: str = "numpy.ndarray"
    shape: list[int | str] | str = Field(description="e.g. [batch_size, 3, height, width]")
    dtype: str | None = Field(None, description="uint8: any integers in `range` are taken")
    range: tuple[float, float] | None = Field(None, description="smallest and largest value allowed")
    unit: str | None = None
    sampling_rate: int | None = Field(None, ge=1, description="hertz; for sounds, which are resampled to it")
    description: str = ""
    constraints: Texts = Field(default_factory=list)


class Dimension(CardPart):
    """One dimension of the output, in words."""

    name: str
    description: str = ""


class ResponseOutput(CardPart):
    """What the model returns, in words."""

    type: str = "numpy.ndarray"
    shape: list[Any] | str | None = None
    description: str = ""
    dimensions: list[Dimension] = Field(default_factory=list)


class Metric(CardPart):
    """One figure of how well the model does."""

    name: str
    value: Any
    description: str = ""


class Performance(CardPart):
    """How well the model does, on what."""

    metrics: list[Metric] = Field(default_factory=list)
    plots: Any = None


class OutputArray(CardPart):
    """One array that `encode` returns; the axes in their order, with the unit of its values.

    Coordinates are places in the metadata, as those of an axis, of values that have several axes: the last of the
    output, such as one value per channel and time.
    """

    name: str
    axes: list[str] = Field(min_length=2)
    unit: str
    coordinates: dict[str, str] = Field(default_factory=dict)


class Axis(CardPart):
    """An axis of the outputs: how long it is, and what its places are called.

    Coordinates and length name places in the metadata, such as ``eeg.ch_names``; ``{output}`` stands
    for the name of the output. A place that ends in ``?`` need not be in every file; where it is not, or its values
    do not fit, there is no such coordinate. Regions (names with their indices) make a text for each unit, the names
    of its regions with semicolons between. An axis of time that is as long as the stimulus has the length
    ``from_stimulus`` and a sampling rate; its coordinate is the time in seconds from the beginning of the stimulus.
    """

    length: Annotated[int, Field(ge=1)] | Literal["from_stimulus"] | None = None
    sampling_rate: int | None = Field(None, ge=1, description="places per second; with length: from_stimulus")
    coordinates: dict[str, str] = Field(default_factory=dict)


class Selector(CardPart):
    """How one selection key picks units.

    ``name``: labels in the metadata, in the order given. ``mask``: a 0/1 vector as long as the axis, or the places
    of the units, from 0, which come in the order given.
    ``roi``: names that the metadata turns into indices (or one label per unit); a list is their union.
    ``minimum``: units whose value in the metadata is at least so much. ``range``: within two bounds, both included;
    on an axis that is as long as the stimulus, of the time in seconds.
    ``file``: the value is part of a file name.
    """

    kind: Literal["name", "mask", "roi", "minimum", "range", "file"]
    axis: str | None = None
    output: str | None = Field(None, description="the one output it speaks of; all, where not given")
    metadata: str | None = None
    aliases: dict[str, str] = Field(default_factory=dict)
    overrides: list[str] = Field(default_factory=list, description="keys that it makes ineffective")


class Files(CardPart):
    """File names inside the model's folder, without their ending.

    The model's folder lies in a BERG directory. Which one: ``berg_dir``, that of the user; ``package``, the
    folder of the card (for plug-ins that bring their weights); ``built_in``, that of this package.
    """

    store: Literal["berg_dir", "package", "built_in"] = "berg_dir"
    weights: str
    metadata: str
    weights_ending: Literal[".npy", ".pt", ".safetensors"] = Field(".safetensors", description="as published")
    metadata_ending: Literal[".npy", ".json"] = Field(".json", description="as published")


class ModelCard(CardPart):
    """A model card, read and checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model_id: str
    modality: str
    training_dataset: str
    species: str = ""
    stimuli: str = ""
    model_architecture: str | None = None
    model_type: str | None = None
    creator: Annotated[str, BeforeValidator(_joined)] = ""
    description: str = ""
    limitations: str | None = Field(None, description="what the model was not fitted for")
    input: StimulusInput | None = None
    output: ResponseOutput | None = None
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    performance: Performance | None = None
    references: list[str | dict[str, Any]] = Field(default_factory=list)
    licence: str | None = None
    citation: str | None = None

    family: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?$",
        description="a folder of berg/families, or package.module:Class",
    )
    features: dict[str, Any] | None = Field(None, description="read by the family")
    readout: dict[str, Any] | None = Field(None, description="read by the family")
    fit: dict[str, Any] | None = Field(None, description="read by berg fit: settings of the fit")
    outputs: list[OutputArray] = Field(default_factory=list)
    axes: dict[str, Axis] = Field(default_factory=dict)
    select: dict[str, Selector] = Field(default_factory=dict)
    files: Files | None = None

    _path: Path = PrivateAttr(default=Path())
    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)
    _lines: Lines = PrivateAttr(default_factory=dict)

    @classmethod
    def read(cls, path: Path | str) -> ModelCard:
        """The card in a YAML file.

        Raises
        ------
        ModelCardError
            With file, line, key, what is allowed and the nearest allowed name.
        MissingFileError
            Where the file cannot be opened.
        """
        return cls._from_data(*read_card_yaml(Path(path)), Path(path))

    @classmethod
    def parse(cls, text: str, source: str = "card.yaml") -> ModelCard:
        """As `read`, from the text itself."""
        return cls._from_data(*parse_card_yaml(text, source), Path(source))

    @classmethod
    def _from_data(cls, raw: dict[str, Any], lines: Lines, path: Path) -> ModelCard:
        known = raw if raw.get("family") is not None else _without_unknown_keys(raw, lines, path)
        card = validated(cls, known, (), lines, str(path))
        card._path, card._raw, card._lines = path, raw, lines
        faults = list(contradictions(card))
        if faults:
            raise ModelCardError(_sentence(faults, lines, str(path)))
        return card

    @property
    def path(self) -> Path:
        """The file that it was read from."""
        return self._path

    @property
    def raw(self) -> dict[str, Any]:
        """The YAML as it stands, unknown keys included."""
        return copy.deepcopy(self._raw)

    @property
    def architecture(self) -> str:
        """The model's architecture; older cards call it ``model_type``."""
        return self.model_architecture or self.model_type or ""

    @property
    def selection_keys(self) -> list[str]:
        """What the user's selection may name."""
        selection = self.parameters.get("selection")
        return list(self.select) or list((selection and selection.properties) or {})

    def part(self, key: str, schema: type[PartT]) -> PartT:
        """One map of the card (``features``, ``readout``), checked by the family that reads it."""
        return validated(schema, getattr(self, key) or {}, (key,), self._lines, str(self._path))


MAX_FAULTS = 8


def validated(schema: type[PartT], data: Any, at: tuple[str | int, ...], lines: Lines, source: str) -> PartT:
    """Data of a YAML file as a part; ModelCardError with file, line, key and the nearest allowed name otherwise."""
    try:
        return schema.model_validate(data)
    except pydantic.ValidationError as error:
        errors = sorted(error.errors(), key=lambda fault: _line((*at, *fault["loc"]), lines))
        faults = [_fault(schema, fault, at) for fault in errors[:MAX_FAULTS]]
        raise ModelCardError(_sentence(faults, lines, source)) from error


def _fault(schema: type[BaseModel], fault: Any, at: tuple[str | int, ...]) -> Fault:
    loc = tuple(fault["loc"])
    name = str(loc[-1]) if loc else ""
    if fault["type"] == "extra_forbidden":
        allowed = _allowed_keys(schema, loc[:-1])
        return (*at, *loc), f"unknown key '{name}'.{did_you_mean(name, allowed)} Allowed: {', '.join(allowed)}"
    if fault["type"] == "missing":
        return (*at, *loc), f"key '{name}' is missing"
    dotted = ".".join(map(str, (*at, *loc)))
    return (*at, *loc), f"{dotted} is {fault['input']!r:.60}: {fault['msg']}"


def _allowed_keys(schema: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    found: Any = schema
    for step in loc:
        found = _step_into(found, step)
    return sorted(found.model_fields)


def _step_into(found: Any, step: str | int) -> Any:
    """The part, list or map at one step of a path inside another."""
    inner: Any = get_args(found)[-1] if get_origin(found) else found.model_fields[step].annotation
    return next(filter(_is_part_or_container, (inner, *get_args(inner))))  # Part of ``Part | None``


def _is_part_or_container(kind: Any) -> bool:
    return get_origin(kind) in (list, dict) or (isinstance(kind, type) and issubclass(kind, CardPart))


def _sentence(faults: list[Fault], lines: Lines, source: str) -> str:
    ordered = sorted(((_line(path, lines), text) for path, text in faults), key=lambda fault: fault[0])
    return f"{source}, " + "; ".join(f"line {line}: {text}" for line, text in ordered[:MAX_FAULTS]) + "."


def _line(path: tuple[str | int, ...], lines: Lines) -> int:
    """The line of the longest part of the path that stands in the file."""
    return next(lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in lines)


def _without_unknown_keys(raw: dict[str, Any], lines: Lines, path: Path) -> dict[str, Any]:
    """The card of a hand-written class less what this version does not know, with a warning for each."""
    unknown = _unknown_keys(raw)
    for loc in unknown:
        allowed = _allowed_keys(ModelCard, loc[:-1])
        text = f"{path}, line {_line(loc, lines)}: unknown key '{loc[-1]}' is ignored."
        warnings.warn(text + did_you_mean(loc[-1], allowed), UnknownCardKeyWarning, stacklevel=5)
    known: dict[str, Any] = _without(raw, set(unknown), ())
    return known


def _unknown_keys(raw: dict[str, Any]) -> list[tuple[str | int, ...]]:
    try:
        ModelCard.model_validate(raw)
    except pydantic.ValidationError as error:
        return [tuple(fault["loc"]) for fault in error.errors() if fault["type"] == "extra_forbidden"]
    return []


def _without(value: Any, unknown: set[tuple[str | int, ...]], at: tuple[str | int, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(child, unknown, (*at, key)) for key, child in value.items() if (*at, key) not in unknown}
    if isinstance(value, list):
        return [_without(child, unknown, (*at, index)) for index, child in enumerate(value)]
    return value


Parameter.model_rebuild()
