"""The checks pass what is good, and each finds the fault that it is meant for."""

from __future__ import annotations

import os
import re
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from marks import slow
from own_prf import MODEL, write_own_prf
from published import language, layouts, mosaic, mouse_scans, text2fmri

from berg import BERG
from berg.core import model_registry
from berg.core.exceptions import ModelCheckError, ModelNotFoundError
from berg.system import progress
from berg.testing import CHECKS, ModelUnderTest, check_model, parametrize_with_checks

PUBLISHED = ["eeg-things_eeg_2-vit_b_32", "fmri-nsd-fwrf", "fmri-nsd_fsaverage-vit_b_32"]
BUILT_IN = [
    model_id
    for model_id in BERG().list_models()
    if (files := model_registry.get_card(model_id).files) is not None and files.store == "built_in"
]


pytestmark = pytest.mark.usefixtures("own_registry")


def exhibit(
    tmp_path: Path, kind: type[zoo.Grid] = zoo.Grid, change: tuple[str, str] = ("", ""), fault: Any = None
) -> ModelUnderTest:
    """A model of the zoo with its card and its files, registered."""
    change = getattr(kind, "fault_of_card", change)
    assert change[0] in zoo.CARD
    path = tmp_path / f"{zoo.MODEL_ID}.yaml"
    path.write_text(zoo.CARD.replace(*change, 1))
    (tmp_path / "berg").mkdir()
    folder = zoo.write_files(tmp_path / "berg")
    for spoil in (fault, getattr(kind, "fault_of_files", None)):
        if spoil is not None:
            spoil(folder)
    model_registry.register_model(zoo.MODEL_ID, zoo.__name__, kind.__name__, "meg", "zoo", path)
    return ModelUnderTest(zoo.MODEL_ID, tmp_path / "berg")


def result_of(check: str, model: ModelUnderTest) -> Any:
    """What one check says of a faulty model: with a reason and what to do."""
    result = CHECKS[check].run(model)
    assert result.outcome == CHECKS[check].fault, result
    assert result.reason
    assert result.fix
    return result


def failures(results: Any) -> list[Any]:
    return [result for result in results if result.outcome == "failed"]


def test_there_are_checks_and_models_enough():
    assert len(CHECKS) >= 40
    assert len(zoo.CARD_FAULTS) + len(zoo.FILE_FAULTS) + len(zoo.CLASS_FAULTS) >= 25
    assert BUILT_IN
    assert set(PUBLISHED) <= set(BERG().list_models())


def test_every_check_has_a_sentence_a_fix_and_a_fault_that_it_finds():
    for name, check in CHECKS.items():
        assert re.fullmatch(r"[A-Z].*\.|predict .*\.|BERG.*\.", check.description), name
        assert check.fix.strip(), name
    found = {name for name, *_ in [*zoo.CARD_FAULTS, *zoo.FILE_FAULTS, *zoo.CLASS_FAULTS]}
    assert found == set(CHECKS)


def test_the_good_model_passes_every_check(tmp_path):
    model = exhibit(tmp_path)
    results = check_model(model.model_id, tmp_path / "berg")
    assert [result for result in results if result.outcome != "passed"] == []
    assert [result.name for result in results] == list(CHECKS)


def test_a_region_that_is_given_in_a_list_alone_is_tried_in_a_list(tmp_path):
    old = "roi: {type: str or list, valid_values: [left, right], example: left"
    model = exhibit(tmp_path, change=(old, "roi: {type: list, valid_values: [left, right], example: [left]"))
    names = ("every_selection_key_is_taken", "selected_responses_are_a_slice_of_all")
    assert [CHECKS[name].run(model).outcome for name in names] == ["passed", "passed"]


@pytest.mark.parametrize(("check", "old", "new"), zoo.CARD_FAULTS)
def test_a_fault_of_the_card_is_found(check, old, new, tmp_path):
    result_of(check, exhibit(tmp_path, change=(old, new)))


