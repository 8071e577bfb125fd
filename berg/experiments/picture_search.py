"""The search for pictures: codes that follow the gradient of a goal, or evolve, from several starts.

A search that takes long is kept in a file as it is at the moment, its random state among it, so that it ends with the
same pictures as without an interruption.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from berg.core.exceptions import InvalidParameterError, listing
from berg.experiments.evolution import Population, evolve
from berg.experiments.finished_parts import FinishedParts, Part, task_of
from berg.experiments.generators import start_codes
from berg.experiments.objectives import Goal
from berg.experiments.picture_making import Making
from berg.experiments.units import Responder
from berg.system.progress import progress_bar

Floats = NDArray[np.float64]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Search:
    """How codes are searched; see `berg.experiments.optimise`.

    Raises
    ------
    InvalidParameterError
        For a kind that there is not, and numbers out of their range.
    """

    kind: str
    n_pictures: int
    steps: int
    learning_rate: float
    patience: int | None
    population: int
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.kind not in ("gradient", "evolution"):
            raise InvalidParameterError(f"search is '{self.kind}'; there are gradient and evolution.")
        counts = (self.n_pictures, self.steps, 1 if self.patience is None else self.patience)
        if min(counts) < 1 or not self.learning_rate > 0 or self.population < 4:
            raise InvalidParameterError(
                f"n_pictures={self.n_pictures}, steps={self.steps}, patience={self.patience}, "
                f"learning_rate={self.learning_rate:g}, population={self.population}: all are positive, and a "
                "population has at least 4."
            )

    @property
    def by_gradient(self) -> bool:
        """Whether the gradient is followed."""
        return self.kind == "gradient"

    def told(self) -> dict[str, Any]:
        """What a result says of the search."""
        names = ("steps", "learning_rate", "patience", "population")
        return {"search": self.kind} | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class FoundPictures:
    """What a search ended with.

    Attributes
    ----------
    pictures
        As the model takes them, shape (n_pictures, 3, height, width).
    curves
        The scores of each search, step by step.
    """

    pictures: NDArray[Any]
    curves: list[list[float]]


def found_pictures(
    goal: Goal, making: Making, search: Search, resume: Path | str | None = None, show_progress: bool | None = None
) -> FoundPictures:
    """The best pictures that were met from each start.

    Raises
    ------
    InvalidParameterError
        If the gradient is to be followed, and there is none.
    StoreMismatchError
        If the file to resume is of another search.
    """
    finished = _finished(resume, goal, making, search)
    run = _followed if search.by_gradient else _evolved
    codes, curves = run(goal, making, search, finished, show_progress)
    with torch.no_grad():
        made = torch.cat([making.pictures(part) for part in torch.split(codes, search.batch)])
    responder = goal.responders[0]
    return FoundPictures(responder.integers(in_range(made, responder)), curves)


def in_range(pictures: Tensor, responder: Responder) -> Tensor:
    """Pictures in [0, 1] in the range of values of a model."""
    low, high = responder.range
    return low + (high - low) * pictures


def _finished(resume: Path | str | None, goal: Goal, making: Making, search: Search) -> FinishedParts:
    """What was kept of this search: the same numbers, the same models, and pictures that are made the same."""
    if resume is None:
        return FinishedParts(None, "")
    with torch.no_grad():
        first = making.pictures(start_codes(making.generator, 1, search.seed, goal.responders[0].device))
    arrays = {"first": first.cpu().numpy().round(4), "reference": goal.reference_scores.round(4)}
    sources = [json.dumps(own.source, default=str) for own in goal.responders]
    stated = {"objective": goal.objective, "jitter": making.jitter, "sources": sources}
    if goal.target is not None:
        arrays["target"] = goal.target.round(4)
    return FinishedParts(resume, task_of(arrays, **asdict(search), **stated))


# Following the gradient


def _followed(
    goal: Goal, making: Making, search: Search, finished: FinishedParts, show_progress: bool | None
) -> tuple[Tensor, list[list[float]]]:
    """The best codes that the gradient led to, and the score of each search in each step."""
    start = start_codes(making.generator, search.n_pictures, search.seed, goal.responders[0].device)
    found, curves = [], []
    chunks = torch.split(start, search.batch)
    with progress_bar("optimising", search.steps * len(chunks), "steps", show_progress) as advance:
        for number, chunk in enumerate(chunks):
            climb = _climbed(goal, making, search, _Climb.begun(chunk, finished, f"batch {number}"), advance)
            found.append(climb.best)
            curves += [list(curve) for curve in zip(*climb.curves, strict=True)]
    return torch.cat(found), curves


@dataclass
class _Climb:
    """Some codes on their way up.

    Attributes
    ----------
    moments
        The two moments of Adam, None before the first step.
    curves
        The scores of each step, shape (n_steps, n_codes).
    """

    codes: Tensor
    best: Tensor
    best_score: Tensor
    waited: Tensor
    finished: FinishedParts
    name: str
    moments: tuple[Tensor, Tensor] | None = None
    curves: list[list[float]] = field(default_factory=list)
    is_over: bool = False

    @classmethod
    def begun(cls, start: Tensor, finished: FinishedParts, name: str) -> _Climb:
        """At the start; what was kept of it is taken up by `restore`."""
        nothing = torch.full((len(start),), -torch.inf, device=start.device)
        return cls(start.clone(), start.clone(), nothing, torch.zeros_like(nothing), finished, name)

    def restore(self, moves: np.random.Generator) -> None:
        """Go on from what was kept, if anything was."""
        if (kept := self.finished.get(self.name)) is None:
            return
        for name in ("codes", "best", "best_score", "waited"):
            setattr(self, name, torch.from_numpy(kept[name]).to(self.codes.device))
        self.moments = tuple(torch.from_numpy(own).to(self.codes.device) for own in kept["moments"])  # type: ignore[assignment]
        self.curves, self.is_over = kept["curves"].tolist(), bool(kept["is_over"])
        _set_state(moves, kept)

    def keep(self, moves: np.random.Generator, optimiser: torch.optim.Adam) -> None:
        """Put it as it is now."""
        nothing, own = torch.zeros_like(self.best), optimiser.state[self.codes]
        moments = np.stack([own.get(name, nothing).cpu().numpy() for name in ("exp_avg", "exp_avg_sq")])
        tensors = {
            name: getattr(self, name).detach().cpu().numpy() for name in ("codes", "best", "best_score", "waited")
        }
        part = {**tensors, "moments": moments, "curves": self.curves, "is_over": self.is_over, **_state(moves)}
        self.finished.put(self.name, part)

    def optimiser(self, learning_rate: float) -> torch.optim.Adam:
        """Adam, with its moments."""
        self.codes.requires_grad_()
        optimiser = torch.optim.Adam([self.codes], lr=learning_rate)
        if self.moments is not None:
            first, second = self.moments
            n_steps = torch.tensor(float(len(self.curves)))
            optimiser.state[self.codes] = {"step": n_steps, "exp_avg": first, "exp_avg_sq": second}
        return optimiser

    def note(self, scores: Tensor) -> None:
        """Keep the codes that are better than before."""
        better = scores > self.best_score
        self.best = torch.where(better[:, None], self.codes.detach(), self.best)
        self.best_score = torch.where(better, scores, self.best_score)
        self.waited = torch.where(better, torch.zeros_like(self.waited), self.waited + 1)
        self.curves.append(scores.cpu().tolist())


def _climbed(goal: Goal, making: Making, search: Search, climb: _Climb, advance: Advance) -> _Climb:
    climb.restore(making.moves)
    optimiser = climb.optimiser(search.learning_rate)
    advance(len(climb.curves))
    while not climb.is_over:
        optimiser.zero_grad()
        pictures = making.moved(making.pictures(climb.codes))
        scores = goal.of_pictures(in_range(pictures, goal.responders[0]))
        _check_slope(goal, scores)
        climb.note(scores.detach())
        advance(1)
        is_stuck = search.patience is not None and bool((climb.waited >= search.patience).all())
        climb.is_over = is_stuck or len(climb.curves) == search.steps
        if not climb.is_over:
            torch.autograd.backward(-scores.sum())
            _check_finite(goal, climb.codes)
            optimiser.step()
        if climb.finished.is_due or (climb.is_over and climb.finished.path is not None):
            climb.keep(making.moves, optimiser)
    advance(search.steps - len(climb.curves))
    return climb


def _check_slope(goal: Goal, scores: Tensor) -> None:
    if not scores.requires_grad:
        names = listing(own.model.get_model_id() for own in goal.responders)
        raise InvalidParameterError(
            f"{names}, or the generator, cannot be differentiated by pictures. Try search='evolution'."
        )


def _check_finite(goal: Goal, codes: Tensor) -> None:
    if codes.grad is None or not torch.isfinite(codes.grad).all():
        raise InvalidParameterError(
            f"The gradient of {goal.responders[0].model.get_model_id()} is not finite. Try search='evolution'."
        )


# Evolution


def _evolved(
    goal: Goal, making: Making, search: Search, finished: FinishedParts, show_progress: bool | None
) -> tuple[Tensor, list[list[float]]]:
    """The best code of each evolution, and the best score of each generation."""

    def score(codes: Floats) -> Floats:
        parts = torch.split(torch.from_numpy(codes).float(), search.batch)
        with torch.no_grad():
            made = torch.cat([making.pictures(part) for part in parts])
        return goal.of_integers(goal.responders[0].integers(in_range(made, goal.responders[0])))

    found, curves = [], []
    with progress_bar("evolving", search.steps * search.n_pictures, "generations", show_progress) as advance:
        for number in range(search.n_pictures):
            last = _evolution(score, making, search, number, finished, advance)
            found.append(torch.from_numpy(last.codes[int(np.argmax(last.scores))]).float())
            curves.append(last.curve)
    return torch.stack(found), curves


def _evolution(
    score: Callable[[Floats], Floats],
    making: Making,
    search: Search,
    number: int,
    finished: FinishedParts,
    advance: Advance,
) -> Population:
    """One evolution, from its start or from where it was kept."""
    name, rng = f"picture {number}", np.random.default_rng([search.seed, number])
    kept = finished.get(name)
    if kept is None:
        seed = int(rng.integers(2**31))
        first = start_codes(making.generator, search.population, seed, "cpu").double().numpy()
        population = Population(first, score(first))
    else:
        population = Population(kept["codes"], kept["scores"], kept["curve"].tolist())
        _set_state(rng, kept)

    def keep(now: Population, is_over: bool) -> None:
        if finished.is_due or (is_over and finished.path is not None):
            finished.put(name, {**vars(now), **_state(rng)})

    return evolve(score, population, search.steps, rng, search.patience, advance, keep)


# Random states


def _state(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    return {"random_state": np.array(json.dumps(rng.bit_generator.state))}


def _set_state(rng: np.random.Generator, kept: Mapping[str, NDArray[Any]] | Part) -> None:
    rng.bit_generator.state = json.loads(str(kept["random_state"]))
