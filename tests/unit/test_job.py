"""Several processes train what one trains."""

import os
import subprocess
import sys

import pytest
import torch
from toy_corpus import DIM, arguments, command, history, run, until

from ssondo.running import running_path
from ssondo.student import new_student
from ssondo.student_checkpoint import load_student

pytestmark = pytest.mark.usefixtures("one_thread")


BACKBONE = '''
import torch
from ssondo.students.backbone import Backbone

class Plain(Backbone):
    """No batch norm: what several CPU processes compute is then what one computes."""
    embedding_dim = 8
    hidden_dim = 16
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 8, 3, stride=2)
    def embed_windows(self, log_mel):
        return self.layer(log_mel[:, None]).relu().mean((2, 3))
'''


def on_two_processes(settings, folder):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "SSONDO_PROGRESS_LINES": "1"}
    return subprocess.Popen(
        [*torchrun, *command(settings)[2:]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cosine", "contrastive"])
def test_two_processes_train_the_student_that_one_trains(corpus, tmp_path, monkeypatch, loss):
    """Batch, learning rate and, for losses that compare clips, the negatives are those of the whole job."""
    (tmp_path / "plain_backbone.py").write_text(BACKBONE)
    monkeypatch.syspath_prepend(tmp_path)
    student = {"architecture": "plain_backbone:Plain", "window_s": 0.128, "dropout": 0.0}
    run("distill", **arguments(corpus, tmp_path / "one", student=student, loss=loss))
    settings = arguments(corpus, tmp_path / "two", student=student, loss=loss)
    process = on_two_processes(settings, tmp_path)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert output.count("48 training clips have sound and an embedding") == 1
    one, two = (
        load_student(tmp_path / name / "student.ckpt", trust_checkpoint=True).state_dict() for name in ("one", "two")
    )
    start = new_student(student, n_outputs=DIM, seed=0).state_dict()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=2e-5)
        assert not torch.allclose(value, start[key], atol=1e-3), f"{key} has not been trained"
    losses = [[row["loss"] for row in history(tmp_path / name)] for name in ("one", "two")]
    assert [float(x) for x in losses[0]] == pytest.approx([float(x) for x in losses[1]], rel=1e-4)


@pytest.mark.slow
def test_two_processes_that_are_terminated_stop_at_one_step_and_go_on_from_it(corpus, tmp_path):
    settings = arguments(corpus, tmp_path / "stopped", epochs=40, checkpoint_minutes=1e-9)
    state = running_path(settings["out"])
    process = on_two_processes(settings, tmp_path)
    until(state.is_file, process)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    stopped = {line.partition("step ")[2] for line in output.splitlines() if "stopped by SIGTERM" in line}
    assert len(stopped) == 1, output
    at = torch.load(state, weights_only=True)["progress"]["step"]
    assert stopped.pop().startswith(f"{at} of 160")
