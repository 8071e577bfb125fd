"""Units as one axis: their labels, and the models that respond with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from berg.core.card_schema import REPETITION
from berg.core.exceptions import InvalidParameterError
from berg.encoding.store_identity import labelling_metadata
from berg.models.encoding_model import EncodingModel
from berg.responses.labelled import Labelled, attributes_of, label_responses, outputs_of

UNIT, STIMULUS = "unit", "stimulus"
_SOURCE = ("model_id", "subject", "selection", "berg_version", "weights_sha256", "stimulus_width_deg")


def unit_labels(labelled: Labelled) -> dict[str, tuple[str, NDArray[Any]]]:
    """The coordinates of the units of labelled responses, all axes of units laid into one, ``unit``.

    The units are in the order of `berg.experiments.patterns.Patterns`. Of several outputs, ``output`` says which, and
    what only some of them have is left out.
    """
    outputs = outputs_of(labelled)
    each = [_labels_of(array) for array in outputs.values()]
    found = {name: [own[name] for own in each] for name in each[0] if all(name in own for own in each)}
    joined = {name: (UNIT, np.concatenate(values)) for name, values in found.items()}
    if len(outputs) > 1:
        numbers = [np.full(_n_units(array), name, object) for name, array in outputs.items()]
        joined["output"] = (UNIT, np.concatenate(numbers))
    return joined


def _labels_of(array: xr.DataArray) -> dict[str, NDArray[Any]]:
    axes = [str(axis) for axis in array.dims if axis not in (STIMULUS, REPETITION)]
    sizes = [array.sizes[axis] for axis in axes]
    found = {}
    for name, coordinate in array.coords.items():
        if str(name) != UNIT and coordinate.dims and set(coordinate.dims) <= set(axes):
            template = xr.DataArray(np.zeros(sizes), dims=axes)
            spread = coordinate.drop_vars(coordinate.coords).broadcast_like(template).transpose(*axes)
            found[str(name)] = spread.values.ravel()
    return found


def _n_units(array: xr.DataArray) -> int:
    return int(np.prod([size for axis, size in array.sizes.items() if axis not in (STIMULUS, REPETITION)]))


class Responder:
    """A loaded model as a function from pictures to units, which can be differentiated.

    Parameters
    ----------
    model
        Loaded, of pictures, from `berg.load` or `BERG.get_encoding_model`.
    what
        The name of the argument, for errors.

    Raises
    ------
    InvalidParameterError
        If it is no such model, or takes other stimuli than colour pictures.
    """

    def __init__(self, model: Any, what: str = "model") -> None:
        if not isinstance(model, EncodingModel):
            raise InvalidParameterError(
                f"{what} must be a loaded model, got {type(model).__name__}. "
                'Try berg.load("fmri-szinte2024-prf_css", selection={"reliable": True}).'
            )
        model.loaded_modules()
        expected = model.expected_input
        shape = shape_of(model)
        if expected.kind != "image" or len(shape) != 4 or shape[1] != "3":
            raise InvalidParameterError(
                f"{what}, {model.get_model_id()}, takes stimuli of shape {expected.shape} (kind {expected.kind}); this "
                "experiment makes colour pictures, of shape [batch_size, 3, height, width]."
            )
        self.model = model
        empty = tuple(np.zeros((0, *shape), np.float32) for shape in model.response_shapes())
        self._labelled = label_responses(empty[0] if len(empty) == 1 else empty, labelling_metadata(model), [])
        self.labels = unit_labels(self._labelled)
        self.n_units = sum(_n_units(array) for array in outputs_of(self._labelled).values())
        if not self.n_units:
            raise InvalidParameterError(f"The selection of {what}, {model.selection}, holds no unit. Select others.")

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    @property
    def range(self) -> tuple[float, float]:
        """The values of black and white."""
        return self.model.expected_input.range or (0.0, 255.0)

    @property
    def unit(self) -> str:
        """The unit of the responses."""
        return self.model.card.outputs[0].unit

    @property
    def source(self) -> dict[str, Any]:
        """What a result says of this model."""
        known: Mapping[str, Any] = attributes_of(self._labelled)
        return {name: known[name] for name in _SOURCE if name in known} | {"n_units": self.n_units}

    def __call__(self, pictures: Tensor) -> Tensor:
        """Responses to floating-point pictures in the range of the model; shape (n_pictures, n_units)."""
        responses = self.model.predict(pictures)
        return torch.cat(self._flat(responses if isinstance(responses, tuple) else (responses,)), dim=1)

    def encode(self, pictures: Any, batch_size: int | None = None) -> NDArray[np.float64]:
        """Responses to pictures as `encode` gives them; shape (n_pictures, n_units)."""
        responses = self.model.generate_response(pictures, batch_size=batch_size, show_progress=False)
        arrays = responses if isinstance(responses, tuple) else (responses,)
        flat = self._flat([torch.from_numpy(np.asarray(array)) for array in arrays])
        return torch.cat(flat, dim=1).double().numpy()

    def integers(self, pictures: Tensor) -> NDArray[Any]:
        """Floating-point pictures as the model takes them: integers, where its card has integers."""
        low, high = self.range
        values = pictures.detach().clamp(low, high).cpu().numpy()
        dtype = np.dtype(self.model.expected_input.dtype or "uint8")
        return values.round().astype(dtype) if dtype.kind in "iu" else values.astype(dtype)

    def _flat(self, responses: Any) -> list[Tensor]:
        """Each output as (n_pictures, n_units): the mean over repetitions, all other axes one after another."""
        return [
            (own.mean(output.axes.index(REPETITION)) if REPETITION in output.axes else own).flatten(1).float()
            for own, output in zip(responses, self.model.card.outputs, strict=True)
        ]


class PlainResponder(Responder):
    """A model that is a class of its own: responses to pictures, no labels, no gradient."""

    def __init__(self, model: Any, what: str = "model") -> None:
        if not hasattr(model, "generate_response"):
            Responder(model, what)  # which raises
        self.model, self.labels, self.n_units = model, {}, 0

    @property
    def device(self) -> torch.device:
        """Where codes are kept."""
        return torch.device("cpu")

    @property
    def range(self) -> tuple[float, float]:
        """The values of black and white."""
        return 0.0, 255.0

    @property
    def unit(self) -> str:
        """Not known."""
        return "unit not given"

    @property
    def source(self) -> dict[str, Any]:
        """What a result says of this model."""
        return {"model_id": self.model.get_model_id(), "n_units": self.n_units}

    def __call__(self, pictures: Tensor) -> Tensor:
        """There is no gradient; raise InvalidParameterError."""
        raise InvalidParameterError(f"{self.model.get_model_id()} cannot be differentiated. Try search='evolution'.")

    def encode(self, pictures: Any, batch_size: int | None = None) -> NDArray[np.float64]:
        """Responses to pictures; shape (n_pictures, n_units)."""
        responses = self.model.generate_response(pictures)
        arrays = responses if isinstance(responses, tuple) else (responses,)
        flat = np.concatenate([np.asarray(array, np.float64).reshape(len(pictures), -1) for array in arrays], axis=1)
        self.n_units = flat.shape[1]
        return flat

    def integers(self, pictures: Tensor) -> NDArray[Any]:
        """Pictures as uint8."""
        return pictures.detach().clamp(0, 255).cpu().numpy().round().astype(np.uint8)


def responder_of(model: Any, what: str, needs_gradient: bool) -> Responder:
    """A model as a function from pictures to units, with a gradient if that is needed."""
    is_plain = not needs_gradient and not isinstance(model, EncodingModel)
    return PlainResponder(model, what) if is_plain else Responder(model, what)


def shape_of(model: EncodingModel) -> list[str]:
    """The axes of the stimuli as the card has them, such as ``["batch_size", "3", "height", "width"]``."""
    stated = model.expected_input.shape
    parts = stated.strip("[]()").split(",") if isinstance(stated, str) else stated
    return [str(part).strip() for part in parts]


def width_deg_of(responder: Responder, width_deg: float | None) -> float:
    """How wide pictures are seen by a model, degrees.

    Raises
    ------
    InvalidParameterError
        If neither the model nor the caller says it, or they differ.
    """
    known = responder.model.parameters.get("stimulus_width_deg")
    if known is None and width_deg is None:
        raise InvalidParameterError(
            f"{responder.model.get_model_id()} does not say how wide its pictures were seen. Give width_deg, in "
            "degrees of visual angle (in NSD 8.4)."
        )
    if known is not None and width_deg is not None and float(known) != float(width_deg):
        raise InvalidParameterError(
            f"width_deg is {width_deg:g}, and the model was loaded with stimulus_width_deg={known:g}. Leave width_deg "
            f"out, or load the model with stimulus_width_deg={width_deg:g}."
        )
    width = float(known if width_deg is None else width_deg)  # type: ignore[arg-type]
    if not 0 < width <= 180:
        raise InvalidParameterError(f"width_deg is {width:g}; it must lie between 0 and 180 degrees of visual angle.")
    return width
