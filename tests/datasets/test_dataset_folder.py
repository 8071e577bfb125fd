"""dataset.yaml: what it may say, and what is said where it is wrong."""

import json
import re
from pathlib import Path

import h5py
import mne
import nibabel
import numpy as np
import pytest
import zarr
from PIL import Image
from scipy.io import wavfile

from berg.core.exceptions import DatasetError, InvalidParameterError, MissingFileError
from berg.datasets.card import DatasetCard
from berg.datasets.dataset import EncodingDataset

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (10, 3, 6, 6), np.uint8)
BETAS = RNG.normal(size=(20, 4)).astype(np.float32)
ORDER = np.repeat(np.arange(10), 2)


@pytest.fixture
def folder(tmp_path):
    """Pictures as files and as arrays, and responses to two presentations of each."""
    (tmp_path / "pictures").mkdir()
    for place, picture in enumerate(PICTURES):
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / "pictures" / f"p{place}.png")
    np.save(tmp_path / "betas.npy", BETAS)
    np.save(tmp_path / "order.npy", ORDER)
    return tmp_path


def opened(folder, text, subject=None):
    (folder / "dataset.yaml").write_text(text)
    return EncodingDataset.open(folder, subject)


BASE = """
stimuli: pictures
presentations: order.npy
responses:
  responses: {path: betas.npy, axes: [presentation, voxel], unit: z-scored beta}
"""


