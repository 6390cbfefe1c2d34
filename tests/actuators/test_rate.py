"""A budget of which a part only serves going down."""

from __future__ import annotations

import pytest

from actuators.rate import RateBudget


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_shifts_cannot_use_up_what_a_roll_back_needs() -> None:
    budget = RateBudget(per_second=1.0, burst=5.0, reserved=2.0, now=Hand())
    assert [budget.wait_s(is_down=False) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
    assert [budget.wait_s(is_down=True) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_tokens_come_back_with_time_and_not_beyond_the_burst() -> None:
    hand = Hand()
    budget = RateBudget(per_second=2.0, burst=3.0, reserved=0.0, now=hand)
    for _ in range(3):
        assert budget.wait_s(is_down=False) == 0.0
    assert budget.wait_s(is_down=False) == 0.5
    hand.now = 100.0
    assert [budget.wait_s(is_down=False) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_a_reserve_that_leaves_nothing_for_shifts_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        RateBudget(per_second=1.0, burst=2.0, reserved=2.0)
