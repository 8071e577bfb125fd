"""How well a model predicts each unit: a labelled table that travels with the weights.

A table is an xarray Dataset; of a model with several outputs a DataTree with a Dataset for each, as labelled responses
are. Its dimensions are the axes of the units (``vertex``, or ``channel`` and ``time``), its coordinates what is known
of them (``roi``, positions, times), its variables what `VARIABLES` describes, its attributes what was compared with
what. In a file it is NetCDF, in the folder ``encoding_models_accuracy`` of the model, named as the weights are.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import BERGError, CorruptedFileError, InvalidParameterError, MissingFileError, StorageError
from berg.core.layout import ACCURACY, WEIGHTS
from berg.system.file_errors import DAMAGE
from berg.system.hdf5_files import check_all_inside

if TYPE_CHECKING:
    import pandas as pd

Accuracy = xr.Dataset | xr.DataTree
Coordinates = Mapping[str, tuple[str, NDArray[Any]]]

VARIABLES = {
    "r": "Pearson correlation of predicted responses with the mean over measured repeats",
    "r2": "Coefficient of determination (not the square of r); negative where worse than the mean",
    "r_low": "Lower end of the 95 % interval of r, over what the attribute resampled says",
    "r_high": "Upper end of the 95 % interval of r, over what the attribute resampled says",
    "n_effective": "Independent samples that r over samples in time is worth, if nothing connects the two series",
    "noise_ceiling": "r that a perfect model is expected to reach, from signal and noise variance over repeats",
    "noise_ceiling_split_half": "r that a perfect model is expected to reach, from halves of the repeats",
    "repeat_ceiling_low": "Single repeats against the mean of the others (no bound of r, which takes the mean)",
    "repeat_ceiling_high": "Single repeats against the mean of all (no bound of r, which takes the mean)",
    "noise_normalised": "r / noise_ceiling; missing where the ceiling is no more than chance",
    "p": "Permutation p value of r, one-sided, of each unit by itself",
    "p_false_discovery": "p corrected for all units of all outputs after Benjamini and Hochberg",
    "p_family": "p corrected for all units of all outputs by the maximum statistic",
}
"""What the variables of an evaluated table are. Tables of published models keep the names that their files have."""

R_NAMES = ("r", "correlation", "correlation_nsdcore", "held_out_r", "correlation_nsdsynthetic")
"""Variables that are a Pearson correlation on data that the fit has not seen; the first that is there counts."""

CEILING_NAMES = ("noise_ceiling", "noise_ceiling_split_half")


def accuracy_table(
    values: Mapping[str, Any],
    axes: Mapping[str, int],
    coordinates: Coordinates,
    attributes: Mapping[str, Any],
    described: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """The table of one output.

    Parameters
    ----------
    values
        By variable; each with one number per unit, of shape (n_units,) in C order of the axes or of their shape.
    axes
        The axes of the units, and how long each is.
    coordinates
        Name -> (axis, values). Those named like a variable are left out.
    attributes
        What was compared with what.
    described
        What variables are that do not come from an evaluation, in place of `VARIABLES`.

    Raises
    ------
    InvalidParameterError
        If there are not as many numbers as units.
    """
    shape = tuple(axes.values())
    for name, array in values.items():
        if np.size(array) != np.prod(shape):
            raise InvalidParameterError(
                f"{name} has {np.size(array):,} values, for {' x '.join(map(str, shape))} units "
                f"({', '.join(axes)}). Give one per unit."
            )
    variables = {
        name: (tuple(axes), np.asarray(array, np.float32).reshape(shape), _described(name, described or {}))
        for name, array in values.items()
    }
    kept = {name: (axis, _plain(own)) for name, (axis, own) in coordinates.items() if name not in variables}
    numbered = {axis: (axis, np.arange(length)) for axis, length in axes.items() if axis not in kept}
    return xr.Dataset(variables, {**numbered, **kept}, {name: _storable(value) for name, value in attributes.items()})


def join_outputs(tables: Mapping[str, xr.Dataset]) -> Accuracy:
    """One table for all outputs: the Dataset of a single one, a DataTree of several."""
    named = {name: table.assign_attrs(output=name) for name, table in tables.items()}
    return next(iter(named.values())) if len(named) == 1 else xr.DataTree.from_dict(named)


def outputs_of(accuracy: Accuracy) -> dict[str, xr.Dataset]:
    """The tables of the outputs by name, in the order of the card."""
    datasets = [accuracy] if isinstance(accuracy, xr.Dataset) else [node.to_dataset() for node in accuracy.leaves]
    return {str(dataset.attrs.get("output", "responses")): dataset for dataset in datasets}


def accuracy_values(accuracy: Accuracy, output: str, name: str) -> NDArray[Any] | None:
    """One variable of one output, in the shape of its units; None if the table does not have it.

    ``held_out_r`` is another name of ``r``, and so on.
    """
    table = outputs_of(accuracy).get(output)
    for key in (name, name.removeprefix("held_out_")):
        if table is not None and key in table.data_vars:
            return np.asarray(table[key].values)
    return None


def r_name(table: xr.Dataset) -> str | None:
    """The variable that is a Pearson correlation, by `R_NAMES`; None if there is none."""
    return next((name for name in R_NAMES if name in table.data_vars), None)


def ceiling_name(table: xr.Dataset) -> str | None:
    """The variable that is a noise ceiling in units of r; published ones may be in per cent, and do not count."""
    names = [name for name in CEILING_NAMES if name in table.data_vars]
    return next((name for name in names if table[name].attrs.get("units") == "r"), None)


def to_dataframe(accuracy: Accuracy) -> pd.DataFrame:
    """A pandas table with a row per unit and a column ``output``; needs pandas.

    Examples
    --------
    >>> table = accuracy_table({"r": [0.5, 0.25]}, {"voxel": 2}, {"roi": ("voxel", np.array(["V1", "V2"]))}, {})
    >>> to_dataframe(join_outputs({"responses": table})).columns.tolist()
    ['output', 'voxel', 'roi', 'r']
    """
    import pandas as pd

    frames = []
    for name, table in outputs_of(accuracy).items():
        frame = table.to_dataframe().reset_index()
        frame.insert(0, "output", name)
        coordinates = [str(each) for each in table.coords if each in frame]
        frames.append(frame[["output", *coordinates, *map(str, table.data_vars)]])
    return pd.concat(frames, ignore_index=True)


def map_outputs(function: Callable[[str, xr.Dataset], xr.Dataset], accuracy: Accuracy) -> Accuracy:
    """The table with a function of (output, table) applied to each output."""
    return join_outputs({name: function(name, table) for name, table in outputs_of(accuracy).items()})


def accuracy_path(weights: Path) -> Path:
    """Where the table of a model lies, from where its weights lie (or would).

    >>> accuracy_path(Path("model-a/encoding_models_weights/weights_subject-01.npy")).as_posix()
    'model-a/encoding_models_accuracy/accuracy_subject-01.nc'
    """
    folder = weights.parent.parent if weights.parent.name == WEIGHTS else weights.parent
    return folder / ACCURACY / f"accuracy_{weights.stem.removeprefix('weights_')}.nc"


def write_accuracy(path: Path, accuracy: Accuracy) -> None:
    """Write a table as NetCDF; it takes its name when it is whole.

    Raises
    ------
    StorageError
        If the disk refuses it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, accuracy)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. Look at:  ls -ld {path.parent}"
        ) from error


