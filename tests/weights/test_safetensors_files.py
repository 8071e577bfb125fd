"""safetensors files are whole or not there, come back bit by bit, and hostile ones are refused."""

from __future__ import annotations

import json
import os
import stat
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from berg.core.exceptions import (
    BERGError,
    CorruptedFileError,
    InvalidParameterError,
    MissingExtraError,
    MissingFileError,
)
from berg.weights import safetensors_files
from berg.weights.safetensors_files import (
    read_metadata,
    read_rows,
    read_safetensors,
    write_safetensors,
)

from . import hostile

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"]


def numbers(dtype: str = "f4") -> NDArray[Any]:
    return (np.arange(12).reshape(4, 3) % 5).astype(dtype)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.safetensors"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return hostile.read_guarded(tmp_path_factory.mktemp("hostile"), hostile.names(".safetensors"))


@pytest.mark.parametrize("name", hostile.names(".safetensors"))
def test_hostile_file_is_refused_and_does_nothing(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    hostile.check_refused(name, outcomes[name])


def test_hostile_files_take_little_memory(outcomes: dict[str, dict[str, Any]]) -> None:
    hostile.check_memory(outcomes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_array_of_any_layout_comes_back(dtype: str, order: Any, byteorder: str, path: Path) -> None:
    array = np.array(numbers(dtype), dtype=byteorder + dtype, order=order)
    write_safetensors(path, {"w": array, "every_second": array[::2, ::-1]})
    np.testing.assert_array_equal(read_safetensors(path)["w"], numbers(dtype), strict=True)
    np.testing.assert_array_equal(load_file(path)["w"], numbers(dtype), strict=True)
    np.testing.assert_array_equal(load_file(path)["every_second"], numbers(dtype)[::2, ::-1], strict=True)


@pytest.mark.parametrize("array", [np.array(2.5), np.empty((0, 250)), np.empty(0), np.array([np.nan, -0.0])])
def test_array_of_any_shape_comes_back(array: NDArray[Any], path: Path) -> None:
    write_safetensors(path, {"w": array})
    found = read_safetensors(path)["w"]
    assert (found.shape, found.tobytes()) == (array.shape, array.tobytes())


def test_nothing_at_all_comes_back(path: Path) -> None:
    write_safetensors(path, {})
    assert read_safetensors(path) == {}


def test_file_written_by_torch_is_read(path: Path) -> None:
    save_torch_file({"w": torch.arange(6).reshape(2, 3), "b": torch.ones(3, dtype=torch.float16)}, path)
    found = read_safetensors(path)
    np.testing.assert_array_equal(found["w"], np.arange(6).reshape(2, 3), strict=True)
    np.testing.assert_array_equal(found["b"], np.ones(3, np.float16), strict=True)


def test_only_named_tensors_are_read(path: Path) -> None:
    write_safetensors(path, {"a": numbers(), "b": numbers(), "coef_": numbers()})
    assert list(read_safetensors(path, ["coef_", "a"])) == ["coef_", "a"]
    with pytest.raises(InvalidParameterError, match=r"no tensor 'coeff_'\. Did you mean 'coef_'"):
        read_safetensors(path, ["coeff_"])


def test_read_array_is_its_own_memory(path: Path) -> None:
    write_safetensors(path, {"w": numbers()})
    read_safetensors(path)["w"][:] = 0
    np.testing.assert_array_equal(read_safetensors(path)["w"], numbers())


def test_metadata_come_back(path: Path) -> None:
    write_safetensors(path, {"w": numbers()}, {"model_id": "größe", "": ""})
    assert read_metadata(path) == {"model_id": "größe", "": ""}
    write_safetensors(path, {"w": numbers()})
    assert read_metadata(path) == {}


@pytest.mark.skipif(os.name != "posix", reason="rights are those of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_rights_follow_the_umask(umask: int, path: Path) -> None:
    before = os.umask(umask)
    try:
        write_safetensors(path, {"w": numbers()})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_wrongly_written_file_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_safetensors(path, {"w": numbers()})
    old = path.read_bytes()

    def swaps_axes(tensors: dict[str, NDArray[Any]], *more: Any) -> None:
        save_file({name: array.T.reshape(array.shape) for name, array in tensors.items()}, *more)

    monkeypatch.setattr(safetensors_files, "save_file", swaps_axes)
    with pytest.raises(CorruptedFileError, match="'w' was written with other values"):
        write_safetensors(path, {"w": numbers()})
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_interrupted_writing_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_safetensors(path, {"w": numbers()})
    old = path.read_bytes()

    def stops_half_way(tensors: object, temporary: Path, metadata: object) -> None:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors_files, "save_file", stops_half_way)
    with pytest.raises(KeyboardInterrupt):
        write_safetensors(path, {"w": numbers()})
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_version_that_corrupts_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_files, "version", lambda name: "0.8.0")
    with pytest.raises(MissingExtraError, match=r"pip install 'safetensors!=0\.8\.0'"):
        write_safetensors(path, {"w": numbers()})
    assert not path.exists()


@pytest.mark.parametrize(
    "array", [np.array(["a"]), np.array([None]), np.array([1j]), np.zeros(2, np.longdouble), np.zeros(1, "M8[s]")]
)
def test_array_that_is_no_number_is_refused(array: NDArray[Any], path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="cannot be in a safetensors file"):
        write_safetensors(path, {"w": array})


def test_wrong_metadata_and_names_are_refused(path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="Metadata 'subject': 1 is not a text"):
        write_safetensors(path, {"w": numbers()}, {"subject": 1})  # type: ignore[dict-item]
    with pytest.raises(InvalidParameterError, match="'__metadata__' is no name"):
        write_safetensors(path, {"__metadata__": numbers()})
    with pytest.raises(MissingFileError, match=r"There is no folder .*mkdir -p"):
        write_safetensors(path / "w.safetensors", {"w": numbers()})


def test_missing_file_is_named(path: Path) -> None:
    for read in (read_safetensors, read_metadata):
        with pytest.raises(MissingFileError, match=r"There is no file .*w\.safetensors"):
            read(path)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 19), max_size=40) | st.builds(range, st.integers(0, 19), st.integers(0, 20)))
