"""Fit feature-weighted receptive fields: the network and the readouts of one or several subjects, end to end.

    pictures at the network's size -> GNet -> receptive field per voxel and group of maps -> weight per channel

The training itself is in `berg.families.fwrf.training`; the model that comes out is `berg.families.fwrf.model`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from berg.core.card_schema import CardPart
from berg.core.exceptions import DatasetError, DeviceMemoryError, InvalidParameterError, MissingFileError, listing
from berg.families.fwrf import training as fwrf_training
from berg.families.fwrf.features import INPUT_SIZE, WIDTH, GNet, n_channels, pixel_centres
from berg.families.fwrf.model import has_file_per_region, read_network
from berg.families.fwrf.training import Sample, SharedModel, State, Subject, TrainingSettings
from berg.families.fwrf.training_inputs import BATCH, N_PIXELS, read_rows, resized_pictures, saturated_maps
from berg.fitting.card_agreement import check_agreement
from berg.fitting.fit_job import FitJob, Fitted
from berg.system.memory import size_words

METADATA = ("x", "y", "size")
"""Coordinates that the fit finds, at ``fwrf.x``, ``fwrf.y`` and ``fwrf.size``."""

_MADE_WHEN_READ = ("roi", "i", "j", "k")
_PEAK_SHARE = 0.1  # what is below this share of a map's peak is background, and counts for nothing


class FitSettings(CardPart):
    """What the card says under ``fit``."""

    epochs: int = Field(50, ge=1)
    batch_size: int = Field(100, ge=1, description="pictures per step, shared evenly by the subjects")
    learning_rate: float = Field(1e-3, gt=0, description="of the network")
    readout_learning_rate: float = Field(1e-2, gt=0)
    weight_decay: float = Field(1e-2, ge=0, description="on convolutions and channel weights")
    smoothness: float = Field(0.0, ge=0, description="penalty on differences between neighbouring logits of a map")
    dropout: float = Field(0.1, ge=0, lt=1)
    patience: int = Field(5, ge=1, description="epochs without a better validation loss")
    seed: int = Field(0, ge=0)
    network: Literal["train", "frozen"] = "train"
    starting_weights: str | None = Field(None, description="a weights file whose network to begin with")
    width: int | None = Field(None, ge=1, description="channels of the first convolution; 64 as published")
    picture_width_deg: float | None = Field(None, gt=0, description="for receptive fields in degrees")

    @model_validator(mode="after")
    def _has_a_network(self) -> FitSettings:
        if self.network == "frozen" and self.starting_weights is None:
            raise ValueError("network: frozen needs starting_weights, a weights file with the network to use")
        return self

    def of_training(self) -> TrainingSettings:
        """What the training itself needs to know."""
        return TrainingSettings(**{name: getattr(self, name) for name in TrainingSettings.__dataclass_fields__})


def check(job: FitJob) -> None:
    """Raise if the card and the data do not belong together, or there is no split to stop early on."""
    check_agreement(job.card, job.dataset, (*METADATA, *(_MADE_WHEN_READ if has_file_per_region(job.card) else ())))
    for split in ("train", "validation"):
        if not len(job.dataset.splits[split]):
            raise DatasetError(
                f"The data have no stimuli in the split '{split}'. fwRF models are trained on 'train' and stop when "
                "'validation' gets no better. Set validation_fraction: 0.1 in dataset.yaml, or give the splits there."
            )


def fit(job: FitJob) -> Fitted:
    """The network and the readout of one subject, trained end to end as the card says.

    Raises
    ------
    DatasetError
        If there is nothing to stop early on, or voxels have no training responses.
    InvalidParameterError, MissingFileError
        If the card and the data, or the card and the starting weights, do not belong together.
    DeviceMemoryError
        If it needs more memory than it may use.

    See Also
    --------
    fit_together : the same for several subjects with one network; says what the loss is.
    """
    return fit_together([job])[0]


def fit_together(jobs: Sequence[FitJob]) -> list[Fitted]:
    """The readout of each subject and a network that they share, trained end to end as the card says.

    .. math::
        L = \\frac{1}{S} \\sum_s \\frac{1}{N_s} \\sum_{(i, v) \\in s}
            \\left(\\frac{y_{iv} - \\mu_v}{\\sigma_v} - \\hat z_{iv}\\right)^2

    over the :math:`N_s` responses (stimulus i, voxel v) of a subject in the batch that are not missing. Mean and
    standard deviation of a voxel are those over its training responses, so that voxels count alike, and so do
    subjects. They are folded into the weights afterwards: the model predicts in the unit of the data.

    An interrupted training goes on at its last checkpoint, in the ``work`` folder of the first job.

    Returns
    -------
    fitted
        One per job, each with the whole network.

    Raises
    ------
    DatasetError, InvalidParameterError, MissingFileError, DeviceMemoryError
        As in `fit`.
    """
    settings = _settings(jobs[0])
    _check_memory(jobs)
    network = _starting_network(jobs[0], settings)
    pictures = [_pictures(job) for job in jobs]
    if network is None:
        network = _new_network(settings, pictures)
    prepared = [_prepared(job, own, network, settings) for job, own in zip(jobs, pictures, strict=True)]
    with torch.random.fork_rng([]):
        torch.manual_seed(settings.seed)
        trained = network if settings.network == "train" else None
        model = SharedModel(trained, _width(network), [own.n_voxels for own in prepared])
    subjects = [own.subject for own in prepared]
    identity = fwrf_training.identity_of(model, subjects, repr(settings), jobs[0].device.type, *map(_name, jobs))
    device, show = jobs[0].device, jobs[0].show_progress
    state = fwrf_training.train(model, subjects, settings.of_training(), device, jobs[0].work, identity, show)
    return [
        _fitted(index, job, own, model, network, settings, state) for index, (job, own) in _numbered(jobs, prepared)
    ]


def peak_bytes(job: FitJob) -> int:
    """Bytes that `fit` needs at its peak, beyond what the process holds before."""
    return _peak_bytes([job])


def receptive_fields(
    maps: Sequence[NDArray[Any]], shares: NDArray[Any], picture_width: float = 1.0
) -> dict[str, NDArray[np.float32]]:
    r"""Centre and size of each voxel's receptive field, from the moments of its maps.

    .. math::
        q = \left[\mathrm{softmax}(\mathrm{rf}) - \tfrac{1}{10} \max\right]_+, \quad
        \mu = \frac{\sum_i q_i\, p_i}{\sum_i q_i}, \quad
        \sigma^2 = \frac{1}{2 c} \frac{\sum_i q_i\, |p_i - \mu|^2}{\sum_i q_i}

    over the pixels i of a map at places :math:`p_i`. A free map never falls to zero, so that what is below a tenth
    of its peak is taken as background; c = 0.60 is what that leaves of the variance of a round Gaussian, which thus
    has its own standard deviation as its size. The groups of feature maps are averaged (sizes: their squares),
    weighted by `shares`.

    Parameters
    ----------
    maps
        Logits, one array per group, shape (n_voxels, height, width).
    shares
        Shape (n_groups, n_voxels), how much each group contributes to the responses.
    picture_width
        In the unit that is wanted, such as degrees of visual angle.

    Returns
    -------
    fields
        ``x`` (right positive) and ``y`` (up positive) from the middle of the picture, and ``size``, each of shape
        (n_voxels,), in the unit of `picture_width`; NaN for a voxel whose prediction does not vary.

    Examples
    --------
    >>> flat = [np.zeros((1, size, size)) for size in (27, 25, 13)]
    >>> flat[0][0, 13, 20] = 50.0
    >>> found = receptive_fields(flat, np.array([[1.0], [0.0], [0.0]]), picture_width=8.4)
    >>> [round(float(found[name][0]), 2) for name in ("x", "y", "size")]
    [2.0, 0.07, 0.0]
    """
    moments = np.stack([_moments(logits, pixel_centres(group).numpy()) for group, logits in enumerate(maps)])
    with np.errstate(invalid="ignore"):
        x, y, variance = np.einsum("gv,gmv->mv", shares, moments) / shares.sum(0)
    fields = {"x": x - 0.5, "y": 0.5 - y, "size": np.sqrt(variance / _remaining(_PEAK_SHARE))}
    return {name: (picture_width * values).astype(np.float32) for name, values in fields.items()}


@dataclass(frozen=True)
class _Prepared:
    """One subject's data, and what turns z-scored responses back into those of the data."""

    subject: Subject
    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    @property
    def n_voxels(self) -> int:
        return len(self.mean)


