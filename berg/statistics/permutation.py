r"""Whether an accuracy is above chance: permutations of stimuli.

They take stimuli as exchangeable: independent pictures are, near-copies and successive frames of one recording are
not. Near-copies are given as `groups`, which are then moved as a whole; for samples in time there is
`berg.statistics.in_time.shift_test`, or `block_length` for stretches of one length.

Arrays are as in `berg.statistics.metrics`: stimuli first, then units; a measured NaN is missing for its unit alone.
All random numbers come from `seed` and are the same for all units, which is what the maximum statistic needs; results
do not depend on the blocks of units or on the number of threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from berg.core.exceptions import InvalidParameterError
from berg.statistics.array_kinds import Array
from berg.statistics.autocorrelation import warn_of_neighbours
from berg.statistics.groups import Groups, Indices, Seed, independent_groups, orders_of_groups, signs, sums_over_groups
from berg.statistics.metrics import matrices, standardised_pair
from berg.statistics.options import check_choice
from berg.statistics.p_values import TIE, PermutationTest, max_statistic_p
from berg.statistics.unit_blocks import CACHE_BYTES, Floats, Mask, by_pattern, read_units, unit_blocks
from berg.system.progress import progress_bar
from berg.system.threads import n_cores

T = TypeVar("T")


def permutation_test(
    measured: Array,
    predicted: Array,
    n_permutations: int = 1000,
    *,
    alternative: Literal["greater", "two-sided"] = "greater",
    block_length: int = 1,
    groups: Groups | None = None,
    seed: Seed = 0,
    n_threads: int | None = None,
    show_progress: bool | None = None,
) -> PermutationTest:
    r"""Test whether predictions go with the measured responses better than predictions for other stimuli would.

    Under the null hypothesis any stimulus could have evoked any response. The predictions are given to the stimuli in
    another order m times, the same order for all units, and

    .. math:: p = \frac{b + 1}{m + 1}

    with b orders whose r is at least the observed one (Phipson & Smyth 2010, Stat Appl Genet Mol Biol 9:39): never 0,
    and a valid test at every m. If there are at most `n_permutations` orders in all, each is taken once and the
    test is exact. Missing stimuli of a unit are taken out of each order.

    Parameters
    ----------
    measured, predicted
        Shape (n_stimuli, ...units).
    n_permutations
        The least p is 1 / (n_permutations + 1).
    alternative
        ``"greater"``: predictions go with the responses. ``"two-sided"``: or against them; then \|r\| counts.
    block_length
        Stimuli in a row that are moved together; 1 for independent stimuli.
    groups
        Shape (n_stimuli,), a label for each: near-copies have the same. Groups of one size change their places as a
        whole. Groups that differ in size, also as some of their stimuli are missing, change the sign of what they
        add to r (Hemerik, Goeman & Finos 2020, J R Stat Soc B 82:841), which holds for many groups, and for few if
        responses are symmetric about their mean.
    seed
        Of the orders.
    n_threads
        None: as many as the process has cores.
    show_progress
        None: a bar if standard error is a terminal.

    Returns
    -------
    test
        With p values of shape (...units). Beside input and result, memory takes 8 bytes per permutation and stimulus,
        and per thread about 20 MB and 8 bytes per permutation and unit of a block (515 stimuli and 1,000
        permutations: 30 MB a thread).

    Raises
    ------
    InvalidParameterError
        The shapes differ, there is no permutation, or fewer than two blocks or groups; or both are given.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.standard_normal((50, 1))
    >>> measured = signal + rng.standard_normal((50, 1))
    >>> test = permutation_test(measured, signal, 999)
    >>> test.p
    array([0.001])
    """
    check_choice("alternative", alternative, ("greater", "two-sided"))
    measured, predicted, tolerance, shape = matrices(measured, predicted)
    n_stimuli, n_units = measured.shape
    exchange = _exchange(n_stimuli, n_permutations, block_length, groups, seed)
    if groups is None:
        warn_of_neighbours(measured, predicted, block_length)
    r, p, maximum = np.empty(n_units), np.empty(n_units), np.full(exchange.n, -np.inf)

    def block(units: slice) -> tuple[slice, Floats]:
        pair = read_units(measured, units), read_units(predicted, units)
        r[units], p[units], block_maximum = _permute(*pair, exchange, tolerance, alternative == "two-sided")
        return units, block_maximum

    with progress_bar("Permute", n_units, "units", show_progress) as advance:
        for units, block_maximum in _threaded(block, unit_blocks(n_stimuli, n_units, CACHE_BYTES), n_threads):
            np.maximum(maximum, block_maximum, out=maximum)
            advance(units.stop - units.start)
    statistic = np.abs(r) if alternative == "two-sided" else r
    p_family = max_statistic_p(statistic, maximum).reshape(shape)
    return PermutationTest(r.reshape(shape), p.reshape(shape), p_family, maximum)


@dataclass(frozen=True)
class _Exchange:
    """What is done to the predictions, each time the same for all units.

    Attributes
    ----------
    orders
        Shape (n, n_stimuli); None if groups differ in size.
    signs
        Shape (n, n_groups), if there are groups.
    groups
        Shape (n_stimuli,), their numbers.
    """

    orders: Indices | None
    signs: Floats | None = None
    groups: Indices | None = None

    @property
    def n(self) -> int:
        """How often."""
        return len(self.orders if self.orders is not None else self.signs)  # type: ignore[arg-type]

    def null(self, m: Floats, p: Floats, kept: Mask) -> Floats:
        """Correlations of units that have the stimuli `kept`, each time; shape (n, n_units)."""
        if self.groups is not None and self.signs is not None and not self._keeps_whole_groups(kept):
            (terms,) = sums_over_groups([(m * p).T], self.groups)
            return self.signs @ terms.T
        if self.orders is None:
            raise AssertionError("groups of different sizes are never kept whole")
        if kept.all():
            return _null_of_orders(m, p, self.orders)
        return _null_of_orders(m[kept], p[kept], _without(self.orders, kept))

    def _keeps_whole_groups(self, kept: Mask) -> bool:
        if self.orders is None or self.groups is None:
            return False
        n_kept = np.bincount(self.groups, kept)
        return bool(((n_kept == 0) | (n_kept == n_kept.max())).all() and n_kept.max() == np.bincount(self.groups)[0])


def _exchange(n_stimuli: int, n: int, block_length: int, groups: Groups | None, seed: Seed) -> _Exchange:
    numbers = independent_groups(groups, n_stimuli, block_length)
    if numbers is None:
        return _Exchange(permuted_orders(n_stimuli, n, block_length, seed))
    sizes = np.bincount(numbers)
    orders = permuted_orders(len(sizes), n, 1, seed)
    if (sizes != sizes[0]).any():
        return _Exchange(None, signs(len(sizes), n, seed), numbers)
    random_signs = np.random.default_rng(seed).choice((-1.0, 1.0), (len(orders), len(sizes)))
    return _Exchange(orders_of_groups(numbers, orders), random_signs, numbers)


def permuted_orders(n_stimuli: int, n_permutations: int, block_length: int = 1, seed: Seed = 0) -> Indices:
    """Orders of stimuli other than the given one: all there are, or that many random ones.

    Returns
    -------
    orders
        Shape (n_permutations or fewer, n_stimuli), indices from 0. Random ones may repeat, and may be the given one.
    """
    blocks = _stretches(n_stimuli, block_length)
    if n_permutations < 1 or len(blocks) < 2:
        raise InvalidParameterError(
            f"{n_permutations} permutations of {n_stimuli} stimuli in blocks of {block_length}: at least one "
            "permutation and two blocks are needed. Try n_permutations=1000, block_length=1."
        )
    if len(blocks) <= 20 and math.factorial(len(blocks)) - 1 <= n_permutations:
        places: Iterable[Iterable[int]] = list(itertools.permutations(range(len(blocks))))[1:]
    else:
        rng = np.random.default_rng(seed)
        places = rng.permuted(np.tile(np.arange(len(blocks)), (n_permutations, 1)), axis=1)
        if block_length == 1:
            return np.asarray(places, dtype=np.intp)
    return np.array([np.concatenate([blocks[i] for i in order]) for order in places], dtype=np.intp)


def _stretches(n_stimuli: int, block_length: int) -> list[Indices]:
    """Neighbouring stimuli that are moved together; the last stretch may be shorter."""
    if block_length < 1:
        raise InvalidParameterError(f"block_length is {block_length}; it must be at least 1. Try block_length=1.")
    return [np.arange(start, min(start + block_length, n_stimuli)) for start in range(0, n_stimuli, block_length)]


def _threaded(function: Callable[[slice], T], blocks: Iterable[slice], n_threads: int | None) -> Iterable[T]:
    """Results in the order of the blocks; NumPy lets go of Python's lock in what takes long here."""
    with ThreadPoolExecutor(n_threads or n_cores()) as pool:
        yield from pool.map(function, blocks)


