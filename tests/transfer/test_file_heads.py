"""What is no such file is not taken for one: a network's login page, an error message, a pointer of git-lfs."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import numpy as np
import pytest

from berg.core.exceptions import DownloadError
from berg.core.model_card import ModelCard
from berg.core.model_registry import get_card
from berg.transfer.fetch import WantedFile, fetch
from berg.transfer.file_heads import file_fault, head_fault
from berg.weights.download import plan, receive

from .raw_server import raw_server, says

STRAY = {
    "JSON": b'{"error": "please log in", "url": "https://portal.example"}',
    "XML": b'<?xml version="1.0"?><WISPAccessGatewayParam></WISPAccessGatewayParam>',
    "an HTML comment": b"<!-- portal --><html><body>Log in</body></html>",
    "HTML after spaces and a mark": b"\xef\xbb\xbf \r\n\t<HTML>",
    "a script": b"<script>location='https://portal.example'</script>",
    "a message of S3": b"<Error><Code>SlowDown</Code></Error>",
    "text": b"Please log in first.\n",
    "nothing": b"",
    "a pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    "a pointer of git-annex": b"/annex/objects/SHA256E-s5--00.npy\n",
    "zeros": bytes(2000),
}
ENDINGS = [
    ".npy",
    ".pt",
    ".pth",
    ".safetensors",
    ".npz",
    ".zip",
    ".nc",
    ".h5",
    ".mat",
    ".nii",
    ".nii.gz",
    ".png",
    ".wav",
]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stray", STRAY)
def test_a_stray_answer_is_no_file(stray, ending):
    assert head_fault(f"a{ending}", STRAY[stray][:1024])


@pytest.mark.parametrize("stray", [stray for stray in STRAY if stray not in ("JSON", "zeros")])
def test_a_stray_answer_is_no_json(stray):
    assert head_fault("a.json", STRAY[stray]) or stray == "nothing"


@pytest.mark.parametrize("name", ["README", "LICENSE.txt", "weights.bin", "a.b", "card.yaml", "table.tsv"])
def test_pages_and_pointers_are_no_file_of_any_name(name):
    for stray in ("XML", "an HTML comment", "a script", "a pointer of git-lfs", "HTML after spaces and a mark"):
        assert head_fault(name, STRAY[stray])
    assert head_fault(name, b"BERG <b> 5 < 6\n") is None


def written(tmp_path):
    """A real file of each kind, by the libraries that others write them with."""
    import h5py
    import nibabel
    import torch
    from PIL import Image
    from safetensors.numpy import save_file
    from scipy.io import savemat, wavfile

    array = np.arange(12, dtype="float32").reshape(3, 4)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", a=array)
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    save_file({"a": array}, tmp_path / "a.safetensors")
    savemat(tmp_path / "a.mat", {"a": array})
    wavfile.write(tmp_path / "a.wav", 8000, array[0])
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), "int16"), np.eye(4)), tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), "int16"), np.eye(4)), tmp_path / "a.nii.gz")
    nibabel.save(nibabel.gifti.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(array)]), tmp_path / "a.gii")
    for name in ("a.h5", "a.nc"):
        with h5py.File(tmp_path / name, "w") as file:
            file["a"] = array
    with h5py.File(tmp_path / "block.mat", "w", userblock_size=512) as file:
        file["a"] = array
    for ending in ("png", "jpg", "tif"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"a.{ending}")
    (tmp_path / "a.json").write_text(' {"a": 1}')
    (tmp_path / "mark.json").write_bytes(b"\xef\xbb\xbf[1]")
    (tmp_path / "a.tsv").write_text("a\tb\n")
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"a"))
    (tmp_path / "a.html").write_bytes(STRAY["an HTML comment"])
    (tmp_path / "README.md").write_text("<p align='center'>")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w"):
        pass
    (tmp_path / "empty.zip").write_bytes(buffer.getvalue())
    return sorted(tmp_path.iterdir())


def test_a_real_file_of_every_kind_is_one(tmp_path):
    files = written(tmp_path)
    assert len(files) > 20
    assert {file.name: fault for file in files if (fault := file_fault(file))} == {}


def ok(body: bytes, kind: str = "application/octet-stream") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("stray", STRAY)
def test_a_stray_200_is_asked_for_once_and_leaves_nothing(stray, tmp_path):
    with raw_server(says(ok(STRAY[stray]))) as server:
        with pytest.raises(DownloadError, match=r"in place of the file. Is this a network with a login page"):
            fetch(server.url, [WantedFile("weights.npy")], tmp_path)
        assert server.n_connections == 1
    assert list(tmp_path.iterdir()) == []


def test_a_pointer_in_a_mirror_on_disk_says_what_to_do(tmp_path):
    (tmp_path / "weights.npy").write_bytes(STRAY["a pointer of git-lfs"])
    with pytest.raises(DownloadError, match=r"is a pointer of git-lfs or git-annex .*git lfs pull"):
        fetch(tmp_path.as_uri(), [WantedFile("weights.npy")], tmp_path / "out")


def test_what_is_here_and_no_such_file_is_fetched_anew(tmp_path):
    for folder in ("shelf", "out"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "shelf" / "weights.npy", np.zeros(3))
    (tmp_path / "out" / "weights.npy").write_bytes(STRAY["JSON"])
    (fetched,) = fetch((tmp_path / "shelf").as_uri(), [WantedFile("weights.npy")], tmp_path / "out")
    assert not fetched.was_here
    assert np.array_equal(np.load(tmp_path / "out" / "weights.npy"), np.zeros(3))


@pytest.fixture
def card(tmp_path) -> ModelCard:
    """A model whose metadata are published as JSON."""
    card = get_card("eeg-things_eeg_2-vit_b_32")
    assert card.files is not None
    return card.model_copy(update={"files": card.files.model_copy(update={"metadata_ending": ".json"})})


def test_json_that_is_nothing_of_the_model_is_not_recorded(card, tmp_path):
    name = "metadata/metadata_subject-01.json"
    with raw_server(says(ok(STRAY["JSON"], "application/json"))) as server:
        items = plan(card, [name], [], tmp_path, server.url)
        with pytest.raises(DownloadError, match=r"is answered by JSON without .*eeg.* log in"):
            receive(items)
    found = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert len(found) == 1
    assert "json.damaged-" in found[0]
    right = json.dumps({"eeg": {"ch_names": ["Oz"]}}).encode()
    with raw_server(says(ok(right))) as server:
        (fetched,) = receive(plan(card, [name], [], tmp_path, server.url))
    assert fetched.size == len(right)
