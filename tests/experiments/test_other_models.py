"""Models that a result is verified on are found among the files that lie here, in their published layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import layouts

import berg
from berg.experiments import optimise
from berg.experiments.optimisation import SynthesisWarning
from berg.experiments.other_models import other_models

EEG, EEG_ALEXNET, FWRF = "eeg-things_eeg_2-vit_b_32", "eeg-things_eeg_2-alexnet", "fmri-nsd-fwrf"


def names(models: Any) -> list[tuple[str, int]]:
    return [(model.get_model_id(), model.parameters["subject"]) for model in models]


def test_other_subjects_are_those_whose_files_are_here_two_at_most(tmp_path):
    rng = np.random.default_rng(0)
    for subject in (1, 4, 6, 7):
        layouts.write_fwrf(tmp_path, subject, "V1", rng, n_voxels=2 + subject)
    layouts.write_fwrf(tmp_path, 5, "V2", rng, n_voxels=3)  # of which V1 is not here
    model = berg.load(FWRF, berg_dir=tmp_path, subject=4, selection={"roi": "V1"}, device="cpu")
    others = other_models(model)
    assert names(others) == [(FWRF, 1), (FWRF, 6)]
    assert [other.selection for other in others] == [model.selection] * 2
    pictures = np.zeros((1, 3, 227, 227), np.uint8)
    assert [other(pictures).shape for other in others] == [(1, 3), (1, 8)]


@pytest.mark.slow
@pytest.mark.xdist_group("published")
def test_pictures_are_verified_on_other_subjects_and_another_network_by_default(own_berg_dir, zoo_dir):
    for path in layouts.model_folder(zoo_dir, EEG_ALEXNET).rglob("*.*"):
        link = Path(own_berg_dir, path.relative_to(zoo_dir))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    model = berg.load(EEG, berg_dir=own_berg_dir, subject=1, selection={"channels": ["Oz"]}, device="cpu")
    reference = layouts.random_images(np.random.default_rng(1), 10, 64, 64)
    with pytest.warns(SynthesisWarning) as warned:
        found = optimise(model, reference=reference, pixels=64, n_pictures=1, steps=2)
    assert found.other.values.tolist() == [f"{EEG}, subject 2", f"{EEG}, subject 3", f"{EEG_ALEXNET}, subject 1"]
    assert found.other_score.shape == (3, 1)
    assert "NOT VERIFIED" not in str(warned[0].message)
    for name, other in zip(found.other.values, other_models(model), strict=True):
        means = other(reference).astype(float).mean((1, 2, 3))
        score = (other(found.picture.values).astype(float).mean() - means.mean()) / means.std()
        np.testing.assert_allclose(found.other_score.sel(other=name), score, rtol=1e-3)
