"""A good model, and many that have one fault each.

`Grid` is written by hand: pictures -> mean of each colour on a 4 x 4 grid -> linear readout -> six channels at
five times. Every fault names the check that must find it.
"""

from __future__ import annotations

import os
import random
import socket
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from berg.core.exceptions import InvalidParameterError, ModelNotLoadedError, StimulusError
from berg.core.layout import ModelId
from berg.core.model_registry import get_card
from berg.core.parameter_validator import validate_parameters
from berg.core.selection import check_selection, resolve_selection
from berg.interfaces.base_model import BaseModelInterface
from berg.models.device import resolve_device
from berg.stimuli.checks import check_stimulus
from berg.system.file_hash import hash_file
from berg.weights import manifest, model_files
from berg.weights.pt_files import read_pt
from berg.weights.safetensors_files import read_safetensors, write_safetensors
from berg.weights.sample import Sample, write_sample

MODEL_ID = "meg-zoo-grid"
CHANNELS, TIMES = ["A", "B", "C", "D", "E", "F"], [0.1, 0.2, 0.3, 0.4, 0.5]
ROIS = {"left": [4, 1], "right": [1, 5, 2]}

CARD = """\
model_id: meg-zoo-grid
modality: meg
training_dataset: zoo
species: Human
stimuli: Images
model_architecture: linear readout of a grid
creator: The keeper
description: |
  Responses of six made-up channels at five times to a picture, from the mean of each colour in sixteen
  fields of the picture.
input:
  shape: [batch_size, 3, height, width]
  dtype: uint8
  range: [0, 255]
  description: Pictures.
output:
  shape: [batch_size, n_channels, n_times]
  description: Field strengths.
outputs:
  - {name: meg, axes: [stimulus, channel, time], unit: fT}
axes:
  channel: {coordinates: {channel: meg.channels}}
  time: {coordinates: {time: meg.times}}
parameters:
  subject: {type: int, required: true, valid_values: [1, 2], example: 1, description: The subject.}
  gain: {type: float, default: 1.0, minimum: 0.5, maximum: 2, example: 1.5, description: Scale of the responses.}
  selection:
    type: dict
    required: false
    description: Which channels and times.
    properties:
      channels: {type: str or list, valid_values: [A, B, C, D, E, F], example: [A, C], description: Channels.}
      roi: {type: str or list, valid_values: [left, right], example: left, description: Sides.}
      times: {type: numpy.ndarray, example: [0, 1, 0, 0, 1], description: A 0/1 vector.}
  device: {type: str, default: auto, example: cpu, description: Where it runs.}
select:
  channels: {kind: name, axis: channel, metadata: meg.channels}
  roi: {kind: roi, axis: channel, metadata: meg.rois}
  times: {kind: mask, axis: time}
files: {weights: "weights_subject-{subject:02d}", metadata: "metadata_subject-{subject:02d}"}
performance:
  metrics:
    - {name: r, value: 0.5, description: On made-up data.}
references: [Nobody (2020).]
licence: CC0-1.0
citation: Nobody (2020).
"""


