"""What a user reads when a file or a word is wrong: the type of the error, the file, and what to type."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import layouts

from berg import BERG
from berg.core.exceptions import (
    CorruptedFileError,
    DeviceMemoryError,
    InvalidParameterError,
    MissingFileError,
    UnsafeFileError,
)
from berg.models.batches import SmallerBatchWarning
from berg.weights.safetensors_files import read_safetensors, write_safetensors

pytestmark = pytest.mark.xdist_group("published")

FSAVERAGE, EEG, FWRF = layouts.FSAVERAGE, layouts.EEG, layouts.FWRF
MODELS = {
    FSAVERAGE: {"subject": 1, "selection": {"roi": "V1v"}},
    EEG: {"subject": 1, "selection": {"channels": "Oz"}},
    FWRF: {"subject": 1, "selection": {"roi": "V1"}},
}
NAMES = {FSAVERAGE: "subject-01", EEG: "subject-01", FWRF: "sub-01_roi-V1"}
on_every_model = pytest.mark.parametrize("model_id", MODELS)


def load(berg_dir: Path | None, model_id: str, **changed: Any) -> Any:
    return BERG(berg_dir).get_encoding_model(model_id, device="cpu", **{**MODELS[model_id], **changed})


def weights_file(berg_dir: Path, model_id: str) -> Path:
    folder = layouts.model_folder(berg_dir, model_id) / "encoding_models_weights"
    return folder / f"weights_{NAMES[model_id]}{'.pt' if model_id == FWRF else '.npy'}"


def metadata_file(berg_dir: Path, model_id: str) -> Path:
    return layouts.model_folder(berg_dir, model_id) / "metadata" / f"metadata_{NAMES[model_id]}.npy"


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # a link to the file of all tests
    path.write_bytes(content)


def names(path: Path) -> str:
    return re.escape(str(path))


# Files that are not there


@on_every_model
def test_no_directory_is_answered_with_how_to_get_the_files(
    model_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERG_DIR", str(tmp_path / "none"))
    with pytest.raises(MissingFileError, match=rf"none does not exist.*berg download {model_id}") as caught:
        load(None, model_id)
    assert isinstance(caught.value, FileNotFoundError)


@on_every_model
def test_a_directory_that_does_not_exist_is_named(model_id: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"directory {names(tmp_path / 'none')} does not exist") as caught:
        load(tmp_path / "none", model_id)
    assert isinstance(caught.value, MissingFileError)


@on_every_model
@pytest.mark.parametrize("find", [weights_file, metadata_file], ids=["weights", "metadata"])
def test_a_missing_file_is_named_with_its_folder(find: Callable[..., Path], model_id: str, own_berg_dir: Path) -> None:
    path = find(own_berg_dir, model_id)
    path.unlink()
    words = (
        rf"{model_id} for subject 1.* not there: {names(path.with_suffix(''))} .*Is '{names(own_berg_dir)}' the BERG"
    )
    with pytest.raises(FileNotFoundError, match=words) as caught:
        load(own_berg_dir, model_id)
    assert isinstance(caught.value, MissingFileError)
    assert str(caught.value).count("\n") == 0


def test_a_missing_file_is_named_in_one_line_whatever_is_selected(own_berg_dir: Path) -> None:
    weights_file(own_berg_dir, EEG).unlink()
    with pytest.raises(MissingFileError, match=r"for subject 1 are not there") as caught:
        load(own_berg_dir, EEG, selection={"timepoints": np.ones(140, int)})
    assert "\n" not in str(caught.value)


@pytest.fixture
def no_network_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from weakref import WeakValueDictionary

    from berg.features import pretrained_network

    monkeypatch.setattr(pretrained_network, "_in_memory", WeakValueDictionary())


@pytest.mark.parametrize("model_id", [FSAVERAGE, EEG])
@pytest.mark.usefixtures("no_network_in_memory")
def test_a_missing_backbone_is_named_with_where_torchvision_looks(
    model_id: str, berg_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    expected = names(tmp_path / "hub" / "checkpoints" / "vit_b_32-d86f8d99.pth")
    words = rf"weights of vit_b_32 .*looks for {expected}\. Get them from https://\S+\.pth .*TORCH_HOME"
    with pytest.raises(FileNotFoundError, match=words) as caught:
        load(berg_dir, model_id)
    assert isinstance(caught.value, MissingFileError)
    assert not any(tmp_path.iterdir())  # nothing was downloaded


@pytest.mark.parametrize("damage", ["cut", "text", "other keys", "other shapes"])
@pytest.mark.usefixtures("no_network_in_memory")
def test_a_damaged_backbone_is_named(
    damage: str, berg_dir: Path, torch_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / layouts.BACKBONE_FILE
    path.parent.mkdir(parents=True)
    if damage == "cut":
        with (torch_home / layouts.BACKBONE_FILE).open("rb") as whole:
            path.write_bytes(whole.read(100_000))
    elif damage == "text":
        path.write_text("<html>404</html>")
    else:
        torch.save({"heads.head.bias" if damage == "other shapes" else "x": torch.zeros(3)}, path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CorruptedFileError, match=rf"{names(path)} does not hold the weights of vit_b_32.*get it again"):
        load(berg_dir, EEG)


@pytest.mark.usefixtures("no_network_in_memory")
def test_a_backbone_that_would_run_code_does_not(
    berg_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / layouts.BACKBONE_FILE
    path.parent.mkdir(parents=True)
    torch.save({"x": Hostile(tmp_path / "canary")}, path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CorruptedFileError, match=names(path)):
        load(berg_dir, EEG)
    assert not (tmp_path / "canary").exists()


# Words that are wrong


@on_every_model
@pytest.mark.parametrize("subject", [0, 99, "1", 1.0, True, None])
def test_a_wrong_subject_is_answered_with_the_subjects(model_id: str, subject: Any, berg_dir: Path) -> None:
    with pytest.raises(ValueError, match=rf"'subject' of {model_id}") as caught:
        load(berg_dir, model_id, subject=subject)
    assert isinstance(caught.value, InvalidParameterError)


@on_every_model
def test_a_missing_subject_is_asked_for(model_id: str, berg_dir: Path) -> None:
    with pytest.raises(InvalidParameterError, match=r"needs 'subject'.*For example subject=1"):
        BERG(berg_dir).get_encoding_model(model_id, selection=MODELS[model_id]["selection"])


@pytest.mark.parametrize(
    ("model_id", "selection", "words"),
    [
        (FSAVERAGE, {"roi": "V9v"}, r"'V9v'\. Did you mean 'V\dv'\? Allowed: V1d, V1v"),
        (FSAVERAGE, {"roi": ["V1v", "ppa"]}, r"'ppa'\. Did you mean 'PPA'\?"),
        (FSAVERAGE, {"rois": "V1v"}, r"'rois' is not a selection key\. Did you mean 'roi'\?"),
        (FSAVERAGE, {"lh_vertices": np.ones(5, int)}, r"'lh_vertices' must be a 0/1 vector of length 163,842"),
        (FSAVERAGE, {"lh_vertices": np.ones(5, bool)}, r"'lh_vertices' .*length 163,842, got shape \(5,\)"),
        (FSAVERAGE, {"lh_vertices": [163842]}, r"'lh_vertices' names 163842; .* from 0 to 163,841"),
        (FSAVERAGE, {"rh_vertices": np.full(163842, 2)}, r"'rh_vertices' .*some of them twice"),
        (FSAVERAGE, {"rh_vertices": np.full(163842, 0.5)}, r"'rh_vertices' must hold only 0 and 1"),
        (EEG, {"channels": "oz"}, r"'oz'\. Did you mean 'Oz'\?"),
        (EEG, {"channels": ["Oz", "Oz"]}, r"'channels' names something twice"),
        (EEG, {"timepoints": [0, 1, 1]}, r"'timepoints' must be a 0/1 vector of length 140"),
        (EEG, {"time": [0.2, 0.1]}, r"selection 'time': 0.2 to 0.1 is not a range"),
        (EEG, {"time": 0.1}, r"selection 'time' must be list, got float 0.1"),
        (EEG, {"roi": "V1"}, r"'roi' is not a selection key.*Keys: channels, timepoints"),
        (FWRF, {"roi": "V5"}, r"'V5'\. Did you mean 'V\d'\? Allowed: V1, V2, V3, hV4"),
        (FWRF, {"lh_vertices": [1]}, r"'lh_vertices' is not a selection key.*Keys: roi"),
        (FWRF, {}, r"needs a selection.*roi"),
        (FWRF, None, r"needs a selection.*roi"),
        (FWRF, "V1", r"must be a dict such as \{'roi': \.\.\.\}, got str"),
    ],
)
def test_a_wrong_selection_is_answered_with_what_is_allowed(
    model_id: str, selection: Any, words: str, berg_dir: Path
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        load(berg_dir, model_id, selection=selection)
    assert isinstance(caught.value, InvalidParameterError)


@pytest.mark.parametrize(("name", "value"), [("transform", "center"), ("precision", "float64"), ("precision", 16)])
def test_a_wrong_parameter_is_answered_with_its_values(name: str, value: Any, berg_dir: Path) -> None:
    with pytest.raises(InvalidParameterError, match=rf"'{name}' of {EEG}"):
        load(berg_dir, EEG, **{name: value})


@pytest.mark.parametrize("ask", ["model", "encode", "metadata"])
def test_a_model_that_has_a_file_per_region_asks_which(ask: str, berg_dir: Path) -> None:
    berg = BERG(berg_dir)
    call = {
        "model": lambda: berg.get_encoding_model(FWRF, subject=1),
        "encode": lambda: berg.encode(FWRF, np.zeros((1, 3, 8, 8), np.uint8), subject=1),
        "metadata": lambda: berg.get_model_metadata(FWRF, subject=1),
    }[ask]
    with pytest.raises(InvalidParameterError, match=r"needs a selection.*roi|say which roi"):
        call()


# Files that are not what they claim to be


class Hostile:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.canary),)


@on_every_model
@pytest.mark.parametrize("find", [weights_file, metadata_file], ids=["weights", "metadata"])
def test_a_file_that_would_run_code_is_refused_and_nothing_is_run(
    find: Callable[..., Path], model_id: str, own_berg_dir: Path, tmp_path: Path
) -> None:
    path, canary = find(own_berg_dir, model_id), tmp_path / "canary"
    path.unlink()
    if path.suffix == ".pt":
        torch.save({"best_params": Hostile(canary)}, path)
    else:
        layouts.write_pickled_npy(path, {"fmri": Hostile(canary), "scaler_param": Hostile(canary)})
    with pytest.raises(UnsafeFileError, match=rf"{names(path)} asks for .*mkdir.*nothing of it was run") as caught:
        load(own_berg_dir, model_id)
    assert isinstance(caught.value, (CorruptedFileError, ValueError))
    assert not canary.exists()


@on_every_model
@pytest.mark.parametrize("find", [weights_file, metadata_file], ids=["weights", "metadata"])
@pytest.mark.parametrize("left", [0, 5, 100, 0.5, 0.999])
def test_a_truncated_file_is_named(left: float, find: Callable[..., Path], model_id: str, own_berg_dir: Path) -> None:
    path = find(own_berg_dir, model_id)
    content = path.read_bytes()
    replace(path, content[: int(left if left >= 1 else left * len(content))])
    with pytest.raises(ValueError, match=rf"{names(path)} cannot be read: ") as caught:
        load(own_berg_dir, model_id)
    assert isinstance(caught.value, CorruptedFileError)


@on_every_model
def test_a_truncated_converted_file_is_named(model_id: str, own_berg_dir: Path) -> None:
    parameters = MODELS[model_id]
    selection = parameters["selection"] if model_id == FWRF else None
    (path,) = BERG(own_berg_dir).convert(model_id, subject=1, selection=selection)
    replace(path, path.read_bytes()[:-1])
    with pytest.raises(CorruptedFileError, match=rf"{names(path)} cannot be read: "):
        load(own_berg_dir, model_id)


Change = Callable[[dict[str, Any]], Any]


def changed_pickle(path: Path, change: Change) -> None:
    content = np.load(path, allow_pickle=True).item()
    change(content)
    path.unlink()
    layouts.write_pickled_npy(path, content)


def set_first(array: Any, value: float) -> Any:
    """A copy with another first value."""
    changed = array.clone() if isinstance(array, torch.Tensor) else array.copy()
    changed.ravel()[0] = value
    return changed


def put(place: str, make: Callable[[Any], Any] | None) -> Change:
    """Replace what lies at a dotted place, or take it out."""

    def change(content: dict[Any, Any]) -> None:
        *steps, last = place.split("/")
        for step in steps:
            content = content[int(step) if step.isdigit() else step]
        if make is None:
            del content[last]
        else:
            content[last] = make(content.get(last))

    return change


LINEAR: dict[str, tuple[str, Callable[[Any], Any] | None, str]] = {
    "no scaler": ("scaler_param", None, r"scaler_param\.scale_"),
    "no PCA": ("pca_param", None, r"pca_param\.components_"),
    "no regression": ("reg_param", None, r"reg_param\.rep-1\.coef_"),
    "a list for a dict": ("scaler_param", lambda _: [1.0, 2.0], r"scaler_param\.scale_"),
    "a text for an array": ("scaler_param/mean_", lambda _: "mean", r"scaler_param\.mean_"),
    "components of other features": ("pca_param/components_", lambda x: x[:, :-1], r"pca_param\.components_.*460800"),
    "a mean of other features": ("pca_param/mean_", lambda x: x[:-1], r"pca_param\.mean_.*460800"),
    "components with three axes": ("pca_param/components_", lambda x: x[None], r"pca_param\.components_"),
    "coefficients of other components": ("reg_param/rep-2/coef_", lambda x: x[:, :-1], r"rep-2\.coef_.*\(8820, 7\)"),
    "too few channels": ("reg_param/rep-4/coef_", lambda x: x[:-1], r"rep-4\.coef_.*\(8819, 8\)"),
    "too few intercepts": ("reg_param/rep-3/intercept_", lambda x: x[:-1], r"rep-3\.intercept_.*\(8819,\)"),
    "whole numbers for a mean": ("scaler_param/mean_", lambda x: x.astype(int), r"scaler_param\.mean_"),
    "NaN in the scaler": ("scaler_param/mean_", lambda x: set_first(x, np.nan), "NaN or infinite.*scaler"),
    "a scale of zero": ("scaler_param/scale_", lambda x: set_first(x, 0), "NaN or infinite.*scaler"),
    "infinity in the components": ("pca_param/components_", lambda x: set_first(x, np.inf), "NaN or infinite.*PCA"),
    "NaN in the mean of the PCA": ("pca_param/mean_", lambda x: set_first(x, np.nan), "NaN or infinite.*PCA"),
    "NaN in the coefficients": ("reg_param/rep-1/coef_", lambda x: np.full_like(x, np.nan), "NaN or infinite"),
    "NaN in the intercepts": ("reg_param/rep-1/intercept_", lambda x: np.full_like(x, np.nan), "NaN or infinite"),
}


@pytest.mark.parametrize("case", LINEAR)
def test_wrong_content_of_a_linear_readout_is_named(case: str, own_berg_dir: Path) -> None:
    place, make, words = LINEAR[case]
    path = weights_file(own_berg_dir, EEG)
    changed_pickle(path, put(place, make))
    with pytest.raises(CorruptedFileError, match=rf"{names(path)}.*{words}"):
        load(own_berg_dir, EEG)


def test_a_linear_readout_of_too_few_vertices_is_refused(own_berg_dir: Path) -> None:
    path = weights_file(own_berg_dir, FSAVERAGE)

    def shorten(content: Any) -> None:
        for key in ("coef_", "intercept_"):
            content["lh_reg_param"][key] = content["lh_reg_param"][key][:100]

    changed_pickle(path, shorten)
    with pytest.raises(CorruptedFileError, match=rf"{names(path)}.*163,?842"):
        load(own_berg_dir, FSAVERAGE)


def test_a_linear_readout_on_other_features_than_the_network_has_is_refused(own_berg_dir: Path) -> None:
    path = weights_file(own_berg_dir, EEG)

    def shorten(content: Any) -> None:
        for key in ("scale_", "mean_"):
            content["scaler_param"][key] = content["scaler_param"][key][:-768]
        content["pca_param"]["components_"] = content["pca_param"]["components_"][:, :-768]
        content["pca_param"]["mean_"] = content["pca_param"]["mean_"][:-768]

    changed_pickle(path, shorten)
    with pytest.raises(CorruptedFileError, match=rf"{names(path)}.*460,?032.*460,?800"):
        load(own_berg_dir, EEG)


FWRF_CASES: dict[str, tuple[str, Callable[[Any], Any] | None, str]] = {
    "no best_params": ("best_params", None, "best_params"),
    "no encoder": ("best_params/enc", None, "best_params"),
    "no readouts": ("best_params/fwrfs", None, "best_params"),
    "no weights": ("best_params/fwrfs/1/w", None, "'w' is not there"),
    "no bias": ("best_params/fwrfs/1/b", None, "'b' is not there"),
    "a number for the bias": ("best_params/fwrfs/1/b", lambda _: 3.0, "'b'"),
    "a bias without axes": ("best_params/fwrfs/1/b", lambda x: x[0].clone(), "'b'"),
    "weights of fewer voxels": ("best_params/fwrfs/1/w", lambda x: x[:-1].clone(), r"'w'.*\(20, 768\)"),
    "receptive fields of another size": ("best_params/fwrfs/1/rf1", lambda x: x[:, 1:].clone(), r"'rf1'.*24, 25"),
    "no mean image": ("best_params/enc/mu", None, "'mu' is not there"),
    "filters of another size": (
        "best_params/enc/pre.conv1.0.weight", lambda x: x[..., 1:].clone(), r"pre\.conv1\.0\.weight.*11, 10"
    ),
    "a layer too many": ("best_params/enc/enc.conv9.weight", lambda _: torch.ones(3), r"enc\.conv9\.weight"),
    "whole numbers for filters": (
        "best_params/enc/enc.conv3.weight", lambda x: x.long(), r"enc\.conv3\.weight"
    ),
    "NaN in a filter": ("best_params/enc/enc.conv3.weight", lambda x: set_first(x, np.nan), r"conv3\.weight.*NaN"),
    "NaN in the weights": ("best_params/fwrfs/1/w", lambda x: set_first(x, np.nan), "'w'.*NaN"),
    "infinity in a receptive field": ("best_params/fwrfs/1/rf0", lambda x: set_first(x, np.inf), "'rf0'.*infinite"),
}  # fmt: skip


@pytest.mark.parametrize("case", FWRF_CASES)
def test_wrong_content_of_fwrf_weights_is_named(case: str, own_berg_dir: Path) -> None:
    place, make, words = FWRF_CASES[case]
    path = weights_file(own_berg_dir, FWRF)
    content = torch.load(path, weights_only=False)
    put(place, make)(content)
    path.unlink()
    torch.save(content, path)
    with pytest.raises(CorruptedFileError, match=rf"{names(path)}.*{words}"):
        load(own_berg_dir, FWRF)


CONVERTED: dict[str, tuple[str, str, Callable[[Any], Any] | None]] = {
    "no matrix": (EEG, "matrix", None),
    "a matrix of other features": (EEG, "matrix", lambda x: x[:, :-1]),
    "too few coefficients": (EEG, "eeg.coefficient", lambda x: x[:100]),
    "no number of PCAs": (EEG, "n_pcas", lambda x: x[:0]),
    "three PCAs": (EEG, "n_pcas", lambda x: x * 3),
    "NaN in the coefficients": (EEG, "eeg.coefficient", lambda x: np.full_like(x, np.nan)),
    "no encoder": (FWRF, "enc/mu", None),
    "no readout": (FWRF, "fwrf/b", None),
    "NaN in the weights": (FWRF, "fwrf/w", lambda x: set_first(x, np.nan)),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_wrong_content_of_a_converted_file_is_named(case: str, own_berg_dir: Path) -> None:
    model_id, name, make = CONVERTED[case]
    selection = {"roi": "V1"} if model_id == FWRF else None
    (path,) = BERG(own_berg_dir).convert(model_id, subject=1, selection=selection)
    tensors = read_safetensors(path)
    wrong = tensors.pop(name)
    if make is not None:
        tensors[name] = make(wrong)
    write_safetensors(path, tensors)
    with pytest.raises(CorruptedFileError, match=names(path)):
        load(own_berg_dir, model_id)


METADATA: dict[str, tuple[str, str, Callable[[Any], Any] | None, str]] = {
    "no ROIs": (FSAVERAGE, "fmri/lh_fsaverage_rois", None, "lh_fsaverage_rois"),
    "a ROI outside the cortex": (
        FSAVERAGE, "fmri/rh_fsaverage_rois/V1v", lambda _: np.array([5, 163842]), "outside the 163,842"
    ),
    "no fMRI": (FSAVERAGE, "fmri", None, "fmri"),
    "a list for a dict": (FSAVERAGE, "fmri", lambda _: [1, 2], "fmri"),
    "no channel names": (EEG, "eeg/ch_names", None, "ch_names"),
    "too few channels": (EEG, "eeg/ch_names", lambda x: x[:-1], "shape"),
    "no noise ceilings": (FWRF, "fmri/ncsnr", None, "ncsnr"),
    "a list for the fMRI": (FWRF, "fmri", lambda _: [1, 2], "fmri"),
    "one number for all voxels": (FWRF, "fmri/ncsnr", lambda _: 3.0, "ncsnr"),
}  # fmt: skip


@pytest.mark.parametrize("case", METADATA)
def test_wrong_metadata_are_refused(case: str, own_berg_dir: Path) -> None:
    model_id, place, make, words = METADATA[case]
    changed_pickle(metadata_file(own_berg_dir, model_id), put(place, make))
    with pytest.raises(CorruptedFileError, match=words):
        load(own_berg_dir, model_id)


# Memory


class Hungry(torch.nn.Module):
    """Asks for more memory than there is."""

    def forward(self, maps: Any) -> Any:
        return torch.empty(2**58)


class Full(torch.nn.Module):
    """What a GPU without free memory raises."""

    def forward(self, maps: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("readout", [Hungry(), Full()], ids=["CPU", "GPU"])
def test_too_little_memory_for_one_stimulus_is_an_error_of_ours(readout: Any, berg_dir: Path) -> None:
    model = load(berg_dir, FWRF)
    model.readout = readout
    with (
        pytest.warns(SmallerBatchWarning) as warned,
        pytest.raises(MemoryError, match=r"memory for 1 stimuli at once\. Select fewer units") as caught,
    ):
        BERG().encode(model, np.zeros((6, 3, 32, 32), np.uint8))
    words = "cpu has too little memory for 6 stimuli at once. Continuing with 3 at once. To start with that, give "
    assert str(warned[0].message).startswith(f"{words}batch_size=3 (--batch-size 3)")
    assert isinstance(caught.value, DeviceMemoryError)


def test_too_little_memory_for_the_weights_is_an_error_of_ours(berg_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(berg_dir, FWRF)
    monkeypatch.setattr(type(model), "build", lambda self: Full()(None))
    with pytest.raises(DeviceMemoryError, match=rf"cpu has too little memory for {FWRF}\. Select fewer units"):
        model.load_model()


def test_another_error_while_computing_stays_what_it_is(berg_dir: Path) -> None:
    model = load(berg_dir, FWRF)
    model.readout = torch.nn.Linear(3, 4)  # a bug, not a lack of memory
    with pytest.raises(TypeError, match="linear"):
        BERG().encode(model, np.zeros((1, 3, 32, 32), np.uint8))
