"""The life of a model: made, loaded, used, cleaned up, loaded again; with all that was seen on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berg.testing.memory import Memory
from berg.testing.observation import Observation, observing
from berg.testing.refusal import Refusal, refusal

if TYPE_CHECKING:
    from berg.testing.model_under_test import ModelUnderTest


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
class SecondLife:
    """From the cleaning up of a model to its next responses."""

    seen: Observation = field(default_factory=Observation)
    error: Exception | None = None
    n_watched: int = 0  # parts that loading brought into memory
    kept: list[str] = field(default_factory=list)  # those that are still there after cleaning up
    after_cleanup: Refusal | None = None  # of stimuli
    responses: tuple[Any, ...] = ()


def first_run(subject: ModelUnderTest) -> FirstRun:
    """Make the model, load it, encode, ask for the metadata; stops at the first error."""
    run = FirstRun()
    stimulus = subject.stimulus.copy()
    with observing(watched_folder(subject)) as run.seen:
        try:
            run.model = subject.make()
            run.memory = Memory(run.model)
            run.before_loading = refusal(subject.encode, run.model)
            subject.load(run.model)
            run.returned = run.model.generate_response(stimulus, **subject.options)
            run.metadata = run.model.get_metadata()
            run.memory.watch(run.model)
        except Exception as error:  # reported by the check model_runs
            run.error = error
    return run


def second_life(subject: ModelUnderTest, model: Any) -> SecondLife:
    """Clean the loaded model up, see what is left of it, and load it again."""
    life, memory = SecondLife(), subject.first_run.memory
    with observing(watched_folder(subject)) as life.seen:
        try:
            model.cleanup()
            life.n_watched, life.kept = (len(memory), memory.alive()) if memory else (0, [])
            life.after_cleanup = refusal(subject.encode, model)
            subject.load(model)
            life.responses = subject.encode(model)
        except Exception as error:  # reported by the check model_can_be_loaded_again
            life.error = error
    if life.error is not None:  # a model for the checks that follow
        subject.first_run.model = subject.load(subject.make())
    return life


def watched_folder(subject: ModelUnderTest) -> Path | None:
    """The BERG directory, where there is one."""
    folder = subject.berg_dir
    return Path(folder) if folder is not None and Path(folder).is_dir() else None