class Grid(BaseModelInterface):
    """The good model; the faults override its small methods."""

    def __init__(self, selection: Any = None, device: Any = "auto", berg_dir: Any = None, **parameters: Any) -> None:
        self.parameters = self.checked_parameters(parameters)
        self.selection = self.checked_selection(selection)
        self.device = self.chosen_device(device)
        self.berg_dir = berg_dir
        self.metadata = self.read_metadata(berg_dir, self.parameters)
        self.units = self.resolved(self.selection)
        self.readout: Any = None

    def checked_parameters(self, given: Any) -> Any:
        return validate_parameters(get_card(MODEL_ID), given)

    def checked_selection(self, selection: Any) -> Any:
        return check_selection(get_card(MODEL_ID), selection)

    def chosen_device(self, device: Any) -> Any:
        return resolve_device(device)

    @classmethod
    def read_metadata(cls, berg_dir: Any, parameters: Any) -> Any:
        return model_files.read_metadata(model_files.metadata_path(get_card(MODEL_ID), berg_dir, parameters))

    def resolved(self, selection: Any) -> Any:
        units = resolve_selection(get_card(MODEL_ID), selection, self.metadata)
        return units["meg", "channel"], units["meg", "time"]

    def read_weights(self) -> Any:
        path = model_files.weights_path(get_card(MODEL_ID), self.berg_dir, self.parameters)
        return torch.from_numpy(read_safetensors(path)["weight"])

    def load_model(self) -> None:
        weight = self.read_weights()
        weight = weight[self.units[0]][:, self.units[1]].flatten(0, 1)
        self.readout = torch.nn.Linear(48, len(weight), bias=False, device="meta")
        self.readout.load_state_dict({"weight": weight}, assign=True)
        self.readout.requires_grad_(False)

    def checked(self, stimulus: Any) -> Any:
        return check_stimulus(stimulus, get_card(MODEL_ID).input)

    def generate_response(self, stimulus: Any, batch_size: Any = 16) -> Any:
        if self.readout is None:
            raise ModelNotLoadedError("It is not loaded. Call load_model() first.")
        pictures, size = self.checked(stimulus), self.checked_size(batch_size)
        batches = [pictures[start : start + size] for start in range(0, len(pictures), size)]
        return self.finished(np.concatenate([self.encode(batch) for batch in batches]))

    def checked_size(self, batch_size: Any) -> Any:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InvalidParameterError(f"batch_size is {batch_size!r}; give a whole number from 1.")
        return batch_size

    def encode(self, batch: Any) -> Any:
        return self.respond(self.as_tensor(batch)).numpy()

    def as_tensor(self, batch: Any) -> Any:
        return torch.from_numpy(np.array(batch, "float32", order="C"))

    def respond(self, pictures: Any) -> Any:
        colours = torch.nn.functional.adaptive_avg_pool2d(pictures / 255, 4).flatten(1)
        return self.parameters["gain"] * self.readout(colours).unflatten(1, [len(part) for part in self.units])

    def finished(self, responses: Any) -> Any:
        return responses

    def predict(self, pictures: Any) -> Any:
        return self.respond(pictures)

    @classmethod
    def get_metadata(cls, berg_dir: Any = None, model_instance: Any = None, selection: Any = None, **given: Any) -> Any:
        if model_instance is not None:
            return model_instance.metadata
        return cls.read_metadata(berg_dir, validate_parameters(get_card(MODEL_ID), given))

    @classmethod
    def get_model_id(cls) -> str:
        return MODEL_ID

    def cleanup(self) -> None:
        self.readout = None


def write_files(berg_dir: Path) -> Path:
    """Weights, metadata, sample and manifest of subject 1; returns the model's folder."""
    import json

    folder = ModelId.parse(MODEL_ID).folder(berg_dir)
    weights, metadata = folder / "encoding_models_weights", folder / "metadata"
    weights.mkdir(parents=True)
    metadata.mkdir()
    draw = np.random.default_rng(0)
    weight = draw.normal(size=(6, 5, 48)).astype("float32")
    write_safetensors(weights / "weights_subject-01.safetensors", {"weight": weight})
    described = {"meg": {"channels": CHANNELS, "times": TIMES, "rois": ROIS}}
    (metadata / "metadata_subject-01.json").write_text(json.dumps(described))
    pictures = draw.integers(0, 256, (2, 3, 4, 4), dtype="uint8")  # each field is one pixel
    responses = np.einsum("ctf,nf->nct", weight.astype(float), pictures.reshape(2, 48) / 255)[:, [2, 0]]
    sample = Sample(
        metadata / "sample_subject-01.safetensors",
        pictures,
        [responses.astype("float32")],
        {"subject": 1},
        {"channels": ["C", "A"]},
    )
    write_sample(sample)
    write_manifest(folder)
    return folder


def write_manifest(folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != manifest.NAME]
    entries = [
        manifest.Entry(path.relative_to(folder).as_posix(), path.stat().st_size, hash_file(path)) for path in files
    ]
    manifest.write_manifest(folder / manifest.NAME, entries)


# Faults of the card: check -> what is replaced in it, by what

