"""Bars are the means of regions; slices show voxels where they lie."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from berg import plotting
from berg.core.exceptions import InvalidParameterError
from berg.plotting.region_means import membership, region_means
from berg.plotting.slices import as_the_head_lies, outline


def test_means_of_regions_are_those_of_pandas(voxels):
    means = region_means(voxels)
    table = pd.DataFrame(voxels["responses"].values.T.astype(float)).groupby(voxels["roi"].values).mean()
    assert means.names == list(table.index) == ["V1", "V2"]
    np.testing.assert_allclose(means.responses.T, table.values, rtol=1e-12)
    assert means.n_units.tolist() == voxels["roi"].to_series().value_counts()[means.names].tolist()
    accuracy = pd.Series(voxels["correlation"].values).groupby(voxels["roi"].values).mean()
    np.testing.assert_allclose(means.accuracy, accuracy.values)


def test_a_unit_in_two_regions_counts_in_both_and_nan_in_none():
    assert {name: list(own) for name, own in membership(["V1;early", "V2", "early"]).items()} == {
        "V1": [True, False, False],
        "early": [True, False, True],
        "V2": [False, True, False],
    }


def test_texts_without_a_fixed_width_as_a_store_has_them_name_regions():
    texts = np.array(["V1;early", "V2"], np.dtypes.StringDType())
    assert {name: list(own) for name, own in membership(texts).items()} == {
        "V1": [True, False],
        "early": [True, False],
        "V2": [False, True],
    }


def test_missing_responses_are_left_out_of_means(voxels):
    gaps = voxels.copy(deep=True)
    first = int(np.flatnonzero(gaps["roi"].values == "V1")[0])
    gaps["responses"].values[:, first] = np.nan
    rest = (gaps["roi"].values == "V1") & (np.arange(gaps.sizes["voxel"]) != first)
    expected = gaps["responses"].values[:, rest].astype(float).mean(axis=1)
    np.testing.assert_allclose(region_means(gaps).responses[:, 0], expected)


def test_repetitions_are_averaged_before_regions(voxels):
    four = voxels.expand_dims(repetition=4, axis=1).copy(deep=True)
    four["responses"] = four["responses"] + xr.DataArray(np.arange(4.0), dims="repetition")
    np.testing.assert_allclose(region_means(four).responses, region_means(voxels).responses + 1.5, atol=1e-6)


def test_hemispheres_are_averaged_together(vertices):
    responses = vertices()
    means = region_means(responses)
    early = np.concatenate([responses[name][name].sel(roi="early").values for name in ("lh", "rh")], axis=1)
    np.testing.assert_allclose(means.responses[:, means.names.index("early")], early.astype(float).mean(axis=1))


@pytest.mark.parametrize(("unit", "r"), [("percent", 0.8), ("r2", 8.0), ("r", 64.0)])
def test_a_ceiling_is_drawn_as_a_correlation_once_its_unit_is_known(unit, r, voxels):
    assert region_means(voxels).ceiling is None
    assert region_means(voxels).ceiling_is_unknown
    np.testing.assert_allclose(region_means(voxels, unit).ceiling, r)


def test_the_unit_of_a_ceiling_can_be_in_the_labels(voxels):
    known = voxels.copy(deep=True)
    known["noise_ceiling"].attrs["units"] = "r"
    known["noise_ceiling"].values[:] = 0.7
    sheet = plotting.roi_bars(known)
    assert "red lines: noise ceiling" in sheet.texts[1].get_text()
    heights = {
        tuple(segment[:, 1]) for axes in sheet.axes for own in axes.collections for segment in own.get_segments()
    }
    assert heights == {(0.7, 0.7)}
    assert "has no unit and is not drawn" in plotting.roi_bars(voxels).texts[1].get_text().replace("\n", " ")


def test_bars_are_means_and_dots_are_stimuli_or_subjects(voxels):
    means = region_means(voxels).responses
    axes = plotting.roi_bars(voxels).axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], means.mean(axis=0))
    np.testing.assert_allclose(np.sort(axes.lines[0].get_ydata()), np.sort(means.ravel()))
    second = voxels.copy(deep=True)
    second["responses"] = second["responses"] + 2
    sheet = plotting.roi_bars([voxels, second])
    expected = np.stack([means.mean(axis=0), means.mean(axis=0) + 2])
    np.testing.assert_allclose(np.sort(sheet.axes[0].lines[0].get_ydata()), np.sort(expected.ravel()), atol=1e-6)
    assert "2 subjects" in sheet.texts[1].get_text()


def test_bars_of_a_contrast_are_differences(voxels):
    means = region_means(voxels).responses
    axes = plotting.roi_bars(voxels, "face*", minus="beach").axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], means[1:].mean(axis=0) - means[0])


def test_bars_without_regions_or_with_time_are_refused(fields, cells):
    with pytest.raises(InvalidParameterError, match=r"have no regions \(coordinate roi\)"):
        plotting.roi_bars(fields.drop_vars("roi"))
    with pytest.raises(InvalidParameterError, match=r"one response per stimulus and unit.*sel\(time="):
        plotting.roi_bars(cells)


@pytest.mark.parametrize(
    "axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (1, 0, 2)], ids=lambda axes: "".join("xyz"[axis] for axis in axes)
)
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_volumes_are_turned_as_nibabel_does(axes, signs):
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, axes] * (np.array(signs) * (1.5, 2.0, 2.5))
    affine[:3, :3] += 0.05 * rng.standard_normal((3, 3))
    affine[:3, 3] = (-10, 5, 3)
    volume = np.arange(4 * 5 * 6, dtype=float).reshape(4, 5, 6)
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine))
    places = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), -1).reshape(-1, 3)
    grid = as_the_head_lies(places, volume.shape, affine)
    np.testing.assert_array_equal(np.asarray(turned.dataobj)[tuple(grid.places.T)], volume.ravel())
    assert grid.shape == turned.shape
    np.testing.assert_allclose(grid.size, turned.header.get_zooms(), rtol=1e-5)
    middle = [*(np.array(turned.shape[:2]) - 1) / 2]
    expected = [(turned.affine @ [*middle, k, 1])[2] for k in range(turned.shape[2])]
    np.testing.assert_allclose(grid.heights, expected, atol=1e-6)


def test_slices_show_each_voxel_at_its_place_left_on_the_left(voxels):
    sheet = plotting.volume(voxels, "beach")
    axes = next(axes for axes in sheet.axes if axes.get_title().startswith("z = "))
    height = float(axes.get_title().split()[2].replace("−", "-"))
    picture = np.ma.masked_invalid(axes.images[0].get_array())
    inside = voxels["k"].values == (height + 16) / 2  # as the affine says
    assert inside.sum() > 10
    assert picture.count() == inside.sum()
    left = voxels["responses"].sel(stimulus="beach.jpg").values[inside & (voxels["i"].values < 10)]
    shown = picture[:, : picture.shape[1] // 2].compressed()
    np.testing.assert_allclose(np.sort(shown), np.sort(left), rtol=1e-6)


def test_an_outline_goes_around_the_pixels():
    mask = np.zeros((3, 3), bool)
    mask[1, 1] = True
    pieces = {tuple(map(tuple, piece)) for piece in outline(mask).tolist()}
    assert pieces == {
        ((0.5, 0.5), (0.5, 1.5)),
        ((1.5, 0.5), (1.5, 1.5)),
        ((0.5, 0.5), (1.5, 0.5)),
        ((0.5, 1.5), (1.5, 1.5)),
    }


def test_slices_without_places_are_refused(fields):
    with pytest.raises(InvalidParameterError, match=r"need voxels with i, j, k"):
        plotting.volume(fields)
