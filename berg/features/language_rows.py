"""Rows of a text -> features, by a language model and a rule of what it sees.

A row of a text is its number and a hash of the text (`berg.stimuli.text_stimuli`). The texts that are being encoded
are known here by their hashes, as long as somebody holds them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from berg.core.exceptions import InvalidParameterError, StimulusError
from berg.features.arranged_texts import ArrangedTexts
from berg.features.in_time import Moments, lanczos, volume_times
from berg.features.language_network import LanguageNetwork
from berg.features.text_windows import characters_by_tr, growing_context, last_tokens, padded_windows
from berg.stimuli.text_stimuli import TextStimuli
from berg.stimuli.texts import Text, TextPerTR, Words

IN_MEMORY_BYTES = 2**28
"""Of the features of a whole text; more lie in a temporary file, from which the system reads what is needed."""
_ROWS = 256


class Rule(Protocol):
    """How the rows of a text become features."""

    def arranged(self, text: Text) -> TextStimuli:
        """The rows of a text, with their names."""

    def width(self, n_states: int) -> int:
        """How many features a row has, of so many numbers of a hidden state."""

    def features(self, network: LanguageNetwork, stimuli: TextStimuli, rows: slice) -> Tensor:
        """Shape (n_rows, n_features), float32."""


@dataclass(frozen=True)
class EachSentence:
    """The hidden state at the last token of each sentence, which stands alone."""

    def arranged(self, text: Text) -> TextStimuli:
        return TextStimuli(text)

    def width(self, n_states: int) -> int:
        return n_states

    def features(self, network: LanguageNetwork, stimuli: TextStimuli, rows: slice) -> Tensor:
        return last_tokens(network, stimuli.text.items[rows])


@dataclass(frozen=True)
class WordsInWindows:
    """The mean over a word's tokens, each of which ends a window of ids; see `padded_windows`."""

    n_ids: int
    pad_id: int

    def arranged(self, text: Text) -> TextStimuli:
        blank = next((number for number, word in enumerate(text.items) if not word.strip()), None)
        if blank is not None:
            raise StimulusError(f"Word {blank:,} (from 0) is empty. Leave it out: this model takes words alone.")
        return TextStimuli(text)

    def width(self, n_states: int) -> int:
        return n_states

    def features(self, network: LanguageNetwork, stimuli: TextStimuli, rows: slice) -> Tensor:
        return padded_windows(network, stimuli.text.items, rows.start, rows.stop, self.n_ids, self.pad_id)


class OfWholeText:
    """Rows that belong to a whole text: all computed when the first is asked for, and kept as long as the text."""

    def __init__(self, compute: Callable[[LanguageNetwork, TextStimuli], Tensor]) -> None:
        self.compute = compute
        self._found: WeakKeyDictionary[TextStimuli, Tensor] = WeakKeyDictionary()

    def of(self, network: LanguageNetwork, stimuli: TextStimuli) -> Tensor:
        """Shape (n_rows, n_features)."""
        if stimuli not in self._found:
            self._found[stimuli] = self.compute(network, stimuli)
        return self._found[stimuli]


