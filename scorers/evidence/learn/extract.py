"""From a finished rollout's stored evaluations to the run that is remembered of it.

The rollout is gone through once more as it went (``fold.retrace``), and each tick is put before the evidence
judge's own input contract and counters: a tick that was no evidence for the judge teaches nothing either.
Which judge decided then does not matter, a rollout promoted by thresholds teaches as much. All bucket edges
of a histogram are kept: which ones are compared is chosen over many runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from domain.calibration import Law, Tier, series_name
from domain.decision import CommandKind
from domain.policy import Policy
from domain.records import CommandInput, Evaluation, SignalInput, TickInput
from domain.rollout import PauseCause, Phase, RolloutFold, RolloutState
from domain.signal import Shape
from scorers.evidence import layout as at
from scorers.evidence import observe as col
from scorers.evidence.bounds import GRID
from scorers.evidence.gather import counts_of, given_of
from scorers.evidence.layout import layout_of
from scorers.evidence.learn.run import COUNTS, Run, mark
from scorers.evidence.null import null_of
from scorers.evidence.observe import observe
from scorers.evidence.prior import horizon_of
from scorers.evidence.regime import Regime
from scorers.evidence.types import Floats
from scorers.fold import retrace, rows_of
from scorers.gate_row import GateRow

LONGEST = 1440
"""Ticks that are remembered at most: two hours of 5-second ticks, so that one rollout that waited over night
does not pad a whole history."""

Counts = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What is remembered of a rollout."""

    phase: Phase
    """Where its evaluations leave it; only a final phase says that they are complete."""
    run: Run | None
    """``None`` when no tick was evidence."""
    is_healthy: bool
    """Whether its canary was promoted by its own passes: nobody overrode the evidence or changed the gates,
    and no step was taken unproven."""


def extract(evaluations: Iterable[Evaluation]) -> Extracted:
    """Read a finished rollout's evaluations, from its start command on, in fold order.

    Raises :class:`RecordError` when they do not begin at its beginning.
    """
    ticks: _Ticks | None = None
    before: RolloutFold | None = None
    has_override = False
    for stored in evaluations:
        if before is not None and isinstance(stored.input, TickInput):
            ticks = ticks or _Ticks(before.context.policy)
            ticks.take(rows_of(before, stored.input))
        has_override |= _overrides(before, stored)
        before = retrace(before, stored)
    state = before.state if before is not None else RolloutState(rollout_id="")
    is_promoted = state.phase is Phase.PROMOTED and not state.unproven
    return Extracted(
        phase=state.phase, run=ticks.run() if ticks else None, is_healthy=is_promoted and not has_override
    )


def _overrides(before: RolloutFold | None, stored: Evaluation) -> bool:
    """Whether a person decided here in the evidence's stead, or a step was taken without."""
    if before is not None and _approves(before, stored):
        return False
    if stored.decision is not None and (stored.decision.override or stored.decision.unproven):
        return True
    if not isinstance(stored.input, CommandInput) or stored.answer is None or not stored.answer.accepted:
        return False
    command = stored.input.command
    return command.force or command.kind in (CommandKind.CHANGE_POLICY, CommandKind.PROMOTE)


def _approves(before: RolloutFold, stored: Evaluation) -> bool:
    """Whether a person lets a rollout go on that had passed its step and waited for nothing else."""
    if not isinstance(stored.input, CommandInput):
        return False
    command = stored.input.command
    is_awaited = before.state.pause_causes == (PauseCause.APPROVAL,)
    return is_awaited and command.kind is CommandKind.ADVANCE and not command.force


