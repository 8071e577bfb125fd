"""Words with their times, as aligners write them: TextGrids of Praat, and the JSON of two aligners."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from berg.core.exceptions import StimulusError, did_you_mean, listing

_SILENCES = frozenset({"", "sp", "sil", "<sil>", "<eps>", "silence"})
_TIERS = ("words", "word")
# A TextGrid is a row of texts, numbers and flags; its long form has words between them, which mean nothing.
_VALUE = re.compile(
    r'"((?:[^"]|"")*)"|(?<![^\s=])(-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(?![^\s])|(<exists>|<absent>)|(![^\n]*)'
)


@dataclass(frozen=True)
class TimedWord:
    """A word, or silence, between two times in seconds."""

    word: str
    begin: float
    end: float


def is_silence(word: str) -> bool:
    """Whether an interval has no word, by what aligners write then.

    >>> is_silence(" "), is_silence("<eps>"), is_silence("sea")
    (True, True, False)
    """
    return word.strip() in _SILENCES


def words_of_textgrid(text: str, tier: str | None = None) -> list[TimedWord]:
    """The intervals of a tier of a TextGrid, long or short.

    Parameters
    ----------
    tier
        None: that which is called ``words`` or ``word``, or the only one.

    Raises
    ------
    StimulusError
        If it is no TextGrid, is not whole, or the tier is not told.
    """
    values = _values(text)
    if next(values, None) != "ooTextFile" or next(values, None) != "TextGrid":
        raise StimulusError("It is no TextGrid: it does not begin with ooTextFile and TextGrid.")
    try:
        tiers = _tiers(values)
    except (StopIteration, TypeError, ValueError) as error:
        raise StimulusError("It is no whole TextGrid: it ends, or has a text where a number is due.") from error
    return _chosen_tier(tiers, tier)


def _values(text: str) -> Iterator[Any]:
    """The texts, numbers and flags of a TextGrid, in their order."""
    for found in _VALUE.finditer(text):
        quoted, number, flag, _ = found.groups()
        if quoted is not None:
            yield quoted.replace('""', '"')
        elif number is not None:
            yield float(number)
        elif flag is not None:
            yield flag


def _tiers(values: Iterator[Any]) -> dict[str, list[TimedWord]]:
    """Its tiers of intervals by name; tiers of points are passed over."""
    _number(values), _number(values)
    if next(values) != "<exists>":
        return {}
    found = {}
    for _ in range(int(_number(values))):
        kind, name = _string(values), _string(values)
        _number(values), _number(values)
        n_items = int(_number(values))
        if kind == "IntervalTier":
            found[name] = [_interval(values) for _ in range(n_items)]
        else:
            for _ in range(n_items):
                _number(values), _string(values)
    return found


def _interval(values: Iterator[Any]) -> TimedWord:
    begin, end = _number(values), _number(values)
    return TimedWord(_string(values), begin, end)


def _number(values: Iterator[Any]) -> float:
    if not isinstance(value := next(values), float):
        raise TypeError(value)
    return value


def _string(values: Iterator[Any]) -> str:
    if not isinstance(value := next(values), str):
        raise TypeError(value)
    return value


def _chosen_tier(tiers: dict[str, list[TimedWord]], tier: str | None) -> list[TimedWord]:
    if tier is not None and tier not in tiers:
        raise StimulusError(f"It has no tier '{tier}'.{did_you_mean(tier, tiers)} Its tiers: {listing(tiers)}.")
    by_name = [name for name in tiers if name.rpartition(" - ")[2].casefold() in _TIERS]  # "speaker - words"
    chosen = [tier] if tier is not None else by_name or (list(tiers) if len(tiers) == 1 else [])
    if len(chosen) != 1:
        raise StimulusError(
            f"It has the tiers {listing(tiers) or '(none of intervals)'}. Say which holds the words: column=NAME "
            "(--column NAME)."
        )
    return tiers[chosen[0]]


def words_of_json(text: str, tier: str | None = None) -> list[TimedWord]:
    """The words of a JSON of the Montreal Forced Aligner (tiers), or of WhisperX and Whisper (segments).

    Raises
    ------
    StimulusError
        If it is neither, or if a word has no time.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StimulusError(f"It is no JSON: {error}.") from error
    try:
        tiers = dict(_montreal_tiers(content["tiers"])) if isinstance(content.get("tiers"), dict) else None
        words = _whisper_words(content) if tiers is None else []
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StimulusError(
            "It is neither a JSON of the Montreal Forced Aligner (tiers with entries [begin, end, word]) nor one of "
            "WhisperX (segments with words)."
        ) from error
    if tiers is not None:
        return _chosen_tier(tiers, tier)
    _check_times(words)
    return [TimedWord(str(each["word"]), float(each["start"]), float(each.get("end", each["start"]))) for each in words]


def _montreal_tiers(tiers: dict[str, Any]) -> Iterator[tuple[str, list[TimedWord]]]:
    for name, tier in tiers.items():
        entries = tier["entries"]
        if all(len(entry) == 3 for entry in entries):  # of points they have two
            yield name, [TimedWord(str(word), float(begin), float(end)) for begin, end, word in entries]


def _whisper_words(content: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Those of the segments, which are in the order of speech; ``word_segments`` repeats them."""
    segments = content.get("segments", [])
    words = [word for segment in segments for word in segment.get("words", [])] or content["word_segments"]
    if not words or not all(isinstance(word["word"], str) for word in words):
        raise TypeError
    found: list[dict[str, Any]] = list(words)
    return found


def _check_times(words: Sequence[dict[str, Any]]) -> None:
    """Raise StimulusError for words without a time: aligners give none to numbers and signs."""
    without = [(number, each["word"]) for number, each in enumerate(words) if not _is_time(each.get("start"))]
    if without:
        shown = listing((f"{word!r} (number {number:,})" for number, word in without), 3)
        raise StimulusError(
            f"{len(without):,} of {len(words):,} words have no time: {shown}, counted from 0. The aligner gives none "
            "to numbers and signs. Give each a start and an end between its neighbours', or transcribe with numbers "
            "spelt out (the option suppress_numerals of WhisperX)."
        )


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
