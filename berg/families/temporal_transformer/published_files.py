"""The published model: ``config.json`` and ``model.pt`` of a variant, checked against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from berg.core.exceptions import CorruptedFileError, listing
from berg.weights.pt_files import read_pt

CONFIG, WEIGHTS_FILE = "config.json", "model.pt"
DTYPES = ("float16", "bfloat16", "float32")
_ENCODER = "encoder."


class Configuration(BaseModel):
    """What ``config.json`` says; keys that are not named here do not change the numbers."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    tr: Annotated[float, Field(gt=0)] = 1.49
    num_subjects: Annotated[int, Field(ge=1)] = 4
    num_rois: Annotated[int, Field(ge=1)] = 1000
    num_transformer_layers: Annotated[int, Field(ge=1)] = 4
    num_transformer_heads: Annotated[int, Field(ge=1)] = 8
    transformer_dim: Annotated[int, Field(ge=1)] = 1024
    subject_embedding_dim: Annotated[int, Field(ge=1)] = 128
    extractor_LLM: str = "Qwen/Qwen2.5-0.5B"
    extractor_LLM_feature_size: Annotated[int, Field(ge=1)] = 896
    extractor_LLM_dtype: str = "float16"
    extractor_LLM_num_last_hidden_states: Annotated[int, Field(ge=1)] = 4


@dataclass(frozen=True)
class PublishedModel:
    """The weights of a variant, float32."""

    path: Path
    tensors: Mapping[str, Tensor]


def read_configuration(folder: Path) -> Configuration:
    """The configuration of a variant.

    Raises
    ------
    CorruptedFileError
        If it is not there, or says something that is not known: the model would be another.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CorruptedFileError(
            f"There is no {path}, without which nobody knows how {WEIGHTS_FILE} is to be used. Get the variant again."
        )
    try:
        found = Configuration.model_validate(json.loads(path.read_text("utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise CorruptedFileError(
            f"{path}: '{'.'.join(map(str, first['loc']))}' is {first['input']!r}: {first['msg']}. This is no "
            "configuration of a model of this family, and it is not computed."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CorruptedFileError(f"{path} is not valid JSON: {error}. Get the variant again.") from error
    if found.extractor_LLM_dtype not in DTYPES:
        raise CorruptedFileError(
            f"{path}: 'extractor_LLM_dtype' is '{found.extractor_LLM_dtype}'; {listing(DTYPES)} are known."
        )
    return found


def read_weights(path: Path, stated: Configuration) -> PublishedModel:
    """The weights of a variant, of the shapes that its configuration states.

    Raises
    ------
    CorruptedFileError
        It names the weights that are missing, of another shape, or that no such model has.
    UnsafeFileError
        If the file could run code.
    """
    content = read_pt(path)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CorruptedFileError(f"{path} holds no weights by their names. Get the variant again.")
    width, n_features = stated.transformer_dim, stated.extractor_LLM_feature_size + stated.subject_embedding_dim
    shapes = {
        "subj_emb.weight": (stated.num_subjects, stated.subject_embedding_dim),
        "inp.weight": (width, n_features),
        "inp.bias": (width,),
        "out.weight": (stated.num_rois, width),
        "out_bias.weight": (stated.num_subjects, stated.num_rois),
    }
    for name, shape in shapes.items():
        _check(path, name, content.get(name), shape)
    unknown = sorted(name for name in content if name not in shapes and not name.startswith(_ENCODER))
    if unknown:
        raise CorruptedFileError(f"{path} has '{unknown[0]}', which no model of this family has. It is another model.")
    n_blocks = len({name.split(".")[2] for name in content if name.startswith(f"{_ENCODER}layers.")})
    if n_blocks != 2 * stated.num_transformer_layers:
        raise CorruptedFileError(
            f"{path} has {n_blocks} blocks; its configuration says {stated.num_transformer_layers} layers of two. "
            "They are not of one publication; get both again."
        )
    return PublishedModel(path, {name: tensor.float() for name, tensor in content.items()})


def _check(path: Path, name: str, tensor: Any, shape: tuple[int, ...]) -> None:
    if tensor is None:
        raise CorruptedFileError(f"{path} has no '{name}'. Get the variant again.")
    if tuple(tensor.shape) != shape:
        raise CorruptedFileError(
            f"'{name}' in {path} has shape {tuple(tensor.shape)}; its configuration says {shape}. They are not of one "
            "publication; get both again."
        )
    if not bool(torch.isfinite(tensor).all()):
        raise CorruptedFileError(f"'{name}' in {path} has NaN or infinite values. Get the variant again.")
