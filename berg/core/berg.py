"""The facade: pick a model by its id, give it stimuli, get responses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berg.core import describe as card_text
from berg.core import model_registry
from berg.core.exceptions import InvalidParameterError

if TYPE_CHECKING:
    from berg.interfaces.base_model import BaseModelInterface

Selection = Mapping[str, Any]


class BERG:
    """All encoding models of this installation, and the directory where their files lie.

    Parameters
    ----------
    berg_dir
        The BERG directory, ``.../brain-encoding-response-generator``. Only models whose files lie there
        need it; the built-in ones do not.

    Examples
    --------
    >>> import numpy as np
    >>> berg = BERG()
    >>> model = berg.get_encoding_model("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.5})
    >>> pictures = np.zeros((2, 3, 64, 64), dtype="uint8")
    >>> berg.encode(model, pictures).shape[0]
    2
    """

    def __init__(self, berg_dir: str | Path | None = None) -> None:
        self.berg_dir = None if berg_dir is None else str(Path(berg_dir).expanduser())

    def list_models(self) -> list[str]:
        """The ids of all models, sorted."""
        return model_registry.get_available_models()

    def get_model_catalog(self, print_format: bool = False) -> dict[str, list[str]]:
        """The training datasets of each modality, both sorted; printed too where `print_format` is true."""
        catalog: dict[str, set[str]] = {}
        for model_id in self.list_models():
            entry = model_registry.get_registered(model_id)
            catalog.setdefault(entry["modality"], set()).add(entry["training_dataset"])
        found = {modality: sorted(datasets) for modality, datasets in sorted(catalog.items())}
        if print_format:
            print("\n".join(f"{modality}: {', '.join(datasets)}" for modality, datasets in found.items()))
        return found

    def describe(self, model_id: str) -> dict[str, Any]:
        """Print the card of a model, and return it as a dictionary of the card's own keys."""
        card = model_registry.get_card(model_id)
        print(card_text.to_text(card))
        return dict(card.raw)

    def get_encoding_model(
        self, model_id: str, device: str = "auto", selection: Selection | None = None, **parameters: Any
    ) -> BaseModelInterface:
        """The model, loaded and ready to encode.

        Parameters
        ----------
        model_id
            One of `list_models`.
        device
            ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        selection
            Which units to return; the keys are in the card (`describe`).
        **parameters
            The model's own, such as ``subject=1``.

        Raises
        ------
        ModelNotFoundError, InvalidParameterError, DeviceError, MissingFileError, CorruptedFileError
        """
        model_class = model_registry.get_model_class(model_id)
        options: dict[str, Any] = {"device": device, "selection": selection, "berg_dir": self.berg_dir}
        model = model_class(**_options_of(model_class, options), **parameters)
        model.load_model(**_required(model.load_model, {"device": device}))
        return model

    def encode(
        self,
        model: BaseModelInterface | str | Sequence[BaseModelInterface],
        stimulus: Any,
        return_metadata: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The in silico responses to the stimuli.

        Parameters
        ----------
        model
            A loaded model, or a model id with the model's parameters among `kwargs`; such a model is
            loaded for this call and released after it. A list of loaded models gives a list of responses;
            features that they share are computed once.
        stimulus
            As the card's input says; pictures: integers in [0, 255], shape (n_stimuli, 3, height, width).
        return_metadata
            Whether to return the metadata too.
        **kwargs
            Passed to the model's `generate_response`, such as ``batch_size`` or ``show_progress``.

        Returns
        -------
        responses
            A float32 array, first axis: the stimuli; a tuple of arrays, in the order of the card, for a
            model with several outputs. With `return_metadata`, always the two values (responses, metadata).
        """
        if isinstance(model, (list, tuple)):
            return _encode_each(model, stimulus, return_metadata, kwargs)
        if isinstance(model, str):
            parameters, options = _split(model, kwargs)
            with self.get_encoding_model(model, **parameters) as loaded:
                return self.encode(loaded, stimulus, return_metadata, **options)
        if not hasattr(model, "generate_response"):
            raise InvalidParameterError(
                f"encode takes a loaded model or a model id, got {type(model).__name__}. "
                'Try berg.encode("fmri-szinte2024-prf_css", stimulus).'
            )
        one: Any = model
        responses = one.generate_response(stimulus, **kwargs)
        return (responses, one.get_metadata()) if return_metadata else responses

    def convert(self, model_id: str, selection: Selection | None = None, **parameters: Any) -> list[Path]:
        """Write the weights of a published model once more, in a form that loads faster; see ``berg convert``.

        The new files lie beside the published ones, which stay; loading prefers them.

        Returns
        -------
        paths
            The files written.
        """
        model_class: Any = model_registry.get_model_class(model_id)
        if not hasattr(model_class, "convert"):
            raise InvalidParameterError(f"{model_id} is a class of its own and cannot be converted.")
        written: list[Path] = model_class.convert(berg_dir=self.berg_dir, selection=selection, **parameters)
        return written

    def get_model_metadata(self, model_id: str, **parameters: Any) -> dict[str, Any]:
        """The metadata of a model (ROIs, coordinates, accuracy), without loading its weights."""
        model_class = model_registry.get_model_class(model_id)
        return model_class.get_metadata(berg_dir=self.berg_dir, **parameters)


def _encode_each(
    models: Sequence[BaseModelInterface], stimulus: Any, return_metadata: bool, options: dict[str, Any]
) -> Any:
    """The responses of several models, in one pass where all of them know how."""
    together = [getattr(model, "generate_together", None) for model in models]
    if models and all(together):
        responses = together[0](models, stimulus, **options)  # type: ignore[misc]
    else:
        responses = [model.generate_response(stimulus, **options) for model in models]
    return (responses, [model.get_metadata() for model in models]) if return_metadata else responses


def _split(model_id: str, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the model takes when it is made, and what its `generate_response` takes."""
    model_class = model_registry.get_model_class(model_id)
    taken = {"device", "selection", *_named(model_class)}
    if model_registry.get_registered(model_id)["yaml_path"] is not None:
        taken |= set(model_class.get_supported_parameters())
    options = set(kwargs) & set(_named(model_class.generate_response)) - taken
    unnamed = set(kwargs) - taken - options
    if _takes_any(model_class.generate_response):
        options |= unnamed
    return (
        {name: value for name, value in kwargs.items() if name not in options},
        {name: value for name, value in kwargs.items() if name in options},
    )


def _options_of(model_class: type[BaseModelInterface], options: dict[str, Any]) -> dict[str, Any]:
    """Those of the common options that the class takes; classes written by hand may leave some out."""
    named, takes_any = _named(model_class), _takes_any(model_class)
    if options["selection"] is not None and "selection" not in named and not takes_any:
        raise InvalidParameterError(f"{model_class.get_model_id()} takes no selection; leave it out.")
    return {name: value for name, value in options.items() if name in named or (takes_any and value is not None)}


def _required(function: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Those options that a function cannot do without."""
    needed = inspect.signature(function).parameters
    return {
        name: value
        for name, value in options.items()
        if name in needed and needed[name].default is inspect.Parameter.empty
    }


def _named(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def _takes_any(function: Any) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
