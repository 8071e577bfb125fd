import json
import random
import re
import warnings
from pathlib import Path
from typing import Literal

import pydantic
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import berg.models
from berg.core import model_registry
from berg.core.card_schema import CardPart
from berg.core.exceptions import BERGError, MissingFileError, ModelCardError, ModelNotFoundError
from berg.core.model_card import ModelCard, UnknownCardKeyWarning

CARDS = Path(berg.models.__file__).parent / "model_cards"
BUILT_IN = CARDS / "fmri-szinte2024-prf_css.yaml"
TEXT = BUILT_IN.read_text(encoding="utf-8")
SOURCE = BUILT_IN.name

HAND_WRITTEN = """\
model_id: eeg-things_eeg_2-vit_b_32
modality: eeg
training_dataset: things_eeg_2
species: Human
stimuli: Images
model_type: vit_b_32
creator: [Ada, Grace]
description: |
  An encoding model.
metadata:
  path: somewhere
methods:
  - name: encode
input:
  type: numpy.ndarray
  shape: [batch_size, 3, height, width]
  preprocessing: none
parameters:
  subject: {type: int, required: true, valid_values: [1, 2], widget: slider}
performance:
  metrics: [{name: r, value: "0.5", unit: none}]
  plots: https://example.org/plot.png
references:
  - {model: "A paper."}
  - A second paper.
"""

GUIDE_TEMPLATE = """\
# Template YAML file for BERG model specification
# Replace placeholder values with actual model information

# Basic metadata
model_id: modality-dataset-model_type  # e.g., fmri-nsd-fwrf
modality: modality  # e.g., fmri, eeg, meg, ...
training_dataset: dataset_name
species: Human  # e.g., Human, Macaque, etc.
stimuli: Images  # e.g., Images, Sounds, Text, etc.
model_architecture: feature_extraction_method  # e.g., ViT-B/32, fwRF, etc.
creator: your_name

# General description of the model
description: |
  Provide a concise but informative description of the model, including:
  - What kind of in silico neural responses it generates
  - What dataset it was trained on
  - The basic approach/architecture
  - Any notable characteristics or limitations
  Keep this to 3-5 sentences for readability.

# Input stimulus information
input:
  type: "numpy.ndarray"  # or other appropriate type
  shape: [shape_description]  # e.g., [batch_size, 3, height, width]
  description: "Brief description of input format"
  constraints:
    - "List any constraints on input values"
    - "e.g., value ranges, size requirements, etc."

# Output information
output:
  type: "numpy.ndarray"  # or other appropriate type
  shape: [shape_description]  # e.g., [batch_size, n_voxels]
  description: "Brief description of output format"
  dimensions:
    - name: "dimension_name"
      description: "What this dimension represents"
    - name: "dimension_name"
      description: "What this dimension represents"
    # Add more dimensions as needed

# Model parameters and their usage
parameters:
  # First parameter
  param_name:
    type: param_type  # e.g., int, str, float
    required: true/false
    valid_values: list_of_valid_values  # or range, or omit if not applicable
    default: default_value  # include if there's a default value
    example: example_value
    description: "Description of what this parameter represents"
    function: "Which function uses this parameter: get_encoding_model, load_model, .."

  # Selection parameter to define specific outputs (ROI, channels, timepoints, etc.)
  selection:
    type: dict
    required: true
    description: |
      Specifies which outputs to include in the in silico model responses.
      This parameter defines for which data the in silico responses should be generated
      (e.g., specific ROI, timepoints, channels, etc.)
    function: get_encoding_model
    properties:
      key_name:  # Replace with model-specific keys, e.g., "roi", "channels", "timepoints"
        type: any
        description: "Description of Model-specific selection criterion."
        example: "V1"

  # Add more parameters as needed
  param_name:
    type: param_type
    required: true/false
    valid_values: list_of_valid_values  # or range, or omit if not applicable
    default: default_value  # include if there's a default value
    example: example_value
    description: "Description of what this parameter represents"
    function: "Which function uses this parameter"

# Performance metrics (if needed) and references
performance:
  metrics:
    - name: "metric_name"
      value: "metric_value"
      description: "What this metric represents"
    # Add more metrics as needed
    - name: "metric_name"
      value: "metric_value"
      description: "What this metric represents"
  plots: "URL_to_performance_plots"  # URL or path to visualizations

# Add References here
references:
  - "Citation for your model or training dataset"
"""


