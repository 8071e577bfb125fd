"""Pictures that a model responds to as wanted: made by following its gradient, or by evolution.

What is found drives the model, which is not yet the brain: a search finds whatever the model answers to, also what no
cortex would. So every result is compared with photographs, and verified on models that it was not made with. A
synthesis that only its own model believes is marked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.core.stacklevel import users_stacklevel
from berg.experiments.evolution import evolve
from berg.experiments.generators import PARAMETRISATIONS, Generator, check_generator, start_codes
from berg.experiments.objectives import Goal
from berg.experiments.other_models import other_models
from berg.experiments.result import described
from berg.experiments.units import Responder, responder_of, shape_of, width_deg_of
from berg.stimuli.photographs import squares
from berg.system.progress import progress_bar

if TYPE_CHECKING:
    from berg.plotting.page import Sheet

Floats = NDArray[np.float64]
Pictures = NDArray[Any]
JITTER_SHARE = 0.25
"""The most that a picture is moved, as a part of the smallest receptive field (its standard deviation)."""
BELIEVED = 0.95
"""A picture is believed by a model for which its score exceeds those of this part of the reference pictures."""
N_REFERENCE, PIXELS, MOST_JITTER = 120, 224, 8


class SynthesisWarning(UserWarning):
    """Pictures were made that no other model was asked about, or that another model does not believe."""


@dataclass(frozen=True)
class Making:
    """From codes to pictures in [0, 1], and how they are moved during the search.

    Attributes
    ----------
    mask
        Shape (height, width), 1 inside the aperture; None: all.
    rms_contrast
        Standard deviation of the pixel values of each picture, in [0, 0.5], about mid-grey; None: free.
    jitter
        Pixels that pictures are moved by at most, anew in each step.
    """

    generator: Generator
    mask: Tensor | None = None
    rms_contrast: float | None = None
    jitter: int = 0
    moves: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def pictures(self, codes: Tensor) -> Tensor:
        """In [0, 1], shape (n, 3, height, width)."""
        made = self.generator(codes)
        if self.rms_contrast is not None:
            centred = made - made.mean((1, 2, 3), keepdim=True)
            spread = centred.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
            made = (0.5 + self.rms_contrast * centred / spread).clamp(0, 1)
        return made if self.mask is None else 0.5 + (made - 0.5) * self.mask.to(made)

    def moved(self, pictures: Tensor) -> Tensor:
        """By chance, up to `jitter` pixels; the border is mirrored."""
        if not self.jitter:
            return pictures
        height, width = pictures.shape[-2:]
        top, left = self.moves.integers(0, 2 * self.jitter + 1, 2)
        wide = functional.pad(pictures, [self.jitter] * 4, mode="reflect")
        return wide[..., top : top + height, left : left + width]


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
    with_gradient = search == "gradient"
    _check_numbers(search, n_pictures, steps, learning_rate, patience, population)
    given = [(model, "model")] + ([] if against is None else [(against, "against")])
    responders = [responder_of(own, what, with_gradient) for own, what in given]
    making = _making(
        responders, parametrisation, generator, pixels, width_deg, aperture_deg, rms_contrast, jitter,
        receptive_field_deg, seed, with_gradient,
    )  # fmt: skip
    size = _size_of(making)
    pictures_of_reference = _reference(reference, responders[0], size, seed)
    goal = Goal(objective, responders, pictures_of_reference, target)
    batch: int = batch_size or getattr(model, "batch_size", None) or 16
    run = _follow if with_gradient else _evolved
    codes, curves = run(
        goal, making, n_pictures, steps, learning_rate, patience, population, batch, seed, show_progress
    )
    with torch.no_grad():
        made = torch.cat([making.pictures(part) for part in torch.split(codes, batch)])
    integers = responders[0].integers(_in_range(made, responders[0]))
    result = _result(goal, integers, curves)
    others = _others(verify, model, against)
    result = result.merge(_verified(others, goal, objective, target, integers, pictures_of_reference))
    told: dict[str, Any] = {
        "objective": objective, "parametrisation": parametrisation if generator is None else type(generator).__name__,
        "search": search, "steps": steps, "learning_rate": learning_rate, "patience": patience,
        "population": population, "size": size, "aperture_deg": aperture_deg, "rms_contrast": making.rms_contrast,
        "jitter": making.jitter,
        "reference": "squares of six photographs" if reference is None else f"{len(pictures_of_reference)} given",
        "verified_on": result["other"].values if "other" in result.coords else [],
    }  # fmt: skip
    result = described(result, "optimise", [own.source for own in responders], seed, **told)
    result.attrs["summary"] = summary_of(result, objective)
    if "other" not in result.coords or not bool(result["is_believed"].all()):
        warnings.warn(result.attrs["summary"], SynthesisWarning, stacklevel=users_stacklevel())
    return result


def _check_numbers(
    search: str, n_pictures: int, steps: int, learning_rate: float, patience: int | None, population: int
) -> None:
    if search not in ("gradient", "evolution"):
        raise InvalidParameterError(f"search is '{search}'; there are gradient and evolution.")
    if min(n_pictures, steps, 1 if patience is None else patience) < 1 or not learning_rate > 0 or population < 4:
        raise InvalidParameterError(
            f"n_pictures={n_pictures}, steps={steps}, patience={patience}, learning_rate={learning_rate:g}, "
            f"population={population}: all are positive, and a population has at least 4."
        )


# Making pictures


def _making(
    responders: Sequence[Responder],
    parametrisation: str,
    generator: Any,
    pixels: int | None,
    width_deg: float | None,
    aperture_deg: tuple[float, float, float] | None,
    rms_contrast: float | None,
    jitter: int | None,
    receptive_field_deg: float | None,
    seed: int,
    with_gradient: bool,
) -> Making:
    made: Any = (
        generator if generator is not None else _parametrised(responders[0], parametrisation, pixels, with_gradient)
    )
    check_generator(made)
    with torch.no_grad():
        height, width = made(torch.zeros(1, made.code_size)).shape[-2:]
    mask = None if aperture_deg is None else _disc(aperture_deg, height, width, width_deg_of(responders[0], width_deg))
    if rms_contrast is None and parametrisation == "blurred" and generator is None:
        rms_contrast = 0.2
    if rms_contrast is not None and not 0 < rms_contrast <= 0.5:
        raise InvalidParameterError(
            f"rms_contrast is {rms_contrast:g}; it must lie between 0 and 0.5 of the range of values."
        )
    most = _most_jitter(responders, receptive_field_deg, width, width_deg)
    if not with_gradient and jitter:
        raise InvalidParameterError("An evolution does not move pictures. Leave jitter out, or search by gradient.")
    if jitter is not None and (jitter < 0 or (most is not None and jitter > most) or jitter >= min(height, width)):
        raise InvalidParameterError(
            f"jitter is {jitter} pixels; it may be at most {most if most is not None else min(height, width) - 1}: a "
            f"larger move than {JITTER_SHARE:g} of the smallest receptive field blurs what drives it. Leave it out."
        )
    default = 0 if most is None or not with_gradient else min(most, MOST_JITTER)
    moves = np.random.default_rng([seed, 1])
    return Making(made, mask, rms_contrast, default if jitter is None else jitter, moves)


def _parametrised(responder: Responder, parametrisation: str, pixels: int | None, with_gradient: bool) -> Generator:
    if parametrisation not in PARAMETRISATIONS:
        raise InvalidParameterError(
            f"There is no parametrisation '{parametrisation}'.{did_you_mean(parametrisation, PARAMETRISATIONS)} There "
            f"are: {listing(PARAMETRISATIONS)}. For a network of your own, generator=."
        )
    stated = (
        [int(side) if side.isdigit() else None for side in shape_of(responder.model)[2:]] if responder.labels else []
    )
    size = tuple(side or pixels or PIXELS for side in stated or (None, None))
    if pixels is not None and set(size) != {pixels}:
        raise InvalidParameterError(
            f"pixels is {pixels}; {responder.model.get_model_id()} takes {size[0]} x {size[1]}."
        )
    if not with_gradient and parametrisation == "fourier":  # fewer values, which chance can move
        from berg.experiments.generators import Fourier

        few = Fourier((size[0], size[1]), most_cycles=16)
        few.start_sd = 1.0
        return few
    made: Generator = PARAMETRISATIONS[parametrisation]((size[0], size[1]))
    return made


def _disc(aperture_deg: tuple[float, float, float], height: int, width: int, width_deg: float) -> Tensor:
    """A disc whose border falls off over a tenth of its radius."""
    x, y, radius = map(float, aperture_deg)
    if not radius > 0:
        raise InvalidParameterError(f"aperture_deg is {aperture_deg}; it is x, y and a radius above 0, degrees.")
    per_deg = width / width_deg
    columns = (np.arange(width) + 0.5 - width / 2) / per_deg - x
    rows = (height / 2 - np.arange(height) - 0.5) / per_deg - y
    inside = (radius - np.hypot(columns[None], rows[:, None])) / (0.1 * radius) + 0.5
    mask = np.clip(inside, 0, 1)
    if not mask.any():
        raise InvalidParameterError(
            f"The aperture {aperture_deg} lies outside the picture, which is {width_deg:g} degrees wide."
        )
    return torch.from_numpy(mask).float()


def _most_jitter(
    responders: Sequence[Responder], receptive_field_deg: float | None, pixels: int, width_deg: float | None
) -> int | None:
    """In pixels; None if no receptive field is known."""
    known = [np.nanmin(own.labels["size_deg"][1]) for own in responders if "size_deg" in own.labels]
    sizes = [float(receptive_field_deg)] if receptive_field_deg is not None else list(map(float, known))
    if not sizes:
        return None
    return int(JITTER_SHARE * min(sizes) * pixels / width_deg_of(responders[0], width_deg))


def _size_of(making: Making) -> tuple[int, int]:
    with torch.no_grad():
        height, width = making.generator(torch.zeros(1, making.generator.code_size)).shape[-2:]
    return int(height), int(width)


def _reference(reference: Any, responder: Responder, size: tuple[int, int], seed: int) -> Any:
    if reference is None:
        side = max(size)
        top, left = (side - size[0]) // 2, (side - size[1]) // 2
        shown = squares(N_REFERENCE, side, seed)[:, :, top : top + size[0], left : left + size[1]]
        return responder.integers(_in_range(torch.from_numpy(shown).float() / 255, responder))
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


def _in_range(pictures: Tensor, responder: Responder) -> Tensor:
    low, high = responder.range
    return low + (high - low) * pictures


# Searching


def _follow(
    goal: Goal,
    making: Making,
    n_pictures: int,
    steps: int,
    learning_rate: float,
    patience: int | None,
    population: int,
    batch: int,
    seed: int,
    show_progress: bool | None,
) -> tuple[Tensor, list[list[float]]]:
    """The best codes that the gradient led to, and the score of each search in each step."""
    device = goal.responders[0].device
    start = start_codes(making.generator, n_pictures, seed, device)
    found, curves = [], []
    chunks = torch.split(start, batch)
    with progress_bar("optimising", steps * len(chunks), "steps", show_progress) as advance:
        for chunk in chunks:
            best, scores = _climb(goal, making, chunk, steps, learning_rate, patience, advance)
            found.append(best)
            curves += scores
    return torch.cat(found), curves


def _climb(
    goal: Goal,
    making: Making,
    start: Tensor,
    steps: int,
    learning_rate: float,
    patience: int | None,
    advance: Callable[[int], None],
) -> tuple[Tensor, list[list[float]]]:
    codes = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([codes], lr=learning_rate)
    best, best_score = start.clone(), torch.full((len(start),), -torch.inf, device=start.device)
    waited, curves = torch.zeros(len(start), device=start.device), []
    for step in range(steps):
        optimiser.zero_grad()
        scores = goal.of_pictures(_in_range(making.moved(making.pictures(codes)), goal.responders[0]))
        _check_slope(goal, scores)
        better = scores.detach() > best_score
        best, best_score = (
            torch.where(better[:, None], codes.detach(), best),
            torch.where(better, scores.detach(), best_score),
        )
        waited = torch.where(better, torch.zeros_like(waited), waited + 1)
        curves.append(scores.detach().cpu().tolist())
        advance(1)
        if patience is not None and bool((waited >= patience).all()):
            advance(steps - step - 1)
            break
        torch.autograd.backward(-scores.sum())
        if not torch.isfinite(codes.grad).all():  # type: ignore[arg-type]
            raise InvalidParameterError(
                f"The gradient of {goal.responders[0].model.get_model_id()} is not finite. Try search='evolution'."
            )
        optimiser.step()
    return best, [list(curve) for curve in zip(*curves, strict=True)]


def _check_slope(goal: Goal, scores: Tensor) -> None:
    if not scores.requires_grad:
        names = listing(own.model.get_model_id() for own in goal.responders)
        raise InvalidParameterError(
            f"{names}, or the generator, cannot be differentiated by pictures. Try search='evolution'."
        )


def _evolved(
    goal: Goal,
    making: Making,
    n_pictures: int,
    steps: int,
    learning_rate: float,
    patience: int | None,
    population: int,
    batch: int,
    seed: int,
    show_progress: bool | None,
) -> tuple[Tensor, list[list[float]]]:
    """The best code of each evolution, and the best score of each generation."""

    def score(codes: Floats) -> Floats:
        with torch.no_grad():
            made = torch.cat([making.pictures(part) for part in torch.split(torch.from_numpy(codes).float(), batch)])
        return goal.of_integers(goal.responders[0].integers(_in_range(made, goal.responders[0])))

    found, curves = [], []
    with progress_bar("evolving", steps * n_pictures, "generations", show_progress) as advance:
        for number in range(n_pictures):
            rng = np.random.default_rng([seed, number])
            first = start_codes(making.generator, population, int(rng.integers(2**31)), "cpu").double().numpy()
            best, curve = evolve(score, first, steps, rng, patience, advance)
            found.append(torch.from_numpy(best).float())
            curves.append(curve)
    return torch.stack(found), curves


# The result


def _result(goal: Goal, integers: Pictures, curves: list[list[float]]) -> xr.Dataset:
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


def _verified(
    others: list[list[Any]], goal: Goal, objective: str, target: Any, integers: Pictures, reference: Any
) -> xr.Dataset:
    """Scores of other models, and whether they believe the pictures."""
    if not others:
        return xr.Dataset()
    names, scores, shares, references = [], [], [], []
    for models in others:
        responders = [responder_of(own, "verify", False) for own in models]
        _check_independent(responders, goal.responders)
        try:
            other = Goal(objective, responders, reference, target)
        except InvalidParameterError:
            if objective != "match" or np.ndim(target) == 3:
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
