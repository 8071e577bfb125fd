"""Cleaning of recordings in time, run by run, in the order in which dataset.yaml lists the steps.

============= =====================================================================================================
regress       residuals of least squares on polynomials up to an order, confounds, or both at once
trim          volumes at both ends are left out of everything that follows, and of all splits
zscore        each unit less its mean over the run, divided by its population standard deviation
============= =====================================================================================================

Confounds and drifts that are regressed one after the other come back in part, since each step may bring in again what
another took out (Lindquist et al. 2019, Hum. Brain Mapp. 40:2358): one ``regress`` with both does not have this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from berg.core.card_schema import CardPart, Texts
from berg.core.exceptions import DatasetError
from berg.datasets.label_files import read_labels
from berg.datasets.response_arrays import DerivedRows, Floats, ResponseArray, Units

_FLAT = 1e-10  # a standard deviation below it is none


class Regress(CardPart):
    """What is regressed out of each run; what is left has no mean."""

    polynomials: int = Field(0, ge=0, le=20, description="up to this order; 0: the mean alone")
    confounds: str | None = Field(None, description="a table per run, a row per volume; {run} stands for its name")
    columns: Texts | None = Field(None, description="of the table; all if none are named")


class TrimVolumes(CardPart):
    """Volumes that are left out."""

    start: int = Field(0, ge=0)
    end: int = Field(0, ge=0)


class CleaningStep(CardPart):
    """One step: one of these keys."""

    regress: Regress | None = None
    trim: TrimVolumes | None = None
    zscore: bool | None = None

    @model_validator(mode="after")
    def _one(self) -> CleaningStep:
        if len(self.model_fields_set) != 1:
            raise ValueError("a step is one of regress, trim and zscore")
        return self


def _of_word(value: Any) -> Any:
    return {"zscore": True} if value == "zscore" else value


Cleaning = list[Annotated[CleaningStep, BeforeValidator(_of_word)]]


def n_trimmed(steps: Sequence[CleaningStep]) -> tuple[int, int]:
    """How many volumes are left out at the start and at the end of each run, by all steps."""
    trims = [step.trim for step in steps if step.trim is not None]
    return sum(trim.start for trim in trims), sum(trim.end for trim in trims)


@dataclass(frozen=True)
class CleanedRows(DerivedRows):
    """The volumes of one run, cleaned, without those that are trimmed.

    A unit that misses a volume misses the run: its course cannot be cleaned.

    Attributes
    ----------
    steps
        In their order.
    confounds
        One for each step, shape (n_volumes, n_confounds); None of steps without.
    """

    steps: tuple[CleaningStep, ...]
    confounds: tuple[NDArray[np.float64] | None, ...]

    @property
    def n_rows(self) -> int:
        """See `berg.datasets.response_arrays.ResponseArray`."""
        return self.rows.n_rows - sum(n_trimmed(self.steps))

    def read(self, rows: NDArray[np.intp], units: Units) -> Floats:
        """See `berg.datasets.response_arrays.ResponseArray`."""
        whole = self.rows.read(np.arange(self.rows.n_rows), units)
        return cleaned(whole, self.steps, self.confounds)[rows]


def length_of_run(rows: ResponseArray) -> int:
    """How many volumes were recorded, those that are trimmed among them."""
    return rows.rows.n_rows if isinstance(rows, CleanedRows) else rows.n_rows


def cleaned(
    volumes: Floats, steps: Sequence[CleaningStep], confounds: Sequence[NDArray[np.float64] | None]
) -> NDArray[np.float32]:
    """One run, cleaned step by step, computed in float64; without the volumes that are trimmed.

    Parameters
    ----------
    volumes
        Shape (n_volumes, n_units).
    confounds
        As of `CleanedRows`.

    Raises
    ------
    DatasetError
        If fewer volumes are left than there are regressors.
    """
    kept, found = slice(0, len(volumes)), volumes.astype(np.float64)
    for step, own in zip(steps, confounds, strict=True):
        if step.trim is not None:
            kept = slice(kept.start + step.trim.start, max(kept.start + step.trim.start, kept.stop - step.trim.end))
            if kept.stop - kept.start < 2:
                raise DatasetError(f"A run of {len(volumes):,} volumes has none left when it is trimmed. Trim less.")
        elif step.regress is not None:
            found[kept] = residuals(found[kept], _regressors(step.regress, own, len(volumes))[kept])
        else:
            found[kept] = _zscored(found[kept])
    return found[kept].astype(np.float32)


def residuals(Y: NDArray[np.float64], X: NDArray[np.float64]) -> NDArray[np.float64]:
    """What least squares on X leaves of Y, also if columns of X depend on each other.

    Raises
    ------
    DatasetError
        If there are as many regressors as samples: nothing would be left.
    """
    if X.shape[1] >= len(X):
        raise DatasetError(
            f"{X.shape[1]:,} regressors leave nothing of {len(X):,} volumes. Regress out fewer confounds."
        )
    scale = np.linalg.norm(X, axis=0)
    basis, sizes, _ = np.linalg.svd(X / np.where(scale > 0, scale, 1), full_matrices=False)
    basis = basis[:, sizes > len(X) * np.finfo(np.float64).eps * sizes.max(initial=0)]
    left: NDArray[np.float64] = Y - basis @ (basis.T @ Y)
    return left


def _regressors(step: Regress, confounds: NDArray[np.float64] | None, n_volumes: int) -> NDArray[np.float64]:
    """Legendre polynomials over the whole run, and the confounds."""
    legendre = np.polynomial.legendre.legvander(np.linspace(-1, 1, n_volumes), step.polynomials)
    drifts = np.asarray(legendre, np.float64)
    return drifts if confounds is None else np.hstack([drifts, confounds])


def _zscored(values: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = values.std(0)
    return np.asarray((values - values.mean(0)) / np.where(scale < _FLAT, 1, scale), np.float64)


def read_confounds(path: Path, columns: Sequence[str] | None, n_volumes: int) -> NDArray[np.float64]:
    """The confounds in a table, shape (n_volumes, n_confounds); what is missing (n/a) counts as its column's mean.

    Parameters
    ----------
    columns
        Of the table; None: a file with one array, such as ``.npy``.

    Raises
    ------
    DatasetError
        If a column holds no numbers, or there is not a row for each volume.
    """
    if columns is None:
        return _numbers(read_labels(path), "array", path, n_volumes)
    return np.hstack([_numbers(read_labels(path, column), column, path, n_volumes) for column in columns])


def _numbers(values: Any, name: str, path: Path, n_volumes: int) -> NDArray[np.float64]:
    found = np.asarray(values)
    if found.dtype.kind not in "biuf" or found.ndim not in (1, 2) or len(found) != n_volumes:
        held = f"{found.dtype.name} of shape {found.shape}"
        raise DatasetError(f"'{name}' of {path} is {held}; {n_volumes:,} numbers are right, one for each volume.")
    columns = found.reshape(n_volumes, -1).astype(np.float64)
    there = np.isfinite(columns)
    if not there.any(0).all():
        raise DatasetError(f"'{name}' of {path} has no number. Leave it out.")
    means = columns.mean(0, where=there)
    return np.where(there, columns, means)
