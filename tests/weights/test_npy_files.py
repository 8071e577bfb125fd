"""Published .npy files come back as they were, and hostile ones are refused."""

from __future__ import annotations

import os
import pickle
import pickletools
import tracemalloc
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from berg.core.exceptions import BERGError, CorruptedFileError, MissingFileError, UnsafeFileError
from berg.weights.npy_files import MAPPED_FROM_BYTES, read_npy

from . import hostile
from .hostile_pickles import honest_npy
from .pickle_parts import npy, weights

PROTOCOLS = (2, 3, 4, 5)
GRID = np.arange(24.0).reshape(2, 3, 4)
HONEST: dict[Any, Any] = {
    "coef_": np.asfortranarray(GRID[0].astype(np.float32)),
    "grid": GRID,
    "turned": GRID.transpose(2, 0, 1),
    "every_second": GRID[:, ::2],
    "half": GRID.astype(np.float16),
    "big_endian": GRID.astype(">f4"),
    "integers": [np.arange(3, dtype=f"{sign}{size}") for sign in "iu" for size in (1, 2, 4, 8)],
    "mask": np.array([[True, False], [False, False]]),
    "names": np.array(["Fp1", "Oz", "größer"]),
    "big_endian_names": np.array(["Fp1"], dtype=">U3"),
    "byte_names": np.array([b"Fp1", b"O"]),
    "nothing": np.array([]),
    "no_vertices": np.empty((0, 250), dtype=np.int64),
    "one_number": np.array(2.5),
    "objects": np.array([None, "a", 1.5, [1, 2], {"b": GRID}], dtype=object),
    "grid_of_objects": np.asfortranarray(np.array([[1, "a", None], [2, "b", ()]], dtype=object)),
    "one_object": np.array({"a": 1}, dtype=object),
    "scalars": [np.float32(1.5), np.float64(-0.0), np.int64(-3), np.bool_(True), np.str_("V1"), np.bytes_(b"V2")],
    "plain": (None, True, False, 0, 255, 65536, -1, 2**40, -(2**70), 1.5, float("inf"), "ü\0", "", b"", b"\xff"),
    "ordered": OrderedDict([("b", 1), ("a", 2)]),
    1: {np.int64(2): "integer", np.str_("V1"): "text", None: "none", b"x": "bytes", 0.5: "number"},
    "long_text": "V1 " * 50_000,
    "large": np.arange(300_000.0).reshape(600, 500),
    "large_fortran": np.asfortranarray(np.arange(300_000.0).reshape(600, 500)),
}


def write(path: Path, value: object, protocol: int, core: str = "_core") -> Path:
    """What np.save writes of an object, with another protocol, or as numpy 1 spelt it."""
    array = np.empty((), dtype=object)
    array[()] = value
    data = pickle.dumps(array, protocol)
    if core == "core":
        # Frames would be of another length then; they can be left out.
        frames = [place for code, _, place in pickletools.genops(data) if code.name == "FRAME"]
        for place in reversed([place for place in frames if place is not None]):
            data = data[:place] + data[place + 9 :]
        data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        data = data.replace(b"\x8c\x16numpy.core.multiarray", b"\x8c\x15numpy.core.multiarray")
        data = data.replace(b"\x8c\x13numpy._core.numeric", b"\x8c\x12numpy.core.numeric")
        assert b"_core" not in data
    path.write_bytes(npy(data))
    return path


def assert_same(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if expected.dtype.hasobject:
            assert_same(list(found.flat), list(expected.flat))
        else:
            assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, dict):
        assert isinstance(found, dict)
        assert_same(list(found.items()), list(expected.items()))
    elif isinstance(expected, list | tuple):
        assert isinstance(found, list | tuple)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert repr(found) == repr(expected)


SMALL_FILES = [name for name in hostile.names(".npy") if name not in hostile.BOMBS]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return hostile.read_guarded(tmp_path_factory.mktemp("hostile"), SMALL_FILES)


@pytest.fixture(scope="module")
def outcomes_of_bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return hostile.read_guarded(tmp_path_factory.mktemp("bombs"), hostile.BOMBS)


