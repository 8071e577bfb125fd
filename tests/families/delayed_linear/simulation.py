"""Words in time and the BOLD of voxels that follow them with known delays; a card for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.stimuli.texts import Words

TR = 2.0
DELAYS = (1, 2, 3, 4)
KERNEL = np.array([0.2, 1.0, 0.7, 0.1])  # of the delays
VOCABULARY = ("a", "of", "the", "woods", "river", "running", "children", "unforgettable")

CARD = """\
model_id: fmri-tiny-words
modality: fmri
training_dataset: tiny
species: Human
stimuli: Text
model_architecture: Ridge regression on delayed word features
creator: Tests
description: Made-up voxels that follow words.
family: delayed_linear
features:
  spaces:
    rate: {{extractor: word_rate}}
    length: {{extractor: word_length}}
  steps: {steps}
  tr_s: 2.0
readout: {{steps: {readout}}}
input:
  kind: text
  text: timed_words
  type: dict
  shape: [batch_size]
  description: Words with their onsets in seconds from the first volume.
output: {{shape: [batch_size, n_voxels], description: BOLD.}}
outputs:
  - {{name: responses, axes: [stimulus, voxel], unit: z-scored BOLD}}
axes:
  voxel: {{coordinates: {{roi: fmri.roi, r: "encoding_models.r?"}}}}
parameters:
  subject: {{type: int, default: 1, valid_values: [1, 2], description: The subject.}}
  selection:
    type: dict
    description: Which voxels to return.
    properties:
      roi: {{type: str or list, valid_values: [rate, length], example: rate, description: Region.}}
select:
  roi: {{kind: roi, axis: voxel, metadata: fmri.roi}}
files:
  weights: "weights_subject-{{subject:02d}}"
  metadata: "metadata_subject-{{subject:02d}}"
performance:
  metrics: []
licence: BSD-3-Clause
citation: None.
references: ["Nobody (2026). Made up."]
"""


def card(folder: Path, steps: str = "[lanczos, standardize, {delays: [1, 2, 3, 4]}]", readout: str = "[ridge]") -> Path:
    path = folder / "fmri-tiny-words.yaml"
    path.write_text(CARD.format(steps=steps, readout=readout))
    return path


def story(rng: np.random.Generator, n_volumes: int) -> Words:
    """Words whose rate waxes and wanes, over all volumes."""
    gaps = rng.gamma(2, 0.2 * (1 + np.repeat(rng.uniform(0, 3, 60), 20)))
    onsets = np.cumsum(gaps)
    onsets = onsets[onsets < n_volumes * TR - 9]
    return Words(list(rng.choice(VOCABULARY, len(onsets))), onsets)


def volumes_of(words: Words, n_volumes: int) -> NDArray[Any]:
    """Rate and length at each volume, word by word; shape (n_volumes, 2)."""
    found = np.zeros((n_volumes, 2))
    for word, onset in zip(words.words, words.onsets, strict=True):
        d = (TR * np.arange(n_volumes) - onset) / TR
        weight = np.where(np.abs(d) < 3, np.sinc(d) * np.sinc(d / 3), 0)
        found += weight[:, None] * [1, len(word)]
    return found


def delayed(volumes: NDArray[Any]) -> NDArray[Any]:
    """Space by space, delay by delay; shape (n_volumes, 8)."""
    columns = []
    for feature in volumes.T:
        for delay in DELAYS:
            columns.append(np.concatenate([np.zeros(delay), feature[: len(feature) - delay]]))
    return np.column_stack(columns)


def simulated(seed: int = 0, n_runs: int = 6, n_volumes: int = 150, noise: float = 0.3) -> Mapping[str, Any]:
    """Stories, and the BOLD of two voxels that follow the rate and two that follow the length of words."""
    rng = np.random.default_rng(seed)
    words = {f"story{number}": story(rng, n_volumes + 5 * number) for number in range(n_runs)}
    lengths = {name: n_volumes + 5 * number for number, name in enumerate(words)}
    features = {name: volumes_of(own, lengths[name]) for name, own in words.items()}
    every = np.vstack(list(features.values()))
    centre, scale = every.mean(0), every.std(0)
    truth = np.zeros((4, 8))
    truth[:2, :4], truth[2:, 4:] = KERNEL, KERNEL
    bold = {}
    for name, own in features.items():
        signal = delayed((own - centre) / scale) @ truth.T
        bold[name] = (signal + noise * rng.normal(size=signal.shape)).astype(np.float32)
    return {"words": words, "bold": bold, "features": features, "truth": truth}
