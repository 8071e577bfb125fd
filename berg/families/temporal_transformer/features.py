"""From one text per volume to what the transformer knows at each volume.

texts -> language model -> mean state of each volume -> with the subject's vector, linear -> transformer over volumes
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor, nn

from berg.features.arranged_texts import ArrangedTexts
from berg.features.language_network import LanguageNetwork, language_network
from berg.features.language_rows import TextOfTRs
from berg.features.linear import linear
from berg.features.temporal_encoder import TemporalEncoder
from berg.features.text_windows import characters_by_tr
from berg.stimuli.text_stimuli import TextStimuli


@dataclass(frozen=True)
class LanguageModel:
    """Which language model it is, and what it computes.

    Attributes
    ----------
    name
        As the hub calls it.
    folder
        With its files.
    n_last
        The last hidden states, of which the mean is taken in the numbers of the language model.
    precision
        What it computes with.
    """

    name: str
    folder: Path
    n_last: int
    precision: str
    device: torch.device

    def network(self) -> LanguageNetwork:
        """The language model, shared with other models on it."""
        states = range(-self.n_last, 0)
        return language_network([self.name], str(self.folder), states, self.precision, self.device)


class LanguageVolumes:
    """The mean state of each volume of the texts that are being encoded, by a language model that subjects share.

    Parameters
    ----------
    keep
        Whether the language model stays in memory between texts.
    """

    def __init__(self, model: LanguageModel, keep: bool) -> None:
        self.model = model
        self._network = model.network() if keep else None
        self.texts = ArrangedTexts()
        self._found: WeakKeyDictionary[TextStimuli, Tensor] = WeakKeyDictionary()

    def of_text(self, stimuli: TextStimuli) -> Tensor:
        """Shape (n_volumes, width), float32; computed once, and kept as long as the text."""
        if stimuli not in self._found:
            with torch.no_grad():
                self._found[stimuli] = characters_by_tr(self._network or self.model.network(), stimuli.text.items)
        return self._found[stimuli]


_in_memory: WeakValueDictionary[tuple[LanguageModel, bool], LanguageVolumes] = WeakValueDictionary()


def language_volumes(model: LanguageModel, keep: bool) -> LanguageVolumes:
    """The volumes by a language model, shared by the subjects of a variant: each text is computed once for all."""
    if (found := _in_memory.get((model, keep))) is None:
        found = _in_memory[model, keep] = LanguageVolumes(model, keep)
    return found


class TextVolumes(nn.Module):
    """Rows of a text -> what the transformer knows at these volumes, shape (n_rows, width).

    A row is a volume and the hash of the text that it is of. The whole text is computed when the first of its volumes
    is asked for, and kept as long as somebody holds the text.

    Parameters
    ----------
    subject
        Shape (width of the subject's vector,).
    matrix, offset
        Of the linear map in front of the transformer: shapes (width, features + subject), (width,).
    """

    subject: Tensor
    matrix: Tensor
    offset: Tensor

    def __init__(
        self, language: LanguageVolumes, subject: Tensor, matrix: Tensor, offset: Tensor, encoder: TemporalEncoder
    ) -> None:
        super().__init__()
        self.language, self.encoder = language, encoder
        for name, values in {"subject": subject, "matrix": matrix, "offset": offset}.items():
            self.register_buffer(name, values)
        self._known: WeakKeyDictionary[TextStimuli, Tensor] = WeakKeyDictionary()

    def arrange(self, stimuli: TextStimuli) -> TextStimuli:
        """The volumes of a text, which are known here as long as what is returned is held."""
        return self.language.texts.add(stimuli, TextOfTRs().arranged(stimuli.text))

    def forward(self, rows: Tensor) -> Tensor:
        volumes, digests = rows.cpu().unbind(1)
        parts = [
            self._of_text(digest)[volumes[digests == digest].to(self.subject.device)]
            for digest in dict.fromkeys(digests.tolist())
        ]
        return torch.cat(parts)

    def _of_text(self, digest: int) -> Tensor:
        stimuli = self.language.texts.of(digest)
        if stimuli not in self._known:
            self._known[stimuli] = self._computed(self.language.of_text(stimuli))
        return self._known[stimuli]

    def _computed(self, features: Tensor) -> Tensor:
        with_subject = torch.cat([features, self.subject.expand(len(features), -1)], 1)
        known: Tensor = self.encoder(linear(with_subject, self.matrix, self.offset)[None])[0]
        return known
