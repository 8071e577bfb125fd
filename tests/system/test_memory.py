import subprocess
import sys

import pytest

from berg.system.memory import peak_memory, size_words


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_999, "1.0 MB"), (2.34e9, "2.3 GB"),
     (5.1e12, "5.1 TB"), (3.2e15, "3,200.0 TB")],
)  # fmt: skip
def test_bytes_are_written_with_the_unit_that_fits(n_bytes, words):
    assert size_words(n_bytes) == words


def test_the_peak_is_what_this_process_had_not_the_one_that_started_it():
    code = (
        "from berg.system.memory import peak_memory\nbefore = peak_memory()\nlarge = bytearray(100_000_000)\n"
        "del large\nprint(before, peak_memory() - before)"
    )
    held = bytearray(300_000_000)
    before, grown = map(int, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert 10e6 < before < len(held)
    assert 90e6 < grown < 120e6
    assert peak_memory() > len(held)
