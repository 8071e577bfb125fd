"""Fitting speed and memory: ours beside scikit-learn, himalaya and the bare network, on the same data, in one run.

    python benchmarks/fit.py                            # all parts at full size: 45 minutes and 25 GB of memory
    python benchmarks/fit.py ridge components --size 0.3
    python benchmarks/fit.py components --sides ours "scikit-learn" --files FOLDER

ridge       penalties chosen by cross-validation for every target: 3,000 x 1,000 features x 30,000 targets, 10
            penalties, 5 folds. scikit-learn's `RidgeCV` chooses per target by leaving one out alone; with folds it
            has one penalty for all targets. r2 is on 300 further samples, against the noiseless truth.
components  the published recipe, standardize + PCA of 250 + least squares: 3,000 x 460,800 features in a file of 5.5
            GB, 30,000 targets. scikit-learn's PCA chooses its `randomized` solver here (`auto`), which is
            approximate; ours is exact. `in place` is scikit-learn without copies (copy=False), `full` its exact solver.
features    pictures per second of ViT-B/32 into the feature cache, from an array and from JPEG files, beside the
            network alone on batches that are ready.
fit         memory that a whole fit of a linearizing model announces, and takes.

Every side of a part but `features` is a process of its own, so that its peak memory is its own; the sides take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

ALPHAS = np.logspace(0, 6, 10)
N_FOLDS, N_PCA, N_NEW = 5, 250, 300
BLOCK = 4096


def peak_gigabytes() -> float:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) / 2**20


# Ridge


def ridge_data(size: float) -> tuple[np.ndarray, ...]:
    """Features with a falling spectrum; targets from no noise to nothing but noise."""
    rng = np.random.default_rng(0)
    n, p, t = int(3000 * size), int(1000 * size), int(30000 * size)
    X = rng.standard_normal((n + N_NEW, p), np.float32) * (1 + np.arange(p, dtype=np.float32)) ** -0.5 * 10
    truth = X @ rng.standard_normal((p, t), np.float32)
    truth /= truth.std(0)
    noise = rng.permutation(np.geomspace(0.1, 10, t)).astype(np.float32)
    Y = truth[:n] + noise * rng.standard_normal((n, t), np.float32)
    return X[:n], Y, X[n:], truth[n:]


def ridge_ours(X: np.ndarray, Y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from berg.fitting.folds import split_folds
    from berg.fitting.linear_solvers import ridge_cv

    return ridge_cv(X, Y, ALPHAS, split_folds(len(X), N_FOLDS, seed=None)).predict


def ridge_himalaya(X: np.ndarray, Y: np.ndarray, backend: str) -> Callable[[np.ndarray], np.ndarray]:
    from himalaya.backend import set_backend
    from himalaya.ridge import RidgeCV

    found = set_backend(backend)
    solver_params = {"n_targets_batch": 10000, "n_alphas_batch": 2}
    model = RidgeCV(alphas=ALPHAS.astype(np.float32), cv=N_FOLDS, fit_intercept=True, solver_params=solver_params)
    model.fit(X, Y)
    return lambda new: found.to_numpy(model.predict(new))


def ridge_sklearn(X: np.ndarray, Y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import RidgeCV

    return RidgeCV(ALPHAS, alpha_per_target=True).fit(X, Y).predict


RIDGE = {
    "ours": ridge_ours,
    "himalaya": lambda X, Y: ridge_himalaya(X, Y, "torch"),
    "himalaya (numpy)": lambda X, Y: ridge_himalaya(X, Y, "numpy"),
    "scikit-learn": ridge_sklearn,
}


def measure_ridge(side: str, size: float, files: Path) -> dict[str, float]:
    """Fit once, predict new samples."""
    X, Y, new, truth = ridge_data(size)
    RIDGE[side](X[:60, :5], Y[:60, :3])  # what is loaded at the first call does not count
    before, began = peak_gigabytes(), time.perf_counter()
    predict = RIDGE[side](X, Y)
    seconds = time.perf_counter() - began
    peak = peak_gigabytes()
    residual = np.square(predict(new) - truth).sum(0) / np.square(truth - truth.mean(0)).sum(0)
    return {"seconds": seconds, "gigabytes": peak, "of its own": peak - before, "r2": float(1 - residual.mean())}


# Components


def component_files(size: float, files: Path) -> tuple[Path, Path]:
    """Features that have common factors, each with a mean and a scale of its own; targets from the factors."""
    n, p, t = int(3000 * size), int(460_800 * size), int(30000 * size)
    features, targets = files / f"features_{n}.npy", files / f"targets_{n}.npy"
    if features.exists() and targets.exists():
        return features, targets
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((n, 400), np.float32) * (1 + np.arange(400, dtype=np.float32)) ** -0.7
    written = np.lib.format.open_memmap(features, "w+", np.float32, (n, p))
    for start in range(0, p, BLOCK):
        width = min(BLOCK, p - start)
        own = factors @ rng.standard_normal((400, width), np.float32) + rng.standard_normal((n, width), np.float32)
        written[:, start : start + width] = own * rng.uniform(0.1, 5, width) + rng.uniform(-3, 3, width)
    written.flush()
    noise = rng.standard_normal((n, t), np.float32)
    np.save(targets, factors @ rng.standard_normal((400, t), np.float32) + noise)
    return features, targets


def components_ours(features: Path, targets: Path, n_pca: int, folder: Path) -> Any:
    from berg.fitting.linear_solvers import least_squares
    from berg.fitting.principal_components import principal_components

    array = np.load(features, mmap_mode="r")
    found = principal_components(array, n_pca)
    regression = least_squares(found.scores, np.load(targets))
    matrix = np.lib.format.open_memmap(folder / "matrix.npy", "w+", np.float32, (n_pca, array.shape[1]))
    for columns, values in found.blocks(array):
        matrix[:, columns] = values
    return found.explained, regression.coefficients


def components_sklearn(
    features: Path, targets: Path, n_pca: int, folder: Path, copy: bool = True, solver: str = "auto"
) -> Any:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import StandardScaler

    standardized = StandardScaler(copy=copy).fit_transform(np.load(features))
    pca = PCA(n_pca, svd_solver=solver, copy=copy, random_state=0)
    scores = pca.fit_transform(standardized)
    print(f"scikit-learn's solver: {pca._fit_svd_solver}", file=sys.stderr)
    return pca.explained_variance_ratio_.sum(), LinearRegression().fit(scores, np.load(targets)).coef_


COMPONENTS = {
    "ours": components_ours,
    "scikit-learn": components_sklearn,
    "scikit-learn, in place": lambda *given: components_sklearn(*given, copy=False),
    "scikit-learn, full": lambda *given: components_sklearn(*given, copy=False, solver="full"),
}


def measure_components(side: str, size: float, files: Path) -> dict[str, float]:
    """From the file to components and regressions."""
    features, targets = component_files(size, files)
    n_pca = max(2, int(N_PCA * size))
    warm = files / "warm.npy"
    np.save(warm, np.random.default_rng(0).standard_normal((40, 300)).astype(np.float32))
    with tempfile.TemporaryDirectory(dir=files) as folder:
        COMPONENTS[side](warm, warm, 3, Path(folder))
        before, began = peak_gigabytes(), time.perf_counter()
        explained, _ = COMPONENTS[side](features, targets, n_pca, Path(folder))
        seconds = time.perf_counter() - began
    peak = peak_gigabytes()
    return {"seconds": seconds, "gigabytes": peak, "of its own": peak - before, "explained": float(explained)}


# Features


def measure_features(side: str, size: float, files: Path) -> dict[str, float]:
    """Pictures per second; the bare network and each source of pictures in turns, the best of three."""
    import torch

    from berg.fitting.feature_cache import BATCH, FeatureKey, cached_features

    network, pictures, jpegs = vit(files), *picture_files(files, max(2 * BATCH, int(320 * size)))
    ready = network.transform(torch.from_numpy(np.array(pictures[:BATCH])))
    n = len(pictures)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(0, n, BATCH):
                network.network(ready)

    def cached(source: Any) -> Callable[[], None]:
        from berg.datasets.dataset import EncodingDataset

        dataset = EncodingDataset.from_arrays(source, np.zeros((n, 1)), names=range(n))

        def run() -> None:
            with tempfile.TemporaryDirectory(dir=files) as folder:
                key = FeatureKey("", "vit_b_32", "", "preset", tuple(network.nodes), "float32", "")
                cached_features(network, key, dataset.read_stimuli, n, Path(folder), device=torch.device("cpu"))

        return run

    runs = {"bare": bare, "from an array": cached(pictures), "from JPEG files": cached(jpegs)}
    rates = dict.fromkeys(runs, 0.0)
    for run in runs.values():
        run()
    for _ in range(3):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            rates[name] = max(rates[name], n / (time.perf_counter() - began))
    return {f"{name}, pictures/s": rate for name, rate in rates.items()} | {
        f"{name}, of bare": rates[name] / rates["bare"] for name in list(runs)[1:]
    }


def vit(files: Path) -> Any:
    """ViT-B/32 with random weights and the published twelve layers."""
    import torch

    from berg.features.pretrained_network import network_features
    from tests.published import layouts

    if not (files / layouts.BACKBONE_FILE).exists():
        layouts.write_backbone(files, np.random.default_rng(0))
    os.environ["TORCH_HOME"] = str(files)
    nodes = "encoder.layers.encoder_layer_{0..11}"
    given = ("torchvision/vit_b_32", "IMAGENET1K_V1", nodes, "preset", "float32", torch.device("cpu"))
    return network_features(*given)


def picture_files(files: Path, n: int) -> tuple[np.ndarray, list[Path]]:
    """Pictures as a memory map, and the same as JPEG files."""
    from PIL import Image

    from tests.published import layouts

    folder = files / f"pictures_{n}"
    if not folder.exists():
        folder.mkdir()
        pictures = layouts.random_images(np.random.default_rng(0), n, 256, 256)
        np.save(folder / "pictures.npy", pictures)
        for index, picture in enumerate(pictures):
            Image.fromarray(picture.transpose(1, 2, 0)).save(folder / f"{index:05d}.jpg", quality=90)
    return np.load(folder / "pictures.npy", mmap_mode="r"), sorted(folder.glob("*.jpg"))


# A whole fit


CARD = """
model_id: fmri-benchmark-vit_b_32
modality: fmri
training_dataset: benchmark
species: none
stimuli: Images
model_architecture: Linear readout on ViT-B/32
creator: benchmark
description: Random responses.
family: linearizing
features:
  extractor: torchvision/vit_b_32
  weights: IMAGENET1K_V1
  nodes: "encoder.layers.encoder_layer_{0..11}"
  n_features: 460800
  transform: preset
