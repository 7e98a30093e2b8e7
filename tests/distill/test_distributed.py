"""Training on several processes."""

import os
import subprocess
import sys

import pytest
import torch
from toy_corpus import arguments, command, cosine_of_updates, digest, history, run, supervise_arguments, until

from ssondo.distill.training_state import resume_path
from ssondo.students.checkpoint import load_student

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
    ids=["negatives", "mixup", "supervise", "components"],
)
def test_two_processes_train_the_same_student_as_one(corpus, tmp_path, verb, settings):
    """Clips, statistics of batch normalisation, dropout, masks, mixup and negatives refer to the whole batch."""
    arguments_of = {"distill": arguments, "supervise": supervise_arguments}[verb]
    settings = settings | {"learning_rate": 1e-4}
    if "prediction_weight" in settings:
        settings |= {"segments": [corpus / "one.csv", corpus / "two.csv"], "classes": corpus / "classes.csv"}
    run(verb, **arguments_of(corpus, tmp_path / "one", **settings))
    process = on_processes(2, arguments_of(corpus, tmp_path / "two", **settings), tmp_path, verb)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert output.count("48 training clips have sound and") == 1
    # Rounding: each of the 47 convolutions sums up to 1,000 products, so its outputs have a relative error of about
    # sqrt(1000) * 2**-24 = 2e-6. The errors of all layers together are at most 1e-4, in practice 1e-5, and the backward
    # pass through batch normalisation subtracts nearly equal numbers. Faults are larger: dropout masks or statistics of
    # half a batch change a loss by 3e-3 or more and the norm of the gradient by 5e-2 or more; such statistics change
    # the running ones by 5e-2 or more.
    one, two = (load_student(tmp_path / name / "student.ckpt").state_dict() for name in ("one", "two"))
    for key, value in one.items():
        if "running" in key:
            torch.testing.assert_close(two[key], value, rtol=1e-2, atol=1e-2)
    assert cosine_of_updates(tmp_path / "one", tmp_path / "two") > 0.95
    rows = [history(tmp_path / name) for name in ("one", "two")]
    assert [len(epochs) for epochs in rows] == [2, 2]
    for left, right in zip(*rows, strict=True):
        components = [column for column in left if column.startswith("loss_")]
        assert len(components) == (5 if "prediction_weight" in settings else 0)
        for column in ("loss", *components, "gradient_norm", "learning_rate", "step"):
            rel = 2e-2 if column == "gradient_norm" else 1e-3
            assert float(right[column]) == pytest.approx(float(left[column]), rel=rel), column


@pytest.mark.slow
def test_two_terminated_processes_stop_at_the_same_step_and_save_it(corpus, tmp_path):
    settings = arguments(corpus, tmp_path / "stopped", epochs=40, checkpoint_minutes=1e-9)
    state = resume_path(settings["out"])
    process = on_processes(2, settings, tmp_path)
    until(state.is_file, process)
    process.terminate()
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    stopped = {line.partition("step ")[2] for line in output.splitlines() if "stopped by SIGTERM" in line}
    assert len(stopped) == 1, output
    step = torch.load(state, weights_only=True)["progress"]["step"]
    assert stopped.pop().startswith(f"{step} of 160")


@pytest.mark.slow
def test_resumed_training_of_three_processes_gives_bit_identical_weights(corpus, tmp_path):
    """Three processes, because the sum of two gradients does not depend on their order."""
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
        assert (" resuming at step " in output) == (name == "stopped")
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
