import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from nibabel import cifti2
from nilearn.surface import SurfaceImage, load_surf_data
from published import layouts

from berg.core.exceptions import InvalidParameterError
from berg.responses.labelled import label_responses
from berg.responses.save import save_responses
from berg.responses.surface import to_cifti, to_gifti

FSAVERAGE = layouts.FSAVERAGE
N = layouts.N_VERTICES
NAMES = ["a.png", "b.png"]


def masks(lh=(), rh=()):
    selection = {"lh_vertices": np.zeros(N, int), "rh_vertices": np.zeros(N, int)}
    selection["lh_vertices"][list(lh)] = 1
    selection["rh_vertices"][list(rh)] = 1
    return selection


FEW = masks(lh=[7, 100_000, N - 1], rh=[0, 3])


def test_selected_vertices_lie_in_their_places_and_the_rest_is_nan(encoded):
    (lh, rh), metadata = encoded(FSAVERAGE, selection=FEW)
    images = to_gifti((lh, rh), metadata, NAMES)
    for hemisphere, responses, vertices in (("lh", lh, [7, 100_000, N - 1]), ("rh", rh, [0, 3])):
        for stimulus, array in enumerate(images[hemisphere].darrays):
            assert array.data.shape == (N,)
            assert array.data.dtype == np.float32
            assert array.data[vertices].tolist() == responses[stimulus].tolist()
            assert np.isnan(array.data).sum() == N - len(vertices)


@pytest.mark.slow
def test_the_whole_cortex_is_the_responses_themselves(encoded):
    (lh, rh), metadata = encoded(FSAVERAGE, 1)
    images = to_gifti((lh, rh), metadata)
    np.testing.assert_array_equal(images["lh"].darrays[0].data, lh[0])
    np.testing.assert_array_equal(images["rh"].darrays[0].data, rh[0])
    cifti = to_cifti((lh, rh), metadata)
    np.testing.assert_array_equal(np.asarray(cifti.dataobj), np.concatenate([lh, rh], axis=1))


def test_a_region_lies_where_the_metadata_place_it(encoded):
    (lh, rh), metadata = encoded(FSAVERAGE, 1, selection={"roi": ["PPA", "V1v"]})
    images = to_gifti((lh, rh), metadata)
    for hemisphere, responses in (("lh", lh), ("rh", rh)):
        rois = metadata["fmri"][f"{hemisphere}_fsaverage_rois"]
        values = images[hemisphere].darrays[0].data
        assert sorted(np.flatnonzero(np.isfinite(values))) == sorted({*rois["PPA"], *rois["V1v"]})
        assert values[rois["PPA"]].tolist() == responses[0, : len(rois["PPA"])].tolist()


