"""One task per target, which takes the highest generation: from decisions to traffic that moved.

The rules:

* ``submit`` never waits, and no target waits for another one.
* Within a rollout the highest generation wins and cancels what is under way; whatever the cancelled write
  did, the next one looks before it writes. After a RESTORE nothing of that rollout goes up any more.
* An order that the journal knows as VERIFIED is reported again, not applied again.
* Each rollout writes under an epoch of its own reign over the target, above any that the target has seen.
* While a rollout is on its way, the target is looked at every few seconds; drift is reported once per onset,
  and its end as VERIFIED.

The actuate agent feeds this; what it publishes is folded by the judge.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol, TypeVar

from actuators.base import (
    Binding,
    Fence,
    Observed,
    ShiftRequest,
    Split,
    TrafficAdapter,
    is_stored,
)
from actuators.fence import check_fence, floor_for
from actuators.guarded import GuardedAdapter
from actuators.rate import RateBudget
from actuators.registry import open_adapter
from actuators.shift import ActionReport, Noted, Stage, drive
from domain.clock import Clock
from domain.decision import ActionOutcome, Cause, DecisionKind, Order
from domain.errors import ActuationError, Fenced, SentraError, StoreError, StoreUnavailable
from domain.records import ActionRecord, DecisionRecord
from store.journal import ActionState, JournalEntry
from store.leases import Lease

T = TypeVar("T")

log = logging.getLogger(__name__)

WATCH_EVERY_S = 3.0
RETRY_S, LONGEST_RETRY_S = 0.5, 30.0
"""Pauses before a failure that the judge answers with the same order again, so that the two do not race."""

DATABASE_WITHIN_S = 2.0
"""A database that takes longer counts as unavailable: going down does not wait for it."""

REMEMBERED = 64
"""Rollouts per target of which late orders are still recognised without asking the journal."""

Publish = Callable[[ActionRecord], Awaitable[None]]
OpenAdapter = Callable[[str, Binding], TrafficAdapter]


class JournalStore(Protocol):
    """The table of actions, as :class:`store.journal.Journal` keeps it."""

    def intend(self, record: DecisionRecord, *, at: float, epoch: int = 0, owner: str = "") -> bool: ...

    def record(
        self,
        decision_id: str,
        state: ActionState,
        *,
        at: float,
        epoch: int = 0,
        owner: str = "",
        token_before: str | None = None,
        token_after: str | None = None,
        snapshot: bytes | None = None,
        observed_bp: int | None = None,
        detail: str | None = None,
    ) -> bool: ...

    def load(self, decision_id: str) -> JournalEntry | None: ...

    def latest(self, target_key: str) -> JournalEntry | None: ...

    def unfinished(self, owner: str | None = None) -> Sequence[JournalEntry]: ...


class EpochStore(Protocol):
    """Reigns over targets, as :class:`store.leases.Leases` keeps them."""

    def acquire(self, key: str, owner: str, *, ttl_s: float, now: float, floor: int = 0) -> Lease | None: ...


@dataclass(slots=True)
class _Course:
    """What the driver remembers of one rollout on one target."""

    generation: int = -1
    owner_epoch: int = 0
    goes_down: bool = False
    fence: Fence | None = None
    drifted: bool = False
    failures: int = 0


@dataclass(slots=True)
class _Target:
    """One target: what waits for it, what runs on it, what is watched."""

    key: str
    budget: RateBudget
    courses: dict[str, _Course] = field(default_factory=dict)
    waiting: dict[str, DecisionRecord] = field(default_factory=dict)
    """The newest order of each rollout, oldest rollout first."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Task[None] | None = None
    order: DecisionRecord | None = None
    """The order that runs; none while the target is only being looked at."""
    adapter: TrafficAdapter | None = None
    adapter_for: str = ""
    watched: tuple[DecisionRecord, ShiftRequest] | None = None

    def course(self, rollout_id: str) -> _Course:
        if rollout_id not in self.courses and len(self.courses) >= REMEMBERED:
            del self.courses[next(iter(self.courses))]
        return self.courses.setdefault(rollout_id, _Course())

    def holds(self, record: DecisionRecord) -> bool:
        """Whether this very decision waits or runs already."""
        held = (self.order, self.waiting.get(record.decision.rollout_id))
        return any(each and each.decision.decision_id == record.decision.decision_id for each in held)

    def next_order(self) -> DecisionRecord | None:
        """Whoever goes down first; else in order of arrival."""
        if not self.waiting:
            return None
        down = [key for key, record in self.waiting.items() if _is_down(record)]
        return self.waiting.pop(down[0] if down else next(iter(self.waiting)))


