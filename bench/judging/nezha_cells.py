"""Real requests divided into a canary and a stable arm: what judges of latency are given.

No public trace has a true canary. What is real are the requests, their latencies, bursts and drifts, and the
injected faults. Which arm a request belongs to is decided by a hash, so the arms of an A/A rollout are
exchangeable, and nothing here tests effects that one arm or pod has alone. Three experiments:

* A/A: the day's requests before its faults, one stretch after the other, as a rollout of five equal steps.
* Effects: the same, and the canary's requests are slower by a known factor.
* Faults: the canary's requests are those after an injected fault, stable's those before it, second by second.

"Sticky" division gives all requests that begin within the same half second (or two) to one arm, as sessions
do. A request counts against its arm at each of five edges that it exceeds, quantiles of the first minute.

A judge may learn from ``before`` (stable's first minutes) and ``history`` (other divisions). Both hold the
*same* requests as the live part, and that flatters: only the division is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bench.judging.cells import TICK_S, WEIGHTS, Floats, Ints
from bench.judging.nezha import Bools, Fault, Keys, Requests, Traces, around_fault, healthy_stream

QUANTILES = (0.50, 0.75, 0.90, 0.95, 0.99)
"""Where the edges are."""
EDGES_S = 60.0
"""Edges are quantiles of the first minute."""
BEFORE_S = 360.0
"""What a judge may learn dispersion from: six minutes."""
HISTORY = 200
"""Other divisions that a judge may learn from."""
FAULT_WEIGHT = 0.2
"""The canary's share of a faulty rollout."""
LEAST_REQUESTS = 100
"""Of a fault, before and after: fewer decide nothing."""
DIVISIONS: Mapping[str, float] = {"hash": 0.0, "sticky_0.5s": 0.5, "sticky_2s": 2.0}
"""By request, or by blocks of so many seconds."""
CHUNK = 100
"""Rollouts divided at once; bounds memory."""

Slowdown = Callable[[Keys, Ints], Floats]
"""Factors of the canary's latencies from requests' keys and salts, broadcastable to (salts, requests)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCounts:
    """Requests ``n`` (rollouts, ticks) and those over each edge ``over`` (rollouts, ticks, edges)."""

    canary_n: Floats
    canary_over: Floats
    stable_n: Floats
    stable_over: Floats
    half_n: Floats
    half_over: Floats

    @property
    def rollouts(self) -> int:
        return int(self.canary_n.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCell:
    """Many divisions of the same real requests into two arms. Ticks of 5 s, disjoint."""

    name: str
    live: LatencyCounts
    before: LatencyCounts
    """Stable only, with its first half: (1, ticks before); the same for all rollouts."""
    history: LatencyCounts
    """Other divisions, without slowdown: (history runs, ticks)."""
    step_ticks: int
    """The canary's share changes after so many ticks."""


class LatencyRule(Protocol):
    """A judge of latencies."""

    name: str

    def first_rollback(self, cell: LatencyCell) -> Ints:
        """Per rollout, the index of the first tick at whose end it rolls back; -1 for never."""
        ...


def times(factor: float) -> Slowdown:
    """All requests slower."""
    return lambda keys, salts: np.full((1, 1), factor)


def tail(share: float, factor: float) -> Slowdown:
    """A random share of the requests slower."""
    return lambda keys, salts: np.where(uniform(keys, salts + _TAIL) < share, factor, 1.0)


EFFECTS: Mapping[str, Slowdown] = {
    "x1.1": times(1.1),
    "x1.25": times(1.25),
    "x2": times(2.0),
    "5%_x4": tail(0.05, 4.0),
}
"""Known slowdowns of the canary."""

_HALF, _TAIL, _PER_SEED = 10**12, 2 * 10**12, 10**6
"""Offsets of salts: what is decided by one hash is independent of what is decided by another."""


