"""What a demo comes to: one object for programs, a short text for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from domain.rollout import Phase
from sentra.embedded.demo.plane import CANARY, STABLE
from sentra.embedded.demo.request_log import RESET, Request, read_requests
from sentra.embedded.demo.story import Shift, Story

PROXY_FAULTS = frozenset({"NR", "UH", "NC", "UC", "DC"})
"""Envoy's flags for failures of its own making: no route, no healthy host, no cluster, connections cut."""
SHIFT_SHADOW_S = 2.0
"""A failure until this long after a shift's effect is counted as the shift's."""
_ARM = {STABLE: "stable", CANARY: "canary"}


class StepSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One step."""

    weight_pct: float
    seconds: float | None
    verdict: str | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A demo's result. Delays in seconds; ``None`` where there was no fault or no effect."""

    rollout_id: str
    scenario: str
    judge: str
    outcome: str
    expected: tuple[str, ...]
    reason: str
    seconds: float
    """From the command to the end of the rollout."""
    ready_s: float
    """Of these, until the embedded stack was ready."""
    fault_to_decision_s: float | None
    decision_to_effect_s: float | None
    """The slowest shift."""
    requests: dict[str, int]
    failed: dict[str, int]
    shift_failures: int
    steps: tuple[StepSummary, ...]
    evaluations: int
    decisions: int
    policy: str
    """The policy's version."""

    @property
    def is_as_expected(self) -> bool:
        return self.outcome in self.expected


OUTCOMES = {
    Phase.PROMOTED: "promoted",
    Phase.ROLLED_BACK: "rolled_back",
    Phase.PAUSED: "paused",
    Phase.ABORTED: "aborted",
}


def outcome_of(phase: Phase | None) -> str:
    """The word for an end; anything that is no end is a failure of the demo."""
    return OUTCOMES.get(phase, "failed") if phase else "failed"


def steps_of(story: Story, now: float) -> tuple[StepSummary, ...]:
    """The steps that were taken."""
    return tuple(
        StepSummary(
            weight_pct=step.weight_bp / 100,
            seconds=round((step.ended if step.ended is not None else now) - step.began, 3),
            verdict=step.verdict.value if step.verdict else None,
        )
        for step in story.steps
    )


def fault_to_decision(story: Story, fault_at: float | None) -> float | None:
    """From the first moment a canary request could show the fault to the decision it led to."""
    if fault_at is None or not story.steps:
        return None
    visible = max(fault_at, story.steps[0].began)
    decision = story.first_adverse_after(visible)
    return None if decision is None else round(decision.at - visible, 3)


def count_requests(path: Path) -> tuple[dict[str, int], dict[str, int], list[Request]]:
    """Requests and failures per arm as the users saw them, and all of them."""
    rows = list(read_requests(path)) if path.exists() else []
    total = Counter(_ARM.get(row.version, "unknown") for row in rows)
    failed = Counter(_ARM.get(row.version, "unknown") for row in rows if row.failed)
    arms = [*_ARM.values(), *(["unknown"] if total["unknown"] else [])]
    return {arm: total[arm] for arm in arms}, {arm: failed[arm] for arm in arms}, rows


def count_shift_failures(
    shifts: Sequence[Shift], rows: Iterable[Request], access_log: Path, killed: Mapping[str, float]
) -> int:
    """Requests that shifting lost: broken connections and the proxy's own 5xx, near a shift.

    Near is from the moment the shift was taken up until :data:`SHIFT_SHADOW_S` after its effect. A broken
    connection counts when it broke, a request that timed out when it was sent; users and proxy both see
    these, and each counts once. What reached for a version after the scenario itself had killed it
    (``killed``: when) is not the shift's fault.
    """
    broken = [row.ended if row.status == RESET else row.sent for row in rows if row.status <= 0]
    own = [each for each in _proxy_failures(access_log) if not each.is_of_killed(killed)]
    cut = [each.ended for each in own if not each.was_answered]
    refused = [each.ended for each in own if each.was_answered]
    return max(_near(shifts, broken), _near(shifts, cut)) + _near(shifts, refused)


def _near(shifts: Sequence[Shift], moments: Iterable[float]) -> int:
    return sum(
        any(shift.began <= moment <= shift.ended + SHIFT_SHADOW_S for shift in shifts) for moment in moments
    )


class _ProxyFailure(NamedTuple):
    """A request that Envoy failed by itself."""

    ended: float
    cluster: str
    was_answered: bool
    """With a 5xx; otherwise the connection was cut."""

    def is_of_killed(self, killed: Mapping[str, float]) -> bool:
        return any(
            self.cluster.endswith(f"_{version}") and self.ended >= moment
            for version, moment in killed.items()
        )


def _proxy_failures(access_log: Path) -> Iterable[_ProxyFailure]:
    if not access_log.exists():
        return
    with access_log.open() as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the last line of a proxy that was killed
            code = int(entry.get("response_code") or 0)
            flags = set(str(entry.get("flags") or "").split(","))
            if (code == 0 or code >= 500) and flags & PROXY_FAULTS:
                ended = float(entry["start_time"]) + float(entry.get("duration") or 0) / 1000
                yield _ProxyFailure(ended, str(entry.get("cluster") or ""), was_answered=code > 0)


def show(console: Console, summary: Summary) -> None:
    """For people."""
    colour = "green" if summary.is_as_expected else "red"
    words = summary.outcome.replace("_", " ")
    console.print()
    console.print(f"[bold {colour}]{words}[/] after {summary.seconds:.1f} s · {escape(summary.reason)}")
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _lines(summary):
        table.add_row(f"[dim]{name}[/]", value)
    console.print(table)
    if not summary.is_as_expected:
        console.print(f"[red]expected: {' or '.join(summary.expected).replace('_', ' ')}[/]")


def _lines(summary: Summary) -> list[tuple[str, str]]:
    arms = [f"{arm} {summary.requests[arm]:,} ({summary.failed[arm]:,} failed)" for arm in summary.requests]
    steps = [
        f"{step.weight_pct:g} % {step.seconds:.1f} s" for step in summary.steps if step.seconds is not None
    ]
    return [
        ("steps", " → ".join(steps) or "none"),
        ("fault to decision", _seconds(summary.fault_to_decision_s, " (first pause or roll-back)")),
        ("decision to effect", _seconds(summary.decision_to_effect_s, " (slowest shift)")),
        ("requests", " · ".join(arms)),
        ("lost by shifting", f"{summary.shift_failures:,}"),
        ("judged", f"{summary.evaluations:,} evaluations, {summary.decisions:,} decisions"),
        ("judge", summary.judge),
        ("rollout", summary.rollout_id),
    ]


def _seconds(value: float | None, note: str = "") -> str:
    return "–" if value is None else f"{value:.2f} s{note}"
