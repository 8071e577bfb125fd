"""``berg remove``"""

from __future__ import annotations

import shlex
from pathlib import Path

from berg.cli.encode_options import Pair, pairs, value
from berg.core import settings
from berg.core.commands import given_berg_dir
from berg.core.exceptions import InvalidParameterError
from berg.core.model_registry import get_card
from berg.facade import BERG
from berg.system.memory import size_words
from berg.weights.inventory import Held, held_files, remove_files
from berg.weights.model_files import common_names


def remove(
    model_id: str,
    *,
    subject: str | None = None,
    selection: Pair = None,
    parameter: Pair = None,
    yes: bool = False,
    berg_dir: Path | None = None,
) -> None:
    """Delete the files of a model: all of them, or those of a subject or a selection.

    Parameters
    ----------
    model_id
        One of those that ``berg status`` shows.
    subject
        Only files of this subject.
    selection
        Only files of this selection, as key=value: --selection roi=V1.
    parameter
        Only files of this value of another parameter of the model, as key=value.
    yes
        Delete without asking; needed where nobody can answer, such as in a script.
    berg_dir
        The BERG directory.
    """
    place = settings.berg_dir(berg_dir).value
    files = held_files(place, model_id)
    parameters = pairs(parameter, "--parameter") | ({} if subject is None else {"subject": value(subject)})
    if parameters or selection:
        chosen = BERG(place).files_of(model_id, selection=pairs(selection, "--selection") or None, **parameters)
        # What all subjects share stays until the whole model goes.
        stems = {Path(name).with_suffix("").as_posix() for name in set(chosen) - set(common_names(get_card(model_id)))}
        files = [file for file in files if Path(file.path).with_suffix("").as_posix() in stems]
    if not files:
        see = shlex.join(["berg", "status", model_id, *given_berg_dir(place)])
        raise InvalidParameterError(f"No such files of {model_id} are in {place}. See:  {see}")
    for file in files:
        print(f"{file.path}  {_size(file)}")
    if not yes and not _agrees(len(files)):
        print("Nothing was deleted. To delete without being asked, add --yes.")
        return
    remove_files(place, files)
    print(f"Deleted {len(files)} files, {size_words(sum(file.size for file in files if file.state != 'missing'))}.")


def _agrees(n_files: int) -> bool:
    try:
        return input(f"Delete these {n_files} files? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError as error:
        print()
        raise InvalidParameterError(
            "Nothing was deleted: nobody is there to answer. To delete without being asked, add --yes."
        ) from error


def _size(file: Held) -> str:
    return "gone already; its entry in the manifest" if file.state == "missing" else size_words(file.size)
