"""Names stay names: what is written in a list is what the labels are, and two texts never become one."""

import gzip
import json
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from berg.core.exceptions import CorruptedFileError, DatasetError
from berg.datasets.dataset import EncodingDataset
from berg.datasets.label_files import numbers_or_names, per_unit, read_labels, whole_numbers_or_names
from berg.datasets.splits import LabelWarning, group_numbers, make_splits, split_indices, stimulus_indices
from berg.stimuli.stimulus_files import StimulusOrderWarning

# fmt: off
ODD = ["1_0", "10", "²", "1e1", "inf", "-inf", "nan", "１０", "٣", "007", "7", "7.0", "7 ", " 7", "+7", "0x7", "1.10",
       "1.1", "True", "true", "é", "e\u0301", "NO", "no", "-0", "0", "1:20", "12345678901234567890",
       "12345678901234567891", "9007199254740993.0", "9007199254740992.0", "Infinity", "1,5", "1 0",
       "a\u2028b"]
# fmt: on
LIKE_NUMBERS = st.one_of(
    st.sampled_from(ODD),
    st.from_regex("[-+]?[0-9]{0,3}[._]?[0-9]{0,3}([eE][0-9])?", fullmatch=True),
    st.text(alphabet="01٣１²_.e+- ", max_size=4),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(LIKE_NUMBERS, min_size=1, max_size=6))
@example(["0.0", "-0.0"])
@example(["12345678901234567890", "12345678901234567891"])
def test_two_texts_never_become_one_number(texts):
    for found in (numbers_or_names(texts), whole_numbers_or_names(np.array(texts))):
        for one, first in zip(texts, found.tolist(), strict=True):
            for other, second in zip(texts, found.tolist(), strict=True):
                assert one == other or first != second or first != first


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1", "-2", "0"], [1, -2, 0]),
        (["0.10", "0.25"], [0.1, 0.25]),
        (["1.5", " 2.5"], [1.5, 2.5]),
        (["1e-3", "2E5", ".5", "3."], [0.001, 2e5, 0.5, 3.0]),
        (["0.5", "n/a", "", "nan"], [0.5, np.nan, np.nan, np.nan]),
    ],
)
def test_what_is_written_as_numbers_is_numbers(texts, numbers):
    np.testing.assert_array_equal(numbers_or_names(texts), numbers)


@pytest.mark.parametrize("text", ["1_0", "1٣", "２", "²", "inf", "-inf", "Infinity", "0x10", "007", "1:20", "1e9999"])
def test_what_only_a_program_takes_for_a_number_is_a_name(text):
    assert numbers_or_names([text, "3"]).tolist() == [text, "3"]
    assert whole_numbers_or_names(np.array([text, "3"])).tolist() == [text, "3"]


# Stimuli


FILES = [f"{number}.png" for number in range(12)]
LEXICAL = sorted(FILES)


@pytest.mark.parametrize("texts", [["2", "10", "2"], ["2.png", "10.png", "2.png"], ["2", "10.png", " 2"]])
def test_a_text_that_is_a_name_is_that_stimulus(texts):
    assert [LEXICAL[index] for index in stimulus_indices(texts, LEXICAL)] == ["2.png", "10.png", "2.png"]


def test_a_text_is_a_number_only_if_no_text_of_the_list_is_a_name():
    names = [f"img{number}.png" for number in range(12)]
    assert stimulus_indices(["2", "10"], names).tolist() == [2, 10]
    assert stimulus_indices(["2.0", "10.0"], names).tolist() == [2, 10]
    with pytest.raises(
        DatasetError, match=r"names 1 stimuli that are not there \(12\)\. 1 others are names.*by: number"
    ):
        stimulus_indices(["2", "12"], LEXICAL)
    assert stimulus_indices(["2", "11"], LEXICAL, by="number").tolist() == [2, 11]


@pytest.mark.parametrize("text", ["1_0", "1e1", "inf", "１", "²", "01", "+1", "1.5", "-", "0x1"])
def test_what_is_no_number_of_a_stimulus_is_refused(text):
    for names in (["a", "b"] * 9, [str(index) for index in range(18)]):
        with pytest.raises(DatasetError):
            stimulus_indices([text, "1"], names)
        with pytest.raises(DatasetError):
            stimulus_indices([text], names, by="number")


