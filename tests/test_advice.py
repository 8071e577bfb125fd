"""What the texts of the package tell people to type exists: verbs, options, names of Python.

All texts are collected from the source, with ``{}`` for what is filled in; docstrings are among them.
"""

import ast
import importlib
import inspect
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from cyclopts import CycloptsError

import berg
from berg.cli.app import VERBS, app
from berg.core import model_registry
from berg.responses.formats import FORMATS

MODEL = "fmri-szinte2024-prf_css"
PACKAGE = Path(berg.__file__).parent
COMMAND = re.compile(r"(?:(?<=  )|(?<=`)|(?<=^))berg ([a-z][a-z-]*)((?:(?!  )[^`\n])*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
DOTTED = re.compile(r"(?<![.\w])berg((?:\.[A-Za-z_]\w*)+)(\(?)")
KEYWORD = re.compile(r"in Python ([a-z_]+)=|\(([a-z_]+)=[A-Z][a-z]+\)")
FILES = (".lock", *FORMATS)
OF_OTHERS = {
    "--upgrade", "--force-reinstall", "--no-deps",  # of pip
    "--cache-dir",  # of hf
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
def source():
    """(file, the parts of its syntax that are texts, functions and classes), walked through once for all tests."""
    kinds = (ast.Constant, ast.JoinedStr, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [
        (path, [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, kinds)])
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


@cache
def texts():
    """(file, text), each once."""
    found = {}
    for path, nodes in source():
        parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            if id(node) not in parts and (text := text_of(node)):
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


@cache
def commands():
    """(verb, the rest, file)"""
    return sorted({(verb, rest, file) for file, text in texts() for verb, rest in COMMAND.findall(text)})


@cache
def options():
    """(option, file)"""
    return sorted({(option, file) for file, text in texts() for option in OPTION.findall(text)})


@cache
def names():
    """(name below berg, its bracket if it is called, file)"""
    return sorted({(name, call, file) for file, text in texts() for name, call in DOTTED.findall(text)})


def test_there_are_advices():
    assert len(commands()) > 60
    assert len(options()) > 60
    assert len(names()) > 100


def test_every_advised_verb_exists():
    assert [(verb, file) for verb, _, file in commands() if verb not in ALL_VERBS] == []


@pytest.mark.parametrize("verb", sorted(ALL_VERBS))
def test_an_advised_verb_has_its_options(verb):
    for own, rest, file in commands():
        unknown = {*OPTION.findall(rest)} - options_of(verb) - OF_OTHERS if own == verb else set()
        assert not unknown, (file, f"berg {verb}{rest}")


def test_every_option_that_a_text_names_is_one_of_some_verb():
    known = set().union(*map(options_of, ALL_VERBS)) | OF_OTHERS
    assert [(option, file) for option, file in options() if option not in known] == []


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
    for name, _, file in names():
        first = name.split(".")[1]
        known = hasattr(berg.BERG, first) or first in ("models", "berg_dir", "yaml") or name in FILES
        if not known and not exists(name):
            wrong.append((name, file))
    assert wrong == []


def test_every_argument_that_a_text_gives_is_one_of_some_function():
    given = {(name or other, file) for file, text in texts() for name, other in KEYWORD.findall(text)}
    known = {"allow_pickle", "keep_attrs"}  # of np.load and xr.set_options
    for _, nodes in source():
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                known |= {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
    assert given
    assert [pair for pair in sorted(given) if pair[0] not in known] == []


def test_the_options_of_encode_in_python_are_told_by_its_signature():
    assert {"size", "fit", "labelled", "return_metadata"} <= set(inspect.signature(berg.BERG.encode).parameters)


# Advised commands are parsed by the command itself, and advised calls are held to the function that they name.

PLACEHOLDERS = {
    "MODEL": MODEL, "MODEL_ID": MODEL, "CARD_OR_ID": MODEL, "FOLDER": "folder", "FILE": "responses.nc",
    "LEFT": "lh.gii", "RIGHT": "rh.gii", "{family}": "prf",
}  # fmt: skip
PARTS = {"dataset check", "convert {}{}"}  # the name of a verb in a sentence; a command that the code puts together


def words_of(verb, rest, filled):
    """The words of a command as one types them: without what is in brackets, and with names for placeholders."""
    text = re.sub(r"\[[^\]]*\]|:.*$", "", rest)
    return [verb, *(PLACEHOLDERS.get(word, word).replace("{}", filled) for word in shlex.split(text))]


def is_parsed(words):
    try:
        app.parse_args(words, print_error=False, exit_on_error=False)
    except CycloptsError:
        return False
    return True


def test_every_advised_command_can_be_typed():
    whole = sorted({(verb, rest.strip(), file) for verb, rest, file in commands() if re.match(r" [\w{-]", rest)})
    tried = [(verb, rest, file) for verb, rest, file in whole if f"{verb} {rest}" not in PARTS]
    assert len(tried) > 20
    wrong = [
        (file, f"berg {verb} {rest}")
        for verb, rest, file in tried
        if not any(is_parsed(words_of(verb, rest, filled)) for filled in (MODEL, "1"))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "words", ["encode MODEL --out a.nc", "evaluate MODEL", "new MODEL --class --nothing", "download --subject 1"]
)
def test_a_command_that_cannot_be_typed_is_seen(words):
    verb, _, rest = words.partition(" ")
    assert not is_parsed(words_of(verb, rest, MODEL))


CALL = re.compile(r"(?<![\w.])((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)\(((?:[^()]|\([^()]*\))*)\)")
GIVEN = re.compile(r"(?:^|, ?)([a-z_]+)=")


@cache
def arguments_by_name():
    """The arguments of every function and class of the package by its name; None among them: it takes any."""
    found = {}
    for _, nodes in source():
        for node in nodes:
            own = [node] if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") else []
            if isinstance(node, ast.ClassDef):
                own = [part for part in node.body if getattr(part, "name", "") == "__init__"]
                fields = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
                found.setdefault(node.name, set()).update(fields)
            for function in own:
                names = {each.arg for each in (*function.args.args, *function.args.kwonlyargs)}
                found.setdefault(node.name, set()).update(names | ({None} if function.args.kwarg else set()))
    return found


def wide_arguments():
    """What functions with ``**`` pass on: options of encoding, and parameters of the models."""
    known = arguments_by_name()
    passed = ("encode", "get_encoding_model", "generate_response", "encode_to_store", "encode_on_cluster", "load")
    parameters = {name for card in model_registry.readable_cards() for name in card.parameters}
    return set().union(*(known[name] for name in passed)) | parameters - {None}


def advised_calls():
    """(file, function, argument) of our functions; calls inside of a call count for themselves."""
    for file, text in texts():
        for name, inside in CALL.findall(text):
            *of, last = name.split(".")
            if (
                last in arguments_by_name()
                and last != "sel"
                and (not of or of[0] in ("berg", "model", "toolkit", "BERG"))
            ):
                outer = re.sub(r"\([^()]*\)", "", inside)
                yield from ((file, last, given) for given in GIVEN.findall(outer))
                yield from ((file, *call) for call in advised_inside(inside))


def advised_inside(text):
    for name, inside in CALL.findall(text):
        if name.startswith("berg.") and (last := name.rpartition(".")[2]) in arguments_by_name():
            yield from ((last, given) for given in GIVEN.findall(inside))


def unknown_arguments(calls):
    wide = wide_arguments()
    for file, function, given in calls:
        known = arguments_by_name()[function]
        if given not in known and not (None in known and given in wide):
            yield file, f"{function}({given}=)"


def test_every_advised_argument_is_one_of_the_function_that_is_named():
    calls = sorted(set(advised_calls()))
    assert len(calls) > 20
    assert list(unknown_arguments(calls)) == []


def test_an_argument_of_another_function_is_seen():
    assert list(unknown_arguments([("a.py", "load_images", "sampling_rate")]))
    assert list(unknown_arguments([("a.py", "encode", "batchsize")]))
    assert not list(unknown_arguments([("a.py", "encode", "subject"), ("a.py", "load_images", "recursive")]))
