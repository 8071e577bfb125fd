"""berg encode --scheduler, and berg.encode(..., scheduler=...)."""

import numpy as np
import pytest
from distributed import LocalCluster
from PIL import Image

from berg import BERG
from berg.cli.app import main
from berg.core.exceptions import InvalidParameterError
from berg.responses.store import open_responses

V1 = "fmri-szinte2024-prf_css"
FEW = {"min_held_out_r2": 0.6}
PICTURES = np.random.default_rng(0).integers(0, 256, (7, 40, 40, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for place, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{place}.png")
    return tmp_path / "pictures"


@pytest.fixture(scope="module")
def address():
    """Of a scheduler that runs, with one worker: a thread, as a process takes seconds to start."""
    with (
        pytest.MonkeyPatch.context() as patch,
        LocalCluster(1, processes=False, protocol="tcp", threads_per_worker=1, dashboard_address=":0") as cluster,
    ):
        patch.setattr("berg.encoding.cluster._keep_memory", lambda: None)  # of a worker's process, which this is not
        yield cluster.scheduler_address


def encode(*tokens, out):
    main(["encode", V1, "--selection", "min_held_out_r2=0.6", "--device", "cpu", "--out", str(out), *map(str, tokens)])


@pytest.mark.slow
def test_two_processes_write_what_one_writes(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of the pictures need not be whole
    tokens = ["--images", "pictures", "--size", "20", "--batch-size", "2"]
    encode(*tokens, out=tmp_path / "one.zarr")
    encode(*tokens, "--scheduler", "local:2", out=tmp_path / "two.zarr")
    one, two = open_responses(tmp_path / "one.zarr"), open_responses(tmp_path / "two.zarr")
    assert one.stimulus.identical(two.stimulus)
    np.testing.assert_allclose(two.responses, one.responses, rtol=1e-5)
    words = capsys.readouterr().out
    assert "begins with the first worker of local:2" in words
    assert words.endswith(f"to 7 pictures: {tmp_path / 'two.zarr'}\n")


def test_a_part_of_an_array_and_an_option_of_the_store(address, tmp_path):
    np.save(tmp_path / "p.npy", PICTURES)
    encode("--array", tmp_path / "p.npy", out=tmp_path / "r.zarr")
    tokens = ["--array", tmp_path / "p.npy", "--places", "2:6", "--scheduler", address]
    with pytest.raises(SystemExit):  # a store of other stimuli
        encode(*tokens, out=tmp_path / "r.zarr")
    encode(*tokens, "--overwrite", out=tmp_path / "r.zarr")
    expected = BERG().encode(V1, PICTURES[2:6].transpose(0, 3, 1, 2), selection=FEW, device="cpu")
    np.testing.assert_allclose(open_responses(tmp_path / "r.zarr").responses, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("torch_home")
def test_several_subjects_are_encoded_by_other_processes(berg_dir, tmp_path):
    np.save(tmp_path / "p.npy", PICTURES[:2])
    tokens = ["--subject", "1-2", "--selection", "channels=Oz", "--berg-dir", str(berg_dir), "--device", "cpu"]
    tokens += ["--array", str(tmp_path / "p.npy"), "--scheduler", "local:1", "--out", str(tmp_path / "r.zarr")]
    main(["encode", "eeg-things_eeg_2-vit_b_32", *tokens])
    assert list(open_responses(tmp_path / "r.zarr").children) == ["subject-1", "subject-2"]


def test_a_scheduler_writes_stores_only(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        encode("--images", folder, "--scheduler", "local:2", out=tmp_path / "r.nc")
    assert "--scheduler are for --out NAME.zarr" in capsys.readouterr().err


def test_python_has_it_too(address, folder, tmp_path):
    stored = BERG().encode(V1, folder, out=tmp_path / "r.zarr", scheduler=address, selection=FEW, device="cpu")
    expected = BERG().encode(V1, folder, selection=FEW, device="cpu")
    np.testing.assert_allclose(stored.responses, expected, rtol=1e-5)


def test_a_wrong_parameter_is_told_by_the_worker(address, folder, tmp_path):
    with pytest.raises(InvalidParameterError, match="subjekt"):
        BERG().encode(V1, folder, out=tmp_path / "r.zarr", scheduler=address, subjekt=1)


@pytest.mark.parametrize("options", [{"out": "r.nc"}, {"out": "r.zarr", "return_metadata": True}, {}])
def test_what_a_scheduler_cannot_do_is_refused(options, folder):
    with pytest.raises(InvalidParameterError, match=r"scheduler= takes a model id.*out=\"NAME\.zarr\""):
        BERG().encode(V1, folder, scheduler="local:2", **options)


@pytest.mark.slow
def test_a_loaded_model_stays_where_it_is(folder, tmp_path):
    model = BERG().get_encoding_model(V1, selection=FEW, device="cpu")
    with pytest.raises(InvalidParameterError, match="which each worker loads by itself"):
        BERG().encode(model, folder, out=tmp_path / "r.zarr", scheduler="local:2")
