"""What the keys of a model card say about each other: every contradiction, with the key that it is about."""

from __future__ import annotations

import string
from collections.abc import Collection, Iterator
from typing import Any

from berg.core.card_schema import CardKeys, Parameter
from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.core.layout import ModelId
from berg.core.parameter_values import validate_value

Fault = tuple[tuple[str | int, ...], str]
"""The path of a key, and what is wrong there."""

# What a family needs its card to say. A hand-written class decides for itself.
_FAMILY_NEEDS = (
    "species", "stimuli", "creator", "description", "input", "output", "outputs",
    "parameters", "files", "licence", "citation", "references",
)  # fmt: skip


def contradictions(card: CardKeys) -> Iterator[Fault]:
    """What the keys say about each other."""
    yield from _wrong_id(card)
    if card.family is None:
        return
    for key in _FAMILY_NEEDS:
        if not getattr(card, key):
            yield (key,), f"key '{key}' is missing or empty (a card with 'family' needs it)"
    if not card.architecture:
        yield ("model_architecture",), "key 'model_architecture' is missing or empty"
    yield from _wrong_input(card)
    yield from _wrong_axes(card)
    yield from _wrong_selectors(card)
    yield from _wrong_places(card)
    yield from _wrong_examples(card)


def _wrong_id(card: CardKeys) -> Iterator[Fault]:
    try:
        parts = ModelId.parse(card.model_id)
    except InvalidParameterError as error:
        yield ("model_id",), str(error).rstrip(".")
        return
    for key, part in (("modality", parts.modality), ("training_dataset", parts.dataset)):
        if card.family and getattr(card, key) != part:
            yield (key,), f"{key} is '{getattr(card, key)}', but model_id says '{part}'"
    if card.family and card.path.suffix and card.path.stem not in (card.model_id, "card"):
        yield ("model_id",), f"model_id is '{card.model_id}', so the file must be {card.model_id}.yaml"


_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
_DTYPES = (*_INTEGERS, "float16", "float32", "float64")


def _wrong_input(card: CardKeys) -> Iterator[Fault]:
    if card.input is None:
        return
    dtype, limits, rate = card.input.dtype, card.input.range, card.input.sampling_rate
    if (card.input.kind == "sound") != (rate is not None):
        says = "needs a sampling_rate (hertz)" if rate is None else "has no sampling_rate; take it out, or write sound"
        yield ("input", "kind"), f"a stimulus of kind {card.input.kind} {says}"
    if card.input.n_frames is not None and card.input.kind != "video":
        yield (
            ("input", "n_frames"),
            f"a stimulus of kind {card.input.kind} takes no n_frames; take it out or write kind: video",
        )
    if card.input.frame_rate is not None and card.input.kind != "video":
        yield (
            ("input", "frame_rate"),
            f"a stimulus of kind {card.input.kind} takes no frame_rate; take it out or write kind: video",
        )
    if (card.input.kind == "text") != (card.input.text is not None):
        says = "needs text: sentences, words, timed_words or tr_texts" if card.input.text is None else "has no text"
        yield ("input", "text"), f"a stimulus of kind {card.input.kind} {says}"
    if dtype is not None and dtype not in _DTYPES:
        yield ("input", "dtype"), f"'{dtype}' is not a dtype.{did_you_mean(dtype, _DTYPES)} Allowed: {listing(_DTYPES)}"
    if limits and not limits[0] < limits[1]:  # NaN too
        yield ("input", "range"), f"range is {list(limits)}; give [smallest, largest]"
    elif limits and dtype in _INTEGERS and not _fit_into(dtype, limits):
        yield ("input", "range"), f"range {list(limits)} does not fit into {dtype}"


def _fit_into(dtype: str, limits: tuple[float, float]) -> bool:
    """Whether a range is within that of an integer dtype, without NumPy, which takes longer to import than a card."""
    n_bits = int(dtype.removeprefix("u").removeprefix("int"))
    n_positive = 2**n_bits if dtype.startswith("u") else 2**n_bits // 2
    return bool(n_positive - 2**n_bits <= limits[0] <= limits[1] < n_positive)


def _wrong_axes(card: CardKeys) -> Iterator[Fault]:
    names = {axis for output in card.outputs for axis in output.possible_axes}
    for index, output in enumerate(card.outputs):
        if output.name in [other.name for other in card.outputs[:index]]:
            yield ("outputs", index), f"two outputs have the name '{output.name}'"
        if len(set(output.axes)) < len(output.axes):
            yield ("outputs", index), f"an axis stands twice in output '{output.name}': {listing(output.axes)}"
        if output.axes[0] != "stimulus":
            yield ("outputs", index), f"the first axis of output '{output.name}' must be 'stimulus'"
        for axis in output.possible_axes[1:]:
            if axis not in card.axes:
                yield ("outputs", index), f"axis '{axis}' is not described under 'axes'"
        yield from _wrong_variants(card, index)
    for axis, described in card.axes.items():
        if described.length is None and not described.coordinates:
            yield ("axes", axis), f"axis '{axis}' needs a 'length' or 'coordinates'"
        elif described.length is None and next(iter(described.coordinates.values())).endswith("?"):
            yield ("axes", axis), f"the first coordinate of axis '{axis}' tells its length, so its place has no '?'"
        yield from _wrong_time_axis(card, axis)
        if axis not in names:
            yield ("axes", axis), f"no output has an axis '{axis}'.{did_you_mean(axis, names)}"


