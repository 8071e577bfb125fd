"""The number of stimuli that are encoded together, from a few sizes that are tried."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from berg.core.exceptions import DeviceMemoryError, InvalidParameterError
from berg.models import batch_size
from berg.models.batch_size import common_batch_size, fastest


class Card:
    """A GPU whose rate is known for each size, with memory for so many stimuli."""

    def __init__(self, rates: dict[int, float], most: int = 10**9) -> None:
        self.rates, self.most, self.tried = rates, most, []

    def rate(self, size: int) -> float:
        self.tried.append(size)
        if size > self.most:
            raise DeviceMemoryError("too many")
        return self.rates[size]


# Stimuli per second with ViT-B/32 in half precision on an H200.
RATES = {32: 12_743.0, 64: 22_000.0, 128: 29_500.0, 256: 32_141.0, 512: 32_600.0}


@pytest.mark.parametrize(
    ("rates", "most", "fits", "chosen"),
    [
        (RATES, 512, 10**9, 512),
        (RATES, 300, 10**9, 256),
        (RATES, 512, 200, 128),
        (RATES, 512, 16, 32),
        ({32: 5_000.0, 64: 4_950.0, 128: 4_000.0}, 512, 10**9, 64),
        ({16: 1_000.0}, 16, 10**9, 16),
    ],
    ids=["all", "fewer stimuli", "less memory", "too little memory", "slower", "few stimuli"],
)
def test_the_largest_size_that_is_not_slower(rates: dict[int, float], most: int, fits: int, chosen: int) -> None:
    card = Card(rates, fits)
    assert fastest(min(rates), most, card.rate) == chosen


class Model:
    def __init__(self, device: str, size: int = 32, n_units: int = 10) -> None:
        self.device, self.batch_size, self.n_units = torch.device(device), size, n_units
        self.modules = torch.nn.Identity(), torch.nn.Identity()
        self.expected_input = SimpleNamespace(kind="image")

    def loaded_modules(self) -> Any:
        return self.modules

    def response_shapes(self) -> list[tuple[int, ...]]:
        return [(self.n_units,)]


def size_of(*models: Any, given: Any = None, n_stimuli: int = 10_000) -> int:
    return common_batch_size(models, given, n_stimuli, (3, 224, 224), "uint8")


def test_a_size_that_is_given_rules_and_a_cpu_takes_what_the_classes_say() -> None:
    assert size_of(Model("cuda:0"), given=7) == 7
    assert size_of(Model("cpu"), Model("cpu", 16)) == 16
    assert size_of(Model("cpu"), Model("cuda:0", 16)) == 16
    for wrong in (0, -1, 1.5, True, "many"):
        with pytest.raises(InvalidParameterError, match="whole number from 1"):
            size_of(Model("cpu"), given=wrong)


def test_a_gpu_is_tried_once_and_not_for_a_few_stimuli(monkeypatch: pytest.MonkeyPatch) -> None:
    card, model = Card(RATES), Model("cuda:0")
    monkeypatch.setattr(batch_size, "_rate", lambda models, size, shape, dtype: card.rate(size))
    assert size_of(model, n_stimuli=60) == 32
    assert card.tried == []
    assert size_of(model) == size_of(model) == 512
    assert card.tried == [32, 64, 128, 256, 512]


def test_responses_of_a_batch_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(RATES)
    monkeypatch.setattr(batch_size, "_rate", lambda models, size, shape, dtype: card.rate(size))
    assert size_of(Model("cuda:0", n_units=327_684)) == 256  # the whole cortex: 1.3 MB a picture
