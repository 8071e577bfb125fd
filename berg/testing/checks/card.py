"""Checks of the model card."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from berg.core.card_schema import Parameter
from berg.core.exceptions import BERGError, InvalidParameterError
from berg.core.layout import ModelId
from berg.core.model_card import ModelCard
from berg.core.parameter_values import validate_value
from berg.testing.check import Faults, check
from berg.testing.model_under_test import ModelUnderTest
from berg.testing.outcome import NotApplicable
from berg.testing.refusal import refusal
from berg.testing.stimuli import dtype_of

MIN_DESCRIPTION = 100  # characters; about two sentences


@check("Fix the line that the reason names;  berg card-schema  prints what a card may say.")
def card_is_valid(model: ModelUnderTest) -> Faults:
    """The card can be read, and does not contradict itself."""
    if model.entry["yaml_path"] is None:
        yield "the model was registered without a card; give register_model a yaml_path"
    elif (found := refusal(ModelCard.read, str(model.entry["yaml_path"]))) is not None:
        yield str(found)


@check("Correct the key, or take it out: nothing reads it.", fault="warning")
def card_has_no_unknown_keys(model: ModelUnderTest) -> Faults:
    """Every key of the card is known."""
    path = model.card.path
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        ModelCard.read(path)
    yield from (str(warning.message) for warning in record)


@check("Fill these keys in.")
def card_says_what_the_model_is(model: ModelUnderTest) -> Faults:
    """The card names species, stimuli, architecture and creator."""
    for key in ("species", "stimuli", "architecture", "creator"):
        if not getattr(model.card, key).strip():
            yield f"'{'model_architecture' if key == 'architecture' else key}' is missing or empty"


@check("Say in a few sentences what is predicted, how, and what the model was trained on.")
def card_describes_the_model(model: ModelUnderTest) -> Faults:
    """The description has at least a hundred characters."""
    length = len(model.card.description.strip())
    if length < MIN_DESCRIPTION:
        yield f"the description has {length} characters"


@check("Add the key under 'input', for example  dtype: uint8  and  range: [0, 255].")
def card_says_what_the_model_takes(model: ModelUnderTest) -> Faults:
    """The card gives shape, dtype, range and a description of the stimuli; of texts their form."""
    expected = model.card.input
    if expected is None:
        yield "'input' is missing"
        return
    of_values = ("text",) if expected.kind == "text" else ("dtype", "range")
    for key in ("shape", *of_values, "description"):
        if getattr(expected, key) in (None, "", []):
            yield f"'input.{key}' is missing"


@check("Add what a response is, its shape and its unit, under 'output'.")
def card_says_what_the_model_returns(model: ModelUnderTest) -> Faults:
    """The card gives shape and a description of the responses."""
    for key in ("shape", "description"):
        if not getattr(model.card.output, key, None):
            yield f"'output.{key}' is missing"


@check(
    "Add 'outputs' and 'axes' (see template.yaml): axes, units and coordinates can then be checked and labelled.",
    fault="warning",
)
def card_names_the_axes(model: ModelUnderTest) -> Faults:
    """The card names the axes and the unit of each output."""
    if not model.card.outputs:
        yield "'outputs' is missing"


@check("Make the shape under 'output' and the axes under 'outputs' agree.")
def card_agrees_about_the_axes(model: ModelUnderTest) -> Faults:
    """The shape under 'output' has as many axes as each of the 'outputs'."""
    shape = getattr(model.card.output, "shape", None)
    if not model.card.outputs or not isinstance(shape, list):
        raise NotApplicable("the card has no 'outputs', or no list of axes under 'output.shape'")
    for output in model.card.outputs:
        if len(output.axes) != len(shape):
            yield f"output '{output.name}' has the axes {output.axes}, output.shape is {shape}"


@check("Give each parameter and each selection key a 'type' and a 'description'.")
def parameters_are_described(model: ModelUnderTest) -> Faults:
    """Each parameter and each selection key has a type and a description."""
    for name, parameter in _all_parameters(model.card):
        for key in ("type", "description"):
            if key not in parameter.model_fields_set or not getattr(parameter, key).strip():
                yield f"{name} has no {key}"


@check("Add an 'example' that the model takes.")
def required_parameters_have_an_example(model: ModelUnderTest) -> Faults:
    """Each required parameter has an example, a default, or a list of valid values."""
    for name, parameter in _all_parameters(model.card):
        given = (parameter.example, parameter.default, parameter.allowed, parameter.properties)
        if parameter.required and all(value in (None, [], {}) for value in given):
            yield f"{name} has none"


@check("Give an example or a default that the card itself allows.")
def examples_are_valid(model: ModelUnderTest) -> Faults:
    """Every example and every default is one of the values that the card allows."""
    for name, parameter in _all_parameters(model.card):
        for key, value in (("example", parameter.example), ("default", parameter.default)):
            try:
                if value is not None:
                    validate_value(value, parameter, f"the {key} of {name}")
            except InvalidParameterError as error:
                yield str(error)


@check("Give a range that the dtype holds.")
def input_range_fits_its_dtype(model: ModelUnderTest) -> Faults:
    """The range of the stimuli fits into their dtype."""
    if model.input.range is None:
        raise NotApplicable("the card gives no 'input.range'")
    dtype = dtype_of(model.input)
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= model.input.range[0] < model.input.range[1] <= _max(dtype):
        yield f"range {list(model.input.range)} does not fit into {dtype}"


@check("Cite the model or its training data under 'references'.")
def card_has_references(model: ModelUnderTest) -> Faults:
    """The card has at least one reference."""
    if not model.card.references:
        yield "'references' is missing or empty"


@check("Add for example  licence: CC-BY-4.0 ; without one, nobody may use the model.")
def card_states_a_licence(model: ModelUnderTest) -> Faults:
    """The card states the licence of the model."""
    if not (model.card.licence or "").strip():
        yield "'licence' is missing or empty"


@check("Add  citation: ...  as the model should be cited.")
def card_states_a_citation(model: ModelUnderTest) -> Faults:
    """The card says how to cite the model."""
    if not (model.card.citation or "").strip():
        yield "'citation' is missing or empty"


@check("Fill in what is left to do.")
def nothing_is_left_to_do(model: ModelUnderTest) -> Faults:
    """No value of the card holds the mark TODO."""
    yield from (f"{key} is still to be filled in" for key in _marked(model.card.raw, ""))


@check("Make model_id, file name, 'modality', 'training_dataset', register_model and get_model_id say the same.")
def names_agree(model: ModelUnderTest) -> Faults:
    """The id, the name of the card's file, modality, dataset, registry and class agree."""
    card, entry = model.card, model.entry
    try:
        parts = ModelId.parse(model.model_id)
    except BERGError as error:
        yield str(error)
        return
    names = {
        "model_id of the card": (card.model_id, model.model_id),
        "the name of the card's file": (Path(card.path).stem, model.model_id),
        "modality of the card": (card.modality, parts.modality),
        "training_dataset of the card": (card.training_dataset, parts.dataset),
        "the registered modality": (entry["modality"], parts.modality),
        "the registered dataset": (entry["training_dataset"], parts.dataset),
        "get_model_id of the class": (model.model_class.get_model_id(), model.model_id),
    }
    is_card_of_a_folder = Path(card.path).stem == "card"
    for what, (found, expected) in names.items():
        if found != expected and not (is_card_of_a_folder and "file" in what):
            yield f"{what} is '{found}', not '{expected}'"


