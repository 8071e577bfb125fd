"""Tuning curves in silico: orientation, spatial frequency, contrast, size and position, with gratings in degrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.experiments.receptive_field_map import screen_of
from berg.experiments.result import described, facts_of, parameters_of
from berg.experiments.units import Responder
from berg.stimuli.drawn import Screen
from berg.system.progress import progress_bar

if TYPE_CHECKING:
    import torch

    from berg.plotting.page import Sheet

Floats = NDArray[np.floating[Any]]
Over = Literal["orientation", "spatial_frequency", "contrast", "size", "position"]
OVER: dict[str, tuple[str, str]] = {
    "orientation": ("orientation", "degrees from horizontal"),
    "spatial_frequency": ("spatial frequency", "cycles per degree"),
    "contrast": ("contrast of luminance", ""),
    "size": ("diameter", "degrees of visual angle"),
    "position": ("horizontal position", "degrees of visual angle"),
}
"""What can be varied, and how it is called in figures."""
SMALLEST = 0.01
"""A unit whose curve changes by less than this part of its largest response prefers nothing."""


@dataclass(frozen=True)
class _Grating:
    """A grating in a round aperture."""

    orientation_deg: float
    cycles_per_deg: float
    contrast: float
    diameter_deg: float
    x_deg: float
    y_deg: float

    def picture(self, screen: Screen, phase_deg: float) -> NDArray[np.uint8]:
        pattern = screen.grating(self.orientation_deg, self.cycles_per_deg, phase_deg)
        return screen.picture(pattern, screen.disc(self.x_deg, self.y_deg, self.diameter_deg / 2), self.contrast)


def tuning(
    model: Any,
    over: Over,
    values: Sequence[float] | None = None,
    *,
    width_deg: float | None = None,
    pixels: int | None = None,
    at_deg: tuple[float, float] = (0.0, 0.0),
    diameter_deg: float | None = None,
    cycles_per_deg: float = 2.0,
    contrast: float = 1.0,
    orientations_deg: Sequence[float] = (0.0, 45.0, 90.0, 135.0),
    n_phases: int = 4,
    batch_size: int | None = None,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Measure how the response of each unit depends on one property of gratings.

    Every curve is a mean over the phases of the grating and, unless orientation is varied, over orientations; the
    response to grey is in `blank`.

    Parameters
    ----------
    model
        Loaded.
    over
        ``orientation``, ``spatial_frequency``, ``contrast``, ``size`` (the diameter) or ``position``.
    values
        Which are shown, in degrees, cycles per degree, or as a contrast in [0, 1]; of a position, x and y of every
        pair of them. By default a range that pictures of this width can show.
    width_deg, pixels
        As for `map_receptive_fields`.
    at_deg, diameter_deg
        Middle (right and up positive) and diameter of the grating; by default it is as wide as the picture.
    cycles_per_deg, contrast, orientations_deg
        Of the grating, unless they are varied. The contrast is that of luminance.
    n_phases
        Evenly spaced.
    batch_size
        Pictures computed together.
    show_progress
        None: a bar if standard error is a terminal.

    Returns
    -------
    result
        ``response`` (value, unit), of a position (y_shown, x_shown, unit); per unit ``blank``, ``preferred`` (the value
        of the largest response, NaN of a unit that changes by less than 1 %; of a position ``preferred_x`` and
        ``preferred_y``) and ``modulation``, the largest less the smallest response. Besides, of an orientation
        ``selectivity``, the length of the mean vector at twice the angle (1 less the circular variance; Ringach,
        Shapley & Hawken 2002, J Neurosci 22:5639), and ``preferred`` is its angle; of a size ``suppression``, the
        fraction of the largest response that is lost at the largest diameter; of a contrast ``half_contrast``, where
        the curve first reaches half of its largest response.

    Raises
    ------
    InvalidParameterError
        If a property cannot be varied, or a stimulus cannot be drawn with these pixels.

    Examples
    --------
    >>> import berg
    >>> from berg.experiments import tuning
    >>> model = berg.load("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.82})
    >>> curve = tuning(model, "spatial_frequency", [1, 2, 12], n_phases=2, orientations_deg=[0])
    >>> curve.response.dims, float(curve.preferred[0]) < 12
    (('value', 'unit'), True)
    """
    responder = Responder(model)
    if over not in OVER:
        raise InvalidParameterError(f"over is '{over}'; responses are measured over {listing(OVER)}.")
    screen = screen_of(responder, width_deg, pixels)
    chosen = _values(over, values, screen)
    angles = chosen if over == "orientation" else np.asarray(orientations_deg, float)
    if n_phases < 1 or not len(angles):
        raise InvalidParameterError("There must be at least one phase and one orientation.")
    diameter = diameter_deg or (4.0 if over == "position" else 2 * screen.width_deg)
    base = _Grating(0.0, cycles_per_deg, contrast, diameter, float(at_deg[0]), float(at_deg[1]))
    shown = _gratings(over, chosen, angles, base)
    phases = np.arange(n_phases) * 360 / n_phases
    means = _responses(responder, screen, shown, phases, batch_size, show_progress)
    blank = responder.encode(screen.blank()[None])[0]
    result = _curves(over, chosen, means, blank).assign_coords(responder.labels)
    given: dict[str, Any] = {"over": over, "width_deg": screen.width_deg, "pixels": screen.pixels, "at_deg": at_deg}
    given |= {"diameter_deg": base.diameter_deg, "cycles_per_deg": cycles_per_deg, "contrast": contrast}
    given |= {"orientations_deg": angles, "n_phases": n_phases, "unit": responder.unit}
    return described(result, "tuning", [responder.source], None, **given)


