"""Marks of single parameters of a test."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any, id: str | None = None) -> Any:
    """Parameters that are tried by ``make test-slow`` only; others of the same test run each line that they do."""
    return pytest.param(*values, marks=pytest.mark.slow, id=id)