@check("Evaluate the model on held-out data and add 'performance.metrics'.", fault="warning")
def card_states_a_performance(model: ModelUnderTest) -> Faults:
    """The card says how well the model predicts held-out data."""
    if model.card.performance is None or not model.card.performance.metrics:
        yield "'performance.metrics' is missing or empty"


@check("Give each metric a number, and say on what data it was computed.")
def performance_is_in_figures(model: ModelUnderTest) -> Faults:
    """Each metric of the performance has a number and a description."""
    if model.card.performance is None:
        raise NotApplicable("the card has no 'performance'")
    for metric in model.card.performance.metrics:
        if not re.search(r"\d", str(metric.value)):
            yield f"'{metric.name}' is {metric.value!r:.60}, which has no number"
        if not metric.description.strip():
            yield f"'{metric.name}' has no description"


def _all_parameters(card: ModelCard) -> Iterator[tuple[str, Parameter]]:
    for name, parameter in card.parameters.items():
        yield f"parameter '{name}'", parameter
        yield from ((f"selection key '{key}'", part) for key, part in (parameter.properties or {}).items())


def _marked(value: Any, path: str) -> Iterator[str]:
    """The keys, with dots, under which texts with the mark stand."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _marked(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _marked(child, f"{path}.{index}")
    elif isinstance(value, str) and "TODO" in value:
        yield path


def _max(dtype: np.dtype[Any]) -> int:
    return int(np.iinfo(dtype).max)