def uniform(keys: Keys, salts: Ints) -> Floats:
    """Hashes in [0, 1) of keys under salts, shape (salts, keys): SplitMix64 (Steele et al., OOPSLA 2014)."""
    mixed = keys + np.uint64(0x9E3779B97F4A7C15) * (salts.astype(np.uint64)[:, None] + np.uint64(1))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    share: Floats = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return share


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is divided, and how; times of both pools count from the rollout's start."""

    canary: Requests
    stable: Requests
    """The same requests as ``canary`` except for a fault."""
    weights: Floats
    """The canary's share per tick, shape (ticks,)."""
    edges: Floats
    block_s: float = 0.0
    """0: every request is divided on its own."""

    @property
    def ticks(self) -> int:
        return len(self.weights)

    def divided(self, salts: Ints, slowdown: Slowdown | None = None) -> LatencyCounts:
        """One rollout per salt."""
        chunks = [
            self._chunk(salts[at : at + CHUNK], slowdown or times(1.0)) for at in range(0, len(salts), CHUNK)
        ]
        return LatencyCounts(
            **{
                name: np.concatenate([getattr(each, name) for each in chunks])
                for name in LatencyCounts.__dataclass_fields__
            }
        )

    def _chunk(self, salts: Ints, slowdown: Slowdown) -> LatencyCounts:
        canary, canary_keys = self.canary, self._keys(self.canary)
        stable, stable_keys = self.stable, self._keys(self.stable)
        in_canary = uniform(canary_keys, salts) < self._shares(canary)
        in_stable = uniform(stable_keys, salts) >= self._shares(stable)
        in_half = in_stable & (uniform(stable_keys, salts + _HALF) < 0.5)
        canary_ms = canary.ms * slowdown(canary.key, salts)
        canary_n, canary_over = self._counted(canary, in_canary, canary_ms)
        stable_n, stable_over = self._counted(stable, in_stable, stable.ms[None, :])
        half_n, half_over = self._counted(stable, in_half, stable.ms[None, :])
        return LatencyCounts(
            canary_n=canary_n,
            canary_over=canary_over,
            stable_n=stable_n,
            stable_over=stable_over,
            half_n=half_n,
            half_over=half_over,
        )

    def _keys(self, requests: Requests) -> Keys:
        return (requests.start_s / self.block_s).astype(np.uint64) if self.block_s else requests.key

    def _shares(self, requests: Requests) -> Floats:
        return self.weights[self._tick(requests)]

    def _tick(self, requests: Requests) -> Ints:
        return np.minimum((requests.start_s / TICK_S).astype(np.int64), self.ticks - 1)

    def _counted(self, requests: Requests, chosen: Bools, ms: Floats) -> tuple[Floats, Floats]:
        """Requests per tick, (rollouts, ticks), and those over each edge, (rollouts, ticks, edges)."""
        bounds = np.searchsorted(self._tick(requests), np.arange(self.ticks + 1))
        over = [_per_tick(chosen & (ms > edge), bounds) for edge in self.edges]
        return _per_tick(chosen, bounds), np.stack(over, axis=-1)


def _per_tick(flags: Bools, bounds: Ints) -> Floats:
    """Flags set in [bounds[t], bounds[t + 1]) per row."""
    sums = np.zeros((flags.shape[0], flags.shape[1] + 1), dtype=np.int32)
    np.cumsum(flags, axis=1, out=sums[:, 1:])
    return np.diff(sums[:, bounds], axis=1).astype(float)


def edges_of(requests: Requests) -> Floats:
    """Latencies (ms) at :data:`QUANTILES` of the first minute."""
    edges: Floats = np.quantile(requests.ms[requests.start_s < EDGES_S], QUANTILES)
    return edges


def salts_of(seed: int, part: int, count: int) -> Ints:
    """Numbers of divisions; parts and seeds do not overlap below 10,000 rollouts and 10 seeds a decade."""
    return seed * _PER_SEED + part * 10_000 + np.arange(count)


