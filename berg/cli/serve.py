"""``berg serve``"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from berg.core.exceptions import InvalidParameterError, MissingExtraError
from berg.system.memory import free_memory

TOKEN_VARIABLE = "BERG_SERVER_TOKEN"
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?B?)\s*", re.IGNORECASE)


def serve(
    *model_ids: str,
    port: int = 8000,
    host: str = "127.0.0.1",
    device: str = "auto",
    memory: str | None = None,
    token: str | None = None,
    name: list[str] | None = None,
    behind_proxy: bool = False,
    jobs: Path | None = None,
    berg_dir: Path | None = None,
) -> None:
    """Answer requests for responses over HTTP, with a page for a browser; until Ctrl+C.

    Without --host only this machine reaches it. In Python: berg.remote("http://127.0.0.1:8000").

    Parameters
    ----------
    model_ids
        The models that are offered; all that are here, if none is given.
    port
        Where it listens; 0 for any that is free.
    host
        The address of this machine at which it listens; 0.0.0.0 for all. Any but the loopback address takes a token.
    device
        auto, cpu, cuda, cuda:1 or mps.
    memory
        How much memory models may take, such as 4GB; half of what is free if not given. Those that nobody has asked
        for the longest go.
    token
        What each request must bring; one is made if it is needed and not given. Others on this machine can see a
        command: rather set the environment variable BERG_SERVER_TOKEN.
    name
        Further names by which the server is called, such as that of a proxy: --name lab.example.org
    behind_proxy
        A proxy on this machine says who asks (X-Forwarded-For).
    jobs
        A folder in which jobs are kept, and go on after a restart; without it, they end with the server.
    berg_dir
        The BERG directory. See:  berg where
    """
    with needing_server():
        from berg.server.run import Address
        from berg.server.run import serve as run
        from berg.server.service import Settings
    from berg.facade import BERG

    kept = free_memory() // 2 if memory is None else n_bytes(memory)
    settings = Settings(models=model_ids, device=device, memory=kept)
    given = token or os.environ.get(TOKEN_VARIABLE) or None
    address = Address(host, port, tuple(name or ()), given, behind_proxy, jobs)
    run(BERG(berg_dir), settings, address, lambda line: print(line, flush=True))


@contextmanager
def needing_server() -> Iterator[None]:
    """Say how to get what the server needs, if an import inside does not find it.

    Raises
    ------
    MissingExtraError
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "berg":
            raise
        raise MissingExtraError(
            f'The server needs {error.name}, which is not installed. Type:  pip install "berg[server]"'
        ) from error


def n_bytes(text: str) -> int:
    """A size in words as a number of bytes.

    >>> n_bytes("4GB"), n_bytes("500 MB"), n_bytes("1.5g")
    (4000000000, 500000000, 1500000000)

    Raises
    ------
    InvalidParameterError
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidParameterError(f"--memory takes a size such as 4GB or 500MB, got '{text}'.")
    unit = found[2].upper()
    return round(float(found[1]) * _UNITS[unit if unit in _UNITS else f"{unit}B"])
