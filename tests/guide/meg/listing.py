"""The guide's complete listing in our words: its order, its signatures, its way of doing each thing."""

import os
from typing import Any, Dict, Optional  # noqa: UP035

import numpy as np
import torch
import yaml

from berg.core.exceptions import InvalidParameterError, ModelLoadError, StimulusError
from berg.core.model_registry import register_model
from berg.core.parameter_validator import validate_roi, validate_selection_keys, validate_subject
from berg.interfaces.base_model import BaseModelInterface


def load_model_info():
    yaml_path = os.path.join(os.path.dirname(__file__), "..", "model_cards", "meg-guide-listing.yaml")
    with open(os.path.abspath(yaml_path)) as file:
        return yaml.safe_load(file)


model_info = load_model_info()

register_model(
    model_id=model_info["model_id"],
    module_path="berg.models.meg.listing",
    class_name="Listing",
    modality=model_info.get("modality", "meg"),
    training_dataset=model_info.get("training_dataset", "guide"),
    yaml_path=os.path.join(os.path.dirname(__file__), "..", "model_cards", "meg-guide-listing.yaml"),
)


class Listing(BaseModelInterface):
    MODEL_ID = model_info["model_id"]
    VALID_SUBJECTS = model_info["parameters"]["subject"]["valid_values"]
    SELECTION_KEYS = ["roi"]
    VALID_ROIS = ["V1", "V2"]

    def __init__(self, subject: int, selection: Dict, device: str = "auto", berg_dir: Optional[str] = None, **kwargs):  # noqa: UP006, UP045
        self.subject = subject
        self.berg_dir = berg_dir
        self.model = None
        self.selection = selection
        self._validate_parameters()
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = device

    def _validate_parameters(self):
        if self.subject not in self.VALID_SUBJECTS:
            raise InvalidParameterError(f"{self.subject} is none of the subjects {self.VALID_SUBJECTS}")
        if self.selection is not None:
            validate_selection_keys(self.selection, self.SELECTION_KEYS)
            if "roi" in self.selection:
                self.roi = validate_roi(self.selection["roi"], self.VALID_ROIS)
        else:
            raise InvalidParameterError("a selection is needed")

    def load_model(self) -> None:
        try:
            weights_path = os.path.join(
                self.berg_dir, "encoding_models", "modality-meg", "train_dataset-guide", "model-listing",
                "encoding_models_weights", f"weights_sub-{self.subject:02d}_roi-{self.roi}.pt",
            )  # fmt: skip
            weights = torch.load(weights_path, map_location=torch.device(self.device), weights_only=True)
            self.model = torch.nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
            self.model.load_state_dict(weights)
            self.model.to(self.device)
            self.model.eval()
            print(f"subject {self.subject} is ready on {self.device}")
        except Exception as e:
            raise ModelLoadError(f"not loaded: {e!s}")  # noqa: B904

    def generate_response(self, stimulus: np.ndarray, **kwargs) -> np.ndarray:
        if not isinstance(stimulus, np.ndarray) or len(stimulus.shape) != 4:
            raise StimulusError("four axes are needed")
        pixels = stimulus.reshape(len(stimulus), -1).astype("float32") * kwargs.get("scale", 1)
        with torch.no_grad():
            batch_size = 2
            responses = []
            for i in range(0, len(stimulus), batch_size):
                output = self.model(torch.from_numpy(pixels[i : i + batch_size]).to(self.device))
                responses.append(output.cpu().numpy())
            return np.concatenate(responses, axis=0)

    @classmethod
    def get_metadata(cls, berg_dir=None, subject=None, model_instance=None, roi=None, **kwargs) -> Dict[str, Any]:  # noqa: UP006
        if model_instance is not None:
            berg_dir = model_instance.berg_dir
            subject = model_instance.subject
            roi = getattr(model_instance, "roi", roi)
        elif not isinstance(cls, type) and isinstance(cls, BaseModelInterface):
            berg_dir = cls.berg_dir
            subject = cls.subject
            roi = getattr(cls, "roi", roi)
        missing = []
        if berg_dir is None:
            missing.append("berg_dir")
        if subject is None:
            missing.append("subject")
        if roi is None and "VALID_ROIS" in dir(cls):
            missing.append("roi")
        if missing:
            raise InvalidParameterError(f"missing: {', '.join(missing)}")
        validate_subject(subject, cls.VALID_SUBJECTS)
        if roi is not None and hasattr(cls, "VALID_ROIS"):
            validate_roi(roi, cls.VALID_ROIS)
        filename = os.path.join(
            berg_dir, "encoding_models", "modality-meg", "train_dataset-guide", "model-listing",
            "metadata", f"metadata_sub-{subject:02d}" + (f"_roi-{roi}" if roi else "") + ".npy",
        )  # fmt: skip
        if os.path.exists(filename):
            return np.load(filename, allow_pickle=True).item()
        raise FileNotFoundError(f"no metadata at {filename}")

    @classmethod
    def get_model_id(cls) -> str:
        return cls.MODEL_ID

    def cleanup(self) -> None:
        if hasattr(self, "model") and self.model is not None:
            if hasattr(self.model, "to"):
                self.model.to("cpu")
            self.model = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
