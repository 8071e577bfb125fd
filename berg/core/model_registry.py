"""Which models there are, and how to get at the class of each.

A model gets in by one of three doors: a card of a known family in ``berg/models/model_cards``; a class
written by hand that calls `register_model` where it is imported (modules of ``berg/models/<modality>``);
an entry point of group ``berg.models`` in somebody else's package, naming a module that holds cards or
registers classes. A door that does not open is remembered in `PROBLEMS` and closes no other.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict

from berg.core.exceptions import (
    BERGError,
    ModelCardError,
    ModelNotFoundError,
    RegistrationError,
    did_you_mean,
    listing,
)
from berg.core.layout import ModelId
from berg.core.model_card import ModelCard

logger = logging.getLogger(__name__)


class RegisteredModel(TypedDict):
    """How to get at one model."""

    module_path: str
    class_name: str | None  # None: the one encoding model of a family's module
    modality: str
    training_dataset: str
    yaml_path: str | None


MODEL_REGISTRY: dict[str, RegisteredModel] = {}
PROBLEMS: dict[str, str] = {}
"""What could not be registered, and why: the path of a card, a module or a plug-in -> a sentence that names it."""

_CARDS = Path(__file__).parents[1] / "models" / "model_cards"
_FAMILIES = "berg.families"
_cards_read: dict[str, ModelCard] = {}
_bound: dict[str, tuple[ModelCard, type[Any]]] = {}  # the class of each card, made once
_opened: set[str] = set()


def register_model(
    model_id: str,
    module_path: str,
    class_name: str | None,
    modality: str,
    training_dataset: str,
    yaml_path: str | Path | None = None,
) -> None:
    """Make a model known. The same class under the same id again is silent.

    Raises
    ------
    RegistrationError
        If another class holds the id; it names both.
    """
    if not isinstance(model_id, str):
        raise RegistrationError(f"A model id is text, got {model_id!r:.60} ({module_path}.{class_name}).")
    entry = RegisteredModel(
        module_path=module_path,
        class_name=class_name,
        modality=modality,
        training_dataset=training_dataset,
        yaml_path=str(yaml_path) if yaml_path is not None else None,
    )
    held = MODEL_REGISTRY.get(model_id)
    if held and (held["module_path"], held["class_name"]) != (module_path, class_name):
        raise RegistrationError(
            f"The model id '{model_id}' is taken by {_class_path(held)}; {_class_path(entry)} "
            "cannot have it too. Give the new model another id."
        )
    if held and held["yaml_path"] and entry["yaml_path"] and _differ(held["yaml_path"], entry["yaml_path"]):
        raise RegistrationError(
            f"The model id '{model_id}' is taken by the card {held['yaml_path']}; the card "
            f"{entry['yaml_path']} cannot have it too. Give the new model another id."
        )
    MODEL_REGISTRY[model_id] = entry


def register_cards(folder: Path | str) -> None:
    """Make every card of a known family in a folder known; a broken card is put into `PROBLEMS`."""
    for path in sorted(Path(folder).glob("*.yaml")):
        if path.stem == "template":
            continue
        try:
            register_card(path)
        except BERGError as error:
            PROBLEMS[str(path)] = str(error)
            logger.warning("The card %s is left out: %s", path, error)


def register_card(path: Path) -> None:
    """Make the model of one card known.

    Raises
    ------
    ModelCardError, RegistrationError
    """
    card = ModelCard.read(path)
    if card.family is None:
        _hand_written_cards[card.model_id] = path
        return
    register_model(card.model_id, **_entry_of(card, path))
    _cards_read[str(path)] = card


def _entry_of(card: ModelCard, path: Path) -> RegisteredModel:
    """The entry of a card that names a family."""
    module, _, class_name = str(card.family).partition(":")
    return RegisteredModel(
        module_path=module if class_name or "." in module else f"{_FAMILIES}.{module}.model",
        class_name=class_name or None,
        modality=card.modality,
        training_dataset=card.training_dataset,
        yaml_path=str(path),
    )


_hand_written_cards: dict[str, Path] = {}
_stores: dict[Path, None] = {}


def add_store(berg_dir: Path) -> None:
    """Look for cards in a BERG directory too, where ``berg unpack`` puts them."""
    _stores.setdefault(berg_dir)


def _register_stored_cards(berg_dir: Path) -> None:
    """The cards beside the files of their models. They come from anywhere, so they can name no code to import."""
    for path in sorted(berg_dir.glob("encoding_models/modality-*/train_dataset-*/model-*/*.yaml")):
        if f"card {path}" in _opened:
            continue
        _opened.add(f"card {path}")
        try:
            card = ModelCard.read(path)
            if path.stem in MODEL_REGISTRY:
                _check_is_same(path, MODEL_REGISTRY[path.stem]["yaml_path"])
                continue
            if ModelId.parse(card.model_id).folder(berg_dir) != path.parent or path.stem != card.model_id:
                raise ModelCardError(f"{path} is the card of '{card.model_id}', and lies elsewhere than its files.")
            if card.family is None or not card.family.isidentifier():
                raise ModelCardError(
                    f"{path}: a card in a BERG directory must name a family of this package, not {card.family!r}. "
                    "Install the package of the model."
                )
            register_card(path)
        except BERGError as error:
            PROBLEMS[str(path)] = str(error)
            logger.warning("The card %s is left out: %s", path, error)


def _check_is_same(path: Path, used: str | None) -> None:
    """Raise if another BERG directory has another card of this id; that of a package is used without a word."""
    if used is None or not any(berg_dir in Path(used).parents for berg_dir in _stores):
        return
    if path.read_bytes() != Path(used).read_bytes():
        raise RegistrationError(
            f"{path} differs from {used}, which is the one used. Give one of the models another id."
        )


def discover() -> None:
    """Open every door that is not open yet: cards, modality folders, entry points."""
    from importlib.metadata import entry_points  # 60 ms that ``import berg`` does not need

    if "cards" not in _opened:
        _opened.add("cards")
        register_cards(_CARDS)
    _import_modalities()
    for entry_point in entry_points(group="berg.models"):
        _open(f"{entry_point.name} ({entry_point.value})", entry_point.load)
    for berg_dir in _stores:
        _register_stored_cards(berg_dir)
    for model_id, path in _hand_written_cards.items():
        if model_id not in MODEL_REGISTRY:
            PROBLEMS.setdefault(
                str(path),
                f"{path}: no class registered itself as '{model_id}', and the card names no family.",
            )


def _import_modalities() -> None:
    models = importlib.import_module("berg.models")
    for modality in sorted({path.parent.name for place in models.__path__ for path in Path(place).glob("*/*.py")}):
        name = f"berg.models.{modality}"  # with or without an __init__.py
        package = _open(name, lambda name=name: importlib.import_module(name))
        for module in pkgutil.iter_modules(getattr(package, "__path__", []), f"{name}."):
            _open(module.name, lambda name=module.name: importlib.import_module(name))


def _open(name: str, load: object) -> ModuleType | None:
    """Import one module; what goes wrong in it is its own affair."""
    if name in _opened and name in PROBLEMS:
        return None
    try:
        module = load()  # type: ignore[operator]
    except (Exception, SystemExit) as error:  # a script without its `if __name__ == "__main__"`
        PROBLEMS[name] = f"{name} cannot be imported: {type(error).__name__}: {error}"
        if name not in _opened:
            logger.warning("%s", PROBLEMS[name])
        module = None
    if name not in _opened:
        _opened.add(name)
        _register_cards_of(module)
    return module if isinstance(module, ModuleType) else None


def _register_cards_of(module: object) -> None:
    """The cards that lie in a plug-in's folder, or in its folder ``model_cards``."""
    for folder in getattr(module, "__path__", []):
        if Path(folder).parent == _CARDS.parent:
            continue
        register_cards(folder)
        register_cards(Path(folder) / "model_cards")


