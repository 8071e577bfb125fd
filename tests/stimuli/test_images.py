import struct
import subprocess
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngImageFile

import berg
from berg.core.exceptions import InvalidParameterError, MissingFileError, StimulusError
from berg.stimuli.images import image_files, load_images, picture_size

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype="uint8")


def saved(folder, picture, name="picture.png", **options):
    path = folder / name
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(path, **options)
    return path


def test_a_picture_that_says_it_is_too_large_for_the_memory_is_named(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(PngImageFile, "load", full)
    with pytest.raises(StimulusError, match=r"a\.png says that it has so many pixels"):
        load_images([tmp_path / "a.png"])


def test_pictures_come_as_stimuli_first_channels_second(tmp_path):
    files = [saved(tmp_path, RGB, "a.png"), saved(tmp_path, 255 - RGB, "b.bmp")]
    images = load_images(files)
    assert images.dtype == np.uint8
    assert images.shape == (2, 3, 6, 9)
    np.testing.assert_array_equal(images[0], np.moveaxis(RGB, 2, 0))
    np.testing.assert_array_equal(images[1], 255 - np.moveaxis(RGB, 2, 0))


def test_one_picture_keeps_its_axis(tmp_path):
    assert load_images([str(saved(tmp_path, RGB))]).shape == (1, 3, 6, 9)


UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_picture_is_turned_as_its_camera_says(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, RGB, exif=exif)
    expected = UPRIGHT[orientation](RGB)  # the EXIF standard's table of where the 0th row and column lie
    np.testing.assert_array_equal(load_images([path])[0], np.moveaxis(expected, 2, 0))


def test_alpha_is_laid_on_mid_grey(tmp_path):
    picture = np.zeros((1, 3, 4), "uint8")
    picture[0] = [[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]
    found = load_images([saved(tmp_path, picture)])[0, :, 0, :].T
    np.testing.assert_array_equal(found[:2], [[200, 100, 0], [128, 128, 128]])
    np.testing.assert_allclose(found[2], 0.2 * np.array([200, 100, 0]) + 0.8 * 128, atol=1)


def test_grey_has_three_equal_channels(tmp_path):
    found = load_images([saved(tmp_path, RGB[..., 0])])[0]
    np.testing.assert_array_equal(found, np.broadcast_to(RGB[..., 0], (3, 6, 9)))


def test_grey_with_alpha_is_laid_on_mid_grey(tmp_path):
    found = load_images([saved(tmp_path, np.array([[[10, 255], [10, 0]]], "uint8"))])
    assert found[0, :, 0].tolist() == [[10, 128]] * 3


def test_black_and_white_is_0_and_255(tmp_path):
    found = load_images([saved(tmp_path, np.array([[True, False]]))])
    assert found[0, :, 0].tolist() == [[255, 0]] * 3


def palette_picture():
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([0, 1])
    return picture


def test_a_palette_is_looked_up(tmp_path):
    assert load_images([saved(tmp_path, palette_picture())])[0, :, 0].T.tolist() == [[10, 20, 30], [40, 50, 60]]


def test_a_transparent_colour_of_a_palette_is_mid_grey(tmp_path):
    path = saved(tmp_path, palette_picture(), "picture.gif", transparency=1)
    assert load_images([path])[0, :, 0].T.tolist() == [[10, 20, 30], [128, 128, 128]]


def test_cmyk_becomes_rgb(tmp_path):
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], "uint8")
    path = saved(tmp_path, Image.frombytes("CMYK", (3, 1), inks.tobytes()), "picture.tif")
    assert load_images([path])[0, :, 0].T.tolist() == [[255, 255, 255], [0, 255, 255], [0, 0, 0]]


@pytest.mark.parametrize(
    ("picture", "name"),
    [
        (np.full((2, 2), 40_000, "int32"), "deep.tif"),
        (np.full((2, 2), 0.5, "float32"), "deep.tif"),
    ],
)
def test_32_bits_are_refused(picture, name, tmp_path):
    with pytest.raises(StimulusError, match=rf"{name} has 32 bits per channel, .*; convert it to 8 or 16 bits first"):
        load_images([saved(tmp_path, picture, name)])


def test_a_cmyk_jpeg_shows_the_colours_of_its_inks(tmp_path):
    inks = np.zeros((8, 24, 4), "uint8")
    inks[:, 8:16, 1], inks[:, 16:, 3] = 255, 255
    path = saved(tmp_path, Image.frombytes("CMYK", (24, 8), inks.tobytes()), "picture.jpg", quality=95)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(load_images(path)[0].transpose(1, 2, 0), np.asarray(opened.convert("RGB")))
    found = load_images(path)[0, :, 4, [4, 12, 20]]
    np.testing.assert_allclose(found, [[255, 255, 255], [255, 0, 255], [0, 0, 0]], atol=8)


