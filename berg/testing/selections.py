"""Selections to try, and the responses that they must give, computed from the card and the metadata alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import Selector
from berg.core.exceptions import BERGError
from berg.core.model_card import ModelCard
from berg.core.selection import check_selection, resolve_selection, resolve_times
from berg.core.unit_labels import AxisKey, Indices, axis_length, look_up
from berg.testing.model_under_test import ModelUnderTest
from berg.testing.outcome import NotApplicable


class Selections:
    """What can be selected among the units that a model under test returns."""

    def __init__(self, model: ModelUnderTest) -> None:
        if not model.card.outputs or not model.card.select:
            raise NotApplicable("the card has no 'outputs' or no 'select'")
        self.card, self.base, self.metadata = model.card, model.selection, model.metadata
        # the length of axes that are as long as the stimulus
        self.n_samples = model.stimulus.shape[1 if model.input.frame_rate else -1]
        self.units = self.resolve(self.base)

    def resolve(self, selection: Mapping[str, Any]) -> dict[AxisKey, Indices]:
        """The indices of the units along each axis of each output."""
        checked = check_selection(self.card, selection)
        times = resolve_times(self.card, checked, self.n_samples)
        return {**resolve_selection(self.card, checked, self.metadata), **times}

    def keys(self, *kinds: str) -> list[str]:
        """The selection keys of these kinds that take effect beside the base selection."""
        return [key for key, part in self.card.select.items() if part.kind in kinds and not self._is_overridden(key)]

    def value(self, key: str) -> Any:
        """A value for a key that selects some of the units, for a list of names in another order than the model's."""
        selector = self.card.select[key]
        return getattr(self, f"_{selector.kind}")(key, selector)

    def one_unit(self, key: str) -> Any:
        """The value of a ``name`` or ``mask`` key for the last unit alone."""
        selector = self.card.select[key]
        indices, values = self._indices(selector), self._column(selector)
        last = indices[-1]
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
        names = described.allowed or self._roi_names(self.card.select[key])
        return list(islice((name for name in names if self._has_units(key, name)), 2))

    def _name(self, key: str, selector: Selector) -> Any:
        names, indices = self._column(selector).astype(str), self._indices(selector)
        chosen = list(dict.fromkeys(names[indices[[-1, 0]]].tolist()))
        return chosen if takes_lists(self.card, key) else chosen[0]

    def _mask(self, key: str, selector: Selector) -> Any:
        mask = np.zeros(len(self._column(selector)), int)
        mask[self._indices(selector)[1::3]] = 1
        return mask if mask.any() else mask + 1

    def _roi(self, key: str, selector: Selector) -> Any:
        return self._as_taken(key, self.rois(key)[0])

    def _as_taken(self, key: str, name: str) -> Any:
        """The name of a region, in a list where the key takes nothing else."""
        described = self.card.selection_parameters[key].type
        return name if "str" in described or described == "any" else [name]

    def _minimum(self, key: str, selector: Selector) -> Any:
        described = self.card.selection_parameters[key]
        values = self._column(selector)[self._indices(selector)].astype(float)
        return True if "bool" in described.type else float(np.nanmedian(values))

    def _range(self, key: str, selector: Selector) -> Any:
        values = self._column(selector)[self._indices(selector)].astype(float)
        return [float(bound) for bound in np.nanquantile(values, (0.25, 0.75))]

    def _indices(self, selector: Selector) -> Indices:
        return self.units[self._output(selector), str(selector.axis)]

    def _output(self, selector: Selector) -> str:
        outputs = (output.name for output in self.card.outputs if selector.axis in output.axes)
        return selector.output or next(outputs)

    def _column(self, selector: Selector) -> NDArray[Any]:
        """What a key selects by, one value per unit: for a mask its index, along the stimulus its time in seconds."""
        output, rate = self._output(selector), self.card.axes[str(selector.axis)].sampling_rate
        if rate:
            return resolve_times(self.card, {}, self.n_samples)[output, str(selector.axis)] / rate
        if selector.kind == "mask":
            return np.arange(axis_length(self.card, output, str(selector.axis), self.metadata))
        return np.asarray(look_up(self.metadata, str(selector.metadata), output))

    def _roi_names(self, selector: Selector) -> list[str]:
        regions = look_up(self.metadata, str(selector.metadata), self._output(selector))
        return list(regions) if isinstance(regions, Mapping) else sorted({str(label) for label in regions})

    def _has_units(self, key: str, name: str) -> bool:
        try:
            chosen = self.resolve({**self.base, key: self._as_taken(key, name)})
            inside = [np.isin(indices, self.units[axis]).all() for axis, indices in chosen.items()]
        except BERGError:  # a region that this subject does not have
            return False
        return all(inside) and any(len(indices) for indices in chosen.values())

    def _is_overridden(self, key: str) -> bool:
        """Whether the base selection makes the key ineffective, or the other way round."""
        overrides = self.card.select[key].overrides
        return any(other in overrides or key in self.card.select[other].overrides for other in self.base)


def takes_lists(card: ModelCard, key: str) -> bool:
    """Whether a selection key takes several names."""
    described = card.selection_parameters[key].type
    return "list" in described or described == "any"


def _columns(units: Indices, chosen: Indices) -> Indices:
    """The columns of the chosen units among the returned ones."""
    order = np.argsort(units, kind="stable")
    return order[np.searchsorted(units, chosen, sorter=order)]
