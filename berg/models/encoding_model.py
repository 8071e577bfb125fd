"""Everything about an encoding model that its card can decide.

A family adds what only it knows: `build`, which reads the weights of the selected units and returns two
modules, from a batch of stimuli to features, and from features to responses.
"""

from __future__ import annotations

import gc
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.exceptions import (
    DeviceMemoryError,
    InvalidParameterError,
    ModelNotLoadedError,
)
from berg.core.model_card import ModelCard, OutputArray, StimulusInput
from berg.core.parameter_validator import validate_parameters
from berg.core.progress import progress_bar
from berg.core.selection import AxisKey, Indices, check_selection, coordinates, resolve_selection
from berg.core.stimulus import as_expected, check_stimulus
from berg.interfaces.base_model import BaseModelInterface
from berg.models.device import resolve_device
from berg.weights import store

Responses = NDArray[np.float32] | tuple[NDArray[np.float32], ...]


class EncodingModel(BaseModelInterface):
    """A model whose card says what it takes, what it returns and what can be selected.

    Parameters
    ----------
    device
        See `berg.models.device.resolve_device`.
    selection
        Which units to return; the keys are in the card.
    berg_dir
        Where the model's files lie; built-in models do not need it.
    **parameters
        As the card says, such as ``subject=1``.
    """

    card: ClassVar[ModelCard]
    batch_size: ClassVar[int] = 32

    def __init__(
        self,
        device: str = "auto",
        selection: Mapping[str, Any] | None = None,
        berg_dir: str | None = None,
        **parameters: Any,
    ) -> None:
        self.parameters = validate_parameters(self.card, parameters)
        self.selection = check_selection(self.card, selection)
        self.device = resolve_device(device)
        self.berg_dir = berg_dir
        self.metadata = self._read_metadata()
        self.indices = resolve_selection(self.card, self.selection, self.metadata)
        self.features: torch.nn.Module | None = None
        self.readout: torch.nn.Module | None = None

    @classmethod
    def bind(cls, card: ModelCard) -> type[Self]:
        """The class of one model: this family's, with the card of that model."""
        return type(cls.__name__, (cls,), {"card": card, "__module__": cls.__module__, "__doc__": card.description})

    @abstractmethod
    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The two halves of the model, for the selected units.

        Returns
        -------
        features
            A batch of stimuli -> features. The batch has the values of the card's input, in its dtype
            when encoding and in floating point in `predict`. Models may share one.
        readout
            Features -> a tuple of responses, one per output, shape (batch, ...).
        """

    def load_model(self) -> None:
        """Read the weights of the selected units and put them on the device."""
        features, readout = self.build()
        self.features = features.to(self.device).eval().requires_grad_(False)
        self.readout = readout.to(self.device).eval().requires_grad_(False)

    def generate_response(
        self,
        stimulus: Any,
        *,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> Responses:
        """The in silico responses to the stimuli.

        Parameters
        ----------
        stimulus
            As the card's input says; first axis: the stimuli.
        batch_size
            How many stimuli are computed together; does not change the result.
        show_progress
            None: a bar where standard error is a terminal.

        Returns
        -------
        responses
            float32, axes as the card's outputs say; a tuple where there are several outputs.

        Raises
        ------
        StimulusError, ModelNotLoadedError, DeviceMemoryError
        """
        self._loaded()
        stimuli = check_stimulus(stimulus, self.expected_input)
        size = self._checked_batch_size(batch_size)
        arrays = self._allocate(len(stimuli))
        with progress_bar(self.get_model_id(), len(stimuli), "stimuli", show_progress) as advance:
            for places in _batches(len(stimuli), size):
                self._encode_batch(stimuli[places], [array[places] for array in arrays])
                advance(places.stop - places.start)
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    def predict(self, stimulus: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The responses to a batch as tensors, differentiable with respect to the stimulus.

        Parameters
        ----------
        stimulus
            Floating-point tensor with the shape and the range of values of the card's input.
        """
        features, readout = self._loaded()
        responses = readout(features(stimulus.to(self.device)))
        return responses[0] if len(responses) == 1 else tuple(responses)

    @classmethod
    def get_metadata(
        cls,
        berg_dir: str | None = None,
        model_instance: EncodingModel | None = None,
        selection: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """The metadata of the model, without its weights.

        Called on a model: its own, what the model is (``model``), and the axes, the unit and the coordinates
        of what it returns (``responses``). Called on the class: with ``berg_dir``, the
        parameters, and a selection (or its keys themselves).
        """
        if (instance := model_instance) is not None:
            return {**instance.metadata, "model": instance.attributes(), "responses": instance.labels()}
        keys = {key: parameters.pop(key) for key in list(parameters) if key in cls.card.select}
        given = {**(selection or {}), **keys}
        chosen = check_selection(cls.card, given) if given else {}  # metadata can be had without one
        values = {**validate_parameters(cls.card, parameters), **chosen}
        return store.read_metadata(store.metadata_path(cls.card, berg_dir, values))

    @classmethod
    def get_model_id(cls) -> str:
        """The id in the card."""
        return cls.card.model_id

    def cleanup(self) -> None:
        """Let go of the weights; `load_model` brings them back."""
        self.features = self.readout = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def expected_input(self) -> StimulusInput:
        """What the card says that the model takes."""
        if self.card.input is None:
            raise InvalidParameterError(f"The card of {self.card.model_id} says nothing under 'input'.")
        return self.card.input

    def labels(self) -> dict[str, Any]:
        """For every output: its axes, its unit, and the coordinates of the returned units."""
        return {
            output.name: {
                "axes": list(output.axes),
                "unit": output.unit,
                "coordinates": coordinates(self.card, output, self.indices, self.metadata),
            }
            for output in self.card.outputs
        }

    def attributes(self) -> dict[str, Any]:
        """What the responses are of, in words and numbers that a file can hold."""
        return {
            "model_id": self.card.model_id,
            **{name: value for name, value in self.parameters.items() if value is not None},
            "selection": repr(self.selection),
            "berg_version": version("berg"),
            "licence": self.card.licence or "",
            "citation": self.card.citation or "",
        }

    def indices_of(self, output: str, axis: str) -> Indices:
        """The selected places along an axis of an output, in the order of the returned columns."""
        key: AxisKey = (output, axis)
        return self.indices[key]

    @property
    def file_values(self) -> dict[str, Any]:
        """What file names may be made of: the parameters, and the selection."""
        return {**self.parameters, **self.selection}

    def _read_metadata(self) -> dict[str, Any]:
        return store.read_metadata(store.metadata_path(self.card, self.berg_dir, self.file_values))

    def _loaded(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        if self.features is None or self.readout is None:
            raise ModelNotLoadedError(f"{self.get_model_id()} is not loaded. Call model.load_model() first.")
        return self.features, self.readout

    def _checked_batch_size(self, batch_size: int | None) -> int:
        if batch_size is None:
            return self.batch_size
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise InvalidParameterError(f"batch_size must be a whole number from 1, got {batch_size!r}.")
        return int(batch_size)

    def _allocate(self, n_stimuli: int) -> list[NDArray[np.float32]]:
        return [np.empty((n_stimuli, *self._shape_of(output)), np.float32) for output in self.card.outputs]

    def _shape_of(self, output: OutputArray) -> tuple[int, ...]:
        return tuple(len(self.indices[output.name, axis]) for axis in output.axes[1:])

    def _encode_batch(self, batch: NDArray[Any], into: Sequence[NDArray[np.float32]]) -> None:
        """Compute one batch and write it to its place; nothing of it outlives the call."""
        features, readout = self._loaded()
        stimuli = torch.from_numpy(as_expected(batch, self.expected_input))
        try:
            with torch.no_grad():  # not inference_mode: what a module keeps may be used in predict()
                responses = readout(features(stimuli.to(self.device)))
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"{self.device} has too little memory for {len(batch)} stimuli at once. "
                f"Try batch_size={max(1, len(batch) // 2)}."
            ) from error
        for array, response in zip(into, responses, strict=True):
            array[...] = response.reshape(array.shape).cpu().numpy()


def _batches(n_stimuli: int, size: int) -> Iterator[slice]:
    for start in range(0, n_stimuli, size):
        yield slice(start, min(start + size, n_stimuli))
