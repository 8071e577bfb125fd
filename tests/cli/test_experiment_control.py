"""berg experiment: relational control, choosing pictures, and the kit for experiments in vivo, from files."""

import numpy as np
import pytest
import xarray as xr
import yaml
from PIL import Image

from berg.cli.app import app
from berg.experiments.result import open_result

N = 60
RNG = np.random.default_rng(0)
TRUE = RNG.standard_normal((2, N, 1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Responses of two subjects whose voxels are in two regions, and the pictures, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    names = [f"{number:02d}.png" for number in range(N)]
    for name in names:
        Image.fromarray(RNG.integers(0, 255, (4, 4, 3), dtype="uint8")).save(tmp_path / "photos" / name)
    for subject in (1, 2):
        values = np.concatenate([np.repeat(one, 3, 1) + 0.3 * RNG.standard_normal((N, 3)) for one in TRUE], axis=1)
        xr.Dataset(
            {"responses": (("stimulus", "voxel"), values)},
            {"stimulus": names, "roi": ("voxel", ["V1"] * 3 + ["V4"] * 3)},
            {"model_id": "fmri-a-b", "subject": subject},
        ).to_netcdf(tmp_path / f"sub-{subject}.nc", engine="h5netcdf")
    return tmp_path


def run(name, parameters, folder):
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(parameters))
    app(["experiment", name, f"{name}.yaml"], result_action="return_value")
    assert (folder / f"{name}.png").exists()
    return open_result(folder / f"{name}.nc")


def region(roi):
    return [{"responses": f"sub-{subject}.nc", "roi": roi} for subject in (1, 2)]


@pytest.mark.slow
def test_from_responses_to_an_experiment_in_vivo_and_back(folder, capsys):
    both = {"first": region("V1"), "second": region("V4"), "names": ["V1", "V4"], "n_bootstraps": 50}
    result = run("rnc", {**both, "n_pictures": 5, "n_baseline": 200, "n_permutations": 99}, folder)
    assert "Result: rnc.nc" in capsys.readouterr().out
    assert result["picture_name"].values[0, 0, 0].endswith(".png")
    sets = run("rnc-multivariate", {**both, "n_pictures": 8, "n_restarts": 2, "n_null": 50, "resume": "s.npz"}, folder)
    assert sets.sizes["left_out"] == 3
    assert (folder / "s.npz").exists()
    kit = {"result": {"result": "rnc.nc"}, "pictures": {"stimuli": "photos"}, "folder": "kit", "n_runs": 2}
    assert run("in-vivo", kit, folder).sizes["subject"] == 1
    assert len(list((folder / "kit" / "sub-01" / "func").iterdir())) == 2
    power = {"result": {"result": "rnc.nc"}, "noise_ceiling": 0.6, "n_experiments": 3, "n_permutations": 19}
    assert run("in-vivo-power", power, folder)["power"].ndim == 4
    recorded = {"result": {"result": "rnc.nc"}, "recordings": [region("V1"), region("V4")], "n_permutations": 99}
    assert run("in-vivo-compare", {**recorded, "n_bootstraps": 50}, folder)["effect"].shape == (2, 4, 2)


def test_pictures_are_chosen_by_files(folder):
    responses = region("V1")[0]
    assert run("select", {"responses": responses, "n_pictures": 4}, folder).sizes["rank"] == 4
    nearest = run("more-like", {"responses": responses, "like": "07.png", "n_pictures": 3}, folder)
    assert "07.png" not in nearest["picture_name"].values
    sets = run(
        "matched-sets", {"responses": responses, "targets": {"a": [0, 0.5], "b": [0.5, 0.5]}, "n_pictures": 6}, folder
    )
    assert sets["condition"].values.tolist() == ["a", "b"]
