"""What a job of SLURM asks for: what was given, what dask's configuration says, and what was measured here."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from berg.core.exceptions import DeviceError, DeviceMemoryError, InvalidParameterError
from berg.encoding.estimate import Estimate

_CORES, _MEMORY = 4, "16GB"  # of a job, if nobody says it and nothing could be measured
_NAMES_OF_DASK = {"walltime": "walltime", "partition": "queue", "account": "account"}
_UNSAID = (None, "00:30:00")  # of the wall time: what dask-jobqueue comes with
_MEMORY_TIMES, _MEMORY_PLUS = 1.5, 10**9  # for other nodes, and what a worker of dask has besides
_TIME_TIMES, _TIME_PLUS = 3, 600  # for slower nodes; seconds until a job has loaded its model
_LONGEST = 24 * 3600  # seconds; a job that ends before the work is replaced, and many partitions allow no more
LOG = logging.getLogger(__name__)


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


def with_estimate(
    jobs: Mapping[str, str], described: Mapping[str, Any], n_jobs: int, measure: Callable[[], Estimate]
) -> dict[str, str]:
    """The same, with memory and wall time from an estimate if nobody says them.

    Half as much memory again as was measured here, and three times its share of the time, so that a node may be slower
    and a job wait for its share; a job that ends before the work is replaced.

    Parameters
    ----------
    measure
        Measures on this machine what all would take; called only if something is not said.

    Examples
    --------
    >>> estimate = Estimate(10**9, 3 * 10**9, 7200.0, 10.0, 0, 0)
    >>> with_estimate({"cores": "2"}, {"memory": None, "walltime": "00:30:00"}, 4, lambda: estimate)
    {'cores': '2', 'memory': '6GB', 'walltime': '1:40:00'}
    """
    unsaid = {"memory": described.get("memory") is None, "walltime": described.get("walltime") in _UNSAID}
    missing = [name for name, is_unsaid in unsaid.items() if is_unsaid and name not in jobs]
    if not missing:
        return dict(jobs)
    try:
        found = measure()
    except (DeviceError, DeviceMemoryError) as error:
        LOG.warning("What a job of SLURM takes could not be measured here, say it with --slurm: %s", error)
        return dict(jobs)
    words = {"memory": _memory(found), "walltime": _walltime(found, n_jobs)}
    asked = {**jobs, **{name: words[name] for name in missing}}
    LOG.info("each job of SLURM asks for %s", ", ".join(f"{name}={text}" for name, text in asked.items()))
    return asked


def _memory(estimate: Estimate) -> str:
    return f"{math.ceil((_MEMORY_TIMES * estimate.memory_bytes + _MEMORY_PLUS) / 10**9)}GB"


def _walltime(estimate: Estimate, n_jobs: int) -> str:
    seconds = min(_LONGEST, _TIME_TIMES * estimate.seconds / n_jobs + _TIME_PLUS)
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d}:00"
