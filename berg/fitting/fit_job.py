"""What a family is given to fit, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.model_card import ModelCard
from berg.datasets.dataset import EncodingDataset


@dataclass(frozen=True)
class FitJob:
    """One subject's model to be fitted.

    Attributes
    ----------
    card
        The recipe.
    dataset
        Stimuli, responses and splits of this subject.
    parameters
        The card's, checked, such as ``{"subject": 1}``.
    device
        Where to compute.
    cache
        A folder for what other subjects and later runs can use again, such as features; safe to delete.
    work
        A folder of this fit alone, for what lets it go on after an interruption; deleted when it is done.
    memory
        Bytes that the fit may use at its peak, beyond what the process holds at its start.
    show_progress
        None: a bar where standard error is a terminal.
    berg_dir
        Where the model goes.
    """

    card: ModelCard
    dataset: EncodingDataset
    parameters: Mapping[str, Any]
    device: torch.device
    cache: Path
    work: Path
    memory: int
    show_progress: bool | None = None
    berg_dir: Path = Path()


@dataclass(frozen=True)
class HeldOut:
    """Measured and predicted responses that the fit has not seen, where they are not simply the split ``test``.

    Attributes
    ----------
    measured, predicted
        Shape (n_samples, n_units).
    split
        What they are of, such as ``two-fold over sweeps``.
    in_time
        Samples follow each other in time, and are not independent.
    groups
        Shape (n_samples,), the number of each sample's group; None where there are none.
    """

    measured: NDArray[np.floating[Any]]
    predicted: NDArray[np.floating[Any]]
    split: str
    in_time: bool = False
    groups: NDArray[np.intp] | None = None


@dataclass(frozen=True)
class Fitted:
    """A fitted model.

    Attributes
    ----------
    tensors
        The weights, as the family reads them from safetensors.
    metadata
        What the fit found that belongs into the metadata, nested as there.
    facts
        What was chosen and reached on the way (penalties, explained variance, epochs), for the report: numbers,
        texts and short lists, by name.
    held_out
        By output; where None, the model is evaluated on the dataset's split ``test``.
    sample_stimuli
        Those of the sample, where the dataset's are not what the model takes.
    """

    tensors: Mapping[str, NDArray[Any]]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    held_out: Mapping[str, HeldOut] | None = None
    sample_stimuli: NDArray[Any] | None = None
