import json
import logging
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import berg.models
from berg.core import model_registry
from berg.core.exceptions import ModelCardError, ModelNotFoundError, RegistrationError
from berg.core.model_registry import (
    MODEL_REGISTRY,
    get_available_models,
    get_card,
    get_model_class,
    register_cards,
    register_model,
)

BUILT_IN = Path(berg.models.__file__).parent / "model_cards" / "fmri-szinte2024-prf_css.yaml"
ENTRY = {"modality": "eeg", "training_dataset": "mine"}


pytestmark = pytest.mark.usefixtures("own_registry")


def card_text(model_id, family="prf"):
    text = BUILT_IN.read_text().replace("fmri-szinte2024-prf_css", model_id).replace("family: prf", f"family: {family}")
    return text.replace("training_dataset: szinte2024", f"training_dataset: {model_id.split('-')[1]}")


def hand_card(folder, model_id):
    path = folder / f"{model_id}.yaml"
    modality, dataset, _ = model_id.split("-")
    path.write_text(f"model_id: {model_id}\nmodality: {modality}\ntraining_dataset: {dataset}\n")
    return path


def test_the_ids_are_sorted_and_hold_the_built_in_model():
    register_model("zzz-b-c", "json", "JSONDecoder", "zzz", "b")
    register_model("aaa-b-c", "json", "JSONDecoder", "aaa", "b")
    ids = get_available_models()
    assert ids == sorted(ids)
    assert {"aaa-b-c", "fmri-szinte2024-prf_css", "zzz-b-c"} <= set(ids)


def test_the_same_class_again_is_silent(recwarn, caplog):
    for _ in range(2):
        register_model("eeg-mine-a", "package.module", "Model", **ENTRY)
    assert not list(recwarn)
    assert not caplog.records
    assert MODEL_REGISTRY["eeg-mine-a"]["class_name"] == "Model"


@pytest.mark.parametrize(("module", "name"), [("package.module", "Other"), ("package.other", "Model")])
def test_another_class_under_a_taken_id_is_refused_and_both_are_named(module, name):
    register_model("eeg-mine-a", "package.module", "Model", **ENTRY)
    with pytest.raises(RegistrationError) as caught:
        register_model("eeg-mine-a", module, name, **ENTRY)
    for words in ("'eeg-mine-a' is taken by package.module.Model", f"{module}.{name} cannot have it too", "another id"):
        assert words in str(caught.value)
    assert MODEL_REGISTRY["eeg-mine-a"]["module_path"] == "package.module"
    assert MODEL_REGISTRY["eeg-mine-a"]["class_name"] == "Model"


def test_the_id_of_a_built_in_model_cannot_be_taken():
    with pytest.raises(RegistrationError, match=r"'fmri-szinte2024-prf_css' is taken by berg.families.prf.model"):
        register_model("fmri-szinte2024-prf_css", "package.module", "Model", **ENTRY)


def test_one_id_in_two_cards_is_refused_and_both_cards_are_named(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        (folder / "fmri-twice-prf.yaml").write_text(card_text("fmri-twice-prf"))
        register_cards(folder)
    problem = model_registry.PROBLEMS[str(folders[1] / "fmri-twice-prf.yaml")]
    assert (
        f"taken by the card {folders[0] / 'fmri-twice-prf.yaml'}; the card {folders[1] / 'fmri-twice-prf.yaml'}"
        in problem
    )
    assert MODEL_REGISTRY["fmri-twice-prf"]["yaml_path"] == str(folders[0] / "fmri-twice-prf.yaml")


def test_the_same_card_by_another_spelling_of_its_path_is_silent(tmp_path):
    (tmp_path / "fmri-once-prf.yaml").write_text(card_text("fmri-once-prf"))
    (tmp_path / "sub").mkdir()
    register_cards(tmp_path)
    register_cards(tmp_path / "sub" / "..")
    assert not [name for name in model_registry.PROBLEMS if "fmri-once-prf" in name]
    assert "fmri-once-prf" in MODEL_REGISTRY


def test_an_id_that_is_no_text_is_refused():
    with pytest.raises(RegistrationError, match=r"A model id is text, got 3 \(package.module.Model\)"):
        register_model(3, "package.module", "Model", **ENTRY)
    assert get_available_models()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            "fmri-szinte2024-prf_cs",
            "There is no model 'fmri-szinte2024-prf_cs'. Did you mean 'fmri-szinte2024-prf_css'",
        ),
        (
            "entirely else",
            r"There is no model 'entirely else'. Models: .*eeg-things_eeg_2-vit_b_32.*berg list shows them",
        ),
        (None, "There is no model 'None'"),
    ],
)
def test_an_unknown_id_is_refused_with_the_nearest(asked, words):
    with pytest.raises(ModelNotFoundError, match=words):
        get_card(asked)
    with pytest.raises(KeyError):
        get_model_class(asked)


