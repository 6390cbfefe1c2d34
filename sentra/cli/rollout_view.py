"""What ``sentra rollout`` shows people. Times are relative, or UTC; programs get ``rollout_json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from domain.clock import utc_text
from domain.policy import Gate, Policy
from domain.rollout import Phase
from domain.units import bp_text, duration_text, ratio_text
from domain.verdict import Score, Verdict
from sentra.cli.rollout_events import Event, EventKind
from sentra.cli.rollout_follow import Snapshot
from store.catalogue import DONE, PENDING
from store.queries import StoredRollout, StoredStep

SHOWN_EVENTS = 8
SHOWN_INCIDENTS = 3
SILENT_TICKS = 3
SILENT_S = 10.0
"""A running rollout without news for three ticks and this long is probably not being judged."""

STYLE = {
    Phase.PROMOTED: "green",
    Phase.PAUSED: "yellow",
    Phase.ROLLING_BACK: "red",
    Phase.ROLLED_BACK: "red",
    Phase.ABORTED: "red",
    Phase.FAILED: "red",
    Verdict.PASS: "green",
    Verdict.FAIL: "red",
    Verdict.SEVERE: "bold red",
    Verdict.NO_DATA: "yellow",
    Verdict.INCONCLUSIVE: "yellow",
    EventKind.INCIDENT: "red",
    EventKind.DECISION: "bold",
}


def screen(snapshot: Snapshot, now: float, *, limit: int = SHOWN_EVENTS) -> RenderableType:
    """Everything worth seeing of a rollout."""
    parts: list[RenderableType] = [*_head(snapshot, now), Text(), _steps_table(snapshot)]
    if snapshot.now.scores:
        parts += [Text(), _gates_table(snapshot.now.scores, snapshot.now.policy)]
    if snapshot.incidents:
        parts += [Text(), Text("incidents", style="bold"), *_incident_lines(snapshot, now)]
    if snapshot.events and limit:
        parts += [Text(), Text("last events", style="bold"), *map(event_line, snapshot.events[-limit:])]
    return Group(*parts)


def _head(snapshot: Snapshot, now: float) -> Iterable[Text]:
    stored = snapshot.stored
    spec = stored.spec
    yield Text.assemble(
        (spec.rollout_id, "bold"),
        f" · {spec.service} in {spec.environment} · {spec.stable} → {spec.canary}",
    )
    step = min(stored.step_index + 1, len(snapshot.steps))
    weight = f"{bp_text(stored.verified_bp)} of the traffic on {spec.canary}"
    if stored.ordered_bp != stored.verified_bp:
        weight += f", {bp_text(stored.ordered_bp)} ordered"
    yield Text.assemble(
        (phase_text(snapshot), STYLE.get(stored.phase, "cyan")),
        f" · step {step} of {len(snapshot.steps)} · {weight}",
    )
    yield from _why(snapshot, now)


def _why(snapshot: Snapshot, now: float) -> Iterable[Text]:
    stored, decision = snapshot.stored, snapshot.decision
    if decision is not None:
        yield Text(f"decided    {decision.text} ({ago(decision.at, now)})")
    elif stored.reason:
        yield Text(f"decided    {stored.reason}")
    if stored.is_active:
        yield Text(f"waits for  {wait_text(snapshot)}", style="cyan")
        quiet = silence(stored, now)
        if quiet is not None:
            yield Text(f"no news for {duration_text(round(quiet))}: does a worker run?", style="yellow")
    holding = [step for step in stored.spec.undecidable if stored.is_active and step > stored.step_index]
    if holding:
        yield Text(f"may hold   {holding_text(stored.spec.policy, holding)}", style="yellow")
    if stored.spec.retry_of:
        yield Text(f"retries    {stored.spec.retry_of}")


def holding_text(policy: Policy, steps: Sequence[int]) -> str:
    """Steps (1-based) that were not expected to decide in time."""
    named = ", ".join(f"{step} ({bp_text(policy.weights_bp[step - 1])})" for step in steps)
    allowed = duration_text(policy.max_step_time_s)
    return f"step{'s' if len(steps) > 1 else ''} {named}: too little traffic to decide within {allowed}"


def row(snapshot: Snapshot, now: float) -> tuple[str, ...]:
    """A rollout as one row of a list."""
    stored = snapshot.stored
    return (
        stored.spec.rollout_id,
        f"{stored.spec.service} in {stored.spec.environment}",
        f"{stored.spec.stable} → {stored.spec.canary}",
        phase_text(snapshot),
        bp_text(stored.verified_bp),
        ago(stored.created_at, now),
        wait_text(snapshot) if stored.is_active else stored.reason,
    )


def phase_text(snapshot: Snapshot) -> str:
    """The phase as people read it, a pause with its causes."""
    text, causes = snapshot.stored.phase.value.replace("_", " "), snapshot.now.pause_causes
    if snapshot.stored.phase is Phase.PAUSED and causes:
        return f"{text} ({', '.join(cause.value.replace('_', ' ') for cause in causes)})"
    return text


def wait_text(snapshot: Snapshot) -> str:
    """What has to happen next, and in how long, unless the sentence says that itself."""
    text, eta_s = snapshot.now.waits_for, snapshot.now.eta_s
    if eta_s is None or (lasts := duration_text(round(eta_s))) in text:
        return text
    return f"{text}, in about {lasts}"


def silence(stored: StoredRollout, now: float) -> float | None:
    """For how long a running rollout has had no news, when that is longer than it should be."""
    if not stored.is_active:
        return None
    quiet = now - stored.updated_at
    return quiet if quiet > max(SILENT_S, SILENT_TICKS * stored.spec.policy.interval_s) else None


def ago(at: float, now: float) -> str:
    """A moment as people say it.

    >>> ago(100.0, 190.0), ago(100.0, 100.2)
    ('1m30s ago', 'now')
    """
    seconds = round(now - at)
    return f"{duration_text(seconds)} ago" if seconds > 0 else "now"


def event_line(event: Event) -> Text:
    """One event: its time in UTC, its kind, what happened."""
    text = Text(f"  {utc_text(event.at)[11:19]}Z  {event.kind.value:<9} ", style="dim")
    return text.append(event.text, style=STYLE.get(event.kind, "default"))


def _incident_lines(snapshot: Snapshot, now: float) -> Iterable[Text]:
    for incident in snapshot.incidents[:SHOWN_INCIDENTS]:
        yield Text(f"  {ago(incident.at, now):<12} {incident.kind.value}: {incident.detail}", style="red")
    more = len(snapshot.incidents) - SHOWN_INCIDENTS
    if more > 0:
        yield Text(f"  and {more} more", style="dim")


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False, header_style="bold")


def _steps_table(snapshot: Snapshot) -> Table:
    table = _table("step", "weight", "status", "decision", "took")
    for step in snapshot.steps:
        table.add_row(
            f"{'▸' if step.step_index == snapshot.stored.step_index else ' '} {step.step_index + 1}",
            bp_text(step.weight_bp),
            Text(step.status.replace("_", " "), style=_STEP_STYLE.get(step.status, "cyan")),
            step.decision or "",
            _took(step),
        )
    return table


_STEP_STYLE = {PENDING: "dim", DONE: "green"}


def _took(step: StoredStep) -> str:
    if step.began_at is None or step.ended_at is None:
        return ""
    return duration_text(round(step.ended_at - step.began_at))


def _gates_table(scores: Sequence[Score], policy: Policy) -> Table:
    table = _table("gate", "canary", "limit", "stable", "samples", "verdict", "why")
    for score in scores:
        gate = gate_of(score, policy)
        table.add_row(
            score.signal if gate is None else gate.title,
            _value(score),
            _limit(score, gate),
            _share(score.stable_point),
            f"{score.canary_exposure:g} / {score.stable_exposure:g}",
            Text(score.verdict.value, style=STYLE[score.verdict]),
            Text(score.reason),
        )
    return table


def gate_of(score: Score, policy: Policy) -> Gate | None:
    """The gate that a score belongs to; ``None`` when the policy was changed since."""
    gates = policy.gates
    found = gates[score.gate] if score.gate < len(gates) else None
    return found if found is not None and found.signal == score.signal else None


def _value(score: Score) -> str:
    if score.quantile_ms is not None:
        return f"{score.quantile_ms:.0f} ms ({_share(score.canary_point)} slower)"
    return _share(score.canary_point)


def _limit(score: Score, gate: Gate | None) -> str:
    if gate is None or gate.quantile is None:
        return f"≤ {ratio_text(score.limit)}"
    return f"≤ {gate.slo:g} ms (≤ {ratio_text(score.limit)} slower)"


def _share(point: float | None) -> str:
    return "–" if point is None else ratio_text(point)
