"""Receptive fields mapped in silico: bars, checks, or the gradient.

A model of an area can be mapped as its voxels were: pictures of bars (or of one square at a time) on grey are encoded,
and a Gaussian receptive field with a compressive exponent is fitted to the responses of each unit (Dumoulin & Wandell
2008, NeuroImage 39:647; Kay, Winawer, Mezer & Wandell 2013, J Neurophysiol 110:481). The gradient needs no pictures of
parts: it is how much each place of a full picture adds to the response.

Responses are noise-free, so that the fraction of variance that is explained says how well a Gaussian describes the
unit, not how reliable it is; units that look at the whole picture have a low one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.experiments.result import described, facts_of, parameters_of
from berg.experiments.units import Responder, shape_of, width_deg_of
from berg.families.prf.receptive_fields import (
    Apertures,
    Candidates,
    ReceptiveFields,
    Search,
    amplitude_and_baseline,
    candidate_fields,
    predict_time_courses,
    refine,
)
from berg.stimuli.drawn import Screen, coarse
from berg.system.progress import progress_bar

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

Floats = NDArray[np.floating[Any]]
Method = Literal["bars", "checks", "gradient"]
Carrier = Literal["checks", "noise"]
METHODS = ("bars", "checks", "gradient")
CELL_DEG = 0.25
GRADIENT_CELL_DEG = 0.5
ENOUGH_PIXELS_PER_DEG = 32
_MOST_PIXELS, _MOST_CELLS = 768, 64
_UNITS_AT_ONCE = 2048
_MOST_MAPS = 4000  # units; of more, maps are not kept


@dataclass(frozen=True)
class _Seen:
    """What was seen, and what the units answered.

    Attributes
    ----------
    apertures
        Where each stimulus was, shape (n_stimuli, n_cells, n_cells), in [0, 1].
    responses
        Less those to grey, shape (n_stimuli, n_units).
    """

    apertures: Floats
    responses: Floats


def map_receptive_fields(
    model: Any,
    method: Method = "bars",
    *,
    width_deg: float | None = None,
    pixels: int | None = None,
    carrier: Carrier | NDArray[np.uint8] = "checks",
    n_carriers: int = 2,
    bar_deg: float = 1.0,
    check_deg: float = 1.0,
    step_deg: float = 0.5,
    orientations_deg: tuple[float, ...] = (0.0, 45.0, 90.0, 135.0),
    exponent: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Find where in the visual field each unit looks.

    Parameters
    ----------
    model
        Loaded.
    method
        ``bars`` of several orientations, as long as the picture, that are moved step by step; ``checks``, one square
        at a time; ``gradient`` of the response by the contrast of each place, at half contrast of the whole picture.
    width_deg
        How wide pictures are seen, if the model does not know.
    pixels
        Along each side; by default those of the card, or 32 per degree (at most 768).
    carrier
        What is seen inside: a fine checkerboard, noise, or photographs (uint8, shape (n, 3, pixels, pixels)).
    n_carriers
        Over how many of them responses are averaged: both polarities of the checkerboard, so many noises.
    bar_deg, check_deg, step_deg
        Width of bars, side of checks, and how far they are moved.
    orientations_deg
        Of the bars, anticlockwise from horizontal.
    exponent
        Fit the compressive exponent; else it is 1. For ``gradient`` it is always 1.
    batch_size
        Pictures computed together.
    seed
        Of the noise.
    show_progress
        None: a bar if standard error is a terminal.

    Returns
    -------
    result
        Per unit ``x``, ``y`` (right and up positive), ``size`` (standard deviation before compression, degrees),
        ``exponent``, ``amplitude``, ``r2``; and ``field_map`` (unit, y_cell, x_cell): the mean response to
        stimuli that covered a place, or the gradient. Of more than 4,000 units the maps are not kept.

    Raises
    ------
    InvalidParameterError
        If nobody says how wide pictures are seen, or stimuli do not fit into them.

    Examples
    --------
    >>> import berg
    >>> from berg.experiments import map_receptive_fields
    >>> model = berg.load("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.82})
    >>> found = map_receptive_fields(model, pixels=320, orientations_deg=(0, 90), step_deg=1)
    >>> bool((abs(found.x - found.x_deg) < 0.3).all())
    True
    """
    responder = Responder(model)
    if method not in METHODS:
        raise InvalidParameterError(f"method is '{method}'; there are {listing(METHODS)}.")
    screen = screen_of(responder, width_deg, pixels)
    carriers = _carriers(screen, carrier, n_carriers, seed)
    if method == "gradient":
        seen = _gradients(responder, screen, carriers, batch_size, show_progress)
    else:
        shapes = _bars(screen, bar_deg, step_deg, orientations_deg)
        shapes = shapes if method == "bars" else _checks(screen, check_deg, step_deg)
        seen = _encoded(responder, screen, carriers, shapes, batch_size, show_progress)
    result = _fitted(seen, screen, exponent and method != "gradient", show_progress)
    labels = {name: own for name, own in responder.labels.items() if name not in result.variables}
    given: dict[str, Any] = {"method": method, "width_deg": screen.width_deg, "pixels": screen.pixels}
    given |= {
        "carrier": carrier if isinstance(carrier, str) else f"{len(carrier)} pictures",
        "n_carriers": len(carriers),
    }
    given |= {"bar_deg": bar_deg, "check_deg": check_deg, "step_deg": step_deg, "orientations_deg": orientations_deg}
    given |= {"exponent": exponent, "n_stimuli": len(seen.apertures)}
    return described(result.assign_coords(labels), "map_receptive_fields", [responder.source], seed, **given)


