"""What ``berg encode`` and ``berg estimate`` have in common: which models, and which stimuli."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import ArgumentCollection, Group, Parameter

from berg.core.berg import BERG
from berg.core.exceptions import InvalidParameterError
from berg.features.arrays import open_array
from berg.features.images import FIT, ResizedPictures, image_files
from berg.features.sounds import sound_files

_RANGE = re.compile(r"(\d+)-(\d+)")


def _one_kind(stimuli: ArgumentCollection) -> None:
    """Refuse no stimuli and two kinds of them as wrong usage."""
    if len(stimuli.filter_by(value_set=True)) != 1:
        raise ValueError(
            "Give pictures with --images, sounds with --sounds or an array with --array: one of the three."
        )


STIMULI = Group("Stimuli: one of these", validator=_one_kind)
Files = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="", group=STIMULI)]
Pair = Annotated[list[str] | None, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class EncodeOptions:
    """Which models, and which stimuli.

    Parameters
    ----------
    images
        Folders and picture files; a folder stands for its pictures in the order of their names.
    sounds
        Folders and .wav files of one channel and one length, likewise.
    array
        A .npy file, an HDF5 file or a zarr array that holds the stimuli; never read whole.
    dataset
        The name of the array in an HDF5 file or zarr group that has several.
    places
        Some of the array: START:STOP, such as 0:1000.
    sampling_rate
        Of sounds in an array, hertz.
    subject
        The subject, where the model has several; also several of them: 1,3 or 1-8.
    selection
        Which units, as key=value; may be given several times: --selection roi=V1.
    parameter
        Any other parameter of the model, as key=value: --parameter stimulus_width_deg=8.
    size
        Bring all pictures to this many pixels, height and width. Needed where their sizes differ.
    fit
        How pictures that are not square are brought to --size.
    berg_dir
        The BERG directory. See:  berg where
    device
        auto, cpu, cuda, cuda:1 or mps.
    batch_size
        How many stimuli are computed together.
    """

    images: Files = None
    sounds: Files = None
    array: Annotated[Path | None, Parameter(group=STIMULI)] = None
    dataset: str | None = None
    places: str | None = None
    sampling_rate: int | None = None
    subject: str | None = None
    selection: Pair = None
    parameter: Pair = None
    size: int | None = None
    fit: FIT = "center_crop"
    berg_dir: Path | None = None
    device: str = "auto"
    batch_size: int | None = None

    @contextmanager
    def models(self, model_id: str) -> Iterator[list[Any]]:
        """The models, one per subject, loaded; released at the end."""
        berg, selection = BERG(self.berg_dir), pairs(self.selection, "--selection") or None
        parameters = pairs(self.parameter, "--parameter")
        with ExitStack() as loaded:
            models = []
            for own in [{"subject": each} for each in subjects(self.subject)] or [{}]:
                model = berg.get_encoding_model(model_id, device=self.device, selection=selection, **parameters, **own)
                self._check_kind(model)
                models.append(loaded.enter_context(model))
            yield models

    def stimuli(self) -> tuple[Any, list[str] | None]:
        """The stimuli, none of them read yet, and the names of their files."""
        if self.array is not None:
            return open_array(self.array, self.dataset, self.places), None
        files = image_files(self.images) if self.images else sound_files(self.sounds or [])
        names = [file.name for file in files]
        return (ResizedPictures(files, self.size, self.fit) if self.images and self.size else files), names

    def rate(self) -> dict[str, int]:
        """The sampling rate, as an option of `generate_response`, where there is one."""
        return {} if self.sampling_rate is None else {"sampling_rate": self.sampling_rate}

    def _check_kind(self, model: Any) -> None:
        """Nothing, or an error where the card says that the model takes the other kind of stimuli."""
        expected = getattr(getattr(model, "card", None), "input", None)
        if expected is None or self.array is not None or (expected.sampling_rate is not None) == bool(self.sounds):
            return
        kinds = "sounds; give them with --sounds" if expected.sampling_rate else "no sounds; try --images"
        raise InvalidParameterError(f"{model.get_model_id()} takes {kinds}.")


def subjects(text: str | None) -> list[Any]:
    """The subjects that were given: none, one, or several.

    >>> subjects("1-3"), subjects("2,5"), subjects("7"), subjects(None)
    ([1, 2, 3], [2, 5], [7], [])
    """
    if text is None:
        return []
    if ends := _RANGE.fullmatch(text):
        return list(range(int(ends[1]), int(ends[2]) + 1))
    found = value(text)
    return found if isinstance(found, list) else [found]


def pairs(given: list[str] | None, option: str) -> dict[str, Any]:
    """What was given as key=value."""
    found = {}
    for pair in given or []:
        key, equals, text = pair.partition("=")
        if not equals:
            raise InvalidParameterError(f"{option} takes key=value, got '{pair}'. For example {option} roi=V1")
        found[key] = value(text)
    return found


def value(text: str) -> Any:
    """A number, a list written [a, b] or a,b, or the text itself."""
    try:
        read = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError) as error:  # 2001-99-99, !!bool x
        raise InvalidParameterError(f"'{text}' is neither a number nor a list nor a name.") from error
    return [value(part) for part in read.split(",")] if isinstance(read, str) and "," in read else read
