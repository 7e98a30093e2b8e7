"""The state of a running training: what survives a kill, so that the same command goes on from it."""

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

import torch
from torch import Tensor

from ssondo.distill.distributed import DistributedContext
from ssondo.distill.training_config import TrainingConfig
from ssondo.distill.training_log import Row
from ssondo.provenance import code_hash
from ssondo.storage.atomic_files import atomic_write, content_digest, file_digest
from ssondo.students.student import Student

log = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """Where a training stands, besides weights and optimiser.

    Attributes:
        step: steps made.
        history: a row for each epoch that is over.
        loss_sum: of the epoch's steps, `n_losses` of them.
        part_sums: likewise of each part of the loss, by name.
        norm_sum: norms of the gradient, of the `n_norms` steps in which it was finite.
        n_overflows: steps in a row, up to the last one, in which it was not.
        seconds: that the training took so far, in all its parts.
    """

    step: int = 0
    history: list[Row] = field(default_factory=list)
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    n_losses: int = 0
    n_norms: int = 0
    n_overflows: int = 0
    seconds: float = 0.0
    part_sums: dict[str, float] = field(default_factory=dict)


def resume_path(out: Path) -> Path:
    """Where the state of the training that makes `out` is kept: no output of a rule, so a workflow leaves it alone."""
    return out.with_name(f".{out.name}.running.pt")


def save(
    path: Path,
    identity: str,
    student: Student,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    at: TrainingState,
) -> None:
    """Keep all that the next step reads, in one step: the old file or the new one.

    There is no state of random numbers in it, since every step draws its own from its number.
    """
    state = {
        "identity": identity,
        "student": student.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "progress": vars(at),
    }
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def resume(
    path: Path,
    identity: str,
    student: Student,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    job: DistributedContext,
) -> TrainingState | None:
    """Load a state that `save` kept, if there is one of the same training; all processes have the first one's."""
    state = job.broadcast_object(lambda: _read(path, identity))
    if state is None:
        return None
    # The code of a user's own student may have changed where no digest sees it.
    if _shapes(state["student"]) != _shapes(student.state_dict()):
        log.warning("%s: of a student with other layers; starting anew", path)
        return None
    student.load_state_dict(state["student"])
    optimizer.load_state_dict(state["optimizer"])
    # Empty if it was saved by a GPU that has bfloat16, which needs no scale; one that has not begins with torch's own.
    if state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    return TrainingState(**state["progress"])


def _shapes(weights: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


def _read(path: Path, identity: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        log.warning("%s: cannot be read (%s); starting anew", path, str(error).splitlines()[0])
        return None
    if state.get("identity") != identity:
        log.info("%s: of a training with other settings, data or code; starting anew", path)
        return None
    return dict(state)


@contextmanager
def catch_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, in place of ending the program: SLURM warns so before the time is up."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def fingerprint(student: Student, recipe: TrainingConfig, *modules: str, **parts: Any) -> str:
    """Digest of all that determines the weights a training ends with, but the number of processes and threads.

    Args:
        student: its settings and architecture count, its weights come from the recipe's seed.
        recipe: of the training.
        modules: of this project, whose code computes the result, with all that they import.
        parts: plain values: digests of the data, the loss and its options.
    """
    kind = type(student.model)
    if kind.__module__.startswith(f"{__package__}."):
        modules = (*modules, kind.__module__)
    else:
        parts["student_code"] = file_digest(Path(inspect.getfile(kind)))
    settings = {"student": student.settings, "recipe": asdict(recipe), **parts}
    return content_digest(
        {
            "settings": json.dumps(settings, sort_keys=True),
            "code": code_hash(*modules),
            "torch": torch.__version__,
        }
    )
