"""berg evaluate, find and report."""

import numpy as np
import pytest
import yaml
from own_prf import MODEL, pictures, write_own_prf

from berg import BERG
from berg.cli.app import main
from berg.core import model_registry
from berg.core.exceptions import InvalidParameterError
from berg.evaluation.accuracy_table import read_accuracy

V1 = "fmri-szinte2024-prf_css"


def said(capsys, *tokens):
    main([str(token) for token in tokens])
    return capsys.readouterr().out


def refused(capsys, *tokens):
    with pytest.raises(SystemExit) as stopped:
        main([str(token) for token in tokens])
    assert stopped.value.code == 1
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A BERG directory with a model of one's own, and the folder of recordings that it predicts."""
    root = tmp_path_factory.mktemp("evaluate")
    write_own_prf(root / "berg")
    (root / "data").mkdir()
    with BERG(root / "berg").get_encoding_model(MODEL, "cpu") as model:
        responses = model.generate_response(pictures(12), show_progress=False)
    noise = np.random.default_rng(0).normal(size=(2, *responses.shape)) * responses.std(0)
    np.save(root / "data" / "stimuli.npy", pictures(12))
    np.save(root / "data" / "responses.npy", (responses + noise).reshape(24, -1).astype(np.float32))
    np.save(root / "data" / "presentations.npy", np.tile(np.arange(12), 2))
    dataset = {
        "stimuli": "stimuli.npy",
        "responses": {"responses": {"path": "responses.npy", "axes": ["presentation", "voxel"]}},
        "presentations": "presentations.npy",
        "splits": {"test_fraction": 0.5},
    }
    (root / "data" / "dataset.yaml").write_text(yaml.safe_dump(dataset))
    yield root
    model_registry.MODEL_REGISTRY.pop(MODEL, None)


def test_evaluate_writes_the_table_and_says_what_it_found(capsys, place):
    tokens = ("evaluate", MODEL, "--data", place / "data", "--subject", "1", "--berg-dir", place / "berg")
    out = said(capsys, *tokens, "--permutations", "19", "--bootstrap", "20", "--device", "cpu")
    table = BERG(place / "berg").accuracy(MODEL)
    assert f"responses: 2,308 units, median r {float(table['r'].median()):.3f}, noise ceiling" in out
    assert "accuracy_subject-01.nc" in out
    assert (table.attrs["n_stimuli"], table.attrs["permutations"]) == (6, 19)
    assert any(line.split()[:2] == ["V1", "responses"] for line in out.splitlines())
    page = place / "page.html"
    said(capsys, "report", MODEL, "--subject", "1", "--berg-dir", place / "berg", "--out", page)
    assert "data:image/png;base64," in page.read_text("utf-8")
    assert MODEL in said(capsys, "find", "--dataset", "own", "--berg-dir", place / "berg", "--min-r", "0")


def test_a_part_of_the_units_goes_into_another_file(capsys, place):
    tokens = ("evaluate", MODEL, "--data", place / "data", "--berg-dir", place / "berg", "--permutations", "0")
    some = (*tokens, "--bootstrap", "0", "--selection", "reliable=true")
    assert "Say where the table goes:  --out accuracy.nc" in refused(capsys, *some)
    said(capsys, *some, "--out", place / "some.nc")
    assert read_accuracy(place / "some.nc").sizes["voxel"] == 1105
    assert "ends in .nc" in refused(capsys, *some, "--out", place / "some.csv")
    assert "There is no" in refused(capsys, *tokens[:3], place / "nothing", *tokens[4:])


def test_find_prints_what_is_known_and_what_is_not(capsys, tmp_path):
    out = said(capsys, "find", "--species", "human", "--min-r", "0.5", "--berg-dir", tmp_path)
    (row,) = [line for line in out.splitlines() if V1 in line]
    assert row.split() == [V1, "1", "2,308", "0.483", "1,115", "held_out_r"]
    assert "accuracy not known: eeg-things_eeg_2-vit_b_32, subject 1, 2, 3, 4, 5, 6, 7, 8, 9, 10" in out
    out = said(capsys, "find", "--species", "human", "--berg-dir", tmp_path / "none")
    assert out.count("There is no BERG directory") == out.count("accuracy not known") == 1
    error = refused(capsys, "find", "--stimuli", "images", "--roi", "V99", "--min-r", "0.5")
    assert "No model has stimuli images, roi V99, min-r 0.5. All models:  berg list" in error


def test_a_region_that_is_no_name_is_refused():
    with pytest.raises(InvalidParameterError, match=r"roi is 3; it must be the name of a region"):
        BERG().find_models(roi=3)


def test_report_writes_a_page_beside_the_one_who_asks(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"Report: {V1}_subject-1.html" in said(
        capsys, "report", V1, "--subject", "1", "--selection", "reliable=true"
    )
    assert "1,105" in (tmp_path / f"{V1}_subject-1.html").read_text("utf-8")
    assert "ends in .html" in refused(capsys, "report", V1, "--out", tmp_path / "page.pdf")
