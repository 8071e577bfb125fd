"""Code that PyTorch compiles for this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from berg.core.exceptions import ModelLoadError


@cache
def compile_once(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function compiled by PyTorch for any size of its arguments."""
    compiled: Callable[..., Tensor] = torch.compile(function, dynamic=True)
    return compiled


def check_compiler() -> None:
    """Raise ModelLoadError if this machine cannot compile."""
    try:
        compile_once(_shifted)(torch.ones(2, 2))
    except RuntimeError as error:  # what PyTorch's compiler raises derives from it
        reason = str(error).strip().splitlines()[0]
        raise ModelLoadError(
            f"compile=True needs a C++ compiler, and PyTorch could not use one here: {reason} Use compile=False."
        ) from error


def _shifted(x: Tensor) -> Tensor:
    return torch.sigmoid(x) + 1
