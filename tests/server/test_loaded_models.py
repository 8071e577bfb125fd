"""Models in memory: loaded once, let go when others need the room, never while they are in use."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from berg.core.exceptions import DeviceMemoryError, InvalidParameterError
from berg.server.loaded_models import LoadedModels, model_bytes


class Model:
    """A model of so many bytes."""

    def __init__(self, model_id, n_bytes):
        self.model_id, self.metadata, self.is_here = model_id, {}, True
        self.half = torch.nn.Module()
        self.half.register_buffer("weights", torch.zeros(n_bytes, dtype=torch.uint8))

    def get_model_id(self):
        return self.model_id

    def loaded_modules(self):
        return self.half, self.half

    def cleanup(self):
        self.is_here = False


@pytest.fixture
def made():
    return []


@pytest.fixture
def models(made):
    def load(model_id, parameters, selection):
        if model_id == "wrong":
            raise InvalidParameterError("no such thing")
        made.append(Model(model_id, parameters.get("n_bytes", 40)))
        return made[-1]

    return LoadedModels(load, 100)


def use(models, model_id, **parameters):
    with models.using(model_id, parameters, None) as model:
        return model


def test_a_model_is_loaded_once_and_for_each_selection(models, made):
    assert use(models, "a") is use(models, "a")
    with models.using("a", {}, {"voxels": np.arange(3)}) as other:
        assert other is not made[0]
    assert len(made) == 2


def test_the_longest_unused_goes_when_there_is_no_room(models, made):
    for model_id in ("a", "b", "a", "c"):
        use(models, model_id)
    assert [(model.model_id, model.is_here) for model in made] == [("a", True), ("b", False), ("c", True)]
    assert models.ids() == {"a", "c"}
    assert models.n_bytes() == 80


def test_what_is_in_use_stays(models, made):
    with models.using("a", {}, None) as first:
        use(models, "b")
        use(models, "c")
        assert first.is_here
    assert models.n_bytes() <= 100


def test_one_that_never_fits_is_refused(models, made):
    with pytest.raises(DeviceMemoryError, match="takes 101 B of memory; this server keeps 100 B"):
        use(models, "a", n_bytes=101)
    assert not made[0].is_here
    assert models.n_bytes() == 0


def test_an_error_while_loading_is_told_and_not_kept(models):
    for _ in range(2):
        with pytest.raises(InvalidParameterError, match="no such thing"):
            use(models, "wrong")
    assert models.n_bytes() == 0


def test_many_who_ask_at_once_wait_for_one_loading():
    gate, made = threading.Event(), []

    def load(model_id, parameters, selection):
        gate.wait(5)
        made.append(Model(model_id, 10))
        return made[-1]

    models = LoadedModels(load, 100)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(use, models, "a") for _ in range(8)]
        gate.set()
        assert len({id(each.result(5)) for each in asked}) == 1
    assert len(made) == 1


def test_a_tensor_that_both_halves_have_is_counted_once():
    model = Model("a", 1000)
    model.metadata = {"fmri": {"x": np.zeros(10)}}
    model.half.kept = ("a key", torch.zeros(25))
    assert model_bytes(model) == 1000 + 80 + 100
