"""What judges of latency make of the real requests: false alarms, slowdowns and faults found, delays.

As everywhere, what was not found counts with the whole length as its delay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.judging.cells import TICK_S, Ints
from bench.judging.figures import Share
from bench.judging.nezha import Traces, healthy_stream
from bench.judging.nezha_cells import (
    DIVISIONS,
    EFFECTS,
    LatencyCell,
    LatencyRule,
    effect_cells,
    fault_cells,
    healthy_stage,
)

DETECTED = 0.25
"""A fault counts as detected when more than this share of its resplits, all views, is rolled back."""
VIEWS = ("root", "pod")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One rule in one cell of real requests."""

    judge: str
    division: str
    cell: str
    """``A/A``, an effect, or a fault's kind."""
    first: Ints
    """First tick at whose end it rolled back, -1 for never."""
    ticks: int
    fault: str = ""
    """Of a fault: when and where; both views of a fault share it."""
    view: str = ""
    is_healthy: bool = False

    @property
    def share(self) -> Share:
        return Share(int((self.first >= 0).sum()), len(self.first))


def seen(rule: LatencyRule, cell: LatencyCell, division: str, **labels: Any) -> Seen:
    """Let a rule judge a cell.

    Raises
    ------
    ValueError
        Its answer is not one tick index (or -1) per rollout.
    """
    first = np.asarray(rule.first_rollback(cell), dtype=np.int64)
    ticks = cell.live.canary_n.shape[1]
    if first.shape != (cell.live.rollouts,) or not np.all((first >= -1) & (first < ticks)):
        raise ValueError(f"{rule.name} must answer a tick in -1..{ticks - 1} for each rollout")
    return Seen(judge=rule.name, division=division, cell=cell.name, first=first, ticks=ticks, **labels)


def judge_effects(
    traces: Traces, division: str, rules: Sequence[LatencyRule], *, seed: int, healthy: int, slowed: int
) -> list[Seen]:
    """The A/A rollouts of a division and the known slowdowns."""
    return [
        seen(rule, cell, division, is_healthy=cell.name not in EFFECTS)
        for cell in effect_cells(traces, division, seed, healthy, slowed)
        for rule in rules
    ]


def judge_faults(traces: Traces, rules: Sequence[LatencyRule], *, seed: int, rollouts: int) -> list[Seen]:
    """All usable faults, and A/A rollouts of the requests before them."""
    found: list[Seen] = []
    for cells in fault_cells(traces, seed, rollouts):
        labels = {"fault": f"{cells.fault.at_s:.0f} {cells.fault.pod}", "view": cells.view}
        for rule in rules:
            found.append(seen(rule, cells.healthy, "faults", is_healthy=True, **labels))
            found.append(seen(rule, cells.faulty, "faults", **labels))
    return found


def real_json(traces: Traces, results: Iterable[Seen]) -> dict[str, Any]:
    """The part of the leaderboard below ``real``."""
    by_judge: dict[str, list[Seen]] = {}
    for each in results:
        by_judge.setdefault(each.judge, []).append(each)
    stage = healthy_stage(traces)
    return {
        "requests": len(healthy_stream(traces)),
        "minutes": stage.ticks * TICK_S / 60,
        "edges_ms": [round(float(edge), 1) for edge in stage.edges],
        "effects": list(EFFECTS),
        "faults": len({cells.fault for cells in fault_cells(traces, seed=0, rollouts=1)}),
        "judges": {judge: _judge_json(some) for judge, some in by_judge.items()},
    }


def _judge_json(some: Sequence[Seen]) -> dict[str, Any]:
    return {
        "divisions": {
            division: _division_json([each for each in some if each.division == division])
            for division in DIVISIONS
        },
        "faults": _faults_json([each for each in some if each.division == "faults"]),
    }


def _division_json(some: Sequence[Seen]) -> dict[str, Any]:
    false = _pooled([each for each in some if each.is_healthy])
    slowed = {effect: [each for each in some if each.cell == effect] for effect in EFFECTS}
    return {
        "false_rollback_pct": false.pct,
        "false_rollback_interval_pct": false.interval_pct(),
        "detected_pct": {effect: _pooled(found).pct for effect, found in slowed.items()},
        "median_delay_s": {effect: _median_delay_s(found) for effect, found in slowed.items()},
    }


def _faults_json(some: Sequence[Seen]) -> dict[str, Any]:
    false = _pooled([each for each in some if each.is_healthy])
    faulty = [each for each in some if not each.is_healthy]
    names = list(dict.fromkeys(each.fault for each in faulty))
    shares = {name: _pooled([each for each in faulty if each.fault == name]) for name in names}
    kinds = list(dict.fromkeys(each.cell for each in faulty))
    return {
        "false_rollback_pct": false.pct,
        "false_rollback_interval_pct": false.interval_pct(),
        "detected": sum(share.hits > DETECTED * share.of for share in shares.values()),
        "by_type": {kind: _views_json([each for each in faulty if each.cell == kind]) for kind in kinds},
        "by_fault": [
            {
                "fault": each.fault,
                "type": each.cell,
                "view": each.view,
                "detected_pct": each.share.pct,
                "median_delay_s": _median_delay_s([each]),
            }
            for each in faulty
        ],
    }


def _views_json(some: Sequence[Seen]) -> Mapping[str, Any]:
    views = {view: [each for each in some if each.view == view] for view in VIEWS}
    return {
        view: {"detected_pct": _pooled(found).pct, "median_delay_s": _median_delay_s(found)}
        for view, found in views.items()
        if found
    }


def _pooled(some: Sequence[Seen]) -> Share:
    return Share(sum(each.share.hits for each in some), sum(each.share.of for each in some))


def _median_delay_s(some: Sequence[Seen]) -> float | None:
    if not some:
        return None
    delays = [np.where(each.first >= 0, each.first + 1, each.ticks) * TICK_S for each in some]
    return float(np.median(np.concatenate(delays)))
