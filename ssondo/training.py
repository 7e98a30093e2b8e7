"""The training loop that distillation and the supervised baseline share.

It reads from top to bottom in `train`. What a step computes depends on the seed, its number and
the weights before it, and on nothing else: its clips, its augmentation and its dropout are drawn
anew from (seed, step). So a training that is killed and started again ends with the weights that
it would have had; see `_save` for what is kept meanwhile.

On several GPUs the same command runs under torchrun: `torchrun --nproc-per-node 4 -m ssondo distill ...`.
Batch size, learning rate and length of an epoch are those of the whole job, and so is the loss:
every process sees all outputs of the batch.
"""

import json
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssondo.artefacts import content_digest, replacing, write_text
from ssondo.errors import SsondoError, TransientError
from ssondo.features import SpecAugment
from ssondo.loader import AudioClips, Inputs, Timed, prefetch
from ssondo.losses import Mix, draw_mix, mixup
from ssondo.memory import keep_freed_memory
from ssondo.model import Student, reestimate_batchnorm, save_student
from ssondo.progress import progress_bar
from ssondo.provenance import code_hash
from ssondo.sampler import Sampler
from ssondo.schedule import learning_rate_factor

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bf16", "fp16")
Row = dict[str, float | int | None]
# In the middle of a training a rough estimate of batch norms' statistics is enough.
_BATCHES_TO_JUDGE = 10

