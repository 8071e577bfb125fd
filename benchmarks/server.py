"""The server beside the same work in process, in one run: rates of eight clients, waiting, memory after many requests.

    python benchmarks/server.py                          # rates: unbatched, batched, in process
    python benchmarks/server.py --soak 10000             # so many requests, a fifth of them bad

The model is the built-in one of V1, its reliable voxels; the stimuli are JPEG pictures of 400 pixels, brought to 224.
Server, clients and the work in process share the cores of the machine, so that figures compare within one run only.
Rounds of all three take turns, and the median round counts. The batch time is what eight pictures take in process,
decoded, computed and returned.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
from PIL import Image

MODEL = "fmri-szinte2024-prf_css"
SELECTION = {"reliable": True}
SIZE = 224
N_PICTURES, N_CLIENTS, N_THREADS = 64, 8, 1
BOUNDARY = "berg-benchmark"
BAD = {"cut": 422, "text": 422, "wrong region": 422, "unknown model": 404}


def pictures() -> list[bytes]:
    """JPEG files cut from photographs."""
    from berg.stimuli.photographs import squares

    found = []
    for square in squares(N_PICTURES, 400):
        buffer = io.BytesIO()
        Image.fromarray(np.moveaxis(square, 0, -1)).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def run_server(port: Any, most_stimuli: int | None) -> None:
    """A server in a process of its own; tells its port."""
    import torch

    from berg import BERG
    from berg.server.limits import Limits
    from berg.server.run import Address, QuietlyEnding, bind, configured
    from berg.server.service import Service, Settings

    torch.set_num_threads(N_THREADS)
    address = Address(port=0)
    bound = bind(address)
    limits = Limits(requests_per_second=1e6)
    service = Service(BERG(), Settings(limits=limits, most_stimuli=most_stimuli))
    port.value = bound.getsockname()[1]
    QuietlyEnding(configured(service, address, address.access())).run([bound])


@contextmanager
def server(most_stimuli: int | None) -> Iterator[tuple[int, psutil.Process]]:
    """Port and process of a server that has loaded the model."""
    context = multiprocessing.get_context("spawn")
    port = context.Value("i", 0)
    process = context.Process(target=run_server, args=(port, most_stimuli))
    process.start()
    while not port.value:
        assert process.is_alive()
        time.sleep(0.05)
    yield port.value, psutil.Process(process.pid)
    process.terminate()
    process.join()


def body(picture: bytes, model: str = MODEL, selection: Any = None) -> bytes:
    """A form with one picture."""
    request = {"model": model, "selection": selection or SELECTION, "size": SIZE, "format": "arrays"}
    named = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="'
    head = f'{named}request"\r\n\r\n{json.dumps(request)}\r\n{named}stimulus"; filename="a.jpg"\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def asked(connection: http.client.HTTPConnection, content: bytes) -> tuple[int, bytes]:
    """Status and body of an answer."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("POST", "/api/encode", content, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def responses(content: bytes) -> np.ndarray:
    """The array in an answer."""
    with np.load(io.BytesIO(content)) as archive:
        return archive["output_0"]


