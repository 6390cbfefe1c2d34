"""The values of the port."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actuators.base import Fence, ShiftRequest, Split, quantise
from domain.decision import Order
from domain.errors import InvalidSplit
from domain.units import FULL_BP

FENCE = Fence(owner="a", epoch=1)


@pytest.mark.parametrize("bp", [-1, FULL_BP + 1, True, 2.5])
def test_a_weight_that_is_none_is_refused(bp: int) -> None:
    with pytest.raises(InvalidSplit, match="a weight must lie in"):
        Split(stable="v1", canary="v2", canary_bp=bp)


@pytest.mark.parametrize(("stable", "canary"), [("v1", "v1"), ("", "v1"), ("v1", "")])
def test_a_split_needs_two_versions(stable: str, canary: str) -> None:
    with pytest.raises(InvalidSplit):
        Split(stable=stable, canary=canary, canary_bp=0)


@pytest.mark.parametrize(("kind", "bp"), [(Order.RESTORE, 1), (Order.PREPARE, 1), (Order.FINALISE, 9_999)])
def test_kinds_with_a_fixed_weight_accept_no_other(kind: Order, bp: int) -> None:
    with pytest.raises(InvalidSplit, match="means"):
        ShiftRequest(op_id="x", kind=kind, split=Split(stable="a", canary="b", canary_bp=bp), fence=FENCE)


def test_an_order_of_nothing_cannot_be_applied() -> None:
    with pytest.raises(InvalidSplit, match="nothing to apply"):
        ShiftRequest(
            op_id="x", kind=Order.NONE, split=Split(stable="a", canary="b", canary_bp=0), fence=FENCE
        )


@given(
    low=st.integers(0, FULL_BP),
    high=st.integers(0, FULL_BP),
    quantum=st.sampled_from([1, 7, 10, 39, 100, 500, 2_500, 5_000]),
)
def test_quantising_is_monotone_near_and_keeps_the_ends(low: int, high: int, quantum: int) -> None:
    low, high = sorted((low, high))
    assert quantise(low, quantum) <= quantise(high, quantum)
    assert abs(quantise(low, quantum) - low) <= quantum
    assert (quantise(low, quantum) == 0) == (low == 0)
    assert (quantise(low, quantum) == FULL_BP) == (low == FULL_BP)
