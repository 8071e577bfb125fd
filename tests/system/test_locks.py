import logging
import os
import subprocess
import sys
from threading import Event, Thread

import pytest

from berg.core.exceptions import StorageError
from berg.system.locks import directory_lock, wait_for_lock


def test_a_second_thread_waits_until_the_lock_is_free_and_says_so(tmp_path, caplog):
    order, held, asked = [], Event(), Event()

    def second():
        held.wait()
        asked.set()
        with directory_lock(tmp_path):
            order.append("second")

    thread = Thread(target=second)
    thread.start()
    with caplog.at_level(logging.WARNING), directory_lock(tmp_path):
        held.set()
        asked.wait()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert f"Another process is at work in {tmp_path}" in caplog.text
    assert not any(tmp_path.iterdir())


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    code = (
        "import sys, os\nfrom pathlib import Path\nfrom berg.system.locks import wait_for_lock\n"
        "with wait_for_lock(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.lock"], timeout=60)
    with wait_for_lock(tmp_path / "a.lock"):
        pass


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder in which nobody may write")
def test_a_lock_that_cannot_be_written_names_what_it_is_for(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match=rf"{tmp_path / 'weights.npy'} cannot be written.*."),
        wait_for_lock(tmp_path / "file" / "a.lock", tmp_path / "weights.npy"),
    ):
        pass
