"""Resuming a training: an interrupted training ends with the weights of an uninterrupted one."""

import importlib
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_corpus import arguments, digest, history, killed_at, run, started, until

from ssondo.distill import trainer, training_state
from ssondo.distill.distributed import DistributedContext
from ssondo.distill.training_config import TrainingConfig
from ssondo.distill.training_state import resume_path
from ssondo.errors import TransientError
from ssondo.students.student import build_student

pytestmark = pytest.mark.usefixtures("one_thread")
COMPONENTS = ("", "_prediction", "_distillation", "_alignment", "_contrastive", "_cross_cluster")


@pytest.mark.parametrize("step", [1, 4, 6])
def test_resumed_training_gives_bit_identical_weights(corpus, tmp_path, monkeypatch, step):
    # Step 4 is the end of the first of two epochs.
    settings = {"mixup_alpha": 0.3, "freq_mask": 20, "time_mask": 2, "bn_update_batches": 2}
    run("distill", **arguments(corpus, tmp_path / "whole", **settings))
    resumed = arguments(corpus, tmp_path / "resumed", checkpoint_minutes=0, **settings)
    with monkeypatch.context() as patch, killed_at(patch, step):
        run("distill", **resumed)
    assert not (tmp_path / "resumed" / "student.ckpt").exists()
    run("distill", **resumed)
    assert digest(tmp_path / "resumed") == digest(tmp_path / "whole")
    measured = {"seconds", "clips_per_s", "wait_share"}
    for left, right in zip(history(tmp_path / "resumed"), history(tmp_path / "whole"), strict=True):
        assert {k: v for k, v in left.items() if k not in measured} == {
            k: v for k, v in right.items() if k not in measured
        }


@pytest.mark.parametrize("step", [4, 6])
def test_resumed_training_has_the_same_components_of_the_loss_in_its_history(corpus, tmp_path, monkeypatch, step):
    labels = {"segments": [corpus / "one.csv", corpus / "two.csv"], "classes": corpus / "classes.csv"}
    settings = {"loss": "hybrid", "temperature": 0.5, "prediction_weight": 0.25, "mixup_alpha": 0.3, **labels}
    run("distill", **arguments(corpus, tmp_path / "whole", **settings))
    resumed = arguments(corpus, tmp_path / "resumed", checkpoint_minutes=0, **settings)
    with monkeypatch.context() as patch, killed_at(patch, step):
        run("distill", **resumed)
    run("distill", **resumed)
    assert digest(tmp_path / "resumed") == digest(tmp_path / "whole")
    columns = [f"loss{component}" for component in COMPONENTS]
    values = [
        [[row[column] for column in columns] for row in history(tmp_path / name)] for name in ("resumed", "whole")
    ]
    assert values[0] == values[1]
    for row in history(tmp_path / "resumed"):
        loss, prediction, distillation, alignment, contrastive, cross_cluster = (float(row[name]) for name in columns)
        assert distillation == pytest.approx(alignment + 0.5 * contrastive + 0.25 * cross_cluster, rel=1e-4)
        assert loss == pytest.approx(0.25 * prediction + 0.75 * distillation, rel=1e-4)


def test_state_is_removed_at_the_end_of_the_training(corpus, tmp_path):
    run("distill", **arguments(corpus, tmp_path, checkpoint_minutes=0))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.png",
        "history.csv",
        "student.ckpt",
        "student.ckpt.digest",
    ]


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 0.001}, {"center": True}, {"loss": "mse"}, {"n_clusters": 0}, {"audio": "one"}],
    ids=str,
)
def test_state_of_another_training_is_not_resumed(corpus, tmp_path, monkeypatch, caplog, change):
    if change == {"audio": "one"}:
        change = {"audio": [corpus / "one.audio.h5"], "embeddings": [corpus / "one.embeddings.h5"]}
    with monkeypatch.context() as patch, killed_at(patch, 3):
        run("distill", **arguments(corpus, tmp_path / "a", checkpoint_minutes=0))
    with caplog.at_level(logging.INFO):
        run("distill", **arguments(corpus, tmp_path / "a", **change))
    assert "belongs to other settings, data or code; the training starts from the beginning" in caplog.text
    run("distill", **arguments(corpus, tmp_path / "b", **change))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_unreadable_state_is_ignored(corpus, tmp_path, caplog):
    state = resume_path(tmp_path / "a" / "student.ckpt")
    state.parent.mkdir()
    state.write_bytes(b"PK\x03\x04 no checkpoint")
    run("distill", **arguments(corpus, tmp_path / "a"))
    assert "cannot be read" in caplog.text
    run("distill", **arguments(corpus, tmp_path / "b"))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
def test_state_can_be_resumed_by_a_gpu_with_and_one_without_bfloat16(tmp_path, before, after):
    def components(scales):
        model = torch.nn.Linear(2, 2)
        return model, torch.optim.Adam(model.parameters()), torch.amp.GradScaler("cpu", enabled=scales)

    training_state.save_state(tmp_path / "state.pt", "one", *components(before), training_state.TrainingState(step=3))
    state = training_state.load_state(
        tmp_path / "state.pt", "one", *components(after), DistributedContext(torch.device("cpu"))
    )
    assert state is not None
    assert state.step == 3


def test_sigterm_saves_the_state_and_ends_with_a_transient_error(corpus, tmp_path, monkeypatch):
    run("distill", **arguments(corpus, tmp_path / "whole"))
    read, calls = trainer.TrainingData.read, []

    def read_and_terminate(*args):
        calls.append(args)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(*args)

    stopped = arguments(corpus, tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.TrainingData, "read", read_and_terminate)
        with pytest.raises(TransientError, match=r"stopped by SIGTERM at step \d of 8; the same command resumes"):
            run("distill", **stopped)
    assert resume_path(stopped["out"]).is_file()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    run("distill", **stopped)
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")