CARD_FAULTS: list[tuple[str, str, str]] = [
    ("card_is_valid", "modality: meg\n", ""),
    ("card_is_valid", "species: Human", "species: [Human"),
    ("card_has_no_unknown_keys", "species: Human", "species: Human\nspeceis: Human"),
    ("card_says_what_the_model_is", "species: Human\n", ""),
    ("card_says_what_the_model_is", "creator: The keeper", "creator: ' '"),
    ("card_describes_the_model", "at five times to a picture, from the mean of each colour in sixteen", ""),
    ("card_says_what_the_model_takes", "  dtype: uint8\n", ""),
    ("card_says_what_the_model_takes", "  description: Pictures.\n", ""),
    ("card_says_what_the_model_returns", "  description: Field strengths.\n", ""),
    ("card_names_the_axes", "outputs:\n  - {name: meg, axes: [stimulus, channel, time], unit: fT}\n", ""),
    ("card_agrees_about_the_axes", "n_channels, n_times]", "n_channels]"),
    ("parameters_are_described", ", description: The subject.", ""),
    ("parameters_are_described", "times: {type: numpy.ndarray, ", "times: {"),
    ("required_parameters_have_an_example", "valid_values: [1, 2], example: 1, ", ""),
    ("examples_are_valid", "valid_values: [1, 2], example: 1", "valid_values: [1, 2], example: 3"),
    ("examples_are_valid", "default: 1.0", "default: 5.0"),
    ("input_range_fits_its_dtype", "range: [0, 255]", "range: [0, 256]"),
    ("card_has_references", "references: [Nobody (2020).]", "references: []"),
    ("card_states_a_licence", "licence: CC0-1.0\n", ""),
    ("card_states_a_citation", "citation: Nobody (2020).\n", ""),
    ("nothing_is_left_to_do", "licence: CC0-1.0", "licence: TODO"),
    ("nothing_is_left_to_do", "Channels.", "TODO which"),
    ("names_agree", "modality: meg", "modality: eeg"),
    ("names_agree", "training_dataset: zoo", "training_dataset: other"),
    ("card_states_a_performance", "    - {name: r, value: 0.5, description: On made-up data.}", "    []"),
    ("performance_is_in_figures", "value: 0.5", "value: good"),
    ("valid_values_are_taken", "[left, right]", "[left, right, top]"),
    ("every_selection_key_is_taken", "example: left", "example: top"),
]  # fmt: skip

# Faults of the files: check -> what is done to the model's folder


def stray(folder: Path) -> None:
    (folder / "encoding_models_weights" / "final_v2.npy").touch()


def no_weights(folder: Path) -> None:
    (folder / "encoding_models_weights" / "weights_subject-01.safetensors").unlink()


def no_manifest(folder: Path) -> None:
    (folder / "manifest.tsv").unlink()


def changed_file(folder: Path) -> None:
    path = folder / "metadata" / "metadata_subject-01.json"
    path.write_text(path.read_text().replace("0.5", "0.6"))


def other_sample(folder: Path) -> None:
    path = folder / "metadata" / "sample_subject-01.safetensors"
    found = read_safetensors(path)
    given = {"channels": ["A", "C"]}
    write_sample(Sample(path, found["stimulus"], [found["responses.0"]], {"subject": 1}, given))


FILE_FAULTS: list[tuple[str, Any]] = [
    ("no_other_files_lie_among_the_weights", stray),
    ("model_runs", no_weights),
    ("files_have_a_manifest", no_manifest),
    ("files_are_those_of_the_manifest", changed_file),
    ("sample_is_reproduced", other_sample),
]

# Faults of the class

CLASS_FAULTS: list[tuple[str, type[Grid]]] = []


def found_by(check: str) -> Any:
    """The class that follows has a fault, which this check finds."""

    def note(broken: type[Grid]) -> type[Grid]:
        CLASS_FAULTS.append((check, broken))
        return broken

    return note


@found_by("model_runs")
class CannotLoad(Grid):
    def load_model(self):
        raise OSError("disk on fire")


@found_by("number_of_arrays_is_as_the_card_says")
class ReturnsTwo(Grid):
    def finished(self, responses):
        return responses, responses


@found_by("number_of_arrays_is_as_the_card_says")
class ReturnsList(Grid):
    def finished(self, responses):
        return [responses]


@found_by("responses_are_float32")
class ReturnsFloat64(Grid):
    def finished(self, responses):
        return responses.astype(float)


@found_by("responses_are_float32")
class ReturnsTensors(Grid):
    def finished(self, responses):
        return torch.from_numpy(responses)


@found_by("axes_are_as_the_card_says")
class Flattens(Grid):
    def finished(self, responses):
        return responses.reshape(len(responses), -1)


