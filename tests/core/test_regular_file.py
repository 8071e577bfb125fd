"""Pipes and devices are named at once: who opens a pipe waits for ever."""

import os
from contextlib import nullcontext

import numpy as np
import pytest

from berg.core.card_yaml import read_card_yaml
from berg.core.exceptions import InvalidParameterError
from berg.core.regular_file import check_regular_file
from berg.datasets.label_files import read_labels
from berg.datasets.response_files import open_responses
from berg.stimuli.arrays import open_array
from berg.stimuli.images import load_images
from berg.stimuli.sounds import read_sound, sound_files
from berg.stimuli.videos import load_video
from berg.transfer.fetch import WantedFile, fetch
from berg.weights.manifest import read_manifest
from berg.weights.model_archive import ModelArchive

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
READERS = {
    ".npy": open_array,
    ".h5": open_array,
    ".mat": open_array,
    ".png": load_images,
    ".wav": read_sound,
    ".yaml": read_card_yaml,
    ".mp4": load_video,
    ".tsv": read_manifest,
    ".zip": ModelArchive,
    "-sounds.wav": lambda path: sound_files([path]),
    "-labels.txt": read_labels,
    "-labels.npy": read_labels,
    **{f"-responses{ending}": open_responses for ending in (".npy", ".npz", ".h5", ".nii", ".nii.gz", ".gii", ".mgh")},
    "-epo.fif": open_responses,
}


@pytest.mark.parametrize("ending", READERS)
def test_a_named_pipe_is_refused_by_every_reader(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    os.mkfifo(path)
    with pytest.raises(InvalidParameterError, match=r"is a named pipe; .* cat .* > FILE"):
        READERS[ending](path)


def test_a_device_a_link_to_a_pipe_and_the_description_of_a_zarr_store_are_refused(tmp_path):
    with pytest.raises(InvalidParameterError, match="/dev/null is a device"):
        open_array("/dev/null")
    (tmp_path / "s.zarr").mkdir()
    os.mkfifo(tmp_path / "s.zarr" / "zarr.json")
    with pytest.raises(InvalidParameterError, match=r"zarr\.json is a named pipe"):
        open_array(tmp_path / "s.zarr")
    (tmp_path / "link.npy").symlink_to(tmp_path / "s.zarr" / "zarr.json")
    with pytest.raises(InvalidParameterError, match=r"link\.npy is a named pipe"):
        open_array(tmp_path / "link.npy")


def test_a_pipe_in_a_mirror_is_refused(tmp_path):
    (tmp_path / "mirror").mkdir()
    os.mkfifo(tmp_path / "mirror" / "weights.npy")
    with pytest.raises(InvalidParameterError, match=r"weights\.npy is a named pipe"):
        fetch((tmp_path / "mirror").as_uri(), [WantedFile("weights.npy")], tmp_path / "out")


def test_files_folders_and_what_is_not_there_pass(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    for path in (tmp_path / "a.npy", tmp_path, tmp_path / "none", "\0"):
        with nullcontext():
            check_regular_file(path)
    assert open_array(tmp_path / "a.npy").shape == (2, 3)