DEEP = np.array([[0, 1, 128, 129, 256, 40_000], [65_535, 65_407, 65_406, 257, 255, 514]], "uint16")


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.ppm"])
def test_grey_of_16_bits_is_scaled_not_clipped(name, tmp_path):
    found = load_images([saved(tmp_path, DEEP, name)])[0]
    np.testing.assert_array_equal(found, np.broadcast_to(np.round(DEEP / 257), (3, 2, 6)))


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bits_are_read_in_either_order_of_bytes(byteorder, tmp_path):
    tifffile.imwrite(tmp_path / "deep.tif", DEEP, byteorder=byteorder)
    np.testing.assert_array_equal(load_images(tmp_path / "deep.tif")[0, 0], np.round(DEEP / 257))


def test_a_transparent_grey_of_16_bits_is_mid_grey(tmp_path):
    path = saved(tmp_path, DEEP, "deep.png", transparency=40_000)
    assert load_images(path)[0, :, 0, 4:].tolist() == [[1, 128]] * 3


def test_a_picture_of_16_bits_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    found = load_images(saved(tmp_path, DEEP, "deep.png", exif=exif))[0, 0]
    np.testing.assert_array_equal(found, np.rot90(np.round(DEEP / 257), -1))


def test_colours_of_16_bits_are_scaled_to_within_one(tmp_path):
    deep = np.random.default_rng(2).integers(0, 65_536, (5, 7, 3), dtype="uint16")
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    (tmp_path / "deep.png").write_bytes(png(7, 5, 16, zlib.compress(rows)))
    np.testing.assert_allclose(load_images(tmp_path / "deep.png")[0], deep.transpose(2, 0, 1) / 257, atol=1)


def test_the_first_of_several_frames_is_taken(tmp_path):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    path = tmp_path / "film.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert load_images([path])[0, :, 0, 0].tolist() == [255, 0, 0]


def test_different_sizes_are_refused_with_what_to_type(tmp_path):
    files = [saved(tmp_path, RGB, "a.png"), saved(tmp_path, RGB, "b.png"), saved(tmp_path, RGB[:4, :5], "c.png")]
    words = r"different sizes \(9 x 6 in .*a.png, 5 x 4 in .*c.png\). Bring them to one with size=224 .*--size 224"
    with pytest.raises(StimulusError, match=words):
        load_images(files)
    assert load_images(files, size=224).shape == (3, 3, 224, 224)


def centre_cropped(picture):
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) / 2, (width - side) / 2
    box = (left, top, left + side, top + side)
    return Image.fromarray(picture).resize((4, 4), Image.Resampling.BICUBIC, box=box)


@pytest.mark.parametrize("picture", [RGB, RGB.transpose(1, 0, 2)])
def test_center_crop_is_the_middle_square(picture, tmp_path):
    found = load_images([saved(tmp_path, picture)], size=4, fit="center_crop")
    np.testing.assert_array_equal(found[0], np.moveaxis(np.asarray(centre_cropped(picture)), 2, 0))


def test_center_crop_cuts_what_is_left_and_right_of_the_middle(tmp_path):
    picture = np.zeros((20, 60, 3), "uint8")
    picture[:, 20:40] = 90
    assert np.unique(load_images([saved(tmp_path, picture)], size=20)).tolist() == [90]


def test_squash_keeps_all_and_changes_the_proportions(tmp_path):
    picture = np.zeros((20, 60, 3), "uint8")
    picture[:, 30:] = 200
    found = load_images([saved(tmp_path, picture)], size=20, fit="squash")[0, 0]
    assert found[:, :8].max() < 5
    assert found[:, 12:].min() > 195
    np.testing.assert_allclose(found.mean(), picture.mean(), atol=1)


def test_pad_keeps_the_proportions_and_adds_mid_grey(tmp_path):
    picture = np.full((20, 60, 3), 7, "uint8")
    found = load_images([saved(tmp_path, picture)], size=60, fit="pad")[0]
    np.testing.assert_array_equal(found[:, 20:40], 7)
    np.testing.assert_array_equal(found[:, :20], 128)
    np.testing.assert_array_equal(found[:, 40:], 128)


