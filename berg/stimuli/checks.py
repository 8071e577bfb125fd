"""Check a stimulus against what the card says that the model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import StimulusError

_CHUNK = 64  # stimuli looked at together when values are checked


def check_stimulus(stimulus: Any, expected: StimulusInput) -> NDArray[Any]:
    """The stimulus as an array whose rank, fixed sizes, dtype and values are what the card says.

    Parameters
    ----------
    stimulus
        An array, or a sequence of arrays of one shape; first axis: the stimuli.
    expected
        The ``input`` of the card: shape such as [batch_size, 3, height, width], dtype, range.

    Returns
    -------
    stimulus
        The same values; integers that fit into the card's integer dtype keep their own dtype, so
        that nothing is copied. `as_expected` casts a batch.

    Raises
    ------
    StimulusError
        It says what was given, what is taken, and what to type.
    """
    array = as_array(stimulus, expected)
    _check_shape(array, expected)
    _check_dtype(array, expected)
    if not _always_fits(array.dtype, expected):
        for start in range(0, len(array), _CHUNK):
            _check_values(array[start : start + _CHUNK], expected)
    return array


def as_expected(batch: NDArray[Any], expected: StimulusInput) -> NDArray[Any]:
    """One batch in the card's dtype, contiguous and writable, as PyTorch wants it."""
    return np.require(batch, np.dtype(expected.dtype or batch.dtype.newbyteorder("=")), ("C", "W", "A"))


def as_array(stimulus: Any, expected: StimulusInput) -> NDArray[Any]:
    """The stimulus as an array of real numbers, whatever its shape; raises as `check_stimulus`."""
    if hasattr(stimulus, "detach"):
        stimulus = _from_torch(stimulus)
    if isinstance(stimulus, np.ma.MaskedArray):
        raise StimulusError("The stimulus is a masked array; fill it first: stimulus.filled(...).")
    try:
        array = np.asarray(stimulus)
    except ValueError as error:
        raise StimulusError(
            f"The stimuli have different shapes and cannot be stacked into {_shape(expected)}: {error} "
            "Bring them to one size first."
        ) from error
    except (TypeError, RuntimeError) as error:  # e.g. a list of tensors on a GPU
        raise StimulusError(f"The stimulus cannot be made one array: {error}. Try numpy.stack first.") from error
    if array.dtype.kind not in "biuf":
        raise StimulusError(
            f"The stimulus is {_described(stimulus, array)}, not real numbers. This model takes {_taken(expected)}."
        )
    return array


def is_dataset(stimulus: Any) -> bool:
    """Whether it has a shape and is read by slices, as memory maps and arrays of h5py and zarr are."""
    is_array_like = all(hasattr(stimulus, name) for name in ("shape", "dtype", "__getitem__"))
    in_memory = isinstance(stimulus, np.ndarray) and not isinstance(stimulus, np.memmap)
    return is_array_like and not in_memory and not hasattr(stimulus, "detach")


def _from_torch(tensor: Any) -> NDArray[Any]:
    try:
        array: NDArray[Any] = tensor.detach().cpu().numpy()
    except (TypeError, RuntimeError) as error:  # bfloat16, sparse, quantized
        raise StimulusError(f"The stimulus is a tensor of {tensor.dtype} that NumPy cannot hold: {error}.") from error
    return array


def _check_shape(array: NDArray[Any], expected: StimulusInput) -> None:
    sizes = expected.shape
    if array.ndim == 0:
        raise StimulusError(f"The stimulus is a single number; this model takes {_taken(expected)}.")
    if 0 in array.shape:
        raise StimulusError(f"The stimulus is empty: shape {array.shape}. Give at least one stimulus.")
    if isinstance(sizes, str):
        return
    if array.ndim == len(sizes) - 1:
        raise StimulusError(
            f"The stimulus has shape {array.shape}; this model takes {_shape(expected)}. "
            "For one stimulus add the first axis: stimulus[None]."
        )
    if array.ndim != len(sizes):
        raise StimulusError(
            f"The stimulus has {array.ndim} axes, shape {array.shape}; this model takes {_shape(expected)}."
        )
    for axis, size in enumerate(sizes):
        if isinstance(size, int) and array.shape[axis] != size:
            raise StimulusError(
                f"Axis {axis} of the stimulus has length {array.shape[axis]} instead of {size}: shape "
                f"{array.shape}, this model takes {_shape(expected)}." + _hint_of_channels(array, sizes)
            )


