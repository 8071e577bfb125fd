"""What ``berg encode`` and ``berg estimate`` have in common: which models, and which stimuli."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from cyclopts import ArgumentCollection, Group, Parameter

from berg.core.card_schema import StimulusInput, StimulusKind, TextForm
from berg.core.card_yaml import is_misleading
from berg.core.exceptions import InvalidParameterError
from berg.core.model_registry import get_card
from berg.facade import BERG
from berg.stimuli.arrays import open_array, places_of
from berg.stimuli.images import FIT, ResizedPictures
from berg.stimuli.readers import READERS, reader_of
from berg.stimuli.stimulus_files import file_names
from berg.stimuli.text_files import load_sentences, load_tr_texts, load_words
from berg.stimuli.videos import load_video

_RANGE = re.compile("([0-9]+)-([0-9]+)")


def _one_kind(stimuli: ArgumentCollection) -> None:
    """Refuse no stimuli and two kinds of them as wrong usage."""
    if len(stimuli.filter_by(value_set=True)) != 1:
        raise ValueError(
            "Give pictures with --images, a video with --video or several with --videos, sounds with --sounds, "
            "sentences with --text, words with --words or an array with --array: one of the seven."
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
    recursive
        Take what lies in the folders of a folder too.
    video
        A video, whose frames are the stimuli; responses are labelled with their times in seconds. For a model of
        videos it is one stimulus.
    videos
        Folders and video files, each of them one stimulus, for models of videos.
    sounds
        Folders and sounds of one channel and one length, likewise: .wav, and with the extra sound .flac, .mp3, .ogg.
    text
        A file of sentences, or of one text for each TR, as the model takes: .txt with one on each line, .tsv, .csv.
    words
        A file of words, with their times if the model needs them: .TextGrid, .tsv or .csv (word, onset, duration),
        .json of the Montreal Forced Aligner or WhisperX, .txt.
    column
        The column of a table, or the tier of a TextGrid, that holds the text.
    array
        A .npy file, an HDF5 file or a zarr array that holds the stimuli; never read whole.
    dataset
        The name of the array in an HDF5 file or zarr group that has several.
    places
        Some of the array, or of the frames of the video: START:STOP, such as 0:1000.
    sampling_rate
        Of sounds in an array, hertz.
    subject
        The subject, if the model has several; also several of them: 1,3 or 1-8; all, of models that take several at
        once.
    selection
        Which units, as key=value; may be given several times: --selection roi=V1 --selection time=0.1,0.2. Of
        several models, each takes the keys that it has.
    parameter
        Any other parameter of the model, as key=value: --parameter stimulus_width_deg=8.
    size
        Bring all pictures to this many pixels, height and width. Needed if their sizes differ.
    fit
        How pictures that are not square are brought to --size.
    compression
        Of a .zarr store: none, zstd or lz4, which save about a tenth and are read more slowly.
    berg_dir
        The BERG directory. See:  berg where
    device
        auto, cpu, cuda, cuda:1 or mps.
    batch_size
        How many stimuli are computed together.
    """

    images: Files = None
    recursive: Annotated[bool, Parameter(negative="")] = False
    video: Annotated[Path | None, Parameter(group=STIMULI)] = None
    videos: Files = None
    sounds: Files = None
    text: Annotated[Path | None, Parameter(group=STIMULI)] = None
    words: Annotated[Path | None, Parameter(group=STIMULI)] = None
    column: str | None = None
    array: Annotated[Path | None, Parameter(group=STIMULI)] = None
    dataset: str | None = None
    places: str | None = None
    sampling_rate: int | None = None
    subject: str | None = None
    selection: Pair = None
    parameter: Pair = None
    size: int | None = None
    fit: FIT = "center_crop"
    compression: Literal["none", "zstd", "lz4"] | None = None
    berg_dir: Path | None = None
    device: str = "auto"
    batch_size: int | None = None

    @contextmanager
    def models(self, model_id: str) -> Iterator[list[Any]]:
        """The models, each for every subject, loaded; released at the end."""
        berg = BERG(self.berg_dir)
        with ExitStack() as loaded:
            models = []
            for each_id, given in self._asked_for(model_id):
                model = berg.get_encoding_model(each_id, device=self.device, **given)
                self._check_kind(model)
                models.append(loaded.enter_context(model))
            yield models

    def recipes(self, model_id: str) -> list[Any]:
        """The models, each for every subject, as other processes load them."""
        from berg.encoding.cluster import ModelRecipe

        berg_dir = Path(BERG(self.berg_dir).berg_dir).absolute()
        return [
            ModelRecipe(own_id, self.device, given.pop("selection"), given, berg_dir)
            for own_id, given in self._asked_for(model_id)
        ]

    def _asked_for(self, model_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Which models, and what each is made with."""
        selection, parameters = pairs(self.selection, "--selection"), pairs(self.parameter, "--parameter")
        for each_id, selected in _shared_out(model_ids(model_id), selection).items():
            for subject in self._subjects_of(each_id):
                yield each_id, {"selection": selected or None, **parameters, **subject}

    def _subjects_of(self, model_id: str) -> list[dict[str, Any]]:
        """The subject of each model; of a model that takes several at once, all of them together."""
        asked = subjects(self.subject)
        together = len(asked) > 1 and takes_several(model_id, "subject")
        return [{"subject": asked}] if together else [{"subject": each} for each in asked] or [{}]

    def stimuli(self, model_id: str) -> tuple[Any, list[str] | None]:
        """The stimuli, none of them read yet, and the names of their files."""
        opened, names = self.opener(model_id)
        return opened(), names

    def opener(self, model_id: str) -> tuple[Callable[[], Any], list[str] | None]:
        """What opens the stimuli in any process that sees the same files, and the names of their files."""
        if self.words is not None:
            return partial(load_words, self.words.absolute(), self.column), None
        if self.text is not None:
            expected = get_card(model_ids(model_id)[0]).input
            load = load_tr_texts if expected is not None and expected.text == "tr_texts" else load_sentences
            return partial(load, self.text.absolute(), self.column), None
        if self.array is not None:
            return partial(open_array, self.array.absolute(), self.dataset, self.places), None
        if self.video is not None:
            return partial(load_video, self.video.absolute(), self.size, self.fit, places_of(self.places)), None
        given = [path.absolute() for path in self.images or self.videos or self.sounds or []]
        kind: StimulusKind = "image" if self.images else "video" if self.videos else "sound"
        files = reader_of(kind).list_files(given, self.recursive)
        names = file_names(files)
        if self.images and self.size:
            return partial(ResizedPictures, files, self.size, self.fit), names
        return partial(list, files), names

    def rate(self) -> dict[str, int]:
        """The sampling rate, as an option of `generate_response`, if there is one."""
        return {} if self.sampling_rate is None else {"sampling_rate": self.sampling_rate}

    def _check_kind(self, model: Any) -> None:
        """Raise InvalidParameterError if the card says that the model takes another kind of stimulus."""
        expected = getattr(getattr(model, "card", None), "input", None)
        given: dict[str, tuple[StimulusKind, ...]] = {"--images": ("image",), "--video": ("image", "video")}
        given |= {"--videos": ("video",), "--sounds": ("sound",), "--text": ("text",), "--words": ("text",)}
        given["--array"] = tuple(kind for kind in get_args(StimulusKind) if kind != "text")
        used = next(option for option in given if getattr(self, option[2:]) is not None)
        if expected is None or (expected.kind in given[used] and _is_form(expected.text, used)):
            return
        options = [name for name, kinds in given.items() if expected.kind in kinds and _is_form(expected.text, name)]
        raise InvalidParameterError(
            f"{model.get_model_id()} takes {_name_of(expected)}, which are not given with {used}; try "
            f"{' or '.join(options)}."
        )


def _is_form(form: TextForm | None, option: str) -> bool:
    """Whether an option gives texts of this form; of all that is no text, yes."""
    return form is None or (option == "--words") == (form in ("words", "timed_words"))


def _name_of(expected: StimulusInput) -> str:
    forms = {"words": "words", "timed_words": "words with onsets", "tr_texts": "one text for each TR"}
    return forms.get(expected.text or "", READERS[expected.kind].name)


def model_ids(text: str) -> list[str]:
    """The models that were given, one or several.

    >>> model_ids("fmri-nsd-fwrf,eeg-things_eeg_2-vit_b_32")
    ['fmri-nsd-fwrf', 'eeg-things_eeg_2-vit_b_32']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def takes_several(model_id: str, name: str) -> bool:
    """Whether a parameter of a model takes several values at once."""
    parameter = get_card(model_id).parameters.get(name)
    return parameter is not None and parameter.several


def _shared_out(ids: list[str], selection: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The selection of each model: of several models, those keys that it has; one that none has, all get."""
    if len(ids) == 1:
        return {ids[0]: selection}
    keys = {own_id: get_card(own_id).selection_keys for own_id in ids}
    unknown = {key: part for key, part in selection.items() if not any(key in own for own in keys.values())}
    return {
        own_id: {key: part for key, part in selection.items() if key in own} | unknown for own_id, own in keys.items()
    }


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
    """A number, true or false, a list written [a, b] or a,b, or the text itself.

    What YAML would take for something else than it looks like is a text: NO, 010, 1_0, 1:20.

    >>> value("10"), value("0.1,0.2"), value("[NO, 010]"), value("'1'")
    (10, [0.1, 0.2], ['NO', '010'], '1')
    """
    try:
        yaml.safe_load(text)  # refuses tags that build objects
        read = _read(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, LookupError) as error:  # 2001-99-99, !!bool x
        raise InvalidParameterError(f"'{text}' is neither a number nor a list nor a name.") from error
    return [value(part) for part in read.split(",")] if isinstance(read, str) and "," in read else read


def _read(node: Any) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_read(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {_read(key): _read(item) for key, item in node.value}
    kind = "null" if node is None else node.tag.rpartition(":")[2]
    if kind == "timestamp" or (kind != "null" and is_misleading(kind, node.value)):
        return node.value
    return None if node is None else yaml.constructor.SafeConstructor().construct_object(node)
