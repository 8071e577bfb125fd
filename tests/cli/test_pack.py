from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from berg.cli.app import main

MODEL = "fmri-szinte2024-prf_css"
FOLDER = Path("encoding_models/modality-fmri/train_dataset-szinte2024/model-prf_css")


def run(capsys: Any, *tokens: object, code: int = 0) -> Any:
    """What a command prints; its exit code is checked."""
    found: Any = 0
    try:
        main([*map(str, tokens)])
    except SystemExit as stop:
        found = stop.code
    printed = capsys.readouterr()
    assert found == code, printed
    return printed


def refused(capsys: Any, *tokens: object) -> str:
    printed = run(capsys, *tokens, code=1)
    assert printed.out == ""
    assert printed.err.startswith("berg: ")
    assert "Traceback" not in printed.err
    return str(printed.err)


@pytest.fixture
def archive(tmp_path: Path, capsys: Any) -> Path:
    run(capsys, "pack", MODEL, "--out", tmp_path / "model.zip", "--force")
    return tmp_path / "model.zip"


@pytest.mark.slow
def test_pack_and_unpack_say_what_they_did(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(rf"{MODEL}\.zip \([0-9]{{3}}\.[0-9] kB, 3 files\)\n", run(capsys, "pack", MODEL).out)
    first = run(capsys, "unpack", f"{MODEL}.zip", "--berg-dir", "berg")
    size = r"[0-9]{3}\.[0-9] kB"
    there = re.escape(str(Path("berg") / FOLDER))
    assert re.fullmatch(rf"{MODEL}: 3 files \({size}\) written, 0 were there already: {there}\n", first.out)
    assert first.err == ""
    second = run(capsys, "unpack", f"{MODEL}.zip", "--berg-dir", "berg")
    assert "0 files (0 B) written, 3 were there already" in second.out


def test_unpack_goes_to_the_configured_folder(archive: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("BERG_DIR", str(tmp_path / "configured"))
    run(capsys, "unpack", archive)
    assert (tmp_path / "configured" / FOLDER / "manifest.tsv").is_file()


def test_without_a_manifest_it_is_said_loudly(archive: Path, tmp_path: Path, capsys: Any) -> None:
    bare = tmp_path / "bare.zip"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(bare, "w") as new:
        for info in old.infolist():
            if not info.filename.endswith("manifest.tsv"):
                new.writestr(info, old.read(info))
        new.writestr("__MACOSX/._x", b"x")
    printed = run(capsys, "unpack", bare, "--berg-dir", tmp_path / "berg")
    assert printed.err.startswith("left out: __MACOSX/._x\nNOT VERIFIED: fmri-szinte2024-prf_css came without")
    assert "UnverifiedFilesWarning" not in printed.err
    assert "3 files" in printed.out


def test_what_differs_is_replaced_only_when_told(archive: Path, tmp_path: Path, capsys: Any) -> None:
    berg_dir = tmp_path / "berg"
    run(capsys, "unpack", archive, "--berg-dir", berg_dir)
    path = next(berg_dir.rglob("*.json"))
    whole = path.read_bytes()
    path.write_bytes(b"mine")
    assert "--overwrite" in refused(capsys, "unpack", archive, "--berg-dir", berg_dir)
    assert path.read_bytes() == b"mine"
    run(capsys, "unpack", archive, "--berg-dir", berg_dir, "--overwrite")
    assert path.read_bytes() == whole


def test_a_damaged_zip_file_is_one_line(archive: Path, tmp_path: Path, capsys: Any) -> None:
    archive.write_bytes(archive.read_bytes()[:-50])
    error = refused(capsys, "unpack", archive, "--berg-dir", tmp_path / "berg")
    assert "Is it whole? Get it again" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "berg").exists()


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["pack", "fmri-szinte2024-prf"], f"Did you mean '{MODEL}'"),
        (["pack", MODEL, "--out", "model.tar"], "'model.tar' is no name for a zip file. Try --out model.zip"),
        (["pack", "fmri-nsd-fwrf", "--force", "--berg-dir", "/none"], "The BERG directory /none does not exist"),
        (["unpack", "/none.zip", "--berg-dir", "/none"], "There is no file /none.zip"),
    ],
)
def test_errors_are_one_line(tokens: list[str], words: str, capsys: Any) -> None:
    error = refused(capsys, *tokens)
    assert words in error
    assert error.count("\n") == 1