def _settings(job: FitJob) -> FitSettings:
    return job.card.part("fit", FitSettings)


def _places(job: FitJob) -> NDArray[np.intp]:
    """The stimuli that are needed, in ascending order."""
    return np.sort(np.concatenate([job.dataset.splits["train"], job.dataset.splits["validation"]]))


def _name(job: FitJob) -> str:
    name: str = job.dataset.fingerprint_of_stimuli(_places(job))
    return name


def _pictures(job: FitJob) -> NDArray[Any]:
    return resized_pictures(job, _places(job))


def _numbered(jobs: Sequence[FitJob], prepared: Sequence[_Prepared]) -> Any:
    return enumerate(zip(jobs, prepared, strict=True))


def _starting_network(job: FitJob, settings: FitSettings) -> GNet | None:
    """The network of another model, with the dropout of this one."""
    if settings.starting_weights is None:
        return None
    path = job.card.path.parent / Path(settings.starting_weights).expanduser()
    if not path.is_file():
        raise MissingFileError(f"fit.starting_weights of {job.card.path}: there is no file {path}.")
    given = read_network(path)
    width = _width(given)
    if settings.width not in (None, width):
        raise InvalidParameterError(
            f"fit.width of {job.card.path} is {settings.width}; the network in {path} has {width}. Leave width out."
        )
    network = GNet(width, settings.dropout)
    network.load_state_dict(given.state_dict())
    return network


