"""``berg experiment`` with a model, and with labels of pictures."""

import numpy as np
import pytest
import xarray as xr
import yaml
from PIL import Image

from berg.cli.app import main
from berg.experiments import open_result
from berg.responses.save import save_responses
from berg.stimuli.photographs import squares

MODEL = {"model": "fmri-szinte2024-prf_css", "selection": {"min_held_out_r2": 0.82}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, and responses to categories."""
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "pictures").mkdir()
    for number, picture in enumerate(squares(60, 32)):
        Image.fromarray(picture.transpose(1, 2, 0)).save(folder / "pictures" / f"{number:02}.png")
    values = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    names = [f"{category}/{number}.png" for category in ("face", "house") for number in range(6)]
    save_responses(xr.Dataset({"responses": (("stimulus", "voxel"), values)}, {"stimulus": names}), folder / "made.nc")
    return folder


PARAMETERS = {
    "attribute": {"model": MODEL, "pictures": {"stimuli": "pictures/00.png"}, "method": "gradient"},
    "flag": {"model": MODEL, "pictures": {"stimuli": "pictures"}, "reference": {"stimuli": "pictures"}},
    "localise": {"responses": {"responses": "made.nc"}, "labels": "folders", "category": "face"},
    "map": {"model": MODEL, "pixels": 64, "step_deg": 1, "orientations_deg": [0, 90]},
    "optimise": {
        "model": MODEL, "verify": [{"model": MODEL["model"], "selection": {"min_held_out_r2": 0.75}}],
        "reference": {"stimuli": "pictures"}, "pixels": 32, "steps": 25, "n_pictures": 1, "learning_rate": 0.5,
    },
    "tuning": {"model": MODEL, "over": "contrast", "values": [0, 1], "pixels": 64, "n_phases": 1},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::berg.experiments.optimisation.SynthesisWarning")
@pytest.mark.filterwarnings("ignore::berg.experiments.attribution.AttributionWarning")
@pytest.mark.parametrize("name", PARAMETERS)
def test_the_verb_writes_result_and_figure(folder, name, capsys):
    file, out = folder / f"{name}.yaml", folder / f"{name}.nc"
    file.write_text(yaml.safe_dump(PARAMETERS[name]))
    main(["experiment", name, str(file), "--out", str(out)])
    printed = capsys.readouterr()
    result = open_result(out)
    assert (folder / f"{name}.png").stat().st_size > 10_000
    if name == "optimise":
        assert "drop" in printed.out
        assert result.picture.dtype == np.uint8
