"""Voxels in the visual field; cells in time, with the sound above."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from berg import plotting
from berg.core.exceptions import InvalidParameterError
from berg.plotting.rates import envelope


def labels(sheet):
    return {axes.get_ylabel().replace("\n", " "): axes for axes in sheet.axes}


def test_each_voxel_is_a_dot_at_its_receptive_field(fields):
    axes = plotting.visual_field(fields, "beach").axes[0]
    dots = axes.collections[0]
    array = fields["responses"].sel(stimulus="beach.jpg")
    found = {
        (round(x, 6), round(y, 6)): value for (x, y), value in zip(dots.get_offsets(), dots.get_array(), strict=True)
    }
    for x, y, value in zip(array.x_deg.values, array.y_deg.values, array.values, strict=True):
        assert found[round(x, 6), round(y, 6)] == pytest.approx(value)


def test_a_voxel_without_a_response_is_no_dot(fields):
    gaps = fields.copy(deep=True)
    gaps["responses"].values[:, 3] = np.nan
    assert len(plotting.visual_field(gaps).axes[0].collections[0].get_offsets()) == fields.sizes["voxel"] - 1


def test_a_picture_is_drawn_as_wide_as_it_is_seen(fields):
    picture = np.zeros((40, 80, 3), np.uint8)
    sheet = plotting.visual_field(fields, "beach", picture=picture)
    assert sheet.axes[0].images[0].get_extent() == [-4, 4, -2, 2]  # stimulus_width_deg is 8
    same = plotting.visual_field(fields, "beach", picture=picture.transpose(2, 0, 1))
    assert same.axes[0].images[0].get_array().shape == picture.shape
    unknown = fields.assign_attrs(stimulus_width_deg=None).drop_attrs(deep=False)
    with pytest.raises(InvalidParameterError, match="Give width_deg"):
        plotting.visual_field(unknown, picture=picture)


def test_a_few_cells_are_lines_and_many_are_rows_by_region(cells):
    few = plotting.rate(cells.isel(unit=[0, 30]), "beach")
    axes = labels(few)["firing rate (spikes/s)"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), cells["rate"].values[0, 0], rtol=1e-6)
    np.testing.assert_allclose(axes.lines[0].get_xdata(), np.arange(0, 400, 10))
    mixed = cells.isel(unit=np.random.default_rng(0).permutation(40))
    many = plotting.rate(mixed, "beach")
    rows = labels(many)["regions"]
    first = str(mixed["roi"].values[0])
    assert [label.get_text() for label in rows.get_yticklabels()] == [first, "LM" if first == "V1" else "V1"]
    own = mixed["rate"].values[0][mixed["roi"].values == first]
    np.testing.assert_array_equal(np.asarray(rows.images[0].get_array())[:20], own)
    means = labels(many)["mean (spikes/s)"]
    np.testing.assert_allclose(means.lines[0].get_ydata(), own.astype(float).mean(axis=0), rtol=1e-6)


def test_the_envelope_is_the_root_mean_square_of_each_step():
    sampling_rate, samples = 20_000, np.random.default_rng(0).standard_normal(20_000)
    found = envelope((samples, sampling_rate), 2000, 0.0005)
    np.testing.assert_allclose(found, np.sqrt((samples.reshape(2000, 10) ** 2).mean(axis=1)))
    assert np.isnan(envelope((samples[:100], sampling_rate), 20, 0.0005)[10:]).all()


def test_the_sound_stands_above_the_rate_in_pascals(cells):
    one = cells.isel(unit=[0]).assign_attrs(pascals_per_unit=0.2)
    sound = (np.ones(4000), 10_000)
    axes = labels(plotting.rate(one, "beach", sound=sound))["sound (Pa)"]
    assert axes.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(0.2)
    sheet = plotting.rate(one, "beach", sound=sound)
    FigureCanvasAgg(sheet).draw()
    assert labels(sheet)["sound (Pa)"].yaxis.label.get_window_extent().x0 > 0
    part = one.sel(time=slice(0.1, 0.2))
    late = (np.r_[np.zeros(2000), np.ones(2000)], 10_000)  # from 0.2 s on
    axes = labels(plotting.rate(part, "beach", sound=late))["sound (Pa)"]
    points = axes.collections[0].get_paths()[0].vertices
    assert points[points[:, 0] < 195, 1].max() == 0


def test_what_has_no_time_is_refused(voxels):
    with pytest.raises(InvalidParameterError, match="not of units in time"):
        plotting.rate(voxels)
    with pytest.raises(InvalidParameterError, match=r"no places in the visual field"):
        plotting.visual_field(voxels)
