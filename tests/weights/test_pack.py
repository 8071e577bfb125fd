"""A model in a zip file: as the guide says, the same every time, and the same numbers after unpacking."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import layouts

from berg import BERG
from berg.core import model_registry
from berg.core.exceptions import (
    CorruptedFileError,
    InvalidParameterError,
    MissingFileError,
    ModelCheckError,
    StorageError,
)
from berg.core.layout import ModelId
from berg.core.model_card import ModelCard
from berg.families.prf.model import PRFModel
from berg.system.file_hash import hash_file
from berg.weights import manifest
from berg.weights import pack as packing
from berg.weights.pack import Packed, pack
from berg.weights.unpack import unpack

BUILT_IN, FWRF = "fmri-szinte2024-prf_css", layouts.FWRF
TOP = "brain-encoding-response-generator/encoding_models/modality-fmri/train_dataset-nsd/model-fwrf/"
CARD = model_registry.get_card(FWRF)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a model with files that nobody could load: packing does not look into them."""
    found = ModelId.parse(FWRF).folder(tmp_path / "berg")
    files = {
        "encoding_models_weights/weights_sub-01_roi-V1.pt": np.random.default_rng(0).bytes(300_000),
        "encoding_models_accuracy/accuracy.csv": b"subject,r\n1,0.5\n" * 1000,
        "metadata/metadata_sub-01_roi-V1.npy": b"metadata",
        "LICENSE": b"as is",
    }
    for name, data in files.items():
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        (found / name).write_bytes(data)
    return found


def packed(folder: Path, name: str = "model.zip", **options: Any) -> Packed:
    return pack(CARD, folder.parents[3], folder.parents[4] / name, **options)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_the_zip_file_has_the_layout_of_the_guide(folder: Path) -> None:
    result = packed(folder)
    found = members(result.path)
    assert list(found) == [
        f"{TOP}encoding_models_accuracy/",
        f"{TOP}encoding_models_weights/",
        f"{TOP}metadata/",
        f"{TOP}LICENSE",
        f"{TOP}encoding_models_accuracy/accuracy.csv",
        f"{TOP}encoding_models_weights/weights_sub-01_roi-V1.pt",
        f"{TOP}metadata/metadata_sub-01_roi-V1.npy",
        f"{TOP}{FWRF}.yaml",
        f"{TOP}manifest.tsv",
    ]
    for path in folder.rglob("*.*"):
        assert found[TOP + path.relative_to(folder).as_posix()] == path.read_bytes()
    assert found[f"{TOP}{FWRF}.yaml"] == CARD.path.read_bytes()
    entries = manifest.parse_manifest(found[f"{TOP}manifest.tsv"])
    assert {TOP + name for name in entries} == {name for name in found if name[-1] != "/"} - {f"{TOP}manifest.tsv"}
    assert sorted(result.entries, key=lambda entry: entry.path) == list(entries.values())


def test_the_manifest_tells_the_hashes_that_sha256sum_finds(folder: Path) -> None:
    entries = {entry.path: entry for entry in packed(folder).entries}
    for name in ("encoding_models_weights/weights_sub-01_roi-V1.pt", "LICENSE"):
        done = subprocess.run(["sha256sum", folder / name], capture_output=True, text=True, check=True)
        assert done.stdout.split()[0] == entries[name].sha256
        assert entries[name].size == (folder / name).stat().st_size


def test_the_same_files_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    first = packed(folder).path.read_bytes()
    other = tmp_path / "elsewhere" / "berg"
    for path in sorted(folder.rglob("*"), reverse=True):  # another order, other times, other rights
        copy = other / path.relative_to(folder.parents[3])
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            shutil.copyfile(path, copy)
            copy.chmod(0o600)
            os.utime(copy, (0, 0))
    again = pack(CARD, other, tmp_path / "other.zip")
    assert again.path.read_bytes() == first
    with zipfile.ZipFile(again.path) as archive:
        infos = archive.infolist()
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {oct(info.external_attr >> 16) for info in infos} == {"0o40755", "0o100644"}


def test_weights_are_stored_and_what_compresses_is_compressed(folder: Path) -> None:
    with zipfile.ZipFile(packed(folder).path) as archive:
        kinds = {info.filename.rpartition("/")[2]: info.compress_type for info in archive.infolist()}
    assert kinds["weights_sub-01_roi-V1.pt"] == zipfile.ZIP_STORED
    assert kinds["accuracy.csv"] == zipfile.ZIP_DEFLATED


def test_hidden_and_temporary_files_are_left_out_and_listed(folder: Path) -> None:
    left_out = [
        ".DS_Store",
        "encoding_models_weights/.weights.npy.0123.tmp",
        "encoding_models_weights/old.npy.bak",
        "metadata/.git",
        "metadata/notes.txt~",
        "train.py",
    ]
    for name in left_out:
        if name == "metadata/.git":
            (folder / name).mkdir()
        (folder / name / "HEAD" if name == "metadata/.git" else folder / name).write_bytes(b"x")
    result = packed(folder)
    assert result.left_out == left_out
    assert len(members(result.path)) == 9


