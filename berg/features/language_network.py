"""Language models of transformers: tokens in, hidden states out, and nothing computed behind the last one needed.

Wolf et al. (2020), Transformers. Hidden states are numbered as transformers numbers them: 0 are the embeddings, with
positions; k is what block k puts out; the last one, n, is behind the final norm. Blocks behind the largest number that
is asked for are not even read, nor is what predicts tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, UnsafeFileError, listing
from berg.features import transformers_files
from berg.features.fused_layers import FusedLinear, with_fused_layers
from berg.features.gpt2_last_token import is_gpt2, last_states_of_gpt2
from berg.features.precision import dtype_of
from berg.features.stated_weights import StatedWeights, check_hash, hash_of, parse_weights
from berg.features.transformers_files import CONFIG, INDEX, WHOLE

_PICKLED = "pytorch_model.bin"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model")
_SHA256 = re.compile("[0-9a-f]{64}")
_N_WORDS_KEPT = 2**17  # of which the tokens are kept


@dataclass(frozen=True)
class NetworkIdentity:
    """Which language model it is, for those who want to compute with the same one.

    Attributes
    ----------
    name
        As the hub calls it.
    revision
        The commit of the hub; empty for a folder that does not lie in the cache of the hub.
    sha256
        Of its weights; of several files, that of their list as ``sha256sum`` prints it.
    """

    name: str
    revision: str
    sha256: str


class LanguageNetwork(nn.Module):
    """Token ids, shape (batch, n_tokens) -> hidden states, shape (batch, n_tokens, width), the mean of those asked for.

    Sequences of one batch have one length, so that nothing is padded or masked.
    """

    def __init__(
        self, network: Any, tokenizer: Any, states: Sequence[int], n_blocks: int, identity: NetworkIdentity
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.identity = identity
        self.states = tuple(states)
        self.n_blocks = n_blocks  # of the whole network
        self.longest = int(getattr(network.config, "max_position_embeddings", 0) or 2**31)
        self.ids_of: Callable[[str], tuple[int, ...]] = lru_cache(_N_WORDS_KEPT)(self._ids_of)
        self.rules: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()  # what was made of it, by its rule
        self._kept: dict[int, Tensor] = {}
        for number in self.states:
            if number < self.n_blocks:
                self._keep(number)

    def _keep(self, number: int) -> None:
        """Keep what a block puts out, or what the first one gets."""
        blocks = _blocks(self.network, max(1, max(self.states)))

        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            self._kept[number] = output[0] if isinstance(output, tuple) else output

        def before(module: nn.Module, inputs: Any, named: Any) -> None:
            self._kept[number] = inputs[0] if inputs else named["hidden_states"]

        if number:
            blocks[number - 1].register_forward_hook(after)
        else:
            blocks[0].register_forward_pre_hook(before, with_kwargs=True)

    def forward(self, ids: Tensor) -> Tensor:
        try:
            last = self.network(input_ids=ids, **self._without_cache).last_hidden_state
            self._kept[self.n_blocks] = last
            states = [self._kept[number] for number in self.states]
            return states[0] if len(states) == 1 else torch.stack(states).mean(0)
        finally:
            self._kept.clear()

    def last_states(self, ids: Tensor) -> Tensor:
        """The hidden state at the last token of each sequence, shape (batch, width), in float32."""
        if is_gpt2(self.network) and self.states == (len(self.network.h),):
            last = last_states_of_gpt2(self.network, ids)
            return (self.network.ln_f(last) if self.states == (self.n_blocks,) else last).float()
        states: Tensor = self(ids)[:, -1]
        return states.float()

    @property
    def _without_cache(self) -> dict[str, Any]:
        return {"use_cache": False} if hasattr(self.network.config, "use_cache") else {}

    @property
    def width(self) -> int:
        """Numbers of one hidden state."""
        return int(self.network.config.hidden_size)

    @property
    def is_causal(self) -> bool:
        """Whether a token sees only those before it."""
        return any("CausalLM" in str(name) for name in (getattr(self.network.config, "architectures", None) or ())) or (
            _is_causal(str(self.network.config.model_type))
        )

    @property
    def begin_id(self) -> int:
        """The id of the token that begins a text."""
        found = self.tokenizer.bos_token_id
        found = getattr(self.network.config, "bos_token_id", None) if found is None else found
        if found is None:
            raise InvalidParameterError(f"{self.identity.name} has no token that begins a text (bos_token).")
        return int(found)

    def _ids_of(self, text: str) -> tuple[int, ...]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tuple(ids)


_in_memory: WeakValueDictionary[tuple[object, ...], LanguageNetwork] = WeakValueDictionary()


def language_network(
    names: Sequence[str], weights: str, states: Sequence[int], precision: str, device: torch.device
) -> LanguageNetwork:
    """A language model up to the largest hidden state that is asked for, shared between models that ask for the same.

    Parameters
    ----------
    names
        What the hub calls it, and has called it.
    weights
        ``hub``, ``hub@REVISION`` or a folder, with or without ``sha256:...``; see `berg.features.stated_weights`.
    states
        Numbers of hidden states, of which the mean is taken; negative ones count from the last, -1.
    precision
        See `berg.features.precision`; not ``auto``.

    Raises
    ------
    MissingFileError
        If it is not on this machine; nothing is downloaded here.
    InvalidParameterError
        If it has fewer hidden states, or its blocks are not found.
    UnsafeFileError
        If it brings code of its own.
    CorruptedFileError
        If files are damaged, incomplete, or others than the card states.
    MissingExtraError
        If transformers is not installed.
    """
    key = (tuple(names), weights, tuple(states), precision, str(device))
    if (found := _in_memory.get(key)) is None:
        found = read_language_network(names, weights, states, dtype_of(precision))
        found = _in_memory[key] = found.to(device).eval().requires_grad_(False)
    return found


def read_language_network(
    names: Sequence[str], weights: str, states: Sequence[int], dtype: torch.dtype = torch.float32
) -> LanguageNetwork:
    """As `language_network`, on the processor, and shared with nobody."""
    transformers = transformers_files.library("language")
    stated = parse_weights(weights)
    folder = transformers_files.model_folder(names, stated, how_to_get(names[0]))
    files = _weights_files(folder, names[0])
    if stated.sha256:
        check_hash(stated, [folder / CONFIG, *files], f"transformers/{names[0]}")
    configuration = _configuration(folder, names[0])
    n_blocks = int(configuration.num_hidden_layers)
    wanted = _numbered(states, n_blocks, names[0])
    _cut(configuration, max(1, *wanted))
    network = _read(transformers, folder, configuration, dtype, is_safe=files[0].name != _PICKLED)
    identity = NetworkIdentity(names[0], _revision(folder), _quick_hash(files))
    tokenizer = _tokenizer(folder, names[0])
    return LanguageNetwork(with_fused_layers(_with_linear(network)), tokenizer, wanted, n_blocks, identity)


def how_to_get(name: str) -> str:
    """A sentence that says how a language model gets on this machine."""
    files = f"{CONFIG} '*.safetensors*' tokenizer.json tokenizer_config.json vocab.json merges.txt"
    return f"Get it with:  hf download {name} {files}   (or give language_model=FOLDER)"


def _weights_files(folder: Path, name: str) -> list[Path]:
    """Safetensors, whole or in parts; else the pickle of older publications, which is read without running it."""
    has_safe = (folder / WHOLE).is_file() or (folder / INDEX).is_file()
    files = transformers_files.weights_files(folder, name) if has_safe else [folder / _PICKLED]
    for file in files:
        if not file.is_file():
            missing = file.name if has_safe else f"{WHOLE} or {_PICKLED}"
            raise MissingFileError(f"transformers/{name} has no {missing} in {folder}. {how_to_get(name)}")
    return files


def _configuration(folder: Path, name: str) -> Any:
    transformers = transformers_files.library("language")
    stated = transformers_files.read_json(folder / CONFIG)
    known = stated.get("model_type") in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    if not known:
        brings = "brings code of its own, which is never run" if "auto_map" in stated else "is of no known kind"
        kind = UnsafeFileError if "auto_map" in stated else InvalidParameterError
        raise kind(f"transformers/{name} {brings} (model_type {stated.get('model_type')!r}). Take another network.")
    try:
        found = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise CorruptedFileError(f"{folder / CONFIG} is not understood by transformers: {error}") from error
    n_blocks = getattr(found, "num_hidden_layers", None)
    if not isinstance(n_blocks, int) or n_blocks < 1 or getattr(found, "is_encoder_decoder", False):
        raise InvalidParameterError(
            f"transformers/{name} is no language model of blocks one behind another ({found.model_type})."
        )
    return found


def _numbered(states: Sequence[int], n_blocks: int, name: str) -> list[int]:
    numbers = [state + n_blocks + 1 if state < 0 else state for state in states]
    if not numbers or not all(0 <= number <= n_blocks for number in numbers):
        raise InvalidParameterError(
            f"transformers/{name} has hidden states 0 to {n_blocks} ({n_blocks} blocks), not {listing(states)}."
        )
    return numbers


def _cut(configuration: Any, n_blocks: int) -> None:
    """Have a network of so many blocks."""
    configuration.num_hidden_layers = n_blocks
    if isinstance(kinds := getattr(configuration, "layer_types", None), list):
        configuration.layer_types = kinds[:n_blocks]


def _read(transformers: Any, folder: Path, configuration: Any, dtype: torch.dtype, is_safe: bool) -> nn.Module:
    options: dict[str, Any] = {"config": configuration, "local_files_only": True, "trust_remote_code": False}
    options |= {"use_safetensors": is_safe, "dtype": dtype, "output_loading_info": True, "weights_only": True}
    try:
        with transformers_files.quiet(transformers), torch.random.fork_rng(devices=[]):
            network, report = transformers.AutoModel.from_pretrained(folder, **options)
    except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptedFileError(f"{folder} does not hold this language model: {error} Get it again.") from error
    except Exception as error:
        raise CorruptedFileError(f"{folder} cannot be read: {error}") from error
    transformers_files.check_complete(network, report, folder)
    found: nn.Module = network
    return found


def _with_linear(network: nn.Module) -> nn.Module:
    """The network; GPT-2's layers with their weights the other way round as linear ones, its GELU in one step."""
    from transformers.activations import NewGELUActivation
    from transformers.pytorch_utils import Conv1D

    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is Conv1D:
                weight = nn.Parameter(child.weight.detach().T.contiguous(), requires_grad=False)
                setattr(parent, name, FusedLinear(weight, child.bias))
            elif type(child) is NewGELUActivation:
                setattr(parent, name, nn.GELU(approximate="tanh"))
    return network


