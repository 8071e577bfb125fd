"""``--json`` of every verb that prints a table, and what removes or replaces files."""

import inspect
import json
from importlib import import_module

import numpy as np
import pytest

from berg.cli.app import VERBS, main

V1, EAR = "fmri-szinte2024-prf_css", "ephys-rokem2006-ln_renewal"
TABLES = (
    "list",
    "find",
    "describe",
    "estimate",
    "download",
    "status",
    "verify",
    "where",
    "doctor",
    "evaluate",
    "check",
)


@pytest.mark.parametrize("verb", TABLES)
def test_every_verb_that_prints_a_table_takes_json(verb):
    (place,) = [function for verbs in VERBS.values() for name, function, _ in verbs if name == verb]
    module, _, function = place.partition(":")
    assert "json" in inspect.signature(getattr(import_module(f"berg.cli.{module}"), function)).parameters


def printed(capsys, *words):
    main([*map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def test_the_figures_are_those_of_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BERG_DIR", str(tmp_path))
    assert printed(capsys, "where")["berg_dir"] == {
        "value": str(tmp_path), "origin": "the environment variable BERG_DIR", "exists": True
    }  # fmt: skip
    (found,) = printed(capsys, "find", "--dataset", "rokem2006")
    assert (found["model_id"], found["median_r"]) == (EAR, pytest.approx(0.644))
    assert printed(capsys, "find", "--dataset", "things")[0]["median_r"] is None  # NaN is no JSON
    assert printed(capsys, "status") == printed(capsys, "verify") == []
    assert printed(capsys, "describe", V1)["model_id"] == V1


def test_the_estimate_as_json(tmp_path, capsys):
    np.save(tmp_path / "p.npy", np.zeros((4, 3, 320, 320), np.uint8))
    found = printed(capsys, "estimate", V1, "--array", tmp_path / "p.npy", "--out", tmp_path / "r.zarr")
    assert found["disk_bytes"] >= 4 * 4 * 2308


def test_a_file_that_is_there_is_not_replaced_without_a_word(tmp_path, capsys):
    np.save(tmp_path / "p.npy", np.zeros((1, 3, 320, 320), np.uint8))
    (tmp_path / "r.nc").write_text("mine")
    words = ["encode", V1, "--array", str(tmp_path / "p.npy"), "--out", str(tmp_path / "r.nc")]
    with pytest.raises(SystemExit, match="1"):
        main(words)
    assert "r.nc is there already. Give another name, or have it replaced: --overwrite" in capsys.readouterr().err
    assert (tmp_path / "r.nc").read_text() == "mine"
    main([*words, "--overwrite"])
    assert (tmp_path / "r.nc").stat().st_size > 1000


@pytest.mark.parametrize(
    ("slurm", "more", "told"),
    [
        ("memory=8GB", [], "--slurm memory=8GB describes jobs of SLURM. Add --scheduler slurm:8"),
        ("8GB", ["--scheduler", "slurm:2"], "--slurm takes key=value,key=value, got '8GB'"),
    ],
)
def test_words_for_slurm_that_make_no_sense_are_refused(slurm, more, told, tmp_path, capsys):
    np.save(tmp_path / "p.npy", np.zeros((1, 3, 320, 320), np.uint8))
    words = ["encode", V1, "--array", str(tmp_path / "p.npy"), "--out", str(tmp_path / "r.zarr"), "--slurm", slurm]
    with pytest.raises(SystemExit, match="1"):
        main([*words, *more])
    assert told in capsys.readouterr().err