readout: {steps: [standardize, pca: 250, linear], regression: "{output}_reg_param"}
input: {shape: [batch_size, 3, height, width], dtype: uint8, range: [0, 255]}
output: {shape: [batch_size, n_vertices]}
outputs: [{name: lh, axes: [stimulus, vertex], unit: z-scored beta}]
axes: {vertex: {coordinates: {vertex: "fmri.{output}_vertices"}}}
parameters: {subject: {type: int, required: true, valid_values: [1], example: 1}}
files: {weights: "weights_subject-{subject:02d}", metadata: "metadata_subject-{subject:02d}"}
licence: CC0
citation: none
references: [none]
"""


def measure_fit(side: str, size: float, files: Path) -> dict[str, float]:
    """From pictures to the weights file."""
    import torch

    from berg.core.model_card import ModelCard
    from berg.datasets.dataset import EncodingDataset
    from berg.families.linearizing.fit import fit, peak_bytes
    from berg.fitting.fit_job import FitJob
    from berg.system.memory import release_pages
    from berg.weights.safetensors_files import write_safetensors

    network = vit(files)
    del network
    n = max(300, int(3000 * size))
    pictures, _ = picture_files(files, n)
    responses = np.lib.format.open_memmap(files / "responses.npy", "w+", np.float32, (n, int(327_684 * size)))
    splits = {"train": np.arange(n - 10), "test": np.arange(n - 10, n)}
    dataset = EncodingDataset.from_arrays(pictures, {"lh": responses}, axes=("vertex",), unit="z", splits=splits)
    for start in range(0, responses.shape[1], BLOCK):
        block = responses[:, start : start + BLOCK]
        block[:] = np.random.default_rng(start).standard_normal(block.shape, np.float32)
        release_pages(responses)  # which would count as held before
    del responses
    with tempfile.TemporaryDirectory(dir=files) as name:
        folder = Path(name)
        job = FitJob(
            ModelCard.parse(CARD), dataset, {"subject": 1}, torch.device("cpu"), folder, folder, 4 * 10**9, True
        )
        announced = peak_bytes(job)
        before = resident_gigabytes()
        began = time.perf_counter()
        write_safetensors(folder / "weights.safetensors", fit(job).tensors)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "announced GB": announced / 2**30, "taken GB": peak_gigabytes() - before}


def resident_gigabytes() -> float:
    """What this process holds; what it held at most is forgotten."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_gigabytes()


