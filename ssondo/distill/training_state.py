"""State of a training in progress: what is saved, so that the same command resumes after an interruption."""

import inspect
import json
import logging
import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssondo.distill.distributed import DistributedContext
from ssondo.distill.step_metrics import StepResult
from ssondo.distill.training_config import TrainingConfig
from ssondo.distill.training_log import LOSS_COMPONENT, Row
from ssondo.provenance import code_hash, user_code
from ssondo.storage.atomic_files import atomic_write, content_digest
from ssondo.students.student import Student

log = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """Progress of a training, apart from weights and optimiser.

    Attributes:
        step: Number of completed steps.
        history: One row per completed epoch.
        seconds: Duration of the training, over all its runs.
        n_overflows: Number of consecutive steps, up to the last one, whose gradient was not finite.
        loss_sum: Sum of the losses of the `n_losses` steps of the current epoch.
        component_sums: Sums of the components of the loss, by name.
        norm_sum: Sum of the gradient norms of the `n_norms` steps of the epoch in which it was finite.
    """

    step: int = 0
    history: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    n_overflows: int = 0
    loss_sum: float = 0.0
    n_losses: int = 0
    component_sums: dict[str, float] = field(default_factory=dict)
    norm_sum: float = 0.0
    n_norms: int = 0

    def add(self, result: StepResult) -> None:
        """Add the metrics of a step to the sums of the epoch."""
        self.loss_sum += result.loss
        self.n_losses += 1
        for name, value in result.components.items():
            self.component_sums[name] = self.component_sums.get(name, 0.0) + value
        if np.isfinite(result.gradient_norm):
            self.norm_sum += result.gradient_norm
            self.n_norms += 1
            self.n_overflows = 0
        else:
            self.n_overflows += 1

    def end_epoch(self, epoch: int, learning_rate: float) -> Row:
        """Return the mean metrics of an epoch as a row of the history, and reset the sums."""
        row: Row = {
            "epoch": epoch,
            "step": self.step,
            "loss": self.loss_sum / self.n_losses,
            **{f"{LOSS_COMPONENT}{name}": total / self.n_losses for name, total in self.component_sums.items()},
            "learning_rate": learning_rate,
            "gradient_norm": self.norm_sum / self.n_norms if self.n_norms else None,
            "seconds": self.seconds,
        }
        self.loss_sum, self.component_sums, self.norm_sum, self.n_losses, self.n_norms = 0.0, {}, 0.0, 0, 0
        return row


def resume_path(out: Path) -> Path:
    """Return the path of the state of the training that writes `out`; no rule has it as output."""
    return out.with_name(f".{out.name}.running.pt")


def save_state(
    path: Path,
    fingerprint: str,
    student: Student,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    state: TrainingState,
) -> None:
    """Write everything that the next step depends on, atomically.

    No random state is saved: each step seeds its random numbers with its own number.
    """
    content = {
        "fingerprint": fingerprint,
        "student": student.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "progress": vars(state),
    }
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def load_state(
    path: Path,
    fingerprint: str,
    student: Student,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    context: DistributedContext,
) -> TrainingState | None:
    """Load what `save_state` wrote into the student, the optimiser and the scaler; None if there is no such state.

    The main process reads it for all processes.
    """
    content = context.broadcast_object(lambda: _read(path, fingerprint))
    if content is None:
        return None
    # The code of a student outside this package may have changed in a module that the fingerprint does not cover.
    if _shapes(content["student"]) != _shapes(student.state_dict()):
        log.warning("%s: belongs to a student with other layers; the training starts from the beginning", path)
        return None
    student.load_state_dict(content["student"])
    optimizer.load_state_dict(content["optimizer"])
    # Empty if a GPU with bfloat16 wrote it, which needs no scale; a GPU without then starts with torch's default.
    if content["scaler"]:
        scaler.load_state_dict(content["scaler"])
    return TrainingState(**content["progress"])


def _shapes(weights: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


def _read(path: Path, fingerprint: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        log.warning("%s: cannot be read (%s); the training starts from the beginning", path, reason)
        return None
    if content.get("fingerprint") != fingerprint:
        log.info("%s: belongs to other settings, data or code; the training starts from the beginning", path)
        return None
    return dict(content)


@contextmanager
def catch_sigterm() -> Iterator[threading.Event]:
    """Set an event on SIGTERM instead of ending the process; SLURM sends SIGTERM before the time limit."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, previous)


def fingerprint(student: Student, loss: nn.Module, config: TrainingConfig, verb: str, /, **settings: Any) -> str:
    """Return a digest of everything that determines the trained weights, except the number of processes and threads.

    The code of the verb, the student and the loss counts, with the modules that they import.

    Args:
        student: Only its settings and its architecture count; the initial weights follow from the seed.
        loss: Only the classes of it and of its components count; its options are among the settings.
        config: Settings of the optimisation.
        verb: Name of the verb that trains.
        settings: Further plain values, e.g. digests of the data, and the loss with its options.
    """
    architecture = type(student.model)
    defining = {architecture.__module__, *(type(component).__module__ for component in loss.modules())}
    modules = [f"ssondo.distill.{verb}", *sorted(name for name in defining if name.startswith("ssondo."))]
    if not architecture.__module__.startswith("ssondo."):
        settings["student_code"] = user_code(Path(inspect.getfile(architecture)), architecture.__module__)
    settings = {"student": student.settings, "config": asdict(config), **settings}
    return content_digest(
        {
            "settings": json.dumps(settings, sort_keys=True),
            "code": code_hash(*modules),
            "torch": torch.__version__,
        }
    )
