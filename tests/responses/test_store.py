import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr

from berg import BERG
from berg.core.exceptions import (
    MissingFileError,
    StorageError,
    StoreBusyError,
    StoreIncompleteError,
    StoreMismatchError,
)
from berg.responses import store_frame
from berg.responses.labelled import label_responses
from berg.responses.store import ResponseStore, check_same, open_responses, read_identity, remove_store
from berg.system.locks import store_lock

EEG = np.random.default_rng(0).normal(size=(7, 3, 4)).astype("float32")
SOURCE = np.random.default_rng(1).normal(size=(7, 5)).astype("float32")
LABELS = {
    "eeg": {
        "axes": ["stimulus", "channel", "time"],
        "unit": "microvolt",
        "attributes": {"time_step": np.float64(0.1), "channel_total": 60},
        "coordinates": {
            "channel": ("channel", np.array(["Oz", "O1 é", "a longer one"])),
            "time": ("time", np.array([-0.1, 0.0, 0.1])[[0, 1, 2, 2]]),
            "chosen": ("channel", np.array([True, False, True])),
        },
    },
    "source": {"axes": ["stimulus", "vertex"], "unit": "nAm", "coordinates": {"vertex": ("vertex", np.arange(5) * 10)}},
}
MODEL = {"model_id": "eeg-made_up-linear", "subject": 2, "licence": "CC0", "flag": True, "layers": ["a", "b"]}
NAMES = [f"ö {number}.png" for number in range(7)]
IDENTITY = {"models": {"model": {"model": "eeg-made_up-linear"}}, "batch_size": 3}


def one_output():
    return label_responses(EEG, {"model": MODEL, "responses": {"eeg": LABELS["eeg"]}}, NAMES)


def two_outputs():
    return label_responses((EEG, SOURCE), {"model": MODEL, "responses": LABELS}, NAMES)


def made(path, labelled=None, block_size=3, **options):
    return ResponseStore.create(path, labelled or {"": one_output()}, IDENTITY, block_size, **options)


def ones(store, index):
    places = store.block(index)
    return np.ones(places.stop - places.start, np.uint8)


def fill(store, *arrays):
    for index in store.missing_blocks():
        store.write(index, [array[store.block(index)] for array in arrays], ones(store, index))


def test_a_filled_store_gives_back_responses_labels_and_attributes(tmp_path):
    store = made(tmp_path / "r.zarr")
    assert store.n_stimuli == 7
    assert store.missing_blocks() == [0, 1, 2]
    fill(store, EEG)
    assert store.missing_blocks() == []
    found = open_responses(tmp_path / "r.zarr")
    xr.testing.assert_equal(found.drop_vars("status").load(), one_output())
    assert found.attrs == one_output().attrs
    assert found["eeg"].attrs == {"units": "microvolt", "time_step": 0.1, "channel_total": 60}
    assert found.status.attrs["flag_meanings"] == "missing encoded damaged"
    assert zarr.open_array(tmp_path / "r.zarr" / "eeg").chunks == (3, 3, 4)


