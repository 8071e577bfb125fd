import hashlib
import json

import pytest

from berg.cli.app import main
from berg.core import model_registry
from berg.core.model_card import ModelCard
from berg.weights.availability import availability

FWRF, EEG, PRF = "fmri-nsd-fwrf", "eeg-things_eeg_2-vit_b_32", "fmri-szinte2024-prf_css"


def put(berg_dir, dataset, model, names, modality="fmri", content=b"x"):
    folder = berg_dir / f"encoding_models/modality-{modality}/train_dataset-{dataset}/model-{model}"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def pairs_of(*stems):
    return [f"{folder}/{kind}_{stem}.npy" for stem in stems
            for folder, kind in (("encoding_models_weights", "weights"), ("metadata", "metadata"))]  # fmt: skip


def own_card(folder, model_id="fmri-mine-prf", **changes):
    """A card beside the files of a fitted model, made of the built-in one."""
    raw = model_registry.get_card(PRF).raw | {"model_id": model_id, "training_dataset": model_id.split("-")[1]}
    raw["files"] = {"weights": "weights_subject-{subject:02d}", "metadata": "metadata_subject-{subject:02d}"}
    path = folder / f"{model_id}.yaml"
    path.write_text(json.dumps(raw | changes))  # JSON is YAML
    return path


def test_a_built_in_model_is_built_in(tmp_path):
    assert str(availability(model_registry.get_card(PRF), tmp_path)) == "built in"


def test_a_published_model_without_files_is_to_download(tmp_path):
    assert str(availability(model_registry.get_card(EEG), tmp_path)) == "to download"


def test_subjects_with_weights_and_metadata_are_here_and_no_others(tmp_path):
    put(tmp_path, "things_eeg_2", "vit_b_32", [*pairs_of("subject-01", "subject-03", "subject-10"),
        "encoding_models_weights/weights_subject-04.npy"], modality="eeg")  # fmt: skip
    found = availability(model_registry.get_card(EEG), tmp_path)
    assert found.values == {"subject": [1, 3, 10]}
    assert str(found) == "here: subject 1, 3, 10 of 10"


def test_a_subject_without_the_weights_that_all_share_is_not_here(tmp_path):
    card = model_registry.get_card("fmri-bmd-s3d")
    put(tmp_path, "bmd", "s3d", pairs_of("sub-01", "sub-10"))
    assert str(availability(card, tmp_path)) == "to download"
    put(tmp_path, "bmd", "s3d", ["encoding_models_weights/pca_weights.npy"])
    assert availability(card, tmp_path).values == {"subject": [1, 10]}


def test_a_region_whose_name_begins_another_is_told_from_it(tmp_path):
    put(tmp_path, "nsd", "fwrf", pairs_of("sub-01_roi-mfs-words", "sub-02_roi-V1"))
    found = availability(model_registry.get_card(FWRF), tmp_path)
    assert found.values == {"subject": [1, 2], "roi": ["V1", "mfs-words"]}


def test_a_file_of_another_length_than_recorded_does_not_count(tmp_path):
    folder = put(tmp_path, "things_eeg_2", "vit_b_32", pairs_of("subject-01", "subject-02"), modality="eeg")
    digest = hashlib.sha256(b"xyz").hexdigest()
    rows = ["path\tsize\tsha256\tsource\tdate", f"encoding_models_weights/weights_subject-02.npy\t3\t{digest}\t\t"]
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n")
    found = availability(model_registry.get_card(EEG), tmp_path)
    assert found.values == {"subject": [1]}
    assert "1 of its files are damaged or gone, see:  berg verify eeg-things_eeg_2-vit_b_32" in str(found)


def test_a_fitted_model_without_files_is_nowhere_to_download(tmp_path):
    card = ModelCard.read(own_card(tmp_path))
    assert str(availability(card, tmp_path)) == "not here"


def test_pinned_sizes_are_told(tmp_path):
    card = ModelCard.read(own_card(tmp_path))
    rows = [
        "path\tsize\tsha256\tsource\tdate",
        f"encoding_models_weights/weights_subject-01.npy\t2500000\t{'0' * 64}\t\t",
    ]
    card.path.with_suffix(".tsv").write_text("\n".join(rows) + "\n")
    assert str(availability(card, tmp_path)) == "to download (2.5 MB)"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"family": "berg_of_nobody.model:Model"}, "the package berg_of_nobody is not installed"),
        ({"features": {"extractor": "nobodys_networks/a"}}, "the package nobodys_networks is not installed"),
    ],
)
def test_a_model_that_cannot_run_says_why(changes, why, tmp_path):
    card = ModelCard.read(own_card(tmp_path, **changes))
    found = availability(card, tmp_path)
    assert str(found) == f"cannot run: {why}"
    assert not found.is_usable


@pytest.fixture
def fitted(tmp_path, monkeypatch):
    """A BERG directory with a fitted model and its card, forgotten afterwards."""
    for name in ("MODEL_REGISTRY", "_stores"):
        monkeypatch.setattr(model_registry, name, getattr(model_registry, name).copy())
    monkeypatch.setattr(model_registry, "_opened", model_registry._opened.copy())
    own_card(put(tmp_path, "mine", "prf", pairs_of("subject-01")))
    return tmp_path


@pytest.mark.parametrize("how", ["--berg-dir", "BERG_DIR"])
def test_list_and_describe_know_the_fitted_models_of_the_berg_directory(how, fitted, capsys, monkeypatch):
    given = ["--berg-dir", str(fitted)] if how == "--berg-dir" else []
    if how == "BERG_DIR":
        monkeypatch.setenv("BERG_DIR", str(fitted))
    main(["list", *given])
    line = next(line for line in capsys.readouterr().out.splitlines() if "fmri-mine-prf" in line)
    assert "  here  " in line
    main(["describe", "fmri-mine-prf", *given])
    assert capsys.readouterr().out.endswith(f"Here?\n-----\nhere\n({fitted})\n")


def test_list_as_json_has_what_the_table_has(fitted, capsys):
    main(["list", "--here", "--json", "--berg-dir", str(fitted)])
    found = {each["model_id"]: each["availability"]["state"] for each in json.loads(capsys.readouterr().out)}
    assert found["fmri-mine-prf"] == "here"
    assert found[PRF] == "built in"
    assert EEG not in found
