"""What a gate sees of a tick, and its sliding window.

A window is a list of disjoint ticks with plain counts, so it adds up exactly in any order and any batch::

    since                                    end
      │  [──)[──)[──)      [──)[──)[──)[──)  │        ticks of this step, after its warm-up
      ├──────────────┼────────────────────── ┤
      too old: dropped └── window_s ─────────┘
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from domain.policy import Gate
from domain.records import SignalInput
from domain.rollout import WindowTick
from domain.signal import REQUESTS, Arm, Quality, Shape
from scorers.quantile import maybe_slower, surely_slower

Key = tuple[str, Arm]
_STILLBORN = int(Quality.FIRST)


@dataclass(frozen=True, slots=True)
class Sums:
    """A window added up."""

    span_s: float
    canary_n: float
    canary_bad: float
    canary_suspect: float
    canary_worse: float
    stable_n: float
    stable_bad: float
    newest_n: float
    """Canary exposure of the newest tick: the present traffic."""


def index(signals: Iterable[SignalInput]) -> dict[Key, SignalInput]:
    """A tick's inputs by signal and arm."""
    return {(each.signal, each.arm): each for each in signals}


def see(
    gate: Gate, inputs: Mapping[Key, SignalInput], end: float, *, per_request: bool, max_age_s: float
) -> WindowTick | None:
    """What ``gate`` sees of a tick, or ``None`` when the canary's numbers are missing or too old.

    ``per_request`` says that the gate's events are counted per request, whose number another signal brings.
    """
    canary = _counts(gate, inputs, Arm.CANARY, per_request=per_request, max_age_s=max_age_s)
    if canary is None:
        return None
    stable = _counts(gate, inputs, Arm.STABLE, per_request=per_request, max_age_s=max_age_s)
    stable_n, stable_bad = (stable[1], stable[2]) if stable else (0.0, 0.0)
    start, n, bad, suspect, worse = canary
    counted_to = inputs[gate.signal, Arm.CANARY].end or end
    return WindowTick(start, min(end, counted_to), n, bad, suspect, worse, stable_n, stable_bad)


def _counts(
    gate: Gate, inputs: Mapping[Key, SignalInput], arm: Arm, *, per_request: bool, max_age_s: float
) -> tuple[float, float, float, float, float] | None:
    """Start, exposure, bad, suspect, worse of one arm."""
    seen = inputs.get((gate.signal, arm))
    if not is_usable(seen, max_age_s):
        return None
    n, start = seen.exposure, seen.start
    if per_request:
        requests = inputs.get((REQUESTS, arm))
        if not is_usable(requests, max_age_s):
            return None
        n, start = requests.exposure, min(start, requests.start)
    if gate.kind.shape is Shape.COUNT:
        return start, n, seen.events, seen.events, seen.events
    if gate.quantile is None:
        bad = min(seen.events, n)
        return start, n, bad, bad, bad
    bad = surely_slower(gate.slo, seen.edges, seen.counts, n)
    suspect = maybe_slower(gate.slo, seen.edges, seen.counts, n)
    worse = surely_slower(gate.severe, seen.edges, seen.counts, n)
    return start, n, bad, suspect, worse


def is_usable(seen: SignalInput | None, max_age_s: float) -> TypeGuard[SignalInput]:
    """Whether an arm's numbers are there, not the first reading of a counter, and fresh enough."""
    return seen is not None and not seen.quality & _STILLBORN and seen.age_s <= max_age_s


def slide(
    window: tuple[WindowTick, ...], newest: WindowTick | None, *, since: float, end: float, window_s: float
) -> tuple[WindowTick, ...]:
    """The window after a tick that ends at ``end``: nothing before ``since``, nothing older than it is long.

    A tick that begins before ``since`` spans a weight change and belongs to no window.
    """
    oldest = max(since, end - window_s)
    kept = [tick for tick in window if tick.start >= oldest]
    if newest is not None and newest.start >= since:
        kept.append(newest)
    return tuple(kept)


def add_up(window: tuple[WindowTick, ...]) -> Sums:
    """Sums of a window; all zero when it is empty."""
    canary_n = bad = suspect = worse = stable_n = stable_bad = span = 0.0
    for tick in window:
        span += tick.end - tick.start
        canary_n += tick.canary_n
        bad += tick.canary_bad
        suspect += tick.canary_suspect
        worse += tick.canary_worse
        stable_n += tick.stable_n
        stable_bad += tick.stable_bad
    newest = window[-1].canary_n if window else 0.0
    return Sums(span, canary_n, bad, suspect, worse, stable_n, stable_bad, newest)
