"""Warnings point at the line of the user, however deep in the package they come from."""

import ast
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import berg
from berg import BERG
from berg.core.stacklevel import users_stacklevel

MODEL_ID = "fmri-szinte2024-prf_css"
FEW = {"min_held_out_r2": 0.8}


def pictures(folder):
    for number in (2, 10):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / f"picture {number}.png")
    return folder


def nothing_is_selected(folder):
    BERG().get_encoding_model(MODEL_ID, "cpu", {"min_held_out_r2": 1.0})


def files_in_another_order(folder):
    BERG().encode(MODEL_ID, pictures(folder), device="cpu", selection=FEW, stimulus_width_deg=1.0)


def few_pixels_in_a_module_of_pytorch(folder):
    BERG().encode(MODEL_ID, np.zeros((2, 3, 32, 32), "uint8"), device="cpu", selection=FEW)


def the_same_into_a_store(folder):
    BERG().encode(MODEL_ID, np.zeros((2, 3, 32, 32), "uint8"), device="cpu", selection=FEW, out=folder / "r.zarr")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (nothing_is_selected, "has no columns"),
        (files_in_another_order, "order of their names"),
        (few_pixels_in_a_module_of_pytorch, "pixels per degree"),
        (the_same_into_a_store, "pixels per degree"),
    ],
)
def test_a_warning_points_at_the_line_of_the_user(call, words, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(tmp_path)
    found = [warning for warning in caught if words in str(warning.message)]
    assert {warning.filename for warning in found} == {__file__}
    first = call.__code__.co_firstlineno
    assert all(first < warning.lineno < first + 3 for warning in found)


def test_the_level_counts_frames_up_to_the_first_outside():
    inside = {"__name__": "berg.anything", "users_stacklevel": users_stacklevel}
    exec("def warn(): return users_stacklevel()\ndef deep(n): return deep(n - 1) if n else warn()", inside)
    assert users_stacklevel() == 1
    assert inside["warn"]() == 2
    assert inside["deep"](3) == 6


def test_no_warning_of_the_package_counts_its_frames_by_hand():
    levels = []
    takes_its_place = "heard_warnings.py"  # of warnings.warn, and passes its level on
    for path in (each for each in Path(berg.__file__).parent.rglob("*.py") if each.name != takes_its_place):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("warnings.warn", "warn"):
                level = [ast.unparse(word.value) for word in node.keywords if word.arg == "stacklevel"]
                levels.append((path.name, node.lineno, *level))
    assert len(levels) > 15
    assert [level for level in levels if level[2:] != ("users_stacklevel()",)] == []
