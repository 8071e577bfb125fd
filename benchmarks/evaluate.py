"""Tests and intervals of a whole cortex, beside a plain loop over units with scipy, in one run.

python benchmarks/evaluate.py                       # 327,684 vertices x 515 images, 1,000 permutations
python benchmarks/evaluate.py --vertices 32768      # a tenth

The loop runs on a few units, after the package's side, and its time is multiplied up. Three ways of writing it: for
each unit the product of all its permuted predictions with its responses in NumPy, ``scipy.stats.pearsonr`` of all units
for each permutation, and ``scipy.stats.permutation_test``. The first two must give the same p values.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from berg.evaluation import (
    bootstrap_interval,
    leave_one_repeat_out,
    ncsnr_ceiling,
    pearson_r,
    permutation_test,
    r2_score,
    split_half_ceiling,
)
from berg.statistics.permutation import permuted_orders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vertices", type=int, default=327_684)
    parser.add_argument("--images", type=int, default=515)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sample", type=int, default=200, help="units of the loops")
    arguments = parser.parse_args()
    measured, predicted = simulate(arguments.images, arguments.vertices)
    print(f"{arguments.vertices:,} vertices, {arguments.images} images, {arguments.permutations} permutations")
    compare_permutations(measured, predicted, arguments)
    n_draws = arguments.permutations
    timed("bootstrap, BCa", lambda: bootstrap_interval(measured, predicted, n_resamples=n_draws))
    timed("Pearson r", lambda: pearson_r(measured, predicted))
    timed("r2", lambda: r2_score(measured, predicted))
    compare_bootstrap(measured, predicted, arguments)
    ceilings(measured, arguments)


def simulate(n_images: int, n_vertices: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    predicted = rng.standard_normal((n_images, n_vertices), dtype=np.float32)
    measured = rng.standard_normal((n_images, n_vertices), dtype=np.float32)
    for image in range(n_images):  # no second array, whose memory would hide what is measured here
        measured[image] += 0.2 * predicted[image]
    return measured, predicted


def timed(name: str, run: Callable[[], Any]) -> tuple[Any, float]:
    before, start = peak(), time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    print(f"{name:34s} {seconds:8.1f} s   peak memory + {(peak() - before) / 2**20:.0f} MB", flush=True)
    return result, seconds


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def compare_permutations(measured: Any, predicted: Any, arguments: argparse.Namespace) -> None:
    found, seconds = timed("permutation test", lambda: permutation_test(measured, predicted, arguments.permutations))
    orders = permuted_orders(arguments.images, arguments.permutations)
    sample = np.linspace(0, arguments.vertices - 1, arguments.sample).astype(int)
    m, p = measured[:, sample].astype(np.float64), predicted[:, sample].astype(np.float64)
    for name, loop in (("NumPy", numpy_loop), ("scipy.stats.pearsonr", scipy_loop)):
        start = time.perf_counter()
        p_values = loop(m, p, orders)
        whole = (time.perf_counter() - start) * arguments.vertices / len(sample)
        np.testing.assert_allclose(p_values, found.p[sample], atol=1e-12)
        report(name, whole, seconds)
    start = time.perf_counter()
    for unit in range(2):
        scipy_test(m[:, unit], p[:, unit], arguments.permutations)
    report("scipy.stats.permutation_test", (time.perf_counter() - start) * arguments.vertices / 2, seconds)


def report(name: str, whole: float, seconds: float) -> None:
    print(f"  {name:32s} {whole:8.1f} s   {whole / seconds:.1f} times as long (from a sample)", flush=True)


def numpy_loop(measured: Any, predicted: Any, orders: Any) -> Any:
    """One unit after the other, with all its permutations at once."""
    p_values = []
    for unit in range(measured.shape[1]):
        m = stats.zscore(measured[:, unit]) / len(measured)
        p = stats.zscore(predicted[:, unit])
        p_values.append((np.sum(p[orders] @ m >= p @ m) + 1) / (len(orders) + 1))
    return p_values


def scipy_loop(measured: Any, predicted: Any, orders: Any) -> Any:
    """One permutation after the other, with all units of the sample at once."""
    r = stats.pearsonr(measured, predicted, axis=0).statistic
    reached = sum(stats.pearsonr(measured, predicted[order], axis=0).statistic >= r for order in orders)
    return (reached + 1) / (len(orders) + 1)


def scipy_test(measured: Any, predicted: Any, n_permutations: int) -> Any:
    return stats.permutation_test(
        (predicted,),
        lambda moved: stats.pearsonr(moved, measured).statistic,
        permutation_type="pairings",
        vectorized=False,
        n_resamples=n_permutations,
        alternative="greater",
    )


def compare_bootstrap(measured: Any, predicted: Any, arguments: argparse.Namespace) -> None:
    sample = slice(0, 5)
    m, p = measured[:, sample].astype(np.float64), predicted[:, sample].astype(np.float64)
    ours = bootstrap_interval(m, p, n_resamples=arguments.permutations)
    start = time.perf_counter()
    for unit in range(5):
        theirs = stats.bootstrap(
            (m[:, unit], p[:, unit]),
            lambda x, y, axis: stats.pearsonr(x, y, axis=axis).statistic,
            paired=True,
            n_resamples=arguments.permutations,
            rng=np.random.default_rng(0),
        ).confidence_interval
        np.testing.assert_allclose([ours.low[unit], ours.high[unit]], theirs, atol=1e-8)
    whole = (time.perf_counter() - start) * arguments.vertices / 5
    print(f"  {'scipy.stats.bootstrap':32s} {whole:8.1f} s   for all, from 5 units; the same intervals", flush=True)


def ceilings(measured: Any, arguments: argparse.Namespace) -> None:
    """On a tenth of the vertices: the repeats of all would take several GB."""
    tenth = measured[:, : arguments.vertices // 10]
    rng = np.random.default_rng(1)
    repeats = rng.standard_normal((arguments.repeats, *tenth.shape), dtype=np.float32)
    repeats += tenth
    print(f"{tenth.shape[1]:,} vertices, {arguments.repeats} repeats")
    timed("ceiling, ncsnr", lambda: ncsnr_ceiling(repeats))
    timed("ceiling, 100 split halves", lambda: split_half_ceiling(repeats))
    timed("ceiling, leave one repeat out", lambda: leave_one_repeat_out(repeats))


if __name__ == "__main__":
    main()
