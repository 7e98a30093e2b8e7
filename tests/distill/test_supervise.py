"""The supervised baseline."""

import pytest
from toy_corpus import DIM, digest, history, killed_at, run, supervise_arguments

from ssondo.errors import SsondoError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_supervised_training_that_dies_goes_on_to_bit_identical_weights(corpus, tmp_path, monkeypatch):
    run("supervise", **supervise_arguments(corpus, tmp_path / "whole", mixup_alpha=0.3))
    broken = supervise_arguments(corpus, tmp_path / "broken", mixup_alpha=0.3, checkpoint_minutes=0)
    with monkeypatch.context() as patch, killed_at(patch, 5):
        run("supervise", **broken)
    run("supervise", **broken)
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")


@pytest.mark.slow
def test_supervised_student_learns_the_labels(corpus, tmp_path):
    run("supervise", **supervise_arguments(corpus, tmp_path, epochs=25, bn_update_batches=10))
    last = history(tmp_path)[-1]
    assert float(last["eval_map"]) > 0.8
    # Scores that are all equal have a precision of the share of positive clips: 1 in DIM on average.
    assert float(last["constant_map"]) == pytest.approx(1 / DIM, abs=0.05)


def test_corpus_without_classes_cannot_be_supervised(corpus, tmp_path):
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n")
    with pytest.raises(SsondoError, match="a corpus without labels cannot be supervised"):
        run("supervise", **supervise_arguments(corpus, tmp_path, classes=tmp_path / "classes.csv"))


def test_label_outside_the_class_list_is_named(corpus, tmp_path):
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n0,/m/0,tone\n")
    with pytest.raises(SsondoError, match=r"one\.csv: clip one\d+ has the label /m/[1-5], which is not in the class"):
        run("supervise", **supervise_arguments(corpus, tmp_path, classes=tmp_path / "classes.csv"))
