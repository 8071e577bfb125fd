"""berg encode --out NAME.zarr and berg estimate, and what berg.encode makes of them."""

import re
import warnings

import av
import h5py
import nibabel
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from berg import BERG
from berg.cli.app import main
from berg.core.exceptions import InvalidParameterError
from berg.responses.store import open_responses

V1, EEG = "fmri-szinte2024-prf_css", "eeg-things_eeg_2-vit_b_32"
FSAVERAGE = "fmri-nsd_fsaverage-vit_b_32"
FEW = {"min_held_out_r2": 0.6}
PICTURES = np.random.default_rng(0).integers(0, 256, (7, 40, 40, 3), dtype=np.uint8)


@pytest.fixture
def brick(tmp_path):
    """Pictures as in NSD's brick: the colour last."""
    with h5py.File(tmp_path / "brick.hdf5", "w") as file:
        file["imgBrick"] = PICTURES
    return tmp_path / "brick.hdf5"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for place, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{place}.png")
    return tmp_path / "pictures"


def expected(pictures=PICTURES):
    return BERG().encode(V1, pictures.transpose(0, 3, 1, 2), selection=FEW, device="cpu")


def encode(*tokens, out):
    main(["encode", V1, "--selection", "min_held_out_r2=0.6", "--device", "cpu", "--out", str(out), *map(str, tokens)])


def test_a_range_of_a_brick_goes_into_a_store(brick, tmp_path):
    encode("--array", brick, "--places", "2:6", out=tmp_path / "r.zarr")
    np.testing.assert_allclose(open_responses(tmp_path / "r.zarr").responses, expected(PICTURES[2:6]), rtol=1e-5)


def test_the_files_of_a_folder_name_the_rows(folder, tmp_path):
    encode("--images", folder, out=tmp_path / "r.zarr")
    stored = open_responses(tmp_path / "r.zarr")
    assert stored.stimulus.values.tolist() == [f"{place}.png" for place in range(7)]
    np.testing.assert_allclose(stored.responses, expected(), rtol=1e-5)


def test_pictures_are_brought_to_a_size_on_the_way(folder, tmp_path):
    encode("--images", folder, "--size", "20", out=tmp_path / "r.zarr")
    encode("--images", folder, "--size", "20", out=tmp_path / "r.nc")
    with xr.open_dataset(tmp_path / "r.nc") as file:
        np.testing.assert_allclose(open_responses(tmp_path / "r.zarr").responses, file.responses, rtol=1e-5)
    with pytest.raises(SystemExit):  # the same files, of another size, are other stimuli
        encode("--images", folder, "--size", "30", out=tmp_path / "r.zarr")