def test_rows_are_those_of_the_array(rows: list[int], path: Path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(20, 3)
    write_safetensors(path, {"first": np.ones(3), "coef_": array})
    found = read_rows(path, "coef_", rows)
    np.testing.assert_array_equal(found, array[list(rows)].reshape(-1, 3), strict=True)
    assert found.flags.owndata
    assert found.flags.writeable


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int32"])
def test_rows_of_a_vector_are_its_values(dtype: str, path: Path) -> None:
    write_safetensors(path, {"intercept_": np.arange(5.0)})
    rows = np.array([4, 0, 4], dtype=dtype)
    np.testing.assert_array_equal(read_rows(path, "intercept_", rows), [4.0, 0.0, 4.0])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([5], r"from 5 to 5; tensor 'w' of .* has rows 0 to 3"),
        ([-1], "from -1 to -1"),
        ([0.5], r"float64 of shape \(1,\).*flatnonzero"),
        ([True, False, True, False], "bool of shape"),
        ([[0]], r"of shape \(1, 1\)"),
    ],
)
def test_wrong_rows_are_refused(rows: Any, words: str, path: Path) -> None:
    write_safetensors(path, {"w": numbers(), "n": np.array(1.0)})
    with pytest.raises(InvalidParameterError, match=words):
        read_rows(path, "w", rows)
    with pytest.raises(InvalidParameterError, match=r"'n' of .* is a single number"):
        read_rows(path, "n", [0])


def test_rows_cost_only_their_own_bytes(path: Path) -> None:
    """Of 64 GiB, which no machine here has; the file is sparse."""
    shape = (2**24, 1024)
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 2**36]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 2**36)
    tracemalloc.start()
    try:
        rows = read_rows(path, "w", [7, 2**24 - 1, 12_345_678])
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(rows, np.zeros((3, 1024), np.float32), strict=True)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_give_arrays_or_our_error(data: st.DataObject, path: Path) -> None:
    write_safetensors(path, {"w": numbers(), "b": numbers("b1")}, {"a": "b"})
    changed = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(changed)
    with suppress(BERGError):
        repr(read_safetensors(path))
        read_metadata(path)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, 1000))
def test_cut_file_is_refused(length: int, path: Path) -> None:
    write_safetensors(path, {"w": numbers(), "v": numbers()}, {"a": "b"})
    data = path.read_bytes()
    path.write_bytes(data[: length % len(data)])
    with pytest.raises(CorruptedFileError, match="cannot be read"):
        read_safetensors(path)
