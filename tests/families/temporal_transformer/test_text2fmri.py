"""fmri-cneuromod_algo2025-text2fmri from its published files, against the sheet's equations in float64."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from published import text2fmri
from published.text2fmri import LANGUAGE, SECOND, SECOND_LANGUAGE, TEXT2FMRI, VARIANT

from berg import BERG
from berg.core import model_registry
from berg.core.exceptions import (
    CorruptedFileError,
    InvalidParameterError,
    MissingFileError,
    StimulusWarning,
    UnsafeFileError,
)
from berg.responses.labelled import label_responses
from berg.weights.availability import availability

TEXTS = ["In the end", "", "a cat, the dog.", "", "", "Über all\nthe rest", "then.", "no", "the", "of it in time"]


@pytest.fixture(scope="module")
def text_dir(tmp_path_factory):
    berg_dir = tmp_path_factory.mktemp("text2fmri")
    text2fmri.write_text2fmri(berg_dir, np.random.default_rng(0))
    text2fmri.write_text2fmri(berg_dir, np.random.default_rng(1), SECOND, SECOND_LANGUAGE, 48)
    return berg_dir


@pytest.fixture
def own_dir(text_dir, tmp_path):
    """A copy, to damage."""
    shutil.copytree(text_dir, tmp_path / "own")
    return tmp_path / "own"


def load(berg_dir, subject=1, selection=None, **parameters):
    return BERG(berg_dir).get_encoding_model(
        TEXT2FMRI, subject=subject, selection=selection, device="cpu", **parameters
    )


def files_of(berg_dir, repository) -> Path:
    folder = text2fmri.layouts.model_folder(berg_dir, TEXT2FMRI) / "encoding_models_weights"
    return next((folder / f"models--{repository.replace('/', '--')}" / "snapshots").iterdir())


def expected(berg_dir, texts, subject, variant=VARIANT, language=LANGUAGE):
    features = text2fmri.expected_features(files_of(berg_dir, language), texts)
    return text2fmri.expected_responses(files_of(berg_dir, variant) / "model.pt", features, subject)


@pytest.mark.parametrize("subject", [1, 5])
def test_the_numbers_are_those_of_the_sheet(text_dir, subject):
    found = BERG(text_dir).encode(load(text_dir, subject), TEXTS)
    reference = expected(text_dir, TEXTS, subject)
    assert found.dtype == np.float32
    assert found.shape == reference.shape == (10, text2fmri.N_PARCELS)
    np.testing.assert_allclose(found, reference, atol=1e-4 * reference.std())


def test_the_language_model_computes_in_float32_if_asked(text_dir):
    model = load(text_dir, language_precision="float32")
    features = text2fmri.expected_features(files_of(text_dir, LANGUAGE), TEXTS, torch.float32)
    reference = text2fmri.expected_responses(files_of(text_dir, VARIANT) / "model.pt", features, 1)
    np.testing.assert_allclose(BERG(text_dir).encode(model, TEXTS), reference, atol=1e-4 * reference.std())


def test_a_variant_with_another_language_model_loads_that_model(text_dir):
    model = load(text_dir, model_variant=SECOND)
    found = BERG(text_dir).encode(model, TEXTS)
    reference = expected(text_dir, TEXTS, 1, SECOND, SECOND_LANGUAGE)
    np.testing.assert_allclose(found, reference, atol=1e-4 * reference.std())
    told = model.attributes()
    assert told["language_model"] == SECOND_LANGUAGE
    assert told["language_model_revision"] == told["variant_revision"] == "0123abcd"


def test_parts_of_a_text_in_batches_are_those_of_the_whole(text_dir):
    model = load(text_dir)
    whole = BERG(text_dir).encode(model, TEXTS)
    np.testing.assert_allclose(BERG(text_dir).encode(model, TEXTS, batch_size=3), whole, atol=1e-6)
    other = BERG(text_dir).encode(model, TEXTS[::-1])
    assert np.abs(other[::-1] - whole).max() > 0.01
    np.testing.assert_array_equal(BERG(text_dir).encode(model, TEXTS), whole)


def test_low_memory_gives_the_same_numbers(text_dir):
    whole = BERG(text_dir).encode(load(text_dir), TEXTS)
    np.testing.assert_array_equal(BERG(text_dir).encode(load(text_dir, low_mem_use=True), TEXTS), whole)


def test_networks_and_indices_are_united_in_the_order_of_the_atlas(text_dir):
    whole = BERG(text_dir).encode(load(text_dir), TEXTS)
    mask = np.zeros(text2fmri.N_PARCELS, int)
    mask[[0, 19]] = 1
    model = load(text_dir, selection={"roi": ["Default", "SomMot"], "voxel_index": mask})
    labels = label_responses(*BERG(text_dir).encode(model, TEXTS, return_metadata=True))["fmri"]
    chosen = labels["parcel"].values - 1
    assert chosen.tolist() == [0, 2, 9, 12, 19]
    np.testing.assert_allclose(labels.values, whole[:, chosen], atol=1e-6)
    assert labels["roi"].values.tolist() == ["Vis", "SomMot", "Default", "SomMot", "Default"]
    assert labels["hemisphere"].values.tolist() == ["lh", "lh", "lh", "rh", "rh"]


def test_one_volume_and_one_parcel_keep_their_axes(text_dir):
    mask = np.zeros(text2fmri.N_PARCELS, int)
    mask[3] = 1
    assert BERG(text_dir).encode(load(text_dir, selection={"voxel_index": mask}), ["one"]).shape == (1, 1)


def test_text_behind_the_last_token_counts_as_silence_and_is_told(text_dir):
    texts = [f"{number} volumes in the cat" for number in range(30)]
    with pytest.warns(StimulusWarning, match=r"takes 200: TRs from \d+ on \(from 0\) get features of zero"):
        found = BERG(text_dir).encode(load(text_dir), texts)
    reference = expected(text_dir, texts, 1)
    np.testing.assert_allclose(found, reference, atol=1e-4 * reference.std())


def test_the_revision_that_refs_name_is_used(own_dir):
    before = BERG(own_dir).encode(load(own_dir), TEXTS)
    snapshot = files_of(own_dir, VARIANT)
    other = text2fmri.new_snapshot(snapshot.parents[2], VARIANT, "ffff")
    shutil.copy(snapshot / "config.json", other)
    weights = torch.load(snapshot / "model.pt")
    torch.save(weights | {"out_bias.weight": weights["out_bias.weight"] + 1}, other / "model.pt")
    model = load(own_dir)
    np.testing.assert_allclose(BERG(own_dir).encode(model, TEXTS), before + 1, atol=1e-4)
    assert model.attributes()["variant_revision"] == "ffff"
    (snapshot.parents[1] / "refs" / "main").unlink()
    with pytest.raises(InvalidParameterError, match=r"holds 2 revisions \(0123abcd, ffff\)"):
        load(own_dir)


def test_a_variant_that_is_not_here_is_named_with_those_that_are(text_dir):
    with pytest.raises(InvalidParameterError, match=r"'ShreyDixit/other' is not in .*Qwen-2.5-0.5B.*hf download"):
        load(text_dir, model_variant="ShreyDixit/other")


def test_a_language_model_that_is_not_here_is_named(own_dir, monkeypatch):
    shutil.rmtree(files_of(own_dir, LANGUAGE).parents[1])
    with pytest.raises(MissingFileError, match=r"Qwen/Qwen2.5-0.5B is neither .* hf download Qwen/Qwen2.5-0.5B"):
        load(own_dir)


def change_configuration(folder, **changed):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"transformer_dim": 32}, r"'inp.weight' in .* its configuration says \(32, 40\)"),
        ({"num_transformer_layers": 3}, "has 4 blocks; its configuration says 3 layers"),
        ({"num_transformer_heads": 5}, "5 heads do not divide"),
        ({"num_transformer_heads": "8"}, "'num_transformer_heads' is '8'"),
        ({"extractor_LLM_dtype": "int4"}, "'int4'; float16, bfloat16, float32 are known"),
        ({"num_subjects": 3}, "'subj_emb.weight'"),
        ({"extractor_LLM": SECOND_LANGUAGE}, "states of Qwen/Qwen2.5-3B have 32 values; .* have 48"),
        ({"extractor_LLM_num_last_hidden_states": 9}, "averages 9 hidden states; .* has 6 blocks"),
    ],
)
def test_a_configuration_that_is_not_that_of_the_weights_is_refused(own_dir, changed, words):
    change_configuration(files_of(own_dir, VARIANT), **changed)
    with pytest.raises(CorruptedFileError, match=words):
        load(own_dir)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"tr": []}'])
def test_a_configuration_that_is_none_is_refused_with_its_path(own_dir, text):
    (files_of(own_dir, VARIANT) / "config.json").write_text(text)
    with pytest.raises(CorruptedFileError, match=r"config\.json"):
        load(own_dir)
    (files_of(own_dir, VARIANT) / "config.json").unlink()
    with pytest.raises(CorruptedFileError, match=r"There is no .*config\.json"):
        load(own_dir)


class Evil:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda w: w.pop("out.weight"), CorruptedFileError, "no 'out.weight'"),
        (lambda w: w.pop("encoder.layers.1.1.ff.2.bias"), CorruptedFileError, "encoder.layers.1.1.ff.2.bias"),
        (lambda w: w.update({"head.weight": torch.ones(2)}), CorruptedFileError, "'head.weight', which no model"),
        (lambda w: w["inp.bias"].fill_(float("nan")), CorruptedFileError, "'inp.bias' .* NaN"),
        (lambda w: w.update(x=Evil()), UnsafeFileError, "print"),
        (lambda w: w.update(x=[1]), CorruptedFileError, "no weights by their names"),
    ],
)
def test_hostile_weights_are_refused_by_file_and_key(own_dir, change, error, words, capsys):
    path = files_of(own_dir, VARIANT) / "model.pt"
    weights = torch.load(path)
    change(weights)
    torch.save(weights, path)
    with pytest.raises(error, match=words):
        load(own_dir)
    assert "code was run" not in capsys.readouterr().out


def test_a_truncated_file_is_refused(own_dir):
    path = files_of(own_dir, VARIANT) / "model.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CorruptedFileError, match=r"model\.pt"):
        load(own_dir)


def test_a_language_model_without_all_weights_is_refused(own_dir):
    from safetensors.torch import load_file, save_file

    path = files_of(own_dir, LANGUAGE) / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.5.mlp.up_proj.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(CorruptedFileError, match=r"lacks 1 weights, the first: .*up_proj"):
        load(own_dir)


@pytest.mark.parametrize(
    ("masks", "words"),
    [({}, "no 'roi_masks'"), ({"vis": np.ones(3), "cont": np.ones(4)}, "3, 4 parcels"), ({"vis": np.arange(5)}, "vis")],
)
def test_masks_that_are_none_are_refused(own_dir, masks, words):
    folder = text2fmri.layouts.model_folder(own_dir, TEXT2FMRI) / "metadata"
    text2fmri.layouts.write_pickled_npy(folder / "metadata.npy", {"roi_masks": masks})
    with pytest.raises(CorruptedFileError, match=words):
        load(own_dir)


def test_another_number_of_parcels_is_refused(own_dir):
    folder = text2fmri.layouts.model_folder(own_dir, TEXT2FMRI) / "metadata"
    text2fmri.layouts.write_pickled_npy(folder / "metadata.npy", {"roi_masks": {"vis": np.ones(21)}})
    with pytest.raises(CorruptedFileError, match="has 20 parcels, the metadata have 21"):
        load(own_dir)


def test_what_is_here_is_listed_and_what_lacks_is_got_from_the_hub(text_dir, tmp_path, monkeypatch):
    card = model_registry.get_card(TEXT2FMRI)
    assert availability(card, text_dir).state == "here"
    assert availability(card, tmp_path).state == "to download"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    planned = BERG(text_dir).plan_download(TEXT2FMRI, subject=1, ask=False)
    assert {item.source.url(item.path).partition("/resolve/")[2] for item in planned if item.model is None} == {
        f"main/{name}"
        for name in ("model.pt", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "config.json")
    }
    for item in planned:
        if item.model is None:
            repository = LANGUAGE if "Qwen--" in str(item.folder) else VARIANT
            item.target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(files_of(text_dir, repository) / item.path, item.target)
    metadata = text2fmri.layouts.model_folder(tmp_path, TEXT2FMRI) / "metadata"
    shutil.copytree(text2fmri.layouts.model_folder(text_dir, TEXT2FMRI) / "metadata", metadata)
    found = BERG(tmp_path).encode(load(tmp_path), TEXTS)
    np.testing.assert_array_equal(found, BERG(text_dir).encode(load(text_dir), TEXTS))


def test_a_store_and_a_file_of_lines_give_the_same(text_dir, tmp_path):
    lines = [text.replace("\n", " ") for text in TEXTS]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    berg, model = BERG(text_dir), load(text_dir)
    expected = berg.encode(model, lines)
    np.testing.assert_array_equal(berg.encode(model, tmp_path / "texts.txt"), expected)
    store = berg.encode(model, lines, out=tmp_path / "responses.zarr", show_progress=False)
    np.testing.assert_allclose(np.asarray(store["fmri"]), expected, atol=1e-6)


def test_subjects_of_one_call_share_the_language_model(text_dir):
    first, second = load(text_dir, 1), load(text_dir, 2)
    assert first.features.language is second.features.language
    alone = BERG(text_dir).encode(load(text_dir, 2), TEXTS)
    together = first.generate_together([first, second], TEXTS)
    np.testing.assert_allclose(together[1], alone, atol=1e-6)
