"""``berg encode --text`` and ``--words``"""

import warnings

import numpy as np
import pytest
import xarray as xr
from published import language

from berg import BERG
from berg.cli.app import main

SENTENCES = ["So it began.", "The old dog slept by the river."]
TEXTGRID = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n9\n<exists>\n1\n"IntervalTier"\n"words"\n0\n9\n3\n'
    '0\n1\n"so"\n1\n2\n""\n2\n9\n"began"\n'
)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    for kind in ("gpt2", "opt"):
        language.write_language_model(folder / kind, kind)
    language.write_tuckute(folder, rng)
    language.write_lebel(folder, "UTS01", rng)
    language.write_zada(folder, "01", rng)
    (folder / "a.txt").write_text("\n".join(SENTENCES))
    (folder / "a.tsv").write_text("id\tmine\n" + "".join(f"{n}\t{text}\n" for n, text in enumerate(SENTENCES)))
    (folder / "a.TextGrid").write_text(TEXTGRID)
    return folder


def run(places, model_id, *tokens):
    network = places / ("opt" if model_id == language.LEBEL else "gpt2")
    common = ["--device", "cpu", "--berg-dir", places, "--parameter", f"language_model={network}"]
    main([str(token) for token in ("encode", model_id, *tokens, *common)])


def encoded(places, model_id, stimulus, **parameters):
    network = places / ("opt" if model_id == language.LEBEL else "gpt2")
    return BERG(places).encode(model_id, stimulus, device="cpu", language_model=str(network), **parameters)


def test_sentences_of_a_file_are_encoded_and_labelled(places, tmp_path, capsys):
    run(places, language.TUCKUTE, "--text", places / "a.txt", "--out", tmp_path / "r.nc")
    assert "to 2 texts" in capsys.readouterr().out
    run(places, language.TUCKUTE, "--text", places / "a.tsv", "--column", "mine", "--out", tmp_path / "s.nc")
    for name in ("r.nc", "s.nc"):
        with xr.open_dataset(tmp_path / name, engine="h5netcdf") as saved:
            assert saved.stimulus.values.tolist() == SENTENCES
            np.testing.assert_allclose(saved["fmri"], encoded(places, language.TUCKUTE, SENTENCES), atol=1e-6)


def test_words_of_a_textgrid_are_encoded_into_a_store_of_volumes(places, tmp_path):
    run(places, language.LEBEL, "--words", places / "a.TextGrid", "--subject", "UTS01", "--out", tmp_path / "r.zarr")
    with xr.open_zarr(tmp_path / "r.zarr") as saved:
        assert saved.stimulus.values.tolist() == [0, 2, 4, 6, 8]
        given = {"words": ["so", "began"], "word_onsets": [0, 2]}
        expected = encoded(places, language.LEBEL, given, subject="UTS01")
        np.testing.assert_allclose(saved["fmri"], expected, atol=1e-6)


def test_words_without_times_are_enough_for_electrodes(places, tmp_path):
    run(places, language.ZADA, "--words", places / "a.TextGrid", "--subject", "01", "--out", tmp_path / "r-epo.fif")
    mne = pytest.importorskip("mne")
    with warnings.catch_warnings(action="ignore"):  # MNE's use of pandas
        epochs = mne.read_epochs(tmp_path / "r-epo.fif", verbose="error")
    assert list(epochs.event_id) == ["so", "began"]
    metadata = BERG(places).get_model_metadata(language.ZADA, subject="01")["ecog"]
    found = epochs.get_montage()
    assert found.get_positions()["coord_frame"] == "head"
    to_mni = mne.transforms.invert_transform(mne.channels.compute_native_head_t(mni_montage(metadata)))
    head = np.stack(list(found.get_positions()["ch_pos"].values()))
    np.testing.assert_allclose(mne.transforms.apply_trans(to_mni, head) * 1000, metadata["ch_coords"], atol=1e-3)


def mni_montage(metadata):
    import mne

    montage = mne.channels.make_dig_montage(
        dict(zip(metadata["ch_names"], metadata["ch_coords"] / 1000, strict=True)), coord_frame="mni_tal"
    )
    montage.add_mni_fiducials()
    return montage


@pytest.mark.parametrize(
    ("model_id", "option", "words"),
    [
        (language.TUCKUTE, "--words", r"takes texts, which are not given with --words; try --text"),
        (language.LEBEL, "--text", r"takes words with onsets, which are not given with --text; try --words"),
        (language.TUCKUTE, "--images", r"takes texts, which are not given with --images; try --text"),
    ],
)
def test_another_option_is_refused_with_the_right_one(model_id, option, words, places, tmp_path, capsys):
    subject = ["--subject", "UTS01"] if model_id == language.LEBEL else []
    with pytest.raises(SystemExit):
        run(places, model_id, option, places / "a.txt", *subject, "--out", tmp_path / "r.nc")
    assert words in " ".join(capsys.readouterr().err.split())
