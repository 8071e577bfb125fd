"""Parcels of the cortex that follow a film by its text: a transformer over volumes on a language model.

    one text per volume -> language model -> mean state of each volume -> transformer over volumes -> parcels

The variants of a model differ in their language model; each brings a configuration and weights, in the form of a hub's
cache (`hub_cache`). What the configuration does not say in a way that is known is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.card_schema import CardPart
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, listing
from berg.core.layout import METADATA, WEIGHTS
from berg.families.temporal_transformer.features import LanguageModel, TextVolumes, language_volumes
from berg.families.temporal_transformer.hub_cache import Snapshot, find_snapshot, repositories
from berg.families.temporal_transformer.published_files import (
    CONFIG,
    WEIGHTS_FILE,
    Configuration,
    PublishedModel,
    read_configuration,
    read_weights,
)
from berg.families.temporal_transformer.readout import Parcels
from berg.features.stated_weights import downloaded_file, hub_url
from berg.features.temporal_encoder import read_encoder
from berg.features.transformers_files import read_json
from berg.models.text_model import TextModel
from berg.transfer.fetch import WantedFile
from berg.transfer.source import parse_source
from berg.weights import model_files

HEMISPHERES = ("lh", "rh")
LANGUAGE_FILES = (CONFIG, "tokenizer.json", "tokenizer_config.json", "model.safetensors")
MAIN = "main"
STATED = "stated"  # the language model in the numbers that the configuration states


class Features(CardPart):
    """What the card says under ``features``."""

    states: int  # hidden states that the default variant averages, for readers of the card
    owner: str  # whose repositories on the hub are variants


class Readout(CardPart):
    """What the card says under ``readout``."""

    steps: list[str]


class TemporalTransformerModel(TextModel):
    """A transformer over volumes on the hidden states of a language model."""

    batch_size = 4096  # volumes of a text that was computed whole

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The language model with the transformer of the subject, and the selected parcels."""
        stated, weights = self.configuration, self._weights()
        number = self._subject_number(stated)
        _check_language(self.language_snapshot.folder, stated, self.variant_snapshot.folder / CONFIG)
        language = LanguageModel(
            stated.extractor_LLM,
            self.language_snapshot.folder,
            stated.extractor_LLM_num_last_hidden_states,
            stated.extractor_LLM_dtype if (chosen := self.parameters["language_precision"]) == STATED else chosen,
            self.device,
        )
        features = TextVolumes(
            language_volumes(language, keep=not self.parameters.get("low_mem_use", False)),
            weights.tensors["subj_emb.weight"][number],
            weights.tensors["inp.weight"],
            weights.tensors["inp.bias"],
            read_encoder(weights.tensors, "encoder.", stated.num_transformer_heads, weights.path),
        )
        parcels = torch.from_numpy(self.indices_of(self.card.outputs[0].name, "parcel"))
        offset = weights.tensors["out_bias.weight"][number][parcels]
        return features, Parcels(weights.tensors["out.weight"][parcels], offset)

    @cached_property
    def variant_snapshot(self) -> Snapshot:
        """The files of the variant."""
        return _snapshot(self.card, self.berg_dir, self.parameters)

    @cached_property
    def configuration(self) -> Configuration:
        """What the variant says of itself."""
        return read_configuration(self.variant_snapshot.folder)

    @cached_property
    def language_snapshot(self) -> Snapshot:
        """The files of the language model that the variant was trained on."""
        folder = model_files.model_folder(self.card, self.berg_dir, self.parameters) / WEIGHTS
        return find_snapshot(self.configuration.extractor_LLM, folder, CONFIG)

    def _weights(self) -> PublishedModel:
        weights = read_weights(self.variant_snapshot.folder / WEIGHTS_FILE, self.configuration)
        n_parcels = len(self.metadata["parcels"]["number"])
        if self.configuration.num_rois != n_parcels:
            raise CorruptedFileError(
                f"{weights.path} has {self.configuration.num_rois:,} parcels, the metadata have {n_parcels:,}. They "
                "are not of one publication; get both again."
            )
        return weights

    def _subject_number(self, stated: Configuration) -> int:
        """The row of the subject: the subjects that took part, in their order."""
        subjects = list(self.card.parameters["subject"].allowed or [])
        if stated.num_subjects != len(subjects):
            raise CorruptedFileError(
                f"{self.variant_snapshot.folder / CONFIG} says {stated.num_subjects} subjects; those of "
                f"{self.card.model_id} are {listing(subjects)}. It is another model."
            )
        return subjects.index(self.parameters["subject"])

    @classmethod
    def weights_paths(cls, berg_dir: str | None, values: Mapping[str, Any], published: bool = False) -> list[Path]:
        """The weights of the variant."""
        return [_snapshot(cls.card, berg_dir, values).folder / WEIGHTS_FILE]

    @classmethod
    def file_names(cls, values: Mapping[str, Any]) -> list[str]:
        """The metadata; variants and language models come from their hub, see `network_files`."""
        return [f"{METADATA}/metadata.npy"]

    @classmethod
    def network_files(cls) -> list[WantedFile]:
        """The files of the default variant and of its language model, where they are looked for."""
        variant = str(cls.card.parameters["model_variant"].default)
        wanted = [(variant, (CONFIG, WEIGHTS_FILE)), (Configuration().extractor_LLM, LANGUAGE_FILES)]
        return [_from_hub(repository, name) for repository, names in wanted for name in names]

    @classmethod
    def read_metadata(cls, berg_dir: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata, with the hemisphere of each parcel, which the order of the parcels tells."""
        metadata = super().read_metadata(berg_dir, values)
        names = cls.card.selection_parameters["roi"].allowed or []
        return {**metadata, "parcels": parcels_of(metadata, names)}

    def attributes(self) -> dict[str, Any]:
        """What the responses are of, with the language model and the revisions of all files."""
        return {
            **super().attributes(),
            "language_model": self.configuration.extractor_LLM,
            "language_model_revision": self.language_snapshot.revision,
            "variant_revision": self.variant_snapshot.revision,
            "tr_s": self.configuration.tr,
        }


def _from_hub(repository: str, name: str) -> WantedFile:
    """A file of the main revision of a repository."""
    base, _, last = hub_url(repository, name, MAIN).rpartition("/")
    return WantedFile(last, source=parse_source(base), folder=downloaded_file(repository, name, MAIN).parent)


def parcels_of(metadata: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The number in the atlas, from 1, and the hemisphere of each parcel, and the parcels of each network.

    Parameters
    ----------
    names
        Of the networks, as the atlas spells them; in the metadata they have small letters.

    Raises
    ------
    CorruptedFileError
        If the metadata do not have a mask over all parcels for each network.
    """
    masks = metadata.get("roi_masks")
    if not isinstance(masks, Mapping) or not masks:
        raise CorruptedFileError("The metadata have no 'roi_masks', the parcels of each network. Get the file again.")
    spelling = {name.lower(): name for name in names}
    networks = {spelling.get(str(name).lower(), str(name)): _mask(name, values) for name, values in masks.items()}
    lengths = {len(mask) for mask in networks.values()}
    if len(lengths) != 1:
        raise CorruptedFileError(f"'roi_masks' of the metadata have {listing(sorted(lengths))} parcels. Get it again.")
    (n_parcels,) = lengths
    of_hemispheres = [n_parcels - n_parcels // 2, n_parcels // 2]  # the order of the atlas
    return {
        "number": np.arange(1, n_parcels + 1),
        "hemisphere": np.repeat(np.array(HEMISPHERES), of_hemispheres),
        "networks": networks,
    }


def _mask(name: Any, values: Any) -> NDArray[np.bool_]:
    mask = np.asarray(values)
    if mask.ndim != 1 or mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise CorruptedFileError(
            f"'roi_masks.{name}' of the metadata is no 0 or 1 for each parcel. Get the file again."
        )
    return mask.astype(bool)


def _snapshot(card: Any, berg_dir: str | None, values: Mapping[str, Any]) -> Snapshot:
    folder = model_files.model_folder(card, berg_dir, values) / WEIGHTS
    variant = str(values.get("model_variant") or card.parameters["model_variant"].default)
    owner = card.part("features", Features).owner
    try:
        return find_snapshot(variant, folder, WEIGHTS_FILE)
    except MissingFileError as error:
        if here := [name for name in repositories(folder, owner) if name != variant]:
            raise InvalidParameterError(
                f"model_variant '{variant}' is not in {folder}, which has {listing(here)}. Name one of these, or get "
                f"it with:  hf download {variant} --cache-dir {folder}"
            ) from error
        raise


def _check_language(folder: Path, stated: Configuration, path: Path) -> None:
    """Raise if the language model is not the one that the configuration speaks of."""
    found = read_json(folder / CONFIG)
    width, n_blocks = found.get("hidden_size"), found.get("num_hidden_layers")
    if width != stated.extractor_LLM_feature_size:
        raise CorruptedFileError(
            f"{path} says that states of {stated.extractor_LLM} have {stated.extractor_LLM_feature_size:,} values; "
            f"those of the model in {folder} have {width}. It is another language model."
        )
    if not isinstance(n_blocks, int) or stated.extractor_LLM_num_last_hidden_states > n_blocks + 1:
        raise CorruptedFileError(
            f"{path} averages {stated.extractor_LLM_num_last_hidden_states} hidden states; the model in {folder} has "
            f"{n_blocks} blocks. It is another language model."
        )
