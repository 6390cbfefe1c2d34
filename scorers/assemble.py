"""Samples of many sources become one tick input per rollout.

A tick closes when every source it waits for has reported past its end, or when the watermark (the newest
report of any awaited source) has passed its end by the allowed lateness, or when the clock record says that
the sources it still waits for are silent. In a backlog an old tick waits for every source whose part is
still being read. What arrives for a closed tick is late: counted and dropped. What arrives twice is dropped
too, and counted when it differs.

::

    reports  metrics ──┬─────┬─────┬───────▶        a tick waits for the slower of the two,
             logs    ────┬─────┬───────────▶        but no longer than the lateness of its class
    ticks            [────)[────)[────)

Only sources of the freshest class are waited for; what slower ones brought meanwhile joins the next tick.
Samples of an arm's replicas become one input of the arm when the tick closes, whatever order they came in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from domain.records import Report, SignalInput, TickInput
from domain.rollout import JudgingContext
from domain.signal import Arm, Sample, signal_kind
from scorers.replicas import add_halves, arm_of, split_bit

SKEW_S = 5.0
"""Reports that end further ahead of the clock than this come from a broken clock."""

CATCH_UP_S = 5.0
"""A tick that ended longer ago than this comes from a backlog."""

Row = tuple[str, Arm, float, str]
"""Identity of an input within a rollout: signal, arm, tick end, replica. The signal tells the source."""
_arm_end_of = itemgetter(0, 1, 2)
_replica_of = itemgetter(3)


@dataclass(slots=True)
class _Waiting:
    """One rollout's ticks that have not closed yet."""

    context: JudgingContext
    interval_s: float
    lateness_s: float
    awaited: tuple[str, ...]
    slower: frozenset[str]
    """Signals whose source no tick waits for."""
    closed_end: float
    dropped: Counter[str]
    """The assembler's."""
    inputs: dict[Row, SignalInput] = field(default_factory=dict)
    problems: dict[float, dict[str, str]] = field(default_factory=dict)
    reported: dict[str, float] = field(default_factory=dict)
    heard_at: dict[str, float] = field(default_factory=dict)
    """When each source was last heard of, by the folded clock."""
    ends: set[float] = field(default_factory=set)
    """Tick ends that some source has reported on."""
    taken: dict[tuple[str, Arm], dict[str, float]] = field(default_factory=dict)
    """By signal and arm of a slower source, and by replica, up to where closed ticks contain it."""
    tracked_from: float = 0.0
    bits: dict[Arm, int] = field(default_factory=dict)
    """What splits the replicas of an arm in halves, once two were seen."""

    def closed_for(self, signal: str, arm: Arm, replica: str) -> float:
        """Up to where samples are in closed ticks: slower sources trail behind the others.

        The whole arm contains its replicas, so each closes the ticks of the other.
        """
        if signal not in self.slower:
            return self.closed_end
        taken = self.taken.get((signal, arm), {})
        if not replica:
            return max(taken.values(), default=self.tracked_from)
        return max(taken.get(replica, self.tracked_from), taken.get("", self.tracked_from))


