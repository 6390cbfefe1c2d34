"""Units: what people write is what is kept, and nothing is guessed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.clock import tick_floor, utc_text
from domain.units import bp_text, check_weight, duration_text, parse_duration, percent_to_bp


@given(st.integers(0, 10**12))
def test_a_duration_reads_back_as_it_was_written(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["30", "", " ", "s", "1x", "-3s", "1h-3m", "3 0s", "1s 2", None, True, 5, 1.5, []]
)
def test_what_has_no_unit_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_zero_needs_no_unit() -> None:
    assert parse_duration(0) == 0.0


@given(st.integers(0, 10_000))
def test_every_basis_point_can_be_written_in_percent(weight_bp: int) -> None:
    assert percent_to_bp(weight_bp / 100) == weight_bp
    assert percent_to_bp(float(bp_text(weight_bp).removesuffix(" %"))) == weight_bp


@pytest.mark.parametrize("percent", [0.001, 100.01, -1.0, math.inf, -math.inf, math.nan])
def test_a_percentage_that_is_no_weight_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        percent_to_bp(percent)


@pytest.mark.parametrize("weight", [-1, 10_001, 1.0, True, "5", None])
def test_what_is_no_weight_is_refused_with_the_rule(weight: object) -> None:
    with pytest.raises(ValueError, match=r"0\.\.10000"):
        check_weight(weight)


@given(st.integers(1, 60), st.floats(0, 2e9))
def test_a_tick_boundary_is_a_multiple_of_the_interval_at_or_before_the_moment(
    interval: int, moment: float
) -> None:
    floor = tick_floor(moment, float(interval))
    assert floor % interval == 0
    assert floor - 1e-6 <= moment + 1e-6 * interval
    assert moment < floor + interval + 1e-6


def test_times_are_shown_in_utc_with_milliseconds() -> None:
    assert utc_text(1_700_000_000.9996) == "2023-11-14T22:13:21.000Z"
