import struct
import sys

import av
import numpy as np
import pytest
from PIL import Image

import berg
from berg.core.exceptions import InvalidParameterError, MissingExtraError, MissingFileError, StimulusError
from berg.stimuli.videos import VideoFrames

N_FRAMES, HEIGHT, WIDTH = 40, 48, 64
FFV1 = {"codec": "ffv1", "pix_fmt": "bgr0"}  # loses nothing


def grey_of(place):
    """Each frame has its own grey, which no codec mistakes for its neighbour's."""
    return 5 * place + 20


def write_video(
    path, *, codec="libx264", pix_fmt="yuv420p", n_frames=N_FRAMES, pictures=None, times=None, rate=25, **options
):
    """A clip of frames, 25 per second, each of one grey with a red upper left corner."""
    if pictures is None:
        pictures = np.empty((n_frames, HEIGHT, WIDTH, 3), np.uint8)
        pictures[:] = grey_of(np.arange(n_frames))[:, None, None, None]
        pictures[:, :16, :16] = (255, 0, 0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt, stream.bit_rate = pix_fmt, 10_000_000
        for place, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = place if times is None else times[place]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def greys(frames):
    return frames[:, :, 32:, 32:].mean(axis=(1, 2, 3))


# What is in the index of a file, and how far a decoder must look ahead, differs between these.
FILES = {
    "mp4 with B-frames": ("clip.mp4", {"g": "12", "bf": "3"}),
    "mp4, open groups": ("clip.mp4", {"g": "10", "bf": "3", "x264-params": "open-gop=1"}),
    "avi": ("clip.avi", {"codec": "mpeg4", "g": "9"}),
    "webm": ("clip.webm", {"codec": "libvpx-vp9", "g": "10"}),
    "mkv": ("clip.mkv", FFV1),
    "mpeg": ("clip.mpg", {"codec": "mpeg2video", "g": "8", "bf": "2"}),
    "transport stream": ("clip.ts", {"g": "12", "bf": "2"}),
}


@pytest.mark.parametrize("file", FILES)
def test_any_slice_has_the_frames_of_a_video_played_from_the_start(file, tmp_path):
    name, options = FILES[file]
    video = VideoFrames(write_video(tmp_path / name, **options))
    assert video.shape == (N_FRAMES, 3, HEIGHT, WIDTH)
    assert video.dtype == np.uint8
    assert len(video) == N_FRAMES
    np.testing.assert_allclose(video.times, np.arange(N_FRAMES) / 25, atol=0.001)
    whole = video[:]
    assert whole.dtype == np.uint8
    np.testing.assert_allclose(greys(whole), grey_of(np.arange(N_FRAMES)), atol=2.5)
    with av.open(str(tmp_path / name)) as played:
        expected = [frame.to_ndarray(format="rgb24") for frame in played.decode(video=0)]
    np.testing.assert_array_equal(whole, np.stack(expected).transpose(0, 3, 1, 2))
    for places in (slice(33, 36), slice(2, 5), slice(5, 6), slice(11, 14), slice(39, 40), slice(0, 40, 7)):
        np.testing.assert_array_equal(video[places], whole[places])


def test_colours_and_rows_are_where_they_were(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), np.uint8)
    video = berg.load_video(write_video(tmp_path / "clip.mkv", pictures=picture, **FFV1))
    np.testing.assert_array_equal(video[:], picture.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("fit", ["center_crop", "squash", "pad"])
def test_frames_are_brought_to_a_size_as_pictures_are(fit, tmp_path):
    path = write_video(tmp_path / "clip.mkv", **FFV1)
    pictures = [Image.fromarray(frame.transpose(1, 2, 0)) for frame in VideoFrames(path)[:3]]
    video = VideoFrames(path, 24, fit)
    assert video.shape == (N_FRAMES, 3, 24, 24)
    np.testing.assert_array_equal(video[:3], berg.load_images(pictures, 24, fit))


def test_some_frames_keep_their_times(tmp_path):
    path = write_video(tmp_path / "clip.mkv", **FFV1)
    video = VideoFrames(path, places=slice(10, None, 10))
    assert video.names == pytest.approx([0.4, 0.8, 1.2])
    np.testing.assert_allclose(greys(video[1:]), [grey_of(20), grey_of(30)], atol=1)
    with pytest.raises(InvalidParameterError, match=r"no frame at slice\(50, None, None\) of the 40 of .*clip.mkv"):
        VideoFrames(path, places=slice(50, None))


def test_frames_that_are_not_evenly_spaced_have_the_times_of_the_file(tmp_path):
    times = [0, 1, 2, 10, 11, 30]  # of 1 / 25 s
    video = VideoFrames(write_video(tmp_path / "clip.mkv", times=times, n_frames=6, **FFV1))
    np.testing.assert_allclose(video.times, np.array(times) / 25, atol=0.001)
    np.testing.assert_allclose(greys(video[3:4]), grey_of(3), atol=1)


def test_a_video_that_was_turned_is_turned_back(tmp_path):
    path = write_video(tmp_path / "clip.mp4")
    data = bytearray(path.read_bytes())
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # as a phone held upright writes
    start = data.index(upright, data.index(b"tkhd"))
    data[start : start + len(upright)] = clockwise
    path.write_bytes(data)
    video = VideoFrames(path)
    assert video.shape == (N_FRAMES, 3, WIDTH, HEIGHT)
    red, green, _ = video[:1].astype(int)[0]
    assert (red - green)[:12, -12:].min() > 150  # the upper left corner is now the upper right one
    assert abs((red - green)[:, :-20]).max() < 60


def test_nothing_but_a_slice_is_read(tmp_path):
    video = VideoFrames(write_video(tmp_path / "clip.mkv", **FFV1))
    with pytest.raises(InvalidParameterError, match=r"read by slices, got 3\. Try video\[3:4\]"):
        video[3]


@pytest.mark.parametrize("content", [b"", b"no video at all", bytes(3000)])
def test_what_is_no_video_is_named(content, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(StimulusError, match=r"clip.mp4 is not a video that can be read"):
        VideoFrames(tmp_path / "clip.mp4")


@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ffconcat"])
def test_a_list_of_other_files_is_not_followed_whatever_its_name(name, tmp_path):
    write_video(tmp_path / "other.ts", codec="mpeg2video")
    lists = {
        "list.m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\nother.ts\n#EXT-X-ENDLIST\n"
    }
    (tmp_path / name).write_text(lists.get(name, "ffconcat version 1.0\nfile other.ts\n"))
    with av.open(str(tmp_path / name)) as opened:
        assert len(list(opened.decode(video=0))) == N_FRAMES  # FFmpeg by itself does follow
    with pytest.raises(StimulusError, match=f"{name} is not a video that can be read"):
        VideoFrames(tmp_path / name)


def test_a_file_name_is_no_address(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4").rename(tmp_path / "http:a%03d.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(VideoFrames("http:a%03d.mp4")) == N_FRAMES


def test_a_file_with_sound_alone_is_named(tmp_path):
    with av.open(str(tmp_path / "tone.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(StimulusError, match=r"tone.mkv holds no video"):
        VideoFrames(tmp_path / "tone.mkv")


def test_a_missing_file_and_a_wrong_fit_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"There is no file .*gone.mp4"):
        VideoFrames(tmp_path / "gone.mp4")
    with pytest.raises(InvalidParameterError, match=r"fit is 'stretch'\. Allowed: center_crop, squash, pad"):
        VideoFrames(tmp_path / "gone.mp4", 24, "stretch")


def lose_frame(video, place):
    """Let the decoder leave a frame out, as it does with those that it cannot make sense of."""
    reader = video._reader
    seek = reader._seek

    def losing(stamp):
        seek(stamp)
        reader.decoded = (frame for frame in reader.decoded if frame.pts != reader.stamps[place])

    reader._seek = losing
    reader.next = -1


@pytest.mark.parametrize("file", ["mkv", "mp4 with B-frames"])
def test_a_frame_that_cannot_be_decoded_is_named_and_the_others_are_there(file, tmp_path):
    name, options = FILES[file]
    video = VideoFrames(write_video(tmp_path / name, **options))
    whole = video[:]
    lose_frame(video, 7)
    with pytest.raises(StimulusError, match=rf"Frame 7 of .*{name}, at 0\.280 s, cannot be decoded"):
        video[5:9]
    np.testing.assert_array_equal(video[8:12], whole[8:12])
    np.testing.assert_array_equal(video[2:7], whole[2:7])


def test_a_broken_off_file_has_the_frames_that_are_left(tmp_path):
    path = write_video(tmp_path / "clip.mkv", **FFV1)
    whole = VideoFrames(path)[:]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    left = VideoFrames(path)
    assert 5 < len(left) < N_FRAMES
    np.testing.assert_array_equal(left[: len(left) - 1], whole[: len(left) - 1])


def test_without_pyav_it_is_said_what_to_type(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mkv", **FFV1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r'pip install "berg\[video\]"'):
        VideoFrames(path)
