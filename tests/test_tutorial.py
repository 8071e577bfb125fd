"""What the guide "Adding models to BERG" says, done; the files of its author are in ``tests/guide``."""

import gc
import importlib
import json
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

import berg.models
from berg import BERG
from berg.core import model_registry, parameter_validator
from berg.core.exceptions import InvalidParameterError, MissingFileError, ModelLoadError, StimulusError
from berg.core.layout import METADATA, WEIGHTS, ModelId
from berg.testing import check_model
from berg.weights.safetensors_files import write_safetensors

GUIDE = Path(__file__).parent / "guide"
LISTING, SENSORS = "meg-guide-listing", "meg-guide-sensors"
STIMULI = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype="uint8")
PIXELS = STIMULI.reshape(3, -1).astype("float64")
WEIGHT = np.random.default_rng(1).normal(size=(5, 192)).astype("float32")
BIAS = np.arange(5, dtype="float32")
EXPECTED = PIXELS @ WEIGHT.T.astype("float64") + BIAS
SENSOR_WEIGHTS = np.random.default_rng(2).normal(size=(4, 5, 192)).astype("float32")
FIELD = np.einsum("bp,ctp->bct", PIXELS, SENSOR_WEIGHTS)
METADATA_OF_V1 = {"meg": {"ncsnr": [0.5] * 5}}


@pytest.fixture(scope="module", autouse=True)
def modality():
    """Step 4 of the guide: a new modality folder with its classes, beside it the cards."""
    registered, before = model_registry.MODEL_REGISTRY.copy(), set(sys.modules)
    berg.models.__path__.append(str(GUIDE))
    importlib.invalidate_caches()
    yield
    berg.models.__path__.remove(str(GUIDE))
    for name in [name for name in set(sys.modules) - before if name.startswith("berg.models.meg")]:
        del sys.modules[name]
    for model_id in [name for name in model_registry.MODEL_REGISTRY if name.startswith("meg-guide-")]:
        assert model_id not in registered
        del model_registry.MODEL_REGISTRY[model_id]


def folders(berg_dir, model_id):
    folder = ModelId.parse(model_id).folder(berg_dir)
    for name in (WEIGHTS, METADATA):
        (folder / name).mkdir(parents=True)
    return folder / WEIGHTS, folder / METADATA


@pytest.fixture
def berg_dir(tmp_path):
    """The documented folders, with the files of subject 1."""
    weights, metadata = folders(tmp_path, LISTING)
    torch.save(
        {"weight": torch.from_numpy(WEIGHT), "bias": torch.from_numpy(BIAS)}, weights / "weights_sub-01_roi-V1.pt"
    )
    np.save(metadata / "metadata_sub-01_roi-V1.npy", METADATA_OF_V1, allow_pickle=True)
    weights, metadata = folders(tmp_path, SENSORS)
    write_safetensors(weights / "weights_subject-01.safetensors", {"weights": SENSOR_WEIGHTS})
    (metadata / "metadata_subject-01.json").write_text(json.dumps({"meg": {"times": [0, 1, 2, 3, 4]}}))
    return tmp_path


def load(berg_dir, **parameters):
    return BERG(berg_dir).get_encoding_model(
        LISTING, **{"subject": 1, "selection": {"roi": "V1"}, "device": "cpu"} | parameters
    )


def test_the_imports_of_the_guide_work():
    from berg.core.exceptions import InvalidParameterError, ModelLoadError, StimulusError  # noqa: F401
    from berg.core.model_registry import (  # noqa: F401
        MODEL_REGISTRY,
        get_available_models,
        get_model_class,
        register_model,
    )
    from berg.interfaces.base_model import BaseModelInterface

    documented = "load_model generate_response get_metadata get_model_id get_supported_parameters describe cleanup"
    assert set(documented.split()) <= set(dir(BaseModelInterface))


def test_our_class_uses_every_validator_that_there_is():
    code = (GUIDE / "meg" / "sensors.py").read_text()
    offered = [name for name in vars(parameter_validator) if name.startswith(("validate_", "get_selected"))]
    assert len(offered) == 9
    assert [name for name in offered if f"{name}(" not in code] == ["validate_value"]  # validate_parameters calls it


