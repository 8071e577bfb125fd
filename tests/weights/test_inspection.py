"""berg inspect: what files hold, by their headers, and nothing of them run or read."""

from __future__ import annotations

import json
import pickle
import resource
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import torch
import xarray
import zarr
from safetensors.numpy import save_file
from sklearn.decomposition import PCA

from berg.cli.app import main
from berg.core.layout import METADATA, WEIGHTS, ModelId
from berg.weights.file_headers import FileHeader, read_header
from berg.weights.inspection import inspect_folder

EEG, FWRF = "eeg-things_eeg_2-vit_b_32", "fmri-nsd-fwrf"


def held(header: FileHeader) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    assert not header.problem, header.problem
    return {entry.key: (entry.kind, entry.shape) for entry in header.held}


def put(folder: Path, model_id: str, path: str) -> Path:
    place = ModelId.parse(model_id).folder(folder) / path
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def save_dict(path: Path, content: dict[str, Any]) -> Path:
    np.save(path, content, allow_pickle=True)  # type: ignore[arg-type]
    return path


def test_a_pickled_dict_is_told_by_key_shape_and_dtype(tmp_path: Path) -> None:
    fitted = PCA(2).fit(np.random.default_rng(0).normal(size=(5, 3)))
    content = {
        "scaler_param": {"mean_": np.zeros(3), "n_samples_seen_": np.int64(5)},
        "pca_param": {"rep-1": fitted},
        "names": ["a", "b"],
        "rois": {"V1": (np.arange(4),)},
        "objects": np.array(["x", None], dtype=object),
        "big": np.zeros((7, 9), ">f4", order="F"),
        3: None,
    }
    header = read_header(save_dict(tmp_path / "a.npy", content))
    found = held(header)
    assert header.kind == "npy, pickled"
    assert found["scaler_param.mean_"] == ("<f8", (3,))
    assert found["scaler_param.n_samples_seen_"] == ("<i8", ())
    assert found["pca_param.rep-1"] == ("object sklearn.decomposition._pca.PCA", None)
    assert found["pca_param.rep-1.components_"] == ("<f8", (2, 3))
    assert found["names"] == ("list of 2 text", None)
    assert found["rois.V1"] == ("tuple of 1 array", None)
    assert found["objects"] == ("objects, list of 2 None and text", (2,))
    assert found["big"] == (">f4", (7, 9))
    assert found["3"] == ("None", None)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nothing_of_a_pickle_is_run_or_imported(tmp_path: Path, protocol: int) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": np.zeros(3), "bomb": Bomb()}, protocol))
    found = held(read_header(tmp_path / "a.pkl"))
    assert found["w"] == ("<f8", (3,))
    assert found["bomb"][0] in ("object builtins.exec", "object __builtin__.eval", "object __builtin__.exec")
    (tmp_path / "b.pkl").write_bytes(b"\x80\x04cno.such.module\nThing\n)\x81.")
    assert held(read_header(tmp_path / "b.pkl")) == {"": ("object no.such.module.Thing", None)}
    assert not (tmp_path / "ran").exists()


def test_a_file_of_torch_is_told_by_its_state_dict(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.bfloat16))
    content = {"enc": OrderedDict(a=torch.zeros(4, 5), b=parameter), "mean": np.zeros((1, 3), np.float32)}
    torch.save(content, tmp_path / "a.pt")
    found = held(read_header(tmp_path / "a.pt"))
    assert found == {"enc.a": ("float", (4, 5)), "enc.b": ("bfloat16", (2, 3)), "mean": ("<f4", (1, 3))}
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "torch before 1.6" in read_header(tmp_path / "old.pt").problem