def line_of(text: str, start: str) -> int:
    """The line (from 1) of the only one that begins so, leading spaces aside."""
    found = [number for number, line in enumerate(text.splitlines(), 1) if line.strip().startswith(start)]
    assert len(found) == 1, (start, found)
    return found[0]


def replaced(old: str, new: str) -> str:
    assert TEXT.count(old) == 1, old
    return TEXT.replace(old, new)


def test_the_built_in_card_holds_what_its_yaml_says():
    card = ModelCard.read(BUILT_IN)
    said = yaml.safe_load(TEXT)
    assert card.raw == said
    assert card.model_id == said["model_id"]
    assert card.parameters["subject"].allowed == said["parameters"]["subject"]["valid_values"]
    assert card.selection_keys == list(said["select"])
    assert card.path == BUILT_IN


def test_the_raw_card_that_is_given_out_is_a_copy():
    card = ModelCard.read(BUILT_IN)
    card.raw["parameters"].clear()
    assert card.raw == yaml.safe_load(TEXT)


def test_the_template_is_a_valid_card_once_its_placeholders_are_replaced(tmp_path):
    text = (CARDS / "template.yaml").read_text(encoding="utf-8")
    for placeholder, value in (
        ("model_id: modality-dataset-model", "model_id: eeg-mine2026-linear"),
        ("modality: modality ", "modality: eeg "),
        ("training_dataset: dataset\n", "training_dataset: mine2026\n"),
    ):
        assert text.count(placeholder) == 1
        text = text.replace(placeholder, value)
    path = tmp_path / "eeg-mine2026-linear.yaml"
    path.write_text(text, encoding="utf-8")
    card = ModelCard.read(path)
    assert (card.model_id, card.family, card.licence) == ("eeg-mine2026-linear", "prf", "CC-BY-4.0")


def test_the_template_is_not_a_model():
    ids = model_registry.get_available_models()
    assert ids
    assert "modality-dataset-model" not in ids
    assert not [name for name in model_registry.PROBLEMS if "template" in name]


