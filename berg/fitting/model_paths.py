"""Where the files of a fitted model lie, in the layout of the guide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berg.core.layout import ACCURACY, METADATA, ModelId
from berg.core.model_card import ModelCard
from berg.weights import model_files


@dataclass(frozen=True)
class ModelPaths:
    """Where the files of one subject's model lie."""

    berg_dir: Path
    folder: Path
    weights: Path
    metadata: Path
    suffix: str  # what the files of this subject end with, such as subject-01
    card: Path

    @property
    def work(self) -> Path:
        """What lets an interrupted fit go on."""
        return self.folder / f".fit_{self.suffix}"

    @property
    def ledger(self) -> Path:
        """What the fit in `work` is of; without it, nothing in there counts."""
        return self.work / "job.json"

    @property
    def done(self) -> Path:
        """The ledger of a fit that is written whole, while what it left is removed."""
        return self.folder / f".fit_{self.suffix}.done"

    @property
    def written(self) -> tuple[Path, ...]:
        """All files that a user gets."""
        return (self.weights, self.metadata, self.accuracy, self.sample, self.card, self.report)

    @property
    def accuracy(self) -> Path:
        """The accuracy of each unit."""
        return self.folder / ACCURACY / f"accuracy_{self.suffix}.nc"

    @property
    def sample(self) -> Path:
        """A few stimuli and the responses to them."""
        return self.folder / METADATA / f"sample_{self.suffix}.safetensors"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.folder / ACCURACY / f"report_{self.suffix}.html"


def paths_of(card: ModelCard, berg_dir: Path, values: Mapping[str, Any]) -> ModelPaths:
    """Where the files of a model lie, whether they are there or not."""
    weights, metadata, *_ = (Path(name) for name in model_files.file_names(card, values))
    folder = ModelId.parse(card.model_id).folder(berg_dir)
    return ModelPaths(
        berg_dir=berg_dir,
        folder=folder,
        weights=(folder / weights).with_suffix(model_files.CONVERTED),
        metadata=(folder / metadata).with_suffix(".json"),
        suffix=weights.stem.removeprefix("weights_"),
        card=folder / f"{card.model_id}.yaml",
    )
