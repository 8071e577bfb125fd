import json
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from berg.cli.app import main
from berg.cli.encode_options import value
from berg.core import model_registry
from berg.core.exceptions import InvalidParameterError
from berg.stimuli.arrays import places_of

MODEL = "fmri-szinte2024-prf_css"


def run(capsys, *tokens, code=0):
    """Standard output and error of one command; its exit code is checked."""
    found = 0
    try:
        main([str(token) for token in tokens])
    except SystemExit as stop:
        found = stop.code or 0
    printed = capsys.readouterr()
    assert found == code, printed
    return printed


def refused(capsys, *tokens):
    """The one line on standard error with which a command ends in exit code 1."""
    printed = run(capsys, *tokens, code=1)
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("berg: ")
    assert "Traceback" not in printed.err
    return printed.err


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("b.png", "a.png", "c.jpg"):
        Image.fromarray(draw.integers(0, 256, (48, 48, 3), dtype="uint8")).save(folder / name)
    return folder


def test_list_shows_every_model(capsys):
    printed = run(capsys, "list")
    for model_id in model_registry.get_available_models():
        if model_registry.get_registered(model_id)["yaml_path"]:
            assert model_id in printed.out
    assert "species" in printed.out
    assert "Human" in printed.out


def test_list_writes_each_model_on_one_line_for_programs_and_fits_a_terminal(capsys, monkeypatch):
    ids = [card.model_id for card in model_registry.readable_cards()]
    lines = run(capsys, "list").out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", *ids]
    assert max(map(len, lines)) > 100
    monkeypatch.setenv("TERM", "dumb")  # without bold headings
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert max(map(len, run(capsys, "list").out.splitlines())) <= 100


@pytest.mark.parametrize(
    "options",
    [
        ["--modality", "fmri"],
        ["--species", "human"],
        ["--stimuli", "IMAGE"],
        ["--modality", "fmri", "--species", "Hum"],
    ],
)
def test_list_filters_without_regard_to_case(options, capsys):
    assert MODEL in run(capsys, "list", *options).out


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--modality", "telepathy"], "modality telepathy"),
        (["--species", "Human", "--stimuli", "smells"], "species Human, stimuli smells"),
    ],
)
def test_list_that_finds_nothing_says_what_was_asked(options, asked, capsys):
    assert refused(capsys, "list", *options) == f"berg: No model has {asked}. All models:  berg list\n"


def test_list_names_what_was_left_out(capsys, monkeypatch):
    monkeypatch.setitem(model_registry.PROBLEMS, "fmri-a-b.yaml", "fmri-a-b.yaml, line 3: broken.")
    printed = run(capsys, "list")
    assert MODEL in printed.out
    assert "left out: fmri-a-b.yaml, line 3: broken." in printed.err


@pytest.mark.parametrize("text", ["model_id: eeg-broken-class\nmodality: [\n", None])
def test_list_leaves_out_a_hand_written_class_whose_card_is_broken(text, capsys, monkeypatch, tmp_path):
    path = tmp_path / "eeg-broken-class.yaml"
    if text is not None:
        path.write_text(text)
    model_registry.get_available_models()
    entry = {"module_path": "json", "class_name": "JSONDecoder", "modality": "eeg", "training_dataset": "broken"}
    monkeypatch.setitem(model_registry.MODEL_REGISTRY, "eeg-broken-class", {**entry, "yaml_path": str(path)})
    monkeypatch.setattr(model_registry, "PROBLEMS", model_registry.PROBLEMS.copy())
    printed = run(capsys, "list")
    assert MODEL in printed.out
    assert f"left out: {path}" in printed.err or f"The model card {path} cannot be read" in printed.err


def test_describe_prints_the_card_as_text(capsys):
    printed = run(capsys, "describe", MODEL).out
    assert printed.startswith(f"{MODEL}\n---")
    assert "stimulus_width_deg  float" in printed
    assert "Limitations\n-----------\n" in printed


def test_describe_prints_the_card_as_markdown(capsys):
    printed = run(capsys, "describe", MODEL, "--markdown").out
    assert printed.startswith(f"# {MODEL}\n")
    assert "\n## Parameters\n" in printed
    assert "| stimulus_width_deg | float |" in printed


def test_describe_of_an_unknown_model_is_one_line(capsys):
    said = refused(capsys, "describe", "fmri-szinte2024-prf")
    assert "There is no model 'fmri-szinte2024-prf'. Did you mean 'fmri-szinte2024-prf_css'?" in said


