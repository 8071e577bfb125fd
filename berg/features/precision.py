"""The numbers that a model computes with, by name.

============  ==============================================================================================
``float32``   IEEE float32 everywhere. PyTorch's own default computes convolutions on a GPU in TF32.
``tf32``      float32, whose products a GPU since Ampere rounds to 10 bits of mantissa; float32 elsewhere.
``float16``   Half precision with 10 bits of mantissa: the best choice on a GPU.
``bfloat16``  Half precision with 7 bits of mantissa, for processors that have instructions for it.
``auto``      What is fast and accurate on the device: float16 on a GPU, bfloat16 on a processor that has
              instructions for it, otherwise float32.
============  ==============================================================================================
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from berg.core.exceptions import InvalidParameterError, SlowPrecisionWarning, did_you_mean, listing
from berg.core.stacklevel import users_stacklevel

_DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PRECISIONS = (*_DTYPES, "auto")


def resolve_precision(precision: str, device: torch.device) -> str:
    """The name of what is computed with: the one given, or for ``auto`` the one that suits the device.

    Warn once in a process if the processor computes in half precision without instructions for it.

    Raises
    ------
    InvalidParameterError
        If there is no such precision.
    """
    if precision not in PRECISIONS:
        raise InvalidParameterError(
            f"precision is '{precision}'.{did_you_mean(precision, PRECISIONS)} Allowed: {listing(PRECISIONS)}."
        )
    if precision == "auto":
        return best_precision(device)
    if device.type == "cpu" and precision in ("float16", "bfloat16") and not has_instructions_for(precision):
        _warn_that_it_is_slow(precision)
    return precision


def with_precision(parameters: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Parameters of a model whose ``precision``, if it has one of ours, is the name of what is computed with."""
    precision = parameters.get("precision")
    if precision not in PRECISIONS:
        return dict(parameters)
    return {**parameters, "precision": resolve_precision(str(precision), device)}


def precision_of(parameters: Mapping[str, Any]) -> str:
    """What a model with these parameters computes with; ``float32`` if it has no such parameter."""
    precision = parameters.get("precision")
    return str(precision) if precision in PRECISIONS else "float32"


def best_precision(device: torch.device) -> str:
    """What is fast on a device and near to float32."""
    if device.type != "cpu":
        return "float16"
    return "bfloat16" if has_instructions_for("bfloat16") else "float32"


def dtype_of(precision: str) -> torch.dtype:
    """The type of the weights and activations."""
    return _DTYPES[precision]


@cache
def has_instructions_for(precision: str) -> bool:
    """Whether this processor multiplies matrices of half precision itself; without, it takes several times as long."""
    if precision == "bfloat16" and _answers("_is_avx512_bf16_supported"):
        return True
    return _answers({"bfloat16": "_is_amx_tile_supported", "float16": "_is_amx_fp16_supported"}[precision])


def _answers(name: str) -> bool:
    """The answer of PyTorch about this processor; no if this PyTorch does not know the question."""
    ask: Callable[[], bool] = getattr(torch.cpu, name, lambda: False)
    return ask()


@cache
def _warn_that_it_is_slow(precision: str) -> None:
    warnings.warn(
        f"This processor has no instructions for {precision}, which is several times slower here than float32. "
        'Give precision="float32", or precision="auto" for what is fastest on each machine.',
        SlowPrecisionWarning,
        stacklevel=users_stacklevel(),
    )


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Compute float32 products exactly as a precision says; the settings of the user are the same before and after.

    PyTorch's settings are those of the whole process. Threads that ask for the same precision compute side by side; one
    that asks for another waits.
    """
    with _SETTINGS.held("tf32" if precision == "tf32" and device.type == "cuda" else "ieee"):
        yield


class _Settings:
    """PyTorch's settings for float32 products, held at one value by any number of threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.value: str | None = None
        self.holders: list[int] = []  # threads, each as often as it holds the settings
        self.give_back: Callable[[], None] = lambda: None

    @contextmanager
    def held(self, value: str) -> Iterator[None]:
        """Keep the settings at a value."""
        me = threading.get_ident()
        with self.changed:
            self.changed.wait_for(lambda: self.value in (None, value) or me in self.holders)
            outer = self.value
            if outer != value:  # nobody holds them, or this thread does, further out
                restore, self.give_back = self.give_back, _set_float32_products(value)
                self.value = value
            else:
                restore = None
            self.holders.append(me)
        try:
            yield
        finally:
            with self.changed:
                self.holders.remove(me)
                if restore is not None and outer is not None:  # back to what this thread holds further out
                    self.give_back()
                    self.give_back, self.value = restore, outer
                elif not self.holders:
                    self.give_back()
                    self.give_back, self.value = lambda: None, None
                self.changed.notify_all()


_SETTINGS = _Settings()


def _set_float32_products(value: str) -> Callable[[], None]:
    """Set them to ``ieee`` or ``tf32``; gives what sets them back."""
    steps = [_set_by_part(value)] if hasattr(torch.backends.cudnn, "conv") else []  # PyTorch 2.9 and later
    if (by_older_names := _set_by_older_names(value)) is not None:
        steps.append(by_older_names)

    def restore() -> None:
        for step in reversed(steps):
            step()

    return restore


def _set_by_part(value: str) -> Callable[[], None]:
    """Set them for each kind of product, unless the older names do: a model that reads those would get an error."""
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    of_gpu: list[Any] = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
    of_cpu: list[Any] = [mkldnn.matmul, mkldnn.conv]
    before = [(setting, setting.fp32_precision) for setting in (*of_gpu, *of_cpu)]
    older = _older_settings()
    for setting in (*of_gpu, *of_cpu):
        if older is None or setting is mkldnn.conv:  # which has no older name
            setting.fp32_precision = "ieee" if setting in of_cpu else value

    def restore() -> None:
        for setting, old in before:
            if setting.fp32_precision != old:
                setting.fp32_precision = "none"  # follows a setting further up, if its value came from there
            if setting.fp32_precision != old:
                setting.fp32_precision = old

    return restore


def _set_by_older_names(value: str) -> Callable[[], None] | None:
    """Set them as before PyTorch 2.9; None if the user has set what the older names cannot say."""
    if (before := _older_settings()) is None:
        return None
    products, convolutions = before
    torch.set_float32_matmul_precision("high" if value == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = value == "tf32"

    def restore() -> None:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions

    return restore


def _older_settings() -> tuple[str, bool] | None:
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # settings of both kinds are mixed
        return None
