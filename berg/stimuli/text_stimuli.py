"""Texts as stimuli of a model: opened from whatever the user has, and read as references to them.

A row of a text is two whole numbers: which sentence, word or TR it is, and a hash of the whole text. A language model
looks the text up by the hash (`berg.features.language_rows`), since what comes before a word belongs to it; and a store
that was begun with another text, anywhere in it, is not continued with this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, MissingFileError, StimulusError, did_you_mean, listing
from berg.stimuli.text_files import ENDINGS, WORD_ENDINGS, load_sentences, load_tr_texts, load_words
from berg.stimuli.texts import Sentences, Text, TextPerTR, Words, all_strings, text_digest

_KEYS = ("words", "word_onsets", "word_durations")


class TextStimuli:
    """Rows of a text, each read as its number and the hash of the text.

    Parameters
    ----------
    text
        The text.
    n_rows
        How many responses there are; None: one for each item of the text.
    names
        One per row; None: the items.
    """

    shape: tuple[int, ...] = (2,)

    def __init__(self, text: Text, n_rows: int | None = None, names: Sequence[Any] | None = None) -> None:
        self.text = text
        self.digest = text_digest(text)
        self.n_rows = len(text) if n_rows is None else n_rows
        self.names: Sequence[Any] = text.items if names is None else names
        self.is_arranged = False  # whether a model has said what its rows are

    def __len__(self) -> int:
        return self.n_rows

    def read(self, indices: slice) -> NDArray[np.int64]:
        """Shape (n, 2): numbers of the rows, and the hash of the text."""
        rows = np.arange(*indices.indices(len(self)))
        return np.stack([rows, np.full(len(rows), self.digest)], axis=1)


def open_texts(stimulus: Any, expected: StimulusInput, sampling_rate: Any, check_files: bool) -> TextStimuli:
    """A text in the form that the card asks for; see `berg.stimuli.open.open_stimuli`.

    Raises
    ------
    StimulusError, MissingFileError
        What was given, what this model takes, and how to write it.
    """
    if sampling_rate is not None:
        raise InvalidParameterError("This model takes no sounds; leave sampling_rate out.")
    return TextStimuli(_FORMS[expected.text or "sentences"](stimulus))


def text_files(places: Iterable[Path | str], recursive: bool = False) -> list[Path]:
    """The one file of a text.

    Raises
    ------
    MissingFileError, StimulusError
        If it is not there, or there are several.
    """
    files = [Path(place).expanduser() for place in places]
    if len(files) != 1:
        raise StimulusError(f"A text is one file, not {len(files):,}. Encode each in a call of its own.")
    if files[0].is_dir() or not files[0].exists():
        raise MissingFileError(f"There is no file {files[0]}." if not files[0].exists() else f"{files[0]} is a folder.")
    return files


def read_texts(files: Sequence[Any]) -> NDArray[Any]:
    """The sentences of a file, as an array of text."""
    return np.array([item for file in files for item in load_sentences(file).items])


def _sentences(stimulus: Any) -> Sentences:
    if isinstance(stimulus, Sentences):
        return stimulus
    _refuse_other(stimulus, "sentences", "Sentences([...])")
    if (file := _file(stimulus, ENDINGS, "sentences")) is not None:
        return load_sentences(file)
    return Sentences(all_strings(stimulus))


def _tr_texts(stimulus: Any) -> TextPerTR:
    if isinstance(stimulus, TextPerTR):
        return stimulus
    _refuse_other(stimulus, "one text for each TR", "TextPerTR([...])")
    if (file := _file(stimulus, ENDINGS, "one text for each TR")) is not None:
        return load_tr_texts(file)
    return TextPerTR(all_strings(stimulus))


def _words(stimulus: Any) -> Words:
    if isinstance(stimulus, Words):
        return stimulus
    if isinstance(stimulus, Mapping):
        return _words_of_map(stimulus)
    if (columns := _columns(stimulus)) is not None:
        return _words_of_columns(columns)
    _refuse_other(stimulus, "words", "Words([...])")
    if (file := _file(stimulus, WORD_ENDINGS, "words")) is not None:
        return load_words(file)
    return Words(all_strings(stimulus))


def _timed_words(stimulus: Any) -> Words:
    found = _words(stimulus)
    if found.onsets is None:
        raise StimulusError(
            f"The {len(found):,} words have no onsets, and this model needs the time of each. Give "
            '{"words": [...], "word_onsets": [...]} in seconds, or a file with them (.TextGrid, .tsv, .json).'
        )
    return found


def _words_of_map(given: Mapping[str, Any]) -> Words:
    unknown = [str(key) for key in given if key not in _KEYS]
    if unknown or "words" not in given:
        wrong = unknown[0] if unknown else "words"
        problem = f"has the key '{wrong}'" if unknown else "has no key 'words'"
        raise StimulusError(
            f"The map of words {problem}.{did_you_mean(wrong, _KEYS) if unknown else ''} Its keys: words, word_onsets "
            "(seconds), and word_durations if you know them."
        )
    return Words(all_strings(given["words"]), given.get("word_onsets"), given.get("word_durations"))


def _columns(stimulus: Any) -> dict[str, Any] | None:
    """The columns of a table of pandas or of an array with fields, by name; None of anything else."""
    names = getattr(getattr(stimulus, "dtype", None), "names", None)
    names = list(stimulus.columns) if names is None and hasattr(stimulus, "columns") else names
    return None if names is None else {str(name): stimulus[name] for name in names}


def _words_of_columns(columns: Mapping[str, Any]) -> Words:
    found = next((name for name in ("word", "words", "text", "trial_type") if name in columns), None)
    if found is None:
        raise StimulusError(f"The table has the columns {listing(columns)}. Call that of the words 'word'.")
    return Words(all_strings(columns[found]), columns.get("onset"), columns.get("duration"))


def _refuse_other(stimulus: Any, wanted: str, how: str) -> None:
    """Raise StimulusError for a text of another form, and for a map."""
    if isinstance(stimulus, (Sentences, Words, TextPerTR, Mapping)):
        raise StimulusError(
            f"This model takes {wanted}, not {type(stimulus).__name__}. Give a list of texts, or "
            f"berg.stimuli.texts.{how}."
        )


def _file(stimulus: Any, endings: Sequence[str], wanted: str) -> Path | None:
    """The file that was given, if one was."""
    only = stimulus[0] if isinstance(stimulus, list) and len(stimulus) == 1 else stimulus
    if isinstance(only, Path):
        return only
    if not isinstance(only, str):
        return None
    is_named = Path(only).suffix.lower() in endings and "\n" not in only
    if is_named and (not isinstance(stimulus, list) or Path(only).is_file()):
        return Path(only)
    if isinstance(stimulus, list):
        return None
    shown = repr(only if len(only) <= 60 else f"{only[:57]}...")
    raise StimulusError(
        f"One text was given, {shown}. This model takes {wanted}: give a list, such as [text], or a file "
        f"({listing(endings)})."
    )


_FORMS: Mapping[str, Callable[[Any], Text]] = {
    "sentences": _sentences,
    "words": _words,
    "timed_words": _timed_words,
    "tr_texts": _tr_texts,
}
