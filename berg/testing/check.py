"""One check of a model: a function that yields what is wrong, and what to do about it."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import islice

from berg.system.progress import hidden_bars
from berg.testing.model_under_test import ModelUnderTest
from berg.testing.observation import kept_settings
from berg.testing.outcome import CheckResult, NotApplicable, Outcome

Faults = Iterator[str]
MAX_FAULTS = 5


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
        """The name of the file that the function is in."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def description(self) -> str:
        """The sentence in the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def run(self, model: ModelUnderTest) -> CheckResult:
        """Run the check; what the model prints or warns is hidden, what it sets is put back."""
        silent = io.StringIO()
        with (
            warnings.catch_warnings(),
            redirect_stdout(silent),
            redirect_stderr(silent),
            hidden_bars(),  # which notebooks show by default: they are ours, not the model's
            kept_settings(),
        ):
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
