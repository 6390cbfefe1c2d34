"""What ``sentra calibrations`` shows people: numbers in a table, and below it what they mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from domain.calibration import DISPERSION_BINS, WARMUP_BLOCK_S, Calibration, Law, Tier
from domain.clock import utc_text
from domain.units import duration_text, ratio_text
from store.calibrations import Place, StoredCalibration

ENOUGH = 20
"""Finished healthy rollouts that tier R2 needs (``learn.calibrate.MIN_ROLLOUTS``, held equal by a test)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known in one place: rollouts that are remembered, and what was learnt of them, if anything."""

    place: Place
    remembered: int
    healthy: int
    newest: StoredCalibration | None
    ended: dict[str, float]
    """When the first and the last rollout it was learnt from ended."""


def row(known: Known, now: float) -> tuple[str, ...]:
    """Its line in the list."""
    place, newest = known.place, known.newest
    where = (place.service, place.environment, duration_text(place.interval_s))
    healthy = f"{known.healthy} of {known.remembered}"
    if newest is None:
        return (*where, Tier.R0.value, healthy, "", "", not_yet(known))
    learnt = f"{_ago(newest.at, now)}, from {newest.calibration.runs}"
    tier = newest.calibration.tier
    return (*where, tier.value, healthy, f"{newest.version}", learnt, tier.meaning)


def screen(known: Known, now: float) -> RenderableType:
    """Everything worth saying about one place."""
    place = known.place
    title = Text.assemble(
        (place.service, "bold"), f" in {place.environment}, judged every {duration_text(place.interval_s)}"
    )
    if known.newest is None:
        return Group(title, Text(f"tier R0   {Tier.R0.meaning}"), Text(f"          {not_yet(known)}"))
    calibration = known.newest.calibration
    lines: list[RenderableType] = [title, *_head(known, known.newest, now), Text()]
    return Group(*lines, _series_table(calibration), Text(), *map(Text, _legend(calibration)))


def not_yet(known: Known) -> str:
    return f"{known.healthy} of the {ENOUGH} healthy rollouts that are needed, and stable's replicas unknown"


def _head(known: Known, newest: StoredCalibration, now: float) -> Iterable[Text]:
    calibration = newest.calibration
    yield Text(f"tier {calibration.tier.value}   {calibration.tier.meaning}")
    yield Text(f"version   {newest.version}, learnt {_ago(newest.at, now)}")
    first, last = (_dated(known, each) for each in (calibration.first_rollout, calibration.last_rollout))
    yield Text(f"from      {calibration.runs} rollouts, {first} to {last}")
    if calibration.rps is not None:
        yield Text(f"traffic   {calibration.rps:,.4g} requests a second, both versions together")
    if calibration.threshold is not None:
        yield Text(f"threshold {_threshold(calibration, calibration.threshold)}")


def _dated(known: Known, rollout_id: str) -> str:
    ended = known.ended.get(rollout_id)
    return rollout_id if ended is None else f"{rollout_id} ({utc_text(ended)[:10]})"


def _threshold(calibration: Calibration, nats: float) -> str:
    return (
        f"{nats:.2f} nats: a rollout is severe when the evidence against its canary is "
        f"{exp(nats):,.0f} to 1; at most {ratio_text(calibration.alpha)} of healthy ones ever look so bad"
    )


def _series_table(calibration: Calibration) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("series", "stable's rate", "tau", "correlated", "dispersion"):
        table.add_column(column, no_wrap=True)
    table.add_column("warm-up, step 1")
    table.add_column("later steps")
    for name, law in calibration.laws.items():
        table.add_row(*map(Text, (name, _rate(calibration, name), *_numbers(law))))
    for name, law in calibration.halves.items():
        table.add_row(*map(Text, (f"{name}, stable's halves", "", *_numbers(law)[:3], "", "")))
    return table


def _rate(calibration: Calibration, name: str) -> str:
    return ratio_text(calibration.rates[name]) if name in calibration.rates else ""


def _numbers(law: Law) -> tuple[str, ...]:
    first, later = (
        " ".join(f"{margin:.3g}" for margin in margins) + ("" if law.has_learnt_warmup else " (not learnt)")
        for margins in law.warmup_margin
    )
    memory = "for good" if law.memory_s is None else duration_text(law.memory_s)
    return f"{law.tau:.2g}", memory if law.tau else "", _range(law.dispersion), first, later


def _range(numbers: tuple[float, ...]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{most:.3g}" if f"{least:.3g}" == f"{most:.3g}" else f"{least:.3g} to {most:.3g}"


def _legend(calibration: Calibration) -> Iterable[str]:
    """What the columns mean."""
    widest = max(calibration.laws.values(), key=lambda law: law.tau)
    if widest.tau:
        yield (
            f"tau         how far a healthy canary's rate wanders from stable's: {widest.tau:.2g} means that "
            f"×{exp(widest.tau):.2f} or ÷{exp(widest.tau):.2f} is nothing unusual"
        )
    else:
        yield "tau         how far a healthy canary's rate wanders from stable's: here not at all"
    yield (
        "correlated  how long such a difference lasts; for good: versions differ, and stay so, without being "
        "worse"
    )
    yield (
        "dispersion  how much more events come in clusters than independent requests would make them (1), by "
        f"events in a tick (1 to over {DISPERSION_BINS[-1]})"
    )
    yield (
        "warm-up     how many times stable's rate a healthy canary may show while it is cold, by blocks of "
        f"{duration_text(WARMUP_BLOCK_S)} after a weight change"
    )
    if calibration.halves:
        yield (
            "halves      how one half of stable's replicas differs from the other; when they differ by more "
            "during a rollout, what was learnt counts no longer and it is judged as an unknown service"
        )


def _ago(at: float, now: float) -> str:
    seconds = round(now - at)
    return f"{duration_text(seconds)} ago" if seconds > 0 else "now"
