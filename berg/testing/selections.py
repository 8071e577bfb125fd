"""Selections to try, and the responses that they must give, from the card and the metadata alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import Selector
from berg.core.exceptions import BERGError
from berg.core.model_card import ModelCard
from berg.core.selection import check_selection, resolve_selection, resolve_times
from berg.core.unit_labels import AxisKey, Indices, axis_length, look_up
from berg.testing.check import NotApplicable

if TYPE_CHECKING:
    from berg.testing.model_under_test import ModelUnderTest


class Selections:
    """What can be selected among the units that a model under test returns."""

    def __init__(self, subject: ModelUnderTest) -> None:
        if not subject.card.outputs or not subject.card.select:
            raise NotApplicable("the card has no 'outputs' or no 'select'")
        self.card, self.base, self.metadata = subject.card, subject.selection, subject.metadata
        self.n_samples = subject.stimulus.shape[-1]  # what axes that are as long as the stimulus go by
        self.units = self.resolve(self.base)

    def resolve(self, selection: Mapping[str, Any]) -> dict[AxisKey, Indices]:
        """The places of the units along each axis of each output."""
        checked = check_selection(self.card, selection)
        times = resolve_times(self.card, checked, self.n_samples)
        return {**resolve_selection(self.card, checked, self.metadata), **times}

    def keys(self, *kinds: str) -> list[str]:
        """The selection keys of these kinds that do not already decide about the units."""
        return [key for key, part in self.card.select.items() if part.kind in kinds and not self._is_overridden(key)]

    def value(self, key: str) -> Any:
        """A value for a key that selects some of the units, in an order of its own where the key has one."""
        selector = self.card.select[key]
        return getattr(self, f"_{selector.kind}")(key, selector)

    def one_unit(self, key: str) -> Any:
        """The value of a ``name`` or ``mask`` key for the last unit alone."""
        selector = self.card.select[key]
        places, values = self._places(selector), self._column(selector)
        last = places[-1]
        return str(values[last]) if selector.kind == "name" else (np.arange(len(values)) == last).astype(int)

    def slice_of(self, responses: tuple[NDArray[Any], ...], key: str, value: Any) -> Iterator[NDArray[Any]]:
        """The part of the responses to the base selection that `value` selects."""
        chosen = self.resolve({**self.base, key: value})
        for output, array in zip(self.card.outputs, responses, strict=True):
            for number, axis in enumerate(output.axes[1:], start=1):
                columns = _columns(self.units[output.name, axis], chosen[output.name, axis])
                array = np.take(array, columns, number)
            yield array

    def rois(self, key: str) -> list[str]:
        """Names of two regions that have units."""
        described = self.card.selection_parameters[key]
        found: list[str] = []
        for name in described.allowed or self._roi_names(self.card.select[key]):
            if len(found) < 2 and self._has_units(key, name):
                found.append(name)
        return found

    def _name(self, key: str, selector: Selector) -> Any:
        names, places = self._column(selector).astype(str), self._places(selector)
        chosen = list(dict.fromkeys(names[places[[-1, 0]]].tolist()))
        return chosen if takes_lists(self.card, key) else chosen[0]

    def _mask(self, key: str, selector: Selector) -> Any:
        mask = np.zeros(len(self._column(selector)), int)
        mask[self._places(selector)[1::3]] = 1
        return mask if mask.any() else mask + 1

    def _roi(self, key: str, selector: Selector) -> Any:
        return self.rois(key)[0]

    def _minimum(self, key: str, selector: Selector) -> Any:
        described = self.card.selection_parameters[key]
        values = self._column(selector)[self._places(selector)].astype(float)
        return True if "bool" in described.type else float(np.nanmedian(values))

    def _range(self, key: str, selector: Selector) -> Any:
        values = self._column(selector)[self._places(selector)].astype(float)
        return [float(bound) for bound in np.nanquantile(values, (0.25, 0.75))]

    def _places(self, selector: Selector) -> Indices:
        return self.units[self._output(selector), str(selector.axis)]

    def _output(self, selector: Selector) -> str:
        outputs = (output.name for output in self.card.outputs if selector.axis in output.axes)
        return selector.output or next(outputs)

    def _column(self, selector: Selector) -> NDArray[Any]:
        """One value per unit; for a mask the numbers of the units, along the stimulus the seconds."""
        output, rate = self._output(selector), self.card.axes[str(selector.axis)].sampling_rate
        if rate:
            return resolve_times(self.card, {}, self.n_samples)[output, str(selector.axis)] / rate
        if selector.kind == "mask":
            return np.arange(axis_length(self.card, output, str(selector.axis), self.metadata))
        return np.asarray(look_up(self.metadata, str(selector.metadata), output))

    def _roi_names(self, selector: Selector) -> list[str]:
        places = look_up(self.metadata, str(selector.metadata), self._output(selector))
        return list(places) if isinstance(places, Mapping) else sorted({str(label) for label in places})

    def _has_units(self, key: str, name: str) -> bool:
        try:
            chosen = self.resolve({**self.base, key: name})
            inside = [np.isin(places, self.units[axis]).all() for axis, places in chosen.items()]
        except BERGError:  # a region that this subject does not have
            return False
        return all(inside) and any(len(places) for places in chosen.values())

    def _is_overridden(self, key: str) -> bool:
        """Whether the base selection makes the key ineffective, or the key the base selection."""
        overrides = self.card.select[key].overrides
        return any(other in overrides or key in self.card.select[other].overrides for other in self.base)


def takes_lists(card: ModelCard, key: str) -> bool:
    """Whether a selection key takes several names."""
    described = card.selection_parameters[key].type
    return "list" in described or described == "any"


def _columns(units: Indices, chosen: Indices) -> Indices:
    """Where the chosen units stand among the returned ones."""
    order = np.argsort(units, kind="stable")
    return order[np.searchsorted(units, chosen, sorter=order)]
