"""Texts as stimuli: what is taken from which file, and what is refused in which words."""

import json

import numpy as np
import pytest

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, MissingFileError, StimulusError, StimulusWarning
from berg.stimuli.open import open_stimuli
from berg.stimuli.text_files import load_sentences, load_tr_texts, load_words
from berg.stimuli.texts import Sentences, TextPerTR, Words, text_digest

LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2.5
            text = "AH0"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 1.5
            mark = "c"
    item [3]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 1
            text = "he said ""no"""
        intervals [3]:
            xmin = 1
            xmax = 1.5
            text = "sp"
        intervals [4]:
            xmin = 1.5
            xmax = 2.5
            text = "é 12"
'''
SHORT = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2.5\n<exists>\n1\n"IntervalTier"\n"words"\n0\n2.5\n4\n'
    '0\n0.25\n""\n0.25\n1\n"he said ""no"""\n1\n1.5\n"sp"\n1.5\n2.5\n"é 12"\n'
)
MONTREAL = {
    "start": 0,
    "end": 2.5,
    "tiers": {
        "words": {"type": "interval", "entries": [[0, 0.25, "<eps>"], [0.25, 1.0, 'he said "no"'], [1.5, 2.5, "é 12"]]},
        "phones": {"type": "interval", "entries": [[0.25, 1.0, "AH0"]]},
    },
}
WHISPER = {
    "segments": [
        {"words": [{"word": ' he said "no"', "start": 0.25, "end": 1.0, "score": 0.9}]},
        {"words": [{"word": "é 12", "start": 1.5, "end": 2.5}]},
    ],
    "word_segments": [{"word": "é 12", "start": 1.5}],
}
EVENTS = 'onset\tduration\ttrial_type\n0.1\tn/a\tn/a\n0.25\t0.75\the said "no"\n1.5\t1\té 12\n'


@pytest.mark.parametrize(
    ("name", "content", "encoding"),
    [
        ("a.TextGrid", LONG, "utf-8"),
        ("a.TextGrid", LONG, "utf-16"),
        ("a.TextGrid", LONG.replace("\n", "\r\n"), "utf-8-sig"),
        ("a.textgrid", SHORT, "utf-8"),
        ("a.json", json.dumps(MONTREAL), "utf-8"),
        ("a.json", json.dumps(WHISPER), "utf-8"),
        ("a.tsv", EVENTS, "utf-8"),
        ("a.csv", 'word,onset,duration\n"he said ""no""",0.25,0.75\né 12,1.5,1\n', "utf-8-sig"),
    ],
)
def test_words_and_times_of_every_format_are_the_same(name, content, encoding, tmp_path):
    (tmp_path / name).write_bytes(content.encode(encoding))
    words = load_words(tmp_path / name)
    assert words.words == ('he said "no"', "é 12")
    np.testing.assert_allclose(words.onsets, [0.25, 1.5])
    np.testing.assert_allclose(words.durations, [0.75, 1.0])


def test_lines_columns_and_words_of_plain_files(tmp_path):
    (tmp_path / "a.txt").write_text("So it began.\nThe dog\n")
    (tmp_path / "a.tsv").write_text("id\tsentence\n1\tSo it began.\n2\tThe dog\n")
    (tmp_path / "b.tsv").write_text("other\tmine\nx\tSo it began.\ny\tThe dog\n")
    expected = ("So it began.", "The dog")
    assert load_sentences(tmp_path / "a.txt").texts == load_sentences(tmp_path / "a.tsv").texts == expected
    assert load_sentences(tmp_path / "b.tsv", "mine").texts == expected
    assert load_words(tmp_path / "a.txt").words == ("So", "it", "began.", "The", "dog")
    assert load_words(tmp_path / "a.txt").onsets is None
    (tmp_path / "c.txt").write_text("so it\n\nbegan\n")
    (tmp_path / "c.tsv").write_text("text_per_tr\nso it\nn/a\nbegan\n")
    assert load_tr_texts(tmp_path / "c.txt") == load_tr_texts(tmp_path / "c.tsv") == TextPerTR(["so it", "", "began"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"so\n\xe9t\xe9\n", r"not in UTF-8: byte 3 \(in line 2\) is 0xe9.*iconv -f latin1"),
        ("a.txt", "so".encode("utf-16-le"), "bytes of zero. Is it UTF-16"),
        ("a.txt", b"so\n\nit\n", r"Line 2 of .* is empty"),
        ("a.txt", "so\nit\u200b\n".encode(), r"a.txt: Sentence 1 .* U\+200B ZERO WIDTH SPACE at character 2"),
        ("a.tsv", b"a\tb\nx\ty\n", r"columns a, b, of which none is called sentence.*--column NAME"),
        ("a.tsv", b"text\n", "has no rows"),
        ("a.tsv", b"text\tid\nx\n", r"Row 2 of .* has 1 cells, the first has 2.*tabs"),
        ("a.tsv", b"text\ttext\nx\ty\n", "names a column twice"),
        ("a.pdf", b"x", r"no file of sentences: those end in \.txt"),
    ],
)
def test_files_that_are_no_sentences_are_named(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StimulusError, match=words):
        load_sentences(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.TextGrid", "no such thing", "no TextGrid"),
        ("a.TextGrid", LONG[: len(LONG) // 2], "no whole TextGrid"),
        ("a.TextGrid", LONG.replace('"words"', '"mots"'), "tiers phones, mots. Say which holds the words"),
        ("a.TextGrid", SHORT.replace('he said ""no""', "").replace("é 12", ""), "Nothing was said"),
        ("a.json", "{", "no JSON"),
        ("a.json", "[]", "neither a JSON of the Montreal"),
        ("a.json", json.dumps({"segments": [{"words": [{"word": "in", "start": 1}, {"word": "2014."}]}]}),
         r"1 of 2 words have no time: '2014.' \(number 1\).*suppress_numerals"),
        ("a.tsv", "word\tonset\na\tlater\n", "line 2: onset is 'later'"),
        ("a.tsv", "word\tonset\na\t2\nb\t1\n", r"Word 1 .*'b', begins at 1 s, before"),
        ("a.tsv", "word\tonset\na\tnan\n", "onset of word 0 .* is nan"),
        ("a.tsv", "word\tonset\tduration\na\t1\t-2\n", "lasts -2 s"),
    ],
)  # fmt: skip
def test_files_that_are_no_words_are_named(name, content, words, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(StimulusError, match=words):
        load_words(tmp_path / name)
    with pytest.raises(MissingFileError, match="no file"):
        load_words(tmp_path / f"other{name}")


def test_a_tier_is_chosen_by_its_name(tmp_path):
    (tmp_path / "a.TextGrid").write_text(LONG.replace('"words"', '"Anna - Words"'))
    assert len(load_words(tmp_path / "a.TextGrid")) == 2
    assert load_words(tmp_path / "a.TextGrid", "phones").words == ("AH0",)
    with pytest.raises(StimulusError, match=r"no tier 'phone'\. Did you mean 'phones'"):
        load_words(tmp_path / "a.TextGrid", "phone")


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a", "b\u200d"], r"U\+200D"),
        (["\ufeffa"], r"U\+FEFF .* at character 0"),
        (["a\tb"], r"control character U\+0009 at character 1"),
        (["a\nb"], r"control character U\+000A"),
        (["a\u202eb"], r"U\+202E RIGHT-TO-LEFT OVERRIDE"),
        (["a\u2028b"], r"line separator U\+2028"),
        (["a\udc80"], r"half a character U\+DC80"),
        ([b"a"], r"not a text. Try item.decode"),
        (["a", None], r"Sentence 1 .* None \(NoneType\), not a text"),
        (["a", float("nan")], r"missing \(NaN\)"),
        (["a", 3], r"Try str\(item\)"),
        ([["a", "b"]], r"not a text. Give one list of texts"),
    ],
)
def test_what_nobody_can_see_and_what_is_no_text_is_refused(texts, words):
    with pytest.raises(StimulusError, match=words):
        Sentences(texts)


def test_joiners_of_scripts_that_need_them_and_visible_texts_of_all_kinds_are_taken():
    texts = ["می‌خواهم", "क्‍ष", "👩‍🔬", "naïve", "日本語", "Straße"]
    assert Sentences(texts).texts == tuple(texts)
    assert TextPerTR(["a\nb", ""]).strings == ("a\nb", "")
    with pytest.raises(StimulusError, match="All 2 texts are empty"):
        TextPerTR(["", " "])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sentences(["a", " b"]), r"Sentence 1 \(from 0\) begins or ends with a blank: ' b' \(1 of 2 do\)"),
        (lambda: Sentences(["a\u00a0b"]), r"no-break space \(U\+00A0\) at character 1"),
        (lambda: Words(["a", "b", "c"], [100, 400, 900]), "Onsets are seconds; of milliseconds"),
    ],
)
def test_what_changes_tokens_or_times_unseen_is_warned_of(make, words):
    with pytest.warns(StimulusWarning, match=words):
        make()


def taken(form, stimulus):
    return open_stimuli(stimulus, StimulusInput(kind="text", shape="[n]", text=form))


def test_lists_arrays_and_columns_are_one_text_and_another_text_is_another():
    pd = pytest.importorskip("pandas")
    forms = [["a", "bc"], ("a", "bc"), np.array(["a", "bc"]), np.array(["a", "bc"], object), pd.Series(["a", "bc"])]
    rows = [taken("sentences", each).read(slice(0, 2)) for each in forms]
    assert all((each == rows[0]).all() for each in rows)
    assert rows[0].dtype == np.int64
    assert (rows[0][:, 0] == [0, 1]).all()
    others = [["ab", "c"], ["a", "bd"], ["a"], ["a", "bc", "d"]]
    digests = {taken("sentences", each).digest for each in [forms[0], *others]}
    digests |= {taken("words", ["a", "bc"]).digest, text_digest(Words(["a", "bc"], [0, 1]))}
    digests |= {text_digest(Words(["a", "bc"], [0, 2])), text_digest(Words(["a", "bc"], [0, 1], [1, np.nan]))}
    assert len(digests) == 9


def test_a_map_a_file_and_words_are_the_same_words(tmp_path):
    given = {"words": ["a", "b"], "word_onsets": [0.5, 1], "word_durations": [0.5, 1]}
    (tmp_path / "a.tsv").write_text("onset\tduration\tword\n0.5\t0.5\ta\n1\t1\tb\n")
    forms = [given, Words(["a", "b"], [0.5, 1], [0.5, 1]), tmp_path / "a.tsv", str(tmp_path / "a.tsv")]
    assert len({taken("timed_words", each).digest for each in forms}) == 1
    with pytest.raises(InvalidParameterError, match="takes no sounds"):
        open_stimuli(given, StimulusInput(kind="text", shape="[n]", text="words"), 16_000)
    with pytest.raises(StimulusError, match="takes one text for each TR, not Words"):
        taken("tr_texts", forms[1])
