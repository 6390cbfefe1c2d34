"""How long a step takes to prove its claim: the law of the tick at which it passes.

Passing depends on nothing but the bad events so far, in the warm-up and after it, and on how many requests
there were. With a steady flow of requests the latter are known, the former a Poisson process; so the chance
of having passed by each tick follows from adding up chances, tick by tick, over the number of bad events and
the number of passes in a row. Nothing is drawn at random, and nothing is approximated but this:

* requests come evenly (their own fluctuation shortens or lengthens a step by a few per cent);
* where a service's events cluster, all clusters are as large as the learnt one, and each is worth one event;
* many bad events per tick are counted on a grid (``plan_walk``);
* beyond 2,000 ticks several are taken for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, floor, log

import numpy as np

from domain.policy import Policy
from scorers.evidence.compiled import compiled
from scorers.evidence.limits import keeps_limit
from scorers.evidence.plan_walk import DONE, first_passes, poisson
from scorers.evidence.types import Floats

RARE = 1e-5
"""Outcomes of the warm-up rarer than this are left out."""
FEW_TICKS = 100
MOST_TICKS = 2_000
"""Ticks that are followed one by one."""
LONG_RUN = 1e12
"""Requests beyond which only the trend counts."""
WARMUPS = 12
"""Outcomes of the warm-up that stand for all of them where it may bring many bad events."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a step's ticks end, in seconds since its weight is in force.

    The weight comes into force in mid-tick, so that on average half a tick is lost ::

        in force                        min_step
        |----[ 0  )[ 1  )[ 2  )[ 3  )[ 4  )|        ticks of the step
        |== warm-up ==|                            0 and 1 begin in it, 2 is the first that may pass
    """

    interval_s: float
    warming: int
    """Ticks that begin in the warm-up; their requests count, but they do not pass."""
    earliest: int
    """First tick (0-based) at whose end the step may be left."""
    pass_count: int

    def end_of(self, tick: int) -> float:
        """Seconds from the weight in force to the end of a tick."""
        return (tick + 1.5) * self.interval_s

    def pooled(self, ticks: int) -> Pace:
        """The same, as far as ticks so many times as long can tell."""
        return Pace(
            self.interval_s * ticks,
            ceil(self.warming / ticks),
            self.earliest // ticks,
            ceil(self.pass_count / ticks),
        )

    def ticks_within(self, seconds: float) -> int:
        """Ticks that end no later than that."""
        return max(0, floor(seconds / self.interval_s - 0.5 + 1e-9))


def pace_of(policy: Policy) -> Pace:
    """How the steps of ``policy`` are paced; all alike."""
    interval = policy.interval_s
    warming = max(0, ceil(policy.warmup_s / interval - 0.5 - 1e-9))
    earliest = max(0, ceil(policy.min_step_time_s / interval - 1.5 - 1e-9))
    return Pace(interval, warming, earliest, policy.pass_count)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a step has to prove, as the judge weighs it."""

    ceiling: float
    """The claim: the rate is below this."""
    is_count: bool
    beta: float
    hope: float
    """The fraction of the ceiling at which the judge expects the rate."""

    def speed(self, rate: float) -> float:
        """Nats per request by which the proof advances in the long run; 0 where it never comes.

        The judge argues for 85 % of the ceiling at most, so a rate just below the ceiling is never proven.
        """
        proven = keeps_limit(rate * LONG_RUN, LONG_RUN, self.ceiling, self.is_count, 1.0, self.hope)
        return max(0.0, proven) / LONG_RUN

    def most_bad(self, warm_bad: float, warm_n: float, per_tick: float, ticks: int) -> Floats:
        """Bad events with which a tick still passes, by the number of ticks (1, 2, …) since the warm-up.

        The warm-up brought ``warm_bad`` of ``warm_n``, each tick brings ``per_tick`` requests; -1 is never.
        """
        most = np.full(ticks, -1.0)
        _most_bad(
            most, warm_bad, warm_n, per_tick, self.ceiling, self.is_count, log(1.0 / self.beta), self.hope
        )
        return most


