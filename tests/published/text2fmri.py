"""fmri-cneuromod_algo2025-text2fmri in the published layout, at reduced size, and its equations in float64.

A folder of weights is a cache of the hub: ``models--OWNER--NAME/snapshots/REVISION``, with ``refs/main``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from published import layouts

TEXT2FMRI = "fmri-cneuromod_algo2025-text2fmri"
VARIANT, SECOND = "ShreyDixit/Text2fMRI-Qwen-2.5-0.5B", "ShreyDixit/Text2fMRI-Qwen-2.5-3B"
LANGUAGE, SECOND_LANGUAGE = "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-3B"
NETWORKS = ("vis", "sommot", "dorsattn", "salventattn", "limbic", "cont", "default")
N_PARCELS, WIDTH, N_HEADS, N_LAYERS, SUBJECT_WIDTH = 20, 64, 2, 2, 8
N_STATES, LANGUAGE_WIDTH, LANGUAGE_BLOCKS, MAX_TOKENS = 4, 32, 6, 200


def write_text2fmri(
    berg_dir: Path,
    rng: np.random.Generator,
    variant: str = VARIANT,
    language: str = LANGUAGE,
    language_width: int = LANGUAGE_WIDTH,
    **changed: Any,
) -> Path:
    """Metadata, a variant and its language model, all random; returns the weights of the variant."""
    folder = layouts.model_folder(berg_dir, TEXT2FMRI)
    cache = folder / "encoding_models_weights"
    masks = {name: np.zeros(N_PARCELS, bool) for name in NETWORKS}
    for parcel in range(N_PARCELS):
        masks[NETWORKS[parcel % (N_PARCELS // 2) * len(NETWORKS) // (N_PARCELS // 2)]][parcel] = True
    layouts.write_pickled_npy(folder / "metadata" / "metadata.npy", {"roi_masks": masks})
    configuration = configuration_of(language, language_width) | changed
    snapshot = new_snapshot(cache, variant)
    (snapshot / "config.json").write_text(json.dumps(configuration))
    torch.save(weights_of(configuration, rng), snapshot / "model.pt")
    write_language_model(new_snapshot(cache, language), language_width, int(rng.integers(1000)))
    return snapshot / "model.pt"


def configuration_of(language: str, language_width: int) -> dict[str, Any]:
    return {
        "tr": 1.49, "num_subjects": 4, "num_rois": N_PARCELS, "num_transformer_layers": N_LAYERS,
        "num_transformer_heads": N_HEADS, "transformer_dim": WIDTH, "subject_embedding_dim": SUBJECT_WIDTH,
        "extractor_LLM": language, "extractor_LLM_feature_size": language_width, "extractor_LLM_dtype": "float16",
        "extractor_LLM_num_last_hidden_states": N_STATES, "some_other_key": [1, 2],
    }  # fmt: skip


def new_snapshot(cache: Path, repository: str, revision: str = "0123abcd") -> Path:
    """The folder of a revision, as the hub's cache has it."""
    own = cache / f"models--{repository.replace('/', '--')}"
    (own / "refs").mkdir(parents=True, exist_ok=True)
    (own / "refs" / "main").write_text(revision)
    snapshot = own / "snapshots" / revision
    snapshot.mkdir(parents=True, exist_ok=True)
    return snapshot


def weights_of(configuration: dict[str, Any], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """A state dict with the published names."""
    width, subjects = configuration["transformer_dim"], configuration["num_subjects"]
    embedded, parcels = configuration["subject_embedding_dim"], configuration["num_rois"]
    rotated = width // configuration["num_transformer_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "subj_emb.weight": (subjects, embedded),
        "inp.weight": (width, configuration["extractor_LLM_feature_size"] + embedded), "inp.bias": (width,),
        "out.weight": (parcels, width), "out_bias.weight": (subjects, parcels), "encoder.final_norm.g": (1,),
    }  # fmt: skip
    for block in range(2 * configuration["num_transformer_layers"]):
        place = f"encoder.layers.{block}"
        shapes[f"{place}.0.0.g"] = (1,)
        if block % 2 == 0:
            shapes |= {f"{place}.1.to_{name}.weight": (width, width) for name in ("q", "k", "v", "out")}
        else:
            shapes |= {f"{place}.1.ff.0.0.weight": (4 * width, width), f"{place}.1.ff.0.0.bias": (4 * width,)}
            shapes |= {f"{place}.1.ff.2.weight": (width, 4 * width), f"{place}.1.ff.2.bias": (width,)}
    tensors = {
        name: torch.from_numpy(rng.normal(0.5 if name.endswith(".g") else 0, 0.15, shape).astype(np.float32))
        for name, shape in shapes.items()
    }
    exponents = torch.arange(0, rotated, 2).float() / rotated
    return tensors | {"encoder.rotary_pos_emb.inv_freq": 1.0 / 10000**exponents}


