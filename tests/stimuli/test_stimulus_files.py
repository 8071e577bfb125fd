"""Which files a folder stands for, and in which order."""

import os
import re
import sys
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import wavfile

from berg import BERG, load_images
from berg.cli.app import main
from berg.core.exceptions import DatasetError, MissingFileError, StimulusError
from berg.encoding.stream import DamagedStimulusWarning, encode_to_store
from berg.stimuli.images import image_files
from berg.stimuli.sounds import sound_files
from berg.stimuli.stimulus_files import StimulusOrderWarning, file_names, natural_key
from berg.stimuli.stimulus_set import files_of

V1 = "fmri-szinte2024-prf_css"
FEW = {"min_held_out_r2": 0.6}


def picture(path, value=0):
    Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(path)
    return path


def sound(path):
    wavfile.write(path, 44_100, np.zeros(100, np.int16))
    return path


@given(st.lists(st.integers(0, 10**6), unique=True), st.sampled_from(["{}", "img{}.png", "s{}_r1", "x{}y{}"]))
@settings(deadline=None)
def test_the_natural_order_is_that_of_the_numbers(numbers, form):
    names = [form.format(number, number) for number in numbers]
    assert sorted(names, key=natural_key) == [form.format(number, number) for number in sorted(numbers)]


def test_an_order_that_is_not_that_of_the_numbers_is_said_once(tmp_path):
    for number in (1, 2, 10):
        picture(tmp_path / f"img{number}.png", number)
    with pytest.warns(StimulusOrderWarning, match=r"img10\.png is number 1 \(from 0\), where img2\.png would") as told:
        assert load_images(tmp_path)[:, 0, 0, 0].tolist() == [1, 10, 2]
    assert len(told) == 1
    with pytest.warns(StimulusOrderWarning) as told:
        labelled = BERG().encode(V1, tmp_path, selection=FEW, labelled=True)
    of_order = [each for each in told if each.category is StimulusOrderWarning]
    assert len({(str(each.message), each.lineno) for each in of_order}) == 1  # which Python shows once
    assert labelled.stimulus.values.tolist() == ["img1.png", "img10.png", "img2.png"]


def test_padded_numbers_and_files_in_a_list_are_not_spoken_of(tmp_path):
    padded = [picture(tmp_path / f"img{number:02d}.png") for number in (1, 2, 10)]
    assert image_files([tmp_path]) == padded
    for number in (2, 10):
        picture(tmp_path / f"{number}.png")
    listed = [tmp_path / "10.png", tmp_path / "2.png"]
    assert image_files(listed) == listed


def test_what_is_no_stimulus_is_left_out_of_folders_of_either_kind(tmp_path):
    for name in ("._a.wav", ".b.wav", "how_recorded.pdf", "notes.txt", "analysis.h5", "movie.swf", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "folder.wav").mkdir()
    wanted = [sound(tmp_path / "a.WAV")]
    assert sound_files([tmp_path]) == files_of(tmp_path) == wanted


def test_a_folder_of_pictures_and_sounds_is_refused_for_a_dataset(tmp_path):
    picture(tmp_path / "cover.png")
    sound(tmp_path / "a.wav")
    with pytest.raises(DatasetError, match=r"1 pictures \(such as cover\.png\) and 1 sounds .*files: LIST"):
        files_of(tmp_path)
    assert [file.name for file in sound_files([tmp_path])] == ["a.wav"]


