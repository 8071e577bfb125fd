import sys
from contextlib import suppress

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from nilearn.surface import load_surf_data
from PIL import Image
from published import layouts

from berg import BERG
from berg.core.exceptions import InvalidParameterError, MissingExtraError
from berg.responses.formats import FORMATS, formats_of
from berg.responses.labelled import label_responses
from berg.responses.mne_objects import to_mne_epochs, to_mne_evoked
from berg.responses.nifti import to_nifti
from berg.responses.save import check_ending, save_responses
from berg.responses.surface import to_cifti, to_gifti
from berg.responses.tables import to_dataframe

EEG, FSAVERAGE, FWRF = layouts.EEG, layouts.FSAVERAGE, layouts.FWRF
EVERY = [".nc", ".npz", ".csv", ".mat"]
FITTING = {
    EEG: [".nc", ".npz", ".npy", ".csv", ".mat", "-epo.fif", "-ave.fif"],
    FWRF: [".nc", ".npz", ".npy", ".csv", ".mat", ".nii", ".nii.gz"],
    FSAVERAGE: [*EVERY, ".func.gii", ".dscalar.nii"],
}
SMALL = {EEG: {"channels": ["Oz"]}, FWRF: {"roi": "V2"}, FSAVERAGE: {"roi": "V1v"}}


@pytest.mark.parametrize("model_id", FITTING)
def test_the_formats_of_a_model_are_those_that_can_be_written(model_id, encoded, tmp_path):
    labelled = label_responses(*encoded(model_id, selection=SMALL[model_id]))
    assert formats_of(labelled) == FITTING[model_id]
    for ending in FORMATS:
        path = tmp_path / f"x{ending}"
        if ending in FITTING[model_id]:
            assert all(written.stat().st_size for written in save_responses(labelled, path))
        else:
            with pytest.raises(InvalidParameterError, match=f"{model_id}.*do not fit into .*{ending}.*Use one of .nc"):
                save_responses(labelled, path)
            assert not path.exists()


@pytest.mark.parametrize("convert", [to_nifti, to_gifti, to_cifti])
def test_eeg_does_not_fit_into_a_brain_image(convert, encoded):
    words = r"eeg \('stimulus', 'repetition', 'channel', 'time'\)\) do not fit .*Use one of .*-epo.fif, -ave.fif\."
    with pytest.raises(InvalidParameterError, match=words):
        convert(*encoded(EEG))


@pytest.mark.parametrize("convert", [to_mne_epochs, to_mne_evoked])
def test_voxels_do_not_fit_into_mne(convert, encoded):
    with pytest.raises(
        InvalidParameterError, match=r"do not fit into MNE .* needs EEG, MEG or ECoG .*Use one of .*\.nii\.gz\."
    ):
        convert(*encoded(FWRF, selection={"roi": "V1"}))


def test_voxels_without_a_place_do_not_fit_into_nifti():
    found = BERG().encode("fmri-szinte2024-prf_css", np.zeros((1, 3, 8, 8), "uint8"), return_metadata=True)
    with pytest.raises(
        InvalidParameterError, match=r"prf_css \(responses .* do not fit into NIfTI .* the indices i, j, k"
    ):
        to_nifti(*found)


def test_responses_that_lost_an_axis_say_which_axes_are_needed(encoded):
    labelled = label_responses(*encoded(FWRF, selection={"roi": "V1"}))
    with pytest.raises(InvalidParameterError, match=r"needs the axes \(stimulus, voxel\)"):
        to_nifti(labelled.isel(stimulus=0))


@pytest.mark.parametrize("ending", [".func.gii", ".dscalar.nii", ".nii", ".csv", "-epo.fif", "-ave.fif"])
def test_a_package_that_is_missing_is_told_before_anything_is_encoded(ending, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, FORMATS[ending].package, None)
    with pytest.raises(MissingExtraError, match=rf'needs {FORMATS[ending].package}, .*pip install "berg\[export\]"'):
        check_ending(tmp_path / f"x{ending}")


