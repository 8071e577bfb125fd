"""The card of a new model, filled from the recordings that it is to be fitted to."""

import numpy as np
import pytest
import yaml
from scipy.io import wavfile

from berg.cli.app import main
from berg.core.model_card import ModelCard
from berg.core.model_registry import get_card
from berg.datasets.dataset import EncodingDataset
from berg.fitting.card_agreement import check_agreement

DATA = {
    "eeg": """
subjects: [1, 3]
stimuli: pictures.npy
responses:
  eeg:
    path: "eeg{subject}.npy"
    axes: [stimulus, channel, time]
    unit: microvolts
    coordinates: {channel: [Oz, O1, O2], time: [0.0, 0.1, 0.2, 0.3]}
""",
    "fmri": """
stimuli: pictures.npy
responses:
  lh: {path: lh.npy, axes: [stimulus, vertex], unit: z-scored beta, coordinates: {roi: {axis: vertex, values: LH}}}
  rh: {path: rh.npy, axes: [stimulus, vertex], unit: z-scored beta, coordinates: {roi: {axis: vertex, values: RH}}}
""",
}
SISTER = {"eeg": "eeg-things_eeg_2-alexnet", "fmri": "fmri-nsd_fsaverage-alexnet"}


@pytest.fixture(params=DATA)
def recordings(request, tmp_path):
    draw = np.random.default_rng(0)
    np.save(tmp_path / "pictures.npy", draw.integers(0, 256, (20, 3, 8, 8), "uint8"))
    for name, shape in (("eeg1", (3, 4)), ("eeg3", (3, 4)), ("lh", (5,)), ("rh", (2,))):
        np.save(tmp_path / f"{name}.npy", draw.normal(size=(20, *shape)).astype("float32"))
    text = DATA[request.param].replace("LH", "['V1;early', V1, V2, '', V3]").replace("RH", "[V1, FFA]")
    (tmp_path / "dataset.yaml").write_text(text)
    return request.param, tmp_path


def filled(path, modality):
    """The card with what only the author knows taken from another card of the family."""
    said = yaml.safe_load(path.read_text())
    known = get_card(SISTER[modality]).raw
    said |= {key: known[key] for key in ("features", "readout", "references", "licence", "citation")}
    del said["performance"]
    return said, ModelCard.parse(yaml.safe_dump(said, sort_keys=False), path)


def test_the_card_agrees_with_the_recordings(recordings):
    modality, folder = recordings
    words = ["--family", "linearizing", "--data", str(folder), "--out", str(folder)]
    main(["new", f"{modality}-mine-linear", *words])
    said, card = filled(folder / f"{modality}-mine-linear.yaml", modality)
    check_agreement(card, EncodingDataset.open(folder, {"eeg": 3, "fmri": None}[modality]))
    properties = said["parameters"]["selection"]["properties"]
    if modality == "eeg":
        assert said["parameters"]["subject"]["valid_values"] == [1, 3]
        assert properties["channels"]["valid_values"] == ["Oz", "O1", "O2"]
        assert said["outputs"] == [{"name": "eeg", "axes": ["stimulus", "channel", "time"], "unit": "microvolts"}]
    else:
        assert properties["roi"]["valid_values"] == ["V1", "early", "V2", "V3", "FFA"]
        assert [own["name"] for own in said["outputs"]] == ["lh", "rh"]
        assert said["select"]["roi"]["metadata"] == "fmri.{output}_rois"


def test_data_without_a_family_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["new", "fmri-mine-linear", "--class", "--data", str(tmp_path)])
    assert "Add --family linearizing" in capsys.readouterr().err


def test_the_card_takes_what_the_recordings_are_responses_to(tmp_path):
    draw = np.random.default_rng(1)
    (tmp_path / "sounds").mkdir()
    for number in range(4):
        wavfile.write(tmp_path / "sounds" / f"{number}.wav", 8000, draw.normal(size=800).astype("float32"))
    np.save(tmp_path / "videos.npy", draw.integers(0, 256, (4, 3, 3, 8, 8), "uint8"))
    np.save(tmp_path / "ecog.npy", draw.normal(size=(4, 2)).astype("float32"))
    for kind, stimuli in (("sound", "sounds"), ("video", "videos.npy")):
        responses = "{ecog: {path: ecog.npy, axes: [stimulus, electrode], unit: z}}"
        (tmp_path / "dataset.yaml").write_text(f"stimuli: {stimuli}\nresponses: {responses}\n")
        main(["new", f"ecog-mine-{kind}", "--family", "linearizing", "--data", str(tmp_path), "--out", str(tmp_path)])
        stated = yaml.safe_load((tmp_path / f"ecog-mine-{kind}.yaml").read_text())["input"]
        assert stated["kind"] == kind
        assert ("sampling_rate" in stated) == (kind == "sound")
        assert ("n_frames" in stated) == (kind == "video")