def test_a_damaged_picture_is_fatal_or_skipped(folder, tmp_path, capsys):
    (folder / "3.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit):
        encode("--images", folder, out=tmp_path / "r.zarr")
    assert "3.png" in capsys.readouterr().err
    with warnings.catch_warnings(action="default"):
        encode("--images", folder, "--on-damaged", "skip", out=tmp_path / "s.zarr")
    assert re.search(r"(?m)^warning: .*" + r"1 of 7 stimuli could not be read.*3\.png", capsys.readouterr().err)
    stored = open_responses(tmp_path / "s.zarr")
    assert np.isnan(stored.responses[3]).all()
    np.testing.assert_allclose(stored.responses[4], expected()[4], rtol=1e-5)


@pytest.mark.parametrize("tokens", [["--on-damaged", "skip"], ["--compression", "zstd"]])
def test_what_a_file_cannot_do_is_refused(tokens, folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        encode("--images", folder, *tokens, out=tmp_path / "r.nc")
    assert "--out NAME.zarr" in capsys.readouterr().err


def test_a_damaged_picture_is_skipped_also_with_a_size(folder, tmp_path, capsys):
    (folder / "0.png").write_bytes(b"no picture")
    with warnings.catch_warnings(action="default"):
        encode("--images", folder, "--size", "20", "--on-damaged", "skip", out=tmp_path / "s.zarr")
    assert re.search(r"(?m)^warning: .*" + r"1 of 7 stimuli could not be read.*0\.png", capsys.readouterr().err)
    assert open_responses(tmp_path / "s.zarr").status.values.tolist() == [2, 1, 1, 1, 1, 1, 1]


def test_the_frames_of_a_video_go_into_a_store_with_their_times(tmp_path, capsys):
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 40, 40, "bgr0"
        for picture in PICTURES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    encode("--video", tmp_path / "clip.mkv", "--places", "1:6", out=tmp_path / "r.zarr")
    stored = open_responses(tmp_path / "r.zarr")
    np.testing.assert_allclose(stored.responses, expected(PICTURES[1:6]), rtol=1e-5)
    np.testing.assert_allclose(stored.stimulus, np.arange(1, 6) / 25)
    assert "to 5 frames: " in capsys.readouterr().out


def test_another_run_into_the_same_store_is_told_the_flag(folder, tmp_path, capsys):
    encode("--images", folder, "--size", "20", out=tmp_path / "r.zarr")
    with pytest.raises(SystemExit):
        encode("--images", folder, "--size", "20", "--fit", "squash", out=tmp_path / "r.zarr")
    assert "overwrite=True (--overwrite) to replace it" in capsys.readouterr().err
    encode("--images", folder, "--size", "20", "--fit", "squash", "--overwrite", out=tmp_path / "r.zarr")


def test_a_store_is_verified_and_put_right_by_the_command_that_began_it(brick, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("berg.encoding.task.MAX_BLOCK_STIMULI", 2)
    monkeypatch.setattr("berg.cli.encode.LONG_RUN", 1)
    out = tmp_path / "r.zarr"
    encode("--array", brick, "--batch-size", "1", out=out)
    main(["verify", str(out)])
    assert capsys.readouterr().out.splitlines()[-1] == "7 stimuli: 7 whole"
    chunk, label = out / "responses/c/1/0", out / "voxel/c/0"
    chunk.write_bytes(bytes(chunk.stat().st_size))
    label.write_bytes(b"")
    (out / "status/c/3").unlink()
    with pytest.raises(SystemExit):
        main(["verify", str(out)])
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "damaged: voxel/c/0",
        "damaged: stimuli 2 to 3",
        "7 stimuli: 4 whole, 2 damaged, 1 not encoded yet",
    ]
    assert "Give the command that began it once more" in told.err
    with warnings.catch_warnings(action="default"):
        encode("--array", brick, out=out)
    assert re.search(r"(?m)^warning: .*" + "not as they were written", capsys.readouterr().err)
    np.testing.assert_allclose(open_responses(out).responses, expected(), rtol=1e-5)
    main(["verify", str(out)])


@pytest.mark.slow
def test_all_stimuli_are_verified_when_asked_for(brick, tmp_path, capsys, monkeypatch):
    for name in ("AT_LEAST", "_AT_LEAST_BYTES"):
        monkeypatch.setattr(f"berg.encoding.encoded_stimuli.{name}", 0)
    encode("--array", brick, out=tmp_path / "r.zarr")
    with h5py.File(brick, "r+") as file:
        file["imgBrick"][3, 5, 5, 1] ^= 1
    encode("--array", brick, out=tmp_path / "r.zarr")
    with pytest.raises(SystemExit):
        encode("--array", brick, "--verify-stimuli", out=tmp_path / "r.zarr")
    assert "1 of the 7 stimuli that were compared are not those that were encoded (3)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"), [("gone.zarr", "There is no store"), ("pictures.zarr", "is not a store of responses")]
)
def test_what_is_no_store_is_not_verified(name, words, tmp_path, capsys):
    (tmp_path / "pictures.zarr").mkdir()
    with pytest.raises(SystemExit):
        main(["verify", str(tmp_path / name)])
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_long_run_takes_is_told_before_it_starts_and_when_it_goes_on(brick, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("berg.cli.encode.LONG_RUN", 5)
    monkeypatch.setattr("berg.encoding.task.MAX_BLOCK_STIMULI", 2)
    out = tmp_path / "r.zarr"
    encode("--array", brick, "--batch-size", "1", "--compression", "zstd", out=out)
    told = capsys.readouterr().out.splitlines()
    assert "stimuli/s" in told[0]
    assert "on disk" in told[0]
    assert len(told) == 2
    for place in (1, 2, 3):  # as a run leaves it that was ended after its first block
        (out / "status" / "c" / str(place)).unlink()
    encode("--array", brick, "--compression", "zstd", out=out)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("5 stimuli are left: ")
    assert "stimuli/s" in told[0]
    assert (open_responses(out).status == 1).all()


def planted(monkeypatch):
    """Encoding is an error."""
    monkeypatch.setattr("berg.models.encoding_model.encode_batches", lambda *_: pytest.fail("it was encoded"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("r.nii.gz", r"do not fit into NIfTI (.nii.gz): it needs the axes (stimulus, voxel)"),
        ("r.func.gii", "do not fit into GIFTI"),
        ("r-epo.fif", "do not fit into MNE"),
    ],
)
def test_a_format_that_cannot_hold_the_responses_is_refused_before_encoding(
    name, words, brick, tmp_path, capsys, monkeypatch
):
    planted(monkeypatch)
    with pytest.raises(SystemExit):
        encode("--array", brick, out=tmp_path / name)
    error = capsys.readouterr().err
    assert words in error
    assert "Use one of .nc, .npz" in error


@pytest.mark.usefixtures("torch_home")
def test_times_with_gaps_are_refused_before_encoding(berg_dir, brick, tmp_path, capsys, monkeypatch):
    planted(monkeypatch)
    tokens = ["--subject", "1", "--selection", "timepoints=1,3,9", "--berg-dir", str(berg_dir), "--array", str(brick)]
    with pytest.raises(SystemExit):
        main(["encode", EEG, *tokens, "--device", "cpu", "--out", str(tmp_path / "r-epo.fif")])
    assert "The time points have gaps" in capsys.readouterr().err


@pytest.mark.usefixtures("torch_home")
def test_both_gifti_files_are_named(berg_dir, brick, tmp_path, capsys):
    tokens = ["--subject", "1", "--selection", "lh_vertices=5,3", "--selection", "rh_vertices=[9]", "--berg-dir"]
    tokens += [str(berg_dir), "--array", str(brick), "--places", "0:1", "--device", "cpu"]
    with pytest.raises(SystemExit):
        main(["encode", FSAVERAGE, *tokens, "--out", str(tmp_path / "r.nii.gz")])
    assert "Use one of .nc, .npz, .csv, .mat, .func.gii, .dscalar.nii" in capsys.readouterr().err
    main(["encode", FSAVERAGE, *tokens, "--out", str(tmp_path / "r.func.gii")])
    names = [str(tmp_path / f"r_hemi-{side}.func.gii") for side in "LR"]
    assert capsys.readouterr().out.strip().endswith(": " + ", ".join(names))
    for name, vertices in zip(names, ([3, 5], [9]), strict=True):
        values = nibabel.load(name).agg_data()
        assert np.flatnonzero(~np.isnan(values)).tolist() == vertices


@pytest.mark.usefixtures("torch_home")
def test_several_models_go_into_one_store_each_with_its_selection(berg_dir, brick, tmp_path, capsys):
    tokens = ["--subject", "1", "--selection", "roi=V1v", "--selection", "time=0.1,0.2", "--selection", "channels=Oz"]
    tokens += ["--berg-dir", str(berg_dir), "--device", "cpu", "--array", str(brick), "--places", "0:2"]
    both = f"{FSAVERAGE},{EEG}"
    with pytest.raises(SystemExit):
        main(["encode", both, *tokens, "--out", str(tmp_path / "r.nc")])
    assert "can hold one model. Give --out NAME.zarr for 2 of them" in capsys.readouterr().err
    main(["encode", both, *tokens, "--out", str(tmp_path / "r.zarr")])
    stored = open_responses(tmp_path / "r.zarr")
    (eeg,) = [node for name, node in stored.children.items() if "eeg" in name]
    (fmri,) = [node for name, node in stored.children.items() if "fmri" in name]
    assert dict(eeg.sizes) == {"stimulus": 2, "repetition": 4, "channel": 1, "time": 21}
    pictures = PICTURES[:2].transpose(0, 3, 1, 2)
    lh, _ = BERG(berg_dir).encode(FSAVERAGE, pictures, subject=1, selection={"roi": "V1v"}, device="cpu")
    np.testing.assert_allclose(fmri["lh/lh"], lh, rtol=1e-4, atol=1e-5)
    with pytest.raises(SystemExit):
        main(["encode", both, *tokens, "--selection", "rois=V1v", "--out", str(tmp_path / "s.zarr")])
    assert "'rois' is not a selection key. Did you mean 'roi'?" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("torch_home")
def test_several_subjects_go_into_one_store(berg_dir, brick, tmp_path, capsys):
    tokens = ["--subject", "1-3", "--selection", "channels=Oz", "--berg-dir", str(berg_dir), "--device", "cpu"]
    tokens += ["--array", str(brick), "--places", "0:2"]
    with pytest.raises(SystemExit):
        main(["encode", EEG, *tokens, "--out", str(tmp_path / "r.nc")])
    assert "can hold one subject. Give --out NAME.zarr for 3 of them" in capsys.readouterr().err
    main(["encode", EEG, *tokens, "--out", str(tmp_path / "r.zarr")])
    stored = open_responses(tmp_path / "r.zarr")
    pictures = PICTURES[:2].transpose(0, 3, 1, 2)
    for subject in (1, 2, 3):
        alone = BERG(berg_dir).encode(EEG, pictures, subject=subject, selection={"channels": ["Oz"]}, device="cpu")
        (group,) = [node for name, node in stored.children.items() if str(subject) in name]
        np.testing.assert_allclose(next(iter(group.data_vars.values())), alone, rtol=1e-4, atol=1e-5)


def test_what_it_takes_is_told(brick, tmp_path, capsys):
    main(["estimate", V1, "--array", str(brick), "--out", str(tmp_path / "r.zarr"), "--n-stimuli", "73000"])
    out = capsys.readouterr().out
    assert "stimuli/s" in out
    assert "on disk" in out
    assert not (tmp_path / "r.zarr").exists()


def test_labelled_responses_know_their_units_and_stimuli(folder):
    labelled = BERG().encode(V1, folder, labelled=True, selection=FEW, device="cpu")
    assert labelled.responses.dims == ("stimulus", "voxel")
    assert labelled.stimulus.values.tolist() == [f"{place}.png" for place in range(7)]
    assert (labelled.held_out_r2 >= 0.6).all()
    np.testing.assert_allclose(labelled.responses, expected(), rtol=1e-5)


def test_several_models_are_labelled_each(folder):
    berg = BERG()
    models = [berg.get_encoding_model(V1, selection={"min_held_out_r2": least}, device="cpu") for least in (0.6, 0.7)]
    (one, other), metadata = berg.encode(models, folder, return_metadata=True, labelled=True)
    assert one.sizes["voxel"] > other.sizes["voxel"]
    assert len(metadata) == 2


def test_a_store_by_name_is_written_and_returned_labelled(tmp_path):
    pictures = PICTURES.transpose(0, 3, 1, 2)
    stored, metadata = BERG().encode(
        V1, pictures, return_metadata=True, out=tmp_path / "r.zarr", selection=FEW, device="cpu"
    )
    np.testing.assert_allclose(stored.responses, expected(), rtol=1e-5)
    assert metadata["model"]["model_id"] == V1
    with pytest.raises(InvalidParameterError, match=r'out must be 1 float32 array.*out="NAME\.zarr"'):
        BERG().encode(V1, pictures, out=np.zeros(3), device="cpu")
