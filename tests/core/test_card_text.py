import re
from pathlib import Path

import pytest
import yaml

import berg.models
from berg.core.card_text import sections, to_markdown, to_text
from berg.core.model_card import ModelCard

BUILT_IN = Path(berg.models.__file__).parent / "model_cards" / "fmri-szinte2024-prf_css.yaml"

SMALL = """\
model_id: eeg-made_up-linear
modality: eeg
training_dataset: made_up
model_type: a | b
input: {shape: any shape, description: Sounds.}
output: {shape: [batch_size, n_times]}
parameters:
  subject: {type: int, required: true, valid_values: 1-3, description: "Whom\\n  to take"}
  low: {minimum: 0}
  high: {maximum: 1.5, unit: degrees}
  both: {minimum: 0, maximum: 40, default: false, example: x}
  selection: {type: dict, properties: {roi: {type: str, description: Where.}}}
performance: {metrics: [{name: median r, value: 0.25, description: Held out.}]}
references: [{model: A paper., data: Another.}, A third.]
licence: CC0
"""


@pytest.fixture(params=["built-in", "small"])
def card(request):
    return ModelCard.read(BUILT_IN) if request.param == "built-in" else ModelCard.parse(SMALL, "card.yaml")


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def test_text_and_markdown_say_the_same_words_in_the_same_order(card):
    assert words(to_text(card)) == words(to_markdown(card))


def test_every_parameter_and_selection_key_appears_with_all_that_the_card_says_of_it():
    said = yaml.safe_load(BUILT_IN.read_text())["parameters"]
    described = said | said["selection"]["properties"]
    text = " ".join(to_text(ModelCard.read(BUILT_IN)).split())
    rows = {name: (kind, remark) for part in sections(ModelCard.read(BUILT_IN)) for name, kind, remark in part.rows}
    assert len(described) >= 5
    for name, parameter in described.items():
        kind, remark = rows[name]
        assert parameter["type"] in kind
        assert " ".join(parameter["description"].split()) in remark
        assert all(str(value) in remark for value in parameter.get("valid_values", []))
        assert str(parameter.get("default", "")) in remark
        assert f"{name} {kind}. {remark}" in text


def test_the_rows_of_a_small_card_read_as_sentences():
    text = to_text(ModelCard.parse(SMALL, "card.yaml"))
    assert "architecture      a | b" in text
    assert "shape  any shape" in text
    assert "shape  (batch_size, n_times)" in text
    assert "subject    int, required. Whom to take One of: 1, 2, 3." in text
    assert "low        any. At least 0." in text
    assert "high       any. At most 1.5 degrees." in text
    assert "both       any. From 0 to 40. Default: False. Example: 'x'." in text
    assert "median r  0.25. Held out." in text
    assert "- model: A paper.\n- data: Another.\n- A third." in text
    assert "Limitations" not in text


def test_no_line_of_text_is_wider_than_asked(card):
    for width in (60, 96):
        assert max(map(len, to_text(card, width).splitlines())) <= width


def test_markdown_has_one_title_and_escapes_bars_in_tables():
    page = to_markdown(ModelCard.parse(SMALL, "card.yaml"))
    assert page.startswith("# eeg-made_up-linear\n")
    assert len(re.findall(r"^# ", page, re.MULTILINE)) == 1
    assert "| architecture | a \\| b |  |" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {4}


def test_a_card_without_anything_is_described_by_its_id():
    card = ModelCard.parse("model_id: a-b-c\nmodality: a\ntraining_dataset: b\n", "card.yaml")
    assert words(to_text(card)) == ["a", "b", "c", "modality", "a", "training", "dataset", "b"]
