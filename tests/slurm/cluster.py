"""A SLURM cluster of four simulated nodes on this machine: the real daemons, run as root without systemd.

    python tests/slurm/cluster.py up      # then: sinfo, snakemake --profile slurm ...
    python tests/slurm/cluster.py down

It requires Debian's packages slurmctld, slurmd, slurm-client and munge. All nodes are this machine. They are
configured with more processors and memory than it has, so that the jobs of a real cluster fit; their GPUs are copies
of /dev/null, which SLURM counts and allocates like real ones. SLURM checks the memory of jobs every second
(JobAcctGatherParams=OverMemoryKill) and enforces their time limits; there are no cgroups and there is no accounting
database, so `sacct` prints nothing. Two nodes are in the partitions "cpu" and "gpu"; the two others are in the
partition "spare" and have the feature "spare".
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# SLURM_CONF is not sufficient: inside a job, Snakemake's executor removes SLURM_* variables that it does not know.
SYSTEM_CONF = Path("/etc/slurm/slurm.conf")
PROGRAMS = ("slurmctld", "slurmd", "munged", "mungekey", "sbatch", "srun", "scontrol")
PACKAGES = "slurmctld slurmd slurm-client munge"

_SLURM_CONF = """\
ClusterName=simulated
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SrunPortRange={first_srun}-{last_srun}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=7200
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} CoresPerSocket={cpus} RealMemory={mem_mb} Gres=gpu:{gpus} State=UNKNOWN
{node_lines}
PartitionName=cpu Nodes={main} Default=YES State=UP
PartitionName=gpu Nodes={main} State=UP
PartitionName=spare Nodes={spare} State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """The cluster whose state is in `folder`; the docstring of the module describes it."""

    folder: Path = Path("/tmp/ssondo-slurm")
    nodes: tuple[str, ...] = ("n1", "n2")
    spare_nodes: tuple[str, ...] = ("n3", "n4")
    cpus: int = 64
    mem_mb: int = 256_000
    gpus: int = 4
    port: int = 17_800

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def all_nodes(self) -> tuple[str, ...]:
        return (*self.nodes, *self.spare_nodes)

    def obstacle(self) -> str | None:
        """Return why no cluster can be started here, or None if it can."""
        if os.geteuid():
            return "the daemons of SLURM must be started as root"
        missing = [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]
        if missing:
            return f"{', '.join(missing)} not found; apt-get install --no-install-recommends {PACKAGES}"
        if SYSTEM_CONF.exists() and SYSTEM_CONF.resolve() != self.conf and _controller_of(SYSTEM_CONF) is not None:
            return f"{SYSTEM_CONF} belongs to another cluster that is running"
        if SYSTEM_CONF.exists() and not SYSTEM_CONF.is_symlink():
            return f"{SYSTEM_CONF} belongs to another cluster"
        return None

    def up(self) -> None:
        """Start the daemons and wait until the nodes accept jobs."""
        if self._pid("slurmctld") is not None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "state").mkdir(parents=True)
        self.folder.chmod(0o755)
        self._configure()
        _run("mungekey", "--create", f"--keyfile={self.folder}/munge.key")
        _run(
            "munged",
            *(f"--{name}={self.folder}/munge.{end}" for name, end in (("key-file", "key"), ("socket", "socket"))),
            *(f"--{name}={self.folder}/munge.{end}" for name, end in (("pid-file", "pid"), ("log-file", "log"))),
            f"--seed-file={self.folder}/munge.seed",
            "--force",
        )
        _run("slurmctld", "-c", "-f", str(self.conf))
        for node in self.all_nodes:
            (self.folder / f"spool-{node}").mkdir()
            self._start(node)
        _until(lambda: all(self.state(node) == "idle" for node in self.all_nodes), "the nodes are idle")

    def down(self) -> None:
        """Cancel all jobs and stop the daemons."""
        if self._pid("slurmctld") is not None:
            jobs = self.query("squeue", "-h", "-o", "%A").split()
            if jobs:
                self.query("scancel", *jobs)
                with suppress(TimeoutError):
                    _until(lambda: not self.query("squeue", "-h", "-o", "%A").split(), "the jobs are gone", 30)
        daemons = [*(f"slurmd-{node}" for node in self.all_nodes), "slurmctld", "munge"]
        for daemon in daemons:
            pid = self._pid(daemon)
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
                _until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"{daemon} has ended", 30)
        if SYSTEM_CONF.is_symlink() and SYSTEM_CONF.readlink() == self.conf:
            SYSTEM_CONF.unlink()

    @contextmanager
    def running(self) -> Iterator["Cluster"]:
        try:
            self.up()
            yield self
        finally:
            self.down()

    def query(self, *command: str) -> str:
        """Run a SLURM command on this cluster and return its output."""
        return _run(*command, SLURM_CONF=str(self.conf))

    def state(self, node: str) -> str:
        """Return the state of a node, such as idle, mixed, draining, drained or down."""
        return self.query("sinfo", "-h", "-N", "-n", node, "-o", "%T").split()[0]

    def lose(self, node: str) -> None:
        """Kill all processes of a node, as a power failure does, and report the node to SLURM as lost."""
        jobs = self.query("squeue", "-h", "-w", node, "-o", "%A").split()
        daemon = self._pid(f"slurmd-{node}")
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes()
                environment = (process / "environ").read_bytes().split(b"\0")
                step = re.match(rb"slurmstepd: \[(\d+)\.", command)
                if (
                    int(process.name) == daemon
                    or f"SLURMD_NODENAME={node}".encode() in environment
                    or (step and step[1].decode() in jobs)
                ):
                    os.kill(int(process.name), signal.SIGKILL)
        self.query("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")

    def restore(self, node: str) -> None:
        """Make a drained or lost node accept jobs again."""
        if self._pid(f"slurmd-{node}") is None:
            self._start(node)
        self.query("scontrol", "update", f"nodename={node}", "state=resume")
        _until(lambda: self.state(node) in ("idle", "mixed"), f"{node} accepts jobs")

    def _start(self, node: str) -> None:
        _run("slurmd", "-f", str(self.conf), "-N", node)

    def _configure(self) -> None:
        host, lines = socket.gethostname().partition(".")[0], []
        for i, node in enumerate(self.all_nodes):
            kind = " Features=spare" if node in self.spare_nodes else ""
            lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.port + 1 + i}{kind}")
        text = _SLURM_CONF.format(
            **vars(self),
            host=host,
            main=",".join(self.nodes),
            spare=",".join(self.spare_nodes),
            node_lines="\n".join(lines),
            first_srun=self.port + 100,
            last_srun=self.port + 199,
        )
        self.conf.write_text(text)
        devices = []
        for i in range(self.gpus):
            device = self.folder / f"gpu{i}"
            try:
                os.mknod(device, 0o20666, os.makedev(1, 3))
            except PermissionError:
                device.touch()
            devices.append(str(device))
        files = ",".join(devices)
        (self.folder / "gres.conf").write_text(f"NodeName={','.join(self.all_nodes)} Name=gpu File={files}\n")
        SYSTEM_CONF.parent.mkdir(exist_ok=True)
        SYSTEM_CONF.unlink(missing_ok=True)
        SYSTEM_CONF.symlink_to(self.conf)

    def _pid(self, daemon: str) -> int | None:
        return _pid(self.folder / f"{daemon}.pid", str(self.folder))


def _controller_of(conf: Path) -> int | None:
    """Return the process ID of the running controller that uses the configuration `conf`, or None."""
    for line in conf.read_text().splitlines():
        key, _, value = line.partition("=")
        if key.strip().lower() == "slurmctldpidfile":
            return _pid(Path(value), "slurmctld")
    return _pid(Path("/var/run/slurmctld.pid"), "slurmctld")


def _pid(file: Path, part_of_command: str) -> int | None:
    """Return the process ID in a file if the process runs and its command line contains `part_of_command`."""
    try:
        pid = int(file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, ValueError):
        return None
    return pid if part_of_command in command else None


def _path() -> str:
    return f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"


def _run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": _path(), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {done.stdout}")
    return done.stdout


def _until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    cluster = Cluster()
    if sys.argv[1:] == ["up"]:
        reason = cluster.obstacle()
        if reason:
            sys.exit(f"error: {reason}")
        cluster.up()
    elif sys.argv[1:] == ["down"]:
        cluster.down()
    else:
        sys.exit("usage: cluster.py up | down")
