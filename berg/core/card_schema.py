"""What a model card may say: its parts and their keys."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from berg.core.card_yaml import Lines

PartT = TypeVar("PartT", bound="CardPart")


class CardPart(BaseModel):
    """A map inside a card; keys that it does not name are refused. Families derive their own from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, defer_build=True)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


def _joined(value: Any) -> Any:
    names = value if isinstance(value, list) else []
    return ", ".join(names) if names and all(isinstance(name, str) for name in names) else value


Texts = Annotated[list[str], BeforeValidator(_as_list)]
FROM_STIMULUS = "from_stimulus"
"""The length of an axis that is as long as the stimulus."""
REPETITION = "repetition"
"""The axis of a model that predicts each repetition of a stimulus by itself."""
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
    several: bool = Field(False, description="a list of values is taken too, each once, and 'all' for all of them")
    earlier_name: str | None = Field(None, description="its name in earlier versions, which is taken too")
    earlier_values: dict[Any, Any] = Field(default_factory=dict, description="earlier spelling -> today's value")
    function: Texts = Field(default_factory=list, description="which function takes it")
    properties: dict[str, Parameter] | None = Field(None, description="the keys of a selection")

    @property
    def allowed(self) -> list[Any] | None:
        """The values that may be given, or None if the card does not list them."""
        if not isinstance(self.valid_values, str):
            return self.valid_values
        if ends := _RANGE.fullmatch(self.valid_values):
            return list(range(int(ends[1]), int(ends[2]) + 1))
        names = [name.strip() for name in self.valid_values.split(",")]
        return names if len(names) > 1 else None


StimulusKind = Literal["image", "sound", "video", "text"]
TextForm = Literal["sentences", "words", "timed_words", "tr_texts"]


class StimulusInput(CardPart):
    """What the model takes.

    A card that does not say its kind takes sounds if it has a sampling rate, and else pictures (or plain arrays,
    which are checked in the same way).

    >>> StimulusInput(shape="[batch_size, n_samples]", sampling_rate=16_000).kind
    'sound'
    """

    kind: StimulusKind = Field("image", description="what a stimulus is; default: sound with a sampling_rate, or image")
    type: str = "numpy.ndarray"
    shape: list[int | str] | str = Field(description="e.g. [batch_size, 3, height, width]")
    dtype: str | None = Field(None, description="uint8: any integers in `range` are taken")
    range: tuple[float, float] | None = Field(None, description="smallest and largest value allowed")
    unit: str | None = None
    sampling_rate: int | None = Field(None, ge=1, description="hertz; for sounds, which are resampled to it")
    n_frames: int | None = Field(None, ge=1, description="of videos: how many frames are taken of each, evenly spaced")
    frame_rate: int | None = Field(None, ge=1, description="hertz; of films, which are taken frame by frame, grey")
    text: TextForm | None = Field(
        None,
        description="of texts: single sentences, words that follow each other, words with onsets, or one text per TR",
    )
    description: str = ""
    constraints: Texts = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _of_sampling_rate(cls, given: Any) -> Any:
        is_sound = isinstance(given, dict) and given.get("kind") is None and given.get("sampling_rate") is not None
        return {**given, "kind": "sound"} if is_sound else given


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


class OutputVariant(CardPart):
    """What is different of an output with one value of a parameter."""

    axes: list[str] | None = Field(None, min_length=2)
    coordinates: dict[str, str] | None = None


class OutputArray(CardPart):
    """One array that `encode` returns; the axes in their order, with the unit of its values.

    Coordinates are places in the metadata, as those of an axis, of values that have several axes: the last of the
    output, such as one value per channel and time (in the metadata also in the opposite order, if the lengths tell).
    ``variants``: for a parameter and its values other than the default, the axes and coordinates that differ.
    """

    name: str
    axes: list[str] = Field(min_length=2)
    unit: str
    coordinates: dict[str, str] = Field(default_factory=dict)
    variants: dict[str, dict[str, OutputVariant]] = Field(default_factory=dict)

    def for_parameters(self, values: Mapping[str, Any]) -> Self:
        """The output as it is with these values of the parameters."""
        chosen = [variants.get(str(values.get(name))) for name, variants in self.variants.items()]
        changes = [variant.model_dump(exclude_none=True) for variant in chosen if variant is not None]
        return self.model_copy(update={key: value for change in changes for key, value in change.items()})

    @property
    def possible_axes(self) -> list[str]:
        """The axes of the output and of its variants, each once."""
        variants = [variant for values in self.variants.values() for variant in values.values()]
        return list(dict.fromkeys([*self.axes, *(axis for variant in variants for axis in variant.axes or [])]))

    @property
    def unit_axes(self) -> tuple[str, ...]:
        """The axes along which units differ: all but the stimuli and the repetitions."""
        return tuple(axis for axis in self.axes[1:] if axis != REPETITION)