def _hint_of_channels(array: NDArray[Any], sizes: list[int | str]) -> str:
    if len(sizes) == 5 and sizes[2] == 3 and array.shape[-1] == 3:  # videos
        return " Its channels come last; try stimulus.transpose(0, 1, 4, 2, 3)."
    if len(sizes) != 4 or sizes[1] != 3:
        return ""
    if array.shape[-1] == 3:
        return " Its channels come last; try stimulus.transpose(0, 3, 1, 2)."
    if array.shape[1] == 1:
        return " For grey pictures try stimulus.repeat(3, axis=1)."
    if array.shape[1] == 4:
        return " It has a fourth channel (alpha); try stimulus[:, :3]."
    return ""


def _check_dtype(array: NDArray[Any], expected: StimulusInput) -> None:
    if expected.dtype is None or array.dtype == np.dtype(expected.dtype):
        return
    wanted = np.dtype(expected.dtype)
    if wanted.kind == "f" and array.dtype.kind in "iuf":
        return
    if wanted.kind in "iu" and array.dtype.kind in "iu":
        return
    low, high = _bounds(array)
    if array.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        raise StimulusError(f"The stimulus has NaN or infinite values. This model takes {_taken(expected)}.")
    raise StimulusError(
        f"The stimulus is {array.dtype}"
        + (f" in [{low:g}, {high:g}]" if array.dtype.kind == "f" else "")
        + f"; this model takes {_taken(expected)}."
        + _hint_of_cast(array, low, high, expected)
    )


def _hint_of_cast(array: NDArray[Any], low: float, high: float, expected: StimulusInput) -> str:
    smallest, largest = expected.range or (0, 255)
    if array.dtype.kind == "b":
        return f' Try stimulus.astype("{expected.dtype}") * {largest:g}.'
    if array.dtype.kind != "f":
        return ""
    if low >= 0 and high <= 1:
        return f' Try ({largest:g} * stimulus).round().astype("{expected.dtype}").'
    if smallest <= low and high <= largest:
        return f' Try stimulus.round().astype("{expected.dtype}").'
    if low >= -1 and high <= 1:
        return f' Try (127.5 * (stimulus + 1)).round().astype("{expected.dtype}") if -1 is black.'
    return " Was it normalised already? Give the pictures themselves."


def _limits(expected: StimulusInput) -> tuple[float, float]:
    """The card's range, or else what its dtype holds."""
    if expected.range:
        return expected.range
    if expected.dtype is None:
        return -np.inf, np.inf
    dtype = np.dtype(expected.dtype)
    held = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return float(held.min), float(held.max)


def _always_fits(dtype: np.dtype[Any], expected: StimulusInput) -> bool:
    """Whether no value of this dtype can be wrong, so that none needs to be looked at."""
    low, high = _limits(expected)
    if dtype.kind not in "iu":
        return False
    return low <= np.iinfo(dtype).min and np.iinfo(dtype).max <= high


def _check_values(chunk: NDArray[Any], expected: StimulusInput) -> None:
    low, high = _bounds(chunk)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise StimulusError(f"The stimulus has NaN or infinite values. This model takes {_taken(expected)}.")
    smallest, largest = _limits(expected)
    if not (smallest <= low and high <= largest):
        is_sound = expected.kind == "sound"
        hint = " Integer samples as floats? Divide by full scale, 32768 for 16 bits." if is_sound else ""
        raise StimulusError(
            f"The stimulus has values in [{low:g}, {high:g}]; this model takes {_taken(expected)}.{hint}"
        )


def _bounds(array: NDArray[Any]) -> tuple[float, float]:
    return float(array.min()), float(array.max())


def _described(stimulus: Any, array: NDArray[Any]) -> str:
    return f"a {type(stimulus).__name__}" if array.ndim == 0 else f"an array of {array.dtype}"


def _shape(expected: StimulusInput) -> str:
    sizes = expected.shape
    return sizes if isinstance(sizes, str) else f"({', '.join(map(str, sizes))})"


def _taken(expected: StimulusInput) -> str:
    integers = expected.dtype is not None and np.dtype(expected.dtype).kind in "iu"
    kind = "integers" if integers else "numbers"
    low, high = _limits(expected)
    span = f" in [{low:g}, {high:g}]" if expected.range or integers else ""
    unit = f" {expected.unit}" if expected.unit else ""
    return f"{kind}{span}{unit} of shape {_shape(expected)}"
