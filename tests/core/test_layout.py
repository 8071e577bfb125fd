from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berg.core.exceptions import InvalidParameterError
from berg.core.layout import ACCURACY, METADATA, PUBLISHED_NAME, WEIGHTS, ModelId


@pytest.mark.parametrize(
    ("model_id", "parts"),
    [
        ("fmri-nsd-fwrf", ("fmri", "nsd", "fwrf")),
        ("fmri-nsd_fsaverage-huze", ("fmri", "nsd_fsaverage", "huze")),
        ("eeg-things_eeg_2-vit_b_32", ("eeg", "things_eeg_2", "vit_b_32")),
        ("ephys-tvsd-alexnet-conv5", ("ephys", "tvsd", "alexnet-conv5")),
        ("meg-B2.1-v1.0", ("meg", "B2.1", "v1.0")),
    ],
)
def test_an_id_has_three_parts(model_id, parts):
    parsed = ModelId.parse(model_id)
    assert (parsed.modality, parsed.dataset, parsed.model) == parts


@pytest.mark.parametrize(
    ("model_id", "words"),
    [
        (
            "fwrf",
            "'fwrf' is not a model id: it has 1 of the 3 parts {modality}-{dataset}-{model}, for example fmri-nsd-",
        ),
        ("fmri-nsd", "it has 2 of the 3 parts"),
        ("", "it has 1 of the 3 parts"),
        ("FMRI-nsd-fwrf", "its modality 'FMRI' does not match"),
        ("fmri--fwrf", "its training dataset '' does not match"),
        ("fmri-nsd-", "its model '' does not match"),
        ("fmri-nsd-a--b", "its model 'a--b' does not match"),
        ("fmri-..-fwrf", r"its training dataset '\.\.' does not match"),
        ("fmri-nsd-../../etc", r"its model '\.\./\.\./etc' does not match"),
        ("fmri-nsd-a/b", "its model 'a/b'"),
        ("fmri-nsd-a\\b", "its model"),
        ("fmri-nsd-fwrf\n", "its model"),
        ("fmri-nsd-fwrf ", "its model 'fwrf '"),
        ("fmri-nsd-f\0", "its model"),
        ("fmri-nsd-fürf", "its model"),
    ],
)
def test_what_is_no_id_is_refused_with_the_part(model_id, words):
    with pytest.raises(InvalidParameterError, match=words):
        ModelId.parse(model_id)


def test_the_folder_is_the_published_one():
    # The guide: encoding_models/modality-{modality}/train_dataset-{dataset}/model-{model}
    assert ModelId.parse("fmri-nsd-fwrf").folder("/data/berg") == Path(
        "/data/berg/encoding_models/modality-fmri/train_dataset-nsd/model-fwrf"
    )
    assert (PUBLISHED_NAME, WEIGHTS, ACCURACY, METADATA) == (
        "brain-encoding-response-generator",
        "encoding_models_weights",
        "encoding_models_accuracy",
        "metadata",
    )


@given(st.text(max_size=20) | st.lists(st.text("aZ0_.-/\\ \0~", max_size=5), min_size=3, max_size=4).map("-".join))
def test_no_id_leads_out_of_the_directory(model_id):
    try:
        folder = ModelId.parse(model_id).folder("/data/berg")
    except InvalidParameterError:
        return
    inside = folder.resolve().relative_to("/data/berg/encoding_models").parts
    assert len(inside) == 3
