"""Linear readouts on the layers of a pretrained network.

    picture -> network -> layers -> standardize -> PCA -> linear regression -> responses

The last three steps are folded into one affine map (`berg.families.linearizing.readout`). The weights are read from the
published ``.npy`` files, or from the ``.safetensors`` that `convert` makes of them once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.card_schema import REPETITION, CardPart, OutputArray
from berg.core.exceptions import CorruptedFileError, InvalidParameterError
from berg.core.file_names import expand
from berg.core.model_card import ModelCard
from berg.core.unit_labels import axis_length, volume_shape
from berg.families.linearizing.readout import Components, LinearReadout, Projection
from berg.families.linearizing.shared_projection import projected_features, read_projection
from berg.features.compiling import check_compiler
from berg.features.precision import dtype_of
from berg.features.pretrained_network import network_features, network_file
from berg.models.encoding_model import EncodingModel
from berg.transfer.fetch import WantedFile
from berg.weights.download import network_weights
from berg.weights.model_files import shared_path
from berg.weights.npy_files import read_npy
from berg.weights.published_content import Floats, PublishedContent
from berg.weights.safetensors_files import read_rows, read_safetensors

KEYS = ("coef_", "intercept_")  # of a regression
Rows = Callable[[NDArray[np.intp]], NDArray[np.float32]]


class Features(CardPart):
    """What the card says under ``features``."""

    extractor: str  # PROVIDER/NETWORK, see berg.features.pretrained_network
    weights: str
    nodes: str | list[str]
    n_features: int  # of all nodes together
    transform: Literal["preset", "as_trained", "squash", "centre_square"]
    other_transforms: dict[str, int] = {}  # n_features of files that were fitted after another transform


class Readout(CardPart):
    """What the card says under ``readout``: the steps, and where the regression of an output lies in the file."""

    steps: list[Any]
    regression: str  # e.g. "{output}_reg_param"
    repeats: str | None = None  # e.g. "rep-{1..4}": one regression per place of ``repetition``, all in one file


@dataclass(frozen=True)
class Weights:
    """The folded weights of one subject; rows of the regressions are read when they are asked for."""

    path: Path
    centre: NDArray[np.float32]  # (n_features,)
    matrix: NDArray[np.float32]  # (n_pcas * n_components, n_features)
    offset: NDArray[np.float32]  # (n_pcas * n_components,)
    n_pcas: int
    coefficients: dict[str, Rows]  # output -> rows, repeats one after another
    intercepts: dict[str, NDArray[np.float32]]
    variance: NDArray[np.float32] | None = None  # of the components of the first PCA over the training pictures


class LinearizingModel(EncodingModel):
    """A linear readout on the layers of a pretrained network."""

    batch_size = 32
    told_transform: str | None = None  # if the number of features in a file tells it

    @classmethod
    def bind(cls, card: ModelCard) -> type[Self]:
        """The class of one model; of videos fewer are computed at once."""
        bound = super().bind(card)
        bound.batch_size = 4 if card.input is not None and card.input.kind == "video" else cls.batch_size
        return bound

    def build(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The network, shared with other models on it, and the readout of the selected units."""
        if (shared := shared_path(self.card, self.berg_dir, self.file_values)) is not None:
            return self._build_on(shared)
        stated = self.card.part("features", Features)
        precision = self.parameters.get("precision", "float32")
        if compiled := bool(self.parameters.get("compile", False)):
            check_compiler()
        network = network_features(
            stated.extractor,
            stated.weights,
            stated.nodes,
            self.parameters.get("transform", stated.transform),
            precision,
            self.device,
            compiled,
        )
        weights = self._read_weights()
        _check_shapes(weights, stated.n_features)
        return network, self._readout(weights, dtype_of(precision))

    def _build_on(self, shared: Path) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The network with the scaler and components of all subjects, and the regression of the selected units."""
        stated = self.card.part("features", Features)
        features = projected_features(
            read_projection(shared),
            {stated.n_features: stated.transform, **{n: name for name, n in stated.other_transforms.items()}},
            self.expected_input.n_frames or 1,
            (stated.extractor, stated.weights, stated.nodes, self.parameters.get("precision", "float32")),
            self.device,
        )
        weights = self._read_weights()
        _check_shapes(weights, 0)
        if len(weights.offset) != features.n_components:
            raise CorruptedFileError(
                f"{weights.path} has regressions on {len(weights.offset)} components, {shared} has "
                f"{features.n_components}. They are not of one publication; get both again."
            )
        self.told_transform = features.transform
        readout = self._readout(weights, torch.float32)
        readout.projection = Components()
        return features, readout

    def _read_weights(self) -> Weights:
        paths = self.weights_paths(self.berg_dir, self.file_values)
        return joined((self._read_file(path) for path in paths), len(paths))

    def _read_file(self, path: Path) -> Weights:
        if path.suffix == ".safetensors":
            return read_converted(path, [output.name for output in self.card.outputs])
        return self._published(path)

    @classmethod
    def _published(cls, path: Path) -> Weights:
        """The weights of a published file; of one beside a file of all subjects, the regressions alone."""
        readout = cls.card.part("readout", Readout)
        if cls.card.files is not None and cls.card.files.shared is not None:
            return read_regressions(path, readout, cls.card.outputs)
        return fold(read_published(path, readout, cls.card.outputs), path)

    def attributes(self) -> dict[str, Any]:
        """What the responses are of, and the volume that the i, j, k of voxels count in."""
        told = {} if self.told_transform is None else {"transform": self.told_transform}
        return {**volume_shape(self.card, self.metadata), **super().attributes(), **told}

    @classmethod
    def network_files(cls) -> list[WantedFile]:
        """The weights of a torchvision network, where torchvision looks for them; other networks are installed."""
        stated = cls.card.part("features", Features)
        found = network_file(stated.extractor, stated.weights)
        return [] if found is None else [network_weights(*found)]

    @classmethod
    def converted_tensors(cls, path: Path, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The folded weights of a published file, one regression per output."""
        weights = cls._published(path)
        tensors: dict[str, NDArray[Any]] = {
            "centre": weights.centre,
            "matrix": weights.matrix,
            "offset": weights.offset,
            "n_pcas": np.array([weights.n_pcas]),
        }
        if weights.variance is not None:
            tensors["variance"] = weights.variance
        for name, rows in weights.coefficients.items():
            tensors[f"{name}.coefficient"] = rows(np.arange(len(weights.intercepts[name])))
            tensors[f"{name}.intercept"] = weights.intercepts[name]
        return tensors

    def _readout(self, weights: Weights, dtype: torch.dtype) -> LinearReadout:
        matrix = torch.from_numpy(weights.matrix).to(dtype)
        projection = Projection(
            torch.from_numpy(weights.centre), matrix, torch.from_numpy(weights.offset), weights.n_pcas
        )
        # Features that no PCA has centred are of one sign and cancel: float32 would lose 6e-6 of the responses.
        is_whole = matrix.shape[0] == matrix.shape[1] and self.device.type != "mps"
        exact = torch.float64 if is_whole else torch.float32
        coefficients, intercepts = [], []
        for output in self.card.outputs:
            lengths = {axis: axis_length(self.card, output.name, axis, self.metadata) for axis in output.axes[1:]}
            _check_units(weights, output, lengths)
            rows = self._rows(output, lengths)  # (n_repeats, n_units)
            flat = rows.ravel()
            coefficient, intercept = weights.coefficients[output.name](flat), weights.intercepts[output.name][flat]
            if not (np.isfinite(coefficient).all() and np.isfinite(intercept).all()):
                raise CorruptedFileError(f"{weights.path} has NaN or infinite values in its regression. Get it again.")
            coefficients.append(torch.from_numpy(coefficient.reshape(*rows.shape, coefficient.shape[1])).to(exact))
            intercepts.append(torch.from_numpy(intercept.reshape(rows.shape)).to(exact))
        variance = None if weights.variance is None else torch.from_numpy(np.array(weights.variance))
        return LinearReadout(projection, coefficients, intercepts, variance)

    def _rows(self, output: OutputArray, lengths: Mapping[str, int]) -> NDArray[np.intp]:
        """The rows of the regression that belong to the selected units, shape (n_repeats, n_units)."""
        axes = output.unit_axes
        sizes = [lengths[axis] for axis in axes]
        selected = np.ix_(*(self.indices_of(output.name, axis) for axis in axes))
        units = np.ravel_multi_index(selected, sizes).ravel()
        if REPETITION not in output.axes:
            return units[None]
        return self.indices_of(output.name, REPETITION)[:, None] * math.prod(sizes) + units


