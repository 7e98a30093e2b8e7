"""The command that starts the processes of a training, and the command line that each process gets."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from ssondo.errors import SsondoError
from ssondo.workflow.launch import processes_per_node, training_command

DISTILL = ["distill", "--epochs", "2", "--log", "a.log"]


def launched(gpus=0, nodes=1, gres="", environment=None):
    return training_command(DISTILL, gpus=gpus, nodes=nodes, cpus=16, gres=gres, environment=environment or {})


@pytest.mark.parametrize("gpus", [0, 1])
def test_single_process_runs_without_torchrun(gpus):
    assert launched(gpus=gpus) == ["ssondo", *DISTILL]


def test_several_gpus_of_one_node_use_torchrun():
    command = launched(gpus=4)
    assert command[:4] == [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=4"]
    assert "--standalone" in command
    assert command[-len(DISTILL) - 1 :] == ["ssondo", *DISTILL]


def test_several_nodes_use_one_torchrun_each_with_a_rendezvous_on_the_first():
    command = launched(nodes=2, gres="gpu:a100:4", environment={"SLURM_JOB_ID": "77"})
    srun, torchrun = command[: command.index(sys.executable)], command[command.index(sys.executable) :]
    assert srun[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert {"--cpus-per-task=16", "--gres=gpu:a100:4", "--kill-on-bad-exit=1"} <= set(srun)
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-id=77", "--rdzv-backend=c10d"} <= set(torchrun)


def test_nodes_without_gpus_request_none():
    command = launched(nodes=3, environment={"SLURM_JOB_ID": "77"})
    assert "--nproc-per-node=1" in command
    assert not [word for word in command if word.startswith("--gres")]


def test_several_nodes_without_slurm_are_rejected_with_a_remedy():
    with pytest.raises(SsondoError, match=r"2 nodes needs SLURM .*set runtime\.nodes to 1"):
        launched(nodes=2)


@pytest.mark.parametrize(("gres", "n"), [("", 3), ("gpu:2", 2), ("gpu:h100:8", 8), ("gpu:mi300.x:1", 1)])
def test_there_is_one_process_per_gpu(gres, n):
    assert processes_per_node(3, gres) == n


@pytest.mark.parametrize("gres", ["gpu", "gpu:a100", "shard:4"])
def test_gres_without_a_number_of_gpus_is_rejected(gres):
    with pytest.raises(SsondoError, match=f"gres '{gres}' contains no number of GPUs"):
        processes_per_node(1, gres)


@pytest.mark.slow
def test_every_torchrun_process_gets_the_whole_command_line_and_one_writes_the_log(tmp_path):
    options = ["--gpus", "2", "--nodes", "1", "--cpus", "2", "--gres", "", "--"]
    done = subprocess.run(
        [sys.executable, "-m", "ssondo", "launch", *options, "inventory", "--version", "--log", "i.log"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"ssondo {version('ssondo')}") == 2
    assert (tmp_path / "i.log").read_text().count(f"ssondo {version('ssondo')}") == 1
