"""Responses into a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from berg.core.exceptions import InvalidParameterError
from berg.responses.labelled import Labelled

ENDINGS = (".nc", ".npz", ".npy")


def check_ending(path: Path) -> None:
    """Nothing, or an error where `save_responses` could not write such a file."""
    if path.suffix not in ENDINGS:
        raise InvalidParameterError(f"'{path.name}' must end in one of {', '.join(ENDINGS)}.")
    if not path.parent.is_dir():
        raise InvalidParameterError(f"The folder {path.parent} does not exist. Make it first.")


def save_responses(labelled: Labelled, path: Path) -> None:
    """Write responses: NetCDF with all labels, or bare arrays as .npz or .npy."""
    check_ending(path)
    if path.suffix == ".nc":
        labelled.to_netcdf(path, engine="h5netcdf")
        return
    arrays = _arrays(labelled)
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
    elif len(arrays) == 1:
        np.save(path, next(iter(arrays.values())))
    else:
        raise InvalidParameterError(f"{len(arrays)} outputs do not fit into one .npy; use .npz or .nc.")


def _arrays(labelled: Labelled) -> dict[str, np.ndarray]:
    datasets = [labelled] if isinstance(labelled, xr.Dataset) else [node.to_dataset() for node in labelled.leaves]
    return {str(name): variable.values for dataset in datasets for name, variable in dataset.data_vars.items()}
