"""Feature-weighted receptive fields against the equation in float64, on random files in the published layout."""

from __future__ import annotations

import gc
import re
import shutil
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from marks import slow
from published import layouts, reference
from published.compare import assert_near, unit_correlations
from torch import Tensor

from berg import BERG
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError
from berg.weights.model_files import StaleConversionWarning
from berg.weights.safetensors_files import read_safetensors, write_safetensors

pytestmark = pytest.mark.xdist_group("published")

FWRF = layouts.FWRF
SOME = (96, 128)  # the size of images where it does not matter
TruthOf = Callable[..., tuple[reference.Images, reference.Floats]]


def load(berg_dir: Path, roi: Any, subject: int = 1, **options: Any) -> Any:
    selection = {"roi": roi}
    return BERG(berg_dir).get_encoding_model(FWRF, device="cpu", subject=subject, selection=selection, **options)


def weights_folder(berg_dir: Path) -> Path:
    return layouts.model_folder(berg_dir, FWRF) / "encoding_models_weights"


def metadata_path(berg_dir: Path, roi: str) -> Path:
    return layouts.model_folder(berg_dir, FWRF) / "metadata" / f"metadata_sub-01_roi-{roi}.npy"


def metadata_of(berg_dir: Path, roi: str) -> Any:
    return np.load(metadata_path(berg_dir, roi), allow_pickle=True).item()


@pytest.fixture(scope="module")
def truth_of(berg_dir: Path) -> TruthOf:
    """Three images of a size, and the responses of an ROI to them; each computed once."""

    @cache
    def truth_of(roi: str, size: tuple[int, int] = SOME) -> tuple[reference.Images, reference.Floats]:
        images = layouts.random_images(np.random.default_rng(size), 3, *size)
        return images, reference.fwrf_reference(berg_dir, 1, roi, images)

    return truth_of


# Exactness


@pytest.mark.parametrize("size", [(224, 224), slow((227, 227)), SOME, slow((400, 300)), slow((64, 64))])
def test_images_of_any_size_and_proportions_give_the_truth(
    size: tuple[int, int], berg_dir: Path, truth_of: TruthOf
) -> None:
    images, truth = truth_of("V1", size)
    assert_near(BERG().encode(load(berg_dir, "V1"), images), truth)


@pytest.mark.parametrize("n_images", [1, 2, slow(99), slow(100), slow(101)])
def test_any_number_of_images_gives_the_truth(n_images: int, berg_dir: Path, truth_of: TruthOf) -> None:
    images, truth = truth_of("V1")
    which = np.arange(n_images) % 3
    assert_near(BERG().encode(load(berg_dir, "V1"), images[which]), truth[which])


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_does_not_matter(batch_size: int, berg_dir: Path, truth_of: TruthOf) -> None:
    images, truth = truth_of("V1")
    assert_near(BERG().encode(load(berg_dir, "V1"), images, batch_size=batch_size), truth)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_any_integer_dtype_gives_the_same_numbers(dtype: Any, berg_dir: Path, truth_of: TruthOf) -> None:
    images, _ = truth_of("V1")
    model = load(berg_dir, "V1")
    np.testing.assert_array_equal(BERG().encode(model, images.astype(dtype)), BERG().encode(model, images))


def test_lateral_runs_the_networks_of_both_its_files_in_order(berg_dir: Path, truth_of: TruthOf) -> None:
    images, truth = truth_of("lateral")
    assert_near(BERG().encode(load(berg_dir, "lateral"), images), truth)
    assert len(list(weights_folder(berg_dir).glob("*lateral*"))) == 2
    first, second = truth[:, :5], truth[:, 5:]
    assert not np.allclose(first[:, :3], second, atol=0.01)


@pytest.mark.parametrize("n_voxels", [1, 255, 256, 257, 600])
def test_any_number_of_voxels_gives_the_truth(n_voxels: int, tmp_path: Path) -> None:
    layouts.write_fwrf(tmp_path, 4, "PPA", np.random.default_rng(n_voxels), n_voxels=n_voxels)
    images = layouts.random_images(np.random.default_rng(1), 1, *SOME)
    truth = reference.fwrf_reference(tmp_path, 4, "PPA", images)
    if n_voxels > 1:
        assert_near(BERG().encode(load(tmp_path, "PPA", 4), images), truth)
    else:
        np.testing.assert_allclose(BERG().encode(load(tmp_path, "PPA", 4), images), truth, atol=1e-4)


