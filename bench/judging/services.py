"""A simulated service: how often it fails, together in all its pods, and how its errors are bunched.

A service's error probability is a base rate times the factors of its effects. Effects that all arms share
are here, effects of one arm or pod in :mod:`bench.judging.arms`. Three arms are simulated: the canary (2
pods) and the two halves of stable (5 pods each), because some judges learn from half against half.

Requests arrive as a Poisson process, so the counts of an arm are Poisson around its share of the traffic and
exposures have to be measured, as in a real mesh; fixed arrivals would hide the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bench.judging.cells import STEP_TICKS, TICK_S, TICKS, WEIGHTS, Counts, Floats, Ints

ARMS = 3
"""Canary, first half of stable, second half of stable: the last axis of every array of factors."""
BEFORE_TICKS = 120
"""Ten minutes of the stable version before a rollout."""
MOST_ERRORS = 0.95
"""Error probabilities are cut here, so that a product of factors stays a probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """How much is simulated: runs, and ticks before and during each; tick 0 is the rollout's first."""

    rollouts: int
    before: int = 0
    ticks: int = TICKS

    @property
    def total(self) -> int:
        return self.before + self.ticks

    def ticks_from_start(self) -> Ints:
        """Numbers of all ticks, negative before the rollout; shape (total,)."""
        return np.arange(-self.before, self.ticks)


class Effect(Protocol):
    """What multiplies the error probability."""

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        """Factors that broadcast to (rollouts, total ticks, :data:`ARMS`)."""
        ...


class Bunching(Protocol):
    """How many errors come at once; a bunch falls into one arm, by exposure, within one tick."""

    @property
    def mean(self) -> float:
        """Errors per bunch."""
        ...

    def totals(self, rng: np.random.Generator, bunches: Ints) -> Ints:
        """Errors in that many bunches, any shape."""
        ...


@dataclass(frozen=True, slots=True)
class Single:
    """Errors come one by one."""

    @property
    def mean(self) -> float:
        return 1.0

    def totals(self, rng: np.random.Generator, bunches: Ints) -> Ints:
        return bunches


@dataclass(frozen=True, slots=True)
class Geometric:
    """Geometric sizes 1, 2, … of the given mean m; their sum's variance is (2m - 1) times its mean."""

    mean: float

    def totals(self, rng: np.random.Generator, bunches: Ints) -> Ints:
        found = bunches > 0
        more = rng.negative_binomial(bunches[found], 1.0 / self.mean)
        totals = bunches.copy()
        totals[found] += more
        return totals


@dataclass(frozen=True, slots=True)
class Pareto:
    """Whole numbers with P(size >= k) = k^-exponent, cut at ``most``: a few bunches hold most errors."""

    exponent: float = 1.7
    most: int = 100

    @property
    def mean(self) -> float:
        return float(np.sum(np.arange(1, self.most + 1, dtype=float) ** -self.exponent))

    def totals(self, rng: np.random.Generator, bunches: Ints) -> Ints:
        sizes = (1.0 - rng.random(int(bunches.sum()))) ** (-1.0 / self.exponent)
        sums = np.concatenate(([0.0], np.cumsum(np.floor(np.minimum(sizes, self.most)))))
        ends = np.cumsum(bunches.ravel())
        totals: Ints = (sums[ends] - sums[ends - bunches.ravel()]).astype(np.int64)
        return totals.reshape(bunches.shape)


@dataclass(frozen=True, slots=True)
class SharedBursts:
    """All arms fail ``ratio`` times as often during bursts of random length at random times."""

    ratio: float = 10.0
    length_s: float = 30.0
    gap_s: float = 300.0

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        leave, enter = TICK_S / self.length_s, TICK_S / self.gap_s
        switches = rng.random((span.total + 1, span.rollouts))
        bursting = switches[0] < enter / (enter + leave)
        path = np.empty((span.total, span.rollouts))
        for tick, draw in enumerate(switches[1:]):
            path[tick] = bursting
            bursting = np.where(bursting, draw >= leave, draw < enter)
        return (1.0 + (self.ratio - 1.0) * path.T)[:, :, None]