@pytest.mark.parametrize("fit", ["center_crop", "squash", "pad"])
def test_a_square_picture_of_that_size_is_not_touched(fit, tmp_path):
    square = RGB[:6, :6]
    found = load_images([saved(tmp_path, square)], size=6, fit=fit)
    np.testing.assert_array_equal(found[0], np.moveaxis(square, 2, 0))


def test_a_picture_made_smaller_is_averaged_not_sampled(tmp_path):
    stripes = np.zeros((64, 64, 3), "uint8")
    stripes[:, ::2] = 255
    found = load_images([saved(tmp_path, stripes)], size=8)
    assert 120 < found[..., 2:-2].min() <= found[..., 2:-2].max() < 135


def test_a_folder_stands_for_its_pictures_sorted_by_name(tmp_path):
    for name in ("c.PNG", "a.jpg", "b.png"):
        saved(tmp_path, RGB, name)
    (tmp_path / "notes.txt").write_text("no picture")
    extra = tmp_path / "sub" / "z.png"
    extra.parent.mkdir()
    saved(extra.parent, RGB, "z.png")
    assert [file.name for file in image_files([extra, tmp_path])] == ["z.png", "a.jpg", "b.png", "c.PNG"]


def test_a_folder_is_loaded_in_the_order_of_names(tmp_path):
    for value, name in ((30, "c.png"), (10, "a.png"), (20, "b.png")):
        saved(tmp_path, np.full((2, 4, 3), value, "uint8"), name)
    images = berg.load_images(tmp_path)
    assert images.shape == (3, 3, 2, 4)
    assert images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(load_images(str(tmp_path)), images)


def test_folders_files_and_pil_images_come_in_the_order_given(tmp_path):
    (tmp_path / "two").mkdir()
    for value, name in ((20, "two/a.png"), (30, "two/b.png"), (10, "one.png")):
        saved(tmp_path, np.full((2, 2, 3), value, "uint8"), name)
    given = [tmp_path / "one.png", str(tmp_path / "two"), Image.new("RGB", (2, 2), (40, 40, 40))]
    assert load_images(given)[:, 0, 0, 0].tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize("given", [Image.fromarray(RGB), [Image.fromarray(RGB)]])
def test_one_pil_image_is_one_stimulus(given):
    np.testing.assert_array_equal(load_images(given), RGB.transpose(2, 0, 1)[None])


def test_what_macos_leaves_beside_a_picture_is_no_picture(tmp_path):
    picture = saved(tmp_path, RGB, "a.png")
    (tmp_path / "._a.png").write_bytes(b"no picture")
    assert image_files([tmp_path]) == [picture]


def test_a_damaged_picture_among_many_is_named(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        saved(tmp_path, RGB, name)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    with pytest.raises(StimulusError, match=r"b.png is not a picture that can be read"):
        load_images(tmp_path)


@pytest.mark.parametrize(("given", "words"), [("gone.jpg", "There is no file or folder gone.jpg"), ([], "No pictures")])
def test_pictures_that_are_not_there_are_refused(given, words):
    with pytest.raises(MissingFileError, match=words):
        load_images(given)


def test_a_folder_called_like_a_picture_is_no_picture(tmp_path):
    (tmp_path / "results.png").mkdir()
    picture = saved(tmp_path, RGB, "a.png")
    assert image_files([tmp_path]) == [picture]


def test_an_unknown_way_to_fit_is_refused(tmp_path):
    with pytest.raises(InvalidParameterError, match=r"fit.*'crop'.*center_crop, squash, pad"):
        load_images([saved(tmp_path, RGB)], size=4, fit="crop")


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_of_nothing_is_refused(size, tmp_path):
    with pytest.raises(InvalidParameterError, match=f"size must be .*{size}"):
        load_images([saved(tmp_path, RGB)], size=size)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["gone.png"], "There is no file or folder .*gone.png"),
        (["empty"], r"empty holds no picture \(.bmp, .gif, .*\.webp\)"),
        ([], "No pictures were given"),
    ],
)
def test_places_without_pictures_are_refused(places, words, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match=words):
        image_files([tmp_path / place for place in places])


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"P6 x y z", b"P6 2 2 255\n12", b"II*\0\x08\0\0\0"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_file_that_is_no_picture_is_refused(content, tmp_path):
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(StimulusError, match=r"notes.png is not a picture that can be read: "):
        load_images([path])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif", "a.webp", "a.ppm"])
def test_a_truncated_picture_is_refused(name, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype="uint8")
    path = saved(tmp_path, noise, name)
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(StimulusError, match=f"{name} is not a picture that can be read"):
        load_images([path])