# (what stands in the card, what is put there, the line's beginning that the error names, words of the error)
FAULTS = {
    "unknown key": ("licence: BSD", "license: BSD", "license:", "unknown key 'license'. Did you mean 'licence'? Allo"),
    "unknown key in input": ("  dtype: uint8", "  dtpye: uint8", "dtpye:", "'dtpye'. Did you mean 'dtype'?"),
    "unknown key in a parameter": (
        "    minimum: 0.5", "    minimun: 0.5", "minimun:",
        "unknown key 'minimun'. Did you mean 'minimum'? Allowed: default, description, earlier_name, earlier_values",
    ),
    "unknown key in a parameter called like a key": (
        "  device:\n    type: str", "  description:\n    tipe: str", "tipe:", "Did you mean 'type'? Allowed: default",
    ),
    "unknown key in a property": (
        "        valid_values: [V1]", "        valid_vals: [V1]", "valid_vals:", "Did you mean 'valid_values'?",
    ),
    "unknown key in a selector": (
        "voxels: {kind: mask,", "voxels: {kidn: mask,", "voxels: {kidn",
        "unknown key 'kidn'. Did you mean 'kind'? Allowed: aliases, axis, kind, metadata, output, overrides",
    ),
    "unknown key in an output": (
        "unit: BOLD amplitude}", "units: BOLD}", "- {name: responses",
        "Did you mean 'unit'? Allowed: axes, coordinates, name, unit",
    ),
    "unknown kind": (
        "{kind: mask,", "{kind: masc,", "voxels: {kind",
        "select.voxels.kind is 'masc': Input should be 'name', 'mask', 'roi', 'minimum', 'range' or 'file'",
    ),
    "missing key": ("modality: fmri\n", "", "model_id:", "key 'modality' is missing"),
    "missing unit": (", unit: BOLD amplitude}", "}", "- {name: responses", "key 'unit' is missing"),
    "missing licence": ("licence: BSD-3", "limits: BSD-3", "limits:", "unknown key 'limits'"),
    "empty creator": ("creator: The BERG developers", "creator: ''", "creator:", "key 'creator' is missing or empty"),
    "number for text": ("species: Human", "species: 3", "species:", "species is 3: Input should be a valid string"),
    "creators that are no names": ("The BERG developers", "[1, 2]", "creator:", "creator is [1, 2]: Input should be"),
    "map for text": ("species: Human", "species: {a: 1}", "species:", "Input should be a valid string"),
    "text for a map": ("  voxel:\n    coord", "  voxel: text\n  x:\n    coord", "voxel: text", "axes.voxel is 'text'"),
    "true/false as text": (
        "  stimulus_width_deg:\n    type: float\n    required: false",
        "  stimulus_width_deg:\n    type: float\n    required: true/false",
        "required: true/false", "required is 'true/false': Input should be a valid boolean",
    ),
    "words for a bound": ("minimum: 0.5", "minimum: small", "minimum: small", "Input should be a valid number"),
    "no family name": ("family: prf", "family: ../prf", "family:", "family is '../prf': String should match pattern"),
    "empty family": ("family: prf", "family: ''", "family:", "family is '': String should match pattern"),
    "not a store": ("store: built_in", "store: builtin", "store:", "should be 'berg_dir', 'package' or 'built_in'"),
    "another dataset": (
        "training_dataset: szinte2024", "training_dataset: nsd", "training_dataset:",
        "training_dataset is 'nsd', but model_id says 'szinte2024'",
    ),
    "another modality": ("modality: fmri\n", "modality: eeg\n", "modality:", "modality is 'eeg', but model_id says"),
    "two parts in the id": ("model_id: fmri-szinte2024-prf_css", "model_id: fmri-prf", "model_id:", "2 of the 3 parts"),
    "a letter that an id cannot have": (
        "model_id: fmri-szinte2024-prf_css", "model_id: fmri-szinte2024-prf css", "model_id:", "its model 'prf css'",
    ),
    "another file name": (
        "model_id: fmri-szinte2024-prf_css", "model_id: fmri-szinte2024-prf", "model_id:",
        "so the file must be fmri-szinte2024-prf.yaml",
    ),
    "not a dtype": ("dtype: uint8", "dtype: uint9", "dtype:", "'uint9' is not a dtype. Did you mean 'uint8'? Allowed:"),
    "reversed range": ("range: [0, 255]", "range: [255, 0]", "range:", "range is [255.0, 0.0]; give [smallest,"),
    "range of three": ("range: [0, 255]", "range: [0, 1, 2]", "range:", "input.range is [0, 1, 2]"),
    "range beyond the dtype": ("range: [0, 255]", "range: [0, 300]", "range:", "[0.0, 300.0] does not fit into uint8"),
    "not from stimuli": (
        "axes: [stimulus, voxel]", "axes: [voxel, stimulus]", "- {name: responses",
        "the first axis of output 'responses' must be 'stimulus'",
    ),
    "one axis": ("axes: [stimulus, voxel]", "axes: [stimulus]", "- {name: responses", "at least 2 items"),
    "an axis twice": ("[stimulus, voxel]", "[stimulus, voxel, voxel]", "- {name: responses", "an axis stands twice"),
    "an axis that is not described": (
        "[stimulus, voxel]", "[stimulus, voxel, time]", "- {name: responses", "axis 'time' is not described under",
    ),
    "an axis that no output has": (
        "axes:\n  voxel:\n", "axes:\n  voxels: {length: 3}\n  voxel:\n", "voxels: {length",
        "no output has an axis 'voxels'. Did you mean 'voxel'?",
    ),
    "an axis of no length": (
        "    coordinates:\n", "    length: 0\n    coordinates:\n", "length:", "greater than or equal to 1",
    ),
    "two outputs of one name": (
        "outputs:\n", "outputs:\n  - {name: responses, axes: [stimulus, voxel], unit: a}\n",
        "- {name: responses, axes: [stimulus, voxel], unit: BOLD", "two outputs have the name 'responses'",
    ),
    "a selector that is not documented": (
        "select:\n", "select:\n  hemi: {kind: mask, axis: voxel}\n", "hemi:",
        "selection key 'hemi' is missing under 'parameters.selection.properties'",
    ),
    "a documented key without selector": (
        "  voxels: {kind: mask, axis: voxel}\n", "", "select:", "selection key 'voxels' is missing under 'select'",
    ),
    "a selector along no axis": (
        "{kind: mask, axis: voxel}", "{kind: mask, axis: voxle}", "voxels: {kind",
        "select.voxels needs an axis of 'axes', not 'voxle'. Did you mean 'voxel'?",
    ),
    "a roi without a place": (
        "{kind: roi, axis: voxel, metadata: fmri.roi}", "{kind: roi, axis: voxel}", "roi: {kind",
        "select.roi is of kind roi, which needs 'metadata'",
    ),
    "a selector of no output": (
        "{kind: mask, axis: voxel}", "{kind: mask, axis: voxel, output: lh}", "voxels: {kind",
        "select.voxels: no output 'lh'. Outputs: responses",
    ),
    "a selector that overrides nothing": (
        "{kind: mask, axis: voxel}", "{kind: mask, axis: voxel, overrides: [rois]}", "voxels: {kind",
        "select.voxels overrides 'rois'. Did you mean 'roi'?",
    ),
    "a place that nothing fills": (
        "metadata: fmri.roi}", "metadata: 'fmri.{outptu}_roi'}", "roi: {kind",
        "has a '{outptu}' that nothing fills. Did you mean 'output'? Allowed: output",
    ),
    "an open brace": ("voxel: fmri.source_voxel", "voxel: 'fmri.{'", "voxel: 'fmri.{'", "'fmri.{': "),
    "a look into an object": ("voxel: fmri.source_voxel", "voxel: '{output.__class__}'", "voxel: '{", "nothing fills"),
    "a file name that nothing fills": (
        'weights: "weights_subject-{subject:02d}"', 'weights: "weights_{sub:02d}"', "weights:",
        "has a '{sub}' that nothing fills. Did you mean 'subject'? Allowed: subject, stimulus_width_deg",
    ),
    "a default that is not allowed": (
        "    default: 1\n", "    default: 2\n", "default: 2", "default is 2. Allowed: 1",
    ),
    "a default of another type": ("default: 10.0", "default: wide", "default: wide", "default must be float, got str"),
    "a default out of bounds": ("default: 10.0", "default: 0.1", "default: 0.1", "0.1; it must lie in [0.5, 40.0] deg"),
    "an example that is not allowed": ("example: V1\n", "example: V2\n", "example: V2", "example is 'V2'. Did you"),
    "a range without end": ("valid_values: [1]", "valid_values: 1-99999999999", "valid_values: 1-", "at most 100,000"),
    "a range that goes down": ("valid_values: [1]", "valid_values: 8-1", "valid_values: 8-1", "a range goes up"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_card_is_refused_with_file_line_and_words(fault):
    old, new, line, words = FAULTS[fault]
    text = replaced(old, new)
    with pytest.raises(ModelCardError) as caught:
        ModelCard.parse(text, SOURCE)
    message = str(caught.value)
    assert message.startswith(f"{SOURCE}, line ")
    assert f"line {line_of(text, line)}: " in message
    assert words in message


def test_an_axis_needs_a_length_or_coordinates():
    start, end = TEXT.index("    coordinates:\n"), TEXT.index("\nparameters:")
    text = TEXT[:start] + TEXT[end:]
    text = text.replace("  voxel:\n", "  voxel: {}\n")
    with pytest.raises(ModelCardError, match="axis 'voxel' needs a 'length' or 'coordinates'"):
        ModelCard.parse(text, SOURCE)


def test_the_coordinate_that_tells_the_length_is_in_every_file():
    text = replaced("voxel: fmri.source_voxel", "voxel: fmri.source_voxel?")
    with pytest.raises(ModelCardError, match=r"the first coordinate of axis 'voxel' tells its length.*no '\?'"):
        ModelCard.parse(text, SOURCE)


def test_all_faults_are_named_in_the_order_of_their_lines():
    text = TEXT.replace("species: Human", "species: 3").replace("kind: mask", "kind: masc")
    with pytest.raises(ModelCardError, match=r"line \d+: species is 3.*; line \d+: select.voxels.kind is 'masc'"):
        ModelCard.parse(text, SOURCE)


def test_20_000_faults_make_a_sentence_of_8():
    text = TEXT + "".join(f"key_{index}: 1\n" for index in range(20_000))
    with pytest.raises(ModelCardError) as caught:
        ModelCard.parse(text, SOURCE)
    assert str(caught.value).count("unknown key") == 8


def test_a_card_of_a_hand_written_class_loads_as_published():
    with pytest.warns(UnknownCardKeyWarning) as seen:
        card = ModelCard.parse(HAND_WRITTEN, "card.yaml")
    assert card.architecture == "vit_b_32"
    assert card.creator == "Ada, Grace"
    assert card.references == [{"model": "A paper."}, "A second paper."]
    assert card.performance is not None
    assert card.performance.metrics[0].value == "0.5"
    assert card.raw["metadata"] == {"path": "somewhere"}
    said = [re.search(r"line (\d+): unknown key '(\w+)' is ignored", str(warning.message)) for warning in seen]
    assert {(int(found[1]), found[2]) for found in said if found} == {
        (line_of(HAND_WRITTEN, "metadata:"), "metadata"),
        (line_of(HAND_WRITTEN, "methods:"), "methods"),
        (line_of(HAND_WRITTEN, "preprocessing:"), "preprocessing"),
        (line_of(HAND_WRITTEN, "subject:"), "widget"),
        (line_of(HAND_WRITTEN, "metrics:"), "unit"),
    }
    assert len(seen) == 5


def test_a_misspelled_key_of_a_hand_written_card_warns_with_the_right_one():
    text = "model_id: fmri-a-b\nmodality: fmri\ntraining_dataset: a\nspeciess: Human\n"
    with pytest.warns(UnknownCardKeyWarning, match="line 4: unknown key 'speciess' is ignored. Did you mean 'species'"):
        assert ModelCard.parse(text, "card.yaml").species == ""


@pytest.mark.filterwarnings("ignore::berg.core.model_card.UnknownCardKeyWarning")
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("species: Human", "species: 3", "line 4: species is 3: Input should be a valid string"),
        ("model_id: eeg-things_eeg_2-vit_b_32", "model_id: vit", "'vit' is not a model id: it has 1 of the 3 parts"),
        ("modality: eeg\n", "", "key 'modality' is missing"),
        ("type: int,", "type: int, type: str,", "key 'type' stands twice"),
    ],
)
def test_a_hand_written_card_with_a_wrong_value_is_refused(old, new, words):
    with pytest.raises(ModelCardError, match=re.escape(words)):
        ModelCard.parse(HAND_WRITTEN.replace(old, new), "card.yaml")


