"""Words per second of a language model in padded windows, beside the loop that was published; both sides in turns.

    python benchmarks/language.py --words 40 --threads 1

GPT-2 with 124 million random weights. The published loop computes one window of 33 ids after another with the head that
predicts tokens and all hidden states. Its figures are of as many words as are given, ours of eight times as many.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

STORY = "so it began in the dark woods where the old dog slept by the river and rain fell on all the leaves"
TEXT = STORY.split()
N_IDS = 33


def write_network(folder: Path) -> None:
    """GPT-2 124M with random weights, and a byte-level tokenizer that has the words of the text."""
    import transformers
    from tokenizers import ByteLevelBPETokenizer

    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(transformers.GPT2Config()).save_pretrained(folder)
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        [" ".join(TEXT)] * 50, vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)


class PublishedLoop:
    """One window after another through the whole network."""

    def __init__(self, folder: Path, state: int) -> None:
        import transformers

        self.network = transformers.GPT2LMHeadModel.from_pretrained(folder, local_files_only=True).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.state = state

    def features(self, words: list[str]) -> np.ndarray:
        past: list[int] = []
        rows = []
        for word in words:
            states = []
            for token in self.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]:
                past.append(token)
                window = ([0] * N_IDS + past)[-N_IDS:]
                with torch.no_grad():
                    found = self.network(torch.tensor([window]), output_hidden_states=True).hidden_states
                states.append(found[self.state][0, -1].numpy())
            rows.append(np.mean(states, axis=0))
        return np.stack(rows)


class Ours:
    """What a model of BERG computes, in batches of 64 words."""

    def __init__(self, folder: Path, state: int) -> None:
        from berg.features.language_network import read_language_network

        self.network = read_language_network(["gpt2"], str(folder), [state]).eval()

    def features(self, words: list[str]) -> np.ndarray:
        from berg.features.text_windows import padded_windows

        with torch.no_grad():
            batches = (range(start, min(start + 64, len(words))) for start in range(0, len(words), 64))
            parts = [padded_windows(self.network, words, each.start, each.stop, N_IDS, 0) for each in batches]
        return torch.cat(parts).numpy()


def timed(side: Any, words: list[str]) -> tuple[float, float, np.ndarray]:
    """Words per second on the clock, and of processor time."""
    began, used = time.perf_counter(), time.process_time()
    found = side.features(words)
    return len(words) / (time.perf_counter() - began), len(words) / (time.process_time() - used), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_network(Path(folder))
        words = (TEXT * (1 + 8 * given.words // len(TEXT)))[: 8 * given.words]
        for state in (6, 12):
            sides = {"published loop": PublishedLoop(Path(folder), state), "berg": Ours(Path(folder), state)}
            best: dict[str, list[float]] = {name: [0.0, 0.0] for name in sides}
            features = {}
            for _ in range(given.turns):
                for name, side in sides.items():
                    chosen = words if name == "berg" else words[: given.words]
                    wall, processor, features[name] = timed(side, chosen)
                    best[name] = [max(best[name][0], wall), max(best[name][1], processor)]
            theirs = features["published loop"]
            difference = np.abs(features["berg"][: len(theirs)] - theirs).max() / theirs.std()
            for name, (wall, processor) in best.items():
                ratios = [mine / other for mine, other in zip(best[name], best["published loop"], strict=True)]
                print(
                    f"state {state} of 12, {given.threads} threads, {name}: {wall:.2f} words/s ({ratios[0]:.1f}), "
                    f"{processor:.2f} words per second of processor time ({ratios[1]:.1f})"
                )
            print(f"largest difference: {difference:.1e} sd")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
