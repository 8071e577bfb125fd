"""Zip files of models: put into a BERG directory whole and verified, or refused without a trace."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from berg.core.exceptions import BERGError, CorruptedFileError, MissingFileError, StorageError
from berg.weights import manifest
from berg.weights import unpack as unpacking
from berg.weights.unpack import UnverifiedFilesWarning, unpack

from . import killed_unpack
from .hostile_zips import (
    DATA,
    FILES,
    HOSTILE,
    METADATA,
    MODEL,
    TOP,
    WEIGHTS,
    checksum_kept,
    honest,
    listed,
    model,
)

FOLDER = Path(MODEL.removeprefix(TOP))
OTHER = {"encoding_models_weights/weights_subject-02.npy": b"second", "metadata/metadata_subject-02.npy": b"two"}
UNVERIFIED = "fmri-lab-net came without a manifest.tsv"


@pytest.fixture
def berg_dir(tmp_path: Path) -> Path:
    return tmp_path / "berg"


def written(tmp_path: Path, data: bytes, name: str = "model.zip") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def in_folder(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{FOLDER.as_posix()}/{name}": data for name, data in files.items()}


@pytest.mark.parametrize("prefix", [MODEL, MODEL.removeprefix(TOP)])
def test_files_come_to_their_place(prefix: str, tmp_path: Path, berg_dir: Path) -> None:
    unpacked = unpack(written(tmp_path, honest(prefix=prefix)), berg_dir)
    expected = {**FILES, "manifest.tsv": listed(FILES)}
    assert contents(berg_dir) == in_folder(expected)
    assert unpacked.folders == {"fmri-lab-net": berg_dir / FOLDER}
    assert sorted(unpacked.written) == sorted(berg_dir / FOLDER / name for name in FILES)
    assert {path.name for path in (berg_dir / FOLDER).iterdir() if path.is_dir()} == {
        "encoding_models_weights", "encoding_models_accuracy", "metadata",
    }  # fmt: skip
    assert manifest.verify(berg_dir / FOLDER, manifest.read_manifest(berg_dir / FOLDER / "manifest.tsv").values()) == []


def test_a_zip_file_with_several_models_gives_all_of_them(tmp_path: Path, berg_dir: Path) -> None:
    second = MODEL.replace("model-net", "model-net-2")
    members = [(second + name, data) for name, data in {**OTHER, "manifest.tsv": listed(OTHER)}.items()]
    unpacked = unpack(written(tmp_path, model(*members, manifest=listed(FILES))), berg_dir)
    assert list(unpacked.folders) == ["fmri-lab-net", "fmri-lab-net-2"]
    assert len(contents(berg_dir)) == 6


def test_what_belongs_to_no_model_is_left_out_and_named(tmp_path: Path, berg_dir: Path) -> None:
    extra = [f"{TOP}berg_tutorials/tutorial_images/a.jpg", "__MACOSX/._x", f"{MODEL}metadata/.DS_Store"]
    data = model(*((name, b"x") for name in extra), (MODEL, b""), manifest=listed(FILES))
    unpacked = unpack(written(tmp_path, data), berg_dir)
    assert unpacked.left_out == extra
    assert contents(berg_dir) == in_folder({**FILES, "manifest.tsv": listed(FILES)})


def test_a_zip_file_made_by_hand_is_taken_with_a_warning(tmp_path: Path, berg_dir: Path) -> None:
    source = tmp_path / "source" / TOP / FOLDER
    for name, data in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    archive = Path(shutil.make_archive(str(tmp_path / "hand"), "zip", tmp_path / "source"))
    with pytest.warns(UnverifiedFilesWarning, match=f"{UNVERIFIED}.*could not be verified"):
        unpacked = unpack(archive, berg_dir)
    assert unpacked.unverified == ["fmri-lab-net"]
    assert contents(berg_dir) == in_folder({**FILES, "manifest.tsv": listed(FILES)})


@pytest.mark.filterwarnings("ignore::berg.weights.unpack.UnverifiedFilesWarning")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_zip_file_is_refused_without_a_trace(case: str, tmp_path: Path, berg_dir: Path) -> None:
    build, words = HOSTILE[case]
    archive = written(tmp_path, build())
    with pytest.raises((CorruptedFileError, StorageError), match=words):
        unpack(archive, berg_dir)
    assert list(tmp_path.rglob("*")) == [archive]
    assert not Path("/tmp/berg_evil.py").exists()
    assert not any(parent.joinpath("evil.py").exists() for parent in tmp_path.parents)


@pytest.mark.filterwarnings("ignore::berg.weights.unpack.UnverifiedFilesWarning")
@pytest.mark.parametrize("case", ["parent", "flipped_bytes", "another_content", "bomb", "manifest_other_hash"])
def test_a_refused_zip_file_leaves_what_was_there(case: str, tmp_path: Path, berg_dir: Path) -> None:
    unpack(written(tmp_path, honest(OTHER), "first.zip"), berg_dir)
    held = contents(berg_dir)
    with pytest.raises(CorruptedFileError):
        unpack(written(tmp_path, HOSTILE[case][0]()), berg_dir, overwrite=True)
    assert contents(berg_dir) == held


@pytest.mark.slow
def test_any_damaged_byte_is_found_or_harmless(tmp_path: Path, berg_dir: Path) -> None:
    data, draw = honest(), random.Random(0)
    for trial in range(150):
        damaged = bytearray(data)
        damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        place = berg_dir / str(trial)
        with suppress(BERGError):
            unpack(written(tmp_path, bytes(damaged)), place)
        found = contents(place) if place.exists() else {}
        assert found in ({}, in_folder({**FILES, "manifest.tsv": listed(FILES)}))


def test_a_file_that_is_not_there_is_missing(tmp_path: Path, berg_dir: Path) -> None:
    with pytest.raises(MissingFileError, match="There is no file"):
        unpack(tmp_path / "none.zip", berg_dir)


def test_unpacking_twice_changes_nothing(tmp_path: Path, berg_dir: Path) -> None:
    archive = written(tmp_path, honest())
    unpack(archive, berg_dir)
    before = {path: path.stat().st_mtime_ns for path in berg_dir.rglob("*") if path.is_file()}
    unpacked = unpack(archive, berg_dir)
    assert (unpacked.written, len(unpacked.same)) == ([], 2)
    assert {path: path.stat().st_mtime_ns for path in berg_dir.rglob("*") if path.is_file()} == before


def test_another_subject_joins_the_first(tmp_path: Path, berg_dir: Path) -> None:
    unpack(written(tmp_path, honest()), berg_dir)
    unpack(written(tmp_path, honest(OTHER)), berg_dir)
    both = {**FILES, **OTHER}
    assert contents(berg_dir) == in_folder({**both, "manifest.tsv": listed(both)})


def test_where_a_file_came_from_is_not_forgotten(tmp_path: Path, berg_dir: Path) -> None:
    archive = written(tmp_path, honest())
    unpack(archive, berg_dir)
    path = berg_dir / FOLDER / "manifest.tsv"
    entries = manifest.read_manifest(path)
    entry = entries[WEIGHTS]
    known = manifest.Entry(WEIGHTS, entry.size, entry.sha256, "https://example.org/w.npy", "2025-01-31T12:00:00Z")
    manifest.write_manifest(path, {**entries, WEIGHTS: known}.values())
    unpack(written(tmp_path, honest({**FILES, **OTHER})), berg_dir)
    assert manifest.read_manifest(path)[WEIGHTS] == known
    assert len(manifest.read_manifest(path)) == 4


@pytest.mark.filterwarnings("ignore::berg.weights.unpack.UnverifiedFilesWarning")
@pytest.mark.parametrize("with_manifest", [True, False])
def test_nothing_is_overwritten_without_being_told(with_manifest: bool, tmp_path: Path, berg_dir: Path) -> None:
    unpack(written(tmp_path, honest()), berg_dir)
    held = contents(berg_dir)
    newer = {**FILES, WEIGHTS: DATA[::-1], "metadata/new.npy": b"new"}
    archive = written(tmp_path, honest(newer) if with_manifest else model(files=newer))
    with pytest.raises(StorageError, match=f"^1 files are there .*{WEIGHTS}. Nothing was changed.*--overwrite"):
        unpack(archive, berg_dir)
    assert contents(berg_dir) == held
    unpacked = unpack(archive, berg_dir, overwrite=True)
    assert {path.name for path in unpacked.same} == {Path(METADATA).name}
    assert contents(berg_dir) == in_folder({**newer, "manifest.tsv": listed(newer)})


def test_old_files_stay_until_the_new_ones_are_verified(tmp_path: Path, berg_dir: Path) -> None:
    unpack(written(tmp_path, honest({**FILES, WEIGHTS: b"old"})), berg_dir)
    held = contents(berg_dir)
    with pytest.raises(CorruptedFileError, match="has the sha256"):
        unpack(written(tmp_path, checksum_kept()), berg_dir, overwrite=True)
    assert contents(berg_dir) == held


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path, berg_dir: Path) -> None:
    (berg_dir / FOLDER / "metadata").mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (berg_dir / FOLDER / METADATA).symlink_to(tmp_path / "elsewhere")
    unpack(written(tmp_path, honest()), berg_dir, overwrite=True)
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"
    assert (berg_dir / FOLDER / METADATA).read_bytes() == FILES[METADATA]


@pytest.mark.parametrize(
    "blocked", ["encoding_models", f"{FOLDER.as_posix()}/metadata", f"{FOLDER.as_posix()}/{METADATA}/x"]
)
def test_something_in_the_way_is_named_before_anything_is_written(blocked: str, tmp_path: Path, berg_dir: Path) -> None:
    place = berg_dir / blocked
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    with pytest.raises(StorageError, match=r"is not a folder|is no file has that name"):
        unpack(written(tmp_path, honest()), berg_dir, overwrite=True)
    assert contents(berg_dir) == {blocked: b"mine"}


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, berg_dir: Path) -> None:
    (berg_dir / FOLDER.parent).mkdir(parents=True)
    (berg_dir / FOLDER).symlink_to(tmp_path / "none")
    with pytest.raises(StorageError, match="is not a folder on the disk of"):
        unpack(written(tmp_path, honest()), berg_dir)
    assert contents(berg_dir) == {}


def test_a_broken_manifest_on_disk_is_named(tmp_path: Path, berg_dir: Path) -> None:
    unpack(written(tmp_path, honest()), berg_dir)
    (berg_dir / FOLDER / "manifest.tsv").write_bytes(b"?")
    held = contents(berg_dir)
    with pytest.raises(CorruptedFileError, match=f"{berg_dir}.*manifest.tsv, line 1"):
        unpack(written(tmp_path, honest(OTHER)), berg_dir)
    assert contents(berg_dir) == held


# Disks


def limited(archive: Path, berg_dir: Path, setup: str) -> str:
    """The error of a program that unpacks under a limit."""
    code = (
        f"import errno, resource\nfrom pathlib import Path\nfrom berg.core.exceptions import StorageError\n"
        f"from berg.weights.unpack import unpack\n{setup}\n"
        f"try:\n    unpack(Path({str(archive)!r}), Path({str(berg_dir)!r}))\n"
        "except StorageError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_disk_that_fills_up_ends_in_a_sentence_and_leaves_nothing(tmp_path: Path, berg_dir: Path) -> None:
    archive = written(tmp_path, honest({**FILES, WEIGHTS: os.urandom(300_000)}))
    setup = "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))"
    assert "cannot be written: File too large. Make room on that disk" in limited(archive, berg_dir, setup)
    assert list(tmp_path.iterdir()) == [archive]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only an administrator may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_small_disk_is_refused_before_or_while_writing(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = written(tmp_path, honest({**FILES, WEIGHTS: os.urandom(2_000_000)}))
    with pytest.raises(StorageError, match=r"has 1\.0 MB left, and 3\.0 MB are needed. Make room"):
        unpack(archive, small_disk)
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: free)  # as if others filled it meanwhile
    with pytest.raises(StorageError, match=r"No space left on device\. Make room"):
        unpack(archive, small_disk)
    assert contents(small_disk) == {}
    assert list(small_disk.iterdir()) == []


def test_a_model_folder_on_another_disk_is_refused(small_disk: Path, tmp_path: Path, berg_dir: Path) -> None:
    berg_dir.mkdir()
    (berg_dir / "encoding_models").symlink_to(small_disk)
    with pytest.raises(StorageError, match="encoding_models is not a folder on the disk of"):
        unpack(written(tmp_path, honest()), berg_dir)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("where", [".", FOLDER.as_posix()])
def test_a_folder_without_write_permission_is_named(where: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # into which everybody may look, other than tmp_path
        os.chmod(folder, 0o755)
        berg_dir = Path(folder, "berg")
        (berg_dir / FOLDER).mkdir(parents=True)
        berg_dir.chmod(0o777)
        (berg_dir / where).chmod(0o555)
        archive = written(Path(folder), honest())
        error = limited(archive, berg_dir, "import encodings.cp437, os\nif os.geteuid() == 0:\n    os.setuid(65534)")
        assert f"Look at its owner and rights with:  ls -ld {berg_dir}" in error
        assert contents(berg_dir) == {}


def test_permission_denied_is_a_typed_error(tmp_path: Path, berg_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(unpacking.os, "fsync", denied)
    with pytest.raises(StorageError, match=r"Permission denied\. Look at its owner and rights"):
        unpack(written(tmp_path, honest()), berg_dir)
    assert not berg_dir.exists()


def test_an_interrupt_leaves_nothing(tmp_path: Path, berg_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(unpacking.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(written(tmp_path, honest()), berg_dir)
    assert not berg_dir.exists()


# Kills


def run_trials(archive: Path, tmp_path: Path, before: Path) -> list[dict[str, Any]]:
    command = [sys.executable, killed_unpack.__file__, archive, tmp_path / "scratch", before]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    trials: list[dict[str, Any]] = json.loads(done.stdout)
    assert [trial["code"] for trial in trials] == [-signal.SIGKILL] * (len(trials) - 1) + [0]
    return trials


def hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in in_folder(files).items()}


def visible(files: dict[str, str]) -> dict[str, str]:
    return {name: sha256 for name, sha256 in files.items() if not name.startswith(".")}


@pytest.mark.slow
def test_a_new_model_killed_at_any_step_is_absent_or_whole_and_completed_by_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    trials = run_trials(written(tmp_path, honest()), tmp_path, tmp_path / "before")
    whole = hashes({**FILES, "manifest.tsv": listed(FILES)})
    assert len(trials) > 20
    for trial in trials:
        assert visible(trial["killed"]) in ({}, whole)
        assert trial["recovered"] in ({}, whole)
        assert (trial["again"], trial["after"], trial["left"]) == (0, whole, [])


@pytest.mark.slow
def test_a_merge_killed_at_any_step_is_undone_or_completed_by_the_next_run(tmp_path: Path) -> None:
    old = {**FILES, **OTHER}
    new = {**FILES, WEIGHTS: b"new", "metadata/deep/er.npy": b"more"}
    unpack(written(tmp_path, honest(old)), tmp_path / "before")
    trials = run_trials(written(tmp_path, honest(new)), tmp_path, tmp_path / "before")
    first = hashes({**old, "manifest.tsv": listed(old)})
    last = hashes({**old, **new, "manifest.tsv": listed({**old, **new})})
    assert len(trials) > 30
    for trial in trials:
        for name, sha256 in visible(trial["killed"]).items():
            assert sha256 in (first.get(name), last.get(name))
        assert visible(trial["killed"]).keys() >= first.keys()
        assert trial["recovered"] in (first, last)  # whatever zip file comes next
        assert (trial["again"], trial["after"], trial["left"]) == (0, last, [])


@pytest.mark.slow
def test_kills_at_random_moments_leave_nothing_half(tmp_path: Path, berg_dir: Path) -> None:
    files = {**FILES, **{f"encoding_models_weights/{i}.npy": os.urandom(2_000_000) for i in range(16)}}
    archive, draw = written(tmp_path, honest(files)), random.Random(1)
    code = (
        "import sys; from pathlib import Path; from berg.weights.unpack import unpack; print(flush=True)\n"
        "sys.stdin.readline(); unpack(Path(sys.argv[1]), Path(sys.argv[2])); print('done', flush=True)"
    )
    whole = in_folder({**files, "manifest.tsv": listed(files)})

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(archive), str(berg_dir)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # all is imported
        process.stdin.write("\n")
        process.stdin.flush()
        return process

    began = time.perf_counter()
    assert start().communicate()[0] == "done\n"
    duration = time.perf_counter() - began
    n_killed = n_tried = 0
    while n_killed < 10:
        n_tried += 1
        assert n_tried < 100, "the kills come too late"
        shutil.rmtree(berg_dir)
        process = start()
        time.sleep(draw.uniform(0, duration))
        process.kill()
        n_killed += process.communicate()[0] == ""
        left = contents(berg_dir) if berg_dir.exists() else {}
        assert {name: data for name, data in left.items() if not name.startswith(".")} in ({}, whole)
        unpack(archive, berg_dir)
        assert contents(berg_dir) == whole


# Two at once


def test_two_at_once_take_turns(tmp_path: Path, berg_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    archives = [written(tmp_path, honest(), "1.zip"), written(tmp_path, honest(OTHER), "2.zip")] * 4
    errors = []

    def one(archive: Path) -> None:
        try:
            unpack(archive, berg_dir)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(archive,)) for archive in archives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    both = {**FILES, **OTHER}
    assert contents(berg_dir) == in_folder({**both, "manifest.tsv": listed(both)})
    assert "Another process is at work" in caplog.text


def test_two_processes_at_once_take_turns(tmp_path: Path, berg_dir: Path) -> None:
    files = {f"encoding_models_weights/{i}.npy": os.urandom(3_000_000) for i in range(8)}
    archives = [written(tmp_path, honest(files), "1.zip"), written(tmp_path, honest({**files, **OTHER}), "2.zip")]
    code = (
        "import sys; from pathlib import Path; from berg.weights.unpack import unpack\nunpack(*map(Path, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code]
    runs = [subprocess.Popen([*command, str(archive), str(berg_dir)]) for archive in archives * 2]
    assert [run.wait(60) for run in runs] == [0, 0, 0, 0]
    both = {**files, **OTHER}
    assert contents(berg_dir) == in_folder({**both, "manifest.tsv": listed(both)})


def test_a_bar_counts_the_bytes(tmp_path: Path, berg_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unpack(written(tmp_path, honest({WEIGHTS: bytes(3_000_000)})), berg_dir, show_progress=True)
    printed = capsys.readouterr()
    assert "unpack model.zip" in printed.err
    assert "3.0/3.0 MB" in printed.err
    assert printed.out == ""


def test_headers_of_zip64_are_read(tmp_path: Path, berg_dir: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**FILES, "manifest.tsv": listed(FILES)}.items():
            with archive.open(MODEL + name, "w", force_zip64=True) as member:
                member.write(data)
    unpack(path, berg_dir)
    assert contents(berg_dir) == in_folder({**FILES, "manifest.tsv": listed(FILES)})
