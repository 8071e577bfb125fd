"""What every encoding model offers, whoever wrote it."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import MethodType, TracebackType
from typing import Any, Self

from berg.core import model_registry
from berg.core.card_text import to_text


class MetadataMethod:
    """A class method that, called on an instance, takes its parameters from that instance.

    It hands the instance over as ``model_instance``; a `get_metadata` that has no such parameter is given
    the attributes of the instance that have the names of its parameters. So a plain class method answers
    ``Model.get_metadata(berg_dir=..., subject=1)`` and ``model.get_metadata()`` alike.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        functools.update_wrapper(self, function)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: type) -> Callable[..., Any]:
        on_class = MethodType(self.function, owner)
        return on_class if instance is None else functools.partial(_ask_of_instance, on_class, instance)


def _ask_of_instance(get_metadata: Callable[..., Any], instance: Any, *args: Any, **kwargs: Any) -> Any:
    signature = inspect.signature(get_metadata)
    if "model_instance" in signature.parameters:
        return get_metadata(*args, **{"model_instance": instance, **kwargs})
    given = {*signature.bind_partial(*args, **kwargs).arguments, "args", "kwargs"}
    known = {name: getattr(instance, name) for name in signature.parameters if hasattr(instance, name)}
    return get_metadata(*args, **kwargs, **{name: known[name] for name in known if name not in given})


class BaseModelInterface(ABC):
    """The contract between a model and the toolkit.

    A model is made with its parameters (``subject``, ``selection``, ``device``, ``berg_dir``), loaded,
    asked for responses any number of times, and cleaned up; as a context manager it cleans up by itself.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        method = cls.__dict__.get("get_metadata")
        if isinstance(method, classmethod):
            cls.get_metadata = MetadataMethod(method.__func__)  # type: ignore[assignment, method-assign]

    @abstractmethod
    def load_model(self) -> None:
        """Read the weights and make the model ready on its device."""

    @abstractmethod
    def generate_response(self, stimulus: Any) -> Any:
        """The responses to the stimuli: an array whose first axis is the stimuli, or a tuple of such.

        A model may take options of its own by name, such as ``batch_size``.
        """

    @classmethod
    @abstractmethod
    def get_metadata(cls, **kwargs: Any) -> dict[str, Any]:
        """The metadata of the model, without its weights; on the class and on an instance."""

    @classmethod
    @abstractmethod
    def get_model_id(cls) -> str:
        """The model's id, ``{modality}-{dataset}-{model}``."""

    @abstractmethod
    def cleanup(self) -> None:
        """Let go of the weights and of the memory on the device."""

    @classmethod
    def get_supported_parameters(cls) -> dict[str, dict[str, Any]]:
        """The parameters of the model, as its card describes them."""
        card = model_registry.get_card(cls.get_model_id())
        return {name: parameter.model_dump(exclude_unset=True) for name, parameter in card.parameters.items()}

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """Print the card of the model, and return it as a dictionary."""
        return print_card(cls.get_model_id())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cleanup()


def print_card(model_id: str) -> dict[str, Any]:
    """Print the card of a model, and return it as a dictionary of the card's own keys."""
    card = model_registry.get_card(model_id)
    print(to_text(card))
    return card.raw