def write_language_model(folder: Path, width: int, seed: int, max_tokens: int = MAX_TOKENS) -> None:
    """A random Qwen2, and a tokenizer of bytes with a few longer tokens."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    n_tokens = write_tokenizer(folder)
    configuration = Qwen2Config(
        vocab_size=n_tokens, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=LANGUAGE_BLOCKS,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=max_tokens, dtype="bfloat16",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Qwen2ForCausalLM(configuration)
    for name, parameter in network.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, 0, 0.15, torch.Generator().manual_seed(seed))
    network.to(torch.bfloat16).save_pretrained(folder)


def write_tokenizer(folder: Path) -> int:
    """Bytes as tokens, and merges that make a few words; returns how many tokens there are."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ċ", "Ċ"), ("i", "n"), ("Ġ", "a"), (".", "Ċ")]
    vocabulary = {token: number for number, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\w+|[^\w\s]+\n*|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=None).save_pretrained(folder)
    return len(vocabulary)


def expected_features(language: Path, texts: Sequence[str], dtype: torch.dtype = torch.float16) -> NDArray[Any]:
    """The mean state of each volume, token by token; shape (n_volumes, width)."""
    from transformers import AutoModel, AutoTokenizer

    text, spans, start = "", [], 0
    for each in texts:
        text += each + "\n"
        spans.append((start, len(text)))
        start = len(text)
    found = AutoTokenizer.from_pretrained(language)(text, return_offsets_mapping=True)
    network = AutoModel.from_pretrained(language, dtype=dtype).eval()
    ids = found["input_ids"][: network.config.max_position_embeddings]
    with torch.no_grad():
        states = network(torch.tensor([ids]), output_hidden_states=True).hidden_states
    mean = torch.stack(states[-N_STATES:]).mean(0)[0].float().numpy()
    sums, counts = np.zeros((len(texts), mean.shape[1])), np.zeros(len(texts))
    for state, (first, stop) in zip(mean, found["offset_mapping"], strict=False):
        for volume, (begin, end) in enumerate(spans):
            if first < end and stop > begin:
                sums[volume] += state
                counts[volume] += 1
                break
    return sums / np.maximum(counts, 1)[:, None]


def expected_responses(path: Path, features: NDArray[Any], subject: int) -> NDArray[Any]:
    """The equations of the published model in float64, one volume, head and block after another."""
    weights = {name: tensor.double().numpy() for name, tensor in torch.load(path, weights_only=True).items()}
    stated = json.loads((path.parent / "config.json").read_text())
    width, heads = stated["transformer_dim"], stated["num_transformer_heads"]
    number = [1, 2, 3, 5].index(subject)
    given = np.hstack([features, np.tile(weights["subj_emb.weight"][number], (len(features), 1))])
    x = given @ weights["inp.weight"].T + weights["inp.bias"]
    for block in range(2 * stated["num_transformer_layers"]):
        place = f"encoder.layers.{block}"
        normed = norm(x, weights[f"{place}.0.0.g"])
        if block % 2:
            hidden = normed @ weights[f"{place}.1.ff.0.0.weight"].T + weights[f"{place}.1.ff.0.0.bias"]
            hidden = torch.nn.functional.gelu(torch.from_numpy(hidden)).numpy()
            x = x + hidden @ weights[f"{place}.1.ff.2.weight"].T + weights[f"{place}.1.ff.2.bias"]
        else:
            projected = [normed @ weights[f"{place}.1.to_{name}.weight"].T for name in "qkv"]
            seen = attention(*projected, heads, weights["encoder.rotary_pos_emb.inv_freq"])
            x = x + seen @ weights[f"{place}.1.to_out.weight"].T
    x = norm(x, weights["encoder.final_norm.g"])
    assert x.shape[1] == width
    return x @ weights["out.weight"].T + weights["out_bias.weight"][number]


def norm(x: NDArray[Any], gain: NDArray[Any]) -> NDArray[Any]:
    return gain * np.sqrt(x.shape[1]) * x / np.linalg.norm(x, axis=1, keepdims=True)


def attention(q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], heads: int, frequencies: NDArray[Any]) -> NDArray[Any]:
    parts = []
    for queries, keys, values in zip(*(np.split(each, heads, axis=1) for each in (q, k, v)), strict=True):
        scores = turned(queries, frequencies) @ turned(keys, frequencies).T / np.sqrt(queries.shape[1])
        shares = np.exp(scores - scores.max(1, keepdims=True))
        parts.append(shares / shares.sum(1, keepdims=True) @ values)
    return np.hstack(parts)


def turned(x: NDArray[Any], frequencies: NDArray[Any]) -> NDArray[Any]:
    """Pairs of dimensions (j, j + n) as complex numbers, turned by the position."""
    n = len(frequencies)
    pairs = (x[:, :n] + 1j * x[:, n : 2 * n]) * np.exp(1j * np.arange(len(x))[:, None] * frequencies)
    return np.hstack([pairs.real, pairs.imag, x[:, 2 * n :]])
