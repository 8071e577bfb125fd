"""Affine maps on the CPU, by oneDNN if PyTorch was built with it.

PyTorch gives float32 products to MKL, which reaches on AMD's processors less than half of what oneDNN does
(170-180 against 370-390 GFLOP/s on two cores of an EPYC; on Intel's the two are alike). Figures:
``benchmarks/encode.py``, sides ``bare`` and ``float32``.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


def linear(x: Tensor, matrix: Tensor, offset: Tensor | None = None, gelu: bool = False) -> Tensor:
    """``x @ matrix.T + offset``, then GELU if asked for.

    Parameters
    ----------
    x
        Shape (..., n_in).
    matrix, offset
        Shapes (n_out, n_in) and (n_out,), in the dtype of x.
    """
    # A matrix that is a slice of columns takes oneDNN a thousand times longer.
    dense = x.is_contiguous() and matrix.is_contiguous()
    if x.device.type == "cpu" and dense and _by_onednn(x.dtype) and not _needs_gradient(x, matrix, offset):
        shape = x.shape
        flat = x if x.dim() == 2 else x.reshape(-1, shape[-1])
        product = _onednn_linear(flat, matrix, offset, gelu)
        return product if x.dim() == 2 else product.reshape(*shape[:-1], len(matrix))
    product = functional.linear(x, matrix, offset)
    return functional.gelu(product) if gelu else product


def fast_linear(x: Tensor, matrix: Tensor, offset: Tensor | None = None, gelu: bool = False) -> Tensor:
    """`linear` by the library that is faster on this processor; which one it is, its instructions tell.

    Without AVX-512 that is MKL for float32: the blocks of a ViT-L/14 take 2.3 s for a picture on one thread of an EPYC,
    by oneDNN 3.0 s (``benchmarks/retina.py``).
    """
    if x.dtype != torch.float32 or not _mkl_is_faster():
        return linear(x, matrix, offset, gelu)
    product = functional.linear(x, matrix, offset)
    return functional.gelu(product) if gelu else product


@cache
def _mkl_is_faster() -> bool:
    return torch._C.has_mkl and torch.backends.cpu.get_cpu_capability() == "AVX2"


def _onednn_linear(x: Tensor, matrix: Tensor, offset: Tensor | None, gelu: bool) -> Tensor:
    behind, algorithm = ("gelu", "none") if gelu else ("none", "")
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, matrix, offset, behind, [], algorithm)
    return product


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


@cache
def _by_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN is available for a dtype and computes correctly: PyTorch's name for it is not a public one."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch._C._has_mkldnn:
        return False
    generator = torch.Generator().manual_seed(0)
    x, matrix, offset = (torch.randn(shape, generator=generator).to(dtype) for shape in ((4, 8), (3, 8), (3,)))
    try:
        for gelu in (False, True):
            expected = functional.linear(x.double(), matrix.double(), offset.double())
            expected = functional.gelu(expected) if gelu else expected
            product = _onednn_linear(x, matrix, offset, gelu)
            if not torch.allclose(product.double(), expected, atol=1e-5 if dtype == torch.float32 else 0.1):
                return False
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True
