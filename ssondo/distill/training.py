"""The training loop that distillation and the supervised baseline share.

It reads from top to bottom in `train`. What a step computes depends on the seed, its number and
the weights before it, and on nothing else: its clips, its augmentation and its dropout are drawn
anew from (seed, step). So a training that is killed and started again ends with the weights that
it would have had; see `ssondo.distill.training_state` for what is kept meanwhile.

On several GPUs the same command runs under torchrun: `torchrun --nproc-per-node 4 -m ssondo distill ...`.
Batch size, learning rate and length of an epoch are those of the whole job, and so is the loss:
every process sees all outputs of the batch.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssondo.audio.spec_augment import SpecAugment
from ssondo.distill.base_loss import Criterion
from ssondo.distill.datasets import AudioDataset
from ssondo.distill.distributed import DistributedContext
from ssondo.distill.log_mel_cache import LogMelCache, PartialBatch
from ssondo.distill.mixup import Mix, draw_mix, mixup
from ssondo.distill.prepare_model import prepare
from ssondo.distill.sampler import Sampler
from ssondo.distill.step_metrics import Reading, StepMetrics
from ssondo.distill.training_config import Outputs, Runtime, TrainingConfig
from ssondo.distill.training_log import LOSS_PART, Row, TrainingLogger, write_curves
from ssondo.distill.training_state import TrainingState, catch_sigterm, resume, resume_path, save
from ssondo.distill.update_bn import update_bn
from ssondo.errors import SsondoError, TransientError
from ssondo.students.checkpoint import save_student
from ssondo.students.student import Student
from ssondo.system.device import amp_dtype
from ssondo.system.prefetch import HostToDevice, TimedIterator, prefetch
from ssondo.system.progress import progress_bar

log = logging.getLogger(__name__)

# In the middle of a training a rough estimate of batch norms' statistics is enough.
_BATCHES_TO_JUDGE = 10
# In a row with float16, each of which halves the scale of the loss: by then it has none.
_MOST_OVERFLOWS = 40

# --- data --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingData:
    """What a student learns from.

    Attributes:
        inputs: the clips' log-mels.
        targets: clips, shape (n,) -> what the student's output shall be, float32, shape (n, n_outputs).
        weights: relative probability with which each clip is drawn, shape (n_clips,).
        clusters: cluster of each clip, shape (n_clips,), for losses that need it.
    """

    inputs: LogMelCache
    targets: Callable[[np.ndarray], np.ndarray]
    weights: np.ndarray
    clusters: np.ndarray | None = None


class _Batch(NamedTuple):
    """A step's data. The input is this process's part, the rest is of the whole batch."""

    input: PartialBatch
    clips: np.ndarray
    targets: Tensor
    clusters: Tensor | None


def make_log_mel_cache(
    audio: AudioDataset,
    rows: np.ndarray,
    student: Student,
    job: DistributedContext,
    *,
    runtime: Runtime,
    name: str,
    weights: np.ndarray | None = None,
    beside: LogMelCache | None = None,
) -> LogMelCache:
    """Log-mels of clips for a student that is on its device; see `ssondo.distill.log_mel_cache.Inputs`.

    Args:
        audio: the clips.
        rows: positions in `audio.clip_ids` of those to serve.
        student: whose log-mels.
        job: this process.
        runtime: how many threads and how much memory.
        name: of the training.
        weights: with which clips are drawn.
        beside: other clips that are in the same memory already.

    Raises:
        SsondoError: if the clips have another sample rate than the student.
    """
    if audio.sample_rate != student.sample_rate:
        raise SsondoError(
            f"the clips have {audio.sample_rate} Hz and the student takes {student.sample_rate}; "
            f"make them with audioset.sample_rate: {student.sample_rate}"
        )
    return LogMelCache(
        audio,
        rows,
        student.log_mel,
        device=job.device,
        cache_mb=runtime.cache_mb - (beside.kept_mb if beside else 0),
        num_workers=runtime.num_workers,
        name=name if job.first else None,
        weights=weights,
    )


# --- chance ------------------------------------------------------------------------------------


def _generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on `key` alone. Another length of `key` is another stream."""
    return np.random.default_rng([*key, len(key)])


