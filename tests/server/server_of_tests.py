"""A server of models on a socket of this machine, and a client."""

import json
import threading
import time
from contextlib import contextmanager

import urllib3
import uvicorn

from berg import BERG
from berg.server.jobs import Jobs
from berg.server.run import Address, bind, configured
from berg.server.service import Service, Settings

PRF, SPIKES = "fmri-szinte2024-prf_css", "ephys-rokem2006-ln_renewal"


class Client:
    """Requests as any program sends them."""

    def __init__(self, address, service, jobs):
        self.address, self.service, self.jobs = address, service, jobs
        self.pool = urllib3.PoolManager(maxsize=16, retries=False)

    def request(self, method, path, **options):
        return self.pool.request(method, self.address + path, redirect=False, timeout=60, **options)

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def encode(self, files, path="/api/encode", headers=None, **request):
        """An answer to files, as (name, bytes) or (name, bytes, type)."""
        fields = [("request", json.dumps(request))]
        kinds = ["application/octet-stream"]
        fields += [("stimulus", (name, content, *(kind or kinds))) for name, content, *kind in files]
        return self.request("POST", path, fields=fields, headers=headers)


@contextmanager
def served(settings=None, address=None, access=None, berg=None):
    """A client of a server that runs in a thread."""
    where = address or Address(port=0)
    bound = bind(where)
    service = Service(berg or BERG(), settings or Settings())
    jobs = Jobs(service, where.jobs_folder)
    server = uvicorn.Server(configured(service, where, access or where.access(), jobs))
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive()
    try:
        yield Client(f"http://127.0.0.1:{bound.getsockname()[1]}", service, jobs)
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


def error(response):
    """Type and sentence of an answer that is an error."""
    told = json.loads(response.data)["error"]
    return told["type"], told["message"]
