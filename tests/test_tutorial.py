"""What the guide "Adding models to BERG" says, done."""

import gc
import importlib
import sys
import weakref

import numpy as np
import pytest
import torch

import berg.models
from berg import BERG
from berg.core import model_registry
from berg.core.exceptions import InvalidParameterError, ModelLoadError, StimulusError

CARD = """\
model_id: meg-made_up-linear
modality: meg
training_dataset: made_up
species: Human
stimuli: Images
model_architecture: linear
creator: your_name
description: |
  A linear model of made-up data.
input:
  type: "numpy.ndarray"
  shape: [batch_size, 3, height, width]
  description: "Pictures"
  constraints:
    - "Integers"
output:
  type: "numpy.ndarray"
  shape: [batch_size, n_voxels]
  description: "Responses"
  dimensions:
    - name: "n_voxels"
      description: "Voxels"
parameters:
  subject:
    type: int
    required: true
    valid_values: [1, 2]
    example: 1
    description: "Subject"
    function: get_encoding_model
  selection:
    type: dict
    required: true
    description: "Which outputs"
    function: get_encoding_model
    properties:
      roi:
        type: str
        description: "Region"
        example: "V1"
performance:
  metrics:
    - name: "r"
      value: "0.5"
      description: "Correlation"
  plots: "URL"
references:
  - "Citation"
"""

# The guide's complete listing: its missing imports added, its placeholders filled.
LISTING = '''
import os
import numpy as np
import torch
import yaml
from typing import Dict, Any, Optional
from berg.interfaces.base_model import BaseModelInterface
from berg.core.model_registry import register_model
from berg.core.exceptions import ModelLoadError, InvalidParameterError, StimulusError
from berg.core.parameter_validator import validate_roi, validate_selection_keys, validate_subject

# Load model info from YAML
def load_model_info():
    yaml_path = os.path.join(os.path.dirname(__file__), "..", "model_cards", "meg-made_up-linear.yaml")
    with open(os.path.abspath(yaml_path), "r") as f:
        return yaml.safe_load(f)

# Load model_info once at the top
model_info = load_model_info()

# Register this model with the registry using model_info
register_model(
    model_id=model_info["model_id"],
    module_path="berg.models.meg.linear",
    class_name="YourModelClass",
    modality=model_info.get("modality", "your_modality"),
    training_dataset=model_info.get("training_dataset", "your_dataset"),
    yaml_path=os.path.join(os.path.dirname(__file__), "..", "model_cards", "meg-made_up-linear.yaml")
)

class YourModelClass(BaseModelInterface):
    """
    Your model description here.
    """
    MODEL_ID = model_info["model_id"]
    # Extract any validation info from model_info
    VALID_SUBJECTS = model_info["parameters"]["subject"]["valid_values"]
    SELECTION_KEYS = ["roi"]
    VALID_ROIS = ["V1", "V2"]

    def __init__(self, subject: int, selection: Dict, device: str = "auto", berg_dir: Optional[str] = None, **kwargs):
        self.subject = subject
        self.berg_dir = berg_dir
        self.model = None
        self.selection = selection
        self._validate_parameters()

        # Select device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = device

    def _validate_parameters(self):
        if self.subject not in self.VALID_SUBJECTS:
            raise InvalidParameterError(
                f"Subject must be one of {self.VALID_SUBJECTS}, got {self.subject}"
            )
        # For selection Paramter if available
        if self.selection is not None:
            # Validate selection keys
            validate_selection_keys(self.selection, self.SELECTION_KEYS)
            # Individual validations (example of ROIs)
            if "roi" in self.selection:
                self.roi = validate_roi(
                    self.selection["roi"], self.VALID_ROIS
                )
        # Ensure selection is provided
        else:
            raise InvalidParameterError("Parameter 'selection' is required but was not provided")

    def load_model(self) -> None:
        try:
            # Build paths to model weights
            weights_path = os.path.join(
                self.berg_dir, "encoding_models", "modality-meg", "train_dataset-made_up", "model-linear",
                "encoding_models_weights", f"weights_sub-{self.subject:02d}_roi-{self.roi}.pt")
            weights = torch.load(weights_path, map_location=torch.device(self.device), weights_only=True)
            self.model = torch.nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
            self.model.load_state_dict(weights)
            self.model.to(self.device)
            self.model.eval()
            print(f"Model loaded on {self.device} for subject {self.subject}")
        except Exception as e:
            raise ModelLoadError(f"Failed to load model: {str(e)}")

    def generate_response(
            self,
            stimulus: np.ndarray,
            **kwargs) -> np.ndarray:
        # Validate stimulus
        if not isinstance(stimulus, np.ndarray) or len(stimulus.shape) != 4:
            raise StimulusError(
                "Stimulus must be a 4D numpy array (batch, channels, height, width)"
            )
        # Preprocess stimulus if needed
        preprocessed_stimulus = stimulus.reshape(len(stimulus), -1).astype("float32") * kwargs.get("scale", 1)
        # Generate in silico responses
        with torch.no_grad():
            batch_size = 100  # Adjust as needed
            responses = []
            for i in range(0, len(stimulus), batch_size):
                batch = torch.from_numpy(preprocessed_stimulus[i:i+batch_size]).to(self.device)
                output = self.model(batch)
                responses.append(output.cpu().numpy())
            all_responses = np.concatenate(responses, axis=0)
            return all_responses

    @classmethod
    def get_metadata(cls, berg_dir=None, subject=None, model_instance=None, roi=None, **kwargs) -> Dict[str, Any]:
        # Extract parameters from instance if available
        if model_instance is not None:
            berg_dir = model_instance.berg_dir
            subject = model_instance.subject
            roi = getattr(model_instance, "roi", roi)
        # Also allow metadata retrieval from class instance
        elif not isinstance(cls, type) and isinstance(cls, BaseModelInterface):
            berg_dir = cls.berg_dir
            subject = cls.subject
            roi = getattr(cls, "roi", roi)

        # Validate required parameters
        missing = []
        if berg_dir is None: missing.append("berg_dir")
        if subject is None: missing.append("subject")
        if roi is None and "VALID_ROIS" in dir(cls): missing.append("roi")
        if missing:
            raise InvalidParameterError(f"Required parameters missing: {', '.join(missing)}")

        # Optional: validate against allowed values
        validate_subject(subject, cls.VALID_SUBJECTS)
        if roi is not None and hasattr(cls, "VALID_ROIS"):
            validate_roi(roi, cls.VALID_ROIS)

        # Build metadata path
        filename = os.path.join(
            berg_dir,
            "encoding_models",
            "modality-meg",
            "train_dataset-made_up",
            "model-linear",
            "metadata",
            f"metadata_sub-{subject:02d}" + (f"_roi-{roi}" if roi else "") + ".npy"
        )
        # Load metadata
        if os.path.exists(filename):
            metadata = np.load(filename, allow_pickle=True).item()
            return metadata
        else:
            raise FileNotFoundError(f"Metadata file not found at: {filename}")

    @classmethod
    def get_model_id(cls) -> str:
        return cls.MODEL_ID

    def cleanup(self) -> None:
        if hasattr(self, 'model') and self.model is not None:
            # Free GPU memory if using CUDA
            if hasattr(self.model, 'to'):
                self.model.to('cpu')
            # Clear references
            self.model = None
            # Force CUDA cache clear if available
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
'''

