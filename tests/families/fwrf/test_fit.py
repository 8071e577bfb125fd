"""fwRF models fitted to voxels whose receptive fields are known, on crops of real photographs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from marks import slow
from numpy.typing import NDArray
from PIL import Image
from published import layouts
from skimage import data

from berg import BERG
from berg.core.exceptions import (
    DatasetError,
    DeviceMemoryError,
    InvalidParameterError,
    MissingFileError,
    ModelCardError,
)
from berg.core.layout import METADATA, WEIGHTS, ModelId
from berg.core.model_card import ModelCard
from berg.core.model_registry import bind_card
from berg.datasets.dataset import EncodingDataset
from berg.families.fwrf import fit as fwrf
from berg.families.fwrf import training as fwrf_training
from berg.families.fwrf.features import MAP_SIZES, GNet, pixel_centres
from berg.fitting.fit_job import FitJob, Fitted
from berg.weights.safetensors_files import write_safetensors

WIDTH = 4  # of the small networks here; the published ones have 64
MODEL_ID = "fmri-simulated-fwrf"
Floats = NDArray[np.floating[Any]]

CARD = """
model_id: fmri-simulated-fwrf
modality: fmri
training_dataset: simulated
species: none
stimuli: Images
model_architecture: fwRF on GNet
creator: the tests
description: Simulated voxels.
family: fwrf
features: {extractor: gnet}
readout: {steps: [receptive_field, channel_weights]}
fit: FIT
input: {shape: [batch_size, 3, height, width], dtype: uint8, range: [0, 255]}
output: {shape: [batch_size, n_voxels]}
outputs: [{name: responses, axes: [stimulus, voxel], unit: z-scored beta}]
axes:
  voxel: {coordinates: {x: fwrf.x, y: fwrf.y, size: fwrf.size, roi: fmri.roi}}
parameters:
  subject: {type: int, required: true, valid_values: [1, 2], example: 1}
  precision: {type: str, default: float32}
  compile: {type: bool, default: false}
  selection:
    type: dict
    properties:
      roi: {type: str or list, example: V1}
      size: {type: list, example: [0, 0.2]}
select:
  roi: {kind: roi, axis: voxel, metadata: fmri.roi}
  size: {kind: range, axis: voxel, metadata: fwrf.size}
files: {weights: "weights_subject-{subject:02d}", metadata: "metadata_subject-{subject:02d}"}
licence: CC0
citation: none
references: [none]
"""


# Data


def crops(n_pictures: int, seed: int) -> NDArray[np.uint8]:
    """Crops of photographs at many scales, turned and mirrored, at the size of the network."""
    rng = np.random.default_rng(seed)
    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.immunohistochemistry()]
    return np.stack([crop(photographs[rng.integers(len(photographs))], rng) for _ in range(n_pictures)])


def crop(photograph: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    size = int(rng.integers(80, min(photograph.shape[:2]) + 1))
    top, left = (int(rng.integers(length - size + 1)) for length in photograph.shape[:2])
    part = Image.fromarray(photograph[top : top + size, left : left + size]).resize((227, 227))
    pixels = np.rot90(np.asarray(part), rng.integers(4))
    return (pixels[:, ::-1] if rng.random() < 0.5 else pixels).transpose(2, 0, 1)


def random_network(pictures: NDArray[np.uint8], seed: int) -> GNet:
    """A network with random weights whose norms fit the pictures."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = GNet(WIDTH)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    network.mu.copy_(torch.from_numpy(pictures[:100].mean(0, keepdims=True) / 255))
    with torch.no_grad():
        for start in range(0, len(pictures), 50):
            network(torch.from_numpy(pictures[start : start + 50]))
    return network.eval()


