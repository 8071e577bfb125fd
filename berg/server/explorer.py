"""The page with answers that were computed before: files that any web host can serve."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel

from berg.core.exceptions import InvalidParameterError, StimulusError
from berg.core.model_card import ModelCard
from berg.core.model_registry import get_card
from berg.facade import BERG
from berg.server import descriptions
from berg.server.answers import json_answer
from berg.server.app import PAGE
from berg.server.contract import Answer, EncodeRequest
from berg.server.limits import Limits
from berg.server.mesh_answers import fsaverage5_answer
from berg.stimuli.images import open_picture
from berg.stimuli.readers import READERS, Reader, kind_of_file
from berg.stimuli.stimulus_files import stimulus_files
from berg.system.progress import Advance, progress_bar

FOLDER = "explorer"
"""Of the answers, beside the page."""
_MOST_PIXELS = 512  # of a picture that is shown, along its longer side


def write_explorer(
    source: BERG,
    out: Path,
    models: Sequence[str],
    stimuli: Sequence[Path],
    *,
    parameters: Mapping[str, Any] | None = None,
    selection: Mapping[str, Any] | None = None,
    device: str = "auto",
    show_progress: bool | None = None,
) -> None:
    """Write the page, and the responses of models to stimuli that it shows.

    Parameters
    ----------
    out
        A folder that is not there yet, or is empty.
    models
        Ids. Each is given the stimuli of its kind.
    stimuli
        Files and folders: pictures, sounds, videos, texts.
    parameters, selection
        Of the models, as in `BERG.get_encoding_model`: those that a card has go to its model.

    Raises
    ------
    InvalidParameterError
        If the folder holds something, or there is no model.
    StimulusError
        If a model has no stimulus of its kind.
    """
    if out.exists() and any(out.iterdir()):
        raise InvalidParameterError(f"{out} holds files already. Give another folder, or empty it.")
    if not models:
        raise InvalidParameterError("An explorer needs a model. Name one, such as  fmri-szinte2024-prf_css")
    files = _numbered(stimuli)
    wanted = {model_id: _of_kind(get_card(model_id), files) for model_id in models}
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:  # a failure leaves nothing behind
        page = Path(folder) / "page"
        _copy_page(page)
        settings = _Settings(source, dict(parameters or {}), dict(selection or {}), device)
        with progress_bar("explorer", sum(map(len, wanted.values())), "answers", show_progress) as advance:
            kinds = set[str]()
            for model_id, own in wanted.items():
                kinds |= _write_model(page, settings, model_id, own, advance)
        _write_list(source, page, models)
        _write_stimuli(page, {number: file for own in wanted.values() for number, file in own.items()})
        if "cortex" in kinds:
            _write(page / FOLDER / "meshes.json", fsaverage5_answer())
        else:
            shutil.rmtree(page / "vendor")
        if out.exists():
            out.rmdir()
        page.rename(out)


@dataclass(frozen=True)
class _Settings:
    """What all models are asked; each takes what its card has."""

    source: BERG
    parameters: dict[str, Any]
    selection: dict[str, Any]
    device: str

    def asked(self, card: ModelCard) -> EncodeRequest:
        """The request to one of them."""
        units = {name: value for name, value in self.selection.items() if name in card.selection_parameters}
        return EncodeRequest(
            model=card.model_id,
            parameters={name: value for name, value in self.parameters.items() if name in card.own_parameters},
            selection=units or None,
            numbers="base64",
            coordinates="drawn",
        )


def _write_model(
    page: Path, settings: _Settings, model_id: str, files: Mapping[int, Path], advance: Advance
) -> set[str]:
    """Write all answers of a model; returns what is drawn of them."""
    card, kinds = get_card(model_id), set[str]()
    asked = settings.asked(card)
    _write_description(settings.source, page, card, asked.parameters)
    options = asked.parameters
    with settings.source.get_encoding_model(model_id, settings.device, asked.selection, **options) as model:
        for number, file in files.items():
            answer = _answer(settings.source, model, file, asked)
            kinds |= {drawing.kind for drawing in answer.drawings}
            _write(page / FOLDER / "models" / model_id / f"{number}.json", answer)
            advance(1)
    return kinds


def _numbered(stimuli: Sequence[Path]) -> dict[int, Path]:
    endings = {end for reader in READERS.values() if isinstance(reader, Reader) for end in reader.endings}
    files = stimulus_files(stimuli, endings, "file")
    doubled = {file.name for file in files if sum(other.name == file.name for other in files) > 1}
    if doubled:
        raise StimulusError(f"Several stimuli are called {sorted(doubled)[0]}. Give each a name of its own.")
    return dict(enumerate(files))


def _of_kind(card: ModelCard, files: Mapping[int, Path]) -> dict[int, Path]:
    kind = None if card.input is None else card.input.kind
    own = {number: file for number, file in files.items() if kind_of_file(file) == kind}
    if not own:
        raise StimulusError(
            f"{card.model_id} takes {card.stimuli.lower()}, and none was given. Add some: --stimuli FOLDER"
        )
    return own


def _copy_page(out: Path) -> None:
    shutil.copytree(PAGE, out, dirs_exist_ok=True)
    page = out / "index.html"
    page.write_text(page.read_text("utf-8").replace('data-source="server"', 'data-source="files"'), "utf-8")


def _answer(source: BERG, model: Any, file: Path, asked: EncodeRequest) -> Answer:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        labelled = source.encode(model, [file], labelled=True, show_progress=False)
    told = list(dict.fromkeys(str(warning.message) for warning in warned))
    return json_answer(labelled, asked, told)


def _write_description(source: BERG, out: Path, card: ModelCard, settings: Mapping[str, Any]) -> None:
    known = descriptions.accuracy(source.accuracy(card.model_id, **settings))
    described = descriptions.description(card, Path(source.berg_dir), True)
    content = {"description": described.model_dump(), "accuracy": known.model_dump()}
    path = out / FOLDER / "models" / card.model_id / "description.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def _write_list(source: BERG, out: Path, models: Sequence[str]) -> None:
    cards = [get_card(model_id) for model_id in models]
    _write(out / FOLDER / "models.json", descriptions.listed(cards, Path(source.berg_dir), models, Limits()))


def _write_stimuli(out: Path, files: Mapping[int, Path]) -> None:
    """The stimuli as the page shows them: pictures made small, all else as it is."""
    folder = out / FOLDER / "stimuli"
    folder.mkdir(parents=True)
    shown = []
    for number, file in sorted(files.items()):
        kind = kind_of_file(file)
        copy = folder / f"{number}{'.jpg' if kind == 'image' else file.suffix.lower()}"
        if kind == "image":
            _write_thumbnail(file, copy)
        else:
            shutil.copyfile(file, copy)
        shown.append({"number": number, "name": file.name, "kind": kind, "file": f"{FOLDER}/stimuli/{copy.name}"})
    (out / FOLDER / "stimuli.json").write_text(json.dumps({"stimuli": shown}), "utf-8")


def _write_thumbnail(file: Path, copy: Path) -> None:
    with open_picture(file) as picture:
        small = picture.convert("RGB")
        small.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
        small.save(copy, quality=85)


def _write(path: Path, content: BaseModel) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content.model_dump_json(), "utf-8")
