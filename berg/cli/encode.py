"""``berg encode``"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from berg.cli.encode_options import EncodeOptions, model_ids, subjects, takes_several
from berg.core.exceptions import CorruptedFileError, InvalidParameterError
from berg.responses.labelled import label_responses
from berg.responses.save import check_ending, check_fits_file, check_not_there, save_responses
from berg.responses.store import count_missing, read_identity

LONG_RUN = 1000  # stimuli; what such a run takes is told before it starts


def encode(
    model_id: str,
    *,
    out: Path,
    options: EncodeOptions | None = None,
    on_damaged: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
    verify_stimuli: bool = False,
    scheduler: str | None = None,
    slurm: str | None = None,
) -> None:
    """Encode pictures, videos, sounds or texts with a model and save the responses.

    Parameters
    ----------
    model_id
        One of those that ``berg list`` shows; for a .zarr store also several, with commas between.
    out
        Where the responses go. NAME.zarr is written while they are computed: any number of stimuli, several
        subjects, and the same command goes on where it was interrupted. Else by its ending: .nc (labelled, opened
        by xarray), .npz, .npy, .mat, .csv, .nii.gz, .func.gii, .dscalar.nii, -epo.fif, -ave.fif.
    on_damaged
        What happens at a stimulus that cannot be read (.zarr only): raise, or skip, which leaves its row empty.
    overwrite
        Begin a .zarr store anew, or replace a file that is there.
    verify_stimuli
        When a .zarr store is continued, compare all stimuli that are encoded already with what was encoded, not
        only some of them.
    scheduler
        Encode with several processes (.zarr only): local:2, two of this machine; local, one per GPU; slurm:8, eight
        in SLURM's jobs; or the address of a dask scheduler, such as tcp://10.0.0.1:8786.
    slurm
        What each job of SLURM asks for: memory=8GB,cores=4,walltime=1:00:00,partition=gpu,gres=gpu:1. Any other word
        is an option of sbatch. Memory and wall time that are not said come from an estimate on this machine.
    """
    given = options or EncodeOptions()
    if out.suffix != ".zarr":
        if on_damaged != "raise" or verify_stimuli or given.compression or scheduler:
            names = "--on-damaged, --verify-stimuli, --compression and --scheduler"
            raise InvalidParameterError(f"{names} are for --out NAME.zarr.")
        if (n_subjects := len(subjects(given.subject))) > 1 and not takes_several(model_id, "subject"):
            raise InvalidParameterError(f"{out} can hold one subject. Give --out NAME.zarr for {n_subjects} of them.")
        if (n_models := len(model_ids(model_id))) > 1:
            raise InvalidParameterError(f"{out} can hold one model. Give --out NAME.zarr for {n_models} of them.")
        check_ending(out)
        check_not_there(out, overwrite)
    if slurm is not None and not str(scheduler).startswith("slurm:"):
        raise InvalidParameterError(
            f"--slurm {slurm} describes jobs of SLURM. Add --scheduler slurm:8, for eight of them."
        )
    how: dict[str, Any] = {"on_damaged": on_damaged, "overwrite": overwrite, "compression": given.compression}
    how["verify_stimuli"] = verify_stimuli
    written = [out]
    if scheduler:
        n_stimuli, files = _on_cluster(model_id, out, given, scheduler, {**how, "slurm": _words(slurm)})
    else:
        n_stimuli, files, written = _here(model_id, out, given, how)
    kinds = {"sounds": given.sounds, "pictures": given.images, "frames": given.video, "videos": given.videos}
    kinds |= {"texts": given.text, "words": given.words}
    kind = next((name for name, asked in kinds.items() if asked), "stimuli") if n_stimuli > 1 else "stimuli"
    if files and len(files) > 1:
        print(f"Order of the stimuli: from {files[0]} to {files[-1]}")
    print(f"Responses of {model_id} to {n_stimuli} {kind}: {', '.join(map(str, written))}")


def _words(slurm: str | None) -> dict[str, str]:
    """Words of the form key=value, with commas between them; texts as they stand, also 1:00:00.

    >>> _words("memory=8GB,walltime=1:00:00,gres=gpu:1")
    {'memory': '8GB', 'walltime': '1:00:00', 'gres': 'gpu:1'}
    """
    found = {}
    for pair in (slurm or "").split(",") if slurm else ():
        key, equals, text = pair.strip().partition("=")
        if not (key and equals and text):
            raise InvalidParameterError(f"--slurm takes key=value,key=value, got '{pair}'. For example memory=8GB")
        found[key] = text
    return found


def _on_cluster(
    model_id: str, out: Path, given: EncodeOptions, scheduler: str, how: dict[str, Any]
) -> tuple[int, list[str] | None]:
    from berg.encoding.cluster import encode_on_cluster

    opened, names = given.opener(model_id)
    print(f"Encoding begins with the first worker of {scheduler}.", flush=True)
    options = {"batch_size": given.batch_size, "stimulus_names": names, "sampling_rate": given.sampling_rate, **how}
    encode_on_cluster(given.recipes(model_id), opened, out, scheduler, **options)
    return len(opened()), names


def _here(
    model_id: str, out: Path, given: EncodeOptions, how: dict[str, Any]
) -> tuple[int, list[str] | None, list[Path]]:
    """How many stimuli were encoded, the names of their files, and the files that were written."""
    with given.models(model_id) as models:
        stimuli, names = given.stimuli(model_id)
        if out.suffix != ".zarr":
            return len(stimuli), names, _to_file(models[0], stimuli, names, out, given)
        _to_store(models, stimuli, names, out, given, **how)
        return len(stimuli), names, [out]


def _to_store(
    models: list[Any], stimuli: Any, names: list[str] | None, out: Path, given: EncodeOptions, **how: Any
) -> None:
    from berg.encoding.stream import encode_to_store

    which = models[0] if len(models) == 1 else models
    options: dict[str, Any] = {"batch_size": given.batch_size, "sampling_rate": given.sampling_rate}
    n_rows = _n_responses(models[0], stimuli)
    begun, n_left = ({}, n_rows) if how["overwrite"] else _begun(out, n_rows)
    if n_left >= LONG_RUN:
        _tell(which, stimuli, out, n_left, begun, compression=how["compression"], **options)
    encode_to_store(which, stimuli, out, stimulus_names=names, **options, **how)


def _n_responses(model: Any, stimuli: Any) -> int:
    """How many there will be: one for each stimulus, of words in time one for each volume."""
    names = model.row_names(stimuli) if hasattr(model, "row_names") else None
    return len(stimuli) if names is None else len(names)


def _begun(out: Path, n_stimuli: int) -> tuple[dict[str, Any], int]:
    """What an earlier run has begun, and how many stimuli are left; 0 for a store that needs to be put right first."""
    from berg.encoding.task_store import check_folder

    check_folder(out)
    if not out.exists():
        return {}, n_stimuli
    with suppress(CorruptedFileError):
        return read_identity(out), count_missing(out)
    return {}, 0


def _tell(
    models: Any, stimuli: Any, out: Path, n_left: int, begun: dict[str, Any], *, batch_size: int | None, **options: Any
) -> None:
    """Print what the rest of a long run takes; raise if it cannot fit."""
    from berg.encoding.estimate import estimate

    options["compression"] = options["compression"] or begun.get("compression") or "none"
    size = batch_size or begun.get("batch_size")
    left = f"{n_left:,} stimuli are left: " if begun else ""
    print(f"{left}{estimate(models, stimuli, out, n_stimuli=n_left, batch_size=size, **options)}", flush=True)


def _to_file(model: Any, stimuli: Any, names: list[str] | None, out: Path, given: EncodeOptions) -> list[Path]:
    from berg.encoding.store_identity import labelling_metadata
    from berg.encoding.task import prepare
    from berg.encoding.task_store import label_nothing
    from berg.models.encoding_model import EncodingModel

    options: dict[str, Any] = given.rate()
    if given.batch_size is not None:
        options["batch_size"] = given.batch_size
    if not isinstance(model, EncodingModel):  # a class written by hand, of which no card tells what it returns
        responses = model.generate_response(stimuli, **options)
        return save_responses(label_responses(responses, model.get_metadata(), names), out)
    task = prepare(model, stimuli, sampling_rate=given.sampling_rate, stimulus_names=names)
    check_fits_file(label_nothing(model, task), out)
    responses = model.generate_response(stimuli, **options)
    return save_responses(label_responses(responses, labelling_metadata(model), task.names), out)
