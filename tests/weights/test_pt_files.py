"""Published .pt files come back as they were, and hostile ones are refused."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berg.core.exceptions import BERGError, CorruptedFileError, MissingFileError
from berg.weights.pt_files import check_tensors, map_pt, read_pt

from . import hostile
from .hostile_archives import archive

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


def published() -> dict[str, Any]:
    """The layout of the published weights, small."""
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    readout = OrderedDict(rf0=torch.rand(5, 9, 9), w=torch.rand(5, 8), b=torch.rand(5))
    stim_mean = np.random.default_rng(0).random((1, 3, 9, 9), dtype=np.float32)
    return {"stim_mean": stim_mean, "best_params": {"enc": encoder.state_dict(), "fwrfs": {1: readout}}}


def assert_same(found: object, expected: object) -> None:
    if isinstance(expected, torch.Tensor):
        assert type(found) is torch.Tensor
        assert not found.requires_grad
        assert (found.dtype, found.stride()) == (expected.dtype, expected.stride())
        assert torch.equal(found, expected.detach())
        return
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(np.asarray(found), expected, strict=True)
    else:
        assert found == expected


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return hostile.read_guarded(tmp_path_factory.mktemp("hostile"), hostile.names(".pt"))


@pytest.mark.parametrize("name", hostile.names(".pt"))
def test_hostile_file_is_refused_and_does_nothing(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    hostile.check_refused(name, outcomes[name])


def test_hostile_files_take_little_memory(outcomes: dict[str, dict[str, Any]]) -> None:
    hostile.check_memory(outcomes)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_published_layout_comes_back(protocol: int, tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "a.pt", pickle_protocol=protocol)
    assert_same(read_pt(str(tmp_path / "a.pt")), published())


def test_state_dict_loads_into_its_network(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "a.pt")
    found = read_pt(tmp_path / "a.pt")
    assert isinstance(found, dict)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    network.load_state_dict(found["best_params"]["enc"], strict=True)
    assert_same(network.state_dict(), published()["best_params"]["enc"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.arange(6).reshape(2, 3).to(dtype)
    torch.save([values, values[0, 0].clone(), torch.empty(0, 3, dtype=dtype)], tmp_path / "a.pt")
    found = read_pt(tmp_path / "a.pt")
    assert isinstance(found, list)
    assert_same(found[0], values)
    assert_same(found[1], values[0, 0])
    assert_same(found[2], torch.empty(0, 3, dtype=dtype))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.t(),
        lambda x: x[1:],
        lambda x: x[:, ::2],
        lambda x: x.reshape(1, 3, 1, 4).permute(3, 0, 1, 2),
        lambda x: x[2, 3],
        lambda x: x[3:],
    ],
)
def test_view_comes_back_with_its_strides(view: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path) -> None:
    values = torch.arange(12.0).reshape(3, 4)
    torch.save({"view": view(values)}, tmp_path / "a.pt")
    assert_same(read_pt(tmp_path / "a.pt"), {"view": view(values)})


def test_tensors_that_shared_their_storage_share_it(tmp_path: Path) -> None:
    values = torch.arange(12.0).reshape(3, 4)
    torch.save({"all": values, "rows": values[1:], "turned": values.t()}, tmp_path / "a.pt")
    found = read_pt(tmp_path / "a.pt")
    assert isinstance(found, dict)
    found["all"].zero_()
    assert not found["rows"].any()
    assert found["all"].data_ptr() == found["turned"].data_ptr()


def test_parameter_comes_as_a_tensor_without_gradient(tmp_path: Path) -> None:
    values = torch.rand(2, 3)
    torch.save({"w": torch.nn.Parameter(values)}, tmp_path / "a.pt")
    assert_same(read_pt(tmp_path / "a.pt"), {"w": values})


def test_tensors_are_their_own_memory(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, tmp_path / "a.pt")
    found = read_pt(tmp_path / "a.pt")
    assert isinstance(found, dict)
    found["w"] += 1
    assert_same(read_pt(tmp_path / "a.pt"), {"w": torch.ones(1000)})


def test_mapped_tensors_are_parts_of_the_file_and_writing_to_them_changes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    content = {
        "w": torch.arange(6.0).reshape(2, 3),
        "n": torch.arange(3),
        "b": torch.tensor([True]),
        "e": torch.zeros(0),
    }
    torch.save(content, path)
    before, mapped = path.read_bytes(), read_pt(path, mapped=True)
    assert isinstance(mapped, dict)
    for name, tensor in content.items():
        assert torch.equal(mapped[name], tensor)
    mapped["w"].fill_(7)
    assert path.read_bytes() == before


def test_checksums_of_mapped_tensors_are_compared_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.arange(6.0)}, path)
    check_tensors(path)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(torch.arange(6.0).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(damaged)
    read_pt(path, mapped=True)
    with pytest.raises(CorruptedFileError, match="checksum of member"):
        check_tensors(path)
    with pytest.raises(CorruptedFileError, match="checksum of member"):
        read_pt(path)


def test_members_as_older_versions_wrote_them_are_read(tmp_path: Path) -> None:
    """Without byte order, alignment and serialization id."""
    torch.save(published(), tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "a.pt", "w") as old:
        for name in new.namelist():
            if "/data" in name and ".data" not in name:
                old.writestr("archive" + name.removeprefix("new"), new.read(name))
        old.writestr("archive/version", "3\n")
    assert_same(read_pt(tmp_path / "a.pt"), published())


def test_format_before_torch_1_6_is_refused_by_its_name(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CorruptedFileError, match=r"format of torch before 1\.6"):
        read_pt(tmp_path / "a.pt")


def test_repeated_tensor_is_refused(tmp_path: Path) -> None:
    """Its strides are 0: a small file could ask for any memory."""
    torch.save({"w": torch.ones(1).expand(1000)}, tmp_path / "a.pt")
    with pytest.raises(CorruptedFileError, match="does not lie in its storage of 1 values"):
        read_pt(tmp_path / "a.pt")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"There is no file .*a\.pt"):
        read_pt(tmp_path / "a.pt")


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6))
def test_cut_file_is_refused(place: int, tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data[: place % len(data)])
    with pytest.raises(CorruptedFileError, match="cannot be read"):
        read_pt(tmp_path / "a.pt")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4), late=st.booleans()
)
def test_changed_bytes_give_the_honest_value_or_our_error(
    places: list[tuple[int, int]], late: bool, tmp_path: Path
) -> None:
    torch.save(published(), tmp_path / "a.pt")
    changed = bytearray((tmp_path / "a.pt").read_bytes())
    # The directory is at the end, and is where a change is not found by a checksum.
    span = 1500 if late else len(changed)
    for place, value in places:
        changed[-1 - place % span] = value
    (tmp_path / "a.pt").write_bytes(changed)
    with suppress(BERGError):
        assert_same(read_pt(tmp_path / "a.pt"), published())


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_pickle_gives_a_value_or_our_error(data: st.DataObject, tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "honest.pt")
    with zipfile.ZipFile(tmp_path / "honest.pt") as honest:
        members = {name: honest.read(name) for name in honest.namelist()}
    changed = bytearray(members["honest/data.pkl"])
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    members["honest/data.pkl"] = bytes(changed)
    (tmp_path / "a.pt").write_bytes(archive(*members.items()))
    with suppress(BERGError):
        repr(read_pt(tmp_path / "a.pt"))


class TestMapped:
    """Tensors that are read one by one."""

    def test_tensors_come_as_they_were_saved(self, tmp_path: Path) -> None:
        base = torch.arange(24.0).reshape(4, 6)
        saved = {
            **{"whole": base, "turned": base.T, "part": base[1:3, ::2], "empty": torch.empty(0, 3)},
            **{
                "number": torch.tensor(7),
                "parameter": torch.nn.Parameter(torch.ones(2)),
                "spread": torch.ones(1).expand(1),
            },
            **{str(dtype): torch.ones(3, dtype=dtype) for dtype in DTYPES if dtype is not torch.bfloat16},
        }
        torch.save(saved, tmp_path / "weights.pth")
        found = map_pt(tmp_path / "weights.pth")
        assert list(found) == list(saved)
        for name, tensor in saved.items():
            np.testing.assert_array_equal(found[name], tensor.detach().numpy(), strict=True)
            assert not found[name].flags.writeable or not found[name].size

    def test_only_the_members_that_are_used_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pt"
        torch.save({"one": torch.full((1000,), 3.0), "other": torch.full((1000,), 5.0)}, path)
        content = path.read_bytes()
        damaged = content.index(torch.full((9,), 5.0).numpy().tobytes())
        path.write_bytes(content[: damaged + 1] + b"\xff" + content[damaged + 2 :])
        tensors = map_pt(path)
        assert tensors["one"].sum() == 3000
        with pytest.raises(CorruptedFileError, match=r"weights\.pt.*checksum of member"):
            tensors["other"]
        with pytest.raises(CorruptedFileError, match="checksum of member"):
            read_pt(path)

    @pytest.mark.parametrize("content", [[torch.ones(2)], {"a": 1}, {1: torch.ones(2)}, {"a": {"b": torch.ones(2)}}])
    def test_what_is_no_dict_of_tensors_is_refused(self, content: Any, tmp_path: Path) -> None:
        torch.save(content, tmp_path / "weights.pt")
        with pytest.raises(CorruptedFileError, match="not a dict of tensors by name"):
            map_pt(tmp_path / "weights.pt")

    def test_numbers_that_numpy_does_not_have_are_refused(self, tmp_path: Path) -> None:
        torch.save({"a": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "weights.pt")
        with pytest.raises(CorruptedFileError, match="'a' holds bfloat16 numbers"):
            map_pt(tmp_path / "weights.pt")["a"]

    def test_hostile_files_raise_typed_errors_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pt"
        torch.save({"a": torch.arange(40.0), "b": torch.ones(3, 4)}, path)
        whole = path.read_bytes()
        rng = np.random.default_rng(0)
        for cut in (0, 10, len(whole) // 2, len(whole) - 3):
            path.write_bytes(whole[:cut])
            with pytest.raises(BERGError):
                map_pt(path)
        for _ in range(150):
            changed = bytearray(whole)
            changed[int(rng.integers(len(whole)))] ^= int(rng.integers(1, 256))
            path.write_bytes(changed)
            with suppress(BERGError):
                tensors = map_pt(path)
                assert sum(tensors[name].size for name in tensors) <= 52
