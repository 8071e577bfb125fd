"""What this installation can do: versions, devices, packages of extras, and a short test. ``berg doctor`` prints it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.exceptions import BERGError
from berg.models.device import device_memory
from berg.models.loading import load_model, open_berg_dir

CORE_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "xarray", "zarr", "h5py", "safetensors", "pillow")
EXTRAS_OF_DEVELOPERS = ("dev", "docs")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+).*;.*extra == ['\"]([a-z0-9_-]+)['\"]")
_SLOWEST = 0.8  # of the speed of float32, below which a precision is not worth its digits
_SECONDS = 0.1  # for each precision on each device

TEST_MODEL = "fmri-szinte2024-prf_css"
EXPECTED_SUM, EXPECTED_LARGEST = 793.744480, 3.139369  # of the responses to `checkerboard`, on a CPU in float32
_TOLERANCE = 1e-4  # relative; devices add up in different orders


@dataclass(frozen=True)
class Device:
    """A device that models can run on.

    Attributes
    ----------
    memory
        Bytes that are free; None for the CPU.
    speed
        Multiplications of matrices per second in each precision, relative to float32.
    """

    device: str
    name: str
    memory: int | None
    speed: dict[str, float]

    @property
    def fast(self) -> list[str]:
        """The precisions that are about as fast as float32, or faster; the fastest first."""
        return sorted((name for name in self.speed if self.speed[name] >= _SLOWEST), key=lambda name: -self.speed[name])


@dataclass(frozen=True)
class SelfTest:
    """How the short test went; ``fault`` is empty if it passed."""

    device: str
    seconds: float
    fault: str


def versions() -> dict[str, str]:
    """The installed versions of the packages that numbers may depend on."""
    return {name: found for name in ("berg", *CORE_PACKAGES) if (found := _version(name)) is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def missing_extras() -> dict[str, list[str]]:
    """The packages that are not installed, by the extra that brings them: ``pip install "berg[EXTRA]"``."""
    missing: dict[str, list[str]] = {}
    for requirement in requires("berg") or []:
        if (found := _REQUIREMENT.fullmatch(requirement)) and found[2] not in EXTRAS_OF_DEVELOPERS:
            missing.setdefault(found[2], []).extend([] if _version(found[1]) else [found[1]])
    return {extra: packages for extra, packages in missing.items() if packages}


def devices() -> list[Device]:
    """The devices of this machine, each with the precisions that are fast on it, as measured now."""
    return [
        Device(name, _name_of(name), _free_memory(torch.device(name)), relative_speed(torch.device(name)))
        for name in device_names()
    ]


def device_names() -> list[str]:
    """The devices of this machine, such as cpu and cuda:0."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def _name_of(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return "Apple GPU" if device == "mps" else f"{torch.get_num_threads()} threads"


def _free_memory(device: torch.device) -> int | None:
    found = device_memory(device)
    return None if found is None else found[1]


def relative_speed(device: torch.device) -> dict[str, float]:
    """How fast matrices are multiplied in each precision, float32 being 1."""
    size = 512 if device.type == "cpu" else 4096
    rates = {}
    for precision in ("float32", "bfloat16", "float16"):
        matrix = torch.ones(size, size, device=device, dtype=getattr(torch, precision))
        try:
            rates[precision] = 1 / min(_times(matrix))
        except RuntimeError:  # the device cannot do it in this precision
            continue
    return {precision: rate / rates["float32"] for precision, rate in rates.items()}


def _times(matrix: torch.Tensor) -> Iterator[float]:
    """Seconds of one multiplication, at least two of them; the first one also makes things ready and does not count."""
    _wait(matrix @ matrix)
    begin = perf_counter()
    while True:
        start = perf_counter()
        _wait(matrix @ matrix)
        yield perf_counter() - start
        if perf_counter() - begin > _SECONDS:
            return


def _wait(result: torch.Tensor) -> None:
    result[0, 0].item()  # a GPU computes while Python goes on


def checkerboard() -> NDArray[np.uint8]:
    """A picture, shape (1, 3, 320, 320), that the built-in model of V1 responds to."""
    rows, columns = np.indices((320, 320)) // 40
    white = ((rows + columns) % 2 == 1).astype(np.uint8)
    return np.broadcast_to(255 * white, (1, 3, 320, 320)).copy()


def self_test(device: str) -> SelfTest:
    """Encode one picture with the built-in model, and compare with the responses that this version must give."""
    start = perf_counter()
    try:
        with load_model(TEST_MODEL, open_berg_dir(), device) as model:
            responses = np.asarray(model.generate_response(checkerboard()), np.float64)
    except (BERGError, RuntimeError) as error:
        return SelfTest(device, perf_counter() - start, str(error))
    found = {"sum": float(responses.sum()), "largest": float(responses.max())}
    expected = {"sum": EXPECTED_SUM, "largest": EXPECTED_LARGEST}
    wrong = [name for name in found if abs(found[name] - expected[name]) > _TOLERANCE * abs(expected[name])]
    words = ", ".join(f"the {name} of the responses is {found[name]:.6g}, not {expected[name]:.6g}" for name in wrong)
    return SelfTest(device, perf_counter() - start, words)