def test_a_model_without_a_card_says_so():
    register_model("eeg-mine-a", "package.module", "Model", **ENTRY)
    with pytest.raises(ModelCardError, match=r"'eeg-mine-a' was registered without a card \(yaml_path\)"):
        get_card("eeg-mine-a")


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        (
            "no_such_package.module",
            "Model",
            "'eeg-mine-a' is registered as no_such_package.module.Model, which cannot be",
        ),
        ("json", "JSONEncodr", "json has no class 'JSONEncodr'. Did you mean 'JSONEncoder'?"),
        ("json", "dumps", "json has no class 'dumps'"),
        ("json", None, "The family json must define one encoding model, and defines 0"),
    ],
)
def test_a_class_that_cannot_be_had_says_why(module, name, words):
    register_model("eeg-mine-a", module, name, **ENTRY)
    with pytest.raises(RegistrationError, match=words.replace("'?", r"'\?")):
        get_model_class("eeg-mine-a")


def test_a_class_written_by_hand_comes_back_as_it_is(tmp_path):
    card = hand_card(tmp_path, "eeg-mine-a")
    register_model("eeg-mine-a", "json", "JSONDecoder", **ENTRY, yaml_path=card)
    assert get_model_class("eeg-mine-a") is json.JSONDecoder
    assert get_card("eeg-mine-a").training_dataset == "mine"


def test_a_family_outside_the_package_is_bound_to_its_card(tmp_path, monkeypatch):
    (tmp_path / "their_family.py").write_text(
        "class Mine:\n    @classmethod\n    def bind(cls, card):\n"
        "        return type('Bound', (cls,), {'card': card})\n"
        "class Base:\n    bind = None\n"
    )
    (tmp_path / "fmri-theirs-one.yaml").write_text(card_text("fmri-theirs-one", "their_family:Mine"))
    monkeypatch.syspath_prepend(tmp_path)
    register_cards(tmp_path)
    bound = get_model_class("fmri-theirs-one")
    assert bound.card.model_id == "fmri-theirs-one"
    assert bound.__mro__[1].__name__ == "Mine"


