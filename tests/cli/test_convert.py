from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import layouts

from berg import BERG
from berg.cli.app import main

FWRF, EEG = layouts.FWRF, layouts.EEG


@pytest.fixture
def fwrf_dir(tmp_path: Path) -> Path:
    for roi, n_voxels in (("V1", 4), ("lateral", 5)):
        layouts.write_fwrf(tmp_path, 1, roi, np.random.default_rng(0), n_voxels=n_voxels)
    return tmp_path


def convert(capsys: Any, *tokens: object, code: int = 0) -> Any:
    """What ``berg convert`` prints; its exit code is checked."""
    found: Any = 0
    try:
        main(["convert", *map(str, tokens)])
    except SystemExit as stop:
        found = stop.code
    printed = capsys.readouterr()
    assert found == code, printed
    return printed


def refused(capsys: Any, *tokens: object) -> str:
    """The one line on standard error with which a command ends in exit code 1."""
    printed = convert(capsys, *tokens, code=1)
    assert printed.out == ""
    assert printed.err.startswith("berg: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_convert_prints_the_files_that_it_wrote_and_their_sizes(fwrf_dir: Path, capsys: Any) -> None:
    printed = convert(capsys, FWRF, "--subject", 1, "--berg-dir", fwrf_dir)
    written = sorted(fwrf_dir.rglob("*.safetensors"))
    assert len(written) == 3
    sizes = [path.stat().st_size / 1e6 for path in written]
    assert min(sizes) > 5
    expected = [f"{path} ({size:.1f} MB)" for path, size in zip(written, sizes, strict=True)]
    assert sorted(printed.out.splitlines()) == expected
    assert printed.err == ""


def test_convert_takes_a_region(fwrf_dir: Path, capsys: Any) -> None:
    printed = convert(capsys, FWRF, "--subject", 1, "--selection", "roi=lateral", "--berg-dir", fwrf_dir)
    assert printed.out.count("roi-lateral_split-") == 2
    assert "roi-V1" not in printed.out
    images = layouts.random_images(np.random.default_rng(0), 2, 32, 32)
    options: dict[str, Any] = {"subject": 1, "selection": {"roi": "lateral"}, "device": "cpu"}
    converted = BERG(fwrf_dir).encode(FWRF, images, **options)
    for path in fwrf_dir.rglob("*.safetensors"):
        path.unlink()
    np.testing.assert_array_equal(converted, BERG(fwrf_dir).encode(FWRF, images, **options))


def test_convert_twice_writes_the_same(fwrf_dir: Path, capsys: Any) -> None:
    tokens = (FWRF, "--subject", 1, "--berg-dir", fwrf_dir)
    first = convert(capsys, *tokens)
    held = {path: path.read_bytes() for path in fwrf_dir.rglob("*.safetensors")}
    assert convert(capsys, *tokens) == first
    assert {path: path.read_bytes() for path in fwrf_dir.rglob("*.safetensors")} == held
    assert not list(fwrf_dir.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([FWRF, "--subject", "1"], "does not exist. Name another (berg_dir, BERG_DIR), or fill it"),
        ([FWRF, "--subject", "1", "--berg-dir", "/none"], "The BERG directory /none does not exist"),
        ([FWRF, "--subject", "2", "--berg-dir", "DIR"], "for subject 2, roi "),
        ([FWRF, "--subject", "9", "--berg-dir", "DIR"], "is 9"),
        ([FWRF, "--subject", "one", "--berg-dir", "DIR"], "must be int, got str 'one'"),
        ([FWRF, "--berg-dir", "DIR"], "needs 'subject'"),
        ([FWRF, "--subject", "1", "--selection", "roi=V5", "--berg-dir", "DIR"], "Did you mean 'V"),
        ([FWRF, "--subject", "1", "--selection", "roi=V2", "--berg-dir", "DIR"], "roi-V2"),
        ([EEG, "--subject", "1", "--berg-dir", "DIR"], "weights_subject-01 (.npy, .pt, "),
        (["fmri-nsd-fwfr", "--subject", "1"], f"Did you mean '{FWRF}'"),
        (["fmri-szinte2024-prf_css"], "need no conversion"),
    ],
)
def test_errors_are_one_line(tokens: list[str], words: str, fwrf_dir: Path, capsys: Any) -> None:
    assert words in refused(capsys, *(str(fwrf_dir) if token == "DIR" else token for token in tokens))


def test_a_damaged_file_is_named_and_nothing_is_left(fwrf_dir: Path, capsys: Any) -> None:
    (path,) = fwrf_dir.rglob("*roi-V1.pt")
    path.write_bytes(path.read_bytes()[:-100])
    options = ("--subject", 1, "--selection", "roi=V1", "--berg-dir", fwrf_dir)
    assert f"{path} cannot be read" in refused(capsys, FWRF, *options)
    assert {file.suffix for file in path.parent.iterdir()} == {".pt"}


def test_an_unknown_option_is_wrong_usage(fwrf_dir: Path, capsys: Any) -> None:
    convert(capsys, FWRF, "--subjekt", 1, "--berg-dir", fwrf_dir, code=2)
    assert not list(fwrf_dir.rglob("*.safetensors"))
