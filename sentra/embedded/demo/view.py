"""The live view: where the rollout stands, each gate against its limit, and what Sentra waits for now."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from domain.policy import Gate, Policy
from domain.rollout import Phase
from domain.units import bp_text, ratio_text
from domain.verdict import Score, Verdict
from sentra.embedded.demo.story import Story

MARKS = {
    Verdict.PASS: ("✓", "green"),
    Verdict.INCONCLUSIVE: ("◐", "bright_black"),
    Verdict.FAIL: ("▲", "yellow"),
    Verdict.SEVERE: ("⬣", "red"),
    Verdict.NO_DATA: ("◌", "magenta"),
}
"""A shape and a colour each, so that colour is never the only sign."""
LAST_EVENTS = 8


def render(story: Story, policy: Policy, title: str, now: float, began: float) -> Panel:
    """One picture of the story so far."""
    parts: list[RenderableType] = [
        _steps(story, policy),
        _gates(story, policy),
        _waits(story),
        _events(story, began),
    ]
    return Panel(Group(*parts), title=title, subtitle=f"{now - began:.0f} s", border_style="blue")


def _steps(story: Story, policy: Policy) -> Text:
    public = story.public
    text = Text()
    for index, weight in enumerate(policy.weights_bp):
        is_now = public is not None and index == public.step_index and story.is_in_force(0)
        is_done = story.is_in_force(index + 1)
        style = "bold reverse blue" if is_now else "green" if is_done else "bright_black"
        mark = "✓ " if is_done else "▸ " if is_now else ""
        text.append(f" {mark}{bp_text(weight)} ", style=style)
        text.append(" ")
    if public is not None:
        phase = public.phase.value.replace("_", " ")
        if public.phase is Phase.PAUSED:
            phase += f" ({', '.join(public.pause_causes)})".replace("_", " ")
        text.append(f"\n{phase}", style="bold")
        text.append(f" · ordered {bp_text(public.ordered_bp)}, in force {bp_text(public.verified_bp)}")
    return text


def _gates(story: Story, policy: Policy) -> Table:
    table = _gate_table()
    by_gate = {score.gate: score for score in story.scores}
    for index, gate in enumerate(policy.gates):
        score = by_gate.get(index)
        limit = _limit(gate)
        if score is None:
            table.add_row(gate.title, "–", "–", limit, "–", "")
            continue
        mark, colour = MARKS[score.verdict]
        table.add_row(
            gate.title,
            _share(score.canary_point),
            _share(score.stable_point),
            limit,
            f"{score.canary_exposure:,.0f}",
            Text(f"{mark} {score.verdict.value}{_quantile(score)}", style=colour),
        )
    return table


def _gate_table() -> Table:
    """Columns that fit 80 characters; a long name is cut rather than the verdict."""
    table = Table(box=None, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("gate", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("canary", justify="right", no_wrap=True)
    table.add_column("stable", justify="right", no_wrap=True)
    table.add_column("limit", no_wrap=True)
    table.add_column("samples", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    return table


def _share(point: float | None) -> str:
    return "–" if point is None else ratio_text(point)


def _limit(gate: Gate) -> str:
    """``≤ 1 %`` of the events, or of them beyond a latency: ``≤ 5 % > 400 ms``."""
    text = f"≤ {ratio_text(gate.limit_share)}"
    return text if gate.quantile is None else f"{text} > {gate.slo:g} ms"


def _quantile(score: Score) -> str:
    return "" if score.quantile_ms is None else f" {score.quantile_ms:.0f} ms"


def _waits(story: Story) -> Text:
    if story.public is None:
        return Text("waits for the first decision")
    return Text(f"waits for {story.public.waits_for}", style="italic")


def _events(story: Story, began: float) -> Text:
    lines = [f"{at - began:5.1f}  {what}" for at, what in list(story.events)[-LAST_EVENTS:]]
    return Text("\n".join(["", *lines]), style="dim", no_wrap=True, overflow="ellipsis")
