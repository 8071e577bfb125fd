"""What a language model sees of a text when it computes the features of a sentence, a word or a volume.

Each rule is one that published models were fitted with. Batches hold sequences of one length, so that the numbers are
those of each sequence alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from berg.core.exceptions import InvalidParameterError, StimulusError, StimulusWarning
from berg.core.stacklevel import users_stacklevel
from berg.features.language_network import LanguageNetwork

TOKENS_AT_ONCE = 4096
"""Of a batch: on a processor more are no faster (GPT-2, two cores), and take more memory."""


def last_tokens(network: LanguageNetwork, sentences: Sequence[str]) -> Tensor:
    """The hidden state at the last token of each sentence, which the network sees alone, without special tokens.

    Returns
    -------
    features
        Shape (n_sentences, width), float32.
    """
    ids = [network.ids_of(sentence) for sentence in sentences]
    for number, each in enumerate(ids):
        _check_length(network, len(each), f"Sentence {number:,} of this batch, {sentences[number]!r:.60},")
    by_length: dict[int, list[int]] = {}
    for number, each in enumerate(ids):
        by_length.setdefault(len(each), []).append(number)
    features = torch.empty(len(ids), network.width, device=_device(network))
    for numbers in by_length.values():
        features[numbers] = _last_of(network, torch.tensor([ids[number] for number in numbers]))
    return features


def padded_windows(
    network: LanguageNetwork, words: Sequence[str], first: int, stop: int, n_ids: int, pad_id: int
) -> Tensor:
    """The mean over the tokens of each word, of the hidden state at a token that ends a window of as many ids.

    Each word has a blank in front. Before the first token of the text stands the id of padding, without a mask, as the
    published model was fitted: it is a token like the others.

    Parameters
    ----------
    words
        All words of the text.
    first, stop
        Those whose features are wanted.
    n_ids
        Of a window, the token itself among them.
    pad_id
        Stands before the text.

    Returns
    -------
    features
        Shape (stop - first, width), float32.
    """
    own = [network.ids_of(f" {word}") for word in words[first:stop]]
    for number, ids in enumerate(own, start=first):
        if not ids:
            raise StimulusError(f"Word {number:,} (from 0), {words[number]!r}, has no token. Leave it out.")
    before = [pad_id] * (n_ids - 1) + _ids_before(network, words, first, n_ids - 1)
    flat = torch.tensor(
        [*before[-(n_ids - 1) :], *(each for ids in own for each in ids)] if n_ids > 1 else sum(own, ())
    )
    states = _last_of(network, flat.unfold(0, n_ids, 1))
    of_word = torch.repeat_interleave(torch.tensor([len(ids) for ids in own])).to(states.device)
    sums = torch.zeros(len(own), states.shape[1], device=states.device).index_add_(0, of_word, states)
    return sums / torch.bincount(of_word, minlength=len(own))[:, None]


def _ids_before(network: LanguageNetwork, words: Sequence[str], first: int, n_ids: int) -> list[int]:
    """The last ids before a word, as many as wanted or as there are."""
    found: list[int] = []
    number = first - 1
    while number >= 0 and len(found) < n_ids:
        found = [*network.ids_of(f" {words[number]}"), *found]
        number -= 1
    return found[-n_ids:] if n_ids else []


def growing_context(
    network: LanguageNetwork, words: Sequence[str], longest: int, kept: int
) -> Iterator[tuple[int, Tensor]]:
    """The hidden state at the last token of each word, after at most so many words, part by part of the text.

    A window begins with the token that begins a text, and grows word by word; all words of one window are computed in
    one pass, since a causal network sees nothing behind a word. When a window holds `longest` words it begins anew with
    the last `kept`. Words count that say something: not blank ones, nor ``'s``, which get the features of the word
    before them; zeros at the beginning. The first word has no blank in front, all others have.

    Yields
    ------
    first
        The number of the first word of the part.
    features
        Shape (n_words_of_the_part, width), float32.
    """
    if not network.is_causal:
        raise InvalidParameterError(
            f"{network.identity.name} sees the words behind a word, so that it has no growing context. Take a causal "
            "language model, such as GPT-2."
        )
    real = [number for number, word in enumerate(words) if word.strip() and word != "'s"]
    done, begin, before = 0, 0, torch.zeros(1, network.width, device=_device(network))
    first = 0
    while done < len(real):
        end = min(begin + longest, len(real))  # of the window, in words that count
        states = _at_words(network, [words[number] for number in real[begin:end]], begin == 0)
        new = torch.cat([before, states[done - begin :]])
        stop = real[end] if end < len(real) else len(words)
        of_word = np.searchsorted(real[done:end], np.arange(first, stop), side="right")  # 0: the word before the part
        yield first, new[torch.from_numpy(of_word).to(new.device)]
        before, done, first = new[-1:], end, stop
        begin = end - kept
    if not real:
        yield 0, before.expand(len(words), -1)


def _at_words(network: LanguageNetwork, words: Sequence[str], begins_text: bool) -> Tensor:
    """The states at the last token of each word of a window, shape (n_words, width)."""
    spelt = [word if begins_text and not number else f" {word}" for number, word in enumerate(words)]
    ids = [network.ids_of(word) for word in spelt]
    if (empty := next((number for number, each in enumerate(ids) if not each), None)) is not None:
        raise StimulusError(f"The word {words[empty]!r} has no token. Leave it out.")
    flat = [network.begin_id, *(each for tokens in ids for each in tokens)]
    _check_length(network, len(flat), f"A window of {len(words):,} words, from {words[0]!r},")
    states: Tensor = network(torch.tensor([flat], device=_device(network)))[0]
    last = torch.tensor([len(tokens) for tokens in ids]).cumsum(0)
    return states[last.to(states.device)].float()


def characters_by_tr(network: LanguageNetwork, strings: Sequence[str]) -> Tensor:
    """The mean over the tokens of each TR, of a text of all TRs with a line break behind each.

    A token belongs to the first TR whose characters it touches. Tokens behind the longest text that the network takes
    are left out, with a warning.

    Returns
    -------
    features
        Shape (n_trs, width), float32; zeros for a TR without a token.
    """
    text = "".join(f"{string}\n" for string in strings)
    if not network.tokenizer.is_fast:
        raise InvalidParameterError(f"The tokenizer of {network.identity.name} does not say where its tokens stand.")
    found = network.tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids, spans = found["input_ids"][: network.longest], np.array(found["offset_mapping"][: network.longest])
    ends = np.cumsum([len(string) + 1 for string in strings])
    if len(found["input_ids"]) > len(ids):
        last = int(np.searchsorted(ends, spans[-1, 0], side="right"))
        warnings.warn(
            f"The text has {len(found['input_ids']):,} tokens, {network.identity.name} takes {network.longest:,}: TRs "
            f"from {last + 1:,} on (from 0) get features of zero. Encode parts of it.",
            StimulusWarning,
            stacklevel=users_stacklevel(),
        )
    states = network(torch.tensor([ids], device=_device(network)))[0].float()
    touches = np.flatnonzero(spans[:, 1] > spans[:, 0])  # special tokens stand nowhere
    of_tr = torch.from_numpy(np.searchsorted(ends, spans[touches, 0], side="right")).to(states.device)
    sums = torch.zeros(len(strings), states.shape[1], device=states.device)
    sums.index_add_(0, of_tr, states[torch.from_numpy(touches).to(states.device)])
    return sums / torch.bincount(of_tr, minlength=len(strings)).clamp(min=1)[:, None]


def _last_of(network: LanguageNetwork, ids: Tensor) -> Tensor:
    """The state at the last token of each sequence of ids, shape (n_sequences, width), float32."""
    at_once = max(1, TOKENS_AT_ONCE // ids.shape[1])
    parts = (ids[start : start + at_once].to(_device(network)) for start in range(0, len(ids), at_once))
    return torch.cat([network.last_states(part) for part in parts])


def _check_length(network: LanguageNetwork, n_tokens: int, what: str) -> None:
    if not 0 < n_tokens <= network.longest:
        raise StimulusError(
            f"{what} has {n_tokens:,} tokens; {network.identity.name} takes 1 to {network.longest:,}. Give fewer."
        )


def _device(network: LanguageNetwork) -> torch.device:
    return next(network.parameters()).device