@pytest.mark.parametrize("numbers", [[np.inf, 1.0], [1e300, 1.0], [np.nan, 1.0], [1.5, 1.0]])
def test_numbers_that_count_nothing_are_refused(numbers):
    with pytest.raises(DatasetError, match="stimuli that are not there"):
        stimulus_indices(np.array(numbers), ["a", "b", "c"])


def test_texts_that_are_names_and_numbers_of_others_are_refused_if_they_are_said_to_count():
    with pytest.raises(DatasetError, match=r"holds 2: that is the name of 2\.png, and counted from 1 it is 1\.png"):
        stimulus_indices(["2", "3"], FILES, first=1)
    assert stimulus_indices(["1", "2"], FILES, first=1, by="number").tolist() == [0, 1]
    assert stimulus_indices(["1", "2"], FILES, first=1, by="name").tolist() == [1, 2]
    assert stimulus_indices(["1", "2"], FILES[1:], first=1).tolist() == [0, 1]  # the same either way


def test_stimuli_without_names_are_counted():
    assert stimulus_indices(["1", "3"], ["0", "1", "2"], first=1).tolist() == [0, 2]


def test_only_what_looks_like_the_ending_of_a_file_is_left_out():
    levels = ["0.5", "1.5", "2.5"]
    assert stimulus_indices(["2", "1"], levels).tolist() == [2, 1]  # counted; 2 is not 2.5 without an ending
    assert stimulus_indices(["1.5"], levels).tolist() == [1]
    with pytest.raises(DatasetError, match=r"not there \(a\)"):
        stimulus_indices(["a", "b"], ["a.png", "a.jpg", "b.png"])


def test_letters_encoded_in_another_way_are_spoken_of():
    with pytest.raises(DatasetError, match=r"Its letters are encoded in another way in 'cafe\\u0301\.png'"):
        stimulus_indices(["caf\u00e9.png"], ["cafe\u0301.png", "b.png"])
    both = ["caf\u00e9.png", "cafe\u0301.png"]
    assert stimulus_indices(both[::-1], both).tolist() == [1, 0]


def test_marks_of_0_and_1_are_not_taken_for_two_stimuli():
    with pytest.raises(DatasetError, match=r"nothing but 0 and 1, 6 times.*write true or false"):
        EncodingDataset.from_arrays(
            np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), "u1"), np.zeros((6, 1)),
            splits={"train": [1, 1, 1, 1, 0, 0], "test": [4]},
        )  # fmt: skip
    with pytest.raises(DatasetError, match="nothing but 0 and 1"):
        split_indices(["1", "1", "0", "0", "1"], ["a", "b", "c", "d", "e"])
    assert stimulus_indices(["True", "False", "True"], ["a", "b", "c"]).tolist() == [0, 2]


# Groups


def test_groups_that_differ_in_anything_are_two():
    with pytest.warns(LabelWarning, match="look alike"):
        assert len(set(group_numbers(ODD, len(ODD)).tolist())) == len(ODD)
    assert group_numbers([1, "1", 2, 1], 4).tolist() == [0, 1, 2, 0]
    with pytest.warns(LabelWarning, match=r"'cat' and 'cat ' look alike"):
        splits = make_splits(np.arange(4), test_fraction=0.5, groups=["cat", "cat", "cat ", "cat "])
    assert splits["test"].tolist() in ([0, 1], [2, 3])


@pytest.mark.parametrize("groups", [[1.0, np.nan], ["a", None], np.array([np.nan, np.nan])])
def test_groups_without_a_label_are_refused(groups):
    with pytest.raises(DatasetError, match="groups"):
        group_numbers(groups, len(groups))


# Regions


def test_regions_are_units_or_marks():
    assert per_unit({"V1": [True, False, True], "V2": [1, 1]}, 3).tolist() == ["V1", "V2", "V1"]
    for members in ([[0], [1, 2]], [1, 1, 0], [1.7], ["1_0"], [True, False]):
        with pytest.raises(DatasetError, match="Allowed are the numbers of its units, or true or false"):
            per_unit({"V1": members}, 3)
    with pytest.raises(DatasetError, match="semicolon"):
        per_unit({"V1;V2": [1]}, 3)


