"""PipeCD's automated deployment analysis: a Mann-Whitney test of canary against baseline, each interval.

Exact p-values for small samples, the normal approximation above; failure at p <= 0.05, with no correction for
asking again.

Source: pipe-cd/pipecd, ``pkg/app/piped/executor/analysis``; Mann and Whitney (1947), Klotz (1966) for ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from bench.judging.cells import TICK_S, Cell, Floats, Ints
from bench.judging.intervals import NEVER, gathered, ratios, ticks_in

ALPHA = 0.05
"""PipeCD's; it cannot be changed."""
EXACT_UNTIED = 50
"""The largest sample whose p-value is exact when no two observations are equal."""
EXACT_TIED = 25
"""The same with ties."""


class Deviation(Enum):
    """The side on which the canary must not deviate."""

    HIGH = "HIGH"
    LOW = "LOW"
    EITHER = "EITHER"


def deviates(experiment: Floats, control: Floats, deviation: Deviation) -> bool:
    """Whether the analysis fails. Two empty sides are fine, one is a failure, NaN is no number to pass."""
    if not experiment.size and not control.size:
        return False
    if not experiment.size or not control.size:
        return True
    if np.unique(np.concatenate([experiment, control])).size == 1:
        return False
    return p_value(experiment, control, deviation) <= ALPHA


def p_value(experiment: Floats, control: Floats, deviation: Deviation) -> float:
    """Of "no deviation". Two-sided exact values are doubled and may exceed 1, as PipeCD's do.

    Neither sample may be empty, and not all observations equal.
    """
    m, n = len(experiment), len(control)
    _, group, size = np.unique(np.concatenate([experiment, control]), return_inverse=True, return_counts=True)
    rank = np.cumsum(size) - (size - 1) / 2
    u = float(rank[group[:m]].sum()) - m * (m + 1) / 2
    largest = EXACT_TIED if size.max() > 1 else EXACT_UNTIED
    if max(m, n) <= largest:
        return _exact(u, m, n, tuple(size.tolist()), deviation)
    return _approximate(u, m, n, size.astype(float), deviation)


def _exact(u: float, m: int, n: int, sizes: tuple[int, ...], deviation: Deviation) -> float:
    """HIGH counts everything above u - 1: with ties that is half a step more than "u or more"."""
    match deviation:
        case Deviation.LOW:
            return at_most(u, m, sizes)
        case Deviation.HIGH:
            return 1 - at_most(u - 1, m, sizes)
        case Deviation.EITHER:
            return 1.0 if 2 * u == m * n else 2 * at_most(min(u, m * n - u), m, sizes)


def _approximate(u: float, m: int, n: int, sizes: Floats, deviation: Deviation) -> float:
    total = m + n
    ties = float((sizes**3 - sizes).sum())
    sigma = (m * n * (total + 1 - ties / (total * (total - 1))) / 12) ** 0.5
    excess, cdf = u - m * n / 2, NormalDist().cdf
    match deviation:
        case Deviation.LOW:
            return cdf((excess + 0.5) / sigma)
        case Deviation.HIGH:
            return 1 - cdf((excess - 0.5) / sigma)
        case Deviation.EITHER:
            z = (excess - 0.5 * float(np.sign(excess))) / sigma
            return 2 * min(cdf(z), 1 - cdf(z))


def at_most(u: float, m: int, sizes: tuple[int, ...]) -> float:
    """Exact P(U <= u) when ``m`` of the observations, tied in groups of ``sizes``, are drawn at random."""
    if u < 0:
        return 0.0
    below = _below(m, sizes)
    return float(below[min(int(2 * u), len(below) - 1)])


@lru_cache(maxsize=4096)
def _below(m: int, sizes: tuple[int, ...]) -> Floats:
    """Distribution function of 2U, by position."""
    least = m * (m + 1)
    most = 2 * m * sum(sizes)
    ways = np.zeros((m + 1, most + 1))
    ways[0, 0] = 1.0
    ranked = 0
    for size in sizes:
        ways = _with_group(ways, size, 2 * ranked + size + 1)
        ranked += size
    share: Floats = np.cumsum(ways[m, least:]) / ways[m].sum()
    return share


def _with_group(ways: Floats, size: int, double_rank: int) -> Floats:
    """Ways to choose k observations with a doubled rank sum, after one more group of equal observations."""
    more = ways.copy()
    for chosen in range(1, min(size, len(ways) - 1) + 1):
        moved = chosen * double_rank
        more[chosen:, moved:] += _choose(size, chosen) * ways[:-chosen, : ways.shape[1] - moved]
    return more


def _choose(size: int, chosen: int) -> float:
    ways = 1.0
    for step in range(chosen):
        ways = ways * (size - step) / (step + 1)
    return ways


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeCDRule:
    """``CANARY_BASELINE`` on the error ratio with ``deviation: HIGH``: a query range per interval.

    A range has both its ends, so an interval of ``k`` points brings ``k + 1``, the first of them about the
    time before; before the rollout there is none. A point without requests is NaN, which is a failure unless
    ``skip_on_no_data``. PipeCD chooses points of one minute; others are for comparison.
    """

    name: str
    interval_s: float = 300.0
    point_s: float = 60.0
    failure_limit: int = 0
    skip_on_no_data: bool = False

    def first_rollback(self, cell: Cell) -> Ints:
        live, ticks = cell.live, ticks_in(self.point_s)
        canary = ratios(gathered(live.canary_s, ticks), gathered(live.canary_n, ticks))
        stable = ratios(gathered(live.stable_s, ticks), gathered(live.stable_n, ticks))
        rows = zip(canary, stable, strict=True)
        return np.array([self._first(experiment, control) for experiment, control in rows], np.int64)

    def _first(self, experiment: Floats, control: Floats) -> int:
        failures = 0
        for end, some in self._ranges(len(experiment)):
            failures += self._fails(experiment[some], control[some])
            if failures > self.failure_limit:
                return round(end * self.point_s / TICK_S) - 1
        return NEVER

    def _fails(self, experiment: Floats, control: Floats) -> bool:
        if np.isnan(experiment).any() or np.isnan(control).any():
            return not self.skip_on_no_data
        return deviates(experiment, control, Deviation.HIGH)

    def _ranges(self, points: int) -> Iterator[tuple[int, slice]]:
        """Each query: the point it ends with, and its points."""
        length = round(self.interval_s / self.point_s)
        for end in range(length, points + 1, length):
            yield end, slice(max(0, end - length - 1), end)
