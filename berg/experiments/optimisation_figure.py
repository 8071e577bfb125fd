"""The figure of an optimisation."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from berg.experiments.result import facts_of, parameters_of
from berg.plotting.page import new_sheet, styled

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

_OWN, _OTHER, _REFERENCE = "#3b6ea5", "#b03a2e", "0.72"
_TITLES = {
    "maximise": "Pictures that drive a model",
    "minimise": "Pictures that silence a model",
    "match": "Pictures that evoke a pattern",
    "contrast": "Pictures that drive one and not the other",
    "controversial": "Controversial pictures",
}


def drawn(result: xr.Dataset, n: int) -> Sheet:
    """Pictures above; below the course of the search, and scores on every model."""
    told = parameters_of(result)
    best = np.argsort(-result["score"].values, kind="stable")[:n]
    n_models = 1 + result.sizes.get("other", 0)
    high = 1.75 + 0.42 * n_models
    verdict = "" if "other" in result.coords else "  (not verified on another model)"
    facts = (
        *facts_of(result),
        f"{told['search']}, {told['parametrisation']}, jitter {told['jitter']} pixels",
        f"reference: {result.sizes['reference']} pictures, {told['reference']}",
    )
    with styled():
        sheet, frame = new_sheet(1.75 + max(high, 1.9), _TITLES[told["objective"]] + verdict, facts)
        bottom = max(high, 1.9)
        _pictures(sheet, frame, result, best, bottom)
        _curves(sheet.add_axes(frame.rectangle(0.6, 0.45, 2.3, bottom - 0.75)), result)
        _scores(sheet.add_axes(frame.rectangle(4.55, 0.45, 2.5, bottom - 0.75)), result)
    return sheet


def _pictures(sheet: Any, frame: Any, result: xr.Dataset, best: Any, bottom: float) -> None:
    for place, number in enumerate(best):
        axes = sheet.add_axes(frame.rectangle(0.6 + 1.62 * place, bottom + 0.1, 1.45, 1.45))
        picture = result["picture"].isel(picture_number=int(number)).transpose("row", "column", "colour").values
        low, high = (0, 255) if picture.dtype.kind in "iu" else (picture.min(), picture.max())
        axes.imshow(np.clip((picture - low) / max(high - low, 1e-9), 0, 1))
        axes.set_axis_off()
        axes.set_title(f"score {float(result['score'][int(number)]):.1f}", size=7, pad=2)


def _curves(axes: Any, result: xr.Dataset) -> None:
    curves = result["curve"].values
    axes.plot(np.arange(1, curves.shape[1] + 1), curves.T, color=_OWN, linewidth=0.8)
    axes.axhline(float(result["reference_score"].max()), color=_REFERENCE, linestyle="--", linewidth=0.8)
    axes.annotate("best reference picture", (1, float(result["reference_score"].max())), (2, 2), size=6, color="0.4",
                  xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", va="bottom")  # fmt: skip
    axes.set_xlabel("step")
    axes.set_ylabel("score (SD over reference)")


def _scores(axes: Any, result: xr.Dataset) -> None:
    names = ["its own model"] + [str(name) for name in result.coords.get("other", xr.DataArray([])).values]
    rng = np.random.default_rng(0)
    for row, name in enumerate(names):
        is_own = row == 0
        scores = result["score"].values if is_own else result["other_score"].sel(other=name).values
        reference = result["reference_score"] if is_own else result["other_reference_score"].sel(other=name)
        axes.plot(reference, -row + rng.uniform(-0.18, 0.18, reference.size), ".", color=_REFERENCE, markersize=2)
        axes.plot(scores, np.full(scores.shape, -row), "|", color=_OWN if is_own else _OTHER, markersize=11, mew=1.5)
    axes.set_yticks([-row for row in range(len(names))], [_short(name) for name in names], size=6.5, parse_math=False)
    axes.set_ylim(-len(names) + 0.4, 0.6)
    axes.set_xlabel("score (SD over reference)\ngrey: reference pictures; lines: these pictures")


def _short(name: str) -> str:
    return "\n".join(textwrap.wrap(name, 26))