@pytest.mark.parametrize(("check", "fault"), zoo.FILE_FAULTS)
def test_a_fault_of_the_files_is_found(check, fault, tmp_path):
    result_of(check, exhibit(tmp_path, fault=fault))


@pytest.mark.parametrize(("check", "kind"), zoo.CLASS_FAULTS)
def test_a_fault_of_the_class_is_found(check, kind, tmp_path):
    result_of(check, exhibit(tmp_path, kind))


@pytest.mark.parametrize("kind", [zoo.CannotLoad, zoo.PrintsAtTheEnd, zoo.PhonesHome, zoo.HasASecret])
def test_a_fault_without_consequences_fails_one_check_alone(kind, tmp_path):
    exhibit(tmp_path, kind)
    assert len(failures(check_model(zoo.MODEL_ID, tmp_path / "berg"))) == 1


def test_missing_files_are_one_clear_failure(tmp_path):
    exhibit(tmp_path)
    (tmp_path / "empty").mkdir()
    (failure,) = failures(check_model(zoo.MODEL_ID, tmp_path / "empty"))
    assert failure.name == "model_runs"
    assert "metadata of meg-zoo-grid for subject 1 are not there" in failure.reason


def process_state() -> Any:
    drawn = np.random.get_state()[1].tolist()  # noqa: NPY002
    return os.getcwd(), dict(os.environ), drawn, torch.get_num_threads(), socket.socket.connect, list(warnings.filters)


@pytest.mark.parametrize(
    "kind",
    [zoo.GoesElsewhere, zoo.SetsTheEnvironment, zoo.SeedsNumpy, zoo.SetsThreads, zoo.PhonesHome, zoo.SilencesWarnings],
)
def test_the_state_of_the_process_is_put_back(kind, tmp_path):
    before = process_state()
    exhibit(tmp_path, kind)
    assert failures(check_model(zoo.MODEL_ID, tmp_path / "berg"))
    assert process_state() == before


@pytest.mark.slow
def test_failures_are_raised_where_that_is_wanted(tmp_path):
    exhibit(tmp_path, zoo.Prints)
    with pytest.raises(ModelCheckError, match=r"meg-zoo-grid fails 1 of \d+ checks:\n- nothing_is_printed: .*Log with"):
        check_model(zoo.MODEL_ID, tmp_path / "berg", raise_failures=True)


def test_an_unknown_model_is_named_with_its_nearest():
    with pytest.raises(ModelNotFoundError, match=r"Did you mean 'fmri-szinte2024-prf_css'"):
        check_model("fmri-szinte2024-prf")


@pytest.mark.slow
def test_nothing_is_printed_and_nothing_is_warned_of(tmp_path, capsys):
    exhibit(tmp_path, zoo.Prints)
    check_model(zoo.MODEL_ID, tmp_path / "berg")
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_given_stimuli_and_parameters_are_used(tmp_path):
    exhibit(tmp_path)
    stimulus = np.random.default_rng(3).integers(0, 256, (2, 3, 9, 11), dtype="uint8")
    model = ModelUnderTest(
        zoo.MODEL_ID, tmp_path / "berg", stimulus=stimulus, selection={"roi": "right", "times": [1, 0, 0, 1, 1]}, gain=2
    )
    assert model.responses[0].shape == (2, 3, 3)
    results = [check.run(model) for check in CHECKS.values()]
    assert failures(results) == []


