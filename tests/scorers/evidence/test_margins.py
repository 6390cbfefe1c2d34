"""Which margin holds when."""

from __future__ import annotations

import pytest

from domain.calibration import UNLEARNT_MARGIN, Law
from scorers.evidence.margins import margin_at, margin_window

COLD = Law(warmup_margin=((4.0, 3.0, 2.0, 1.1), (1.5, 1.2)), has_learnt_warmup=True)


@pytest.mark.parametrize(
    ("step", "seconds", "rho"),
    [(0, 0.0, 4.0), (0, 5.0, 4.0), (0, 10.0, 3.0), (0, 39.0, 1.1), (1, 0.0, 1.5), (4, 15.0, 1.2)],
)
def test_a_learnt_margin_is_its_blocks_and_an_estimate(step: int, seconds: float, rho: float) -> None:
    assert margin_at(COLD, step, seconds, 40.0) == (rho, False)


def test_the_last_block_holds_until_the_window_ends() -> None:
    assert margin_at(COLD, 2, 35.0, 40.0) == (1.2, False)
    assert margin_at(COLD, 2, 40.0, 40.0) == (1.0, False)


def test_an_unlearnt_margin_is_a_bound_and_only_during_the_window() -> None:
    assert margin_at(Law(), 0, 0.0, 40.0) == (UNLEARNT_MARGIN, True)
    assert margin_at(Law(), 3, 39.9, 40.0) == (UNLEARNT_MARGIN, True)
    assert margin_at(Law(), 3, 40.0, 40.0) == (1.0, False)


def test_ticks_a_hair_before_a_boundary_belong_after_it() -> None:
    assert margin_at(COLD, 0, 9.97, 40.0) == (3.0, False)
    assert margin_at(COLD, 0, 9.9, 40.0) == (4.0, False)
    assert margin_at(Law(), 0, 39.97, 40.0) == (1.0, False)


def test_a_short_window_cuts_the_learnt_blocks_short() -> None:
    assert margin_at(COLD, 0, 20.0, margin_window(2.0)) == (1.0, False)
    assert margin_at(COLD, 0, 0.0, margin_window(0.0)) == (1.0, False)