def passing(pace: Pace, proof: Proof, ticks: int, per_tick: float, rate: float) -> Floats:
    """The chance of having passed by the end of each tick of a step, shape (ticks,).

    ``per_tick`` is the canary's exposure, divided by how many of its events come together; ``rate`` is what
    it really shows.
    """
    passed, near = np.zeros(ticks), 0
    for upto in (FEW_TICKS, MOST_TICKS):  # most steps need no more than the former
        near = min(ticks, upto)
        passed[:near] = _passing(pace, proof, near, per_tick, rate)
        passed[near:] = passed[near - 1]
        if near == ticks or passed[-1] > 1.0 - DONE:
            return passed
    pool = ceil(ticks / near)
    far = np.repeat(_passing(pace.pooled(pool), proof, near, per_tick * pool, rate), pool)
    passed[near:] = np.maximum(passed[near:], far[near - pool + 1 : ticks - pool + 1])
    return passed


def _passing(pace: Pace, proof: Proof, ticks: int, per_tick: float, rate: float) -> Floats:
    passed = np.zeros(ticks)
    after = max(0, ticks - pace.warming)
    for warm_bad, chance in _warmups(per_tick * rate * pace.warming):
        most = proof.most_bad(warm_bad, per_tick * pace.warming, per_tick, after)
        passed[pace.warming :] += chance * first_passes(
            per_tick * rate, most, pace.pass_count, pace.earliest - pace.warming
        )
    return passed


def tick_of(passed: Floats, share: float) -> int | None:
    """The first tick (0-based) by whose end that share has passed, if any."""
    found = np.flatnonzero(passed >= share)
    return int(found[0]) if len(found) else None


def _warmups(mean: float) -> list[tuple[float, float]]:
    """Bad events that the warm-up may bring, with their chances; a few of equal chance stand for many."""
    first, chances = poisson(mean)
    likely = np.flatnonzero(chances > RARE)
    numbers, chances = first + likely, chances[likely] / chances[likely].sum()
    if len(numbers) <= WARMUPS:
        return list(zip(numbers.astype(float).tolist(), chances.tolist(), strict=True))
    middles = (np.arange(WARMUPS) + 0.5) / WARMUPS
    chosen = numbers[np.searchsorted(np.cumsum(chances), middles)]
    return [(float(number), 1.0 / WARMUPS) for number in chosen]


@compiled
def _log_pass(
    warm_bad: float, warm_n: float, bad: float, n: float, ceiling: float, is_count: bool, hope: float
) -> float:
    """What the judge says: evidence since the weight, and since the warm-up, half and half."""
    one = keeps_limit(warm_bad + bad, warm_n + n, ceiling, is_count, 1.0, hope)
    other = keeps_limit(bad, n, ceiling, is_count, 1.0, hope)
    high = max(one, other)
    return high + log(0.5 * (1.0 + exp(min(one, other) - high)))


@compiled
def _most_bad(
    most: Floats,
    warm_bad: float,
    warm_n: float,
    per_tick: float,
    ceiling: float,
    is_count: bool,
    nats: float,
    hope: float,
) -> None:
    """See :meth:`Proof.most_bad`; more requests never bear fewer bad events."""
    bad, step = -1.0, 1.0
    for tick in range(len(most)):
        n = per_tick * (tick + 1)
        # Gallop, then halve: a tick of a large service may bear thousands more.
        while _log_pass(warm_bad, warm_n, bad + step, n, ceiling, is_count, hope) >= nats:
            bad += step
            step *= 2.0
        while step > 1.0:
            step *= 0.5
            if _log_pass(warm_bad, warm_n, bad + step, n, ceiling, is_count, hope) >= nats:
                bad += step
        most[tick] = bad
