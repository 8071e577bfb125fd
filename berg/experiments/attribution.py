r"""Which parts of a picture a response is due to.

====================  ===============================================================================================
method                map, for a response r (the mean of the selected units) to a picture x
====================  ===============================================================================================
``gradient``          largest :math:`|\partial r / \partial x|` of the colours (Simonyan et al. 2014, arXiv 1312.6034)
``smoothgrad``        the same of the mean gradient over noisy copies of x (Smilkov et al. 2017, arXiv 1706.03825)
``integrated``        :math:`(x - x_0) \int_0^1 \partial r(x_0 + a (x - x_0)) / \partial x \, da`, summed over colours
                      (Sundararajan, Taly & Yan 2017, arXiv 1703.01365); adds up to :math:`r(x) - r(x_0)`
``occlusion``         what r loses when a patch is replaced by :math:`x_0` (Zeiler & Fergus 2014, arXiv 1311.2901)
``rise``              how r goes with whether a place is seen, over random masks (Petsiuk, Das & Saenko 2018, arXiv
                      1806.07421), less the mean response
====================  ===============================================================================================

A map may look right and not depend on the model: edges of the picture, for instance. So each is compared with the
map of the same model with random weights (Adebayo et al. 2018, NeurIPS 31:9505): a map that hardly changes says nothing
of the model, and is marked.

The integral is taken by Gauss-Legendre quadrature over :math:`t`, :math:`a = t^3`, since responses rise steeply next to
a grey picture, and with twice as many steps until it adds up to within 1 %.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.core.stacklevel import users_stacklevel
from berg.encoding.store_identity import stimulus_files, stimulus_labels
from berg.experiments.random_weights import with_random_weights
from berg.experiments.result import described, facts_of, parameters_of
from berg.experiments.units import Responder
from berg.stimuli.open import open_stimuli
from berg.system.progress import progress_bar

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

Floats = NDArray[np.floating[Any]]
Method = Literal["gradient", "smoothgrad", "integrated", "occlusion", "rise"]
COMPLETE, MOST_STEPS = 0.01, 1024
UNCHANGED = 0.7
"""Rank correlation of a map with that of random weights from which on it is marked."""


class AttributionWarning(UserWarning):
    """A map hardly changes with random weights, or does not add up."""


@dataclass(frozen=True)
class Options:
    """What the methods are told.

    Attributes
    ----------
    grey
        What is seen instead, shape (3, height, width).
    span
        White less black.
    """

    grey: Tensor
    span: float
    batch: int
    n_samples: int
    noise: float
    patch: int
    n_masks: int
    cells: int
    seed: int


Respond = Callable[[Tensor], Tensor]
"""From pictures (n, 3, height, width) to the response to each (n,)."""


def attribute(
    model: Any,
    pictures: Any,
    method: Method = "integrated",
    *,
    unit: int | None = None,
    baseline: NDArray[Any] | None = None,
    n_samples: int = 25,
    noise: float = 0.15,
    patch_pixels: int | None = None,
    n_masks: int = 500,
    mask_cells: int = 8,
    check: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Map which parts of pictures the response of a model is due to.

    Parameters
    ----------
    model
        Loaded; its response is the mean over the selected units.
    pictures
        As for `encode`.
    method
        ``gradient``, ``smoothgrad``, ``integrated``, ``occlusion`` or ``rise``.
    unit
        The index of one unit; None: the mean of all.
    baseline
        A picture of shape (3, height, width) that stands for nothing seen; None: mid-grey.
    n_samples, noise
        Of ``smoothgrad``: noisy copies, and the noise's standard deviation as a part of the range of values.
    patch_pixels
        Side of the patches of ``occlusion``, moved by half of it; None: a twelfth of the picture.
    n_masks, mask_cells
        Of ``rise``: how many, and how many cells along each side.
    check
        Compare each map with that of random weights.
    batch_size
        Pictures computed together.
    seed
        Of noise, masks and random weights.
    show_progress
        None: a bar if standard error is a terminal.

    Returns
    -------
    result
        ``attribution`` (stimulus, row, column) in the unit of the responses, of gradients per unit of pixel
        value; ``picture``, ``response``, ``baseline_response``; of ``integrated`` ``incompleteness``, the part by
        which the map does not add up, and ``n_steps``; with `check`, ``similarity`` to the map of random weights (rank
        correlation of absolute values) and ``is_changed``.

    Raises
    ------
    InvalidParameterError

    Warns
    -----
    AttributionWarning
        If a map hardly changes with random weights, or an integral does not add up within 1 %.

    Examples
    --------
    >>> import berg, numpy as np
    >>> from berg.experiments import attribute
    >>> model = berg.load("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.82})
    >>> picture = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), dtype="uint8")
    >>> found = attribute(model, picture, "integrated", check=False)
    >>> bool(found.incompleteness[0] < 0.01)
    True
    """
    if method not in METHODS:
        raise InvalidParameterError(
            f"There is no method '{method}'.{did_you_mean(method, METHODS)} There are: {listing(METHODS)}."
        )
    responder = Responder(model)
    given, names = _read(pictures, responder)
    low, high = responder.range
    options = _options(
        given, baseline, low, high, batch_size or model.batch_size, n_samples, noise, patch_pixels, n_masks, mask_cells,
        seed,
    )  # fmt: skip
    respond = _of_units(responder, unit)
    random = _of_units(Responder(with_random_weights(model, seed)), unit) if check else None
    maps, facts, similarities = [], [], []
    with progress_bar(method, len(given), "pictures", show_progress) as advance:
        for picture in given:
            found, fact = METHODS[method](respond, picture, options)
            maps.append(found)
            facts.append(fact)
            if random is not None:
                similarities.append(similarity(found, METHODS[method](random, picture, options)[0]))
            advance(1)
    result = _result(given, names, maps, facts, respond, options).assign_attrs(unit=responder.unit)
    if check:
        result["similarity"] = ("stimulus", similarities)
        result["is_changed"] = ("stimulus", np.array(similarities) < UNCHANGED)
    _warn(result)
    told: dict[str, Any] = {"method": method, "unit": unit, "baseline": "grey" if baseline is None else "given"}
    told |= {"n_samples": n_samples, "noise": noise, "patch_pixels": options.patch, "n_masks": n_masks}
    told |= {"mask_cells": mask_cells, "check": check}
    return described(result, "attribute", [responder.source], seed, **told)


