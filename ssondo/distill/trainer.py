"""The training loop: `Trainer.run` is the loop, `Trainer._step` one training step.

The computation of a step depends only on the seed, the number of the step and the weights before it: its
clips, augmentation and dropout are drawn from (seed, step). So a training that is interrupted and restarted
ends with the same weights, see `ssondo.distill.training_state`.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ssondo.distill.augment import augment, seed_step
from ssondo.distill.base_loss import Loss
from ssondo.distill.distributed import DistributedContext
from ssondo.distill.log_mel_cache import LogMelCache, PartialBatch
from ssondo.distill.prepare_model import prepare
from ssondo.distill.sampler import Sampler
from ssondo.distill.step_metrics import StepMetrics, StepResult
from ssondo.distill.training_config import Runtime, TrainingConfig
from ssondo.distill.training_log import Row, TrainingLogger
from ssondo.distill.training_state import TrainingState, catch_sigterm, load_state, save_state
from ssondo.distill.update_bn import update_bn
from ssondo.errors import SsondoError, TransientError
from ssondo.students.student import Student
from ssondo.system.device import amp_dtype
from ssondo.system.prefetch import HostToDevice, TimedIterator, prefetch
from ssondo.system.progress import progress_bar

log = logging.getLogger(__name__)

# During the training a rough estimate of the statistics of batch normalisation is enough.
_BN_BATCHES_DURING_TRAINING = 10
# Each overflow halves the scale of the loss; after so many in a row the scale is no longer the reason.
_MAX_OVERFLOWS = 40


@dataclass(frozen=True)
class Objective:
    """What a student learns and how it is evaluated: the difference between the verbs that train.

    Attributes:
        loss: Loss between the outputs and the targets of a batch.
        n_outputs: Number of outputs of the student.
        targets: Function from training clips, shape (n,), to their targets, float32, shape (n, n_outputs).
        weights: Relative probability with which each training clip is drawn, shape (n_clips,).
        evaluate: Function that scores the student in evaluation mode. Its second argument is the student's
            outputs for the eval clips, shape (n_eval_clips, n_outputs), on the CPU. It returns scores by column.
        scores: Columns of the scores, each with its name in logs and figures.
        clusters: Cluster of each training clip, shape (n_clips,), for losses that need it.
    """

    loss: Loss
    n_outputs: int
    targets: Callable[[np.ndarray], np.ndarray]
    weights: np.ndarray
    evaluate: Callable[[Student, Tensor], Row]
    scores: Mapping[str, str]
    clusters: np.ndarray | None = None


class Batch(NamedTuple):
    """Data of a step: this process's slice of the input, everything else of the whole batch."""

    input: PartialBatch
    clips: np.ndarray
    targets: Tensor
    clusters: Tensor | None


class TrainingData:
    """The batches of a training; `move` copies their tensors to the device."""

    def __init__(
        self, log_mels: LogMelCache, objective: Objective, config: TrainingConfig, context: DistributedContext
    ) -> None:
        self.log_mels = log_mels
        self.move = HostToDevice(context.device)
        self._objective, self._config, self._context = objective, config, context
        self._sampler = Sampler(objective.weights, seed=config.seed, batch_size=config.batch_size)

    def read(self, step: int) -> Batch:
        """Read the batch of a step; called from other threads."""
        clips = self._sampler.draw(*divmod(step, self._config.steps_per_epoch))
        pinned, clusters = self.move.pinned, self._objective.clusters
        return Batch(
            self.log_mels.read(self._context.local_slice(clips)).map(pinned),
            clips,
            pinned(torch.from_numpy(self._objective.targets(clips))),
            None if clusters is None else pinned(torch.from_numpy(clusters[clips])),
        )

    def bn_batches(self, n_batches: int) -> Iterator[Tensor]:
        """Log-mels, without augmentation, of batches that no epoch draws."""
        for step in range(n_batches):
            clips = self._context.local_slice(self._sampler.draw(self._config.epochs, step))
            yield self.log_mels.to_device(self.log_mels.read(clips))


