"""The reports on a training: CSV, TensorBoard file, figure and log."""

import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_corpus import arguments, history, killed_at, run

from ssondo.distill.training_config import Outputs
from ssondo.distill.training_log import TrainingLogger, write_events
from ssondo.errors import SsondoError

pytestmark = pytest.mark.usefixtures("one_thread")


def scalars(path):
    events = EventAccumulator(str(path))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_file_has_the_values_of_the_csv(corpus, tmp_path):
    run("distill", **arguments(corpus, tmp_path, epochs=3, events=tmp_path / "history.tfevents"))
    found = scalars(tmp_path / "history.tfevents")
    rows = history(tmp_path)
    assert set(found) == set(rows[0]) - {"epoch", "step"}
    for tag, values in found.items():
        assert [step for step, _ in values] == [4, 8, 12]
        assert [value for _, value in values] == pytest.approx([float(row[tag]) for row in rows], rel=1e-5)


def test_components_of_the_loss_are_in_the_log_the_tensorboard_file_and_the_figure(
    corpus, tmp_path, monkeypatch, caplog
):
    legends = []
    savefig = Figure.savefig

    def record_legend(figure, *arguments, **options):
        legends.append([text.get_text() for axes in figure.axes[:1] for text in getattr(axes.legend_, "texts", [])])
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", record_legend)
    for loss in ("hybrid", "cosine"):
        out = tmp_path / loss
        settings = arguments(corpus, out, loss=loss, temperature=0.5, epochs=1, events=out / "history.tfevents")
        with caplog.at_level("INFO"):
            run("distill", **settings)
    assert legends == [["loss", "alignment", "contrastive", "cross cluster"], []]
    row = history(tmp_path / "hybrid")[0]
    components = {name: float(row[f"loss_{name}"]) for name in ("alignment", "contrastive", "cross_cluster")}
    for name, value in components.items():
        assert scalars(tmp_path / "hybrid" / "history.tfevents")[f"loss_{name}"] == [
            (4, pytest.approx(value, rel=1e-5))
        ]
    text = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in components.items())
    lines = [line for line in caplog.messages if "epoch 1 of 1" in line]
    assert f" loss {float(row['loss']):.4g} ({text}), learning rate " in lines[0]
    assert "(" not in lines[1].partition("learning rate")[0]


def test_history_is_written_during_the_training_and_has_each_epoch_once_after_a_kill(corpus, tmp_path, monkeypatch):
    settings = arguments(corpus, tmp_path, epochs=3, checkpoint_minutes=0, events=tmp_path / "history.tfevents")
    with monkeypatch.context() as patch, killed_at(patch, 6):
        run("distill", **settings)
    assert [row["epoch"] for row in history(tmp_path)] == ["1"]
    assert [step for step, _ in scalars(tmp_path / "history.tfevents")["loss"]] == [4]
    # A kill may truncate the file.
    with (tmp_path / "history.tfevents").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 5)
    run("distill", **settings)
    assert [row["epoch"] for row in history(tmp_path)] == ["1", "2", "3"]
    assert [step for step, _ in scalars(tmp_path / "history.tfevents")["loss"]] == [4, 8, 12]


def test_equal_histories_give_equal_tensorboard_files_without_missing_values(tmp_path):
    rows = [{"epoch": 1, "step": 5, "loss": 0.5, "seconds": 2.0, "eval_cosine": None}]
    for name in "ab":
        write_events(tmp_path / f"{name}.tfevents", rows)
    assert (tmp_path / "a.tfevents").read_bytes() == (tmp_path / "b.tfevents").read_bytes()
    assert scalars(tmp_path / "a.tfevents") == {"loss": [(5, 0.5)], "seconds": [(5, 2.0)]}


def test_event_file_that_tensorboard_would_ignore_is_refused(tmp_path):
    with pytest.raises(SsondoError, match="reads only files with tfevents in their name"):
        Outputs(out=tmp_path / "a", history=tmp_path / "b", curves=tmp_path / "c", events=tmp_path / "events.bin")


def test_epoch_without_an_evaluation_is_logged(tmp_path, caplog):
    outputs = Outputs(out=tmp_path / "a", history=tmp_path / "b", curves=tmp_path / "c")
    logger = TrainingLogger(outputs, name="t", n_epochs=9, scores={"eval_cosine": "cosine"})
    row = {"epoch": 1, "step": 5, "loss": 0.5, "learning_rate": 0.1, "gradient_norm": None, "seconds": 2.0}
    with caplog.at_level("INFO"):
        logger.add([row | {"clips_per_s": 3.0, "wait_share": 0.25}])
    assert caplog.messages == [
        "t: epoch 1 of 9: loss 0.5, learning rate 0.1, 3 clips/s, the device waited for data 25 % of the time"
    ]