def test_a_family_of_null_is_a_hand_written_class():
    with pytest.warns(UnknownCardKeyWarning):
        assert ModelCard.parse(HAND_WRITTEN + "family:\n", "card.yaml").family is None


def test_the_template_of_the_guide_loads_once_it_is_filled_in():
    text = GUIDE_TEMPLATE.replace("required: true/false", "required: true")
    head, middle, tail = text.partition("  # Add more parameters as needed\n")
    card = ModelCard.parse(head + middle + tail.replace("param_name:", "other_param:"), "card.yaml")
    assert list(card.parameters) == ["param_name", "selection", "other_param"]
    assert card.selection_keys == ["key_name"]
    assert card.parameters["param_name"].allowed is None
    assert card.references == ["Citation for your model or training dataset"]


def test_the_template_of_the_guide_left_as_it_is_says_which_key_stands_twice():
    with pytest.raises(ModelCardError, match=r"key 'param_name' stands twice \(first on line 46\)"):
        ModelCard.parse(GUIDE_TEMPLATE, "card.yaml")


@pytest.mark.parametrize(
    ("valid_values", "allowed"),
    [
        ("[1, 2]", [1, 2]),
        ("1-4", [1, 2, 3, 4]),
        ("'1..4'", [1, 2, 3, 4]),
        ("'2 - 2'", [2]),
        ("'a, b'", ["a", "b"]),
        ("any text", None),
        ("'²-³'", None),
        ("", None),
    ],
)
def test_valid_values_are_a_list_a_range_or_words(valid_values, allowed):
    text = "model_id: fmri-a-b\nmodality: fmri\ntraining_dataset: a\n"
    text += f"parameters: {{x: {{valid_values: {valid_values}}}}}\n"
    assert ModelCard.parse(text, "card.yaml").parameters["x"].allowed == allowed