@pytest.mark.parametrize("rois", [["V1", "V2"], ["V2", "V1"], ["lateral", "V2"], ["V2"], np.array(["V2", "V1"])])
def test_voxels_come_region_after_region_in_the_order_given(rois: Any, berg_dir: Path, truth_of: TruthOf) -> None:
    images, _ = truth_of("V1")
    truth = np.concatenate([truth_of(str(roi))[1] for roi in rois], axis=1)
    assert_near(BERG().encode(load(berg_dir, rois), images), truth)


def test_both_spellings_of_owfa_answer(berg_dir: Path, truth_of: TruthOf) -> None:
    images, truth = truth_of("OWFA")
    for roi in ("OWFA", "OVWFA", ["OVWFA"]):
        assert_near(BERG().encode(load(berg_dir, roi), images), truth)


@pytest.mark.parametrize("rois", [["V1", "V1"], ["OWFA", "OVWFA"]])
def test_a_region_named_twice_is_refused(rois: list[str], berg_dir: Path) -> None:
    with pytest.raises(InvalidParameterError, match="twice"):
        load(berg_dir, rois)


def test_an_empty_list_of_regions_is_refused(berg_dir: Path) -> None:
    with pytest.raises(InvalidParameterError, match="ROI"):
        load(berg_dir, [])


# Metadata


def test_metadata_of_one_region_are_those_of_its_file(berg_dir: Path) -> None:
    found, held = load(berg_dir, "V1").get_metadata(), metadata_of(berg_dir, "V1")
    np.testing.assert_array_equal(found["fmri"]["ncsnr"], held["fmri"]["ncsnr"])
    np.testing.assert_array_equal(found["fmri"]["roi_mask_volume"], held["fmri"]["roi_mask_volume"])
    np.testing.assert_array_equal(found["encoding_models"]["train_img_num"], held["encoding_models"]["train_img_num"])


def test_metadata_of_several_regions_are_joined_voxel_by_voxel(berg_dir: Path) -> None:
    found = load(berg_dir, ["V2", "V1"]).get_metadata()
    v2, v1 = (metadata_of(berg_dir, roi) for roi in ("V2", "V1"))
    for section, key in (("fmri", "ncsnr"), ("encoding_models", "r2"), ("encoding_models", "noise_ceiling")):
        expected = np.concatenate([v2[section][key], v1[section][key]])
        np.testing.assert_array_equal(found[section][key], expected)
    for key in ("roi_mask_volume", "fmri_affine"):
        assert list(found["fmri"][key]) == ["V2", "V1"]
        np.testing.assert_array_equal(found["fmri"][key]["V1"], v1["fmri"][key])
    _, labels = found["responses"]["responses"]["coordinates"]["roi"]
    assert labels.tolist() == ["V2"] * 5 + ["V1"] * 21
    _, ncsnr = found["responses"]["responses"]["coordinates"]["ncsnr"]
    np.testing.assert_array_equal(ncsnr, found["fmri"]["ncsnr"])


@pytest.mark.parametrize("rois", ["V1", ["V2", "V1"]])
def test_metadata_without_weights_are_those_of_the_model(rois: Any, berg_dir: Path) -> None:
    found = BERG(berg_dir).get_model_metadata(FWRF, subject=1, roi=rois)
    of_model = load(berg_dir, rois).get_metadata()
    np.testing.assert_array_equal(found["fmri"]["ncsnr"], of_model["fmri"]["ncsnr"])
    np.testing.assert_array_equal(found["fmri"]["roi"], of_model["fmri"]["roi"])


def test_weights_and_metadata_of_other_voxel_counts_are_refused(own_berg_dir: Path) -> None:
    metadata_path(own_berg_dir, "V2").unlink()
    metadata_path(own_berg_dir, "V2").symlink_to(metadata_path(own_berg_dir, "V1"))
    with pytest.raises(CorruptedFileError, match=rf"{FWRF}.*5 voxels.*metadata 21\. Get both again"):
        load(own_berg_dir, "V2")


def test_metadata_without_noise_ceilings_per_voxel_are_refused(own_berg_dir: Path) -> None:
    path = metadata_path(own_berg_dir, "V2")
    path.unlink()
    layouts.write_pickled_npy(path, {"fmri": {}, "encoding_models": {}})
    with pytest.raises(CorruptedFileError, match="ncsnr"):
        load(own_berg_dir, "V2")


