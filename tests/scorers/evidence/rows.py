"""Rows for the evidence judge, built by hand: what a tick brought, and a rollout told tick by tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from domain.calibration import Calibration, Law, Tier
from domain.policy import Gate, JudgeName, Policy
from domain.records import SignalInput
from domain.rollout import GateState, JudgingContext, SourceRef, WindowTick, context_of
from domain.signal import Arm, Channel
from domain.verdict import Evidence, Score
from scorers.evidence.judge import judge
from scorers.evidence.types import Floats
from scorers.gate_row import GateRow, Moment
from tests.scorers.situations import ERRORS, T0, policy, spec

IDEAL = Calibration(tier=Tier.R2, interval_s=5.0, laws={"error_rate": Law(has_learnt_warmup=True)})
"""Of a service whose healthy versions are exactly like stable from the first request; its margins are 5."""
WARM = Calibration(
    tier=Tier.R2,
    interval_s=5.0,
    laws={"error_rate": Law(warmup_margin=((1.0,), (1.0,)), has_learnt_warmup=True)},
    rates={"error_rate": 0.005},
)
"""The same, with margins of 1: the plain relative kernel from the first tick on."""
SOURCES = tuple(SourceRef(name=each.value, channel=each) for each in Channel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One tick of one gate: canary and stable, events of exposure. ``half`` is stable's first half."""

    n: float = 1000.0
    bad: float = 0.0
    base_n: float = 9000.0
    base_bad: float = 0.0
    suspect: float | None = None
    worse: float | None = None
    half: tuple[float, float] | None = None
    """Exposure and events."""
    quality: int = 0
    base_quality: int = 0
    has_stable: bool = True
    reach_s: float = 0.0
    """Seconds before the tick's start from which it counts already."""


NOTHING = Seen(n=0.0, base_n=0.0)


def evident(**changes: Any) -> Policy:
    """A policy of four steps (5, 25, 50, 100 %) judged by evidence; no warm-up unless said otherwise."""
    plain = {"judge": JudgeName.EVIDENCE, "weights_bp": (500, 2500, 5000, 10_000), "warmup_s": 0.0}
    return policy(**(plain | changes))


def context(calibration: Calibration | None = WARM, *, changes: int = 0, **of_policy: Any) -> JudgingContext:
    """The frozen context of a rollout by :func:`evident`."""
    made = context_of(spec(evident(**of_policy), calibration=calibration, sources=SOURCES))
    return replace(made, changes=changes)


def row(
    seen: Seen | None,
    of: JudgingContext,
    moment: Moment,
    *,
    gate: Gate = ERRORS,
    state: GateState | None = None,
    index: int = 0,
    since: float | None = None,
) -> GateRow:
    """A ratio gate's row; ``None`` for a tick without data."""
    newest = canary = stable = None
    if seen is not None:
        start = moment.start - seen.reach_s
        suspect = seen.bad if seen.suspect is None else seen.suspect
        worse = seen.bad if seen.worse is None else seen.worse
        base = (seen.base_n, seen.base_bad) if seen.has_stable else (0.0, 0.0)
        newest = WindowTick(start, moment.end, seen.n, seen.bad, suspect, worse, *base)
        canary = SignalInput(gate.signal, Arm.CANARY, start, seen.bad, seen.n, quality=seen.quality)
        if seen.has_stable:
            half_n, half_bad = seen.half or (-1.0, -1.0)
            stable = SignalInput(
                gate.signal,
                Arm.STABLE,
                start,
                seen.base_bad,
                seen.base_n,
                quality=seen.base_quality,
                half_events=half_bad,
                half_exposure=half_n,
            )
    return GateRow(
        index=index,
        gate=gate,
        state=state or GateState(),
        context=of,
        newest=newest,
        problem="" if seen is not None else "no data: prom is silent",
        quantile_ms=None,
        since=moment.step_began if since is None else since,
        moment=moment,
        canary=canary,
        stable=stable,
    )


class Told:
    """A rollout whose gates are judged tick by tick, each tick right after the one before."""

    def __init__(self, calibration: Calibration | None = WARM, *, changes: int = 0, **of_policy: Any) -> None:
        self.context = context(calibration, changes=changes, **of_policy)
        self.states = [GateState() for _ in self.policy.gates]
        self.step, self.step_began, self.now = 0, T0, T0

    @property
    def policy(self) -> Policy:
        return self.context.policy

    def go_to(self, step: int) -> None:
        """The next tick is the first one at that step's weight."""
        self.step, self.step_began = step, self.now

    def rows(self, seen: Sequence[Seen | None], *, is_settled: bool = True) -> list[GateRow]:
        """What the judge is asked about a tick that brings each gate its own."""
        warm_at = self.step_began + self.policy.warmup_s - 0.05
        end = self.now + self.policy.interval_s
        moment = Moment(self.now, end, self.step, is_settled, self.step_began, warm_at)
        since = warm_at if self.now >= warm_at else self.step_began
        return [
            row(each, self.context, moment, gate=gate, state=state, index=index, since=since)
            for index, (each, gate, state) in enumerate(
                zip(seen, self.policy.gates, self.states, strict=True)
            )
        ]

    def tick(self, *seen: Seen | None, is_settled: bool = True) -> Score:
        """The first gate's score of a tick that brings each gate its own."""
        return self.all(*seen, is_settled=is_settled)[0]

    def all(self, *seen: Seen | None, is_settled: bool = True) -> list[Score]:
        """Every gate's score."""
        (answers,) = judge([self.rows(seen, is_settled=is_settled)])
        self.states = [state for state, _ in answers]
        self.now += self.policy.interval_s
        return [score for _, score in answers]

    def ticks(self, times: int, *seen: Seen | None) -> Score:
        """The first gate's last score of ``times`` such ticks."""
        for _ in range(times - 1):
            self.tick(*seen)
        return self.tick(*seen)

    def memory(self, gate: int = 0) -> Floats:
        """What a gate remembers; see ``scorers.evidence.layout``."""
        return np.frombuffer(self.states[gate].memory)


def evidence(score: Score) -> Evidence:
    """The evidence of a score that must have some."""
    assert score.evidence is not None
    return score.evidence
