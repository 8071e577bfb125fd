"""What is to be encoded into a store: models, stimuli and their names, and the sizes of batches and blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, StimulusError
from berg.encoding.store_identity import model_identity, stimuli_identity, stimulus_files, stimulus_labels
from berg.models.batch_size import common_batch_size
from berg.models.batches import common_input
from berg.models.encoding_model import EncodingModel
from berg.responses.blocks import CHECKSUMS
from berg.responses.store import Compression
from berg.stimuli.films import as_one_film
from berg.stimuli.open import open_stimuli
from berg.stimuli.readers import Stimuli
from berg.stimuli.stimulus_files import check_links
from berg.system.threads import n_cores

Models = EncodingModel | Sequence[EncodingModel] | Mapping[str, EncodingModel]
OnDamaged = Literal["raise", "skip"]

_SKIPPING = ' Or give on_damaged="skip" (--on-damaged skip), which leaves rows of NaN.'
MAX_BLOCK_BYTES = 2**23  # of all arrays together
MAX_BLOCK_STIMULI = 256  # an interruption loses at most so many, and the block before, which waits to be written


@dataclass(frozen=True)
class Task:
    """What is to be encoded, before anything is on disk.

    Attributes
    ----------
    models
        By the name of their group in the store; a single one by "", the root.
    open_one
        Opens one stimulus alone, by its index; None if they are one array, not files or pictures.
    names
        One per stimulus.
    read_as
        What is done to the files when they are read, if anything.
    """

    models: dict[str, EncodingModel]
    stimuli: Stimuli
    open_one: Callable[[int], Stimuli] | None
    files: list[Path] | None
    names: list[Any]
    batch_size: int
    block_size: int
    on_damaged: OnDamaged
    read_as: str | None = None

    @property
    def in_order(self) -> list[EncodingModel]:
        """The models, in the order of the store."""
        return list(self.models.values())

    @property
    def stimulus_bytes(self) -> int:
        """Of one stimulus in memory."""
        dtype = np.dtype(self.in_order[0].expected_input.dtype or "float32")
        return int(np.prod(self.stimuli.shape)) * dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Of the responses of all models to one stimulus."""
        return 4 * sum(int(np.prod(shape)) for model in self.in_order for shape in model.response_shapes())

    @property
    def n_arrays(self) -> int:
        """Outputs of all models."""
        return sum(len(model.response_shapes()) for model in self.in_order)

    @property
    def is_in_sequence(self) -> bool:
        """Whether each stimulus needs what came before it, as the frames of a film do."""
        return any(model.is_in_sequence for model in self.in_order)

    def n_readers(self, workers: int | None) -> int:
        """How many threads read ahead."""
        return workers or (min(4, n_cores()) if len(self.files or ()) > 1 else 1)

    def identity(self, compression: Compression, begun: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All that must be the same when the store is continued.

        Parameters
        ----------
        begun
            The identity of the store, if there is one; in one without checksums it says more of the stimuli.
        """
        with_content = begun is not None and CHECKSUMS not in begun
        stimuli = (self.stimuli, self.files, self.names, self.read_as)
        return {
            "models": {name or "model": model_identity(model) for name, model in self.models.items()},
            "stimuli": stimuli_identity(*stimuli, with_content=with_content),
            "batch_size": self.batch_size,
            "dtype": "float32",
            "compression": compression,
        }


def prepare(
    models: Models,
    stimulus: Any,
    *,
    sampling_rate: int | None = None,
    batch_size: int | None = None,
    on_damaged: OnDamaged = "raise",
    stimulus_names: Sequence[str] | None = None,
) -> Task:
    """Check models and stimuli, and settle the sizes of batches and blocks.

    Parameters are those of `berg.encoding.stream.encode_to_store`.
    """
    named = name_models(models)
    expected = common_input(list(named.values()))
    stimulus = as_one_film(stimulus, expected)
    files = stimulus_files(stimulus, expected)
    read_as = getattr(stimulus, "read_as", None)
    given = stimulus if read_as is not None else files or stimulus

    if files is not None and on_damaged == "raise":
        check_links(files, _SKIPPING)

    def open_one(index: int) -> Stimuli:
        return open_stimuli([given[index]], expected, sampling_rate, check_files=False)

    stimuli = _open(given, on_damaged, lambda items: open_stimuli(items, expected, sampling_rate, check_files=False))
    is_list = isinstance(given, (list, tuple)) and len(given) == len(stimuli) and expected.kind != "text"
    for model in named.values():
        stimuli = model.arrange(stimuli)
        model.set_stimuli(stimuli)
    size = common_batch_size(list(named.values()), batch_size, len(stimuli), stimuli.shape, expected.dtype)
    given_names = getattr(stimuli, "names", None) if stimulus_names is None else stimulus_names
    names = stimulus_labels(given_names, files, len(stimuli), stimulus)
    task = Task(named, stimuli, open_one if is_list else None, files, names, size, size, on_damaged, read_as)
    return replace(task, block_size=block_size(len(stimuli), size, task.row_bytes))


def _open(stimulus: Any, on_damaged: OnDamaged, opened: Callable[[Any], Stimuli]) -> Stimuli:
    """The stimuli. The first one tells the shape of all; if it is damaged, the next that is not."""
    try:
        return opened(stimulus)
    except StimulusError:
        if on_damaged == "raise" or not isinstance(stimulus, Sequence):
            raise
        for item in stimulus[1:]:
            try:
                opened([item])
            except StimulusError:
                continue
            return _AfterReadable(opened([item, *stimulus]))
        raise


class _AfterReadable:
    """Stimuli whose first ones cannot be read: they were opened with a readable one before them, left out here."""

    def __init__(self, stimuli: Stimuli) -> None:
        self.stimuli, self.shape = stimuli, stimuli.shape

    def __len__(self) -> int:
        return len(self.stimuli) - 1

    def read(self, indices: slice) -> NDArray[Any]:
        return self.stimuli.read(slice(indices.start + 1, indices.stop + 1))


def name_models(models: Models) -> dict[str, EncodingModel]:
    """The models by the names of their groups: those given, or what tells the models apart."""
    if isinstance(models, Mapping):
        named = {str(name): model for name, model in models.items()}
        if bad := [name for name in named if not re.fullmatch(r"[\w][\w.\- ]*", name)]:
            raise InvalidParameterError(f"Names of models are words; '{bad[0]}' is not. For example 'subject-1'.")
        _check_models(models.values())
        return named
    several = list(models) if isinstance(models, Sequence) else [models]
    _check_models(several)
    names = _names_of(several) if len(several) > 1 else [""]
    return dict(zip(names, several, strict=False))


def _names_of(models: Sequence[EncodingModel]) -> list[str]:
    """A name per model, made of the parameters that differ between them; numbers if none does."""
    descriptions = [{"": model.get_model_id(), **model.parameters, **model.selection} for model in models]
    keys = dict.fromkeys(key for description in descriptions for key in description)
    different = [key for key in keys if len({str(description.get(key)) for description in descriptions}) > 1]
    names = [
        "_".join(_word(key, description[key]) for key in different if description.get(key) is not None)
        for description in descriptions
    ]
    if len(set(names)) < len(names) or not all(names):
        return [f"model-{number}" for number in range(1, len(models) + 1)]
    return names


def _word(key: str, value: Any) -> str:
    text = re.sub(r"[^\w.\-]+", "-", str(value)).strip("-")[:60]
    return f"{key}-{text}" if key else text


def _check_models(models: Iterable[Any]) -> None:
    for model in models:
        if not isinstance(model, EncodingModel):
            raise InvalidParameterError(
                f"A store takes models with a card that labels their responses, not {type(model).__name__}. "
                "Encode in pieces with berg.encode, or give the card 'family' and 'outputs'."
            )


def block_size(n_stimuli: int, batch_size: int, row_bytes: int) -> int:
    """Stimuli per block: whole batches, as evenly divided over the blocks as possible."""
    most = min(MAX_BLOCK_STIMULI, MAX_BLOCK_BYTES // max(1, row_bytes))
    n_batches = -(-n_stimuli // batch_size)
    n_blocks = -(-n_batches // max(1, most // batch_size))
    return -(-n_batches // n_blocks) * batch_size


def check_options(on_damaged: str, workers: int | None, compression: str | None) -> None:
    """Raise InvalidParameterError for options that do not exist."""
    if compression not in (None, *get_args(Compression)):
        raise InvalidParameterError(f"compression is '{compression}'. Allowed: {', '.join(get_args(Compression))}.")
    if on_damaged not in get_args(OnDamaged):
        raise InvalidParameterError(f"on_damaged is '{on_damaged}'. Allowed: {', '.join(get_args(OnDamaged))}.")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise InvalidParameterError(f"workers must be a whole number from 1, got {workers!r}.")
