"""Films: one or several, from arrays and files, converted and as they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stimuli.test_videos import FFV1, write_video

import berg
from berg import BERG, Film, convert_film, load_film, load_video
from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, MissingFileError, StimulusError
from berg.stimuli.films import frames_at
from berg.stimuli.open import open_stimuli

EXPECTED = StimulusInput(
    kind="video", shape=["batch_size", "n_frames", 144, 256], dtype="uint8", range=(0, 255), frame_rate=30
)
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 144, 256), dtype=np.uint8)
COLOUR = np.repeat(np.repeat(RNG.integers(0, 256, (10, 20, 30, 3), dtype=np.uint8), 12, 1), 12, 2)  # (10, 240, 360, 3)


def luma(frames: Any) -> Any:
    """PIL's formula, in whole numbers."""
    weights = np.array([19595, 38470, 7471])
    return (frames.astype(int) @ weights + 0x8000) >> 16


def video(path: Any, pictures: Any, rate: int = 30) -> Any:
    write_video(path, pictures=pictures, n_frames=len(pictures), rate=rate, **FFV1)
    return path


@pytest.mark.parametrize(
    ("rate", "to_rate", "n_frames"), [(30, 30, 7), (15, 30, 5), (60, 30, 9), (25, 30, 50), (24, 30, 24), (30, 25, 60)]
)
def test_at_each_time_the_frame_is_taken_that_is_shown_then(rate, to_rate, n_frames):
    taken = frames_at(np.arange(n_frames) / rate, to_rate, 1 / rate)
    expected = [int(np.floor(i * rate / to_rate + 1e-9)) for i in range(int(np.ceil(n_frames * to_rate / rate - 1e-9)))]
    assert taken.tolist() == expected


def test_times_that_a_file_rounds_change_nothing():
    exact = np.arange(300) / 30
    assert frames_at(np.round(exact, 3), 30).tolist() == list(range(300))
    assert frames_at(np.floor(exact * 1000) / 1000, 30).tolist() == list(range(300))
    assert frames_at(np.array([0.0]), 30).tolist() == [0]
    assert frames_at(np.array([0.0, 0.5, 0.6]), 10).tolist() == [0] * 5 + [
        1,
        *[2] * 3,
    ]  # unevenly, as long as on average