@pytest.mark.parametrize(
    ("convert", "package", "model_id"),
    [
        (to_nifti, "nibabel", FWRF), (to_gifti, "nibabel", FSAVERAGE), (to_cifti, "nibabel", FSAVERAGE),
        (to_mne_epochs, "mne", EEG), (to_mne_evoked, "mne", EEG), (to_dataframe, "pandas", EEG),
    ],
)  # fmt: skip
def test_a_function_without_its_package_says_what_to_type(convert, package, model_id, encoded, monkeypatch):
    found = encoded(model_id, selection=SMALL[model_id])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'needs {package}.*Type:  pip install "berg\[export\]"'):
        convert(*found)


@pytest.mark.parametrize("convert", [to_nifti, to_gifti, to_cifti, to_mne_epochs, to_mne_evoked, to_dataframe])
def test_metadata_of_no_model_are_refused(convert):
    with pytest.raises(InvalidParameterError, match="do not label these responses"):
        convert(np.zeros((2, 3), "float32"), {})


def test_the_longest_ending_counts(encoded, tmp_path):
    save_responses(label_responses(*encoded(FSAVERAGE, selection=SMALL[FSAVERAGE])), tmp_path / "x.y.dscalar.nii")
    assert isinstance(nib.load(tmp_path / "x.y.dscalar.nii"), nib.Cifti2Image)


@pytest.mark.slow
def test_a_published_model_is_encoded_and_exported_by_the_command_line(berg_dir, tmp_path):
    from berg.cli.app import main

    image = layouts.random_images(np.random.default_rng(0), 1, 64, 64)[0]
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "a.png")
    cases = {
        FSAVERAGE: ("x.func.gii", "roi=PPA"),
        FWRF: ("x.nii.gz", "roi=V1,V2"),
        EEG: ("x-ave.fif", "channels=Oz,Pz"),
    }
    responses = {}
    for model_id, (name, selection) in cases.items():
        key, values = selection.split("=")
        options = ["--subject", "1", "--berg-dir", str(berg_dir), "--selection", selection, "--device", "cpu"]
        with suppress(SystemExit):
            main(["encode", model_id, "--images", str(tmp_path / "a.png"), "--out", str(tmp_path / name), *options])
        responses[model_id] = BERG(berg_dir).encode(
            model_id, image[None], subject=1, selection={key: values.split(",")}, device="cpu", return_metadata=True
        )
    (lh, _), metadata = responses[FSAVERAGE]
    read = load_surf_data(tmp_path / "x_hemi-L.func.gii")
    np.testing.assert_array_equal(read[metadata["fmri"]["lh_fsaverage_rois"]["PPA"]], lh[0])
    voxels, metadata = responses[FWRF]
    volume = nib.load(tmp_path / "x.nii.gz").get_fdata()[..., 0]
    masks = metadata["fmri"]["roi_mask_volume"]
    np.testing.assert_array_equal(np.concatenate([volume[masks["V1"]], volume[masks["V2"]]]), voxels[0])
    import mne

    (evoked,) = mne.read_evokeds(tmp_path / "x-ave.fif", verbose="warning")
    assert evoked.comment == "a.png"
    np.testing.assert_allclose(evoked.data, responses[EEG][0][0].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_every_published_model_has_labels_with_places(encoded):
    vertices = encoded(FSAVERAGE, selection={"roi": "V1v"})[1]["responses"]["rh"]
    assert vertices["attributes"] == {"vertex_total": layouts.N_VERTICES}
    eeg = encoded(EEG)[1]["responses"]["eeg"]["attributes"]
    assert eeg == {"repetition_total": 4, "channel_total": 63, "time_total": 140, "time_step": pytest.approx(0.005)}
    labelled = label_responses(*encoded(FWRF, selection={"roi": ["V1", "V2"]}))
    assert isinstance(labelled, xr.Dataset)
    assert labelled.attrs["volume_shape"] == [81, 104, 83]
