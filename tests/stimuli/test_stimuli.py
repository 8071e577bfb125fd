"""Stimuli of every honest kind give the responses of the array, and are read batch by batch."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image

from berg import BERG
from berg.core.exceptions import InvalidParameterError, MissingFileError, StimulusError

MODEL = "fmri-szinte2024-prf_css"
N_IMAGES = 11


@pytest.fixture(scope="module")
def model() -> Any:
    return BERG().get_encoding_model(MODEL, device="cpu", selection={"min_held_out_r2": 0.6})


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (N_IMAGES, 3, 32, 40), dtype=np.uint8)


@pytest.fixture(scope="module")
def responses(model: Any, images: Any) -> Any:
    found = BERG().encode(model, images, batch_size=4)
    assert found.std() > 0
    return found


class Recorded:
    """A dataset that remembers what was read of it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.read: list[tuple[int, int]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.dataset.shape)

    @property
    def dtype(self) -> Any:
        return self.dataset.dtype

    def __getitem__(self, places: slice) -> Any:
        start, stop, step = places.indices(self.dataset.shape[0])
        assert step == 1
        self.read.append((start, stop))
        return self.dataset[places]

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise AssertionError("the whole dataset was read")


def as_memmap(images: Any, folder: Path) -> Any:
    np.save(folder / "images.npy", images)
    return np.load(folder / "images.npy", mmap_mode="r")


def as_raw_memmap(images: Any, folder: Path) -> Any:
    images.tofile(folder / "images.bin")
    return np.memmap(folder / "images.bin", images.dtype, "r+", shape=images.shape)


def as_h5py(images: Any, folder: Path) -> Any:
    return h5py.File(folder / "images.h5", "w").create_dataset("images", data=images, chunks=(2, 3, 32, 40))


def as_zarr(images: Any, folder: Path) -> Any:
    array = zarr.create_array(folder / "images.zarr", shape=images.shape, chunks=(5, 3, 32, 40), dtype=images.dtype)
    array[:] = images
    return array


Maker = Callable[[Any, Path], Any]
on_every_dataset = pytest.mark.parametrize("make", [as_memmap, as_raw_memmap, as_h5py, as_zarr])


@on_every_dataset
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_a_dataset_gives_the_responses_of_the_array(
    make: Maker, dtype: Any, model: Any, images: Any, responses: Any, tmp_path: Path
) -> None:
    dataset = make(images.astype(dtype), tmp_path)
    assert type(dataset) is not np.ndarray
    np.testing.assert_array_equal(BERG().encode(model, dataset, batch_size=4), responses)


@on_every_dataset
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_dataset_is_read_batch_by_batch(
    make: Maker, batch_size: int, model: Any, images: Any, responses: Any, tmp_path: Path
) -> None:
    recorded = Recorded(make(images, tmp_path))
    found = BERG().encode(model, recorded, batch_size=batch_size)
    np.testing.assert_allclose(found, responses, rtol=1e-4, atol=1e-5)
    batches = [(start, min(start + batch_size, N_IMAGES)) for start in range(0, N_IMAGES, batch_size)]
    assert recorded.read[0] == (0, 1)  # the first stimulus shows shape and dtype
    assert recorded.read[1:] == batches


def test_several_models_read_a_dataset_once(model: Any, images: Any, tmp_path: Path) -> None:
    other = BERG().get_encoding_model(MODEL, device="cpu", selection={"min_held_out_r2": 0.7})
    recorded = Recorded(as_h5py(images, tmp_path))
    both = BERG().encode([model, other], recorded, batch_size=6)
    assert recorded.read[1:] == [(0, 6), (6, 11)]
    for array, one in zip(both, (model, other), strict=True):
        np.testing.assert_allclose(array, BERG().encode(one, images), rtol=1e-4, atol=1e-5)
    assert both[0].shape[1] > both[1].shape[1] > 0


@pytest.mark.parametrize("values", [(np.int64, 256), (np.int32, -1), (np.uint16, 3000)])
@pytest.mark.parametrize("make", [as_memmap, as_h5py, as_zarr])
def test_a_value_out_of_range_late_in_a_dataset_is_refused(
    make: Maker, values: tuple[Any, int], model: Any, images: Any, tmp_path: Path
) -> None:
    dtype, wrong = values
    late = images.astype(dtype)
    late[-1, 2, 31, 39] = wrong
    with pytest.raises(StimulusError, match=rf"values in \[.*{abs(wrong)}.*; this model takes integers in \[0, 255\]"):
        BERG().encode(model, make(late, tmp_path), batch_size=4)


