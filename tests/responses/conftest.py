"""Metadata of the published models, as `encode` returns them, with responses that say where they belong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import layouts

from berg.core.model_registry import get_model_class

Found = tuple[Any, dict[str, Any]]


@pytest.fixture(scope="session")
def metadata_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERG directory with metadata alone."""
    berg_dir, rng = tmp_path_factory.mktemp("berg"), np.random.default_rng(3)
    written = {
        layouts.FSAVERAGE: {"subject-01": layouts.fsaverage_metadata(rng)},
        layouts.EEG: {"subject-01": layouts.eeg_metadata(rng)},
        layouts.MEG: {"P1": layouts.meg_metadata(rng, 1, 9)},
        layouts.THINGS_FMRI: {"sub-01": layouts.things_fmri_metadata(rng, 1, 120)},
        layouts.TVSD: {"monkeyN": layouts.tvsd_metadata(rng, "N", 40, 11, "utah_array", in_milliseconds=True)},
        layouts.FWRF: {f"sub-01_roi-{roi}": layouts.fwrf_metadata(rng, n) for roi, n in (("V1", 21), ("V2", 5))},
    }
    for model_id, files in written.items():
        for name, content in files.items():
            path = layouts.model_folder(berg_dir, model_id) / "metadata" / f"metadata_{name}.npy"
            layouts.write_pickled_npy(path, content)
    return berg_dir


@pytest.fixture
def encoded(metadata_dir: Path) -> Callable[..., Found]:
    """What `encode` returns; the responses count up over stimuli and columns, so that each is there once."""

    def encoded(model_id: str, n_stimuli: int = 2, berg_dir: Path = metadata_dir, **parameters: Any) -> Found:
        model = get_model_class(model_id)(berg_dir=str(berg_dir), device="cpu", **{"subject": 1, **parameters})
        metadata, start, arrays = model.get_metadata(), 0, []
        for label in metadata["responses"].values():
            sizes = {axis: len(values) for axis, values in label["coordinates"].values()}
            shape = (n_stimuli, *(sizes[axis] for axis in label["axes"][1:]))
            arrays.append(np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape))
            start += arrays[-1].size
        return arrays[0] if len(arrays) == 1 else tuple(arrays), metadata

    return encoded
