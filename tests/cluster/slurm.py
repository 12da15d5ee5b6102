"""A SLURM of this test's own: a controller and two nodes in Linux namespaces that nobody else sees, and that vanish with everything in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from workbench import Workbench

# What SLURM's programs and munge's library look for without being told. In the namespace there is a file system in memory, for all of the cluster's files.
PLACE = Path("/etc/slurm")
PROGRAMS = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "munged": "munge",
    "unshare": "util-linux",
    "ip": "iproute2",
}
NODES = ("n1", "n2")
UP = ("idle", "mixed", "allocated")  # a star behind it: the node does not answer
HOST = "controller"
ADDRESS = "192.0.2.1"  # on the loopback interface; a resolver that knows 127.0.0.1 alone resolves nothing

# Without accounting, as the least of clusters. A node that says nothing for 5 s is down; ended jobs stay visible for those who ask `squeue`.
CONFIGURATION = f"""\
ClusterName=test
SlurmctldHost={HOST}({ADDRESS})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={PLACE}/munge.socket,cred_expire=5
StateSaveLocation={PLACE}/state
SlurmdSpoolDir={PLACE}/spool-%n
SlurmdPidFile={PLACE}/slurmd-%n.pid
SlurmctldPidFile={PLACE}/slurmctld.pid
SlurmctldLogFile={PLACE}/slurmctld.log
SlurmdLogFile={PLACE}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
MinJobAge=7200
SlurmdTimeout=5
MessageTimeout=3
TCPTimeout=1
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=2
KillWait=2
NodeName=n[1-2] NodeHostname={HOST} NodeAddr={ADDRESS} Port=[17001-17002] CPUs=2 RealMemory=8000
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