PARTS: dict[str, tuple[Callable[[str, float, Path], dict[str, float]], list[str]]] = {
    "ridge": (measure_ridge, list(RIDGE)),
    "components": (measure_components, ["ours", "scikit-learn", "scikit-learn, in place"]),
    "features": (measure_features, ["ours"]),
    "fit": (measure_fit, ["ours"]),
}


def in_own_process(part: str, side: str, size: float, files: Path) -> dict[str, float]:
    command = [sys.executable, __file__, part, "--child", side, "--size", str(size), "--files", str(files)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.returncode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--size", type=float, default=1.0, help="of every length, such as 0.3")
    parser.add_argument("--sides", nargs="+", help='such as "scikit-learn, full"; those of the part where not given')
    parser.add_argument("--files", type=Path, help="where data lie and are kept for the next run")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        files = arguments.files or Path(temporary)
        files.mkdir(parents=True, exist_ok=True)
        if arguments.child:
            measure = PARTS[arguments.parts[0]][0]
            print(json.dumps(measure(arguments.child, arguments.size, files)))
            return
        for part in arguments.parts:
            if part == "components":
                component_files(arguments.size, files)
            for side in arguments.sides or PARTS[part][1]:
                found = in_own_process(part, side, arguments.size, files)
                words = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
                print(f"{part}: {side}: {words}", flush=True)


if __name__ == "__main__":
    main()
