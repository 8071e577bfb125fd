"""What ``--json`` prints: the figures of a table, for other programs."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Parameter

from berg.core.json_values import plain

Json = Annotated[bool, Parameter(name="--json", negative="")]
"""The option of every verb that prints a table."""


def print_json(data: Any) -> None:
    """Print data as JSON; see `berg.core.json_values.plain`."""
    print(json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False))
