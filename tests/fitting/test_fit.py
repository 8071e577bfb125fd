"""From arrays to a model that a user loads, with a family of somebody's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import own_family
import psutil
import pytest
import yaml
from nibabel import cifti2
from safetensors.numpy import load_file

from berg import BERG
from berg.cli.app import main
from berg.core import model_registry
from berg.core.exceptions import (
    DatasetError,
    DeviceMemoryError,
    InvalidParameterError,
    ModelCardError,
    RegistrationError,
    StorageError,
)
from berg.core.model_card import ModelCard
from berg.datasets.dataset import EncodingDataset
from berg.fitting import fitted_files
from berg.fitting.card_agreement import check_agreement
from berg.fitting.fit import fit_model, fit_subjects
from berg.responses.save import save_responses
from berg.testing import check_model
from berg.weights.inventory import verify_files

N_STIMULI, N_VOXELS = 400, 6
NOISE = np.array([0, 0.1, 0.3, 0.3, 0.5, 3.0], np.float32)
OPTIONAL = {"r2": "encoding_models.r2?", "depth": "fmri.depth?"}
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
    "axes": {
        "voxel": {"coordinates": {"voxel": "fmri.voxel", "roi": "fmri.roi", "r": "encoding_models.r", **OPTIONAL}}
    },
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
    accuracy = BERG(tmp_path / "berg").accuracy("fmri-pixels-ols", subject=1)
    np.testing.assert_allclose(metadata["encoding_models"]["r2"], accuracy["r2"], rtol=1e-6)  # read at "...r2?"
    assert set(metadata["fmri"]) == {"voxel", "roi", "rois"}  # nobody knows the depth
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


def test_what_a_fit_does_not_write_is_told_before_it(card, truth, tmp_path):
    said = yaml.safe_load(card.read_text())
    said["outputs"][0]["coordinates"] = {"noise_ceiling": "fmri.noise_ceiling"}
    wrong = ModelCard.parse(yaml.safe_dump(said, sort_keys=False), card)
    with pytest.raises(InvalidParameterError, match=r"coordinates: \{noise_ceiling: fmri.noise_ceiling\?\}"):
        check_agreement(wrong, data_of(truth))
    said["outputs"][0]["coordinates"] = {"noise_ceiling": "fmri.noise_ceiling?"}
    check_agreement(ModelCard.parse(yaml.safe_dump(said, sort_keys=False), card), data_of(truth))


def test_too_little_memory_is_refused_before_anything_is_computed(card, truth, tmp_path):
    before = len(own_family.FITS)
    with pytest.raises(DeviceMemoryError, match=r"needs 10\.0 MB of memory, and may use 1\.0 MB.*--memory"):
        fit_model(card, data_of(truth), tmp_path / "berg", subject=1, memory=1_000_000)
    assert len(own_family.FITS) == before


# What can be known before the fit


def some_responses(truth, indices, value):
    """Responses that have one value in all presentations of these stimuli."""
    measured = truth["measured"].copy()
    measured[np.isin(truth["presentations"], indices)] = value
    return {**truth, "measured": measured}


TEN = {"train": np.arange(300), "test": np.arange(300, 310)}


@pytest.mark.filterwarnings("ignore::berg.datasets.assembly.DatasetWarning")
@pytest.mark.parametrize(
    ("changes", "replaced", "error", "words"),
    [
        ({"splits": {"train": np.arange(300)}}, None, DatasetError, "'test' has 0 stimuli.*test_fraction: 0.1"),
        ({"splits": {"train": np.arange(300), "test": [305]}}, None, DatasetError, "'test' has 1 stimuli"),
        ({"splits": {"train": np.arange(300), "test": [305, 306]}}, None, DatasetError, "'test' has 2 stimuli"),
        (
            {"splits": TEN},
            (np.arange(400), np.nan),
            DatasetError,
            "No unit of 'responses' varies.*300 stimuli of 'train'",
        ),
        ({"splits": TEN}, (np.arange(400), 3.0), DatasetError, "No unit of 'responses' varies.*300 stimuli of 'train'"),
        ({"splits": TEN}, (np.arange(300, 400), np.nan), DatasetError, "No unit.*10 stimuli of 'test'"),
        ({"splits": TEN}, (np.arange(300, 400), 0.1), DatasetError, "No unit.*10 stimuli of 'test'.*dataset check"),
        ({"sampling_interval_s": 2.0, "presentations": None}, None, InvalidParameterError, "frames of a sequence.*prf"),
    ],
)
def test_data_that_cannot_be_fitted_or_evaluated_are_refused_before_the_fit(
    card, truth, tmp_path, changes, replaced, error, words
):
    before = len(own_family.FITS)
    own = truth if replaced is None else some_responses(truth, *replaced)
    if changes.get("presentations", ()) is None:
        own = {**own, "measured": own["measured"][:N_STIMULI]}
    with pytest.raises(error, match=words):
        fit_model(card, data_of(own, **changes), tmp_path / "berg", subject=1)
    assert len(own_family.FITS) == before
    assert not (tmp_path / "berg").exists()


def test_responses_that_vary_over_a_few_stimuli_are_fitted(card, truth, tmp_path):
    own = some_responses(truth, np.setdiff1d(np.arange(400), [7, *TEN["test"]]), 1.0)  # 7 is not among those looked at
    report = fit_model(card, data_of(own, splits=TEN), tmp_path / "berg", subject=1, bootstrap=0)
    assert report.weights.is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bootstrap": -1}, "bootstrap is -1; it must be a whole number from 0. Try bootstrap=1000"),
        ({"permutations": 0.5}, "permutations is 0.5; it must be a whole number"),
        ({"permutations": True}, "permutations is True"),
    ],
)
def test_numbers_of_resamples_are_checked_before_the_fit(card, truth, tmp_path, options, words):
    before = len(own_family.FITS)
    with pytest.raises(InvalidParameterError, match=words):
        fit_model(card, data_of(truth), tmp_path / "berg", subject=1, **options)
    with pytest.raises(InvalidParameterError, match=words):
        fit_subjects(card, {1: data_of(truth)}, tmp_path / "berg", **options)
    assert len(own_family.FITS) == before


def test_a_card_without_a_file_or_a_class_is_refused_before_the_fit(card, truth, tmp_path):
    before, held = len(own_family.FITS), ModelCard.read(card)
    with pytest.raises(InvalidParameterError, match=r"is in no file\. Write it to one"):
        fit_model(ModelCard.parse(card.read_text(), "fmri-pixels-ols.yaml"), data_of(truth), tmp_path, subject=1)
    with pytest.raises(RegistrationError, match="NoModel"):
        fit_model(held.model_copy(update={"family": "own_family:NoModel"}), data_of(truth), tmp_path, subject=1)
    assert len(own_family.FITS) == before


def test_a_disk_that_is_too_small_is_refused_before_the_fit(card, truth, tmp_path, monkeypatch):
    before = len(own_family.FITS)
    needed = psutil.disk_usage(str(tmp_path)).total
    monkeypatch.setattr(own_family, "disk_bytes", lambda job: needed, raising=False)
    with pytest.raises(StorageError, match=r"This fit writes .*B, and .* has .*B free. Make room"):
        fit_model(card, data_of(truth), tmp_path / "berg", subject=1)
    assert len(own_family.FITS) == before


# Interrupted after the fit


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize(
    ("where", "subjects", "overwrite"),
    [("rmtree", [1], False), ("forget", [1, 2], True)]
    + [pytest.param(*each, marks=pytest.mark.slow) for each in (("forget", [1], True), ("rmtree", [1, 2], False))],
)
def test_a_fit_that_was_interrupted_while_it_tidied_up_is_done(
    card, truth, tmp_path, monkeypatch, where, subjects, overwrite
):
    data = {subject: data_of(truth) for subject in subjects}

    def fit():
        return fit_subjects(card, data, tmp_path / "berg", bootstrap=0, cache=tmp_path / "cache", overwrite=overwrite)

    with monkeypatch.context() as patch:
        patch.setattr(*((shutil, "rmtree") if where == "rmtree" else (fitted_files, "forget")), killed)
        with pytest.raises(Killed):
            fit()
    before = len(own_family.FITS)
    reports = fit()
    assert len(own_family.FITS) - before == (len(subjects) - 1 if where == "rmtree" else 0)  # the first one is done
    assert [report.subject for report in reports] == subjects
    assert reports[0].facts == {"n_features": 64}
    assert float(reports[0].accuracy.r[0]) > 0.99
    assert not list(reports[0].folder.glob(".fit*"))
    assert {file.state for file in verify_files(tmp_path / "berg")} == {"whole"}
    if not overwrite:
        with pytest.raises(InvalidParameterError, match="overwrite=True"):
            fit()


def test_what_a_finished_fit_of_other_data_left_is_no_reason_not_to_fit(card, truth, tmp_path, monkeypatch):
    where: dict[str, Any] = {"subject": 1, "bootstrap": 0, "cache": tmp_path / "cache"}
    with monkeypatch.context() as patch:
        patch.setattr(fitted_files, "forget", killed)
        with pytest.raises(Killed):
            fit_model(card, data_of(truth), tmp_path / "berg", **where)
    with pytest.raises(InvalidParameterError, match="overwrite=True"):
        fit_model(card, data_of(truth, test_fraction=0.5), tmp_path / "berg", **where)
    report = fit_model(card, data_of(truth, test_fraction=0.5), tmp_path / "berg", overwrite=True, **where)
    assert own_family.FITS[-1] == 200
    assert not list(report.folder.glob(".fit*"))


def test_a_fit_is_not_gone_on_with_in_other_groups(card, truth, tmp_path, monkeypatch):
    where: dict[str, Any] = {"subject": 1, "bootstrap": 0, "cache": tmp_path / "cache"}
    splits = {"train": np.arange(300), "test": np.arange(300, 400)}
    pairs, fives = (data_of(truth, splits=splits, groups=np.arange(400) // size) for size in (2, 5))
    renamed = data_of(truth, splits=splits, groups=[f"pair {number // 2}" for number in range(400)])
    with monkeypatch.context() as patch:
        patch.setattr(fitted_files, "forget", killed)
        with pytest.raises(Killed):
            fit_model(card, pairs, tmp_path / "berg", **where)
    for other in (fives, data_of(truth, splits=splits)):
        with pytest.raises(InvalidParameterError, match="overwrite=True"):
            fit_model(card, other, tmp_path / "berg", **where)
    before = len(own_family.FITS)
    fit_model(card, renamed, tmp_path / "berg", **where)
    assert len(own_family.FITS) == before  # the same groups, with other labels: it was done


@pytest.mark.slow
@pytest.mark.parametrize("family", ["linearizing", "two subjects"])
def test_a_fit_killed_at_any_file_operation_goes_on_to_the_same_model(family, tmp_path):
    script = Path(__file__).with_name("kill_trials.py")
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path), family], capture_output=True, text=True, timeout=3000
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout)
    assert found["n_operations"] > 60
    assert found["failures"] == []


def test_a_family_that_cannot_be_fitted_is_named_with_those_that_can(registry, tmp_path, truth):
    path = tmp_path / "fmri-pixels-ols.yaml"
    path.write_text(yaml.safe_dump(CARD | {"family": "linearising"}, sort_keys=False))
    with pytest.raises(ModelCardError, match="Did you mean 'linearizing'"):
        fit_model(path, data_of(truth), tmp_path / "berg", subject=1)


def test_a_module_that_lacks_what_a_family_must_have_is_told_what_that_is(registry, card, truth, tmp_path, monkeypatch):
    monkeypatch.delattr(own_family, "peak_bytes")
    with pytest.raises(ModelCardError, match=r"functions fit\(job\) and peak_bytes\(job\).*FittingFamily"):
        fit_model(card, data_of(truth), tmp_path / "berg", subject=1)


def test_the_check_of_a_family_is_called_once(card, truth, tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(own_family, "check", checked.append, raising=False)
    report = fit_model(card, data_of(truth), tmp_path / "berg", subject=1, bootstrap=0, cache=tmp_path / "cache")
    assert [job.files.weights for job in checked] == [report.weights]


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


# Grayordinates

BRAIN = sum(
    (
        cifti2.BrainModelAxis.from_surface(np.array([4, 8]), 10, "CortexRight"),
        cifti2.BrainModelAxis.from_mask(np.eye(3)[None] > 0, "putamen_left", np.diag([2.0, 2, 2, 1])),
    ),
    start=cifti2.BrainModelAxis.from_surface(np.array([1]), 10, "CortexLeft"),
)
ORDER = np.array([3, 4, 5, 1, 2, 0])
TURNED = BRAIN[3:] + BRAIN[1:3] + BRAIN[:1]
STRUCTURES = {
    "outputs": [{"name": "responses", "axes": ["stimulus", "grayordinate"], "unit": "z-scored beta"}],
    "axes": {"grayordinate": {"coordinates": {n: f"fmri.{n}" for n in ("structure", "vertex", "i", "j", "k", "roi")}}},
    "select": {"structure": {"kind": "roi", "axis": "grayordinate", "metadata": "fmri.structure"}},
    "parameters": {
        **CARD["parameters"],
        "selection": {
            "type": "dict",
            "description": "Which structures.",
            "properties": {
                "structure": {"type": "str or list", "example": [str(BRAIN.name[1])], "description": "By name."}
            },
        },
    },
}


def write_sessions(folder: Path, truth: dict[str, Any], kind: str) -> None:
    """Two sessions of CIFTI, the second with its brain models in another order, as is the atlas."""
    measured, half = truth["measured"], N_STIMULI
    for name, axis, values in (("1", BRAIN, measured[:half]), ("2", TURNED, measured[half:, ORDER])):
        rows = cifti2.SeriesAxis(0, 1, half) if kind == "dtseries" else cifti2.ScalarAxis(list(map(str, range(half))))
        cifti2.Cifti2Image(values, (rows, axis)).to_filename(folder / f"session{name}.{kind}.nii")
    table = {key: (name, (0, 0, 0, 1)) for key, name in enumerate(["???", "V1", "V2"])}
    areas = cifti2.LabelAxis(["areas"], [table])
    cifti2.Cifti2Image(np.array([[0, 1, 1, 2, 2, 0.0]], np.float32), (areas, TURNED)).to_filename(
        folder / "areas.dlabel.nii"
    )
    for name in ("stimuli", "presentations"):
        np.save(folder / f"{name}.npy", truth[name])
    (folder / "dataset.yaml").write_text(
        f"stimuli: stimuli.npy\npresentations: presentations.npy\nresponses:\n  responses:\n"
        f"    path: session*.{kind}.nii\n    unit: z-scored beta\n"
        f"    coordinates: {{roi: areas.dlabel.nii}}\n"
    )


@pytest.mark.slow  # the check takes most of it
@pytest.mark.parametrize("kind", ["dscalar", "dtseries"])
def test_sessions_of_grayordinates_become_a_model_with_their_structures(kind, registry, truth, tmp_path, capsys):
    folder, path = tmp_path / "data", tmp_path / "fmri-pixels-ols.yaml"
    folder.mkdir()
    path.write_text(yaml.safe_dump(CARD | STRUCTURES, sort_keys=False))
    model_registry.register_card(path)
    write_sessions(folder, truth, kind)
    main(["dataset", "check", str(folder)])
    assert "6 grayordinate" in capsys.readouterr().out
    where = ["--data", str(folder), "--berg-dir", str(tmp_path / "berg"), "--cache", str(tmp_path / "cache")]
    main(["fit", str(path), *where, "--subject", "1", "--bootstrap", "0", "--device", "cpu"])
    berg = BERG(tmp_path / "berg")
    model = berg.get_encoding_model("fmri-pixels-ols", subject=1, device="cpu")
    labelled = berg.encode(model, truth["stimuli"][:40], labelled=True)
    found = labelled["responses"]
    assert found["structure"].values.tolist() == BRAIN.name.tolist()
    assert found["vertex"].values.tolist() == BRAIN.vertex.tolist()
    assert found["roi"].values.tolist() == ["", "V2", "V2", "", "V1", "V1"]
    for unit in range(N_VOXELS - 1):  # the last is nothing but noise
        assert np.corrcoef(found.values[:, unit], truth["clean"][:40, unit])[0, 1] > 0.95
    save_responses(labelled, tmp_path / "x.dscalar.nii")
    image = nibabel.load(tmp_path / "x.dscalar.nii")
    assert image.header.get_axis(1) == BRAIN
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), found.values)
    deep = berg.get_encoding_model(
        "fmri-pixels-ols", subject=1, device="cpu", selection={"structure": [str(BRAIN.name[3])]}
    )
    np.testing.assert_allclose(berg.encode(deep, truth["stimuli"][:40]), found.values[:, 3:], rtol=1e-5, atol=1e-6)