@pytest.mark.parametrize("name", SMALL_FILES)
def test_hostile_file_is_refused_and_does_nothing(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    hostile.check_refused(name, outcomes[name])


def test_hostile_files_take_little_memory(outcomes: dict[str, dict[str, Any]]) -> None:
    hostile.check_memory(outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile.BOMBS)
def test_what_unpacks_to_more_than_it_is_refused(name: str, outcomes_of_bombs: dict[str, dict[str, Any]]) -> None:
    hostile.check_refused(name, outcomes_of_bombs[name])


@pytest.mark.slow
def test_what_unpacks_to_more_takes_little_memory(outcomes_of_bombs: dict[str, dict[str, Any]]) -> None:
    hostile.check_memory(outcomes_of_bombs)


@pytest.mark.parametrize("core", ["core", "_core"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("key", HONEST)
def test_value_comes_back_as_it_was(key: Any, protocol: int, core: str, tmp_path: Path) -> None:
    value = {"before": 1, key: HONEST[key], "after": HONEST[key]}
    assert_same(read_npy(write(tmp_path / "a.npy", value, protocol, core)), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_values_together_come_back(protocol: int, tmp_path: Path) -> None:
    assert_same(read_npy(write(tmp_path / "a.npy", HONEST, protocol)), HONEST)


def test_file_of_numpy_save_comes_back(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array(HONEST, dtype=object), allow_pickle=True)
    assert_same(read_npy(tmp_path / "a.npy"), HONEST)


def test_object_array_with_axes_comes_back(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", HONEST["grid_of_objects"], allow_pickle=True)
    assert_same(read_npy(str(tmp_path / "a.npy")), HONEST["grid_of_objects"])


def test_what_is_shared_stays_shared(tmp_path: Path) -> None:
    images = ["a", "b"]
    found = read_npy(write(tmp_path / "a.npy", {"train": images, "test": images}, 4))
    assert isinstance(found, dict)
    assert found["train"] is found["test"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pca_becomes_its_attributes(protocol: int, tmp_path: Path) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    pca = decomposition.PCA(3).fit(np.random.default_rng(0).random((20, 5), dtype=np.float32))
    found = read_npy(write(tmp_path / "a.npy", {"pca_param": {"rep-1": pca}}, protocol))
    assert_same(found, {"pca_param": {"rep-1": pca.__getstate__()}})


@pytest.mark.parametrize("kind", ["Nifti1Image", "Nifti1Pair", "Nifti2Image"])
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_header_of_nibabel_becomes_its_bytes(protocol: int, byteorder: str, kind: str, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    header = getattr(nibabel, kind)(np.zeros((3, 4, 5), np.float32), np.diag([2.5, 2.5, 2.5, 1])).header
    header = header.as_byteswapped(byteorder)
    found = read_npy(write(tmp_path / "a.npy", {"header": header, "again": header}, protocol))
    assert isinstance(found, dict)
    assert found["header"].dtype == np.uint8
    assert type(header)(found["header"].tobytes()) == header
    assert found["again"] is found["header"]


@pytest.mark.parametrize("state", [{}, {"_structarr": np.zeros(3)}, {"_structarr": np.zeros((), "V7")}], ids=str)
def test_what_is_no_header_is_refused(state: dict[str, Any], tmp_path: Path) -> None:
    nifti = pytest.importorskip("nibabel.nifti1")
    header = nifti.Nifti1Header.__new__(nifti.Nifti1Header)
    header.__dict__.update(state)
    with pytest.raises(CorruptedFileError, match=r"is called as no writer|7 bytes instead of 348 or 540"):
        read_npy(write(tmp_path / "a.npy", {"header": header}, 4))


@pytest.mark.parametrize(
    "array",
    [
        GRID,
        np.asfortranarray(GRID),
        GRID.astype(">i2"),
        GRID > 3,
        np.array(["a", "bc"]),
        np.array(1.5),
        np.empty((3, 0)),
        np.zeros((400, 400)),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_plain_array_comes_back(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    found = read_npy(tmp_path / "a.npy")
    assert_same(found, array)
    assert isinstance(found, np.ndarray)
    assert found.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header_is_read(version: tuple[int, int], tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, GRID, version=version)
    assert_same(read_npy(tmp_path / "a.npy"), GRID)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_large_array_is_a_view_and_costs_no_memory(protocol: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", {"coef_": np.ones((4000, 1000)), "n": np.ones(3)}, protocol)
    tracemalloc.start()
    try:
        found = read_npy(path)
        assert isinstance(found, dict)
        rows = found["coef_"][[5, 3, 5]]
        assert tracemalloc.get_traced_memory()[1] < MAPPED_FROM_BYTES
    finally:
        tracemalloc.stop()
    assert not found["coef_"].flags.writeable
    assert found["n"].flags.writeable
    np.testing.assert_array_equal(rows, np.ones((3, 1000)))


def test_array_outlives_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", {"coef_": np.ones((400, 1000))}, 4)
    found = read_npy(path)
    assert isinstance(found, dict)
    path.unlink()
    assert found["coef_"].sum() == 400_000


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"There is no file .*a\.npy.*berg download"):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(MissingFileError, match="There is no file"):
        read_npy(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may read everything")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(honest_npy())
    (tmp_path / "a.npy").chmod(0)
    with pytest.raises(MissingFileError, match="cannot be opened: Permission denied"):
        read_npy(tmp_path / "a.npy")


def test_error_names_what_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(hostile.FILES["os_system"].build())
    with pytest.raises(UnsafeFileError, match=r"a\.npy asks for '(posix|nt)\.system'; nothing of it was run"):
        read_npy(tmp_path / "a.npy")


def test_guard_hears_what_an_unpickler_would_do(tmp_path: Path) -> None:
    """Without this, an empty list of events would prove nothing."""
    guard = hostile.Guard()
    guard.file = tmp_path / "a.npy"
    (tmp_path / "other").write_text("x")
    guard.file = None
    assert any(event.startswith("open") for event in guard.events)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, 10_000), protocol=st.sampled_from(PROTOCOLS))
@example(length=0, protocol=4)
def test_cut_file_is_refused(length: int, protocol: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", SMALL, protocol)
    data = path.read_bytes()
    path.write_bytes(data[: length % len(data)])
    with pytest.raises(CorruptedFileError, match="cannot be read"):
        read_npy(path)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), protocol=st.sampled_from(PROTOCOLS))
def test_changed_bytes_give_a_value_or_our_error(data: st.DataObject, protocol: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", SMALL, protocol)
    changed = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] = data.draw(st.integers(0, 255) | st.sampled_from(b"\x85\x86\x87Rbsutead}](.hq\x94\x93c"))
    path.write_bytes(changed)
    with suppress(BERGError):
        repr(read_npy(path))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=200))
def test_noise_gives_a_value_or_our_error(payload: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(weights(payload))
    with suppress(BERGError):
        repr(read_npy(tmp_path / "a.npy"))


SMALL = {key: value for key, value in HONEST.items() if "large" not in str(key) and key != "long_text"}
_DTYPES = st.one_of(
    npst.floating_dtypes(sizes=(16, 32, 64)),
    npst.integer_dtypes(),
    npst.unsigned_integer_dtypes(),
    npst.boolean_dtypes(),
    npst.unicode_string_dtypes(max_len=5),
    npst.byte_string_dtypes(max_len=5),
)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.floats(),
    st.text(),
    st.binary(),
    npst.arrays(_DTYPES, npst.array_shapes(min_dims=0, min_side=0, max_side=4)),
)
_VALUES = st.recursive(
    _LEAVES,
    lambda values: st.one_of(
        st.lists(values, max_size=4),
        st.tuples(values, values),
        st.dictionaries(st.text() | st.integers(-1000, 1000), values, max_size=4),
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=_VALUES, protocol=st.sampled_from(PROTOCOLS))
def test_any_honest_value_comes_back(value: object, protocol: int, tmp_path: Path) -> None:
    assert_same(read_npy(write(tmp_path / "a.npy", value, protocol)), value)
