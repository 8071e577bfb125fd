"""One check of a model, and what came of it."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from berg.testing.observation import kept_settings

if TYPE_CHECKING:
    from berg.testing.model_under_test import ModelUnderTest

Outcome = Literal["passed", "failed", "warning", "skipped"]
Faults = Iterator[str]
MAX_FAULTS = 5
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
        ``passed``, ``failed``, ``warning`` (good to fix, not wrong) or ``skipped``.
    reason
        What was found wrong, or why the check was skipped; empty where it passed.
    fix
        What to do about it; empty where there is nothing to do.
    """

    group: str
    name: str
    description: str
    outcome: Outcome
    reason: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """A function that yields a sentence for each fault that it finds in a model."""

    function: Callable[[ModelUnderTest], Faults]
    fix: str
    fault: Outcome = "failed"

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__

    @property
    def group(self) -> str:
        """The module that the function stands in."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def description(self) -> str:
        """The sentence in the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def run(self, model: ModelUnderTest) -> CheckResult:
        """What the check finds; what the model prints, warns of and sets meanwhile is undone."""
        silent = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(silent), redirect_stderr(silent), kept_settings():
            warnings.simplefilter("ignore")
            try:
                faults = list(islice(self.function(model), MAX_FAULTS))
            except NotApplicable as reason:
                return self._result("skipped", str(reason))
            except Exception as error:  # whatever a model raises is a finding about this model
                return self._result("failed", f"{type(error).__name__}: {error}", self.fix)
        return self._result(self.fault, "; ".join(faults), self.fix) if faults else self._result("passed")

    def _result(self, outcome: Outcome, reason: str = "", fix: str = "") -> CheckResult:
        return CheckResult(self.group, self.name, self.description, outcome, reason, fix)


def check(fix: str, fault: Outcome = "failed") -> Callable[[Callable[[ModelUnderTest], Faults]], Check]:
    """Make a check of a function that yields faults.

    Parameters
    ----------
    fix
        What the author of the model does about a fault.
    fault
        What a fault counts as: ``failed``, or ``warning``.
    """
    return lambda function: Check(function, fix, fault)
