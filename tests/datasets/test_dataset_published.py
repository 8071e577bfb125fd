"""Datasets out of the metadata of published models."""

import h5py
import numpy as np
import pytest

from berg.cli.app import main
from berg.core.exceptions import DatasetError, InvalidParameterError, StorageError, UnsafeFileError
from berg.datasets.dataset import EncodingDataset
from berg.datasets.published_datasets import write_published_dataset

RNG = np.random.default_rng(0)
BRICK = RNG.integers(0, 256, (30, 5, 5, 3), np.uint8)
NUMBERS = {"train_img_num": np.array([20, 3, 7, 12]), "val_img_num": np.array([5]), "test_img_num": np.array([29, 0])}
IN_ORDER = [20, 3, 7, 12, 5, 29, 0]


@pytest.fixture
def recordings(tmp_path):
    """Two subjects' responses of two hemispheres, a row per picture, and the metadata of a published model."""
    with h5py.File(tmp_path / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = BRICK
    for subject in (1, 2):
        with h5py.File(tmp_path / f"betas_subject-{subject:02d}.h5", "w") as file:
            for side, n_vertices in (("lh", 3), ("rh", 2)):
                file[side] = np.array(IN_ORDER)[:, None] + np.arange(n_vertices) / 10 + subject * 100.0
        metadata = {
            "fmri": {
                "lh_fsaverage_rois": {"V1v": np.array([0, 2]), "early": np.array([2]), "OWFA": np.array([], int)},
                "rh_fsaverage_rois": {"V1v": np.array([1])},
                "lh_ncsnr": np.array([0.1, np.nan, 0.3]),
                "rh_ncsnr": np.array([0.5, 0.6]),
            },
            "encoding_models": NUMBERS,
        }
        np.save(tmp_path / f"metadata_subject-{subject:02d}.npy", metadata, allow_pickle=True)
    return tmp_path


def given(folder, **options):
    return {
        "stimuli": f"{folder}/nsd_stimuli.hdf5::imgBrick",
        "metadata": f"{folder}/metadata_subject-{{subject:02d}}.npy",
        "responses": {side: f"{folder}/betas_subject-{{subject:02d}}.h5::{side}" for side in ("lh", "rh")},
        "subjects": [1, 2],
        **options,
    }


def check(dataset, subject):
    assert {name: own.tolist() for name, own in dataset.splits.items()} == {
        "train": [3, 7, 12, 20], "validation": [5], "test": [0, 29]
    }  # fmt: skip
    wanted = dataset.splits["train"]
    np.testing.assert_array_equal(dataset.read_stimuli(wanted), BRICK[wanted].transpose(0, 3, 1, 2))
    lh, rh = dataset.outputs["lh"], dataset.outputs["rh"]
    found = wanted[:, None] + np.arange(3) / 10 + subject * 100
    np.testing.assert_allclose(lh.mean(wanted), found, rtol=1e-6)
    assert lh.axes == rh.axes == ("vertex",)
    assert lh.coordinates["roi"][1].tolist() == ["V1v", "", "V1v;early"]
    assert rh.coordinates["roi"][1].tolist() == ["", "V1v"]
    np.testing.assert_array_equal(lh.coordinates["ncsnr"][1], [0.1, np.nan, 0.3])


def test_a_published_model_says_what_it_was_fitted_to(recordings):
    path = write_published_dataset(recordings / "nsd", **given(recordings))
    assert path == recordings / "nsd" / "dataset.yaml"
    for subject in (1, 2):
        check(EncodingDataset.open(recordings / "nsd", subject), subject)


def test_the_command_does_the_same(recordings, capsys):
    own = given(recordings)
    responses = [word for side, path in own["responses"].items() for word in ("--responses", f"{side}={path}")]
    words = ["--stimuli", own["stimuli"], "--metadata", own["metadata"], "--subject", "1,2", "--order", "splits"]
    main(["dataset", "from-published", str(recordings / "nsd"), *words, *responses])
    assert "berg dataset check" in capsys.readouterr().out
    check(EncodingDataset.open(recordings / "nsd", 2), 2)


def test_rows_may_be_in_the_order_of_the_numbers_or_of_a_list(recordings):
    ascending = write_published_dataset(recordings / "a", **given(recordings, order="ascending"))
    data = EncodingDataset.open(ascending, 1).outputs["lh"]
    assert data.mean([0, 3])[:, 0].tolist() == [120, 103]  # the first two rows
    np.save(recordings / "order_1.npy", IN_ORDER[::-1])
    np.save(recordings / "order_2.npy", IN_ORDER[::-1])
    listed = write_published_dataset(recordings / "b", **given(recordings, order=f"{recordings}/order_{{subject}}.npy"))
    assert EncodingDataset.open(listed, 1).outputs["lh"].mean([0, 29])[:, 0].tolist() == [120, 103]


def test_numbers_may_begin_with_one(recordings):
    path = write_published_dataset(recordings / "a", **given(recordings, first=1) | {"metadata": _from_one(recordings)})
    dataset = EncodingDataset.open(path, 1)
    assert dataset.splits["test"].tolist() == [0, 29]
    assert dataset.outputs["lh"].mean([29])[0, 0] == 129


def _from_one(folder):
    for subject in (1, 2):
        numbers = {key: own + 1 for key, own in NUMBERS.items()}
        np.save(folder / f"from_one_{subject}.npy", {"encoding_models": numbers}, allow_pickle=True)
    return f"{folder}/from_one_{{subject}}.npy"


def test_eeg_brings_channels_and_times(recordings):
    epochs = RNG.normal(size=(7, 2, 3)).astype(np.float32)
    np.save(recordings / "eeg.npy", epochs)
    metadata = {"eeg": {"ch_names": ["Oz", "Pz"], "times": [0.0, 0.005, 0.01]}, "encoding_models": NUMBERS}
    np.save(recordings / "eeg_metadata.npy", metadata, allow_pickle=True)
    path = write_published_dataset(
        recordings / "eeg", stimuli=f"{recordings}/nsd_stimuli.hdf5", metadata=f"{recordings}/eeg_metadata.npy",
        responses={"responses": f"{recordings}/eeg.npy"}, subjects=[3], unit="µV",
    )  # fmt: skip
    data = EncodingDataset.open(path).outputs["responses"]
    assert (data.axes, data.unit) == (("channel", "time"), "µV")
    np.testing.assert_array_equal(data.mean([20, 0]), epochs[[0, 6]].reshape(2, 6))
    assert data.coordinates["time"][1].tolist() == [0, 0.005, 0.01]


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_nothing_in_the_metadata_is_run(recordings, capsys):
    np.save(recordings / "metadata_subject-01.npy", {"encoding_models": Evil()}, allow_pickle=True)
    with pytest.raises(UnsafeFileError):
        write_published_dataset(recordings / "nsd", **given(recordings))
    assert capsys.readouterr().out == ""


WRONG = {
    "no subjects": ({"subjects": []}, InvalidParameterError, "Which subjects"),
    "the order": (
        {"order": "random"},
        InvalidParameterError,
        "order is 'random'. Allowed: splits, ascending, or a file",
    ),
    "the name": ({"metadata": "m_{sub}.npy"}, InvalidParameterError, r"with subject 1: .* Write \{subject\}"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case, recordings):
    change, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        write_published_dataset(recordings / "nsd", **given(recordings, **change))


def test_metadata_without_pictures_are_refused(recordings):
    np.save(recordings / "metadata_subject-01.npy", {"encoding_models": {"r2": 0}}, allow_pickle=True)
    with pytest.raises(DatasetError, match="names no pictures: encoding_models holds r2, and not train_img_num"):
        write_published_dataset(recordings / "nsd", **given(recordings))


def test_responses_that_do_not_fit_are_refused_and_nothing_is_written_twice(recordings):
    with h5py.File(recordings / "betas_subject-02.h5", "a") as file:
        del file["lh"]
        file["lh"] = np.zeros((6, 3))
    with pytest.raises(DatasetError, match="have 6 rows; there are 30 stimuli and 7 presentations"):
        write_published_dataset(recordings / "nsd", **given(recordings))
    with pytest.raises(StorageError, match=r"dataset\.yaml is there already"):
        write_published_dataset(recordings / "nsd", **given(recordings))
