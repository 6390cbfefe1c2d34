"""The leaderboard as JSON and as tables.

The JSON's main keys per judge are stable; the others (intervals, rows per cell) may grow. Keys that cannot be
filled, such as promotions of a judge without passing verdicts of its own, are ``null``, never left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.judging.figures import CellFigures, JudgeFigures, Share

PROMOTED_KIND = "iid_0.5"
"""The healthy kind whose time to promote is shown: half of the SLO."""


def judge_json(figures: JudgeFigures) -> dict[str, Any]:
    """One judge's main figures, their intervals and its cells."""
    worst, promotion = figures.worst(), figures.worst_false_promotion()
    rates = [rps for rps in figures.rates if figures.regressions(rps)]
    return {
        "false_rollback_mean_pct": figures.false_rollback().pct,
        "false_rollback_worst_pct": worst.false_rollback.pct if worst else None,
        "false_promotion_worst_pct": _pct(promotion.false_promotion if promotion else None),
        "missed_pct": {str(rps): figures.missed(rps).pct for rps in rates},
        "median_delay_s": {str(rps): figures.typical(rps, lambda cell: cell.median_delay_s) for rps in rates},
        "p90_delay_s": {str(rps): figures.typical(rps, lambda cell: cell.p90_delay_s) for rps in rates},
        "median_exposed_requests": {
            str(rps): figures.typical(rps, lambda cell: cell.median_exposed) for rps in rates
        },
        "promote_healthy_s": {
            str(cell.rps): cell.median_promote_s for cell in figures.healthy if cell.kind == PROMOTED_KIND
        },
        "false_rollback_mean_interval_pct": figures.false_rollback().interval_pct(),
        "false_rollback_worst_interval_pct": worst.false_rollback.interval_pct() if worst else None,
        "false_rollback_worst_cell": _label(worst),
        "false_rollback_worst_seed_pct": max((cell.worst_seed_pct for cell in figures.healthy), default=None),
        "false_promotion_worst_interval_pct": _interval(promotion.false_promotion if promotion else None),
        "false_promotion_worst_cell": _label(promotion),
        "missed_interval_pct": {str(rps): figures.missed(rps).interval_pct() for rps in rates},
        "rollouts": {
            "healthy": figures.false_rollback().of,
            "regressed": sum(figures.missed(rps).of for rps in rates),
        },
        "cells": [cell_json(cell) for cell in figures.cells],
    }


def cell_json(cell: CellFigures) -> dict[str, Any]:
    """One row: a kind at a rate, seeds pooled."""
    row: dict[str, Any] = {
        "kind": cell.kind,
        "rps": cell.rps,
        "rollouts": cell.false_rollback.of,
        "false_rollback_pct": cell.false_rollback.pct,
        "false_rollback_interval_pct": cell.false_rollback.interval_pct(),
        "false_rollback_worst_seed_pct": cell.worst_seed_pct,
        "promoted_pct": _pct(cell.promoted),
        "promote_s": cell.median_promote_s,
    }
    if cell.is_healthy:
        return row
    return row | {
        "in_slo": cell.in_slo,
        "missed_pct": cell.missed.pct,
        "missed_interval_pct": cell.missed.interval_pct(),
        "median_delay_s": cell.median_delay_s,
        "p90_delay_s": cell.p90_delay_s,
        "median_exposed_requests": cell.median_exposed,
        "false_promotion_pct": _pct(cell.false_promotion),
        "false_promotion_interval_pct": _interval(cell.false_promotion),
    }


def suite_json(figures: JudgeFigures) -> dict[str, Any]:
    """A suite of healthy cells only: stress, wrong history."""
    worst = figures.worst()
    return {
        "false_rollback_mean_pct": figures.false_rollback().pct,
        "false_rollback_mean_interval_pct": figures.false_rollback().interval_pct(),
        "false_rollback_worst_pct": worst.false_rollback.pct if worst else None,
        "false_rollback_worst_interval_pct": worst.false_rollback.interval_pct() if worst else None,
        "false_rollback_worst_cell": _label(worst),
        "false_rollback_worst_seed_pct": max((cell.worst_seed_pct for cell in figures.healthy), default=None),
        "cells": [cell_json(cell) for cell in figures.cells],
    }


def print_tables(board: Mapping[str, Any], console: Console) -> None:
    """The whole leaderboard for people."""
    console.print(_main_table(board["judges"]))
    for suite in ("stress", "wrong_history"):
        if any(suite in judge for judge in board["judges"].values()):
            console.print(_suite_table(suite, board["judges"]))
    for name, traces in board["real"].items():
        if isinstance(traces, str):
            console.print(f"real traces, {name}: {traces}")
        else:
            console.print(_real_table(name, traces))
            console.print(_fault_table(name, traces))
    for name, reason in board.get("skipped", {}).items():
        console.print(f"skipped {name}: {reason}")


