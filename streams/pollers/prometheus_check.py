"""What a source has for a policy, found out by asking each of its queries once.

Nothing here is used while a rollout runs. It is for the moment before: a label that is missing, a limit that
is no bucket edge and a scrape interval longer than a tick are cheaper to find now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from domain.clock import tick_floor
from domain.errors import SourceError
from domain.signal import Arm
from domain.units import duration_text
from streams.pollers.base import Target, edges_around
from streams.pollers.prometheus import PrometheusSource
from streams.pollers.prometheus_answers import RawSeries
from streams.pollers.prometheus_book import Book, Chunk, Edges
from streams.pollers.prometheus_plan import LATENCY, Role, needed_signals, query_of
from streams.pollers.prometheus_selectors import Selector, instant_query
from streams.pollers.prometheus_series import Reading

TIMEOUT_S = 10.0
"""Twice what a tick allows: a person waits, and wants the answer."""
OLD_S = 60.0
"""A newest sample older than this means that nothing is scraped there any more."""


class Severity(Enum):
    """What a finding means for a rollout."""

    FINE = "fine"
    WARNING = "warning"
    """It works, but worse than it could."""
    FAULT = "fault"
    """A gate will have no data."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found out. ``subject`` is a signal, or an arm of one."""

    severity: Severity
    subject: str
    text: str


async def check(source: PrometheusSource, target: Target, interval_s: float, now: float) -> list[Finding]:
    """Everything worth knowing before ``target`` is rolled out with ticks of ``interval_s``.

    Never raises :class:`SourceError`: what a query answers, or why not, is a finding.
    """
    end = tick_floor(now, interval_s)
    book = Book(source.settings, interval_s)
    book.note_wishes([target], end)
    offered = needed_signals(source.settings, target.signals)
    findings = [
        Finding(Severity.FAULT, signal, "the source is not set up to give it")
        for signal in target.signals
        if signal not in offered
    ]
    for chunk in book.chunks(end):
        findings += await _check_chunk(source, target, chunk, end, interval_s)
    return findings


async def _check_chunk(
    source: PrometheusSource, target: Target, chunk: Chunk, end: float, interval_s: float
) -> list[Finding]:
    findings: list[Finding] = []
    readings: list[Reading] = []
    try:
        edges = await source.edges_of(chunk, end, 2 * TIMEOUT_S)
        info = await source.info_of(chunk, end, 2 * TIMEOUT_S)
    except SourceError as exc:
        return [Finding(Severity.FAULT, source.name, str(exc))]
    scope = source.naming.matchers(chunk.scopes, chunk.wish.environments)
    for reader in source.readers:
        signals = reader.ask.signals(chunk.wish.signals)
        if not signals:
            continue
        query = query_of(reader.ask, chunk.wish.signals, scope, None, chunk.window_s)
        try:
            readings += reader.read(await source.client.query(query, end, TIMEOUT_S), info=info, chunk=chunk)
        except SourceError as exc:
            findings += [Finding(Severity.FAULT, signal, str(exc)) for signal in sorted(signals)]
    for signal in sorted(chunk.wish.signals):
        for arm in Arm:
            findings += _check_arm(source, target, signal, arm, readings, end, interval_s)
    if LATENCY in chunk.wish.signals:
        findings += _check_edges(target, edges)
    if not readings:
        findings += await _why_nothing(source, end)
    return findings


def _check_arm(
    source: PrometheusSource,
    target: Target,
    signal: str,
    arm: Arm,
    readings: Iterable[Reading],
    end: float,
    interval_s: float,
) -> Iterator[Finding]:
    """Whether the arm's total is there, how fresh it is, and how often it is scraped."""
    subject = f"{signal} of {arm.value} ({target.version(arm)})"
    pattern = source.naming.pattern(target, arm)
    own = [
        each.timeline
        for each in readings
        if pattern.holds(each.timeline.lane.place)
        and any(name in ((signal, Role.TOTAL), (signal, Role.COUNT)) for name in each.counters)
    ]
    if not own:
        label = source.settings.version_label
        yield Finding(
            Severity.FAULT, subject, f"no series of its total has {label}={pattern.version.pattern!r}"
        )
        return
    age_s = end - max(each.samples[-1][0] for each in own if each.samples)
    if age_s > OLD_S:
        yield Finding(Severity.FAULT, subject, f"its newest sample is {age_s:.0f} s old")
        return
    yield Finding(Severity.FINE, subject, f"{len(own)} series, the newest sample is {age_s:.1f} s old")
    gaps = [
        after[0] - before[0]
        for each in own
        for before, after in zip(each.samples, each.samples[1:], strict=False)
    ]
    if gaps and min(gaps) > 1.2 * interval_s:
        every = duration_text(round(min(gaps)))
        yield Finding(
            Severity.WARNING,
            subject,
            f"it is scraped every {every}: most ticks of {duration_text(interval_s)} will have no data; "
            f"set the policy's interval to {every} or more",
        )


def _check_edges(target: Target, edges: Edges) -> Iterator[Finding]:
    """A limit between two edges leaves the slow requests between them in doubt."""
    known = sorted(edges)
    for limit in sorted(set(target.signals.get(LATENCY, ()))):
        if limit in edges or not known:
            continue
        around = " and ".join(f"{edge:g}" for edge in edges_around(known, [limit]))
        text = f"{limit:g} ms is no bucket edge; next to it are {around} ms"
        yield Finding(Severity.WARNING, LATENCY, text)
    if known and len(known) == 1:
        yield Finding(Severity.WARNING, LATENCY, "its histogram has a single bucket")


async def _why_nothing(source: PrometheusSource, end: float) -> list[Finding]:
    """Whether the counter of requests exists at all, and which of the labels its series lack."""
    selector = Selector.parse(source.settings.requests)
    labels = [
        label
        for label in (
            source.settings.service_label,
            source.settings.environment_label,
            "" if source.settings.info else source.settings.version_label,
        )
        if label
    ]
    bare = instant_query([selector.metric], selector.matchers)
    try:
        everything = _number(await source.client.query(f"count({bare})", end, TIMEOUT_S))
        if not everything:
            return [Finding(Severity.FAULT, source.name, f"there is no series of {source.settings.requests}")]
        findings = []
        for label in labels:
            lacking = instant_query([selector.metric], [*selector.matchers, f'{label}=""'])
            count = _number(await source.client.query(f"count({lacking})", end, TIMEOUT_S))
            if count:
                text = f"{count:.0f} of {everything:.0f} series of {selector.metric} have no label {label}"
                findings.append(Finding(Severity.FAULT, source.name, text))
    except SourceError as exc:
        return [Finding(Severity.FAULT, source.name, str(exc))]
    return findings


def _number(answer: Iterable[RawSeries]) -> float:
    """The single number of an aggregate; 0 when there was nothing to aggregate."""
    return sum(float(raw.value[1]) for raw in answer if raw.value is not None)
