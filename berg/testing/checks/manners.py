"""Checks of what a model does to the program that uses it."""

from __future__ import annotations

import numpy as np
import torch

from berg.core.exceptions import ModelNotLoadedError
from berg.testing.check import Faults, check
from berg.testing.closeness import disagreements, in_sd
from berg.testing.model_under_test import ModelUnderTest
from berg.testing.observation import PROCESS, RANDOM, TORCH, Observation
from berg.testing.outcome import NotApplicable
from berg.testing.refusal import not_refused, refusal

SAME = 1e-6
# Pictures of integers are rounded again when they are resized, those of floating-point numbers are not.
PREDICTED_SD = 0.1
NOT_LOADED = "Raise ModelNotLoadedError in generate_response while there are no weights."


@check("Log with logging.getLogger(__name__) instead of printing.")
def nothing_is_printed(model: ModelUnderTest) -> Faults:
    """Making, loading, encoding and cleaning up print nothing."""
    for seen in _seen(model):
        if seen.printed:
            yield f"it printed {seen.printed.strip()[:100]!r}"


@check("Fix the cause of the warning; warnings are for what the user can change.")
def nothing_is_warned_of(model: ModelUnderTest) -> Faults:
    """Making, loading, encoding and cleaning up with valid input give no warning."""
    for seen in _seen(model):
        yield from seen.warned


@check("Use a generator of your own: np.random.default_rng(seed), torch.Generator().manual_seed(seed).")
def random_numbers_are_left_alone(model: ModelUnderTest) -> Faults:
    """The random states of NumPy, PyTorch and Python are as they were."""
    yield from _changed(model, RANDOM)


@check("Set it for your own computation only (with torch.no_grad(): ...), and put it back.")
def settings_of_torch_are_left_alone(model: ModelUnderTest) -> Faults:
    """Default dtype and device, threads, gradients, deterministic algorithms and precision of PyTorch are kept."""
    yield from _changed(model, TORCH)


@check("Do not set it; pass what you need as a parameter.")
def settings_of_the_process_are_left_alone(model: ModelUnderTest) -> Faults:
    """Environment variables, current directory, import path, NumPy's error state and logging are as they were."""
    yield from _changed(model, PROCESS)


@check("Use  with warnings.catch_warnings():  around the call whose warning is expected.")
def warning_filters_are_left_alone(model: ModelUnderTest) -> Faults:
    """The filters of warnings are as they were."""
    yield from _changed(model, ["warnings.filters"])


@check("Read from files; what is missing is named in a MissingFileError, and fetched by  berg download.")
def network_is_not_used(model: ModelUnderTest) -> Faults:
    """Nothing is fetched from the network when the model is loaded and used."""
    for seen in _seen(model):
        if seen.connections:
            yield f"it tried to reach {', '.join(dict.fromkeys(seen.connections))}"


@check("Write nothing into the BERG directory: it may be shared, and read-only.")
def berg_dir_is_left_alone(model: ModelUnderTest) -> Faults:
    """No file of the BERG directory is created, changed or removed."""
    for seen in _seen(model):
        yield from seen.written


@check(NOT_LOADED)
def stimuli_are_refused_before_loading(model: ModelUnderTest) -> Faults:
    """A model that is not loaded refuses stimuli with ModelNotLoadedError."""
    found = model.loaded and model.first_run.before_loading
    if (fault := not_refused("encoding before load_model", found, ModelNotLoadedError)) is not None:
        yield fault


@check("Set every attribute that holds weights to None in cleanup, and keep no other reference to them.")
def cleanup_frees_the_memory(model: ModelUnderTest) -> Faults:
    """After cleanup, no network, tensor or large array that loading made is in memory."""
    run = model.second_run
    if not run.n_watched:
        raise NotApplicable("loading put no network, tensor or large array into the model")
    if run.kept:
        yield f"still in memory: {', '.join(run.kept[:5])}"


@check(NOT_LOADED)
def stimuli_are_refused_after_cleanup(model: ModelUnderTest) -> Faults:
    """A model that was cleaned up refuses stimuli with one of our errors."""
    if (fault := not_refused("encoding after cleanup", model.second_run.after_cleanup)) is not None:
        yield fault


@check("Let load_model bring back everything that cleanup frees.")
def model_can_be_loaded_again(model: ModelUnderTest) -> Faults:
    """After cleanup the model can be loaded again, and gives the same responses."""
    run = model.second_run
    if run.error is not None:
        yield f"{type(run.error).__name__}: {run.error}"
    else:
        yield from disagreements("loaded again", run.responses, model.responses, SAME)


@check("Let cleanup do nothing if there is nothing to free.")
def cleanup_can_be_called_twice(model: ModelUnderTest) -> Faults:
    """Cleaning up a model that is not loaded is harmless."""
    unloaded = model.made and model.make()
    for _ in range(2):
        if (found := refusal(unloaded.cleanup)) is not None:
            yield f"cleanup ends in {found}"


@check("Leave __enter__ and __exit__ as they are inherited.")
def with_statement_cleans_up(model: ModelUnderTest) -> Faults:
    """A model in a with statement is itself, and is cleaned up at its end."""
    calls: list[str] = []
    made = model.made and model.make()
    made.cleanup = lambda: calls.append("cleanup")
    with made as entered:
        if entered is not made:
            yield "'with model as m' gives something other than the model"
    if not calls:
        yield "cleanup was not called"


@check("Let predict and generate_response share their computation.")
def predict_agrees_with_encode(model: ModelUnderTest) -> Faults:
    """predict gives the responses that encode gives."""
    predicted = [part.detach().cpu().numpy() for part in _predicted(model, _tensor(model))]
    found = [part.reshape(array.shape) for part, array in zip(predicted, model.responses, strict=True)]
    yield from disagreements("predict", found, model.responses, PREDICTED_SD, in_sd)


@check("Use operations of PyTorch from the stimulus to the response: no .detach(), no .numpy(), no no_grad.")
def predict_is_differentiable(model: ModelUnderTest) -> Faults:
    """The responses of predict have a finite gradient, not zero everywhere, with respect to the stimulus."""
    stimulus = _tensor(model).requires_grad_()
    total = sum(part.square().sum() for part in _predicted(model, stimulus))
    if not isinstance(total, torch.Tensor) or not total.requires_grad:
        yield "the responses do not depend on the stimulus as PyTorch sees it"
        return
    total.backward()  # type: ignore[no-untyped-call]
    gradient = stimulus.grad
    if gradient is None or not bool(torch.isfinite(gradient).all()) or not bool(gradient.abs().max() > 0):
        yield "the gradient is zero, NaN or infinite"


def _seen(model: ModelUnderTest) -> tuple[Observation, Observation]:
    return (model.first_run.seen, model.second_run.seen) if model.loaded else (Observation(), Observation())


def _changed(model: ModelUnderTest, names: object) -> Faults:
    for seen in _seen(model):
        yield from (f"it changed {name}" for name in seen.changed if name in names)  # type: ignore[operator]


def _tensor(model: ModelUnderTest) -> torch.Tensor:
    if model.input.kind == "text":
        raise NotApplicable("a text is no tensor")
    return torch.from_numpy(np.ascontiguousarray(model.stimulus, "float32")).to(getattr(model.loaded, "device", "cpu"))


def _predicted(model: ModelUnderTest, stimulus: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if not hasattr(model.loaded, "predict"):
        raise NotApplicable("the model has no predict")
    with torch.enable_grad():
        predicted = model.loaded.predict(stimulus)
    return predicted if isinstance(predicted, tuple) else (predicted,)
