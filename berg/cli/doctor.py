"""``berg doctor``"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from berg.cli.json_output import Json, print_json
from berg.core import settings
from berg.features.checkpoints import checkpoints_folder
from berg.system.byte_words import size_words


def doctor(*, json: Json = False, berg_dir: Path | None = None) -> None:
    """Look at this installation: versions, devices, directories, what is missing; exit code 1 if its test fails.

    Nothing is fetched or written. Put what it prints into a report of a problem.

    Parameters
    ----------
    json
        Print the findings as JSON.
    berg_dir
        The BERG directory. See:  berg where
    """
    from berg.models.installation import device_names, devices, missing_extras, self_test, versions

    missing = missing_extras()
    found: dict[str, Any] = {
        "system": _system(),
        "versions": versions(),
        "devices": [{**vars(device), "fast": device.fast} for device in devices()],
        "directories": [_directory(*place) for place in _directories(berg_dir)],
        "missing": {extra: {"packages": missing[extra], "install": _install(extra)} for extra in missing},
        "test": [self_test(device) for device in device_names()],
    }
    if json:
        print_json(found)
    else:
        _print(found)
    if any(test.fault for test in found["test"]):
        sys.exit(1)


def _system() -> str:
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"


def _install(extra: str) -> str:
    return f'pip install "berg[{extra}]"'


def _directories(berg_dir: Path | None) -> list[tuple[str, Path]]:
    return [
        ("BERG directory", settings.berg_dir(berg_dir).value),
        ("networks", checkpoints_folder()),
        ("configuration", settings.configuration_path().parent),
    ]


def _directory(name: str, path: Path) -> dict[str, Any]:
    above = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return {
        "name": name,
        "path": path,
        "exists": path.is_dir(),
        "writable": os.access(above, os.W_OK),
        "size": sum(_size(file) for file in path.rglob("*")) if path.is_dir() else 0,
        "free": shutil.disk_usage(above).free,
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # gone, or nobody may look
        return 0


def _print(found: dict[str, Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("system", found["system"])
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    for device in found["devices"]:
        table.add_row(device["device"], _device_words(device))
    for directory in found["directories"]:
        table.add_row(directory["name"], _directory_words(directory))
    for extra in found["missing"].values():
        table.add_row("missing", f"{', '.join(extra['packages'])}: {extra['install']}")
    for test in found["test"]:
        outcome = f"FAILED: {test.fault}" if test.fault else "passed"
        table.add_row("test", f"{outcome}, in {test.seconds:.1f} s on {test.device}")
    console.print(table)


def _device_words(device: dict[str, Any]) -> str:
    memory = "" if device["memory"] is None else f", {size_words(device['memory'])} free"
    slow = [name for name in device["speed"] if name not in device["fast"]]
    fast = ", ".join(_speed_words(device, name) for name in device["fast"])
    return f"{device['name']}{memory}; fast: {fast}" + (f"; slow: {', '.join(slow)}" if slow else "")


def _speed_words(device: dict[str, Any], precision: str) -> str:
    return precision if precision == "float32" else f"{precision} ({device['speed'][precision]:.1f} times float32)"


def _directory_words(directory: dict[str, Any]) -> str:
    state = f"{size_words(directory['size'])} here" if directory["exists"] else "not there yet"
    writable = "" if directory["writable"] else "; you may not write there"
    return f"{directory['path']} ({state}, {size_words(directory['free'])} free{writable})"
