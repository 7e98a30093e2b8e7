"""That no kill can spoil a training: it goes on to the weights of an uninterrupted one."""

import logging
import os
import signal
import time

import pytest
from toy_corpus import arguments, digest, history, killed_at, run, started, until

from ssondo import training
from ssondo.errors import TransientError
from ssondo.running import running_path

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("step", [1, 4, 6])
def test_training_that_dies_goes_on_to_bit_identical_weights(corpus, tmp_path, monkeypatch, step):
    # Step 4 is the end of the first of two epochs.
    settings = {"mixup_alpha": 0.3, "freq_mask": 20, "time_mask": 2, "reestimate_batches": 2}
    run("distill", **arguments(corpus, tmp_path / "whole", **settings))
    broken = arguments(corpus, tmp_path / "broken", checkpoint_minutes=0, **settings)
    with monkeypatch.context() as patch, killed_at(patch, step):
        run("distill", **broken)
    assert not (tmp_path / "broken" / "student.ckpt").exists()
    run("distill", **broken)
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")
    measured = {"seconds", "clips_per_s", "wait_share"}
    for left, right in zip(history(tmp_path / "broken"), history(tmp_path / "whole"), strict=True):
        assert {k: v for k, v in left.items() if k not in measured} == {
            k: v for k, v in right.items() if k not in measured
        }


def test_state_of_the_running_training_is_gone_after_it(corpus, tmp_path):
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
    assert "of a training with other settings, data or code; starting anew" in caplog.text
    run("distill", **arguments(corpus, tmp_path / "b", **change))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_state_that_cannot_be_read_is_left_aside(corpus, tmp_path, caplog):
    state = running_path(tmp_path / "a" / "student.ckpt")
    state.parent.mkdir()
    state.write_bytes(b"PK\x03\x04 no checkpoint")
    run("distill", **arguments(corpus, tmp_path / "a"))
    assert "cannot be read" in caplog.text
    run("distill", **arguments(corpus, tmp_path / "b"))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_sigterm_saves_the_state_and_asks_to_be_run_again(corpus, tmp_path, monkeypatch):
    run("distill", **arguments(corpus, tmp_path / "whole"))
    read, calls = training._read, []

    def read_and_terminate(*args):
        calls.append(args)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(*args)

    stopped = arguments(corpus, tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(training, "_read", read_and_terminate)
        with pytest.raises(TransientError, match=r"stopped by SIGTERM at step \d of 8; the same command goes on"):
            run("distill", **stopped)
    assert running_path(stopped["out"]).is_file()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    run("distill", **stopped)
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_weights_of_an_uninterrupted_run(corpus, tmp_path):
    settings = arguments(corpus, tmp_path / "killed", epochs=5, checkpoint_minutes=1e-9, reestimate_batches=2)
    state = running_path(settings["out"])
    kills = 0

    def changed(before):
        return lambda: state.is_file() and state.stat().st_mtime_ns != before

    def half_written():
        return any(state.parent.glob(f".{state.name}.*.partial"))

    # Before anything is kept, at the first state, in the middle of writing one, and a while after.
    for moment in ("start", "state", "writing", "later", "writing"):
        process = started(settings)
        if moment == "start":
            time.sleep(0.5)
        elif moment == "writing":
            until(half_written, process)
        else:
            until(changed(state.stat().st_mtime_ns if state.is_file() else 0), process)
            time.sleep(0.05 if moment == "later" else 0)
        kills += process.poll() is None
        process.kill()
        process.communicate()
        assert not settings["out"].exists()
    assert kills == 5
    process = started(settings)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output.decode()
    assert "going on at step" in output.decode(), output.decode()
    run("distill", **arguments(corpus, tmp_path / "whole", epochs=5, reestimate_batches=2))
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert not state.exists()
    assert not list(state.parent.glob("*.partial"))


@pytest.mark.slow
def test_command_that_is_terminated_exits_with_75(corpus, tmp_path):
    settings = arguments(corpus, tmp_path, epochs=400, checkpoint_minutes=1e-9)
    process = started(settings)
    until(running_path(settings["out"]).is_file, process)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output.decode()
    assert "stopped by SIGTERM at step" in output.decode().splitlines()[-1]
