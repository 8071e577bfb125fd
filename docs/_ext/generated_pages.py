"""Pages made from the package at each build: models, recipes, the keys of a card, the command line."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rooms
from cyclopts.docs.markdown import generate_markdown_docs
from docutils import nodes

from berg.cli.app import app as command_line
from berg.core import model_registry
from berg.core.card_schema import CardPart, Parameter
from berg.core.card_text import to_markdown
from berg.core.model_card import ModelCard
from berg.datasets.card import DatasetCard
from berg.system.byte_words import size_words
from berg.weights import model_files
from berg.weights.availability import published_size

DOCS = Path(__file__).parents[1]
RECIPES = DOCS.parent / "recipes"
FIGURES = DOCS / "model_figures"
COLUMNS = ("model", "modality", "species", "stimuli", "accuracy", "subjects", "units", "regions", "licence", "files")
MOST_REGIONS = 8  # that are named in the table
NOTEBOOK = "---\nfile_format: mystnb\nkernelspec: {name: python3, display_name: Python 3}\n---\n"


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
    """The limits, a block to copy, how well it does, the card, and where the model comes from.

    The code of built-in models is run, so that figures and numbers are the model's own.
    """
    title, *rest = re.split(r"^(?=## )", to_markdown(card), flags=re.MULTILINE)
    overview, limits = title.partition("| | | |")[0].strip(), ""
    facts = title[len(title.partition("| | | |")[0]) :].strip()
    if rest and rest[0].startswith("## Limitations"):
        limits = f":::{{admonition}} Limits\n:class: warning\n\n{rest.pop(0).partition(chr(10))[2].strip()}\n:::"
    parts = [
        overview,
        limits,
        "## Use it",
        use(card),
        accuracy(card),
        "## Facts",
        facts,
        *rest,
        "## Files",
        files(card),
    ]
    text = "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
    return NOTEBOOK + text if is_built_in(card) else text


def use(card: ModelCard) -> str:
    """A block to copy; of built-in models one that draws, and is run."""
    if is_built_in(card):
        return (FIGURES / f"{card.model_id}.md").read_text("utf-8")
    selection = {
        name: parameter.example
        for name, parameter in card.selection_parameters.items()
        if parameter.required and parameter.example is not None
    }
    given = [f"{name}={parameter.example!r}" for name, parameter in card.parameters.items() if name_it(name, parameter)]
    given += [f"selection={selection!r}"] if selection else []
    subject = card.parameters.get("subject")
    words = f" --subject {subject.example}" if subject and subject.example else ""
    words += "".join(f" --selection {key}={value}" for key, value in selection.items())
    return f"""```bash
berg download {card.model_id}{words}
```

```python
from PIL import Image
from skimage import data
from berg import BERG, load_images

berg = BERG()  # or BERG("folder of the published package")
model = berg.get_encoding_model({", ".join([f'"{card.model_id}"', *given]).replace("'", '"')})
photographs = [data.astronaut(), data.coffee()]
images = load_images([Image.fromarray(photograph) for photograph in photographs], size=400)
responses = berg.encode(model, images, labelled=True)
```

No figure: the weights are not part of the package, and figures here are real predictions or none."""


def name_it(name: str, parameter: Parameter) -> bool:
    return parameter.required and name != "selection" and parameter.example is not None


def accuracy(card: ModelCard) -> str:
    """How well each unit is predicted, of built-in models measured from what they come with."""
    if not is_built_in(card):
        return (
            ""
            if card.performance
            else f'## Accuracy\n\nIn the metadata of each subject: `berg.accuracy("{card.model_id}", subject=1)`.'
        )
    return f"""## Accuracy

```{{code-cell}} ipython3
---
mystnb:
  image:
    alt: Histogram of the held-out correlation of all units of {card.model_id}
---
import matplotlib.pyplot as plt

accuracy = toolkit.accuracy("{card.model_id}")
r = accuracy["held_out_r"]
by_region = dict(r.groupby(accuracy["roi"])) if "roi" in accuracy.coords else {{"all units": r}}
for name, values in by_region.items():
    print(f"{{name}}: {{values.size:,}} units, median r {{float(values.median()):.2f}}")

figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.hist(r.values.ravel(), 40)
axes.set(xlabel="Pearson r on held-out data", ylabel="units");
```"""


def files(card: ModelCard) -> str:
    """Where the files lie, their size if it is known, and how the model was made."""
    made = f"\n\nHow it was fitted: {{doc}}`/recipes/{card.model_id}`." if card.model_id in recipes() else ""
    if is_built_in(card):
        return f"Built in: {size_of(card):,.0f} kB, no download.{made}"
    size = published_size(card)
    known = "its size is not known here" if size is None else f"{size_words(size)} of all subjects"
    return (
        f"To be downloaded ({known}); what a choice of subject and regions weighs, without fetching it: "
        f"`berg download {card.model_id} --subject 1 --dry-run`. See {{doc}}`/published_models`.{made}"
    )


def size_of(card: ModelCard) -> float:
    """Of the files that come with the package, in kB."""
    folder = model_files.model_folder(card, None)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1000


def is_built_in(card: ModelCard) -> bool:
    return card.files is not None and card.files.store == "built_in"


def where(card: ModelCard) -> str:
    if card.files is None:
        return "as its class says"
    size = published_size(card)
    known = "size not known" if size is None else size_words(size)
    if is_built_in(card):
        return f"built in, {size_of(card):,.0f} kB"
    return f"to be downloaded, {known}" if card.files.store == "berg_dir" else "in its own package"


def table(cards: Iterable[ModelCard]) -> str:
    return "\n".join(["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", *map(row, cards)]) + "\n"


def row(card: ModelCard) -> str:
    subjects = card.parameters["subject"].allowed if "subject" in card.parameters else None
    values = (
        *(card.modality, card.species, card.stimuli, first_metric(card), f"{len(subjects)}" if subjects else "1"),
        *(units(card), regions(card), card.licence or "", where(card)),
    )
    link = f"{{doc}}`{card.model_id} </models/{card.model_id}>`"
    return "| " + " | ".join([link, *(value.replace("|", "\\|") for value in values)]) + " |"


def first_metric(card: ModelCard) -> str:
    """The first measure of the card that is a number."""
    for metric in card.performance.metrics if card.performance else []:
        if isinstance(metric.value, (int, float)):
            return f"{metric.value:g} ({metric.name})"
    return "of each unit, in the metadata"


def units(card: ModelCard) -> str:
    """What a response consists of: the axes of each output after the stimulus, with lengths if the card has them."""
    found = [one_output(card, output) for output in card.outputs]
    return "; ".join(dict.fromkeys(found))


def one_output(card: ModelCard, output) -> str:
    lengths = {
        axis: card.axes[axis].length if axis in card.axes else None for axis in output.axes if axis != "stimulus"
    }
    words = [f"{length:,} {axis}s" if isinstance(length, int) else f"{axis}s" for axis, length in lengths.items()]
    return f"{' x '.join(words)}, {output.unit}"


def regions(card: ModelCard) -> str:
    roi = card.selection_parameters.get("roi")
    names = [str(name) for name in (roi.allowed or [])] if roi else []
    if len(names) > MOST_REGIONS:
        return f"{', '.join(names[:MOST_REGIONS])} and {len(names) - MOST_REGIONS} more"
    return ", ".join(names)


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