class Truth:
    """Voxels that look at every group of maps of a network through the same round Gaussian."""

    def __init__(self, pictures: NDArray[np.uint8], n_voxels: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.x, self.y = rng.uniform(-0.3, 0.3, (2, n_voxels))
        self.size = rng.uniform(0.05, 0.16, n_voxels)
        self.network = random_network(pictures, seed)
        clean = self.responses(pictures, rng)
        self.clean = (clean - clean.mean(0)) / clean.std(0)
        noise = 0.5 * rng.standard_normal(clean.shape)  # a fifth of the variance
        self.noisy = (self.clean + noise).astype(np.float32)

    def responses(self, pictures: NDArray[np.uint8], rng: np.random.Generator) -> Floats:
        """The equation of the readout, with channels weighted by what they vary."""
        maps = [self.maps(pictures[start : start + 50]) for start in range(0, len(pictures), 50)]
        total = np.zeros(())
        for group in range(len(MAP_SIZES)):
            of_group = saturate(np.concatenate([batch[group] for batch in maps]).astype(float))
            pooled = saturate(np.einsum("nchw,vhw->nvc", of_group, self.fields(group)))
            weights = rng.standard_normal(pooled.shape[1:]) * (rng.random(pooled.shape[1:]) < 0.5)
            total = total + np.einsum("nvc,vc->nv", (pooled - pooled.mean(0)) / (pooled.std(0) + 1e-6), weights)
        return total

    def maps(self, pictures: NDArray[np.uint8]) -> list[Floats]:
        with torch.no_grad():
            return [group.numpy() for group in self.network(torch.from_numpy(pictures))]

    def fields(self, group: int) -> Floats:
        centres = pixel_centres(group).numpy()
        x, y = (centres - 0.5)[None, None, :], (0.5 - centres)[None, :, None]
        distance = (x - self.x[:, None, None]) ** 2 + (y - self.y[:, None, None]) ** 2
        fields = np.exp(-distance / (2 * self.size[:, None, None] ** 2))
        return fields / fields.sum((1, 2), keepdims=True)


def saturate(x: Floats) -> Floats:
    return np.log1p(np.abs(x)) * np.tanh(x)


@cache
def few_pictures() -> NDArray[np.uint8]:
    return crops(48, 3)


@cache
def few_responses(n_voxels: int = 5) -> Floats:
    return Truth(few_pictures(), n_voxels, 4).noisy


def dataset(pictures: NDArray[np.uint8], responses: Floats, **options: Any) -> EncodingDataset:
    labels = np.array(["V1", "V2"])[np.arange(responses.shape[1]) % 2]
    given: dict[str, Any] = {"test_fraction": 0.1, "validation_fraction": 0.2, "unit": "z-scored beta", **options}
    return EncodingDataset.from_arrays(
        pictures, responses, axes=("voxel",), coordinates={"roi": ("voxel", labels)}, **given
    )


def job_of(folder: Path, fit: dict[str, Any], own: EncodingDataset, subject: int = 1, **options: Any) -> FitJob:
    path = folder / f"{MODEL_ID}.yaml"
    path.write_text(CARD.replace("FIT", json.dumps(fit)))
    return FitJob(
        card=ModelCard.read(path),
        dataset=own,
        parameters={"subject": subject, "precision": "float32", "compile": False},
        device=torch.device("cpu"),
        cache=folder / "cache",
        work=folder / "work",
        **{"memory": 10**10, "show_progress": False, **options},
    )


SMALL: dict[str, Any] = {"width": WIDTH, "batch_size": 16, "epochs": 2}


def small_job(folder: Path, **fit: Any) -> FitJob:
    return job_of(folder, {**SMALL, **fit}, dataset(few_pictures(), few_responses()))


def assert_same(found: Fitted, expected: Fitted) -> None:
    assert found.tensors.keys() == expected.tensors.keys()
    for name, value in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], value, err_msg=name)


def written(folder: Path, fitted: Fitted, job: FitJob) -> Any:
    """The fitted model, loaded as a user loads it."""
    own = ModelId.parse(MODEL_ID).folder(folder)
    for part in (WEIGHTS, METADATA):
        (own / part).mkdir(parents=True, exist_ok=True)
    write_safetensors(own / WEIGHTS / "weights_subject-01.safetensors", fitted.tensors)
    labels = job.dataset.outputs["responses"].coordinates["roi"][1]
    metadata = {**fitted.metadata, "fmri": {"roi": labels}}
    (own / METADATA / "metadata_subject-01.json").write_text(json.dumps(metadata, default=np.ndarray.tolist))
    return own


