"""Responses of EEG, MEG and ECoG channels as objects of MNE-Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from berg.core.exceptions import InvalidParameterError, listing
from berg.responses.formats import CHANNEL_TYPES, check_fits, export_extra, stimulus_names
from berg.responses.labelled import Labelled, Responses, as_labelled, attributes_of, outputs_of
from berg.responses.signal_units import signal_unit

if TYPE_CHECKING:
    import mne

# What MNE calls the channels of a modality in this unit.
_TYPES = {("eeg", "V"): "eeg", ("meg", "T"): "mag", ("meg", "T/m"): "grad", ("ecog", "V"): "ecog"}
_MNI = ("mni_x", "mni_y", "mni_z")
_INSTEAD = "save as .nc or .csv, which hold any times"
_INSTEAD_OF_NAMES = "save as .nc or .zarr, which hold any names"


def to_mne_epochs(
    responses: Responses | Labelled, metadata: Mapping[str, Any] | None = None, stimuli: Sequence[str] | None = None
) -> mne.EpochsArray:
    """Responses of channels as epochs, one per stimulus and repetition.

    Values in volts (EEG), tesla (MEG) or tesla per metre (gradiometers) if the card states a physical unit, in any
    of its usual spellings. A model without one, such as the published EEG and MEG models, keeps its numbers: nothing
    is scaled, the channels have no unit (``FIFF_UNIT_NONE``; those of MEG, where MNE cannot do without, tesla), and
    ``info["description"]`` says what the numbers are. MNE's plots take EEG for volts all the same; give them
    ``scalings={"eeg": 1}, units={"eeg": "z"}``.

    Parameters
    ----------
    responses, metadata
        What ``berg.encode(..., return_metadata=True)`` returned, or labelled responses alone. Channels may be
        selected freely, time points without gaps.
    stimuli
        One name per stimulus.

    Returns
    -------
    epochs
        Shape (n_stimuli * n_repetitions, n_channels, n_times), the repetitions of one stimulus side by side. Event
        names are the stimuli; ``epochs.metadata`` has the columns stimulus and repetition. EEG channels that the
        10-20 system knows have its positions; MEG sensors of CTF's helmet with 275 have those of MNE's canonical
        one; electrodes of ECoG have their MNI coordinates, brought to the frame of the head. No baseline is subtracted.

    Raises
    ------
    InvalidParameterError
        If the responses are not of EEG, MEG or ECoG channels, or the time points have gaps.
    MissingExtraError
        Without MNE or pandas.

    Examples
    --------
    >>> from berg import BERG
    >>> berg = BERG("/data/brain-encoding-response-generator")
    >>> model = berg.get_encoding_model("eeg-things_eeg_2-vit_b_32", subject=1)  # doctest: +SKIP
    >>> epochs = to_mne_epochs(*berg.encode(model, "pictures", return_metadata=True))  # doctest: +SKIP
    >>> epochs.save("responses-epo.fif")  # doctest: +SKIP
    """
    with export_extra():
        import mne
        import pandas as pd
    labelled = as_labelled(responses, metadata, stimuli)
    check_fits(labelled, "-epo.fif")
    array, names = _with_repetitions(labelled), stimulus_names(labelled)
    n_epochs = len(names) * array.sizes["repetition"]
    event_id = {name: number for number, name in enumerate(dict.fromkeys(names), start=1)}
    table = pd.DataFrame(
        {
            "stimulus": np.repeat(names, array.sizes["repetition"]),
            "repetition": np.tile(array["repetition"].values, len(names)),
        }
    )
    samples = np.arange(n_epochs) * array.sizes["time"]  # one epoch after another
    events = np.column_stack([samples, np.zeros_like(samples), table["stimulus"].map(event_id)])
    info, scale = _info_and_scale(labelled)
    values = scale * array.values.reshape(n_epochs, *array.shape[2:]).astype(np.float64)
    return mne.EpochsArray(
        values, info, events, float(array["time"][0]), event_id, metadata=table, baseline=None, verbose="warning"
    )


def to_mne_evoked(
    responses: Responses | Labelled, metadata: Mapping[str, Any] | None = None, stimuli: Sequence[str] | None = None
) -> list[mne.EvokedArray]:
    """Responses of channels averaged over repetitions, one evoked response per stimulus.

    Units, channels and times are as in `to_mne_epochs`.

    Parameters
    ----------
    responses, metadata, stimuli
        As in `to_mne_epochs`.

    Returns
    -------
    evoked
        One per stimulus, in their order, shape (n_channels, n_times). ``comment`` is the name of the stimulus,
        ``nave`` the number of repetitions.

    Raises
    ------
    InvalidParameterError, MissingExtraError
        As `to_mne_epochs`.

    Examples
    --------
    >>> from berg import BERG
    >>> berg = BERG("/data/brain-encoding-response-generator")
    >>> model = berg.get_encoding_model("eeg-things_eeg_2-vit_b_32", subject=1)  # doctest: +SKIP
    >>> to_mne_evoked(*berg.encode(model, "pictures", return_metadata=True))[0].plot_topomap()  # doctest: +SKIP
    """
    with export_extra():
        import mne
    labelled = as_labelled(responses, metadata, stimuli)
    check_fits(labelled, "-ave.fif")
    array = _with_repetitions(labelled)
    info, scale = _info_and_scale(labelled)
    means = scale * array.values.mean(axis=1, dtype=np.float64)
    start, nave = float(array["time"][0]), array.sizes["repetition"]
    return [
        mne.EvokedArray(mean, info, start, comment=name, nave=nave, verbose="warning")
        for mean, name in zip(means, stimulus_names(labelled), strict=True)
    ]


def check_times(labelled: Labelled) -> None:
    """Raise InvalidParameterError if MNE cannot hold these times."""
    for array in outputs_of(labelled).values():
        _sampling_rate(array)


def check_epochs_file(labelled: Labelled) -> None:
    """Raise InvalidParameterError if a file of epochs cannot hold these times, unit, channels and names of stimuli."""
    check_sensors(labelled)
    _check_channel_names(labelled)
    _check_stimulus_names(labelled, [name for name in stimulus_names(labelled) if ";" in name or not _is_latin(name)])


def check_evoked_file(labelled: Labelled) -> None:
    """Raise InvalidParameterError if a file of evoked responses cannot hold these times, unit, channels and names."""
    check_sensors(labelled)
    _check_channel_names(labelled)
    _check_stimulus_names(labelled, [name for name in stimulus_names(labelled) if not name or not _is_latin(name)])


def _check_stimulus_names(labelled: Labelled, wrong: list[str]) -> None:
    if wrong:
        raise InvalidParameterError(
            f"Files of MNE cannot hold the names of {len(wrong):,} stimuli ({listing(map(repr, wrong), 3)}): they have "
            "Latin letters (ISO 8859-1), no semicolon in names of events, and are not empty. Name the stimuli in "
            f"another way (stimulus_names), or {_INSTEAD_OF_NAMES}."
        )


def _check_channel_names(labelled: Labelled) -> None:
    for array in outputs_of(labelled).values():
        wrong = [name for name in map(str, array["channel"].values) if not name.isascii() or "\0" in name]
        if wrong:
            raise InvalidParameterError(
                f"Files of MNE cannot hold the names of {len(wrong):,} channels ({listing(map(repr, wrong), 3)}), "
                f"which have other letters than ASCII. Select others, or {_INSTEAD_OF_NAMES}."
            )


def _is_latin(name: str) -> bool:
    return all(letter <= "\xff" for letter in name)


def _with_repetitions(labelled: Labelled) -> xr.DataArray:
    (array,) = outputs_of(labelled).values()
    if "repetition" not in array.dims:
        array = array.expand_dims(repetition=[0])
    return array.transpose("stimulus", "repetition", "channel", "time")


def _info_and_scale(labelled: Labelled) -> tuple[mne.Info, float]:
    """MNE's description of the channels, and the factor to its unit."""
    import mne

    (array,) = outputs_of(labelled).values()
    attributes, unit = attributes_of(labelled), str(array.units)
    modality = str(attributes["model_id"]).split("-")[0]
    names = [str(name) for name in array["channel"].values]
    kind, scale = _type_and_scale(modality, unit)
    info = mne.create_info(names, _sampling_rate(array), kind, verbose="warning")
    if modality == "eeg":
        info.set_montage("colin27_1020", on_missing="ignore", verbose="warning")
    if modality == "meg":
        _place_ctf_sensors(info)
    if modality == "ecog":
        _place_electrodes(info, array)
    if scale is None and modality != "meg":  # MNE tells magnetometers from gradiometers by their unit
        for channel in info["chs"]:
            channel["unit"] = mne.io.constants.FIFF.FIFF_UNIT_NONE
    numbers = f"numbers are in {'SI units' if scale else f'{unit}, not in volts or tesla'}"
    info["description"] = f"{attributes['model_id']}, subject {attributes.get('subject', '')}: in silico; {numbers}."
    return info, scale or 1.0


