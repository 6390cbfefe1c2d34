"""What a judge's roll-backs amount to: false alarms, misses, delays, users exposed, and promotions.

A roll-back of a healthy rollout is false; so is one before a late regression begins, which also counts as
missing that regression. A regression that was not found counts with the whole rollout as its delay and with
all canary requests from its onset as exposed: a judge cannot look fast by finding only the easy half. Delays
and exposures of several kinds are summed up as the median over kinds of each kind's median (or 90th
percentile).

Rates carry Wilson 95 % intervals over rollouts. They do not know that rollouts of one cell and seed share one
learnt history, so compare seeds as well; and the interval of a worst cell is that of the cell, not corrected
for having been picked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np

from bench.judging.cells import TICK_S, TICKS, Cell, Floats, Ints, Rule

HORIZON_S = TICKS * TICK_S
"""Seconds of a whole rollout on the fixed schedule; the delay of what was never found."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Share:
    """``hits`` of ``of`` rollouts."""

    hits: int
    of: int

    @property
    def pct(self) -> float:
        """Per cent; 0 of 0 is 0."""
        return 100.0 * self.hits / self.of if self.of else 0.0

    def interval_pct(self) -> tuple[float, float]:
        """Wilson's score interval in per cent; (0, 100) when nothing was seen.

        References
        ----------
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
        """
        if not self.of:
            return 0.0, 100.0
        z2 = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2) ** 2
        miss = self.of - self.hits
        middle = self.hits + z2 / 2
        half = math.sqrt(z2 * (self.hits * miss / self.of + z2 / 4))
        low = 0.0 if self.hits == 0 else (middle - half) / (self.of + z2)
        high = 1.0 if miss == 0 else (middle + half) / (self.of + z2)
        return 100.0 * low, 100.0 * high


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotions:
    """How rollouts ended whose steps are taken on evidence, one entry per rollout."""

    promoted: Ints
    """1: promoted, 0: held until the end, -1: rolled back."""
    seconds: Floats
    """From the start to that end."""


class Promotion(Protocol):
    """A judge whose passing verdicts move a rollout on; asked once per cell."""

    def run(self, cell: Cell) -> Promotions:
        """End-to-end rollouts of the cell's kind (see ``scenarios.KINDS[cell.name]``) at its rate."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one judge did in one cell."""

    judge: str
    suite: str
    kind: str
    rps: int
    seed: int
    onset: int | None
    in_slo: bool
    first: Ints
    """First tick at whose end it rolled back, -1 for never; shape (rollouts,)."""
    exposed: Floats
    """Canary requests from the onset (healthy: from the start) until then; all when never or too early."""
    promotions: Promotions | None = None

    @property
    def is_healthy(self) -> bool:
        return self.onset is None

    @property
    def found(self) -> Ints:
        """The roll-backs at or after the onset, -1 elsewhere."""
        return np.where(self.first >= (self.onset or 0), self.first, -1)

    @property
    def false_rollbacks(self) -> int:
        """Roll-backs of what was healthy at the time."""
        until = TICKS if self.onset is None else self.onset
        return int(((self.first >= 0) & (self.first < until)).sum())

    def delays_s(self) -> Floats:
        """Seconds from the onset to the end of the tick that found it; the whole horizon when never."""
        found = self.found
        return np.where(found >= 0, (found - (self.onset or 0) + 1) * TICK_S, HORIZON_S)


def judged(
    rule: Rule, cell: Cell, *, seed: int, suite: str = "main", promotion: Promotion | None = None
) -> Judged:
    """Let a rule judge a cell.

    Raises
    ------
    ValueError
        Its answer is not one tick index (or -1) per rollout.
    """
    first = np.asarray(rule.first_rollback(cell), dtype=np.int64)
    if first.shape != (cell.live.rollouts,):
        raise ValueError(f"{rule.name} answered with shape {first.shape} for {cell.live.rollouts} rollouts")
    ticks = cell.live.canary_n.shape[1]
    if first.size and not -1 <= first.min() <= first.max() < ticks:
        raise ValueError(f"{rule.name} answered with ticks outside -1..{ticks - 1}")
    return Judged(
        judge=rule.name,
        suite=suite,
        kind=cell.name,
        rps=cell.rps,
        seed=seed,
        onset=cell.onset,
        in_slo=cell.in_slo,
        first=first,
        exposed=exposed_requests(cell.live.canary_n, first, cell.onset or 0),
        promotions=promotion.run(cell) if promotion else None,
    )


def exposed_requests(canary_n: Floats, first: Ints, onset: int) -> Floats:
    """Canary requests of ticks ``onset`` to ``first`` inclusive; all where ``first`` is before them."""
    sums = np.cumsum(canary_n[:, onset:], axis=1)
    last = np.where(first >= onset, first - onset, sums.shape[1] - 1)
    return sums[np.arange(len(first)), last]