def _permute(
    measured: Floats, predicted: Floats, exchange: _Exchange, tolerance: tuple[float, float], two_sided: bool
) -> tuple[Floats, Floats, Floats]:
    """R, p, and the largest null statistic in each order, of one block of units."""
    m, p = standardised_pair(measured, predicted, tolerance)
    observed = np.clip(np.einsum("su,su->u", m, p), -1.0, 1.0)
    null = np.empty((exchange.n, m.shape[1]))
    for kept, units in by_pattern(~np.isnan(measured)):
        null[:, units] = exchange.null(m[:, units], p[:, units], kept)
    null[:, np.isnan(observed)] = np.nan  # also where nothing at all was measured
    statistic = np.abs(observed) if two_sided else observed
    null = np.abs(null, out=null) if two_sided else null
    reached = (null >= statistic - TIE).sum(axis=0)
    p_values = np.where(np.isnan(observed), np.nan, (reached + 1) / (exchange.n + 1))
    largest = np.where(np.isnan(null), -np.inf, null).max(axis=1)
    return observed, p_values, largest


def _null_of_orders(m: Floats, p: Floats, orders: Indices) -> Floats:
    """Correlations in all orders; shape (n_orders, n_units)."""
    p, moved = np.ascontiguousarray(p), np.empty(m.shape)
    r = np.empty((len(orders), m.shape[1]))
    for i, order in enumerate(orders):
        np.take(p, order, axis=0, out=moved, mode="clip")
        np.einsum("su,su->u", moved, m, out=r[i])
    return r


def _without(orders: Indices, kept: Mask) -> Indices:
    """The same orders, of the stimuli that are kept, counted anew."""
    place = np.cumsum(kept) - 1
    own: Indices = place[orders[kept[orders]]].reshape(len(orders), -1)
    return own
