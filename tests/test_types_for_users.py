"""What a type checker tells users of the package."""

import re
import sys
from pathlib import Path

import pytest
from mypy import api

import berg

SCRIPT = """
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from berg import BERG
from berg.responses.labelled import Labelled, Responses

Metadata = dict[str, Any]
toolkit = BERG()
pictures = np.zeros((2, 3, 32, 32), "uint8")
model = toolkit.get_encoding_model("fmri-szinte2024-prf_css", subject=1)

assert_type(toolkit.encode(model, pictures), Responses)
assert_type(toolkit.encode("fmri-szinte2024-prf_css", pictures, subject=1, batch_size=8), Responses)
assert_type(toolkit.encode(model, pictures, out=np.empty((2, 5), "float32")), Responses)
assert_type(toolkit.encode(model, pictures, return_metadata=True), tuple[Responses, Metadata])
assert_type(toolkit.encode(model, pictures, True), tuple[Responses, Metadata])
assert_type(toolkit.encode(model, pictures, labelled=True), Labelled)
assert_type(toolkit.encode(model, pictures, True, labelled=True), tuple[Labelled, Metadata])
assert_type(toolkit.encode(model, pictures, out="r.zarr"), Labelled)
assert_type(toolkit.encode(model, pictures, True, out=Path("r.zarr")), tuple[Labelled, Metadata])
assert_type(toolkit.encode("fmri-nsd-fwrf", pictures, out="r.zarr", scheduler="local:2"), Labelled)

assert_type(toolkit.encode([model], pictures), list[Responses])
assert_type(toolkit.encode([model], pictures, True), tuple[list[Responses], list[Metadata]])
assert_type(toolkit.encode([model], pictures, labelled=True), list[Labelled])
assert_type(toolkit.encode([model], pictures, True, labelled=True), tuple[list[Labelled], list[Metadata]])
assert_type(toolkit.encode([model], pictures, out="r.zarr"), Labelled)
assert_type(toolkit.encode([model], pictures, True, out="r.zarr"), tuple[Labelled, list[Metadata]])


def by_a_switch(switch: bool) -> None:
    assert_type(toolkit.encode(model, pictures, switch), Any)


toolkit.encode(3, pictures)  # No overload variant of "encode"
toolkit.encode([model], pictures).shape  # "list[.*has no attribute "shape"
toolkit.encode(model, pictures, True).shape  # "tuple[.*has no attribute "shape"
"""


@pytest.mark.slow  # mypy reads the package
def test_mypy_knows_what_encode_returns(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    options = ["--follow-imports=silent", "--ignore-missing-imports", f"--cache-dir={tmp_path / 'cache'}"]
    report, _, _ = api.run([*options, f"--python-executable={sys.executable}", str(script)])
    found = {int(line): words for line, words in re.findall(r"script\.py:(\d+): error: (.*)", report)}
    lines = {number: line.partition("  # ")[2] for number, line in enumerate(SCRIPT.splitlines(), start=1)}
    wrong = {number: words.replace("[", r"\[") for number, words in lines.items() if words}
    assert found.keys() == wrong.keys(), report
    assert all(re.search(words, found[number]) for number, words in wrong.items()), report


def test_the_package_says_that_it_is_typed():
    assert (Path(berg.__file__).parent / "py.typed").exists()