def open_with(folder, labels, name="roi", card=""):
    """A dataset of four voxels whose labels stand in the card or in a file."""
    if not (folder / "p.npy").exists():
        np.save(folder / "p.npy", np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), np.uint8))
        np.save(folder / "r.npy", np.zeros((6, 4), "f4"))
    (folder / "dataset.yaml").write_text(
        "stimuli: p.npy\nresponses:\n  responses:\n    path: r.npy\n    axes: [stimulus, voxel]\n    unit: z\n"
        f"    coordinates:\n      {name}: {{axis: voxel, {labels}}}\n{card}",
        "utf-8",
    )
    return EncodingDataset.open(folder).outputs["responses"].coordinates[name][1].tolist()


@pytest.mark.parametrize(
    "texts",
    [
        ["1_0", "10", "²", "1e1"],
        ["1.10", "1.1", "2", "n/a"],
        ["007", "7", "07", "+7"],
        ["1", "1.0", "2", "3"],
        ["V1", "V1 ", " V1", "v1"],
        ["é", "e\u0301", "inf", "nan"],
    ],
)
@pytest.mark.parametrize("name", ["roi", "channel"])
def test_names_of_units_are_as_they_are_written_in_every_kind_of_text(texts, name, tmp_path):
    (tmp_path / "l.txt").write_text("\n".join(texts), "utf-8")
    (tmp_path / "l.tsv").write_text("\n".join(["label", *texts, "", ""]), "utf-8")
    (tmp_path / "l.json").write_text(json.dumps(texts), "utf-8")
    for file in ("l.txt", "l.tsv", "l.json"):
        assert open_with(tmp_path, f"path: {file}", name) == texts, file
    assert open_with(tmp_path, f"values: {json.dumps(texts)}", name) == texts


def test_numbers_of_an_atlas_are_texts_and_0_is_none(tmp_path):
    np.save(tmp_path / "l.npy", np.array([0, 2.0, 10, 2]))
    np.savetxt(tmp_path / "savetxt.txt", [0, 2, 10, 2])
    (tmp_path / "l.txt").write_text("0\n2\n10\n2\n")
    for labels in ("path: l.npy", "path: savetxt.txt", "path: l.txt", "values: [0, 2, 10, 2]"):
        assert open_with(tmp_path, labels) == ["", "2", "10", "2"]


@pytest.mark.parametrize("numbers", [[0, 1.5, 2, 3], [1, np.inf, 2, 3]])
def test_an_atlas_with_numbers_that_are_not_whole_is_refused(numbers, tmp_path):
    np.save(tmp_path / "l.npy", numbers)
    with pytest.raises(DatasetError, match=r"coordinates\.roi: holds (1\.5|inf) .*nearest neighbour"):
        open_with(tmp_path, "path: l.npy")


def test_other_coordinates_are_numbers(tmp_path):
    with pytest.raises(DatasetError, match="YAML takes 1e-1 for '1e-1'"):
        open_with(tmp_path, "values: [0.1, 0.2, 1e-1, 0.3]", "x_mm")
    assert open_with(tmp_path, "values: [0.10, 0.2, 2.5e-1, 1e-3]", "x_mm") == [0.1, 0.2, 0.25, 0.001]
    (tmp_path / "l.txt").write_text("0.10\n0.20\n0.10\n1e-3\n")
    assert open_with(tmp_path, "path: l.txt", "x_mm") == [0.1, 0.2, 0.1, 0.001]


# What YAML makes of words


@pytest.mark.parametrize(
    "word",
    [
        "NO", "on", "yes", "Off", "true", "010", "0777", "0x1F", "0b1", "1_0", "1:20", "+1", "1.10", "1.", ".5", ".inf",
        "1_0.5", "1:20.5", "~", "null",
    ],
)  # fmt: skip
@pytest.mark.parametrize("items", ["[V1, {}, V2, V3]", "['V1', V2, {}, V3]", "[1, 2, {}, 4]"])
def test_a_word_that_yaml_takes_for_something_else_is_refused_with_its_line(word, items, tmp_path):
    with pytest.raises(DatasetError, match=r"dataset\.yaml, line 8: .*coordinates\.roi\.values: YAML takes .*quotes"):
        open_with(tmp_path, f"values: {items.format(word)}")
    quoted = open_with(tmp_path, f"values: {items.format(repr(word))}")
    assert word in quoted