def get_available_models() -> list[str]:
    """The ids of all models, sorted."""
    discover()
    return sorted(MODEL_REGISTRY)


def get_registered(model_id: str) -> RegisteredModel:
    """The entry of one model.

    Raises
    ------
    ModelNotFoundError
        With the nearest id, and what went wrong if the id belongs to a broken card.
    """
    if model_id not in MODEL_REGISTRY:
        discover()  # 20 ms: it asks every installed package
    if model_id in MODEL_REGISTRY:
        return MODEL_REGISTRY[model_id]
    for name, problem in PROBLEMS.items():
        if str(model_id) in (Path(name).stem, name):
            raise ModelNotFoundError(f"The model '{model_id}' is there but cannot be used: {problem}")
    raise ModelNotFoundError(
        f"There is no model '{model_id}'.{did_you_mean(model_id, MODEL_REGISTRY)} "
        f"Models: {listing(sorted(MODEL_REGISTRY))}. (berg list shows them)"
    )


def get_card(model_id: str) -> ModelCard:
    """The card of a model; imports nothing."""
    path = get_registered(model_id)["yaml_path"]
    if path is None:
        raise ModelCardError(f"The model '{model_id}' was registered without a card (yaml_path).")
    if path not in _cards_read:
        _cards_read[path] = ModelCard.read(path)
    return _cards_read[path]


