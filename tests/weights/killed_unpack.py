"""Run as a program: unpack again and again, killed before each change of the disk in turn; print what was left.

Arguments: the zip file, an empty folder, and a folder with a BERG directory to begin with (may be empty).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from berg.weights.unpack import finish_or_clean, unpack

WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def tree(folder: Path) -> dict[str, str]:
    """The hash of each file; that of a lock says nothing."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def unpack_in_child(archive: Path, berg_dir: Path, kill_at: int | None) -> int:
    """How the child ended: 0, or minus the signal."""
    child = os.fork()
    if child == 0:
        if kill_at is not None:
            kill_before(kill_at, str(berg_dir))
        unpack(archive, berg_dir, overwrite=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_before(step: int, folder: str) -> None:
    """Let the process die right before it touches the folder for the n-th time."""
    steps = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        if event in WATCHED and any(folder in str(argument) for argument in arguments):
            steps += 1
            if steps > step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def trials(archive: Path, scratch: Path, before: Path) -> list[dict[str, object]]:
    found = []
    for kill_at in range(10_000):
        berg_dir = scratch / str(kill_at)
        shutil.copytree(before, berg_dir)
        code = unpack_in_child(archive, berg_dir, kill_at)
        killed = tree(berg_dir)
        finish_or_clean(berg_dir)
        recovered = tree(berg_dir)
        again = unpack_in_child(archive, berg_dir, None)
        found.append({"code": code, "killed": killed, "recovered": recovered, "again": again, "after": tree(berg_dir)})
        left = [path.name for path in berg_dir.iterdir() if path.name.startswith(".")]
        found[-1]["left"] = left
        shutil.rmtree(berg_dir)
        if code == 0:
            return found
    raise AssertionError("it never ends")


if __name__ == "__main__":
    print(json.dumps(trials(*map(Path, sys.argv[1:]))))