# Of a cluster without accounting; and checks at once instead of after 40 s.
OF_THIS_CLUSTER = ("--slurm-no-account", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1")


class NotPossibleError(Exception):
    """This machine cannot run the cluster; the message says what it lacks."""


def check_machine() -> None:
    """Raise `NotPossibleError` where a program or a right is missing."""
    if os.geteuid() != 0:
        raise NotPossibleError("root is needed, to make namespaces and to start SLURM in them")
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            raise NotPossibleError(f"no {program} on this machine: apt-get install {package}")
    configured = [name for name in ("slurm.conf", "slurmdbd.conf") if (PLACE / name).exists()]
    if configured or "SLURM_CONF" in os.environ:
        raise NotPossibleError(
            f"this machine has a SLURM of its own ({', '.join(configured) or 'SLURM_CONF is set'}), which no test may meet"
        )
    if not PLACE.is_dir():
        raise NotPossibleError(f"there is no folder {PLACE} to put a file system on: apt-get install slurm-wlm")


def wait_for(what: str, holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something holds, or fail and say what."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.1)


@dataclass(frozen=True)
class Cluster:
    """A running SLURM. All that is to see it goes through `inside`."""

    keeper: int  # the process that keeps the namespaces

    def inside(self, *command: str, folder: Path = Path("/")) -> list[str]:
        """The command that runs a command in the cluster's namespaces."""
        entered = ["nsenter", "--target", str(self.keeper), "--mount", "--net", "--uts", "--pid", f"--wd={folder}"]
        return [*entered, "--", *command]

    def run(self, *command: str, folder: Path = Path("/")) -> str:
        """What a command in there printed; it must end well."""
        done = subprocess.run(self.inside(*command, folder=folder), capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr, self.logs())
        return done.stdout.strip()

    def bring_back(self, node: str) -> None:
        """Start a node's daemon if it is lost."""
        if self.state_of(node) not in UP:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        """Start a node's daemon and wait until the controller can use it."""
        self.run("slurmd", "-N", node)
        wait_for(f"{node} to be up", lambda: self.state_of(node) in UP)

    def lose_node(self, node: str) -> None:
        """Kill a node's daemon, then all that runs on it: what still works may say so to nobody."""
        self.run("kill", "-9", self.run("cat", f"{PLACE}/slurmd-{node}.pid"))
        numbers = self.run("squeue", "--noheader", "--states=running", "--nodelist", node, "--format=%A").split()
        for number in numbers:
            subprocess.run(self.inside("pkill", "-9", "-f", rf"^slurmstepd: \[{number}\."), check=False)
        script = f"for job in /proc/[0-9]*; do ! grep -qsz '^SLURMD_NODENAME={node}$' $job/environ || kill -9 ${{job#/proc/}}; done"
        self.run("sh", "-c", script)

    def kill_one(self, program: str) -> bool:
        """Kill one process whose command line ends in this program's name; false if there is none."""
        command = self.inside("pkill", "-9", "--newest", "-f", rf"python.*{program}$")
        return subprocess.run(command, check=False).returncode == 0

    def state_of(self, node: str) -> str:
        """`idle`, `mixed`, `allocated`, `down`, with a mark such as `*` where the node does not answer."""
        return self.run("sinfo", "--noheader", "--Node", "--nodes", node, "--format", "%T")

    def jobs(self) -> list[dict[str, str]]:
        """All jobs and tasks of arrays that SLURM remembers, in the order of their numbers."""
        fields = {
            "id": "JobArrayID",
            "state": "State",
            "node": "NodeList",
            "memory": "MinMemory",
            "restarts": "RestartCnt",
            "comment": "Comment",
        }
        rows = self.run(
            "squeue", "--noheader", "--array", "--states=all", "--sort=i", "--Format", ",".join(f"{field}:|" for field in fields.values())
        ).splitlines()
        return [dict(zip(fields, row.split("|"), strict=False)) for row in rows]

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        command = self.inside("sh", "-c", f"tail -n 30 {PLACE}/*.log")
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@dataclass
class ClusterBench(Workbench):
    """A workbench whose Snakemake runs on the cluster's login node, so to speak, with the cluster profile as it ships."""

    cluster: Cluster = field(kw_only=True)

    def launcher(self) -> list[str]:
        command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", *OF_THIS_CLUSTER]
        return self.cluster.inside(*command, folder=self.code)

    def asked(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.snakemake(*arguments)


@contextmanager
def slurm() -> Iterator[Cluster]:
    """A cluster with both of its nodes idle; on leaving, every process in it is killed and its files are gone."""
    check_machine()
    # Namespaces of mounts, network, host name and processes. When the process that keeps them ends, the kernel kills all in them.
    command = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"]
    unshare = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        cluster = Cluster(_keeper(unshare))
        cluster.run("hostname", HOST)
        cluster.run("ip", "link", "set", "lo", "up")
        cluster.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        cluster.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(PLACE))
        _write(cluster, "slurm.conf", CONFIGURATION.encode())
        _write(cluster, "munge.key", os.urandom(128))
        cluster.run("chmod", "600", f"{PLACE}/munge.key")
        _start_munge(cluster)
        cluster.run("slurmctld")
        wait_for("the controller to answer", lambda: _answers(cluster))
        for node in NODES:
            cluster.start_node(node)
        yield cluster
    finally:
        unshare.kill()
        unshare.wait()


def _keeper(unshare: subprocess.Popen[str]) -> int:
    """The process in the new namespaces: the child of `unshare`."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    until = time.monotonic() + 10
    while time.monotonic() < until and unshare.poll() is None:
        if found := children.read_text().split():
            name = Path(f"/proc/{found[0]}/comm").read_text().strip()
            if name == "sleep":
                return int(found[0])
        time.sleep(0.01)
    unshare.kill()
    said = unshare.communicate()[1].strip()
    raise NotPossibleError(f"namespaces cannot be made here: {said or 'unshare did nothing for 10 s'}")


def _write(cluster: Cluster, name: str, content: bytes) -> None:
    subprocess.run(cluster.inside("tee", f"{PLACE}/{name}"), input=content, stdout=subprocess.DEVNULL, check=True)


def _start_munge(cluster: Cluster) -> None:
    files = {
        "key-file": "munge.key",
        "socket": "munge.socket",
        "pid-file": "munged.pid",
        "log-file": "munged.log",
        "seed-file": "munge.seed",
    }
    cluster.run("munged", "--force", *(f"--{option}={PLACE}/{name}" for option, name in files.items()))


def _answers(cluster: Cluster) -> bool:
    return subprocess.run(cluster.inside("scontrol", "ping"), capture_output=True, check=False).returncode == 0
