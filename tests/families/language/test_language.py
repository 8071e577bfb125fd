"""The published models of language, beside a second computation in float64 on random networks of the same classes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import language
from published.compare import assert_near
from published.language import LEBEL, TUCKUTE, ZADA

from berg import BERG
from berg.core.exceptions import (
    CorruptedFileError,
    InvalidParameterError,
    MissingFileError,
    ModelNotLoadedError,
    StimulusError,
    StoreMismatchError,
    UnsafeFileError,
)
from berg.stimuli.texts import Words

SENTENCES = ["So it began in the woods", "The dog slept.", "where the river ran", "a"]
WORDS = "so it began in the dark woods where children's dogs slept and ran".split()  # noqa: SIM905
ONSETS = np.array([0.3, 0.5, 0.9, 1.1, 1.2, 1.8, 2.6, 4.0, 4.1, 4.9, 5.5, 9.2, 9.3])
STORY = {"words": ["", *WORDS[:4], "'s", *WORDS[4:], " "], "word_onsets": [0.1, *ONSETS[:4], 1.15, *ONSETS[4:], 10.0]}


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("networks")
    return {kind: language.write_language_model(home / kind, kind) for kind in ("gpt2", "opt")}


@pytest.fixture(scope="module")
def text_dir(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("berg"), np.random.default_rng(0)
    language.write_tuckute(folder, rng)
    language.write_lebel(folder, "UTS01", rng)
    language.write_lebel(folder, "UTS02", rng)
    language.write_zada(folder, "03", rng)
    return folder


@pytest.fixture(scope="module")
def features(networks) -> dict[str, Any]:
    """The features of the stimuli above, by loops."""
    vectors = language.growing_context_features(networks["opt"], STORY["words"], 18)
    return {
        TUCKUTE: language.last_token_features(networks["gpt2"], SENTENCES, 22),
        ZADA: language.padded_window_features(networks["gpt2"], WORDS, 24),
        LEBEL: language.lebel_design(vectors, STORY["word_onsets"]),
    }


@pytest.fixture
def load(networks, text_dir) -> Any:
    def load(model_id: str, berg_dir: Path = text_dir, **options: Any) -> Any:
        given = {LEBEL: {"subject": "UTS01"}, ZADA: {"subject": "03"}}.get(model_id, {})
        network = networks["opt" if model_id == LEBEL else "gpt2"]
        chosen = {"device": "cpu", "language_model": str(network), **given, **options}
        return BERG(berg_dir).get_encoding_model(model_id, **chosen)

    return load


def path_of(berg_dir: Path, model_id: str, subject: str = "") -> Path:
    names = {TUCKUTE: language.TUCKUTE_FILE, LEBEL: f"weights_{subject}.npy", ZADA: f"weights_sub-{subject}.npy"}
    return language.model_folder(berg_dir, model_id) / "encoding_models_weights" / names[model_id]


def tuckute_truth(berg_dir: Path, features: Any) -> Any:
    mapping = pickle.loads(path_of(berg_dir, TUCKUTE).read_bytes())  # noqa: S301 what this file wrote
    return mapping["clf"].predict(features)


def test_sentences_give_the_regions_what_scikit_learn_predicts(load, text_dir, features):
    model = load(TUCKUTE)
    responses = BERG().encode(model, SENTENCES, labelled=True)
    assert_near(responses["fmri"].values, tuckute_truth(text_dir, features[TUCKUTE]))
    assert responses["roi"].values.tolist() == language.TUCKUTE_ROIS  # the order of the file, not of the metadata
    assert responses["stimulus"].values.tolist() == SENTENCES
    ceiling = dict(zip(sorted(language.TUCKUTE_ROIS), np.linspace(0.3, 0.6, 6), strict=True))
    assert responses["noise_ceiling"].values.tolist() == [ceiling[name] for name in language.TUCKUTE_ROIS]
    assert len(responses.attrs["language_model_sha256"]) == 64


def test_words_give_every_electrode_and_lag(load, text_dir, features):
    responses = BERG().encode(load(ZADA), WORDS, labelled=True)
    assert_near(responses["ecog"].values, language.zada_responses(path_of(text_dir, ZADA, "03"), features[ZADA]))
    assert responses["channel"].values.tolist() == ["G0", "G1", "G2"]
    assert (responses["time"].values[[0, 64, -1]] == [-2, 0, 2]).all()
    metadata = BERG(text_dir).get_model_metadata(ZADA, subject="03")["ecog"]
    np.testing.assert_array_equal(responses["mni_z"], metadata["ch_coords"][:, 2])


def test_a_story_gives_volumes(load, text_dir, features):
    responses = BERG().encode(load(LEBEL), STORY, labelled=True)
    weights = np.load(path_of(text_dir, LEBEL, "UTS01"), allow_pickle=True).item()["ridge_weights"]
    assert_near(responses["fmri"].values, features[LEBEL] @ weights.astype(float))
    first, last = STORY["word_onsets"][0], STORY["word_onsets"][-1]
    assert len(responses["stimulus"]) == np.ceil((last + 8 - first) / 2)
    np.testing.assert_allclose(responses["stimulus"], first + 2 * np.arange(len(responses["stimulus"])))


@pytest.mark.parametrize("model_id", [TUCKUTE, ZADA, LEBEL])
def test_all_ways_give_the_same_and_a_store_goes_on(model_id, load, tmp_path):
    model, given = load(model_id), {TUCKUTE: SENTENCES, ZADA: WORDS, LEBEL: STORY}[model_id]
    whole = BERG().encode(model, given)
    one_by_one = model(given, batch_size=1)
    np.testing.assert_allclose(one_by_one, whole, atol=1e-5 * whole.std())
    out = np.empty_like(whole)
    assert model(given, out=out) is out
    np.testing.assert_array_equal(out, whole)
    store = tmp_path / "responses.zarr"
    for _ in range(2):  # the second time nothing is left
        stored = BERG().encode(model, given, out=store, show_progress=False)
        (array,) = stored.data_vars.values()
        np.testing.assert_allclose(array.values, whole, atol=1e-6)
    labelled = BERG().encode(model, given, labelled=True)
    assert stored["stimulus"].values.tolist() == labelled["stimulus"].values.tolist()
    changed = {TUCKUTE: [*SENTENCES[:-1], "b"], ZADA: [*WORDS[:-1], "run"]}.get(model_id)
    changed = changed or {**STORY, "words": ["x", *STORY["words"][1:]]}
    with pytest.raises(StoreMismatchError, match=r"something else|other stimuli"):
        BERG().encode(model, changed, out=store, show_progress=False)


def test_models_of_two_subjects_share_the_features(load, text_dir):
    models = [load(LEBEL, subject=subject) for subject in ("UTS01", "UTS02")]
    assert models[0].features is models[1].features
    together = BERG().encode(models, STORY)
    np.testing.assert_allclose(together[1], models[1](STORY), atol=1e-6)
    with pytest.raises(InvalidParameterError, match="different stimuli"):
        BERG().encode([models[0], load(ZADA)], STORY)


@pytest.mark.parametrize(
    ("model_id", "selection", "columns"),
    [
        (TUCKUTE, {"roi": ["lang_LH_netw", "lang_LH_IFG"]}, [5, 1]),
        (TUCKUTE, {"roi": "lang_LH_MFG"}, [2]),
        (ZADA, {"electrode_index": [1, 0, 1]}, [0, 2]),
        (LEBEL, {"voxel_index": np.arange(40) % 13 == 1}, [1, 14, 27]),
    ],
)
def test_a_selection_is_columns_of_all(model_id, selection, columns, load):
    given = {TUCKUTE: SENTENCES, ZADA: WORDS, LEBEL: STORY}[model_id]
    whole, chosen = load(model_id)(given), load(model_id, selection=selection)(given)
    np.testing.assert_allclose(chosen, np.take(whole, columns, axis=1), atol=1e-6)


def test_regions_and_voxels_are_united_in_ascending_order(load, text_dir):
    rois = BERG(text_dir).get_model_metadata(LEBEL, subject="UTS01")["roi"]
    mask = np.zeros(40, int)
    mask[[3, 39]] = 1
    model = load(LEBEL, selection={"roi": ["pSTS", "IPS "], "voxel_index": mask})
    wanted = np.flatnonzero(rois["pSTS"] | rois["IPS "] | mask.astype(bool))
    np.testing.assert_array_equal(model.indices_of("fmri", "voxel"), wanted)
    np.testing.assert_allclose(model(STORY), load(LEBEL)(STORY)[:, wanted], atol=1e-6)


def test_lags_are_selected_by_number_and_by_time(load):
    whole = load(ZADA)(WORDS)
    lags = np.zeros(129, int)
    lags[64:81] = 1
    for selection in ({"lags": lags}, {"time": [0.0, 0.5]}):
        np.testing.assert_allclose(load(ZADA, selection=selection)(WORDS), whole[:, :, 64:81], atol=1e-6)


@pytest.mark.parametrize("model_id", [TUCKUTE, ZADA, LEBEL])
def test_converted_weights_give_the_same(model_id, load, networks, tmp_path):
    rng = np.random.default_rng(3)
    write = {TUCKUTE: language.write_tuckute, LEBEL: language.write_lebel, ZADA: language.write_zada}[model_id]
    subject = {LEBEL: {"subject": "UTS01"}, ZADA: {"subject": "03"}}.get(model_id, {})
    write(tmp_path, *subject.values(), rng)
    given = {TUCKUTE: SENTENCES[:2], ZADA: WORDS[:2], LEBEL: STORY}[model_id]
    before = load(model_id, tmp_path)(given)
    (path,) = BERG(tmp_path).convert(model_id, **subject)
    assert path.suffix == ".safetensors"
    model = load(model_id, tmp_path)
    np.testing.assert_allclose(model(given), before, atol=1e-6)
    if model_id == TUCKUTE:
        assert model.metadata["fmri"]["rois"] == language.TUCKUTE_ROIS


def test_weights_of_a_pickle_with_code_are_not_read(load, tmp_path):
    class Code:
        def __reduce__(self) -> Any:
            return os.system, ("true",)

    language.write_tuckute(tmp_path, np.random.default_rng(0), X_scaler=Code())
    with pytest.raises(UnsafeFileError, match=r"system.*nothing of it was run"):
        load(TUCKUTE, tmp_path)


@pytest.mark.parametrize(
    ("model_id", "change", "words"),
    [
        (ZADA, lambda w: w.pop("scaler_X_param"), r"weights_sub-03.npy has no array .* 'scaler_X_param.mean_'"),
        (ZADA, lambda w: w["scaler_Y_param"].update(scale_=np.zeros(387)), r"values at 'scaler_Y_param.scale_'"),
        (ZADA, lambda w: w["shape"].update(n_lags=128), r"electrodes and lags \[3, 128\] at 'shape'"),
        (ZADA, lambda w: w["ridge_param"].update(coef_=np.ones((387, 32))), r"'ridge_param.intercept_' has shape"),
        (ZADA, lambda w: w["ridge_param"].update(coef_=np.full((32, 387), np.nan)), "NaN or infinite .* regression"),
        (ZADA, lambda w: w["ridge_param"].update(intercept_=np.full(387, np.inf)), "NaN or infinite .* intercept"),
        (LEBEL, lambda w: w.update(ridge_weights=np.ones((100, 40))), r"fitted to 100 features; .* gives 128"),
        (LEBEL, lambda w: w.update(ridge_weights=np.ones((128, 39))), r"has 39 units; the metadata have 40"),
        (LEBEL, lambda w: w.update(ridge_weights=[1.0]), r"no array of 2 axes at 'ridge_weights'"),
    ],
)
def test_damaged_weights_are_named(model_id, change, words, load, tmp_path):
    subject = {LEBEL: "UTS01", ZADA: "03"}[model_id]
    path = {LEBEL: language.write_lebel, ZADA: language.write_zada}[model_id](
        tmp_path, subject, np.random.default_rng(0)
    )
    weights = np.load(path, allow_pickle=True).item()
    change(weights)
    language.write_pickled_npy(path, weights)
    with pytest.raises(CorruptedFileError, match=words):
        load(model_id, tmp_path)


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"neuroid_order": ["a"] * 6}, "names a unit twice"),
        ({"neuroid_order": language.TUCKUTE_ROIS[:5]}, "names 5 units .* has 6"),
        ({"neuroid_order": None}, "no list of names at 'neuroid_order'"),
        ({"neuroid_order": list("abcdef")}, "not those of"),
        ({"clf": {"coef_": np.ones((6, 32))}}, "no array of 1 axes at 'clf.intercept_'"),
    ],
)
def test_damaged_mappings_are_named(replaced, words, load, tmp_path):
    language.write_tuckute(tmp_path, np.random.default_rng(0), **replaced)
    with pytest.raises(CorruptedFileError, match=words):
        load(TUCKUTE, tmp_path)


def test_a_truncated_file_is_named(load, tmp_path):
    path = language.write_tuckute(tmp_path, np.random.default_rng(0))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CorruptedFileError, match="cannot be read"):
        load(TUCKUTE, tmp_path)


@pytest.mark.parametrize(
    ("model_id", "given", "words"),
    [
        (TUCKUTE, "one sentence", r"One text was given.*give a list, such as \[text\]"),
        (TUCKUTE, [], "No text was given"),
        (TUCKUTE, ["a", " "], r"Sentence 1 \(from 0\) is empty"),
        (TUCKUTE, np.array([["a"]]), r"one axis, this one has shape \(1, 1\)"),
        (TUCKUTE, STORY, "takes sentences, not dict"),
        (TUCKUTE, np.ones((2, 3, 8, 8), "uint8"), "one axis"),
        (TUCKUTE, Words(["a"]), "takes sentences, not Words"),
        (ZADA, ["a", ""], r"Word 1 \(from 0\) is empty"),
        (LEBEL, WORDS, "have no onsets"),
        (LEBEL, {"words": ["a"], "onsets": [1]}, "has the key 'onsets'.*word_onsets"),
        (LEBEL, {"words": ["a", "b"], "word_onsets": [1]}, "2 words and onsets of shape"),
    ],
)
def test_what_is_no_such_text_is_refused(model_id, given, words, load):
    with pytest.raises(StimulusError, match=words):
        load(model_id)(given)


def test_a_text_cannot_be_differentiated(load):
    import torch

    with pytest.raises(StimulusError, match="a text is none"):
        load(TUCKUTE).predict(torch.zeros(1))


def test_a_model_that_is_not_loaded_and_a_network_that_is_not_there_say_so(load, text_dir, tmp_path, monkeypatch):
    model = load(TUCKUTE)
    model.cleanup()
    with pytest.raises(ModelNotLoadedError, match="load_model"):
        model(SENTENCES)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingFileError, match=r"hf download openai-community/gpt2-xl .*language_model=FOLDER"):
        BERG(text_dir).get_encoding_model(TUCKUTE, device="cpu")


def test_the_folder_of_lebel_is_that_of_the_publication(text_dir):
    assert path_of(text_dir, LEBEL, "UTS01").parents[1].name == "model-opt_1_3b_ridge"
    files = BERG(text_dir).files_of(LEBEL, subject="UTS01")
    assert files == ["encoding_models_weights/weights_UTS01.npy", "metadata/metadata_UTS01.npy"]
