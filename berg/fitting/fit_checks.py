"""What would end a fit, or make it worth nothing, looked for before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from berg.core import model_registry
from berg.core.exceptions import DatasetError, InvalidParameterError, StorageError
from berg.core.model_card import ModelCard
from berg.datasets.dataset import EncodingDataset
from berg.datasets.recordings import OutputData
from berg.evaluation.card_units import unit_axes
from berg.system.memory import size_words

LEAST_TESTED = 3
"""Stimuli of the test split: over two, every correlation is 1 or -1."""
_N_LOOKED_AT = 64
_N_UNITS = 16_384  # that are read at a time


def check_card(card: ModelCard) -> None:
    """Raise if the card is in no file, or the class of its family cannot be had: the model could not be written."""
    if not card.path.is_file():
        raise InvalidParameterError(f"The card of {card.model_id} is in no file. Write it to one, and give its path.")
    model_registry.bind_card(card)


def check_resampling(permutations: int, bootstrap: int) -> None:
    """Raise if the numbers of resamples are no whole numbers from 0."""
    for name, given in (("permutations", permutations), ("bootstrap", bootstrap)):
        if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < 0:
            raise InvalidParameterError(f"{name} is {given!r}; it must be a whole number from 0. Try {name}=1000.")


def check_test_split(card: ModelCard, dataset: EncodingDataset) -> None:
    """Raise if a model cannot be evaluated on the split ``test``.

    Raises
    ------
    DatasetError
        If there are too few stimuli in it.
    InvalidParameterError
        If the stimuli are frames of a sequence, and the model answers to each by itself.
    """
    axes = [axis for output in card.outputs for axis in output.unit_axes]
    in_time = len(axes) > sum(len(unit_axes(card, output)) for output in card.outputs)
    if dataset.sampling_interval_s is not None and not in_time and "time" not in axes:
        raise InvalidParameterError(
            f"The stimuli of these data are frames of a sequence, whose responses overlap in time; {card.model_id} "
            "answers to each stimulus by itself. Give data with one response per stimulus (without "
            "sampling_interval_s), or a card of a family for sequences, such as prf."
        )
    n_stimuli, least = len(dataset.splits["test"]), 1 if in_time else LEAST_TESTED
    if n_stimuli < least:
        raise DatasetError(
            f"The split 'test' has {n_stimuli:,} stimuli; how well the model does is said by correlations over at "
            f"least {least}. Write  test_fraction: 0.1  into dataset.yaml, or give more stimuli under splits."
        )


def check_responses_vary(dataset: EncodingDataset, split: str) -> None:
    """Raise if no unit of an output varies over the stimuli of a split that has any.

    Of responses that vary, 64 stimuli are read.
    """
    stimuli = dataset.splits[split]
    for name, output in dataset.outputs.items() if len(stimuli) else ():
        if not _vary(output, stimuli):
            raise DatasetError(
                f"No unit of '{name}' varies over the {len(stimuli):,} stimuli of '{split}': the responses are missing "
                "or all the same, and nothing can be fitted to them or compared with them. Look at what was exported, "
                "with  berg dataset check"
            )


def _vary(output: OutputData, stimuli: NDArray[np.intp]) -> bool:
    some = stimuli[np.unique(np.linspace(0, len(stimuli) - 1, _N_LOOKED_AT).astype(int))]
    if len(stimuli) == 1 or _any_varies(output.mean(some)):  # one stimulus is a whole time course
        return True
    starts = range(0, output.n_units, _N_UNITS)
    return any(_any_varies(output.mean(stimuli, slice(start, start + _N_UNITS))) for start in starts)


def _any_varies(responses: NDArray[np.floating]) -> bool:  # type: ignore[type-arg]
    """Whether any column holds two values."""
    is_there = np.isfinite(responses)
    smallest = responses.min(0, initial=np.inf, where=is_there)
    largest = responses.max(0, initial=-np.inf, where=is_there)
    return bool((largest > smallest).any())


def check_room(folder: Path, needed: int, held: int) -> None:
    """Raise if a disk has too little room.

    Parameters
    ----------
    needed
        Bytes of all files that will be written.
    held
        Bytes that an interrupted fit has written already.
    """
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free + held
    if needed > free:
        raise StorageError(
            f"This fit writes {size_words(needed)}, and {folder} has {size_words(free)} free. Make room, give another "
            "BERG directory (--berg-dir), or fit fewer units."
        )
