"""A GPU that has too little memory for a batch: half of it is tried, and so on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from berg import BERG
from berg.core.exceptions import DeviceMemoryError
from berg.encoding.estimate import estimate
from berg.encoding.stream import encode_to_store
from berg.models import batches
from berg.models.batches import SmallerBatchWarning
from berg.responses.store import open_responses
from berg.system import memory

MODEL_ID = "fmri-szinte2024-prf_css"


class Small(torch.nn.Module):
    """A module on a GPU that has the memory for so many stimuli at once."""

    def __init__(self, inside: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.inside, self.most, self.asked = inside, most, list[int]()

    def forward(self, batch: torch.Tensor) -> Any:
        self.asked.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.inside(batch)


def loaded(**parameters: Any) -> Any:
    return BERG().get_encoding_model(MODEL_ID, "cpu", {"min_held_out_r2": 0.7}, **parameters)


def pictures(n_stimuli: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n_stimuli, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def small() -> Any:
    model = loaded()
    model.features = Small(model.features, 5)
    return model


def test_the_batch_is_halved_until_it_fits_and_stays_so(small: Any) -> None:
    with pytest.warns(SmallerBatchWarning) as warned:
        responses = BERG().encode(small, pictures(41), batch_size=16)
    assert [str(each.message).rpartition(" To")[0] for each in warned if each.category is SmallerBatchWarning] == [
        "cpu has too little memory for 16 stimuli at once. Continuing with 8 at once.",
        "cpu has too little memory for 8 stimuli at once. Continuing with 4 at once.",
    ]
    assert small.features.asked == [16, 8, *[4] * 8, *[4, 4], 1]
    np.testing.assert_array_equal(responses, BERG().encode(loaded(), pictures(41), batch_size=4))


def test_several_models_are_halved_together(small: Any) -> None:
    other = loaded(stimulus_width_deg=8.0)
    with pytest.warns(SmallerBatchWarning):
        found = BERG().encode([small, other], pictures(9), batch_size=8)
    for responses, model in zip(found, (loaded(), other), strict=True):
        np.testing.assert_array_equal(responses, BERG().encode(model, pictures(9), batch_size=4))


@pytest.mark.slow
def test_a_store_goes_on_with_less_and_is_that_of_the_same_run(small: Any, tmp_path: Path) -> None:
    with pytest.warns(SmallerBatchWarning):
        stored = encode_to_store(small, pictures(41), tmp_path / "r.zarr", batch_size=16)
    whole = encode_to_store(loaded(), pictures(41), tmp_path / "whole.zarr", batch_size=16)
    np.testing.assert_allclose(stored.responses, whole.responses, rtol=1e-5, atol=1e-6)
    assert (open_responses(tmp_path / "r.zarr").status == 1).all()
    assert encode_to_store(loaded(), pictures(41), tmp_path / "r.zarr").attrs == stored.attrs  # nothing is left to do


def test_what_was_computed_of_the_batch_is_let_go_before_the_next_try(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed = []
    monkeypatch.setattr(batches, "_free_memory", lambda models: freed.append(len(models)))
    with pytest.warns(SmallerBatchWarning):
        BERG().encode(small, pictures(16), batch_size=16)
    assert freed == [1, 1]


@pytest.mark.slow
def test_the_estimate_is_of_the_batches_that_fit(small: Any, tmp_path: Path) -> None:
    with pytest.warns(SmallerBatchWarning):
        said = estimate(small, pictures(32), tmp_path / "r.zarr", batch_size=16)
    assert said.stimuli_per_second > 0
    assert said.device_memory_bytes is None  # of the CPU


def test_another_error_is_not_met_with_a_smaller_batch(small: Any) -> None:
    small.readout = torch.nn.Linear(3, 4)
    with pytest.raises(TypeError, match="linear"):
        BERG().encode(small, pictures(4))


def test_the_memory_of_a_gpu_is_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berg.encoding.estimate.device_memory", lambda device: (3_000_000_000, 80_000_000_000))
    said = estimate(loaded(), pictures(32), tmp_path / "r.zarr")
    assert (said.device_memory_bytes, said.free_device_memory_bytes) == (3_000_000_000, 80_000_000_000)
    assert str(said).endswith("; 3.0 GB of memory of the GPU (80.0 GB free)")


def test_responses_that_do_not_fit_into_memory_are_refused_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 100_000_000)
    stimuli = np.broadcast_to(np.uint8(7), (20_000, 3, 32, 32))
    words = r'The responses need \d+\.\d MB of memory, and 100\.0 MB are free.*out="NAME\.zarr" \(--out NAME\.zarr\)'
    with pytest.raises(DeviceMemoryError, match=words):
        BERG().encode(MODEL_ID, stimuli, device="cpu")  # 2,308 voxels


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_real_gpu_that_is_full_goes_on_with_less(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (512, 3, 512, 512), dtype=np.uint8)
    model = BERG().get_encoding_model(MODEL_ID, "cuda")
    expected = BERG().encode(model, images, batch_size=8)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 1_500_000_000) / total)
    try:
        with pytest.warns(SmallerBatchWarning):
            found = BERG().encode(model, images, batch_size=512)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    said = estimate(model, images, tmp_path / "r.zarr", batch_size=8)
    assert 0 < said.device_memory_bytes < said.free_device_memory_bytes
