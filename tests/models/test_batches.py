"""The pipeline of batches, on a lane that has threads for both directions as that of a GPU has."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from berg.core.exceptions import DeviceMemoryError
from berg.models import batches as module
from berg.models.batches import Batch, SmallerBatchWarning, batch_slices, encode_batches
from berg.models.lanes import Responses, SameMemory, lane_to

N_STIMULI, SIZE, N_UNITS = 50, 4, 7


class Features(nn.Module):
    """Fails, if asked to, with a number of stimuli or at a batch; in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.too_many, self.error_at, self.error = 10**9, -1, RuntimeError("planned")
        self.threads: set[int] = set()
        self.first_values: list[float] = []

    def forward(self, stimuli: torch.Tensor) -> torch.Tensor:
        self.threads.add(threading.get_ident())
        if len(stimuli) > self.too_many:
            raise MemoryError
        if len(self.first_values) == self.error_at:
            raise self.error
        self.first_values.append(stimuli[0, 0].item())
        return torch.sin(stimuli)


class Readout(nn.Module):
    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (features, features[:, :3].to(torch.float16))


class Model:
    """What `encode_batches` asks a model for."""

    batch_size: ClassVar[int] = SIZE
    device = torch.device("cpu")
    precision = "float32"

    def __init__(self) -> None:
        self.modules = Features(), Readout()

    def loaded_modules(self) -> tuple[Features, Readout]:
        return self.modules

    def in_window(self, responses: Any, n_samples: int) -> Any:
        return responses

    @classmethod
    def get_model_id(cls) -> str:
        return "a model"


class Slow(SameMemory):
    """Copies that take their time, the first of a few longer than those after it."""

    n_stagers, n_writers, n_behind = 2, 3, 2

    def __init__(self) -> None:
        self.staged, self.on_host, self.error, self.error_at = 0, 0, RuntimeError("planned"), -1

    def stage(self, stimuli: torch.Tensor) -> torch.Tensor:
        self.staged += 1
        time.sleep(0.003 if self.staged % 3 else 0)
        return stimuli.clone()

    def to_host(self, computed: Responses) -> Callable[[], Responses]:
        copies, number = [response.clone() for response in computed], self.on_host
        self.on_host += 1

        def wait() -> Responses:
            time.sleep(0.005 if number % 3 else 0)
            if number == self.error_at:
                raise self.error
            return copies

        return wait


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(module, "lane_to", lambda devices: slow)
    return slow


@pytest.fixture
def model() -> Model:
    return Model()


STIMULI = np.random.default_rng(0).normal(size=(N_STIMULI, N_UNITS)).astype(np.float32)
TRUTH = [np.sin(STIMULI.astype(float)), np.sin(STIMULI.astype(float))[:, :3]]


