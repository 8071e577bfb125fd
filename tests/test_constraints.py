"""What pyproject.toml promises, and the versions that are tested, are the same."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def direct(*without):
    """The requirements of the package and its extras."""
    extras = {name: part for name, part in PROJECT["optional-dependencies"].items() if name not in without}
    texts = [*PROJECT["dependencies"], *(text for part in extras.values() for text in part)]
    return sorted({text for text in texts if not text.startswith("berg[")})


def pins(name):
    """The versions of a constraints file by name."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


@pytest.mark.parametrize("text", direct("docs"))
def test_the_lowest_promised_version_is_the_one_that_is_tested(text):
    wanted = Requirement(text)
    lowest = [part.version for part in wanted.specifier if part.operator == ">="]
    assert len(lowest) == 1, "a lower bound, so that something is promised"
    assert pins("constraints-lowest.txt")[canonicalize_name(wanted.name)] == Version(lowest[0])


@pytest.mark.parametrize("text", direct())
def test_the_exact_version_of_development_is_allowed_to_users(text):
    wanted = Requirement(text)
    assert wanted.specifier.contains(pins("constraints.txt")[canonicalize_name(wanted.name)])