@pytest.mark.parametrize(("card", "words"), [
    ("subjects: [01, 08, 010]\n", r"line 9: subjects: YAML takes 01 for 1\. If it is a name.*'01'"),
    ("subjects: [1, '1']\n", "a subject stands twice"),
    ("subjects: [yes, no]\n", "YAML takes yes for True"),
    ("splits: {train: [yes, no, yes, no, yes, no]}\n", "YAML takes yes for True"),
    ("splits: {groups: [1.10, 1.1, a, b, c, d]}\n", r"YAML takes 1\.10 for 1\.1"),
    ("presentations: {path: a.tsv, first: 010}\n", "YAML takes 010 for 8"),
])  # fmt: skip
def test_such_words_are_refused_wherever_they_are_meant(card, words, tmp_path):
    with pytest.raises(DatasetError, match=words):
        open_with(tmp_path, "values: [a, b, c, d]", card=card)


def test_equal_numbers_are_written_alike(tmp_path):
    with pytest.raises(DatasetError, match=r"YAML takes 1\.10 for 1\.1"):
        open_with(tmp_path, "values: [1.1, 1.10, 2.5, 3.5]", "x_mm")
    assert open_with(tmp_path, "values: [true, false, True, FALSE]", "kept") == [True, False, True, False]


# Files of text


def test_a_table_of_labels_is_read_whole_and_not_more(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfname,x\r\n"a, b",1\r\n\r\n\r\n')
    assert read_labels(tmp_path / "a.csv", "name").tolist() == ["a, b"]
    (tmp_path / "b.csv").write_text("x,y\n1,2\n\n3,4\n")
    with pytest.raises(DatasetError, match="line 3: 0 values for 2 columns"):
        read_labels(tmp_path / "b.csv", "x")
    (tmp_path / "c.csv").write_text("x,x\n1,2\n")
    with pytest.raises(DatasetError, match="2 columns called 'x'"):
        read_labels(tmp_path / "c.csv", "x")
    for content in ('x\n"never closed\n', "x\n" + "a" * 200_000 + "\n", '"a"b\n'):
        (tmp_path / "d.csv").write_text(content)
        with pytest.raises((CorruptedFileError, DatasetError)):
            read_labels(tmp_path / "d.csv")


def test_text_of_two_bytes_per_letter_is_refused(tmp_path):
    for encoding in ("utf-16", "utf-16-le"):
        for name in ("a.txt", "a.tsv", "a.json"):
            (tmp_path / name).write_text('["x"]\n["y"]\n', encoding)
            with pytest.raises((CorruptedFileError, DatasetError), match=name):
                read_labels(tmp_path / name)


def test_a_key_that_stands_twice_in_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"V1": [0], "V2": [2], "V1": [5]}')
    with pytest.raises(DatasetError, match=r"a\.json: the key 'V1' stands twice"):
        read_labels(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('["V1", true, null]')
    with pytest.raises(DatasetError, match="Put names in quotes"):
        read_labels(tmp_path / "b.json")


def test_names_may_hold_every_kind_of_space(tmp_path):
    names = ["a\u2028b.png", "c\x85d.png", "e\x0bf.png"]
    (tmp_path / "a.txt").write_text("\n".join(names), "utf-8")
    assert read_labels(tmp_path / "a.txt").tolist() == names


def test_a_small_packed_table_costs_little(tmp_path):
    path = tmp_path / "bomb.tsv.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(16):
            file.write((b"x" * 511 + b"\n") * 2**11)
    assert path.stat().st_size < 2**16
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"unpacks to more than 8\.4 MB"):
        read_labels(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
    (tmp_path / "wide.txt").write_text("a\n" * 100_000 + "b" * 100_000)
    with pytest.raises(DatasetError, match="a text of 100,000 characters"):
        read_labels(tmp_path / "wide.txt")


# Whole datasets


@pytest.mark.parametrize(
    "content", ['"abc"', "5", "null", "[]", "{}", '[["a"]]', "[true, false, true, false, true, true]"]
)
@pytest.mark.parametrize("card", ["splits: {groups: x.json}", "splits: {column: x.json}", "presentations: x.json"])
def test_what_is_no_list_is_refused_with_its_line(content, card, tmp_path):
    (tmp_path / "x.json").write_text(content)
    if "groups" in card and "true" in content:
        return
    with pytest.raises(DatasetError, match=r"dataset\.yaml, line 9"):
        open_with(tmp_path, "values: [a, b, c, d]", card=card + "\n")


def test_presentations_that_contradict_the_axis_of_stimuli_are_refused():
    pictures, responses = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 4), "u1"), np.arange(3.0)[:, None]
    with pytest.raises(DatasetError, match=r"row 0 is the response to stimulus 0, and 'presentations'.* stimulus 2"):
        EncodingDataset.from_arrays(pictures, responses, presentations=[2, 1, 0], axes=("stimulus", "voxel"))
    dataset = EncodingDataset.from_arrays(pictures, responses, presentations=[2, 1, 0], axes=("presentation", "voxel"))
    assert dataset.outputs["responses"].mean([0, 1, 2])[:, 0].tolist() == [2, 1, 0]


