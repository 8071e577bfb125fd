"""The built-in model of human V1 once more, as a model of one's own in a BERG directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from published.layouts import model_folder

from berg.core import model_registry
from berg.weights import model_files

MODEL = "fmri-own-prf"
BUILT_IN = "fmri-szinte2024-prf_css"
PIXELS = 48


def write_own_prf(berg_dir: Path) -> Path:
    """The model's folder, with card, weights and metadata; the card says where its figures come from."""
    card = model_registry.get_card(BUILT_IN)
    folder = model_folder(berg_dir, MODEL)
    for path in model_files.model_folder(card, None).rglob("*_subject-01.*"):
        target = folder / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    files = {name: value for name, value in card.raw["files"].items() if name != "store"}
    raw = card.raw | {"model_id": MODEL, "training_dataset": "own", "files": files}
    (folder / f"{MODEL}.yaml").write_text("# made for a test\n" + yaml.safe_dump(raw, sort_keys=False))
    return folder


def pictures(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise whose contrast differs from place to place, shape (n, 3, 48, 48)."""
    rng = np.random.default_rng(seed)
    contrast = np.kron(rng.uniform(0, 1, (n, 1, 6, 6)), np.ones((1, 1, 8, 8)))
    noise = rng.uniform(-1, 1, (n, 1, PIXELS, PIXELS)) * contrast
    return (128 + 127 * noise).astype(np.uint8).repeat(3, axis=1)
