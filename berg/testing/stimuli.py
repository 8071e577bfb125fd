"""A few small stimuli made from what a card says that its model takes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput, TextForm
from berg.testing.outcome import NotApplicable

N_STIMULI = 4
_SIZES = {"height": 48, "width": 64, "n_frames": 16, "n_samples": 4000}  # 4000 samples: a quarter of a second at 16 kHz
_FRAMES_OF_FILM = 4  # every frame is computed
_SMALL = 8  # any other axis that only has a name


def make_stimuli(expected: StimulusInput, n_stimuli: int = N_STIMULI) -> NDArray[Any]:
    """Random stimuli of the shape, dtype and range of a card's ``input``, each with another contrast.

    Parameters
    ----------
    expected
        Its axes: a number is the size, a name gets a small size.

    Raises
    ------
    NotApplicable
        If the card asks for something other than an array.

    >>> sound = StimulusInput(shape="[batch_size, n_samples]", dtype="float32", range=(-1, 1))
    >>> make_stimuli(sound, 2).shape
    (2, 4000)
    """
    if expected.kind == "text":
        return _texts(expected.text, n_stimuli)
    if "array" not in expected.type:
        raise NotApplicable(f"stimuli of type '{expected.type}' cannot be made up; give check_model(stimulus=...)")
    shape = (n_stimuli, *(_size(size) for size in sizes_of(expected)[1:]))
    if expected.frame_rate:
        shape = (shape[0], _FRAMES_OF_FILM, *shape[2:])
    dtype = dtype_of(expected)
    low, high = expected.range or ((0, 255) if dtype.kind in "iu" else (-1, 1))
    contrast = np.linspace(1, 0.3, n_stimuli).reshape(-1, *[1] * (len(shape) - 1))
    noise = np.random.default_rng(0).uniform(-1, 1, shape) * contrast
    return ((low + high) / 2 + noise * (high - low) / 2).astype(dtype)


def is_in_context(expected: StimulusInput) -> bool:
    """Whether the response to one stimulus depends on others: words, volumes and TRs of a text."""
    return expected.text in ("words", "timed_words", "tr_texts")


def _texts(form: TextForm | None, n_stimuli: int) -> NDArray[Any]:
    """Sentences, or words; with their onsets, if they are needed, as an array with two fields."""
    sentences = ["the old dog slept by the river", "so it began", "where is she now", "rain fell on the dark woods"]
    texts = np.array([sentences[number % len(sentences)] for number in range(n_stimuli)])
    if form == "sentences":
        return texts
    words = np.array([f"{text.split()[number % 3]}" for number, text in enumerate(texts.tolist())])
    if form == "tr_texts":
        return texts
    if form == "words":
        return words
    timed = np.zeros(n_stimuli, [("word", words.dtype), ("onset", np.float64)])
    timed["word"], timed["onset"] = words, 0.5 + 0.75 * np.arange(n_stimuli)
    return timed


def sizes_of(expected: StimulusInput) -> list[int | str]:
    """The axes of a stimulus: a number if the size is fixed, a name if not."""
    if not isinstance(expected.shape, str):
        return expected.shape
    words = re.findall(r"\w+", expected.shape)
    return [int(word) if word.isdecimal() else word for word in words]


def dtype_of(expected: StimulusInput) -> np.dtype[Any]:
    """The dtype that the card states; if it states none, uint8 for pictures and float32 for everything else."""
    if expected.dtype is not None:
        return np.dtype(expected.dtype)
    sizes = sizes_of(expected)
    return np.dtype("uint8" if len(sizes) == 4 and sizes[1] == 3 else "float32")


def _size(size: int | str) -> int:
    return size if isinstance(size, int) else _SIZES.get(size, _SMALL)
