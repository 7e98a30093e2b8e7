"""The training loop: that it repeats itself to the bit, and what it says of each epoch."""

import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from toy_corpus import STUDENT, arguments, digest, history, run

from ssondo.distill import training
from ssondo.distill.datasets import AudioDataset
from ssondo.distill.distributed import DistributedContext
from ssondo.distill.losses import Hybrid
from ssondo.distill.prepare_model import to_device
from ssondo.distill.step_metrics import Reading
from ssondo.distill.training_state import TrainingState
from ssondo.errors import SsondoError
from ssondo.students import mobilenetv3
from ssondo.students.checkpoint import load_student
from ssondo.students.student import build_student

pytestmark = pytest.mark.usefixtures("one_thread")


def test_same_seed_gives_bit_identical_weights_and_another_seed_others(corpus, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("distill", **arguments(corpus, tmp_path / name, seed=seed, mixup_alpha=0.3, freq_mask=20, time_mask=2))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_reading_threads_do_not_change_the_weights(corpus, tmp_path):
    for name, num_workers in (("a", 0), ("b", 3)):
        run("distill", **arguments(corpus, tmp_path / name, num_workers=num_workers, cache_mb=0))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_looking_at_eval_clips_does_not_change_the_training(corpus, tmp_path):
    for name, validate_every in (("a", 1), ("b", 2)):
        run("distill", **arguments(corpus, tmp_path / name, validate_every=validate_every, bn_update_batches=2))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert [row["eval_cosine"] != "" for row in history(tmp_path / "b")] == [False, True]


def test_gradient_is_clipped_before_each_step_and_the_history_has_its_norm_before(corpus, tmp_path):
    norms = []

    def note(optimizer, *_):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())

    hook = register_optimizer_step_pre_hook(note)
    try:
        run("distill", **arguments(corpus, tmp_path, epochs=1, max_grad_norm=0.5))
    finally:
        hook.remove()
    assert norms == pytest.approx([0.5] * 4, rel=1e-4)
    assert float(history(tmp_path)[0]["gradient_norm"]) > 1


def test_fp16_steps_whose_gradient_overflows_are_left_out(corpus, tmp_path, monkeypatch):
    """The first scale of the loss, 65,536, is too much for a loss of this size; a smaller one is found."""
    losses = {}
    for precision in ("fp16", "float32"):
        out = tmp_path / precision
        run("distill", **arguments(corpus, out, epochs=10, loss="mse", center=True, precision=precision))
        losses[precision] = [float(row["loss"]) for row in history(out)]
    assert losses["fp16"][-1] == pytest.approx(losses["float32"][-1], rel=0.2)
    assert losses["fp16"][-1] < 0.9 * losses["fp16"][0]


def test_gradient_that_overflows_whatever_its_scale_stops_the_training():
    examples = SimpleNamespace(inputs=SimpleNamespace(clip_ids=["a", "b"]))
    at = TrainingState()
    overflow = Reading(7, 0.5, np.inf, np.array([1]))
    for _ in range(40):
        training._accumulate(at, overflow, examples, torch.float16)
    with pytest.raises(SsondoError, match=r"at step 7 the loss is 0.5 .*look at the clips of that batch: b$"):
        training._accumulate(at, overflow, examples, torch.float16)
    training._accumulate(at, Reading(8, 0.5, 1.0, np.array([1])), examples, torch.float16)
    assert at.n_overflows == 0
    with pytest.raises(SsondoError, match="norm of its gradient inf"):
        training._accumulate(at, overflow, examples, torch.bfloat16)


@pytest.mark.parametrize(("name", "channels_last"), [("mobilenetv3", True), ("dymn", False)])
def test_student_is_placed_in_the_layout_that_its_training_is_fastest_in(name, channels_last):
    student = build_student({"architecture": name, "width_mult": 0.1}, n_outputs=2, seed=0)
    convolution = to_device(student, DistributedContext(torch.device("cpu"))).model.get_submodule(
        "features.0.0" if name == "mobilenetv3" else "in_c.0"
    )
    with torch.no_grad():
        out = convolution(torch.zeros(2, 1, 16, 16))
    assert out.is_contiguous(memory_format=torch.channels_last) is channels_last


@pytest.mark.slow
def test_temperature_of_dymn_is_lowered_in_training_and_kept_in_its_checkpoint(corpus, tmp_path):
    student = {"architecture": "dymn", "window_s": 0.128, "width_mult": 0.1, "temperature": 3.0, "anneal": True}
    run("distill", **arguments(corpus, tmp_path, student=student, epochs=2))
    # The second epoch is one below the first.
    assert load_student(tmp_path / "student.ckpt").model.temperature == 2.0


@pytest.mark.slow
def test_a_short_training_needs_its_batch_norms_measured_anew(corpus, tmp_path):
    """With a momentum of 0.01 the running statistics are still those of the start after some ten steps."""
    cosines = {}
    for n_batches in (0, 10):
        out = tmp_path / str(n_batches)
        run("distill", **arguments(corpus, out, epochs=25, center=True, bn_update_batches=n_batches))
        cosines[n_batches] = float(history(out)[-1]["eval_cosine"])
    assert cosines[10] > cosines[0] + 0.2
    # The same weights: only the statistics differ.
    states = [load_student(tmp_path / str(n) / "student.ckpt").state_dict() for n in (0, 10)]
    for key, value in states[0].items():
        if "running" not in key and "num_batches" not in key:
            assert torch.equal(value, states[1][key]), key
    assert not torch.equal(states[0]["model.features.0.1.running_var"], states[1]["model.features.0.1.running_var"])


