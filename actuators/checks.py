"""The conformance suite: what every adapter must do, as small named checks.

Tests cross all adapters with all of them and call the result ``adapter:check``. A check gets a fresh
:class:`Rig`, pristine (all traffic on stable, Sentra never there), and raises ``AssertionError`` when the
adapter breaks the rule or :class:`Skipped` when the platform cannot show it.

An adapter is done when every check passes or says why it does not apply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from actuators.base import (
    Binding,
    CasLevel,
    Fence,
    Observed,
    Receipt,
    ShiftRequest,
    Split,
    TrafficAdapter,
    WriteOutcome,
    is_in_force,
    quantise,
)
from domain.decision import Order
from domain.errors import ActuationError, Conflict, Drift, Fenced, InvalidSplit, TargetNotFound
from domain.policy import MatchRule
from domain.units import FULL_BP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LADDER = (0, 500, 1500, 3500, 6500, FULL_BP)
"""Basis points that every platform is walked through."""

OLD, OURS, THEIRS = Fence(owner="a", epoch=1), Fence(owner="a", epoch=2), Fence(owner="b", epoch=2)
PREVIEW = MatchRule(headers={"x-canary": "always"})
SETTLES_S = 10.0


class Skipped(Exception):
    """The check does not apply; says why."""


class Rig(Protocol):
    """A platform with one pristine target, as the suite needs it."""

    @property
    def binding(self) -> Binding: ...

    def open(self, binding: Binding | None = None) -> TrafficAdapter:
        """A new adapter for the target, as another process would make it."""
        ...

    async def writes(self) -> int:
        """How many writes have reached the platform."""
        ...

    async def edit(self, canary_bp: int) -> None:
        """A stranger changes the weights."""
        ...

    async def strangers(self) -> bytes:
        """Everything in the resource that is not Sentra's, as bytes."""
        ...

    async def splits(self) -> list[int]:
        """Every canary weight a reader could have seen, in order; raises :class:`Skipped` if unknown."""
        ...

    async def lose_answer(self) -> None:
        """The next apply writes, and its answer is lost; raises :class:`Skipped` if that cannot happen."""
        ...

    async def delay(self, seconds: float) -> None:
        """Writes take so long to come into force; raises :class:`Skipped` if they cannot."""
        ...

    async def retire_canary(self) -> None:
        """The canary version ceases to exist; raises :class:`Skipped` if it cannot."""
        ...


Check = Callable[[Rig], Awaitable[None]]

CHECKS: dict[str, Check] = {}
"""All checks by name, in the order in which they are best read."""


def check(function: Check) -> Check:
    """Add a check to the suite under its function's name."""
    CHECKS[getattr(function, "__name__")] = function  # noqa: B009 - a Callable type has no __name__
    return function


