"""The files that must be refused, and a program that reads them under guard.

``FILES`` builds them; nothing of them is kept in the repository. As a program,
``python -m tests.weights.hostile FOLDER`` reads each of them from a folder and prints what
happened: a file that ends the process then ends that one, and not the tests.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .hostile_archives import F32, HONEST_TENSOR, PT, SAFETENSORS, pt, st
from .hostile_pickles import BOMBS, CANARY, HIDDEN, TRUNCATED, WITH_CODE, honest_npy

ADDRESS_SPACE_BYTES = 2**30
CPU_SECONDS = 300
# Shared machines are slow; the slowest file takes 4 s.
MOST_SECONDS = 60
MOST_GROWTH_KIB = 2**19


@dataclass(frozen=True)
class Hostile:
    """A file that must be refused; `asks_for_code` if with UnsafeFileError."""

    ending: str
    build: Callable[[], bytes]
    asks_for_code: bool


FILES: dict[str, Hostile] = {
    **{name: Hostile(".npy", build, True) for name, build in WITH_CODE.items()},
    **{name: Hostile(".npy", build, False) for name, build in (HIDDEN | TRUNCATED).items()},
    **{name: Hostile(".safetensors", build, False) for name, build in SAFETENSORS.items()},
    **{name: Hostile(".pt", *build) for name, build in PT.items()},
    # Last: the greatest memory the process ever had is measured.
    **{name: Hostile(".npy", build, False) for name, build in BOMBS.items()},
}


_WATCHED = ("os.", "subprocess.", "exec", "compile", "import", "open", "pickle.", "marshal.", "ctypes.",
            "socket.", "urllib.", "shutil.", "tempfile.", "code.", "builtins.input")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Guard:
    """Record what the process does to the world while one file is read."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self.events: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.file is None or not event.startswith(_WATCHED):
            return
        if event == "open" and str(arguments[0]) == str(self.file) and not arguments[2] & _WRITING:
            return
        self.events.append(f"{event} {arguments!r:.200}")


def read(path: Path) -> object:
    from berg.weights.npy_files import read_npy
    from berg.weights.pt_files import read_pt
    from berg.weights.safetensors_files import read_safetensors

    readers: dict[str, Callable[[Path], object]] = {
        ".npy": read_npy,
        ".pt": read_pt,
        ".safetensors": read_safetensors,
    }
    return readers[path.suffix](path)


def outcome(path: Path, guard: Guard) -> dict[str, Any]:
    """Read one file; what came of it, as plain values."""
    peak, start = _memory_kib("VmHWM"), time.perf_counter()
    guard.events.clear()
    guard.file = path
    try:
        read(path)
        error, message, lineage = "none", "", []
    except BaseException as raised:
        error, message = type(raised).__name__, str(raised)
        lineage = [parent.__name__ for parent in type(raised).__mro__]
    guard.file = None
    seconds = time.perf_counter() - start
    grown = _memory_kib("VmHWM") - peak
    return {"error": error, "message": message, "lineage": lineage, "events": list(guard.events),
            "seconds": seconds, "grown_kib": grown, "canary": Path(CANARY).exists()}  # fmt: skip


def limit_resources() -> None:
    """Let the process have one more GiB where its size is known, and some minutes."""
    if size := _memory_kib("VmSize"):
        limit = size * 1024 + ADDRESS_SPACE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))


def _memory_kib(field: str) -> int:
    """VmSize or VmHWM (the most it ever was) of this process; 0 elsewhere than on Linux."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def warm_up(folder: Path) -> None:
    """Read an honest file of each kind, so that what is imported late is there."""
    for name, data in {
        "warm.npy": honest_npy(),
        "warm.pt": pt(HONEST_TENSOR),
        "warm.safetensors": st({"w": F32}),
    }.items():
        (folder / name).write_bytes(data)
        read(folder / name)


def read_guarded(folder: Path, chosen: Collection[str]) -> dict[str, dict[str, Any]]:
    """What came of reading some of the files, by name; they are written into the folder.

    Raises
    ------
    subprocess.CalledProcessError
        When one of them ended the process.
    """
    for name, hostile in FILES.items():
        if name in chosen:
            (folder / f"{name}{hostile.ending}").write_bytes(hostile.build())
    command = [sys.executable, "-m", __name__, str(folder)]
    folders = os.pathsep.join([str(_folder_of_imports()), *sys.path])
    environment = {**os.environ, "PYTHONPATH": folders}
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    lines = [json.loads(line) for line in printed.stdout.splitlines()]
    return {line.pop("name"): line for line in lines}


def _folder_of_imports() -> Path:
    """The folder above the outermost package of this module."""
    return Path(__file__).parents[__name__.count(".")]


def names(ending: str) -> list[str]:
    """The files of one kind."""
    found = [name for name, hostile in FILES.items() if hostile.ending == ending]
    assert len(found) > 30
    return found


def check_refused(name: str, outcome: dict[str, Any]) -> None:
    """Assert that a file was refused with its error, and that nothing else happened."""
    expected = "UnsafeFileError" if FILES[name].asks_for_code else "CorruptedFileError"
    assert outcome["error"] == expected, outcome["message"]
    assert "BERGError" in outcome["lineage"]
    assert f"{name}{FILES[name].ending}" in outcome["message"]
    assert "berg download" in outcome["message"]
    assert outcome["events"] == []
    assert not outcome["canary"]
    assert outcome["seconds"] < MOST_SECONDS


def check_memory(outcomes: dict[str, dict[str, Any]]) -> None:
    """Assert that all files together never had the process grow much."""
    assert sum(outcome["grown_kib"] for outcome in outcomes.values()) < MOST_GROWTH_KIB


def main(folder: Path) -> None:
    folder = folder.resolve()
    os.chdir(folder)
    warm_up(folder)
    guard = Guard()
    limit_resources()
    for name, hostile in FILES.items():
        path = folder / f"{name}{hostile.ending}"
        if path.exists():
            print(json.dumps({"name": name, **outcome(path, guard)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