def test_encode_writes_labelled_responses_of_a_folder(pictures, capsys, tmp_path):
    out = tmp_path / "responses.nc"
    said = run(capsys, "encode", MODEL, "--images", pictures, "--out", out, "--device", "cpu").out
    assert f"Responses of {MODEL} to 3 pictures: {out}" in said
    with xr.open_dataset(out, engine="h5netcdf") as read:
        responses = read["responses"].load()
    assert responses.stimulus.values.tolist() == ["a.png", "b.png", "c.jpg"]
    assert responses.dims == ("stimulus", "voxel")
    assert {"x_deg", "y_deg", "roi", "held_out_r2"} <= set(responses.coords)
    assert bool(np.isfinite(responses).all())


def test_encode_takes_all_its_options(pictures, capsys, tmp_path):
    out = tmp_path / "responses.npz"
    wide = Image.new("RGB", (60, 40), (200, 30, 30))
    wide.save(tmp_path / "wide.png")
    run(
        capsys, "encode", MODEL, "--images", pictures, tmp_path / "wide.png", "--out", out, "--subject", 1,
        "--selection", "roi=V1", "--selection", "min_held_out_r2=0.5", "--selection", "x_deg=0,20",
        "--parameter", "stimulus_width_deg=8", "--size", 32, "--fit", "pad", "--device", "cpu", "--batch-size", 2,
    )  # fmt: skip
    whole = tmp_path / "whole.nc"
    run(
        capsys, "encode", MODEL, "--images", pictures, tmp_path / "wide.png", "--out", whole, "--size", 32,
        "--parameter", "stimulus_width_deg=8", "--fit", "pad", "--device", "cpu",
    )  # fmt: skip
    with np.load(out) as read:
        responses = read["responses"]
    with xr.open_dataset(whole, engine="h5netcdf") as read:
        everything = read["responses"].load()
    kept = (everything.held_out_r2 >= 0.5) & (everything.x_deg >= 0) & (everything.x_deg <= 20)
    assert 0 < responses.shape[1] == int(kept.sum()) < everything.sizes["voxel"]
    np.testing.assert_allclose(responses, everything.values[:, kept.values], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("written", ["x_deg=[0, 20]", "x_deg=0,20", "x_deg=0, 20"])
def test_a_list_may_be_written_with_or_without_brackets(written, pictures, capsys, tmp_path):
    out = tmp_path / "responses.npy"
    run(
        capsys, "encode", MODEL, "--images", pictures / "a.png", "--out", out, "--selection", written, "--device", "cpu"
    )
    n_voxels = np.load(out).shape[1]
    x = model_registry.get_model_class(MODEL).get_metadata(subject=1)["fmri"]["x_deg"]
    assert n_voxels == sum(0 <= value <= 20 for value in x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--selection", "roi"], "--selection takes key=value, got 'roi'. For example --selection roi=V1"),
        (["--parameter", "width"], "--parameter takes key=value, got 'width'"),
        (["--selection", "rio=V1"], "'rio' is not a selection key. Did you mean 'roi'?"),
        (["--selection", "roi=V2"], "'V2'"),
        (["--selection", "roi=[V1"], "'[V1' is neither a number nor a list nor a name"),
        (["--selection", "roi=2001-99-99"], "'2001-99-99'"),
        (["--selection", "roi=!!python/object/apply:os.getcwd []"], "neither a number nor a list nor a name"),
        (["--selection", "roi=!!bool x"], "neither a number nor a list nor a name"),
        (["--parameter", "stimulus_width_deg=wide"], "must be float, got str 'wide'"),
        (["--parameter", "stimulus_width_deg=400"], "it must lie in [0.5, 40.0] degrees of visual angle"),
        (["--parameter", "stimulus_widht_deg=4"], "Did you mean 'stimulus_width_deg'?"),
        (["--subject", "7"], "'subject' of fmri-szinte2024-prf_css is 7. Allowed: 1"),
        (["--device", "gpu"], "'gpu' is not a device. Use 'auto', 'cpu'"),
        (["--batch-size", "0"], "batch_size must be a whole number from 1, got 0"),
    ],
)
def test_encode_refuses_wrong_options_in_one_line(options, words, pictures, capsys, tmp_path):
    out = tmp_path / "responses.nc"
    assert words in refused(capsys, "encode", MODEL, "--images", pictures, "--out", out, *options)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("responses.txt", "'responses.txt' must end in one of .nc, .npz, .npy"),
        ("gone/responses.nc", "gone does not exist. Make it first"),
    ],
)
def test_encode_refuses_a_place_that_it_cannot_write_before_it_computes(name, words, capsys, tmp_path):
    said = refused(capsys, "encode", "no-such-model", "--images", tmp_path / "no.png", "--out", tmp_path / name)
    assert words in said


