"""The scheduler of dask that hands work to the workers of a cluster: one that runs already, or is started here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from berg.core.exceptions import InvalidParameterError, MissingExtraError, listing

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
_CORES, _MEMORY = 4, "16GB"  # of a job, if nobody says it
_NAMES_OF_DASK = {"walltime": "walltime", "partition": "queue", "account": "account"}
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
        What each job of SLURM asks for, see `job_options`. It comes before dask's configuration.

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


def _local(n_workers: int, jobs: Mapping[str, str]) -> SpecCluster:
    if jobs:
        raise InvalidParameterError(f"{listing(jobs)} describe jobs of SLURM: --scheduler slurm:{n_workers}")
    free_port = "127.0.0.1:0"
    return LocalCluster(n_workers=n_workers, worker_class=_OwnGPU, dashboard_address=free_port, memory_limit=None)


def job_options(jobs: Mapping[str, str], described: Mapping[str, Any]) -> dict[str, Any]:
    """What a job of SLURM asks for, in the words of dask-jobqueue.

    Parameters
    ----------
    jobs
        ``memory`` (such as 8GB), ``cores``, ``walltime`` (hours:minutes:seconds), ``partition`` and ``account``; any
        other word is an option of sbatch, such as ``gres=gpu:1``.
    described
        dask's configuration, ``jobqueue.slurm``, for what is not given. If neither says it: 4 cores, 16 GB.

    Examples
    --------
    >>> described = {"cores": None, "memory": None, "job-extra-directives": []}
    >>> job_options({"memory": "8GB", "partition": "gpu", "gres": "gpu:1"}, described)
    {'cores': 4, 'memory': '8GB', 'queue': 'gpu', 'job_extra_directives': ['--gres=gpu:1']}
    """
    words = dict(jobs)
    cores = words.pop("cores", described["cores"] or _CORES)
    if not str(cores).isdecimal() or int(cores) < 1:
        raise InvalidParameterError(f"cores={cores}: a job has whole cores. For example --slurm cores=4")
    options: dict[str, Any] = {"cores": int(cores), "memory": words.pop("memory", described["memory"] or _MEMORY)}
    options |= {own: words.pop(name) for name, own in _NAMES_OF_DASK.items() if name in words}
    extra = [f"--{name}={text}" for name, text in words.items()]
    return {**options, "job_extra_directives": [*described["job-extra-directives"], *extra]}


def _slurm(n_workers: int, jobs: Mapping[str, str]) -> SpecCluster:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise MissingExtraError('SLURM needs dask-jobqueue:  pip install "berg[cluster]"') from error
    described = dask.config.get("jobqueue.slurm")
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