def test_other_formats_are_told_as_their_own_libraries_tell_them(tmp_path: Path) -> None:
    save_file({"x": np.zeros((2, 3), np.float16)}, tmp_path / "a.safetensors", {"source": "me"})
    assert held(read_header(tmp_path / "a.safetensors")) == {
        "x": ("F16", (2, 3)),
        "__metadata__.source": ("text", None),
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/x"] = np.zeros((4, 2), np.float32)
        file["outside"] = h5py.ExternalLink("/etc/passwd", "/")
    assert held(read_header(tmp_path / "a.h5")) == {"g.x": ("float32", (4, 2))}
    xarray.Dataset({"r": ("stimulus", np.zeros(3))}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert held(read_header(tmp_path / "a.nc"))["r"] == ("float64", (3,))
    zarr.create_array(tmp_path / "a.zarr", name="sub/x", shape=(5, 6), dtype="f4")
    assert held(read_header(tmp_path / "a.zarr"))["sub.x"] == ("float32", (5, 6))
    (tmp_path / "a.json").write_text(json.dumps({"fmri": {"roi": ["V1"], "n": 4, "who": "Ann"}}))
    told = {"fmri.roi": ("list of 1 text", None), "fmri.n": ("4", None), "fmri.who": ("text of 3", None)}
    assert held(read_header(tmp_path / "a.json")) == told
    (tmp_path / "a.csv").write_text("unit,correlation\n0,0.5\n")
    assert list(held(read_header(tmp_path / "a.csv"))) == ["unit", "correlation"]
    nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    assert held(read_header(tmp_path / "a.nii.gz")) == {"": ("datatype 4", (2, 3, 4))}
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2)))
    assert held(read_header(tmp_path / "a.npz")) == {"x": ("<f8", (2, 2))}
    np.save(tmp_path / "a.npy", np.zeros((3, 2), np.uint8))
    assert held(read_header(tmp_path / "a.npy")) == {"": ("u1", (3, 2))}


def sparse_pickle(path: Path, n_bytes: int) -> None:
    """A pickled dict whose array has its bytes in a hole of the file."""
    small = path.with_name("small.npy")
    save_dict(small, {"coef_": np.zeros((2, 4), np.float32), "after": 7})
    data, opcode = small.read_bytes(), b"\x43\x20" + bytes(32)
    if opcode not in data:  # protocol 3 and earlier
        opcode = b"B\x20\0\0\0" + bytes(32)
    before, after = data.split(opcode)
    with path.open("wb") as file:
        file.write(before.replace(b"\x80\x03", b"\x80\x04", 1) + b"\x8e" + n_bytes.to_bytes(8, "little"))
        file.seek(n_bytes, 1)
        file.write(after)
    small.unlink()


