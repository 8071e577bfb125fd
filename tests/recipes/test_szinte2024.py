"""The parameters that the recipe wrote, and (where it is) the recording that they were fitted to."""

import gzip
import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import berg
from berg.core import model_registry
from berg.datasets.dataset import EncodingDataset
from berg.evaluation import r2_score
from berg.families.prf.receptive_fields import (
    Apertures,
    ReceptiveFields,
    convolution_matrix,
    haemodynamic_response,
    predict_time_courses,
)
from berg.families.prf.recording import FitSettings
from berg.fitting.fit import fit_model

MODEL_ID = "fmri-szinte2024-prf_css"
RECIPE = Path(__file__).parents[2] / "recipes" / MODEL_ID / "make_dataset.py"
MODEL = (
    Path(berg.__file__).parent / "models/built_in/encoding_models/modality-fmri/train_dataset-szinte2024/model-prf_css"
)
DATA = os.environ.get("BERG_SZINTE2024")
N_VOXELS = 2308
SETTINGS = model_registry.get_card(MODEL_ID).part("fit", FitSettings)


@pytest.fixture(scope="module")
def recipe():
    specification = importlib.util.spec_from_file_location("szinte2024_dataset", RECIPE)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules[specification.name]


@pytest.fixture(scope="module")
def weights():
    return load_file(MODEL / "encoding_models_weights" / "weights_subject-01.safetensors")


@pytest.fixture(scope="module")
def metadata():
    return json.loads((MODEL / "metadata" / "metadata_subject-01.json").read_text("utf-8"))


def published_files(folder, blank_voxel=2):
    """Files in the published layout: a bar over a mark at fixation, three voxels of which one is constant."""
    design = np.zeros((150, 80, 45), np.float32)
    design[:, 39:41, 21:23] = 4  # the mark
    design[10:42, 30:34] = 9  # all of the screen's height
    np.savez(folder / "dm_gazecenter.npz", design)
    x, y = np.meshgrid(np.linspace(-8.9, 8.9, 80), np.linspace(5, -5, 45), indexing="ij")
    lines = [f"{one}\t{other}" for one, other in zip(x.ravel(), y.ravel(), strict=True)]
    (folder / "grid_coordinates.tsv").write_text("\n".join(["x\ty", *lines]) + "\n")
    bold = np.random.default_rng(0).normal(size=(150, 4)).round(4)
    bold[:, blank_voxel] = 0
    rows = ["\t".join(map(str, [time, *row])) for time, row in enumerate(bold)]
    with gzip.open(folder / "mask-v1_bold.tsv.gz", "wt") as file:
        file.write("\n".join(["\t".join(["time", *"0123"]), *rows]) + "\n")
    return bold


def test_a_dataset_is_made_of_the_published_files(recipe, tmp_path):
    bold = published_files(tmp_path)
    recipe.write_dataset(tmp_path, tmp_path / "dataset")
    dataset = EncodingDataset.open(tmp_path / "dataset", 1)
    frames = dataset.read_stimuli([0, 20, 43])
    assert frames.shape == (3, 45, 80)
    assert not frames[[0, 2]].any()  # the mark is gone
    np.testing.assert_array_equal(frames[1], np.isin(np.arange(80), np.arange(30, 34)) * np.ones((45, 1)))
    output = dataset.outputs["responses"]
    assert output.coordinates["source_voxel"][1].tolist() == [0, 1, 3]
    np.testing.assert_array_equal(output.mean(np.arange(150)), bold[:, [0, 1, 3]].astype(np.float32))
    assert dataset.is_sequence
    assert len(dataset.splits["train"]) == 150
    assert SETTINGS.cuts == [80]


def test_shipped_weights_are_float32_with_one_value_per_voxel(weights):
    assert set(weights) == {"x_deg", "y_deg", "size_deg", "exponent", "amplitude", "baseline"}
    for values in weights.values():
        assert values.dtype == np.float32
        assert values.shape == (N_VOXELS,)
        assert np.isfinite(values).all()


def test_shipped_weights_stay_inside_the_bounds_of_the_recipe(weights, metadata):
    field, margin = metadata["encoding_models"]["mapped_field_deg"], SETTINGS.search.centre_margin_deg
    assert weights["x_deg"].min() >= field["left"] - margin
    assert weights["x_deg"].max() <= field["right"] + margin
    assert weights["y_deg"].min() >= field["bottom"] - margin
    assert weights["y_deg"].max() <= field["top"] + margin
    for name, (lower, upper) in (
        ("size_deg", SETTINGS.search.size_bounds_deg),
        ("exponent", SETTINGS.search.exponent_bounds),
        ("amplitude", (-30, 30)),  # ten times a usual one; the penalty keeps it there
    ):
        assert lower - 1e-6 <= weights[name].min()
        assert weights[name].max() <= upper + 1e-6


def test_shipped_metadata_describes_the_shipped_weights(weights, metadata):
    described = metadata["fmri"]
    for name, values in weights.items():
        np.testing.assert_allclose(described[name], values, rtol=1e-5)
    x, y = np.array(described["x_deg"]), np.array(described["y_deg"])
    np.testing.assert_allclose(described["eccentricity_deg"], np.hypot(x, y), rtol=1e-4)
    np.testing.assert_allclose(described["polar_angle_deg"], np.degrees(np.arctan2(y, x)), atol=1e-3)