def _read(pictures: Any, responder: Responder) -> tuple[Tensor, list[str]]:
    expected = responder.model.expected_input
    opened = open_stimuli(pictures, expected)
    array = opened.read(slice(0, len(opened)))
    names = stimulus_labels(None, stimulus_files(pictures, expected), len(array), pictures)
    return torch.from_numpy(np.ascontiguousarray(array)).float().to(responder.device), [str(name) for name in names]


def _options(
    pictures: Tensor, baseline: Any, low: float, high: float, batch: int, n_samples: int, noise: float,
    patch: int | None, n_masks: int, cells: int, seed: int,
) -> Options:  # fmt: skip
    shape = tuple(pictures.shape[1:])
    side = max(1, round(min(shape[1:]) / 12)) if patch is None else patch
    if min(n_samples, n_masks, batch) < 1 or not 0 < noise <= 1 or not 1 <= side <= min(shape[1:]) or cells < 2:
        raise InvalidParameterError(
            f"n_samples={n_samples}, n_masks={n_masks}, noise={noise:g}, patch_pixels={side}, mask_cells={cells}: "
            "numbers are positive, noise lies in (0, 1], a patch fits into the picture, a mask has at least 2 cells."
        )
    grey = torch.full(shape, (low + high) / 2) if baseline is None else torch.from_numpy(np.array(baseline)).float()
    if tuple(grey.shape) != shape:
        raise InvalidParameterError(
            f"baseline has shape {tuple(grey.shape)}, the pictures {shape}. Give one of that shape."
        )
    return Options(grey.to(pictures), high - low, batch, n_samples, noise, side, n_masks, cells, seed)


