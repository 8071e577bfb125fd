"""Regressions of many units on disk, solved block by block, so that an interrupted fit goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.fitting.principal_components import slices
from berg.fitting.regression import Regression, Solver
from berg.system.durable_file import replacing
from berg.system.memory import release_pages
from berg.system.progress import progress_bar

ReadRepeats = Callable[[slice], NDArray[np.float32]]
"""Places of units -> their responses, shape (n_repeats, n_stimuli, n_units)."""


@dataclass(frozen=True)
class RegressionFiles:
    """One file per array of `Regression`, and a ledger of the blocks that are on the disk.

    Attributes
    ----------
    folder
        Where they lie.
    name
        Of the output; their names begin with it.
    n_repeats, n_units, n_features, n_bands
        There is a regression for each repeat and unit, repeats one after another.
    """

    folder: Path
    name: str
    n_repeats: int
    n_units: int
    n_features: int
    n_bands: int

    @property
    def n_rows(self) -> int:
        """How many regressions there are."""
        return self.n_repeats * self.n_units

    def fill(self, read: ReadRepeats, solve: Solver, block: int, identity: str, show_progress: bool | None) -> None:
        """Solve the blocks of units that are missing.

        Parameters
        ----------
        block
            Units that are solved together.
        identity
            Of everything that the solver depends on. With it, and with the responses, a block that was solved before
            is told from one that is of something else.
        """
        arrays = self._arrays()
        done: dict[str, str] = json.loads(self._ledger.read_text("utf-8")) if self._ledger.is_file() else {}
        with progress_bar(f"regressions of {self.name}", self.n_units, "units", show_progress) as advance:
            for units in slices(self.n_units, block):
                responses = read(units)
                same = hashlib.sha256(identity.encode() + np.ascontiguousarray(responses).data).hexdigest()
                if done.get(str(units.start)) != same:
                    self._solve(arrays, responses, solve, units)
                    done[str(units.start)] = same
                    with replacing(self._ledger) as file:
                        file.write(json.dumps(done).encode())
                advance(units.stop - units.start)

    def read(self) -> Regression:
        """All regressions; memory maps, of which what is not used is not read."""
        return Regression(
            **{field.name: np.load(self._path(field.name), mmap_mode="r") for field in fields(Regression)}
        )

    def _solve(self, arrays: dict[str, Any], responses: NDArray[np.float32], solve: Solver, units: slice) -> None:
        for repeat, own in enumerate(responses):
            found = solve(own)
            for name, array in arrays.items():
                array[repeat * self.n_units + units.start : repeat * self.n_units + units.stop] = getattr(found, name)
        for array in arrays.values():
            array.flush()
            release_pages(array)

    def _arrays(self) -> dict[str, Any]:
        """The files, open to be written; made where they are missing or of another shape."""
        shapes = {
            "coefficients": (self.n_rows, self.n_features),
            "intercepts": (self.n_rows,),
            "alphas": (self.n_rows, self.n_bands),
            "scores": (self.n_rows,),
        }
        if not self._ledger.is_file() or not all(self._path(name).is_file() for name in shapes):
            self._ledger.unlink(missing_ok=True)
            for name, shape in shapes.items():
                np.lib.format.open_memmap(self._path(name), "w+", np.float32, shape)
        return {name: np.lib.format.open_memmap(self._path(name), "r+") for name in shapes}

    @property
    def _ledger(self) -> Path:
        return self.folder / f"{self.name}.ledger.json"

    def _path(self, name: str) -> Path:
        return self.folder / f"{self.name}.{name}.npy"
