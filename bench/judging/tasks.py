"""Pieces of the leaderboard's work, small enough to share out among processes.

A family is a healthy cell and the regressions of its kind. They have the very same history, so a family is
one task and its judges learn once; judges are made anew for every task and may keep what they learnt in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from bench.judging.cells import Cell, Rule
from bench.judging.figures import Judged, Promotion, fixed_schedule, judged
from bench.judging.nezha import Traces, data_folder, load
from bench.judging.nezha_cells import LatencyRule
from bench.judging.nezha_figures import Seen, judge_effects, judge_faults
from bench.judging.roster import FIXED_SCHEDULE, LATENCY_RULES, RULES, made, made_promotion
from bench.judging.scenarios import (
    HEALTHY,
    REGRESSIONS,
    Kind,
    cell_of,
    first_rollouts,
    history_of,
    stress_cells,
    wrong_history_cells,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is simulated."""

    healthy: int
    """Rollouts per healthy cell and seed."""
    regressed: int
    """Rollouts per regressed cell and seed."""
    real: int
    """A/A divisions of the real requests."""
    promoted: int
    """Rollouts per cell and seed that step on evidence, at most."""
    slowed: int
    """Divisions per known slowdown, and per fault."""


FULL = Size(healthy=1000, regressed=200, promoted=200, real=1000, slowed=300)
QUICK = Size(healthy=400, regressed=100, promoted=50, real=200, slowed=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one worker does at a time."""

    track: str
    """``family``, ``stress``, ``wrong_history``, ``divisions`` or ``faults``."""
    seed: int
    judges: tuple[str, ...]
    size: Size
    is_quick: bool
    rps: int = 0
    kind: str = ""
    """The healthy kind of a family, the division of the real requests."""

    def __str__(self) -> str:
        return " ".join(
            part
            for part in (self.track, self.kind, f"{self.rps} rps" if self.rps else "", f"seed {self.seed}")
            if part
        )


def work(task: Task) -> list[Judged] | list[Seen]:
    """Run in a worker: everything the task's judges do in its cells."""
    if task.track in ("divisions", "faults"):
        return _work_real(task)
    found: list[Judged] = []
    rules: dict[str, Rule] = {name: made(RULES[name]) for name in task.judges}
    promotions: dict[str, Promotion | None] = {
        name: made_promotion(RULES[name]) if task.track == "family" else None for name in task.judges
    }
    for cell in _cells(task):
        found += [_judged(task, name, rule, promotions[name], cell) for name, rule in rules.items()]
    return found


def _cells(task: Task) -> Iterator[Cell]:
    seed, rps, size = task.seed, task.rps, task.size
    if task.track == "stress":
        yield from stress_cells(seed, size.healthy, rates=(rps,))
    elif task.track == "wrong_history":
        yield from wrong_history_cells(seed, size.healthy, rates=(rps,))
    else:
        yield from family_cells(task.kind, rps, seed, size)


def family_cells(healthy: str, rps: int, seed: int, size: Size) -> Iterator[Cell]:
    """A healthy cell and the regressions of its kind, all with the very same history."""
    kinds: list[Kind] = [kind for kind in (*HEALTHY, *REGRESSIONS) if kind.family == healthy]
    history = history_of(kinds[0], rps, seed)
    for kind in kinds:
        yield cell_of(kind, rps, seed, size.regressed if kind.regression else size.healthy, history)


def _judged(task: Task, name: str, rule: Rule, promotion: Promotion | None, cell: Cell) -> Judged:
    entry = RULES[name]
    most = entry.quick_most if task.is_quick else entry.full_most
    some = cell if most is None else first_rollouts(cell, most)
    found = replace(judged(rule, some, seed=task.seed, suite=task.track), judge=name)
    if task.track == "family" and entry.promotion == FIXED_SCHEDULE:
        return replace(found, promotions=fixed_schedule(found))
    if promotion is None:
        return found
    return replace(found, promotions=promotion.run(first_rollouts(some, task.size.promoted)))


def _work_real(task: Task) -> list[Seen]:
    rules: list[LatencyRule] = [made(LATENCY_RULES[name]) for name in task.judges]
    size = task.size
    if task.track == "faults":
        return judge_faults(traces(), rules, seed=task.seed, rollouts=size.slowed)
    return judge_effects(traces(), task.kind, rules, seed=task.seed, healthy=size.real, slowed=size.slowed)


@cache
def traces() -> Traces:
    """The real requests, read once per process; raises FileNotFoundError without SENTRA_DATA."""
    folder = data_folder()
    if folder is None:
        raise FileNotFoundError("SENTRA_DATA names no folder with nezha/rca_data in it")
    return load(folder)