@found_by("axes_are_as_the_card_says")
class LosesTheLastTime(Grid):
    fault_of_card = ("time: {coordinates", "time: {length: 5, coordinates")

    def finished(self, responses):
        return responses[:, :, :-1]


@found_by("first_axis_is_the_stimuli")
class StimuliLast(Grid):
    def finished(self, responses):
        return np.moveaxis(responses, 0, -1)


@found_by("responses_are_finite")
class HasNaN(Grid):
    def finished(self, responses):
        responses[-1, -1, -1] = np.nan
        return responses


@found_by("responses_depend_on_the_stimulus")
class IgnoresStimulus(Grid):
    def finished(self, responses):
        return np.zeros_like(responses)


@found_by("one_stimulus_keeps_its_axis")
class SqueezesStimuli(Grid):
    def finished(self, responses):
        return responses[0] if len(responses) == 1 else responses


@found_by("one_unit_keeps_its_axis")
class SqueezesUnits(Grid):
    def finished(self, responses):
        return responses.squeeze(2) if responses.shape[2] == 1 else responses


@found_by("selected_responses_are_a_slice_of_all")
class SortsChannels(Grid):
    def resolved(self, selection):
        channels, times = super().resolved(selection)
        return np.sort(channels), times


@found_by("selected_responses_are_a_slice_of_all")
class SelectsNextTime(Grid):
    def resolved(self, selection):
        channels, times = super().resolved(selection)
        return channels, (times + 1) % 5 if "times" in selection else times


@found_by("regions_are_united_in_order")
class SortsRegions(Grid):
    def resolved(self, selection):
        channels, times = super().resolved(selection)
        return (np.sort(channels) if isinstance(selection.get("roi"), list) else channels), times


@found_by("same_stimuli_give_the_same_again")
class Noisy(Grid):
    draw = np.random.default_rng(0)

    def finished(self, responses):
        return responses + self.draw.normal(size=responses.shape).astype("float32")


@found_by("responses_are_new_arrays")
class ReusesItsBuffer(Grid):
    buffer: Any = None

    def finished(self, responses):
        if self.buffer is None or self.buffer.shape != responses.shape:
            self.buffer = responses
        self.buffer[:] = responses
        return self.buffer


@found_by("batch_size_does_not_matter")
class NormalisesBatches(Grid):
    def encode(self, batch):
        responses = super().encode(batch)
        return responses - responses.mean(axis=0)


@found_by("order_of_stimuli_does_not_matter")
class ComparesWithTheFirst(Grid):
    def finished(self, responses):
        return responses - 0.1 * responses[:1]


@found_by("stimulus_is_left_as_it_was")
class BlanksItsInput(Grid):
    def generate_response(self, stimulus, batch_size=16):
        responses = super().generate_response(stimulus, batch_size)
        if stimulus.flags.writeable:
            stimulus[:] = 0
        return responses


@found_by("read_only_stimuli_are_taken")
class WritesIntoItsInput(Grid):
    def checked(self, stimulus):
        stimulus = super().checked(stimulus)
        stimulus += 0
        return stimulus


@found_by("stimuli_in_any_memory_order_are_taken")
class WantsOneMemoryOrder(Grid):
    def as_tensor(self, batch):
        return torch.from_numpy(batch).float()


@found_by("stimuli_in_any_memory_order_are_taken")
class ReadsMemoryAsItLies(Grid):
    def as_tensor(self, batch):
        return torch.from_numpy(batch.ravel(order="K").reshape(batch.shape).astype("float32"))


@found_by("integer_dtypes_are_alike")
class WantsOneDtype(Grid):
    def checked(self, stimulus):
        if getattr(stimulus, "dtype", None) != np.uint8:
            raise StimulusError("Only uint8. Try stimulus.astype('uint8').")
        return super().checked(stimulus)


@found_by("every_parameter_is_taken")
class KnowsNoGain(Grid):
    def checked_parameters(self, given):
        if "gain" in given:
            raise InvalidParameterError("There is no 'gain'.")
        return super().checked_parameters(given)


@found_by("every_selection_key_is_taken")
class KnowsNoTimes(Grid):
    def checked_selection(self, selection):
        if "times" in (selection or {}):
            raise InvalidParameterError("There is no 'times'.")
        return super().checked_selection(selection)