def load(folder: Path, job: FitJob, selection: dict[str, Any] | None = None) -> Any:
    model: Any = bind_card(job.card)
    loaded = model("cpu", selection, str(folder), subject=1)
    loaded.load_model()
    return loaded


# Recovery


def recovery(fitted: Fitted, truth: Truth) -> dict[str, float]:
    """How well centres and sizes are recovered: errors in shares of the picture's width."""
    found = fitted.metadata["fwrf"]
    error = np.hypot(found["x"] - truth.x, found["y"] - truth.y)
    return {
        "centre, median error": float(np.median(error)),
        "centre, correlation": float(min(correlation(found["x"], truth.x), correlation(found["y"], truth.y))),
        "size, correlation": float(correlation(found["size"], truth.size)),
        "size, median ratio": float(np.median(found["size"] / truth.size)),
    }


def correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def network_file(folder: Path, network: GNet) -> str:
    tensors = {f"enc/{name}": value.numpy() for name, value in network.state_dict().items()}
    write_safetensors(folder / "network.safetensors", tensors)
    return "network.safetensors"


@pytest.mark.slow
def test_receptive_fields_are_recovered_on_a_known_network(tmp_path: Path) -> None:
    pictures = crops(700, 0)
    truth = Truth(pictures, 24, 1)
    fit = {
        "network": "frozen",
        "starting_weights": network_file(tmp_path, truth.network),
        **{"batch_size": 50, "epochs": 40, "readout_learning_rate": 0.03, "smoothness": 0.1},
    }
    job = job_of(tmp_path, fit, dataset(pictures, truth.noisy))
    fitted = fwrf.fit(job)
    found = recovery(fitted, truth)
    print(found, fitted.facts["validation_losses"][-1])
    assert found["centre, median error"] < 0.05
    assert found["centre, correlation"] > 0.9
    assert found["size, correlation"] > 0.5
    assert 0.7 < found["size, median ratio"] < 1.3


@pytest.mark.slow
def test_receptive_fields_are_recovered_with_a_network_trained_from_nothing(tmp_path: Path) -> None:
    pictures = crops(600, 0)
    truth = Truth(pictures, 40, 1)
    fit = {
        **{"width": WIDTH, "batch_size": 50, "epochs": 12, "smoothness": 0.1, "dropout": 0.0},
        **{"learning_rate": 0.003, "readout_learning_rate": 0.03},
    }
    found = recovery(fwrf.fit(job_of(tmp_path, fit, dataset(pictures, truth.noisy))), truth)
    print(found)
    assert found["centre, median error"] < 0.08
    assert found["centre, correlation"] > 0.85


@pytest.mark.slow
def test_with_more_pictures_sizes_are_recovered_too_with_a_network_trained_from_nothing(tmp_path: Path) -> None:
    pictures = crops(3000, 0)
    truth = Truth(pictures, 60, 1)
    fit = {
        **{"width": WIDTH, "batch_size": 50, "epochs": 20, "smoothness": 0.1, "dropout": 0.0},
        **{"learning_rate": 0.003, "readout_learning_rate": 0.03},
    }
    found = recovery(fwrf.fit(job_of(tmp_path, fit, dataset(pictures, truth.noisy))), truth)
    print(found)
    assert found["centre, median error"] < 0.05
    assert found["size, correlation"] > 0.5


@pytest.mark.parametrize("group", range(3))
def test_pixels_of_the_maps_look_where_they_are_said_to(group: int) -> None:
    network = random_network(few_pictures(), 0).double()
    picture = torch.from_numpy(few_pictures()[:1]).double().requires_grad_()
    middle = MAP_SIZES[group] // 2
    network(picture)[group][0, :WIDTH, middle, middle].sum().backward()
    seen = torch.nonzero(picture.grad.abs().sum((0, 1)))
    ends = (seen.min(0).values, seen.max(0).values + 1)
    expected = 227 * float(pixel_centres(group)[middle])
    for start, stop in zip(*ends, strict=True):
        # At the border of what a pixel sees, its weights may be zero for this picture.
        assert float(start + stop) / 2 == pytest.approx(expected, abs=3)


