r"""How far features of pictures lie from those of pictures that are known: Mahalanobis distance, nearest neighbours.

Features f are standardised over the known pictures and reduced to their first principal components z, with variances
:math:`\lambda_k`. With :math:`w_k = z_k / \sqrt{\lambda_k}`,

.. math:: d = \sqrt{\tfrac1K \sum_k w_k^2}, \qquad n = \text{mean distance of } w \text{ to the 5 nearest of the known}

(Lee, Lee, Lee & Shin 2018, NeurIPS 31; Sun, Ming, Zhu & Li 2022, ICML 162:20827). Few components are kept: the later
ones of few pictures are noise, in which any new picture is far away. What is far is told from the known pictures
themselves: they are divided into five folds, and each fold is measured as if it were new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError

Floats = NDArray[np.float64]
N_COMPONENTS, N_NEIGHBOURS, N_FOLDS, FEWEST = 20, 5, 5, 50


@dataclass(frozen=True)
class Familiar:
    """What is known of the features of pictures.

    Attributes
    ----------
    mean, scale
        Of each feature, shape (n_features,); what does not vary has scale 1.
    components
        Shape (n_components, n_features), whitening: scores have variance 1.
    known
        Scores of the known pictures, shape (n_known, n_components).
    distances, neighbours
        Of the known pictures, each measured by the others, shape (n_known,).
    """

    mean: Floats
    scale: Floats
    components: Floats
    known: Floats
    distances: Floats
    neighbours: Floats

    @classmethod
    def of(cls, features: NDArray[Any], n_components: int = N_COMPONENTS, seed: int = 0) -> Familiar:
        """Of features (n_pictures, n_features).

        Raises
        ------
        InvalidParameterError
            If there are fewer than 50 pictures, or features are not finite.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> known = Familiar.of(rng.normal(size=(500, 8)), n_components=8)
        >>> distance, _ = known.measure(np.array([np.zeros(8), np.full(8, 3.0)]))
        >>> distance.round().tolist()
        [0.0, 3.0]
        """
        values = np.asarray(features, np.float64)
        if values.ndim != 2 or len(values) < FEWEST or not np.isfinite(values).all():
            raise InvalidParameterError(
                f"Features of known pictures have shape {values.shape}; at least {FEWEST} pictures with finite "
                "features are needed to know what is usual."
            )
        n_kept = min(n_components, len(values) // 5, values.shape[1])
        distances, neighbours = np.empty(len(values)), np.empty(len(values))
        folds = np.random.default_rng(seed).permutation(len(values)) % N_FOLDS
        for fold in range(N_FOLDS):
            parts = _basis(values[folds != fold], n_kept)
            distances[folds == fold], neighbours[folds == fold] = _measured(values[folds == fold], *parts)
        return cls(*_basis(values, n_kept), distances, neighbours)

    def measure(self, features: NDArray[Any]) -> tuple[Floats, Floats]:
        """Mahalanobis distance and distance to the nearest neighbours, shape (n_pictures,) each."""
        values = np.asarray(features, np.float64)
        return _measured(values, self.mean, self.scale, self.components, self.known)

    def limits(self, share: float) -> tuple[float, float, float]:
        """Lower and upper limit of the distance, and upper limit of the distance to neighbours.

        A third of `share` of the known pictures lies beyond each, so that at most `share` lies beyond any. Pictures
        that are nearer to the mean than nearly all known ones are unusual too: noise is as average as no photograph.
        """
        if not 0 < share < 1:
            raise InvalidParameterError(f"share is {share:g}; it must lie between 0 and 1, such as 0.05.")
        low, high = np.quantile(self.distances, [share / 3, 1 - share / 3])
        return float(low), float(high), float(np.quantile(self.neighbours, 1 - share / 3))


def _basis(values: Floats, n_components: int) -> tuple[Floats, Floats, Floats, Floats]:
    mean, scale = values.mean(0), values.std(0)
    scale = np.where(scale > 1e-9 * (np.abs(mean) + 1e-9), scale, 1.0)
    standard = (values - mean) / scale
    left, sizes, right = np.linalg.svd(standard, full_matrices=False)
    kept = sizes[:n_components] > 1e-9 * max(float(sizes[0]), 1e-300)
    deviations = sizes[:n_components][kept] / np.sqrt(len(values) - 1)
    components = right[:n_components][kept] / deviations[:, None]
    return mean, scale, components, left[:, :n_components][:, kept] * np.sqrt(len(values) - 1)


def _measured(values: Floats, mean: Floats, scale: Floats, components: Floats, known: Floats) -> tuple[Floats, Floats]:
    scores = ((values - mean) / scale) @ components.T
    distance = np.sqrt((scores**2).mean(1))
    squared = (scores**2).sum(1)[:, None] - 2 * scores @ known.T + (known**2).sum(1)
    nearest = np.sort(np.sqrt(np.clip(squared, 0, None)), axis=1)[:, : min(N_NEIGHBOURS, len(known))].mean(1)
    return distance, nearest
