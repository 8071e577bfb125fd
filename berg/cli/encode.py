"""``berg encode``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import ArgumentCollection, Group, Parameter

from berg.core.berg import BERG
from berg.core.exceptions import InvalidParameterError
from berg.features.images import FIT, image_files, load_images
from berg.features.sounds import sound_files
from berg.responses.labelled import label_responses
from berg.responses.save import check_ending, save_responses


def _one_kind(stimuli: ArgumentCollection) -> None:
    """Refuse no stimuli and two kinds of them as wrong usage."""
    if len(stimuli.filter_by(value_set=True)) != 1:
        raise ValueError("Give pictures with --images or sounds with --sounds: one of the two.")


STIMULI = Group("Stimuli: one of these", validator=_one_kind)
Files = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="", group=STIMULI)]
Pair = Annotated[list[str] | None, Parameter(negative="")]


def encode(
    model_id: str,
    *,
    images: Files = None,
    sounds: Files = None,
    out: Path,
    subject: str | None = None,
    selection: Pair = None,
    parameter: Pair = None,
    size: int | None = None,
    fit: FIT = "center_crop",
    berg_dir: Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
) -> None:
    """Encode pictures or sounds with a model and save the responses.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows.
    images
        Folders and picture files; a folder stands for its pictures in the order of their names.
    sounds
        Folders and .wav files of one channel and one length, likewise.
    out
        Where the responses go: .nc (labelled, opened by xarray), .npz or .npy (bare arrays).
    subject
        The subject, where the model has several.
    selection
        Which units, as key=value; may be given several times: --selection roi=V1.
    parameter
        Any other parameter of the model, as key=value: --parameter stimulus_width_deg=8.
    size
        Bring all pictures to this many pixels, height and width. Needed where their sizes differ.
    fit
        How pictures that are not square are brought to --size.
    berg_dir
        The BERG directory, for models whose files lie there.
    device
        auto, cpu, cuda, cuda:1 or mps.
    batch_size
        How many pictures or sounds are computed together.
    """
    check_ending(out)
    files = image_files(images) if images else sound_files(sounds or [])
    parameters = pairs(parameter, "--parameter")
    if subject is not None:
        parameters["subject"] = value(subject)
    model = BERG(berg_dir).get_encoding_model(
        model_id, device=device, selection=pairs(selection, "--selection") or None, **parameters
    )
    with model:
        _check_kind(model, bool(sounds))
        stimuli = files if sounds else load_images(files, size=size, fit=fit)
        options = {} if batch_size is None else {"batch_size": batch_size}
        responses = model.generate_response(stimuli, **options)
        labelled = label_responses(responses, model.get_metadata(), [file.name for file in files])
    save_responses(labelled, out)
    print(f"Responses of {model_id} to {len(files)} {'sounds' if sounds else 'pictures'}: {out}")


def _check_kind(model: Any, are_sounds: bool) -> None:
    """Nothing, or an error where the card says that the model takes the other kind of stimuli."""
    expected = getattr(getattr(model, "card", None), "input", None)
    if expected is not None and (expected.sampling_rate is not None) != are_sounds:
        kinds = "sounds; give them with --sounds" if expected.sampling_rate else "no sounds; try --images"
        raise InvalidParameterError(f"{model.get_model_id()} takes {kinds}.")


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
