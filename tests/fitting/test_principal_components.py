import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from berg.core.exceptions import CorruptedFileError, InvalidParameterError
from berg.fitting import principal_components as components
from berg.fitting.principal_components import Components, principal_components

CPU = torch.device("cpu")
SHAPES = {"more features than stimuli": (40, 700), "more stimuli than features": (300, 60), "as many": (50, 50)}


def correlated(n_stimuli, n_features, seed=0, rank=30):
    """Features with a falling spectrum, offsets and scales of their own."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n_stimuli, rank)) * 0.8 ** np.arange(rank) @ rng.standard_normal((rank, n_features))
    features = 5 * rng.standard_normal(n_features) + rng.uniform(0.1, 10, n_features) * common
    return (features + 0.05 * rng.standard_normal(features.shape)).astype(np.float32)


def all_components(found, features, **options):
    return np.concatenate([part for _, part in found.blocks(features, **options)], axis=1)


def by_sklearn(features, n_components):
    """In float64, by a full singular value decomposition."""
    scaler = StandardScaler().fit(features.astype(np.float64))
    pca = PCA(n_components, svd_solver="full")
    scores = pca.fit_transform(scaler.transform(features.astype(np.float64)))
    return scaler, pca, scores


@pytest.mark.parametrize("shape", SHAPES)
def test_scaler_components_and_scores_are_those_of_scikit_learn(shape):
    features = correlated(*SHAPES[shape])
    scaler, pca, scores = by_sklearn(features, 12)
    found = principal_components(features, 12, block=17)
    signs = np.sign((found.scores * scores).sum(0))
    np.testing.assert_allclose(found.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.scale, scaler.scale_, rtol=1e-12)
    np.testing.assert_allclose(found.variances, pca.explained_variance_, rtol=1e-9)
    assert found.explained == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-9)
    np.testing.assert_allclose(found.scores * signs, scores, atol=1e-8)
    np.testing.assert_allclose(
        all_components(found, features, block=23), pca.components_ * signs[:, None], atol=1e-5 * pca.components_.max()
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_number_all_components_come(shape):
    features = correlated(*SHAPES[shape])
    found = principal_components(features)
    n_stimuli, n_features = SHAPES[shape]
    assert found.scores.shape == (n_stimuli, min(n_stimuli - 1, n_features))
    assert found.explained == pytest.approx(1, abs=1e-12)
    standardized = StandardScaler().fit_transform(features.astype(np.float64))
    np.testing.assert_allclose(found.scores @ all_components(found, features), standardized, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_features_that_do_not_vary_have_scale_one(shape):
    features = correlated(*SHAPES[shape])
    features[:, 3] = 0
    features[:, 7] = np.float32(1234.567)  # whose mean in floating point is not the number itself
    scaler, pca, _ = by_sklearn(features, 5)
    found = principal_components(features, 5)
    assert found.scale[3] == found.scale[7] == 1
    np.testing.assert_allclose(found.scale, scaler.scale_, rtol=1e-12)
    np.testing.assert_allclose(found.variances, pca.explained_variance_, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_score_of_each_component_is_positive(shape):
    scores = principal_components(correlated(*SHAPES[shape]), 6).scores
    assert (scores[np.abs(scores).argmax(0), range(6)] > 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_some_columns_are_decomposed_as_if_alone(shape):
    features = correlated(*SHAPES[shape])
    alone = principal_components(np.ascontiguousarray(features[:, 10:50]), 4)
    part = principal_components(features, 4, columns=slice(10, 50))
    np.testing.assert_array_equal(part.scores, alone.scores)
    expected = all_components(alone, features[:, 10:50].copy())
    np.testing.assert_array_equal(all_components(part, features, start=10), expected)


@pytest.mark.parametrize("block", [64, 1000])  # some of the columns, and all
def test_a_memory_map_gives_the_same(block, tmp_path):
    features = correlated(40, 300)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    found, expected = (principal_components(given, 4, block=block) for given in (mapped, features))
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(
        all_components(found, mapped, block=block), all_components(expected, features, block=block)
    )


def test_a_part_of_a_memory_map_gives_the_same(tmp_path):
    features = correlated(40, 300)
    np.save(tmp_path / "features.npy", features)
    part = np.load(tmp_path / "features.npy", mmap_mode="r")[5:]  # whose offset numpy takes over from the whole
    found, expected = (principal_components(given, 4, block=64) for given in (part, features[5:]))
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_memory_map_of_a_file_that_became_shorter_is_an_error(tmp_path):
    np.save(tmp_path / "features.npy", correlated(40, 300))
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    with (tmp_path / "features.npy").open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(CorruptedFileError, match="has become shorter"):
        principal_components(mapped, 4, block=64)


class Broken(Exception):
    pass


@pytest.mark.parametrize("shape", SHAPES)
def test_an_interrupted_call_goes_on_to_the_same_bits(shape, tmp_path, monkeypatch):
    features = correlated(*SHAPES[shape])
    whole = principal_components(features, 5, block=20)
    monkeypatch.setattr(components, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    options = {"block": 20, "checkpoint": tmp_path / "sums.npz", "identity": "these"}
    n_products = []

    def break_off(n):
        n_products.append(n)
        if len(n_products) == 2:
            raise Broken

    with pytest.raises(Broken):
        principal_components(features, 5, advance=break_off, **options)
    real, added = components._add_products, []
    monkeypatch.setattr(components, "_add_products", lambda *given, **more: (added.append(1), real(*given, **more)))
    again = principal_components(features, 5, **options)
    n_blocks = -(-SHAPES[shape][0 if shape == "more stimuli than features" else 1] // 20)
    assert len(added) == n_blocks - 2
    for name in ("mean", "scale", "scores", "basis", "variances"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


def test_a_checkpoint_of_other_features_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(components, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    path = tmp_path / "sums.npz"
    principal_components(correlated(40, 300, seed=1), 4, block=64, checkpoint=path, identity="those")
    features = correlated(40, 300)
    found = principal_components(features, 4, block=64, checkpoint=path, identity="these")
    np.testing.assert_array_equal(found.scores, principal_components(features, 4, block=64).scores)


def test_progress_counts_every_column_once():
    for shape in SHAPES.values():
        counted = []
        principal_components(correlated(*shape), 4, block=13, advance=counted.append)
        assert sum(counted) == shape[1]


def test_more_components_than_there_are_name_the_number_that_there_is():
    with pytest.raises(InvalidParameterError, match=r"40 training stimuli have 39 .* 50 were asked for.*pca: 39"):
        principal_components(correlated(40, 700), 50)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_named(shape, value):
    features = correlated(*shape).astype(np.float32)
    features[3, 17] = value
    with pytest.raises(
        InvalidParameterError, match=r"1 of the features 16 to \d+ are NaN or infinite.*\(17\).*float32"
    ):
        principal_components(features, 3, block=16)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_features_that_do_not_vary_at_all_have_no_components(shape):
    with pytest.raises(InvalidParameterError, match=r"No feature varies over the .* training stimuli.*the same"):
        principal_components(np.full(shape, 0.1, np.float32), 3)


def test_stimuli_that_are_there_twice_give_no_components():
    features = np.repeat(correlated(20, 100), 2, axis=0)
    assert principal_components(features).scores.shape == (40, 19)


def test_what_was_written_is_read_again(tmp_path):
    found = principal_components(correlated(40, 300), 4)
    found.write(tmp_path / "components.safetensors")
    again = Components.read(tmp_path / "components.safetensors")
    assert again.total_variance == found.total_variance
    for name in ("mean", "scale", "scores", "basis", "variances"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