def test_gifti_files_are_read_by_nilearn(encoded, tmp_path):
    (lh, rh), metadata = encoded(FSAVERAGE, selection=FEW)
    paths = save_responses(label_responses((lh, rh), metadata, NAMES), tmp_path / "x.func.gii")
    assert [path.name for path in paths] == ["x_hemi-L.func.gii", "x_hemi-R.func.gii"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    left, right = (load_surf_data(path) for path in paths)
    assert left.shape == right.shape == (N, 2)
    assert left[100_000].tolist() == lh[:, 1].tolist()
    assert right[3].tolist() == rh[:, 1].tolist()


def test_a_gifti_file_says_what_it_is(encoded, tmp_path):
    _, right = save_responses(label_responses(*encoded(FSAVERAGE, selection=FEW), NAMES), tmp_path / "x.func.gii")
    read = nib.load(right)
    assert dict(read.meta) == {
        "AnatomicalStructurePrimary": "CortexRight", "Unit": "z-scored beta", "Model": FSAVERAGE,
    }  # fmt: skip
    assert [array.meta["Name"] for array in read.darrays] == NAMES


def test_gifti_fits_nilearn_s_fsaverage(encoded, tmp_path):
    from nilearn.datasets import load_fsaverage

    five = label_responses(*encoded(FSAVERAGE, selection=FEW))  # fsaverage5: the first 10,242 vertices of fsaverage
    for hemisphere in ("lh", "rh"):
        array = five[f"{hemisphere}/{hemisphere}"].isel(vertex=[0])
        array.attrs["vertex_total"] = 10_242
        five[hemisphere] = array.to_dataset()
    left, right = save_responses(five, tmp_path / "x.func.gii")
    surface = SurfaceImage(mesh=load_fsaverage("fsaverage5")["pial"], data={"left": left, "right": right})
    assert surface.shape == (20_484, 2)
    assert surface.data.parts["left"][7].tolist() == five["lh/lh"].values[:, 0].tolist()


def test_cifti_has_both_hemispheres_with_their_vertices(encoded, tmp_path):
    (lh, rh), metadata = encoded(FSAVERAGE, selection=FEW)
    save_responses(label_responses((lh, rh), metadata, NAMES), tmp_path / "x.dscalar.nii")
    read = nib.load(tmp_path / "x.dscalar.nii")
    assert isinstance(read, nib.Cifti2Image)
    maps, brain = (read.header.get_axis(index) for index in (0, 1))
    assert read.nifti_header.get_intent()[0] == "ConnDenseScalar"
    assert read.get_data_dtype() == np.float32
    assert list(maps.name) == NAMES
    assert brain.nvertices == {"CIFTI_STRUCTURE_CORTEX_LEFT": N, "CIFTI_STRUCTURE_CORTEX_RIGHT": N}
    assert brain.vertex.tolist() == [7, 100_000, N - 1, 0, 3]
    values = read.get_fdata()
    left = values[:, np.asarray(brain.name) == "CIFTI_STRUCTURE_CORTEX_LEFT"]
    np.testing.assert_array_equal(left, lh)
    np.testing.assert_array_equal(values[:, 3:], rh)
    assert maps.meta[0] == {"Unit": "z-scored beta", "Model": FSAVERAGE}


def test_vertices_of_cifti_ascend_with_their_responses(encoded):
    (lh, rh), metadata = encoded(FSAVERAGE, selection={"roi": ["PPA", "V1v"]})
    image = to_cifti((lh, rh), metadata)
    _, vertices, model = next(iter(image.header.get_axis(1).iter_structures()))
    order = metadata["responses"]["lh"]["coordinates"]["vertex"][1]
    assert np.any(np.diff(order) < 0)  # PPA before V1v
    assert np.all(np.diff(model.vertex) > 0)
    found = dict(zip(model.vertex, np.asarray(image.dataobj)[1, vertices], strict=True))
    assert found == dict(zip(order, lh[1], strict=True))


@pytest.mark.filterwarnings("ignore::berg.core.selection.EmptySelectionWarning")
def test_a_hemisphere_without_a_selected_vertex(encoded):
    found = encoded(FSAVERAGE, selection=masks(lh=[5]))
    images = to_gifti(*found)
    assert np.isnan(images["rh"].darrays[0].data).all()
    assert set(to_cifti(*found).header.get_axis(1).name) == {"CIFTI_STRUCTURE_CORTEX_LEFT"}


@pytest.mark.filterwarnings("ignore::berg.core.selection.EmptySelectionWarning")
def test_cifti_of_no_vertex_is_refused(encoded):
    with pytest.raises(InvalidParameterError, match=r"No vertex is selected.*Select more, or use .func.gii"):
        to_cifti(*encoded(FSAVERAGE, selection=masks()))


def test_vertices_of_another_surface_are_refused(encoded):
    responses, metadata = encoded(FSAVERAGE, selection=FEW)
    metadata["responses"]["lh"]["attributes"]["vertex_total"] = 150_000
    with pytest.raises(
        InvalidParameterError, match=r"do not fit into GIFTI .*fsaverage.*Use one of .nc, .npz, .csv, .mat"
    ):
        to_gifti(responses, metadata)


# Grayordinates

LEFT, RIGHT, THALAMUS = (f"CIFTI_STRUCTURE_{name}" for name in ("CORTEX_LEFT", "CORTEX_RIGHT", "THALAMUS_LEFT"))
UNITS = [(RIGHT, 7, -1, -1, -1), (THALAMUS, -1, 1, 2, 0), (RIGHT, 2, -1, -1, -1), (THALAMUS, -1, 0, 2, 1)]
AFFINE = np.array([[2.0, 0, 0, -4], [0, 2, 0, 3], [0, 0, 2.5, 1], [0, 0, 0, 1]])
SURFACES = f"{LEFT} 12; {RIGHT} 12"
VOLUME = {"volume_shape": [3, 4, 5], "fmri_affine": AFFINE.ravel().tolist()}
FACTS = {"surface_vertices": SURFACES, **VOLUME}


def grayordinates(units=UNITS, facts=FACTS, leave_out=()):
    """Labelled responses as a model that was fitted to CIFTI gives them."""
    columns = zip(("structure", "vertex", "i", "j", "k"), zip(*units, strict=True), strict=True)
    labels = {name: ("grayordinate", list(values)) for name, values in columns if name not in leave_out}
    values = np.arange(2.0 * len(units), dtype=np.float32).reshape(2, -1)
    array = xr.DataArray(values, dims=("stimulus", "grayordinate"), coords={"stimulus": NAMES, **labels})
    return xr.Dataset({"responses": array.assign_attrs(units="beta")}, attrs={"model_id": "fmri-a-b", **facts})


def test_grayordinates_are_written_structure_by_structure(tmp_path):
    save_responses(grayordinates(), tmp_path / "x.dscalar.nii")
    image = nib.load(tmp_path / "x.dscalar.nii")
    names, brain = (image.header.get_axis(axis) for axis in (0, 1))
    voxels = cifti2.BrainModelAxis([THALAMUS] * 2, [[1, 2, 0], [0, 2, 1]], None, AFFINE, (3, 4, 5), {})
    assert brain == cifti2.BrainModelAxis.from_surface([2, 7], 12, RIGHT) + voxels
    assert image.get_fdata()[0].tolist() == [2.0, 0.0, 1.0, 3.0]
    assert names.name.tolist() == NAMES
    assert names.meta[0]["Unit"] == "beta"


@pytest.mark.parametrize(
    "labelled",
    [
        grayordinates(facts={}),
        grayordinates(facts=VOLUME),
        grayordinates(leave_out=["k"]),
        grayordinates(leave_out=["structure"]),
    ],
    ids=["no sizes", "no surface", "no places of voxels", "no structures"],
)
def test_units_whose_places_are_not_known_are_no_cifti(labelled):
    with pytest.raises(InvalidParameterError, match=r"do not fit into CIFTI .* or grayordinates fitted to CIFTI"):
        to_cifti(labelled)
