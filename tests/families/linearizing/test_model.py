"""Both linearizing models against the reference in float64, on random files in the published layouts."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
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
from torchvision.models import ViT_B_32_Weights
from torchvision.transforms import functional

from berg import BERG
from berg.core.exceptions import CorruptedFileError
from berg.core.selection import EmptySelectionWarning, IgnoredSelectionWarning
from berg.features.pretrained_network import AsTrainedTransform, PresetTransform
from berg.weights.model_files import StaleConversionWarning
from berg.weights.safetensors_files import read_safetensors, write_safetensors

pytestmark = pytest.mark.xdist_group("published")

FSAVERAGE, EEG = layouts.FSAVERAGE, layouts.EEG
SIZES = [(224, 224), (227, 227), (64, 64)]
TRANSFORMS = ["preset", "as_trained"]
SOME = (300, 400)  # the size of images where it does not matter


def load(berg_dir: Path, model_id: str, subject: int = 1, **options: Any) -> Any:
    return BERG(berg_dir).get_encoding_model(model_id, device="cpu", subject=subject, **options)


def weights_file(berg_dir: Path, model_id: str, subject: int = 1) -> Path:
    return layouts.model_folder(berg_dir, model_id) / "encoding_models_weights" / f"weights_subject-{subject:02d}.npy"


def metadata_of(berg_dir: Path, model_id: str, subject: int = 1) -> Any:
    folder = layouts.model_folder(berg_dir, model_id) / "metadata"
    return np.load(folder / f"metadata_subject-{subject:02d}.npy", allow_pickle=True).item()


@pytest.fixture(scope="module", autouse=True)
def network_stays_in_memory(berg_dir: Path) -> Iterator[None]:
    """A model that keeps the network, so that the other models need not read it anew."""
    model = load(berg_dir, EEG, selection={"channels": "Oz"})
    yield
    model.cleanup()


@pytest.fixture(scope="module")
def fsaverage_truth(berg_dir: Path, features_of: Any) -> tuple[Any, Any, Any]:
    """Three images, and the responses of both whole hemispheres to them."""
    images, features = features_of(SOME, "preset")
    return images, *reference.fsaverage_responses(reference.read_weights(berg_dir, FSAVERAGE, 1), features)


@pytest.fixture(scope="module")
def eeg_truth_of(berg_dir: Path, features_of: Any) -> Any:
    """Three images of a size, and the EEG responses of a subject to them; each computed once."""

    @cache
    def eeg_truth_of(subject: int = 1, size: tuple[int, int] = SOME, transform: str = "preset") -> Any:
        images, features = features_of(size, transform)
        return images, eeg_truth(berg_dir, features, subject)

    return eeg_truth_of


def eeg_truth(berg_dir: Path, features: Any, subject: int = 1) -> Any:
    return reference.eeg_responses(reference.read_weights(berg_dir, EEG, subject), features)


# Exactness


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("size", [SOME, *map(slow, SIZES)])
def test_images_of_any_size_and_proportions_give_the_truth(
    size: tuple[int, int], transform: str, berg_dir: Path, eeg_truth_of: Any
) -> None:
    images, truth = eeg_truth_of(1, size, transform)
    model = load(berg_dir, EEG, transform=transform)
    assert_near(BERG().encode(model, images), truth)


def test_the_whole_cortex_gives_the_truth(berg_dir: Path, fsaverage_truth: Any) -> None:
    images, *truth = fsaverage_truth
    responses = BERG().encode(load(berg_dir, FSAVERAGE), images)
    assert isinstance(responses, tuple)
    for ours, theirs in zip(responses, truth, strict=True):
        assert ours.shape == (3, layouts.N_VERTICES)
        assert_near(ours, theirs)


@pytest.mark.parametrize("n_images", [1, 2, slow(99), slow(100), slow(101)])
def test_any_number_of_images_gives_the_truth(n_images: int, berg_dir: Path, fsaverage_truth: Any) -> None:
    images, lh, rh = fsaverage_truth
    which = np.arange(n_images) % 3
    mask = np.arange(layouts.N_VERTICES) % 20000 == 7
    model = load(berg_dir, FSAVERAGE, selection={"lh_vertices": mask, "rh_vertices": mask})
    responses = BERG().encode(model, images[which])
    assert_near(responses[0], lh[which][:, mask])
    assert_near(responses[1], rh[which][:, mask])


@pytest.mark.parametrize("subject", [1, 2, 3], ids=["single", "per_repeat", "sklearn"])
def test_every_layout_of_the_pca_gives_the_truth(subject: int, berg_dir: Path, eeg_truth_of: Any) -> None:
    images, truth = eeg_truth_of(subject)
    held = reference.read_weights(berg_dir, EEG, subject)["pca_param"]
    assert type(held.get("rep-2")).__name__ == {1: "NoneType", 2: "dict", 3: "PCA"}[subject]
    assert not np.allclose(truth[:, 0], truth[:, 1], atol=0.1)
    assert_near(BERG().encode(load(berg_dir, EEG, subject), images), truth)


@pytest.mark.parametrize(
    "written",
    [{"numpy_1": True}, slow({"order": "F"}), slow({"regression_dtype": np.float64})],
    ids=["numpy_1", "F_ordered", "float64"],
)
def test_files_written_in_other_ways_give_the_truth(
    written: dict[str, Any], own_berg_dir: Path, statistics: Any, features_of: Any
) -> None:
    images, features = features_of(SOME, "preset")
    rng = np.random.default_rng(8)
    layouts.write_eeg(own_berg_dir, 9, rng, statistics=statistics, pca_layout="sklearn", **written)
    truth = eeg_truth(own_berg_dir, features, 9)
    assert_near(BERG().encode(load(own_berg_dir, EEG, 9), images), truth)
    BERG(own_berg_dir).convert(EEG, subject=9)
    assert_near(BERG().encode(load(own_berg_dir, EEG, 9), images), truth)


def test_fsaverage_in_fortran_order_and_float64_gives_the_truth(
    own_berg_dir: Path, statistics: Any, features_of: Any
) -> None:
    images, features = features_of(SOME, "preset")
    options = {"order": "F", "regression_dtype": np.float64, "numpy_1": True, "accuracy_suffix": "_nsdcore"}
    layouts.write_fsaverage(own_berg_dir, 8, np.random.default_rng(9), statistics=statistics, **options)
    truth = reference.fsaverage_responses(reference.read_weights(own_berg_dir, FSAVERAGE, 8), features)
    places = metadata_of(own_berg_dir, FSAVERAGE, 8)["fmri"]
    responses = BERG().encode(load(own_berg_dir, FSAVERAGE, 8, selection={"roi": "PPA"}), images)
    for ours, theirs, hemisphere in zip(responses, truth, ("lh", "rh"), strict=True):
        assert_near(ours, theirs[:, places[f"{hemisphere}_fsaverage_rois"]["PPA"]])


# Transforms


@pytest.mark.parametrize("size", [SOME, *SIZES])
def test_preset_is_the_transform_that_torchvision_gives_with_the_weights(size: tuple[int, int]) -> None:
    images = torch.from_numpy(layouts.random_images(np.random.default_rng(3), 2, *size))
    preset = ViT_B_32_Weights.IMAGENET1K_V1.transforms()
    torch.testing.assert_close(PresetTransform(preset)(images), preset(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [SOME, *SIZES])
def test_as_trained_is_the_resize_of_pil(size: tuple[int, int]) -> None:
    images = layouts.random_images(np.random.default_rng(4), 2, *size)
    prepared = AsTrainedTransform(ViT_B_32_Weights.IMAGENET1K_V1.transforms())(torch.from_numpy(images))
    expected = torch.stack([reference.as_trained_transform(image) for image in images])
    torch.testing.assert_close(prepared, expected, rtol=0, atol=1e-6)


def test_the_two_transforms_give_other_responses(berg_dir: Path, features_of: Any) -> None:
    images, _ = features_of(SOME, "preset")
    preset, as_trained = (BERG().encode(load(berg_dir, EEG, transform=name), images) for name in TRANSFORMS)
    assert np.abs(preset - as_trained).max() > 0.1


# Selections


def selected(berg_dir: Path, selection: dict[str, Any], images: Any) -> Any:
    return BERG().encode(load(berg_dir, FSAVERAGE, selection=selection), images)


@pytest.mark.parametrize("rois", ["V1v", ["V1v"], ["V1v", "early", "hV4"], ["hV4", "early", "V1v"]])
def test_rois_come_in_the_order_given_and_no_vertex_twice(rois: Any, berg_dir: Path, fsaverage_truth: Any) -> None:
    images, *truth = fsaverage_truth
    places = metadata_of(berg_dir, FSAVERAGE)["fmri"]
    responses = selected(berg_dir, {"roi": rois}, images)
    for ours, theirs, hemisphere in zip(responses, truth, ("lh", "rh"), strict=True):
        union: list[int] = []
        for roi in [rois] if isinstance(rois, str) else rois:
            union += [vertex for vertex in places[f"{hemisphere}_fsaverage_rois"][roi] if vertex not in union]
        assert_near(ours, theirs[:, union])


def test_rois_that_overlap_give_their_shared_vertices_once(own_berg_dir: Path, fsaverage_truth: Any) -> None:
    images, lh, _ = fsaverage_truth
    metadata = metadata_of(own_berg_dir, FSAVERAGE)
    metadata["fmri"]["lh_fsaverage_rois"] |= {"V1v": np.array([5, 9, 30]), "V2v": np.array([2, 9, 31])}
    replace_metadata(own_berg_dir, metadata)
    assert_near(selected(own_berg_dir, {"roi": ["V1v", "V2v"]}, images)[0], lh[:, [5, 9, 30, 2, 31]])
    assert_near(selected(own_berg_dir, {"roi": ["V2v", "V1v"]}, images)[0], lh[:, [2, 9, 31, 5, 30]])


def replace_metadata(berg_dir: Path, metadata: Any) -> None:
    path = layouts.model_folder(berg_dir, FSAVERAGE) / "metadata" / "metadata_subject-01.npy"
    path.unlink()
    layouts.write_pickled_npy(path, metadata)


def test_a_mask_for_one_hemisphere_leaves_the_other_whole(berg_dir: Path, fsaverage_truth: Any) -> None:
    images, lh, rh = fsaverage_truth
    mask = np.zeros(layouts.N_VERTICES, dtype=int)
    mask[[163841, 3, 77]] = 1
    ours = selected(berg_dir, {"lh_vertices": mask}, images)
    assert_near(ours[0], lh[:, [3, 77, 163841]])
    assert_near(ours[1], rh)
    ours = selected(berg_dir, {"rh_vertices": mask.astype(bool), "lh_vertices": 1 - mask}, images)
    assert_near(ours[0], np.delete(lh, [3, 77, 163841], axis=1))
    assert_near(ours[1], rh[:, [3, 77, 163841]])


def test_vertices_by_number_come_in_the_order_given(berg_dir: Path, fsaverage_truth: Any) -> None:
    images, lh, rh = fsaverage_truth
    ours = selected(berg_dir, {"lh_vertices": [163841, 3, 77], "rh_vertices": np.array([0, 2])}, images)
    assert_near(ours[0], lh[:, [163841, 3, 77]])
    assert_near(ours[1], rh[:, [0, 2]])
    with pytest.warns(EmptySelectionWarning, match="holds no vertex in output 'rh'"):
        ours = selected(berg_dir, {"lh_vertices": [5], "rh_vertices": []}, images)
    assert_near(ours[0], lh[:, [5]])
    assert ours[1].shape == (len(images), 0)


def test_a_roi_wins_over_a_mask_with_a_warning(berg_dir: Path, fsaverage_truth: Any) -> None:
    images, lh, rh = fsaverage_truth
    places = metadata_of(berg_dir, FSAVERAGE)["fmri"]
    mask = np.ones(layouts.N_VERTICES, dtype=int)
    with pytest.warns(IgnoredSelectionWarning, match="'roi' is selected, so 'rh_vertices' has no effect"):
        ours = selected(berg_dir, {"rh_vertices": mask, "roi": "OPA"}, images)
    assert_near(ours[0], lh[:, places["lh_fsaverage_rois"]["OPA"]])
    assert_near(ours[1], rh[:, places["rh_fsaverage_rois"]["OPA"]])


def test_a_roi_that_is_empty_in_a_subject_gives_no_columns_and_a_warning(berg_dir: Path, fsaverage_truth: Any) -> None:
    with pytest.warns(EmptySelectionWarning, match=r"mTL-bodies.* holds no vertex in output '[lr]h'") as caught:
        responses = selected(berg_dir, {"roi": "mTL-bodies"}, fsaverage_truth[0])
    assert len(caught) == 2  # one per hemisphere
    for array in responses:
        assert array.shape == (3, 0)
        assert array.dtype == np.float32


def test_an_empty_roi_beside_another_adds_nothing(berg_dir: Path, fsaverage_truth: Any) -> None:
    images = fsaverage_truth[0]
    both, one = (selected(berg_dir, {"roi": roi}, images) for roi in (["mTL-bodies", "V1v"], "V1v"))
    np.testing.assert_array_equal(both[0], one[0])


@pytest.mark.slow
def test_both_spellings_of_owfa_answer(berg_dir: Path, fsaverage_truth: Any) -> None:
    images, lh, _ = fsaverage_truth
    places = metadata_of(berg_dir, FSAVERAGE)["fmri"]["lh_fsaverage_rois"]["OWFA"]
    for roi in ("OWFA", "OVWFA", ["OVWFA"], ["OWFA", "OVWFA"]):
        assert_near(selected(berg_dir, {"roi": roi}, images)[0], lh[:, places])


@pytest.mark.parametrize(
    ("selection", "rows", "times"),
    [
        ({"channels": "Oz"}, [15], slice(None)),
        ({"channels": ["POz", "Fp1"]}, [47, 0], slice(None)),
        ({"timepoints": np.arange(140) == 33}, slice(None), [33]),
        ({"timepoints": np.isin(np.arange(140), [7, 139, 0])}, slice(None), [0, 7, 139]),
        ({"timepoints": [139, 7]}, slice(None), [139, 7]),
        ({"time": [0.1, 0.2]}, slice(None), list(range(40, 61))),
        ({"time": [None, -0.09]}, slice(None), [0, 1, 2]),
        ({"channels": ["AF8"], "timepoints": np.arange(140) == 139}, [62], [139]),
        ({"channels": ["Oz", "O1"], "timepoints": np.arange(140) >= 138}, [15, 14], [138, 139]),
    ],
    ids=[
        *("channel", "two channels", "time", "three times", "times by number", "seconds", "seconds from the start"),
        *("channel and time", "channels and times"),
    ],
)
@pytest.mark.parametrize("subject", [1, slow(2)])
def test_channels_and_time_points_come_as_selected(
    subject: int, selection: dict[str, Any], rows: Any, times: Any, berg_dir: Path, eeg_truth_of: Any
) -> None:
    images, truth = eeg_truth_of(subject)
    truth = truth[:, :, rows][..., times]
    assert truth.ndim == 4
    assert_near(BERG().encode(load(berg_dir, EEG, subject, selection=selection), images), truth)


def test_coordinates_are_those_of_the_returned_units(berg_dir: Path, features_of: Any) -> None:
    images = features_of(SOME, "preset")[0][:1]
    berg = BERG(berg_dir)
    selection = {"channels": ["POz", "Fp1"], "timepoints": np.arange(140) == 20}
    _, metadata = berg.encode(load(berg_dir, EEG, selection=selection), images, return_metadata=True)
    found = metadata["responses"]["eeg"]["coordinates"]
    assert found["channel"][1].tolist() == ["POz", "Fp1"]
    np.testing.assert_allclose(found["time"][1], [0.0], atol=1e-9)  # -0.1 s and 20 steps of 5 ms
    _, metadata = berg.encode(load(berg_dir, FSAVERAGE, selection={"roi": "RSC"}), images, return_metadata=True)
    fmri = metadata_of(berg_dir, FSAVERAGE)["fmri"]
    for hemisphere in ("lh", "rh"):
        expected = fmri[f"{hemisphere}_ncsnr"][fmri[f"{hemisphere}_fsaverage_rois"]["RSC"]]
        np.testing.assert_array_equal(metadata["responses"][hemisphere]["coordinates"]["ncsnr"][1], expected)


# Converted files


@pytest.mark.parametrize(("model_id", "subject"), [(FSAVERAGE, 1), slow(EEG, 1), (EEG, 2), slow(EEG, 3)])
def test_a_converted_file_gives_the_same_as_the_published_one(
    model_id: str, subject: int, own_berg_dir: Path, features_of: Any
) -> None:
    images = features_of(SOME, "preset")[0]
    before = BERG().encode(load(own_berg_dir, model_id, subject), images)
    published = weights_file(own_berg_dir, model_id, subject)
    (converted,) = BERG(own_berg_dir).convert(model_id, subject=subject)
    assert converted == published.with_suffix(".safetensors")
    assert published.is_file()
    after = BERG().encode(load(own_berg_dir, model_id, subject), images)
    np.testing.assert_array_equal(np.concatenate(after, axis=None), np.concatenate(before, axis=None))
    published.unlink()
    alone = BERG().encode(load(own_berg_dir, model_id, subject), images)
    np.testing.assert_array_equal(np.concatenate(alone, axis=None), np.concatenate(before, axis=None))


def test_loading_prefers_the_converted_file(own_berg_dir: Path, features_of: Any) -> None:
    images = features_of(SOME, "preset")[0]
    selection = {"channels": ["Oz"]}
    before = BERG().encode(load(own_berg_dir, EEG, selection=selection), images)
    (converted,) = BERG(own_berg_dir).convert(EEG, subject=1)
    tensors = read_safetensors(converted)
    write_safetensors(converted, {**tensors, "eeg.intercept": tensors["eeg.intercept"] + 1})
    after = BERG().encode(load(own_berg_dir, EEG, selection=selection), images)
    np.testing.assert_allclose(after, before + 1, atol=1e-5)


@pytest.mark.parametrize("larger", [True, False], ids=["of another size", "of the same size"])
def test_a_changed_published_file_makes_the_converted_one_stale(
    larger: bool, own_berg_dir: Path, statistics: Any, features_of: Any
) -> None:
    images, features = features_of(SOME, "preset")
    BERG(own_berg_dir).convert(EEG, subject=1)
    published = weights_file(own_berg_dir, EEG)
    size = published.stat().st_size
    layout = "per_repeat" if larger else "single"
    published.unlink()
    layouts.write_eeg(own_berg_dir, 1, np.random.default_rng(77), statistics=statistics, pca_layout=layout)
    assert (published.stat().st_size != size) is larger
    truth = eeg_truth(own_berg_dir, features)
    with pytest.warns(StaleConversionWarning, match=f"not used.* berg convert {EEG} --subject 1"):
        model = load(own_berg_dir, EEG)
    assert_near(BERG().encode(model, images), truth)
    BERG(own_berg_dir).convert(EEG, subject=1)
    assert_near(BERG().encode(load(own_berg_dir, EEG), images), truth)


def test_a_copy_of_both_files_is_not_stale(own_berg_dir: Path) -> None:
    BERG(own_berg_dir).convert(EEG, subject=1)
    published = weights_file(own_berg_dir, EEG)
    held = published.read_bytes()
    published.unlink()
    published.write_bytes(held)  # as a download would: the same bytes, written today
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(own_berg_dir, EEG)


def test_converting_one_roi_reads_back_as_its_rows(own_berg_dir: Path, fsaverage_truth: Any) -> None:
    images, lh, rh = fsaverage_truth
    places = metadata_of(own_berg_dir, FSAVERAGE)["fmri"]
    BERG(own_berg_dir).convert(FSAVERAGE, subject=1)
    ours = selected(own_berg_dir, {"roi": ["PPA", "V3v"]}, images)
    for array, truth, hemisphere in zip(ours, (lh, rh), ("lh", "rh"), strict=True):
        rois = places[f"{hemisphere}_fsaverage_rois"]
        union = list(dict.fromkeys([*rois["PPA"], *rois["V3v"]]))
        assert_near(array, truth[:, union])


def test_a_conversion_that_fails_leaves_nothing(own_berg_dir: Path) -> None:
    published = weights_file(own_berg_dir, EEG)
    weights = reference.read_weights(own_berg_dir, EEG, 1)
    del weights["reg_param"]["rep-3"]
    published.unlink()
    layouts.write_pickled_npy(published, weights)
    before = sorted(published.parent.iterdir())
    with pytest.raises(CorruptedFileError, match=r"rep-3\.coef_"):
        BERG(own_berg_dir).convert(EEG, subject=1)
    assert sorted(published.parent.iterdir()) == before


# Shared networks


def test_two_models_on_the_same_network_share_it(berg_dir: Path) -> None:
    fsaverage = load(berg_dir, FSAVERAGE, selection={"roi": "V1v"})
    eeg, other_subject = load(berg_dir, EEG), load(berg_dir, EEG, 2)
    assert fsaverage.features is eeg.features
    assert eeg.features is other_subject.features
    as_trained = load(berg_dir, EEG, transform="as_trained")
    reduced = load(berg_dir, EEG, precision="bfloat16")
    assert len({id(model.features) for model in (eeg, as_trained, reduced)}) == 3


@pytest.mark.slow
def test_a_shared_network_is_freed_with_the_last_of_its_models(berg_dir: Path) -> None:
    first, second = (load(berg_dir, EEG, subject, precision="bfloat16") for subject in (1, 2))
    parameters = [weakref.ref(parameter) for parameter in first.features.parameters()]
    assert len(parameters) > 100
    assert first.features is second.features
    first.cleanup()
    gc.collect()
    assert all(parameter() is not None for parameter in parameters)
    second.cleanup()
    gc.collect()
    assert all(parameter() is None for parameter in parameters)


@pytest.mark.slow
def test_many_models_at_once_give_what_each_gives_alone(berg_dir: Path, features_of: Any) -> None:
    images = features_of(SOME, "preset")[0]
    models = [
        load(berg_dir, FSAVERAGE, selection={"roi": "hV4"}),
        load(berg_dir, EEG, 2),
        load(berg_dir, layouts.FWRF, selection={"roi": "V1"}),
        load(berg_dir, EEG, transform="as_trained"),
    ]
    runs = {id(network): 0 for network in (models[0].features, models[3].features)}
    hooks = [
        model.features.register_forward_pre_hook(lambda module, _: runs.update({id(module): runs[id(module)] + 1}))
        for model in (models[0], models[3])
    ]
    responses, metadata = BERG().encode(models, images, return_metadata=True)
    assert list(runs.values()) == [1, 1]
    for hook in hooks:
        hook.remove()
    assert [found["model"]["model_id"] for found in metadata] == [FSAVERAGE, EEG, layouts.FWRF, EEG]
    for ours, model in zip(responses, models, strict=True):
        alone = BERG().encode(model, images)
        assert isinstance(ours, tuple) == isinstance(alone, tuple)
        np.testing.assert_allclose(np.concatenate(ours, axis=None), np.concatenate(alone, axis=None), atol=1e-6)


# Precision


# float16 takes a second per image on a CPU.
@pytest.mark.parametrize(("precision", "n_images"), [slow("bfloat16", 24), slow("float16", 5)])
def test_reduced_precision_correlates_with_float32_in_every_unit(precision: str, n_images: int, berg_dir: Path) -> None:
    images = layouts.random_images(np.random.default_rng(12), n_images)
    full, reduced = (BERG().encode(load(berg_dir, EEG, precision=p), images) for p in ("float32", precision))
    assert reduced.dtype == np.float32
    correlations = unit_correlations(full, reduced)
    print(f"{precision}: smallest r {correlations.min():.6f}, median {np.median(correlations):.6f}")
    assert len(correlations) == 4 * 63 * 140
    assert correlations.min() > 0.999
    assert not np.array_equal(full, reduced)  # or the parameter has no effect


# Gradients


@pytest.mark.parametrize(("transform", "side"), [("preset", 256), ("as_trained", 224)])
def test_predict_gives_what_encode_gives_where_nothing_is_rounded(transform: str, side: int, berg_dir: Path) -> None:
    images = layouts.random_images(np.random.default_rng(side), 2, side, side)  # the transform does not resize
    model = load(berg_dir, EEG, transform=transform)
    predicted = model.predict(torch.from_numpy(images).float())
    encoded = BERG().encode(model, images)
    np.testing.assert_allclose(predicted.numpy().reshape(encoded.shape), encoded, atol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_predict_gives_what_encode_gives_up_to_the_rounding_of_a_resize(
    transform: str, berg_dir: Path, features_of: Any
) -> None:
    images = features_of(SOME, transform)[0]
    model = load(berg_dir, EEG, transform=transform)
    encoded = BERG().encode(model, images)
    predicted = model.predict(torch.from_numpy(images).float()).numpy().reshape(encoded.shape)
    assert np.abs(predicted - encoded).max() < 0.1 * encoded.std()
    assert not np.array_equal(predicted, encoded)


@pytest.mark.parametrize("size", [(64, 80), slow((256, 256))])
def test_the_gradient_agrees_with_finite_differences_of_the_reference_in_float64(
    size: tuple[int, int], berg_dir: Path, torch_home: Path
) -> None:
    rng = np.random.default_rng(size)
    image = torch.from_numpy(layouts.random_images(rng, 1, *size).clip(20, 235)).double()
    weights, mixture = reference.read_weights(berg_dir, EEG, 2), rng.standard_normal((4, 63, 140))
    model = load(berg_dir, EEG, 2)
    stimulus = image.float().requires_grad_()
    (model.predict(stimulus).reshape(4, 63, 140) * torch.from_numpy(mixture).float()).sum().backward()
    for direction in directions(size, rng):
        step = 1e-2 * direction
        ends = eeg_of_floats(torch.cat([image + step, image - step]), torch_home, weights)
        expected = ((ends[0] - ends[1]) * mixture).sum() / 2e-2
        found = float((stimulus.grad.double() * direction).sum())
        assert abs(found - expected) < 1e-3 * abs(expected) + 1e-4


def directions(size: tuple[int, int], rng: np.random.Generator) -> Iterator[Tensor]:
    """One pixel, a patch, and all pixels; all in the middle, which no transform crops."""
    height, width = size
    for half in (1, 8, min(size) // 2):
        direction = torch.zeros(1, 3, height, width, dtype=torch.float64)
        rows, columns = (slice(length // 2 - half, length // 2 + half) for length in (height, width))
        patch = direction[..., rows, columns]
        direction[..., rows, columns] = torch.from_numpy(rng.standard_normal(patch.shape))
        yield direction


def eeg_of_floats(image: Tensor, torch_home: Path, weights: Any) -> Any:
    """The reference for pictures in float64, which torchvision's preset would take to float32."""
    network = reference.read_backbone(torch_home)
    with torch.no_grad():
        crop = functional.center_crop(functional.resize(image / 255, [256], antialias=True), [224])
        layers = network(functional.normalize(crop, reference.IMAGENET_MEAN, reference.IMAGENET_STD))
    features = np.concatenate([layers[node].flatten(1).numpy() for node in reference.NODES], axis=1)
    return reference.eeg_responses(weights, features)
