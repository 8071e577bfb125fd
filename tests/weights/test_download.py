"""From a real bucket, or a mirror on disk, into an empty BERG directory: what is needed, verified, recorded."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from published import layouts
from transfer.file_servers import Bucket, bucket, static_server

from berg import BERG
from berg.cli.app import main
from berg.core.exceptions import (
    CorruptedFileError,
    InvalidParameterError,
    MissingFileError,
    OfflineError,
    RemoteFileError,
)
from berg.core.layout import ModelId
from berg.features import torchvision_network
from berg.system.file_hash import hash_file
from berg.weights import manifest
from berg.weights.download import update_manifest
from berg.weights.inventory import held_files, remove_files, verify_files
from berg.weights.manifest import Entry

pytestmark = pytest.mark.xdist_group("published")
FWRF, EEG = "fmri-nsd-fwrf", "eeg-things_eeg_2-vit_b_32"
FOLDER = ModelId.parse(FWRF).folder("").as_posix()
V2 = ["encoding_models_weights/weights_sub-01_roi-V2.pt", "metadata/metadata_sub-01_roi-V2.npy"]
PICTURES = np.random.default_rng(5).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def store(berg_dir):
    """A public bucket with the files of fwRF, V2."""
    with bucket() as made:
        for name in V2:
            made.put(f"{FOLDER}/{name}", (berg_dir / FOLDER / name).read_bytes())
        yield made


@pytest.fixture
def source(store: Bucket) -> str:
    host, port = store.address
    return f"s3://berg-bucket?endpoint=http://{host}:{port}"


@pytest.fixture
def mirror(berg_dir: Path) -> str:
    return berg_dir.as_uri()


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_only_the_files_of_the_subject_and_the_selection_are_needed():
    berg = BERG()
    assert berg.files_of(FWRF, {"roi": "V2"}, subject=1) == V2
    lateral = berg.files_of(FWRF, {"roi": ["lateral", "V2"]}, subject=1)
    assert [name for name in lateral if "lateral" in name] == [
        "encoding_models_weights/weights_sub-01_roi-lateral_split-1.pt",
        "encoding_models_weights/weights_sub-01_roi-lateral_split-2.pt",
        "metadata/metadata_sub-01_roi-lateral.npy",
    ]
    assert lateral[3:] == V2
    assert berg.files_of(EEG, subject=[1, 3]) == [
        f"{folder}/{kind}_subject-{subject:02d}.npy"
        for subject in (1, 3)
        for folder, kind in (("encoding_models_weights", "weights"), ("metadata", "metadata"))
    ]


def test_everything_is_each_file_once():
    one = BERG().files_of(FWRF, subject=1, everything=True)
    assert len(set(one)) == len(one) > 40
    assert all("_sub-01_" in name for name in one)
    everyone = BERG().files_of(FWRF, everything=True)
    assert len(everyone) == 8 * len(one)
    assert not [name for name in everyone if "roi-OVWFA" in name]  # another name of OWFA


@pytest.mark.parametrize(
    ("selection", "parameters", "words"),
    [
        (None, {"subject": 1}, r"files for each roi; say which \(roi='V1' for example\), or .*--all"),
        ({"roi": "V2"}, {}, "files for each subject; say which"),
        ({"roi": "V2"}, {"subject": 9}, "subject"),
        ({"roi": "V22"}, {"subject": 1}, "Did you mean 'V2'"),
        ({"roi": "V2"}, {"subject": 1, "subjct": 2}, "no parameter 'subjct'"),
    ],
)
def test_what_is_not_clear_is_asked_for(selection, parameters, words):
    with pytest.raises(InvalidParameterError, match=words):
        BERG().files_of(FWRF, selection, **parameters)


def test_a_built_in_model_needs_no_download():
    with pytest.raises(InvalidParameterError, match="there is nothing to download"):
        BERG().plan_download("fmri-szinte2024-prf_css", subject=1)


def test_a_region_comes_from_a_public_bucket_and_encodes(source, berg_dir, tmp_path):
    berg = BERG(tmp_path / "new")
    items = berg.plan_download(FWRF, {"roi": "V2"}, subject=1, source=source)
    assert [(item.size, item.is_here, item.sha256) for item in items] == [
        ((berg_dir / FOLDER / name).stat().st_size, False, None) for name in V2
    ]
    assert not (tmp_path / "new").exists()
    fetched = berg.download(FWRF, {"roi": "V2"}, subject=1, source=source)
    assert [each.was_here for each in fetched] == [False, False]
    assert files_below(tmp_path / "new") == sorted(f"{FOLDER}/{name}" for name in [*V2, "manifest.tsv"])
    entries = manifest.read_manifest(tmp_path / "new" / FOLDER / "manifest.tsv")
    for name in V2:
        data = (berg_dir / FOLDER / name).read_bytes()
        assert (entries[name].size, entries[name].sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert entries[name].source.endswith(f"/berg-bucket/{FOLDER}/{name}")
    options = {"subject": 1, "selection": {"roi": "V2"}, "device": "cpu"}
    expected = BERG(berg_dir).encode(FWRF, PICTURES, **options)
    assert np.array_equal(berg.encode(FWRF, PICTURES, **options), expected)
    again = berg.download(FWRF, {"roi": "V2"}, subject=1, source="https://nobody.invalid")
    assert all(each.was_here for each in again)
    assert manifest.read_manifest(tmp_path / "new" / FOLDER / "manifest.tsv")[V2[0]].source == entries[V2[0]].source


def test_a_file_that_the_bucket_has_not_is_named(source, tmp_path):
    either = r"(metadata|weights)_sub-01_roi-V1\.(npy|pt) cannot be had: status 40[34]"  # they are fetched at once
    with pytest.raises(RemoteFileError, match=either):
        BERG(tmp_path).download(FWRF, {"roi": "V1"}, subject=1, source=source)
    assert files_below(tmp_path) == []


def test_offline_forbids_it_and_a_mirror_on_disk_does_not_need_the_network(monkeypatch, source, mirror, tmp_path):
    monkeypatch.setenv("BERG_OFFLINE", "1")
    with pytest.raises(OfflineError, match="BERG_OFFLINE"):
        BERG(tmp_path).download(FWRF, {"roi": "V2"}, subject=1, source=source)
    assert len(BERG(tmp_path).download(FWRF, {"roi": "V2"}, subject=1, source=mirror)) == 2


def test_the_source_is_that_of_the_environment(monkeypatch, mirror, tmp_path):
    monkeypatch.setenv("BERG_SOURCE", mirror)
    monkeypatch.setenv("BERG_DIR", str(tmp_path / "from the environment"))
    fetched = BERG().download(FWRF, {"roi": "V2"}, subject=1)
    assert fetched[0].source.startswith(mirror)
    assert (tmp_path / "from the environment" / FOLDER / V2[0]).is_file()


def test_download_true_fetches_when_a_model_is_asked_for_and_never_to_encode(monkeypatch, mirror, tmp_path):
    monkeypatch.setenv("BERG_SOURCE", mirror)
    options = {"subject": 1, "selection": {"roi": "V2"}, "device": "cpu"}
    with pytest.raises(MissingFileError, match="berg download fmri-nsd-fwrf"):
        BERG(tmp_path).get_encoding_model(FWRF, **options)
    berg = BERG(tmp_path, download=True)
    with pytest.raises(MissingFileError):
        berg.encode(FWRF, PICTURES, **options)
    assert files_below(tmp_path) == []
    with berg.get_encoding_model(FWRF, **options) as model:
        assert berg.encode(model, PICTURES).shape == (2, 5)
    monkeypatch.setenv("BERG_SOURCE", "https://nobody.invalid")
    with berg.get_encoding_model(FWRF, **options):
        pass  # all is here: nobody is asked
    with berg.get_encoding_model("fmri-szinte2024-prf_css"):
        pass


@pytest.fixture
def here(mirror, tmp_path):
    """A BERG directory with V2, downloaded."""
    BERG(tmp_path / "here").download(FWRF, {"roi": "V2"}, subject=1, source=mirror)
    return tmp_path / "here"


def load(berg_dir):
    with BERG(berg_dir).get_encoding_model(FWRF, subject=1, selection={"roi": "V2"}, device="cpu"):
        pass


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    later = path.stat().st_mtime + 10
    os.utime(path, (later, later))


@pytest.mark.parametrize("name", V2)
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:-1])], ids=["bit", "end"])
def test_a_damaged_file_is_named_at_load_and_mended_by_another_download(here, mirror, name, damage):
    path = here / FOLDER / name
    good = path.read_bytes()
    damage(path)
    with pytest.raises(CorruptedFileError, match=rf"{path.name} is not the file that came here.*berg download"):
        load(here)
    states = {file.path: file.state for file in verify_files(here)}
    assert states[name] in ("wrong hash", "wrong size")
    BERG(here).download(FWRF, {"roi": "V2"}, subject=1, source=mirror)
    assert path.read_bytes() == good
    load(here)


def test_a_file_that_was_only_touched_is_hashed_and_used(here):
    later = (here / FOLDER / V2[0]).stat().st_mtime + 100
    os.utime(here / FOLDER / V2[0], (later, later))
    load(here)


def test_what_was_recorded_first_must_come_again(here, tmp_path):
    other = tmp_path / "other"
    for name in V2:
        (other / FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here / FOLDER / name, other / FOLDER / name)
    flip(other / FOLDER / V2[0])
    (here / FOLDER / V2[0]).unlink()
    with pytest.raises(CorruptedFileError, match="twice the same: the server has another file than expected"):
        BERG(here).download(FWRF, {"roi": "V2"}, subject=1, source=other.as_uri())
    assert not (here / FOLDER / V2[0]).exists()


def test_the_network_is_fetched_too_and_its_published_hash_must_fit(monkeypatch, mirror, torch_home, tmp_path):
    checkpoints = torch_home / "hub" / "checkpoints"
    monkeypatch.setenv("BERG_NETWORK_SOURCE", checkpoints.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    berg = BERG(tmp_path / "new")
    with pytest.raises(CorruptedFileError, match=r"vit_b_32-d86f8d99\.pth"):  # random weights
        berg.download(EEG, subject=1, source=mirror)
    (weights,) = checkpoints.glob("vit_b_32*.pth")
    monkeypatch.setattr(torchvision_network, "published_hash", lambda _: hash_file(weights)[:8])
    fetched = berg.download(EEG, subject=1, source=mirror)
    assert [each.was_here for each in fetched] == [True, True, False]
    assert (tmp_path / "torch" / "hub" / "checkpoints" / weights.name).stat().st_size == weights.stat().st_size


@pytest.mark.slow
def test_a_further_model_comes_from_a_web_server_under_its_published_names(
    statistics, torch_home, tmp_path, monkeypatch, capsys
):
    published, here = tmp_path / "published", tmp_path / "here"
    splits = [f"single_training_split_{split}" for split in (1, 2, 3, 4)]
    layouts.write_meg(published, 1, np.random.default_rng(6), statistics, names=["all_training_splits", *splits])
    weights = torch_home / layouts.BACKBONE_FILE
    monkeypatch.setattr(torchvision_network, "published_hash", lambda _: hash_file(weights)[:8])
    for parameters, names in (([], ["all_training_splits"]), (["--parameter", "train_splits=single"], splits)):
        with static_server(published) as (host, port):
            where = ["--berg-dir", str(here), "--source", f"http://{host}:{port}"]
            main(["download", layouts.MEG, "--subject", "1", *where, *parameters])
        assert "metadata_P1.npy" in capsys.readouterr().out
        for name in [f"encoding_models_weights/weights_P1_{name}.npy" for name in names] + ["metadata/metadata_P1.npy"]:
            folders = [layouts.model_folder(folder, layouts.MEG) for folder in (published, here)]
            assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert {held.state for held in verify_files(here)} == {"whole"}
    for options in ({}, {"train_splits": "single"}):
        ones, others = (
            BERG(folder).encode(layouts.MEG, PICTURES, subject=1, device="cpu", **options)
            for folder in (published, here)
        )
        np.testing.assert_array_equal(ones, others)


@pytest.mark.slow
def test_a_prepared_machine_works_without_a_network(here):
    script = (
        "import sys, numpy as np; from berg import BERG\n"
        f"r = BERG(sys.argv[1]).encode('{FWRF}', np.zeros((1, 3, 64, 64), 'uint8'), subject=1, "
        "selection={'roi': 'V2'}, device='cpu')\n"
        "print(r.shape)"
    )
    alone = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("this system gives no network namespaces")
    done = subprocess.run([*alone, sys.executable, "-c", script, here], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 5)", done.stderr


def test_pinned_hashes_beside_the_card_precede_what_was_recorded(here, tmp_path):
    from berg.core import model_registry
    from berg.weights.download import known_files

    card = model_registry.get_card(FWRF)
    copy = tmp_path / card.path.name
    copy.write_bytes(card.path.read_bytes())
    manifest.write_manifest(copy.with_suffix(".tsv"), [Entry(V2[0], 3, "0" * 64)])
    known = known_files(type(card).read(copy), here)
    assert known[V2[0]].size == 3
    assert known[V2[1]].size == (here / FOLDER / V2[1]).stat().st_size


def test_files_that_nobody_recorded_are_said_to_be_so_and_removed_ones_are_gone(here):
    update_manifest(here, FWRF, [], removed=[V2[1]])
    assert {file.path: file.state for file in held_files(here)} == {V2[0]: "whole", V2[1]: "not recorded"}
    (here / FOLDER / V2[0]).unlink()
    assert held_files(here, FWRF)[0].state == "missing"
    remove_files(here, held_files(here))
    assert files_below(here) == []
    assert held_files(here) == []
