"""Train a network and the fwRF readouts of several subjects together; go on where it was interrupted.

Nothing of the random numbers needs to be kept for that: those of a step follow from the seed, the epoch and the
number of the step.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from berg.families.fwrf.features import MAP_SIZES, GNet, n_channels
from berg.families.fwrf.readout import weighted_sum
from berg.families.fwrf.training_inputs import N_PIXELS, by_pixel, read_rows
from berg.system.progress import progress_bar
from berg.weights.safetensors_files import read_metadata, read_safetensors, write_safetensors

SECONDS_BETWEEN_CHECKPOINTS = 120.0
BLOCK_BYTES = 2**24  # of pooled features that are kept at a time
_CHECKPOINT = "checkpoint.safetensors"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes
    ----------
    batch_size
        Pictures per step, shared evenly by the subjects.
    learning_rate, readout_learning_rate
        Of AdamW, for the network and for the readouts.
    weight_decay
        Of AdamW, on convolutions and channel weights; receptive fields, biases and norms have none.
    smoothness
        Weight of the squared differences between neighbouring logits of a receptive field.
    patience
        Epochs without a better validation loss after which to stop.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    readout_learning_rate: float
    weight_decay: float
    smoothness: float
    patience: int
    seed: int


@dataclass(frozen=True)
class Sample:
    """Stimuli of a split with their responses.

    Attributes
    ----------
    rows
        Shape (n_stimuli,), if they are in the subject's inputs.
    targets
        Shape (n_stimuli, n_voxels), z-scored per voxel; NaN where missing.
    """

    rows: NDArray[np.intp]
    targets: NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """What is known of one subject.

    Attributes
    ----------
    inputs
        First axis: stimuli. Pictures, or, if there is no network to train, its saturated maps.
    """

    inputs: NDArray[Any]
    train: Sample
    validation: Sample


class TrainedReadout(nn.Module):
    """As `berg.families.fwrf.readout.FeatureWeightedReceptiveField`, with everything in it to be learned.

    Every voxel begins by pooling evenly over the whole picture, and with weights of zero: its mean response.
    """

    def __init__(self, n_voxels: int, n_channels: int) -> None:
        super().__init__()
        self.logits = nn.ParameterList(torch.zeros(n_voxels, n_pixels) for n_pixels in N_PIXELS)
        self.weights = nn.ParameterList(torch.zeros(n_voxels, n_channels) for _ in N_PIXELS)
        self.bias = nn.Parameter(torch.zeros(n_voxels))

    def forward(self, pixels: Tensor) -> Tensor:
        """Responses, shape (batch, n_voxels), to the output of `by_pixel`."""
        return self.bias + torch.stack(self.parts(pixels)).sum(0)

    def parts(self, pixels: Tensor) -> list[Tensor]:
        """What each group of feature maps adds to the responses."""
        n_at_once = voxels_at_once(len(pixels), pixels.shape[2])
        found = []
        for group, logits, weights in zip(torch.split(pixels, N_PIXELS, dim=1), self.logits, self.weights, strict=True):
            blocks = zip(torch.split(logits, n_at_once), torch.split(weights, n_at_once), strict=True)
            found.append(torch.cat([_computed_again(group, *block) for block in blocks], dim=1))
        return found

    def roughness(self) -> Tensor:
        """Mean squared difference between neighbouring logits, over all voxels and groups."""
        maps = [logits.unflatten(1, (size, size)) for logits, size in zip(self.logits, MAP_SIZES, strict=True)]
        return torch.stack([each.diff(dim=axis).square().mean() for each in maps for axis in (1, 2)]).mean()


def voxels_at_once(batch_size: int, n_channels: int) -> int:
    """How many voxels' pooled features are kept for the gradient at a time."""
    return max(1, BLOCK_BYTES // (4 * batch_size * n_channels))


def _computed_again(*block: Tensor) -> Tensor:
    """The responses of a block of voxels; for the gradient they are computed again, which saves their memory."""
    found: Tensor = checkpoint(_responses, *block, use_reentrant=False, preserve_rng_state=False)
    return found


def _responses(pixels: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
    return weighted_sum(torch.softmax(logits, dim=1) @ pixels, weights)


class SharedModel(nn.Module):
    """A network, unless its maps are the input, and the readout of each subject."""

    def __init__(self, network: GNet | None, width: int, n_voxels: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.readouts = nn.ModuleList(TrainedReadout(n, n_channels(width)) for n in n_voxels)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Responses of each subject to its own inputs; the network sees all of them together."""
        own = torch.split(self.pixels(torch.cat(list(inputs))), [len(each) for each in inputs])
        return [readout(part) for readout, part in zip(self.readouts, own, strict=True)]

    def pixels(self, inputs: Tensor) -> Tensor:
        """What the readouts see of some inputs, as `by_pixel` gives it."""
        return inputs if self.network is None else by_pixel(self.network(inputs))


@dataclass
class State:
    """How far the training is."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    losses: list[float] = field(default_factory=list)  # of the validation split, one per epoch

    @property
    def best_loss(self) -> float:
        """The lowest validation loss so far."""
        return min(self.losses, default=float("inf"))

    def is_over(self, settings: TrainingSettings) -> bool:
        """Whether all epochs are done, or none was better for too long."""
        return self.epoch >= settings.epochs or self.epoch - 1 - self.best_epoch >= settings.patience


def train(
    model: SharedModel,
    subjects: Sequence[Subject],
    settings: TrainingSettings,
    device: torch.device,
    work: Path,
    identity: str,
    show_progress: bool | None = None,
) -> State:
    """Train the model in place, and leave the parameters of the best epoch in it.

    The loss is the squared error of the z-scored responses, averaged over the responses of a subject that are not
    missing, and then over the subjects: each counts alike, however many voxels and stimuli it has. A step takes
    equally many stimuli of each subject; an epoch ends when the one with the most stimuli has seen all of them,
    and the others begin again meanwhile, in a new order.

    Parameters
    ----------
    work
        A folder for the checkpoint.
    identity
        What tells this training from others; a checkpoint of another one is not used.

    Returns
    -------
    state
        The validation loss of each epoch, and which was the best.
    """
    model.to(device)
    work.mkdir(parents=True, exist_ok=True)
    run = _Run(model, subjects, settings, device, work / _CHECKPOINT, identity)
    state = run.restore()
    devices = [device] if device.type == "cuda" else []
    n_steps = run.n_steps
    done = (state.epoch * n_steps + state.step) * run.per_step
    with (
        torch.random.fork_rng(devices),
        progress_bar("training", settings.epochs * n_steps * run.per_step, "pictures", show_progress, done) as advance,
    ):
        while not state.is_over(settings):
            for _ in run.steps(state):
                advance(run.per_step)
            run.finish_epoch(state)
            advance(0, f"epoch {state.epoch}: validation loss {state.losses[-1]:.4f}")
    model.load_state_dict(run.best)
    model.eval()
    return state


@torch.no_grad()
def shares(model: SharedModel, index: int, subject: Subject, device: torch.device, batch_size: int) -> NDArray[Any]:
    """How much of each voxel's predicted variance over the validation split comes from each group of feature maps.

    Returns
    -------
    shares
        Shape (n_groups, n_voxels); they add up to 1 over the groups, or are all 0.
    """
    readout: Any = model.readouts[index]
    rows = subject.validation.rows
    parts = []
    for start in range(0, len(rows), batch_size):
        inputs = torch.from_numpy(read_rows(subject.inputs, rows[start : start + batch_size])).to(device)
        parts.append(torch.stack(readout.parts(model.pixels(inputs))).cpu())
    variance = torch.cat(parts, dim=1).double().var(dim=1, correction=0).numpy()
    found: NDArray[Any] = variance / np.maximum(variance.sum(0), np.finfo(float).tiny)
    return found


class _Run:
    """A training under way."""

    def __init__(
        self,
        model: SharedModel,
        subjects: Sequence[Subject],
        settings: TrainingSettings,
        device: torch.device,
        path: Path,
        identity: str,
    ) -> None:
        self.model, self.subjects, self.settings, self.device = model, subjects, settings, device
        self.path, self.identity = path, identity
        self.optimizer = _optimizer(model, settings)
        self.best = _copied(model.state_dict())
        self.own_batch = own_batch_size(settings.batch_size, [len(subject.train.rows) for subject in subjects])
        self.n_steps = max(-(-len(subject.train.rows) // self.own_batch) for subject in subjects)
        self.per_step = self.own_batch * len(subjects)
        self.saved_at = time.monotonic()

    def steps(self, state: State) -> Iterator[int]:
        """The steps of an epoch that are still to do; yields after each."""
        self.model.train()
        orders = [
            _order(len(subject.train.rows), self.n_steps * self.own_batch, [self.settings.seed, state.epoch, index])
            for index, subject in enumerate(self.subjects)
        ]
        while state.step < self.n_steps:
            torch.manual_seed(_number([self.settings.seed, state.epoch, state.step]))
            here = slice(state.step * self.own_batch, (state.step + 1) * self.own_batch)
            self._step([order[here] for order in orders])
            state.step += 1
            self._save_if_due(state)
            yield state.step

    def _step(self, places: Sequence[NDArray[np.intp]]) -> None:
        batches = [self._batch(subject, subject.train, own) for subject, own in zip(self.subjects, places, strict=True)]
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            predicted = self.model([inputs for inputs, _ in batches])
        losses = [_squared_error(own, targets) for own, (_, targets) in zip(predicted, batches, strict=True)]
        loss = torch.stack([error / n.clamp(min=1) for error, n in losses]).mean()
        if self.settings.smoothness:
            roughness = torch.stack([readout.roughness() for readout in self.model.readouts]).mean()  # type: ignore[operator]
            loss = loss + self.settings.smoothness * roughness
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def finish_epoch(self, state: State) -> None:
        """Look at the validation split, keep the best, write a checkpoint."""
        loss = self._validation_loss()
        if loss < state.best_loss:
            state.best_epoch = state.epoch
            self.best = _copied(self.model.state_dict())
        state.losses.append(loss)
        state.epoch, state.step = state.epoch + 1, 0
        log.info("epoch %d: validation loss %.5f, best %.5f", state.epoch, loss, state.best_loss)
        self._save(state)

    @torch.no_grad()
    def _validation_loss(self) -> float:
        self.model.eval()
        return float(np.mean([self._loss_of(index) for index in range(len(self.subjects))]))

    def _loss_of(self, index: int) -> float:
        subject, error, n = self.subjects[index], 0.0, 0
        n_stimuli = len(subject.validation.rows)
        for start in range(0, n_stimuli, self.own_batch):
            places = np.arange(start, min(start + self.own_batch, n_stimuli))
            inputs, targets = self._batch(subject, subject.validation, places)
            with self._autocast():
                predicted = self.model.readouts[index](self.model.pixels(inputs))
            own_error, own_n = _squared_error(predicted, targets)
            error, n = error + float(own_error), n + int(own_n)
        return error / max(n, 1)

    def _batch(self, subject: Subject, sample: Sample, places: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        inputs = torch.from_numpy(read_rows(subject.inputs, sample.rows[places]))
        return inputs.to(self.device), torch.from_numpy(sample.targets[places]).to(self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def _save_if_due(self, state: State) -> None:
        if time.monotonic() - self.saved_at >= SECONDS_BETWEEN_CHECKPOINTS:
            self._save(state)

    def _save(self, state: State) -> None:
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for name, parameter in self.model.named_parameters():
            own = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer/{name}/{key}": value for key, value in own.items()}
        arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        # One file, so that what is said of the parameters is said of these.
        write_safetensors(self.path, arrays, {"state": json.dumps(asdict(state)), "identity": self.identity})
        self.saved_at = time.monotonic()

    def restore(self) -> State:
        """How far an interrupted training came, with model and optimizer as they were then."""
        if not self.path.is_file():
            return State()
        said = read_metadata(self.path)
        if said.get("identity") != self.identity:
            log.warning("%s is of another training and is not used", self.path)
            return State()
        tensors = {name: torch.from_numpy(array) for name, array in read_safetensors(self.path).items()}
        self.model.load_state_dict(_below("model/", tensors))
        self.best = {name: value.to(self.device) for name, value in _below("best/", tensors).items()}
        for name, parameter in self.model.named_parameters():
            if own := _below(f"optimizer/{name}/", tensors):
                # AdamW keeps its count of steps on the CPU.
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(self.device) for key, value in own.items()
                }
        return State(**json.loads(said["state"]))


def own_batch_size(batch_size: int, n_train: Sequence[int]) -> int:
    """How many stimuli of each subject a step takes."""
    return max(1, min(batch_size // len(n_train), max(n_train)))


def identity_of(model: SharedModel, subjects: Sequence[Subject], *said: str) -> str:
    """A hash of the model as it begins, of the targets, and of what is said besides."""
    digest = hashlib.sha256("\n".join(said).encode())
    for value in model.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    for subject in subjects:
        for sample in (subject.train, subject.validation):
            digest.update(sample.rows.tobytes())
            digest.update(np.ascontiguousarray(sample.targets).data)
    return digest.hexdigest()


def _optimizer(model: SharedModel, settings: TrainingSettings) -> torch.optim.AdamW:
    network = list(model.network.parameters()) if model.network is not None else []
    readouts: list[Any] = list(model.readouts)
    decay = {"weight_decay": settings.weight_decay}
    own = {"lr": settings.readout_learning_rate}
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in network if parameter.ndim > 1], **decay},
        {"params": [parameter for parameter in network if parameter.ndim == 1]},
        {"params": [weights for readout in readouts for weights in readout.weights], **own, **decay},
        {"params": [p for readout in readouts for p in (*readout.logits, readout.bias)], **own},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=0.0)


def _squared_error(predicted: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over the responses that are not missing, and how many these are."""
    is_there = ~torch.isnan(targets)
    error = torch.where(is_there, predicted.float() - targets, 0.0)
    return error.square().sum(), is_there.sum()


def _order(n_stimuli: int, n_wanted: int, seed: list[int]) -> NDArray[np.intp]:
    """All stimuli in a random order, again and again in another one, until there are as many as wanted."""
    generator = np.random.default_rng(seed)
    rounds = -(-n_wanted // n_stimuli)
    return np.concatenate([generator.permutation(n_stimuli) for _ in range(rounds)])[:n_wanted]


def _number(seed: list[int]) -> int:
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