def test_shipped_metadata_names_each_source_voxel_once(metadata):
    source_voxel = metadata["fmri"]["source_voxel"]
    assert len(source_voxel) == N_VOXELS
    assert source_voxel == sorted(set(source_voxel))
    assert source_voxel[-1] < 2365
    assert metadata["fmri"]["roi"] == ["V1"] * N_VOXELS


def test_shipped_reliability_follows_from_its_criterion(metadata):
    facts, described = metadata["encoding_models"], metadata["fmri"]
    assert (SETTINGS.reliable.held_out_r2, SETTINGS.reliable.effective_size_deg) == (0.1, 5)
    x, y = np.array(described["x_deg"]), np.array(described["y_deg"])
    field = facts["mapped_field_deg"]
    inside = (field["left"] < x) & (x < field["right"]) & (field["bottom"] < y) & (y < field["top"])
    extent = np.array(described["size_deg"]) / np.sqrt(described["exponent"])
    expected = (np.array(facts["held_out_r2"]) > 0.1) & inside & (extent < 5)
    assert np.array_equal(facts["reliable"], expected)
    assert 1000 < expected.sum() < 1200


def test_shipped_accuracy_is_that_of_another_half_not_of_the_fit(metadata):
    facts = metadata["encoding_models"]
    reliable = np.array(facts["reliable"])
    held_out, in_sample = np.array(facts["held_out_r2"]), np.array(facts["in_sample_r2"])
    assert (held_out <= 1).all()
    assert (np.abs(facts["held_out_r"]) <= 1).all()
    assert np.median(held_out[reliable]) < np.median(in_sample[reliable])
    assert facts["null_held_out_r2_percentile_99"] < 0.1  # below the criterion


@pytest.fixture(scope="module")
def recording(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("szinte2024")
    recipe.write_dataset(Path(DATA), folder)
    return EncodingDataset.open(folder, 1)


@pytest.mark.skipif(not DATA, reason="BERG_SZINTE2024 does not name the folder of the recording")
class TestRecording:
    def test_bars_are_the_design_matrix_away_from_fixation(self, recipe):
        design = np.load(Path(DATA) / "dm_gazecenter.npz")["arr_0"] / 9
        contrast, x_deg, y_deg = recipe.read_bars(Path(DATA))
        difference = np.abs(contrast - design.transpose(0, 2, 1))
        # Up to 0.3 are single points on the jagged edge of a bar.
        row, column = np.nonzero(difference.max(0) > 0.3)
        assert np.abs(x_deg[column]).max() < 0.7
        assert np.abs(y_deg[row]).max() < 0.7

    def test_shipped_parameters_reach_the_shipped_accuracy(self, recipe, recording, weights, metadata):
        assert (
            recording.outputs["responses"].coordinates["source_voxel"][1].tolist() == metadata["fmri"]["source_voxel"]
        )
        apertures = Apertures.of(*(torch.from_numpy(each.copy()) for each in recipe.read_bars(Path(DATA))))
        assert apertures.profiles is not None
        double = {name: torch.from_numpy(values).double() for name, values in weights.items()}
        fields = ReceptiveFields(double["x_deg"], double["y_deg"], double["size_deg"], double["exponent"])
        delay_s = metadata["encoding_models"]["hrf"]["delay_s"]
        response = haemodynamic_response(delay_s, recipe.TR_S, SETTINGS.haemodynamic_response)
        courses = predict_time_courses(apertures, fields, convolution_matrix(response, 150))
        bold = recording.outputs["responses"].mean(np.arange(150))
        r2 = r2_score(bold, (courses * double["amplitude"] + double["baseline"]).numpy())
        np.testing.assert_allclose(r2, metadata["encoding_models"]["in_sample_r2"], atol=1e-4)

    @pytest.mark.slow
    def test_berg_fit_writes_what_is_shipped(self, recording, weights, metadata, tmp_path):
        report = fit_model(MODEL_ID, recording, tmp_path, subject=1, show_progress=False)
        found = load_file(report.weights)
        assert set(found) == set(weights)
        for name, values in weights.items():
            np.testing.assert_allclose(found[name], values, atol=1e-3)
            assert np.mean(np.abs(found[name] - values) > 3e-5) < 0.001
        written = json.loads((report.folder / "metadata" / "metadata_subject-01.json").read_text("utf-8"))
        ours, theirs = written["encoding_models"], metadata["encoding_models"]
        for name in ("hrf", "folds", "reliable_criterion", "mapped_field_deg", "penalty", "tr_s"):
            assert ours[name] == theirs[name]
        assert np.mean(np.array(ours["reliable"]) != theirs["reliable"]) < 0.001
        for name in ("held_out_r", "held_out_r2", "in_sample_r2"):
            np.testing.assert_allclose(np.median(ours[name]), np.median(theirs[name]), atol=1e-4)
        assert float(report.accuracy["r"].median()) == pytest.approx(0.483, abs=0.001)