class WordsToVolumes:
    """Words in a growing context, brought to volumes, z-scored over them, and delayed.

    A volume begins every `tr` seconds from the onset of the first word, until `after` seconds behind the onset of the
    last one. The vectors of words are summed with the weights of a Lanczos filter, not averaged.

    Parameters
    ----------
    longest, kept
        Words of a window, and those that it begins anew with.
    tr, after
        Seconds.
    lobes
        Of the filter, whose cutoff is 1 / tr.
    delays
        In volumes.
    """

    def __init__(
        self, longest: int, kept: int, tr: float, after: float, lobes: int = 3, delays: Sequence[int] = (1, 2, 3, 4)
    ) -> None:
        if not 0 < kept < longest or min(delays) < 0:
            raise InvalidParameterError(f"A window of {longest} words cannot begin anew with {kept}; delays {delays}.")
        self.longest, self.kept, self.tr, self.after, self.lobes = longest, kept, tr, after, lobes
        self.delays = tuple(delays)
        self.whole = OfWholeText(self._volumes)

    def arranged(self, text: Text) -> TextStimuli:
        times = self._times(text)
        return TextStimuli(text, len(times), np.round(times.numpy(), 6).tolist())

    def width(self, n_states: int) -> int:
        return n_states * len(self.delays)

    def features(self, network: LanguageNetwork, stimuli: TextStimuli, rows: slice) -> Tensor:
        volumes = self.whole.of(network, stimuli)
        found = volumes.new_zeros(rows.stop - rows.start, len(self.delays), volumes.shape[1])
        for index, delay in enumerate(self.delays):
            first = max(rows.start, delay)
            if first < rows.stop:
                found[first - rows.start :, index] = volumes[first - delay : rows.stop - delay]
        return found.flatten(1).to(_device(network))

    def _times(self, text: Text) -> Tensor:
        if not isinstance(text, Words) or text.onsets is None:
            raise StimulusError("This model needs words with their onsets.")
        return volume_times(float(text.onsets[0]), float(text.onsets[-1]) + self.after, self.tr)

    def _volumes(self, network: LanguageNetwork, stimuli: TextStimuli) -> Tensor:
        """Shape (n_volumes, width): resampled and z-scored."""
        text, times = stimuli.text, self._times(stimuli.text)
        assert isinstance(text, Words)
        assert text.onsets is not None
        volumes = empty_rows(len(times), network.width)
        reach = self.lobes * self.tr
        for first, vectors in growing_context(network, text.words, self.longest, self.kept):
            onsets = torch.from_numpy(text.onsets[first : first + len(vectors)].copy())
            begin, end = torch.searchsorted(times, torch.stack([onsets[0] - reach, onsets[-1] + reach])).tolist()
            near = times[begin : end + 1]
            volumes[begin : end + 1] += lanczos(vectors.cpu(), onsets, near, 1 / self.tr, self.lobes)
        moments = Moments.of(volumes)
        for start in range(0, len(volumes), _ROWS):
            rows = volumes[start : start + _ROWS]
            rows.copy_(moments.standardised(rows))
        return volumes


class TextOfTRs:
    """The mean over the tokens of each TR, of the text of all of them; see `characters_by_tr`."""

    def __init__(self) -> None:
        self.whole = OfWholeText(lambda network, stimuli: characters_by_tr(network, stimuli.text.items))

    def arranged(self, text: Text) -> TextStimuli:
        if not isinstance(text, TextPerTR):
            raise StimulusError("This model needs one text for each TR.")
        return TextStimuli(text, names=list(range(len(text))))

    def width(self, n_states: int) -> int:
        return n_states

    def features(self, network: LanguageNetwork, stimuli: TextStimuli, rows: slice) -> Tensor:
        return self.whole.of(network, stimuli)[rows]


class TextFeatures(nn.Module):
    """Rows of texts, shape (batch, 2) -> features, shape (batch, n_features), float32."""

    def __init__(self, network: LanguageNetwork, rule: Rule) -> None:
        super().__init__()
        self.network = network
        self.rule = rule
        self.texts = ArrangedTexts()

    @property
    def n_features(self) -> int:
        """How many a row has."""
        return self.rule.width(self.network.width)

    def arrange(self, stimuli: TextStimuli) -> TextStimuli:
        """The rows of a text, which are known here as long as what is returned is held.

        Raises
        ------
        InvalidParameterError
            If another model has arranged the text in other rows.
        """
        return self.texts.add(stimuli, self.rule.arranged(stimuli.text))

    def forward(self, rows: Tensor) -> Tensor:
        numbers, digests = rows[:, 0].tolist(), set(rows[:, 1].tolist())
        if len(digests) != 1:
            raise StimulusError("These rows are not of one text. Encode each text itself.")
        stimuli = self.texts.of(digests.pop())
        runs = np.split(np.asarray(numbers), np.flatnonzero(np.diff(numbers) != 1) + 1)
        parts = [self.rule.features(self.network, stimuli, slice(int(run[0]), int(run[-1]) + 1)) for run in runs]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def empty_rows(n_rows: int, n_columns: int) -> Tensor:
    """Zeros, float32; of many, in a temporary file that is gone with them."""
    if 4 * n_rows * n_columns <= IN_MEMORY_BYTES:
        return torch.zeros(n_rows, n_columns)
    with tempfile.TemporaryFile() as file:
        file.truncate(4 * n_rows * n_columns)
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(n_rows, n_columns)))


def _device(network: LanguageNetwork) -> torch.device:
    return next(network.parameters()).device
