"""What fwRF models are trained on, prepared once and read in any order: pictures at the network's size, or its maps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.functional import resize

from berg.families.fwrf.features import INPUT_SIZE, MAP_SIZES, GNet, n_channels
from berg.families.fwrf.readout import saturate
from berg.fitting.fit_job import FitJob
from berg.system.durable_file import replacing
from berg.system.memory import release_pages
from berg.system.progress import progress_bar

BATCH = 32  # stimuli that are prepared together
N_PIXELS = [size**2 for size in MAP_SIZES]
_VERSION = 1  # of what the files hold

Blocks = Callable[[slice], NDArray[Any]]


def by_pixel(maps: tuple[Tensor, ...]) -> Tensor:
    """Saturated feature maps, the pixels of all groups one after another: shape (batch, n_pixels, n_channels)."""
    return torch.cat([saturate(group.permute(0, 2, 3, 1).flatten(1, 2)) for group in maps], dim=1)


def resized_pictures(job: FitJob, indices: NDArray[np.intp]) -> NDArray[Any]:
    """The pictures of a dataset at the size of the network, from a file in the job's cache, made if it is missing.

    Parameters
    ----------
    indices
        Shape (n_pictures,), which stimuli, in ascending order.

    Returns
    -------
    pictures
        Shape (n_pictures, 3, 227, 227), in the dtype of the card's input; a memory map.
    """

    def resized(block: slice) -> NDArray[Any]:
        found = torch.from_numpy(job.read_stimuli(indices[block]))
        pictures: NDArray[Any] = resize(found, [INPUT_SIZE, INPUT_SIZE], antialias=True).numpy()
        return pictures

    path = job.cache / f"gnet_pictures_{_digest(job.dataset.fingerprint_of_stimuli(indices))}.npy"
    return _kept(path, "reading pictures", len(indices), resized, job.show_progress)


def saturated_maps(job: FitJob, pictures: NDArray[Any], name: str, network: GNet) -> NDArray[np.float32]:
    """The feature maps of a network that is not trained, likewise from a file in the job's cache.

    Parameters
    ----------
    name
        Of the pictures: what tells them from others.

    Returns
    -------
    maps
        As `by_pixel` gives them: shape (n_pictures, n_pixels, n_channels); a memory map.
    """
    network = network.to(job.device).eval()

    @torch.no_grad()
    def maps(block: slice) -> NDArray[np.float32]:
        batch = torch.from_numpy(read_rows(pictures, np.arange(len(pictures))[block])).to(job.device)
        found: NDArray[np.float32] = by_pixel(network(batch)).cpu().numpy()
        return found

    state = [value.cpu().numpy() for value in network.state_dict().values()]
    path = job.cache / f"gnet_maps_{_digest(name, job.device.type, *state)}.npy"
    return _kept(path, "computing feature maps", len(pictures), maps, job.show_progress)


def maps_bytes(n_pictures: int, width: int) -> int:
    """How large the file of feature maps is."""
    return 4 * n_pictures * sum(N_PIXELS) * n_channels(width)


def read_rows(array: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """Rows of a memory map, in an array of their own; what was read before does not stay in memory."""
    release_pages(array)
    return np.ascontiguousarray(array[rows])


def _digest(*parts: str | NDArray[Any]) -> str:
    digest = hashlib.sha256(str(_VERSION).encode())
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:32]


def _kept(path: Path, words: str, n_rows: int, rows: Blocks, show_progress: bool | None) -> NDArray[Any]:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            for number, block in enumerate(_blocks(words, n_rows, rows, show_progress)):
                if number == 0:
                    header = {"descr": block.dtype.str, "fortran_order": False, "shape": (n_rows, *block.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(block.tobytes())
    found: NDArray[Any] = np.load(path, mmap_mode="r")
    return found


def _blocks(words: str, n_rows: int, rows: Blocks, show_progress: bool | None) -> Iterator[NDArray[Any]]:
    with progress_bar(words, n_rows, "stimuli", show_progress) as advance:
        for start in range(0, n_rows, BATCH):
            block = rows(slice(start, start + BATCH))
            yield block
            advance(len(block))