def _place_ctf_sensors(info: mne.Info) -> None:
    """Place and coil of each sensor, if all of them are of CTF's helmet with 275 sensors.

    They are told by their names without the number of the system: MLC11 of MLC11-1609. The places are those of MNE's
    canonical helmet, in the frame of the device; where a head was in it, nobody can say.
    """
    import mne

    canonical = mne.channels.read_meg_canonical_info("ctf275", verbose="warning")
    known = {str(channel["ch_name"]).partition("-")[0]: channel for channel in canonical["chs"]}
    names = [str(channel["ch_name"]).partition("-")[0] for channel in info["chs"]]
    if not all(name in known for name in names):
        return
    for channel, name in zip(info["chs"], names, strict=True):
        for key in ("loc", "coil_type", "coord_frame"):
            channel[key] = deepcopy(known[name][key])


def _place_electrodes(info: mne.Info, array: xr.DataArray) -> None:
    """Places of electrodes in MNI's space, if they are known; those without one stay without.

    MNE counts in metres; coordinates of which one is larger than 1 are millimetres. As MNE does with electrodes in a
    space of its own, they are brought to the frame of the head by the fiducials of that brain.
    """
    import mne

    if not all(name in array.coords for name in _MNI):
        return
    places = np.stack([array[name].values.astype(float) for name in _MNI], axis=1)
    if not np.isfinite(places).any():
        return
    metres = places / (1000 if np.nanmax(np.abs(places)) > 1 else 1)
    montage = mne.channels.make_dig_montage(dict(zip(info["ch_names"], metres, strict=True)), coord_frame="mni_tal")
    montage.add_mni_fiducials()
    info.set_montage(montage, verbose="error")