def test_a_short_card_is_enough(folder):
    dataset = opened(folder, BASE)
    assert dataset.stimulus_names == [f"p{place}.png" for place in range(10)]
    data = dataset.outputs["responses"]
    assert (data.axes, data.shape, data.unit) == (("voxel",), (4,), "z-scored beta")
    np.testing.assert_allclose(data.mean([3]), BETAS[6:8].mean(0, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(data.repeats([3, 1]), np.stack([BETAS[[6, 2]], BETAS[[7, 3]]]))
    assert [len(own) for own in dataset.splits.values()] == [9, 0, 1]
    assert dataset.name == folder.name
    assert EncodingDataset.open(folder / "dataset.yaml").name == folder.name


def save_stimuli(folder):
    np.save(folder / "stimuli.npy", PICTURES)
    with h5py.File(folder / "stimuli.hdf5", "w") as file:
        file["imgBrick"] = PICTURES.transpose(0, 2, 3, 1)
        file["other"] = [1]
    zarr.create_array(folder / "stimuli.zarr", data=PICTURES)
    (folder / "list.txt").write_text("\n".join(f"p{place}.png" for place in range(10)))
    (folder / "list.tsv").write_text("n\tfile\n" + "\n".join(f"{place}\tp{place}.png" for place in range(10)))


@pytest.mark.parametrize(
    "stimuli",
    [
        "pictures",
        "stimuli.npy",
        "{path: stimuli.npy, places: '0:10'}",
        "stimuli.hdf5::imgBrick",
        "{path: stimuli.hdf5, key: imgBrick}",
        "stimuli.zarr",
        "{path: pictures, files: list.txt}",
        "{path: pictures, files: list.tsv::file}",
        "{files: [" + ", ".join(f"pictures/p{place}.png" for place in range(10)) + "]}",
    ],
)
def test_stimuli_may_be_anything(stimuli, folder):
    save_stimuli(folder)
    dataset = opened(folder, BASE.replace("stimuli: pictures", f"stimuli: {stimuli}"))
    np.testing.assert_array_equal(dataset.read_stimuli([9, 4]), PICTURES[[9, 4]])


def test_sounds_are_read_with_their_rate(folder):
    (folder / "sounds").mkdir()
    samples = RNG.normal(size=(10, 50)).astype(np.float32)
    for place, own in enumerate(samples):
        wavfile.write(folder / "sounds" / f"s{place}.wav", 8000, own)
    dataset = opened(folder, BASE.replace("pictures", "sounds"))
    np.testing.assert_array_equal(dataset.read_stimuli([2, 0]), samples[[2, 0]])
    assert dataset.sampling_rate == 8000
    np.save(folder / "sounds.npy", samples)
    in_array = opened(folder, BASE.replace("pictures", "{path: sounds.npy, sampling_rate: 8000}"))
    np.testing.assert_array_equal(in_array.read_stimuli([2, 0]), samples[[2, 0]])
    assert in_array.sampling_rate == 8000


@pytest.mark.parametrize(
    "presentations",
    [
        "order.npy",
        "events.tsv::picture",
        "{path: events.tsv, key: number, first: 1}",
        "{values: [" + ", ".join(map(str, ORDER)) + "]}",
        "events.json::runs.all",
        "events.h5",
    ],
)
def test_presentations_may_be_names_or_numbers_anywhere(presentations, folder):
    lines = [f"p{place}.png\t{place + 1}" for place in ORDER]
    (folder / "events.tsv").write_text("\n".join(["picture\tnumber", *lines]))
    (folder / "events.json").write_text(json.dumps({"runs": {"all": [f"p{place}" for place in ORDER]}}))
    with h5py.File(folder / "events.h5", "w") as file:
        file["x"] = [f"p{place}.png" for place in ORDER]
    dataset = opened(folder, BASE.replace("order.npy", presentations))
    np.testing.assert_array_equal(dataset.presentations, ORDER)


SPLITS = {
    "lists": "{train: [0, 1, 2, 3, 4, 5], validation: [6, 7], test: [8, 9]}",
    "names": "{train: train.txt, validation: [p6.png, p7.png], test: [p8, p9]}",
    "the rest": "{validation: [6, 7], test: [8, 9]}",
    "a column": "{column: splits.tsv::split}",
    "one file": "{train: splits.json::train, validation: splits.json::validation, test: splits.json::test}",
    "from 1": "{validation: {values: [7, 8], first: 1}, test: {values: [9, 10], first: 1}}",
    "marks": "{validation: marks.npz::validation, test: marks.npz::test}",
}


@pytest.mark.parametrize("case", SPLITS)
def test_splits_may_be_given(case, folder):
    names = ["train"] * 6 + ["validation"] * 2 + ["test"] * 2
    (folder / "train.txt").write_text("\n".join(f"p{place}.png" for place in range(6)))
    (folder / "splits.tsv").write_text("\n".join(["split", *names]))
    (folder / "splits.json").write_text(json.dumps({"train": [0, 1, 2, 3, 4, 5], "validation": [6, 7], "test": [8, 9]}))
    np.savez(folder / "marks.npz", validation=np.array(names) == "validation", test=np.array(names) == "test")
    dataset = opened(folder, BASE + f"splits: {SPLITS[case]}\n")
    assert [own.tolist() for own in dataset.splits.values()] == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]


def test_splits_may_be_drawn_in_groups(folder):
    how = "{test_fraction: 0.4, validation_fraction: 0.2, seed: 3, groups: [a, a, b, b, c, c, d, d, e, e]}"
    dataset = opened(folder, BASE + f"splits: {how}\n")
    assert [len(own) for own in dataset.splits.values()] == [4, 2, 4]
    assert all(np.array_equal(own[::2] + 1, own[1::2]) for own in dataset.splits.values())


def test_a_surface_has_hemispheres_regions_and_subjects(folder):
    for subject in (1, 2):
        for side in "lr":
            np.save(folder / f"{side}h_subject-{subject:02d}.npy", BETAS + subject * (1 if side == "l" else -1))
        (folder / f"lh_rois_{subject}.json").write_text(json.dumps({"V1": [0, subject], "early": [0]}))
    text = """
subjects: [1, 2]
stimuli: pictures
presentations: order.npy
responses:
  lh:
    path: lh_subject-{subject:02d}.npy
    axes: [presentation, vertex]
    coordinates: {roi: "lh_rois_{subject}.json", x_mm: [1.5, 2, 3, 4]}
  rh:
    path: rh_subject-{subject:02d}.npy
    axes: [presentation, vertex]
"""
    for subject in (2, "2"):
        dataset = opened(folder, text, subject)
        assert dataset.subject == 2
        assert list(dataset.outputs) == ["lh", "rh"]
        np.testing.assert_allclose(dataset.outputs["rh"].repeats([0])[0], BETAS[:1] - 2)
        assert dataset.outputs["lh"].coordinates["roi"][1].tolist() == ["V1;early", "", "V1", ""]
        assert dataset.outputs["lh"].coordinates["x_mm"][1].tolist() == [1.5, 2, 3, 4]
    with pytest.raises(InvalidParameterError, match=r"has no subject 3\. .*Its subjects: 1, 2"):
        opened(folder, text, 3)
    with pytest.raises(InvalidParameterError, match="several subjects; say which"):
        opened(folder, text)


def test_a_path_with_a_subject_needs_one(folder):
    with pytest.raises(InvalidParameterError, match="say which subject"):
        opened(folder, BASE.replace("betas.npy", "'b_{subject:02d}.npy'"))
    with pytest.raises(DatasetError, match=r"b_\{subject:02d\}.npy' with subject 'P1': .* Write \{subject\}"):
        opened(folder, BASE.replace("betas.npy", "'b_{subject:02d}.npy'"), "P1")


def test_volumes_are_masked_and_so_are_their_labels(folder):
    affine = np.diag([2.0, 2, 2, 1])
    volumes = RNG.normal(size=(20, 2, 3, 2)).astype(np.float32)
    mask = RNG.random((2, 3, 2)) > 0.5
    regions = RNG.integers(0, 3, (2, 3, 2)).astype(np.int16)
    for session in (1, 2):
        own = np.moveaxis(volumes[10 * session - 10 : 10 * session], 0, -1)
        nibabel.Nifti1Image(own, affine).to_filename(folder / f"betas_session{session:02d}.nii.gz")
    nibabel.Nifti1Image(mask.astype(np.uint8), affine).to_filename(folder / "mask.nii")
    nibabel.Nifti1Image(regions, affine).to_filename(folder / "rois.nii")
    text = """
stimuli: pictures
presentations: order.npy
responses:
  responses:
    path: betas_session*.nii.gz
    mask: mask.nii
    scale: 0.01
    coordinates: {roi: rois.nii, depth: [LENGTH]}
""".replace("LENGTH", ", ".join(map(str, range(mask.sum()))))
    data = opened(folder, text).outputs["responses"]
    assert data.axes == ("voxel",)
    np.testing.assert_allclose(
        data.repeats([4, 5]).swapaxes(0, 1).reshape(4, -1), volumes[8:12][:, mask] / 100, rtol=1e-5
    )
    assert data.coordinates["roi"][1].tolist() == ["" if not own else str(own) for own in regions[mask]]
    assert data.coordinates["depth"][1].tolist() == list(range(mask.sum()))
    np.testing.assert_array_equal(np.transpose([data.coordinates[axis][1] for axis in "ijk"]), np.argwhere(mask))
    nibabel.Nifti1Image(mask.astype(np.uint8), np.diag([-2.0, 2, 2, 1])).to_filename(folder / "mask.nii")
    with pytest.raises(
        DatasetError, match=r"responses\.responses: mask mask\.nii and the responses have other affines"
    ):
        EncodingDataset.open(folder)


def test_epochs_bring_everything_but_the_pictures(folder):
    info = mne.create_info(["Oz", "Pz", "EOG"], 200.0, ["eeg", "eeg", "eog"])
    events = np.column_stack([np.arange(20) * 10, np.zeros(20, int), ORDER + 1])
    values = RNG.normal(scale=1e-6, size=(20, 3, 4))
    names = {f"p{place}.png": place + 1 for place in range(10)}
    mne.EpochsArray(values, info, events, -0.005, names, baseline=None, verbose="error").save(
        folder / "sub-01-epo.fif", fmt="double", verbose="error"
    )
    text = """
stimuli: pictures
presentations: sub-01-epo.fif
responses:
  responses: {path: sub-01-epo.fif, unit: µV, scale: 1e6}
"""
    dataset = opened(folder, text)
    data = dataset.outputs["responses"]
    assert (data.axes, data.shape, data.unit) == (("channel", "time"), (2, 4), "µV")
    assert dataset.sampling_interval_s == pytest.approx(0.005)
    assert not dataset.is_sequence
    np.testing.assert_allclose(data.repeats([7])[:, 0], values[14:16, :2].reshape(2, 8) * 1e6, rtol=1e-5)
    assert data.coordinates["channel"][1].tolist() == ["Oz", "Pz"]
    with pytest.raises(DatasetError, match=r"unit is µV, and the file is in V\. Write  scale: 1e6"):
        opened(folder, text.replace(", scale: 1e6", ""))
    assert opened(folder, text.replace(", unit: µV, scale: 1e6", "")).outputs["responses"].unit == "V"


def test_electrodes_with_repetitions_in_one_array(folder):
    rates = RNG.normal(size=(10, 3, 5)).astype(np.float32)
    rates[4, 2] = np.nan
    np.savez(folder / "rates.npz", rates=rates, site=["V4"] * 3 + ["IT"] * 2)
    text = """
stimuli: pictures
responses:
  responses:
    path: rates.npz::rates
    axes: [stimulus, repetition, electrode]
    unit: spikes/s
    coordinates: {site: "rates.npz::site"}
"""
    data = opened(folder, text).outputs["responses"]
    np.testing.assert_array_equal(data.repeats([4, 1]), rates[[4, 1]].swapaxes(0, 1))
    np.testing.assert_allclose(data.mean([4]), rates[4:5, :2].mean(1), rtol=1e-6)
    assert data.coordinates["site"][1].tolist() == ["V4"] * 3 + ["IT"] * 2


FAULTS = {
    "unknown key": (("unit: z", "unti: z"), r"line 5: unknown key 'unti'. Did you mean 'unit'\? Allowed: axes, "),
    "unknown key above": (("stimuli:", "stimulus:"), r"line 2: unknown key 'stimulus'. Did you mean 'stimuli'"),
    "key missing": (("path: betas.npy, ", ""), r"line 5: key 'path' is missing"),
    "wrong type": (("[presentation, voxel]", "7"), r"line 5: responses.responses.axes is 7: "),
    "an axis twice": (("voxel]", "presentation]"), "an axis stands twice"),
    "rows of both": (("voxel]", "stimulus]"), "not both"),
    "key twice": (("stimuli: pictures", "stimuli: pictures\nstimuli: b"), "line 3: key 'stimuli' stands twice"),
    "not yaml": (("[presentation", "[[presentation"), "not valid YAML"),
    "axes too many": (("voxel]", "x, y]"), r"line 5: responses.responses: .*betas\.npy: The responses have 2 axes"),
    "rows": (("presentations: order.npy\n", ""), r"line 4: responses.responses: The responses have 20 rows"),
    "presentations": (("order.npy", "[0, 11]"), r"line 3: presentations: it holds 1 numbers of no stimulus \(11\)"),
    "empty values": (("order.npy", "{first: 1}"), "presentations: needs a path, or a list"),
    "files missing": (
        ("stimuli: pictures", "stimuli: {path: pictures, files: [p0.png, q1.png]}"),
        r"line 2: stimuli: 1 of 2 files are missing: .*q1\.png",
    ),
    "no stimuli": (("stimuli: pictures", "stimuli: {names: [a]}"), "stimuli: needs a path"),
    "several arrays": (("stimuli: pictures", "stimuli: stimuli.hdf5"), "holds imgBrick, other; say which with key: "),
    "a damaged split": (("responses:\n", "splits: {test: [p77]}\nresponses:\n", 1), r"splits.test: it names 1 stimuli"),
    "split in two": (
        ("responses:\n", "splits: {train: [1, 2], test: [2]}\nresponses:\n", 1),
        r"line 4: splits: 1 stimuli are in 'train' and in 'test' \(p2\.png\)",
    ),
    "a column": (("responses:\n", "splits: {column: [train]}\nresponses:\n", 1), "column has 1 entries for 10 stimuli"),
    "words of a column": (
        ("responses:\n", f"splits: {{column: [{', '.join(['trian'] * 10)}]}}\nresponses:\n", 1),
        r"column holds trian\. Allowed: train, validation, test",
    ),
    "coordinate": (
        ("unit: z-scored beta", "coordinates: {roi: [V1, V2]}"),
        r"line 5: responses.responses.coordinates.roi: has 2 labels; the axis has 4 positions",
    ),
    "coordinate of no axis": (
        ("unit: z-scored beta", "coordinates: {roi: {values: [a, b, c, d], axis: vertex}}"),
        r"there is no axis 'vertex'\. Axes of the units: voxel",
    ),
    "region": (
        ("unit: z-scored beta", "coordinates: {roi: {values: {V1: [4]}}}"),
        r"Region 'V1' names unit 4; there are 4 units",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_with_its_line(case, folder):
    save_stimuli(folder)
    change, words = FAULTS[case]
    assert change[0] in BASE
    with pytest.raises(DatasetError, match=words) as error:
        opened(folder, BASE.replace(*change))
    assert "dataset.yaml" in str(error.value)


def test_a_file_that_is_missing_is_named(folder):
    for old, new in (
        ("betas.npy", "betas2.npy"),
        ("betas.npy", "s*.npy"),
        ("order.npy", "o.npy"),
        ("pictures", "pics"),
    ):
        with pytest.raises(MissingFileError, match="here is no .*" + re.escape(new)):
            opened(folder, BASE.replace(old, new))
    with pytest.raises(MissingFileError, match=r"There is no .*nothing.dataset\.yaml"):
        EncodingDataset.open(folder / "nothing")


def test_files_that_belong_together_must_be_alike(folder):
    np.save(folder / "betas2.npy", BETAS[:, :2])
    with pytest.raises(DatasetError, match=r"betas2\.npy has units of shape \(2,\); .*betas\.npy \(4,\)"):
        opened(folder, BASE.replace("betas.npy", "[betas.npy, betas2.npy]"))


def test_an_axis_must_be_said_where_it_can_be_two(folder):
    np.save(folder / "square.npy", np.zeros((10, 3, 3)))
    text = """
stimuli: pictures
responses:
  responses: {path: square.npy, axes: [stimulus, channel, time], coordinates: {kind: [a, b, c]}}
"""
    with pytest.raises(DatasetError, match=r"kind: is along which axis\? Write  axis: NAME  \(channel, time\)"):
        opened(folder, text)


def test_the_card_keeps_its_lines():
    card = DatasetCard.parse(BASE)
    assert card.place("responses", "responses", "unit") == "dataset.yaml, line 5"
    assert card.place("responses", "nothing") == "dataset.yaml, line 4"


def test_every_example_of_the_docs_is_a_card():
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text("utf-8")
    examples = [
        text for text in re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if "stimuli:" in text
    ]
    assert len(examples) > 4
    for text in examples:
        assert DatasetCard.parse(text).responses
