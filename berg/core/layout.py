"""Where the files of a model lie inside a BERG directory: the only place that spells the folder names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from berg.core.exceptions import InvalidParameterError

PUBLISHED_NAME = "brain-encoding-response-generator"
WEIGHTS, ACCURACY, METADATA = "encoding_models_weights", "encoding_models_accuracy", "metadata"

_PART = r"[A-Za-z0-9][A-Za-z0-9_.]*"
_PARTS = {
    "modality": re.compile(r"[a-z][a-z0-9_]*"),
    "training dataset": re.compile(_PART),
    "model": re.compile(rf"{_PART}(-{_PART})*"),
}


@dataclass(frozen=True)
class ModelId:
    """The three parts of a model id, ``{modality}-{dataset}-{model}``.

    >>> ModelId.parse("eeg-things_eeg_2-vit_b_32")
    ModelId(modality='eeg', dataset='things_eeg_2', model='vit_b_32')
    """

    modality: str
    dataset: str
    model: str

    @classmethod
    def parse(cls, model_id: str) -> ModelId:
        """The parts of an id.

        Raises
        ------
        InvalidParameterError
            Where a part is missing or has a letter that it may not have; it says which part.
        """
        parts = str(model_id).split("-", 2)
        if len(parts) < 3:
            raise InvalidParameterError(
                f"'{model_id}' is not a model id: it has {len(parts)} of the 3 parts "
                "{modality}-{dataset}-{model}, for example fmri-nsd-fwrf."
            )
        for (name, pattern), part in zip(_PARTS.items(), parts, strict=True):
            if not pattern.fullmatch(part):
                raise InvalidParameterError(
                    f"'{model_id}' is not a model id: its {name} '{part}' does not match "
                    f"{pattern.pattern}. An id is {{modality}}-{{dataset}}-{{model}}."
                )
        return cls(*parts)

    def folder(self, berg_dir: Path | str) -> Path:
        """The model's folder inside a BERG directory."""
        return (
            Path(berg_dir)
            / "encoding_models"
            / f"modality-{self.modality}"
            / f"train_dataset-{self.dataset}"
            / f"model-{self.model}"
        )
