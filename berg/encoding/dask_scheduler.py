"""The scheduler of dask that hands work to the workers of a cluster: one that runs already, or is started here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from berg.core.exceptions import InvalidParameterError, MissingExtraError, listing
from berg.encoding.slurm_jobs import job_options

try:
    import dask
    from distributed import Client, LocalCluster, Nanny
    from distributed.core import Status
    from distributed.deploy import SpecCluster
    from tornado.ioloop import PeriodicCallback
except ImportError as missing:
    raise MissingExtraError('Encoding on a cluster needs dask:  pip install "berg[cluster]"') from missing

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_CONFIGURATION = "dask's configuration (~/.config/dask/jobqueue.yaml)"
_REPLACE_EVERY = 5_000  # milliseconds between two checks for jobs that are gone


@contextmanager
def connected(scheduler: Client | str, jobs: Mapping[str, str] | None = None) -> Iterator[Client]:
    """Connect to a scheduler. Workers that are asked for by number are started here, and ended at the end.

    Parameters
    ----------
    scheduler
        ``local``, one process per GPU of this machine; ``local:2``, two processes, which take turns at its GPUs
        if it has any; ``slurm:8``, eight workers in jobs as dask's configuration says (``jobqueue.slurm``); the
        address of a scheduler that runs, such as ``tcp://10.0.0.1:8786``; or a `distributed.Client`.
    jobs
        What each job of SLURM asks for, see `berg.encoding.slurm_jobs.job_options`; it comes before dask's
        configuration.

    Raises
    ------
    InvalidParameterError
        For anything else; if no scheduler answers; if SLURM takes no jobs; and for ``local`` without a GPU.
    """
    if isinstance(scheduler, Client):
        yield scheduler
    elif "://" in scheduler:
        with _answering(scheduler) as client:
            yield client
    else:
        with _started(scheduler, jobs or {}) as cluster:
            _check_jobs(cluster)
            with _kept_up(cluster), Client(cluster, set_as_default=False) as client:
                yield client


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each by the name that ``CUDA_VISIBLE_DEVICES`` takes."""
    given = os.environ.get(_VISIBLE)
    names = map(str, range(torch.cuda.device_count())) if given is None else given.split(",")
    return [name.strip() for name in names if name.strip() not in ("", "-1")]


class _OwnGPU(Nanny):  # type: ignore[misc]
    """Start a process that sees one GPU; the next process sees the next GPU. Without a GPU, just a process."""

    def __init__(self, *arguments: Any, name: int, **options: Any) -> None:
        gpus = visible_gpus()
        environment = {_VISIBLE: gpus[name % len(gpus)]} if gpus else {}
        super().__init__(*arguments, name=name, env=environment, **options)


def slurm_described() -> dict[str, Any]:
    """What dask's configuration says of jobs of SLURM."""
    try:
        import dask_jobqueue  # noqa: F401  # which brings its part of the configuration
    except ImportError as error:
        raise MissingExtraError('SLURM needs dask-jobqueue:  pip install "berg[cluster]"') from error
    described: dict[str, Any] = dask.config.get("jobqueue.slurm")
    return described


def _local(n_workers: int, jobs: Mapping[str, str]) -> SpecCluster:
    if jobs:
        raise InvalidParameterError(f"{listing(jobs)} describe jobs of SLURM: --scheduler slurm:{n_workers}")
    free_port = "127.0.0.1:0"
    return LocalCluster(n_workers=n_workers, worker_class=_OwnGPU, dashboard_address=free_port, memory_limit=None)


def _slurm(n_workers: int, jobs: Mapping[str, str]) -> SpecCluster:
    described = slurm_described()
    from dask_jobqueue import SLURMCluster

    ports = {"dashboard_address": ":0", **described["scheduler-options"]}
    return SLURMCluster(n_workers=n_workers, scheduler_options=ports, **job_options(jobs, described))


_CLUSTERS: dict[str, Callable[[int, Mapping[str, str]], SpecCluster]] = {"local": _local, "slurm": _slurm}


def _started(scheduler: str, jobs: Mapping[str, str]) -> SpecCluster:
    kind, _, number = scheduler.partition(":")
    if scheduler == "local":
        return _local(_n_gpus(), jobs)
    if kind in _CLUSTERS and number.isdecimal() and int(number) > 0:
        return _CLUSTERS[kind](int(number), jobs)
    raise InvalidParameterError(
        f"'{scheduler}' is no scheduler. Allowed: {' and '.join(f'{name}:N' for name in _CLUSTERS)}, N processes or "
        "jobs; local, one process per GPU; the address of a scheduler, such as tcp://10.0.0.1:8786. Try local:2"
    )


def _n_gpus() -> int:
    if not (gpus := visible_gpus()):
        raise InvalidParameterError("There is no GPU here to count. Say how many processes: local:2")
    return len(gpus)


@contextmanager
def _answering(address: str) -> Iterator[Client]:
    try:
        client = Client(address, set_as_default=False)  # what others compute with dask stays as it is
    except (OSError, ValueError) as error:
        raise InvalidParameterError(
            f"No scheduler answers at {address} ({error}). Start one with:  dask scheduler"
        ) from error
    with client:
        yield client


def _check_jobs(cluster: SpecCluster) -> None:
    """Raise InvalidParameterError if SLURM takes no jobs; dask would wait for them."""

    async def submitted() -> None:
        await cluster
        for job in list(cluster.workers.values()):
            await job  # tries once more to submit a job that was not taken

    try:
        cluster.sync(submitted)
    except (OSError, RuntimeError) as error:
        for job in cluster.workers.values():
            job.status = job.status if job.status is Status.running else Status.failed  # else it cannot be closed
        raise InvalidParameterError(
            f"SLURM does not take the jobs that --slurm or {_CONFIGURATION} describes: {error}"
        ) from error


@contextmanager
def _kept_up(cluster: SpecCluster) -> Iterator[None]:
    """Replace jobs that end before their time (`scancel`, a node that fails); dask does so only when asked to."""
    asking = PeriodicCallback(lambda: cluster.scale(len(cluster.plan)), _REPLACE_EVERY)
    cluster.loop.add_callback(asking.start)
    try:
        yield
    finally:
        cluster.loop.add_callback(asking.stop)