class Features(CardPart):
    extractor: Literal["contrast_energy", "torchvision"]
    layers: list[str] = []


def test_a_family_reads_its_part_of_the_card():
    assert ModelCard.read(BUILT_IN).part("features", Features).extractor == "contrast_energy"


def test_a_fault_in_the_part_of_a_family_has_its_line():
    text = replaced("  extractor: contrast_energy", "  extractor: contrast\n  layer: []")
    card = ModelCard.parse(text, SOURCE)
    with pytest.raises(ModelCardError) as caught:
        card.part("features", Features)
    line = line_of(text, "extractor: contrast")
    message = str(caught.value)
    assert f"line {line}: features.extractor is 'contrast': Input should be 'contrast_energy'" in message
    assert f"line {line + 1}: unknown key 'layer'. Did you mean 'layers'? Allowed: extractor, layers" in message


def test_the_json_schema_names_every_key_and_refuses_others():
    schema = ModelCard.model_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert set(schema["required"]) == {"model_id", "modality", "training_dataset"}
    assert schema["additionalProperties"] is False
    assert set(yaml.safe_load(TEXT)) <= set(schema["properties"])
    kinds = schema["$defs"]["Selector"]["properties"]["kind"]["enum"]
    assert kinds == ["name", "mask", "roi", "minimum", "range", "file"]