@pytest.mark.parametrize("kind", ["text", "names", "numbers", "from 1"])
def test_each_response_belongs_to_the_picture_that_was_shown(kind, tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        Image.fromarray(np.full((4, 4, 3), number, "u1")).save(tmp_path / f"pictures/{number}.png")
    np.save(tmp_path / "r.npy", np.arange(12.0, dtype="f4")[:, None])
    lines = [f"{number}.png" if kind == "names" else str(number) for number in range(12)]
    (tmp_path / "t.tsv").write_text("\n".join(["picture", *lines]))
    np.save(tmp_path / "n.npy", np.arange(12))
    shown = {"numbers": "{path: n.npy}", "from 1": "{path: n.npy, first: 0, by: name}"}.get(kind, "t.tsv::picture")
    (tmp_path / "dataset.yaml").write_text(
        f"stimuli: pictures\npresentations: {shown}\nresponses:\n  responses: {{path: r.npy, axes: [presentation, v], "
        "unit: z}\n"
    )
    warnings.simplefilter("ignore", StimulusOrderWarning)
    if kind == "numbers":
        with pytest.raises(DatasetError, match=r"holds 2: that is the name of 2\.png, and counted from 0 it is 10"):
            EncodingDataset.open(tmp_path)
        return
    dataset = EncodingDataset.open(tmp_path)
    pixels = dataset.read_stimuli(np.arange(12))[:, 0, 0, 0]
    np.testing.assert_array_equal(dataset.outputs["responses"].mean(np.arange(12))[:, 0], pixels)


def test_files_of_sessions_are_joined_in_an_order_that_is_said(tmp_path, capsys):
    from berg.cli.app import main

    open_with(tmp_path, "values: [a, b, c, d]")
    for number, session in enumerate((5, 12)):
        np.save(tmp_path / f"session{session}.npy", np.full((3, 4), number, "f4") + np.arange(12).reshape(3, 4))
    (tmp_path / "dataset.yaml").write_text(
        "stimuli: p.npy\nresponses:\n  responses: {path: session*.npy, axes: [stimulus, voxel], unit: z}\n"
    )
    with pytest.warns(StimulusOrderWarning, match=r"session12\.npy is number 0 .* where session5\.npy would be"):
        found = EncodingDataset.open(tmp_path).outputs["responses"].mean([0, 3])[:, 0]
    assert found.tolist() == [1, 0]
    with warnings.catch_warnings(action="default"):
        main(["dataset", "check", str(tmp_path)])
    printed = capsys.readouterr()
    assert "2 files in this order, from session12.npy to session5.npy" in printed.out
    assert "warning: " in printed.err
    assert "session12.npy is number 0" in printed.err


@pytest.mark.parametrize(("words", "kept"), [("True False True False", [0, 2]), ("1 0 0 1", [0, 3])])
def test_a_mask_of_words_is_a_mask(words, kept, tmp_path):
    open_with(tmp_path, "values: [a, b, c, d]")
    np.save(tmp_path / "r.npy", np.tile(np.arange(4.0, dtype="f4"), (6, 1)))
    (tmp_path / "m.txt").write_text(words.replace(" ", "\n"))
    card = "stimuli: p.npy\nresponses:\n  responses: {path: r.npy, mask: m.txt, axes: [stimulus, voxel], unit: z}\n"
    (tmp_path / "dataset.yaml").write_text(card)
    assert EncodingDataset.open(tmp_path).outputs["responses"].mean([0])[0].tolist() == kept
    (tmp_path / "m.txt").write_text("in\nout\nin\nin\n")
    with pytest.raises(DatasetError, match=r"mask: a mask holds 0 or 1"):
        EncodingDataset.open(tmp_path)
