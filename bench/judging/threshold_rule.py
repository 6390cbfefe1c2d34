"""The product's threshold judge on the leaderboard: ``scorers.threshold`` and the machine's rules by columns.

One tick at a time for all rollouts at once. Traffic follows the leaderboard's fixed steps, so a pause does
not hold the weight: a step's window begins anew with its warm-up whether or not the rollout is paused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.judging.cells import SLO, STEP_TICKS, TICK_S, Cell, Counts, Floats, Ints
from bench.judging.intervals import NEVER, ticks_in

Flags = NDArray[np.bool_]

PASS, INCONCLUSIVE, FAIL, SEVERE = range(4)
"""Verdicts as numbers, in order of gravity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRule:
    """The policy's defaults with ``judge: threshold``."""

    name: str = "threshold"
    limit: float = SLO
    severe: float = 5 * SLO
    window_s: float = 60.0
    warmup_s: float = 30.0
    min_samples: int = 100
    min_events: int = 3
    pass_count: int = 3
    pause_timeout_s: float = 600.0
    step_ticks: int = STEP_TICKS

    def first_rollback(self, cell: Cell) -> Ints:
        verdict, shared = self.verdicts(cell.live)
        progress = _Progress(cell.live.rollouts, self)
        for tick in range(verdict.shape[1]):
            progress.fold(tick, verdict[:, tick], shared[:, tick])
        return progress.rolled_back

    def verdicts(self, counts: Counts) -> tuple[Ints, Flags]:
        """Per rollout and tick: the verdict, and whether a FAIL is shared with stable."""
        since = self._since(counts.canary_n.shape[1])
        n, bad = _slid(counts.canary_n, since), _slid(np.minimum(counts.canary_s, counts.canary_n), since)
        breaches = self._breaches(n, bad)
        enough = n >= self.min_samples
        severe = enough & (bad >= self.min_events) & (_share(bad, n) >= self.severe)
        doubtful = ~enough | (_share(bad, n) > self.limit)
        verdict = np.select([severe, breaches, doubtful], [SEVERE, FAIL, INCONCLUSIVE], PASS)
        stable_n = _slid(counts.stable_n, since)
        stable_bad = _slid(np.minimum(counts.stable_s, counts.stable_n), since)
        return verdict, (verdict == FAIL) & self._breaches(stable_n, stable_bad)

    def _breaches(self, n: Floats, bad: Floats) -> Flags:
        surely = (n >= self.min_samples) & (bad >= self.min_events)
        return np.asarray(surely & (_share(bad, n) > self.limit))

    def _since(self, ticks: int) -> Ints:
        """First tick of each tick's window: of the step, after its warm-up once that is over."""
        tick = np.arange(ticks)
        step = tick // self.step_ticks * self.step_ticks
        warm = step + self.warmup_ticks
        begin = np.where(tick >= warm, warm, step)
        return np.maximum(begin, tick - ticks_in(self.window_s) + 1)

    @property
    def warmup_ticks(self) -> int:
        return ticks_in(self.warmup_s) if self.warmup_s else 0


def _slid(counts: Floats, since: Ints) -> Floats:
    """Sums from ``since`` to each tick. Exact for whole counts."""
    running = np.concatenate([np.zeros((counts.shape[0], 1)), np.cumsum(counts, axis=1)], axis=1)
    window: Floats = running[:, 1:] - running[:, since]
    return window


def _share(bad: Floats, n: Floats) -> Floats:
    return np.divide(bad, n, out=np.zeros(n.shape), where=n > 0)


@dataclass(slots=True)
class _Progress:
    """Where each rollout stands: going on, paused by a failure, or paused by a failure shared with stable."""

    rollouts: int
    rule: ThresholdRule
    rolled_back: Ints = field(init=False)
    failing: Flags = field(init=False)
    sharing: Flags = field(init=False)
    passes: Ints = field(init=False)
    failing_since: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.rolled_back = np.full(self.rollouts, NEVER, np.int64)
        self.failing = np.zeros(self.rollouts, bool)
        self.sharing = np.zeros(self.rollouts, bool)
        self.passes = np.zeros(self.rollouts, np.int64)
        self.failing_since = np.zeros(self.rollouts, np.int64)

    def fold(self, tick: int, verdict: Ints, shared: Flags) -> None:
        going = self.rolled_back == NEVER
        timed_out = self.failing & (verdict != PASS)
        timed_out &= (tick - self.failing_since) * TICK_S >= self.rule.pause_timeout_s
        paused = self.failing | self.sharing
        self.rolled_back[going & ((verdict == SEVERE) | timed_out)] = tick
        self.passes = np.where(verdict == PASS, self.passes + 1, 0)
        recovers = paused & (self.passes >= self.rule.pass_count)
        self.failing &= ~recovers
        self.sharing &= ~recovers
        self.passes[recovers] = 0
        if tick % self.rule.step_ticks >= self.rule.warmup_ticks:
            self._pause(tick, ~paused & (verdict == FAIL), shared)

    def _pause(self, tick: int, fails: Flags, shared: Flags) -> None:
        self.sharing |= fails & shared
        self.failing |= fails & ~shared
        self.failing_since[fails] = tick
