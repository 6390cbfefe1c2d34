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
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

from actuators.base import Binding, Fence, TrafficAdapter
from actuators.fence import floor_for
from actuators.guarded import GuardedAdapter
from actuators.rate import RateBudget
from actuators.registry import open_adapter
from actuators.shift import ActionReport, drive
from domain.clock import Clock
from domain.decision import ActionOutcome, Order
from domain.errors import ActuationError, SentraError, StoreError, StoreUnavailable
from domain.records import ActionRecord, DecisionRecord
from store.journal import ActionState
from streams.agents.target_journal import EpochStore, JournalStore, StagesOf
from streams.agents.target_orders import (
    binding_of,
    drift_in,
    is_on_its_way,
    knows_of_drift,
    report_of,
    request_of,
)
from streams.agents.target_queue import Course, Target, is_down, is_newest

T = TypeVar("T")

log = logging.getLogger(__name__)

WATCH_EVERY_S = 3.0
RETRY_S, LONGEST_RETRY_S = 0.5, 30.0
"""Pauses before a failure that the judge answers with the same order again, so that the two do not race."""

UNSETTLED_LOOKS = 3
"""So often in a row may a platform work with something else than what is stored: it may be on its way."""

DATABASE_WITHIN_S, DATABASE_WITHIN_DOWN_S = 2.0, 0.25
"""A database that takes longer counts as unavailable. Going down hardly waits for it."""

