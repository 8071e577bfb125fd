"""Tiny random language models, their tokenizer, and the published layouts of models on them; and a second computation.

The reference is written as the publications compute: one window after another through the whole network of
transformers, with all hidden states, and numpy for the rest.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .layouts import model_folder as folder_by_id
from .layouts import write_pickled_npy

TUCKUTE, LEBEL, ZADA = "fmri-tuckute_2024-GPT2_XL", "fmri-lebel2023-opt_1_3b", "ecog-zada2025-gpt2_xl"
TUCKUTE_FILE = "mapping-full_SOURCE-22_TARGET-20221214a-None_d-swr-5-0.05-bySessVoxZ_MAPPING-None-False-False.pkl"
TUCKUTE_ROIS = [f"lang_LH_{name}" for name in ("IFGorb", "IFG", "MFG", "AntTemp", "PostTemp", "netw")]
WIDTH, N_BLOCKS = 32, 26

Floats = NDArray[np.float64]


def write_tokenizer(folder: Path, begin: str = "<|endoftext|>") -> None:
    """A byte-level tokenizer with the merges of a small text."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    text = ["so it began in the dark woods where the old dog slept and the river ran", "the children's songs were"]
    bpe.train_from_iterator(text, vocab_size=320, special_tokens=["<pad>", begin], show_progress=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=begin, pad_token="<pad>")
    fast.save_pretrained(folder)


def write_language_model(
    folder: Path, kind: str = "gpt2", seed: int = 0, n_blocks: int = N_BLOCKS, safe: bool = True
) -> Path:
    """A random network of the same class as the published one, of width 32."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    common = {"vocab_size": 320, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": None}
    wide = {"hidden_size": WIDTH, "num_hidden_layers": n_blocks, "num_attention_heads": 2, **common}
    configurations: dict[str, Any] = {
        "gpt2": lambda: transformers.GPT2Config(n_embd=WIDTH, n_layer=n_blocks, n_head=2, n_positions=64, **common),
        "opt": lambda: transformers.OPTConfig(
            ffn_dim=64, word_embed_proj_dim=WIDTH, max_position_embeddings=2048, **{**wide, "pad_token_id": 0}
        ),
        "bert": lambda: transformers.BertConfig(intermediate_size=64, **{**wide, "pad_token_id": 0}),
        "llama": lambda: transformers.LlamaConfig(intermediate_size=64, num_key_value_heads=1, **wide),
        "qwen2": lambda: transformers.Qwen2Config(intermediate_size=64, num_key_value_heads=1, **wide),
    }
    configuration = configurations[kind]()
    classes = {"bert": transformers.AutoModelForMaskedLM}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = classes.get(kind, transformers.AutoModelForCausalLM).from_config(configuration)
        with torch.no_grad():
            for weight in network.parameters():
                weight.normal_(1.0 if weight.ndim == 1 and weight.mean() > 0.5 else 0.0, 0.15)
    network.save_pretrained(folder)
    if not safe:
        torch.save(network.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    write_tokenizer(folder)
    return folder


def hidden_states(folder: Path, ids: Sequence[int]) -> list[Floats]:
    """All hidden states of one sequence, in float64, each of shape (n_tokens, width)."""
    network = _whole(folder)
    with torch.no_grad():
        found = network(torch.tensor([list(ids)]), output_hidden_states=True).hidden_states
    return [state[0].double().numpy() for state in found]


def model_folder(berg_dir: Path, model_id: str) -> Path:
    """The folder of a model; that of LeBel's has another name than its id."""
    folder: Path = folder_by_id(berg_dir, model_id)
    return folder.with_name("model-opt_1_3b_ridge") if model_id == LEBEL else folder


_networks: dict[Path, Any] = {}


