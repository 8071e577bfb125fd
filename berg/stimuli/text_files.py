"""Texts in files: lines, columns of tables, and words with their times from aligners."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from berg.core.exceptions import MissingFileError, StimulusError, did_you_mean, listing
from berg.core.regular_file import check_regular_file
from berg.stimuli.aligned_words import TimedWord, is_silence, words_of_json, words_of_textgrid
from berg.stimuli.texts import Sentences, TextPerTR, Words

TextT = TypeVar("TextT")
TABLES = {".tsv": "\t", ".csv": ","}
ENDINGS = (".txt", *TABLES)
WORD_ENDINGS = (*ENDINGS, ".textgrid", ".json")
_MISSING = "n/a"  # of BIDS
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def load_sentences(file: Path | str, column: str | None = None) -> Sentences:
    """The sentences of a file: the lines of a .txt, or a column of a .tsv or .csv.

    Parameters
    ----------
    column
        Of the table; not needed if it has one, or one that is called ``sentence`` or ``text``.

    Raises
    ------
    MissingFileError, StimulusError
        Of a text that cannot be taken, with the number of the sentence, from 0.
    """
    path = _known(file, ENDINGS, "sentences")
    if path.suffix.lower() in TABLES:
        return _named(path, lambda: Sentences(_column(path, column, ("sentence", "sentences", "text"))))
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise StimulusError(f"Line {number:,} of {path} is empty. Take it out; each line is a sentence.")
    return _named(path, lambda: Sentences(lines))


def load_tr_texts(file: Path | str, column: str | None = None) -> TextPerTR:
    """What was said during each TR: the lines of a .txt, empty ones too, or a column of a .tsv or .csv.

    Parameters
    ----------
    column
        Of the table; not needed if it has one, or one that is called ``text_per_tr`` or ``text``.

    Raises
    ------
    MissingFileError, StimulusError
    """
    path = _known(file, ENDINGS, "one text for each TR")
    if path.suffix.lower() in TABLES:
        cells = _column(path, column, ("text_per_tr", "text"))
        return _named(path, lambda: TextPerTR("" if cell == _MISSING else cell for cell in cells))
    return _named(path, lambda: TextPerTR(read_text(path).removesuffix("\n").split("\n")))


def load_words(file: Path | str, column: str | None = None) -> Words:
    """The words of a file, with their times if it has them.

    ``.txt``: words between blanks. ``.tsv``, ``.csv``: a column of words, with ``onset`` and ``duration`` in seconds if
    there are such columns, as in the events of BIDS; rows whose word is ``n/a`` are left out. ``.TextGrid`` of Praat,
    long or short, and ``.json`` of the Montreal Forced Aligner or WhisperX: intervals without a word (empty, ``sp``,
    ``sil``, ``<eps>``) are left out, and blanks around words.

    Parameters
    ----------
    column
        Of a table; not needed if one is called ``word``, ``words``, ``token`` or ``trial_type``. Of a TextGrid or the
        Montreal aligner, the name of the tier; not needed if one is called ``words`` or ``word``, or there is one.

    Raises
    ------
    MissingFileError, StimulusError
    """
    path = _known(file, WORD_ENDINGS, "words")
    ending = path.suffix.lower()
    if ending == ".txt":
        return _named(path, lambda: Words(read_text(path).split()))
    if ending in TABLES:
        return _named(path, lambda: _words_of_table(path, column))
    read = words_of_json if ending == ".json" else words_of_textgrid
    return _named(path, lambda: timed_words(read(read_text(path), column)))


def timed_words(found: Sequence[TimedWord]) -> Words:
    """Words of an aligner, without the intervals in which nothing was said."""
    kept = [each for each in found if not is_silence(each.word)]
    if not kept:
        raise StimulusError(f"Nothing was said in its {len(found):,} intervals. Is it the tier of words?")
    onsets, ends = (np.array([getattr(each, name) for each in kept]) for name in ("begin", "end"))
    return Words([each.word.strip() for each in kept], onsets, ends - onsets)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark, as Praat writes it; line breaks as ``\\n``.

    Raises
    ------
    StimulusError
        For another encoding, which is not guessed.
    """
    check_regular_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StimulusError(f"{path} cannot be read: {error.strerror}.") from error
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise StimulusError(
            f"{path} is not in UTF-8: byte {error.start:,} (in line {line:,}) is 0x{content[error.start]:02x}. Its "
            f"encoding is not guessed; bring it to UTF-8, such as with:  iconv -f latin1 -t utf-8 {path.name}"
        ) from error
    if "\0" in text:
        raise StimulusError(f"{path} is no text in UTF-8: it holds bytes of zero. Is it UTF-16? Save it as UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _known(file: Path | str, endings: Sequence[str], what: str) -> Path:
    path = Path(file).expanduser()
    if not path.exists():
        raise MissingFileError(f"There is no file {path}.")
    if path.suffix.lower() not in endings:
        raise StimulusError(f"{path} is no file of {what}: those end in {listing(endings)}. Save it as one of them.")
    return path


def _named(path: Path, read: Callable[[], TextT]) -> TextT:
    """What was read, or its error with the name of the file."""
    try:
        return read()
    except StimulusError as error:
        raise error if str(path) in str(error) else StimulusError(f"{path}: {error}") from error


def _column(path: Path, column: str | None, usual: Sequence[str]) -> list[str]:
    table = _table(path)
    return list(table[_chosen(path, table, column, usual)])


def _words_of_table(path: Path, column: str | None) -> Words:
    table = _table(path)
    chosen = _chosen(path, table, column, ("word", "words", "token", "text", "trial_type"))
    kept = [row for row, word in enumerate(table[chosen]) if word != _MISSING]
    if not kept:
        raise StimulusError(f"Column '{chosen}' of {path} has no words.")

    def times(name: str, missing: float | None) -> list[float] | None:
        return [_seconds(path, name, row, table[name][row], missing) for row in kept] if name in table else None

    return Words([table[chosen][row] for row in kept], times("onset", None), times("duration", np.nan))


def _seconds(path: Path, name: str, row: int, cell: str, missing: float | None) -> float:
    if missing is not None and cell in (_MISSING, ""):
        return missing
    try:
        return float(cell)
    except ValueError as error:
        raise StimulusError(f"{path}, line {row + 2:,}: {name} is {cell!r}. Give seconds.") from error


def _chosen(path: Path, table: Mapping[str, Any], column: str | None, usual: Sequence[str]) -> str:
    if column is not None:
        if column not in table:
            hint = did_you_mean(column, table)
            raise StimulusError(f"{path} has no column '{column}'.{hint} It has {listing(table)}.")
        return column
    found = [name for name in usual if name in table] or (list(table) if len(table) == 1 else [])
    if not found:
        raise StimulusError(
            f"{path} has the columns {listing(table)}, of which none is called {' or '.join(usual[:3])}. Say which "
            "holds the text: column=NAME (--column NAME)."
        )
    return found[0]


def _table(path: Path) -> dict[str, list[str]]:
    """The columns of a table by their names."""
    text, is_tsv = read_text(path), path.suffix.lower() == ".tsv"
    try:
        lines = map(_cells, text.split("\n")) if is_tsv else csv.reader(StringIO(text), strict=True)
        rows = [row for row in lines if row not in ([], [""])]
    except csv.Error as error:
        raise StimulusError(f"{path} is no table with commas: {error}.") from error
    if len(rows) < 2:
        raise StimulusError(f"{path} has no rows. Its first line holds the names of the columns.")
    names, *cells = rows
    if len(set(names)) < len(names):
        raise StimulusError(f"{path} names a column twice: {listing(names)}. Rename one.")
    for number, row in enumerate(cells, start=2):
        if len(row) != len(names):
            raise StimulusError(
                f"Row {number:,} of {path} has {len(row)} cells, the first has {len(names)}. "
                f"Cells are divided by {'tabs' if is_tsv else 'commas'}."
            )
    return dict(zip(names, ([*column] for column in zip(*cells, strict=True)), strict=True))


def _cells(line: str) -> list[str]:
    r"""The cells of a line with tabs. In BIDS a quotation mark stands for itself; others write it twice, in quotes.

    >>> _cells('"Hi"\t"he ""said"" no"')
    ['"Hi"', 'he "said" no']
    """
    return [_unquoted(cell) for cell in line.split("\t")]


def _unquoted(cell: str) -> str:
    inside = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in inside and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if is_quoted else cell