def _of_units(responder: Responder, unit: int | None) -> Respond:
    if unit is not None and not 0 <= unit < responder.n_units:
        raise InvalidParameterError(f"There is no unit {unit}; the model has {responder.n_units:,}, counted from 0.")
    return lambda pictures: responder(pictures).mean(1) if unit is None else responder(pictures)[:, unit]


# Methods: from (respond, picture, options) to a map (height, width), and what is known of it


def _slope(respond: Respond, pictures: Tensor) -> Tensor:
    leaf = pictures.detach().clone().requires_grad_()
    responses = respond(leaf)
    if not responses.requires_grad:
        raise InvalidParameterError(
            "This model cannot be differentiated by its pictures. Try method='occlusion' or 'rise'."
        )
    (slope,) = torch.autograd.grad(responses.sum(), leaf)
    if not torch.isfinite(slope).all():
        raise InvalidParameterError("The gradient of this model is not finite. Try method='occlusion' or 'rise'.")
    return slope


def _gradient(respond: Respond, picture: Tensor, options: Options) -> tuple[Floats, dict[str, float]]:
    return _array(_slope(respond, picture[None])[0].abs().amax(0)), {}


def _smoothgrad(respond: Respond, picture: Tensor, options: Options) -> tuple[Floats, dict[str, float]]:
    rng, total = np.random.default_rng(options.seed), torch.zeros_like(picture)
    for start in range(0, options.n_samples, options.batch):
        n = min(options.batch, options.n_samples - start)
        drawn = rng.standard_normal((n, *picture.shape), np.float32)
        total += _slope(respond, picture + options.noise * options.span * torch.from_numpy(drawn).to(picture)).sum(0)
    return _array((total / options.n_samples).abs().amax(0)), {}


def _integrated(respond: Respond, picture: Tensor, options: Options) -> tuple[Floats, dict[str, float]]:
    with torch.no_grad():
        both = respond(torch.stack([picture, options.grey])).double()
    difference = float(both[0] - both[1])
    scale = max(abs(difference), 1e-4 * float(both.abs().max()), 1e-12)
    n_steps = 16
    while True:
        found = _integral(respond, picture, options, n_steps)
        incompleteness = abs(float(found.sum()) - difference) / scale
        if incompleteness <= COMPLETE or n_steps >= MOST_STEPS:
            return _array(found.sum(0)), {"incompleteness": incompleteness, "n_steps": n_steps}
        n_steps *= 2


def _integral(respond: Respond, picture: Tensor, options: Options, n_steps: int) -> Tensor:
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    t = (nodes + 1) / 2
    places, parts = t**3, weights / 2 * 3 * t**2
    apart = picture - options.grey
    total = torch.zeros_like(picture, dtype=torch.float64)
    for start in range(0, n_steps, options.batch):
        rows = slice(start, start + options.batch)
        along = torch.from_numpy(places[rows]).to(picture)[:, None, None, None]
        slopes = _slope(respond, options.grey + along * apart).double()
        total += torch.einsum("n,nchw->chw", torch.from_numpy(parts[rows]).to(slopes), slopes)
    return total * apart


