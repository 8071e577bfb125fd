"""`berg new`: what it writes is a model as soon as it is filled in."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import yaml

import berg
from berg.cli.app import main
from berg.core import model_registry
from berg.core.exceptions import InvalidParameterError, ModelCardError, RegistrationError
from berg.core.layout import METADATA, WEIGHTS, ModelId
from berg.core.model_card import ModelCard
from berg.models.new_model import families, new_card, write_new_model
from berg.weights.safetensors_files import write_safetensors

FAMILIES = families()
IDS = {family: f"{modality}-mine-{family}" for family in FAMILIES for modality in ("fmri", "eeg")}
MARK = re.compile(r"TODO  # e\.g\. ")


def filled(text: str) -> str:
    """The card with each mark replaced by the example behind it."""
    assert "TODO" in text
    return MARK.sub("", text)


def test_there_are_families() -> None:
    assert {"fwrf", "linearizing", "prf"} <= set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("modality", ["fmri", "eeg", "smell"])
def test_a_new_card_is_a_card_when_its_marks_are_filled_in(family: str, modality: str, tmp_path: Path) -> None:
    model_id = f"{modality}-mine-new"
    (path,) = write_new_model(model_id, family, tmp_path)
    assert path == tmp_path / f"{model_id}.yaml"
    path.write_text(filled(path.read_text()))
    card = ModelCard.read(path)
    assert (card.model_id, card.modality, card.training_dataset, card.family) == (model_id, modality, "mine", family)
    assert "TODO" not in str(card.raw)
    if any(model_registry.get_card(name).family == family for name in model_registry.get_available_models()):
        module = importlib.import_module(family.partition(":")[0] if "." in family else f"berg.families.{family}.model")
        for key in ("features", "readout"):  # as the family will read them
            if hasattr(module, key.capitalize()):
                assert card.part(key, getattr(module, key.capitalize()))


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_that_only_the_author_knows_is_taken_from_another_model(family: str) -> None:
    raw = yaml.safe_load(new_card("fmri-mine-new", family))
    own = [
        raw[key]
        for key in ("species", "stimuli", "model_architecture", "creator", "description", "licence", "citation")
    ]
    own += [output["unit"] for output in raw["outputs"]] + raw["references"]
    own += [
        part["valid_values"] for part in raw["parameters"]["selection"]["properties"].values() if "valid_values" in part
    ]
    own += [raw["parameters"][name]["valid_values"] for name in ("subject",) if name in raw["parameters"]]
    assert len(own) >= 10
    assert set(own) == {"TODO"}
    assert {"store", "length"}.isdisjoint(raw["files"])
    assert not [part for part in raw["select"].values() if "aliases" in part]


def test_a_card_of_the_same_modality_is_the_example() -> None:
    outputs = {
        modality: yaml.safe_load(new_card(f"{modality}-mine-new", "linearizing"))["outputs"]
        for modality in ("eeg", "fmri")
    }
    assert [output["name"] for output in outputs["eeg"]] == ["eeg"]
    assert [output["name"] for output in outputs["fmri"]] == ["lh", "rh"]


def test_what_the_schema_leaves_no_choice_in_is_written() -> None:
    prf, linear = (yaml.safe_load(new_card("fmri-mine-new", family)) for family in ("prf", "linearizing"))
    assert prf["features"] == {"extractor": "contrast_energy"}
    assert prf["readout"] == {"steps": ["gaussian_prf", "compressive_exponent", "amplitude"]}
    assert linear["features"]["n_features"] == "TODO"
    assert "repeats" not in linear["readout"]  # optional


def test_a_family_of_ones_own_has_no_card_yet(tmp_path: Path) -> None:
    own = "berg.families.linearizing.model:LinearizingModel"
    raw = yaml.safe_load(new_card("fmri-mine-new", own))
    assert raw["family"] == own
    assert list(raw["features"]) == list(yaml.safe_load(new_card("fmri-mine-new", "linearizing"))["features"])
    assert raw["features"]["n_features"] == "TODO"


def test_a_card_that_is_not_filled_in_is_refused_where_it_matters() -> None:
    text = filled(new_card("eeg-mine-new", "linearizing"))
    assert ModelCard.parse(text).axes["repetition"].length == 4
    with pytest.raises(ModelCardError, match=r"axes\.repetition\.length.* is 'TODO'"):
        ModelCard.parse(new_card("eeg-mine-new", "linearizing"))


def test_a_description_is_taken_over() -> None:
    text = 'Says: "what" # it is\nand more'
    assert yaml.safe_load(new_card("fmri-mine-new", "prf", text))["description"] == text


@pytest.mark.parametrize(
    ("model_id", "family", "error", "words"),
    [
        ("fmri-mine", "prf", InvalidParameterError, "it has 2 of the 3 parts"),
        ("FMRI-mine-new", "prf", InvalidParameterError, "its modality 'FMRI' does not match"),
        ("fmri-my data-new", None, InvalidParameterError, "its training dataset 'my data' does not match"),
        ("fmri-mine-../new", None, InvalidParameterError, r"its model '../new' does not match"),
        ("fmri-mine-new", "fwrff", InvalidParameterError, "There is no family 'fwrff'. Did you mean 'fwrf'"),
        ("fmri-mine-new", "json.decoder", InvalidParameterError, "There is no family 'json.decoder'"),
        ("fmri-mine-new", "json:JSONDecoder", InvalidParameterError, "There is no family 'json:JSONDecoder'"),
        ("fmri-mine-new", "no_such_package:A", InvalidParameterError, "There is no family 'no_such_package:A'"),
        ("fmri-mine-new", "berg.families.prf.model:A", InvalidParameterError, "There is no family 'berg.families"),
        ("fmri-nsd-fwrf", None, RegistrationError, "There is a model 'fmri-nsd-fwrf' already"),
    ],
)
def test_wrong_words_are_refused_and_nothing_is_written(
    model_id: str, family: str | None, error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        write_new_model(model_id, family, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", ["prf", None])
def test_nothing_is_overwritten(family: str | None, tmp_path: Path) -> None:
    first, *others = write_new_model("meg-mine-new", family, tmp_path)
    for path in others:
        path.unlink()
    first.write_text("mine")
    with pytest.raises(InvalidParameterError, match=rf"{first} is there already. Nothing was written"):
        write_new_model("meg-mine-new", family, tmp_path)
    assert first.read_text() == "mine"
    assert not any(path.exists() for path in others)


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["new"])
    explained = capsys.readouterr().out
    assert all(family in explained for family in FAMILIES)
    assert "--class" in explained
    for options in ([], ["--class", "--family", "prf"]):
        with pytest.raises(SystemExit, match="1"):
            main(["new", "fmri-mine-new", "--out", str(tmp_path), *options])
        assert "berg: Say one of --family and --class." in capsys.readouterr().err
    main(["new", "fmri-mine-new", "--family", "prf", "--out", str(tmp_path), "--description", "Mine."])
    assert capsys.readouterr().out == f"{tmp_path / 'fmri-mine-new.yaml'}\n"
    assert "description: Mine.\n" in (tmp_path / "fmri-mine-new.yaml").read_text()


STIMULI = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 4), dtype="uint8")
WEIGHTS_OF_UNITS = np.random.default_rng(1).normal(size=(3, 48)).astype("float32")
ENCODE = """
    import numpy as np
    from berg import BERG
    from berg.core.model_registry import PROBLEMS, get_registered
    stimuli = np.load("stimuli.npy")
    options = dict(subject=1, selection={{"roi": ["V2", "V1"]}}, device="cpu")
    responses, metadata = BERG("files").encode("{model_id}", stimuli, return_metadata=True, **options)
    np.save("responses.npy", responses)
    assert metadata == {{"roi": ["V1", "V2", "V1"]}} == BERG("files").get_model_metadata("{model_id}", subject=1)
    assert PROBLEMS == {{}}, PROBLEMS
    print(get_registered("{model_id}")["module_path"])