def _new_network(settings: FitSettings, pictures: Sequence[NDArray[Any]]) -> GNet:
    """A network with random first weights (He et al. 2015) that subtracts the mean picture of all subjects."""
    with torch.random.fork_rng([]):
        torch.manual_seed(settings.seed)
        network = GNet(settings.width or WIDTH, settings.dropout)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                torch.nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    network.get_buffer("mu").copy_(torch.from_numpy(_mean_picture(pictures)))
    return network


def _mean_picture(pictures: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    total = np.zeros((1, 3, INPUT_SIZE, INPUT_SIZE))
    for own in pictures:
        for start in range(0, len(own), 256):
            total += read_rows(own, np.arange(start, min(start + 256, len(own)))).sum(0, keepdims=True, dtype=float)
    return total / sum(map(len, pictures)) / 255


def _width(network: GNet) -> int:
    return len(network.state_dict()["pre.conv1.0.bias"])


def _prepared(job: FitJob, pictures: NDArray[Any], network: GNet, settings: FitSettings) -> _Prepared:
    frozen = settings.network == "frozen"
    inputs = saturated_maps(job, pictures, _name(job), network) if frozen else pictures
    train, validation, mean, sd = _standardized(job)
    rows = {split: np.searchsorted(_places(job), job.dataset.splits[split]) for split in ("train", "validation")}
    subject = Subject(inputs, Sample(rows["train"], train), Sample(rows["validation"], validation))
    return _Prepared(subject, mean, sd)


def _standardized(job: FitJob) -> tuple[NDArray[np.float32], ...]:
    """Responses of both splits, z-scored by those of the training split, and the mean and sd of these.

    Read in four parts, so that there is no second copy of all.
    """
    output = job.dataset.outputs[job.card.outputs[0].name]
    splits = [job.dataset.splits[split] for split in ("train", "validation")]
    scored = [np.empty((len(indices), output.n_units), np.float32) for indices in splits]
    mean, sd = np.empty((2, output.n_units), np.float32)
    size = max(512, -(-output.n_units // 4))
    for start in range(0, output.n_units, size):
        units = slice(start, min(start + size, output.n_units))
        blocks = [output.mean(indices, units).astype(float) for indices in splits]
        _check_measured(job, blocks[0], start)
        mean[units], spread = np.nanmean(blocks[0], 0), np.nanstd(blocks[0], 0)
        sd[units] = np.where(spread > 0, spread, 1)
        for all_units, block in zip(scored, blocks, strict=True):
            all_units[:, units] = (block - mean[units]) / sd[units]
    return *scored, mean, sd


def _check_measured(job: FitJob, responses: NDArray[Any], start: int) -> None:
    missing = start + np.flatnonzero(np.isnan(responses).all(0))
    if len(missing):
        raise DatasetError(
            f"Units {listing(missing)} of '{job.card.outputs[0].name}' have no response to any training stimulus, so "
            "that nothing can be fitted. Leave them out of the data."
        )


def _fitted(
    index: int,
    job: FitJob,
    own: _Prepared,
    model: SharedModel,
    network: GNet,
    settings: FitSettings,
    state: State,
) -> Fitted:
    readout: Any = model.readouts[index]
    maps = [_unflattened(logits) for logits in readout.logits]
    weights = torch.cat(list(readout.weights), dim=1).detach().cpu().numpy()
    tensors = {f"enc/{name}": value.cpu().numpy() for name, value in network.state_dict().items()}
    tensors |= {f"fwrf/rf{group}": logits for group, logits in enumerate(maps)}
    tensors |= {"fwrf/w": weights * own.sd[:, None], "fwrf/b": _array(readout.bias) * own.sd + own.mean}
    shares = fwrf_training.shares(model, index, own.subject, job.device, settings.batch_size)
    fields = receptive_fields(maps, shares, settings.picture_width_deg or 1.0)
    unit = "degrees" if settings.picture_width_deg else "fractions of the picture's width"
    return Fitted(tensors, {"fwrf": {**fields, "unit": unit}}, _facts(own, model, settings, state))


def _facts(own: _Prepared, model: SharedModel, settings: FitSettings, state: State) -> dict[str, Any]:
    return {
        **settings.model_dump(exclude_none=True),
        "n_train": len(own.subject.train.rows),
        "n_validation": len(own.subject.validation.rows),
        "n_subjects_sharing_the_network": len(model.readouts),
        "epochs_done": state.epoch,
        "best_epoch": state.best_epoch + 1,
        "validation_losses": [round(loss, 5) for loss in state.losses],
    }


def _unflattened(logits: torch.Tensor) -> NDArray[np.float32]:
    size = math.isqrt(logits.shape[1])
    return _array(logits).reshape(-1, size, size)


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return found


def _moments(logits: NDArray[Any], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """x, y and variance of each map above its background: shape (3, n_voxels), in fractions of the picture."""
    above = np.exp(logits - logits.max((1, 2), keepdims=True), dtype=float)  # the softmax in units of its peak
    above = np.clip(above - _PEAK_SHARE, 0, None)
    above /= above.sum((1, 2), keepdims=True)
    along_x, along_y = above.sum(1), above.sum(2)
    x, y = along_x @ centres, along_y @ centres
    variance = (along_x @ centres**2 - x**2 + along_y @ centres**2 - y**2) / 2
    return np.stack([x, y, np.clip(variance, 0, None)])


def _remaining(share: float) -> float:
    """The variance of a round Gaussian, less a share of its peak and no less than zero, over its whole variance."""
    end = -math.log(share)
    return (1 - (1 + end) * share - share * end**2 / 2) / (1 - share - share * end)


def _check_memory(jobs: Sequence[FitJob]) -> None:
    needed, allowed = _peak_bytes(jobs), min(job.memory for job in jobs)
    if needed > allowed:
        raise DeviceMemoryError(
            f"Training on {len(jobs)} subject(s) needs {size_words(needed)} of memory, and may use "
            f"{size_words(allowed)}. Set a smaller batch_size under 'fit' in {jobs[0].card.path}, or allow more memory."
        )


def _peak_bytes(jobs: Sequence[FitJob]) -> int:
    settings = _settings(jobs[0])
    network = _starting_network(jobs[0], settings)
    width = settings.width or WIDTH if network is None else _width(network)
    n_train = [len(job.dataset.splits["train"]) for job in jobs]
    batch = len(jobs) * fwrf_training.own_batch_size(settings.batch_size, n_train)
    n_voxels = [job.dataset.outputs[job.card.outputs[0].name].n_units for job in jobs]
    targets = sum(len(_places(job)) * n for job, n in zip(jobs, n_voxels, strict=True))
    with torch.device("meta"):
        n_parameters = sum(value.numel() for value in GNet(width).state_dict().values())
    n_parameters += sum(n_voxels) * (sum(N_PIXELS) + len(N_PIXELS) * n_channels(width) + 1)
    pooled = min(fwrf_training.BLOCK_BYTES, 4 * batch * n_channels(width) * max(n_voxels))
    # Targets in float32 and what standardizing a part of them takes; parameters, gradients, two moments, the best,
    # and a checkpoint of four of them, written and read again; what the equation gives of a block of voxels.
    arrays = 12 * targets + 60 * n_parameters + 11 * pooled
    return int(arrays + max(BATCH, batch) * _picture_bytes(width, settings) + _LIBRARIES_BYTES)


_LIBRARIES_BYTES = 200_000_000  # what PyTorch takes at its first steps


def _picture_bytes(width: int, settings: FitSettings) -> int:
    """What is in memory of one picture in a batch: all that the layers give, for the gradient."""
    maps = 4 * sum(N_PIXELS) * n_channels(width)
    if settings.network == "frozen":
        return 12 * 3 * INPUT_SIZE**2 + 5 * maps
    return 12 * 3 * INPUT_SIZE**2 + 8 * maps + 4 * 8 * 56**2 * width
