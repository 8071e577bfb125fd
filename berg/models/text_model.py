"""What models of texts have in common: responses whose rows are those of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch

from berg.core.exceptions import StimulusError
from berg.models.encoding_model import EncodingModel
from berg.stimuli.open import open_stimuli
from berg.stimuli.readers import Stimuli
from berg.stimuli.text_stimuli import TextStimuli


class ArrangesTexts(Protocol):
    """What the features of such a model offer beside computing them."""

    def arrange(self, stimuli: TextStimuli) -> TextStimuli:
        """The rows of a text, with their names; they are known as long as what is returned is held."""


class TextModel(EncodingModel):
    """A model of texts, whose features say what the rows of a text are."""

    def arrange(self, stimuli: Stimuli) -> Stimuli:
        """The rows of the responses to a text."""
        features, _ = self.loaded_modules()
        return cast("ArrangesTexts", features).arrange(cast("TextStimuli", stimuli))

    def row_names(self, stimulus: Any) -> Sequence[Any]:
        """What the responses to a text belong to: the texts, or the numbers or times of volumes."""
        return cast("TextStimuli", self.arrange(open_stimuli(stimulus, self.expected_input))).names

    def predict(self, stimulus: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Raise StimulusError: nothing can be differentiated by a text."""
        raise StimulusError(
            "predict takes tensors that responses are differentiated by, and a text is none. Call the model: "
            "model(texts)"
        )
