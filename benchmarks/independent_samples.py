"""False positives and coverage where samples are not independent: along time, and in groups of near-copies.

python benchmarks/independent_samples.py              # about three minutes on one core
python benchmarks/independent_samples.py --units 400  # a rough look

All series are simulated and nothing connects them, or what connects them is known. Of the true r, 95 % of intervals
should hold it; of independent units, 5 % should have p <= .05. Beside each is what stretches of n / 20 samples, or
single stimuli, would have given. The tables are those of docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from berg.evaluation import (
    SamplesWarning,
    bootstrap_interval,
    chance_ceiling,
    effective_samples,
    interval_in_time,
    ncsnr_ceiling,
    noise_effective_samples,
    permutation_test,
    shift_test,
)
from berg.fitting.linear_solvers import ridge_cv

Floats = NDArray[np.float64]
IN_TIME = [(150, 0.8), (150, 0.95), (400, 0.0), (400, 0.5), (400, 0.8), (400, 0.9), (400, 0.95), (2000, 0.95)]
GROUPS = [
    ("20 of 5", [5] * 20),
    ("8 of 12", [12] * 8),
    ("20 of 1 to 10", [*range(1, 11)] * 2),
    ("50 of 1 to 5", [*range(1, 6)] * 10),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", SamplesWarning)
    rng = np.random.default_rng(arguments.seed)
    for title, rows in (
        ("Independent series in time", in_time(rng, arguments.units)),
        ("Series of known r in time, n = 400", related(rng, arguments.units)),
        ("Intervals of r2 in time, in stretches", of_r2(rng, arguments.units // 5)),
        ("Pure noise, three repeats of 400 samples, above its chance ceiling", ceilings(rng, arguments.units)),
        ("Groups of near-copies, nothing else in common", in_groups(rng, arguments.units)),
        ("Cross-validation over near-copies, nothing to be found", folds(rng)),
    ):
        print(f"\n{title}")
        for row in rows:
            print("| " + " | ".join(row) + " |", flush=True)


def series(rng: np.random.Generator, n: int, n_units: int, ar: float) -> Floats:
    """Of variance 1, correlated by `ar` from one sample to the next."""
    steps = rng.standard_normal((n + 500, n_units)) * np.sqrt(1 - ar**2)
    found: Floats = lfilter([1.0], [1.0, -ar], steps, axis=0)[500:]
    return found


def in_time(rng: np.random.Generator, n_units: int) -> Iterator[list[str]]:
    yield ["n", "AR", "effective samples", "p <= .05", "in stretches of n/20", "intervals with 0", "of stretches"]
    for n, ar in IN_TIME:
        m, p = series(rng, n, n_units, ar), series(rng, n, n_units, ar)
        few = m[:, : n_units // 4], p[:, : n_units // 4]  # what is slower
        before = permutation_test(*few, 199, block_length=n // 20).p
        stretches = bootstrap_interval(*few, n_resamples=500, block_length=n // 20)
        yield [
            f"{n:,}",
            f"{ar:g}",
            f"{np.median(effective_samples(m, p)):.0f}",
            percent(shift_test(m, p).p <= 0.05),
            percent(before <= 0.05),
            share(interval_in_time(m, p), 0.0),
            share(stretches, 0.0),
        ]


def related(rng: np.random.Generator, n_units: int) -> Iterator[list[str]]:
    yield ["series", "true r", "intervals with it"]
    draw: Callable[[float], Floats] = lambda ar: series(rng, 400, n_units, ar)  # noqa: E731
    for ar in (0.5, 0.9, 0.95):
        signal, white = draw(ar), draw(0.0)
        cases = {
            f"signal and noise AR {ar:g}": (signal + draw(ar), signal, 0.5**0.5),
            f"signal AR {ar:g}, white noise": (signal + draw(0.0), signal, 0.5**0.5),
            f"white signal, noise AR {ar:g} in both": (white + draw(ar), white + draw(ar), 0.5),
        }
        for name, (m, p, r) in cases.items():
            yield [name, f"{r:.3f}", share(interval_in_time(m, p), r)]


def of_r2(rng: np.random.Generator, n_units: int) -> Iterator[list[str]]:
    yield ["n", "AR", "effective samples", "block_length", "intervals with the true r2", "of single samples"]
    for n, ar in ((400, 0.5), (400, 0.9), (2000, 0.5), (2000, 0.9), (2000, 0.95)):
        signal = series(rng, n, n_units, ar)
        measured = signal + series(rng, n, n_units, ar)
        n_effective = np.median(effective_samples(measured, signal))
        lengths = (int(np.ceil(3 * n / n_effective)), 1)
        intervals = [
            bootstrap_interval(measured, signal, "r2", n_resamples=500, block_length=length) for length in lengths
        ]
        yield [
            f"{n:,}",
            f"{ar:g}",
            f"{n_effective:.0f}",
            str(lengths[0]),
            *(share(interval, 0.5) for interval in intervals),
        ]


def ceilings(rng: np.random.Generator, n_units: int) -> Iterator[list[str]]:
    yield ["AR", "by the effective number", "by all samples"]
    for ar in (0.0, 0.5, 0.9, 0.95):
        repeats = np.stack([series(rng, 400, n_units, ar) for _ in range(3)])
        ceiling, n_effective = ncsnr_ceiling(repeats), noise_effective_samples(repeats)
        yield [f"{ar:g}", percent(ceiling > chance_ceiling(n_effective, 3)), percent(ceiling > chance_ceiling(400, 3))]


def in_groups(rng: np.random.Generator, n_units: int) -> Iterator[list[str]]:
    yield ["groups", "responses", "p <= .05", "by stimulus", "intervals with 0 (BCa, percentile)", "by stimulus"]
    for name, sizes in GROUPS:
        for kind in ("normal", "lognormal"):
            groups = np.repeat(np.arange(len(sizes)), sizes)
            m, p = (near_copies(rng, groups, n_units, kind) for _ in range(2))
            by_group = [
                bootstrap_interval(m, p, n_resamples=500, groups=groups, method=of) for of in ("bca", "percentile")
            ]
            yield [
                name,
                kind,
                percent(permutation_test(m, p, 499, groups=groups).p <= 0.05),
                percent(permutation_test(m, p, 499).p <= 0.05),
                ", ".join(share(interval, 0.0) for interval in by_group),
                share(bootstrap_interval(m, p, n_resamples=500), 0.0),
            ]


def near_copies(rng: np.random.Generator, groups: NDArray[np.intp], n_units: int, kind: str = "normal") -> Floats:
    """The same of all stimuli of a group, but for a tenth."""
    own = rng.standard_normal((groups.max() + 1, n_units))
    own = np.exp(own) if kind == "lognormal" else own
    return own[groups] + 0.1 * rng.standard_normal((len(groups), n_units))


def folds(rng: np.random.Generator) -> Iterator[list[str]]:
    yield ["folds", "median r2 over folds", "median penalty"]
    groups = np.repeat(np.arange(40), 5)
    features, targets = near_copies(rng, groups, 30), near_copies(rng, groups, 200)
    for name, own in (("by group", groups), ("by stimulus", None)):
        found = ridge_cv(features, targets, groups=own)
        yield [name, f"{np.median(found.scores):.3f}", f"{np.median(found.alphas):,.0f}"]


def percent(wrong: Any) -> str:
    return f"{np.mean(wrong):.1%}"


def share(interval: Any, true: float) -> str:
    return f"{np.mean((interval.low <= true) & (interval.high >= true)):.3f}"


if __name__ == "__main__":
    main()