def test_a_class_after_the_guide_is_listed_and_described(capsys):
    toolkit = BERG()
    assert {LISTING, SENSORS} <= set(toolkit.list_models())
    assert "guide" in toolkit.get_model_catalog()["meg"]
    described = toolkit.describe(LISTING)
    assert described["parameters"]["subject"]["valid_values"] == [1, 2]
    printed = capsys.readouterr().out
    assert "A linear model of made-up data." in printed
    assert "int, required" in printed


def test_a_class_after_the_guide_encodes(berg_dir, capsys):
    toolkit = BERG(berg_dir=berg_dir)
    model = load(berg_dir)
    assert "subject 1 is ready on cpu" in capsys.readouterr().out
    np.testing.assert_allclose(toolkit.encode(model, STIMULI), EXPECTED, rtol=1e-4, atol=1e-2)
    responses, metadata = toolkit.encode(model, STIMULI, return_metadata=True)
    np.testing.assert_allclose(responses, EXPECTED, rtol=1e-4, atol=1e-2)
    assert metadata == METADATA_OF_V1


@pytest.mark.parametrize(
    ("selection", "channels", "times"),
    [
        (None, [0, 1, 2, 3], slice(None)),
        ({"roi": "right"}, [2, 3], slice(None)),
        ({"roi": ["right", "left"]}, [0, 1, 2, 3], slice(None)),
        ({"channels": "R2"}, [3], slice(None)),
        ({"channels": ["R2", "L1"], "timepoints": [0, 1, 0, 1, 0]}, [3, 0], [1, 3]),
        ({"channels": ["R2", "L1"], "roi": "left"}, [0], slice(None)),
        ({"sensors": [0, 1, 1, 0]}, [1, 2], slice(None)),
    ],
)
def test_the_validators_select_what_comes_back(berg_dir, selection, channels, times):
    toolkit = BERG(berg_dir)
    model = toolkit.get_encoding_model(SENSORS, subject=1, selection=selection, device="cpu")
    np.testing.assert_allclose(toolkit.encode(model, STIMULI), FIELD[:, channels][:, :, times], rtol=1e-4, atol=1e-2)
    assert toolkit.get_model_metadata(SENSORS, subject=1) == model.get_metadata() == {"meg": {"times": [0, 1, 2, 3, 4]}}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"subject": 3}, "'subject' of meg-guide-sensors is 3. Allowed: 1, 2"),
        ({}, "meg-guide-sensors needs 'subject'"),
        ({"subject": 1, "subjet": 1}, "meg-guide-sensors has no parameter 'subjet'. Did you mean 'subject'"),
        ({"subject": 1, "selection": {"chanels": "L1"}}, "'chanels' is not a selection key. Did you mean 'channels'"),
        ({"subject": 1, "selection": {"roi": "rigth"}}, "There is no ROI 'rigth'. Did you mean 'right'"),
        ({"subject": 1, "selection": {"channels": "L3"}}, "There is no channel 'L3'"),
        ({"subject": 1, "selection": {"sensors": [1, 0]}}, "'sensors' must be a 0/1 vector of length 4"),
        ({"subject": 1, "selection": {"timepoints": [0, 1, 2, 3, 4]}}, "'timepoints' must hold only 0 and 1"),
        ({"subject": 1, "device": "gpu"}, "device"),
    ],
)
def test_the_validators_refuse_in_words_that_help(berg_dir, parameters, words):
    with pytest.raises(InvalidParameterError, match=words):
        BERG(berg_dir).get_encoding_model(SENSORS, **parameters)


def test_our_class_passes_every_check_of_a_model(berg_dir):
    results = check_model(SENSORS, berg_dir)
    assert len([result for result in results if result.outcome == "passed"]) > 50
    assert [result for result in results if result.outcome == "failed"] == []


def test_missing_files_of_our_class_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"weights_subject-01.safetensors"):
        BERG(tmp_path).get_encoding_model(SENSORS, subject=1, device="cpu")
    with pytest.raises(MissingFileError, match=r"metadata_subject-02.json are not there"):
        BERG(tmp_path).get_model_metadata(SENSORS, subject=2)


