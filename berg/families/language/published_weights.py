"""The weights of published models of language in each of their containers, brought to one affine map.

``mapping``: a pickle of scikit-learn's objects, of which the regression alone is used, as it was published.
``fir``: one matrix of ridge regression, shape (n_features, n_units).
``standardised``: a ridge regression between a scaler of the features and one of the responses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError
from berg.weights.npy_files import read_inert_pickle, read_npy
from berg.weights.published_content import Floats, PublishedContent
from berg.weights.safetensors_files import read_rows, read_safetensors

Container = Literal["mapping", "fir", "standardised"]
Rows = Callable[[NDArray[np.intp]], NDArray[np.float32]]
NAMES = "names"
_ROWS = 256


@dataclass(frozen=True)
class LanguageWeights:
    """An affine map of the features, whose rows are read when they are asked for.

    Attributes
    ----------
    rows
        Units, by their numbers -> coefficients, shape (n, n_features), float32.
    intercept
        Shape (n_units,), float32.
    centre
        Shape (n_features,), float32: what is subtracted from the features.
    names
        Of the units, in the order of the file; empty if it does not name them.
    """

    path: Path
    rows: Rows
    intercept: NDArray[np.float32]
    centre: NDArray[np.float32]
    names: tuple[str, ...] = ()


def read_weights(path: Path, container: Container) -> LanguageWeights:
    """The weights of a file, published or converted.

    Raises
    ------
    CorruptedFileError
        It names the key that is missing, has a wrong shape, or NaN.
    UnsafeFileError
        If a pickle asks for more than arrays, numbers and texts.
    """
    weights = _read_converted(path) if path.suffix == ".safetensors" else _READERS[container](path)
    for name in ("intercept", "centre"):
        if not np.isfinite(getattr(weights, name)).all():
            raise CorruptedFileError(f"{path} has NaN or infinite values in its {name}. Get the file again.")
    return weights


def tensors_of(weights: LanguageWeights) -> dict[str, NDArray[Any]]:
    """What a converted file holds: coefficients with a row for each unit, of which few can be read alone."""
    names = {NAMES: np.frombuffer("\n".join(weights.names).encode(), np.uint8)} if weights.names else {}
    every = np.arange(len(weights.intercept))
    return {
        "coefficient": weights.rows(every), "intercept": weights.intercept, "centre": weights.centre, **names
    }  # fmt: skip


def _read_converted(path: Path) -> LanguageWeights:
    small = read_safetensors(path, mapped=True)
    for name, n_axes in (("coefficient", 2), ("intercept", 1), ("centre", 1)):
        if name not in small or small[name].ndim != n_axes or small[name].dtype != np.float32:
            raise CorruptedFileError(f"{path} has no float32 '{name}' of {n_axes} axes. Make it anew: berg convert")
    if small["coefficient"].shape != (len(small["intercept"]), len(small["centre"])):
        raise CorruptedFileError(f"{path}: its coefficients do not fit its intercepts. Make it anew: berg convert")
    names = tuple(small[NAMES].tobytes().decode().split("\n")) if NAMES in small else ()
    intercept, centre = np.array(small["intercept"]), np.array(small["centre"])
    return LanguageWeights(path, lambda units: read_rows(path, "coefficient", units), intercept, centre, names)


def _read_mapping(path: Path) -> LanguageWeights:
    content = PublishedContent(path, read_inert_pickle(path))
    coefficient, intercept = content.array("clf.coef_", ("U", "F")), content.array("clf.intercept_", ("U",))
    names = mapping_names(content)
    if len(names) != len(intercept):
        raise CorruptedFileError(
            f"{path} names {len(names)} units (neuroid_order) and has {len(intercept)}. Get the file again."
        )
    return LanguageWeights(
        path, lambda units: coefficient[units].astype(np.float32), intercept.astype(np.float32),
        np.zeros(coefficient.shape[1], np.float32), names,
    )  # fmt: skip


def mapping_names(content: PublishedContent) -> tuple[str, ...]:
    """The names of the units of a pickled mapping, in the order of its rows."""
    found = content.value("neuroid_order")
    listed = found.ravel().tolist() if isinstance(found, np.ndarray) else found
    if not isinstance(listed, (list, tuple)) or not all(isinstance(name, str) for name in listed):
        raise CorruptedFileError(
            f"{content.path} has no list of names at 'neuroid_order'; it is not a weights file of this model. Get it "
            "again."
        )
    if len(set(listed)) < len(listed):
        raise CorruptedFileError(f"{content.path} names a unit twice in 'neuroid_order'. Get the file again.")
    return tuple(map(str, listed))


def _read_fir(path: Path) -> LanguageWeights:
    content = PublishedContent(path, read_npy(path))
    weights = content.array("ridge_weights", ("F", "U"))
    n_features, n_units = weights.shape
    return LanguageWeights(
        path, lambda units: _columns(weights, units), np.zeros(n_units, np.float32), np.zeros(n_features, np.float32)
    )


def _read_standardised(path: Path) -> LanguageWeights:
    r"""Read scalers and regression; with their scales in the regression: ``B = coef.T * scale_Y / scale_X``."""
    content = PublishedContent(path, read_npy(path))
    coefficient, intercept = (
        content.array("ridge_param.coef_", ("F", "U")),
        content.array("ridge_param.intercept_", ("U",)),
    )
    mean, scale = (content.array(f"scaler_X_param.{key}", ("F",)).astype(np.float64) for key in ("mean_", "scale_"))
    own_mean, own_scale = (content.array(f"scaler_Y_param.{key}", ("U",)).astype(float) for key in ("mean_", "scale_"))
    for name, values in (("scaler_X_param.scale_", scale), ("scaler_Y_param.scale_", own_scale)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise CorruptedFileError(f"{path} has zero, negative, NaN or infinite values at '{name}'. Get it again.")
    _check_product(content, len(intercept))

    def rows(units: NDArray[np.intp]) -> NDArray[np.float32]:
        folded = _columns(coefficient, units, np.float64)
        folded *= own_scale[units, None]
        folded /= scale
        return folded.astype(np.float32)

    offset = intercept.astype(np.float64) * own_scale + own_mean
    return LanguageWeights(path, rows, offset.astype(np.float32), mean.astype(np.float32))


def _check_product(content: PublishedContent, n_units: int) -> None:
    """Raise CorruptedFileError if electrodes times lags are not the units."""
    sizes: list[Any] = [content.value(f"shape.{name}") for name in ("n_electrodes", "n_lags")]
    if not all(isinstance(size, (int, np.integer)) for size in sizes) or math.prod(sizes) != n_units:
        raise CorruptedFileError(
            f"{content.path} has {n_units:,} units, and electrodes and lags {sizes} at 'shape'. Get the file again."
        )


def _columns(weights: Floats, units: NDArray[np.intp], dtype: Any = np.float32) -> NDArray[Any]:
    """Columns as rows, shape (n_units, n_features); the file is read from its beginning to its end."""
    found = np.empty((len(units), len(weights)), dtype)
    for start in range(0, len(weights), _ROWS):
        found[:, start : start + _ROWS] = weights[start : start + _ROWS][:, units].T
    return found


_READERS: dict[Container, Callable[[Path], LanguageWeights]] = {
    "mapping": _read_mapping,
    "fir": _read_fir,
    "standardised": _read_standardised,
}
