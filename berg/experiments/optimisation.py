"""Pictures that a model responds to as wanted: made by following its gradient, or by evolution.

What is found drives the model, which is not yet the brain: a search finds whatever the model answers to, also what no
cortex would. So every result is compared with photographs, and verified on models that it was not made with. A
synthesis that only its own model believes is marked.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.core.stacklevel import users_stacklevel
from berg.experiments.generators import Generator
from berg.experiments.objectives import Goal
from berg.experiments.other_models import other_models
from berg.experiments.picture_making import Look, Making, making_of
from berg.experiments.picture_search import FoundPictures, Search, found_pictures, in_range
from berg.experiments.result import described
from berg.experiments.units import Responder, responder_of
from berg.stimuli.photographs import squares

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

Floats = NDArray[np.float64]
Pictures = NDArray[Any]
BELIEVED = 0.95
"""A picture is believed by a model for which its score exceeds those of this part of the reference pictures."""
N_REFERENCE = 120


class SynthesisWarning(UserWarning):
    """Pictures were made that no other model was asked about, or that another model does not believe."""


def optimise(
    model: Any,
    objective: str = "maximise",
    *,
    against: Any = None,
    target: Any = None,
    parametrisation: Literal["fourier", "pixel", "blurred"] = "fourier",
    generator: Generator | None = None,
    search: Literal["gradient", "evolution"] = "gradient",
    n_pictures: int = 4,
    steps: int = 256,
    learning_rate: float = 0.05,
    patience: int | None = 50,
    population: int = 40,
    pixels: int | None = None,
    width_deg: float | None = None,
    aperture_deg: tuple[float, float, float] | None = None,
    rms_contrast: float | None = None,
    jitter: int | None = None,
    receptive_field_deg: float | None = None,
    reference: Any = None,
    verify: Sequence[Any] | Literal["others"] = "others",
    batch_size: int | None = None,
    seed: int = 0,
    resume: Path | str | None = None,
    show_progress: bool | None = None,
) -> xr.Dataset:
    """Make pictures that a model responds to as wanted, and verify them on other models.

    Parameters
    ----------
    model
        Loaded; its selection is what is driven (the mean of its units).
    objective
        ``maximise``, ``minimise``, ``match`` (a `target`), ``contrast`` (drive `model`, not `against`) or
        ``controversial`` (`model` says much, `against` says little); see `berg.experiments.objectives`.
    against
        A second model, or another selection of the same.
    target
        For ``match``: responses of the units, or a picture that evokes them.
    parametrisation
        ``fourier``; ``pixel``; or ``blurred``: pixels whose gradient is blurred, at a fixed contrast (0.2 if
        `rms_contrast` does not say another).
    generator
        Makes the pictures instead: anything that has a ``code_size`` and turns codes into pictures in [0, 1].
    search
        ``gradient``, or ``evolution``, which needs responses alone.
    n_pictures
        Searches from different starts, computed in batches.
    steps
        At most; generations of an evolution.
    learning_rate
        Of Adam.
    patience
        A search stops after so many steps without a better picture; None: never.
    population
        Codes of a generation.
    pixels
        Along each side, if the model takes any; 224 by default.
    width_deg
        How wide pictures are seen, if the model does not know; for `aperture_deg` and `receptive_field_deg`.
    aperture_deg
        x, y and radius of the disc that pictures are limited to; grey outside.
    rms_contrast
        Standard deviation of pixel values in [0, 1].
    jitter
        Pixels that pictures are moved by at most in each step. By default a quarter of the smallest receptive field
        (its standard deviation), at most 8 pixels, or 0 if it is not known; more is refused.
    receptive_field_deg
        The standard deviation of the smallest receptive field, if the model does not know it.
    reference
        Pictures that scores are compared with, of the size of those that are made; by default 120 squares of six
        photographs.
    verify
        Models that say whether they believe the pictures; for two models, pairs. ``others``: other subjects and
        another network, as far as they are here.
    batch_size
        Pictures computed together.
    seed
        Of the starts.
    resume
        A .npz file in which the search is kept, every half a minute and at its end; given again, the experiment goes on
        from there. It refuses another search, another model, and pictures that the model responds to otherwise.
    show_progress
        None: a bar if standard error is a terminal.

    Returns
    -------
    result
        ``picture`` as the model takes it; ``score`` of each (of the integers, not of the search), ``share`` of the
        reference pictures that it exceeds, ``reference_score``, ``curve`` of the search, ``n_steps``, ``response`` of
        each unit; of each other model ``other_score``, ``other_share``, ``other_reference_score``, ``is_believed``.
        The attribute ``summary`` says it in words.

    Raises
    ------
    InvalidParameterError
    StoreMismatchError
        If `resume` is of another search.

    Warns
    -----
    SynthesisWarning
        If there is no model to verify pictures on, or one does not believe them.

    Examples
    --------
    >>> import berg
    >>> from berg.experiments import optimise
    >>> model = berg.load("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.82})
    >>> another = berg.load("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.75})  # for want of a subject 2
    >>> found = optimise(model, n_pictures=1, steps=30, learning_rate=0.3, pixels=64, verify=[another])
    >>> found.picture.dtype, found.sizes["row"]
    (dtype('uint8'), 64)
    """
    look = Look(parametrisation, generator, pixels, width_deg, aperture_deg, rms_contrast, jitter, receptive_field_deg)
    batch = batch_size or getattr(model, "batch_size", None) or 16
    settings = Search(search, n_pictures, steps, learning_rate, patience, population, int(batch), seed)
    responders = _responders(model, against, settings.by_gradient)
    making = making_of(look, responders, settings.by_gradient, seed)
    shown = _reference(reference, responders[0], making.size, seed)
    goal = Goal(objective, responders, shown, target)
    found = found_pictures(goal, making, settings, resume, show_progress)
    result = _result(goal, found)
    result = result.merge(_verified(_others(verify, model, against), goal, target, found.pictures, shown))
    told = {**settings.told(), "objective": objective, "reference": _told_of(reference, shown), **_looks(look, making)}
    told["verified_on"] = result["other"].values if "other" in result.coords else []
    result = described(result, "optimise", [own.source for own in responders], seed, **told)
    result.attrs["summary"] = summary_of(result, objective)
    if "other" not in result.coords or not bool(result["is_believed"].all()):
        warnings.warn(result.attrs["summary"], SynthesisWarning, stacklevel=users_stacklevel())
    return result


def _responders(model: Any, against: Any, with_gradient: bool) -> list[Responder]:
    given = [(model, "model")] + ([] if against is None else [(against, "against")])
    return [responder_of(own, what, with_gradient) for own, what in given]


def _looks(look: Look, making: Making) -> dict[str, Any]:
    """What a result says of the look of its pictures."""
    return {
        "parametrisation": look.name, "size": making.size, "aperture_deg": look.aperture_deg,
        "rms_contrast": making.rms_contrast, "jitter": making.jitter,
    }  # fmt: skip


def _told_of(reference: Any, shown: Pictures) -> str:
    return "squares of six photographs" if reference is None else f"{len(shown)} given"


def _reference(reference: Any, responder: Responder, size: tuple[int, int], seed: int) -> Any:
    if reference is None:
        side = max(size)
        top, left = (side - size[0]) // 2, (side - size[1]) // 2
        shown = squares(N_REFERENCE, side, seed)[:, :, top : top + size[0], left : left + size[1]]
        return responder.integers(in_range(torch.from_numpy(shown).float() / 255, responder))
    from berg.stimuli.images import load_images

    pictures = (
        load_images(reference) if isinstance(reference, (str, list)) or hasattr(reference, "iterdir") else reference
    )
    if getattr(pictures, "ndim", 0) != 4 or len(pictures) < 10:
        raise InvalidParameterError(
            f"reference has shape {getattr(pictures, 'shape', None)}; give at least 10 pictures, (n, 3, height, "
            "width), or a folder of pictures of one size."
        )
    return pictures


# The result


def _result(goal: Goal, found: FoundPictures) -> xr.Dataset:
    integers, curves = found.pictures, found.curves
    responses = goal.responders[0].encode(integers)
    scores = goal.of_integers(integers)
    longest = max(map(len, curves))
    padded = np.array([curve + [np.nan] * (longest - len(curve)) for curve in curves])
    axes = ("picture_number", "colour", "row", "column")
    result = xr.Dataset(
        {
            "picture": (axes, integers),
            "score": ("picture_number", scores),
            "share": ("picture_number", goal.shares(scores)),
            "reference_score": ("reference", goal.reference_scores),
            "curve": (("picture_number", "step"), padded),
            "n_steps": ("picture_number", [len(curve) for curve in curves]),
            "rms_contrast": ("picture_number", _rms(integers, goal.responders[0])),
            "response": (("picture_number", "unit"), responses),
        },
        {"colour": ["red", "green", "blue"]},
    )
    for name in ("score", "reference_score", "curve"):
        result[name].attrs["units"] = "standard deviations over the reference pictures"
    return result.assign_coords(goal.responders[0].labels)


def _rms(integers: Pictures, responder: Responder) -> Floats:
    low, high = responder.range
    return np.asarray(integers.astype(np.float64).std((1, 2, 3)) / (high - low))


def _others(verify: Any, model: Any, against: Any) -> list[list[Any]]:
    """The models that a result is verified on, each as those of the objective: one, or a pair."""
    if isinstance(verify, str):
        if verify != "others":
            raise InvalidParameterError(f"verify is '{verify}'; give a list of loaded models, or 'others'.")
        if not hasattr(model, "card"):
            return []
        found = other_models(model)
        if against is None:
            return [[own] for own in found]
        second = {_kind(own, model): own for own in (other_models(against) if hasattr(against, "card") else [])}
        return [[own, second[_kind(own, model)]] for own in found if _kind(own, model) in second]
    if against is None:
        return [[own] for own in verify]
    if any(not isinstance(own, (list, tuple)) or len(own) != 2 for own in verify):
        raise InvalidParameterError(
            "With against=, verify is a list of pairs of loaded models: [[other, other_against]]."
        )
    return [list(own) for own in verify]


def _kind(other: Any, model: Any) -> tuple[Any, ...]:
    return other.get_model_id() == model.get_model_id(), other.parameters.get("subject")


def _verified(others: list[list[Any]], goal: Goal, target: Any, integers: Pictures, reference: Any) -> xr.Dataset:
    """Scores of other models, and whether they believe the pictures."""
    if not others:
        return xr.Dataset()
    names, scores, shares, references = [], [], [], []
    for models in others:
        responders = [responder_of(own, "verify", False) for own in models]
        _check_independent(responders, goal.responders)
        try:
            other = Goal(goal.objective, responders, reference, target)
        except InvalidParameterError:
            if goal.objective != "match" or np.ndim(target) == 3:
                raise
            continue  # a pattern of these units says nothing of others
        names.append(" against ".join(_name(own) for own in responders))
        scores.append(other.of_integers(integers))
        shares.append(other.shares(scores[-1]))
        references.append(other.reference_scores)
    if not names:
        return xr.Dataset()
    return xr.Dataset(
        {
            "other_score": (("other", "picture_number"), np.stack(scores)),
            "other_share": (("other", "picture_number"), np.stack(shares)),
            "other_reference_score": (("other", "reference"), np.stack(references)),
            "is_believed": (("other", "picture_number"), np.stack(shares) >= BELIEVED),
        },
        {"other": names},
    )


def _check_independent(others: Sequence[Responder], own: Sequence[Responder]) -> None:
    """Raise if a model is to verify what was made with itself."""
    if any(one.model is other.model or one.source == other.source for one, other in zip(own, others, strict=True)):
        raise InvalidParameterError(
            f"verify has {_name(others[0])} with the selection that the pictures are made with, which cannot verify "
            "them. Give another subject or another network."
        )


def _name(responder: Responder) -> str:
    source = responder.source
    subject = f", subject {source['subject']}" if "subject" in source else ""
    return f"{source['model_id']}{subject}"


def summary_of(result: xr.Dataset, objective: str) -> str:
    """How well the pictures do on their model and on others, in words."""
    n = result.sizes["picture_number"]
    own = result["score"].mean().item()
    above = result["share"].mean().item()
    text = f"{n} pictures, {objective}: mean score {own:.2f}, above {100 * above:.0f} % of the reference pictures."
    if "other" not in result.coords:
        alone = "NOT VERIFIED: no other model is here, so that only their own model believes them. Give verify=[...]."
        return f"{text} {alone}"
    for name in result["other"].values:
        other = result.sel(other=name)
        score, share = other["other_score"].mean().item(), other["other_share"].mean().item()
        n_believed = int(other["is_believed"].sum())
        text += f" On {name}: {score:.2f} (drop {own - score:.2f}), above {100 * share:.0f} %"
        text += "." if n_believed == n else f"; it DOES NOT BELIEVE {n - n_believed} of {n}."
    return text


def draw(result: xr.Dataset, n: int = 4) -> Sheet:
    """Some of the pictures, the course of the search, and scores beside those of photographs, on every model."""
    from berg.experiments.optimisation_figure import drawn

    return drawn(result, n)
