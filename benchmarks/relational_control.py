"""Relational neural control: the published genetic kernel beside the exchange search, in processor time of one thread.

python benchmarks/relational_control.py                       # 2 generations of the published kernel, 2,000 of ours
python benchmarks/relational_control.py --generations 200     # a tenth of the genetic search
python benchmarks/relational_control.py --whole               # both analyses of 8 subjects, from parts of them

The published kernel (Gifford et al.; 200 parents, 2,400 sets scored per generation, one scipy correlation each) is
written here anew from its description, with loops over sets as it has them. What it would take is its time per
generation times 2,000. The score that it would reach is that of the same search in arrays (`genetic_search`).
Pictures are simulated: responses of two regions of 60 shared and 60 private latent variables each.

`--whole` is the time of the univariate analysis with all defaults, and of the multivariate one reckoned from its parts:
the searches of one fold, times 9, and 1,024 of the 100,000 random sets.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import pearsonr

from berg.experiments import univariate_control
from berg.experiments.exchange_search import exchange_search
from berg.experiments.finished_parts import FinishedParts
from berg.experiments.genetic_search import genetic_search
from berg.experiments.null_sets import score_null_sets
from berg.experiments.pattern_similarity import pattern_similarity
from berg.experiments.patterns import patterns
from berg.experiments.set_score import GOALS
from berg.statistics.random_sets import random_sets

SIZE, N_SETS, N_GENERATIONS, REPLACED = 50, 200, 2000, (1, 5, 12, 25, 38)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=500)
    parser.add_argument("--generations", type=int, default=N_GENERATIONS, help="of the genetic search in arrays")
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--goals", nargs="+", default=GOALS)
    parser.add_argument("--whole", action="store_true", help="the time of both analyses instead")
    arguments = parser.parse_args()
    if arguments.whole:
        whole(arguments.pictures, arguments.units, arguments.restarts)
        return
    x, y = (
        pattern_similarity([patterns(z)], name)
        for z, name in zip(simulate(arguments.pictures, arguments.units), "xy", strict=True)
    )
    matrices = x.dense().matrix, y.dense().matrix
    starts = random_sets(arguments.pictures, SIZE, arguments.restarts, seed=1)
    print(f"{arguments.pictures:,} pictures, {arguments.units} units, sets of {SIZE}", flush=True)
    for goal in arguments.goals:
        _, a_generation = timed(lambda: published(*matrices, 2, goal))  # noqa: B023
        print(f"{goal}: published kernel {a_generation / 2:.2f} s a generation", flush=True)
        published_time = a_generation / 2 * N_GENERATIONS
        for n in (1, arguments.restarts):
            found, seconds = timed(lambda: exchange_search(x, y, starts[:n], goal))  # noqa: B023
            best = found.scores.max() if goal == "align" else np.abs(found.scores).min()
            print(
                f"{goal}: exchange, {n} starts {seconds:.2f} s, best {best:.3g}, {found.n_steps.mean():.0f} swaps, "
                f"{published_time / seconds:,.0f} times less than {N_GENERATIONS:,} generations",
                flush=True,
            )
        history: list[float] = []
        ours, seconds = timed(
            lambda: genetic_search(
                x,
                y,
                starts[:1],
                goal,  # noqa: B023
                generations=arguments.generations,
                history=history,  # noqa: B023
            )
        )
        shown = [n for n in (1, 10, 50, 100, 200, 400, 1000, 2000) if n <= len(history)]
        curve = ", ".join(f"{n}: {abs(history[n - 1]):.3g}" for n in shown)
        print(
            f"{goal}: genetic search in arrays {seconds / arguments.generations:.2f} s a generation, after "
            f"{arguments.generations:,}: {ours.scores[0]:.3g} ({curve})",
            flush=True,
        )


def whole(n_pictures: int, n_units: int, n_restarts: int, n_subjects: int = 8) -> None:
    subjects = [simulate(n_pictures, n_units, seed) for seed in range(n_subjects)]
    first, second = ([own[region] for own in subjects] for region in (0, 1))
    _, seconds = timed(lambda: univariate_control(first, second, show_progress=False))
    print(f"{n_pictures:,} pictures, {n_subjects} subjects, {n_units} units; univariate {seconds:.1f} s", flush=True)
    regions, reading = timed(
        lambda: tuple(pattern_similarity([patterns(z) for z in own], "region") for own in (first, second))
    )
    n_sets, n_null = 1024, 100_000
    sets = random_sets(n_pictures, SIZE, n_sets, seed=2)
    _, scoring = timed(lambda: score_null_sets(regions, True, sets, FinishedParts(None, ""), False))
    print(f"patterns {reading:.1f} s; random sets {1000 * scoring / n_sets:.2f} ms each, {n_null:,}: "
          f"{scoring / n_sets * n_null:.0f} s", flush=True)  # fmt: skip
    starts = random_sets(n_pictures, SIZE, n_restarts, seed=1)
    total = 0.0
    for goal in GOALS:
        found, seconds = timed(lambda: exchange_search(*regions, starts, goal))  # noqa: B023
        total += seconds
        print(f"{goal}: {seconds:.1f} s a fold, {found.n_steps.mean():.0f} swaps", flush=True)
    folds = n_subjects + 1
    print(f"multivariate: {reading + scoring / n_sets * n_null + folds * total:.0f} s", flush=True)


def simulate(n_pictures: int, n_units: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, 61) ** -0.5
    shared = rng.standard_normal((n_pictures, 60)) * spectrum
    found = []
    for _ in range(2):
        own = rng.standard_normal((n_pictures, 60)) * spectrum
        z = shared @ rng.standard_normal((60, n_units)) + own @ rng.standard_normal((60, n_units))
        found.append((z + 0.3 * z.std() * rng.standard_normal(z.shape)).astype(np.float32))
    return found


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return run(), time.process_time() - start


def published(first: Any, second: Any, n_generations: int, goal: str) -> Any:
    """Set by set, as it is published: matrices of all pairs, scipy's correlation of the lower triangles."""
    rng = np.random.default_rng(0)
    n_pictures, below = len(first), np.tril_indices(SIZE, -1)

    def score(members: Any) -> float:
        own = np.ix_(members, members)
        r = pearsonr(first[own][below], second[own][below])[0]
        return r if goal == "align" else -abs(r)

    def new_set() -> Any:
        return rng.choice(n_pictures, SIZE, replace=False)

    def mutant(parent: Any, n_replaced: int) -> Any:
        child = parent.copy()
        others = np.setdiff1d(np.arange(n_pictures), parent)
        child[rng.choice(SIZE, n_replaced, replace=False)] = rng.choice(others, n_replaced, replace=False)
        return child

    parents = [new_set() for _ in range(N_SETS)]
    for _ in range(n_generations):
        everyone = [*parents, *(mutant(parent, n) for parent in parents for n in REPLACED)]
        everyone += [new_set() for _ in range(len(everyone))]
        merits = np.array([score(members) for members in everyone])
        parents = [everyone[at] for at in np.argsort(-merits)[:N_SETS]]
    return parents[0]


if __name__ == "__main__":
    main()
