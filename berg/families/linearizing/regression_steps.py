"""The steps of a linear readout, as a card says them under ``readout.steps``.

======================================================================  ==========================================
steps                                                                   readout
======================================================================  ==========================================
``[standardize, pca: 250, linear]``                                     ordinary least squares, as published
``[standardize, pca: 250, ridge]``                                      a penalty per unit, by cross-validation
``[standardize, ridge: {alphas: [1, 10, 100], folds: 5}]``              the same on all features
``[standardize, pca: 50, banded: {bands: {early: [layer1, layer2]}}]``  a penalty per unit and band (layers that
                                                                        stand together), so many components of
                                                                        each; without ``bands``, each node is one
======================================================================  ==========================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pydantic
from pydantic import Field

from berg.core.card_schema import CardPart
from berg.core.exceptions import ModelCardError, listing
from berg.core.model_card import ModelCard


class RidgeStep(CardPart):
    """What stands under ``ridge``."""

    alphas: list[float] | None = Field(None, min_length=1, description="penalties to choose from")
    folds: int = Field(5, ge=2)


class BandedStep(RidgeStep):
    """What stands under ``banded``."""

    bands: dict[str, list[str]] | None = Field(None, description="feature spaces: names of nodes that stand together")
    iterations: int = Field(100, ge=1, description="how many relations of the bands are tried")
    seed: int = Field(0, ge=0)


@dataclass(frozen=True)
class RegressionSteps:
    """The steps of a card: how many components, and which regression (None: least squares)."""

    n_components: int | None
    regression: RidgeStep | None

    @property
    def is_banded(self) -> bool:
        """Whether feature spaces have penalties of their own."""
        return isinstance(self.regression, BandedStep)


def read_steps(card: ModelCard) -> RegressionSteps:
    """The steps under ``readout`` of a card.

    Raises
    ------
    ModelCardError
        For steps that do not exist, or in an order that cannot be fitted.
    """
    steps = [_named(card, step) for step in (card.readout or {}).get("steps", [])]
    names = [name for name, _ in steps]
    settings = dict(steps)
    if names not in [["standardize", *pca, last] for pca in ([], ["pca"]) for last in ("linear", "ridge", "banded")]:
        raise card_error(
            card,
            f"are {names}; they can be  [standardize, pca: 250, linear]  with or without the PCA, and with ridge or "
            "banded in the place of linear",
        )
    n_components = settings.get("pca")
    if "pca" in settings and (not isinstance(n_components, int) or isinstance(n_components, bool) or n_components < 1):
        raise card_error(card, f"have pca: {n_components}; it takes the number of components, such as  pca: 250")
    return RegressionSteps(n_components, _regression(card, names[-1], settings[names[-1]] or {}))


def _named(card: ModelCard, step: Any) -> tuple[str, Any]:
    """The name of a step and what stands under it."""
    if isinstance(step, str):
        return step, None
    if isinstance(step, dict) and len(step) == 1:
        return next(iter(step.items()))
    raise card_error(card, f"have {step!r}; a step is a name, or one name with its settings, such as  pca: 250")


def _regression(card: ModelCard, name: str, settings: Any) -> RidgeStep | None:
    if name == "linear":
        return None
    try:
        return (RidgeStep if name == "ridge" else BandedStep).model_validate(settings)
    except pydantic.ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        allowed = listing((RidgeStep if name == "ridge" else BandedStep).model_fields)
        raise card_error(card, f"have {name} with {faults} (it may have {allowed})") from error


def card_error(card: ModelCard, words: str) -> ModelCardError:
    return ModelCardError(f"{card.path}: readout.steps {words}.")
