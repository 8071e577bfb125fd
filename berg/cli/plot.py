"""``berg plot``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, did_you_mean, listing

if TYPE_CHECKING:
    from berg.plotting.meshes import Meshes
    from berg.responses.labelled import Labelled

Files = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")]
Names = Annotated[list[str] | None, Parameter(negative="")]
Figure = Literal["surface", "flatmap", "joint", "topomap", "time_course", "visual_field", "volume", "roi_bars", "rate"]


def plot(
    responses: Path,
    *,
    stimulus: Names = None,
    minus: Names = None,
    out: Path | None = None,
    figure: Figure | None = None,
    group: str | None = None,
    sounds: Files = None,
    mesh: Files = None,
    flat: Files = None,
    sulci: Files = None,
) -> None:
    """Draw responses as their labels say: on the cortex, on the head, in the visual field, in time, by region.

    Parameters
    ----------
    responses
        A .nc file or a .zarr store that ``berg encode`` wrote.
    stimulus
        The stimulus to draw: its name, with or without ending, or a pattern for the mean of several, such as
        'face*'. May be given several times. By default the mean over all.
    minus
        Likewise: the mean response to these is subtracted.
    out
        The figure, .png, .svg or .pdf; by default the name of the responses with .png, in the current folder.
    figure
        Another figure than the labels ask for.
    group
        Which of several models or subjects.
    sounds
        Folders and sound files: the sound of the stimulus is drawn above its response.
    mesh
        The surface of vertices that are not on fsaverage, such as fsLR: two .surf.gii files to draw from the sides
        (inflated), of the left hemisphere and of the right.
    flat
        Likewise its flat maps.
    sulci
        Likewise two .shape.gii files with the depth of the sulci.
    """
    from berg.plotting.figures import draw
    from berg.plotting.page import check_figure_file, save

    target = out or Path(f"{responses.name.rpartition('.')[0] or responses.name}.png")
    check_figure_file(target)
    labelled = open_labelled(responses, group)
    options: dict[str, Any] = {}
    if sounds:
        figure = figure or "rate"
        options["sound"] = _sound(sounds, stimulus, labelled)
    if mesh or flat or sulci:
        options["mesh"] = _meshes(mesh, flat, sulci)
    print(f"Figure: {save(draw(labelled, stimulus, minus, figure=figure, **options), target)}")


def _meshes(mesh: list[Path] | None, flat: list[Path] | None, sulci: list[Path] | None) -> Meshes:
    """Both hemispheres, of files that were given as left and right."""
    from berg.plotting.meshes import HEMISPHERES, read_mesh

    if mesh is None:
        raise InvalidParameterError("--flat and --sulci are of a surface. Give that too:  --mesh LEFT RIGHT")
    for option, files in (("--mesh", mesh), ("--flat", flat), ("--sulci", sulci)):
        if files is not None and len(files) != len(HEMISPHERES):
            raise InvalidParameterError(
                f"{option} takes two files, of the left and of the right hemisphere, got {len(files)}:  {option} LEFT "
                "RIGHT"
            )
    nothing = [None] * len(HEMISPHERES)
    both = zip(HEMISPHERES, mesh, flat or nothing, sulci or nothing, strict=True)
    return {name: read_mesh(name, inflated, on_map, depth) for name, inflated, on_map, depth in both}


def open_labelled(path: Path, group: str | None) -> Labelled:
    import xarray as xr

    if not path.exists():
        raise MissingFileError(
            f"There is no file {path}. Write responses with:  berg encode MODEL --images FOLDER --out {path.name}"
        )
    if path.suffix == ".zarr":
        from berg.responses.store import open_responses

        labelled = open_responses(path)
    elif path.suffix == ".nc":
        try:
            labelled = xr.open_datatree(path, engine="h5netcdf")
        except (OSError, ValueError, KeyError) as error:
            raise CorruptedFileError(f"{path} is no NetCDF file of responses that can be read: {error}") from error
    else:
        raise InvalidParameterError(
            f"{path.name} does not keep the labels that say what to draw. Give a .nc file or a .zarr store."
        )
    return _one_model(labelled, group, path)


def _one_model(labelled: Labelled, group: str | None, path: Path) -> Labelled:
    import xarray as xr

    from berg.responses.subjects import of_subject

    if isinstance(labelled, xr.Dataset) or labelled.data_vars:
        one = labelled if isinstance(labelled, xr.Dataset) else labelled.to_dataset()
        return one if group is None else of_subject(one, group)
    if group is not None:
        if group not in labelled.children:
            names = list(labelled.children)
            raise InvalidParameterError(
                f"{path.name} has no group '{group}'.{did_you_mean(group, names)} Its groups: {listing(names)}."
            )
        own = labelled[group]
        assert isinstance(own, xr.DataTree)
        return own.to_dataset() if own.data_vars else xr.DataTree(own.to_dataset(), dict(own.children))
    if any(node.children for node in labelled.children.values()) or _are_models(labelled):
        raise InvalidParameterError(
            f"{path.name} has responses of several models or subjects. Choose one:  --group "
            f"{next(iter(labelled.children))}   All: {listing(labelled.children)}."
        )
    return labelled


def _are_models(labelled: Any) -> bool:
    """Whether the groups are models or subjects, not outputs of one model: these are called as their variables."""
    return any(name not in node.data_vars for name, node in labelled.children.items())


def _sound(places: Sequence[Path], stimulus: list[str] | None, labelled: Labelled) -> tuple[Any, int]:
    """The sound of the one stimulus that is drawn."""
    from berg.plotting.shown import find_stimuli
    from berg.responses.formats import stimulus_names
    from berg.stimuli.sounds import read_sound, sound_files
    from berg.stimuli.stimulus_files import file_names

    names = stimulus_names(labelled)
    chosen = find_stimuli(names, stimulus)
    if len(chosen) != 1:
        raise InvalidParameterError(
            f"A sound is drawn above the response to it, and these are {len(chosen)} stimuli. Choose one:  --stimulus "
            f"{names[0]}"
        )
    files = sound_files(places)
    known = dict(zip(file_names(files), files, strict=True))
    name = names[int(chosen[0])]
    if name not in known:
        raise InvalidParameterError(f"None of these sounds is called '{name}', as the stimulus is: {listing(known)}.")
    return read_sound(known[name])