def test_a_model_id_takes_the_place_of_a_loaded_model(berg_dir):
    toolkit = BERG(berg_dir)
    responses, metadata = toolkit.encode(
        LISTING, STIMULI, return_metadata=True, subject=1, selection={"roi": "V1"}, device="cpu"
    )
    np.testing.assert_allclose(responses, EXPECTED, rtol=1e-4, atol=1e-2)
    assert metadata == METADATA_OF_V1


def test_what_the_model_is_not_made_of_goes_to_its_generate_response(berg_dir):
    options = {"subject": 1, "selection": {"roi": "V1"}, "device": "cpu"}
    doubled = BERG(berg_dir).encode(LISTING, STIMULI, scale=2, **options)
    np.testing.assert_allclose(doubled, 2 * (EXPECTED - BIAS) + BIAS, rtol=1e-4, atol=1e-2)


def test_metadata_come_from_the_class_and_from_the_instance(berg_dir):
    assert BERG(berg_dir).get_model_metadata(LISTING, subject=1, roi="V1") == METADATA_OF_V1
    model_class = model_registry.get_model_class(LISTING)
    assert model_class.get_metadata(berg_dir=str(berg_dir), subject=1, roi="V1") == METADATA_OF_V1
    model = model_class(1, {"roi": "V1"}, "cpu", str(berg_dir))  # not loaded
    assert model.get_metadata() == METADATA_OF_V1
    assert model_class.get_metadata(model_instance=model) == METADATA_OF_V1


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"subject": 1}, InvalidParameterError, "missing: roi"),
        ({"subject": 3, "roi": "V1"}, InvalidParameterError, "Subject must be one of 1, 2, got 3"),
        ({"subject": 1, "roi": "V3"}, InvalidParameterError, "There is no ROI 'V3'. Did you mean"),
        ({"subject": 2, "roi": "V1"}, FileNotFoundError, "no metadata at .*metadata_sub-02_roi-V1.npy"),
    ],
)
def test_wrong_questions_for_metadata_are_refused(berg_dir, parameters, error, words):
    with pytest.raises(error, match=words):
        BERG(berg_dir).get_model_metadata(LISTING, **parameters)


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"selection": None}, InvalidParameterError, "a selection is needed"),
        ({"subject": 9}, InvalidParameterError, r"9 is none of the subjects \[1, 2\]"),
        ({"selection": {"rio": "V1"}}, InvalidParameterError, "'rio' is not a selection key. Did you mean"),
        ({}, ModelLoadError, "not loaded: .*weights_sub-01_roi-V1.pt"),
    ],
)
def test_wrong_parameters_are_refused(tmp_path, parameters, error, words):
    with pytest.raises(error, match=words):
        load(tmp_path, **parameters)


def test_a_wrong_stimulus_is_refused_in_the_words_of_the_class(berg_dir):
    with pytest.raises(StimulusError, match="four axes are needed"):
        BERG().encode(load(berg_dir), STIMULI[0])


def test_with_cleans_up_and_frees_the_weights(berg_dir):
    with load(berg_dir) as model:
        weights = weakref.ref(model.model)
        assert weights() is not None
    assert model.model is None
    gc.collect()
    assert weights() is None


def test_the_class_describes_itself(capsys):
    model_class = model_registry.get_model_class(LISTING)
    assert model_class.get_model_id() == LISTING
    assert model_class.get_supported_parameters()["subject"]["valid_values"] == [1, 2]
    assert model_class.describe()["model_id"] == LISTING
    by_class = capsys.readouterr().out
    assert LISTING in by_class
    BERG().describe(LISTING)
    assert capsys.readouterr().out == by_class


