"""Rollouts from end to end: steps taken on evidence, held without it, rolled back on it.

The product's compiled code judges every tick of many rollouts at once; around it stands the decision
machine's part that matters here: warm-up, passes in a row, minimum and maximum step times, pauses and
their time-out. Traffic follows each rollout's own steps, so counts are drawn tick by tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log

import numpy as np

from bench.judging.arms import ColdStart
from bench.judging.cells import SLO, TICK_S, WEIGHTS, Cell, Floats, Ints
from bench.judging.evidence import (
    ALPHA,
    MIN_RATIO,
    SERIES,
    WARMUP_S,
    WINDOW_S,
    Evidence,
    EvidenceStableOnly,
)
from bench.judging.figures import Promotions
from bench.judging.scenarios import KINDS, stream
from bench.judging.services import ARMS, Service, Span, error_rates
from domain.calibration import Law
from scorers.evidence import layout as at
from scorers.evidence import observe as col
from scorers.evidence.bounds import GRID
from scorers.evidence.claims import LADDERS
from scorers.evidence.dispersion import dispersions
from scorers.evidence.kernel import advance
from scorers.evidence.layout import Layout, fresh, layout_of
from scorers.evidence.margins import margin_at
from scorers.evidence.null import null_of
from scorers.evidence.observe import observe_all
from scorers.evidence.regime import COLD_DISPERSION, COLD_LAWS

BETA = 0.05
PASS_COUNT = 3
FAIL_COUNT = 3
MIN_STEP_S, MAX_STEP_S, PAUSE_TIMEOUT_S = 60.0, 900.0, 600.0
WINDOW_TICKS = 12
MIN_SAMPLES, MIN_EVENTS = 100, 3
"""The product's defaults."""
DOUBT = log(20.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps and what each has to prove."""

    weights: tuple[float, ...] = WEIGHTS
    claims: tuple[float, ...] = LADDERS[-1]

    @property
    def ticks(self) -> int:
        """The longest a rollout can take."""
        return round(len(self.weights) * (MAX_STEP_S + PAUSE_TIMEOUT_S) / TICK_S)


STRICT = Plan(claims=(1.0,) * len(WEIGHTS))
"""Every step proves the limit itself."""
LATE_START = Plan(weights=(0.25, 0.5, 0.75), claims=LADDERS[2])
"""For little traffic: nothing can be told of a twentieth of it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the judge knows of the service."""

    layout: Layout
    law: Law
    threshold: float
    is_cold: bool

    @classmethod
    def learnt(cls, law: Law, threshold: float) -> Rules:
        return cls(layout_of(1, (null_of(law, TICK_S),)), law, threshold, False)

    @classmethod
    def cold(cls) -> Rules:
        nulls = tuple(null_of(law, TICK_S) for law in COLD_LAWS)
        return cls(layout_of(1, nulls), COLD_LAWS[0], log(1.0 / ALPHA), True)


class StagedPromotion:
    """Promotions by tier: ``R2``, ``R1`` or ``R0``."""

    def __init__(self, tier: str = "R2", plan: Plan | None = None) -> None:
        self._plan = plan
        self._learner = {"R2": Evidence, "R1": EvidenceStableOnly, "R0": None}[tier]
        self._learnt = self._learner() if self._learner else None

    def rules(self, cell: Cell) -> Rules:
        if self._learnt is None:
            return Rules.cold()
        known = self._learnt.calibration(cell.history)
        assert known.threshold is not None, "a history of rollouts has one"
        return Rules.learnt(known.laws[SERIES], known.threshold)

    def run(self, cell: Cell) -> Promotions:
        plan = self._plan or (LATE_START if cell.rps <= 10 else Plan())
        service = KINDS[cell.name].service
        changes = () if cell.onset is None else (KINDS[cell.name].regression,)
        rng = stream("promotion", cell.name, cell.rps, int(cell.live.canary_n[:, 0].sum()))
        span = Span(rollouts=cell.live.rollouts, ticks=plan.ticks)
        cold = [effect for effect in service.effects if isinstance(effect, ColdStart)]
        steady = replace(service, effects=tuple(effect for effect in service.effects if effect not in cold))
        rates = error_rates(steady, rng, span, tuple(each for each in changes if each is not None))
        rates = np.broadcast_to(rates, (span.rollouts, span.ticks, ARMS))
        draw = partial(_draw, steady, cold, rng, rates, cell.rps)
        return _Rollouts(plan, self.rules(cell), cell.live.rollouts).until_over(draw)


def _draw(
    service: Service,
    cold: Sequence[ColdStart],
    rng: np.random.Generator,
    rates: Floats,
    rps: float,
    tick: int,
    weight: Floats,
    step: Ints,
    since: Ints,
) -> tuple[Floats, Floats]:
    """This tick's ``s_c, n_c, s_b, n_b`` and stable's halves, for each rollout's own weight.

    Cold starts come with the rollouts' own steps, not with the fixed schedule's.
    """
    shares = np.stack([weight, (1.0 - weight) / 2, (1.0 - weight) / 2], axis=1)
    requests = rps * TICK_S * shares
    probabilities = rates[:, tick].copy()
    for effect in cold:
        is_cold = (since * TICK_S < effect.seconds) & (effect.every_step | (step == 0))
        probabilities[:, 0] *= np.where(is_cold, effect.ratio, 1.0)
    bunches = rng.poisson(requests * probabilities / service.bunching.mean)
    bad = service.bunching.totals(rng, bunches).astype(float)
    all_ = bad + rng.poisson(requests * (1.0 - probabilities))
    counts = np.stack([bad[:, 0], all_[:, 0], bad[:, 1] + bad[:, 2], all_[:, 1] + all_[:, 2]], axis=1)
    halves = np.stack([bad[:, 1], all_[:, 1], bad[:, 2], all_[:, 2]], axis=1)
    return counts, halves


class _Rollouts:
    """Many rollouts, each at its own step."""

    def __init__(self, plan: Plan, rules: Rules, rollouts: int) -> None:
        self.plan, self.rules, self.n = plan, rules, rollouts
        layout = rules.layout
        self.memory = np.tile(np.frombuffer(fresh(layout), dtype="<f8"), (rollouts, 1))
        self.step = np.zeros(rollouts, dtype=np.int64)
        self.since = np.zeros(rollouts, dtype=np.int64)
        self.passes = np.zeros(rollouts, dtype=np.int64)
        self.paused_for = np.full(rollouts, -1, dtype=np.int64)
        """Ticks in PAUSED(fail), -1 when not paused for that."""
        self.window = np.zeros((rollouts, WINDOW_TICKS, 2))
        self.outcome = np.zeros(rollouts, dtype=np.int64)
        self.seconds = np.full(rollouts, plan.ticks * TICK_S)
        self.is_over = np.zeros(rollouts, dtype=np.bool_)

    def until_over(self, draw: partial[tuple[Floats, Floats]]) -> Promotions:
        for tick in range(self.plan.ticks):
            counts, halves = draw(tick, np.asarray(self.plan.weights)[self.step], self.step, self.since)
            self._judge(tick, counts, halves)
            if self.is_over.all():
                break
        return Promotions(promoted=self.outcome, seconds=self.seconds)

    def _judge(self, tick: int, counts: Floats, halves: Floats) -> None:
        rho, is_bound = self._margins()
        phi = np.ones(self.n)
        bins = np.tile(np.asarray(self.rules.law.dispersion), (self.n, 1))
        told = np.full(self.n, self.rules.is_cold)
        dispersions(
            self.memory, self.rules.layout.start_of(0), counts, halves, bins, told, COLD_DISPERSION, phi
        )
        said = np.zeros((self.n, col.SAID))
        layout = self.rules.layout
        observe_all(
            self.memory, self._given(tick, counts, phi), said, layout.limit_at, layout.ratios_at, GRID
        )
        log_e, tilt = self._filter(counts, rho, phi, said, is_bound)
        self._fold(tick, counts, said, log_e, rho * np.exp(tilt))

    def _margins(self) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
        places = {(int(s), int(t)) for s, t in zip(self.step, self.since, strict=True)}
        table = {at_: margin_at(self.rules.law, at_[0], at_[1] * TICK_S, WINDOW_S) for at_ in places}
        both = [table[int(s), int(t)] for s, t in zip(self.step, self.since, strict=True)]
        return np.array([each[0] for each in both]), np.array([each[1] for each in both])

    def _given(self, tick: int, counts: Floats, phi: Floats) -> Floats:
        given = np.zeros((self.n, col.GIVEN))
        given[:, col.START], given[:, col.END] = tick * TICK_S + 1.0, (tick + 1) * TICK_S + 1.0
        given[:, col.STEP_INDEX], given[:, col.STEPS] = self.step, len(self.plan.weights) + 1
        given[:, col.HORIZON] = round(len(self.plan.weights) * MAX_STEP_S / TICK_S)
        given[:, col.IS_SETTLED] = 1.0
        given[:, col.IS_WARM] = self.is_warm
        given[:, col.IN_MARGIN] = self.since * TICK_S < WINDOW_S
        given[:, col.HAS_LEARNT] = self.rules.law.has_learnt_warmup
        given[:, col.CANARY_N], given[:, col.BASE_N] = counts[:, 1], counts[:, 3]
        given[:, col.BAD] = given[:, col.SUSPECT] = counts[:, 0]
        given[:, col.BASE_BAD] = counts[:, 2]
        given[:, col.LIMIT] = SLO
        given[:, col.MOST_CLAIM] = np.asarray(self.plan.claims)[self.step]
        given[:, col.TIME_LEFT] = MIN_STEP_S - WARMUP_S
        given[:, col.SHARE] = np.asarray(self.plan.weights)[self.step]
        given[:, col.EXPECTED] = -1.0
        given[:, col.BETA] = BETA
        given[:, col.DISPERSION] = self.rules.law.clustering
        given[:, col.SPLIT_DISPERSION] = phi
        return given

    @property
    def is_warm(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return np.asarray(self.since * TICK_S >= WARMUP_S)

    def _filter(
        self,
        counts: Floats,
        rho: Floats,
        phi: Floats,
        said: Floats,
        is_bound: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    ) -> tuple[Floats, Floats]:
        found = []
        for index, null in enumerate(self.rules.layout.nulls):
            nats, tilt = np.zeros(self.n), np.zeros(self.n)
            advance(
                self.memory,
                self.rules.layout.filter_at(0, index),
                null.half,
                null.first,
                null.steps,
                (self.memory[:, at.TICKS] > 1.0) & null.wanders,
                counts,
                rho,
                phi,
                said[:, col.WEIGHT].copy(),
                self.memory[:, at.SPENT].copy(),
                is_bound,
                said[:, col.LIVE] > 0.0,
                nats,
                tilt,
            )
            found.append((nats, tilt))
        nats, tilts = np.stack([each[0] for each in found]), np.stack([each[1] for each in found])
        least = nats.argmin(axis=0)[None]
        return np.take_along_axis(nats, least, 0)[0], np.take_along_axis(tilts, least, 0)[0]

    def _fold(self, tick: int, counts: Floats, said: Floats, log_e: Floats, ratio: Floats) -> None:
        is_material = ratio >= MIN_RATIO
        is_severe = (log_e >= self.rules.threshold) & is_material
        is_fail = (log_e >= DOUBT) & is_material
        is_over_limit = self._is_over(counts) >= FAIL_COUNT
        has_proven = (self.memory[:, at.CLAIM] > 0.0) & (said[:, col.LOG_PASS] >= log(1.0 / BETA))
        is_pass = has_proven & ~is_fail & ~is_over_limit & self.is_warm
        self.passes = np.where(is_pass, self.passes + 1, 0)
        self.paused_for = np.where(is_fail & (self.paused_for < 0) & self.is_warm, 0, self.paused_for)
        self.paused_for = np.where(self.passes >= PASS_COUNT, -1, self.paused_for)
        timed_out = (self.paused_for * TICK_S >= PAUSE_TIMEOUT_S) & ~is_pass
        self.paused_for += self.paused_for >= 0
        self.since += 1
        lasted = self.since * TICK_S
        moves = (self.passes >= PASS_COUNT) & (lasted >= MIN_STEP_S)
        self._end(tick, is_severe | timed_out, -1)
        self._end(tick, moves & (self.step == len(self.plan.weights) - 1), 1)
        self._end(tick, (lasted >= MAX_STEP_S) & ~is_pass & (self.paused_for < 0), 0)
        self._move(moves & ~self.is_over)

    def _is_over(self, counts: Floats) -> Ints:
        """Ticks in a row with the window over the limit."""
        self.window[:, 1:] = self.window[:, :-1]
        self.window[:, 0] = counts[:, :2]
        length = np.where(self.is_warm, self.since - round(WARMUP_S / TICK_S) + 1, self.since + 1)
        inside = np.arange(WINDOW_TICKS)[None, :] < length[:, None]
        bad, n = ((self.window[:, :, column] * inside).sum(axis=1) for column in (0, 1))
        is_over = (n >= MIN_SAMPLES) & (bad >= MIN_EVENTS) & (bad > SLO * n)
        self.memory[:, at.OVER_RUN] = np.where(is_over, self.memory[:, at.OVER_RUN] + 1.0, 0.0)
        return self.memory[:, at.OVER_RUN].astype(np.int64)

    def _end(self, tick: int, which: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], outcome: int) -> None:
        ended = which & ~self.is_over
        self.outcome[ended] = outcome
        self.seconds[ended] = (tick + 1) * TICK_S
        self.is_over |= ended

    def _move(self, moves: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> None:
        self.step = np.where(moves, self.step + 1, self.step)
        for column in (self.since, self.passes):
            column[moves] = 0