def test_moments_of_gaussian_maps_are_their_centres_and_sizes() -> None:
    rng = np.random.default_rng(0)
    x, y, size = rng.uniform(-0.15, 0.15, 20), rng.uniform(-0.15, 0.15, 20), rng.uniform(0.08, 0.12, 20)
    maps = []
    for group in range(3):
        centres = pixel_centres(group).numpy() - 0.5
        distance = (centres[None, None] - x[:, None, None]) ** 2 + (centres[None, :, None] + y[:, None, None]) ** 2
        maps.append(7.0 - distance / (2 * size[:, None, None] ** 2))  # logits count up to a constant
    found = fwrf.receptive_fields(maps, np.full((3, 20), 1 / 3), picture_width=8.4)
    np.testing.assert_allclose(found["x"], 8.4 * x, atol=0.02)
    np.testing.assert_allclose(found["y"], 8.4 * y, atol=0.02)
    np.testing.assert_allclose(found["size"], 8.4 * size, rtol=0.05)


def test_a_voxel_that_predicts_nothing_has_no_receptive_field() -> None:
    maps = [np.zeros((2, size, size)) for size in MAP_SIZES]
    found = fwrf.receptive_fields(maps, np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    assert np.isnan(found["x"]).tolist() == [True, False]


# The model that comes out


@pytest.mark.slow
def test_the_fitted_model_predicts_what_was_reached_in_training(tmp_path: Path) -> None:
    job = small_job(tmp_path, epochs=4)
    fitted = fwrf.fit(job)
    written(tmp_path, fitted, job)
    assert_reached(fitted, job, load(tmp_path, job))


def assert_reached(fitted: Fitted, job: FitJob, model: Any) -> None:
    """The best validation loss is the error of what the model encodes, z-scored as the training responses."""
    train, validation = (job.dataset.splits[split] for split in ("train", "validation"))
    measured = few_responses()
    predicted = BERG().encode(model, few_pictures()[validation])
    error = (predicted - measured[validation]) / measured[train].std(0)
    assert float((error**2).mean()) == pytest.approx(min(fitted.facts["validation_losses"]), abs=1e-4)


@pytest.mark.slow
def test_the_best_parameters_are_kept_and_patience_ends_the_training(tmp_path: Path) -> None:
    job = small_job(tmp_path, epochs=40, patience=2, readout_learning_rate=0.3)
    fitted = fwrf.fit(job)
    losses = fitted.facts["validation_losses"]
    best = int(np.argmin(losses)) + 1
    assert fitted.facts["best_epoch"] == best
    assert fitted.facts["epochs_done"] == len(losses) == best + 2 < 40
    assert losses[-1] > min(losses) + 0.001
    written(tmp_path, fitted, job)
    assert_reached(fitted, job, load(tmp_path, job))


@pytest.mark.parametrize(
    ("selection", "columns"), [({"roi": "V2"}, [1, 3]), ({"roi": ["V2", "V1"]}, [1, 3, 0, 2, 4]), (None, range(5))]
)
def test_selected_voxels_of_one_file_are_columns_of_all(selection: Any, columns: Any, tmp_path: Path) -> None:
    job = small_job(tmp_path, epochs=1)
    written(tmp_path, fwrf.fit(job), job)
    whole = BERG().encode(load(tmp_path, job), few_pictures()[:3])
    part = BERG().encode(load(tmp_path, job, selection), few_pictures()[:3])
    np.testing.assert_allclose(part, whole[:, list(columns)], atol=1e-6)
    assert part.shape == (3, len(columns))


@pytest.mark.slow
def test_receptive_fields_are_coordinates_and_can_be_selected_by(tmp_path: Path) -> None:
    job = small_job(tmp_path, epochs=2, picture_width_deg=8.4)
    fitted = fwrf.fit(job)
    assert fitted.metadata["fwrf"]["unit"] == "degrees"
    written(tmp_path, fitted, job)
    sizes = fitted.metadata["fwrf"]["size"]
    chosen = load(tmp_path, job, {"size": [0, float(np.median(sizes))]})
    _, found = chosen.get_metadata()["fwrf"]["size"], chosen.labels()["responses"]["coordinates"]["size"][1]
    np.testing.assert_allclose(found, sizes[sizes <= np.median(sizes)], rtol=1e-6)


@pytest.mark.slow
def test_degrees_are_fractions_times_the_width(tmp_path: Path) -> None:
    (tmp_path / "degrees").mkdir()
    fractions = fwrf.fit(small_job(tmp_path)).metadata["fwrf"]
    degrees = fwrf.fit(small_job(tmp_path / "degrees", picture_width_deg=8.4)).metadata["fwrf"]
    np.testing.assert_allclose(degrees["x"], 8.4 * fractions["x"], rtol=1e-5)


# Missing responses


def with_missing(responses: Floats, seed: int = 0) -> Floats:
    missing = np.random.default_rng(seed).random(responses.shape) < 0.4
    return np.where(missing, np.nan, responses).astype(np.float32)


@pytest.mark.slow
def test_missing_responses_are_not_taken_as_zero(tmp_path: Path) -> None:
    responses = with_missing(few_responses() + 7)
    own = dataset(few_pictures(), responses)
    fitted = fwrf.fit(job_of(tmp_path, {**SMALL, "readout_learning_rate": 1e-9}, own))
    means = np.nanmean(responses[own.splits["train"]], axis=0)
    np.testing.assert_allclose(fitted.tensors["fwrf/b"], means, atol=1e-5)
    z = (responses - means) / np.nanstd(responses[own.splits["train"]], axis=0)
    expected = np.nanmean(z[own.splits["validation"]] ** 2)
    assert fitted.facts["validation_losses"][0] == pytest.approx(expected, abs=1e-4)


def test_missing_responses_do_not_move_the_weights(tmp_path: Path) -> None:
    """Two voxels alike, of which one misses the responses that the other has by accident as its mean."""
    loss = [
        fwrf_training._squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([row]))
        for row in ([3.0, float("nan")], [3.0, 2.0])
    ]
    assert [float(error) for error, _ in loss] == [4.0, 4.0]
    assert [int(n) for _, n in loss] == [1, 2]


