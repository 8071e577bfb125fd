"""What all encoding models have in common, as their cards describe them.

A family adds what is its own: `build` reads the weights of the selected units and returns two modules, one from a
batch of stimuli to features, one from features to responses.
"""

from __future__ import annotations

import gc
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, ModelNotLoadedError, StimulusError
from berg.core.model_card import ModelCard
from berg.core.parameter_validator import validate_parameters
from berg.core.parameter_values import kind_of
from berg.core.selection import check_selection, resolve_selection, resolve_times
from berg.core.tables import html_table
from berg.core.unit_labels import AxisKey, Indices, axis_attributes, coordinates, space_attributes
from berg.features.precision import arithmetic, precision_of, with_precision
from berg.interfaces.base_model import BaseModelInterface
from berg.models import model_display
from berg.models.batch_size import common_batch_size
from berg.models.batches import (
    Batch,
    batch_slices,
    common_input,
    encode_batches,
    response_arrays,
    typed_memory_error,
)
from berg.models.device import resolve_device
from berg.models.lanes import lane_to
from berg.stimuli.open import open_stimuli
from berg.stimuli.readers import Stimuli
from berg.system.memory import reuse_freed_memory
from berg.system.progress import progress_bar
from berg.system.threads import Threads
from berg.weights import model_files
from berg.weights.package_files import write_package_files
from berg.weights.safetensors_files import write_safetensors

