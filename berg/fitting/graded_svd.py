r"""Singular values of matrices whose columns are in very different units.

A singular value decomposition is right to the rounding of the largest singular value, and one of the products
:math:`X^\top X` to that of its square: columns that are :math:`10^{8}` times smaller than others are lost in the
latter, and those that are :math:`10^{16}` times smaller in the former. A QR decomposition with column pivoting comes
first here. It is right to the rounding of each column, and leaves rows that fall from large to small, of which
LAPACK finds even the smallest singular values to nearly all digits (Demmel et al. 1999, Linear Algebra and its
Applications 299:21-80).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_ROUNDING = 4 * float(np.finfo(np.float64).eps)  # of a column, per row or column of the matrix


@dataclass(frozen=True)
class GradedQR:
    """X[:, pivots] = Q R, right to the rounding of each column.

    Attributes
    ----------
    q
        Shape (n_samples, rank).
    r
        Shape (rank, n_features), upper triangular; its rows fall from large to small.
    pivots
        Shape (n_features,), the order of the columns.
    """

    q: Doubles
    r: Doubles
    pivots: NDArray[np.intp]

    @classmethod
    def of(cls, X: NDArray[Any]) -> GradedQR:
        """Decompose X; what is nothing but the rounding of a column counts as zero.

        Examples
        --------
        >>> GradedQR.of(np.array([[1e9, 2e9, 1e-9], [0, 0, 2e-9]])).r.shape
        (2, 3)
        """
        sizes = np.linalg.norm(X, axis=0)
        q, r, pivots = scipy.linalg.qr(X, mode="economic", pivoting=True, check_finite=False)
        r[np.abs(r) <= _ROUNDING * max(X.shape) * sizes[pivots]] = 0
        rank = int(np.count_nonzero(r.any(axis=1)))
        if r.diagonal()[:rank].all():
            return cls(q[:, :rank], r[:rank], pivots)
        again = cls.of(r)  # the rounding of a large column went before a small column, and is zero now
        return cls(q @ again.q, again.r, pivots[again.pivots])

    def svd(self) -> tuple[Doubles, Doubles, Doubles]:
        """U (n_samples, rank), S (rank,) in descending order and V (n_features, rank), with X = U S V'."""
        q, r = scipy.linalg.qr(self.r.T, mode="economic", check_finite=False)  # as small as the rank
        left, singular, right = scipy.linalg.svd(r, check_finite=False)
        return self.q @ right.T, singular, self._unsorted(q @ left)

    def inverse(self) -> Doubles:
        """Shape (n_features, n_samples): times y, the shortest of the least-squares solutions."""
        if self.rank == len(self.pivots):  # there is only one
            return self._unsorted(_solve_triangular(self.r, self.q.T))
        q, r = scipy.linalg.qr(self.r.T, mode="economic", check_finite=False)  # R' = Q R: of rows that fall likewise
        return self._unsorted(q @ _solve_triangular(r, self.q.T, transposed=True))

    @property
    def rank(self) -> int:
        """How many columns do not follow from the others."""
        return len(self.r)

    def _unsorted(self, rows: Doubles) -> Doubles:
        """Rows in the order of the columns of X."""
        found = np.empty_like(rows)
        found[self.pivots] = rows
        return found


def _solve_triangular(triangle: Doubles, values: Doubles, transposed: bool = False) -> Doubles:
    if not len(triangle):
        return np.zeros(values.shape)
    found: Doubles = scipy.linalg.solve_triangular(triangle, values, trans=int(transposed), check_finite=False)
    return found
