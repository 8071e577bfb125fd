"""Where files lie and where they come from.

Each setting is looked for in this order: what the caller gives, the environment, the user's configuration
(``berg where`` names the file), the default.

==============  =======================  ==================  ===================================
setting         environment              configuration       default
==============  =======================  ==================  ===================================
BERG directory  ``BERG_DIR``             ``berg_dir``        the platform's folder for data
source          ``BERG_SOURCE``          ``source``          the public bucket
network source  ``BERG_NETWORK_SOURCE``  ``network_source``  where a network's publisher has it
offline         ``BERG_OFFLINE``         ``offline``         no
==============  =======================  ==================  ===================================
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from berg.core.exceptions import InvalidParameterError, did_you_mean
from berg.core.layout import PUBLISHED_NAME

ValueT = TypeVar("ValueT")

PUBLIC_BUCKET = f"s3://{PUBLISHED_NAME}?region=us-west-2"
_KEYS = {"berg_dir": str, "source": str, "network_source": str, "offline": bool}
_EXAMPLES = {
    "berg_dir": 'berg_dir = "/data/berg"',
    "source": 'source = "s3://bucket/prefix"',
    "network_source": 'network_source = "https://host/prefix"',
    "offline": "offline = true",
}
_NO = ("", "0", "false", "no", "off")
_YES = ("1", "true", "yes", "on")
_USER = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)?.*@", re.DOTALL)  # to the last @: a password may hold one, or a /
_OPTION = re.compile(r"(?<=[?&])(?!(?:region|endpoint)=)[^&#]*")


@dataclass(frozen=True)
class Setting(Generic[ValueT]):
    """A value, and in words where it comes from."""

    value: ValueT
    origin: str


def berg_dir(given: str | Path | None = None) -> Setting[Path]:
    """The BERG directory; it need not exist."""
    found = _first("berg_dir", "BERG_DIR", None if given is None else str(given))
    if found is None:
        from platformdirs import user_data_path

        return Setting(user_data_path("berg", appauthor=False) / PUBLISHED_NAME, "the default of this platform")
    return Setting(Path(found.value).expanduser(), found.origin)


def source(given: str | None = None) -> Setting[str]:
    """Where missing files are fetched from: ``s3://bucket?region=...``, ``https://...``, ``file:///...``."""
    return _first("source", "BERG_SOURCE", given) or Setting(PUBLIC_BUCKET, "the public bucket")


def network_source(given: str | None = None) -> Setting[str] | None:
    """A mirror of the weights of pretrained networks; None: each is fetched from its publisher."""
    return _first("network_source", "BERG_NETWORK_SOURCE", given)


def offline() -> Setting[bool]:
    """Whether fetching is forbidden.

    Raises
    ------
    InvalidParameterError
        If ``BERG_OFFLINE`` is neither yes nor no.
    """
    text = os.environ.get("BERG_OFFLINE")
    if text is not None:
        if text.strip().lower() not in (*_NO, *_YES):
            raise InvalidParameterError(f"BERG_OFFLINE is '{text}'; set it to 1 (no downloads) or 0.")
        return Setting(text.strip().lower() in _YES, "the environment variable BERG_OFFLINE")
    given = _configuration().get("offline")
    return Setting(False, "the default") if given is None else Setting(given, str(configuration_path()))


def without_secrets(text: str) -> str:
    """A source or an address as it may be shown: without name, password and token, however it is written.

    >>> without_secrets("https://me:secret@host/folder?token=abc"), without_secrets("s3://bucket?region=eu-west-1")
    ('https://***@host/folder?***', 's3://bucket?region=eu-west-1')
    """
    if text.startswith("file:///"):
        return text
    return _OPTION.sub("***", _USER.sub(r"\1***@", text)).partition("#")[0]


def without_query(text: str) -> str:
    """A text with addresses in it, without what follows a '?' in them: keys that a server gave out for a while.

    >>> without_query("GET /weights.npy?signature=abc HTTP/1.1")
    'GET /weights.npy?*** HTTP/1.1'
    """
    return re.sub(r"\?[^\s?]+", "?***", text)


def configuration_path() -> Path:
    """The user's configuration file, which need not exist."""
    from platformdirs import user_config_path

    return user_config_path("berg", appauthor=False) / "config.toml"


def _first(key: str, variable: str, given: str | None) -> Setting[str] | None:
    if given is not None:
        return Setting(given, "given")
    if os.environ.get(variable):
        return Setting(os.environ[variable], f"the environment variable {variable}")
    configured = _configuration().get(key)
    return None if configured is None else Setting(configured, str(configuration_path()))


def _configuration() -> dict[str, Any]:
    path = configuration_path()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidParameterError(f"The configuration {path} cannot be read: {error}") from error
    for key, value in content.items():
        if key not in _KEYS:
            hint = f"{did_you_mean(key, _KEYS)} Settings: {', '.join(_KEYS)}"
            raise InvalidParameterError(f"{path} has an unknown setting '{key}'.{hint}")
        if not isinstance(value, _KEYS[key]):
            raise InvalidParameterError(  # its value may hold a password
                f"{path}: {key} is of type {type(value).__name__}; write a {_KEYS[key].__name__}, such as "
                f"{_EXAMPLES[key]}"
            )
    return content