def _wrong_variants(card: CardKeys, index: int) -> Iterator[Fault]:
    """Variants of an output for parameters that the model does not have, or values that it does not take."""
    for name, variants in card.outputs[index].variants.items():
        if name not in card.own_parameters:
            yield ("outputs", index), f"variants of no parameter '{name}'.{did_you_mean(name, card.own_parameters)}"
            continue
        allowed = [str(value) for value in card.own_parameters[name].allowed or ()]
        for value, variant in variants.items():
            if value not in allowed:
                yield ("outputs", index), f"'{name}' is never '{value}'. Allowed: {listing(allowed)}"
            if variant.axes and variant.axes[0] != "stimulus":
                yield ("outputs", index), f"the first axis with {name}: {value} must be 'stimulus'"


def _wrong_time_axis(card: CardKeys, axis: str) -> Iterator[Fault]:
    """An axis as long as the stimulus has a sampling rate, as the stimulus has; nothing of it is in the metadata."""
    described = card.axes[axis]
    if described.length != "from_stimulus":
        if described.sampling_rate:
            yield ("axes", axis, "sampling_rate"), f"axis '{axis}' has a sampling_rate; its length is 'from_stimulus'"
        return
    if not described.sampling_rate or described.coordinates:
        yield ("axes", axis), f"axis '{axis}' is as long as the stimulus: it needs a sampling_rate and no coordinates"
    if card.input and not card.input.sampling_rate and not card.input.frame_rate:
        yield ("axes", axis), f"axis '{axis}' is as long as the stimulus, so 'input' needs a sampling_rate"
    for key, selector in card.select.items():
        if selector.axis == axis and (selector.kind != "range" or selector.metadata):
            yield ("select", key), f"select.{key} is on the axis '{axis}': its kind must be range, without metadata"


def _wrong_selectors(card: CardKeys) -> Iterator[Fault]:
    documented = set(card.selection_parameters)
    for key in documented ^ set(card.select):
        where = "select" if key in documented else "parameters.selection.properties"
        yield ("select", key), f"selection key '{key}' is missing under '{where}'"
    outputs = {output.name for output in card.outputs}
    for key, selector in card.select.items():
        if selector.kind != "file" and selector.axis not in card.axes:
            allowed = did_you_mean(selector.axis, card.axes)
            yield ("select", key), f"select.{key} needs an axis of 'axes', not {selector.axis!r}.{allowed}"
        in_seconds = selector.axis in card.axes and card.axes[selector.axis].length == "from_stimulus"
        if selector.kind in ("name", "roi", "minimum", "range") and not selector.metadata and not in_seconds:
            yield ("select", key), f"select.{key} is of kind {selector.kind}, which needs 'metadata'"
        if selector.output and selector.output not in outputs:
            yield ("select", key), f"select.{key}: no output '{selector.output}'. Outputs: {listing(outputs)}"
        for other in selector.overrides:
            if other not in card.select:
                yield ("select", key), f"select.{key} overrides '{other}'.{did_you_mean(other, card.select)}"


def _wrong_places(card: CardKeys) -> Iterator[Fault]:
    """Places in the metadata and file names whose ``{...}`` nothing could fill."""
    for key, selector in card.select.items():
        yield from _wrong_placeholders(("select", key, "metadata"), selector.metadata or "", ["output"])
    for axis, described in card.axes.items():
        for name, place in described.coordinates.items():
            yield from _wrong_placeholders(("axes", axis, "coordinates", name), place, ["output"])
    for index, output in enumerate(card.outputs):
        for name, place in output.coordinates.items():
            yield from _wrong_placeholders(("outputs", index, "coordinates", name), place, ["output"])
    fillers = [*card.own_parameters]
    fillers += [key for key, selector in card.select.items() if selector.kind == "file"]
    for name in ("weights", "metadata"):
        yield from _wrong_placeholders(("files", name), getattr(card.files, name, ""), fillers)
    for name, spellings in (card.files.spellings if card.files else {}).items():
        values = [str(value) for value in card.own_parameters[name].allowed or ()] if name in fillers else []
        if missing := [value for value in values if not spellings.get(value)] or set(spellings).difference(values):
            yield ("files", "spellings", name), f"spellings of '{name}' are not those of its values: {listing(missing)}"


def _wrong_placeholders(path: tuple[str | int, ...], text: str, allowed: Collection[str]) -> Iterator[Fault]:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        yield path, f"'{text}': {error}"
        return
    for name in set(names).difference(allowed):
        hint = f"{did_you_mean(name, allowed)} Allowed: {listing(allowed) or 'none'}"
        yield path, f"'{text}' has a '{{{name}}}' that nothing fills.{hint}"


def _wrong_examples(card: CardKeys) -> Iterator[Fault]:
    """Defaults and examples that the card itself would refuse from a user."""
    described: dict[tuple[str, ...], Parameter] = {("parameters", key): part for key, part in card.parameters.items()}
    for key, parameter in card.selection_parameters.items():
        described["parameters", "selection", "properties", key] = parameter
    for path, parameter in described.items():
        for key, value in (("default", parameter.default), ("example", parameter.example)):
            if value is not None:
                yield from _refused((*path, key), value, parameter)


def _refused(path: tuple[str, ...], value: Any, parameter: Parameter) -> Iterator[Fault]:
    try:
        validate_value(value, parameter, path[-1])
    except InvalidParameterError as error:
        yield path, str(error).rstrip(".")