# Files


def test_a_missing_half_of_a_region_is_named(own_berg_dir: Path) -> None:
    (weights_folder(own_berg_dir) / "weights_sub-01_roi-lateral_split-2.pt").unlink()
    with pytest.raises(MissingFileError, match=r"weights_sub-01_roi-lateral_split-2 .*\.pt"):
        load(own_berg_dir, "lateral")


def test_only_the_files_of_the_selected_region_are_needed(own_berg_dir: Path) -> None:
    for path in own_berg_dir.rglob("*V1*"):
        path.unlink()
    assert load(own_berg_dir, "V2").get_metadata()["fmri"]["ncsnr"].shape == (5,)
    with pytest.raises(MissingFileError, match=r"metadata_sub-01_roi-V1"):
        load(own_berg_dir, ["V2", "V1"])


def test_a_file_of_another_subject_under_this_name_is_refused(own_berg_dir: Path) -> None:
    layouts.write_fwrf(own_berg_dir, 2, "V1", np.random.default_rng(0), n_voxels=21)
    folder = weights_folder(own_berg_dir)
    (folder / "weights_sub-01_roi-V1.pt").unlink()
    (folder / "weights_sub-02_roi-V1.pt").rename(folder / "weights_sub-01_roi-V1.pt")
    with pytest.raises(CorruptedFileError, match=r"weights_sub-01_roi-V1\.pt has no weights of subject 1.* subject 2"):
        load(own_berg_dir, "V1")


# Converted files


@pytest.mark.parametrize("roi", ["V1", "lateral"])
def test_a_converted_file_gives_the_same_as_the_published_one(roi: str, own_berg_dir: Path, truth_of: TruthOf) -> None:
    images, truth = truth_of(roi)
    before = BERG().encode(load(own_berg_dir, roi), images)
    written = BERG(own_berg_dir).convert(FWRF, subject=1, selection={"roi": roi})
    assert len(written) == {"V1": 1, "lateral": 2}[roi]
    assert all(path.with_suffix(".pt").is_file() for path in written)
    after = BERG().encode(load(own_berg_dir, roi), images)
    np.testing.assert_array_equal(after, before)
    assert_near(after, truth)
    for path in written:
        path.with_suffix(".pt").unlink()
    np.testing.assert_array_equal(BERG().encode(load(own_berg_dir, roi), images), before)


def test_converting_without_a_selection_converts_all_regions_that_are_there(own_berg_dir: Path) -> None:
    written = BERG(own_berg_dir).convert(FWRF, subject=1)
    names = {re.sub(r"weights_sub-01_roi-|\.safetensors", "", path.name) for path in written}
    assert names == {"V1", "V2", "OWFA", "lateral_split-1", "lateral_split-2"}


def test_loading_prefers_the_converted_file(own_berg_dir: Path, truth_of: TruthOf) -> None:
    images, truth = truth_of("V2")
    (path,) = BERG(own_berg_dir).convert(FWRF, subject=1, selection={"roi": "V2"})
    tensors = read_safetensors(path)
    write_safetensors(path, {**tensors, "fwrf/b": tensors["fwrf/b"] + 1})
    np.testing.assert_allclose(BERG().encode(load(own_berg_dir, "V2"), images), truth + 1, atol=1e-4)


def test_a_changed_published_file_makes_the_converted_one_stale(own_berg_dir: Path) -> None:
    BERG(own_berg_dir).convert(FWRF, subject=1, selection={"roi": "V2"})
    path = weights_folder(own_berg_dir) / "weights_sub-01_roi-V2.pt"
    path.unlink()
    layouts.write_fwrf(own_berg_dir, 1, "V2", np.random.default_rng(6), n_voxels=5)
    images = layouts.random_images(np.random.default_rng(1), 2, *SOME)
    with pytest.warns(StaleConversionWarning, match=rf"weights_sub-01_roi-V2\.pt.*berg convert {FWRF} --subject 1"):
        model = load(own_berg_dir, "V2")
    assert_near(BERG().encode(model, images), reference.fwrf_reference(own_berg_dir, 1, "V2", images))


# Precision, memory, gradients


