"""Words in a dataset.yaml that YAML takes for something else than they look like: NO, 010, 1:20, 1.10."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import yaml

from berg.core.card_yaml import Lines, is_misleading, written_values
from berg.core.exceptions import DatasetError

# What stands under these keys are names, also if all of them look like numbers.
NAMES = {"roi", "channel", "groups", "names", "files", "column", "subjects"}
_EXPONENT = re.compile("[-+]?[0-9]+[.]?[0-9]*[eE][-+]?[0-9]+")  # 1e-3, a text to YAML 1.1 and a number to all others
Written = Sequence[tuple[str, str]]


def check_words(text: str, lines: Lines, source: str) -> None:
    """Raise DatasetError, with the line, if a value would be read as something else than it is written.

    Parameters
    ----------
    text
        Of a ``dataset.yaml``.
    lines
        Of its keys and items.
    source
        The name of the file, for messages.
    """
    for path, items in written_values(text).items():
        for place in _misread(items, bool(NAMES.intersection(path))):
            written = items[place][1]
            line = lines.get((*path, place), lines.get(path, 1))
            raise DatasetError(
                f"{source}, line {line}: {'.'.join(map(str, path))}: YAML takes {written or 'nothing'} for "
                f"{yaml.safe_load(written)!r}. If it is a name, put it in quotes: '{written}'. If it is a "
                "number or a mark, write it in plain digits, or as true or false, and no names beside it."
            )


def _misread(items: Written, are_names: bool) -> Iterator[int]:
    """The items that are not what they look like."""
    beside_names = are_names or any(kind == "str" and not _EXPONENT.fullmatch(written) for kind, written in items)
    for place, (kind, written) in enumerate(items):
        if is_misleading(kind, written) or (beside_names and _is_no_name(kind, written)):
            yield place
    if all(kind in ("int", "float", "str") for kind, _ in items) and not beside_names:
        yield from _same_number(items)


def _is_no_name(kind: str, written: str) -> bool:
    """Whether it would be another text, as a name, than the one that is written."""
    return kind in ("bool", "null") or (kind == "float" and str(yaml.safe_load(written)) != written)


def _same_number(items: Written) -> Iterator[int]:
    """Those written in another way than an equal number before them, such as 1.10 after 1.1."""
    first: dict[float, str] = {}
    for place, (_, written) in enumerate(items):
        if first.setdefault(float(yaml.safe_load(written)), written) != written:
            yield place