def _values(over: str, values: Sequence[float] | None, screen: Screen) -> Floats:
    if values is None:
        return _default_values(over, screen)
    chosen = np.unique(np.asarray(values, float))
    least = {"spatial_frequency": 1e-9, "size": 1 / screen.pixels_per_deg, "contrast": 0.0}.get(over, -np.inf)
    if chosen.ndim != 1 or len(chosen) < 2 or not np.isfinite(chosen).all() or chosen.min() < least:
        raise InvalidParameterError(
            f"values is {values}; give at least two different numbers, from {least:g} on, for {over}."
        )
    return chosen


def _default_values(over: str, screen: Screen) -> Floats:
    width = screen.width_deg
    finest = screen.pixels_per_deg / 4
    ranges: dict[str, Callable[[], Floats]] = {
        "orientation": lambda: np.arange(12) * 15.0,
        "spatial_frequency": lambda: np.geomspace(2 / width, finest, 10),
        "contrast": lambda: np.array([0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0]),
        "size": lambda: np.linspace(width / 20, width, 10),
        "position": lambda: np.linspace(-width / 2, width / 2, 11),
    }
    return ranges[over]()


def _gratings(over: str, chosen: Floats, angles: Floats, base: _Grating) -> list[list[_Grating]]:
    """For each point of a curve the gratings that it is the mean of."""
    if over == "orientation":
        return [[replace(base, orientation_deg=value)] for value in chosen]
    if over == "position":
        points = [{"x_deg": x, "y_deg": y} for y in chosen[::-1] for x in chosen]
    else:
        name = {"spatial_frequency": "cycles_per_deg", "contrast": "contrast", "size": "diameter_deg"}[over]
        points = [{name: value} for value in chosen]
    return [[replace(base, orientation_deg=angle, **point) for angle in angles] for point in points]


