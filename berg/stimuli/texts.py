"""Texts as stimuli: sentences, words with or without times, and one text for each volume of a scan.

Checked when they are made: a text that holds what nobody can see, or words at times out of order, gives numbers that
look like responses and are none.
"""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import StimulusError, StimulusWarning, listing
from berg.core.stacklevel import users_stacklevel

_JOINERS = "\u200c\u200d"  # between letters of Persian, of scripts of India, and within emoji
_INVISIBLE = {"Cc": "control character", "Cf": "invisible character", "Cs": "half a character", "Zl": "line separator"}
_INVISIBLE["Zp"] = "paragraph separator"
_LONG_PAUSE_S = 60.0  # between words at the median: those are milliseconds


@dataclass(frozen=True)
class Sentences:
    """Texts that do not follow each other, each one stimulus.

    Raises
    ------
    StimulusError
        If there is none, or one is empty, no text, or holds invisible characters.

    Examples
    --------
    >>> Sentences(["The dog sleeps.", "A cat."]).items
    ('The dog sleeps.', 'A cat.')
    """

    texts: tuple[str, ...]

    def __init__(self, texts: Iterable[Any]) -> None:
        object.__setattr__(self, "texts", checked_texts(texts, "Sentence"))
        _warn_of_blanks(self.texts, "Sentence")

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def items(self) -> tuple[str, ...]:
        """The texts, in their order."""
        return self.texts


@dataclass(frozen=True, eq=False)
class Words:
    """Words that follow each other, perhaps with the times at which they were spoken or shown.

    Attributes
    ----------
    words
        In their order; also empty ones, which some alignments have for silence.
    onsets
        When each begins, seconds, shape (n_words,), float64, in ascending order; None if it is not known.
    durations
        How long each lasts, seconds, shape (n_words,), NaN where it is not known; None if none is.

    Raises
    ------
    StimulusError
        If there is no word, one is no text or holds invisible characters, or times are missing, of another number, out
        of order, NaN or infinite.

    Examples
    --------
    >>> Words(["so", "it", "began"], [0.1, 0.4, 0.55]).onsets.tolist()
    [0.1, 0.4, 0.55]
    """

    words: tuple[str, ...]
    onsets: NDArray[np.float64] | None = None
    durations: NDArray[np.float64] | None = None

    def __init__(self, words: Iterable[Any], onsets: Any = None, durations: Any = None) -> None:
        found = checked_texts(words, "Word", may_be_blank=True)
        object.__setattr__(self, "words", found)
        object.__setattr__(self, "onsets", None if onsets is None else _checked_onsets(onsets, found))
        object.__setattr__(self, "durations", None if durations is None else _checked_durations(durations, found))
        _warn_of_blanks(found, "Word")

    def __len__(self) -> int:
        return len(self.words)

    @property
    def items(self) -> tuple[str, ...]:
        """The words, in their order."""
        return self.words


@dataclass(frozen=True)
class TextPerTR:
    """What was said during each volume of a scan, one text for each; empty if nothing was.

    Raises
    ------
    StimulusError
        If there is none, all are empty, or one is no text or holds invisible characters (line breaks may be there).

    Examples
    --------
    >>> len(TextPerTR(["so it", "", "began"]))
    3
    """

    strings: tuple[str, ...]

    def __init__(self, strings: Iterable[Any]) -> None:
        found = checked_texts(strings, "Text of TR", may_be_blank=True, may_break=True)
        if not any(text.strip() for text in found):
            raise StimulusError(f"All {len(found):,} texts are empty. Give what was said during each TR.")
        object.__setattr__(self, "strings", found)

    def __len__(self) -> int:
        return len(self.strings)

    @property
    def items(self) -> tuple[str, ...]:
        """The texts, in their order."""
        return self.strings


Text: TypeAlias = Sentences | Words | TextPerTR


def text_digest(text: Text) -> int:
    """A hash of all that a text is, with its times: 63 bits, never 0."""
    digest = hashlib.sha256(type(text).__name__.encode())
    for item in text.items:
        encoded = item.encode("utf-8")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    if isinstance(text, Words):
        for times in (text.onsets, text.durations):
            digest.update(b"none" if times is None else times.tobytes())
    return (int.from_bytes(digest.digest()[:8], "little") >> 1) | 1


def checked_texts(
    texts: Iterable[Any], name: str, *, may_be_blank: bool = False, may_break: bool = False
) -> tuple[str, ...]:
    """The texts, each checked.

    Parameters
    ----------
    name
        What one is called in messages, with a capital.
    may_be_blank
        Whether one may have no letters.
    may_break
        Whether lines may break within one.

    Raises
    ------
    StimulusError
        It names the first that cannot be taken.
    """
    if isinstance(texts, (str, bytes)):
        raise StimulusError(f"One text was given ({_shown(texts)}) instead of a list. Try [text].")
    found = [_plain(item) for item in texts]
    if not found:
        raise StimulusError("No text was given: the list is empty. Give at least one.")
    for number, item in enumerate(found):
        if not isinstance(item, str):
            raise StimulusError(f"{name} {number:,} (from 0) is {_what(item)}, not a text. {_hint_of_type(item)}")
        if not may_be_blank and not item.strip():
            raise StimulusError(f"{name} {number:,} (from 0) is empty. Leave it out, or give its text.")
        if not (item.isascii() and item.isprintable()):
            _check_visible(item, f"{name} {number:,} (from 0)", may_break)
    return tuple(found)


