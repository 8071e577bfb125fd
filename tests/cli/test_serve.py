"""``berg serve`` as a command: it prints a link, answers, and ends cleanly."""

import os
import re
import signal
import subprocess
import sys

import pytest
import urllib3

from berg.cli.serve import n_bytes
from berg.core.exceptions import InvalidParameterError, ModelNotFoundError, ServerError
from berg.facade import BERG
from berg.server.run import Address, bind, serve
from berg.server.service import Settings

PRF = "fmri-szinte2024-prf_css"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_and_ends_cleanly(number, tmp_path):
    command = [sys.executable, "-m", "berg", "serve", PRF, "--port", "0", "--memory", "500MB"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        link = re.fullmatch(r"1 model at  (http://127.0.0.1:\d+/)\n", process.stdout.readline())[1]
        assert "500.0 MB of them are kept" in process.stdout.readline()
        assert [own["id"] for own in urllib3.request("GET", f"{link}api/models").json()["models"]] == [PRF]
        assert b"<title>BERG" in urllib3.request("GET", link).data
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken():
    with bind(Address(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"Nothing can listen at 127.0.0.1, port {port}.*--port {port + 1}"):
            serve(BERG(), Settings(), Address(port=port))
    with pytest.raises(InvalidParameterError, match="70000 is no port"):
        bind(Address(port=70_000))


def test_a_model_that_is_not_there_is_told_at_once():
    with pytest.raises(ModelNotFoundError, match="no model 'fmri-nothing'"):
        serve(BERG(), Settings(models=("fmri-nothing",)), Address(port=0))


def test_the_token_stands_in_the_link_where_browsers_keep_it():
    assert Address().link(8000, None) == "http://127.0.0.1:8000/"
    assert Address(host="::1").link(80, "secret") == "http://[::1]:80/#token=secret"


def test_a_size_that_is_none():
    assert n_bytes("2.5 GB") == 2_500_000_000
    with pytest.raises(InvalidParameterError, match="such as 4GB or 500MB, got 'much'"):
        n_bytes("much")
