import pytest

from ssondo.distill import lr_schedule
from ssondo.errors import SsondoError

SHORT = {"warmup_epochs": 1, "decay_start_epoch": 1, "decay_epochs": 3, "final_lr_fraction": 0.1}


def test_linear_schedule_changes_with_every_step():
    factor = lr_schedule.lr_lambda("linear", steps_per_epoch=2, **SHORT)
    # The middles of the steps are at epochs 0.25, 0.75, ..., 3.75; the decay is 0.9 over 3 epochs.
    expected = [0.25, 0.75, 0.925, 0.775, 0.625, 0.475, 0.325, 0.175]
    assert [factor(step) for step in range(8)] == pytest.approx(expected)


def test_linear_schedule_stays_at_its_final_factor():
    assert lr_schedule.lr_lambda("linear", steps_per_epoch=2, **SHORT)(100) == pytest.approx(0.1)


def test_schedule_without_warmup_and_decay_is_constant():
    factor = lr_schedule.lr_lambda(
        "published", steps_per_epoch=10, warmup_epochs=0, decay_start_epoch=99, decay_epochs=0
    )
    assert {factor(step) for step in range(900)} == {1.0}
    assert lr_schedule.lr_lambda("constant", steps_per_epoch=10)(3) == 1.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cosine", "schedule 'cosine' does not exist; choose one of published, linear, constant"),
        ("lineal", r"published, linear, constant \(did you mean 'linear'\?\)"),
    ],
)
def test_unknown_schedule_is_refused(name, text):
    with pytest.raises(SsondoError, match=text):
        lr_schedule.lr_lambda(name, steps_per_epoch=1)