@on_every_dataset
def test_a_dataset_of_another_shape_or_dtype_is_refused_at_once(
    make: Maker, model: Any, images: Any, tmp_path: Path
) -> None:
    recorded = Recorded(make(images / 255, tmp_path))
    with pytest.raises(StimulusError, match=re.escape("Try (255 * stimulus).round()")):
        BERG().encode(model, recorded)
    assert recorded.read == [(0, 1)]


def test_a_dataset_without_the_first_axis_or_without_any_is_refused(model: Any, images: Any, tmp_path: Path) -> None:
    file = h5py.File(tmp_path / "wrong.h5", "w")
    with pytest.raises(StimulusError, match=re.escape("stimulus[None]")):
        BERG().encode(model, file.create_dataset("one", data=images[0]))
    with pytest.raises(StimulusError, match="single number"):
        BERG().encode(model, file.create_dataset("number", data=3))
    with pytest.raises(StimulusError, match="empty"):
        BERG().encode(model, file.create_dataset("empty", data=images[:0]))
    with pytest.raises(StimulusError, match=r"try stimulus\.transpose\(0, 3, 1, 2\)"):
        BERG().encode(model, file.create_dataset("last", data=images.transpose(0, 2, 3, 1)))


def test_what_is_written_to_a_private_memory_map_is_encoded(model: Any, images: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros_like(images))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")  # changes stay in memory
    mapped[:] = images
    expected = BERG().encode(model, images, batch_size=4)
    np.testing.assert_array_equal(BERG().encode(model, mapped, batch_size=4), expected)
    np.testing.assert_array_equal(mapped, images)


def test_a_part_of_a_memory_map_is_encoded(model: Any, images: Any, responses: Any, tmp_path: Path) -> None:
    mapped = as_memmap(images, tmp_path)
    found = BERG().encode(model, mapped[4:8], batch_size=4)
    np.testing.assert_array_equal(found, responses[4:8])
    np.testing.assert_allclose(BERG().encode(model, mapped[::-5]), responses[::-5], rtol=1e-4, atol=1e-5)


# Pictures


@pytest.fixture
def folder(images: Any, tmp_path: Path) -> Path:
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{number:02d}.png")
    return tmp_path


@pytest.mark.parametrize("kind", ["folder", "name of the folder", "files", "names", "tuple", "PIL", "mixed"])
def test_pictures_give_the_responses_of_the_array(kind: str, model: Any, folder: Path, responses: Any) -> None:
    files = sorted(folder.iterdir())
    pictures = [Image.open(file) for file in files]
    stimulus = {
        "folder": folder,
        "name of the folder": str(folder),
        "files": files,
        "names": [str(file) for file in files],
        "tuple": tuple(files),
        "PIL": pictures,
        "mixed": [*files[:5], *pictures[5:]],
    }[kind]
    np.testing.assert_array_equal(BERG().encode(model, stimulus, batch_size=4), responses)
    for picture in pictures:
        picture.close()