def _blocks(network: nn.Module, n_blocks: int) -> nn.ModuleList:
    """The list of blocks: of the lists that are as long, the one with the most weights."""
    lists = [each for each in network.modules() if isinstance(each, nn.ModuleList) and len(each) == n_blocks]
    if not lists:
        raise InvalidParameterError(f"The blocks of a {type(network).__name__} are not found; take another network.")
    return max(lists, key=lambda each: sum(weight.numel() for weight in each.parameters()))


def _tokenizer(folder: Path, name: str) -> Any:
    transformers = transformers_files.library("language")
    if not any((folder / file).is_file() for file in _TOKENIZER):
        raise MissingFileError(f"transformers/{name} has no tokenizer in {folder}. {how_to_get(name)}")
    try:
        with transformers_files.quiet(transformers):
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise CorruptedFileError(f"The tokenizer in {folder} is not understood by transformers: {error}") from error


def _is_causal(model_type: str) -> bool:
    from transformers.models.auto import modeling_auto

    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in masked


def _revision(folder: Path) -> str:
    """The commit of a folder in the cache of the hub (``snapshots/COMMIT``)."""
    return folder.name if folder.parent.name == "snapshots" else ""


def _quick_hash(files: Sequence[Path]) -> str:
    """The sha256 of the weights; the cache of the hub calls large files by it, so that they need not be read."""
    if len(files) == 1 and files[0].is_symlink():
        blob = files[0].resolve()
        if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
            return blob.name
    return hash_of(files)


def stated_place(weights: str, folder: str | None) -> str:
    """The weights as a card states them, in a folder if the user gives one.

    >>> stated_place("hub sha256:0123abcd", "/data/gpt2")
    '/data/gpt2 sha256:0123abcd'
    """
    if folder is None:
        return weights
    stated: StatedWeights = parse_weights(weights)
    return f"{folder} sha256:{stated.sha256}" if stated.sha256 else folder