def readable_cards() -> list[ModelCard]:
    """The cards of all models, sorted by id; of a class written by hand, a broken one is put into `PROBLEMS`."""
    cards = []
    for model_id in get_available_models():
        try:
            cards.append(get_card(model_id))
        except BERGError as error:
            PROBLEMS.setdefault(model_id, str(error))
    return cards


def get_model_class(model_id: str) -> type[Any]:
    """The class of a model; of a family's model, the family's class bound to the card. The same at every call.

    Raises
    ------
    RegistrationError
        If the module or the class in it cannot be had.
    """
    entry = get_registered(model_id)
    if not _is_family(model_id):
        return _class_in(family_module(model_id, entry), entry)
    card = get_card(model_id)
    if model_id not in _bound or _bound[model_id][0] is not card:  # a card that was registered anew
        _bound[model_id] = card, bind_card(card)
    return _bound[model_id][1]


def bind_card(card: ModelCard) -> type[Any]:
    """The class of a card's family, bound to the card, whether the model is registered or not.

    Raises
    ------
    RegistrationError
        If the module or the class in it cannot be had.
    """
    entry = _entry_of(card, card.path)
    found = _class_in(family_module(card.model_id, entry), entry)
    bind = getattr(found, "bind", None)
    return bind(card) if bind else found


def family_module(model_id: str, entry: RegisteredModel) -> ModuleType:
    """The module of a model's class."""
    try:
        return importlib.import_module(entry["module_path"])
    except ImportError as error:
        raise RegistrationError(
            f"'{model_id}' is registered as {_class_path(entry)}, which cannot be imported: {error}"
        ) from error


def _is_family(model_id: str) -> bool:
    return get_registered(model_id)["yaml_path"] is not None and get_card(model_id).family is not None


def _class_in(module: ModuleType, entry: RegisteredModel) -> type[Any]:
    name = entry["class_name"]
    if name is None:
        return _only_model_class(module)
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise RegistrationError(f"{module.__name__} has no class '{name}'.{did_you_mean(name, vars(module))}")
    return found


def _only_model_class(module: ModuleType) -> type[Any]:
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and hasattr(value, "bind") and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise RegistrationError(
            f"The family {module.__name__} must define one encoding model, and defines {len(found)}. "
            "Name the class in the card: family: package.module:Class"
        )
    return found[0]


def _class_path(entry: RegisteredModel) -> str:
    name = entry["class_name"] or "its encoding model"
    card = f" (card {entry['yaml_path']})" if entry["yaml_path"] else ""
    return f"{entry['module_path']}.{name}{card}"


def _differ(one: str, other: str) -> bool:
    return Path(one).resolve() != Path(other).resolve()
