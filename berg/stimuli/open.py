"""Stimuli of any size, read batch by batch."""

from __future__ import annotations

from typing import Any

from berg.core.card_schema import StimulusInput
from berg.stimuli.readers import Stimuli, reader_of


def open_stimuli(
    stimulus: Any, expected: StimulusInput, sampling_rate: Any = None, *, check_files: bool = True
) -> Stimuli:
    """Stimuli from whatever the user has.

    Parameters
    ----------
    stimulus
        An array; a memory map, a dataset of h5py or zarr, or anything else with ``shape`` and slices (such as
        `berg.load_video`), which is read batch by batch; a folder, or a list of files (pictures, sounds, videos) or
        PIL images, likewise. A model of videos takes one of `berg.load_video` as one stimulus, or a list of them.
    expected
        The ``input`` of the card; its kind says which of `berg.stimuli.readers.READERS` opens the stimuli.
    sampling_rate
        Of sounds in arrays, hertz. They are resampled to that of the card.
    check_files
        Refuse links to files that are not there at once; else they are damaged stimuli when they are read.

    Raises
    ------
    StimulusError
        If the kind is not read yet. At once for what the shape and dtype tell; for values, an array at once,
        everything else with the batch that holds them.
    MissingFileError
        For a file or folder that is not there, a link to such a file, or a folder without pictures (sounds).
    InvalidParameterError
        For a sampling rate that is missing, that no sound has, or that belongs to no sound.
    """
    return reader_of(expected.kind).open(stimulus, expected, sampling_rate, check_files)
