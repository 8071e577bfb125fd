"""Read the YAML of a model card as plain data, with the line of every key.

Only text, numbers, booleans, null, lists and maps are built. A card is small and written by hand, so
everything that could make a small file large or a reader surprised is refused with its line:
tags that build objects, anchors and aliases, keys that stand twice, deep nesting, huge files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from berg.core.exceptions import ModelCardError
from berg.core.regular_file import read_start

MAX_BYTES = 200_000
MAX_DEPTH = 40
MAX_DIGITS = 100

Path_ = tuple[str | int, ...]
Lines = dict[Path_, int]

_PLAIN_INTEGER = re.compile("-?(0|[1-9][0-9]*)")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp")}


def read_card_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """The card's data, and the line (from 1) of every key and list item by its path."""
    return parse_card_yaml(read_card_text(path), str(path))


def parse_card_yaml(text: str, source: str) -> tuple[dict[str, Any], Lines]:
    """As `read_card_yaml`, from the text; `source` is the name that errors give."""
    lines: Lines = {(): 1}
    try:
        _refuse_depth_and_aliases(text, source)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ModelCardError(f"{source}{_place(error)}: not valid YAML: {_reason(error)}") from error
    except ModelCardError:
        raise
    except ValueError as error:  # a character that YAML does not allow
        raise ModelCardError(f"{source}: not valid YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        raise ModelCardError(f"{source}, line 1: a card is a map of keys such as 'model_id: ...'.")
    return _build(node, (), lines, source), lines


def written_values(text: str) -> dict[Path_, list[tuple[str, str]]]:
    """What YAML takes each value for and how it is written, of a text that `parse_card_yaml` reads.

    >>> written_values("a: {b: [no, 1.10, 'x'], c: 010}")
    {('a', 'b'): [('bool', 'no'), ('float', '1.10'), ('str', 'x')], ('a', 'c'): [('int', '010')]}
    """
    found: dict[Path_, list[tuple[str, str]]] = {}

    def walk(node: Any, path: Path_) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, child in node.value:
                walk(child, (*path, key.value))
        else:
            items = node.value if isinstance(node, yaml.SequenceNode) else [node][: node.tag != _TAG + "null"]
            found[path] = [(one.tag.removeprefix(_TAG), one.value) for one in items if isinstance(one, yaml.ScalarNode)]
            for index, child in enumerate(items if isinstance(node, yaml.SequenceNode) else ()):
                if not isinstance(child, yaml.ScalarNode):
                    walk(child, (*path, index))

    walk(yaml.compose(text, Loader=_Loader), ())
    return found


def is_misleading(kind: str, written: str) -> bool:
    """Whether few readers know what YAML makes of a value that is not in quotes.

    >>> [is_misleading("bool", "NO"), is_misleading("int", "010"), is_misleading("int", "10")]
    [True, True, False]
    """
    if kind == "bool":
        return written.lower() not in ("true", "false")
    if kind == "int":
        return not _PLAIN_INTEGER.fullmatch(written)
    return kind == "float" and (":" in written or "_" in written)


def read_card_text(path: Path) -> str:
    """The text of a card.

    Raises
    ------
    MissingFileError
        If the file cannot be opened.
    ModelCardError
        If it is too large for a card, or no text.
    """
    content = read_start(path, MAX_BYTES + 1, "The model card")
    if len(content) > MAX_BYTES:
        raise ModelCardError(f"{path} is larger than {MAX_BYTES:,} bytes; a model card is a short text.")
    try:
        return content.decode("utf-8-sig")  # some programs put a mark before the text
    except UnicodeDecodeError as error:
        raise ModelCardError(f"{path} is not UTF-8 text (byte {error.start}).") from error


def _refuse_depth_and_aliases(text: str, source: str) -> None:
    depth = 0
    event: Any
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ModelCardError(f"{source}, line {line}: anchors and aliases are not read; write the value out.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ModelCardError(f"{source}, line {line}: nested deeper than {MAX_DEPTH} levels.")


def _build(node: yaml.Node, path: Path_, lines: Lines, source: str) -> Any:
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _build_map(node, path, lines, source)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        items = []
        for index, child in enumerate(node.value):
            lines[*path, index] = child.start_mark.line + 1
            items.append(_build(child, (*path, index), lines, source))
        return items
    if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
        return _build_scalar(node, source)
    raise ModelCardError(
        f"{source}, line {node.start_mark.line + 1}: the tag {node.tag} builds an object; "
        "a card holds text, numbers, true/false, lists and maps only."
    )


def _build_map(node: yaml.MappingNode, path: Path_, lines: Lines, source: str) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
            raise ModelCardError(
                f"{source}, line {line}: a key must be text; put it in quotes if it looks like "
                "a number, yes/no or a date."
            )
        key = key_node.value
        if key in built:
            raise ModelCardError(
                f"{source}, line {line}: key '{key}' stands twice (first on line {lines[*path, key]})."
            )
        lines[*path, key] = line
        built[key] = _build(value_node, (*path, key), lines, source)
    return built


def _build_scalar(node: yaml.ScalarNode, source: str) -> Any:
    kind = node.tag.removeprefix(_TAG)
    if kind in ("str", "timestamp"):  # a date is text to us
        return node.value
    try:
        if len(node.value) > MAX_DIGITS:  # too large to be printed again, or to be a float
            raise ValueError(f"it has {len(node.value):,} characters")
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (ValueError, LookupError) as error:  # e.g. !!int "", !!bool maybe
        raise ModelCardError(
            f"{source}, line {node.start_mark.line + 1}: {node.value[:40]!r} cannot be read as {kind}; "
            "put it in quotes if it is text."
        ) from error


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _reason(error: yaml.YAMLError) -> str:
    return " ".join(str(getattr(error, "problem", None) or error).split())
