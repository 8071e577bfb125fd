"""Vertices are drawn where they lie, in the colour of their response."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from berg import plotting
from berg.core.exceptions import InvalidParameterError
from berg.plotting.cortex import border, draw_view, in_front, seen_from, zero_lines
from berg.plotting.meshes import HEMISPHERES, Mesh, divide, fsaverage5, mean_over_neighbours
from berg.plotting.page import new_sheet
from berg.plotting.shown import show

COLOUR_MAP = matplotlib.colormaps["RdBu_r"]
STEP = np.abs(np.diff(COLOUR_MAP(np.arange(256))[:, :3], axis=0)).max()  # between neighbouring colours
FOLDER = Path(find_spec("nilearn").submodule_search_locations[0]) / "datasets" / "data" / "fsaverage5"


def pial(hemisphere):
    import nibabel

    return nibabel.load(FOLDER / f"pial_{HEMISPHERES[hemisphere]}.gii.gz").darrays[0].data


def pixels(sheet, axes, points):
    """The colours drawn at places of an axes, shape (n, 3), in [0, 1]."""
    canvas = FigureCanvasAgg(sheet)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    at = np.floor(axes.transData.transform(points)).astype(int)
    return picture[picture.shape[0] - 1 - at[:, 1], at[:, 0]]


def one_view(responses, view, hemisphere):
    """One hemisphere from one side, large, without lines of sulci; the limit of the scale."""
    values = show(responses, "beach").outputs[hemisphere].values
    limit = np.quantile(np.abs(values), 0.99)
    scale = plotting.colours.Scale(-limit, limit, "RdBu_r", "response (z)", "both")
    sheet, _ = new_sheet(5, "", ("",), width=6)
    sheet.set_dpi(200)
    axes = sheet.add_axes((0, 0, 1, 1))
    draw_view(axes, replace(fsaverage5()[hemisphere], sulci=None), values, scale, view, hemisphere)
    return sheet, axes, values, limit


@pytest.mark.parametrize(("view", "hemisphere"), [("flat", "lh"), ("lateral", "rh"), ("ventral", "lh")])
def test_a_hundred_vertices_have_the_colour_of_their_response(view, hemisphere, vertices):
    sheet, axes, values, limit = one_view(vertices(), view, hemisphere)
    mesh = fsaverage5()[hemisphere]
    points, faces = seen_from(mesh, view, hemisphere)
    inside = np.setdiff1d(faces[in_front(points, faces)], border(faces))
    chosen = np.random.default_rng(0).choice(inside, 100, replace=False)
    # Those at a fold, where a nearer face covers them, are left out: nobody sees them.
    drawn = pixels(sheet, axes, points[chosen, :2])
    wanted = COLOUR_MAP((values[chosen] + limit) / (2 * limit))[:, :3]
    off = np.abs(drawn - wanted).max(axis=1)
    assert np.mean(off <= STEP + 1 / 255) >= (1.0 if view == "flat" else 0.97)
    assert np.median(off) < STEP / 2


@pytest.mark.slow
def test_nilearn_draws_the_same_colours(vertices):
    from nilearn.plotting import plot_surf

    sheet, axes, values, limit = one_view(vertices(), "lateral", "lh")
    mesh = fsaverage5()["lh"]
    options = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "avg_method": "mean"}
    figure = plot_surf([mesh.inflated.copy(), mesh.faces.copy()], values.copy(), hemi="left", view="lateral", **options)
    theirs = figure.axes[0].collections[0]._facecolor3d[:, :3]  # get_facecolors() is in the order of depth
    points, faces = seen_from(mesh, "lateral", "lh")
    front = faces[in_front(points, faces)]
    number = {tuple(face): index for index, face in enumerate(mesh.faces.tolist())}
    chosen = front[np.random.default_rng(1).choice(len(front), 100, replace=False)]
    drawn = pixels(sheet, axes, points[chosen, :2].mean(axis=1))
    colours = np.array([theirs[number[tuple(face)]] for face in chosen.tolist()])
    assert np.mean(np.abs(drawn - colours).max(axis=1) <= STEP + 2 / 255) >= 0.95


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_medial_is_the_side_of_the_other_hemisphere_and_up_is_up(hemisphere):
    mesh, brain = fsaverage5()[hemisphere], pial(hemisphere)
    from_middle = np.abs(brain[:, 0])
    seen = {view: np.unique(seen_from(mesh, view, hemisphere)[1]) for view in ("lateral", "medial", "ventral")}
    assert from_middle[seen["medial"]].mean() < 20 < 35 < from_middle[seen["lateral"]].mean()
    assert brain[seen["ventral"], 2].mean() < brain[:, 2].mean() - 15
    outwards = -1 if hemisphere == "lh" else 1
    for view, front in (("lateral", outwards), ("medial", -outwards)):
        points, _ = seen_from(mesh, view, hemisphere)
        assert np.corrcoef(points[:, 0], front * brain[:, 1])[0, 1] > 0.95  # the front of the left one: to the left
        assert np.corrcoef(points[:, 1], brain[:, 2])[0, 1] > 0.9
    below, _ = seen_from(mesh, "ventral", hemisphere)
    assert np.corrcoef(below[:, 1], brain[:, 1])[0, 1] > 0.95
    assert np.corrcoef(below[:, 0], -brain[:, 0])[0, 1] > 0.9  # from below, the right of the brain is on the left


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_the_flat_map_is_upright_and_no_mirror_image(hemisphere):
    mesh, brain = fsaverage5()[hemisphere], pial(hemisphere)
    on_map = np.unique(mesh.flat_faces)
    x, y = mesh.flat[on_map].T
    to_the_front = -1 if hemisphere == "lh" else 1
    assert np.corrcoef(x, to_the_front * brain[on_map, 1])[0, 1] > 0.8
    assert np.corrcoef(y, brain[on_map, 2])[0, 1] > 0.6
    a, b, c = (mesh.flat[mesh.flat_faces[:, corner]].astype(float) for corner in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area > 0).mean() > 0.99  # as seen from outside


def test_vertices_without_a_response_are_grey_and_never_zero(vertices):
    sheet = plotting.surface(vertices(chosen=lambda points: points[:, 1] < -40), "beach")
    axes = next(axes for axes in sheet.axes if axes.get_title() == "left, lateral")
    points, faces = seen_from(fsaverage5()["lh"], "lateral", "lh")
    seen = np.unique(faces[in_front(points, faces)])
    front = seen[points[seen, 0] < 0][::50]  # of the left hemisphere, on the left
    colours = pixels(sheet, axes, points[front, :2])
    assert np.ptp(colours, axis=1).max() < 0.02
    assert colours.mean() < 0.9


def test_all_panels_have_one_scale_from_the_99th_percentile_of_all(vertices):
    responses = vertices()
    sheet = plotting.surface(responses, "face-1")
    both = np.concatenate([responses[name][name].sel(stimulus="face-1.jpg").values for name in ("lh", "rh")])
    bar = next(axes for axes in sheet.axes if axes.get_label() == "<colorbar>")
    limit = np.quantile(np.abs(both.astype(float)), 0.99)
    np.testing.assert_allclose(bar._colorbar.mappable.get_clim(), (-limit, limit))
    assert bar._colorbar.extend == "both"


# From fsaverage to fsaverage5


def test_triangles_are_divided_in_the_order_of_freesurfer():
    mne = pytest.importorskip("mne")
    file = Path(mne.__file__).parent / "data" / "icos.fif.gz"
    fine = mne.read_bem_surfaces(file, s_id=9006, verbose=False)
    parents, faces = divide(fsaverage5()["lh"].faces, 10_242)
    np.testing.assert_array_equal(faces, fine["tris"])
    middles = fine["rr"][parents].mean(axis=1)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    np.testing.assert_allclose(fine["rr"][10_242:], middles, atol=2e-3)


def test_means_over_neighbours_by_hand():
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]], np.int32)  # a tetrahedron
    parents, _ = divide(faces, 4)
    values = np.arange(10.0)
    means = mean_over_neighbours(values, faces)
    for vertex in range(4):
        around = values[4:][(parents == vertex).any(axis=1)]
        assert len(around) == 3
        assert means[vertex] == pytest.approx((values[vertex] + around.sum() / 2) / 2.5)


def test_means_leave_out_nan_and_are_nan_where_most_is():
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]], np.int32)
    parents, _ = divide(faces, 4)
    values = np.ones(10)
    values[0] = np.nan
    assert mean_over_neighbours(values, faces).tolist() == [1, 1, 1, 1]  # 1.5 of 2.5 are left
    values[4:][(parents == 0).any(axis=1)] = np.nan
    assert np.isnan(mean_over_neighbours(values, faces)).tolist() == [True, False, False, False]


def test_a_smooth_map_of_fsaverage_is_the_same_on_fsaverage5(vertices):
    fine, coarse = vertices(163_842), vertices()
    for name, mesh in fsaverage5().items():
        shown = show(fine, "beach").outputs[name].values
        means = mean_over_neighbours(shown, mesh.faces)
        np.testing.assert_allclose(means, show(coarse, "beach").outputs[name].values, atol=0.02)


def test_the_caption_says_how_fsaverage_came_to_fsaverage5(vertices):
    facts = plotting.flatmap(vertices(40_962)).texts[1].get_text().replace("\n", " ")
    assert "fsaverage6 (40,962 vertices a hemisphere) shown on fsaverage5 (10,242)" in facts
    assert "each the weighted mean over its neighbours" in facts
    assert "shown on" not in plotting.flatmap(vertices()).texts[1].get_text()


# What is refused


def test_too_few_vertices_are_refused(vertices):
    few = vertices(163_842, lambda points: points[:, 1] < np.sort(points[:, 1])[40])
    with pytest.raises(InvalidParameterError, match=r"Too few vertices.*80 have a response.*it takes 10.*roi_bars"):
        plotting.surface(few)


def test_another_surface_is_refused_with_what_to_give(voxels):
    def unknown(n_vertices):
        import xarray as xr

        values = xr.DataArray(np.ones((1, 3)), dims=("stimulus", "vertex"), attrs={"vertex_total": n_vertices})
        values = values.assign_coords(stimulus=["a"], vertex=[0, 1, 2])
        return xr.DataTree.from_dict({name: xr.Dataset({name: values}) for name in HEMISPHERES})

    with pytest.raises(InvalidParameterError, match=r"32,492 vertices.*fsLR 32k.*read_mesh.*mesh=mesh"):
        plotting.surface(unknown(32_492))
    with pytest.raises(InvalidParameterError, match="not of vertices"):
        plotting.surface(voxels)
    with pytest.raises(InvalidParameterError, match="has 10,242 vertices, the responses are of 32,492"):
        plotting.surface(unknown(32_492), mesh=fsaverage5())


def test_a_mesh_that_is_given_is_drawn_without_a_flat_map_if_it_has_none(vertices):
    import xarray as xr

    part = np.arange(2562)  # fsaverage4 is the first vertices of fsaverage5, but has faces of its own: any will do
    faces = np.stack([part[:-2], part[1:-1], part[2:]], axis=1).astype(np.int32)
    meshes = {name: Mesh(mesh.inflated[part], faces) for name, mesh in fsaverage5().items()}
    small = {}
    for name in HEMISPHERES:
        array = vertices()[name][name].isel(vertex=part)
        small[name] = xr.Dataset({name: array.assign_attrs(vertex_total=2562)}, attrs={"model_id": "fmri-a-b"})
    titles = {axes.get_title() for axes in plotting.surface(xr.DataTree.from_dict(small), mesh=meshes).axes}
    assert "left, ventral" in titles
    assert not any("flat" in title for title in titles)
    with pytest.raises(InvalidParameterError, match="no flat map"):
        plotting.flatmap(xr.DataTree.from_dict(small), mesh=meshes)


def test_lines_of_zero_cross_the_edges_where_the_function_is_zero():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    lines = zero_lines(points, np.array([[0, 1, 2]]), np.array([-1.0, 1.0, 3.0]))
    assert sorted(map(tuple, lines[0].tolist())) == [(0.0, 0.25), (0.5, 0.0)]
