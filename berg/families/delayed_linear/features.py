"""From words in time to delayed rows of volumes, the same in a fit and in its model.

    words with onsets -> features of each word -> volumes -> scaled -> delayed

A feature space is a way of looking at words: how many there are, how long they are, what a language model makes of
them. The columns of one space stand together, delay by delay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from berg.core.card_schema import CardPart
from berg.core.exceptions import InvalidParameterError, MissingExtraError, StimulusError, listing
from berg.features.arranged_texts import ArrangedTexts
from berg.features.in_time import Moments, volume_times
from berg.features.language_network import LanguageNetwork, language_network
from berg.features.time_steps import TimeSteps
from berg.stimuli.text_stimuli import TextStimuli
from berg.stimuli.texts import Words

PACKAGE = "package "
_OF_WORDS = ("word_rate", "word_length")
_PROVIDER = "transformers/"
_TOKENS_AT_ONCE = 4096


class Space(CardPart):
    """One feature space of a card."""

    extractor: str = Field(description="word_rate, word_length, or transformers/NAME of a language model")
    weights: str = Field("", description="of a language model: hub, hub@REVISION, a folder, or  package NAME/FOLDER")
    state: int = Field(-1, description="number of the hidden state; negative ones count from the last")
    context: int = Field(0, ge=0, description="words before each word that the language model sees")


class WordSpaces:
    """The features of words in all spaces of a card.

    Parameters
    ----------
    spaces
        By name.
    """

    def __init__(self, spaces: Mapping[str, Space], device: torch.device) -> None:
        named = [space.extractor for space in spaces.values()]
        unknown = [name for name in named if name not in _OF_WORDS and not name.startswith(_PROVIDER)]
        if unknown:
            raise InvalidParameterError(
                f"features.spaces has the extractors {listing(unknown)}; there are {listing(_OF_WORDS)} and "
                f"{_PROVIDER}NAME."
            )
        self.spaces = dict(spaces)
        self.networks = {
            name: language_network(
                [space.extractor.removeprefix(_PROVIDER)], weights_of(space), [space.state], "float32", device
            )
            for name, space in spaces.items()
            if space.extractor.startswith(_PROVIDER)
        }

    @property
    def widths(self) -> dict[str, int]:
        """How many features each space has."""
        return {name: self.networks[name].width if name in self.networks else 1 for name in self.spaces}

    def features(self, words: Sequence[str]) -> Tensor:
        """Shape (n_words, n_features of all spaces), float32; zeros for words that are blank."""
        return torch.cat([self._of_space(name, words) for name in self.spaces], 1)

    def _of_space(self, name: str, words: Sequence[str]) -> Tensor:
        space, said = self.spaces[name], torch.tensor([[bool(word.strip())] for word in words]).float()
        if space.extractor == "word_rate":
            return said
        if space.extractor == "word_length":
            return torch.tensor([[float(sum(map(str.isalnum, word)))] for word in words])
        return word_states(self.networks[name], words, space.context)


def weights_of(space: Space) -> str:
    """Where the weights of a language model are; those of a package in its folder.

    Raises
    ------
    MissingExtraError
        If the package is not installed.
    """
    if not space.weights.startswith(PACKAGE):
        return space.weights or "hub"
    place, _, stated = space.weights.removeprefix(PACKAGE).partition(" ")
    package, _, folder = place.partition("/")
    found = find_spec(package)
    if found is None or found.origin is None:
        raise MissingExtraError(
            f"The language model of {space.extractor} comes with the Python package {package}, which is not installed. "
            f"pip install {package.replace('_', '-')}"
        )
    return f"{Path(found.origin).parent / folder} {stated}".strip()


def word_states(network: LanguageNetwork, words: Sequence[str], context: int) -> Tensor:
    """The mean hidden state over the tokens of each word, which the network sees behind the words before it.

    Parameters
    ----------
    context
        How many words before it; special tokens of the network stand around the text.

    Returns
    -------
    states
        Shape (n_words, width), float32, on the processor; zeros for blank words.
    """
    said = [number for number, word in enumerate(words) if word.strip()]
    texts = [" ".join(words[i].strip() for i in said[max(0, k - context) : k + 1]) for k in range(len(said))]
    starts = [len(text) - len(words[number].strip()) for text, number in zip(texts, said, strict=True)]
    found = torch.zeros(len(words), network.width)
    places: dict[tuple[str, int], list[int]] = {}
    for number, text, start in zip(said, texts, starts, strict=True):
        places.setdefault((text, start), []).append(number)
    for keys, states in _states_of_texts(network, list(places)):
        for key, state in zip(keys, states, strict=True):
            found[places[key]] = state
    return found


def _states_of_texts(
    network: LanguageNetwork, keys: Sequence[tuple[str, int]]
) -> Iterator[tuple[list[tuple[str, int]], Tensor]]:
    """Texts of one length at once, with the mean state behind the character where the word begins."""
    encoded = network.tokenizer([text for text, _ in keys], return_offsets_mapping=True, verbose=False)
    by_length: dict[int, list[int]] = {}
    for number, ids in enumerate(encoded["input_ids"]):
        by_length.setdefault(len(ids), []).append(number)
    device = next(network.parameters()).device
    for length, numbers in by_length.items():
        if not 0 < length <= network.longest:
            raise StimulusError(f"{keys[numbers[0]][0]!r:.60} has {length:,} tokens; give less context.")
        at_once = max(1, _TOKENS_AT_ONCE // length)
        for start in range(0, len(numbers), at_once):
            some = numbers[start : start + at_once]
            spans = np.array([encoded["offset_mapping"][number] for number in some])  # (n, n_tokens, 2)
            begin = np.array([keys[number][1] for number in some])[:, None]
            of_word = torch.from_numpy((spans[..., 1] > begin) & (spans[..., 1] > spans[..., 0])).to(device)
            with torch.no_grad():
                states = network(torch.tensor([encoded["input_ids"][number] for number in some], device=device)).float()
            weights = of_word.float() / of_word.sum(1, keepdim=True).clamp(min=1)
            yield [keys[number] for number in some], torch.einsum("nt,ntw->nw", weights, states).cpu()


class WordVolumes(nn.Module):
    """Rows of words in time -> delayed features of these volumes, shape (n_rows, n_columns).

    A row is a volume and the hash of the words that it is of; volume k is `tr` seconds times k behind the zero of the
    onsets. What is trimmed is no row: the first row is the first volume that is left.

    Parameters
    ----------
    centre, scale
        Shape (n_features,): mean and standard deviation over training, of ``standardize``; None without.
    after
        Seconds behind the last onset that there are volumes for.
    """

    centre: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        spaces: WordSpaces,
        steps: TimeSteps,
        tr: float,
        after: float = 8.0,
        centre: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.spaces, self.steps, self.tr, self.after = spaces, steps, tr, after
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)
        self.texts = ArrangedTexts()
        self._found: WeakKeyDictionary[TextStimuli, Tensor] = WeakKeyDictionary()

    def arrange(self, stimuli: TextStimuli) -> TextStimuli:
        """The volumes of words, which are known here as long as what is returned is held."""
        text = stimuli.text
        if not isinstance(text, Words) or text.onsets is None:
            raise StimulusError("This model needs words with their onsets.")
        n_volumes = math.ceil((float(text.onsets[-1]) + self.after) / self.tr)
        n_rows = n_volumes - self.steps.n_trimmed
        if n_rows < 1:
            raise StimulusError(
                f"The last word begins at {text.onsets[-1]:g} s, and the model leaves out {self.steps.n_trimmed} "
                f"volumes of {self.tr:g} s: none is left. Onsets are seconds from the first volume."
            )
        times = [round(self.tr * (row + self.steps.trim.start), 6) for row in range(n_rows)]
        return self.texts.add(stimuli, TextStimuli(text, n_rows, times))

    def forward(self, rows: Tensor) -> Tensor:
        numbers, digests = rows.cpu().unbind(1)
        parts = [
            self.delayed_rows(self._of_text(digest), numbers[digests == digest])
            for digest in dict.fromkeys(digests.tolist())
        ]
        device = rows.device if self.centre is None else self.centre.device
        return torch.cat(parts).to(device)

    def _of_text(self, digest: int) -> Tensor:
        stimuli = self.texts.of(digest)
        if stimuli not in self._found:
            assert isinstance(stimuli.text, Words)
            self._found[stimuli] = self.scaled(self.resampled(stimuli.text, len(stimuli) + self.steps.n_trimmed))
        return self._found[stimuli]

    def resampled(self, words: Words, n_volumes: int) -> Tensor:
        """The features of volumes before `standardize`, shape (n_kept, n_features), float32."""
        assert words.onsets is not None
        times = volume_times(0.0, n_volumes * self.tr, self.tr)[:n_volumes]
        values = self.spaces.features(words.words)
        return self.steps.resampled(values, torch.from_numpy(words.onsets.copy()), times, self.tr)

    def scaled(self, values: Tensor) -> Tensor:
        """Less the mean of training, divided by its standard deviation, if the steps say so."""
        if self.centre is None or self.scale is None:
            return values
        return (values - self.centre.cpu()) / self.scale.cpu()

    def delayed_rows(self, values: Tensor, rows: Tensor) -> Tensor:
        """Some rows with their delays, space by space."""
        parts = values.split(list(self.spaces.widths.values()), 1)  # type: ignore[no-untyped-call]
        return torch.cat([self.steps.delayed_rows(part, rows) for part in parts], 1)

    @property
    def columns(self) -> dict[tuple[str, int], slice]:
        """Where each space and delay is among the columns."""
        found, start = {}, 0
        for name, width in self.spaces.widths.items():
            for delay in self.steps.delays:
                found[name, delay] = slice(start, start + width)
                start += width
        return found


def standardised_by(moments: Moments) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, as the model keeps them."""
    return moments.mean.float(), moments.scale.float()
