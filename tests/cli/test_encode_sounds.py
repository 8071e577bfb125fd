"""``berg encode --sounds``"""

import re
import warnings

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from scipy.io import wavfile

from berg import BERG
from berg.cli.app import main

MODEL = "ephys-rokem2006-ln_renewal"


def run(*tokens):
    main([str(token) for token in tokens])


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("b.wav", "a.wav"):
        wavfile.write(folder / name, 44_100, draw.integers(-9000, 9000, 8820).astype("int16"))
    return folder


def test_sounds_are_encoded_with_their_names_and_times(sounds, tmp_path, capsys):
    out = tmp_path / "r.nc"
    run("encode", MODEL, "--sounds", sounds / "a.wav", sounds / "b.wav", "--out", out, "--device", "cpu")
    assert "to 2 sounds" in capsys.readouterr().out
    expected = BERG().encode(MODEL, sounds, device="cpu")
    with xr.open_dataset(out, engine="h5netcdf") as saved:
        assert saved.stimulus.values.tolist() == ["a.wav", "b.wav"]
        assert saved["rate"].dims == ("stimulus", "unit", "time")
        np.testing.assert_allclose(saved.time, np.arange(400) / 2000)
        np.testing.assert_allclose(saved["rate"], expected, rtol=1e-5)


def test_a_window_and_a_parameter_are_taken(sounds, tmp_path):
    out = tmp_path / "r.nc"
    options = ["--selection", "times=[0.05, 0.1]", "--parameter", "pascals_per_unit=0.2", "--device", "cpu"]
    run("encode", MODEL, "--sounds", sounds, "--out", out, *options)
    with xr.open_dataset(out, engine="h5netcdf") as saved:
        np.testing.assert_allclose(saved.time, np.arange(100, 201) / 2000)
        assert saved.attrs["pascals_per_unit"] == 0.2


@pytest.mark.parametrize(
    ("model", "option", "words"),
    [
        (MODEL, "--images", "takes sounds, which are not given with --images; try --sounds or --array"),
        ("fmri-szinte2024-prf_css", "--sounds", "takes pictures, which are not given with --sounds; try --images or"),
    ],
)
def test_the_wrong_kind_of_stimuli_is_named(model, option, words, sounds, tmp_path, capsys):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    file = tmp_path / "a.png" if option == "--images" else sounds
    with pytest.raises(SystemExit, match="1"):
        run("encode", model, option, file, "--out", tmp_path / "r.nc", "--device", "cpu")
    assert words in capsys.readouterr().err


def test_pictures_and_sounds_together_are_wrong_usage(sounds, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("encode", MODEL, "--images", "a.png", "--sounds", sounds, "--out", tmp_path / "r.nc")
    printed = capsys.readouterr()
    assert "--images" in printed.err + printed.out


@pytest.mark.parametrize("cut", ["a.wav", "b.wav"])
def test_a_sound_that_was_cut_ends_the_run_or_is_left_out(cut, sounds, tmp_path, capsys):
    whole = BERG().encode(MODEL, sounds, device="cpu")
    (sounds / cut).write_bytes((sounds / cut).read_bytes()[:-8000])
    command = ["encode", MODEL, "--sounds", sounds, "--out", tmp_path / "r.zarr", "--device", "cpu"]
    with pytest.raises(SystemExit, match="1"):
        run(*command)
    assert f"{cut} is cut: 0.1093 s of the 0.2 s" in capsys.readouterr().err
    with warnings.catch_warnings(action="default"):
        run(*command, "--on-damaged", "skip")
    assert re.search(r"(?m)^warning: .*" + cut, capsys.readouterr().err)
    with xr.open_zarr(tmp_path / "r.zarr") as saved:
        missing = [name == cut for name in ("a.wav", "b.wav")]
        assert np.isnan(saved["rate"]).all(("unit", "time")).values.tolist() == missing
        np.testing.assert_allclose(saved["rate"][~np.array(missing)], whole[~np.array(missing)], rtol=1e-5)