def keys_without_place(value, schema, definitions, at=""):
    """Walk data and JSON schema together; yield what the schema has no place for (a second reader of it)."""
    options = [definitions[option["$ref"].rsplit("/", 1)[1]] if "$ref" in option else option
               for option in schema.get("anyOf", [schema])]  # fmt: skip
    if isinstance(value, dict):
        maps = [option for option in options if option.get("type") == "object"]
        if not maps:
            yield at
        for key, child in value.items():
            places = [m["properties"][key] for m in maps if key in m.get("properties", {})]
            places += [m["additionalProperties"] for m in maps if m.get("additionalProperties")]
            if not places:
                yield f"{at}.{key}"
            elif isinstance(places[0], dict):
                yield from keys_without_place(child, places[0], definitions, f"{at}.{key}")
    if isinstance(value, list):
        for index, child in enumerate(value):
            places = [option["items"] for option in options if isinstance(option.get("items"), dict)]
            if places and places[0]:
                yield from keys_without_place(child, places[0], definitions, f"{at}.{index}")


def test_the_json_schema_has_a_place_for_everything_in_the_built_in_card():
    schema = ModelCard.model_json_schema()
    data = yaml.safe_load(TEXT)
    assert list(keys_without_place(data, schema, schema["$defs"])) == []
    data["axes"]["voxel"]["lenght"] = 3
    assert list(keys_without_place(data, schema, schema["$defs"])) == [".axes.voxel.lenght"]