def test_voxels_without_any_training_response_are_named(tmp_path: Path) -> None:
    responses = few_responses().copy()
    responses[:, 2] = np.nan
    with pytest.raises(DatasetError, match=r"Units 2 of 'responses' have no response to any training"):
        fwrf.fit(job_of(tmp_path, SMALL, dataset(few_pictures(), responses)))


# Going on after an interruption


class Stop(Exception):
    pass


def stop_after(n_steps: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the training die in the middle of a step; the list counts the steps that were done."""
    steps: list[int] = []
    real = fwrf_training._Run._step

    def step(self: Any, places: Any) -> None:
        if len(steps) == n_steps:
            raise Stop
        steps.append(1)
        real(self, places)

    monkeypatch.setattr(fwrf_training._Run, "_step", step)
    return steps


@pytest.mark.parametrize(
    ("n_before", "seconds", "n_repeated"), [(5, 0.0, 0), slow(3, 0.0, 0), slow(5, 1e9, 2), slow(1, 1e9, 1)]
)
@pytest.mark.parametrize("frozen", [slow(False), True])
def test_an_interrupted_fit_goes_on_and_gives_the_same_bits(
    n_before: int, seconds: float, n_repeated: int, frozen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("whole", "interrupted")]
    jobs = [resumable_job(folder, frozen) for folder in folders]
    whole = fwrf.fit(jobs[0])
    monkeypatch.setattr(fwrf_training, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
    with monkeypatch.context() as patch:
        stop_after(n_before, patch)
        with pytest.raises(Stop):
            fwrf.fit(jobs[1])
    with monkeypatch.context() as patch:
        steps = stop_after(1000, patch)
        again = fwrf.fit(jobs[1])
    assert len(steps) == 9 - n_before + n_repeated  # three epochs of three steps
    assert_same(again, whole)
    assert again.facts == whole.facts


def resumable_job(folder: Path, frozen: bool) -> FitJob:
    folder.mkdir()
    if not frozen:
        return small_job(folder, epochs=3, dropout=0.3)
    weights = network_file(folder, random_network(few_pictures(), 1))
    fit = {"network": "frozen", "starting_weights": weights, "batch_size": 16, "epochs": 3}
    return job_of(folder, fit, dataset(few_pictures(), few_responses()))


def run(program: str, *arguments: Any) -> subprocess.CompletedProcess[bytes]:
    """A program in a process of its own, which can import this file."""
    path = os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])
    threads = f"import torch\ntorch.set_num_threads({torch.get_num_threads()})\n"
    command = [sys.executable, "-c", threads + textwrap.dedent(program), *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False)


@pytest.mark.slow
def test_a_killed_process_leaves_a_checkpoint_that_gives_the_same_bits(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "killed")]
    jobs = [resumable_job(folder, frozen=False) for folder in folders]
    whole = fwrf.fit(jobs[0])
    np.savez(tmp_path / "data.npz", pictures=few_pictures(), responses=few_responses())
    program = """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from families.fwrf.test_fit import SMALL, dataset, fwrf, fwrf_training, job_of
        kept = fwrf_training._Run._save
        def save_and_die(self, state):
            kept(self, state)
            os.kill(os.getpid(), signal.SIGKILL)
        fwrf_training._Run._save = save_and_die
        held = np.load(sys.argv[1])
        own = dataset(held["pictures"], held["responses"])
        fwrf.fit(job_of(Path(sys.argv[2]), {**SMALL, "epochs": 3, "dropout": 0.3}, own))
    """
    done = run(program, tmp_path / "data.npz", folders[1])
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert (jobs[1].work / "checkpoint.safetensors").is_file()
    assert_same(fwrf.fit(jobs[1]), whole)


@pytest.mark.slow
def test_a_checkpoint_of_other_responses_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fwrf.fit(small_job(tmp_path))
    other = dataset(few_pictures(), few_responses() + few_responses()[::-1])
    expected_folder = tmp_path / "fresh"
    expected_folder.mkdir()
    found = fwrf.fit(job_of(tmp_path, SMALL, other))
    assert_same(found, fwrf.fit(job_of(expected_folder, SMALL, other)))


def test_a_fit_leaves_the_random_numbers_of_others_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    fwrf.fit(small_job(tmp_path, dropout=0.3))
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_another_model(tmp_path: Path) -> None:
    first = fwrf.fit(small_job(tmp_path, epochs=1))
    second = fwrf.fit(small_job(tmp_path, epochs=1, seed=1))
    assert not np.allclose(first.tensors["enc/enc.conv3.weight"], second.tensors["enc/enc.conv3.weight"])


# The network


@pytest.mark.slow
def test_a_frozen_network_stays_as_it_was_and_a_starting_network_does_not(tmp_path: Path) -> None:
    network = random_network(few_pictures(), 1)
    fit = {**SMALL, "starting_weights": network_file(tmp_path, network)}
    own = dataset(few_pictures(), few_responses())
    frozen = fwrf.fit(job_of(tmp_path, {**fit, "network": "frozen"}, own))
    trained = fwrf.fit(job_of(tmp_path, {**fit, "learning_rate": 1e-4}, own))
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(frozen.tensors[f"enc/{name}"], value)
    moved = np.abs(trained.tensors["enc/enc.conv3.weight"] - network.enc.conv3.weight.detach().numpy())
    assert 0 < moved.max() < 0.01


@pytest.mark.slow
def test_the_network_of_a_published_file_can_be_begun_with(tmp_path: Path) -> None:
    path = layouts.write_fwrf(tmp_path, 1, "V1", np.random.default_rng(0), n_voxels=2)
    fit = {"network": "frozen", "starting_weights": str(path), "epochs": 1, "batch_size": 16}
    fitted = fwrf.fit(job_of(tmp_path, fit, dataset(few_pictures(), few_responses())))
    held = torch.load(path, weights_only=False)["best_params"]["enc"]
    for name, value in held.items():
        np.testing.assert_array_equal(fitted.tensors[f"enc/{name}"], value)
    assert fitted.tensors["fwrf/w"].shape == (5, 768)


@pytest.mark.slow
def test_feature_maps_and_pictures_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = resumable_job(tmp_path / "own", frozen=True)
    first = fwrf.fit(job)
    monkeypatch.setattr(GNet, "forward", None)
    monkeypatch.setattr(type(job.dataset), "read_stimuli", None)
    assert_same(fwrf.fit(replace(job, work=tmp_path / "other work")), first)


@pytest.mark.slow
def test_feature_maps_of_another_network_are_computed_anew(tmp_path: Path) -> None:
    job = resumable_job(tmp_path / "own", frozen=True)
    fwrf.fit(job)
    network_file(tmp_path / "own", random_network(few_pictures(), 2))
    second = fwrf.fit(replace(job, work=tmp_path / "other work"))
    fresh = fwrf.fit(replace(job, work=tmp_path / "third work", cache=tmp_path / "other cache"))
    assert_same(second, fresh)


# Several subjects


def two_jobs(folder: Path, second: Floats, **fit: Any) -> list[FitJob]:
    folder.mkdir(exist_ok=True)
    sets = [dataset(few_pictures(), few_responses()), dataset(few_pictures()[::-1].copy()[:40], second[::-1][:40])]
    return [job_of(folder, {**SMALL, **fit}, own, subject) for subject, own in enumerate(sets, 1)]


@pytest.mark.slow
def test_subjects_share_the_network_and_have_their_own_voxels(tmp_path: Path) -> None:
    jobs = two_jobs(tmp_path, few_responses(9))
    together = fwrf.fit_together(jobs)
    assert [fitted.tensors["fwrf/b"].shape for fitted in together] == [(5,), (9,)]
    for name in (name for name in together[0].tensors if name.startswith("enc/")):
        np.testing.assert_array_equal(together[0].tensors[name], together[1].tensors[name])
    alone = fwrf.fit(jobs[0])
    assert not np.allclose(alone.tensors["enc/enc.conv3.weight"], together[0].tensors["enc/enc.conv3.weight"])
    assert together[0].facts["n_subjects_sharing_the_network"] == 2


@pytest.mark.slow
def test_a_subject_with_more_voxels_does_not_count_more(tmp_path: Path) -> None:
    """Each voxel twice: the same network comes out, up to rounding."""
    own = few_responses(9)
    once = fwrf.fit_together(two_jobs(tmp_path / "once", own, epochs=1))
    twice = fwrf.fit_together(two_jobs(tmp_path / "twice", np.concatenate([own, own], axis=1), epochs=1))
    name = "enc/enc.conv3.weight"
    change = np.abs(once[0].tensors[name] - start_of(tmp_path, name)).mean()
    # Adam takes whole steps where a gradient is nothing but rounding.
    assert np.abs(twice[0].tensors[name] - once[0].tensors[name]).mean() < 0.03 * change
    np.testing.assert_allclose(twice[1].tensors["fwrf/b"][:9], once[1].tensors["fwrf/b"], atol=1e-4)


def start_of(folder: Path, name: str) -> Floats:
    """The first parameters of the network, which a fit that learns next to nothing leaves."""
    jobs = two_jobs(folder / "still", few_responses(9), epochs=1, learning_rate=1e-12)
    return fwrf.fit_together(jobs)[0].tensors[name]


def test_the_validation_loss_is_the_mean_over_subjects(tmp_path: Path) -> None:
    jobs = two_jobs(tmp_path, few_responses(9), readout_learning_rate=1e-9, epochs=1)
    loss = fwrf.fit_together(jobs)[0].facts["validation_losses"][0]
    each = []
    for job in jobs:
        train, validation = (
            job.dataset.outputs["responses"].mean(job.dataset.splits[name]) for name in ("train", "validation")
        )
        each.append((((validation - train.mean(0)) / train.std(0)) ** 2).mean())
    assert loss == pytest.approx(np.mean(each), abs=1e-4)


# Memory, progress


def test_the_validation_loss_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = fwrf.fit(replace(small_job(tmp_path), show_progress=True))
    shown = capsys.readouterr().err
    assert f"epoch 2: validation loss {fitted.facts['validation_losses'][-1]:.4f}" in shown
    assert "96/96 pictures" in shown


def test_a_fit_that_needs_more_memory_than_it_may_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceMemoryError, match=r"needs \d+\.\d MB of memory, and may use 1\.0 MB.*batch_size"):
        fwrf.fit(replace(small_job(tmp_path), memory=10**6))


@pytest.mark.slow
def test_a_fit_keeps_to_the_memory_that_was_stated(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        import numpy as np, psutil
        from families.fwrf.test_fit import dataset, fwrf, job_of
        from berg.fitting.fit import peak_resident
        pictures = np.load(sys.argv[1], mmap_mode="r")
        own = dataset(pictures, np.random.default_rng(0).standard_normal((len(pictures), 40)))
        fit = {"width": 4, "batch_size": 200, "epochs": 1}
        job = job_of(Path(sys.argv[2]), fit, own)
        before = psutil.Process().memory_info().rss
        fwrf.fit(job)
        print(fwrf.peak_bytes(job), peak_resident() - before)
    """
    np.save(tmp_path / "pictures.npy", few_pictures()[np.arange(300) % 48])
    done = run(program, tmp_path / "pictures.npy", tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    stated, needed = (int(number) for number in done.stdout.split())
    assert 0.4 * stated < needed < stated  # what is stated means something


def test_blocks_of_voxels_do_not_change_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.rand(3, sum(size**2 for size in MAP_SIZES), 4 * WIDTH)
    gradients = []
    for n_bytes in (2**26, 1000):  # all voxels at once; five
        monkeypatch.setattr(fwrf_training, "BLOCK_BYTES", n_bytes)
        torch.manual_seed(0)
        readout = fwrf_training.TrainedReadout(23, 4 * WIDTH)
        for parameter in readout.parameters():
            torch.nn.init.normal_(parameter)
        readout(pixels).square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in readout.parameters()]))
    assert fwrf_training.voxels_at_once(3, 4 * WIDTH) == 5
    torch.testing.assert_close(gradients[1], gradients[0])