def test_it_is_read_by_xarray_alone_without_a_warning(tmp_path):
    fill(made(tmp_path / "r.zarr", {"": one_output()}), EEG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xr.open_zarr(tmp_path / "r.zarr").load()
    assert plain["eeg"].dims == ("stimulus", "channel", "time")
    np.testing.assert_array_equal(plain["eeg"].sel(stimulus="ö 6.png"), EEG[6])
    assert set(plain.coords) == {"stimulus", "channel", "time", "chosen", "status"}
    assert plain.chosen.dtype == bool


def test_several_outputs_and_models_are_a_tree_in_the_order_given(tmp_path):
    store = made(tmp_path / "r.zarr", {"z": two_outputs(), "a": one_output()})
    fill(store, EEG, SOURCE, 2 * EEG)
    found = open_responses(tmp_path / "r.zarr")
    assert isinstance(found, xr.DataTree)
    assert list(found.children) == ["z", "a"]
    assert list(found["z"].children) == ["eeg", "source"]
    np.testing.assert_array_equal(found["z/source/source"], SOURCE)
    np.testing.assert_array_equal(found["a/eeg"], 2 * EEG)
    assert found["z/source"].attrs == found["a"].attrs == two_outputs()["source"].attrs


def test_a_block_is_done_when_it_is_so_in_every_array(tmp_path):
    store = made(tmp_path / "r.zarr", {"": two_outputs()})
    fill(store, EEG, SOURCE)
    (tmp_path / "r.zarr" / "source" / "status" / "c" / "1").unlink()
    assert store.missing_blocks() == [1]
    assert store.status().tolist() == [1, 1, 1, 0, 0, 0, 1]
    with pytest.raises(StoreIncompleteError, match="lacks 3 of 7 stimuli"):
        open_responses(tmp_path / "r.zarr")


def test_a_block_of_nothing_but_nan_is_done_although_zarr_writes_no_chunk(tmp_path):
    store = made(tmp_path / "r.zarr")
    store.write(1, [np.full((3, 3, 4), np.nan, "float32")], np.full(3, 2, np.uint8))
    assert not (tmp_path / "r.zarr" / "eeg" / "c" / "1").exists()
    assert ResponseStore(tmp_path / "r.zarr").missing_blocks() == [0, 2]


def test_the_ledger_is_written_when_all_responses_are_on_the_disk(tmp_path, monkeypatch):
    store = made(tmp_path / "r.zarr", {"": two_outputs()})
    root, flushed = tmp_path / "r.zarr", []
    real = os.fsync

    def watched(descriptor):
        name = os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{root}/")
        flushed.append((name, sorted(str(p.relative_to(root)) for p in root.glob("*/status/c/*"))))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    store.write(0, [EEG[:3], SOURCE[:3]], np.ones(3, np.uint8))
    order = [name for name, _ in flushed]
    for chunk in ("eeg/eeg/c/0/0/0", "eeg/eeg/c/0/0", "source/source/c/0/0", "source/source/c/0"):
        assert flushed[order.index(chunk)][1] == []
    assert order.index("source/source/c") < order.index("eeg/status/c/0") < order.index("source/status/c/0")


def test_the_same_store_has_the_same_bytes(tmp_path):
    for name in ("a.zarr", "b.zarr"):
        fill(made(tmp_path / name), EEG)
    files = sorted(p.relative_to(tmp_path / "a.zarr") for p in (tmp_path / "a.zarr").rglob("*") if p.is_file())
    assert len(files) > 10
    for file in files:
        assert (tmp_path / "a.zarr" / file).read_bytes() == (tmp_path / "b.zarr" / file).read_bytes()


def test_bytes_are_known_beforehand(tmp_path):
    store = made(tmp_path / "r.zarr")
    assert store.n_bytes == 3 * ((3 * 3 * 4) * 4 + 4)  # a checksum after each block
    assert store.stored_bytes() == 0
    fill(store, EEG)
    assert store.stored_bytes() == store.n_bytes


def test_no_unit_at_all_can_be_stored(tmp_path):
    labels = {"axes": ["stimulus", "voxel"], "unit": "a", "coordinates": {"voxel": ("voxel", np.zeros(0, int))}}
    empty = np.zeros((2, 0), "float32")
    store = made(tmp_path / "r.zarr", {"": label_responses(empty, {"responses": {"r": labels}})})
    fill(store, empty)
    assert open_responses(tmp_path / "r.zarr")["r"].shape == (2, 0)


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        ({"a": 1000, "b": 2}, {"a": 2000, "b": 2}, r"a: 1,000 there, 2,000 here\)"),
        ({"a": {"x": "yes"}}, {"a": {"x": "no", "y": 1}}, r"a.x: yes there, no here; a.y: nothing there, 1 here"),
        ({"a": {"x": 1, "old": 2}}, {"a": {"x": 1}}, "a.old: 2 there, nothing here"),
    ],
)
def test_each_difference_is_named(found, wanted, words, tmp_path):
    with pytest.raises(StoreMismatchError, match=words):
        check_same(tmp_path / "r.zarr", found, wanted)


def test_what_only_the_store_says_is_no_difference(tmp_path):
    check_same(tmp_path, {"a": 1, "block_size": 3, "arrays": ["/x"]}, {"a": 1})


@pytest.mark.parametrize("read", [open_responses, read_identity, remove_store])
def test_what_is_not_there_or_something_else_is_named(read, tmp_path):
    with pytest.raises(MissingFileError, match=r"There is no store .*r.zarr"):
        read(tmp_path / "r.zarr")
    xr.Dataset({"x": ("y", np.arange(3))}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(StoreMismatchError, match=r"is not a store of responses. Give another path"):
        read(tmp_path / "other.zarr")
    assert (tmp_path / "other.zarr").exists()


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store_frame.zarr, "open_group", denied)
    with pytest.raises(StorageError, match=r"r.zarr cannot be written: Permission denied. .*ls -ld"):
        made(tmp_path / "r.zarr")


HOLD = """
import sys, time
from pathlib import Path
from berg.system.locks import store_lock

with store_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "r.zarr")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(StoreBusyError, match=f"written by process {process.pid} on "),
            store_lock(tmp_path / "r.zarr"),
        ):
            pass
        process.kill()
    with store_lock(tmp_path / "r.zarr"):
        pass


def test_labels_of_a_store_are_texts_that_numpy_takes(tmp_path):
    model = BERG().get_encoding_model("fmri-szinte2024-prf_css", device="cpu", selection={"roi": "V1"})
    stored = BERG().encode(model, np.zeros((1, 3, 32, 32), np.uint8), out=tmp_path / "responses.zarr")
    assert stored["roi"].dtype == object
    assert set(stored["roi"].values.astype(str)) == {"V1"}
