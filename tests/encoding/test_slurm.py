"""Jobs of a real SLURM, which is started here where its packages are installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml

from berg.core.exceptions import DeviceError, InvalidParameterError
from berg.encoding.dask_scheduler import connected
from berg.encoding.estimate import Estimate
from berg.encoding.slurm_jobs import job_options, with_estimate

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
    words = r"(?s)SLURM does not take the jobs that --slurm .*jobqueue\.yaml.*invalid partition specified: nonsense"
    wrong = dask.config.set({"jobqueue.slurm.queue": "nonsense"})
    with wrong, pytest.raises(InvalidParameterError, match=words), connected("slurm:2"):
        pass


def test_a_job_asks_slurm_for_what_was_given() -> None:
    from dask_jobqueue import SLURMCluster

    described = {"cores": None, "memory": None, "job-extra-directives": ["--exclusive"]}
    given = {"memory": "8GB", "walltime": "1:00:00", "partition": "gpu", "gres": "gpu:1"}
    script = SLURMCluster.job_cls("tcp://10.0.0.1:8786", name="0", **job_options(given, described)).job_script()
    asked = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {"-p gpu", "-t 1:00:00", "--gres=gpu:1", "--exclusive", "--cpus-per-task=4", "--mem=8G"} <= set(asked)


def test_a_job_gets_cores_and_memory_if_nobody_says_it() -> None:
    described = {"cores": None, "memory": None, "job-extra-directives": []}
    assert job_options({}, described) == {"cores": 4, "memory": "16GB", "job_extra_directives": []}
    configured = job_options({"cores": "2"}, {"cores": 8, "memory": "3GB", "job-extra-directives": []})
    assert (configured["cores"], configured["memory"]) == (2, "3GB")


def measured(gigabytes: float, hours: float) -> Callable[[], Estimate]:
    return lambda: Estimate(0, int(gigabytes * 1e9), 3600 * hours, 1.0, 0, 0)


@pytest.mark.parametrize(
    ("given", "described", "asked"),
    [
        ({}, {}, {"memory": "7GB", "walltime": "1:40:00"}),  # 1.5 * 4 + 1 GB; 3 * 2 h / 4 and ten minutes
        ({"memory": "8GB"}, {"walltime": "08:00:00"}, {"memory": "8GB"}),
        ({"walltime": "2:00:00"}, {"memory": "3GB"}, {"walltime": "2:00:00"}),
        ({"partition": "gpu"}, {"memory": "3GB"}, {"partition": "gpu", "walltime": "1:40:00"}),
    ],
)
def test_memory_and_time_that_nobody_says_are_those_that_were_measured(given, described, asked) -> None:  # type: ignore[no-untyped-def]
    known = {"memory": None, "walltime": "00:30:00", **described}
    assert with_estimate(given, known, 4, measured(4, 2)) == asked


def test_a_day_is_the_longest_job_that_is_asked_for() -> None:
    assert with_estimate({}, {"memory": "1GB"}, 1, measured(1, 1000)) == {"walltime": "24:00:00"}


def test_what_cannot_be_measured_here_is_left_to_dask(caplog: pytest.LogCaptureFixture) -> None:
    def nothing() -> Estimate:
        raise DeviceError("There is no GPU.")

    assert with_estimate({"cores": "2"}, {}, 4, nothing) == {"cores": "2"}
    assert "say it with --slurm: There is no GPU." in caplog.text


@pytest.mark.parametrize("cores", ["many", "0", "1.5"])
def test_cores_that_are_no_number_are_refused(cores: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"cores={cores}: a job has whole cores"):
        job_options({"cores": cores}, {"cores": None, "memory": None, "job-extra-directives": []})


def test_what_is_said_of_jobs_without_slurm_is_refused() -> None:
    with (
        pytest.raises(InvalidParameterError, match="describe jobs of SLURM: --scheduler slurm:2"),
        connected("local:2", {"memory": "8GB"}),
    ):
        pass
