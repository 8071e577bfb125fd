"""From a model id to a loaded model: the directory, the class, and the options that each class takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from berg.core import model_registry, settings
from berg.core.exceptions import InvalidParameterError
from berg.interfaces.base_model import BaseModelInterface

Selection = Mapping[str, Any]


def open_berg_dir(berg_dir: str | Path | None = None) -> str:
    """The BERG directory that is given or set; registers the models whose cards are in it."""
    folder = str(settings.berg_dir(berg_dir).value)
    model_registry.add_store(Path(folder))
    return folder


def load_model(
    model_id: str,
    berg_dir: str,
    device: str = "auto",
    selection: Selection | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> BaseModelInterface:
    """A model, made and loaded from the files that are there; nothing is downloaded.

    Raises
    ------
    ModelNotFoundError, InvalidParameterError, DeviceError, MissingFileError, CorruptedFileError
    """
    model_class = model_registry.get_model_class(model_id)
    options: dict[str, Any] = {"device": device, "selection": selection, "berg_dir": berg_dir}
    model: BaseModelInterface = model_class(**constructor_options(model_class, options), **(parameters or {}))
    model.load_model(**loading_options(model.load_model, options, model_class))
    return model


def metadata_of_class(model_id: str, berg_dir: str | None, **parameters: Any) -> dict[str, Any]:
    """The metadata of a model that is not loaded.

    Raises
    ------
    InvalidParameterError
        If the class has its metadata only after loading.
    """
    get_metadata = model_registry.get_model_class(model_id).get_metadata
    if inspect.isfunction(get_metadata):  # a class that wants an instance of itself
        raise InvalidParameterError(
            f"{model_id} has its metadata only after loading: "
            "berg.get_encoding_model(...).get_metadata(), or encode(..., return_metadata=True)."
        )
    takes_berg_dir = "berg_dir" in parameter_names(get_metadata) or takes_any(get_metadata)
    metadata: dict[str, Any] = get_metadata(**({"berg_dir": berg_dir} if takes_berg_dir else {}), **parameters)
    return metadata


def constructor_options(model_class: type[BaseModelInterface], options: dict[str, Any]) -> dict[str, Any]:
    """The common options that the class takes; classes written by hand may not take all."""
    named, any_name = parameter_names(model_class), takes_any(model_class)
    if options["selection"] is not None and "selection" not in named and not any_name:
        raise InvalidParameterError(f"{model_class.get_model_id()} takes no selection; leave it out.")
    return {name: value for name, value in options.items() if name in named or (any_name and value is not None)}


def loading_options(load: Any, options: dict[str, Any], model_class: type[BaseModelInterface]) -> dict[str, Any]:
    """The options that `load_model` requires, or that the class did not take when it was made."""
    asked = inspect.signature(load).parameters
    needed = {name for name in options if name in asked and asked[name].default is inspect.Parameter.empty}
    taken = takes_any(model_class)
    left = {name for name in options if name in asked and not (taken or name in parameter_names(model_class))}
    return {name: options[name] for name in needed | left}


def split_options(model_class: Any, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide options into those of the model's class and those of its `generate_response`."""
    taken = {"device", "selection", *parameter_names(model_class), *card_parameters(model_class)}
    options = set(given) & set(parameter_names(model_class.generate_response)) - taken
    if takes_any(model_class.generate_response):
        options |= set(given) - taken - options
    return (
        {name: value for name, value in given.items() if name not in options},
        {name: value for name, value in given.items() if name in options},
    )


def card_parameters(model_class: Any) -> set[str]:
    """The parameters that the card of a class describes; none if it has no card."""
    if hasattr(model_class, "card"):
        return set(model_class.get_supported_parameters())
    has_card = model_registry.get_registered(model_class.get_model_id())["yaml_path"] is not None
    return set(model_class.get_supported_parameters()) if has_card else set()


def parameter_names(function: Any) -> list[str]:
    """The names of the parameters of a function, or of a class."""
    return list(inspect.signature(function).parameters)


def takes_any(function: Any) -> bool:
    """Whether a function takes keywords of any name."""
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
