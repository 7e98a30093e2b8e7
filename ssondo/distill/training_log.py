"""Reports on a training: log messages, a CSV file, a TensorBoard file and a figure of the curves."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from ssondo.distill.training_config import Outputs
from ssondo.storage.atomic_files import atomic_write, save_figure, write_csv

log = logging.getLogger(__name__)

Row = dict[str, float | int | None]
"""Metrics of an epoch by column; None for what was not measured."""
LOSS_COMPONENT = "loss_"
"""Prefix of the columns with the components of the loss, without their weights."""


def _component_names(columns: Sequence[str]) -> dict[str, str]:
    """Return the columns with components of the loss, each with its name for humans."""
    return {c: c.removeprefix(LOSS_COMPONENT).replace("_", " ") for c in columns if c.startswith(LOSS_COMPONENT)}


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write the history as CSV with one row per epoch; missing values are empty."""
    write_csv(path, pd.DataFrame(list(history)), float_format="%.6g")


def write_curves(path: Path, history: Sequence[Row], title: str, scores: Mapping[str, str]) -> None:
    """Draw the loss and its components, and beside them the scores, over the epochs, as a PNG file.

    `scores` are columns of the history, each with its name in the legend.
    """
    from matplotlib.figure import Figure

    table = pd.DataFrame(list(history)).set_index("epoch")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    left.plot(table["loss"], marker=".", label="loss")
    components = _component_names(list(history[-1]))
    for column, name in components.items():
        left.plot(table[column], marker=".", linestyle="--", label=name)
    if components:
        left.legend()
    figure.suptitle(title)
    left.set(xlabel="epoch", ylabel="training loss")
    for column, name in scores.items():
        right.plot(table[column].dropna(), marker=".", label=name)
    right.set(xlabel="epoch", ylabel="on eval clips")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    save_figure(path, figure)


def write_events(path: Path, history: Sequence[Row]) -> None:
    """Write the history as a TensorBoard file; the time of an event is the time since the training began."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    with atomic_write(path) as temporary, temporary.open("wb") as file:
        RecordWriter(file).write(Event(file_version="brain.Event:2", wall_time=0).SerializeToString())
        _append_events(file, history)


def _append_events(file: BinaryIO, rows: Sequence[Row]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    writer = RecordWriter(file)
    for row in rows:
        values = [
            Summary.Value(tag=key, simple_value=value)
            for key, value in row.items()
            if value is not None and key not in ("epoch", "step")
        ]
        event = Event(step=row["step"], wall_time=row["seconds"], summary=Summary(value=values))
        writer.write(event.SerializeToString())


class TrainingLogger:
    """Reports each epoch while the training runs, in the log, the CSV file and the TensorBoard file.

    `scores` are columns of the history, each with its name in log messages.
    """

    def __init__(self, outputs: Outputs, *, name: str, n_epochs: int, scores: Mapping[str, str]) -> None:
        self.name = name
        self._scores, self._outputs, self._n_epochs = scores, outputs, n_epochs

    def begin(self, history: Sequence[Row]) -> None:
        """Write the epochs before a restart; an interruption may have truncated the TensorBoard file."""
        write_history(self._outputs.history, history)
        if self._outputs.events is not None:
            write_events(self._outputs.events, history)

    def add(self, history: Sequence[Row]) -> None:
        """Report the last epoch of `history`; `begin` or `add` has reported the ones before it."""
        write_history(self._outputs.history, history)
        if self._outputs.events is not None:
            # In place, since TensorBoard keeps the file open.
            with self._outputs.events.open("ab") as file:
                _append_events(file, history[-1:])
        row = history[-1]
        components = ", ".join(f"{name} {row[key]:.4g}" for key, name in _component_names(list(row)).items())
        metrics = [
            f"loss {row['loss']:.4g}{f' ({components})' if components else ''}",
            f"learning rate {row['learning_rate']:.2g}",
            *([] if row["gradient_norm"] is None else [f"gradient norm {row['gradient_norm']:.3g}"]),
            *(f"{name} {row[key]:.3f}" for key, name in self._scores.items() if row.get(key) is not None),
            f"{row['clips_per_s']:.0f} clips/s",
            f"the device waited for data {100 * (row['wait_share'] or 0):.0f} % of the time",
        ]
        log.info("%s: epoch %d of %d: %s", self.name, row["epoch"], self._n_epochs, ", ".join(metrics))
