"""What a training says of each epoch: a CSV, TensorBoard events and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssondo.artefacts import replacing, write_text

Row = dict[str, float | int | None]
"""An epoch's numbers by column; None is what was not measured."""


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
