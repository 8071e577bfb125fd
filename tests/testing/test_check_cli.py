import json
import re

import pytest
import yaml

from berg.cli.app import main
from berg.core import model_registry

MODEL = "fmri-szinte2024-prf_css"


def run(capsys, *tokens, code):
    """Standard output and error of one command; its exit code is checked."""
    found = 0
    try:
        main([str(token) for token in tokens])
    except SystemExit as stop:
        found = stop.code or 0
    printed = capsys.readouterr()
    assert found == code, printed
    return printed


@pytest.fixture
def own_card(tmp_path):
    """A card of a known family in a folder of its own, with a word left to fill in and without files."""
    card = model_registry.get_card(MODEL).raw
    card |= {"model_id": "fmri-mine-prf", "training_dataset": "mine", "species": "TODO"}
    card["files"]["store"] = "berg_dir"
    path = tmp_path / "fmri-mine-prf.yaml"
    path.write_text(yaml.safe_dump(card))
    yield path
    model_registry.MODEL_REGISTRY.pop("fmri-mine-prf", None)


@pytest.mark.slow
def test_a_good_model_ends_in_exit_code_0_and_a_summary(capsys):
    printed = run(capsys, "check", MODEL, "--selection", "min_held_out_r2=0.5", "--parameter", "device=cpu", code=0)
    assert printed.err == ""
    assert re.search(rf"{MODEL} \(stimuli: image\): \d+ passed, .*skipped in \d+\.\d s$", printed.out.strip())
    assert "failed" not in printed.out
    assert "\x1b" not in printed.out  # no colours outside a terminal
    assert "\nmanners\n" in printed.out


def test_a_card_can_be_checked_and_its_failures_have_reason_and_fix(capsys, own_card, tmp_path):
    printed = run(capsys, "check", own_card, "--berg-dir", tmp_path, code=1)
    words = " ".join(printed.out.split())
    assert "species is still to be filled in Fix: Fill in what is left to do. (nothing_is_left_to_do)" in words
    assert "MissingFileError: metadata of fmri-mine-prf for subject 1 are not there" in words
    assert re.search(r"\d+ more checks need a model that runs \(see model_runs\)", words)
    assert re.search(r" 2 failed, ", words)


def test_json_holds_every_result(capsys, own_card, tmp_path):
    found = json.loads(run(capsys, "check", own_card, "--berg-dir", tmp_path, "--subject", "1", "--json", code=1).out)
    assert found["kind"] == "image"
    assert found["parameters"] == {"subject": 1}
    assert sum(found["summary"].values()) == len(found["results"]) > 40
    failed = [result for result in found["results"] if result["outcome"] == "failed"]
    assert {result["name"] for result in failed} == {"nothing_is_left_to_do", "model_runs"}
    assert set(failed[0]) == {"group", "name", "description", "outcome", "reason", "fix"}


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["fmri-szinte2024-prf_cs"], "Did you mean 'fmri-szinte2024-prf_css'"),
        (["no_such.yaml"], "There is no card no_such.yaml. Give the file of a card"),
        ([MODEL, "--selection", "V1"], "--selection takes key=value, got 'V1'"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_one_line(capsys, tokens, words):
    printed = run(capsys, "check", *tokens, code=1)
    assert printed.out == ""
    assert words in printed.err
    assert printed.err.count("\n") == 1


def test_a_broken_card_is_refused_with_its_line(capsys, own_card):
    own_card.write_text(own_card.read_text() + "speceis: Human\n")
    assert "unknown key 'speceis'. Did you mean 'species'?" in run(capsys, "check", own_card, code=1).err
