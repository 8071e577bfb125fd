"""``berg remove``"""

from __future__ import annotations

from pathlib import Path

from berg.cli.encode_options import Pair, pairs, value
from berg.cli.status import readable
from berg.core import settings
from berg.core.berg import BERG
from berg.core.exceptions import InvalidParameterError
from berg.weights.inventory import held_files, remove_files


def remove(
    model_id: str,
    *,
    subject: str | None = None,
    selection: Pair = None,
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
    yes
        Delete without asking.
    berg_dir
        The BERG directory.
    """
    place = settings.berg_dir(berg_dir).value
    files = [file for file in held_files(place, model_id) if file.state != "missing"]
    parameters = {} if subject is None else {"subject": value(subject)}
    if parameters or selection:
        chosen = BERG(place).files_of(model_id, selection=pairs(selection, "--selection") or None, **parameters)
        stems = {Path(name).with_suffix("").as_posix() for name in chosen}
        files = [file for file in files if Path(file.path).with_suffix("").as_posix() in stems]
    if not files:
        raise InvalidParameterError(f"No such files of {model_id} are in {place}. See:  berg status {model_id}")
    for file in files:
        print(f"{file.path}  {readable(file.size)}")
    if not yes and input(f"Delete these {len(files)} files? [y/N] ").strip().lower() not in ("y", "yes"):
        print("Nothing was deleted.")
        return
    remove_files(place, files)
    print(f"Deleted {len(files)} files, {readable(sum(file.size for file in files))}.")
