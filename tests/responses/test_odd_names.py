"""Names that a format, a spreadsheet or a figure would take for something else."""

import csv

import mne
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.io import loadmat

from berg.core.exceptions import InvalidParameterError
from berg.evaluation.accuracy_table import join_outputs
from berg.evaluation.report_figures import figures
from berg.responses.labelled import label_responses
from berg.responses.mne_objects import to_mne_epochs, to_mne_evoked
from berg.responses.save import save_responses
from berg.responses.tables import FormulaWarning, for_spreadsheet, to_dataframe

# What MNE itself does when it reads the table of epochs, with pandas 3.1.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The inplace keyword in DataFrame.set_index is deprecated:DeprecationWarning"
)
RESPONSES = np.random.default_rng(0).normal(size=(2, 2, 5)).astype(np.float32)


def labelled(names, channels=("Oz", "O1"), output="eeg", **coordinates):
    axes = {
        "channel": ("channel", np.array(channels)),
        "time": ("time", np.arange(5) * 0.1),
        **{name: ("channel", np.array(labels)) for name, labels in coordinates.items()},
    }
    own = {"axes": ["stimulus", "channel", "time"], "unit": "microvolt", "coordinates": axes}
    metadata = {"responses": {output: own}, "model": {"model_id": "eeg-x-y", "subject": 1}}
    return label_responses(RESPONSES, metadata, names)


def events(path):
    epochs = mne.read_epochs(path, verbose="error")
    names = {code: name for name, code in epochs.event_id.items()}
    return [names[code] for code in epochs.events[:, 2]]


@pytest.mark.parametrize("name", ["a:1.png", "größe.png", "a,b/c d.png", "", "\xff", "=1"])
def test_names_that_mne_can_hold_come_back(name, tmp_path):
    save_responses(labelled([name, "b.png"]), tmp_path / "r-epo.fif")
    assert events(tmp_path / "r-epo.fif") == [name, "b.png"]
    if name:
        save_responses(labelled([name, "b.png"]), tmp_path / "r-ave.fif")
        evoked = mne.read_evokeds(tmp_path / "r-ave.fif", verbose="error")
        assert [each.comment for each in evoked] == [name, "b.png"]


@pytest.mark.parametrize(("ending", "name"), [
    ("-epo.fif", "猫.png"), ("-epo.fif", "a;1.png"), ("-epo.fif", "Ā.png"), ("-epo.fif", "e\u0301.png"),
    ("-ave.fif", "猫.png"), ("-ave.fif", ""), ("-ave.fif", "Ω.png"),
])  # fmt: skip
def test_names_that_mne_cannot_hold_are_refused_before_anything_is_written(ending, name, tmp_path):
    path = tmp_path / f"r{ending}"
    with pytest.raises(InvalidParameterError, match=r"names of 1 stimuli .*save as \.nc or \.zarr"):
        save_responses(labelled([name, "b.png"]), path)
    assert not path.exists()
    assert list(to_mne_epochs(labelled([name, "b.png"])).event_id) == [name, "b.png"]  # in memory, any will do
    assert to_mne_evoked(labelled([name, "b.png"]))[0].comment == name


@pytest.mark.parametrize("ending", ["-epo.fif", "-ave.fif"])
def test_channels_that_mne_cannot_hold_are_refused(ending, tmp_path):
    with pytest.raises(InvalidParameterError, match=r"1 channels \('Ö1'\), which have other letters than ASCII"):
        save_responses(labelled(["a", "b"], ("Oz", "Ö1")), tmp_path / f"r{ending}")


FORMULAS = ["=1+1", "+a.png", "-x.png", "@x", "\t=1", " =1"]


@pytest.mark.parametrize("name", FORMULAS)
def test_a_name_that_is_a_formula_is_written_as_it_is_and_spoken_of(name, tmp_path):
    with pytest.warns(FormulaWarning, match="1 names that a spreadsheet would run as formulas"):
        save_responses(labelled([name, "b.png"]), tmp_path / "r.csv")
    assert pd.read_csv(tmp_path / "r.csv")["stimulus"].drop_duplicates().tolist() == [name, "b.png"]


def test_a_table_for_a_spreadsheet_has_no_formulas(tmp_path):
    table = to_dataframe(labelled([FORMULAS[0], "b.png"], roi=["-V1", "V2"]))
    for_spreadsheet(table).to_csv(tmp_path / "r.csv", index=False)
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["stimulus"] for row in rows} == {"'=1+1", "b.png"}
    assert {row["roi"] for row in rows} == {"'-V1", "V2"}
    np.testing.assert_allclose([float(row["response"]) for row in rows], RESPONSES.ravel(), rtol=1e-6)
    wide = for_spreadsheet(to_dataframe(labelled([*FORMULAS[:2]]), layout="wide"))
    assert wide.columns.tolist()[-2:] == ["'=1+1", "'+a.png"]


def test_ordinary_names_are_not_spoken_of(tmp_path):
    save_responses(labelled(["a=1.png", "b-2.png"]), tmp_path / "r.csv")


def test_fields_of_matlab_that_would_be_one_are_two(tmp_path):
    responses = labelled(["a", "b"], output="model", **{"roi-a": ["V1", "V2"], "roi_a": ["V3", "V4"], "x" * 70: [1, 2]})
    save_responses(responses, tmp_path / "r.mat")
    read = loadmat(tmp_path / "r.mat", simplify_cells=True)
    assert read["model"]["model_id"] == "eeg-x-y"
    assert read["model_2"]["roi_a"].tolist() == ["V1", "V2"]
    assert read["model_2"]["roi_a_2"].tolist() == ["V3", "V4"]
    assert read["model_2"]["x" * 63].tolist() == [1, 2]


def test_dollar_signs_in_names_are_drawn_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    regions = np.repeat([r"$\foo$", "a$b", r"\$x$", "V1"], 10)
    table = xr.Dataset(
        {"held_out_r": ("voxel", rng.uniform(size=40))}, coords={"roi": ("voxel", regions)}, attrs={"model_id": "x"}
    )
    in_time = xr.Dataset(
        {"held_out_r": (("channel", "time"), rng.uniform(size=(2, 3)))},
        coords={"channel": [r"$\foo$", "$"], "time": [0.0, 0.1, 0.2]},
    )
    drawn = [*figures(join_outputs({r"$\bar$": table})), *figures(join_outputs({r"$\bar$": in_time}))]
    assert len(drawn) >= 4
    for figure, _ in drawn:
        figure.savefig(tmp_path / "f.png")
        assert not any(text.get_text() == r"$\foo$" for axes in figure.axes for text in axes.get_yticklabels())
