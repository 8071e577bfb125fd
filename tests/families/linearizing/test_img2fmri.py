"""The readouts of img2fmri on BOLD5000: read inertly where the package is installed, beside scikit-learn in float64."""

from __future__ import annotations

import importlib
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from published import layouts
from published.compare import assert_near
from torchvision import models, transforms

from berg import BERG
from berg.core.exceptions import (
    CorruptedFileError,
    MissingExtraError,
    MissingFileError,
    UnsafeFileError,
)
from berg.core.model_registry import get_card
from berg.responses.save import save_responses
from berg.weights.availability import availability
from berg.weights.inventory import verify_files

BOLD5000, REGIONS = layouts.BOLD5000, layouts.BOLD5000_REGIONS
SCALERS: dict[str, Any] = {
    "squash": transforms.Resize((224, 224)),
    "centre_square": transforms.Compose([transforms.Resize(224), transforms.CenterCrop((224, 224))]),
}


@pytest.fixture(scope="module", autouse=True)
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random ResNet-18 where torchvision looks for it, and the same in float64 without its last layer."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("torch")
        patch.setenv("TORCH_HOME", str(home))
        network = models.resnet18()
        network.load_state_dict(torch.load(layouts.write_resnet18(home, np.random.default_rng(0)), weights_only=True))
        yield torch.nn.Sequential(*list(network.eval().double().children())[:-1])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the published layout, installed."""
    found = layouts.write_img2fmri(tmp_path / "site", np.random.default_rng(1), (1, 2))
    monkeypatch.syspath_prepend(str(found.parent))
    return found


@pytest.fixture
def berg(tmp_path: Path) -> BERG:
    (tmp_path / "berg").mkdir()
    return BERG(tmp_path / "berg")


PICTURES = layouts.random_images(np.random.default_rng(2), 3, 100, 140)


def features(resnet: Any, transform: str, pictures: Any = PICTURES) -> Any:
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    scaled = [SCALERS[transform](Image.fromarray(picture.transpose(1, 2, 0))) for picture in pictures]
    with torch.no_grad():
        return (
            resnet(torch.stack([normalise(transforms.ToTensor()(own)).double() for own in scaled])).flatten(1).numpy()
        )


def truth(package: Path, subject: int, features: Any) -> dict[str, Any]:
    """The responses of each region, by scikit-learn's own numbers in float64."""
    found = {}
    for region in REGIONS:
        ridge = pickle.loads((package / "models" / f"subj{subject}_{region}_model.pkl").read_bytes())  # noqa: S301
        found[region] = features @ ridge.coef_.astype(float).T + ridge.intercept_.astype(float)
    return found


def load(berg: BERG, subject: str = "CSI1", **options: Any) -> Any:
    return berg.get_encoding_model(BOLD5000, subject=subject, device="cpu", **options)


@pytest.mark.parametrize(("subject", "transform"), [("CSI1", "squash"), ("CSI2", "centre_square")])
def test_responses_are_those_of_the_regressions(subject, transform, package, berg, resnet):
    berg.convert(BOLD5000, subject=subject)
    each = truth(package, int(subject[-1]), features(resnet, transform))
    model = load(berg, subject, transform=transform)
    assert_near(berg.encode(model, PICTURES), np.concatenate([each[region] for region in REGIONS], axis=1))
    np.testing.assert_allclose(berg.encode(model, PICTURES[:1]), berg.encode(model, PICTURES)[:1], atol=1e-5)
    some = load(berg, subject, transform=transform, selection={"roi": ["PPA", "OPA"]})
    assert_near(berg.encode(some, PICTURES), np.concatenate([each["PPA"], each["OPA"]], axis=1))
    assert "img2fmri" not in sys.modules


