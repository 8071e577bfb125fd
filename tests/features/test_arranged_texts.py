"""Texts are known by their hashes as long as somebody holds them."""

import pytest

from berg.core.exceptions import StimulusError
from berg.features.arranged_texts import ArrangedTexts
from berg.stimuli.text_stimuli import TextStimuli
from berg.stimuli.texts import Sentences


def arranged(texts):
    given = TextStimuli(Sentences(["it began", "so it ran"]))
    return texts.add(given, given)


def test_a_text_that_is_arranged_twice_is_known_until_the_last_is_gone():
    texts = ArrangedTexts()
    first, second = arranged(texts), arranged(texts)
    digest = first.digest
    assert second.digest == digest
    del second  # such as the one that names the rows
    assert texts.of(digest) is first
    del first
    with pytest.raises(StimulusError, match="of no text that this model was given"):
        texts.of(digest)