def test_a_link_inside_the_folder_is_packed_as_the_file(folder: Path) -> None:
    (folder / "metadata" / "metadata_sub-02_roi-V1.npy").symlink_to("metadata_sub-01_roi-V1.npy")
    assert members(packed(folder).path)[f"{TOP}metadata/metadata_sub-02_roi-V1.npy"] == b"metadata"


def test_a_linked_model_folder_is_packed(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "moved")
    folder.symlink_to(moved)
    assert len(members(packed(folder).path)) == 9


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("metadata/m.npy", "/etc/passwd", "link that leads out of the model's folder, to /etc/passwd. .*cp --remove"),
        ("metadata/m.npy", "../../../secret", "leads out"),
        ("metadata/m.npy", "none", "is no file but a broken link"),
        ("metadata/m.npy", "m.npy", "is no file but a broken link"),
    ],
)
def test_a_link_that_leads_elsewhere_is_refused(name: str, target: str, words: str, folder: Path) -> None:
    (folder.parent.parent / "secret").write_bytes(b"secret")
    (folder / name).symlink_to(target)
    with pytest.raises(InvalidParameterError, match=words):
        packed(folder)
    assert not list(folder.parents[4].glob("*model.zip*"))


def test_a_linked_folder_is_left_out_and_listed(folder: Path) -> None:
    (folder / "metadata" / "more").symlink_to("/etc")
    result = packed(folder)
    assert result.left_out == ["metadata/more"]
    assert len(members(result.path)) == 9


def test_a_pipe_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "metadata" / "pipe.npy")
    with pytest.raises(InvalidParameterError, match="is no file but a broken link, device, pipe"):
        packed(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("metadata/a:b.npy", "could not be unpacked everywhere: it has the character ':'"),
        ("metadata/a\\b.npy", "could not be unpacked everywhere"),
        ("metadata/aux.npy", "Windows knows 'aux.npy'"),
        ("metadata/Metadata_sub-01_roi-V1.npy", "differ in case alone"),
    ],
)
def test_a_name_that_could_not_be_unpacked_everywhere_is_refused(name: str, words: str, folder: Path) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(InvalidParameterError, match=words):
        packed(folder)


def test_without_weights_there_is_nothing_to_pack(folder: Path) -> None:
    shutil.rmtree(folder / "encoding_models_weights")
    with pytest.raises(MissingFileError, match=r"There are no weights to pack in .*encoding_models_weights"):
        packed(folder)
    shutil.rmtree(folder)
    with pytest.raises(MissingFileError, match="There are no weights"):
        packed(folder)


@pytest.mark.parametrize("name", ["model.tar", "model", "no/such/model.zip"])
def test_where_no_zip_file_can_be_is_said_first(name: str, folder: Path) -> None:
    with pytest.raises((InvalidParameterError, MissingFileError), match=r"is no name for a zip file|mkdir -p"):
        packed(folder, name)


def test_sources_and_dates_go_along(folder: Path) -> None:
    name = "metadata/metadata_sub-01_roi-V1.npy"
    entry = next(entry for entry in packed(folder).entries if entry.path == name)
    known = manifest.Entry(name, entry.size, entry.sha256, "https://example.org/m.npy", "2025-01-31T12:00:00Z")
    manifest.write_manifest(folder / "manifest.tsv", [known])
    assert known in packed(folder).entries


