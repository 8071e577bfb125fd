import subprocess
import sys
import time
from pathlib import Path

import pytest

from berg.core.card_yaml import parse_card_yaml, read_card_yaml
from berg.core.exceptions import MissingFileError, ModelCardError


def test_every_key_and_item_has_its_line():
    text = "a: 1\n\nb:\n  c:\n  - x\n  - y\n"
    data, lines = parse_card_yaml(text, "card.yaml")
    assert data == {"a": 1, "b": {"c": ["x", "y"]}}
    assert lines == {(): 1, ("a",): 1, ("b",): 3, ("b", "c"): 4, ("b", "c", 0): 5, ("b", "c", 1): 6}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-1_000", -1000),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1e-3", "1e-3"),  # YAML 1.1 wants a point in a float
        ("1.0e-3", 0.001),
        ("yes", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ("2024-05-01", "2024-05-01"),
        ("2024-99-99", "2024-99-99"),
        ("[1, two, 3.0]", [1, "two", 3.0]),
        ("{x: 1}", {"x": 1}),
        ('"\\0"', "\0"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_plain_values_are_built(text, value):
    data, _ = parse_card_yaml(f"key: {text}", "card.yaml")
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_a_doubled_key_is_refused_with_both_lines():
    with pytest.raises(ModelCardError, match=r"card.yaml, line 3: key 'a' stands twice \(first on line 1\)"):
        parse_card_yaml("a: 1\nb: 2\na: 3\n", "card.yaml")


def test_a_doubled_key_deep_inside_is_refused():
    with pytest.raises(ModelCardError, match=r"line 4: key 'type' stands twice \(first on line 3\)"):
        parse_card_yaml("parameters:\n  subject:\n    type: int\n    type: str\n", "card.yaml")


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch hacked']",
        "!!python/object:builtins.object {}",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/tuple [1, 2]",
        "!mine x",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!binary aGk=",
        "!!str [a]",
        "!!map [a]",
        "=",
    ],
)
def test_a_tag_that_builds_an_object_is_refused_with_its_line(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelCardError, match=r"card.yaml, line 2: the tag .* builds an object"):
        parse_card_yaml(f"a: 1\nkey: {value}\n", "card.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("!!bool maybe", "bool"),
        ("!!int ''", "int"),
        ("!!int x", "int"),
        ("!!float ''", "float"),
        ("0b_", "int"),
        ("1" * 5000, "int"),
        ("0x" + "f" * 5000, "int"),  # Python reads it, and then cannot print it
        ("1" + ":1" * 400 + ".5", "float"),  # base 60, larger than any float
    ],
)
def test_a_number_that_is_none_is_refused_with_its_line(value, kind):
    with pytest.raises(ModelCardError, match=rf"line 2: '.{{0,40}}' cannot be read as {kind}; put it in quotes"):
        parse_card_yaml(f"a: 1\nkey: {value}\n", "card.yaml")


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n", "a: &x [1]\n", "a: &x {b: 1}\nc: {<<: *x}\n"])
def test_anchors_and_aliases_are_refused(text):
    with pytest.raises(ModelCardError, match="line 1: anchors and aliases are not read; write the value out"):
        parse_card_yaml(text, "card.yaml")


def test_an_alias_bomb_is_refused_at_once():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]" for i in range(20)]
    start = time.perf_counter()
    with pytest.raises(ModelCardError, match="line 1: anchors and aliases"):
        parse_card_yaml("\n".join(lines), "bomb.yaml")
    assert time.perf_counter() - start < 0.5


