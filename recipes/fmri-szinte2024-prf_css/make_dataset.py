"""Make a dataset of the published recording of moving bars, for `berg fit`.

    python recipes/fmri-szinte2024-prf_css/make_dataset.py --data DIR --out dataset

README.md beside this file says what was found in the files, and what was decided.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

TR_S = 1.317025
FULL_CONTRAST_CODE = 9  # the design matrix counts 9 for a grid point wholly inside the bar
X_SWEEPS = (slice(10, 42), slice(80, 112))  # volumes in which a vertical bar moves along x
Y_SWEEPS = (slice(52, 70), slice(122, 140))  # volumes in which a horizontal bar moves along y

DATASET = f"""\
name: szinte2024
description: V1 of one subject under moving bars.
licence: MIT (Gilles86/braincoder, copyright 2015 Tomas Knapen)
citation: Szinte et al. (2024), data as distributed with braincoder (Gilles de Hollander).
subjects: [1]
stimuli: {{path: bars.h5, key: contrast}}
responses:
  responses:
    path: bold.h5::bold
    axes: [presentation, voxel]
    unit: BOLD amplitude
    coordinates:
      source_voxel: bold.h5::source_voxel
      roi: bold.h5::roi
splits: {{test_fraction: 0}}  # parts of the recording are held out in turn, as the card says
sampling_interval_s: {TR_S}
"""


def read_bars(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the bars from the design matrix, without the fixation mark.

    The design matrix also holds the fixation mark, 8 grid points in the blank periods and up to 12
    during sweeps. A bar spans the screen, so the median along it is the bar without the mark.

    Parameters
    ----------
    data
        Folder with ``dm_gazecenter.npz`` and ``grid_coordinates.tsv``.

    Returns
    -------
    contrast
        Shape (150 volumes, 45 rows, 80 columns), in [0, 1], from top to bottom.
    x_deg, y_deg
        Middles of the columns and rows, degrees, right and up positive.
    """
    # (n_volumes, n_columns, n_rows)
    design = np.load(data / "dm_gazecenter.npz")["arr_0"].astype(np.float64) / FULL_CONTRAST_CODE
    n_volumes, n_columns, n_rows = design.shape
    points = pd.read_csv(data / "grid_coordinates.tsv", sep="\t").to_numpy(np.float64)
    points = points.reshape(n_columns, n_rows, 2)
    contrast = np.zeros((n_volumes, n_rows, n_columns))
    for sweep in X_SWEEPS:
        contrast[sweep] = np.median(design[sweep], axis=2)[:, None, :]
    for sweep in Y_SWEEPS:
        contrast[sweep] = np.median(design[sweep], axis=1)[:, :, None]
    return contrast, points[:, 0, 0], points[0, :, 1]


def read_bold(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the recording of the voxels that vary.

    Parameters
    ----------
    data
        Folder with ``mask-v1_bold.tsv.gz``.

    Returns
    -------
    bold
        Shape (n_volumes, n_voxels), unit as published, mean 0 per voxel.
    source_voxel
        Shape (n_voxels,), column of the voxel in the published file.
    """
    table = pd.read_csv(data / "mask-v1_bold.tsv.gz", sep="\t", index_col="time")
    bold = table.to_numpy(np.float64)
    varies = bold.std(axis=0) > 0
    return bold[:, varies], table.columns.to_numpy().astype(int)[varies]


def write_dataset(data: Path, out: Path) -> None:
    """Write ``dataset.yaml`` and what it names."""
    out.mkdir(parents=True, exist_ok=True)
    contrast, x_deg, y_deg = read_bars(data)
    bold, source_voxel = read_bold(data)
    with h5py.File(out / "bars.h5", "w") as file:
        written = file.create_dataset("contrast", data=contrast, compression="gzip")
        written.attrs.update(x_deg=x_deg, y_deg=y_deg)
    with h5py.File(out / "bold.h5", "w") as file:
        file["bold"], file["source_voxel"] = bold, source_voxel
        file["roi"] = ["V1"] * len(source_voxel)
    (out / "dataset.yaml").write_text(DATASET, encoding="utf-8")


def main() -> None:
    """Read the published files, write the dataset."""
    parser = argparse.ArgumentParser(description="Make a dataset of the szinte2024 recording.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the published files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the dataset, to be made")
    arguments = parser.parse_args()
    write_dataset(arguments.data, arguments.out)


if __name__ == "__main__":
    main()
