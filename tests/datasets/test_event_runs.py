"""Recordings in runs: volumes as stimuli, runs as groups, and what is refused."""

import numpy as np
import pytest

from berg.core.exceptions import DatasetError, InvalidParameterError, MissingFileError
from berg.datasets.check import check_dataset
from berg.datasets.dataset import EncodingDataset
from berg.stimuli.texts import Words

YAML = """\
name: stories
runs: [one, two, three]
sampling_interval_s: 2.0
stimuli: {words: "{run}.tsv", first_volume_s: 4}
responses:
  responses:
    path: "{run}.npy"
    axes: [volume, voxel]
    unit: z-scored BOLD
    cleaning: [{trim: {start: 2, end: 1}}]
splits: {test: [three]}
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number, name in enumerate(("one", "two", "three")):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(10 + number, 3)).astype(np.float32))
        (tmp_path / f"{name}.tsv").write_text("onset\tword\n5\tso\n6.5\tit\n9\tbegan\n")
    (tmp_path / "dataset.yaml").write_text(YAML)
    return tmp_path


def test_volumes_are_stimuli_and_runs_are_groups(folder):
    dataset = EncodingDataset.open(folder)
    assert len(dataset.stimulus_names) == 33
    assert dataset.stimulus_names[10] == "two 0"
    assert dataset.groups.tolist() == [0] * 10 + [1] * 11 + [2] * 12
    assert dataset.splits["test"].tolist() == list(range(23, 32))
    assert dataset.splits["train"].tolist() == [*range(2, 9), *range(12, 20)]
    assert dataset.stimuli.runs[0].words.onsets.tolist() == [1, 2.5, 5]
    assert dataset.sampling_interval_s == 2
    measured = np.load(folder / "two.npy")
    np.testing.assert_array_equal(dataset.outputs["responses"].mean([12, 19]), measured[[2, 9]])
    assert dataset.outputs["responses"].rows.n_rows == 24


def test_rows_name_the_volume_and_the_words(folder):
    dataset = EncodingDataset.open(folder)
    rows = dataset.read_stimuli([0, 11])
    assert rows[:, 0].tolist() == [0, 1]
    assert rows[0, 1] == rows[1, 1]  # the same words at the same times
    (folder / "two.tsv").write_text("onset\tword\n5\tso\n6.5\tit\n9\tended\n")
    other = EncodingDataset.open(folder)
    assert other.fingerprint_of_stimuli([11]) != dataset.fingerprint_of_stimuli([11])


def test_a_check_reads_all_of_it(folder):
    assert not [
        fault for fault in check_dataset(EncodingDataset.open(folder), False).faults if fault.severity == "error"
    ]


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("test: [three]", "test: [thre]", DatasetError, "names the run 'thre', .* Did you mean 'three'"),
        ("test: [three]", "{test: [three], validation: [three]}"[1:-1], DatasetError, "'three' is in 'validation' and"),
        ("test: [three]", "test: [one, two, three]", DatasetError, "No run is left to fit to"),
        ("sampling_interval_s: 2.0\n", "", DatasetError, "a recording in runs needs"),
        ('"{run}.tsv"', '"one.tsv"', DatasetError, "a recording in runs needs"),
        ("[one, two, three]", "[one, one, three]", DatasetError, "stand once each"),
        ('"{run}.npy"', '"one.npy"', DatasetError, "one file for each run"),
        ("runs: [one, two, three]\n", "", DatasetError, "stimuli.words is of recordings in runs"),
        ("[one, two, three]", "[one, two, four, three]", MissingFileError, "four"),
        ("start: 2, end: 1", "start: 2, ende: 1", DatasetError, "ende"),
        ("[{trim: {start: 2, end: 1}}]", "[{trim: {start: 2}, zscore: true}]", DatasetError, "one of regress"),
    ],
)
def test_what_contradicts_itself_is_refused(folder, old, new, error, words):
    text = YAML.replace(old, new)
    assert text != YAML
    (folder / "dataset.yaml").write_text(text)
    with pytest.raises(error, match=words):
        EncodingDataset.open(folder)


def test_words_without_times_are_refused(folder):
    (folder / "one.tsv").write_text("word\nso\nit\n")
    with pytest.raises(DatasetError, match=r"one\.tsv has no onsets"):
        EncodingDataset.open(folder)


def test_words_and_responses_are_of_the_same_runs():
    words = Words(["a"], [0.0])
    with pytest.raises(DatasetError, match="words of the runs one and responses of two"):
        EncodingDataset.from_runs({"one": words}, {"two": np.ones((3, 1))}, sampling_interval_s=2)


def test_a_subject_is_needed_where_files_are_of_several(folder):
    (folder / "dataset.yaml").write_text(YAML.replace('"{run}.npy"', '"{subject}_{run}.npy"'))
    with pytest.raises(InvalidParameterError, match="of several subjects"):
        EncodingDataset.open(folder)