def test_two_gigabytes_cost_milliseconds_and_megabytes(tmp_path: Path) -> None:
    n_bytes = 2**31
    sparse_pickle(tmp_path / "dict.npy", n_bytes)
    header = json.dumps({"x": {"dtype": "F32", "shape": [n_bytes // 4], "data_offsets": [0, n_bytes]}}).encode()
    for name, start in (
        ("x.safetensors", len(header).to_bytes(8, "little") + header),
        (
            "plain.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (536870912,), }".ljust(127)
            + b"\n",
        ),
    ):
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            file.truncate(len(start) + n_bytes)
    with zipfile.ZipFile(tmp_path / "warm.npz", "w"):
        pass
    read_header(tmp_path / "warm.npz")
    before, start_time = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found = inspect_folder(tmp_path)
    seconds = time.perf_counter() - start_time
    told = {(file.header.path, entry.key): entry.shape for file in found.files for entry in file.header.held}
    assert told[("dict.npy", "coef_")] == (2, 4)
    assert ("dict.npy", "after") in told
    assert told[("x.safetensors", "x")] == told[("plain.npy", "")] == (n_bytes // 4,)
    assert seconds < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_layouts_generations_and_what_is_missing_are_told(tmp_path: Path) -> None:
    pca = {"components_": np.zeros((2, 3)), "mean_": np.zeros(3)}
    save_dict(put(tmp_path, EEG, f"{WEIGHTS}/weights_subject-01.npy"), {"pca_param": {f"rep-{k}": pca for k in (1, 2)}})
    save_dict(put(tmp_path, EEG, f"{METADATA}/metadata_subject-01.npy"), {"encoding_models": {}, "eeg": {}})
    save_dict(put(tmp_path, EEG, f"{WEIGHTS}/weights_subject-02.npy"), {"pca_param": pca})
    put(tmp_path, EEG, f"{WEIGHTS}/leftover.tmp").write_bytes(b"x")
    torch.save({}, put(tmp_path, FWRF, f"{WEIGHTS}/weights_sub-01_roi-lateral_split-1.pt"))
    save_dict(put(tmp_path, FWRF, f"{METADATA}/metadata_sub-01_roi-lateral.npy"), {})
    save_dict(put(tmp_path, "meg-things_meg_9-mine", f"{WEIGHTS}/weights_P1_split2.npy"), {"reg_param": {}})
    put(tmp_path, "meg-things_meg_9-mine", f"{METADATA}/metadata_P1.npy").write_text("<html>log in</html>")
    (tmp_path / "notes.txt").write_text("mine")
    found = inspect_folder(tmp_path)
    layouts = {file.header.path.rpartition("/")[2]: file.layout for file in found.files}
    assert layouts["weights_subject-01.npy"] == "linear, a file per subject; a PCA per repeat"
    assert layouts["weights_subject-02.npy"] == "linear, a file per subject; one PCA"
    assert layouts["weights_sub-01_roi-lateral_split-1.pt"] == "fwrf, a file per region"
    assert layouts["weights_P1_split2.npy"] == "linear, one split (older)"
    assert layouts["metadata_subject-01.npy"] == "metadata; key encoding_models"
    assert layouts["notes.txt"] == "of no model"
    notes = "\n".join(found.notes)
    assert f"{EEG}: {WEIGHTS}/weights_subject-02.npy has no metadata beside it" in notes
    assert "weights_subject-01.npy has no" not in notes
    assert "lateral" not in notes
    assert f"{EEG} {WEIGHTS}/leftover.tmp: a file of no layout that is known" in notes
    assert "meg-things_meg_9-mine: a model without a card" in notes
    assert "metadata_P1.npy: something else than a .npy file" in notes


def test_what_is_printed_and_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_dict(put(tmp_path, EEG, f"{WEIGHTS}/weights_subject-01.npy"), {"secret": "Ann", "x": np.zeros(2)})
    main(["inspect", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "weights_subject-01.npy" in printed
    assert "(2,)" in printed
    assert "! eeg-things_eeg_2-vit_b_32" in printed
    main(["inspect", str(tmp_path), "--json"])
    pasted = capsys.readouterr().out
    (file,) = json.loads(pasted)["files"]
    assert file["model"] == EEG
    assert ["x", "<f8", [2]] in file["held"]
    assert "Ann" not in pasted
    assert str(tmp_path) not in pasted
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "nowhere")])
    assert "is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["a.npy", "a.pt", "a.safetensors", "a.pkl", "a.h5", "a.json", "a.npz", "a.nii.gz", "a.zarr"]
)
def test_a_file_that_breaks_off_or_is_noise_is_told_not_raised(name: str, tmp_path: Path) -> None:
    starts = {".npy": b"\x93NUMPY\x01\x00", ".pt": b"PK\x03\x04", ".pkl": b"\x80\x04", ".h5": b"\x89HDF\r\n\x1a\n"}
    starts |= {".npz": b"PK\x03\x04", ".gz": b"\x1f\x8b", ".json": b"{", ".safetensors": bytes([40, *[0] * 7]) + b"{"}
    path = tmp_path / name
    if name.endswith(".zarr"):
        path.mkdir()
        (path / "zarr.json").write_text("{")
        assert read_header(path).problem
        return
    for noise in (b"", b"\x80\xff" * 40, bytes(range(256))):
        path.write_bytes(starts[path.suffix] + noise)
        assert read_header(path).problem
