"""Where the files of a model lie inside a BERG directory: the only place that spells the folder names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from berg.core.exceptions import InvalidParameterError

PUBLISHED_NAME = "brain-encoding-response-generator"
WEIGHTS, ACCURACY, METADATA = "encoding_models_weights", "encoding_models_accuracy", "metadata"

_PART = r"[A-Za-z0-9][A-Za-z0-9_.]*"
_PARTS = {
    "modality": re.compile(r"[a-z][a-z0-9_]*"),
    "training dataset": re.compile(_PART),
    "model": re.compile(rf"{_PART}(-{_PART})*"),
}
_MODEL_FILE = re.compile(r"encoding_models/modality-([^-/]+)/train_dataset-([^-/]+)/model-([^/]+)/(.+)")
_FOLDERS = {"fmri-lebel2023-opt_1_3b": "opt_1_3b_ridge"}  # models that were published in a folder of another name
_IN_FOLDERS = {(*name.split("-", 2)[:2], folder): name.split("-", 2)[2] for name, folder in _FOLDERS.items()}
_DOCUMENTS = re.compile(r"(README|LICEN[CS]E|CITATION)(\.[a-z]+)?|manifest\.tsv")


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
            If a part is missing or has a letter that it may not have; it says which part.
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
            / f"model-{_FOLDERS.get(f'{self.modality}-{self.dataset}-{self.model}', self.model)}"
        )


def split_model_path(path: str) -> tuple[str, str] | None:
    """The model that a file of a BERG directory belongs to, and its path in the model's folder.

    None if no model has a file there: in a model's folder lie the three folders of the guide, the card,
    the manifest, and documents such as a licence.

    >>> split_model_path("encoding_models/modality-fmri/train_dataset-nsd/model-fwrf/metadata/a.npy")
    ('fmri-nsd-fwrf', 'metadata/a.npy')
    """
    if not (found := _MODEL_FILE.fullmatch(path)):
        return None
    modality, dataset, folder, inside = found.groups()
    model_id = f"{modality}-{dataset}-{_IN_FOLDERS.get((modality, dataset, folder), folder)}"
    try:
        ModelId.parse(model_id)
    except InvalidParameterError:
        return None
    return (model_id, inside) if _is_of_model(PurePosixPath(inside), model_id) else None


def _is_of_model(path: PurePosixPath, model_id: str) -> bool:
    if len(path.parts) == 1:
        return path.name == f"{model_id}.yaml" or _DOCUMENTS.fullmatch(path.name) is not None
    return path.parts[0] in (WEIGHTS, ACCURACY, METADATA) and not any(part.startswith(".") for part in path.parts)