@found_by("valid_values_are_taken")
class KnowsOneSubject(Grid):
    def checked_parameters(self, given):
        if given.get("subject") == 2:
            raise InvalidParameterError("There is no subject 2.")
        return super().checked_parameters(given)


@found_by("class_has_no_other_parameters")
class HasASecret(Grid):
    def __init__(self, secret: int = 3, **given: Any):
        super().__init__(**given)


@found_by("class_reports_its_parameters")
class ReportsNothing(Grid):
    @classmethod
    def get_supported_parameters(cls):
        return {}


@found_by("unknown_parameters_are_refused")
class SwallowsParameters(Grid):
    def checked_parameters(self, given):
        return super().checked_parameters({name: given[name] for name in given if name in ("subject", "gain")})


@found_by("unknown_parameters_are_refused")
class RefusesInPythonsWords(Grid):
    def __init__(self, subject=None, gain=1.0, selection=None, device="auto", berg_dir=None):
        super().__init__(selection, device, berg_dir, subject=subject, gain=gain)


@found_by("unknown_selection_keys_are_refused")
class SwallowsKeys(Grid):
    def checked_selection(self, selection):
        known = ("channels", "roi", "times")
        return super().checked_selection({key: selection[key] for key in known if key in (selection or {})})


@found_by("selections_that_are_no_dict_are_refused")
class TakesAnySelection(Grid):
    def checked_selection(self, selection):
        return super().checked_selection(selection if isinstance(selection, dict) else None)


@found_by("other_values_are_refused")
class TakesTheFirstForAnyOther(Grid):
    def checked_parameters(self, given):
        return super().checked_parameters({**given, "subject": 1})


@found_by("other_values_are_refused")
class PassesOverUnknownChannels(Grid):
    def checked_selection(self, selection):
        names = (selection or {}).get("channels")
        if isinstance(names, list):
            selection = {**selection, "channels": [name for name in names if name in CHANNELS]}
        return super().checked_selection(selection)


@found_by("numbers_out_of_bounds_are_refused")
class ClipsItsGain(Grid):
    def checked_parameters(self, given):
        clipped = {"gain": min(max(given["gain"], 0.5), 2.0)} if "gain" in given else {}
        return super().checked_parameters({**given, **clipped})


@found_by("wrong_types_are_refused")
class ConvertsTypes(Grid):
    def checked_parameters(self, given):
        return super().checked_parameters({**given, "subject": int(given["subject"])} if "subject" in given else given)


@found_by("missing_parameters_are_refused")
class GuessesTheSubject(Grid):
    def checked_parameters(self, given):
        return super().checked_parameters({"subject": 1, **given})


@found_by("unknown_devices_are_refused")
class TakesAnyDevice(Grid):
    def chosen_device(self, device):
        return torch.device("cpu")


@found_by("wrong_numbers_of_axes_are_refused")
class AddsAnAxis(Grid):
    def checked(self, stimulus):
        return super().checked(stimulus[None] if getattr(stimulus, "ndim", 0) == 3 else stimulus)


@found_by("wrong_sizes_are_refused")
class DropsChannels(Grid):
    def checked(self, stimulus):
        return super().checked(stimulus[:, :3])


@found_by("fractions_are_refused_where_integers_are_due")
class ScalesFractions(Grid):
    def checked(self, stimulus):
        is_fraction = isinstance(stimulus, np.ndarray) and stimulus.dtype.kind == "f" and stimulus.max() <= 1
        return super().checked((255 * stimulus).astype("uint8") if is_fraction else stimulus)


@found_by("values_out_of_range_are_refused")
class ClipsValues(Grid):
    def checked(self, stimulus):
        is_integer = isinstance(stimulus, np.ndarray) and stimulus.dtype.kind in "iu"
        return super().checked(stimulus.clip(0, 255) if is_integer else stimulus)


@found_by("nan_is_refused")
class ReplacesNaN(Grid):
    def checked(self, stimulus):
        has_nan = isinstance(stimulus, np.ndarray) and stimulus.dtype.kind == "f" and np.isnan(stimulus).any()
        return super().checked(np.nan_to_num(stimulus).astype("uint8") if has_nan else stimulus)


@found_by("infinite_values_are_refused")
class ReplacesInfinity(Grid):
    def checked(self, stimulus):
        is_infinite = isinstance(stimulus, np.ndarray) and stimulus.dtype.kind == "f" and np.isinf(stimulus).any()
        return super().checked(stimulus.clip(0, 255).astype("uint8") if is_infinite else stimulus)