@dataclass(frozen=True, slots=True)
class SharedDrift:
    """All arms' rate grows evenly to ``ratio`` times the base over the rollout."""

    ratio: float = 4.0

    def factors(self, rng: np.random.Generator, span: Span) -> Floats:
        way = np.clip(span.ticks_from_start() / max(span.ticks - 1, 1), 0.0, 1.0)
        return (1.0 + (self.ratio - 1.0) * way)[None, :, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A healthy service."""

    base: float = 0.005
    """Error probability of a request where all factors are 1."""
    effects: tuple[Effect, ...] = ()
    bunching: Bunching = Single()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What one simulation gave; ``before`` has no ticks when none were asked for."""

    before: Counts
    live: Counts


def planned_weights(ticks: int = TICKS) -> Floats:
    """The canary's share per tick of the fixed schedule, shape (ticks,); the last share lasts."""
    steps = np.minimum(np.arange(ticks) // STEP_TICKS, len(WEIGHTS) - 1)
    return np.asarray(WEIGHTS)[steps]


def error_rates(
    service: Service, rng: np.random.Generator, span: Span, changes: Sequence[Effect] = ()
) -> Floats:
    """Error probabilities, broadcastable to (rollouts, total ticks, :data:`ARMS`)."""
    rates = np.full((1, 1, 1), service.base)
    for effect in (*service.effects, *changes):
        rates = rates * effect.factors(rng, span)
    capped: Floats = np.minimum(rates, MOST_ERRORS)
    return capped


def draw_counts(
    rates: Floats, bunching: Bunching, rng: np.random.Generator, span: Span, rps: float, weights: Floats
) -> Counts:
    """Requests and errors of every tick of ``span``, before and during the rollout.

    ``weights`` are the canary's true shares, broadcastable to (rollouts, total ticks). Good and bad answers
    are independent Poisson counts, which is a Poisson number of requests that fail with the given rates.
    """
    shape = (span.rollouts, span.total, ARMS)
    shares = np.stack([weights, (1.0 - weights) / 2, (1.0 - weights) / 2], axis=-1)
    requests = rps * TICK_S * shares
    good = rng.poisson(np.broadcast_to(requests * (1.0 - rates), shape))
    bunches = rng.poisson(np.broadcast_to(requests * rates / bunching.mean, shape))
    bad = bunching.totals(rng, bunches).astype(float)
    all_ = good + bad
    return Counts(
        canary_n=np.ascontiguousarray(all_[..., 0]),
        canary_s=np.ascontiguousarray(bad[..., 0]),
        stable_n=all_[..., 1] + all_[..., 2],
        stable_s=bad[..., 1] + bad[..., 2],
        half_n=np.ascontiguousarray(all_[..., 1]),
        half_s=np.ascontiguousarray(bad[..., 1]),
    )


def simulate(
    service: Service,
    rng: np.random.Generator,
    span: Span,
    rps: float,
    changes: Sequence[Effect] = (),
    split_error: float = 1.0,
) -> Drawn:
    """Runs on the fixed schedule; the canary's true share is ``split_error`` times the planned one."""
    weights = np.concatenate((np.zeros(span.before), planned_weights(span.ticks) * split_error))
    rates = error_rates(service, rng, span, changes)
    counts = draw_counts(rates, service.bunching, rng, span, rps, weights)
    return Drawn(
        before=ticks_of(counts, slice(0, span.before)), live=ticks_of(counts, slice(span.before, None))
    )


def ticks_of(counts: Counts, chosen: slice) -> Counts:
    """The chosen ticks of all rollouts."""
    return _mapped(counts, (slice(None), chosen))


def rollouts_of(counts: Counts, chosen: slice) -> Counts:
    """The chosen rollouts, all ticks."""
    return _mapped(counts, (chosen, slice(None)))


def _mapped(counts: Counts, chosen: tuple[slice, slice]) -> Counts:
    return Counts(
        canary_n=np.ascontiguousarray(counts.canary_n[chosen]),
        canary_s=np.ascontiguousarray(counts.canary_s[chosen]),
        stable_n=np.ascontiguousarray(counts.stable_n[chosen]),
        stable_s=np.ascontiguousarray(counts.stable_s[chosen]),
        half_n=np.ascontiguousarray(counts.half_n[chosen]),
        half_s=np.ascontiguousarray(counts.half_s[chosen]),
    )