def _responses(
    responder: Responder,
    screen: Screen,
    shown: list[list[_Grating]],
    phases: Floats,
    batch_size: int | None,
    show_progress: bool | None,
) -> Floats:
    """Mean responses, shape (n_points, n_units); a batch of pictures is in memory at a time."""
    size = batch_size or responder.model.batch_size
    each = [(point, grating, phase) for point, own in enumerate(shown) for grating in own for phase in phases]
    total = np.zeros((len(shown), responder.n_units))
    with progress_bar("tuning", len(each), "pictures", show_progress) as advance:
        for start in range(0, len(each), size):
            part = each[start : start + size]
            pictures = np.stack([grating.picture(screen, phase) for _, grating, phase in part])
            np.add.at(total, [point for point, _, _ in part], responder.encode(_integers(pictures, responder), size))
            advance(len(part))
    return total * (len(shown) / len(each))


def _integers(pictures: NDArray[np.uint8], responder: Responder) -> NDArray[Any]:
    import torch

    low, high = responder.range
    scaled: torch.Tensor = torch.from_numpy(pictures).double() * ((high - low) / 255) + low
    return responder.integers(scaled)


def _curves(over: str, chosen: Floats, means: Floats, blank: Floats) -> xr.Dataset:
    spread = means.max(0) - means.min(0)
    is_flat = spread <= SMALLEST * np.abs(means).max(0)
    best = means.argmax(0)
    result = xr.Dataset({"blank": ("unit", blank), "modulation": ("unit", spread)})
    if over == "position":
        side = len(chosen)
        cube = means.reshape(side, side, -1)
        place = {"preferred_x": chosen[best % side], "preferred_y": chosen[::-1][best // side]}
        result = result.assign(response=(("y_shown", "x_shown", "unit"), cube)).assign_coords(
            x_shown=chosen, y_shown=chosen[::-1]
        )
        return result.assign({name: ("unit", np.where(is_flat, np.nan, own)) for name, own in place.items()})
    result = result.assign(response=(("value", "unit"), means)).assign_coords(value=chosen)
    driven = np.clip(means - blank, 0, None)
    preferred = chosen[best]
    if over == "orientation":
        vector = (driven * np.exp(2j * np.deg2rad(chosen))[:, None]).sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            result["selectivity"] = ("unit", np.abs(vector) / driven.sum(0))
        preferred = np.rad2deg(np.angle(vector)) / 2 % 180
    elif over == "size":
        with np.errstate(invalid="ignore", divide="ignore"):
            result["suppression"] = ("unit", 1 - driven[-1] / driven.max(0))
    elif over == "contrast":
        result["half_contrast"] = ("unit", _half(chosen, driven))
    result["preferred"] = ("unit", np.where(is_flat, np.nan, preferred))
    return result


def _half(contrasts: Floats, driven: Floats) -> Floats:
    """Where each curve first reaches half of its largest value, between the contrasts that were shown."""
    found = np.full(driven.shape[1], np.nan)
    for unit, curve in enumerate(driven.T):
        half = curve.max() / 2
        if half <= 0:
            continue
        above = int(np.argmax(curve >= half))
        if above == 0:
            found[unit] = contrasts[0]
            continue
        low, high = curve[above - 1 : above + 1]
        part = (half - low) / (high - low)
        found[unit] = contrasts[above - 1] + part * (contrasts[above] - contrasts[above - 1])
    return found


def draw(result: xr.Dataset) -> Sheet:
    """The curves: the median over units with their quartiles, and what each unit prefers; of positions, a map."""
    from berg.plotting.page import new_sheet, styled

    told = parameters_of(result)
    name, _ = OVER[told["over"]]
    title = "Tuning to position" if told["over"] == "position" else f"Tuning to {name}"
    facts = (
        *facts_of(result),
        f"gratings, means of {told['n_phases']} phases"
        + ("" if told["over"] == "orientation" else f" and {len(told['orientations_deg'])} orientations"),
        f"pictures of {told['width_deg']:g} degrees, {told['pixels']} pixels",
    )
    with styled():
        sheet, frame = new_sheet(2.5, title, facts)
        left = sheet.add_axes(frame.rectangle(0.75, 0.45, 2.6 if told["over"] != "position" else 1.95, 1.95))
        right = sheet.add_axes(frame.rectangle(4.2, 0.45, 2.6, 1.95))
        if told["over"] == "position":
            _draw_map(sheet, frame, left, result, told["unit"])
            _draw_places(right, result, told["width_deg"])
        else:
            _draw_curve(left, result, told)
            _draw_preferred(right, result, told)
    return sheet


def _scale_axis(axes: Any, told: Any) -> None:
    name, unit = OVER[told["over"]]
    axes.set_xlabel(f"{name} ({unit})" if unit else name)
    if told["over"] == "spatial_frequency":
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if told["over"] == "orientation":
        axes.set_xticks([0, 45, 90, 135, 180])


def _draw_curve(axes: Any, result: xr.Dataset, told: Any) -> None:
    curves = result["response"].values - result["blank"].values
    x = result["value"].values
    low, middle, high = np.nanquantile(curves, [0.25, 0.5, 0.75], axis=1)
    axes.fill_between(x, low, high, color="#c9d7e6", linewidth=0, label="quartiles over units")
    axes.plot(x, middle, "o-", color="#3b6ea5", markersize=3, label="median")
    axes.axhline(0, color="0.3", linewidth=0.6)
    _scale_axis(axes, told)
    axes.set_ylabel(f"response less that to grey\n({told['unit']})")
    axes.legend(frameon=False)


def _draw_preferred(axes: Any, result: xr.Dataset, told: Any) -> None:
    preferred = result["preferred"].values
    preferred = preferred[np.isfinite(preferred)]
    x = result["value"].values
    if told["over"] == "orientation":
        axes.hist(preferred, bins=np.arange(0, 181, 7.5), color="0.6")
    else:
        axes.bar(range(len(x)), [(preferred == value).sum() for value in x], color="0.6")
        axes.set_xticks(range(len(x)), [f"{value:.3g}" for value in x], rotation=45 if len(x) > 8 else 0)
    if told["over"] == "orientation":
        _scale_axis(axes, told)
    name, unit = OVER[told["over"]]
    axes.set_xlabel(f"preferred {name}" + (f" ({unit})" if unit else ""))
    axes.set_ylabel("units")
    if not preferred.size:
        axes.text(0.5, 0.5, "no unit prefers one", transform=axes.transAxes, ha="center")
        axes.set_yticks([])


def _draw_map(sheet: Any, frame: Any, axes: Any, result: xr.Dataset, unit: str) -> None:
    from berg.plotting.colours import draw_bar, scale_of

    mean = (result["response"] - result["blank"]).mean("unit").values
    scale = scale_of([mean], f"mean over units, less grey ({unit})", True)
    x = result["x_shown"].values
    half = (x[1] - x[0]) / 2
    axes.imshow(scale.rgba(mean), extent=(x[0] - half, x[-1] + half, x[0] - half, x[-1] + half))
    axes.set(xlabel="horizontal (degrees)", ylabel="vertical (degrees)")
    draw_bar(sheet, sheet.add_axes(frame.rectangle(2.83, 0.6, 0.09, 1.65)), scale, inside=True)


def _draw_places(axes: Any, result: xr.Dataset, width_deg: float) -> None:
    rng = np.random.default_rng(0)
    step = float(result["x_shown"][1] - result["x_shown"][0])
    spread = rng.uniform(-0.35, 0.35, (2, result.sizes["unit"])) * step
    axes.plot(
        result["preferred_x"] + spread[0], result["preferred_y"] + spread[1], ".", color="#3b6ea5", markersize=2.5
    )
    axes.set(xlabel="preferred horizontal (degrees)", ylabel="preferred vertical (degrees)", aspect="equal")
    axes.set_title("a dot per unit, moved aside within its step", size=6.5)
