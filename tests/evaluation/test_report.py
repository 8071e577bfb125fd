"""The page on a model: whole, self-contained, and true to the table."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from berg.core import model_registry
from berg.core.unit_labels import region_labels
from berg.evaluation.accuracy_table import accuracy_table, join_outputs
from berg.evaluation.report import report_html, write_report
from berg.evaluation.report_figures import figures
from berg.evaluation.report_words import selection_in_words

EEG = "eeg-things_eeg_2-vit_b_32"
FSAVERAGE = "fmri-nsd_fsaverage-vit_b_32"
ATTRIBUTES = {"subject": 1, "split": "test", "n_stimuli": 20, "compared": "a with b"}


def hemisphere(seed, n_regions=3, n=300):
    rng = np.random.default_rng(seed)
    places = {f"region-{i}": np.arange(10 * i, 10 * i + 10) for i in range(n_regions)}
    r = rng.uniform(-0.1, 0.5, n)
    r[places["region-1"]] = 0.9
    values = {"r": r, "noise_ceiling": rng.uniform(0.5, 0.9, n), "p_false_discovery": rng.random(n)}
    return accuracy_table(values, {"vertex": n}, {"roi": ("vertex", region_labels(places, n))}, ATTRIBUTES)


def channels(names=("Oz", "O1", "O2", "Pz", "P3", "P4", "Cz", "Fz")):
    times = np.linspace(-0.1, 0.4, 30)
    r = np.random.default_rng(0).uniform(-0.1, 0.1, (len(names), 30)) + np.exp(-(((times - 0.1) / 0.05) ** 2)) / 2
    coordinates = {"channel": ("channel", np.array(names)), "time": ("time", times)}
    return accuracy_table({"r": r}, {"channel": len(names), "time": 30}, coordinates, ATTRIBUTES)


class Page(HTMLParser):
    """Rows of all tables, pictures with their texts, and addresses that a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.pictures, self.outside, self.open = [], {}, [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        if tag == "img":
            self.pictures[given["alt"]] = given["src"]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href") and not value.startswith("data:")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.rows[-1][-1] += data


def page(model_id, accuracy, **options):
    found = Page(report_html(model_registry.get_card(model_id), accuracy, **options))
    assert found.open == []
    return found


def images(found):
    return {
        text: np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))).convert("RGB"))
        for text, source in found.pictures.items()
    }


@pytest.mark.slow
def test_a_page_of_two_hemispheres_needs_nothing_else_and_shows_what_there_is():
    found = page(FSAVERAGE, join_outputs({"lh": hemisphere(0), "rh": hemisphere(1)}))
    assert found.outside == []
    shown = images(found)
    assert len(shown) == 3
    assert all(picture.std() > 5 for picture in shown.values())  # something is drawn
    assert any("Accuracy by region" in text for text in shown)
    rows = [row for row in found.rows if row and row[0].startswith("region-")]
    assert [row[0] for row in rows[:2]] == ["region-1", "region-1"]  # the best first
    assert [row[3] for row in rows[:2]] == ["0.900", "0.900"]
    assert len(rows) == 6


def test_of_many_regions_the_best_and_the_worst_are_listed():
    text = report_html(model_registry.get_card(FSAVERAGE), join_outputs({"lh": hemisphere(0, n_regions=30)}))
    assert "Best of 30 regions" in text
    rows = [row for row in Page(text).rows if row and row[0].startswith("region-")]
    medians = [float(row[3]) for row in rows]
    assert len(rows) == 24
    assert medians == sorted(medians, reverse=True)


def test_a_page_of_channels_has_an_image_and_the_scalp():
    pytest.importorskip("mne")
    found = page(EEG, join_outputs({"eeg": channels()}))
    assert any("by channel and time" in text for text in found.pictures)
    assert any("on the scalp" in text for text in found.pictures)