def answer_or_our_error(text: str) -> None:
    """Nothing, where the text is a card or is refused by us; another exception goes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownCardKeyWarning)
        try:
            card = ModelCard.parse(text, SOURCE)
        except BERGError as error:
            print(error)  # which needs no more than a sentence
            return
    assert isinstance(card, ModelCard)
    assert isinstance(card.model_id, str)


WORDS = st.sampled_from(
    ["", "1", "-1", "0", "1.5", ".nan", "-.inf", "true", "null", "[]", "{}", "[1, [2]]", "{a: {b: 1}}", "'", '"', "{",
     "]", "- a", "? ", "!!int x", "!!bool x", "!!float ''", "&a b", "*a", "|", ">", "%", "@", "`", "{x}", "'{x}'",
     "'{'", "2020-01-01", "1:30", "0x1F", "0b", "1-3", "3-1", "²-³", "V1", "text with words", "\\", "\t", "#", ": ",
     "é", "\U0001f9e0", "1" * 60, "9" * 400, "[stimulus]", "[[stimulus, voxel]]", "{kind: roi}", "prf", "a.b:C",
     "float64", "[255, 0]"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200) | st.lists(WORDS, max_size=12).map("\n".join))
def test_any_text_is_a_card_or_our_error(text):
    answer_or_our_error(text)


def mutated(text: str, seed: int, word: str) -> str:
    """The text after one to four mutations: a line deleted, doubled, moved or indented; a value or key replaced."""
    draw = random.Random(seed)
    lines = text.splitlines()
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(lines))
        key, colon, value = lines[at].partition(":")
        lines[at : at + 1] = draw.choice(
            [
                [],
                [lines[at], lines[at]],
                ["  " + lines[at]],
                [lines[at][2:]],
                [f"{key}{colon} {word}"],
                [f"{' ' * (len(key) - len(key.lstrip()))}{word}{colon}{value}"],
                [lines[at].replace(draw.choice(re.findall(r"\w+", lines[at]) or ["x"]), word)],
                [lines[at], lines[draw.randrange(len(lines))]],
                [lines[at][: draw.randrange(len(lines[at]) + 1)]],
            ]
        )
        lines = lines or ["a: 1"]
    return "\n".join(lines) + "\n"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), WORDS | st.text(max_size=8), st.sampled_from([TEXT, HAND_WRITTEN]))
def test_any_change_of_a_card_is_a_card_or_our_error(seed, word, text):
    answer_or_our_error(mutated(text, seed, word))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_value_anywhere_in_the_card_is_a_card_or_our_error(data):
    card = yaml.safe_load(TEXT)
    place = card
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
    )
    place[key] = data.draw(values)
    answer_or_our_error(yaml.safe_dump(card, allow_unicode=True))


def test_a_card_that_is_not_there_is_a_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"The model card .*gone.yaml cannot be read"):
        ModelCard.read(tmp_path / "gone.yaml")


@pytest.mark.usefixtures("own_registry")
def test_a_broken_card_breaks_no_other_model(tmp_path):
    (tmp_path / "fmri-good-one.yaml").write_text(
        TEXT.replace("fmri-szinte2024-prf_css", "fmri-good-one").replace("dataset: szinte2024", "dataset: good")
    )
    (tmp_path / "fmri-broken-yaml.yaml").write_text("a: [1\nb: ")
    (tmp_path / "fmri-broken-key.yaml").write_text(replaced("family: prf", "familly: prf\nfamily: prf"))
    (tmp_path / "fmri-broken-bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "fmri-broken-folder.yaml").mkdir()
    (tmp_path / "fmri-broken-empty.yaml").touch()
    before = set(model_registry.get_available_models())
    model_registry.register_cards(tmp_path)
    assert set(model_registry.get_available_models()) - before == {"fmri-good-one"}
    assert model_registry.get_card("fmri-good-one").training_dataset == "good"
    broken = {Path(name).name for name in model_registry.PROBLEMS if "fmri-broken" in name}
    assert broken == {f"fmri-broken-{what}.yaml" for what in ("yaml", "key", "bytes", "folder", "empty")}
    with pytest.raises(ModelNotFoundError, match=r"'fmri-broken-key' is there but cannot be used: .*'familly'"):
        model_registry.get_card("fmri-broken-key")


def test_a_part_of_a_card_cannot_be_changed():
    card = ModelCard.read(BUILT_IN)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        card.model_id = "fmri-a-b"