class Trainer:
    """The training loop. The student, which is on the device (`to_device`), is trained in place.

    A state at `state_path` is resumed if its fingerprint is `fingerprint`, the digest of everything that determines
    the result.
    """

    def __init__(
        self,
        student: Student,
        loss: Loss,
        data: TrainingData,
        evaluate: Callable[[], Row],
        config: TrainingConfig,
        *,
        context: DistributedContext,
        runtime: Runtime,
        state_path: Path,
        fingerprint: str,
        logger: TrainingLogger,
    ) -> None:
        if config.batch_size % context.world_size:
            raise SsondoError(
                f"batch_size {config.batch_size} cannot be divided evenly among {context.world_size} processes"
            )
        self.student, self.loss, self.data, self.evaluate, self.config = student, loss, data, evaluate, config
        self.context, self.runtime, self.logger = context, runtime, logger
        self.state_path, self.fingerprint = state_path, fingerprint
        self.amp_dtype = amp_dtype(config.precision, context.device)
        self.model = prepare(student, context, compile=runtime.compile)
        self.lr_lambda = config.lr_lambda()
        self.optimizer = torch.optim.Adam(student.parameters(), lr=config.learning_rate, fused=True)
        self.scaler = torch.amp.GradScaler(context.device.type, enabled=self.amp_dtype is torch.float16)
        self.state = TrainingState()

    def run(self) -> list[Row]:
        """Train to the end, from the saved state if there is one; the student is then in evaluation mode.

        Returns:
            One row per epoch.

        Raises:
            SsondoError: If the loss is not finite; the message names the clips of the batch.
            TransientError: After SIGTERM, once the state is saved.
        """
        config, context, runtime, logger = self.config, self.context, self.runtime, self.logger
        n_steps = config.epochs * config.steps_per_epoch
        resumed = load_state(self.state_path, self.fingerprint, self.student, self.optimizer, self.scaler, context)
        state = self.state = resumed or TrainingState()
        if context.is_main:
            if state.step:
                log.info("%s: resuming at step %d of %d from %s", logger.name, state.step, n_steps, self.state_path)
            logger.begin(state.history)
        metrics = StepMetrics(context)
        read = prefetch(self.data.read, range(state.step, n_steps), runtime.num_workers)
        batches = TimedIterator(read, busy=metrics.device_is_busy)
        saved_at = epoch_began = began = time.monotonic()
        epoch_first_step, seconds_before = state.step, state.seconds
        self.student.train()
        shown = progress_bar(n_steps, logger.name, unit="step", done=state.step)
        with closing(read), catch_sigterm() as terminated, shown as bar:
            bar.disable = not context.is_main
            for batch in batches:
                loss, components, norm = self._step(batch, state.step)
                result = metrics.push(state.step, loss, components, norm, terminated.is_set(), batch.clips)
                state.step += 1
                bar.update()
                self._accumulate(result)
                epoch_is_over = state.step % config.steps_per_epoch == 0
                save_is_due = context.is_main and time.monotonic() - saved_at > 60 * runtime.checkpoint_minutes
                if not (epoch_is_over or save_is_due or metrics.stop):
                    continue

                self._accumulate(metrics.flush())
                state.seconds = seconds_before + time.monotonic() - began
                if epoch_is_over:
                    seconds = time.monotonic() - epoch_began
                    clips_per_s = (state.step - epoch_first_step) * config.batch_size / seconds
                    self._end_epoch({"clips_per_s": clips_per_s, "wait_share": batches.waited_s / seconds}, n_steps)
                    epoch_began, epoch_first_step, batches.waited_s = time.monotonic(), state.step, 0.0
                if (save_is_due or metrics.stop) and state.step < n_steps:
                    if context.is_main:
                        self._save()
                        saved_at = time.monotonic()
                    if metrics.stop:
                        context.barrier()
                        raise TransientError(
                            f"stopped by SIGTERM at step {state.step} of {n_steps}; the same command resumes from "
                            f"{self.state_path}"
                        )
        return state.history

    def _step(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Make one step; return its loss, components and norm of the gradient before clipping, on the device."""
        config, context, move = self.config, self.context, self.data.move
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * self.lr_lambda(step)
        self.student.model.begin_epoch(step // config.steps_per_epoch)
        seed_step(config.seed, step)
        log_mel, mix = augment(self.data.log_mels.to_device(batch.input.map(move)), step, config, context)
        with torch.autocast(context.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            outputs = self.model(log_mel)
        clusters = None if batch.clusters is None else move(batch.clusters)
        outputs = context.gather(outputs.float())
        loss, components = self.loss.with_components(outputs, move(batch.targets), clusters, mix)
        self.scaler.scale(loss).backward()
        # Each process has computed the gradient of its own outputs only.
        context.all_reduce_gradients(self.student.parameters())
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), config.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, components, norm

    def _accumulate(self, result: StepResult | None) -> None:
        """Add the metrics of a step to those of the epoch, and stop if the loss or the gradient is not finite.

        With float16 an overflow of the gradient is normal, since the scaler skips the step and halves the scale of
        the loss, unless it persists.
        """
        if result is None:
            return
        self.state.add(result)
        max_overflows = _MAX_OVERFLOWS if self.amp_dtype is torch.float16 else 0
        if not np.isfinite(result.loss) or self.state.n_overflows > max_overflows:
            clips = " ".join(self.data.log_mels.clip_ids[clip] for clip in result.clips)
            raise SsondoError(
                f"in step {result.step} the loss is {result.loss} and the norm of its gradient "
                f"{result.gradient_norm}; lower learning_rate, try precision float32, or check the clips of this "
                f"batch: {clips}"
            )

    def _end_epoch(self, speed: Row, n_steps: int) -> None:
        """Add the epoch that is over to the history, with the scores on the eval clips if they are due."""
        epoch = self.state.step // self.config.steps_per_epoch
        row = self.state.end_epoch(epoch, float(self.optimizer.param_groups[0]["lr"])) | speed
        is_last = self.state.step == n_steps
        if epoch % self.runtime.validate_every == 0 or is_last:
            row.update(self._evaluate(is_last))
        self.state.history.append(row)
        if self.context.is_main:
            self.logger.add(self.state.history)

    def _save(self) -> None:
        save_state(self.state_path, self.fingerprint, self.student, self.optimizer, self.scaler, self.state)

    def _evaluate(self, is_last: bool) -> Row:
        """Evaluate the student, with statistics of batch normalisation that are recomputed on training clips.

        Except after the last epoch, the running statistics are then restored: an evaluation must not change the
        training.
        """
        before = {name: buffer.clone() for name, buffer in self.student.named_buffers()}
        n_batches = self.config.bn_update_batches
        if not is_last:
            n_batches = min(n_batches, _BN_BATCHES_DURING_TRAINING)
        if n_batches:
            update_bn(self.student, self.data.bn_batches(n_batches))
        self.student.eval()
        scores = self.evaluate()
        if not is_last:
            for name, buffer in self.student.named_buffers():
                buffer.copy_(before[name])
            self.student.train()
        return scores