def _whole(folder: Path) -> Any:
    import transformers

    if folder not in _networks:
        _networks.clear()
        is_safe = (folder / "model.safetensors").exists()
        network = transformers.AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=is_safe)
        _networks[folder] = network.double().eval()
    return _networks[folder]


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer in a folder."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text, without special tokens."""
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def last_token_features(folder: Path, sentences: Sequence[str], state: int) -> Floats:
    """The hidden state at the last token of each sentence, one after another."""
    tokenizer = tokenizer_of(folder)
    return np.stack([hidden_states(folder, ids_of(tokenizer, sentence))[state][-1] for sentence in sentences])


def padded_window_features(folder: Path, words: Sequence[str], state: int, n_ids: int = 33, pad: int = 0) -> Floats:
    """The mean over tokens of a word of the last state of each token's window, one window after another."""
    tokenizer, past, rows = tokenizer_of(folder), list[int](), []
    for word in words:
        states = []
        for token in ids_of(tokenizer, " " + word):
            past.append(token)
            window = past[-n_ids:]
            window = [pad] * (n_ids - len(window)) + window
            states.append(hidden_states(folder, window)[state][-1])
        rows.append(np.mean(states, axis=0))
    return np.stack(rows)


def growing_context_features(
    folder: Path, words: Sequence[str], state: int, longest: int = 512, kept: int = 256, begin: int = 1
) -> Floats:
    """Each word alone: its window with all that stands before it there, through the whole network."""
    tokenizer = tokenizer_of(folder)
    vectors = np.zeros((len(words), _whole(folder).config.hidden_size))
    window: list[list[int]] = []  # tokens of its words
    n_real, last = 0, np.zeros(vectors.shape[1])
    for number, word in enumerate(words):
        if word.strip() and word != "'s":
            if len(window) == longest:
                window = window[-kept:]
            window.append(ids_of(tokenizer, word if n_real == 0 else " " + word))
            n_real += 1
            last = hidden_states(folder, [begin, *(token for tokens in window for token in tokens)])[state][-1]
        vectors[number] = last
    return vectors


def lebel_design(vectors: Floats, onsets: Sequence[float]) -> Floats:
    """Lanczos by a loop, z-score, four delays."""
    first, n_rows = onsets[0], int(np.ceil((onsets[-1] + 8 - onsets[0]) / 2))
    rows = np.zeros((n_rows, vectors.shape[1]))
    for row in range(n_rows):
        for vector, onset in zip(vectors, onsets, strict=True):
            distance = (first + 2 * row - onset) * 0.5
            if distance == 0:
                rows[row] += vector
            elif abs(distance) < 3:
                x = np.pi * distance
                rows[row] += vector * 3 * np.sin(x) * np.sin(x / 3) / x**2
    deviation = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(deviation < 1e-10, 1, deviation)
    design = np.zeros((n_rows, 4 * rows.shape[1]))
    for delay in (1, 2, 3, 4):
        design[delay:, (delay - 1) * rows.shape[1] : delay * rows.shape[1]] = rows[: max(0, n_rows - delay)]
    return design


# The published files


def write_tuckute(berg_dir: Path, rng: np.random.Generator, n_features: int = WIDTH, **replaced: Any) -> Path:
    """The pickle of a mapping, as scikit-learn's objects, and the metadata, whose regions are in another order."""
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    X, Y = rng.standard_normal((40, n_features)), rng.standard_normal((40, 6))
    ridge = RidgeCV(alphas=[1.0, 10.0]).fit(X, Y)
    scalers = {"X_scaler": StandardScaler().fit(X + 3), "y_scaler": StandardScaler().fit(Y - 2)}
    folder = model_folder(berg_dir, TUCKUTE)
    path = folder / "encoding_models_weights" / TUCKUTE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"clf": ridge, "neuroid_order": TUCKUTE_ROIS, **scalers, **replaced}))
    metadata = {
        "fmri": {"rois": sorted(TUCKUTE_ROIS), "train_target_ids": np.arange(10), "train_targets": np.zeros((10, 6))},
        "encoding_model": {"optimal_layer": 22, "noise_ceiling": np.linspace(0.3, 0.6, 6)},
    }
    write_pickled_npy(folder / "metadata" / "metadata.npy", metadata)
    return path