def test_files_come_in_the_order_given(model: Any, folder: Path, responses: Any) -> None:
    files = sorted(folder.iterdir())[::-1]
    np.testing.assert_allclose(BERG().encode(model, files), responses[::-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["file", "PIL"])
def test_one_picture_without_a_list_keeps_its_axis(kind: str, model: Any, folder: Path, images: Any) -> None:
    picture = folder / "03.png" if kind == "file" else Image.fromarray(images[3].transpose(1, 2, 0))
    found = BERG().encode(model, picture)
    np.testing.assert_array_equal(found, BERG().encode(model, images[3:4]))


def test_files_are_opened_batch_by_batch(
    model: Any, folder: Path, responses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def load(files: Any, *args: Any, **options: Any) -> Any:
        opened.append(len(files))
        return load_images(files, *args, **options)

    from berg.stimuli import image_stimuli as stimuli
    from berg.stimuli.images import load_images

    monkeypatch.setattr(stimuli, "load_images", load)
    np.testing.assert_array_equal(BERG().encode(model, folder, batch_size=4), responses)
    assert opened == [1, 4, 4, 3]  # the first for its size


@pytest.mark.parametrize("batch_size", [2, 100])
def test_pictures_of_different_sizes_are_refused_with_the_mend(batch_size: int, model: Any, folder: Path) -> None:
    Image.new("RGB", (50, 32)).save(folder / "10.png")
    with pytest.raises(StimulusError, match=r"50 x 32.*40 x 32.*size=224|40 x 32.*50 x 32.*size=224"):
        BERG().encode(model, folder, batch_size=batch_size)


def test_an_empty_list_or_folder_is_refused(model: Any, tmp_path: Path) -> None:
    for empty in ([], (), np.empty((0, 3, 8, 8), np.uint8)):
        with pytest.raises(StimulusError, match="empty"):
            BERG().encode(model, empty)
    with pytest.raises(MissingFileError, match=r"holds no picture \(\.bmp"):
        BERG().encode(model, tmp_path)


def test_a_file_that_is_not_there_is_named_before_anything_is_computed(model: Any, folder: Path) -> None:
    for stimulus in ([folder / "00.png", folder / "99.png"], str(folder / "99.png")):
        with pytest.raises(FileNotFoundError, match=r"no file or folder .*99\.png") as caught:
            BERG().encode(model, stimulus)
        assert isinstance(caught.value, MissingFileError)


def test_a_file_that_is_no_picture_is_named(model: Any, folder: Path) -> None:
    (folder / "10.png").write_text("no picture")
    with pytest.raises(StimulusError, match=r"10\.png is not a picture"):
        BERG().encode(model, folder, batch_size=2)


def test_a_list_of_arrays_is_one_array(model: Any, images: Any, responses: Any) -> None:
    np.testing.assert_array_equal(BERG().encode(model, list(images), batch_size=4), responses)


# Where the responses go


def test_responses_are_written_in_place(model: Any, images: Any, responses: Any, tmp_path: Path) -> None:
    array = np.full(responses.shape, np.nan, np.float32)
    assert BERG().encode(model, images, batch_size=4, out=array) is array
    np.testing.assert_array_equal(array, responses)
    mapped = np.lib.format.open_memmap(tmp_path / "responses.npy", "w+", np.float32, responses.shape)
    assert BERG().encode(model, images, batch_size=4, out=(mapped,)) is mapped
    mapped.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "responses.npy"), responses)
    columns = np.zeros((responses.shape[1], N_IMAGES), np.float32).T  # not contiguous
    np.testing.assert_array_equal(BERG().encode(model, images, batch_size=4, out=columns), responses)


@pytest.mark.parametrize("kind", ["h5py", "zarr"])
def test_responses_are_written_to_a_dataset(kind: str, model: Any, images: Any, responses: Any, tmp_path: Path) -> None:
    if kind == "h5py":
        out: Any = h5py.File(tmp_path / "out.h5", "w").create_dataset("out", responses.shape, np.float32)
    else:
        out = zarr.create_array(tmp_path / "out.zarr", shape=responses.shape, dtype=np.float32)
    assert BERG().encode(model, images, batch_size=4, out=out) is out
    np.testing.assert_array_equal(out[:], responses)


def test_each_of_several_models_has_an_out_of_its_own(model: Any, images: Any, responses: Any) -> None:
    own = np.zeros_like(responses)
    found = BERG().encode([model, model], images, batch_size=4, out=[own, None])
    assert found[0] is own
    np.testing.assert_array_equal(own, responses)
    np.testing.assert_array_equal(found[1], responses)
    with pytest.raises(InvalidParameterError, match=r"one entry per model \(2\)"):
        BERG().encode([model, model], images, out=[own])


@pytest.mark.parametrize(
    "change",
    [
        lambda out: out[:-1],
        lambda out: out[:, :1],
        lambda out: out.astype(np.float64),
        lambda out: out.astype(">f4"),
        lambda out: (out, out),
        lambda out: out.tolist(),
    ],
    ids=["too few rows", "too few columns", "float64", "byte order", "two", "list"],
)
def test_a_wrong_out_is_refused_with_the_right_shape(
    change: Callable[[Any], Any], model: Any, images: Any, responses: Any
) -> None:
    shape = re.escape(f'np.empty({responses.shape}, "float32")')
    with pytest.raises(InvalidParameterError, match=rf"out must be 1 float32 array.*Try {shape}"):
        BERG().encode(model, images, out=change(np.zeros_like(responses)))


def test_an_out_that_cannot_be_written_to_is_refused(model: Any, images: Any, responses: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "responses.npy", responses)
    with pytest.raises(InvalidParameterError, match=r'cannot be written to.*mode="r\+"'):
        BERG().encode(model, images, out=np.load(tmp_path / "responses.npy", mmap_mode="r"))
