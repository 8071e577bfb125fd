"""``berg estimate``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from berg.cli.encode_options import EncodeOptions
from berg.cli.json_output import Json, print_json


def estimate(
    model_id: str,
    *,
    out: Path,
    options: EncodeOptions | None = None,
    n_stimuli: int | None = None,
    json: Json = False,
) -> None:
    """Print what encoding would take: time, disk and memory, measured on some batches.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows; also several, with commas between.
    out
        Where the responses would go: NAME.zarr.
    n_stimuli
        How many stimuli there will be, if those given are only some of them.
    json
        Print the figures as JSON.
    """
    from berg.encoding import estimate as measured

    given = options or EncodeOptions()
    with given.models(model_id) as models:
        stimuli, _ = given.stimuli(model_id)
        which = models[0] if len(models) == 1 else models
        how: dict[str, Any] = {"batch_size": given.batch_size, "sampling_rate": given.sampling_rate}
        how["compression"] = given.compression or "none"
        found = measured.estimate(which, stimuli, out, n_stimuli=n_stimuli, **how)
    if json:
        print_json(found)
    else:
        print(found)