def test_a_card_of_50_megabytes_is_refused_without_being_read_whole(tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.write(b"model_id: a-b-c\n#")
        file.truncate(50_000_000)
    start = time.perf_counter()
    with pytest.raises(ModelCardError, match=r"large.yaml is larger than 200,000 bytes; a model card is a short text"):
        read_card_yaml(path)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("text", ["a: " + "[" * 41 + "]" * 41, "a: " + "{b: " * 41 + "}" * 41])
def test_deep_nesting_is_refused(text):
    with pytest.raises(ModelCardError, match="line 1: nested deeper than 40 levels"):
        parse_card_yaml(text, "deep.yaml")


def test_nesting_of_39_levels_below_the_top_is_read():
    data, _ = parse_card_yaml("a: " + "[" * 39 + "]" * 39, "deep.yaml")
    value, depth = data["a"], 1
    while value:
        value, depth = value[0], depth + 1
    assert depth == 39


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_50_000_opened_brackets_do_not_crash_the_interpreter(opening, tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text(opening * 50_000)
    code = (
        "import sys; from pathlib import Path\n"
        "from berg.core.card_yaml import read_card_yaml\n"
        "from berg.core.exceptions import ModelCardError\n"
        "try: read_card_yaml(Path(sys.argv[1]))\n"
        "except ModelCardError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "deep.yaml, line 1: nested deeper than 40 levels" in done.stdout


def test_bytes_that_are_not_utf8_are_refused_with_their_place(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("creator: Jos\xe9\n".encode("latin-1"))
    with pytest.raises(ModelCardError, match=r"latin.yaml is not UTF-8 text \(byte 12\)"):
        read_card_yaml(path)


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\x7f", "\ufffe"])
def test_control_characters_are_refused(character):
    with pytest.raises(ModelCardError, match=r"card.yaml.*: not valid YAML"):
        parse_card_yaml(f"creator: a{character}b\n", "card.yaml")


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(ModelCardError, match=r"card.yaml: not valid YAML: .*surrogates"):
        parse_card_yaml("creator: \ud800\n", "card.yaml")


@pytest.mark.parametrize("key", ["yes", "no", "on", "1", "1.5", "null", "~", "2024-05-01", "<<", "=", "[a]", "{a: 1}"])
def test_a_key_that_is_not_text_is_refused(key):
    with pytest.raises(ModelCardError, match="line 2: a key must be text; put it in quotes"):
        parse_card_yaml(f"a: 1\n? {key}\n: 2\n", "card.yaml")


def test_a_merge_key_is_refused():
    with pytest.raises(ModelCardError, match="line 1: a key must be text"):
        parse_card_yaml("<<: {a: 1}\n", "card.yaml")


@pytest.mark.parametrize("key", ["'yes'", '"1"', "'null'", "'<<'"])
def test_a_key_in_quotes_is_text(key):
    data, _ = parse_card_yaml(f"{key}: 2\n", "card.yaml")
    assert data == {key.strip("'\""): 2}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a remark\n", "- a\n- b\n", "just words", "12", "[a: 1]"])
def test_what_is_no_map_at_the_top_is_refused(text):
    with pytest.raises(ModelCardError, match=r"card.yaml, line 1: a card is a map of keys"):
        parse_card_yaml(text, "card.yaml")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\n\tb: 2\n", 2, "tab"),
        ("a: [1, 2\nb: 3\n", 2, "expected"),
        ("a: 'open\n", 2, "unexpected end of stream"),
        ("a: 1\nb 2\nc: 3\n", 3, "expected ':'"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("%YAML 9.9\n---\na: 1\n", 1, "incompatible"),
    ],
)
def test_what_is_not_yaml_is_refused_with_line_and_reason(text, line, reason):
    with pytest.raises(ModelCardError, match=f"card.yaml, line {line}: not valid YAML: .*{reason}"):
        parse_card_yaml(text, "card.yaml")


def test_a_mark_of_byte_order_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_card_yaml(path)[0] == {"a": 1, "b": 2}


def test_a_card_that_is_not_there_is_a_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"The model card .*gone.yaml cannot be read: No such file"):
        read_card_yaml(tmp_path / "gone.yaml")


def test_a_folder_is_no_card(tmp_path: Path):
    with pytest.raises(MissingFileError, match="cannot be read: Is a directory"):
        read_card_yaml(tmp_path)