def test_encode_names_a_folder_that_is_not_there(capsys, tmp_path):
    said = refused(capsys, "encode", MODEL, "--images", tmp_path / "gone", "--out", tmp_path / "r.nc")
    assert f"There is no file or folder {tmp_path / 'gone'}" in said


def test_encode_refuses_pictures_of_different_sizes_with_what_to_type(pictures, capsys, tmp_path):
    Image.new("RGB", (20, 10)).save(pictures / "d.png")
    out = tmp_path / "r.nc"
    said = refused(capsys, "encode", MODEL, "--images", pictures, "--out", out, "--device", "cpu")
    assert "different sizes (48 x 48 in" in said
    assert "--size 224" in said


def test_encode_refuses_a_broken_picture(pictures, capsys, tmp_path):
    (pictures / "d.png").write_bytes(b"no picture")
    said = refused(capsys, "encode", MODEL, "--images", pictures, "--out", tmp_path / "r.nc", "--device", "cpu")
    assert "d.png is not a picture that can be read" in said


def test_card_schema_prints_the_schema_as_json(capsys):
    schema = json.loads(run(capsys, "card-schema").out)
    assert {"model_id", "modality", "training_dataset"} <= set(schema["required"])
    assert "licence" in schema["properties"]


def test_version_prints_the_installed_version(capsys):
    assert run(capsys, "--version").out.strip() == version("berg")


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["lst"], "lst"),
        (["describe"], "MODEL"),
        (["describe", MODEL, "more"], "more"),
        (["list", "--colour", "red"], "--colour"),
        (["encode", MODEL, "--out", "r.nc"], "--images"),
        (["encode", MODEL, "--images", "x.png"], "--out"),
        (["encode", MODEL, "--images", "x.png", "--out", "r.nc", "--size", "big"], "big"),
        (["encode", MODEL, "--images", "x.png", "--out", "r.nc", "--fit", "crop"], "crop"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_wrong(tokens, words, capsys):
    printed = run(capsys, *tokens, code=2)
    assert words.casefold() in (printed.err + printed.out).casefold()
    assert "Traceback" not in printed.err


def test_what_nobody_foresaw_passes_through(capsys, tmp_path):
    (tmp_path / "there.nc").mkdir()  # writing to it fails in the operating system, which is none of our errors
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    tokens = ["encode", MODEL, "--images", tmp_path / "a.png", "--out", tmp_path / "there.nc", "--overwrite"]
    with pytest.raises(OSError, match=r"there.nc"):
        main([str(token) for token in tokens])


def test_python_m_berg_shows_every_verb():
    done = subprocess.run([sys.executable, "-m", "berg", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for verb in ("demo", "list", "describe", "encode", "card-schema", "--version"):
        assert verb in done.stdout
    assert done.stderr == ""


def test_python_m_berg_ends_with_code_1_and_one_line():
    command = [sys.executable, "-m", "berg", "describe", "no-such-model"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("berg: There is no model 'no-such-model'")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_stops_early_is_no_error():
    command = [sys.executable, "-m", "berg", "card-schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # as `head` does when it has seen enough
        assert process.stderr.read() == ""


@pytest.mark.parametrize("verb", ["list", "describe", "encode", "card-schema", "demo"])
def test_every_verb_has_help(verb, capsys):
    printed = run(capsys, verb, "--help").out
    assert printed.count("\n") > 3
    assert f"berg {verb}" in printed


@pytest.mark.parametrize(
    ("text", "read"),
    [("10", 10), ("-3", -3), ("0.1,0.2", [0.1, 0.2]), ("[V1, 5]", ["V1", 5]), ("true", True), ("'1'", "1"),
     ("null", None), ("1_0", "1_0"),
     ("010", "010"), ("08", "08"), ("1:20", "1:20"), ("NO", "NO"), ("on,off", ["on", "off"]),
     ("１", "１"), ("0x1F", "0x1F"), ("2001-01-01", "2001-01-01"), ("1_0.5", "1_0.5"), ("", None)],
)  # fmt: skip
def test_what_is_given_is_taken_as_it_is_written(text, read):
    assert value(text) == read
    assert type(value(text)) is type(read)


@pytest.mark.parametrize("text", ["²:5", "1_0:20", "１:5", "0:1e3", "-1:5", "0:" + "9" * 30])
def test_what_is_no_range_of_stimuli_is_refused(text):
    with pytest.raises(InvalidParameterError, match="write START:STOP"):
        places_of(text)