# Written before the guide: device handed to load_model, no **kwargs, prints.
OLD_CLASS = """
from berg.core.model_registry import register_model
from berg.interfaces.base_model import BaseModelInterface

register_model("meg-made_up-old", "berg.models.meg.old", "Old", "meg", "made_up", None)

class Old(BaseModelInterface):
    def __init__(self, subject, device, selection, berg_dir):
        self.given = (subject, device, selection, berg_dir)
        print("made")

    def load_model(self, device):
        print("loaded on", device)

    def generate_response(self, stimulus, show_progress=True):
        return [self.given, show_progress]

    def get_metadata(self):
        return {"given": self.given}

    @classmethod
    def get_model_id(cls):
        return "meg-made_up-old"

    def cleanup(self):
        print("cleaned up")
"""

MODEL = "meg-made_up-linear"
STIMULI = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 4), dtype="uint8")
WEIGHT = np.random.default_rng(1).normal(size=(5, 48)).astype("float32")
BIAS = np.arange(5, dtype="float32")
EXPECTED = STIMULI.reshape(3, 48).astype("float64") @ WEIGHT.T.astype("float64") + BIAS


@pytest.fixture(scope="module", autouse=True)
def modality(tmp_path_factory):
    """Step 4 of the guide: a new modality folder with its classes, beside it the card."""
    models = tmp_path_factory.mktemp("models")
    (models / "meg").mkdir()
    (models / "meg" / "__init__.py").write_text("import berg.models.meg.linear\n")
    (models / "meg" / "linear.py").write_text(LISTING)
    (models / "meg" / "old.py").write_text(OLD_CLASS)
    (models / "model_cards").mkdir()
    (models / "model_cards" / f"{MODEL}.yaml").write_text(CARD)
    before = set(sys.modules)
    berg.models.__path__.append(str(models))
    importlib.invalidate_caches()
    yield
    berg.models.__path__.remove(str(models))
    for name in [name for name in set(sys.modules) - before if name.startswith("berg.models.meg")]:
        del sys.modules[name]
    for model_id in (MODEL, "meg-made_up-old"):
        del model_registry.MODEL_REGISTRY[model_id]


