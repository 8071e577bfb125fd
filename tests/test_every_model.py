"""What every registered model promises, tried on each; a new model is tested by existing."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import language, layouts, mosaic, mouse_scans

from berg import BERG
from berg.core import model_registry
from berg.core.exceptions import BERGError, InvalidParameterError, ModelNotLoadedError, StimulusError
from berg.core.unit_labels import axis_length
from berg.models.encoding_model import EncodingModel
from berg.responses.labelled import label_responses

DirOf = Callable[[str], Path]
MODEL_IDS = BERG().list_models()
BUILT_IN = [
    model_id
    for model_id in MODEL_IDS
    if (files := model_registry.get_card(model_id).files) is not None and files.store == "built_in"
]
TAKE_INTEGERS = [
    model_id
    for model_id in BUILT_IN
    if (given := model_registry.get_card(model_id).input) is not None and np.dtype(given.dtype).kind in "iu"
]
TEXTS = {  # rows of their responses, where these are not the stimuli, have tests of their own
    model_id
    for model_id in MODEL_IDS
    if (given := model_registry.get_card(model_id).input) is not None and given.kind == "text"
}
TAKE_FLOATS = [model_id for model_id in BUILT_IN if model_id not in TAKE_INTEGERS]
PUBLISHED = [model_id for model_id in MODEL_IDS if model_id not in BUILT_IN and model_id != language.LEBEL]
on_every_model = pytest.mark.parametrize("model_id", MODEL_IDS)
SELECTABLE = [
    model_id
    for model_id in PUBLISHED
    if any(selector.kind != "file" for selector in model_registry.get_card(model_id).select.values())
]
FURTHER = {*layouts.ZOO, layouts.HUZE, mosaic.WHOLE}
"""On the networks and the family of others, which run each line that they do, or with small tests of their own."""


def marked(model_ids: list[str]) -> list[Any]:
    """The published models as parameters; those whose sisters are tried anyway in the slow set."""
    group = pytest.mark.xdist_group("published")
    return [pytest.param(each, marks=[group, *([pytest.mark.slow] if each in FURTHER else [])]) for each in model_ids]


on_every_published_model = pytest.mark.parametrize("model_id", marked(PUBLISHED))
on_every_built_in_model = pytest.mark.parametrize("model_id", BUILT_IN)


def stimuli(model_id: str, n: int = 3) -> Any:
    """Random stimuli as the card describes them."""
    given = model_registry.get_card(model_id).input
    assert given is not None
    if given.kind == "text":
        return ["it began in the woods", "where the old dog slept", "so it ran"][:n]
    assert given.range is not None
    sizes = {"batch_size": n, "height": 48, "width": 64, "n_samples": 2000, "n_frames": 16}
    sizes |= {"n_frames": 3} if given.frame_rate else {}
    shape = [size if isinstance(size, int) else sizes[size] for size in given.shape]
    low, high = given.range
    if given.sampling_rate:  # as loud as one can bear, not as loud as the range goes
        low, high = low / 100, high / 100
    return np.random.default_rng(0).uniform(low, high, shape).astype(given.dtype)


def options(model_id: str) -> dict[str, Any]:
    """What a call needs beside the stimuli: of sounds, their sampling rate."""
    given = model_registry.get_card(model_id).input
    assert given is not None
    return {"sampling_rate": given.sampling_rate} if given.sampling_rate else {}


def load(model_id: str, **parameters: Any) -> Any:
    return BERG().get_encoding_model(model_id, device="cpu", **parameters)


@pytest.fixture
def dir_of(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Where the random files of a published model are."""

    def dir_of(model_id: str) -> Path:
        own = {layouts.BMD: "bmd_dir", mosaic.VISUAL: "mosaic_dir", mosaic.WHOLE: "mosaic_whole_dir"}
        own |= {layouts.HUZE: "huze_dir", mouse_scans.MODEL: "mouse_dir", **dict.fromkeys(layouts.ZOO, "zoo_dir")}
        own |= dict.fromkeys(TEXTS, "language_dir")
        berg_dir: Path = request.getfixturevalue(own.get(model_id, "berg_dir"))
        return berg_dir

    return dir_of


