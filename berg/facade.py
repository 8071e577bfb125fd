"""The facade: pick a model by its id, give it stimuli, get responses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from berg.core import model_registry, settings
from berg.core.card_text import print_card
from berg.core.exceptions import InvalidParameterError, ModelCheckError

if TYPE_CHECKING:
    import xarray as xr

    from berg.evaluation.find_models import FoundModel
    from berg.interfaces.base_model import BaseModelInterface
    from berg.transfer.fetch import Fetched
    from berg.weights.download import Item
    from berg.weights.pack import Packed
    from berg.weights.unpack import Unpacked

Selection = Mapping[str, Any]


class BERG:
    """All encoding models of this installation, and the directory where their files lie.

    Parameters
    ----------
    berg_dir
        The BERG directory, ``.../brain-encoding-response-generator``, where the files of models lie that are
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
        self.berg_dir = str(settings.berg_dir(berg_dir).value)
        self.downloads = download
        model_registry.add_store(Path(self.berg_dir))

    def list_models(self) -> list[str]:
        """The ids of all models, sorted."""
        return model_registry.get_available_models()

    def get_model_catalog(self, print_format: bool = False) -> dict[str, list[str]]:
        """The training datasets of each modality, both sorted; printed too where `print_format` is true."""
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
        return self._load(model_id, device, selection, parameters)

    def _fetch_missing(self, model_id: str, selection: Selection | None, parameters: dict[str, Any]) -> None:
        model_class: Any = model_registry.get_model_class(model_id)
        files = getattr(getattr(model_class, "card", None), "files", None)
        if files is None or files.store != "berg_dir":
            return  # it brings its files along, or finds them by itself
        items = self.plan_download(model_id, selection, ask=False, **parameters)
        if not all(item.is_here for item in items):
            self.download(model_id, selection, **parameters)

    def _load(
        self, model_id: str, device: str, selection: Selection | None, parameters: dict[str, Any]
    ) -> BaseModelInterface:
        model_class = model_registry.get_model_class(model_id)
        options: dict[str, Any] = {"device": device, "selection": selection, "berg_dir": self.berg_dir}
        model = model_class(**constructor_options(model_class, options), **parameters)
        model.load_model(**loading_options(model.load_model, options, model_class))
        return model

    def encode(
        self,
        model: BaseModelInterface | str | Sequence[BaseModelInterface],
        stimulus: Any,
        return_metadata: bool = False,
        *,
        labelled: bool = False,
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
        **kwargs
            Passed to the model's `generate_response`, such as ``batch_size`` or ``show_progress``. With
            ``out="NAME.zarr"`` the responses are written there while they are computed, an interrupted run goes
            on where it was, and what is returned is labelled and read when it is looked at; the options are then
            those of `berg.encoding.stream.encode_to_store`. With ``scheduler="slurm:8"`` or ``"local:2"`` besides,
            and a model id, other processes do it; see `berg.encoding.cluster.encode_on_cluster`.

        Returns
        -------
        responses
            A float32 array, first axis: the stimuli; a tuple of arrays, in the order of the card, for a
            model with several outputs. Labelled: a Dataset, or a DataTree for several outputs. With
            `return_metadata`, always the two values (responses, metadata).
        """
        if kwargs.get("scheduler") is not None:
            return _encode_on_cluster(model, stimulus, self.berg_dir, return_metadata, **kwargs)
        if isinstance(model, str):
            parameters, options = _split(model, kwargs)
            device, selection = parameters.pop("device", "auto"), parameters.pop("selection", None)
            with self._load(model, device, selection, parameters) as loaded:  # which downloads nothing
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
        responses = _labelled_if(labelled, one.generate_response(stimulus, **kwargs), one, stimulus)
        return (responses, one.get_metadata()) if return_metadata else responses

    def convert(self, model_id: str, selection: Selection | None = None, **parameters: Any) -> list[Path]:
        """Write the weights of a published model once more, in a form that loads faster; see ``berg convert``.

        The new files lie beside the published ones, which stay; loading prefers them.

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
            The zip file; by default the model id, in the current folder.
        force
            Pack a model that fails its checks, or files that differ from their manifest.
        show_progress
            None: a bar where standard error is a terminal.
        **parameters
            What the model is checked with, such as ``subject=2``; by default the examples in its card.

        Raises
        ------
        ModelCheckError
            With the checks that fail.
        InvalidParameterError, MissingFileError, CorruptedFileError, StorageError
        """
        card, room = model_registry.get_card(model_id), import_module("berg.weights.pack")
        target = Path(f"{model_id}.zip" if out is None else out)
        room.check_out(target)
        if not force:
            _check_sound(model_id, self.berg_dir, parameters)
        packed: Packed = room.pack(card, Path(self.berg_dir), target, force=force, show_progress=show_progress)
        return packed

    def unpack(self, path: str | Path, *, overwrite: bool = False, show_progress: bool | None = None) -> Unpacked:
        """Put the models of a zip file into the BERG directory, verified, all or nothing; see ``berg unpack``.

        Parameters
        ----------
        path
            Written by `pack`, or by hand after the guide.
        overwrite
            Replace files that differ.
        show_progress
            None: a bar where standard error is a terminal.

        Raises
        ------
        MissingFileError, CorruptedFileError, StorageError
        """
        room = import_module("berg.weights.unpack")
        place, options = Path(self.berg_dir), {"overwrite": overwrite, "show_progress": show_progress}
        unpacked: Unpacked = room.unpack(Path(path), place, **options)
        return unpacked

    def files_of(
        self, model_id: str, selection: Selection | None = None, *, everything: bool = False, **parameters: Any
    ) -> list[str]:
        """The files that a model needs, in their published form: paths in the model's folder, with slashes.

        Parameters
        ----------
        everything
            Of all subjects and selections that are not given.
        """
        model_class: Any = model_registry.get_model_class(model_id)
        if not hasattr(model_class, "file_names"):
            raise InvalidParameterError(f"{model_id} is a class of its own, whose files its card does not name.")
        file_values = import_module("berg.weights.needed_files").file_values
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
    ) -> list[Item]:
        """The files that `download` would get, with their sizes; fetches none.

        Parameters
        ----------
        ask
            Ask the source for sizes that are not known.
        """
        room = import_module("berg.weights.download")
        model_class: Any = model_registry.get_model_class(model_id)
        names = self.files_of(model_id, selection, everything=everything, **parameters)
        networks = settings.network_source()
        items: list[Item] = room.plan(
            model_class.card,
            names,
            model_class.network_files(),
            Path(self.berg_dir),
            settings.source(source).value,
            networks.value if networks else None,
        )
        return room.with_sizes(items) if ask else items

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

        Every file is hashed. What is pinned in the package, or was recorded when it first came, must come.

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
            None: bars where standard error is a terminal.

        Raises
        ------
        DownloadError, CorruptedFileError, StorageError, InvalidParameterError
        """
        items = self.plan_download(model_id, selection, everything=everything, source=source, ask=False, **parameters)
        fetched: list[Fetched] = import_module("berg.weights.download").receive(
            items, parallel=parallel, progress=show_progress
        )
        return fetched

    def get_model_metadata(self, model_id: str, **parameters: Any) -> dict[str, Any]:
        """The metadata of a model (ROIs, coordinates, accuracy), without loading its weights."""
        get_metadata = model_registry.get_model_class(model_id).get_metadata
        if inspect.isfunction(get_metadata):  # a class that wants an instance of itself
            raise InvalidParameterError(
                f"{model_id} tells its metadata only when it is loaded: "
                "berg.get_encoding_model(...).get_metadata(), or encode(..., return_metadata=True)."
            )
        takes_place = "berg_dir" in _named(get_metadata) or _takes_any(get_metadata)
        return get_metadata(**({"berg_dir": self.berg_dir} if takes_place else {}), **parameters)

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
            Where neither table nor metadata are here, or say nothing of accuracy.

        Examples
        --------
        >>> accuracy = BERG().accuracy("fmri-szinte2024-prf_css", {"min_held_out_r2": 0.5}, subject=1)
        >>> round(float(accuracy["held_out_r"].median()), 1)
        0.8
        """
        room = import_module("berg.evaluation.known_accuracy")
        found: xr.Dataset | xr.DataTree = room.known_accuracy(model_id, self.berg_dir, selection, parameters)
        return found

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
    ) -> list[FoundModel]:
        """Models that fit a question, one row per subject, the most accurate first.

        Parameters
        ----------
        species, modality, dataset, stimuli
            Part of what the card says, in capitals or not.
        roi
            A region of interest that the model has; figures are then of its units.
        subject
            Only this one.
        min_r
            Only models of which at least one unit has a correlation of so much.

        Returns
        -------
        rows
            With the number of units, their median r, and how many have at least `min_r`. Models whose accuracy is not
            known, as their files are not here, come last and say why (``unknown``).

        Examples
        --------
        >>> BERG().find_models(stimuli="sounds")[0].model_id
        'ephys-rokem2006-ln_renewal'
        """
        filters = {"species": species, "modality": modality, "training_dataset": dataset, "stimuli": stimuli}
        room = import_module("berg.evaluation.find_models")
        found: list[FoundModel] = room.find_models(self.berg_dir, filters, roi, subject, min_r)
        return found


def _check_sound(model_id: str, berg_dir: str | None, parameters: dict[str, Any]) -> None:
    """Raise ModelCheckError where a model fails a check, and say how it is packed nevertheless."""
    check_model = import_module("berg.testing").check_model
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
    """The responses of several models, in one pass where all of them know how."""
    together = [getattr(model, "generate_together", None) for model in models]
    if models and all(together):
        found = together[0](models, stimulus, **options)  # type: ignore[misc]
    else:
        found = [model.generate_response(stimulus, **options) for model in models]
    responses = [_labelled_if(labelled, each, model, stimulus) for each, model in zip(found, models, strict=True)]
    return (responses, [model.get_metadata() for model in models]) if return_metadata else responses


def _labelled_if(labelled: bool, responses: Any, model: Any, stimulus: Any) -> Any:
    """The responses, with labels where they are asked for; the names of the stimuli are those of their files."""
    if not labelled:
        return responses
    if not hasattr(model, "labels"):
        raise InvalidParameterError(
            f"{model.get_model_id()} is a class of its own, whose card says nothing of axes; leave out labelled=True."
        )
    identity = import_module("berg.encoding.store_identity")
    first = responses[0] if isinstance(responses, tuple) else responses
    files = identity.stimulus_files(stimulus, model.expected_input)
    names = identity.stimulus_labels(None, files, len(first), stimulus)
    return import_module("berg.responses.labelled").label_responses(
        responses, identity.labelling_metadata(model), names
    )


def _is_store(out: Any) -> bool:
    return isinstance(out, (str, Path)) and Path(out).suffix == ".zarr"


def _encode_to_store(models: Any, stimulus: Any, return_metadata: bool, *, out: Any, **options: Any) -> Any:
    responses = import_module("berg.encoding.stream").encode_to_store(models, stimulus, out, **options)
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
    room = import_module("berg.encoding.cluster")
    options = {name: given.pop(name) for name in _named(room.encode_on_cluster) if name in given}
    device, selection = given.pop("device", "auto"), given.pop("selection", None)
    recipe = room.ModelRecipe(model_id, device, selection, given, Path(berg_dir).absolute())
    return room.encode_on_cluster(recipe, stimulus, out, **options)


def _split(model_id: str, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the model takes when it is made, and what its `generate_response` takes."""
    model_class = model_registry.get_model_class(model_id)
    taken = {"device", "selection", *_named(model_class)}
    if model_registry.get_registered(model_id)["yaml_path"] is not None:
        taken |= set(model_class.get_supported_parameters())
    options = set(kwargs) & set(_named(model_class.generate_response)) - taken
    unnamed = set(kwargs) - taken - options
    if _takes_any(model_class.generate_response):
        options |= unnamed
    return (
        {name: value for name, value in kwargs.items() if name not in options},
        {name: value for name, value in kwargs.items() if name in options},
    )


def constructor_options(model_class: type[BaseModelInterface], options: dict[str, Any]) -> dict[str, Any]:
    """Those of the common options that the class takes; classes written by hand may leave some out."""
    named, takes_any = _named(model_class), _takes_any(model_class)
    if options["selection"] is not None and "selection" not in named and not takes_any:
        raise InvalidParameterError(f"{model_class.get_model_id()} takes no selection; leave it out.")
    return {name: value for name, value in options.items() if name in named or (takes_any and value is not None)}


def loading_options(load_model: Any, options: dict[str, Any], model_class: type[BaseModelInterface]) -> dict[str, Any]:
    """Those options that `load_model` cannot do without, or that the class did not take when it was made."""
    asked = inspect.signature(load_model).parameters
    needed = {name for name in options if name in asked and asked[name].default is inspect.Parameter.empty}
    left = {name for name in options if name in asked and not (name in _named(model_class) or _takes_any(model_class))}
    return {name: options[name] for name in needed | left}


def _named(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def _takes_any(function: Any) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
