"""A dataset's folder, opened as its dataset.yaml says."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, InvalidParameterError, MissingFileError, did_you_mean, listing
from berg.core.stacklevel import users_stacklevel
from berg.datasets.assembly import DatasetWarning, assembled
from berg.datasets.card import NAME, Coordinate, DatasetCard, ResponsesCard, StimuliCard, Values
from berg.datasets.cleaning import CleanedRows, length_of_run, n_trimmed, read_confounds
from berg.datasets.event_runs import RunVolumes, event_run, splits_of_runs
from berg.datasets.grayordinates import is_cifti, places_in
from berg.datasets.label_files import numbers_or_names, per_unit, read_labels, whole_numbers_or_names
from berg.datasets.matching_files import (
    Space,
    check_hemisphere,
    check_labels_agree,
    check_labels_shape,
    check_same_space,
    checked_interval,
    checked_unit,
    joined,
    space_of,
    space_of_responses,
)
from berg.datasets.recordings import Coordinates, OutputData, order_of_rows
from berg.datasets.response_arrays import ResponseArray, ScaledRows
from berg.datasets.response_files import ResponseFile, masked, open_responses
from berg.datasets.splits import MARKS, SPLITS, Indices, check_one_reading, presentation_indices, split_indices
from berg.stimuli import stimulus_set
from berg.stimuli.stimulus_files import warn_of_order

NAMES = ("roi", "channel")  # coordinates that are names, also if they look like numbers


def read_folder(folder: Path, subject: Any = None) -> dict[str, Any]:
    """The attributes of the `EncodingDataset` of a folder; see its `open`."""
    path = folder if folder.is_file() else folder / NAME
    if not path.is_file():
        raise MissingFileError(f"There is no {path}. A dataset has one, which says what lies where (docs/datasets.md).")
    card = DatasetCard.read(path)
    return _Folder(path.parent, card, _subject(card, subject)).parts()


def _subject(card: DatasetCard, subject: Any) -> Any:
    """The subject, in the type in which the card writes it.

    Raises
    ------
    InvalidParameterError
        If there is no such subject, or several to choose from.
    """
    if not card.subjects:
        return subject
    if subject is None and len(card.subjects) == 1:
        return card.subjects[0]
    by_text = {str(own): own for own in card.subjects}
    if subject is None or str(subject) not in by_text:
        given = f"no subject {subject!r}" if subject is not None else "several subjects; say which"
        raise InvalidParameterError(
            f"{card.path} has {given}.{did_you_mean(subject, by_text)} Its subjects: {listing(by_text, 30)}."
        )
    return by_text[str(subject)]


@dataclass(frozen=True)
class _Folder:
    path: Path
    card: DatasetCard
    subject: Any

    def parts(self) -> dict[str, Any]:
        if self.card.runs is not None:
            return self._parts_of_runs([str(name) for name in _list(self._names(self.card.runs, "runs"))])
        self._check_no_runs()
        stimuli, names = self._stimuli(self.card.stimuli)
        order = self._indices(self.card.presentations, names, "presentations")
        outputs = {name: self._output(name, own, order, len(names)) for name, own in self.card.responses.items()}
        groups = self._names(self.card.splits.groups, "splits", "groups")
        with self._at("splits"):
            groups = None if groups is None else _list(groups)
            return assembled(
                stimuli=stimuli, names=names, outputs=outputs, splits=self._splits(names), groups=groups,
                fractions=self.card.splits.model_dump(include={"test_fraction", "validation_fraction", "seed"}),
                sampling_interval_s=self._interval(outputs), sampling_rate=self.card.stimuli.sampling_rate,
                subject=self.subject, name=self.card.name or self.path.resolve().name,
            )  # fmt: skip

    # Recordings of events in time

    def _parts_of_runs(self, runs: Sequence[str]) -> dict[str, Any]:
        """Words and volumes, run by run; see `berg.datasets.event_runs`."""
        own, tr = self.card.stimuli, self.card.sampling_interval_s
        if own.words is None or "{run}" not in own.words or tr is None or not runs or len(set(runs)) < len(runs):
            raise DatasetError(
                f"{self.card.place('runs')}: a recording in runs needs  stimuli: {{words: words/{{run}}.tsv}}  (with "
                "{run} for the name), sampling_interval_s (the seconds between volumes), and runs that stand once each."
            )
        opened = {name: self._runs_of(name, part, runs) for name, part in self.card.responses.items()}
        lengths = {name: [length_of_run(part.rows) for part in parts] for name, (_, parts) in opened.items()}
        trims = {n_trimmed(part.cleaning) for part in self.card.responses.values()}
        first, *others = lengths.values()
        if any(other != first for other in others) or len(trims) > 1:
            raise DatasetError(
                f"{self.card.place('responses')}: the outputs differ in the volumes of their runs ({lengths}) or in "
                "what is trimmed. They are of the same volumes."
            )
        volumes = RunVolumes(
            [
                event_run(name, self._path(_of_run(own.words, name)), n_volumes, own.first_volume_s)
                for name, n_volumes in zip(runs, first, strict=True)
            ]
        )
        (trim,) = trims
        kept = volumes.kept(trim)
        outputs = {
            name: self._output_of_runs(name, joined(*found), kept, len(volumes)) for name, found in opened.items()
        }
        with self._at("splits"):
            given = {split: self._names(getattr(self.card.splits, split), "splits", split) for split in SPLITS}
            return assembled(
                stimuli=volumes, names=volumes.names, outputs=outputs, groups=volumes.run_of, fractions={},
                splits=splits_of_runs(volumes, given, trim),
                sampling_interval_s=tr, subject=self.subject, name=self.card.name or self.path.resolve().name,
            )  # fmt: skip

    def _runs_of(self, name: str, own: ResponsesCard, runs: Sequence[str]) -> tuple[list[Path], list[ResponseFile]]:
        """The responses of each run, cleaned."""
        with self._at("responses", name):
            axes = None if own.axes is None else ["presentation" if axis == "volume" else axis for axis in own.axes]
            mask = self._mask(own.mask, "responses", name, "mask")
            files, parts = [], []
            if len(own.path) != 1 or "{run" not in own.path[0]:
                raise DatasetError("path is one file for each run, with {run} for its name.")
            for run in runs:
                text, _, key = _of_run(own.path[0], run).partition("::")
                key = self._filled(key or _of_run(own.key or "", run))
                files.append(self._path(text))
                found = open_responses(files[-1], key or None, axes, None if mask is None else _list(mask))
                parts.append(replace(found, rows=self._cleaned(found.rows, own, run)))
            return files, parts

    def _output_of_runs(self, name: str, found: ResponseFile, kept: Indices, n_volumes: int) -> OutputData:
        own = self.card.responses[name]
        return self._output_of(name, own, found, self._mask(own.mask, "responses", name, "mask"), kept, n_volumes)

    def _cleaned(self, rows: ResponseArray, own: ResponsesCard, run: str) -> ResponseArray:
        """Of one run, by the steps of the card."""
        if not own.cleaning:
            return rows
        confounds = [
            read_confounds(self._path(_of_run(step.regress.confounds, run)), step.regress.columns, rows.n_rows)
            if step.regress is not None and step.regress.confounds is not None
            else None
            for step in own.cleaning
        ]
        return CleanedRows(rows, tuple(own.cleaning), tuple(confounds))

    def _check_no_runs(self) -> None:
        """Raise if what only runs have is stated without them."""
        stated = "stimuli.words" if self.card.stimuli.words is not None else ""
        stated = stated or next(
            (f"responses.{n}.cleaning" for n, own in self.card.responses.items() if own.cleaning), ""
        )
        if stated:
            raise DatasetError(
                f"{self.card.place(*stated.split('.'))}: {stated} is of recordings in runs. Name the runs:  "
                "runs: [NAME, ...]"
            )

    @contextmanager
    def _at(self, *keys: str) -> Iterator[None]:
        """Errors say file, line and key."""
        try:
            yield
        except DatasetError as error:
            place = self.card.place(*keys)
            if str(error).startswith(str(self.card.path)):
                raise
            raise DatasetError(f"{place}: {'.'.join(keys)}: {error}") from error

    def _filled(self, text: str) -> str:
        """A path or key with the subject in its place."""
        if "{" not in text:
            return text
        try:
            return text.format(subject=self.subject)
        except (KeyError, IndexError, ValueError) as error:
            raise DatasetError(
                f"'{text}' with subject {self.subject!r}: {error}. Write {{subject}}, or {{subject:02d}} for numbers."
            ) from error

    def _path(self, text: str) -> Path:
        if "{subject" in text and self.subject is None:
            raise InvalidParameterError(f"{self.card.path} is of several subjects ({text}); say which subject.")
        return self.path / Path(self._filled(text)).expanduser()

    def _labels(self, given: Values | None, *keys: str, as_text: bool = False) -> Any:
        """A list, in place or in its file; see `read_labels`."""
        if given is None:
            return None
        with self._at(*keys):
            if given.values is not None:
                return given.values if isinstance(given.values, dict) else _in_place(given.values, as_text)
            if given.path is None:
                raise DatasetError("needs a path, or a list of values.")
            return read_labels(self._path(given.path), given.key and self._filled(given.key), as_text=as_text)

    def _names(self, given: Values | None, *keys: str) -> Any:
        """A list of names, each as it is written."""
        return self._labels(given, *keys, as_text=True)

    def _indices(self, given: Values | None, names: Sequence[str], *keys: str) -> Indices | None:
        labels = self._labels(given, *keys, as_text=True)
        if labels is None or given is None:
            return None
        with self._at(*keys):
            values = _list(labels)
            if given.by is None and values.ndim == 1 and values.dtype.kind in "iu":
                check_one_reading(values, names, given.first, "it")
            if keys[0] == "splits":
                return split_indices(values, names, given.first, "it", by=given.by)
            return presentation_indices(values, names, given.first, "it", by=given.by)

    # Stimuli and splits

    def _stimuli(self, own: StimuliCard) -> tuple[Any, list[str]]:
        with self._at("stimuli"):
            stimuli = self._opened(own)
            names = self._names(own.names, "stimuli", "names")
            return stimuli, stimulus_set.names_of(stimuli, None if names is None else _list(names))

    def _opened(self, own: StimuliCard) -> Any:
        place = self.path if own.path is None else self._path(own.path)
        if own.files is not None:
            files = [place / str(name) for name in _list(self._names(own.files, "stimuli", "files"))]
            missing = [file for file in dict.fromkeys(files) if not file.is_file()]
            if missing:
                raise DatasetError(f"{len(missing):,} of {len(files):,} files are missing: {listing(missing, 5)}.")
            return files
        if own.path is None:
            raise DatasetError("needs a path (a folder or an array), or a list of files.")
        if not place.exists():
            raise MissingFileError(f"{self.card.place('stimuli', 'path')}: there is no {place}.")
        if place.is_dir() and not _is_zarr(place):
            return stimulus_set.files_of(place)
        return stimulus_set.open_stimulus_array(place, own.key and self._filled(own.key), own.places)

    def _splits(self, names: list[str]) -> dict[str, Indices] | None:
        own = self.card.splits
        if own.column is not None:
            return self._splits_of_column(_list(self._names(own.column, "splits", "column")), names)
        given = {name: getattr(own, name) for name in SPLITS}
        if not any(given.values()):
            return None
        indices = {name: self._indices(values, names, "splits", name) for name, values in given.items() if values}
        found = {name: own for name, own in indices.items() if own is not None}
        if "train" not in found:  # all others
            taken = np.concatenate(list(found.values()))
            found["train"] = np.setdiff1d(np.arange(len(names)), taken)
        return found

    def _splits_of_column(self, labels: NDArray[Any], names: list[str]) -> dict[str, Indices]:
        if len(labels) != len(names):
            raise DatasetError(f"column has {len(labels):,} entries for {len(names):,} stimuli.")
        wrong = set(map(str, labels)) - {*SPLITS, "", "none"}
        if wrong:
            raise DatasetError(f"column holds {listing(sorted(wrong))}. Allowed: {listing(SPLITS)}, or nothing.")
        return {name: np.flatnonzero(labels == name) for name in SPLITS}

    # Responses

    def _output(self, name: str, own: ResponsesCard, order: Indices | None, n_stimuli: int) -> OutputData:
        with self._at("responses", name):
            found, mask = self._responses(own, self._mask(own.mask, "responses", name, "mask"))
        return self._output_of(name, own, found, mask, order, n_stimuli)

    def _output_of(
        self, name: str, own: ResponsesCard, found: ResponseFile, mask: Any, order: Indices | None, n_stimuli: int
    ) -> OutputData:
        with self._at("responses", name):
            space = space_of_responses("the responses", found)
            check_hemisphere(name, space)
            self._check_step(found, order)
            unit = checked_unit(own.unit, own.scale, found.unit)
            rows = found.rows if own.scale == 1 else ScaledRows(found.rows, own.scale)
            axes = (*((found.row_axis,) if found.n_repetitions == 1 else ("stimulus", "repetition")),)
            lengths = (found.rows.n_rows // found.n_repetitions, found.n_repetitions)
            rows_are = order_of_rows(order, axes, lengths, n_stimuli)
            coordinates = found.coordinates | self._coordinates(name, own, found, mask, space)
            return OutputData(rows, found.axes, unit, rows_are, coordinates, found.attributes)

    def _mask(self, given: Values | None, *keys: str) -> Any:
        found = self._labels(given, *keys)
        if found is None or isinstance(found, dict) or found.dtype.kind in "biuf":
            return found
        if set(found.ravel().tolist()) <= set(MARKS):
            return np.array([MARKS[text] for text in found.ravel().tolist()]).reshape(found.shape)
        raise DatasetError(
            f"{self.card.place(*keys)}: {'.'.join(keys)}: a mask holds 0 or 1 (true or false) for each unit; this one "
            f"holds {listing(found.ravel(), 3)}."
        )

    def _responses(self, own: ResponsesCard, mask: Any) -> tuple[ResponseFile, Any]:
        """The responses of all files, and the mask in the order of their units."""
        texts = [text.partition("::") for text in own.path]
        files = [(file, key or own.key) for text, _, key in texts for file in self._matching(text)]
        given = None if mask is None else _list(mask)
        in_order = given is None or not is_cifti(files[0][0])  # of CIFTI, files may have orders of their own
        parts = [
            open_responses(file, key and self._filled(key), own.axes, given if in_order else None)
            for file, key in files
        ]
        found = joined([file for file, _ in files], parts)
        given = self._in_space(own.mask, given, space_of_responses("the responses", found), "mask")
        return (found, mask) if in_order else (masked(found, given, files[0][0]), given)

    def _in_space(self, given: Values | None, labels: Any, space: Space, name: str) -> Any:
        """Labels or a mask in the order of the units, if their file has grayordinates; else as they are.

        Raises
        ------
        DatasetError
            If they are of another space, which may have the same shape.
        """
        if given is None or given.path is None:
            return labels
        path = self._path(given.path)
        own = space_of(path)
        if own is None:
            return labels
        check_same_space(space, replace(own, name=f"{name} {path.name}"))
        if space.brain is None or own.brain is None or isinstance(labels, dict):
            return labels
        return labels[places_in(space.brain, own.brain)]

    def _check_step(self, found: ResponseFile, order: Indices | None) -> None:
        """Hold the time between the rows of a file to what `dataset.yaml` says of it."""
        step = found.attributes.get("series_step")
        if step is None or step[1] != "SECOND":
            return
        stated = self.card.sampling_interval_s
        if stated is not None and not np.isclose(stated, step[0], rtol=1e-3):
            raise DatasetError(
                f"sampling_interval_s is {stated:g}, and the rows of the series are {step[0]:g} s apart. Write  "
                f"sampling_interval_s: {step[0]:g}  or give the series that is meant."
            )
        if stated is None and order is None:
            warnings.warn(
                f"The rows of the responses are {step[0]:g} s apart (series), one for each stimulus. If they are one "
                f"recording in time, write  sampling_interval_s: {step[0]:g}  into dataset.yaml; as it stands, each "
                "row counts as an independent sample.",
                DatasetWarning,
                stacklevel=users_stacklevel(),
            )

    def _matching(self, text: str) -> list[Path]:
        place = self._path(text)
        if "*" not in text:
            return [place]
        found = sorted(place.parent.glob(place.name))
        if not found:
            raise MissingFileError(f"There is no file {place}.")
        warn_of_order(found, f"The files {text}")
        return found

    def _interval(self, outputs: dict[str, OutputData]) -> float | None:
        known = (data.attributes.get("sampling_interval_s") for data in outputs.values())
        with self._at("sampling_interval_s"):
            return checked_interval(self.card.sampling_interval_s, [own for own in known if own is not None])

    def _coordinates(self, name: str, own: ResponsesCard, found: ResponseFile, mask: Any, space: Space) -> Coordinates:
        lengths = dict(zip(found.axes, found.rows.shape, strict=True))
        coordinates = {}
        for label, given in own.coordinates.items():
            keys = ("responses", name, "coordinates", label)
            with self._at(*keys):
                labels = self._labels(given, *keys, as_text=label in NAMES)
                labels = self._in_space(given, labels, space, label)
                check_labels_shape(label, labels, space)
                axis = _axis_of(label, given, lengths, labels)
                coordinates[label] = (axis, _along(labels, lengths[axis], mask, given.first, label))
                if label in found.coordinates:
                    check_labels_agree(label, coordinates[label][1], found.coordinates[label][1])
        return coordinates


def _in_place(values: list[Any], as_text: bool) -> NDArray[Any]:
    """A list that stands in the card. Among names, a whole number is the text that it is written as."""
    kinds = {type(value) for value in values}
    is_mixed = len(kinds) > 1 and (as_text or str in kinds) and bool not in kinds
    if not is_mixed:
        return np.asarray(values)
    texts = [str(value) for value in values]
    return np.asarray(texts) if as_text else numbers_or_names(texts)  # 1e-3 is a text to YAML


def _of_run(text: str, run: str) -> str:
    """A path with the name of a run in its place; what else stands in braces is left."""
    return text.replace("{run}", run)


def _list(labels: Any) -> NDArray[Any]:
    if isinstance(labels, dict):
        raise DatasetError(f"must be a list, and is a map of {listing(labels, 5)}.")
    if not np.ndim(labels):
        raise DatasetError(f"must be a list, and is one value ({labels}).")
    return np.asarray(labels)


def _is_zarr(place: Path) -> bool:
    return any((place / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def _axis_of(label: str, given: Coordinate, lengths: dict[str, int], labels: Any) -> str:
    """The axis that is named, has this name, is the only one, or the only one so long."""
    if given.axis is not None:
        if given.axis not in lengths:
            raise DatasetError(f"there is no axis '{given.axis}'. Axes of the units: {listing(lengths)}.")
        return given.axis
    if label in lengths:
        return label
    fitting = [axis for axis, length in lengths.items() if not isinstance(labels, dict) and len(labels) == length]
    candidates = list(lengths) if len(lengths) == 1 else fitting
    if len(candidates) != 1:
        raise DatasetError(f"is along which axis? Write  axis: NAME  ({listing(lengths)}).")
    return candidates[0]


def _along(labels: Any, length: int, mask: Any, first: int, name: str) -> NDArray[Any]:
    """Labels along an axis; of all units where there is a mask, those that it keeps."""
    kept = None if mask is None else np.flatnonzero(np.nan_to_num(np.asarray(mask)))
    n_all = length if kept is None or len(kept) != length else np.size(mask)
    found = np.asarray(per_unit(labels, n_all, first)).ravel()
    if len(found) not in (length, n_all):
        raise DatasetError(f"has {len(found):,} labels; the axis has {length:,} positions.")
    if kept is not None and len(found) != length:
        found = found[kept]
    return _regions(found) if name == "roi" else whole_numbers_or_names(found) if name in NAMES else found


def _regions(labels: NDArray[Any]) -> NDArray[Any]:
    """Names of regions as they are, and the numbers of an atlas as texts, where 0 is of none.

    Raises
    ------
    DatasetError
        If numbers are not whole, as an atlas has them after it was resampled with interpolation.
    """
    found = whole_numbers_or_names(labels)
    if found.dtype.kind == "U" and found.size and all(map(_WHOLE_FLOAT.fullmatch, np.unique(found).tolist())):
        as_numbers = found.astype(float)  # as numpy.savetxt and pandas write whole numbers
        found = as_numbers if len(np.unique(as_numbers)) == len(np.unique(found)) else found
    if found.dtype.kind not in "iuf":
        return found
    numbers = np.nan_to_num(found, posinf=0.5, neginf=0.5)
    if not np.array_equal(numbers, np.round(numbers)):
        raise DatasetError(
            f"holds {found[numbers != np.round(numbers)][0]} and other numbers that are not whole. Regions are whole "
            "numbers (resample an atlas to the nearest neighbour) or names; a name such as 1.1 is written as a text."
        )
    return np.array([str(int(value)) if value else "" for value in numbers])


_WHOLE_FLOAT = re.compile(r"(0|[1-9][0-9]*)\.0+(e[+]00)?|[1-9]\.[0-9]{18}e[+][0-9]{2}")
