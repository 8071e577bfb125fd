"""Pages made from the package at each build: models, recipes, the keys of a card, the command line."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rooms
from cyclopts.docs.markdown import generate_markdown_docs
from docutils import nodes

from berg.cli.app import app as command_line
from berg.core import model_registry
from berg.core.card_schema import CardPart
from berg.core.card_text import to_markdown
from berg.core.model_card import ModelCard
from berg.datasets.card import DatasetCard

DOCS = Path(__file__).parents[1]
RECIPES = DOCS.parent / "recipes"
COLUMNS = ("model", "modality", "species", "stimuli", "architecture", "licence", "files")


def write_pages(app) -> None:
    """Write all of them; what did not change keeps its time, so that it is not read again."""
    cards = [model_registry.get_card(model_id) for model_id in model_registry.get_available_models()]
    if not cards or model_registry.PROBLEMS:
        raise RuntimeError(f"{len(cards)} models; left out: {model_registry.PROBLEMS}")
    write(DOCS / "models", {f"{card.model_id}.md": page(card) for card in cards})
    house = rooms.measure()
    write(DOCS / "recipes", {f"{name}.md": recipe(name) for name in recipes()})
    write(
        DOCS / "parts",
        {
            "table.inc": table(cards),
            "card_keys.inc": card_keys(ModelCard, "A card"),
            "dataset_keys.inc": card_keys(DatasetCard, "A dataset"),
            "rooms.svg": rooms.picture(house),
            "rooms.inc": rooms.report(house) + "\n",
            "commands.inc": generate_markdown_docs(command_line, generate_toc=False, no_root_title=True),
        },
    )


def write(folder: Path, pages: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def page(card: ModelCard) -> str:
    """The card, and where the model comes from."""
    made = f"How it was fitted: {{doc}}`/recipes/{card.model_id}`." if card.model_id in recipes() else ""
    files = f"Files: {where(card)}." if is_built_in(card) else f"Files: {where(card)}; {{doc}}`/published_models`."
    return "\n\n".join(filter(None, (to_markdown(card), "## More", files, made))) + "\n"


def is_built_in(card: ModelCard) -> bool:
    return card.files is not None and card.files.store == "built_in"


def where(card: ModelCard) -> str:
    if card.files is None:
        return "as its class says"
    return {"built_in": "built in", "berg_dir": "to be downloaded"}.get(card.files.store, "in its own package")


def table(cards: Iterable[ModelCard]) -> str:
    return "\n".join(["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", *map(row, cards)]) + "\n"


def row(card: ModelCard) -> str:
    values = (card.modality, card.species, card.stimuli, card.architecture, card.licence or "", where(card))
    link = f"{{doc}}`{card.model_id} </models/{card.model_id}>`"
    return "| " + " | ".join([link, *(value.replace("|", "\\|") for value in values)]) + " |"


def recipes() -> list[str]:
    return sorted(path.parent.name for path in RECIPES.glob("*/README.md"))


def recipe(name: str) -> str:
    """The read-me of a recipe under a title of its own; its first line is the model's id."""
    include = f"```{{include}} ../../recipes/{name}/README.md\n:start-line: 1\n:relative-images:\n```"
    return f"# How {name} was fitted\n\n{include}\n"


def card_keys(card: type[CardPart], title: str) -> str:
    """What a card may say, part by part, from the schema that it is checked with."""
    schema = card.model_json_schema()
    parts = {title: schema, **schema["$defs"]}
    return "\n\n".join(part_of_card(name, part) for name, part in parts.items()) + "\n"


def part_of_card(name: str, part: dict[str, Any]) -> str:
    required = part.get("required", [])
    lines = [f"### {name}", "", part["description"], "", "| key | value | |", "|---|---|---|"]
    for key, value in part["properties"].items():
        words = "required" if key in required else default_of(value)
        remark = "; ".join(filter(None, (words, value.get("description", ""))))
        lines.append(f"| `{key}` | {kind_of(value)} | {remark} |".replace("\n", " "))
    return "\n".join(lines)


def default_of(value: dict[str, Any]) -> str:
    default = value.get("default")
    return "" if default in (None, "", [], {}) else f"default `{json.dumps(default)}`"


def kind_of(value: dict[str, Any]) -> str:
    """The type of a key in words, with a link where it is a part with keys of its own."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(kind_of(one) for one in value["anyOf"] if one.get("type") != "null")
    if "enum" in value or "const" in value:
        return ", ".join(f"`{name}`" for name in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return f"list of {kind_of(value['items'])}" if value.get("items") else "list"
    if isinstance(value.get("additionalProperties"), dict):
        return f"map of names to {kind_of(value['additionalProperties'])}"
    return {"string": "text", "object": "map", "boolean": "true or false"}.get(
        value.get("type", ""), value.get("type", "any")
    )


def tidy_tables(app, doctree: nodes.document) -> None:
    """Without empty heads and columns, which the tables of cards have and a screen reader would read aloud."""
    for table in doctree.findall(nodes.table):
        for head in list(table.findall(nodes.thead)):
            if not head.astext().strip():
                head.parent.remove(head)
                drop_empty_columns(table)


def drop_empty_columns(table: nodes.table) -> None:
    rows = list(table.findall(nodes.row))
    for column, spec in reversed(list(enumerate(table.findall(nodes.colspec)))):
        if not any(row[column].astext().strip() for row in rows):
            table[0]["cols"] -= 1
            table[0].remove(spec)
            for row in rows:
                row.pop(column)


def setup(app):
    app.connect("builder-inited", write_pages)
    app.connect("doctree-read", tidy_tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