def _occlusion(respond: Respond, picture: Tensor, options: Options) -> tuple[Floats, dict[str, float]]:
    height, width = picture.shape[1:]
    step = max(1, options.patch // 2)
    corners = [
        (top, left) for top in _starts(height, options.patch, step) for left in _starts(width, options.patch, step)
    ]
    total, counts = torch.zeros(height, width, dtype=torch.float64), torch.zeros(height, width, dtype=torch.float64)
    with torch.no_grad():
        whole = respond(picture[None]).double().item()
        for start in range(0, len(corners), options.batch):
            part = corners[start : start + options.batch]
            covered = picture.repeat(len(part), 1, 1, 1)
            for own, (top, left) in zip(covered, part, strict=True):
                patch = (slice(None), slice(top, top + options.patch), slice(left, left + options.patch))
                own[patch] = options.grey[patch]
            lost = whole - respond(covered).double().cpu()
            for value, (top, left) in zip(lost, part, strict=True):
                total[top : top + options.patch, left : left + options.patch] += value
                counts[top : top + options.patch, left : left + options.patch] += 1
    return _array(total / counts), {}


def _starts(length: int, patch: int, step: int) -> list[int]:
    """Where patches begin; the last ends at the border."""
    return sorted({*range(0, length - patch + 1, step), length - patch})


def _rise(respond: Respond, picture: Tensor, options: Options) -> tuple[Floats, dict[str, float]]:
    rng = np.random.default_rng(options.seed)
    height, width = picture.shape[1:]
    responses, total, seen = [], torch.zeros(height, width, dtype=torch.float64), torch.zeros(height, width).double()
    with torch.no_grad():
        middle = float(respond(torch.stack([picture, options.grey])).double().mean())
        for start in range(0, options.n_masks, options.batch):
            masks = _masks(min(options.batch, options.n_masks - start), height, width, options.cells, rng).to(picture)
            found = respond(options.grey + masks[:, None] * (picture - options.grey)).double().cpu() - middle
            responses.append(found)
            total += torch.einsum("n,nhw->hw", found, masks.double().cpu())
            seen += masks.double().cpu().sum(0)
    return _array(total / seen - torch.cat(responses).mean()), {}


def _masks(n: int, height: int, width: int, cells: int, rng: np.random.Generator) -> Tensor:
    """Cells that are seen or not, with soft borders, moved by chance; shape (n, height, width)."""
    high, wide = -(-height // cells), -(-width // cells)
    coarse = torch.from_numpy(rng.random((n, 1, cells + 1, cells + 1)) < 0.5).float()
    large = functional.interpolate(
        coarse, ((cells + 1) * high, (cells + 1) * wide), mode="bilinear", align_corners=False
    )
    found = torch.empty(n, height, width)
    for own, mask in zip(found, large[:, 0], strict=True):
        top, left = rng.integers(0, high + 1), rng.integers(0, wide + 1)
        own.copy_(mask[top : top + height, left : left + width])
    return found


METHODS: dict[str, Callable[[Respond, Tensor, Options], tuple[Floats, dict[str, float]]]] = {
    "gradient": _gradient,
    "smoothgrad": _smoothgrad,
    "integrated": _integrated,
    "occlusion": _occlusion,
    "rise": _rise,
}


def similarity(one: Floats, other: Floats) -> float:
    """Rank correlation of the absolute values of two maps; 1 if neither varies, 0 if one does not.

    Examples
    --------
    >>> similarity(np.array([[1.0, -2], [3, 4]]), np.array([[2.0, 3], [-5, 9]]))
    1.0
    """
    varies = [np.ptp(np.abs(own)) > 0 for own in (one, other)]
    if not all(varies):
        return float(not any(varies))
    return float(spearmanr(np.abs(one).ravel(), np.abs(other).ravel()).statistic)


def _array(found: Tensor) -> Floats:
    return np.asarray(found.detach().cpu().numpy(), np.float64)


# The result


def _result(
    pictures: Tensor,
    names: list[str],
    maps: list[Floats],
    facts: list[dict[str, float]],
    respond: Respond,
    options: Options,
) -> xr.Dataset:
    with torch.no_grad():
        responses = torch.cat([respond(part) for part in torch.split(pictures, options.batch)]).cpu().numpy()
        base = float(respond(options.grey[None])[0])
    result = xr.Dataset(
        {
            "attribution": (("stimulus", "row", "column"), np.stack(maps)),
            "picture": (("stimulus", "colour", "row", "column"), pictures.cpu().numpy()),
            "response": ("stimulus", responses),
            "baseline_response": base,
        },
        {"stimulus": names},
    )
    for name in facts[0]:
        result[name] = ("stimulus", [own[name] for own in facts])
    return result


def _warn(result: xr.Dataset) -> None:
    n = result.sizes["stimulus"]
    if "is_changed" in result and (n_same := int((~result["is_changed"]).sum())):
        warnings.warn(
            f"{n_same} of {n} maps hardly change when the weights of the model are random (rank correlation from "
            f"{UNCHANGED:g} on): they show the picture, not the model. Try another method, or fewer units.",
            AttributionWarning,
            stacklevel=users_stacklevel(),
        )
    if "incompleteness" in result and (n_short := int((result["incompleteness"] > COMPLETE).sum())):
        worst = float(result["incompleteness"].max())
        warnings.warn(
            f"{n_short} of {n} maps do not add up to the response within {100 * COMPLETE:g} % (the worst: "
            f"{100 * worst:.1f} %). Give a baseline that is nearer to the pictures, or try method='occlusion'.",
            AttributionWarning,
            stacklevel=users_stacklevel(),
        )


def draw(result: xr.Dataset, n: int = 4) -> Sheet:
    """Pictures above, their maps below, all maps in one scale."""
    from berg.plotting.colours import draw_bar, scale_of
    from berg.plotting.page import new_sheet, styled

    told = parameters_of(result)
    shown = result.isel(stimulus=slice(0, n))
    n_shown, side = shown.sizes["stimulus"], 1.4
    is_signed = told["method"] in ("integrated", "occlusion", "rise")
    label = f"attribution ({result.attrs['unit']})" if is_signed else f"slope ({result.attrs['unit']} per value)"
    what = "the mean of the units" if told["unit"] is None else f"unit {told['unit']}"
    facts = [*facts_of(result), f"{told['method']}, {what}, {result.sizes['row']} x {result.sizes['column']} pixels"]
    if "incompleteness" in result:
        facts.append(f"maps add up within {100 * float(result['incompleteness'].max()):.2g} %")
    if "similarity" in result:
        facts.append(f"below maps: rank correlation with the map of random weights; marked from {UNCHANGED:g} on")
    with styled():
        sheet, frame = new_sheet(3.35, "What responses are due to", facts)
        scale = scale_of([shown["attribution"].values], label, is_signed)
        for place in range(n_shown):
            own = shown.isel(stimulus=place)
            _draw_one(sheet, frame, own, place, side, scale)
        bar = sheet.add_axes(frame.rectangle(0.12 + n_shown * (side + 0.12), 0.4, 0.1, 1.2))
        draw_bar(sheet, bar, scale, inside=True)
    return sheet


def _draw_one(sheet: Any, frame: Any, own: xr.Dataset, place: int, side: float, scale: Any) -> None:
    left = 0.1 + place * (side + 0.12)
    above = sheet.add_axes(frame.rectangle(left, 1.78, side, side))
    picture = own["picture"].transpose("row", "column", "colour").values
    low, high = (0, 255) if picture.max() > 1 else (0, 1)
    above.imshow(np.clip((picture - low) / (high - low), 0, 1))
    above.set_title(f"{own.stimulus.values}: {float(own['response']):.2f}"[-28:], size=6.5, pad=2, parse_math=False)
    below = sheet.add_axes(frame.rectangle(left, 0.27, side, side))
    below.imshow(scale.rgba(own["attribution"].values))
    for axes in (above, below):
        axes.set_axis_off()
    if "similarity" in own:
        mark = "" if bool(own["is_changed"]) else "  NOT OF THE MODEL"
        below.text(0.5, -0.03, f"random weights: {float(own['similarity']):.2f}{mark}", transform=below.transAxes,
                   ha="center", va="top", size=6.5)  # fmt: skip