def test_units_lie_in_their_masks_and_hemispheres(package, berg, tmp_path):
    berg.convert(BOLD5000, subject="CSI1")
    masks = package / "derivatives" / "bool_masks"
    for side, hemisphere in (("LH", "left"), ("RH", "right")):
        mask = nibabel.load(masks / f"derivatives_spm_sub-CSI1_sub-CSI1_mask-{side}LOC.nii.gz")
        model = load(berg, selection={"roi": "LOC", "hemisphere": hemisphere})
        labelled = berg.encode(model, PICTURES, labelled=True)
        assert set(labelled["roi"].values) == {"LOC"}
        assert (
            np.column_stack([labelled[axis] for axis in "ijk"]).tolist() == np.argwhere(mask.get_fdata() > 0).tolist()
        )
        save_responses(labelled, tmp_path / f"{side}.nii.gz")
        written = nibabel.load(tmp_path / f"{side}.nii.gz")
        np.testing.assert_allclose(written.affine, mask.affine)
        inside = mask.get_fdata() > 0
        np.testing.assert_array_equal(written.get_fdata(dtype=np.float32)[inside].T, labelled["fmri"].values)
        assert np.isnan(written.get_fdata()[~inside]).all()


def test_what_is_converted_is_recorded_and_the_network_alone_is_downloaded(package, berg):
    card = get_card(BOLD5000)
    assert availability(card, Path(berg.berg_dir)).state == "cannot run"
    with pytest.raises(MissingFileError, match=r'pip install "berg\[img2fmri\]".*berg convert fmri-bold5000'):
        load(berg)
    berg.convert(BOLD5000, subject="CSI1")
    berg.convert(BOLD5000, subject="CSI1")
    assert availability(card, Path(berg.berg_dir)).values == {"subject": ["CSI1"]}
    assert {file.state for file in verify_files(Path(berg.berg_dir))} == {"whole"}
    planned = berg.plan_download(BOLD5000, subject="CSI1", ask=False)
    assert [Path(item.path).name for item in planned] == ["resnet18-f37072fd.pth"]


def test_a_package_that_is_not_installed_is_named(berg, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    importlib.invalidate_caches()
    with pytest.raises(MissingExtraError, match=r'pip install "berg\[img2fmri\]".*--no-deps img2fmri'):
        berg.convert(BOLD5000, subject="CSI1")


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit",)


def test_a_package_that_is_not_as_published_is_refused(package, berg):
    path = package / "models" / "subj1_OPA_model.pkl"
    whole = pickle.loads(path.read_bytes())  # noqa: S301
    whole.coef_ = whole.coef_[:-1]
    whole.intercept_ = whole.intercept_[:-1]
    contents = {
        "regressions of 11 voxels for OPA of CSI1, and masks of 12": pickle.dumps(whole, protocol=4),
        "holds no ridge regressions of 512 features": pickle.dumps({"coef_": 1}, protocol=4),
        "subj1_OPA_model.pkl": path.read_bytes()[:-40],
    }
    for words, content in contents.items():
        path.write_bytes(content)
        with pytest.raises(CorruptedFileError, match=words):
            berg.convert(BOLD5000, subject="CSI1")
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UnsafeFileError, match=r"subj1_OPA_model\.pkl"):
        berg.convert(BOLD5000, subject="CSI1")
    path.unlink()
    with pytest.raises(MissingFileError, match="OPA"):
        berg.convert(BOLD5000, subject="CSI1")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@pytest.mark.slow  # `make test-slow` installs the package
@pytest.mark.skipif(find_spec("img2fmri") is None, reason="needs  pip install --no-deps img2fmri==1.0")
@pytest.mark.parametrize(
    ("subject", "lengths"),
    [
        ("CSI1", (495, 288, 342, 229, 331)),
        ("CSI2", (495, 180, 888, 337, 370)),
        ("CSI3", (1218, 392, 1027, 194, 273)),
    ],
)
def test_the_true_regressions_are_read_whole(subject, lengths, berg, resnet):
    spec = find_spec("img2fmri")
    assert spec is not None
    berg.convert(BOLD5000, subject=subject)
    each = truth(Path(next(iter(spec.submodule_search_locations or []))), int(subject[-1]), features(resnet, "squash"))
    assert tuple(own.shape[1] for own in each.values()) == lengths
    assert_near(berg.encode(load(berg, subject), PICTURES), np.concatenate(list(each.values()), axis=1))
    assert "img2fmri" not in sys.modules