class TargetDriver:
    """Carries out decisions. Make a new one whenever partitions are assigned: reigns begin anew with it.

    Parameters
    ----------
    publish
        Called with every report; what it raises is the caller's to handle, so it should not.
    owner
        This process, as fences and journal rows name it.
    lease_ttl_s
        How long a reign excludes others by itself. 0 leaves that to the partition's owner and to the fence.
    """

    def __init__(
        self,
        *,
        journal: JournalStore,
        epochs: EpochStore,
        publish: Publish,
        owner: str,
        clock: Clock,
        open_adapter: OpenAdapter = open_adapter,
        watch_every_s: float = WATCH_EVERY_S,
        lease_ttl_s: float = 0.0,
    ) -> None:
        self._journal = journal
        self._epochs = epochs
        self._publish = publish
        self._owner = owner
        self._clock = clock
        self._open = open_adapter
        self._watch_every_s = watch_every_s
        self._lease_ttl_s = lease_ttl_s
        self._targets: dict[str, _Target] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="journal")

    async def accept(self, record: DecisionRecord) -> None:
        """Journal that ``record`` is to be carried out and :meth:`submit` it; then it may be acknowledged.

        Raises
        ------
        StoreError
            It could not be journaled. One that goes down is submitted all the same.
        """
        try:
            await self._in_thread(
                lambda: self._journal.intend(record, at=self._clock.now(), owner=self._owner)
            )
        except StoreError:
            if _is_down(record):
                self.submit(record)
            raise
        self.submit(record)

    def submit(self, record: DecisionRecord) -> None:
        """Hand over an order; returns at once. Orders that a newer one has overtaken are dropped."""
        if record.decision.order is Order.NONE:
            return
        target = self._target(record.target_key)
        course = target.course(record.decision.rollout_id)
        if target.holds(record) or not _is_newest(course, record):
            return
        course.generation = record.decision.generation
        course.owner_epoch = record.owner_epoch
        course.goes_down = course.goes_down or _is_down(record)
        target.waiting[record.decision.rollout_id] = record
        is_rival = target.order is None or target.order.decision.rollout_id == record.decision.rollout_id
        if target.running is not None and is_rival:
            target.running.cancel()
        target.wake.set()

    async def resume(self) -> int:
        """After a start: take up what the journal holds unfinished of this owner; how many orders."""
        entries = await self._in_thread(lambda: self._journal.unfinished(self._owner))
        for entry in entries:
            self.submit(entry.record)
        return len(entries)

    async def aclose(self) -> None:
        """Stop everything where it is. Writes under way are left to whoever looks next."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for target in self._targets.values():
            await _close(target)
        self._threads.shutdown(wait=False)

    # -- one target ----------------------------------------------------------------------------------------

    def _target(self, key: str) -> _Target:
        if key not in self._targets:
            budget = RateBudget(per_second=50.0, burst=50.0, reserved=10.0)
            target = self._targets[key] = _Target(key=key, budget=budget)
            task = asyncio.create_task(self._serve(target), name=f"target {key}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return self._targets[key]

    async def _serve(self, target: _Target) -> None:
        """The target's life: carry out what comes, and look now and then when nothing does."""
        while True:
            target.wake.clear()
            if (record := target.next_order()) is not None:
                await self._run(target, record, self._carry_out(target, record))
            elif await _is_quiet(target.wake, self._watch_every_s if target.watched else None):
                await self._run(target, None, self._look(target))

    async def _run(
        self, target: _Target, order: DecisionRecord | None, work: Coroutine[None, None, None]
    ) -> None:
        """Do ``work`` as a task that ``submit`` may cancel."""
        target.order, target.running = order, asyncio.create_task(work)
        try:
            await asyncio.gather(target.running, return_exceptions=True)
            if not target.running.cancelled() and (error := target.running.exception()) is not None:
                log.error("%s: an order failed unexpectedly", target.key, exc_info=error)
                await self._again(target, order)
        finally:
            target.running.cancel()
            target.order = target.running = None

    async def _again(self, target: _Target, order: DecisionRecord | None) -> None:
        """We are broken. Going down is tried again even so; the rest is left to the judge's time-outs."""
        await asyncio.sleep(RETRY_S)
        if order is not None and _is_down(order):
            target.waiting.setdefault(order.decision.rollout_id, order)

    async def _carry_out(self, target: _Target, record: DecisionRecord) -> None:
        course, began = target.course(record.decision.rollout_id), monotonic()
        while True:
            try:
                report = await self._drive(target, course, record)
                break
            except StoreError as error:
                report = ActionReport(outcome=ActionOutcome.NOT_APPLIED, detail=str(error))
            except SentraError as error:
                report = ActionReport(outcome=ActionOutcome.REFUSED, detail=str(error))
                break
            if not _is_down(record):
                break
            await asyncio.sleep(RETRY_S)  # no database, no reign: going down has to wait for one, not give up
        if report is None:
            return
        await self._pace(course, record, report)
        course.drifted = report.outcome is ActionOutcome.DRIFT
        await self._report(record, course, report, monotonic() - began)
        if report.outcome is ActionOutcome.VERIFIED and not _is_on_its_way(record):
            await _close(target)

    async def _drive(self, target: _Target, course: _Course, record: DecisionRecord) -> ActionReport | None:
        """Carry ``record`` out; ``None`` when the journal says that a newer order rules."""
        if await self._is_overtaken(record):
            return None
        adapter = await self._adapter(target, record)
        fence = course.fence = course.fence or await self._reign(adapter, record)
        request = _request(record, fence, over_drift=course.drifted or _knows_of_drift(record))
        target.watched = None

        async def notify(report: ActionReport) -> None:
            await self._report(record, course, report, report.seconds)

        journal = _Adapted(self._journal, self._in_thread, self._clock, fence)
        report = await drive(
            request, adapter, journal, verify_timeout_s=record.verify_timeout_s, notify=notify
        )
        if report.outcome in (ActionOutcome.VERIFIED, ActionOutcome.DRIFT) and _is_on_its_way(record):
            target.watched = (record, request)
        return report

    async def _is_overtaken(self, record: DecisionRecord) -> bool:
        """After a restart, old decisions come again; the journal remembers which one ruled."""
        decision = record.decision
        try:
            ruling = await self._in_thread(lambda: self._journal.latest(record.target_key))
        except StoreError:
            if _is_down(record):
                return False
            raise
        if ruling is None or ruling.record.decision.rollout_id != decision.rollout_id:
            return False
        if ruling.generation <= decision.generation:
            return False
        await self._in_thread(
            lambda: self._journal.record(
                decision.decision_id,
                ActionState.SUPERSEDED,
                at=self._clock.now(),
                epoch=ruling.epoch,
                owner=self._owner,
                detail=f"generation {ruling.generation} rules",
            )
        )
        return True

    async def _adapter(self, target: _Target, record: DecisionRecord) -> TrafficAdapter:
        rollout_id = record.decision.rollout_id
        if target.adapter is None or target.adapter_for != rollout_id:
            await _close(target)
            inner = self._open(record.traffic.adapter, _binding(record))
            target.adapter, target.adapter_for = GuardedAdapter(inner, budget=target.budget), rollout_id
        return target.adapter

    async def _reign(self, adapter: TrafficAdapter, record: DecisionRecord) -> Fence:
        """A new epoch over the target, above the one that the target itself remembers."""
        try:
            held = (await adapter.observe()).fence
        except ActuationError:
            held = None
        lease = await self._in_thread(
            lambda: self._epochs.acquire(
                f"target:{record.target_key}",
                self._owner,
                ttl_s=self._lease_ttl_s,
                now=self._clock.now(),
                floor=floor_for(held) - 1,
            )
        )
        if lease is None:
            raise StoreUnavailable(f"another worker reigns over {record.target_key}")
        return Fence(owner=lease.owner, epoch=lease.epoch)

    # -- drift ---------------------------------------------------------------------------------------------

    async def _look(self, target: _Target) -> None:
        """Compare what is in force with what was ordered last."""
        if target.watched is None or target.adapter is None:
            return
        record, request = target.watched
        course = target.course(record.decision.rollout_id)
        try:
            seen = await target.adapter.observe()
        except ActuationError:
            return  # not seeing is no drift; the judge hears of a dead proxy from its telemetry
        drift = _drift(seen, request, target.adapter)
        if drift and not course.drifted:
            course.drifted = True
            await self._report(record, course, _seen_report(ActionOutcome.DRIFT, seen, drift), 0.0)
        elif course.drifted and not drift and seen.reconciled:
            course.drifted = False
            back = _seen_report(ActionOutcome.VERIFIED, seen, "what was ordered is in force again")
            await self._report(record, course, back, 0.0)

    # -- reports -------------------------------------------------------------------------------------------

    async def _pace(self, course: _Course, record: DecisionRecord, report: ActionReport) -> None:
        """The judge answers a failed finalise or restore with another one at once: slow the circle down."""
        is_repeated = record.decision.order in (Order.RESTORE, Order.FINALISE)
        if report.outcome is ActionOutcome.VERIFIED or not is_repeated:
            course.failures = 0
            return
        if course.failures:
            await asyncio.sleep(min(RETRY_S * 2**course.failures, LONGEST_RETRY_S))
        course.failures += 1

    async def _report(
        self, record: DecisionRecord, course: _Course, report: ActionReport, seconds: float
    ) -> None:
        decision = record.decision
        await self._publish(
            ActionRecord(
                rollout_id=decision.rollout_id,
                decision_id=decision.decision_id,
                generation=decision.generation,
                outcome=report.outcome,
                at=self._clock.now(),
                observed_bp=report.observed_bp,
                wanted_bp=decision.weight_bp,
                adapter=record.traffic.adapter,
                target_key=record.target_key,
                epoch=course.fence.epoch if course.fence else 0,
                owner=self._owner,
                token=report.token,
                decided_at=decision.at,
                seconds=seconds,
                attempts=max(report.attempts, 1),
                detail=report.detail,
            )
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """The database is asked in threads of our own: a platform that hangs cannot use them up."""
        try:
            async with asyncio.timeout(DATABASE_WITHIN_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as exc:
            raise StoreUnavailable(f"the database did not answer within {DATABASE_WITHIN_S:g} s") from exc


class _Adapted:
    """The journal of ``shift.drive`` on top of the table of actions."""

    def __init__(
        self,
        store: JournalStore,
        in_thread: Callable[[Callable[[], object]], Awaitable[object]],
        clock: Clock,
        fence: Fence,
    ) -> None:
        self._store, self._in_thread, self._clock, self._fence = store, in_thread, clock, fence

    async def load(self, op_id: str) -> Noted | None:
        entry = await self._in_thread(lambda: self._store.load(op_id))
        if not isinstance(entry, JournalEntry) or entry.state.value not in Stage.__members__:
            return None
        return Noted(
            stage=Stage(entry.state.value),
            observed_bp=entry.observed_bp,
            token=entry.token_after,
            attempts=entry.attempts,
            detail=entry.detail,
        )

    async def note(self, op_id: str, noted: Noted) -> None:
        is_sent = noted.stage is Stage.SENT
        await self._in_thread(
            lambda: self._store.record(
                op_id,
                ActionState(noted.stage.value),
                at=self._clock.now(),
                epoch=self._fence.epoch,
                owner=self._fence.owner,
                token_before=noted.token if is_sent else None,
                token_after=None if is_sent else noted.token,
                observed_bp=noted.observed_bp,
                detail=noted.detail or None,
            )
        )


async def _close(target: _Target) -> None:
    adapter, target.adapter, target.adapter_for = target.adapter, None, ""
    if adapter is not None:
        await adapter.aclose()


async def _is_quiet(wake: asyncio.Event, seconds: float | None) -> bool:
    """Wait to be woken; whether ``seconds`` passed without it."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return True
    return False


def _is_down(record: DecisionRecord) -> bool:
    return record.decision.order is Order.RESTORE


def _is_on_its_way(record: DecisionRecord) -> bool:
    return record.decision.order in (Order.PREPARE, Order.SHIFT)


def _is_newest(course: _Course, record: DecisionRecord) -> bool:
    if record.owner_epoch < course.owner_epoch or record.decision.generation < course.generation:
        return False
    return _is_down(record) or not course.goes_down


def _knows_of_drift(record: DecisionRecord) -> bool:
    """Decisions that somebody took because of a drift, or after having paused for one."""
    return record.decision.cause is Cause.DRIFT or record.decision.kind is DecisionKind.RESUME


def _binding(record: DecisionRecord) -> Binding:
    return Binding(
        service=record.service,
        stable=record.stable,
        canary=record.canary,
        environment=record.environment,
        target=record.traffic.target,
    )


def _request(record: DecisionRecord, fence: Fence, *, over_drift: bool) -> ShiftRequest:
    decision = record.decision
    return ShiftRequest(
        op_id=decision.decision_id,
        kind=decision.order,
        split=Split(stable=record.stable, canary=record.canary, canary_bp=decision.weight_bp),
        fence=fence,
        match=record.match,
        over_drift=over_drift,
    )


def _drift(seen: Observed, request: ShiftRequest, adapter: TrafficAdapter) -> str:
    """What differs from the order, in a sentence; empty when nothing does or it is not settled yet."""
    if seen.foreign:
        return seen.foreign
    if adapter.capabilities().carries_fence:
        if seen.fence is None:
            return "somebody replaced what Sentra had written"
        try:
            check_fence(seen.fence, request.fence)
        except Fenced as error:
            return str(error)
    if not is_stored(seen, request, adapter.capabilities()):
        return f"found {seen.split or 'another split'}, ordered was {request.split}"
    return seen.problem


def _seen_report(outcome: ActionOutcome, seen: Observed, detail: str) -> ActionReport:
    bp = seen.split.canary_bp if seen.split else None
    return ActionReport(outcome=outcome, observed_bp=bp, token=seen.token, detail=detail)
