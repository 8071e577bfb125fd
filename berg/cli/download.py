"""``berg download``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from berg.cli.encode_options import Pair, pairs, value
from berg.cli.json_output import Json, print_json
from berg.facade import BERG
from berg.system.memory import size_words


def download(
    model_id: str,
    *,
    subject: str | None = None,
    selection: Pair = None,
    parameter: Pair = None,
    everything: Annotated[bool, Parameter(name="--all", negative="")] = False,
    dry_run: bool = False,
    json: Json = False,
    source: str | None = None,
    parallel: int = 4,
    berg_dir: Path | None = None,
) -> None:
    """Fetch the files that a model needs, and the network it builds on: those that are not here, verified.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows.
    subject
        The subject, or several: --subject 1,2.
    selection
        What of the model, as key=value: --selection roi=V1.
    parameter
        Any other parameter of the model that its files differ by, as key=value.
    everything
        All subjects and selections that are not given.
    dry_run
        Print the files and their sizes, and fetch nothing.
    json
        Print the files as JSON.
    source
        Where from: s3://bucket, https://host/folder, file:///folder. By default the public bucket.
    parallel
        How many connections.
    berg_dir
        The BERG directory. See:  berg where
    """
    parameters = pairs(parameter, "--parameter") | ({} if subject is None else {"subject": value(subject)})
    chosen = pairs(selection, "--selection") or None
    berg = BERG(berg_dir)
    items = berg.plan_download(model_id, selection=chosen, everything=everything, source=source, **parameters)
    if json:
        print_json([{"file": item.target, "size": item.size, "is_here": item.is_here} for item in items])
    for item in items if not json else ():
        size = "?" if item.size is None else size_words(item.size)
        print(f"{size:>9}  {'here' if item.is_here else '    '}  {item.target}")
    missing = [item for item in items if not item.is_here]
    if not json:
        print(f"{len(missing)} of {len(items)} files to fetch, {size_words(sum(item.size or 0 for item in missing))}")
    if dry_run:
        return
    fetched = berg.download(
        model_id, selection=chosen, everything=everything, source=source, parallel=parallel, **parameters
    )
    if json:
        return
    new = [each for each in fetched if not each.was_here]
    unpinned = [item for item in missing if item.sha256 is None]
    print(f"{len(new)} files fetched, {size_words(sum(each.size for each in new))}; all {len(fetched)} are whole.")
    if unpinned:
        print(
            f"The source publishes no hashes of {len(unpinned)} of them: theirs are recorded now in manifest.tsv, "
            "and what is fetched later must have the same."
        )