def _type_and_scale(modality: str, unit: str) -> tuple[str, float | None]:
    """MNE's type of the channels, and the factor to MNE's unit; None of numbers without a physical unit."""
    found = signal_unit(unit)
    if found is None:
        return CHANNEL_TYPES[modality], None
    if (modality, found.quantity) not in _TYPES:
        raise InvalidParameterError(f"{modality.upper()} is not measured in {unit}. Correct the unit in the card.")
    return _TYPES[modality, found.quantity], found.factor


def check_sensors(labelled: Labelled) -> None:
    """Raise InvalidParameterError if MNE cannot hold these times, or the unit is not known."""
    check_times(labelled)
    for array in outputs_of(labelled).values():
        _type_and_scale(str(attributes_of(labelled)["model_id"]).split("-")[0], str(array.units))


def _sampling_rate(array: xr.DataArray) -> float:
    """Time points per second, in hertz."""
    times = array["time"].values
    step = array.attrs.get("time_step", times[1] - times[0] if len(times) > 1 else None)
    if step is None:
        raise InvalidParameterError(f"One time point does not tell the sampling rate that MNE needs; {_INSTEAD}.")
    if not np.allclose(np.diff(times), step, rtol=0, atol=0.01 * step):
        raise InvalidParameterError(
            f"The time points have gaps: MNE needs one every {step:g} s from the first to the last. Select a window "
            f"without gaps (time=[0.1, 0.2]), or {_INSTEAD}."
        )
    if abs(times[0] / step - round(times[0] / step)) > 0.01:  # MNE would shift them all
        raise InvalidParameterError(
            f"MNE counts time from 0 in steps of {step:g} s, which miss {times[0]:g} s; {_INSTEAD}."
        )
    return float(round(1 / step, 3))
