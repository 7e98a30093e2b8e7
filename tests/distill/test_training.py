"""The training loop: reproducibility, gradients, precision and the history."""

import logging
import shutil
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from toy_corpus import STUDENT, arguments, cosine_of_updates, digest, history, run

from ssondo.distill import trainer
from ssondo.distill.datasets import AudioDataset
from ssondo.distill.distributed import DistributedContext
from ssondo.distill.losses import Hybrid
from ssondo.distill.prepare_model import to_device
from ssondo.distill.step_metrics import StepResult
from ssondo.distill.training_state import TrainingState
from ssondo.errors import SsondoError
from ssondo.students import mobilenet_blocks
from ssondo.students.checkpoint import load_student
from ssondo.students.student import build_student

pytestmark = pytest.mark.usefixtures("one_thread")


def test_equal_seeds_give_bit_identical_weights_and_different_seeds_different_ones(corpus, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("distill", **arguments(corpus, tmp_path / name, seed=seed, mixup_alpha=0.3, freq_mask=20, time_mask=2))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_number_of_reading_threads_does_not_change_the_weights(corpus, tmp_path):
    for name, num_workers in (("a", 0), ("b", 3)):
        run("distill", **arguments(corpus, tmp_path / name, num_workers=num_workers, cache_mb=0))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_evaluations_do_not_change_the_training(corpus, tmp_path):
    for name, validate_every in (("a", 1), ("b", 2)):
        run("distill", **arguments(corpus, tmp_path / name, validate_every=validate_every, bn_update_batches=2))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert [row["eval_cosine"] != "" for row in history(tmp_path / "b")] == [False, True]


def test_gradient_is_clipped_before_each_step_and_the_history_has_its_norm_before_clipping(corpus, tmp_path):
    norms = []

    def record_norm(optimizer, *_):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())

    hook = register_optimizer_step_pre_hook(record_norm)
    try:
        run("distill", **arguments(corpus, tmp_path, epochs=1, max_grad_norm=0.5))
    finally:
        hook.remove()
    assert norms == pytest.approx([0.5] * 4, rel=1e-4)
    assert float(history(tmp_path)[0]["gradient_norm"]) > 1


def test_fp16_step_whose_gradient_overflows_changes_no_weight_and_halves_the_scale(corpus, tmp_path, monkeypatch):
    steps, counts = [], []
    step, accumulate, grad_scaler = trainer.Trainer._step, trainer.Trainer._accumulate, torch.amp.GradScaler
    # With this scale the first gradients are far outside the range of float16, which ends at 65,504.
    monkeypatch.setattr(torch.amp, "GradScaler", partial(grad_scaler, init_scale=2.0**40))

    def record(self, batch, number):
        before = torch.cat([p.detach().flatten().clone() for p in self.student.parameters()])
        scale = self.scaler.get_scale()
        loss, components, norm = step(self, batch, number)
        after = torch.cat([p.detach().flatten() for p in self.student.parameters()])
        steps.append((bool(norm.isfinite()), torch.equal(before, after), self.scaler.get_scale() / scale))
        return loss, components, norm

    def count(self, result):
        accumulate(self, result)
        if result is not None:
            counts.append(self.state.n_overflows)

    monkeypatch.setattr(trainer.Trainer, "_step", record)
    monkeypatch.setattr(trainer.Trainer, "_accumulate", count)
    run("distill", **arguments(corpus, tmp_path, epochs=12, precision="fp16"))
    finite, unchanged, factors = zip(*steps, strict=True)
    # The smallest gradient that matters is above 2**-24 of the largest, so the scale must fall by at least 2**8.
    assert not any(finite[:8])
    assert any(finite)
    for is_finite, is_unchanged, factor in zip(finite, unchanged, factors, strict=True):
        assert is_unchanged != is_finite
        assert factor == (1.0 if is_finite else 0.5)
    # After each step, the number of overflows in a row up to that step.
    assert counts[: finite.index(True) + 1] == [*range(1, finite.index(True) + 1), 0]
    assert np.isfinite(float(history(tmp_path)[-1]["gradient_norm"]))
    assert history(tmp_path)[0]["gradient_norm"] == ""


def test_gradient_that_overflows_at_every_scale_stops_the_training():
    accumulate = trainer.Trainer._accumulate
    loop = SimpleNamespace(
        state=TrainingState(),
        amp_dtype=torch.float16,
        data=SimpleNamespace(log_mels=SimpleNamespace(clip_ids=["a", "b"])),
    )
    overflow = StepResult(7, 0.5, np.inf, np.array([1]), {})
    for _ in range(40):
        accumulate(loop, overflow)
    with pytest.raises(SsondoError, match=r"in step 7 the loss is 0.5 .*check the clips of this batch: b$"):
        accumulate(loop, overflow)
    accumulate(loop, StepResult(8, 0.5, 1.0, np.array([1]), {}))
    assert loop.state.n_overflows == 0
    loop.amp_dtype = torch.bfloat16
    with pytest.raises(SsondoError, match="norm of its gradient inf"):
        accumulate(loop, overflow)


@pytest.mark.parametrize(("name", "channels_last"), [("mobilenetv3", True), ("dymn", False)])
def test_student_has_the_memory_layout_in_which_it_trains_fastest(name, channels_last):
    student = build_student({"architecture": name, "width_mult": 0.1}, n_outputs=2, seed=0)
    convolution = to_device(student, DistributedContext(torch.device("cpu"))).model.get_submodule(
        "features.0.0" if name == "mobilenetv3" else "in_c.0"
    )
    with torch.no_grad():
        out = convolution(torch.zeros(2, 1, 16, 16))
    assert out.is_contiguous(memory_format=torch.channels_last) is channels_last