class Assembler:
    """Joins what the pollers of a partition report. Deterministic: the same calls give the same ticks."""

    def __init__(self) -> None:
        self._rollouts: dict[str, _Waiting] = {}
        self.dropped: Counter[str] = Counter()
        """Why samples were dropped: ``late``, ``duplicate``, ``conflict``, ``skewed``."""

    def track(self, rollout_id: str, context: JudgingContext, closed_end: float) -> None:
        """Begin (or go on) with the tick after ``closed_end``."""
        awaited = context.awaited()
        prompt = {source.channel for source in awaited}
        signals = context.policy.signals()
        self._rollouts[rollout_id] = _Waiting(
            context=context,
            interval_s=context.policy.interval_s,
            lateness_s=context.lateness_s,
            awaited=tuple(source.name for source in awaited),
            slower=frozenset(name for name in signals if signal_kind(name).channel not in prompt),
            closed_end=closed_end,
            dropped=self.dropped,
            tracked_from=closed_end,
        )

    def forget(self, rollout_id: str) -> None:
        """The rollout is over; samples for it are unknown from now on."""
        self._rollouts.pop(rollout_id, None)

    def tracks(self, rollout_id: str) -> bool:
        """Whether samples for this rollout are wanted."""
        return rollout_id in self._rollouts

    def sources(self) -> set[str]:
        """Every source that some rollout waits for."""
        return {name for waiting in self._rollouts.values() for name in waiting.awaited}

    def has_pending(self) -> bool:
        """Whether anything was read that no closed tick contains yet."""
        return any(waiting.inputs or waiting.ends for waiting in self._rollouts.values())

    def add(self, report: Report, samples: Sequence[Sample], now: float) -> list[tuple[str, TickInput]]:
        """Take one frame's report and samples; returns the ticks that it closes, oldest first."""
        if report.end > now + SKEW_S:
            self.dropped["skewed"] += len(samples)
            return []
        for sample in samples:
            self._keep(sample)
        closed: list[tuple[str, TickInput]] = []
        for rollout_id in report.rollouts:
            waiting = self._rollouts.get(rollout_id)
            if waiting is not None:
                self._note(waiting, report, now)
                closed += _close(rollout_id, waiting, now, silent=())
        return closed

    def clock(
        self, now: float, silent: Collection[str], *, interval_s: float | None = None
    ) -> list[tuple[str, TickInput]]:
        """Take a clock record: ticks no longer wait for ``silent`` sources.

        ``interval_s`` restricts that to rollouts with ticks of this length: what is silence differs by it.
        A rollout all of whose sources are silent gets one empty tick per clock record: silence is an event.
        """
        closed: list[tuple[str, TickInput]] = []
        if not silent:
            return closed
        for rollout_id, waiting in self._rollouts.items():
            is_meant = interval_s is None or waiting.interval_s == interval_s
            if is_meant and any(name in silent for name in waiting.awaited):
                closed += _close(rollout_id, waiting, now, silent=silent)
        return closed

    def _keep(self, sample: Sample) -> None:
        waiting = self._rollouts.get(sample.rollout_id)
        if waiting is None:
            return
        if sample.end <= waiting.closed_for(sample.signal, sample.arm, sample.replica):
            self.dropped["late"] += 1
            return
        row = (sample.signal, sample.arm, sample.end, sample.replica)
        kept = _input_of(sample)
        known = waiting.inputs.get(row)
        if known is None:
            waiting.inputs[row] = kept
        else:
            self.dropped["duplicate" if known == kept else "conflict"] += 1

    def _note(self, waiting: _Waiting, report: Report, now: float) -> None:
        for name in waiting.awaited:
            waiting.heard_at.setdefault(name, now)
        waiting.heard_at[report.source] = now
        if report.end <= waiting.closed_end:
            return
        waiting.reported[report.source] = max(report.end, waiting.reported.get(report.source, 0.0))
        if report.source in waiting.awaited:
            waiting.ends.add(report.end)
        if report.problem:
            waiting.problems.setdefault(report.end, {})[report.source] = report.problem


def _input_of(sample: Sample) -> SignalInput:
    return SignalInput(
        sample.signal,
        sample.arm,
        sample.start,
        sample.events,
        sample.exposure,
        sample.edges,
        sample.counts,
        sample.age_s,
        sample.quality,
        end=sample.end,
    )


def _close(
    rollout_id: str, waiting: _Waiting, now: float, *, silent: Collection[str]
) -> list[tuple[str, TickInput]]:
    """Close every tick that waits for nothing any more."""
    heard = [waiting.reported.get(name, 0.0) for name in waiting.awaited]
    speaking = [end for name, end in zip(waiting.awaited, heard, strict=True) if name not in silent]
    complete = min(speaking, default=0.0)
    watermark = max(heard, default=0.0) - waiting.lateness_s
    if waiting.awaited and not speaking:
        last = _tick_before(now - waiting.lateness_s, waiting.interval_s)
        if last > waiting.closed_end:
            waiting.ends.add(last)
        complete = last
    due = sorted(end for end in waiting.ends if waiting.closed_end < end <= max(complete, watermark))
    return [
        (rollout_id, _tick(waiting, end, now))
        for end in due
        if end <= complete or not _is_catching_up(waiting, end, now, silent)
    ]


