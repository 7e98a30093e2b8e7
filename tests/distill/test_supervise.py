"""The supervised baseline."""

import pytest
from toy_corpus import DIM, digest, history, killed_at, run, supervise_arguments

from ssondo.errors import SsondoError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_resumed_supervised_training_gives_bit_identical_weights(corpus, tmp_path, monkeypatch):
    run("supervise", **supervise_arguments(corpus, tmp_path / "whole", mixup_alpha=0.3))
    resumed = supervise_arguments(corpus, tmp_path / "resumed", mixup_alpha=0.3, checkpoint_minutes=0)
    with monkeypatch.context() as patch, killed_at(patch, 5):
        run("supervise", **resumed)
    run("supervise", **resumed)
    assert digest(tmp_path / "resumed") == digest(tmp_path / "whole")


@pytest.mark.slow
def test_supervised_student_learns_the_labels(corpus, tmp_path):
    run("supervise", **supervise_arguments(corpus, tmp_path, epochs=25, bn_update_batches=10))
    last = history(tmp_path)[-1]
    # Each of five seeds gives 1.
    assert float(last["eval_map"]) > 0.7
    # The precision of equal scores is the fraction of positive clips, on average 1 in DIM.
    assert float(last["constant_map"]) == pytest.approx(1 / DIM, abs=0.05)


def test_corpus_without_classes_is_refused(corpus, tmp_path):
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n")
    with pytest.raises(SsondoError, match="contains no classes; training on labels needs a corpus with labels"):
        run("supervise", **supervise_arguments(corpus, tmp_path, classes=tmp_path / "classes.csv"))


def test_label_that_is_not_a_class_is_refused(corpus, tmp_path):
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n0,/m/0,tone\n")
    with pytest.raises(SsondoError, match=r"one\.csv: clip one\d+ has the label /m/[1-5], which is not in the class"):
        run("supervise", **supervise_arguments(corpus, tmp_path, classes=tmp_path / "classes.csv"))


def test_clips_without_any_label_are_refused(corpus, tmp_path):
    lines = (corpus / "eval.csv").read_text().splitlines()
    unlabelled = [lines[0], *(line.rpartition(",")[0] + "," for line in lines[1:])]
    (tmp_path / "eval.csv").write_text("\n".join(unlabelled) + "\n")
    with pytest.raises(SsondoError, match="none of the 20 eval clips has a label; give segment lists with labels"):
        run("supervise", **supervise_arguments(corpus, tmp_path, eval_segments=[tmp_path / "eval.csv"]))
