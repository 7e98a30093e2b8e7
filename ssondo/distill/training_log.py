"""What a training says of each epoch: in the log, a CSV, TensorBoard's file and a picture."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ssondo.distill.training_config import Outputs
from ssondo.storage.atomic_files import atomic_write, write_text

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter

log = logging.getLogger(__name__)

Row = dict[str, float | int | None]
"""An epoch's numbers by column; None is what was not measured."""
LOSS_PART = "loss_"
"""Columns of what the loss is a weighted sum of begin so; a part has no weight in it."""


def _loss_parts(row: Row) -> dict[str, str]:
    """Columns of a row that hold parts of the loss, each with its name in words."""
    return {key: key.removeprefix(LOSS_PART).replace("_", " ") for key in row if key.startswith(LOSS_PART)}


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write a CSV with a line for each epoch; what was not measured is empty."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    lines = [",".join(columns)]
    for row in history:
        values = (row.get(key) for key in columns)
        lines.append(",".join("" if v is None else str(v) if isinstance(v, int) else f"{v:.6g}" for v in values))
    write_text(path, "\n".join(lines) + "\n")


def write_curves(path: Path, history: Sequence[Row], title: str, scores: Mapping[str, str]) -> None:
    """Draw the loss with its parts, and beside it some scores, over the epochs, as a PNG.

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
    left.plot(epochs, [row["loss"] for row in history], marker=".", label="loss")
    parts = _loss_parts(history[-1])
    for column, name in parts.items():
        left.plot(epochs, [row[column] for row in history], marker=".", linestyle="--", label=name)
    if parts:
        left.legend()
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
    with atomic_write(path) as temporary:
        # The name of the program in it would make pictures of two versions differ.
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def write_events(path: Path, history: Sequence[Row]) -> None:
    """Write the history as a TensorBoard event file; the time of an event is that since the training began."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        writer = _record_writer(file)
        writer.write(_event(file_version="brain.Event:2", wall_time=0))
        for row in history:
            writer.write(_event_of(row))


def _append_event(path: Path, row: Row) -> None:
    """Add an epoch to an event file: in place, since TensorBoard reads on in a file that it has opened."""
    with path.open("ab") as file:
        _record_writer(file).write(_event_of(row))


def _record_writer(file: BinaryIO) -> "RecordWriter":
    from tensorboard.summary.writer.record_writer import RecordWriter

    return RecordWriter(file)


def _event(**fields: Any) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event

    return bytes(Event(**fields).SerializeToString())


def _event_of(row: Row) -> bytes:
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=key, simple_value=value)
        for key, value in row.items()
        if value is not None and key not in ("epoch", "step")
    ]
    return _event(step=row["step"], wall_time=row["seconds"], summary=Summary(value=values))


class TrainingLogger:
    """Says of each epoch how it went while the training runs: in the log, in the CSV and to TensorBoard.

    Args:
        outputs: where.
        name: of the training.
        n_epochs: how many there will be.
        scores: columns of the history that tell how good the student is, each with its name.

    Attributes:
        name, scores: as above.
    """

    def __init__(self, outputs: Outputs, *, name: str, n_epochs: int, scores: Mapping[str, str]) -> None:
        self.name, self.scores = name, scores
        self._outputs, self._n_epochs = outputs, n_epochs

    def begin(self, history: Sequence[Row]) -> None:
        """Write the epochs before a restart; what was written then may end in the middle of a line."""
        write_history(self._outputs.history, history)
        if self._outputs.events is not None:
            write_events(self._outputs.events, history)

    def add(self, history: Sequence[Row]) -> None:
        """Write the last epoch of `history`, which `begin` or `add` had without it."""
        write_history(self._outputs.history, history)
        if self._outputs.events is not None:
            _append_event(self._outputs.events, history[-1])
        row = history[-1]
        parts = [f"{name} {row[key]:.4g}" for key, name in _loss_parts(row).items()]
        judged = [f"{label} {row[key]:.3f}" for key, label in self.scores.items() if row.get(key) is not None]
        log.info(
            "%s: epoch %d of %d: loss %.4g%s, learning rate %.2g, gradient norm %.3g, %s%.0f clips/s, "
            "the device waited for data %.0f %% of the time",
            *(self.name, row["epoch"], self._n_epochs, row["loss"], f" ({', '.join(parts)})" if parts else ""),
            row["learning_rate"],
            float("nan") if row["gradient_norm"] is None else row["gradient_norm"],
            "".join(f"{text}, " for text in judged),
            *(row["clips_per_s"], 100 * (row["wait_share"] or 0)),
        )
