"""What the texts of the package tell people to type exists: verbs, options, names of Python.

All texts are collected from the source, with ``{}`` for what is filled in; docstrings are among them.
"""

import ast
import importlib
import inspect
import re
from functools import cache
from pathlib import Path

import pytest

import berg
from berg.cli.app import VERBS, app
from berg.responses.formats import FORMATS

PACKAGE = Path(berg.__file__).parent
COMMAND = re.compile(r"(?:(?<=  )|(?<=`)|(?<=^))berg ([a-z][a-z-]*)((?:(?!  )[^`\n])*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
DOTTED = re.compile(r"(?<![.\w])berg((?:\.[A-Za-z_]\w*)+)(\(?)")
KEYWORD = re.compile(r"in Python ([a-z_]+)=|\(([a-z_]+)=[A-Z][a-z]+\)")
FILES = (".lock", *FORMATS)
OF_OTHERS = {
    "--upgrade", "--force-reinstall", "--no-deps",  # of pip
    "--gres", "--exclusive", "--remove-destination",  # of SLURM and cp
    "--help", "--quiet", "--verbose",  # of every verb
}  # fmt: skip


def text_of(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "{}" for part in node.values)
    return None


@cache
def texts():
    """(file, text), each once."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if text := text_of(node):
                found.setdefault((path.relative_to(PACKAGE).as_posix(), text))
    return list(found)


@cache
def options_of(verb):
    """The options of a verb, with those of its own verbs."""
    command = app[verb]
    commands = [command, *(command[name] for name in command if not name.startswith("-"))]
    collected = set()
    for each in commands:
        if each.default_command is not None:
            for argument in each.assemble_argument_collection():
                collected |= {name for name in argument.names if name.startswith("--")}
    return collected


ALL_VERBS = [verb for verbs in VERBS.values() for verb, *_ in verbs]
COMMANDS = sorted({(verb, rest, file) for file, text in texts() for verb, rest in COMMAND.findall(text)})
OPTIONS = sorted({(option, file) for file, text in texts() for option in OPTION.findall(text)})
NAMES = sorted({(name, call, file) for file, text in texts() for name, call in DOTTED.findall(text)})


def test_there_are_advices():
    assert len(COMMANDS) > 60
    assert len(OPTIONS) > 60
    assert len(NAMES) > 100


@pytest.mark.parametrize("verb", sorted({verb for verb, *_ in COMMANDS}))
def test_an_advised_verb_exists_with_its_options(verb):
    assert verb in ALL_VERBS, [file for own, _, file in COMMANDS if own == verb]
    for own, rest, file in COMMANDS:
        unknown = {*OPTION.findall(rest)} - options_of(verb) - OF_OTHERS if own == verb else set()
        assert not unknown, (file, f"berg {verb}{rest}")


def test_every_option_that_a_text_names_is_one_of_some_verb():
    known = set().union(*map(options_of, ALL_VERBS)) | OF_OTHERS
    assert [(option, file) for option, file in OPTIONS if option not in known] == []


def exists(dotted):
    """Whether a dotted name below berg is a module, or a name in one."""
    parts = dotted.strip(".").split(".")
    found, here = berg, "berg"
    for part in parts:
        here += f".{part}"
        if hasattr(found, part) or (part not in vars(found) and importlib.util.find_spec(here)):
            found = getattr(found, part, None) or importlib.import_module(here)
        else:
            return False
    return True


def test_every_name_of_python_that_a_text_gives_exists():
    """``berg`` stands for the package, or for an object of `BERG` as in the guide."""
    wrong = []
    for name, _, file in NAMES:
        first = name.split(".")[1]
        known = hasattr(berg.BERG, first) or first in ("models", "berg_dir", "yaml") or name in FILES
        if not known and not exists(name):
            wrong.append((name, file))
    assert wrong == []


def test_every_argument_that_a_text_gives_is_one_of_some_function():
    given = {(name or other, file) for file, text in texts() for name, other in KEYWORD.findall(text)}
    known = {"allow_pickle", "keep_attrs"}  # of np.load and xr.set_options
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                known |= {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
    assert given
    assert [pair for pair in sorted(given) if pair[0] not in known] == []


def test_the_options_of_encode_in_python_are_told_by_its_signature():
    assert {"size", "fit", "labelled", "return_metadata"} <= set(inspect.signature(berg.BERG.encode).parameters)
