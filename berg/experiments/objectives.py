r"""What a picture is searched for: scores of responses, in standard deviations over reference pictures.

With the mean response of a set of units, z-scored over reference pictures, :math:`z`:

=================  ============================================================================
objective          score of a picture
=================  ============================================================================
``maximise``       :math:`z`
``minimise``       :math:`-z`
``match``          :math:`-\overline{(z_u - t_u)^2}` over units u, with a target pattern t
``contrast``       :math:`z_A - z_B`: drive A and not B
``controversial``  the soft minimum of :math:`z_A` and :math:`-z_B`: A says much, B says little
=================  ============================================================================

The soft minimum is :math:`-T \log \tfrac12 (e^{-a/T} + e^{-b/T})`, here with T = 0.5, after the controversial
stimuli of Golan, Raju & Kriegeskorte (2020, PNAS 117:29330). Without z-scores, the model with the larger
numbers would decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.experiments.units import Responder

OBJECTIVES = ("maximise", "minimise", "match", "contrast", "controversial")
OF_TWO = ("contrast", "controversial")
SOFTNESS = 0.5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation over reference pictures: of the mean of the units, and of each unit."""

    mean: float
    sd: float
    unit_means: Floats
    unit_sds: Floats

    @classmethod
    def of(cls, responses: Floats) -> Standard:
        """Of responses (n_pictures, n_units); what does not vary is left as it is."""
        together = responses.mean(1)
        sds = responses.std(0)
        return cls(float(together.mean()), float(together.std()) or 1.0, responses.mean(0), np.where(sds > 0, sds, 1.0))

    def z(self, responses: Tensor) -> Tensor:
        """Of the mean of the units, shape (n_pictures,)."""
        return (responses.mean(1) - self.mean) / self.sd

    def unit_z(self, responses: Tensor) -> Tensor:
        """Of each unit, shape (n_pictures, n_units)."""
        return (responses - torch.from_numpy(self.unit_means).to(responses)) / torch.from_numpy(self.unit_sds).to(
            responses
        )


class Goal:
    """An objective for one model or two, with what it is compared with.

    Parameters
    ----------
    objective
        See the table of this file.
    responders
        One, or for ``contrast`` and ``controversial`` two.
    reference
        Pictures that responses are z-scored over, as the models take them.
    target
        For ``match``: the responses of the units, shape (n_units,), or a picture that evokes them.
    """

    def __init__(self, objective: str, responders: Sequence[Responder], reference: Any, target: Any = None) -> None:
        check_objective(objective, len(responders), target)
        self.objective, self.responders = objective, list(responders)
        responses = [responder.encode(reference) for responder in responders]
        self.standards = [Standard.of(own) for own in responses]
        self.target = None if target is None else self._target(target)
        self.reference_scores = self.scores([torch.from_numpy(own) for own in responses]).numpy()

    def scores(self, responses: Sequence[Tensor]) -> Tensor:
        """The score of each picture, from the responses of each model (n_pictures, n_units)."""
        if self.objective == "match":
            apart = self.standards[0].unit_z(responses[0]) - torch.from_numpy(self.target).to(responses[0])
            return torch.neg((apart**2).mean(1))
        z = [standard.z(own) for standard, own in zip(self.standards, responses, strict=True)]
        if self.objective == "contrast":
            return z[0] - z[1]
        if self.objective == "controversial":
            both = torch.stack([z[0], -z[1]])
            return torch.mul(torch.logsumexp(-both / SOFTNESS, 0) - np.log(2), -SOFTNESS)
        return z[0] if self.objective == "maximise" else -z[0]

    def of_pictures(self, pictures: Tensor) -> Tensor:
        """Of floating-point pictures, differentiable."""
        return self.scores([responder(pictures) for responder in self.responders])

    def of_integers(self, pictures: Any) -> Floats:
        """Of pictures as `encode` takes them."""
        found: Floats = self.scores([torch.from_numpy(own.encode(pictures)) for own in self.responders]).numpy()
        return found

    def shares(self, scores: Floats) -> Floats:
        """Which part of the reference pictures each score exceeds."""
        return np.asarray((scores[:, None] > self.reference_scores[None]).mean(1))

    def _target(self, target: Any) -> Floats:
        (responder,), (standard,) = self.responders, self.standards
        given = np.asarray(target)
        responses = responder.encode(given[None])[0] if given.ndim == 3 else given.astype(np.float64)
        if responses.shape != (responder.n_units,) or not np.isfinite(responses).all():
            raise InvalidParameterError(
                f"target has shape {given.shape}; it must be finite responses of the {responder.n_units:,} units, or a "
                "picture of shape (3, height, width) that evokes them."
            )
        return np.asarray((responses - standard.unit_means) / standard.unit_sds)


def check_objective(objective: str, n_models: int, target: Any) -> None:
    """Raise InvalidParameterError for an objective that there is not, or that lacks what it is about."""
    if objective not in OBJECTIVES:
        raise InvalidParameterError(
            f"There is no objective '{objective}'.{did_you_mean(objective, OBJECTIVES)} There are: "
            f"{listing(OBJECTIVES)}."
        )
    if (objective in OF_TWO) != (n_models == 2):
        needs = (
            "needs a second model or selection: against=" if objective in OF_TWO else "takes no second model (against)"
        )
        raise InvalidParameterError(f"The objective '{objective}' {needs}.")
    if (objective == "match") != (target is not None):
        needs = "needs target=" if objective == "match" else "takes no target; for a target, objective='match'"
        raise InvalidParameterError(f"The objective '{objective}' {needs}.")
