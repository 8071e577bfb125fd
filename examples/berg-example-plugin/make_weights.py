"""Write the weights and the metadata of eeg-example-grid beside its card.

python make_weights.py [FOLDER]
"""

import json
import sys
from pathlib import Path

import numpy as np

from berg.core.layout import METADATA, WEIGHTS, ModelId
from berg.weights.safetensors_files import write_safetensors

beside_the_card = Path(__file__).parent / "src" / "berg_example_plugin" / "model_cards"
folder = ModelId.parse("eeg-example-grid").folder(sys.argv[1] if sys.argv[1:] else beside_the_card)
for name in (WEIGHTS, METADATA):
    (folder / name).mkdir(parents=True, exist_ok=True)
weights = np.random.default_rng(0).normal(size=(3, 16)).astype("float32")  # (n_channels, cells * cells)
write_safetensors(folder / WEIGHTS / "weights_subject-01.safetensors", {"weights": weights})
metadata = {"eeg": {"ch_names": ["O1", "Oz", "O2"]}}
(folder / METADATA / "metadata_subject-01.json").write_text(json.dumps(metadata))