# What is refused


def test_data_without_a_validation_split_are_refused(tmp_path: Path) -> None:
    own = dataset(few_pictures(), few_responses(), validation_fraction=0.0)
    with pytest.raises(DatasetError, match=r"no stimuli in the split 'validation'.*validation_fraction: 0\.1"):
        fwrf.check(job_of(tmp_path, SMALL, own))


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        ({"network": "frozen"}, "frozen needs starting_weights"),
        ({"learning_rat": 0.1}, "unknown key 'learning_rat'.*learning_rate"),
        ({"epochs": 0}, "fit.epochs is 0.*greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(fit: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelCardError, match=words):
        fwrf.fit(job_of(tmp_path, fit, dataset(few_pictures(), few_responses())))


def test_starting_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"fit\.starting_weights of .*there is no file .*none\.safetensors"):
        fwrf.fit(small_job(tmp_path, starting_weights="none.safetensors"))


def test_a_width_other_than_that_of_the_starting_weights_is_refused(tmp_path: Path) -> None:
    weights = network_file(tmp_path, random_network(few_pictures(), 1))
    with pytest.raises(InvalidParameterError, match=r"fit\.width .* is 6; the network in .* has 4\. Leave width out"):
        fwrf.fit(small_job(tmp_path, width=6, starting_weights=weights))
