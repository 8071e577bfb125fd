"""A real SLURM of one node on this machine, from its packages; it ends with the test."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


@contextmanager
def local_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """SLURM with four cores (more than there may be); gives what its commands need in their environment."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    configuration, host = folder / "slurm.conf", socket.gethostname().split(".")[0]
    ports = {"port": _free_port(), "node_port": _free_port()}
    configuration.write_text(CONFIGURATION.format(host=host, user=getpass.getuser(), folder=folder, **ports))
    with ExitStack() as running:
        _start(running, folder, "munged", "--foreground", "--force", *_munge_options(folder))
        _wait_for(folder / "munge" / "socket")
        _start(running, folder, "slurmctld", "-D", "-f", str(configuration))
        _start(running, folder, "slurmd", "-D", "-f", str(configuration), "-N", host)
        environment = {"SLURM_CONF": str(configuration)}
        _wait_until_idle(environment, folder)
        yield environment


def _munge_options(folder: Path) -> list[str]:
    key = folder / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    places = {"key-file": key, **{name: folder / "munge" / name for name in ("socket", "pid-file", "log-file")}}
    places["seed-file"] = folder / "munge" / "seed"
    return [f"--{name}={place}" for name, place in places.items()]


def _start(running: ExitStack, folder: Path, program: str, *options: str) -> None:
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None
    output = running.enter_context((folder / f"{program}.out").open("wb"))
    process = subprocess.Popen([found, *options], stdout=output, stderr=output, start_new_session=True)
    running.callback(process.wait)
    running.callback(process.terminate)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _wait_for(path: Path) -> None:
    for _ in range(300):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} does not appear")


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    for _ in range(300):
        nodes = subprocess.run(["sinfo", "-h", "-o", "%T"], env={**os.environ, **environment}, capture_output=True)
        if nodes.stdout.strip() == b"idle":
            return
        time.sleep(0.2)
    logs = "\n".join(file.read_text(errors="replace")[-2000:] for file in folder.glob("*.log"))
    raise AssertionError(f"SLURM does not start:\n{logs}")
