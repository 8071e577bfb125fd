r"""Standardize and PCA of more features than memory holds.

Of n stimuli and p features with n smaller than p, the principal components lie in the span of the n standardized
pictures, so that the eigenvectors of their n x n products are all that is needed:

.. math::
    Z = (F - \mu) / \sigma, \qquad Z Z^\top = U \Lambda U^\top, \qquad
    \text{scores} = U \Lambda^{1/2}, \qquad \text{components} = \Lambda^{-1/2} U^\top Z

The products are summed block of columns by block of columns, in float64: squaring costs half of the digits. The
components come out block by block likewise. Where p is smaller than n, the p x p products :math:`Z^\top Z = V \Lambda
V^\top` take their place, with scores Z V. Mean, scale and components are those of scikit-learn's `StandardScaler` and
`PCA` (its exact solvers), but for signs: here each component's largest score is positive.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from scipy.linalg import blas
from torch import Tensor

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, listing
from berg.features.linear import linear
from berg.system.durable_file import replacing
from berg.weights.safetensors_files import read_metadata, read_safetensors, write_safetensors

Doubles = NDArray[np.float64]
Advance = Callable[[int], None]

BLOCK = 2048
"""Columns that are in memory at a time, where nothing else is said."""
SECONDS_BETWEEN_CHECKPOINTS = 60.0
_BYTES_PER_VALUE = 20  # of a block: as mapped, as read, in float64, and rounding to pages
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Components:
    """A scaler and the principal components of what it gives.

    Attributes
    ----------
    mean, scale
        Shape (n_features,), of the scaler; the scale of a feature that does not vary is 1.
    scores
        Shape (n_stimuli, n_components): the standardized features in the basis of the components.
    variances
        Shape (n_components,), of the scores; n - 1 in the denominator.
    total_variance
        Of all components.
    basis
        Shape (n_components, m), the eigenvectors that the components are made of: of the stimuli, divided by the
        singular values, where m is n_stimuli; the components themselves where m is n_features.
    """

    mean: Doubles
    scale: Doubles
    scores: Doubles
    variances: Doubles
    total_variance: float
    basis: Doubles

    @property
    def explained(self) -> float:
        """The share of the variance that these components have."""
        return float(self.variances.sum() / self.total_variance)

    def blocks(
        self, features: Any, start: int = 0, *, block: int = BLOCK, device: torch.device = _CPU
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """The components, block of columns by block of columns.

        Parameters
        ----------
        features
            What was decomposed, shape (n_stimuli, at least start + n_features).
        start
            The first column.

        Yields
        ------
        columns
            From 0, whatever `start` is.
        components
            Shape (n_components, n_columns).
        """
        if not self.is_wide:
            yield from (
                (columns, self.basis[:, columns].astype(np.float32)) for columns in slices(len(self.mean), block)
            )
            return
        basis = torch.from_numpy(self.basis).float().to(device)
        source = _Source(features, start, len(self.mean), torch.device("cpu"))
        for columns in slices(source.n_features, block):
            mean, scale = (torch.from_numpy(values[columns]) for values in (self.mean, self.scale))
            standardized = source.read(columns).sub_(mean).div_(scale).T.float().contiguous()
            yield columns, linear(basis, standardized.to(device)).cpu().numpy()

    @property
    def is_wide(self) -> bool:
        """Whether there were as many features as stimuli, or more."""
        return len(self.mean) >= len(self.scores)

    def write(self, path: Path, identity: str = "") -> None:
        """Write them to a file."""
        arrays = {name: np.asarray(getattr(self, name), dtype=np.float64) for name in self.__dataclass_fields__}
        write_safetensors(path, arrays, {"identity": identity})

    @staticmethod
    def identity_of(path: Path) -> str:
        """What was written to a file with them."""
        return read_metadata(path).get("identity", "")

    @classmethod
    def read(cls, path: Path) -> Components:
        """Read them from a file."""
        arrays: dict[str, Any] = read_safetensors(path)
        return cls(**{**arrays, "total_variance": float(arrays["total_variance"])})


def principal_components(
    features: Any,
    n_components: int | None = None,
    *,
    columns: slice = slice(None),
    block: int = BLOCK,
    device: torch.device = _CPU,
    checkpoint: Path | None = None,
    identity: str = "",
    advance: Advance | None = None,
) -> Components:
    """The scaler and the principal components of features that need not be in memory.

    Parameters
    ----------
    features
        Shape (n_stimuli, n_features), float32: an array, or a memory map of a file.
    n_components
        None: as many as there are, which is less than n_stimuli.
    columns
        The features to take; all of them where it is not given.
    block
        How many columns are in memory at a time.
    device
        Where to compute; what has no float64 leaves it to the CPU.
    checkpoint
        A file for the sums so far; an interrupted call goes on from there, to the same bits.
    identity
        What the checkpoint is of; one of something else is not used.
    advance
        Called with the number of columns done.

    Raises
    ------
    InvalidParameterError
        If there are not so many components, no feature varies, or some are NaN or infinite.

    Examples
    --------
    >>> features = np.random.default_rng(0).standard_normal((20, 500)).astype("float32")
    >>> principal_components(features, 5).scores.shape
    (20, 5)
    """
    first, stop, _ = columns.indices(features.shape[1])
    source = _Source(features, first, stop - first, _CPU if device.type == "mps" else device)
    sums = _Sums.begin(source, checkpoint, identity)
    count = advance or (lambda n: None)
    _sum_over_columns(source, sums, block, count) if source.is_wide else _sum_over_rows(source, sums, block, count)
    total = float(sums.products.diagonal().sum())
    values, vectors = _largest_eigenvectors(sums.products, n_components, len(features))
    singular = np.sqrt(values)
    scores = vectors * singular if source.is_wide else _scores(source, sums, vectors, block)
    signs = np.sign(np.take_along_axis(scores, np.abs(scores).argmax(0)[None], 0))
    scores *= signs
    vectors *= signs / singular if source.is_wide else signs
    n = len(features) - 1
    return Components(sums.mean, sums.scale, scores, values / n, total / n, np.ascontiguousarray(vectors.T))


def peak_bytes(n_stimuli: int, n_features: int, n_components: int | None, block: int = BLOCK) -> int:
    """Bytes that `principal_components` needs at its peak."""
    m = min(n_stimuli, n_features)
    k = min(m, n_components or m)
    in_block = n_stimuli * min(block, n_features)
    # Products; eigenvectors as LAPACK has them, as a copy in order, and transposed; scores.
    return 8 * (m * m + k * (4 * m + n_stimuli) + 4 * n_features) + _BYTES_PER_VALUE * in_block


def slices(length: int, block: int) -> Iterator[slice]:
    """Places from 0 on, `block` at a time."""
    for start in range(0, length, block):
        yield slice(start, min(start + block, length))


def _copy_of(features: Any, rows: slice, columns: slice) -> NDArray[Any]:
    """A block of the features; of a memory map from its file, row by row: the system maps far more than is asked."""
    is_file = isinstance(features, np.memmap) and isinstance(features.base, mmap.mmap) and features.mode != "c"
    if not is_file or features.filename is None or not features.flags.c_contiguous:
        return np.array(features[rows, columns], order="C")
    first, stop, _ = rows.indices(len(features))
    block = np.empty((stop - first, columns.stop - columns.start), features.dtype)
    with open(features.filename, "rb", buffering=0) as file:
        for number, row in enumerate(block):
            place = (first + number) * features.shape[1] + columns.start
            file.seek(features.offset + place * features.itemsize)
            if file.readinto(row.data) != row.nbytes:
                raise CorruptedFileError(f"{features.filename} has become shorter. Delete it, and type the same again.")
    return block


@dataclass(frozen=True)
class _Source:
    """Some columns of the features, read block by block."""

    features: Any
    first: int
    n_features: int
    device: torch.device

    @property
    def is_wide(self) -> bool:
        """Whether there are as many features as stimuli, or more."""
        return self.n_features >= len(self.features)

    def read(self, columns: slice, rows: slice = slice(None)) -> Tensor:
        """Values in float64; what was read of a memory map does not stay in memory."""
        own = slice(self.first + columns.start, self.first + columns.stop)
        return torch.from_numpy(_copy_of(self.features, rows, own)).to(self.device).double()

    def standardized_rows(self, sums: _Sums, rows: slice) -> Tensor:
        """All columns of some rows."""
        mean, scale = (torch.from_numpy(values).to(self.device) for values in (sums.mean, sums.scale))
        return self.read(slice(0, self.n_features), rows).sub_(mean).div_(scale)


@dataclass
class _Sums:
    """What was summed up so far."""

    mean: Doubles
    scale: Doubles
    products: Tensor  # (m, m) in Fortran order; on the CPU only its lower triangle counts
    n_done: int
    path: Path | None
    identity: str
    saved_at: float

    @classmethod
    def begin(cls, source: _Source, path: Path | None, identity: str) -> _Sums:
        """From the checkpoint, if there is one of the same."""
        m = min(len(source.features), source.n_features)
        found: dict[str, Any] = {"mean": np.empty(source.n_features), "scale": np.ones(source.n_features), "n_done": 0}
        found["products"] = np.zeros((m, m), order="F")
        if path is not None and path.is_file():
            with np.load(path) as saved:
                found = dict(saved) if str(saved["identity"]) == identity else found
        products = torch.from_numpy(np.asfortranarray(found["products"])).to(source.device)
        return cls(found["mean"], found["scale"], products, int(found["n_done"]), path, identity, time.monotonic())

    def done(self, n: int) -> None:
        """Count; write a checkpoint now and then."""
        self.n_done = n
        if self.path is not None and time.monotonic() - self.saved_at >= SECONDS_BETWEEN_CHECKPOINTS:
            sums: dict[str, Any] = {"mean": self.mean, "scale": self.scale, "products": self.products.cpu().numpy()}
            with replacing(self.path) as file:
                np.savez(file, identity=np.array(self.identity), n_done=np.array(n), **sums)
            self.saved_at = time.monotonic()


def _sum_over_columns(source: _Source, sums: _Sums, block: int, count: Advance) -> None:
    """Products of the stimuli with each other, and mean and scale on the way."""
    for columns in slices(source.n_features, block):
        if columns.stop > sums.n_done:
            values = source.read(columns)
            sums.mean[columns], sums.scale[columns] = _standardize(values)
            _check_finite(sums.mean, columns)
            _add_products(sums.products, values, of_rows=True)
            sums.done(columns.stop)
        count(columns.stop - columns.start)


def _sum_over_rows(source: _Source, sums: _Sums, block: int, count: Advance) -> None:
    """Mean and scale first, then products of the features with each other."""
    if not sums.n_done:
        for columns in slices(source.n_features, block):
            sums.mean[columns], sums.scale[columns] = _standardize(source.read(columns))
            _check_finite(sums.mean, columns)
    for rows in slices(len(source.features), block):
        if rows.stop > sums.n_done:
            _add_products(sums.products, source.standardized_rows(sums, rows), of_rows=False)
            sums.done(rows.stop)
        count(_share(source, rows.stop) - _share(source, rows.start))


def _share(source: _Source, n_rows: int) -> int:
    """So many rows, as a number of columns."""
    return source.n_features * n_rows // len(source.features)


def _standardize(values: Tensor) -> tuple[Doubles, Doubles]:
    """Mean and scale of each column, which is standardized in place."""
    mean = values.mean(0)
    variance = torch.linalg.vector_norm(values.sub_(mean), dim=0).square_().div_(len(values))
    scale = _scale(variance, mean, len(values))
    values.div_(scale)
    return mean.cpu().numpy(), scale.cpu().numpy()


def _check_finite(mean: Doubles, columns: slice) -> None:
    """Raise if features are NaN or infinite, which their means tell."""
    wrong = columns.start + np.flatnonzero(~np.isfinite(mean[columns]))
    if len(wrong):
        raise InvalidParameterError(
            f"{len(wrong):,} of the features {columns.start:,} to {columns.stop - 1:,} are NaN or infinite for some "
            f"stimuli ({listing(wrong, 5)}): the network gives no numbers there. Compute it with precision float32, or "
            "leave that layer out of features.nodes."
        )


def _scale(variance: Tensor, mean: Tensor, n: int) -> Tensor:
    """The standard deviation; 1 where it is nothing but rounding, as scikit-learn has it."""
    eps = float(np.finfo(np.float64).eps)
    is_constant = variance <= n * eps * variance + (n * mean * eps) ** 2
    return torch.where(is_constant, 1.0, variance.sqrt())


def _add_products(products: Tensor, values: Tensor, of_rows: bool) -> None:
    """Add the products of rows with rows, or of columns with columns."""
    if products.device.type != "cpu":
        products.addmm_(values, values.T) if of_rows else products.addmm_(values.T, values)
        return
    # The transpose of an array in C order is one in Fortran order: nothing is copied. Half the work of a product.
    blas.dsyrk(1.0, values.numpy().T, beta=1.0, c=products.numpy(), trans=int(of_rows), lower=1, overwrite_c=1)


def _scores(source: _Source, sums: _Sums, vectors: Doubles, block: int) -> Doubles:
    found = np.empty((len(source.features), vectors.shape[1]))
    for rows in slices(len(found), block):
        found[rows] = source.standardized_rows(sums, rows).cpu().numpy() @ vectors
    return found


def _largest_eigenvectors(products: Tensor, n_components: int | None, n_stimuli: int) -> tuple[Doubles, Doubles]:
    """The largest eigenvalues in descending order, and their vectors in columns; `products` is overwritten."""
    m = len(products)
    n_wanted = min(m, n_components or m)
    if products.device.type == "cpu":
        largest = (m - n_wanted, m - 1)
        values, vectors = scipy.linalg.eigh(
            products.numpy(), lower=True, subset_by_index=largest, overwrite_a=True, check_finite=False
        )
    else:
        values, vectors = (each[..., -n_wanted:].cpu().numpy() for each in torch.linalg.eigh(products))
    values, vectors = values[::-1], np.ascontiguousarray(vectors[:, ::-1])
    if values[0] <= 0:
        raise InvalidParameterError(
            f"No feature varies over the {n_stimuli:,} training stimuli: are the stimuli all the same, or is the layer "
            "dead? Look at the stimuli, or leave that layer out of features.nodes."
        )
    is_there = values > values[0] * m * float(np.finfo(np.float64).eps)
    n_there = min(n_stimuli - 1, int(is_there.sum()))
    if n_components is not None and n_there < n_components:
        raise InvalidParameterError(
            f"The features of {n_stimuli:,} training stimuli have {n_there:,} principal components; {n_components:,} "
            f"were asked for. Write  pca: {n_there}  or less in the card, or give more stimuli."
        )
    return values[:n_there], vectors[:, :n_there]
