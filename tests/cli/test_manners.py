"""What every verb does alike: warnings, Ctrl-C, -q and -v, groups, the doctor."""

import json
import logging
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from berg.cli import app
from berg.cli.app import main
from berg.models import installation
from berg.system import progress
from berg.system.progress import progress_bar, transfer_bars

V1 = "fmri-szinte2024-prf_css"


@pytest.fixture
def verb(monkeypatch):
    """Puts a function in place of the verb ``where``."""

    def put(function):
        monkeypatch.setattr("berg.cli.where.where", function)
        monkeypatch.setattr(app, "app", app.App(name="berg", suppress_keyboard_interrupt=False))
        app.app.command(function, name="where")

    return put


def test_a_warning_is_one_clean_line(verb, capsys):
    verb(lambda: warnings.warn("Pictures\nare  small.", UserWarning, stacklevel=1))
    with warnings.catch_warnings(action="default"):
        main(["where"])
    assert capsys.readouterr().err == "warning: Pictures are small.\n"


def test_quiet_shows_no_warnings_and_no_bars(verb, capsys):
    def noisy():
        warnings.warn("Pictures are small.", UserWarning, stacklevel=1)
        assert progress.shown_by_default is False

    verb(noisy)
    with warnings.catch_warnings(action="default"):
        main(["where", "-q"])
    assert capsys.readouterr().err == ""
    assert progress.shown_by_default is None


@pytest.mark.parametrize(("words", "told"), [(["-v"], "berg: read 3\n"), ([], "")])
def test_verbose_tells_what_the_log_of_berg_says(words, told, verb, capsys):
    verb(lambda: logging.getLogger("berg.reading").info("read %d", 3))
    main(["where", *words])
    assert capsys.readouterr().err == told
    assert logging.getLogger("berg").handlers == []


def test_ctrl_c_ends_with_one_line_that_says_what_is_kept(verb, capsys):
    def interrupted():
        interruption = KeyboardInterrupt()
        interruption.add_note("3 of 7 stimuli are kept in r.zarr; give the same command again to go on")
        raise interruption

    verb(interrupted)
    with pytest.raises(SystemExit, match="130"):
        main(["where"])
    kept = "3 of 7 stimuli are kept in r.zarr; give the same command again to go on"
    assert capsys.readouterr().err == f"berg: interrupted. {kept}\n"


def test_ctrl_c_while_encoding_says_how_many_stimuli_are_kept(tmp_path, capsys, monkeypatch):
    from berg.encoding import stream

    np.save(tmp_path / "p.npy", np.zeros((6, 3, 320, 320), np.uint8))
    monkeypatch.setattr("berg.encoding.task.MAX_BLOCK_STIMULI", 2)
    encode_batches = stream.encode_batches

    def until_ctrl_c(*arguments):
        for number, batch in enumerate(encode_batches(*arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(stream, "encode_batches", until_ctrl_c)
    words = ["encode", V1, "--array", tmp_path / "p.npy", "--out", tmp_path / "r.zarr", "--batch-size", "2"]
    with pytest.raises(SystemExit, match="130"):
        main([str(word) for word in words])
    told = capsys.readouterr().err
    assert f" of 6 stimuli are kept in {tmp_path / 'r.zarr'}; give the same command again to go on\n" in told
    assert told.count("\n") == 1


def test_verbs_stand_in_groups_and_every_verb_is_in_one(capsys):
    main(["--help"])
    told = capsys.readouterr().out
    for title, verbs in app.VERBS.items():
        assert title in told
        assert all(f" {verb} " in told for verb, *_ in verbs)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete_the_verbs(shell):
    script = app.app.generate_completion(shell=shell)
    assert "describe" in script
    assert "encode" in script


def test_the_doctor_finds_what_there_is(tmp_path, capsys, monkeypatch):
    needs = ["dask>=1; extra == 'cluster'", 'no-such-package>=2; extra == "export"', "sphinx; extra == 'docs'", "numpy"]
    monkeypatch.setattr(installation, "requires", lambda _: needs)
    monkeypatch.setattr(installation, "_SECONDS", 0.001)
    (tmp_path / "weights.npy").write_bytes(bytes(1234))
    main(["doctor", "--json", "--berg-dir", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["numpy"] == np.__version__
    assert found["devices"][0]["device"] == "cpu"
    assert "float32" in found["devices"][0]["fast"]
    assert found["missing"] == {
        "export": {"packages": ["no-such-package"], "install": 'pip install "berg[export]"'}
    }  # that of docs is for developers
    assert found["directories"][0]["size"] == 1234
    assert [test["fault"] for test in found["test"]] == [""]


def test_the_doctor_ends_with_1_when_the_test_gives_other_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(installation, "_SECONDS", 0.001)
    monkeypatch.setattr(installation, "EXPECTED_SUM", 700.0)
    with pytest.raises(SystemExit, match="1"):
        main(["doctor", "--berg-dir", str(tmp_path)])
    told = capsys.readouterr().out
    assert "FAILED: the sum of the responses is 793.745, not 700" in told
    assert f"{tmp_path}" in told


@pytest.fixture
def notebook(monkeypatch):
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", 0)


def test_a_notebook_gets_a_line_that_needs_no_widgets(notebook, capsys):
    with progress_bar("model", 4, "stimuli") as advance:
        advance(3)
        advance(1)
    lines = capsys.readouterr().err.split("\r")
    assert lines[1].startswith("model: 0 stimuli of 4 stimuli")
    assert lines[-1].startswith("model: 4 stimuli of 4 stimuli, ")
    assert lines[-1].endswith("\n")


def test_a_notebook_gets_one_line_for_all_files(notebook, capsys):
    with transfer_bars(3000) as bars:
        bars.begin("a", 2000, 0)(1500)
        bars.begin("a", 2000, 0)(2000)  # begun anew
        bars.end("a")
        bars.begin("b", 1000, 0)(1000)
    assert capsys.readouterr().err.split("\r")[-1].startswith("files: 3.0 kB of 3.0 kB")
