"""Each kind of stimulus has a place in one table, and everything that depends on the kind asks the card for it."""

import re
from typing import get_args

import numpy as np
import pytest
from scipy.io import wavfile

from berg.cli.app import main
from berg.core.card_schema import StimulusKind
from berg.core.exceptions import ModelCardError
from berg.core.model_card import ModelCard
from berg.core.model_registry import get_available_models, get_card
from berg.stimuli.readers import READERS, kind_of_file, reader_of

PICTURES, SOUNDS = "fmri-szinte2024-prf_css", "ephys-rokem2006-ln_renewal"
VIDEOS = "fmri-bmd-s3d"
MODELS = get_available_models()


def card_with(model_id, old, new):
    text = get_card(model_id).path.read_text(encoding="utf-8")
    assert old in text
    return ModelCard.parse(text.replace(old, new), f"{model_id}.yaml")


def test_every_kind_of_a_card_has_a_place_in_the_table():
    assert list(READERS) == list(get_args(StimulusKind))


@pytest.mark.parametrize("model_id", MODELS)
def test_every_model_takes_a_kind_that_is_read(model_id):
    card = get_card(model_id)
    names = {"Images": "pictures", "Sounds": "sounds", "Videos": "videos", "Texts": "texts"}
    assert reader_of(card.input.kind).name == names[card.stimuli]


@pytest.mark.parametrize("model_id", [each for each in MODELS if get_card(each).input.kind in ("image", "sound")])
def test_a_card_from_before_there_were_kinds_means_the_same(model_id):
    card = get_card(model_id)
    assert card_with(model_id, f"  kind: {card.input.kind}\n", "").input == card.input


@pytest.mark.parametrize(
    ("model_id", "old", "new", "words"),
    [
        (PICTURES, "kind: image", "kind: sound", r"line \d+: a stimulus of kind sound needs a sampling_rate"),
        (SOUNDS, "kind: sound", "kind: image", r"line \d+: a stimulus of kind image has no sampling_rate; take it out"),
        (VIDEOS, "kind: video", "kind: image", r"line \d+: a stimulus of kind image takes no n_frames; .* kind: video"),
        (SOUNDS, "kind: sound", "kind: text", r"line \d+: a stimulus of kind text has no sampling_rate"),
        (PICTURES, "kind: image", "kind: text", r"a stimulus of kind text needs text: sentences, words, timed_words"),
        (PICTURES, "kind: image", "kind: image\n  text: words", r"a stimulus of kind image has no text"),
        (PICTURES, "kind: image", "kind: picture", r"input\.kind is 'picture'.*'image', 'sound', 'video' or 'text'"),
        (PICTURES, "kind: image", "kinds: image", r"unknown key 'kinds'\. Did you mean 'kind'\?"),
    ],
)
def test_a_kind_that_contradicts_its_card_is_named_with_its_line(model_id, old, new, words):
    with pytest.raises(ModelCardError, match=words):
        card_with(model_id, old, new)


def test_files_are_of_the_kind_that_their_ending_says():
    for kind, reader in READERS.items():
        for ending in reader.endings:
            assert kind_of_file(f"a{ending.upper()}") == kind
    assert kind_of_file("a.wav.png") == kind_of_file(np.zeros(3)) == "image"


def test_files_read_by_their_kind_are_what_the_readers_of_their_formats_give(tmp_path):
    sound = (1000 * np.random.default_rng(0).normal(size=(2, 50))).astype("int16")
    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for file, samples in zip(files, sound, strict=True):
        wavfile.write(file, 8000, samples)
    np.testing.assert_array_equal(reader_of("sound").read_files(files), sound / 2**15)
    assert reader_of("sound").list_files([tmp_path]) == files


@pytest.mark.parametrize(("model_id", "kind"), [(PICTURES, "image"), (SOUNDS, "sound")])
def test_describe_and_list_say_the_kind(model_id, kind, capsys):
    main(["describe", model_id])
    assert re.search(rf"^kind +{kind}$", capsys.readouterr().out, re.MULTILINE)
    main(["list"])
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if model_id in line)
    assert kind in " ".join(row).lower()