@pytest.mark.slow
def test_channels_without_a_known_place_have_no_scalp():
    found = page(EEG, join_outputs({"eeg": channels([f"sensor {i}" for i in range(9)])}))
    assert any("by channel and time" in text for text in found.pictures)
    assert not any("on the scalp" in text for text in found.pictures)


@pytest.mark.slow
def test_facts_and_citations_are_there_and_nothing_becomes_markup(tmp_path):
    accuracy = join_outputs({"lh": hemisphere(0)})
    card = model_registry.get_card(FSAVERAGE)
    write_report(tmp_path / "a" / "page.html", card, accuracy, facts={"penalty": [1.5, 20.0], "<b>": "<script>"})
    text = (tmp_path / "a" / "page.html").read_text("utf-8")
    assert "<dt>penalty</dt><dd>1.5, 20</dd>" in text
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert "Allen EJ, St-Yves G" in text
    assert card.licence in text
    assert re.search(r"<dt>compared</dt><dd>a with b</dd>", text)
    assert "$" not in re.sub(r"base64,[^\"]+", "", text)  # no placeholder is left


def test_a_table_without_a_correlation_has_a_page_without_figures():
    table = accuracy_table({"explained_variance": [40.0, 50.0]}, {"voxel": 2}, {}, {"subject": 1})
    found = page("fmri-nsd-fwrf", join_outputs({"responses": table}))
    assert found.pictures == {}
    assert found.rows[1][:3] == ["all units", "responses", "2"]


@pytest.mark.slow
def test_units_without_a_number_are_left_out_of_the_figures():
    table = accuracy_table({"r": [np.nan, np.nan], "noise_ceiling": [np.nan, 0.5]}, {"voxel": 2}, {}, ATTRIBUTES)
    found = page("fmri-nsd-fwrf", join_outputs({"responses": table}))
    assert len(found.pictures) == 2


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({}, "all units"),
        ({"roi": ["V1"]}, "roi: V1"),
        ({"reliable": True, "x_deg": [0, None], "y_deg": [-5, 5.5]}, "reliable; x_deg from 0; y_deg from -5 to 5.5"),
        ({"amplitude": [None, None], "min_held_out_r2": 0.25}, "amplitude without bounds; min_held_out_r2 0.25"),
        ({"voxels": [0, 1, 1, 0] * 500}, "voxels: 1,000 of 2,000"),
        ({"voxels": list(range(5, 25))}, "voxels: 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 and 8 more"),
        ({"voxels": np.arange(3)}, "{'voxels': array([0, 1, 2])}"),
    ],
)
def test_a_selection_is_said_in_words(selection, words):
    card = model_registry.get_card("fmri-szinte2024-prf_css")
    assert selection_in_words(repr(selection), card) == words


@pytest.mark.parametrize("n_units", [1, 2, 5, 40])
def test_units_are_counted_in_whole_numbers(n_units):
    table = accuracy_table({"r": np.linspace(0.1, 0.6, n_units)}, {"voxel": n_units}, {}, {"subject": 1})
    (axes,) = next(figures(join_outputs({"responses": table})))[0].axes
    ticks = axes.get_yticks()
    assert len(ticks) >= 2
    assert all(tick == round(tick) for tick in ticks)


def test_the_box_of_a_region_with_one_unit_is_seen_and_no_box_is_thick():
    rois = {"roi": ("voxel", np.array(["V1", "V1", "V2"]))}
    table = accuracy_table({"r": np.array([0.2, 0.6, 0.4])}, {"voxel": 3}, rois, {"subject": 1})
    drawn = {caption: figure for figure, caption in figures(join_outputs({"responses": table}))}
    (axes,) = next(figure for caption, figure in drawn.items() if "by region" in caption).axes
    assert len(axes.patches) == 2
    assert all(box.get_linewidth() > 0 for box in axes.patches)
    assert "white" not in [line.get_color() for line in axes.lines]  # on the white page
    heights = [np.ptp(box.get_path().vertices[:, 1]) for box in axes.patches]
    assert max(heights) < 0.3  # of the distance between two rows
