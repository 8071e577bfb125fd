"""What a family is given to fit, what it gives back, and what its module must offer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from berg.core.model_card import ModelCard
from berg.datasets.dataset import EncodingDataset
from berg.datasets.recordings import OutputData
from berg.fitting.model_paths import ModelPaths, paths_of


@dataclass(frozen=True)
class FitJob:
    """One subject's model to be fitted.

    Attributes
    ----------
    card
        What is fitted, and how.
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
        None: a bar if standard error is a terminal.
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

    @cached_property
    def files(self) -> ModelPaths:
        """Where the files of the model lie."""
        return paths_of(self.card, self.berg_dir, {**self.parameters, **self.parameters.get("selection", {})})

    @property
    def output(self) -> OutputData:
        """The responses of a model with one output."""
        (output,) = self.dataset.outputs.values()
        return output

    def read_stimuli(self, indices: ArrayLike) -> NDArray[Any]:
        """Some stimuli, checked and cast as the model's input says; of videos, the frames that the model takes."""
        expected = self.card.input
        return self.dataset.read_stimuli(indices) if expected is None else self.dataset.read_taken(indices, expected)


@dataclass(frozen=True)
class HeldOut:
    """Measured and predicted responses that the fit has not seen, if they are not simply the split ``test``.

    Attributes
    ----------
    measured, predicted
        Shape (n_samples, n_units).
    split
        What they are of, such as ``two-fold over sweeps``.
    in_time
        Samples follow each other in time, and are not independent.
    groups
        Shape (n_samples,), the number of each sample's group; None if there are none.
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
        By output; if None, the model is evaluated on the dataset's split ``test``.
    sample_stimuli
        Those of the sample, if the dataset's are not what the model takes; of models of texts a list of str, or a map
        of words and onsets.
    """

    tensors: Mapping[str, NDArray[Any]]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    held_out: Mapping[str, HeldOut] | None = None
    sample_stimuli: Any = None


class FittingFamily(Protocol):
    """What the module offers that fits the models of a family.

    A module must have `fit` and `peak_bytes`; the rest is taken as told below if it is not there. `berg.fitting.fit`
    calls `check` once, before anything else; `fit` and the others may take for granted that it passed.

    Attributes
    ----------
    METADATA
        Names of the coordinates that the fit finds itself; none if not there.
    HOLDS_OUT
        Whether what `fit` returns holds ``held_out``, so that no test split is needed; False if not there.
    fit_together
        `fit` for subjects that share something: jobs -> one `Fitted` per job. None, or not there: one after another.
    """

    METADATA: Collection[str]
    HOLDS_OUT: bool
    fit_together: Callable[[Sequence[FitJob]], Sequence[Fitted]] | None

    def fit(self, job: FitJob) -> Fitted:
        """The model of one subject. It may go on with what an interrupted call left in ``job.work``."""
        ...

    def peak_bytes(self, job: FitJob) -> int:
        """Bytes that `fit` needs at its peak, beyond what the process holds before."""
        ...

    def check(self, job: FitJob) -> Collection[str]:
        """Raise if card and data do not belong together. If not there, `check_agreement` is called.

        Returns
        -------
        usual
            Places (``splits``, an output) in which nothing is odd that others would be warned of.
        """
        ...

    def disk_bytes(self, job: FitJob) -> int:
        """Bytes that `fit` writes into ``job.work``, and those of the weights; 0 if not there."""
        ...
