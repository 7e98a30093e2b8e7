"""The training loop that distillation and the supervised baseline share.

It reads from top to bottom in `train`. What a step computes depends on the seed, its number and
the weights before it, and on nothing else: its clips, its augmentation and its dropout are drawn
anew from (seed, step). So a training that is killed and started again ends with the weights that
it would have had; see `ssondo.running` for what is kept meanwhile.

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

from ssondo.batchnorm import reestimate_batchnorm
from ssondo.errors import SsondoError, TransientError
from ssondo.features import SpecAugment
from ssondo.history import Row, write_curves, write_events, write_history
from ssondo.job import Job, half_type
from ssondo.loader import AudioClips, Inputs, Timed, prefetch
from ssondo.mixup import Mix, draw_mix, mixup
from ssondo.progress import progress_bar
from ssondo.readings import Reading, Readings
from ssondo.recipe import Outputs, Recipe, Runtime
from ssondo.running import Progress, resume, running_path, save, until_terminated
from ssondo.sampler import Sampler
from ssondo.student import Student
from ssondo.student_checkpoint import save_student

log = logging.getLogger(__name__)

# In the middle of a training a rough estimate of batch norms' statistics is enough.
_BATCHES_TO_JUDGE = 10

# --- data and device -------------------------------------------------------------------------


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


def _for_training(student: Student, job: Job, *, compile: bool) -> Callable[[Tensor], Tensor]:
    """`student` as the loop calls it: across processes, compiled."""
    model: nn.Module = student
    if job.world_size > 1:
        devices = [job.device] if job.device.type == "cuda" else None
        model = nn.parallel.DistributedDataParallel(student, device_ids=devices)
    return _compiled(model) if compile else model


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


def served(audio: AudioClips, rows: np.ndarray, student: Student, job: Job, *, runtime: Runtime, name: str) -> Inputs:
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
        cache_mb=runtime.cache_mb,
        num_workers=runtime.num_workers,
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


def train(
    student: Student,
    loss_function: nn.Module,
    examples: Examples,
    judge: Callable[[], Row],
    recipe: Recipe,
    *,
    job: Job,
    runtime: Runtime,
    running: Path,
    identity: str,
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
        runtime: how to run; `judge` is called for the last epoch, too.
        running: where the state is kept while the training runs; removed by `conclude`.
        identity: digest of all that determines the result; a state with another one is not resumed.
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
    model = _for_training(student, job, compile=runtime.compile)
    optimizer = torch.optim.Adam(student.parameters(), lr=recipe.learning_rate, fused=True)
    scaler = torch.amp.GradScaler(job.device.type, enabled=half is torch.float16)
    factor = recipe.learning_rate_factor()
    spec_augment = SpecAugment(max_time_width=recipe.time_mask, max_frequency_width=recipe.freq_mask)
    sampler = Sampler(examples.weights, seed=recipe.seed, batch_size=recipe.batch_size)
    n_steps = recipe.epochs * recipe.steps_per_epoch

    at = resume(running, identity, student, optimizer, scaler) or Progress()
    if at.step and job.first:
        log.info("%s: going on at step %d of %d, from %s", name, at.step, n_steps, running)
    steps = range(at.step, n_steps)
    read = prefetch(lambda step: _read(examples, sampler, recipe, step, job), steps, runtime.num_workers)
    batches = Timed(read)
    readings = Readings(job)
    saved = epoch_began = began = time.monotonic()
    epoch_first, seconds_before = at.step, at.seconds
    student.train()
    with closing(read), until_terminated() as terminated, progress_bar(n_steps, name, unit="step") as bar:
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
            due = job.first and time.monotonic() - saved > 60 * runtime.checkpoint_minutes
            if not (last_of_epoch or due or stop):
                continue

            _take(at, readings.flush(), examples, half)
            at.seconds = seconds_before + time.monotonic() - began
            if last_of_epoch:
                row = _epoch_row(at, recipe, optimizer)
                seconds = time.monotonic() - epoch_began
                row["clips_per_s"] = (at.step - epoch_first) * recipe.batch_size / seconds
                row["wait_share"] = batches.waited_s / seconds
                if at.step // recipe.steps_per_epoch % runtime.validate_every == 0 or at.step == n_steps:
                    with _measured_statistics(student, examples, sampler, recipe, job, keep=at.step == n_steps):
                        row.update(judge())
                at.history.append(row)
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


def _read(examples: Examples, sampler: Sampler, recipe: Recipe, step: int, job: Job) -> _Batch:
    """The data of a step; runs in another thread."""
    clips = sampler.draw(*divmod(step, recipe.steps_per_epoch))
    clusters = None if examples.clusters is None else torch.from_numpy(examples.clusters[clips])
    return _Batch(examples.inputs.read(job.part(clips)), clips, torch.from_numpy(examples.targets(clips)), clusters)


def _take(at: Progress, reading: Reading | None, examples: Examples, half: torch.dtype | None) -> None:
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


def _epoch_row(at: Progress, recipe: Recipe, optimizer: torch.optim.Optimizer) -> Row:
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
def outputs_of(student: Student, inputs: Inputs, *, batch_size: int, runtime: Runtime, job: Job) -> Tensor:
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


def conclude(
    student: Student,
    rows: Sequence[Row],
    *,
    outputs: Outputs,
    provenance: Mapping[str, Any],
    title: str,
    scores: Mapping[str, str],
) -> None:
    """Write a trained student with its history, and remove the state of the running training.

    Args:
        student: in evaluation mode.
        rows: the history.
        outputs: the files to write.
        provenance: how the student came about.
        title: of the picture.
        scores: columns of the history that the picture shows, each with its name.
    """
    write_history(outputs.history, rows)
    write_curves(outputs.curves, rows, title, scores)
    if outputs.tensorboard is not None:
        write_events(outputs.tensorboard, rows)
    save_student(outputs.out, student, provenance)
    running_path(outputs.out).unlink(missing_ok=True)
