"""What a training leaves of each epoch, read back with other people's readers."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_corpus import arguments, history, killed_at, run

from ssondo.errors import SsondoError
from ssondo.history import Journal, write_events
from ssondo.recipe import Outputs

pytestmark = pytest.mark.usefixtures("one_thread")


def scalars(path):
    events = EventAccumulator(str(path))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_the_numbers_of_the_csv(corpus, tmp_path):
    run("distill", **arguments(corpus, tmp_path, epochs=3, events=tmp_path / "history.tfevents"))
    found = scalars(tmp_path / "history.tfevents")
    rows = history(tmp_path)
    assert set(found) == set(rows[0]) - {"epoch", "step"}
    for tag, values in found.items():
        assert [step for step, _ in values] == [4, 8, 12]
        assert [value for _, value in values] == pytest.approx([float(row[tag]) for row in rows], rel=1e-5)


def test_history_grows_while_the_training_runs_and_a_kill_leaves_each_epoch_once(corpus, tmp_path, monkeypatch):
    settings = arguments(corpus, tmp_path, epochs=3, checkpoint_minutes=0, events=tmp_path / "history.tfevents")
    with monkeypatch.context() as patch, killed_at(patch, 6):
        run("distill", **settings)
    assert [row["epoch"] for row in history(tmp_path)] == ["1"]
    assert [step for step, _ in scalars(tmp_path / "history.tfevents")["loss"]] == [4]
    # A kill may cut what was being written.
    with (tmp_path / "history.tfevents").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 5)
    run("distill", **settings)
    assert [row["epoch"] for row in history(tmp_path)] == ["1", "2", "3"]
    assert [step for step, _ in scalars(tmp_path / "history.tfevents")["loss"]] == [4, 8, 12]


def test_events_of_one_history_are_the_same_bytes_and_unmeasured_values_are_left_out(tmp_path):
    rows = [{"epoch": 1, "step": 5, "loss": 0.5, "seconds": 2.0, "eval_cosine": None}]
    for name in "ab":
        write_events(tmp_path / f"{name}.tfevents", rows)
    assert (tmp_path / "a.tfevents").read_bytes() == (tmp_path / "b.tfevents").read_bytes()
    assert scalars(tmp_path / "a.tfevents") == {"loss": [(5, 0.5)], "seconds": [(5, 2.0)]}


def test_event_file_that_tensorboard_would_not_see_is_refused(tmp_path):
    with pytest.raises(SsondoError, match="reads only files with tfevents in their name"):
        Outputs(out=tmp_path / "a", history=tmp_path / "b", curves=tmp_path / "c", events=tmp_path / "events.bin")


def test_journal_says_an_epoch_without_a_look_at_eval_clips(tmp_path, caplog):
    outputs = Outputs(out=tmp_path / "a", history=tmp_path / "b", curves=tmp_path / "c")
    journal = Journal(outputs, name="t", n_epochs=9, scores={"eval_cosine": "cosine"})
    row = {"epoch": 1, "step": 5, "loss": 0.5, "learning_rate": 0.1, "gradient_norm": None, "seconds": 2.0}
    with caplog.at_level("INFO"):
        journal.add([row | {"clips_per_s": 3.0, "wait_share": 0.25}])
    assert caplog.messages == [
        "t: epoch 1 of 9: loss 0.5, learning rate 0.1, gradient norm nan, 3 clips/s, "
        "the device waited for data 25 % of the time"
    ]
