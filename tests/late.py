"""Packages that take seconds to import, imported when a test uses them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Late:
    """A module that is imported when something of it is used first.

    Every worker imports the files of all tests; one of them runs the tests of a file.
    """

    def __init__(self, name: str) -> None:
        self.__name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self.__name), attribute)
