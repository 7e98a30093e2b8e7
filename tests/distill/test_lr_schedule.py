import pytest

from ssondo.distill import lr_schedule
from ssondo.errors import SsondoError

SHORT = {"name": "linear", "warmup_epochs": 1, "decay_start_epoch": 1, "decay_epochs": 3, "final_lr_fraction": 0.1}


def test_linear_schedule_rises_and_falls_step_by_step():
    factor = lr_schedule.lr_lambda(SHORT, steps_per_epoch=2)
    # Middles of the steps: epochs 0.25, 0.75, 1.25 ... 3.75; the fall is 0.9 over 3 epochs.
    expected = [0.25, 0.75, 0.925, 0.775, 0.625, 0.475, 0.325, 0.175]
    assert [factor(step) for step in range(8)] == pytest.approx(expected)


def test_linear_schedule_stays_at_its_final_factor():
    assert lr_schedule.lr_lambda(SHORT, steps_per_epoch=2)(100) == pytest.approx(0.1)


def test_schedule_without_ramps_is_constant():
    factor = lr_schedule.lr_lambda({"warmup_epochs": 0, "decay_start_epoch": 99, "decay_epochs": 0}, steps_per_epoch=10)
    assert {factor(step) for step in range(900)} == {1.0}
    assert lr_schedule.lr_lambda({"name": "constant"}, steps_per_epoch=10)(3) == 1.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "cosine"}, "schedule: 'cosine' is not known; choose one of published, linear, constant"),
        ({"name": "linear", "warm_up": 1}, "schedule 'linear' has no option 'warm_up'; it has warmup_epochs, "),
    ],
)
def test_unknown_schedule_or_option_is_named(options, text):
    with pytest.raises(SsondoError, match=text):
        lr_schedule.lr_lambda(options, steps_per_epoch=1)
