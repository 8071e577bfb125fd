"""The files of a new model: its card and, for a class of its own, the code around it.

What is known is written; what only the author knows is ``TODO``, with an example behind it: that of the
family's own schema, of a card of the family, or of ``template.yaml``.
"""

from __future__ import annotations

import importlib
import keyword
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import yaml

from berg.core import model_registry
from berg.core.card_schema import CardPart
from berg.core.card_yaml import read_card_yaml
from berg.core.exceptions import BERGError, InvalidParameterError, RegistrationError, did_you_mean, listing
from berg.core.layout import ModelId
from berg.core.model_card import ModelCard
from berg.models.card_of_data import DataFacts, parts_of_card

_HERE = Path(__file__).parent
_FAMILIES = "berg.families"


def write_new_model(
    model_id: str, family: str | None, out: Path, description: str | None = None, data: DataFacts | None = None
) -> list[Path]:
    """Write the files of a new model; nothing that is there is overwritten.

    In a checkout (`out` holds ``berg/models``) each file goes to its place there. Elsewhere a card of a
    family goes into `out` itself, and a class into a package of its own in `out`, which pip installs.

    Parameters
    ----------
    family
        The family of the card; None: a class of its own.
    description
        For the card.
    data
        The recordings that the model is to be fitted to, of which the card then says what there is.

    Returns
    -------
    paths
        The files written.

    Raises
    ------
    InvalidParameterError
        For an id or a family that does not exist, and if a file is there already.
    RegistrationError
        Where a model has the id.
    """
    parts = ModelId.parse(model_id)
    if model_id in model_registry.get_available_models():
        raise RegistrationError(f"There is a model '{model_id}' already (berg describe {model_id}). Choose another id.")
    card = {f"{model_id}.yaml": new_card(model_id, family, description, data)}
    files = _in_place(card, out) if family else _class_files(card, model_id, parts.modality, out)
    if there := [path for path in files if path.exists()]:
        raise InvalidParameterError(f"{listing(there)} is there already. Nothing was written; move it or use --out.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def families() -> list[str]:
    """The families that a card may name: those of this package, and those of the cards that are installed."""
    own = [module.name for module in pkgutil.iter_modules([str(_HERE.parent / "families")])]
    return sorted({*own, *(card.family for card in _cards() if card.family)})


def _cards() -> Iterator[ModelCard]:
    for model_id in model_registry.get_available_models():
        try:
            yield model_registry.get_card(model_id)
        except BERGError:  # of a class written by hand; berg list names it
            continue


# The card


def new_card(
    model_id: str, family: str | None = None, description: str | None = None, data: DataFacts | None = None
) -> str:
    """The YAML of a new card.

    >>> print(new_card("meg-mine-linear", "prf"))  # doctest: +ELLIPSIS
    # What begins with TODO is yours to say. Then:  berg check meg-mine-linear.yaml
    model_id: meg-mine-linear
    modality: meg
    training_dataset: mine
    species: TODO  # e.g. Human
    ...
    """
    template, _ = read_card_yaml(_HERE / "model_cards" / "template.yaml")
    parts = ModelId.parse(model_id)
    kind = "image" if data is None else data.kind
    given = template if family is None else _example(family, parts.modality, template, kind)
    marks = _Marks()
    known: dict[str, Any] = {"model_id": model_id, "modality": parts.modality, "training_dataset": parts.dataset}
    keys = ("species", "stimuli", "model_architecture", "creator")
    texts = {key: marks.todo(given.get(key) or template[key]) for key in keys}
    said = {"description": description or marks.todo(template["description"])}
    limits = {"limitations": marks.todo("What it was not fitted for.")}
    card = {**known, **texts, **said, **limits}
    if family is not None:
        card |= {"family": family, **_family_parts(family, given, marks)}
    if given is template:  # of which every shape is an example
        given = {**given, "input": _said(given["input"], marks), "output": _said(given["output"], marks)}
    of_data = None if data is None else parts_of_card(data, parts.modality)
    if of_data is not None:
        given = {**given, **of_data, "parameters": {**given["parameters"], **of_data["parameters"]}}
    if data is not None and data.kind != given["input"]["kind"]:
        given = {**given, "input": _said(_input_of_kind(data.kind), marks)}
    output = given["output"] if of_data else _output(given["output"], template["output"], marks)
    card |= {"input": given["input"], "output": output}
    if of_data is not None:
        files = {name: given["files"][name] for name in ("weights", "metadata")}
        card |= {key: of_data[key] for key in ("outputs", "axes", "select")} | {"files": files}
    elif family is not None:
        card |= _machine_readable(given, marks)
    known_parameters = of_data["parameters"] if of_data else {}
    card["parameters"] = {
        name: known_parameters.get(name) or _parameter(name, part, marks) for name, part in given["parameters"].items()
    }
    card |= {key: marks.all_in(template[key]) for key in ("performance", "references", "licence", "citation")}
    return f"# What begins with TODO is yours to say. Then:  berg check {model_id}.yaml\n{marks.dump(card)}"


class _Marks:
    """TODO marks: tokens while the YAML is made, then the word with an example as a comment."""

    def __init__(self) -> None:
        self.examples: list[str] = []

    def todo(self, example: Any) -> str:
        short = shorten(example, 100, placeholder=" ...") if isinstance(example, str) else example
        short = short[:6] if isinstance(short, list) else short
        flow = yaml.safe_dump(short, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
        self.examples.append(flow.removesuffix("...\n").strip())
        return f"TODO-{len(self.examples) - 1}-"

    def all_in(self, value: Any) -> Any:
        """The same maps and lists, each of their values a mark."""
        if isinstance(value, dict):
            return {key: self.all_in(child) for key, child in value.items()}
        return [self.all_in(child) for child in value] if isinstance(value, list) else self.todo(value)

    def dump(self, card: Mapping[str, Any]) -> str:
        text = yaml.dump(dict(card), Dumper=_CardDumper, sort_keys=False, allow_unicode=True, width=110)
        return re.sub(r"TODO-(\d+)-", lambda mark: f"TODO  # e.g. {self.examples[int(mark[1])]}", text)


class _CardDumper(yaml.SafeDumper):
    """Lists of names and numbers in one line, texts of several lines as they are read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    in_a_line = not any(isinstance(value, (dict, list)) or "TODO" in str(value) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=in_a_line)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_CardDumper.add_representer(list, _represent_list)
_CardDumper.add_representer(str, _represent_text)


def _example(family: str, modality: str, template: dict[str, Any], kind: str = "image") -> dict[str, Any]:
    """A card of the family, for this kind of stimulus and of the same modality if there is one; else the template.

    Models whose weights lie in another package are no example: nobody else's are read from there.
    """
    cards = [card for card in _cards() if card.family == family and not (card.files and card.files.from_package)]
    cards.sort(key=lambda card: (_kind_of(card) != kind, card.modality != modality, card.model_id))
    if kind == "video" and cards and _kind_of(cards[0]) != kind:
        raise InvalidParameterError(
            f"The stimuli of these recordings are videos, and no model of the family '{family}' takes them. Try  "
            "--family linearizing"
        )
    return cards[0].raw if cards else template


def _kind_of(card: ModelCard) -> str:
    return "image" if card.input is None else card.input.kind


def _input_of_kind(kind: str) -> dict[str, Any]:
    """What a known model of such stimuli takes, as an example."""
    stated: dict[str, Any] = next(card.raw["input"] for card in _cards() if _kind_of(card) == kind)
    return stated


def _family_parts(family: str, given: Mapping[str, Any], marks: _Marks) -> dict[str, Any]:
    """The maps that the family reads: what its schema leaves no choice in, and a mark for everything else."""
    schemas = {key: getattr(_module_of(family), key.capitalize(), None) for key in ("features", "readout")}
    return {
        key: _schema_part(schema, given.get(key) or {}, marks)
        for key, schema in schemas.items()
        if isinstance(schema, type) and issubclass(schema, CardPart)
    }


def _module_of(family: str) -> ModuleType:
    name, colon, class_name = family.partition(":")
    try:
        module = importlib.import_module(name if colon or "." in name else f"{_FAMILIES}.{name}.model")
        known = family in families() or hasattr(getattr(module, class_name), "bind")
    except (ImportError, AttributeError):
        known = False
    if not known:
        raise InvalidParameterError(
            f"There is no family '{family}'.{did_you_mean(family, families())} Families: {listing(families())}; "
            "one of your own: package.module:Class. A class without a family: --class."
        )
    return module


def _schema_part(schema: type[CardPart], given: Mapping[str, Any], marks: _Marks) -> dict[str, Any]:
    part = {}
    for name, field in schema.model_fields.items():
        if field.is_required():
            value = given.get(name, next(iter(_literals(field.annotation)), str(field.annotation)))
            part[name] = value if _has_only_literals(field.annotation) else marks.todo(value)
    return part


def _has_only_literals(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return True
    inside = get_args(annotation)
    return bool(inside) and all(map(_has_only_literals, inside))


def _literals(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _said(part: Mapping[str, Any], marks: _Marks) -> dict[str, Any]:
    """What a model takes or returns, its words and its shape as marks."""
    marked = {key: marks.todo(part[key]) for key in ("shape", "description")}
    return {
        **part,
        **marked,
        **({"constraints": [marks.todo("What else must hold.")]} if "constraints" in part else {}),
    }


def _output(given: Mapping[str, Any], template: Mapping[str, Any], marks: _Marks) -> dict[str, Any]:
    names = [dimension["name"] for dimension in given.get("dimensions", [])]
    dimensions = [{"name": name, "description": marks.todo("What lies along it.")} for name in names]
    return {**given, "description": marks.todo(template["description"]), "dimensions": dimensions}


def _machine_readable(given: Mapping[str, Any], marks: _Marks) -> dict[str, Any]:
    """Outputs, axes, selectors and files as the family has them; units and lengths are the author's."""
    outputs = [{**output, "unit": marks.todo(output["unit"])} for output in given["outputs"]]
    axes = {name: _axis(axis, marks) for name, axis in given["axes"].items()}
    select = {
        key: {name: value for name, value in part.items() if name != "aliases"}
        for key, part in given.get("select", {}).items()
    }
    files = {name: given["files"][name] for name in ("weights", "metadata")}
    return {"outputs": outputs, "axes": axes, "select": select, "files": files}


def _axis(axis: Mapping[str, Any], marks: _Marks) -> dict[str, Any]:
    """A number as the length is the author's, and left out if the coordinates tell it.

    So are coordinates that only some files have (their place ends with a question mark).
    """
    new = dict(axis)
    if "coordinates" in axis:
        new["coordinates"] = {name: place for name, place in axis["coordinates"].items() if not place.endswith("?")}
    if isinstance(axis.get("length"), int):
        new["length"] = marks.todo(axis["length"])
        if "coordinates" in axis:
            del new["length"]
    return new


def _parameter(name: str, part: Mapping[str, Any], marks: _Marks) -> dict[str, Any]:
    """A parameter as the family has it; which subjects and units there are, and all words, are the author's."""
    if name == "device":
        return dict(part)
    if name == "subject":
        return _of_the_data(part, marks)
    new = {**part, "description": marks.todo(part.get("description") or "What it does.")}
    if name == "selection":
        new["properties"] = {key: _of_the_data(value, marks) for key, value in part["properties"].items()}
    return new


def _of_the_data(part: Mapping[str, Any], marks: _Marks) -> dict[str, Any]:
    new = {**part, "description": marks.todo(part.get("description") or "What it selects.")}
    if "valid_values" in part:
        new["valid_values"] = marks.todo(part["valid_values"])
        for key in ("example", "default"):
            new.pop(key, None)
    return new


# The class


def _in_place(card: Mapping[str, str], out: Path) -> dict[Path, str]:
    folder = out / "berg" / "models" / "model_cards" if _is_checkout(out) else out
    return {folder / name: text for name, text in card.items()}


def _is_checkout(out: Path) -> bool:
    return (out / "berg" / "models" / "model_cards").is_dir()


def _class_files(card: Mapping[str, str], model_id: str, modality: str, out: Path) -> dict[Path, str]:
    name = re.sub(r"\W", "_", ModelId.parse(model_id).model)
    module = name if name.isidentifier() and not keyword.iskeyword(name) else f"model_{name}"
    package = "berg_" + re.sub(r"\W", "_", model_id)
    words = {
        "model_id": model_id,
        "modality": modality,
        "module": module,
        "package": package,
        "class_name": "".join(word[:1].upper() + word[1:] for word in module.split("_")) + "Model",
    }
    root = out if _is_checkout(out) else out / f"berg-{model_id}"
    models = root / "berg" / "models" if _is_checkout(out) else root / "src" / package
    files = {models / "model_cards" / name: text for name, text in card.items()}
    files[models / modality / f"{module}.py"] = _from_template("model.py", words)
    tests = root / "tests" / "models" if _is_checkout(out) else root / "tests"
    files[tests / f"test_{package}.py"] = _from_template("test_model.py", words)
    if not _is_checkout(out):
        files[root / "pyproject.toml"] = _from_template("pyproject.toml", words)
        files[models / "__init__.py"] = f'"""The encoding model {model_id}."""\n'
    if not (models / modality / "__init__.py").exists():
        files[models / modality / "__init__.py"] = f'"""Encoding models of {modality}."""\n'
    return files


def _from_template(name: str, words: Mapping[str, str]) -> str:
    import jinja2

    folder = jinja2.FileSystemLoader(_HERE / "templates")
    made = jinja2.Environment(loader=folder, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return made.get_template(f"{name}.jinja").render(words)
