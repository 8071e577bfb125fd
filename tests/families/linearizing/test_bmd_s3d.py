"""The model of BOLD Moments on the real S3D, against a reference in float64: slow, one pass takes seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import layouts, reference
from published.compare import assert_near

from berg import BERG

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Where torchvision finds a random S3D."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        layouts.write_s3d(Path(folder), np.random.default_rng(0))
        patch.setenv("TORCH_HOME", folder)
        yield Path(folder)


def statistics_of(features: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """A mean and a scale for each feature, of the size that features have."""
    return features.mean(0) + 0.1 * rng.standard_normal(features.shape[1]), rng.uniform(0.5, 2, features.shape[1])


@pytest.mark.parametrize(("cropped", "n_features"), [(True, 4_084_096), (False, 5_337_088)])
def test_s3d_gives_the_truth_with_both_numbers_of_features(
    cropped: bool, n_features: int, home: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    clips = layouts.random_clips(rng, 2, 31, 120, 100)
    features = reference.s3d_features(clips, home, cropped=cropped)
    assert features.shape == (2, n_features)
    layouts.write_bmd_projection(tmp_path, rng, *statistics_of(features, rng))
    for subject in (1, 2):
        layouts.write_bmd(tmp_path, subject, rng)
    models = [BERG(tmp_path).get_encoding_model(layouts.BMD, device="cpu", subject=subject) for subject in (1, 2)]
    assert models[0].features is models[1].features
    for subject, responses in enumerate(BERG().encode(models, clips), start=1):
        assert_near(responses, reference.bmd_responses(tmp_path, subject, features))
