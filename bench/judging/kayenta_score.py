"""Kayenta's WeightedSumScorer: labels of metrics in groups to one score, and what a score leads to.

Source: spinnaker/kayenta, ``WeightedSumScorer.scala`` and the standalone canary stages; restated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from bench.judging.kayenta import Label

NODATA_LIMIT = 0.5
"""From this share of metrics without data the canary fails."""
_COUNTED = frozenset({Label.PASS, Label.HIGH, Label.LOW, Label.NODATA_FAIL_METRIC})


class Outcome(Enum):
    PASS = "Pass"
    MARGINAL = "Marginal"
    FAIL = "Fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One metric's result."""

    label: Label
    groups: tuple[str, ...] = ("all",)
    critical: bool = False
    muted: bool = False


def score(results: Sequence[Judged], weights: Mapping[str, float] | None = None) -> float:
    """0 to 100. ``weights`` in per cent by group; groups without one share the rest equally.

    Raises :class:`ValueError` when no metric counts.
    """
    heard = [result for result in results if not result.muted]
    if not heard:
        raise ValueError("a score needs at least one metric that is not muted")
    if any(result.critical and result.label is not Label.PASS for result in heard):
        return 0.0
    silent = sum(result.label is Label.NODATA for result in heard)
    if silent / len(heard) >= NODATA_LIMIT:
        return 0.0
    return _weighted(heard, dict(weights or {}))


def _weighted(results: Sequence[Judged], weights: dict[str, float]) -> float:
    labels: dict[str, list[Label]] = defaultdict(list)
    for result in results:
        for group in result.groups:
            labels[group].append(result.label)
    unweighted = labels.keys() - weights.keys()
    share = (100 - sum(weights.values())) / len(unweighted) if unweighted else 0.0
    return round(sum(_of_group(of) * weights.get(group, share) / 100 for group, of in labels.items()), 2)


def _of_group(labels: Sequence[Label]) -> float:
    """Per cent that pass; a group in which nothing counts does no harm."""
    counted = [label for label in labels if label in _COUNTED]
    return 100 * counted.count(Label.PASS) / len(counted) if counted else 100.0


def outcome(points: float, *, passing: float, marginal: float) -> Outcome:
    """What a final score is called."""
    if points >= passing:
        return Outcome.PASS
    return Outcome.MARGINAL if points >= marginal else Outcome.FAIL


def ends_early(points: float, *, marginal: float) -> bool:
    """Whether an interim score ends the canary; at ``marginal`` itself it does, whatever it is called."""
    return points <= marginal
