"""Further published models on AlexNet and ViT-B/32 against a reference in float64, on random files in their layouts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from marks import slow
from published import layouts, reference
from published.compare import assert_near

from berg import BERG
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, ModelLoadError
from berg.features import drawn_network
from berg.features.pretrained_network import network_features
from berg.weights.model_files import EarlierWeightsWarning

pytestmark = pytest.mark.xdist_group("published")

MEG, TVSD, THINGS = layouts.MEG, layouts.TVSD, layouts.THINGS_FMRI
SOME = (300, 400)
N_SENSORS, N_TIMES = len(layouts.MEG_SENSORS), 61
SPLITS = [f"single_training_split_{split}" for split in (1, 2, 3, 4)]
SUBJECTS: dict[str, Any] = {TVSD: "N", layouts.BOLD5000: "CSI1"}


def load(berg_dir: Path, model_id: str, **options: Any) -> Any:
    options = {"subject": SUBJECTS.get(model_id, 1), **options}
    return BERG(berg_dir).get_encoding_model(model_id, device="cpu", **options)


def weights_folder(berg_dir: Path, model_id: str) -> Path:
    return layouts.model_folder(berg_dir, model_id) / "encoding_models_weights"


def metadata_of(berg_dir: Path, model_id: str) -> Any:
    (path,) = (layouts.model_folder(berg_dir, model_id) / "metadata").glob("*.npy")
    return np.load(path, allow_pickle=True).item()


@pytest.fixture(scope="module")
def features(features_of: Any) -> Any:
    """Three images, and their features by ViT-B/32."""
    return features_of(SOME, "preset")


@pytest.fixture(scope="module", autouse=True)
def network_stays_in_memory(zoo_dir: Path) -> Iterator[None]:
    """A model that keeps the network, so that the other models need not read it anew."""
    model = load(zoo_dir, THINGS, selection={"voxel_index": [7]})
    yield
    model.cleanup()


def truth_of(berg_dir: Path, model_id: str, name: str, features: Any, *shape: int) -> Any:
    path = weights_folder(berg_dir, model_id) / f"{name}.npy"
    return reference.one_readout(path, features[1]).reshape(len(features[1]), *shape)


# AlexNet


@pytest.mark.parametrize("untrained", [False, True], ids=["trained", "untrained"])
def test_alexnet_gives_the_truth_on_fsaverage_and_eeg(untrained: bool, zoo_dir: Path, alexnet_features: Any) -> None:
    images, features = alexnet_features(untrained)
    name = "alexnet_untrained" if untrained else "alexnet"
    fsaverage, eeg = f"fmri-nsd_fsaverage-{name}", f"eeg-things_eeg_2-{name}"
    places = metadata_of(zoo_dir, fsaverage)["fmri"]
    truth = reference.fsaverage_responses(reference.read_weights(zoo_dir, fsaverage, 1), features)
    models = [load(zoo_dir, fsaverage, selection={"roi": ["PPA", "V1v"]}), load(zoo_dir, eeg)]
    assert models[0].features is models[1].features
    responses, eeg_responses = BERG().encode(models, images)
    for ours, theirs, hemisphere in zip(responses, truth, ("lh", "rh"), strict=True):
        rois = places[f"{hemisphere}_fsaverage_rois"]
        assert_near(ours, theirs[:, list(dict.fromkeys([*rois["PPA"], *rois["V1v"]]))])
    assert_near(eeg_responses, reference.eeg_responses(reference.read_weights(zoo_dir, eeg, 1), features))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["single", "per_repeat", "sklearn"])
def test_every_layout_of_the_pca_gives_the_truth_with_alexnet(
    layout: Any, own_zoo_dir: Path, alexnet_features: Any
) -> None:
    images, features = alexnet_features(False)
    rng, model_id = np.random.default_rng(5), "eeg-things_eeg_2-alexnet"
    statistics = layouts.alexnet_statistics(rng, features, 3)
    options = {"numpy_1": True, "newer_metadata": False, "order": "F"}
    layouts.write_eeg(own_zoo_dir, 2, rng, statistics=statistics, pca_layout=layout, model_id=model_id, **options)
    truth = reference.eeg_responses(reference.read_weights(own_zoo_dir, model_id, 2), features)
    assert_near(BERG().encode(load(own_zoo_dir, model_id, subject=2), images), truth)
    chosen = load(own_zoo_dir, model_id, subject=2, selection={"channels": ["POz", "Fp1"], "timepoints": [7, 3]})
    assert_near(BERG().encode(chosen, images), truth[:, :, [47, 0]][..., [7, 3]])


def test_the_untrained_network_is_drawn_without_touching_the_random_state() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    network = drawn_network.drawn_network("alexnet", 20200220)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(20200220)
    first = torch.nn.Conv2d(3, 64, 11).weight  # the first layer, drawn as the published package does
    assert torch.equal(network.state_dict()["features.0.weight"], first)


def test_a_torch_that_draws_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Linear(3, 3)
    expected = {"weight": ((0.1, 0.2, 0.3, 0.4), 1.0)}
    with pytest.raises(ModelLoadError, match=r"other weights with PyTorch .* Its responses would be wrong. Install"):
        drawn_network.check_fingerprint(network, expected, "a network")


@pytest.mark.parametrize(
    ("weights", "words"), [("seed-1", "no fingerprint of alexnet"), ("seed-x", "has no weights 'seed-x'")]
)
def test_a_seed_without_a_fingerprint_is_refused(weights: str, words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        network_features("torchvision/alexnet", weights, "features.2", "preset", "float32", torch.device("cpu"))


# MEG and TVSD: files of several generations and training splits


def test_all_training_splits_of_meg_give_the_truth(zoo_dir: Path, features: Any) -> None:
    truth = truth_of(zoo_dir, MEG, "weights_P1_all_training_splits", features, N_SENSORS, N_TIMES)
    responses, metadata = BERG().encode(load(zoo_dir, MEG), features[0], return_metadata=True)
    assert_near(responses, truth)
    one = BERG().encode(load(zoo_dir, MEG), features[0][:1])
    assert_near(one, truth[:1])
    held = metadata_of(zoo_dir, MEG)
    labels = metadata["responses"]["meg"]["coordinates"]
    assert labels["channel"][1].tolist() == list(layouts.MEG_SENSORS)
    assert labels["hemisphere"][1].tolist()[:2] == ["Left", "Left"]
    np.testing.assert_array_equal(labels["noise_ceiling"][1], held["encoding_model"]["noise_ceiling"].T)
    correlations = held["encoding_model"]["all_training_splits"]["correlation_results"]
    np.testing.assert_array_equal(labels["correlation"][1], correlations)


@pytest.mark.parametrize("model_id", [MEG, slow(TVSD)])
def test_single_training_splits_give_the_truth(model_id: str, zoo_dir: Path, features: Any) -> None:
    prefix, shape = ("weights_P1", (N_SENSORS, N_TIMES)) if model_id == MEG else ("weights_monkeyN", (40, 11))
    each = [truth_of(zoo_dir, model_id, f"{prefix}_{split}", features, *shape) for split in SPLITS]
    truth = np.stack(each, axis=1)
    model = load(zoo_dir, model_id, train_splits="single")
    responses, metadata = BERG().encode(model, features[0], return_metadata=True)
    assert_near(responses, truth)
    (labels,) = metadata["responses"].values()
    assert labels["axes"][:2] == ["stimulus", "repetition"]
    assert "correlation" not in labels["coordinates"]  # those in the file are of other readouts
    third = load(zoo_dir, model_id, train_splits="split3", selection={"timepoints": [2]})
    assert_near(BERG().encode(third, features[0]), each[2][..., [2]])
    held = metadata_of(zoo_dir, model_id)["encoding_model"]["single_training_split_3"]["correlation_results"]
    (labels,) = third.labels().values()
    np.testing.assert_array_equal(labels["coordinates"]["correlation"][1], held[:, [2]])


@pytest.mark.slow
def test_converted_splits_give_the_same(own_zoo_dir: Path, features: Any) -> None:
    before = BERG().encode(load(own_zoo_dir, MEG, train_splits="single"), features[0])
    written = BERG(own_zoo_dir).convert(MEG, subject=1, train_splits="single")
    assert [path.stem for path in written] == [f"weights_P1_{split}" for split in SPLITS]
    for path in weights_folder(own_zoo_dir, MEG).glob("*.npy"):
        path.unlink()
    after = BERG().encode(load(own_zoo_dir, MEG, train_splits="single"), features[0])
    np.testing.assert_allclose(after, before, atol=1e-5 * before.std())


def test_earlier_spellings_of_parameters_mean_the_same(zoo_dir: Path) -> None:
    assert load(zoo_dir, MEG, train_split="full", subject="P1").parameters["train_splits"] == "all"
    model = load(zoo_dir, MEG, train_split="split4")
    assert (model.parameters["train_splits"], model.parameters["subject"]) == ("split4", 1)
    assert load(zoo_dir, THINGS, subject="sub-01").parameters["subject"] == 1
    with pytest.raises(InvalidParameterError, match="'train_split' is the earlier name of 'train_splits'"):
        load(zoo_dir, MEG, train_split="full", train_splits="all")
    with pytest.raises(InvalidParameterError, match="Allowed: all, single"):
        load(zoo_dir, MEG, train_splits="each")


@pytest.mark.parametrize("name", ["full", "", slow("split2")], ids=str)
def test_files_of_earlier_publications_give_the_truth(
    name: str, tmp_path: Path, features: Any, statistics: Any
) -> None:
    rng = np.random.default_rng(6)
    layouts.write_meg(tmp_path, 1, rng, statistics, names=[name], older_metadata=True)
    truth = truth_of(tmp_path, MEG, f"weights_P1_{name}".removesuffix("_"), features, N_SENSORS, N_TIMES)
    model = load(tmp_path, MEG, **({"train_splits": "split2"} if name == "split2" else {}))
    assert_near(BERG().encode(model, features[0]), truth)
    held = metadata_of(tmp_path, MEG)["encoding_model"]["correlation_results"]
    if name != "split2":
        np.testing.assert_array_equal(model.labels()["meg"]["coordinates"]["correlation"][1], held)


def test_the_newest_of_several_publications_is_read_and_named(
    own_zoo_dir: Path, features: Any, statistics: Any
) -> None:
    rng, folder = np.random.default_rng(8), weights_folder(own_zoo_dir, MEG)
    layouts.write_splits(folder.parent, ["weights_P1", "weights_P1_full"], rng, statistics, N_SENSORS * N_TIMES)
    truth = truth_of(own_zoo_dir, MEG, "weights_P1_all_training_splits", features, N_SENSORS, N_TIMES)
    words = r"weights_P1_all_training_splits\.npy is read, the newest .*; weights_P1_full, weights_P1 beside it is not"
    with pytest.warns(EarlierWeightsWarning, match=words):
        model = load(own_zoo_dir, MEG)
    assert_near(BERG().encode(model, features[0]), truth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(own_zoo_dir, MEG, train_splits="single")


def test_a_split_that_is_not_there_is_named(own_zoo_dir: Path) -> None:
    (weights_folder(own_zoo_dir, MEG) / f"weights_P1_{SPLITS[2]}.npy").unlink()
    with pytest.raises(MissingFileError, match=r"single_training_split_3 .*--parameter train_splits=single"):
        load(own_zoo_dir, MEG, train_splits="single")


def test_splits_of_another_size_are_refused(own_zoo_dir: Path, statistics: Any) -> None:
    path = weights_folder(own_zoo_dir, MEG) / f"weights_P1_{SPLITS[1]}.npy"
    path.unlink()
    layouts.write_splits(path.parents[1], [path.stem], np.random.default_rng(0), statistics, 10)
    with pytest.raises(CorruptedFileError, match="do not have the same units"):
        load(own_zoo_dir, MEG, train_splits="single")


# Selections, each in the order of its own rule


def by_prefix(*prefixes: str) -> list[int]:
    return [index for index, name in enumerate(layouts.MEG_SENSORS) if name[:3] in prefixes]


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        ({"region": "Occipital"}, by_prefix("MLO", "MRO", "MZO")),
        ({"region": ["Temporal", "Central"]}, by_prefix("MLC", "MRC", "MZC", "MLT", "MRT")),
        ({"sensors": ["MZP", "MLO"]}, by_prefix("MLO", "MZP")),
        ({"sensor_index": [9, 2, 4]}, [2, 4, 9]),
        ({"sensor_index": [9, 2], "sensors": "MLO", "region": ["Occipital"]}, sorted({2, *range(3, 5), 9, 14})),
    ],
    ids=["region", "regions", "prefixes", "index", "union"],
)
def test_sensors_are_united_in_the_order_of_the_recording(
    selection: dict[str, Any], rows: list[int], zoo_dir: Path, features: Any
) -> None:
    truth = truth_of(zoo_dir, MEG, "weights_P1_all_training_splits", features, N_SENSORS, N_TIMES)
    mask = (np.arange(N_TIMES) % 2).astype(int)
    model = load(zoo_dir, MEG, selection={**selection, "timepoints": mask})
    assert_near(BERG().encode(model, features[0]), truth[:, rows][..., 1::2])


@pytest.mark.parametrize("keys", [["roi"], ["electrodes"], ["electrodes", "roi"]], ids="+".join)
def test_electrodes_are_united_in_the_order_of_the_recording(keys: list[str], zoo_dir: Path, features: Any) -> None:
    truth = truth_of(zoo_dir, TVSD, "weights_monkeyN_all_training_splits", features, 40, 11)
    areas = metadata_of(zoo_dir, TVSD)["roi"]["roi_assignments"]
    values = {"roi": ["IT", "V1"], "electrodes": [39, 5, 8]}
    expected = {"roi": np.flatnonzero(np.isin(areas, [2, 0])), "electrodes": [5, 8, 39]}
    rows = sorted({int(row) for key in keys for row in expected[key]})
    model = load(zoo_dir, TVSD, selection={key: values[key] for key in keys})
    responses, metadata = BERG().encode(model, features[0], return_metadata=True)
    assert_near(responses, truth[:, rows])
    labels = metadata["responses"]["mua"]["coordinates"]
    assert labels["roi"][1].tolist() == [["V1", "V4", "IT", ""][area] for area in areas[rows]]
    np.testing.assert_allclose(labels["time"][1], np.arange(-100, -89) / 1000)


def test_voxels_come_region_by_region_and_as_often_as_they_are_named(zoo_dir: Path, features: Any) -> None:
    truth = truth_of(zoo_dir, THINGS, "weights_sub-01", features, 120)
    rois = metadata_of(zoo_dir, THINGS)["roi"]
    mask = np.zeros(120, int)
    mask[[rois["IT"][0], 7, 3]] = 1
    selection = {"voxel_index": mask, "roi": ["IT", "V1", "IT"]}
    columns = [*rois["IT"], *rois["V1"], *rois["IT"], *np.flatnonzero(mask)]
    model = load(zoo_dir, THINGS, selection=selection)
    responses, metadata = BERG().encode(model, features[0], return_metadata=True)
    assert_near(responses, truth[:, columns])
    labels, held = metadata["responses"]["fmri"]["coordinates"], metadata_of(zoo_dir, THINGS)
    np.testing.assert_array_equal(np.stack([labels[i][1] for i in "ijk"]).T, held["fmri"]["voxel_coords"][columns])
    np.testing.assert_array_equal(labels["prf_size"][1], held["prf"]["prf_size"][columns])
    assert all("IT" in label.split(";") for label in labels["roi"][1][: len(rois["IT"])])


@pytest.mark.parametrize("options", [{"in_milliseconds": False}, slow({"section": "utah-array"})], ids=str)
def test_metadata_in_other_words_are_read_the_same(
    options: dict[str, Any], tmp_path: Path, features: Any, statistics: Any
) -> None:
    layouts.write_tvsd(tmp_path, "F", np.random.default_rng(9), statistics, names=[""], **options)
    truth = truth_of(tmp_path, TVSD, "weights_monkeyF", features, 40, 11)
    model = load(tmp_path, TVSD, subject="F")
    assert_near(BERG().encode(model, features[0]), truth)
    labels = model.labels()["mua"]
    np.testing.assert_allclose(labels["coordinates"]["time"][1], np.arange(-100, -89) / 1000)
    assert labels["attributes"]["time_step"] == pytest.approx(0.001)


def test_times_of_another_step_are_refused(own_zoo_dir: Path) -> None:
    metadata = metadata_of(own_zoo_dir, TVSD)
    metadata["utah_array"]["times"] = np.arange(11) * 5.0
    path = layouts.model_folder(own_zoo_dir, TVSD) / "metadata" / "metadata_monkeyN.npy"
    path.unlink()
    layouts.write_pickled_npy(path, metadata)
    with pytest.raises(CorruptedFileError, match=r"are 5 to 5 apart; those of .* are 0\.001 s apart"):
        load(own_zoo_dir, TVSD).labels()


@pytest.mark.parametrize(
    ("model_id", "rule"),
    [
        (MEG, "region, sensors, sensor_index (channel): the units that any of them picks, each once, in ascending"),
        (TVSD, "roi, electrodes (electrode): the units that any of them picks, each once, in ascending"),
        (THINGS, "roi, voxel_index (voxel): the units of each, in this order of the keys and in the order of the"),
        ("fmri-nsd_fsaverage-alexnet", "roi wins over lh_vertices, rh_vertices"),
        ("eeg-things_eeg_2-alexnet", "timepoints, time (time): the units that all of them pick"),
    ],
)
def test_the_order_rule_stands_in_the_description(model_id: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    BERG().describe(model_id)
    assert rule in " ".join(capsys.readouterr().out.split())


# Which files there are


def test_the_files_to_download_are_those_that_are_read(zoo_dir: Path) -> None:
    berg = BERG(zoo_dir)
    inside = "encoding_models_weights"
    assert berg.files_of(MEG, subject=1) == [f"{inside}/weights_P1_all_training_splits.npy", "metadata/metadata_P1.npy"]
    single = berg.files_of(MEG, subject=1, train_splits="single")
    assert single[:-1] == [f"{inside}/weights_P1_{split}.npy" for split in SPLITS]
    assert berg.files_of(TVSD, subject="N")[0] == f"{inside}/weights_monkeyN_all_training_splits.npy"
    assert berg.files_of(THINGS, subject=2) == [f"{inside}/weights_sub-02.npy", "metadata/metadata_sub-02.npy"]
    assert len(berg.files_of(MEG, everything=True)) == 4 * 6
    for model_id in layouts.ZOO:
        folder = layouts.model_folder(zoo_dir, model_id)
        assert all((folder / name).is_file() for name in berg.files_of(model_id, subject=SUBJECTS.get(model_id, 1)))