def screen_of(responder: Responder, width_deg: float | None, pixels: int | None) -> Screen:
    """The screen of a model: as many pixels as its card says, or fine enough for what is drawn on it."""
    width = width_deg_of(responder, width_deg)
    sides = {int(side) for side in shape_of(responder.model)[2:] if side.isdigit()}
    if pixels is not None and sides - {pixels}:
        raise InvalidParameterError(
            f"pixels is {pixels}, and {responder.model.get_model_id()} takes {listing(sides)}. Leave it out."
        )
    if len(sides) > 1:
        raise InvalidParameterError(
            f"{responder.model.get_model_id()} takes pictures that are not square: {listing(sides)}."
        )
    fine = min(int(np.ceil(ENOUGH_PIXELS_PER_DEG * width)), _MOST_PIXELS)
    return Screen(width, pixels or (sides.pop() if sides else fine))


def _carriers(screen: Screen, carrier: Any, n_carriers: int, seed: int) -> list[Floats]:
    """Patterns in [-1, 1], shape (pixels, pixels), or of photographs (3, pixels, pixels)."""
    if not isinstance(carrier, str):
        pictures = np.asarray(carrier)
        if pictures.dtype != np.uint8 or pictures.shape[1:] != (3, screen.pixels, screen.pixels) or not len(pictures):
            raise InvalidParameterError(
                f"carrier is {pictures.dtype} of shape {pictures.shape}; it must be uint8 of shape "
                f"(n, 3, {screen.pixels}, {screen.pixels}), or 'checks' or 'noise'."
            )
        return [picture / 127.5 - 1 for picture in pictures]
    if carrier not in ("checks", "noise") or n_carriers < 1:
        raise InvalidParameterError(
            f"There are no {n_carriers} carriers '{carrier}'. Give 'checks', 'noise' or pictures."
        )
    if carrier == "noise":
        rng = np.random.default_rng(seed)
        return [screen.noise(rng) for _ in range(n_carriers)]
    side = max(CELL_DEG, 2 / screen.pixels_per_deg)
    return [screen.checks(side, is_inverted) for is_inverted in (False, True)[:n_carriers]]


def _bars(screen: Screen, bar_deg: float, step_deg: float, orientations_deg: tuple[float, ...]) -> list[Floats]:
    _check_sizes(screen, bar_deg, step_deg)
    found = []
    for orientation in orientations_deg:
        turned = np.deg2rad(orientation)
        reach = screen.width_deg / 2 * (abs(np.cos(turned)) + abs(np.sin(turned)))
        found += [screen.bar(orientation, place, bar_deg) for place in _places(reach, step_deg)]
    if not found:
        raise InvalidParameterError("orientations_deg is empty; give at least two, such as (0, 90).")
    return found


def _checks(screen: Screen, check_deg: float, step_deg: float) -> list[Floats]:
    _check_sizes(screen, check_deg, step_deg)
    places = _places(screen.width_deg / 2, step_deg)
    return [screen.square(x, y, check_deg) for y in places for x in places]


