"""``berg experiment``: experiments of a file of parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from berg.core.card_yaml import read_card_yaml
from berg.core.exceptions import InvalidParameterError, MissingFileError, did_you_mean, listing

if TYPE_CHECKING:
    import xarray as xr

EXPERIMENTS: dict[str, str] = {
    "attribute": "attribute",
    "cka": "cka",
    "commonality": "commonality",
    "flag": "flag",
    "fusion": "fusion",
    "in-vivo": "in_vivo_design",
    "in-vivo-compare": "compare",
    "in-vivo-power": "in_vivo_power",
    "localise": "localise",
    "map": "map_receptive_fields",
    "matched-sets": "matched_sets",
    "more-like": "similar_pictures",
    "optimise": "optimise",
    "partition": "partition",
    "rdms": "rdms",
    "rnc": "univariate_control",
    "rnc-multivariate": "multivariate_control",
    "rsa": "rsa",
    "select": "driving_pictures",
    "tuning": "tuning",
}
"""Name on the command line -> function of `berg.experiments`, which returns a result."""


def experiment(
    name: str,
    parameters: Path,
    *,
    out: Path | None = None,
    figure: Path | None = None,
    berg_dir: Path | None = None,
    device: str = "auto",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Run an in silico experiment, and write its result and its figure.

    Parameters
    ----------
    name
        Which experiment; a wrong name prints all of them.
    parameters
        A YAML file with the arguments of the function, such as  seed: 1. Where it takes responses, write
        {responses: FILE.nc} or a .zarr store, with roi: V1 for a part; where it takes a model,
        {model: ID, subject: 1, selection: {roi: V1}}; where it takes stimuli, {stimuli: FOLDER}; where it takes
        features, {array: FILE.npy}; where it takes the result of another experiment, {result: FILE.nc}.
    out
        The result, .nc; by default the name of the parameters with .nc, in the current folder.
    figure
        The figure, .png, .svg or .pdf; by default the name of the result with .png.
    berg_dir
        Where models lie. See:  berg where
    device
        auto, cpu, cuda, cuda:1 or mps.
    overwrite
        Replace files that are there.
    """
    from berg.experiments.result import draw, save
    from berg.plotting.page import check_figure_file
    from berg.plotting.page import save as save_figure

    function = _function(name)
    arguments = _arguments(function, name, parameters, berg_dir, device)
    target = out or Path(f"{parameters.stem}.nc")
    picture = figure or target.with_suffix(".png")
    check_figure_file(picture)
    if target.exists() and not overwrite:
        raise InvalidParameterError(f"{target} is there. Give another name with --out, or --overwrite.")
    result = function(**arguments)
    if "summary" in result.attrs:
        print(result.attrs["summary"])
    print(f"Result: {save(result, target, overwrite)}")
    print(f"Figure: {save_figure(draw(result), picture)}")


def _function(name: str) -> Callable[..., xr.Dataset]:
    from berg import experiments

    if name not in EXPERIMENTS:
        raise InvalidParameterError(
            f"There is no experiment '{name}'.{did_you_mean(name, EXPERIMENTS)} There are: {listing(EXPERIMENTS)}."
        )
    found: Callable[..., xr.Dataset] = getattr(experiments, EXPERIMENTS[name])
    return found


def _arguments(
    function: Callable[..., Any], name: str, path: Path, berg_dir: Path | None, device: str
) -> dict[str, Any]:
    """The arguments of the function, with responses, models and stimuli in place of what names them."""
    if not path.exists():
        raise MissingFileError(f"There is no file {path}.")
    given, _ = read_card_yaml(path)
    known = inspect.signature(function).parameters
    for key in given:
        if key not in known:
            raise InvalidParameterError(
                f"{path}: '{key}' is no parameter of {name}.{did_you_mean(key, known)} It takes: {listing(known)}."
            )
    needed = [key for key, each in known.items() if each.default is each.empty and key not in given]
    if needed:
        raise InvalidParameterError(f"{path} lacks {listing(needed)}, which {name} needs.")
    return {key: _resolved(value, path.parent, berg_dir, device) for key, value in given.items()}


def _resolved(value: Any, folder: Path, berg_dir: Path | None, device: str) -> Any:
    """Paths are from the folder of the file of parameters."""
    if isinstance(value, Mapping):
        if "responses" in value:
            return _responses(folder / str(value["responses"]), {k: v for k, v in value.items() if k != "responses"})
        if "model" in value:
            from berg.facade import BERG

            own = {key: item for key, item in value.items() if key != "model"}
            return BERG(berg_dir).get_encoding_model(str(value["model"]), device=device, **own)
        if [*value] == ["stimuli"]:
            return folder / str(value["stimuli"])
        if [*value] == ["array"]:
            from berg.weights.npy_files import read_npy

            return read_npy(folder / str(value["array"]))
        if [*value] == ["result"]:
            from berg.experiments.result import open_result

            return open_result(folder / str(value["result"]))
        return {key: _resolved(item, folder, berg_dir, device) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, folder, berg_dir, device) for item in value]
    return value


def _responses(path: Path, labels: Mapping[str, Any]) -> Any:
    from berg.cli.plot import open_labelled
    from berg.responses.regions import select

    labelled = open_labelled(path, labels.get("group"))
    chosen = {key: value for key, value in labels.items() if key != "group"}
    return select(labelled, **chosen) if chosen else labelled
