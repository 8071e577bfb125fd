"""From arrays to a model that a user loads, with a family of somebody's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import own_family
import pytest
import yaml
from safetensors.numpy import load_file

from berg import BERG
from berg.cli.app import main
from berg.core import model_registry
from berg.core.exceptions import DeviceMemoryError, InvalidParameterError, ModelCardError
from berg.core.model_card import ModelCard
from berg.datasets.dataset import EncodingDataset
from berg.fitting.fit import fit_model, fit_subjects
from berg.testing import check_model
from berg.weights.inventory import verify_files

N_STIMULI, N_VOXELS = 400, 6
NOISE = np.array([0, 0.1, 0.3, 0.3, 0.5, 3.0], np.float32)
CARD: dict[str, Any] = {
    "model_id": "fmri-pixels-ols",
    "modality": "fmri",
    "training_dataset": "pixels",
    "species": "Human",
    "stimuli": "Images",
    "model_architecture": "least squares",
    "creator": "a test",
    "description": "Simulated voxels. " * 3 + "Each adds up the brightness of a picture at eight by eight places.",
    "family": "own_family:PixelModel",
    "input": {
        "shape": ["batch_size", 3, "height", "width"],
        "dtype": "uint8",
        "range": [0, 255],
        "description": "Pictures.",
    },
    "output": {"shape": ["batch_size", "n_voxels"], "description": "One number per voxel."},
    "outputs": [{"name": "responses", "axes": ["stimulus", "voxel"], "unit": "z-scored beta"}],
    "axes": {"voxel": {"coordinates": {"voxel": "fmri.voxel", "roi": "fmri.roi", "r": "encoding_models.r"}}},
    "parameters": {
        "subject": {
            "type": "int",
            "required": True,
            "valid_values": [1, 2],
            "example": 1,
            "description": "The subject.",
        },
        "selection": {
            "type": "dict",
            "description": "Which voxels.",
            "properties": {
                "roi": {"type": "str or list", "example": "V1", "description": "Region."},
                "min_r": {"type": "float", "example": 0.1, "description": "Least held-out r."},
            },
        },
    },
    "select": {
        "roi": {"kind": "roi", "axis": "voxel", "metadata": "fmri.rois"},
        "min_r": {"kind": "minimum", "axis": "voxel", "metadata": "encoding_models.r"},
    },
    "files": {"weights": "weights_subject-{subject:02d}", "metadata": "metadata_subject-{subject:02d}"},
    "licence": "CC0",
    "citation": "nobody",
    "references": ["none"],
}


@pytest.fixture
def registry(monkeypatch):
    """Models that a test makes known are forgotten after it."""
    model_registry.get_available_models()
    for name in ("MODEL_REGISTRY", "PROBLEMS", "_cards_read", "_opened", "_stores"):
        monkeypatch.setattr(model_registry, name, type(getattr(model_registry, name))(getattr(model_registry, name)))


@pytest.fixture
def card(registry, tmp_path: Path) -> Path:
    path = tmp_path / "fmri-pixels-ols.yaml"
    path.write_text(yaml.safe_dump(CARD, sort_keys=False))
    model_registry.register_card(path)  # as a plug-in does
    return path


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (N_STIMULI, 3, 8, 8), dtype=np.uint8)
    stimuli = coarse.repeat(4, axis=2).repeat(4, axis=3)
    coefficients = rng.normal(size=(N_VOXELS, 64)).astype(np.float32)
    clean = coarse.mean(axis=1).reshape(N_STIMULI, 64) / 255 @ coefficients.T + 1
    presentations = rng.permutation(np.repeat(np.arange(N_STIMULI), 2))
    spread = clean.std(axis=0) * NOISE
    measured = clean[presentations] + rng.normal(size=(2 * N_STIMULI, N_VOXELS)) * spread
    return {
        "stimuli": stimuli,
        "coefficients": coefficients,
        "clean": clean,
        "measured": measured.astype(np.float32),
        "presentations": presentations,
    }


def data_of(truth: dict[str, Any], **changes: Any) -> EncodingDataset:
    given: dict[str, Any] = {
        "presentations": truth["presentations"],
        "axes": ("voxel",),
        "unit": "z-scored beta",
        "coordinates": {
            "roi": ("voxel", ["V1;early"] * 2 + ["V2"] * 4),
            "rois": ("voxel", ["V1;early"] * 2 + ["V2"] * 4),
        },
        "test_fraction": 0.2,
    } | changes
    return EncodingDataset.from_arrays(truth["stimuli"], truth["measured"], **given)


def test_recordings_become_a_model_that_others_load(card, truth, tmp_path):
    said: list[str] = []
    data = data_of(truth)
    report = fit_model(
        card, data, tmp_path / "berg", subject=1, bootstrap=50, cache=tmp_path / "cache", say=said.append
    )
    assert "320 training stimuli" in said[0]
    assert "memory at the peak 10.0 MB" in said[0]
    np.testing.assert_allclose(load_file(report.weights)["coefficients"][0], truth["coefficients"][0], atol=1e-4)

    berg = BERG(tmp_path / "berg")
    assert "fmri-pixels-ols" in berg.list_models()
    model = berg.get_encoding_model("fmri-pixels-ols", subject=1, device="cpu")
    test = data.splits["test"]
    predicted = berg.encode(model, truth["stimuli"][test], show_progress=False)
    measured = data.outputs["responses"].mean(test)
    r = [np.corrcoef(measured[:, voxel], predicted[:, voxel])[0, 1] for voxel in range(N_VOXELS)]
    np.testing.assert_allclose(report.accuracy.r, r, atol=1e-6)
    np.testing.assert_allclose(model.get_metadata(model_instance=model)["encoding_models"]["r"], r, atol=1e-6)
    assert r[0] > 0.999 > 0.9 > r[5]
    assert (report.accuracy.noise_ceiling[:5] > 0.8).all()

    chosen = berg.get_encoding_model("fmri-pixels-ols", subject=1, selection={"roi": "early"}, device="cpu")
    assert chosen.labels()["responses"]["coordinates"]["voxel"][1].tolist() == [0, 1]
    strong = berg.get_encoding_model("fmri-pixels-ols", subject=1, selection={"min_r": 0.95}, device="cpu")
    assert len(strong.indices_of("responses", "voxel")) == (np.array(r) >= 0.95).sum()


def test_all_that_belongs_to_a_model_is_written_and_recorded(card, truth, tmp_path):
    report = fit_model(card, data_of(truth), tmp_path / "berg", subject=1, bootstrap=0, cache=tmp_path / "cache")
    held = verify_files(tmp_path / "berg")
    assert {file.state for file in held} == {"whole"}
    assert sorted(file.path for file in held) == [
        "encoding_models_accuracy/accuracy_subject-01.nc",
        "encoding_models_accuracy/report_subject-01.html",
        "encoding_models_weights/weights_subject-01.safetensors",
        "fmri-pixels-ols.yaml",
        "metadata/metadata_subject-01.json",
        "metadata/sample_subject-01.safetensors",
    ]
    assert not list(report.folder.glob(".fit*"))
    written = ModelCard.read(report.folder / "fmri-pixels-ols.yaml")
    assert written.performance is not None
    assert written.performance.metrics
    metadata = json.loads((report.folder / "metadata" / "metadata_subject-01.json").read_text())
    assert metadata["fmri"]["rois"] == {"V1": [0, 1], "early": [0, 1], "V2": [2, 3, 4, 5]}
    assert len(metadata["encoding_models"]["test_stimuli"]) == 80
    BERG(tmp_path / "berg").list_models()
    results = check_model("fmri-pixels-ols", tmp_path / "berg", subject=1)
    assert [(result.name, result.reason) for result in results if result.outcome == "failed"] == []


def test_what_is_there_is_kept_unless_said_otherwise(card, truth, tmp_path):
    options = {"subject": 1, "bootstrap": 0, "cache": tmp_path / "cache"}
    fit_model(card, data_of(truth), tmp_path / "berg", **options)
    before = len(own_family.FITS)
    with pytest.raises(InvalidParameterError, match="overwrite=True"):
        fit_model(card, data_of(truth), tmp_path / "berg", **options)
    assert len(own_family.FITS) == before
    other = data_of(truth, test_fraction=0.5)
    fit_model(card, other, tmp_path / "berg", overwrite=True, **options)
    assert own_family.FITS[-1] == 200
    assert {file.state for file in verify_files(tmp_path / "berg")} == {"whole"}


def test_several_subjects_are_fitted_one_after_another(card, truth, tmp_path):
    reports = fit_subjects(
        card, {1: data_of(truth), 2: data_of(truth, seed=1)}, tmp_path / "berg", bootstrap=0, cache=tmp_path / "cache"
    )
    assert [report.weights.name for report in reports] == [
        "weights_subject-01.safetensors",
        "weights_subject-02.safetensors",
    ]
    assert {file.state for file in verify_files(tmp_path / "berg")} == {"whole"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes": ("vertex",), "coordinates": {}}, "has the axes voxel; the data have vertex"),
        ({"coordinates": {"area": ("voxel", ["V1"] * 6)}}, "The card names 'roi' along 'voxel' \\(fmri.roi\\)"),
    ],
)
def test_a_card_and_data_that_do_not_belong_together_are_named(card, truth, tmp_path, changes, words):
    with pytest.raises(InvalidParameterError, match=words):
        fit_model(card, data_of(truth, **changes), tmp_path / "berg", subject=1)
    assert not (tmp_path / "berg").exists()


def test_too_little_memory_is_refused_before_anything_is_computed(card, truth, tmp_path):
    before = len(own_family.FITS)
    with pytest.raises(DeviceMemoryError, match=r"needs 10\.0 MB of memory, and may use 1\.0 MB.*--memory"):
        fit_model(card, data_of(truth), tmp_path / "berg", subject=1, memory=1_000_000)
    assert len(own_family.FITS) == before


def test_a_family_that_cannot_be_fitted_is_named_with_those_that_can(registry, tmp_path, truth):
    path = tmp_path / "fmri-pixels-ols.yaml"
    path.write_text(yaml.safe_dump(CARD | {"family": "linearising"}, sort_keys=False))
    with pytest.raises(ModelCardError, match="Did you mean 'linearizing'"):
        fit_model(path, data_of(truth), tmp_path / "berg", subject=1)


def test_the_command_fits_evaluates_and_checks(card, truth, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("stimuli", "measured", "presentations"):
        np.save(folder / f"{name}.npy", truth[name])
    voxels: dict[str, Any] = {"path": "measured.npy", "axes": ["presentation", "voxel"], "unit": "z-scored beta"}
    voxels["coordinates"] = {name: {"axis": "voxel", "values": ["V1"] * 6} for name in ("roi", "rois")}
    described = {"stimuli": "stimuli.npy", "presentations": "presentations.npy", "responses": {"responses": voxels}}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(described))
    where = ["--data", str(folder), "--berg-dir", str(tmp_path / "berg"), "--cache", str(tmp_path / "cache")]
    BERG(tmp_path / "berg")
    main(["fit", str(card), *where, "--subject", "1", "--bootstrap", "0"])
    printed = capsys.readouterr()
    assert "weights_subject-01.safetensors" in printed.out
    assert "Ready:  berg pack fmri-pixels-ols" in printed.out
