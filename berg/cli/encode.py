"""``berg encode``"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from berg.cli.encode_options import EncodeOptions, subjects
from berg.core.exceptions import InvalidParameterError
from berg.responses.labelled import label_responses
from berg.responses.save import check_ending, save_responses

LONG_RUN = 1000  # stimuli; what such a run takes is told before it starts


def encode(
    model_id: str,
    *,
    out: Path,
    options: EncodeOptions | None = None,
    on_damaged: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
) -> None:
    """Encode pictures or sounds with a model and save the responses.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows.
    out
        Where the responses go. NAME.zarr is written while they are computed: any number of stimuli, several
        subjects, and the same command goes on where it was interrupted. Else by its ending: .nc (labelled, opened
        by xarray), .npz, .npy, .mat, .csv, .nii.gz, .func.gii, .dscalar.nii, -epo.fif, -ave.fif.
    on_damaged
        What happens at a stimulus that cannot be read (.zarr only): raise, or skip, which leaves its row empty.
    overwrite
        Begin a .zarr store anew.
    """
    given = options or EncodeOptions()
    if out.suffix != ".zarr":
        if on_damaged != "raise" or overwrite:
            raise InvalidParameterError("--on-damaged and --overwrite are for --out NAME.zarr.")
        if (n_subjects := len(subjects(given.subject))) > 1:
            raise InvalidParameterError(f"{out} can hold one subject. Give --out NAME.zarr for {n_subjects} of them.")
        check_ending(out)
    with given.models(model_id) as models:
        stimuli, names = given.stimuli()
        if out.suffix == ".zarr":
            _to_store(models, stimuli, names, out, given, on_damaged=on_damaged, overwrite=overwrite)
        else:
            _to_file(models[0], stimuli, names, out, given)
    kind = "sounds" if given.sounds else "pictures" if given.images else "stimuli"
    print(f"Responses of {model_id} to {len(stimuli)} {kind}: {out}")


def _to_store(
    models: list[Any], stimuli: Any, names: list[str] | None, out: Path, given: EncodeOptions, **how: Any
) -> None:
    from berg.models.estimate import estimate
    from berg.models.stream import encode_to_store

    which = models[0] if len(models) == 1 else models
    if len(stimuli) >= LONG_RUN and not out.exists():
        print(estimate(which, stimuli, out, batch_size=given.batch_size, sampling_rate=given.sampling_rate), flush=True)
    encode_to_store(
        which, stimuli, out, batch_size=given.batch_size, stimulus_names=names, sampling_rate=given.sampling_rate, **how
    )


def _to_file(model: Any, stimuli: Any, names: list[str] | None, out: Path, given: EncodeOptions) -> None:
    size = {} if given.batch_size is None else {"batch_size": given.batch_size}
    responses = model.generate_response(stimuli, **size, **given.rate())
    save_responses(label_responses(responses, model.get_metadata(), names), out)
