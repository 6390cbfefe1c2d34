"""The leaderboard as a picture: delay against false roll-back, one point per judge, one panel per rate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

LEAST_PCT = 0.01
"""Where a judge without any false roll-back is drawn: zero has no place on a logarithmic axis."""


def draw(judges: Mapping[str, Any], path: Path) -> None:
    """Write a PNG (or what the suffix says) of ``board["judges"]``; folders are made."""
    rates = sorted({int(rps) for judge in judges.values() for rps in judge["median_delay_s"]})
    figure = Figure(figsize=(5.0 * max(len(rates), 1), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for place, rps in enumerate(rates, start=1):
        panel = figure.add_subplot(1, len(rates), place)
        panel.set(xscale="log", yscale="log", title=f"{rps} requests/s")
        panel.set_xlabel("false roll-backs, mean over healthy kinds (%)")
        panel.set_ylabel("median delay of regressions (s)")
        panel.set_xlim(LEAST_PCT * 0.7, 150.0)
        panel.set_ylim(4.0, 2000.0)
        panel.grid(True, which="major", alpha=0.3)
        for name, judge in judges.items():
            delay = judge["median_delay_s"].get(str(rps))
            if delay is not None:
                _point(panel, name, _false_pct(judge, rps), delay)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _false_pct(judge: Mapping[str, Any], rps: int) -> float:
    """Mean over the healthy kinds at a rate."""
    healthy: list[float] = [
        cell["false_rollback_pct"]
        for cell in judge["cells"]
        if cell["rps"] == rps and "missed_pct" not in cell
    ]
    return sum(healthy) / max(len(healthy), 1)


def _point(panel: Any, name: str, pct: float, delay_s: float) -> None:
    """Ours are filled; a judge at the left edge had no false roll-back at all."""
    is_ours = name.startswith("evidence")
    x = max(pct, LEAST_PCT)
    panel.plot(
        [x],
        [delay_s],
        marker="o",
        markersize=7,
        fillstyle="full" if is_ours else "none",
        color="C0" if is_ours else "C3",
    )
    right = x > 20.0
    panel.annotate(
        name,
        (x, delay_s),
        xytext=(-7 if right else 7, 4),
        textcoords="offset points",
        fontsize=8,
        ha="right" if right else "left",
    )