@pytest.fixture
def annexed(tmp_path):
    """Six pictures, of which the first and the fourth are links to nothing, as git-annex and datalad leave them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        if number in (0, 3):
            (folder / f"{number}.png").symlink_to(tmp_path / ".git/annex/objects" / f"{number}")
        else:
            picture(folder / f"{number}.png", 40 * number)
    return folder


def test_links_to_nothing_are_named(annexed, tmp_path):
    words = r"2 of 6 stimuli are links to files that are not there: \S+0\.png, \S+3\.png\. Fetch them"
    for call in (
        lambda: BERG().encode(V1, annexed, selection=FEW),
        lambda: BERG().encode(V1, annexed, selection=FEW, out=tmp_path / "r.zarr"),
        lambda: files_of(annexed),
    ):
        with pytest.raises(MissingFileError, match=words):
            call()
    with pytest.raises(StimulusError, match=r"0\.png"):
        load_images(annexed)


def test_links_to_nothing_can_be_skipped(annexed, tmp_path):
    there = [1, 2, 4, 5]
    whole = BERG().encode(V1, [annexed / f"{number}.png" for number in there], selection=FEW)
    model = BERG().get_encoding_model(V1, selection=FEW)
    with pytest.warns(DamagedStimulusWarning, match=r"2 of 6 stimuli could not be read.*: 0\.png, 3\.png"):
        found = encode_to_store(model, annexed, tmp_path / "r.zarr", on_damaged="skip").load()
    assert np.isnan(found["responses"].values[[0, 3]]).all()
    np.testing.assert_allclose(found["responses"].values[there], whole, rtol=1e-5)


@pytest.mark.parametrize("size", [[], ["--size", "16"]])
def test_the_command_skips_links_to_nothing_or_names_them(size, annexed, tmp_path, capsys):
    tokens = ["encode", V1, "--images", str(annexed), "--out", str(tmp_path / "r.zarr"), *size]
    with pytest.raises(SystemExit):
        main(tokens)
    assert "links to files that are not there" in (said := capsys.readouterr().err)
    assert "--on-damaged skip" in said
    with warnings.catch_warnings(action="default"):
        main([*tokens, "--on-damaged", "skip"])
    printed = capsys.readouterr()
    assert "Order of the stimuli: from 0.png to 5.png" in printed.out
    assert re.search(r"(?m)^warning: .* could not be read", printed.err)


def test_files_of_one_name_in_two_folders_keep_two_names(tmp_path):
    files = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        files.append(picture(tmp_path / folder / "a.png"))
    assert file_names(files) == ["one/a.png", "two/a.png"]
    labelled = BERG().encode(V1, [str(file) for file in files], selection=FEW, labelled=True)
    assert labelled.stimulus.values.tolist() == ["one/a.png", "two/a.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_name_that_is_no_text_is_refused(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    picture(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", path)
    with pytest.raises(StimulusError, match=r"caf\\xe9.*Rename it"):
        file_names(image_files([tmp_path]))
    with warnings.catch_warnings():
        assert load_images(tmp_path).shape == (1, 3, 32, 32)


def nested(tmp_path):
    for name in ("faces/b.png", "faces/a.png", "faces/old/c.png", ".trash/d.png", "houses/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(tmp_path / name)
    (tmp_path / "again").symlink_to(tmp_path / "faces")


def test_folders_of_a_folder_are_taken_when_asked_for(tmp_path):
    nested(tmp_path)
    words = r"holds no picture .*Its folders do \(again, faces, houses\); take all of them with --recursive"
    with pytest.raises(MissingFileError, match=words):
        image_files([tmp_path])
    wanted = ["faces/a.png", "faces/b.png", "faces/old/c.png", "houses/a.png"]
    assert file_names(image_files([tmp_path], recursive=True)) == wanted
    assert len(load_images(tmp_path, recursive=True)) == 4


def test_the_command_takes_folders_of_a_folder(tmp_path):
    nested(tmp_path)
    words = ["encode", V1, "--images", str(tmp_path), "--recursive", "--selection", "min_held_out_r2=0.6", "-q"]
    main([*words, "--out", str(tmp_path / "r.nc")])
    names = xr.open_dataset(tmp_path / "r.nc").stimulus.values.tolist()
    assert names == ["faces/a.png", "faces/b.png", "faces/old/c.png", "houses/a.png"]