def _check_units(weights: Weights, output: OutputArray, lengths: Mapping[str, int]) -> None:
    found = len(weights.intercepts[output.name])
    if found != math.prod(lengths.values()):
        raise CorruptedFileError(
            f"{weights.path} has {found:,} units for output '{output.name}'; its axes {tuple(lengths)} "
            f"have {' x '.join(f'{length}' for length in lengths.values())}. Get the file again."
        )


@dataclass(frozen=True)
class Published:
    """The content of a published ``.npy`` file, checked."""

    scale: Floats  # (n_features,)
    mean: Floats
    pcas: list[tuple[Floats, Floats]]  # components (n_components, n_features) and mean (n_features,)
    regressions: dict[str, list[tuple[Floats, Floats]]]  # output -> per repeat: coefficients, intercepts
    variance: Floats | None = None  # (n_components,), of the first PCA, if the file keeps it


def read_published(path: Path, readout: Readout, outputs: list[OutputArray]) -> Published:
    """The weights in a published file; the PCA in any of its three layouts.

    Raises
    ------
    CorruptedFileError
        It names the key that is missing, or whose array has a wrong shape.
    """
    content = PublishedContent(path, read_npy(path))
    scale, mean = content.array("scaler_param.scale_", ("F",)), content.array("scaler_param.mean_", ("F",))
    repeats = expand(readout.repeats) if readout.repeats else []
    pca_places = [f"pca_param.{repeat}" for repeat in repeats if content.has(f"pca_param.{repeat}")]
    pcas = [
        (content.array(f"{place}.components_", ("K", "F")), content.array(f"{place}.mean_", ("F",)))
        for place in pca_places or ["pca_param"]
    ]
    spread = f"{(pca_places or ['pca_param'])[0]}.explained_variance_"
    variance = content.array(spread, ("K",)) if content.has(spread) else None
    regressions = {}
    for output in outputs:
        place = readout.regression.format(output=output.name)
        places = [f"{place}.{repeat}" for repeat in repeats] or [place]
        content.sizes.pop("U", None)
        regressions[output.name] = [
            (content.array(f"{each}.coef_", ("U", "K")), content.array(f"{each}.intercept_", ("U",))) for each in places
        ]
    return Published(scale, mean, pcas, regressions, variance)