def write_lebel(berg_dir: Path, subject: str, rng: np.random.Generator, n_voxels: int = 40, width: int = WIDTH) -> Path:
    """Weights and metadata of one subject, 40 of about 81,000 voxels."""
    folder = model_folder(berg_dir, LEBEL)
    weights = 0.1 * rng.standard_normal((4 * width, n_voxels), dtype=np.float32)
    path = folder / "encoding_models_weights" / f"weights_{subject}.npy"
    write_pickled_npy(path, {"ridge_weights": weights})
    names = ("AC", "Broca", "IPS ", "V1", "pSTS")
    rois = {name: np.isin(np.arange(n_voxels), rng.choice(n_voxels, 5, replace=False)) for name in names}
    per_voxel = {
        name: rng.uniform(0, 1, n_voxels) for name in ("noise_ceiling", "correlation", "ridge_alphas", "cc_norm")
    }
    metadata = {
        "fmri": {"subject_id": subject, "n_voxels": n_voxels, "tr": 2.0, "voxel_size_mm": [2.24, 2.24, 4.1]},
        "roi": rois,
        "encoding_model": {"train_stories": ["a", "b"], "test_stories": ["wheretheressmoke"], **per_voxel},
    }
    write_pickled_npy(folder / "metadata" / f"metadata_{subject}.npy", metadata)
    return path


def write_zada(
    berg_dir: Path, subject: str, rng: np.random.Generator, n_electrodes: int = 3, width: int = WIDTH
) -> Path:
    """Weights and metadata of one subject, 3 of about 100 electrodes with all 129 lags."""
    n_lags = 129
    n_units = n_electrodes * n_lags

    def scaler(n: int) -> dict[str, Any]:
        scale = rng.uniform(0.5, 2, n)
        return {
            "scale_": scale, "mean_": rng.standard_normal(n), "var_": scale**2, "n_features_in_": n,
            "n_samples_seen_": np.int64(500),
        }  # fmt: skip

    folder = model_folder(berg_dir, ZADA)
    path = folder / "encoding_models_weights" / f"weights_sub-{subject}.npy"
    weights = {
        "scaler_X_param": scaler(width),
        "scaler_Y_param": scaler(n_units),
        "ridge_param": {
            "coef_": rng.standard_normal((width, n_units), dtype=np.float32),
            "intercept_": rng.standard_normal(n_units),
            "best_alphas_": np.ones(n_units),
            "n_features_in_": width,
        },
        "shape": {"n_electrodes": n_electrodes, "n_lags": n_lags},
    }
    write_pickled_npy(path, weights)
    ecog = {
        "subject_id": subject, "n_electrodes": n_electrodes, "n_lags": n_lags, "sfreq": 32, "tmin": -2.0, "tmax": 2.0,
        "times": np.linspace(-2, 2, n_lags), "ch_names": [f"G{number}" for number in range(n_electrodes)],
        "ch_coords": rng.uniform(-60, 60, (n_electrodes, 3)),
    }  # fmt: skip
    fitted = {
        "n_words_total": 5000, "n_epochs": 5000, "epoch_selection": "all", "feature_model": "gpt2-xl",
        "feature_layer": 24, "feature_dim": width, "correlation_results": rng.uniform(0, 0.4, (n_electrodes, n_lags)),
    }  # fmt: skip
    write_pickled_npy(folder / "metadata" / f"metadata_sub-{subject}.npy", {"ecog": ecog, "encoding_model": fitted})
    return path


def zada_responses(path: Path, features: Floats) -> Floats:
    """Standardize, regress, and undo the standardization of the responses; shape (n_words, n_electrodes, 129)."""
    weights = np.load(path, allow_pickle=True).item()
    x, y, ridge = weights["scaler_X_param"], weights["scaler_Y_param"], weights["ridge_param"]
    standardised = (features - x["mean_"]) / x["scale_"]
    flat = (standardised @ ridge["coef_"].astype(float) + ridge["intercept_"]) * y["scale_"] + y["mean_"]
    found: Floats = flat.reshape(len(features), -1, 129)
    return found
