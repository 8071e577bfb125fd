"""Recordings that a published model was fitted to, as a dataset.

What is public of the folder ``model_training_datasets`` is what the published models say in their metadata: the numbers
of the pictures that were trained, validated and tested on (``encoding_models.train_img_num``, ``val_img_num``,
``test_img_num``), and labels of units (``fmri.lh_fsaverage_rois``, ``fmri.lh_ncsnr``, ``eeg.ch_names``, ``eeg.times``).
Its file names, and the order of its rows, are not: whoever has the files says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, InvalidParameterError, StorageError, listing
from berg.datasets.card import NAME
from berg.datasets.dataset import EncodingDataset
from berg.datasets.label_files import read_labels
from berg.weights.model_files import read_metadata

IMAGE_NUMBERS = {"train": "train_img_num", "validation": "val_img_num", "test": "test_img_num"}


@dataclass(frozen=True)
class _Subject:
    """What the metadata of one subject say."""

    number: Any
    metadata: Mapping[str, Any]
    source: Path

    @property
    def suffix(self) -> str:
        return _suffix([self.number]).format(subject=self.number)

    def splits(self) -> dict[str, list[int]]:
        """The numbers of the pictures."""
        models = self.metadata.get("encoding_models", {})
        if IMAGE_NUMBERS["train"] not in models or IMAGE_NUMBERS["test"] not in models:
            raise DatasetError(
                f"{self.source} names no pictures: encoding_models holds {listing(models) or 'nothing'}, and not "
                f"{listing(IMAGE_NUMBERS.values())}."
            )
        return {name: np.ravel(models.get(key, [])).astype(int).tolist() for name, key in IMAGE_NUMBERS.items()}

    def labels(self, output: str) -> dict[str, tuple[str, Any]]:
        """Of the units of an output: by their names, the axis and the labels."""
        fmri, eeg = self.metadata.get("fmri", {}), self.metadata.get("eeg", {})
        found = {
            "roi": ("vertex", fmri.get(f"{output}_fsaverage_rois")),
            "ncsnr": ("vertex", fmri.get(f"{output}_ncsnr", fmri.get("ncsnr"))),
            "channel": ("channel", eeg.get("ch_names")),
            "time": ("time", eeg.get("times")),
        }
        return {name: (axis, labels) for name, (axis, labels) in found.items() if labels is not None}


def write_published_dataset(
    folder: Path | str,
    *,
    stimuli: str,
    metadata: str,
    responses: Mapping[str, str],
    subjects: Sequence[Any],
    order: str = "splits",
    unit: str = "z-scored beta",
    axes: Sequence[str] | None = None,
    first: int = 0,
) -> Path:
    """Write the ``dataset.yaml`` of recordings that a published model was fitted to.

    Stimuli and responses stay where they are; lists of pictures and labels of units are written beside it.

    Parameters
    ----------
    folder
        Where it goes.
    stimuli
        The array of all pictures, ``nsd_stimuli.hdf5::imgBrick``.
    metadata
        Of the model, with the subject in its name: ``metadata_subject-{subject:02d}.npy``. Nothing in it is run.
    responses
        By the names of the outputs, files with the subject in their name: ``betas_subject-{subject:02d}.h5::lh``.
    order
        Of the rows of the responses. ``splits``: those of the training, the validation and the test pictures, as the
        metadata list them. ``ascending``: by the number of the picture. Or a file with one number per row; only this
        can say that pictures were shown several times.
    unit
        Of the responses.
    axes
        Of the responses, in the order of the file. None: rows, then units.
    first
        The number of the first picture of the array.

    Returns
    -------
    path
        Of ``dataset.yaml``.

    Raises
    ------
    DatasetError
        If the metadata name no pictures, or what they say does not fit the responses.
    StorageError
        If there is a ``dataset.yaml`` already.
    """
    place = Path(folder) / NAME
    if place.exists():
        raise StorageError(f"{place} is there already. Take another folder, or delete it.")
    if not subjects:
        raise InvalidParameterError("Which subjects? Such as subjects=[1, 2]; on the command line --subject 1-8.")
    found = [_subject(metadata, number) for number in subjects]
    place.parent.mkdir(parents=True, exist_ok=True)
    for one in found:
        _write_lists(place.parent, one, responses, order)
    card = _card(place.parent, found, stimuli, responses, unit, axes, first)
    place.write_text(yaml.safe_dump(card, sort_keys=False, allow_unicode=True), "utf-8")
    for one in found:
        EncodingDataset.open(place.parent, one.number)
    return place


def _subject(metadata: str, number: Any) -> _Subject:
    path = Path(_of_subject(metadata, number))
    return _Subject(number, read_metadata(path), path)


def _of_subject(text: str, number: Any) -> str:
    try:
        return text.format(subject=number)
    except (KeyError, IndexError, ValueError) as error:
        raise InvalidParameterError(f"'{text}' with subject {number!r}: {error}. Write {{subject}}.") from error


def _suffix(numbers: Sequence[Any]) -> str:
    return "subject-{subject:02d}" if all(isinstance(number, int) for number in numbers) else "subject-{subject}"


def _write_lists(folder: Path, one: _Subject, responses: Mapping[str, str], order: str) -> None:
    splits = one.splits()
    _write_json(folder / f"splits_{one.suffix}.json", splits)
    np.save(folder / f"presentations_{one.suffix}.npy", _rows(splits, order, one.number))
    for output in responses:
        for name, (_, labels) in one.labels(output).items():
            _write_json(folder / f"{output}_{name}_{one.suffix}.json", labels)


def _rows(splits: Mapping[str, list[int]], order: str, number: Any) -> NDArray[Any]:
    """The number of the picture of each row."""
    in_order = np.array([picture for own in splits.values() for picture in own])
    if order == "splits":
        return in_order
    if order == "ascending":
        return np.sort(in_order)
    path = Path(_of_subject(order, number))
    if not path.exists():
        raise InvalidParameterError(f"order is '{order}'. Allowed: splits, ascending, or a file with a number per row.")
    labels = read_labels(path)
    if isinstance(labels, dict):
        raise DatasetError(f"{path} holds {listing(labels)}; it must hold one list, a number for each row.")
    return np.ravel(labels)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, default=lambda value: value.tolist()), "utf-8")


def _card(
    folder: Path,
    found: Sequence[_Subject],
    stimuli: str,
    responses: Mapping[str, str],
    unit: str,
    axes: Sequence[str] | None,
    first: int,
) -> dict[str, Any]:
    suffix = _suffix([one.number for one in found])
    by_number = {"first": first} if first else {}
    return {
        "name": folder.resolve().name,
        "subjects": [one.number for one in found],
        "stimuli": _seen_from(folder, stimuli),
        "presentations": {"path": f"presentations_{suffix}.npy", **by_number},
        "responses": {
            name: {
                "path": _seen_from(folder, path),
                **({"axes": list(axes)} if axes else _axes(found[0], name)),
                "unit": unit,
                "coordinates": dict(_coordinates(found[0], name, suffix, axes)),
            }
            for name, path in responses.items()
        },
        "splits": {name: {"path": f"splits_{suffix}.json", "key": name, **by_number} for name in IMAGE_NUMBERS},
    }


def _axes(one: _Subject, output: str) -> dict[str, list[str]]:
    axes = list(dict.fromkeys(axis for axis, _ in one.labels(output).values()))
    return {"axes": ["presentation", *axes]} if axes else {}


def _coordinates(one: _Subject, output: str, suffix: str, axes: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    for name, (axis, _) in one.labels(output).items():
        own = axes[-1] if axes and axis not in axes else axis  # voxels are no vertices, and called as the user says
        yield name, {"path": f"{output}_{name}_{suffix}.json", "axis": own}


def _seen_from(folder: Path, text: str) -> str:
    """A path as it is written in the folder: relative where it lies inside."""
    path, colons, key = text.partition("::")
    whole = Path(os.path.abspath(path))
    inside = whole.is_relative_to(folder.resolve())
    return f"{whole.relative_to(folder.resolve()) if inside else whole}{colons}{key}"