@found_by("empty_stimuli_are_refused")
class TakesNothing(Grid):
    def generate_response(self, stimulus, batch_size=16):
        if isinstance(stimulus, np.ndarray) and not len(stimulus):
            return np.zeros((0, 6, 5), "float32")
        return super().generate_response(stimulus, batch_size)


@found_by("texts_are_refused")
class FailsAtTexts(Grid):
    def checked(self, stimulus):
        return super().checked(stimulus.reshape(-1, *stimulus.shape[-3:]) if stimulus.ndim == 4 else stimulus)


@found_by("objects_are_refused")
class ConvertsObjects(Grid):
    def checked(self, stimulus):
        is_object = isinstance(stimulus, np.ndarray) and stimulus.dtype == object
        return super().checked(stimulus.astype("uint8") if is_object else stimulus)


@found_by("impossible_batch_sizes_are_refused")
class TakesAnyBatchSize(Grid):
    def checked_size(self, batch_size):
        return max(1, int(batch_size))


@found_by("metadata_are_a_dict")
class MetadataAsList(Grid):
    @classmethod
    def get_metadata(cls, berg_dir=None, model_instance=None, selection=None, **given):
        return list(super().get_metadata(berg_dir, model_instance, selection, **given))


@found_by("class_gives_metadata")
class MetadataOfInstancesOnly(Grid):
    @classmethod
    def get_metadata(cls, model_instance=None, **given):
        return model_instance.metadata


@found_by("metadata_need_no_weights")
class MetadataLoadsTheModel(Grid):
    @classmethod
    def get_metadata(cls, berg_dir=None, model_instance=None, selection=None, **given):
        if model_instance is None:
            model_instance = cls(selection, "cpu", berg_dir, **given)
            model_instance.load_model()
        return model_instance.metadata


@found_by("metadata_need_no_weights")
class MetadataReadsTheWeights(Grid):
    @classmethod
    def get_metadata(cls, berg_dir=None, model_instance=None, selection=None, **given):
        if model_instance is None:
            read_safetensors(model_files.weights_path(get_card(MODEL_ID), berg_dir, given))
        return super().get_metadata(berg_dir, model_instance, selection, **given)


@found_by("class_and_instance_agree")
class TwoMetadata(Grid):
    @classmethod
    def get_metadata(cls, berg_dir=None, model_instance=None, selection=None, **given):
        found = super().get_metadata(berg_dir, model_instance, selection, **given)
        return found if model_instance is None else {"meg": {**found["meg"], "times": found["meg"]["times"] * 1000}}


@found_by("coordinates_are_as_long_as_their_axes")
class Transposes(Grid):
    def finished(self, responses):
        return responses.swapaxes(1, 2)


@found_by("metadata_are_plain")
class MetadataWithObjects(Grid):
    @classmethod
    def read_metadata(cls, berg_dir, parameters):
        return {**super().read_metadata(berg_dir, parameters), "device": torch.device("cpu")}


@found_by("nothing_is_printed")
class Prints(Grid):
    def load_model(self):
        super().load_model()
        print("Model loaded")


@found_by("nothing_is_printed")
class PrintsAtTheEnd(Grid):
    def cleanup(self):
        super().cleanup()
        print("Model gone")


@found_by("nothing_is_warned_of")
class Warns(Grid):
    def finished(self, responses):
        warnings.warn("these are only predictions", stacklevel=2)
        return responses


@found_by("random_numbers_are_left_alone")
class SeedsNumpy(Grid):
    def load_model(self):
        np.random.seed(0)  # noqa: NPY002
        super().load_model()


@found_by("random_numbers_are_left_alone")
class SeedsTorch(Grid):
    def load_model(self):
        torch.manual_seed(0)
        super().load_model()


@found_by("random_numbers_are_left_alone")
class DrawsFromPython(Grid):
    def finished(self, responses):
        random.random()
        return responses


@found_by("settings_of_torch_are_left_alone")
class SwitchesGradientsOff(Grid):
    def load_model(self):
        torch.set_grad_enabled(False)
        super().load_model()


@found_by("settings_of_torch_are_left_alone")
class SetsThreads(Grid):
    def load_model(self):
        torch.set_num_threads(torch.get_num_threads() + 1)
        super().load_model()


