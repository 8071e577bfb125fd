"""A model with the parameters that it is checked with, and what has been computed with it so far."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core import model_registry
from berg.core.card_schema import Parameter, StimulusInput
from berg.core.exceptions import InvalidParameterError, ModelCardError
from berg.core.layout import ModelId
from berg.core.model_card import ModelCard
from berg.core.parameter_validator import validate_parameters
from berg.models.loading import constructor_options, loading_options, open_berg_dir
from berg.testing.lifecycle import FirstRun, SecondRun, first_run, second_run
from berg.testing.outcome import NotApplicable, NotRunning
from berg.testing.stimuli import make_stimuli
from berg.weights import model_files

Responses = tuple[NDArray[Any], ...]


class ModelUnderTest:
    """One model, made and loaded when a check first needs it and then kept for the others.

    Parameters
    ----------
    model_id
        Which model.
    berg_dir
        The BERG directory.
    stimulus
        What to encode; None: random stimuli as the card's ``input`` says.
    selection, **parameters
        As for `BERG.get_encoding_model`. If the model requires something that is not given, the card's example is
        taken; if ``device`` is not given, ``cpu``.

    Raises
    ------
    ModelNotFoundError
        If no model has that id.
    """

    def __init__(
        self,
        model_id: str,
        berg_dir: str | Path | None = None,
        *,
        stimulus: NDArray[Any] | None = None,
        selection: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> None:
        self.model_id = model_id
        self.berg_dir = open_berg_dir(berg_dir)  # whose cards are known from here on
        self.entry = model_registry.get_registered(model_id)
        self._stimulus = stimulus
        self._given = parameters
        self._given_selection = dict(selection or {})

    # What the card says

    @cached_property
    def card(self) -> ModelCard:
        """The card; checks are skipped if it cannot be read."""
        try:
            return model_registry.get_card(self.model_id).for_parameters(self._given)
        except ModelCardError as error:
            raise NotApplicable("the card cannot be read") from error

    @property
    def input(self) -> StimulusInput:
        """What the card says that the model takes."""
        if self.card.input is None:
            raise NotApplicable("the card has no 'input'")
        return self.card.input

    @cached_property
    def stimulus(self) -> NDArray[Any]:
        """Some stimuli."""
        return make_stimuli(self.input) if self._stimulus is None else np.asarray(self._stimulus)

    @property
    def described(self) -> dict[str, Parameter]:
        """The parameters that the model is made with, without ``device`` and ``selection``."""
        return {
            name: parameter for name, parameter in self.card.own_parameters.items() if not _is_for_encoding(parameter)
        }

    @property
    def parameters(self) -> dict[str, Any]:
        """What the model is made with."""
        return {"device": "cpu", **_examples(self.described), **self._given}

    @property
    def selection(self) -> dict[str, Any]:
        """The selection that was given, completed by examples of what is required."""
        selection = self.card.parameters.get("selection")
        chosen = {**_examples(self.card.selection_parameters), **self._given_selection}
        if not chosen and selection is not None and selection.required:
            keys = (key for key, part in self.card.selection_parameters.items() if _example(part) is not None)
            chosen = {key: _example(self.card.selection_parameters[key]) for key in list(keys)[:1]}
        return chosen

    @property
    def options(self) -> dict[str, Any]:
        """What `generate_response` is called with beside the stimuli."""
        rate = self.card.input and self.card.input.sampling_rate
        own = {"sampling_rate": rate} if rate and takes(self.model_class.generate_response, "sampling_rate") else {}
        described = {name: part for name, part in self.card.parameters.items() if _is_for_encoding(part)}
        return {**own, **_examples(described)}

    # Making and using it

    @cached_property
    def model_class(self) -> Any:
        """The class of the model."""
        return model_registry.get_model_class(self.model_id)

    def make(self, parameters: Mapping[str, Any] | None = None, selection: Mapping[str, Any] | None = None) -> Any:
        """A model that is not loaded, with the parameters and selection of this check or with these."""
        given = dict(self.parameters if parameters is None else parameters)
        chosen = dict(self.selection if selection is None else selection) or None
        options = {"device": given.pop("device", "cpu"), "selection": chosen, "berg_dir": self.berg_dir}
        return self.model_class(**constructor_options(self.model_class, options), **given)

    def load(self, model: Any) -> Any:
        """Load a model that was made."""
        options = {"device": self.parameters["device"], "selection": self.selection, "berg_dir": self.berg_dir}
        model.load_model(**loading_options(model.load_model, options, self.model_class))
        return model

    def encode(self, model: Any = None, stimulus: Any = None, **options: Any) -> Responses:
        """The responses of a model (the loaded one) to stimuli (those above), one array for each output."""
        given = self.stimulus.copy() if stimulus is None else stimulus
        return as_arrays((model or self.loaded).generate_response(given, **{**self.options, **options}))

    def encode_with(self, selection: Mapping[str, Any]) -> Responses:
        """The responses of another selection."""
        with self.load(self.make(selection=selection)) as model:
            return self.encode(model)

    # What happened

    @cached_property
    def first_run(self) -> FirstRun:
        """The model made, loaded, and asked for responses for the first time."""
        return first_run(self)

    @cached_property
    def second_run(self) -> SecondRun:
        """The model cleaned up and loaded again."""
        run = second_run(self, self.loaded, self.first_run.memory)
        if run.error is not None:  # a model for the checks that follow
            self.first_run.model = self.load(self.make())
        return run

    @property
    def loaded(self) -> Any:
        """The loaded model; checks are skipped if it cannot be loaded."""
        if self.first_run.error is not None:
            raise NotRunning
        return self.first_run.model

    @property
    def made(self) -> Any:
        """The model, perhaps not loaded; checks are skipped if it cannot be made."""
        if self.first_run.model is None:
            raise NotRunning
        return self.first_run.model

    @property
    def returned(self) -> Any:
        """What `generate_response` returned for the stimuli, unchanged."""
        return self.loaded and self.first_run.returned

    @property
    def responses(self) -> Responses:
        """What `generate_response` returned for the stimuli, one array for each output."""
        return as_arrays(self.returned)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the loaded model."""
        found = self.loaded and self.first_run.metadata
        if not isinstance(found, dict):
            raise NotApplicable("the metadata are not a dict")
        return found

    def release(self) -> None:
        """Let go of the model and of all that was computed with it."""
        for name in ("first_run", "second_run"):
            self.__dict__.pop(name, None)

    # Its files

    @property
    def file_values(self) -> dict[str, Any]:
        """The values that file names may contain."""
        own = getattr(self.made, "file_values", None)
        if own is not None:
            return dict(own)
        given = {name: value for name, value in self.parameters.items() if name in self.described}
        return {**validate_parameters(self.card, given), **self.selection}

    @property
    def folder(self) -> Path:
        """The folder of the model, with its weights and metadata."""
        if self.card.files is not None:
            return model_files.model_folder(self.card, self.berg_dir)
        try:
            return ModelId.parse(self.model_id).folder(self.berg_dir)
        except InvalidParameterError as error:
            raise NotApplicable("the id of the model names no folder") from error


def as_arrays(responses: Any) -> Responses:
    """Responses as a tuple of arrays, also if there is one output."""
    return tuple(map(np.asarray, responses)) if isinstance(responses, (tuple, list)) else (np.asarray(responses),)


def takes(function: Any, name: str) -> bool:
    """Whether a function has a parameter of this name."""
    return name in inspect.signature(function).parameters


def _is_for_encoding(parameter: Parameter) -> bool:
    functions = " ".join(parameter.function)
    return ("generate_response" in functions or "encode" in functions) and "get_encoding_model" not in functions


def _examples(described: Mapping[str, Parameter]) -> dict[str, Any]:
    return {name: _example(part) for name, part in described.items() if part.required and _example(part) is not None}


def _example(parameter: Parameter) -> Any:
    candidates = (parameter.example, parameter.default, *(parameter.allowed or ()))
    return next((value for value in candidates if value is not None), None)