# --- settings and data -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a student is optimised. Everything here changes the weights that come out.

    Attributes:
        seed: of weights, draws, augmentation and dropout.
        epochs: how many.
        draws_per_epoch: clips an epoch draws; only whole batches of them.
        batch_size: clips a step, over all processes.
        learning_rate: of Adam, at its peak.
        schedule: see `ssondo.schedule.learning_rate_factor`.
        gradient_clip: largest norm of the gradient.
        mixup_alpha: of the Beta distribution; None for no mixup.
        freq_mask: widest SpecAugment mask over frequency in mel bands; 0 for none.
        time_mask: widest SpecAugment mask over time in frames; 0 for none.
        precision: of matrix products and convolutions: "float32", "bf16", "fp16", or "auto", which
            is 16 bit on a GPU and float32 on a CPU.
        compile: whether torch.compile makes the forward and backward pass.
        reestimate_batches: batches on which the statistics of batch norms are estimated anew
            before the student is judged or saved; 0 keeps the running ones.
    """

    seed: int
    epochs: int
    draws_per_epoch: int
    batch_size: int
    learning_rate: float
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"name": "published"})
    gradient_clip: float = 5.0
    mixup_alpha: float | None = None
    freq_mask: int = 0
    time_mask: int = 0
    precision: str = "auto"
    compile: bool = False
    reestimate_batches: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "draws_per_epoch", "batch_size"):
            if getattr(self, name) < 1:
                raise SsondoError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.precision not in PRECISIONS:
            raise SsondoError(f"precision is {self.precision!r}; it must be one of {', '.join(PRECISIONS)}")

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch, at least one."""
        return max(1, self.draws_per_epoch // self.batch_size)


@dataclass(frozen=True)
class Examples:
    """What a student learns from.

    Attributes:
        inputs: the clips' log-mels.
        targets: clips, shape (n,) -> what the student's output shall be, float32, shape (n, n_outputs).
        weights: relative probability with which each clip is drawn, shape (n_clips,).
        clusters: cluster of each clip, shape (n_clips,), for losses that need it.
    """

    inputs: Inputs
    targets: Callable[[np.ndarray], np.ndarray]
    weights: np.ndarray
    clusters: np.ndarray | None = None


class _Batch(NamedTuple):
    """A step's data. The input is this process's part, the rest is of the whole batch."""

    input: Tensor
    clips: np.ndarray
    targets: Tensor
    clusters: Tensor | None


# --- processes and devices ---------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """This process's place among those that train one student together."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def part(self, rows: np.ndarray) -> np.ndarray:
        """This process's share of a batch."""
        return np.array_split(rows, self.world_size)[self.rank]

    def gather(self, outputs: Tensor) -> Tensor:
        """All processes' outputs, end to end; only this one's carry a gradient."""
        if self.world_size == 1:
            return outputs
        parts = [torch.empty_like(outputs) for _ in range(self.world_size)]
        dist.all_gather(parts, outputs.detach().contiguous())
        parts[self.rank] = outputs
        return torch.cat(parts)

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def started_job(device: str) -> Iterator[Job]:
    """Join the other processes that torchrun started, if it did, and choose the device.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".

    Raises:
        SsondoError: if there is no such device.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if world_size > 1 and name == "cuda":
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SsondoError(f"device {device!r} cannot be used ({reason}); set it to auto or cpu") from None
    chosen = torch.device(name)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        # cuBLAS reads it when it starts; without it two runs may differ in the last bits.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        keep_freed_memory()
    if world_size == 1:
        yield Job(chosen)
        return
    if rank > 0:
        logging.getLogger(__package__).setLevel(logging.WARNING)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Job(chosen, rank, world_size)
    finally:
        dist.destroy_process_group()


def half_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The 16-bit type to compute in, or None for float32.

    "auto" never is 16 bit on a CPU: most have no such arithmetic, and emulate it many times slower.
    """
    if precision == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def _for_training(student: Student, recipe: Recipe, job: Job) -> Callable[[Tensor], Tensor]:
    """`student` as the loop calls it: across processes, compiled."""
    model: nn.Module = student
    if job.world_size > 1:
        devices = [job.device] if job.device.type == "cuda" else None
        model = nn.parallel.DistributedDataParallel(student, device_ids=devices)
    return _compiled(model) if recipe.compile else model


def _compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """`model` through torch.compile, which fails at the first call where it fails."""
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(model)

    def call(log_mel: Tensor) -> Tensor:
        try:
            return compiled(log_mel)
        except TorchDynamoException as error:
            # The compiler's own complaint, where there is one, stands somewhere below its command line.
            lines = str(error).splitlines()
            reason = next((line for line in lines if "error:" in line.lower()), lines[0])
            raise SsondoError(
                f"compile: torch.compile fails here ({reason.strip()[:200]}); set compile to false"
            ) from error

    return call


def place(student: Student, job: Job) -> Student:
    """Put a student on the job's device, in the layout that its training is fastest in."""
    if student.model.trains_channels_last:
        student.model.to(memory_format=torch.channels_last)
    if job.world_size > 1 and job.device.type == "cuda":
        student = nn.SyncBatchNorm.convert_sync_batchnorm(student)
    return student.to(job.device)


def served(
    audio: AudioClips, rows: np.ndarray, student: Student, job: Job, *, cache_mb: float, num_workers: int, name: str
) -> Inputs:
    """Log-mels of clips for a student that is on its device; see `ssondo.loader.Inputs`.

    Raises:
        SsondoError: if the clips have another sample rate than the student.
    """
    if audio.sample_rate != student.sample_rate:
        raise SsondoError(
            f"the clips have {audio.sample_rate} Hz and the student takes {student.sample_rate}; "
            "set one of audioset.sample_rate and the student's front_end to the other"
        )
    return Inputs(
        audio,
        rows,
        student.log_mel,
        device=job.device,
        cache_mb=cache_mb,
        num_workers=num_workers,
        name=name if job.first else None,
    )


# --- chance ------------------------------------------------------------------------------------


def _generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on `key` alone. Another length of `key` is another stream."""
    return np.random.default_rng([*key, len(key)])


def _seed_torch(recipe: Recipe, step: int, job: Job) -> None:
    """Dropout of a step is drawn from its number, so no state of a generator has to be kept."""
    torch.manual_seed(int(_generator(recipe.seed, step, job.rank).integers(2**63)))


def _draw_mix(recipe: Recipe, step: int, job: Job) -> Mix | None:
    """How the whole batch is mixed; partners are in the same process's part."""
    if recipe.mixup_alpha is None:
        return None
    sizes = [len(part) for part in np.array_split(np.arange(recipe.batch_size), job.world_size)]
    mixes = [
        draw_mix(size, recipe.mixup_alpha, _generator(recipe.seed, step, rank, 0)) for rank, size in enumerate(sizes)
    ]
    starts = np.cumsum([0, *sizes[:-1]])
    return Mix(
        torch.cat([mix.weight for mix in mixes]).to(job.device),
        torch.cat([mix.partner + int(start) for mix, start in zip(mixes, starts, strict=True)]).to(job.device),
    )


def _own_part(mix: Mix, job: Job) -> Mix:
    size = len(mix.weight) // job.world_size
    own = slice(job.rank * size, (job.rank + 1) * size)
    return Mix(mix.weight[own], mix.partner[own] - own.start)


# --- the loop ----------------------------------------------------------------------------------


@dataclass
class _Progress:
    """Where a training stands, besides weights and optimiser; the seconds are those of all its parts."""

    step: int = 0
    history: list[Row] = field(default_factory=list)
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    n_summed: int = 0
    seconds: float = 0.0


def train(
    student: Student,
    loss_function: nn.Module,
    examples: Examples,
    judge: Callable[[], Row],
    recipe: Recipe,
    *,
    job: Job,
    running: Path,
    identity: str,
    num_workers: int,
    checkpoint_minutes: float,
    validate_every: int,
    name: str,
) -> list[Row]:
    """Train a student in place.

    Args:
        student: on the job's device (`place`).
        loss_function: (outputs, targets, clusters, mix) -> scalar.
        examples: to learn from.
        judge: scores the student on clips that it does not learn from.
        recipe: how to learn.
        job: this process.
        running: where the state is kept while the training runs; removed by `conclude`.
        identity: digest of all that determines the result; a state with another one is not resumed.
        num_workers: threads that read clips.
        checkpoint_minutes: between two states that are kept.
        validate_every: epochs between two calls of `judge`; the last epoch is always judged.
        name: for the progress display.

    Returns:
        A row for each epoch.

    Raises:
        SsondoError: if the loss is no number any more; the text names the clips.
        TransientError: after SIGTERM, when the state is saved.
    """
    if recipe.batch_size % job.world_size:
        raise SsondoError(f"batch_size {recipe.batch_size} cannot be shared by {job.world_size} processes evenly")
    half = half_type(recipe.precision, job.device)
    model = _for_training(student, recipe, job)
    optimizer = torch.optim.Adam(student.parameters(), lr=recipe.learning_rate, fused=True)
    scaler = torch.amp.GradScaler(job.device.type, enabled=half is torch.float16)
    factor = learning_rate_factor(recipe.schedule, steps_per_epoch=recipe.steps_per_epoch)
    spec_augment = SpecAugment(max_time_width=recipe.time_mask, max_frequency_width=recipe.freq_mask)
    sampler = Sampler(examples.weights, seed=recipe.seed, batch_size=recipe.batch_size)
    n_steps = recipe.epochs * recipe.steps_per_epoch

    at = _resume(running, identity, student, optimizer, scaler) or _Progress()
    if at.step and job.first:
        log.info("%s: going on at step %d of %d, from %s", name, at.step, n_steps, running)
    read = prefetch(lambda step: _read(examples, sampler, recipe, step, job), range(at.step, n_steps), num_workers)
    batches = Timed(read)
    readings = _Readings(job)
    saved = epoch_began = began = time.monotonic()
    epoch_first, seconds_before = at.step, at.seconds
    student.train()
    with closing(read), _until_terminated() as terminated, progress_bar(n_steps, name, unit="step") as bar:
        bar.initial = bar.n = at.step
        bar.disable = not job.first
        for batch in batches:
            step = at.step
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * factor(step)
            student.model.begin_epoch(step // recipe.steps_per_epoch)
            _seed_torch(recipe, step, job)
            log_mel = examples.inputs.on_device(batch.input)
            if recipe.freq_mask or recipe.time_mask:
                log_mel = spec_augment(log_mel)
            mix = _draw_mix(recipe, step, job)
            if mix is not None:
                log_mel = mixup(log_mel, _own_part(mix, job))

            with torch.autocast(job.device.type, dtype=half, enabled=half is not None):
                outputs = model(log_mel)
            clusters = None if batch.clusters is None else batch.clusters.to(job.device)
            loss = loss_function(job.gather(outputs.float()), batch.targets.to(job.device), clusters, mix)
            # Each process has the gradient of its own outputs, and DDP takes the mean over processes.
            scaler.scale(loss * job.world_size).backward()
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(student.parameters(), recipe.gradient_clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

            at.step += 1
            bar.update()
            _take(at, readings.push(loss, norm, terminated.is_set(), batch.clips), examples, half)
            stop = readings.stop
            last_of_epoch = at.step % recipe.steps_per_epoch == 0
            due = job.first and time.monotonic() - saved > 60 * checkpoint_minutes
            if not (last_of_epoch or due or stop):
                continue

            _take(at, readings.flush(), examples, half)
            at.seconds = seconds_before + time.monotonic() - began
            if last_of_epoch:
                row = _epoch_row(at, recipe, optimizer)
                seconds = time.monotonic() - epoch_began
                row["clips_per_s"] = (at.step - epoch_first) * recipe.batch_size / seconds
                row["wait_share"] = batches.waited_s / seconds
                if at.step // recipe.steps_per_epoch % validate_every == 0 or at.step == n_steps:
                    with _measured_statistics(student, examples, sampler, recipe, job, keep=at.step == n_steps):
                        row.update(judge())
                at.history.append(row)
                epoch_began, epoch_first, batches.waited_s = time.monotonic(), at.step, 0.0
            if (due or stop) and at.step < n_steps:
                if job.first:
                    _save(running, identity, student, optimizer, scaler, at)
                    saved = time.monotonic()
                if stop:
                    job.barrier()
                    raise TransientError(
                        f"stopped by SIGTERM at step {at.step} of {n_steps}; the same command goes on from {running}"
                    )
    return at.history


def _read(examples: Examples, sampler: Sampler, recipe: Recipe, step: int, job: Job) -> _Batch:
    """The data of a step; runs in another thread."""
    clips = sampler.draw(*divmod(step, recipe.steps_per_epoch))
    clusters = None if examples.clusters is None else torch.from_numpy(examples.clusters[clips])
    return _Batch(examples.inputs.read(job.part(clips)), clips, torch.from_numpy(examples.targets(clips)), clusters)


class _Reading(NamedTuple):
    loss: float
    norm: float
    clips: np.ndarray


class _Readings:
    """Loss, gradient norm and wish to stop of each step, on their way from the device.

    A step's numbers are looked at when the next step has been launched, so that a GPU never waits for Python to ask.

    Attributes:
        stop: whether any process wished to stop at the step before the last one pushed. All
            processes see the same, and so stop after the same step.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pending: tuple[Tensor, torch.cuda.Event | None, np.ndarray] | None = None
        self._wish = False
        self.stop = False

    def push(self, loss: Tensor, norm: Tensor, stop: bool, clips: np.ndarray) -> _Reading | None:
        """Take a step's numbers; return those of the step before."""
        before = self.flush()
        # Not at once in flush: the first process alone looks early, when it is about to save.
        self.stop, self._wish = self._wish, False
        wish = torch.tensor(float(stop), device=loss.device)
        if self._job.world_size > 1:
            dist.all_reduce(wish, dist.ReduceOp.MAX)
        numbers = torch.stack([loss.detach().double(), norm.detach().double(), wish.double()])
        event = None
        if loss.device.type == "cuda":
            host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            host.copy_(numbers, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            numbers = host
        self._pending = (numbers, event, clips)
        return before

    def flush(self) -> _Reading | None:
        """Numbers of the step that has not been looked at yet."""
        if self._pending is None:
            return None
        numbers, event, clips = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        loss, norm, wish = numbers.tolist()
        self._wish = wish > 0
        return _Reading(loss, norm, clips)


def _take(at: _Progress, reading: _Reading | None, examples: Examples, half: torch.dtype | None) -> None:
    """Add a step's numbers to the epoch's.

    Raises:
        SsondoError: if they are no numbers.
    """
    if reading is None:
        return
    # With float16 an overflow of the gradient is usual: the scaler leaves that step out.
    if not np.isfinite(reading.loss) or (half is not torch.float16 and not np.isfinite(reading.norm)):
        clips = " ".join(examples.inputs.clip_ids[clip] for clip in reading.clips)
        raise SsondoError(
            f"near step {at.step} the loss is {reading.loss} and the norm of its gradient {reading.norm}; lower "
            f"learning_rate, try precision float32, or look at the clips of that batch: {clips}"
        )
    at.loss_sum += reading.loss
    if np.isfinite(reading.norm):
        at.norm_sum += reading.norm
    at.n_summed += 1


def _epoch_row(at: _Progress, recipe: Recipe, optimizer: torch.optim.Optimizer) -> Row:
    """An epoch's line of the history; begins the sums of the next."""
    row: Row = {
        "epoch": at.step // recipe.steps_per_epoch,
        "step": at.step,
        "loss": at.loss_sum / at.n_summed,
        "learning_rate": float(optimizer.param_groups[0]["lr"]),
        "gradient_norm": at.norm_sum / at.n_summed,
        "seconds": at.seconds,
    }
    at.loss_sum, at.norm_sum, at.n_summed = 0.0, 0.0, 0
    return row


@contextmanager
def _measured_statistics(
    student: Student, examples: Examples, sampler: Sampler, recipe: Recipe, job: Job, *, keep: bool
) -> Iterator[None]:
    """Evaluation mode, with statistics of batch norms that are measured on training clips.

    The running ones come back after, unless `keep`: what is judged meanwhile must not change the training.
    """
    before = {name: buffer.clone() for name, buffer in student.named_buffers()}
    n_batches = recipe.reestimate_batches if keep else min(recipe.reestimate_batches, _BATCHES_TO_JUDGE)
    if n_batches:
        reestimate_batchnorm(student, _measuring_batches(n_batches, examples, sampler, recipe, job))
    student.eval()
    try:
        yield
    finally:
        if not keep:
            for name, buffer in student.named_buffers():
                buffer.copy_(before[name])
            student.train()


def _measuring_batches(
    n_batches: int, examples: Examples, sampler: Sampler, recipe: Recipe, job: Job
) -> Iterator[Tensor]:
    """Log-mels of batches that no epoch draws, as they are."""
    for step in range(n_batches):
        clips = sampler.draw(recipe.epochs, step, rank=job.rank, world_size=job.world_size)
        yield examples.inputs.on_device(examples.inputs.read(clips))


@torch.no_grad()
def outputs_of(student: Student, inputs: Inputs, *, job: Job, batch_size: int, num_workers: int) -> Tensor:
    """What a student in evaluation mode makes of clips, float32, on the CPU, shape (n_clips, n_outputs)."""
    own = job.part(np.arange(len(inputs)))
    parts = np.array_split(own, -(-len(own) // batch_size)) if len(own) else []
    found = [
        student(inputs.on_device(read)).float().cpu()
        for read in prefetch(lambda i: inputs.read(parts[i]), range(len(parts)), num_workers)
    ]
    mine = torch.cat(found) if found else torch.zeros(0, student.settings["n_outputs"])
    if job.world_size == 1:
        return mine
    shares: list[Any] = [None] * job.world_size
    dist.all_gather_object(shares, mine.numpy())
    return torch.from_numpy(np.concatenate(shares))


# --- the state that survives a kill ------------------------------------------------------------


def running_path(out: Path) -> Path:
    """Where the state of the training that makes `out` is kept: no output of a rule, so a workflow leaves it alone."""
    return out.with_name(f".{out.name}.running.pt")


def _save(
    path: Path,
    identity: str,
    student: Student,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    at: _Progress,
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
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def _resume(
    path: Path, identity: str, student: Student, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> _Progress | None:
    """Load a state that `_save` kept, if there is one of the same training."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        log.warning("%s: cannot be read (%s); starting anew", path, str(error).splitlines()[0])
        return None
    if state.get("identity") != identity:
        log.info("%s: of a training with other settings, data or code; starting anew", path)
        return None
    student.load_state_dict(state["student"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    return _Progress(**state["progress"])


@contextmanager
def _until_terminated() -> Iterator[threading.Event]:
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


# --- what a training leaves behind -------------------------------------------------------------


def training_identity(student: Student, recipe: Recipe, *modules: str, **parts: Any) -> str:
    """Digest of all that determines the weights a training ends with, but the number of processes and threads.

    Args:
        student: its settings and architecture count, its weights come from the recipe's seed.
        recipe: of the training.
        modules: of this project, whose code computes the result.
        parts: plain values: digests of the data, the loss and its options.
    """
    architecture = type(student.model).__module__
    if architecture.startswith(f"{__package__}."):
        modules = (*modules, architecture)
    settings = {"student": student.settings, "recipe": asdict(recipe), **parts}
    return content_digest(
        {
            "settings": json.dumps(settings, sort_keys=True),
            "code": code_hash(__name__, *modules),
            "torch": torch.__version__,
        }
    )


def conclude(
    student: Student,
    rows: Sequence[Row],
    *,
    out: Path,
    history: Path,
    curves: Path,
    tensorboard: Path | None,
    provenance: Mapping[str, Any],
    title: str,
    scores: Mapping[str, str],
) -> None:
    """Write a trained student with its history, and remove the state of the running training.

    Args:
        student: in evaluation mode.
        rows: the history.
        out: the student's checkpoint.
        history: CSV with a line for each epoch.
        curves: PNG of it.
        tensorboard: folder for event files, or None.
        provenance: how the student came about.
        title: of the picture.
        scores: columns of the history that the picture shows, each with its name.
    """
    write_history(history, rows)
    write_curves(curves, rows, title, scores)
    if tensorboard is not None:
        write_events(tensorboard, rows)
    save_student(out, student, provenance)
    running_path(out).unlink(missing_ok=True)


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write a CSV with a line for each epoch; what was not measured is empty."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    lines = [",".join(columns)]
    for row in history:
        values = (row.get(key) for key in columns)
        lines.append(",".join("" if v is None else str(v) if isinstance(v, int) else f"{v:.6g}" for v in values))
    write_text(path, "\n".join(lines) + "\n")


def write_curves(path: Path, history: Sequence[Row], title: str, scores: Mapping[str, str]) -> None:
    """Draw the loss, and beside it some scores, over the epochs, as a PNG.

    Args:
        path: the PNG.
        history: of the training.
        title: of the picture.
        scores: columns of the history, each with its name in the legend.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["loss"] for row in history], marker=".")
    figure.suptitle(title)
    left.set(xlabel="epoch", ylabel="training loss")
    for column, label in scores.items():
        judged = [row for row in history if row.get(column) is not None]
        right.plot([row["epoch"] for row in judged], [row[column] for row in judged], marker=".", label=label)
    right.set(xlabel="epoch", ylabel="on eval clips")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    with replacing(path) as temporary:
        # The name of the program in it would make pictures of two versions differ.
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def write_events(folder: Path, history: Sequence[Row]) -> None:
    """Write the history as TensorBoard event files."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for row in history:
            for key, value in row.items():
                if value is not None and key not in ("epoch", "step"):
                    writer.add_scalar(key, value, row["step"])