def _is_catching_up(waiting: _Waiting, end: float, now: float, silent: Collection[str]) -> bool:
    """Whether an old tick should wait for sources whose part of a backlog is still being read.

    The watermark tells nothing then: topics are read at different speeds, and all of it lies in the past.
    """
    if now - end <= CATCH_UP_S:
        return False
    return any(
        waiting.reported.get(name, 0.0) < end and now - waiting.heard_at.get(name, now) <= waiting.lateness_s
        for name in waiting.awaited
        if name not in silent
    )


def _tick_before(moment: float, interval_s: float) -> float:
    return moment // interval_s * interval_s


def _tick(waiting: _Waiting, end: float, now: float) -> TickInput:
    """The tick that ends at ``end``; what it contains is no longer pending.

    Inputs that ended before it but after the last closed tick (of slower sources, or of an end on which no
    awaited source reported) are taken along: counts must not get lost.
    """
    rows = sorted((row for row in waiting.inputs if row[2] <= end), key=_row_order)
    signals = _joined(_arms(waiting, rows))
    # Rows are in order, so the newest end of each signal, arm and replica is the last one written.
    for signal, arm, past, replica in rows if waiting.slower else ():
        if signal in waiting.slower:
            waiting.taken.setdefault((signal, arm), {})[replica] = past
    problems: dict[str, str] = {}
    for past in sorted(moment for moment in waiting.problems if moment <= end):
        problems = waiting.problems.pop(past)
    waiting.ends = {moment for moment in waiting.ends if moment > end}
    waiting.closed_end = end
    quiet = tuple(name for name in waiting.awaited if waiting.reported.get(name, 0.0) < end)
    return TickInput(
        start=end - waiting.interval_s, end=end, now=now, signals=signals, silent=quiet, problems=problems
    )


def _arms(waiting: _Waiting, rows: Sequence[Row]) -> list[SignalInput]:
    """One input for each signal, arm and end of ``rows``, which are in order; replicas are added up.

    Where the whole arm is there as well as replicas of it, the same things were counted twice: the whole
    stands, because nothing is missing in it.
    """
    if not any(map(_replica_of, rows)):
        return [waiting.inputs.pop(row) for row in rows]
    _choose_bits(waiting, rows)
    arms = []
    for (_, arm, _), group in groupby(rows, key=_arm_end_of):
        parts = [(row[3], waiting.inputs.pop(row)) for row in group]
        name, whole = parts[0]
        if name == "":
            waiting.dropped["conflict"] += len(parts) - 1
            arms.append(whole)
        else:
            arms.append(arm_of(parts, waiting.bits.get(arm)))
    return arms


def _choose_bits(waiting: _Waiting, rows: Sequence[Row]) -> None:
    """One bit an arm and not one a signal: the halves of all its signals are the same replicas."""
    for arm in Arm:
        if arm not in waiting.bits:
            bit = split_bit({row[3] for row in rows if row[1] is arm and row[3]})
            if bit is not None:
                waiting.bits[arm] = bit


def _joined(inputs: Sequence[SignalInput]) -> tuple[SignalInput, ...]:
    """Inputs of one signal and arm, should there be several, as one that spans them."""
    joined: list[SignalInput] = []
    for each in inputs:
        last = joined[-1] if joined else None
        if last is not None and (last.signal, last.arm) == (each.signal, each.arm):
            joined[-1] = _sum_of(last, each)
        else:
            joined.append(each)
    return tuple(joined)


def _sum_of(first: SignalInput, second: SignalInput) -> SignalInput:
    """Two disjoint increments added up. Buckets of different edges cannot be: the newer ones stand alone."""
    if first.edges != second.edges:
        return second
    return SignalInput(
        first.signal,
        first.arm,
        min(first.start, second.start),
        first.events + second.events,
        first.exposure + second.exposure,
        second.edges,
        tuple(one + other for one, other in zip(first.counts, second.counts, strict=True)),
        second.age_s,
        first.quality | second.quality,
        *add_halves(first, second),
        max(first.end, second.end),
    )


def _row_order(row: Row) -> tuple[str, str, float, str]:
    return row[0], row[1].value, row[2], row[3]