Publish = Callable[[ActionRecord], Awaitable[None]]
OpenAdapter = Callable[[str, Binding], TrafficAdapter]


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
        self._targets: dict[str, Target] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="journal")

    async def accept(self, record: DecisionRecord) -> None:
        """Journal that ``record`` is to be carried out and :meth:`submit` it; then it may be acknowledged.

        Decisions that order nothing are no business of the journal: their rows would stay open for ever.

        Raises
        ------
        StoreError
            It could not be journaled. One that goes down is submitted all the same.
        """
        if record.decision.order is Order.NONE:
            return
        try:
            await self._in_thread(
                lambda: self._journal.intend(record, at=self._clock.now(), owner=self._owner),
                _database_within(record),
            )
        except StoreError:
            if is_down(record):
                self.submit(record)
            raise
        self.submit(record)

    def submit(self, record: DecisionRecord) -> None:
        """Hand over an order; returns at once. Orders that a newer one has overtaken are dropped."""
        if record.decision.order is Order.NONE:
            return
        target = self._target(record.target_key)
        course = target.course(record.decision.rollout_id)
        if target.holds(record):
            return
        if not is_newest(course, record):
            target.overtaken.append(record)
            target.wake.set()
            return
        course.generation = record.decision.generation
        course.owner_epoch = record.owner_epoch
        course.goes_down = course.goes_down or is_down(record)
        overtaken = target.waiting.get(record.decision.rollout_id)
        target.waiting[record.decision.rollout_id] = record
        is_rival = target.order is None or target.order.decision.rollout_id == record.decision.rollout_id
        if target.running is not None and is_rival:
            target.running.cancel()
            overtaken = overtaken or target.order
        if overtaken is not None:
            target.overtaken.append(overtaken)
        target.wake.set()

    async def resume(self, is_ours: Callable[[str], bool] = lambda rollout_id: True) -> int:
        """After a start: take up what the journal holds unfinished; how many orders that was.

        ``is_ours`` says by rollout id whether it is this process that acts for a rollout now. Who began an
        order does not matter: its process may be gone.
        """
        unfinished = await self._in_thread(self._journal.unfinished)
        entries = [entry for entry in unfinished if is_ours(entry.record.decision.rollout_id)]
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

    def _target(self, key: str) -> Target:
        if key not in self._targets:
            budget = RateBudget(per_second=50.0, burst=50.0, reserved=10.0)
            target = self._targets[key] = Target(key=key, budget=budget)
            task = asyncio.create_task(self._serve(target), name=f"target {key}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return self._targets[key]

    async def _serve(self, target: Target) -> None:
        """The target's life: carry out what comes, and look now and then when nothing does."""
        while True:
            target.wake.clear()
            if (record := target.next_order()) is not None:
                await self._run(target, record, self._carry_out(target, record))
            elif target.overtaken:
                await self._run(target, None, self._clear_up(target))
            elif await _is_quiet(target.wake, self._watch_every_s if target.watched else None):
                await self._run(target, None, self._look(target))

    async def _run(
        self, target: Target, order: DecisionRecord | None, work: Coroutine[None, None, None]
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

    async def _again(self, target: Target, order: DecisionRecord | None) -> None:
        """We are broken. Going down is tried again even so; the rest is left to the judge's time-outs."""
        await asyncio.sleep(RETRY_S)
        if order is not None and is_down(order):
            target.waiting.setdefault(order.decision.rollout_id, order)

    async def _carry_out(self, target: Target, record: DecisionRecord) -> None:
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
            if not is_down(record):
                break
            await asyncio.sleep(RETRY_S)  # no database, no reign: going down has to wait for one, not give up
        if report is None:
            return
        await self._pace(course, record, report)
        course.drifted = report.outcome is ActionOutcome.DRIFT
        await self._report(record, course, report, monotonic() - began)
        if report.outcome is ActionOutcome.VERIFIED and not is_on_its_way(record):
            await _close(target)

    async def _drive(self, target: Target, course: Course, record: DecisionRecord) -> ActionReport | None:
        """Carry ``record`` out; ``None`` when the journal says that a newer order rules."""
        if await self._is_overtaken(record):
            return None
        adapter = await self._adapter(target, record)
        fence = course.fence = course.fence or await self._reign(adapter, record)
        request = request_of(record, fence, over_drift=course.drifted or knows_of_drift(record))
        target.watched = None

        async def notify(report: ActionReport) -> None:
            await self._report(record, course, report, report.seconds)

        within_s = _database_within(record)
        journal = StagesOf(self._journal, lambda work: self._in_thread(work, within_s), self._clock, fence)
        report = await drive(
            request, adapter, journal, verify_timeout_s=record.verify_timeout_s, notify=notify
        )
        if report.outcome in (ActionOutcome.VERIFIED, ActionOutcome.DRIFT) and is_on_its_way(record):
            target.watched = (record, request)
        return report

    async def _is_overtaken(self, record: DecisionRecord) -> bool:
        """After a restart, old decisions come again; the journal remembers which one ruled."""
        decision = record.decision
        try:
            ruling = await self._in_thread(
                lambda: self._journal.latest(record.target_key), _database_within(record)
            )
        except StoreError:
            if is_down(record):
                return False
            raise
        if ruling is None or ruling.record.decision.rollout_id != decision.rollout_id:
            return False
        if ruling.generation <= decision.generation or ruling.state is ActionState.SUPERSEDED:
            return False
        if is_down(record) and not is_down(ruling.record):
            return False  # nothing but another one like it takes the place of an order down
        await self._supersede(record, ruling.epoch, ruling.generation)
        return True

    async def _supersede(self, record: DecisionRecord, epoch: int, by: int) -> None:
        """Note that generation ``by`` has overtaken an order, so that nobody takes it up again."""
        await self._in_thread(
            lambda: self._journal.record(
                record.decision.decision_id,
                ActionState.SUPERSEDED,
                at=self._clock.now(),
                epoch=epoch,
                owner=self._owner,
                detail=f"overtaken by generation {by}",
            )
        )

    async def _clear_up(self, target: Target) -> None:
        """Close the journal's rows of orders that were overtaken; late, because nobody waits for it."""
        while target.overtaken:
            record = target.overtaken.pop()
            course = target.course(record.decision.rollout_id)
            try:
                await self._supersede(record, course.fence.epoch if course.fence else 0, course.generation)
            except StoreError:
                return  # found again, and closed, at the next start

    async def _adapter(self, target: Target, record: DecisionRecord) -> TrafficAdapter:
        rollout_id = record.decision.rollout_id
        if target.adapter is None or target.adapter_for != rollout_id:
            await _close(target)
            inner = self._open(record.traffic.adapter, binding_of(record))
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

    async def _look(self, target: Target) -> None:
        """Compare what is in force with what was ordered last."""
        if target.watched is None or target.adapter is None:
            return
        record, request = target.watched
        course = target.course(record.decision.rollout_id)
        try:
            seen = await target.adapter.observe()
        except ActuationError:
            return  # not seeing is no drift; the judge hears of a dead proxy from its telemetry
        drift = drift_in(seen, request, target.adapter)
        course.unsettled = 0 if seen.reconciled else course.unsettled + 1
        if not drift and course.unsettled >= UNSETTLED_LOOKS:
            drift = f"what is stored ({seen.token}) is not what serves, {course.unsettled} looks in a row"
        if drift and not course.drifted:
            course.drifted = True
            await self._report(record, course, report_of(ActionOutcome.DRIFT, seen, drift), 0.0)
        elif course.drifted and not drift and seen.reconciled:
            course.drifted = False
            back = report_of(ActionOutcome.VERIFIED, seen, "what was ordered is in force again")
            await self._report(record, course, back, 0.0)

    # -- reports -------------------------------------------------------------------------------------------

    async def _pace(self, course: Course, record: DecisionRecord, report: ActionReport) -> None:
        """The judge answers a failed finalise or restore with another one at once: slow the circle down."""
        is_repeated = record.decision.order in (Order.RESTORE, Order.FINALISE)
        if report.outcome is ActionOutcome.VERIFIED or not is_repeated:
            course.failures = 0
            return
        if course.failures:
            await asyncio.sleep(min(RETRY_S * 2**course.failures, LONGEST_RETRY_S))
        course.failures += 1

    async def _report(
        self, record: DecisionRecord, course: Course, report: ActionReport, seconds: float
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

    async def _in_thread(self, work: Callable[[], T], within_s: float = DATABASE_WITHIN_S) -> T:
        """The database is asked in threads of our own: a platform that hangs cannot use them up.

        What takes longer than ``within_s`` goes on in its thread, but nobody waits for it.
        """
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as exc:
            raise StoreUnavailable(f"the database did not answer within {within_s:g} s") from exc


async def _close(target: Target) -> None:
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


def _database_within(record: DecisionRecord) -> float:
    return DATABASE_WITHIN_DOWN_S if is_down(record) else DATABASE_WITHIN_S
