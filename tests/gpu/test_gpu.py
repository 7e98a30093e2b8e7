"""Training and embedding on a GPU."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
from small_students import SMALL, filled, noise
from toy_corpus import (
    STUDENT,
    arguments,
    command,
    cosine_of_updates,
    digest,
    history,
    killed_at,
    run,
    supervise_arguments,
)

from ssondo.storage.shards.audio import AudioShard, AudioShardWriter
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.students.checkpoint import save_student
from ssondo.teachers.embed import embed

STUDENTS = {
    name: {"architecture": name, "window_s": 0.128 if name != "eres2net" else 1.28, **settings}
    for name, settings in SMALL.items()
}
PLAIN = {"dropout": 0.0}


def losses(out):
    return [float(row["loss"]) for row in history(out)]


@pytest.mark.parametrize("name", STUDENTS)
def test_float32_training_on_a_gpu_has_the_losses_of_one_on_a_cpu(corpus, tmp_path, name):
    settings = {
        "student": STUDENTS[name] | PLAIN,
        "precision": "float32",
        "learning_rate": 1e-4,
        "samples_per_epoch": 8,
    }
    for device in ("cpu", "cuda"):
        run("distill", **arguments(corpus, tmp_path / device, **settings | {"device": device}))
    # Rounding changes a loss by 1e-4 at most (see the test of two processes), and a GPU sums in another order.
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", STUDENTS)
def test_first_loss_in_16_bit_is_near_that_in_float32(corpus, tmp_path, name, precision):
    settings = {"student": STUDENTS[name] | PLAIN, "device": "cuda", "epochs": 1, "samples_per_epoch": 8}
    for kind in ("float32", precision):
        run("distill", **arguments(corpus, tmp_path / kind, **settings, precision=kind))
    # bf16 rounds each output of a layer by 2**-9 at most; if the errors of 47 layers add up, it is 0.09.
    assert losses(tmp_path / precision) == pytest.approx(losses(tmp_path / "float32"), rel=0.1)


@pytest.mark.parametrize("name", STUDENTS)
def test_training_with_automatic_precision_learns(corpus, tmp_path, name):
    run("distill", **arguments(corpus, tmp_path, student=STUDENTS[name] | PLAIN, device="cuda", epochs=6))
    assert losses(tmp_path)[-1] < 0.5 * losses(tmp_path)[0]


@pytest.mark.parametrize("name", STUDENTS)
def test_resumed_training_gives_bit_identical_weights(corpus, tmp_path, monkeypatch, name):
    settings = {"student": STUDENTS[name], "mixup_alpha": 0.3, "freq_mask": 20, "time_mask": 2, "device": "cuda"}
    with warnings.catch_warnings():
        # torch warns of every operation that is not deterministic on a GPU.
        warnings.filterwarnings("error", message=".*deterministic.*")
        run("distill", **arguments(corpus, tmp_path / "whole", **settings))
        resumed = arguments(corpus, tmp_path / "resumed", checkpoint_minutes=0, **settings)
        with monkeypatch.context() as patch, killed_at(patch, 4):
            run("distill", **resumed)
        run("distill", **resumed)
    assert digest(tmp_path / "resumed") == digest(tmp_path / "whole")


def test_threads_and_cache_do_not_change_the_losses(corpus, tmp_path):
    float32 = {"device": "cuda", "precision": "float32", "learning_rate": 1e-4}
    for name, settings in {"plain": {"cache_mb": 0}, "other": {"num_workers": 4, "cache_mb": 1}}.items():
        run("distill", **arguments(corpus, tmp_path / name, **float32 | settings))
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "plain"), rel=2e-3)


def test_compiled_training_has_the_losses_of_eager_training(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    settings = {"student": STUDENT | PLAIN, "device": "cuda", "precision": "float32", "learning_rate": 1e-4}
    for name, compiled in (("plain", False), ("compiled", True)):
        run("distill", **arguments(corpus, tmp_path / name, **settings, compile=compiled))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=2e-3)


@pytest.mark.parametrize("verb", ["distill", "supervise"])
def test_two_processes_train_the_same_student_as_one(corpus, tmp_path, verb):
    """With torch's SyncBatchNorm, and with gloo on one GPU, because NCCL needs one GPU per process."""
    arguments_of = {"distill": arguments, "supervise": supervise_arguments}[verb]
    settings = {"mixup_alpha": 0.3, "learning_rate": 1e-4, "device": "cuda", "precision": "float32"}
    run(verb, **arguments_of(corpus, tmp_path / "one", **settings))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    found = subprocess.run(
        [*torchrun, *command(arguments_of(corpus, tmp_path / "two", **settings), verb)[2:]],
        env={**os.environ, "OMP_NUM_THREADS": "1", "SSONDO_PROGRESS_LINES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert found.returncode == 0, found.stdout
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-3)
    assert cosine_of_updates(tmp_path / "one", tmp_path / "two") > 0.95


@pytest.fixture
def task(tmp_path):
    import numpy as np

    from ssondo.audio.codec import encode_flac

    with AudioShardWriter(
        tmp_path / "task.h5",
        sample_rate=32000,
        settings={"task": "noises", "metric": "accuracy", "classes": ["a", "b"], "split_kind": "split"},
    ) as shard:
        for row in range(5):
            shard.add(f"clip{row}", encode_flac(noise(40960 + 9000 * row, seed=row).numpy(), 32000), duration_s=1.0)
        shard.add_extra("labels", np.eye(2, dtype=np.int8)[[0, 1, 0, 1, 0]])
        shard.add_extra("split", np.array(["train"] * 5, dtype="S5"))
    return tmp_path / "task.h5"


@pytest.mark.parametrize("name", STUDENTS)
def test_student_embeds_a_task_on_a_gpu_as_on_a_cpu(task, tmp_path, name):
    save_student(tmp_path / "student.ckpt", filled(name), {})
    found = {}
    environment = {key: value for key, value in os.environ.items() if key != "NVIDIA_TF32_OVERRIDE"}
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.h5"
        words = {"audio": task, "out": out, "student": tmp_path / "student.ckpt", "device": device}
        subprocess.run(command(words, "embed_task"), env=environment, check=True)
        with EmbeddingShard(out) as shard:
            found[device] = torch.from_numpy(shard.rows())
    # float32 differs from float64 by 7e-6 of the largest value; TF32 would differ by 2.5e-4 (DyMN) or more.
    assert (found["cuda"] - found["cpu"]).abs().max() < 1e-4 * found["cpu"].abs().max()


def test_teacher_embeds_a_shard_on_a_gpu_as_on_a_cpu(task, tmp_path):
    from ssondo.teachers.vit import Matpac

    torch.manual_seed(0)
    torch.save(Matpac().state_dict(), tmp_path / "matpac.pt")
    found = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.h5"
        embed(audio=task, out=out, teacher={"kind": "matpac"}, checkpoint=tmp_path / "matpac.pt", device=device)
        with EmbeddingShard(out) as shard:
            found[device] = torch.from_numpy(shard.rows()).float()
    with AudioShard(task) as shard:
        assert len(found["cuda"]) == len(shard.clip_ids)
    # float16 rounds by 2**-11. The random errors of the 24 residual branches add up to a sine of about
    # sqrt(24) * 2**-11 = 2.4e-3, a cosine of 1 - 3e-6; even their sum, 1.2e-2, gives 1 - 7e-5.
    assert torch.cosine_similarity(found["cuda"], found["cpu"], dim=1).min() > 0.999