class _Ticks:
    """A rollout's ticks, as they come."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._most = min(horizon_of(policy), LONGEST)
        self._memory: dict[str, Floats] = {}
        self._series: dict[tuple[str, float | None], dict[int, Counts]] = {}
        self._steps: dict[int, int] = {}
        self._marks: dict[int, int] = {}
        self._began: float | None = None
        self._step = -1
        self._was_in_margin = True
        self._opens = False

    def take(self, rows: list[GateRow]) -> None:
        """One tick."""
        if not rows or not rows[0].moment.is_settled:
            return
        moment = rows[0].moment
        self._opens |= moment.step != self._step
        self._step = moment.step
        alone = {row.gate.signal: row for row in reversed(rows)}  # two quantiles of one histogram count once
        seen = {signal: given for signal, row in alone.items() if (given := self._evidence(row)) is not None}
        if self._began is None and not seen:
            return
        self._began = moment.start if self._began is None else self._began
        tick = round((moment.start - self._began) / self._policy.interval_s)
        if tick >= self._most:
            return
        for signal in seen:
            for edge, counts in _counted(alone[signal]):
                self._series.setdefault((signal, edge), {})[tick] = counts
        self._mark(tick, next(iter(seen.values()), None))

    def _evidence(self, row: GateRow) -> Floats | None:
        """What the judge is given of the tick, or ``None`` when it is no evidence to it."""
        memory = self._memory.setdefault(row.gate.signal, np.frombuffer(at.fresh(_ONE.layout)).copy())
        given = np.array(given_of(row, _ONE)[0])
        said = np.zeros(col.SAID)
        observe(memory, given, said, _ONE.layout.limit_at, _ONE.layout.ratios_at, GRID)
        return given if said[col.LIVE] > 0.0 else None

    def _mark(self, tick: int, given: Floats | None) -> None:
        ends = False
        if given is not None:
            self._steps[tick] = self._step
            in_margin = given[col.IN_MARGIN] > 0.0
            ends = self._was_in_margin and not in_margin
            self._was_in_margin = in_margin
        is_warm = given is not None and not self._was_in_margin
        self._marks[tick] = mark(is_warm=is_warm, opens_step=self._opens, ends_warmup=ends)
        self._opens = False

    def run(self) -> Run | None:
        """All of it, up to the last tick in which stable was seen; ``None`` without such a tick."""
        compared = [tick for of in self._series.values() for tick, counts in of.items() if counts[3] > 0.0]
        if not compared:
            return None
        ticks, policy = max(compared) + 1, self._policy
        return Run(
            interval_s=policy.interval_s,
            warmup_s=policy.warmup_s,
            alpha=policy.alpha,
            steps=len(policy.weights_bp),
            horizon=horizon_of(policy),
            ticks=ticks,
            limits=_limits(policy),
            edges={signal: self._edges_of(signal) for signal in _limits(policy)},
            signals=policy.signals(),
            step=np.array([self._steps.get(tick, -1) for tick in range(ticks)], dtype="<i2").tobytes(),
            marks=bytes(self._marks.get(tick, 0) for tick in range(ticks)),
            series={series_name(*key): _packed(of, ticks) for key, of in self._series.items()},
        )

    def _edges_of(self, signal: str) -> tuple[float, ...]:
        return tuple(sorted(edge for of, edge in self._series if of == signal and edge is not None))


def _regime(series: int) -> Regime:
    """Any regime with so many series: counting depends on nothing else in it."""
    return Regime(Tier.R0, layout_of(series, (null_of(Law(), 1.0),)), Law(), False, 0.0, ())


_ONE = _regime(1)


def _counted(row: GateRow) -> list[tuple[float | None, Counts]]:
    """By bucket edge, if any: canary, stable, and stable's first half; each with events and exposure."""
    edges: tuple[float | None, ...] = (None,)
    if row.gate.kind.shape is Shape.HISTOGRAM:
        edges = _edges(row.canary, row.stable)
    if not edges:
        return []
    regime = _regime(len(edges))
    remembered = np.frombuffer(at.fresh(regime.layout)).copy()
    for index, edge in enumerate(edges):
        remembered[regime.layout.start_of(index) + at.EDGE] = edge or 0.0
    arms, halves = counts_of(row, remembered, regime)
    return [
        (edge, (*arm, *(half[:2] if half[1] > 0.0 else (0.0, 0.0))))
        for edge, arm, half in zip(edges, arms, halves, strict=True)
    ]


def _edges(*arms: SignalInput | None) -> tuple[float, ...]:
    return tuple(sorted({edge for arm in arms if arm is not None for edge in arm.edges}))


def _limits(policy: Policy) -> dict[str, tuple[float, ...]]:
    limits: dict[str, tuple[float, ...]] = {}
    for gate in policy.gates:
        if gate.quantile is not None:
            limits[gate.signal] = (*limits.get(gate.signal, ()), gate.slo)
    return limits


def _packed(by_tick: dict[int, Counts], ticks: int) -> bytes:
    counts = np.zeros((COUNTS, ticks), dtype="<f8")
    for tick, column in by_tick.items():
        if tick < ticks:
            counts[:, tick] = column
    return counts.tobytes()
