"""Sensors lie where MNE puts them, and have the colour of their response."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from published.layouts import EEG_CHANNELS

from berg import plotting
from berg.core.exceptions import InvalidParameterError
from berg.plotting.colours import scale_of
from berg.plotting.page import new_sheet
from berg.plotting.scalp import HeadMap, draw_head
from berg.plotting.sensors import places_on_head
from berg.plotting.time_courses import peaks

COLOUR_MAP = matplotlib.colormaps["RdBu_r"]
STEP = np.abs(np.diff(COLOUR_MAP(np.arange(256))[:, :3], axis=0)).max()


@pytest.fixture(scope="module")
def points():
    return np.stack(list(places_on_head("eeg", EEG_CHANNELS).values()))


@pytest.fixture(scope="module")
def smooth(points):
    """Two patterns over the sensors, shape (63, 2)."""
    return np.stack([np.sin(2 * points[:, 0]) + points[:, 1], np.cos(2 * points[:, 1])], axis=1)


def test_electrodes_lie_where_the_10_20_system_has_them():
    x = places_on_head("eeg", ["Cz", "Fpz", "Oz", "T7", "T8", "Fp1", "O2", "C3"])
    assert np.hypot(*x["Cz"]) < 1e-6
    assert x["Fpz"][1] > 0.6
    assert x["Oz"][1] < -0.6
    assert x["T7"][0] < -0.6
    assert x["T8"][0] > 0.6
    assert x["Fp1"][0] < 0 < x["Fp1"][1]
    assert x["O2"][0] > 0 > x["O2"][1]
    np.testing.assert_allclose(x["C3"], (-0.4, 0), atol=0.01)  # 36 degrees, half of the way to T7


def test_capitals_do_not_matter_and_unknown_channels_are_left_out():
    places = places_on_head("eeg", ["FP1", "oz", "P07", "EEG001"])
    assert list(places) == ["FP1", "oz"]


def test_a_position_is_projected_by_its_angle_from_the_top():
    given = {"top": (0, 0, 0.1), "right": (0.1, 0, 0), "half": (0, 0.05, 0.05), "below": (-0.05, 0, -0.05)}
    places = places_on_head("eeg", list(given), given)
    np.testing.assert_allclose([places[name] for name in given], [[0, 0], [1, 0], [0, 0.5], [-1.5, 0]], atol=1e-12)


def test_meg_sensors_come_from_the_layout_of_their_system():
    mne = pytest.importorskip("mne")
    layout = mne.channels.read_layout("Vectorview-mag")
    places = places_on_head("meg", layout.names)
    assert len(places) == 102
    found = np.stack([places[name] for name in layout.names])
    for axis in (0, 1):
        assert np.corrcoef(found[:, axis], layout.pos[:, axis])[0, 1] > 0.9999
    ctf = places_on_head("meg", ["MLO11-1609", "MRF21-1609", "MZC01-1609", "MLT31-1609"])
    assert len(ctf) == 4
    assert ctf["MLT31-1609"][0] < 0


@pytest.mark.slow
def test_mne_puts_electrodes_at_the_same_places(points):
    import mne

    info = mne.create_info(list(EEG_CHANNELS), 1.0, "eeg")
    info.set_montage("spherical_1005")
    figure = mne.viz.plot_sensors(info, show=False, sphere=(0, 0, 0, 0.095))
    theirs = np.asarray(figure.axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(points * 0.095, theirs, atol=1e-5)


@pytest.mark.slow
def test_mne_interpolates_the_same_values(points, smooth):
    import mne

    head = HeadMap(points, 200)
    ours = head.pictures(smooth)[0]
    image, _ = mne.viz.plot_topomap(smooth[:, 0], points, res=200, contours=0, sphere=(0, 0, 0, 1), show=False)
    edge = image.get_extent()[1]
    mine, theirs = at_points(ours, head.radius, points), at_points(np.asarray(image.get_array()), edge, points)
    step = (smooth[:, 0].max() - smooth[:, 0].min()) / 256
    assert np.median(np.abs(mine - theirs)) < step
    assert np.abs(mine - theirs).max() < 4 * step  # both at the nearest pixel
    noise = np.random.default_rng(0).standard_normal(len(points))
    image, _ = mne.viz.plot_topomap(noise, points, res=60, contours=0, sphere=(0, 0, 0, 1), show=False)
    assert np.nanmax(head.pictures(noise[:, None])) < np.nanmax(np.asarray(image.get_array()))


def at_points(picture, radius, points):
    """The values of a picture at the pixels nearest to points."""
    column, row = np.round((points + radius) / (2 * radius) * (len(picture) - 1)).astype(int).T
    return picture[row, column]


def test_every_sensor_has_the_colour_of_its_response(points, smooth):
    head = HeadMap(points)
    picture = head.pictures(smooth)[0]
    scale = scale_of([smooth[:, 0]], "response (µV)", True)
    sheet, _ = new_sheet(6, "", ("",), width=6)
    sheet.set_dpi(200)
    axes = sheet.add_axes((0.05, 0.05, 0.9, 0.9))
    draw_head(axes, head, picture, scale)
    for line in list(axes.lines):
        line.remove()
    canvas = FigureCanvasAgg(sheet)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    at = np.floor(axes.transData.transform(points)).astype(int)
    drawn = pixels[pixels.shape[0] - 1 - at[:, 1], at[:, 0]]
    wanted = COLOUR_MAP((smooth[:, 0] - scale.low) / (scale.high - scale.low))[:, :3]
    assert np.abs(drawn - wanted).max() <= STEP + 1 / 255


def test_one_matrix_serves_all_times(points, smooth):
    head = HeadMap(points, 40)
    both = head.pictures(smooth)
    np.testing.assert_allclose(both[1], head.pictures(smooth[:, 1:])[0], atol=1e-12)
    assert len(head._weights) == 1
    np.testing.assert_allclose(head.pictures(smooth.sum(axis=1, keepdims=True))[0], both.sum(axis=0), atol=1e-9)


def test_nothing_grows_beyond_the_sensors(points):
    steep = np.where(points[:, 1] < -0.5, 1.0, 0.0)[:, None]
    picture = HeadMap(points, 60).pictures(steep)[0]
    assert np.nanmax(picture) < 1.4
    assert np.nanmin(picture) > -0.25


def test_a_sensor_that_is_nan_is_left_out_of_its_time_alone(points, smooth):
    responses = smooth.copy()
    responses[7, 0] = np.nan
    head = HeadMap(points, 40)
    with_gap, whole = head.pictures(responses), head.pictures(smooth)
    assert np.isfinite(with_gap[0]).sum() == np.isfinite(whole[0]).sum()
    np.testing.assert_allclose(with_gap[1], whole[1], atol=1e-12)
    other = np.delete(points, 7, axis=0)
    alone = HeadMap(other, 40)
    if alone.radius == head.radius:
        np.testing.assert_allclose(with_gap[0], alone.pictures(np.delete(smooth, 7, axis=0))[0], atol=1e-9)
    assert np.isnan(head.pictures(np.full_like(smooth, np.nan))).all()


def test_peaks_are_the_largest_local_maxima_apart_from_each_other():
    milliseconds = np.arange(0.0, 400, 5)
    power = sum(
        size * np.exp(-((milliseconds - peak) ** 2) / 200)
        for size, peak in ((1, 50), (3, 120), (2.9, 135), (2, 220), (4, 330))
    )
    assert [milliseconds[index] for index in peaks(power, milliseconds)] == [125, 220, 330]
    assert peaks(np.array([1.0]), np.array([0.0])) == [0]


def test_the_joint_figure_shows_the_three_peaks(sensors):
    titles = [axes.get_title() for axes in plotting.joint(sensors(), "beach").axes]
    assert [title for title in titles if title.endswith("ms")] == ["100 ms", "200 ms", "350 ms"]


@pytest.mark.parametrize(("unit", "shown", "factor"), [("V", "µV", 1e6), ("mV", "µV", 1e3), ("z-score", "z-score", 1)])
def test_volts_are_drawn_in_microvolts(unit, shown, factor, sensors):
    responses = sensors(unit)
    axes = next(axes for axes in plotting.time_course(responses, "beach").axes if "response" in axes.get_ylabel())
    assert axes.get_ylabel().replace("\n", " ") == f"response ({shown})"
    lines = {line.get_label(): line for line in axes.lines}
    expected = responses["eeg"].sel(stimulus="beach.jpg", channel="Oz").values.astype(float) * factor
    np.testing.assert_allclose(lines["Oz"].get_ydata(), expected, rtol=1e-6)


def test_pairs_of_gradiometers_become_their_root_mean_square(sensors):
    names = [f"MEG {group}{kind}" for group in ("011", "012", "013", "014", "021", "022") for kind in (2, 3)]
    responses = sensors("T/m", names, "meg-made_up-waves")
    sheet = plotting.topomap(responses, "beach", times=[0.1])
    assert "root mean square of each pair" in sheet.texts[1].get_text().replace("\n", " ")
    bar = next(axes for axes in sheet.axes if axes.get_label() == "<colorbar>")
    assert bar._colorbar.mappable.get_clim()[0] == 0
    values = responses["eeg"].sel(stimulus="beach.jpg", time=0.1).values.astype(float) * 1e13
    rms = np.sqrt((values.reshape(-1, 2) ** 2).mean(axis=1))
    np.testing.assert_allclose(bar._colorbar.mappable.get_clim()[1], np.quantile(rms, 0.99), rtol=1e-6)


def test_channels_without_a_place_are_named_below(sensors):
    names = [name.replace("PO", "P0") for name in EEG_CHANNELS]
    facts = plotting.joint(sensors(names=names)).texts[1].get_text().replace("\n", " ")
    assert "5 without a known place are not in the maps: P07, P03, P0z, P04, P08" in facts


def test_maps_of_unknown_or_doubled_places_are_refused(sensors):
    with pytest.raises(InvalidParameterError, match=r"takes 4 sensors.*of 0.*EEG1.*positions="):
        plotting.topomap(sensors(names=["EEG1", "EEG2", "EEG3", "EEG4"]))
    with pytest.raises(InvalidParameterError, match="T3 and T7 lie at one place"):
        plotting.topomap(sensors(names=["T3", "T7", "Oz", "Cz", "Fz"]))


def test_a_time_outside_is_refused(sensors):
    with pytest.raises(InvalidParameterError, match="no 900 ms: they are from -100 to 490 ms"):
        plotting.topomap(sensors(), times=[0.9])


def test_what_has_no_channels_is_refused(voxels):
    with pytest.raises(InvalidParameterError, match="not of the axes channel and time"):
        plotting.joint(voxels)
