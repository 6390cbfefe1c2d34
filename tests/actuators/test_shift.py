"""One order: journaled, looked at, written, verified, and given up or not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from actuators.base import Binding, Fence, ShiftRequest, Split
from actuators.memory import MemoryAdapter, Platform
from actuators.shift import CONFLICTS, ActionReport, Noted, Stage, drive
from domain.decision import ActionOutcome, Order
from domain.errors import (
    Conflict,
    Denied,
    Fenced,
    Outcome,
    StoreUnavailable,
    TargetNotFound,
    Transient,
    VerifyFailed,
)
from domain.policy import MatchRule

BINDING = Binding(service="shop", stable="v1", canary="v2")
OURS = Fence(owner="a", epoch=2)


@dataclass
class Notebook:
    """A journal in memory, which may be out of order."""

    pages: dict[str, list[Noted]] = field(default_factory=dict)
    is_away: bool = False

    async def load(self, op_id: str) -> Noted | None:
        self._check()
        return self.pages[op_id][-1] if op_id in self.pages else None

    async def note(self, op_id: str, noted: Noted) -> None:
        self._check()
        self.pages.setdefault(op_id, []).append(noted)

    def stages(self, op_id: str = "op") -> list[Stage]:
        return [noted.stage for noted in self.pages.get(op_id, [])]

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailable("the database is away")


@pytest.fixture
def platform() -> Platform:
    return Platform({"v1": 10_000}, versions={"v1", "v2"})


@pytest.fixture
def journal() -> Notebook:
    return Notebook()


def shift(bp: int, *, op: str = "op", kind: Order = Order.SHIFT, fence: Fence = OURS) -> ShiftRequest:
    return ShiftRequest(
        op_id=op,
        kind=kind,
        split=Split(stable="v1", canary="v2", canary_bp=bp),
        fence=fence,
        match=MatchRule(),
    )


async def run(platform: Platform, journal: Notebook, request: ShiftRequest) -> ActionReport:
    async with asyncio.timeout(30):
        return await drive(request, MemoryAdapter(BINDING, platform), journal, verify_timeout_s=0.2)


async def test_every_stage_is_noted_before_the_next(platform: Platform, journal: Notebook) -> None:
    report = await run(platform, journal, shift(500))
    assert report.outcome is ActionOutcome.VERIFIED
    assert (report.observed_bp, report.token, report.attempts) == (500, "1", 1)
    assert journal.stages() == [Stage.SENT, Stage.APPLIED, Stage.VERIFIED]
    assert journal.pages["op"][-1].observed_bp == 500


async def test_what_is_in_force_already_is_not_written(platform: Platform, journal: Notebook) -> None:
    await run(platform, journal, shift(500))
    report = await run(platform, journal, shift(500, op="another"))
    assert (report.outcome, report.attempts) == (ActionOutcome.VERIFIED, 0)
    assert platform.writes == 1
    assert journal.stages("another") == [Stage.VERIFIED]


async def test_a_verified_order_is_reported_from_the_journal(platform: Platform, journal: Notebook) -> None:
    await run(platform, journal, shift(500))
    await run(platform, journal, shift(1_500, op="next"))
    report = await run(platform, journal, shift(500))
    assert (report.outcome, report.observed_bp) == (ActionOutcome.VERIFIED, 500)
    assert platform.stored.weights["v2"] == 1_500


@pytest.mark.parametrize("moment", [Stage.SENT, Stage.APPLIED])
async def test_after_a_crash_one_looks_and_makes_no_second_change(
    platform: Platform, journal: Notebook, moment: Stage
) -> None:
    """The process dies while it notes ``moment``; the platform has or has not got the write by then."""
    crash = CrashAt(moment)
    with pytest.raises(asyncio.CancelledError):
        await run(platform, crash, shift(500))
    report = await run(platform, journal, shift(500))
    assert report.outcome is ActionOutcome.VERIFIED
    assert platform.weight_changes == [{"v1": 10_000}, {"v1": 9_500, "v2": 500}]


class CrashAt(Notebook):
    """A process that dies when it is about to note one stage."""

    def __init__(self, moment: Stage) -> None:
        super().__init__()
        self._moment = moment

    async def note(self, op_id: str, noted: Noted) -> None:
        if noted.stage is self._moment:
            raise asyncio.CancelledError
        await super().note(op_id, noted)


async def test_conflicts_are_looked_at_and_tried_again(platform: Platform, journal: Notebook) -> None:
    platform.faults.before_apply.extend([Conflict("raced")] * CONFLICTS)
    report = await run(platform, journal, shift(500))
    assert report.outcome is ActionOutcome.VERIFIED
    assert report.attempts == CONFLICTS + 1


async def test_one_conflict_too_many_gives_up_going_up(platform: Platform, journal: Notebook) -> None:
    platform.faults.before_apply.extend([Conflict("raced")] * (CONFLICTS + 1))
    report = await run(platform, journal, shift(500))
    assert (report.outcome, report.observed_bp) == (ActionOutcome.NOT_APPLIED, 0)
    assert journal.stages()[-1] is Stage.NOT_APPLIED


async def test_what_does_not_come_into_force_is_driven_once_more(
    platform: Platform, journal: Notebook
) -> None:
    platform.faults.never_reconciles = True
    report = await run(platform, journal, shift(500))
    assert report.outcome is ActionOutcome.NOT_APPLIED
    assert "not in force after 0.1 s" in report.detail
    assert report.attempts == 2
    assert platform.writes == 1


async def test_a_late_platform_is_waited_for(platform: Platform, journal: Notebook) -> None:
    platform.faults.propagation_s = 0.15
    report = await run(platform, journal, shift(500))
    assert report.outcome is ActionOutcome.VERIFIED


@pytest.mark.parametrize("error", [Denied("403"), TargetNotFound("404"), Fenced("newer")])
async def test_hopeless_errors_are_refusals(
    platform: Platform, journal: Notebook, error: Denied | TargetNotFound | Fenced
) -> None:
    platform.faults.before_apply.append(error)
    report = await run(platform, journal, shift(500))
    assert (report.outcome, report.detail) == (ActionOutcome.REFUSED, str(error))
    assert journal.stages()[-1] is Stage.REFUSED


async def test_a_platform_that_refuses_for_good_is_not_asked_twice(
    platform: Platform, journal: Notebook
) -> None:
    refusal = VerifyFailed("bad routes", outcome=Outcome.NOT_APPLIED, retryable=False)
    platform.faults.before_apply.append(refusal)
    report = await run(platform, journal, shift(500))
    assert (report.outcome, report.attempts) == (ActionOutcome.NOT_APPLIED, 1)


async def test_a_strangers_weights_are_drift(platform: Platform, journal: Notebook) -> None:
    await run(platform, journal, shift(500))
    platform.edit({"v1": 2_000, "v2": 8_000})
    report = await run(platform, journal, shift(1_500, op="next"))
    assert (report.outcome, report.observed_bp) == (ActionOutcome.DRIFT, 8_000)
    assert platform.stored.weights["v2"] == 8_000


async def test_preparing_lists_every_problem(platform: Platform, journal: Notebook) -> None:
    platform.versions.remove("v2")
    platform.edit({"v1": 9_000, "v2": 1_000})
    report = await run(platform, journal, shift(0, kind=Order.PREPARE))
    assert report.outcome is ActionOutcome.REFUSED
    assert "knows no version 'v2'" in report.detail
    assert "not all on v1" in report.detail


async def test_going_up_needs_the_journal(platform: Platform, journal: Notebook) -> None:
    journal.is_away = True
    with pytest.raises(StoreUnavailable):
        await run(platform, journal, shift(500))
    assert platform.writes == 0


async def test_going_down_needs_no_journal(platform: Platform, journal: Notebook) -> None:
    await run(platform, journal, shift(500))
    journal.is_away = True
    report = await run(platform, journal, shift(0, op="down", kind=Order.RESTORE))
    assert report.outcome is ActionOutcome.VERIFIED
    assert platform.stored.weights == {"v1": 10_000}


async def test_going_down_never_gives_up_and_speaks_up(platform: Platform, journal: Notebook) -> None:
    await run(platform, journal, shift(500))
    platform.faults.before_apply.extend([Transient("503"), Denied("403"), Transient("503")])
    heard: list[ActionReport] = []

    async def hear(report: ActionReport) -> None:
        heard.append(report)

    down = shift(0, op="down", kind=Order.RESTORE)
    adapter = MemoryAdapter(BINDING, platform)
    report = await drive(down, adapter, journal, alarm_every_s=0.05, notify=hear)
    assert report.outcome is ActionOutcome.VERIFIED
    assert platform.stored.weights == {"v1": 10_000}
    assert [each.outcome for each in heard][:1] == [ActionOutcome.SENT]
    alarms = [each for each in heard if each.outcome is ActionOutcome.NOT_APPLIED]
    assert alarms
    assert "still trying to bring traffic down" in alarms[0].detail
    assert alarms[0].observed_bp == 500


async def test_going_down_works_blind(platform: Platform, journal: Notebook) -> None:
    await run(platform, journal, shift(500))
    platform.faults.on_observe.append(Transient("no answer"))
    report = await run(platform, journal, shift(0, op="down", kind=Order.RESTORE))
    assert report.outcome is ActionOutcome.VERIFIED


async def test_going_down_stops_for_a_newer_controller_only(platform: Platform, journal: Notebook) -> None:
    newer = Fence(owner="b", epoch=3)
    await run(platform, journal, shift(500, fence=newer))
    report = await run(platform, journal, shift(0, op="down", kind=Order.RESTORE))
    assert report.outcome is ActionOutcome.REFUSED
    assert platform.stored.weights["v2"] == 500


class Meddler(Notebook):
    """Right after our write is noted, a stranger sends most traffic to the canary, once."""

    def __init__(self, platform: Platform) -> None:
        super().__init__()
        self._platform = platform
        self._has_meddled = False

    async def note(self, op_id: str, noted: Noted) -> None:
        await super().note(op_id, noted)
        if noted.stage is Stage.APPLIED and not self._has_meddled:
            self._has_meddled = True
            self._platform.edit({"v1": 1_000, "v2": 9_000})


async def test_a_stranger_who_writes_right_after_us_is_drift_going_up(platform: Platform) -> None:
    report = await run(platform, Meddler(platform), shift(500))
    assert (report.outcome, report.observed_bp, report.attempts) == (ActionOutcome.DRIFT, 9_000, 2)


async def test_a_stranger_who_writes_right_after_us_is_overruled_going_down(platform: Platform) -> None:
    await run(platform, Notebook(), shift(500))
    journal = Meddler(platform)
    report = await run(platform, journal, shift(0, op="down", kind=Order.RESTORE))
    assert report.outcome is ActionOutcome.VERIFIED
    assert platform.stored.weights == {"v1": 10_000}
    assert journal.stages("down").count(Stage.SENT) == 2


async def test_a_foreign_write_is_seen_at_once_and_not_after_the_time_out(platform: Platform) -> None:
    report = await drive(
        shift(500), MemoryAdapter(BINDING, platform), Meddler(platform), verify_timeout_s=3_600.0
    )
    assert report.seconds < 2.0  # the time-out comes after 2.5 s at the earliest