@pytest.mark.slow
def test_the_steps_of_the_guide_work_in_a_checkout(tmp_path, berg_dir):
    """Folder, card, `__init__`, and the line in ``berg/models/__init__.py``, in a copy of the package."""
    package = tmp_path / "checkout" / "berg"
    shutil.copytree(Path(berg.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(GUIDE / "meg", package / "models" / "meg", ignore=shutil.ignore_patterns("__pycache__"))
    for card in (GUIDE / "model_cards").iterdir():
        shutil.copy(card, package / "models" / "model_cards")
    with (package / "models" / "__init__.py").open("a") as file:
        file.write("\nimport berg.models.meg\n")
    code = (
        "import numpy as np, berg; from berg import BERG; from berg.core.model_registry import PROBLEMS\n"
        f"assert berg.__file__.startswith({str(tmp_path)!r})\n"
        f"responses = BERG({str(berg_dir)!r}).encode('{SENSORS}', np.ones((2, 3, 8, 8), 'uint8'), subject=1)\n"
        "print(responses.shape, PROBLEMS)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, timeout=120)
    assert done.stdout == "(2, 4, 5) {}\n", done.stderr


def test_a_class_of_the_older_kind_is_given_what_it_asks_for(tmp_path, capsys):
    toolkit = BERG(tmp_path)
    with toolkit.get_encoding_model("meg-older-instance", device="cpu", subject=3) as model:
        given = (3, "cpu", None, str(tmp_path))
        assert toolkit.encode(model, STIMULI, show_progress=False) == [given, False]
        assert toolkit.encode(model, STIMULI, return_metadata=True) == ([given, True], {"given": given})
    assert capsys.readouterr().out == "made\nloaded on cpu\ncleaned up\n"


def test_a_class_of_the_older_kind_without_a_card_encodes_by_its_id(tmp_path):
    given = (3, "cpu", {"roi": "V1"}, str(tmp_path))
    found = BERG(tmp_path).encode(
        "meg-older-instance", STIMULI, subject=3, device="cpu", selection={"roi": "V1"}, show_progress=False
    )
    assert found == [given, False]


def test_metadata_that_want_an_instance_say_so(tmp_path):
    with pytest.raises(InvalidParameterError, match=r"meg-older-instance has its metadata only after loading"):
        BERG(tmp_path).get_model_metadata("meg-older-instance", subject=3)


def test_metadata_of_a_class_are_asked_with_what_the_instance_knows(tmp_path):
    toolkit = BERG(tmp_path)
    model = toolkit.get_encoding_model("meg-older-class", subject=3, selection={"roi": "V1"})
    known = {"berg_dir": str(tmp_path), "subject": 3, "roi": "V1"}
    assert toolkit.encode(model, STIMULI, return_metadata=True, batch_size=7) == ([3, 7, True, ()], known)
    assert model.get_metadata(subject=4) == known | {"subject": 4}
    assert model.get_metadata("here", 5) == {"berg_dir": "here", "subject": 5, "roi": "V1"}
    assert model.generate_response(STIMULI, 2, False, "more") == [3, 2, False, ("more",)]
    assert type(model).get_metadata(subject=4) == {"berg_dir": None, "subject": 4, "roi": None}
    assert toolkit.get_model_metadata("meg-older-class", subject=4) == known | {"subject": 4, "roi": None}


def test_what_a_class_is_not_made_of_reaches_its_load_model(tmp_path):
    toolkit = BERG(tmp_path)
    model = toolkit.get_encoding_model("meg-older-late", subject=3, device="cuda:1")
    assert toolkit.encode(model, STIMULI, return_metadata=True) == (("cuda:1", str(tmp_path)), {"subject": 3})
    assert toolkit.get_model_metadata("meg-older-late", subject=3) == {"subject": 3}
    with pytest.raises(InvalidParameterError, match="meg-older-late takes no selection"):
        toolkit.get_encoding_model("meg-older-late", subject=3, selection={"roi": "V1"})


def test_registering_it_again_is_silent_and_another_class_is_refused():
    module = importlib.import_module("berg.models.meg.listing").__name__
    again = {"modality": "meg", "training_dataset": "guide", "yaml_path": None}
    entry = model_registry.MODEL_REGISTRY[LISTING].copy()
    model_registry.register_model(LISTING, module, "Listing", **{**again, "yaml_path": entry["yaml_path"]})
    assert model_registry.MODEL_REGISTRY[LISTING] == entry
    with pytest.raises(model_registry.RegistrationError, match=r"berg.models.meg.listing.Listing.*listing.Second"):
        model_registry.register_model(LISTING, module, "Second", **again)


def test_what_is_no_model_is_not_encoded_with():
    with pytest.raises(
        InvalidParameterError, match=r"encode takes a loaded model or a model id, got int. Try berg.encode"
    ):
        BERG().encode(3, STIMULI)
