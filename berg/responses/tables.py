"""Responses with their labels as tables, NumPy archives and MATLAB files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, listing
from berg.core.stacklevel import users_stacklevel
from berg.responses.formats import export_extra
from berg.responses.labelled import Labelled, Responses, as_labelled, attributes_of, outputs_of
from berg.system.memory import size_words

if TYPE_CHECKING:
    import pandas as pd

Layout = Literal["long", "wide"]


def to_dataframe(
    responses: Responses | Labelled,
    metadata: Mapping[str, Any] | None = None,
    stimuli: Sequence[str] | None = None,
    *,
    layout: Layout = "long",
) -> pd.DataFrame:
    """Responses as a table, with the labels of the stimuli and of the units as columns.

    Parameters
    ----------
    responses, metadata
        What ``berg.encode(..., return_metadata=True)`` returned, or labelled responses alone.
    stimuli
        One name per stimulus.
    layout
        ``long``: one row per stimulus and unit, the response in column ``response``.
        ``wide``: one row per unit, the responses in one column per stimulus, which has its name.

    Returns
    -------
    table
        Columns of labels: ``output`` (if the model has several), ``stimulus`` (long), the axes and the coordinates
        of the units (``voxel``, ``roi``, ``channel``, ``time`` in seconds, ...). Rows are in the order of the arrays.
        A long table of a whole cortex has 327,684 rows per stimulus.

    Raises
    ------
    InvalidParameterError
        For another layout.

    Examples
    --------
    >>> import numpy as np
    >>> from berg import BERG
    >>> pictures = np.zeros((2, 3, 32, 32), dtype="uint8")
    >>> responses, metadata = BERG().encode("fmri-szinte2024-prf_css", pictures, return_metadata=True)
    >>> list(to_dataframe(responses, metadata, ["a.png", "b.png"]).columns)[:3]
    ['stimulus', 'voxel', 'roi']
    """
    with export_extra():
        import pandas as pd
    if layout not in ("long", "wide"):
        raise InvalidParameterError(f"layout is '{layout}'. Allowed: long, wide.")
    arrays = outputs_of(as_labelled(responses, metadata, stimuli))
    make = _long if layout == "long" else _wide
    tables = {name: make(array) for name, array in arrays.items()}
    if len(tables) == 1:
        return next(iter(tables.values()))
    return pd.concat(tables, names=["output"]).reset_index("output").reset_index(drop=True)


class FormulaWarning(UserWarning):
    """Texts of a table that programs for spreadsheets take for formulas."""


def save_csv(labelled: Labelled, path: Path) -> None:
    """Write what `to_dataframe` gives, in its long layout, each text as it is, in UTF-8.

    pandas, R and MATLAB read back exactly the names that were given. Programs for spreadsheets run a text that begins
    with ``= + - @`` as a formula, also in quotes, so that a file from others could do harm there; give them
    ``for_spreadsheet(table).to_csv(...)``.

    Warns
    -----
    FormulaWarning
        If there are such texts, with the first of them.
    """
    table = to_dataframe(labelled)
    if found := _formulas(table):
        warnings.warn(
            f"{path} holds {len(found):,} names that a spreadsheet would run as formulas ({listing(found, 3)}). "
            "pandas, R and MATLAB read them as they are. To open the file in a spreadsheet, write "
            "berg.responses.tables.for_spreadsheet(table), which puts an apostrophe before them.",
            FormulaWarning,
            stacklevel=users_stacklevel(),
        )
    table.to_csv(path, index=False)


def for_spreadsheet(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before each text that a program for spreadsheets would run as a formula.

    Those begin with ``= + - @``, also after spaces, tabs or line ends. Names of columns count too.

    >>> import pandas as pd
    >>> for_spreadsheet(pd.DataFrame({"stimulus": ["=1+1", "a.png"], "response": [-1.0, 2.0]}))["stimulus"].tolist()
    ["'=1+1", 'a.png']
    """
    texts = [name for name in table if not _is_numeric(table[name])]
    guarded = table.assign(**{str(name): table[name].map(_guarded) for name in texts})
    return guarded.rename(columns=_guarded)


def _formulas(table: pd.DataFrame) -> list[str]:
    texts = (table[name].unique() for name in table if not _is_numeric(table[name]))
    return [text for own in (list(table), *texts) for text in own if _guarded(text) != text]


def _is_numeric(column: Any) -> bool:
    return column.dtype.kind in "biufc"


def _guarded(text: Any) -> Any:
    return f"'{text}" if isinstance(text, str) and text.lstrip()[:1] in tuple("=+-@") else text


def _long(array: xr.DataArray) -> pd.DataFrame:
    inside = [name for name in array.xindexes if name not in array.dims]  # xarray would leave these columns out
    table = array.drop_indexes(inside).to_dataframe("response", dim_order=list(array.dims)).reset_index()
    return table[[*(name for name in table if name != "response"), "response"]]


