"""What every figure keeps: units at every colour bar, texts inside the page and beside each other, the facts below."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import berg.plotting
from berg.core.exceptions import InvalidParameterError
from berg.plotting.figures import FIGURES, draw, figure_of
from berg.plotting.page import new_sheet
from berg.responses.labelled import outputs_of

LABELS = {
    "surface": "vertices",
    "flatmap": "vertices",
    "joint": "sensors",
    "topomap": "sensors",
    "time_course": "sensors",
    "visual_field": "fields",
    "volume": "voxels",
    "roi_bars": "voxels",
    "rate": "cells",
    "volume_and_bars": "voxels",
}


@pytest.fixture(scope="module")
def responses(vertices, sensors, voxels, fields, cells):
    return {
        "vertices": vertices(),
        "sensors": sensors("normalised EEG amplitude"),
        "voxels": voxels,
        "fields": fields,
        "cells": cells,
    }


@pytest.fixture(scope="module", params=LABELS)
def drawn(request, responses):
    """Each figure, of a contrast; its name, the responses."""
    kind = responses[LABELS[request.param]]
    sheet = draw(kind, "face*", minus="beach", figure=request.param)
    FigureCanvasAgg(sheet).draw()
    return request.param, kind, sheet


def colour_bars(sheet):
    return [axes for axes in sheet.axes if axes.get_label() == "<colorbar>"]


def texts(sheet):
    renderer = sheet.canvas.get_renderer()
    shown = [text for text in sheet.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = {text: text.get_window_extent(renderer) for text in shown}
    off = {axis for axes in sheet.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis)}
    hidden = {label for axis in off for label in axis.findobj(Text)}
    # Ticks beyond the ends of an axis have texts, which are not drawn.
    for axes in sheet.axes:
        for axis, low, high in ((axes.xaxis, *axes.get_xlim()), (axes.yaxis, *axes.get_ylim())):
            slack = 1e-6 * abs(high - low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not min(low, high) - slack <= tick.get_loc() <= max(low, high) + slack:
                    hidden |= {tick.label1, tick.label2}
    return {text: box for text, box in boxes.items() if text not in hidden and box.width > 0}


def test_every_public_figure_is_here():
    assert set(FIGURES) == {name for name in berg.plotting.__all__ if name not in ("Mesh", "draw", "read_mesh", "save")}
    assert set(LABELS) == {*FIGURES, "volume_and_bars"}


def test_every_colour_bar_has_quantity_and_unit(drawn):
    name, kind, sheet = drawn
    bars = colour_bars(sheet)
    assert len(bars) == (0 if name in ("time_course", "roi_bars") else 1)
    unit = next(iter(outputs_of(kind).values())).attrs["units"]
    for bar in bars:
        assert re.fullmatch(rf"difference in [a-z ]+ \({unit}\)", bar.get_ylabel().replace("\n", " "))


def test_no_text_leaves_the_page_or_covers_another(drawn):
    name, _, sheet = drawn
    boxes = texts(sheet)
    assert len(boxes) > 5
    width, height = sheet.bbox.size
    for text, box in boxes.items():
        assert box.x0 >= 0, (name, text)
        assert box.y0 >= 0, (name, text)
        assert box.x1 <= width, (name, text)
        assert box.y1 <= height, (name, text)
    for (one, first), (other, second) in itertools.combinations(boxes.items(), 2):
        assert not first.shrunk(0.98, 0.9).overlaps(second.shrunk(0.98, 0.9)), (name, one, other)


def test_title_and_facts_are_on_every_figure(drawn):
    _, kind, sheet = drawn
    title, facts = sheet.texts[:2]
    assert title.get_text() == "mean of 2 stimuli (face*)  −  beach.jpg"
    model = next(iter(kind.leaves)).attrs if hasattr(kind, "leaves") else kind.attrs
    assert model["model_id"] in facts.get_text()
    assert "subject 1" in facts.get_text()
    assert "n = 2 against 1 stimuli" in facts.get_text().replace("\n", " ")


def test_time_is_in_milliseconds(drawn):
    name, _, sheet = drawn
    labels = [axes.get_xlabel() for axes in sheet.axes]
    assert ("time (ms)" in labels) == (name in ("joint", "time_course", "rate"))
    if name in ("joint", "time_course"):
        axes = next(axes for axes in sheet.axes if axes.get_xlabel() == "time (ms)")
        np.testing.assert_allclose(axes.get_xlim(), (-100, 490))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("vertices", "surface"),
        ("sensors", "joint"),
        ("fields", "visual_field"),
        ("voxels", "volume_and_bars"),
        ("cells", "rate"),
    ],
)
def test_the_labels_choose_the_figure(kind, name, responses):
    assert figure_of(responses[kind]) == name


def test_regions_alone_are_bars_and_a_volume_without_regions_is_slices(voxels):
    assert figure_of(voxels.drop_vars(["i", "j", "k"])) == "roi_bars"
    assert figure_of(voxels.drop_vars("roi")) == "volume"


def test_channels_that_nobody_knows_are_drawn_in_time_alone(sensors):
    assert figure_of(sensors(names=[f"EEG{number:03d}" for number in range(8)])) == "time_course"


def test_labels_that_say_nothing_are_refused_with_what_it_takes(voxels):
    bare = voxels.drop_vars([name for name in voxels.coords if name != "stimulus"])
    with pytest.raises(InvalidParameterError, match=r"Nothing in the labels.*voxel.*It takes vertices"):
        draw(bare)


def test_an_unknown_figure_is_told_which_there_are(voxels):
    with pytest.raises(InvalidParameterError, match=r"no figure 'surfaces'. Did you mean 'surface'"):
        draw(voxels, figure="surfaces")


@pytest.mark.parametrize("ending", ["svg", "pdf"])
def test_text_stays_text(ending, fields, tmp_path):
    path = berg.plotting.save(draw(fields, "beach"), tmp_path / f"a.{ending}")
    content = path.read_bytes()
    assert len(content) < 500_000
    if ending == "svg":
        assert b">beach.jpg</text>" in content
    else:
        assert b"/Type /Font" in content
        assert b"/FontFile2" in content  # TrueType, not outlines of glyphs


def test_a_figure_file_has_one_of_three_endings(fields, tmp_path):
    sheet = draw(fields)
    with pytest.raises(InvalidParameterError, match=r"'a.jpg' must end in one of .png, .svg, .pdf"):
        berg.plotting.save(sheet, tmp_path / "a.jpg")
    with pytest.raises(InvalidParameterError, match=r"does not exist. Make it first"):
        berg.plotting.save(sheet, tmp_path / "none" / "a.png")


def test_a_notebook_shows_a_figure_without_pyplot(fields):
    assert draw(fields)._repr_png_().startswith(b"\x89PNG")


def test_what_draws_is_imported_when_it_draws_and_needs_no_torch():
    code = (
        "import sys, berg.cli.plot\n"
        "print({'matplotlib', 'xarray', 'torch', 'mne', 'nilearn'} & set(sys.modules))\n"
        "import berg.plotting\n"
        "print({'torch', 'nilearn', 'mne', 'sklearn', 'nibabel'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\nset()\n"


@pytest.mark.parametrize("width", [4.9, 7.2])
def test_a_long_title_is_told_in_lines_inside_of_the_sheet(width):
    name = "a_photograph_of_the_garden_behind_the_house_in_the_rain_at_night"
    title = f"mean of 12 stimuli ({name})  −  mean of 9 stimuli ({name.upper()})"
    sheet, frame = new_sheet(1.0, title, ("facts",), width=width)
    FigureCanvasAgg(sheet).draw()
    shown = sheet.texts[0]
    box = shown.get_window_extent(sheet.canvas.get_renderer())
    assert re.sub(r"\s+", "", shown.get_text()) == re.sub(r"\s+", "", title)
    assert box.x0 >= 0
    assert box.x1 <= sheet.bbox.x1 + 2  # of hinting
    assert box.y1 <= sheet.bbox.y1
    assert box.y0 >= sheet.dpi * (frame.bottom + frame.height)  # above the panels