@pytest.mark.slow
def test_temperature_of_dymn_is_lowered_in_training_and_saved_in_its_checkpoint(corpus, tmp_path):
    student = {"architecture": "dymn", "window_s": 0.128, "width_mult": 0.1, "temperature": 3.0, "anneal": True}
    run("distill", **arguments(corpus, tmp_path, student=student, epochs=2))
    # The second epoch has a temperature one below that of the first.
    assert load_student(tmp_path / "student.ckpt").model.temperature == 2.0


@pytest.mark.slow
def test_short_training_needs_recomputed_statistics_of_batch_normalisation(corpus, tmp_path):
    """With a momentum of 0.01 the running statistics hardly change in a hundred steps."""
    cosines = {}
    for n_batches in (0, 10):
        out = tmp_path / str(n_batches)
        run("distill", **arguments(corpus, out, epochs=25, center=True, bn_update_batches=n_batches))
        cosines[n_batches] = float(history(out)[-1]["eval_cosine"])
    assert cosines[10] > cosines[0] + 0.2
    # The weights are equal; only the statistics differ.
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


def test_columns_of_the_history_for_a_loss_without_components(corpus, tmp_path):
    run("distill", **arguments(corpus, tmp_path, epochs=1))
    assert list(history(tmp_path)[0]) == [
        *("epoch", "step", "loss", "learning_rate", "gradient_norm", "seconds", "clips_per_s", "wait_share"),
        *("eval_cosine", "constant_cosine", "eval_nn_agreement"),
    ]


def test_reporting_the_components_of_the_loss_does_not_change_the_training(corpus, tmp_path, monkeypatch):
    settings = {"loss": "hybrid", "temperature": 0.5, "mixup_alpha": 0.3}
    run("distill", **arguments(corpus, tmp_path / "reported", **settings))
    with monkeypatch.context() as patch:
        with_components = Hybrid.with_components
        patch.setattr(Hybrid, "with_components", lambda *args: (with_components(*args)[0], {}))
        run("distill", **arguments(corpus, tmp_path / "unreported", **settings))
    reported, unreported = history(tmp_path / "reported"), history(tmp_path / "unreported")
    assert {column for column in reported[0] if column.startswith("loss")} - set(unreported[0]) == {
        *("loss_alignment", "loss_contrastive", "loss_cross_cluster"),
    }
    assert [row["loss"] for row in reported] == [row["loss"] for row in unreported]
    assert digest(tmp_path / "reported") == digest(tmp_path / "unreported")


def test_each_epoch_is_logged_with_the_fraction_of_time_spent_waiting(corpus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run("distill", **arguments(corpus, tmp_path))
    lines = [line for line in caplog.messages if "epoch " in line]
    assert [line.partition(": loss")[0] for line in lines] == [
        f"distill toy -> mobilenetv3: epoch {epoch} of 2" for epoch in (1, 2)
    ]
    row = history(tmp_path)[-1]
    for text in ("learning rate 0.003", "gradient norm ", "eval cosine ", "nearest-neighbour agreement ", " clips/s, "):
        assert text in lines[-1]
    assert lines[-1].endswith(f"the device waited for data {100 * float(row['wait_share']):.0f} % of the time")


def test_partial_cache_of_log_mels_trains_the_same_student(corpus, tmp_path):
    # 0.1 MB holds about half of the 48 clips of 9 frames.
    for name, cache_mb in (("none", 0), ("half", 0.1), ("all", 10)):
        run("distill", **arguments(corpus, tmp_path / name, cache_mb=cache_mb, center=True, learning_rate=1e-4))
    # The log-mels differ by rounding, because a cache is filled in batches of another size.
    for name in ("half", "all"):
        assert cosine_of_updates(tmp_path / "none", tmp_path / name) > 0.95


def test_16_bit_training_works_on_a_cpu(corpus, tmp_path):
    # Not with the short windows of STUDENT: oneDNN's 16-bit gradient of a kernel wider than its input is undefined.
    student = {**STUDENT, "window_s": 1.28}
    run("distill", **arguments(corpus, tmp_path, epochs=1, precision="bf16", student=student))
    assert np.isfinite(float(history(tmp_path)[0]["loss"]))


def test_loss_that_is_not_finite_stops_the_training_and_names_the_clips(corpus, tmp_path):
    with pytest.raises(SsondoError, match="in step ") as error:
        run("distill", **arguments(corpus, tmp_path, loss="mse", learning_rate=1e30, epochs=20))
    text = str(error.value)
    assert "lower learning_rate" in text
    names = text.rpartition(": ")[2].split()
    assert len(names) == 8
    assert set(names) <= set(AudioDataset([corpus / "one.audio.h5", corpus / "two.audio.h5"]).clip_ids)
    assert not (tmp_path / "student.ckpt").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_computes_the_same_loss(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    # One block of each kind, because compilation takes long.
    kinds = [mobilenet_blocks.BLOCKS[number] for number in (0, 3, 7, 14)]
    blocks = [first._replace(n_out=second.n_in) for first, second in pairwise(kinds)]
    monkeypatch.setattr(mobilenet_blocks, "BLOCKS", (*blocks, kinds[-1]))
    # With dropout, which the compiler would by default draw from another generator.
    plain = {"student": {**STUDENT, "dropout": 0.5}, "epochs": 1, "learning_rate": 1e-4}
    for name, compiled in (("plain", False), ("compiled", True)):
        run("distill", **arguments(corpus, tmp_path / name, compile=compiled, **plain))
    losses = [float(history(tmp_path / name)[0]["loss"]) for name in ("plain", "compiled")]
    # Fused kernels round differently; see the tolerances of the trainings on two processes.
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert cosine_of_updates(tmp_path / "plain", tmp_path / "compiled") > 0.95