def healthy_stage(traces: Traces, block_s: float = 0.0) -> Stage:
    """The day's healthy requests as one rollout of five equal steps."""
    requests = healthy_stream(traces)
    ticks = int(np.floor(requests.start_s[-1] / TICK_S)) + 1
    steps = np.minimum(np.arange(ticks) // _step_ticks(ticks), len(WEIGHTS) - 1)
    return Stage(
        canary=requests,
        stable=requests,
        weights=np.asarray(WEIGHTS)[steps],
        edges=edges_of(requests),
        block_s=block_s,
    )


def _step_ticks(ticks: int) -> int:
    return -(-ticks // len(WEIGHTS))


def before_of(stage: Stage, seed: int) -> LatencyCounts:
    """Stable's first :data:`BEFORE_S` alone, divided into halves."""
    ticks = min(round(BEFORE_S / TICK_S), stage.ticks)
    early = stage.stable.between(0.0, ticks * TICK_S)
    calm = Stage(
        canary=early, stable=early, weights=np.zeros(ticks), edges=stage.edges, block_s=stage.block_s
    )
    return calm.divided(salts_of(seed, 99, 1))


def effect_cells(
    traces: Traces, division: str, seed: int, healthy: int, slowed: int
) -> Iterator[LatencyCell]:
    """The A/A cell, named ``A/A``, and one per effect; they share ``before`` and ``history``."""
    stage = healthy_stage(traces, DIVISIONS[division])
    before, history = before_of(stage, seed), stage.divided(salts_of(seed, 50, HISTORY))
    parts: list[tuple[str, int, Slowdown | None]] = [("A/A", healthy, None)]
    parts += [(name, slowed, slowdown) for name, slowdown in EFFECTS.items()]
    for part, (name, rollouts, slowdown) in enumerate(parts):
        yield LatencyCell(
            name=name,
            live=stage.divided(salts_of(seed, part, rollouts), slowdown),
            before=before,
            history=history,
            step_ticks=_step_ticks(stage.ticks),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultCells:
    """One fault in one view: ``root`` (users' requests) or ``pod`` (the faulty pod's spans)."""

    fault: Fault
    view: str
    healthy: LatencyCell
    """Both arms from before the fault."""
    faulty: LatencyCell


def fault_cells(traces: Traces, seed: int, rollouts: int) -> Iterator[FaultCells]:
    """All faults and views with enough requests on both sides of the injection."""
    for fault in traces.faults:
        around = around_fault(traces, fault)
        for view, requests in (("root", traces.root), ("pod", traces.pods[fault.pod])):
            if around is None:
                continue
            before_s, after_s, length = around
            calm = requests.between(before_s, before_s + length)
            bad = requests.between(after_s, after_s + length)
            if min(len(calm), len(bad)) >= LEAST_REQUESTS:
                yield _fault_cells(fault, view, calm, bad, seed, rollouts)


def _fault_cells(
    fault: Fault, view: str, calm: Requests, bad: Requests, seed: int, rollouts: int
) -> FaultCells:
    ticks = int(max(calm.start_s[-1], bad.start_s[-1]) / TICK_S) + 1
    weights = np.full(ticks, FAULT_WEIGHT)
    same = Stage(canary=calm, stable=calm, weights=weights, edges=edges_of(calm))
    spliced = Stage(canary=bad, stable=calm, weights=weights, edges=same.edges)
    before, history = before_of(same, seed), same.divided(salts_of(seed, 50, HISTORY))

    def cell(name: str, live: LatencyCounts) -> LatencyCell:
        return LatencyCell(name=name, live=live, before=before, history=history, step_ticks=ticks)

    return FaultCells(
        fault=fault,
        view=view,
        healthy=cell("A/A", same.divided(salts_of(seed, 0, rollouts))),
        faulty=cell(fault.kind, spliced.divided(salts_of(seed, 1, rollouts))),
    )