def _places(reach: float, step: float) -> Floats:
    n = int(np.floor(reach / step + 1e-9))
    return np.arange(-n, n + 1) * step


def _check_sizes(screen: Screen, size: float, step: float) -> None:
    pixel = 1 / screen.pixels_per_deg
    if not pixel <= size <= screen.width_deg or not pixel <= step <= size:
        raise InvalidParameterError(
            f"Stimuli of {size:g} degrees, moved by {step:g}, on a picture of {screen.width_deg:g} degrees and "
            f"{screen.pixels} pixels: the size must lie between a pixel ({pixel:.2g} degrees) and the picture, and the "
            "step between a pixel and the size."
        )


def _n_cells(screen: Screen, cell_deg: float) -> int:
    return max(4, min(round(screen.width_deg / cell_deg), _MOST_CELLS, screen.pixels))


def _encoded(
    responder: Responder,
    screen: Screen,
    carriers: list[Floats],
    shapes: list[Floats],
    batch_size: int | None,
    show_progress: bool | None,
) -> _Seen:
    """Encode every stimulus with every carrier, a batch at a time; grey comes first."""
    size = batch_size or responder.model.batch_size
    total = np.zeros((len(shapes), responder.n_units))
    blank = responder.encode(screen.blank()[None])
    n_cells = _n_cells(screen, CELL_DEG)
    with progress_bar("mapping", len(shapes) * len(carriers), "pictures", show_progress) as advance:
        for start in range(0, len(shapes), size):
            rows = slice(start, start + size)
            for carrier in carriers:
                pictures = np.stack([_picture(screen, carrier, shape) for shape in shapes[rows]])
                total[rows] += responder.encode(responder.integers(_scaled(pictures, responder)), size)
                advance(len(pictures))
    return _Seen(coarse(np.stack(shapes), n_cells), total / len(carriers) - blank)


def _picture(screen: Screen, carrier: Floats, shape: Floats) -> NDArray[np.uint8]:
    if carrier.ndim == 2:
        return screen.picture(carrier, shape)
    grey = screen.blank() / 127.5 - 1
    return np.asarray(((grey + (carrier - grey) * shape + 1) * 127.5).round().astype(np.uint8))


def _scaled(pictures: NDArray[np.uint8], responder: Responder) -> torch.Tensor:
    """From 0 to 255 to the range of the model."""
    low, high = responder.range
    return torch.from_numpy(pictures).double() * ((high - low) / 255) + low


def _gradients(
    responder: Responder, screen: Screen, carriers: list[Floats], batch_size: int | None, show_progress: bool | None
) -> _Seen:
    """What each cell of a picture at half contrast adds to the response, per unit: one pass backwards for each."""
    n_cells = _n_cells(screen, GRADIENT_CELL_DEG)
    found = np.zeros((n_cells**2, responder.n_units))
    size = batch_size or responder.model.batch_size
    with progress_bar("gradient", responder.n_units * len(carriers), "units", show_progress) as advance:
        for carrier in carriers:
            for start in range(0, responder.n_units, size):
                units = np.arange(start, min(start + size, responder.n_units))
                found[:, units] += _gradient(responder, screen, carrier, n_cells, units)
                advance(len(units))
    if not np.isfinite(found).all():
        raise InvalidParameterError("The gradient of this model is not finite. Map with method='bars' or 'checks'.")
    apertures = np.eye(n_cells**2).reshape(-1, n_cells, n_cells)
    return _Seen(apertures, found / len(carriers))


def _gradient(responder: Responder, screen: Screen, carrier: Floats, n_cells: int, units: NDArray[np.intp]) -> Floats:
    """Of some units by the contrast of each cell, shape (n_cells ** 2, n_units)."""
    low, high = responder.range
    contrast = torch.full((len(units), 1, n_cells, n_cells), 0.5, dtype=torch.float32, requires_grad=True)
    mask = torch.nn.functional.interpolate(contrast, (screen.pixels, screen.pixels), mode="nearest")
    half = torch.from_numpy(carrier if carrier.ndim == 3 else np.repeat(carrier[None], 3, 0)).float()
    pictures = (low + high) / 2 + (high - low) / 2 * mask * half
    responses = responder(pictures)[np.arange(len(units)), units]
    if not responses.requires_grad:
        raise InvalidParameterError(
            f"{responder.model.get_model_id()} cannot be differentiated by its pictures. Map with method='bars'."
        )
    (slope,) = torch.autograd.grad(responses.sum(), contrast)
    return slope.double().cpu().numpy().reshape(len(units), -1).T