def _seed_torch(recipe: TrainingConfig, step: int) -> None:
    """SpecAugment and dropout of a step are drawn from its number, so no state of a generator has to be kept.

    The numbers are the same in every process: each draws for the whole batch and takes its own part.
    """
    torch.manual_seed(int(_generator(recipe.seed, step).integers(2**63)))


def _draw_mix(recipe: TrainingConfig, step: int, job: DistributedContext) -> Mix | None:
    """How the whole batch is mixed."""
    if recipe.mixup_alpha is None:
        return None
    mix = draw_mix(recipe.batch_size, recipe.mixup_alpha, _generator(recipe.seed, step, 0))
    return Mix(mix.weight.to(job.device), mix.partner.to(job.device))


def _mixed(log_mel: Tensor, mix: Mix, job: DistributedContext) -> Tensor:
    """This process's part of the mixed batch; partners may be in any other's."""
    own = slice(job.rank * len(log_mel), (job.rank + 1) * len(log_mel))
    return mixup(job.gather(log_mel), mix)[own]


# --- the loop ----------------------------------------------------------------------------------


def train(
    student: Student,
    loss_function: Criterion,
    examples: TrainingData,
    evaluate: Callable[[], Row],
    recipe: TrainingConfig,
    *,
    job: DistributedContext,
    runtime: Runtime,
    running: Path,
    identity: str,
    journal: TrainingLogger,
) -> list[Row]:
    """Train a student in place.

    Args:
        student: on the job's device (`place`).
        loss_function: of the whole batch's outputs.
        examples: to learn from.
        judge: scores the student on clips that it does not learn from.
        recipe: how to learn.
        job: this process.
        runtime: how to run; `judge` is called for the last epoch, too.
        running: where the state is kept while the training runs; removed by `conclude`.
        identity: digest of all that determines the result; a state with another one is not resumed.
        journal: told of each epoch.

    Returns:
        A row for each epoch.

    Raises:
        SsondoError: if the loss is no number any more; the text names the clips.
        TransientError: after SIGTERM, when the state is saved.
    """
    if recipe.batch_size % job.world_size:
        raise SsondoError(f"batch_size {recipe.batch_size} cannot be shared by {job.world_size} processes evenly")
    half = amp_dtype(recipe.precision, job.device)
    model = prepare(student, job, compile=runtime.compile)
    optimizer = torch.optim.Adam(student.parameters(), lr=recipe.learning_rate, fused=True)
    scaler = torch.amp.GradScaler(job.device.type, enabled=half is torch.float16)
    factor = recipe.lr_lambda()
    spec_augment = SpecAugment(max_time_width=recipe.time_mask, max_frequency_width=recipe.freq_mask)
    sampler = Sampler(examples.weights, seed=recipe.seed, batch_size=recipe.batch_size)
    n_steps = recipe.epochs * recipe.steps_per_epoch

    at = resume(running, identity, student, optimizer, scaler, job) or TrainingState()
    if job.first:
        if at.step:
            log.info("%s: going on at step %d of %d, from %s", journal.name, at.step, n_steps, running)
        journal.begin(at.history)
    move = HostToDevice(job.device)
    steps = range(at.step, n_steps)
    read = prefetch(lambda step: _read(examples, sampler, recipe, step, job, move), steps, runtime.num_workers)
    readings = StepMetrics(job)
    batches = TimedIterator(read, busy=readings.device_is_busy)
    saved = epoch_began = began = time.monotonic()
    epoch_first, seconds_before = at.step, at.seconds
    student.train()
    shown = progress_bar(n_steps, journal.name, unit="step", done=at.step)
    with closing(read), catch_sigterm() as terminated, shown as bar:
        bar.disable = not job.first
        for batch in batches:
            step = at.step
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * factor(step)
            student.model.begin_epoch(step // recipe.steps_per_epoch)
            _seed_torch(recipe, step)
            log_mel = examples.inputs.on_device(batch.input.each(move))
            if recipe.freq_mask or recipe.time_mask:
                log_mel = spec_augment(log_mel, part=job.rank, n_parts=job.world_size)
            mix = _draw_mix(recipe, step, job)
            if mix is not None:
                log_mel = _mixed(log_mel, mix, job)

            with torch.autocast(job.device.type, dtype=half, enabled=half is not None):
                outputs = model(log_mel)
            clusters = None if batch.clusters is None else move(batch.clusters)
            loss, parts = loss_function.with_components(job.gather(outputs.float()), move(batch.targets), clusters, mix)
            scaler.scale(loss).backward()
            # Each process has the gradient of its own outputs.
            job.all_reduce_gradients(student.parameters())
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(student.parameters(), recipe.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

            at.step += 1
            bar.update()
            _accumulate(at, readings.push(step, loss, parts, norm, terminated.is_set(), batch.clips), examples, half)
            stop = readings.stop
            last_of_epoch = at.step % recipe.steps_per_epoch == 0
            due = job.first and time.monotonic() - saved > 60 * runtime.checkpoint_minutes
            if not (last_of_epoch or due or stop):
                continue

            _accumulate(at, readings.flush(), examples, half)
            at.seconds = seconds_before + time.monotonic() - began
            if last_of_epoch:
                row = _epoch_row(at, recipe, optimizer)
                seconds = time.monotonic() - epoch_began
                row["clips_per_s"] = (at.step - epoch_first) * recipe.batch_size / seconds
                row["wait_share"] = batches.waited_s / seconds
                if at.step // recipe.steps_per_epoch % runtime.validate_every == 0 or at.step == n_steps:
                    with _recalibrated_eval(student, examples, sampler, recipe, job, keep=at.step == n_steps):
                        row.update(evaluate())
                at.history.append(row)
                if job.first:
                    journal.add(at.history)
                epoch_began, epoch_first, batches.waited_s = time.monotonic(), at.step, 0.0
            if (due or stop) and at.step < n_steps:
                if job.first:
                    save(running, identity, student, optimizer, scaler, at)
                    saved = time.monotonic()
                if stop:
                    job.barrier()
                    raise TransientError(
                        f"stopped by SIGTERM at step {at.step} of {n_steps}; the same command goes on from {running}"
                    )
    return at.history


def _read(
    examples: TrainingData,
    sampler: Sampler,
    recipe: TrainingConfig,
    step: int,
    job: DistributedContext,
    move: HostToDevice,
) -> _Batch:
    """The data of a step; runs in another thread."""
    clips = sampler.draw(*divmod(step, recipe.steps_per_epoch))
    clusters = None if examples.clusters is None else move.pinned(torch.from_numpy(examples.clusters[clips]))
    targets = move.pinned(torch.from_numpy(examples.targets(clips)))
    return _Batch(examples.inputs.read(job.part(clips)).each(move.pinned), clips, targets, clusters)


def _accumulate(at: TrainingState, reading: Reading | None, examples: TrainingData, half: torch.dtype | None) -> None:
    """Add a step's numbers to the epoch's.

    Raises:
        SsondoError: if they are no numbers.
    """
    if reading is None:
        return
    overflow = not np.isfinite(reading.norm)
    at.n_overflows = at.n_overflows + 1 if overflow else 0
    # With float16 an overflow of the gradient is usual: the scaler leaves that step out, and scales by half after.
    allowed = _MOST_OVERFLOWS if half is torch.float16 else 0
    if not np.isfinite(reading.loss) or at.n_overflows > allowed:
        clips = " ".join(examples.inputs.clip_ids[clip] for clip in reading.clips)
        raise SsondoError(
            f"at step {reading.step} the loss is {reading.loss} and the norm of its gradient {reading.norm}; lower "
            f"learning_rate, try precision float32, or look at the clips of that batch: {clips}"
        )
    at.loss_sum += reading.loss
    for name, part in reading.parts.items():
        at.part_sums[name] = at.part_sums.get(name, 0.0) + part
    at.n_losses += 1
    if not overflow:
        at.norm_sum += reading.norm
        at.n_norms += 1


def _epoch_row(at: TrainingState, recipe: TrainingConfig, optimizer: torch.optim.Optimizer) -> Row:
    """An epoch's line of the history; begins the sums of the next."""
    row: Row = {
        "epoch": at.step // recipe.steps_per_epoch,
        "step": at.step,
        "loss": at.loss_sum / at.n_losses,
        **{f"{LOSS_PART}{name}": total / at.n_losses for name, total in at.part_sums.items()},
        "learning_rate": float(optimizer.param_groups[0]["lr"]),
        "gradient_norm": at.norm_sum / at.n_norms if at.n_norms else None,
        "seconds": at.seconds,
    }
    at.loss_sum, at.part_sums, at.norm_sum, at.n_losses, at.n_norms = 0.0, {}, 0.0, 0, 0
    return row


@contextmanager
def _recalibrated_eval(
    student: Student,
    examples: TrainingData,
    sampler: Sampler,
    recipe: TrainingConfig,
    job: DistributedContext,
    *,
    keep: bool,
) -> Iterator[None]:
    """Evaluation mode, with statistics of batch norms that are measured on training clips.

    The running ones come back after, unless `keep`: what is judged meanwhile must not change the training.
    """
    before = {name: buffer.clone() for name, buffer in student.named_buffers()}
    n_batches = recipe.bn_update_batches if keep else min(recipe.bn_update_batches, _BATCHES_TO_JUDGE)
    if n_batches:
        update_bn(student, _measuring_batches(n_batches, examples, sampler, recipe, job))
    student.eval()
    try:
        yield
    finally:
        if not keep:
            for name, buffer in student.named_buffers():
                buffer.copy_(before[name])
            student.train()


def _measuring_batches(
    n_batches: int, examples: TrainingData, sampler: Sampler, recipe: TrainingConfig, job: DistributedContext
) -> Iterator[Tensor]:
    """Log-mels of batches that no epoch draws, as they are."""
    for step in range(n_batches):
        clips = sampler.draw(recipe.epochs, step, rank=job.rank, world_size=job.world_size)
        yield examples.inputs.on_device(examples.inputs.read(clips))


@torch.no_grad()
def predict(
    student: Student, inputs: LogMelCache, *, batch_size: int, runtime: Runtime, job: DistributedContext
) -> Tensor:
    """What a student in evaluation mode makes of clips, float32, on the CPU, shape (n_clips, n_outputs)."""
    own = job.part(np.arange(len(inputs)))
    parts = np.array_split(own, -(-len(own) // batch_size)) if len(own) else []
    found = [
        student(inputs.on_device(read)).float().cpu()
        for read in prefetch(lambda i: inputs.read(parts[i]), range(len(parts)), runtime.num_workers)
    ]
    mine = torch.cat(found) if found else torch.zeros(0, student.settings["n_outputs"])
    if job.world_size == 1:
        return mine
    shares: list[Any] = [None] * job.world_size
    dist.all_gather_object(shares, mine.numpy())
    return torch.from_numpy(np.concatenate(shares))


# --- what a training leaves behind -------------------------------------------------------------


def save_results(
    student: Student,
    rows: Sequence[Row],
    *,
    outputs: Outputs,
    provenance: Mapping[str, Any],
    title: str,
    scores: Mapping[str, str],
) -> None:
    """Write a trained student and the picture of its training, and remove the state of the running one.

    Args:
        student: in evaluation mode.
        rows: the history.
        outputs: the files to write.
        provenance: how the student came about.
        title: of the picture.
        scores: columns of the history that the picture shows, each with its name.
    """
    write_curves(outputs.curves, rows, title, scores)
    save_student(outputs.out, student, provenance)
    resume_path(outputs.out).unlink(missing_ok=True)
