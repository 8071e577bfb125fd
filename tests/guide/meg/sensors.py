# berg/models/meg/sensors.py
import json
from pathlib import Path

import numpy as np
import torch

from berg.core.exceptions import MissingFileError, ModelNotLoadedError
from berg.core.layout import METADATA, WEIGHTS, ModelId
from berg.core.model_card import ModelCard
from berg.core.model_registry import register_model
from berg.core.parameter_validator import (
    get_selected_indices,
    validate_binary_array,
    validate_channels,
    validate_parameters,
    validate_roi,
    validate_selection_keys,
    validate_subject,
    validate_timepoints,
)
from berg.interfaces.base_model import BaseModelInterface
from berg.models.device import resolve_device
from berg.stimuli.checks import as_expected, check_stimulus
from berg.weights.safetensors_files import read_safetensors

card = ModelCard.read(Path(__file__).parents[1] / "model_cards" / "meg-guide-sensors.yaml")
keys = card.parameters["selection"].properties
BATCH_SIZE = 100

register_model(
    model_id=card.model_id,
    module_path=__name__,
    class_name="SensorModel",
    modality=card.modality,
    training_dataset=card.training_dataset,
    yaml_path=card.path,
)


class SensorModel(BaseModelInterface):
    """The pixels of a picture, times one matrix: responses of MEG sensors, in fT."""

    VALID_SUBJECTS = card.parameters["subject"].allowed
    VALID_ROIS = keys["roi"].allowed
    VALID_CHANNELS = keys["channels"].allowed
    N_TIMEPOINTS = 5

    def __init__(self, selection=None, device="auto", berg_dir=None, **parameters):
        self.subject = validate_parameters(card, parameters)["subject"]
        self.selection = validate_selection_keys({} if selection is None else selection, keys)
        self.device = resolve_device(device)
        self.berg_dir = berg_dir
        self.model = None
        self.channels = self._select_channels()
        timepoints = self.selection.get("timepoints", np.ones(self.N_TIMEPOINTS))
        timepoints = validate_timepoints(timepoints, self.N_TIMEPOINTS)
        self.timepoints = get_selected_indices(timepoints)

    def _select_channels(self):
        keep = list(self.VALID_CHANNELS)
        if "roi" in self.selection:
            sides = np.atleast_1d(validate_roi(self.selection["roi"], self.VALID_ROIS))
            keep = [name for name in keep for side in sides if name[0] == side[0].upper()]
        if "channels" in self.selection:
            names = np.atleast_1d(validate_channels(self.selection["channels"], self.VALID_CHANNELS))
            keep = [name for name in names if name in keep]
        if "sensors" in self.selection:
            mask = validate_binary_array(self.selection["sensors"], len(self.VALID_CHANNELS), "sensors")
            keep = [name for name in keep if mask[self.VALID_CHANNELS.index(name)]]
        return [self.VALID_CHANNELS.index(name) for name in keep]

    def load_model(self):
        path = model_folder(self.berg_dir) / WEIGHTS / f"weights_subject-{self.subject:02d}.safetensors"
        weights = read_safetensors(path)["weights"]  # (n_channels, n_timepoints, n_pixels)
        selected = weights[np.ix_(self.channels, self.timepoints)]
        self.model = torch.from_numpy(selected).to(self.device)

    def generate_response(self, stimulus):
        if self.model is None:
            raise ModelNotLoadedError("Call model.load_model() first.")
        stimulus = check_stimulus(stimulus, card.input)  # its shape, dtype and range
        responses = np.empty((len(stimulus), *self.model.shape[:2]), "float32")
        for start in range(0, len(stimulus), BATCH_SIZE):
            places = slice(start, start + BATCH_SIZE)
            pixels = torch.from_numpy(as_expected(stimulus[places], card.input)).to(self.device).float().flatten(1)
            responses[places] = torch.einsum("bp,ctp->bct", pixels, self.model).cpu().numpy()
        return responses

    @classmethod
    def get_metadata(cls, berg_dir=None, subject=None, model_instance=None):
        if model_instance is not None:
            berg_dir, subject = model_instance.berg_dir, model_instance.subject
        validate_subject(subject, cls.VALID_SUBJECTS)
        path = model_folder(berg_dir) / METADATA / f"metadata_subject-{subject:02d}.json"
        if not path.is_file():
            raise MissingFileError(f"The metadata {path} are not there.")
        return json.loads(path.read_text(encoding="utf-8"))

    @classmethod
    def get_model_id(cls):
        return card.model_id

    def cleanup(self):
        self.model = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def model_folder(berg_dir):
    return ModelId.parse(card.model_id).folder(berg_dir)