def load_published(berg_dir: Path, model_id: str, selection: dict[str, Any] | None = None, **changed: Any) -> Any:
    """A model from random files; what it needs is as in the examples of its card."""
    parameters = {**required_by(model_registry.get_card(model_id).parameters), **changed}
    selection = {**parameters.pop("selection", {}), **(selection or {})}
    return BERG(berg_dir).get_encoding_model(model_id, device="cpu", selection=selection or None, **parameters)


def required_by(described: dict[str, Any]) -> dict[str, Any]:
    """An example of each parameter that is required, and of each required key of the selection."""
    return {
        name: required_by(parameter.properties) if parameter.properties else parameter.example
        for name, parameter in described.items()
        if parameter.required
    }


def as_tuple(responses: Any) -> tuple[np.ndarray, ...]:
    if isinstance(responses, dict):  # of subjects by their data sets
        return (np.stack([array for subjects in responses.values() for array in subjects.values()], axis=1),)
    return responses if isinstance(responses, tuple) else (responses,)


def test_there_are_models_to_test() -> None:
    assert len(BUILT_IN) >= 2
    assert TAKE_INTEGERS
    assert TAKE_FLOATS
    assert {model_registry.get_card(model_id).modality for model_id in BUILT_IN} >= {"fmri", "ephys"}
    assert len(PUBLISHED) >= 3
    assert len(SELECTABLE) >= 2
    assert sorted(MODEL_IDS) == MODEL_IDS
    assert not model_registry.PROBLEMS