"""


def write_files(folder: Path, model_id: str) -> None:
    """Weights and metadata of a model whose class is as `berg new` wrote it."""
    model = ModelId.parse(model_id).folder(folder / "files")
    for name in (WEIGHTS, METADATA):
        (model / name).mkdir(parents=True)
    write_safetensors(model / WEIGHTS / "weights_subject-01.safetensors", {"weights": WEIGHTS_OF_UNITS})
    (model / METADATA / "metadata_subject-01.json").write_text(json.dumps({"roi": ["V1", "V2", "V1"]}))
    np.save(folder / "stimuli.npy", STIMULI)


def python(folder: Path, code: str, **environment: str) -> str:
    """What a fresh interpreter prints that finds the packages of this folder first."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        cwd=folder, env={"PATH": "", **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def check_responses(folder: Path) -> None:
    expected = STIMULI.reshape(3, -1).astype("float64") @ WEIGHTS_OF_UNITS[[1, 0, 2]].T.astype("float64")
    np.testing.assert_allclose(np.load(folder / "responses.npy"), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("model_id", "module", "class_name"),
    [
        ("fmri-mine-linear", "linear", "LinearModel"),
        ("fmri-mine-2way-b", "model_2way_b", "Model2wayBModel"),
        ("fmri-mine-class", "model_class", "ModelClassModel"),
    ],
)
def test_any_id_gives_names_that_python_takes(model_id: str, module: str, class_name: str, tmp_path: Path) -> None:
    (tmp_path / "berg" / "models" / "model_cards").mkdir(parents=True)
    _, code, *_ = write_new_model(model_id, None, tmp_path)
    assert code == tmp_path / "berg" / "models" / "fmri" / f"{module}.py"
    assert f"class {class_name}(BaseModelInterface)" in code.read_text()
    compile(code.read_text(), code, "exec")


