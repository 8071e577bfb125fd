"""Hidden states of language models, beside the whole network run on one sequence after another."""

import numpy as np
import pytest
import torch
from published import language

from berg.core.exceptions import InvalidParameterError, StimulusError
from berg.features.language_network import read_language_network
from berg.features.text_windows import characters_by_tr, growing_context, last_tokens, padded_windows

WORDS = "so it began in the dark woods where children's songs".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    kinds = ("gpt2", "opt", "llama", "qwen2", "bert")
    home = tmp_path_factory.mktemp("language")
    return {kind: language.write_language_model(home / kind, kind, n_blocks=4) for kind in kinds}


def network(folder, *states):
    return read_language_network(["tiny"], str(folder), states).eval()


def assert_close(found, truth):
    np.testing.assert_allclose(found.numpy(), truth, atol=1e-4 * truth.std(), rtol=0)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama", "qwen2", "bert"])
@pytest.mark.parametrize("state", [0, 1, 3, 4])
def test_hidden_states_are_those_that_transformers_numbers_so(kind, state, folders):
    ids = [5, 9, 200, 33, 12]
    with torch.no_grad():
        found = network(folders[kind], state)(torch.tensor([ids]))[0]
    assert_close(found, language.hidden_states(folders[kind], ids)[state])


def test_blocks_behind_the_last_state_are_not_there_and_the_last_ones_count_from_the_end(folders):
    whole, part = network(folders["gpt2"], -1, -2), network(folders["gpt2"], 2)
    assert (len(whole.network.h), len(part.network.h)) == (4, 2)
    assert not hasattr(part.network, "lm_head")
    ids = [5, 9, 200]
    states = language.hidden_states(folders["gpt2"], ids)
    with torch.no_grad():
        assert_close(whole(torch.tensor([ids]))[0], (states[-1] + states[-2]) / 2)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_sentences_of_any_length_at_once_are_those_alone(kind, folders):
    sentences = ["so it began", "the dog", "where the old dog slept and the river ran", "the sea", "x"]
    with torch.no_grad():
        found = last_tokens(network(folders[kind], 3), sentences)
    assert_close(found, language.last_token_features(folders[kind], sentences, 3))


def test_windows_of_ids_are_those_alone_wherever_a_batch_begins(folders):
    own, truth = network(folders["gpt2"], 3), language.padded_window_features(folders["gpt2"], WORDS, 3, n_ids=5)
    for first, stop in [(0, len(WORDS)), (0, 1), (4, 7)]:
        with torch.no_grad():
            found = padded_windows(own, WORDS, first, stop, 5, 0)
        np.testing.assert_allclose(found.numpy(), truth[first:stop], atol=1e-5 * truth.std())


@pytest.mark.parametrize("n_words", [1, 4, 5, 13])
def test_a_growing_context_gives_each_word_what_its_window_alone_gives(n_words, folders):
    words = ["", *(WORDS * 2)[: n_words - 1], "'s", " ", "end", ""][: n_words + 3]
    with torch.no_grad():
        parts = list(growing_context(network(folders["opt"], 2), words, 4, 2))
    assert [first for first, _ in parts] == np.cumsum([0, *(len(part) for _, part in parts[:-1])]).tolist()
    truth = language.growing_context_features(folders["opt"], words, 2, 4, 2)
    assert_close(torch.cat([part for _, part in parts]), truth)


def test_blank_words_alone_are_zeros(folders):
    with torch.no_grad():
        ((first, found),) = growing_context(network(folders["opt"], 2), ["", " ", "'s"], 8, 4)
    assert first == 0
    assert found.shape == (3, language.WIDTH)
    assert not found.any()


def test_a_network_that_sees_what_follows_has_no_growing_context(folders):
    with pytest.raises(InvalidParameterError, match="sees the words behind a word"):
        next(growing_context(network(folders["bert"], 2), ["a"], 8, 4))


def test_tokens_belong_to_the_first_tr_that_they_touch(folders):
    strings = ["so it be", "gan in the", "", "dark woods"]
    with torch.no_grad():
        found = characters_by_tr(network(folders["gpt2"], -1, -2), strings)
    tokenizer = language.tokenizer_of(folders["gpt2"])
    text = "".join(each + "\n" for each in strings)
    encoded = tokenizer(text, return_offsets_mapping=True)
    states = language.hidden_states(folders["gpt2"], encoded["input_ids"])
    mean = (states[-1] + states[-2]) / 2
    ends = np.cumsum([len(each) + 1 for each in strings])
    truth = np.zeros((4, language.WIDTH))
    for tr in range(4):
        begin = ends[tr] - len(strings[tr]) - 1
        own = [
            vector
            for vector, (a, b) in zip(mean, encoded["offset_mapping"], strict=True)
            if a < ends[tr] and b > begin and not a < begin
        ]
        truth[tr] = np.mean(own, axis=0) if own else 0
    assert_close(found, truth)
    assert np.abs(truth[2]).sum() > 0  # its line break


def test_a_text_that_is_too_long_is_said_to_be(folders):
    with pytest.raises(StimulusError, match=r"'so it began .* has \d+ tokens; tiny takes 1 to 64"):
        last_tokens(network(folders["gpt2"], 1), ["so it began " * 40])
    with pytest.warns(UserWarning, match=r"TRs from \d+ on .* get features of zero"), torch.no_grad():
        found = characters_by_tr(network(folders["gpt2"], 1), ["so it began"] * 40)
    assert found[0].any()
    assert not found[-1].any()