def in_clients(port: int, n_clients: int, n_requests: int, work: Any) -> None:
    """Have clients ask, each one request after another: work(connection, number of the request)."""

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for number in range(first, n_requests, n_clients):
            work(connection, number)
        connection.close()

    threads = [threading.Thread(target=client, args=(first,)) for first in range(n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def rate(port: int, bodies: list[bytes], n_clients: int, n_requests: int) -> tuple[float, np.ndarray, list[np.ndarray]]:
    """Requests per second, the seconds that each waited, and the responses to the first pictures."""
    waited, found = np.zeros(n_requests), {}

    def work(connection: http.client.HTTPConnection, number: int) -> None:
        began = time.perf_counter()
        status, content = asked(connection, bodies[number % len(bodies)])
        waited[number] = time.perf_counter() - began
        assert status == 200, content
        found[number] = content

    began = time.perf_counter()
    in_clients(port, n_clients, n_requests, work)
    seconds = time.perf_counter() - began
    return n_requests / seconds, waited, [responses(found[number]) for number in range(min(n_requests, len(bodies)))]


def in_process(files: list[bytes], model: Any, n_requests: int) -> tuple[float, np.ndarray]:
    """Pictures per second, decoded and encoded eight at a time, and the responses to each alone."""
    from berg.stimuli.images import load_images

    began = time.perf_counter()
    for start in range(0, n_requests, N_CLIENTS):
        chosen = [files[number % len(files)] for number in range(start, start + N_CLIENTS)]
        model(load_images([Image.open(io.BytesIO(file)) for file in chosen], SIZE), show_progress=False)
    seconds = time.perf_counter() - began
    return n_requests / seconds, np.empty(0)


def rates(n_requests: int, n_rounds: int) -> None:
    """Print the rates of unbatched and batched server and in process, and how long one client waits."""
    import torch

    from berg import BERG
    from berg.stimuli.images import load_images

    torch.set_num_threads(N_THREADS)
    files = pictures()
    bodies = [body(file) for file in files]
    model = BERG().get_encoding_model(MODEL, selection=SELECTION)
    alone = np.stack([model(load_images(Image.open(io.BytesIO(file)), SIZE), show_progress=False)[0] for file in files])
    rows: dict[str, list[Any]] = {"unbatched": [], "batched": [], "in process": []}
    with server(1) as (unbatched, _), server(None) as (batched, _):
        ports = {"unbatched": unbatched, "batched": batched}
        for port in ports.values():
            rate(port, bodies, N_CLIENTS, N_CLIENTS)
        for _ in range(n_rounds):
            for name, port in ports.items():
                many, waited, got = rate(port, bodies, N_CLIENTS, n_requests)
                one = np.median(rate(port, bodies, 1, n_requests // 4)[1])
                rows[name].append((many, np.quantile(waited, 0.95), one, _difference(got, alone)))
            rows["in process"].append((in_process(files, model, n_requests)[0],))
    show(rows, n_requests)


def show(rows: dict[str, list[Any]], n_requests: int) -> None:
    """Print the median round, and the ratios that are promised."""
    middle = {name: np.median(np.array(own), axis=0) for name, own in rows.items()}
    print(
        f"{N_CLIENTS} clients, {n_requests} requests a round, {len(rows['batched'])} rounds; load {psutil.getloadavg()}"
    )
    for name in ("unbatched", "batched"):
        many, p95, one, difference = middle[name]
        print(
            f"{name:11s} {many:6.1f} /s   p95 {1000 * p95:6.0f} ms   one client {1000 * one:6.1f} ms   {difference:.1e}"
        )
    own = float(middle["in process"][0])
    print(f"in process  {own:6.1f} /s   batch time {1000 * N_CLIENTS / own:.0f} ms")
    many, p95, one, _ = middle["batched"]
    print(f"batched / unbatched  {many / middle['unbatched'][0]:.2f}")
    print(f"batched / in process {many / own:.2f}")
    print(f"p95 / batch time     {p95 * own / N_CLIENTS:.2f}")
    print(f"one client: {1000 * (one - middle['unbatched'][2]):+.1f} ms over unbatched")


def _difference(got: list[np.ndarray], alone: np.ndarray) -> float:
    """The largest difference from the responses in process, as a share of the largest response."""
    return float(max(np.abs(one[0] - own).max() for one, own in zip(got, alone, strict=False)) / np.abs(alone).max())


def soak(n_requests: int) -> None:
    """Print how many of many requests were lost or wrong, a fifth of them bad, and the memory of the server."""
    import torch

    from berg import BERG
    from berg.stimuli.images import load_images

    torch.set_num_threads(N_THREADS)
    files = pictures()
    model = BERG().get_encoding_model(MODEL, selection=SELECTION)
    alone = np.stack([model(load_images(Image.open(io.BytesIO(file)), SIZE), show_progress=False)[0] for file in files])
    good = [body(file) for file in files]
    kinds = list(BAD)
    bad = {
        "cut": body(files[0][:2000]),
        "text": body(b"no picture at all"),
        "wrong region": body(files[0], selection={"roi": "V5"}),
        "unknown model": body(files[0], model="fmri-no-model"),
    }
    counts: Counter[str] = Counter()
    memory: list[tuple[int, float]] = []
    largest = np.abs(alone).max()
    lock = threading.Lock()
    with server(None) as (port, process):

        def work(connection: http.client.HTTPConnection, number: int) -> None:
            kind = kinds[number // 5 % len(kinds)] if number % 5 == 0 else None
            place = number % len(good)
            try:
                status, content = asked(connection, bad[kind] if kind else good[place])
            except (OSError, http.client.HTTPException):
                result = "lost"
                connection.close()
            else:
                if kind:
                    result = "refused" if status == BAD[kind] else "wrong"
                else:
                    is_right = status == 200 and np.abs(responses(content)[0] - alone[place]).max() <= 1e-6 * largest
                    result = "right" if is_right else "wrong"
            with lock:
                counts[result] += 1
                done = sum(counts.values())
                if done % max(n_requests // 10, 1) == 0:
                    memory.append((done, process.memory_info().rss / 1e6))

        began = time.perf_counter()
        in_clients(port, N_CLIENTS, n_requests, work)
        print(
            f"{n_requests} requests in {time.perf_counter() - began:.0f} s: {dict(counts)}; load {psutil.getloadavg()}"
        )
        print("memory, MB: " + ", ".join(f"{rss:.0f} after {done:,}" for done, rss in memory))
        print(f"threads {process.num_threads()}, open files {process.num_fds()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--soak", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.soak:
        soak(arguments.soak)
    else:
        rates(arguments.requests, arguments.rounds)


if __name__ == "__main__":
    main()
