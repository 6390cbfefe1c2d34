"""Naive twins of the sliding window and the threshold rule, written for clarity and from the rules alone.

They keep every tick for ever and look at all of them each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from domain.verdict import Verdict


@dataclass(frozen=True)
class Seen:
    """One tick of whole counts: canary requests, bad, possibly bad and severely bad ones."""

    start: int
    end: int
    n: int
    bad: int
    suspect: int
    worse: int


def in_window(history: list[Seen], *, since: float, end: float, window_s: float) -> list[Seen]:
    """The ticks of the step that lie whole in the window, and the newest one however long it is."""
    step = [tick for tick in history if tick.start >= since]
    return [tick for tick in step if tick.start >= end - window_s or tick is history[-1]]


def verdict_of(
    history: list[Seen], *, share: Fraction, severe_share: Fraction, min_samples: int, min_events: int
) -> Verdict:
    """The rule in exact arithmetic: too few samples say nothing, too few bad events accuse nobody."""
    n = sum(tick.n for tick in history)
    bad = sum(tick.bad for tick in history)
    suspect = sum(tick.suspect for tick in history)
    worse = sum(tick.worse for tick in history)
    if n == 0 or n < min_samples:
        return Verdict.INCONCLUSIVE
    if worse >= min_events and Fraction(worse, n) >= severe_share:
        return Verdict.SEVERE
    if bad >= min_events and Fraction(bad, n) > share:
        return Verdict.FAIL
    if Fraction(suspect, n) > share:
        return Verdict.INCONCLUSIVE
    return Verdict.PASS


def slower_than(limit: float, latencies: list[float]) -> int:
    """How many took longer, counted one by one."""
    return sum(1 for latency in latencies if latency > limit)