@found_by("settings_of_torch_are_left_alone")
class WantsDeterminism(Grid):
    def load_model(self):
        torch.use_deterministic_algorithms(True)
        super().load_model()


@found_by("settings_of_the_process_are_left_alone")
class SetsTheEnvironment(Grid):
    def load_model(self):
        os.environ["ZOO"] = "open"
        super().load_model()


@found_by("settings_of_the_process_are_left_alone")
class GoesElsewhere(Grid):
    def load_model(self):
        os.chdir(self.berg_dir)
        super().load_model()


@found_by("warning_filters_are_left_alone")
class SilencesWarnings(Grid):
    def load_model(self):
        warnings.filterwarnings("ignore")
        super().load_model()


@found_by("network_is_not_used")
class PhonesHome(Grid):
    def load_model(self):
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=0.1).close()
        super().load_model()


@found_by("berg_dir_is_left_alone")
class WritesACache(Grid):
    def load_model(self):
        super().load_model()
        Path(self.berg_dir, "cache.bin").write_bytes(b"")


@found_by("stimuli_are_refused_before_loading")
class LoadsItself(Grid):
    def generate_response(self, stimulus, batch_size=16):
        if self.readout is None:
            self.load_model()
        return super().generate_response(stimulus, batch_size)


@found_by("cleanup_frees_the_memory")
class KeepsItsWeights(Grid):
    kept: Any = None

    def load_model(self):
        super().load_model()
        type(self).kept = self.readout


@found_by("cleanup_frees_the_memory")
class CleansNothing(Grid):
    def cleanup(self):
        pass


@found_by("stimuli_are_refused_after_cleanup")
class FallsOverAfterCleanup(Grid):
    def cleanup(self):
        del self.readout


@found_by("model_can_be_loaded_again")
class LoadsOnce(Grid):
    def load_model(self):
        if self.metadata is None:
            raise RuntimeError("metadata are gone")
        super().load_model()

    def cleanup(self):
        super().cleanup()
        self.metadata = None


@found_by("model_can_be_loaded_again")
class ForgetsItsGain(Grid):
    def cleanup(self):
        super().cleanup()
        self.parameters = {**self.parameters, "gain": 2.0}


@found_by("cleanup_can_be_called_twice")
class CleansOnlyWhatIsThere(Grid):
    def cleanup(self):
        self.readout.to("meta")
        self.readout = None


@found_by("with_statement_cleans_up")
class LeavesWithoutCleaning(Grid):
    def __exit__(self, *args):
        pass


@found_by("predict_agrees_with_encode")
class PredictsOtherwise(Grid):
    def predict(self, pictures):
        return 1.5 * self.respond(pictures)


@found_by("predict_is_differentiable")
class Detaches(Grid):
    def predict(self, pictures):
        return self.respond(pictures.detach())


@found_by("files_are_named_as_the_card_says")
class HasItsOwnFileName(Grid):
    fault_of_files = staticmethod(
        lambda folder: [
            path.rename(path.with_stem("my_weights")) for path in (folder / "encoding_models_weights").iterdir()
        ]
    )

    def read_weights(self):
        folder = ModelId.parse(MODEL_ID).folder(self.berg_dir) / "encoding_models_weights"
        return torch.from_numpy(read_safetensors(folder / "my_weights.safetensors")["weight"])


def _pickle_weights(folder: Path) -> None:
    (path,) = (folder / "encoding_models_weights").iterdir()
    torch.save(torch.from_numpy(read_safetensors(path)["weight"]), path.with_suffix(".pt"))
    path.unlink()


@found_by("weights_are_not_pickled")
class PicklesItsWeights(Grid):
    fault_of_files = staticmethod(_pickle_weights)

    def read_weights(self):
        return read_pt(model_files.weights_path(get_card(MODEL_ID), self.berg_dir, self.parameters))


@found_by("missing_selections_are_refused")
class NeedsNoSelection(Grid):
    fault_of_card = ("    required: false\n    description: Which", "    required: true\n    description: Which")

    def checked_selection(self, selection):
        return super().checked_selection(selection or {"roi": "left"})


@found_by("names_agree")
class HasAnotherId(Grid):
    @classmethod
    def get_model_id(cls):
        return "meg-zoo-cage"
