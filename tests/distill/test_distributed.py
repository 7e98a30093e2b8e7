"""Several processes train what one trains."""

import os
import subprocess
import sys

import pytest
import torch
from toy_corpus import STUDENT, arguments, command, digest, history, run, supervise_arguments, until

from ssondo.distill.training_state import resume_path
from ssondo.students.checkpoint import load_student
from ssondo.students.student import build_student

pytestmark = pytest.mark.usefixtures("one_thread")


def on_processes(n, settings, folder, verb="distill"):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "SSONDO_PROGRESS_LINES": "1"}
    return subprocess.Popen(
        [*torchrun, *command(settings, verb)[2:]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "settings"),
    [
        ("distill", {"loss": "contrastive", "temperature": 0.5, "freq_mask": 20, "time_mask": 2}),
        ("distill", {"mixup_alpha": 0.3, "bn_update_batches": 3}),
        ("supervise", {"mixup_alpha": 0.3}),
        ("distill", {"loss": "hybrid", "temperature": 0.5, "prediction_weight": 0.5}),
    ],
    ids=["negatives", "mixup", "supervise", "parts"],
)
def test_two_processes_train_the_student_that_one_trains(corpus, tmp_path, verb, settings):
    """Everything is of the whole batch: its draws, statistics of batch norms, dropout, masks, partners, negatives."""
    of = {"distill": arguments, "supervise": supervise_arguments}[verb]
    settings = settings | {"learning_rate": 1e-4}
    if "prediction_weight" in settings:
        settings |= {"segments": [corpus / "one.csv", corpus / "two.csv"], "classes": corpus / "classes.csv"}
    run(verb, **of(corpus, tmp_path / "one", **settings))
    process = on_processes(2, of(corpus, tmp_path / "two", **settings), tmp_path, verb)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert output.count("48 training clips have sound and") == 1
    one, two = (load_student(tmp_path / name / "student.ckpt").state_dict() for name in ("one", "two"))
    start = build_student(STUDENT, n_outputs=len(one["classification_head.mlp.3.bias"]), seed=0).state_dict()
    for key, value in one.items():
        if "running" in key:
            torch.testing.assert_close(two[key], value, rtol=1e-2, atol=2e-3)
    # Adam moves a weight by its full step even where the gradient is rounding alone, so weights are compared together.
    moves = [
        torch.cat([(state[key] - start[key]).flatten() for key in start if key.endswith(("weight", "bias"))])
        for state in (one, two)
    ]
    assert moves[0].abs().max() > 2e-4
    assert torch.cosine_similarity(*moves, dim=0) > 0.99
    rows = [history(tmp_path / name) for name in ("one", "two")]
    assert [len(part) for part in rows] == [2, 2]
    for left, right in zip(*rows, strict=True):
        parts = [column for column in left if column.startswith("loss_")]
        assert len(parts) == (5 if "prediction_weight" in settings else 0)
        for column in ("loss", *parts, "gradient_norm", "learning_rate", "step"):
            # Halves of a batch may go through other kernels than the whole; a gradient magnifies their rounding.
            near = 1e-2 if column == "gradient_norm" else 2e-4
            assert float(right[column]) == pytest.approx(float(left[column]), rel=near), column


@pytest.mark.slow
def test_two_processes_that_are_terminated_stop_at_one_step_and_go_on_from_it(corpus, tmp_path):
    settings = arguments(corpus, tmp_path / "stopped", epochs=40, checkpoint_minutes=1e-9)
    state = resume_path(settings["out"])
    process = on_processes(2, settings, tmp_path)
    until(state.is_file, process)
    process.terminate()
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    stopped = {line.partition("step ")[2] for line in output.splitlines() if "stopped by SIGTERM" in line}
    assert len(stopped) == 1, output
    at = torch.load(state, weights_only=True)["progress"]["step"]
    assert stopped.pop().startswith(f"{at} of 160")


@pytest.mark.slow
def test_three_processes_that_are_stopped_go_on_to_the_bits_of_three_that_are_not(corpus, tmp_path):
    """Three, since the sum of two gradients is the same in any order."""
    for name in ("whole", "stopped"):
        settings = arguments(corpus, tmp_path / name, epochs=10, batch_size=6, checkpoint_minutes=1e-9)
        process = on_processes(3, settings, tmp_path)
        if name == "stopped":
            until(resume_path(settings["out"]).is_file, process)
            process.terminate()
            process.communicate(timeout=600)
            assert process.returncode != 0
            process = on_processes(3, settings, tmp_path)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
        assert (" going on at step " in output) == (name == "stopped")
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