def read_regressions(path: Path, readout: Readout, outputs: list[OutputArray]) -> Weights:
    """The regressions in a file whose scaler and components lie in another one: weights of no features.

    Raises
    ------
    CorruptedFileError
        As `read_published`.
    """
    content = PublishedContent(path, read_npy(path))
    regressions = {}
    for output in outputs:
        coefficients, intercepts = (
            f"{readout.regression.format(output=output.name)}.{key}".lstrip(".") for key in KEYS
        )
        content.sizes.pop("U", None)
        regressions[output.name] = [(content.array(coefficients, ("U", "K")), content.array(intercepts, ("U",)))]
    n_components = content.sizes["K"]
    return Weights(
        path,
        np.zeros(0, np.float32),
        np.zeros((n_components, 0), np.float32),
        np.zeros(n_components, np.float32),
        1,
        {name: _rows_of(parts) for name, parts in regressions.items()},
        {name: _intercepts(parts) for name, parts in regressions.items()},
    )


def fold(published: Published, path: Path) -> Weights:
    """Scaler and PCA as one matrix; see `berg.families.linearizing.readout`."""
    if not (np.isfinite(published.scale).all() and (published.scale > 0).all()):
        raise CorruptedFileError(
            f"{path} has zero, negative, NaN or infinite values as scales of its scaler. Get it again."
        )
    n_rows = sum(len(components) for components, _ in published.pcas)
    matrix = np.empty((n_rows, len(published.scale)), np.float32)
    offset = np.empty(n_rows)
    pcas = [(components, mean.astype(np.float64)) for components, mean in published.pcas]
    rows = [(component, mean) for components, mean in pcas for component in components]

    def fold_row(index: int) -> None:
        component, mean = rows[index]
        in_double = component.astype(np.float64)
        # Not `@`, that is BLAS, whose own threads would wait for each other in every one of these.
        offset[index] = -np.einsum("f,f->", in_double, mean)
        np.divide(in_double, published.scale, out=matrix[index], casting="same_kind")

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy lets go of the lock
        list(pool.map(fold_row, range(n_rows)))
    for name, array in (("scaler and PCA", matrix), ("scaler mean", published.mean), ("PCA mean", offset)):
        if not np.isfinite(array.sum(dtype=np.float64)):
            raise CorruptedFileError(f"{path} has NaN or infinite values in its {name}. Get the file again.")
    return Weights(
        path,
        published.mean.astype(np.float32),
        matrix,
        offset.astype(np.float32),
        len(published.pcas),
        {name: _rows_of(parts) for name, parts in published.regressions.items()},
        {name: _intercepts(parts) for name, parts in published.regressions.items()},
        None if published.variance is None else published.variance.astype(np.float32),
    )


