"""A model made, loaded, used, cleaned up and loaded again, with everything that was seen on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from berg.testing.memory import Memory
from berg.testing.observation import Observation, observing
from berg.testing.refusal import Refusal, refusal


class Runnable(Protocol):
    """What is needed of a model under test to run it."""

    berg_dir: str

    @property
    def stimulus(self) -> NDArray[Any]:
        """Some stimuli."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What `generate_response` is called with beside the stimuli."""

    def make(self) -> Any:
        """Make a model that is not loaded."""

    def load(self, model: Any) -> Any:
        """Load a model that was made."""

    def encode(self, model: Any) -> tuple[NDArray[Any], ...]:
        """The responses of a model to the stimuli, one array for each output."""


@dataclass
class FirstRun:
    """From the making of a model to its first responses."""

    seen: Observation = field(default_factory=Observation)
    error: Exception | None = None  # the run ended here
    model: Any = None
    memory: Memory | None = None
    before_loading: Refusal | None = None  # of stimuli
    returned: Any = None
    metadata: Any = None


@dataclass
class SecondRun:
    """From the cleaning up of a model to its next responses."""

    seen: Observation = field(default_factory=Observation)
    error: Exception | None = None
    n_watched: int = 0  # parts that loading brought into memory
    kept: list[str] = field(default_factory=list)  # those that are still there after cleaning up
    after_cleanup: Refusal | None = None  # of stimuli
    responses: tuple[Any, ...] = ()


def first_run(under_test: Runnable) -> FirstRun:
    """Make the model, load it, encode, ask for the metadata; stop at the first error."""
    run = FirstRun()
    stimulus = under_test.stimulus.copy()
    with observing(watched_folder(under_test)) as run.seen:
        try:
            run.model = under_test.make()
            run.memory = Memory(run.model)
            run.before_loading = refusal(under_test.encode, run.model)
            under_test.load(run.model)
            run.returned = run.model.generate_response(stimulus, **under_test.options)
            run.metadata = run.model.get_metadata()
            run.memory.watch(run.model)
        except Exception as error:  # reported by the check model_runs
            run.error = error
    return run


def second_run(under_test: Runnable, model: Any, memory: Memory | None) -> SecondRun:
    """Clean the loaded model up, see what is left of it in memory, load it again, encode."""
    run = SecondRun()
    with observing(watched_folder(under_test)) as run.seen:
        try:
            model.cleanup()
            run.n_watched, run.kept = (len(memory), memory.alive()) if memory else (0, [])
            run.after_cleanup = refusal(under_test.encode, model)
            under_test.load(model)
            run.responses = under_test.encode(model)
        except Exception as error:  # reported by the check model_can_be_loaded_again
            run.error = error
    return run


def watched_folder(under_test: Runnable) -> Path | None:
    """The BERG directory, if there is one."""
    folder = Path(under_test.berg_dir)
    return folder if folder.is_dir() else None
