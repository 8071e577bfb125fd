"""``berg plot``"""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import xarray as xr

from berg.cli.app import main
from berg.cli.plot import Figure
from berg.plotting.figures import FIGURES
from berg.responses.labelled import label_responses
from berg.responses.save import save_responses


@pytest.fixture(scope="module")
def rates():
    """Of one cell, to two sounds."""
    times = np.round(np.arange(0, 0.2, 0.01), 6)
    label = {"axes": ("stimulus", "unit", "time"), "unit": "spikes/s"}
    label["coordinates"] = {"unit": ("unit", np.array(["cell"])), "time": ("time", times)}
    metadata = {"responses": {"rate": label}, "model": {"model_id": "ephys-made_up-cell", "subject": 3}}
    values = np.abs(np.sin(np.arange(40))).reshape(2, 1, 20).astype(np.float32)
    return label_responses(values, metadata, ["song.wav", "noise.wav"])


@pytest.fixture
def file(rates, tmp_path):
    path = tmp_path / "responses.nc"
    save_responses(rates, path)
    return path


def failed(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["plot", *map(str, arguments)])
    assert stopped.value.code == 1
    return capsys.readouterr().err


def test_every_figure_can_be_asked_for():
    assert get_args(Figure) == tuple(FIGURES)


def test_a_file_is_drawn_as_its_labels_say(file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["plot", str(file)])
    assert capsys.readouterr().out == "Figure: responses.png\n"
    assert (tmp_path / "responses.png").read_bytes().startswith(b"\x89PNG")


def test_a_contrast_has_both_names_in_its_title(file, tmp_path):
    main(["plot", str(file), "--stimulus", "song", "--minus", "noise", "--out", str(tmp_path / "a.svg")])
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert "song.wav  −  noise.wav</text>" in text
    assert "ephys-made_up-cell  ·  subject 3" in text


def test_a_sound_is_drawn_above_its_response(file, tmp_path):
    from scipy.io import wavfile

    wavfile.write(tmp_path / "song.wav", 8000, np.ones(1600, np.float32))
    main(["plot", str(file), "--stimulus", "song", "--sounds", str(tmp_path), "--out", str(tmp_path / "a.svg")])
    assert "sound" in (tmp_path / "a.svg").read_text("utf-8")


def test_a_sound_of_several_stimuli_is_refused(file, tmp_path, capsys):
    from scipy.io import wavfile

    wavfile.write(tmp_path / "other.wav", 8000, np.ones(1600, np.float32))
    options = ("--sounds", tmp_path, "--out", tmp_path / "a.png")
    assert "Choose one:  --stimulus song.wav" in failed(capsys, file, *options)
    assert "None of these sounds is called 'song.wav'" in failed(capsys, file, "--stimulus", "song", *options)


def test_one_model_of_several_is_chosen_by_its_group(rates, tmp_path, capsys):
    whole = xr.DataTree.from_dict({"subject-1": rates, "subject-2": rates})
    path = tmp_path / "two.nc"
    whole.to_netcdf(path, engine="h5netcdf")
    out = ("--out", tmp_path / "a.png")
    assert "several models or subjects. Choose one:  --group subject-1" in failed(capsys, path, *out)
    assert "no group 'subject-3'. Did you mean 'subject-" in failed(capsys, path, "--group", "subject-3", *out)
    main(["plot", str(path), "--group", "subject-2", "--out", str(tmp_path / "a.png")])
    assert (tmp_path / "a.png").exists()


def test_files_that_cannot_be_drawn_are_refused(file, tmp_path, capsys):
    out = ("--out", tmp_path / "a.png")
    assert "There is no file" in failed(capsys, tmp_path / "none.nc", *out)
    (tmp_path / "a.csv").write_text("1,2")
    assert "does not keep the labels" in failed(capsys, tmp_path / "a.csv", *out)
    (tmp_path / "b.nc").write_text("no NetCDF")
    assert "is no NetCDF file of responses" in failed(capsys, tmp_path / "b.nc", *out)
    assert "must end in one of .png, .svg, .pdf" in failed(capsys, file, "--out", tmp_path / "a.gif")
    assert "no stimulus 'sing'. Did you mean 'song.wav'" in failed(capsys, file, "--stimulus", "sing", *out)


@pytest.fixture
def on_another_surface(tmp_path):
    """Responses on a surface of 2,562 vertices a hemisphere, and the files of a made-up mesh."""
    nibabel = pytest.importorskip("nibabel")
    pytest.importorskip("nilearn")
    import nilearn
    from nilearn.surface import load_surf_mesh

    folder = Path(nilearn.__file__).parent / "datasets" / "data" / "fsaverage5"
    outputs, labels = [], {}
    for name, side in (("lh", "left"), ("rh", "right")):
        mesh = load_surf_mesh(str(folder / f"infl_{side}.gii.gz"))
        points, faces = mesh.coordinates[:2562], fsaverage4_faces()
        arrays = [nibabel.gifti.GiftiDataArray(np.asarray(points, "float32"), intent="NIFTI_INTENT_POINTSET")]
        arrays.append(nibabel.gifti.GiftiDataArray(faces.astype("int32"), intent="NIFTI_INTENT_TRIANGLE"))
        nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), tmp_path / f"{name}.surf.gii")
        outputs.append(np.sin(points[None, :, 1] / 20).astype("float32"))
        label = {"axes": ("stimulus", "vertex"), "unit": "z-scored beta", "attributes": {"vertex_total": 2562}}
        labels[name] = label | {"coordinates": {"vertex": ("vertex", np.arange(2562))}}
    metadata = {"responses": labels, "model": {"model_id": "fmri-made_up-small"}}
    save_responses(label_responses(tuple(outputs), metadata, ["a.png"]), tmp_path / "r.nc")
    return tmp_path


def fsaverage4_faces():
    from scipy.spatial import ConvexHull

    rng = np.random.default_rng(0)
    points = rng.normal(size=(2562, 3))
    return ConvexHull(points / np.linalg.norm(points, axis=1, keepdims=True)).simplices


def test_a_surface_that_is_not_on_board_is_drawn_on_the_mesh_that_is_given(on_another_surface, capsys):
    folder = on_another_surface
    assert "--mesh LEFT.surf.gii RIGHT.surf.gii" in failed(capsys, folder / "r.nc", "--out", folder / "a.png")
    meshes = [str(folder / f"{name}.surf.gii") for name in ("lh", "rh")]
    main(["plot", str(folder / "r.nc"), "--mesh", *meshes, "--out", str(folder / "a.svg")])
    assert "left, lateral" in (folder / "a.svg").read_text("utf-8")
    assert "got 1:  --mesh LEFT RIGHT" in failed(capsys, folder / "r.nc", "--mesh", meshes[0])
    assert "--mesh LEFT RIGHT" in failed(capsys, folder / "r.nc", "--sulci", *meshes)