def _wide(array: xr.DataArray) -> pd.DataFrame:
    import pandas as pd

    units = _long(array.isel(stimulus=[0])).drop(columns=["stimulus", "response"])
    names = [str(name) for name in array["stimulus"].values]
    columns = pd.DataFrame(array.values.reshape(len(names), -1).T, columns=names)
    return pd.concat([units, columns], axis=1)


def to_arrays(
    responses: Responses | Labelled, metadata: Mapping[str, Any] | None = None, stimuli: Sequence[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Responses and their labels as plain arrays, as a ``.npz`` file holds them.

    Parameters
    ----------
    responses, metadata
        What ``berg.encode(..., return_metadata=True)`` returned, or labelled responses alone.
    stimuli
        One name per stimulus.

    Returns
    -------
    arrays
        Each output under its name; its labels under ``<output>.axes``, ``<output>.units``, ``<output>.stimulus``,
        ``<output>.voxel`` and so on; what is known of the model under ``model.model_id``, ``model.subject``, ...
        Texts are arrays of texts, so that ``np.load`` needs no pickles.
    """
    labelled = as_labelled(responses, metadata, stimuli)
    found: dict[str, NDArray[Any]] = {}
    for name, array in outputs_of(labelled).items():
        found[name] = array.values
        found |= {f"{name}.{key}": _plain(value) for key, value in _labels(array).items()}
    return found | {f"model.{key}": _plain(value) for key, value in attributes_of(labelled).items()}


def to_matlab(
    responses: Responses | Labelled, metadata: Mapping[str, Any] | None = None, stimuli: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Responses and their labels as `scipy.io.savemat` takes them.

    Parameters
    ----------
    responses, metadata
        What ``berg.encode(..., return_metadata=True)`` returned, or labelled responses alone.
    stimuli
        One name per stimulus.

    Returns
    -------
    structs
        One per output with the fields ``values``, ``axes``, ``units``, ``stimulus`` and the other labels, and one
        called ``model``. Lists of texts become cell arrays. Vertices, voxels and other indices count from 0, as
        everywhere in BERG: add 1 to use them in MATLAB.
    """
    labelled = as_labelled(responses, metadata, stimuli)
    outputs = outputs_of(labelled)
    model, *names = _fields(["model", *outputs])
    structs = {
        name: _struct({"values": array.values, **_labels(array)})
        for name, array in zip(names, outputs.values(), strict=True)
    }
    return {**structs, model: _struct(attributes_of(labelled))}


def _struct(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(_fields(values), map(_cells, values.values()), strict=True))


def save_matlab(labelled: Labelled, path: Path) -> None:
    """Write what `to_matlab` gives, in MATLAB's version 5 (each array smaller than 2.1 GB)."""
    from scipy.io import savemat
    from scipy.io.matlab import MatWriteError

    try:
        savemat(path, to_matlab(labelled), do_compression=True, long_field_names=True, oned_as="column")
    except MatWriteError as error:
        path.unlink(missing_ok=True)
        raise InvalidParameterError(
            f"The responses are too large for a .mat file ({error}). Use .nc, which MATLAB reads with ncread."
        ) from error


def check_size(labelled: Labelled) -> None:
    """Raise InvalidParameterError if an array is too large for MATLAB's version 5."""
    for name, array in outputs_of(labelled).items():
        if array.nbytes >= 2**31:
            raise InvalidParameterError(
                f"'{name}' has {size_words(array.nbytes)}, and an array in a .mat file at most 2.1 GB. Use .nc, which "
                "MATLAB reads with ncread."
            )


def _labels(array: xr.DataArray) -> dict[str, Any]:
    coordinates = {str(name): values.values for name, values in array.coords.items()}
    return {"axes": list(array.dims), **array.attrs, **coordinates}


def _plain(value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    return array.astype(str) if array.dtype.kind in "OT" else array


def _cells(value: Any) -> Any:
    array = np.asarray(value)
    return array.astype(str).astype(object) if array.dtype.kind in "OTU" and array.ndim else value


def _fields(names: Iterable[str]) -> list[str]:
    """Names that MATLAB takes for fields, of at most 63 characters; those that would be the same get a number.

    >>> _fields(["roi", "a-b", "a b", "1st"])
    ['roi', 'a_b', 'a_b_2', 'x1st']
    """
    found: list[str] = []
    for name in names:
        field = re.sub(r"^(?=[^A-Za-z])", "x", re.sub(r"\W", "_", name, flags=re.ASCII))[:63]
        numbered = (f"{field[:58]}_{number}" for number in count(2))
        found.append(field if field not in found else next(own for own in numbered if own not in found))
    return found
