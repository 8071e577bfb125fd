"""The figure that the labels of responses ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from berg.core.exceptions import InvalidParameterError, did_you_mean
from berg.plotting.bars import bar_facts, bars_height, draw_bars, roi_bars
from berg.plotting.cortex import flatmap, surface
from berg.plotting.page import Sheet, new_sheet, styled
from berg.plotting.rates import rate
from berg.plotting.receptive_fields import has_receptive_fields, visual_field
from berg.plotting.region_means import has_regions, region_means
from berg.plotting.scalp import topomap
from berg.plotting.sensors import FEWEST, places_on_head
from berg.plotting.shown import AVERAGED, Stimuli, show
from berg.plotting.slices import SLICE_NOTE, cut, draw_slices, has_volume, volume
from berg.plotting.time_courses import joint, time_course
from berg.plotting.vertices import is_on_surface
from berg.responses.hemispheres import is_cortex
from berg.responses.labelled import Labelled, attributes_of, outputs_of

FIGURES: dict[str, Callable[..., Sheet]] = {
    "surface": surface,
    "flatmap": flatmap,
    "joint": joint,
    "topomap": topomap,
    "time_course": time_course,
    "visual_field": visual_field,
    "volume": volume,
    "roi_bars": roi_bars,
    "rate": rate,
}
"""The figures by name."""

VOLUME_AND_BARS = "volume_and_bars"
_SENSORS = ("eeg", "meg")


def draw(
    labelled: Labelled,
    stimulus: Stimuli = None,
    minus: Stimuli = None,
    *,
    figure: str | None = None,
    **options: Any,
) -> Sheet:
    """The figure that the labels ask for.

    ==============================  ====================================================================================
    labels                          figure
    ==============================  ====================================================================================
    vertices                        `surface`: both hemispheres, inflated from three sides, and flat; of cortical
                                    grayordinates with their mesh
    voxels with x_deg, y_deg        `visual_field`
    voxels with i, j, k, an affine  `volume`: slices with the regions outlined, and bars of the regions
    EEG or MEG channels in time     `joint`: lines, maps of the head at the peaks, noise ceiling; `time_course` if the
                                    places of the channels are unknown
    other units in time             `rate`
    regions                         `roi_bars`
    ==============================  ====================================================================================

    Parameters
    ----------
    labelled
        Responses with their labels, from `berg.encode(..., labelled=True)` or a file.
    stimulus
        A name, a pattern such as ``"face*"``, or several of them; the mean over all stimuli if not given.
    minus
        Likewise: the mean response to these is subtracted.
    figure
        The name of another figure than the labels ask for.
    **options
        Of the function that draws it.

    Raises
    ------
    InvalidParameterError
        If the labels ask for no figure.
    """
    name = figure or ("surface" if options.get("mesh") is not None and is_cortex(labelled) else figure_of(labelled))
    if name == VOLUME_AND_BARS:
        return _volume_and_bars(labelled, stimulus, minus, **options)
    if name not in FIGURES:
        raise InvalidParameterError(
            f"There is no figure '{name}'.{did_you_mean(name, FIGURES)} The figures: {', '.join(FIGURES)}."
        )
    return FIGURES[name](labelled, stimulus, minus, **options)


def figure_of(labelled: Labelled) -> str:
    """The name of the figure that the labels ask for.

    Raises
    ------
    InvalidParameterError
        If they ask for none.
    """
    outputs = {  # of one repetition and subject: to look at the labels, nothing has to be read
        name: array.isel({axis: 0 for axis in AVERAGED if axis in array.dims}, drop=True)
        for name, array in outputs_of(labelled).items()
    }
    axes = {str(axis) for array in outputs.values() for axis in array.dims}
    in_time = "time" in axes
    if is_on_surface(outputs) and not in_time:
        return "surface"
    if has_receptive_fields(outputs) and not in_time:
        return "visual_field"
    if has_volume(labelled, outputs) and not in_time:
        return VOLUME_AND_BARS if has_regions(outputs) else "volume"
    if in_time and "channel" in axes and len(outputs) == 1 and _modality(labelled) in _SENSORS:
        names = [str(name) for array in outputs.values() for name in array["channel"].values]
        return "joint" if len(places_on_head(_modality(labelled), names)) >= FEWEST else "time_course"
    if in_time and len(outputs) == 1 and all(array.ndim == 3 for array in outputs.values()):
        return "rate"
    if has_regions(outputs) and not in_time:
        return "roi_bars"
    held = "; ".join(f"{name} {tuple(map(str, array.dims))}" for name, array in outputs.items())
    raise InvalidParameterError(
        f"Nothing in the labels of these responses ({held}) says where they could be drawn. It takes vertices, voxels "
        "with x_deg and y_deg or with i, j, k, channels or units in time, or the coordinate roi."
    )


def _modality(labelled: Labelled) -> str:
    return str(attributes_of(labelled).get("model_id", "")).split("-")[0]


def _volume_and_bars(
    labelled: Labelled, stimulus: Stimuli, minus: Stimuli, *, limits: tuple[float, float] | None = None
) -> Sheet:
    with styled():
        shown, means = show(labelled, stimulus, minus), [region_means(labelled)]
        slices = cut(labelled, shown)
        notes = (SLICE_NOTE, *bar_facts([labelled], means, stimulus, minus)[len(shown.facts) :])
        sheet, frame = new_sheet(slices.height + bars_height(means), shown.title, (*shown.facts, *notes))
        draw_slices(sheet, frame, slices, shown, limits)
        draw_bars(sheet, frame, [labelled], means, stimulus, minus)
    return sheet
