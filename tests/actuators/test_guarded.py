"""Deadlines, retries by kind of error, and no secrets."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import pytest

from actuators.base import Binding, Fence, Observed, Receipt, ShiftRequest, Split, WriteOutcome
from actuators.guarded import GuardedAdapter, Patience
from actuators.memory import MemoryAdapter, Platform
from actuators.rate import RateBudget
from domain.decision import Order
from domain.errors import (
    ActuationError,
    Conflict,
    Denied,
    InvalidSplit,
    Outcome,
    TargetNotFound,
    Throttled,
    Transient,
)

QUICK = Patience(per_try_s=0.2, attempts=3, total_s=5.0, first_pause_s=0.001, longest_pause_s=0.01)
BINDING = Binding(service="shop", stable="v1", canary="v2")


@pytest.fixture
def platform() -> Platform:
    return Platform({"v1": 10_000}, versions={"v1", "v2"})


def guarded(
    platform: Platform, patience: Patience = QUICK, budget: RateBudget | None = None
) -> GuardedAdapter:
    inner = MemoryAdapter(BINDING, platform)
    return GuardedAdapter(inner, budget=budget, looking=patience, shifting=patience, going_down=patience)


def request(bp: int = 500, kind: Order = Order.SHIFT) -> ShiftRequest:
    split = Split(stable="v1", canary="v2", canary_bp=bp)
    return ShiftRequest(op_id="op", kind=kind, split=split, fence=Fence(owner="a", epoch=1))


async def test_a_write_that_was_not_applied_is_tried_again(platform: Platform) -> None:
    platform.faults.before_apply.extend([Transient("503"), Transient("503")])
    receipt = await guarded(platform).apply(request())
    assert receipt.outcome is WriteOutcome.APPLIED
    assert platform.writes == 1


async def test_attempts_are_bounded(platform: Platform) -> None:
    platform.faults.before_apply.extend([Transient("503")] * 5)
    with pytest.raises(Transient):
        await guarded(platform).apply(request())
    assert len(platform.faults.before_apply) == 2
    assert platform.writes == 0


async def test_after_a_lost_answer_one_looks_and_does_not_write_again(platform: Platform) -> None:
    platform.faults.lose_answers = 1
    receipt = await guarded(platform).apply(request())
    assert (receipt.outcome, receipt.applied_bp) == (WriteOutcome.APPLIED, 500)
    assert platform.writes == 1
    assert platform.observations == 1


async def test_an_unknown_fate_that_turns_out_not_applied_is_written(platform: Platform) -> None:
    platform.faults.before_apply.append(Transient("reset", outcome=Outcome.UNKNOWN))
    await guarded(platform).apply(request())
    assert platform.writes == 1
    assert platform.observations == 1


@pytest.mark.parametrize("error", [Denied, TargetNotFound, InvalidSplit, Conflict])
async def test_errors_that_another_try_cannot_help_are_raised_at_once(
    platform: Platform, error: Callable[[str], ActuationError]
) -> None:
    platform.faults.before_apply.extend([error("no"), error("no")])
    with pytest.raises(ActuationError, match="no"):
        await guarded(platform).apply(request())
    assert len(platform.faults.before_apply) == 1


async def test_retry_after_is_honoured(platform: Platform) -> None:
    platform.faults.before_apply.append(Throttled("slow down", retry_after=0.15))
    began = monotonic()
    await guarded(platform).apply(request())
    assert monotonic() - began >= 0.15


async def test_a_retry_after_beyond_the_total_time_is_not_waited_for(platform: Platform) -> None:
    platform.faults.before_apply.append(Throttled("slow down", retry_after=3_600.0))
    with pytest.raises(Throttled):
        await guarded(platform).apply(request())


async def test_a_platform_that_hangs_is_given_up_with_fate_unknown(platform: Platform) -> None:
    platform.faults.apply_takes_s = 3_600.0
    once = Patience(per_try_s=0.05, attempts=1, total_s=0.05, first_pause_s=0.01, longest_pause_s=0.01)
    with pytest.raises(Transient, match="did not answer within") as error:
        await guarded(platform, once).apply(request())
    assert error.value.outcome is Outcome.UNKNOWN


async def test_secrets_are_taken_out_of_errors(platform: Platform) -> None:
    platform.faults.before_apply.append(Denied("https://bob:hunter2@lb refused; token=abc123def"))
    with pytest.raises(Denied) as error:
        await guarded(platform).apply(request())
    assert "hunter2" not in str(error.value)
    assert "abc123def" not in repr(error.value)


async def test_an_untranslated_exception_becomes_one_of_ours_without_its_secrets(platform: Platform) -> None:
    class Sloppy(MemoryAdapter):
        async def apply(self, request: ShiftRequest) -> Receipt:
            raise KeyError("password=hunter2")

    with pytest.raises(ActuationError, match="KeyError") as error:
        await GuardedAdapter(Sloppy(BINDING, platform)).apply(request())
    assert error.value.outcome is Outcome.UNKNOWN
    assert "hunter2" not in str(error.value)
    assert error.value.__suppress_context__


async def test_a_spent_budget_still_lets_traffic_down(platform: Platform) -> None:
    budget = RateBudget(per_second=0.001, burst=2.0, reserved=1.0)
    short = Patience(per_try_s=0.2, attempts=1, total_s=0.1, first_pause_s=0.01, longest_pause_s=0.01)
    adapter = guarded(platform, short, budget)
    await adapter.apply(request())
    with pytest.raises(Throttled, match="rate budget"):
        await adapter.apply(request(1_500))
    await adapter.apply(request(0, Order.RESTORE))
    assert platform.stored.weights == {"v1": 10_000}


async def test_looking_is_tried_again_too(platform: Platform) -> None:
    platform.faults.on_observe.extend([Transient("503"), Throttled("429")])
    observed: Observed = await guarded(platform).observe()
    assert observed.split is not None