@on_every_model
def test_the_card_stands_in_the_catalog_and_describes_itself(model_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    card = model_registry.get_card(model_id)
    assert card.training_dataset in BERG().get_model_catalog()[card.modality]
    described = BERG().describe(model_id)
    printed = capsys.readouterr().out
    assert described["model_id"] == model_id
    assert all(name in printed for name in card.parameters)
    assert card.licence is not None
    assert card.licence in " ".join(printed.split())


@on_every_model
def test_an_unknown_parameter_is_refused_with_the_nearest_name(model_id: str) -> None:
    name = next(iter(model_registry.get_card(model_id).own_parameters))
    wrong = f"{name[:-2]}k{name[-1]}"
    with pytest.raises(InvalidParameterError, match=rf"no parameter '{wrong}'\. Did you mean '{name}'"):
        load(model_id, **{wrong: 1})


@on_every_model
def test_an_unknown_selection_key_is_refused_with_the_keys(model_id: str) -> None:
    card = model_registry.get_card(model_id)
    needed = {name: (part.allowed or [1])[0] for name, part in card.own_parameters.items() if part.required}
    with pytest.raises(InvalidParameterError, match=re.escape(card.selection_keys[0])):
        load(model_id, selection={"no_such_key": 1}, **needed)


@on_every_model
def test_the_class_answers_for_its_id_and_parameters(model_id: str) -> None:
    model_class = model_registry.get_model_class(model_id)
    assert model_class.get_model_id() == model_id
    assert set(model_class.get_supported_parameters()) == set(model_registry.get_card(model_id).parameters)


@on_every_built_in_model
def test_outputs_are_float32_with_the_axes_of_the_card(model_id: str) -> None:
    berg = BERG()
    responses, metadata = berg.encode(load(model_id), stimuli(model_id), return_metadata=True, **options(model_id))
    card = model_registry.get_card(model_id)
    assert len(as_tuple(responses)) == len(card.outputs)
    for array, output in zip(as_tuple(responses), card.outputs, strict=True):
        assert array.dtype == np.float32
        assert array.ndim == len(output.axes)
        assert len(array) == 3
        for axis, values in metadata["responses"][output.name]["coordinates"].values():
            axes = (axis,) if isinstance(axis, str) else axis
            assert np.shape(values) == tuple(array.shape[output.axes.index(one)] for one in axes)
    assert label_responses(responses, metadata) is not None


@on_every_built_in_model
def test_one_stimulus_and_one_unit_keep_their_axes(model_id: str) -> None:
    whole = as_tuple(BERG().encode(load(model_id), stimuli(model_id, 1), **options(model_id)))
    card = model_registry.get_card(model_id)
    assert all(len(array) == 1 and array.ndim == len(out.axes) for array, out in zip(whole, card.outputs, strict=True))
    masks = {key: selector for key, selector in card.select.items() if selector.kind == "mask"}
    for key, selector in masks.items():
        index = next(i for i, output in enumerate(card.outputs) if selector.output in (None, output.name))
        axis = card.outputs[index].axes.index(str(selector.axis))
        mask = np.zeros(whole[index].shape[axis], int)
        mask[2] = 1
        one = as_tuple(BERG().encode(load(model_id, selection={key: mask}), stimuli(model_id, 1)))
        assert one[index].ndim == whole[index].ndim
        assert one[index].shape[axis] == 1
        np.testing.assert_allclose(one[index], np.take(whole[index], [2], axis), rtol=1e-5, atol=1e-6)


@on_every_published_model
def test_published_models_return_float32_with_the_axes_of_the_card(model_id: str, dir_of: DirOf) -> None:
    model, images = load_published(dir_of(model_id), model_id), stimuli(model_id)
    before, state = images.copy(), global_state()
    responses, metadata = BERG().encode(model, images, return_metadata=True)
    assert global_state() == state
    np.testing.assert_array_equal(images, before)
    card = model_registry.get_card(model_id)
    for array, output in zip(as_tuple(responses), card.outputs, strict=True):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
        assert array.std() > 0
        assert array.ndim == len(output.axes)
        assert len(array) == 3
        for axis, values in metadata["responses"][output.name]["coordinates"].values():
            axes = (axis,) if isinstance(axis, str) else axis
            assert np.shape(values) == tuple(array.shape[output.axes.index(one)] for one in axes)
    assert label_responses(responses, metadata) is not None


def global_state() -> Any:
    return torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()


def example_selections(model: Any) -> dict[str, Any]:
    """For each key of a selection one value, made of what the card says of it."""
    card = model.card
    described = card.selection_parameters
    found = {}
    for key, selector in card.select.items():
        if selector.kind == "mask":
            output = selector.output or card.outputs[0].name
            length = axis_length(card, output, str(selector.axis), model.metadata)
            found[key] = (np.arange(length) % 50 == 3).astype(int)
        elif selector.kind != "file":
            found[key] = described[key].example
    return found


@pytest.mark.parametrize("model_id", marked(SELECTABLE))
def test_selected_responses_are_columns_of_all_responses(model_id: str, dir_of: DirOf) -> None:
    images = stimuli(model_id, 2)
    card = model_registry.get_card(model_id)
    whole = as_tuple(BERG().encode(load_published(dir_of(model_id), model_id), images))
    for key, value in example_selections(load_published(dir_of(model_id), model_id)).items():
        model = load_published(dir_of(model_id), model_id, {key: value})
        for array, all_of_it, output in zip(as_tuple(BERG().encode(model, images)), whole, card.outputs, strict=True):
            columns = all_of_it
            for axis, name in enumerate(output.axes[1:], start=1):
                columns = np.take(columns, model.indices_of(output.name, name), axis)
            assert array.shape == columns.shape
            np.testing.assert_allclose(array, columns, atol=1e-6, rtol=1e-6)
        assert any(len(places) < size for places, size in zip(model.indices.values(), sizes(whole), strict=True))


def sizes(responses: tuple[np.ndarray, ...]) -> list[int]:
    return [size for array in responses for size in array.shape[1:]]


@pytest.mark.parametrize("model_id", marked(SELECTABLE))
def test_one_stimulus_and_one_unit_of_a_published_model_keep_their_axes(model_id: str, dir_of: DirOf) -> None:
    images = stimuli(model_id, 1)
    card = model_registry.get_card(model_id)
    whole = as_tuple(BERG().encode(load_published(dir_of(model_id), model_id), images))
    assert all(len(array) == 1 for array in whole)
    for key, value in example_selections(load_published(dir_of(model_id), model_id)).items():
        selector = card.select[key]
        if selector.kind == "roi":
            continue
        one = value[:1] if selector.kind == "name" else (np.cumsum(value) * value == 1).astype(int)
        for array, output in zip(
            as_tuple(BERG().encode(load_published(dir_of(model_id), model_id, {key: one}), images)),
            card.outputs,
            strict=True,
        ):
            assert array.ndim == len(output.axes)
            assert len(array) == 1
            if selector.output in (None, output.name):
                assert array.shape[output.axes.index(str(selector.axis))] == 1


@on_every_published_model
def test_the_batch_size_of_a_published_model_does_not_matter(model_id: str, dir_of: DirOf) -> None:
    model, images = load_published(dir_of(model_id), model_id), stimuli(model_id, 3)
    together = as_tuple(BERG().encode(model, images, batch_size=3))
    for size in (1, 2):
        for ours, theirs in zip(as_tuple(BERG().encode(model, images, batch_size=size)), together, strict=True):
            assert np.abs(ours - theirs).max() < max(1e-5, 5e-5 * theirs.std())  # the rounding of other products


@pytest.mark.parametrize("model_id", marked([each for each in PUBLISHED if each not in TEXTS]))
@pytest.mark.parametrize("dtype", [np.int64, ">i4"])
def test_any_integer_dtype_gives_a_published_model_the_same_numbers(model_id: str, dtype: Any, dir_of: DirOf) -> None:
    model, images = load_published(dir_of(model_id), model_id), stimuli(model_id, 2)
    for ours, theirs in zip(
        as_tuple(BERG().encode(model, images.astype(dtype))), as_tuple(BERG().encode(model, images)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@on_every_published_model
def test_a_published_model_can_be_cleaned_up_and_loaded_again(model_id: str, dir_of: DirOf) -> None:
    images = stimuli(model_id, 1)
    with load_published(dir_of(model_id), model_id) as model:
        before = as_tuple(BERG().encode(model, images))
        readout = [weakref.ref(tensor) for tensor in model.readout.buffers()]
    gc.collect()
    assert readout
    assert not any(reference() is not None for reference in readout)
    with pytest.raises(ModelNotLoadedError, match=re.escape("model.load_model()")):
        BERG().encode(model, images)
    model.load_model()
    for one, other in zip(as_tuple(BERG().encode(model, images)), before, strict=True):
        np.testing.assert_array_equal(one, other)


@on_every_built_in_model
def test_the_batch_size_does_not_matter(model_id: str) -> None:
    model, images = load(model_id), stimuli(model_id, 7)
    together = as_tuple(BERG().encode(model, images, batch_size=7, **options(model_id)))
    for size in (1, 2, 100):
        for ours, theirs in zip(
            as_tuple(BERG().encode(model, images, batch_size=size, **options(model_id))), together, strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@on_every_built_in_model
def test_selected_responses_of_a_built_in_model_are_columns_of_all_responses(model_id: str) -> None:
    card, given = model_registry.get_card(model_id), stimuli(model_id, 2)
    whole = as_tuple(BERG().encode(load(model_id), given, **options(model_id)))
    described = card.selection_parameters
    examples = {key: part.example for key, part in described.items() if part.example is not None}
    assert examples
    for key, value in examples.items():
        model = load(model_id, selection={key: value})
        responses = as_tuple(BERG().encode(model, given, **options(model_id)))
        for array, columns, output in zip(responses, whole, card.outputs, strict=True):
            for axis, name in enumerate(output.axes[1:], start=1):
                columns = np.take(columns, model.indices_of(output.name, name), axis)
            assert array.size
            np.testing.assert_allclose(array, columns, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("model_id", TAKE_INTEGERS)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, ">i4"])
def test_any_integer_dtype_gives_the_same_numbers(model_id: str, dtype: Any) -> None:
    model, images = load(model_id), stimuli(model_id)
    for ours, theirs in zip(
        as_tuple(BERG().encode(model, images.astype(dtype))), as_tuple(BERG().encode(model, images)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("model_id", TAKE_FLOATS)
@pytest.mark.parametrize("dtype", [np.float64, ">f4", ">f8"])
def test_any_floating_point_dtype_gives_the_same_numbers(model_id: str, dtype: Any) -> None:
    model, sounds = load(model_id), stimuli(model_id)
    for ours, theirs in zip(
        as_tuple(BERG().encode(model, sounds.astype(dtype), **options(model_id))),
        as_tuple(BERG().encode(model, sounds, **options(model_id))),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@on_every_built_in_model
def test_the_stimulus_is_left_as_it_was_and_gives_the_same_again(model_id: str) -> None:
    model, images = load(model_id), stimuli(model_id)
    before = images.copy()
    first, second = (as_tuple(BERG().encode(model, images, **options(model_id))) for _ in range(2))
    np.testing.assert_array_equal(images, before)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("model_id", TAKE_INTEGERS)
def test_a_missing_batch_axis_is_named_with_its_mend(model_id: str) -> None:
    with pytest.raises(StimulusError, match=re.escape("stimulus[None]")):
        BERG().encode(load(model_id), stimuli(model_id)[0])


@on_every_built_in_model
def test_an_id_in_place_of_a_model_gives_the_same(model_id: str) -> None:
    images = stimuli(model_id)
    by_model = as_tuple(BERG().encode(load(model_id), images, **options(model_id)))
    responses, metadata = BERG().encode(
        model_id, images, return_metadata=True, device="cpu", batch_size=2, **options(model_id)
    )
    assert metadata["model"]["model_id"] == model_id
    for one, other in zip(as_tuple(responses), by_model, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@on_every_built_in_model
def test_metadata_needs_no_weights(model_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(EncodingModel, "load_model", refuse)
    monkeypatch.setattr(model_registry.get_model_class(model_id), "build", refuse)
    metadata = BERG().get_model_metadata(model_id)
    assert metadata
    assert "responses" not in metadata


@on_every_built_in_model
def test_cleanup_frees_the_weights_and_load_model_brings_them_back(model_id: str) -> None:
    images = stimuli(model_id)
    with load(model_id) as model:
        before = as_tuple(BERG().encode(model, images, **options(model_id)))
        tensors = [weakref.ref(tensor) for part in (model.features, model.readout) for tensor in part.buffers()]
        modules = [weakref.ref(model.features), weakref.ref(model.readout)]
    gc.collect()
    assert tensors
    assert not any(reference() is not None for reference in tensors + modules)
    with pytest.raises(ModelNotLoadedError, match=re.escape("model.load_model()")):
        BERG().encode(model, images, **options(model_id))
    model.load_model()
    for one, other in zip(as_tuple(BERG().encode(model, images, **options(model_id))), before, strict=True):
        np.testing.assert_array_equal(one, other)


@on_every_built_in_model
def test_predict_is_differentiable_and_agrees_with_encode(model_id: str) -> None:
    model, images = load(model_id), stimuli(model_id, 2)
    stimulus = torch.from_numpy(images).float().requires_grad_()
    predicted = as_tuple(model.predict(stimulus))
    for ours, theirs in zip(predicted, as_tuple(BERG().encode(model, images, **options(model_id))), strict=True):
        np.testing.assert_allclose(ours.detach().numpy().reshape(theirs.shape), theirs, rtol=1e-4, atol=1e-5)
    sum(response.sum() for response in predicted).backward()
    assert stimulus.grad is not None
    assert bool(torch.isfinite(stimulus.grad).all())
    assert float(stimulus.grad.abs().max()) > 0


@on_every_built_in_model
def test_nothing_global_is_touched_and_nothing_is_printed(model_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    state = (
        torch.get_rng_state().tolist(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )
    BERG().encode(load(model_id), stimuli(model_id), **options(model_id))
    assert state == (
        torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    )  # fmt: skip
    assert capsys.readouterr() == ("", "")


@on_every_built_in_model
@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99", "cpu:0", 3])
def test_a_device_that_is_not_there_is_refused(model_id: str, device: Any) -> None:
    with pytest.raises(BERGError, match="device"):
        BERG().get_encoding_model(model_id, device=device)


@on_every_built_in_model
@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, "8"])
def test_a_batch_size_that_is_none_is_refused(model_id: str, batch_size: Any) -> None:
    with pytest.raises(InvalidParameterError, match="whole number from 1"):
        BERG().encode(load(model_id), stimuli(model_id), batch_size=batch_size, **options(model_id))
