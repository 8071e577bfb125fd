"""``berg demo``"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from berg.facade import BERG
from berg.plotting.receptive_fields import plot_pictures_and_responses
from berg.responses.labelled import label_responses
from berg.responses.save import save_responses

MODEL = "fmri-szinte2024-prf_css"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
WIDTH_DEG = 10.0
PIXELS = 400


def demo(*, out: Path = Path("berg-demo"), device: str = "auto") -> None:
    """Encode real photographs with the built-in model of human V1, and draw the responses.

    Parameters
    ----------
    out
        Folder for responses.nc and demo.png; made if it is not there.
    device
        auto, cpu, cuda, cuda:1 or mps.
    """
    pictures = {name: _photograph(name) for name in PHOTOGRAPHS}
    stimuli = np.stack(list(pictures.values())).transpose(0, 3, 1, 2)
    berg = BERG()
    selection = {"reliable": True, "amplitude": [0, None]}  # voxels that contrast drives
    model = berg.get_encoding_model(MODEL, device, selection, stimulus_width_deg=WIDTH_DEG)
    with model:
        responses, metadata = berg.encode(model, stimuli, return_metadata=True, batch_size=1, show_progress=True)
    labelled = label_responses(responses, metadata, list(pictures))
    voxels: xr.DataArray = labelled["responses"]  # type: ignore[assignment]
    out.mkdir(parents=True, exist_ok=True)
    save_responses(labelled, out / "responses.nc")
    title = f"Predicted responses of {voxels.sizes['voxel']} voxels of human V1"
    plot_pictures_and_responses(pictures, voxels, WIDTH_DEG, title, out / "demo.png")
    _print_summary(voxels, out)


def _photograph(name: str) -> NDArray[np.uint8]:
    """One of scikit-image's photographs, its centre square."""
    from skimage import data

    picture = Image.fromarray(getattr(data, name)())
    return np.asarray(ImageOps.fit(picture, (PIXELS, PIXELS), Image.Resampling.BICUBIC))


def _print_summary(responses: xr.DataArray, out: Path) -> None:
    console = Console()
    console.print(_table(responses))
    console.print(
        f"\nResponses: {out / 'responses.nc'}   Picture: {out / 'demo.png'}\n\n"
        "Your own pictures:   "
        f"berg encode {MODEL} --images FOLDER --size 400 --out responses.nc\n"
        f"About this model:    berg describe {MODEL}\n"
        "All models:          berg list",
        soft_wrap=True,
        highlight=False,
    )


def _table(responses: xr.DataArray) -> Table:
    n_voxels = responses.sizes["voxel"]
    title = f"Responses of {n_voxels} voxels ({responses.attrs['units']})"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("photograph")
    for heading in ("mean", "left field", "right field", "strongest", "at x, y (deg)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in responses.stimulus.values:
        response = responses.sel(stimulus=name)
        left, right = response[response.x_deg < 0], response[response.x_deg > 0]
        strongest = response[int(response.values.argmax())]
        table.add_row(
            str(name),
            f"{float(response.mean()):.2f}",
            f"{float(left.mean()):.2f}",
            f"{float(right.mean()):.2f}",
            f"{float(strongest):.2f}",
            f"{float(strongest.x_deg):+.1f}, {float(strongest.y_deg):+.1f}",
        )
    return table
