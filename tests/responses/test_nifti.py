import json

import nibabel as nib
import numpy as np
import pytest
from nilearn.image import index_img, load_img
from nilearn.masking import apply_mask
from published import layouts

from berg.core.exceptions import InvalidParameterError
from berg.responses.labelled import label_responses
from berg.responses.nifti import OverlappingVoxelsWarning, UnknownPositionWarning, to_nifti
from berg.responses.save import save_responses

FWRF = layouts.FWRF


def mask_of(berg_dir, roi):
    path = layouts.model_folder(berg_dir, FWRF) / "metadata" / f"metadata_sub-01_roi-{roi}.npy"
    return np.load(path, allow_pickle=True).item()["fmri"]["roi_mask_volume"]


def voxels_of(mask):
    """The voxels of a region one after another, k counting fastest."""
    ni, nj, nk = mask.shape
    return [(i, j, k) for i in range(ni) for j in range(nj) for k in range(nk) if mask[i, j, k]]


def test_every_column_lies_in_its_voxel_and_the_rest_is_nan(encoded, metadata_dir):
    responses, metadata = encoded(FWRF, 3, selection={"roi": "V1"})
    image = to_nifti(responses, metadata)
    assert image.shape == (81, 104, 83, 3)
    assert image.get_data_dtype() == np.float32
    values, voxels = image.get_fdata(), voxels_of(mask_of(metadata_dir, "V1"))
    assert len(voxels) == 21
    for column, voxel in enumerate(voxels):
        np.testing.assert_array_equal(values[voxel], responses[:, column])
    assert np.isfinite(values).sum() == 21 * 3