def fixed_schedule(judged: Judged) -> Promotions:
    """Promotions of a judge that only rolls back: what it lets live reaches 100 % when the schedule ends."""
    never = judged.first < 0
    return Promotions(
        promoted=np.where(never, 1, -1),
        seconds=np.where(never, HORIZON_S, (judged.first + 1) * TICK_S),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFigures:
    """One judge, one kind, one rate; seeds pooled."""

    kind: str
    rps: int
    is_healthy: bool
    in_slo: bool
    false_rollback: Share
    """Of a late regression: before its onset."""
    worst_seed_pct: float
    """False roll-backs in per cent of the worst single seed."""
    missed: Share
    median_delay_s: float
    p90_delay_s: float
    median_exposed: float
    false_promotion: Share | None
    """Promoted although regressed and outside the SLO; ``None`` where promotions were not simulated."""
    promoted: Share | None
    median_promote_s: float | None
    """Median over all rollouts, those not promoted counted as never; ``None``: never, or not simulated."""


def cell_figures(same: Sequence[Judged]) -> CellFigures:
    """Figures of one cell from its seeds."""
    one = same[0]
    rollouts = sum(len(each.first) for each in same)
    delays = np.concatenate([each.delays_s() for each in same])
    promotions = [each.promotions for each in same if each.promotions is not None]
    is_wrong = not one.is_healthy and not one.in_slo
    return CellFigures(
        kind=one.kind,
        rps=one.rps,
        is_healthy=one.is_healthy,
        in_slo=one.in_slo,
        false_rollback=Share(sum(each.false_rollbacks for each in same), rollouts),
        worst_seed_pct=max(Share(each.false_rollbacks, len(each.first)).pct for each in same),
        missed=Share(sum(int((each.found < 0).sum()) for each in same), rollouts),
        median_delay_s=float(np.median(delays)),
        p90_delay_s=float(np.quantile(delays, 0.9)),
        median_exposed=float(np.median(np.concatenate([each.exposed for each in same]))),
        false_promotion=_promoted(promotions, (one.onset or 0) * TICK_S) if is_wrong else None,
        promoted=_promoted(promotions, 0.0),
        median_promote_s=_median_promote_s(promotions),
    )


def _promoted(promotions: Sequence[Promotions], since_s: float) -> Share | None:
    """Promotions at or after ``since_s``: one before a late regression began was right."""
    if not promotions:
        return None
    hits = sum(int(((each.promoted == 1) & (each.seconds > since_s)).sum()) for each in promotions)
    return Share(hits, sum(len(each.promoted) for each in promotions))


def _median_promote_s(promotions: Sequence[Promotions]) -> float | None:
    if not promotions:
        return None
    seconds = np.concatenate([np.where(each.promoted == 1, each.seconds, np.inf) for each in promotions])
    middle = float(np.quantile(seconds, 0.5, method="inverted_cdf"))
    return middle if np.isfinite(middle) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeFigures:
    """One judge in one suite."""

    judge: str
    cells: tuple[CellFigures, ...]

    @property
    def healthy(self) -> tuple[CellFigures, ...]:
        return tuple(cell for cell in self.cells if cell.is_healthy)

    @property
    def rates(self) -> tuple[int, ...]:
        return tuple(sorted({cell.rps for cell in self.cells}))

    def regressions(self, rps: int) -> tuple[CellFigures, ...]:
        return tuple(cell for cell in self.cells if not cell.is_healthy and cell.rps == rps)

    def false_rollback(self) -> Share:
        """Over all healthy cells, pooled."""
        return pooled(cell.false_rollback for cell in self.healthy)

    def worst(self) -> CellFigures | None:
        """The healthy cell with most false roll-backs; ``None`` without healthy cells."""
        return max(self.healthy, key=lambda cell: cell.false_rollback.pct, default=None)

    def missed(self, rps: int) -> Share:
        return pooled(cell.missed for cell in self.regressions(rps))

    def typical(self, rps: int, figure: Callable[[CellFigures], float]) -> float:
        """Median of a figure over the regressions at a rate."""
        return float(np.median([figure(cell) for cell in self.regressions(rps)]))

    def worst_false_promotion(self) -> CellFigures | None:
        """The regression promoted most often; ``None`` where promotions were not simulated."""
        known = [cell for cell in self.cells if cell.false_promotion is not None]
        return max(
            known, key=lambda cell: cell.false_promotion.pct if cell.false_promotion else 0.0, default=None
        )


def _in_order(cells: Iterable[CellFigures]) -> tuple[CellFigures, ...]:
    """Slow services first, kinds in the order they came."""
    return tuple(sorted(cells, key=lambda cell: cell.rps))


def pooled(shares: Iterable[Share]) -> Share:
    """All rollouts together."""
    all_ = list(shares)
    return Share(sum(share.hits for share in all_), sum(share.of for share in all_))


def judge_figures(results: Iterable[Judged]) -> dict[str, JudgeFigures]:
    """Figures per judge, in order of appearance, from results of one suite in any order."""
    cells: dict[str, dict[tuple[str, int], list[Judged]]] = {}
    for result in results:
        cells.setdefault(result.judge, {}).setdefault((result.kind, result.rps), []).append(result)
    return {
        judge: JudgeFigures(judge=judge, cells=_in_order(cell_figures(same) for same in by_cell.values()))
        for judge, by_cell in cells.items()
    }
