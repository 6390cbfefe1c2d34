"""From points of series to increments that count every request once. Holds what is remembered of senders.

A *delta* point is an increment as it stands; the same ``(start, time)`` of a series again is the same point.

A *cumulative* point counts since its start; each start of a series is a life of its own, so what the last
point of a life did not hold yet is the increment, and a restart is a new life that begins at 0::

    start 0      ──20────────50────┐                       +20  +30
    start 7                     x  └──5───────9             +5   +4    (reset: what 0 counted last is lost)

A life that is met in its midst has counted before we listened: its first point is the reading to subtract
from, and counts nothing. It is *not* met in its midst when it began after we did, after the last that we had
heard of its series, or when other series of the same metric and the same life were heard before: a series
that was not there then (a first failure) has counted from 0 since.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from domain.signal import Quality
from streams.pollers.otlp_count import NANOS, Attributes, Count, Origin, Taken
from streams.pollers.otlp_histograms import Histogram, since
from streams.pollers.otlp_metrics import MetricKey, Point

REMEMBERED = 64
"""Points of a delta series that are known again: exporters try for ten seconds, collectors for minutes."""
LIVES = 8
"""Lives of a series; more than one go on at once when instances share a name."""
FORGOTTEN_S = 900.0
"""A metric that was silent for as long is forgotten; what it sends then is a new reading."""


@dataclass(slots=True)
class _Life:
    time: int
    count: float
    latencies: Histogram


@dataclass(slots=True)
class _Series:
    newest: int = 0
    lives: dict[int, _Life] = field(default_factory=dict)
    deltas: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


@dataclass(slots=True)
class _Metric:
    """All series of one metric of one resource."""

    origin: Origin
    heard_at: float = 0.0
    last: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By start: the last two different times of its points. A collection has one time for all series."""
    series: dict[Attributes, _Series] = field(default_factory=dict)

    def last_before(self, start: int, time: int) -> int:
        """When this life was last heard of before the collection of ``time``; 0 for never."""
        return max((each for each in self.last.get(start, ()) if each < time), default=0)

    def hear(self, start: int, time: int) -> None:
        before, last = self.last.get(start, (0, 0))
        if time > last:
            self.last.pop(start, None)
            self.last[start] = (last, time)
            while len(self.last) > LIVES:
                del self.last[next(iter(self.last))]
        elif before < time < last:
            self.last[start] = (time, last)


class Streams:
    """What is remembered of all senders, at most ``max_series`` series per service."""

    def __init__(self, born: float, max_series: int, max_services: int) -> None:
        self._born = born
        self._most = max_series
        self._most_services = max_services
        self._metrics: dict[MetricKey, _Metric] = {}
        self._sizes: Counter[str] = Counter()
        """Series by service."""
        self._ranks: dict[tuple[Origin, str], int] = {}

    def take(self, point: Point, now: float, taken: Taken) -> None:
        """Put what ``point`` counted into ``taken``, or say why nothing."""
        if not self._is_preferred(point):
            return
        series = self._series(point, now)
        if series is None:
            taken.refuse(1, f"{point.origin.service} sends more than {self._most} series of requests")
            taken.counts.append(_count(point, point.time, quality=Quality.PARTIAL))
        elif point.is_delta:
            self._take_delta(point, series, taken)
        else:
            self._take_cumulative(point, self._metrics[point.key], series, taken)

    def forget(self, now: float) -> None:
        """Let go of metrics that were silent for long."""
        for key, metric in list(self._metrics.items()):
            if now - metric.heard_at > FORGOTTEN_S:
                del self._metrics[key]
                self._sizes[metric.origin.service] -= len(metric.series)
                if not self._sizes[metric.origin.service]:
                    del self._sizes[metric.origin.service]
        heard = {metric.origin for metric in self._metrics.values()}
        self._ranks = {each: rank for each, rank in self._ranks.items() if each[0] in heard}

    def _is_preferred(self, point: Point) -> bool:
        """Whether no newer convention of the same protocol counts the same requests."""
        protocol = (point.origin, point.convention.protocol)
        best = self._ranks.setdefault(protocol, point.convention.rank)
        if point.convention.rank < best:
            self._ranks[protocol] = point.convention.rank
        return point.convention.rank <= best

    def _series(self, point: Point, now: float) -> _Series | None:
        """The series of a point; ``None`` when its service has too many."""
        metric = self._metrics.get(point.key)
        service = point.origin.service
        if metric is None:
            metric = _Metric(point.origin)
        found = metric.series.get(point.series)
        if found is None:
            is_full = len(self._sizes) >= self._most_services and service not in self._sizes
            if is_full or self._sizes[service] >= self._most:
                return None
            self._metrics[point.key] = metric
            found = metric.series[point.series] = _Series()
            self._sizes[service] += 1
        metric.heard_at = now
        return found

    def _take_delta(self, point: Point, series: _Series, taken: Taken) -> None:
        span = (point.start, point.time)
        if point.start < series.newest and span in series.deltas:
            taken.note("a point was sent again; it counts once")
            return
        series.deltas.append(span)
        series.newest = max(series.newest, point.time)
        taken.counts.append(_count(point, point.start, count=point.count, latencies=point.latencies))

    def _take_cumulative(self, point: Point, metric: _Metric, series: _Series, taken: Taken) -> None:
        heard_before = metric.last_before(point.start, point.time)
        metric.hear(point.start, point.time)
        life = series.lives.get(point.start)
        if life is not None and point.time <= life.time:
            if point.time == life.time and point.count == life.count:
                taken.note("a point was sent again; it counts once")
            else:
                taken.note("a point came later than its successor, which holds what it counted")
            return
        taken.counts.append(self._increment(point, series, life, heard_before))
        series.lives.pop(point.start, None)
        series.lives[point.start] = _Life(point.time, point.count, point.latencies)
        while len(series.lives) > LIVES:
            del series.lives[next(iter(series.lives))]
        series.newest = max(series.newest, point.time)

    def _increment(self, point: Point, series: _Series, life: _Life | None, heard_before: int) -> Count:
        if life is not None:
            counted = since(point.latencies, life.latencies)
            if counted is not None:
                return _count(point, life.time, count=point.count - life.count, latencies=counted)
            # It fell without saying that it began anew.
            return _whole(point, life.time, Quality.RESET)
        if not point.start or point.start == point.time:
            # Nobody knows since when it counts.
            return _count(point, point.time, quality=Quality.RESET if series.lives else Quality.FIRST)
        if series.lives:
            follows = point.start >= series.newest
            return _whole(point, point.start, Quality.RESET) if follows else _first(point, self._born)
        if heard_before:
            return _whole(point, max(point.start, heard_before), Quality.WHOLE)
        return _first(point, self._born)


def _first(point: Point, born: float) -> Count:
    """The first point of a life: all of it if it began after we did, otherwise nothing."""
    if point.start >= born * NANOS:
        return _whole(point, point.start, Quality.WHOLE)
    return _count(point, point.time, quality=Quality.FIRST)


def _whole(point: Point, start: int, quality: Quality) -> Count:
    return _count(point, start, count=point.count, latencies=point.latencies, quality=quality)


def _count(
    point: Point,
    start: int,
    *,
    count: float = 0.0,
    latencies: Histogram | None = None,
    quality: Quality = Quality.WHOLE,
) -> Count:
    if latencies is not None and latencies.is_coarse:
        quality |= Quality.INEXACT
    return Count(
        origin=point.origin,
        start=start / NANOS,
        time=point.time / NANOS,
        total=count,
        bad=count if point.convention.is_failure(point.series) else 0.0,
        latencies=latencies,
        quality=quality,
    )