def test_a_family_module_with_two_models_asks_for_the_class(tmp_path, monkeypatch):
    (tmp_path / "two_families.py").write_text("class A:\n    bind = None\nclass B:\n    bind = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    register_model("eeg-mine-a", "two_families", None, **ENTRY)
    with pytest.raises(
        RegistrationError, match=r"must define one encoding model, and defines 2. Name the class in the ca"
    ):
        get_model_class("eeg-mine-a")


def test_a_card_without_class_and_family_is_a_problem(tmp_path):
    path = hand_card(tmp_path, "eeg-mine-orphan")
    register_cards(tmp_path)
    assert "eeg-mine-orphan" not in get_available_models()
    problem = model_registry.PROBLEMS[str(path)]
    assert problem == f"{path}: no class registered itself as 'eeg-mine-orphan', and the card names no family."
    with pytest.raises(
        ModelNotFoundError, match=r"'eeg-mine-orphan' is there but cannot be used: .* no class registered"
    ):
        get_card("eeg-mine-orphan")


def test_broken_cards_of_the_same_name_are_all_listed(tmp_path):
    cards = [tmp_path / folder / "fmri-a-b.yaml" for folder in ("one", "two")]
    for path in cards:
        path.parent.mkdir()
        path.write_text("[")
        register_cards(path.parent)
    assert all(model_registry.PROBLEMS[str(path)].startswith(str(path)) for path in cards)


def test_a_broken_card_is_logged(tmp_path, caplog):
    (tmp_path / "fmri-a-b.yaml").write_text("[")
    with caplog.at_level(logging.WARNING, "berg"):
        register_cards(tmp_path)
    assert "fmri-a-b.yaml is left out" in caplog.text


# The rest needs a fresh interpreter: what is discovered stays discovered.
def ask(code: str, *paths: Path) -> dict:
    """What a fresh interpreter with these places on its path says about models and problems."""
    report = """
        import json, sys
        from berg.core import model_registry
        ids = model_registry.get_available_models()
        again = model_registry.get_available_models()
        print(json.dumps({"ids": ids, "same": ids == again, "problems": model_registry.PROBLEMS}))
    """
    program = f"import sys; sys.path[:0] = {[str(path) for path in paths]}\n" + dedent(code) + dedent(report)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def plug_in(folder: Path, name: str, points: str, **files: str) -> Path:
    """A tiny installed distribution: its files, and the record that an installer leaves."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[berg.models]\n{points}\n")
    for file, text in files.items():
        path = folder / file.replace("__", "/", 1)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


BROKEN = {
    "an import that fails": ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
    "an error": ("1 / 0", "ZeroDivisionError: division by zero"),
    "no Python": ("def (", "SyntaxError"),
    "an exit": ("import sys; sys.exit('usage: ...')", "SystemExit: usage: ..."),
    "a warning turned into an error": (
        "import warnings; warnings.simplefilter('error'); warnings.warn('old')", "UserWarning: old",
    ),
    "an id that is taken": (
        "from berg.core.model_registry import register_model\n"
        "register_model('fmri-szinte2024-prf_css', 'broken', 'Mine', 'fmri', 'szinte2024')",
        "RegistrationError: The model id 'fmri-szinte2024-prf_css' is taken by berg.families.prf.model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_plug_in_that_fails_is_listed_and_breaks_nothing(fault, tmp_path):
    text, words = BROKEN[fault]
    register = (
        "from berg.core.model_registry import register_model\nregister_model('eeg-good-a', 'good', 'M', 'eeg', 'a')"
    )
    plug_in(tmp_path, "broken", "theirs = broken", **{"broken.py": text})
    plug_in(tmp_path, "good", "good = good", **{"good.py": register})
    found = ask("", tmp_path)
    assert found["same"]
    assert {"eeg-good-a", "fmri-szinte2024-prf_css"} <= set(found["ids"])
    assert words in found["problems"]["theirs (broken)"]
    assert found["problems"]["theirs (broken)"].startswith("theirs (broken) cannot be imported: ")


def test_an_entry_point_that_names_nothing_is_listed(tmp_path):
    plug_in(tmp_path, "empty", "theirs = json:no_such_name\nother = not a module")
    problems = ask("", tmp_path)["problems"]
    assert "no_such_name" in problems["theirs (json:no_such_name)"]
    assert "other (not a module)" in problems


def test_a_plug_in_brings_cards_without_any_code(tmp_path):
    plug_in(
        tmp_path, "cards", "cards = their_cards",
        **{
            "their_cards__fmri-theirs-one.yaml": card_text("fmri-theirs-one"),
            "their_cards__fmri-theirs-broken.yaml": "model_id: fmri-theirs-broken\n",
        },
    )  # fmt: skip
    (tmp_path / "their_cards" / "model_cards").mkdir()
    (tmp_path / "their_cards" / "model_cards" / "fmri-theirs-two.yaml").write_text(card_text("fmri-theirs-two"))
    (tmp_path / "their_cards" / "__init__.py").touch()
    found = ask("", tmp_path)
    assert {"fmri-theirs-one", "fmri-theirs-two", "fmri-szinte2024-prf_css"} <= set(found["ids"])
    assert "key 'modality' is missing" in found["problems"][str(tmp_path / "their_cards" / "fmri-theirs-broken.yaml")]


MODALITY = """
    import berg.models
    berg.models.__path__.append({folder!r})
"""


def test_a_broken_module_in_a_modality_folder_breaks_nothing(tmp_path):
    folder = tmp_path / "meg"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "broken.py").write_text("raise RuntimeError('half written')")
    (folder / "good.py").write_text(
        "from berg.core.model_registry import register_model\nregister_model('meg-a-b', __name__, 'Model', 'meg', 'a')"
    )
    found = ask(MODALITY.format(folder=str(tmp_path)))
    assert {"meg-a-b", "fmri-szinte2024-prf_css"} <= set(found["ids"])
    assert found["problems"]["berg.models.meg.broken"].endswith("cannot be imported: RuntimeError: half written")


def test_a_modality_folder_needs_no_init(tmp_path):
    (tmp_path / "meg").mkdir()
    (tmp_path / "meg" / "good.py").write_text(
        "from berg.core.model_registry import register_model\nregister_model('meg-a-b', __name__, 'Model', 'meg', 'a')"
    )
    (tmp_path / "no modality").mkdir()
    found = ask(MODALITY.format(folder=str(tmp_path)))
    assert "meg-a-b" in found["ids"]
    assert found["problems"] == {}


def test_a_broken_modality_folder_breaks_nothing(tmp_path):
    (tmp_path / "meg").mkdir()
    (tmp_path / "meg" / "__init__.py").write_text("import berg.models.meg.no_such_module")
    found = ask(MODALITY.format(folder=str(tmp_path)))
    assert "fmri-szinte2024-prf_css" in found["ids"]
    assert "No module named 'berg.models.meg.no_such_module'" in found["problems"]["berg.models.meg"]