def _check_visible(text: str, where: str, may_break: bool) -> None:
    """Raise StimulusError for the first character that nobody can see, and warn of blanks that are none."""
    for place, character in enumerate(text):
        kind = unicodedata.category(character)
        if kind in _INVISIBLE and not (may_break and character == "\n") and not _joins(text, place):
            what = f"{_INVISIBLE[kind]} U+{ord(character):04X} {unicodedata.name(character, '')}".strip()
            raise StimulusError(
                f"{where} holds the {what} at character {place} (from 0): {_shown(text)}. Language models take it for "
                f"a token of its own. Take it out: text.replace({character!a}, '')"
            )
    if "\u00a0" in text:
        warnings.warn(
            f"{where} holds a no-break space (U+00A0) at character {text.index(chr(0xA0))} (from 0), which language "
            "models do not take for a blank. If it is one: text.replace('\\xa0', ' ')",
            StimulusWarning,
            stacklevel=users_stacklevel(),
        )


def _joins(text: str, place: int) -> bool:
    """Whether a joiner stands behind a letter of a script that has use for it."""
    return text[place] in _JOINERS and place > 0 and not text[place - 1].isascii()


def _checked_onsets(onsets: Any, words: Sequence[str]) -> NDArray[np.float64]:
    times = _checked_times(onsets, words, "onsets")
    if not np.isfinite(times).all():
        number = int(np.flatnonzero(~np.isfinite(times))[0])
        raise StimulusError(
            f"The onset of word {number:,} (from 0), {words[number]!r}, is {times[number]}. Give a time in seconds for "
            "each word, or leave the word out."
        )
    if (falls := np.flatnonzero(np.diff(times) < 0)).size:
        number = int(falls[0]) + 1
        raise StimulusError(
            f"Word {number:,} (from 0), {words[number]!r}, begins at {times[number]:g} s, before the word in front of "
            f"it ({times[number - 1]:g} s). Sort words and onsets: order = np.argsort(onsets, kind='stable')"
        )
    if len(times) > 1 and np.median(np.diff(times)) > _LONG_PAUSE_S:
        warnings.warn(
            f"Half of the words are more than {_LONG_PAUSE_S:g} s apart. Onsets are seconds; of milliseconds give "
            "onsets / 1000.",
            StimulusWarning,
            stacklevel=users_stacklevel(),
        )
    return times


def _checked_durations(durations: Any, words: Sequence[str]) -> NDArray[np.float64]:
    times = _checked_times(durations, words, "durations")
    if (wrong := np.flatnonzero((times < 0) | np.isinf(times))).size:
        number = int(wrong[0])
        raise StimulusError(
            f"Word {number:,} (from 0), {words[number]!r}, lasts {times[number]:g} s. Give seconds from 0, or NaN."
        )
    return times


def _checked_times(times: Any, words: Sequence[str], name: str) -> NDArray[np.float64]:
    try:
        found = np.array(times, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StimulusError(
            f"The {name} of words are not numbers: {error}. Give seconds, one for each word."
        ) from error
    if found.shape != (len(words),):
        raise StimulusError(
            f"There are {len(words):,} words and {name} of shape {found.shape}. Give one for each word, in seconds."
        )
    found.flags.writeable = False
    return found


def _warn_of_blanks(texts: Sequence[str], name: str) -> None:
    """Warn of texts that begin or end with a blank, which a language model takes for part of a token."""
    odd = [number for number, text in enumerate(texts) if text != text.strip() and text.strip()]
    if odd:
        warnings.warn(
            f"{name} {odd[0]:,} (from 0) begins or ends with a blank: {_shown(texts[odd[0]])} ({len(odd):,} of "
            f"{len(texts):,} do). It is taken as it is, and a blank changes the tokens. If it does not belong there: "
            "text.strip()",
            StimulusWarning,
            stacklevel=users_stacklevel(),
        )


def _plain(item: Any) -> Any:
    return str(item) if isinstance(item, np.str_) else item


def _what(item: Any) -> str:
    return "missing (NaN)" if isinstance(item, float) and np.isnan(item) else f"{_shown(item)} ({type(item).__name__})"


def _hint_of_type(item: Any) -> str:
    if isinstance(item, bytes):
        return "Try item.decode('utf-8')."
    if item is None or isinstance(item, float):
        return "Leave it out, or give its text."
    if isinstance(item, (list, tuple)):
        return f"Give one list of texts; for the words of a sentence ' '.join({listing(map(repr, item), 3)})"[:150]
    return "Try str(item)."


def _shown(item: Any) -> str:
    shown = ascii(item) if isinstance(item, str) else repr(item)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def all_strings(items: Any) -> Iterator[str]:
    """The items of a list or of a 1-D array, whatever they are; raises StimulusError for anything else."""
    if hasattr(items, "to_numpy"):  # a column of pandas
        items = items.to_numpy()
    if isinstance(items, np.ndarray):
        if items.ndim != 1:
            raise StimulusError(f"An array of texts has one axis, this one has shape {items.shape}. Try array.ravel().")
        items = items.tolist()
    if isinstance(items, (str, bytes)) or not isinstance(items, Sequence):
        raise StimulusError(f"Texts are a list of str, or an array of them with one axis, not {_what(items)}.")
    yield from items
