"""What came of a check: passed, failed, a warning, or nothing to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "warning", "skipped"]
SEE_MODEL_RUNS = "the model does not run (see model_runs)"


class NotApplicable(Exception):
    """A check has nothing to look at in this model; the text says why."""


class NotRunning(NotApplicable):
    """A check needs a model that runs, which this one does not; `model_runs` says why."""

    def __init__(self) -> None:
        super().__init__(SEE_MODEL_RUNS)


@dataclass(frozen=True)
class CheckResult:
    """What came of one check.

    Attributes
    ----------
    group, name, description
        Which check it was; `description` says in one sentence what a good model does.
    outcome
        ``passed``, ``failed``, ``warning`` (better fixed, but not wrong) or ``skipped``.
    reason
        What was found wrong, or why the check was skipped; empty if it passed.
    fix
        What to do about it; empty if there is nothing to do.
    """

    group: str
    name: str
    description: str
    outcome: Outcome
    reason: str = ""
    fix: str = ""