def _main_table(judges: Mapping[str, Any]) -> Table:
    table = Table(
        title="Simulated rollouts: false alarms in % (95 % interval), then regressions at 10/100/1000 rps"
    )
    for heading in (
        "judge",
        "false roll-back\nmean",
        "worst cell",
        "false\npromotion",
        "missed %",
        "delay s\nmedian",
        "delay s\np90",
        "exposed\nrequests",
        "promote\nhealthy s",
    ):
        table.add_column(heading, justify="left" if heading == "judge" else "right")
    for name, judge in judges.items():
        table.add_row(
            name,
            _with_interval(judge["false_rollback_mean_pct"], judge["false_rollback_mean_interval_pct"]),
            _worst(judge),
            _with_interval(judge["false_promotion_worst_pct"], judge["false_promotion_worst_interval_pct"]),
            _by_rate(judge["missed_pct"], ".3g"),
            _by_rate(judge["median_delay_s"], ".0f"),
            _by_rate(judge["p90_delay_s"], ".0f"),
            _by_rate(judge["median_exposed_requests"], ".0f"),
            _by_rate(judge["promote_healthy_s"], ".0f"),
        )
    return table


def _suite_table(suite: str, judges: Mapping[str, Any]) -> Table:
    table = Table("judge", "mean", "worst cell", title=f"{suite.replace('_', ' ')}: false roll-backs in %")
    for name, judge in judges.items():
        if suite in judge:
            figures = judge[suite]
            table.add_row(
                name,
                _with_interval(
                    figures["false_rollback_mean_pct"], figures["false_rollback_mean_interval_pct"]
                ),
                _worst(figures),
            )
    return table


def _real_table(name: str, traces: Mapping[str, Any]) -> Table:
    effects = traces["effects"]
    table = Table(
        "judge",
        "arms by",
        "A/A %",
        *[f"{effect}\ndetected %, median s" for effect in effects],
        title=f"{name}: {traces['requests']} real requests in {traces['minutes']:.1f} min, slowed on purpose",
    )
    for judge, figures in traces["judges"].items():
        for arms, found in figures["divisions"].items():
            table.add_row(
                judge,
                arms,
                _with_interval(found["false_rollback_pct"], found["false_rollback_interval_pct"]),
                *[f"{found['detected_pct'][e]:.3g}, {found['median_delay_s'][e] or 0:.0f}" for e in effects],
            )
    return table


def _fault_table(name: str, traces: Mapping[str, Any]) -> Table:
    table = Table(
        "judge",
        "A/A %",
        "found in > 25 % of resplits",
        "by type: detected %, median s (root | pod)",
        title=f"{name}: {traces['faults']} real faults spliced into the canary arm",
    )
    for judge, figures in traces["judges"].items():
        faults = figures["faults"]
        table.add_row(
            judge,
            _with_interval(faults["false_rollback_pct"], faults["false_rollback_interval_pct"]),
            f"{faults['detected']} of {traces['faults']}",
            "\n".join(_fault_line(kind, views) for kind, views in faults["by_type"].items()),
        )
    return table


def _fault_line(kind: str, views: Mapping[str, Any]) -> str:
    found = " | ".join(f"{each['detected_pct']:.3g}, {each['median_delay_s']:.0f}" for each in views.values())
    return f"{kind} {found}"


def _with_interval(pct: float | None, interval: tuple[float, float] | None) -> str:
    if pct is None or interval is None:
        return "-"
    return f"{pct:.3g} ({interval[0]:.2g}-{interval[1]:.2g})"


def _worst(figures: Mapping[str, Any]) -> str:
    rate = _with_interval(figures["false_rollback_worst_pct"], figures["false_rollback_worst_interval_pct"])
    return f"{rate}\n{figures['false_rollback_worst_cell']}"


def _by_rate(figures: Mapping[str, float | None], form: str) -> str:
    return " / ".join("-" if each is None else format(each, form) for each in figures.values()) or "-"


def _label(cell: CellFigures | None) -> str | None:
    return None if cell is None else f"{cell.kind}@{cell.rps}"


def _pct(share: Share | None) -> float | None:
    return None if share is None else share.pct


def _interval(share: Share | None) -> tuple[float, float] | None:
    return None if share is None else share.interval_pct()