def test_the_affine_is_that_of_the_functional_volume(encoded):
    image = to_nifti(*encoded(FWRF, selection={"roi": "V1"}))
    np.testing.assert_allclose(image.affine @ [10, 20, 30, 1], [-72.9 + 18, -93.6 + 36, -74.7 + 54, 1], rtol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_a_file_read_by_nilearn_has_the_values_in_their_voxels(name, encoded, metadata_dir, tmp_path):
    responses, metadata = encoded(FWRF, selection={"roi": "V1"})
    save_responses(label_responses(responses, metadata), tmp_path / name)
    read = load_img(tmp_path / name)
    mask = nib.Nifti1Image(mask_of(metadata_dir, "V1").astype("uint8"), read.affine)
    np.testing.assert_array_equal(apply_mask(read, mask), responses)
    second = index_img(read, 1).get_fdata()
    assert second[voxels_of(mask_of(metadata_dir, "V1"))[4]] == responses[1, 4]


def test_voxels_of_several_regions_lie_side_by_side(encoded, metadata_dir):
    responses, metadata = encoded(FWRF, selection={"roi": ["V2", "V1"]})
    values = to_nifti(responses, metadata).get_fdata()
    voxels = [voxel for roi in ("V2", "V1") for voxel in voxels_of(mask_of(metadata_dir, roi))]
    assert len(set(voxels)) == 26
    assert [values[voxel][1] for voxel in voxels] == responses[1].tolist()


@pytest.fixture
def overlapping_dir(tmp_path):
    """V1 with voxels A and B, early with B and C."""
    rng = np.random.default_rng(0)
    for roi, voxels in (("V1", [(1, 2, 3), (4, 5, 6)]), ("early", [(4, 5, 6), (7, 8, 9)])):
        metadata = layouts.fwrf_metadata(rng, 2)
        metadata["fmri"]["roi_mask_volume"] = np.zeros((81, 104, 83), bool)
        for voxel in voxels:
            metadata["fmri"]["roi_mask_volume"][voxel] = True
        folder = layouts.model_folder(tmp_path, FWRF) / "metadata"
        layouts.write_pickled_npy(folder / f"metadata_sub-01_roi-{roi}.npy", metadata)
    return tmp_path


@pytest.mark.parametrize(("rois", "in_both"), [(["V1", "early"], 1), (["early", "V1"], 0)])
def test_where_regions_overlap_the_first_wins_with_a_warning(rois, in_both, encoded, overlapping_dir):
    responses, metadata = encoded(FWRF, 1, overlapping_dir, selection={"roi": rois})
    assert responses.tolist() == [[0, 1, 2, 3]]
    with pytest.warns(OverlappingVoxelsWarning, match="1 of 4 columns lie in a voxel .* the first region"):
        values = to_nifti(responses, metadata).get_fdata()[..., 0]
    assert values[4, 5, 6] == in_both
    assert np.isfinite(values).sum() == 3


def test_one_region_alone_does_not_warn_of_overlap(encoded, overlapping_dir):
    values = to_nifti(*encoded(FWRF, 1, overlapping_dir, selection={"roi": "early"})).get_fdata()
    assert values[4, 5, 6, 0] == 0
    assert values[7, 8, 9, 0] == 1


def test_a_part_of_the_voxels_in_any_order_stays_in_place(encoded, metadata_dir):
    responses, metadata = encoded(FWRF, selection={"roi": "V1"})
    values = to_nifti(label_responses(responses, metadata).isel(voxel=[9, 2])).get_fdata()
    voxels = voxels_of(mask_of(metadata_dir, "V1"))
    assert values[voxels[9]].tolist() == responses[:, 9].tolist()
    assert values[voxels[2]].tolist() == responses[:, 2].tolist()
    assert np.isfinite(values).sum() == 4


def test_one_region_of_several_can_be_picked_by_its_label(encoded, metadata_dir):
    responses, metadata = encoded(FWRF, selection={"roi": ["V2", "V1"]})
    labelled = label_responses(responses, metadata)
    values = to_nifti(labelled.isel(voxel=labelled["responses"].roi == "V1")).get_fdata()[..., 0]
    np.testing.assert_array_equal(values[mask_of(metadata_dir, "V1")], responses[0, 5:])
    assert np.isfinite(values).sum() == 21


def test_outside_can_be_another_number(encoded):
    values = to_nifti(*encoded(FWRF, selection={"roi": "V2"}), outside=0).get_fdata()
    assert np.isfinite(values).all()
    assert (values == 0).sum() == values.size - 9  # 10 responses, of which one is 0


def test_the_header_says_what_it_is(encoded, tmp_path):
    to_nifti(*encoded(FWRF, selection={"roi": "V1"}), ["ä.png", "b.png"]).to_filename(tmp_path / "x.nii.gz")
    (comment,) = nib.load(tmp_path / "x.nii.gz").header.extensions
    said = json.loads(comment.get_content())
    assert said["stimuli"] == ["ä.png", "b.png"]
    assert said["unit"] == "z-scored beta"
    assert said["model"]["model_id"] == FWRF
    assert said["model"]["selection"] == "{'roi': 'V1'}"


def test_netcdf_becomes_the_same_image_later(encoded, tmp_path):
    import xarray as xr

    labelled = label_responses(*encoded(FWRF, selection={"roi": "V1"}))
    save_responses(labelled, tmp_path / "x.nc")
    with xr.open_dataset(tmp_path / "x.nc", engine="h5netcdf") as read:
        image = to_nifti(read.load())
    np.testing.assert_array_equal(image.get_fdata(), to_nifti(labelled).get_fdata())
    np.testing.assert_array_equal(image.affine, to_nifti(labelled).affine)


def test_a_mask_with_another_number_of_voxels_is_not_guessed_at(encoded, overlapping_dir):
    path = layouts.model_folder(overlapping_dir, FWRF) / "metadata" / "metadata_sub-01_roi-V1.npy"
    content = np.load(path, allow_pickle=True).item()
    content["fmri"]["roi_mask_volume"][0, 0, 0] = True
    layouts.write_pickled_npy(path, content)
    with pytest.raises(InvalidParameterError, match=r"do not fit into NIfTI .* needs .* indices i, j, k of all voxels"):
        to_nifti(*encoded(FWRF, 1, overlapping_dir, selection={"roi": "V1"}))


def test_regions_in_different_volumes_are_refused(encoded, overlapping_dir):
    path = layouts.model_folder(overlapping_dir, FWRF) / "metadata" / "metadata_sub-01_roi-V1.npy"
    content = np.load(path, allow_pickle=True).item()
    content["fmri"]["fmri_affine"][0, 3] += 1
    layouts.write_pickled_npy(path, content)
    with pytest.raises(InvalidParameterError, match="of all voxels in one volume"):
        to_nifti(*encoded(FWRF, 1, overlapping_dir, selection={"roi": ["V1", "early"]}))


def test_more_stimuli_than_a_nifti_holds_are_refused(encoded):
    with pytest.raises(InvalidParameterError, match="holds 32,767 volumes, these are 32,768 stimuli"):
        to_nifti(*encoded(FWRF, 32_768, selection={"roi": "V2"}))


def test_voxels_of_things_fmri_lie_at_their_indices_in_the_volume_of_a_reference(encoded, metadata_dir, tmp_path):
    responses, metadata = encoded(layouts.THINGS_FMRI)
    path = layouts.model_folder(metadata_dir, layouts.THINGS_FMRI) / "metadata" / "metadata_sub-01.npy"
    places = np.load(path, allow_pickle=True).item()["fmri"]["voxel_coords"]
    affine = np.array([[-2.0, 0, 0, 60], [0, 2, 0, -70], [0, 0, 2, -50], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.zeros((14, 13, 9), np.uint8), affine), tmp_path / "brainmask.nii.gz")
    image = to_nifti(responses, metadata, reference=tmp_path / "brainmask.nii.gz")
    assert image.shape == (14, 13, 9, 2)
    np.testing.assert_array_equal(image.affine, affine)
    np.testing.assert_array_equal(image.get_fdata()[tuple(places.T)].T, responses)
    assert np.isfinite(image.get_fdata()).sum() == responses.size
    with pytest.raises(InvalidParameterError, match=r"reference has the shape \(3, 3, 3\); the voxels need at least"):
        to_nifti(responses, metadata, reference=nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), affine))


def test_an_image_without_a_known_position_says_so(encoded, tmp_path):
    responses, metadata = encoded(layouts.THINGS_FMRI, selection={"roi": ["V1", "IT"]})
    with pytest.warns(UnknownPositionWarning, match=r"reference='brainmask\.nii\.gz'"):
        save_responses(label_responses(responses, metadata), tmp_path / "x.nii.gz")
    read = nib.load(tmp_path / "x.nii.gz")
    assert (int(read.header["qform_code"]), int(read.header["sform_code"])) == (0, 0)
    labels = metadata["responses"]["fmri"]["coordinates"]
    values = read.get_fdata()[tuple(labels[index][1] for index in "ijk")].T
    np.testing.assert_array_equal(values, responses)
