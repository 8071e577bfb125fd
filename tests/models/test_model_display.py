"""What objects show of themselves, and the short ways to them."""

import numpy as np
import pytest
import torch

import berg
from berg.core.exceptions import StimulusError
from berg.core.model_registry import get_card

V1, EAR = "fmri-szinte2024-prf_css", "ephys-rokem2006-ln_renewal"


@pytest.fixture(scope="module")
def model():
    return berg.load(V1, selection={"min_held_out_r2": 0.5}, device="cpu")


def test_a_model_says_what_it_is(model):
    n_voxels = model(np.zeros((1, 3, 320, 320), np.uint8)).shape[1]
    told = repr(model)
    r = berg.BERG().accuracy(V1, {"min_held_out_r2": 0.5})["held_out_r"]
    parts = [V1, "subject=1", "min_held_out_r2=0.5", f"voxel {n_voxels:,}", f"V1 {n_voxels:,}", "BOLD amplitude"]
    for part in [*parts, f"median held_out_r {float(r.median()):.2f}", "cpu, float32", "loaded", "MIT"]:
        assert part in told
    assert model._repr_html_().count("<tr>") == 1 + len(told.splitlines()) - 1


def test_a_model_that_is_called_generates_the_same_responses(model):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 320, 320)).astype("uint8")
    np.testing.assert_array_equal(model(pictures, batch_size=1), model.generate_response(pictures, batch_size=1))


def test_the_units_are_the_columns_in_their_order(model):
    metadata = model.get_metadata()
    units = model.units
    assert units["held_out_r2"].min() >= 0.5
    chosen = np.flatnonzero(np.asarray(metadata["encoding_models"]["held_out_r2"]) >= 0.5)
    np.testing.assert_allclose(units["x_deg"], np.asarray(metadata["fmri"]["x_deg"])[chosen], rtol=1e-6)


def test_units_of_a_model_in_time_have_no_row_per_moment():
    units = berg.load(EAR, device="cpu").units
    assert units["unit"].tolist() == ["receptor-01"]
    assert "time" not in units


def test_predict_of_an_array_says_what_to_give(model):
    with pytest.raises(StimulusError, match=r"got float64 array of shape \(1, 3, 8, 8\).*torch\.as_tensor\(stimulus"):
        model.predict(np.zeros((1, 3, 8, 8)))
    assert isinstance(model.predict(torch.as_tensor(np.zeros((1, 3, 320, 320)), dtype=torch.float32)), torch.Tensor)


def test_a_card_and_berg_show_themselves(tmp_path):
    card = get_card(V1)
    assert V1 in repr(card)
    assert str(card).startswith(f"{V1}\n---")
    assert "<h4>Limitations</h4>" in card._repr_html_()
    here = berg.BERG(tmp_path)
    assert (
        repr(here)
        == f"<BERG in {tmp_path}: {len(here.list_models())} models, {len(here.list_models(here=True))} usable here>"
    )
    assert "<td>to download</td>" in here._repr_html_()


def test_found_models_are_a_table(tmp_path):
    found = berg.BERG(tmp_path).find_models(dataset="rokem2006")
    assert repr(found).splitlines()[1].split() == [EAR, "1", "1", "0.644", "held_out_r"]
    assert f"<td>{EAR}</td>" in found._repr_html_()
    assert found.to_dataframe()["model_id"].tolist() == [EAR]
    assert repr(berg.BERG(tmp_path).find_models(species="unicorn")) == "no models"


@pytest.mark.parametrize(
    ("pattern", "filters", "expected"),
    [
        ("*PRF*", {}, [V1]),
        ("*", {"modality": "ephys"}, [EAR]),
        ("*", {"here": True}, [EAR, V1]),
        ("fmri-*", {"stimuli": "sounds"}, []),
    ],
)
def test_models_are_listed_by_pattern_and_words(pattern, filters, expected, tmp_path):
    found = berg.list_models(pattern, berg_dir=tmp_path, **filters)
    assert [model_id for model_id in found if model_id in (V1, EAR)] == expected  # other tests register more


def test_the_public_names_are_offered():
    assert {"BERG", "load", "list_models", "load_images", "__version__"} <= {*dir(berg)}
