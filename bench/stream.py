"""What judging costs one worker, and how long after its frames a decision is there.

``python -m bench.stream [--rollouts 1000] [--seconds 40] [--search-seconds 420] [--json]``

A real broker (Tansu), one worker process as ``sentra worker`` runs it, and a process that publishes what
pollers would: four gates, two arms, one tick every five seconds, windows full. The same work is then done by
a plain aiokafka loop around the same judge, and in plain Faust style with one record per sample.
Keys of ``--json``: bench/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench._fleet import INTERVAL_S, SAMPLES_PER_TICK
from bench._stage import Stage, Stretch, percentile, say, staged
from domain.clock import SystemClock

NAIVE_ROLLOUTS = 1_000
"""At most so many for the per-sample style, which is about as many as one such worker keeps up with."""
FAILURES = 3
"""Rollouts that begin to fail in each measured tick, so that real decisions are timed."""
SEARCH_STEPS = (0.5, 0.65, 0.8, 0.95, 1.1)
"""Sizes tried, ascending, as shares of what the measured cost says one core can do."""
SEARCH_TICKS = 4

GOALS = {
    "core_share": "<= 0.25",
    "p99_ms": "<= 1000",
    "decision_p99_ms": "<= 1000",
    "ratio_to_per_sample": ">= 20",
    "max_rollouts": ">= 10000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured; meanings and units: bench/README.md."""

    rollouts: int
    ticks: int
    core_share: float
    cpu_us_per_sample: float
    p50_ms: float
    p99_ms: float
    decisions: int
    decision_p50_ms: float
    decision_p99_ms: float
    peak_rss_mb: float
    bare_core_share: float
    ratio_to_bare_loop: float
    naive_rollouts: int
    naive_cpu_us_per_sample: float
    ratio_to_per_sample: float
    max_rollouts: int
    max_rollouts_p99_ms: float


async def measure(folder: Path, *, rollouts: int, ticks: int, search_s: float) -> Figures:
    """The whole measurement, in ``folder``."""
    async with staged(folder / "judge", "judge") as stage:
        ours = await _stretch(stage, rollouts, ticks, failures=FAILURES)
        decided = stage.watch.roll_back_ms()
        largest = await _search(stage, ours, search_s)
    async with staged(folder / "bare", "bare") as stage:
        bare = await _stretch(stage, rollouts, ticks)
    naive_us = await _naive_us_per_sample(folder / "naive", min(rollouts, NAIVE_ROLLOUTS), ticks)
    us_per_sample = ours.cpu_us_per_tick / SAMPLES_PER_TICK
    return Figures(
        rollouts=rollouts,
        ticks=ticks,
        core_share=ours.core_share,
        cpu_us_per_sample=us_per_sample,
        p50_ms=percentile(ours.lags_ms, 0.50),
        p99_ms=percentile(ours.lags_ms, 0.99),
        decisions=len(decided),
        decision_p50_ms=percentile(decided, 0.50),
        decision_p99_ms=percentile(decided, 0.99),
        peak_rss_mb=ours.peak_rss_mb,
        bare_core_share=bare.core_share,
        ratio_to_bare_loop=ours.cpu_us_per_tick / bare.cpu_us_per_tick,
        naive_rollouts=min(rollouts, NAIVE_ROLLOUTS),
        naive_cpu_us_per_sample=naive_us,
        ratio_to_per_sample=naive_us / us_per_sample,
        max_rollouts=largest.rollouts,
        max_rollouts_p99_ms=percentile(largest.lags_ms, 0.99),
    )


async def _stretch(stage: Stage, rollouts: int, ticks: int, *, failures: int = 0) -> Stretch:
    say(f"{stage.run.folder.name}: starting {rollouts} rollouts")
    began = SystemClock().now()
    await stage.grow(rollouts)
    say(f"  started within {SystemClock().now() - began:.1f} s; filling the windows")
    await stage.fill_windows()
    stretch = await stage.measure(ticks, failures=failures)
    say(f"  {_described(stretch)}")
    return stretch


async def _search(stage: Stage, known: Stretch, budget_s: float) -> Stretch:
    """The largest size that one worker sustains, out of a few, as far as the time allows."""
    deadline = SystemClock().now() + budget_s
    best, fits = known, known.rollouts / known.core_share
    for share in SEARCH_STEPS:
        size = int(fits * share / 100) * 100
        if size <= best.rollouts or SystemClock().now() > deadline:
            continue
        say(f"judge: trying {size} rollouts")
        try:
            await stage.grow(size)
        except TimeoutError:
            break
        await stage.fill_windows()
        stretch = await stage.measure(SEARCH_TICKS)
        say(f"  {_described(stretch)}")
        if not _is_sustained(stretch):
            break
        best = stretch
    return best


def _is_sustained(stretch: Stretch) -> bool:
    """Every tick judged, within a tick, and the last one no later than the first by more than a fifth."""
    tick_ms = INTERVAL_S * 1000
    grows = stretch.last_ms - stretch.first_ms > tick_ms / 5
    return stretch.is_complete and not grows and percentile(stretch.lags_ms, 0.99) <= tick_ms


async def _naive_us_per_sample(folder: Path, rollouts: int, ticks: int) -> float:
    async with staged(folder, "naive") as stage:
        say(f"naive: {rollouts} rollouts, one record per sample; filling the windows")
        stage.run.order(rollouts)
        await stage.fill_windows()
        used, verdicts = await stage.measure_naive(ticks)
    say(f"  {used.cpu_s:.2f} s of CPU for {verdicts} verdicts of {rollouts * ticks}")
    return used.cpu_s / (verdicts * SAMPLES_PER_TICK) * 1e6


def _described(stretch: Stretch) -> str:
    lags = stretch.lags_ms
    return (
        f"{stretch.core_share:.1%} of a core, {stretch.cpu_us_per_tick:.0f} us per rollout and tick, "
        f"p50 {percentile(lags, 0.5):.0f} ms, p99 {percentile(lags, 0.99):.0f} ms, "
        f"{len(lags)} of {stretch.rollouts * stretch.ticks} judged, peak {stretch.peak_rss_mb:.0f} MB"
    )


def _print(figures: Figures) -> None:
    table = Table("figure", "measured", "to reach")
    for name, value in asdict(figures).items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value), GOALS.get(name, ""))
    Console().print(table)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="bench.stream", description="Cost and delay of judging.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--rollouts", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=40.0, help="measured per flavour, windows full")
    parser.add_argument("--search-seconds", type=float, default=420.0, help="0: no search for the maximum")
    asked = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="sentra-bench-") as folder:
        figures = asyncio.run(
            measure(
                Path(folder),
                rollouts=asked.rollouts,
                ticks=max(1, round(asked.seconds / INTERVAL_S)),
                search_s=asked.search_seconds,
            )
        )
    if asked.json:
        print(json.dumps(asdict(figures)))
    else:
        _print(figures)


if __name__ == "__main__":
    main()
