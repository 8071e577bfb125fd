"""The facade: pick a model by its id, give it stimuli, get responses."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from berg.core import model_registry, settings
from berg.core.exceptions import InvalidParameterError, ModelCheckError, did_you_mean, listing
from berg.core.tables import html_table

if TYPE_CHECKING:
    import xarray as xr

    from berg.core.card_schema import StimulusInput
    from berg.core.model_card import ModelCard
    from berg.evaluation.find_models import FoundModels
    from berg.interfaces.base_model import BaseModelInterface
    from berg.responses.labelled import Labelled, Responses
    from berg.stimuli.images import FIT
    from berg.transfer.fetch import Fetched, WantedFile
    from berg.weights.availability import Availability
    from berg.weights.pack import Packed
    from berg.weights.unpack import Unpacked

    OneModel: TypeAlias = BaseModelInterface | str
    Arrays: TypeAlias = Any  # float32 arrays, memory maps, datasets of h5py or zarr; one per output, or per model

Selection = Mapping[str, Any]
Metadata = dict[str, Any]


class BERG:
    """All encoding models of this installation, and the directory that holds their files.

    Parameters
    ----------
    berg_dir
        The BERG directory, ``.../brain-encoding-response-generator``, which holds the files of models that are
        not built in. By default ``BERG_DIR``, the user's configuration, or the platform's folder for data;
        ``berg where`` tells which.
    download
        Fetch files that are missing when a model is asked for by `get_encoding_model`.

    Examples
    --------
    >>> import numpy as np
    >>> berg = BERG()
    >>> model = berg.get_encoding_model("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.5})
    >>> pictures = np.zeros((2, 3, 64, 64), dtype="uint8")
    >>> berg.encode(model, pictures).shape[0]
    2
    """

    def __init__(self, berg_dir: str | Path | None = None, *, download: bool = False) -> None:
        from berg.models.loading import open_berg_dir

        self.berg_dir = open_berg_dir(berg_dir)
        self.downloads = download

    def __repr__(self) -> str:
        n_models, n_usable = len(self.list_models()), len(self.list_models(here=True))
        return f"<BERG in {self.berg_dir}: {n_models} models, {n_usable} usable here>"

    def _repr_html_(self) -> str:
        rows = [(card.model_id, state, card.species, card.architecture) for card, state in self._availability()]
        return html_table(["model", "here?", "species", "architecture"], rows, f"BERG directory {self.berg_dir}")

    def _availability(self) -> list[tuple[ModelCard, Availability]]:
        from berg.weights.availability import availability

        return [(card, availability(card, Path(self.berg_dir))) for card in model_registry.readable_cards()]

    def list_models(
        self,
        pattern: str = "*",
        *,
        modality: str | None = None,
        species: str | None = None,
        stimuli: str | None = None,
        here: bool = False,
    ) -> list[str]:
        """The ids of the models, sorted.

        Parameters
        ----------
        pattern
            Of the id, with ``*`` and ``?``, such as ``"*nsd*"``; capitals do not matter.
        modality, species, stimuli
            Part of the text in the card; capitals do not matter.
        here
            Only models that can be used now: built in, or with files in the BERG directory.
        """
        wanted = {"modality": modality, "species": species, "stimuli": stimuli}
        known = model_registry.get_available_models()
        ids = [model_id for model_id in known if fnmatch.fnmatchcase(model_id.casefold(), pattern.casefold())]
        if any(wanted.values()):
            fit = {card.model_id for card in model_registry.readable_cards() if card.has_words(wanted)}
            ids = [model_id for model_id in ids if model_id in fit]
        if here:
            usable = {card.model_id for card, state in self._availability() if state.is_usable}
            ids = [model_id for model_id in ids if model_id in usable]
        return ids

    def get_model_catalog(self, print_format: bool = False) -> dict[str, list[str]]:
        """The training datasets of each modality, both sorted; with `print_format` they are printed, too."""
        catalog: dict[str, set[str]] = {}
        for model_id in self.list_models():
            entry = model_registry.get_registered(model_id)
            catalog.setdefault(entry["modality"], set()).add(entry["training_dataset"])
        found = {modality: sorted(datasets) for modality, datasets in sorted(catalog.items())}
        if print_format:
            print("\n".join(f"{modality}: {', '.join(datasets)}" for modality, datasets in found.items()))
        return found

    def describe(self, model_id: str) -> dict[str, Any]:
        """Print the card of a model, and return it as a dictionary of the card's own keys."""
        from berg.interfaces.base_model import print_card

        return print_card(model_id)

    def get_encoding_model(
        self, model_id: str, device: str = "auto", selection: Selection | None = None, **parameters: Any
    ) -> BaseModelInterface:
        """The model, loaded and ready to encode.

        Parameters
        ----------
        model_id
            One of `list_models`.
        device
            ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        selection
            Which units to return; the keys are in the card (`describe`).
        **parameters
            The model's own, such as ``subject=1``.

        Raises
        ------
        ModelNotFoundError, InvalidParameterError, DeviceError, MissingFileError, CorruptedFileError
        """
        if self.downloads:
            self._fetch_missing(model_id, selection, parameters)
        return self._loaded(model_id, device, selection, parameters)

    def _model_class(self, model_id: str) -> Any:
        """The class of a model; those on a server have others."""
        return model_registry.get_model_class(model_id)

    def _loaded(
        self, model_id: str, device: str, selection: Selection | None, parameters: Mapping[str, Any]
    ) -> BaseModelInterface:
        """A model, made and loaded; nothing is downloaded."""
        from berg.models.loading import load_model

        return load_model(model_id, self.berg_dir, device, selection, parameters)

    def _fetch_missing(self, model_id: str, selection: Selection | None, parameters: dict[str, Any]) -> None:
        model_class: Any = model_registry.get_model_class(model_id)
        files = getattr(getattr(model_class, "card", None), "files", None)
        if files is None or files.store != "berg_dir":
            return  # it brings its files along, or finds them by itself
        from berg.weights.download import receive

        items = self.plan_download(model_id, selection, ask=False, **parameters)
        if not all(item.is_here for item in items):
            receive(items)

    @overload
    def encode(
        self,
        model: OneModel,
        stimulus: Any,
        return_metadata: Literal[False] = False,
        *,
        out: str | Path,
        labelled: bool = False,
        **kwargs: Any,
    ) -> Labelled: ...

    @overload
    def encode(
        self,
        model: OneModel,
        stimulus: Any,
        return_metadata: Literal[False] = False,
        *,
        labelled: Literal[True],
        out: Arrays | None = None,
        **kwargs: Any,
    ) -> Labelled: ...

    @overload
    def encode(
        self,
        model: OneModel,
        stimulus: Any,
        return_metadata: Literal[False] = False,
        *,
        labelled: Literal[False] = False,
        out: Arrays | None = None,
        **kwargs: Any,
    ) -> Responses: ...

    @overload
    def encode(
        self,
        model: OneModel,
        stimulus: Any,
        return_metadata: Literal[True],
        *,
        out: str | Path,
        labelled: bool = False,
        **kwargs: Any,
    ) -> tuple[Labelled, Metadata]: ...

    @overload
    def encode(
        self,
        model: OneModel,
        stimulus: Any,
        return_metadata: Literal[True],
        *,
        labelled: Literal[True],
        out: Arrays | None = None,
        **kwargs: Any,
    ) -> tuple[Labelled, Metadata]: ...

    @overload
    def encode(
        self,
        model: OneModel,
        stimulus: Any,
        return_metadata: Literal[True],
        *,
        labelled: Literal[False] = False,
        out: Arrays | None = None,
        **kwargs: Any,
    ) -> tuple[Responses, Metadata]: ...

    @overload
    def encode(
        self,
        model: Sequence[BaseModelInterface],
        stimulus: Any,
        return_metadata: Literal[False] = False,
        *,
        out: str | Path,
        labelled: bool = False,
        **kwargs: Any,
    ) -> Labelled: ...

    @overload
    def encode(
        self,
        model: Sequence[BaseModelInterface],
        stimulus: Any,
        return_metadata: Literal[False] = False,
        *,
        labelled: Literal[True],
        out: Arrays | None = None,
        **kwargs: Any,
    ) -> list[Labelled]: ...

    @overload
    def encode(
        self,
        model: Sequence[BaseModelInterface],
        stimulus: Any,
        return_metadata: Literal[False] = False,
        *,
        labelled: Literal[False] = False,
        out: Arrays | None = None,
        **kwargs: Any,
    ) -> list[Responses]: ...

    @overload
    def encode(
        self,
        model: Sequence[BaseModelInterface],
        stimulus: Any,
        return_metadata: Literal[True],
        *,
        out: str | Path,
        labelled: bool = False,
        **kwargs: Any,
    ) -> tuple[Labelled, list[Metadata]]: ...

    @overload
    def encode(
        self,
        model: Sequence[BaseModelInterface],
        stimulus: Any,
        return_metadata: Literal[True],
        *,
        labelled: Literal[True],
        out: Arrays | None = None,
        **kwargs: Any,
    ) -> tuple[list[Labelled], list[Metadata]]: ...

    @overload
    def encode(
        self,
        model: Sequence[BaseModelInterface],
        stimulus: Any,
        return_metadata: Literal[True],
        *,
        labelled: Literal[False] = False,
        out: Arrays | None = None,
        **kwargs: Any,
    ) -> tuple[list[Responses], list[Metadata]]: ...

    @overload
    def encode(
        self,
        model: OneModel | Sequence[BaseModelInterface],
        stimulus: Any,
        return_metadata: bool = False,
        *,
        labelled: bool = False,
        **kwargs: Any,
    ) -> Any: ...

    def encode(
        self,
        model: BaseModelInterface | str | Sequence[BaseModelInterface],
        stimulus: Any,
        return_metadata: bool = False,
        *,
        labelled: bool = False,
        size: int | None = None,
        fit: FIT | None = None,
        eye_position: Any = None,
        behaviour: Any = None,
        flag: Any = False,
        **kwargs: Any,
    ) -> Any:
        """The in silico responses to the stimuli.

        Parameters
        ----------
        model
            A loaded model, or a model id with the model's parameters among `kwargs`; such a model is
            loaded for this call and released after it. A list of loaded models gives a list of responses;
            features that they share are computed once.
        stimulus
            As the card's input says; pictures: integers in [0, 255], shape (n_stimuli, 3, height, width).
        return_metadata
            Whether to return the metadata too.
        labelled
            Return xarray: dimensions, coordinates and units from the card and the metadata.
        size
            Bring pictures in files, and PIL images, to this many pixels, height and width.
        fit
            How pictures that are not square are brought to `size`: ``"center_crop"``, ``"squash"`` or ``"pad"``.
        eye_position, behaviour
            Of models that take films, frame by frame: where the eye looked, and pupil radius and treadmill velocity,
            z-scored, shape (n_frames, 2), of several films (n_films, n_frames, 2); None: zeros. See
            `berg.stimuli.films.Film`.
        flag
            True: labelled responses, with the coordinates ``distance`` of each picture from those that the model was
            trained with and ``is_flagged``, as far as the model's file keeps what those were like; or what
            `berg.encoding.familiarity.familiarity` makes of pictures that are usual.
        **kwargs
            Passed to the model's `generate_response`, such as ``batch_size`` or ``show_progress`` (None: a bar on a
            terminal and in a notebook). With ``out="NAME.nc"``, or another ending of
            `berg.responses.save.save_responses`, the responses are also written there, labelled; a file that is there
            is replaced with ``overwrite=True`` only. With ``out="NAME.zarr"`` the responses are written there while
            they are computed, an interrupted run is resumed by the same call, and what is returned is labelled, and
            read when it is used; the options are then those of `berg.encoding.stream.encode_to_store`. With
            ``scheduler="slurm:8"`` or ``"local:2"`` besides, and a model id, other processes encode; see
            `berg.encoding.cluster.encode_on_cluster`.

        Returns
        -------
        responses
            A float32 array, first axis: the stimuli; a tuple of arrays, in the order of the card, for a
            model with several outputs; for a model of subjects of several data sets a dict of them, as it was
            published (``responses["NaturalScenesDataset"]["sub-01"]``). Labelled: a Dataset, or a DataTree for several
            outputs. With `return_metadata`, always the two values (responses, metadata).
        """
        model_class = self._model_class(model) if isinstance(model, str) else None
        _check_names(model, model_class, kwargs)
        stimulus = _observed(model, _sized(stimulus, size, fit), eye_position, behaviour)
        if flag is not False:
            return self._encode_flagged(model, stimulus, return_metadata, flag, **kwargs)
        if kwargs.get("scheduler") is not None:
            return self._encode_on_cluster(model, stimulus, return_metadata, **kwargs)
        if _is_file(kwargs.get("out")):
            return self._encode_to_file(model, stimulus, return_metadata, **kwargs)
        if isinstance(model, str):
            from berg.models.loading import split_options

            parameters, options = split_options(model_class, kwargs)
            device, selection = parameters.pop("device", "auto"), parameters.pop("selection", None)
            with self._loaded(model, device, selection, parameters) as loaded:
                return self.encode(loaded, stimulus, return_metadata, labelled=labelled, **options)
        if _is_store(kwargs.get("out")):
            return _encode_to_store(model, stimulus, return_metadata, **kwargs)
        if isinstance(model, (list, tuple)):
            return _encode_each(model, stimulus, return_metadata, labelled, kwargs)
        if not hasattr(model, "generate_response"):
            raise InvalidParameterError(
                f"encode takes a loaded model or a model id, got {type(model).__name__}. "
                'Try berg.encode("fmri-szinte2024-prf_css", stimulus).'
            )
        one: Any = model
        listed = _listed(stimulus, [one]) if labelled else stimulus
        responses = one.generate_response(listed, **kwargs)
        responses = _labelled(responses, one, listed) if labelled else _returned(responses, one, kwargs)
        return (responses, one.get_metadata()) if return_metadata else responses

    def _encode_on_cluster(self, model: Any, stimulus: Any, return_metadata: bool, **options: Any) -> Any:
        return _encode_on_cluster(model, stimulus, self.berg_dir, return_metadata, **options)

    def _encode_flagged(self, model: Any, stimulus: Any, return_metadata: bool, flag: Any, **options: Any) -> Any:
        """Labelled responses, with what is said of each picture as coordinates."""
        from berg.encoding.familiarity import familiarity
        from berg.models.encoding_model import EncodingModel

        if (
            not isinstance(model, EncodingModel)
            or options.get("out") is not None
            or options.get("scheduler") is not None
        ):
            raise InvalidParameterError(
                "flag= takes one loaded model (berg.load), and returns labelled responses in memory; leave out and "
                "scheduler out. For many pictures:  berg.experiments.flag(model, pictures)"
            )
        usual = familiarity(model) if flag is True else flag
        judged = usual.judge(model, stimulus)
        responses = self.encode(model, stimulus, labelled=True, **options)
        found = {"distance": ("stimulus", judged.distance), "is_flagged": ("stimulus", judged.is_flagged)}
        flagged = (
            responses.map_over_datasets(lambda own: own.assign_coords(found) if own.data_vars else own)
            if hasattr(responses, "leaves")
            else responses.assign_coords(found)
        )
        return (flagged, model.get_metadata()) if return_metadata else flagged

    def _encode_to_file(
        self, model: Any, stimulus: Any, return_metadata: bool, *, out: Any, overwrite: bool = False, **options: Any
    ) -> Any:
        """The responses, labelled and written to a file."""
        from berg.responses.save import check_ending, check_not_there, save_responses

        path = Path(out).expanduser()
        if isinstance(model, (list, tuple)):
            raise InvalidParameterError(f"{path} can hold one model. Give out='NAME.zarr' for {len(model)} of them.")
        check_ending(path)
        check_not_there(path, overwrite)
        responses, metadata = self.encode(model, stimulus, True, labelled=True, **options)
        save_responses(responses, path)
        return (responses, metadata) if return_metadata else responses

    def convert(self, model_id: str, selection: Selection | None = None, **parameters: Any) -> list[Path]:
        """Write the weights of a published model again, in a format that loads faster; see ``berg convert``.

        The new files lie beside the published ones, which stay; loading prefers the new ones.

        Returns
        -------
        paths
            The files written.
        """
        model_class: Any = model_registry.get_model_class(model_id)
        if not hasattr(model_class, "convert"):
            raise InvalidParameterError(f"{model_id} is a class of its own and cannot be converted.")
        written: list[Path] = model_class.convert(berg_dir=self.berg_dir, selection=selection, **parameters)
        return written

    def pack(
        self,
        model_id: str,
        out: str | Path | None = None,
        *,
        force: bool = False,
        show_progress: bool | None = None,
        **parameters: Any,
    ) -> Packed:
        """Check a model, and write its files, card and manifest into one zip file; see ``berg pack``.

        Parameters
        ----------
        out
            The zip file; by default named after the model id, in the current folder.
        force
            Also pack a model that fails its checks, or files that differ from their manifest.
        show_progress
            None: a bar if standard error is a terminal.
        **parameters
            The model is checked with these, such as ``subject=2``; by default with the examples in its card.

        Raises
        ------
        ModelCheckError
            If a check fails; with all that fail.
        InvalidParameterError, MissingFileError, CorruptedFileError, StorageError
        """
        from berg.weights.pack import check_out, pack

        card, target = model_registry.get_card(model_id), Path(f"{model_id}.zip" if out is None else out)
        check_out(target)
        if not force:
            _check_sound(model_id, self.berg_dir, parameters)
        return pack(card, Path(self.berg_dir), target, force=force, show_progress=show_progress)

    def unpack(self, path: str | Path, *, overwrite: bool = False, show_progress: bool | None = None) -> Unpacked:
        """Put the models of a zip file into the BERG directory, verified, all or nothing; see ``berg unpack``.

        Parameters
        ----------
        path
            Written by `pack`, or by hand as the guide says.
        overwrite
            Replace files that differ.
        show_progress
            None: a bar if standard error is a terminal.

        Raises
        ------
        MissingFileError, CorruptedFileError, StorageError
        """
        from berg.weights.unpack import unpack

        return unpack(Path(path), Path(self.berg_dir), overwrite=overwrite, show_progress=show_progress)

    def files_of(
        self, model_id: str, selection: Selection | None = None, *, everything: bool = False, **parameters: Any
    ) -> list[str]:
        """The files that a model needs, in their published form: paths in the model's folder, with slashes.

        Parameters
        ----------
        everything
            The files of all subjects and selections that are not given.
        """
        from berg.weights.needed_files import file_values

        model_class: Any = model_registry.get_model_class(model_id)
        if not hasattr(model_class, "file_names"):
            raise InvalidParameterError(f"{model_id} is a class of its own, whose files its card does not name.")
        own = {name: value for name, value in parameters.items() if value is not None}
        values = file_values(model_class.card, selection, own, everything)
        return list(dict.fromkeys(name for each in values for name in model_class.file_names(each)))

    def plan_download(
        self,
        model_id: str,
        selection: Selection | None = None,
        *,
        everything: bool = False,
        source: str | None = None,
        ask: bool = True,
        **parameters: Any,
    ) -> list[WantedFile]:
        """The files that `download` would get, with their sizes; fetches none.

        Parameters
        ----------
        ask
            Ask the source for sizes that are not known.
        """
        from berg.weights.download import plan, with_sizes

        model_class: Any = model_registry.get_model_class(model_id)
        names = self.files_of(model_id, selection, everything=everything, **parameters)
        networks = settings.network_source()
        items = plan(
            model_class.card,
            names,
            model_class.network_files(),
            Path(self.berg_dir),
            settings.source(source).value,
            networks.value if networks else None,
        )
        return with_sizes(items) if ask else items

    def download(
        self,
        model_id: str,
        selection: Selection | None = None,
        *,
        everything: bool = False,
        source: str | None = None,
        parallel: int = 4,
        show_progress: bool | None = None,
        **parameters: Any,
    ) -> list[Fetched]:
        """Fetch the files that a model needs and that are not here, and the network that it builds on.

        Every file is hashed, and refused if the hash is not that pinned in the package, or recorded at the first
        download.

        Parameters
        ----------
        selection, parameters
            As for `get_encoding_model`; a parameter may be a list: ``subject=[1, 2]``.
        everything
            All subjects and selections that are not given.
        source
            ``s3://bucket/prefix``, ``https://host/prefix`` or ``file:///folder``; by default ``BERG_SOURCE``,
            the user's configuration, or the public bucket.
        parallel
            How many connections.
        show_progress
            None: bars if standard error is a terminal.

        Raises
        ------
        DownloadError, CorruptedFileError, StorageError, InvalidParameterError
        """
        from berg.weights.download import receive

        items = self.plan_download(model_id, selection, everything=everything, source=source, ask=False, **parameters)
        return receive(items, parallel=parallel, progress=show_progress)

    def get_model_metadata(self, model_id: str, **parameters: Any) -> dict[str, Any]:
        """The metadata of a model (ROIs, coordinates, accuracy), without loading its weights."""
        from berg.models.loading import metadata_of_class

        return metadata_of_class(model_id, self.berg_dir, **parameters)

    def accuracy(
        self, model_id: str, selection: Selection | None = None, **parameters: Any
    ) -> xr.Dataset | xr.DataTree:
        """How well a model predicts each unit on data that its fit has not seen.

        From the table beside the weights, which ``berg fit`` and ``berg evaluate`` write; for models without one, from
        their metadata, under the names that it has there.

        Parameters
        ----------
        selection
            Which units, as for `get_encoding_model`; None: all of them.
        **parameters
            The model's own, such as ``subject=1``.

        Returns
        -------
        accuracy
            A Dataset whose dimensions are the axes of the units, float32; a DataTree of several outputs. Its
            variables are described in `berg.evaluation.accuracy_table`; ``attrs`` say what was compared with what.

        Raises
        ------
        InvalidParameterError, ModelNotFoundError
        MissingFileError
            If neither the table nor the metadata are here, or they say nothing of accuracy.

        Examples
        --------
        >>> accuracy = BERG().accuracy("fmri-szinte2024-prf_css", {"min_held_out_r2": 0.5}, subject=1)
        >>> round(float(accuracy["held_out_r"].median()), 1)
        0.8
        """
        from berg.evaluation.known_accuracy import known_accuracy

        return known_accuracy(model_id, self.berg_dir, selection, parameters)

    def find_models(
        self,
        *,
        species: str | None = None,
        modality: str | None = None,
        dataset: str | None = None,
        stimuli: str | None = None,
        roi: str | None = None,
        subject: Any = None,
        min_r: float | None = None,
    ) -> FoundModels:
        """Models that fit a question, one row per subject, the most accurate first.

        Parameters
        ----------
        species, modality, dataset, stimuli
            Part of the text in the card; capitals do not matter.
        roi
            A region of interest that the model has; the figures are then those of its units.
        subject
            Only models of this subject.
        min_r
            Only models with at least one unit whose correlation reaches this.

        Returns
        -------
        rows
            A list that shows itself as a table, and has `to_dataframe`: with the number of units, their median r, and
            how many have at least `min_r`. Models whose accuracy is not
            known, because their files are not here, come last and say why (``unknown``).

        Examples
        --------
        >>> BERG().find_models(stimuli="sounds")[0].model_id
        'ephys-rokem2006-ln_renewal'
        """
        from berg.evaluation.find_models import find_models

        filters = {"species": species, "modality": modality, "training_dataset": dataset, "stimuli": stimuli}
        return find_models(self.berg_dir, filters, roi, subject, min_r)


def load(
    model_id: str,
    *,
    berg_dir: str | Path | None = None,
    download: bool = False,
    device: str = "auto",
    selection: Selection | None = None,
    **parameters: Any,
) -> BaseModelInterface:
    """A model, loaded and ready to encode: `BERG.get_encoding_model` in one line.

    Parameters
    ----------
    berg_dir, download
        As for `BERG`.
    model_id, device, selection, parameters
        As for `BERG.get_encoding_model`.

    Examples
    --------
    >>> import berg, numpy as np
    >>> model = berg.load("fmri-szinte2024-prf_css", selection={"min_held_out_r2": 0.5})
    >>> model(np.zeros((2, 3, 64, 64), "uint8")).shape[0]
    2
    """
    return BERG(berg_dir, download=download).get_encoding_model(model_id, device, selection, **parameters)


def list_models(pattern: str = "*", *, berg_dir: str | Path | None = None, **filters: Any) -> list[str]:
    """The ids of the models, sorted: `BERG.list_models`, with the same filters.

    Examples
    --------
    >>> import berg
    >>> berg.list_models("*prf*", modality="fmri", here=True)
    ['fmri-szinte2024-prf_css']
    """
    return BERG(berg_dir).list_models(pattern, **filters)


def _check_sound(model_id: str, berg_dir: str | None, parameters: dict[str, Any]) -> None:
    """Raise ModelCheckError if a model fails a check, and say how to pack it nevertheless."""
    from berg.testing import check_model

    try:
        check_model(model_id, berg_dir, raise_failures=True, **parameters)
    except ModelCheckError as error:
        raise ModelCheckError(
            f"{error}\nNothing was packed. See all checks with:  berg check {model_id}  To pack the model as it is, "
            "add --force (in Python force=True)."
        ) from error


def _encode_each(
    models: Sequence[BaseModelInterface],
    stimulus: Any,
    return_metadata: bool,
    labelled: bool,
    options: dict[str, Any],
) -> Any:
    """The responses of several models, in one pass if all of them can."""
    listed = _listed(stimulus, models)
    together = [getattr(model, "generate_together", None) for model in models]
    if models and all(together):
        responses = together[0](models, listed, **options)  # type: ignore[misc]
    else:
        responses = [model.generate_response(listed, **options) for model in models]
    as_asked: Any = _labelled if labelled else _returned
    responses = [
        as_asked(own, model, listed if labelled else options) for own, model in zip(responses, models, strict=True)
    ]
    return (responses, [model.get_metadata() for model in models]) if return_metadata else responses


def _listed(stimulus: Any, models: Sequence[Any]) -> Any:
    """The stimulus; the files of a folder as a list, so that the folder is read, and warned of, once."""
    from berg.encoding.store_identity import stimulus_files
    from berg.stimuli.films import as_one_film

    if models and hasattr(models[0], "expected_input"):
        stimulus = as_one_film(stimulus, models[0].expected_input)
    if hasattr(stimulus, "read_as") or not models or not all(hasattr(model, "expected_input") for model in models):
        return stimulus
    if models[0].expected_input.kind == "text":
        return _opened_text(stimulus, models[0].expected_input)
    return stimulus_files(stimulus, models[0].expected_input) or stimulus


def _returned(responses: Any, model: Any, options: Mapping[str, Any]) -> Any:
    """The responses in the form that the model was published with; arrays that were given as they are."""
    is_given = options.get("out") is not None
    return model.as_returned(responses) if hasattr(model, "as_returned") and not is_given else responses


def _opened_text(stimulus: Any, expected: StimulusInput) -> Any:
    """A text, read and checked once."""
    from berg.stimuli.text_stimuli import open_texts

    return open_texts(stimulus, expected, None, True).text


def _labelled(responses: Any, model: Any, stimulus: Any) -> Labelled:
    """The responses with labels; the names of the stimuli are those of their files."""
    from berg.encoding.store_identity import labelling_metadata, stimulus_files, stimulus_labels
    from berg.responses.labelled import label_responses

    if not hasattr(model, "labels"):
        raise InvalidParameterError(
            f"{model.get_model_id()} is a class of its own, whose card says nothing of axes; leave out labelled=True."
        )
    if (names := model.row_names(stimulus)) is not None:
        return label_responses(responses, labelling_metadata(model), names)
    first = responses[0] if isinstance(responses, tuple) else responses
    names = stimulus_labels(None, stimulus_files(stimulus, model.expected_input), len(first), stimulus)
    return label_responses(responses, labelling_metadata(model), names)


def _check_names(model: Any, model_class: Any, given: Mapping[str, Any]) -> None:
    """Raise InvalidParameterError for an option that nothing takes, with the nearest that something does."""
    known = _names_taken(model, model_class, given)
    if known is None:
        return
    for name in given:
        if name not in known:
            raise InvalidParameterError(
                f"encode has no option '{name}'.{did_you_mean(name, known)} Its options: {listing(sorted(known), 40)}."
            )


def _names_taken(model: Any, model_class: Any, given: Mapping[str, Any]) -> set[str] | None:
    """What encode takes for this model and this kind of `out`; None if the model takes any name.

    Parameters
    ----------
    model_class
        That of a model that is given by its id.
    """
    from berg.models.loading import card_parameters, parameter_names, takes_any

    own = {"return_metadata", "labelled", "size", "fit", "eye_position", "behaviour", "out"}
    if model_class is not None:
        own |= {"device", "selection", *parameter_names(model_class), *card_parameters(model_class)}
        own -= {"parameters", "berg_dir"}
    one: Any = (
        model_class if model_class is not None else model[0] if isinstance(model, (list, tuple)) and model else model
    )
    functions = [*_store_functions(given), *([one.generate_response] if hasattr(one, "generate_response") else [])]
    if any(map(takes_any, functions)):
        return None
    taken = own.union(*map(parameter_names, functions)) - {"self", "models", "model", "path", "recipes"}
    return taken | ({"overwrite"} if _is_file(given.get("out")) else set())


def _store_functions(given: Mapping[str, Any]) -> list[Any]:
    """The functions whose options encode takes if responses go into a store."""
    if given.get("scheduler") is not None:
        from berg.encoding.cluster import encode_on_cluster

        return [encode_on_cluster]
    if _is_store(given.get("out")):
        from berg.encoding.stream import encode_to_store

        return [encode_to_store]
    return []


def _sized(stimulus: Any, size: int | None, fit: FIT | None) -> Any:
    if size is None and fit is None:
        return stimulus
    from berg.stimuli.images import resized

    return resized(stimulus, size, fit)


def _observed(model: Any, stimulus: Any, eye_position: Any, behaviour: Any) -> Any:
    """The stimulus; a film with what the animal did, if that is given."""
    if eye_position is None and behaviour is None:
        return stimulus
    from berg.core.card_schema import StimulusInput
    from berg.stimuli.films import with_observer

    one = model[0] if isinstance(model, (list, tuple)) and model else model
    card = model_registry.get_card(one) if isinstance(one, str) else getattr(one, "card", None)
    expected = getattr(card, "input", None) or StimulusInput.model_validate({"shape": "[batch_size]"})
    return with_observer(stimulus, eye_position, behaviour, expected)


def _is_file(out: Any) -> bool:
    return isinstance(out, (str, Path)) and not _is_store(out)


def _is_store(out: Any) -> bool:
    return isinstance(out, (str, Path)) and Path(out).suffix == ".zarr"


def _encode_to_store(models: Any, stimulus: Any, return_metadata: bool, *, out: Any, **options: Any) -> Any:
    from berg.encoding.stream import encode_to_store

    responses = encode_to_store(models, stimulus, out, **options)
    if not return_metadata:
        return responses
    if isinstance(models, (list, tuple)):
        return responses, [model.get_metadata() for model in models]
    return responses, models.get_metadata()


def _encode_on_cluster(
    model_id: Any, stimulus: Any, berg_dir: str, return_metadata: bool, *, out: Any = None, **given: Any
) -> Any:
    if not isinstance(model_id, str) or not _is_store(out) or return_metadata:
        raise InvalidParameterError(
            "scheduler= takes a model id, which each worker loads by itself, and writes labelled responses, which hold "
            'the metadata: berg.encode("fmri-nsd-fwrf", stimulus, out="NAME.zarr", scheduler="local:2", subject=1). '
            "Several models: berg.encoding.cluster.encode_on_cluster."
        )
    from berg.encoding.cluster import ModelRecipe, encode_on_cluster
    from berg.models.loading import parameter_names

    options = {name: given.pop(name) for name in parameter_names(encode_on_cluster) if name in given}
    device, selection = given.pop("device", "auto"), given.pop("selection", None)
    recipe = ModelRecipe(model_id, device, selection, given, Path(berg_dir).absolute())
    return encode_on_cluster(recipe, stimulus, out, **options)
