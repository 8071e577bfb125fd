"""Checks of the metadata."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from berg.core.exceptions import CorruptedFileError
from berg.core.layout import METADATA, ModelId
from berg.core.unit_labels import coordinates
from berg.models.loading import metadata_of_class
from berg.testing.check import Faults, check
from berg.testing.model_under_test import ModelUnderTest, takes
from berg.testing.outcome import NotApplicable
from berg.testing.selections import Selections

OF_THE_INSTANCE = ("model", "responses")  # what a loaded model adds


@check("Return a dict from get_metadata, with texts as keys.")
def metadata_are_a_dict(model: ModelUnderTest) -> Faults:
    """The metadata are a dict with texts as keys."""
    found = model.loaded and model.first_run.metadata
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        yield f"get_metadata returned a {type(found).__name__}"


@check("Make get_metadata a class method that takes berg_dir, the parameters and the selection.")
def class_gives_metadata(model: ModelUnderTest) -> Faults:
    """The class gives its metadata without an instance."""
    found = model.made and model.model_class.get_metadata(berg_dir=model.berg_dir, **_arguments(model))
    if not isinstance(found, dict):
        yield f"get_metadata of the class returned a {type(found).__name__}"


@check("Read the metadata file alone in get_metadata: no load_model, no weights file.")
def metadata_need_no_weights(model: ModelUnderTest) -> Faults:
    """BERG.get_model_metadata reads no weights, and works if there are none."""
    with _loading_forbidden(model), _without_weights(model) as berg_dir:
        found = metadata_of_class(model.model_id, str(berg_dir), **_arguments(model))
    if not isinstance(found, dict):
        yield f"get_model_metadata returned a {type(found).__name__}"


@check("Let get_metadata of the instance return the same as that of the class.")
def class_and_instance_agree(model: ModelUnderTest) -> Faults:
    """The metadata of the class are those of the instance; a loaded model may add 'model' and 'responses'."""
    of_instance = model.metadata
    found = metadata_of_class(model.model_id, model.berg_dir, **_arguments(model))
    own = {key: value for key, value in of_instance.items() if key in found or key not in OF_THE_INSTANCE}
    yield from _differences(found, own, "metadata")


@check("Give as many values as there are units, in the order of the responses' columns.")
def coordinates_are_as_long_as_their_axes(model: ModelUnderTest) -> Faults:
    """Every coordinate in the metadata has one value for each index along its axis of the responses."""
    for index, (output, array) in enumerate(zip(model.card.outputs, model.responses, strict=False)):
        for name, (axis, values) in _coordinates(model, index).items():
            axes = (axis,) if isinstance(axis, str) else axis
            length = tuple(array.shape[output.axes.index(one)] for one in axes)
            if np.shape(values) != length:
                found, wanted = (" x ".join(map(str, shape)) for shape in (np.shape(values), length))
                yield f"'{name}' has {found} values, axis '{', '.join(axes)}' of '{output.name}' has {wanted}"
    if not model.card.outputs:
        raise NotApplicable("the card has no 'outputs'")


@check("Turn everything into numbers, texts, lists, dicts and NumPy arrays of these.")
def metadata_are_plain(model: ModelUnderTest) -> Faults:
    """The metadata hold numbers, texts, lists, dicts and arrays of these, which any file can hold."""
    yield from _not_plain(model.metadata, "metadata")


def _arguments(model: ModelUnderTest) -> dict[str, Any]:
    """What `get_metadata` takes of the parameters; the selection as one, or key by key."""
    function = model.model_class.get_metadata
    has_selection = takes(function, "selection")
    given = {"selection": model.selection} if has_selection else model.selection
    every = {**{key: value for key, value in model.parameters.items() if key != "device"}, **given}
    takes_any = any(part.kind is part.VAR_KEYWORD for part in inspect.signature(function).parameters.values())
    return {name: value for name, value in every.items() if takes_any or takes(function, name)}


@contextmanager
def _loading_forbidden(model: ModelUnderTest) -> Iterator[None]:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("get_metadata loads the weights")

    with ExitStack() as stack:
        for name in ("load_model", "build"):
            owner = next((kind for kind in model.model_class.__mro__ if name in vars(kind)), None)
            if owner is not None:
                stack.enter_context(mock.patch.object(owner, name, refuse))
        yield


@contextmanager
def _without_weights(model: ModelUnderTest) -> Iterator[str]:
    """A BERG directory with the metadata alone; the same directory if the files are not in one."""
    berg_dir = model.made and model.berg_dir
    if not (metadata := ModelId.parse(model.model_id).folder(berg_dir) / METADATA).is_dir():
        yield berg_dir
        return
    with tempfile.TemporaryDirectory() as bare:
        shutil.copytree(metadata, Path(bare) / metadata.relative_to(berg_dir))
        yield bare


def _coordinates(model: ModelUnderTest, index: int) -> dict[str, tuple[str | tuple[str, ...], Any]]:
    """The coordinates of one output: as the model labels them, or else from where the card says that they are."""
    output = model.card.outputs[index]
    labels = model.metadata.get("responses")
    if isinstance(labels, Mapping) and output.name in labels:
        found: dict[str, tuple[str | tuple[str, ...], Any]] = labels[output.name]["coordinates"]
        return found
    try:
        return coordinates(model.card, output, Selections(model).units, model.metadata)
    except CorruptedFileError as error:
        raise AssertionError(str(error)) from error


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            if key in one and key in other:
                yield from _differences(one[key], other[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} is missing in that of the {'instance' if key in one else 'class'}"
    elif not _equal(one, other):
        yield f"{path} differs"


def _equal(one: Any, other: Any) -> bool:
    try:
        np.testing.assert_equal(one, other)
    except AssertionError:
        return False
    return True


def _not_plain(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _not_plain(child, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value[:100]):
            yield from _not_plain(child, f"{path}.{index}")
    elif isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind == "O":
            yield f"{path} is an array of objects"
    elif value is not None and not isinstance(value, (str, bool, int, float)):
        yield f"{path} is a {type(value).__name__}"