def test_a_file_that_was_damaged_on_disk_is_not_packed_as_whole(folder: Path) -> None:
    manifest.write_manifest(folder / "manifest.tsv", packed(folder).entries)
    (folder / "metadata" / "metadata_sub-01_roi-V1.npy").write_bytes(b"metaDATA")
    held = (folder.parents[4] / "model.zip").read_bytes()
    with pytest.raises(CorruptedFileError, match=r"not what .*manifest.tsv says: metadata/metadata_sub.*--force"):
        packed(folder)
    assert (folder.parents[4] / "model.zip").read_bytes() == held
    entries = {entry.path: entry for entry in packed(folder, force=True).entries}
    sha256 = hash_file(folder / "metadata" / "metadata_sub-01_roi-V1.npy")
    assert entries["metadata/metadata_sub-01_roi-V1.npy"].sha256 == sha256


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_after_a_failure_nothing_is_left(error: type[BaseException], folder: Path, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(packing.manifest, "format_manifest", fail)
    with pytest.raises(error):
        packed(folder)
    assert list(folder.parents[4].iterdir()) == [folder.parents[3]]


def test_a_full_disk_ends_in_a_sentence_and_leaves_nothing(folder: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom berg.core.exceptions import StorageError\n"
        "from berg.core.model_registry import get_card\nfrom berg.weights.pack import pack\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "try:\n    pack(get_card(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))\n"
        "except StorageError as error:\n    print(error)\n"
    )
    target = folder.parents[4] / "model.zip"
    command = [sys.executable, "-c", code, FWRF, str(folder.parents[3]), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    words = "File too large. Make room on that disk (or raise your quota), and try again."
    assert done.stdout == f"{target} cannot be written: {words}\n", done.stderr
    assert list(target.parent.iterdir()) == [folder.parents[3]]


def test_a_file_that_grows_meanwhile_is_noticed(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(packing, "_chunks", lambda path: iter([path.read_bytes(), b"more"]))
    with pytest.raises(CorruptedFileError, match="changed while it was packed"):
        packed(folder)


def test_a_file_that_may_not_be_read_is_named(folder: Path, monkeypatch: Any) -> None:
    real = Path.open

    def denied(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "LICENSE":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(MissingFileError, match="LICENSE cannot be read: Permission denied"):
        packed(folder)


def test_a_folder_that_may_not_be_written_to_is_named(folder: Path, monkeypatch: Any) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "fsync", denied)
    with pytest.raises(StorageError, match=r"model.zip cannot be written: Permission denied.*ls -ld"):
        packed(folder)


def test_a_bar_counts_the_bytes(folder: Path, capsys: Any) -> None:
    packed(folder, show_progress=True)
    printed = capsys.readouterr()
    assert f"pack {FWRF}" in printed.err
    assert "316.0/316.0 kB" in printed.err
    assert printed.out == ""


# Round trips


def test_the_built_in_model_gives_the_same_numbers_from_a_zip_file(tmp_path: Path) -> None:
    target = tmp_path / "model.zip"
    pack(model_registry.get_card(BUILT_IN), None, target)
    folder = unpack(target, tmp_path / "berg").folders[BUILT_IN]
    card = ModelCard.read(folder / f"{BUILT_IN}.yaml")
    assert card.files is not None
    assert card.files.store == "berg_dir"
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    options: dict[str, Any] = {"selection": {"reliable": True}, "device": "cpu"}
    model = PRFModel.bind(card)(berg_dir=str(tmp_path / "berg"), **options)
    model.load_model()
    np.testing.assert_array_equal(model.generate_response(images), BERG().encode(BUILT_IN, images, **options))
    shutil.rmtree(folder / "encoding_models_weights")
    with pytest.raises(MissingFileError, match="encoding_models_weights"):  # it was the unpacked file that was read
        model.load_model()


@pytest.mark.slow
def test_a_published_model_gives_the_same_numbers_from_a_zip_file(berg_dir: Path, tmp_path: Path) -> None:
    images = layouts.random_images(np.random.default_rng(0), 2, 64, 64)
    options: dict[str, Any] = {"subject": 1, "selection": {"roi": "lateral"}, "device": "cpu"}
    result = pack(CARD, berg_dir, tmp_path / "model.zip")
    unpack(result.path, tmp_path / "berg")
    found = BERG(tmp_path / "berg").encode(FWRF, images, **options)
    np.testing.assert_array_equal(found, BERG(berg_dir).encode(FWRF, images, **options))
    packed_again = pack(CARD, tmp_path / "berg", tmp_path / "again.zip")
    assert packed_again.path.read_bytes() == result.path.read_bytes()


@pytest.fixture
def fwrf_dir(tmp_path: Path) -> Path:
    layouts.write_fwrf(tmp_path / "berg", 1, "V1", np.random.default_rng(0), n_voxels=4)
    return tmp_path / "berg"


def test_a_model_that_fails_its_check_is_packed_only_by_force(fwrf_dir: Path, tmp_path: Path) -> None:
    (weights,) = fwrf_dir.rglob("*.pt")
    weights.write_bytes(weights.read_bytes()[:-1000])
    target = tmp_path / "model.zip"
    with pytest.raises(ModelCheckError, match=r"fails \d+ of \d+ checks:\n- (.|\n)*Nothing was packed.*--force"):
        BERG(fwrf_dir).pack(FWRF, target, subject=1, selection={"roi": "V1"})
    assert not target.exists()
    assert BERG(fwrf_dir).pack(FWRF, target, force=True).path == target


def test_a_model_that_passes_its_check_is_packed(fwrf_dir: Path, tmp_path: Path) -> None:
    result = BERG(fwrf_dir).pack(FWRF, tmp_path / "model.zip", subject=1, selection={"roi": "V1"})
    assert [entry.path for entry in result.entries] == [
        "encoding_models_weights/weights_sub-01_roi-V1.pt",
        "metadata/metadata_sub-01_roi-V1.npy",
        f"{FWRF}.yaml",
    ]
    unpacked = BERG(tmp_path / "new").unpack(result.path)
    assert unpacked.folders == {FWRF: ModelId.parse(FWRF).folder(tmp_path / "new")}