class Run:
    """An encoding of all stimuli, and how far ahead it asked for them."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.arrays = [np.full((N_STIMULI, width), np.nan, np.float32) for width in (N_UNITS, 3)]
        self.asked = self.most_ahead = 0
        self.written: list[slice] = []

    def batches(self) -> Iterator[Batch]:
        for rows in batch_slices(N_STIMULI, SIZE):
            self.asked += 1
            self.most_ahead = max(self.most_ahead, self.asked - len(self.written))
            yield Batch(STIMULI[rows], rows, lambda: [self.arrays])

    def encode(self) -> None:
        for batch in encode_batches([self.model], self.batches(), SIZE):  # type: ignore[list-item]
            assert not np.isnan(self.arrays[0][batch.rows]).any()  # a batch is given back when it is written
            self.written.append(batch.rows)


def check(run: Run) -> None:
    assert run.written == list(batch_slices(N_STIMULI, SIZE))
    for array, truth, atol in zip(run.arrays, TRUTH, (1e-6, 1e-3), strict=True):
        np.testing.assert_allclose(array, truth, atol=atol)


def test_batches_are_computed_and_given_back_in_order(lane: Slow, model: Model) -> None:
    run = Run(model)
    run.encode()
    check(run)
    assert model.modules[0].first_values == STIMULI[::SIZE, 0].tolist()
    assert model.modules[0].threads == {threading.get_ident()}


def test_the_bits_are_those_of_one_batch_after_another(lane: Slow, model: Model, monkeypatch: Any) -> None:
    overlapping = Run(model)
    overlapping.encode()
    monkeypatch.setattr(module, "lane_to", lane_to)
    alone = Run(Model())
    alone.encode()
    for one, other in zip(overlapping.arrays, alone.arrays, strict=True):
        np.testing.assert_array_equal(one, other)


def test_on_a_cpu_a_batch_is_asked_for_when_the_one_before_is_written(model: Model) -> None:
    run = Run(model)
    run.encode()
    check(run)
    assert run.most_ahead == 1


def test_what_waits_is_bounded(lane: Slow, model: Model) -> None:
    run = Run(model)
    run.encode()
    assert 2 < run.most_ahead <= lane.n_stagers + 2 + lane.n_behind + 1


def test_large_responses_are_written_in_pieces_by_several_threads(
    lane: Slow, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 45)  # a stimulus has 40 bytes of responses
    pieces = []
    write = module._write_piece

    def watched(wait: Any, piece: slice, *rest: Any) -> None:
        pieces.append(piece.stop - piece.start)
        write(wait, piece, *rest)

    monkeypatch.setattr(module, "_write_piece", watched)
    run = Run(model)
    run.encode()
    check(run)
    assert pieces == [1] * N_STIMULI


@pytest.mark.parametrize("error", [RuntimeError("planned"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
@pytest.mark.parametrize("overlap", [True, False], ids=["overlapping", "on a CPU"])
def test_what_was_computed_before_an_error_is_written(
    error: BaseException, overlap: bool, model: Model, request: pytest.FixtureRequest
) -> None:
    if overlap:
        request.getfixturevalue("lane")
    model.modules[0].error, model.modules[0].error_at = error, 6
    run = Run(model)
    with pytest.raises(type(error)):
        run.encode()
    np.testing.assert_allclose(run.arrays[0][: 6 * SIZE], TRUTH[0][: 6 * SIZE], atol=1e-6)
    assert np.isnan(run.arrays[0][6 * SIZE :]).all()


def test_an_error_of_a_write_ends_the_run(lane: Slow, model: Model) -> None:
    lane.error, lane.error_at = OSError("the disk is full"), 5
    run = Run(model)
    with pytest.raises(OSError, match="the disk is full"):
        run.encode()
    assert run.written == list(batch_slices(N_STIMULI, SIZE))[:5]


def test_an_error_of_reading_comes_after_the_batches_before_it(lane: Slow, model: Model) -> None:
    run = Run(model)

    def broken() -> Iterator[Batch]:
        for number, batch in enumerate(run.batches()):
            if number == 5:
                raise ValueError("damaged")
            yield batch

    with pytest.raises(ValueError, match="damaged"):
        list(encode_batches([model], broken(), SIZE))  # type: ignore[list-item]


@pytest.mark.parametrize("overlap", [True, False], ids=["overlapping", "on a CPU"])
def test_batches_are_halved_until_they_fit(overlap: bool, model: Model, request: pytest.FixtureRequest) -> None:
    if overlap:
        request.getfixturevalue("lane")
    model.modules[0].too_many = 1
    run = Run(model)
    with pytest.warns(SmallerBatchWarning) as told:
        run.encode()
    check(run)
    assert len(told) == 2  # 4 -> 2 -> 1, and so from then on
    model.modules[0].too_many = 0
    run = Run(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallerBatchWarning)
        with pytest.raises(DeviceMemoryError, match="1 stimuli at once"):
            run.encode()


def test_the_way_to_a_device() -> None:
    assert isinstance(lane_to([torch.device("cpu")]), SameMemory)
    assert isinstance(lane_to([torch.device("cpu"), torch.device("cuda:0")]), SameMemory)