def test_history_has_a_row_for_each_epoch_with_the_learning_rate_and_the_speed(corpus, tmp_path):
    schedule = {"schedule": "published", "warmup_epochs": 1, "decay_start_epoch": 1, "decay_epochs": 1}
    run("distill", **arguments(corpus, tmp_path, epochs=3, final_lr_fraction=0.5, **schedule))
    rows = history(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    expected = [0.003 * factor for factor in (np.exp(-5 / 4), 1, 0.5)]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(expected, rel=1e-5)
    assert all(float(row["clips_per_s"]) > 0 and 0 <= float(row["wait_share"]) <= 1 for row in rows)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_history_of_a_loss_without_parts_has_the_columns_that_it_always_had(corpus, tmp_path):
    run("distill", **arguments(corpus, tmp_path, epochs=1))
    assert list(history(tmp_path)[0]) == [
        *("epoch", "step", "loss", "learning_rate", "gradient_norm", "seconds", "clips_per_s", "wait_share"),
        *("eval_cosine", "constant_cosine", "eval_nn_agreement"),
    ]


def test_telling_the_parts_of_the_loss_leaves_the_training_as_it_is_to_the_bit(corpus, tmp_path, monkeypatch):
    settings = {"loss": "hybrid", "temperature": 0.5, "mixup_alpha": 0.3}
    run("distill", **arguments(corpus, tmp_path / "told", **settings))
    with monkeypatch.context() as patch:
        with_components = Hybrid.with_components
        patch.setattr(Hybrid, "with_components", lambda *args: (with_components(*args)[0], {}))
        run("distill", **arguments(corpus, tmp_path / "untold", **settings))
    told, untold = history(tmp_path / "told"), history(tmp_path / "untold")
    assert {column for column in told[0] if column.startswith("loss")} - set(untold[0]) == {
        *("loss_alignment", "loss_contrastive", "loss_cross_cluster"),
    }
    assert [row["loss"] for row in told] == [row["loss"] for row in untold]
    assert digest(tmp_path / "told") == digest(tmp_path / "untold")


def test_each_epoch_is_told_in_the_log_with_the_share_of_waiting(corpus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run("distill", **arguments(corpus, tmp_path))
    told = [line for line in caplog.messages if "epoch " in line]
    assert [line.partition(": loss")[0] for line in told] == [
        f"distill toy -> mobilenetv3: epoch {epoch} of 2" for epoch in (1, 2)
    ]
    row = history(tmp_path)[-1]
    for part in ("learning rate 0.003", "gradient norm ", "cosine ", "same neighbour ", " clips/s, "):
        assert part in told[-1]
    assert told[-1].endswith(f"the device waited for data {100 * float(row['wait_share']):.0f} % of the time")


def test_log_mels_that_are_kept_in_part_train_the_same_student(corpus, tmp_path):
    # 48 clips of 9 frames: the memory holds about half of them.
    for name, cache_mb in (("none", 0), ("half", 0.1), ("all", 10)):
        run("distill", **arguments(corpus, tmp_path / name, cache_mb=cache_mb, center=True))
    none, half, every = (
        load_student(tmp_path / name / "student.ckpt").state_dict() for name in ("none", "half", "all")
    )
    for key, value in none.items():
        torch.testing.assert_close(half[key], value, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(every[key], value, rtol=1e-3, atol=1e-4)


def test_16_bit_training_works_on_a_cpu_when_it_is_asked_for(corpus, tmp_path):
    # Not of toy windows: oneDNN's 16-bit gradient of a kernel wider than the picture reads what nobody wrote.
    student = {**STUDENT, "window_s": 1.28}
    run("distill", **arguments(corpus, tmp_path, epochs=1, precision="bf16", student=student))
    assert np.isfinite(float(history(tmp_path)[0]["loss"]))


def test_loss_that_is_no_number_stops_the_training_and_names_the_clips(corpus, tmp_path):
    with pytest.raises(SsondoError, match="at step ") as fault:
        run("distill", **arguments(corpus, tmp_path, loss="mse", learning_rate=1e30, epochs=20))
    text = str(fault.value)
    assert "lower learning_rate" in text
    names = text.rpartition(": ")[2].split()
    assert len(names) == 8
    assert set(names) <= set(AudioDataset([corpus / "one.audio.h5", corpus / "two.audio.h5"]).clip_ids)
    assert not (tmp_path / "student.ckpt").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_computes_the_same_loss(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    # A block of each kind: the compiler takes its time for each.
    kinds = [(16, 3, 16, 16, False, False), (16, 5, 64, 80, True, False), (80, 3, 200, 160, False, True)]
    monkeypatch.setattr(mobilenetv3, "_BLOCKS", (*kinds, (160, 5, 960, 160, True, True)))
    # Dropout, too: the compiler would draw it from numbers of its own.
    plain = {"student": {**STUDENT, "dropout": 0.5}, "epochs": 1}
    for name, compiled in (("plain", False), ("compiled", True)):
        run("distill", **arguments(corpus, tmp_path / name, compile=compiled, **plain))
    losses = [float(history(tmp_path / name)[0]["loss"]) for name in ("plain", "compiled")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