@pytest.fixture
def start(monkeypatch):
    """Start trainings in processes of their own that have already imported torch."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1] / "support"), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    # The first optimiser of a process imports torch._dynamo; most kills would fall into this import.
    context.set_forkserver_preload(["toy_corpus", "torch._dynamo"])
    first = context.Process(target=time.sleep, args=(0,))  # the server imports torch before anything is timed
    first.start()
    first.join()

    def start(settings):
        process = context.Process(target=run, args=("distill",), kwargs=settings)
        process.start()
        return process

    return start


def processor_seconds(process):
    """Processor time of a process, which measures its progress on a busy machine too; 0 after its end."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_training_that_is_killed_ten_times_at_random_moments_gives_the_weights_of_an_uninterrupted_one(
    corpus, tmp_path, start
):
    settings = {"epochs": 16, "checkpoint_minutes": 1e-9, "bn_update_batches": 2, "mixup_alpha": 0.3}
    whole, seconds = start(arguments(corpus, tmp_path / "whole", **settings)), 0.0
    while whole.is_alive():
        seconds = max(seconds, processor_seconds(whole))
        time.sleep(0.01)
    killed = arguments(corpus, tmp_path / "killed", **settings)
    state = resume_path(killed["out"])
    generator = random.Random(0)

    def being_written():
        """Whether the running process replaces an older state; files of earlier processes may be left over."""
        return state.is_file() and any(state.parent.glob(f".{state.name}.*.{process.pid}.partial"))

    for number in range(10):
        process = start(killed)
        if number in (3, 7):  # kill it while it writes a state; the others do so only by chance
            until(being_written, process)
        else:
            moment = generator.uniform(0, seconds / 4)
            until(lambda process=process, moment=moment: processor_seconds(process) >= moment, process)
        assert process.is_alive(), "the training was over before it was killed"
        process.kill()
        process.join()
        assert not killed["out"].exists()
    assert state.is_file()
    last = start(killed)
    last.join()
    assert (whole.exitcode, last.exitcode) == (0, 0)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert [row["loss"] for row in history(tmp_path / "killed")] == [row["loss"] for row in history(tmp_path / "whole")]
    assert not state.exists()
    assert not list(state.parent.glob(".*.partial"))


@pytest.mark.slow
def test_terminated_command_exits_with_75(corpus, tmp_path):
    settings = arguments(corpus, tmp_path, epochs=400, checkpoint_minutes=1e-9)
    process = started(settings)
    until(resume_path(settings["out"]).is_file, process)
    process.terminate()
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 75, output.decode()
    assert "stopped by SIGTERM at step" in output.decode().splitlines()[-1]


CUSTOM_STUDENT = """
from torch import nn

from ssondo.students.backbone import Backbone


class Own(Backbone):
    def __init__(self):
        super().__init__()
        self.embedding_dim, self.hidden_dim = CHANNELS, 8
        self.layer = nn.Conv2d(1, CHANNELS, 3)

    def embed_windows(self, log_mel):
        return self.layer(log_mel[:, None]).REDUCE((2, 3))
"""


def test_state_of_a_custom_student_is_not_resumed_after_a_change_of_its_code(corpus, tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(tmp_path)

    def trained(folder, channels, reduce):
        code = CUSTOM_STUDENT.replace("CHANNELS", str(channels)).replace("REDUCE", reduce)
        (tmp_path / "custom_student.py").write_text(code)
        importlib.invalidate_caches()
        sys.modules.pop("custom_student", None)
        student = {"architecture": "custom_student:Own", "window_s": 0.128}
        return arguments(corpus, tmp_path / folder, checkpoint_minutes=0, student=student)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with monkeypatch.context() as patch, killed_at(patch, 3):
        run("distill", **trained("a", 4, "mean"))
    with caplog.at_level(logging.INFO), monkeypatch.context() as patch, killed_at(patch, 3):
        run("distill", **trained("a", 4, "amax"))
    assert "other settings, data or code; the training starts from the beginning" in caplog.text
    # The fingerprint does not cover installed packages, which the student's module may import.
    monkeypatch.setattr(training_state, "user_code", lambda *_: {})
    with monkeypatch.context() as patch, killed_at(patch, 3):
        run("distill", **trained("b", 4, "mean"))
    run("distill", **trained("b", 6, "mean"))
    assert "belongs to a student with other layers; the training starts from the beginning" in caplog.text
    run("distill", **trained("c", 6, "mean"))
    assert digest(tmp_path / "b") == digest(tmp_path / "c")


def test_code_of_a_loss_in_a_module_of_its_own_counts():
    spec = {"architecture": "mobilenetv3", "window_s": 0.32, "width_mult": 0.1}
    student = build_student(spec, n_outputs=4, seed=0)
    config = TrainingConfig(seed=0, epochs=1, samples_per_epoch=8, batch_size=4, learning_rate=1e-3)

    def digest_with(module):
        component = type("Own", (torch.nn.Module,), {"__module__": module})()
        loss = torch.nn.Sequential(component)
        return training_state.fingerprint(student, loss, config, "supervise", loss="own")

    one, other = (digest_with(f"ssondo.distill.{name}") for name in ("losses", "lr_schedule"))
    assert one != other
    assert one == digest_with("ssondo.distill.losses")