@pytest.fixture
def berg_dir(tmp_path):
    """The documented folders, with the weights and the metadata of subject 1's V1."""
    folder = tmp_path / "encoding_models" / "modality-meg" / "train_dataset-made_up" / "model-linear"
    for name in ("encoding_models_weights", "encoding_models_accuracy", "metadata"):
        (folder / name).mkdir(parents=True)
    weights = {"weight": torch.from_numpy(WEIGHT), "bias": torch.from_numpy(BIAS)}
    torch.save(weights, folder / "encoding_models_weights" / "weights_sub-01_roi-V1.pt")
    np.save(folder / "metadata" / "metadata_sub-01_roi-V1.npy", {"meg": {"ncsnr": [0.5] * 5}}, allow_pickle=True)
    return tmp_path


def test_the_imports_of_the_guide_work():
    from berg.core.exceptions import InvalidParameterError, ModelLoadError, StimulusError  # noqa: F401
    from berg.core.model_registry import (  # noqa: F401
        MODEL_REGISTRY,
        get_available_models,
        get_model_class,
        register_model,
    )
    from berg.core.parameter_validator import (  # noqa: F401
        get_selected_indices,
        validate_binary_array,
        validate_channels,
        validate_roi,
        validate_selection_keys,
        validate_subject,
        validate_timepoints,
    )
    from berg.interfaces.base_model import BaseModelInterface

    documented = "load_model generate_response get_metadata get_model_id get_supported_parameters describe cleanup"
    assert set(documented.split()) <= set(dir(BaseModelInterface))


def test_a_class_after_the_guide_is_listed_and_described(capsys):
    toolkit = BERG()
    assert MODEL in toolkit.list_models()
    assert toolkit.get_model_catalog()["meg"] == ["made_up"]
    described = toolkit.describe(MODEL)
    assert described["parameters"]["subject"]["valid_values"] == [1, 2]
    printed = capsys.readouterr().out
    assert "A linear model of made-up data." in printed
    assert "int, required" in printed


def test_a_class_after_the_guide_encodes(berg_dir, capsys):
    toolkit = BERG(berg_dir=berg_dir)
    model = toolkit.get_encoding_model(MODEL, subject=1, selection={"roi": "V1"}, device="cpu")
    assert "Model loaded on cpu for subject 1" in capsys.readouterr().out
    np.testing.assert_allclose(toolkit.encode(model, STIMULI), EXPECTED, rtol=1e-4)
    responses, metadata = toolkit.encode(model, STIMULI, return_metadata=True)
    np.testing.assert_allclose(responses, EXPECTED, rtol=1e-4)
    assert metadata == {"meg": {"ncsnr": [0.5] * 5}}


def test_a_model_id_takes_the_place_of_a_loaded_model(berg_dir):
    toolkit = BERG(berg_dir)
    responses, metadata = toolkit.encode(
        MODEL, STIMULI, return_metadata=True, subject=1, selection={"roi": "V1"}, device="cpu"
    )
    np.testing.assert_allclose(responses, EXPECTED, rtol=1e-4)
    assert metadata == {"meg": {"ncsnr": [0.5] * 5}}


def test_what_the_model_is_not_made_of_goes_to_its_generate_response(berg_dir):
    toolkit = BERG(berg_dir)
    options = {"subject": 1, "selection": {"roi": "V1"}, "device": "cpu"}
    doubled = toolkit.encode(MODEL, STIMULI, scale=2, **options)
    np.testing.assert_allclose(doubled, 2 * (EXPECTED - BIAS) + BIAS, rtol=1e-4)


