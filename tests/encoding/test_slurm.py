"""Jobs of a real SLURM, which is started here where its packages are installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml

from berg.core.exceptions import InvalidParameterError
from berg.encoding.dask_scheduler import connected

from . import slurm
from .test_cluster import TESTS, at_the_gate, content, encode, on_one_machine, pictures_in, wait_for  # noqa: F401

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"
needs_slurm = pytest.mark.skipif(
    bool(slurm.MISSING),
    reason=f"SLURM is not installed ({', '.join(slurm.MISSING)}). On Debian: apt-get install slurmctld slurmd "
    "slurm-client munge",
)


def on_the_page() -> dict[str, Any]:
    """The jobqueue.yaml that the documentation shows."""
    (written,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    options: dict[str, Any] = yaml.safe_load(written)["jobqueue"]["slurm"]
    return options


def test_the_page_names_options_that_there_are() -> None:
    import dask_jobqueue  # which adds its defaults to the configuration

    assert dask_jobqueue.SLURMCluster.job_cls.config_name == "slurm"
    assert set(on_the_page()) <= set(dask.config.get("jobqueue.slurm"))


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A SLURM, and the jobqueue.yaml of the page with what is different here."""
    here = {
        "queue": "main",
        "account": None,
        "job-extra-directives": [],
        "cores": 1,
        "memory": "1GB",
        "interface": "lo",
        "python": sys.executable,
        "log-directory": str(tmp_path),
        "local-directory": str(tmp_path / "local"),
    }
    options = {**on_the_page(), **here}
    found_soon = {"distributed.deploy.lost-worker-timeout": "1s"}
    with tempfile.TemporaryDirectory() as folder, slurm.local_slurm(Path(folder)) as environment:
        for name, value in {**environment, "PYTHONPATH": TESTS}.items():
            monkeypatch.setenv(name, value)
        with dask.config.set({**{f"jobqueue.slurm.{name}": value for name, value in options.items()}, **found_soon}):
            yield


def running_jobs() -> list[str]:
    listed = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i"], check=True, capture_output=True, text=True)
    return listed.stdout.split()


@pytest.mark.slow
@needs_slurm
def test_a_job_that_is_cancelled_is_replaced(jobs: None, on_one_machine: Any, tmp_path: Path) -> None:  # noqa: F811
    def cancel_one() -> None:
        before = running_jobs()
        subprocess.run(["scancel", before[0]], check=True)
        wait_for(lambda: bool(set(running_jobs()) - set(before)))

    pictures, store = pictures_in(tmp_path, 80, gate=True), tmp_path / "cluster.zarr"
    with at_the_gate(store, cancel_one):
        encode(pictures, store, "slurm:2")
    assert content(store) == on_one_machine(pictures, tmp_path / "one.zarr")


@needs_slurm
def test_a_job_that_slurm_does_not_take_is_told(jobs: None) -> None:
    words = r"(?s)jobqueue\.yaml\) describes are not taken.*invalid partition specified: nonsense"
    wrong = dask.config.set({"jobqueue.slurm.queue": "nonsense"})
    with wrong, pytest.raises(InvalidParameterError, match=words), connected("slurm:2"):
        pass


def test_a_configuration_that_says_too_little_is_told() -> None:
    nothing = dask.config.set({"jobqueue.slurm.cores": None, "jobqueue.slurm.memory": None})
    words = r"jobqueue\.yaml\) must say.*cores, memory of a job"
    with nothing, pytest.raises(InvalidParameterError, match=words), connected("slurm:2"):
        pass
