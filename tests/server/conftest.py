"""A server of models on a socket of this machine, and a client."""

import pytest
from server_of_tests import served

from berg.server.remote_berg import remote


@pytest.fixture(scope="session")
def client():
    with served() as found:
        yield found


@pytest.fixture(scope="session")
def lab(client):
    return remote(client.address)