def test_a_class_after_the_guide_without_axes_can_be_checked(tmp_path):
    at = zoo.CARD.index("outputs:"), zoo.CARD.index("parameters:"), zoo.CARD.index("select:"), zoo.CARD.index("perf")
    plain = zoo.CARD[: at[0]] + zoo.CARD[at[1] : at[2]] + zoo.CARD[at[3] :]
    exhibit(tmp_path, zoo.Grid)
    path = tmp_path / f"{zoo.MODEL_ID}.yaml"
    full = model_registry.get_card(zoo.MODEL_ID)
    path.write_text(plain)
    model = ModelUnderTest(zoo.MODEL_ID, tmp_path / "berg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "get_card", lambda model_id: full)  # a class that knows its axes by itself
        model_registry._cards_read.clear()
        results = {name: check.run(model) for name, check in CHECKS.items()}
    assert failures(results.values()) == []
    assert results["selected_responses_are_a_slice_of_all"].outcome == "skipped"
    assert "no 'outputs'" in results["selected_responses_are_a_slice_of_all"].reason
    assert results["axes_are_as_the_card_says"].outcome == "passed"


@parametrize_with_checks(BUILT_IN)
def test_built_in_models_pass_check_by_check(model, check):
    check(model)


def test_a_check_as_a_test_fails_and_skips(tmp_path):
    exhibit(tmp_path, zoo.Prints)
    mark = parametrize_with_checks([zoo.MODEL_ID], tmp_path / "berg").mark
    cases = {case.id: case.values for case in mark.args[1]}
    assert len(cases) == len(CHECKS)
    model, check = cases[f"{zoo.MODEL_ID}-nothing_is_printed"]
    with pytest.raises(ModelCheckError, match="it printed 'Model loaded'"):
        check(model)
    model, check = cases[f"{zoo.MODEL_ID}-responses_are_finite"]
    check(model)


@pytest.mark.parametrize("model_id", [slow(model_id) for model_id in PUBLISHED])
def test_published_models_pass(model_id, berg_dir):
    results = check_model(model_id, berg_dir)
    assert failures(results) == []
    assert sum(result.outcome == "passed" for result in results) > 70


@pytest.mark.slow
@pytest.mark.parametrize("model_id", sorted(layouts.ZOO))
def test_further_published_models_pass(model_id, zoo_dir):
    results = check_model(model_id, zoo_dir)
    assert failures(results) == []
    assert sum(result.outcome == "passed" for result in results) > 70


@pytest.mark.slow
def test_the_published_model_of_many_subjects_passes(mosaic_dir):
    results = check_model(mosaic.VISUAL, mosaic_dir)
    assert failures(results) == []
    assert sum(result.outcome == "passed" for result in results) > 80


@pytest.mark.slow
def test_the_published_model_of_films_passes(mouse_dir):
    results = check_model(mouse_scans.MODEL, mouse_dir)
    assert failures(results) == []
    assert sum(result.outcome == "passed" for result in results) > 70


@pytest.mark.slow
@pytest.mark.parametrize(("model_id", "fixture"), [(layouts.BMD, "bmd_dir"), (layouts.HUZE, "huze_dir")])
def test_published_models_with_files_of_their_own_pass(model_id, fixture, request):
    results = check_model(model_id, request.getfixturevalue(fixture))
    assert failures(results) == []
    assert sum(result.outcome == "passed" for result in results) > 70


@pytest.mark.slow
@pytest.mark.parametrize("model_id", [language.TUCKUTE, language.LEBEL, language.ZADA, text2fmri.TEXT2FMRI])
def test_the_published_models_of_texts_pass(model_id, language_dir):
    results = check_model(model_id, language_dir)
    assert failures(results) == []
    assert sum(result.outcome == "passed" for result in results) > 70


def test_a_model_whose_card_lies_in_a_berg_directory_is_found_there(tmp_path, monkeypatch):
    write_own_prf(tmp_path)
    monkeypatch.setattr(model_registry, "_stores", {})
    monkeypatch.chdir(tmp_path.parent)
    assert ModelUnderTest(MODEL, tmp_path.name).card.model_id == MODEL


@pytest.mark.slow
def test_the_bars_that_notebooks_show_are_not_counted_as_printed_by_the_model(monkeypatch):
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    built_in = ModelUnderTest("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.6})
    assert CHECKS["nothing_is_printed"].run(built_in).outcome == "passed"
    assert progress.shown_by_default is None
