"""Results of experiments: what they are of, their file, their figure."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr

import berg
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError
from berg.system.durable_file import replacing

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

EXPERIMENT, PARAMETERS, SOURCES = "experiment", "parameters", "sources"
_FIGURES: dict[str, str] = {
    "attribute": "attribution",
    "cka": "alignment",
    "commonality": "commonalities",
    "flag": "familiarity_of_pictures",
    "fusion": "fusion_in_time",
    "in_vivo_comparison": "vivo_figure",
    "in_vivo_design": "vivo_figure",
    "in_vivo_power": "vivo_figure",
    "localise": "localisers",
    "map_receptive_fields": "receptive_field_map",
    "multivariate_control": "control_multivariate_figure",
    "optimise": "optimisation",
    "partition": "partitioning",
    "rdms": "dissimilarity_matrices",
    "rsa": "similarity_analysis",
    "selection": "picture_choice_figure",
    "tuning": "tuning_curves",
    "univariate_control": "control_univariate_figure",
}
"""Experiment -> the file beside this one whose `draw` makes its figure."""


def described(
    result: xr.Dataset,
    experiment: str,
    sources: Sequence[Mapping[str, Any]],
    seed: int | None,
    **parameters: Any,
) -> xr.Dataset:
    """The result with everything that is needed to repeat it, in its attributes.

    Parameters
    ----------
    experiment
        Its name, by which `draw` finds the figure.
    sources
        Of each set of responses or model: `Patterns.source`, or the like.
    **parameters
        As they were given, with defaults filled in.
    """
    told = {
        EXPERIMENT: experiment,
        SOURCES: json.dumps([_plain(source) for source in sources], sort_keys=True),
        PARAMETERS: json.dumps(_plain(parameters), sort_keys=True),
        "berg_version": berg.__version__,
    }
    return result.assign_attrs(told if seed is None else told | {"seed": int(seed)})


def sources_of(result: xr.Dataset) -> list[dict[str, Any]]:
    """What a result is of: model, subject, selection, number of units."""
    found: list[dict[str, Any]] = json.loads(result.attrs[SOURCES])
    return found


def parameters_of(result: xr.Dataset) -> dict[str, Any]:
    """The parameters that a result was made with."""
    found: dict[str, Any] = json.loads(result.attrs[PARAMETERS])
    return found


def save(result: xr.Dataset, path: str | Path, overwrite: bool = False) -> Path:
    """Write a result as NetCDF; it appears whole, or not at all.

    Raises
    ------
    InvalidParameterError
        If the name does not end in .nc, or the file is there and `overwrite` is False.
    """
    target = Path(path)
    _name_of(result)
    if target.suffix != ".nc":
        raise InvalidParameterError(f"'{target.name}' must end in .nc, in which results keep all labels.")
    if target.exists() and not overwrite:
        raise InvalidParameterError(f"{target} is there. Give another name, or overwrite=True.")
    with replacing(target) as file:
        result.to_netcdf(cast("io.IOBase", file), engine="h5netcdf")
    return target


def open_result(path: str | Path) -> xr.Dataset:
    """Read what `save` wrote.

    Raises
    ------
    MissingFileError, CorruptedFileError
        If there is no file, or it holds no result of an experiment.
    """
    if not Path(path).exists():
        raise MissingFileError(f"There is no file {path}.")
    try:
        result = xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError, KeyError) as error:
        raise CorruptedFileError(f"{path} is no NetCDF file that can be read: {error}") from error
    if EXPERIMENT not in result.attrs:
        raise CorruptedFileError(f"{path} holds no result of an experiment. To draw responses:  berg plot {path}")
    return result


def draw(result: xr.Dataset, **options: Any) -> Sheet:
    """The figure of a result; `berg.plotting.page.save` writes it.

    Parameters
    ----------
    **options
        Of the function that draws it.
    """
    name = _name_of(result)
    if name not in _FIGURES:
        raise InvalidParameterError(f"Results of '{name}' have no figure in this version of BERG.")
    drawn: Callable[..., Sheet] = import_module(f"berg.experiments.{_FIGURES[name]}").draw
    return drawn(result, **options)


def facts_of(result: xr.Dataset) -> tuple[str, ...]:
    """What stands below a figure: models, subjects and selections, seed, version."""
    sources = sources_of(result)
    names = [
        " ".join(
            str(part)
            for part in (source.get("model_id", "array"), _named("subject", source), _named("selection", source))
            if part
        )
        for source in sources
    ]
    seed = [f"seed {result.attrs['seed']}"] if "seed" in result.attrs else []
    return (*dict.fromkeys(names), *seed, f"BERG {result.attrs['berg_version']}")


def _named(key: str, source: Mapping[str, Any]) -> str:
    return f"{key} {source[key]}" if source.get(key) not in (None, "", "{}", "None") else ""


def _name_of(result: xr.Dataset) -> str:
    if EXPERIMENT not in result.attrs:
        raise InvalidParameterError(
            "This is no result of an experiment: its attribute 'experiment' is missing. Arithmetic of xarray drops "
            "attributes; work with xr.set_options(keep_attrs=True)."
        )
    return str(result.attrs[EXPERIMENT])


def _plain(value: Any) -> Any:
    """As JSON takes it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
