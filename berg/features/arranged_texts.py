"""The texts that are being encoded, by the hash that stands in each of their rows."""

from __future__ import annotations

from weakref import WeakSet

from berg.core.exceptions import InvalidParameterError, StimulusError
from berg.stimuli.text_stimuli import TextStimuli


class ArrangedTexts:
    """Texts with the rows that a model gives them, known as long as somebody else holds them."""

    def __init__(self) -> None:
        self._held: WeakSet[TextStimuli] = WeakSet()  # of one text there may be several, which end at different times

    def add(self, given: TextStimuli, own: TextStimuli) -> TextStimuli:
        """The rows of a text: a model's own, or those that another model has given it, if they are the same.

        Raises
        ------
        InvalidParameterError
            If another model has given it other rows.
        """
        if given.is_arranged and (len(own) != len(given) or list(own.names) != list(given.names)):
            raise InvalidParameterError(
                f"These models give other rows for a text ({len(given):,} and {len(own):,}); encode with each alone."
            )
        found = given if given.is_arranged else own
        found.is_arranged = True
        self._held.add(found)
        return found

    def of(self, digest: int) -> TextStimuli:
        """The text with this hash.

        Raises
        ------
        StimulusError
            If nobody holds it any more.
        """
        found = next((each for each in self._held if each.digest == digest), None)
        if found is None:
            raise StimulusError("These rows are of no text that this model was given. Encode the text itself.")
        return found
