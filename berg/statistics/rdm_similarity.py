r"""How alike representational dissimilarities are, the noise ceiling, and both in bootstraps over stimuli and subjects.

A bootstrap draws stimuli with replacement, so that a pair counts as often as both were drawn, :math:`p_{ij} = w_i w_j`;
pairs of a stimulus with itself are left out. All comparisons but Kendall's are functions of weighted sums over pairs
(ranks too: a rank is how much weight lies below), so that no resampled matrix is ever made. Numbers are those of
rsatoolbox 0.3.2 (Schütt et al. 2023, eLife 12:e82566).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.statistics.concordance import paired_tau_a, tau_a
from berg.statistics.options import check_choice
from berg.statistics.unit_blocks import Floats

Comparison = Literal["pearson", "spearman", "rho-a", "kendall-tau-a", "cosine", "whitened cosine", "whitened pearson"]
COMPARISONS: tuple[Comparison, ...] = (
    "pearson",
    "spearman",
    "rho-a",
    "kendall-tau-a",
    "cosine",
    "whitened cosine",
    "whitened pearson",
)
_RANKS, _WHITENED = ("spearman", "rho-a", "kendall-tau-a"), ("whitened cosine", "whitened pearson")
_CENTRED = ("pearson", "spearman", "rho-a", "whitened pearson")
_LEAST_STIMULI = 3
_N_RESAMPLES, _BLOCK = 1024, 2**22  # of a block; numbers of the largest array of a block
_TINY = 1e-20  # of a mean square, where 1 is that of all pairs: what is smaller does not vary


def similarity(first: Any, second: Any, comparison: Comparison = "pearson") -> Floats:
    r"""Compare each of some dissimilarities with each of others.

    Parameters
    ----------
    first, second
        Shape (n_rdms, n_pairs) or (n_pairs,), pairs in the order of `berg.statistics.dissimilarity`.
    comparison
        ``"pearson"``; ``"spearman"``; ``"rho-a"``: Spearman's r if ties were broken at random, on average;
        ``"kendall-tau-a"``: concordant less discordant pairs of pairs over all of them; ``"cosine"``; ``"whitened
        cosine"``, ``"whitened pearson"``: after whitening by the covariance that dissimilarities of noisy patterns have
        as they share stimuli (Diedrichsen et al. 2021, arXiv 2007.02789). Of models that predict ties take one of those
        that end in a: Spearman's prefers ties.

    Returns
    -------
    similarity
        Shape (n_first, n_second); 0 for dissimilarities that are all the same.

    Raises
    ------
    InvalidParameterError
        If the numbers of pairs differ, are of no number of stimuli, or a value is not finite.

    Examples
    --------
    >>> similarity([1.0, 2.0, 3.0], [[1.0, 3.0, 2.0], [2.0, 4.0, 6.0]])
    array([[0.5, 1. ]])
    """
    check_choice("comparison", comparison, COMPARISONS)
    first, second = checked_rdms(first, "first"), checked_rdms(second, "second")
    if first.shape[1] != second.shape[1]:
        raise InvalidParameterError(
            f"The first dissimilarities have {first.shape[1]:,} pairs, the second {second.shape[1]:,}. Both need the "
            "same stimuli."
        )
    joint = np.concatenate([first, second])
    if comparison in _RANKS:
        once = np.ones(joint.shape[1])
        ranks = _ranks(_in_order(joint), once)
        return _of_ranks(ranks[: len(first)], ranks[len(first) :], once, comparison)
    needed = np.eye(len(joint), dtype=bool)
    needed[: len(first), len(first) :] = True
    kernel = _kernel(_ready(joint, comparison), np.ones((1, n_stimuli_of(joint.shape[1]))), needed, comparison)
    return _cosines(kernel.products)[0, : len(first), len(first) :]


def noise_ceiling(subjects: Any, comparison: Comparison = "pearson") -> tuple[float, float]:
    """How alike subjects are: the best that one model could do for all of them, from below and from above.

    The lower bound compares each subject with the pooled dissimilarities of the others, the upper with those of all,
    itself among them (Nili et al. 2014, PLoS Comput Biol 10:e1003553). Dissimilarities are pooled so that their mean is
    the best for the comparison: z-scored for Pearson's, of length one for cosines, ranks for the others.

    Parameters
    ----------
    subjects
        Shape (n_subjects, n_pairs), at least two subjects.

    Returns
    -------
    lower, upper
    """
    check_choice("comparison", comparison, COMPARISONS)
    subjects = checked_rdms(subjects, "subjects")
    if len(subjects) < 2:
        raise InvalidParameterError("A noise ceiling needs two subjects or more; of one it is not known.")
    whole = np.ones((1, n_stimuli_of(subjects.shape[1])))
    found = resampled(subjects[:1], subjects, whole, comparison=comparison)
    return float(found.lower[0]), float(found.upper[0])


@dataclass(frozen=True)
class Resampled:
    """Similarities of models with subjects in resamples of stimuli and subjects.

    Attributes
    ----------
    similarity
        Shape (n_resamples, n_models), the mean over the subjects that were drawn, each as often as it was; NaN in a
        resample with fewer than three stimuli.
    lower, upper
        Shape (n_resamples,): the noise ceiling, the mean over the subjects that were drawn, each once.
    """

    similarity: Floats
    lower: Floats
    upper: Floats

    @property
    def columns(self) -> Floats:
        """Models, then the lower and the upper bound; shape (n_resamples, n_models + 2)."""
        return np.concatenate([self.similarity, self.lower[:, None], self.upper[:, None]], axis=1)


def resampled(
    models: Floats,
    subjects: Floats,
    stimulus_counts: Floats,
    subject_counts: Floats | None = None,
    comparison: Comparison = "pearson",
    advance: Callable[[int], None] = lambda n: None,
) -> Resampled:
    """Compare models with subjects in each resample.

    Parameters
    ----------
    models, subjects
        Shape (n_models, n_pairs) and (n_subjects, n_pairs).
    stimulus_counts
        Shape (n_resamples, n_stimuli): how often each was drawn.
    subject_counts
        Shape (n_resamples, n_subjects); None: each subject once.
    advance
        Is told how many resamples more are done.
    """
    return resampled_together(models, subjects, stimulus_counts, [subject_counts], comparison, advance)[0]


def resampled_together(
    models: Floats,
    subjects: Floats,
    stimulus_counts: Floats,
    each_subject_counts: Sequence[Floats | None],
    comparison: Comparison = "pearson",
    advance: Callable[[int], None] = lambda n: None,
) -> list[Resampled]:
    """As `resampled`, of several draws of subjects with the same draws of stimuli, whose sums and ranks they share."""
    n_resamples, n_subjects = len(stimulus_counts), len(subjects)
    each_counts = [np.ones((n_resamples, n_subjects)) if own is None else own for own in each_subject_counts]
    joint = _ready(np.concatenate([subjects, models]), comparison)
    found = [Resampled(np.full((n_resamples, len(models)), np.nan), *np.full((2, n_resamples), np.nan))
             for _ in each_counts]  # fmt: skip
    usable = np.flatnonzero((stimulus_counts > 0).sum(1) >= _LEAST_STIMULI)
    of_weights: type[_OfRanks | _OfProducts] = _OfRanks if comparison in _RANKS else _OfProducts
    at_once = 1 if comparison in _RANKS else min(_N_RESAMPLES, _BLOCK // (len(joint) * stimulus_counts.shape[1]))
    prepared, weights = None, np.empty(0)
    for start in range(0, len(usable), max(1, at_once)):
        chosen = usable[start : start + max(1, at_once)]
        if prepared is None or not np.array_equal(weights, stimulus_counts[chosen]):
            weights = stimulus_counts[chosen]
            prepared = of_weights(joint, n_subjects, weights, comparison)
        for own, counts in zip(found, each_counts, strict=True):
            own.similarity[chosen], own.lower[chosen], own.upper[chosen] = prepared.compared(counts[chosen])
        advance(len(each_counts) * len(chosen))
    advance(len(each_counts) * (n_resamples - len(usable)))
    return found


def resampled_correlations(rdms: Floats, stimulus_counts: Floats, of_ranks: bool = False) -> Floats:
    """Pearson's or Spearman's correlations of all dissimilarities with each other in each resample.

    Parameters
    ----------
    rdms
        Shape (n_rdms, n_pairs).
    stimulus_counts
        Shape (n_resamples, n_stimuli): how often each was drawn; all once is the whole sample.

    Returns
    -------
    correlations
        Shape (n_resamples, n_rdms, n_rdms); NaN in a resample with fewer than three stimuli.
    """
    found = np.full((len(stimulus_counts), len(rdms), len(rdms)), np.nan)
    usable = np.flatnonzero((stimulus_counts > 0).sum(1) >= _LEAST_STIMULI)
    if of_ranks:
        ready, (i, j) = _in_order(rdms), np.triu_indices(stimulus_counts.shape[1], 1)
        for number in usable:
            weight = stimulus_counts[number, i] * stimulus_counts[number, j]
            pairs = np.flatnonzero(weight)
            ranks = _ranks(ready[:, pairs], weight[pairs])
            found[number] = _of_ranks(ranks, ranks, weight[pairs], "spearman")
        return found
    ready, needed = _ready(rdms, "pearson"), np.triu(np.ones((len(rdms), len(rdms)), bool))
    for start in range(0, len(usable), _N_RESAMPLES):
        chosen = usable[start : start + _N_RESAMPLES]
        found[chosen] = _cosines(_kernel(ready, stimulus_counts[chosen], needed, "pearson").products)
    return found


def n_stimuli_of(n_pairs: int) -> int:
    """How many stimuli have so many pairs; raise if none have."""
    n = round((1 + float(np.sqrt(1 + 8 * n_pairs))) / 2)
    if n < 2 or n * (n - 1) // 2 != n_pairs:
        raise InvalidParameterError(
            f"{n_pairs:,} dissimilarities are not all pairs of any number of stimuli (1, 3, 6, 10, ...). Give them as "
            "berg.statistics.dissimilarity.dissimilarities does, or  squareform(matrix)  of scipy.spatial.distance."
        )
    return n


def checked_rdms(rdms: Any, what: str) -> Floats:
    """Dissimilarities as float64 of shape (n_rdms, n_pairs), all finite."""
    array = np.atleast_2d(np.asarray(rdms, np.float64))
    if array.ndim != 2 or not len(array):
        raise InvalidParameterError(f"{what} have shape {array.shape}; they must be (rdms, pairs). See squareform.")
    n_stimuli_of(array.shape[1])
    if (bad := np.flatnonzero(~np.isfinite(array).all(1))).size:
        raise InvalidParameterError(
            f"{what}: dissimilarities number {listing(map(str, bad), 5)} are NaN or infinite at some pairs. Leave out "
            "the stimuli that they belong to."
        )
    return array


# Sums over pairs


def _ready(rdms: Floats, comparison: Comparison) -> Floats:
    """With mean 0 and mean square 1, if that changes no result, so that no digits are lost in sums."""
    if comparison in _RANKS:
        return _in_order(rdms)
    if comparison in _CENTRED:
        rdms = rdms - rdms.mean(1, keepdims=True)
    size = np.sqrt((rdms**2).mean(1, keepdims=True))
    return rdms / np.where(size > 0, size, 1.0)


@dataclass(frozen=True)
class _Kernel:
    """Inner products of dissimilarities, as a comparison takes them, in each resample.

    Attributes
    ----------
    products
        Shape (n_resamples, n_rdms, n_rdms), symmetric; 0 where it is not needed.
    pooling
        Shape (n_resamples, n_rdms): what each is multiplied by before all are added up.
    """

    products: Floats
    pooling: Floats


def _kernel(rdms: Floats, weights: Floats, needed: NDArray[np.bool_], comparison: Comparison) -> _Kernel:
    sums, products = _moments(rdms, weights, needed)
    n_drawn = weights.sum(1)
    n_pairs = (n_drawn**2 - (weights**2).sum(1)) / 2  # weight of all pairs of different stimuli
    means = sums / n_pairs[:, None] if comparison in _CENTRED else np.zeros_like(sums)
    products -= np.einsum("b,bi,bj->bij", n_pairs, means, means) * needed
    squares = np.einsum("bii->bi", products) / n_pairs[:, None]
    pooling = np.where(squares > _TINY, 1 / np.sqrt(np.maximum(squares, _TINY)), 0.0)
    if comparison in _WHITENED:
        products = 2 * products - _explained_by_stimuli(rdms, weights, means) * needed
    return _Kernel(products + np.triu(products, 1).transpose(0, 2, 1), pooling)


def _moments(rdms: Floats, weights: Floats, needed: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Weighted sums over pairs, of dissimilarities and of the products that are needed."""
    n_resamples, n_rdms = len(weights), len(rdms)
    one, other = np.nonzero(needed)
    sums, moments = np.zeros((n_resamples, n_rdms)), np.zeros((n_resamples, len(one)))
    first, second = np.triu_indices(weights.shape[1], 1)
    step = max(1, _BLOCK // max(n_resamples, len(one)))
    for start in range(0, len(first), step):
        pairs = slice(start, start + step)
        weight = weights[:, first[pairs]] * weights[:, second[pairs]]
        sums += weight @ rdms[:, pairs].T
        moments += weight @ (rdms[one, pairs] * rdms[other, pairs]).T
    products = np.zeros((n_resamples, n_rdms, n_rdms))
    products[:, one, other] = moments
    return sums, products


def _explained_by_stimuli(rdms: Floats, weights: Floats, means: Floats) -> Floats:
    r"""What whitening takes off the products: the part that effects of single stimuli explain.

    Of pairs of n drawn stimuli and the pair of each with itself (dissimilarity 0), off the diagonal twice, effects of
    stimuli are projected out, as double centring does if all pairs are there. With the sums :math:`s_i` over the pairs
    of stimulus i that has weight :math:`w_i`, and :math:`c_i = 1 + n / 2 - w_i`, the part explained is

    .. math:: \sum_i \frac{w_i s_i s'_i}{c_i} - \frac{\sum_i w_i s_i / c_i \sum_i w_i s'_i / c_i}{2 + \sum_i w_i / c_i}
    """
    n_drawn = weights.sum(1, keepdims=True)
    squares = np.stack([_square(rdm, weights.shape[1]) for rdm in rdms])
    sums = np.einsum("rij,bj->bri", squares, weights, optimize=True) - means[..., None] * (n_drawn - weights)[:, None]
    free = 1 + n_drawn / 2 - weights
    share = weights / np.where(np.abs(free) > 1e-7, free, 1e-7)  # the limit, where a stimulus is more than half of all
    parts = sums * share[:, None]
    linear = parts.sum(2)
    explained: Floats = parts @ sums.transpose(0, 2, 1)
    explained -= linear[:, :, None] * linear[:, None] / (2 + share.sum(1))[:, None, None]
    return explained


def _square(rdm: Floats, n_stimuli: int) -> Floats:
    matrix = np.zeros((n_stimuli, n_stimuli))
    matrix[np.triu_indices(n_stimuli, 1)] = rdm
    return matrix + matrix.T


def _cosines(products: Floats) -> Floats:
    """Products over the lengths of both; 0 for what has none."""
    squares = np.einsum("bii->bi", products)
    return _ratio(products, squares[:, :, None] * squares[:, None])


def _ratio(products: Floats, squares: Floats) -> Floats:
    found: Floats = np.where(squares > _TINY**2, products / np.sqrt(np.maximum(squares, _TINY**2)), 0.0)
    return found


class _OfProducts:
    """Models beside subjects in the resamples of a block, by sums of products."""

    def __init__(self, rdms: Floats, n_subjects: int, weights: Floats, comparison: Comparison) -> None:
        needed = np.triu(np.ones((len(rdms), len(rdms)), bool))
        needed[n_subjects:, n_subjects:] = np.eye(len(rdms) - n_subjects, dtype=bool)
        is_one = bool((weights == weights[0]).all())  # the same stimuli in each resample
        kernel = _kernel(rdms, weights[:1] if is_one else weights, needed, comparison)
        self.similar = _cosines(kernel.products)[:, n_subjects:, :n_subjects]
        self.products = kernel.products[:, :n_subjects, :n_subjects]
        self.pooling = kernel.pooling[:, :n_subjects]

    def compared(self, counts: Floats) -> tuple[Floats, Floats, Floats]:
        """Similarity of models, lower and upper bound, with each subject as often as counted."""
        similar, products = (
            np.broadcast_to(own, (len(counts), *own.shape[1:])) for own in (self.similar, self.products)
        )
        pooling, own = counts * self.pooling, np.einsum("bii->bi", products)
        with_pool = np.einsum("bij,bj->bi", products, pooling)
        square = np.einsum("bi,bi->b", with_pool, pooling)[:, None]
        upper = _ratio(with_pool, square * own)
        others = square - 2 * pooling * with_pool + pooling**2 * own
        lower = _ratio(with_pool - pooling * own, np.maximum(others, 0.0) * own)
        drawn = counts > 0
        lower = np.where(drawn.sum(1, keepdims=True) > 1, lower, upper)
        mean = np.einsum("bms,bs->bm", similar, counts) / counts.sum(1)[:, None]
        return mean, _mean(lower, drawn), _mean(upper, drawn)


def _mean(values: Floats, where: NDArray[np.bool_]) -> Floats:
    found: Floats = np.where(where, values, 0.0).sum(1) / where.sum(1)
    return found


# Ranks


class _OfRanks:
    """As `_OfProducts`, by ranks, of one resample."""

    def __init__(self, rdms: Floats, n_subjects: int, weights: Floats, comparison: Comparison) -> None:
        i, j = np.triu_indices(weights.shape[1], 1)
        weight = weights[0, i] * weights[0, j]
        pairs = np.flatnonzero(weight)
        self.comparison, self.weight = comparison, weight[pairs]
        ranks = _ranks(np.take(rdms, pairs, axis=1), self.weight)
        self.subjects = ranks[:n_subjects]
        self.similar = _of_ranks(ranks[n_subjects:], self.subjects, self.weight, comparison)

    def compared(self, counts: Floats) -> tuple[Floats, Floats, Floats]:
        """Similarity of models, lower and upper bound, with each subject as often as counted."""
        own, drawn = counts[0], np.flatnonzero(counts[0])
        subjects, pooled = self.subjects[drawn], own @ self.subjects
        ranked = _ranks(np.concatenate([pooled[None], pooled - own[drawn, None] * subjects]), self.weight)
        upper = _of_ranks(ranked[:1], subjects, self.weight, self.comparison).mean()
        several = len(drawn) > 1
        lower = _pairwise(ranked[1:], subjects, self.weight, self.comparison).mean() if several else upper
        return (self.similar @ own / own.sum())[None], np.array([lower]), np.array([upper])


def _in_order(rows: Floats) -> Floats:
    """Integers in the same order, the same where values are."""
    return np.stack([np.unique(row, return_inverse=True)[1].astype(np.float64) for row in rows])


def _ranks(rows: Floats, weight: Floats) -> Floats:
    """Twice the ranks in a sample that has each integer so many times, ties in the middle.

    On average 1 more than all weight. Each value is sorted together with its index, which takes a third of the time of
    sorting indices by values.
    """
    n = rows.shape[1]
    bits = n.bit_length()
    kind: Any = np.int32 if rows.max() < 2 ** (31 - bits) else np.int64
    keys: NDArray[Any] = rows.astype(kind)
    keys <<= bits
    keys |= np.arange(n, dtype=kind)
    keys.sort(axis=1)
    places = (keys & kind((1 << bits) - 1)).astype(np.intp)
    keys >>= bits
    own = np.take(weight, places)
    ends = np.cumsum(own, axis=1)
    begins = ends - own
    is_new = keys[:, 1:] != keys[:, :-1]
    if not is_new.all():
        begins[:, 1:] *= is_new
        np.maximum.accumulate(begins, axis=1, out=begins)
        ends[:, :-1][~is_new] = np.inf
        ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    begins += ends
    begins += 1
    ranks = np.empty(rows.shape)
    places += n * np.arange(len(rows))[:, None]
    ranks.ravel()[places.ravel()] = begins.ravel()
    return ranks


def _of_ranks(first: Floats, second: Floats, weight: Floats, comparison: Comparison) -> Floats:
    """Each of some ranks with each of others; shape (n_first, n_second)."""
    if comparison == "kendall-tau-a":
        return tau_a(first, second, weight)
    middle = weight.sum() + 1
    first, second = first - middle, second - middle
    squares = (first**2 @ weight)[:, None] * (second**2 @ weight)
    return _correlation_of_ranks((first * weight) @ second.T, squares, weight.sum(), comparison)


def _pairwise(first: Floats, second: Floats, weight: Floats, comparison: Comparison) -> Floats:
    """The first of some ranks with the first of others, and so on; shape (n,)."""
    if comparison == "kendall-tau-a":
        return paired_tau_a(first, second, weight)
    middle = weight.sum() + 1
    first, second = first - middle, second - middle
    products = np.einsum("rp,rp,p->r", first, second, weight, optimize=True)
    return _correlation_of_ranks(products, (first**2 @ weight) * (second**2 @ weight), weight.sum(), comparison)


def _correlation_of_ranks(products: Floats, squares: Floats, n: float, comparison: Comparison) -> Floats:
    """From products of twice the ranks less their mean."""
    return np.asarray(products * 3 / (n**3 - n)) if comparison == "rho-a" else _ratio(products, squares)