@pytest.mark.parametrize("axis", [1, 3])
def test_arrays_become_grey_of_the_size_at_the_rate(axis):
    frames = COLOUR if axis == 3 else COLOUR.transpose(0, 3, 1, 2)
    film = convert_film(frames, frame_rate=15, fit="squash")
    assert film.shape == (20, 144, 256)
    assert film.dtype == np.uint8
    for index in range(20):
        grey = Image.fromarray(luma(COLOUR[index // 2]).astype(np.uint8))
        expected = np.asarray(grey.resize((256, 144), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(film[index], expected)


def test_a_film_that_fits_stays_as_it_is():
    np.testing.assert_array_equal(convert_film(GREY, frame_rate=30), GREY)
    np.testing.assert_array_equal(convert_film(GREY.astype(np.int64), frame_rate=30), GREY)


def test_proportions_are_kept_by_cropping_or_padding():
    frames = np.full((1, 288, 256), 200, np.uint8)  # twice as high as the film: the middle half is kept
    frames[:, :72], frames[:, -72:] = 0, 255
    assert (convert_film(frames, 30)[0, 4:-4] == 200).all()
    padded = convert_film(frames, 30, fit="pad")[0]
    assert (padded[:, :60] == 128).all()
    assert padded[72, 128] == 200


@pytest.mark.parametrize(
    ("frames", "options", "words"),
    [
        (np.zeros((5, 4, 10, 10), np.uint8), {}, "allowed are"),
        (np.zeros((10, 10), np.uint8), {}, "allowed are"),
        (np.zeros((5, 10, 10)), {}, r'astype\("uint8"\)'),
        (np.full((5, 10, 10), 256), {}, r"\[256, 256\]"),
        (GREY, {"frame_rate": 0}, "frame_rate must be frames per second"),
        (GREY, {"to_rate": "fast"}, "to_rate must be"),
        (GREY, {"fit": "zoom"}, "Allowed: center_crop"),
        (GREY, {"size": 144}, "size must be height and width|size"),
    ],
)
def test_what_cannot_be_converted_is_refused(frames, options, words):
    with pytest.raises((StimulusError, InvalidParameterError), match=words):
        convert_film(frames, **{"frame_rate": 30, **options})


def test_files_are_converted_when_they_are_read(tmp_path):
    path = video(tmp_path / "a.mkv", COLOUR, 15)
    film = load_film(path, fit="squash", behaviour=[0.5, 1])
    assert film.shape == (20, 144, 256)
    assert film.files == [path]
    expected = convert_film(load_video(path)[:], frame_rate=15, fit="squash")
    np.testing.assert_array_equal(film[:], expected)
    np.testing.assert_array_equal(film[7:9], expected[7:9])
    np.testing.assert_array_equal(film.observed(slice(3, 5)), [[0, 0, 0.5, 1]] * 2)


def test_a_file_of_the_size_and_rate_is_one_film(tmp_path):
    pictures = np.repeat(GREY[..., None], 3, -1)
    path = video(tmp_path / "a.mkv", pictures)
    for given in (path, str(path), load_video(path), load_film(path), GREY, Film(GREY), list(GREY)):
        stimuli = open_stimuli(given, EXPECTED)
        assert (len(stimuli), stimuli.shape) == (12, (144, 256))
        np.testing.assert_array_equal(stimuli.read(slice(2, 9)), GREY[2:9])
    folder = tmp_path / "films"
    folder.mkdir()
    video(folder / "b.mkv", pictures[:5])
    video(folder / "a.mkv", pictures[5:10])
    for several in (folder, [folder / "a.mkv", folder / "b.mkv"], np.stack([GREY[5:10], GREY[:5]]),
                    [GREY[5:10], Film(GREY[:5])], [load_film(folder / "a.mkv"), folder / "b.mkv"]):  # fmt: skip
        stimuli = open_stimuli(several, EXPECTED)
        assert (len(stimuli), stimuli.shape) == (2, (5, 144, 256))
        np.testing.assert_array_equal(stimuli.read(slice(0, 2)), [GREY[5:10], GREY[:5]])


@pytest.mark.parametrize(
    ("pictures", "rate", "words"),
    [
        (np.repeat(GREY[..., None], 3, -1), 25, r"144 x 256 pixels \(height x width\), 25 per second"),
        (COLOUR, 30, r"240 x 360 pixels \(height x width\), 30 per second"),
    ],
)
def test_a_file_of_another_size_or_rate_is_refused_with_how_to_convert_it(tmp_path, pictures, rate, words):
    path = video(tmp_path / "a.mkv", pictures, rate)
    for given in (path, [path], load_video(path)):
        with pytest.raises(StimulusError, match=words) as raised:
            open_stimuli(given, EXPECTED)
        assert f"berg.load_film('{path}')" in str(raised.value)
        assert "ffmpeg -i a.mkv -vf" in str(raised.value)
    with pytest.raises(MissingFileError):
        open_stimuli(tmp_path / "none.mp4", EXPECTED)


def test_rows_with_the_animal_hold_its_numbers():
    eye, behaviour = RNG.normal(size=(2, 12, 2)).astype(np.float32)
    stimuli = open_stimuli(Film(GREY, eye, behaviour), EXPECTED)
    assert stimuli.shape == (145, 256)
    rows = stimuli.read(slice(4, 6))
    np.testing.assert_array_equal(rows[:, :144], GREY[4:6])
    held = np.ascontiguousarray(rows[:, 144, :16]).view(np.float32)
    np.testing.assert_array_equal(held, np.concatenate([eye, behaviour], 1)[4:6])
    mixed = open_stimuli([GREY, Film(GREY, eye)], EXPECTED).read(slice(0, 2))
    assert mixed.shape == (2, 12, 145, 256)
    assert not mixed[0, :, 144].any()


def test_a_film_of_a_film_keeps_what_is_not_given_anew():
    film = Film(Film(GREY, eye_position=[1, 2]), behaviour=[3, 4])
    assert film.observed(slice(0, 1)).tolist() == [[1, 2, 3, 4]]
    assert film.read_as == "frames of a film, eye_position, behaviour"
    with pytest.raises(StimulusError, match=r"\(n_frames, height, width\), got \(3, 4\)"):
        Film(np.zeros((3, 4), np.uint8))


def test_the_names_are_public():
    assert {"Film", "load_film", "convert_film"} <= set(dir(berg))


@pytest.mark.parametrize("kind", ["image", "sound"])
def test_only_videos_have_a_frame_rate(kind, tmp_path):
    from berg.core.card_check import _wrong_input

    given = StimulusInput(
        kind=kind, shape="[batch_size, 3]", frame_rate=30, sampling_rate=9 if kind == "sound" else None
    )
    faults = [text for _, text in _wrong_input(SimpleNamespace(input=given))]
    assert any("takes no frame_rate" in text for text in faults)


def test_a_film_for_a_model_of_pictures_is_refused_in_words():
    with pytest.raises(StimulusError, match="shape"):
        BERG().encode("fmri-szinte2024-prf_css", Film(GREY), device="cpu")
