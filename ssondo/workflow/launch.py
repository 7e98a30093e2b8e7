"""The processes of a training: one, several on this node, or several on each node of a SLURM job.

The verb is a rule's command, and it replaces its own process by the one that it starts, so signals reach that one.
"""

import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence

from ssondo.errors import SsondoError


def launch(arguments: list[str], /, *, gpus: int, nodes: int, cpus: int, gres: str = "") -> None:
    """Start a training on one or several GPUs and nodes.

    An example is `ssondo launch --gpus 4 --nodes 1 --cpus 16 -- distill --seed 0`, with the other options of `distill`.
    One process is started by `ssondo` itself, several processes by torchrun, and those on several nodes by srun and
    torchrun, which meet at a port of the first node.

    Args:
        arguments: Command, distill or supervise, and its options, all after `--`.
        gpus: Number of GPUs of a job on one node.
        nodes: Number of nodes of the job.
        cpus: Number of processor cores of each node.
        gres: GPUs of each node as SLURM names them, e.g. gpu:a100:4. If it is empty, the option gpus is used.

    Raises:
        SsondoError: if `gres` contains no number of GPUs, or several nodes are requested outside a SLURM job.
    """
    command = training_command(arguments, gpus=gpus, nodes=nodes, cpus=cpus, gres=gres, environment=os.environ)
    os.execvp(command[0], command)


def processes_per_node(gpus: int, gres: str) -> int:
    """Return the number of processes on each node: one for each GPU, or one without GPUs.

    Args:
        gpus: number of GPUs of a job on one node.
        gres: GPUs of each node as SLURM names them, such as "gpu:4" or "gpu:a100:4"; "" to use `gpus`.

    Raises:
        SsondoError: if `gres` contains no number of GPUs.
    """
    if not gres:
        return max(1, gpus)
    match = re.fullmatch(r"gpu(?::[A-Za-z][\w.]*)?:(\d+)", gres)
    if match is None:
        raise SsondoError(f"gres {gres!r} contains no number of GPUs; write gpu:4 or gpu:a100:4")
    return int(match[1])


def training_command(
    arguments: Sequence[str], *, gpus: int, nodes: int, cpus: int, gres: str, environment: Mapping[str, str]
) -> list[str]:
    """Return the command that runs `ssondo arguments` in all processes of a job.

    Args:
        arguments: arguments of `ssondo`.
        gpus: number of GPUs of a job on one node.
        nodes: number of nodes of the job.
        cpus: number of processor cores of each node.
        gres: GPUs of each node as SLURM names them; "" to use `gpus`.
        environment: environment variables of this process, which is part of a SLURM job if there are several nodes.

    Raises:
        SsondoError: if `gres` contains no number of GPUs, or several nodes are requested outside a SLURM job.
    """
    n_processes = processes_per_node(gpus, gres)
    if nodes == 1 and n_processes == 1:
        return ["ssondo", *arguments]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={n_processes}"]
    # The dashes keep torchrun from reading --log as an option of its own.
    program = ["-m", "--", "ssondo", *arguments]
    if nodes == 1:
        return [*torchrun, "--standalone", *program]
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        raise SsondoError(
            f"a training on {nodes} nodes needs SLURM (snakemake --profile slurm); set runtime.nodes to 1 here"
        )
    srun = [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={cpus}",
        *([f"--gres={gres}"] if gres else []),
        # If the processes of one node fail, the others would wait for them.
        "--kill-on-bad-exit=1",
    ]
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={socket.gethostname()}:{_free_port()}", f"--rdzv-id={job}"]
    return [*srun, *torchrun, f"--nnodes={nodes}", *rendezvous, *program]


def _free_port() -> int:
    """Return an unused port of this machine, which is the first node of the job."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port
