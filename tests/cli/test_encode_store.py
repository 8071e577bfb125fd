"""berg encode --out NAME.zarr and berg estimate, and what berg.encode makes of them."""

import h5py
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from berg import BERG
from berg.cli.app import main
from berg.core.exceptions import InvalidParameterError
from berg.responses.store import open_responses

V1, EEG = "fmri-szinte2024-prf_css", "eeg-things_eeg_2-vit_b_32"
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
    with pytest.warns(UserWarning, match=r"1 of 7 stimuli could not be read.*3\.png"):
        encode("--images", folder, "--on-damaged", "skip", out=tmp_path / "s.zarr")
    stored = open_responses(tmp_path / "s.zarr")
    assert np.isnan(stored.responses[3]).all()
    np.testing.assert_allclose(stored.responses[4], expected()[4], rtol=1e-5)


@pytest.mark.parametrize("tokens", [["--on-damaged", "skip"], ["--overwrite"]])
def test_what_a_file_cannot_do_is_refused(tokens, folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        encode("--images", folder, *tokens, out=tmp_path / "r.nc")
    assert "--out NAME.zarr" in capsys.readouterr().err


@pytest.mark.xdist_group("published")
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
        BERG().encode(V1, pictures, out="r.nc", device="cpu")