def png(width, height, bits, compressed):
    """An RGB file, made by hand."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


def png_that_claims(width, height):
    """A file of a few bytes that says it is this large."""
    return png(width, height, 8, zlib.compress(b"\0" * 100))


def tiff(values, bits, photometric, byteorder="<", colours=None, orientation=1, odd=False):
    """A grey or palette TIFF of one strip, made by hand from TIFF 6.0; values of shape (height, width)."""
    height, width = values.shape
    packed = "".join(
        "".join(f"{value:0{bits}b}" for value in row).ljust(-(-width * bits // 8) * 8, "0") for row in values
    )
    data = int("1" + packed, 2).to_bytes(len(packed) // 8 + 1, "big")[1:]
    data = values.astype(f"{byteorder}u2").tobytes() if bits == 16 else data
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (274, orientation), (277, 1)]
    tags += [(273, 8), (278, height), (279, len(data))]
    extra = b"" if colours is None else np.asarray(colours, f"{byteorder}u2").T.tobytes()
    end = 8 + len(data) + len(data) % 2
    start = end + len(extra) + (8 if odd else 0)
    entries = [(tag, 3, 1, struct.pack(byteorder + "HH", value, 0)) for tag, value in tags]
    if colours is not None:
        entries.append((320, 3, 3 * len(colours), struct.pack(byteorder + "L", end)))
    if odd:  # a rational of -1 / 0
        entries.append((282, 10, 1, struct.pack(byteorder + "L", end + len(extra))))
        extra += struct.pack(byteorder + "ll", -1, 0)
    head = (b"II" if byteorder == "<" else b"MM") + struct.pack(byteorder + "HL", 42, start)
    directory = b"".join(struct.pack(byteorder + "HHL", *entry[:3]) + entry[3] for entry in sorted(entries))
    body = head + data + bytes(len(data) % 2) + extra
    return body + struct.pack(byteorder + "H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize(
    ("bits", "photometric", "byteorder"),
    [(12, 1, "<"), (16, 1, "<"), (16, 0, "<"), (16, 1, ">"), (8, 1, "<"), (8, 0, "<"), (4, 1, "<"), (4, 0, ">"),
     (2, 1, "<"), (2, 0, "<"), (1, 1, "<"), (1, 0, "<")],
)  # fmt: skip
def test_black_is_0_and_white_255_in_a_tiff_of_any_depth_whichever_number_they_have(
    bits, photometric, byteorder, tmp_path
):
    white = 2**bits - 1
    values = np.round(np.linspace(0, white, 12)).astype(int).reshape(3, 4)
    (tmp_path / "a.tif").write_bytes(tiff(values, bits, photometric, byteorder))
    shown = np.round(values / white * 255)
    np.testing.assert_array_equal(load_images(tmp_path / "a.tif")[0, 1], shown if photometric else 255 - shown)


@pytest.mark.parametrize("scale", [1, 257])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_palette_of_a_tiff_may_have_8_bits_or_16(bits, scale, tmp_path):
    colours = np.random.default_rng(3).integers(0, 256, (2**bits, 3))
    places = np.random.default_rng(4).integers(0, 2**bits, (3, 4))
    (tmp_path / "a.tif").write_bytes(tiff(places, bits, 3, colours=colours * scale))
    np.testing.assert_array_equal(load_images(tmp_path / "a.tif")[0], colours[places].transpose(2, 0, 1))


def test_what_pil_reads_wrongly_in_a_tiff_is_refused(tmp_path):
    planes = np.random.default_rng(5).integers(0, 65_536, (3, 4, 5), dtype="uint16")
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(StimulusError, match=r"a.tif has 16 bits .*planar.*Save it with the channels"):
        load_images(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", planes.astype("uint8"), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(load_images(tmp_path / "a.tif")[0], planes.astype("uint8"))


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_signed_numbers_in_a_tiff_are_refused(dtype, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[-100, 0, 100]], dtype))
    with pytest.raises(StimulusError, match=r"a.tif has signed numbers.*save it unsigned"):
        load_images(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("odd", [False, True])
def test_a_tiff_is_turned_once(orientation, odd, tmp_path):
    values = np.arange(12).reshape(3, 4)
    (tmp_path / "a.tif").write_bytes(tiff(values, 8, 1, orientation=orientation, odd=odd))
    expected = UPRIGHT[orientation](values[..., None])[..., 0]
    np.testing.assert_array_equal(load_images(tmp_path / "a.tif")[0, 0], expected)
    assert picture_size(tmp_path / "a.tif") == expected.shape[::-1]


def exif_with(tag, kind, raw):
    """EXIF data with the orientation 6 and one more tag of any type."""
    entries, data, place = b"", b"", 8 + 2 + 24 + 4
    for number, form, value in sorted([(0x112, 3, struct.pack("<H", 6)), (tag, kind, raw)]):
        if len(value) > 4:
            value, data = struct.pack("<L", place + len(data)), data + value
        entries += struct.pack("<HHL", number, form, 1) + value.ljust(4, b"\0")
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + b"\0\0\0\0" + data


@pytest.mark.parametrize(
    ("tag", "kind", "raw"),
    [
        (0x11A, 10, struct.pack("<ll", -1, 0)),
        (0x11A, 10, struct.pack("<ll", 2**31 - 1, -1)),
        (0x11A, 1, b"\x05"),
        (0x11A, 11, struct.pack("<f", float("nan"))),
        (0x11A, 11, struct.pack("<f", float("inf"))),
        (0x11A, 5, b"\x01\0"),
        (0x128, 2, b"two\0"),
        (0x10F, 3, b"\x05\0"),
        (0x8769, 4, struct.pack("<L", 10**6)),
        (0x8825, 4, struct.pack("<L", 1)),
        (0x9286, 7, b"x"),
    ],
)
@pytest.mark.parametrize("ending", ["jpg", "webp", "png"])
def test_odd_exif_data_beside_the_orientation_do_not_matter(tag, kind, raw, ending, tmp_path):
    path = saved(tmp_path, np.zeros((20, 40, 3), "uint8"), f"a.{ending}", exif=exif_with(tag, kind, raw))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL tells of a tag that reaches beyond the end
        assert load_images(path).shape == (1, 3, 40, 20)
        assert picture_size(path) == (20, 40)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM", b"Exif\0\0" + b"\xff" * 50]
)
def test_exif_data_that_cannot_be_read_leave_the_picture_as_it_is(exif, tmp_path):
    path = saved(tmp_path, np.zeros((20, 40, 3), "uint8"), "a.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_images(path).shape == (1, 3, 20, 40)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n0 0 20 20 rectfill\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["holiday.png", "holiday.eps", "holiday.jpg"])
def test_postscript_starts_no_program_whatever_its_name(name, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **_: started.append(given))
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **_: started.append(given))
    (tmp_path / name).write_bytes(POSTSCRIPT)
    for read in (load_images, picture_size):
        with pytest.raises(StimulusError, match=f"{name} is not a picture that can be read"):
            read(tmp_path / name)
    with (
        Image.open(tmp_path / name) as opened,
        pytest.raises(StimulusError, match=r"is PostScript, not a picture of pixels\. Save it as PNG"),
    ):
        load_images([opened])
    assert not started


@pytest.mark.parametrize("picture_format", ["ICO", "TGA", "PCX", "SGI", "PDF", "DDS"])
def test_formats_that_we_do_not_name_are_not_opened(picture_format, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(path, picture_format)
    with pytest.raises(StimulusError, match=r"a.png is not a picture that can be read"):
        load_images(path)


def test_nothing_in_the_package_opens_pictures_of_any_format():
    sources = sorted(Path(berg.__file__).parent.rglob("*.py"))
    opened = [line for path in sources for line in path.read_text("utf-8").splitlines() if "Image.open(" in line]
    assert [line.strip() for line in opened] == ["return Image.open(file, formats=FORMATS)"]


def test_a_decompression_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(100_000, 100_000))
    with pytest.raises(StimulusError, match=r"bomb.png is not a picture that can be read: .*decompression bomb"):
        load_images([path])


def test_a_picture_that_could_be_a_bomb_is_refused_where_warnings_are_errors(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png_that_claims(10_000, 10_000))  # PIL warns from 89 million pixels, and refuses twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StimulusError, match=r"large.png is not a picture that can be read"):
            load_images([path])


def test_transparent_parts_are_told_once_and_opaque_ones_not(tmp_path):
    for name, alpha in (("a", 255), ("b", 100), ("c", 0)):
        Image.new("RGBA", (8, 8), (10, 20, 30, alpha)).save(tmp_path / f"{name}.png")
    with warnings.catch_warnings(action="error"):
        load_images(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        load_images(tmp_path)
        load_images(tmp_path)
    assert ["transparent parts" in str(each.message) for each in told] == [True, True]  # one line of the test each


def test_an_array_among_pictures_says_what_to_give():
    with pytest.raises(InvalidParameterError, match=r"got ndarray\. A model takes an array as it is; .*PIL\.Image"):
        load_images([np.zeros((8, 8, 3), "uint8")])
