import pytest
import torch
from torch.nn import functional

from berg.features import linear as linear_module
from berg.features.linear import fast_linear, linear


def made(dtype, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(1, 16), (7, 16), (2, 5, 16), (0, 16)])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.float64, 1e-12)])
def test_it_is_the_affine_map_computed_in_float64(dtype, error, shape, gelu):
    x, matrix, offset = made(dtype, *shape), made(dtype, 9, 16), made(dtype, 9)[:9]
    expected = functional.linear(x.double(), matrix.double(), offset.double())
    expected = functional.gelu(expected) if gelu else expected
    found = linear(x, matrix, offset, gelu)
    assert found.dtype == dtype
    assert found.shape == (*shape[:-1], 9)
    torch.testing.assert_close(found.double(), expected, atol=error, rtol=error)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("by_mkl", [False, True])
def test_either_library_gives_the_affine_map(by_mkl, gelu, monkeypatch):
    monkeypatch.setattr(linear_module, "_mkl_is_faster", lambda: by_mkl)
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        x, matrix, offset = made(dtype, 2, 5, 16), made(dtype, 9, 16), made(dtype, 9)
        expected = functional.linear(x.double(), matrix.double(), offset.double())
        expected = functional.gelu(expected) if gelu else expected
        torch.testing.assert_close(fast_linear(x, matrix, offset, gelu).double(), expected, atol=error, rtol=error)


def test_without_offset_it_is_a_matrix_product():
    x, matrix = made(torch.float32, 3, 16), made(torch.float32, 9, 16)
    torch.testing.assert_close(linear(x, matrix), (x.double() @ matrix.double().T).float())


@pytest.mark.parametrize("gelu", [False, True])
def test_a_gradient_goes_through(gelu):
    x, matrix = made(torch.float64, 3, 16).requires_grad_(), made(torch.float64, 9, 16)
    assert torch.autograd.gradcheck(lambda x: linear(x, matrix, gelu=gelu), x)
    single = made(torch.float32, 3, 16).requires_grad_()
    linear(single, matrix.float(), gelu=gelu).sum().backward()
    assert single.grad is not None


def test_columns_of_a_wider_matrix_give_the_same():
    x, matrix = made(torch.float32, 3, 16), made(torch.float32, 9, 40)
    torch.testing.assert_close(linear(x, matrix[:, 8:24]), linear(x, matrix[:, 8:24].contiguous()))


@pytest.mark.parametrize("break_it", [lambda *_: 1 / 0, lambda x, matrix, offset, gelu: x[:, :3] * 0])
def test_where_onednn_is_missing_or_wrong_pytorchs_own_product_is_used(monkeypatch, break_it):
    def broken(*arguments):
        try:
            return break_it(*arguments)
        except ZeroDivisionError as error:
            raise AttributeError("no such operator") from error

    x, matrix = made(torch.float32, 3, 16), made(torch.float32, 9, 16)
    expected = functional.linear(x, matrix)
    monkeypatch.setattr(linear_module, "_onednn_linear", broken)
    linear_module._by_onednn.cache_clear()
    try:
        assert not linear_module._by_onednn(torch.float32)
        assert torch.equal(linear(x, matrix), expected)
    finally:
        linear_module._by_onednn.cache_clear()