class Axis(CardPart):
    """An axis of the outputs: how long it is, and what its positions are called.

    Coordinates and length name places in the metadata, such as ``eeg.ch_names``; ``{output}`` stands
    for the name of the output. A place that ends in ``?`` need not be in every file; if it is not, or its values
    do not fit, there is no such coordinate. Regions (names with their indices) make a text for each unit, the names
    of its regions with semicolons between. An axis of time that is as long as the stimulus has the length
    ``from_stimulus`` and a sampling rate; its coordinate is the time in seconds from the beginning of the stimulus.
    A place may name several, newest first, with ``|`` between: the first that is there counts. A number as a step is
    a column (``fmri.voxel_coords.0``), and ``names[numbers]`` are the names with these numbers, from 0.

    If several selection keys pick units of the axis, ``combine`` says what is returned: the units that all of them
    pick (``intersection``); those that any of them picks, each once, in ascending order (``sorted_union``); or those
    of each key one after another, in the order of the keys in the card and of the names given, a unit as often as
    it was picked (``concatenation``).
    """

    length: Annotated[int, Field(ge=1)] | Literal["from_stimulus"] | None = None
    sampling_rate: int | None = Field(None, ge=1, description="positions per second; with length: from_stimulus")
    coordinates: dict[str, str] = Field(default_factory=dict)
    time_step: float | None = Field(
        None, gt=0, description="seconds between two times; tells whether a file has seconds or milliseconds"
    )
    combine: Literal["intersection", "sorted_union", "concatenation"] = "intersection"


class Selector(CardPart):
    """How one selection key picks units.

    ``name``: labels in the metadata, in the order given. ``mask``: a 0/1 vector as long as the axis, or the indices
    of the units, from 0, which come in the order given.
    ``roi``: names that the metadata turns into indices (or one label per unit); a list is their union.
    ``minimum``: units whose value in the metadata is at least so much. ``range``: within two bounds, both included;
    on an axis that is as long as the stimulus, of the time in seconds.
    ``file``: the value is part of a file name.
    """

    kind: Literal["name", "mask", "roi", "minimum", "range", "file"]
    axis: str | None = None
    output: str | None = Field(None, description="the one output it speaks of; all, if not given")
    metadata: str | None = None
    aliases: dict[str, str] = Field(default_factory=dict)
    overrides: list[str] = Field(default_factory=list, description="keys that it makes ineffective")


WeightsEnding = Literal[".npy", ".pt", ".pth", ".pkl", ".safetensors"]


class Files(CardPart):
    """File names inside the model's folder, without their ending.

    The model's folder lies in a BERG directory. Which one: ``berg_dir``, that of the user; ``package``, the
    folder of the card (for plug-ins that bring their weights); ``built_in``, that of this package.

    ``spellings``: how the values of a parameter are spelt in file names that have it, newest publication first (not
    where a name has ``{parameter!s}``, which is the value as it is given);
    ``{1..4}`` stands for four files, which belong together. Of publications that lie side by side, the newest is read.

    ``shared``: weights that all subjects need, beside their own.
    """

    store: Literal["berg_dir", "package", "built_in"] = "berg_dir"
    weights: str
    metadata: str
    shared: str | None = Field(None, description="a weights file of all subjects")
    weights_ending: WeightsEnding = Field(".safetensors", description="as published")
    shared_ending: WeightsEnding | None = Field(
        None, description="of the file of all subjects; default: weights_ending"
    )
    metadata_ending: Literal[".npy", ".json"] = Field(".json", description="as published")
    spellings: dict[str, dict[str, Texts]] = Field(default_factory=dict)
    from_package: str | None = Field(
        None, description="the Python package that brings the weights; berg convert writes them into the BERG directory"
    )

    @property
    def ending_of_shared(self) -> str:
        """How the name of the file of all subjects ends."""
        return self.shared_ending or self.weights_ending


class CardKeys(CardPart):
    """The keys of a model card; `berg.core.model_card.ModelCard` is one that was read from a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)

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

    def for_parameters(self, values: Mapping[str, Any]) -> Self:
        """The card with its outputs as they are with these values of the parameters."""
        if not any(output.variants for output in self.outputs):
            return self
        return self.model_copy(update={"outputs": [output.for_parameters(values) for output in self.outputs]})

    def has_words(self, wanted: Mapping[str, str | None]) -> bool:
        """Whether the texts under these keys contain these words; capitals do not matter, None is anything."""
        asked = [(str(getattr(self, key)), word) for key, word in wanted.items() if word is not None]
        return all(word.casefold() in text.casefold() for text, word in asked)

    @property
    def own_parameters(self) -> dict[str, Parameter]:
        """The parameters of this model: all but ``device`` and ``selection``, which have rules of their own."""
        return {name: part for name, part in self.parameters.items() if name not in ("device", "selection")}

    @property
    def selection_parameters(self) -> dict[str, Parameter]:
        """The keys of a selection, as the card describes them."""
        selection = self.parameters.get("selection")
        return dict((selection and selection.properties) or {})

    @property
    def selection_keys(self) -> list[str]:
        """What the user's selection may name."""
        return list(self.select) or list(self.selection_parameters)
