"""Starts the processes of a training: one, several on this node, or several on each node of a SLURM job.

    python -m ssondo.workflow.launch --gpus 4 --nodes 1 --cpus 16 --gres '' distill --audio ...

What follows the options is a command of `ssondo`. One process is `ssondo` itself; several are started
by torchrun, and on several nodes by srun and torchrun, which meet at a port of the first node. This
program ends by becoming the one that it starts, so a signal reaches that one.
"""

import argparse
import logging
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence

from ssondo.errors import SsondoError

log = logging.getLogger(__name__)


def processes(gpus: int, gres: str) -> int:
    """Processes on each node: one for each GPU, and one where there is none.

    Args:
        gpus: of a job on one node.
        gres: what SLURM gives on each node instead, such as "gpu:4" or "gpu:a100:4"; "" for `gpus`.

    Raises:
        SsondoError: if `gres` gives no number of GPUs.
    """
    if not gres:
        return max(1, gpus)
    found = re.fullmatch(r"gpu(?::[A-Za-z][\w.]*)?:(\d+)", gres)
    if found is None:
        raise SsondoError(f"gres: {gres} gives no number of GPUs; write gpu:4 or gpu:a100:4")
    return int(found[1])


def command(
    arguments: Sequence[str], *, gpus: int, nodes: int, cpus: int, gres: str, environment: Mapping[str, str]
) -> list[str]:
    """The command that runs `ssondo arguments` in all the processes of a job.

    Args:
        arguments: of `ssondo`.
        gpus: of the job, if it has one node.
        nodes: of the job.
        cpus: of each node.
        gres: GPUs on each node as SLURM calls them; "" for `gpus`.
        environment: of this process; above one node it must be that of a SLURM job.

    Raises:
        SsondoError: if there are to be several nodes and this is no SLURM job.
    """
    each = processes(gpus, gres)
    if nodes == 1 and each == 1:
        return ["ssondo", *arguments]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={each}"]
    # Without the dashes torchrun takes --log for one of its own options.
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
        # Where one node's part fails, the others would wait for it.
        "--kill-on-bad-exit=1",
    ]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={socket.gethostname()}:{_free_port()}", f"--rdzv-id={job}"]
    return [*srun, *torchrun, f"--nnodes={nodes}", *meeting, *program]


def _free_port() -> int:
    """A port of this machine, the job's first node, that nobody uses."""
    with socket.socket() as found:
        found.bind(("", 0))
        port: int = found.getsockname()[1]
    return port


def main() -> None:
    """Become the command; see the module."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(
        prog="python -m ssondo.workflow.launch", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--gpus", type=int, required=True, help="of a job on one node")
    parser.add_argument("--nodes", type=int, required=True, help="of the job")
    parser.add_argument("--cpus", type=int, required=True, help="of each node")
    parser.add_argument("--gres", required=True, help="GPUs on each node as SLURM calls them, or ''")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of ssondo")
    given = parser.parse_args()
    try:
        found = command(
            given.arguments,
            gpus=given.gpus,
            nodes=given.nodes,
            cpus=given.cpus,
            gres=given.gres,
            environment=os.environ,
        )
    except SsondoError as error:
        log.error("error: %s", error)
        sys.exit(error.exit_code)
    os.execvp(found[0], found)


if __name__ == "__main__":
    main()