def _fitted(seen: _Seen, screen: Screen, with_exponent: bool, show_progress: bool | None) -> xr.Dataset:
    """A receptive field for each unit, and its map."""
    n_cells = seen.apertures.shape[-1]
    axis = (np.arange(n_cells) + 0.5) * screen.width_deg / n_cells - screen.width_deg / 2
    stimuli, centres = torch.from_numpy(seen.apertures), torch.from_numpy(axis)
    apertures = Apertures.of(stimuli, centres, -centres)
    search, no_lag = _search(screen, with_exponent), torch.eye(len(stimuli), dtype=torch.float64)
    candidates = Candidates.at(apertures, candidate_fields(apertures.field, search), no_lag)
    volumes, n_units = torch.arange(len(stimuli)), seen.responses.shape[1]
    parts: list[Floats] = []
    blocks = range(0, n_units, _UNITS_AT_ONCE)
    with progress_bar("fitting", len(blocks) * search.steps, "steps", show_progress) as advance:
        for start in blocks:
            responses = torch.from_numpy(seen.responses[:, start : start + _UNITS_AT_ONCE])
            first = candidates.best(volumes, responses, search)
            fields = refine(apertures, no_lag, volumes, responses, first, search, advance)
            parts.append(_described_fields(apertures, no_lag, fields, responses))
    x, y, size, exponent, amplitude, r2 = np.concatenate(parts, axis=1)
    per_unit = {"x": x, "y": y, "size": size, "exponent": exponent, "amplitude": amplitude, "r2": r2}
    result = xr.Dataset({name: ("unit", values) for name, values in per_unit.items()})
    for name in ("x", "y", "size"):
        result[name].attrs["units"] = "degrees of visual angle"
    if n_units <= _MOST_MAPS:
        result["field_map"] = (("unit", "y_cell", "x_cell"), _maps(seen))
        result = result.assign_coords(x_cell=axis, y_cell=-axis)
    return result


def _search(screen: Screen, with_exponent: bool) -> Search:
    """Candidates not finer than the refinement needs to begin with; no penalty, as there is no noise."""
    width = screen.width_deg
    return Search(
        centre_margin_deg=1 + 0.15 * width,
        spacing_deg=0.075 * width,
        sizes_deg=[factor * width for factor in (0.02, 0.04, 0.07, 0.12, 0.2, 0.35)],
        exponents=[0.3, 1.0] if with_exponent else [1.0],
        size_bounds_deg=(0.005 * width, 2 * width),
        exponent_bounds=(0.05, 1.5) if with_exponent else (0.99, 1.01),
        penalty=0,
        steps=200,
        learning_rate=0.05,
    )


def _described_fields(
    apertures: Apertures, no_lag: torch.Tensor, fields: ReceptiveFields, responses: torch.Tensor
) -> Floats:
    """Rows x, y, size, exponent, amplitude, r2; NaN of units that nothing drives."""
    predicted = predict_time_courses(apertures, fields, no_lag)
    amplitude, baseline = amplitude_and_baseline(predicted, responses)
    left = ((responses - amplitude * predicted - baseline) ** 2).sum(0)
    total = ((responses - responses.mean(0)) ** 2).sum(0)
    rows = torch.stack([fields.x, fields.y, fields.size, fields.exponent, amplitude, 1 - left / total])
    still = total <= 1e-12 * (responses**2).sum(0) + 1e-300
    return np.asarray(torch.where(still, torch.nan, rows).numpy())


def _maps(seen: _Seen) -> NDArray[np.float32]:
    """The mean response to what covered each cell, shape (n_units, n_cells, n_cells)."""
    flat = seen.apertures.reshape(len(seen.apertures), -1)
    weights = flat / np.maximum(flat.sum(0), 1e-12)
    n_cells = seen.apertures.shape[-1]
    return np.asarray((seen.responses.T @ weights).reshape(-1, n_cells, n_cells), np.float32)