def joined(files: Iterable[Weights], n_files: int) -> Weights:
    """The weights of several files, each of a repeat with a scaler, PCA and regression of its own, as of one.

    Features are centred once, on the scaler's mean of the first file; the offsets of the others make up for it:
    A (f - mean) = A (f - first mean) + A (first mean - mean).
    """
    parts = iter(files)
    first = next(parts)
    if n_files == 1:
        return first
    matrix = np.empty((n_files, *first.matrix.shape), np.float32)
    offset = np.empty((n_files, len(first.offset)), np.float32)
    matrix[0], offset[0] = first.matrix, first.offset
    read = [first]
    for index, part in enumerate(parts, start=1):
        if part.matrix.shape != first.matrix.shape or part.n_pcas != first.n_pcas:
            raise CorruptedFileError(
                f"{part.path} has PCAs of shape {part.matrix.shape}, {first.path} of {first.matrix.shape}; they are "
                "not training splits of one model. Get both again."
            )
        matrix[index] = part.matrix
        offset[index] = part.offset + _products(part.matrix, first.centre.astype(np.float64) - part.centre)
        read.append(replace(part, matrix=first.matrix))  # let go of what was copied
    return Weights(
        first.path,
        first.centre,
        matrix.reshape(-1, matrix.shape[2]),
        offset.ravel(),
        n_files * first.n_pcas,
        {name: _rows_of_files([part.coefficients[name] for part in read], n) for name, n in _lengths(read).items()},
        {name: np.concatenate([part.intercepts[name] for part in read]) for name in first.intercepts},
        first.variance,
    )


def _products(matrix: NDArray[np.float32], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """matrix @ vector in float64, without a copy of the whole matrix in it."""
    return np.array([row.astype(np.float64) @ vector for row in matrix])


def _lengths(files: list[Weights]) -> dict[str, int]:
    """How many units each file has, by output; the same in all of them."""
    lengths = {name: len(own) for name, own in files[0].intercepts.items()}
    for part in files:
        if {name: len(own) for name, own in part.intercepts.items()} != lengths:
            raise CorruptedFileError(f"{part.path} and {files[0].path} do not have the same units. Get both again.")
    return lengths


def _rows_of_files(readers: list[Rows], n_rows: int) -> Rows:
    """Rows of the regressions of several files, one file after another."""

    def rows(indices: NDArray[np.intp]) -> NDArray[np.float32]:
        parts = [reader(indices[indices // n_rows == file] - file * n_rows) for file, reader in enumerate(readers)]
        found = np.empty((len(indices), parts[0].shape[1]), np.float32)
        for file, part in enumerate(parts):
            found[indices // n_rows == file] = part
        return found

    return rows


def _rows_of(parts: list[tuple[Floats, Floats]]) -> Rows:
    """Rows of the regressions' coefficients, repeats one after another; only they are touched."""
    n_units = len(parts[0][1])

    def rows(indices: NDArray[np.intp]) -> NDArray[np.float32]:
        found = np.empty((len(indices), parts[0][0].shape[1]), np.float32)
        for repeat, (coefficients, _) in enumerate(parts):
            own = indices // n_units == repeat
            found[own] = coefficients[indices[own] - repeat * n_units]
        return found

    return rows


def _intercepts(parts: list[tuple[Floats, Floats]]) -> NDArray[np.float32]:
    return np.concatenate([intercepts for _, intercepts in parts]).astype(np.float32)


def read_converted(path: Path, outputs: list[str]) -> Weights:
    """The folded weights in a file that `convert` wrote, mapped: what is not used is not read."""
    names = ["centre", "matrix", "offset", "n_pcas", *(f"{output}.intercept" for output in outputs)]
    try:
        tensors = read_safetensors(path, names, mapped=True)
        (n_pcas,) = tensors["n_pcas"]
    except (InvalidParameterError, ValueError) as error:
        raise CorruptedFileError(f"{path}: {error} Delete it and make it anew with:  berg convert") from error
    return Weights(
        path,
        tensors["centre"],
        tensors["matrix"],
        tensors["offset"],
        int(n_pcas),
        {output: _row_reader(path, f"{output}.coefficient") for output in outputs},
        {output: tensors[f"{output}.intercept"] for output in outputs},
        read_safetensors(path, mapped=True).get("variance"),  # files of earlier versions do not keep it
    )


def _row_reader(path: Path, name: str) -> Rows:
    def rows(indices: NDArray[np.intp]) -> NDArray[np.float32]:
        try:
            return read_rows(path, name, indices)
        except InvalidParameterError as error:
            raise CorruptedFileError(f"{path}: {error} Delete it and make it anew with:  berg convert") from error

    return rows


def _check_shapes(weights: Weights, n_features: int) -> None:
    n_rows = len(weights.offset)
    fits = weights.matrix.shape == (n_rows, n_features) and weights.centre.shape == (n_features,)
    if not fits or weights.n_pcas < 1 or n_rows % weights.n_pcas:
        raise CorruptedFileError(
            f"{weights.path} has {weights.n_pcas} PCA(s) of shape {weights.matrix.shape}; this model's network has "
            f"{n_features} features. It is the file of another model, or damaged; get it again."
        )
