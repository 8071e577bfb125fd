"""Linear readouts on the hidden states of a language model.

    text -> language model, by a rule of what it sees -> hidden states -> (volumes, delays) -> linear regression

The rules are in `berg.features.language_rows` and `berg.features.text_windows`; the weights are read from the published
files, or from the ``.safetensors`` that `convert` makes of them once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from berg.core.card_schema import CardPart
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError
from berg.core.model_card import ModelCard
from berg.core.unit_labels import axis_length
from berg.families.language.published_weights import Container, LanguageWeights, read_weights, tensors_of
from berg.families.language.readout import LanguageReadout
from berg.features.language_network import language_network, stated_place
from berg.features.language_rows import EachSentence, Rule, TextFeatures, TextOfTRs, WordsInWindows, WordsToVolumes
from berg.models.text_model import TextModel

BATCH_SIZES = {"sentences": 32, "words": 64, "timed_words": 256, "tr_texts": 256}


class Rules(CardPart):
    """What the language model sees of a text, and what is done in time; see `berg.features.language_rows`."""

    sees: Literal["each_sentence", "padded_window", "growing_context", "all_trs"]
    n_ids: int = Field(33, ge=1)
    pad_id: int = Field(0, ge=0)
    longest: int = 512
    kept: int = 256
    tr: float = Field(2.0, gt=0)
    after: float = 8.0
    lobes: int = Field(3, ge=1)
    delays: list[int] = [1, 2, 3, 4]


class Features(CardPart):
    """What the card says under ``features``."""

    extractor: str  # transformers/NAME
    earlier_names: list[str] = []  # NAMEs under which the hub has had it
    weights: str
    states: int | list[int]  # numbers of hidden states
    rule: Rules


class Readout(CardPart):
    """What the card says under ``readout``."""

    container: Container


class LanguageModel(TextModel):
    """A linear readout on the hidden states of a language model."""

    @classmethod
    def bind(cls, card: ModelCard) -> type[Self]:
        """The class of one model; how many rows are computed at once depends on what they are."""
        bound = super().bind(card)
        form = card.input.text if card.input is not None else None
        bound.batch_size = BATCH_SIZES[form or "sentences"]
        return bound

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The language model, shared with other models on it, and the readout of the selected units."""
        features = self._text_features()
        path = self.weights_paths(self.berg_dir, self.file_values)[0]
        weights = read_weights(path, self.card.part("readout", Readout).container)
        if len(weights.centre) != features.n_features:
            raise CorruptedFileError(
                f"{path} was fitted to {len(weights.centre):,} features; {features.network.identity.name} gives "
                f"{features.n_features:,}. It is another language model, or the file is damaged."
            )
        return features, self._readout(weights)

    def _text_features(self) -> TextFeatures:
        stated = self.card.part("features", Features)
        provider, _, name = stated.extractor.partition("/")
        if provider != "transformers" or not name:
            raise InvalidParameterError(f"features.extractor is '{stated.extractor}'; write transformers/NAME.")
        states = stated.states if isinstance(stated.states, list) else [stated.states]
        place = stated_place(stated.weights, self.parameters.get("language_model"))
        network = language_network([name, *stated.earlier_names], place, states, self.precision, self.device)
        return shared_features(network, stated.rule)

    def _readout(self, weights: LanguageWeights) -> LanguageReadout:
        output = self.card.outputs[0]
        sizes = [axis_length(self.card, output.name, axis, self.metadata) for axis in output.axes[1:]]
        if math.prod(sizes) != len(weights.intercept) or not self._is_named(weights):
            raise CorruptedFileError(
                f"{weights.path} has {len(weights.intercept):,} units; the metadata have "
                f"{' x '.join(f'{size:,}' for size in sizes)}, or others. Get both files again."
            )
        selected = [self.indices_of(output.name, axis) for axis in output.axes[1:]]
        units = np.ravel_multi_index(np.ix_(*selected), sizes).ravel()
        coefficient, intercept = weights.rows(units), weights.intercept[units]
        if not np.isfinite(coefficient).all():
            raise CorruptedFileError(f"{weights.path} has NaN or infinite values in its regression. Get it again.")
        maps = [torch.from_numpy(array) for array in (coefficient, intercept, weights.centre)]
        return LanguageReadout(maps[0], maps[1], maps[2], tuple(map(len, selected)))

    def _is_named(self, weights: LanguageWeights) -> bool:
        """Whether the units of the weights, if they have names, are in the order of the metadata."""
        return not weights.names or list(weights.names) == [str(name) for name in self.metadata["fmri"]["rois"]]

    def attributes(self) -> dict[str, Any]:
        """What the responses are of, and which language model computed them."""
        found = super().attributes()
        if isinstance(self.features, TextFeatures):
            identity = self.features.network.identity
            found["language_model"] = self.parameters.get("language_model") or identity.name
            found |= {"language_model_revision": identity.revision, "language_model_sha256": identity.sha256}
        return found

    @classmethod
    def read_metadata(cls, berg_dir: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata; with the names of the units in the order of the weights, if those name them."""
        metadata = super().read_metadata(berg_dir, values)
        container = cls.card.part("readout", Readout).container
        if container != "mapping":
            return metadata
        try:
            path = cls.weights_paths(berg_dir, values)[0]
        except MissingFileError:  # `build` says so; metadata can be had without weights
            return metadata
        return _in_order(cls.card.model_id, metadata, path)

    @classmethod
    def converted_tensors(cls, path: Path, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The regression with a row for each unit, scalers folded in."""
        return tensors_of(read_weights(path, cls.card.part("readout", Readout).container))


def _in_order(model_id: str, metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    """Metadata whose regions, and what they have for each, are in the order of the weights."""
    order = read_weights(path, "mapping").names
    try:
        names = [str(name) for name in np.asarray(metadata["fmri"]["rois"]).tolist()]
        places = [names.index(name) for name in order]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptedFileError(
            f"The regions of the metadata of {model_id} are not those of {path}: {', '.join(order)}. They are not "
            "of one publication; get both again."
        ) from error
    fmri, fitted = dict(metadata["fmri"]), dict(metadata.get("encoding_model", {}))
    fmri["rois"] = list(order)
    targets, ceiling = np.asarray(fmri.get("train_targets", ())), np.asarray(fitted.get("noise_ceiling", ()))
    if targets.ndim == 2 and targets.shape[1] == len(names):
        fmri["train_targets"] = targets[:, places]
    if ceiling.shape == (len(names),):
        fitted["noise_ceiling"] = ceiling[places]
    return {**metadata, "fmri": fmri, "encoding_model": fitted}


def _rule(stated: Rules) -> Rule:
    match stated.sees:
        case "each_sentence":
            return EachSentence()
        case "padded_window":
            return WordsInWindows(stated.n_ids, stated.pad_id)
        case "growing_context":
            return WordsToVolumes(
                stated.longest, stated.kept, stated.tr, stated.after, stated.lobes, tuple(stated.delays)
            )
        case "all_trs":
            return TextOfTRs()


def shared_features(network: Any, stated: Rules) -> TextFeatures:
    """The features of a network by a rule, shared between models that ask for the same."""
    key = stated.model_dump_json()
    if (found := network.rules.get(key)) is None:
        found = network.rules[key] = TextFeatures(network, _rule(stated))
    features: TextFeatures = found
    return features
