"""Downloading: ours beside curl and requests, from the same server on this machine, in one run.

    python benchmarks/download.py                   # 1 file of 1 GB, 500 files of 1 MB, best of 3
    python benchmarks/download.py --repeats 1 --large 200 --small 50

The server is aiohttp's static one (sendfile, ETag, ranges) in a process of its own: moto holds objects in
Python and would be what is measured. The sides take turns. Ours hashes what is on disk, brings it to the disk
(fsync) and can go on after a kill; `ours, no fsync` says what the second of these costs. curl and requests only write.
A limit on the rate of each connection (`--rate`, MB/s) shows what several connections are for.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

CONNECTIONS = 4
Side = Callable[[str, list[str], Path], object]


def serve(folder: Path, rate: float) -> None:
    """Serve a folder until killed; its port is printed first."""
    from aiohttp import web

    async def limited(request: web.Request) -> web.StreamResponse:
        """A range at so many bytes per second."""
        content = (folder / request.match_info["name"]).read_bytes()
        wanted = request.http_range
        body = memoryview(content)[wanted.start or 0 : wanted.stop]
        is_range = wanted.start is not None
        response = web.StreamResponse(status=206 if is_range else 200, headers={"ETag": '"1"'})
        response.content_length = len(body)
        if is_range:
            first = wanted.start
            response.headers["Content-Range"] = f"bytes {first}-{first + len(body) - 1}/{len(content)}"
        await response.prepare(request)
        for start in range(0, len(body), step := int(rate / 50)):
            await response.write(body[start : start + step])
            await asyncio.sleep(1 / 50)
        return response

    async def main() -> None:
        application = web.Application()
        if rate:
            application.router.add_get("/{name}", limited)
        else:
            application.router.add_static("/", folder)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


def ours(url: str, names: list[str], folder: Path) -> None:
    from berg.transfer.fetch import WantedFile, fetch

    fetch(url, [WantedFile(name) for name in names], folder, parallel=CONNECTIONS)


def ours_no_fsync(url: str, names: list[str], folder: Path) -> None:
    fsync, os.fsync = os.fsync, lambda descriptor: None
    try:
        ours(url, names, folder)
    finally:
        os.fsync = fsync


def ours_one_connection(url: str, names: list[str], folder: Path) -> None:
    from berg.transfer.fetch import WantedFile, fetch

    fetch(url, [WantedFile(name) for name in names], folder, parallel=1)


def curl(url: str, names: list[str], folder: Path) -> None:
    command = ["curl", "--silent", "--fail", "--parallel", "--parallel-max", str(CONNECTIONS)]
    for name in names:
        command += ["--output", str(folder / name), f"{url}/{name}"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # its meter shows in spite of --silent


def requests(url: str, names: list[str], folder: Path) -> None:
    import requests

    session = requests.Session()

    def get(name: str) -> None:
        with session.get(f"{url}/{name}", stream=True) as response, (folder / name).open("wb") as file:
            response.raise_for_status()
            for chunk in response.iter_content(2**20):
                file.write(chunk)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(get, names))


SIDES: dict[str, Side] = {
    "ours": ours,
    "ours, no fsync": ours_no_fsync,
    "ours, 1 connection": ours_one_connection,
    "curl": curl,
    "requests": requests,
}


def seconds(side: Side, url: str, names: list[str], hashes: list[str]) -> float:
    """How long one side takes, once; its files are checked afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        os.sync()
        start = time.perf_counter()
        side(url, names, Path(folder))
        elapsed = time.perf_counter() - start
        for name, expected in zip(names, hashes, strict=True):
            with (Path(folder) / name).open("rb") as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == expected, name
    return elapsed


def write_files(folder: Path, prefix: str, count: int, n_bytes: int) -> tuple[list[str], list[str]]:
    rng, names, hashes = np.random.default_rng(0), [], []
    for index in range(count):
        content = rng.bytes(n_bytes)
        names.append(f"{prefix}-{index:03d}.npy")
        hashes.append(hashlib.sha256(content).hexdigest())
        (folder / names[-1]).write_bytes(content)
    return names, hashes


def compare(title: str, url: str, names: list[str], hashes: list[str], repeats: int) -> None:
    for name in names:  # into the page cache, for the first side as for the last
        shutil.copyfile(Path(os.environ["SHELF"]) / name, os.devnull)
    best = dict.fromkeys(SIDES, float("inf"))
    for _ in range(repeats):
        for name, side in SIDES.items():
            best[name] = min(best[name], seconds(side, url, names, hashes))
    print(f"{title} (load {os.getloadavg()[0]:.1f})")
    for name, elapsed in best.items():
        print(f"  {name:20} {elapsed:7.2f} s   {elapsed / best['curl']:5.2f} x curl", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=int, default=1000, help="MB of the large file")
    parser.add_argument("--small", type=int, default=500, help="how many files of 1 MB")
    parser.add_argument("--rate", type=float, default=0, help="MB/s of each connection; 0: as fast as it goes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve, arguments.rate * 1e6)
    with tempfile.TemporaryDirectory() as shelf:
        os.environ["SHELF"] = shelf
        large = write_files(Path(shelf), "large", 1, arguments.large * 10**6)
        small = write_files(Path(shelf), "small", arguments.small, 10**6)
        command = [sys.executable, __file__, "--serve", shelf, "--rate", str(arguments.rate)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            compare(f"1 file of {arguments.large} MB", url, *large, arguments.repeats)
            compare(f"{arguments.small} files of 1 MB", url, *small, arguments.repeats)
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