def _write_whole(path: Path, accuracy: Accuracy) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        accuracy.to_netcdf(temporary, engine="h5netcdf")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_accuracy(path: Path) -> Accuracy:
    """The table in a file, read whole.

    Raises
    ------
    MissingFileError, CorruptedFileError
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is not there. Make it with:  berg evaluate MODEL_ID --data FOLDER")
    try:
        check_all_inside(path)
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            accuracy = tree.load() if tree.children else tree.to_dataset().load()
    except BERGError:
        raise
    except DAMAGE as error:
        raise CorruptedFileError(
            f"{path} is no table of accuracies ({error}). Delete it, and make it anew with:  berg evaluate"
        ) from error
    if not all(table.data_vars for table in outputs_of(accuracy).values()):
        raise CorruptedFileError(f"{path} holds no accuracy. Delete it, and make it anew with:  berg evaluate")
    return accuracy


def region_names(table: xr.Dataset) -> dict[str, NDArray[np.bool_]]:
    """Which units, along their axis, each region of a table has; no regions where it has no ``roi``."""
    if "roi" not in table.coords:
        return {}
    labels, which = np.unique(table["roi"].values.astype(str), return_inverse=True)
    parts = [[part.strip() for part in label.split(";") if part.strip()] for label in labels]
    names = dict.fromkeys(name for own in parts for name in own)
    return {name: np.isin(which, [i for i, own in enumerate(parts) if name in own]) for name in names}


def _described(name: str, described: Mapping[str, str]) -> dict[str, str]:
    if name in described:
        return {"long_name": described[name]}
    units = {"units": "r"} if name in (*CEILING_NAMES, "r") else {}
    return {"long_name": VARIABLES.get(name, name), **units}


def _plain(values: Any) -> NDArray[Any]:
    """An array that NetCDF can hold: objects as text, booleans as numbers."""
    array = np.asarray(values)
    if array.dtype == object:
        return array.astype(str)
    return array.astype(np.int8) if array.dtype == bool else array


def _storable(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, (str, int, float, np.integer, np.floating)) else repr(value)