@pytest.mark.slow
def test_a_new_class_in_a_checkout_encodes_when_its_card_is_filled_in(tmp_path: Path) -> None:
    model_id, module = "smell-mine-linear-1.5", "linear_1_5"
    shutil.copytree(Path(berg.__file__).parent, tmp_path / "berg", ignore=shutil.ignore_patterns("__pycache__"))
    card, code, test, *init = write_new_model(model_id, None, tmp_path)
    assert card == tmp_path / "berg" / "models" / "model_cards" / f"{model_id}.yaml"
    assert code == tmp_path / "berg" / "models" / "smell" / f"{module}.py"
    assert test.parent == tmp_path / "tests" / "models"
    assert [path.name for path in init] == ["__init__.py"]  # a new modality
    # It can be imported and is listed before anything is filled in.
    listed = (
        "from berg import BERG; from berg.core.model_registry import PROBLEMS; print(BERG().list_models(), PROBLEMS)"
    )
    before = python(tmp_path, listed)
    assert f"'{model_id}'" in before
    assert before.endswith("] {}")
    card.write_text(filled(card.read_text()))
    write_files(tmp_path, model_id)
    assert python(tmp_path, ENCODE.format(model_id=model_id)) == f"berg.models.smell.{module}"
    check_responses(tmp_path)


def test_a_new_class_elsewhere_is_a_package_that_encodes(tmp_path: Path) -> None:
    model_id = "meg-mine-linear"
    paths = write_new_model(model_id, None, tmp_path)
    root = tmp_path / "berg-meg-mine-linear"
    assert all(path.is_relative_to(root) for path in paths)
    point = re.search(r'entry-points."berg.models"\]\n"(.*)" = "(.*)"', (root / "pyproject.toml").read_text())
    assert point is not None
    assert point.groups() == (model_id, "berg_meg_mine_linear.meg.linear")
    info = root / "src" / "new-1.0.dist-info"  # what an installer leaves
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: new\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[berg.models]\n{point[1]} = {point[2]}\n")
    paths[0].write_text(filled(paths[0].read_text()))
    write_files(root / "src", model_id)
    assert python(root / "src", ENCODE.format(model_id=model_id)) == "berg_meg_mine_linear.meg.linear"
    check_responses(root / "src")
    assert model_id not in model_registry.get_available_models()


@pytest.mark.slow
def test_the_new_test_passes_when_the_model_is_filled_in(tmp_path: Path) -> None:
    model_id = "meg-mine-linear"
    card, code, test, *_ = write_new_model(model_id, None, tmp_path, "Made-up responses of three voxels. " * 4)
    src = card.parents[2]
    card.write_text(filled(card.read_text()).replace("[batch_size, 3, height, width]", "[batch_size, 3, 4, 4]"))
    write_files(src, model_id)
    run = f"import berg_meg_mine_linear.meg.linear, pytest, sys; sys.exit(pytest.main(['-q', {str(test)!r}]))"
    python(src, run, BERG_DIR="files")
    code.write_text(code.read_text().replace("return responses", "return responses[:1]"))
    with pytest.raises(AssertionError, match="first_axis_is_the_stimuli"):
        python(src, run, BERG_DIR="files")
