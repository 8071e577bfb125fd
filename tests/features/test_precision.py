"""Precision by name: float32 is float32, and the settings of the user stay."""

import threading
import warnings
from collections.abc import Iterator

import pytest
import torch

from berg.core.exceptions import InvalidParameterError, SlowPrecisionWarning
from berg.features import precision
from berg.features.precision import arithmetic, best_precision, dtype_of, resolve_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
GLOBAL = ["highest", "high", "medium"]


def settings() -> dict[str, object]:
    """PyTorch's settings for float32 products, as a user reads them."""
    told: dict[str, object] = {
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn": torch.backends.cudnn.allow_tf32,
        "cuda": torch.backends.cuda.matmul.allow_tf32,
    }
    if hasattr(torch.backends.cudnn, "conv"):
        parts = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)
        told |= {str(number): part.fp32_precision for number, part in enumerate(parts)}
    return told


@pytest.fixture(params=GLOBAL)
def of_the_user(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """What a user has set for the process."""
    torch.set_float32_matmul_precision(request.param)
    yield settings()
    torch.set_float32_matmul_precision("highest")


def test_float32_is_exact_inside_and_the_settings_of_the_user_stay(of_the_user: dict[str, object]) -> None:
    with arithmetic("float32", GPU):
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert settings() == of_the_user


def test_tf32_rounds_products_of_a_gpu(of_the_user: dict[str, object]) -> None:
    with arithmetic("tf32", GPU):
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    assert settings() == of_the_user


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch has the settings by part since 2.9")
def test_settings_that_the_older_names_cannot_say() -> None:
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)
    before = [part.fp32_precision for part in parts]
    try:
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # that of recurrent networks stays tf32
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        of_the_user = [part.fp32_precision for part in parts]
        with arithmetic("float32", GPU):
            assert [part.fp32_precision for part in parts] == ["ieee"] * 3
        assert [part.fp32_precision for part in parts] == of_the_user
    finally:
        for part, value in zip(parts, before, strict=True):
            part.fp32_precision = value
    assert settings()["cudnn"] is True


def test_tf32_is_float32_on_a_cpu() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    with arithmetic("tf32", CPU):
        assert torch.get_float32_matmul_precision() == "highest"


def test_settings_come_back_after_an_error(of_the_user: dict[str, object]) -> None:
    with pytest.raises(RuntimeError, match="planned"), arithmetic("float32", GPU):
        raise RuntimeError("planned")
    assert settings() == of_the_user


def test_one_within_the_other(of_the_user: dict[str, object]) -> None:
    with arithmetic("float32", GPU):
        with arithmetic("tf32", GPU), arithmetic("tf32", GPU):
            assert torch.backends.cudnn.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        with arithmetic("float16", GPU):
            assert not torch.backends.cudnn.allow_tf32
    assert settings() == of_the_user


def test_threads_that_want_another_precision_wait() -> None:
    before, seen = settings(), []
    inside, may_leave = threading.Event(), threading.Event()

    def first() -> None:
        with arithmetic("float32", GPU):
            inside.set()
            may_leave.wait(10)
            seen.append(("float32", torch.backends.cudnn.allow_tf32))

    def second() -> None:
        with arithmetic("tf32", GPU):
            seen.append(("tf32", torch.backends.cudnn.allow_tf32))

    one, other = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    assert inside.wait(10)
    other.start()
    other.join(0.1)
    assert other.is_alive()
    may_leave.set()
    one.join(10)
    other.join(10)
    assert seen == [("float32", False), ("tf32", True)]
    assert settings() == before


def test_auto_is_half_precision_only_with_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_precision(GPU) == "float16"
    for has_it, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "has_instructions_for", lambda name, has_it=has_it: has_it)
        assert resolve_precision("auto", CPU) == name


def test_half_precision_without_instructions_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_instructions_for", lambda name: False)
    precision._warn_that_it_is_slow.cache_clear()
    with pytest.warns(SlowPrecisionWarning, match='precision="auto"'):
        assert resolve_precision("bfloat16", CPU) == "bfloat16"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_precision("bfloat16", CPU) == "bfloat16"
        assert resolve_precision("float16", GPU) == "float16"
        assert resolve_precision("float32", CPU) == "float32"


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(InvalidParameterError, match="Did you mean 'bfloat16'"):
        resolve_precision("bflaot16", CPU)


def test_types() -> None:
    assert dtype_of("tf32") is dtype_of("float32") is torch.float32
    assert dtype_of("float16") is torch.float16