# float16 takes seconds per image on a CPU.
@pytest.mark.parametrize(("precision", "n_images"), [slow("bfloat16", 24), slow("float16", 5)])
def test_reduced_precision_correlates_with_float32_in_every_voxel(
    precision: str, n_images: int, berg_dir: Path
) -> None:
    images = layouts.random_images(np.random.default_rng(12), n_images)
    full, reduced = (BERG().encode(load(berg_dir, "V1", precision=p), images) for p in ("float32", precision))
    assert reduced.dtype == np.float32
    correlations = unit_correlations(full, reduced)
    print(f"{precision}: smallest r {correlations.min():.6f}, median {np.median(correlations):.6f}")
    assert len(correlations) == 21
    # Pictures of noise hardly differ, so that what differs between them is small beside what is rounded.
    assert correlations.min() > (0.998 if precision == "bfloat16" else 0.9999)
    assert np.median(correlations) > 0.9999 - 0.0001 * (precision == "bfloat16")
    assert not np.array_equal(full, reduced)  # or the parameter has no effect


def test_cleanup_frees_the_weights(berg_dir: Path) -> None:
    model = load(berg_dir, "lateral")
    tensors = [weakref.ref(part) for half in (model.features, model.readout) for part in half.state_dict().values()]
    held = [weakref.ref(parameter) for parameter in model.features.parameters()]
    assert len(held) > 30
    model.cleanup()
    gc.collect()
    assert not any(reference() is not None for reference in tensors + held)


def test_predict_gives_what_encode_gives_where_nothing_is_resized(berg_dir: Path) -> None:
    images = layouts.random_images(np.random.default_rng(3), 2, 227, 227)
    model = load(berg_dir, ["V1", "lateral"])
    predicted = model.predict(torch.from_numpy(images).float())
    np.testing.assert_allclose(predicted.numpy(), BERG().encode(model, images), atol=1e-5)


def test_predict_gives_what_encode_gives_up_to_the_rounding_of_a_resize(berg_dir: Path, truth_of: TruthOf) -> None:
    images, truth = truth_of("V1", (300, 400))
    predicted = load(berg_dir, "V1").predict(torch.from_numpy(images).float()).numpy()
    assert np.abs(predicted - truth).max() < 0.1 * truth.std()


@pytest.mark.parametrize("half", [1, 8, 60], ids=["four pixels", "a patch", "most pixels"])
def test_the_gradient_agrees_with_finite_differences_of_the_equation_in_float64(half: int, berg_dir: Path) -> None:
    rng = np.random.default_rng(half)
    image = torch.from_numpy(layouts.random_images(rng, 1, 227, 227).clip(20, 235)).double()
    stimulus = image.float().requires_grad_()
    mixture = torch.from_numpy(rng.standard_normal(21))
    (load(berg_dir, "V1").predict(stimulus)[0] * mixture.float()).sum().backward()
    direction = torch.zeros_like(image)
    middle = slice(113 - half, 113 + half)
    direction[..., middle, middle] = torch.from_numpy(rng.standard_normal((1, 3, 2 * half, 2 * half)))
    ends = [responses_of_floats(image + sign * 1e-4 * direction, berg_dir) @ mixture for sign in (1, -1)]
    expected = float(ends[0] - ends[1]) / 2e-4
    by_pixel = stimulus.grad.double() * direction
    # Most of the sum cancels, so that the error is compared with its parts.
    assert abs(float(by_pixel.sum()) - expected) < 1e-3 * float(by_pixel.norm())
    assert abs(expected) > 1e-2 * float(by_pixel.norm())


def responses_of_floats(image: Tensor, berg_dir: Path) -> Tensor:
    """The equation for a picture in float64 that has the network's size already."""
    best_params = torch.load(weights_folder(berg_dir) / "weights_sub-01_roi-V1.pt", weights_only=False)["best_params"]
    encoder = {name: tensor.double() for name, tensor in best_params["enc"].items()}
    readout = {name: tensor.double() for name, tensor in best_params["fwrfs"][1].items()}
    maps = reference.gnet_maps(encoder, image / 255 - encoder["mu"])
    return reference.fwrf_readout(readout, [feature_map[0] for feature_map in maps])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("n_images", [1, 5])
def test_a_compiled_readout_gives_the_same(n_images: int, berg_dir: Path) -> None:
    images = layouts.random_images(np.random.default_rng(13), n_images)
    plain, compiled = (BERG().encode(load(berg_dir, "V1", compile=c), images) for c in (False, True))
    np.testing.assert_allclose(compiled, plain, atol=1e-5 * plain.std())