def draw(result: xr.Dataset, units: tuple[int, ...] | None = None) -> Sheet:
    """The centres of all units in the visual field, and the maps of some.

    Parameters
    ----------
    units
        Whose maps are drawn, by index; None: six that are explained best, far apart from each other.
    """
    from berg.plotting.page import new_sheet, styled

    told = parameters_of(result)
    ways = {"bars": "bars", "checks": "one square at a time", "gradient": "the gradient"}
    facts = (
        *facts_of(result),
        f"{told['n_stimuli']} places, pictures of {told['width_deg']:g} degrees, {told['pixels']} pixels",
    )
    with styled():
        sheet, frame = new_sheet(3.1, f"Receptive fields mapped in silico with {ways[told['method']]}", facts)
        _draw_centres(sheet, frame, result, told["width_deg"])
        if "field_map" in result:
            _draw_maps(sheet, frame, result, _shown(result) if units is None else units)
    return sheet


def _shown(result: xr.Dataset, n: int = 6) -> list[int]:
    """Units that are explained well and whose centres lie apart: the best, then the farthest of the better half."""
    known = np.flatnonzero(np.isfinite(result["r2"].values))
    if not known.size:
        return []
    good = known[result["r2"].values[known] >= np.median(result["r2"].values[known])]
    places = np.stack([result["x"].values, result["y"].values], 1)
    half = result.attrs and parameters_of(result)["width_deg"] / 2
    inside = good[(np.abs(places[good]) <= half).all(1)]
    good = inside if inside.size else good
    chosen = [int(good[np.argmax(result["r2"].values[good])])]
    while len(chosen) < min(n, len(good)):
        apart = np.min([np.hypot(*(places[good] - places[one]).T) for one in chosen], axis=0)
        chosen.append(int(good[np.argmax(apart)]))
    return chosen


def _draw_centres(sheet: Any, frame: Any, result: xr.Dataset, width_deg: float) -> None:
    from matplotlib.patches import Rectangle

    from berg.plotting.colours import draw_bar, scale_of

    axes = sheet.add_axes(frame.rectangle(0.55, 0.5, 2.45, 2.45))
    scale = scale_of([result["r2"].values], "variance explained (R²)", False, (0.0, 1.0))
    order = np.argsort(result["r2"].fillna(-1).values)
    x, y = result["x"].values[order], result["y"].values[order]
    axes.scatter(x, y, s=9, c=scale.rgba(result["r2"].values[order]), edgecolors="0.4", linewidths=0.25)
    axes.add_patch(Rectangle((-width_deg / 2, -width_deg / 2), width_deg, width_deg, fill=False, color="0.6", lw=0.7))
    axes.set_facecolor("#f2f2f2")
    reach = 0.62 * width_deg
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_xlabel("horizontal (degrees)")
    axes.set_ylabel("vertical (degrees)")
    bar = sheet.add_axes(frame.rectangle(3.06, 0.8, 0.09, 1.85))
    draw_bar(sheet, bar, scale, inside=True)


def _draw_maps(sheet: Any, frame: Any, result: xr.Dataset, units: Any) -> None:
    from matplotlib.patches import Circle

    from berg.plotting.colours import scale_of

    reach = abs(float(result.x_cell[0])) + abs(float(result.x_cell[1] - result.x_cell[0])) / 2
    for number, unit in enumerate(units):
        row, column = divmod(number, 3)
        axes = sheet.add_axes(frame.rectangle(3.75 + 1.15 * column, 1.63 - 1.28 * row, 1.02, 1.02))
        values = result["field_map"].isel(unit=unit).values
        scale = scale_of([values], "", True)
        axes.imshow(scale.rgba(values), extent=(-reach, reach, -reach, reach))
        own = result.isel(unit=unit)
        for radius in (float(own["size"]), 2 * float(own["size"])):
            axes.add_patch(Circle((float(own["x"]), float(own["y"])), radius, fill=False, color="0.1", lw=0.6))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        name = str(own["voxel"].values) if "voxel" in own.coords else str(unit)
        axes.set_title(f"unit {name}, R² {float(own['r2']):.2f}", size=6, pad=2)
    where = (3.75 / frame.width, (frame.bottom + 0.12) / frame.sheet_height)
    sheet.text(*where, "Maps, each in its own scale (red: excites); circles: 1 and 2 SD of the fitted field", size=6)
