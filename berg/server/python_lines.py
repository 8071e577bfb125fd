"""The lines of Python that give the responses of a request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from berg.server.contract import EncodeRequest
from berg.server.tagged_json import untagged

_MOST_NAMES = 8


def python_lines(asked: EncodeRequest, stimuli: Sequence[Any]) -> str:
    """What one types to get the same responses from files of the same names.

    >>> print(python_lines(EncodeRequest(model="a-b-c", parameters={"subject": 1}, size=224), ["face.png"]))
    import berg
    <BLANKLINE>
    responses = berg.BERG().encode(
        "a-b-c",
        ["face.png"],
        labelled=True,
        subject=1,
        size=224,
    )
    """
    selection = {"selection": untagged(asked.selection)} if asked.selection else {}
    rate = {} if asked.sampling_rate is None else {"sampling_rate": asked.sampling_rate}
    size = {name: value for name in ("size", "fit") if (value := getattr(asked, name)) is not None}
    options = {**untagged(asked.parameters), **selection, **rate, **size}
    lines = [f"    {name}={value!r}," for name, value in options.items()]
    given = [f'    "{asked.model}",', f"    {_stimuli(stimuli)},", "    labelled=True,", *lines]
    return "\n".join(["import berg", "", "responses = berg.BERG().encode(", *given, ")"])


def _stimuli(names: Sequence[Any]) -> str:
    if not all(isinstance(name, str) for name in names):
        return "stimuli"
    shown = ", ".join(json.dumps(name, ensure_ascii=False) for name in names[:_MOST_NAMES])
    return f"[{shown}]" if len(names) <= _MOST_NAMES else f"[{shown}, ...]"
