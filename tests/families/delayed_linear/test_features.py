"""Features of words by a language model, against transformers word by word."""

import sys

import numpy as np
import pytest
import torch
from published import language

from berg.core.exceptions import InvalidParameterError, MissingExtraError, StimulusError
from berg.families.delayed_linear.features import Space, WordSpaces, WordVolumes, weights_of, word_states
from berg.features.language_network import language_network
from berg.features.time_steps import read_time_steps
from berg.stimuli.text_stimuli import TextStimuli
from berg.stimuli.texts import Sentences, Words

CPU = torch.device("cpu")
WORDS = ["so", "it", "", "began", "in", "the", "dark", " ", "woods", "so", "the"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("bert")
    language.write_language_model(found, "bert", n_blocks=3)
    return found


def one_at_a_time(folder, n_before, state):
    """The mean state over the tokens of each word, each text alone through the whole network."""
    from transformers import AutoModel, AutoTokenizer

    network, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    said, rows = [], []
    for word in WORDS:
        if not word.strip():
            rows.append(np.zeros(language.WIDTH))
            continue
        said.append(word)
        text = " ".join(said[-n_before - 1 :])
        encoded = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        spans = encoded.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            states = network(input_ids=encoded["input_ids"], output_hidden_states=True).hidden_states[state][0]
        begin = len(text) - len(word)
        chosen = [place for place, (first, stop) in enumerate(spans) if stop > first and stop > begin]
        rows.append(states[chosen].double().mean(0).numpy())
    return np.array(rows)


@pytest.mark.parametrize(("n_before", "state"), [(0, -1), (2, -1), (3, 1)])
def test_states_of_words_are_those_of_each_alone(folder, n_before, state):
    network = language_network(["tiny"], str(folder), [state], "float32", CPU)
    expected = one_at_a_time(folder, n_before, state)
    found = word_states(network, WORDS, n_before)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.std())


def test_spaces_stand_beside_each_other(folder):
    stated = {
        "rate": Space(extractor="word_rate"),
        "meaning": Space(extractor="transformers/tiny", weights=str(folder)),
        "length": Space(extractor="word_length"),
    }
    spaces = WordSpaces(stated, CPU)
    found = spaces.features(WORDS)
    assert spaces.widths == {"rate": 1, "meaning": language.WIDTH, "length": 1}
    assert found[:, 0].tolist() == [1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1]
    assert found[:, -1].tolist() == [2, 2, 0, 5, 2, 3, 4, 0, 5, 2, 3]
    np.testing.assert_allclose(found[:, 1:-1], one_at_a_time(folder, 0, -1), atol=1e-5)
    module = WordVolumes(spaces, read_time_steps(["lanczos", {"delays": [1, 2]}]), 2.0)
    assert module.columns["length", 2] == slice(2 * language.WIDTH + 3, 2 * language.WIDTH + 4)


def test_rows_are_volumes_and_any_of_them_are_those_of_the_whole():
    spaces = WordSpaces({"length": Space(extractor="word_length")}, CPU)
    module = WordVolumes(spaces, read_time_steps(["lanczos", "trim", {"delays": [0, 2]}]), 1.5, after=4)
    text = TextStimuli(Words(["a", "bb", "ccc"], [0.0, 1.0, 7.2]))
    arranged = module.arrange(text)
    assert arranged.names == [0.0, 1.5, 3.0, 4.5, 6.0, 7.5, 9.0, 10.5]
    whole = module(torch.from_numpy(arranged.read(slice(None))))
    parts = [module(torch.from_numpy(arranged.read(slice(start, start + 3)))) for start in range(0, 8, 3)]
    torch.testing.assert_close(torch.cat(parts), whole)
    torch.testing.assert_close(whole[2:, 1], whole[:-2, 0])


def test_texts_without_times_and_rows_of_no_text_are_refused():
    spaces = WordSpaces({"length": Space(extractor="word_length")}, CPU)
    module = WordVolumes(spaces, read_time_steps(["lanczos", {"trim": {"start": 9}}, {"delays": [0]}]), 2.0)
    with pytest.raises(StimulusError, match="words with their onsets"):
        module.arrange(TextStimuli(Sentences(["a"])))
    with pytest.raises(StimulusError, match=r"begins at 1 s, and the model leaves out 9 volumes of 2 s: none is left"):
        module.arrange(TextStimuli(Words(["a"], [1.0])))
    with pytest.raises(StimulusError, match="of no text that this model was given"):
        module(torch.tensor([[0, 12345]]))


def test_the_language_model_of_a_package_lies_in_its_folder(tmp_path, monkeypatch):
    package = tmp_path / "tiny_words_package"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    space = Space(extractor="transformers/tiny", weights="package tiny_words_package/model sha256:0123abcd")
    assert weights_of(space) == f"{package / 'model'} sha256:0123abcd"
    assert "tiny_words_package" not in sys.modules  # nothing of it is run
    missing = Space(extractor="transformers/tiny", weights="package no_such_words/model")
    with pytest.raises(MissingExtraError, match="pip install no-such-words"):
        weights_of(missing)


def test_an_extractor_that_is_none_is_refused():
    with pytest.raises(InvalidParameterError, match="extractors word_count; there are word_rate, word_length and"):
        WordSpaces({"count": Space(extractor="word_count")}, CPU)