def test_metadata_come_from_the_class_and_from_the_instance(berg_dir):
    toolkit = BERG(berg_dir)
    expected = {"meg": {"ncsnr": [0.5] * 5}}
    assert toolkit.get_model_metadata(MODEL, subject=1, roi="V1") == expected
    model_class = model_registry.get_model_class(MODEL)
    assert model_class.get_metadata(berg_dir=str(berg_dir), subject=1, roi="V1") == expected
    model = model_class(1, {"roi": "V1"}, "cpu", str(berg_dir))  # not loaded
    assert model.get_metadata() == expected
    assert model_class.get_metadata(model_instance=model) == expected


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"subject": 1}, InvalidParameterError, "Required parameters missing: roi"),
        ({"subject": 3, "roi": "V1"}, InvalidParameterError, "Subject must be one of 1, 2, got 3"),
        ({"subject": 1, "roi": "V3"}, InvalidParameterError, "There is no ROI 'V3'. Did you mean"),
        ({"subject": 2, "roi": "V1"}, FileNotFoundError, "Metadata file not found at: .*metadata_sub-02_roi-V1.npy"),
    ],
)
def test_wrong_questions_for_metadata_are_refused(berg_dir, parameters, error, words):
    with pytest.raises(error, match=words):
        BERG(berg_dir).get_model_metadata(MODEL, **parameters)


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"subject": 1}, InvalidParameterError, "'selection' is required"),
        ({"subject": 9, "selection": {"roi": "V1"}}, InvalidParameterError, r"Subject must be one of \[1, 2\], got 9"),
        (
            {"subject": 1, "selection": {"rio": "V1"}},
            InvalidParameterError,
            "'rio' is not a selection key. Did you mean",
        ),
        ({"subject": 1, "selection": {"roi": "V1"}, "device": "cpu"}, ModelLoadError, "Failed to load model"),
    ],
)
def test_wrong_parameters_are_refused(tmp_path, parameters, error, words):
    with pytest.raises(error, match=words):
        BERG(tmp_path).get_encoding_model(MODEL, **parameters)


def test_a_wrong_stimulus_is_refused_in_the_words_of_the_class(berg_dir):
    model = BERG(berg_dir).get_encoding_model(MODEL, subject=1, selection={"roi": "V1"}, device="cpu")
    with pytest.raises(StimulusError, match="Stimulus must be a 4D numpy array"):
        BERG().encode(model, STIMULI[0])


def test_with_cleans_up_and_frees_the_weights(berg_dir):
    with BERG(berg_dir).get_encoding_model(MODEL, subject=1, selection={"roi": "V1"}, device="cpu") as model:
        weights = weakref.ref(model.model)
        assert weights() is not None
    assert model.model is None
    gc.collect()
    assert weights() is None


def test_the_class_describes_itself(capsys):
    model_class = model_registry.get_model_class(MODEL)
    assert model_class.get_model_id() == MODEL
    assert model_class.get_supported_parameters()["subject"]["valid_values"] == [1, 2]
    assert model_class.describe()["model_id"] == MODEL
    assert MODEL in capsys.readouterr().out


def test_a_class_of_the_older_kind_is_given_what_it_asks_for(tmp_path, capsys):
    toolkit = BERG(tmp_path)
    with toolkit.get_encoding_model("meg-made_up-old", device="cpu", subject=3) as model:
        given = (3, "cpu", None, str(tmp_path))
        assert toolkit.encode(model, STIMULI, show_progress=False) == [given, False]
        assert toolkit.encode(model, STIMULI, return_metadata=True) == ([given, True], {"given": given})
    assert capsys.readouterr().out == "made\nloaded on cpu\ncleaned up\n"


def test_a_class_of_the_older_kind_without_a_card_encodes_by_its_id(tmp_path):
    given = (3, "cpu", {"roi": "V1"}, str(tmp_path))
    found = BERG(tmp_path).encode(
        "meg-made_up-old", STIMULI, subject=3, device="cpu", selection={"roi": "V1"}, show_progress=False
    )
    assert found == [given, False]


def test_registering_it_again_is_silent_and_another_class_is_refused():
    linear = importlib.import_module("berg.models.meg.linear")
    again = {"modality": "meg", "training_dataset": "made_up", "yaml_path": None}
    entry = model_registry.MODEL_REGISTRY[MODEL].copy()
    model_registry.register_model(
        MODEL, linear.__name__, "YourModelClass", **{**again, "yaml_path": entry["yaml_path"]}
    )
    assert model_registry.MODEL_REGISTRY[MODEL] == entry
    with pytest.raises(model_registry.RegistrationError, match=r"berg.models.meg.linear.YourModelClass.*linear.Second"):
        model_registry.register_model(MODEL, linear.__name__, "Second", **again)


def test_what_is_no_model_is_not_encoded_with():
    with pytest.raises(
        InvalidParameterError, match=r"encode takes a loaded model or a model id, got int. Try berg.encode"
    ):
        BERG().encode(3, STIMULI)
