"""Where EEG and MEG sensors lie on the head, from MNE's files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, MissingExtraError, listing

MONTAGE = "spherical_1005"  # the 10-05 system on a sphere (10-20 and 10-10 are parts of it): Cz is the top
MEG_LAYOUTS = ("Vectorview-all", "CTF-275", "KIT-157", "KIT-160", "KIT-125", "KIT-AD", "KIT-UMD-3", "magnesWH3600")
_OLD_NAMES = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}  # of the 10-20 system
FEWEST = 4  # sensors: fewer make no map
HEAD = 1.0  # the radius of the head in a map
_SAME = 1e-6

Positions = Mapping[str, Sequence[float]]
Places = dict[str, NDArray[np.float64]]


def places_on_head(modality: str, names: Sequence[str], positions: Positions | None = None) -> Places:
    """Where sensors lie in a map of the head seen from above, nose up, as far as they are known.

    Electrodes are projected so that their distance from the middle is their angle from the top of the head; the circle
    of the head, of radius 1, is at 90 degrees. Of MEG, MNE's layout of the system is scaled to that circle.

    Parameters
    ----------
    modality
        ``"eeg"`` or ``"meg"``.
    names
        Channels; those of EEG in the 10-05 system (capital letters do not matter).
    positions
        Name -> position in metres, (x to the right, y to the front, z up), with the origin in the middle of the head.

    Returns
    -------
    places
        Name -> (to the right, up); without the channels that nobody knows.

    Raises
    ------
    MissingExtraError
        Without MNE.
    """
    if positions is not None:
        return {name: _project(np.asarray(positions[name], float)) for name in names if name in positions}
    return _meg_places(tuple(names)) if modality == "meg" else _eeg_places(tuple(names))


def check_known(places: Places, names: Sequence[str]) -> None:
    """Raise InvalidParameterError if too few sensors have a place for a map, or two have the same."""
    unknown = [name for name in names if name not in places]
    if len(places) < FEWEST:
        raise InvalidParameterError(
            f"A map takes {FEWEST} sensors whose place on the head is known; of these it is of {len(places)}. Unknown: "
            f"{listing(unknown)}. Give theirs, positions={{name: (x, y, z), ...}} in metres, or draw time alone:  "
            "berg.plotting.time_course(labelled)"
        )
    points = np.stack(list(places.values()))
    close = np.linalg.norm(points[:, None] - points, axis=2) + np.eye(len(points)) < _SAME
    if close.any():
        first, second = np.argwhere(close)[0]
        known = list(places)
        raise InvalidParameterError(
            f"{known[first]} and {known[second]} lie at one place. Select one of them, or give positions=..."
        )


def _project(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """The azimuthal equidistant projection: angle from the top in right angles, in the direction of x and y."""
    across = np.hypot(position[0], position[1])
    angle = np.arctan2(across, position[2]) / (np.pi / 2)
    direction: NDArray[np.float64] = position[:2] / across if across else np.zeros(2)
    return np.asarray(HEAD * angle * direction)


@cache
def _eeg_places(names: tuple[str, ...]) -> Places:
    mne = _mne()
    montage = mne.channels.make_standard_montage(MONTAGE)
    known = {name.casefold(): name for name in montage.ch_names}
    known |= {old: known[new] for old, new in _OLD_NAMES.items() if old not in known}
    asked = {name: known[name.casefold()] for name in names if name.casefold() in known}
    if not asked:
        return {}
    info = mne.create_info(list(dict.fromkeys(asked.values())), 1.0, "eeg", verbose="error")
    info.set_montage(montage, verbose="error")  # turns the positions so that ears and nose define the axes
    found = {channel["ch_name"]: _project(channel["loc"][:3].astype(float)) for channel in info["chs"]}
    return {name: found[own] for name, own in asked.items()}


@cache
def _meg_places(names: tuple[str, ...]) -> Places:
    """The places in the layout that knows the most of the sensors."""
    bare = {name: _bare(name) for name in names}
    layouts = (_meg_layout(name) for name in MEG_LAYOUTS)
    layout = max(layouts, key=lambda known: sum(own in known for own in bare.values()))
    return {name: layout[own] for name, own in bare.items() if own in layout}


def _bare(name: str) -> str:
    """The name of a sensor without spaces and serial number: MLO11 of MLO11-1609."""
    return re.sub(r"-\d+$", "", name).replace(" ", "").upper()


@cache
def _meg_layout(name: str) -> Places:
    layout = _mne().channels.read_layout(name)
    boxes = layout.pos
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    middle = (centres.min(axis=0) + centres.max(axis=0)) / 2
    centres = (centres - middle) / np.linalg.norm(centres - middle, axis=1).max()
    return {_bare(sensor): 0.95 * HEAD * place for sensor, place in zip(layout.names, centres, strict=True)}


def _mne() -> Any:
    if find_spec("mne") is None:
        raise MissingExtraError(
            "The places of sensors are in the files of MNE-Python, which is not installed. "
            'Type:  pip install "berg[plot]"'
        )
    import mne

    return mne
