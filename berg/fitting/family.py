"""The module that fits the models of a family, found by its name in a card."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import ModuleType

from berg.core.exceptions import ModelCardError, did_you_mean, listing
from berg.core.model_card import ModelCard
from berg.fitting.card_agreement import check_agreement
from berg.fitting.fit_job import FitJob, Fitted, FittingFamily

REQUIRED = ("fit", "peak_bytes")


def fitting_family(card: ModelCard) -> FittingFamily:
    """The family of a card, ready to fit.

    Raises
    ------
    ModelCardError
        If the family cannot be fitted; it names those that can, and what a module must have.
    """
    family = card.family or ""
    name = f"berg.families.{family}.fit" if family.isidentifier() else family.partition(":")[0]
    known = sorted(path.parent.name for path in Path(__file__).parents[1].glob("families/*/fit.py"))
    module = _imported(name)
    if module is None or not all(hasattr(module, needed) for needed in REQUIRED):
        raise ModelCardError(
            f"The family '{card.family}' of {card.model_id} cannot be fitted.{did_you_mean(family, known)} Families "
            f"that can: {listing(known)}; or a module of your own with the functions fit(job) and peak_bytes(job), "
            "named in the card as family: package.module:Class. What else it may have: "
            "berg.fitting.fit_job.FittingFamily."
        )
    return _FamilyOfModule(module)


def _imported(name: str) -> ModuleType | None:
    """A module; None if there is none of this name."""
    try:
        return importlib.import_module(name) if name else None
    except ModuleNotFoundError as error:
        if error.name not in (name, name.removesuffix(".fit")):
            raise
        return None


class _FamilyOfModule:
    """A module as a `FittingFamily`: what it does not have is as told there."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.fit: Callable[[FitJob], Fitted] = module.fit
        self.peak_bytes: Callable[[FitJob], int] = module.peak_bytes
        self.METADATA: Collection[str] = getattr(module, "METADATA", ())
        self.HOLDS_OUT: bool = getattr(module, "HOLDS_OUT", False)
        self.fit_together: Callable[[Sequence[FitJob]], Sequence[Fitted]] | None = getattr(module, "fit_together", None)

    def check(self, job: FitJob) -> Collection[str]:
        if hasattr(self._module, "check"):
            return self._module.check(job) or ()
        check_agreement(job.card, job.dataset, self.METADATA)
        return ()

    def disk_bytes(self, job: FitJob) -> int:
        return int(self._module.disk_bytes(job)) if hasattr(self._module, "disk_bytes") else 0
