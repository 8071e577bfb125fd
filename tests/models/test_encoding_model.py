from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published import layouts

from berg import BERG
from berg.core.exceptions import DeviceError, StimulusWarning
from berg.models import encoding_model
from berg.models.device import resolve_device
from berg.models.lanes import SameMemory
from berg.stimuli import image_stimuli
from berg.stimuli.images import load_images
from berg.stimuli.stimulus_files import StimulusOrderWarning

MODEL_ID = "fmri-szinte2024-prf_css"

PEAK_MEMORY = """
import sys
import numpy as np
from berg import BERG

n_stimuli = int(sys.argv[1])
model = BERG().get_encoding_model("fmri-szinte2024-prf_css", device="cpu", selection={"min_held_out_r2": 0.8})
stimuli = np.broadcast_to(np.uint8(7), (n_stimuli, 3, 64, 64))  # no memory of its own
BERG().encode(model, stimuli)
# getrusage would count what the process that started this one held
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_stimuli() -> None:
    few, many = (
        float(subprocess.run([sys.executable, "-c", PEAK_MEMORY, n], check=True, capture_output=True, text=True).stdout)
        for n in ("64", "800")
    )
    # All 800 as float32 would be 39 MB, their luminance at the working resolution 82 MB.
    assert many - few < 20


PEAK_MEMORY_FROM_DISK = """
import sys
import numpy as np
from berg import BERG

berg_dir, images, out, n_images = *sys.argv[1:4], int(sys.argv[4])
model = BERG(berg_dir).get_encoding_model("fmri-nsd-fwrf", device="cpu", subject=1, selection={"roi": "V1"})
stimuli = np.load(images, mmap_mode="r")[:n_images]
responses = np.lib.format.open_memmap(out, "w+", np.float32, (n_images, 100))
model.generate_response(stimuli, out=responses, show_progress=False)
# getrusage would count what the process that started this one held
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images_on_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layouts.write_fwrf(tmp_path, 1, "V1", rng, n_voxels=100)
    images = tmp_path / "images.npy"
    np.save(images, rng.integers(0, 256, (600, 3, 224, 224), dtype=np.uint8))
    few, many = (peak_memory(tmp_path, images, tmp_path / "responses.npy", n_images) for n_images in (200, 600))
    # 400 more images are 60 MB, mapped or read; as float32 240 MB.
    assert many - few < 40
    responses = np.load(tmp_path / "responses.npy")
    assert responses.shape == (600, 100)
    assert responses.std(axis=0).min() > 0


def peak_memory(*arguments: object) -> float:
    command = [sys.executable, "-c", PEAK_MEMORY_FROM_DISK, *map(str, arguments)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize(("name", "kind"), [("cpu", "cpu"), ("auto", None)])
def test_a_device_that_is_there_is_found(name: str, kind: str | None) -> None:
    device = resolve_device(name)
    assert kind is None or device.type == kind


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpu", "'gpu' is not a device. Use 'auto', 'cpu'"),
        ("cuda:", "is not a device"),
        ("cuda:one", "is not a device"),
        ("cuda:²", "is not a device"),
        ("cpu:1", "is not a device"),
        ("cuda:999", r"PyTorch sees \d+ CUDA device\(s\) here. Use device='auto'"),
    ],
)
def test_a_device_that_is_not_there_is_named(name: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        resolve_device(name)


@pytest.mark.parametrize("n_models", [1, 2])
@pytest.mark.parametrize("options", [{}, {"labelled": True}, {"return_metadata": True}, {"out": "r.zarr"}])
def test_the_order_of_files_is_warned_of_once(n_models: int, options: dict[str, Any], tmp_path: Path) -> None:
    for number in (9, 10):
        Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    where = {"out": tmp_path / options["out"]} if "out" in options else options
    models = [BERG().get_encoding_model(MODEL_ID, "cpu", {"min_held_out_r2": 0.8})] * n_models
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        BERG().encode(models if n_models > 1 else models[0], tmp_path, **where)
    assert [warning.category for warning in caught].count(StimulusOrderWarning) == 1


def test_labels_of_a_folder_are_the_files_in_the_order_that_they_are_encoded_in(tmp_path: Path) -> None:
    for number in (9, 10):
        Image.fromarray(np.full((32, 32, 3), number * 20, np.uint8)).save(tmp_path / f"{number}.png")
    model = BERG().get_encoding_model(MODEL_ID, "cpu", {"min_held_out_r2": 0.8}, stimulus_width_deg=1.0)
    with pytest.warns(StimulusOrderWarning):
        labelled = BERG().encode(model, tmp_path, labelled=True)
    assert labelled.stimulus.values.tolist() == ["10.png", "9.png"]
    for name, row in zip(("10.png", "9.png"), labelled["responses"].values, strict=True):
        np.testing.assert_allclose(row, BERG().encode(model, [tmp_path / name])[0], rtol=1e-5, atol=1e-6)


def test_a_warning_about_the_stimuli_is_shown_once_for_all_batches() -> None:
    model = BERG().get_encoding_model(MODEL_ID, "cpu", {"min_held_out_r2": 0.8})
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        BERG().encode(model, np.zeros((6, 3, 40, 40), np.uint8), batch_size=2)
    assert [warning.category for warning in shown] == [StimulusWarning]


class ReadsInThree(SameMemory):
    """The processor, with files read as for a GPU."""

    n_readers = 3


@pytest.mark.parametrize(("lane", "n_threads"), [(SameMemory, 1), (ReadsInThree, 3)])
def test_files_are_read_by_as_many_threads_as_the_device_keeps_busy_and_stay_in_order(
    lane: type[SameMemory], n_threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / f"{number:02}.png")
    meeting, seen = threading.Barrier(n_threads), set()

    def load(files: list[Path]) -> Any:
        if len(seen) < n_threads and threading.current_thread() is not threading.main_thread():
            seen.add(threading.current_thread().name)
            meeting.wait(10)  # until all of them read
        return load_images(files)

    model = BERG().get_encoding_model(MODEL_ID, "cpu", {"min_held_out_r2": 0.8})
    expected = BERG().encode(model, pixels, batch_size=1)
    monkeypatch.setattr(image_stimuli, "load_images", load)
    monkeypatch.setattr(encoding_model, "lane_to", lambda devices: lane())
    np.testing.assert_array_equal(BERG().encode(model, tmp_path, batch_size=1), expected)
    assert len(seen) == n_threads