if TYPE_CHECKING:
    import pandas as pd

    from berg.transfer.fetch import WantedFile

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
        The folder with the model's files; built-in models do not need it.
    **parameters
        As the card says, such as ``subject=1``.
    """

    card: ClassVar[ModelCard]
    batch_size: ClassVar[int] = 32
    weights_told: str | None = None
    """Of a model whose weights are on a server: what `berg.encoding.store_identity.weights_sha256` says there."""

    def __init__(
        self,
        device: str = "auto",
        selection: Mapping[str, Any] | None = None,
        berg_dir: str | None = None,
        **parameters: Any,
    ) -> None:
        given = validate_parameters(self.card, parameters)
        self.card = self.card.for_parameters(given)  # type: ignore[misc]  # of this instance alone
        self.selection = check_selection(self.card, selection)
        self.device = resolve_device(device)
        self.parameters = with_precision(given, self.device)
        self.berg_dir = berg_dir
        self.metadata = self.read_metadata(berg_dir, self.file_values)
        self.indices = resolve_selection(self.card, self.selection, self.metadata)
        self.features: torch.nn.Module | None = None
        self.readout: torch.nn.Module | None = None

    @classmethod
    def bind(cls, card: ModelCard) -> type[Self]:
        """The class of one model: that of its family, with the model's card."""
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

    @classmethod
    def read_metadata(cls, berg_dir: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata for these parameters and this selection; families with several files override it."""
        return model_files.read_metadata(model_files.metadata_path(cls.card, berg_dir, values))

    @classmethod
    def weights_paths(cls, berg_dir: str | None, values: Mapping[str, Any], published: bool = False) -> list[Path]:
        """The weights files for these parameters and this selection; families with several override it.

        Parameters
        ----------
        published
            Only files in their published form, not those that `convert` made of them.
        """
        return model_files.weights_paths(cls.card, berg_dir, values, published)

    @classmethod
    def paths_read(cls, berg_dir: str | None, values: Mapping[str, Any]) -> list[Path]:
        """All weights files for these parameters and this selection, also one that all subjects share."""
        shared = model_files.shared_path(cls.card, berg_dir, values) if cls.card.files is not None else None
        return [*cls.weights_paths(berg_dir, values), *([] if shared is None else [shared])]

    @classmethod
    def file_names(cls, values: Mapping[str, Any]) -> list[str]:
        """The published files for these values, as paths in the model's folder; families with several override it."""
        return model_files.file_names(cls.card, values)

    @classmethod
    def network_files(cls) -> list[WantedFile]:
        """The pretrained networks that the model builds on."""
        return []

    @classmethod
    def converted_tensors(cls, path: Path, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The tensors that `convert` writes for a published file; families that read published files define it."""
        raise InvalidParameterError(f"The weights of {cls.card.model_id} need no conversion.")

    @classmethod
    def convert(
        cls, berg_dir: str | None = None, selection: Mapping[str, Any] | None = None, **parameters: Any
    ) -> list[Path]:
        """Write a safetensors file beside each published weights file; loading prefers it.

        Each file is read again and compared before it gets its name. The published files stay. Weights that a Python
        package brings are read where it is installed, and written into the BERG directory with their metadata.

        Returns
        -------
        paths
            The files written.
        """
        values = {
            **validate_parameters(cls.card, parameters),
            **(check_selection(cls.card, selection) if selection else {}),
        }
        if cls.card.files is not None and cls.card.files.store != "berg_dir":
            raise InvalidParameterError(f"The weights of {cls.card.model_id} are built in and need no conversion.")
        if cls.card.files is not None and cls.card.files.from_package is not None:
            return [write_package_files(cls.card, berg_dir, values)]
        written = []
        for path in cls.weights_paths(berg_dir, values, published=True):
            source = {
                model_files.SOURCE: model_files.fingerprint(path)
            }  # alone: safetensors writes several in any order
            target = path.with_suffix(".safetensors")
            write_safetensors(target, cls.converted_tensors(path, values), source)
            written.append(target)
        return written

    def load_model(self) -> None:
        """Read the weights of the selected units and put them on the device."""
        with typed_memory_error(f"{self.device} has too little memory for {self.get_model_id()}. Select fewer units."):
            features, readout = self.build()
            self.features = features.to(self.device).eval().requires_grad_(False)
            self.readout = readout.to(self.device).eval().requires_grad_(False)
        if self.device.type == "cpu":
            reuse_freed_memory()

    def generate_response(
        self,
        stimulus: Any,
        *,
        sampling_rate: int | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        out: Any = None,
    ) -> Responses:
        """The in silico responses to the stimuli.

        Parameters
        ----------
        stimulus
            As the card's input says, first axis: the stimuli. An array, a memory map, a dataset of h5py or
            zarr; for pictures and sounds also a folder or a list of files, or PIL images. What is not in
            memory is read batch by batch.
        sampling_rate
            Of sounds in arrays, in hertz; they are resampled to the rate in the card. Files have their own.
        batch_size
            How many stimuli are computed together; does not change the result. If the device has too little
            memory for so many, half of them are, and so on, with a SmallerBatchWarning.
        show_progress
            None: a bar if standard error is a terminal.
        out
            An array (a tuple for several outputs) of the right shape to write into, also a memory map, or a
            dataset of h5py or zarr.

        Returns
        -------
        responses
            float32, axes as the card's outputs say; a tuple if there are several outputs. `out`, if it was given.

        Raises
        ------
        StimulusError, InvalidParameterError, ModelNotLoadedError, DeviceMemoryError
        """
        outs = None if out is None else [out]
        options: dict[str, Any] = {"batch_size": batch_size, "show_progress": show_progress, "out": outs}
        return self.generate_together([self], stimulus, sampling_rate=sampling_rate, **options)[0]

    @staticmethod
    def generate_together(
        models: Sequence[EncodingModel],
        stimulus: Any,
        *,
        sampling_rate: int | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        out: Sequence[Any] | None = None,
    ) -> list[Responses]:
        """The responses of several models to the same stimuli, in the order of the models.

        Features that models share (the same network, transform, precision and device) are computed once per
        stimulus. Parameters are those of `generate_response`, ``out`` one per model.
        """
        expected = common_input(models)
        stimuli = open_stimuli(stimulus, expected, sampling_rate)
        for model in models:
            stimuli = model.arrange(stimuli)
            model.set_stimuli(stimuli)
        size = common_batch_size(models, batch_size, len(stimuli), stimuli.shape, expected.dtype)
        given = [None] * len(models) if out is None else out
        if not isinstance(given, (list, tuple)) or len(given) != len(models):
            raise InvalidParameterError(
                f"out must be a list with one entry per model ({len(models)}); None for a new array."
            )
        arrays = [response_arrays(model, len(stimuli), own) for model, own in zip(models, given, strict=True)]
        name = models[0].get_model_id() if len(models) == 1 else f"{len(models)} models"
        are_files = getattr(stimuli, "are_files", False)
        n_readers = lane_to(model.device for model in models).n_readers if are_files else 1
        with progress_bar(name, len(stimuli), "stimuli", show_progress) as advance, Threads(n_readers) as readers:
            batches = readers.map_ahead(
                lambda rows: Batch(stimuli.read(rows), rows, lambda: arrays), batch_slices(len(stimuli), size)
            )
            for batch in encode_batches(models, batches, size):
                advance(len(batch.stimuli))
        return [outputs[0] if len(outputs) == 1 else tuple(outputs) for outputs in arrays]

    def as_returned(self, responses: Responses) -> Any:
        """The responses as `BERG.encode` returns them without labels; as they are, unless a family says otherwise."""
        return responses

    def __call__(self, stimulus: Any, **options: Any) -> Responses:
        """The in silico responses to the stimuli: `generate_response`, shorter."""
        return self.generate_response(stimulus, **options)

    def __repr__(self) -> str:
        facts = model_display.facts(self)
        width = max(map(len, facts))
        return "\n".join([self.card.model_id, *(f"  {name.ljust(width)}  {text}" for name, text in facts.items())])

    def _repr_html_(self) -> str:
        return html_table(["", self.card.model_id], model_display.facts(self).items())

    @property
    def units(self) -> pd.DataFrame:
        """What the returned columns are: a pandas table with a row per unit, in their order; needs pandas.

        Its columns are those of `berg.responses.tables.to_dataframe`: ``output`` (if the model has several), the axes,
        and the labels of the units, such as ``roi`` or ``channel``.
        """
        return model_display.units_table(self)

    def predict(self, stimulus: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The responses to a batch as tensors, differentiable with respect to the stimulus.

        Parameters
        ----------
        stimulus
            Floating-point tensor with the shape and the range of values of the card's input; sounds at the
            sampling rate of the card.
        """
        if not isinstance(stimulus, torch.Tensor):
            raise StimulusError(
                f"predict takes a floating-point tensor, which it can be differentiated by, got {kind_of(stimulus)}. "
                "Give torch.as_tensor(stimulus, dtype=torch.float32); for responses as arrays, model(stimulus)."
            )
        features, readout = self.loaded_modules()
        with arithmetic(self.precision, self.device):
            responses = self.in_window(readout(features(stimulus.to(self.device))), stimulus.shape[-1])
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

        Called on a model, also what the model is (``model``), and the axes, units and coordinates of its responses
        (``responses``). Called on the class, it takes ``berg_dir``, the parameters, and a selection (or its keys).
        """
        if (instance := model_instance) is not None:
            return {**instance.metadata, "model": instance.attributes(), "responses": instance.labels()}
        keys = {key: parameters.pop(key) for key in list(parameters) if key in cls.card.select}
        given = {**(selection or {}), **keys}
        chosen = check_selection(cls.card, given) if given else {}  # metadata can be had without one
        values = {**validate_parameters(cls.card, parameters), **chosen}
        return cls.read_metadata(berg_dir, values)

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
    def precision(self) -> str:
        """What the model computes with (`berg.features.precision`); ``float32`` if its card has no such parameter."""
        return precision_of(self.parameters)

    @property
    def expected_input(self) -> StimulusInput:
        """The stimuli that the model takes, as the card describes them."""
        if self.card.input is None:
            raise InvalidParameterError(f"The card of {self.card.model_id} says nothing under 'input'.")
        return self.card.input

    def labels(self) -> dict[str, Any]:
        """For every output: its axes, its unit, and the coordinates of the returned units.

        An axis without a coordinate of its own name gets one: the indices, from 0, of its columns in the whole axis
        (of vertices: their numbers on the surface). ``attributes`` describe the whole axes. Times along an axis that
        is as long as the stimulus are those of the stimuli that were encoded last.
        """
        return {
            output.name: {
                "axes": list(output.axes),
                "unit": output.unit,
                "coordinates": {
                    **{axis: (axis, chosen) for (name, axis), chosen in self.indices.items() if name == output.name},
                    **coordinates(self.card, output, self.indices, self.metadata),
                },
                "attributes": axis_attributes(self.card, output, self.metadata),
            }
            for output in self.card.outputs
        }

    def attributes(self) -> dict[str, Any]:
        """The model, its parameters and its selection, as texts and numbers that a file can hold."""
        return {
            "model_id": self.card.model_id,
            **{name: value for name, value in self.parameters.items() if value is not None},
            "selection": repr(self.selection),
            "berg_version": version("berg"),
            "licence": self.card.licence or "",
            "citation": self.card.citation or "",
            **space_attributes(self.metadata),
        }

    def indices_of(self, output: str, axis: str) -> Indices:
        """The selected indices along an axis of an output, in the order of the returned columns."""
        key: AxisKey = (output, axis)
        return self.indices[key]

    @property
    def file_values(self) -> dict[str, Any]:
        """The values that file names may contain: the parameters and the selection."""
        return {**self.parameters, **self.selection}

    def in_window(self, responses: Sequence[torch.Tensor], n_samples: int) -> Sequence[torch.Tensor]:
        """The selected part of responses along axes that are as long as the stimulus; all else was selected before."""
        windows = resolve_times(self.card, self.selection, n_samples)
        return [
            _narrowed(response, [windows.get((output.name, axis)) for axis in output.axes])
            for response, output in zip(responses, self.card.outputs, strict=True)
        ]

    def loaded_modules(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """From stimuli to features, and from features to responses.

        Raises
        ------
        ModelNotLoadedError
            Before `load_model`, and after `cleanup`.
        """
        if self.features is None or self.readout is None:
            raise ModelNotLoadedError(f"{self.get_model_id()} is not loaded. Call model.load_model() first.")
        return self.features, self.readout

    def response_shapes(self) -> list[tuple[int, ...]]:
        """The shape of the response to one stimulus, for each output."""
        return [tuple(len(self.indices[output.name, axis]) for axis in output.axes[1:]) for output in self.card.outputs]

    def set_stimuli(self, stimuli: Stimuli) -> None:
        """Told before stimuli are encoded: how long they are."""
        self.set_stimulus_length(stimuli.shape[-1])

    @property
    def is_in_sequence(self) -> bool:
        """Whether the stimuli that were given last are encoded one after another, each with what came before."""
        return False

    def arrange(self, stimuli: Stimuli) -> Stimuli:
        """The stimuli as the responses count them; families whose responses have other rows override it."""
        return stimuli

    def row_names(self, stimulus: Any) -> Sequence[Any] | None:
        """What each response belongs to, if not to a stimulus by its name or number; families override it."""
        return None

    def set_stimulus_length(self, n_samples: int) -> None:
        """Select along axes that are as long as the stimulus; until then, what they hold is not known."""
        self.indices.update(resolve_times(self.card, self.selection, n_samples))


def _narrowed(response: torch.Tensor, windows: Sequence[Indices | None]) -> torch.Tensor:
    """The response within a window of neighbouring indices, on each axis that has one."""
    for axis, window in enumerate(windows):
        if window is not None:
            response = response.narrow(axis, int(window[0]) if len(window) else 0, len(window))
    return response