@check
async def a_pristine_target_is_all_stable_and_unfenced(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        observed = await adapter.observe()
        assert _bp(observed) == 0, observed
        assert observed.fence is None
        assert not observed.match_active
        assert not observed.foreign
        assert await adapter.preflight() == ()


@check
async def every_step_of_the_ladder_comes_into_force(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        for bp in (*LADDER, 0):
            request = _shift(rig, bp)
            receipt = await adapter.apply(request)
            assert receipt.applied_bp == quantise(bp, adapter.capabilities().quantum_bp)
            await _until_in_force(adapter, request)


@check
async def the_same_request_twice_writes_once(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        request = _shift(rig, 500)
        first = await adapter.apply(request)
        before = await rig.writes()
        second = await adapter.apply(request)
        assert (first.outcome, second.outcome) == (WriteOutcome.APPLIED, WriteOutcome.NOOP)
        assert await rig.writes() == before
        assert second.token_after == first.token_after


@check
async def a_lost_answer_leads_to_one_change(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        await rig.lose_answer()
        request = _shift(rig, 500)
        try:
            await adapter.apply(request)
        except ActuationError as error:
            assert error.outcome.value == "unknown", error
        else:
            raise AssertionError("the rig did not lose the answer")
        before = await rig.writes()
        again = await adapter.apply(request)
        assert again.outcome is WriteOutcome.NOOP
        assert await rig.writes() == before
        await _until_in_force(adapter, request)


@check
async def a_stale_token_is_a_conflict(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        if adapter.capabilities().cas is not CasLevel.STRONG:
            raise Skipped(f"compare-and-set is {adapter.capabilities().cas.value} here")
        seen = (await adapter.observe()).token
        await adapter.apply(_shift(rig, 500))
        await _refused(rig, adapter, _shift(rig, 1500, op="late", expect=seen), Conflict)


@check
async def an_older_epoch_is_fenced(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        _require_fence(adapter)
        await adapter.apply(_shift(rig, 500, fence=OURS))
        await _refused(rig, adapter, _shift(rig, 1500, fence=OLD), Fenced)


@check
async def an_equal_epoch_of_another_owner_is_fenced(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        _require_fence(adapter)
        await adapter.apply(_shift(rig, 500, fence=OURS))
        await _refused(rig, adapter, _shift(rig, 1500, fence=THEIRS), Fenced)


@check
async def an_older_epoch_is_fenced_even_when_it_brings_traffic_down(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        _require_fence(adapter)
        await adapter.apply(_shift(rig, 500, fence=OURS))
        await _refused(rig, adapter, _restore(rig, fence=OLD), Fenced)


@check
async def no_write_of_an_older_epoch_lands_after_a_newer_one(rig: Rig) -> None:
    """Two controllers race; in the order in which writes landed, epochs never fall."""
    old, new = rig.open(), rig.open()
    _require_fence(old)
    landed: list[int] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_race(rig, old, OLD, landed, writes=50))
            group.create_task(_race(rig, new, Fence(owner="b", epoch=2), landed, writes=50))
        observed = await new.observe()
    finally:
        await old.aclose()
        await new.aclose()
    assert observed.fence == Fence(owner="b", epoch=2)
    assert landed.count(2) >= 50
    assert 1 not in landed[landed.index(2) + 1 :], landed


@check
async def an_impossible_split_is_refused_before_anything_is_sent(rig: Rig) -> None:
    before = await rig.writes()
    stable, canary = rig.binding.stable, rig.binding.canary
    for one, other, bp in ((stable, canary, -1), (stable, canary, FULL_BP + 1), (stable, stable, 500)):
        try:
            Split(stable=one, canary=other, canary_bp=bp)
        except InvalidSplit:
            continue
        raise AssertionError(f"{bp} bp of {one}/{other} was accepted")
    assert await rig.writes() == before


@check
async def a_split_of_other_versions_is_refused(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        split = Split(stable=rig.binding.stable, canary="no-such-version", canary_bp=500)
        request = ShiftRequest(op_id="x", kind=Order.SHIFT, split=split, fence=OURS)
        await _refused(rig, adapter, request, InvalidSplit)


@check
async def an_unknown_version_is_named_and_nothing_written(rig: Rig) -> None:
    stranger = Binding(
        service=rig.binding.service,
        stable=rig.binding.stable,
        canary="no-such-version",
        environment=rig.binding.environment,
        target=rig.binding.target,
    )
    async with _adapter(rig, stranger) as adapter:
        problems = await adapter.preflight()
        assert any("no-such-version" in problem for problem in problems), problems
        split = Split(stable=stranger.stable, canary=stranger.canary, canary_bp=500)
        request = ShiftRequest(op_id="x", kind=Order.SHIFT, split=split, fence=OURS)
        await _refused(rig, adapter, request, TargetNotFound)


@check
async def quantising_is_monotone_and_keeps_the_ends(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        quantum = adapter.capabilities().quantum_bp
    weights = [quantise(bp, quantum) for bp in range(FULL_BP + 1)]
    assert weights == sorted(weights)
    assert (weights[0], weights[-1]) == (0, FULL_BP)
    assert 0 not in weights[1:]
    assert all(abs(weight - bp) <= quantum for bp, weight in enumerate(weights))


@check
async def what_is_not_ours_stays_byte_for_byte(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        before = await rig.strangers()
        for request in (
            _prepare(rig),
            _shift(rig, 500, match=PREVIEW),
            _shift(rig, FULL_BP, match=PREVIEW),
            _finalise(rig),
            _shift(rig, 1500, match=PREVIEW),
            _restore(rig),
        ):
            await adapter.apply(request)
            assert await rig.strangers() == before, request.kind


@check
async def preparing_takes_the_fence_and_moves_nothing(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        await adapter.apply(_prepare(rig))
        observed = await _until_in_force(adapter, _prepare(rig))
        assert _bp(observed) == 0
        assert observed.fence == OURS or not adapter.capabilities().carries_fence


@check
async def a_strangers_edit_is_drift_and_not_overwritten(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        await adapter.apply(_shift(rig, 500))
        await rig.edit(4000)
        observed = await adapter.observe()
        assert _bp(observed) == 4000
        assert observed.foreign
        await _refused(rig, adapter, _shift(rig, 1500), Drift)


@check
async def a_known_drift_can_be_overwritten(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        await adapter.apply(_shift(rig, 500))
        await rig.edit(4000)
        request = _shift(rig, 500, op="again", over_drift=True)
        await adapter.apply(request)
        await _until_in_force(adapter, request)


@check
async def going_down_overrides_a_strangers_edit(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        await adapter.apply(_shift(rig, 500))
        await rig.edit(4000)
        await adapter.apply(_restore(rig))
        assert _bp(await _until_in_force(adapter, _restore(rig))) == 0


@check
async def after_finalising_only_the_new_version_serves(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        await adapter.apply(_shift(rig, FULL_BP, match=_preview_for(adapter)))
        await adapter.apply(_finalise(rig))
        observed = await _until_in_force(adapter, _finalise(rig))
        assert _bp(observed) == FULL_BP
        assert not observed.match_active


@check
async def the_next_rollout_finds_the_finalised_one_pristine(rig: Rig) -> None:
    """What was promoted is stable now, and the old stable may come back as a canary."""
    async with _adapter(rig) as adapter:
        await adapter.apply(_shift(rig, FULL_BP))
        await adapter.apply(_finalise(rig))
    old = rig.binding
    swapped = Binding(
        service=old.service,
        stable=old.canary,
        canary=old.stable,
        environment=old.environment,
        target=old.target,
    )
    async with _adapter(rig, swapped) as adapter:
        assert await adapter.preflight() == ()
        observed = await adapter.observe()
        assert _bp(observed) == 0
        assert not observed.foreign


@check
async def going_down_works_from_every_step(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        for bp in LADDER:
            await adapter.apply(_shift(rig, bp, match=_preview_for(adapter)))
            await adapter.apply(_restore(rig))
            observed = await _until_in_force(adapter, _restore(rig))
            assert _bp(observed) == 0
            assert not observed.match_active


@check
async def going_down_wins_a_conflict_within_three_attempts(rig: Rig) -> None:
    async with _adapter(rig) as adapter, _adapter(rig) as other:
        await adapter.apply(_shift(rig, 1500))
        seen = (await adapter.observe()).token
        await other.apply(_shift(rig, 3500))
        for _ in range(3):
            try:
                await adapter.apply(_restore(rig, expect=seen))
                break
            except Conflict:
                seen = (await adapter.observe()).token
        assert _bp(await _until_in_force(adapter, _restore(rig))) == 0


@check
async def going_down_works_when_the_canary_is_gone(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        await adapter.apply(_shift(rig, 1500))
        await rig.retire_canary()
        await adapter.apply(_restore(rig))
        assert _bp(await _until_in_force(adapter, _restore(rig))) == 0


@check
async def a_write_is_not_in_force_before_it_has_propagated(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        await rig.delay(0.5)
        request = _shift(rig, 500)
        await adapter.apply(request)
        assert not is_in_force(await adapter.observe(), request, adapter.capabilities())
        await _until_in_force(adapter, request)


@check
async def a_preview_route_survives_weight_changes_and_goes_with_the_rollout(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        if not _preview_for(adapter):
            raise Skipped("the platform cannot route by headers")
        for bp in (0, 500, 1500):
            request = _shift(rig, bp, match=PREVIEW)
            await adapter.apply(request)
            assert (await _until_in_force(adapter, request)).match_active
        await adapter.apply(_restore(rig))
        assert not (await _until_in_force(adapter, _restore(rig))).match_active


@check
async def no_reader_ever_sees_more_than_was_asked_for(rig: Rig) -> None:
    """Between two steps there is no moment with all traffic on the canary, none with none, none between."""
    async with _adapter(rig) as adapter:
        asked = [0]
        for bp in (500, 1500, 3500, 0):
            await adapter.apply(_shift(rig, bp))
            asked.append(bp)
        seen = await rig.splits()
        assert seen == asked, seen


@check
async def a_cancelled_write_is_resolved_by_looking(rig: Rig) -> None:
    async with _adapter(rig) as adapter:
        request = _shift(rig, 500)
        writing = asyncio.create_task(adapter.apply(request))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        again = await adapter.apply(request)
        assert again.applied_bp == 500
        await _until_in_force(adapter, request)


@check
async def another_process_sees_and_restores_the_same(rig: Rig) -> None:
    async with _adapter(rig) as first:
        await first.apply(_shift(rig, 1500))
        token = (await first.observe()).token
    async with _adapter(rig) as second:
        observed = await second.observe()
        assert (_bp(observed), observed.token) == (1500, token)
        takeover = Fence(owner="b", epoch=3)
        await second.apply(_restore(rig, fence=takeover))
        assert _bp(await _until_in_force(second, _restore(rig, fence=takeover))) == 0


@asynccontextmanager
async def _adapter(rig: Rig, binding: Binding | None = None) -> AsyncIterator[TrafficAdapter]:
    adapter = rig.open(binding)
    try:
        yield adapter
    finally:
        await adapter.aclose()


async def _race(rig: Rig, adapter: TrafficAdapter, fence: Fence, landed: list[int], *, writes: int) -> None:
    """Write again and again under ``fence``; stop when fenced. Conflicts are looked at and tried again."""
    done = 0
    while done < writes:
        token = (await adapter.observe()).token
        request = _shift(
            rig,
            100 + 100 * (done % 2),
            fence=fence,
            op=f"{fence.epoch}-{done}",
            expect=token,
            over_drift=True,
        )
        try:
            receipt = await adapter.apply(request)
        except Conflict:
            continue
        except Fenced:
            return
        done += 1
        if receipt.outcome is not WriteOutcome.NOOP:
            landed.append(fence.epoch)


async def _refused(
    rig: Rig, adapter: TrafficAdapter, request: ShiftRequest, error: type[ActuationError]
) -> None:
    """``request`` raises ``error``, says that nothing was applied, and nothing was."""
    before, split = await rig.writes(), _bp(await adapter.observe())
    try:
        receipt: Receipt = await adapter.apply(request)
    except error as refusal:
        assert refusal.outcome.value == "not_applied", refusal
    else:
        raise AssertionError(f"{error.__name__} expected, got {receipt}")
    assert await rig.writes() == before
    assert _bp(await adapter.observe()) == split


async def _until_in_force(adapter: TrafficAdapter, request: ShiftRequest) -> Observed:
    async with asyncio.timeout(SETTLES_S):
        while True:
            observed = await adapter.observe()
            if is_in_force(observed, request, adapter.capabilities()):
                return observed
            await asyncio.sleep(0.01)


def _require_fence(adapter: TrafficAdapter) -> None:
    if not adapter.capabilities().carries_fence:
        raise Skipped("the platform cannot carry an epoch; only the lease protects it")


def _preview_for(adapter: TrafficAdapter) -> MatchRule:
    return PREVIEW if adapter.capabilities().header_match else MatchRule()


def _bp(observed: Observed) -> int:
    assert observed.split is not None, observed
    return observed.split.canary_bp


def _shift(
    rig: Rig,
    bp: int,
    *,
    fence: Fence = OURS,
    op: str = "",
    expect: str = "",
    match: MatchRule | None = None,
    over_drift: bool = False,
) -> ShiftRequest:
    return ShiftRequest(
        op_id=op or f"shift-{bp}",
        kind=Order.SHIFT,
        split=Split(stable=rig.binding.stable, canary=rig.binding.canary, canary_bp=bp),
        fence=fence,
        match=match or MatchRule(),
        expect=expect,
        over_drift=over_drift,
    )


def _to(rig: Rig, kind: Order, bp: int, fence: Fence, expect: str = "") -> ShiftRequest:
    split = Split(stable=rig.binding.stable, canary=rig.binding.canary, canary_bp=bp)
    return ShiftRequest(op_id=kind.value, kind=kind, split=split, fence=fence, expect=expect)


def _prepare(rig: Rig) -> ShiftRequest:
    return _to(rig, Order.PREPARE, 0, OURS)


def _finalise(rig: Rig) -> ShiftRequest:
    return _to(rig, Order.FINALISE, FULL_BP, OURS)


def _restore(rig: Rig, *, fence: Fence = OURS, expect: str = "") -> ShiftRequest:
    return _to(rig, Order.RESTORE, 0, fence, expect)
