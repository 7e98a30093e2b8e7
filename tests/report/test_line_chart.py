"""Line charts; the expected coordinates are calculated by hand from the area x = 44 to 350 and y = 164 to 10."""

import pandas as pd
import pytest

from ssondo.report.line_chart import line_chart


def frame(columns, index):
    return pd.DataFrame(columns, index=pd.Index(index, name="epoch"))


def test_points_are_scaled_to_the_area_with_a_margin_above_and_below():
    chart = line_chart("loss", frame({"loss": [1.0, 0.5, 0.0]}, [1, 2, 3]))
    # The vertical axis is from -0.08 to 1.08, so 1.0 is 0.08 / 1.16 of 154 pixels below the upper edge.
    assert chart.curves[0].points == ["44.0 20.6", "197.0 87.0", "350.0 153.4"]
    assert (chart.title, chart.x_label, chart.width) == ("loss", "epoch", 153)


def test_ticks_are_round_numbers_inside_the_area_and_epochs_are_integers():
    chart = line_chart("loss", frame({"loss": [0.93, 0.11]}, [1, 3]))
    assert [text for _, text in chart.x_ticks] == ["1", "2", "3"]
    assert [text for _, text in chart.y_ticks] == ["0.2", "0.4", "0.6", "0.8"]
    assert all(10 <= y <= 164 for y, _ in chart.y_ticks)


def test_values_under_the_pointer_are_those_of_all_curves_at_that_position():
    values = frame({"a": [0.25, None, 0.75], "b": [None, 2.0, 12345.678]}, [1, 2, 3])
    half_widths = frame({"a": [0.5, None, None]}, [1, 2, 3])
    chart = line_chart("", values, half_widths=half_widths)
    assert [text for _, text in chart.values] == [
        "epoch 1: a 0.25 ± 0.5",
        "epoch 2: b 2",
        "epoch 3: a 0.75, b 1.235e+04",
    ]
    assert [x for x, _ in chart.values] == [44, 197, 350]


def test_missing_values_are_left_out_of_the_curve_and_empty_curves_of_the_chart():
    chart = line_chart("", frame({"a": [1, None, 3], "b": [None] * 3, "c": [1, 2, 3]}, [1, 2, 3]), dashed=["c"])
    assert [(curve.name, curve.dashed, len(curve.points)) for curve in chart.curves] == [
        ("a", False, 2),
        ("c", True, 3),
    ]


def test_chart_without_values_is_none():
    assert line_chart("", frame({"a": [None, None]}, [1, 2])) is None
    assert line_chart("", frame({}, [1, 2])) is None


def test_band_goes_along_the_upper_edge_and_back_along_the_lower_edge():
    values = frame({"a": [10.0, 10.0], "b": [9.0, 11.0]}, [0, 1])
    chart = line_chart("", values, half_widths=frame({"a": [1.0, 1.0]}, [0, 1]))
    # The vertical axis is from 9 - 0.16 to 11 + 0.16.
    assert chart.curves[0].band == "44.0,20.6 350.0,20.6 350.0,153.4 44.0,153.4"
    assert chart.curves[1].band == ""


@pytest.mark.parametrize("value", [0.0, 5.0, -2.0])
def test_single_point_is_in_the_middle_of_the_chart(value):
    chart = line_chart("", frame({"a": [value]}, [7]))
    assert chart.curves[0].points == ["197.0 87.0"]
    assert chart.width == 306
